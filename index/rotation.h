/* SPDX-License-Identifier: Apache-2.0
 *
 * index/rotation.h - a random rotation of n values in O(n log n): see rotation.c
 */
#ifndef VDB_INDEX_ROTATION_H
#define VDB_INDEX_ROTATION_H

#include "base/memory.h"
#include "simd/kernels.h"

struct vdb_rotation {
    uint32_t n_values; /* a multiple of 64 */
    uint32_t n_turned; /* the largest power of two that is not above it */
    uint32_t n_rounds;
    float *factors; /* n_rounds * n_values: signs, times 1 / sqrt(n_turned) where the transform follows */
};

/* The same seed and n_values give the same rotation on every machine. NOMEM. Released by release. */
int vdb_rotation_init(struct vdb_rotation *rotation, struct vdb_memory *memory, uint32_t n_values, uint64_t seed,
                      vecdb_error *err);
void vdb_rotation_release(struct vdb_rotation *rotation, struct vdb_memory *memory);

/* In place; `values` is aligned to 64 bytes. Any thread. */
void vdb_rotation_apply(const struct vdb_rotation *rotation, const struct vdb_kernels *kernels, float *values);

#endif
