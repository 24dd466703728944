/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/salvage_pages.c - the newest image of each page of a catalog (see salvage.h)
 *
 *     WAL     | header | frame | frame | BROKEN | frame | frame |          a frame: header of 24 bytes, page
 *              '------ the chain ------'
 *                                       '--- behind the break -'
 *     main    | page | page | page | ...                                   the last 8 bytes: the page's stamp
 *
 * SQLite reads a WAL up to the first frame that breaks the chain of sums, and no further; so does this file at
 * first. The frames behind can be verified all the same, each from the stored sum of the one before it. But to
 * use them is not always right: a transaction that was rolled back leaves whole frames behind the end, and may
 * have been overwritten in part, which looks the same as damage. Whether commits are missing is what `state`
 * tells; who calls compares, and opens once more with `past_breaks`, if they are.
 *
 * What is wrong with a frame is told by its neighbours. Its own stored sum damaged: the sum of the next frame is
 * right if it is computed on from what this one's bytes give, so both are whole. A bit of the page number: one of
 * 64 flips makes the sum right. Salts: they are not summed, and behind a whole frame not needed. Else its page is
 * damaged: it is used, and called doubtful, if it still reads like a page; if not, an older image is, in the WAL or in
 * the main file. Rows may be missing from that, rows that are in it may have been deleted since (which the table `dead`
 * tells). A frame whose header is gone may have held any page: that is counted, and nobody may conclude from what is
 * missing.
 *
 * The main file is verified by its stamps. Pages that the WAL holds are not looked at there: a checkpoint that
 * was cut off leaves them torn, and rightly so.
 */
#include "salvage_parts.h"

#include <stdio.h>

#include "base/error.h"
#include "checked_file.h"

#define WAL_MAGIC 0x377f0682u /* the low bit: sums over big-endian words */
#define MAP_ENTRIES (USABLE_BYTES / 5)
#define FIRST_MAP 2u
/* Page numbers of a WAL that is whole are close to what there is; more would only take memory. */
#define MOST_TIMES_LARGER 64u
#define STEP_EVERY 256u

int vdb_salvage_step(struct vdb_salvage *s, vecdb_error *err)
{
    return s->options.step ? s->options.step(s->options.step_context, err) : VECDB_OK;
}

/* ------------------------------------------------------------------ files */

static int open_file(struct vdb_salvage *s, const char *name, struct vdb_file **file, uint64_t *n_bytes,
                     vecdb_error *err)
{
    size_t room = strlen(s->options.directory) + strlen(name) + 2;
    char *path = vdb_alloc(s->memory, room);
    if (!path)
        return vdb_fail_memory(err, room);
    snprintf(path, room, "%s/%s", s->options.directory, name);
    enum vdb_path_kind kind;
    int status = s->vfs->kind(s->vfs, path, &kind, err);
    if (!status && kind == VDB_PATH_FILE && !(status = s->vfs->open(s->vfs, path, VDB_FILE_READ, file, err)))
        status = s->vfs->size(*file, n_bytes, err);
    vdb_free(s->memory, path);
    return status;
}

/* Read, and once more after an I/O error. `is_there` false: the file ends before, or the medium is bad. */
static int read_twice(struct vdb_file *file, uint64_t offset, void *into, size_t n_bytes, bool *is_there,
                      vecdb_error *err)
{
    vecdb_error own = VECDB_ERROR_INIT;
    int status = VECDB_IO;
    for (int attempt = 0; attempt < 2 && status == VECDB_IO; attempt++)
        status = file->vfs->read(file, offset, into, n_bytes, &own);
    *is_there = status == VECDB_OK;
    if (!status || status == VECDB_CORRUPT || status == VECDB_IO)
        return VECDB_OK;
    if (err)
        *err = own;
    return status;
}

/* ------------------------------------------------------------------ the WAL */

struct sum {
    uint32_t s1, s2;
};

static struct sum add_to_sum(struct sum sum, bool big, const unsigned char *bytes, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i += 8) {
        uint32_t a = vdb_salvage_u32(bytes + i), b = vdb_salvage_u32(bytes + i + 4);
        sum.s1 += (big ? a : __builtin_bswap32(a)) + sum.s2;
        sum.s2 += (big ? b : __builtin_bswap32(b)) + sum.s1;
    }
    return sum;
}

static struct sum stored_sum(const unsigned char *at)
{
    return (struct sum){vdb_salvage_u32(at), vdb_salvage_u32(at + 4)};
}

static bool is_sum(struct sum sum, const unsigned char *stored)
{
    struct sum other = stored_sum(stored);
    return sum.s1 == other.s1 && sum.s2 == other.s2;
}

struct wal_walk {
    struct vdb_salvage *s;
    unsigned char header[WAL_HEADER_BYTES];
    unsigned char frame[FRAME_BYTES];
    bool header_is_good, big;
    unsigned char salts[8];
    struct sum before;   /* the stored sum of the frame before */
    struct sum computed; /* the same as its bytes give it, if what was before it is known */
    bool has_computed;
    bool before_is_sure;                 /* the frame before is whole */
    uint32_t n_total;                    /* frames that the file has room for */
    bool is_unbroken;                    /* all frames so far, as SQLite sees it */
    uint32_t end_of_chain, end_of_all;   /* behind the last commit, without a break, and with any */
    uint32_t size_of_chain, size_of_all; /* pages that those commits left */
};

static bool read_wal_header(struct wal_walk *walk)
{
    const unsigned char *h = walk->header;
    walk->big = (vdb_salvage_u32(h) & ~1u) == WAL_MAGIC && (vdb_salvage_u32(h) & 1);
    if ((vdb_salvage_u32(h) & ~1u) != WAL_MAGIC || vdb_salvage_u32(h + 8) != VDB_SALVAGE_PAGE)
        return false;
    return is_sum(add_to_sum((struct sum){0, 0}, walk->big, h, WAL_HEADER_BYTES - 8), h + WAL_HEADER_BYTES - 8);
}

static uint64_t frame_at(uint32_t i)
{
    return WAL_HEADER_BYTES + (uint64_t)i * FRAME_BYTES;
}

static int add_frame(struct vdb_salvage *s, uint32_t page, uint32_t frame, bool is_whole, vecdb_error *err)
{
    if (s->n_frames == s->frames_capacity) {
        size_t capacity = s->frames_capacity ? 2 * s->frames_capacity : 256;
        struct salvage_frame *more = vdb_realloc_array(s->memory, s->frames, capacity, sizeof *more);
        if (!more)
            return vdb_fail_memory(err, capacity * sizeof *more);
        s->frames = more;
        s->frames_capacity = capacity;
    }
    s->frames[s->n_frames++] = (struct salvage_frame){page, is_whole ? frame : NO_FRAME, is_whole ? NO_FRAME : frame};
    return VECDB_OK;
}

static struct sum sum_of_frame(const struct wal_walk *walk, struct sum before)
{
    return add_to_sum(add_to_sum(before, walk->big, walk->frame, 8), walk->big, walk->frame + FRAME_HEADER_BYTES,
                      VDB_SALVAGE_PAGE);
}

/* Is one bit of the page's number or of the size wrong? Then it is put right. */
static bool mend_header(struct wal_walk *walk)
{
    for (int bit = 0; bit < 64; bit++) {
        walk->frame[bit / 8] ^= (unsigned char)(1 << bit % 8);
        if (is_sum(sum_of_frame(walk, walk->before), walk->frame + 16))
            return true;
        walk->frame[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    return false;
}

/* Judge the frame that was read. */
static bool is_whole_frame(struct wal_walk *walk, struct vdb_salvage *s)
{
    struct sum by_stored = sum_of_frame(walk, walk->before);
    /* Frames of an earlier use of the file fit each other as well; but their salts are others. */
    bool is_salted = !memcmp(walk->frame + 8, walk->salts, 8), is_whole = is_sum(by_stored, walk->frame + 16);
    walk->is_unbroken &= is_whole && is_salted;
    if (is_whole && (is_salted || walk->before_is_sure))
        return true;
    if (walk->has_computed && is_sum(sum_of_frame(walk, walk->computed), walk->frame + 16)) {
        struct salvage_frame *last = &s->frames[s->n_frames - 1]; /* only its stored sum was damaged */
        if (last->frame == NO_FRAME)
            *last = (struct salvage_frame){last->page, last->broken, NO_FRAME};
        return true;
    }
    if (walk->before_is_sure && mend_header(walk))
        return true;
    walk->computed = by_stored;
    walk->has_computed = walk->before_is_sure;
    return false;
}

static int look_at_frame(struct wal_walk *walk, uint32_t i, vecdb_error *err)
{
    struct vdb_salvage *s = walk->s;
    bool is_there;
    int status = read_twice(s->wal, frame_at(i), walk->frame, FRAME_BYTES, &is_there, err);
    if (status)
        return status;
    if (!is_there)
        memset(walk->frame, 0, FRAME_BYTES);
    const unsigned char *frame = walk->frame;
    bool is_whole = is_whole_frame(walk, s);
    bool is_ours = is_whole || !memcmp(frame + 8, walk->salts, 8);
    uint32_t page = vdb_salvage_u32(frame), size = vdb_salvage_u32(frame + 4);
    is_whole &= page != 0;
    if (is_whole)
        walk->has_computed = false;
    walk->before_is_sure = is_whole;
    walk->before = stored_sum(frame + 16);
    if (is_whole && size) {
        walk->end_of_all = i + 1;
        walk->size_of_all = size;
        if (walk->is_unbroken) {
            walk->end_of_chain = i + 1;
            walk->size_of_chain = size;
        }
    }
    return add_frame(s, is_ours ? page : 0, i, is_whole, err);
}

static uint32_t number_of(const struct salvage_frame *frame)
{
    return frame->frame != NO_FRAME ? frame->frame : frame->broken;
}

static int compare_frames(const void *a, const void *b)
{
    const struct salvage_frame *left = a, *right = b;
    if (left->page != right->page)
        return left->page < right->page ? -1 : 1;
    return number_of(left) < number_of(right) ? -1 : number_of(left) > number_of(right);
}

/* Of the frames before `end`, keep the newest whole one of each page, and the newest one, if that is broken. */
static void keep_newest(struct vdb_salvage *s, uint32_t end)
{
    size_t n = 0, kept = 0;
    for (size_t i = 0; i < s->n_frames; i++)
        if (number_of(&s->frames[i]) < end)
            s->frames[n++] = s->frames[i];
    if (n)
        qsort(s->frames, n, sizeof *s->frames, compare_frames);
    for (size_t i = 0; i < n;) {
        struct salvage_frame newest = {s->frames[i].page, NO_FRAME, NO_FRAME};
        for (; i < n && s->frames[i].page == newest.page; i++) {
            newest.broken = s->frames[i].broken;
            if (newest.broken == NO_FRAME)
                newest.frame = s->frames[i].frame;
            else if (!newest.page)
                s->report.n_nameless++;
        }
        if (newest.page)
            s->frames[kept++] = newest;
    }
    s->n_frames = kept;
}

/* How many pages the database has: as the last commit in the WAL left it, or as many as there are. */
static void count_pages(struct vdb_salvage *s, uint32_t size_after)
{
    uint64_t whole = s->main_bytes / VDB_SALVAGE_PAGE, most = whole;
    for (size_t i = 0; i < s->n_frames; i++)
        if (s->frames[i].page > most && s->frames[i].frame != NO_FRAME)
            most = s->frames[i].page;
    uint64_t limit = MOST_TIMES_LARGER * (whole + s->n_frames) + VDB_SALVAGE_PAGE;
    if (most > limit)
        most = limit;
    if (size_after && size_after < most)
        most = size_after;
    s->report.n_pages = most < UINT32_MAX / 2 ? (uint32_t)most : UINT32_MAX / 2;
}

static int walk_frames(struct wal_walk *walk, vecdb_error *err)
{
    struct vdb_salvage *s = walk->s;
    bool is_there;
    /* The salts of a header that is damaged are those of its frames. */
    memcpy(walk->salts, walk->header + 16, 8);
    if (!walk->header_is_good && walk->n_total > 1) {
        int status = read_twice(s->wal, frame_at(1), walk->frame, FRAME_HEADER_BYTES, &is_there, err);
        if (status)
            return status;
        if (is_there)
            memcpy(walk->salts, walk->frame + 8, 8);
    }
    walk->before = stored_sum(walk->header + WAL_HEADER_BYTES - 8);
    walk->is_unbroken = walk->before_is_sure = walk->header_is_good;
    int status = VECDB_OK;
    for (uint32_t i = 0; i < walk->n_total && !status; i++) {
        status = look_at_frame(walk, i, err);
        if (!status && i % STEP_EVERY == 0)
            status = vdb_salvage_step(s, err);
    }
    return status;
}

int vdb_salvage_read_wal(struct vdb_salvage *s, vecdb_error *err)
{
    uint64_t n_bytes = 0;
    struct wal_walk walk = {.s = s};
    bool is_there = false;
    int status = s->wal ? s->vfs->size(s->wal, &n_bytes, err) : VECDB_OK;
    if (!status && n_bytes >= WAL_HEADER_BYTES)
        status = read_twice(s->wal, 0, walk.header, WAL_HEADER_BYTES, &is_there, err);
    if (status)
        return status;
    if (n_bytes >= WAL_HEADER_BYTES) {
        uint64_t n_total = (n_bytes - WAL_HEADER_BYTES) / FRAME_BYTES;
        walk.n_total = n_total < UINT32_MAX - 1 ? (uint32_t)n_total : UINT32_MAX - 1;
        walk.header_is_good = is_there && read_wal_header(&walk);
        if ((status = walk_frames(&walk, err)))
            return status;
    }
    bool past = s->options.past_breaks;
    uint32_t end = past ? walk.end_of_all : walk.end_of_chain;
    for (size_t i = 0; i < s->n_frames && i < walk.end_of_all; i++) {
        s->report.n_broken += s->frames[i].frame == NO_FRAME;
        s->report.n_behind += s->frames[i].frame != NO_FRAME && i >= walk.end_of_chain;
    }
    s->report.n_frames = walk.end_of_chain;
    s->report.wal_is_damaged = walk.end_of_all > walk.end_of_chain;
    s->report.salt2 = walk.header_is_good ? vdb_salvage_u32(walk.header + 20) : 0;
    keep_newest(s, end);
    s->report.n_unplaced = s->report.n_nameless; /* each may have been of any page */
    count_pages(s, past ? walk.size_of_all : walk.size_of_chain);
    return VECDB_OK;
}

int vdb_salvage_open_files(struct vdb_salvage *s, vecdb_error *err)
{
    uint64_t ignored;
    int status = open_file(s, "catalog.sqlite", &s->main, &s->main_bytes, err);
    if (!status)
        status = open_file(s, "catalog.sqlite-wal", &s->wal, &ignored, err);
    s->report.is_missing = !s->main || !s->main_bytes;
    s->report.is_cut = s->main_bytes % VDB_SALVAGE_PAGE != 0;
    return status;
}

/* ------------------------------------------------------------------ images */

static bool is_zero(const unsigned char *page)
{
    for (size_t i = 0; i < VDB_SALVAGE_PAGE; i++)
        if (page[i])
            return false;
    return true;
}

static const struct salvage_frame *find_frame(const struct vdb_salvage *s, uint32_t page)
{
    size_t low = 0, high = s->n_frames;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (s->frames[middle].page < page)
            low = middle + 1;
        else
            high = middle;
    }
    return low < s->n_frames && s->frames[low].page == page ? &s->frames[low] : NULL;
}

/* Does a damaged image still read like a page with cells? */
static bool reads_like_a_page(const unsigned char *page, uint32_t number)
{
    struct salvage_header header;
    uint32_t n_good = 0;
    if (is_zero(page) || !vdb_salvage_header(page, number, &header))
        return false;
    bool is_interior = header.right_child != 0;
    for (uint32_t i = 0; i < header.n_cells; i++) {
        uint64_t rowid;
        n_good += is_interior ? vdb_salvage_child(page, &header, i) != 0 : vdb_salvage_rowid(page, &header, i, &rowid);
    }
    return n_good + 1 >= header.n_cells;
}

static int read_frame(struct vdb_salvage *s, uint32_t frame, unsigned char page[VDB_SALVAGE_PAGE], bool *is_there,
                      vecdb_error *err)
{
    return read_twice(s->wal, frame_at(frame) + FRAME_HEADER_BYTES, page, VDB_SALVAGE_PAGE, is_there, err);
}

int vdb_salvage_image(struct vdb_salvage *s, uint32_t number, unsigned char page[VDB_SALVAGE_PAGE],
                      enum vdb_trust *trust, vecdb_error *err)
{
    const struct salvage_frame *frame = find_frame(s, number);
    bool is_there = false, is_old = frame && frame->broken != NO_FRAME;
    int status = VECDB_OK;
    *trust = VDB_TRUST_LOST;
    if (is_old) {
        status = read_frame(s, frame->broken, page, &is_there, err);
        if (status || (is_there && reads_like_a_page(page, number))) {
            *trust = status ? VDB_TRUST_LOST : VDB_TRUST_DOUBTFUL;
            return status;
        }
    }
    if (frame && frame->frame != NO_FRAME) {
        status = read_frame(s, frame->frame, page, &is_there, err);
        if (is_there)
            *trust = is_old ? VDB_TRUST_DOUBTFUL : VDB_TRUST_GOOD;
        return status;
    }
    if (number && s->main && number <= s->main_bytes / VDB_SALVAGE_PAGE)
        status = read_twice(s->main, (uint64_t)(number - 1) * VDB_SALVAGE_PAGE, page, VDB_SALVAGE_PAGE, &is_there, err);
    else
        is_there = false;
    if (is_there && vdb_checked_page_is_good(page, number))
        *trust = is_old ? VDB_TRUST_DOUBTFUL : VDB_TRUST_GOOD;
    else if (is_there && !is_zero(page))
        *trust = s->options.unstamped && !is_old ? VDB_TRUST_GOOD : VDB_TRUST_DOUBTFUL;
    return status;
}

/* ------------------------------------------------------------------ the pointer map */

static uint32_t map_of(uint32_t number)
{
    uint32_t map = (number - FIRST_MAP) / (MAP_ENTRIES + 1) * (MAP_ENTRIES + 1) + FIRST_MAP;
    return map == LOCK_PAGE_NUMBER ? map + 1 : map;
}

bool vdb_salvage_is_map(uint32_t number)
{
    return number >= FIRST_MAP && map_of(number) == number;
}

int vdb_salvage_pointer(struct vdb_salvage *s, uint32_t number, struct salvage_pointer *pointer, bool *is_known,
                        vecdb_error *err)
{
    *is_known = false;
    if (number <= FIRST_MAP || number > s->report.n_pages || vdb_salvage_is_map(number))
        return VECDB_OK;
    uint32_t map = map_of(number);
    if (s->map_number != map) {
        s->map_number = 0;
        int status = vdb_salvage_image(s, map, s->map, &s->map_trust, err);
        if (status)
            return status;
        s->map_number = map;
    }
    if (s->map_trust != VDB_TRUST_GOOD || number <= map)
        return VECDB_OK;
    const unsigned char *entry = s->map + 5 * (size_t)(number - map - 1);
    *pointer = (struct salvage_pointer){entry[0], vdb_salvage_u32(entry + 1)};
    *is_known = pointer->kind >= POINTER_ROOT && pointer->kind <= POINTER_TREE;
    return VECDB_OK;
}
