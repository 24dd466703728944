/* SPDX-License-Identifier: Apache-2.0
 *
 * bench/bench_churn.c - is an index that has lived as good as one that was just built?
 *
 *     bench_churn [-n ROWS] [-q QUERIES] [DATA_FOLDER] [SET...]
 *
 * Two databases of each set of sets.h, in fields of type f32. One takes all vectors; a random half is deleted, the rest
 * compacted, then every record replaced: the same vectors under permuted keys. The other is made of the vectors of
 * that half alone, and left as it is. Both are asked the same:
 *
 *     stage       the first database
 *     deleted     half of its records were deleted, and the index waited for
 *     compacted   vecdb_compact was called, and the index waited for
 *     replaced    every record was replaced, in batches of 1,000, and the index waited for
 *     compacted   the same again
 *
 * For recall = .95, .99 and ef = 64, k = 10: recall against exact search of the same database, and queries a second of
 * the thread's processor time, one query a call, one thread. Rounds of the two alternate, and medians are told. A hit
 * counts as right when it is not farther than the true tenth. Files: bytes of all files in the directories after
 * both were compacted. The last table compares with what is promised; the exit code is 1 when a promise is not kept.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sets.h"

#define K 10u
#define ROUNDS 5
#define BATCH 1000u
#define SEED 0x9e3779b97f4a7c15u

#define RECALL_LOSS .01 /* what is promised: at most */
#define SPEED_SHARE .8  /* at least */
#define FILES_SHARE 1.2 /* at most */

struct setting {
    const char *name;
    float recall;
    uint32_t ef;
};
static const struct setting settings[] = {{"recall=.95", .95f, 0}, {"recall=.99", .99f, 0}, {"ef=64", 0, 64}};
#define SETTINGS (sizeof settings / sizeof *settings)

struct side {
    char path[1100];
    vecdb *db;
    vecdb_collection *collection;
    double *limits; /* of each query: the distance of the true K-th */
};

struct churn {
    struct bench_set set;
    uint32_t n_rows, n_queries;
    uint32_t *living; /* numbers of the rows that stay, in order */
    uint32_t n_living;
    uint64_t random;
    struct side lived, fresh;
    double worst_recall, worst_speed, worst_files; /* loss; shares */
};

/* ------------------------------------------------------------------ measuring */

static vecdb_results *ask(const struct side *side, vecdb_query *query)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_results *results;
    bench_must(vecdb_search(side->collection, query, &results, &err), &err, "search");
    return results;
}

static void find_truth(const struct churn *churn, struct side *side)
{
    vecdb_query query = bench_query(&churn->set, K);
    query.vector = churn->set.queries;
    query.n_queries = churn->n_queries;
    query.exact = 1;
    query.threads = 0;
    vecdb_results *results = ask(side, &query);
    for (uint32_t q = 0; q < churn->n_queries; q++) {
        size_t first, n;
        vecdb_results_range(results, q, &first, &n);
        side->limits[q] = vecdb_result_distance(results, first + n - 1);
    }
    vecdb_results_free(results);
}

/* Distances of a graph are of single precision. */
static bool is_right(double distance, double limit)
{
    return distance <= limit + 1e-6 + 1e-6 * limit;
}

/* All queries at a setting: the share of right hits, and queries a second. */
static double measure(const struct churn *churn, const struct side *side, const struct setting *setting, double *speed)
{
    vecdb_query query = bench_query(&churn->set, K);
    uint32_t n_right = 0;
    double seconds = 0;
    query.recall = setting->recall;
    query.ef = setting->ef;
    for (uint32_t q = 0; q < churn->n_queries; q++) {
        query.vector = churn->set.queries + q * churn->set.row_bytes;
        double start = bench_seconds(CLOCK_THREAD_CPUTIME_ID);
        vecdb_results *results = ask(side, &query);
        seconds += bench_seconds(CLOCK_THREAD_CPUTIME_ID) - start;
        for (size_t i = 0; i < vecdb_results_count(results); i++)
            n_right += is_right(vecdb_result_distance(results, i), side->limits[q]);
        vecdb_results_free(results);
    }
    *speed = churn->n_queries / seconds;
    return (double)n_right / ((double)churn->n_queries * K);
}

/* Rounds of both sides alternate. `counts`: the stage is one that promises are made of. */
static void compare(struct churn *churn, const char *stage, bool counts)
{
    find_truth(churn, &churn->lived);
    for (uint32_t q = 0; q < churn->n_queries; q++) /* both hold the same vectors */
        if (!is_right(churn->lived.limits[q], churn->fresh.limits[q]) ||
            !is_right(churn->fresh.limits[q], churn->lived.limits[q]))
            bench_die(stage, "exact search finds other vectors than in the fresh database");
    for (size_t s = 0; s < SETTINGS; s++) {
        double lived_speed[ROUNDS], fresh_speed[ROUNDS], lived = 0, fresh = 0;
        for (int round = 0; round < ROUNDS; round++) {
            fresh = measure(churn, &churn->fresh, &settings[s], &fresh_speed[round]);
            lived = measure(churn, &churn->lived, &settings[s], &lived_speed[round]);
        }
        double a = bench_median(fresh_speed, ROUNDS), b = bench_median(lived_speed, ROUNDS);
        printf("| %s | %s | %s | %.4f | %.4f | %+.4f | %.0f | %.0f | %.2f |\n", churn->set.name, stage,
               settings[s].name, fresh, lived, lived - fresh, a, b, b / a);
        fflush(stdout);
        if (!counts)
            continue;
        churn->worst_recall = fresh - lived > churn->worst_recall ? fresh - lived : churn->worst_recall;
        churn->worst_speed = b / a < churn->worst_speed ? b / a : churn->worst_speed;
    }
}

/* ------------------------------------------------------------------ what is done to them */

static void wait_for_index(const struct side *side)
{
    vecdb_error err = VECDB_ERROR_INIT;
    bench_must(vecdb_index_wait(side->collection, NULL, 0, NULL, &err), &err, "index_wait");
}

static void compact(const struct side *side)
{
    vecdb_error err = VECDB_ERROR_INIT;
    bench_must(vecdb_compact(side->db, NULL, &err), &err, "compact");
    wait_for_index(side);
}

static void make_sides(struct churn *churn, const char *directory)
{
    const struct bench_set *set = &churn->set;
    struct side *sides[] = {&churn->lived, &churn->fresh};
    for (size_t i = 0; i < 2; i++) {
        struct side *side = sides[i];
        snprintf(side->path, sizeof side->path, "%s/%s-%s", directory, set->name, i ? "fresh" : "lived");
        bench_database_make(side->path, set, VECDB_INDEX_HNSW, &side->db, &side->collection);
        side->limits = bench_alloc(churn->n_queries * sizeof *side->limits);
        bench_put(side->collection, set, NULL, i ? churn->living : NULL, 0, i ? churn->n_living : churn->n_rows, BATCH);
        wait_for_index(side);
    }
    compact(&churn->fresh);
    find_truth(churn, &churn->fresh);
}

static int compare_numbers(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

/* Half of the rows, at random; `gone` takes the keys of the others. */
static void choose_half(struct churn *churn, vecdb_key *gone)
{
    uint32_t *order = bench_alloc(churn->n_rows * sizeof *order);
    for (uint32_t i = 0; i < churn->n_rows; i++)
        order[i] = i;
    bench_shuffle(order, churn->n_rows, &churn->random);
    churn->n_living = churn->n_rows / 2;
    qsort(order, churn->n_living, sizeof *order, compare_numbers);
    for (uint32_t i = churn->n_living; i < churn->n_rows; i++)
        gone[i - churn->n_living] = vecdb_key_int(order[i]);
    churn->living = order;
}

static void delete_rows(const struct side *side, const vecdb_key *keys, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += BATCH) {
        vecdb_error err = VECDB_ERROR_INIT;
        bench_must(vecdb_delete(side->collection, keys + i, n - i < BATCH ? n - i : BATCH, NULL, &err), &err, "delete");
    }
}

/* Every living key, in an order of its own, gets the vector of another. */
static void replace_rows(struct churn *churn)
{
    uint32_t n = churn->n_living, *rows = bench_alloc(n * sizeof *rows), *order = bench_alloc(n * sizeof *order);
    int64_t *keys = bench_alloc(n * sizeof *keys);
    memcpy(rows, churn->living, n * sizeof *rows);
    memcpy(order, churn->living, n * sizeof *order);
    bench_shuffle(rows, n, &churn->random);
    bench_shuffle(order, n, &churn->random);
    for (uint32_t i = 0; i < n; i++)
        keys[i] = order[i];
    bench_put(churn->lived.collection, &churn->set, keys, rows, 0, n, BATCH);
    free(keys);
    free(order);
    free(rows);
}

static void weigh(struct churn *churn, const char *stage, double megabytes[2], bool counts)
{
    megabytes[0] = (double)bench_directory_bytes(churn->fresh.path) / 1e6;
    megabytes[1] = (double)bench_directory_bytes(churn->lived.path) / 1e6;
    double share = megabytes[1] / megabytes[0];
    printf("| %s | %s | files | | | | %.1f MB | %.1f MB | %.2f |\n", churn->set.name, stage, megabytes[0], megabytes[1],
           share);
    fflush(stdout);
    if (counts && share > churn->worst_files)
        churn->worst_files = share;
}

static void run_set(struct churn *churn, const char *directory)
{
    vecdb_key *gone = bench_alloc(churn->n_rows * sizeof *gone);
    double megabytes[2];
    choose_half(churn, gone);
    make_sides(churn, directory);
    delete_rows(&churn->lived, gone, churn->n_rows - churn->n_living);
    wait_for_index(&churn->lived);
    compare(churn, "deleted", true);
    compact(&churn->lived);
    compare(churn, "deleted, compacted", true);
    weigh(churn, "deleted, compacted", megabytes, true);
    replace_rows(churn);
    wait_for_index(&churn->lived);
    compare(churn, "replaced", true);
    weigh(churn, "replaced", megabytes, false);
    compact(&churn->lived);
    compare(churn, "replaced, compacted", true);
    weigh(churn, "replaced, compacted", megabytes, true);
    vecdb_close(churn->lived.db);
    vecdb_close(churn->fresh.db);
    bench_directory_remove(churn->lived.path);
    bench_directory_remove(churn->fresh.path);
    free(churn->lived.limits);
    free(churn->fresh.limits);
    free(churn->living);
    free(gone);
}

static bool tell(const struct churn *churn)
{
    bool is_kept = churn->worst_recall <= RECALL_LOSS && churn->worst_speed >= SPEED_SHARE &&
                   churn->worst_files <= FILES_SHARE;
    printf("\n| %s | promised | measured, the worst | |\n|---|---|---|---|\n", churn->set.name);
    printf("| recall lost at the same setting | at most %.3f | %.4f | %s |\n", RECALL_LOSS, churn->worst_recall,
           churn->worst_recall <= RECALL_LOSS ? "kept" : "missed");
    printf("| queries a second, of the fresh database's | at least %.2f | %.2f | %s |\n", SPEED_SHARE,
           churn->worst_speed, churn->worst_speed >= SPEED_SHARE ? "kept" : "missed");
    printf("| files after compaction, of the fresh database's | at most %.2f | %.2f | %s |\n\n", FILES_SHARE,
           churn->worst_files, churn->worst_files <= FILES_SHARE ? "kept" : "missed");
    fflush(stdout);
    return is_kept;
}

int main(int argc, char **argv)
{
    const char *folder = NULL;
    uint32_t n_rows = UINT32_MAX, n_queries = 1000;
    bool is_named[BENCH_SETS] = {false}, has_names = false, is_kept = true;
    for (int i = 1; i < argc; i++) {
        size_t s = 0;
        while (s < BENCH_SETS && strcmp(bench_set_names[s], argv[i]))
            s++;
        if (s < BENCH_SETS)
            is_named[s] = has_names = true;
        else if (i + 1 < argc && (!strcmp(argv[i], "-n") || !strcmp(argv[i], "-q"))) {
            *(argv[i][1] == 'n' ? &n_rows : &n_queries) = (uint32_t)strtoul(argv[i + 1], NULL, 10);
            i++;
        } else
            folder = argv[i];
    }
    char *directory = bench_directory_make();
    for (size_t s = 0; s < BENCH_SETS; s++) {
        if (has_names && !is_named[s])
            continue;
        struct churn churn = {.worst_speed = 1e9, .random = SEED};
        bench_set_load(folder, bench_set_names[s], &churn.set);
        churn.n_rows = churn.set.n_rows < n_rows ? churn.set.n_rows : n_rows;
        churn.n_queries = churn.set.n_queries < n_queries ? churn.set.n_queries : n_queries;
        printf("| set | stage | setting | recall fresh | lived | difference | QPS fresh | lived | ratio |\n"
               "|---|---|---|---|---|---|---|---|---|\n");
        run_set(&churn, directory);
        is_kept &= tell(&churn);
        bench_set_release(&churn.set);
    }
    bench_directory_remove(directory);
    free(directory);
    return !is_kept;
}
