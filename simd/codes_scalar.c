/* SPDX-License-Identifier: Apache-2.0
 *
 * simd/codes_scalar.c - kernels for codes in plain C, for machines without anything better
 */
#include "simd/kernels_private.h"

#define LANES 1
typedef float vec;
#define FORCED static inline __attribute__((always_inline))

FORCED vec load(const float *p)
{
    return *p;
}
FORCED void store(float *p, vec v)
{
    *p = v;
}
FORCED vec add(vec a, vec b)
{
    return a + b;
}
FORCED vec sub(vec a, vec b)
{
    return a - b;
}
FORCED vec swap(vec v, int h) /* there is no h below one lane */
{
    (void)h;
    return v;
}
FORCED vec choose(vec a, vec b, int h)
{
    (void)b;
    (void)h;
    return a;
}

/* A block of n_bytes holds twice as many values. */
FORCED int32_t block4(const int8_t *query, const unsigned char *code, uint32_t n_bytes)
{
    int32_t sum = 0;
    for (uint32_t j = 0; j < n_bytes; j++)
        sum += query[j] * (code[j] & 15) + query[n_bytes + j] * (code[j] >> 4);
    return sum;
}

FORCED int32_t sum4(const int8_t *query, const unsigned char *code, uint32_t n_values)
{
    int32_t sum = 0;
    uint32_t i = 0;
    for (; i + 128 <= n_values; i += 128)
        sum += block4(query + i, code + i / 2, 64);
    return i < n_values ? sum + block4(query + i, code + i / 2, 32) : sum;
}

FORCED int32_t sum8(const struct vdb_code_query *query, const unsigned char *code, uint32_t n_values)
{
    int32_t sum = 0;
    for (uint32_t i = 0; i < n_values; i++)
        sum += query->values[i] * ((int32_t)code[i] - 128);
    return sum;
}

FORCED uint32_t count_bits(const void *query, const unsigned char *code, uint32_t n_bytes)
{
    float count;
    vdb_scalar_hamming(query, code, n_bytes, 1, n_bytes * 8, &count);
    return (uint32_t)count;
}

#include "simd/codes_shape.h"

VDB_CODE_KERNELS(scalar)
