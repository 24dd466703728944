/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/golden.c - databases with every feature (see golden.h): how they are made
 *
 *   everything   closed in order: fields of all types and compressions (pages raw, narrow, in planes), records without
 *                some vectors, metadata and texts, all kinds of keys, extents that grew, a tail, dead slots, a field
 *                that was added and one that was dropped, a collection that was renamed, one that is empty, one that
 *                has no field, one of a second store, and two snapshots, of which one has what was deleted since.
 *   killed       its last commits are in the WAL only, of a process that ended without closing.
 */
#include "golden.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define N_RECORDS 48

static void must(int status, const vecdb_error *err, const char *what)
{
    if (!status)
        return;
    fprintf(stderr, "golden: %s: %s: %s\n", what, vecdb_status_name(status), err->message);
    exit(1);
}
#define MUST(call) must(call, &err, #call)

/* The fields of collection "types". */
static const vecdb_field FIELDS[] = {
    {.name = "f32 raw", .dimension = 7, .metric = VECDB_L2, .compression = VECDB_COMPRESSION_NONE},
    {.name = "f32 narrow", .dimension = 6, .metric = VECDB_L2},
    {.name = "f32 planes", .dimension = 24, .compression = VECDB_COMPRESSION_MAX},
    {.name = "f16", .dimension = 5, .type = VECDB_F16, .metric = VECDB_COSINE, .compression = VECDB_COMPRESSION_MAX},
    {.name = "bf16", .dimension = 3, .type = VECDB_BF16, .metric = VECDB_IP},
    {.name = "i8", .dimension = 8, .type = VECDB_I8, .metric = VECDB_L2, .compression = VECDB_COMPRESSION_MAX},
    {.name = "u8", .dimension = 9, .type = VECDB_U8, .metric = VECDB_IP, .compression = VECDB_COMPRESSION_MAX},
    {.name = "bits/of a name, \"quoted\" é", .dimension = 20, .type = VECDB_BIT, .metric = VECDB_HAMMING},
};
#define N_FIELDS (sizeof FIELDS / sizeof FIELDS[0])
#define MOST_DIMENSION 24

/* Value j of record i's vector in field f: of the form that the field's name says. `version`: of the record. */
static float value_of(size_t f, int i, int version, int j)
{
    int mixed = (i * 31 + j * 17 + version * 7 + (int)f * 5) % 101;
    switch (f) {
    case 1: /* whole numbers: stored as bytes */
        return (float)(mixed * 2);
    case 4:
        return (float)(mixed - 50) / 4; /* exact in bf16 */
    case 5:
        return (float)(mixed - 50);
    case 6:
        return (float)mixed;
    default:
        return 1.0f / (float)(mixed + 3) + (j == 0 ? 0.5f : 0.0f);
    }
}

static void fill_bits(uint8_t bits[3], int i, int version)
{
    for (int byte = 0; byte < 3; byte++)
        bits[byte] = (uint8_t)((i * 7 + byte * 13 + version) * 11 % 256);
    bits[2] &= 0x0f;
}

static vecdb_key key_of(int i, char text[40])
{
    static const int64_t edges[] = {INT64_MIN, -1, 0, INT64_MAX};
    if (i % 3 == 0)
        return vecdb_key_int(i < 12 ? edges[i / 3] : i);
    snprintf(text, 40, i % 3 == 1 ? "key %d" : "%d", i);
    if (i == 1)
        strcpy(text, "schlüssel, 鍵\n\"\\");
    return vecdb_key_text(text);
}

static void put_one(vecdb_collection *collection, int i, int version)
{
    vecdb_error err = VECDB_ERROR_INIT;
    float values[N_FIELDS][MOST_DIMENSION];
    uint8_t bits[3];
    vecdb_vector vectors[N_FIELDS];
    char key[40], metadata[120], text[120];
    size_t n = 0;
    for (size_t f = 0; f < N_FIELDS; f++) {
        for (uint32_t j = 0; j < FIELDS[f].dimension; j++)
            values[f][j] = value_of(f, i, version, (int)j);
        if ((i + (int)f) % 9 == 8)
            continue; /* has no vector in this field */
        bool is_bits = FIELDS[f].type == VECDB_BIT;
        vectors[n++] = (vecdb_vector){.field = FIELDS[f].name,
                                      .values = is_bits ? (const void *)bits : values[f],
                                      .dimension = FIELDS[f].dimension,
                                      .type = is_bits ? VECDB_BIT : VECDB_F32};
    }
    fill_bits(bits, i, version);
    snprintf(metadata, sizeof metadata,
             "{\"i\": %d, \"version\": %d, \"tags\": [null, true, \"ß\", 1.5e3]}", i, version);
    snprintf(text, sizeof text, "record %d in its version %d\nline two; Привет", i, version);
    vecdb_record record = {.key = key_of(i, key),
                           .vectors = vectors,
                           .n_vectors = n,
                           .metadata = i % 4 ? metadata : i % 8 ? "{}" : NULL,
                           .text = i % 5 ? text : i % 10 ? "" : NULL};
    MUST(vecdb_put(collection, &record, 1, &err));
}

static vecdb *open_new(const char *directory)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_options options = {.size = sizeof options, .mode = VECDB_OPEN_NEW, .threads = VECDB_THREADS_NONE};
    vecdb *db = NULL;
    MUST(vecdb_open(directory, &options, &db, &err));
    return db;
}

/* Records 0 .. N_RECORDS - 1 in two extents' worth of writes, some replaced, some deleted, some in the tail. */
static void fill_types(vecdb *db)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *types;
    char text[2][40];
    MUST(vecdb_collection_create(db, "types", FIELDS, N_FIELDS, VECDB_MUST_BE_NEW, &types, &err));
    vecdb_field extra = {.name = "dropped", .dimension = 2}, late = {.name = "late", .dimension = 2};
    MUST(vecdb_field_add(types, &extra, &err));
    for (int i = 0; i < N_RECORDS / 2; i++)
        put_one(types, i, 1);
    MUST(vecdb_compact(db, NULL, &err));
    for (int i = N_RECORDS / 3; i < N_RECORDS - 8; i++)
        put_one(types, i, 2);
    MUST(vecdb_compact(db, NULL, &err));
    MUST(vecdb_snapshot_create(db, "before the rest", &err));
    vecdb_key keys[] = {key_of(5, text[0]), key_of(18, text[1]), VECDB_KEY_TEXT("is not there")};
    MUST(vecdb_delete(types, keys, 3, NULL, &err));
    for (int i = N_RECORDS - 12; i < N_RECORDS; i++)
        put_one(types, i, 3);
    put_one(types, 2, 3);
    MUST(vecdb_field_drop(types, "dropped", &err));
    MUST(vecdb_field_add(types, &late, &err));
    vecdb_record with_late = {.key = {.text = "late"},
                              .vectors = &(vecdb_vector){.field = "late", .values = (float[]){0.25f, -3}},
                              .n_vectors = 1};
    MUST(vecdb_put(types, &with_late, 1, &err));
}

/* 1,500 versions of 30 records: compaction gives them a new store, with slots from 0 on. */
static void fill_renumbered(vecdb *db)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *collection;
    vecdb_field field = {.name = "v", .dimension = 4, .metric = VECDB_L2};
    MUST(vecdb_collection_create(db, "renumbered", &field, 1, VECDB_MUST_BE_NEW, &collection, &err));
    for (int round = 0; round < 50; round++) {
        float values[30][4];
        int64_t keys[30];
        for (int i = 0; i < 30; i++) {
            keys[i] = 1000 - i;
            for (int j = 0; j < 4; j++)
                values[i][j] = (float)(round * j + i) / 8;
        }
        vecdb_vector_column column = {.values = values};
        vecdb_batch batch = {.size = sizeof batch, .n_rows = 30, .integer_keys = keys, .vectors = &column};
        batch.n_vectors = 1;
        MUST(vecdb_write(collection, &batch, &err));
    }
}

static void make_everything(const char *directory)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = open_new(directory);
    vecdb_collection *plain;
    vecdb_field field = {.name = "v", .dimension = 1, .metric = VECDB_IP};
    MUST(vecdb_collection_create(db, "former/../name", NULL, 0, VECDB_MUST_BE_NEW, &plain, &err));
    vecdb_record document = {.key = {.integer = 1}, .metadata = "{\"only\": \"metadata\"}", .text = "and a text"};
    MUST(vecdb_put(plain, &document, 1, &err));
    MUST(vecdb_collection_rename(db, "former/../name", "no fields", &err));
    MUST(vecdb_collection_create(db, "empty", &field, 1, VECDB_MUST_BE_NEW, NULL, &err));
    MUST(vecdb_collection_create(db, "gone", &field, 1, VECDB_MUST_BE_NEW, NULL, &err));
    MUST(vecdb_collection_drop(db, "gone", &err));
    fill_renumbered(db);
    fill_types(db);
    MUST(vecdb_snapshot_create(db, "the end, é", &err));
    vecdb_close(db);
}

/* What a process leaves that ends in the middle of its work. */
static void make_killed(const char *directory)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        vecdb_error err = VECDB_ERROR_INIT;
        vecdb *db = open_new(directory);
        vecdb_collection *collection;
        MUST(vecdb_collection_create(db, "types", FIELDS, N_FIELDS, VECDB_MUST_BE_NEW, &collection, &err));
        for (int i = 0; i < 12; i++)
            put_one(collection, i, 1);
        MUST(vecdb_compact(db, NULL, &err));
        for (int i = 8; i < 16; i++)
            put_one(collection, i, 2);
        _exit(0);
    }
    int status = -1;
    if (child < 0 || waitpid(child, &status, 0) != child || status) {
        fprintf(stderr, "golden: the process that is to be killed failed\n");
        exit(1);
    }
}

const struct golden_database golden_databases[] = {
    {"everything", make_everything}, {"killed", make_killed}, {NULL, NULL}};
