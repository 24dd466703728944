/* SPDX-License-Identifier: Apache-2.0
 *
 * simd/kernels_shape.h - the loops of all float kernels, written once
 *
 * A tier's file defines the primitives listed below in its own intrinsics, includes this file and
 * says VDB_FLOAT_KERNELS(tier). Every function here is inlined into the kernels with op, types and
 * counts constant, so that a kernel is straight code for its case and its arrays are registers.
 *
 *     rows of a block       x0 ---- ---- ---- --        one pass: ROWS rows at a time; a step loads
 *                           x1 ---- ---- ---- --        CHAINS vectors of the query once and uses
 *                           x2 ---- ---- ---- --        them for every row; `tail` is what is left
 *                           x3 ---- ---- ---- --        of the dimension
 *                              step step rest tail
 *
 * What a tier gives:
 *     LANES                   floats in a `vec`, at least 8: the chains of the error bound
 *     ROWS, CHAINS, COSINE_CHAINS, TILE_ROWS     shape of the passes, chosen by its registers
 *     vec                     LANES floats
 *     zero() add(a, b) sub(a, b) multiply_add(a, b, sum)     the last is a * b + sum
 *     load(type, p)           LANES values of `type` at p, any address, as floats, exactly
 *     load_tail(type, row, d) the last d % LANES values of the row, zeros in the other lanes.
 *                             Which lanes they are in depends on d alone. Reads inside the row.
 *     store(p, v)             LANES floats
 *     sum4(a, b, c, d, out)   out[0..3] = the sums of the lanes of a, b, c, d
 * A tier without masked loads gets load_tail from kernels_tail.h.
 *
 * Invariants
 *   1. Every sum has at least 8 chains, so no addend sees more than d/8 + 16 roundings (kernels.h).
 *   2. No byte outside of [row, row + bytes of a row) is loaded. Prefetches may point anywhere:
 *      they do not fault.
 *   3. The arithmetic of a row does not depend on its place in the block, except in the order in
 *      which lanes are summed; callers that need equal bits rescore in double precision.
 *
 * Rejected: a kernel written out for every type and op (75 functions a tier, all alike); an
 * extra level of blocking over the dimension (rows of up to 65,536 values need none: the query is
 * read once per ROWS rows, and prefetched by the hardware).
 */
#ifndef VDB_SIMD_KERNELS_SHAPE_H
#define VDB_SIMD_KERNELS_SHAPE_H

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "simd/kernels_private.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

INLINE size_t size_of(int type)
{
    return type == VECDB_F32 ? 4 : type == VECDB_F16 || type == VECDB_BF16 ? 2 : 1;
}

/* One vector of query and row into the row's sums: `self` is |x|^2, for cosine alone. */
INLINE void accumulate(int op, vec q, vec x, vec *sum, vec *self)
{
    if (op == VDB_OP_L2) {
        vec difference = sub(q, x);
        *sum = multiply_add(difference, difference, *sum);
    } else {
        *sum = multiply_add(q, x, *sum);
        if (op == VDB_OP_COSINE)
            *self = multiply_add(x, x, *self);
    }
}

/* Score `n` (1 or 4) rows; n and chains are constants wherever this is called. */
INLINE void score_pass(int op, int query_type, int row_type, int n, int chains, const char *query, const char *rows,
                       size_t stride, uint32_t d, float *out)
{
    const size_t query_size = size_of(query_type), row_size = size_of(row_type);
    const char *row[4];
    vec sum[4][4], self[4][4];

    UNROLL for (int r = 0; r < 4; r++) {
        row[r] = rows + (r < n ? (size_t)r * stride : 0);
        UNROLL for (int c = 0; c < 4; c++)
            sum[r][c] = self[r][c] = zero();
    }
    size_t i = 0;
    for (; i + (size_t)(LANES * chains) <= d; i += (size_t)(LANES * chains)) {
        UNROLL for (int c = 0; c < chains; c++) {
            vec q = load(query_type, query + (i + (size_t)c * LANES) * query_size);
            UNROLL for (int r = 0; r < n; r++)
                accumulate(op, q, load(row_type, row[r] + (i + (size_t)c * LANES) * row_size), &sum[r][c],
                           &self[r][c]);
        }
    }
    for (; chains > 1 && i + LANES <= d; i += LANES) {
        vec q = load(query_type, query + i * query_size);
        UNROLL for (int r = 0; r < n; r++)
            accumulate(op, q, load(row_type, row[r] + i * row_size), &sum[r][0], &self[r][0]);
    }
    if (i < d) {
        vec q = load_tail(query_type, query, d);
        UNROLL for (int r = 0; r < n; r++)
            accumulate(op, q, load_tail(row_type, row[r], d), &sum[r][chains - 1], &self[r][chains - 1]);
    }
    UNROLL for (int r = 0; r < n; r++) {
        UNROLL for (int c = 1; c < chains; c++) {
            sum[r][0] = add(sum[r][0], sum[r][c]);
            self[r][0] = add(self[r][0], self[r][c]);
        }
    }
    float sums[4], squares[4];
    sum4(sum[0][0], sum[1][0], sum[2][0], sum[3][0], sums);
    if (op == VDB_OP_COSINE) {
        sum4(self[0][0], self[1][0], self[2][0], self[3][0], squares);
        for (int r = 0; r < n; r++)
            sums[r] = squares[r] >= VDB_COSINE_MIN && squares[r] <= VDB_COSINE_MAX
                          ? sums[r] / sqrtf(squares[r])
                          : vdb_cosine_careful(query, query_type, row[r], row_type, d);
    }
    memcpy(out, sums, (size_t)n * sizeof *out);
}

INLINE void score_rows(int op, int query_type, int row_type, const void *query, const void *rows, size_t stride,
                       size_t n_rows, uint32_t d, float *out)
{
    const char *row = rows;
    const size_t pass_bytes = stride * ROWS;
    const bool fetch = n_rows * stride >= VDB_FETCH_MIN_BYTES;
    size_t i = 0;

    for (; i + ROWS <= n_rows && pass_bytes <= VDB_FETCH_BYTES; i += ROWS, row += pass_bytes) {
        if (fetch)
            vdb_fetch_ahead(row, pass_bytes);
        score_pass(op, query_type, row_type, ROWS, op == VDB_OP_COSINE ? COSINE_CHAINS : CHAINS, query, row, stride,
                   d, out + i);
    }
    for (; i < n_rows; i++, row += stride) {
        if (fetch)
            vdb_fetch_ahead(row, stride);
        score_pass(op, query_type, row_type, 1, ROW_CHAINS, query, row, stride, d, out + i);
    }
}

/* One vector of four queries against one of n rows: each is loaded once, for n and four sums. */
INLINE void tile_step(int op, int n, const vec *q, const vec *x, vec sum[VDB_TILE_QUERIES][TILE_ROWS])
{
    UNROLL for (int j = 0; j < VDB_TILE_QUERIES; j++)
        UNROLL for (int r = 0; r < n; r++)
            accumulate(op, q[j], x[r], &sum[j][r], NULL);
}

INLINE void tile_pass(int op, int n, const float *const *queries, const char *rows, size_t stride, uint32_t d,
                      float *out, size_t out_stride)
{
    vec sum[VDB_TILE_QUERIES][TILE_ROWS], q[VDB_TILE_QUERIES], x[TILE_ROWS];
    const char *query[VDB_TILE_QUERIES], *row[TILE_ROWS];
    UNROLL for (int j = 0; j < VDB_TILE_QUERIES; j++) {
        query[j] = (const char *)queries[j];
        UNROLL for (int r = 0; r < n; r++)
            sum[j][r] = zero();
    }
    UNROLL for (int r = 0; r < n; r++)
        row[r] = rows + (size_t)r * stride;
    size_t i = 0;
    for (; i + LANES <= d; i += LANES) {
        UNROLL for (int r = 0; r < n; r++)
            x[r] = load(VECDB_F32, row[r] + i * 4);
        UNROLL for (int j = 0; j < VDB_TILE_QUERIES; j++)
            q[j] = load(VECDB_F32, query[j] + i * 4);
        tile_step(op, n, q, x, sum);
    }
    if (i < d) {
        UNROLL for (int r = 0; r < n; r++)
            x[r] = load_tail(VECDB_F32, row[r], d);
        UNROLL for (int j = 0; j < VDB_TILE_QUERIES; j++)
            q[j] = load_tail(VECDB_F32, query[j], d);
        tile_step(op, n, q, x, sum);
    }
    float sums[VDB_TILE_QUERIES];
    if (n == 4) {
        UNROLL for (int j = 0; j < VDB_TILE_QUERIES; j++)
            sum4(sum[j][0], sum[j][1 % n], sum[j][2 % n], sum[j][3 % n], out + (size_t)j * out_stride);
        return;
    }
    UNROLL for (int r = 0; r < n; r++) {
        sum4(sum[0][r], sum[1][r], sum[2][r], sum[3][r], sums);
        UNROLL for (int j = 0; j < VDB_TILE_QUERIES; j++)
            out[(size_t)j * out_stride + (size_t)r] = sums[j];
    }
}

INLINE void tile_rows(int op, const float *const *queries, const float *rows, size_t stride, size_t n_rows, uint32_t d,
                      float *out, size_t out_stride)
{
    const char *row = (const char *)rows;
    size_t i = 0;
    for (; i + TILE_ROWS <= n_rows; i += TILE_ROWS, row += TILE_ROWS * stride)
        tile_pass(op, TILE_ROWS, queries, row, stride, d, out + i, out_stride);
    for (; i < n_rows; i++, row += stride)
        tile_pass(op, 1, queries, row, stride, d, out + i, out_stride);
}

INLINE void widen_values(int type, const void *values, size_t n, float *out)
{
    const char *from = values;
    size_t i = 0;
    if (type == VECDB_F32) {
        memcpy(out, values, n * sizeof *out);
        return;
    }
    for (; i + LANES <= n; i += LANES)
        store(out + i, load(type, from + i * size_of(type)));
    if (i < n) {
        char rest[LANES * 4] = {0};
        float floats[LANES];
        memcpy(rest, from + i * size_of(type), (n - i) * size_of(type));
        store(floats, load(type, rest));
        memcpy(out + i, floats, (n - i) * sizeof *out);
    }
}

#define VDB_FLOAT_KERNEL(name, op, query_type, row_type)                                                               \
    VDB_SCORE_KERNEL(name)                                                                                             \
    {                                                                                                                  \
        score_rows(op, query_type, row_type, query, rows, stride, n_rows, dimension, out);                             \
    }
#define VDB_FLOAT_KERNELS_OF(tier, type, row_type)                                                                     \
    VDB_FLOAT_KERNEL(vdb_##tier##_dot_##type, VDB_OP_DOT, VECDB_F32, row_type)                                         \
    VDB_FLOAT_KERNEL(vdb_##tier##_l2_##type, VDB_OP_L2, VECDB_F32, row_type)                                           \
    VDB_FLOAT_KERNEL(vdb_##tier##_cosine_##type, VDB_OP_COSINE, VECDB_F32, row_type)                                   \
    VDB_WIDEN_KERNEL(vdb_##tier##_widen_##type)                                                                        \
    {                                                                                                                  \
        widen_values(row_type, values, n, out);                                                                        \
    }
#define VDB_FLOAT_TILE(name, op)                                                                                       \
    VDB_TILE_KERNEL(name)                                                                                              \
    {                                                                                                                  \
        tile_rows(op, queries, rows, stride, n_rows, dimension, out, out_stride);                                      \
    }
#define VDB_FLOAT_KERNELS(tier)                                                                                        \
    VDB_DECLARE_FLOAT_KERNELS(tier);                                                                                   \
    VDB_FLOAT_KERNELS_OF(tier, f32, VECDB_F32)                                                                         \
    VDB_FLOAT_KERNELS_OF(tier, f16, VECDB_F16)                                                                         \
    VDB_FLOAT_KERNELS_OF(tier, bf16, VECDB_BF16)                                                                       \
    VDB_FLOAT_KERNELS_OF(tier, i8, VECDB_I8)                                                                           \
    VDB_FLOAT_KERNELS_OF(tier, u8, VECDB_U8)                                                                           \
    VDB_FLOAT_TILE(vdb_##tier##_tile_dot, VDB_OP_DOT)                                                                  \
    VDB_FLOAT_TILE(vdb_##tier##_tile_l2, VDB_OP_L2)

#endif
