/* SPDX-License-Identifier: Apache-2.0
 *
 * Many threads on one database: whatever they do at once, every answer is of one committed state, a
 * reader that starts after a commit returned sees it, nothing fails that should not, and a long search can
 * be stopped without harm.
 *
 * Atomic batches are told by their version: one put writes the same version number into the vectors,
 * the metadata and the texts of a whole group of records, so that an answer that mixes two states shows.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/random.h"
#include "database.h"
#include "harness.h"

#define MOST_THREADS 12
#define GROUP 24       /* records of a group, written by one put */
#define N_GROUPS 4     /* each has one writer */
#define DIMENSION 16
#define BULK_ROWS 2100 /* times 64 bytes: above what goes straight into a file */

/* The second value of a vector is its group, the third its version; the first tells records apart. */
static void make_vector(float *vector, int group, unsigned version, int i)
{
    memset(vector, 0, DIMENSION * sizeof *vector);
    vector[0] = (float)i * 0.001f;
    vector[1] = (float)group * 1000;
    vector[2] = (float)version;
}

struct arena {
    vecdb *db;
    vecdb_collection *collection;
    _Atomic unsigned committed[N_GROUPS]; /* version whose put has returned */
    _Atomic bool ends;
    _Atomic unsigned n_reads;
    _Atomic unsigned n_bulk;    /* bulk batches committed */
};

struct thread {
    pthread_t id;
    struct arena *arena;
    int number;
};

static void run(struct arena *arena, struct thread *threads, int *n, void *(*body)(void *), int number)
{
    struct thread *thread = &threads[(*n)++];
    CHECK(*n <= MOST_THREADS);
    *thread = (struct thread){.arena = arena, .number = number};
    CHECK(!pthread_create(&thread->id, NULL, body, thread));
}

static void join_all(struct thread *threads, int n)
{
    for (int i = 0; i < n; i++)
        pthread_join(threads[i].id, NULL);
}

static void sleep_ms(unsigned ms)
{
    struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&time, NULL);
}

static void open_arena(struct arena *arena, const char *path, int threads)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_options options = {.size = sizeof options, .threads = threads, .busy_timeout_ms = 60000};
    vecdb_field field = {.name = "v", .dimension = DIMENSION, .metric = VECDB_L2};
    memset(arena, 0, sizeof *arena);
    CHECK_OK(err, vecdb_open(path, &options, &arena->db, &err));
    CHECK_OK(err, vecdb_collection_create(arena->db, "c", &field, 1, 0, &arena->collection, &err));
}

static void close_arena(struct arena *arena)
{
    vecdb_error err = VECDB_ERROR_INIT;
    uint64_t n_problems;
    CHECK_OK(err, vecdb_background_error(arena->db, &err));
    CHECK_OK(err, vecdb_check(arena->db, NULL, NULL, NULL, &n_problems, &err));
    CHECK_SIZE(n_problems, 0);
    vecdb_close(arena->db);
}

/* ------------------------------------------------------------------ groups with versions */

static int put_group(struct arena *arena, int group, unsigned version, vecdb_error *err)
{
    float vectors[GROUP][DIMENSION];
    char metadata[32], text[32];
    vecdb_record records[GROUP];
    snprintf(metadata, sizeof metadata, "{\"version\":%u}", version);
    snprintf(text, sizeof text, "%u", version);
    for (int i = 0; i < GROUP; i++) {
        make_vector(vectors[i], group, version, i);
        records[i] = (vecdb_record){.key = VECDB_KEY_INT(group * 100 + i),
                                    .vector = vectors[i],
                                    .metadata = metadata,
                                    .text = group % 2 ? text : NULL};
    }
    return vecdb_put(arena->collection, records, GROUP, err);
}

static void *write_group(void *context)
{
    struct thread *self = context;
    struct arena *arena = self->arena;
    vecdb_error err = VECDB_ERROR_INIT;
    for (unsigned version = 1; !atomic_load(&arena->ends); version++) {
        CHECK_OK(err, put_group(arena, self->number, version, &err));
        atomic_store(&arena->committed[self->number], version);
    }
    return NULL;
}

/* A search near a group gives its records first: all of them, of one version, at least `known`. */
static void search_group(struct arena *arena, int group, int columns)
{
    float vector[DIMENSION];
    vecdb_error err = VECDB_ERROR_INIT;
    unsigned known = atomic_load(&arena->committed[group]);
    make_vector(vector, group, known, 0);
    vecdb_query query = {.size = sizeof query,
                         .vector = vector,
                         .k = GROUP,
                         .columns = columns | VECDB_VECTORS,
                         .threads = 1 + group % 2};
    vecdb_results *results;
    CHECK_OK(err, vecdb_search(arena->collection, &query, &results, &err));
    size_t n = vecdb_results_count(results), n_of_group = 0;
    float version = -1;
    for (size_t i = 0; i < n; i++) {
        const float *found = vecdb_result_vector(results, i, NULL, NULL, NULL);
        int64_t key = vecdb_result_key(results, i).integer;
        CHECK(found);
        if (key / 100 != group)
            continue;
        CHECK(found[1] == (float)group * 1000);
        CHECK(version < 0 || version == found[2]);
        version = found[2];
        n_of_group++;
        if (columns & VECDB_METADATA) {
            char metadata[32];
            snprintf(metadata, sizeof metadata, "{\"version\":%u}", (unsigned)version);
            CHECK_STRING(vecdb_result_metadata(results, i, NULL), metadata);
        }
    }
    if (known) {
        CHECK_SIZE(n_of_group, GROUP);
        CHECK_LE(known, version);
    }
    vecdb_results_free(results);
}

static void get_group(struct arena *arena, int group)
{
    vecdb_key keys[GROUP];
    vecdb_error err = VECDB_ERROR_INIT;
    unsigned known = atomic_load(&arena->committed[group]), version = 0;
    vecdb_results *results;
    for (int i = 0; i < GROUP; i++)
        keys[i] = vecdb_key_int(group * 100 + i);
    int columns = VECDB_METADATA | VECDB_TEXT | VECDB_VECTORS;
    CHECK_OK(err, vecdb_get(arena->collection, keys, GROUP, columns, &results, &err));
    for (size_t i = 0; i < GROUP; i++) {
        CHECK_INT(vecdb_result_found(results, i), vecdb_result_found(results, 0));
        if (!vecdb_result_found(results, i)) {
            CHECK_INT(known, 0);
            continue;
        }
        const float *vector = vecdb_result_vector(results, i, NULL, NULL, NULL);
        unsigned of_metadata;
        CHECK(vector && sscanf(vecdb_result_metadata(results, i, NULL), "{\"version\":%u}", &of_metadata) == 1);
        CHECK_INT(of_metadata, (unsigned)vector[2]);
        if (group % 2)
            CHECK_INT(atoi(vecdb_result_text(results, i)), of_metadata);
        CHECK(!version || version == of_metadata);
        version = of_metadata;
    }
    CHECK_LE(known, version);
    vecdb_results_free(results);
}

/* A scan, taken slowly, is of one state from its beginning to its end. */
static void scan_groups(struct arena *arena)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_scan_options options = {.size = sizeof options, .columns = VECDB_VECTORS, .batch_rows = 7};
    unsigned known[N_GROUPS], seen[N_GROUPS] = {0}, n_seen[N_GROUPS] = {0};
    for (int g = 0; g < N_GROUPS; g++)
        known[g] = atomic_load(&arena->committed[g]);
    vecdb_scan *scan;
    CHECK_OK(err, vecdb_scan_open(arena->collection, &options, &scan, &err));
    for (size_t n = 1; n;) {
        vecdb_results *results;
        CHECK_OK(err, vecdb_scan_next(scan, &results, &err));
        n = vecdb_results_count(results);
        for (size_t i = 0; i < n; i++) {
            int64_t key = vecdb_result_key(results, i).integer;
            if (key < 0 || key >= N_GROUPS * 100)
                continue;
            const float *vector = vecdb_result_vector(results, i, NULL, NULL, NULL);
            CHECK(vector);
            CHECK(!n_seen[key / 100] || seen[key / 100] == (unsigned)vector[2]);
            seen[key / 100] = (unsigned)vector[2];
            n_seen[key / 100]++;
        }
        vecdb_results_free(results);
    }
    for (int g = 0; g < N_GROUPS; g++) {
        CHECK(n_seen[g] == (seen[g] ? GROUP : 0));
        CHECK_LE(known[g], seen[g]);
    }
    vecdb_scan_close(scan);
}

static void *read_groups(void *context)
{
    struct thread *self = context;
    struct arena *arena = self->arena;
    struct vdb_random random = {test_seed() + (uint64_t)self->number};
    while (!atomic_load(&arena->ends)) {
        int group = (int)vdb_random_below(&random, N_GROUPS);
        switch (vdb_random_below(&random, 5)) {
        case 0:
            get_group(arena, group);
            break;
        case 1:
            scan_groups(arena);
            break;
        case 2:
            search_group(arena, group, VECDB_METADATA);
            break;
        default:
            search_group(arena, group, 0);
        }
        atomic_fetch_add(&arena->n_reads, 1);
    }
    return NULL;
}

/* ------------------------------------------------------------------ bulk batches, compaction */

/* Batches of many rows under negative keys: each replaces or deletes the one before. */
static void *write_bulk(void *context)
{
    struct thread *self = context;
    struct arena *arena = self->arena;
    static float values[BULK_ROWS * DIMENSION]; /* there is one such thread */
    static int64_t integers[BULK_ROWS];
    static vecdb_key keys[BULK_ROWS];
    vecdb_error err = VECDB_ERROR_INIT;
    for (unsigned n = 1; !atomic_load(&arena->ends); n++) {
        for (int i = 0; i < BULK_ROWS; i++) {
            values[i * DIMENSION] = -1e6f - (float)n;
            integers[i] = -1 - i;
            keys[i] = vecdb_key_int(integers[i]);
        }
        vecdb_vector_column column = {.values = values};
        vecdb_batch batch = {
            .size = sizeof batch, .n_rows = BULK_ROWS, .integer_keys = integers, .vectors = &column, .n_vectors = 1};
        CHECK_OK(err, vecdb_write(arena->collection, &batch, &err));
        atomic_store(&arena->n_bulk, n);
        if (n % 3 == 0) {
            uint64_t n_deleted;
            CHECK_OK(err, vecdb_delete(arena->collection, keys, BULK_ROWS, &n_deleted, &err));
            CHECK_SIZE(n_deleted, BULK_ROWS);
        }
    }
    return NULL;
}

/* Near a bulk batch there is all of one, or nothing of any. */
static void *read_bulk(void *context)
{
    struct thread *self = context;
    struct arena *arena = self->arena;
    float vector[DIMENSION] = {-1e6f};
    vecdb_error err = VECDB_ERROR_INIT;
    while (!atomic_load(&arena->ends)) {
        vecdb_query query = {
            .size = sizeof query, .vector = vector, .k = BULK_ROWS, .columns = VECDB_VECTORS};
        vecdb_results *results;
        CHECK_OK(err, vecdb_search(arena->collection, &query, &results, &err));
        size_t n = vecdb_results_count(results), n_bulk = 0;
        float version = 0;
        for (size_t i = 0; i < n; i++) {
            if (vecdb_result_key(results, i).integer >= 0)
                continue;
            const float *found = vecdb_result_vector(results, i, NULL, NULL, NULL);
            CHECK(found && (!n_bulk || found[0] == version));
            version = found[0];
            n_bulk++;
        }
        CHECK(n_bulk == 0 || n_bulk == BULK_ROWS);
        vecdb_results_free(results);
        atomic_fetch_add(&arena->n_reads, 1);
    }
    return NULL;
}

static void *compact_again(void *context)
{
    struct thread *self = context;
    struct arena *arena = self->arena;
    vecdb_error err = VECDB_ERROR_INIT;
    while (!atomic_load(&arena->ends)) {
        CHECK_OK(err, vecdb_compact(arena->db, NULL, &err));
        sleep_ms(3);
    }
    return NULL;
}

static int count_records(void *context, const vecdb_collection_info *info)
{
    *(uint64_t *)context += info->n_records;
    return 0;
}

/* Handles, descriptions and statistics meanwhile. */
static void *look_around(void *context)
{
    struct thread *self = context;
    struct arena *arena = self->arena;
    vecdb_error err = VECDB_ERROR_INIT;
    uint64_t last = 0;
    while (!atomic_load(&arena->ends)) {
        vecdb_stats stats = {.size = sizeof stats};
        uint64_t n = 0;
        vecdb_collection *same;
        CHECK_OK(err, vecdb_database_stats(arena->db, &stats, &err));
        CHECK(stats.sequence >= last);
        last = stats.sequence;
        CHECK_OK(err, vecdb_collections(arena->db, count_records, &n, &err));
        CHECK(n <= N_GROUPS * GROUP + BULK_ROWS && (n % BULK_ROWS) % GROUP == 0);
        CHECK_OK(err, vecdb_collection_open(arena->db, "c", &same, &err));
        CHECK(same == arena->collection);
    }
    return NULL;
}

static void run_all(const char *path, int pool)
{
    struct arena arena;
    struct thread threads[MOST_THREADS];
    int n = 0;
    open_arena(&arena, path, pool);
    for (int g = 0; g < N_GROUPS; g++)
        run(&arena, threads, &n, write_group, g);
    for (int i = 0; i < 3; i++)
        run(&arena, threads, &n, read_groups, i);
    run(&arena, threads, &n, write_bulk, 0);
    run(&arena, threads, &n, read_bulk, 0);
    run(&arena, threads, &n, compact_again, 0);
    run(&arena, threads, &n, look_around, 0);
    sleep_ms(2000);
    atomic_store(&arena.ends, true);
    join_all(threads, n);
    CHECK(arena.n_reads > 0 && arena.n_bulk > 0);
    for (int g = 0; g < N_GROUPS; g++) {
        CHECK(arena.committed[g] > 0);
        get_group(&arena, g);
    }
    close_arena(&arena);
}

TEST(every_answer_is_of_one_state_while_many_threads_read_write_and_compact)
{
    run_all(test_path("db"), 2);
}

TEST(every_answer_is_of_one_state_in_memory)
{
    run_all(":memory:", 2);
}

TEST(every_answer_is_of_one_state_without_a_background_thread)
{
    run_all(test_path("db"), VECDB_THREADS_NONE);
}

/* ------------------------------------------------------------------ drops and renames */

/* What may be answered when the collection may be gone. */
static void allow_dropped(const char *call, int status, const vecdb_error *err)
{
    if (status && status != VECDB_NOT_FOUND)
        FAIL("%s: %s: %s", call, vecdb_status_name(status), err->message);
}

static void *use_what_may_vanish(void *context)
{
    struct thread *self = context;
    struct arena *arena = self->arena;
    struct vdb_random random = {test_seed() + (uint64_t)self->number};
    float vector[DIMENSION] = {1};
    vecdb_error err = VECDB_ERROR_INIT;
    while (!atomic_load(&arena->ends)) {
        vecdb_collection *collection;
        vecdb_results *results;
        vecdb_record record = {.key = VECDB_KEY_INT((int64_t)vdb_random_below(&random, 50)), .vector = vector};
        vecdb_query query = {.size = sizeof query, .vector = vector, .k = 10};
        int status = vecdb_collection_open(arena->db, vdb_random_below(&random, 2) ? "x" : "y", &collection, &err);
        allow_dropped("open", status, &err);
        for (int i = 0; i < 4 && !status; i++) {
            status = vecdb_put(collection, &record, 1, &err);
            allow_dropped("put", status, &err);
            if (status)
                break;
            status = vecdb_search(collection, &query, &results, &err);
            allow_dropped("search", status, &err);
            if (!status)
                vecdb_results_free(results);
        }
        atomic_fetch_add(&arena->n_reads, !status);
    }
    return NULL;
}

static void *change_collections(void *context)
{
    struct thread *self = context;
    struct arena *arena = self->arena;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_field field = {.name = "v", .dimension = DIMENSION, .metric = VECDB_L2};
    vecdb_field more = {.name = "more", .dimension = 3};
    vecdb_collection *collection;
    for (int i = 0; !atomic_load(&arena->ends); i++) {
        CHECK_OK(err, vecdb_collection_create(arena->db, "x", &field, 1, 0, &collection, &err));
        sleep_ms(4);
        CHECK_OK(err, vecdb_field_add(collection, &more, &err));
        CHECK_OK(err, vecdb_collection_rename(arena->db, "x", "y", &err));
        sleep_ms(2);
        CHECK_OK(err, vecdb_field_rename(collection, "more", "less", &err));
        CHECK_OK(err, vecdb_field_drop(collection, "less", &err));
        sleep_ms(2);
        CHECK_OK(err, vecdb_collection_drop(arena->db, "y", &err));
    }
    return NULL;
}

TEST(collections_and_fields_may_change_and_vanish_under_their_users)
{
    struct arena arena;
    struct thread threads[MOST_THREADS];
    int n = 0;
    open_arena(&arena, test_path("db"), 2);
    run(&arena, threads, &n, change_collections, 0);
    for (int i = 0; i < 4; i++)
        run(&arena, threads, &n, use_what_may_vanish, i);
    run(&arena, threads, &n, compact_again, 0);
    sleep_ms(1500);
    atomic_store(&arena.ends, true);
    join_all(threads, n);
    CHECK(arena.n_reads > 0);
    close_arena(&arena);
}

/* ------------------------------------------------------------------ stopping */

#define LONG_ROWS 20000
#define LONG_QUERIES 4000 /* times rows, times dimensions: seconds */

static void fill_long(struct arena *arena)
{
    struct vdb_random random = {test_seed()};
    vecdb_error err = VECDB_ERROR_INIT;
    static float values[LONG_ROWS * DIMENSION];
    static int64_t keys[LONG_ROWS];
    for (int i = 0; i < LONG_ROWS; i++)
        keys[i] = i;
    for (int i = 0; i < LONG_ROWS * DIMENSION; i++)
        values[i] = (float)vdb_random_unit(&random);
    vecdb_vector_column column = {.values = values};
    vecdb_batch batch = {
        .size = sizeof batch, .n_rows = LONG_ROWS, .integer_keys = keys, .vectors = &column, .n_vectors = 1};
    CHECK_OK(err, vecdb_write(arena->collection, &batch, &err));
}

/* Many queries, each of its own, with a large k. */
static int search_long(struct arena *arena, uint32_t timeout_ms, vecdb_results **results, vecdb_error *err)
{
    static float queries[LONG_QUERIES][DIMENSION];
    vecdb_query query = {.size = sizeof query,
                         .vector = queries,
                         .n_queries = LONG_QUERIES,
                         .k = 200,
                         .columns = VECDB_KEYS_ONLY,
                         .timeout_ms = timeout_ms};
    return vecdb_search(arena->collection, &query, results, err);
}

static void check_usable(struct arena *arena)
{
    float vector[DIMENSION] = {0.5f};
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_query query = {.size = sizeof query, .vector = vector, .k = 3, .timeout_ms = 60000};
    vecdb_results *results;
    CHECK_OK(err, vecdb_search(arena->collection, &query, &results, &err));
    CHECK_SIZE(vecdb_results_count(results), 3);
    vecdb_results_free(results);
    CHECK_OK(err, put_group(arena, 900, 1, &err));
}

TEST(a_timeout_ends_a_long_search_and_nothing_else)
{
    struct arena arena;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_results *results = NULL;
    open_arena(&arena, test_path("db"), 2);
    fill_long(&arena);
    CHECK_FAILS(err, VECDB_TIMEOUT, "1 ms", search_long(&arena, 1, &results, &err));
    CHECK(!results);
    check_usable(&arena);
    close_arena(&arena);
}

static void *interrupt_again(void *context)
{
    struct thread *self = context;
    while (!atomic_load(&self->arena->ends)) {
        vecdb_interrupt(self->arena->db);
        sleep_ms(1);
    }
    return NULL;
}

TEST(an_interrupt_ends_a_long_search_and_nothing_else)
{
    struct arena arena;
    struct thread thread[MOST_THREADS];
    int n = 0;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_results *results = NULL;
    open_arena(&arena, test_path("db"), 2);
    fill_long(&arena);
    vecdb_interrupt(arena.db); /* a call that starts afterwards is not touched */
    check_usable(&arena);
    run(&arena, thread, &n, interrupt_again, 0);
    CHECK_FAILS(err, VECDB_INTERRUPTED, "interrupted", search_long(&arena, 0, &results, &err));
    CHECK(!results);
    atomic_store(&arena.ends, true);
    join_all(thread, n);
    check_usable(&arena);
    close_arena(&arena);
}

static void *search_while_closing(void *context)
{
    struct thread *self = context;
    vecdb_error err = VECDB_ERROR_INIT;
    for (unsigned version = 1; version < 6; version++)
        CHECK_OK(err, put_group(self->arena, self->number, version, &err));
    return NULL;
}

TEST(many_threads_open_write_and_close_handles_of_their_own)
{
    enum { ROUNDS = 6 };
    for (int round = 0; round < ROUNDS; round++) {
        struct arena arenas[3];
        struct thread threads[MOST_THREADS];
        vecdb_options options = {.size = sizeof options, .threads = 2, .busy_timeout_ms = 60000};
        vecdb_field field = {.name = "v", .dimension = DIMENSION, .metric = VECDB_L2};
        vecdb_error err = VECDB_ERROR_INIT;
        int n = 0;
        for (int i = 0; i < 3; i++) {
            memset(&arenas[i], 0, sizeof arenas[i]);
            CHECK_OK(err, vecdb_open(test_path("db"), &options, &arenas[i].db, &err));
            CHECK_OK(err, vecdb_collection_create(arenas[i].db, "c", &field, 1, 1, &arenas[i].collection, &err));
            run(&arenas[i], threads, &n, search_while_closing, 2 * i);
            run(&arenas[i], threads, &n, search_while_closing, 2 * i + 1);
        }
        join_all(threads, n);
        for (int i = 0; i < 3; i++)
            get_group(&arenas[i], 2 * ((i + 1) % 3));
        for (int i = 0; i < 3; i++)
            vecdb_close(arenas[i].db);
    }
}

/* ------------------------------------------------------------------ background work */

static _Atomic bool vectors_fail;

static int fail_vectors(void *context, enum vdb_io_op op, const char *path)
{
    (void)context;
    return atomic_load(&vectors_fail) && op == VDB_IO_SYNC && strstr(path, "vectors-") ? EIO : 0;
}

TEST(an_error_of_background_work_is_reported_once_and_the_work_is_done_later)
{
    static const struct vdb_io_hook hook = {.before = fail_vectors};
    struct arena arena = {0};
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_options options = {.size = sizeof options, .threads = 2};
    vecdb_field field = {.name = "v", .dimension = DIMENSION, .metric = VECDB_L2};
    atomic_store(&vectors_fail, true);
    CHECK_OK(err, vdb_database_open(test_path("db"), &options, &hook, &arena.db, &err));
    CHECK_OK(err, vecdb_collection_create(arena.db, "c", &field, 1, 0, &arena.collection, &err));
    int group = 0, status = VECDB_OK;
    /* Small puts until there is enough to pack; then the worker fails, some time. */
    for (; group < 4000 && !status; group++) {
        CHECK_OK(err, put_group(&arena, group, 1, &err));
        if (group * GROUP > 4200)
            sleep_ms(1);
        status = vecdb_background_error(arena.db, &err);
    }
    CHECK_INT(status, VECDB_IO);
    CHECK_CONTAINS(err.message, "vectors-");
    atomic_store(&vectors_fail, false);
    for (int last = group + 40; group < last; group++)
        CHECK_OK(err, put_group(&arena, group, 1, &err));
    CHECK_OK(err, vecdb_compact(arena.db, NULL, &err));
    vecdb_background_error(arena.db, NULL); /* perhaps one more failure from before */
    uint64_t n = 0;
    CHECK_OK(err, vecdb_collections(arena.db, count_records, &n, &err));
    CHECK_SIZE(n, (uint64_t)group * GROUP);
    close_arena(&arena);
}
