/* SPDX-License-Identifier: Apache-2.0
 *
 * index/index.h - what an index is given and what it answers
 *
 * An index never sees a file or a table. lib hands it blocks of rows (lib/base/block.h) through
 * a `struct vdb_blocks`, and gets back hits: slots with distances.
 */
#ifndef VDB_INDEX_INDEX_H
#define VDB_INDEX_INDEX_H

#include "base/block.h"
#include "base/memory.h"
#include "base/threads.h"
#include "simd/kernels.h"
#include "vecdb.h"

struct vdb_slots; /* base/slots.h: a set of slots */

/* The vectors of a field at one state. pin and unpin may be called from several threads at once;
 * a pinned block stays where it is. pin fails with CORRUPT, IO, NOMEM. */
struct vdb_blocks {
    void *context;
    size_t n_blocks;
    int (*pin)(void *context, size_t i, struct vdb_block *block, vecdb_error *err);
    void (*unpin)(void *context, struct vdb_block *block);
};

/* A slot and its distance in the sense of vecdb.h (l2 with the root taken). */
struct vdb_hit {
    double distance;
    uint32_t slot;
};

/* The hits of each query, those of query i at hits[first[i]] .. hits[first[i + 1] - 1]. */
struct vdb_answer {
    struct vdb_hit *hits;
    size_t *first; /* n_queries + 1 of them */
    uint64_t n_distances, n_rescored, n_blocks, bytes_scored;
};

void vdb_answer_release(struct vdb_memory *memory, struct vdb_answer *answer);

struct vdb_search {
    const struct vdb_kernels *kernels;
    struct vdb_memory *memory;
    struct vdb_pool *pool; /* NULL: this thread alone */
    int n_threads;         /* at most this many of the pool's, this thread included */
    int metric;            /* vecdb_metric, not DEFAULT */
    int type;              /* the field's vecdb_type */
    uint32_t dimension;
    const void *queries; /* n_queries rows without gaps: floats, or for type bit bytes */
    size_t n_queries;
    uint32_t k;                   /* >= 1; more than there are rows is allowed */
    const struct vdb_slots *dead; /* slots that do not count; NULL: none */
    /* Asked about once a millisecond: anything but VECDB_OK ends the search with that status (and
     * the sentence in err). NULL: never asked. Any thread. */
    int (*stop)(void *context, vecdb_error *err);
    void *stop_context;
};

/* The exact answer, from every row (index/flat.c): for each query all live rows that are not
 * farther than the k-th nearest, so at least k where there are k, more when several tie with the
 * k-th; by distance, then slot. Distances are computed in double precision, in an order of
 * operations that depends on nothing but the values: the same on every machine and with any
 * number of threads. `answer` is written on success and is ended by vdb_answer_release. */
int vdb_flat_search(const struct vdb_search *search, const struct vdb_blocks *blocks, struct vdb_answer *answer,
                    vecdb_error *err);

/* The distance of one row in that same arithmetic. `query` as in vdb_search, `row` of `row_type`. */
double vdb_exact_distance(int metric, int row_type, uint32_t dimension, const void *query, const void *row);

#endif
