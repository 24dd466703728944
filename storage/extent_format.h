/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/extent_format.h - the bytes of a vector file's header and of an extent's footer
 *
 *     file header, 64 bytes                       page entry, 32 bytes
 *     0   check       u64  XXH3-64 of 8 .. 63     0   offset      u64  from the extent's beginning
 *     8   magic       "VDBV"                      8   check       u64  the page's own
 *     12  version     u16  1                      16  length      u32  of the page
 *     14  encryption  u8   0: none                20  n_rows      u32
 *     15  zero                                    24  first_slot  u32
 *     16  uuid        16 bytes, the database's    28  last_slot   u32
 *     32  field       u64
 *     40  generation  u64                         trailer, 64 bytes
 *     48  store       u64                         0   magic       "VDBF"
 *     56  zeros                                   4   version     u16  1
 *     footer                                      6   type        u8   the field's
 *     | entry | entry | ... | trailer |           7   encryption  u8   0: none
 *                                                 8   dimension   u32
 *                                                 12  n_pages     u32
 *                                                 16  n_rows      u64
 *                                                 24  offset      u64  of the extent in the file
 *                                                 32  length      u64  of the extent, footer included
 *                                                 40  gaps        u64  fold over the gaps, see below
 *                                                 48  first_slot  u32
 *                                                 52  last_slot   u32
 *                                                 56  check       u64  XXH3-64 of the footer before it
 *
 * The catalog holds the footer's check, the footer each page's: a page that is intact but not the one
 * that was committed (a lost or misdirected write) is found.
 *
 * GAPS are the bytes between a page and the one before it: up to 63 zeros, and, where the extent grew, its
 * old footer and what else was in the file by then. `gaps` begins as 0 and is replaced, for each 4,096 bytes
 * of each gap (the last piece of a gap may be shorter), by the XXH3-64 of that piece, seeded with it. So a
 * writer that goes on needs the old value and the one new gap, and no bit of an extent goes unnoticed.
 */
#ifndef VDB_STORAGE_EXTENT_FORMAT_H
#define VDB_STORAGE_EXTENT_FORMAT_H

#include "extent.h"

#define VECTOR_FILE_MAGIC "VDBV"
#define FOOTER_MAGIC "VDBF"
#define EXTENT_VERSION 1
#define ENTRY_BYTES 32
#define TRAILER_BYTES 64
#define GAP_PIECE_BYTES 4096

struct vdb_page_entry {
    uint64_t offset, check;
    uint32_t length, n_rows, first_slot, last_slot;
};

/* The footer that closes `n_pages` pages, appended to `out` (padded to VDB_PAGE_ALIGN first). `ref` has
 * offset, and is filled with the rest; `out_at` is where in the file the bytes of `out` will begin. */
int vdb_footer_write(int type, uint32_t dimension, const struct vdb_page_entry *entries, uint32_t n_pages,
                     uint64_t gaps, uint64_t out_at, struct vdb_buffer *out, struct vdb_extent_ref *ref,
                     vecdb_error *err);

/* Read and check header (unless uuid is NULL) and footer; `entries` is the caller's to vdb_free. `gaps`, what
 * the footer says of them, may be NULL: they are not looked at. */
int vdb_footer_read(struct vdb_memory *memory, struct vdb_file *file, const unsigned char *uuid, uint64_t store,
                    int type, uint32_t dimension, const struct vdb_extent_ref *ref, struct vdb_page_entry **entries,
                    uint64_t *gaps, vecdb_error *err);

/* Fold the bytes from .. to of a file into `gaps`; what lies at `end` or behind it counts as zeros. */
int vdb_gaps_fold(struct vdb_file *file, uint64_t from, uint64_t to, uint64_t end, uint64_t *gaps, vecdb_error *err);
void vdb_gaps_fold_zeros(uint64_t n_bytes, uint64_t *gaps); /* fewer than VDB_PAGE_ALIGN */

/* Parse page i, whose bytes these are; with `verify`, make sure that it is intact and the one that was
 * committed. The sentence begins with the page and its place, as vdb_page_fail puts it. */
int vdb_page_look(const struct vdb_file *file, const struct vdb_extent_ref *ref, uint32_t i,
                  const struct vdb_page_entry *entry, int type, uint32_t dimension, const void *bytes, bool verify,
                  struct vdb_page *page, vecdb_error *err);
int vdb_page_fail(const struct vdb_file *file, const struct vdb_extent_ref *ref, uint32_t i,
                  const struct vdb_page_entry *entry, int status, vecdb_error *err);

#endif
