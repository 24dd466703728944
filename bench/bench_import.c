/* SPDX-License-Identifier: Apache-2.0
 *
 * bench/bench_import.c - import speed, beside what it cannot beat
 *
 * The yardstick is a plain SQLite program that stores the same keys and metadata in batches of the same
 * size (WAL, synchronous=FULL, a table of key and metadata with the key unique), and beside it appends
 * the same bytes of vectors to a file and syncs it, before each commit. libvecdb does that and also:
 * checks values and metadata, makes pages with checksums, stamps and verifies the catalog's pages.
 *
 *     bench_import [FILE.f16bin|.u8bin] [--records FILE.jsonl] [--batch N] [--rounds N] [--rows N] [--dir DIR]
 *                  [--only plain|none|auto|max]        one of them, once, for a profiler
 *
 * Without a file: random f32 vectors of 384 dimensions. Vectors are given to both sides as f32.
 * Rounds are interleaved; the table shows medians of rows per second and of the ratio, round by round.
 */
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "vecdb.h"

#define MAX_ROUNDS 64

struct data {
    size_t n;
    uint32_t d;
    float *vectors;
    char **metadata; /* NULL: none */
};

struct setup {
    const char *file, *records, *directory, *only;
    size_t batch, rows;
    int rounds;
};

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench_import: %s: %s\n", what, why);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ------------------------------------------------------------------ data */

static float half(uint16_t bits)
{
    _Float16 value;
    memcpy(&value, &bits, 2);
    return (float)value;
}

static void read_vectors(struct data *data, const struct setup *setup)
{
    FILE *file = fopen(setup->file, "rb");
    uint32_t head[2];
    if (!file || fread(head, 4, 2, file) != 2)
        die(setup->file, "cannot be read");
    bool is_half = strstr(setup->file, ".f16bin") != NULL;
    data->n = setup->rows && setup->rows < head[0] ? setup->rows : head[0];
    data->d = head[1];
    size_t size = is_half ? 2 : 1;
    data->vectors = malloc(data->n * data->d * sizeof(float));
    unsigned char *row = malloc(data->d * size);
    if (!data->vectors || !row)
        die("memory", "there is not enough");
    for (size_t i = 0; i < data->n; i++) {
        if (fread(row, size, data->d, file) != data->d)
            die(setup->file, "is truncated");
        for (uint32_t j = 0; j < data->d; j++) {
            uint16_t bits;
            memcpy(&bits, row + j * size, size);
            data->vectors[i * data->d + j] = is_half ? half(bits) : row[j];
        }
    }
    free(row);
    fclose(file);
}

static void make_vectors(struct data *data, const struct setup *setup)
{
    data->n = setup->rows ? setup->rows : 100000;
    data->d = 384;
    data->vectors = malloc(data->n * data->d * sizeof(float));
    if (!data->vectors)
        die("memory", "there is not enough");
    uint64_t state = 1;
    for (size_t i = 0; i < data->n * data->d; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        data->vectors[i] = (float)(int64_t)(state >> 11) * 0x1p-53f - 0.5f;
    }
}

static void read_records(struct data *data, const char *path)
{
    FILE *file = fopen(path, "r");
    char *line = NULL;
    size_t room = 0;
    data->metadata = calloc(data->n, sizeof(char *));
    if (!file || !data->metadata)
        die(path, "cannot be read");
    for (size_t i = 0; i < data->n; i++) {
        ssize_t length = getline(&line, &room, file);
        if (length < 1)
            die(path, "has fewer lines than there are vectors");
        line[strcspn(line, "\n")] = '\0';
        data->metadata[i] = strdup(line);
    }
    free(line);
    fclose(file);
}

/* ------------------------------------------------------------------ the yardstick */

static void check_sqlite(int rc, sqlite3 *db)
{
    if (rc != SQLITE_OK && rc != SQLITE_DONE && rc != SQLITE_ROW)
        die("sqlite", sqlite3_errmsg(db));
}

static void append(int fd, const char *bytes, size_t n_bytes)
{
    while (n_bytes) {
        ssize_t n = write(fd, bytes, n_bytes);
        if (n < 0 && errno != EINTR)
            die("write", strerror(errno));
        bytes += n > 0 ? n : 0;
        n_bytes -= n > 0 ? (size_t)n : 0;
    }
    if (fdatasync(fd))
        die("fdatasync", strerror(errno));
}

static double run_plain(const struct data *data, const struct setup *setup, const char *directory)
{
    char path[512];
    sqlite3 *db;
    sqlite3_stmt *insert;
    snprintf(path, sizeof path, "%s/plain.sqlite", directory);
    double start = now();
    check_sqlite(sqlite3_open(path, &db), db);
    check_sqlite(sqlite3_exec(db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                              "CREATE TABLE records(id INTEGER PRIMARY KEY, key NOT NULL UNIQUE, metadata TEXT)",
                              NULL, NULL, NULL), db);
    check_sqlite(sqlite3_prepare_v2(db, "INSERT INTO records(key, metadata) VALUES(?1, ?2)", -1, &insert, NULL), db);
    snprintf(path, sizeof path, "%s/plain.vectors", directory);
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0666);
    if (fd < 0)
        die(path, strerror(errno));
    for (size_t first = 0; first < data->n; first += setup->batch) {
        size_t n = data->n - first < setup->batch ? data->n - first : setup->batch;
        append(fd, (const char *)(data->vectors + first * data->d), n * data->d * sizeof(float));
        check_sqlite(sqlite3_exec(db, "BEGIN", NULL, NULL, NULL), db);
        for (size_t i = first; i < first + n; i++) {
            sqlite3_bind_int64(insert, 1, (sqlite3_int64)i);
            if (data->metadata)
                sqlite3_bind_text(insert, 2, data->metadata[i], -1, SQLITE_STATIC);
            check_sqlite(sqlite3_step(insert), db);
            sqlite3_reset(insert);
        }
        check_sqlite(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL), db);
    }
    sqlite3_finalize(insert);
    close(fd);
    double elapsed = now() - start;
    sqlite3_close(db);
    return elapsed;
}

/* ------------------------------------------------------------------ libvecdb */

static double run_vecdb(const struct data *data, const struct setup *setup, const char *directory, int compression)
{
    char path[512];
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db;
    vecdb_collection *collection;
    snprintf(path, sizeof path, "%s/bench.vecdb", directory);
    int64_t *keys = malloc(setup->batch * sizeof *keys);
    double start = now();
    vecdb_field field = {.name = "vector", .dimension = data->d, .metric = VECDB_L2, .compression = compression};
    if (vecdb_open(path, NULL, &db, &err) ||
        vecdb_collection_create(db, "bench", &field, 1, VECDB_MUST_BE_NEW, &collection, &err))
        die("vecdb", err.message);
    for (size_t first = 0; first < data->n; first += setup->batch) {
        size_t n = data->n - first < setup->batch ? data->n - first : setup->batch;
        for (size_t i = 0; i < n; i++)
            keys[i] = (int64_t)(first + i);
        vecdb_vector_column column = {.values = data->vectors + first * data->d, .type = VECDB_F32};
        vecdb_batch batch = {.size = sizeof batch,
                             .n_rows = n,
                             .integer_keys = keys,
                             .vectors = &column,
                             .n_vectors = 1,
                             .metadata = data->metadata ? (const char *const *)data->metadata + first : NULL,
                             .insert = 1};
        if (vecdb_write(collection, &batch, &err))
            die("vecdb", err.message);
    }
    double elapsed = now() - start;
    vecdb_close(db);
    free(keys);
    return elapsed;
}

/* ------------------------------------------------------------------ rounds */

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return left < right ? -1 : left > right;
}

static double median(const double *values, int n)
{
    double sorted[MAX_ROUNDS];
    memcpy(sorted, values, (size_t)n * sizeof *values);
    qsort(sorted, (size_t)n, sizeof *sorted, compare);
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

static void empty(const char *directory)
{
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s' && mkdir -p '%s'", directory, directory);
    if (system(command))
        die(directory, "cannot be emptied");
}

static void run_only(const struct data *data, const struct setup *setup)
{
    empty(setup->directory);
    double elapsed = !strcmp(setup->only, "plain") ? run_plain(data, setup, setup->directory)
                                                   : run_vecdb(data, setup, setup->directory,
                                                               !strcmp(setup->only, "none")   ? VECDB_COMPRESSION_NONE
                                                               : !strcmp(setup->only, "auto") ? VECDB_COMPRESSION_AUTO
                                                                                              : VECDB_COMPRESSION_MAX);
    printf("%s: %.3f s\n", setup->only, elapsed);
}

static void run(const struct data *data, const struct setup *setup)
{
    static const char *const names[3] = {"none", "auto", "max"};
    static const int compressions[3] = {VECDB_COMPRESSION_NONE, VECDB_COMPRESSION_AUTO, VECDB_COMPRESSION_MAX};
    double plain[MAX_ROUNDS], ours[3][MAX_ROUNDS], ratios[3][MAX_ROUNDS];
    for (int round = -1; round < setup->rounds; round++) { /* the first warms up */
        int at = round < 0 ? 0 : round;
        empty(setup->directory);
        plain[at] = run_plain(data, setup, setup->directory);
        for (int c = 0; c < 3; c++) {
            empty(setup->directory);
            ours[c][at] = run_vecdb(data, setup, setup->directory, compressions[c]);
            ratios[c][at] = plain[at] / ours[c][at];
        }
    }
    empty(setup->directory);
    rmdir(setup->directory);
    double rows = (double)data->n;
    printf("%zu rows x %u f32, batches of %zu, %s metadata, %d rounds, medians\n", data->n, data->d, setup->batch,
           data->metadata ? "with" : "no", setup->rounds);
    printf("%-34s %12s %18s\n", "", "rows/s", "ratio to plain");
    printf("%-34s %12.0f %18s\n", "plain SQLite + write + fsync", rows / median(plain, setup->rounds), "1.00");
    for (int c = 0; c < 3; c++)
        printf("libvecdb, compression %-12s %12.0f %18.2f\n", names[c], rows / median(ours[c], setup->rounds),
               median(ratios[c], setup->rounds));
}

int main(int argc, char **argv)
{
    struct setup setup = {.batch = 1000, .rounds = 5, .directory = "build/bench-import"};
    for (int i = 1; i < argc; i++) {
        bool has_value = i + 1 < argc;
        if (!strcmp(argv[i], "--records") && has_value)
            setup.records = argv[++i];
        else if (!strcmp(argv[i], "--batch") && has_value)
            setup.batch = strtoull(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--rounds") && has_value)
            setup.rounds = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--rows") && has_value)
            setup.rows = strtoull(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--only") && has_value)
            setup.only = argv[++i];
        else if (!strcmp(argv[i], "--dir") && has_value)
            setup.directory = argv[++i];
        else
            setup.file = argv[i];
    }
    if (setup.rounds < 1 || setup.rounds > MAX_ROUNDS || !setup.batch)
        die("arguments", "--rounds takes 1 to 64, --batch 1 or more");
    struct data data = {.metadata = NULL};
    if (setup.file)
        read_vectors(&data, &setup);
    else
        make_vectors(&data, &setup);
    if (setup.records)
        read_records(&data, setup.records);
    if (setup.only)
        run_only(&data, &setup);
    else
        run(&data, &setup);
    return 0;
}
