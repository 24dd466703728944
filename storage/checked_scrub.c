/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/checked_scrub.c - every page and every frame, whether SQLite would read it or not (see checked.h)
 *
 * An ordinary read sees only the pages it needs; pages of the freelist and of the pointer map are seen by
 * nobody for long. The scrub reads all: the main file page by page, the WAL frame by frame up to the
 * committed end. It reads beneath the shim, through the file objects of an open connection: to open the
 * file a second time and close it again would drop the locks of this process.
 *
 * A page that another process's checkpoint is writing just now is read again before it is called damaged. A
 * checkpoint that was cut off may have left it half-written: as long as the mark of that checkpoint is in `state`
 * and the WAL has the page, it is no damage, because the next checkpoint writes it anew from the WAL, and nobody
 * reads it before. The lock page at 1 GiB is skipped.
 */
#include <stdio.h>

#include "base/error.h"
#include "checked_file.h"

#define PAGES_PER_READ 64
#define READ_AGAIN 8
#define WAL_AT_SALT_2 20

struct scrub {
    struct vdb_checked *checked;
    struct checked_file *main, *wal; /* wal: NULL when it is not open */
    void (*each)(void *context, const char *message);
    void *context;
    unsigned char *pages; /* PAGES_PER_READ */
    uint64_t n_bytes;     /* read */
};

static int read_inner(struct checked_file *file, void *into, int n_bytes, sqlite3_int64 offset)
{
    int rc = vdb_checked_fault(file->checked, VDB_IO_READ, file->name, SQLITE_IOERR_READ);
    return rc ? rc : file->inner->pMethods->xRead(file->inner, into, n_bytes, offset);
}

static uint32_t load_big(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | (uint32_t)at[3];
}

/* Will the next checkpoint write this page, because the last one was cut off? The mark tells which frames it was
 * copying; an open has seen that they are whole. */
static int is_pending(struct scrub *scrub, uint32_t number, bool *pending)
{
    uint32_t n_marked, marked_salt2;
    unsigned char bytes[4];
    *pending = false;
    if (!scrub->wal || !vdb_state_get_mark(scrub->checked->state, &n_marked, &marked_salt2))
        return SQLITE_OK;
    sqlite3_file *inner = scrub->wal->inner;
    int rc = inner->pMethods->xRead(inner, bytes, sizeof bytes, WAL_AT_SALT_2);
    if (!rc && load_big(bytes) != marked_salt2)
        return SQLITE_OK;
    for (uint32_t i = 0; i < n_marked && !rc && !*pending; i++) { /* a frame begins with its page's number */
        rc = inner->pMethods->xRead(inner, bytes, sizeof bytes, WAL_HEADER_BYTES + (sqlite3_int64)i * FRAME_BYTES);
        *pending = !rc && load_big(bytes) == number;
    }
    return rc == SQLITE_IOERR_SHORT_READ ? SQLITE_OK : rc;
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
    bool pending = false;
    int rc = vdb_checked_page_is_good(page, number) ? SQLITE_OK : is_pending(scrub, number, &pending);
    if (rc || vdb_checked_page_is_good(page, number) || pending)
        return rc;
    char message[96];
    snprintf(message, sizeof message, "catalog.sqlite: page %u is damaged (checksum)", (unsigned)number);
    scrub->each(scrub->context, message);
    return SQLITE_OK;
}

static int scrub_main(struct scrub *scrub, struct vdb_scrub_cursor *cursor, uint32_t limit)
{
    sqlite3_int64 size = 0;
    int rc = scrub->main->inner->pMethods->xFileSize(scrub->main->inner, &size);
    if (!rc && !cursor->n_pages && size % PAGE_BYTES)
        scrub->each(scrub->context, "catalog.sqlite: the file does not end with a whole page");
    sqlite3_int64 n_pages = size / PAGE_BYTES;
    while (!rc && limit && cursor->n_pages < n_pages) {
        uint32_t first = cursor->n_pages, n = limit < PAGES_PER_READ ? limit : PAGES_PER_READ;
        n = n_pages - first < n ? (uint32_t)(n_pages - first) : n;
        rc = read_inner(scrub->main, scrub->pages, (int)n * PAGE_BYTES, (sqlite3_int64)first * PAGE_BYTES);
        if (rc == SQLITE_IOERR_SHORT_READ) { /* truncated by a vacuum meanwhile */
            rc = SQLITE_OK;
            break;
        }
        for (uint32_t i = 0; !rc && i < n; i++)
            rc = verify_slowly(scrub, scrub->pages + (size_t)i * PAGE_BYTES, first + i + 1);
        cursor->n_pages += n;
        limit -= n;
        scrub->n_bytes += (uint64_t)n * PAGE_BYTES;
    }
    cursor->has_main = !rc && limit;
    return rc;
}

/* The caller's read transaction keeps the WAL from being reset below its snapshot; without a frame in it
 * there may be a reset. Its frames are in the main file then, and this round is over. */
static int scrub_wal(struct scrub *scrub, struct vdb_scrub_cursor *cursor, uint32_t limit, bool *done)
{
    uint32_t n_frames, salt2, n_now, salt2_now, first = cursor->n_frames;
    struct vdb_wal_walk walk;
    *done = true;
    if (!scrub->wal || !vdb_checked_index(scrub->main, &n_frames, &salt2) || n_frames <= first ||
        (first && salt2 != cursor->salt2))
        return SQLITE_OK;
    uint32_t wanted = n_frames - first < limit ? n_frames : first + limit;
    int rc = vdb_checked_walk_frames(scrub->checked, scrub->wal->inner, first, wanted, &walk);
    if (rc)
        return rc;
    scrub->n_bytes += (uint64_t)(wanted - first) * FRAME_BYTES;
    if (walk.salt2 == salt2 && walk.n_valid >= wanted) {
        cursor->n_frames = wanted;
        cursor->salt2 = salt2;
        *done = wanted == n_frames;
        return SQLITE_OK;
    }
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

int vdb_checked_scrub_some(struct vdb_checked *checked, sqlite3 *connection, struct vdb_scrub_cursor *cursor,
                           uint32_t limit, void (*each)(void *context, const char *message), void *context,
                           uint64_t *n_bytes, vecdb_error *err)
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
    bool done = false;
    int rc = cursor->has_main ? SQLITE_OK : scrub_main(&scrub, cursor, limit);
    if (!rc && cursor->has_main)
        rc = scrub_wal(&scrub, cursor, limit, &done);
    vdb_free(checked->memory, scrub.pages);
    *n_bytes = scrub.n_bytes;
    if (done || rc)
        *cursor = (struct vdb_scrub_cursor){0};
    if (rc == SQLITE_NOMEM)
        return vdb_fail_memory(err, PAGES_PER_READ * PAGE_BYTES);
    return rc ? vdb_fail(err, VECDB_IO, "cannot read catalog.sqlite: %s", sqlite3_errstr(rc)) : VECDB_OK;
}

int vdb_checked_scrub(struct vdb_checked *checked, sqlite3 *connection,
                      void (*each)(void *context, const char *message), void *context, vecdb_error *err)
{
    struct vdb_scrub_cursor cursor = {0};
    uint64_t n_bytes;
    int status;
    do
        status = vdb_checked_scrub_some(checked, connection, &cursor, UINT32_MAX, each, context, &n_bytes, err);
    while (!status && cursor.n_pages);
    return status;
}
