/* SPDX-License-Identifier: Apache-2.0
 *
 * Records, keys and queries that cannot be, and handles that may not be used, are refused with the right
 * status and one sentence that says what is wrong and where, and nothing of the call is stored. Every
 * input is tried by itself.
 */
#include <float.h>
#include <math.h>
#include <stdio.h>

#include "input_help.h"

#define N_BEFORE 5 /* good records in front of the bad one */

/* Put, insert and write from columns good records and, behind them, this one. */
static void refuse_record(const struct fixture *fixture, vecdb_record bad, int expected, const char *part)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_record records[N_BEFORE + 2];
    for (int i = 0; i < N_BEFORE + 2; i++)
        records[i] = (vecdb_record){.key = VECDB_KEY_INT(100 + i), .vector = one, .metadata = "{}"};
    records[N_BEFORE] = bad;
    REFUSED(*fixture, expected, part, vecdb_put(fixture->things, records, N_BEFORE + 2, &err));
    CHECK_CONTAINS(err.message, "record 5");
    REFUSED(*fixture, expected, part, vecdb_insert(fixture->things, records, N_BEFORE + 2, &err));
    CHECK_CONTAINS(err.message, "record 5");
    REFUSED(*fixture, expected, part, vecdb_put(fixture->things, &bad, 1, &err));
}

static void refuse_vector(const struct fixture *fixture, const char *field, const void *values, uint32_t dimension,
                          int type, const char *part)
{
    vecdb_vector vector = {field, values, dimension, type};
    vecdb_record record = {.key = VECDB_KEY_INT(50), .vectors = &vector, .n_vectors = 1};
    refuse_record(fixture, record, VECDB_INVALID, part);
    if (!field) {
        record = (vecdb_record){
            .key = VECDB_KEY_INT(50), .vector = values, .dimension = dimension, .type = type, .metadata = "{\"a\":1}"};
        refuse_record(fixture, record, VECDB_INVALID, part);
    }
}

TEST(vectors_with_bad_values_are_refused_wherever_they_stand_in_a_batch)
{
    struct fixture fixture = open_fixture(test_path("db"));
    for (int i = 0; i < 4; i++) {
        float values[4] = {1, 2, 3, 4};
        char part[32];
        snprintf(part, sizeof part, "value %d", i);
        values[i] = NAN;
        refuse_vector(&fixture, NULL, values, 4, 0, part);
        refuse_vector(&fixture, "f32", values, 0, 0, "NaN");
        values[i] = INFINITY;
        refuse_vector(&fixture, NULL, values, 4, 0, part);
        values[i] = -INFINITY;
        refuse_vector(&fixture, NULL, values, 4, VECDB_F32, "infinite");
    }
    static const float zeros[4] = {0, -0.0f, 0, 0};
    refuse_vector(&fixture, NULL, zeros, 4, 0, "zero");
    refuse_vector(&fixture, "f16", zeros, 2, VECDB_F32, "zero");
    static const uint16_t f16_nan[2] = {0x3c00, 0x7e00}, f16_infinite[2] = {0xfc00, 0}, bf16_nan[2] = {0, 0x7fc0};
    refuse_vector(&fixture, "f16", f16_nan, 2, 0, "NaN");
    refuse_vector(&fixture, "f16", f16_infinite, 2, 0, "infinite");
    refuse_vector(&fixture, "bf16", bf16_nan, 2, 0, "NaN");
    static const uint16_t four_f16[4] = {0x3c00, 0x3c00, 0x3c00, 0x7e00};
    refuse_vector(&fixture, "f32", four_f16, 0, VECDB_F16, "value 3");
    vecdb_close(fixture.db);
}

TEST(values_that_a_field_cannot_hold_are_refused)
{
    struct fixture fixture = open_fixture(test_path("db"));
    static const float bad_i8[] = {128, -129, 0.5f, 1e9f, -1e30f, 127.5f};
    static const float bad_u8[] = {-1, 256, 0.25f, 3e38f, -0.5f};
    float values[2] = {1, 0};
    for (size_t i = 0; i < sizeof bad_i8 / sizeof *bad_i8; i++) {
        values[1] = bad_i8[i];
        refuse_vector(&fixture, "i8", values, 2, VECDB_F32, "whole numbers from -128 to 127");
    }
    for (size_t i = 0; i < sizeof bad_u8 / sizeof *bad_u8; i++) {
        values[1] = bad_u8[i];
        refuse_vector(&fixture, "u8", values, 2, VECDB_F32, "whole numbers from 0 to 255");
    }
    values[1] = 65520; /* the first that rounds to infinity */
    refuse_vector(&fixture, "f16", values, 2, VECDB_F32, "65504");
    values[1] = FLT_MAX;
    refuse_vector(&fixture, "bf16", values, 2, VECDB_F32, "bf16");
    static const float tiny[2] = {1e-9f, -1e-9f};
    refuse_vector(&fixture, "f16", tiny, 2, VECDB_F32, "rounds to zero");
    static const signed char negative[2] = {0, -1};
    refuse_vector(&fixture, "u8", negative, 2, VECDB_I8, "0 to 255");
    static const unsigned char high[2] = {0, 128}, bits[2] = {0xff, 0x04}, more[2] = {0, 0x80};
    refuse_vector(&fixture, "i8", high, 2, VECDB_U8, "-128 to 127");
    refuse_vector(&fixture, "bits", bits, 10, 0, "behind them must be zero");
    refuse_vector(&fixture, "bits", more, 0, VECDB_BIT, "behind them must be zero");

    /* The last values that do fit. */
    vecdb_error err = VECDB_ERROR_INIT;
    static const float f16[2] = {65519, 1}, i8[2] = {-128, 127}, u8[2] = {0, 255}, bf16[2] = {3.38e38f, 0};
    static const unsigned char ten[2] = {0xff, 0x03};
    vecdb_vector vectors[] = {{"f16", f16, 2, VECDB_F32},
                              {"i8", i8, 2, VECDB_F32},
                              {"u8", u8, 2, VECDB_F32},
                              {"bf16", bf16, 2, VECDB_F32},
                              {"bits", ten, 10, 0}};
    vecdb_record record = {.key = VECDB_KEY_INT(50), .vectors = vectors, .n_vectors = 5};
    CHECK_OK(err, vecdb_put(fixture.things, &record, 1, &err));
    vecdb_close(fixture.db);
}

TEST(vectors_of_a_wrong_dimension_type_or_field_are_refused)
{
    struct fixture fixture = open_fixture(test_path("db"));
    refuse_vector(&fixture, NULL, one, 3, 0, "3 values, field \"f32\" takes 4");
    refuse_vector(&fixture, NULL, one, 5, 0, "5 values");
    refuse_vector(&fixture, "f32", one, UINT32_MAX, 0, "takes 4");
    refuse_vector(&fixture, "bits", one, 2, 0, "takes 10");
    refuse_vector(&fixture, "no", one, 4, 0, "no field \"no\"");
    refuse_vector(&fixture, "", one, 4, 0, "no field");
    refuse_vector(&fixture, "F32", one, 4, 0, "it has \"f32\"");
    refuse_vector(&fixture, NULL, one, 4, 7, "element type 7");
    refuse_vector(&fixture, NULL, one, 4, -1, "element type -1");
    refuse_vector(&fixture, NULL, one, 4, VECDB_BIT, "bit");
    refuse_vector(&fixture, "bits", one, 10, VECDB_U8, "bit");
    vecdb_vector twice[2] = {{"f32", one, 4, 0}, {NULL, one, 4, 0}};
    vecdb_record record = {.key = VECDB_KEY_INT(50), .vectors = twice, .n_vectors = 2};
    refuse_record(&fixture, record, VECDB_INVALID, "two vectors");
    record = (vecdb_record){.key = VECDB_KEY_INT(50), .vector = one, .vectors = twice, .n_vectors = 1};
    refuse_record(&fixture, record, VECDB_INVALID, "two vectors");
    record = (vecdb_record){.key = VECDB_KEY_INT(50), .n_vectors = 1};
    refuse_record(&fixture, record, VECDB_INVALID, "NULL");
    vecdb_close(fixture.db);
}

TEST(keys_that_cannot_be_are_refused_by_every_call)
{
    struct fixture fixture = open_fixture(test_path("db"));
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_results *results = NULL;
    vecdb_scan *scan = NULL;
    uint64_t n_deleted = 77;
    char *longest = repeated('k', VECDB_MAX_KEY), *longer = repeated('k', VECDB_MAX_KEY + 1);
    const struct {
        vecdb_key key;
        const char *part;
    } bad[] = {{{.text = ""}, "empty"},
               {{.text = longer}, "65536 bytes"},
               {{.text = longer, .length = VECDB_MAX_KEY + 1}, "65536 bytes"},
               {{.text = "\xff"}, "UTF-8"},
               {{.text = "ab\xc3"}, "UTF-8"},
               {{.text = "ab\xc3\xa9", .length = 3}, "UTF-8"},
               {{.text = "a\0b", .length = 3}, "NUL"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        vecdb_record record = {.key = bad[i].key, .vector = one};
        vecdb_key keys[2] = {VECDB_KEY_INT(1), bad[i].key};
        vecdb_scan_options options = {.size = sizeof options, .after = &keys[1]};
        vecdb_batch batch = {.size = sizeof batch, .n_rows = 2, .keys = keys};
        refuse_record(&fixture, record, VECDB_INVALID, bad[i].part);
        REFUSED(fixture, VECDB_INVALID, bad[i].part, vecdb_write(fixture.things, &batch, &err));
        REFUSED(fixture, VECDB_INVALID, bad[i].part, vecdb_delete(fixture.things, keys, 2, &n_deleted, &err));
        REFUSED(fixture, VECDB_INVALID, bad[i].part, vecdb_get(fixture.things, keys, 2, 0, &results, &err));
        REFUSED(fixture, VECDB_INVALID, bad[i].part, vecdb_scan_open(fixture.things, &options, &scan, &err));
    }
    CHECK(n_deleted == 77 && !results && !scan);
    vecdb_record record = {.key = VECDB_KEY_TEXT(longest), .vector = one};
    CHECK_OK(err, vecdb_put(fixture.things, &record, 1, &err));
    CHECK_OK(err, vecdb_get(fixture.things, &record.key, 1, 0, &results, &err));
    CHECK(vecdb_result_found(results, 0));
    vecdb_results_free(results);
    free(longest);
    free(longer);
    vecdb_close(fixture.db);
}

TEST(metadata_and_text_that_cannot_be_are_refused)
{
    struct fixture fixture = open_fixture(test_path("db"));
    enum { DEEP = 100000 };
    char *deep = malloc(8 * DEEP), *arrays = malloc(8 * DEEP), *at = deep;
    CHECK(deep && arrays);
    for (int i = 0; i < DEEP; i++)
        at += sprintf(at, "{\"a\":");
    *at++ = '1';
    memset(at, '}', DEEP);
    at[DEEP] = '\0';
    at = arrays + sprintf(arrays, "{\"a\":");
    memset(at, '[', DEEP);
    memset(at + DEEP, ']', DEEP);
    memcpy(at + 2 * DEEP, "}", 2);
    const char *const bad[] = {"",          "[1]",          "1",        "null",        "\"text\"",   "{",
                               "}",         "{]",           "{\"a\":}", "{\"a\":1,}",  "{\"a\" 1}",  "{a:1}",
                               "{'a':1}",   "{\"a\":1} x",  "{\"a\":01}", "{\"a\":NaN}", "{\"a\":\"\n\"}", "{}{}",
                               "{\"a\":tru}", "{\"a\":\"\\x\"}", "{\"a\":1e}", deep,        arrays};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        vecdb_record record = {.key = VECDB_KEY_INT(50), .vector = one, .metadata = bad[i]};
        refuse_record(&fixture, record, VECDB_INVALID, "JSON object");
    }
    vecdb_record record = {.key = VECDB_KEY_INT(50), .metadata = "{\"a\":\"\xff\"}"};
    refuse_record(&fixture, record, VECDB_INVALID, "UTF-8");
    record = (vecdb_record){.key = VECDB_KEY_INT(50), .metadata = "{}\0{}", .metadata_length = 5};
    refuse_record(&fixture, record, VECDB_INVALID, "metadata");
    record = (vecdb_record){.key = VECDB_KEY_INT(50), .text = "caf\xe9"};
    refuse_record(&fixture, record, VECDB_INVALID, "UTF-8");
    record = (vecdb_record){.key = VECDB_KEY_INT(50), .reserved = {0, 1}};
    refuse_record(&fixture, record, VECDB_INVALID, "reserved");
    free(deep);
    free(arrays);
    /* A text is bytes of UTF-8, whatever they are. */
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_results *results;
    record = (vecdb_record){.key = VECDB_KEY_INT(50), .text = "a\0b\n\x01", .text_length = 5};
    CHECK_OK(err, vecdb_put(fixture.things, &record, 1, &err));
    CHECK_OK(err, vecdb_get(fixture.things, &record.key, 1, 0, &results, &err));
    CHECK_SIZE(vecdb_result_text_length(results, 0), 5);
    CHECK(!memcmp(vecdb_result_text(results, 0), "a\0b\n\x01", 6));
    vecdb_results_free(results);
    vecdb_close(fixture.db);
}

TEST(inserting_a_key_that_is_there_or_comes_twice_stores_nothing)
{
    struct fixture fixture = open_fixture(test_path("db"));
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_record there = {.key = VECDB_KEY_INT(2), .vector = one}, text = {.key = VECDB_KEY_TEXT("three")};
    vecdb_record twice[3] = {{.key = VECDB_KEY_INT(60)}, {.key = VECDB_KEY_INT(61)}, {.key = VECDB_KEY_INT(60)}};
    int64_t integers[3] = {70, 71, 70};
    vecdb_batch batch = {.size = sizeof batch, .n_rows = 3, .integer_keys = integers, .insert = 1};
    REFUSED(fixture, VECDB_EXISTS, "key 2 already", vecdb_insert(fixture.things, &there, 1, &err));
    REFUSED(fixture, VECDB_EXISTS, "key \"three\" already", vecdb_insert(fixture.things, &text, 1, &err));
    REFUSED(fixture, VECDB_EXISTS, "record 2", vecdb_insert(fixture.things, twice, 3, &err));
    REFUSED(fixture, VECDB_EXISTS, "record 2", vecdb_write(fixture.things, &batch, &err));
    batch.n_rows = 2;
    integers[1] = 2;
    REFUSED(fixture, VECDB_EXISTS, "record 1", vecdb_write(fixture.things, &batch, &err));
    /* 5 and "5" are different keys, and of twice the same put keeps the last. */
    vecdb_record pair[4] = {{.key = VECDB_KEY_INT(5), .text = "a"},
                            {.key = VECDB_KEY_TEXT("5"), .text = "b"},
                            {.key = VECDB_KEY_INT(5), .text = "c"},
                            {.key = VECDB_KEY_INT(5), .text = "d"}};
    vecdb_key keys[2] = {VECDB_KEY_INT(5), VECDB_KEY_TEXT("5")};
    vecdb_results *results;
    CHECK_OK(err, vecdb_put(fixture.things, pair, 4, &err));
    CHECK_OK(err, vecdb_get(fixture.things, keys, 2, 0, &results, &err));
    CHECK_STRING(vecdb_result_text(results, 0), "d");
    CHECK_STRING(vecdb_result_text(results, 1), "b");
    vecdb_results_free(results);
    vecdb_close(fixture.db);
}

/* Enough vectors to take the way of large writes. */
TEST(a_bad_record_in_a_large_write_stores_nothing)
{
    enum { ROWS = 3000, DIMENSION = 64 };
    vecdb_error err = VECDB_ERROR_INIT;
    struct fixture fixture;
    vecdb_field field = {.name = "v", .dimension = DIMENSION, .metric = VECDB_L2};
    CHECK_OK(err, vecdb_open(test_path("db"), NULL, &fixture.db, &err));
    CHECK_OK(err, vecdb_collection_create(fixture.db, "things", &field, 1, 0, &fixture.things, &err));
    float *values = calloc(ROWS * DIMENSION, sizeof *values);
    int64_t *keys = calloc(ROWS, sizeof *keys);
    CHECK(values && keys);
    for (int i = 0; i < ROWS; i++)
        keys[i] = i;
    vecdb_vector_column column = {.values = values, .dimension = DIMENSION};
    vecdb_batch batch = {
        .size = sizeof batch, .n_rows = 5, .integer_keys = keys, .vectors = &column, .n_vectors = 1, .insert = 1};
    CHECK_OK(err, vecdb_write(fixture.things, &batch, &err));
    fixture.digest = digest_of(&fixture);
    batch.n_rows = ROWS;
    REFUSED(fixture, VECDB_EXISTS, "key 0", vecdb_write(fixture.things, &batch, &err));
    for (int i = 0; i < ROWS; i++)
        keys[i] = 10 + i;
    keys[ROWS - 1] = 4;
    REFUSED(fixture, VECDB_EXISTS, "key 4", vecdb_write(fixture.things, &batch, &err));
    keys[ROWS - 1] = 9999;
    values[ROWS * DIMENSION - 1] = NAN;
    REFUSED(fixture, VECDB_INVALID, "record 2999", vecdb_write(fixture.things, &batch, &err));
    values[ROWS * DIMENSION - 1] = 0;
    CHECK_OK(err, vecdb_write(fixture.things, &batch, &err));
    uint64_t n_problems;
    CHECK_OK(err, vecdb_check(fixture.db, NULL, NULL, NULL, &n_problems, &err));
    CHECK_SIZE(n_problems, 0);
    free(values);
    free(keys);
    vecdb_close(fixture.db);
}

TEST(batches_of_columns_that_make_no_sense_are_refused)
{
    struct fixture fixture = open_fixture(test_path("db"));
    vecdb_error err = VECDB_ERROR_INIT;
    int64_t keys[2] = {80, 81};
    float values[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    vecdb_vector_column column;
    vecdb_batch batch;
#define REFUSE_BATCH(expected, part, change)                                                                           \
    do {                                                                                                               \
        column = (vecdb_vector_column){.values = values};                                                              \
        batch = (vecdb_batch){                                                                                         \
            .size = sizeof batch, .n_rows = 2, .integer_keys = keys, .vectors = &column, .n_vectors = 1};              \
        change;                                                                                                        \
        REFUSED(fixture, expected, part, vecdb_write(fixture.things, &batch, &err));                                   \
    } while (0)
    REFUSED(fixture, VECDB_MISUSE, "vecdb_batch.size", vecdb_write(fixture.things, NULL, &err));
    REFUSE_BATCH(VECDB_MISUSE, "vecdb_batch.size", batch.size = 0);
    REFUSE_BATCH(VECDB_MISUSE, "vecdb_batch.size", batch.size = 16);
    REFUSE_BATCH(VECDB_INVALID, "integer_keys", batch.integer_keys = NULL);
    REFUSE_BATCH(VECDB_INVALID, "NULL", batch.vectors = NULL);
    REFUSE_BATCH(VECDB_INVALID, "no values", column.values = NULL);
    REFUSE_BATCH(VECDB_INVALID, "no field \"no\"", column.field = "no");
    REFUSE_BATCH(VECDB_INVALID, "3 values", column.dimension = 3);
    REFUSE_BATCH(VECDB_INVALID, "element type 9", column.type = 9);
    REFUSE_BATCH(VECDB_INVALID, "bit", column.type = VECDB_BIT);
    REFUSE_BATCH(VECDB_INVALID, "too many", batch.n_rows = (size_t)1 << 40);
    REFUSE_BATCH(VECDB_INVALID, "record 1", values[7] = NAN);
    values[7] = 8;
    vecdb_batch nothing = {.size = sizeof nothing};
    CHECK_OK(err, vecdb_write(fixture.things, &nothing, &err));
    CHECK_OK(err, vecdb_put(fixture.things, NULL, 0, &err));
    CHECK_OK(err, vecdb_delete(fixture.things, NULL, 0, NULL, &err));
    CHECK(digest_of(&fixture) == fixture.digest);
    REFUSED(fixture, VECDB_INVALID, "NULL", vecdb_put(fixture.things, NULL, 1, &err));
    REFUSED(fixture, VECDB_INVALID, "NULL", vecdb_insert(fixture.things, NULL, 3, &err));
    REFUSED(fixture, VECDB_INVALID, "NULL", vecdb_delete(fixture.things, NULL, 1, NULL, &err));
    vecdb_close(fixture.db);
}

/* ------------------------------------------------------------------ reading */

TEST(queries_that_make_no_sense_are_refused)
{
    struct fixture fixture = open_fixture(test_path("db"));
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_results *results = NULL;
    float vectors[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    vecdb_query query;
#define REFUSE_QUERY(expected, part, change)                                                                           \
    do {                                                                                                               \
        query = (vecdb_query){.size = sizeof query, .vector = vectors, .k = 3};                                        \
        change;                                                                                                        \
        REFUSED(fixture, expected, part, vecdb_search(fixture.things, &query, &results, &err));                        \
        CHECK(!results);                                                                                               \
    } while (0)
    REFUSED(fixture, VECDB_MISUSE, "vecdb_query.size", vecdb_search(fixture.things, NULL, &results, &err));
    REFUSE_QUERY(VECDB_MISUSE, "vecdb_query.size", query.size = 0);
    REFUSE_QUERY(VECDB_MISUSE, "vecdb_query.size", query.size = 20);
    REFUSE_QUERY(VECDB_MISUSE, "vecdb_query.size", query.size = 1 << 20);
    REFUSE_QUERY(VECDB_INVALID, "no vector", query.vector = NULL);
    REFUSE_QUERY(VECDB_INVALID, "k is 0", query.k = 0);
    REFUSE_QUERY(VECDB_INVALID, "k is 2147483647", query.k = 2147483647);
    REFUSE_QUERY(VECDB_INVALID, "k is 4294967295", query.k = UINT32_MAX);
    REFUSE_QUERY(VECDB_INVALID, "k is 1048577", query.k = VECDB_MAX_K + 1);
    REFUSE_QUERY(VECDB_INVALID, "3 values", query.dimension = 3);
    REFUSE_QUERY(VECDB_INVALID, "no field \"no\"", query.field = "no");
    REFUSE_QUERY(VECDB_INVALID, "element type 8", query.type = 8);
    REFUSE_QUERY(VECDB_INVALID, "element type -1", query.type = -1);
    REFUSE_QUERY(VECDB_INVALID, "bit", query.type = VECDB_BIT);
    REFUSE_QUERY(VECDB_INVALID, "bit", (query.field = "bits", query.type = VECDB_F32));
    REFUSE_QUERY(VECDB_INVALID, "columns", query.columns = 16);
    REFUSE_QUERY(VECDB_INVALID, "columns", query.columns = -1);
    REFUSE_QUERY(VECDB_INVALID, "threads", query.threads = -1);
    REFUSE_QUERY(VECDB_INVALID, "threads", query.threads = 1025);
    REFUSE_QUERY(VECDB_INVALID, "too many", query.n_queries = (size_t)1 << 60);
    REFUSE_QUERY(VECDB_INVALID, "too many", (query.n_queries = 1 << 20, query.stride = (size_t)1 << 60));
    REFUSE_QUERY(VECDB_INVALID, "NaN", vectors[2] = NAN);
    REFUSE_QUERY(VECDB_INVALID, "infinite", vectors[2] = INFINITY);
    vectors[2] = 3;
    vectors[5] = NAN;
    REFUSE_QUERY(VECDB_INVALID, "query 1", query.n_queries = 2);
    memset(vectors, 0, sizeof vectors);
    REFUSE_QUERY(VECDB_INVALID, "zero", query.k = 3);
    static const unsigned char bits[2] = {0, 0xff};
    REFUSE_QUERY(VECDB_INVALID, "behind them", (query.field = "bits", query.vector = bits));
    CHECK_FAILS(err, VECDB_MISUSE, "NULL", vecdb_search(fixture.things, &query, NULL, &err));
    vecdb_collection *bare;
    CHECK_OK(err, vecdb_collection_create(fixture.db, "bare", NULL, 0, 0, &bare, &err));
    query = (vecdb_query){.size = sizeof query, .vector = one, .k = 3};
    CHECK_FAILS(err, VECDB_INVALID, "no vector fields", vecdb_search(bare, &query, &results, &err));
    CHECK(!results);
    vecdb_close(fixture.db);
}

TEST(k_and_offset_beyond_the_records_give_fewer_results)
{
    struct fixture fixture = open_fixture(test_path("db"));
    vecdb_error err = VECDB_ERROR_INIT;
    static const struct {
        uint32_t k, offset;
        size_t expected;
    } cases[] = {{VECDB_MAX_K, 0, 3}, {4, 0, 3}, {2, 2, 1},          {1, 3, 0},
                 {3, 1000, 0},        {1, 0, 1}, {VECDB_MAX_K, UINT32_MAX, 0}, {2, 1, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vecdb_query query = {.size = sizeof query, .vector = one, .k = cases[i].k, .offset = cases[i].offset};
        vecdb_results *results;
        size_t first = 7, count = 7;
        CHECK_OK(err, vecdb_search(fixture.things, &query, &results, &err));
        CHECK_SIZE(vecdb_results_count(results), cases[i].expected);
        size_t n = vecdb_results_count(results);
        CHECK(!vecdb_result_found(results, n) && !vecdb_result_key_text(results, n));
        CHECK(!vecdb_result_metadata(results, n, &count) && count == 0 && !vecdb_result_text(results, SIZE_MAX));
        CHECK(vecdb_result_distance(results, n) == 0 && vecdb_result_score(results, n) == 0);
        CHECK(!vecdb_result_vector(results, 0, NULL, NULL, NULL)); /* was not asked for */
        vecdb_results_range(results, 1, &first, &count);
        CHECK(first == 0 && count == 0);
        vecdb_results_free(results);
    }
    CHECK(vecdb_results_count(NULL) == 0 && vecdb_results_queries(NULL) == 0 && !vecdb_result_found(NULL, 0));
    vecdb_results_free(NULL);
    vecdb_scan_close(NULL);
    vecdb_close(NULL);
    vecdb_close(fixture.db);
}

TEST(other_calls_with_wrong_arguments_are_refused)
{
    struct fixture fixture = open_fixture(test_path("db"));
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_results *results = NULL;
    vecdb_scan *scan = NULL;
    vecdb_key key = vecdb_key_int(1);
    vecdb_scan_options options = {.size = sizeof options, .columns = 32};
    REFUSED(fixture, VECDB_INVALID, "columns", vecdb_scan_open(fixture.things, &options, &scan, &err));
    options = (vecdb_scan_options){.size = 4};
    REFUSED(fixture, VECDB_MISUSE, "size", vecdb_scan_open(fixture.things, &options, &scan, &err));
    REFUSED(fixture, VECDB_MISUSE, "NULL", vecdb_scan_open(fixture.things, NULL, NULL, &err));
    REFUSED(fixture, VECDB_MISUSE, "NULL", vecdb_scan_next(NULL, &results, &err));
    REFUSED(fixture, VECDB_INVALID, "columns", vecdb_get(fixture.things, &key, 1, 64, &results, &err));
    REFUSED(fixture, VECDB_MISUSE, "NULL", vecdb_get(fixture.things, NULL, 1, 0, &results, &err));
    REFUSED(fixture, VECDB_MISUSE, "NULL", vecdb_get(fixture.things, &key, 1, 0, NULL, &err));
    vecdb_stats stats = {.size = 8};
    REFUSED(fixture, VECDB_MISUSE, "vecdb_stats.size", vecdb_database_stats(fixture.db, &stats, &err));
    REFUSED(fixture, VECDB_MISUSE, "vecdb_stats.size", vecdb_database_stats(fixture.db, NULL, &err));
    REFUSED(fixture, VECDB_MISUSE, "NULL", vecdb_collections(fixture.db, NULL, NULL, &err));
    REFUSED(fixture, VECDB_MISUSE, "NULL", vecdb_collection_describe(fixture.things, NULL, NULL, &err));
    vecdb_work work = {.size = 1};
    REFUSED(fixture, VECDB_MISUSE, "vecdb_work.size", vecdb_compact(fixture.db, &work, &err));
    REFUSED(fixture, VECDB_MISUSE, "vecdb_work.size", vecdb_check(fixture.db, &work, NULL, NULL, NULL, &err));
    CHECK(!results && !scan);
    CHECK_OK(err, vecdb_get(fixture.things, &key, 1, 0, &results, &err));
    vecdb_search_stats search = {.size = 8};
    CHECK_INT(vecdb_results_stats(results, &search), VECDB_MISUSE);
    CHECK_INT(vecdb_results_stats(results, NULL), VECDB_MISUSE);
    CHECK_INT(vecdb_results_stats(NULL, &search), VECDB_MISUSE);
    vecdb_results_free(results);
    vecdb_close(fixture.db);
}

static int stop_at_once(void *context, const vecdb_collection_info *info)
{
    (void)info;
    return ++*(int *)context;
}

static int stop_progress(void *context, const vecdb_progress *progress)
{
    CHECK(progress->phase && *progress->phase);
    return ++*(int *)context >= 2;
}

TEST(callbacks_that_ask_to_stop_end_the_call)
{
    struct fixture fixture = open_fixture(test_path("db"));
    vecdb_error err = VECDB_ERROR_INIT;
    int n = 0;
    REFUSED(fixture, VECDB_INTERRUPTED, "callback", vecdb_collections(fixture.db, stop_at_once, &n, &err));
    CHECK_FAILS(err, VECDB_INTERRUPTED, "callback",
                vecdb_collection_describe(fixture.things, stop_at_once, &n, &err));
    CHECK_INT(n, 2);
    uint64_t n_problems = 77;
    vecdb_work work = {.size = sizeof work, .progress = stop_progress, .progress_context = &n};
    n = 0;
    CHECK_FAILS(err, VECDB_INTERRUPTED, "check", vecdb_check(fixture.db, &work, NULL, NULL, &n_problems, &err));
    CHECK(n == 2 && n_problems == 77);
    n = 0;
    CHECK_FAILS(err, VECDB_INTERRUPTED, "compaction", vecdb_compact(fixture.db, &work, &err));
    CHECK_OK(err, vecdb_compact(fixture.db, NULL, &err));
    CHECK_OK(err, vecdb_check(fixture.db, NULL, NULL, NULL, &n_problems, &err));
    CHECK_SIZE(n_problems, 0);
    vecdb_close(fixture.db);
}

/* ------------------------------------------------------------------ handles */

/* Every call on a collection fails with this status. */
static void refuse_collection(vecdb_collection *collection, int expected, bool reads_too, const char *part)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_results *results = NULL;
    vecdb_scan *scan = NULL;
    vecdb_key key = vecdb_key_int(1);
    int64_t integer = 1;
    vecdb_record record = {.key = VECDB_KEY_INT(1), .vector = one};
    vecdb_field field = {.name = "new", .dimension = 2};
    vecdb_batch batch = {.size = sizeof batch, .n_rows = 1, .integer_keys = &integer};
    vecdb_query query = {.size = sizeof query, .vector = one, .k = 1};
    int n = 0;
    CHECK_FAILS(err, expected, part, vecdb_put(collection, &record, 1, &err));
    CHECK_FAILS(err, expected, part, vecdb_insert(collection, &record, 1, &err));
    CHECK_FAILS(err, expected, part, vecdb_write(collection, &batch, &err));
    CHECK_FAILS(err, expected, part, vecdb_delete(collection, &key, 1, NULL, &err));
    CHECK_FAILS(err, expected, part, vecdb_field_add(collection, &field, &err));
    CHECK_FAILS(err, expected, part, vecdb_field_drop(collection, "f32", &err));
    CHECK_FAILS(err, expected, part, vecdb_field_rename(collection, "f32", "x", &err));
    if (!reads_too)
        return;
    CHECK_FAILS(err, expected, part, vecdb_get(collection, &key, 1, 0, &results, &err));
    CHECK_FAILS(err, expected, part, vecdb_scan_open(collection, NULL, &scan, &err));
    CHECK_FAILS(err, expected, part, vecdb_search(collection, &query, &results, &err));
    CHECK_FAILS(err, expected, part, vecdb_collection_describe(collection, stop_at_once, &n, &err));
    CHECK(!results && !scan && !n);
}

TEST(handles_that_are_null_or_of_something_dropped_or_read_only_are_refused)
{
    struct fixture fixture = open_fixture(test_path("db"));
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *collection = NULL;
    vecdb_stats stats = {.size = sizeof stats};
    uint64_t n;
    int calls = 0;
    refuse_collection(NULL, VECDB_MISUSE, true, "NULL");
    CHECK_FAILS(err, VECDB_MISUSE, "NULL", vecdb_collection_create(NULL, "x", NULL, 0, 0, &collection, &err));
    CHECK_FAILS(err, VECDB_MISUSE, "NULL", vecdb_collection_open(NULL, "x", &collection, &err));
    CHECK_FAILS(err, VECDB_MISUSE, "NULL", vecdb_collection_drop(NULL, "x", &err));
    CHECK_FAILS(err, VECDB_MISUSE, "NULL", vecdb_collection_rename(NULL, "x", "y", &err));
    CHECK_FAILS(err, VECDB_MISUSE, "NULL", vecdb_collections(NULL, stop_at_once, &calls, &err));
    CHECK_FAILS(err, VECDB_MISUSE, "NULL", vecdb_database_stats(NULL, &stats, &err));
    CHECK_FAILS(err, VECDB_MISUSE, "NULL", vecdb_compact(NULL, NULL, &err));
    CHECK_FAILS(err, VECDB_MISUSE, "NULL", vecdb_check(NULL, NULL, NULL, NULL, &n, &err));
    CHECK_FAILS(err, VECDB_MISUSE, "NULL", vecdb_background_error(NULL, &err));
    CHECK_INT(vecdb_collection_open(NULL, "x", &collection, NULL), VECDB_MISUSE); /* no error wanted */
    vecdb_interrupt(NULL);

    vecdb *reader;
    vecdb_options readonly = {.size = sizeof readonly, .mode = VECDB_OPEN_READONLY};
    CHECK_OK(err, vecdb_open(test_path("db"), &readonly, &reader, &err));
    CHECK_OK(err, vecdb_collection_open(reader, "things", &collection, &err));
    refuse_collection(collection, VECDB_READONLY, false, "read-only");
    CHECK_FAILS(err, VECDB_READONLY, "read-only", vecdb_collection_drop(reader, "things", &err));
    CHECK_FAILS(err, VECDB_READONLY, "read-only", vecdb_collection_rename(reader, "things", "x", &err));
    CHECK_FAILS(err, VECDB_READONLY, "read-only", vecdb_collection_create(reader, "x", NULL, 0, 0, NULL, &err));
    CHECK_FAILS(err, VECDB_READONLY, "read-only", vecdb_collection_create(reader, "x", NULL, 0, 1, NULL, &err));
    CHECK_FAILS(err, VECDB_READONLY, "read-only", vecdb_compact(reader, NULL, &err));
    CHECK_OK(err, vecdb_check(reader, NULL, NULL, NULL, &n, &err));
    CHECK_SIZE(n, 0);
    CHECK(digest_of(&fixture) == fixture.digest);

    CHECK_OK(err, vecdb_collection_drop(fixture.db, "things", &err));
    refuse_collection(fixture.things, VECDB_NOT_FOUND, true, "dropped");
    vecdb_query query = {.size = sizeof query, .vector = one, .k = 1};
    vecdb_results *results = NULL;
    CHECK_FAILS(err, VECDB_NOT_FOUND, "dropped", vecdb_search(collection, &query, &results, &err));
    /* One of the same name is another one. */
    CHECK_OK(err, vecdb_collection_create(fixture.db, "things", fields, 6, 0, &collection, &err));
    CHECK(collection != fixture.things);
    refuse_collection(fixture.things, VECDB_NOT_FOUND, true, "dropped");
    vecdb_close(reader);
    vecdb_close(fixture.db);
}

TEST(a_successful_call_leaves_the_error_alone)
{
    vecdb_error err = {.status = 99, .message = "untouched"};
    vecdb_results *results;
    struct fixture fixture = open_fixture(test_path("db"));
    vecdb_query query = {.size = sizeof query, .vector = one, .k = 1};
    vecdb_record record = {.key = VECDB_KEY_INT(2), .vector = one, .metadata = "{}"};
    uint64_t n;
    CHECK_OK(err, vecdb_collection_create(fixture.db, "things", fields, 6, 1, NULL, &err));
    CHECK_OK(err, vecdb_put(fixture.things, &record, 1, &err));
    CHECK_OK(err, vecdb_compact(fixture.db, NULL, &err));
    CHECK_OK(err, vecdb_search(fixture.things, &query, &results, &err));
    CHECK_OK(err, vecdb_check(fixture.db, NULL, NULL, NULL, &n, &err));
    CHECK_OK(err, vecdb_background_error(fixture.db, &err));
    CHECK_INT(err.status, 99);
    CHECK_STRING(err.message, "untouched");
    vecdb_results_free(results);
    vecdb_close(fixture.db);
}
