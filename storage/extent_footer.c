/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/extent_footer.c - headers of vector files, footers of extents (extent_format.h: their bytes)
 *
 * What a footer that was read guarantees to the rest of the code
 *   1. It is the one that the catalog names: its check is the ref's, and so are all its numbers.
 *   2. Pages lie inside the extent before the footer, at multiples of VDB_PAGE_ALIGN, in order and
 *      apart; no page is longer than VDB_PAGE_MAX_BYTES.
 *   3. Slots ascend from page to page, and a page has no more rows than slots.
 */
#include <assert.h>
#include <xxhash.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/numbers.h"
#include "extent_format.h"

/* ---- the file's header */
int vdb_vector_file_begin(struct vdb_file *file, const unsigned char uuid[16], uint64_t field_id, uint64_t generation,
                          uint64_t store, vecdb_error *err)
{
    unsigned char header[VDB_FILE_HEADER_BYTES] = {0};
    memcpy(header + 8, VECTOR_FILE_MAGIC, 4);
    vdb_store_u16(header + 12, EXTENT_VERSION);
    memcpy(header + 16, uuid, 16);
    vdb_store_u64(header + 32, field_id);
    vdb_store_u64(header + 40, generation);
    vdb_store_u64(header + 48, store);
    vdb_store_u64(header, vdb_check_sum(header + 8, sizeof header - 8));
    return file->vfs->write(file, 0, header, sizeof header, err);
}

int vdb_vector_file_verify(struct vdb_file *file, const unsigned char uuid[16], uint64_t store, vecdb_error *err)
{
    static const unsigned char zeros[8];
    const char *name = vdb_path_tail(file->path);
    unsigned char header[VDB_FILE_HEADER_BYTES];
    int status = file->vfs->read(file, 0, header, sizeof header, err);
    if (status)
        return status;
    if (memcmp(header + 8, VECTOR_FILE_MAGIC, 4))
        return vdb_fail(err, VECDB_CORRUPT, "%s is not a vector file: it does not begin as one", name);
    bool is_whole = vdb_load_u64(header) == vdb_check_sum(header + 8, sizeof header - 8);
    if (is_whole && (vdb_load_u16(header + 12) > EXTENT_VERSION || header[14]))
        return vdb_fail(err, VECDB_NEWER,
                        "%s is of format version %u, encryption scheme %u, which this library does not know", name,
                        vdb_load_u16(header + 12), header[14]);
    if (is_whole && vdb_load_u16(header + 12) < EXTENT_VERSION)
        return vdb_fail(err, VECDB_CORRUPT, "%s is of format version %u, of a preview of the library", name,
                        vdb_load_u16(header + 12));
    if (!is_whole || header[15] || memcmp(header + 56, zeros, 8))
        return vdb_fail(err, VECDB_CORRUPT, "the header of %s is damaged: its checksum does not fit its bytes", name);
    if (memcmp(header + 16, uuid, 16))
        return vdb_fail(err, VECDB_CORRUPT, "%s belongs to another database", name);
    if (vdb_load_u64(header + 48) != store)
        return vdb_fail(err, VECDB_CORRUPT, "%s holds slots of store %llu, the catalog says %llu", name,
                        (unsigned long long)vdb_load_u64(header + 48), (unsigned long long)store);
    return VECDB_OK;
}

/* ---- writing a footer */
int vdb_footer_write(int type, uint32_t dimension, const struct vdb_page_entry *entries, uint32_t n_pages,
                     uint64_t gaps, uint64_t out_at, struct vdb_buffer *out, struct vdb_extent_ref *ref,
                     vecdb_error *err)
{
    assert(n_pages >= 1);
    size_t pad = (VDB_PAGE_ALIGN - out->n_bytes % VDB_PAGE_ALIGN) % VDB_PAGE_ALIGN;
    size_t footer_bytes = (size_t)n_pages * ENTRY_BYTES + TRAILER_BYTES;
    int status = vdb_buffer_reserve(out, pad + footer_bytes, err);
    if (status)
        return status;
    memset(out->bytes + out->n_bytes, 0, pad + footer_bytes);
    unsigned char *footer = out->bytes + out->n_bytes + pad, *trailer = footer + (size_t)n_pages * ENTRY_BYTES;
    uint64_t n_rows = 0;
    for (uint32_t i = 0; i < n_pages; i++) {
        unsigned char *at = footer + (size_t)i * ENTRY_BYTES;
        vdb_store_u64(at, entries[i].offset);
        vdb_store_u64(at + 8, entries[i].check);
        vdb_store_u32(at + 16, entries[i].length);
        vdb_store_u32(at + 20, entries[i].n_rows);
        vdb_store_u32(at + 24, entries[i].first_slot);
        vdb_store_u32(at + 28, entries[i].last_slot);
        n_rows += entries[i].n_rows;
    }
    out->n_bytes += pad + footer_bytes;
    ref->length = out_at + out->n_bytes - ref->offset;
    ref->n_rows = n_rows;
    ref->first_slot = entries[0].first_slot;
    ref->last_slot = entries[n_pages - 1].last_slot;
    ref->n_pages = n_pages;
    memcpy(trailer, FOOTER_MAGIC, 4);
    vdb_store_u16(trailer + 4, EXTENT_VERSION);
    trailer[6] = (unsigned char)type;
    vdb_store_u32(trailer + 8, dimension);
    vdb_store_u32(trailer + 12, n_pages);
    vdb_store_u64(trailer + 16, n_rows);
    vdb_store_u64(trailer + 24, ref->offset);
    vdb_store_u64(trailer + 32, ref->length);
    vdb_store_u64(trailer + 40, gaps);
    vdb_store_u32(trailer + 48, ref->first_slot);
    vdb_store_u32(trailer + 52, ref->last_slot);
    ref->check = vdb_check_sum(footer, footer_bytes - 8);
    vdb_store_u64(trailer + 56, ref->check);
    return VECDB_OK;
}

/* ---- the gaps between pages */
int vdb_gaps_fold(struct vdb_file *file, uint64_t from, uint64_t to, uint64_t end, uint64_t *gaps, vecdb_error *err)
{
    unsigned char piece[GAP_PIECE_BYTES];
    for (size_t n_bytes; from < to; from += n_bytes) {
        n_bytes = to - from < sizeof piece ? (size_t)(to - from) : sizeof piece;
        size_t n_there = from >= end ? 0 : end - from < n_bytes ? (size_t)(end - from) : n_bytes;
        int status = n_there ? file->vfs->read(file, from, piece, n_there, err) : VECDB_OK;
        if (status)
            return status;
        memset(piece + n_there, 0, n_bytes - n_there);
        *gaps = XXH3_64bits_withSeed(piece, n_bytes, *gaps);
    }
    return VECDB_OK;
}

void vdb_gaps_fold_zeros(uint64_t n_bytes, uint64_t *gaps)
{
    static const unsigned char zeros[VDB_PAGE_ALIGN];
    assert(n_bytes < sizeof zeros);
    if (n_bytes)
        *gaps = XXH3_64bits_withSeed(zeros, (size_t)n_bytes, *gaps);
}

/* ---- reading a footer */
static int fail_footer(struct vdb_file *file, const struct vdb_extent_ref *ref, const char *what, vecdb_error *err)
{
    return vdb_fail(err, VECDB_CORRUPT, "the footer of the extent at offset %llu of %s is damaged: %s",
                    (unsigned long long)ref->offset, vdb_path_tail(file->path), what);
}

static const char *find_fault_in_trailer(const unsigned char *trailer, int type, uint32_t dimension,
                                         const struct vdb_extent_ref *ref)
{
    if (trailer[6] != type || vdb_load_u32(trailer + 8) != dimension)
        return "it is of another type or dimension";
    if (vdb_load_u32(trailer + 12) != ref->n_pages || vdb_load_u64(trailer + 16) != ref->n_rows ||
        vdb_load_u64(trailer + 24) != ref->offset || vdb_load_u64(trailer + 32) != ref->length ||
        vdb_load_u32(trailer + 48) != ref->first_slot || vdb_load_u32(trailer + 52) != ref->last_slot)
        return "its numbers are not those of the catalog";
    return NULL;
}

/* Also fills `entries`. `end` is where the pages end. */
static const char *find_fault_in_entries(const unsigned char *footer, uint64_t end, size_t row_bytes,
                                         const struct vdb_extent_ref *ref, struct vdb_page_entry *entries)
{
    uint64_t n_rows = 0, free_at = 0, next_slot = 0;
    for (uint32_t i = 0; i < ref->n_pages; i++, footer += ENTRY_BYTES) {
        struct vdb_page_entry entry = {vdb_load_u64(footer),      vdb_load_u64(footer + 8),  vdb_load_u32(footer + 16),
                                       vdb_load_u32(footer + 20), vdb_load_u32(footer + 24), vdb_load_u32(footer + 28)};
        if (entry.offset % VDB_PAGE_ALIGN || entry.offset < free_at || !entry.length ||
            entry.length > VDB_PAGE_MAX_BYTES || !vdb_range_is_inside(entry.offset, entry.length, end))
            return "a page lies where it cannot";
        if (entry.first_slot < next_slot || entry.last_slot < entry.first_slot || entry.last_slot == UINT32_MAX ||
            !entry.n_rows || entry.n_rows - 1 > entry.last_slot - entry.first_slot ||
            entry.n_rows > VDB_PAGE_MAX_BYTES / row_bytes)
            return "a page's slots are out of order";
        free_at = entry.offset + entry.length;
        next_slot = (uint64_t)entry.last_slot + 1;
        n_rows += entry.n_rows;
        entries[i] = entry;
    }
    if (n_rows != ref->n_rows || entries[0].first_slot != ref->first_slot ||
        entries[ref->n_pages - 1].last_slot != ref->last_slot)
        return "its pages do not add up";
    return NULL;
}

int vdb_footer_read(struct vdb_memory *memory, struct vdb_file *file, const unsigned char *uuid, uint64_t store,
                    int type, uint32_t dimension, const struct vdb_extent_ref *ref, struct vdb_page_entry **entries,
                    uint64_t *gaps, vecdb_error *err)
{
    uint64_t file_bytes, footer_bytes = (uint64_t)ref->n_pages * ENTRY_BYTES + TRAILER_BYTES;
    int status = uuid ? vdb_vector_file_verify(file, uuid, store, err) : VECDB_OK;
    if (!status)
        status = file->vfs->size(file, &file_bytes, err);
    if (status)
        return status;
    if (!vdb_range_is_inside(ref->offset, ref->length, file_bytes))
        return vdb_fail(err, VECDB_CORRUPT, "%s ends at byte %llu, %llu were expected: the file is truncated",
                        vdb_path_tail(file->path), (unsigned long long)file_bytes,
                        (unsigned long long)(ref->offset + ref->length));
    if (!ref->n_pages || ref->length < footer_bytes || ref->offset % VDB_PAGE_ALIGN ||
        ref->offset < VDB_FILE_HEADER_BYTES)
        return vdb_fail(err, VECDB_CORRUPT, "the catalog's entry for the extent at offset %llu of %s makes no sense",
                        (unsigned long long)ref->offset, vdb_path_tail(file->path));
    unsigned char *footer = vdb_alloc(memory, (size_t)footer_bytes);
    struct vdb_page_entry *read = vdb_alloc_array(memory, ref->n_pages, sizeof *read);
    uint64_t end = ref->length - footer_bytes;
    const char *fault = NULL;
    if (!footer || !read) {
        status = vdb_fail_memory(err, (size_t)footer_bytes);
        goto done;
    }
    status = file->vfs->read(file, ref->offset + end, footer, (size_t)footer_bytes, err);
    if (status)
        goto done;
    const unsigned char *trailer = footer + (footer_bytes - TRAILER_BYTES);
    if (memcmp(trailer, FOOTER_MAGIC, 4)) {
        fault = "it does not end as a footer does";
    } else if (vdb_check_sum(footer, (size_t)footer_bytes - 8) != vdb_load_u64(trailer + 56)) {
        fault = "its checksum does not fit its bytes";
    } else if (vdb_load_u16(trailer + 4) > EXTENT_VERSION || trailer[7]) {
        status = vdb_fail(err, VECDB_NEWER,
                          "%s has an extent of format version %u, encryption scheme %u, which this "
                          "library does not know",
                          vdb_path_tail(file->path), vdb_load_u16(trailer + 4), trailer[7]);
        goto done;
    } else if (vdb_load_u16(trailer + 4) < EXTENT_VERSION) {
        fault = "it is of format version 0, of a preview of the library";
    } else if (vdb_load_u64(trailer + 56) != ref->check) {
        fault = "it is intact but not the one that was committed";
    }
    if (!fault)
        fault = find_fault_in_trailer(trailer, type, dimension, ref);
    if (!fault)
        fault = find_fault_in_entries(footer, end, vdb_vector_bytes(type, dimension), ref, read);
    if (fault)
        status = fail_footer(file, ref, fault, err);
    else if (gaps)
        *gaps = vdb_load_u64(trailer + 40);
done:
    vdb_free(memory, footer);
    if (status)
        vdb_free(memory, read);
    else
        *entries = read;
    return status;
}
