/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/test_snapshots.c - named snapshots
 *
 * The properties:
 *   1. A snapshot shows one committed state, for ever, whatever is written, compacted or dropped afterwards;
 *      it is a database to every call that reads, and READONLY to every call that writes.
 *   2. It is there when the call that made it has returned, and not before; a crash or a failure at any
 *      point leaves a whole snapshot or none, and what is left of it is removed by maintenance.
 *   3. One that is dropped is gone from the list at once, while those who have it open read on; when the
 *      last of them is gone so is its directory. What somebody uses or makes is never removed.
 *   4. Any number of processes may make, drop and read them at once.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <sys/wait.h>

#include "backup_tools.h"

/* ------------------------------------------------------------------ tools */

static int try_snapshot(const char *path, const char *name, int mode, vecdb **db, vecdb_error *err)
{
    vecdb_options options = {.size = sizeof options, .mode = mode, .snapshot = name, .threads = VECDB_THREADS_NONE};
    return vecdb_open(path, &options, db, err);
}

static vecdb *open_snapshot(const char *path, const char *name, int mode)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db;
    CHECK_OK(err, try_snapshot(path, name, mode, &db, &err));
    return db;
}

static void create(vecdb *db, const char *name)
{
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, vecdb_snapshot_create(db, name, &err));
}

static void drop(vecdb *db, const char *name)
{
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, vecdb_snapshot_drop(db, name, &err));
}

struct names {
    char text[512];
    size_t n;
    uint64_t last_sequence;
};

static int add_name(void *context, const vecdb_snapshot_info *info)
{
    struct names *names = context;
    size_t used = strlen(names->text);
    snprintf(names->text + used, sizeof names->text - used, "%s;", info->name);
    CHECK(info->created > 1500000000);
    names->n++;
    names->last_sequence = info->sequence;
    return 0;
}

static struct names list(vecdb *db)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct names names = {.n = 0};
    CHECK_OK(err, vecdb_snapshots(db, add_name, &names, &err));
    return names;
}

static void count_snapshot(void *context, const char *path, const char *name)
{
    (void)path;
    *(int *)context += !strncmp(name, "snapshot-", 9);
}

static int count_directories(const char *path)
{
    int n = 0;
    each_name(path, count_snapshot, &n);
    return n;
}

static struct dump dump_snapshot(const char *path, const char *name)
{
    vecdb *db = open_snapshot(path, name, VECDB_OPEN_READONLY);
    struct dump dump = dump_database(db);
    check_database(db, name);
    vecdb_close(db);
    return dump;
}

/* ------------------------------------------------------------------ what a snapshot is */

TEST(a_snapshot_shows_its_state_for_ever)
{
    const char *path = place("a");
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = make_rich_database(path);
    struct dump states[4];
    char name[8] = "state 0";
    for (int i = 0; i < 4; i++) {
        name[6] = (char)('0' + i);
        states[i] = dump_database(db);
        uint64_t sequence = sequence_of(db);
        create(db, name);
        CHECK_SIZE(list(db).last_sequence, sequence + 1); /* a number was reserved before */
        CHECK_OK(err, put_version(open_things(db), 50 * i, 500, 30 + (uint32_t)i, &err));
        if (i == 1)
            CHECK_OK(err, vecdb_collection_drop(db, "others", &err));
        if (i == 2)
            compact_database(db);
    }
    CHECK_STRING(list(db).text, "state 0;state 1;state 2;state 3;");
    CHECK_OK(err, vecdb_collection_drop(db, "things", &err));
    compact_database(db);
    vecdb_close(db);
    for (int i = 0; i < 4; i++) {
        name[6] = (char)('0' + i);
        CHECK_DUMP(dump_snapshot(path, name), states[i]);
    }
    db = open_database(path, VECDB_OPEN_EXISTING, 0);
    CHECK_INT(count_directories(path), 4);
    check_database(db, "the database with snapshots");
    drop(db, "state 1");
    CHECK_STRING(list(db).text, "state 0;state 2;state 3;");
    CHECK_INT(count_directories(path), 3);
    create(db, "state 1");
    CHECK_STRING(list(db).text, "state 0;state 2;state 3;state 1;");
    vecdb_close(db);
    CHECK_DUMP(dump_snapshot(path, "state 2"), states[2]);
}

TEST(a_snapshot_reads_like_a_database_and_refuses_to_be_written)
{
    const char *path = place("a");
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = make_rich_database(path), *snapshot;
    struct dump state = dump_database(db);
    create(db, "s");
    for (int mode = VECDB_OPEN_CREATE; mode <= VECDB_OPEN_READONLY; mode++) {
        if (mode == VECDB_OPEN_NEW) {
            CHECK_FAILS(err, VECDB_INVALID, "snapshot", try_snapshot(path, "s", mode, &snapshot, &err));
            continue;
        }
        snapshot = open_snapshot(path, "s", mode);
        CHECK_DUMP(dump_database(snapshot), state);
        vecdb_stats stats = {.size = sizeof stats};
        CHECK_OK(err, vecdb_database_stats(snapshot, &stats, &err));
        CHECK(stats.is_readonly && stats.vector_bytes > 0 && stats.catalog_bytes > 0);
        CHECK_FAILS(err, VECDB_READONLY, "snapshot", vecdb_snapshot_create(snapshot, "t", &err));
        CHECK_FAILS(err, VECDB_READONLY, "snapshot", vecdb_snapshot_drop(snapshot, "s", &err));
        CHECK_FAILS(err, VECDB_READONLY, "snapshot", vecdb_compact(snapshot, NULL, &err));
        CHECK_FAILS(err, VECDB_READONLY, "", put_version(open_things(snapshot), 0, 1, 1, &err));
        CHECK_SIZE(list(snapshot).n, 0);
        vecdb_close(snapshot);
    }
    snapshot = open_snapshot(path, "s", VECDB_OPEN_READONLY);
    CHECK_OK(err, put_version(open_things(db), 0, 900, 40, &err));
    for (int link = 0; link < 2; link++) {
        vecdb_backup_options options = {.size = sizeof options, .link = link};
        const char *copy = place(link ? "b1" : "b0");
        CHECK_FAILS(err, VECDB_INVALID, "elsewhere", vecdb_backup(snapshot, place("a/c"), &options, &err));
        CHECK_OK(err, vecdb_backup(snapshot, copy, &options, &err));
        vecdb *opened = open_database(copy, VECDB_OPEN_EXISTING, 0);
        CHECK_DUMP(dump_database(opened), state);
        CHECK_OK(err, put_version(open_things(opened), 0, 900, 41, &err));
        compact_database(opened);
        check_database(opened, "a backup of a snapshot");
        vecdb_close(opened);
    }
    CHECK_DUMP(dump_database(snapshot), state);
    vecdb_close(snapshot);
    vecdb_close(db);
}

TEST(names_of_snapshots_are_checked)
{
    const char *path = place("a");
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = make_rich_database(path), *opened;
    char longest[VECDB_MAX_NAME + 2];
    memset(longest, 'x', sizeof longest);
    longest[VECDB_MAX_NAME + 1] = '\0';
    CHECK_FAILS(err, VECDB_INVALID, "", vecdb_snapshot_create(db, longest, &err));
    longest[VECDB_MAX_NAME] = '\0';
    create(db, longest);
    create(db, "../../etc \xc3\xa9 ';--");
    CHECK_FAILS(err, VECDB_INVALID, "control", vecdb_snapshot_create(db, "a\x01", &err));
    CHECK_FAILS(err, VECDB_INVALID, "name", vecdb_snapshot_create(db, "", &err));
    CHECK_FAILS(err, VECDB_INVALID, "name", vecdb_snapshot_create(db, NULL, &err));
    CHECK_FAILS(err, VECDB_EXISTS, "already", vecdb_snapshot_create(db, longest, &err));
    CHECK_FAILS(err, VECDB_NOT_FOUND, "no snapshot", vecdb_snapshot_drop(db, "none", &err));
    CHECK_FAILS(err, VECDB_NOT_FOUND, "no snapshot", try_snapshot(path, "none", 0, &opened, &err));
    CHECK_FAILS(err, VECDB_NOT_FOUND, "", try_snapshot(place("none"), "s", 0, &opened, &err));
    CHECK(!path_exists(place("none")));
    CHECK_SIZE(list(db).n, 2);
    CHECK_INT(count_directories(path), 2);
    dump_snapshot(path, longest);
    dump_snapshot(path, "../../etc \xc3\xa9 ';--");
    vecdb_close(db);
    db = open_database(path, VECDB_OPEN_READONLY, 0);
    CHECK_FAILS(err, VECDB_READONLY, "", vecdb_snapshot_create(db, "r", &err));
    vecdb_close(db);
    db = open_database(":memory:", VECDB_OPEN_CREATE, 0);
    CHECK_FAILS(err, VECDB_UNSUPPORTED, "memory", vecdb_snapshot_create(db, "s", &err));
    CHECK_FAILS(err, VECDB_UNSUPPORTED, "memory", vecdb_snapshot_drop(db, "s", &err));
    CHECK_FAILS(err, VECDB_UNSUPPORTED, "memory", try_snapshot(":memory:", "s", 0, &opened, &err));
    CHECK_SIZE(list(db).n, 0);
    vecdb_close(db);
}

TEST(a_backup_has_no_snapshots_of_its_own)
{
    const char *path = place("a"), *copy = place("b");
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = make_rich_database(path);
    create(db, "s");
    CHECK_OK(err, vecdb_backup(db, copy, NULL, &err));
    create(db, "t");
    vecdb *opened = open_snapshot(path, "t", VECDB_OPEN_READONLY);
    CHECK_SIZE(list(opened).n, 0);
    vecdb_close(opened);
    vecdb_close(db);
    db = open_database(copy, VECDB_OPEN_EXISTING, 0);
    CHECK_SIZE(list(db).n, 0);
    CHECK_INT(count_directories(copy), 0);
    create(db, "s");
    CHECK_STRING(list(db).text, "s;");
    vecdb_close(db);
}

/* ------------------------------------------------------------------ in use */

TEST(a_snapshot_that_is_dropped_while_it_is_open_is_read_to_the_end)
{
    const char *path = place("a");
    vecdb *db = make_rich_database(path);
    struct dump state = dump_database(db);
    create(db, "s");
    vecdb *first = open_snapshot(path, "s", VECDB_OPEN_EXISTING);
    vecdb *second = open_snapshot(path, "s", VECDB_OPEN_EXISTING);
    vecdb *opened;
    vecdb_error err = VECDB_ERROR_INIT;
    drop(db, "s"); /* neither has opened a vector file yet */
    CHECK_SIZE(list(db).n, 0);
    CHECK_FAILS(err, VECDB_NOT_FOUND, "no snapshot", try_snapshot(path, "s", VECDB_OPEN_READONLY, &opened, &err));
    compact_database(db);
    CHECK_INT(count_directories(path), 1);
    CHECK_DUMP(dump_database(first), state);
    vecdb_close(first);
    CHECK_INT(count_directories(path), 1);
    create(db, "s"); /* the name is free, the number is another */
    CHECK_INT(count_directories(path), 2);
    CHECK_DUMP(dump_database(second), state);
    check_database(second, "dropped");
    vecdb_close(second);
    CHECK_INT(count_directories(path), 1);
    vecdb_close(db);
    CHECK_DUMP(dump_snapshot(path, "s"), state);
}

TEST(a_reader_that_writes_nothing_leaves_a_dropped_snapshot_to_maintenance)
{
    const char *path = place("a");
    vecdb *db = make_rich_database(path);
    create(db, "s");
    vecdb *reader = open_snapshot(path, "s", VECDB_OPEN_READONLY);
    drop(db, "s");
    vecdb_close(reader);
    CHECK_INT(count_directories(path), 1);
    compact_database(db);
    CHECK_INT(count_directories(path), 0);
    vecdb_close(db);
}

TEST(maintenance_removes_nothing_behind_a_symbolic_link)
{
    const char *path = place("a"), *victim = place("victim");
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = make_rich_database(victim);
    struct dump state = dump_database(db);
    vecdb_close(db);
    db = make_rich_database(path);
    CHECK(!symlink(victim, place("a/snapshot-77")) && !symlink("..", place("a/snapshot-78")));
    CHECK(!symlink(victim, place("c.restoring")));
    compact_database(db);
    create(db, "s");
    drop(db, "s");
    CHECK_FAILS(err, VECDB_EXISTS, "in the way", vecdb_restore(path, place("c"), NULL, &err));
    vecdb_close(db);
    CHECK_DUMP(dump_path(victim), state);
}

TEST(a_database_is_not_replaced_while_one_of_its_snapshots_is_open)
{
    const char *path = place("a"), *copy = place("b");
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = make_rich_database(path);
    create(db, "s");
    CHECK_OK(err, vecdb_backup(db, copy, NULL, &err));
    vecdb_close(db);
    vecdb *snapshot = open_snapshot(path, "s", VECDB_OPEN_READONLY);
    CHECK_FAILS(err, VECDB_BUSY, "open", vecdb_restore(copy, path, NULL, &err));
    vecdb_close(snapshot);
    CHECK_OK(err, vecdb_restore(copy, path, NULL, &err));
    CHECK_INT(count_directories(place("a.replaced-1")), 1);
    dump_snapshot(place("a.replaced-1"), "s");
}

TEST(a_snapshot_opens_without_permission_to_write)
{
    if (geteuid())
        SKIP("the test gives up root, so it has to be root");
    const char *path = place("a");
    vecdb *db = make_rich_database(path);
    struct dump state = dump_database(db);
    create(db, "s");
    vecdb_close(db);
    CHECK(!chmod(test_directory(), 0755) && !setgid(65534) && !setuid(65534));
    CHECK_DUMP(dump_snapshot(path, "s"), state);
    vecdb *snapshot = open_snapshot(path, "s", VECDB_OPEN_CREATE);
    CHECK_DUMP(dump_database(snapshot), state);
    vecdb_close(snapshot);
}

/* Put versions of all records of a group, make and drop snapshots, until told to end. */
static int work_on(const char *path, int who, int n_rounds)
{
    vecdb *db = open_database(path, VECDB_OPEN_EXISTING, 1);
    vecdb_collection *things = open_things(db);
    char name[32];
    for (int round = 0; round < n_rounds; round++) {
        vecdb_error err = VECDB_ERROR_INIT;
        CHECK_OK(err, put_version(things, who * 1000, 200, (uint32_t)round + 1, &err));
        snprintf(name, sizeof name, "%d of %d", round, who);
        struct dump dump; /* the other's group changes: only the own one is compared */
        create(db, name);
        if (round % 3 == 1) {
            int status = vecdb_compact(db, NULL, &err);
            CHECK(!status || status == VECDB_BUSY);
        }
        vecdb *snapshot = open_snapshot(path, name, round % 2 ? VECDB_OPEN_READONLY : VECDB_OPEN_EXISTING);
        dump = dump_database(snapshot);
        if (round % 2) {
            drop(db, name);
            CHECK_DUMP(dump_database(snapshot), dump);
        }
        vecdb_results *results;
        vecdb_key key = vecdb_key_int(who * 1000 + 7);
        CHECK_OK(err, vecdb_get(open_things(snapshot), &key, 1, VECDB_VECTORS, &results, &err));
        const float *vector = vecdb_result_vector(results, 0, "v", NULL, NULL);
        CHECK(vector);
        CHECK_INT(version_of_vector(who * 1000 + 7, vector, WIDE), round + 1);
        vecdb_results_free(results);
        vecdb_close(snapshot);
    }
    vecdb_close(db);
    return 0;
}

TEST(several_processes_make_read_and_drop_snapshots_at_once)
{
    const char *path = place("a");
    int n_rounds = (int)test_rounds(8), n_children = 3;
    vecdb *db = open_database(path, VECDB_OPEN_NEW, VECDB_THREADS_NONE);
    open_things(db);
    vecdb_close(db);
    pid_t children[3];
    for (int i = 0; i < n_children; i++) {
        fflush(NULL);
        if (!(children[i] = fork()))
            _exit(work_on(path, i, n_rounds));
    }
    for (int i = 0; i < n_children; i++) {
        int status;
        CHECK(waitpid(children[i], &status, 0) == children[i] && WIFEXITED(status) && !WEXITSTATUS(status));
    }
    db = open_database(path, VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    compact_database(db);
    CHECK_SIZE(list(db).n, n_children * ((n_rounds + 1) / 2));
    CHECK_INT(count_directories(path), n_children * ((n_rounds + 1) / 2));
    check_database(db, "after all that");
    vecdb_close(db);
}

/* ------------------------------------------------------------------ failures and kills */

/* What is on disk is what is in the table, after maintenance at the latest. */
static void check_settled(const char *path, struct dump state)
{
    vecdb *db = open_database(path, VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    compact_database(db);
    struct names names = list(db);
    CHECK_INT(count_directories(path), names.n);
    if (names.n) {
        CHECK_STRING(names.text, "s;");
        CHECK_DUMP(dump_snapshot(path, "s"), state);
        drop(db, "s");
        CHECK_INT(count_directories(path), 0);
    }
    CHECK_DUMP(dump_database(db), state);
    check_database(db, "settled");
    vecdb_close(db);
}

TEST(a_snapshot_whose_making_fails_anywhere_is_whole_or_not_there)
{
    const char *path = place("a");
    vecdb *db = make_rich_database(path);
    compact_database(db); /* nothing is left for check_settled to change */
    struct dump state = dump_database(db);
    vecdb_close(db);
    struct trouble trouble = {.os_error = EIO};
    struct vdb_io_hook hook = {make_trouble, &trouble};
    for (long n = 0, seen = 1; n < seen; n++) {
        vecdb_error err = VECDB_ERROR_INIT;
        trouble = (struct trouble){.n = LONG_MAX, .os_error = n % 2 ? ENOSPC : EIO, .stays = n % 3 == 0};
        db = open_in_trouble(path, VECDB_OPEN_EXISTING, &hook);
        trouble.seen = 0;
        trouble.n = n;
        int status = vecdb_snapshot_create(db, "s", &err);
        seen = trouble.seen;
        trouble.n = LONG_MAX;
        check_sentence("a snapshot", status, &err);
        if (!status)
            CHECK_STRING(list(db).text, "s;");
        vecdb_close(db);
        check_settled(path, state);
    }
}

TEST(a_snapshot_whose_drop_fails_anywhere_is_whole_or_gone)
{
    const char *path = place("a");
    vecdb *db = make_rich_database(path);
    compact_database(db);
    struct dump state = dump_database(db);
    vecdb_close(db);
    struct trouble trouble = {.os_error = EIO};
    struct vdb_io_hook hook = {make_trouble, &trouble};
    for (long n = 0, seen = 1; n < seen; n++) {
        vecdb_error err = VECDB_ERROR_INIT;
        trouble = (struct trouble){.n = LONG_MAX, .os_error = EIO, .stays = n % 3 == 0};
        db = open_in_trouble(path, VECDB_OPEN_EXISTING, &hook);
        create(db, "s");
        trouble.seen = 0;
        trouble.n = n;
        int status = vecdb_snapshot_drop(db, "s", &err);
        seen = trouble.seen;
        trouble.n = LONG_MAX;
        check_sentence("a drop", status, &err);
        if (!status)
            CHECK_SIZE(list(db).n, 0);
        vecdb_close(db);
        check_settled(path, state);
    }
}

TEST(opening_a_snapshot_that_fails_anywhere_fails_with_a_sentence)
{
    const char *path = place("a");
    vecdb *db = make_rich_database(path);
    create(db, "s");
    vecdb_close(db);
    struct trouble trouble = {.os_error = EIO};
    struct vdb_io_hook hook = {make_trouble, &trouble};
    for (long n = 0, seen = 1; n < seen; n++) {
        vecdb_error err = VECDB_ERROR_INIT;
        trouble = (struct trouble){.n = n, .os_error = EIO, .stays = n % 2};
        vecdb_options options = {.size = sizeof options, .snapshot = "s", .threads = VECDB_THREADS_NONE};
        int status = vdb_database_open(path, &options, &hook, &db, &err);
        seen = trouble.seen;
        trouble.n = LONG_MAX;
        check_sentence("opening", status, &err);
        if (!status)
            vecdb_close(db);
    }
}

TEST(memory_that_runs_out_while_a_snapshot_is_made_opened_or_dropped)
{
    const char *path = place("a");
    vecdb *db = make_rich_database(path);
    compact_database(db);
    struct dump state = dump_database(db);
    vecdb_close(db);
    bool has_failed = true;
    for (int n = 0; has_failed; n++) {
        struct vdb_memory memory;
        struct failing failing;
        vecdb_error err = VECDB_ERROR_INIT;
        vecdb_options options;
        db = open_failing(path, &failing, &memory, &options);
        failing.left = n;
        int status = vecdb_snapshot_create(db, "s", &err);
        has_failed = failing_has_failed(&failing);
        failing.left = PLENTY;
        CHECK(!status || status == VECDB_NOMEM);
        if (!status) {
            options.snapshot = "s";
            failing.left = n;
            vecdb *snapshot;
            if (!(status = vecdb_open(path, &options, &snapshot, &err)))
                vecdb_close(snapshot);
            CHECK(!status || status == VECDB_NOMEM);
            failing.left = n;
            status = vecdb_snapshot_drop(db, "s", &err);
            CHECK(!status || status == VECDB_NOMEM);
            failing.left = PLENTY;
        }
        vecdb_close(db);
        if (n % 8 == 0 || !has_failed)
            check_settled(path, state);
        else if (path_exists(path)) { /* a name that is left is in the way of the next */
            db = open_database(path, VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
            if (list(db).n)
                drop(db, "s");
            vecdb_close(db);
        }
    }
}

TEST(a_snapshot_that_is_opened_by_its_own_path_cannot_be_written)
{
    vecdb_error err = VECDB_ERROR_INIT;
    const char *path = place("a");
    char inside[400];
    vecdb *db = make_rich_database(path), *snapshot;
    create(db, "s");
    struct dump state = dump_database(db);
    snprintf(inside, sizeof inside, "%s/snapshot-1", path);
    CHECK(path_exists(inside));
    snapshot = open_database(inside, VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    CHECK_FAILS(err, VECDB_READONLY, "read-only", vecdb_compact(snapshot, NULL, &err));
    CHECK_DUMP(dump_database(snapshot), state);
    CHECK_OK(err, vecdb_backup(snapshot, place("b"), NULL, &err));
    vecdb_close(snapshot);
    vecdb_close(db);
    db = open_database(place("b"), VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    compact_database(db); /* a copy of it is a database like any other */
    vecdb_close(db);
}

struct once {
    struct failing heap; /* never fails */
    long left;
    bool has_failed;
};

static void *allocate_but_once(void *context, size_t size)
{
    struct once *once = context;
    if (!once->left--) {
        once->has_failed = true;
        return NULL;
    }
    return failing_allocate(&once->heap, size);
}

static void *reallocate_but_once(void *context, void *block, size_t size)
{
    struct once *once = context;
    return failing_reallocate(&once->heap, block, size);
}

static void release_again(void *context, void *block)
{
    struct once *once = context;
    failing_release(&once->heap, block);
}

TEST(one_allocation_that_fails_while_a_snapshot_is_opened_is_told_as_such)
{
    const char *path = place("a");
    vecdb *db = make_rich_database(path);
    create(db, "s");
    vecdb_close(db);
    struct once once = {.has_failed = true};
    struct vdb_memory memory;
    int n_noticed = 0;
    for (int n = 0; once.has_failed; n++) {
        vecdb_error err = VECDB_ERROR_INIT;
        failing_begin(&once.heap, &memory, INT_MAX);
        once.left = n;
        once.has_failed = false;
        vecdb_options options = {.size = sizeof options, .snapshot = "s", .threads = VECDB_THREADS_NONE,
                                 .allocator = {allocate_but_once, reallocate_but_once, release_again, &once}};
        int status = vecdb_open(path, &options, &db, &err);
        check_sentence("opening", status, &err);
        if (status && status != VECDB_NOMEM)
            FAIL("allocation %d: %s: %s", n, vecdb_status_name(status), err.message);
        n_noticed += status != 0;
        if (!status)
            vecdb_close(db);
    }
    CHECK(n_noticed > 10);
}

TEST(a_snapshot_whose_maker_is_killed_anywhere_is_whole_or_removed)
{
    const char *path = place("a");
    vecdb *db = make_rich_database(path);
    compact_database(db);
    struct dump state = dump_database(db);
    vecdb_close(db);
    int code = 9, n_whole = 0, n_none = 0;
    for (long n = 0; code; n++) {
        fflush(NULL);
        pid_t child = fork();
        if (!child) {
            struct trouble trouble = {.n = n, .kills = true};
            struct vdb_io_hook hook = {make_trouble, &trouble};
            vecdb_options options = {.size = sizeof options, .threads = VECDB_THREADS_NONE};
            if (vdb_database_open(path, &options, &hook, &db, NULL) || vecdb_snapshot_create(db, "s", NULL) ||
                (n % 2 && vecdb_snapshot_drop(db, "s", NULL)))
                _exit(1);
            vecdb_close(db);
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
        code = WEXITSTATUS(status);
        CHECK(code == 9 || code == 0);
        db = open_database(path, VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
        n_whole += list(db).n == 1;
        n_none += list(db).n == 0;
        vecdb_close(db);
        check_settled(path, state);
    }
    CHECK(n_whole > 0 && n_none > 0);
}
