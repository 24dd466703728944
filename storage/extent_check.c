/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/extent_check.c - looking at every byte of an extent (see extent_check.h)
 *
 *     | page | gap | page | gap | page | pad | footer |
 *
 * Every byte of this is under a check: pages under their own, which the footer repeats; gaps under the fold
 * that the footer holds (extent_format.h); the footer under its own, which the catalog repeats. The padding
 * before the footer, less than VDB_PAGE_ALIGN bytes, has to be zeros.
 *
 * A page is read into one buffer and unpacked into another; both are kept from page to page, so that a check
 * of a large file needs the memory of one page.
 */
#include "extent_check.h"

#include <assert.h>

#include "base/error.h"
#include "base/numbers.h"
#include "extent_format.h"

struct vdb_inspection {
    struct vdb_inspection_options options;
    struct vdb_extent_ref ref;
    struct vdb_page_entry *entries;
    uint64_t gaps; /* as the footer has it */
    struct vdb_buffer bytes, rows;
};

int vdb_inspection_new(const struct vdb_inspection_options *options, const struct vdb_extent_ref *ref,
                       struct vdb_inspection **out, vecdb_error *err)
{
    struct vdb_inspection *made = vdb_alloc_zero(options->memory, sizeof *made);
    if (!made)
        return vdb_fail_memory(err, sizeof *made);
    made->options = *options;
    made->ref = *ref;
    vdb_buffer_init(&made->bytes, options->memory);
    vdb_buffer_init(&made->rows, options->memory);
    int status = vdb_footer_read(options->memory, options->file, options->uuid, options->store, options->type,
                                 options->dimension, ref, &made->entries, &made->gaps, err);
    if (status) {
        vdb_free(options->memory, made);
        return status;
    }
    *out = made;
    return VECDB_OK;
}

void vdb_inspection_free(struct vdb_inspection *inspection)
{
    if (!inspection)
        return;
    struct vdb_memory *memory = inspection->options.memory;
    vdb_buffer_release(&inspection->bytes);
    vdb_buffer_release(&inspection->rows);
    vdb_free(memory, inspection->entries);
    vdb_free(memory, inspection);
}

void vdb_inspection_place(const struct vdb_inspection *inspection, uint32_t page, struct vdb_page_place *place)
{
    assert(page < inspection->ref.n_pages);
    const struct vdb_page_entry *entry = &inspection->entries[page];
    *place = (struct vdb_page_place){.offset = inspection->ref.offset + entry->offset,
                                     .length = entry->length,
                                     .n_rows = entry->n_rows,
                                     .first_slot = entry->first_slot,
                                     .last_slot = entry->last_slot};
}

int vdb_file_is_zero(struct vdb_file *file, uint64_t from, uint64_t to, bool *is_zero, vecdb_error *err)
{
    unsigned char piece[GAP_PIECE_BYTES];
    uint64_t size;
    int status = file->vfs->size(file, &size, err);
    *is_zero = true;
    to = to < size ? to : size;
    while (!status && from < to && *is_zero) {
        size_t n_bytes = to - from < sizeof piece ? (size_t)(to - from) : sizeof piece;
        status = file->vfs->read(file, from, piece, n_bytes, err);
        for (size_t i = 0; !status && i < n_bytes; i++)
            *is_zero &= !piece[i];
        from += n_bytes;
    }
    return status;
}

int vdb_inspection_gaps(struct vdb_inspection *inspection, vecdb_error *err)
{
    struct vdb_file *file = inspection->options.file;
    const struct vdb_extent_ref *ref = &inspection->ref;
    uint64_t gaps = 0, end = 0;
    bool is_zero = true;
    for (uint32_t i = 0; i < ref->n_pages; i++) {
        const struct vdb_page_entry *entry = &inspection->entries[i];
        int status = vdb_gaps_fold(file, ref->offset + end, ref->offset + entry->offset, UINT64_MAX, &gaps, err);
        if (status)
            return status;
        end = entry->offset + entry->length;
    }
    uint64_t footer = ref->length - TRAILER_BYTES - (uint64_t)ref->n_pages * ENTRY_BYTES;
    int status = vdb_file_is_zero(file, ref->offset + end, ref->offset + footer, &is_zero, err);
    if (status)
        return status;
    if (gaps != inspection->gaps || !is_zero)
        return vdb_fail(err, VECDB_CORRUPT, "%s: bytes between the pages of the extent at offset %llu are damaged",
                        vdb_path_tail(file->path), (unsigned long long)ref->offset);
    return VECDB_OK;
}

int vdb_inspection_page(struct vdb_inspection *inspection, uint32_t i, struct vdb_block *block, vecdb_error *err)
{
    assert(i < inspection->ref.n_pages);
    const struct vdb_inspection_options *options = &inspection->options;
    const struct vdb_page_entry *entry = &inspection->entries[i];
    struct vdb_file *file = options->file;
    struct vdb_buffer *bytes = &inspection->bytes, *rows = &inspection->rows;
    struct vdb_page page;
    bytes->n_bytes = rows->n_bytes = 0;
    int status = vdb_buffer_reserve(bytes, entry->length, err);
    if (!status)
        status = file->vfs->read(file, inspection->ref.offset + entry->offset, bytes->bytes, entry->length, err);
    if (!status)
        status = vdb_page_look(file, &inspection->ref, i, entry, options->type, options->dimension, bytes->bytes, true,
                               &page, err);
    if (status)
        return status;
    if (page.codec != VDB_CODEC_PLANES) {
        vdb_page_block(&page, block);
        return VECDB_OK;
    }
    size_t stride = vdb_vector_bytes(page.stored_type, page.dimension);
    struct vdb_coder *coder;
    status = vdb_buffer_reserve(rows, page.n_rows * stride, err);
    if (status || (status = vdb_coder_take(options->cache, options->memory, &coder, err)))
        return status;
    status = vdb_page_unpack(coder, &page, rows->bytes, err);
    vdb_coder_give(options->cache, coder);
    if (status == VECDB_CORRUPT)
        return vdb_page_fail(file, &inspection->ref, i, entry, status, err);
    *block = (struct vdb_block){.rows = rows->bytes,
                                .stride = stride,
                                .n_rows = page.n_rows,
                                .type = page.stored_type,
                                .max_norm = page.max_norm,
                                .n_runs = page.n_runs,
                                .runs = page.runs};
    return status;
}
