/* SPDX-License-Identifier: Apache-2.0
 *
 * simd/kernels_avx512bf16.c - bf16 against bf16 with VDPBF16PS
 *
 * VDPBF16PS multiplies pairs of bf16 and adds them to a float, 32 products an instruction. It
 * takes subnormal inputs as zero and gives zero for subnormal results, whatever MXCSR says. With
 * d <= 65,536 the error bound of kernels.h allows for that if
 *
 *     2^-60 <= max |q_i| <= 1
 *
 *   - x_i subnormal: loses |q_i x_i| < 2^-126, the d * 2^-126 of the bound;
 *   - a sum that is subnormal loses less than 2^-126, and not in the same step as the former,
 *     which adds zero to a sum that is normal or zero already;
 *   - q_i subnormal: all of them lose less than 2^8 * 2^-126 |x|, and the bound has 2^-19 |q||x|;
 *   - cosine: the same losses divided by |x| >= 2^-24 (VDB_COSINE_MIN) are below 2^-19 |q|.
 *
 * This is tested once a call, on the query; other queries take the kernel that widens both. Unit
 * vectors, which is what embeddings mostly are, pass. |q - x|^2 has no form that VDPBF16PS could
 * compute without cancellation, so l2 has no kernel here.
 *
 * Everything else is that of kernels_avx512.c and kernels_avx512vnni.c.
 */
#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "simd/kernels_private.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 4")
#define LANES 32
#define ROWS 4

INLINE __m512bh load(const uint16_t *p)
{
    return (__m512bh)_mm512_loadu_si512(p);
}

INLINE __m512bh load_tail(const uint16_t *row, uint32_t d)
{
    uint32_t rest = d % LANES;
    return (__m512bh)_mm512_maskz_loadu_epi16((1u << rest) - 1, row + d - rest);
}

INLINE void accumulate(int op, __m512bh q, __m512bh x, __m512 *sum, __m512 *self)
{
    *sum = _mm512_dpbf16_ps(*sum, q, x);
    if (op == VDB_OP_COSINE)
        *self = _mm512_dpbf16_ps(*self, x, x);
}

INLINE void score_pass(int op, int n, const uint16_t *query, const char *rows, size_t stride, uint32_t d, float *out)
{
    const uint16_t *row[ROWS];
    __m512 sum[ROWS], self[ROWS];
    UNROLL for (int r = 0; r < n; r++) {
        row[r] = (const uint16_t *)(const void *)(rows + (size_t)r * stride);
        sum[r] = self[r] = _mm512_setzero_ps();
    }
    size_t i = 0;
    for (; i + LANES <= d; i += LANES) {
        __m512bh q = load(query + i);
        UNROLL for (int r = 0; r < n; r++)
            accumulate(op, q, load(row[r] + i), &sum[r], &self[r]);
    }
    if (i < d) {
        __m512bh q = load_tail(query, d);
        UNROLL for (int r = 0; r < n; r++)
            accumulate(op, q, load_tail(row[r], d), &sum[r], &self[r]);
    }
    UNROLL for (int r = 0; r < n; r++) {
        float score = _mm512_reduce_add_ps(sum[r]);
        if (op == VDB_OP_COSINE) {
            float square = _mm512_reduce_add_ps(self[r]);
            score = square >= VDB_COSINE_MIN && square <= VDB_COSINE_MAX
                        ? score / sqrtf(square)
                        : vdb_cosine_careful(query, VECDB_BF16, row[r], VECDB_BF16, d);
        }
        out[r] = score;
    }
}

INLINE void score_rows(int op, const void *query, const char *rows, size_t stride, size_t n_rows, uint32_t d,
                       float *out)
{
    const size_t pass_bytes = stride * ROWS;
    const bool fetch = n_rows * stride >= VDB_FETCH_MIN_BYTES;
    size_t i = 0;
    for (; i + ROWS <= n_rows && pass_bytes <= VDB_FETCH_BYTES; i += ROWS, rows += pass_bytes) {
        if (fetch)
            vdb_fetch_ahead(rows, pass_bytes);
        score_pass(op, ROWS, query, rows, stride, d, out + i);
    }
    for (; i < n_rows; i++, rows += stride) {
        if (fetch)
            vdb_fetch_ahead(rows, stride);
        score_pass(op, 1, query, rows, stride, d, out + i);
    }
}

/* Is 2^-60 <= max |q_i| <= 1? Magnitudes of bf16 are ordered as their bits are; NaN is above. */
static bool is_moderate(const void *query, uint32_t d)
{
    uint16_t most = 0;
    for (uint32_t i = 0; i < d; i++) {
        uint16_t value;
        memcpy(&value, (const char *)query + 2 * (size_t)i, sizeof value);
        value &= 0x7fff;
        most = value > most ? value : most;
    }
    return most >= (127 - 60) << 7 && most <= 127 << 7;
}

static VDB_SCORE_KERNEL(dot_bf16)
{
    if (is_moderate(query, dimension))
        score_rows(VDB_OP_DOT, query, rows, stride, n_rows, dimension, out);
    else
        vdb_avx512_dot_bf16_bf16(query, rows, stride, n_rows, dimension, out);
}

static VDB_SCORE_KERNEL(cosine_bf16)
{
    if (is_moderate(query, dimension))
        score_rows(VDB_OP_COSINE, query, rows, stride, n_rows, dimension, out);
    else
        vdb_avx512_cosine_bf16_bf16(query, rows, stride, n_rows, dimension, out);
}

const struct vdb_kernels vdb_bf16_kernels = {
    .name = "avx512-vnni-bf16",
    VDB_TABLE_FLOAT(avx512),
    VDB_TABLE_INTEGER(vnni, dot_bf16, cosine_bf16),
    VDB_TABLE_CODES(vnni),
    VDB_TABLE_KEYS(avx512),
};

#else
typedef int vdb_no_bf16; /* a translation unit must not be empty */
#endif
