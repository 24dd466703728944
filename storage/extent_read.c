/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/extent_read.c - reading extents (see extent.h)
 *
 * Where a page's rows come from:
 *
 *                          mapped                              not mapped
 *     raw, narrow          the map itself                      the cache, which holds the page as read
 *     planes               the cache, which holds the rows     the cache, which holds the rows
 *
 * What is kept of a page is its entry of the footer (32 bytes), one byte, `states`: has this process verified it, and
 * must it go through the cache; and, where extents are mapped, what its header says (64 bytes for 64 KiB). The byte
 * spares a search over compressed data the touch of the map, which may be a read from the disk, when the rows are in
 * the cache. The header spares a rerank, which asks for single rows, a second miss of the memory's caches and
 * look-up of a page's address for each: 1 to 2 us of a search by graph that takes 20 to 40.
 *
 * Invariants
 *   1. A mapped page is used only after its state says that it was verified. Two threads that meet an
 *      unseen page both verify it; one of them, the first to be done, keeps what its header says.
 *   2. What comes through `read` is verified each time it is read, before it is published in the cache.
 *   3. A damaged page is never marked, so that every pin of it fails, with the same sentence.
 *
 * An entry of the cache:
 *
 *     | struct cached_page : 64 | page as read                     |      runs and rows lie in the page
 *     | struct cached_page : 64 | rows | padding to 8 | runs       |      unpacked
 */
#include <assert.h>
#include <stdatomic.h>

#include "base/error.h"
#include "base/numbers.h"
#include "extent_check.h"
#include "extent_format.h"

enum { PAGE_UNSEEN = 0, PAGE_IN_PLACE = 1, PAGE_COMPRESSED = 2, PAGE_SETTLING = 3 };

/* Of a page that is in place. */
struct seen_page {
    struct vdb_block block;
    struct vdb_run run; /* which block.runs points to when it is the only one */
};

struct vdb_extent {
    struct vdb_memory *memory;
    struct vdb_cache *cache;
    struct vdb_file *file;
    unsigned char uuid[16];
    uint64_t store;
    int type;
    uint32_t dimension;
    struct vdb_extent_ref ref;
    uint64_t number;            /* in the cache */
    const unsigned char *bytes; /* the map of the whole extent, or NULL */
    struct vdb_page_entry *entries;
    _Atomic uint8_t *states;
    struct seen_page *seen; /* NULL where there is no map */
    _Atomic uint32_t n_references;
};

struct cached_page {
    struct vdb_block block; /* without pin */
};

#define CACHED_HEAD_BYTES 64
_Static_assert(sizeof(struct cached_page) <= CACHED_HEAD_BYTES, "rows and pages follow at 64 bytes");

/* ---- lifetime */
int vdb_extent_open(struct vdb_memory *memory, struct vdb_cache *cache, struct vdb_file *file,
                    const unsigned char uuid[16], uint64_t store, int type, uint32_t dimension,
                    const struct vdb_extent_ref *ref, struct vdb_extent **extent, vecdb_error *err)
{
    struct vdb_extent *opened = vdb_alloc_zero(memory, sizeof *opened);
    if (!opened)
        return vdb_fail_memory(err, sizeof *opened);
    *opened = (struct vdb_extent){.memory = memory,
                                  .cache = cache,
                                  .file = file,
                                  .store = store,
                                  .type = type,
                                  .dimension = dimension,
                                  .ref = *ref};
    memcpy(opened->uuid, uuid, 16);
    atomic_init(&opened->n_references, 1);
    int status = vdb_footer_read(memory, file, uuid, store, type, dimension, ref, &opened->entries, NULL, err);
    if (!status) {
        opened->states = vdb_alloc_zero(memory, ref->n_pages * sizeof *opened->states);
        status = opened->states ? VECDB_OK : vdb_fail_memory(err, ref->n_pages);
    }
    if (!status) {
        const void *bytes = NULL;
        vecdb_error map_err = VECDB_ERROR_INIT;
        status = ref->length <= SIZE_MAX ? file->vfs->map(file, ref->offset, (size_t)ref->length, &bytes, &map_err)
                                         : VECDB_UNSUPPORTED;
        opened->bytes = status ? NULL : bytes;
        if (status == VECDB_UNSUPPORTED)
            status = VECDB_OK;
        else if (status && err)
            *err = map_err;
    }
    if (!status && opened->bytes) {
        opened->seen = vdb_alloc_array(memory, ref->n_pages, sizeof *opened->seen);
        if (!opened->seen) {
            status = vdb_fail_memory(err, ref->n_pages * sizeof *opened->seen);
            file->vfs->unmap(file->vfs, opened->bytes, (size_t)ref->length);
        }
    }
    if (status) {
        vdb_free(memory, opened->entries);
        vdb_free(memory, (void *)opened->states);
        vdb_free(memory, opened);
        return status;
    }
    opened->number = vdb_cache_number(cache);
    *extent = opened;
    return VECDB_OK;
}

struct vdb_extent *vdb_extent_retain(struct vdb_extent *extent)
{
    uint32_t before = atomic_fetch_add_explicit(&extent->n_references, 1, memory_order_relaxed);
    assert(before > 0);
    (void)before;
    return extent;
}

void vdb_extent_release(struct vdb_extent *extent)
{
    if (!extent || atomic_fetch_sub_explicit(&extent->n_references, 1, memory_order_acq_rel) != 1)
        return;
    vdb_cache_forget(extent->cache, extent->number);
    if (extent->bytes)
        extent->file->vfs->unmap(extent->file->vfs, extent->bytes, (size_t)extent->ref.length);
    vdb_free(extent->memory, extent->entries);
    vdb_free(extent->memory, (void *)extent->states);
    vdb_free(extent->memory, extent->seen);
    vdb_free(extent->memory, extent);
}

const struct vdb_extent_ref *vdb_extent_get_ref(const struct vdb_extent *extent)
{
    return &extent->ref;
}

/* ---- looking at a page */
int vdb_page_fail(const struct vdb_file *file, const struct vdb_extent_ref *ref, uint32_t i,
                  const struct vdb_page_entry *entry, int status, vecdb_error *err)
{
    return vdb_fail_prefix(err, status, "page %u (slots %u to %u, at offset %llu) of %s cannot be used: ", i,
                           entry->first_slot, entry->last_slot, (unsigned long long)(ref->offset + entry->offset),
                           vdb_path_tail(file->path));
}

static int fail_page(const struct vdb_extent *extent, uint32_t page, int status, vecdb_error *err)
{
    return vdb_page_fail(extent->file, &extent->ref, page, &extent->entries[page], status, err);
}

static uint32_t last_slot_of(const struct vdb_page *page)
{
    const struct vdb_run *run = &page->runs[page->n_runs - 1];
    return run->slot + (page->n_rows - run->row - 1);
}

int vdb_page_look(const struct vdb_file *file, const struct vdb_extent_ref *ref, uint32_t i,
                  const struct vdb_page_entry *entry, int type, uint32_t dimension, const void *bytes, bool verify,
                  struct vdb_page *page, vecdb_error *err)
{
    struct vdb_page parsed;
    int status = vdb_page_parse(bytes, entry->length, type, dimension, verify, &parsed, err);
    if (!status && parsed.n_rows != entry->n_rows)
        status = vdb_fail(err, VECDB_CORRUPT, "it has %u rows, its footer says %u", parsed.n_rows, entry->n_rows);
    else if (!status && verify &&
             (parsed.check != entry->check || parsed.runs[0].slot != entry->first_slot ||
              last_slot_of(&parsed) != entry->last_slot))
        status = vdb_fail(err, VECDB_CORRUPT, "it is intact but not the page that was committed");
    if (status)
        return vdb_page_fail(file, ref, i, entry, status, err);
    *page = parsed;
    return VECDB_OK;
}

static int look(const struct vdb_extent *extent, uint32_t i, const void *bytes, bool verify, struct vdb_page *page,
                vecdb_error *err)
{
    return vdb_page_look(extent->file, &extent->ref, i, &extent->entries[i], extent->type, extent->dimension, bytes,
                         verify, page, err);
}

static int unpack(struct vdb_extent *extent, const struct vdb_page *page, void *rows, vecdb_error *err)
{
    struct vdb_coder *coder;
    int status = vdb_coder_take(extent->cache, extent->memory, &coder, err);
    if (status)
        return status;
    status = vdb_page_unpack(coder, page, rows, err);
    vdb_coder_give(extent->cache, coder);
    return status;
}

/* ---- loading into the cache */
static struct vdb_block *cached_block(struct vdb_cache_entry *entry)
{
    return &((struct cached_page *)vdb_cache_bytes(entry))->block;
}

/* A planes page's rows, in a new entry. */
static int cache_unpacked(struct vdb_extent *extent, uint32_t i, const struct vdb_page *page,
                          struct vdb_cache_entry **entry, vecdb_error *err)
{
    size_t stride = vdb_vector_bytes(page->stored_type, page->dimension);
    size_t rows_bytes = (page->n_rows * stride + 7) / 8 * 8, runs_bytes = page->n_runs * sizeof *page->runs;
    size_t n_bytes = CACHED_HEAD_BYTES + rows_bytes + runs_bytes;
    struct vdb_cache_entry *made = vdb_cache_reserve(extent->cache, extent->number, i, n_bytes);
    if (!made)
        return vdb_fail_memory(err, n_bytes);
    unsigned char *rows = (unsigned char *)vdb_cache_bytes(made) + CACHED_HEAD_BYTES;
    int status = unpack(extent, page, rows, err);
    if (status) {
        vdb_cache_drop(extent->cache, made);
        return status == VECDB_CORRUPT ? fail_page(extent, i, status, err) : status;
    }
    void *runs = rows + rows_bytes;
    memcpy(runs, page->runs, runs_bytes);
    *cached_block(made) = (struct vdb_block){.rows = rows,
                                             .stride = stride,
                                             .n_rows = page->n_rows,
                                             .type = page->stored_type,
                                             .max_norm = page->max_norm,
                                             .n_runs = page->n_runs,
                                             .runs = runs};
    *entry = vdb_cache_publish(extent->cache, made);
    return VECDB_OK;
}

/* A page that is not mapped: read it to where it will stay if it need not be unpacked. */
static int cache_read(struct vdb_extent *extent, uint32_t i, struct vdb_cache_entry **entry, vecdb_error *err)
{
    const struct vdb_page_entry *where = &extent->entries[i];
    struct vdb_cache_entry *made =
        vdb_cache_reserve(extent->cache, extent->number, i, CACHED_HEAD_BYTES + (size_t)where->length);
    if (!made)
        return vdb_fail_memory(err, CACHED_HEAD_BYTES + (size_t)where->length);
    unsigned char *bytes = (unsigned char *)vdb_cache_bytes(made) + CACHED_HEAD_BYTES;
    struct vdb_page page;
    int status = extent->file->vfs->read(extent->file, extent->ref.offset + where->offset, bytes, where->length, err);
    if (!status)
        status = look(extent, i, bytes, true, &page, err);
    if (!status && page.codec != VDB_CODEC_PLANES) {
        vdb_page_block(&page, cached_block(made));
        *entry = vdb_cache_publish(extent->cache, made);
        return VECDB_OK;
    }
    if (!status)
        status = cache_unpacked(extent, i, &page, entry, err);
    vdb_cache_drop(extent->cache, made);
    return status;
}

/* A page was verified. */
static void settle(struct vdb_extent *extent, uint32_t i, const struct vdb_page *page)
{
    uint8_t state = PAGE_UNSEEN;
    if (page->codec == VDB_CODEC_PLANES) {
        atomic_compare_exchange_strong(&extent->states[i], &state, PAGE_COMPRESSED);
    } else if (atomic_compare_exchange_strong(&extent->states[i], &state, PAGE_SETTLING)) {
        struct seen_page *seen = &extent->seen[i];
        vdb_page_block(page, &seen->block);
        if (page->n_runs == 1) {
            seen->run = page->runs[0];
            seen->block.runs = &seen->run;
        }
        atomic_store_explicit(&extent->states[i], PAGE_IN_PLACE, memory_order_release);
    }
}

int vdb_extent_pin(struct vdb_extent *extent, uint32_t page, struct vdb_block *block, bool *decoded, vecdb_error *err)
{
    assert(page < extent->ref.n_pages);
    uint8_t state = atomic_load_explicit(&extent->states[page], memory_order_acquire);
    const unsigned char *bytes = extent->bytes ? extent->bytes + extent->entries[page].offset : NULL;
    struct vdb_page parsed;
    int status = VECDB_OK;
    if (bytes && state == PAGE_IN_PLACE) {
        *block = extent->seen[page].block;
        if (decoded)
            *decoded = false;
        return VECDB_OK;
    }
    if (bytes && state != PAGE_COMPRESSED) {
        status = look(extent, page, bytes, true, &parsed, err);
        if (status)
            return status;
        settle(extent, page, &parsed);
        if (parsed.codec != VDB_CODEC_PLANES) {
            vdb_page_block(&parsed, block);
            if (decoded)
                *decoded = false;
            return VECDB_OK;
        }
    }
    struct vdb_cache_entry *entry = vdb_cache_get(extent->cache, extent->number, page);
    if (!entry && !bytes) {
        status = cache_read(extent, page, &entry, err);
    } else if (!entry) {
        status = look(extent, page, bytes, false, &parsed, err);
        if (!status && parsed.codec != VDB_CODEC_PLANES) /* it was one when it was verified */
            status =
                vdb_fail(err, VECDB_CORRUPT, "%s was changed while it was in use", vdb_path_tail(extent->file->path));
        if (!status)
            status = cache_unpacked(extent, page, &parsed, &entry, err);
    }
    if (status)
        return status;
    *block = *cached_block(entry);
    block->pin = entry;
    if (decoded)
        *decoded = true;
    return VECDB_OK;
}

void vdb_extent_unpin(struct vdb_extent *extent, struct vdb_block *block)
{
    if (block->pin)
        vdb_cache_unpin(extent->cache, block->pin);
    *block = (struct vdb_block){0};
}

/* ---- what the footer knows */
uint32_t vdb_extent_find(const struct vdb_extent *extent, uint32_t slot)
{
    uint32_t low = 0, high = extent->ref.n_pages; /* the first page whose last slot is not below `slot` */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (extent->entries[middle].last_slot < slot)
            low = middle + 1;
        else
            high = middle;
    }
    return low < extent->ref.n_pages && extent->entries[low].first_slot <= slot ? low : UINT32_MAX;
}

void vdb_extent_page_range(const struct vdb_extent *extent, uint32_t page, uint32_t *first_slot, uint32_t *last_slot,
                           uint32_t *n_rows)
{
    assert(page < extent->ref.n_pages);
    *first_slot = extent->entries[page].first_slot;
    *last_slot = extent->entries[page].last_slot;
    *n_rows = extent->entries[page].n_rows;
}

/* ---- checking */
int vdb_extent_check(struct vdb_extent *extent, void (*each)(void *context, const char *message), void *context,
                     vecdb_error *err)
{
    struct vdb_inspection_options options = {.memory = extent->memory,
                                             .cache = extent->cache,
                                             .file = extent->file,
                                             .uuid = extent->uuid,
                                             .store = extent->store,
                                             .type = extent->type,
                                             .dimension = extent->dimension};
    vecdb_error problem = VECDB_ERROR_INIT;
    struct vdb_inspection *inspection = NULL;
    int status = vdb_inspection_new(&options, &extent->ref, &inspection, &problem);
    if (!status)
        status = vdb_inspection_gaps(inspection, &problem);
    if (status && status != VECDB_NOMEM)
        each(context, problem.message);
    for (uint32_t i = 0; inspection && i < extent->ref.n_pages && status != VECDB_NOMEM; i++) {
        struct vdb_block block;
        status = vdb_inspection_page(inspection, i, &block, &problem);
        if (status && status != VECDB_NOMEM)
            each(context, problem.message);
    }
    vdb_inspection_free(inspection);
    if (status != VECDB_NOMEM)
        return VECDB_OK;
    if (err)
        *err = problem;
    return status;
}
