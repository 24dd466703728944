/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/base/threads.c - a pool of worker threads, and the clock (see threads.h)
 *
 * A job lives on its caller's stack and is linked into the pool's list while it runs:
 *
 *     pool.jobs -> job A {next = 17 of 64, wanted = 1, helpers = 2} -> job B {...}
 *
 *     caller:  link the job, wake workers, take tasks until none is left,
 *              unlink the job, wait until `helpers` is 0, return
 *     worker:  find a job that wants a helper, helpers++, take tasks until none is left,
 *              helpers--, tell the callers when it was the last one
 *
 * Invariants
 *  1. Tasks are taken by one atomic increment of `next`; a task is run by who took it, once.
 *  2. `wanted`, `helpers` and the list change only under the lock. A worker touches a job only
 *     between its helpers++ and helpers--, so a job that is unlinked and has no helpers is gone:
 *     nobody else holds a pointer to it.
 *  3. What a task wrote is seen by the caller after vdb_pool_run: the worker's helpers-- and the
 *     caller's look at it are under the same lock.
 *  4. A caller never waits for a task that nobody has begun. So a task may itself run a job, and
 *     a pool whose threads could not be started is slow, not stuck.
 *
 * Costs: a job takes the lock twice plus twice per helper; waking a sleeping worker takes the
 * kernel some 5-50 us, during which the caller already works. Tasks should be at least that long.
 *
 * Rejected: one queue per thread with stealing (tasks here are equal pieces of a scan, one shared
 * counter balances them); workers that spin before they sleep (an embedded library does not burn
 * its host's processors between queries).
 */
#include "threads.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <time.h>
#include <unistd.h>

#include "error.h"

/* More threads than any machine this was tried on has processors; a guard against a typing error. */
#define MAX_THREADS 1024

struct job {
    void (*task)(void *context, size_t i);
    void *context;
    size_t n_tasks;
    _Atomic size_t next;
    int wanted;  /* helpers that may still join */
    int helpers; /* workers inside */
    struct job *later;
};

struct vdb_pool {
    struct vdb_memory *memory;
    int n_threads; /* callers included */
    pthread_mutex_t lock;
    pthread_cond_t work;     /* a job was linked, or the pool ends */
    pthread_cond_t finished; /* a job's last helper left */
    struct job *jobs;
    bool started, ending;
    int n_workers;
    pthread_t workers[];
};

static int count_processors(void)
{
#ifdef __linux__
    cpu_set_t set;
    if (!sched_getaffinity(0, sizeof set, &set) && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
#endif
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)(n < MAX_THREADS ? n : MAX_THREADS) : 1;
}

int vdb_pool_new(struct vdb_memory *memory, int n_threads, struct vdb_pool **pool, vecdb_error *err)
{
    if (n_threads < 0 || n_threads > MAX_THREADS)
        return vdb_fail(err, VECDB_INVALID, "%d threads: use 1 to %d, or 0 for as many as processors", n_threads,
                        MAX_THREADS);
    if (n_threads == 0)
        n_threads = count_processors();
    size_t n_bytes = sizeof **pool + (size_t)(n_threads - 1) * sizeof(pthread_t);
    struct vdb_pool *made = vdb_alloc_zero(memory, n_bytes);
    if (!made)
        return vdb_fail_memory(err, n_bytes);
    made->memory = memory;
    made->n_threads = n_threads;
    pthread_mutex_init(&made->lock, NULL);
    pthread_cond_init(&made->work, NULL);
    pthread_cond_init(&made->finished, NULL);
    *pool = made;
    return VECDB_OK;
}

int vdb_pool_size(const struct vdb_pool *pool)
{
    return pool ? pool->n_threads : 1;
}

static void take_tasks(struct job *job)
{
    for (;;) {
        size_t i = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed);
        if (i >= job->n_tasks)
            return;
        job->task(job->context, i);
    }
}

static struct job *find_job(struct vdb_pool *pool)
{
    for (struct job *job = pool->jobs; job; job = job->later)
        if (job->wanted > 0 && atomic_load_explicit(&job->next, memory_order_relaxed) < job->n_tasks)
            return job;
    return NULL;
}

static void *worker_main(void *argument)
{
    struct vdb_pool *pool = argument;
    pthread_mutex_lock(&pool->lock);
    while (!pool->ending) {
        struct job *job = find_job(pool);
        if (!job) {
            pthread_cond_wait(&pool->work, &pool->lock);
            continue;
        }
        job->wanted--;
        job->helpers++;
        pthread_mutex_unlock(&pool->lock);
        take_tasks(job);
        pthread_mutex_lock(&pool->lock);
        if (--job->helpers == 0)
            pthread_cond_broadcast(&pool->finished);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* Start the workers, as many as the system grants. The lock is held. */
static void start_workers(struct vdb_pool *pool)
{
    sigset_t all, before;
    sigfillset(&all);
    pool->started = true;
    if (pthread_sigmask(SIG_SETMASK, &all, &before))
        return; /* workers would run the application's handlers: rather have none */
    while (pool->n_workers < pool->n_threads - 1) {
        if (pthread_create(&pool->workers[pool->n_workers], NULL, worker_main, pool))
            break;
        pool->n_workers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void unlink_job(struct vdb_pool *pool, struct job *job)
{
    struct job **at = &pool->jobs;
    while (*at != job) {
        assert(*at);
        at = &(*at)->later;
    }
    *at = job->later;
}

void vdb_pool_run(struct vdb_pool *pool, int n_threads, size_t n_tasks, void (*task)(void *context, size_t i),
                  void *context)
{
    int limit = vdb_pool_size(pool);
    if (n_threads > limit)
        n_threads = limit;
    if ((size_t)(n_threads > 0 ? n_threads : 1) > n_tasks)
        n_threads = (int)n_tasks;
    if (n_threads <= 1) {
        for (size_t i = 0; i < n_tasks; i++)
            task(context, i);
        return;
    }
    struct job job = {.task = task, .context = context, .n_tasks = n_tasks, .wanted = n_threads - 1};
    atomic_init(&job.next, 0);
    pthread_mutex_lock(&pool->lock);
    if (!pool->started)
        start_workers(pool);
    struct job **last = &pool->jobs; /* at the end: jobs get helpers in the order they came */
    while (*last)
        last = &(*last)->later;
    *last = &job;
    for (int i = 0; i < job.wanted; i++)
        pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->lock);

    take_tasks(&job);

    pthread_mutex_lock(&pool->lock);
    unlink_job(pool, &job);
    while (job.helpers)
        pthread_cond_wait(&pool->finished, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

void vdb_pool_free(struct vdb_pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    assert(!pool->jobs);
    pool->ending = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->n_workers; i++)
        pthread_join(pool->workers[i], NULL);
    pthread_cond_destroy(&pool->finished);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    vdb_free(pool->memory, pool);
}

uint64_t vdb_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
