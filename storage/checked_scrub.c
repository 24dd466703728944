/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/checked_scrub.c - every page and every frame, whether SQLite would read it or not (see checked.h)
 *
 * An ordinary read sees only the pages it needs; pages of the freelist and of the pointer map are seen by
 * nobody for long. The scrub reads all: the main file page by page, the WAL frame by frame up to the
 * committed end. It reads beneath the shim, through the file objects of an open connection: to open the
 * file a second time and close it again would drop the locks of this process.
 *
 * A page that another process's checkpoint is writing just now is read again before it is called damaged.
 * The lock page at 1 GiB is skipped.
 */
#include <stdio.h>

#include "base/error.h"
#include "checked_file.h"

#define PAGES_PER_READ 64
#define READ_AGAIN 8

struct scrub {
    struct vdb_checked *checked;
    struct checked_file *main, *wal; /* wal: NULL when it is not open */
    void (*each)(void *context, const char *message);
    void *context;
    unsigned char *pages; /* PAGES_PER_READ */
};

static int read_inner(struct checked_file *file, void *into, int n_bytes, sqlite3_int64 offset)
{
    int rc = vdb_checked_fault(file->checked, VDB_IO_READ, file->name, SQLITE_IOERR_READ);
    return rc ? rc : file->inner->pMethods->xRead(file->inner, into, n_bytes, offset);
}

static int verify_slowly(struct scrub *scrub, unsigned char *page, uint32_t number)
{
    for (int attempt = 0; attempt < READ_AGAIN; attempt++) {
        if (vdb_checked_page_is_good(page, number))
            return SQLITE_OK;
        scrub->checked->base->xSleep(scrub->checked->base, 100 << attempt);
        int rc = read_inner(scrub->main, page, PAGE_BYTES, (sqlite3_int64)(number - 1) * PAGE_BYTES);
        if (rc)
            return rc == SQLITE_IOERR_SHORT_READ ? SQLITE_OK : rc; /* it was truncated meanwhile */
    }
    char message[96];
    snprintf(message, sizeof message, "catalog.sqlite: page %u is damaged (checksum)", (unsigned)number);
    scrub->each(scrub->context, message);
    return SQLITE_OK;
}

static int scrub_main(struct scrub *scrub)
{
    sqlite3_int64 size = 0;
    int rc = scrub->main->inner->pMethods->xFileSize(scrub->main->inner, &size);
    if (!rc && size % PAGE_BYTES)
        scrub->each(scrub->context, "catalog.sqlite: the file does not end with a whole page");
    sqlite3_int64 n_pages = size / PAGE_BYTES;
    for (sqlite3_int64 first = 0; !rc && first < n_pages; first += PAGES_PER_READ) {
        int n = n_pages - first < PAGES_PER_READ ? (int)(n_pages - first) : PAGES_PER_READ;
        rc = read_inner(scrub->main, scrub->pages, n * PAGE_BYTES, first * PAGE_BYTES);
        if (rc == SQLITE_IOERR_SHORT_READ)
            return SQLITE_OK; /* truncated by a vacuum meanwhile */
        for (int i = 0; !rc && i < n; i++)
            rc = verify_slowly(scrub, scrub->pages + (size_t)i * PAGE_BYTES, (uint32_t)(first + i) + 1);
    }
    return rc;
}

/* The caller's read transaction keeps the WAL from being reset below its snapshot; without a frame in it
 * there may be a reset, and the walk then ends in frames of a newer generation, which are whole too. */
static int scrub_wal(struct scrub *scrub)
{
    uint32_t n_frames, salt2, n_now, salt2_now;
    struct vdb_wal_walk walk;
    if (!scrub->wal || !vdb_checked_index(scrub->main, &n_frames, &salt2) || !n_frames)
        return SQLITE_OK;
    int rc = vdb_checked_walk_wal(scrub->checked, scrub->wal->inner, n_frames, &walk);
    if (rc || (walk.salt2 == salt2 && walk.n_valid >= n_frames))
        return rc;
    vdb_checked_index(scrub->main, &n_now, &salt2_now);
    if (salt2_now != salt2 || n_now < n_frames)
        return SQLITE_OK;
    char message[128];
    snprintf(message, sizeof message, "catalog.sqlite-wal: of %u committed frames the first %u are whole (checksum)",
             (unsigned)n_frames, walk.salt2 == salt2 ? (unsigned)walk.n_valid : 0u);
    scrub->each(scrub->context, message);
    return SQLITE_OK;
}

static struct checked_file *file_of(sqlite3 *connection, int which)
{
    sqlite3_file *file = NULL;
    if (sqlite3_file_control(connection, "main", which, &file) || !file || !file->pMethods)
        return NULL;
    return (struct checked_file *)(void *)file;
}

int vdb_checked_scrub(struct vdb_checked *checked, sqlite3 *connection,
                      void (*each)(void *context, const char *message), void *context, vecdb_error *err)
{
    struct scrub scrub = {.checked = checked,
                          .main = file_of(connection, SQLITE_FCNTL_FILE_POINTER),
                          .wal = file_of(connection, SQLITE_FCNTL_JOURNAL_POINTER),
                          .each = each,
                          .context = context};
    if (!scrub.main || scrub.main->kind != FILE_MAIN)
        return vdb_fail(err, VECDB_INTERNAL, "the connection to be scrubbed is not of the shim");
    if (scrub.wal && scrub.wal->kind != FILE_WAL)
        scrub.wal = NULL;
    scrub.pages = vdb_alloc_array(checked->memory, PAGES_PER_READ, PAGE_BYTES);
    if (!scrub.pages)
        return vdb_fail_memory(err, PAGES_PER_READ * PAGE_BYTES);
    int rc = scrub_main(&scrub);
    if (!rc)
        rc = scrub_wal(&scrub);
    vdb_free(checked->memory, scrub.pages);
    if (rc == SQLITE_NOMEM)
        return vdb_fail_memory(err, PAGES_PER_READ * PAGE_BYTES);
    return rc ? vdb_fail(err, VECDB_IO, "cannot read catalog.sqlite: %s", sqlite3_errstr(rc)) : VECDB_OK;
}
