/* SPDX-License-Identifier: Apache-2.0
 *
 * simd/kernels_neon.c - Advanced SIMD of arm64, which its ABI guarantees: 32 registers of 4 floats
 *
 * A `vec` is two registers, which gives the eight chains of the error bound and lets one load
 * take 8 bytes of an integer row. Bytes are multiplied to 16 bits (SMULL, UMULL) and added in
 * pairs to 32 (SADALP, UADALP), exactly: 255^2 fits 16 bits unsigned, 128^2 signed.
 */
#if defined(__aarch64__)

#include <arm_neon.h>

#include "simd/kernels_private.h"

#define LANES 8
#define ROWS 4
#define CHAINS 1
#define COSINE_CHAINS 1
#define ROW_CHAINS 2
#define TILE_ROWS 2 /* 16 registers of sums, 4 of rows, 2 of a query */

typedef float32x4x2_t vec;
#define FORCED static inline __attribute__((always_inline))

FORCED vec pair(float32x4_t low, float32x4_t high)
{
    return (vec){{low, high}};
}
FORCED vec zero(void)
{
    return pair(vdupq_n_f32(0), vdupq_n_f32(0));
}
FORCED vec add(vec a, vec b)
{
    return pair(vaddq_f32(a.val[0], b.val[0]), vaddq_f32(a.val[1], b.val[1]));
}
FORCED vec sub(vec a, vec b)
{
    return pair(vsubq_f32(a.val[0], b.val[0]), vsubq_f32(a.val[1], b.val[1]));
}
FORCED vec multiply_add(vec a, vec b, vec sum)
{
    return pair(vfmaq_f32(sum.val[0], a.val[0], b.val[0]), vfmaq_f32(sum.val[1], a.val[1], b.val[1]));
}
FORCED void store(float *p, vec v)
{
    vst1q_f32(p, v.val[0]);
    vst1q_f32(p + 4, v.val[1]);
}

/* Loads are of bytes, which may lie at any address. */
FORCED vec load(int type, const void *p)
{
    const uint8_t *bytes = p;
    if (type == VECDB_F32)
        return pair(vreinterpretq_f32_u8(vld1q_u8(bytes)), vreinterpretq_f32_u8(vld1q_u8(bytes + 16)));
    if (type == VECDB_I8) {
        int16x8_t v = vmovl_s8(vreinterpret_s8_u8(vld1_u8(bytes)));
        return pair(vcvtq_f32_s32(vmovl_s16(vget_low_s16(v))), vcvtq_f32_s32(vmovl_high_s16(v)));
    }
    if (type == VECDB_U8) {
        uint16x8_t v = vmovl_u8(vld1_u8(bytes));
        return pair(vcvtq_f32_u32(vmovl_u16(vget_low_u16(v))), vcvtq_f32_u32(vmovl_high_u16(v)));
    }
    uint16x8_t v = vreinterpretq_u16_u8(vld1q_u8(bytes));
    if (type == VECDB_BF16)
        return pair(vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(v), 16)),
                    vreinterpretq_f32_u32(vshll_high_n_u16(v, 16)));
    float16x8_t halves = vreinterpretq_f16_u16(v);
    return pair(vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves));
}

FORCED vec keep_last(vec v, uint32_t n);
#include "simd/kernels_tail.h"

FORCED vec keep_last(vec v, uint32_t n)
{
    uint32x4_t low = vld1q_u32(keep_words + n), high = vld1q_u32(keep_words + n + 4);
    return pair(vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(v.val[0]), low)),
                vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(v.val[1]), high)));
}

FORCED float32x4_t fold(vec v)
{
    return vaddq_f32(v.val[0], v.val[1]);
}

FORCED void sum4(vec a, vec b, vec c, vec d, float *out)
{
    vst1q_f32(out, vpaddq_f32(vpaddq_f32(fold(a), fold(b)), vpaddq_f32(fold(c), fold(d))));
}

#include "simd/kernels_shape.h"

VDB_FLOAT_KERNELS(neon)

#include "simd/kernels_neon_bytes.h"

FORCED counts integers_dot(int type, counts sum, integers q, integers x)
{
    if (type == VECDB_U8) {
        sum = vpadalq_u16(sum, vmull_u8(vget_low_u8(q), vget_low_u8(x)));
        return vpadalq_u16(sum, vmull_high_u8(q, x));
    }
    int8x16_t a = vreinterpretq_s8_u8(q), b = vreinterpretq_s8_u8(x);
    int32x4_t s = vpadalq_s16(vreinterpretq_s32_u32(sum), vmull_s8(vget_low_s8(a), vget_low_s8(b)));
    return vreinterpretq_u32_s32(vpadalq_s16(s, vmull_high_s8(a, b)));
}
FORCED counts bits_count(counts sum, bits q, bits x)
{
    return vpadalq_u16(sum, vpaddlq_u8(vcntq_u8(veorq_u8(q, x))));
}

#include "simd/kernels_integer.h"

VDB_INTEGER_KERNELS(neon)

const struct vdb_kernels vdb_neon_kernels = {
    .name = "neon",
    VDB_TABLE_FLOAT(neon),
    VDB_TABLE_INTEGER(neon, NULL, NULL),
    VDB_TABLE_CODES(neon),
    VDB_TABLE_KEYS(scalar),
};

#else
typedef int vdb_no_neon; /* a translation unit must not be empty */
#endif
