/* SPDX-License-Identifier: Apache-2.0
 *
 * Property: vdb_pool_run runs every task exactly once, on no more threads than were asked for,
 * and returns after the last has ended with everything it wrote visible; whoever calls it, and
 * however many do at once.
 */
#include "base/threads.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "harness.h"

enum { N_TASKS = 2000 };

struct tally {
    int runs[N_TASKS]; /* plain: TSan would see two runs of a task, or a missing barrier */
    _Atomic int inside, most_inside;
};

static void count(void *context, size_t i)
{
    struct tally *tally = context;
    int inside = atomic_fetch_add(&tally->inside, 1) + 1, most = atomic_load(&tally->most_inside);
    while (inside > most && !atomic_compare_exchange_weak(&tally->most_inside, &most, inside))
        ;
    tally->runs[i]++;
    atomic_fetch_sub(&tally->inside, 1);
}

static void check_tally(const struct tally *tally, size_t n_tasks)
{
    for (size_t i = 0; i < N_TASKS; i++)
        CHECK_INT(tally->runs[i], i < n_tasks);
}

static struct vdb_pool *make_pool(struct vdb_memory *memory, int n_threads)
{
    vecdb_error err = {0};
    struct vdb_pool *pool;
    vdb_memory_init(memory, NULL);
    CHECK_OK(err, vdb_pool_new(memory, n_threads, &pool, &err));
    return pool;
}

TEST(every_task_runs_once_with_any_number_of_threads)
{
    static const int sizes[] = {1, 2, 3, 8};
    static const size_t task_counts[] = {0, 1, 2, 3, 7, 100, N_TASKS};
    struct vdb_memory memory;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        struct vdb_pool *pool = make_pool(&memory, sizes[s]);
        CHECK_INT(vdb_pool_size(pool), sizes[s]);
        for (size_t t = 0; t < sizeof task_counts / sizeof *task_counts; t++)
            for (int limit = 0; limit <= 9; limit++) {
                static struct tally tally;
                memset(&tally, 0, sizeof tally);
                vdb_pool_run(pool, limit, task_counts[t], count, &tally);
                check_tally(&tally, task_counts[t]);
                CHECK(tally.most_inside <= (limit < 1 ? 1 : limit));
                CHECK(tally.most_inside <= sizes[s]);
            }
        vdb_pool_free(pool);
        CHECK_SIZE(vdb_memory_used(&memory), 0);
    }
}

TEST(no_pool_at_all_means_the_caller_works_alone)
{
    static struct tally tally;
    vdb_pool_run(NULL, 4, 50, count, &tally);
    check_tally(&tally, 50);
    CHECK_INT(tally.most_inside, 1);
    CHECK_INT(vdb_pool_size(NULL), 1);
    vdb_pool_free(NULL);
}

TEST(a_pool_that_never_worked_can_be_freed)
{
    struct vdb_memory memory;
    vdb_pool_free(make_pool(&memory, 4));
    struct vdb_pool *pool = make_pool(&memory, 0);
    CHECK(vdb_pool_size(pool) >= 1);
    vdb_pool_free(pool);
}

TEST(an_absurd_number_of_threads_is_refused)
{
    struct vdb_memory memory;
    struct vdb_pool *pool = NULL;
    vecdb_error err;
    vdb_memory_init(&memory, NULL);
    CHECK_FAILS(err, VECDB_INVALID, "threads", vdb_pool_new(&memory, -1, &pool, &err));
    CHECK_FAILS(err, VECDB_INVALID, "threads", vdb_pool_new(&memory, 1000000, &pool, &err));
    CHECK(!pool);
}

struct nest {
    struct vdb_pool *pool;
    struct tally tallies[20];
};

static void run_inner(void *context, size_t i)
{
    struct nest *nest = context;
    vdb_pool_run(nest->pool, 3, 100, count, &nest->tallies[i]);
}

TEST(a_task_may_run_a_job_itself)
{
    struct vdb_memory memory;
    static struct nest nest;
    nest.pool = make_pool(&memory, 3);
    vdb_pool_run(nest.pool, 3, 20, run_inner, &nest);
    for (int i = 0; i < 20; i++)
        check_tally(&nest.tallies[i], 100);
    vdb_pool_free(nest.pool);
}

struct caller {
    struct vdb_pool *pool;
    struct tally tally;
};

static void *call_often(void *argument)
{
    struct caller *caller = argument;
    for (int i = 0; i < 200; i++)
        vdb_pool_run(caller->pool, 4, (size_t)(i % 40), count, &caller->tally);
    return NULL;
}

TEST(several_callers_share_a_pool)
{
    struct vdb_memory memory;
    static struct caller callers[4];
    pthread_t threads[4];
    struct vdb_pool *pool = make_pool(&memory, 4);
    for (int i = 0; i < 4; i++) {
        callers[i].pool = pool;
        CHECK(!pthread_create(&threads[i], NULL, call_often, &callers[i]));
    }
    for (int i = 0; i < 4; i++) {
        CHECK(!pthread_join(threads[i], NULL));
        for (int t = 0; t < 40; t++) /* of 200 calls, 5 have each size 0..39 */
            CHECK_INT(callers[i].tally.runs[t], 5 * (39 - t));
    }
    vdb_pool_free(pool);
}

struct signals {
    pthread_t caller;
    _Atomic int n_others, n_open;
};

static void look_at_mask(void *context, size_t i)
{
    (void)i;
    struct signals *signals = context;
    sigset_t mask;
    if (pthread_equal(pthread_self(), signals->caller)) {
        uint64_t until = vdb_now_ns() + 20 * 1000 * 1000; /* leave tasks for the others */
        while (!atomic_load(&signals->n_others) && vdb_now_ns() < until)
            ;
        return;
    }
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    atomic_fetch_add(&signals->n_others, 1);
    if (!sigismember(&mask, SIGINT) || !sigismember(&mask, SIGTERM) || !sigismember(&mask, SIGUSR1))
        atomic_fetch_add(&signals->n_open, 1);
}

TEST(workers_block_signals_and_the_caller_keeps_its_mask)
{
    struct vdb_memory memory;
    struct vdb_pool *pool = make_pool(&memory, 3);
    struct signals signals = {.caller = pthread_self()};
    sigset_t before, after;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    vdb_pool_run(pool, 3, 64, look_at_mask, &signals);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    CHECK_INT(signals.n_open, 0);
    CHECK_INT(sigismember(&before, SIGINT), sigismember(&after, SIGINT));
    vdb_pool_free(pool);
}

TEST(the_clock_never_goes_back)
{
    uint64_t last = vdb_now_ns();
    for (int i = 0; i < 100000; i++) {
        uint64_t now = vdb_now_ns();
        CHECK(now >= last);
        last = now;
    }
}
