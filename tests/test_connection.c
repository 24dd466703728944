/* SPDX-License-Identifier: Apache-2.0
 *
 * A catalog's transactions: what was acknowledged is there, in every process and after every crash; what
 * was not is not half there; whatever fails (I/O, memory, permissions, other programs' files), the call
 * says so in a sentence and the catalog can be used again.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "catalog_help.h"

/* SQLite is not built for the thread sanitizer, which then sees only the half of its locking. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "called_from_lib:libsqlite3.so\n";
}

static uint64_t rows_of(struct vdb_catalog *catalog)
{
    uint64_t digest, n_rows = 0;
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, digest_rows(catalog, &digest, &n_rows, &err));
    return n_rows;
}

static uint64_t sequence_of(struct vdb_catalog *catalog)
{
    struct vdb_connection *connection;
    uint64_t sequence;
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, vdb_read_begin(catalog, &connection, &sequence, &err));
    vdb_read_end(connection);
    return sequence;
}

static void count_message(void *context, const char *message)
{
    fprintf(stderr, "    check: %s\n", message);
    ++*(int *)context;
}

static void check_is_clean(struct vdb_catalog *catalog)
{
    int n = 0;
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, vdb_catalog_check(catalog, count_message, &n, &err));
    CHECK_INT(n, 0);
}

TEST(a_commit_is_seen_by_the_next_reader_and_not_by_one_that_began_before)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_catalog *catalog = open_catalog(test_directory()), *other = open_catalog(test_directory());
    struct vdb_connection *reader, *writer;
    uint64_t before, number;
    CHECK_OK(err, commit_rows(catalog, 1, 10, 20, 0, &err));
    CHECK_OK(err, vdb_read_begin(other, &reader, &before, &err));
    CHECK_SIZE(before, 1);
    CHECK_OK(err, vdb_write_begin(catalog, &writer, &number, &err));
    CHECK_SIZE(number, 2);
    CHECK_OK(err, put_rows(writer, 11, 5, 20, 0, &err));
    CHECK_SIZE(rows_of(other), 10);
    CHECK_OK(err, vdb_write_commit(writer, &err));
    CHECK_SIZE(sequence_of(other), 2);
    CHECK_SIZE(rows_of(other), 15);
    sqlite3_stmt *statement;
    CHECK_OK(err, vdb_prepare(reader, 9, "SELECT count(*) FROM records", 0, &statement, &err));
    CHECK_INT(sqlite3_step(statement), SQLITE_ROW);
    CHECK_INT(sqlite3_column_int(statement, 0), 10);
    vdb_read_end(reader);
    CHECK_OK(err, vdb_write_begin(catalog, &writer, &number, &err));
    CHECK_OK(err, put_rows(writer, 16, 5, 20, 0, &err));
    vdb_write_rollback(writer);
    CHECK_SIZE(rows_of(catalog), 15);
    CHECK_SIZE(sequence_of(catalog), 2);
    CHECK(vdb_state_word(vdb_catalog_state(catalog)) == vdb_state_word(vdb_catalog_state(other)));
    check_is_clean(other);
    vdb_catalog_close(other);
    vdb_catalog_close(catalog);
    CHECK_SIZE(vdb_memory_used(&heap), 0);
}

TEST(a_reader_may_not_write)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_catalog *catalog = open_catalog(test_directory());
    struct vdb_connection *reader;
    uint64_t sequence;
    CHECK_OK(err, vdb_read_begin(catalog, &reader, &sequence, &err));
    CHECK_FAILS(err, VECDB_READONLY, "readonly", put_rows(reader, 1, 1, 1, 0, &err));
    vdb_read_end(reader);
    vdb_catalog_close(catalog);
}

TEST(prepared_statements_are_kept_by_kind_and_number_and_the_oldest_go)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_catalog *catalog = open_catalog(NULL);
    struct vdb_connection *reader;
    sqlite3_stmt *first, *again, *statement;
    uint64_t sequence;
    CHECK_OK(err, vdb_read_begin(catalog, &reader, &sequence, &err));
    CHECK_OK(err, vdb_prepare(reader, 3, "SELECT %llu, %llu + 1", 0, &first, &err));
    for (uint64_t i = 0; i < 3000; i++) {
        CHECK_OK(err, vdb_prepare(reader, (int)(i % 3) + 4, "SELECT %llu, %llu + 1", i, &statement, &err));
        CHECK_INT(sqlite3_step(statement), SQLITE_ROW);
        CHECK_SIZE((uint64_t)sqlite3_column_int64(statement, 0), i);
        CHECK_SIZE((uint64_t)sqlite3_column_int64(statement, 1), i + 1);
        sqlite3_reset(statement);
        if (i % 97 == 0)
            vdb_forget_statements(reader, i / 2 + 1);
        CHECK_OK(err, vdb_prepare(reader, 3, "SELECT %llu, %llu + 1", 0, &again, &err));
        CHECK(again == first); /* used all the time, so never the oldest */
    }
    CHECK_FAILS(err, VECDB_INTERNAL, "no such table",
                vdb_prepare(reader, 99, "SELECT * FROM absent_%llu", 5, &statement, &err));
    vdb_read_end(reader);
    vdb_catalog_close(catalog);
    CHECK_SIZE(vdb_memory_used(&heap), 0);
}

TEST(a_missing_database_is_not_found_and_leaves_no_files)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_catalog_options options = options_for(test_directory());
    struct vdb_catalog *catalog;
    options.create = false;
    CHECK_FAILS(err, VECDB_NOT_FOUND, "no database", vdb_catalog_open(&options, &catalog, &err));
    options.create = options.readonly = true;
    CHECK_FAILS(err, VECDB_NOT_FOUND, "no database", vdb_catalog_open(&options, &catalog, &err));
    CHECK(access(test_path("state"), F_OK) && access(test_path("catalog.sqlite"), F_OK));
}

static void run_sql(const char *path, const char *sql)
{
    sqlite3 *sqlite;
    CHECK_INT(sqlite3_open(path, &sqlite), SQLITE_OK);
    CHECK_INT(sqlite3_exec(sqlite, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(sqlite);
}

TEST(files_of_other_programs_are_refused)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_catalog_options options = options_for(test_directory());
    struct vdb_catalog *catalog;
    const char *path = test_path("catalog.sqlite");
    run_sql(path, "CREATE TABLE t(a); INSERT INTO t VALUES (1)");
    CHECK_FAILS(err, VECDB_CORRUPT, "not a vecdb catalog", vdb_catalog_open(&options, &catalog, &err));
    CHECK(!unlink(path));
    store_file(path,
               (struct bytes){
                   (unsigned char *)(uintptr_t) "This is a text and by no means a database. It is long enough", 60});
    CHECK_FAILS(err, VECDB_CORRUPT, "catalog.sqlite", vdb_catalog_open(&options, &catalog, &err));
    CHECK(!unlink(path) && !mkdir(path, 0777));
    CHECK(vdb_catalog_open(&options, &catalog, &err) != VECDB_OK);
    CHECK(!rmdir(path));
}

TEST(a_catalog_of_another_application_or_of_a_newer_format_is_refused)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_catalog_options options = options_for(test_directory());
    struct vdb_catalog *catalog = open_catalog(test_directory());
    struct vdb_connection *writer;
    uint64_t sequence;
    CHECK_OK(err, vdb_write_begin(catalog, &writer, &sequence, &err));
    CHECK_OK(err, vdb_execute(writer, "PRAGMA user_version = %llu", VDB_FORMAT_VERSION + 1, &err));
    CHECK_OK(err, vdb_write_commit(writer, &err));
    vdb_catalog_close(catalog);
    CHECK_FAILS(err, VECDB_NEWER, "format version", vdb_catalog_open(&options, &catalog, &err));
}

TEST(a_catalog_of_version_0_is_refused_as_one_of_a_preview)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_catalog_options options = options_for(test_directory());
    struct vdb_catalog *catalog = open_catalog(test_directory());
    struct vdb_connection *writer;
    uint64_t sequence;
    CHECK_OK(err, vdb_write_begin(catalog, &writer, &sequence, &err));
    CHECK_OK(err, vdb_execute(writer, "PRAGMA user_version = %llu", 0, &err));
    CHECK_OK(err, vdb_write_commit(writer, &err));
    vdb_catalog_close(catalog);
    CHECK_FAILS(err, VECDB_UNSUPPORTED, "format version 0, of a preview", vdb_catalog_open(&options, &catalog, &err));
}

TEST(a_catalog_that_is_missing_while_state_is_there_is_not_made_anew)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_catalog_options options = options_for(test_directory());
    struct vdb_catalog *catalog = open_catalog(test_directory());
    vdb_catalog_close(catalog);
    CHECK(!unlink(test_path("catalog.sqlite")));
    unlink(test_path("catalog.sqlite-wal"));
    unlink(test_path("catalog.sqlite-shm"));
    CHECK_FAILS(err, VECDB_CORRUPT, "missing", vdb_catalog_open(&options, &catalog, &err));
}

TEST(a_missing_state_is_made_anew_and_an_older_catalog_is_refused)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_catalog_options options = options_for(test_directory());
    struct vdb_catalog *catalog = open_catalog(test_directory());
    CHECK_OK(err, commit_rows(catalog, 1, 10, 20, 0, &err));
    vdb_catalog_close(catalog);
    struct bytes old = load_file(test_path("catalog.sqlite"));
    CHECK(!unlink(test_path("state")));
    catalog = open_catalog(test_directory());
    CHECK_OK(err, commit_rows(catalog, 11, 10, 20, 0, &err));
    vdb_catalog_close(catalog);
    store_file(test_path("catalog.sqlite"), old);
    CHECK_FAILS(err, VECDB_CORRUPT, "lost its last commits", vdb_catalog_open(&options, &catalog, &err));
    CHECK(!unlink(test_path("state"))); /* a restore from a backup without `state` */
    catalog = open_catalog(test_directory());
    CHECK_SIZE(rows_of(catalog), 10);
    vdb_catalog_close(catalog);
}

TEST(many_processes_that_make_a_catalog_at_once_get_the_same_one)
{
    for (int round = 0; round < 10; round++) {
        char name[32];
        snprintf(name, sizeof name, "db%d", round);
        const char *directory = test_path(name);
        CHECK(!mkdir(directory, 0777));
        for (int i = 0; i < 5; i++)
            if (!fork()) {
                struct vdb_catalog *catalog = open_catalog(directory);
                vecdb_error err = VECDB_ERROR_INIT;
                CHECK_OK(err, commit_rows(catalog, (uint64_t)i * 10, 10, 20, 0, &err));
                vdb_catalog_close(catalog);
                _exit(0);
            }
        for (int i = 0, status; i < 5; i++) {
            wait(&status);
            CHECK_INT(status, 0);
        }
        struct vdb_catalog *catalog = open_catalog(directory);
        CHECK_SIZE(rows_of(catalog), 50);
        CHECK_SIZE(sequence_of(catalog), 5);
        vdb_catalog_close(catalog);
    }
}

TEST(without_waiting_a_second_writer_is_told_busy)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_catalog *catalog = open_catalog(test_directory()), *other;
    struct vdb_catalog_options options = options_for(test_directory());
    struct vdb_connection *writer, *second;
    uint64_t sequence;
    options.busy_timeout_ms = -1;
    CHECK_OK(err, vdb_catalog_open(&options, &other, &err));
    CHECK_OK(err, vdb_write_begin(catalog, &writer, &sequence, &err));
    CHECK_FAILS(err, VECDB_BUSY, "another writer", vdb_write_begin(other, &second, &sequence, &err));
    vdb_write_rollback(writer);
    CHECK_OK(err, commit_rows(other, 1, 1, 1, 0, &err));
    vdb_catalog_close(other);
    vdb_catalog_close(catalog);
}

TEST(the_log_is_emptied_after_two_thousand_frames_also_beside_a_long_reader)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_catalog *catalog = open_catalog(test_directory());
    struct vdb_connection *reader;
    uint64_t sequence, n_bytes, most = 0;
    CHECK_OK(err, vdb_read_begin(catalog, &reader, &sequence, &err));
    for (uint64_t i = 0; i < 30; i++)
        CHECK_OK(err, commit_rows(catalog, i * 200, 200, 2000, 0, &err));
    vdb_read_end(reader);
    for (uint64_t i = 0; i < 40; i++) {
        CHECK_OK(err, commit_rows(catalog, i * 200, 200, 2000, 1, &err));
        CHECK_OK(err, vdb_catalog_size(catalog, &n_bytes, &err));
        most = n_bytes > most && i > 3 ? n_bytes : most;
    }
    CHECK_OK(err, vdb_catalog_checkpoint(catalog, true, &err));
    CHECK_OK(err, vdb_catalog_size(catalog, &n_bytes, &err));
    CHECK(most - n_bytes < 3000u * 4200);
    CHECK_SIZE(load_file(test_path("catalog.sqlite-wal")).n, 0);
    check_is_clean(catalog);
    vdb_catalog_close(catalog);
}

TEST(deleted_rows_give_their_pages_back)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_catalog *catalog = open_catalog(test_directory());
    struct vdb_connection *writer;
    uint64_t sequence, before, after;
    CHECK_OK(err, commit_rows(catalog, 0, 1000, 4000, 0, &err));
    CHECK_OK(err, vdb_catalog_checkpoint(catalog, false, &err));
    CHECK_OK(err, vdb_catalog_size(catalog, &before, &err));
    CHECK_OK(err, vdb_write_begin(catalog, &writer, &sequence, &err));
    CHECK_OK(err, vdb_execute(writer, "DELETE FROM records", 0, &err));
    CHECK_OK(err, vdb_write_commit(writer, &err));
    CHECK_OK(err, vdb_catalog_checkpoint(catalog, true, &err));
    CHECK_OK(err, vdb_catalog_size(catalog, &after, &err));
    CHECK(after * 10 < before);
    check_is_clean(catalog);
    vdb_catalog_close(catalog);
}

/* ---- other owners: read-only directories, forks */

TEST(a_database_of_another_user_can_be_read_and_not_written)
{
    if (getuid())
        SKIP("only root can become another user");
    vecdb_error err = VECDB_ERROR_INIT;
    const char *directory = test_path("db");
    CHECK(!mkdir(directory, 0755) && !chmod(test_directory(), 0755));
    struct vdb_catalog *catalog = open_catalog(directory);
    CHECK_OK(err, commit_rows(catalog, 1, 10, 20, 0, &err));
    for (int closed = 0; closed < 3; closed++) {
        if (closed == 1)
            vdb_catalog_close(catalog);
        if (closed == 2) { /* as in a copy, or a backup */
            unlink(test_path("db/catalog.sqlite-wal"));
            unlink(test_path("db/catalog.sqlite-shm"));
        }
        pid_t child = fork();
        if (!child) {
            CHECK(!setgid(65534) && !setuid(65534));
            struct vdb_catalog *mine = open_catalog(directory);
            CHECK_SIZE(rows_of(mine), 10);
            CHECK_FAILS(err, VECDB_READONLY, "read-only", commit_rows(mine, 1, 1, 1, 0, &err));
            struct vdb_catalog_options options = options_for(test_path("db/absent"));
            CHECK(vdb_catalog_open(&options, &mine, &err) != VECDB_OK);
            check_is_clean(mine);
            vdb_catalog_close(mine);
            _exit(0);
        }
        int status;
        waitpid(child, &status, 0);
        CHECK_INT(status, 0);
    }
}

TEST(a_readonly_open_changes_no_file)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_catalog_options options = options_for(test_directory());
    struct vdb_catalog *catalog = open_catalog(test_directory());
    CHECK_OK(err, commit_rows(catalog, 1, 10, 20, 0, &err));
    vdb_catalog_close(catalog);
    options.readonly = true;
    for (int without = 0; without < 2; without++) {
        if (without) {
            unlink(test_path("catalog.sqlite-wal"));
            unlink(test_path("catalog.sqlite-shm"));
        }
        CHECK_OK(err, vdb_catalog_open(&options, &catalog, &err));
        CHECK_SIZE(rows_of(catalog), 10);
        CHECK_FAILS(err, VECDB_READONLY, "read-only", commit_rows(catalog, 1, 1, 1, 0, &err));
        if (without) {
            CHECK(access(test_path("catalog.sqlite-wal"), F_OK) && access(test_path("catalog.sqlite-shm"), F_OK));
            /* A writer comes: what it commits is seen, by locks from then on. */
            struct vdb_catalog *writer = open_catalog(test_directory());
            CHECK_OK(err, commit_rows(writer, 11, 10, 20, 0, &err));
            CHECK_SIZE(rows_of(catalog), 20);
            vdb_catalog_close(writer);
        }
        vdb_catalog_close(catalog);
    }
}

TEST(a_checkpoint_changes_no_file_beneath_a_reader_without_locks)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_catalog_options options = options_for(test_directory());
    struct vdb_catalog *writer = open_catalog(test_directory()), *catalog;
    struct vdb_connection *reader;
    uint64_t sequence;
    CHECK_OK(err, commit_rows(writer, 1, 200, 2000, 0, &err));
    vdb_catalog_close(writer);
    unlink(test_path("catalog.sqlite-wal"));
    unlink(test_path("catalog.sqlite-shm"));
    options.readonly = true;
    CHECK_OK(err, vdb_catalog_open(&options, &catalog, &err));
    CHECK_OK(err, vdb_read_begin(catalog, &reader, &sequence, &err));
    CHECK_SIZE(sequence, 1);
    writer = open_catalog(test_directory());
    CHECK_OK(err, commit_rows(writer, 1, 200, 2000, 1, &err)); /* the same rows, all of them changed */
    struct bytes before = load_file(test_path("catalog.sqlite"));
    CHECK_OK(err, vdb_catalog_checkpoint(writer, false, &err));
    struct bytes after = load_file(test_path("catalog.sqlite"));
    CHECK(before.n == after.n && !memcmp(before.at, after.at, after.n));
    CHECK_SIZE(sequence_of(catalog), 2); /* beside the one that goes on */
    sqlite3_stmt *statement;
    CHECK_OK(err, vdb_prepare(reader, 9, "SELECT count(*) FROM records", 0, &statement, &err));
    CHECK_INT(sqlite3_step(statement), SQLITE_ROW);
    CHECK_INT(sqlite3_column_int(statement, 0), 200);
    vdb_read_end(reader);
    CHECK_OK(err, vdb_catalog_checkpoint(writer, true, &err));
    CHECK_SIZE(load_file(test_path("catalog.sqlite-wal")).n, 0);
    vdb_catalog_close(writer);
    CHECK_SIZE(sequence_of(catalog), 3);
    vdb_catalog_close(catalog);
}

TEST(a_log_that_is_only_a_header_is_in_no_readers_way)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_catalog_options options = options_for(test_directory());
    struct vdb_catalog *catalog = open_catalog(test_directory());
    unsigned char header[32];
    CHECK_OK(err, commit_rows(catalog, 1, 10, 20, 0, &err));
    int log = open(test_path("catalog.sqlite-wal"), O_RDONLY);
    CHECK_INT(read(log, header, sizeof header), (int)sizeof header);
    close(log);
    vdb_catalog_close(catalog);
    /* What a writer leaves that is killed between the header and the first frame; its -shm file is still there. */
    log = open(test_path("catalog.sqlite-wal"), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    CHECK_INT(write(log, header, sizeof header), (int)sizeof header);
    close(log);
    close(open(test_path("catalog.sqlite-shm"), O_WRONLY | O_CREAT, 0666));
    options.readonly = true;
    CHECK_OK(err, vdb_catalog_open(&options, &catalog, &err));
    CHECK_SIZE(rows_of(catalog), 10);
    struct vdb_catalog *writer = open_catalog(test_directory());
    CHECK_OK(err, commit_rows(writer, 11, 5, 20, 0, &err));
    CHECK_SIZE(rows_of(catalog), 15);
    vdb_catalog_close(writer);
    CHECK_SIZE(rows_of(catalog), 15);
    vdb_catalog_close(catalog);
}

TEST(a_child_of_a_fork_opens_anew_while_the_parent_goes_on)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_catalog *catalog = open_catalog(test_directory());
    CHECK_OK(err, commit_rows(catalog, 0, 10, 20, 0, &err));
    pid_t child = fork();
    if (!child) {
        vdb_catalog_forked(catalog);
        struct vdb_catalog *mine = open_catalog(test_directory());
        for (uint64_t i = 1; i < 50; i++)
            CHECK_OK(err, commit_rows(mine, i * 10, 10, 20, 0, &err));
        vdb_catalog_close(mine);
        _exit(0);
    }
    for (uint64_t i = 51; i < 100; i++)
        CHECK_OK(err, commit_rows(catalog, i * 10, 10, 20, 0, &err));
    int status;
    waitpid(child, &status, 0);
    CHECK_INT(status, 0);
    CHECK_SIZE(rows_of(catalog), 990);
    CHECK_SIZE(sequence_of(catalog), 99);
    vdb_catalog_close(catalog);
}

/* ---- crashes */

static void write_until_killed(const char *directory, uint64_t who, _Atomic uint64_t *acknowledged)
{
    struct vdb_catalog *catalog = open_catalog(directory);
    vecdb_error err = VECDB_ERROR_INIT;
    for (uint64_t i = *acknowledged;; i++) {
        CHECK_OK(err, commit_rows(catalog, who * 100000000 + i * 10, 10, i % 40 == 0 ? 8000 : 100, 0, &err));
        *acknowledged = i + 1;
    }
}

static void every_acknowledged_row_is_there(const char *directory, const _Atomic uint64_t *acknowledged)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_catalog *catalog = open_catalog(directory);
    struct vdb_connection *reader;
    uint64_t sequence, durable;
    CHECK_OK(err, vdb_read_begin(catalog, &reader, &sequence, &err));
    CHECK_OK(err, vdb_state_durable(vdb_catalog_state(catalog), &durable, &err));
    CHECK(durable <= sequence);
    for (uint64_t who = 0; who < 2; who++) {
        sqlite3_stmt *statement;
        CHECK_OK(err, vdb_prepare(reader, 5, "SELECT count(*) FROM records WHERE id >= ?1 AND id < ?2", 0, &statement,
                                  &err));
        sqlite3_bind_int64(statement, 1, (sqlite3_int64)who * 100000000);
        sqlite3_bind_int64(statement, 2, (sqlite3_int64)(who + 1) * 100000000);
        CHECK_INT(sqlite3_step(statement), SQLITE_ROW);
        uint64_t n = (uint64_t)sqlite3_column_int64(statement, 0);
        sqlite3_reset(statement);
        CHECK_INT(n % 10, 0);
        /* The last commit may be done and not acknowledged. */
        if (n != acknowledged[who] * 10 && n != acknowledged[who] * 10 + 10)
            FAIL("%llu rows, %llu commits acknowledged", (unsigned long long)n, (unsigned long long)acknowledged[who]);
    }
    vdb_read_end(reader);
    vdb_catalog_close(catalog);
}

TEST(two_writers_that_are_killed_again_and_again_lose_nothing)
{
    _Atomic uint64_t *acknowledged = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct vdb_random random = {test_seed()};
    for (int round = 0; round < 60; round++) {
        pid_t children[2];
        for (uint64_t who = 0; who < 2; who++)
            if (!(children[who] = fork()))
                write_until_killed(test_directory(), who, &acknowledged[who]);
        for (int who = 0; who < 2; who++) {
            usleep(2000 + (unsigned)vdb_random_below(&random, 40000));
            kill(children[who], SIGKILL);
            int status;
            waitpid(children[who], &status, 0);
            CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
            if (vdb_random_below(&random, 3)) /* otherwise the other one goes on alone */
                continue;
            if (!(children[who] = fork()))
                write_until_killed(test_directory(), (uint64_t)who, &acknowledged[who]);
            usleep(1000);
            kill(children[who], SIGKILL);
            waitpid(children[who], &status, 0);
        }
        every_acknowledged_row_is_there(test_directory(), acknowledged);
    }
    struct vdb_catalog *catalog = open_catalog(test_directory());
    check_is_clean(catalog);
    vdb_catalog_close(catalog);
}

TEST(a_power_cut_without_full_durability_takes_commits_back_without_a_false_alarm)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_catalog_options options = options_for(test_directory());
    struct vdb_catalog *catalog = open_catalog(test_directory());
    vdb_catalog_close(catalog);
    options.durable = false;
    CHECK_OK(err, vdb_catalog_open(&options, &catalog, &err));
    CHECK_OK(err, commit_rows(catalog, 1, 10, 100, 0, &err));
    struct bytes wal = load_file(test_path("catalog.sqlite-wal")), main = load_file(test_path("catalog.sqlite"));
    CHECK_OK(err, commit_rows(catalog, 11, 10, 100, 0, &err));
    struct bytes state = load_file(test_path("state"));
    vdb_catalog_close(catalog);
    store_file(test_path("catalog.sqlite-wal"), wal);
    store_file(test_path("catalog.sqlite"), main);
    store_file(test_path("state"), state);
    unlink(test_path("catalog.sqlite-shm"));
    CHECK_OK(err, vdb_catalog_open(&options, &catalog, &err));
    CHECK_SIZE(rows_of(catalog), 10);
    uint64_t sequence, word = vdb_state_word(vdb_catalog_state(catalog));
    CHECK_OK(err, vdb_state_sequence(vdb_catalog_state(catalog), &sequence, &err));
    CHECK_SIZE(sequence, 1);
    CHECK_OK(err, commit_rows(catalog, 21, 10, 100, 0, &err));
    CHECK(vdb_state_word(vdb_catalog_state(catalog)) != word);
    vdb_catalog_close(catalog);
}

/* ---- faults */

static _Atomic long countdown; /* the operation to fail; negative: none */
static long n_failing = 1;     /* how many in a row */
static int failing_op = -1;    /* any */

static int count_down(void *context, enum vdb_io_op op, const char *path)
{
    (void)path;
    if (failing_op >= 0 && (int)op != failing_op)
        return 0;
    long n = atomic_fetch_sub(&countdown, 1);
    return n <= 0 && n > -n_failing ? *(int *)context : 0;
}

/* Open, commit, commit much, checkpoint, read, close: how many commits were acknowledged. */
static uint64_t scripted_life(const char *directory, uint64_t base, int *n_errors)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_catalog_options options = options_for(directory);
    struct vdb_catalog *catalog = NULL;
    uint64_t n_done = 0, digest, n_rows;
    int rc = vdb_catalog_open(&options, &catalog, &err);
    *n_errors += rc != 0;
    if (rc && !err.message[0])
        FAIL("no sentence for %s", vecdb_status_name(rc));
    for (uint64_t i = 0; !rc && i < 4; i++) {
        err = (vecdb_error)VECDB_ERROR_INIT;
        int failed = commit_rows(catalog, base + n_done * 10, 10, 300, 0, &err);
        *n_errors += failed != 0;
        n_done += !failed;
        if (failed && (!err.message[0] || err.status != failed))
            FAIL("no sentence for %s", vecdb_status_name(failed));
        if (i == 1)
            *n_errors += vdb_catalog_checkpoint(catalog, true, NULL) != 0;
        *n_errors += digest_rows(catalog, &digest, &n_rows, NULL) != 0;
    }
    vdb_catalog_close(catalog);
    return n_done;
}

static void fail_each_operation(int os_error, int op, long in_a_row)
{
    struct vdb_io_hook faults = {count_down, &os_error};
    /* Opening and making, the first 120 operations, one by one; a seeded sample of the later ones, which are
     * the same few over and over. */
    struct vdb_random random = {test_seed()};
    bool failed_any = true;
    n_failing = in_a_row;
    failing_op = op;
    for (long n = 0; failed_any; n += n < 120 ? 1 : 1 + (long)vdb_random_below(&random, 16)) {
        char name[64];
        snprintf(name, sizeof name, "db-%d-%d-%ld-%ld", os_error, op, in_a_row, n);
        const char *directory = test_path(name);
        int n_errors = 0;
        CHECK(!mkdir(directory, 0777));
        hook = &faults;
        countdown = n;
        uint64_t n_done = scripted_life(directory, 0, &n_errors);
        failed_any = countdown < 0;
        CHECK_SIZE(vdb_memory_used(&heap), 0);
        hook = NULL;
        struct vdb_catalog *catalog = open_catalog(directory);
        /* A failed COMMIT may only be unknown at the very end: its rows are then all there. Rows of an
         * attempt that failed are written by the next one. */
        uint64_t n_rows = rows_of(catalog);
        if (n_rows != n_done * 10 && n_rows != n_done * 10 + 10)
            FAIL("operation %ld: %llu rows after %llu commits", n, (unsigned long long)n_rows,
                 (unsigned long long)n_done);
        vecdb_error err = VECDB_ERROR_INIT;
        CHECK_OK(err, commit_rows(catalog, 1000, 10, 300, 0, &err));
        check_is_clean(catalog);
        vdb_catalog_close(catalog);
    }
}

TEST(every_io_operation_that_fails_once_loses_no_acknowledged_commit)
{
    fail_each_operation(EIO, -1, 1);
}

TEST(every_io_operation_that_fails_from_some_moment_on_loses_no_acknowledged_commit)
{
    fail_each_operation(EIO, -1, 1000000);
}

TEST(a_full_disk_is_an_error_and_nothing_is_lost)
{
    fail_each_operation(ENOSPC, VDB_IO_WRITE, 1);
    fail_each_operation(ENOSPC, VDB_IO_WRITE, 1000000);
}

TEST(every_sync_that_fails_loses_no_acknowledged_commit)
{
    fail_each_operation(EIO, VDB_IO_SYNC, 2);
}

/* ---- memory that runs out */

static _Atomic long allocations_left;
static struct vdb_memory beneath;

static void *failing_allocate(void *context, size_t size)
{
    return atomic_fetch_sub(&allocations_left, 1) == 0 ? NULL : vdb_alloc(context, size);
}

static void *failing_reallocate(void *context, void *block, size_t size)
{
    return atomic_fetch_sub(&allocations_left, 1) == 0 ? NULL : vdb_realloc(context, block, size);
}

static void plain_release(void *context, void *block)
{
    vdb_free(context, block);
}

static void fail_each_allocation(bool in_memory)
{
    vecdb_allocator failing = {failing_allocate, failing_reallocate, plain_release, &beneath};
    vdb_memory_init(&beneath, NULL);
    for (long n = 0;; n++) {
        char name[32];
        snprintf(name, sizeof name, "db%ld", n);
        const char *directory = in_memory ? NULL : test_path(name);
        int n_errors = 0;
        CHECK(!directory || !mkdir(directory, 0777));
        vdb_memory_init(&heap, &failing);
        allocations_left = n;
        uint64_t n_done = scripted_life(directory, 0, &n_errors);
        bool reached = allocations_left < 0;
        CHECK_SIZE(vdb_memory_used(&heap), 0);
        CHECK(n_done == 4 || n_errors > 0);
        allocations_left = -1;
        if (directory) {
            struct vdb_catalog *catalog = open_catalog(directory);
            uint64_t n_rows = rows_of(catalog);
            CHECK(n_rows == n_done * 10 || n_rows == n_done * 10 + 10);
            vdb_catalog_close(catalog);
        }
        if (!reached)
            break;
    }
}

TEST(every_allocation_that_fails_is_an_error_or_harmless)
{
    fail_each_allocation(false);
}

TEST(every_allocation_that_fails_in_memory_is_an_error_or_harmless)
{
    fail_each_allocation(true);
}

/* ---- threads */

static struct vdb_catalog *common;
static _Atomic int writers_left;

static void *thread_writes(void *argument)
{
    uint64_t base = *(uint64_t *)argument;
    vecdb_error err = VECDB_ERROR_INIT;
    for (uint64_t i = 0; i < 60; i++)
        CHECK_OK(err, commit_rows(common, base + i * 50, 50, 400, 0, &err));
    atomic_fetch_sub(&writers_left, 1);
    return NULL;
}

static void *thread_reads(void *argument)
{
    uint64_t last = 0, digest, n_rows;
    vecdb_error err = VECDB_ERROR_INIT;
    (void)argument;
    while (writers_left) {
        CHECK_OK(err, digest_rows(common, &digest, &n_rows, &err));
        CHECK(n_rows % 50 == 0 && n_rows >= last);
        last = n_rows;
    }
    return NULL;
}

static void threads_at_work(const char *directory)
{
    pthread_t threads[5];
    uint64_t bases[2] = {0, 1000000};
    common = open_catalog(directory);
    writers_left = 2;
    for (int i = 0; i < 5; i++)
        CHECK(!pthread_create(&threads[i], NULL, i < 2 ? thread_writes : thread_reads, i < 2 ? &bases[i] : NULL));
    for (int i = 0; i < 5; i++)
        pthread_join(threads[i], NULL);
    CHECK_SIZE(rows_of(common), 2 * 60 * 50);
    CHECK_SIZE(sequence_of(common), 120);
    check_is_clean(common);
    vdb_catalog_close(common);
    CHECK_SIZE(vdb_memory_used(&heap), 0);
}

TEST(threads_write_and_read_one_catalog_in_memory)
{
    threads_at_work(NULL);
}

TEST(threads_write_and_read_one_catalog_on_disk)
{
    threads_at_work(test_directory());
}

TEST(an_interrupt_ends_a_long_statement)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_catalog *catalog = open_catalog(NULL);
    struct vdb_connection *reader;
    uint64_t sequence;
    sqlite3_stmt *statement;
    CHECK_OK(err, vdb_read_begin(catalog, &reader, &sequence, &err));
    CHECK_OK(err,
             vdb_prepare(reader, 1, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
                         0, &statement, &err));
    CHECK_INT(sqlite3_step(statement), SQLITE_ROW);
    vdb_catalog_interrupt(catalog);
    int step;
    while ((step = sqlite3_step(statement)) == SQLITE_ROW)
        continue;
    CHECK_INT(vdb_fail_sqlite(&err, reader, "count"), VECDB_INTERRUPTED);
    vdb_read_end(reader);
    vdb_catalog_close(catalog);
}
