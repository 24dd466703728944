/* SPDX-License-Identifier: Apache-2.0
 *
 * bench/bench_graph.c - the graph index: recall against queries a second
 *
 *     build/plain/bench/bench_graph [-t THREADS] [-n ROWS] [-q QUERIES] [-s] [DATA_FOLDER] [SET...]
 *
 * Sets: glove sift200k mnist docs. Real data (DATA_FOLDER, else $VECDB_DATA, else ../shared/data) is widened to f32.
 * A graph is built by THREADS threads (2), sealed and swept into breadth-first order (-s: not swept). Then, for k = 10
 * and one thread, a grid of ef and n_rerank: recall@10 against the ground truth, queries a second of this thread's
 * processor time (the least of ROUNDS rounds: machines are shared), distances, steps, and bytes read for each query.
 * At the end, for recall .90, .95 and .99: the best queries a second of the grid, log-interpolated between
 * neighbouring ef.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define VDB_MEMORY_IMPLEMENTATION /* a program of its own: malloc is its business */
#include "base/numbers.h"
#include "index/graph.h"

#define ROUNDS 3
#define K 10

struct set {
    const char *name, *base, *queries;
    int stored; /* element type in the files */
    int metric;
};

static const struct set sets[] = {
    {"mnist", "base.u8bin", "query.u8bin", VECDB_U8, VECDB_L2},
    {"docs", "base.f16bin", "query.f16bin", VECDB_F16, VECDB_COSINE},
    {"sift200k", "base.u8bin", "query.u8bin", VECDB_U8, VECDB_L2},
    {"glove", "base.f16bin", "query.f16bin", VECDB_F16, VECDB_COSINE},
};

struct matrix {
    float *values;
    uint32_t n, dimension;
};

static struct vdb_memory memory;

static void die(const char *what, const char *detail)
{
    fprintf(stderr, "bench_graph: %s %s\n", what, detail);
    exit(1);
}

static void *must(void *block)
{
    if (!block)
        die("no memory", "");
    return block;
}

/* A file of the set: `type` 0 reads 32-bit numbers as they are. */
static struct matrix read_matrix(const char *folder, const char *name, const char *file, int type)
{
    char path[1024];
    uint32_t header[2];
    snprintf(path, sizeof path, "%s/%s/%s", folder, name, file);
    FILE *stream = fopen(path, "rb");
    if (!stream || fread(header, 4, 2, stream) != 2)
        die("cannot read", path);
    struct matrix matrix = {NULL, header[0], header[1]};
    size_t n_values = (size_t)matrix.n * matrix.dimension, n_bytes = n_values * (type ? vdb_vector_bytes(type, 1) : 4);
    void *stored = must(malloc(n_bytes));
    matrix.values = must(aligned_alloc(64, (n_values * 4 + 63) / 64 * 64));
    if (fread(stored, 1, n_bytes, stream) != n_bytes)
        die("cannot read all of", path);
    if (type)
        vdb_floats_of(type, stored, (uint32_t)n_values, matrix.values);
    else
        memcpy(matrix.values, stored, n_bytes);
    free(stored);
    fclose(stream);
    return matrix;
}

/* Cosine's vectors are of length 1 in what peers are given, and so here. */
static void normalise(struct matrix *matrix)
{
    for (uint32_t i = 0; i < matrix->n; i++) {
        float *row = matrix->values + (size_t)i * matrix->dimension;
        double square = 0;
        for (uint32_t j = 0; j < matrix->dimension; j++)
            square += (double)row[j] * (double)row[j];
        for (uint32_t j = 0; j < matrix->dimension && square > 0; j++)
            row[j] = (float)((double)row[j] / sqrt(square));
    }
}

/* ------------------------------------------------------------------ rows by slot */

static int find(void *context, const uint32_t *slots, size_t n, struct vdb_row *rows, vecdb_error *err)
{
    (void)err;
    const struct matrix *base = context;
    for (size_t i = 0; i < n; i++)
        rows[i] = (struct vdb_row){.values = base->values + (size_t)slots[i] * base->dimension, .type = VECDB_F32};
    return VECDB_OK;
}

static void put(void *context, struct vdb_row *rows, size_t n)
{
    (void)context;
    (void)rows;
    (void)n;
}

/* ------------------------------------------------------------------ building */

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void check(int status, const vecdb_error *err)
{
    if (status)
        die("failed:", err->message);
}

static struct vdb_graph *build(const struct set *set, const struct matrix *base, int n_threads, bool is_swept)
{
    struct vdb_graph_options options = {.memory = &memory,
                                        .kernels = vdb_kernels_choose(NULL),
                                        .metric = set->metric,
                                        .type = VECDB_F32,
                                        .dimension = base->dimension,
                                        .seed = 1};
    struct vdb_run run = {0, 0};
    struct vdb_block block = {.rows = base->values,
                              .stride = (size_t)base->dimension * 4,
                              .n_rows = base->n,
                              .type = VECDB_F32,
                              .n_runs = 1,
                              .runs = &run};
    struct vdb_graph *graph, *swept;
    vecdb_error err = {0};
    struct vdb_graph_insert how = {.n_threads = n_threads};
    check(vdb_pool_new(&memory, n_threads, &how.pool, &err), &err);
    double wall = seconds(CLOCK_MONOTONIC), processor = seconds(CLOCK_PROCESS_CPUTIME_ID);
    check(vdb_graph_new(&options, base->n, &block, &graph, &err), &err);
    check(vdb_graph_insert(graph, &block, 0, base->n, &how, &err), &err);
    double inserted = seconds(CLOCK_PROCESS_CPUTIME_ID);
    check(vdb_graph_seal(graph, &how, &err), &err);
    double sealed = seconds(CLOCK_PROCESS_CPUTIME_ID);
    if (is_swept) {
        check(vdb_graph_sweep(graph, NULL, &how, &swept, &err), &err);
        vdb_graph_release(graph);
        graph = swept;
    }
    double end = seconds(CLOCK_PROCESS_CPUTIME_ID);
    struct vdb_graph_info info;
    vdb_graph_describe(graph, &info);
    printf("%s: %u x %u, built by %d threads in %.1f s (processors: insert %.1f s, seal %.1f s, sweep %.1f s)\n",
           set->name, base->n, base->dimension, n_threads, seconds(CLOCK_MONOTONIC) - wall, inserted - processor,
           sealed - inserted, end - sealed);
    printf("%u nodes, %.1f links each, %.0f bytes each; hnswlib has %.0f: %.2f of it\n", info.n_nodes,
           (double)info.n_links / info.n_nodes, (double)info.bytes / info.n_nodes, 4.0 * base->dimension + 140,
           (double)info.bytes / info.n_nodes / (4.0 * base->dimension + 140));
    vdb_pool_free(how.pool);
    return graph;
}

/* ------------------------------------------------------------------ searching */

struct point {
    uint32_t ef, n_rerank;
    double recall, qps;
    struct vdb_graph_counts counts;
};

static void measure(const struct vdb_graph *graph, const struct vdb_search *search, const struct matrix *base,
                    const struct matrix *truth, struct vdb_graph_scratch *scratch, struct point *point)
{
    struct vdb_graph_effort effort = {.ef = point->ef, .n_rerank = point->n_rerank};
    struct vdb_rows rows = {(void *)(uintptr_t)base, find, put};
    struct vdb_hit hits[K];
    double best = INFINITY;
    vecdb_error err = {0};
    for (int round = 0; round < ROUNDS; round++) {
        size_t n_right = 0;
        memset(&point->counts, 0, sizeof point->counts);
        double start = seconds(CLOCK_THREAD_CPUTIME_ID);
        for (size_t q = 0; q < search->n_queries; q++) {
            uint32_t n_hits;
            check(vdb_graph_search(graph, search, q, base->n, &effort, &rows, scratch, hits, &n_hits, &point->counts,
                                   &err),
                  &err);
            const uint32_t *right = (const uint32_t *)truth->values + q * truth->dimension;
            for (uint32_t i = 0; i < n_hits; i++)
                for (uint32_t j = 0; j < K; j++)
                    n_right += hits[i].slot == right[j];
        }
        double took = seconds(CLOCK_THREAD_CPUTIME_ID) - start;
        best = took < best ? took : best;
        point->recall = (double)n_right / ((double)search->n_queries * K);
    }
    point->qps = (double)search->n_queries / best;
}

#define N_EF 12
#define N_RERANK 5
static const uint32_t efs[N_EF] = {12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 288, 432};
static const uint32_t reranks[N_RERANK] = {10, 15, 20, 30, 60};

/* Queries a second at a recall, 0 where it is not reached. */
static double at_recall(const struct point points[N_EF], double recall)
{
    for (int i = 0; i < N_EF; i++) {
        if (points[i].recall < recall)
            continue;
        if (i == 0)
            return points[0].qps;
        double share = (recall - points[i - 1].recall) / (points[i].recall - points[i - 1].recall);
        return exp(log(points[i - 1].qps) * (1 - share) + log(points[i].qps) * share);
    }
    return 0;
}

static void bench(const struct set *set, const char *folder, int n_threads, uint32_t n_rows, uint32_t n_queries,
                  bool is_swept)
{
    struct matrix base = read_matrix(folder, set->name, set->base, set->stored);
    struct matrix queries = read_matrix(folder, set->name, set->queries, set->stored);
    struct matrix truth = read_matrix(folder, set->name, "gt100.ibin", 0);
    static struct point points[N_RERANK][N_EF];
    base.n = n_rows && n_rows < base.n ? n_rows : base.n;
    if (set->metric == VECDB_COSINE) {
        normalise(&base);
        normalise(&queries);
    }
    struct vdb_graph *graph = build(set, &base, n_threads, is_swept);
    struct vdb_graph_scratch *scratch = must(vdb_graph_scratch_new(&memory));
    struct vdb_search search = {.kernels = vdb_kernels_choose(NULL),
                                .memory = &memory,
                                .n_threads = 1,
                                .metric = set->metric,
                                .type = VECDB_F32,
                                .dimension = base.dimension,
                                .queries = queries.values,
                                .n_queries = n_queries && n_queries < queries.n ? n_queries : queries.n,
                                .k = K};
    printf("%5s %8s %8s %9s %10s %8s %8s\n", "ef", "n_rerank", "recall", "QPS", "distances", "steps", "KiB");
    for (int r = 0; r < N_RERANK; r++)
        for (int e = 0; e < N_EF; e++) {
            struct point *point = &points[r][e];
            *point = (struct point){.ef = efs[e], .n_rerank = reranks[r]};
            if (r > 0 && (efs[e] < reranks[r] || points[r - 1][e].recall == 1)) {
                points[r][e] = points[r - 1][e];
                continue;
            }
            measure(graph, &search, &base, &truth, scratch, point);
            double n = (double)search.n_queries;
            printf("%5u %8u %8.4f %9.0f %10.0f %8.1f %8.1f\n", point->ef, point->n_rerank, point->recall, point->qps,
                   (double)point->counts.n_distances / n, (double)point->counts.n_expanded / n,
                   (double)point->counts.bytes / n / 1024);
        }
    printf("%-10s", set->name);
    static const double targets[] = {0.90, 0.95, 0.99};
    for (int t = 0; t < 3; t++) {
        double best = 0;
        uint32_t best_rerank = 0;
        for (int r = 0; r < N_RERANK; r++)
            if (at_recall(points[r], targets[t]) > best) {
                best = at_recall(points[r], targets[t]);
                best_rerank = reranks[r];
            }
        printf("  recall %.2f: %6.0f QPS (n_rerank %u)", targets[t], best, best_rerank);
    }
    printf("\n\n");
    fflush(stdout);
    vdb_graph_scratch_free(scratch);
    vdb_graph_release(graph);
    free(base.values);
    free(queries.values);
    free(truth.values);
}

int main(int argc, char **argv)
{
    int n_threads = 2, at = 1;
    uint32_t n_rows = 0, n_queries = 0;
    bool is_swept = true;
    for (; at < argc && argv[at][0] == '-'; at++) {
        if (argv[at][1] == 's')
            is_swept = false;
        else if (at + 1 == argc)
            die("a number is missing behind", argv[at]);
        else if (argv[at][1] == 't')
            n_threads = atoi(argv[++at]);
        else if (argv[at][1] == 'n')
            n_rows = (uint32_t)atoi(argv[++at]);
        else if (argv[at][1] == 'q')
            n_queries = (uint32_t)atoi(argv[++at]);
        else
            die("unknown option", argv[at]);
    }
    const char *folder = at < argc ? argv[at++] : getenv("VECDB_DATA");
    vdb_memory_init(&memory, NULL);
    for (size_t s = 0; s < sizeof sets / sizeof *sets; s++) {
        bool is_wanted = at == argc;
        for (int i = at; i < argc; i++)
            is_wanted |= !strcmp(argv[i], sets[s].name);
        if (is_wanted)
            bench(&sets[s], folder ? folder : "../shared/data", n_threads, n_rows, n_queries, is_swept);
    }
    return 0;
}
