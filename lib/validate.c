/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/validate.c - what callers hand in (see validate.h)
 */
#include "validate.h"

#include <math.h>
#include <stdio.h>

#include "base/error.h"
#include "base/numbers.h"
#include "base/utf8.h"

int vdb_check_name(const char *what, const char *name, vecdb_error *err)
{
    size_t length = name ? strlen(name) : 0;
    if (!length)
        return vdb_fail(err, VECDB_INVALID, "a %s needs a name", what);
    if (length > VECDB_MAX_NAME)
        return vdb_fail(err, VECDB_INVALID, "the name of a %s takes up to %d bytes; \"%.40s...\" has %zu", what,
                        VECDB_MAX_NAME, name, length);
    if (!vdb_utf8_valid(name, length))
        return vdb_fail(err, VECDB_INVALID, "the name of a %s must be UTF-8", what);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            return vdb_fail(err, VECDB_INVALID,
                            "the name of a %s must not hold control characters (byte %zu is 0x%02x)", what, i,
                            (unsigned char)name[i]);
    return VECDB_OK;
}

int vdb_check_field(const vecdb_field *field, struct vdb_field_row *row, vecdb_error *err)
{
    int status = vdb_check_name("field", field->name, err);
    if (status)
        return status;
    *row = (struct vdb_field_row){.dimension = field->dimension,
                                  .type = field->type ? field->type : VECDB_F32,
                                  .metric = field->metric,
                                  .index = field->index,
                                  .compression = field->compression};
    memcpy(row->name, field->name, strlen(field->name) + 1);
    if (row->dimension < 1 || row->dimension > VECDB_MAX_DIMENSION)
        return vdb_fail(err, VECDB_INVALID, "field \"%s\": dimension is %u; it takes 1 to %d", row->name,
                        row->dimension, VECDB_MAX_DIMENSION);
    if (!vdb_type_name(row->type))
        return vdb_fail(err, VECDB_INVALID, "field \"%s\": there is no element type %d", row->name, row->type);
    if (!row->metric)
        row->metric = row->type == VECDB_BIT ? VECDB_HAMMING : VECDB_COSINE;
    if (!vdb_metric_name(row->metric))
        return vdb_fail(err, VECDB_INVALID, "field \"%s\": there is no metric %d", row->name, row->metric);
    if ((row->metric == VECDB_HAMMING) != (row->type == VECDB_BIT))
        return vdb_fail(err, VECDB_INVALID, "field \"%s\": metric %s does not go with element type %s%s", row->name,
                        vdb_metric_name(row->metric), vdb_type_name(row->type),
                        row->type == VECDB_BIT ? "; bits are compared by hamming" : "; hamming takes bits");
    if (row->index < VECDB_INDEX_AUTO || row->index > VECDB_INDEX_HNSW)
        return vdb_fail(err, VECDB_INVALID, "field \"%s\": there is no index kind %d", row->name, row->index);
    if (row->compression < VECDB_COMPRESSION_AUTO || row->compression > VECDB_COMPRESSION_MAX)
        return vdb_fail(err, VECDB_INVALID, "field \"%s\": there is no compression %d", row->name, row->compression);
    for (int i = 0; i < 4; i++)
        if (field->reserved[i])
            return vdb_fail(err, VECDB_INVALID, "field \"%s\": vecdb_field.reserved must be zero", row->name);
    return VECDB_OK;
}

void vdb_describe_field(const struct vdb_field_row *row, vecdb_field *field)
{
    *field = (vecdb_field){.name = row->name,
                           .dimension = row->dimension,
                           .type = row->type,
                           .metric = row->metric,
                           .index = row->index,
                           .compression = row->compression};
}

int vdb_check_key(const char *where, const vecdb_key *key, vecdb_key *out, vecdb_error *err)
{
    if (!key->text) {
        *out = (vecdb_key){.integer = key->integer};
        return VECDB_OK;
    }
    size_t length = key->length ? key->length : strlen(key->text);
    if (!length)
        return vdb_fail(err, VECDB_INVALID, "%s: the key is empty; give an integer or a text", where);
    if (length > VECDB_MAX_KEY)
        return vdb_fail(err, VECDB_INVALID, "%s: the key has %zu bytes; up to %d are allowed", where, length,
                        VECDB_MAX_KEY);
    if (!vdb_utf8_valid(key->text, length))
        return vdb_fail(err, VECDB_INVALID, "%s: the key is not UTF-8", where);
    if (memchr(key->text, 0, length))
        return vdb_fail(err, VECDB_INVALID, "%s: the key holds a NUL", where);
    *out = (vecdb_key){.text = key->text, .length = length};
    return VECDB_OK;
}

int vdb_check_text(const char *where, const char *what, const char *text, size_t length, size_t *out, vecdb_error *err)
{
    if (!length)
        length = strlen(text);
    if (length > 1000000000) /* SQLite's limit for a value */
        return vdb_fail(err, VECDB_INVALID, "%s: the %s has %zu bytes; up to 1,000,000,000 are allowed", where, what,
                        length);
    if (!vdb_utf8_valid(text, length))
        return vdb_fail(err, VECDB_INVALID, "%s: the %s is not UTF-8", where, what);
    *out = length;
    return VECDB_OK;
}

/* ------------------------------------------------------------------ vectors */

static float value_at(int type, const void *values, uint32_t i)
{
    float value;
    switch (type) {
    case VECDB_F32:
        memcpy(&value, (const char *)values + 4 * (size_t)i, 4);
        return value;
    case VECDB_F16:
    case VECDB_BF16: {
        uint16_t bits;
        memcpy(&bits, (const char *)values + 2 * (size_t)i, 2);
        return type == VECDB_F16 ? vdb_float_of_f16(bits) : vdb_float_of_bf16(bits);
    }
    case VECDB_I8:
        return ((const int8_t *)values)[i];
    default:
        return ((const uint8_t *)values)[i];
    }
}

/* The first value that is NaN or infinite, or n. Exponents of all ones, found without branches. */
static uint32_t first_not_finite(int type, const void *values, uint32_t n)
{
    uint32_t bad = 0;
    if (type == VECDB_F32) {
        for (uint32_t i = 0; i < n; i++) {
            uint32_t bits;
            memcpy(&bits, (const char *)values + 4 * (size_t)i, 4);
            bad |= (bits & 0x7f800000) == 0x7f800000;
        }
    } else if (type == VECDB_F16 || type == VECDB_BF16) {
        uint16_t exponent = type == VECDB_F16 ? 0x7c00 : 0x7f80;
        for (uint32_t i = 0; i < n; i++) {
            uint16_t bits;
            memcpy(&bits, (const char *)values + 2 * (size_t)i, 2);
            bad |= (bits & exponent) == exponent;
        }
    }
    if (!bad)
        return n;
    for (uint32_t i = 0; i < n; i++)
        if (!isfinite(value_at(type, values, i)))
            return i;
    return n;
}

static bool is_zero(int type, const void *values, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (value_at(type, values, i) != 0)
            return false;
    return true;
}

static int check_bits(const char *where, const struct vdb_field_row *field, const void *values, void *out,
                      vecdb_error *err)
{
    size_t n_bytes = vdb_vector_bytes(VECDB_BIT, field->dimension);
    const unsigned char *bytes = values;
    if (field->dimension % 8 && bytes[n_bytes - 1] >> field->dimension % 8)
        return vdb_fail(err, VECDB_INVALID, "%s: field \"%s\" has %u bits; the bits behind them must be zero", where,
                        field->name, field->dimension);
    memcpy(out, values, n_bytes);
    return VECDB_OK;
}

static int check_values(const char *where, const struct vdb_field_row *field, const void *values, int type,
                        vecdb_error *err)
{
    uint32_t bad = first_not_finite(type, values, field->dimension);
    if (bad < field->dimension)
        return vdb_fail(err, VECDB_INVALID, "%s: value %u of field \"%s\" is %s; vectors take finite numbers", where,
                        bad, field->name, isnan(value_at(type, values, bad)) ? "NaN" : "infinite");
    if (field->metric == VECDB_COSINE && is_zero(type, values, field->dimension))
        return vdb_fail(err, VECDB_INVALID,
                        "%s: the vector of field \"%s\" is all zeros, which has no direction and so no cosine", where,
                        field->name);
    return VECDB_OK;
}

/* One value into i8 or u8: whole numbers in range only. */
static bool convert_integer(int type, float value, void *out, uint32_t i)
{
    int low = type == VECDB_I8 ? -128 : 0, high = type == VECDB_I8 ? 127 : 255;
    if (!(value >= (float)low && value <= (float)high) || value != (float)(int)value)
        return false;
    ((unsigned char *)out)[i] = (unsigned char)(int)value;
    return true;
}

static int convert(const char *where, const struct vdb_field_row *field, const void *values, int type, void *out,
                   vecdb_error *err)
{
    for (uint32_t i = 0; i < field->dimension; i++) {
        float value = value_at(type, values, i);
        uint16_t half;
        switch (field->type) {
        case VECDB_F32:
            memcpy((char *)out + 4 * (size_t)i, &value, 4);
            break;
        case VECDB_F16:
            half = vdb_f16_of_float(value);
            if ((half & 0x7c00) == 0x7c00)
                return vdb_fail(err, VECDB_INVALID, "%s: value %u of field \"%s\" is %g; type f16 goes up to 65504",
                                where, i, field->name, (double)value);
            memcpy((char *)out + 2 * (size_t)i, &half, 2);
            break;
        case VECDB_BF16:
            half = vdb_bf16_of_float(value);
            if ((half & 0x7f80) == 0x7f80)
                return vdb_fail(err, VECDB_INVALID, "%s: value %u of field \"%s\" is %g, too large for type bf16",
                                where, i, field->name, (double)value);
            memcpy((char *)out + 2 * (size_t)i, &half, 2);
            break;
        default:
            if (!convert_integer(field->type, value, out, i))
                return vdb_fail(err, VECDB_INVALID,
                                "%s: value %u of field \"%s\" is %.9g; type %s takes whole numbers from %s", where, i,
                                field->name, (double)value, vdb_type_name(field->type),
                                field->type == VECDB_I8 ? "-128 to 127" : "0 to 255");
            break;
        }
    }
    return VECDB_OK;
}

int vdb_check_vector(const char *where, const struct vdb_field_row *field, const void *values, uint32_t dimension,
                     int type, void *out, vecdb_error *err)
{
    if (dimension && dimension != field->dimension)
        return vdb_fail(err, VECDB_INVALID, "%s: the vector has %u values, field \"%s\" takes %u", where, dimension,
                        field->name, field->dimension);
    if (!type)
        type = field->type;
    if (!vdb_type_name(type))
        return vdb_fail(err, VECDB_INVALID, "%s: there is no element type %d", where, type);
    if ((type == VECDB_BIT) != (field->type == VECDB_BIT))
        return vdb_fail(err, VECDB_INVALID, "%s: values of type %s cannot go into field \"%s\" of type %s", where,
                        vdb_type_name(type), field->name, vdb_type_name(field->type));
    if (type == VECDB_BIT)
        return check_bits(where, field, values, out, err);
    int status = check_values(where, field, values, type, err);
    if (status)
        return status;
    if (type == field->type) {
        memcpy(out, values, vdb_vector_bytes(type, field->dimension));
        return VECDB_OK;
    }
    status = convert(where, field, values, type, out, err);
    if (!status && field->metric == VECDB_COSINE && is_zero(field->type, out, field->dimension))
        status = vdb_fail(err, VECDB_INVALID, "%s: the vector of field \"%s\" rounds to zero in type %s", where,
                          field->name, vdb_type_name(field->type));
    return status;
}

int vdb_check_query(const char *where, const struct vdb_field_row *field, const void *values, int type, void *out,
                    vecdb_error *err)
{
    if (!type)
        type = field->type == VECDB_BIT ? VECDB_BIT : VECDB_F32;
    if (!vdb_type_name(type))
        return vdb_fail(err, VECDB_INVALID, "%s: there is no element type %d", where, type);
    if ((type == VECDB_BIT) != (field->type == VECDB_BIT))
        return vdb_fail(err, VECDB_INVALID, "%s: a vector of type %s cannot be compared with field \"%s\" of type %s",
                        where, vdb_type_name(type), field->name, vdb_type_name(field->type));
    if (type == VECDB_BIT)
        return check_bits(where, field, values, out, err);
    int status = check_values(where, field, values, type, err);
    if (!status)
        vdb_floats_of(type, values, field->dimension, out);
    return status;
}

float vdb_norm_bound(int type, const void *values, uint32_t dimension)
{
    if (type == VECDB_BIT)
        return 0;
    double sum = 0;
    for (uint32_t i = 0; i < dimension; i++) {
        double value = value_at(type, values, i);
        sum += value * value;
    }
    double norm = sqrt(sum) * (1 + 0x1p-20); /* more than all roundings up to here */
    return norm > 3.0e38 ? HUGE_VALF : (float)norm;
}
