/* SPDX-License-Identifier: Apache-2.0
 *
 * bench/bench_commit.c - what the checked catalog costs against plain SQLite
 *
 * Commits of one row and of 1,000 rows, look-ups by key, opens: the same statements through a plain
 * connection (WAL, synchronous=FULL, automatic checkpoints at 2,000 frames) and through ours. The two take
 * turns, round by round; the table shows medians.
 *
 *     bench_commit DIRECTORY [ROUNDS]        an empty directory on the disk to be measured
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/threads.h"
#include "storage/connection.h"

#define SCHEMA "CREATE TABLE records(id INTEGER PRIMARY KEY, value TEXT)"
#define MOST_ROUNDS 101
#define SMALL_COMMITS 300
#define LARGE_ROWS 1000
#define LOOKUPS 20000

static struct vdb_memory memory;
static int64_t next_id[2];

static void must(int failed, const char *what, const char *why)
{
    if (failed) {
        fprintf(stderr, "bench_commit: %s: %s\n", what, why);
        exit(1);
    }
}

static void insert_rows(sqlite3 *sqlite, int64_t *next, int n)
{
    static const char text[] = "a value of about the length that a short passage's title has, give or take some";
    sqlite3_stmt *statement;
    must(sqlite3_prepare_v2(sqlite, "INSERT INTO records VALUES (?1, ?2)", -1, &statement, NULL), "insert",
         sqlite3_errmsg(sqlite));
    for (int i = 0; i < n; i++) {
        sqlite3_bind_int64(statement, 1, ++*next);
        sqlite3_bind_text(statement, 2, text, sizeof text - 1, SQLITE_STATIC);
        must(sqlite3_step(statement) != SQLITE_DONE, "insert", sqlite3_errmsg(sqlite));
        sqlite3_reset(statement);
    }
    sqlite3_finalize(statement);
}

static void look_up(sqlite3 *sqlite, int64_t n_rows)
{
    sqlite3_stmt *statement;
    must(sqlite3_prepare_v2(sqlite, "SELECT value FROM records WHERE id = ?1", -1, &statement, NULL), "select",
         sqlite3_errmsg(sqlite));
    for (int64_t i = 0; i < LOOKUPS; i++) {
        sqlite3_bind_int64(statement, 1, i * 7919 % n_rows + 1);
        must(sqlite3_step(statement) != SQLITE_ROW, "select", sqlite3_errmsg(sqlite));
        sqlite3_reset(statement);
    }
    sqlite3_finalize(statement);
}

/* ---- plain SQLite */

static char plain_path[1024], our_directory[1024];

static sqlite3 *plain_open(void)
{
    sqlite3 *sqlite;
    must(sqlite3_open(plain_path, &sqlite), "open", plain_path);
    must(
        sqlite3_exec(sqlite,
                     "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=2000; "
                     "PRAGMA secure_delete=OFF; CREATE TABLE IF NOT EXISTS records(id INTEGER PRIMARY KEY, value TEXT)",
                     NULL, NULL, NULL),
        "set up", sqlite3_errmsg(sqlite));
    return sqlite;
}

static void plain_commits(sqlite3 *sqlite, int n_commits, int n_rows)
{
    for (int i = 0; i < n_commits; i++) {
        must(sqlite3_exec(sqlite, "BEGIN IMMEDIATE", NULL, NULL, NULL), "begin", sqlite3_errmsg(sqlite));
        insert_rows(sqlite, &next_id[0], n_rows);
        must(sqlite3_exec(sqlite, "COMMIT", NULL, NULL, NULL), "commit", sqlite3_errmsg(sqlite));
    }
}

/* ---- the catalog */

static struct vdb_catalog *our_open(void)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_catalog *catalog = NULL;
    struct vdb_catalog_options options = {.memory = &memory,
                                          .directory = our_directory,
                                          .create = true,
                                          .durable = true,
                                          .busy_timeout_ms = 5000,
                                          .schema = SCHEMA};
    must(vdb_catalog_open(&options, &catalog, &err), "open", err.message);
    return catalog;
}

static void our_commits(struct vdb_catalog *catalog, int n_commits, int n_rows)
{
    vecdb_error err = VECDB_ERROR_INIT;
    for (int i = 0; i < n_commits; i++) {
        struct vdb_connection *connection;
        uint64_t sequence;
        must(vdb_write_begin(catalog, &connection, &sequence, &err), "begin", err.message);
        insert_rows(connection->sqlite, &next_id[1], n_rows);
        must(vdb_write_commit(connection, &err), "commit", err.message);
    }
}

/* ---- the table */

enum { SMALL, LARGE, LOOKUP, OPEN, N_MEASURES };

static double seconds[N_MEASURES][2][MOST_ROUNDS];

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, compare);
    return values[n / 2];
}

static double since(uint64_t start_ns)
{
    return (double)(vdb_now_ns() - start_ns) * 1e-9;
}

static void plain_round(int round)
{
    uint64_t start = vdb_now_ns();
    sqlite3 *sqlite = plain_open();
    seconds[OPEN][0][round] = since(start);
    start = vdb_now_ns();
    plain_commits(sqlite, SMALL_COMMITS, 1);
    seconds[SMALL][0][round] = since(start) / SMALL_COMMITS;
    start = vdb_now_ns();
    plain_commits(sqlite, 3, LARGE_ROWS);
    seconds[LARGE][0][round] = since(start) / 3;
    must(sqlite3_exec(sqlite, "BEGIN", NULL, NULL, NULL), "begin", "");
    start = vdb_now_ns();
    look_up(sqlite, next_id[0]);
    seconds[LOOKUP][0][round] = since(start) / LOOKUPS;
    must(sqlite3_exec(sqlite, "COMMIT", NULL, NULL, NULL), "commit", "");
    sqlite3_close(sqlite);
}

static void our_round(int round)
{
    vecdb_error err = VECDB_ERROR_INIT;
    uint64_t start = vdb_now_ns(), sequence;
    struct vdb_connection *reader;
    struct vdb_catalog *catalog = our_open();
    seconds[OPEN][1][round] = since(start);
    start = vdb_now_ns();
    our_commits(catalog, SMALL_COMMITS, 1);
    seconds[SMALL][1][round] = since(start) / SMALL_COMMITS;
    start = vdb_now_ns();
    our_commits(catalog, 3, LARGE_ROWS);
    seconds[LARGE][1][round] = since(start) / 3;
    must(vdb_read_begin(catalog, &reader, &sequence, &err), "begin", err.message);
    start = vdb_now_ns();
    look_up(reader->sqlite, next_id[1]);
    seconds[LOOKUP][1][round] = since(start) / LOOKUPS;
    vdb_read_end(reader);
    vdb_catalog_close(catalog);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: bench_commit DIRECTORY [ROUNDS]\n");
        return 2;
    }
    int n_rounds = argc > 2 ? atoi(argv[2]) : 15;
    n_rounds = n_rounds < 1 ? 1 : n_rounds > MOST_ROUNDS ? MOST_ROUNDS : n_rounds;
    vdb_memory_init(&memory, NULL);
    snprintf(plain_path, sizeof plain_path, "%s/plain.sqlite", argv[1]);
    snprintf(our_directory, sizeof our_directory, "%s/checked", argv[1]);
    mkdir(our_directory, 0777);
    for (int round = 0; round < n_rounds; round++) {
        plain_round(round);
        our_round(round);
    }
    static const struct {
        const char *name;
        double scale;
        const char *unit;
    } rows[N_MEASURES] = {{"commit of 1 row", 1e6, "us"},
                          {"commit of 1,000 rows", 1e6, "us"},
                          {"look-up", 1e6, "us"},
                          {"open", 1e6, "us"}};
    printf("%-22s %12s %12s %8s\n", "", "plain SQLite", "checked", "ratio");
    for (int i = 0; i < N_MEASURES; i++) {
        double plain = median(seconds[i][0], n_rounds), ours = median(seconds[i][1], n_rounds);
        printf("%-22s %9.2f %s %9.2f %s %8.2f\n", rows[i].name, plain * rows[i].scale, rows[i].unit,
               ours * rows[i].scale, rows[i].unit, ours / plain);
    }
    return 0;
}
