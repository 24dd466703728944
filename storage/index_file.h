/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/index_file.h - files of derived data: a header, and frames that follow one another
 *
 *     [ header : 64 ][ frame ][ frame ] ...      index-<field>-<generation>; bytes in FORMAT.md, "Index files"
 *     frame = [ head : 64 ][ a check for each piece of 1 MiB ][ payload ][ zeros up to a multiple of 64 ]
 *
 * The check of a head covers the checks of the pieces, and the check of the frame before it (of the header, for the
 * first). So one number, which the catalog keeps, vouches for all of a file up to a length. What lies behind that
 * length is debris, and is written over.
 *
 * What payloads mean is not known here: a frame is a base or a delta, and has an end, the first slot it does not cover.
 * Nothing here is truth. Whatever is wrong with a file is CORRUPT, with a sentence that says what and where.
 *
 * Thread rule: an object belongs to one thread at a time.
 */
#ifndef VDB_STORAGE_INDEX_FILE_H
#define VDB_STORAGE_INDEX_FILE_H

#include "vfs.h"

#define VDB_INDEX_HEADER_BYTES 64u
enum { VDB_INDEX_BASE = 1, VDB_INDEX_DELTA = 2 };

/* Whose file it is. */
struct vdb_index_file_id {
    unsigned char uuid[16];
    uint64_t field, generation, store;
};

/* How much of a file counts: its length, and the check of the last head in it. */
struct vdb_index_extent {
    uint64_t n_bytes, check;
};

/* Write the header into a new, empty file. */
int vdb_index_file_begin(struct vdb_file *file, const struct vdb_index_file_id *id, struct vdb_index_extent *extent,
                         vecdb_error *err);

/* Write a frame behind `extent`, which grows by it. `produce` hands exactly frame->n_bytes bytes to `write`, piece by
 * piece. On failure `extent` is as before. Not synced. */
struct vdb_index_frame {
    int kind;
    uint32_t end_slot;
    uint64_t n_bytes;
};
typedef int (*vdb_index_write_fn)(void *writer, const void *bytes, size_t n, vecdb_error *err);
typedef int (*vdb_index_produce_fn)(void *context, vdb_index_write_fn write, void *writer, vecdb_error *err);
int vdb_index_file_append(struct vdb_file *file, const struct vdb_index_frame *frame, vdb_index_produce_fn produce,
                          void *context, struct vdb_index_extent *extent, vecdb_error *err);

/* The frames of a file that is open, as far as `extent` says: header and all heads are read and checked, payloads are
 * not. `file` is borrowed. */
struct vdb_index_file;
int vdb_index_file_open(struct vdb_file *file, const struct vdb_index_file_id *id,
                        const struct vdb_index_extent *extent, struct vdb_index_file **index, vecdb_error *err);
void vdb_index_file_close(struct vdb_index_file *index); /* NULL is allowed */
size_t vdb_index_file_count(const struct vdb_index_file *index);
const struct vdb_index_frame *vdb_index_file_frame(const struct vdb_index_file *index, size_t i);

/* The payload of frame i, checked; to be freed with vdb_free_aligned of the file's memory. */
int vdb_index_file_read(const struct vdb_index_file *index, size_t i, void **bytes, vecdb_error *err);

#endif
