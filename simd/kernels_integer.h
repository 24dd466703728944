/* SPDX-License-Identifier: Apache-2.0
 *
 * simd/kernels_integer.h - the loops of the integer and bit kernels, written once
 *
 * Like kernels_shape.h: a tier's file defines the primitives, includes this file and says
 * VDB_INTEGER_KERNELS(tier).
 *
 *     INTEGER_BLOCK, BITS_BLOCK     bytes a step takes
 *     integers, bits                what a step loads; counts: the sums, in lanes
 *     integers_load(type, p)        one block; bits_load(p)
 *     integers_load_last(type, p, n)    the last n bytes of the block at p, zeros before them
 *     bits_load_last(p, n)          likewise. A tier with masked loads defines MASKED_LOADS and gives
 *     integers_load_tail(type, row, d), bits_load_tail(row, n) instead: the last d % block bytes
 *     counts_zero()
 *     integers_dot(type, sum, q, x) sum + <q, x>, which may be off by a bias that depends on the
 *     integers_bias(type, query, d) query alone; it is computed once a call and subtracted
 *     integers_square(type, sum, x), integers_l2(type, sum, q, x)       exact
 *     bits_count(sum, q, x)         sum + number of bits that differ
 *     counts_sum(counts)            the sum of the lanes, modulo 2^32
 *
 * Invariant: results are exact integers until the one rounding to float. With d <= 65,536 a sum of
 * squares is at most 65,536 * 255^2 < 2^32 and a dot product of signed bytes lies within 2^30, so
 * 32 bits, unsigned or as two's complement, hold every result; intermediate sums, with the bias,
 * may wrap and unwrap. Cosine divides in double precision.
 */
#ifndef VDB_SIMD_KERNELS_INTEGER_H
#define VDB_SIMD_KERNELS_INTEGER_H

#include <math.h>
#include <stdbool.h>

#include "simd/kernels_private.h"

#define INTEGER_INLINE static inline __attribute__((always_inline))
#define INTEGER_UNROLL _Pragma("GCC unroll 16")
#define INTEGER_ROWS 4

#ifndef MASKED_LOADS
INTEGER_INLINE integers integers_load_tail(int type, const uint8_t *row, uint32_t d)
{
    if (d >= INTEGER_BLOCK)
        return integers_load_last(type, row + d - INTEGER_BLOCK, d % INTEGER_BLOCK);
    uint8_t buffer[INTEGER_BLOCK] = {0};
    vdb_copy_few(buffer + INTEGER_BLOCK - d, row, d);
    return integers_load_last(type, buffer, d);
}

INTEGER_INLINE bits bits_load_tail(const uint8_t *row, uint32_t n_bytes)
{
    if (n_bytes >= BITS_BLOCK)
        return bits_load_last(row + n_bytes - BITS_BLOCK, n_bytes % BITS_BLOCK);
    uint8_t buffer[BITS_BLOCK] = {0};
    vdb_copy_few(buffer + BITS_BLOCK - n_bytes, row, n_bytes);
    return bits_load_last(buffer, n_bytes);
}
#endif

INTEGER_INLINE void integer_accumulate(int op, int type, integers q, integers x, counts *sum, counts *self)
{
    if (op == VDB_OP_L2) {
        *sum = integers_l2(type, *sum, q, x);
    } else {
        *sum = integers_dot(type, *sum, q, x);
        if (op == VDB_OP_COSINE)
            *self = integers_square(type, *self, x);
    }
}

INTEGER_INLINE float integer_result(int op, int type, uint32_t sum, uint32_t self)
{
    double value = type == VECDB_U8 || op == VDB_OP_L2 ? (double)sum : (double)(int32_t)sum;
    if (op == VDB_OP_COSINE)
        value = self ? value / sqrt((double)self) : 0;
    return (float)value;
}

INTEGER_INLINE void integer_pass(int op, int type, int n, uint32_t bias, const uint8_t *query, const uint8_t *rows,
                                 size_t stride, uint32_t d, float *out)
{
    const uint8_t *row[INTEGER_ROWS];
    counts sum[INTEGER_ROWS], self[INTEGER_ROWS];

    INTEGER_UNROLL for (int r = 0; r < n; r++) {
        row[r] = rows + (size_t)r * stride;
        sum[r] = self[r] = counts_zero();
    }
    size_t i = 0;
    for (; i + INTEGER_BLOCK <= d; i += INTEGER_BLOCK) {
        integers q = integers_load(type, query + i);
        INTEGER_UNROLL for (int r = 0; r < n; r++)
            integer_accumulate(op, type, q, integers_load(type, row[r] + i), &sum[r], &self[r]);
    }
    if (i < d) {
        integers q = integers_load_tail(type, query, d);
        INTEGER_UNROLL for (int r = 0; r < n; r++)
            integer_accumulate(op, type, q, integers_load_tail(type, row[r], d), &sum[r], &self[r]);
    }
    INTEGER_UNROLL for (int r = 0; r < n; r++)
        out[r] = integer_result(op, type, counts_sum(sum[r]) - (op == VDB_OP_L2 ? 0 : bias),
                                op == VDB_OP_COSINE ? counts_sum(self[r]) : 0);
}

INTEGER_INLINE void integer_rows(int op, int type, const void *query, const void *rows, size_t stride, size_t n_rows,
                                 uint32_t d, float *out)
{
    const uint8_t *row = rows;
    uint32_t bias = op == VDB_OP_L2 ? 0 : integers_bias(type, query, d);
    const size_t pass_bytes = stride * INTEGER_ROWS;
    const bool fetch = n_rows * stride >= VDB_FETCH_MIN_BYTES;
    size_t i = 0;
    for (; i + INTEGER_ROWS <= n_rows && pass_bytes <= VDB_FETCH_BYTES; i += INTEGER_ROWS, row += pass_bytes) {
        if (fetch)
            vdb_fetch_ahead(row, pass_bytes);
        integer_pass(op, type, INTEGER_ROWS, bias, query, row, stride, d, out + i);
    }
    for (; i < n_rows; i++, row += stride) {
        if (fetch)
            vdb_fetch_ahead(row, stride);
        integer_pass(op, type, 1, bias, query, row, stride, d, out + i);
    }
}

INTEGER_INLINE void bits_rows(const uint8_t *query, const uint8_t *row, size_t stride, size_t n_rows, uint32_t n_bytes,
                              float *out)
{
    const bool fetch = n_rows * stride >= VDB_FETCH_MIN_BYTES;
    for (size_t r = 0; r < n_rows; r++, row += stride) {
        counts sum = counts_zero();
        size_t i = 0;
        if (fetch)
            vdb_fetch_ahead(row, stride);
        for (; i + BITS_BLOCK <= n_bytes; i += BITS_BLOCK)
            sum = bits_count(sum, bits_load(query + i), bits_load(row + i));
        if (i < n_bytes)
            sum = bits_count(sum, bits_load_tail(query, n_bytes), bits_load_tail(row, n_bytes));
        out[r] = (float)counts_sum(sum);
    }
}

#define VDB_INTEGER_KERNEL(name, op, type)                                                                             \
    VDB_SCORE_KERNEL(name)                                                                                             \
    {                                                                                                                  \
        integer_rows(op, type, query, rows, stride, n_rows, dimension, out);                                           \
    }
#define VDB_INTEGER_KERNELS(tier)                                                                                      \
    VDB_DECLARE_INTEGER_KERNELS(tier);                                                                                 \
    VDB_INTEGER_KERNEL(vdb_##tier##_dot_i8_i8, VDB_OP_DOT, VECDB_I8)                                                   \
    VDB_INTEGER_KERNEL(vdb_##tier##_l2_i8_i8, VDB_OP_L2, VECDB_I8)                                                     \
    VDB_INTEGER_KERNEL(vdb_##tier##_cosine_i8_i8, VDB_OP_COSINE, VECDB_I8)                                             \
    VDB_INTEGER_KERNEL(vdb_##tier##_dot_u8_u8, VDB_OP_DOT, VECDB_U8)                                                   \
    VDB_INTEGER_KERNEL(vdb_##tier##_l2_u8_u8, VDB_OP_L2, VECDB_U8)                                                     \
    VDB_INTEGER_KERNEL(vdb_##tier##_cosine_u8_u8, VDB_OP_COSINE, VECDB_U8)                                             \
    VDB_SCORE_KERNEL(vdb_##tier##_hamming)                                                                             \
    {                                                                                                                  \
        bits_rows(query, rows, stride, n_rows, dimension / 8 + (dimension % 8 != 0), out);                             \
    }

#endif
