/* SPDX-License-Identifier: Apache-2.0
 *
 * simd/kernels_tail.h - the last values of a row, for tiers without masked loads
 *
 * A row of at least one vector is read once more, ending at its last value, and the lanes that
 * were counted before are set to zero (by a bit mask: what is there may be NaN):
 *
 *     row    0 1 2 3 4 5 6 7 8 9 10        LANES = 8, d = 11, rest = 3
 *                  [. . . . . 8 9 10]      load at d - LANES, keep the last 3 lanes
 *
 * A shorter row is copied to a buffer of zeros. The tier gives keep_last(v, n): the last n lanes
 * of v, zeros in the others, 0 < n < LANES.
 */
#ifndef VDB_SIMD_KERNELS_TAIL_H
#define VDB_SIMD_KERNELS_TAIL_H

#include <string.h>

#include "simd/kernels_private.h"

/* LANES words of zeros, then as many of ones: from word n on, a mask for the last n lanes. */
static const uint32_t keep_words[2 * LANES] = {
    [LANES] = UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX};
_Static_assert(LANES == 8, "keep_words has eight ones");

static inline __attribute__((always_inline)) vec load_tail(int type, const void *row, uint32_t d)
{
    const size_t size = type == VECDB_F32 ? 4 : type == VECDB_F16 || type == VECDB_BF16 ? 2 : 1;
    if (d >= LANES)
        return keep_last(load(type, (const char *)row + (d - LANES) * size), d % LANES);
    char buffer[LANES * 4] = {0};
    vdb_copy_few(buffer, row, d * size);
    return load(type, buffer);
}

#endif
