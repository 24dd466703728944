/* SPDX-License-Identifier: Apache-2.0
 *
 * simd/kernels_scalar.c - the kernels of last resort: no instruction above the ABI's floor
 *
 * "scalar" is what the source asks for; the compiler makes of it what the floor has. Floats are
 * two GNU vectors of four, eight chains, which are two SSE2 registers on x86-64 and plain floats
 * on a machine without vectors. Integer loops are written so that the compiler sees a reduction
 * of 16-bit products. This object is built with -O3 for that.
 *
 * There is no fused multiplication here: a product is rounded before it is added, one rounding
 * more per addend, which the 16 of the error bound has room for.
 *
 * Rejected: one float at a time with eight named sums (the compiler finds the vectors in some
 * compilers and not in others, and never in the conversions).
 */
#include <math.h>
#include <string.h>

#include "base/numbers.h"
#include "simd/kernels_private.h"

#define LANES 8
#define ROWS 4
#define CHAINS 1
#define COSINE_CHAINS 1
#define ROW_CHAINS 2
#define TILE_ROWS 1
#define FORCED static inline __attribute__((always_inline))

typedef float float4 __attribute__((vector_size(16)));
typedef int32_t word4 __attribute__((vector_size(16)));
typedef struct {
    float4 low, high;
} vec;

FORCED vec zero(void)
{
    return (vec){{0}, {0}};
}
FORCED vec add(vec a, vec b)
{
    return (vec){a.low + b.low, a.high + b.high};
}
FORCED vec sub(vec a, vec b)
{
    return (vec){a.low - b.low, a.high - b.high};
}
FORCED vec multiply_add(vec a, vec b, vec sum)
{
    return (vec){a.low * b.low + sum.low, a.high * b.high + sum.high};
}
FORCED void store(float *p, vec v)
{
    memcpy(p, &v, sizeof v);
}

/* Shifting exponent and mantissa of a half to their places in a single leaves the exponent 112 too
 * small, for subnormals too: a multiplication by 2^112 is exact and puts both right. All ones in
 * the exponent (infinity, NaN) must become all ones again. */
FORCED float4 floats_of_halves(word4 h)
{
    word4 magnitude = h & 0x7fff, sign = (h & 0x8000) << 16;
    float4 scaled = (float4)(magnitude << 13) * 0x1p112f;
    word4 special = (magnitude >= 0x7c00) & 0x7f800000;
    return (float4)((word4)scaled | special | sign);
}

FORCED vec load(int type, const void *p)
{
    vec v;
    if (type == VECDB_F32) {
        memcpy(&v, p, sizeof v);
        return v;
    }
    uint16_t halves[8];
    int8_t i8[8];
    uint8_t u8[8];
    switch (type) {
    case VECDB_I8:
        memcpy(i8, p, sizeof i8);
        v.low = __builtin_convertvector(((word4){i8[0], i8[1], i8[2], i8[3]}), float4);
        v.high = __builtin_convertvector(((word4){i8[4], i8[5], i8[6], i8[7]}), float4);
        return v;
    case VECDB_U8:
        memcpy(u8, p, sizeof u8);
        v.low = __builtin_convertvector(((word4){u8[0], u8[1], u8[2], u8[3]}), float4);
        v.high = __builtin_convertvector(((word4){u8[4], u8[5], u8[6], u8[7]}), float4);
        return v;
    default:
        memcpy(halves, p, sizeof halves);
        word4 low = {halves[0], halves[1], halves[2], halves[3]};
        word4 high = {halves[4], halves[5], halves[6], halves[7]};
        if (type == VECDB_BF16)
            return (vec){(float4)(low << 16), (float4)(high << 16)};
        return (vec){floats_of_halves(low), floats_of_halves(high)};
    }
}

FORCED vec keep_last(vec v, uint32_t n);
#include "simd/kernels_tail.h"

FORCED vec keep_last(vec v, uint32_t n)
{
    word4 low, high;
    memcpy(&low, keep_words + n, sizeof low);
    memcpy(&high, keep_words + n + 4, sizeof high);
    return (vec){(float4)((word4)v.low & low), (float4)((word4)v.high & high)};
}

FORCED float sum_lanes(vec v)
{
    float4 s = v.low + v.high;
    return (s[0] + s[1]) + (s[2] + s[3]);
}

FORCED void sum4(vec a, vec b, vec c, vec d, float *out)
{
    out[0] = sum_lanes(a);
    out[1] = sum_lanes(b);
    out[2] = sum_lanes(c);
    out[3] = sum_lanes(d);
}

#include "simd/kernels_shape.h"

VDB_FLOAT_KERNELS(scalar)

static double value_at(int type, const void *values, uint32_t i)
{
    uint32_t aligned = 0; /* vdb_floats_of wants its values aligned, and rows need not be */
    float value;
    memcpy(&aligned, (const char *)values + i * size_of(type), size_of(type));
    vdb_floats_of(type, &aligned, 1, &value);
    return value;
}

float vdb_cosine_careful(const void *query, int query_type, const void *row, int row_type, uint32_t dimension)
{
    double dot = 0, square = 0;
    for (uint32_t i = 0; i < dimension; i++) {
        double q = value_at(query_type, query, i), x = value_at(row_type, row, i);
        dot += q * x;
        square += x * x;
    }
    return square == 0 ? 0 : (float)(dot / sqrt(square));
}

/* ---------------------------------------------------------------- integers */

/* Sums wrap modulo 2^32 and come out right: see kernels_integer.h, whose loops are not used here
 * because the compiler's own are as good. */
#define INTEGER_OPS(type, element, type_value)                                                                         \
    FORCED float score_##type(int op, const element *q, const element *x, uint32_t d)                                  \
    {                                                                                                                  \
        uint32_t sum = 0, self = 0;                                                                                    \
        for (uint32_t i = 0; i < d; i++) {                                                                             \
            int difference = (int16_t)(q[i] - x[i]);                                                                   \
            sum += (uint32_t)(op == VDB_OP_L2 ? difference * difference : q[i] * x[i]);                                \
            self += (uint32_t)(x[i] * x[i]);                                                                           \
        }                                                                                                              \
        double value = type_value == VECDB_U8 || op == VDB_OP_L2 ? (double)sum : (double)(int32_t)sum;                 \
        if (op == VDB_OP_COSINE)                                                                                       \
            value = self ? value / sqrt((double)self) : 0;                                                             \
        return (float)value;                                                                                           \
    }                                                                                                                  \
    INTEGER_OP(vdb_scalar_dot_##type##_##type, score_##type, element, VDB_OP_DOT)                                      \
    INTEGER_OP(vdb_scalar_l2_##type##_##type, score_##type, element, VDB_OP_L2)                                        \
    INTEGER_OP(vdb_scalar_cosine_##type##_##type, score_##type, element, VDB_OP_COSINE)
#define INTEGER_OP(name, score, element, op)                                                                           \
    VDB_SCORE_KERNEL(name)                                                                                             \
    {                                                                                                                  \
        for (size_t r = 0; r < n_rows; r++)                                                                            \
            out[r] = score(op, query, (const element *)rows + r * stride, dimension);                                  \
    }

VDB_DECLARE_INTEGER_KERNELS(scalar);
INTEGER_OPS(i8, int8_t, VECDB_I8)
INTEGER_OPS(u8, uint8_t, VECDB_U8)

/* Bits of each byte: pairs, nibbles, bytes are added in place, then a multiplication adds the bytes. */
FORCED uint32_t count_bits(uint64_t v)
{
    v -= v >> 1 & 0x5555555555555555u;
    v = (v & 0x3333333333333333u) + (v >> 2 & 0x3333333333333333u);
    v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return (uint32_t)((v * 0x0101010101010101u) >> 56);
}

VDB_SCORE_KERNEL(vdb_scalar_hamming)
{
    const size_t n_bytes = dimension / 8 + (dimension % 8 != 0);
    for (size_t r = 0; r < n_rows; r++) {
        const char *q = query, *x = (const char *)rows + r * stride;
        uint32_t count = 0;
        uint64_t a, b;
        size_t i = 0;
        for (; i + 8 <= n_bytes; i += 8) {
            memcpy(&a, q + i, 8);
            memcpy(&b, x + i, 8);
            count += count_bits(a ^ b);
        }
        for (; i < n_bytes; i++)
            count += count_bits((uint8_t)(q[i] ^ x[i]));
        out[r] = (float)count;
    }
}

const struct vdb_kernels vdb_scalar_kernels = {
    .name = "scalar",
    VDB_TABLE_FLOAT(scalar),
    VDB_TABLE_INTEGER(scalar, NULL, NULL),
    VDB_TABLE_CODES(scalar),
    VDB_TABLE_KEYS(scalar),
};
