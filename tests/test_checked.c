/* SPDX-License-Identifier: Apache-2.0
 *
 * A flipped bit in the catalog's files is an error that names the file, or changes no row; damage that no
 * read meets is found by the scrub. A lost end of the WAL, and a checkpoint that was cut off over a damaged
 * WAL, are errors. A commit is one write to the WAL, and only commits come there to stay. What SQLite does with
 * its files (vacuum, spills, temporary files) works through the shim.
 */
#include <stdlib.h>
#include <sys/wait.h>

#include "catalog_help.h"
#include "storage/connection_parts.h"
#include "storage/checked_file.h"

static const char *const names[] = {"catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm", "state"};

struct snapshot {
    struct bytes files[4];
};

static struct snapshot take_snapshot(void)
{
    struct snapshot snapshot;
    for (int i = 0; i < 4; i++)
        snapshot.files[i] = load_file(test_path(names[i]));
    return snapshot;
}

static void restore_snapshot(const struct snapshot *snapshot)
{
    for (int i = 0; i < 4; i++)
        store_file(test_path(names[i]), snapshot->files[i]);
}

/* Rows in a process of its own, which ends without closing: the WAL stays. `checkpointed` rows go into
 * the main file before. */
static void make_database(uint64_t checkpointed, uint64_t pending)
{
    pid_t child = fork();
    if (!child) {
        vecdb_error err = VECDB_ERROR_INIT;
        struct vdb_catalog *catalog = open_catalog(test_directory());
        CHECK_OK(err, commit_rows(catalog, 0, checkpointed, 900, 0, &err));
        CHECK_OK(err, vdb_catalog_checkpoint(catalog, true, &err)); /* true: the log is cut, not only done with */
        for (uint64_t i = 0; i < pending; i += 5)
            CHECK_OK(err, commit_rows(catalog, checkpointed / 2 + i, 5, 900, 1, &err));
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    CHECK_INT(status, 0);
}

static int read_all(bool readonly, uint64_t *digest, vecdb_error *err)
{
    struct vdb_catalog_options options = options_for(test_directory());
    struct vdb_catalog *catalog;
    uint64_t n_rows;
    options.readonly = readonly;
    memset(err, 0, sizeof *err);
    int rc = vdb_catalog_open(&options, &catalog, err);
    if (rc)
        return rc;
    rc = digest_rows(catalog, digest, &n_rows, err);
    vdb_catalog_close(catalog);
    return rc;
}

static void same_or_named(const char *name, size_t at, int bit, bool readonly, uint64_t expected, long *n_detected)
{
    vecdb_error err;
    uint64_t digest = 0;
    int rc = read_all(readonly, &digest, &err);
    if (!rc && digest != expected)
        FAIL("%s byte %zu bit %d: silently other rows", name, at, bit);
    if (rc && (rc != VECDB_CORRUPT || (!strstr(err.message, "catalog.sqlite") && !strstr(err.message, "state"))))
        FAIL("%s byte %zu bit %d: %s: %s", name, at, bit, vecdb_status_name(rc), err.message);
    *n_detected += rc != 0;
}

/* One bit of each stride of bytes, the place in it chosen by the seed. */
static long flip_everywhere(const char *name, size_t stride, bool readonly)
{
    struct vdb_random random = {test_seed()};
    struct snapshot snapshot = take_snapshot();
    char path[512];
    snprintf(path, sizeof path, "%s", test_path(name)); /* which hands out four buffers in turn */
    size_t n_bytes = load_file(path).n;
    uint64_t expected;
    vecdb_error err;
    long n_detected = 0;
    CHECK(n_bytes > 0);
    CHECK_OK(err, read_all(readonly, &expected, &err));
    restore_snapshot(&snapshot);
    for (size_t first = 0; first < n_bytes; first += stride) {
        size_t at = first + vdb_random_below(&random, stride);
        int bit = (int)vdb_random_below(&random, 8);
        if (at >= n_bytes)
            continue;
        flip_bit(path, at, bit);
        same_or_named(name, at, bit, readonly, expected, &n_detected);
        if (readonly)
            flip_bit(path, at, bit);
        else
            restore_snapshot(&snapshot);
    }
    restore_snapshot(&snapshot);
    uint64_t again;
    CHECK_OK(err, read_all(readonly, &again, &err));
    CHECK_SIZE(again, expected);
    return n_detected;
}

TEST(a_flipped_bit_in_the_main_file_is_an_error_or_harmless)
{
    make_database(90, 0);
    CHECK(flip_everywhere("catalog.sqlite", 23, true) > 0);
}

TEST(a_flipped_bit_in_the_main_file_beside_a_pending_log_is_an_error_or_harmless)
{
    make_database(60, 60);
    CHECK(flip_everywhere("catalog.sqlite", 61, true) > 0);
}

/* The shared memory of writers that are gone is there and empty of locks: SQLite then keeps an index of its own,
 * and the shim never sees it. */
TEST(a_first_page_that_no_frame_replaces_is_checked_beside_a_pending_log)
{
    make_database(60, 0);
    pid_t child = fork();
    if (!child) {
        vecdb_error err = VECDB_ERROR_INIT;
        struct vdb_catalog *catalog = open_catalog(test_directory());
        CHECK_OK(err, commit_rows(catalog, 0, 0, 0, 0, &err)); /* the sequence number, on a page of its own */
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    CHECK_INT(status, 0);
    CHECK(load_file(test_path("catalog.sqlite-wal")).n > 0);
    for (size_t at = 24; at < 4096; at += 97) {
        vecdb_error err;
        uint64_t digest;
        flip_bit(test_path("catalog.sqlite"), at, (int)(at % 8));
        CHECK_FAILS(err, VECDB_CORRUPT, "page 1", read_all(true, &digest, &err));
        flip_bit(test_path("catalog.sqlite"), at, (int)(at % 8));
    }
}

TEST(a_flipped_bit_in_a_pending_log_is_an_error)
{
    make_database(60, 60);
    size_t n_bytes = load_file(test_path("catalog.sqlite-wal")).n;
    long n = flip_everywhere("catalog.sqlite-wal", 41, true);
    CHECK((size_t)n >= n_bytes / 41); /* all of them: recovery stops there, and the number tells */
}

TEST(a_flipped_bit_is_an_error_or_harmless_to_one_that_may_write_too)
{
    make_database(60, 60);
    CHECK(flip_everywhere("catalog.sqlite", 601, false) > 0);
    CHECK(flip_everywhere("catalog.sqlite-wal", 601, false) > 0);
    CHECK(flip_everywhere("state", 17, false) > 200);
}

/* A connection that lives knows the log by its index and does not recover it. */
TEST(a_flipped_bit_in_a_log_in_use_is_an_error_or_harmless)
{
    struct vdb_random random = {test_seed()};
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_catalog *catalog = open_catalog(test_directory());
    CHECK_OK(err, commit_rows(catalog, 0, 100, 900, 0, &err));
    const char *path = test_path("catalog.sqlite-wal");
    uint64_t expected, digest;
    size_t n_bytes = load_file(path).n;
    long n_detected = 0;
    CHECK_OK(err, read_all(false, &expected, &err));
    for (int trial = 0; trial < 1500; trial++) {
        /* Not in the header: it is not read while the log is in use, and who opens the database for writing
         * copies the frames, which the index knows, and empties a log with such a header. */
        size_t at = WAL_HEADER_BYTES + vdb_random_below(&random, n_bytes - WAL_HEADER_BYTES);
        int bit = (int)vdb_random_below(&random, 8);
        flip_bit(path, at, bit);
        int rc = read_all(trial % 2, &digest, &err);
        if (!rc && digest != expected)
            FAIL("byte %zu bit %d: silently other rows", at, bit);
        if (rc)
            CHECK_CONTAINS(err.message, "catalog.sqlite-wal");
        n_detected += rc != 0;
        flip_bit(path, at, bit);
    }
    CHECK(n_detected > 500);
    vdb_catalog_close(catalog);
}

static void count_message(void *context, const char *message)
{
    CHECK_CONTAINS(message, "catalog.sqlite");
    ++*(int *)context;
}

static int problems(void)
{
    struct vdb_catalog_options options = options_for(test_directory());
    struct vdb_catalog *catalog;
    int n = 0;
    vecdb_error err = VECDB_ERROR_INIT;
    if (vdb_catalog_open(&options, &catalog, &err))
        return 1;
    n += vdb_catalog_check(catalog, count_message, &n, &err) != 0;
    vdb_catalog_close(catalog);
    return n;
}

TEST(the_scrub_finds_every_flipped_bit_also_in_free_pages)
{
    struct vdb_random random = {test_seed()};
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_catalog *catalog = open_catalog(test_directory());
    struct vdb_connection *writer;
    uint64_t sequence;
    CHECK_OK(err, commit_rows(catalog, 0, 200, 900, 0, &err));
    CHECK_OK(err, vdb_write_begin(catalog, &writer, &sequence, &err));
    CHECK_OK(err, vdb_execute(writer, "DELETE FROM records WHERE id > 20", 0, &err));
    CHECK_OK(err, vdb_write_commit(writer, &err));
    vdb_catalog_close(catalog);
    CHECK_INT(problems(), 0);
    const char *path = test_path("catalog.sqlite");
    size_t n_bytes = load_file(path).n;
    for (int trial = 0; trial < 300; trial++) {
        size_t at = vdb_random_below(&random, n_bytes);
        int bit = (int)vdb_random_below(&random, 8);
        flip_bit(path, at, bit);
        if (!problems())
            FAIL("byte %zu bit %d was not found", at, bit);
        flip_bit(path, at, bit);
    }
    CHECK_INT(problems(), 0);
}

TEST(pages_that_were_swapped_or_zeroed_are_noticed)
{
    make_database(200, 0);
    struct snapshot snapshot = take_snapshot();
    struct bytes main = snapshot.files[0];
    unsigned char page[4096];
    memcpy(page, main.at + 5 * 4096, 4096);
    memcpy(main.at + 5 * 4096, main.at + 6 * 4096, 4096);
    memcpy(main.at + 6 * 4096, page, 4096);
    restore_snapshot(&snapshot);
    CHECK(problems() > 0);
    memcpy(main.at + 6 * 4096, main.at + 5 * 4096, 4096);
    memcpy(main.at + 5 * 4096, page, 4096);
    restore_snapshot(&snapshot);
    CHECK_INT(problems(), 0);
    memset(main.at + 7 * 4096, 0, 4096);
    restore_snapshot(&snapshot);
    CHECK(problems() > 0);
}

TEST(a_main_file_that_was_cut_is_an_error)
{
    make_database(200, 0);
    struct snapshot snapshot = take_snapshot();
    size_t n_pages = snapshot.files[0].n / 4096;
    uint64_t expected, digest;
    vecdb_error err;
    CHECK_OK(err, read_all(true, &expected, &err));
    for (size_t n = 0; n < n_pages; n++) {
        CHECK(!truncate(test_path("catalog.sqlite"), (off_t)(n * 4096)));
        int rc = read_all(true, &digest, &err);
        if (!rc)
            FAIL("%zu of %zu pages: no error", n, n_pages);
        restore_snapshot(&snapshot);
    }
}

TEST(a_log_that_lost_its_end_is_an_error)
{
    make_database(20, 20);
    struct snapshot snapshot = take_snapshot();
    size_t n_bytes = snapshot.files[1].n;
    uint64_t digest;
    vecdb_error err;
    for (size_t lost = 1; lost <= n_bytes; lost += lost < 40 ? 1 : 997) {
        CHECK(!truncate(test_path("catalog.sqlite-wal"), (off_t)(n_bytes - lost)));
        for (int readonly = 1; readonly >= 0; readonly--)
            CHECK_FAILS(err, VECDB_CORRUPT, "lost its last commits", read_all(readonly, &digest, &err));
        restore_snapshot(&snapshot);
    }
    CHECK(!unlink(test_path("catalog.sqlite-wal")));
    CHECK_FAILS(err, VECDB_CORRUPT, "lost its last commits", read_all(false, &digest, &err));
}

/* ---- a checkpoint that is cut off */

static int writes_left = -1;

static int end_at_main_write(void *context, enum vdb_io_op op, const char *path)
{
    (void)context;
    size_t n = strlen(path);
    if (op == VDB_IO_WRITE && n > 14 && !strcmp(path + n - 14, "catalog.sqlite") && writes_left >= 0 &&
        writes_left-- == 0)
        _exit(33);
    return 0;
}

static void cut_a_checkpoint(int after_writes)
{
    make_database(60, 60);
    pid_t child = fork();
    if (!child) {
        struct vdb_io_hook killer = {end_at_main_write, NULL};
        hook = &killer;
        struct vdb_catalog *catalog = open_catalog(test_directory());
        writes_left = after_writes;
        vdb_catalog_checkpoint(catalog, false, NULL);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    CHECK_INT(WEXITSTATUS(status), 33);
}

TEST(a_checkpoint_that_is_cut_off_needs_no_repair_with_a_whole_log_and_is_an_error_with_a_damaged_one)
{
    vecdb_error err;
    uint64_t expected, digest, mark_seen = 0;
    make_database(60, 60);
    CHECK_OK(err, read_all(true, &expected, &err));
    for (int after = 0; after < 24; after += 3) {
        for (int i = 0; i < 4; i++)
            unlink(test_path(names[i]));
        cut_a_checkpoint(after);
        struct snapshot snapshot = take_snapshot();
        struct bytes wal = snapshot.files[1];
        for (int readonly = 1; readonly >= 0; readonly--) {
            CHECK_OK(err, read_all(readonly, &digest, &err));
            CHECK_SIZE(digest, expected);
            restore_snapshot(&snapshot);
        }
        struct vdb_random random = {test_seed()};
        for (int trial = 0; trial < 30; trial++) {
            flip_bit(test_path(names[1]), vdb_random_below(&random, wal.n), (int)vdb_random_below(&random, 8));
            CHECK_FAILS(err, VECDB_CORRUPT, "catalog.sqlite", read_all(trial % 2, &digest, &err));
            mark_seen += strstr(err.message, "cut off") != NULL;
            restore_snapshot(&snapshot);
        }
        /* The next complete checkpoint clears the mark: then the log may go. */
        CHECK_INT(problems(), 0);
        CHECK(!unlink(test_path(names[1])));
        unlink(test_path(names[2]));
        CHECK_OK(err, read_all(true, &digest, &err));
        CHECK_SIZE(digest, expected);
    }
    CHECK(mark_seen > 100);
}

/* ---- SQLite's own ways with files */

TEST(transactions_that_spill_and_make_and_drop_tables_leave_nothing_unstamped)
{
    struct vdb_random random = {test_seed()};
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_catalog *catalog = open_catalog(test_directory());
    struct vdb_connection *writer;
    uint64_t sequence;
    for (int round = 0; round < 40; round++) {
        CHECK_OK(err, vdb_write_begin(catalog, &writer, &sequence, &err));
        CHECK_OK(err, vdb_execute(writer, "PRAGMA cache_size = 10", 0, &err));
        CHECK_OK(err,
                 vdb_execute(writer, "CREATE TABLE extra_%llu(id INTEGER PRIMARY KEY, value)", (unsigned)round, &err));
        CHECK_OK(err, put_rows(writer, vdb_random_below(&random, 500), 100, (int)vdb_random_below(&random, 8000),
                               (unsigned)round, &err));
        CHECK_OK(err, vdb_execute(writer, "INSERT INTO extra_%llu SELECT id, value || value FROM records",
                                  (unsigned)round, &err));
        if (vdb_random_below(&random, 2))
            CHECK_OK(err, vdb_execute(writer, "DROP TABLE extra_%llu", (unsigned)round, &err));
        CHECK_OK(err, put_rows(writer, vdb_random_below(&random, 500), 50, 5000, (unsigned)round, &err));
        if (vdb_random_below(&random, 3))
            CHECK_OK(err, vdb_execute(writer, "DELETE FROM records WHERE id % 7 = %llu", (unsigned)round % 7, &err));
        if (!vdb_random_below(&random, 4)) {
            vdb_write_rollback(writer);
        } else {
            CHECK_OK(err, vdb_write_commit(writer, &err));
        }
        if (!vdb_random_below(&random, 5))
            CHECK_OK(err, vdb_catalog_checkpoint(catalog, true, &err));
    }
    int n = 0;
    CHECK_OK(err, vdb_catalog_check(catalog, count_message, &n, &err));
    CHECK_INT(n, 0);
    vdb_catalog_close(catalog);
    CHECK_INT(problems(), 0);
    CHECK_SIZE(vdb_memory_used(&heap), 0);
}

/* ---- frames that are gathered */

static long n_log_writes;

static int count_log_write(void *context, enum vdb_io_op op, const char *path)
{
    (void)context;
    size_t n = strlen(path);
    n_log_writes += op == VDB_IO_WRITE && n > 4 && !strcmp(path + n - 4, "-wal");
    return 0;
}

static struct vdb_catalog *open_with(bool durable)
{
    struct vdb_catalog_options options = options_for(test_directory());
    struct vdb_catalog *catalog = NULL;
    vecdb_error err = VECDB_ERROR_INIT;
    options.durable = durable;
    CHECK_OK(err, vdb_catalog_open(&options, &catalog, &err));
    return catalog;
}

static void same_rows(struct vdb_catalog *left, struct vdb_catalog *right)
{
    vecdb_error err = VECDB_ERROR_INIT;
    uint64_t digests[2] = {0, 1}, n_rows;
    CHECK_OK(err, digest_rows(left, &digests[0], &n_rows, &err));
    CHECK_OK(err, digest_rows(right, &digests[1], &n_rows, &err));
    CHECK_SIZE(digests[0], digests[1]);
}

TEST(the_frames_of_a_commit_go_to_the_log_in_one_write_with_and_without_full_durability)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_io_hook counter = {count_log_write, NULL};
    for (int durable = 0; durable < 2; durable++) {
        hook = &counter;
        struct vdb_catalog *catalog = open_with(durable), *other;
        hook = NULL;
        other = open_with(true);
        CHECK_OK(err, commit_rows(catalog, 0, 5, 900, 0, &err)); /* the log's header is made */
        for (unsigned i = 1; i < 50; i++) {
            n_log_writes = 0;
            CHECK_OK(err, commit_rows(catalog, 3 * i, 3, 300, i, &err));
            CHECK_SIZE(n_log_writes, 1);
            same_rows(catalog, other); /* which reads the file */
        }
        vdb_catalog_close(other);
        vdb_catalog_close(catalog);
    }
    CHECK_INT(problems(), 0);
}

static void spill_and_end(struct vdb_catalog *catalog, struct vdb_random *random, unsigned salt)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_connection *writer;
    uint64_t sequence;
    CHECK_OK(err, vdb_write_begin(catalog, &writer, &sequence, &err));
    CHECK_OK(err, vdb_execute(writer, "PRAGMA cache_size = 10", 0, &err));
    CHECK_OK(err, put_rows(writer, vdb_random_below(random, 200), 1 + vdb_random_below(random, 40),
                           (int)vdb_random_below(random, 3000), salt, &err));
    if (vdb_random_below(random, 2)) { /* frames are written over in place, and their headers once more */
        CHECK_OK(err, vdb_execute(writer, "SAVEPOINT inner", 0, &err));
        CHECK_OK(err, put_rows(writer, vdb_random_below(random, 200), 30, 2000, salt + 1, &err));
        if (vdb_random_below(random, 2))
            CHECK_OK(err, vdb_execute(writer, "ROLLBACK TO inner", 0, &err));
        CHECK_OK(err, vdb_execute(writer, "RELEASE inner", 0, &err));
        CHECK_OK(err, put_rows(writer, vdb_random_below(random, 200), 20, 500, salt + 2, &err));
    }
    /* New pages only: they are spilled, and nothing is read that would flush them. */
    CHECK_OK(err, vdb_execute(writer,
                              "INSERT INTO appended(value) WITH RECURSIVE row(i) AS (SELECT 1 UNION ALL SELECT i + 1 "
                              "FROM row WHERE i < %llu) SELECT zeroblob(3000) FROM row",
                              15 + vdb_random_below(random, 40), &err));
    if (vdb_random_below(random, 2))
        vdb_write_rollback(writer);
    else
        CHECK_OK(err, vdb_write_commit(writer, &err));
}

TEST(what_a_rolled_back_transaction_gathered_reaches_the_log_of_nobody)
{
    struct vdb_random random = {test_seed()};
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_catalog *catalogs[3] = {open_with(true), open_with(false), open_with(false)};
    struct vdb_connection *writer;
    uint64_t sequence;
    CHECK_OK(err, vdb_write_begin(catalogs[0], &writer, &sequence, &err));
    CHECK_OK(err, vdb_execute(writer, "CREATE TABLE appended(id INTEGER PRIMARY KEY, value)", 0, &err));
    CHECK_OK(err, vdb_write_commit(writer, &err));
    for (unsigned round = 0; round < 150; round++) {
        int i = (int)vdb_random_below(&random, 3);
        if (vdb_random_below(&random, 2))
            spill_and_end(catalogs[i], &random, round);
        else
            CHECK_OK(err, commit_rows(catalogs[i], vdb_random_below(&random, 200), 3, 900, round, &err));
        same_rows(catalogs[i], catalogs[(i + 1) % 3]);
    }
    int n = 0;
    CHECK_OK(err, vdb_catalog_check(catalogs[0], count_message, &n, &err));
    CHECK_INT(n, 0);
    for (int i = 0; i < 3; i++)
        vdb_catalog_close(catalogs[i]);
    CHECK_INT(problems(), 0);
    CHECK_SIZE(vdb_memory_used(&heap), 0);
}

TEST(a_backup_through_the_shim_is_a_catalog_and_an_attached_copy_is_checked_too)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_catalog *catalog = open_catalog(test_directory()), *copy;
    struct vdb_connection *reader;
    uint64_t sequence, expected, digest, n_rows;
    CHECK_OK(err, commit_rows(catalog, 0, 300, 900, 0, &err));
    CHECK_OK(err, digest_rows(catalog, &expected, &n_rows, &err));
    CHECK(!mkdir(test_path("copy"), 0777));
    CHECK_OK(err, vdb_read_begin(catalog, &reader, &sequence, &err));
    sqlite3 *target;
    CHECK_INT(sqlite3_open_v2(test_path("copy/catalog.sqlite"), &target, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
                              vdb_checked_name(catalog->checked)),
              SQLITE_OK);
    int n_reserved = VDB_CATALOG_RESERVE_BYTES;
    sqlite3_file_control(target, "main", SQLITE_FCNTL_RESERVE_BYTES, &n_reserved);
    sqlite3_backup *backup = sqlite3_backup_init(target, "main", reader->sqlite, "main");
    CHECK(backup);
    CHECK_INT(sqlite3_backup_step(backup, -1), SQLITE_DONE);
    CHECK_INT(sqlite3_backup_finish(backup), SQLITE_OK);
    CHECK_INT(sqlite3_close(target), SQLITE_OK);
    vdb_read_end(reader);
    copy = open_catalog(test_path("copy"));
    CHECK_OK(err, digest_rows(copy, &digest, &n_rows, &err));
    CHECK_SIZE(digest, expected);
    int n = 0;
    CHECK_OK(err, vdb_catalog_check(copy, count_message, &n, &err));
    CHECK_INT(n, 0);
    vdb_catalog_close(copy);
    vdb_catalog_close(catalog);
}
