/* SPDX-License-Identifier: Apache-2.0
 *
 * bench/bench_writers.c - what a commit costs, how much threads share it, how fairly processes do
 *
 *     bench_writers DIRECTORY [ROUNDS [SECONDS]]       an empty directory on the disk to be measured
 *
 * 1. One record a commit: an integer key, a vector of 384 floats, metadata and a text of a title's length.
 *    Against SQLite alone: a table (key, vector BLOB, metadata, text), WAL, synchronous=FULL, prepared BEGIN
 *    IMMEDIATE, INSERT and COMMIT, automatic checkpoints as SQLite has them (every 1,000 frames). Both insert the same
 *    bytes, round by round in turns; the table shows medians of the rounds' means, and the ratio is the
 *    median of the rounds' ratios, so that a disk that changes its speed hits both.
 * 2. The same commits by 1 thread and by 8 threads of one process, in turns.
 * 3. Four processes, each one commit after the other for SECONDS: the share of each, and the longest that one
 *    commit took (waiting included).
 */
#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "vecdb.h"

#define DIMENSION 384
#define COMMITS 200 /* a round and side */
#define MOST_ROUNDS 201
#define MOST_THREADS 8
#define N_PROCESSES 4

static const char metadata[] =
    "{\"source\": \"notes\", \"year\": 2024, \"section\": \"Ropes and sails\", \"page\": 17}";
static const char text[] = "a value of about the length that a short passage's title has, give or take some";
static float vector[DIMENSION];

static void must(int failed, const char *what, const char *why)
{
    if (failed) {
        fprintf(stderr, "bench_writers: %s: %s\n", what, why);
        exit(1);
    }
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *values, int n)
{
    double sorted[MOST_ROUNDS];
    memcpy(sorted, values, (size_t)n * sizeof *values);
    qsort(sorted, (size_t)n, sizeof *sorted, compare);
    return sorted[n / 2];
}

/* ---------------------------------------------------------------- SQLite alone */

enum { BEGIN, INSERT, COMMIT, N_STATEMENTS };

struct plain {
    sqlite3 *sqlite;
    sqlite3_stmt *statements[N_STATEMENTS];
};

static void plain_open(struct plain *plain, const char *path)
{
    static const char *const sql[N_STATEMENTS] = {"BEGIN IMMEDIATE", "INSERT INTO records VALUES(?1, ?2, ?3, ?4)",
                                                  "COMMIT"};
    must(sqlite3_open(path, &plain->sqlite), "open", path);
    must(sqlite3_exec(plain->sqlite,
                      "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE IF NOT EXISTS "
                      "records(key INTEGER PRIMARY KEY, vector BLOB, metadata TEXT, text TEXT)",
                      NULL, NULL, NULL),
         "set up", sqlite3_errmsg(plain->sqlite));
    for (int i = 0; i < N_STATEMENTS; i++)
        must(sqlite3_prepare_v2(plain->sqlite, sql[i], -1, &plain->statements[i], NULL), sql[i],
             sqlite3_errmsg(plain->sqlite));
}

static void plain_step(struct plain *plain, int which)
{
    must(sqlite3_step(plain->statements[which]) != SQLITE_DONE, "step", sqlite3_errmsg(plain->sqlite));
    sqlite3_reset(plain->statements[which]);
}

static void plain_insert(struct plain *plain, int64_t key)
{
    sqlite3_stmt *insert = plain->statements[INSERT];
    plain_step(plain, BEGIN);
    sqlite3_bind_int64(insert, 1, key);
    sqlite3_bind_blob(insert, 2, vector, sizeof vector, SQLITE_STATIC);
    sqlite3_bind_text(insert, 3, metadata, sizeof metadata - 1, SQLITE_STATIC);
    sqlite3_bind_text(insert, 4, text, sizeof text - 1, SQLITE_STATIC);
    plain_step(plain, INSERT);
    plain_step(plain, COMMIT);
}

static void plain_close(struct plain *plain)
{
    for (int i = 0; i < N_STATEMENTS; i++)
        sqlite3_finalize(plain->statements[i]);
    sqlite3_close(plain->sqlite);
}

/* ---------------------------------------------------------------- the library */

static vecdb *our_open(const char *path, vecdb_collection **collection)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_field field = {.name = "vector", .dimension = DIMENSION};
    vecdb *db;
    must(vecdb_open(path, NULL, &db, &err), "open", err.message);
    must(vecdb_collection_create(db, "records", &field, 1, VECDB_IF_MISSING, collection, &err), "create", err.message);
    return db;
}

static void our_insert(vecdb_collection *collection, int64_t key)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_vector values = {.values = vector, .dimension = DIMENSION};
    vecdb_record record = {.key = vecdb_key_int(key), .vectors = &values, .n_vectors = 1};
    record.metadata = metadata;
    record.text = text;
    must(vecdb_insert(collection, &record, 1, &err), "insert", err.message);
}

/* ---------------------------------------------------------------- 1. one writer */

static void measure_single(const char *directory, int n_rounds)
{
    char path[1100];
    struct plain plain;
    vecdb_collection *collection;
    double seconds[2][MOST_ROUNDS], ratios[MOST_ROUNDS];
    int64_t key = 0;
    snprintf(path, sizeof path, "%s/bare.sqlite", directory);
    plain_open(&plain, path);
    snprintf(path, sizeof path, "%s/single.vecdb", directory);
    vecdb *db = our_open(path, &collection);
    for (int round = -1; round < n_rounds; round++) { /* round -1 warms up */
        double start = now();
        for (int i = 0; i < COMMITS; i++)
            plain_insert(&plain, key + i);
        double middle = now();
        for (int i = 0; i < COMMITS; i++)
            our_insert(collection, key + i);
        double end = now();
        key += COMMITS;
        if (round < 0)
            continue;
        seconds[0][round] = (middle - start) / COMMITS;
        seconds[1][round] = (end - middle) / COMMITS;
        ratios[round] = seconds[1][round] / seconds[0][round];
    }
    vecdb_close(db);
    plain_close(&plain);
    printf("one record a commit, %d x %d commits\n", n_rounds, COMMITS);
    printf("  SQLite alone %8.1f us\n  libvecdb     %8.1f us\n  ratio        %8.2f\n",
           median(seconds[0], n_rounds) * 1e6, median(seconds[1], n_rounds) * 1e6, median(ratios, n_rounds));
}

/* ---------------------------------------------------------------- 2. threads */

struct team {
    vecdb_collection *collection;
    _Atomic int64_t next_key;
    double end;
};

static void *run_thread(void *context)
{
    struct team *team = context;
    while (now() < team->end)
        our_insert(team->collection, atomic_fetch_add(&team->next_key, 1));
    return NULL;
}

/* Records a second. */
static double run_team(struct team *team, int n_threads)
{
    pthread_t threads[MOST_THREADS];
    double start = now();
    int64_t first = team->next_key;
    team->end = start + 1;
    for (int i = 0; i < n_threads; i++)
        must(pthread_create(&threads[i], NULL, run_thread, team), "thread", "cannot be started");
    for (int i = 0; i < n_threads; i++)
        pthread_join(threads[i], NULL);
    return (double)(team->next_key - first) / (now() - start);
}

static void measure_threads(const char *directory, int n_rounds)
{
    char path[1100];
    struct team team = {.next_key = 0};
    double rates[2][MOST_ROUNDS], ratios[MOST_ROUNDS];
    snprintf(path, sizeof path, "%s/threads.vecdb", directory);
    vecdb *db = our_open(path, &team.collection);
    for (int round = 0; round < n_rounds; round++) {
        rates[0][round] = run_team(&team, 1);
        rates[1][round] = run_team(&team, MOST_THREADS);
        ratios[round] = rates[1][round] / rates[0][round];
    }
    vecdb_close(db);
    printf("threads of one process, %d x 1 s\n", n_rounds);
    printf("  1 thread     %8.0f records/s\n  %d threads    %8.0f records/s\n  ratio        %8.2f\n",
           median(rates[0], n_rounds), MOST_THREADS, median(rates[1], n_rounds), median(ratios, n_rounds));
}

/* ---------------------------------------------------------------- 3. processes */

struct share {
    int64_t n_commits;
    double longest;
};

static void run_process(const char *path, int number, double start, double end, struct share *share)
{
    vecdb_collection *collection;
    vecdb *db = our_open(path, &collection);
    while (now() < start)
        usleep(1000);
    for (double before = now(), after; before < end; before = after) {
        our_insert(collection, ((int64_t)number << 40) + share->n_commits);
        after = now();
        share->n_commits++;
        share->longest = after - before > share->longest ? after - before : share->longest;
    }
    vecdb_close(db);
}

static void measure_processes(const char *directory, double seconds)
{
    char path[1100];
    struct share *shares = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(shares == MAP_FAILED, "memory", "none to share");
    snprintf(path, sizeof path, "%s/processes.vecdb", directory);
    double start = now() + 1;
    pid_t children[N_PROCESSES];
    fflush(stdout);
    for (int i = 0; i < N_PROCESSES; i++) {
        children[i] = fork();
        must(children[i] < 0, "fork", "failed");
        if (!children[i]) {
            run_process(path, i, start, start + seconds, &shares[i]);
            _exit(0);
        }
    }
    int64_t total = 0, least = INT64_MAX, most = 0;
    double longest = 0;
    for (int i = 0; i < N_PROCESSES; i++) {
        int status;
        must(waitpid(children[i], &status, 0) < 0 || status, "a process", "failed");
        total += shares[i].n_commits;
        least = shares[i].n_commits < least ? shares[i].n_commits : least;
        most = shares[i].n_commits > most ? shares[i].n_commits : most;
        longest = shares[i].longest > longest ? shares[i].longest : longest;
    }
    printf("%d processes, %.0f s\n", N_PROCESSES, seconds);
    printf(
        "  all          %8.0f commits/s\n  least share  %8.1f %%\n  largest      %8.1f %%\n  longest wait %8.0f ms\n",
        (double)total / seconds, 100 * (double)least / (double)total, 100 * (double)most / (double)total,
        longest * 1e3);
    munmap(shares, 4096);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: bench_writers DIRECTORY [ROUNDS [SECONDS]]\n");
        return 2;
    }
    int n_rounds = argc > 2 ? atoi(argv[2]) : 21;
    double seconds = argc > 3 ? atof(argv[3]) : 10;
    n_rounds = n_rounds < 1 ? 1 : n_rounds > MOST_ROUNDS ? MOST_ROUNDS : n_rounds;
    for (int i = 0; i < DIMENSION; i++)
        vector[i] = (float)(i * 7919 % 1000) * 1e-3f - 0.4999f;
    measure_processes(argv[1], seconds); /* first: no thread may live while a process forks */
    measure_single(argv[1], n_rounds);
    measure_threads(argv[1], n_rounds);
    return 0;
}
