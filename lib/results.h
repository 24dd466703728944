/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/results.h - answers: what vecdb_results is made of
 *
 *     results    n items, by query; each with key, distance, and the columns that were asked for
 *     arena      blocks of bytes that texts, metadata and vectors are copied into; freed at once
 */
#ifndef VDB_LIB_RESULTS_H
#define VDB_LIB_RESULTS_H

#include "base/memory.h"
#include "storage/catalog.h"
#include "view.h"

struct vdb_arena {
    struct vdb_memory *memory;
    struct vdb_arena_block *blocks;
    size_t used, size; /* of the first block */
};

void *vdb_arena_alloc(struct vdb_arena *arena, size_t n_bytes); /* 16-byte aligned; NULL: no memory */
char *vdb_arena_text(struct vdb_arena *arena, const char *text, size_t n_bytes); /* a copy, with NUL */
void vdb_arena_release(struct vdb_arena *arena);

struct vdb_item {
    vecdb_key key; /* text in the arena */
    const char *key_digits; /* of an integer key, once asked for */
    double distance;
    uint32_t slot;
    bool found;
    const char *metadata, *text;
    size_t metadata_length, text_length;
    const void **vectors; /* one for each field, in the arena; NULL: not asked for */
};

struct vdb_results_field {
    char name[VECDB_MAX_NAME + 1];
    uint32_t dimension;
    int type;
};

struct vecdb_results {
    struct vdb_memory *memory;
    struct vdb_arena arena;
    size_t n_items;
    struct vdb_item *items;
    size_t n_queries;
    size_t *first; /* n_queries + 1 */
    int metric;    /* 0: no distances */
    uint32_t dimension;
    size_t n_fields; /* of vectors that were asked for */
    struct vdb_results_field *fields;
    vecdb_search_stats stats;
};

/* With room for n items, none of them filled. */
int vdb_results_new(struct vdb_memory *memory, size_t n_items, size_t n_queries, vecdb_results **results,
                    vecdb_error *err);

/* Copy a record's columns into an item. */
int vdb_results_fill(vecdb_results *results, struct vdb_item *item, const struct vdb_record_row *row,
                     vecdb_error *err);

/* Fetch the vectors of all items that were found. */
int vdb_results_fetch_vectors(vecdb_results *results, const struct vdb_view *view, vecdb_error *err);

/* The bits of `columns`, with the default resolved; INVALID for others. */
int vdb_check_columns(int columns, int *out, vecdb_error *err);

#endif
