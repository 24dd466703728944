/* SPDX-License-Identifier: Apache-2.0
 *
 * simd/kernels_neon_bytes.h - what the integer kernels of both arm64 tiers share: 16 bytes a step
 *
 * A tier adds integers_dot (exact, no bias) and bits_count, and includes kernels_integer.h.
 */
#ifndef VDB_SIMD_KERNELS_NEON_BYTES_H
#define VDB_SIMD_KERNELS_NEON_BYTES_H

#include <arm_neon.h>

#include "simd/kernels_private.h"

#define INTEGER_BLOCK 16
#define BITS_BLOCK 16
#define BYTES_INLINE static inline __attribute__((always_inline))

typedef uint8x16_t integers; /* signed bytes too: reinterpreted where it matters */
typedef uint8x16_t bits;
typedef uint32x4_t counts;

BYTES_INLINE counts integers_dot(int type, counts sum, integers q, integers x);

BYTES_INLINE bits bits_load(const uint8_t *p)
{
    return vld1q_u8(p);
}
BYTES_INLINE bits bits_load_last(const uint8_t *p, uint32_t n)
{
    static const uint8_t keep[32] = {
        [16] = 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};
    return vandq_u8(vld1q_u8(p), vld1q_u8(keep + n));
}
BYTES_INLINE integers integers_load(int type, const uint8_t *p)
{
    (void)type;
    return bits_load(p);
}
BYTES_INLINE integers integers_load_last(int type, const uint8_t *p, uint32_t n)
{
    (void)type;
    return bits_load_last(p, n);
}
BYTES_INLINE counts counts_zero(void)
{
    return vdupq_n_u32(0);
}
BYTES_INLINE counts integers_square(int type, counts sum, integers x)
{
    return integers_dot(type, sum, x, x);
}
/* |q - x| is an unsigned byte for both types. */
BYTES_INLINE counts integers_l2(int type, counts sum, integers q, integers x)
{
    integers difference = type == VECDB_U8
                              ? vabdq_u8(q, x)
                              : vreinterpretq_u8_s8(vabdq_s8(vreinterpretq_s8_u8(q), vreinterpretq_s8_u8(x)));
    return integers_square(VECDB_U8, sum, difference);
}
BYTES_INLINE uint32_t counts_sum(counts v)
{
    return vaddvq_u32(v);
}
BYTES_INLINE uint32_t integers_bias(int type, const uint8_t *query, uint32_t d)
{
    (void)type, (void)query, (void)d;
    return 0;
}

#endif
