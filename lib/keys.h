/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/keys.h - the slot-to-key column of a collection: a cache of what the catalog knows
 *
 * A search ends with slots and must answer with keys, without SQL on its path. Within a store a slot's key
 * never changes, so that keys learned at any state are right at every state; what a state newer than the
 * view cannot tell is the key of a slot that has died since. Keys are loaded in pieces of 1,024
 * slots when one of them is first asked for, and all dropped when they exceed their budget, or when those of
 * another store are loaded.
 *
 *     piece   [ key of slot 1024 p | ... | key of slot 1024 p + 1023 ]   text NULL and length 1: unknown
 */
#ifndef VDB_LIB_KEYS_H
#define VDB_LIB_KEYS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/memory.h"
#include "storage/catalog.h"

struct vdb_arena;

struct vdb_keys {
    struct vdb_memory *memory;
    pthread_mutex_t lock;
    uint64_t store;                /* whose slots these are; 0: none yet */
    struct vdb_key_piece **pieces; /* by slot / 1024 */
    size_t n_pieces;
    size_t n_bytes, limit_bytes;
};

void vdb_keys_init(struct vdb_keys *keys, struct vdb_memory *memory, size_t limit_bytes);
void vdb_keys_release(struct vdb_keys *keys);
void vdb_keys_clear(struct vdb_keys *keys);

/* The keys of n slots of a store, which stand `stride` bytes apart, texts copied into `arena`. False: at least
 * one is not known; `missing` tells one such slot. */
bool vdb_keys_get(struct vdb_keys *keys, uint64_t store, const uint32_t *slots, size_t stride, size_t n, vecdb_key *out,
                  struct vdb_arena *arena, uint32_t *missing, int *status, vecdb_error *err);

/* The same, with the pieces of these slots loaded from the catalog. */
bool vdb_keys_load(struct vdb_keys *keys, struct vdb_connection *c, uint64_t store, const uint32_t *slots,
                   size_t stride, size_t n, vecdb_key *out, struct vdb_arena *arena, uint32_t *missing, int *status,
                   vecdb_error *err);

#endif
