/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/catalog_backup.c - a copy of the catalog as one read transaction sees it
 *
 *     source connection, in its transaction        the original's shim verifies what is read
 *        |  sqlite3_backup_step, page by page
 *     destination connection, alone (EXCLUSIVE)    a shim of its own stamps what is written
 *        |  commit; then the copy is in WAL mode, as its page 1 says
 *     DELETE FROM snapshots, generations raised     goes to <path>-wal
 *        |  TRUNCATE checkpoint, close
 *     one file
 *
 * SQLite's backup copies pages as they are, from WAL or main file, so free pages and their places stay:
 * the copy costs its size once, no matter how it is filled. It begins anew whenever the source connection
 * begins another transaction; ours has one open all the time, so others may write and the copy still
 * ends. Others cannot empty the WAL meanwhile, which is why vector files are copied afterwards.
 *
 * Invariants
 *   1. The shim gets no path: the file that is made is not a catalog whose checkpoints are marked in a
 *      `state`. If this is cut off, nobody takes what there is for a database, so nothing has to be
 *      recovered.
 *   2. The reserved bytes are set before the first page is written; all pages pass the shim, spilled ones
 *      too.
 *   3. With locking_mode EXCLUSIVE SQLite keeps the WAL's index in memory: no -shm file is made.
 *
 * Rejected: VACUUM INTO, which cannot run inside of the transaction whose state the vector files belong
 * to. Copying the files: only SQLite knows which frames of the WAL count.
 */
#include "catalog_backup.h"

#include <stdio.h>

#include "base/error.h"
#include "connection_parts.h"

#define STEP_PAGES 256 /* 1 MiB between two looks at whether to go on */

/* A connection to the file that is made, with as much of a catalog around it as vdb_fail_sqlite needs. */
struct copy_target {
    struct vdb_catalog catalog;
    struct vdb_connection connection;
};

static int run(struct copy_target *target, const char *sql, vecdb_error *err)
{
    if (sqlite3_exec(target->connection.sqlite, sql, NULL, NULL, NULL))
        return vdb_fail_sqlite(err, &target->connection, "cannot write the copy of the catalog");
    return VECDB_OK;
}

static int open_target(struct copy_target *target, const struct vdb_catalog_copy *copy, vecdb_error *err)
{
    *target = (struct copy_target){.catalog = {.memory = copy->memory}};
    target->connection.catalog = &target->catalog;
    struct vdb_checked_options options = {.memory = copy->memory, .hook = copy->hook};
    int status = vdb_checked_new(&options, &target->catalog.checked, err);
    if (status)
        return status;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE;
    if (sqlite3_open_v2(copy->path, &target->connection.sqlite, flags, vdb_checked_name(target->catalog.checked)))
        return target->connection.sqlite
                   ? vdb_fail_sqlite(err, &target->connection, "cannot make the copy of the catalog")
                   : vdb_fail_memory(err, 1);
    int n_reserved = VDB_CATALOG_RESERVE_BYTES;
    sqlite3_extended_result_codes(target->connection.sqlite, 1);
    sqlite3_file_control(target->connection.sqlite, "main", SQLITE_FCNTL_RESERVE_BYTES, &n_reserved);
    return run(target,
               "PRAGMA locking_mode = EXCLUSIVE; PRAGMA page_size = 4096; PRAGMA journal_mode = MEMORY;"
               "PRAGMA synchronous = FULL; PRAGMA mmap_size = 0; PRAGMA wal_autocheckpoint = 0;"
               "PRAGMA trusted_schema = OFF; PRAGMA secure_delete = OFF",
               err);
}

static int close_target(struct copy_target *target, vecdb_error *err)
{
    int rc = sqlite3_close(target->connection.sqlite), status = VECDB_OK;
    if (rc)
        status = vdb_fail(err, VECDB_INTERNAL, "the copy of the catalog cannot be closed: %s", sqlite3_errstr(rc));
    if (target->catalog.checked)
        vdb_checked_free(target->catalog.checked);
    return status;
}

/* What went wrong may be the original's fault or the copy's. SQLite keeps the code in the copy's
 * connection; which pages are damaged only the original's shim knows. */
static int fail_step(const struct vdb_catalog_copy *copy, struct copy_target *target, int rc, vecdb_error *err)
{
    char sentence[256];
    if ((rc == SQLITE_IOERR_DATA || rc == SQLITE_IOERR_CORRUPTFS) &&
        vdb_checked_damage(copy->source->catalog->checked, sentence, sizeof sentence))
        return vdb_fail(err, VECDB_CORRUPT, "the catalog cannot be copied: %s", sentence);
    if ((rc & 0xff) == SQLITE_NOMEM)
        return vdb_fail(err, VECDB_NOMEM, "out of memory while the catalog was copied");
    return vdb_fail_sqlite(err, &target->connection, "cannot copy the catalog");
}

static int copy_pages(const struct vdb_catalog_copy *copy, struct copy_target *target, vecdb_error *err)
{
    sqlite3_backup *backup = sqlite3_backup_init(target->connection.sqlite, "main", copy->source->sqlite, "main");
    if (!backup)
        return vdb_fail_sqlite(err, &target->connection, "cannot begin to copy the catalog");
    int rc = SQLITE_OK, status = VECDB_OK;
    while (!status && !rc) {
        rc = sqlite3_backup_step(backup, STEP_PAGES);
        uint64_t n_pages = (uint64_t)sqlite3_backup_pagecount(backup);
        uint64_t n_left = (uint64_t)sqlite3_backup_remaining(backup);
        if (!rc || rc == SQLITE_DONE)
            status = copy->progress(copy->context, (n_pages - n_left) * VDB_CATALOG_PAGE_BYTES,
                                    n_pages * VDB_CATALOG_PAGE_BYTES, err);
    }
    int end = sqlite3_backup_finish(backup); /* its code is that of the step, which is then the connection's */
    if (!status && (rc != SQLITE_DONE || end))
        status = fail_step(copy, target, end ? end : rc, err);
    return status;
}

/* The copy is a database in WAL mode from here on. */
static int finish(const struct vdb_catalog_copy *copy, struct copy_target *target, vecdb_error *err)
{
    sqlite3 *sqlite = target->connection.sqlite;
    int n_frames = 0, n_done = 0; /* index files are not copied: they can be made again */
    int status = run(target, "BEGIN IMMEDIATE; DELETE FROM snapshots; DROP TABLE IF EXISTS indexes", err);
    if (!status && copy->seal)
        status = run(target, "UPDATE fields SET generation = generation + 1", err);
    if (!status)
        status = run(target, "COMMIT", err);
    if (!status && sqlite3_wal_checkpoint_v2(sqlite, "main", SQLITE_CHECKPOINT_TRUNCATE, &n_frames, &n_done))
        status = vdb_fail_sqlite(err, &target->connection, "cannot complete the copy of the catalog");
    return status;
}

int vdb_catalog_copy(const struct vdb_catalog_copy *copy, vecdb_error *err)
{
    struct copy_target target;
    vecdb_error ignored;
    int status = open_target(&target, copy, err);
    if (!status)
        status = copy_pages(copy, &target, err);
    if (!status)
        status = finish(copy, &target, err);
    int closed = close_target(&target, status ? &ignored : err);
    return status ? status : closed;
}
