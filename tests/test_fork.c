/* SPDX-License-Identifier: Apache-2.0
 *
 * A process may fork at any moment, and its child may open the same databases: whatever the parent's threads
 * were doing just then, nobody waits for a lock that nobody holds, nobody works without the locks that it
 * needs, and nothing acknowledged is lost.
 *
 *     parent     writer, writer, searcher, scanner, compactor, opener    threads that never stop
 *       fork ->  child: open, put, look, close; exit() and _exit() in turn
 *       fork ->  child: ...
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "fault_tools.h"
#include "storage/state.h"

#define DIMENSION 64u
#define BATCH 8

static _Atomic bool is_over;
static _Atomic long n_calls;
static _Atomic int n_acknowledged[3]; /* batches of the two writers; of the children */

/* Patient: a busy disk may take a second for a sync, and eight writers wait for each other's. */
static vecdb *open_patiently(int mode, int threads)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_options options = {.size = sizeof options, .mode = mode, .threads = threads, .busy_timeout_ms = 60000};
    vecdb *db = NULL;
    CHECK_OK(err, vecdb_open(test_path("db"), &options, &db, &err));
    return db;
}

static vecdb_collection *open_collection(vecdb *db)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_field field = {.name = "v", .dimension = DIMENSION, .metric = VECDB_L2};
    vecdb_collection *collection = NULL;
    CHECK_OK(err, vecdb_collection_create(db, "c", &field, 1, VECDB_IF_MISSING, &collection, &err));
    return collection;
}

/* Batch `number` of a writer: keys from writer * 1,000,000 + number * BATCH on. */
static int64_t first_key(int writer, int number)
{
    return (int64_t)writer * 1000000 + (int64_t)number * BATCH;
}

static void put_batch(vecdb_collection *collection, int writer, int number, int n_rows)
{
    vecdb_error err = VECDB_ERROR_INIT;
    float *vectors = vdb_alloc_array(tool_memory(), (size_t)n_rows * DIMENSION, sizeof *vectors);
    int64_t *keys = vdb_alloc_array(tool_memory(), (size_t)n_rows, sizeof *keys);
    CHECK(vectors && keys);
    for (int i = 0; i < n_rows; i++) {
        keys[i] = first_key(writer, number) + i;
        fill_vector(keys[i], 1, DIMENSION, vectors + (size_t)i * DIMENSION);
    }
    vecdb_vector_column column = {.field = "v", .values = vectors, .dimension = DIMENSION};
    vecdb_batch batch = {
        .size = sizeof batch, .n_rows = (size_t)n_rows, .integer_keys = keys, .vectors = &column, .n_vectors = 1};
    CHECK_OK(err, vecdb_write(collection, &batch, &err));
    vdb_free(tool_memory(), vectors);
    vdb_free(tool_memory(), keys);
}

static void check_batch(vecdb_collection *collection, int writer, int number)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_key keys[BATCH];
    vecdb_results *results;
    for (int i = 0; i < BATCH; i++)
        keys[i] = vecdb_key_int(first_key(writer, number) + i);
    CHECK_OK(err, vecdb_get(collection, keys, BATCH, VECDB_VECTORS, &results, &err));
    for (size_t i = 0; i < BATCH; i++) {
        if (!vecdb_result_found(results, i))
            FAIL("batch %d of writer %d has lost key %lld", number, writer, (long long)keys[i].integer);
        CHECK_INT(version_of_vector(keys[i].integer, vecdb_result_vector(results, i, NULL, NULL, NULL), DIMENSION), 1);
    }
    vecdb_results_free(results);
}

static void search_once(vecdb_collection *collection)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_results *results;
    float vector[DIMENSION] = {1};
    vecdb_query query = {.size = sizeof query, .vector = vector, .k = 3, .columns = VECDB_VECTORS};
    CHECK_OK(err, vecdb_search(collection, &query, &results, &err));
    for (size_t i = 0; i < vecdb_results_count(results); i++)
        version_of_vector(vecdb_result_key(results, i).integer, vecdb_result_vector(results, i, NULL, NULL, NULL),
                          DIMENSION);
    vecdb_results_free(results);
}

/* ------------------------------------------------------------------ the parent's threads */

struct worker {
    vecdb *db;
    vecdb_collection *collection;
    int number;
};

static void *write_on(void *context)
{
    struct worker *worker = context;
    for (int number = 1; !is_over; number++) {
        put_batch(worker->collection, worker->number, number, number % 16 ? BATCH : 600);
        atomic_store(&n_acknowledged[worker->number], number);
        n_calls++;
    }
    return NULL;
}

static void *search_on(void *context)
{
    struct worker *worker = context;
    for (; !is_over; n_calls++)
        search_once(worker->collection);
    return NULL;
}

static void *scan_on(void *context)
{
    struct worker *worker = context;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_scan_options options = {.size = sizeof options, .columns = VECDB_VECTORS, .batch_rows = 50};
    while (!is_over) {
        vecdb_scan *scan;
        CHECK_OK(err, vecdb_scan_open(worker->collection, &options, &scan, &err));
        for (size_t n = 1; n; n_calls++) {
            vecdb_results *results;
            CHECK_OK(err, vecdb_scan_next(scan, &results, &err));
            n = vecdb_results_count(results);
            vecdb_results_free(results);
        }
        vecdb_scan_close(scan);
    }
    return NULL;
}

static void *compact_on(void *context)
{
    struct worker *worker = context;
    for (; !is_over; n_calls++) {
        vecdb_error err = VECDB_ERROR_INIT;
        int status = vecdb_compact(worker->db, NULL, &err);
        if (status && status != VECDB_BUSY) /* a child is the maintainer */
            FAIL("compact: %s", err.message);
    }
    return NULL;
}

static void *open_on(void *context)
{
    (void)context;
    for (; !is_over; n_calls++)
        vecdb_close(open_patiently(VECDB_OPEN_EXISTING, 1));
    return NULL;
}

static void *(*const bodies[])(void *) = {write_on, write_on, search_on, scan_on, compact_on, open_on};
#define N_THREADS (sizeof bodies / sizeof *bodies)

/* ------------------------------------------------------------------ children */

static void be_a_child(int number, int expected_1, int expected_2)
{
    is_over = true; /* and there are no other threads here */
    test_time_limit(60);
    vecdb *db = open_patiently(VECDB_OPEN_EXISTING, number % 3 ? VECDB_THREADS_NONE : 2);
    vecdb_collection *collection = open_collection(db);
    if (expected_1)
        check_batch(collection, 1, expected_1);
    if (expected_2)
        check_batch(collection, 2, expected_2);
    put_batch(collection, 3, number, number % 5 ? BATCH : 600);
    check_batch(collection, 3, number);
    search_once(collection);
    if (number % 2)
        vecdb_close(db);
    if (number % 4 < 2)
        exit(0);
    _exit(0);
}

static void expect_success(pid_t child)
{
    int status;
    while (waitpid(child, &status, 0) < 0)
        CHECK(errno == EINTR);
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        FAIL("a child ended with %s %d", WIFSIGNALED(status) ? "signal" : "status",
             WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

static pid_t fork_quietly(void)
{
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    return child;
}

TEST(children_forked_in_the_middle_of_everything_open_the_database_and_nothing_is_lost)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    SKIP("a sanitizer's allocator may be in use by another thread at the fork, and what that thread held is a leak");
#endif
    int n_children = (int)test_rounds(60);
    test_time_limit(n_children < 300 ? 300 : (unsigned)n_children);
    vecdb *db = open_patiently(VECDB_OPEN_NEW, 2);
    struct worker workers[N_THREADS];
    pthread_t threads[N_THREADS];
    for (size_t i = 0; i < N_THREADS; i++) {
        workers[i] = (struct worker){db, open_collection(db), (int)i + 1};
        CHECK(!pthread_create(&threads[i], NULL, bodies[i], &workers[i]));
    }
    for (int number = 1; number <= n_children; number += 2) {
        int expected_1 = n_acknowledged[1], expected_2 = n_acknowledged[2];
        pid_t first = fork_quietly();
        if (!first)
            be_a_child(number, expected_1, expected_2);
        pid_t second = fork_quietly();
        if (!second)
            be_a_child(number + 1, expected_1, expected_2);
        expect_success(first);
        expect_success(second);
    }
    is_over = true;
    for (size_t i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int round = 0; round < 2; round++) {
        vecdb_collection *collection = open_collection(db);
        for (int writer = 1; writer <= 2; writer++)
            for (int number = 1; number <= n_acknowledged[writer]; number++)
                check_batch(collection, writer, number);
        for (int number = 1; number <= n_children; number++)
            check_batch(collection, 3, number);
        check_database(db, round ? "opened again" : "after the forks");
        vecdb_close(db);
        db = open_patiently(VECDB_OPEN_EXISTING, 1);
    }
    vecdb_close(db);
    printf("    %d children, %ld calls of the parent's threads\n", n_children, (long)n_calls);
}

/* ------------------------------------------------------------------ what a child keeps */

static void tell(int fd)
{
    CHECK(write(fd, "x", 1) == 1);
}

static void hear(int fd)
{
    char byte;
    CHECK(read(fd, &byte, 1) == 1);
}

TEST(locks_of_the_parent_end_with_the_parent_though_a_child_lives_on)
{
    int to_parent[2], to_child[2];
    CHECK(!pipe(to_parent) && !pipe(to_child));
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = open_patiently(VECDB_OPEN_NEW, VECDB_THREADS_NONE);
    put_batch(open_collection(db), 1, 1, BATCH);
    vecdb_scan *scan;
    CHECK_OK(err, vecdb_scan_open(open_collection(db), NULL, &scan, &err));
    pid_t child = fork_quietly();
    if (!child) { /* inherits all, and uses none of it */
        tell(to_parent[1]);
        hear(to_child[0]);
        _exit(0);
    }
    hear(to_parent[0]);
    vecdb_scan_close(scan);
    vecdb_close(db);
    int fd;
    CHECK_OK(err, vdb_state_seize(test_path("db/state"), &fd, &err)); /* nobody has it open */
    vdb_state_release_all(fd);
    tell(to_child[1]);
    expect_success(child);
}

/* The parent's reader and its whole process go away, others write and cut the log: the child's own scan is of
 * one state to its end. */
static void scan_as_a_child(int to_parent, int to_child)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = open_patiently(VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    vecdb_scan_options options = {.size = sizeof options, .columns = VECDB_VECTORS | VECDB_TEXT, .batch_rows = 4};
    vecdb_scan *scan;
    vecdb_results *results;
    size_t n_rows = 0;
    CHECK_OK(err, vecdb_scan_open(open_collection(db), &options, &scan, &err));
    tell(to_parent);
    hear(to_child);
    for (size_t n = 1; n; n_rows += n) {
        CHECK_OK(err, vecdb_scan_next(scan, &results, &err));
        n = vecdb_results_count(results);
        for (size_t i = 0; i < n; i++)
            version_of_vector(vecdb_result_key(results, i).integer, vecdb_result_vector(results, i, NULL, NULL, NULL),
                              DIMENSION);
        vecdb_results_free(results);
    }
    CHECK_SIZE(n_rows, 50 * BATCH);
    vecdb_scan_close(scan);
    put_batch(open_collection(db), 4, 1, BATCH);
    vecdb_close(db);
}

TEST(a_child_that_outlives_its_parent_has_locks_of_its_own)
{
    int to_test[2], to_child[2];
    CHECK(!pipe(to_test) && !pipe(to_child));
    pid_t parent = fork_quietly();
    if (!parent) {
        vecdb_error err = VECDB_ERROR_INIT;
        vecdb *db = open_patiently(VECDB_OPEN_NEW, VECDB_THREADS_NONE);
        vecdb_collection *collection = open_collection(db);
        vecdb_scan *scan;
        for (int number = 1; number <= 50; number++)
            put_batch(collection, 1, number, BATCH);
        CHECK_OK(err, vecdb_scan_open(collection, NULL, &scan, &err)); /* a read lock is held at the fork */
        if (!fork_quietly()) {
            scan_as_a_child(to_test[1], to_child[0]);
            tell(to_test[1]);
            _exit(0);
        }
        pause(); /* until it is killed */
    }
    hear(to_test[0]);
    kill(parent, SIGKILL);
    CHECK(waitpid(parent, NULL, 0) == parent);
    vecdb *db = open_patiently(VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    vecdb_collection *collection = open_collection(db);
    for (int number = 51; number <= 400; number++) /* enough for checkpoints that would cut the log */
        put_batch(collection, 1, number, BATCH);
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    tell(to_child[1]);
    hear(to_test[0]);
    check_batch(collection, 4, 1);
    check_database(db, "in the end");
    vecdb_close(db);
}
