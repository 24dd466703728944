/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/base/numbers.c - element types (see numbers.h)
 */
#include "numbers.h"

float vdb_float_of_f16(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16;
    uint32_t exponent = bits >> 10 & 31, mantissa = bits & 1023;
    if (exponent == 31)
        return vdb_float_of_bits(sign | 0x7f800000 | mantissa << 13);
    if (exponent)
        return vdb_float_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    float value = (float)mantissa * 0x1p-24f; /* a subnormal, or zero */
    return sign ? -value : value;
}

uint16_t vdb_f16_of_float(float value)
{
    uint32_t bits = vdb_bits_of_float(value);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (magnitude >= 0x477ff000) /* 65520: rounds to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (magnitude < 0x33000001) /* 2^-25 and less: rounds to zero */
        return sign;
    uint32_t exponent = magnitude >> 23, mantissa = (magnitude & 0x7fffff) | 0x800000;
    uint32_t shift = exponent >= 113 ? 13 : 126 - exponent; /* a subnormal half keeps fewer bits */
    uint32_t kept = mantissa >> shift, rest = mantissa & ((1u << shift) - 1), half = 1u << (shift - 1);
    if (rest > half || (rest == half && (kept & 1)))
        kept++; /* may carry into the exponent, which is what rounding up means */
    if (exponent >= 113)
        kept += (exponent - 113) << 10; /* the hidden bit in `kept` adds the missing one */
    return (uint16_t)(sign | kept);
}

uint16_t vdb_bf16_of_float(float value)
{
    uint32_t bits = vdb_bits_of_float(value);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void vdb_floats_of(int type, const void *values, uint32_t n, float *out)
{
    switch (type) {
    case VECDB_F32:
        memcpy(out, values, (size_t)n * 4);
        break;
    case VECDB_F16:
        for (uint32_t i = 0; i < n; i++)
            out[i] = vdb_float_of_f16(((const uint16_t *)values)[i]);
        break;
    case VECDB_BF16:
        for (uint32_t i = 0; i < n; i++)
            out[i] = vdb_float_of_bf16(((const uint16_t *)values)[i]);
        break;
    case VECDB_I8:
        for (uint32_t i = 0; i < n; i++)
            out[i] = ((const int8_t *)values)[i];
        break;
    default:
        for (uint32_t i = 0; i < n; i++)
            out[i] = ((const uint8_t *)values)[i];
        break;
    }
}

const char *vdb_type_name(int type)
{
    static const char *const names[] = {NULL, "f32", "f16", "bf16", "i8", "u8", "bit"};
    return type >= VECDB_F32 && type <= VECDB_BIT ? names[type] : NULL;
}

const char *vdb_metric_name(int metric)
{
    static const char *const names[] = {NULL, "l2", "ip", "cosine", "hamming"};
    return metric >= VECDB_L2 && metric <= VECDB_HAMMING ? names[metric] : NULL;
}
