/* SPDX-License-Identifier: Apache-2.0
 *
 * Property: a page gives back the rows and slots that went into it, to the bit, whatever the type,
 * dimension, codec and values; it is never longer than its raw form; and no change of its bytes gives
 * other rows, or touches memory that is not the page's.
 */
#include "failing.h"
#include "harness.h"

#include <math.h>

#include "base/bytes.h"
#include "base/numbers.h"
#include "base/random.h"
#include "storage/page_format.h"

static struct vdb_memory memory;
static vecdb_error err;
static struct vdb_random random_state;

static void begin(void)
{
    vdb_memory_init(&memory, NULL);
    random_state.state = test_seed();
}

/* What the values of a page look like. */
enum shape { NOISE, UNIT, BYTES, SIGNED_BYTES, HALVES, BRAINS, SPARSE, CONSTANT, ANY_BITS, N_SHAPES };

static float draw(enum shape shape)
{
    double u = vdb_random_unit(&random_state);
    switch (shape) {
    case NOISE:
        return (float)(u * 1e6 - 5e5);
    case UNIT:
        return (float)((u + vdb_random_unit(&random_state) + vdb_random_unit(&random_state) - 1.5) * 0.1);
    case BYTES:
        return (float)(int)(u * 256);
    case SIGNED_BYTES:
        return (float)((int)(u * 256) - 128);
    case HALVES:
        return vdb_float_of_f16(vdb_f16_of_float((float)(u - 0.5)));
    case BRAINS:
        return vdb_float_of_bf16(vdb_bf16_of_float((float)(u * 1e30)));
    case SPARSE:
        return u < 0.9 ? 0 : (float)(int)(u * 100);
    default:
        return 7;
    }
}

static void fill(int type, enum shape shape, unsigned char *values, size_t n)
{
    size_t value_bytes = vdb_page_value_bytes(type);
    for (size_t i = 0; i < n; i++) {
        float value = draw(shape);
        uint16_t half = type == VECDB_F16 ? vdb_f16_of_float(value) : vdb_bf16_of_float(value);
        uint64_t bits = vdb_random_next(&random_state);
        if (shape == ANY_BITS)
            memcpy(values + i * value_bytes, &bits, value_bytes);
        else if (type == VECDB_F32)
            memcpy(values + 4 * i, &value, 4);
        else if (value_bytes == 2)
            memcpy(values + 2 * i, &half, 2);
        else
            values[i] = (unsigned char)(int)fmodf(value, 128);
    }
}

struct sample {
    struct vdb_page_rows rows;
    struct vdb_buffer buffer;
    struct vdb_coder *coder;
};

static void make_slots(uint32_t *slots, uint32_t n, unsigned gap_percent)
{
    uint32_t slot = (uint32_t)vdb_random_below(&random_state, 1000);
    for (uint32_t i = 0; i < n; i++) {
        slots[i] = slot++;
        if (vdb_random_below(&random_state, 100) < gap_percent)
            slot += 1 + (uint32_t)vdb_random_below(&random_state, 50);
    }
}

static void encode(struct sample *sample, int type, uint32_t dimension, enum shape shape, int compression,
                   uint32_t n_rows, unsigned gap_percent)
{
    size_t n_bytes = n_rows * vdb_vector_bytes(type, dimension);
    unsigned char *values = vdb_alloc(&memory, n_bytes);
    uint32_t *slots = vdb_alloc_array(&memory, n_rows, sizeof *slots);
    fill(type, shape, values, n_bytes / vdb_page_value_bytes(type));
    make_slots(slots, n_rows, gap_percent);
    sample->rows = (struct vdb_page_rows){type, dimension, compression, values, slots, n_rows};
    vdb_buffer_init(&sample->buffer, &memory);
    CHECK_OK(err, vdb_coder_new(&memory, &sample->coder, &err));
    CHECK_OK(err, vdb_page_encode(sample->coder, &sample->rows, &sample->buffer, &err));
}

static void end(struct sample *sample)
{
    vdb_free(&memory, (void *)(uintptr_t)sample->rows.rows);
    vdb_free(&memory, (void *)(uintptr_t)sample->rows.slots);
    vdb_buffer_release(&sample->buffer);
    vdb_coder_free(sample->coder);
    CHECK_SIZE(vdb_memory_used(&memory), 0ull);
}

/* Parse and decode; NULL: equal to what went in, else what differs. */
static const char *compare(const struct sample *sample, const void *bytes, size_t n_bytes, struct vdb_page *page)
{
    const struct vdb_page_rows *rows = &sample->rows;
    size_t raw_bytes = rows->n_rows * vdb_vector_bytes(rows->type, rows->dimension);
    if (vdb_page_parse(bytes, n_bytes, rows->type, rows->dimension, true, page, &err))
        return "does not parse";
    if (page->n_rows != rows->n_rows)
        return "the number of rows differs";
    unsigned char *decoded = vdb_alloc(&memory, raw_bytes);
    const char *fault = vdb_page_decode(sample->coder, page, decoded, &err) ? "does not decode" : NULL;
    if (!fault && memcmp(decoded, rows->rows, raw_bytes))
        fault = "rows differ";
    struct vdb_block block = {.n_rows = page->n_rows, .n_runs = page->n_runs, .runs = page->runs};
    for (uint32_t i = 0; i < rows->n_rows && !fault; i++)
        if (vdb_block_slot(&block, i) != rows->slots[i] || vdb_block_row(&block, rows->slots[i]) != i)
            fault = "slots differ";
    vdb_free(&memory, decoded);
    return fault;
}

static void check_norms(const struct sample *sample, float bound)
{
    const struct vdb_page_rows *rows = &sample->rows;
    if (rows->type == VECDB_BIT)
        return;
    float *values = vdb_alloc_array(&memory, rows->dimension, sizeof *values);
    double largest = 0;
    for (uint32_t i = 0; i < rows->n_rows; i++) {
        vdb_floats_of(rows->type, (const char *)rows->rows + i * vdb_vector_bytes(rows->type, rows->dimension),
                      rows->dimension, values);
        long double sum = 0;
        for (uint32_t j = 0; j < rows->dimension; j++)
            sum += (long double)values[j] * values[j];
        double norm = (double)sqrtl(sum);
        largest = norm > largest || isnan(norm) ? norm : largest;
    }
    vdb_free(&memory, values);
    if (isfinite(largest) && largest < 3e38) {
        CHECK_LE(largest, (double)bound);
        CHECK_LE((double)bound, largest * (1 + 1e-6) + 1e-44);
    } else {
        CHECK(isinf(bound) || largest <= (double)bound);
    }
}

static size_t raw_length(const struct vdb_page *page)
{
    return vdb_page_round_up(PAGE_FIXED_BYTES + page->n_runs * PAGE_RUN_BYTES) +
           page->n_rows * vdb_vector_bytes(page->type, page->dimension);
}

static void round_trip(int type, uint32_t dimension, uint32_t n_rows, unsigned gap_percent)
{
    for (enum shape shape = 0; shape < N_SHAPES; shape++) {
        for (int compression = VECDB_COMPRESSION_AUTO; compression <= VECDB_COMPRESSION_MAX; compression++) {
            struct sample sample;
            struct vdb_page page;
            encode(&sample, type, dimension, shape, compression, n_rows, gap_percent);
            const char *fault = compare(&sample, sample.buffer.bytes, sample.buffer.n_bytes, &page);
            if (fault)
                FAIL("type %d, dimension %u, shape %d, compression %d: %s", type, dimension, (int)shape, compression,
                     fault);
            CHECK_LE(sample.buffer.n_bytes, raw_length(&page));
            if (compression == VECDB_COMPRESSION_NONE)
                CHECK_INT(page.codec, VDB_CODEC_RAW);
            check_norms(&sample, page.max_norm);
            end(&sample);
        }
    }
}

TEST(rows_come_back_to_the_bit_from_every_type_shape_and_codec)
{
    begin();
    static const uint32_t dimensions[] = {1, 2, 7, 16, 100, 784};
    for (int type = VECDB_F32; type <= VECDB_BIT; type++)
        for (size_t i = 0; i < sizeof dimensions / sizeof *dimensions; i++) {
            uint32_t capacity = vdb_page_capacity(type, dimensions[i]);
            uint32_t n_rows = 1 + (uint32_t)vdb_random_below(&random_state, capacity < 500 ? capacity : 500);
            round_trip(type, dimensions[i], n_rows, i % 2 ? 20 : 0);
        }
}

TEST(the_largest_dimension_and_full_pages_of_the_smallest_fit)
{
    begin();
    for (int type = VECDB_F32; type <= VECDB_BIT; type++) {
        CHECK_INT(vdb_page_capacity(VECDB_F32, VECDB_MAX_DIMENSION), 1);
        round_trip(type, VECDB_MAX_DIMENSION, vdb_page_capacity(type, VECDB_MAX_DIMENSION), 0);
        struct sample sample;
        struct vdb_page page;
        uint32_t capacity = vdb_page_capacity(type, 1);
        encode(&sample, type, 1, NOISE, VECDB_COMPRESSION_MAX, capacity, 100); /* each slot its own run */
        const char *fault = compare(&sample, sample.buffer.bytes, sample.buffer.n_bytes, &page);
        CHECK(fault == NULL);
        CHECK_INT(page.n_runs, capacity);
        end(&sample);
    }
}

TEST(a_page_of_capacity_rows_is_at_most_the_target_and_one_more_row_is_not)
{
    for (int type = VECDB_F32; type <= VECDB_BIT; type++)
        for (uint32_t dimension = 1; dimension <= VECDB_MAX_DIMENSION; dimension += 1 + dimension / 3) {
            size_t row = vdb_vector_bytes(type, dimension), head = vdb_page_round_up(72);
            uint32_t n = vdb_page_capacity(type, dimension);
            CHECK(n >= 1);
            CHECK(n == 1 || head + n * row <= VDB_PAGE_TARGET_BYTES);
            CHECK(head + (n + 1) * row > VDB_PAGE_TARGET_BYTES);
        }
}

static int stored_type_of(int type, const void *values, uint32_t n)
{
    uint32_t slot = 5;
    struct vdb_page_rows rows = {type, n, VECDB_COMPRESSION_AUTO, values, &slot, 1};
    struct vdb_buffer buffer;
    struct vdb_coder *coder;
    struct vdb_page page;
    vdb_buffer_init(&buffer, &memory);
    CHECK_OK(err, vdb_coder_new(&memory, &coder, &err));
    CHECK_OK(err, vdb_page_encode(coder, &rows, &buffer, &err));
    CHECK_OK(err, vdb_page_parse(buffer.bytes, buffer.n_bytes, type, n, true, &page, &err));
    size_t n_bytes = vdb_vector_bytes(type, n);
    unsigned char *decoded = vdb_alloc(&memory, n_bytes);
    CHECK_OK(err, vdb_page_decode(coder, &page, decoded, &err));
    CHECK(memcmp(decoded, values, n_bytes) == 0);
    vdb_free(&memory, decoded);
    vdb_coder_free(coder);
    vdb_buffer_release(&buffer);
    return page.stored_type;
}

static int stored_type_of_floats(float a, float b)
{
    float values[2] = {a, b};
    return stored_type_of(VECDB_F32, values, 2);
}

TEST(the_smallest_type_that_is_exact_is_chosen)
{
    begin();
    CHECK_INT(stored_type_of_floats(0, 255), VECDB_U8);
    CHECK_INT(stored_type_of_floats(-128, 127), VECDB_I8);
    CHECK_INT(stored_type_of_floats(-1, 128), VECDB_F16);
    CHECK_INT(stored_type_of_floats(-0.0f, 1), VECDB_F16);
    CHECK_INT(stored_type_of_floats(65504, 0.5f), VECDB_F16);
    CHECK_INT(stored_type_of_floats(0x1p-24f, 0x1.8p-15f), VECDB_F16);
    CHECK_INT(stored_type_of_floats(0x1p-25f, 1), VECDB_BF16);
    CHECK_INT(stored_type_of_floats(65536, 1), VECDB_BF16);
    CHECK_INT(stored_type_of_floats(0x1.004p0f, 0x1p100f), VECDB_F32); /* one needs f16, the other bf16 */
    CHECK_INT(stored_type_of_floats(0x1.002p0f, 1), VECDB_F32);
    CHECK_INT(stored_type_of_floats(0x1p-149f, 1), VECDB_F32);
    CHECK_INT(stored_type_of_floats(NAN, 1), VECDB_F32);
    CHECK_INT(stored_type_of_floats(INFINITY, 1), VECDB_F32);
    uint16_t halves[2] = {0x3c00, 0x4000}, odd[2] = {0x3c01, 0x4000}, minus_zero[2] = {0x8000, 0};
    CHECK_INT(stored_type_of(VECDB_F16, halves, 2), VECDB_U8);
    CHECK_INT(stored_type_of(VECDB_F16, odd, 2), VECDB_F16);
    CHECK_INT(stored_type_of(VECDB_F16, minus_zero, 2), VECDB_F16);
    halves[0] = 0xbf80; /* -1 as bfloat16 */
    CHECK_INT(stored_type_of(VECDB_BF16, halves, 2), VECDB_I8);
}

TEST(every_half_precision_number_is_narrowed_and_comes_back)
{
    begin();
    for (uint32_t bits = 0; bits < 65536; bits++) {
        float value = vdb_float_of_f16((uint16_t)bits);
        bool is_finite = (bits & 0x7c00) != 0x7c00;
        int stored = stored_type_of_floats(value, 0.5f); /* 0.5 is no integer */
        if (is_finite)
            CHECK_INT(stored, VECDB_F16);
        uint16_t half[1] = {(uint16_t)bits};
        stored_type_of(VECDB_F16, half, 1);
        stored_type_of(VECDB_BF16, half, 1);
    }
}

TEST(every_flipped_bit_of_a_page_is_found)
{
    begin();
    for (enum shape shape = 0; shape < N_SHAPES; shape += 2) {
        struct sample sample;
        struct vdb_page page;
        encode(&sample, VECDB_F32, 7, shape, VECDB_COMPRESSION_MAX, 30, 30);
        for (size_t bit = 0; bit < sample.buffer.n_bytes * 8; bit++) {
            sample.buffer.bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
            memset(&err, 0, sizeof err);
            int status = vdb_page_parse(sample.buffer.bytes, sample.buffer.n_bytes, VECDB_F32, 7, true, &page, &err);
            CHECK(status == VECDB_CORRUPT || status == VECDB_NEWER);
            CHECK(err.message[0] != 0);
            sample.buffer.bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        }
        end(&sample);
    }
}

TEST(every_truncated_page_is_found)
{
    begin();
    struct sample sample;
    struct vdb_page page;
    encode(&sample, VECDB_F16, 12, UNIT, VECDB_COMPRESSION_MAX, 40, 10);
    for (size_t n = 0; n < sample.buffer.n_bytes; n++) {
        unsigned char *copy = vdb_alloc(&memory, n); /* its own block: a sanitizer sees a read beyond it */
        memcpy(copy, sample.buffer.bytes, n);
        CHECK_FAILS(err, VECDB_CORRUPT, "", vdb_page_parse(copy, n, VECDB_F16, 12, true, &page, &err));
        vdb_free(&memory, copy);
    }
    end(&sample);
}

/* With the checksum made good again: what is then accepted must decode or say CORRUPT, in bounds. */
TEST(a_hostile_page_with_a_good_checksum_is_refused_or_harmless)
{
    begin();
    int n_refused = 0;
    for (int round = 0; round < 20000; round++) {
        struct sample sample;
        struct vdb_page page;
        int type = VECDB_F32 + round % 6;
        encode(&sample, type, 5, (enum shape)(round % N_SHAPES), round / 6 % 3, 12, 30);
        size_t n = sample.buffer.n_bytes;
        for (uint64_t flips = 1 + vdb_random_below(&random_state, 3); flips; flips--)
            sample.buffer.bytes[8 + vdb_random_below(&random_state, flips % 2 ? n - 8 : 120)] =
                (unsigned char)vdb_random_next(&random_state);
        vdb_store_u64(sample.buffer.bytes, vdb_check_sum(sample.buffer.bytes + 8, n - 8));
        unsigned char *copy = vdb_alloc(&memory, n);
        memcpy(copy, sample.buffer.bytes, n);
        int status = vdb_page_parse(copy, n, type, 5, true, &page, &err);
        if (!status) {
            unsigned char *rows = vdb_alloc(&memory, page.n_rows * vdb_vector_bytes(type, 5));
            status = vdb_page_decode(sample.coder, &page, rows, &err);
            vdb_free(&memory, rows);
        }
        CHECK(status == VECDB_OK || status == VECDB_CORRUPT || status == VECDB_NEWER);
        n_refused += status != VECDB_OK;
        vdb_free(&memory, copy);
        end(&sample);
    }
    CHECK(n_refused > 1000);
}

static void stamp(unsigned char *bytes, size_t n)
{
    vdb_store_u64(bytes + PAGE_AT_CHECK, vdb_check_sum(bytes + 8, n - 8));
}

TEST(a_page_of_another_field_or_version_is_refused)
{
    begin();
    struct sample sample;
    struct vdb_page page;
    encode(&sample, VECDB_F32, 8, NOISE, VECDB_COMPRESSION_AUTO, 10, 0);
    unsigned char *bytes = sample.buffer.bytes;
    size_t n = sample.buffer.n_bytes;
    CHECK_FAILS(err, VECDB_CORRUPT, "dimension 8", vdb_page_parse(bytes, n, VECDB_F32, 9, true, &page, &err));
    CHECK_FAILS(err, VECDB_CORRUPT, "type 1", vdb_page_parse(bytes, n, VECDB_F16, 8, true, &page, &err));
    bytes[PAGE_AT_VERSION] = 2; /* by itself it is damage */
    CHECK_FAILS(err, VECDB_CORRUPT, "checksum", vdb_page_parse(bytes, n, VECDB_F32, 8, true, &page, &err));
    stamp(bytes, n);
    CHECK_FAILS(err, VECDB_NEWER, "version 2", vdb_page_parse(bytes, n, VECDB_F32, 8, true, &page, &err));
    bytes[PAGE_AT_VERSION] = 0;
    CHECK_FAILS(err, VECDB_CORRUPT, "checksum", vdb_page_parse(bytes, n, VECDB_F32, 8, true, &page, &err));
    stamp(bytes, n);
    CHECK_FAILS(err, VECDB_CORRUPT, "preview", vdb_page_parse(bytes, n, VECDB_F32, 8, true, &page, &err));
    bytes[PAGE_AT_VERSION] = PAGE_VERSION;
    bytes[PAGE_AT_ENCRYPTION] = 3;
    stamp(bytes, n);
    CHECK_FAILS(err, VECDB_NEWER, "scheme 3", vdb_page_parse(bytes, n, VECDB_F32, 8, true, &page, &err));
    end(&sample);
}

TEST(the_example_in_the_format_page_is_what_is_written)
{
    static const float values[] = {1, 2, 3, 4, 0, 255};
    static const uint32_t slots[] = {7, 8, 20};
    static const unsigned char head[] = {
        0x2a, 0x5b, 0xb4, 0xaf, 0x97, 0x90, 0x16, 0x9c, 'V', 'D', 'B',  'P', 1, 0, 2, 1, 5, 0, 0, 0, 2,    0,
        0,    0,    3,    0,    0,    0,    2,    0,    0,   0,   0x80, 0,   0, 0, 6, 0, 0, 0, 1, 0, 0x7f, 0x43};
    static const unsigned char runs[] = {7, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 2, 0, 0, 0};
    static const unsigned char body[] = {1, 2, 3, 4, 0, 255};
    begin();
    struct vdb_page_rows rows = {VECDB_F32, 2, VECDB_COMPRESSION_AUTO, values, slots, 3};
    struct vdb_buffer buffer;
    struct vdb_coder *coder;
    vdb_buffer_init(&buffer, &memory);
    CHECK_OK(err, vdb_coder_new(&memory, &coder, &err));
    CHECK_OK(err, vdb_page_encode(coder, &rows, &buffer, &err));
    CHECK_SIZE((unsigned long long)buffer.n_bytes, 134ull);
    CHECK(!memcmp(buffer.bytes, head, sizeof head));
    CHECK(!memcmp(buffer.bytes + 64, runs, sizeof runs));
    CHECK(!memcmp(buffer.bytes + 128, body, sizeof body));
    vdb_coder_free(coder);
    vdb_buffer_release(&buffer);
}

TEST(pages_follow_each_other_at_multiples_of_64_with_zeros_between)
{
    begin();
    struct sample sample;
    struct vdb_page page;
    encode(&sample, VECDB_U8, 5, NOISE, VECDB_COMPRESSION_NONE, 3, 0);
    size_t first = sample.buffer.n_bytes, second = vdb_page_round_up(first);
    CHECK(first % 64 != 0);
    CHECK_OK(err, vdb_page_encode(sample.coder, &sample.rows, &sample.buffer, &err));
    for (size_t i = first; i < second; i++)
        CHECK_INT(sample.buffer.bytes[i], 0);
    CHECK(!compare(&sample, sample.buffer.bytes + second, sample.buffer.n_bytes - second, &page));
    CHECK_SIZE(sample.buffer.n_bytes - second, first);
    CHECK_INT((uintptr_t)page.body % 64, 0);
    end(&sample);
}

/* One more page of 100 rows, by the sample's coder: its codec. */
static int codec_of_next(struct sample *sample, const float *values, int compression)
{
    struct vdb_page_rows rows = sample->rows;
    struct vdb_page page;
    rows.rows = values;
    rows.compression = compression;
    sample->buffer.n_bytes = 0;
    CHECK_OK(err, vdb_page_encode(sample->coder, &rows, &sample->buffer, &err));
    CHECK_OK(err, vdb_page_parse(sample->buffer.bytes, sample->buffer.n_bytes, rows.type, rows.dimension, true, &page,
                                 &err));
    return page.codec;
}

TEST(after_a_page_that_planes_did_not_shrink_auto_tries_every_sixteenth_until_one_does)
{
    begin();
    struct sample sample;
    static float same[100 * 16];
    for (size_t i = 0; i < 100 * 16; i++)
        same[i] = 0.1f;
    encode(&sample, VECDB_F32, 16, NOISE, VECDB_COMPRESSION_AUTO, 100, 0);
    for (int round = 0; round < 2; round++) {
        for (int i = 1; i < 16; i++)
            CHECK_INT(codec_of_next(&sample, same, VECDB_COMPRESSION_AUTO), VDB_CODEC_RAW);
        CHECK_INT(codec_of_next(&sample, same, VECDB_COMPRESSION_MAX), VDB_CODEC_PLANES);
        for (int i = 0; i < 40; i++)
            CHECK_INT(codec_of_next(&sample, same, VECDB_COMPRESSION_AUTO), VDB_CODEC_PLANES);
        CHECK_INT(codec_of_next(&sample, sample.rows.rows, VECDB_COMPRESSION_AUTO), VDB_CODEC_RAW);
    }
    end(&sample);
}

/* ---- every allocation fails once */
TEST(every_failing_allocation_is_an_error_or_a_larger_page)
{
    begin();
    struct failing failing;
    float values[64 * 16];
    uint32_t slots[64];
    fill(VECDB_F32, UNIT, (unsigned char *)values, 64 * 16);
    make_slots(slots, 64, 10);
    struct vdb_page_rows rows = {VECDB_F32, 16, VECDB_COMPRESSION_MAX, values, slots, 64};
    bool whole = false;
    for (int n = 0; !whole; n++) {
        struct vdb_buffer buffer;
        struct vdb_coder *coder = NULL;
        struct vdb_page page;
        float decoded[64 * 16];
        failing_begin(&failing, &memory, n);
        vdb_buffer_init(&buffer, &memory);
        int status = vdb_coder_new(&memory, &coder, &err);
        if (!status)
            status = vdb_page_encode(coder, &rows, &buffer, &err);
        if (!status)
            status = vdb_page_parse(buffer.bytes, buffer.n_bytes, VECDB_F32, 16, true, &page, &err);
        if (!status)
            status = vdb_page_decode(coder, &page, decoded, &err);
        CHECK(status == VECDB_OK || status == VECDB_NOMEM);
        if (!status)
            CHECK(memcmp(decoded, values, sizeof values) == 0);
        whole = !failing_has_failed(&failing);
        vdb_buffer_release(&buffer);
        vdb_coder_free(coder);
        CHECK_SIZE(vdb_memory_used(&memory), 0ull);
        CHECK(n < 100);
    }
}
