/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/page.h - the page codec: whole vectors of one field in a checksummed piece of bytes
 *
 * The bytes are described in FORMAT.md, section "Pages". Three codecs, all lossless to the bit:
 *   raw      the values as they are
 *   narrow   a smaller type that represents every value of the page exactly: f16, bf16, i8 or u8
 *   planes   the values of raw or narrow, sign rotated to the low bit, split into byte planes, each
 *            plane its own zstd frame where that saves 5 %, else as it is
 * Raw and narrow pages are scored in place, so their rows begin at a multiple of 64 bytes from the
 * page's start, at a stride that is exactly a vector's bytes. -0.0 is not narrowed to an integer.
 */
#ifndef VDB_STORAGE_PAGE_H
#define VDB_STORAGE_PAGE_H

#include <stdbool.h>

#include "base/block.h"
#include "base/memory.h"
#include "vecdb.h"

enum vdb_codec { VDB_CODEC_RAW = 1, VDB_CODEC_NARROW = 2, VDB_CODEC_PLANES = 3 };

#define VDB_PAGE_ALIGN 64
#define VDB_PAGE_TARGET_BYTES 65536 /* of vectors in a page, as raw; one vector may be more */
#define VDB_PAGE_MAX_BYTES (4u << 20)

/* Rows that a page of this field takes, at least 1. */
uint32_t vdb_page_capacity(int type, uint32_t dimension);

/* A growable piece of bytes, 64-byte aligned. */
struct vdb_buffer {
    struct vdb_memory *memory;
    unsigned char *bytes;
    size_t n_bytes;
    size_t capacity;
};
void vdb_buffer_init(struct vdb_buffer *buffer, struct vdb_memory *memory);
void vdb_buffer_release(struct vdb_buffer *buffer);
int vdb_buffer_reserve(struct vdb_buffer *buffer, size_t n_more, vecdb_error *err); /* room for n_more bytes */

/* Working memory of the codec: zstd's contexts and scratch space, made when first needed and kept
 * from call to call. (Made anew for each page they cost 9 us of a decode that takes 15, and 13 us of
 * an encode: bench_codec.) It also remembers whether planes paid: one for each sequence of pages that are
 * encoded. One thread at a time. */
struct vdb_coder;
int vdb_coder_new(struct vdb_memory *memory, struct vdb_coder **coder, vecdb_error *err);
void vdb_coder_free(struct vdb_coder *coder); /* NULL is allowed */
/* The same with a cache (NULL: none), which keeps some: one that acts as a new one does, and back. */
struct vdb_cache;
int vdb_coder_take(struct vdb_cache *cache, struct vdb_memory *memory, struct vdb_coder **coder, vecdb_error *err);
void vdb_coder_give(struct vdb_cache *cache, struct vdb_coder *coder);

/* XXH3-64, the check of everything in this format. */
uint64_t vdb_check_sum(const void *bytes, size_t n_bytes);

/* Append one page to `out`, first padding it with zeros to a multiple of VDB_PAGE_ALIGN.
 * `rows` are n_rows >= 1 vectors without gaps in the field's type, `slots` strictly ascending. */
struct vdb_page_rows {
    int type; /* the field's */
    uint32_t dimension;
    int compression; /* vecdb_compression */
    const void *rows;
    const uint32_t *slots;
    uint32_t n_rows;
};
int vdb_page_encode(struct vdb_coder *coder, const struct vdb_page_rows *rows, struct vdb_buffer *out,
                    vecdb_error *err);

/* A page that was looked at. Points into the bytes. */
struct vdb_page {
    int codec;
    int type;        /* the field's */
    int stored_type; /* of the values as stored: the field's, or a smaller one */
    uint32_t dimension;
    uint32_t n_rows;
    float max_norm;
    uint32_t n_runs;
    uint32_t n_planes; /* planes pages: how many; else 0 */
    uint64_t check;    /* the page's own */
    const struct vdb_run *runs;
    const unsigned char *plane_table;
    const unsigned char *body; /* raw and narrow: the rows; planes: the planes */
    size_t body_bytes;
};

/* Read a page's header and check it against the bytes given and against `type` and `dimension`.
 * With `verify`, check everything else too: the checksum, the runs, the planes' lengths. Without, the
 * caller has done so before; even then no byte outside of the page is read, whatever it says.
 * CORRUPT with the reason. `bytes` is aligned to 8. */
int vdb_page_parse(const void *bytes, size_t n_bytes, int type, uint32_t dimension, bool verify, struct vdb_page *page,
                   vecdb_error *err);

/* The rows of any page, without gaps: decode gives them in the field's own type, unpack in the stored
 * type (n_rows times vdb_vector_bytes of it). CORRUPT when planes do not decode. */
int vdb_page_decode(struct vdb_coder *coder, const struct vdb_page *page, void *rows, vecdb_error *err);
int vdb_page_unpack(struct vdb_coder *coder, const struct vdb_page *page, void *rows, vecdb_error *err);

/* The rows of a raw or narrow page as a block, in place. */
void vdb_page_block(const struct vdb_page *page, struct vdb_block *block);

#endif
