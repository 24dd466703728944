/* SPDX-License-Identifier: Apache-2.0
 *
 * simd/kernels_avx512.c - AVX-512 F, BW, VL, DQ: vectors of 16 floats, 32 registers, masked loads
 *
 * A masked load does not touch what its mask leaves out, so the tail of a row is one load of any
 * length, also where the next byte is in a page that is not there.
 * Integers as in kernels_avx2.c, twice as wide. Instructions that only some of these processors
 * have (VNNI, VPOPCNTDQ, BF16) are in kernels_avx512vnni.c and kernels_avx512bf16.c.
 */
#if defined(__x86_64__)

#include <immintrin.h>

#include "simd/kernels_private.h"

#define LANES 16
#define ROWS 4
#define CHAINS 2
#define COSINE_CHAINS 2
#define ROW_CHAINS 4
#define TILE_ROWS 4 /* 16 sums hide the latency; 8 loads for 16 multiplications are as many as can run beside them */
#define MASKED_LOADS 1

typedef __m512 vec;
#define FORCED static inline __attribute__((always_inline))

FORCED vec zero(void)
{
    return _mm512_setzero_ps();
}
FORCED vec add(vec a, vec b)
{
    return _mm512_add_ps(a, b);
}
FORCED vec sub(vec a, vec b)
{
    return _mm512_sub_ps(a, b);
}
FORCED vec multiply_add(vec a, vec b, vec sum)
{
    return _mm512_fmadd_ps(a, b, sum);
}
FORCED void store(float *p, vec v)
{
    _mm512_storeu_ps(p, v);
}

FORCED vec floats_of_bf16(__m256i v)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
}

FORCED vec load(int type, const void *p)
{
    switch (type) {
    case VECDB_F32:
        return _mm512_loadu_ps(p);
    case VECDB_F16:
        return _mm512_cvtph_ps(_mm256_loadu_si256(p));
    case VECDB_BF16:
        return floats_of_bf16(_mm256_loadu_si256(p));
    case VECDB_I8:
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p)));
    default:
        return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p)));
    }
}

FORCED vec load_tail(int type, const void *row, uint32_t d)
{
    __mmask16 mask = (__mmask16)((1u << d % LANES) - 1);
    const uint32_t from = d - d % LANES;
    switch (type) {
    case VECDB_F32:
        return _mm512_maskz_loadu_ps(mask, (const float *)row + from);
    case VECDB_F16:
        return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, (const uint16_t *)row + from));
    case VECDB_BF16:
        return floats_of_bf16(_mm256_maskz_loadu_epi16(mask, (const uint16_t *)row + from));
    case VECDB_I8:
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, (const char *)row + from)));
    default:
        return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, (const char *)row + from)));
    }
}

FORCED void sum4(vec a, vec b, vec c, vec d, float *out)
{
    /* Interleave and add: ab holds a, b, a, b in each quarter; abcd holds a, c, b, d. */
    __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    __m512 abcd = _mm512_add_ps(_mm512_unpacklo_ps(ab, cd), _mm512_unpackhi_ps(ab, cd));
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(abcd), _mm512_extractf32x8_ps(abcd, 1));
    __m128 sums = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    _mm_storeu_ps(out, _mm_shuffle_ps(sums, sums, 0xd8));
}

#include "simd/kernels_shape.h"

VDB_FLOAT_KERNELS(avx512)
VDB_FLOAT_KERNEL(vdb_avx512_dot_bf16_bf16, VDB_OP_DOT, VECDB_BF16, VECDB_BF16)
VDB_FLOAT_KERNEL(vdb_avx512_cosine_bf16_bf16, VDB_OP_COSINE, VECDB_BF16, VECDB_BF16)

/* ---------------------------------------------------------------- integers */

#include "simd/kernels_avx512_bytes.h"

#define INTEGER_BLOCK 32
typedef __m512i integers; /* 32 values of 16 bits */

FORCED integers widen_bytes(int type, __m256i bytes)
{
    return type == VECDB_I8 ? _mm512_cvtepi8_epi16(bytes) : _mm512_cvtepu8_epi16(bytes);
}
FORCED integers integers_load(int type, const uint8_t *p)
{
    return widen_bytes(type, _mm256_loadu_si256((const __m256i *)(const void *)p));
}
FORCED integers integers_load_tail(int type, const uint8_t *row, uint32_t d)
{
    uint32_t rest = d % INTEGER_BLOCK;
    return widen_bytes(type, _mm256_maskz_loadu_epi8((1u << rest) - 1, row + d - rest));
}
FORCED counts integers_dot(int type, counts sum, integers q, integers x)
{
    (void)type;
    return _mm512_add_epi32(sum, _mm512_madd_epi16(q, x));
}
FORCED counts integers_square(int type, counts sum, integers x)
{
    return integers_dot(type, sum, x, x);
}
FORCED counts integers_l2(int type, counts sum, integers q, integers x)
{
    return integers_square(type, sum, _mm512_sub_epi16(q, x));
}
FORCED uint32_t integers_bias(int type, const uint8_t *query, uint32_t d)
{
    (void)type, (void)query, (void)d;
    return 0;
}

FORCED counts bits_count(counts sum, bits q, bits x)
{
    const __m512i nibble_counts =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m512i low = _mm512_set1_epi8(15);
    __m512i v = _mm512_xor_si512(q, x);
    __m512i below = _mm512_shuffle_epi8(nibble_counts, _mm512_and_si512(v, low));
    __m512i above = _mm512_shuffle_epi8(nibble_counts, _mm512_and_si512(_mm512_srli_epi16(v, 4), low));
    return _mm512_add_epi64(sum, _mm512_sad_epu8(_mm512_add_epi8(below, above), _mm512_setzero_si512()));
}

#include "simd/kernels_integer.h"

VDB_INTEGER_KERNELS(avx512)

const struct vdb_kernels vdb_avx512_kernels = {
    .name = "avx512",
    VDB_TABLE_FLOAT(avx512),
    VDB_TABLE_INTEGER(avx512, NULL, NULL),
    VDB_TABLE_CODES(avx2),
    VDB_TABLE_KEYS(avx512),
};

#else
typedef int vdb_no_avx512; /* a translation unit must not be empty */
#endif
