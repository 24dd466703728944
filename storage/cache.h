/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/cache.h - the page cache: pages that cannot be used in place, under a budget of bytes
 *
 * An entry is keyed by (extent number, page) and holds a piece of memory. Entries in use are
 * pinned and never evicted; the rest go by CLOCK (second chance). When everything is pinned the
 * cache exceeds its budget by what is pinned rather than fail. Sharded by key: threads meet only on
 * a shard's lock, held for a look-up and never while a page is read or decoded. Two threads that
 * miss the same page at once both load it; one copy is kept.
 */
#ifndef VDB_STORAGE_CACHE_H
#define VDB_STORAGE_CACHE_H

#include "base/memory.h"
#include "vecdb.h"

struct vdb_cache;
struct vdb_cache_entry;

int vdb_cache_new(struct vdb_memory *memory, uint64_t budget_bytes, struct vdb_cache **cache, vecdb_error *err);
void vdb_cache_free(struct vdb_cache *cache); /* nothing may be pinned; NULL is allowed */

/* A number for a new extent object, never used again in this cache. */
uint64_t vdb_cache_number(struct vdb_cache *cache);

/* The entry, pinned, or NULL. */
struct vdb_cache_entry *vdb_cache_get(struct vdb_cache *cache, uint64_t number, uint32_t page);

/* A new entry of n bytes (64-byte aligned), pinned, not visible yet; NULL: no memory. Fill it, then
 * publish it: that returns the entry to use, which is another one when a thread was faster. Or
 * drop it. */
struct vdb_cache_entry *vdb_cache_reserve(struct vdb_cache *cache, uint64_t number, uint32_t page, size_t n_bytes);
struct vdb_cache_entry *vdb_cache_publish(struct vdb_cache *cache, struct vdb_cache_entry *entry);
void vdb_cache_drop(struct vdb_cache *cache, struct vdb_cache_entry *entry);

void *vdb_cache_bytes(struct vdb_cache_entry *entry);
void vdb_cache_unpin(struct vdb_cache *cache, struct vdb_cache_entry *entry);

/* Forget all entries of an extent object (its pages are not pinned). */
void vdb_cache_forget(struct vdb_cache *cache, uint64_t number);

/* Working memory that is dear to make (a decoder): take one that was given before, or NULL; give one
 * for others to take. What is left over goes to `release`, which is the same for all. */
void *vdb_cache_take_spare(struct vdb_cache *cache);
void vdb_cache_give_spare(struct vdb_cache *cache, void *spare, void (*release)(void *spare));

struct vdb_cache_stats {
    uint64_t bytes, budget_bytes, hits, misses, evictions;
};
void vdb_cache_get_stats(struct vdb_cache *cache, struct vdb_cache_stats *stats);

#endif
