/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/values.c - element types, numbers and keys as text
 *
 * The command's own conversions: it sees nothing of the library's inside, and needs few of them
 * (queries to f32, vectors to decimal digits). Floats are printed in the fewest digits that read
 * back as the same float, found by trying: 6 digits are enough for most, 9 for all (17 for
 * doubles). Reading goes through strtod and a cast, here as in the readers, so that what is
 * compared is what a later import will do.
 */
#include "values.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---------------------------------------------------------------- types */

const char *type_name(int type)
{
    switch (type) {
    case VECDB_TYPE_DEFAULT:
    case VECDB_F32:
        return "f32";
    case VECDB_F16:
        return "f16";
    case VECDB_BF16:
        return "bf16";
    case VECDB_I8:
        return "i8";
    case VECDB_U8:
        return "u8";
    case VECDB_BIT:
        return "bit";
    case VALUE_I32:
        return "i32";
    }
    return "unknown";
}

const char *metric_name(int metric)
{
    static const char *const names[] = {"default", "l2", "ip", "cosine", "hamming"};
    return metric >= 0 && metric <= VECDB_HAMMING ? names[metric] : "unknown";
}

const char *index_name(int index)
{
    return index == VECDB_INDEX_AUTO   ? "auto"
           : index == VECDB_INDEX_FLAT ? "flat"
           : index == VECDB_INDEX_HNSW ? "hnsw"
                                       : "unknown";
}

const char *compression_name(int compression)
{
    static const char *const names[] = {"auto", "none", "max"};
    return compression >= 0 && compression <= VECDB_COMPRESSION_MAX ? names[compression] : "unknown";
}

size_t value_bytes(int type)
{
    switch (type) {
    case VECDB_F16:
    case VECDB_BF16:
        return 2;
    case VECDB_I8:
    case VECDB_U8:
        return 1;
    case VECDB_BIT:
        return 0;
    }
    return 4;
}

size_t row_bytes(int type, uint32_t dimension)
{
    return type == VECDB_BIT ? ((size_t)dimension + 7) / 8 : dimension * value_bytes(type);
}

static float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

float float_of_bf16(uint16_t bits)
{
    return float_of_bits((uint32_t)bits << 16);
}

float float_of_f16(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
    if (exponent == 0) { /* zero and subnormal: fraction * 2^-24, exact in a float */
        float value = (float)fraction * 0x1p-24f;
        return sign ? -value : value;
    }
    if (exponent == 31)
        return float_of_bits(sign | 0x7f800000 | fraction << 13);
    return float_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

void row_to_floats(float *out, const void *row, int type, uint32_t dimension)
{
    const uint8_t *bytes = row;
    if (type == VECDB_F32 || type == VECDB_TYPE_DEFAULT) {
        memcpy(out, row, dimension * sizeof *out);
        return;
    }
    for (uint32_t i = 0; i < dimension; i++) {
        if (type == VECDB_F16 || type == VECDB_BF16) {
            uint16_t bits;
            memcpy(&bits, bytes + 2 * (size_t)i, sizeof bits);
            out[i] = type == VECDB_F16 ? float_of_f16(bits) : float_of_bf16(bits);
        } else if (type == VECDB_BIT) {
            out[i] = (float)(bytes[i / 8] >> i % 8 & 1);
        } else {
            out[i] = type == VECDB_I8 ? (float)(int8_t)bytes[i] : (float)bytes[i];
        }
    }
}

/* ---------------------------------------------------------------- numbers to text */

char *format_float(float value, char out[NUMBER_TEXT])
{
    if (value == 0 && signbit(value)) /* "-0" is an integer to many readers, and loses its sign */
        return strcpy(out, "-0.0");
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(out, NUMBER_TEXT, "%.*g", digits, (double)value);
        if ((float)strtod(out, NULL) == value)
            break;
    }
    return out;
}

char *format_double(double value, char out[NUMBER_TEXT])
{
    if (!isfinite(value)) /* JSON has no such numbers */
        return strcpy(out, "null");
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(out, NUMBER_TEXT, "%.*g", digits, value);
        if (strtod(out, NULL) == value)
            break;
    }
    return out;
}

char *format_count(uint64_t count, char out[32])
{
    char digits[24];
    int n = snprintf(digits, sizeof digits, "%llu", (unsigned long long)count);
    char *to = out;
    for (int i = 0; i < n; i++) {
        if (i && (n - i) % 3 == 0)
            *to++ = ',';
        *to++ = digits[i];
    }
    *to = 0;
    return out;
}

char *format_size(uint64_t n_bytes, char out[32])
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double size = (double)n_bytes;
    size_t unit = 0;
    while (size >= 1024 && unit < 4) {
        size /= 1024;
        unit++;
    }
    snprintf(out, 32, unit ? "%.1f %s" : "%.0f %s", size, units[unit]);
    return out;
}

/* ---------------------------------------------------------------- text to numbers */

bool parse_count(const char *text, uint64_t *count)
{
    uint64_t value = 0;
    if (!*text)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
            return false;
    }
    *count = value;
    return true;
}

bool parse_bytes(const char *text, uint64_t *n_bytes)
{
    static const char units[] = "KMGT";
    size_t n = strspn(text, "0123456789");
    char digits[24];
    if (!n || n >= sizeof digits)
        return false;
    memcpy(digits, text, n);
    digits[n] = 0;
    uint64_t value;
    if (!parse_count(digits, &value))
        return false;
    const char *rest = text + n;
    if (*rest) {
        char upper = (char)(*rest >= 'a' && *rest <= 'z' ? *rest - 32 : *rest);
        const char *unit = strchr(units, upper);
        rest++;
        if (!unit || (*rest && strcmp(rest, "iB") && strcmp(rest, "B") && strcmp(rest, "b")))
            return false;
        if (__builtin_mul_overflow(value, UINT64_C(1024) << 10 * (unit - units), &value))
            return false;
    }
    *n_bytes = value;
    return true;
}

bool parse_integer(const char *text, size_t length, int64_t *integer)
{
    size_t i = length && text[0] == '-';
    bool negative = i == 1;
    uint64_t value = 0;
    if (i == length || (text[i] == '0' && (length > i + 1 || negative)))
        return false;
    for (; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(text[i] - '0'), &value))
            return false;
    }
    if (value > (uint64_t)INT64_MAX + negative)
        return false;
    *integer = negative ? (int64_t)(0 - value) : (int64_t)value;
    return true;
}

vecdb_key parse_key(const char *text, bool as_text)
{
    int64_t integer;
    if (!as_text && parse_integer(text, strlen(text), &integer))
        return vecdb_key_int(integer);
    return vecdb_key_text(text);
}

char *format_key(const vecdb_key *key, char out[KEY_TEXT])
{
    if (!key->text) {
        snprintf(out, KEY_TEXT, "%lld", (long long)key->integer);
        return out;
    }
    size_t length = key->length ? key->length : strlen(key->text), shown = length;
    if (shown > 80) {
        shown = 80;
        while (shown && ((unsigned char)key->text[shown] & 0xc0) == 0x80) /* not inside a character */
            shown--;
    }
    snprintf(out, KEY_TEXT, "\"%.*s%s\"", (int)shown, key->text, shown < length ? "..." : "");
    for (char *c = out; *c; c++) {
        if ((unsigned char)*c < 32 || *c == 127)
            *c = '?';
    }
    return out;
}

double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}
