/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/test_index_budget.c - whatever vecdb_options.index_memory_bytes has room for, indexes never hold more, and
 * answers are right: what the index lacks is scanned. What did not fit is told, in one sentence that says how many
 * bytes; nobody waits for it in vain.
 *
 * The exact answer of the same collection is the oracle; what indexes take is looked up while they are built.
 */
#include <stdatomic.h>
#include <time.h>

#include "database.h"
#include "fault_tools.h"

#define DIMENSION 64
#define N_ROWS 8000u
#define N_QUERIES 40

static struct vdb_random random_of_test;

static void fill(float *vector)
{
    float centre = (float)vdb_random_below(&random_of_test, 30);
    for (int i = 0; i < DIMENSION; i++)
        vector[i] = centre * (float)(i % 7) * 0.01f + (float)vdb_random_unit(&random_of_test);
}

static void put(vecdb_collection *collection, const char *field, int64_t first, size_t n)
{
    float *rows = vdb_alloc_array(tool_memory(), n * DIMENSION, sizeof *rows);
    int64_t *keys = vdb_alloc_array(tool_memory(), n, sizeof *keys);
    CHECK(rows && keys);
    for (size_t i = 0; i < n; i++) {
        keys[i] = first + (int64_t)i;
        fill(rows + i * DIMENSION);
    }
    vecdb_vector_column column = {.field = field, .values = rows, .type = VECDB_F32};
    vecdb_batch batch = {.size = sizeof batch, .n_rows = n, .integer_keys = keys, .vectors = &column, .n_vectors = 1};
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, vecdb_write(collection, &batch, &err));
    vdb_free(tool_memory(), rows);
    vdb_free(tool_memory(), keys);
}

static vecdb *open_db(uint64_t budget, int mode, int threads, vecdb_collection **collection)
{
    vecdb_options options = {.size = sizeof options, .mode = mode, .threads = threads, .index_memory_bytes = budget};
    options.memory_bytes = 1 << 20; /* so that caches hold little */
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db;
    CHECK_OK(err, vecdb_open(test_path("db"), &options, &db, &err));
    CHECK_OK(err, vecdb_collection_open(db, "c", collection, &err));
    return db;
}

/* A database of rows, whose index nobody has built. */
static void make_rows(uint32_t n_rows)
{
    vecdb_options options = {.size = sizeof options, .threads = VECDB_THREADS_NONE};
    vecdb_field field = {.name = "v", .dimension = DIMENSION, .metric = VECDB_L2, .index = VECDB_INDEX_HNSW};
    vecdb_collection *collection;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db;
    remove_database(test_path("db"));
    CHECK_OK(err, vecdb_open(test_path("db"), &options, &db, &err));
    CHECK_OK(err, vecdb_collection_create(db, "c", &field, 1, VECDB_MUST_BE_NEW, &collection, &err));
    put(collection, "v", 0, n_rows);
    vecdb_close(db);
}

/* What room for n vectors takes of a budget. */
static uint64_t cost(uint32_t n, bool with_building)
{
    struct vdb_graph_options options = {.metric = VECDB_L2, .type = VECDB_F32, .dimension = DIMENSION};
    return vdb_graph_cost(&options, NULL, n, with_building);
}

static vecdb_index_info describe(vecdb_collection *collection)
{
    vecdb_index_info info = {.size = sizeof info};
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, vecdb_index_describe(collection, "v", &info, &err));
    return info;
}

/* Nothing but the greatest that was ever taken. */
struct watch {
    vecdb *db;
    uint64_t most;
};

static int look(void *context, const vecdb_progress *progress)
{
    struct watch *watch = context;
    (void)progress;
    uint64_t used = atomic_load(&watch->db->index_budget.used);
    watch->most = used > watch->most ? used : watch->most;
    return 0;
}

static int build(vecdb *db, vecdb_collection *collection, uint64_t budget, uint64_t *most, vecdb_error *err)
{
    struct watch watch = {db, 0};
    vecdb_work work = {.size = sizeof work, .progress = look, .progress_context = &watch};
    int status = vecdb_index_wait(collection, NULL, 0, &work, err);
    look(&watch, NULL);
    if (budget && watch.most > budget)
        FAIL("%llu bytes are taken of %llu", (unsigned long long)watch.most, (unsigned long long)budget);
    if (most)
        *most = watch.most;
    return status;
}

/* What is held, told in two ways, is within the budget. */
static void check_held(vecdb *db, vecdb_collection *collection, uint64_t budget)
{
    vecdb_stats stats = {.size = sizeof stats};
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, vecdb_database_stats(db, &stats, &err));
    vecdb_index_info info = describe(collection);
    CHECK(stats.index_bytes <= budget && info.memory_bytes <= stats.index_bytes);
    CHECK(info.memory_bytes <= stats.memory_bytes);
    /* Vectors are mapped, and nothing was asked for that the page cache would keep: the rest is small. */
    if (stats.memory_bytes > budget + (2u << 20))
        FAIL("%llu bytes of memory, the budget is %llu", (unsigned long long)stats.memory_bytes,
             (unsigned long long)budget);
}

/* Recall@10 against the exact answer; *n_scanned: rows that the last search scanned. */
static double measure(vecdb_collection *collection, const char *plan, uint64_t *n_scanned)
{
    size_t n_right = 0;
    float vector[DIMENSION];
    vecdb_error err = VECDB_ERROR_INIT;
    for (int q = 0; q < N_QUERIES; q++) {
        vecdb_results *truth, *found;
        fill(vector);
        vecdb_query query = {.size = sizeof query, .vector = vector, .k = 10, .exact = 1, .columns = VECDB_KEYS_ONLY};
        CHECK_OK(err, vecdb_search(collection, &query, &truth, &err));
        query.exact = 0;
        CHECK_OK(err, vecdb_search(collection, &query, &found, &err));
        CHECK_SIZE(vecdb_results_count(found), 10);
        for (size_t i = 0; i < 10; i++) {
            for (size_t j = 0; j < 10; j++)
                n_right += vecdb_result_key(found, i).integer == vecdb_result_key(truth, j).integer;
            CHECK(i == 0 || vecdb_result_distance(found, i) >= vecdb_result_distance(found, i - 1));
        }
        vecdb_search_stats stats = {.size = sizeof stats};
        CHECK_INT(vecdb_results_stats(found, &stats), VECDB_OK);
        CHECK_STRING(stats.plan, plan);
        if (n_scanned)
            *n_scanned = stats.n_scanned;
        vecdb_results_free(truth);
        vecdb_results_free(found);
    }
    return (double)n_right / (10 * N_QUERIES);
}

static void check_recall(vecdb_collection *collection, const char *plan, uint64_t *n_scanned)
{
    double recall = measure(collection, plan, n_scanned);
    if (recall < 0.9)
        FAIL("recall %.3f", recall);
}

TEST(an_index_is_built_and_loaded_with_room_for_all_or_for_all_but_what_building_wants)
{
    random_of_test = (struct vdb_random){test_seed()};
    const uint64_t budgets[] = {cost(N_ROWS + N_ROWS / 8 + 1024, true), cost(N_ROWS + 10, false)};
    for (int i = 0; i < 2; i++) {
        vecdb_collection *collection;
        vecdb_error err = VECDB_ERROR_INIT;
        uint64_t most, n_scanned = 1;
        make_rows(N_ROWS);
        vecdb *db = open_db(budgets[i], VECDB_OPEN_EXISTING, 2, &collection);
        CHECK_OK(err, build(db, collection, budgets[i], &most, &err));
        CHECK(i == 0 ? most > cost(N_ROWS, false) + N_ROWS * DIMENSION : most <= cost(N_ROWS + 10, false));
        CHECK_SIZE(describe(collection).n_indexed, N_ROWS);
        CHECK_STRING(describe(collection).message, "");
        check_held(db, collection, budgets[i]);
        check_recall(collection, "hnsw", &n_scanned);
        CHECK_SIZE(n_scanned, 0);
        vecdb_close(db);
        /* somebody who only loads it */
        db = open_db(budgets[i], VECDB_OPEN_READONLY, VECDB_THREADS_NONE, &collection);
        CHECK_OK(err, build(db, collection, budgets[i], NULL, &err));
        CHECK_SIZE(describe(collection).n_indexed, N_ROWS);
        check_held(db, collection, budgets[i]);
        check_recall(collection, "hnsw", &n_scanned);
        vecdb_close(db);
    }
}

static void check_sentence_of(const char *message, uint64_t budget)
{
    char number[32];
    snprintf(number, sizeof number, "%llu", (unsigned long long)budget);
    if (!strstr(message, "field \"v\"") || !strstr(message, "bytes") || !strstr(message, "index_memory_bytes is") ||
        !strstr(message, number))
        FAIL("\"%s\"", message);
}

TEST(with_room_for_half_of_the_vectors_half_are_indexed_and_the_rest_is_scanned)
{
    vecdb_collection *collection;
    vecdb_error err = VECDB_ERROR_INIT;
    uint64_t budget = cost(N_ROWS / 2, false), n_scanned, most;
    random_of_test = (struct vdb_random){test_seed()};
    make_rows(N_ROWS);
    vecdb *db = open_db(budget, VECDB_OPEN_EXISTING, 2, &collection);
    for (int i = 0; i < 2; i++) { /* it is refused again, and nothing is lost */
        CHECK_FAILS(err, VECDB_NOMEM, "index_memory_bytes", build(db, collection, budget, &most, &err));
        check_sentence_of(err.message, budget);
        vecdb_index_info info = describe(collection);
        CHECK_STRING(info.message, err.message);
        CHECK_INT(info.kind, VECDB_INDEX_HNSW);
        /* pages are scanned as a whole: the last one that is indexed in part counts as not indexed */
        if (info.n_indexed < N_ROWS / 2 - 600 || info.n_indexed > N_ROWS / 2)
            FAIL("%llu of %u vectors are indexed", (unsigned long long)info.n_indexed, N_ROWS);
        CHECK(info.recall_at_10 > 0.9f); /* of what it covers */
        CHECK(info.file_bytes > 0);
        check_held(db, collection, budget);
        check_recall(collection, "hnsw", &n_scanned);
        CHECK_SIZE(n_scanned, N_ROWS - info.n_indexed);
    }
    put(collection, "v", N_ROWS, 100); /* found at once */
    check_recall(collection, "hnsw", &n_scanned);
    vecdb_close(db);
    db = open_db(budget, VECDB_OPEN_READONLY, VECDB_THREADS_NONE, &collection);
    CHECK_FAILS(err, VECDB_NOMEM, "index_memory_bytes", build(db, collection, budget, NULL, &err));
    CHECK(describe(collection).n_indexed > N_ROWS / 2 - 600);
    check_held(db, collection, budget);
    check_recall(collection, "hnsw", NULL);
    vecdb_close(db);
    db = open_db(0, VECDB_OPEN_EXISTING, 2, &collection); /* with room for all, it goes on */
    CHECK_OK(err, build(db, collection, 0, NULL, &err));
    CHECK_SIZE(describe(collection).n_indexed, N_ROWS + 100);
    check_recall(collection, "hnsw", NULL);
    vecdb_close(db);
}

TEST(an_index_of_a_file_that_does_not_fit_is_left_as_it_is_and_all_is_scanned)
{
    vecdb_collection *collection;
    vecdb_error err = VECDB_ERROR_INIT;
    uint64_t budget = cost(N_ROWS / 2, false), n_bytes;
    random_of_test = (struct vdb_random){test_seed()};
    make_rows(N_ROWS);
    vecdb *db = open_db(0, VECDB_OPEN_EXISTING, 2, &collection);
    CHECK_OK(err, build(db, collection, 0, NULL, &err));
    n_bytes = describe(collection).file_bytes;
    vecdb_close(db);
    const int modes[] = {VECDB_OPEN_EXISTING, VECDB_OPEN_READONLY};
    for (int i = 0; i < 2; i++) {
        db = open_db(budget, modes[i], VECDB_THREADS_NONE, &collection);
        CHECK_FAILS(err, VECDB_NOMEM, "index_memory_bytes", build(db, collection, budget, NULL, &err));
        check_sentence_of(err.message, budget);
        vecdb_index_info info = describe(collection);
        CHECK_INT(info.kind, VECDB_INDEX_FLAT);
        CHECK_INT(info.wanted, VECDB_INDEX_HNSW);
        CHECK_SIZE(info.n_indexed, 0);
        CHECK_SIZE(info.file_bytes, n_bytes);
        CHECK_STRING(info.message, err.message);
        check_held(db, collection, budget);
        CHECK_DOUBLE(measure(collection, "flat", NULL), 1);
        vecdb_close(db);
    }
    db = open_db(0, VECDB_OPEN_READONLY, VECDB_THREADS_NONE, &collection);
    CHECK_OK(err, build(db, collection, 0, NULL, &err));
    CHECK_SIZE(describe(collection).n_indexed, N_ROWS);
    vecdb_close(db);
}

TEST(an_index_grows_as_far_as_there_is_room_for_the_old_and_the_new_one)
{
    vecdb_collection *collection;
    vecdb_error err = VECDB_ERROR_INIT;
    random_of_test = (struct vdb_random){test_seed()};
    make_rows(2000);
    uint64_t budget = cost(N_ROWS, false);
    vecdb *db = open_db(budget, VECDB_OPEN_EXISTING, VECDB_THREADS_NONE, &collection);
    CHECK_OK(err, build(db, collection, budget, NULL, &err));
    int status = VECDB_OK;
    uint64_t n_before = 2000;
    for (uint32_t n = 2000; n < 2 * N_ROWS && !status; n += 500) {
        put(collection, "v", n, 500);
        status = build(db, collection, budget, NULL, &err);
        vecdb_index_info info = describe(collection);
        CHECK(info.n_indexed >= n_before);
        n_before = info.n_indexed;
        check_held(db, collection, budget);
        if (status) {
            check_sentence_of(err.message, budget);
            CHECK(info.n_indexed < n + 500 && info.n_indexed > N_ROWS / 2);
            CHECK_STRING(info.message, err.message);
        } else {
            CHECK_SIZE(info.n_indexed, n + 500);
            CHECK_STRING(info.message, "");
        }
    }
    CHECK_INT(status, VECDB_NOMEM);
    check_recall(collection, "hnsw", NULL);
    vecdb_close(db);
}

TEST(an_index_with_many_dead_vectors_is_built_anew_where_both_do_not_fit)
{
    vecdb_collection *collection;
    vecdb_error err = VECDB_ERROR_INIT;
    uint64_t budget = cost(N_ROWS + 100, false);
    random_of_test = (struct vdb_random){test_seed()};
    make_rows(N_ROWS);
    vecdb *db = open_db(budget, VECDB_OPEN_EXISTING, 2, &collection);
    CHECK_OK(err, build(db, collection, budget, NULL, &err));
    static vecdb_key gone[N_ROWS / 2]; /* at once: in the background, an index is swept when a fifth is dead */
    for (int64_t i = 0; i < N_ROWS / 2; i++)
        gone[i] = vecdb_key_int(2 * i);
    CHECK_OK(err, vecdb_delete(collection, gone, N_ROWS / 2, NULL, &err));
    CHECK_OK(err, build(db, collection, budget, NULL, &err));
    vecdb_index_info info = describe(collection);
    CHECK_SIZE(info.n_indexed, N_ROWS / 2);
    CHECK_SIZE(info.n_dead, 0);
    check_held(db, collection, budget);
    check_recall(collection, "hnsw", NULL);
    vecdb_close(db);
}

TEST(work_in_the_background_tells_what_did_not_fit_and_other_fields_are_indexed)
{
    vecdb_options options = {.size = sizeof options, .threads = 2, .memory_bytes = 1 << 20};
    vecdb_field fields[2] = {{.name = "v", .dimension = DIMENSION, .metric = VECDB_L2, .index = VECDB_INDEX_HNSW},
                             {.name = "w", .dimension = DIMENSION, .metric = VECDB_L2, .index = VECDB_INDEX_HNSW}};
    vecdb_collection *collection;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db;
    random_of_test = (struct vdb_random){test_seed()};
    options.index_memory_bytes = cost(2000 + 2000 / 8 + 1024, true) + 1000;
    CHECK_OK(err, vecdb_open(":memory:", &options, &db, &err));
    CHECK_OK(err, vecdb_collection_create(db, "c", fields, 2, VECDB_MUST_BE_NEW, &collection, &err));
    put(collection, "w", 0, 2000);
    int status = VECDB_OK;
    CHECK_OK(err, vecdb_index_wait(collection, "w", 0, NULL, &err));
    put(collection, "v", 10000, N_ROWS);
    vecdb_index_info info = describe(collection);
    for (int i = 0; i < 30000 && !(status = vecdb_background_error(db, &err)); i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    CHECK_INT(status, VECDB_NOMEM);
    check_sentence_of(err.message, options.index_memory_bytes);
    info = describe(collection);
    CHECK(info.n_indexed < N_ROWS && info.message[0]);
    vecdb_index_info other = {.size = sizeof other};
    CHECK_OK(err, vecdb_index_describe(collection, "w", &other, &err));
    CHECK_SIZE(other.n_indexed, 2000);
    CHECK_STRING(other.message, "");
    check_held(db, collection, options.index_memory_bytes + (16u << 20));
    check_recall(collection, info.kind == VECDB_INDEX_HNSW ? "hnsw" : "flat", NULL);
    CHECK_OK(err, vecdb_field_set_index(collection, "v", VECDB_INDEX_FLAT, &err));
    CHECK_OK(err, vecdb_index_wait(collection, NULL, 0, NULL, &err));
    CHECK_STRING(describe(collection).message, "");
    vecdb_close(db);
}
