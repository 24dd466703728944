/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/test_backup.c - backups and restores
 *
 * The properties:
 *   1. A backup is a database that holds exactly one committed state of the original: that of the moment it
 *      was begun, whatever is written and compacted meanwhile. It passes a full check, opens read-only at
 *      once, and lives on when the original is destroyed.
 *   2. With links both databases go their own ways afterwards.
 *   3. A backup that fails says why, leaves nothing behind, and does not touch the original; until it is
 *      complete it cannot be opened.
 *   4. A restore puts a backup in the place of a database and keeps that one; cut off at any point, both
 *      are there, and a second restore ends it.
 */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "backup_tools.h"

/* ------------------------------------------------------------------ round trips */

static void back_up(vecdb *db, const char *path, int link)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_backup_options options = {.size = sizeof options, .link = link};
    CHECK_OK(err, vecdb_backup(db, path, &options, &err));
}

TEST(a_backup_holds_what_the_original_holds)
{
    for (int link = 0; link < 2; link++) {
        const char *path = place(link ? "a1" : "a0"), *copy = place(link ? "b1" : "b0");
        vecdb *db = make_rich_database(path);
        struct dump before = dump_database(db);
        uint64_t sequence = sequence_of(db);
        back_up(db, copy, link);
        CHECK_DUMP(dump_database(db), before);
        vecdb_close(db);
        for (int mode = VECDB_OPEN_READONLY; mode >= VECDB_OPEN_EXISTING; mode -= 2) {
            vecdb *opened = open_database(copy, mode, 0);
            CHECK_DUMP(dump_database(opened), before);
            CHECK_SIZE(sequence_of(opened), sequence);
            check_database(opened, "the backup");
            vecdb_close(opened);
        }
    }
}

TEST(a_database_in_memory_is_saved_by_a_backup)
{
    vecdb *db = open_database(":memory:", VECDB_OPEN_CREATE, VECDB_THREADS_NONE);
    fill_database(db);
    for (int link = 0; link < 2; link++) {
        const char *copy = place(link ? "linked" : "copied");
        back_up(db, copy, link);
        CHECK_DUMP(dump_path(copy), dump_database(db));
        vecdb *opened = open_database(copy, VECDB_OPEN_EXISTING, 0);
        check_database(opened, "saved from memory");
        vecdb_error err = VECDB_ERROR_INIT;
        CHECK_OK(err, put_version(open_things(opened), 0, 100, 9, &err));
        compact_database(opened);
        check_database(opened, "after writing to it");
        vecdb_close(opened);
    }
    vecdb_close(db);
}

TEST(a_database_that_is_open_read_only_and_a_backup_can_be_backed_up)
{
    const char *path = place("a"), *copy = place("b"), *again = place("c"), *third = place("d");
    vecdb *db = make_rich_database(path);
    struct dump before = dump_database(db);
    vecdb_close(db);
    db = open_database(path, VECDB_OPEN_READONLY, 0);
    back_up(db, copy, 1);
    vecdb_close(db);
    db = open_database(copy, VECDB_OPEN_READONLY, 0);
    back_up(db, again, 1);
    back_up(db, third, 0);
    vecdb_close(db);
    CHECK_DUMP(dump_path(copy), before);
    CHECK_DUMP(dump_path(again), before);
    CHECK_DUMP(dump_path(third), before);
}

TEST(a_backup_of_an_empty_database_is_an_empty_database)
{
    vecdb *db = open_database(place("a"), VECDB_OPEN_NEW, 0);
    struct dump before = dump_database(db);
    CHECK(!mkdir(place("b"), 0777)); /* an empty directory will do */
    back_up(db, place("b"), 0);
    vecdb_close(db);
    CHECK_DUMP(dump_path(place("b")), before);
}

/* ------------------------------------------------------------------ links */

TEST(a_linked_backup_shares_files_and_outlives_the_original)
{
    const char *path = place("a"), *copy = place("b");
    vecdb *db = make_rich_database(path);
    struct dump before = dump_database(db);
    back_up(db, copy, 1);
    vecdb_close(db);
    struct file_sum mine = {0, 0}, theirs = {0, 0};
    struct stat status;
    char name[512];
    each_name(path, sum_vectors, &mine);
    each_name(copy, sum_vectors, &theirs);
    CHECK(theirs.n_files > 0 && theirs.n_files <= mine.n_files);
    snprintf(name, sizeof name, "%s/vectors-1-1", copy);
    for (int i = 1; stat(name, &status); i++) /* whatever the compactions left */
        snprintf(name, sizeof name, "%s/vectors-1-%d", copy, i);
    CHECK_INT(status.st_nlink, 2);
    remove_database(path);
    vecdb *opened = open_database(copy, VECDB_OPEN_EXISTING, 0);
    CHECK_DUMP(dump_database(opened), before);
    check_database(opened, "alone");
    vecdb_close(opened);
}

/* Two that append to one file at once would write over each other; so only one ever does. */
TEST(a_copy_does_not_append_to_a_file_that_it_shares)
{
    const char *path = place("a"), *copy = place("b");
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = make_rich_database(path);
    back_up(db, copy, 1);
    struct file_sum before = {0, 0}, after = {0, 0};
    each_name(path, sum_vectors, &before);
    vecdb *other = open_database(copy, VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    for (uint32_t round = 0; round < 4; round++) {
        CHECK_OK(err, put_version(open_things(other), 2000 + round * 50, 50, 4, &err));
        compact_database(other);
    }
    vecdb_close(other);
    each_name(path, sum_vectors, &after);
    CHECK_INT(after.n_files, before.n_files);
    CHECK_SIZE(after.n_bytes, before.n_bytes);
    vecdb_close(db);
}

TEST(databases_that_share_files_do_not_disturb_each_other)
{
    const char *path[3] = {place("a"), place("b"), place("c")};
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db[3] = {make_rich_database(path[0]), NULL, NULL};
    back_up(db[0], path[1], 1);
    db[1] = open_database(path[1], VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    back_up(db[1], path[2], 1); /* and a copy of the copy */
    db[2] = open_database(path[2], VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    struct dump state[3];
    for (int i = 0; i < 3; i++)
        state[i] = dump_database(db[i]);
    for (uint32_t round = 0; round < 24; round++) {
        int who = (int)(round % 3);
        CHECK_OK(err, put_version(open_things(db[who]), round * 50, 300 + round, 20 + round, &err));
        if (round % 4 == 1)
            compact_database(db[who]);
        if (round == 12) /* what is in the files is read from the files */
            for (int i = 0; i < 3; i++) {
                vecdb_close(db[i]);
                db[i] = open_database(path[i], VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
            }
        for (int i = 0; i < 3; i++) {
            if (i == who)
                state[i] = dump_database(db[i]);
            CHECK_DUMP(dump_database(db[i]), state[i]);
        }
    }
    for (int i = 0; i < 3; i++) {
        compact_database(db[i]);
        check_database(db[i], path[i]);
        vecdb_close(db[i]);
        CHECK_DUMP(dump_path(path[i]), state[i]);
    }
}

/* ------------------------------------------------------------------ while others write */

#define GROUP 300 /* records a writer puts in one commit, all of one version */

struct writer {
    const char *path;
    int64_t first;
    _Atomic uint32_t begun, done; /* versions */
    _Atomic bool ends;
};

static void *write_on(void *context)
{
    struct writer *writer = context;
    vecdb *db = open_database(writer->path, VECDB_OPEN_EXISTING, 1);
    vecdb_collection *things = open_things(db);
    for (uint32_t version = 2; !writer->ends; version++) {
        vecdb_error err = VECDB_ERROR_INIT;
        writer->begun = version;
        CHECK_OK(err, put_version(things, writer->first, GROUP, version, &err));
        writer->done = version;
        if (version % 8 == 3) {
            int status = vecdb_compact(db, NULL, &err);
            CHECK(!status || status == VECDB_BUSY);
        }
    }
    vecdb_close(db);
    return NULL;
}

/* The one version that all records of a group have. */
static uint32_t version_of_group(vecdb *db, int64_t first)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_key keys[GROUP];
    vecdb_results *results;
    uint32_t version = 0;
    for (int64_t i = 0; i < GROUP; i++)
        keys[i] = vecdb_key_int(first + i);
    CHECK_OK(err, vecdb_get(open_things(db), keys, GROUP, VECDB_VECTORS, &results, &err));
    for (size_t i = 0; i < GROUP; i++) {
        uint32_t dimension;
        const float *vector = vecdb_result_vector(results, i, "v", &dimension, NULL);
        CHECK(vector && dimension == WIDE);
        uint32_t found = version_of_vector(first + (int64_t)i, vector, WIDE);
        CHECK(!i || found == version);
        version = found;
    }
    vecdb_results_free(results);
    return version;
}

TEST(a_backup_is_one_committed_state_while_others_write_and_compact)
{
    const char *path = place("a");
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = open_database(path, VECDB_OPEN_NEW, 1);
    struct writer writers[2] = {{.path = path, .first = 0, .begun = 1, .done = 1},
                                {.path = path, .first = GROUP, .begun = 1, .done = 1}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        CHECK_OK(err, put_version(open_things(db), writers[i].first, GROUP, 1, &err));
    for (int i = 0; i < 2; i++)
        CHECK(!pthread_create(&threads[i], NULL, write_on, &writers[i]));
    unsigned long n_rounds = test_rounds(12);
    for (unsigned long round = 0; round < n_rounds; round++) {
        const char *copy = place("b");
        uint32_t least[2] = {writers[0].done, writers[1].done};
        uint64_t before = sequence_of(db);
        back_up(db, copy, round % 2);
        uint64_t after = sequence_of(db);
        vecdb *opened = open_database(copy, VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
        check_database(opened, "the backup");
        CHECK(before <= sequence_of(opened) && sequence_of(opened) <= after);
        for (int i = 0; i < 2; i++) {
            uint32_t version = version_of_group(opened, writers[i].first);
            CHECK(least[i] <= version && version <= writers[i].begun);
        }
        vecdb_close(opened);
        remove_database(copy);
    }
    for (int i = 0; i < 2; i++) {
        writers[i].ends = true;
        pthread_join(threads[i], NULL);
    }
    check_database(db, "the original");
    vecdb_close(db);
}

/* Another handle writes and compacts in the midst of an operation of the backup. */
struct meddler {
    vecdb *db;
    long n, seen;
    uint32_t version;
};

static int meddle(void *context, enum vdb_io_op op, const char *path)
{
    struct meddler *meddler = context;
    (void)op, (void)path;
    if (meddler->seen++ != meddler->n)
        return 0;
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, put_version(open_things(meddler->db), 0, 300, meddler->version, &err));
    compact_database(meddler->db); /* removes files */
    return 0;
}

TEST(a_commit_and_a_compaction_at_any_moment_of_a_backup_are_in_it_or_not)
{
    const char *path = place("a"), *copy = place("b");
    struct meddler meddler = {.db = make_rich_database(path), .version = 10};
    struct vdb_io_hook hook = {meddle, &meddler};
    unsigned n_before = 0, n_after = 0;
    for (long n = 0; n <= meddler.seen; n += n < 60 ? 1 : 5) { /* the first ones find out what there is to copy */
        meddler.n = LONG_MAX;
        vecdb *db = open_in_trouble(path, VECDB_OPEN_EXISTING, &hook);
        struct dump before = dump_database(meddler.db);
        meddler.seen = 0;
        meddler.version++;
        meddler.n = n;
        back_up(db, copy, n % 2);
        meddler.n = LONG_MAX;
        struct dump after = dump_database(meddler.db), found = dump_path(copy);
        CHECK(found.sum == before.sum || found.sum == after.sum);
        n_before += found.sum == before.sum;
        n_after += found.sum == after.sum;
        vecdb *opened = open_database(copy, VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
        check_database(opened, "the backup");
        vecdb_close(opened);
        remove_database(copy);
        vecdb_close(db);
    }
    CHECK(n_before > 5 && n_after > 0);
    vecdb_close(meddler.db);
}

/* ------------------------------------------------------------------ refusals */

TEST(a_destination_that_is_not_free_is_refused_and_left_alone)
{
    const char *path = place("a");
    char inside[512];
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = make_rich_database(path);
    CHECK_FAILS(err, VECDB_INVALID, "elsewhere", vecdb_backup(db, path, NULL, &err));
    snprintf(inside, sizeof inside, "%s/backup", path);
    CHECK_FAILS(err, VECDB_INVALID, "elsewhere", vecdb_backup(db, inside, NULL, &err));
    CHECK(!symlink(path, place("link")));
    snprintf(inside, sizeof inside, "%s/backup", place("link"));
    CHECK_FAILS(err, VECDB_INVALID, "elsewhere", vecdb_backup(db, inside, NULL, &err));
    vecdb_close(open_database(place("other"), VECDB_OPEN_NEW, 0));
    CHECK_FAILS(err, VECDB_EXISTS, "already", vecdb_backup(db, place("other"), NULL, &err));
    write_file(place("file"), "x", 1);
    CHECK_FAILS(err, VECDB_INVALID, "is a file", vecdb_backup(db, place("file"), NULL, &err));
    CHECK(!mkdir(place("full"), 0777));
    snprintf(inside, sizeof inside, "%s/notes", place("full"));
    write_file(inside, "x", 1);
    CHECK_FAILS(err, VECDB_INVALID, "other files", vecdb_backup(db, place("full"), NULL, &err));
    CHECK_INT(count_names(place("full")), 1);
    CHECK_FAILS(err, VECDB_NOT_FOUND, "", vecdb_backup(db, place("missing/b"), NULL, &err));
    CHECK_FAILS(err, VECDB_INVALID, "path", vecdb_backup(db, "", NULL, &err));
    vecdb_backup_options wrong = {.size = 1};
    CHECK_FAILS(err, VECDB_MISUSE, "size", vecdb_backup(db, place("b"), &wrong, &err));
    CHECK(!path_exists(place("b")));
    check_database(db, "after refusals");
    vecdb_close(db);
}

/* Change one byte in the middle of a file. */
static void damage(const char *path, off_t offset)
{
    unsigned char byte;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0 && pread(fd, &byte, 1, offset) == 1);
    byte ^= 0x10;
    CHECK(pwrite(fd, &byte, 1, offset) == 1);
    close(fd);
}

static void damage_vectors(void *context, const char *path, const char *name)
{
    int *n_left = context;
    if (!strncmp(name, "vectors-1-", 10) && (*n_left)-- == 0)
        damage(path, 1000);
}

TEST(a_damaged_page_ends_a_backup_with_its_name)
{
    const char *path = place("a");
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_close(make_rich_database(path));
    struct kept_files kept;
    keep_files(path, &kept);
    int n = 0;
    each_name(path, damage_vectors, &n);
    vecdb *db = open_database(path, VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    CHECK_FAILS(err, VECDB_CORRUPT, "vectors-1-", vecdb_backup(db, place("b"), NULL, &err));
    CHECK(!path_exists(place("b")));
    vecdb_close(db);
    restore_files(path, &kept);
    char name[512];
    snprintf(name, sizeof name, "%s/catalog.sqlite", path);
    const struct kept_file *catalog = kept_file(&kept, "catalog.sqlite");
    unsigned n_found = 0;
    for (size_t page = 2; page < catalog->n_bytes / 4096; page += 3) {
        damage(name, (off_t)(page * 4096 + 700));
        vecdb_options options = {.size = sizeof options, .mode = VECDB_OPEN_READONLY};
        if (!vecdb_open(path, &options, &db, &err)) {
            CHECK_FAILS(err, VECDB_CORRUPT, "", vecdb_backup(db, place("b"), NULL, &err));
            CHECK(!path_exists(place("b")));
            vecdb_close(db);
            n_found++;
        }
        damage(name, (off_t)(page * 4096 + 700));
    }
    CHECK(n_found > 0);
    drop_files(&kept);
}

TEST(a_vector_file_that_is_missing_ends_a_backup)
{
    const char *path = place("a");
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_close(make_rich_database(path));
    vecdb *db = open_database(path, VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    char name[512];
    for (int i = 1; i < 20; i++) {
        snprintf(name, sizeof name, "%s/vectors-1-%d", path, i);
        unlink(name);
    }
    CHECK_FAILS(err, VECDB_CORRUPT, "vectors-1-", vecdb_backup(db, place("b"), NULL, &err));
    CHECK(!path_exists(place("b")));
    vecdb_close(db);
}

/* ------------------------------------------------------------------ failures */

/* Whatever goes wrong at whatever operation: an error, nothing left, the original as it was. */
static void fail_backups(int os_error, bool stays, int link)
{
    const char *path = place("a"), *copy = place("b");
    vecdb *plain = make_rich_database(path);
    struct dump before = dump_database(plain);
    vecdb_close(plain);
    struct trouble trouble = {.os_error = os_error, .stays = stays};
    struct vdb_io_hook hook = {make_trouble, &trouble};
    for (long n = 0;; n++) {
        vecdb_error err = VECDB_ERROR_INIT;
        vecdb_backup_options options = {.size = sizeof options, .link = link};
        trouble.n = LONG_MAX;
        vecdb *db = open_in_trouble(path, n % 2 ? VECDB_OPEN_EXISTING : VECDB_OPEN_READONLY, &hook);
        trouble.seen = 0;
        trouble.n = n;
        int status = vecdb_backup(db, copy, &options, &err);
        bool was_hit = trouble.seen > n;
        trouble.n = LONG_MAX;
        check_sentence("a backup", status, &err);
        CHECK(was_hit || !status);
        if (!status) {
            CHECK_DUMP(dump_path(copy), before);
            remove_database(copy);
        } else if (!stays) {
            if (path_exists(copy))
                FAIL("operation %ld failed (\"%s\") and left %d files", n, err.message, count_names(copy));
        } else if (path_exists(copy)) { /* not even removing worked: no database, or (the last sync failed) all of it */
            vecdb *opened;
            vecdb_options how = {.size = sizeof how, .mode = VECDB_OPEN_EXISTING};
            if (!vecdb_open(copy, &how, &opened, &err)) {
                CHECK_DUMP(dump_database(opened), before);
                check_database(opened, "a copy whose name was not synced");
                vecdb_close(opened);
            }
            remove_database(copy);
        }
        if (n % 16 == 0)
            CHECK_DUMP(dump_database(db), before);
        vecdb_close(db);
        if (!was_hit)
            break;
    }
    plain = open_database(path, VECDB_OPEN_EXISTING, 0);
    CHECK_DUMP(dump_database(plain), before);
    check_database(plain, "the original");
    vecdb_close(plain);
}

TEST(an_operation_that_fails_during_a_backup_leaves_nothing)
{
    fail_backups(EIO, false, 0);
}

TEST(a_disk_that_is_full_during_a_backup_leaves_nothing)
{
    fail_backups(ENOSPC, false, 1);
}

TEST(a_short_transfer_during_a_backup_leaves_nothing)
{
    fail_backups(VDB_FAULT_SHORT, false, 0);
}

TEST(a_disk_that_dies_during_a_backup_leaves_nothing_that_opens)
{
    fail_backups(EIO, true, 0);
}

TEST(memory_that_runs_out_during_a_backup_leaves_nothing)
{
    const char *path = place("a"), *copy = place("b");
    vecdb_close(make_rich_database(path));
    struct dump before = dump_path(path);
    for (int n = 0;; n++) {
        struct vdb_memory memory;
        struct failing failing;
        vecdb_error err = VECDB_ERROR_INIT;
        vecdb_options options;
        vecdb *db = open_failing(path, &failing, &memory, &options);
        failing.left = n;
        vecdb_backup_options how = {.size = sizeof how, .link = n % 2};
        int status = vecdb_backup(db, copy, &how, &err);
        bool has_failed = failing_has_failed(&failing);
        failing.left = PLENTY;
        check_sentence("a backup", status, &err);
        vecdb_close(db);
        CHECK(!status || status == VECDB_NOMEM);
        CHECK(path_exists(copy) == !status);
        if (!status) {
            CHECK_DUMP(dump_path(copy), before);
            remove_database(copy);
        }
        if (!has_failed)
            break;
    }
    CHECK_DUMP(dump_path(path), before);
}

struct stopper {
    const char *copy;
    vecdb *db; /* to interrupt; NULL: the callback says so */
    int n_left, n_seen;
};

static int stop_after(void *context, const vecdb_progress *progress)
{
    struct stopper *stopper = context;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *opened = NULL;
    stopper->n_seen++;
    CHECK_STRING(progress->phase, "backup");
    CHECK(progress->done <= progress->total);
    /* Not complete yet. */
    CHECK_FAILS(err, VECDB_CORRUPT, "copy of a database", vecdb_open(stopper->copy, NULL, &opened, &err));
    if (stopper->n_left-- > 0)
        return 0;
    if (!stopper->db)
        return 1;
    vecdb_interrupt(stopper->db);
    return 0;
}

TEST(a_backup_can_be_interrupted_and_cannot_be_opened_before_it_is_complete)
{
    const char *path = place("a"), *copy = place("b");
    vecdb *db = make_rich_database(path);
    struct stopper stopper = {.copy = copy};
    vecdb_backup_options options = {.size = sizeof options, .progress = stop_after, .progress_context = &stopper};
    int status = VECDB_INTERRUPTED, n_stopped = 0;
    for (int n = 0; status; n++) {
        vecdb_error err = VECDB_ERROR_INIT;
        stopper = (struct stopper){.copy = copy, .n_left = n, .db = n % 2 ? db : NULL};
        status = vecdb_backup(db, copy, &options, &err);
        if (status)
            CHECK_INT(status, VECDB_INTERRUPTED);
        CHECK(path_exists(copy) == !status);
        n_stopped += status != 0;
    }
    CHECK(n_stopped > 2);
    CHECK_DUMP(dump_path(copy), dump_database(db));
    vecdb_close(db);
}

TEST(a_disk_without_room_for_a_backup_is_told_and_left_as_it_was)
{
    const char *path = place("a");
    if (!mkdir(place("small"), 0777) && !mount_memory(place("small"), "size=300k"))
        SKIP("a file system cannot be mounted here");
    char copy[512];
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = make_rich_database(path);
    snprintf(copy, sizeof copy, "%s/b", place("small"));
    CHECK_FAILS(err, VECDB_FULL, "", vecdb_backup(db, copy, NULL, &err));
    CHECK_INT(count_names(place("small")), 0);
    check_database(db, "the original");
    vecdb_close(db);
}

/* ------------------------------------------------------------------ restore */

static void restore(const char *backup, const char *path)
{
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, vecdb_restore(backup, path, NULL, &err));
}

TEST(a_restore_puts_the_backup_in_place_and_keeps_what_was_there)
{
    const char *path = place("a"), *copy = place("b");
    char kept[512];
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = make_rich_database(path);
    struct dump old = dump_database(db), changed[3];
    back_up(db, copy, 0);
    for (uint32_t i = 0; i < 3; i++) {
        CHECK_OK(err, put_version(open_things(db), 0, 10, 50 + i, &err));
        changed[i] = dump_database(db);
        CHECK_FAILS(err, VECDB_BUSY, "open", vecdb_restore(copy, path, NULL, &err));
        vecdb_close(db);
        restore(copy, path);
        db = open_database(path, VECDB_OPEN_EXISTING, 0);
        CHECK_DUMP(dump_database(db), old);
        check_database(db, "restored");
    }
    vecdb_close(db);
    for (int i = 0; i < 3; i++) {
        snprintf(kept, sizeof kept, "%s.replaced-%d", path, i + 1);
        CHECK_DUMP(dump_path(kept), changed[i]);
    }
    CHECK_DUMP(dump_path(copy), old);
    snprintf(kept, sizeof kept, "%s.restoring", path);
    CHECK(!path_exists(kept));
}

TEST(a_restore_to_a_new_place_and_wrong_ones)
{
    const char *path = place("a"), *copy = place("b");
    char inside[512];
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = make_rich_database(path);
    back_up(db, copy, 1);
    struct dump before = dump_database(db);
    vecdb_close(db);
    restore(copy, place("new"));
    CHECK_DUMP(dump_path(place("new")), before);
    CHECK(!mkdir(place("empty"), 0777));
    restore(copy, place("empty"));
    CHECK_DUMP(dump_path(place("empty")), before);
    CHECK(!path_exists(place("empty.replaced-1")));
    vecdb_backup_options linked = {.size = sizeof linked, .link = 1};
    CHECK_OK(err, vecdb_restore(copy, place("linked"), &linked, &err));
    db = open_database(place("linked"), VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    CHECK_DUMP(dump_database(db), before);
    CHECK_OK(err, put_version(open_things(db), 0, 500, 60, &err));
    compact_database(db);
    check_database(db, "restored by links");
    vecdb_close(db);
    CHECK_DUMP(dump_path(copy), before);
    CHECK_FAILS(err, VECDB_INVALID, "itself", vecdb_restore(copy, copy, NULL, &err));
    snprintf(inside, sizeof inside, "%s/in", copy);
    CHECK_FAILS(err, VECDB_INVALID, "lies in it", vecdb_restore(copy, inside, NULL, &err));
    CHECK_FAILS(err, VECDB_NOT_FOUND, "", vecdb_restore(place("none"), path, NULL, &err));
    CHECK(!mkdir(place("files"), 0777));
    snprintf(inside, sizeof inside, "%s/notes", place("files"));
    write_file(inside, "x", 1);
    CHECK_FAILS(err, VECDB_INVALID, "other files", vecdb_restore(copy, place("files"), NULL, &err));
    CHECK_FAILS(err, VECDB_INVALID, "paths", vecdb_restore(copy, ":memory:", NULL, &err));
    CHECK_DUMP(dump_path(path), before);
    CHECK_DUMP(dump_path(copy), before);
}

/* What there is after a restore was cut off: the old database in its place, or none and both others. */
static void check_cut_off(const char *path, struct dump old, struct dump new)
{
    const char *restoring = place("a.restoring"), *replaced = place("a.replaced-1");
    vecdb_error err = VECDB_ERROR_INIT;
    if (path_exists(path)) {
        struct dump now = dump_path(path);
        CHECK(now.sum == old.sum || now.sum == new.sum);
        if (now.sum == new.sum)
            CHECK_DUMP(dump_path(replaced), old);
        return;
    }
    vecdb *db;
    CHECK_FAILS(err, VECDB_BUSY, "restore", vecdb_open(path, NULL, &db, &err));
    CHECK(!path_exists(path));
    CHECK_DUMP(dump_path(restoring), new);
    CHECK_DUMP(dump_path(replaced), old);
}

TEST(a_restore_that_is_killed_anywhere_is_ended_by_another)
{
    const char *path = place("a"), *copy = place("b");
    const char *others[2] = {place("a.restoring"), place("a.replaced-1")};
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = make_rich_database(path);
    back_up(db, copy, 0);
    struct dump new = dump_database(db);
    CHECK_OK(err, put_version(open_things(db), 0, 10, 50, &err));
    struct dump old = dump_database(db);
    vecdb_close(db);
    struct kept_files kept;
    keep_files(path, &kept);
    int code = 9;
    for (long n = 0; code; n++) {
        struct trouble trouble = {.n = n, .kills = true};
        struct vdb_io_hook hook = {make_trouble, &trouble};
        fflush(NULL);
        pid_t child = fork();
        if (!child)
            _exit(vdb_database_restore(copy, path, NULL, &hook, NULL) ? 1 : 0);
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
        code = WEXITSTATUS(status);
        CHECK(code == 9 || code == 0);
        check_cut_off(path, old, new);
        restore(copy, path);
        CHECK_DUMP(dump_path(path), new);
        CHECK(!path_exists(others[0]) && path_exists(others[1]));
        remove_database(place("a.replaced-2"));
        remove_database(others[1]);
        restore_files(path, &kept);
    }
    drop_files(&kept);
}

TEST(a_restore_that_fails_leaves_the_database_where_it_was)
{
    const char *path = place("a"), *copy = place("b");
    const char *restoring = place("a.restoring"), *replaced = place("a.replaced-1");
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = make_rich_database(path);
    back_up(db, copy, 0);
    CHECK_OK(err, put_version(open_things(db), 0, 10, 50, &err));
    struct dump old = dump_database(db), new = dump_path(copy);
    vecdb_close(db);
    for (long n = 0;; n++) {
        struct trouble trouble = {.n = n, .os_error = n % 2 ? EIO : ENOSPC};
        struct vdb_io_hook hook = {make_trouble, &trouble};
        int status = vdb_database_restore(copy, path, NULL, &hook, &err);
        CHECK(status || trouble.seen <= n || n > 0);
        if (path_exists(restoring))
            FAIL("operation %ld failed (%s) and left a copy", n, err.message);
        struct dump now = dump_path(path);
        if (now.sum != old.sum) { /* done: only the last sync failed, or nothing did */
            CHECK_DUMP(now, new);
            CHECK_DUMP(dump_path(replaced), old);
            remove_database(path);
            CHECK(!rename(replaced, path));
        }
        CHECK(!path_exists(replaced));
        if (trouble.seen <= n) {
            CHECK(!status);
            break;
        }
    }
}

/* ------------------------------------------------------------------ permissions */

struct modes {
    mode_t mask;
    int n_files, n_indexes;
};

static void check_mode(void *context, const char *path, const char *name)
{
    struct modes *modes = context;
    struct stat status;
    CHECK(!lstat(path, &status));
    mode_t wanted = (S_ISDIR(status.st_mode) ? 0777 : 0666) & ~modes->mask;
    if ((status.st_mode & 0777) != wanted)
        FAIL("%s has mode %03o and should have %03o", path, (unsigned)status.st_mode & 0777, (unsigned)wanted);
    modes->n_files++;
    modes->n_indexes += strstr(name, "-shm") || strstr(name, "-wal");
    if (S_ISDIR(status.st_mode))
        each_name(path, check_mode, modes);
}

TEST(every_file_has_the_mode_that_the_umask_leaves)
{
    static const mode_t masks[] = {002, 022, 077};
    const mode_t before = umask(0);
    for (size_t i = 0; i < 3; i++) {
        char root[400], path[420], other[420];
        struct modes modes = {.mask = masks[i]};
        vecdb_error err = VECDB_ERROR_INIT;
        umask(masks[i]);
        snprintf(root, sizeof root, "%s/%03o", test_directory(), (unsigned)masks[i]);
        CHECK(!mkdir(root, 0777));
        snprintf(path, sizeof path, "%s/db", root);
        vecdb *db = make_rich_database(path), *copy;
        CHECK_OK(err, vecdb_snapshot_create(db, "s", &err));
        for (int link = 0; link < 2; link++) {
            snprintf(other, sizeof other, "%s/backup-%d", root, link);
            back_up(db, other, link);
            copy = open_database(other, VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
            compact_database(copy);
            each_name(root, check_mode, &modes); /* with the files of those that are open */
            vecdb_close(copy);
        }
        vecdb_close(db);
        CHECK_OK(err, vecdb_repair(path, NULL, NULL, NULL, NULL, NULL, &err));
        db = open_database(path, VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
        each_name(root, check_mode, &modes);
        vecdb_close(db);
        snprintf(other, sizeof other, "%s/backup-0", root);
        CHECK_OK(err, vecdb_restore(other, path, NULL, &err));
        each_name(root, check_mode, &modes);
        CHECK(modes.n_files > 40 && modes.n_indexes >= 8);
    }
    umask(before);
}
