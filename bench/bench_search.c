/* SPDX-License-Identifier: Apache-2.0
 *
 * bench/bench_search.c - how fast, and how right, searches through the public API are
 *
 *     bench_search DATABASE COLLECTION QUERIES.fbin TRUTH.ibin [-k N] [-n QUERIES] SETTING...
 *
 * A setting is `exact`, `ef=N` or `recall=X`; `-` reads settings line by line from the standard input, each answered
 * at once: peers_graph.py asks in turns that way. The collection is as `vecdb-cli import` makes it of a .fbin file:
 * the key of row i is the integer i, the vectors are in the first field. TRUTH holds the true nearest rows of each
 * query, best first.
 *
 * One query a call, one thread, keys only. One JSON object a setting:
 *   recall    share of the true nearest k that was found, counted by key; a key given twice counts once
 *   wall_us, cpu_us   a query by CLOCK_MONOTONIC and by CLOCK_THREAD_CPUTIME_ID
 *   call_us   what a peer called through Python reports as the cost of the call itself: 0 here
 *   p99_us    the 99th percentile of single queries by the wall clock
 * and what the library says of the last query. Five queries are asked first without being counted.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vecdb.h"

#define WARM_UP 5
#define N_QUERIES 1000      /* as many as peers_engines.py asks */
#define N_EXACT_QUERIES 200 /* an exact search costs milliseconds, and its recall is known */

struct setup {
    vecdb_collection *collection;
    const float *queries;
    const int32_t *truth;
    uint32_t n_queries, dimension, truth_width, k;
};

struct effort {
    bool exact;
    uint32_t ef;
    float recall;
};

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench_search: %s: %s\n", what, why);
    exit(1);
}

static double microseconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

/* n rows of d values of four bytes each, after n and d. */
static void *read_matrix(const char *path, uint32_t *n, uint32_t *d)
{
    FILE *file = fopen(path, "rb");
    uint32_t header[2];
    if (!file || fread(header, 4, 2, file) != 2)
        die(path, "cannot be read");
    size_t n_values = (size_t)header[0] * header[1];
    void *values = malloc(n_values ? n_values * 4 : 4);
    if (!values || fread(values, 4, n_values, file) != n_values)
        die(path, "is shorter than its header says");
    fclose(file);
    *n = header[0];
    *d = header[1];
    return values;
}

/* ------------------------------------------------------------------ a setting */

/* `text` may stand in quotation marks, as JSON has it. */
static bool parse_effort(const char *text, struct effort *effort)
{
    char *end;
    memset(effort, 0, sizeof *effort);
    if (*text == '"')
        text++;
    if (strncmp(text, "exact", 5) == 0) {
        effort->exact = true;
        return true;
    }
    if (strncmp(text, "ef=", 3) == 0) {
        effort->ef = (uint32_t)strtoul(text + 3, &end, 10);
        return end != text + 3 && effort->ef > 0;
    }
    if (strncmp(text, "recall=", 7) == 0) {
        effort->recall = strtof(text + 7, &end);
        return end != text + 7 && effort->recall > 0 && effort->recall <= 1;
    }
    return false;
}

static vecdb_query query_of(const struct setup *setup, const struct effort *effort)
{
    return (vecdb_query){.size = sizeof(vecdb_query),
                         .dimension = setup->dimension,
                         .type = VECDB_F32,
                         .k = setup->k,
                         .exact = effort->exact,
                         .ef = effort->ef,
                         .recall = effort->recall,
                         .columns = VECDB_KEYS_ONLY,
                         .threads = 1};
}

static vecdb_results *ask(const struct setup *setup, vecdb_query *query, uint32_t i)
{
    vecdb_error error = {0};
    vecdb_results *results;
    query->vector = setup->queries + (size_t)i * setup->dimension;
    if (vecdb_search(setup->collection, query, &results, &error) != VECDB_OK)
        die("search", error.message);
    return results;
}

/* How many of the true nearest k are among the results; a row counts once. */
static uint32_t count_right(const struct setup *setup, const vecdb_results *results, uint32_t i)
{
    const int32_t *truth = setup->truth + (size_t)i * setup->truth_width;
    uint32_t n_right = 0;
    for (uint32_t t = 0; t < setup->k; t++) {
        for (size_t r = 0; r < vecdb_results_count(results); r++) {
            vecdb_key key = vecdb_result_key(results, r);
            if (!key.text && key.integer == truth[t]) {
                n_right++;
                break;
            }
        }
    }
    return n_right;
}

static int compare_doubles(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static void measure(const struct setup *setup, const char *text)
{
    struct effort effort;
    if (!parse_effort(text, &effort))
        die(text, "is neither exact, nor ef=N, nor recall=X");
    uint32_t n = setup->n_queries, n_right = 0;
    if (effort.exact && n > N_EXACT_QUERIES)
        n = N_EXACT_QUERIES;
    vecdb_query query = query_of(setup, &effort);
    vecdb_search_stats stats = {.size = sizeof stats};
    double *each = calloc(n, sizeof *each), wall = 0, own = 0;
    if (!each)
        die("queries", "out of memory");
    for (uint32_t i = 0; i < WARM_UP && i < n; i++)
        vecdb_results_free(ask(setup, &query, i));
    for (uint32_t i = 0; i < n; i++) {
        double own_start = microseconds(CLOCK_THREAD_CPUTIME_ID), start = microseconds(CLOCK_MONOTONIC);
        vecdb_results *results = ask(setup, &query, i);
        each[i] = microseconds(CLOCK_MONOTONIC) - start;
        own += microseconds(CLOCK_THREAD_CPUTIME_ID) - own_start;
        wall += each[i];
        n_right += count_right(setup, results, i);
        if (i == n - 1)
            vecdb_results_stats(results, &stats);
        vecdb_results_free(results);
    }
    qsort(each, n, sizeof *each, compare_doubles);
    printf("{\"recall\": %.6f, \"wall_us\": %.3f, \"cpu_us\": %.3f, \"call_us\": 0, \"p99_us\": %.3f, "
           "\"plan\": \"%s\", \"simd\": \"%s\", \"ef\": %" PRIu32 ", \"bytes_scored\": %" PRIu64 "}\n",
           (double)n_right / ((double)n * setup->k), wall / n, own / n, each[(size_t)n * 99 / 100], stats.plan,
           stats.simd, stats.ef, stats.bytes_scored);
    fflush(stdout);
    free(each);
}

/* The settings that are worth asking for, for whoever asks in turns: the efforts of peers_engines.py, what a
 * caller gets who names a recall, and the truth. Then an answer a line. */
static void measure_lines(const struct setup *setup)
{
    static const unsigned efs[] = {10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 450, 640, 900};
    char line[256];
    printf("{\"settings\": [");
    for (size_t i = 0; i < sizeof efs / sizeof *efs; i++)
        printf("\"ef=%u\", ", efs[i]);
    printf("\"recall=0.9\", \"recall=0.95\", \"recall=0.99\", \"exact\"], \"n_queries\": %" PRIu32 "}\n",
           setup->n_queries);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin))
        measure(setup, line);
}

int main(int argc, char **argv)
{
    const char *files[4];
    int n_files = 0, first = 1;
    uint32_t n_truth, most = N_QUERIES;
    struct setup setup = {.k = 10};
    for (; first < argc && n_files < 4; first++)
        files[n_files++] = argv[first];
    if (n_files < 4) {
        printf("bench_search DATABASE COLLECTION QUERIES.fbin TRUTH.ibin [-k N] [-n QUERIES] "
               "exact|ef=N|recall=X|- ...\n");
        return n_files != 0; /* `make bench` calls every benchmark without arguments */
    }
    for (; first + 1 < argc && (strcmp(argv[first], "-k") == 0 || strcmp(argv[first], "-n") == 0); first += 2)
        *(argv[first][1] == 'k' ? &setup.k : &most) = (uint32_t)strtoul(argv[first + 1], NULL, 10);

    void *queries = read_matrix(files[2], &setup.n_queries, &setup.dimension);
    void *truth = read_matrix(files[3], &n_truth, &setup.truth_width);
    setup.queries = queries;
    setup.truth = truth;
    if (setup.k == 0 || setup.k > setup.truth_width || n_truth < setup.n_queries)
        die(files[3], "has fewer rows than there are queries, or fewer columns than k");
    if (setup.n_queries > most)
        setup.n_queries = most;

    vecdb *db;
    vecdb_error error = {0};
    vecdb_options options = {.size = sizeof options, .mode = VECDB_OPEN_READONLY, .threads = VECDB_THREADS_NONE};
    if (vecdb_open(files[0], &options, &db, &error) != VECDB_OK ||
        vecdb_collection_open(db, files[1], &setup.collection, &error) != VECDB_OK ||
        vecdb_index_wait(setup.collection, NULL, 0, NULL, &error) != VECDB_OK) /* it is loaded, if it is there */
        die(files[0], error.message);
    for (; first < argc; first++) {
        if (strcmp(argv[first], "-") == 0)
            measure_lines(&setup);
        else
            measure(&setup, argv[first]);
    }
    vecdb_close(db);
    free(queries);
    free(truth);
    return 0;
}
