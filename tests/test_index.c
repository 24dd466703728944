/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/test_index.c - a collection with a graph answers like one without, only faster: nearly all of the true
 * nearest are found, a record from the moment its transaction has committed, a deleted one never; k results come
 * while there are k; and the index of a field can be changed at any time.
 *
 * The exact answer of the same collection (vecdb_query.exact) is the oracle.
 */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "harness.h"
#include "vecdb.h"

#define N_ROWS 4000
#define N_CENTRES 40
#define N_QUERIES 50

struct data {
    struct vdb_random random;
    uint32_t dimension;
    int type;
    float *centres;
};

static void data_init(struct data *data, uint32_t dimension, int type)
{
    *data = (struct data){.random = {test_seed()}, .dimension = dimension, .type = type};
    data->centres = malloc((size_t)N_CENTRES * dimension * sizeof(float));
    CHECK(data->centres);
    for (size_t i = 0; i < (size_t)N_CENTRES * dimension; i++)
        data->centres[i] = (float)(vdb_random_unit(&data->random) * 2 - 1);
}

/* A vector near one of the centres, as floats. */
static void next_vector(struct data *data, float *vector)
{
    const float *centre = data->centres + vdb_random_below(&data->random, N_CENTRES) * data->dimension;
    for (uint32_t i = 0; i < data->dimension; i++)
        vector[i] = centre[i] + (float)(vdb_random_unit(&data->random) - 0.5) * 0.8f;
}

static void to_bits(const float *vector, uint32_t dimension, unsigned char *bits)
{
    memset(bits, 0, (dimension + 7) / 8);
    for (uint32_t i = 0; i < dimension; i++)
        if (vector[i] > 0)
            bits[i / 8] |= (unsigned char)(1u << i % 8);
}

static void put(struct data *data, vecdb_collection *collection, int64_t first, size_t n)
{
    const size_t row_bytes = data->type == VECDB_BIT ? (data->dimension + 7) / 8 : data->dimension * sizeof(float);
    char *rows = malloc(n * row_bytes + 1);
    int64_t *keys = malloc(n * sizeof *keys + 1);
    float *vector = malloc(data->dimension * sizeof *vector);
    CHECK(rows && keys && vector);
    for (size_t i = 0; i < n; i++) {
        keys[i] = first + (int64_t)i;
        next_vector(data, vector);
        if (data->type == VECDB_BIT)
            to_bits(vector, data->dimension, (unsigned char *)rows + i * row_bytes);
        else
            memcpy(rows + i * row_bytes, vector, row_bytes);
    }
    vecdb_vector_column column = {.values = rows, .type = data->type == VECDB_BIT ? VECDB_BIT : VECDB_F32};
    vecdb_batch batch = {.size = sizeof batch, .n_rows = n, .integer_keys = keys, .vectors = &column, .n_vectors = 1};
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, vecdb_write(collection, &batch, &err));
    free(rows);
    free(keys);
    free(vector);
}

static vecdb_results *ask(vecdb_collection *collection, const struct data *data, const float *vector, uint32_t k,
                          int exact, float recall)
{
    unsigned char bits[64];
    vecdb_query query = {.size = sizeof query, .vector = vector, .k = k, .exact = exact, .columns = VECDB_KEYS_ONLY};
    query.recall = recall;
    if (data->type == VECDB_BIT) {
        to_bits(vector, data->dimension, bits);
        query.vector = bits;
    }
    vecdb_results *results;
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, vecdb_search(collection, &query, &results, &err));
    return results;
}

static const char *plan_of(const vecdb_results *results)
{
    vecdb_search_stats stats = {.size = sizeof stats};
    CHECK_INT(vecdb_results_stats(results, &stats), VECDB_OK);
    return stats.plan;
}

/* The share of the true nearest that is found, counting whatever is as near as the k-th as right. */
static double measure(vecdb_collection *collection, struct data *data, uint32_t k, float recall, const char *plan)
{
    float *vector = malloc(data->dimension * sizeof *vector);
    size_t n_right = 0, n_all = 0;
    CHECK(vector);
    for (int q = 0; q < N_QUERIES; q++) {
        next_vector(data, vector);
        vecdb_results *truth = ask(collection, data, vector, k, 1, 0);
        vecdb_results *found = ask(collection, data, vector, k, 0, recall);
        CHECK_STRING(plan_of(truth), "flat");
        if (plan)
            CHECK_STRING(plan_of(found), plan);
        size_t n = vecdb_results_count(truth);
        CHECK_SIZE(vecdb_results_count(found), n);
        double last = n ? vecdb_result_distance(truth, n - 1) : 0;
        for (size_t i = 0; i < n; i++) {
            double distance = vecdb_result_distance(found, i);
            n_right += distance <= last + 1e-5 * (1 + fabs(last));
            CHECK(i == 0 || distance >= vecdb_result_distance(found, i - 1));
            for (size_t j = 0; j < i; j++)
                CHECK(vecdb_result_key(found, i).integer != vecdb_result_key(found, j).integer);
        }
        n_all += n;
        vecdb_results_free(truth);
        vecdb_results_free(found);
    }
    free(vector);
    return n_all ? (double)n_right / (double)n_all : 1;
}

static vecdb_collection *make(vecdb *db, const struct data *data, int metric, int type, int index)
{
    vecdb_field field = {
        .name = "v", .dimension = data->dimension, .metric = metric, .type = type, .index = index};
    vecdb_collection *collection;
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, vecdb_collection_create(db, "c", &field, 1, VECDB_MUST_BE_NEW, &collection, &err));
    return collection;
}

static void index_wait(vecdb_collection *collection)
{
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, vecdb_index_wait(collection, NULL, 0, NULL, &err));
}

static vecdb_index_info describe(vecdb_collection *collection)
{
    vecdb_index_info info = {.size = sizeof info};
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, vecdb_index_describe(collection, "v", &info, &err));
    return info;
}

static vecdb *open_memory(void)
{
    vecdb *db;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_options options = {.size = sizeof options, .threads = 2};
    CHECK_OK(err, vecdb_open(":memory:", &options, &db, &err));
    return db;
}

static void compare_kind(int metric, int type, uint32_t dimension)
{
    struct data data;
    data_init(&data, dimension, type == VECDB_BIT ? VECDB_BIT : VECDB_F32);
    vecdb *db = open_memory();
    vecdb_collection *collection = make(db, &data, metric, type, VECDB_INDEX_HNSW);
    put(&data, collection, 0, N_ROWS);
    index_wait(collection);
    vecdb_index_info info = describe(collection);
    CHECK_INT(info.kind, VECDB_INDEX_HNSW);
    CHECK_SIZE(info.n_indexed, N_ROWS);
    CHECK(info.memory_bytes > 0);
    double recall = measure(collection, &data, 10, 0.95f, "hnsw");
    if (recall < 0.9)
        FAIL("metric %d, type %d: recall %.3f", metric, type, recall);
    CHECK(measure(collection, &data, 1, 0.9f, "hnsw") >= 0.8);
    CHECK_DOUBLE(measure(collection, &data, 10, 1, "flat"), 1);
    vecdb_close(db);
    free(data.centres);
}

TEST(every_metric_and_type_finds_nearly_all_of_the_true_nearest)
{
    static const int types[] = {VECDB_F32, VECDB_F16, VECDB_BF16};
    for (size_t t = 0; t < 3; t++)
        compare_kind(VECDB_L2 + (int)t, types[t], 48);
    compare_kind(VECDB_COSINE, VECDB_F32, 100);
    compare_kind(VECDB_HAMMING, VECDB_BIT, 256);
}

TEST(a_record_is_found_as_soon_as_it_is_committed_whatever_the_index_covers)
{
    struct data data;
    data_init(&data, 24, VECDB_F32);
    vecdb *db = open_memory();
    vecdb_collection *collection = make(db, &data, VECDB_L2, VECDB_F32, VECDB_INDEX_HNSW);
    float vector[24];
    vecdb_error err = VECDB_ERROR_INIT;
    for (int i = 0; i < 60; i++) {
        put(&data, collection, i * 100, 100);
        next_vector(&data, vector);
        vecdb_record record = {.key = VECDB_KEY_INT(1000000 + i), .vector = vector};
        CHECK_OK(err, vecdb_put(collection, &record, 1, &err));
        vecdb_results *results = ask(collection, &data, vector, 1, 0, 0);
        CHECK_SIZE(vecdb_results_count(results), 1);
        CHECK_INT(vecdb_result_key(results, 0).integer, 1000000 + i);
        vecdb_results_free(results);
        if (i % 20 == 10)
            index_wait(collection);
    }
    CHECK(measure(collection, &data, 10, 0.95f, "hnsw") >= 0.9);
    vecdb_close(db);
    free(data.centres);
}

/* Few records stay in the tail, while many go into pages at once: so rows of the tail have slots before, between and
 * behind those of pages. */
TEST(records_are_found_by_the_graph_whether_they_are_in_pages_or_in_the_tail)
{
    struct data data;
    data_init(&data, 64, VECDB_F32);
    vecdb_options options = {.size = sizeof options, .threads = VECDB_THREADS_NONE};
    vecdb *db;
    vecdb_error err = VECDB_ERROR_INIT;
    float few[12][64];
    CHECK_OK(err, vecdb_open(":memory:", &options, &db, &err));
    vecdb_collection *collection = make(db, &data, VECDB_L2, VECDB_F32, VECDB_INDEX_HNSW);
    for (int i = 0; i < 12; i++) {
        next_vector(&data, few[i]);
        vecdb_record record = {.key = vecdb_key_int(1000000 + i), .vector = few[i]};
        CHECK_OK(err, vecdb_put(collection, &record, 1, &err));
        if (i % 3 == 2)
            put(&data, collection, i * 1000, 1200);
        if (i == 5 || i == 10)
            index_wait(collection); /* and what comes later is scanned */
        for (int j = 0; j <= i; j++) {
            vecdb_results *results = ask(collection, &data, few[j], 1, 0, 0);
            CHECK_SIZE(vecdb_results_count(results), 1);
            CHECK_INT(vecdb_result_key(results, 0).integer, 1000000 + j);
            vecdb_results_free(results);
        }
        CHECK(measure(collection, &data, 10, 0.95f, NULL) >= 0.9);
    }
    /* A sweep keeps them, too. */
    for (int64_t key = 2000; key < 3200; key++) {
        vecdb_key gone = vecdb_key_int(key);
        CHECK_OK(err, vecdb_delete(collection, &gone, 1, NULL, &err));
    }
    for (int64_t key = 5000; key < 6200; key++) {
        vecdb_key gone = vecdb_key_int(key);
        CHECK_OK(err, vecdb_delete(collection, &gone, 1, NULL, &err));
    }
    index_wait(collection);
    for (int j = 0; j < 12; j++) {
        vecdb_results *results = ask(collection, &data, few[j], 1, 0, 0);
        CHECK_INT(vecdb_result_key(results, 0).integer, 1000000 + j);
        vecdb_results_free(results);
    }
    CHECK(measure(collection, &data, 10, 0.95f, "hnsw") >= 0.9);
    vecdb_close(db);
    free(data.centres);
}

TEST(deleted_and_replaced_records_are_never_found_and_k_come_while_there_are_k)
{
    struct data data;
    data_init(&data, 32, VECDB_F32);
    vecdb *db = open_memory();
    vecdb_collection *collection = make(db, &data, VECDB_COSINE, VECDB_F32, VECDB_INDEX_HNSW);
    put(&data, collection, 0, N_ROWS);
    index_wait(collection);
    put(&data, collection, 0, N_ROWS / 4); /* replaces */
    CHECK(measure(collection, &data, 10, 0.95f, NULL) >= 0.9);
    vecdb_error err = VECDB_ERROR_INIT;
    for (int64_t key = 0; key < N_ROWS; key++)
        if (key % 20) { /* all but one in twenty */
            vecdb_key gone = VECDB_KEY_INT(key);
            CHECK_OK(err, vecdb_delete(collection, &gone, 1, NULL, &err));
        }
    for (int round = 0; round < 2; round++) {
        float vector[32];
        for (int q = 0; q < N_QUERIES; q++) {
            next_vector(&data, vector);
            vecdb_results *results = ask(collection, &data, vector, 20, 0, 0);
            CHECK_SIZE(vecdb_results_count(results), 20);
            for (size_t i = 0; i < 20; i++)
                CHECK_INT(vecdb_result_key(results, i).integer % 20, 0);
            vecdb_results_free(results);
        }
        double recall = measure(collection, &data, 10, 0.95f, NULL);
        if (recall < 0.9)
            FAIL("round %d: recall %.3f of %s", round, recall, describe(collection).kind == 1 ? "flat" : "hnsw");
        index_wait(collection); /* sweeps */
    }
    vecdb_close(db);
    free(data.centres);
}

TEST(the_index_of_a_field_changes_at_any_time)
{
    struct data data;
    data_init(&data, 16, VECDB_F32);
    vecdb *db = open_memory();
    vecdb_collection *collection = make(db, &data, VECDB_L2, VECDB_F32, VECDB_INDEX_AUTO);
    vecdb_error err = VECDB_ERROR_INIT;
    put(&data, collection, 0, N_ROWS);
    CHECK_DOUBLE(measure(collection, &data, 5, 0, "flat"), 1);
    CHECK_OK(err, vecdb_field_set_index(collection, "v", VECDB_INDEX_HNSW, &err));
    CHECK(measure(collection, &data, 5, 0, NULL) >= 0.9);
    index_wait(collection);
    CHECK(measure(collection, &data, 5, 0, "hnsw") >= 0.9);
    CHECK_OK(err, vecdb_compact(db, NULL, &err)); /* may give the collection a new store */
    CHECK(measure(collection, &data, 5, 0, NULL) >= 0.9);
    CHECK_OK(err, vecdb_field_set_index(collection, "v", VECDB_INDEX_FLAT, &err));
    CHECK_DOUBLE(measure(collection, &data, 5, 0, "flat"), 1);
    CHECK_INT(describe(collection).kind, VECDB_INDEX_FLAT);
    CHECK_FAILS(err, VECDB_INVALID, "index kind", vecdb_field_set_index(collection, "v", 9, &err));
    CHECK_FAILS(err, VECDB_NOT_FOUND, "no field", vecdb_field_set_index(collection, "w", VECDB_INDEX_FLAT, &err));
    vecdb_close(db);
    free(data.centres);
}

TEST(wrong_recalls_are_refused_and_ef_is_taken)
{
    struct data data;
    data_init(&data, 8, VECDB_F32);
    vecdb *db = open_memory();
    vecdb_collection *collection = make(db, &data, VECDB_L2, VECDB_F32, VECDB_INDEX_HNSW);
    put(&data, collection, 0, N_ROWS);
    index_wait(collection);
    float vector[8] = {0};
    vecdb_results *results;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_query query = {.size = sizeof query, .vector = vector, .k = 3};
    static const float wrong[] = {-0.1f, 1.5f, NAN, INFINITY};
    for (size_t i = 0; i < 4; i++) {
        query.recall = wrong[i];
        CHECK_FAILS(err, VECDB_INVALID, "recall", vecdb_search(collection, &query, &results, &err));
    }
    query.recall = 0;
    query.ef = 77;
    CHECK_OK(err, vecdb_search(collection, &query, &results, &err));
    vecdb_search_stats stats = {.size = sizeof stats};
    CHECK_INT(vecdb_results_stats(results, &stats), VECDB_OK);
    CHECK_INT(stats.ef, 77);
    CHECK_STRING(stats.plan, "hnsw");
    CHECK(stats.n_distances < N_ROWS && stats.n_expanded > 0 && stats.n_reranked >= 3);
    CHECK_SIZE(stats.n_scanned, 0);
    vecdb_results_free(results);
    vecdb_close(db);
    free(data.centres);
}

/* ------------------------------------------------------------------ at once */

struct searcher {
    pthread_t thread;
    vecdb_collection *collection;
    struct data data; /* its own numbers */
    _Atomic bool *ends;
};

static void *search_on(void *context)
{
    struct searcher *searcher = context;
    float vector[32];
    while (!atomic_load(searcher->ends)) {
        next_vector(&searcher->data, vector);
        vecdb_results *results = ask(searcher->collection, &searcher->data, vector, 10, 0, 0.9f);
        CHECK(vecdb_results_count(results) == 10);
        for (size_t i = 0; i < 10; i++)
            CHECK(vecdb_result_key(results, i).integer % 7 != 3 || vecdb_result_key(results, i).integer >= 3000);
        vecdb_results_free(results);
    }
    return NULL;
}

TEST(searches_go_on_while_records_come_and_go_and_graphs_are_built)
{
    struct data data;
    data_init(&data, 32, VECDB_F32);
    vecdb *db = open_memory();
    vecdb_collection *collection = make(db, &data, VECDB_L2, VECDB_F32, VECDB_INDEX_HNSW);
    vecdb_error err = VECDB_ERROR_INIT;
    put(&data, collection, 0, 3000);
    for (int64_t key = 3; key < 3000; key += 7) {
        vecdb_key gone = VECDB_KEY_INT(key);
        CHECK_OK(err, vecdb_delete(collection, &gone, 1, NULL, &err));
    }
    _Atomic bool ends = false;
    struct searcher searchers[2];
    for (int i = 0; i < 2; i++) {
        searchers[i] = (struct searcher){.collection = collection, .data = data, .ends = &ends};
        searchers[i].data.random.state += 12345 + (uint64_t)i;
        CHECK(!pthread_create(&searchers[i].thread, NULL, search_on, &searchers[i]));
    }
    for (int i = 0; i < 12; i++) {
        put(&data, collection, 3000 + i * 300, 300);
        if (i % 4 == 3)
            index_wait(collection);
        if (i == 5)
            CHECK_OK(err, vecdb_compact(db, NULL, &err));
    }
    atomic_store(&ends, true);
    for (int i = 0; i < 2; i++)
        pthread_join(searchers[i].thread, NULL);
    CHECK(measure(collection, &data, 10, 0.95f, NULL) >= 0.9);
    vecdb_close(db);
    free(data.centres);
}
