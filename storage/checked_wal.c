/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/checked_wal.c - the sums of WAL frames, and the mark of a checkpoint (see checked.h)
 *
 * SQLite chains its frames by a running sum, which it verifies once, when it recovers a WAL, and never
 * again. The format is SQLite's ("The Write-Ahead Log" in its file format document):
 *
 *     | magic version page-size sequence salt-1 salt-2 sum-1 sum-2 |                    32 bytes
 *     | page-number size-after-commit salt-1 salt-2 sum-1 sum-2 | page |                24 + 4096, i = 0, 1, ...
 *
 *     sum of frame i = sum over (sum of frame i - 1, first 8 bytes of its header, page)
 *
 * All fields are big-endian; the words that are summed are big-endian when the magic's low bit is set.
 * The sum of frame i - 1 as it is stored is enough to verify frame i: not a walk, but one read that begins
 * at that sum. It takes the page in between along, which costs less than two more system calls. Frames
 * behind the committed end (spilled by a transaction that is not finished, and rewritten in place by it)
 * have no sums to rely upon, and are its own: they are passed.
 *
 * What a walk is for: at open, when `state` holds a mark. Then a checkpoint was cut off, pages of those
 * frames may be in the main file already, and if SQLite's recovery stopped at a damaged frame before the
 * marked end it would combine them with older pages. So that many frames have to be valid.
 */
#include <stdio.h>

#include "base/error.h"
#include "checked_file.h"

#define MAGIC 0x377f0682u /* the low bit: sums over big-endian words */
#define INDEX_MX_FRAME 16 /* offsets in the header of the WAL's index, in native byte order ... */
#define INDEX_N_PAGES 20
#define INDEX_BIG_ENDIAN 13
#define INDEX_SALT_1 32 /* ... the salts as they are in the file */
#define FRAMES_PER_READ 16
#define READ_AGAIN 4

static uint32_t load_big(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | (uint32_t)at[3];
}

static uint32_t load_little(const unsigned char *at)
{
    return (uint32_t)at[3] << 24 | (uint32_t)at[2] << 16 | (uint32_t)at[1] << 8 | (uint32_t)at[0];
}

struct sum {
    uint32_t s1, s2;
};

/* n_bytes is a multiple of 8. Fibonacci-weighted, as SQLite's format document defines it. */
static struct sum add_to_sum(struct sum sum, bool big, const unsigned char *bytes, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i += 8) {
        sum.s1 += (big ? load_big(bytes + i) : load_little(bytes + i)) + sum.s2;
        sum.s2 += (big ? load_big(bytes + i + 4) : load_little(bytes + i + 4)) + sum.s1;
    }
    return sum;
}

static struct sum stored_sum(const unsigned char *at)
{
    return (struct sum){load_big(at), load_big(at + 4)};
}

static bool sums_equal(struct sum a, struct sum b)
{
    return a.s1 == b.s1 && a.s2 == b.s2;
}

static bool frame_is_good(struct sum before, bool big, const unsigned char header[FRAME_HEADER_BYTES],
                          const unsigned char *page)
{
    struct sum sum = add_to_sum(before, big, header, 8);
    return sums_equal(add_to_sum(sum, big, page, PAGE_BYTES), stored_sum(header + 16));
}

/* ---- the WAL's index, shared memory that SQLite writes under its own locks */

static uint32_t index_word(const struct checked_file *main, size_t at)
{
    const volatile unsigned char *index = main->index;
    return __atomic_load_n((const volatile uint32_t *)(const volatile void *)(index + at), __ATOMIC_RELAXED);
}

static uint32_t index_salt(const struct checked_file *main, int i)
{
    uint32_t word = index_word(main, INDEX_SALT_1 + 4 * (size_t)i);
    unsigned char bytes[4];
    memcpy(bytes, &word, sizeof bytes);
    return load_big(bytes);
}

uint32_t vdb_checked_committed_pages(const struct checked_file *main)
{
    return main->index ? index_word(main, INDEX_N_PAGES) : 0;
}

bool vdb_checked_index(const struct checked_file *main, uint32_t *n_frames, uint32_t *salt2)
{
    if (!main->index)
        return false;
    *n_frames = index_word(main, INDEX_MX_FRAME);
    *salt2 = index_salt(main, 1);
    return true;
}

static bool index_big_endian(const struct checked_file *main)
{
    const volatile unsigned char *index = main->index;
    return index[INDEX_BIG_ENDIAN] != 0;
}

/* ---- a frame that was read */

/* The byte order of the sums. Without an index (a read-only connection that rebuilds it in its own memory) it
 * comes from the file. */
static int get_byte_order(const struct checked_file *wal, bool *big)
{
    unsigned char bytes[4];
    if (wal->main && wal->main->index) {
        *big = index_big_endian(wal->main);
        return SQLITE_OK;
    }
    int rc = wal->inner->pMethods->xRead(wal->inner, bytes, sizeof bytes, 0);
    *big = load_big(bytes) & 1;
    return rc;
}

int vdb_checked_read_page(struct checked_file *wal, unsigned char *page, sqlite3_int64 offset)
{
    sqlite3_file *inner = wal->inner;
    sqlite3_int64 at = offset - WAL_HEADER_BYTES - FRAME_HEADER_BYTES;
    uint32_t i = (uint32_t)(at / FRAME_BYTES);
    bool indexed = wal->main && wal->main->index, big;
    if (at < 0 || at % FRAME_BYTES || (indexed && i >= index_word(wal->main, INDEX_MX_FRAME)))
        return inner->pMethods->xRead(inner, page, PAGE_BYTES, offset);
    /* The sum that the chain had before lies at the end of the WAL's header, or of the header before. */
    int lead = i ? FRAME_BYTES - 16 : 8;
    int rc = inner->pMethods->xRead(inner, wal->page, lead + FRAME_BYTES, at + WAL_HEADER_BYTES - lead);
    const unsigned char *header = wal->page + lead;
    if (!rc || rc == SQLITE_IOERR_SHORT_READ) /* what is missing reads as zeros */
        memcpy(page, header + FRAME_HEADER_BYTES, PAGE_BYTES);
    if (!rc)
        rc = get_byte_order(wal, &big);
    if (rc)
        return rc;
    bool salted = !indexed || (load_big(header + 8) == index_salt(wal->main, 0) &&
                               load_big(header + 12) == index_salt(wal->main, 1));
    if (salted && frame_is_good(stored_sum(wal->page), big, header, page))
        return SQLITE_OK;
    return vdb_checked_note(wal->checked, "frame %u of the write-ahead log (catalog.sqlite-wal) is damaged (checksum)",
                            (unsigned)i + 1);
}

/* ---- a walk from the beginning */

static bool header_is_good(const unsigned char header[WAL_HEADER_BYTES], bool *big)
{
    if ((load_big(header) & ~1u) != MAGIC || load_big(header + 8) != PAGE_BYTES)
        return false;
    *big = load_big(header) & 1;
    struct sum sum = add_to_sum((struct sum){0, 0}, *big, header, WAL_HEADER_BYTES - 8);
    return sums_equal(sum, stored_sum(header + WAL_HEADER_BYTES - 8));
}

int vdb_checked_walk_wal(struct vdb_checked *checked, sqlite3_file *wal, uint32_t n_wanted, struct vdb_wal_walk *walk)
{
    return vdb_checked_walk_frames(checked, wal, 0, n_wanted, walk);
}

int vdb_checked_walk_frames(struct vdb_checked *checked, sqlite3_file *wal, uint32_t first, uint32_t n_wanted,
                            struct vdb_wal_walk *walk)
{
    unsigned char header[WAL_HEADER_BYTES];
    *walk = (struct vdb_wal_walk){0};
    int rc = vdb_checked_fault(checked, VDB_IO_READ, checked->wal_path, SQLITE_IOERR_READ);
    if (!rc)
        rc = wal->pMethods->xRead(wal, header, sizeof header, 0);
    bool big = false;
    if (rc || !header_is_good(header, &big))
        return rc == SQLITE_IOERR_SHORT_READ ? SQLITE_OK : rc;
    walk->header_is_good = true;
    walk->salt2 = load_big(header + 20);
    unsigned char before[8];
    memcpy(before, header + WAL_HEADER_BYTES - 8, sizeof before);
    if (first) {
        rc = wal->pMethods->xRead(wal, before, sizeof before,
                                  WAL_HEADER_BYTES + (sqlite3_int64)(first - 1) * FRAME_BYTES + 16);
        if (rc)
            return rc == SQLITE_IOERR_SHORT_READ ? SQLITE_OK : rc;
        walk->n_valid = first;
    }
    unsigned char *frames = vdb_alloc(checked->memory, FRAMES_PER_READ * FRAME_BYTES);
    if (!frames)
        return SQLITE_NOMEM;
    struct sum sum = stored_sum(before);
    for (bool more = true; more && walk->n_valid < n_wanted;) {
        uint32_t left = n_wanted - walk->n_valid;
        int n = left < FRAMES_PER_READ ? (int)left : FRAMES_PER_READ;
        rc = wal->pMethods->xRead(wal, frames, n * FRAME_BYTES,
                                  WAL_HEADER_BYTES + (sqlite3_int64)walk->n_valid * FRAME_BYTES);
        if (rc && rc != SQLITE_IOERR_SHORT_READ) /* what lies behind the end reads as zeros */
            break;
        more = rc == SQLITE_OK;
        rc = SQLITE_OK;
        for (int i = 0; i < n; i++) {
            const unsigned char *frame = frames + (size_t)i * FRAME_BYTES;
            if (memcmp(frame + 8, header + 16, 8) || !frame_is_good(sum, big, frame, frame + FRAME_HEADER_BYTES)) {
                more = false;
                break;
            }
            sum = stored_sum(frame + 16);
            walk->n_valid++;
        }
    }
    vdb_free(checked->memory, frames);
    return rc;
}

/* ---- the mark */

/* Open the WAL beneath the shim, beside whatever SQLite does: WAL files carry no locks that a close
 * could drop. */
static int count_frames(struct vdb_checked *checked, uint32_t n_wanted, struct vdb_wal_walk *walk)
{
    sqlite3_vfs *base = checked->base;
    sqlite3_file *wal = vdb_alloc_zero(checked->memory, (size_t)base->szOsFile);
    sqlite3_filename name = sqlite3_create_filename(checked->path, "", checked->wal_path, 0, NULL);
    *walk = (struct vdb_wal_walk){0};
    int rc = SQLITE_NOMEM, exists = 0;
    if (wal && name)
        rc = base->xAccess(base, checked->wal_path, SQLITE_ACCESS_EXISTS, &exists);
    if (!rc && exists) {
        rc = base->xOpen(base, sqlite3_filename_wal(name), wal, SQLITE_OPEN_WAL | SQLITE_OPEN_READONLY, NULL);
        if (!rc)
            rc = vdb_checked_walk_wal(checked, wal, n_wanted, walk);
        if (wal->pMethods)
            wal->pMethods->xClose(wal);
    }
    sqlite3_free_filename(name);
    vdb_free(checked->memory, wal);
    return rc;
}

static int fail_reading(int rc, vecdb_error *err)
{
    if (rc == SQLITE_NOMEM)
        return vdb_fail_memory(err, FRAMES_PER_READ * FRAME_BYTES);
    return vdb_fail(err, VECDB_IO, "cannot read catalog.sqlite-wal: %s", sqlite3_errstr(rc));
}

bool vdb_checked_header_is_cut(struct vdb_checked *checked)
{
    struct vdb_wal_walk walk;
    int exists = 0, rc = checked->base->xAccess(checked->base, checked->wal_path, SQLITE_ACCESS_EXISTS, &exists);
    return !rc && exists && !count_frames(checked, 0, &walk) && !walk.header_is_good;
}

int vdb_checked_test_header(struct vdb_checked *checked, vecdb_error *err)
{
    for (int attempt = 0; attempt < READ_AGAIN; attempt++) {
        struct vdb_wal_walk walk;
        int exists = 0, rc = checked->base->xAccess(checked->base, checked->wal_path, SQLITE_ACCESS_EXISTS, &exists);
        if (rc || !exists)
            return VECDB_OK;
        rc = count_frames(checked, 0, &walk);
        if (rc)
            return fail_reading(rc, err);
        if (walk.header_is_good)
            return VECDB_OK;
        checked->base->xSleep(checked->base, 1000 << attempt); /* a writer may be beginning it */
    }
    return vdb_fail(err, VECDB_CORRUPT,
                    "catalog.sqlite-wal: the header is damaged, or was cut off while it was written; open the database "
                    "once for writing to find out");
}

int vdb_checked_test_mark(struct vdb_checked *checked, vecdb_error *err)
{
    uint32_t n_marked, marked_salt2;
    struct vdb_wal_walk walk = {0};
    bool marked = vdb_state_get_mark(checked->state, &n_marked, &marked_salt2);
    bool stayed = false;
    while (marked && !stayed) {
        int rc = count_frames(checked, n_marked, &walk);
        if (rc)
            return fail_reading(rc, err);
        if (walk.salt2 == marked_salt2 && walk.n_valid >= n_marked)
            return VECDB_OK;
        /* Another process may have completed its checkpoint meanwhile: it clears the mark before it
         * touches the WAL, so only a mark that stayed is a sign of damage. */
        uint32_t n_before = n_marked, salt_before = marked_salt2;
        marked = vdb_state_get_mark(checked->state, &n_marked, &marked_salt2);
        stayed = n_before == n_marked && salt_before == marked_salt2;
    }
    if (!marked)
        return VECDB_OK;
    return vdb_fail(err, VECDB_CORRUPT,
                    "catalog.sqlite-wal: a checkpoint was cut off and needs the log's first %u frames, of which %u are "
                    "whole; restore the database from a backup",
                    (unsigned)n_marked, walk.salt2 == marked_salt2 ? (unsigned)walk.n_valid : 0u);
}
