/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/base/memory.h - the allocator behind a database handle
 *
 * All memory of the library comes through a `struct vdb_memory`, which counts the bytes in use
 * (exactly: a 16-byte header before each block holds its size) and calls the application's
 * allocator, or malloc. libc's own names are poisoned for every other file (see the end), so
 * that a test can fail the n-th allocation and know that there is no other.
 *
 * Sizes are computed with vdb_alloc_array, which refuses a product that does not fit.
 * Thread rule: any thread.
 */
#ifndef VDB_BASE_MEMORY_H
#define VDB_BASE_MEMORY_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "vecdb.h"

/* Large blocks that were given back, kept for the next who wants one: an allocator returns them to the
 * system and the kernel clears every page again, which was a fifth of an import's time (measured:
 * bench/bench_import). */
#define VDB_SPARE_BLOCKS 8
#define VDB_SPARE_MIN_BYTES ((size_t)64 << 10)

struct vdb_memory {
    vecdb_allocator allocator;
    _Atomic size_t used; /* bytes in blocks that are alive or spare, headers included */
    size_t spare_limit;  /* bytes in spare blocks; 0: none are kept */
    size_t spare_bytes;
    pthread_mutex_t spare_lock;
    void *spare[VDB_SPARE_BLOCKS]; /* NULL or a block */
};

/* Takes a copy of `allocator`; NULL, or one of NULLs, means malloc. */
void vdb_memory_init(struct vdb_memory *memory, const vecdb_allocator *allocator);

/* Keep up to `limit_bytes` in spare blocks; 0 gives all back, which must be done at the end. */
void vdb_memory_keep_spare(struct vdb_memory *memory, size_t limit_bytes);

/* NULL when there is no memory; never for n = 0. Aligned to 16 bytes. */
void *vdb_alloc(struct vdb_memory *memory, size_t n_bytes);
void *vdb_alloc_zero(struct vdb_memory *memory, size_t n_bytes);
void *vdb_alloc_array(struct vdb_memory *memory, size_t n, size_t size); /* n * size, checked */
void *vdb_realloc(struct vdb_memory *memory, void *block, size_t n_bytes); /* block may be NULL */
void *vdb_realloc_array(struct vdb_memory *memory, void *block, size_t n, size_t size);
void vdb_free(struct vdb_memory *memory, void *block); /* NULL is allowed */

/* Aligned to 64 bytes (a cache line, an AVX-512 register); ended by vdb_free_aligned. */
void *vdb_alloc_aligned(struct vdb_memory *memory, size_t n_bytes);
void vdb_free_aligned(struct vdb_memory *memory, void *block);

/* Copies `n_bytes` of text and ends it with NUL. */
char *vdb_strdup(struct vdb_memory *memory, const char *text, size_t n_bytes);

size_t vdb_memory_used(const struct vdb_memory *memory);

#ifndef VDB_MEMORY_IMPLEMENTATION
#pragma GCC poison malloc calloc realloc free strdup aligned_alloc posix_memalign
#endif

#endif
