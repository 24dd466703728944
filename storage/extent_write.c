/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/extent_write.c - writing extents (see extent.h)
 *
 *     rows ── pending page ── vdb_page_encode ── buffer ──(4 MiB)── file
 *
 * Rows are copied only when a call brings less than a page: a bulk import that hands over thousands
 * of rows has its pages encoded straight from its own memory.
 *
 * WRITE_BYTES: a write of 4 MiB costs its system call and no more, and keeps the buffer small against
 * the 1-64 MiB of an extent.
 *
 * After a failure the writer refuses everything but its end. The file may then hold any part of what
 * was to be written, beyond every committed length.
 */
#include <assert.h>

#include "base/error.h"
#include "base/numbers.h"
#include "extent_format.h"

#define WRITE_BYTES ((size_t)4 << 20)

struct vdb_extent_writer {
    struct vdb_memory *memory;
    struct vdb_file *file;
    struct vdb_cache *cache;
    struct vdb_coder *coder;
    int type;
    uint32_t dimension;
    int compression;
    size_t row_bytes;
    uint32_t page_rows; /* of a full page */
    struct vdb_extent_ref ref;
    struct vdb_page_entry *entries;
    uint32_t n_pages, entries_room, n_old_pages;
    uint64_t gaps; /* between the old pages, and behind them */
    uint64_t next_slot; /* the lowest that may come */
    uint32_t n_pending; /* rows of the page to come */
    uint32_t *pending_slots;
    unsigned char *pending_rows;
    struct vdb_buffer buffer;
    uint64_t buffer_at; /* where in the file it goes: a multiple of VDB_PAGE_ALIGN */
    int failed;         /* the status of the first failure */
};

static uint64_t round_up(uint64_t n)
{
    return (n + VDB_PAGE_ALIGN - 1) / VDB_PAGE_ALIGN * VDB_PAGE_ALIGN;
}

/* The gap between the old pages and the new ones. */
static int fold_old_footer(struct vdb_extent_writer *writer, const struct vdb_extent_ref *grow, vecdb_error *err)
{
    const struct vdb_page_entry *last = &writer->entries[grow->n_pages - 1];
    uint64_t size;
    int status = writer->file->vfs->size(writer->file, &size, err);
    return status ? status
                  : vdb_gaps_fold(writer->file, grow->offset + last->offset + last->length, writer->buffer_at, size,
                                  &writer->gaps, err);
}

int vdb_extent_writer_new(const struct vdb_extent_writer_options *options, struct vdb_extent_writer **writer,
                          vecdb_error *err)
{
    assert(options->offset >= VDB_FILE_HEADER_BYTES && options->offset < INT64_MAX);
    struct vdb_memory *memory = options->memory;
    struct vdb_extent_writer *made = vdb_alloc_zero(memory, sizeof *made);
    if (!made)
        return vdb_fail_memory(err, sizeof *made);
    made->memory = memory;
    made->cache = options->cache;
    made->file = options->file;
    made->type = options->type;
    made->dimension = options->dimension;
    made->compression = options->compression;
    made->row_bytes = vdb_vector_bytes(options->type, options->dimension);
    made->page_rows = vdb_page_capacity(options->type, options->dimension);
    made->buffer_at = round_up(options->offset);
    made->ref.offset = made->buffer_at;
    vdb_buffer_init(&made->buffer, memory);
    int status = vdb_coder_take(options->cache, memory, &made->coder, err);
    made->pending_slots = vdb_alloc_array(memory, made->page_rows, sizeof *made->pending_slots);
    made->pending_rows = vdb_alloc_array(memory, made->page_rows, made->row_bytes);
    if (!status && (!made->pending_slots || !made->pending_rows))
        status = vdb_fail_memory(err, made->page_rows * made->row_bytes);
    const struct vdb_extent_ref *grow = options->grow;
    if (!status && grow) {
        made->ref.offset = grow->offset;
        status = /* CORRUPT also when the file was cut off, and `offset` with it lies in the extent */
            vdb_footer_read(memory, options->file, NULL, 0, options->type, options->dimension, grow, &made->entries,
                            &made->gaps, err);
        if (!status)
            status = fold_old_footer(made, grow, err);
        if (!status) {
            assert(options->offset >= grow->offset + grow->length);
            made->n_pages = made->entries_room = made->n_old_pages = grow->n_pages;
            made->next_slot = (uint64_t)grow->last_slot + 1;
        }
    }
    if (status) {
        vdb_extent_writer_free(made);
        return status;
    }
    *writer = made;
    return VECDB_OK;
}

void vdb_extent_writer_free(struct vdb_extent_writer *writer)
{
    if (!writer)
        return;
    vdb_coder_give(writer->cache, writer->coder);
    vdb_free(writer->memory, writer->entries);
    vdb_free(writer->memory, writer->pending_slots);
    vdb_free(writer->memory, writer->pending_rows);
    vdb_buffer_release(&writer->buffer);
    vdb_free(writer->memory, writer);
}

/* Write the buffer. What follows begins at a multiple of VDB_PAGE_ALIGN, as the buffer itself does. */
static int flush(struct vdb_extent_writer *writer, vecdb_error *err)
{
    if (!writer->buffer.n_bytes)
        return VECDB_OK;
    size_t pad = (size_t)(round_up(writer->buffer.n_bytes) - writer->buffer.n_bytes);
    int status = vdb_buffer_reserve(&writer->buffer, pad, err);
    if (status)
        return status;
    memset(writer->buffer.bytes + writer->buffer.n_bytes, 0, pad);
    writer->buffer.n_bytes += pad;
    status =
        writer->file->vfs->write(writer->file, writer->buffer_at, writer->buffer.bytes, writer->buffer.n_bytes, err);
    writer->buffer_at += writer->buffer.n_bytes;
    writer->buffer.n_bytes = 0;
    return status;
}

static int reserve_entry(struct vdb_extent_writer *writer, vecdb_error *err)
{
    if (writer->n_pages < writer->entries_room)
        return VECDB_OK;
    uint32_t room = writer->entries_room < 32 ? 64 : writer->entries_room * 2;
    struct vdb_page_entry *entries = vdb_realloc_array(writer->memory, writer->entries, room, sizeof *entries);
    if (!entries)
        return vdb_fail_memory(err, room * sizeof *entries);
    writer->entries = entries;
    writer->entries_room = room;
    return VECDB_OK;
}

/* One page of the given rows. */
static int add_page(struct vdb_extent_writer *writer, const uint32_t *slots, const void *rows, uint32_t n_rows,
                    vecdb_error *err)
{
    int status = reserve_entry(writer, err);
    if (status)
        return status;
    struct vdb_page_rows page = {writer->type, writer->dimension, writer->compression, rows, slots, n_rows};
    size_t start = (size_t)round_up(writer->buffer.n_bytes);
    status = vdb_page_encode(writer->coder, &page, &writer->buffer, err);
    if (status)
        return status;
    struct vdb_page_entry *entry = &writer->entries[writer->n_pages++];
    *entry = (struct vdb_page_entry){.offset = writer->buffer_at + start - writer->ref.offset,
                                     .length = (uint32_t)(writer->buffer.n_bytes - start),
                                     .n_rows = n_rows,
                                     .first_slot = slots[0],
                                     .last_slot = slots[n_rows - 1]};
    memcpy(&entry->check, writer->buffer.bytes + start, sizeof entry->check); /* a page begins with it */
    return writer->buffer.n_bytes >= WRITE_BYTES ? flush(writer, err) : VECDB_OK;
}

static int add_pending(struct vdb_extent_writer *writer, vecdb_error *err)
{
    uint32_t n_rows = writer->n_pending;
    writer->n_pending = 0;
    return n_rows ? add_page(writer, writer->pending_slots, writer->pending_rows, n_rows, err) : VECDB_OK;
}

static int add_rows(struct vdb_extent_writer *writer, const uint32_t *slots, const unsigned char *rows, size_t n_rows,
                    vecdb_error *err)
{
    while (n_rows) {
        size_t n = writer->page_rows - writer->n_pending;
        int status = VECDB_OK;
        if (!writer->n_pending && n_rows >= writer->page_rows) {
            status = add_page(writer, slots, rows, writer->page_rows, err);
        } else {
            n = n < n_rows ? n : n_rows;
            memcpy(writer->pending_slots + writer->n_pending, slots, n * sizeof *slots);
            memcpy(writer->pending_rows + writer->n_pending * writer->row_bytes, rows, n * writer->row_bytes);
            writer->n_pending += (uint32_t)n;
            if (writer->n_pending == writer->page_rows)
                status = add_pending(writer, err);
        }
        if (status)
            return status;
        slots += n;
        rows += n * writer->row_bytes;
        n_rows -= n;
    }
    return VECDB_OK;
}

static int fail_again(const struct vdb_extent_writer *writer, vecdb_error *err)
{
    return vdb_fail(err, writer->failed, "the extent in %s cannot be written: it failed before",
                    vdb_path_tail(writer->file->path));
}

int vdb_extent_writer_add(struct vdb_extent_writer *writer, const uint32_t *slots, const void *rows, size_t n_rows,
                          vecdb_error *err)
{
    if (writer->failed)
        return fail_again(writer, err);
    for (size_t i = 0; i < n_rows; i++) {
        assert(slots[i] >= writer->next_slot && slots[i] != UINT32_MAX);
        writer->next_slot = (uint64_t)slots[i] + 1;
    }
    writer->failed = add_rows(writer, slots, rows, n_rows, err);
    return writer->failed;
}

int vdb_extent_writer_finish(struct vdb_extent_writer *writer, struct vdb_extent_ref *ref, vecdb_error *err)
{
    if (writer->failed)
        return fail_again(writer, err);
    int status = add_pending(writer, err);
    assert(status || writer->n_pages > writer->n_old_pages);
    struct vdb_extent_ref made = {.offset = writer->ref.offset};
    for (uint32_t i = writer->n_old_pages + 1; i < writer->n_pages && !status; i++) {
        const struct vdb_page_entry *before = &writer->entries[i - 1];
        vdb_gaps_fold_zeros(writer->entries[i].offset - before->offset - before->length, &writer->gaps);
    }
    if (!status)
        status = vdb_footer_write(writer->type, writer->dimension, writer->entries, writer->n_pages, writer->gaps,
                                  writer->buffer_at, &writer->buffer, &made, err);
    uint64_t end = made.offset + made.length;
    if (!status)
        status = flush(writer, err);
    if (!status)
        status = writer->file->vfs->sync(writer->file, err);
    writer->failed = status ? status : VECDB_MISUSE; /* the extent is closed */
    if (status)
        return status;
    assert(end <= writer->buffer_at);
    (void)end;
    *ref = made;
    return VECDB_OK;
}
