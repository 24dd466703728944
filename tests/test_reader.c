/* SPDX-License-Identifier: Apache-2.0
 *
 * Property: a reader that was written from storage/FORMAT.md alone (tests/reader.py) finds in a database
 * what was put into it: for every type and compression, from pages and from the tail.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/numbers.h"
#include "base/random.h"
#include "harness.h"

#define DIMENSION 19
#define N_RECORDS 400

static vecdb_error err;

/* Value j of record i of a field: numbers that every type holds, and narrow pages where they can be. */
static float value_of(int type, int compression, int i, int j)
{
    struct vdb_random random = {test_seed() + (uint64_t)(type * 7919 + compression * 104729 + i * 64 + j)};
    uint64_t number = vdb_random_next(&random) >> 20;
    if (type == VECDB_BIT)
        return (float)(number % 2);
    if (type <= VECDB_BF16 && compression != VECDB_COMPRESSION_AUTO)
        return (float)(number % 255 + 1) / 256 * (type == VECDB_F32 ? 1.1f : 1);
    return (float)(number % 100);
}

static void store(int type, float value, int j, unsigned char *row)
{
    uint16_t half = type == VECDB_F16 ? vdb_f16_of_float(value) : vdb_bf16_of_float(value);
    if (type == VECDB_F32)
        memcpy(row + 4 * j, &value, 4);
    else if (type == VECDB_F16 || type == VECDB_BF16)
        memcpy(row + 2 * j, &half, 2);
    else if (type == VECDB_BIT)
        row[j / 8] |= (unsigned char)((int)value << j % 8);
    else
        row[j] = (unsigned char)value;
}

static void put(vecdb_collection *collection, int type, int compression, int from, int to)
{
    static unsigned char rows[N_RECORDS][4 * DIMENSION];
    static vecdb_record records[N_RECORDS];
    memset(rows, 0, sizeof rows);
    memset(records, 0, sizeof records);
    for (int i = from; i < to; i++) {
        for (int j = 0; j < DIMENSION; j++)
            store(type, value_of(type, compression, i, j), j, rows[i]);
        records[i].key = vecdb_key_int(i);
        records[i].vector = rows[i];
        records[i].dimension = DIMENSION;
    }
    CHECK_OK(err, vecdb_put(collection, records + from, (size_t)(to - from), &err));
}

static void name_of(int type, int compression, char name[32])
{
    snprintf(name, 32, "%s-%d", vdb_type_name(type), compression);
}

static void make_database(const char *path)
{
    vecdb *db;
    CHECK_OK(err, vecdb_open(path, NULL, &db, &err));
    for (int half = 0; half < 2; half++) {
        for (int type = VECDB_F32; type <= VECDB_BIT; type++)
            for (int compression = VECDB_COMPRESSION_AUTO; compression <= VECDB_COMPRESSION_MAX; compression++) {
                char name[32];
                vecdb_field field = {.name = "vector",
                                     .dimension = DIMENSION,
                                     .type = type,
                                     .metric = type == VECDB_BIT ? VECDB_HAMMING : VECDB_L2,
                                     .compression = compression};
                vecdb_collection *collection;
                name_of(type, compression, name);
                CHECK_OK(err, vecdb_collection_create(db, name, &field, 1, VECDB_IF_MISSING, &collection, &err));
                put(collection, type, compression, half * N_RECORDS / 2, (half + 1) * N_RECORDS / 2);
            }
        if (half == 0) /* the first half into pages, the second stays in the tail */
            CHECK_OK(err, vecdb_compact(db, NULL, &err));
    }
    vecdb_close(db);
}

/* A line of the reader against what was put; false when it is of another form. */
static bool check_line(const char *line, int type, int compression, int i)
{
    char name[32], begin[128];
    name_of(type, compression, name);
    int n = snprintf(begin, sizeof begin, "{\"collection\": \"%s\", \"key\": %d, \"vectors\": {\"vector\": [", name, i);
    if (strncmp(line, begin, (size_t)n))
        return false;
    char *at = (char *)(uintptr_t)line + n;
    for (int j = 0; j < DIMENSION; j++) {
        float value = strtof(at, &at), want = value_of(type, compression, i, j);
        if (type == VECDB_F16)
            want = vdb_float_of_f16(vdb_f16_of_float(want));
        if (type == VECDB_BF16)
            want = vdb_float_of_bf16(vdb_bf16_of_float(want));
        if (value != want)
            FAIL("%s, record %d, value %d: %.9g, expected %.9g", name, i, j, (double)value, (double)want);
        at += *at == ',';
    }
    return !strncmp(at, "]}}", 3);
}

static bool have_reader(void)
{
    return !access("tests/reader.py", R_OK) && !system("python3 -c 'import ctypes, sqlite3' 2>/dev/null");
}

TEST(the_second_reader_finds_what_was_put)
{
    char command[1024], line[4096];
    if (!have_reader())
        SKIP("python3 or tests/reader.py is not here (run from the repository)");
    make_database(test_path("db"));
    snprintf(command, sizeof command, "python3 tests/reader.py '%s'", test_path("db"));
    FILE *reader = popen(command, "r");
    CHECK(reader != NULL);
    /* Collections come by name. */
    static const int types[] = {VECDB_BF16, VECDB_BIT, VECDB_F16, VECDB_F32, VECDB_I8, VECDB_U8};
    for (int t = 0; t < 6; t++)
        for (int compression = 0; compression <= VECDB_COMPRESSION_MAX; compression++)
            for (int i = 0; i < N_RECORDS; i++) {
                CHECK(fgets(line, sizeof line, reader) != NULL);
                if (!check_line(line, types[t], compression, i))
                    FAIL("record %d of type %d, compression %d: %.200s", i, types[t], compression, line);
            }
    CHECK(fgets(line, sizeof line, reader) == NULL);
    CHECK_INT(pclose(reader), 0);
}

TEST(the_second_reader_sees_a_flipped_bit_of_a_vector_file)
{
    char command[1024];
    if (!have_reader())
        SKIP("python3 or tests/reader.py is not here (run from the repository)");
    make_database(test_path("db"));
    FILE *file = fopen(test_path("db/vectors-1-1"), "r+b");
    CHECK(file != NULL);
    CHECK_INT(fseek(file, 64 + 200, SEEK_SET), 0);
    int byte = fgetc(file);
    CHECK_INT(fseek(file, 64 + 200, SEEK_SET), 0);
    CHECK_INT(fputc(byte ^ 4, file), byte ^ 4);
    CHECK_INT(fclose(file), 0);
    snprintf(command, sizeof command, "python3 tests/reader.py '%s' >/dev/null 2>&1", test_path("db"));
    int status = system(command);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 3);
}
