/* SPDX-License-Identifier: Apache-2.0
 *
 * simd/kernels_avx512vnni.c - integer and bit kernels of AVX-512 with VNNI and VPOPCNTDQ
 *
 * VPDPBUSD multiplies unsigned by signed bytes and adds groups of four to 32 bits, exactly. Two
 * vectors of one type need a bias of 128 on one side, put there by flipping the top bit of each
 * byte of the row (x ^ 128 is x + 128 mod 256), and taken away once per row:
 *
 *     i8:  row as unsigned  x + 128    <q, x> = sum q * (x + 128) - 128 * sum(q)
 *     u8:  row as signed    x - 128    <q, x> = sum q * (x - 128) + 128 * sum(q)
 *
 * Bytes behind the end of a tail are zero in the query, so that what the flip makes of them in
 * the row does not count. sum(q) is computed once a call.
 *
 * Squares have no such bias to pull out: |q - x| and |x| are unsigned bytes, which are spread to
 * 16 bits and squared in pairs by VPDPWSSD.
 *
 * The float kernels are those of kernels_avx512.c.
 */
#if defined(__x86_64__)

#include "simd/kernels_avx512_bytes.h"

#define INTEGER_BLOCK 64
#define MASKED_LOADS 1
typedef __m512i integers; /* 64 bytes as they are */
#define FORCED static inline __attribute__((always_inline))

FORCED integers integers_load(int type, const uint8_t *p)
{
    (void)type;
    return bits_load(p);
}
FORCED integers integers_load_tail(int type, const uint8_t *row, uint32_t d)
{
    (void)type;
    return bits_load_tail(row, d);
}
FORCED counts integers_dot(int type, counts sum, integers q, integers x)
{
    __m512i flipped = _mm512_xor_si512(x, _mm512_set1_epi8(-128));
    return type == VECDB_I8 ? _mm512_dpbusd_epi32(sum, flipped, q) : _mm512_dpbusd_epi32(sum, q, flipped);
}
FORCED counts square_unsigned(counts sum, __m512i v)
{
    __m512i none = _mm512_setzero_si512();
    __m512i low = _mm512_unpacklo_epi8(v, none), high = _mm512_unpackhi_epi8(v, none);
    return _mm512_dpwssd_epi32(_mm512_dpwssd_epi32(sum, low, low), high, high);
}
FORCED counts integers_square(int type, counts sum, integers x)
{
    return square_unsigned(sum, type == VECDB_I8 ? _mm512_abs_epi8(x) : x); /* |-128| is 128, unsigned */
}
FORCED counts integers_l2(int type, counts sum, integers q, integers x)
{
    __m512i above = type == VECDB_I8 ? _mm512_max_epi8(q, x) : _mm512_max_epu8(q, x);
    __m512i below = type == VECDB_I8 ? _mm512_min_epi8(q, x) : _mm512_min_epu8(q, x);
    return square_unsigned(sum, _mm512_sub_epi8(above, below));
}
/* 128 * sum(q), negative for u8. */
FORCED uint32_t integers_bias(int type, const uint8_t *query, uint32_t d)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < d; i++)
        sum += type == VECDB_I8 ? (uint32_t)(int8_t)query[i] : query[i];
    return type == VECDB_I8 ? sum * 128 : 0 - sum * 128;
}

FORCED counts bits_count(counts sum, bits q, bits x)
{
    return _mm512_add_epi64(sum, _mm512_popcnt_epi64(_mm512_xor_si512(q, x)));
}

#include "simd/kernels_integer.h"

VDB_INTEGER_KERNELS(vnni)

const struct vdb_kernels vdb_vnni_kernels = {
    .name = "avx512-vnni",
    VDB_TABLE_FLOAT(avx512),
    VDB_TABLE_INTEGER(vnni, NULL, NULL),
    VDB_TABLE_CODES(vnni),
    VDB_TABLE_KEYS(avx512),
};

#else
typedef int vdb_no_vnni; /* a translation unit must not be empty */
#endif
