/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/extent_copy.c - the committed bytes of a vector file, copied and verified
 *
 *     | header | page | page | old footer | page | footer | debris | page | footer | debris
 *        copy    copy   copy     copy      copy    copy      -       copy    copy      -
 *
 * What is copied keeps its offset, so that the catalog's rows and the footers stay right; debris between
 * extents is left out: it reads as zeros, and on most file systems takes no space. Every byte that arrives
 * was covered by a check, and every check is followed from the catalog down: row -> footer -> pages, gaps.
 */
#include <xxhash.h>

#include "base/error.h"
#include "catalog_backup.h"
#include "extent_format.h"

struct work {
    const struct vdb_extents_copy *copy;
    const struct vdb_extent_ref *ref;
    struct vdb_buffer buffer;
    uint64_t gaps; /* as the footer forms it */
};

static int read_bytes(struct work *work, uint64_t offset, size_t n_bytes, vecdb_error *err)
{
    struct vdb_file *from = work->copy->from;
    work->buffer.n_bytes = 0;
    int status = vdb_buffer_reserve(&work->buffer, n_bytes, err);
    return status ? status : from->vfs->read(from, offset, work->buffer.bytes, n_bytes, err);
}

static int write_bytes(struct work *work, uint64_t offset, const void *bytes, size_t n_bytes, vecdb_error *err)
{
    struct vdb_file *to = work->copy->to;
    int status = to->vfs->write(to, offset, bytes, n_bytes, err);
    return status ? status : work->copy->progress(work->copy->context, n_bytes, err);
}

/* What lies between two pages where an extent has grown. */
static int copy_gap(struct work *work, uint64_t from, uint64_t to, vecdb_error *err)
{
    int status = VECDB_OK;
    for (size_t n_bytes; from < to && !status; from += n_bytes) {
        n_bytes = to - from < GAP_PIECE_BYTES ? (size_t)(to - from) : GAP_PIECE_BYTES;
        if ((status = read_bytes(work, from, n_bytes, err)))
            return status;
        work->gaps = XXH3_64bits_withSeed(work->buffer.bytes, n_bytes, work->gaps);
        status = write_bytes(work, from, work->buffer.bytes, n_bytes, err);
    }
    return status;
}

/* A page, with the padding in front of it, which begins at `from`. */
static int copy_page(struct work *work, uint32_t i, const struct vdb_page_entry *entry, uint64_t from,
                     vecdb_error *err)
{
    const struct vdb_extents_copy *copy = work->copy;
    uint64_t offset = work->ref->offset + entry->offset;
    int status = offset - from < VDB_PAGE_ALIGN ? VECDB_OK : copy_gap(work, from, offset, err);
    size_t padding = offset - from < VDB_PAGE_ALIGN ? (size_t)(offset - from) : 0;
    struct vdb_buffer *buffer = &work->buffer;
    buffer->n_bytes = 0;
    if (!status)
        status = vdb_buffer_reserve(buffer, VDB_PAGE_ALIGN + entry->length, err);
    if (status)
        return status;
    unsigned char *page_bytes = buffer->bytes + VDB_PAGE_ALIGN, *bytes = page_bytes - padding;
    struct vdb_page page;
    status = copy->from->vfs->read(copy->from, offset - padding, bytes, padding + entry->length, err);
    if (!status)
        status = vdb_page_look(copy->from, work->ref, i, entry, copy->type, copy->dimension, page_bytes, true, &page,
                               err);
    if (status)
        return status;
    if (padding)
        work->gaps = XXH3_64bits_withSeed(bytes, padding, work->gaps);
    return write_bytes(work, offset - padding, bytes, padding + entry->length, err);
}

static int copy_footer(struct work *work, uint64_t from, vecdb_error *err)
{
    const struct vdb_extent_ref *ref = work->ref;
    size_t footer_bytes = (size_t)ref->n_pages * ENTRY_BYTES + TRAILER_BYTES;
    uint64_t footer_at = ref->offset + ref->length - footer_bytes;
    int status = read_bytes(work, from, (size_t)(ref->offset + ref->length - from), err);
    if (status)
        return status;
    const unsigned char *footer = work->buffer.bytes + (footer_at - from);
    /* Read a second time: it has to be what was verified. */
    if (vdb_check_sum(footer, footer_bytes - 8) != ref->check)
        return vdb_fail(err, VECDB_CORRUPT, "the footer of the extent at offset %llu of %s changed while it was read",
                        (unsigned long long)ref->offset, vdb_path_tail(work->copy->from->path));
    return write_bytes(work, footer_at, footer, footer_bytes, err);
}

static int copy_extent(struct work *work, vecdb_error *err)
{
    const struct vdb_extents_copy *copy = work->copy;
    const struct vdb_extent_ref *ref = work->ref;
    struct vdb_page_entry *entries = NULL;
    uint64_t gaps = 0, end = ref->offset;
    int status = vdb_footer_read(copy->memory, copy->from, copy->uuid, copy->store, copy->type, copy->dimension, ref,
                                 &entries, &gaps, err);
    work->gaps = 0;
    for (uint32_t i = 0; i < ref->n_pages && !status; i++) {
        status = copy_page(work, i, &entries[i], end, err);
        end = ref->offset + entries[i].offset + entries[i].length;
    }
    if (!status && work->gaps != gaps)
        status = vdb_fail(err, VECDB_CORRUPT, "bytes between the pages of the extent at offset %llu of %s are damaged",
                          (unsigned long long)ref->offset, vdb_path_tail(copy->from->path));
    if (!status)
        status = copy_footer(work, end, err);
    vdb_free(copy->memory, entries);
    return status;
}

int vdb_extents_copy(const struct vdb_extents_copy *copy, vecdb_error *err)
{
    struct work work = {.copy = copy};
    vdb_buffer_init(&work.buffer, copy->memory);
    int status = vdb_vector_file_verify(copy->from, copy->uuid, copy->store, err);
    if (!status)
        status = read_bytes(&work, 0, VDB_FILE_HEADER_BYTES, err);
    if (!status)
        status = copy->to->vfs->write(copy->to, 0, work.buffer.bytes, VDB_FILE_HEADER_BYTES, err);
    for (size_t i = 0; i < copy->n_rows && !status; i++) {
        work.ref = &copy->rows[i].ref;
        status = copy_extent(&work, err);
    }
    vdb_buffer_release(&work.buffer);
    return status;
}

int vdb_extents_verify(const struct vdb_extents_copy *copy, vecdb_error *err)
{
    int status = vdb_vector_file_verify(copy->from, copy->uuid, copy->store, err);
    for (size_t i = 0; i < copy->n_rows && !status; i++) {
        struct vdb_page_entry *entries = NULL;
        status = vdb_footer_read(copy->memory, copy->from, copy->uuid, copy->store, copy->type, copy->dimension,
                                 &copy->rows[i].ref, &entries, NULL, err);
        vdb_free(copy->memory, entries);
    }
    return status;
}
