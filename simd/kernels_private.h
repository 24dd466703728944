/* SPDX-License-Identifier: Apache-2.0
 *
 * simd/kernels_private.h - names shared by the objects of simd/, and by nobody else
 *
 * A tier is one instruction set: a file, a set of functions vdb_<tier>_<op>_<type>, a table. A
 * tier that adds a few instructions to another one (vnni, bf16, dotprod) has functions of its
 * own only where these help, and its table names the older tier's functions for the rest; that
 * is why the functions are not static. The macros below write the declarations and the common
 * parts of a table, so that a tier which forgets one does not link.
 */
#ifndef VDB_SIMD_KERNELS_PRIVATE_H
#define VDB_SIMD_KERNELS_PRIVATE_H

#include <string.h>

#include "simd/kernels.h"

#define VDB_SCORE_KERNEL(name)                                                                                         \
    void name(const void *query, const void *rows, size_t stride, size_t n_rows, uint32_t dimension, float *out)
#define VDB_TILE_KERNEL(name)                                                                                          \
    void name(const float *const queries[VDB_TILE_QUERIES], const float *rows, size_t stride, size_t n_rows,           \
              uint32_t dimension, float *out, size_t out_stride)
#define VDB_WIDEN_KERNEL(name) void name(const void *values, size_t n, float *out)

#define VDB_DECLARE_OPS(tier, type)                                                                                    \
    VDB_SCORE_KERNEL(vdb_##tier##_dot_##type);                                                                         \
    VDB_SCORE_KERNEL(vdb_##tier##_l2_##type);                                                                          \
    VDB_SCORE_KERNEL(vdb_##tier##_cosine_##type)
#define VDB_DECLARE_FLOAT_KERNELS(tier)                                                                                \
    VDB_DECLARE_OPS(tier, f32);                                                                                        \
    VDB_DECLARE_OPS(tier, f16);                                                                                        \
    VDB_DECLARE_OPS(tier, bf16);                                                                                       \
    VDB_DECLARE_OPS(tier, i8);                                                                                         \
    VDB_DECLARE_OPS(tier, u8);                                                                                         \
    VDB_TILE_KERNEL(vdb_##tier##_tile_dot);                                                                            \
    VDB_TILE_KERNEL(vdb_##tier##_tile_l2);                                                                             \
    VDB_WIDEN_KERNEL(vdb_##tier##_widen_f32);                                                                          \
    VDB_WIDEN_KERNEL(vdb_##tier##_widen_f16);                                                                          \
    VDB_WIDEN_KERNEL(vdb_##tier##_widen_bf16);                                                                         \
    VDB_WIDEN_KERNEL(vdb_##tier##_widen_i8);                                                                           \
    VDB_WIDEN_KERNEL(vdb_##tier##_widen_u8)
/* i8 rows against an i8 query, u8 against u8, bits against bits. */
#define VDB_DECLARE_INTEGER_KERNELS(tier)                                                                              \
    VDB_DECLARE_OPS(tier, i8_i8);                                                                                      \
    VDB_DECLARE_OPS(tier, u8_u8);                                                                                      \
    VDB_SCORE_KERNEL(vdb_##tier##_hamming)

#define VDB_TABLE_OP(tier, op)                                                                                         \
    {                                                                                                                  \
        [VECDB_F32] = vdb_##tier##_##op##_f32, [VECDB_F16] = vdb_##tier##_##op##_f16,                                  \
        [VECDB_BF16] = vdb_##tier##_##op##_bf16, [VECDB_I8] = vdb_##tier##_##op##_i8,                                  \
        [VECDB_U8] = vdb_##tier##_##op##_u8                                                                            \
    }
/* The members of a table that a tier's float kernels fill, and those that its integer kernels fill. */
#define VDB_TABLE_FLOAT(tier)                                                                                          \
    .float_query = {[VDB_OP_DOT] = VDB_TABLE_OP(tier, dot),                                                            \
                    [VDB_OP_L2] = VDB_TABLE_OP(tier, l2),                                                              \
                    [VDB_OP_COSINE] = VDB_TABLE_OP(tier, cosine)},                                                     \
    .tile_dot = vdb_##tier##_tile_dot, .tile_l2 = vdb_##tier##_tile_l2, .widen = {                                     \
        [VECDB_F32] = vdb_##tier##_widen_f32,                                                                          \
        [VECDB_F16] = vdb_##tier##_widen_f16,                                                                          \
        [VECDB_BF16] = vdb_##tier##_widen_bf16,                                                                        \
        [VECDB_I8] = vdb_##tier##_widen_i8,                                                                            \
        [VECDB_U8] = vdb_##tier##_widen_u8,                                                                            \
    }
#define VDB_TABLE_INTEGER(tier, dot_of_bf16, cosine_of_bf16)                                                           \
    .same_type = {[VDB_OP_DOT] = {[VECDB_I8] = vdb_##tier##_dot_i8_i8,                                                 \
                                  [VECDB_U8] = vdb_##tier##_dot_u8_u8,                                                 \
                                  [VECDB_BF16] = dot_of_bf16},                                                         \
                  [VDB_OP_L2] = {[VECDB_I8] = vdb_##tier##_l2_i8_i8, [VECDB_U8] = vdb_##tier##_l2_u8_u8},              \
                  [VDB_OP_COSINE] = {[VECDB_I8] = vdb_##tier##_cosine_i8_i8,                                           \
                                     [VECDB_U8] = vdb_##tier##_cosine_u8_u8,                                           \
                                     [VECDB_BF16] = cosine_of_bf16}},                                                  \
    .hamming = vdb_##tier##_hamming

/* Codes: codes_<tier>.c. */
#define VDB_CODE_KERNEL(name)                                                                                          \
    void name(const struct vdb_code_query *query, const unsigned char *codes, size_t stride, uint32_t n_values,        \
              const uint32_t *ids, size_t n, float *out)
#define VDB_CODE_BITS_KERNEL(name)                                                                                     \
    void name(const void *query, const unsigned char *codes, size_t stride, uint32_t n_bytes, const uint32_t *ids,     \
              size_t n, float *out)
#define VDB_DECLARE_CODE_KERNELS(tier)                                                                                 \
    VDB_CODE_KERNEL(vdb_##tier##_code4);                                                                               \
    VDB_CODE_KERNEL(vdb_##tier##_code8);                                                                               \
    VDB_CODE_BITS_KERNEL(vdb_##tier##_code_bits);                                                                      \
    void vdb_##tier##_hadamard(float *values, size_t n)
#define VDB_TABLE_CODES(tier)                                                                                          \
    .code4 = vdb_##tier##_code4, .code8 = vdb_##tier##_code8, .code_bits = vdb_##tier##_code_bits,                     \
    .hadamard = vdb_##tier##_hadamard

/* Sorted keys: keys_<tier>.c. */
#define VDB_INSERT_KEYS(name)                                                                                          \
    uint32_t name(uint64_t *keys, uint32_t *n, uint32_t limit, const uint64_t *fresh, uint32_t n_fresh)
#define VDB_TABLE_KEYS(tier) .insert_keys = vdb_##tier##_insert_keys
VDB_INSERT_KEYS(vdb_scalar_insert_keys);
#if defined(__x86_64__)
VDB_INSERT_KEYS(vdb_avx512_insert_keys);
#endif

VDB_SCORE_KERNEL(vdb_scalar_hamming);
VDB_DECLARE_CODE_KERNELS(scalar);
extern const struct vdb_kernels vdb_scalar_kernels;
#if defined(__x86_64__)
VDB_DECLARE_CODE_KERNELS(avx2);
VDB_DECLARE_CODE_KERNELS(vnni);
VDB_DECLARE_FLOAT_KERNELS(avx512);
VDB_DECLARE_INTEGER_KERNELS(vnni);
/* bf16 against bf16 by widening both: for what VDPBF16PS must not be used for */
VDB_SCORE_KERNEL(vdb_avx512_dot_bf16_bf16);
VDB_SCORE_KERNEL(vdb_avx512_cosine_bf16_bf16);
extern const struct vdb_kernels vdb_avx2_kernels;
extern const struct vdb_kernels vdb_avx512_kernels;
extern const struct vdb_kernels vdb_vnni_kernels;
extern const struct vdb_kernels vdb_bf16_kernels;
#elif defined(__aarch64__)
VDB_DECLARE_CODE_KERNELS(neon);
VDB_DECLARE_CODE_KERNELS(dotprod);
VDB_DECLARE_FLOAT_KERNELS(neon);
extern const struct vdb_kernels vdb_neon_kernels;
extern const struct vdb_kernels vdb_dotprod_kernels;
#endif

/* How far ahead of the rows being scored the next ones are fetched, and the least size of a block
 * for which it is worth it: searches in a graph score single rows here and there. The hardware's
 * prefetchers stop at each 4 KiB page. Several rows are scored at a time only while they lie within
 * this distance: as streams further apart they are read at half the speed of one after another.
 * Chosen with bench_kernels on Zen 5. */
#ifndef VDB_FETCH_BYTES
#define VDB_FETCH_BYTES 4096
#endif
#define VDB_FETCH_MIN_BYTES 8192
#define VDB_FETCH_MAX_BYTES 8192 /* of one row; in longer ones the hardware has found its stride */

/* Fetch what lies VDB_FETCH_BYTES behind the rows of one pass; together the passes fetch all. It
 * goes on past the end of the block, because the next page mostly follows in the mapping. */
static inline __attribute__((always_inline)) void vdb_fetch_ahead(const void *rows, size_t n_bytes)
{
    if (n_bytes <= VDB_FETCH_MAX_BYTES)
        for (size_t i = 0; i < n_bytes; i += 64)
            __builtin_prefetch((const void *)((uintptr_t)rows + VDB_FETCH_BYTES + i), 0, 3);
}

/* Copy n <= 32 bytes by two moves that may overlap: a call to memcpy costs more than a short row. */
static inline __attribute__((always_inline)) void vdb_copy_few(void *to, const void *from, size_t n)
{
    char *t = to;
    const char *f = from;
#define VDB_COPY_BOTH_ENDS(size)                                                                                       \
    if (n >= (size)) {                                                                                                 \
        char head[size], end[size];                                                                                    \
        memcpy(head, f, size);                                                                                         \
        memcpy(end, f + n - (size), size);                                                                             \
        memcpy(t, head, size);                                                                                         \
        memcpy(t + n - (size), end, size);                                                                             \
        return;                                                                                                        \
    }
    VDB_COPY_BOTH_ENDS(16)
    VDB_COPY_BOTH_ENDS(8)
    VDB_COPY_BOTH_ENDS(4)
    VDB_COPY_BOTH_ENDS(2)
#undef VDB_COPY_BOTH_ENDS
    if (n)
        *t = *f;
}

/* Cosine without |q| of one row in double precision, for rows whose |x|^2 is not a float that can
 * be trusted: zero, below VDB_COSINE_MIN, infinite. `query_type` and `row_type` as in vecdb_type. */
float vdb_cosine_careful(const void *query, int query_type, const void *row, int row_type, uint32_t dimension);

/* |x|^2 = 2^-48 is |x| = 2^-24. A product that underflows is wrong by at most 2^-150, so d of them,
 * divided by |x|, by at most d * 2^-126: the absolute term of the error bound. */
#define VDB_COSINE_MIN 0x1p-48f
#define VDB_COSINE_MAX 0x1p127f

#endif
