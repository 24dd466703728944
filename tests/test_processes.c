/* SPDX-License-Identifier: Apache-2.0
 *
 * Many processes on one database: what a writer was told is stored is there for everybody, whole, and
 * stays there; readers never fail; and a child of a fork cannot harm its parent's handles.
 *
 *     test ---- pipe <---- writer     each key after its put has returned
 *          <--- pipe <---- writer
 *          <--- status --- reader     searches, gets and scans until it is told to end
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"

#define DIMENSION 8
#define BATCH 12       /* records of an acknowledged batch */
#define LARGE 5000     /* rows of 32 bytes: enough for a file of its own */
#define N_BATCHES 60

struct handle {
    vecdb *db;
    vecdb_collection *collection;
};

static struct handle open_here(int mode)
{
    struct handle handle;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_options options = {.size = sizeof options, .mode = mode, .threads = 2, .busy_timeout_ms = 60000};
    vecdb_field field = {.name = "v", .dimension = DIMENSION, .metric = VECDB_L2};
    CHECK_OK(err, vecdb_open(test_path("db"), &options, &handle.db, &err));
    if (mode == VECDB_OPEN_READONLY)
        CHECK_OK(err, vecdb_collection_open(handle.db, "c", &handle.collection, &err));
    else
        CHECK_OK(err, vecdb_collection_create(handle.db, "c", &field, 1, VECDB_IF_MISSING, &handle.collection, &err));
    return handle;
}

/* A batch: keys writer * 1,000,000 + number * 100 + 0 .., all with that number in vector and text. */
static int64_t key_of(int writer, int number, int i)
{
    return (int64_t)writer * 1000000 + number * 100 + i;
}

static int put_batch(vecdb_collection *collection, int writer, int number, vecdb_error *err)
{
    float vectors[BATCH][DIMENSION] = {{0}};
    char text[32];
    vecdb_record records[BATCH];
    snprintf(text, sizeof text, "%d", number);
    for (int i = 0; i < BATCH; i++) {
        vectors[i][0] = (float)writer;
        vectors[i][1] = (float)number;
        vectors[i][2] = (float)i / BATCH;
        records[i] =
            (vecdb_record){.key = VECDB_KEY_INT(key_of(writer, number, i)), .vector = vectors[i], .text = text};
    }
    return vecdb_put(collection, records, BATCH, err);
}

/* All of a batch is there, or (unless it must be) nothing. */
static void check_batch(vecdb_collection *collection, int writer, int number, bool must_be)
{
    vecdb_key keys[BATCH];
    char text[32];
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_results *results;
    snprintf(text, sizeof text, "%d", number);
    for (int i = 0; i < BATCH; i++)
        keys[i] = vecdb_key_int(key_of(writer, number, i));
    CHECK_OK(err, vecdb_get(collection, keys, BATCH, VECDB_TEXT | VECDB_VECTORS, &results, &err));
    bool is_there = vecdb_result_found(results, 0);
    CHECK(is_there || !must_be);
    for (size_t i = 0; i < BATCH; i++) {
        CHECK_INT(vecdb_result_found(results, i), is_there);
        if (!is_there)
            continue;
        const float *vector = vecdb_result_vector(results, i, NULL, NULL, NULL);
        CHECK(vector && vector[0] == (float)writer && vector[1] == (float)number);
        CHECK_STRING(vecdb_result_text(results, i), text);
    }
    vecdb_results_free(results);
}

/* ------------------------------------------------------------------ processes */

static pid_t start(void (*body)(int number, int out), int number, int *in)
{
    int ends[2];
    CHECK(!pipe(ends));
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        close(ends[0]);
        test_time_limit(100);
        body(number, ends[1]);
        fflush(NULL);
        _exit(0);
    }
    close(ends[1]);
    *in = ends[0];
    return child;
}

static void expect_success(pid_t child)
{
    int status;
    while (waitpid(child, &status, 0) < 0)
        CHECK(errno == EINTR);
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        FAIL("a process ended with %s %d", WIFSIGNALED(status) ? "signal" : "status",
             WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

static void acknowledge(int out, int number)
{
    CHECK(write(out, &number, sizeof number) == sizeof number);
}

static void write_batches(int writer, int out)
{
    struct handle handle = open_here(VECDB_OPEN_CREATE);
    vecdb_error err = VECDB_ERROR_INIT;
    for (int number = 1; number <= N_BATCHES; number++) {
        CHECK_OK(err, put_batch(handle.collection, writer, number, &err));
        acknowledge(out, number);
    }
    CHECK_OK(err, vecdb_background_error(handle.db, &err));
    vecdb_close(handle.db);
}

/* Large batches that replace each other, deletions and compactions: files come and go. */
static void write_large(int writer, int out)
{
    static float values[LARGE * DIMENSION];
    static int64_t integers[LARGE];
    static vecdb_key keys[LARGE];
    struct handle handle = open_here(VECDB_OPEN_CREATE);
    vecdb_error err = VECDB_ERROR_INIT;
    for (int number = 1; number <= 9; number++) {
        for (int i = 0; i < LARGE; i++) {
            values[i * DIMENSION] = -1e6f;
            values[i * DIMENSION + 1] = (float)number;
            integers[i] = -1 - (int64_t)writer * 1000000 - i;
            keys[i] = vecdb_key_int(integers[i]);
        }
        vecdb_vector_column column = {.values = values};
        vecdb_batch batch = {
            .size = sizeof batch, .n_rows = LARGE, .integer_keys = integers, .vectors = &column, .n_vectors = 1};
        CHECK_OK(err, vecdb_write(handle.collection, &batch, &err));
        if (number % 3 == 0)
            CHECK_OK(err, vecdb_delete(handle.collection, keys, LARGE, NULL, &err));
        int status = vecdb_compact(handle.db, NULL, &err);
        if (status && status != VECDB_BUSY) /* the other process may be at it */
            FAIL("compact: %s: %s", vecdb_status_name(status), err.message);
        acknowledge(out, number);
    }
    CHECK_OK(err, vecdb_background_error(handle.db, &err));
    vecdb_close(handle.db);
}

/* ------------------------------------------------------------------ readers */

static volatile sig_atomic_t must_end;

static void note_end(int number)
{
    (void)number;
    must_end = 1;
}

/* The large batch of a writer in an answer: one number, all rows or none. */
static void check_large(vecdb_results *results, int writer)
{
    size_t n_rows = 0;
    float number = 0;
    for (size_t i = 0; i < vecdb_results_count(results); i++) {
        int64_t key = vecdb_result_key(results, i).integer;
        if (key >= 0 || (-1 - key) / 1000000 != writer)
            continue;
        const float *vector = vecdb_result_vector(results, i, NULL, NULL, NULL);
        CHECK(vector && (!n_rows || vector[1] == number));
        number = vector[1];
        n_rows++;
    }
    CHECK(n_rows == 0 || n_rows == LARGE);
}

static void check_scan(const struct handle *handle)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_scan_options options = {.size = sizeof options, .columns = VECDB_VECTORS, .batch_rows = 500};
    vecdb_scan *scan;
    uint64_t n_small = 0, n_large = 0;
    CHECK_OK(err, vecdb_scan_open(handle->collection, &options, &scan, &err));
    for (size_t n = 1; n;) {
        vecdb_results *results;
        CHECK_OK(err, vecdb_scan_next(scan, &results, &err));
        n = vecdb_results_count(results);
        for (size_t i = 0; i < n; i++) {
            CHECK(vecdb_result_vector(results, i, NULL, NULL, NULL));
            n_small += vecdb_result_key(results, i).integer >= 0;
            n_large += vecdb_result_key(results, i).integer < 0;
        }
        vecdb_results_free(results);
    }
    CHECK_SIZE(n_small % BATCH, 0);
    CHECK_SIZE(n_large % LARGE, 0);
    vecdb_scan_close(scan);
}

static void read_again(int number, int out)
{
    struct sigaction action = {.sa_handler = note_end};
    sigaction(SIGTERM, &action, NULL);
    struct handle handle = open_here(number ? VECDB_OPEN_READONLY : VECDB_OPEN_EXISTING);
    vecdb_error err = VECDB_ERROR_INIT;
    unsigned n_rounds = 0;
    acknowledge(out, number);
    while (!must_end || n_rounds < 3) {
        float vector[DIMENSION] = {-1e6f};
        vecdb_query query = {
            .size = sizeof query, .vector = vector, .k = 2 * LARGE, .columns = VECDB_VECTORS, .threads = 1};
        vecdb_results *results;
        CHECK_OK(err, vecdb_search(handle.collection, &query, &results, &err));
        check_large(results, 3);
        check_large(results, 4);
        vecdb_results_free(results);
        for (int writer = 1; writer <= 2; writer++)
            check_batch(handle.collection, writer, 1 + (int)(n_rounds * 7 % N_BATCHES), false);
        if (n_rounds++ % 4 == 0)
            check_scan(&handle);
        struct timespec pause = {0, 10000000}; /* the writers want the processors too */
        nanosleep(&pause, NULL);
    }
    vecdb_stats stats = {.size = sizeof stats};
    CHECK_OK(err, vecdb_database_stats(handle.db, &stats, &err));
    CHECK_INT(stats.is_readonly, number != 0);
    vecdb_close(handle.db);
}

/* Read what writers acknowledge; after each the batch must be there for us. */
static void follow_writers(const struct handle *handle, const int *in, const int *writers, int n)
{
    bool is_open[4] = {true, true, true, true};
    for (int n_open = n; n_open;)
        for (int w = 0; w < n; w++) {
            int number;
            ssize_t n_bytes = is_open[w] ? read(in[w], &number, sizeof number) : -1;
            if (n_bytes == sizeof number && writers[w] <= 2)
                check_batch(handle->collection, writers[w], number, true);
            if (n_bytes == 0) {
                is_open[w] = false;
                n_open--;
            }
        }
}

static void check_in_the_end(int n_writers)
{
    struct handle handle = open_here(VECDB_OPEN_EXISTING);
    vecdb_error err = VECDB_ERROR_INIT;
    uint64_t n_problems;
    for (int writer = 1; writer <= n_writers; writer++)
        for (int number = 1; number <= N_BATCHES; number++)
            check_batch(handle.collection, writer, number, true);
    check_scan(&handle);
    CHECK_OK(err, vecdb_check(handle.db, NULL, NULL, NULL, &n_problems, &err));
    CHECK_SIZE(n_problems, 0);
    vecdb_close(handle.db);
}

TEST(two_writing_processes_lose_nothing_that_was_acknowledged)
{
    int in[2];
    static const int writers[] = {1, 2};
    pid_t first = start(write_batches, 1, &in[0]), second = start(write_batches, 2, &in[1]);
    struct handle handle = open_here(VECDB_OPEN_CREATE);
    follow_writers(&handle, in, writers, 2);
    vecdb_close(handle.db);
    expect_success(first);
    expect_success(second);
    check_in_the_end(2);
}

TEST(readers_see_whole_batches_while_processes_write_and_compact)
{
    int in[6];
    static const int writers[] = {1, 2, 3, 4};
    struct handle handle = open_here(VECDB_OPEN_CREATE);
    vecdb_close(handle.db); /* so that the readers find a collection */
    pid_t readers[2] = {start(read_again, 0, &in[4]), start(read_again, 1, &in[5])};
    int number;
    CHECK(read(in[4], &number, sizeof number) == sizeof number && read(in[5], &number, sizeof number) == sizeof number);
    pid_t children[4] = {start(write_batches, 1, &in[0]), start(write_batches, 2, &in[1]),
                         start(write_large, 3, &in[2]), start(write_large, 4, &in[3])};
    handle = open_here(VECDB_OPEN_EXISTING);
    follow_writers(&handle, in, writers, 4);
    vecdb_close(handle.db);
    for (int i = 0; i < 4; i++)
        expect_success(children[i]);
    for (int i = 0; i < 2; i++) {
        CHECK(!kill(readers[i], SIGTERM));
        expect_success(readers[i]);
    }
    check_in_the_end(2);
}

/* ------------------------------------------------------------------ fork */

static struct handle inherited;
static vecdb_scan *inherited_scan;

static int ignore_info(void *context, const vecdb_collection_info *info)
{
    (void)context, (void)info;
    return 0;
}

/* Every call with a handle of the parent is misuse, and close does nothing to it. */
static void misuse_everything(int number, int out)
{
    (void)out;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_results *results = NULL;
    vecdb_scan *scan = NULL;
    vecdb_collection *collection = inherited.collection;
    vecdb *db = inherited.db;
    vecdb_key key = vecdb_key_int(1);
    int64_t integer = 1;
    float vector[DIMENSION] = {1};
    vecdb_record record = {.key = VECDB_KEY_INT(1), .vector = vector};
    vecdb_batch batch = {.size = sizeof batch, .n_rows = 1, .integer_keys = &integer};
    vecdb_query query = {.size = sizeof query, .vector = vector, .k = 1};
    vecdb_field field = {.name = "w", .dimension = 1};
    vecdb_stats stats = {.size = sizeof stats};
    uint64_t n;
    CHECK_FAILS(err, VECDB_MISUSE, "fork()", vecdb_put(collection, &record, 1, &err));
    CHECK_FAILS(err, VECDB_MISUSE, "fork()", vecdb_insert(collection, &record, 1, &err));
    CHECK_FAILS(err, VECDB_MISUSE, "fork()", vecdb_write(collection, &batch, &err));
    CHECK_FAILS(err, VECDB_MISUSE, "fork()", vecdb_delete(collection, &key, 1, &n, &err));
    CHECK_FAILS(err, VECDB_MISUSE, "fork()", vecdb_get(collection, &key, 1, 0, &results, &err));
    CHECK_FAILS(err, VECDB_MISUSE, "fork()", vecdb_search(collection, &query, &results, &err));
    CHECK_FAILS(err, VECDB_MISUSE, "fork()", vecdb_scan_open(collection, NULL, &scan, &err));
    CHECK_FAILS(err, VECDB_MISUSE, "fork()", vecdb_scan_next(inherited_scan, &results, &err));
    CHECK_FAILS(err, VECDB_MISUSE, "fork()", vecdb_collection_create(db, "x", NULL, 0, 0, &collection, &err));
    CHECK_FAILS(err, VECDB_MISUSE, "fork()", vecdb_collection_open(db, "c", &collection, &err));
    CHECK_FAILS(err, VECDB_MISUSE, "fork()", vecdb_collection_drop(db, "c", &err));
    CHECK_FAILS(err, VECDB_MISUSE, "fork()", vecdb_collection_rename(db, "c", "d", &err));
    CHECK_FAILS(err, VECDB_MISUSE, "fork()", vecdb_field_add(inherited.collection, &field, &err));
    CHECK_FAILS(err, VECDB_MISUSE, "fork()", vecdb_field_drop(inherited.collection, "v", &err));
    CHECK_FAILS(err, VECDB_MISUSE, "fork()", vecdb_field_rename(inherited.collection, "v", "w", &err));
    CHECK_FAILS(err, VECDB_MISUSE, "fork()", vecdb_collections(db, ignore_info, NULL, &err));
    CHECK_FAILS(err, VECDB_MISUSE, "fork()", vecdb_collection_describe(inherited.collection, ignore_info, NULL, &err));
    CHECK_FAILS(err, VECDB_MISUSE, "fork()", vecdb_database_stats(db, &stats, &err));
    CHECK_FAILS(err, VECDB_MISUSE, "fork()", vecdb_compact(db, NULL, &err));
    CHECK_FAILS(err, VECDB_MISUSE, "fork()", vecdb_check(db, NULL, NULL, NULL, &n, &err));
    CHECK_FAILS(err, VECDB_MISUSE, "fork()", vecdb_background_error(db, &err));
    vecdb_interrupt(db);
    if (number) {
        vecdb_scan_close(inherited_scan);
        vecdb_close(db);
    }
}

static void open_scan(void)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_scan_options options = {.size = sizeof options, .batch_rows = 5, .columns = VECDB_VECTORS};
    vecdb_results *results;
    CHECK_OK(err, vecdb_scan_open(inherited.collection, &options, &inherited_scan, &err));
    CHECK_OK(err, vecdb_scan_next(inherited_scan, &results, &err));
    vecdb_results_free(results);
}

TEST(a_child_of_a_fork_is_told_of_misuse_and_the_parent_goes_on)
{
    inherited = open_here(VECDB_OPEN_CREATE);
    vecdb_error err = VECDB_ERROR_INIT;
    for (int number = 1; number <= 40; number++)
        CHECK_OK(err, put_batch(inherited.collection, 1, number, &err));
    for (int i = 0; i < 4; i++) {
        int in;
        open_scan();
        expect_success(start(misuse_everything, i % 2, &in));
        close(in);
        size_t n_left = 0;
        for (size_t n = 1; n; n_left += n) {
            vecdb_results *results;
            CHECK_OK(err, vecdb_scan_next(inherited_scan, &results, &err));
            n = vecdb_results_count(results);
            vecdb_results_free(results);
        }
        CHECK_SIZE(n_left, (40 + (size_t)i) * BATCH - 5);
        vecdb_scan_close(inherited_scan);
        CHECK_OK(err, put_batch(inherited.collection, 1, 41 + i, &err));
        check_batch(inherited.collection, 1, 41 + i, true);
        CHECK_OK(err, vecdb_compact(inherited.db, NULL, &err));
    }
    uint64_t n_problems;
    CHECK_OK(err, vecdb_check(inherited.db, NULL, NULL, NULL, &n_problems, &err));
    CHECK_SIZE(n_problems, 0);
    vecdb_close(inherited.db);
}

/* The parent has had handles open, and a scan, when its child opens the database anew and writes. */
TEST(a_child_of_a_fork_opens_the_database_anew_and_nothing_is_lost)
{
    int in[2];
    static const int writers[] = {1, 2};
    inherited = open_here(VECDB_OPEN_CREATE);
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, put_batch(inherited.collection, 5, 1, &err));
    open_scan();
    pid_t first = start(write_batches, 1, &in[0]), second = start(write_batches, 2, &in[1]);
    for (int number = 2; number <= 60; number++) {
        CHECK_OK(err, put_batch(inherited.collection, 5, number, &err));
        if (number % 20 == 0)
            CHECK_INT(vecdb_compact(inherited.db, NULL, &err) & ~VECDB_BUSY, 0);
    }
    follow_writers(&inherited, in, writers, 2);
    expect_success(first);
    expect_success(second);
    vecdb_scan_close(inherited_scan);
    for (int number = 1; number <= 60; number++)
        check_batch(inherited.collection, 5, number, true);
    vecdb_close(inherited.db);
    check_in_the_end(2);
}

/* The child keeps a scan of its own open while the parent writes, compacts, cuts the log, and closes. */
static void scan_slowly(int number, int out)
{
    struct handle handle = open_here(VECDB_OPEN_EXISTING);
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_scan_options options = {.size = sizeof options, .batch_rows = 10, .columns = VECDB_VECTORS | VECDB_TEXT};
    vecdb_scan *scan;
    vecdb_results *results;
    size_t n_rows = 0;
    CHECK_OK(err, vecdb_scan_open(handle.collection, &options, &scan, &err));
    CHECK_OK(err, vecdb_scan_next(scan, &results, &err));
    n_rows += vecdb_results_count(results);
    vecdb_results_free(results);
    acknowledge(out, number);
    struct timespec pause = {0, 10000000};
    for (size_t n = 1; n; n_rows += n) {
        nanosleep(&pause, NULL);
        CHECK_OK(err, vecdb_scan_next(scan, &results, &err));
        n = vecdb_results_count(results);
        for (size_t i = 0; i < n; i++) {
            const float *vector = vecdb_result_vector(results, i, NULL, NULL, NULL);
            CHECK(vector && vector[0] == 5 && (int)vector[1] == atoi(vecdb_result_text(results, i)));
        }
        vecdb_results_free(results);
    }
    CHECK_SIZE(n_rows, 200 * BATCH);
    vecdb_scan_close(scan);
    CHECK_OK(err, put_batch(handle.collection, 6, 1, &err));
    vecdb_close(handle.db);
}

TEST(a_scan_in_a_child_keeps_its_state_while_the_parent_compacts_and_closes)
{
    inherited = open_here(VECDB_OPEN_CREATE);
    vecdb_error err = VECDB_ERROR_INIT;
    int in, number;
    vecdb_key keys[200 * BATCH];
    for (int i = 1; i <= 200; i++)
        CHECK_OK(err, put_batch(inherited.collection, 5, i, &err));
    for (int i = 0; i < 200 * BATCH; i++)
        keys[i] = vecdb_key_int(key_of(5, 1 + i / BATCH, i % BATCH));
    pid_t child = start(scan_slowly, 1, &in);
    CHECK(read(in, &number, sizeof number) == sizeof number);
    for (int round = 0; round < 2; round++) {
        CHECK_OK(err, vecdb_delete(inherited.collection, keys, 200 * BATCH, NULL, &err));
        CHECK_OK(err, vecdb_compact(inherited.db, NULL, &err));
        for (int i = 1; i <= 100; i++)
            CHECK_OK(err, put_batch(inherited.collection, 5, i, &err));
    }
    vecdb_close(inherited.db);
    inherited = open_here(VECDB_OPEN_EXISTING);
    CHECK_OK(err, put_batch(inherited.collection, 5, 500, &err));
    expect_success(child);
    check_batch(inherited.collection, 5, 500, true);
    check_batch(inherited.collection, 6, 1, true);
    uint64_t n_problems;
    CHECK_OK(err, vecdb_check(inherited.db, NULL, NULL, NULL, &n_problems, &err));
    CHECK_SIZE(n_problems, 0);
    vecdb_close(inherited.db);
}
