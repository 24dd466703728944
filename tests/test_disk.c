/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/test_disk.c - full disks, and places where one may not write
 *
 * The properties:
 *   1. A call for which there is no space fails with FULL and a sentence, and nothing that was
 *      acknowledged is lost: it can be read at once, and after opening again. When there is space,
 *      writing goes on.
 *   2. Where one may not write, a database can be read; writing answers READONLY or DENIED. A reader
 *      without the permission to write sees what a writer commits.
 *
 * A full disk is a small file system in memory that the test mounts, or, where that is not permitted, a
 * limit for the size of files. Permissions mean nothing to root: the tests of them give up root first.
 */
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "fault_tools.h"

#define DIMENSION 256u

/* ------------------------------------------------------------------ a database with numbered records */

static vecdb_collection *open_numbers(vecdb *db)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *collection;
    vecdb_field field = {.name = "v", .dimension = DIMENSION, .metric = VECDB_L2};
    CHECK_OK(err, vecdb_collection_create(db, "numbers", &field, 1, VECDB_IF_MISSING, &collection, &err));
    return collection;
}

static int put_numbers(vecdb_collection *collection, int64_t first, size_t n, vecdb_error *err)
{
    static float values[400][DIMENSION];
    static int64_t keys[400];
    static char texts[400][300];
    static const char *pointers[400];
    CHECK(n <= 400);
    for (size_t i = 0; i < n; i++) {
        keys[i] = first + (int64_t)i;
        fill_vector(keys[i], 1, DIMENSION, values[i]);
        memset(texts[i], 'a' + (int)(keys[i] % 26), sizeof texts[i] - 1);
        pointers[i] = texts[i];
    }
    vecdb_vector_column column = {.values = values};
    vecdb_batch batch = {.size = sizeof batch, .n_rows = n, .integer_keys = keys, .vectors = &column, .n_vectors = 1,
                         .texts = pointers};
    return vecdb_write(collection, &batch, err);
}

/* There are exactly the records 0 .. n - 1, and all of them are whole. */
static void check_numbers(vecdb_collection *collection, int64_t n, const char *when)
{
    vecdb_scan_options options = {.size = sizeof options, .columns = VECDB_VECTORS | VECDB_TEXT};
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_scan *scan;
    int64_t next = 0;
    CHECK_OK(err, vecdb_scan_open(collection, &options, &scan, &err));
    for (size_t n_rows = 1; n_rows;) {
        vecdb_results *results;
        CHECK_OK(err, vecdb_scan_next(scan, &results, &err));
        n_rows = vecdb_results_count(results);
        for (size_t i = 0; i < n_rows; i++, next++) {
            CHECK_INT(vecdb_result_key(results, i).integer, next);
            CHECK_INT(version_of_vector(next, vecdb_result_vector(results, i, NULL, NULL, NULL), DIMENSION), 1);
            CHECK_SIZE(vecdb_result_text_length(results, i), 299);
        }
        vecdb_results_free(results);
    }
    vecdb_scan_close(scan);
    if (next != n)
        FAIL("%s: there are %lld records, acknowledged were %lld", when, (long long)next, (long long)n);
    if (!n)
        return;
    float query_vector[DIMENSION];
    vecdb_results *results;
    fill_vector(n - 1, 1, DIMENSION, query_vector);
    vecdb_query query = {.size = sizeof query, .vector = query_vector, .k = 1, .columns = VECDB_KEYS_ONLY};
    CHECK_OK(err, vecdb_search(collection, &query, &results, &err));
    CHECK_INT(vecdb_result_key(results, 0).integer, n - 1);
    vecdb_results_free(results);
}

/* ------------------------------------------------------------------ full disks */

/* Put until it fails; how many are acknowledged. */
static int64_t fill_up(vecdb_collection *collection, int64_t n, size_t n_rows)
{
    for (;;) {
        vecdb_error err = VECDB_ERROR_INIT;
        int status = put_numbers(collection, n, n_rows, &err);
        if (status) {
            check_sentence("put", status, &err);
            if (status != VECDB_FULL)
                FAIL("on a full disk put fails with %s: %s", vecdb_status_name(status), err.message);
            return n;
        }
        n += (int64_t)n_rows;
        CHECK(n < 200000);
    }
}

static const char *disk(void)
{
    static char path[512];
    if (!*path)
        snprintf(path, sizeof path, "%s", test_directory());
    return path;
}

static unsigned n_megabytes = 6;

static void enlarge(void)
{
    char options[32];
    n_megabytes += 4;
    snprintf(options, sizeof options, "size=%um", n_megabytes);
    CHECK(!mount(NULL, disk(), NULL, MS_REMOUNT, options));
}

static void fill_and_go_on(const char *path, int threads)
{
    vecdb *db = open_database(path, VECDB_OPEN_CREATE, threads);
    vecdb_collection *collection = open_numbers(db);
    vecdb_error err = VECDB_ERROR_INIT;
    int64_t n = 0;
    for (int turn = 0; turn < 3; turn++) {
        n = fill_up(collection, n, turn == 1 ? 10 : 200); /* in the tail, or an extent at once */
        check_numbers(collection, n, "on the full disk");
        n = fill_up(collection, n, 1);
        check_numbers(collection, n, "on the full disk");
        int status = vecdb_compact(db, NULL, &err);
        if (status && status != VECDB_FULL)
            FAIL("on a full disk compact fails with %s: %s", vecdb_status_name(status), err.message);
        vecdb_background_error(db, &err);
        if (turn == 1) {
            vecdb_close(db);
            db = open_database(path, VECDB_OPEN_EXISTING, threads); /* on the full disk */
            collection = open_numbers(db);
            check_numbers(collection, n, "opened on the full disk");
        }
        enlarge();
        CHECK_OK(err, put_numbers(collection, n, 100, &err));
        n += 100;
        check_numbers(collection, n, "when there is space again");
    }
    for (int i = 0; i < 4; i++)
        enlarge(); /* a compaction needs room for a copy of a file */
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    vecdb_close(db);
    db = open_database(path, VECDB_OPEN_EXISTING, threads);
    check_numbers(open_numbers(db), n, "opened again");
    check_database(db, "at the end");
    vecdb_close(db);
}

static void need_small_disk(void)
{
    if (!mount_memory(disk(), "size=6m"))
        SKIP("a file system cannot be mounted here");
}

TEST(a_full_disk_loses_nothing_and_writing_goes_on_when_there_is_space)
{
    need_small_disk();
    fill_and_go_on(test_path("db"), VECDB_THREADS_NONE);
}

TEST(a_full_disk_loses_nothing_beside_a_thread_that_packs)
{
    need_small_disk();
    fill_and_go_on(test_path("db"), 2);
}

/* A file may be at most so long. */
static void limit_files(rlim_t n_bytes)
{
    struct rlimit limit;
    CHECK(!getrlimit(RLIMIT_FSIZE, &limit));
    limit.rlim_cur = n_bytes < limit.rlim_max ? n_bytes : limit.rlim_max;
    CHECK(!setrlimit(RLIMIT_FSIZE, &limit));
}

TEST(files_that_may_not_grow_are_an_error_and_nothing_is_lost)
{
    vecdb_error err = VECDB_ERROR_INIT;
    signal(SIGXFSZ, SIG_IGN);
    vecdb *db = open_database(test_path("db"), VECDB_OPEN_NEW, VECDB_THREADS_NONE);
    vecdb_collection *collection = open_numbers(db);
    int64_t n = 0;
    int status = VECDB_OK;
    limit_files(600 << 10);
    for (; !status && n < 100000; n += status ? 0 : 50)
        status = put_numbers(collection, n, 50, &err);
    check_sentence("put", status, &err);
    CHECK(status == VECDB_FULL || status == VECDB_IO);
    check_numbers(collection, n, "at the limit");
    limit_files(RLIM_INFINITY);
    CHECK_OK(err, put_numbers(collection, n, 50, &err));
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    check_numbers(collection, n + 50, "without the limit");
    check_database(db, "without the limit");
    vecdb_close(db);
}

TEST(a_database_cannot_be_made_on_a_full_disk_and_can_be_when_there_is_space)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_options options = {.size = sizeof options, .threads = VECDB_THREADS_NONE};
    char filler[512];
    need_small_disk();
    snprintf(filler, sizeof filler, "%s", test_path("filler"));
    for (size_t left = 0; left <= 60; left++) { /* so many pages are left for it */
        vecdb *db = NULL;
        char name[32];
        static char zeros[6 << 20];
        snprintf(name, sizeof name, "db%zu", left);
        int fd = open(filler, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        CHECK(fd >= 0 && write(fd, zeros, sizeof zeros) > 4096 * 100);
        off_t size = lseek(fd, 0, SEEK_END);
        CHECK(!ftruncate(fd, size - (off_t)left * 4096));
        close(fd);
        int status = vecdb_open(test_path(name), &options, &db, &err);
        if (!status)
            vecdb_close(db);
        else if (status != VECDB_FULL || !err.message[0])
            FAIL("%zu pages are left: open fails with %s: %s", left, vecdb_status_name(status), err.message);
        unlink(filler);
        db = open_database(test_path(name), VECDB_OPEN_CREATE, VECDB_THREADS_NONE);
        CHECK_OK(err, put_numbers(open_numbers(db), 0, 3, &err));
        check_numbers(open_numbers(db), 3, "made after all");
        vecdb_close(db);
        remove_database(test_path(name));
    }
}

/* ------------------------------------------------------------------ no permission */

#define NOBODY 65534

static void become_nobody(void)
{
    CHECK(!setgid(NOBODY) && !setuid(NOBODY));
}

static void need_root(void)
{
    if (getuid())
        SKIP("only root can try this");
}

/* Run `body` as a user who owns nothing. */
static void as_nobody(void (*body)(const char *path), const char *path)
{
    int status = 0;
    fflush(NULL);
    pid_t child = fork();
    if (!child) {
        become_nobody();
        body(path);
        _exit(0);
    }
    CHECK_INT(waitpid(child, &status, 0), child);
    if (status)
        FAIL("as another user: status %x", (unsigned)status);
}

static void make_numbers(const char *path, int64_t n)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = open_database(path, VECDB_OPEN_CREATE, VECDB_THREADS_NONE);
    vecdb_collection *collection = open_numbers(db);
    CHECK_OK(err, put_numbers(collection, 0, (size_t)n / 2, &err));
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    CHECK_OK(err, put_numbers(collection, n / 2, (size_t)(n - n / 2), &err));
    vecdb_close(db);
}

static void read_only(const char *path)
{
    for (int mode = VECDB_OPEN_CREATE; mode <= VECDB_OPEN_READONLY; mode++) {
        vecdb_error err = VECDB_ERROR_INIT;
        vecdb_options options = {.size = sizeof options, .mode = mode};
        vecdb *db;
        vecdb_collection *collection;
        if (mode == VECDB_OPEN_NEW)
            continue;
        CHECK_OK(err, vecdb_open(path, &options, &db, &err));
        CHECK_OK(err, vecdb_collection_open(db, "numbers", &collection, &err));
        check_numbers(collection, 100, "without the permission to write");
        int status = put_numbers(collection, 100, 1, &err);
        check_sentence("put", status, &err);
        if (status != VECDB_READONLY && status != VECDB_DENIED)
            FAIL("put where one may not write: %s: %s", vecdb_status_name(status), err.message);
        err = (vecdb_error)VECDB_ERROR_INIT;
        status = vecdb_compact(db, NULL, &err);
        check_sentence("compact", status, &err);
        if (status != VECDB_READONLY && status != VECDB_DENIED)
            FAIL("compact where one may not write: %s: %s", vecdb_status_name(status), err.message);
        check_numbers(collection, 100, "after trying to write");
        check_database(db, "read-only");
        vecdb_close(db);
    }
}

TEST(a_database_of_another_user_can_be_read_and_not_written)
{
    need_root();
    CHECK(!chmod(test_directory(), 0755));
    make_numbers(test_path("db"), 100);
    as_nobody(read_only, test_path("db"));
    make_numbers(test_path("db"), 100);
}

TEST(a_database_on_a_read_only_file_system_can_be_read_and_not_written)
{
    char path[512];
    need_small_disk();
    snprintf(path, sizeof path, "%s", test_path("db"));
    make_numbers(path, 100);
    CHECK(!mount(NULL, disk(), NULL, MS_REMOUNT | MS_RDONLY, "size=6m"));
    read_only(path);
    CHECK(!mount(NULL, disk(), NULL, MS_REMOUNT, "size=6m"));
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = open_database(path, VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    CHECK_OK(err, put_numbers(open_numbers(db), 100, 1, &err));
    vecdb_close(db);
}

static void expect_denied(const char *path)
{
    for (int mode = VECDB_OPEN_CREATE; mode <= VECDB_OPEN_READONLY; mode++) {
        vecdb_error err = VECDB_ERROR_INIT;
        vecdb_options options = {.size = sizeof options, .mode = mode};
        vecdb *db = NULL;
        int status = vecdb_open(path, &options, &db, &err);
        check_sentence("open", status, &err);
        bool is_fitting = status == VECDB_DENIED || (mode == VECDB_OPEN_NEW && status == VECDB_EXISTS);
        if (!is_fitting || db)
            FAIL("mode %d: open where nothing is permitted: %s: %s", mode, vecdb_status_name(status), err.message);
    }
}

TEST(a_directory_or_a_catalog_that_may_not_be_read_is_denied)
{
    char path[512];
    need_root();
    CHECK(!chmod(test_directory(), 0755));
    snprintf(path, sizeof path, "%s", test_path("db"));
    make_numbers(path, 100);
    CHECK(!chmod(path, 0));
    as_nobody(expect_denied, path);
    CHECK(!chmod(path, 0755) && !chmod(test_path("db/catalog.sqlite"), 0));
    as_nobody(expect_denied, path);
}

static void expect_denied_making(const char *path)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = NULL;
    CHECK_FAILS(err, VECDB_DENIED, "db", vecdb_open(path, NULL, &db, &err));
}

TEST(a_database_cannot_be_made_where_one_may_not_write)
{
    need_root();
    CHECK(!chmod(test_directory(), 0755));
    as_nobody(expect_denied_making, test_path("db"));
    CHECK(!mkdir(test_path("db"), 0755));
    as_nobody(expect_denied_making, test_path("db"));
}

/* ------------------------------------------------------------------ reading beside a writer, without permission */

static void wait_for(int fd)
{
    char byte;
    CHECK_INT(read(fd, &byte, 1), 1);
}

static void signal_to(int fd)
{
    CHECK_INT(write(fd, "", 1), 1);
}

/* After each signal there are fifty records more. */
static void follow(const char *path, int from_writer, int to_writer)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_options options = {.size = sizeof options, .mode = VECDB_OPEN_READONLY};
    vecdb *db;
    vecdb_collection *collection;
    become_nobody();
    CHECK_OK(err, vecdb_open(path, &options, &db, &err));
    CHECK_OK(err, vecdb_collection_open(db, "numbers", &collection, &err));
    for (int64_t n = 100; n <= 1000; n += 50) {
        check_numbers(collection, n, "beside the writer");
        signal_to(to_writer);
        wait_for(from_writer);
    }
    vecdb_close(db);
    _exit(0);
}

TEST(a_reader_without_permission_to_write_sees_what_a_writer_commits)
{
    vecdb_error err = VECDB_ERROR_INIT;
    int to_reader[2], to_writer[2], status = 0;
    char path[512];
    need_root();
    CHECK(!chmod(test_directory(), 0755));
    snprintf(path, sizeof path, "%s", test_path("db"));
    make_numbers(path, 100);
    CHECK(!pipe(to_reader) && !pipe(to_writer));
    pid_t child = fork();
    if (!child)
        follow(path, to_reader[0], to_writer[1]);
    vecdb *db = NULL;
    for (int64_t n = 100; n <= 1000; n += 50) {
        wait_for(to_writer[0]);
        if (n % 200 == 0 || !db) { /* the writer may come and go */
            vecdb_close(db);
            db = open_database(path, VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
        }
        CHECK_OK(err, put_numbers(open_numbers(db), n, 50, &err));
        if (n % 150 == 100)
            CHECK_OK(err, vecdb_compact(db, NULL, &err));
        signal_to(to_reader[1]);
    }
    vecdb_close(db);
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK_INT(status, 0);
}
