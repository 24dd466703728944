/* SPDX-License-Identifier: Apache-2.0
 *
 * bench/sets.h - real vectors, and databases of them, for benchmarks that see the public API alone
 *
 * The folder of the sets is an argument, $VECDB_DATA or ../shared/data. Whatever fails ends the program with a
 * sentence.
 */
#ifndef VDB_BENCH_SETS_H
#define VDB_BENCH_SETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "vecdb.h"

struct bench_set {
    const char *name;
    uint32_t n_rows, n_queries, dimension;
    int type, metric; /* of the values as they are in the files; fields are f32 */
    size_t row_bytes;
    unsigned char *rows, *queries;
};

#define BENCH_SETS 4
extern const char *const bench_set_names[BENCH_SETS];

void bench_die(const char *what, const char *why);
void bench_must(int status, const vecdb_error *err, const char *what);
void *bench_alloc(size_t n_bytes); /* zeroed */

/* `folder` NULL: as said above. */
void bench_set_load(const char *folder, const char *name, struct bench_set *set);
void bench_set_release(struct bench_set *set);

/* A new database in `path` with one empty collection, "set", whose field has the set's dimension and metric. */
void bench_database_make(const char *path, const struct bench_set *set, int index, vecdb **db,
                         vecdb_collection **collection);

/* Put rows[first .. first + n - 1] of the set (rows NULL: those numbers themselves) in batches of `batch`; the key of
 * each is its number, or (keys not NULL) keys[the same place]. */
void bench_put(vecdb_collection *collection, const struct bench_set *set, const int64_t *keys, const uint32_t *rows,
               uint32_t first, uint32_t n, uint32_t batch);

/* A query for the nearest k, keys only, one thread; `vector` is to be filled in. */
vecdb_query bench_query(const struct bench_set *set, uint32_t k);

double bench_seconds(clockid_t clock);
double bench_median(double *values, size_t n);              /* sorts them */
double bench_percentile(double *values, size_t n, double share); /* of sorted ones */
void bench_sort(double *values, size_t n);

/* A directory of one's own below $TMPDIR or /tmp; remove it with all that is in it. */
char *bench_directory_make(void);
void bench_directory_remove(const char *path);
uint64_t bench_directory_bytes(const char *path);

uint64_t bench_random(uint64_t *state);
void bench_shuffle(uint32_t *numbers, size_t n, uint64_t *state);

#endif
