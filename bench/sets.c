/* SPDX-License-Identifier: Apache-2.0
 *
 * bench/sets.c - real vectors, and databases of them (see sets.h)
 */
#include "sets.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct kind {
    const char *name, *base, *queries;
    int type, metric;
};

static const struct kind kinds[BENCH_SETS] = {
    {"mnist", "base.u8bin", "query.u8bin", VECDB_U8, VECDB_L2},
    {"docs", "base.f16bin", "query.f16bin", VECDB_F16, VECDB_COSINE},
    {"sift200k", "base.u8bin", "query.u8bin", VECDB_U8, VECDB_L2},
    {"glove", "base.f16bin", "query.f16bin", VECDB_F16, VECDB_COSINE},
};
const char *const bench_set_names[BENCH_SETS] = {"mnist", "docs", "sift200k", "glove"};

void bench_die(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

void bench_must(int status, const vecdb_error *err, const char *what)
{
    if (status != VECDB_OK)
        bench_die(what, err->message);
}

void *bench_alloc(size_t n_bytes)
{
    void *memory = calloc(1, n_bytes ? n_bytes : 1);
    if (!memory)
        bench_die("memory", "there is not enough");
    return memory;
}

/* ------------------------------------------------------------------ sets */

static unsigned char *read_rows(const char *folder, const char *name, const char *file, int type, uint32_t *n,
                                uint32_t *dimension)
{
    char path[1024];
    uint32_t header[2];
    snprintf(path, sizeof path, "%s/%s/%s", folder, name, file);
    FILE *stream = fopen(path, "rb");
    if (!stream || fread(header, 4, 2, stream) != 2)
        bench_die(path, "cannot be read");
    size_t n_bytes = (size_t)header[0] * header[1] * (type == VECDB_U8 ? 1 : 2);
    unsigned char *rows = bench_alloc(n_bytes);
    if (fread(rows, 1, n_bytes, stream) != n_bytes)
        bench_die(path, "is shorter than its header says");
    fclose(stream);
    *n = header[0];
    *dimension = header[1];
    return rows;
}

void bench_set_load(const char *folder, const char *name, struct bench_set *set)
{
    const struct kind *kind = NULL;
    uint32_t dimension;
    if (!folder)
        folder = getenv("VECDB_DATA");
    for (size_t i = 0; i < BENCH_SETS; i++)
        if (!strcmp(kinds[i].name, name))
            kind = &kinds[i];
    if (!kind)
        bench_die(name, "is no set; there are mnist, docs, sift200k and glove");
    *set = (struct bench_set){.name = kind->name, .type = kind->type, .metric = kind->metric};
    folder = folder ? folder : "../shared/data";
    set->rows = read_rows(folder, name, kind->base, kind->type, &set->n_rows, &set->dimension);
    set->queries = read_rows(folder, name, kind->queries, kind->type, &set->n_queries, &dimension);
    if (dimension != set->dimension)
        bench_die(name, "its queries have another dimension");
    set->row_bytes = (size_t)set->dimension * (kind->type == VECDB_U8 ? 1 : 2);
}

void bench_set_release(struct bench_set *set)
{
    free(set->rows);
    free(set->queries);
}

/* ------------------------------------------------------------------ databases */

void bench_database_make(const char *path, const struct bench_set *set, int index, vecdb **db,
                         vecdb_collection **collection)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_options options = {.size = sizeof options, .mode = VECDB_OPEN_NEW};
    vecdb_field field = {
        .name = "vector", .dimension = set->dimension, .type = VECDB_F32, .metric = set->metric, .index = index};
    bench_must(vecdb_open(path, &options, db, &err), &err, "open");
    bench_must(vecdb_collection_create(*db, "set", &field, 1, VECDB_MUST_BE_NEW, collection, &err), &err, "create");
}

void bench_put(vecdb_collection *collection, const struct bench_set *set, const int64_t *keys, const uint32_t *rows,
               uint32_t first, uint32_t n, uint32_t batch_rows)
{
    unsigned char *values = bench_alloc((size_t)batch_rows * set->row_bytes);
    int64_t *own_keys = bench_alloc(batch_rows * sizeof *own_keys);
    for (uint32_t done = 0; done < n; done += batch_rows) {
        vecdb_error err = VECDB_ERROR_INIT;
        uint32_t n_rows = n - done < batch_rows ? n - done : batch_rows;
        for (uint32_t i = 0; i < n_rows; i++) {
            uint32_t row = rows ? rows[first + done + i] : first + done + i;
            memcpy(values + i * set->row_bytes, set->rows + row * set->row_bytes, set->row_bytes);
            own_keys[i] = keys ? keys[first + done + i] : (int64_t)row;
        }
        vecdb_vector_column column = {.values = values, .dimension = set->dimension, .type = set->type};
        vecdb_batch batch = {
            .size = sizeof batch, .n_rows = n_rows, .integer_keys = own_keys, .vectors = &column, .n_vectors = 1};
        bench_must(vecdb_write(collection, &batch, &err), &err, "write");
    }
    free(values);
    free(own_keys);
}

vecdb_query bench_query(const struct bench_set *set, uint32_t k)
{
    return (vecdb_query){.size = sizeof(vecdb_query),
                         .dimension = set->dimension,
                         .type = set->type,
                         .k = k,
                         .columns = VECDB_KEYS_ONLY,
                         .threads = 1};
}

/* ------------------------------------------------------------------ numbers */

double bench_seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int compare_doubles(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

void bench_sort(double *values, size_t n)
{
    qsort(values, n, sizeof *values, compare_doubles);
}

double bench_median(double *values, size_t n)
{
    bench_sort(values, n);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

double bench_percentile(double *values, size_t n, double share)
{
    size_t i = (size_t)((double)n * share);
    return n ? values[i < n ? i : n - 1] : 0;
}

uint64_t bench_random(uint64_t *state)
{
    uint64_t x = *state; /* xorshift64 (Marsaglia 2003) */
    x ^= x << 13;
    x ^= x >> 7;
    return *state = x ^= x << 17;
}

void bench_shuffle(uint32_t *numbers, size_t n, uint64_t *state)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = bench_random(state) % i;
        uint32_t number = numbers[i - 1];
        numbers[i - 1] = numbers[j];
        numbers[j] = number;
    }
}

/* ------------------------------------------------------------------ directories */

char *bench_directory_make(void)
{
    const char *parent = getenv("TMPDIR");
    char *path = bench_alloc(1024);
    snprintf(path, 1024, "%s/vecdb-bench-XXXXXX", parent ? parent : "/tmp");
    if (!mkdtemp(path))
        bench_die(path, "cannot be made");
    return path;
}

static uint64_t walk_directory(const char *path, bool removes)
{
    uint64_t n_bytes = 0;
    DIR *directory = opendir(path);
    if (!directory)
        return 0;
    for (struct dirent *entry; (entry = readdir(directory));) {
        char name[2048];
        struct stat about;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        if (lstat(name, &about))
            continue;
        if (S_ISDIR(about.st_mode))
            n_bytes += walk_directory(name, removes);
        else
            n_bytes += (uint64_t)about.st_size;
        if (removes)
            remove(name);
    }
    closedir(directory);
    return n_bytes;
}

void bench_directory_remove(const char *path)
{
    walk_directory(path, true);
    remove(path);
}

uint64_t bench_directory_bytes(const char *path)
{
    return walk_directory(path, false);
}
