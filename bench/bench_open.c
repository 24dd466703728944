/* SPDX-License-Identifier: Apache-2.0
 *
 * bench/bench_open.c - how long a large database takes to open
 *
 *     bench_open DIRECTORY [ROWS]       an empty directory; default 10,000,000 rows
 *
 * Makes a database of ROWS records (integer keys, 8 x u8), closes it, and lets the kernel forget its files where that
 * is possible (posix_fadvise, which needs no rights, works on pages that are on the disk). Then opens it, finds the
 * collection, gets a record, searches, and searches again: the first search makes the view. A second time
 * shows the same with the files in memory.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "vecdb.h"

#define DIMENSION 8
#define BATCH_ROWS 100000

static void must(int status, const vecdb_error *err, const char *what)
{
    if (status) {
        fprintf(stderr, "bench_open: %s: %s\n", what, err->message);
        exit(1);
    }
}

static double now_ms(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec * 1e-6;
}

static void make_database(const char *path, int64_t n_rows)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_field field = {.name = "vector", .dimension = DIMENSION, .type = VECDB_U8, .metric = VECDB_L2};
    vecdb_collection *collection;
    vecdb *db;
    static unsigned char values[BATCH_ROWS][DIMENSION];
    static int64_t keys[BATCH_ROWS];
    double start = now_ms();
    must(vecdb_open(path, NULL, &db, &err), &err, "open");
    must(vecdb_collection_create(db, "rows", &field, 1, VECDB_MUST_BE_NEW, &collection, &err), &err, "create");
    uint32_t hash = 1;
    for (int64_t done = 0; done < n_rows; done += BATCH_ROWS) {
        size_t n = n_rows - done < BATCH_ROWS ? (size_t)(n_rows - done) : BATCH_ROWS;
        for (size_t i = 0; i < n; i++) {
            keys[i] = done + (int64_t)i;
            for (size_t d = 0; d < DIMENSION; d++)
                values[i][d] = (unsigned char)((hash = hash * 1664525u + 1013904223u) >> 24);
        }
        vecdb_vector_column column = {.values = values};
        vecdb_batch batch = {.size = sizeof batch, .n_rows = n, .integer_keys = keys, .vectors = &column};
        batch.n_vectors = 1;
        batch.insert = 1;
        must(vecdb_write(collection, &batch, &err), &err, "write");
    }
    vecdb_close(db);
    printf("made in %.0f s\n", (now_ms() - start) * 1e-3);
}

/* Ask the kernel to forget the pages of all files. */
static void forget_files(const char *path)
{
    DIR *directory = opendir(path);
    char file[2048];
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
        int fd = open(file, O_RDONLY);
        if (fd >= 0) {
            fdatasync(fd);
            posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
            close(fd);
        }
    }
    if (directory)
        closedir(directory);
}

static double resident_mib(void)
{
    long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file && fscanf(file, "%ld %ld", &pages, &resident) != 2)
        resident = 0;
    if (file)
        fclose(file);
    return (double)resident * (double)sysconf(_SC_PAGESIZE) / 1048576;
}

static void measure(const char *path, int64_t n_rows, const char *what)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_options options = {.size = sizeof options, .mode = VECDB_OPEN_EXISTING};
    vecdb_stats stats = {.size = sizeof stats};
    vecdb_key key = vecdb_key_int(n_rows / 2);
    vecdb_collection *collection;
    vecdb_results *results;
    vecdb *db;
    float vector[DIMENSION] = {1, 2, 3, 4, 5, 6, 7, 8};
    double at[6] = {now_ms()};
    must(vecdb_open(path, &options, &db, &err), &err, "open");
    must(vecdb_collection_open(db, "rows", &collection, &err), &err, "open the collection");
    at[1] = now_ms();
    must(vecdb_get(collection, &key, 1, 0, &results, &err), &err, "get");
    vecdb_results_free(results);
    at[2] = now_ms();
    vecdb_query query = {.size = sizeof query, .vector = vector, .dimension = DIMENSION, .k = 10};
    for (int i = 3; i < 5; i++) {
        must(vecdb_search(collection, &query, &results, &err), &err, "search");
        vecdb_results_free(results);
        at[i] = now_ms();
    }
    must(vecdb_database_stats(db, &stats, &err), &err, "stats");
    printf("%-6s %8.1f %10.1f %13.1f %13.1f %13.1f %13.1f\n", what, at[1] - at[0], at[2] - at[1], at[3] - at[2],
           at[4] - at[3], (double)stats.memory_bytes / 1048576, resident_mib());
    vecdb_close(db);
}

int main(int argc, char **argv)
{
    char path[1024];
    if (argc < 2) {
        fprintf(stderr, "usage: bench_open DIRECTORY [ROWS]\n");
        return 2;
    }
    int64_t n_rows = argc > 2 ? atoll(argv[2]) : 10000000;
    snprintf(path, sizeof path, "%s/large.vecdb", argv[1]);
    make_database(path, n_rows);
    printf("%-6s %8s %10s %13s %13s %13s %13s\n", "files", "open ms", "get ms", "search ms", "again ms", "held MiB",
           "resident MiB");
    forget_files(path);
    measure(path, n_rows, "cold");
    measure(path, n_rows, "warm");
    return 0;
}
