/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/test_structs.c - callers' structs of another version of the header
 *
 * The property: a struct that begins with its size is taken from the size of its first version on, and of any
 * larger one as far as it is known; a smaller or an absurd size is MISUSE, and nothing behind the size that is
 * told is read or written.
 */
#include "fault_tools.h"
#include "lib/database.h"

#define N_SIZES 5
#define AFTER 64 /* bytes that a newer header would have */

/* Below the first version, the first, ours, a newer one, absurd. */
static size_t size_of(int i, size_t first, size_t now)
{
    const size_t sizes[N_SIZES] = {first - 1, first, now, now + AFTER, 1 << 20};
    return sizes[i];
}

#define CHECK_SIZES(type, last, value, call)                                                                           \
    for (int i = 0; i < N_SIZES; i++) {                                                                                \
        struct {                                                                                                       \
            type given;                                                                                                \
            unsigned char after[AFTER];                                                                                \
        } newer;                                                                                                       \
        memset(&newer, 0xa5, sizeof newer);                                                                            \
        newer.given = (type)value;                                                                                     \
        newer.given.size = size_of(i, VDB_STRUCT_BYTES(type, last), sizeof(type));                                     \
        if (i == 0 || i == N_SIZES - 1)                                                                                \
            CHECK_FAILS(err, VECDB_MISUSE, #type, call);                                                               \
        else                                                                                                           \
            CHECK_OK(err, call);                                                                                       \
    }

TEST(structs_of_older_and_newer_headers_are_taken)
{
    vecdb_error err = VECDB_ERROR_INIT;
    char copies[N_SIZES][300];
    vecdb *db = open_database(test_path("db"), VECDB_OPEN_CREATE, VECDB_THREADS_NONE);
    vecdb_field field = {.name = "v", .dimension = 2, .metric = VECDB_L2};
    vecdb_collection *c;
    CHECK_OK(err, vecdb_collection_create(db, "c", &field, 1, VECDB_MUST_BE_NEW, &c, &err));
    float values[2] = {1, 2};
    int64_t key = 7;
    vecdb_vector_column column = {.field = "v", .values = values};
    CHECK_SIZES(vecdb_batch, insert,
                ((vecdb_batch){.n_rows = 1, .integer_keys = &key, .vectors = &column, .n_vectors = 1}),
                vecdb_write(c, &newer.given, &err));
    CHECK_SIZES(vecdb_work, progress_context, {0}, vecdb_compact(db, &newer.given, &err));
    CHECK_SIZES(vecdb_work, progress_context, {0}, vecdb_check(db, &newer.given, NULL, NULL, NULL, &err));
    for (int i = 0; i < N_SIZES; i++)
        snprintf(copies[i], sizeof copies[i], "%.250s/copy-%d", test_directory(), i);
    CHECK_SIZES(vecdb_backup_options, progress_context, {0}, vecdb_backup(db, copies[i], &newer.given, &err));
    vecdb_scan *scan = NULL;
    CHECK_SIZES(vecdb_scan_options, batch_rows, {0},
                (vecdb_scan_close(scan), scan = NULL, vecdb_scan_open(c, &newer.given, &scan, &err)));
    vecdb_scan_close(scan);
    vecdb_close(db);
}

TEST(what_a_search_did_is_told_as_far_as_the_caller_has_room)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = open_database(test_path("db"), VECDB_OPEN_CREATE, VECDB_THREADS_NONE);
    vecdb_field field = {.name = "v", .dimension = 2, .metric = VECDB_L2};
    vecdb_collection *c;
    vecdb_results *results;
    float values[2] = {1, 2};
    CHECK_OK(err, vecdb_collection_create(db, "c", &field, 1, VECDB_MUST_BE_NEW, &c, &err));
    vecdb_query query = {.size = sizeof query, .vector = values, .dimension = 2, .k = 1};
    CHECK_OK(err, vecdb_search(c, &query, &results, &err));
    struct {
        vecdb_search_stats stats;
        unsigned char after[AFTER];
    } newer;
    memset(&newer, 0xa5, sizeof newer);
    newer.stats.size = sizeof newer;
    CHECK_INT(vecdb_results_stats(results, &newer.stats), VECDB_OK);
    CHECK_SIZE(newer.stats.size, sizeof newer.stats);
    CHECK(newer.stats.simd && newer.after[0] == 0xa5);
    newer.stats.size = offsetof(vecdb_search_stats, n_expanded); /* as the first version had it */
    newer.stats.n_expanded = 77;
    CHECK_INT(vecdb_results_stats(results, &newer.stats), VECDB_OK);
    CHECK(newer.stats.simd && newer.stats.n_expanded == 77);
    newer.stats.size = offsetof(vecdb_search_stats, n_expanded) - 1;
    CHECK_INT(vecdb_results_stats(results, &newer.stats), VECDB_MISUSE);
    vecdb_results_free(results);
    vecdb_close(db);
}

TEST(what_an_index_is_and_what_is_held_are_told_as_far_as_the_caller_has_room)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db;
    vecdb_options options = {.threads = VECDB_THREADS_NONE, .index_memory_bytes = 1};
    options.size = offsetof(vecdb_options, index_memory_bytes); /* as it was before */
    CHECK_OK(err, vecdb_open(test_path("db"), &options, &db, &err));
    CHECK_SIZE(db->index_budget.limit, 0);
    vecdb_field field = {.name = "v", .dimension = 2, .metric = VECDB_L2};
    vecdb_collection *c;
    CHECK_OK(err, vecdb_collection_create(db, "c", &field, 1, VECDB_MUST_BE_NEW, &c, &err));
    vecdb_index_info info;
    memset(&info, 0xa5, sizeof info);
    info.size = offsetof(vecdb_index_info, message);
    CHECK_OK(err, vecdb_index_describe(c, NULL, &info, &err));
    CHECK_SIZE(info.size, offsetof(vecdb_index_info, message));
    CHECK(info.kind == VECDB_INDEX_FLAT && (unsigned char)info.message[0] == 0xa5);
    info.size = VDB_STRUCT_BYTES(vecdb_index_info, recall_at_10) - 1;
    CHECK_FAILS(err, VECDB_MISUSE, "vecdb_index_info", vecdb_index_describe(c, NULL, &info, &err));
    vecdb_stats stats = {.index_bytes = 77};
    stats.size = offsetof(vecdb_stats, index_bytes);
    CHECK_OK(err, vecdb_database_stats(db, &stats, &err));
    CHECK(stats.index_bytes == 77 && stats.sequence > 0);
    stats.size = sizeof stats;
    CHECK_OK(err, vecdb_database_stats(db, &stats, &err));
    CHECK_SIZE(stats.index_bytes, 0);
    vecdb_close(db);
}
