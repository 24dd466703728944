/* SPDX-License-Identifier: Apache-2.0
 *
 * The file `state` remembers the highest number and the mark across openings and processes, notices every
 * flipped bit, and its locks exclude objects, threads and processes from one another without overtaking.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "catalog_help.h"

static struct vdb_state *open_state(const char *path)
{
    if (!heap.allocator.allocate)
        vdb_memory_init(&heap, NULL);
    struct vdb_state_options options = {.memory = &heap, .path = path};
    struct vdb_state *state = NULL;
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, vdb_state_open(&options, &state, &err));
    return state;
}

static const unsigned char some_uuid[16] = "0123456789abcdef";
static const unsigned char other_uuid[16] = "fedcba9876543210";

TEST(numbers_mark_and_uuid_are_there_after_reopening)
{
    vecdb_error err = VECDB_ERROR_INIT;
    uint64_t sequence = 1;
    uint32_t n_frames, salt2;
    struct vdb_state *state = open_state(test_path("state"));
    CHECK_OK(err, vdb_state_sequence(state, &sequence, &err));
    CHECK_SIZE(sequence, 0);
    CHECK(!vdb_state_get_mark(state, &n_frames, &salt2));
    CHECK_OK(err, vdb_state_adopt(state, some_uuid, &err));
    vdb_state_raise(state, 12);
    vdb_state_raise_durable(state, 11);
    CHECK_OK(err, vdb_state_set_mark(state, 77, 0xdeadbeef, &err));
    vdb_state_close(state);
    state = open_state(test_path("state"));
    CHECK_OK(err, vdb_state_sequence(state, &sequence, &err));
    CHECK_SIZE(sequence, 12);
    CHECK_OK(err, vdb_state_durable(state, &sequence, &err));
    CHECK_SIZE(sequence, 11);
    CHECK(vdb_state_get_mark(state, &n_frames, &salt2));
    CHECK_SIZE(n_frames, 77);
    CHECK_SIZE(salt2, 0xdeadbeef);
    CHECK_OK(err, vdb_state_clear_mark(state, &err));
    CHECK(!vdb_state_get_mark(state, &n_frames, &salt2));
    CHECK_OK(err, vdb_state_adopt(state, some_uuid, &err));
    CHECK_FAILS(err, VECDB_CORRUPT, "another database", vdb_state_adopt(state, other_uuid, &err));
    vdb_state_close(state);
    CHECK_SIZE(vdb_memory_used(&heap), 0);
}

TEST(a_number_is_never_lowered_by_raising)
{
    vecdb_error err = VECDB_ERROR_INIT;
    uint64_t sequence;
    struct vdb_state *state = open_state(NULL);
    vdb_state_raise(state, 100);
    uint64_t word = vdb_state_word(state);
    vdb_state_raise(state, 99);
    CHECK_SIZE(vdb_state_word(state), word);
    vdb_state_lower(state, word + 1, 5); /* not the word that is there */
    CHECK_SIZE(vdb_state_word(state), word);
    vdb_state_lower(state, word, 50);
    CHECK_OK(err, vdb_state_sequence(state, &sequence, &err));
    CHECK_SIZE(sequence, 50);
    vdb_state_close(state);
}

TEST(every_flipped_bit_is_noticed_at_open)
{
    vecdb_error err = VECDB_ERROR_INIT;
    const char *path = test_path("state");
    struct vdb_state *state = open_state(path);
    CHECK_OK(err, vdb_state_adopt(state, some_uuid, &err));
    vdb_state_raise(state, 123456);
    vdb_state_raise_durable(state, 123456);
    CHECK_OK(err, vdb_state_set_mark(state, 7, 8, &err));
    vdb_state_close(state);
    struct vdb_state_options options = {.memory = &heap, .path = path, .readonly = true};
    for (size_t at = 0; at < VDB_STATE_BYTES; at++)
        for (int bit = 0; bit < 8; bit += at < 80 ? 1 : 7) {
            flip_bit(path, at, bit);
            memset(&err, 0, sizeof err);
            int rc = vdb_state_open(&options, &state, &err);
            if (rc != VECDB_CORRUPT)
                FAIL("byte %zu bit %d: %s %s", at, bit, vecdb_status_name(rc), err.message);
            CHECK_CONTAINS(err.message, "state");
            flip_bit(path, at, bit);
        }
    state = open_state(path);
    vdb_state_close(state);
}

TEST(a_file_of_a_wrong_length_is_refused_and_an_empty_one_is_made_anew)
{
    vecdb_error err = VECDB_ERROR_INIT;
    const char *path = test_path("state");
    struct vdb_state *state = open_state(path);
    vdb_state_raise(state, 5);
    vdb_state_close(state);
    struct vdb_state_options options = {.memory = &heap, .path = path};
    CHECK(!truncate(path, 100));
    CHECK_FAILS(err, VECDB_CORRUPT, "length", vdb_state_open(&options, &state, &err));
    CHECK(!truncate(path, 5000));
    CHECK_FAILS(err, VECDB_CORRUPT, "length", vdb_state_open(&options, &state, &err));
    CHECK(!truncate(path, 0));
    uint64_t sequence;
    state = open_state(path);
    CHECK_OK(err, vdb_state_sequence(state, &sequence, &err));
    CHECK_SIZE(sequence, 0);
    vdb_state_close(state);
    CHECK(!unlink(path) && !mkdir(path, 0777));
    CHECK(vdb_state_open(&options, &state, &err) != VECDB_OK);
}

static int n_syncs, n_syncs_to_fail;

static int fail_some_syncs(void *context, enum vdb_io_op op, const char *path)
{
    (void)context;
    (void)path;
    if (op != VDB_IO_SYNC)
        return 0;
    n_syncs++;
    return n_syncs_to_fail && n_syncs_to_fail-- ? EIO : 0;
}

TEST(a_mark_whose_sync_failed_is_synced_by_the_next_attempt)
{
    vecdb_error err = VECDB_ERROR_INIT;
    const struct vdb_io_hook syncs = {fail_some_syncs, NULL};
    char path[512];
    snprintf(path, sizeof path, "%s", test_path("state"));
    struct vdb_state *state = open_state(path);
    vdb_state_close(state);
    struct vdb_state_options options = {.memory = &heap, .path = path, .hook = &syncs};
    CHECK_OK(err, vdb_state_open(&options, &state, &err));
    for (uint32_t n_frames = 7;; n_frames = 0) { /* set, then clear */
        n_syncs = 0;
        n_syncs_to_fail = 1;
        CHECK_FAILS(err, VECDB_IO, "sync",
                    n_frames ? vdb_state_set_mark(state, n_frames, 9, &err) : vdb_state_clear_mark(state, &err));
        CHECK_OK(err, n_frames ? vdb_state_set_mark(state, n_frames, 9, &err) : vdb_state_clear_mark(state, &err));
        CHECK_INT(n_syncs, 2);
        if (!n_frames)
            break;
    }
    vdb_state_close(state);
}

TEST(a_pipe_in_the_place_of_the_file_is_refused_and_not_waited_for)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_state *state;
    char path[512];
    snprintf(path, sizeof path, "%s", test_path("state"));
    CHECK(!mkfifo(path, 0600));
    struct vdb_state_options options = {.memory = &heap, .path = path, .readonly = true};
    if (!heap.allocator.allocate)
        vdb_memory_init(&heap, NULL);
    CHECK_FAILS(err, VECDB_CORRUPT, "no regular file", vdb_state_open(&options, &state, &err));
    options.readonly = false;
    CHECK_FAILS(err, VECDB_CORRUPT, "no regular file", vdb_state_open(&options, &state, &err));
}

TEST(many_processes_that_open_a_missing_file_at_once_all_get_it)
{
    for (int round = 0; round < 20; round++) {
        const char *path = test_path("state");
        unlink(path);
        for (int i = 0; i < 6; i++)
            if (!fork()) {
                struct vdb_state *state = open_state(path);
                vecdb_error err = VECDB_ERROR_INIT;
                CHECK_OK(err, vdb_state_adopt(state, some_uuid, &err));
                vdb_state_raise(state, (uint64_t)i + 1);
                _exit(0);
            }
        for (int i = 0, status; i < 6; i++) {
            CHECK(wait(&status) > 0);
            CHECK_INT(status, 0);
        }
        uint64_t sequence;
        vecdb_error err = VECDB_ERROR_INIT;
        struct vdb_state *state = open_state(path);
        CHECK_OK(err, vdb_state_sequence(state, &sequence, &err));
        CHECK_SIZE(sequence, 6);
        vdb_state_close(state);
    }
}

TEST(the_gate_excludes_two_objects_and_two_processes)
{
    vecdb_error err = VECDB_ERROR_INIT;
    const char *path = test_path("state");
    struct vdb_state *one = open_state(path), *two = open_state(path);
    CHECK_OK(err, vdb_state_lock_gate(one, 0, &err));
    CHECK_FAILS(err, VECDB_BUSY, "another writer", vdb_state_lock_gate(two, 0, &err));
    CHECK_FAILS(err, VECDB_BUSY, "another writer", vdb_state_lock_gate(two, 20, &err));
    pid_t child = fork();
    if (!child) {
        vdb_state_forked(one);
        vdb_state_forked(two);
        _exit(vdb_state_lock_gate(open_state(path), 10, NULL) != VECDB_BUSY);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_INT(status, 0);
    vdb_state_unlock_gate(one);
    CHECK_OK(err, vdb_state_lock_gate(two, 0, &err));
    vdb_state_unlock_gate(two);
    CHECK_OK(err, vdb_state_try_maintainer(one, &err));
    CHECK_FAILS(err, VECDB_BUSY, "maintainer", vdb_state_try_maintainer(one, &err));
    CHECK_FAILS(err, VECDB_BUSY, "maintainer", vdb_state_try_maintainer(two, &err));
    vdb_state_release_maintainer(one);
    CHECK_OK(err, vdb_state_try_maintainer(two, &err));
    vdb_state_close(two); /* gives it back */
    CHECK_OK(err, vdb_state_try_maintainer(one, &err));
    vdb_state_close(one);
}

TEST(a_child_that_closed_its_state_does_not_keep_the_parents_locks_alive)
{
    const char *path = test_path("state");
    int ready[2], hold[2];
    char byte;
    CHECK(!pipe(ready) && !pipe(hold));
    pid_t parent = fork();
    if (!parent) {
        struct vdb_state *state = open_state(path);
        CHECK(!vdb_state_lock_gate(state, 0, NULL));
        if (!fork()) {
            vdb_state_forked(state);
            close(hold[1]);
            CHECK(write(ready[1], "x", 1) == 1);
            _exit((int)read(hold[0], &byte, 1)); /* ends with the test */
        }
        pause();
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    kill(parent, SIGKILL);
    waitpid(parent, NULL, 0);
    struct vdb_state *state = open_state(path);
    CHECK_INT(vdb_state_lock_gate(state, 1000, NULL), VECDB_OK);
    vdb_state_close(state);
}

/* ---- fairness */

struct shared {
    _Atomic int stop, inside, broken;
    _Atomic long counts[2];
};

static void take_turns(const char *path, struct shared *shared, int who)
{
    struct vdb_state *state = open_state(path);
    while (!shared->stop) {
        if (vdb_state_lock_gate(state, 5000, NULL))
            shared->broken = 1;
        if (atomic_fetch_add(&shared->inside, 1))
            shared->broken = 1;
        usleep(200); /* a commit */
        atomic_fetch_sub(&shared->inside, 1);
        shared->counts[who]++;
        vdb_state_unlock_gate(state);
    }
    vdb_state_close(state);
}

TEST(two_processes_take_turns_at_the_gate)
{
    const char *path = test_path("state");
    struct shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    for (int i = 0; i < 2; i++)
        if (!fork()) {
            take_turns(path, shared, i);
            _exit(0);
        }
    while (shared->counts[0] + shared->counts[1] < 1000 && !shared->broken)
        usleep(1000);
    shared->stop = 1;
    for (int i = 0, status; i < 2; i++) {
        wait(&status);
        CHECK_INT(status, 0);
    }
    CHECK_INT(shared->broken, 0);
    long a = shared->counts[0], b = shared->counts[1];
    if (a > 4 * b + 20 || b > 4 * a + 20)
        FAIL("%ld turns against %ld", a, b);
}

static struct vdb_state *common;
static long turns[4];
static long total;

static void *thread_takes_turns(void *argument)
{
    long *mine = argument;
    while (1) {
        if (vdb_state_lock_gate(common, 60000, NULL))
            abort();
        bool more = total < 2000;
        total += more;
        *mine += more;
        vdb_state_unlock_gate(common);
        if (!more)
            return NULL;
    }
}

TEST(threads_of_one_object_queue_at_the_gate)
{
    pthread_t threads[4];
    common = open_state(test_path("state"));
    for (int i = 0; i < 4; i++)
        CHECK(!pthread_create(&threads[i], NULL, thread_takes_turns, &turns[i]));
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK_INT(turns[0] + turns[1] + turns[2] + turns[3], 2000);
    vdb_state_close(common);
}

TEST(a_state_that_may_not_be_written_is_read_and_answers_readonly)
{
    vecdb_error err = VECDB_ERROR_INIT;
    const char *path = test_path("state");
    struct vdb_state *state = open_state(path);
    CHECK_OK(err, vdb_state_adopt(state, some_uuid, &err));
    vdb_state_raise(state, 9);
    vdb_state_close(state);
    struct vdb_state_options options = {.memory = &heap, .path = path, .readonly = true};
    CHECK_OK(err, vdb_state_open(&options, &state, &err));
    uint64_t sequence;
    CHECK_OK(err, vdb_state_sequence(state, &sequence, &err));
    CHECK_SIZE(sequence, 9);
    vdb_state_raise(state, 10); /* nothing happens, in particular no signal */
    CHECK_FAILS(err, VECDB_READONLY, "read-only", vdb_state_lock_gate(state, 0, &err));
    CHECK_FAILS(err, VECDB_READONLY, "read-only", vdb_state_try_maintainer(state, &err));
    CHECK(!vdb_state_writable(state));
    vdb_state_close(state);
    CHECK(!unlink(path));
    CHECK_OK(err, vdb_state_open(&options, &state, &err));
    CHECK(access(path, F_OK)); /* and makes none */
    vdb_state_close(state);
}
