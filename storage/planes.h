/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/planes.h - values split into byte planes and put together again
 */
#ifndef VDB_STORAGE_PLANES_H
#define VDB_STORAGE_PLANES_H

#include "page.h"

/* Scratch space of at least n bytes, 64-byte aligned, valid until the next call; NULL: no memory. */
unsigned char *vdb_coder_scratch(struct vdb_coder *coder, size_t n_bytes);

/* Whether AUTO should try planes on the page to come, and what came of it when it did: see page_encode.c. */
bool vdb_coder_tries_planes(struct vdb_coder *coder);
void vdb_coder_tried_planes(struct vdb_coder *coder, bool gained);

/* Plane p of `values` goes to planes + p * n. `width`, the bytes of a value, is 1, 2 or 4; values of
 * more than one byte are floating-point, and their signs are rotated. */
void vdb_planes_split(const void *values, size_t n, unsigned width, unsigned char *planes);
void vdb_planes_join(const unsigned char *const planes[], size_t n, unsigned width, void *values);

/* Bytes that vdb_planes_compress may need for a plane of n bytes. */
size_t vdb_planes_bound(size_t n);

/* One zstd frame of n bytes. Returns its length, or 0 when it would not be shorter than `limit`
 * bytes (or zstd had no memory: the plane is then stored as it is). */
size_t vdb_planes_compress(struct vdb_coder *coder, const unsigned char *plane, size_t n, unsigned char *out,
                           size_t out_bytes, size_t limit);

/* The plane of exactly n bytes in a frame. CORRUPT, NOMEM. */
int vdb_planes_expand(struct vdb_coder *coder, const unsigned char *frame, size_t frame_bytes, unsigned char *plane,
                      size_t n, vecdb_error *err);

#endif
