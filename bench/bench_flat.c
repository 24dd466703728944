/* SPDX-License-Identifier: Apache-2.0
 *
 * bench/bench_flat.c - exact search beside the memory's bandwidth
 *
 *     build/plain/bench/bench_flat [DATA_FOLDER] [SET...]     sets: glove sift200k mnist docs
 *
 * Real data (DATA_FOLDER, else $VECDB_DATA, else ../shared/data) is widened to f32 and laid out
 * in 64 KiB blocks, one behind the other in one piece of memory, as mapped pages are. Printed are
 *   read      sequential read of that memory by this program: the bound of a single query
 *   single    one query, one thread: GB/s of vectors, its share of `read`, queries per second
 *   batch     1,000 queries in one call, one thread: queries per second, GFLOPS
 * Rounds of reading and searching alternate, and medians are taken, because machines are shared.
 */
#include <stdio.h>
#include <stdlib.h>

#define VDB_MEMORY_IMPLEMENTATION /* a program of its own: malloc is its business */
#include "base/numbers.h"
#include "index/index.h"

#define ROUNDS 9
#define BATCH_ROUNDS 3
#define BATCH 1000
#define BLOCK_BYTES 65536
#define K 10

struct set {
    const char *name, *base, *queries;
    int stored; /* element type in the files */
    int metric;
};

static const struct set sets[] = {
    {"glove", "base.f16bin", "query.f16bin", VECDB_F16, VECDB_COSINE},
    {"sift200k", "base.u8bin", "query.u8bin", VECDB_U8, VECDB_L2},
    {"mnist", "base.u8bin", "query.u8bin", VECDB_U8, VECDB_L2},
    {"docs", "base.f16bin", "query.f16bin", VECDB_F16, VECDB_COSINE},
};

struct matrix {
    float *values;
    uint32_t n, dimension;
};

static void die(const char *what, const char *path)
{
    fprintf(stderr, "bench_flat: %s %s\n", what, path);
    exit(1);
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

/* ------------------------------------------------------------------ blocks */

struct pages {
    const struct matrix *matrix;
    uint32_t per_block;
    float max_norm;
    struct vdb_run *runs;
};

static int pin(void *context, size_t i, struct vdb_block *block, vecdb_error *err)
{
    (void)err;
    const struct pages *pages = context;
    const struct matrix *matrix = pages->matrix;
    uint32_t first = (uint32_t)i * pages->per_block;
    *block = (struct vdb_block){.rows = matrix->values + (size_t)first * matrix->dimension,
                                .stride = (size_t)matrix->dimension * 4,
                                .n_rows = matrix->n - first < pages->per_block ? matrix->n - first : pages->per_block,
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

/* ------------------------------------------------------------------ measuring */

static int compare_doubles(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return left < right ? -1 : left > right;
}

static double median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, compare_doubles);
    return values[n / 2];
}

static volatile uint64_t sink;

/* Seconds to read the memory once: sixteen independent sums of eight bytes, which any compiler
 * turns into loads that outrun memory. */
static double read_once(const void *memory, size_t n_bytes)
{
    typedef uint64_t lanes __attribute__((vector_size(64), aligned(16), may_alias));
    const lanes *at = memory;
    lanes a = {0}, b = {0}, c = {0}, d = {0};
    uint64_t start = vdb_now_ns();
    for (size_t i = 0; i + 4 <= n_bytes / sizeof *at; i += 4) {
        a ^= at[i];
        b ^= at[i + 1];
        c ^= at[i + 2];
        d ^= at[i + 3];
    }
    double seconds = (double)(vdb_now_ns() - start) * 1e-9;
    a ^= b ^ c ^ d;
    sink += a[0] ^ a[1] ^ a[2] ^ a[3] ^ a[4] ^ a[5] ^ a[6] ^ a[7];
    return seconds;
}

static double search_once(const struct vdb_search *search, const struct vdb_blocks *blocks)
{
    struct vdb_answer answer;
    vecdb_error err = {0};
    uint64_t start = vdb_now_ns();
    if (vdb_flat_search(search, blocks, &answer, &err)) {
        fprintf(stderr, "bench_flat: %s\n", err.message);
        exit(1);
    }
    double seconds = (double)(vdb_now_ns() - start) * 1e-9;
    sink += answer.hits[0].slot;
    vdb_answer_release(search->memory, &answer);
    return seconds;
}

static void measure(const struct set *set, const char *folder, struct vdb_memory *memory)
{
    struct matrix base = read_matrix(folder, set->name, set->base, set->stored);
    struct matrix queries = read_matrix(folder, set->name, set->queries, set->stored);
    struct pages pages = {.matrix = &base, .per_block = BLOCK_BYTES / (base.dimension * 4), .max_norm = 1e4f};
    size_t n_bytes = (size_t)base.n * base.dimension * 4;
    struct vdb_blocks blocks = {&pages, (base.n + pages.per_block - 1) / pages.per_block, pin, unpin};
    pages.runs = malloc(blocks.n_blocks * sizeof *pages.runs);
    for (size_t i = 0; pages.runs && i < blocks.n_blocks; i++)
        pages.runs[i] = (struct vdb_run){(uint32_t)i * pages.per_block, 0};
    struct vdb_search search = {.kernels = vdb_kernels_choose(NULL),
                                .memory = memory,
                                .n_threads = 1,
                                .metric = set->metric,
                                .type = VECDB_F32,
                                .dimension = base.dimension,
                                .queries = queries.values,
                                .n_queries = 1,
                                .k = K};
    double reads[ROUNDS], singles[ROUNDS], batches[BATCH_ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        reads[round] = read_once(base.values, n_bytes);
        search.queries = queries.values + (size_t)round * base.dimension;
        singles[round] = search_once(&search, &blocks);
    }
    search.queries = queries.values;
    search.n_queries = queries.n < BATCH ? queries.n : BATCH;
    for (int round = 0; round < BATCH_ROUNDS; round++)
        batches[round] = search_once(&search, &blocks);
    double gb = (double)n_bytes * 1e-9, read = median(reads, ROUNDS), single = median(singles, ROUNDS);
    double batch = median(batches, BATCH_ROUNDS), qps = (double)search.n_queries / batch;
    printf("%-9s %7u x %-5u %-16s %8.1f %10.1f %7.0f %% %9.1f %10.0f %8.0f\n", set->name, base.n, base.dimension,
           search.kernels->name, gb / read, gb / single, 100 * read / single, 1 / single, qps,
           qps * 2 * base.n * base.dimension * 1e-9);
    free(pages.runs);
    free(base.values);
    free(queries.values);
}

int main(int argc, char **argv)
{
    const char *folder = argc > 1 ? argv[1] : getenv("VECDB_DATA");
    struct vdb_memory memory;
    vdb_memory_init(&memory, NULL);
    printf("%-9s %-15s %-16s %8s %10s %9s %9s %10s %8s\n", "set", "rows", "kernels", "read", "single", "of read",
           "single", "batch", "batch");
    printf("%-9s %-15s %-16s %8s %10s %9s %9s %10s %8s\n", "", "", "", "GB/s", "GB/s", "", "QPS", "QPS", "GFLOPS");
    for (size_t s = 0; s < sizeof sets / sizeof *sets; s++) {
        int wanted = argc < 3;
        for (int i = 2; i < argc; i++)
            wanted |= !strcmp(argv[i], sets[s].name);
        if (wanted)
            measure(&sets[s], folder ? folder : "../shared/data", &memory);
    }
    return 0;
}
