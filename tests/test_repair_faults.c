/* SPDX-License-Identifier: Apache-2.0
 *
 * Repair under trouble of its own: a database in use is not touched; a repair that is interrupted, runs out of memory
 * or room, or meets a failing disk leaves the database as it was and nothing beside it; one that is killed is begun
 * again or completed by the next, whichever step it had come to.
 */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

#include "failing.h"
#include "repair_tools.h"

TEST(a_database_in_use_is_busy)
{
    static struct kept_files kept;
    vecdb_error err = VECDB_ERROR_INIT;
    make_database(false, &kept);
    vecdb *db = open_database(directory(), VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    CHECK_FAILS(err, VECDB_BUSY, "open", vecdb_repair(directory(), NULL, NULL, NULL, NULL, NULL, &err));
    vecdb_close(db);
    int pipes[2];
    CHECK(!pipe(pipes));
    pid_t child = fork();
    if (!child) {
        vecdb *own = NULL;
        char byte = vecdb_open(directory(), NULL, &own, NULL) ? 'x' : 'o';
        if (write(pipes[1], &byte, 1) == 1)
            pause();
        _exit(0);
    }
    char byte = 0;
    CHECK(read(pipes[0], &byte, 1) == 1 && byte == 'o');
    CHECK_FAILS(err, VECDB_BUSY, "open", vecdb_repair(directory(), NULL, NULL, NULL, NULL, NULL, &err));
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    CHECK_OK(err, vecdb_repair(directory(), NULL, NULL, NULL, NULL, NULL, &err));
}

TEST(what_is_no_database_is_refused)
{
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_FAILS(err, VECDB_NOT_FOUND, "no vecdb database",
                vecdb_repair(test_path("none"), NULL, NULL, NULL, NULL, NULL, &err));
    CHECK(!mkdir(test_path("empty"), 0777));
    CHECK_FAILS(err, VECDB_NOT_FOUND, "no vecdb database",
                vecdb_repair(test_path("empty"), NULL, NULL, NULL, NULL, NULL, &err));
    write_file(test_path("file"), "x", 1);
    CHECK_FAILS(err, VECDB_INVALID, "is a file", vecdb_repair(test_path("file"), NULL, NULL, NULL, NULL, NULL, &err));
    CHECK_FAILS(err, VECDB_INVALID, "directory", vecdb_repair(":memory:", NULL, NULL, NULL, NULL, NULL, &err));
    CHECK_FAILS(err, VECDB_INVALID, "directory", vecdb_repair(NULL, NULL, NULL, NULL, NULL, NULL, &err));
}

/* A page of records is zeros, and one of vectors is flipped: enough for a rebuild with losses. */
static void damage_two(struct kept_files *kept)
{
    struct kept_file *catalog = file_of(kept, "catalog.sqlite"), *vectors = file_of(kept, "vectors-1-1");
    memset(catalog->bytes + catalog->n_bytes / 4096 / 2 * 4096, 0, 4096);
    vectors->bytes[2000] ^= 1;
}

static int interrupt_at;
static int count_down(void *context, const vecdb_progress *progress)
{
    (void)context;
    CHECK_STRING(progress->phase, "repair");
    return interrupt_at-- <= 0;
}

static void check_unchanged(const char *what, const struct kept_files *kept)
{
    struct kept_files now;
    keep_files(directory(), &now);
    for (size_t i = 0; i < kept->n; i++) {
        const struct kept_file *is = kept_file(&now, kept->files[i].name);
        if (is_nothing(&kept->files[i]))
            continue;
        if (!is || is->n_bytes != kept->files[i].n_bytes || memcmp(is->bytes, kept->files[i].bytes, is->n_bytes))
            FAIL("%s: %s was changed", what, kept->files[i].name);
    }
    for (size_t i = 0; i < now.n; i++)
        vdb_free(tool_memory(), now.files[i].bytes);
}

TEST(a_repair_can_be_interrupted_and_begun_again)
{
    static struct kept_files kept;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_work work = {.size = sizeof work, .progress = count_down};
    struct told told;
    make_database(false, &kept);
    damage_two(&kept);
    restore_files(directory(), &kept);
    for (int at = 0; at < 12; at++) {
        interrupt_at = at;
        int status = vecdb_repair(directory(), NULL, &work, NULL, NULL, NULL, &err);
        if (status != VECDB_INTERRUPTED)
            break;
        CHECK(!exists(beside(".repairing")));
        CHECK(!exists(beside(".damaged-1")));
        check_unchanged("interrupted", &kept);
    }
    restore_files(directory(), &kept);
    remove_database(beside(".damaged-1"));
    repair_and_compare("after interruptions", &kept, &told, NULL);
}

/* ------------------------------------------------------------------ faults */

struct fault {
    long left; /* operations that succeed */
    int os_error;
    bool only_once;
    bool kills; /* the process ends, as at a power cut */
    bool happened;
};

static int fail_later(void *context, enum vdb_io_op op, const char *path)
{
    (void)op, (void)path;
    struct fault *fault = context;
    if (fault->left-- > 0 || (fault->only_once && fault->happened))
        return 0;
    fault->happened = true;
    if (fault->kills)
        _exit(9);
    return fault->os_error;
}

TEST(an_operation_that_fails_leaves_the_database_as_it_was)
{
    static struct kept_files kept;
    test_time_limit(600);
    make_database(false, &kept);
    damage_two(&kept);
    long step = 1 + (long)(200 / test_rounds(40));
    unsigned n_failed = 0;
    for (int how = 0; how < 2; how++) {
        for (long n = (long)(test_seed() % 5);; n += step) {
            vecdb_error err = VECDB_ERROR_INIT;
            struct fault fault = {.left = n, .os_error = how ? ENOSPC : EIO};
            struct vdb_io_hook hook = {fail_later, &fault};
            vecdb_options options = {.size = sizeof options, .threads = VECDB_THREADS_NONE};
            struct told told = {0};
            remove_database(beside(".repairing"));
            remove_database(beside(".repaired"));
            remove_database(beside(".damaged-1"));
            restore_files(directory(), &kept);
            int status = vdb_database_repair(directory(), &options, &hook, NULL, note_problem, &told, NULL, &err);
            check_sentence("a failing operation", status, &err);
            if (!fault.happened)
                break;
            /* Names may have been exchanged; then only their last sync has failed. */
            n_failed += status != 0;
            if (status && !exists(beside(".damaged-1")))
                check_unchanged("a failing operation", &kept);
            if (status && exists(beside(".damaged-1")))
                check_kept("a failing operation", &kept);
            char what[64];
            snprintf(what, sizeof what, "after operation %ld failed", n);
            if (!exists(beside(".damaged-1")))
                repair_and_compare(what, &kept, &told, NULL);
            else
                CHECK(!vecdb_repair(directory(), NULL, NULL, NULL, NULL, NULL, &err));
            step += step / 8;
        }
    }
    CHECK(n_failed > 10);
}

TEST(a_state_that_cannot_be_made_anew_stays_as_it_is)
{
    static struct kept_files kept;
    make_database(false, &kept);
    file_of(&kept, "state")->bytes[20] ^= 4;
    for (long n = 0;; n += 3) {
        vecdb_error err = VECDB_ERROR_INIT;
        struct fault fault = {.left = n, .os_error = EIO, .only_once = true};
        struct vdb_io_hook hook = {fail_later, &fault};
        vecdb_options options = {.size = sizeof options, .threads = VECDB_THREADS_NONE};
        struct told told = {0};
        restore_files(directory(), &kept);
        int status = vdb_database_repair(directory(), &options, &hook, NULL, note_problem, &told, NULL, &err);
        remove_database(beside(".damaged-1"));
        if (!fault.happened) {
            CHECK_INT(status, VECDB_OK);
            break;
        }
        check_sentence("a failing operation", status, &err);
        if (status)
            check_unchanged("a failing operation", &kept);
    }
}

TEST(an_allocation_that_fails_leaves_the_database_as_it_was)
{
    static struct kept_files kept;
    test_time_limit(600);
    make_database(false, &kept);
    damage_two(&kept);
    unsigned n_failed = 0;
    int step = 1;
    for (int n = (int)(test_seed() % 3);; n += step) {
        struct failing failing;
        struct vdb_memory memory;
        vecdb_error err = VECDB_ERROR_INIT;
        failing_begin(&failing, &memory, n);
        vecdb_options options = {.size = sizeof options, .threads = VECDB_THREADS_NONE, .allocator = memory.allocator};
        restore_files(directory(), &kept);
        int status = vecdb_repair(directory(), &options, NULL, NULL, NULL, NULL, &err);
        check_sentence("a failing allocation", status, &err);
        if (!failing_has_failed(&failing)) {
            CHECK_INT(status, VECDB_OK);
            break;
        }
        n_failed += status != 0;
        CHECK(!exists(beside(".repaired")));
        if (status && !exists(beside(".damaged-1")))
            check_unchanged("a failing allocation", &kept);
        remove_database(beside(".damaged-1"));
        step += n > 60 ? step / 8 + 1 : 0;
    }
    CHECK(n_failed > 10);
}

TEST(a_repair_that_is_killed_is_completed_by_the_next)
{
    static struct kept_files kept;
    test_time_limit(600);
    make_database(false, &kept);
    damage_two(&kept);
    unsigned n_killed = 0, n_between = 0;
    /* The last operations are the renames: count them all first. */
    struct fault count = {.left = 1000000000};
    struct vdb_io_hook hook = {fail_later, &count};
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_options options = {.size = sizeof options, .threads = VECDB_THREADS_NONE};
    restore_files(directory(), &kept);
    CHECK_OK(err, vdb_database_repair(directory(), &options, &hook, NULL, NULL, NULL, NULL, &err));
    long n_all = 1000000000 - count.left;
    remove_database(beside(".damaged-1"));
    long step = 1 + n_all / (long)test_rounds(30), near_end = n_all - 16;
    for (long n = 0; n < n_all; n = n < near_end && n + step < near_end ? n + step : n < near_end ? near_end : n + 1) {
        restore_files(directory(), &kept);
        pid_t child = fork();
        if (!child) {
            struct fault fault = {.left = n, .kills = true};
            struct vdb_io_hook kill_hook = {fail_later, &fault};
            vdb_database_repair(directory(), &options, &kill_hook, NULL, NULL, NULL, NULL, NULL);
            _exit(0);
        }
        int how;
        CHECK(waitpid(child, &how, 0) == child && WIFEXITED(how));
        n_killed += WEXITSTATUS(how) == 9;
        struct told told = {0};
        bool is_between = !exists(directory());
        n_between += is_between;
        if (is_between) {
            vecdb *db;
            CHECK_FAILS(err, VECDB_BUSY, "repair", vecdb_open(directory(), NULL, &db, &err));
        }
        bool was_moved = exists(beside(".damaged-1"));
        char what[64];
        snprintf(what, sizeof what, "killed at operation %ld of %ld", n, n_all);
        CHECK_OK(err, vecdb_repair(directory(), &options, NULL, note_problem, &told, NULL, &err));
        CHECK(!exists(beside(".repairing")));
        CHECK(!exists(beside(".repaired")));
        check_kept(what, &kept);
        CHECK(!exists(beside(".damaged-2")));
        vecdb *db = open_database(directory(), VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
        struct found found;
        check_database(db, what);
        compare_database(db, &found);
        vecdb_close(db);
        if (!was_moved)
            check_told(what, &found, &told);
        remove_database(beside(".damaged-1"));
    }
    CHECK(n_killed > 10);
    CHECK(n_between >= 1);
}

TEST(the_new_database_has_the_uuid_and_a_higher_number)
{
    static struct kept_files kept, now;
    struct told told;
    vecdb_error err = VECDB_ERROR_INIT;
    make_database(false, &kept);
    unsigned char uuid[16];
    memcpy(uuid, file_of(&kept, "state")->bytes + 16, 16);
    vecdb_stats stats = {.size = sizeof stats};
    vecdb *db = open_database(directory(), VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    CHECK_OK(err, vecdb_database_stats(db, &stats, &err));
    uint64_t before = stats.sequence;
    vecdb_close(db);
    damage_two(&kept);
    restore_files(directory(), &kept);
    repair_and_compare("numbers", &kept, &told, NULL);
    CHECK(told.n_lost > 0);
    CHECK_CONTAINS(told.last, ".damaged-1");
    keep_files(directory(), &now);
    CHECK(!memcmp(file_of(&now, "state")->bytes + 16, uuid, 16));
    db = open_database(directory(), VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    CHECK_OK(err, vecdb_database_stats(db, &stats, &err));
    CHECK(stats.sequence > before);
    vecdb_close(db);
}
