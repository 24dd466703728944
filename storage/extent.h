/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/extent.h - extents: pages of one field, written together, closed by a footer
 *
 * A vector file is a sequence of extents (FORMAT.md, "Vector files"). The catalog names an
 * extent by file, offset, length and the checksum of its footer; what lies beyond or between is
 * debris of writes that were not committed. An extent may grow: pages are appended behind its old
 * footer and a new footer, listing all pages, closes it again.
 *
 *     | page | page | ... | footer |          offset .. offset + length
 *     | page | page | ... | footer | page | ... | footer' |       the same, grown
 *
 * Invariants
 *   1. Pages of an extent are in ascending order of slots, and so are slots in a page.
 *   2. The slots of two live extents of a field do not interleave: [first_slot, last_slot] of one
 *      holds no slot of another. Whoever packs keeps this, so that a slot is found by two binary
 *      searches.
 *   3. Bytes inside a committed length never change. A page is verified by its checksum when a
 *      process first touches it.
 *   4. A failed sync is final: the writer must not be used again and its file not appended to.
 */
#ifndef VDB_STORAGE_EXTENT_H
#define VDB_STORAGE_EXTENT_H

#include "cache.h"
#include "page.h"
#include "vfs.h"

/* What the catalog keeps of an extent. */
struct vdb_extent_ref {
    uint64_t offset; /* a multiple of VDB_PAGE_ALIGN */
    uint64_t length; /* up to the end of the footer */
    uint64_t check;  /* XXH3-64 of the footer */
    uint64_t n_rows;
    uint32_t first_slot, last_slot;
    uint32_t n_pages;
};

/* ---- writing. A vector file begins with a header of VDB_FILE_HEADER_BYTES. */
#define VDB_FILE_HEADER_BYTES 64

/* Write the header into a new, empty file. `uuid`: 16 bytes, the database's. `store`: whose slots its pages
 * will hold. */
int vdb_vector_file_begin(struct vdb_file *file, const unsigned char uuid[16], uint64_t field_id, uint64_t generation,
                          uint64_t store, vecdb_error *err);

/* Does a file begin with such a header? CORRUPT, or NEWER, says what is wrong. */
int vdb_vector_file_verify(struct vdb_file *file, const unsigned char uuid[16], uint64_t store, vecdb_error *err);

struct vdb_extent_writer;

/* Begin an extent at `offset` (of a committed end or beyond; rounded up to VDB_PAGE_ALIGN), or,
 * with `grow`, go on behind that extent's bytes at `offset` or later; borrows all but `grow`. */
struct vdb_extent_writer_options {
    struct vdb_memory *memory;
    struct vdb_file *file;
    uint64_t offset;
    int type;
    uint32_t dimension;
    int compression;
    const struct vdb_extent_ref *grow; /* NULL: a new extent */
    struct vdb_cache *cache;           /* that keeps working memory; NULL: none */
};
int vdb_extent_writer_new(const struct vdb_extent_writer_options *options, struct vdb_extent_writer **writer,
                          vecdb_error *err);

/* Append rows (without gaps, in the field's type; slots strictly ascending, also from call to call).
 * Pages are cut at VDB_PAGE_TARGET_BYTES and written in pieces of about 4 MiB. */
int vdb_extent_writer_add(struct vdb_extent_writer *writer, const uint32_t *slots, const void *rows, size_t n_rows,
                          vecdb_error *err);

/* Write the rest and the footer, sync the file, tell what to put into the catalog. At least one
 * row must have been added. */
int vdb_extent_writer_finish(struct vdb_extent_writer *writer, struct vdb_extent_ref *ref, vecdb_error *err);
void vdb_extent_writer_free(struct vdb_extent_writer *writer); /* also after a failure; NULL is allowed */

/* ---- reading */
struct vdb_extent;

/* Open an extent: check the file's header (of this database, of this store), read and check the footer
 * (CORRUPT names the file and what is wrong) and map its bytes, or keep the file for reading where maps are
 * not to be had. Keeps `cache` for decoded pages and pages that were read; borrows `file` for its own life.
 * Counted: begins with one reference. */
int vdb_extent_open(struct vdb_memory *memory, struct vdb_cache *cache, struct vdb_file *file,
                    const unsigned char uuid[16], uint64_t store, int type, uint32_t dimension,
                    const struct vdb_extent_ref *ref, struct vdb_extent **extent, vecdb_error *err);
struct vdb_extent *vdb_extent_retain(struct vdb_extent *extent);
void vdb_extent_release(struct vdb_extent *extent);

const struct vdb_extent_ref *vdb_extent_get_ref(const struct vdb_extent *extent);

/* Page i of the extent as a block: in place when it is mapped and raw or narrow; else from the
 * cache. Either way its type is the one that the values are stored in (planes of a page of f32 values
 * that were all u8 are kept as u8: the cache holds four times as many). Any thread. `decoded` (may be
 * NULL) tells whether it lies in the cache. Verifies the checksum at the first touch. CORRUPT names
 * file, page, and slots. */
int vdb_extent_pin(struct vdb_extent *extent, uint32_t page, struct vdb_block *block, bool *decoded, vecdb_error *err);
void vdb_extent_unpin(struct vdb_extent *extent, struct vdb_block *block);

/* The page that holds a slot, or UINT32_MAX when it cannot be in this extent. (It may still not be
 * in that page: the field may have no vector for the slot.) */
uint32_t vdb_extent_find(const struct vdb_extent *extent, uint32_t slot);

/* The slots and rows of a page, from the footer: no page is touched. */
void vdb_extent_page_range(const struct vdb_extent *extent, uint32_t page, uint32_t *first_slot, uint32_t *last_slot,
                           uint32_t *n_rows);

/* Verify header, footer and every page from the file itself, not from maps or caches; tell `each` of
 * every problem (each a sentence). VECDB_OK when all was looked at, whatever was found. */
int vdb_extent_check(struct vdb_extent *extent, void (*each)(void *context, const char *message), void *context,
                     vecdb_error *err);

#endif
