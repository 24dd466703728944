/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/checked.c - the shim over SQLite's VFS: registration and the methods of a file (see checked.h)
 *
 * A page of the main file, as it lies on disk:
 *
 *     | bytes 0 .. 4087, SQLite's | XXH3-64 of them, seeded with the page's number, little-endian |
 *
 * Invariants
 *   1. Only xWrite of the main file stamps, on a copy: SQLite's cache, the WAL and the journals hold
 *      pages with whatever is in the reserved bytes. (SQLite sums a WAL frame before it calls xWrite,
 *      so a stamp there would break the sum.)
 *   2. Every read of a main file that is not a piece of its header is of one whole page and is
 *      verified, except the lock page. There is no other way to the bytes: no maps (iVersion 2).
 *   3. A mark is in `state`, synced, before a checkpoint writes its first page, and is cleared after
 *      the main file is synced and before the WAL can be reset.
 *
 * Page 1 alone may be read while another process's checkpoint writes it, and may lie torn on disk
 * after a crash while the WAL holds the whole one. So a mismatch is read again a few times; and
 * while this connection has not yet looked into a WAL that is there, page 1 is accepted when the bytes
 * that never change are right: SQLite reads it for these only, before it turns to the WAL.
 *
 * A damaged page is answered with SQLITE_IOERR_DATA: like every I/O error it rolls back the whole
 * transaction, where SQLITE_CORRUPT would undo one statement and leave the rest to be committed.
 *
 * The locks of a main file, and the WAL's index, are the shim's own where it is built upon SQLite's VFS for
 * Unix (checked_locks.h says why); upon any other they are those of the VFS beneath.
 *
 * Rejected: to decide by byte 20 of page 1 whether a file is checked (as SQLite's own cksumvfs does):
 * pages that are spilled before page 1 would stay unstamped. Every main file opened through this VFS
 * is a checked one.
 */
#include "checked.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <xxhash.h>

#include "base/bytes.h"
#include "base/error.h"
#include "checked_file.h"
#include "lock_file.h"

#define INDEX_WRITE_LOCK 0 /* which of the locks of the WAL's index: WAL_WRITE_LOCK in SQLite's format document */
#define READ_AGAIN 8 /* attempts at page 1 or any other mismatch, 0.1 ms more apart each time */

/* Bytes 0..23 of page 1 of a catalog in WAL mode: text, page size 4096, WAL for writers and
 * readers, 8 reserved bytes, payload fractions. */
static const unsigned char encrypted_begins[16] = "vecdb encrypted"; /* FORMAT.md, "Encryption" */
static const unsigned char page_1_begins[24] = "SQLite format 3\0\x10\x00\x02\x02\x08\x40\x20\x20";

static struct checked_file *checked_of(sqlite3_file *file)
{
    return (struct checked_file *)(void *)file;
}

static struct vdb_checked *vfs_of(sqlite3_vfs *vfs)
{
    return vfs->pAppData;
}

/* ---- damage and faults */

int vdb_checked_note(struct vdb_checked *checked, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    pthread_mutex_lock(&checked->mutex);
    int n = snprintf(checked->sentence, sizeof checked->sentence, "catalog.sqlite: ");
    vsnprintf(checked->sentence + n, sizeof checked->sentence - (size_t)n, format, args);
    checked->damaged = true;
    pthread_mutex_unlock(&checked->mutex);
    va_end(args);
    return SQLITE_IOERR_DATA;
}

bool vdb_checked_damage(struct vdb_checked *checked, char *sentence, size_t n_bytes)
{
    pthread_mutex_lock(&checked->mutex);
    bool damaged = checked->damaged;
    if (damaged)
        snprintf(sentence, n_bytes, "%s", checked->sentence);
    pthread_mutex_unlock(&checked->mutex);
    return damaged;
}

bool vdb_checked_is_encrypted(const struct vdb_checked *checked)
{
    return checked->is_encrypted;
}

int vdb_checked_fault(struct vdb_checked *checked, enum vdb_io_op op, const char *name, int code)
{
    if (!checked->hook)
        return SQLITE_OK;
    int os_error = checked->hook->before(checked->hook->context, op, name ? name : "");
    if (!os_error)
        return SQLITE_OK;
    if (os_error == ENOMEM)
        return SQLITE_IOERR_NOMEM;
    bool full = os_error == ENOSPC || os_error == EDQUOT;
    return full && (op == VDB_IO_WRITE || op == VDB_IO_TRUNCATE) ? SQLITE_FULL : code;
}

/* ---- pages */

static uint64_t page_sum(const unsigned char *page, uint32_t number)
{
    return XXH3_64bits_withSeed(page, SUMMED_BYTES, number);
}

bool vdb_checked_page_is_good(const unsigned char *page, uint32_t number)
{
    return number == LOCK_PAGE || vdb_load_u64(page + SUMMED_BYTES) == page_sum(page, number);
}

/* The WAL was not looked into yet, and there is one. */
static bool before_the_wal(const struct checked_file *file)
{
    int exists = 0;
    sqlite3_vfs *base = file->checked->base;
    return !file->wal_seen && file->name &&
           base->xAccess(base, sqlite3_filename_wal(file->name), SQLITE_ACCESS_EXISTS, &exists) == SQLITE_OK && exists;
}

static int read_page_again(struct checked_file *file, unsigned char *page, uint32_t number)
{
    sqlite3_vfs *base = file->checked->base;
    for (int attempt = 0; attempt < READ_AGAIN; attempt++) {
        if (vdb_checked_page_is_good(page, number))
            return SQLITE_OK;
        if (number == 1 && !memcmp(page, page_1_begins, sizeof page_1_begins) && before_the_wal(file))
            return SQLITE_OK;
        base->xSleep(base, 100 * attempt);
        int rc = file->inner->pMethods->xRead(file->inner, page, PAGE_BYTES, (sqlite3_int64)(number - 1) * PAGE_BYTES);
        if (rc)
            return rc;
    }
    if (number == 1 && memcmp(page, page_1_begins, 16))
        return vdb_checked_note(file->checked, "page 1 is damaged, or this is no SQLite file");
    if (number == 1 && page[20] != VDB_CATALOG_RESERVE_BYTES)
        return vdb_checked_note(file->checked, "page 1 is damaged, or this is not a vecdb catalog");
    return vdb_checked_note(file->checked, "page %u is damaged (checksum)", (unsigned)number);
}

/* A page that could not be read whole. SQLite reads pages that its own transaction has just added, which
 * are not in the file yet, and takes what is missing for zeros; so is a page that the last commit counts,
 * or of which a part is there, only when the file was cut short. (With an empty WAL, and so no count, SQLite
 * itself compares the file's size with the header.) */
static int read_short(struct checked_file *file, uint32_t number)
{
    sqlite3_int64 size = 0;
    int rc = file->inner->pMethods->xFileSize(file->inner, &size);
    if (rc)
        return rc;
    if (number <= vdb_checked_committed_pages(file) || (sqlite3_int64)(number - 1) * PAGE_BYTES < size)
        return vdb_checked_note(file->checked, "page %u lies beyond the end of the file", (unsigned)number);
    return SQLITE_IOERR_SHORT_READ;
}

static int verify_main(struct checked_file *file, void *bytes, int n_bytes, sqlite3_int64 offset, int rc)
{
    if (n_bytes < 512) /* pieces of the header: for the page size, or to see a change */
        return rc;
    if (n_bytes != PAGE_BYTES || offset % PAGE_BYTES)
        return vdb_checked_note(file->checked, "the header tells a page size that is not %d", PAGE_BYTES);
    uint32_t number = (uint32_t)(offset / PAGE_BYTES) + 1;
    if (rc == SQLITE_IOERR_SHORT_READ && number > 1)
        return read_short(file, number);
    if (!rc && number == 1 && !memcmp(bytes, encrypted_begins, sizeof encrypted_begins)) {
        file->checked->is_encrypted = true;
        return vdb_checked_note(file->checked, "it is encrypted");
    }
    if (rc || vdb_checked_page_is_good(bytes, number))
        return rc;
    return read_page_again(file, bytes, number);
}

/* ---- the methods of a file */

static bool has_locks(const struct checked_file *file)
{
    return file->checked->has_locks && file->kind == FILE_MAIN;
}

static int file_close(sqlite3_file *self)
{
    struct checked_file *file = checked_of(self);
    if (file->main)
        file->main->wal = NULL; /* SQLite closes the main file last */
    int rc = file->inner->pMethods ? file->inner->pMethods->xClose(file->inner) : SQLITE_OK;
    if (has_locks(file))
        vdb_locks_release(&file->locks);
    vdb_free(file->checked->memory, file->gathered);
    vdb_free(file->checked->memory, file->page);
    file->gathered = NULL;
    file->page = NULL;
    return rc;
}

static int file_read(sqlite3_file *self, void *bytes, int n_bytes, sqlite3_int64 offset)
{
    struct checked_file *file = checked_of(self);
    int rc = vdb_checked_fault(file->checked, VDB_IO_READ, file->name, SQLITE_IOERR_READ);
    if (!rc)
        rc = vdb_checked_flush(file);
    if (rc)
        return rc;
    if (file->kind == FILE_WAL && n_bytes == PAGE_BYTES)
        rc = vdb_checked_read_page(file, bytes, offset);
    else
        rc = file->inner->pMethods->xRead(file->inner, bytes, n_bytes, offset);
    if (rc && rc != SQLITE_IOERR_SHORT_READ)
        return rc;
    atomic_fetch_add_explicit(&file->checked->n_read, (uint64_t)n_bytes, memory_order_relaxed);
    return file->kind == FILE_MAIN ? verify_main(file, bytes, n_bytes, offset, rc) : rc;
}

static int file_write(sqlite3_file *self, const void *bytes, int n_bytes, sqlite3_int64 offset)
{
    struct checked_file *file = checked_of(self);
    const unsigned char *from = bytes;
    if (file->mark_failed)
        return file->fault;
    if (file->kind == FILE_WAL)
        return vdb_checked_gather(file, bytes, n_bytes, offset);
    if (file->kind == FILE_MAIN) {
        if (n_bytes != PAGE_BYTES || offset % PAGE_BYTES ||
            (offset == 0 && from[20] != VDB_CATALOG_RESERVE_BYTES && from[0])) {
            vdb_checked_note(file->checked, "a page to be written is not of a checked file (size, reserved bytes)");
            return SQLITE_IOERR_WRITE;
        }
        memcpy(file->page, from, SUMMED_BYTES);
        vdb_store_u64(file->page + SUMMED_BYTES, page_sum(from, (uint32_t)(offset / PAGE_BYTES) + 1));
        bytes = file->page;
    }
    int rc = vdb_checked_fault(file->checked, VDB_IO_WRITE, file->name, SQLITE_IOERR_WRITE);
    if (rc) {
        /* A failing disk may well have written a part. */
        if (rc == SQLITE_IOERR_WRITE && n_bytes > 1)
            file->inner->pMethods->xWrite(file->inner, bytes, n_bytes / 2, offset);
        return rc;
    }
    atomic_fetch_add_explicit(&file->checked->n_written, (uint64_t)n_bytes, memory_order_relaxed);
    return file->inner->pMethods->xWrite(file->inner, bytes, n_bytes, offset);
}

static int file_truncate(sqlite3_file *self, sqlite3_int64 size)
{
    struct checked_file *file = checked_of(self);
    int rc = vdb_checked_fault(file->checked, VDB_IO_TRUNCATE, file->name, SQLITE_IOERR_TRUNCATE);
    if (!rc && file->mark_failed)
        rc = file->fault;
    if (!rc)
        rc = vdb_checked_flush(file);
    return rc ? rc : file->inner->pMethods->xTruncate(file->inner, size);
}

/* What a sync that failed left in the system's memory is taken for clean: the next sync would say that it is durable.
 * Commits without full durability may be in it, and a later one with it relies on their frames. So all is written
 * again; writers and checkpoints hold the gate. The next sync may be another process's, hence the doubt is in `state`;
 * and set before a sync, because a process may be killed while it waits for one. */
static int write_again(struct checked_file *file)
{
    sqlite3_file *inner = file->inner;
    enum { PIECE = 1 << 16 };
    sqlite3_int64 size, at = 0;
    unsigned char *piece = vdb_alloc(file->checked->memory, PIECE);
    int rc = piece ? inner->pMethods->xFileSize(inner, &size) : SQLITE_IOERR_NOMEM;
    for (int n; !rc && at < size; at += n) {
        n = size - at < PIECE ? (int)(size - at) : PIECE;
        rc = inner->pMethods->xRead(inner, piece, n, at);
        if (!rc)
            rc = inner->pMethods->xWrite(inner, piece, n, at);
    }
    vdb_free(file->checked->memory, piece);
    return rc;
}

static int file_sync(sqlite3_file *self, int flags)
{
    struct checked_file *file = checked_of(self);
    struct vdb_state *state = file->checked->state;
    /* A backup that is being written has no state, and does not outlive a failure. */
    bool is_wal = file->kind == FILE_WAL && state;
    bool was_doubtful = is_wal && vdb_state_doubt(state);
    if (is_wal)
        vdb_state_set_doubt(state, true);
    int rc = vdb_checked_flush(file);
    if (!rc)
        rc = vdb_checked_fault(file->checked, VDB_IO_SYNC, file->name, SQLITE_IOERR_FSYNC);
    if (!rc && file->mark_failed)
        rc = file->fault;
    if (!rc && was_doubtful)
        rc = write_again(file);
    if (!rc)
        rc = file->inner->pMethods->xSync(file->inner, flags);
    if (!rc && is_wal)
        vdb_state_set_doubt(state, false);
    if (!rc && file->in_checkpoint) {
        /* Complete: SQLite syncs the main file when all frames are copied, then forgets the WAL. */
        int status = vdb_state_clear_mark(state, NULL);
        if (status)
            return status == VECDB_FULL ? SQLITE_FULL : SQLITE_IOERR_FSYNC;
        file->in_checkpoint = false;
    }
    return rc;
}

/* A writer that was killed before its first frame leaves a WAL that is a header and nothing else. A reader that makes
 * an index of its own does not take the salts of such a one, compares them with the file's all the same, and tries
 * again until it gives up with SQLITE_PROTOCOL. To it an empty WAL is the same, and is understood. */
static int file_size(sqlite3_file *self, sqlite3_int64 *size)
{
    struct checked_file *file = checked_of(self);
    int rc = vdb_checked_fault(file->checked, VDB_IO_SIZE, file->name, SQLITE_IOERR_FSTAT);
    if (!rc)
        rc = vdb_checked_flush(file);
    if (!rc)
        rc = file->inner->pMethods->xFileSize(file->inner, size);
    if (!rc && file->kind == FILE_WAL && file->checked->readonly && *size == WAL_HEADER_BYTES)
        *size = 0;
    return rc;
}

static int file_lock(sqlite3_file *self, int level)
{
    struct checked_file *file = checked_of(self);
    int rc = vdb_checked_fault(file->checked, VDB_IO_LOCK, file->name, SQLITE_IOERR_LOCK);
    if (rc)
        return rc;
    return has_locks(file) ? vdb_locks_raise(&file->locks, level) : file->inner->pMethods->xLock(file->inner, level);
}

static int file_unlock(sqlite3_file *self, int level)
{
    struct checked_file *file = checked_of(self);
    return has_locks(file) ? vdb_locks_lower(&file->locks, level) : file->inner->pMethods->xUnlock(file->inner, level);
}

static int file_check_reserved_lock(sqlite3_file *self, int *reserved)
{
    struct checked_file *file = checked_of(self);
    return has_locks(file) ? vdb_locks_reserved(&file->locks, reserved)
                           : file->inner->pMethods->xCheckReservedLock(file->inner, reserved);
}

/* SQLite ignores what CKPT_START answers, so a failure is kept for the writes that follow. */
static void begin_checkpoint(struct checked_file *file)
{
    uint32_t n_frames, salt2;
    file->in_checkpoint = false;
    file->mark_failed = false;
    if (!vdb_checked_index(file, &n_frames, &salt2))
        return;
    vecdb_error err = VECDB_ERROR_INIT;
    int rc = vdb_state_set_mark(file->checked->state, n_frames, salt2, &err);
    file->mark_failed = rc != VECDB_OK;
    file->in_checkpoint = !file->mark_failed;
    file->fault = rc == VECDB_FULL ? SQLITE_FULL : SQLITE_IOERR_WRITE;
}

static int file_control(sqlite3_file *self, int op, void *argument)
{
    struct checked_file *file = checked_of(self);
    if (op == SQLITE_FCNTL_CKPT_START && file->is_catalog)
        begin_checkpoint(file);
    int rc = file->inner->pMethods->xFileControl(file->inner, op, argument);
    return op == SQLITE_FCNTL_CKPT_START && rc == SQLITE_NOTFOUND ? SQLITE_OK : rc;
}

static int file_sector_size(sqlite3_file *self)
{
    return checked_of(self)->inner->pMethods->xSectorSize(checked_of(self)->inner);
}

static int file_device_characteristics(sqlite3_file *self)
{
    return checked_of(self)->inner->pMethods->xDeviceCharacteristics(checked_of(self)->inner);
}

static int file_shm_map(sqlite3_file *self, int region, int n_bytes, int extend, void volatile **at)
{
    struct checked_file *file = checked_of(self);
    int rc = vdb_checked_fault(file->checked, VDB_IO_SHM, file->name, SQLITE_IOERR_SHMMAP);
    if (rc) {
        *at = NULL;
        return rc;
    }
    rc = has_locks(file) ? vdb_locks_shm_map(&file->locks, region, n_bytes, extend, at)
                         : file->inner->pMethods->xShmMap(file->inner, region, n_bytes, extend, at);
    if (region == 0) {
        file->index = *at;
        /* READONLY without a region: SQLite goes on with an index in memory of its own. */
        file->wal_seen |= rc == SQLITE_OK || (rc & 0xff) == SQLITE_READONLY;
    }
    return rc;
}

static int file_shm_lock(sqlite3_file *self, int offset, int n, int flags)
{
    struct checked_file *file = checked_of(self);
    if (flags & SQLITE_SHM_LOCK) { /* to give a lock back must not fail */
        int rc = vdb_checked_fault(file->checked, VDB_IO_SHM, file->name, SQLITE_IOERR_SHMLOCK);
        if (rc)
            return rc;
    } else if (file->wal && offset == INDEX_WRITE_LOCK && flags & SQLITE_SHM_EXCLUSIVE) {
        vdb_checked_forget(file->wal);
    }
    return has_locks(file) ? vdb_locks_shm_lock(&file->locks, offset, n, flags)
                           : file->inner->pMethods->xShmLock(file->inner, offset, n, flags);
}

static void file_shm_barrier(sqlite3_file *self)
{
    if (has_locks(checked_of(self)))
        atomic_fetch_add(&checked_of(self)->checked->n_barriers, 1); /* sequentially consistent, as a fence is */
    else
        checked_of(self)->inner->pMethods->xShmBarrier(checked_of(self)->inner);
}

static int file_shm_unmap(sqlite3_file *self, int remove)
{
    struct checked_file *file = checked_of(self);
    file->index = NULL;
    file->wal_seen = false;
    if (!has_locks(file))
        return file->inner->pMethods->xShmUnmap(file->inner, remove);
    vdb_locks_shm_unmap(&file->locks, remove);
    return SQLITE_OK;
}

static const sqlite3_io_methods methods = {
    .iVersion = 2, /* no xFetch: bytes come by xRead only */
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = file_lock,
    .xUnlock = file_unlock,
    .xCheckReservedLock = file_check_reserved_lock,
    .xFileControl = file_control,
    .xSectorSize = file_sector_size,
    .xDeviceCharacteristics = file_device_characteristics,
    .xShmMap = file_shm_map,
    .xShmLock = file_shm_lock,
    .xShmBarrier = file_shm_barrier,
    .xShmUnmap = file_shm_unmap,
};

/* ---- the methods of the VFS */

static enum file_kind kind_of(const char *name, int flags)
{
    if (name && flags & SQLITE_OPEN_MAIN_DB)
        return FILE_MAIN;
    return name && flags & SQLITE_OPEN_WAL ? FILE_WAL : FILE_OTHER;
}

/* SQLite makes a main file with mode 0644, and less by the umask; like all others it is to have what the umask leaves,
 * so that a group can share a database. (The WAL and its index take the mode of the main file.) A file that was made
 * just now has no locks that the closing of a descriptor could drop. */
static void make_main_file(const char *name)
{
    int fd = -1;
    if (!vdb_lock_file_open(name, O_RDWR | O_CREAT | O_EXCL, 0666, &fd))
        vdb_lock_file_close(fd); /* where it could not be made, SQLite's own attempt tells why */
}

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *self, int flags, int *out_flags)
{
    struct vdb_checked *checked = vfs_of(vfs);
    struct checked_file *file = checked_of(self);
    memset(file, 0, sizeof *file);
    file->checked = checked;
    file->name = name;
    file->kind = kind_of(name, flags);
    file->inner = (sqlite3_file *)(void *)(file + 1);
    file->inner->pMethods = NULL;
    file->locks = (struct vdb_locks){.memory = checked->memory, .fd = -1, .index_fd = -1};
    int rc = vdb_checked_fault(checked, VDB_IO_OPEN, name, SQLITE_CANTOPEN);
    if (rc)
        return rc;
    size_t copy_bytes = file->kind == FILE_WAL ? 2 * FRAME_BYTES - 16 : PAGE_BYTES;
    if (file->kind != FILE_OTHER && !(file->page = vdb_alloc(checked->memory, copy_bytes)))
        return SQLITE_NOMEM;
    if (file->kind == FILE_MAIN)
        file->is_catalog = checked->path && !strcmp(name, checked->path);
    if (file->kind == FILE_WAL)
        file->main = checked_of(sqlite3_database_file_object(name));
    if (file->kind == FILE_WAL && checked->readonly)
        flags = (flags & ~(SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE)) | SQLITE_OPEN_READONLY;
    if (file->kind == FILE_MAIN && flags & SQLITE_OPEN_CREATE && checked->is_on_disk)
        make_main_file(name);
    rc = checked->base->xOpen(checked->base, name, file->inner, flags, out_flags);
    if (!rc && has_locks(file)) {
        bool readonly = (out_flags ? *out_flags : flags) & SQLITE_OPEN_READONLY;
        rc = vdb_locks_init(&file->locks, checked->memory, name, readonly);
        if (rc) {
            int os_error = errno;
            file->inner->pMethods->xClose(file->inner);
            file->inner->pMethods = NULL;
            errno = os_error;
        }
    }
    if (file->inner->pMethods) /* SQLite wants xClose then, also after a failure */
        file->file.pMethods = &methods;
    if (file->main && file->inner->pMethods)
        file->main->wal = file;
    if (!file->inner->pMethods) {
        vdb_free(checked->memory, file->page);
        file->page = NULL;
    }
    return rc;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
    struct vdb_checked *checked = vfs_of(vfs);
    int rc = vdb_checked_fault(checked, VDB_IO_REMOVE, name, SQLITE_IOERR_DELETE);
    return rc ? rc : checked->base->xDelete(checked->base, name, sync);
}

static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *answer)
{
    struct vdb_checked *checked = vfs_of(vfs);
    int rc = vdb_checked_fault(checked, VDB_IO_DIRECTORY, name, SQLITE_IOERR_ACCESS);
    return rc ? rc : checked->base->xAccess(checked->base, name, flags, answer);
}

static int vfs_full_pathname(sqlite3_vfs *vfs, const char *name, int n_out, char *out)
{
    return vfs_of(vfs)->base->xFullPathname(vfs_of(vfs)->base, name, n_out, out);
}

static void *vfs_dl_open(sqlite3_vfs *vfs, const char *name)
{
    return vfs_of(vfs)->base->xDlOpen(vfs_of(vfs)->base, name);
}

static void vfs_dl_error(sqlite3_vfs *vfs, int n_bytes, char *message)
{
    vfs_of(vfs)->base->xDlError(vfs_of(vfs)->base, n_bytes, message);
}

static void (*vfs_dl_sym(sqlite3_vfs *vfs, void *library, const char *symbol))(void)
{
    return vfs_of(vfs)->base->xDlSym(vfs_of(vfs)->base, library, symbol);
}

static void vfs_dl_close(sqlite3_vfs *vfs, void *library)
{
    vfs_of(vfs)->base->xDlClose(vfs_of(vfs)->base, library);
}

static int vfs_randomness(sqlite3_vfs *vfs, int n_bytes, char *out)
{
    return vfs_of(vfs)->base->xRandomness(vfs_of(vfs)->base, n_bytes, out);
}

static int vfs_sleep(sqlite3_vfs *vfs, int microseconds)
{
    return vfs_of(vfs)->base->xSleep(vfs_of(vfs)->base, microseconds);
}

static int vfs_current_time(sqlite3_vfs *vfs, double *now)
{
    return vfs_of(vfs)->base->xCurrentTime(vfs_of(vfs)->base, now);
}

static int vfs_get_last_error(sqlite3_vfs *vfs, int n_bytes, char *message)
{
    return vfs_of(vfs)->base->xGetLastError(vfs_of(vfs)->base, n_bytes, message);
}

static int vfs_current_time_64(sqlite3_vfs *vfs, sqlite3_int64 *now)
{
    return vfs_of(vfs)->base->xCurrentTimeInt64(vfs_of(vfs)->base, now);
}

/* ---- registration */

/* Names as SQLite will give them to xOpen: resolved, and made by sqlite3_create_filename. */
static int set_paths(struct vdb_checked *checked, const char *path, vecdb_error *err)
{
    size_t n_bytes = (size_t)checked->base->mxPathname + 1;
    checked->path = vdb_alloc_zero(checked->memory, n_bytes);
    checked->wal_path = vdb_alloc_zero(checked->memory, n_bytes + 4);
    if (!checked->path || !checked->wal_path)
        return vdb_fail_memory(err, n_bytes);
    int rc = checked->base->xFullPathname(checked->base, path, (int)n_bytes, checked->path);
    if (rc && rc != SQLITE_OK_SYMLINK)
        return vdb_fail(err, VECDB_INVALID, "the path %s cannot be resolved, or is too long", path);
    snprintf(checked->wal_path, n_bytes + 4, "%s-wal", checked->path);
    return VECDB_OK;
}

static void fill_vfs(struct vdb_checked *checked)
{
    sqlite3_vfs *base = checked->base;
    checked->vfs = (sqlite3_vfs){
        .iVersion = base->iVersion < 2 ? base->iVersion : 2,
        .szOsFile = (int)sizeof(struct checked_file) + base->szOsFile,
        .mxPathname = base->mxPathname,
        .zName = checked->name,
        .pAppData = checked,
        .xOpen = vfs_open,
        .xDelete = vfs_delete,
        .xAccess = vfs_access,
        .xFullPathname = vfs_full_pathname,
        .xDlOpen = base->xDlOpen ? vfs_dl_open : NULL,
        .xDlError = base->xDlError ? vfs_dl_error : NULL,
        .xDlSym = base->xDlSym ? vfs_dl_sym : NULL,
        .xDlClose = base->xDlClose ? vfs_dl_close : NULL,
        .xRandomness = vfs_randomness,
        .xSleep = vfs_sleep,
        .xCurrentTime = vfs_current_time,
        .xGetLastError = vfs_get_last_error,
        .xCurrentTimeInt64 = base->iVersion >= 2 && base->xCurrentTimeInt64 ? vfs_current_time_64 : NULL,
    };
}

int vdb_checked_new(const struct vdb_checked_options *options, struct vdb_checked **out, vecdb_error *err)
{
    static _Atomic uint64_t last_number;
    int rc = sqlite3_initialize();
    if (rc)
        return vdb_fail(err, VECDB_INTERNAL, "SQLite cannot be initialised: %s", sqlite3_errstr(rc));
    struct vdb_checked *checked = vdb_alloc_zero(options->memory, sizeof *checked);
    if (!checked)
        return vdb_fail_memory(err, sizeof *checked);
    checked->memory = options->memory;
    checked->state = options->state;
    checked->hook = options->hook;
    checked->readonly = options->readonly;
    checked->base = options->base ? options->base : vdb_locks_base();
    checked->is_on_disk = !options->base;
    checked->has_locks = checked->is_on_disk && checked->base;
    if (!checked->base)
        checked->base = sqlite3_vfs_find(NULL);
    vdb_locks_watch_forks();
    pthread_mutex_init(&checked->mutex, NULL);
    snprintf(checked->name, sizeof checked->name, "vecdb-%llu",
             (unsigned long long)atomic_fetch_add(&last_number, 1) + 1);
    if (!checked->base) {
        rc = vdb_fail(err, VECDB_UNSUPPORTED, "this SQLite has no default VFS");
    } else {
        fill_vfs(checked);
        rc = options->path ? set_paths(checked, options->path, err) : VECDB_OK;
    }
    if (!rc && sqlite3_vfs_register(&checked->vfs, 0))
        rc = vdb_fail_memory(err, sizeof checked->vfs);
    if (rc) {
        vdb_checked_free(checked);
        return rc;
    }
    *out = checked;
    return VECDB_OK;
}

void vdb_checked_free(struct vdb_checked *checked)
{
    if (!checked)
        return;
    sqlite3_vfs_unregister(&checked->vfs);
    pthread_mutex_destroy(&checked->mutex);
    vdb_free(checked->memory, checked->path);
    vdb_free(checked->memory, checked->wal_path);
    vdb_free(checked->memory, checked);
}

const char *vdb_checked_name(const struct vdb_checked *checked)
{
    return checked->name;
}

void vdb_checked_get_bytes(const struct vdb_checked *checked, uint64_t *n_read, uint64_t *n_written)
{
    *n_read = atomic_load_explicit(&checked->n_read, memory_order_relaxed);
    *n_written = atomic_load_explicit(&checked->n_written, memory_order_relaxed);
}
