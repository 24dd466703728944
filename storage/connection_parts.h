/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/connection_parts.h - what connection.c, catalog_open.c and statements.c share
 */
#ifndef VDB_STORAGE_CONNECTION_PARTS_H
#define VDB_STORAGE_CONNECTION_PARTS_H

#include <pthread.h>
#include <stdatomic.h>

#include "connection.h"

struct vdb_catalog {
    struct vdb_memory *memory;
    const struct vdb_io_hook *hook;
    vecdb_log_fn log;
    void *log_context;
    char *path; /* of catalog.sqlite */
    char *wal_path, *index_path; /* of catalog.sqlite-wal and -shm */
    bool in_memory;
    bool readonly;  /* asked for, or because nothing can be written here */
    _Atomic bool immutable; /* read-only, without the files that SQLite's locks need: see catalog_open.c */
    bool durable;
    uint32_t busy_ms;
    unsigned char uuid[16];
    struct vdb_state *state;
    struct vdb_checked *checked;
    sqlite3_vfs *memory_vfs; /* NULL for a directory */

    /* The writing connection; its user holds the gate. */
    struct vdb_connection *writer;
    bool writer_poisoned;     /* an I/O error: open another before the next transaction */
    uint64_t writer_sequence; /* of the transaction that is open */
    int n_frames;             /* of the WAL after the last commit */
    int next_checkpoint;      /* frames */
    bool (*defer_checkpoint)(void *context);
    void *defer_context;
    bool written;             /* something was committed since the last complete checkpoint */

    pthread_mutex_t mutex; /* of what follows */
    struct vdb_connection *idle;
    int n_idle;
    struct vdb_connection *all; /* every open connection, for vdb_catalog_interrupt */
};

/* A new connection, its settings made and read back. Not for a catalog that is being made. */
int vdb_connection_open(struct vdb_catalog *catalog, bool writes, struct vdb_connection **connection, vecdb_error *err);
void vdb_connection_close(struct vdb_connection *connection); /* NULL is allowed */

/* What is in the tables: application id, version, uuid, or that there is no table. Within a transaction
 * or outside. `present`: the catalog was made. */
int vdb_connection_identify(struct vdb_connection *connection, bool *present, vecdb_error *err);

int vdb_connection_sequence(struct vdb_connection *connection, uint64_t *sequence, vecdb_error *err);
void vdb_catalog_tell(struct vdb_catalog *catalog, int level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Before a read transaction: a catalog that is opened without locks takes lock S, and looks whether that still does.
 * True: the lock is held, to be given back by vdb_state_release_still. False: read with locks. */
bool vdb_catalog_hold_still(struct vdb_catalog *catalog);

/* TRUNCATE checkpoint by the writer, the gate held. False: a reader is in the way, or it failed. */
bool vdb_catalog_truncate_wal(struct vdb_catalog *catalog, int busy_ms);
/* The same with the gate taken; what is in the way is left there. */
void vdb_catalog_remove_wal(struct vdb_catalog *catalog);

struct vdb_statements;
struct vdb_statements *vdb_statements_new(struct vdb_memory *memory); /* NULL: no memory */
void vdb_statements_free(struct vdb_statements *statements);          /* finalizes all; NULL is allowed */
void vdb_statements_reset(struct vdb_statements *statements);         /* resets those that are in use */

/* Kinds below 0 are this layer's own. */
enum {
    VDB_STATEMENT_BEGIN = -1,
    VDB_STATEMENT_BEGIN_WRITE = -2,
    VDB_STATEMENT_COMMIT = -3,
    VDB_STATEMENT_ROLLBACK = -4,
    VDB_STATEMENT_SEQUENCE = -5,
    VDB_STATEMENT_RAISE = -6
};

#endif
