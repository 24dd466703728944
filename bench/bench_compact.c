/* SPDX-License-Identifier: Apache-2.0
 *
 * bench/bench_compact.c - what it costs to give space back
 *
 *     bench_compact [--rows N] [--dim D] [--updates N] [--batch N] [--dir DIR]
 *
 * First, records are replaced at random, in batches, all the time, and the maintainer compacts as it sees fit.
 * The table tells, for every tenth of the updates:
 *
 *     written       bytes of pages appended for new vectors (tails that were packed, bulk writes)
 *     rewritten     bytes that compaction appended for vectors that had been in a file before
 *     amplification (written + rewritten) / written
 *     vectors       the vector files at their largest in that time, over the bytes of the live vectors
 *     catalog       the catalog with its log at its largest, in MB
 *
 * Then, an explicit compaction, which gives the collection a new store (half of its slots are free), beside a
 * thread that puts one record after another: the time it takes, and how long the slowest of these writes took, which
 * is what the longest transaction of the maintainer costs others. The same writes are timed alone before.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "vecdb.h"

struct setup {
    const char *directory;
    size_t rows, updates, batch;
    uint32_t dimension;
};

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench_compact: %s: %s\n", what, why);
    exit(1);
}

static void must(int status, const vecdb_error *err, const char *what)
{
    if (status)
        die(what, err->message);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static uint64_t random_bits(void)
{
    static _Thread_local uint64_t x = 0x9e3779b97f4a7c15u; /* xorshift64 (Marsaglia 2003) */
    x ^= x << 13;
    x ^= x >> 7;
    return x ^= x << 17;
}

static int read_options(int n, char **arguments, struct setup *setup)
{
    *setup = (struct setup){.directory = "/tmp", .rows = 50000, .updates = 500000, .batch = 100, .dimension = 256};
    for (int i = 1; i + 1 < n; i += 2) {
        const char *name = arguments[i], *value = arguments[i + 1];
        if (!strcmp(name, "--rows"))
            setup->rows = strtoul(value, NULL, 10);
        else if (!strcmp(name, "--updates"))
            setup->updates = strtoul(value, NULL, 10);
        else if (!strcmp(name, "--batch"))
            setup->batch = strtoul(value, NULL, 10);
        else if (!strcmp(name, "--dim"))
            setup->dimension = (uint32_t)strtoul(value, NULL, 10);
        else if (!strcmp(name, "--dir"))
            setup->directory = value;
        else
            return 1;
    }
    return n % 2 == 0 || !setup->rows || !setup->batch || !setup->dimension;
}

/* ------------------------------------------------------------------ writing */

/* Keys are spread, as hashes of documents would be: an index of keys is not filled in order. */
static int64_t key_of(size_t i)
{
    return (int64_t)((uint64_t)i * 0x9e3779b97f4a7c15u);
}

struct writer {
    vecdb_collection *collection;
    const struct setup *setup;
    float *values;
    int64_t *keys;
};

static void init_writer(struct writer *writer, vecdb_collection *collection, const struct setup *setup)
{
    *writer = (struct writer){.collection = collection, .setup = setup};
    writer->values = malloc(setup->batch * setup->dimension * sizeof(float));
    writer->keys = malloc(setup->batch * sizeof *writer->keys);
    if (!writer->values || !writer->keys)
        die("memory", "there is not enough");
}

/* Put n records: from `first` on, or (SIZE_MAX) random ones. */
static void put(struct writer *writer, size_t first, size_t n)
{
    const struct setup *setup = writer->setup;
    vecdb_error err = VECDB_ERROR_INIT;
    for (size_t i = 0; i < n; i++) {
        writer->keys[i] = key_of(first == SIZE_MAX ? random_bits() % setup->rows : first + i);
        for (uint32_t d = 0; d < setup->dimension; d++)
            writer->values[i * setup->dimension + d] = (float)(int32_t)random_bits() * 0x1p-31f;
    }
    vecdb_vector_column column = {.values = writer->values, .dimension = setup->dimension, .type = VECDB_F32};
    vecdb_batch batch = {.size = sizeof batch, .n_rows = n, .integer_keys = writer->keys, .vectors = &column,
                         .n_vectors = 1};
    must(vecdb_write(writer->collection, &batch, &err), &err, "write");
}

static vecdb_stats stats_of(vecdb *db)
{
    vecdb_stats stats = {.size = sizeof stats};
    vecdb_error err = VECDB_ERROR_INIT;
    must(vecdb_database_stats(db, &stats, &err), &err, "stats");
    return stats;
}

static void replace(vecdb *db, struct writer *writer)
{
    const struct setup *setup = writer->setup;
    double live = (double)setup->rows * setup->dimension * sizeof(float), started = now();
    uint64_t peak_vectors = 0, peak_catalog = 0;
    size_t done = 0, next = setup->updates / 10;
    vecdb_stats begin = stats_of(db);
    printf("%zu rows of %u dimensions, %zu random replacements in batches of %zu; live vectors: %.1f MB\n\n",
           setup->rows, setup->dimension, setup->updates, setup->batch, live / 1e6);
    printf("   updates   written MB   rewritten MB   amplification   vectors/live   catalog MB   updates/s\n");
    while (done < setup->updates) {
        put(writer, SIZE_MAX, setup->batch);
        done += setup->batch;
        vecdb_stats stats = stats_of(db);
        peak_vectors = stats.vector_bytes > peak_vectors ? stats.vector_bytes : peak_vectors;
        peak_catalog = stats.catalog_bytes > peak_catalog ? stats.catalog_bytes : peak_catalog;
        if (done < next)
            continue;
        double written = (double)(stats.vector_bytes_written - begin.vector_bytes_written);
        double rewritten = (double)(stats.vector_bytes_rewritten - begin.vector_bytes_rewritten);
        printf("%10zu %12.1f %14.1f %15.2f %14.2f %12.1f %11.0f\n", done, written / 1e6, rewritten / 1e6,
               written > 0 ? (written + rewritten) / written : 0, (double)peak_vectors / live,
               (double)peak_catalog / 1e6, (double)done / (now() - started));
        next += setup->updates / 10;
        peak_vectors = peak_catalog = 0;
    }
}

/* ------------------------------------------------------------------ a new store beside a writer */

struct latencies {
    struct writer writer;
    _Atomic bool ends;
    double *seconds;
    size_t n, capacity;
};

static void *write_singles(void *context)
{
    struct latencies *latencies = context;
    while (!atomic_load(&latencies->ends)) {
        double started = now();
        put(&latencies->writer, SIZE_MAX, 1);
        if (latencies->n < latencies->capacity)
            latencies->seconds[latencies->n++] = now() - started;
    }
    return NULL;
}

static int compare_doubles(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return left < right ? -1 : left > right;
}

static void time_writes(vecdb *db, vecdb_collection *collection, const struct setup *setup, bool compacts)
{
    struct setup single = *setup;
    single.batch = 1;
    struct latencies latencies = {.capacity = 1 << 20};
    init_writer(&latencies.writer, collection, &single);
    latencies.seconds = malloc(latencies.capacity * sizeof(double));
    pthread_t thread;
    vecdb_error err = VECDB_ERROR_INIT;
    if (!latencies.seconds || pthread_create(&thread, NULL, write_singles, &latencies))
        die("thread", "cannot be had");
    double started = now();
    if (compacts)
        must(vecdb_compact(db, NULL, &err), &err, "compact");
    else
        sleep(3);
    double seconds = now() - started;
    atomic_store(&latencies.ends, true);
    pthread_join(thread, NULL);
    size_t n = latencies.n;
    qsort(latencies.seconds, n, sizeof(double), compare_doubles);
    printf("%-28s %6.2f s; %6zu single writes: median %6.2f ms, 99 %% %7.2f ms, slowest %7.2f ms\n",
           compacts ? "compaction, a new store" : "writes alone", seconds, n, n ? latencies.seconds[n / 2] * 1e3 : 0,
           n ? latencies.seconds[n * 99 / 100] * 1e3 : 0, n ? latencies.seconds[n - 1] * 1e3 : 0);
    free(latencies.seconds);
    free(latencies.writer.values);
    free(latencies.writer.keys);
}

int main(int n, char **arguments)
{
    struct setup setup;
    if (read_options(n, arguments, &setup)) {
        fprintf(stderr, "usage: bench_compact [--rows N] [--dim D] [--updates N] [--batch N] [--dir DIR]\n");
        return 2;
    }
    char path[512];
    snprintf(path, sizeof path, "%s/bench_compact.%d.vecdb", setup.directory, (int)getpid());
    vecdb_options options = {.size = sizeof options, .mode = VECDB_OPEN_NEW, .busy_timeout_ms = 60000};
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db;
    vecdb_collection *collection;
    vecdb_field field = {.name = "v", .dimension = setup.dimension, .metric = VECDB_L2};
    struct writer writer;
    must(vecdb_open(path, &options, &db, &err), &err, "open");
    must(vecdb_collection_create(db, "c", &field, 1, VECDB_MUST_BE_NEW, &collection, &err), &err, "create");
    struct setup load = setup;
    load.batch = 10000;
    init_writer(&writer, collection, &load);
    for (size_t first = 0; first < setup.rows; first += load.batch)
        put(&writer, first, setup.rows - first < load.batch ? setup.rows - first : load.batch);
    free(writer.values);
    free(writer.keys);
    init_writer(&writer, collection, &setup);
    replace(db, &writer);
    vecdb_stats stats = stats_of(db);
    printf("\nbefore the compaction: vectors %.1f MB, catalog %.1f MB\n", (double)stats.vector_bytes / 1e6,
           (double)stats.catalog_bytes / 1e6);
    time_writes(db, collection, &setup, false);
    time_writes(db, collection, &setup, true);
    stats = stats_of(db);
    printf("after it: vectors %.1f MB, catalog %.1f MB\n", (double)stats.vector_bytes / 1e6,
           (double)stats.catalog_bytes / 1e6);
    must(vecdb_background_error(db, &err), &err, "background");
    vecdb_close(db);
    printf("files are left in %s\n", path);
    return 0;
}
