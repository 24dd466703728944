/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/base/slots.h - a set of slots (a Roaring bitmap of CRoaring behind it)
 *
 * The only file with CRoaring in it is slots.c. Sets that are shared between threads are never
 * changed: a view that needs another set makes a copy.
 */
#ifndef VDB_BASE_SLOTS_H
#define VDB_BASE_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vecdb.h"

struct vdb_slots;

struct vdb_slots *vdb_slots_new(void);                            /* NULL: no memory */
struct vdb_slots *vdb_slots_copy(const struct vdb_slots *slots);  /* NULL: no memory */
void vdb_slots_free(struct vdb_slots *slots);                     /* NULL is allowed */
void vdb_slots_add(struct vdb_slots *slots, uint32_t slot);
void vdb_slots_add_range(struct vdb_slots *slots, uint32_t first, uint64_t n);
void vdb_slots_remove(struct vdb_slots *slots, uint32_t slot);
void vdb_slots_union(struct vdb_slots *slots, const struct vdb_slots *other);
bool vdb_slots_has(const struct vdb_slots *slots, uint32_t slot);
uint64_t vdb_slots_count(const struct vdb_slots *slots);
uint64_t vdb_slots_count_range(const struct vdb_slots *slots, uint32_t first, uint64_t n);

/* The portable Roaring format. write returns the bytes written, at most vdb_slots_bytes(). read
 * trusts nothing: NULL for bytes that are no valid set (or when there is no memory). */
size_t vdb_slots_bytes(const struct vdb_slots *slots);
size_t vdb_slots_write(const struct vdb_slots *slots, char *out);
struct vdb_slots *vdb_slots_read(const void *bytes, size_t n_bytes);

/* Call each(context, slot) in ascending order until it returns false; for all slots, or first .. last. */
void vdb_slots_each(const struct vdb_slots *slots, bool (*each)(void *context, uint32_t slot), void *context);
void vdb_slots_each_between(const struct vdb_slots *slots, uint32_t first, uint32_t last,
                            bool (*each)(void *context, uint32_t slot), void *context);

#endif
