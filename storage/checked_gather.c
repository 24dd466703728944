/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/checked_gather.c - the frames of a commit go to the WAL in one write (see checked.h)
 *
 * SQLite writes each frame by two calls, its header and its page: sixteen system calls for a commit of eight pages.
 * They are gathered here, and written as one piece with the frame that makes the commit:
 *
 *     | header, size 0 | page | header, size 0 | page | ... | header, size after the commit | page |  -> one xWrite
 *
 * Invariants
 *   1. When SQLite says in the WAL's index that a commit is there, the file has all of it: the page of a commit's last
 *      frame is not gathered but written with everything before it, and SQLite is told how that went.
 *   2. Nothing is kept over the end of a write transaction. What a rolled back one left behind is dropped
 *      before the write lock is given back: others write their frames at the same place then.
 *   3. A read, a sync, a question for the size and a cut of the WAL find everything written.
 *   4. Only what is behind all that the transaction has written is gathered. SQLite rewrites pages in place, and
 *      headers of frames that went before (their sums change then), even after the commit's last frame.
 *
 * Frames that others can read, those of a commit, are never here. Those of a transaction that is not finished are
 * read by its own connection alone, through this file (3).
 *
 * Costs: GATHERED_FRAMES * 4,120 bytes for a connection that writes. More frames are written in pieces of that size.
 *
 * Rejected: to write at the sync (commits without full durability have none); a vector of pointers to SQLite's pages
 * (they are its cache's, and may change before they are written).
 */
#include "checked_file.h"

#define GATHERED_FRAMES 16 /* a commit of one record has 7 to 9, of a group of eight up to 20 */
#define GATHERED_BYTES (GATHERED_FRAMES * FRAME_BYTES)

static int write_through(struct checked_file *wal, const void *bytes, int n_bytes, sqlite3_int64 offset)
{
    int rc = vdb_checked_fault(wal->checked, VDB_IO_WRITE, wal->name, SQLITE_IOERR_WRITE);
    if (rc) {
        /* A failing disk may well have written a part. */
        if (rc == SQLITE_IOERR_WRITE && n_bytes > 1)
            wal->inner->pMethods->xWrite(wal->inner, bytes, n_bytes / 2, offset);
        return rc;
    }
    atomic_fetch_add_explicit(&wal->checked->n_written, (uint64_t)n_bytes, memory_order_relaxed);
    return wal->inner->pMethods->xWrite(wal->inner, bytes, n_bytes, offset);
}

int vdb_checked_flush(struct checked_file *wal)
{
    int n_bytes = wal->n_gathered;
    wal->n_gathered = 0; /* also when it fails: SQLite rolls back then, or writes these frames anew */
    return n_bytes ? write_through(wal, wal->gathered, n_bytes, wal->gathered_at) : SQLITE_OK;
}

void vdb_checked_forget(struct checked_file *wal)
{
    wal->n_gathered = 0;
    wal->written_to = 0;
}

/* The page that was gathered last is that of a commit's last frame, or its header is not here to say. */
static bool ends_commit(const struct checked_file *wal)
{
    const unsigned char *size = wal->gathered + wal->n_gathered - FRAME_BYTES + 4;
    return wal->n_gathered < FRAME_BYTES || size[0] | size[1] | size[2] | size[3];
}

static bool can_gather(struct checked_file *wal, int n_bytes, sqlite3_int64 offset)
{
    if (offset < wal->written_to || (n_bytes != FRAME_HEADER_BYTES && n_bytes != PAGE_BYTES))
        return false;
    if (!wal->gathered)
        wal->gathered = vdb_alloc(wal->checked->memory, GATHERED_BYTES);
    return wal->gathered != NULL;
}

int vdb_checked_gather(struct checked_file *wal, const void *bytes, int n_bytes, sqlite3_int64 offset)
{
    bool gathers = can_gather(wal, n_bytes, offset);
    if (!gathers || offset != wal->gathered_at + wal->n_gathered || wal->n_gathered + n_bytes > GATHERED_BYTES) {
        int rc = vdb_checked_flush(wal);
        if (rc)
            return rc;
    }
    if (wal->written_to < offset + n_bytes)
        wal->written_to = offset + n_bytes;
    if (!gathers)
        return write_through(wal, bytes, n_bytes, offset);
    if (!wal->n_gathered)
        wal->gathered_at = offset;
    memcpy(wal->gathered + wal->n_gathered, bytes, (size_t)n_bytes);
    wal->n_gathered += n_bytes;
    return n_bytes == PAGE_BYTES && ends_commit(wal) ? vdb_checked_flush(wal) : SQLITE_OK;
}
