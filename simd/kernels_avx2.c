/* SPDX-License-Identifier: Apache-2.0
 *
 * simd/kernels_avx2.c - AVX2, FMA and F16C: vectors of 8 floats, 16 registers
 *
 * Integers: bytes are widened to 16 bits and multiplied in pairs (VPMADDWD), which is exact.
 * VPMADDUBSW, which takes bytes as they are, saturates at 255 * 127 * 2 and is not used.
 * Counting bits: each nibble looked up by VPSHUFB, bytes added by VPSADBW.
 */
#if defined(__x86_64__)

#include <immintrin.h>

#include "simd/kernels_private.h"

#define LANES 8
#define ROWS 4
#define CHAINS 2 /* 8 sums in flight hide the latency of an addition; cosine has two sums a row */
#define COSINE_CHAINS 1
#define ROW_CHAINS 4
#define TILE_ROWS 3 /* 12 sums, 3 rows, 1 query: all 16 registers */

typedef __m256 vec;
#define FORCED static inline __attribute__((always_inline))

FORCED vec zero(void)
{
    return _mm256_setzero_ps();
}
FORCED vec add(vec a, vec b)
{
    return _mm256_add_ps(a, b);
}
FORCED vec sub(vec a, vec b)
{
    return _mm256_sub_ps(a, b);
}
FORCED vec multiply_add(vec a, vec b, vec sum)
{
    return _mm256_fmadd_ps(a, b, sum);
}
FORCED void store(float *p, vec v)
{
    _mm256_storeu_ps(p, v);
}

FORCED vec load(int type, const void *p)
{
    switch (type) {
    case VECDB_F32:
        return _mm256_loadu_ps(p);
    case VECDB_F16:
        return _mm256_cvtph_ps(_mm_loadu_si128(p));
    case VECDB_BF16:
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(p)), 16));
    case VECDB_I8:
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p)));
    default:
        return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(p)));
    }
}

FORCED vec keep_last(vec v, uint32_t n);
#include "simd/kernels_tail.h"

FORCED vec keep_last(vec v, uint32_t n)
{
    return _mm256_and_ps(v, _mm256_loadu_ps((const float *)(const void *)(keep_words + n)));
}

FORCED void sum4(vec a, vec b, vec c, vec d, float *out)
{
    __m256 all = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d)); /* a b c d | a b c d */
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
}

#include "simd/kernels_shape.h"

VDB_FLOAT_KERNELS(avx2)

/* ---------------------------------------------------------------- integers */

#define INTEGER_BLOCK 16
#define BITS_BLOCK 32
typedef __m256i integers; /* 16 values of 16 bits */
typedef __m256i counts;
typedef __m256i bits;

static const uint8_t keep_bytes[64] = {
    [32] = 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255,        255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};

FORCED integers widen_bytes(int type, __m128i bytes)
{
    return type == VECDB_I8 ? _mm256_cvtepi8_epi16(bytes) : _mm256_cvtepu8_epi16(bytes);
}
FORCED integers integers_load(int type, const uint8_t *p)
{
    return widen_bytes(type, _mm_loadu_si128((const __m128i *)(const void *)p));
}
/* The last n of the 16 bytes at p. */
FORCED integers integers_load_last(int type, const uint8_t *p, uint32_t n)
{
    __m128i mask = _mm_loadu_si128((const __m128i *)(const void *)(keep_bytes + 16 + n));
    return widen_bytes(type, _mm_and_si128(_mm_loadu_si128((const __m128i *)(const void *)p), mask));
}
FORCED counts counts_zero(void)
{
    return _mm256_setzero_si256();
}
FORCED counts integers_dot(int type, counts sum, integers q, integers x)
{
    (void)type;
    return _mm256_add_epi32(sum, _mm256_madd_epi16(q, x));
}
FORCED counts integers_square(int type, counts sum, integers x)
{
    return integers_dot(type, sum, x, x);
}
FORCED counts integers_l2(int type, counts sum, integers q, integers x)
{
    return integers_square(type, sum, _mm256_sub_epi16(q, x));
}
/* A sum of squares stays below 2^32 (65,536 * 255^2), a dot product within 2^31: modulo 2^32 will do. */
FORCED uint32_t counts_sum(counts v)
{
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(sum);
}
FORCED uint32_t integers_bias(int type, const uint8_t *query, uint32_t d)
{
    (void)type, (void)query, (void)d;
    return 0;
}

FORCED bits bits_load(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}
FORCED bits bits_load_last(const uint8_t *p, uint32_t n)
{
    return _mm256_and_si256(bits_load(p), bits_load(keep_bytes + n));
}
FORCED counts bits_count(counts sum, bits q, bits x)
{
    const __m256i nibble_counts = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, /* */
                                                   0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i low = _mm256_set1_epi8(15);
    __m256i v = _mm256_xor_si256(q, x);
    __m256i below = _mm256_shuffle_epi8(nibble_counts, _mm256_and_si256(v, low));
    __m256i above = _mm256_shuffle_epi8(nibble_counts, _mm256_and_si256(_mm256_srli_epi16(v, 4), low));
    return _mm256_add_epi64(sum, _mm256_sad_epu8(_mm256_add_epi8(below, above), _mm256_setzero_si256()));
}

#include "simd/kernels_integer.h"

VDB_INTEGER_KERNELS(avx2)

const struct vdb_kernels vdb_avx2_kernels = {
    .name = "avx2",
    VDB_TABLE_FLOAT(avx2),
    VDB_TABLE_INTEGER(avx2, NULL, NULL),
    VDB_TABLE_CODES(avx2),
    VDB_TABLE_KEYS(scalar),
};

#else
typedef int vdb_no_avx2; /* a translation unit must not be empty */
#endif
