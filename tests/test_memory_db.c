/* SPDX-License-Identifier: Apache-2.0
 *
 * ":memory:" is a whole database that leaves no trace: every handle has its own, nothing is written to
 * a file system, what is dropped is given back, and closing gives back the rest. (That its answers are
 * right is tested with the model, test_model.c.)
 */
#include <dirent.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "harness.h"

#define DIMENSION 64
#define ROWS 4000 /* 1 MiB: goes into a file, straight away */

static _Atomic long n_blocks;

static void *take(void *context, size_t size)
{
    (void)context;
    atomic_fetch_add(&n_blocks, 1);
    return malloc(size);
}

static void *take_other(void *context, void *memory, size_t size)
{
    (void)context;
    if (!memory)
        atomic_fetch_add(&n_blocks, 1);
    return realloc(memory, size);
}

static void give_back(void *context, void *memory)
{
    (void)context;
    if (memory)
        atomic_fetch_sub(&n_blocks, 1);
    free(memory);
}

static vecdb *open_counted(void)
{
    vecdb *db;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_options options = {
        .size = sizeof options, .mode = VECDB_OPEN_NEW, .allocator = {take, take_other, give_back, NULL}};
    CHECK_OK(err, vecdb_open(":memory:", &options, &db, &err));
    return db;
}

static vecdb_collection *fill(vecdb *db, const char *name)
{
    static float values[ROWS * DIMENSION];
    static int64_t keys[ROWS];
    vecdb_collection *collection;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_field field = {.name = "v", .dimension = DIMENSION, .metric = VECDB_L2};
    CHECK_OK(err, vecdb_collection_create(db, name, &field, 1, 0, &collection, &err));
    for (int i = 0; i < ROWS; i++) {
        keys[i] = i;
        values[i * DIMENSION] = (float)i;
    }
    vecdb_vector_column column = {.values = values};
    vecdb_batch batch = {
        .size = sizeof batch, .n_rows = ROWS, .integer_keys = keys, .vectors = &column, .n_vectors = 1};
    CHECK_OK(err, vecdb_write(collection, &batch, &err));
    return collection;
}

static void check_nearest(vecdb_collection *collection, float x)
{
    float vector[DIMENSION] = {x};
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_query query = {.size = sizeof query, .vector = vector, .k = 1};
    vecdb_results *results;
    CHECK_OK(err, vecdb_search(collection, &query, &results, &err));
    CHECK_SIZE(vecdb_results_count(results), 1);
    CHECK_INT(vecdb_result_key(results, 0).integer, (int64_t)x);
    vecdb_results_free(results);
}

static vecdb_stats stats_of(vecdb *db)
{
    vecdb_stats stats = {.size = sizeof stats};
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, vecdb_database_stats(db, &stats, &err));
    return stats;
}

TEST(every_handle_has_a_database_of_its_own)
{
    vecdb *first = open_counted(), *second = open_counted();
    vecdb_collection *collection;
    vecdb_error err = VECDB_ERROR_INIT;
    check_nearest(fill(first, "c"), 77);
    CHECK_SIZE(stats_of(second).n_collections, 0);
    CHECK_FAILS(err, VECDB_NOT_FOUND, "no collection", vecdb_collection_open(second, "c", &collection, &err));
    check_nearest(fill(second, "c"), 78);
    vecdb_close(first);
    CHECK_OK(err, vecdb_collection_open(second, "c", &collection, &err));
    check_nearest(collection, 79);
    vecdb_close(second);
}

TEST(nothing_is_written_to_the_working_directory_and_closing_frees_everything)
{
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK(!chdir(test_directory()));
    long before = atomic_load(&n_blocks);
    vecdb *db = open_counted();
    check_nearest(fill(db, "c"), 5);
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    CHECK(stats_of(db).vector_bytes > 0);
    vecdb_close(db);
    CHECK_INT(atomic_load(&n_blocks), before);
    DIR *directory = opendir(".");
    CHECK(directory);
    for (struct dirent *entry; (entry = readdir(directory));)
        CHECK(entry->d_name[0] == '.');
    closedir(directory);
}

TEST(what_is_dropped_or_replaced_is_given_back)
{
    vecdb *db = open_counted();
    vecdb_error err = VECDB_ERROR_INIT;
    fill(db, "kept");
    uint64_t bytes = stats_of(db).vector_bytes;
    for (int i = 0; i < 5; i++) {
        check_nearest(fill(db, "dropped"), 9);
        CHECK(stats_of(db).vector_bytes > bytes);
        CHECK_OK(err, vecdb_collection_drop(db, "dropped", &err));
        CHECK_SIZE(stats_of(db).vector_bytes, bytes);
    }
    vecdb_collection *collection;
    vecdb_key keys[ROWS];
    CHECK_OK(err, vecdb_collection_open(db, "kept", &collection, &err));
    for (int i = 0; i < ROWS; i++)
        keys[i] = vecdb_key_int(i);
    CHECK_OK(err, vecdb_delete(collection, keys, ROWS - 10, NULL, &err));
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    CHECK(stats_of(db).vector_bytes < bytes / 10);
    check_nearest(collection, ROWS - 5);
    vecdb_close(db);
}
