/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/input_help.h - what the tests of bad input share: a small database, and REFUSED
 */
#ifndef VDB_TESTS_INPUT_HELP_H
#define VDB_TESTS_INPUT_HELP_H

#include <stdlib.h>

#include "harness.h"

/* A database with a collection of every element type, and three records in it. */
struct fixture {
    vecdb *db;
    vecdb_collection *things;
    uint64_t digest;
};

static const vecdb_field fields[] = {{.name = "f32", .dimension = 4, .metric = VECDB_COSINE},
                                     {.name = "f16", .dimension = 2, .type = VECDB_F16, .metric = VECDB_COSINE},
                                     {.name = "bf16", .dimension = 2, .type = VECDB_BF16, .metric = VECDB_IP},
                                     {.name = "i8", .dimension = 2, .type = VECDB_I8, .metric = VECDB_L2},
                                     {.name = "u8", .dimension = 2, .type = VECDB_U8, .metric = VECDB_L2},
                                     {.name = "bits", .dimension = 10, .type = VECDB_BIT}};
static const float one[4] = {1, 2, 3, 4};

static void mix(uint64_t *digest, const void *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        *digest = (*digest ^ ((const unsigned char *)bytes)[i]) * 1099511628211u; /* FNV-1a */
}

static int mix_info(void *context, const vecdb_collection_info *info)
{
    mix(context, info->name, strlen(info->name));
    mix(context, &info->n_records, sizeof info->n_records);
    for (size_t f = 0; f < info->n_fields; f++) {
        mix(context, info->fields[f].field.name, strlen(info->fields[f].field.name));
        mix(context, &info->fields[f].n_vectors, sizeof info->fields[f].n_vectors);
    }
    return 0;
}

/* A number that changes with anything that is stored. */
static uint64_t digest_of(const struct fixture *fixture)
{
    uint64_t digest = 14695981039346656037u;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_scan_options options = {.size = sizeof options, .columns = VECDB_METADATA | VECDB_TEXT | VECDB_VECTORS};
    vecdb_stats stats = {.size = sizeof stats};
    vecdb_scan *scan;
    vecdb_results *results;
    CHECK_OK(err, vecdb_database_stats(fixture->db, &stats, &err));
    mix(&digest, &stats.sequence, sizeof stats.sequence);
    CHECK_OK(err, vecdb_collections(fixture->db, mix_info, &digest, &err));
    CHECK_OK(err, vecdb_scan_open(fixture->things, &options, &scan, &err));
    CHECK_OK(err, vecdb_scan_next(scan, &results, &err));
    for (size_t i = 0; i < vecdb_results_count(results); i++) {
        const char *key = vecdb_result_key_text(results, i), *text = vecdb_result_text(results, i);
        const char *metadata = vecdb_result_metadata(results, i, NULL);
        mix(&digest, key, strlen(key));
        mix(&digest, text ? text : "-", text ? strlen(text) : 1);
        mix(&digest, metadata ? metadata : "-", metadata ? strlen(metadata) : 1);
    }
    vecdb_results_free(results);
    vecdb_scan_close(scan);
    return digest;
}

__attribute__((unused)) static struct fixture open_fixture(const char *path)
{
    struct fixture fixture;
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, vecdb_open(path, NULL, &fixture.db, &err));
    CHECK_OK(err, vecdb_collection_create(fixture.db, "things", fields, sizeof fields / sizeof *fields,
                                          VECDB_IF_MISSING, &fixture.things, &err));
    vecdb_record records[] = {
        {.key = VECDB_KEY_INT(1), .vector = one, .metadata = "{\"a\":1}", .text = "first"},
        {.key = VECDB_KEY_INT(2), .vector = one},
        {.key = VECDB_KEY_TEXT("three"), .vector = one, .text = "third"},
    };
    CHECK_OK(err, vecdb_put(fixture.things, records, 3, &err));
    fixture.digest = digest_of(&fixture);
    return fixture;
}

/* The call fails, says so in one sentence that contains `part`, and changes nothing. */
#define REFUSED(fixture, expected, part, call)                                                                         \
    do {                                                                                                               \
        CHECK_FAILS(err, expected, part, call);                                                                        \
        CHECK_INT(err.status, expected);                                                                               \
        CHECK(!strchr(err.message, '\n') && strlen(err.message) > 10);                                                 \
        CHECK(digest_of(&fixture) == (fixture).digest);                                                                \
    } while (0)

/* The same where there is no database yet, or a damaged one. */
#define NOT_OPENED(expected, part, call)                                                                               \
    do {                                                                                                               \
        vecdb *before = db;                                                                                            \
        CHECK_FAILS(err, expected, part, call);                                                                        \
        CHECK_INT(err.status, expected);                                                                               \
        CHECK(!strchr(err.message, '\n') && strlen(err.message) > 10);                                                 \
        CHECK(db == before);                                                                                           \
    } while (0)

static inline char *repeated(char byte, size_t n)
{
    char *text = malloc(n + 1);
    CHECK(text);
    memset(text, byte, n);
    text[n] = '\0';
    return text;
}

#endif
