/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/checked.h - a shim over SQLite's own VFS that notices damaged bytes
 *
 * SQLite does not notice a flipped bit in its files (CATALOG.md, section 2). The shim does:
 *   main file   the last 8 bytes of every 4096-byte page are XXH3-64 of the rest, seeded with the
 *               page's number; stamped when a page is written, on a copy; verified when read.
 *   WAL         SQLite's own frame sums are verified on every page read from it, up to the
 *               committed end.
 *               The frames of a commit are written in one piece (checked_gather.c).
 *   mark        a checkpoint that starts is noted in `state`, and its end, both synced.
 * It also is where faults are injected (struct vdb_io_hook) and where bytes of catalog I/O are
 * counted.
 *
 * One sqlite3_vfs is registered per open database, under a name of its own, and carries the
 * database's context; it is unregistered after the last connection is closed.
 *
 * SQLite is built upon `base`: its unix VFS for a directory, or a memory VFS (checked_memory.c) for
 * ":memory:", which implements shared memory and locks within the process.
 */
#ifndef VDB_STORAGE_CHECKED_H
#define VDB_STORAGE_CHECKED_H

#include <sqlite3.h>

#include "base/memory.h"
#include "state.h"
#include "vecdb.h"

#define VDB_CATALOG_PAGE_BYTES 4096
#define VDB_CATALOG_RESERVE_BYTES 8

struct vdb_checked;

struct vdb_checked_options {
    struct vdb_memory *memory;
    struct vdb_state *state;
    const char *path;               /* of the catalog: its checkpoints are marked in `state` */
    bool readonly;                  /* never make or write a file of the catalog's */
    sqlite3_vfs *base;              /* NULL: SQLite's default */
    const struct vdb_io_hook *hook; /* NULL, or faults for tests */
};

int vdb_checked_new(const struct vdb_checked_options *options, struct vdb_checked **checked, vecdb_error *err);
void vdb_checked_free(struct vdb_checked *checked); /* all connections are closed */

/* The name to give to sqlite3_open_v2. */
const char *vdb_checked_name(const struct vdb_checked *checked);

/* What the shim found last: a sentence such as "catalog.sqlite: page 17 is damaged (checksum)", or
 * NULL when nothing was found. SQLite only passes on SQLITE_CORRUPT or SQLITE_IOERR_DATA. */
bool vdb_checked_damage(struct vdb_checked *checked, char *sentence, size_t n_bytes);

/* Is it a catalog of a later version, whose pages are encrypted? */
bool vdb_checked_is_encrypted(const struct vdb_checked *checked);

/* Before the first connection: does the WAL hold what the mark in `state` asks for? OK without a
 * mark; else CORRUPT. */
int vdb_checked_test_mark(struct vdb_checked *checked, vecdb_error *err);

/* Before a read-only connection, which cannot recover a WAL and would try for ten seconds: is the header of
 * the WAL, if it has one, whole? */
int vdb_checked_test_header(struct vdb_checked *checked, vecdb_error *err);
/* There is a WAL with content, and its header is not whole: the end of a power cut, or damage. */
bool vdb_checked_header_is_cut(struct vdb_checked *checked);

/* Bytes that went through the shim since it was made. */
void vdb_checked_get_bytes(const struct vdb_checked *checked, uint64_t *n_read, uint64_t *n_written);

/* Verify every page of the main file, and every committed frame of the WAL, through the VFS of an
 * open connection (never by opening the file), in its read transaction. Tells each problem. */
int vdb_checked_scrub(struct vdb_checked *checked, sqlite3 *connection,
                      void (*each)(void *context, const char *message), void *context, vecdb_error *err);

/* The same in pieces of at most `limit` pages or frames, each in a read transaction of its own. A cursor of zeros
 * begins, and is of zeros again at the end. `n_bytes`: how much was read. */
struct vdb_scrub_cursor {
    uint32_t n_pages, n_frames; /* done */
    uint32_t salt2;             /* of the WAL that the frames are of */
    bool has_main;              /* all pages of the main file were looked at */
};
int vdb_checked_scrub_some(struct vdb_checked *checked, sqlite3 *connection, struct vdb_scrub_cursor *cursor,
                           uint32_t limit, void (*each)(void *context, const char *message), void *context,
                           uint64_t *n_bytes, vecdb_error *err);

/* A memory VFS for SQLite. Several connections of one process may share a name in it. */
int vdb_memory_sqlite_vfs(struct vdb_memory *memory, sqlite3_vfs **vfs, vecdb_error *err);
void vdb_memory_sqlite_vfs_free(sqlite3_vfs *vfs);

#endif
