/* SPDX-License-Identifier: Apache-2.0
 *
 * simd/codes_neon.h - what the kernels for codes of both arm64 tiers share
 *
 * A tier gives dot(sum, q, x): sum + products of 16 signed bytes, in four lanes of 32 bits. The halves of
 * a code's byte are signed bytes as well, and so is value - 128 of an 8-bit code.
 */
#ifndef VDB_SIMD_CODES_NEON_H
#define VDB_SIMD_CODES_NEON_H

#include <arm_neon.h>

#include "simd/kernels_private.h"

#define LANES 4
typedef float32x4_t vec;
#define FORCED static inline __attribute__((always_inline))

FORCED vec load(const float *p)
{
    return vld1q_f32(p);
}
FORCED void store(float *p, vec v)
{
    vst1q_f32(p, v);
}
FORCED vec add(vec a, vec b)
{
    return vaddq_f32(a, b);
}
FORCED vec sub(vec a, vec b)
{
    return vsubq_f32(a, b);
}
FORCED vec swap(vec v, int h)
{
    return h == 1 ? vrev64q_f32(v) : vextq_f32(v, v, 2);
}
FORCED vec choose(vec a, vec b, int h)
{
    static const uint32_t odd[4] = {0, UINT32_MAX, 0, UINT32_MAX}, upper[4] = {0, 0, UINT32_MAX, UINT32_MAX};
    return vbslq_f32(vld1q_u32(h == 1 ? odd : upper), b, a);
}

FORCED int32x4_t dot(int32x4_t sum, int8x16_t q, int8x16_t x);

/* n_bytes of a code: their low halves times query[0 ..], their high halves times query[n_bytes ..]. */
FORCED void block4(int32x4_t sum[2], const int8_t *query, const unsigned char *code, uint32_t n_bytes)
{
    for (uint32_t j = 0; j < n_bytes; j += 16) {
        uint8x16_t x = vld1q_u8(code + j);
        sum[0] = dot(sum[0], vld1q_s8(query + j), vreinterpretq_s8_u8(vandq_u8(x, vdupq_n_u8(15))));
        sum[1] = dot(sum[1], vld1q_s8(query + n_bytes + j), vreinterpretq_s8_u8(vshrq_n_u8(x, 4)));
    }
}

FORCED int32_t sum4(const int8_t *query, const unsigned char *code, uint32_t n_values)
{
    int32x4_t sum[2] = {vdupq_n_s32(0), vdupq_n_s32(0)};
    uint32_t i = 0;
    for (; i + 128 <= n_values; i += 128)
        block4(sum, query + i, code + i / 2, 64);
    if (i < n_values)
        block4(sum, query + i, code + i / 2, 32);
    return vaddvq_s32(vaddq_s32(sum[0], sum[1]));
}

FORCED int32_t sum8(const struct vdb_code_query *query, const unsigned char *code, uint32_t n_values)
{
    int32x4_t sum[2] = {vdupq_n_s32(0), vdupq_n_s32(0)};
    for (uint32_t i = 0; i < n_values; i += 32)
        for (int half = 0; half < 2; half++) {
            uint8x16_t x = veorq_u8(vld1q_u8(code + i + 16 * half), vdupq_n_u8(128));
            sum[half] = dot(sum[half], vld1q_s8(query->values + i + 16 * half), vreinterpretq_s8_u8(x));
        }
    return vaddvq_s32(vaddq_s32(sum[0], sum[1]));
}

FORCED uint32_t count_bits(const void *query, const unsigned char *code, uint32_t n_bytes)
{
    const uint8_t *q = query;
    uint32_t i = 0, count = 0;
    for (; i + 16 <= n_bytes; i += 16)
        count += vaddvq_u8(vcntq_u8(veorq_u8(vld1q_u8(q + i), vld1q_u8(code + i)))); /* at most 128 */
    for (; i < n_bytes; i++)
        count += (uint32_t)__builtin_popcount((unsigned)(q[i] ^ code[i]));
    return count;
}

#endif
