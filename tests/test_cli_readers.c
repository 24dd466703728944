/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/test_cli_readers.c - the readers of vecdb-cli hand out what a file holds, row by row, and
 * refuse with one sentence what is damaged, cut short, hostile or of another kind
 *
 * Files are made in memory. A file that is read through a descriptor, and one that is read from
 * memory, must give the same rows; only the first knows pipes.
 */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/input.h"
#include "cli/options.h"
#include "cli/values.h"
#include "harness.h"

/* ---------------------------------------------------------------- files in memory */

struct bytes {
    uint8_t data[1 << 16];
    size_t n;
};

static void put(struct bytes *to, const void *data, size_t n)
{
    CHECK(n <= sizeof to->data - to->n);
    memcpy(to->data + to->n, data, n);
    to->n += n;
}

static void put_u32(struct bytes *to, uint32_t value)
{
    put(to, &value, sizeof value);
}

static void put_f32(struct bytes *to, float value)
{
    put(to, &value, sizeof value);
}

static void put_npy(struct bytes *to, int version, const char *dictionary)
{
    size_t n = strlen(dictionary);
    uint8_t prefix[12] = {0x93, 'N', 'U', 'M', 'P', 'Y', (uint8_t)version, 0, (uint8_t)n, (uint8_t)(n >> 8), 0, 0};
    put(to, prefix, version == 1 ? 10 : 12);
    put(to, dictionary, n);
}

static int open_bytes(struct vector_reader *reader, const struct bytes *bytes, int format, vecdb_error *err)
{
    struct byte_source source;
    source_memory(&source, "file", bytes->data, bytes->n);
    return vectors_open(reader, &source, format, err);
}

static void refuse(const struct bytes *bytes, int format, const char *part)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vector_reader reader;
    CHECK_FAILS(err, VECDB_INVALID, part, open_bytes(&reader, bytes, format, &err));
}

/* ---------------------------------------------------------------- vectors */

TEST(a_bin_file_gives_its_rows_in_their_own_type)
{
    static const struct {
        int format, type;
        size_t bytes;
    } cases[] = {{INPUT_FBIN, VECDB_F32, 4},
                 {INPUT_F16BIN, VECDB_F16, 2},
                 {INPUT_U8BIN, VECDB_U8, 1},
                 {INPUT_I8BIN, VECDB_I8, 1},
                 {INPUT_IBIN, VALUE_I32, 4}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct bytes file = {.n = 0};
        vecdb_error err = VECDB_ERROR_INIT;
        struct vector_reader reader;
        uint8_t rows[64], expected[5 * 3 * 4];
        size_t n;
        for (size_t i = 0; i < sizeof expected; i++)
            expected[i] = (uint8_t)(i * 7 + 1);
        put_u32(&file, 5);
        put_u32(&file, 3);
        put(&file, expected, 15 * cases[c].bytes);
        CHECK_OK(err, open_bytes(&reader, &file, cases[c].format, &err));
        CHECK_INT(reader.type, cases[c].type);
        CHECK_INT(reader.dimension, 3);
        CHECK_SIZE(reader.n_rows, 5);
        CHECK_OK(err, vectors_read(&reader, rows, 2, &n, &err));
        CHECK_SIZE(n, 2);
        CHECK(!memcmp(rows, expected, 6 * cases[c].bytes));
        CHECK_OK(err, vectors_read(&reader, rows, 9, &n, &err));
        CHECK_SIZE(n, 3);
        CHECK(!memcmp(rows, expected + 6 * cases[c].bytes, 9 * cases[c].bytes));
        CHECK_OK(err, vectors_read(&reader, rows, 9, &n, &err));
        CHECK_SIZE(n, 0);
        vectors_close(&reader);
    }
}

TEST(a_vecs_file_gives_its_rows_without_their_dimensions)
{
    struct bytes file = {.n = 0};
    vecdb_error err = VECDB_ERROR_INIT;
    struct vector_reader reader;
    float rows[8];
    size_t n;
    for (uint32_t i = 0; i < 3; i++) {
        put_u32(&file, 2);
        put_f32(&file, (float)i);
        put_f32(&file, (float)i + 0.5f);
    }
    CHECK_OK(err, open_bytes(&reader, &file, INPUT_FVECS, &err));
    CHECK_SIZE(reader.n_rows, 3);
    CHECK_OK(err, vectors_read(&reader, rows, 4, &n, &err));
    CHECK_SIZE(n, 3);
    for (uint32_t i = 0; i < 6; i++)
        CHECK_DOUBLE(rows[i], (double)i / 2);
    vectors_close(&reader);
}

TEST(a_later_row_of_another_dimension_is_named_by_its_number)
{
    struct bytes file = {.n = 0};
    vecdb_error err = VECDB_ERROR_INIT;
    struct vector_reader reader;
    uint8_t rows[64];
    size_t n;
    for (uint32_t i = 0; i < 4; i++) {
        put_u32(&file, i == 2 ? 3 : 4);
        put(&file, "abcd", 4);
    }
    CHECK_OK(err, open_bytes(&reader, &file, INPUT_BVECS, &err));
    CHECK_OK(err, vectors_read(&reader, rows, 1, &n, &err));
    CHECK_FAILS(err, VECDB_INVALID, "file: row 2 has 3 values, the rows before it have 4",
                vectors_read(&reader, rows, 9, &n, &err));
    vectors_close(&reader);
}

TEST(a_header_that_does_not_fit_the_file_is_refused_before_a_row_is_read)
{
    struct bytes file = {.n = 0};
    put_u32(&file, 2);
    refuse(&file, INPUT_FBIN, "its header alone takes 8");
    put_u32(&file, 4);
    put(&file, "0123456789abcdef0123456789abcdef", 32);
    file.n--;
    refuse(&file, INPUT_FBIN,
           "file is cut short: the header says 2 rows of 4 f32 values, 40 bytes, but the file has 39");
    file.n += 2;
    refuse(&file, INPUT_FBIN, "is longer than its header says");
    file.n = 0;
    put_u32(&file, 0);
    put_u32(&file, 4);
    refuse(&file, INPUT_FBIN, "0 rows");
    file.n = 0;
    put_u32(&file, 1);
    put_u32(&file, 0);
    refuse(&file, INPUT_FBIN, "0 values a row");
    file.n = 0;
    put_u32(&file, 0xffffffff);
    put_u32(&file, 0xffffffff);
    refuse(&file, INPUT_FBIN, "4294967295 values a row");
    file.n = 0;
    put_u32(&file, 0xffffffff);
    put_u32(&file, 65536);
    refuse(&file, INPUT_FBIN, "is cut short");
    file.n = 0;
    put_u32(&file, 4);
    put(&file, "abcdabc", 7);
    refuse(&file, INPUT_BVECS, "no whole number of rows");
    file.n = 3;
    refuse(&file, INPUT_FVECS, "only a few bytes");
}

TEST(npy_files_of_every_version_and_type_are_read)
{
    static const struct {
        const char *dictionary;
        int version, type;
        size_t value_bytes;
    } cases[] = {{"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }   \n", 1, VECDB_F32, 4},
                 {"{'descr': '<f2', 'fortran_order': False, 'shape': (2, 3), }\n", 2, VECDB_F16, 2},
                 {"{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3)}\n", 3, VECDB_U8, 1},
                 {"{\"shape\": (2, 3), \"fortran_order\": False, \"descr\": \"|i1\"}", 1, VECDB_I8, 1},
                 {"{'descr':'<i4','fortran_order':False,'shape':(2L,3L)}", 1, VALUE_I32, 4}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct bytes file = {.n = 0};
        vecdb_error err = VECDB_ERROR_INIT;
        struct vector_reader reader;
        uint8_t rows[64];
        size_t n;
        put_npy(&file, cases[c].version, cases[c].dictionary);
        put(&file, "abcdefghijklmnopqrstuvwx", 6 * cases[c].value_bytes);
        CHECK_OK(err, open_bytes(&reader, &file, INPUT_NPY, &err));
        CHECK_INT(reader.type, cases[c].type);
        CHECK_INT(reader.dimension, 3);
        CHECK_OK(err, vectors_read(&reader, rows, 5, &n, &err));
        CHECK_SIZE(n, 2);
        CHECK(!memcmp(rows, "abcdefghijklmnopqrstuvwx", 6 * cases[c].value_bytes));
        vectors_close(&reader);
    }
}

TEST(npy_doubles_become_floats)
{
    struct bytes file = {.n = 0};
    vecdb_error err = VECDB_ERROR_INIT;
    struct vector_reader reader;
    double values[4] = {0.1, -2.5, 1e30, 3};
    float rows[4];
    size_t n;
    put_npy(&file, 1, "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2), }");
    put(&file, values, sizeof values);
    CHECK_OK(err, open_bytes(&reader, &file, INPUT_NPY, &err));
    CHECK_OK(err, vectors_read(&reader, rows, 2, &n, &err));
    CHECK_SIZE(n, 2);
    for (int i = 0; i < 4; i++)
        CHECK_DOUBLE(rows[i], (float)values[i]);
    vectors_close(&reader);
}

TEST(npy_files_that_are_no_rows_of_vectors_are_refused_with_the_reason)
{
    static const struct {
        const char *dictionary, *part;
    } cases[] = {{"{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }", "column by column"},
                 {"{'descr': '>f4', 'fortran_order': False, 'shape': (2, 3), }", "big-endian"},
                 {"{'descr': '<c8', 'fortran_order': False, 'shape': (2, 3), }", "NumPy type <c8"},
                 {"{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }", "array of 1 dimensions"},
                 {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 3), }", "array of 3 dimensions"},
                 {"{'descr': '<f4', 'fortran_order': False, 'shape': (), }", "array of 0 dimensions"},
                 {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }", "plain array"},
                 {"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3), }", "0 rows"},
                 {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 0), }", "0 values a row"},
                 {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 3), }", "plain array"},
                 {"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 3), }", "more than a file"},
                 {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 3), }", "plain array"},
                 {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), ", "plain array"},
                 {"{'descr': '<f4', 'descr': '<f4', 'shape': (2, 3), }", "plain array"},
                 {"{'descr': '<f4', 'shape': (2, 3), }", "plain array"},
                 {"{", "plain array"},
                 {"{'descr': '<f4", "plain array"},
                 {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", "cut short"}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct bytes file = {.n = 0};
        put_npy(&file, 1, cases[c].dictionary);
        put(&file, "abcdefgh", 8);
        refuse(&file, INPUT_NPY, cases[c].part);
    }
    struct bytes file = {.n = 0};
    put(&file, "\x93NUMPY\x04\x00__________", 18);
    refuse(&file, INPUT_NPY, "version 4");
    file.n = 0;
    put(&file, "\x93NUMPY\x02\x00\xff\xff\xff\xff", 12);
    refuse(&file, INPUT_NPY, "a NumPy header of 4294967295 bytes");
    file.n = 0;
    put(&file, "\x93NUMPY\x01\x00\x80\x00{}", 12);
    refuse(&file, INPUT_NPY, "ends in the header");
    file.n = 0;
    put(&file, "PK\x03\x04 an npz archive", 20);
    refuse(&file, INPUT_NPY, "does not begin with");
}

/* A child that writes the bytes to a pipe; the reading end becomes stdin. */
static void pipe_to_stdin(const struct bytes *bytes)
{
    int ends[2];
    CHECK(!pipe(ends));
    if (!fork()) {
        close(ends[0]);
        for (size_t i = 0; i < bytes->n; i += 7) /* in pieces */
            if (write(ends[1], bytes->data + i, bytes->n - i < 7 ? bytes->n - i : 7) < 0)
                _exit(1);
        _exit(0);
    }
    close(ends[1]);
    CHECK(dup2(ends[0], 0) == 0);
    close(ends[0]);
}

TEST(a_pipe_is_read_to_its_end_and_one_that_is_cut_short_is_told)
{
    struct bytes file = {.n = 0};
    vecdb_error err = VECDB_ERROR_INIT;
    struct byte_source source;
    struct vector_reader reader;
    uint8_t rows[256];
    size_t n;
    put_u32(&file, 10);
    put_u32(&file, 20);
    for (int i = 0; i < 200; i++)
        put(&file, (uint8_t[]){(uint8_t)i}, 1);
    pipe_to_stdin(&file);
    CHECK_OK(err, source_open(&source, "-", &err));
    CHECK_OK(err, vectors_open(&reader, &source, INPUT_U8BIN, &err));
    CHECK_OK(err, vectors_read(&reader, rows, 10, &n, &err));
    CHECK_SIZE(n, 10);
    CHECK(!memcmp(rows, file.data + 8, 200));
    vectors_close(&reader);

    file.n -= 30;
    pipe_to_stdin(&file);
    CHECK_OK(err, source_open(&source, "-", &err));
    CHECK_OK(err, vectors_open(&reader, &source, INPUT_U8BIN, &err));
    CHECK_OK(err, vectors_read(&reader, rows, 5, &n, &err));
    CHECK_FAILS(err, VECDB_INVALID, "stdin is cut short: it ends after 8 of the 10 rows",
                vectors_read(&reader, rows, 5, &n, &err));
    vectors_close(&reader);
}

TEST(a_missing_file_a_directory_and_an_empty_file_are_told_apart)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct byte_source source;
    CHECK_FAILS(err, VECDB_NOT_FOUND, "cannot open", source_open(&source, test_path("none"), &err));
    CHECK_FAILS(err, VECDB_INVALID, "is a directory", source_open(&source, test_directory(), &err));
    close(open(test_path("empty"), O_CREAT | O_WRONLY, 0600));
    CHECK_FAILS(err, VECDB_INVALID, "is empty", source_open(&source, test_path("empty"), &err));
}

TEST(the_format_is_told_by_the_suffix_or_the_first_bytes)
{
    static const struct {
        const char *name, *bytes;
        int format;
    } cases[] = {{"a.fvecs", "x", INPUT_FVECS}, {"a.FBIN", "x", INPUT_FBIN},           {"a.f16bin", "x", INPUT_F16BIN},
                 {"a.npy", "x", INPUT_NPY},     {"a.ndjson", "x", INPUT_JSONL},        {"a.csv", "x", INPUT_CSV},
                 {"a", "\x93NUMPY", INPUT_NPY}, {"a.txt", "\n {\"a\":1}", INPUT_JSONL}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct byte_source source;
        int format;
        source_memory(&source, cases[c].name, cases[c].bytes, strlen(cases[c].bytes));
        CHECK_OK((vecdb_error){0}, source_guess_format(&source, &format, NULL));
        CHECK_INT(format, cases[c].format);
        source_close(&source);
    }
    vecdb_error err = VECDB_ERROR_INIT;
    struct byte_source source;
    int format;
    source_memory(&source, "a.bin", "abc", 3);
    CHECK_FAILS(err, VECDB_INVALID, "say --format", source_guess_format(&source, &format, &err));
    source_close(&source);
}

/* ---------------------------------------------------------------- records */

struct reading {
    struct record_reader reader;
    struct arena arena;
    struct row_record record;
    vecdb_error err;
};

static int open_text(struct reading *reading, int format, const char *text, struct record_settings settings)
{
    struct byte_source source;
    memset(reading, 0, sizeof *reading);
    if (!settings.limit_bytes)
        settings.limit_bytes = 1 << 20;
    source_memory(&source, "file", text, strlen(text));
    return records_open(&reading->reader, &source, format, &settings, &reading->err);
}

static bool next(struct reading *reading)
{
    bool got;
    CHECK_OK(reading->err, records_next(&reading->reader, &reading->arena, &reading->record, &got, &reading->err));
    return got;
}

static void end(struct reading *reading)
{
    records_close(&reading->reader);
    arena_release(&reading->arena);
}

static void refuse_text(int format, const char *text, struct record_settings settings, const char *part)
{
    struct reading reading;
    int status = open_text(&reading, format, text, settings);
    bool got = true;
    while (!status && got)
        status = records_next(&reading.reader, &reading.arena, &reading.record, &got, &reading.err);
    if (status != VECDB_INVALID || !strstr(reading.err.message, part))
        FAIL("%s: %s: \"%s\" does not contain \"%s\"", text, vecdb_status_name(status), reading.err.message, part);
    end(&reading);
}

TEST(a_json_record_gives_key_vectors_metadata_and_text)
{
    struct reading r;
    CHECK_OK(r.err,
             open_text(&r, INPUT_JSONL,
                       "{\"key\":\"m\\u00e9-7\",\"vectors\":{\"a\":[1,2.5],\"b/c\":[3]},\"metadata\":{\"x\": 0.10,"
                       " \"y\":[1,\"}\\\"\"]},\"text\":\"l1\\nl2\"}\r\n\n{\"key\":-5,\"vector\":[1e-3],\"text\":null}",
                       (struct record_settings){.vectors = true}));
    CHECK(next(&r));
    CHECK(r.record.has_key);
    CHECK_STRING(r.record.key.text, "m\xc3\xa9-7");
    CHECK_SIZE(r.record.n_vectors, 2);
    CHECK_STRING(r.record.vectors[1].field, "b/c");
    CHECK_INT(r.record.vectors[0].dimension, 2);
    CHECK_DOUBLE(r.record.vectors[0].values[1], 2.5);
    CHECK_STRING(r.record.metadata, "{\"x\": 0.10, \"y\":[1,\"}\\\"\"]}");
    CHECK_STRING(r.record.text, "l1\nl2");
    CHECK(next(&r));
    CHECK_INT(r.record.line, 3);
    CHECK(!r.record.key.text);
    CHECK_INT(r.record.key.integer, -5);
    CHECK(!r.record.vectors[0].field);
    CHECK(!r.record.metadata && !r.record.text);
    CHECK(!next(&r));
    end(&r);
}

TEST(a_flat_json_line_keeps_all_other_members_as_they_are_written)
{
    struct reading r;
    CHECK_OK(r.err, open_text(&r, INPUT_JSONL,
                              "{\"id\":12,\"title\":\"T\",\"big\":123456789012345678901234567890,\"n\":1.50, "
                              "\"text\":\"body\",\"metadata\":{\"a\":1}}",
                              (struct record_settings){.vectors = true}));
    CHECK(next(&r));
    CHECK_INT(r.record.key.integer, 12);
    CHECK_STRING(r.record.text, "body");
    CHECK_STRING(r.record.metadata,
                 "{\"title\":\"T\",\"big\":123456789012345678901234567890,\"n\":1.50,\"metadata\":{\"a\":1}}");
    end(&r);
}

TEST(texts_are_joined_by_newlines_and_the_last_leaves_the_metadata)
{
    struct reading r;
    CHECK_OK(r.err, open_text(&r, INPUT_JSONL, "{\"name\":\"k\",\"title\":\"T\",\"body\":\"B\",\"year\":3}",
                              (struct record_settings){.key = "name", .text = "title,body"}));
    CHECK(next(&r));
    CHECK_STRING(r.record.key.text, "k");
    CHECK_STRING(r.record.text, "T\nB");
    CHECK_STRING(r.record.metadata, "{\"title\":\"T\",\"year\":3}");
    end(&r);
}

TEST(json_lines_that_are_wrong_are_refused_with_their_number)
{
    const struct record_settings with = {.vectors = true}, key = {.key = "id", .vectors = true};
    refuse_text(INPUT_JSONL, "{\"key\":1}\n{\"key\":", with, "file: line 2: not valid JSON");
    refuse_text(INPUT_JSONL, "[1]", with, "line 1: not a JSON object");
    refuse_text(INPUT_JSONL, "{\"a\":1}", key, "there is no member \"id\"");
    refuse_text(INPUT_JSONL, "{\"key\":1.5}", with, "the key 1.5 is neither");
    refuse_text(INPUT_JSONL, "{\"key\":99999999999999999999}", with, "neither a text nor a 64-bit integer");
    refuse_text(INPUT_JSONL, "{\"key\":true}", with, "the key true is neither");
    refuse_text(INPUT_JSONL, "{\"key\":\"\"}", with, "the key is empty");
    refuse_text(INPUT_JSONL, "{\"vector\":[1,\"2\"]}", with, "line 1: vector: value 1 is not a number");
    refuse_text(INPUT_JSONL, "{\"vector\":[]}", with, "has 0 values");
    refuse_text(INPUT_JSONL, "{\"vector\":3}", with, "not an array");
    refuse_text(INPUT_JSONL, "{\"vector\":[NaN]}", with, "not valid JSON");
    refuse_text(INPUT_JSONL, "{\"vector\":[1e39]}", with, "too large");
    refuse_text(INPUT_JSONL, "{\"vectors\":[1]}", with, "\"vectors\" is not an object");
    refuse_text(INPUT_JSONL, "{\"metadata\":3}", with, "\"metadata\" is not an object");
    refuse_text(INPUT_JSONL, "{\"a\":1,\"a\":2}", with, "duplicate");
    refuse_text(INPUT_JSONL, "{\"a\":\"\xff\"}", with, "not valid JSON");
    refuse_text(INPUT_JSONL, "{\"t\":5}", (struct record_settings){.text = "t"}, "\"t\" is not a text");
    refuse_text(INPUT_JSONL, "{\"a\":\"0123456789\"}", (struct record_settings){.limit_bytes = 10},
                "longer than 10 bytes");
}

TEST(deep_json_is_refused_and_not_followed)
{
    enum { DEPTH = 100000 };
    char *text = malloc(DEPTH * 2 + 16);
    CHECK(text);
    size_t n = (size_t)sprintf(text, "{\"a\":");
    memset(text + n, '[', DEPTH);
    memset(text + n + DEPTH, ']', DEPTH);
    strcpy(text + n + 2 * (size_t)DEPTH, "}");
    refuse_text(INPUT_JSONL, text, (struct record_settings){.vectors = true}, "maximum parsing depth");
    free(text);
}

TEST(csv_cells_may_be_quoted_and_bare_numbers_are_numbers)
{
    struct reading r;
    CHECK_OK(r.err, open_text(&r, INPUT_CSV,
                              "\xef\xbb\xbfkey,title,year,code,vector,text\r\n"
                              "5,\"a \"\"b\"\", c\",2024,\"007\",\"[1, 2]\",\"two\nlines\"\r\n"
                              "\r\n\"5\",,007,-1.5e3,,last",
                              (struct record_settings){.vectors = true}));
    CHECK(next(&r));
    CHECK_INT(r.record.key.integer, 5);
    CHECK_STRING(r.record.metadata, "{\"title\":\"a \\\"b\\\", c\",\"year\":2024,\"code\":\"007\"}");
    CHECK_STRING(r.record.text, "two\nlines");
    CHECK_DOUBLE(r.record.vectors[0].values[1], 2);
    CHECK(next(&r));
    CHECK_INT(r.record.line, 5);
    CHECK_STRING(r.record.key.text, "5");
    CHECK_STRING(r.record.metadata, "{\"year\":\"007\",\"code\":-1.5e3}");
    CHECK_SIZE(r.record.n_vectors, 0);
    CHECK_STRING(r.record.text, "last");
    CHECK(!next(&r));
    end(&r);
}

TEST(csv_that_is_wrong_is_refused_with_its_line)
{
    const struct record_settings with = {.vectors = true};
    refuse_text(INPUT_CSV, "", with, "no header line");
    refuse_text(INPUT_CSV, "a,a\n1,2", with, "two columns called \"a\"");
    refuse_text(INPUT_CSV, "a,,b\n1,2,3", with, "no name for column 2");
    refuse_text(INPUT_CSV, "a,b\n1,2\n1", with, "line 3 has 1 cells, the header line has 2");
    refuse_text(INPUT_CSV, "a,b\n1,\"2\n\n", with, "line 2: a quote is opened and never closed");
    refuse_text(INPUT_CSV, "a,b\n1,\"2\"3\n", with, "a closing quote is followed");
    refuse_text(INPUT_CSV, "key,b\n,3\n", with, "line 2: the key is empty");
    refuse_text(INPUT_CSV, "a,vector\n1,\"[1,x]\"\n", with, "line 2: vector is not valid JSON");
    refuse_text(INPUT_CSV, "a,b\n1,\xff\n", with, "column \"b\" is not valid UTF-8");
    refuse_text(INPUT_CSV, "a\n1\n", (struct record_settings){.key = "id"}, "no column \"id\"");
    refuse_text(INPUT_CSV, "a\n1\n", (struct record_settings){.text = "body"}, "no column \"body\"");
}

/* ---------------------------------------------------------------- values */

TEST(floats_are_printed_so_that_they_read_back_the_same)
{
    char text[NUMBER_TEXT];
    uint64_t state = test_seed() | 1;
    for (int i = 0; i < 200000; i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        uint32_t bits = (uint32_t)(state >> 32);
        float value;
        memcpy(&value, &bits, sizeof value);
        if (!isfinite(value))
            continue;
        format_float(value, text);
        if ((float)strtod(text, NULL) != value)
            FAIL("%a printed as %s", (double)value, text);
    }
    CHECK_STRING(format_float(0.1f, text), "0.1");
    CHECK_STRING(format_double(0.1, text), "0.1");
}

TEST(every_half_becomes_its_float)
{
    for (uint32_t bits = 0; bits < 65536; bits++) {
        uint32_t exponent = bits >> 10 & 31, fraction = bits & 1023;
        double expected = exponent ? ldexp(1024 + fraction, (int)exponent - 25) : ldexp(fraction, -24);
        if (exponent == 31)
            expected = fraction ? NAN : INFINITY;
        if (bits & 0x8000)
            expected = -expected;
        float value = float_of_f16((uint16_t)bits);
        if (isnan(expected) ? !isnan(value) : value != expected || !signbit(value) != !signbit(expected))
            FAIL("%#x gives %a, not %a", bits, (double)value, expected);
    }
}

TEST(a_key_of_digits_is_an_integer_unless_it_could_not_be_printed_back)
{
    static const char *const texts[] = {"", "-", "-0", "007", "1.0", "9223372036854775808", "+1", " 1", "5x"};
    static const struct {
        const char *text;
        int64_t integer;
    } integers[] = {{"0", 0}, {"-5", -5}, {"9223372036854775807", INT64_MAX}, {"-9223372036854775808", INT64_MIN}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        CHECK(parse_key(texts[i], false).text != NULL);
    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++) {
        CHECK(!parse_key(integers[i].text, false).text);
        CHECK_INT(parse_key(integers[i].text, false).integer, integers[i].integer);
        CHECK_STRING(parse_key(integers[i].text, true).text, integers[i].text);
    }
}

TEST(sizes_take_suffixes_and_refuse_what_does_not_fit)
{
    uint64_t n;
    CHECK(parse_bytes("64M", &n) && n == UINT64_C(64) << 20);
    CHECK(parse_bytes("1g", &n) && n == UINT64_C(1) << 30);
    CHECK(parse_bytes("512KiB", &n) && n == 512 << 10);
    CHECK(parse_bytes("123", &n) && n == 123);
    CHECK(!parse_bytes("", &n) && !parse_bytes("M", &n) && !parse_bytes("1X", &n) && !parse_bytes("-1", &n));
    CHECK(!parse_bytes("1.5G", &n) && !parse_bytes("99999999999999999999", &n) && !parse_bytes("18000000T", &n));
    char text[32];
    CHECK_STRING(format_count(0, text), "0");
    CHECK_STRING(format_count(1000000, text), "1,000,000");
    CHECK_STRING(format_count(UINT64_MAX, text), "18,446,744,073,709,551,615");
}
