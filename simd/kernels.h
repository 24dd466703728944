/* SPDX-License-Identifier: Apache-2.0
 *
 * simd/kernels.h - distance kernels: one query against n rows
 *
 * One const table of functions per instruction set (kernels_scalar.c, kernels_avx2.c,
 * kernels_avx512.c, kernels_neon.c), each compiled with its own flags and nothing else with
 * them; dispatch.c chooses a table once, when a database is opened. An indirect call is paid
 * per block of rows, never per row.
 *
 * WHAT A KERNEL COMPUTES, for each row x of a block
 *     DOT      <q, x>
 *     L2       |q - x|^2            (squared: the caller takes the root of what it keeps)
 *     COSINE   <q, x> / |x|         (the caller divides by |q|, once); 0 for x = 0
 *     HAMMING  number of bits that differ
 *
 * THE ERROR BOUND every kernel keeps, and tests/test_kernels.c checks against double precision:
 *     |out - exact| <= vdb_kernel_error(d) * S + d * 2^-126
 * with S = |q||x| for DOT, the exact value for L2, |q| for COSINE. It follows from the rule that
 * a sum of d terms runs in at least eight independent chains, so that no addend passes through
 * more than d/8 + 16 roundings of relative size 2^-24 (Higham, Accuracy and Stability, 3.1).
 * HAMMING is exact. Overflow gives an infinity or NaN, as IEEE arithmetic does.
 *
 * Integer rows (i8, u8) against a query of their own type are summed exactly in integers; the
 * result is rounded to float once.
 *
 * Rows begin at any address and follow each other at `stride` bytes; nothing outside of a row's
 * own bytes is read. Thread rule: tables are constant, kernels have no state.
 */
#ifndef VDB_SIMD_KERNELS_H
#define VDB_SIMD_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "vecdb.h"

enum vdb_op { VDB_OP_DOT = 0, VDB_OP_L2 = 1, VDB_OP_COSINE = 2, VDB_N_OPS = 3 };

/* out[i] = score of row i, for i < n_rows. What type `query` has, the table's member says. */
typedef void (*vdb_score_fn)(const void *query, const void *rows, size_t stride, size_t n_rows, uint32_t dimension,
                             float *out);

/* Four f32 queries against n f32 rows: out[j * out_stride + i] = score of query j and row i. For
 * batches, where rows stay in the first-level cache and arithmetic is the limit. */
#define VDB_TILE_QUERIES 4
typedef void (*vdb_tile_fn)(const float *const queries[VDB_TILE_QUERIES], const float *rows, size_t stride,
                            size_t n_rows, uint32_t dimension, float *out, size_t out_stride);

/* ------------------------------------------------------------------ codes (index/codes.h)
 *
 * A record is a code and, behind it, the factors `add` and `scale` (two floats). `n_values` is a multiple of 64.
 *     4 bits   n_values / 2 bytes: byte j of a block of 64 holds value j in its low half and value 64 + j in its high
 *              half; when 64 values are left over, a last block of 32 bytes holds values j and 32 + j. Values 0 .. 15
 *     8 bits   n_values bytes, 0 .. 255
 * For node ids[i], record r = codes + ids[i] * stride and isum = the sum of query->values[j] * value j, in integers:
 *     4 bits   out[i] = add + scale * (query->scale * (float)(2 * isum - 15 * query->sum))
 *     8 bits   out[i] = add + scale * (query->scale * (float)(isum - 128 * query->sum))
 * Each operation is rounded to float once, without fused ones: every tier gives the same bits. The integers fit 32 bits
 * up to 65,536 values. Kernels prefetch the records of later ids themselves. */
struct vdb_code_query {
    const int8_t *values; /* n_values of them, 64-byte aligned */
    int32_t sum;          /* of the values */
    float scale;
};
typedef void (*vdb_code_fn)(const struct vdb_code_query *query, const unsigned char *codes, size_t stride,
                            uint32_t n_values, const uint32_t *ids, size_t n, float *out);
/* Bits: out[i] = the number of bits that differ between n_bytes bytes of the query and of record ids[i]. */
typedef void (*vdb_code_bits_fn)(const void *query, const unsigned char *codes, size_t stride, uint32_t n_bytes,
                                 const uint32_t *ids, size_t n, float *out);
/* One Hadamard transform in place of n = 2^m >= 64 floats, not scaled; the same bits on every tier. */
typedef void (*vdb_hadamard_fn)(float *values, size_t n);
/* Put n_fresh keys, in their order, into keys[0 .. *n), which ascend and are at most `limit` >= 1; what does not fit
 * falls out at the end. Returns the lowest place that was given, `limit` when there was none. No key is given twice.
 * `keys` is aligned to 64 bytes and has room for `limit` rounded up to a multiple of 8; from *n on, those hold
 * UINT64_MAX, which is no key, and still do so afterwards. */
typedef uint32_t (*vdb_insert_keys_fn)(uint64_t *keys, uint32_t *n, uint32_t limit, const uint64_t *fresh,
                                       uint32_t n_fresh);

struct vdb_kernels {
    const char *name; /* "scalar", "avx2", "avx512", "avx512-vnni-bf16", "neon", "neon-dotprod", ... */
    /* [op][type], type one of VECDB_F32 .. VECDB_U8: an f32 query against rows of that type. None is NULL. */
    vdb_score_fn float_query[VDB_N_OPS][VECDB_U8 + 1];
    /* A query of the rows' own type (i8, u8, bf16, f16), where that is faster; else NULL. */
    vdb_score_fn same_type[VDB_N_OPS][VECDB_U8 + 1];
    vdb_score_fn hamming; /* bits against bits; `dimension` counts bits, unused bits are zero */
    vdb_tile_fn tile_dot;
    vdb_tile_fn tile_l2;
    vdb_code_fn code4, code8;
    vdb_code_bits_fn code_bits;
    vdb_hadamard_fn hadamard;
    vdb_insert_keys_fn insert_keys;
    /* n values of a type as floats, exactly. [type], f32 included. */
    void (*widen[VECDB_U8 + 1])(const void *values, size_t n, float *out);
};

/* The factor in the error bound above. */
static inline double vdb_kernel_error(uint32_t dimension)
{
    return ((double)dimension / 8 + 16) * 0x1p-23; /* twice the bound: S itself is computed in floats */
}

/* The best table this machine can run, not above `cap` (a table's name; NULL: no cap, then the
 * environment variable VECDB_SIMD counts, with the same names). An unknown or unavailable name
 * gives the best available one below it in the list, at worst scalar. Never NULL. Any thread. */
const struct vdb_kernels *vdb_kernels_choose(const char *cap);

/* All tables this machine can run, best first, scalar last; returns how many. For tests, benches. */
size_t vdb_kernels_available(const struct vdb_kernels *tables[], size_t limit);

#endif
