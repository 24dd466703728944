/* SPDX-License-Identifier: Apache-2.0
 *
 * simd/keys_scalar.c - a sorted list of a few hundred keys, kept by binary search and memmove
 *
 * Serves AVX2 and NEON too: without 64-bit unsigned minimum and maximum, blocks of 4 or 2 keys win nothing.
 */
#include "simd/kernels_private.h"

/* The first place whose key is not below `key`. */
static uint32_t place_of(const uint64_t *keys, uint32_t n, uint64_t key)
{
    const uint64_t *at = keys;
    while (n > 1) {
        uint32_t half = n / 2;
        at += at[half - 1] < key ? half : 0;
        n -= half;
    }
    return (uint32_t)(at - keys) + (n == 1 && *at < key);
}

VDB_INSERT_KEYS(vdb_scalar_insert_keys)
{
    uint32_t lowest = limit;
    for (uint32_t i = 0; i < n_fresh; i++) {
        uint64_t key = fresh[i];
        if (*n == limit && key >= keys[limit - 1])
            continue;
        uint32_t n_kept = *n < limit ? *n : limit - 1, place = place_of(keys, n_kept, key);
        memmove(keys + place + 1, keys + place, (n_kept - place) * sizeof key);
        keys[place] = key;
        *n = n_kept + 1;
        lowest = place < lowest ? place : lowest;
    }
    return lowest;
}
