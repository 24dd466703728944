/* SPDX-License-Identifier: Apache-2.0
 *
 * index/codes.c - vectors as codes of 4 and of 8 bits a value (see codes.h)
 *
 * WHAT A CODE IS WORTH. r is the rotated residual of a vector, n = |r|^2, and e the vector of code values less
 * their middle (7.5, or 128). For any direction q the number
 *
 *     n / <r, e> * <q, e>      estimates <q, r>
 *
 * without bias over random rotations, with an error of about |q| |r| sqrt((1 - w^2) / w^2) / sqrt(n_values), w being
 * the cosine of e and r: .0107 of |q||r| / sqrt(n_values / 100) for 4 bits. So the step between two code values
 * is chosen by trying a few around the one that is best for a Gaussian (0.335 standard deviations for 16 levels) and
 * keeping the greatest cosine; and |q - r|^2 = |q|^2 + n - 2 <q, r> gives the factors add = n, scale = -2 n / <r, e>.
 *
 * Invariants
 *  1. Factors are finite and never NaN, whatever finite values come in: values are scaled by a power of two chosen
 *     from the sample and limited to LIMIT, so that a square of 65,536 of them fits a float.
 *  2. A residual of length 0 (or so short that its square is 0) has scale = 0: its code means nothing.
 *  3. The same bits on every machine: sums run in N_SUMS chains in a fixed order, like those of exact.c.
 *
 * Costs at 832 values: a query takes the rotation and about 0.3 us; a record about 3 us.
 *
 * Rejected: an exact search for the best step (a heap over all critical steps, O(d log d) for each vector): the cosine
 * gains in the fourth digit; one step for all vectors: as good on three sets, and loses where lengths differ much.
 */
#include "codes.h"

#include <math.h>

#include "base/error.h"
#include "base/numbers.h"

#define N_SUMS 16
#define LIMIT 1e15f
#define N_SAMPLED 4096u /* rows that the origin is the mean of: more do not move it measurably */
/* Lengths that differ less than by this factor are taken as equal: ip is then l2. */
#define EQUAL_LENGTHS 1.02

static float total(const float sums[N_SUMS])
{
    float eight[8], four[4];
    for (int i = 0; i < 8; i++)
        eight[i] = sums[i] + sums[i + 8];
    for (int i = 0; i < 4; i++)
        four[i] = eight[i] + eight[i + 4];
    return (four[0] + four[2]) + (four[1] + four[3]);
}

/* n is a multiple of N_SUMS here and below. */
static float product_of(const float *a, const float *b, uint32_t n)
{
    float sums[N_SUMS] = {0};
    for (uint32_t i = 0; i < n; i += N_SUMS)
        for (uint32_t j = 0; j < N_SUMS; j++)
            sums[j] += a[i + j] * b[i + j];
    return total(sums);
}

static float largest_of(const float *values, uint32_t n)
{
    float most[N_SUMS] = {0};
    for (uint32_t i = 0; i < n; i += N_SUMS)
        for (uint32_t j = 0; j < N_SUMS; j++) {
            float size = fabsf(values[i + j]);
            most[j] = size > most[j] ? size : most[j];
        }
    for (uint32_t j = 1; j < N_SUMS; j++)
        most[0] = most[j] > most[0] ? most[j] : most[0];
    return most[0];
}

static double length_of(const float *values, uint32_t n)
{
    double sums[4] = {0};
    uint32_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (uint32_t j = 0; j < 4; j++)
            sums[j] += (double)values[i + j] * (double)values[i + j];
    for (; i < n; i++)
        sums[0] += (double)values[i] * (double)values[i];
    return sqrt((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

/* ------------------------------------------------------------------ the field's vectors in units */

/* A vector before origin and rotation: in units, or of length 1; zeros behind it. Returns its length in units. */
static double to_units(const struct vdb_codec *codec, int type, const void *values, float *work)
{
    uint32_t d = codec->dimension;
    if (type == VECDB_F32)
        memcpy(work, values, d * sizeof *work);
    else
        codec->kernels->widen[type](values, d, work);
    for (uint32_t i = d; i < codec->n_values; i++)
        work[i] = 0;
    double length = 0;
    if (codec->metric == VECDB_COSINE) {
        length = length_of(work, d);
        double factor = length > 0 ? 1 / length : 0;
        for (uint32_t i = 0; i < d; i++)
            work[i] = (float)((double)work[i] * factor);
        return length;
    }
    for (uint32_t i = 0; i < d; i++) {
        float value = work[i] * codec->unit;
        value = value > LIMIT ? LIMIT : value;
        work[i] = value < -LIMIT ? -LIMIT : value;
    }
    return codec->is_augmented ? length_of(work, d) : 0;
}

/* The rotated residual of a stored vector. */
static void residual_of(const struct vdb_codec *codec, int type, const void *values, float *work)
{
    double length = to_units(codec, type, values, work);
    if (codec->is_augmented) {
        double rest = (double)codec->length * codec->length - length * length;
        work[codec->dimension] = rest > 0 ? (float)sqrt(rest) : 0;
    }
    for (uint32_t i = 0; i < codec->n_values; i++)
        work[i] -= codec->origin[i];
    vdb_rotation_apply(&codec->rotation, codec->kernels, work);
}

/* ------------------------------------------------------------------ training */

struct lengths {
    double least, most; /* of those that are not 0 */
    float largest;      /* value */
};

static struct lengths survey(const struct vdb_codec *codec, const struct vdb_block *sample, float *work)
{
    struct lengths found = {INFINITY, 0, 0};
    uint32_t n = sample->n_rows < N_SAMPLED ? sample->n_rows : N_SAMPLED;
    for (uint32_t i = 0; i < n; i++) {
        size_t row = (size_t)((uint64_t)i * sample->n_rows / n);
        vdb_floats_of(sample->type, (const char *)sample->rows + row * sample->stride, codec->dimension, work);
        double length = length_of(work, codec->dimension);
        for (uint32_t j = 0; j < codec->dimension; j++)
            found.largest = fabsf(work[j]) > found.largest ? fabsf(work[j]) : found.largest;
        if (length > 0) {
            found.least = length < found.least ? length : found.least;
            found.most = length > found.most ? length : found.most;
        }
    }
    return found;
}

void vdb_codec_train(struct vdb_codec *codec, const struct vdb_block *sample, float *work)
{
    codec->is_trained = true;
    if (codec->bits_bytes)
        return;
    struct lengths lengths = survey(codec, sample, work);
    int exponent = 0;
    if (lengths.largest > 0 && isfinite(lengths.largest))
        frexpf(lengths.largest, &exponent);
    exponent = exponent > 126 ? 126 : exponent < -126 ? -126 : exponent;
    codec->unit = ldexpf(1, -exponent);
    codec->length = (float)(lengths.most * (double)codec->unit);
    double sums[64];
    uint32_t n = sample->n_rows < N_SAMPLED ? sample->n_rows : N_SAMPLED;
    /* 64 values of every row at a time, so that the sums need no memory */
    for (uint32_t first = 0; first < codec->n_values; first += 64) {
        memset(sums, 0, sizeof sums);
        for (uint32_t i = 0; i < n; i++) {
            size_t row = (size_t)((uint64_t)i * sample->n_rows / n);
            double length = to_units(codec, sample->type, (const char *)sample->rows + row * sample->stride, work);
            if (codec->is_augmented)
                work[codec->dimension] =
                    (float)sqrt(fmax(0, (double)codec->length * codec->length - length * length));
            for (uint32_t j = 0; j < 64; j++)
                sums[j] += (double)work[first + j];
        }
        for (uint32_t j = 0; j < 64; j++)
            codec->origin[first + j] = (float)(sums[j] / n);
    }
}

/* Whether ip needs the further value: does the sample say that lengths differ? */
static bool lengths_differ(const struct vdb_codec *codec, const struct vdb_block *sample, float *work)
{
    struct lengths lengths = survey(codec, sample, work);
    return lengths.most > EQUAL_LENGTHS * lengths.least;
}

void vdb_codec_lay_out(struct vdb_codec *codec)
{
    if (codec->bits_bytes) {
        codec->stride4 = (codec->bits_bytes + 15) / 16 * 16;
        return;
    }
    codec->n_values = (codec->dimension + codec->is_augmented + 63) / 64 * 64;
    codec->stride4 = codec->n_values / 2 + 16;
    codec->stride8 = codec->n_values + 16;
}

int vdb_codec_init(struct vdb_codec *codec, struct vdb_memory *memory, const struct vdb_kernels *kernels, int metric,
                   int type, uint32_t dimension, uint64_t seed, const struct vdb_block *sample, vecdb_error *err)
{
    *codec = (struct vdb_codec){
        .memory = memory, .kernels = kernels, .metric = metric, .type = type, .dimension = dimension, .unit = 1};
    if (metric == VECDB_HAMMING)
        codec->bits_bytes = (uint32_t)vdb_vector_bytes(VECDB_BIT, dimension);
    bool has_sample = sample && sample->n_rows > 0;
    if (codec->bits_bytes) {
        vdb_codec_lay_out(codec);
        codec->is_trained = true;
        return VECDB_OK;
    }
    size_t n_work = ((size_t)dimension + 64) / 64 * 64;
    float *work = vdb_alloc_aligned(memory, n_work * sizeof *work);
    if (!work)
        return vdb_fail_memory(err, n_work * sizeof *work);
    if (metric == VECDB_IP && has_sample)
        codec->is_augmented = lengths_differ(codec, sample, work);
    vdb_codec_lay_out(codec);
    codec->origin = vdb_alloc_aligned(memory, codec->n_values * sizeof *codec->origin);
    int status = codec->origin ? VECDB_OK : vdb_fail_memory(err, codec->n_values * sizeof *codec->origin);
    if (!status)
        status = vdb_rotation_init(&codec->rotation, memory, codec->n_values, seed, err);
    if (!status) {
        memset(codec->origin, 0, codec->n_values * sizeof *codec->origin);
        if (has_sample)
            vdb_codec_train(codec, sample, work);
    }
    vdb_free_aligned(memory, work);
    if (status)
        vdb_codec_release(codec);
    return status;
}

void vdb_codec_release(struct vdb_codec *codec)
{
    vdb_free_aligned(codec->memory, codec->origin);
    codec->origin = NULL;
    vdb_rotation_release(&codec->rotation, codec->memory);
}

int vdb_codec_copy(const struct vdb_codec *codec, struct vdb_codec *copy, vecdb_error *err)
{
    *copy = *codec;
    if (codec->bits_bytes)
        return VECDB_OK;
    size_t n_bytes = codec->n_values * sizeof *codec->origin;
    size_t n_factors = (size_t)codec->rotation.n_rounds * codec->n_values * sizeof *codec->rotation.factors;
    copy->origin = vdb_alloc_aligned(codec->memory, n_bytes);
    copy->rotation.factors = vdb_alloc_aligned(codec->memory, n_factors);
    if (!copy->origin || !copy->rotation.factors) {
        vdb_codec_release(copy);
        return vdb_fail_memory(err, n_bytes + n_factors);
    }
    memcpy(copy->origin, codec->origin, n_bytes);
    memcpy(copy->rotation.factors, codec->rotation.factors, n_factors);
    return VECDB_OK;
}

/* ------------------------------------------------------------------ records */

static void put_factors(unsigned char *record, size_t code_bytes, float add, float scale, float square)
{
    float factors[4] = {add, scale, square, 0};
    memcpy(record + code_bytes, factors, sizeof factors);
}

/* What 16 levels with a step of 1 / inverse make of r: products with r and with itself. */
static void try_step(const float *restrict r, uint32_t n, float inverse, float *product, float *square)
{
    float products[N_SUMS] = {0}, squares[N_SUMS] = {0};
    for (uint32_t i = 0; i < n; i += N_SUMS)
        for (uint32_t j = 0; j < N_SUMS; j++) {
            float level = r[i + j] * inverse + 8.0f;
            level = level > 0 ? level : 0;
            level = level < 15.5f ? level : 15.5f;
            float value = (float)(int32_t)level - 7.5f;
            products[j] += r[i + j] * value;
            squares[j] += value * value;
        }
    *product = total(products);
    *square = total(squares);
}

static void pack4(const float *r, uint32_t n, float inverse, unsigned char *code)
{
    uint8_t levels[128];
    for (uint32_t first = 0; first < n; first += 128) {
        uint32_t size = n - first < 128 ? n - first : 128, half = size / 2;
        for (uint32_t i = 0; i < size; i++) {
            float level = r[first + i] * inverse + 8.0f;
            level = level > 0 ? level : 0;
            level = level < 15.5f ? level : 15.5f;
            levels[i] = (uint8_t)(int32_t)level;
        }
        for (uint32_t i = 0; i < half; i++)
            code[first / 2 + i] = (unsigned char)(levels[i] | levels[half + i] << 4);
    }
}

static void encode4(const struct vdb_codec *codec, const float *r, float square, unsigned char *record)
{
    static const float steps[] = {0.78f, 0.92f, 1.0f, 1.08f, 1.25f};
    uint32_t n = codec->n_values;
    float deviation = sqrtf(square / (float)n), best = -1, best_inverse = 0, best_product = 0;
    if (deviation > 0)
        for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
            float inverse = 1 / (0.335f * steps[i] * deviation), product, code_square;
            if (!isfinite(inverse))
                continue;
            try_step(r, n, inverse, &product, &code_square);
            float quality = product / sqrtf(code_square); /* the cosine, times |r| */
            if (quality > best) {
                best = quality;
                best_inverse = inverse;
                best_product = product;
            }
        }
    float factor = best_product > 0 ? square / best_product : 0;
    pack4(r, n, best_inverse, record);
    if (codec->metric == VECDB_IP)
        put_factors(record, n / 2, 0, -factor, square);
    else
        put_factors(record, n / 2, square, -2 * factor, square);
}

static void encode8(const struct vdb_codec *codec, const float *r, float square, unsigned char *record)
{
    uint32_t n = codec->n_values;
    float largest = largest_of(r, n), inverse = square > 0 && largest > 0 ? 127 / largest : 0;
    if (!isfinite(inverse))
        inverse = 0;
    float products[N_SUMS] = {0};
    for (uint32_t i = 0; i < n; i += N_SUMS)
        for (uint32_t j = 0; j < N_SUMS; j++) {
            int32_t level = (int32_t)(r[i + j] * inverse + 128.5f);
            record[i + j] = (unsigned char)level;
            products[j] += r[i + j] * (float)(level - 128);
        }
    float product = total(products), factor = product > 0 ? square / product : 0;
    put_factors(record, n, square, -2 * factor, square);
}

void vdb_codec_encode(const struct vdb_codec *codec, int type, const void *values, float *work,
                      unsigned char *record4, unsigned char *record8)
{
    if (codec->bits_bytes) {
        memcpy(record4, values, codec->bits_bytes);
        memset(record4 + codec->bits_bytes, 0, codec->stride4 - codec->bits_bytes);
        return;
    }
    residual_of(codec, type, values, work);
    float square = product_of(work, work, codec->n_values);
    encode4(codec, work, square, record4);
    if (record8)
        encode8(codec, work, square, record8);
}

bool vdb_codec_equal(const struct vdb_codec *codec, int bits, const unsigned char *a, const unsigned char *b)
{
    return !memcmp(a, b, bits == 8 ? codec->stride8 : codec->stride4);
}

/* ------------------------------------------------------------------ queries */

static void quantise(const float *work, uint32_t n, int8_t *values, struct vdb_query *out)
{
    float largest = largest_of(work, n), inverse = largest > 0 ? 127 / largest : 0;
    if (!isfinite(inverse))
        inverse = 0;
    int32_t sums[N_SUMS] = {0};
    for (uint32_t i = 0; i < n; i += N_SUMS)
        for (uint32_t j = 0; j < N_SUMS; j++) {
            /* moved above zero, so that the conversion's cutting off rounds to the nearest */
            int32_t value = (int32_t)(work[i + j] * inverse + 128.5f) - 128;
            values[i + j] = (int8_t)value;
            sums[j] += value;
        }
    int32_t sum = 0;
    for (uint32_t j = 0; j < N_SUMS; j++)
        sum += sums[j];
    out->code = (struct vdb_code_query){values, sum, inverse > 0 ? largest / 127 : 0};
}

void vdb_codec_query(const struct vdb_codec *codec, const void *query, float *work, int8_t *values,
                     struct vdb_query *out)
{
    *out = (struct vdb_query){.bits = query};
    if (codec->bits_bytes)
        return;
    uint32_t n = codec->n_values;
    to_units(codec, VECDB_F32, query, work);
    if (codec->metric == VECDB_IP)
        out->constant = -product_of(work, codec->origin, n);
    else
        for (uint32_t i = 0; i < n; i++)
            work[i] -= codec->origin[i];
    vdb_rotation_apply(&codec->rotation, codec->kernels, work);
    if (codec->metric != VECDB_IP)
        out->constant = product_of(work, work, n);
    quantise(work, n, values, out);
    out->code.scale *= 0.5f; /* the kernel's sum is twice that of value times level */
}

static int32_t unpack8(const unsigned char *code, uint32_t n, int8_t *values)
{
    int32_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        values[i] = (int8_t)(code[i] ^ 0x80);
        sum += values[i];
    }
    return sum;
}

/* Levels 0 .. 15 as the odd numbers -15 .. 15: twice their distance from the middle. */
static int32_t unpack4(const unsigned char *code, uint32_t n, int8_t *values)
{
    int32_t sum = 0;
    for (uint32_t first = 0; first < n; first += 128) {
        uint32_t half = (n - first < 128 ? n - first : 128) / 2;
        for (uint32_t i = 0; i < half; i++) {
            unsigned char both = code[first / 2 + i];
            int8_t low = (int8_t)(2 * (both & 15) - 15), high = (int8_t)(2 * (both >> 4) - 15);
            values[first + i] = low;
            values[first + half + i] = high;
            sum += low + high;
        }
    }
    return sum;
}

void vdb_codec_query_record(const struct vdb_codec *codec, const unsigned char *record, int bits, int against,
                            int8_t *values, struct vdb_query *out)
{
    *out = (struct vdb_query){.bits = record};
    if (codec->bits_bytes)
        return;
    uint32_t n = codec->n_values;
    size_t code_bytes = bits == 8 ? n : n / 2;
    /* r is about factor * (code - middle); scale is -2 factor, or -factor for ip in 4 bits */
    float factor = -vdb_record_float(record, code_bytes, 1);
    if (bits == 8 || codec->metric != VECDB_IP)
        factor *= 0.5f;
    if (bits == 4)
        factor *= 0.5f; /* values are twice the levels */
    int32_t sum = bits == 8 ? unpack8(record, n, values) : unpack4(record, n, values);
    out->code = (struct vdb_code_query){values, sum, against == 4 ? 0.5f * factor : factor};
    out->constant = vdb_record_float(record, code_bytes, 2);
}
