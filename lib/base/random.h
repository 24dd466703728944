/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/base/random.h - a seeded generator: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
 * The same seed gives the same numbers on every machine.
 */
#ifndef VDB_BASE_RANDOM_H
#define VDB_BASE_RANDOM_H

#include <stdint.h>

struct vdb_random {
    uint64_t state;
};

static inline uint64_t vdb_random_next(struct vdb_random *random)
{
    uint64_t z = random->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* 0 .. n - 1, n > 0; the bias is below n / 2^64. */
static inline uint64_t vdb_random_below(struct vdb_random *random, uint64_t n)
{
    return (uint64_t)(((unsigned __int128)vdb_random_next(random) * n) >> 64);
}

/* Uniform in [0, 1). */
static inline double vdb_random_unit(struct vdb_random *random)
{
    return (double)(vdb_random_next(random) >> 11) * 0x1p-53;
}

#endif
