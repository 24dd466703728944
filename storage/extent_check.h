/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/extent_check.h - an extent read from its file, all of it, to see whether it is whole
 *
 * Not through maps nor through the page cache, which would show what was read before. An inspection is
 * independent of the extents that are open (extent.h) and cheap to make: the footer is read, nothing is mapped.
 */
#ifndef VDB_STORAGE_EXTENT_CHECK_H
#define VDB_STORAGE_EXTENT_CHECK_H

#include "extent.h"

struct vdb_inspection;

/* Read and check the file's header and the extent's footer. Borrows all but `ref`; `cache` may be NULL. CORRUPT
 * tells what is wrong; then nothing is to be said of the extent's pages. */
struct vdb_inspection_options {
    struct vdb_memory *memory;
    struct vdb_cache *cache;
    struct vdb_file *file;
    const unsigned char *uuid; /* 16 bytes, the database's */
    uint64_t store;
    int type;
    uint32_t dimension;
};
int vdb_inspection_new(const struct vdb_inspection_options *options, const struct vdb_extent_ref *ref,
                       struct vdb_inspection **inspection, vecdb_error *err);
void vdb_inspection_free(struct vdb_inspection *inspection); /* NULL is allowed */

/* Bytes between the pages: CORRUPT when they are not what was written. */
int vdb_inspection_gaps(struct vdb_inspection *inspection, vecdb_error *err);

/* Read page i, check it and unpack it; its rows are valid until the next call. CORRUPT and IO name the page. */
int vdb_inspection_page(struct vdb_inspection *inspection, uint32_t page, struct vdb_block *block, vecdb_error *err);

/* What the footer says of page i: where it lies in the file, how long it is, and its slots. */
struct vdb_page_place {
    uint64_t offset;
    uint32_t length, n_rows, first_slot, last_slot;
};
void vdb_inspection_place(const struct vdb_inspection *inspection, uint32_t page, struct vdb_page_place *place);

/* Are the bytes from .. to of a file zeros? `to` may lie behind its end. */
int vdb_file_is_zero(struct vdb_file *file, uint64_t from, uint64_t to, bool *is_zero, vecdb_error *err);

#endif
