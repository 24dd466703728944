/* SPDX-License-Identifier: Apache-2.0
 *
 * bench/bench_kernels.c - how fast the kernels read, beside how fast this machine can read
 *
 *     bench_kernels [MEGABYTES [SECONDS]]       working set in memory (default 1024), time limit
 *
 * Three tables, plain text:
 *   1. sequential read of the working set by a loop that only loads and adds, the best of several;
 *   2. GB/s of every tier, op and type for one query, rows in the second-level cache (512 KB) and in
 *      memory (64 KiB blocks, one call each, as a scan makes them), and the latter as a share of 1;
 *   3. GFLOPS of tiles with rows in the first-level cache, beside the peak of this processor's FMA.
 *
 * A number is the median of five runs, in time of the processor. GB = 10^9 bytes of rows; the query does not count. The
 * scan is measured on anonymous memory with huge pages turned off, since mapped files have none.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/numbers.h"
#include "simd/kernels.h"

#define N_RUNS 5
#define BLOCK_BYTES 65536
#define CACHE_BYTES (512u << 10)

static volatile float sink; /* keeps results alive */

static double seconds_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Time on a processor, so that a program which takes its turn in between does not count. */
static double now(void)
{
    return seconds_of(CLOCK_THREAD_CPUTIME_ID);
}

static int by_value(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static double median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, by_value);
    return values[n / 2];
}

static char *get_memory(size_t n_bytes)
{
    char *memory = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        fprintf(stderr, "bench_kernels: no memory for %zu bytes; give a smaller size\n", n_bytes);
        exit(1);
    }
    madvise(memory, n_bytes, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < n_bytes; i += 4) { /* small floats, halves and bytes alike */
        uint32_t bits = 0x3c003c00u | ((uint32_t)(i * 2654435761u) >> 9 & 0x00ff00ffu);
        memcpy(memory + i, &bits, 4);
    }
    return memory;
}

/* ---------------------------------------------------------------- sequential read */

typedef uint64_t word8 __attribute__((vector_size(64)));

#define READ_LOOP(name, attributes, ahead)                                                                             \
    attributes static uint64_t name(const char *memory, size_t n_bytes)                                                \
    {                                                                                                                  \
        word8 a = {0}, b = {0}, c = {0}, d = {0};                                                                      \
        const word8 *p = (const word8 *)(const void *)memory;                                                          \
        for (size_t i = 0; i < n_bytes / 64; i += 4) {                                                                 \
            if (ahead) {                                                                                               \
                __builtin_prefetch(memory + (i * 64 + (ahead)) % n_bytes);                                             \
                __builtin_prefetch(memory + (i * 64 + (ahead) + 64) % n_bytes);                                        \
                __builtin_prefetch(memory + (i * 64 + (ahead) + 128) % n_bytes);                                       \
                __builtin_prefetch(memory + (i * 64 + (ahead) + 192) % n_bytes);                                       \
            }                                                                                                          \
            a += p[i];                                                                                                 \
            b += p[i + 1];                                                                                             \
            c += p[i + 2];                                                                                             \
            d += p[i + 3];                                                                                             \
        }                                                                                                              \
        a += b + c + d;                                                                                                \
        return a[0] + a[1] + a[2] + a[3] + a[4] + a[5] + a[6] + a[7];                                                  \
    }

READ_LOOP(read_floor, , 0)
#if defined(__x86_64__)
READ_LOOP(read_avx2, __attribute__((target("avx2"))), 0)
READ_LOOP(read_avx512, __attribute__((target("avx512f"))), 0)
READ_LOOP(read_avx512_4k, __attribute__((target("avx512f"))), 4096)
READ_LOOP(read_avx2_4k, __attribute__((target("avx2"))), 4096)
#endif

struct reader {
    const char *name;
    uint64_t (*read)(const char *, size_t);
};

static double read_once(const struct reader *reader, const char *memory, size_t n_bytes)
{
    double start = now();
    sink = (float)reader->read(memory, n_bytes);
    return (double)n_bytes / (now() - start) * 1e-9;
}

static double measure_read(const struct reader *reader, const char *memory, size_t n_bytes)
{
    double speeds[N_RUNS];
    for (int run = 0; run < N_RUNS; run++)
        speeds[run] = read_once(reader, memory, n_bytes);
    return median(speeds, N_RUNS);
}

/* Prints all loops; returns the fastest. */
static struct reader print_reads(const char *memory, size_t n_bytes)
{
    struct reader readers[8], best = {0};
    size_t n = 0;
    double best_speed = 0;
    readers[n++] = (struct reader){"baseline", read_floor};
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) {
        readers[n++] = (struct reader){"avx2", read_avx2};
        readers[n++] = (struct reader){"avx2, prefetch", read_avx2_4k};
    }
    if (__builtin_cpu_supports("avx512f")) {
        readers[n++] = (struct reader){"avx512", read_avx512};
        readers[n++] = (struct reader){"avx512, prefetch", read_avx512_4k};
    }
#endif
    printf("sequential read of %zu MB, one thread\n\n%-18s %8s\n", n_bytes >> 20, "loop", "GB/s");
    for (size_t i = 0; i < n; i++) {
        double speed = measure_read(&readers[i], memory, n_bytes);
        printf("%-18s %8.2f\n", readers[i].name, speed);
        if (speed > best_speed) {
            best_speed = speed;
            best = readers[i];
        }
    }
    return best;
}

/* ---------------------------------------------------------------- scores */

struct scan {
    vdb_score_fn score;
    const void *query;
    const char *memory;
    size_t n_bytes, row_bytes;
    uint32_t dimension;
    float *out;
};

static void scan_once(const struct scan *scan)
{
    size_t per_block = BLOCK_BYTES / scan->row_bytes;
    for (size_t at = 0; at + BLOCK_BYTES <= scan->n_bytes; at += BLOCK_BYTES)
        scan->score(scan->query, scan->memory + at, scan->row_bytes, per_block, scan->dimension, scan->out);
    sink = scan->out[0];
}

static double bytes_scored(const struct scan *scan)
{
    return (double)(scan->n_bytes / BLOCK_BYTES) * (double)(BLOCK_BYTES / scan->row_bytes * scan->row_bytes);
}

static double measure_cached(struct scan scan)
{
    enum { N_PASSES = 20 };
    double speeds[N_RUNS];
    scan.n_bytes = CACHE_BYTES;
    scan_once(&scan);
    for (int run = 0; run < N_RUNS; run++) {
        double start = now();
        for (int pass = 0; pass < N_PASSES; pass++)
            scan_once(&scan);
        speeds[run] = bytes_scored(&scan) * N_PASSES / (now() - start) * 1e-9;
    }
    return median(speeds, N_RUNS);
}

/* Scans and plain reads take turns, since the speed of the memory is shared and changes. */
static void print_scan(const char *tier, const char *op, const char *query_type, const char *row_type,
                       struct scan scan, const struct reader *reader)
{
    double speeds[N_RUNS], shares[N_RUNS];
    for (int run = 0; run < N_RUNS; run++) {
        double read_speed = read_once(reader, scan.memory, scan.n_bytes), start = now();
        scan_once(&scan);
        speeds[run] = bytes_scored(&scan) / (now() - start) * 1e-9;
        shares[run] = 100 * speeds[run] / read_speed;
    }
    printf("%-17s %-7s %-5s %-5s %5u %9.1f %9.2f %8.0f\n", tier, op, query_type, row_type, scan.dimension,
           measure_cached(scan), median(speeds, N_RUNS), median(shares, N_RUNS));
    fflush(stdout);
}

static void print_scores(const struct vdb_kernels *table, const char *memory, size_t n_bytes,
                         const struct reader *reader, double deadline)
{
    static const uint32_t dimensions[] = {100, 128, 384, 768, 1536};
    static const char *const ops[] = {"dot", "l2", "cosine"};
    static float out[BLOCK_BYTES];
    for (int op = 0; op < VDB_N_OPS; op++) {
        for (int type = VECDB_F32; type <= VECDB_U8; type++) {
            for (size_t i = 0; i < 5 && seconds_of(CLOCK_MONOTONIC) < deadline; i++) {
                struct scan scan = {.query = memory, .memory = memory, .n_bytes = n_bytes};
                scan.score = table->float_query[op][type];
                scan.dimension = dimensions[i];
                scan.row_bytes = vdb_vector_bytes(type, scan.dimension);
                scan.out = out;
                print_scan(table->name, ops[op], "f32", vdb_type_name(type), scan, reader);
                if ((scan.score = table->same_type[op][type]))
                    print_scan(table->name, ops[op], vdb_type_name(type), vdb_type_name(type), scan, reader);
            }
        }
    }
    for (size_t i = 0; i < 5 && seconds_of(CLOCK_MONOTONIC) < deadline; i++) {
        struct scan scan = {.score = table->hamming, .query = memory, .memory = memory, .n_bytes = n_bytes};
        scan.dimension = dimensions[i];
        scan.row_bytes = vdb_vector_bytes(VECDB_BIT, scan.dimension);
        scan.out = out;
        print_scan(table->name, "hamming", "bit", "bit", scan, reader);
    }
}

/* ---------------------------------------------------------------- tiles */

#define PEAK_LOOP(name, attributes, vector)                                                                            \
    attributes static float name(size_t n)                                                                             \
    {                                                                                                                  \
        vector sum[12], a = {1e-3f}, b = {1e-3f};                                                                      \
        for (int i = 0; i < 12; i++)                                                                                   \
            sum[i] = a * (float)i;                                                                                     \
        for (; n > 0; n--) {                                                                                           \
            __asm__ volatile("" : "+v"(a), "+v"(b));                                                                   \
            _Pragma("GCC unroll 12") for (int i = 0; i < 12; i++) sum[i] = a * b + sum[i];                             \
        }                                                                                                              \
        for (int i = 1; i < 12; i++)                                                                                   \
            sum[0] += sum[i];                                                                                          \
        return sum[0][0];                                                                                              \
    }

#if defined(__x86_64__)
typedef float float8 __attribute__((vector_size(32)));
typedef float float16 __attribute__((vector_size(64)));
#define CONTRACT __attribute__((target("avx2,fma"), optimize("O3,fp-contract=fast")))
#define CONTRACT_512 __attribute__((target("avx512f,fma"), optimize("O3,fp-contract=fast")))
PEAK_LOOP(peak_avx2, CONTRACT, float8)
PEAK_LOOP(peak_avx512, CONTRACT_512, float16)

static double measure_peak(float (*loop)(size_t), double lanes)
{
    enum { N = 2000000 };
    double speeds[N_RUNS];
    for (int run = 0; run < N_RUNS; run++) {
        double start = now();
        sink = loop(N);
        speeds[run] = 2.0 * 12 * lanes * N / (now() - start) * 1e-9;
    }
    return median(speeds, N_RUNS);
}
#endif

/* GFLOPS of multiplications and additions in registers; 0 where it is not known how to ask. */
static double peak_of(const struct vdb_kernels *table)
{
#if defined(__x86_64__)
    if (strncmp(table->name, "avx512", 6) == 0)
        return measure_peak(peak_avx512, 16);
    if (strcmp(table->name, "avx2") == 0)
        return measure_peak(peak_avx2, 8);
#endif
    (void)table;
    return 0;
}

static double measure_tile(vdb_tile_fn tile, const char *memory, size_t row_set_bytes, uint32_t dimension)
{
    static float out[VDB_TILE_QUERIES * 1024];
    const float *queries[VDB_TILE_QUERIES];
    size_t n_rows = row_set_bytes / ((size_t)dimension * 4) / 4 * 4;
    double speeds[N_RUNS];
    for (size_t j = 0; j < VDB_TILE_QUERIES; j++)
        queries[j] = (const float *)(const void *)(memory + (1 << 20) + j * dimension * 4);
    size_t n_passes = 100000000 / (n_rows * dimension) + 1;
    for (int run = 0; run < N_RUNS; run++) {
        double start = now();
        for (size_t pass = 0; pass < n_passes; pass++)
            tile(queries, (const float *)(const void *)memory, (size_t)dimension * 4, n_rows, dimension, out, 1024);
        speeds[run] = 2.0 * VDB_TILE_QUERIES * (double)(n_rows * n_passes) * dimension / (now() - start) * 1e-9;
        sink = out[0];
    }
    return median(speeds, N_RUNS);
}

static void print_tiles(const struct vdb_kernels *table, const char *memory)
{
    static const uint32_t dimensions[] = {100, 128, 384, 784};
    double peak = peak_of(table);
    for (size_t i = 0; i < 4; i++) {
        double l1 = measure_tile(table->tile_dot, memory, 24 << 10, dimensions[i]);
        double l2 = measure_tile(table->tile_dot, memory, 256 << 10, dimensions[i]);
        double squares = measure_tile(table->tile_l2, memory, 24 << 10, dimensions[i]);
        printf("%-17s %5u %10.1f %10.1f %10.1f %10.1f", table->name, dimensions[i], l1, l2, squares, peak);
        printf(peak > 0 ? " %8.0f\n" : "        -\n", 100 * l1 / peak);
    }
    fflush(stdout);
}

int main(int argc, char **argv)
{
    long megabytes = argc > 1 ? strtol(argv[1], NULL, 10) : 1024, seconds = argc > 2 ? strtol(argv[2], NULL, 10) : 600;
    const struct vdb_kernels *tables[8];
    size_t n_tables = vdb_kernels_available(tables, 8);
    if (megabytes < 2 || megabytes > 1 << 20 || seconds < 1) {
        fprintf(stderr, "usage: bench_kernels [MEGABYTES (2 and more) [SECONDS]]\n");
        return 2;
    }
    size_t n_bytes = (size_t)megabytes << 20; /* whole blocks */
    char *memory = get_memory(n_bytes);
    double deadline = seconds_of(CLOCK_MONOTONIC) + (double)seconds;
    struct reader reader = print_reads(memory, n_bytes);

    printf("\ntiles: 4 queries against rows in the first-level (24 KB) and second-level (256 KB) cache\n\n");
    printf("%-17s %5s %10s %10s %10s %10s %8s\n", "tier", "d", "dot L1", "dot L2", "l2 L1", "FMA peak", "dot L1");
    printf("%-17s %5s %10s %10s %10s %10s %8s\n", "", "", "GFLOPS", "GFLOPS", "GFLOPS", "GFLOPS", "% peak");
    for (size_t t = 0; t < n_tables; t++)
        print_tiles(tables[t], memory);

    printf("\none query against rows in the cache (512 KB) and in memory (%ld MB), ", megabytes);
    printf("beside the loop \"%s\"\n\n", reader.name);
    printf("%-17s %-7s %-5s %-5s %5s %9s %9s %8s\n", "tier", "op", "query", "rows", "d", "cache", "memory", "of read");
    printf("%-17s %-7s %-5s %-5s %5s %9s %9s %8s\n", "", "", "", "", "", "GB/s", "GB/s", "%");
    for (size_t t = 0; t < n_tables; t++)
        print_scores(tables[t], memory, n_bytes, &reader, deadline);
    if (seconds_of(CLOCK_MONOTONIC) >= deadline)
        printf("(the time limit of %ld s cut the table; give more as the second argument)\n", seconds);
    munmap(memory, n_bytes);
    return 0;
}
