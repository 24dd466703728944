/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/connection.c - transactions: reading ones from a pool, writing ones behind the gate (see connection.h)
 *
 *     reader    durable number of `state`  ->  BEGIN, SELECT sequence  ->  not below?  ->  the caller's reads
 *     writer    gate  ->  BEGIN IMMEDIATE, SELECT sequence  ->  the caller's statements
 *                     ->  UPDATE sequence, COMMIT  ->  raise `state`  ->  checkpoint?  ->  open the gate
 *
 * Invariants
 *   1. Whoever uses the writing connection, or checkpoints, holds the gate.
 *   2. `state` is loaded before the snapshot begins, and raised after the commit is done. So a snapshot
 *      is never below a number that was loaded before it, unless commits were lost.
 *   3. A connection on which I/O failed is not used for another transaction. Its successor is opened
 *      before it is closed: a connection that finds itself the only one rebuilds the WAL's index from
 *      the file, and would find the frames of a commit whose fsync failed, which we reported as failed.
 *      With the index kept, the next commit writes over them.
 *   4. No checkpoint but ours: automatic ones are PASSIVE, which SQLite 3.7.0 to 3.51.2 can lose commits
 *      by, and a close does not checkpoint. Ours are inside the gate: RESTART while writing goes on, so
 *      that the next commits write over blocks that the WAL has (a file that grows has its size
 *      and its blocks synced with every commit, which made a commit cost twice as much). TRUNCATE when
 *      a long reader has made the WAL large, and at the end of a compaction and of the database's use.
 *
 * Costs: a read transaction 5 us (BEGIN, one look-up, COMMIT), a commit one fsync of the WAL.
 */
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "base/error.h"
#include "base/threads.h"
#include "connection_parts.h"

#define MOST_IDLE 16           /* a process rarely has more searching threads; each holds up to 2 MiB of pages */
#define CHECKPOINT_FRAMES 2000 /* about 8 MiB of WAL: CATALOG.md, section 5 */
#define LARGE_WAL_FRAMES (2 * CHECKPOINT_FRAMES)
#define CHECKPOINT_BUSY_MS 50 /* waiting 5 s for a reader stalled every writer for 5 s */
#define RECOVERY_PAUSE_NS 2000000 /* a recovery reads the WAL once: milliseconds */
#define CHECKPOINT_AGAIN 500  /* frames until the next attempt when a reader was in the way */

void vdb_catalog_tell(struct vdb_catalog *catalog, int level, const char *format, ...)
{
    if (!catalog->log)
        return;
    char message[512];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    catalog->log(catalog->log_context, level, message);
}

struct vdb_state *vdb_catalog_state(struct vdb_catalog *catalog)
{
    return catalog->state;
}

bool vdb_catalog_is_readonly(const struct vdb_catalog *catalog)
{
    return catalog->readonly;
}

const unsigned char *vdb_catalog_uuid(const struct vdb_catalog *catalog)
{
    return catalog->uuid;
}

/* Run a statement that has no result. */
static int run(struct vdb_connection *connection, int kind, const char *sql, const char *what, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int rc = vdb_prepare(connection, kind, sql, 0, &statement, err);
    if (rc)
        return rc;
    sqlite3_step(statement);
    /* The error has to be read before reset makes the connection's error that of the reset. */
    if (sqlite3_errcode(connection->sqlite) != SQLITE_DONE)
        rc = vdb_fail_sqlite(err, connection, what);
    sqlite3_reset(statement);
    return rc;
}

/* End whatever transaction is open. False: the connection is of no use any more. */
static bool roll_back(struct vdb_connection *connection)
{
    vdb_statements_reset(connection->statements);
    if (!sqlite3_get_autocommit(connection->sqlite))
        run(connection, VDB_STATEMENT_ROLLBACK, "ROLLBACK", "cannot roll back", NULL);
    return sqlite3_get_autocommit(connection->sqlite);
}

int vdb_connection_sequence(struct vdb_connection *connection, uint64_t *sequence, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int rc = vdb_prepare(connection, VDB_STATEMENT_SEQUENCE, "SELECT sequence FROM database WHERE id = 1", 0,
                         &statement, err);
    if (rc)
        return rc;
    int step = sqlite3_step(statement);
    if (step == SQLITE_ROW)
        *sequence = (uint64_t)sqlite3_column_int64(statement, 0);
    else if (step == SQLITE_DONE)
        rc = vdb_fail(err, VECDB_CORRUPT, "catalog.sqlite has no row in its table `database`");
    else
        rc = vdb_fail_sqlite(err, connection, "cannot read the sequence number");
    sqlite3_reset(statement);
    return rc;
}

static int check_not_lost(uint64_t sequence, uint64_t durable, vecdb_error *err)
{
    if (sequence >= durable)
        return VECDB_OK;
    return vdb_fail(
        err, VECDB_CORRUPT,
        "catalog.sqlite has lost its last commits: it is at %llu, state says %llu; restore the database from a "
        "backup (state included)",
        (unsigned long long)sequence, (unsigned long long)durable);
}

/* ---- reading */

static struct vdb_connection *take_idle(struct vdb_catalog *catalog)
{
    pthread_mutex_lock(&catalog->mutex);
    struct vdb_connection *connection = catalog->idle;
    if (connection) {
        catalog->idle = connection->next;
        catalog->n_idle--;
    }
    pthread_mutex_unlock(&catalog->mutex);
    return connection;
}

static void give_back(struct vdb_connection *connection, bool usable)
{
    struct vdb_catalog *catalog = connection->catalog;
    if (connection->still)
        vdb_state_release_still(catalog->state);
    connection->still = false;
    pthread_mutex_lock(&catalog->mutex);
    bool keep = usable && catalog->n_idle < MOST_IDLE && connection->immutable == catalog->immutable;
    if (keep) {
        connection->next = catalog->idle;
        catalog->idle = connection;
        catalog->n_idle++;
    }
    pthread_mutex_unlock(&catalog->mutex);
    if (!keep)
        vdb_connection_close(connection);
}

static int begin_reading(struct vdb_connection *connection, uint64_t durable, uint64_t *sequence, vecdb_error *err)
{
    uint64_t found;
    int rc = run(connection, VDB_STATEMENT_BEGIN, "BEGIN", "cannot begin a read transaction", err);
    if (!rc)
        rc = vdb_connection_sequence(connection, &found, err);
    if (!rc)
        rc = check_not_lost(found, durable, err);
    if (!rc)
        *sequence = found;
    return rc;
}

/* A connection that may not write finds the WAL's index in the making: whoever may write is about to
 * finish it. (`is_passing`.) */
static int try_reading(struct vdb_catalog *catalog, struct vdb_connection **out, uint64_t *sequence, bool *is_passing,
                       vecdb_error *err)
{
    uint64_t durable; /* asked for first: a reader without locks sees what there was when it looked for a writer */
    int rc = vdb_state_durable(catalog->state, &durable, err);
    if (rc)
        return rc;
    bool still = vdb_catalog_hold_still(catalog);
    struct vdb_connection *connection = take_idle(catalog);
    rc = connection ? VECDB_OK : vdb_connection_open(catalog, false, &connection, err);
    if (rc) {
        if (still)
            vdb_state_release_still(catalog->state);
        return rc;
    }
    connection->still = still;
    rc = begin_reading(connection, durable, sequence, err);
    if (rc) {
        int code = sqlite3_extended_errcode(connection->sqlite);
        *is_passing = code == SQLITE_READONLY_RECOVERY || code == SQLITE_READONLY_CANTINIT;
        roll_back(connection);
        give_back(connection, false);
        return rc;
    }
    *out = connection;
    return VECDB_OK;
}

int vdb_read_begin(struct vdb_catalog *catalog, struct vdb_connection **out, uint64_t *sequence, vecdb_error *err)
{
    uint64_t deadline = 0;
    for (;;) {
        vecdb_error own = VECDB_ERROR_INIT;
        bool is_passing = false;
        int rc = try_reading(catalog, out, sequence, &is_passing, &own);
        if (!rc)
            return VECDB_OK;
        if (!deadline)
            deadline = vdb_now_ns() + (uint64_t)catalog->busy_ms * 1000000;
        if (!is_passing || vdb_now_ns() >= deadline) {
            if (err)
                *err = own;
            return rc;
        }
        nanosleep(&(struct timespec){.tv_nsec = RECOVERY_PAUSE_NS}, NULL);
    }
}

void vdb_read_end(struct vdb_connection *connection)
{
    int code = sqlite3_errcode(connection->sqlite) & 0xff;
    bool failed = code == SQLITE_IOERR || code == SQLITE_CORRUPT || code == SQLITE_NOMEM || code == SQLITE_NOTADB;
    give_back(connection, roll_back(connection) && !failed);
}

/* ---- writing */

/* The writing connection, opened when there is none or when the last one had an error. */
static int get_writer(struct vdb_catalog *catalog, vecdb_error *err)
{
    if (catalog->writer && !catalog->writer_poisoned)
        return VECDB_OK;
    struct vdb_connection *fresh;
    int rc = vdb_connection_open(catalog, true, &fresh, err);
    if (rc)
        return rc;
    vdb_connection_close(catalog->writer); /* after the other one is there: invariant 3 */
    catalog->writer = fresh;
    catalog->writer_poisoned = false;
    return VECDB_OK;
}

static int begin_writing(struct vdb_catalog *catalog, uint64_t *sequence, vecdb_error *err)
{
    uint64_t durable, found;
    int rc = vdb_state_durable(catalog->state, &durable, err);
    if (!rc)
        rc = get_writer(catalog, err);
    if (!rc)
        rc =
            run(catalog->writer, VDB_STATEMENT_BEGIN_WRITE, "BEGIN IMMEDIATE", "cannot begin a write transaction", err);
    if (!rc)
        rc = vdb_connection_sequence(catalog->writer, &found, err);
    if (!rc)
        rc = check_not_lost(found, durable, err);
    if (!rc)
        *sequence = catalog->writer_sequence = found + 1;
    return rc;
}

static int fail_readonly(vecdb_error *err)
{
    return vdb_fail(err, VECDB_READONLY, "the database was opened read-only, or lies where it cannot be written");
}

/* Roll back, and note whether the connection can go on. */
static void abandon_writing(struct vdb_catalog *catalog, bool poisoned)
{
    if (catalog->writer && (!roll_back(catalog->writer) || poisoned))
        catalog->writer_poisoned = true;
}

int vdb_write_begin(struct vdb_catalog *catalog, struct vdb_connection **connection, uint64_t *sequence,
                    vecdb_error *err)
{
    if (catalog->readonly)
        return fail_readonly(err);
    int rc = vdb_state_lock_gate(catalog->state, catalog->busy_ms, err);
    if (rc)
        return rc;
    uint64_t number;
    rc = begin_writing(catalog, &number, err);
    if (rc) {
        abandon_writing(catalog, rc != VECDB_BUSY);
        vdb_state_unlock_gate(catalog->state);
        return rc;
    }
    *connection = catalog->writer;
    *sequence = number;
    return VECDB_OK;
}

void vdb_write_rollback(struct vdb_connection *connection)
{
    struct vdb_catalog *catalog = connection->catalog;
    int code = sqlite3_errcode(connection->sqlite) & 0xff;
    abandon_writing(catalog, code == SQLITE_IOERR || code == SQLITE_FULL || code == SQLITE_CORRUPT);
    vdb_state_unlock_gate(catalog->state);
}

static int raise_sequence(struct vdb_connection *connection, uint64_t sequence, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int rc = vdb_prepare(connection, VDB_STATEMENT_RAISE, "UPDATE database SET sequence = ?1 WHERE id = 1", 0,
                         &statement, err);
    if (rc)
        return rc;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)sequence);
    if (sqlite3_step(statement) != SQLITE_DONE)
        rc = vdb_fail_sqlite(err, connection, "cannot raise the sequence number");
    sqlite3_reset(statement);
    return rc;
}

/* A checkpoint of `mode` by the writer, the gate held. False: a reader is in the way, or it failed. */
static bool empty_wal(struct vdb_catalog *catalog, int mode, int busy_ms)
{
    struct vdb_connection *writer = catalog->writer;
    uint64_t sequence = 0;
    bool known = !vdb_connection_sequence(writer, &sequence, NULL);
    sqlite3_busy_timeout(writer->sqlite, busy_ms);
    int rc = SQLITE_BUSY;
    if (vdb_state_try_move(catalog->state)) {
        rc = sqlite3_wal_checkpoint_v2(writer->sqlite, "main", mode, NULL, NULL);
        vdb_state_end_move(catalog->state);
    }
    if (rc && (rc & 0xff) != SQLITE_BUSY) {
        vecdb_error err = VECDB_ERROR_INIT;
        vdb_fail_sqlite(&err, writer, "a checkpoint failed");
        vdb_catalog_tell(catalog, VECDB_LOG_ERROR, "%s", err.message);
        catalog->writer_poisoned = true;
    }
    sqlite3_busy_timeout(writer->sqlite, (int)catalog->busy_ms);
    if (rc) {
        catalog->next_checkpoint = catalog->n_frames + CHECKPOINT_AGAIN;
        return false;
    }
    if (known)
        vdb_state_raise_durable(catalog->state, sequence);
    catalog->n_frames = 0;
    catalog->next_checkpoint = CHECKPOINT_FRAMES;
    catalog->written = false;
    return true;
}

bool vdb_catalog_truncate_wal(struct vdb_catalog *catalog, int busy_ms)
{
    return empty_wal(catalog, SQLITE_CHECKPOINT_TRUNCATE, busy_ms);
}

static int mode_for(const struct vdb_catalog *catalog)
{
    return catalog->n_frames > LARGE_WAL_FRAMES ? SQLITE_CHECKPOINT_TRUNCATE : SQLITE_CHECKPOINT_RESTART;
}

static bool is_deferred(const struct vdb_catalog *catalog)
{
    return catalog->defer_checkpoint && catalog->n_frames < 2 * catalog->next_checkpoint &&
           catalog->defer_checkpoint(catalog->defer_context);
}

int vdb_write_commit(struct vdb_connection *connection, vecdb_error *err)
{
    struct vdb_catalog *catalog = connection->catalog;
    int rc = raise_sequence(connection, catalog->writer_sequence, err);
    if (!rc)
        rc = run(connection, VDB_STATEMENT_COMMIT, "COMMIT", "cannot commit", err);
    if (rc) {
        abandon_writing(catalog, rc != VECDB_BUSY);
        vdb_state_unlock_gate(catalog->state);
        return rc;
    }
    catalog->written = true;
    if (catalog->durable)
        vdb_state_raise_durable(catalog->state, catalog->writer_sequence);
    vdb_state_raise(catalog->state, catalog->writer_sequence);
    if (!catalog->next_checkpoint)
        catalog->next_checkpoint = CHECKPOINT_FRAMES;
    if (catalog->n_frames >= catalog->next_checkpoint && !is_deferred(catalog))
        empty_wal(catalog, mode_for(catalog), CHECKPOINT_BUSY_MS);
    vdb_state_unlock_gate(catalog->state);
    return VECDB_OK;
}

/* ---- maintenance */

static int vacuum_freelist(struct vdb_catalog *catalog, vecdb_error *err)
{
    struct vdb_connection *connection;
    uint64_t sequence;
    int rc = vdb_write_begin(catalog, &connection, &sequence, err);
    if (rc)
        return rc;
    rc = vdb_execute(connection, "PRAGMA incremental_vacuum", 0, err);
    if (!rc)
        return vdb_write_commit(connection, err);
    vdb_write_rollback(connection);
    return rc;
}

static int checkpoint(struct vdb_catalog *catalog, bool truncates, vecdb_error *err)
{
    int rc = vdb_state_lock_gate(catalog->state, catalog->busy_ms, err);
    if (rc)
        return rc == VECDB_BUSY ? VECDB_OK : rc;
    int mode = truncates ? SQLITE_CHECKPOINT_TRUNCATE : mode_for(catalog); /* which the gate guards */
    rc = get_writer(catalog, err);
    if (!rc && !empty_wal(catalog, mode, CHECKPOINT_BUSY_MS) && catalog->writer_poisoned)
        rc = vdb_fail_sqlite(err, catalog->writer, "cannot checkpoint");
    vdb_state_unlock_gate(catalog->state);
    return rc;
}

int vdb_catalog_checkpoint(struct vdb_catalog *catalog, bool vacuum, vecdb_error *err)
{
    if (catalog->readonly)
        return fail_readonly(err);
    int rc = vacuum ? vacuum_freelist(catalog, err) : VECDB_OK;
    return rc ? rc : checkpoint(catalog, vacuum, err);
}

void vdb_catalog_remove_wal(struct vdb_catalog *catalog)
{
    checkpoint(catalog, true, NULL);
}

static int size_of(struct vdb_connection *connection, int which, uint64_t *n_bytes, vecdb_error *err)
{
    sqlite3_file *file = NULL;
    sqlite3_int64 size = 0;
    int rc = sqlite3_file_control(connection->sqlite, "main", which, &file);
    if (!rc && file && file->pMethods)
        rc = file->pMethods->xFileSize(file, &size);
    if (rc)
        return vdb_fail(err, VECDB_IO, "cannot tell the size of catalog.sqlite: %s", sqlite3_errstr(rc));
    *n_bytes += (uint64_t)size;
    return VECDB_OK;
}

int vdb_catalog_size(struct vdb_catalog *catalog, uint64_t *n_bytes, vecdb_error *err)
{
    struct vdb_connection *connection;
    uint64_t sequence, total = 0;
    int rc = vdb_read_begin(catalog, &connection, &sequence, err);
    if (rc)
        return rc;
    rc = size_of(connection, SQLITE_FCNTL_FILE_POINTER, &total, err);
    if (!rc)
        rc = size_of(connection, SQLITE_FCNTL_JOURNAL_POINTER, &total, err);
    vdb_read_end(connection);
    if (!rc)
        *n_bytes = total;
    return rc;
}

static int integrity_check(struct vdb_connection *connection, void (*each)(void *context, const char *message),
                           void *context, vecdb_error *err)
{
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(connection->sqlite, "PRAGMA integrity_check", -1, &statement, NULL))
        return vdb_fail_sqlite(err, connection, "cannot check");
    int step, rc = VECDB_OK;
    while ((step = sqlite3_step(statement)) == SQLITE_ROW) {
        const char *line = (const char *)sqlite3_column_text(statement, 0);
        char message[512];
        if (line && strcmp(line, "ok")) {
            snprintf(message, sizeof message, "catalog.sqlite: %s", line);
            each(context, message);
        }
    }
    if (step != SQLITE_DONE)
        rc = vdb_fail_sqlite(err, connection, "the integrity check ended early");
    sqlite3_finalize(statement);
    if (rc == VECDB_CORRUPT) { /* a finding, not a failure to look */
        each(context, err ? err->message : "catalog.sqlite: the integrity check ended early");
        rc = VECDB_OK;
    }
    return rc;
}

struct counted {
    void (*each)(void *context, const char *message);
    void *context;
    uint64_t n;
};

static void count_problem(void *context, const char *message)
{
    struct counted *counted = context;
    counted->n++;
    counted->each(counted->context, message);
}

int vdb_catalog_check(struct vdb_catalog *catalog, void (*each)(void *context, const char *message), void *context,
                      vecdb_error *err)
{
    struct vdb_connection *connection;
    struct counted counted = {each, context, 0};
    uint64_t sequence;
    vecdb_error own = VECDB_ERROR_INIT;
    /* With an empty WAL the scrub sees all that is true; a busy database is scrubbed as it is. */
    if (!catalog->readonly)
        checkpoint(catalog, true, NULL);
    int rc = vdb_read_begin(catalog, &connection, &sequence, err);
    if (rc)
        return rc;
    rc = vdb_checked_scrub(catalog->checked, connection->sqlite, count_problem, &counted, err);
    if (!rc && !counted.n)
        rc = integrity_check(connection, each, context, &own);
    if (rc && own.status && err)
        *err = own;
    vdb_read_end(connection);
    return rc;
}

int vdb_catalog_scrub(struct vdb_catalog *catalog, struct vdb_scrub_cursor *cursor, uint32_t limit,
                      void (*each)(void *context, const char *message), void *context, uint64_t *n_bytes,
                      vecdb_error *err)
{
    struct vdb_connection *connection;
    uint64_t sequence;
    int rc = vdb_read_begin(catalog, &connection, &sequence, err);
    if (rc)
        return rc;
    rc = vdb_checked_scrub_some(catalog->checked, connection->sqlite, cursor, limit, each, context, n_bytes, err);
    vdb_read_end(connection);
    return rc;
}

void vdb_catalog_interrupt(struct vdb_catalog *catalog)
{
    pthread_mutex_lock(&catalog->mutex);
    for (struct vdb_connection *at = catalog->all; at; at = at->next_open)
        sqlite3_interrupt(at->sqlite);
    pthread_mutex_unlock(&catalog->mutex);
}

void vdb_catalog_forked(struct vdb_catalog *catalog)
{
    vdb_state_forked(catalog->state);
}
