/* SPDX-License-Identifier: Apache-2.0
 *
 * simd/codes_neon.c - kernels for codes of arm64, any processor
 */
#if defined(__aarch64__)

#include "simd/codes_neon.h"

/* A product of two signed bytes fits 16 bits; two of them together may not. */
FORCED int32x4_t dot(int32x4_t sum, int8x16_t q, int8x16_t x)
{
    sum = vpadalq_s16(sum, vmull_s8(vget_low_s8(q), vget_low_s8(x)));
    return vpadalq_s16(sum, vmull_high_s8(q, x));
}

#include "simd/codes_shape.h"

VDB_CODE_KERNELS(neon)

#else
typedef int vdb_no_neon_codes; /* a translation unit must not be empty */
#endif
