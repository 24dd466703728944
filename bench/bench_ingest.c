/* SPDX-License-Identifier: Apache-2.0
 *
 * bench/bench_ingest.c - how long searches take while a writer ingests
 *
 *     bench_ingest [-s SECONDS] [DATA_FOLDER] [SET...]
 *
 * Sets: docs and sift200k, unless others are named. Half of a set is ingested and indexed. Then one thread searches all
 * the time (k = 10, the default recall, one query a call, one thread a query): of the writing process, or of a process
 * of its own. What it meets:
 *
 *     idle       nobody writes
 *     commits    one row a commit, 200 commits a second, for SECONDS
 *     idle       again, when the index covers all
 *     batches    1,000 rows a commit, as fast as it goes, until the set is in
 *     catching   nobody writes any more, but the index does not cover all yet
 *
 * Times are those of single calls: by the wall clock, and of the thread's processor time, which other programs do not
 * lengthen. `scanned`: vectors that no index covered and that a search therefore scanned; `expanded`: nodes whose links
 * it followed; means. What is promised: the 99th percentile under ingest is below three times the idle one.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sets.h"

#define K 10u
#define BATCH 1000u
#define COMMITS_PER_SECOND 200u
#define MOST_SAMPLES (1u << 20)
#define PROMISED 3.

enum phase { PREPARING, IDLE, COMMITS, BATCHES, CATCHING, PHASES, ENDED };
static const char *const phase_names[PHASES] = {"", "idle", "commits", "batches", "catching"};

struct samples {
    uint32_t n;
    double scanned, expanded;
    float wall[MOST_SAMPLES], own[MOST_SAMPLES]; /* microseconds */
};

/* Seen by both processes. */
struct board {
    _Atomic int phase;
    _Atomic int is_ready; /* the searching side has warmed up */
    struct samples samples[PHASES];
};

struct searcher {
    const struct bench_set *set;
    const char *path;              /* to open, or NULL: */
    vecdb_collection *collection;
    struct board *board;
};

struct outcome {
    double seconds[PHASES];
    uint32_t n_rows[PHASES];
};

/* ------------------------------------------------------------------ searching */

static void search_once(const struct searcher *searcher, vecdb_query *query, uint32_t i, struct samples *samples)
{
    const struct bench_set *set = searcher->set;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_results *results;
    vecdb_search_stats stats = {.size = sizeof stats};
    query->vector = set->queries + (i % set->n_queries) * set->row_bytes;
    double own = bench_seconds(CLOCK_THREAD_CPUTIME_ID), wall = bench_seconds(CLOCK_MONOTONIC);
    bench_must(vecdb_search(searcher->collection, query, &results, &err), &err, "search");
    wall = bench_seconds(CLOCK_MONOTONIC) - wall;
    own = bench_seconds(CLOCK_THREAD_CPUTIME_ID) - own;
    vecdb_results_stats(results, &stats);
    vecdb_results_free(results);
    if (samples->n == MOST_SAMPLES)
        return;
    samples->wall[samples->n] = (float)(wall * 1e6);
    samples->own[samples->n++] = (float)(own * 1e6);
    samples->scanned += (double)stats.n_scanned;
    samples->expanded += (double)stats.n_expanded;
}

static void *search(void *context)
{
    struct searcher *searcher = context;
    struct board *board = searcher->board;
    vecdb_query query = bench_query(searcher->set, K);
    for (uint32_t i = 0;; i++) {
        int phase = atomic_load(&board->phase);
        if (phase == ENDED)
            return NULL;
        search_once(searcher, &query, i, &board->samples[phase]);
        if (i == searcher->set->n_queries)
            atomic_store(&board->is_ready, 1);
    }
}

static pid_t search_elsewhere(const struct searcher *searcher)
{
    pid_t child = fork();
    if (child)
        return child;
    struct searcher own = *searcher;
    vecdb *db;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_options options = {.size = sizeof options, .mode = VECDB_OPEN_READONLY};
    bench_must(vecdb_open(own.path, &options, &db, &err), &err, "open");
    bench_must(vecdb_collection_open(db, "set", &own.collection, &err), &err, "open");
    bench_must(vecdb_index_wait(own.collection, NULL, 0, NULL, &err), &err, "index_wait");
    search(&own);
    vecdb_close(db);
    _exit(0);
}

/* ------------------------------------------------------------------ writing */

static void pause_until(double until)
{
    struct timespec t = {(time_t)until, (long)((until - (double)(time_t)until) * 1e9)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static void be_idle(struct board *board, double seconds)
{
    atomic_store(&board->phase, IDLE);
    pause_until(bench_seconds(CLOCK_MONOTONIC) + seconds);
    atomic_store(&board->phase, PREPARING);
}

static uint64_t count_uncovered(vecdb_collection *collection)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_index_info info = {.size = sizeof info};
    bench_must(vecdb_index_describe(collection, NULL, &info, &err), &err, "index_describe");
    return info.n_vectors - info.n_indexed;
}

static void ingest(const struct bench_set *set, vecdb_collection *collection, struct board *board, double seconds,
                   struct outcome *outcome)
{
    vecdb_error err = VECDB_ERROR_INIT;
    uint32_t row = set->n_rows / 2;
    be_idle(board, seconds / 2);

    double start = bench_seconds(CLOCK_MONOTONIC);
    atomic_store(&board->phase, COMMITS);
    for (; bench_seconds(CLOCK_MONOTONIC) < start + seconds; row++) {
        pause_until(start + (double)(++outcome->n_rows[COMMITS]) / COMMITS_PER_SECOND);
        bench_put(collection, set, NULL, NULL, row, 1, 1);
    }
    atomic_store(&board->phase, PREPARING);
    outcome->seconds[COMMITS] = bench_seconds(CLOCK_MONOTONIC) - start;
    bench_must(vecdb_index_wait(collection, NULL, 0, NULL, &err), &err, "index_wait");
    be_idle(board, seconds / 2);

    start = bench_seconds(CLOCK_MONOTONIC);
    outcome->n_rows[BATCHES] = set->n_rows - row;
    atomic_store(&board->phase, BATCHES);
    bench_put(collection, set, NULL, NULL, row, set->n_rows - row, BATCH);
    outcome->seconds[BATCHES] = bench_seconds(CLOCK_MONOTONIC) - start;
    atomic_store(&board->phase, CATCHING);
    for (double step = .1; count_uncovered(collection) > BATCH && step < 60; step += .1)
        pause_until(start + outcome->seconds[BATCHES] + step);
    outcome->seconds[CATCHING] = bench_seconds(CLOCK_MONOTONIC) - start - outcome->seconds[BATCHES];
    atomic_store(&board->phase, ENDED);
}

/* ------------------------------------------------------------------ telling */

struct percentiles {
    double p50, p99;
};

static struct percentiles percentiles_of(const float *values, uint32_t n)
{
    double *copy = bench_alloc(n * sizeof *copy);
    for (uint32_t i = 0; i < n; i++)
        copy[i] = (double)values[i];
    bench_sort(copy, n);
    struct percentiles p = {bench_percentile(copy, n, .5), bench_percentile(copy, n, .99)};
    free(copy);
    return p;
}

static bool tell(const char *set, const char *where, const struct board *board, const struct outcome *outcome)
{
    struct percentiles idle = {0}, idle_own = {0};
    bool is_kept = true;
    for (int phase = IDLE; phase < PHASES; phase++) {
        const struct samples *samples = &board->samples[phase];
        struct percentiles wall = percentiles_of(samples->wall, samples->n);
        struct percentiles own = percentiles_of(samples->own, samples->n);
        if (phase == IDLE) {
            idle = wall;
            idle_own = own;
        }
        double n = samples->n ? samples->n : 1;
        double rate = outcome->seconds[phase] > 0 ? outcome->n_rows[phase] / outcome->seconds[phase] : 0;
        printf("| %s | %s | %s | %.1f | %.0f | %" PRIu32 " | %.0f | %.0f | %.2f | %.0f | %.0f | %.2f | %.0f | %.0f |\n",
               set, where, phase_names[phase], outcome->seconds[phase], rate, samples->n, wall.p50, wall.p99,
               wall.p99 / idle.p99, own.p50, own.p99, own.p99 / idle_own.p99, samples->scanned / n,
               samples->expanded / n);
        if (phase == COMMITS || phase == BATCHES)
            is_kept &= wall.p99 < PROMISED * idle.p99;
    }
    fflush(stdout);
    return is_kept;
}

static bool run(const struct bench_set *set, const char *directory, bool is_elsewhere, double seconds)
{
    char path[1100];
    vecdb *db;
    vecdb_error err = VECDB_ERROR_INIT;
    struct searcher searcher = {.set = set, .path = path};
    struct outcome outcome = {0};
    struct board *board =
        mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (board == MAP_FAILED)
        bench_die("memory", "there is not enough");
    memset(board, 0, sizeof *board); /* no page is to come while searches are timed */
    snprintf(path, sizeof path, "%s/%s", directory, set->name);
    searcher.board = board;
    bench_database_make(path, set, VECDB_INDEX_HNSW, &db, &searcher.collection);
    bench_put(searcher.collection, set, NULL, NULL, 0, set->n_rows / 2, BATCH);
    bench_must(vecdb_index_wait(searcher.collection, NULL, 0, NULL, &err), &err, "index_wait");
    pid_t child = 0;
    pthread_t thread;
    if (is_elsewhere && (child = search_elsewhere(&searcher)) < 0)
        bench_die("fork", "no process can be had");
    if (!is_elsewhere && pthread_create(&thread, NULL, search, &searcher))
        bench_die("pthread_create", "no thread can be had");
    while (!atomic_load(&board->is_ready))
        pause_until(bench_seconds(CLOCK_MONOTONIC) + .01);
    ingest(set, searcher.collection, board, seconds, &outcome);
    if (is_elsewhere)
        waitpid(child, NULL, 0);
    else
        pthread_join(thread, NULL);
    bool is_kept = tell(set->name, is_elsewhere ? "another process" : "the writer's", board, &outcome);
    vecdb_close(db);
    bench_directory_remove(path);
    munmap(board, sizeof *board);
    return is_kept;
}

int main(int argc, char **argv)
{
    const char *folder = NULL;
    bool is_named[BENCH_SETS] = {false, true, true, false}, has_names = false, is_kept = true;
    double seconds = 10;
    for (int i = 1; i < argc; i++) {
        size_t s = 0;
        while (s < BENCH_SETS && strcmp(bench_set_names[s], argv[i]))
            s++;
        if (s < BENCH_SETS) {
            if (!has_names)
                memset(is_named, 0, sizeof is_named);
            is_named[s] = has_names = true;
        } else if (i + 1 < argc && !strcmp(argv[i], "-s"))
            seconds = strtod(argv[++i], NULL);
        else
            folder = argv[i];
    }
    char *directory = bench_directory_make();
    printf("| set | process | meanwhile | s | rows/s | searches | p50 us | p99 us | to idle | own p50 us | own p99 us "
           "| "
           "to idle | scanned | expanded |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    for (size_t s = 0; s < BENCH_SETS; s++) {
        if (!is_named[s])
            continue;
        struct bench_set set;
        bench_set_load(folder, bench_set_names[s], &set);
        for (int is_elsewhere = 0; is_elsewhere < 2; is_elsewhere++)
            is_kept &= run(&set, directory, is_elsewhere, seconds);
        bench_set_release(&set);
    }
    printf("\np99 under ingest below %.0f times the idle one: %s\n", PROMISED, is_kept ? "kept" : "missed");
    bench_directory_remove(directory);
    free(directory);
    return !is_kept;
}
