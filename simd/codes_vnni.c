/* SPDX-License-Identifier: Apache-2.0
 *
 * simd/codes_vnni.c - kernels for codes with AVX-512, VNNI and VPOPCNTDQ
 *
 * VPDPBUSD multiplies unsigned bytes (halves of a code's bytes, or whole ones) by the query's signed ones,
 * exactly. AVX-512 without VNNI uses the kernels of AVX2.
 */
#if defined(__x86_64__)

#include "simd/kernels_avx512_bytes.h"

#define LANES 16
typedef __m512 vec;
#define FORCED static inline __attribute__((always_inline))

FORCED vec load(const float *p)
{
    return _mm512_loadu_ps(p);
}
FORCED void store(float *p, vec v)
{
    _mm512_storeu_ps(p, v);
}
FORCED vec add(vec a, vec b)
{
    return _mm512_add_ps(a, b);
}
FORCED vec sub(vec a, vec b)
{
    return _mm512_sub_ps(a, b);
}
FORCED vec swap(vec v, int h)
{
    return h == 1   ? _mm512_permute_ps(v, 0xb1)
           : h == 2 ? _mm512_permute_ps(v, 0x4e)
           : h == 4 ? _mm512_shuffle_f32x4(v, v, 0xb1)
                    : _mm512_shuffle_f32x4(v, v, 0x4e);
}
FORCED vec choose(vec a, vec b, int h)
{
    return _mm512_mask_mov_ps(a, h == 1 ? 0xaaaa : h == 2 ? 0xcccc : h == 4 ? 0xf0f0 : 0xff00, b);
}

FORCED int32_t sum4(const int8_t *query, const unsigned char *code, uint32_t n_values)
{
    const __m512i mask = _mm512_set1_epi8(15);
    __m512i a = _mm512_setzero_si512(), b = a;
    uint32_t i = 0;
    for (; i + 128 <= n_values; i += 128) {
        __m512i x = _mm512_loadu_si512(code + i / 2);
        a = _mm512_dpbusd_epi32(a, _mm512_and_si512(x, mask), _mm512_loadu_si512(query + i));
        b = _mm512_dpbusd_epi32(b, _mm512_and_si512(_mm512_srli_epi16(x, 4), mask),
                                _mm512_loadu_si512(query + i + 64));
    }
    if (i < n_values) { /* low halves into the lower half of the register, high halves into the upper */
        __m256i half = _mm256_loadu_si256((const void *)(code + i / 2));
        __m512i x = _mm512_inserti64x4(_mm512_castsi256_si512(half), _mm256_srli_epi16(half, 4), 1);
        a = _mm512_dpbusd_epi32(a, _mm512_and_si512(x, mask), _mm512_loadu_si512(query + i));
    }
    return (int32_t)counts_sum(_mm512_add_epi32(a, b));
}

/* Sums of four registers' lanes, in 32 bits. */
FORCED __m128i sums_of_four(__m512i a, __m512i b, __m512i c, __m512i d)
{
    __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    __m512i abcd = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(abcd), _mm512_extracti64x4_epi64(abcd, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

/* The same as sum4 and sum8 of four codes: one look at the query, one reduction for all. */
FORCED void sum4_of_four(const int8_t *query, const unsigned char *const codes[4], uint32_t n_values, int32_t out[4])
{
    const __m512i mask = _mm512_set1_epi8(15);
    __m512i sums[4];
    for (int r = 0; r < 4; r++)
        sums[r] = _mm512_setzero_si512();
    uint32_t i = 0;
    for (; i + 128 <= n_values; i += 128) {
        __m512i low = _mm512_loadu_si512(query + i), high = _mm512_loadu_si512(query + i + 64);
        for (int r = 0; r < 4; r++) {
            __m512i x = _mm512_loadu_si512(codes[r] + i / 2);
            sums[r] = _mm512_dpbusd_epi32(sums[r], _mm512_and_si512(x, mask), low);
            sums[r] = _mm512_dpbusd_epi32(sums[r], _mm512_and_si512(_mm512_srli_epi16(x, 4), mask), high);
        }
    }
    if (i < n_values) {
        __m512i both = _mm512_loadu_si512(query + i);
        for (int r = 0; r < 4; r++) {
            __m256i half = _mm256_loadu_si256((const void *)(codes[r] + i / 2));
            __m512i x = _mm512_inserti64x4(_mm512_castsi256_si512(half), _mm256_srli_epi16(half, 4), 1);
            sums[r] = _mm512_dpbusd_epi32(sums[r], _mm512_and_si512(x, mask), both);
        }
    }
    _mm_storeu_si128((void *)out, sums_of_four(sums[0], sums[1], sums[2], sums[3]));
}

FORCED int32_t sum8(const struct vdb_code_query *query, const unsigned char *code, uint32_t n_values)
{
    __m512i sum = _mm512_setzero_si512();
    for (uint32_t i = 0; i < n_values; i += 64)
        sum = _mm512_dpbusd_epi32(sum, _mm512_loadu_si512(code + i), _mm512_loadu_si512(query->values + i));
    return (int32_t)counts_sum(sum) - 128 * query->sum;
}

FORCED void sum8_of_four(const struct vdb_code_query *query, const unsigned char *const codes[4], uint32_t n_values,
                         int32_t out[4])
{
    __m512i sums[4];
    for (int r = 0; r < 4; r++)
        sums[r] = _mm512_setzero_si512();
    for (uint32_t i = 0; i < n_values; i += 64) {
        __m512i of_query = _mm512_loadu_si512(query->values + i);
        for (int r = 0; r < 4; r++)
            sums[r] = _mm512_dpbusd_epi32(sums[r], _mm512_loadu_si512(codes[r] + i), of_query);
    }
    __m128i all = sums_of_four(sums[0], sums[1], sums[2], sums[3]);
    _mm_storeu_si128((void *)out, _mm_sub_epi32(all, _mm_set1_epi32(128 * query->sum)));
}
#define HAS_SUMS_OF_FOUR

FORCED uint32_t count_bits(const void *query, const unsigned char *code, uint32_t n_bytes)
{
    const uint8_t *q = query;
    __m512i sum = _mm512_setzero_si512();
    uint32_t i = 0;
    for (; i + BITS_BLOCK <= n_bytes; i += BITS_BLOCK)
        sum = _mm512_add_epi64(sum, _mm512_popcnt_epi64(_mm512_xor_si512(bits_load(q + i), bits_load(code + i))));
    if (i < n_bytes)
        sum = _mm512_add_epi64(
            sum, _mm512_popcnt_epi64(_mm512_xor_si512(bits_load_tail(q, n_bytes), bits_load_tail(code, n_bytes))));
    return counts_sum(sum);
}

#include "simd/codes_shape.h"

VDB_CODE_KERNELS(vnni)

#else
typedef int vdb_no_vnni_codes; /* a translation unit must not be empty */
#endif
