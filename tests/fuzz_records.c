/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzz target: names, keys, metadata, texts and vectors of hostile bytes are refused in a sentence or come back as
 * they were; no name leaves the database's directory, and none becomes part of SQL.
 *
 * Input: operations. Each is a byte that chooses it, and pieces {length u8, bytes}. The database is in memory; one in
 * 16 is a directory, next to which a file lies that must stay as it is.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hostile.h"
#include "vecdb.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MOST_OPERATIONS 24

static void must(bool condition)
{
    if (!condition)
        abort();
}

/* Allowed failures are those that an argument can bring about. */
static bool went_well(int status, vecdb_error *err)
{
    if (status)
        must(err->message[0] && (status == VECDB_INVALID || status == VECDB_EXISTS || status == VECDB_NOT_FOUND ||
                                 status == VECDB_NOMEM || status == VECDB_UNSUPPORTED || status == VECDB_READONLY));
    memset(err, 0, sizeof *err);
    return !status;
}

/* A piece of the input as a string of its own, so that the sanitizer sees a byte too many. */
static char *take_text(struct hostile_input *input, size_t *n)
{
    const uint8_t *at = hostile_take(input, hostile_take_u8(input), n);
    char *text = malloc(*n + 1);
    must(text != NULL);
    if (*n)
        memcpy(text, at, *n);
    text[*n] = 0;
    return text;
}

static void put(vecdb_collection *collection, struct hostile_input *input, bool insert)
{
    vecdb_error err = VECDB_ERROR_INIT;
    size_t n_key, n_metadata, n_text, n_values;
    char *key = take_text(input, &n_key), *metadata = take_text(input, &n_metadata), *text = take_text(input, &n_text);
    const uint8_t *values = hostile_take(input, 12, &n_values);
    float vector[3] = {1, 2, 3};
    if (n_values)
        memcpy(vector, values, n_values);
    vecdb_record record = {.key = {n_key % 5 ? key : NULL, n_key, (int64_t)n_key},
                           .vector = n_values % 3 ? NULL : vector,
                           .metadata = n_metadata ? metadata : NULL,
                           .metadata_length = n_metadata,
                           .text = n_text % 7 ? text : NULL,
                           .text_length = n_text};
    vecdb_results *results;
    int status = insert ? vecdb_insert(collection, &record, 1, &err) : vecdb_put(collection, &record, 1, &err);
    bool stored = went_well(status, &err);
    int columns = VECDB_METADATA | VECDB_TEXT | VECDB_VECTORS;
    if (stored && went_well(vecdb_get(collection, &record.key, 1, columns, &results, &err), &err)) {
        size_t n_bytes = 0;
        vecdb_key back = vecdb_result_key(results, 0);
        must(vecdb_result_found(results, 0));
        must(record.key.text ? back.length == n_key && !memcmp(back.text, key, n_key)
                             : !back.text && back.integer == record.key.integer);
        const char *found = vecdb_result_metadata(results, 0, &n_bytes);
        must(record.metadata ? found && n_bytes == n_metadata && !memcmp(found, metadata, n_bytes) : !found);
        found = vecdb_result_text(results, 0);
        must(record.text ? found && vecdb_result_text_length(results, 0) == n_text && !memcmp(found, text, n_text)
                         : !found);
        const float *came = vecdb_result_vector(results, 0, NULL, NULL, NULL);
        must(!record.vector || !came || !memcmp(came, vector, sizeof vector));
        vecdb_results_free(results);
    }
    free(key), free(metadata), free(text);
}

static void look(vecdb_collection *collection, struct hostile_input *input)
{
    vecdb_error err = VECDB_ERROR_INIT;
    size_t n_name, n_key;
    char *name = take_text(input, &n_name), *key = take_text(input, &n_key);
    float vector[3] = {0, 1, (float)hostile_take_u8(input)};
    vecdb_query query = {.size = sizeof query, .field = n_name ? name : NULL, .vector = vector, .k = 3};
    vecdb_key after = {key, n_key, 0};
    vecdb_scan_options options = {.size = sizeof options, .after = &after};
    vecdb_results *results;
    vecdb_scan *scan;
    if (went_well(vecdb_search(collection, &query, &results, &err), &err))
        vecdb_results_free(results);
    if (went_well(vecdb_scan_open(collection, &options, &scan, &err), &err)) {
        if (went_well(vecdb_scan_next(scan, &results, &err), &err))
            vecdb_results_free(results);
        vecdb_scan_close(scan);
    }
    went_well(vecdb_delete(collection, &after, 1, NULL, &err), &err);
    free(name), free(key);
}

static void change_names(vecdb *db, vecdb_collection *collection, struct hostile_input *input, unsigned which)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *made;
    size_t n_first, n_second;
    char *first = take_text(input, &n_first), *second = take_text(input, &n_second);
    vecdb_field field = {.name = second,
                         .dimension = hostile_take_u8(input) % 9u,
                         .type = hostile_take_u8(input) % 8,
                         .metric = hostile_take_u8(input) % 6};
    switch (which % 8) {
    case 0:
        if (went_well(vecdb_collection_create(db, first, &field, 1, VECDB_IF_MISSING, &made, &err), &err))
            must(!vecdb_collection_open(db, first, &made, NULL));
        break;
    case 1:
        went_well(vecdb_collection_rename(db, first, second, &err), &err);
        break;
    case 2:
        went_well(vecdb_collection_drop(db, strcmp(first, "c") ? first : second, &err), &err);
        break;
    case 3:
        went_well(vecdb_field_add(collection, &field, &err), &err);
        break;
    case 4:
        went_well(vecdb_field_rename(collection, first, second, &err), &err);
        break;
    case 5:
        went_well(vecdb_field_drop(collection, first, &err), &err);
        break;
    case 6:
        went_well(vecdb_snapshot_create(db, first, &err), &err);
        break;
    default:
        went_well(vecdb_snapshot_drop(db, first, &err), &err);
        break;
    }
    free(first), free(second);
}

static void use(vecdb *db, struct hostile_input *input)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_field field = {.name = "v", .dimension = 3, .metric = VECDB_L2};
    vecdb_collection *collection;
    uint64_t n_problems = 0;
    must(!vecdb_collection_create(db, "c", &field, 1, VECDB_IF_MISSING, &collection, NULL));
    for (unsigned i = 0; i < MOST_OPERATIONS && input->n; i++) {
        unsigned which = hostile_take_u8(input);
        if (which % 4 < 2)
            put(collection, input, which % 4);
        else if (which % 4 == 2)
            look(collection, input);
        else
            change_names(db, collection, input, which / 4);
    }
    must(!vecdb_check(db, NULL, NULL, NULL, &n_problems, &err) && !n_problems);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > 4000)
        return 0;
    struct hostile_input input = {data, size};
    bool on_disk = hostile_take_u8(&input) % 16 == 0;
    static uint8_t byte = 42;
    static const struct hostile_image beside = {.n = 1, .files = {{"beside", &byte, 1}}};
    char path[300] = ":memory:", other[300];
    vecdb_options options = {.size = sizeof options,
                             .threads = VECDB_THREADS_NONE,
                             .durability = VECDB_DURABILITY_NORMAL};
    vecdb *db;
    if (on_disk) {
        hostile_store(&beside, hostile_directory());
        snprintf(path, sizeof path, "%s/inside", hostile_directory());
    }
    must(!vecdb_open(path, &options, &db, NULL));
    use(db, &input);
    vecdb_close(db);
    if (on_disk) {
        struct stat status;
        snprintf(other, sizeof other, "%s/beside", hostile_directory());
        must(!stat(other, &status) && status.st_size == 1);
        must(hostile_count(hostile_directory()) == 2);
    }
    return 0;
}
