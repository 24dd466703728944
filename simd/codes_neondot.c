/* SPDX-License-Identifier: Apache-2.0
 *
 * simd/codes_neondot.c - kernels for codes of arm64 with SDOT (Armv8.2 DotProd)
 */
#if defined(__aarch64__)

#include "simd/codes_neon.h"

FORCED int32x4_t dot(int32x4_t sum, int8x16_t q, int8x16_t x)
{
    return vdotq_s32(sum, q, x);
}

#include "simd/codes_shape.h"

VDB_CODE_KERNELS(dotprod)

#else
typedef int vdb_no_dotprod_codes; /* a translation unit must not be empty */
#endif
