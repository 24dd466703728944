/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/connection.h - connections to the catalog, transactions, the commit
 *
 * A `struct vdb_catalog` is one per database handle: the state file, the shim, one writing
 * connection, a pool of reading ones. What is in the tables is not known here (catalog.h); except
 * for one row, the sequence number, which every writing transaction raises by one.
 *
 * THE COMMIT, in this order
 *   1. gate of `state` (turnstile, then write lock), in process by a mutex
 *   2. BEGIN IMMEDIATE
 *   3. the caller's statements; what they name in vector files has been synced before
 *   4. UPDATE the sequence number; COMMIT (fsync of the WAL with full durability)
 *   5. raise the numbers in `state` (without full durability, only the visible one)
 *   6. when the WAL has 2,000 frames: RESTART checkpoint, with a busy limit of 50 ms (TRUNCATE when a long
 *      reader has made the WAL large; and always after a compaction and at close); or another thread does
 *      that, in the gate like a writer, while this one prepares its next transaction
 *   7. open the gate
 * synchronous=FULL (or NORMAL), wal_autocheckpoint=0, PERSIST_WAL, mmap_size=0, page_size 4096 with 8
 * reserved bytes, auto_vacuum=INCREMENTAL, secure_delete=OFF, cell_size_check=ON, trusted_schema=OFF,
 * defensive mode: all set, and read back, on every connection.
 *
 * Opening checks: `state` before the snapshot; the mark against the WAL; page size, reserve,
 * application id, format version, uuid.
 *
 * Thread rule: a catalog is used by any thread; a connection by the thread that acquired it.
 */
#ifndef VDB_STORAGE_CONNECTION_H
#define VDB_STORAGE_CONNECTION_H

#include <sqlite3.h>

#include "checked.h"

#define VDB_APPLICATION_ID 0x56644231 /* "VdB1" in the catalog's header */
/* Frozen: FORMAT.md, "Versions", says what raises it. */
#define VDB_FORMAT_VERSION 1
/* Bits of `database`.read_features and write_features that this library knows (FORMAT.md, "Features"). */
#define VDB_READ_FEATURES ((uint64_t)0)
#define VDB_WRITE_FEATURES ((uint64_t)0)

struct vdb_catalog;

struct vdb_catalog_options {
    struct vdb_memory *memory;
    const char *directory; /* NULL: in memory */
    bool readonly;
    bool create;           /* make the catalog when it is missing */
    bool durable;          /* synchronous=FULL */
    int busy_timeout_ms;   /* < 0: do not wait */
    const struct vdb_io_hook *hook;
    const char *schema;    /* SQL that makes the tables of a new catalog */
    /* Asked at step 6: true leaves the checkpoint to the caller, who calls vdb_catalog_checkpoint soon, in
     * another thread. Not asked when the WAL has twice as many frames. May be NULL. */
    bool (*defer_checkpoint)(void *context);
    void *defer_context;
    vecdb_log_fn log;
    void *log_context;
};

/* A connection, with the statements it has prepared. */
struct vdb_connection {
    sqlite3 *sqlite;
    struct vdb_catalog *catalog;
    struct vdb_statements *statements; /* a cache by (kind, number); see vdb_prepare */
    bool immutable;                    /* opened without locks; see catalog_open.c */
    bool still;                        /* its transaction shares lock S of `state` */
    struct vdb_connection *next;       /* in the pool */
    struct vdb_connection *next_open;  /* of all that are open */
};

int vdb_catalog_open(const struct vdb_catalog_options *options, struct vdb_catalog **catalog, vecdb_error *err);
void vdb_catalog_close(struct vdb_catalog *catalog); /* all connections are given back; NULL is allowed */
void vdb_catalog_forked(struct vdb_catalog *catalog); /* in the child: closes what must not be inherited */

struct vdb_state *vdb_catalog_state(struct vdb_catalog *catalog);
bool vdb_catalog_is_readonly(const struct vdb_catalog *catalog); /* asked for, or nothing can be written */
const unsigned char *vdb_catalog_uuid(const struct vdb_catalog *catalog); /* 16 bytes */

/* A read transaction on a connection from the pool: from here to vdb_read_end everything is of one
 * state, whose sequence number is told. CORRUPT when that is below the one in `state`. */
int vdb_read_begin(struct vdb_catalog *catalog, struct vdb_connection **connection, uint64_t *sequence,
                   vecdb_error *err);
void vdb_read_end(struct vdb_connection *connection);

/* Steps 1 and 2; `sequence` is the number this transaction will have. Then either commit (3 to 7) or
 * roll back. After a failed commit nothing is changed and the gate is open. */
int vdb_write_begin(struct vdb_catalog *catalog, struct vdb_connection **connection, uint64_t *sequence,
                    vecdb_error *err);
int vdb_write_commit(struct vdb_connection *connection, vecdb_error *err);
void vdb_write_rollback(struct vdb_connection *connection);

/* The prepared statement for `format` with %llu replaced by `number` (table names: "records_%llu").
 * It may have several %llu, all the same. Kept by (kind, number) and reset when it is asked for
 * again; the oldest of 256 is dropped. The caller binds, steps, and calls sqlite3_reset soon. */
int vdb_prepare(struct vdb_connection *connection, int kind, const char *format, unsigned long long number,
                sqlite3_stmt **statement, vecdb_error *err);
/* Run SQL without results; `format` as for vdb_prepare; not kept. */
int vdb_execute(struct vdb_connection *connection, const char *format, unsigned long long number, vecdb_error *err);
/* Forget prepared statements of a number (its tables are to be dropped). */
void vdb_forget_statements(struct vdb_connection *connection, unsigned long long number);

/* Translate the connection's last error into ours: SQLITE_FULL FULL, BUSY BUSY, CORRUPT and damage
 * found by the shim CORRUPT (with its sentence), NOMEM, READONLY, INTERRUPT, IOERR IO ... */
int vdb_fail_sqlite(vecdb_error *err, struct vdb_connection *connection, const char *what);

/* A checkpoint now; with `vacuum` pages of the freelist are given back first (incremental_vacuum) and the WAL is
 * truncated. BUSY is no error. */
int vdb_catalog_checkpoint(struct vdb_catalog *catalog, bool vacuum, vecdb_error *err);

/* Bytes of the main file and of the WAL. */
int vdb_catalog_size(struct vdb_catalog *catalog, uint64_t *n_bytes, vecdb_error *err);

/* Scrub (checked.h) and, where that finds nothing, SQLite's integrity_check, in a read transaction. */
int vdb_catalog_check(struct vdb_catalog *catalog, void (*each)(void *context, const char *message), void *context,
                      vecdb_error *err);

/* A piece of a scrub (vdb_checked_scrub_some), in a short read transaction. */
int vdb_catalog_scrub(struct vdb_catalog *catalog, struct vdb_scrub_cursor *cursor, uint32_t limit,
                      void (*each)(void *context, const char *message), void *context, uint64_t *n_bytes,
                      vecdb_error *err);

/* Make running statements of all connections return INTERRUPTED. Any thread, not a signal handler. */
void vdb_catalog_interrupt(struct vdb_catalog *catalog);

#endif
