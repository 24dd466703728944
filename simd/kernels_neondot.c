/* SPDX-License-Identifier: Apache-2.0
 *
 * simd/kernels_neondot.c - integer and bit kernels of arm64 with SDOT and UDOT (Armv8.2 DotProd)
 *
 * One instruction multiplies 16 pairs of bytes and adds groups of four to 32 bits, exactly.
 * Counted bits are added the same way, as a product with ones. Floats: kernels_neon.c.
 */
#if defined(__aarch64__)

#include "simd/kernels_neon_bytes.h"

BYTES_INLINE counts integers_dot(int type, counts sum, integers q, integers x)
{
    if (type == VECDB_U8)
        return vdotq_u32(sum, q, x);
    return vreinterpretq_u32_s32(
        vdotq_s32(vreinterpretq_s32_u32(sum), vreinterpretq_s8_u8(q), vreinterpretq_s8_u8(x)));
}
BYTES_INLINE counts bits_count(counts sum, bits q, bits x)
{
    return vdotq_u32(sum, vcntq_u8(veorq_u8(q, x)), vdupq_n_u8(1));
}

#include "simd/kernels_integer.h"

VDB_INTEGER_KERNELS(dotprod)

const struct vdb_kernels vdb_dotprod_kernels = {
    .name = "neon-dotprod",
    VDB_TABLE_FLOAT(neon),
    VDB_TABLE_INTEGER(dotprod, NULL, NULL),
    VDB_TABLE_CODES(dotprod),
    VDB_TABLE_KEYS(scalar),
};

#else
typedef int vdb_no_dotprod; /* a translation unit must not be empty */
#endif
