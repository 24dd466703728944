/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/base/numbers.h - element types: sizes, and conversion of single values
 *
 * The conversions are exact or round to nearest, ties to even, in plain C, the same on every
 * machine. They serve where speed does not matter (validation, rescoring, tests); kernels have
 * their own.
 */
#ifndef VDB_BASE_NUMBERS_H
#define VDB_BASE_NUMBERS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "vecdb.h"

static inline uint32_t vdb_bits_of_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float vdb_float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float vdb_float_of_bf16(uint16_t bits)
{
    return vdb_float_of_bits((uint32_t)bits << 16);
}

float vdb_float_of_f16(uint16_t bits);
uint16_t vdb_f16_of_float(float value);  /* overflow gives infinity, NaN stays NaN */
uint16_t vdb_bf16_of_float(float value); /* likewise */

/* Bytes of one vector: dimension times the size of a value; of bits, rounded up to whole bytes. */
static inline size_t vdb_vector_bytes(int type, uint32_t dimension)
{
    switch (type) {
    case VECDB_F32:
        return (size_t)dimension * 4;
    case VECDB_F16:
    case VECDB_BF16:
        return (size_t)dimension * 2;
    case VECDB_BIT:
        return ((size_t)dimension + 7) / 8;
    default:
        return dimension;
    }
}

/* `values` of `type` (not bit), element by element, as floats: exact for every type. */
void vdb_floats_of(int type, const void *values, uint32_t n, float *out);

const char *vdb_type_name(int type);     /* "f32", ..., NULL for another number */
const char *vdb_metric_name(int metric); /* "l2", ..., NULL for another number */

#endif
