/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/view_load.h - making views (view_load.c), for view.c alone
 */
#ifndef VDB_LIB_VIEW_LOAD_H
#define VDB_LIB_VIEW_LOAD_H

#include "view.h"

/* The collection's view in the transaction of `c`: advanced from `old`, which shows the state of
 * number `old_sequence` (NULL: made from nothing). NOT_FOUND: dropped. CORRUPT: also when a file is gone. */
int vdb_view_load(vecdb_collection *collection, struct vdb_view *old, uint64_t old_sequence,
                  struct vdb_connection *c, struct vdb_view **view, vecdb_error *err);

void vdb_segment_release(struct vdb_segment *segment);
void vdb_chunk_release(struct vdb_chunk *chunk);
void vdb_shared_slots_release(struct vdb_shared_slots *shared);
void vdb_view_field_release(struct vdb_memory *memory, struct vdb_view_field *field);

#endif
