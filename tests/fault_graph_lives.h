/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/fault_graph_lives.h - lives of a database with graphs (see fault_lives.h)
 *
 * A graph takes a thousand rows, so these have as few as will do: what is to grow, to be swept or to be written as a
 * delta is chosen by counting them. The vector of a key is made from the key, and what each call was told about
 * the key is kept: whatever fails, a search finds no record that was deleted and no distance that is wrong, and
 * afterwards all of it is there and a graph covers it (check_graph).
 */
#ifndef VDB_TESTS_FAULT_GRAPH_LIVES_H
#define VDB_TESTS_FAULT_GRAPH_LIVES_H

#include <math.h>

#include "fault_lives.h"

#define GRAPH_DIMENSION 8
#define FEW_ROWS VDB_INDEX_LEAST_ROWS
#define N_QUERIES 20

/* Keys from FIRST_COPY on have the vectors of those from 0 on. */
#define FIRST_COPY 2200

static void fill_graph_vector(int key, float vector[GRAPH_DIMENSION])
{
    key = key >= FIRST_COPY ? key - FIRST_COPY : key;
    for (uint32_t i = 0; i < GRAPH_DIMENSION; i++)
        vector[i] = value_of(key, 1, i + 2);
}

static bool has_graphs(struct life *life)
{
    static const vecdb_field field = {
        .name = "v", .dimension = GRAPH_DIMENSION, .metric = VECDB_L2, .index = VECDB_INDEX_HNSW};
    if (!life->db)
        return false;
    return life->graphs || CALL(life, "create", vecdb_collection_create(life->db, "graphs", &field, 1, VECDB_IF_MISSING,
                                                                        &life->graphs, &err));
}

static void write_rows(struct life *life, int first, int n)
{
    static float vectors[GRAPH_KEYS][GRAPH_DIMENSION];
    static int64_t keys[GRAPH_KEYS];
    CHECK(first + n <= GRAPH_KEYS);
    for (int i = 0; i < n; i++) {
        keys[i] = first + i;
        fill_graph_vector(first + i, vectors[i]);
    }
    vecdb_vector_column column = {.values = vectors};
    vecdb_batch batch = {.size = sizeof batch, .n_rows = (size_t)n, .integer_keys = keys, .vectors = &column,
                         .n_vectors = 1};
    if (has_graphs(life) && CALL(life, "write", vecdb_write(life->graphs, &batch, &err)))
        memset(life->rows + first, ROW_IS_THERE, (size_t)n);
}

static void delete_rows(struct life *life, int first, int n)
{
    static vecdb_key keys[GRAPH_KEYS];
    uint64_t n_deleted;
    for (int i = 0; i < n; i++)
        keys[i] = vecdb_key_int(first + i);
    if (!has_graphs(life))
        return;
    bool is_done = CALL(life, "delete", vecdb_delete(life->graphs, keys, (size_t)n, &n_deleted, &err));
    memset(life->rows + first, is_done ? ROW_IS_DELETED : ROW_IS_UNKNOWN, (size_t)n);
}

static int stop_at_once(void *context, const vecdb_progress *progress)
{
    (void)context;
    return progress->done > 0;
}

static void build_graph(struct life *life, bool is_stopped)
{
    vecdb_work work = {.size = sizeof work, .progress = stop_at_once};
    if (has_graphs(life))
        CALL(life, "index wait", ({
                 int status = vecdb_index_wait(life->graphs, NULL, 0, is_stopped ? &work : NULL, &err);
                 is_stopped && status == VECDB_INTERRUPTED ? VECDB_OK : status;
             }));
}

static double distance_of(int key, const float *query)
{
    float vector[GRAPH_DIMENSION];
    double sum = 0;
    fill_graph_vector(key, vector);
    for (int i = 0; i < GRAPH_DIMENSION; i++)
        sum += ((double)vector[i] - (double)query[i]) * ((double)vector[i] - (double)query[i]);
    return sqrt(sum);
}

/* Of the nearest of each of N_QUERIES queries, how many are at most as far as the true one; -1: the search failed. */
static int search_graph(struct life *life, bool is_exact)
{
    static float queries[N_QUERIES][GRAPH_DIMENSION];
    vecdb_results *results;
    int n_right = 0;
    for (int q = 0; q < N_QUERIES; q++)
        for (uint32_t i = 0; i < GRAPH_DIMENSION; i++)
            queries[q][i] = value_of(q, 2, i + 2);
    vecdb_query query = {.size = sizeof query, .vector = queries, .n_queries = N_QUERIES, .k = 10, .exact = is_exact};
    if (!has_graphs(life) || !CALL(life, "search", vecdb_search(life->graphs, &query, &results, &err)))
        return -1;
    for (size_t q = 0; q < N_QUERIES; q++) {
        double nearest = INFINITY;
        size_t first, n;
        for (int key = 0; key < GRAPH_KEYS; key++)
            if (life->rows[key] == ROW_IS_THERE)
                nearest = fmin(nearest, distance_of(key, queries[q]));
        vecdb_results_range(results, q, &first, &n);
        for (size_t i = 0; i < n; i++) {
            int key = (int)vecdb_result_key(results, first + i).integer;
            double distance = distance_of(key, queries[q]), said = vecdb_result_distance(results, first + i);
            if (life->rows[key] == ROW_IS_DELETED || fabs(distance - said) > 1e-4)
                FAIL("%s: query %zu finds key %d at %g, which is at %g or deleted", trial, q, key, said, distance);
        }
        n_right += n ? vecdb_result_distance(results, first) <= nearest + 1e-4 : isinf(nearest);
    }
    vecdb_results_free(results);
    return n_right;
}

static void describe_graph(struct life *life)
{
    vecdb_index_info info = {.size = sizeof info};
    if (has_graphs(life))
        CALL(life, "describe index", vecdb_index_describe(life->graphs, NULL, &info, &err));
}

/* After a life, when nothing fails any more: what is acknowledged is there, and a graph finds it. */
static void check_graph(struct life *life)
{
    static vecdb_key keys[GRAPH_KEYS];
    vecdb_results *results;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_index_info info = {.size = sizeof info};
    if (vecdb_collection_open(life->db, "graphs", &life->graphs, &err)) {
        CHECK(!memchr(life->rows, ROW_IS_THERE, sizeof life->rows));
        return;
    }
    for (int key = 0; key < GRAPH_KEYS; key++)
        keys[key] = vecdb_key_int(key);
    CHECK_OK(err, vecdb_get(life->graphs, keys, GRAPH_KEYS, VECDB_VECTORS, &results, &err));
    for (size_t key = 0; key < GRAPH_KEYS; key++) {
        float vector[GRAPH_DIMENSION];
        bool found = vecdb_result_found(results, key);
        fill_graph_vector((int)key, vector);
        if (life->rows[key] != ROW_IS_UNKNOWN && found != (life->rows[key] == ROW_IS_THERE))
            FAIL("%s: the record of key %zu is %s", trial, key, found ? "there again" : "lost");
        if (found && memcmp(vecdb_result_vector(results, key, NULL, NULL, NULL), vector, sizeof vector))
            FAIL("%s: the vector of key %zu is not its own", trial, key);
        life->rows[key] = found ? ROW_IS_THERE : ROW_IS_DELETED;
    }
    vecdb_results_free(results);
    build_graph(life, false);
    CHECK_OK(err, vecdb_index_describe(life->graphs, NULL, &info, &err));
    CHECK(info.n_vectors < VDB_INDEX_LEAST_ROWS || info.kind == info.wanted);
    CHECK_SIZE(info.n_indexed, info.n_vectors);
    CHECK_INT(search_graph(life, true), N_QUERIES);
    int n_right = search_graph(life, false);
    if (n_right < N_QUERIES * 8 / 10)
        FAIL("%s: the graph finds %d of %d", trial, n_right, N_QUERIES);
}

/* ------------------------------------------------------------------ the lives */

/* A graph begins, gets more rows than it has room for while it is being built, is published, gets a delta of
 * copies, is loaded by two handles, and is swept when many of its rows are deleted. */
static void live_with_a_graph(struct life *life)
{
    struct life reader = *life;
    if (!begin(life))
        return;
    put_ledger(life);
    write_rows(life, 0, FEW_ROWS);
    build_graph(life, true);
    write_rows(life, FEW_ROWS, FIRST_COPY - FEW_ROWS);
    search_graph(life, false);
    build_graph(life, false);
    search_graph(life, false);
    describe_graph(life);
    write_rows(life, FIRST_COPY, GRAPH_KEYS - FIRST_COPY);
    build_graph(life, false);
    search_graph(life, false);
    close_db(life);
    if (!begin(life))
        return;
    reader.n_failed = life->n_failed;
    memcpy(reader.rows, life->rows, sizeof reader.rows);
    if (open_db(&reader, VECDB_OPEN_READONLY)) {
        if (CALL(&reader, "collection", vecdb_collection_open(reader.db, "graphs", &reader.graphs, &err))) {
            build_graph(&reader, false);
            search_graph(&reader, false);
        }
        close_db(&reader);
    }
    build_graph(life, false);
    search_graph(life, false);
    look_at_all(life);
    delete_rows(life, 100, 900);
    search_graph(life, false);
    build_graph(life, false);
    search_graph(life, false);
    compact(life);
    put_ledger(life);
    close_db(life);
}

/* The name of the only index file; "": there is none, or there are several. */
static void find_index_file(const struct life *life, char name[64])
{
    int n = 0;
    DIR *directory = opendir(life->path);
    CHECK(directory);
    for (struct dirent *entry; (entry = readdir(directory));)
        if (!strncmp(entry->d_name, "index-", 6) && ++n)
            snprintf(name, 64, "%.63s", entry->d_name);
    closedir(directory);
    if (n != 1)
        name[0] = 0;
}

/* The file of a graph is damaged, which a check tells and a wait heals; it gets another kind and its own again; a copy
 * of the database has none; and with its collection it goes. */
static void live_with_lost_graphs(struct life *life)
{
    char name[300], file[64];
    if (!begin(life))
        return;
    put_ledger(life);
    write_rows(life, 0, FEW_ROWS);
    build_graph(life, false);
    close_db(life);
    find_index_file(life, file);
    if (file[0])
        flip(life, file, 3000);
    life->has_lost_graph = life->is_damaged;
    life->is_damaged = false; /* nothing of the truth is */
    snprintf(name, sizeof name, "%s/index-77-1", life->path);
    write_file(name, "debris", 6);
    if (!begin(life))
        return;
    uint64_t n_problems = 0;
    if (CALL(life, "check", vecdb_check(life->db, NULL, note_problem, NULL, &n_problems, &err)) && !inject_has_failed())
        CHECK_SIZE(n_problems, 1);
    build_graph(life, false);
    search_graph(life, false);
    look_at_all(life);
    if (has_graphs(life)) {
        CALL(life, "set index", vecdb_field_set_index(life->graphs, "v", VECDB_INDEX_FLAT, &err));
        search_graph(life, false);
        CALL(life, "set index", vecdb_field_set_index(life->graphs, "v", VECDB_INDEX_HNSW, &err));
    }
    build_graph(life, false);
    CALL(life, "snapshot", vecdb_snapshot_create(life->db, "with a graph", &err));
    life->has_backup = CALL(life, "backup", vecdb_backup(life->db, life->other, NULL, &err));
    write_rows(life, FEW_ROWS, 20); /* fewer than are worth a delta */
    build_graph(life, false);
    search_graph(life, false);
    memset(life->rows + FEW_ROWS, ROW_IS_UNKNOWN, 20);
    close_db(life);
    if (life->has_backup)
        CALL(life, "restore", vecdb_restore(life->other, life->path, NULL, &err));
    if (!begin(life))
        return;
    build_graph(life, false);
    search_graph(life, false);
    if (life->graphs && CALL(life, "drop", vecdb_collection_drop(life->db, "graphs", &err)))
        memset(life->rows, ROW_IS_UNKNOWN, sizeof life->rows);
    life->graphs = NULL;
    compact(life);
    put_ledger(life);
    close_db(life);
}

/* The thread of the handle builds, and whoever searches meanwhile does without. What fails there is told later. */
static void live_with_a_graph_in_the_background(struct life *life)
{
    vecdb_index_info info = {.size = sizeof info};
    life->options.threads = 2;
    if (!begin(life))
        return;
    put_ledger(life);
    write_rows(life, 0, FEW_ROWS + 100);
    search_graph(life, false);
    inject_enter();
    for (int i = 0; i < 500 && has_graphs(life) && !inject_has_failed(); i++) {
        usleep(2000);
        if (vecdb_index_describe(life->graphs, NULL, &info, NULL))
            break;
        if (info.kind == VECDB_INDEX_HNSW && !info.is_building)
            break;
    }
    inject_leave();
    search_graph(life, false);
    write_rows(life, FEW_ROWS + 100, 100);
    build_graph(life, false);
    search_graph(life, false);
    put_ledger(life);
    close_db(life);
}

#endif
