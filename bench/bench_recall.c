/* SPDX-License-Identifier: Apache-2.0
 *
 * bench/bench_recall.c - is the recall that is asked for the recall that comes, at what cost?
 *
 *     build/plain/bench/bench_recall [-n ROWS] [-q QUERIES] [-d] [DATA_FOLDER] [SET...]
 *
 * Sets: glove sift200k mnist docs. A graph of the set (DATA_FOLDER, else $VECDB_DATA, else ../shared/data) is built and
 * calibrated: by its stored vectors alone. Then the set's own queries ask for recall .90, .95 and .99 with k = 1, 10
 * and 100. Printed are
 *     asked, got       recall against exact search
 *     QPS              queries a second of this thread's processor time
 *     best, its ef     those of the best fixed effort that reaches the recall asked for, from a grid of ef and of
 *                      n_rerank, log-interpolated; found with the true answers at hand, as no user can
 *     ratio            QPS / best
 * Rounds of plan and grid alternate, and the least time of each counts. With -d half of the vectors, chosen at random,
 * is deleted then: the curve is stale and measured again, as the library does it, and all is asked again.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define VDB_MEMORY_IMPLEMENTATION /* a program of its own: malloc is its business */
#include "base/numbers.h"
#include "base/random.h"
#include "base/slots.h"
#include "index/calibrate.h"

#define ROUNDS 2
#define MOST_K 100u

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
static struct vdb_pool *pool;

static void die(const char *what, const char *detail)
{
    fprintf(stderr, "bench_recall: %s %s\n", what, detail);
    exit(1);
}

static void check(int status, const vecdb_error *err)
{
    if (status)
        die("failed:", err->message);
}

static struct matrix read_matrix(const char *folder, const char *name, const char *file, int type)
{
    char path[1024];
    uint32_t header[2];
    snprintf(path, sizeof path, "%s/%s/%s", folder, name, file);
    FILE *stream = fopen(path, "rb");
    if (!stream || fread(header, 4, 2, stream) != 2)
        die("cannot read", path);
    struct matrix matrix = {NULL, header[0], header[1]};
    size_t n_values = (size_t)matrix.n * matrix.dimension, n_bytes = n_values * vdb_vector_bytes(type, 1);
    void *stored = malloc(n_bytes);
    matrix.values = aligned_alloc(64, (n_values * 4 + 63) / 64 * 64);
    if (!stored || !matrix.values || fread(stored, 1, n_bytes, stream) != n_bytes)
        die("cannot read all of", path);
    vdb_floats_of(type, stored, (uint32_t)n_values, matrix.values);
    free(stored);
    fclose(stream);
    return matrix;
}

/* ------------------------------------------------------------------ rows and blocks */

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

#define BLOCK_ROWS 256u

struct pages {
    const struct matrix *base;
    struct vdb_run *runs;
    float max_norm;
};

static int pin(void *context, size_t i, struct vdb_block *block, vecdb_error *err)
{
    (void)err;
    const struct pages *pages = context;
    const struct matrix *base = pages->base;
    uint32_t first = (uint32_t)i * BLOCK_ROWS;
    *block = (struct vdb_block){.rows = base->values + (size_t)first * base->dimension,
                                .stride = (size_t)base->dimension * 4,
                                .n_rows = base->n - first < BLOCK_ROWS ? base->n - first : BLOCK_ROWS,
                                .type = VECDB_F32,
                                .max_norm = pages->max_norm,
                                .n_runs = 1,
                                .runs = &pages->runs[i]};
    return VECDB_OK;
}

static void unpin(void *context, struct vdb_block *block)
{
    (void)context;
    (void)block;
}

static size_t make_pages(const struct matrix *base, struct pages *pages)
{
    size_t n = (base->n + BLOCK_ROWS - 1) / BLOCK_ROWS;
    *pages = (struct pages){base, malloc(n * sizeof *pages->runs), 0};
    for (size_t i = 0; i < n; i++)
        pages->runs[i] = (struct vdb_run){(uint32_t)i * BLOCK_ROWS, 0};
    for (uint32_t i = 0; i < base->n; i++) {
        double square = 0;
        for (uint32_t j = 0; j < base->dimension; j++)
            square += (double)base->values[(size_t)i * base->dimension + j] *
                      (double)base->values[(size_t)i * base->dimension + j];
        pages->max_norm = fmaxf(pages->max_norm, (float)sqrt(square) * 1.0001f);
    }
    return n;
}

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static struct vdb_graph *build(const struct set *set, const struct matrix *base)
{
    struct vdb_graph_options options = {
        &memory, vdb_kernels_choose(NULL), set->metric, VECDB_F32, base->dimension, 1, NULL};
    struct vdb_run run = {0, 0};
    struct vdb_block block = {.rows = base->values, .stride = (size_t)base->dimension * 4, .n_rows = base->n,
                              .type = VECDB_F32, .n_runs = 1, .runs = &run};
    struct vdb_graph_insert how = {.pool = pool, .n_threads = 2};
    struct vdb_graph *graph, *swept;
    vecdb_error err = {0};
    check(vdb_graph_new(&options, base->n, &block, &graph, &err), &err);
    check(vdb_graph_insert(graph, &block, 0, base->n, &how, &err), &err);
    check(vdb_graph_seal(graph, &how, &err), &err);
    check(vdb_graph_sweep(graph, NULL, &how, &swept, &err), &err);
    vdb_graph_release(graph);
    return swept;
}

/* ------------------------------------------------------------------ one setting */

struct asking {
    const struct vdb_graph *graph;
    struct vdb_search search;
    struct vdb_rows rows;
    uint32_t end_slot;
    struct vdb_graph_scratch *scratch;
    double *truth; /* MOST_K distances of each query */
};

struct result {
    double recall, seconds; /* of all queries; the least of the rounds */
    double again;           /* share of the queries that were searched more than once */
};

static void ask(struct asking *a, uint32_t k, const struct vdb_plan *plan, struct result *result)
{
    struct vdb_hit hits[MOST_K];
    vecdb_error err = {0};
    double right = 0, again = 0, start = seconds(CLOCK_THREAD_CPUTIME_ID);
    a->search.k = k;
    for (size_t q = 0; q < a->search.n_queries; q++) {
        uint32_t n_hits, ef, n = 0;
        check(vdb_planned_search(a->graph, &a->search, q, a->end_slot, plan, &a->rows, a->scratch, hits, &n_hits, NULL,
                                 &ef, &err),
              &err);
        double radius = a->truth[q * MOST_K + k - 1];
        radius += 1e-6 + fabs(radius) * 1e-6;
        for (uint32_t i = 0; i < n_hits; i++)
            n += hits[i].distance <= radius;
        right += (double)(n < k ? n : k) / k;
        again += ef != plan->efforts[0].ef;
    }
    double took = seconds(CLOCK_THREAD_CPUTIME_ID) - start;
    result->seconds = took < result->seconds ? took : result->seconds;
    result->recall = right / (double)a->search.n_queries;
    result->again = again / (double)a->search.n_queries;
}

#define N_GRID 24
#define N_RERANK 3

static uint32_t grid_ef(uint32_t k, int i)
{
    return (uint32_t)ceil((k == 1 ? 3 : k) * pow(1.22, i));
}

static uint32_t grid_rerank(uint32_t k, int r)
{
    static const double factors[N_RERANK] = {1, 1.3, 2};
    static const uint32_t more[N_RERANK] = {2, 8, 20};
    return (uint32_t)(k * factors[r]) + more[r];
}

/* Queries a second of the best of the grid at a recall, 0 where none reaches it. */
static double best_of(const struct result grid[N_RERANK][N_GRID], uint32_t k, double recall, size_t n_queries,
                      uint32_t *ef, uint32_t *n_rerank)
{
    double best = 0;
    for (int r = 0; r < N_RERANK; r++)
        for (int i = 0; i < N_GRID; i++) {
            if (grid[r][i].recall < recall)
                continue;
            double log_time = log(grid[r][i].seconds);
            if (i > 0) {
                double share = (recall - grid[r][i - 1].recall) / (grid[r][i].recall - grid[r][i - 1].recall);
                log_time = log(grid[r][i - 1].seconds) * (1 - share) + log_time * share;
            }
            if ((double)n_queries / exp(log_time) > best) {
                best = (double)n_queries / exp(log_time);
                *ef = grid_ef(k, i);
                *n_rerank = grid_rerank(k, r);
            }
            break;
        }
    return best;
}

static void ask_all(struct asking *a, const struct set *set, const struct vdb_calibration *curve, uint64_t n_vectors,
                    const char *state)
{
    static const double asked[] = {.90, .95, .99};
    for (uint32_t k = 1; k <= MOST_K; k *= 10) {
        struct vdb_plan plans[3];
        struct result got[3] = {{0, INFINITY, 0}, {0, INFINITY, 0}, {0, INFINITY, 0}};
        static struct result grid[N_RERANK][N_GRID];
        for (int r = 0; r < N_RERANK; r++)
            for (int i = 0; i < N_GRID; i++)
                grid[r][i] = (struct result){0, INFINITY, 0};
        for (int t = 0; t < 3; t++)
            vdb_calibration_plan(curve, k, asked[t], n_vectors, &plans[t]);
        for (int round = 0; round < ROUNDS; round++) {
            for (int t = 0; t < 3; t++)
                ask(a, k, &plans[t], &got[t]);
            for (int r = 0; r < N_RERANK; r++)
                for (int i = 0; i < N_GRID && (i == 0 || grid[r][i - 1].recall < .992); i++) {
                    struct vdb_plan plan = {.n_efforts = 1, .efforts = {{.ef = grid_ef(k, i),
                                                                         .n_rerank = grid_rerank(k, r)}}};
                    if (r > 0 && plan.efforts[0].ef < plan.efforts[0].n_rerank)
                        plan.efforts[0].n_rerank = plan.efforts[0].ef;
                    ask(a, k, &plan, &grid[r][i]);
                }
        }
        for (int t = 0; t < 3; t++) {
            uint32_t ef = 0, n_rerank = 0;
            size_t n = a->search.n_queries;
            double qps = (double)n / got[t].seconds, best = best_of(grid, k, asked[t], n, &ef, &n_rerank);
            printf("| %s%s | %u | %.2f | %.4f%s | %.0f | %.0f (%u, %u) | %.2f%s | %u, %u, %u (%u) | %.0f %% |\n",
                   set->name, state, k, asked[t], got[t].recall, got[t].recall < asked[t] - .01 ? " !" : "", qps, best,
                   ef, n_rerank, qps / best, qps < .8 * best ? " !" : "", plans[t].efforts[0].ef,
                   plans[t].efforts[1].ef, plans[t].efforts[2].ef, plans[t].efforts[0].n_rerank, 100 * got[t].again);
            fflush(stdout);
        }
    }
}

/* ------------------------------------------------------------------ a set */

static void find_truth(struct asking *a, const struct vdb_blocks *blocks)
{
    struct vdb_search search = a->search;
    struct vdb_answer answer;
    vecdb_error err = {0};
    search.k = MOST_K;
    search.pool = pool;
    search.n_threads = 2;
    check(vdb_flat_search(&search, blocks, &answer, &err), &err);
    for (size_t q = 0; q < search.n_queries; q++)
        for (size_t i = 0; i < MOST_K; i++)
            a->truth[q * MOST_K + i] = answer.hits[answer.first[q] + i].distance;
    vdb_answer_release(&memory, &answer);
}

static void bench(const struct set *set, const char *folder, uint32_t n_rows, uint32_t n_queries, bool deletes)
{
    struct matrix base = read_matrix(folder, set->name, set->base, set->stored);
    struct matrix queries = read_matrix(folder, set->name, set->queries, set->stored);
    queries.n = n_queries && n_queries < queries.n ? n_queries : queries.n;
    base.n = n_rows && n_rows < base.n ? n_rows : base.n;
    struct pages pages;
    size_t n_blocks = make_pages(&base, &pages);
    struct vdb_blocks blocks = {&pages, n_blocks, pin, unpin};
    struct vdb_slots *dead = vdb_slots_new();
    struct asking a = {.graph = build(set, &base),
                       .search = {.kernels = vdb_kernels_choose(NULL), .memory = &memory, .n_threads = 1,
                                  .metric = set->metric, .type = VECDB_F32, .dimension = base.dimension,
                                  .queries = queries.values, .n_queries = queries.n},
                       .rows = {&base, find, put},
                       .end_slot = base.n,
                       .scratch = vdb_graph_scratch_new(&memory)};
    a.truth = malloc(queries.n * MOST_K * sizeof *a.truth);
    struct vdb_calibrate how = {.graph = a.graph, .search = &a.search, .blocks = &blocks, .rows = &a.rows,
                                .end_slot = base.n, .seed = 1};
    struct vdb_calibration curve;
    vecdb_error err = {0};
    double start = seconds(CLOCK_PROCESS_CPUTIME_ID);
    check(vdb_calibrate(&how, &curve, &err), &err);
    fprintf(stderr, "%s: calibrated with %u samples in %.1f s\n", set->name, curve.n_samples,
            seconds(CLOCK_PROCESS_CPUTIME_ID) - start);
    find_truth(&a, &blocks);
    ask_all(&a, set, &curve, base.n, "");
    if (deletes) {
        struct vdb_random random = {9};
        for (uint32_t i = 0; i < base.n; i++)
            if (vdb_random_next(&random) >> 63)
                vdb_slots_add(dead, i);
        a.search.dead = dead;
        if (vdb_calibration_stale(&curve, 0, vdb_slots_count(dead)))
            check(vdb_calibrate(&how, &curve, &err), &err);
        find_truth(&a, &blocks);
        ask_all(&a, set, &curve, base.n - vdb_slots_count(dead), ", half deleted");
    }
    vdb_slots_free(dead);
    vdb_graph_scratch_free(a.scratch);
    vdb_graph_release((struct vdb_graph *)(uintptr_t)a.graph);
    free(a.truth);
    free(pages.runs);
    free(base.values);
    free(queries.values);
}

int main(int argc, char **argv)
{
    uint32_t n_rows = 0, n_queries = 0;
    bool deletes = false;
    int at = 1;
    for (; at < argc && argv[at][0] == '-'; at++) {
        if (argv[at][1] == 'd')
            deletes = true;
        else if (argv[at][1] == 'n' && at + 1 < argc)
            n_rows = (uint32_t)atoi(argv[++at]);
        else if (argv[at][1] == 'q' && at + 1 < argc)
            n_queries = (uint32_t)atoi(argv[++at]);
        else
            die("unknown option", argv[at]);
    }
    const char *folder = at < argc ? argv[at++] : getenv("VECDB_DATA");
    vecdb_error err = {0};
    vdb_memory_init(&memory, NULL);
    check(vdb_pool_new(&memory, 2, &pool, &err), &err);
    puts("| set | k | asked | got | QPS | best (ef, n_rerank) | ratio | plan: ef near, far, beyond (n_rerank) "
         "| again |\n"
         "|---|---|---|---|---|---|---|---|---|");
    for (size_t s = 0; s < sizeof sets / sizeof *sets; s++) {
        bool is_wanted = at == argc;
        for (int i = at; i < argc; i++)
            is_wanted |= !strcmp(argv[i], sets[s].name);
        if (is_wanted)
            bench(&sets[s], folder ? folder : "../shared/data", n_rows, n_queries, deletes);
    }
    vdb_pool_free(pool);
    return 0;
}
