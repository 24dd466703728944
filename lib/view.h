/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/view.h - views: a collection's vectors at one state, immutable and counted
 *
 *     view            fields, dead slots
 *       field         segments by slot, then tail pieces by slot
 *         segment     an opened extent, shared by all views that name it
 *         piece       rows of the tail: the first n_rows of a chunk, shared likewise
 *
 * Invariants
 *   1. A view never changes. Rows that a chunk gets later lie beyond every older view's n_rows.
 *   2. A slot is in at most one segment or piece of a field. Slots that are in one but not in `dead`
 *      are the live vectors of the field.
 *   3. A view shows exactly the state of its sequence number; the collection keeps the newest.
 *
 * Advancing: the word in `state` tells whether there was a commit. If so, a read transaction is
 * opened and the change log read from the view's number on. New rows are appended to the last chunk,
 * dead slots added to a copy of the set; when extents were rearranged, extents, tail and dead slots are
 * read anew, opened extents being kept; when fields changed, or the log no longer reaches back that
 * far, all is. Costs of an advance: a transaction (20 us) plus what has changed.
 */
#ifndef VDB_LIB_VIEW_H
#define VDB_LIB_VIEW_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "index/graph.h"
#include "index/index.h"
#include "storage/catalog.h"
#include "storage/extent.h"

struct vdb_vector_file;

struct vdb_segment {
    _Atomic unsigned references;
    uint64_t id;
    struct vdb_memory *memory;
    struct vdb_extent *extent;
    struct vdb_vector_file *file;
    struct vdb_extent_ref ref;
};

/* Room for some rows of the tail. What is filled, the pieces know. */
struct vdb_chunk {
    _Atomic unsigned references;
    struct vdb_memory *memory;
    uint32_t capacity;
    unsigned char *rows;
    struct vdb_run *runs; /* `capacity` of them */
};

struct vdb_piece {
    struct vdb_chunk *chunk;
    uint32_t n_rows, n_runs;
    uint32_t first_slot, last_slot;
    float max_norm;
};

struct vdb_view_field {
    struct vdb_field_row row; /* but for its generation, which moves on without the view */
    size_t vector_bytes;
    struct vdb_segment **segments; /* by slot */
    size_t *first_block;           /* n_segments + 1: blocks of the segments before */
    size_t n_segments;
    struct vdb_piece *pieces; /* by slot */
    size_t n_pieces;
    uint64_t n_paged_rows, n_tail_rows; /* dead ones included */
};

/* A set that several views share. */
struct vdb_shared_slots {
    _Atomic unsigned references;
    struct vdb_memory *memory;
    struct vdb_slots *set;
};

struct vdb_view {
    _Atomic unsigned references;
    struct vdb_memory *memory;
    struct vdb_collection_row row;
    struct vdb_shared_slots *dead;
    size_t n_fields;
    struct vdb_view_field *fields; /* by id: the first is the collection's first */
};

/* The collection's records as of the last commit. With `c` not NULL also a read transaction of that
 * very state, to be ended by vdb_read_end. NOT_FOUND when the collection was dropped. */
int vdb_view_acquire(vecdb_collection *collection, struct vdb_view **view, struct vdb_connection **c,
                     uint64_t *sequence, vecdb_error *err);
/* For writers, who need to know the fields and no records: a view that may be some commits old, and the
 * SQL of advancing it is spared. What was done with it holds if schema_version is still the same in
 * the transaction. */
int vdb_view_recent(vecdb_collection *collection, struct vdb_view **view, vecdb_error *err);
void vdb_view_release(struct vdb_view *view); /* NULL is allowed */

/* The field of a name (NULL: the first). INVALID names the fields there are. */
int vdb_view_field(const struct vdb_view *view, const char *name, const struct vdb_view_field **field,
                   vecdb_error *err);

/* The field's rows as blocks, for an index: pages, then pieces of the tail. Each of the two kinds ascends by slot; but
 * rows of the tail may have slots before, between and behind those of pages, and of one page. `context` in `blocks` is
 * the counter below. */
struct vdb_view_blocks {
    const struct vdb_view_field *field;
    size_t n_pages;                           /* of the blocks, the first */
    size_t n_skipped_pages, n_skipped_pieces; /* before the first of each kind */
    _Atomic uint64_t n_visited, n_decoded;    /* pages: visited for single rows; decoded */
};
void vdb_view_get_blocks(struct vdb_view_blocks *source, const struct vdb_view_field *field,
                         struct vdb_blocks *blocks);

/* Only the blocks whose last slot is not below `slot`. */
void vdb_view_get_blocks_from(struct vdb_view_blocks *source, const struct vdb_view_field *field, uint32_t slot,
                              struct vdb_blocks *blocks);
/* Rows whose slot is not below `slot`, dead ones included. At most: of a page that begins before `slot` and has gaps,
 * rows may be counted that lie before it. */
uint64_t vdb_view_count_rows_from(const struct vdb_view_field *field, uint32_t slot);

/* Rows by slot, for an index. `context` in `rows` is the counter. */
void vdb_view_get_rows(struct vdb_view_blocks *source, const struct vdb_view_field *field, struct vdb_rows *rows);

/* Is a slot in one of the field's pages, dead or alive? (Not: in the tail.) */
int vdb_view_in_pages(const struct vdb_view_field *field, uint32_t slot, bool *is_there, vecdb_error *err);

/* How many of the dead slots are in the field's pages, or (with `remaining`) which. */
int vdb_view_count_dead(const struct vdb_view *view, const struct vdb_view_field *field, struct vdb_slots *remaining,
                        uint64_t *n_dead, vecdb_error *err);

/* Copy a row of one of the field's blocks, in the field's type. */
void vdb_view_copy_row(const struct vdb_view_field *field, const struct vdb_block *block, uint32_t row, void *out);

/* Copy the vector of a slot, in the field's type. *found false: the field has none for it. */
int vdb_view_vector(const struct vdb_view_field *field, uint32_t slot, void *out, bool *found, vecdb_error *err);

#endif
