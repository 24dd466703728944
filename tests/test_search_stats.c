/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/test_search_stats.c - what a search with a graph says it did is what it did: distances of codes, of candidates
 * and of scanned rows add up, every candidate is a visit to a page unless it is in the tail, and bytes are those of the
 * form in which pages keep vectors.
 */
#include "database.h"
#include "fault_tools.h"

#define DIMENSION 64
#define N_ROWS 4000u
#define CODE_BYTES (DIMENSION / 2 + 16)
#define LINK_BYTES (VDB_GRAPH_DEGREE * 4)
#define N_PAGED_QUERIES 20

static struct vdb_random random_of_test;

/* Whole numbers up to 200, which a page may keep in a byte each, or fractions. */
static void fill(float *vector, bool is_whole)
{
    for (int i = 0; i < DIMENSION; i++) {
        double value = vdb_random_unit(&random_of_test) * 200;
        vector[i] = is_whole ? (float)(int)value : (float)value;
    }
}

static void put(vecdb_collection *collection, int64_t first, uint32_t n, bool is_whole)
{
    vecdb_error err = VECDB_ERROR_INIT;
    float *rows = vdb_alloc_array(tool_memory(), n * DIMENSION, sizeof *rows);
    int64_t *keys = vdb_alloc_array(tool_memory(), n, sizeof *keys);
    CHECK(rows && keys);
    for (uint32_t i = 0; i < n; i++) {
        keys[i] = first + i;
        fill(rows + (size_t)i * DIMENSION, is_whole);
    }
    vecdb_vector_column column = {.values = rows};
    vecdb_batch batch = {.size = sizeof batch, .n_rows = n, .integer_keys = keys, .vectors = &column, .n_vectors = 1};
    CHECK_OK(err, vecdb_write(collection, &batch, &err));
    vdb_free(tool_memory(), rows);
    vdb_free(tool_memory(), keys);
}

static vecdb_search_stats search(vecdb_collection *collection, const float *vectors, size_t n_queries, int exact)
{
    vecdb_query query = {.size = sizeof query, .vector = vectors, .n_queries = n_queries, .k = 10, .exact = exact};
    vecdb_search_stats stats = {.size = sizeof stats};
    vecdb_results *results;
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, vecdb_search(collection, &query, &results, &err));
    CHECK_INT(vecdb_results_stats(results, &stats), VECDB_OK);
    vecdb_results_free(results);
    return stats;
}

/* All of the answer is of the graph. */
static void check_sums(const vecdb_search_stats *stats, size_t row_bytes, size_t n_queries)
{
    CHECK_STRING(stats->plan, "hnsw");
    CHECK_SIZE(stats->n_scanned, 0);
    CHECK_SIZE(stats->n_rescored, 0);
    CHECK(stats->n_reranked >= 10 * n_queries && stats->n_expanded >= n_queries && stats->ef >= 10);
    CHECK(stats->n_distances > stats->n_reranked + stats->n_expanded);
    CHECK_SIZE(stats->n_pages, stats->n_reranked);
    CHECK(stats->n_decoded <= stats->n_pages);
    CHECK_SIZE(stats->bytes_scored, (stats->n_distances - stats->n_reranked) * CODE_BYTES +
                                        stats->n_expanded * LINK_BYTES + stats->n_reranked * row_bytes);
    CHECK(stats->elapsed_ns > 0 && stats->sequence > 0);
}

static void check_form(int compression, bool is_whole, size_t row_bytes, bool is_decoded)
{
    vecdb_options options = {.size = sizeof options, .threads = 2};
    vecdb_field field = {.name = "v", .dimension = DIMENSION, .metric = VECDB_L2, .compression = compression};
    vecdb_collection *collection;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db;
    float vectors[N_PAGED_QUERIES * DIMENSION];
    remove_database(test_path("db"));
    field.index = VECDB_INDEX_HNSW;
    CHECK_OK(err, vecdb_open(test_path("db"), &options, &db, &err));
    CHECK_OK(err, vecdb_collection_create(db, "c", &field, 1, VECDB_MUST_BE_NEW, &collection, &err));
    put(collection, 0, N_ROWS, is_whole);
    CHECK_OK(err, vecdb_compact(db, NULL, &err)); /* everything is in pages */
    CHECK_OK(err, vecdb_index_wait(collection, NULL, 0, NULL, &err));
    vecdb_close(db);
    options.mode = VECDB_OPEN_READONLY;
    CHECK_OK(err, vecdb_open(test_path("db"), &options, &db, &err));
    CHECK_OK(err, vecdb_collection_open(db, "c", &collection, &err));
    CHECK_OK(err, vecdb_index_wait(collection, NULL, 0, NULL, &err));
    for (size_t q = 0; q < N_PAGED_QUERIES; q++)
        fill(vectors + q * DIMENSION, is_whole);
    vecdb_search_stats one = search(collection, vectors, 1, 0), again = search(collection, vectors, 1, 0);
    check_sums(&one, row_bytes, 1);
    check_sums(&again, row_bytes, 1);
    CHECK_SIZE(one.n_decoded, is_decoded ? one.n_pages : 0);
    CHECK_SIZE(again.n_decoded, one.n_decoded);
    CHECK_SIZE(again.n_distances, one.n_distances);
    vecdb_search_stats many = search(collection, vectors, N_PAGED_QUERIES, 0);
    check_sums(&many, row_bytes, N_PAGED_QUERIES);
    vecdb_search_stats exact = search(collection, vectors, 1, 1);
    CHECK_STRING(exact.plan, "flat");
    CHECK_SIZE(exact.n_expanded + exact.n_reranked + exact.n_scanned + exact.ef, 0);
    CHECK(exact.n_pages < N_ROWS && exact.bytes_scored >= N_ROWS * row_bytes);
    vecdb_close(db);
}

TEST(what_a_graph_search_did_adds_up_for_pages_of_every_form)
{
    random_of_test = (struct vdb_random){test_seed()};
    check_form(VECDB_COMPRESSION_NONE, false, 4 * DIMENSION, false);
    check_form(VECDB_COMPRESSION_AUTO, true, DIMENSION, false);
    check_form(VECDB_COMPRESSION_MAX, false, 4 * DIMENSION, true);
}

TEST(rows_that_the_graph_lacks_are_counted_as_scanned)
{
    vecdb_options options = {.size = sizeof options, .threads = VECDB_THREADS_NONE};
    vecdb_field field = {.name = "v", .dimension = DIMENSION, .metric = VECDB_L2, .index = VECDB_INDEX_HNSW};
    vecdb_collection *collection;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db;
    float vector[DIMENSION];
    random_of_test = (struct vdb_random){test_seed()};
    CHECK_OK(err, vecdb_open(":memory:", &options, &db, &err));
    CHECK_OK(err, vecdb_collection_create(db, "c", &field, 1, VECDB_MUST_BE_NEW, &collection, &err));
    put(collection, 0, N_ROWS, false);
    CHECK_OK(err, vecdb_index_wait(collection, NULL, 0, NULL, &err));
    fill(vector, false);
    vecdb_search_stats before = search(collection, vector, 1, 0);
    put(collection, N_ROWS, 150, false);
    vecdb_search_stats after = search(collection, vector, 1, 0);
    CHECK_STRING(after.plan, "hnsw");
    CHECK_SIZE(before.n_scanned, 0);
    CHECK_SIZE(after.n_scanned, 150);
    CHECK_SIZE(after.n_distances, before.n_distances + 150);
    CHECK(after.n_rescored > 0 && after.n_pages > before.n_pages);
    CHECK_SIZE(after.bytes_scored, before.bytes_scored + 150 * sizeof vector);
    vecdb_close(db);
}
