/* SPDX-License-Identifier: Apache-2.0
 *
 * bench/bench_codes.c - what scoring one code costs, in the cache and out of it, and what limits it
 *
 *     bench_codes [MEGABYTES]        of records out of the cache (default 512)
 *
 * For every tier, kind of code and dimension, in Markdown:
 *   hot       ns for a code whose record is in the second-level cache (256 KB of records, ids at random)
 *   cold      ns for a code at random among MEGABYTES of records, asked for in lists of 32 ids, as many as a
 *             node of a graph has links: the kernel sees no further than its list
 *   lines     ns that the record's cache lines alone cost, the same ids in the same order: one byte of each line
 *             is loaded, so that as many lines as the processor can have under way are under way
 *
 * What is near `lines` is limited by memory; what is as slow hot as cold, by arithmetic. Then the Hadamard transform,
 * ns for n values in the cache.
 *
 * A number is the median of seven rounds, in time of the processor; tiers take turns within a round, so that what else
 * the machine does hits all of them. Memory has huge pages where the system gives them, as an index's would.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "simd/kernels.h"

#define N_RUNS 7
#define MAX_TABLES 8
#define LIST 32
#define N_IDS 32768 /* of one measurement, out of the cache: far more lines than the caches hold */
#define HOT_BYTES (256u << 10)
#define MAX_VALUES 1536

enum kind { CODE4, CODE8, BITS, N_KINDS };
static const char *const kind_names[N_KINDS] = {"4 bits", "8 bits", "1 bit"};
static const uint32_t dimensions[] = {128, 384, 768, 1536};
#define N_DIMENSIONS (sizeof dimensions / sizeof dimensions[0])

static volatile float sink; /* keeps results alive */

/* Time on a processor, so that a program which takes its turn in between does not count. */
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int by_value(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static double median(double *values)
{
    qsort(values, N_RUNS, sizeof *values, by_value);
    return values[N_RUNS / 2];
}

static uint64_t next_random(void)
{
    static uint64_t state = 88172645463325252u;
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

struct records {
    enum kind kind;
    uint32_t n_values;
    size_t stride;
    unsigned char *memory;
    struct vdb_code_query query;
};

static size_t code_bytes(enum kind kind, uint32_t n_values)
{
    return kind == CODE4 ? n_values / 2 : kind == CODE8 ? n_values : n_values / 8;
}

static void score(const struct vdb_kernels *table, const struct records *records, const uint32_t *ids, size_t n,
                  float *out)
{
    if (records->kind == BITS)
        table->code_bits(records->query.values, records->memory, records->stride, records->n_values / 8, ids, n, out);
    else
        (records->kind == CODE4 ? table->code4 : table->code8)(&records->query, records->memory, records->stride,
                                                               records->n_values, ids, n, out);
}

/* ns for a code, in lists of LIST ids; a NULL table reads one byte of each line instead. */
static double once(const struct vdb_kernels *table, const struct records *records, const uint32_t *ids, size_t n)
{
    float out[LIST], all = 0;
    double start = now();
    for (size_t i = 0; i + LIST <= n; i += LIST) {
        if (table)
            score(table, records, ids + i, LIST, out);
        else
            for (size_t j = 0; j < LIST; j++) {
                const unsigned char *record = records->memory + ids[i + j] * records->stride;
                unsigned sum = record[records->stride - 1]; /* lines that a record only touches count too */
                for (size_t byte = 0; byte < records->stride; byte += 64)
                    sum += record[byte];
                out[j] = (float)sum;
            }
        all += out[0];
    }
    sink = all;
    return (now() - start) * 1e9 / (double)n;
}

static void draw(uint32_t *ids, size_t n, uint64_t below)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = (uint32_t)(next_random() % below);
}

static void print_kind(struct records *records, size_t n_bytes, const struct vdb_kernels *const *tables,
                       size_t n_tables)
{
    static uint32_t ids[N_IDS];
    double hot[MAX_TABLES][N_RUNS], cold[MAX_TABLES][N_RUNS], lines[N_RUNS];
    const size_t unpadded = code_bytes(records->kind, records->n_values) + (records->kind == BITS ? 0 : 12);
    records->stride = (unpadded + 15) / 16 * 16;
    const size_t n_records = n_bytes / records->stride, n_hot = HOT_BYTES / records->stride;
    for (int run = 0; run < N_RUNS; run++) {
        for (size_t t = 0; t < n_tables; t++) {
            draw(ids, N_IDS, n_hot);
            once(tables[t], records, ids, N_IDS);
            hot[t][run] = once(tables[t], records, ids, N_IDS);
        }
        for (size_t i = 0; i < n_tables; i++) { /* new ids for each: the last ones' records are in the cache */
            size_t t = (i + (size_t)run) % n_tables;
            draw(ids, N_IDS, n_records);
            cold[t][run] = once(tables[t], records, ids, N_IDS);
        }
        draw(ids, N_IDS, n_records);
        lines[run] = once(NULL, records, ids, N_IDS);
    }
    const double of_lines = median(lines);
    for (size_t t = 0; t < n_tables; t++)
        printf("| %s | %u | %zu | %s | %.1f | %.0f | %.0f |\n", kind_names[records->kind], records->n_values,
               records->stride, tables[t]->name, median(hot[t]), median(cold[t]), of_lines);
    fflush(stdout);
}

static void print_hadamard(const struct vdb_kernels *const *tables, size_t n_tables)
{
    static const size_t sizes[] = {128, 512, 1024, 4096, 65536};
    static float values[65536];
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        for (size_t t = 0; t < n_tables; t++) {
            double ns[N_RUNS];
            const size_t n_times = (1u << 21) / sizes[s];
            for (int run = 0; run < N_RUNS; run++) {
                memset(values, 0, sizeof values); /* zeros stay zeros: nothing overflows */
                double start = now();
                for (size_t i = 0; i < n_times; i++)
                    tables[t]->hadamard(values, sizes[s]);
                ns[run] = (now() - start) * 1e9 / (double)n_times;
            }
            sink = values[0];
            printf("| %zu | %s | %.0f |\n", sizes[s], tables[t]->name, median(ns));
        }
}

int main(int argc, char **argv)
{
    static _Alignas(64) int8_t values[MAX_VALUES];
    const struct vdb_kernels *tables[MAX_TABLES];
    const size_t n_tables = vdb_kernels_available(tables, MAX_TABLES);
    const long megabytes = argc > 1 ? strtol(argv[1], NULL, 10) : 512;
    if (megabytes < 1 || megabytes > 1 << 20) {
        fprintf(stderr, "usage: bench_codes [MEGABYTES]\n");
        return 2;
    }
    const size_t n_bytes = (size_t)megabytes << 20;
    unsigned char *memory = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        fprintf(stderr, "bench_codes: no memory for %zu bytes; give a smaller size\n", n_bytes);
        return 1;
    }
    madvise(memory, n_bytes, MADV_HUGEPAGE);
    for (size_t i = 0; i < n_bytes; i += 4) { /* read as a factor it is a float of moderate size, too */
        uint32_t word = 0x3c003c00u | ((uint32_t)(i * 2654435761u) >> 9 & 0x00ff00ffu);
        memcpy(memory + i, &word, 4);
    }
    struct records records = {.memory = memory, .query = {.values = values, .scale = 0.01f}};
    for (size_t i = 0; i < MAX_VALUES; i++)
        values[i] = (int8_t)(next_random() & 0xff);

    printf("ids at random among %ld MB\n\n| code | values | bytes | tier | hot ns | cold ns | lines ns |\n", megabytes);
    printf("|---|---|---|---|---|---|---|\n");
    for (records.kind = 0; records.kind < N_KINDS; records.kind++)
        for (size_t i = 0; i < N_DIMENSIONS; i++) {
            records.n_values = dimensions[i];
            print_kind(&records, n_bytes, tables, n_tables);
        }
    printf("\n| Hadamard | tier | ns |\n|---|---|---|\n");
    print_hadamard(tables, n_tables);
    munmap(memory, n_bytes);
    return 0;
}
