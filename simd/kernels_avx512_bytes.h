/* SPDX-License-Identifier: Apache-2.0
 *
 * simd/kernels_avx512_bytes.h - what the integer and bit kernels of the AVX-512 tiers share
 *
 * A tier adds `integers` and bits_count, and includes kernels_integer.h.
 */
#ifndef VDB_SIMD_KERNELS_AVX512_BYTES_H
#define VDB_SIMD_KERNELS_AVX512_BYTES_H

#include <immintrin.h>

#include "simd/kernels_private.h"

#define BITS_BLOCK 64
#define BYTES_INLINE static inline __attribute__((always_inline))

typedef __m512i bits;
typedef __m512i counts; /* 16 sums of 32 bits, or 8 of 64 that stay below 2^32 */

BYTES_INLINE bits bits_load(const uint8_t *p)
{
    return _mm512_loadu_si512(p);
}
BYTES_INLINE bits bits_load_tail(const uint8_t *row, uint32_t n_bytes)
{
    uint32_t rest = n_bytes % BITS_BLOCK;
    return _mm512_maskz_loadu_epi8((UINT64_C(1) << rest) - 1, row + n_bytes - rest);
}
BYTES_INLINE counts counts_zero(void)
{
    return _mm512_setzero_si512();
}
/* Not _mm512_reduce_add_epi32: some compilers write its last step in C, where wrapping is not defined. */
BYTES_INLINE uint32_t counts_sum(counts v)
{
    __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(sum);
}

#endif
