/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/index.h - the graphs of a collection's fields, in this process
 *
 *     collection
 *       indexes        one for each field that wants a graph, of one store
 *         served       what searches use: a graph and what was measured of it; counted, replaced as a whole
 *
 * A graph grows in the background while searches use it. What it does not cover yet is scanned, so that a record
 * is found as soon as its transaction has committed. Nothing here is truth: a graph that is lost is built again.
 *
 * Invariants
 *   1. A graph covers all rows of its field with slots below its end, at any state: slots are given out in the order
 *      of commits, and within a store a slot stands for the same vector for ever.
 *   2. At most one thread of a handle builds at a time: it holds build_lock. Searches never wait for it.
 *   3. A graph belongs to a store; a view of another store does not use it.
 */
#ifndef VDB_LIB_INDEX_H
#define VDB_LIB_INDEX_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "index/calibrate.h"
#include "index/graph.h"
#include "vecdb.h"

struct vdb_view;
struct vdb_view_field;
struct vdb_stop;

struct vdb_served {
    _Atomic unsigned references;
    struct vdb_memory *memory;
    struct vdb_graph *graph;
    _Atomic uint64_t n_dead_seen; /* dead slots below the graph's end when a sweep was last thought of */
    bool has_curve;
    struct vdb_calibration curve;
};
void vdb_served_release(struct vdb_served *served); /* NULL is allowed */

struct vdb_index {
    struct vdb_index *next;
    uint64_t field, store;
    struct vdb_served *served; /* never NULL */
    uint32_t sealed_end;       /* the graph's end when it was last sealed */
};

/* In a collection handle. */
struct vdb_indexes {
    pthread_mutex_t lock; /* for a few instructions */
    struct vdb_index *first;
    _Atomic int n_building; /* of its fields */
};
void vdb_indexes_init(struct vdb_indexes *indexes);
void vdb_indexes_release(struct vdb_indexes *indexes, struct vdb_memory *memory);

/* In a database handle. */
#define VDB_SCRATCHES 64
struct vdb_indexer {
    pthread_mutex_t build_lock;
    pthread_mutex_t lock; /* of what follows; nothing is taken under it */
    pthread_cond_t wakes;
    pthread_t thread;
    bool has_thread, has_work, ends;
    struct vdb_graph_scratch *scratches[VDB_SCRATCHES]; /* idle ones */
    size_t n_scratches;
};
void vdb_indexer_init(struct vdb_indexer *indexer);
void vdb_indexer_stop(vecdb *db);    /* end the thread */
void vdb_indexer_release(vecdb *db); /* after it */

struct vdb_graph_scratch *vdb_scratch_take(vecdb *db); /* NULL: out of memory */
void vdb_scratch_give(vecdb *db, struct vdb_graph_scratch *scratch);

/* Does the field want a graph? */
bool vdb_index_wanted(const struct vdb_view_field *field);

/* What serves a field of a view: a reference, or NULL. Any thread. */
struct vdb_served *vdb_index_get(vecdb_collection *collection, const struct vdb_view *view,
                                 const struct vdb_view_field *field);

/* A view was made: is there enough to do for the thread that builds? Then wake it. */
void vdb_index_notice(vecdb_collection *collection, const struct vdb_view *view);

/* Build until the field's graph lacks fewer than `least` rows of the newest state; by at most n_threads threads.
 * `report` (NULL: none) is told of rows covered, and of all. Called without locks. */
typedef int (*vdb_index_report_fn)(void *context, uint64_t done, uint64_t total, vecdb_error *err);
struct vdb_index_build {
    uint64_t field;
    uint64_t least;
    int n_threads;
    struct vdb_stop *stop;
    vdb_index_report_fn report;
    void *report_context;
};
int vdb_index_build(vecdb_collection *collection, const struct vdb_index_build *how, vecdb_error *err);

/* Fewer rows than this are scanned rather than put into a graph: a scan of them takes less than a walk. */
#define VDB_INDEX_LEAST_ROWS 1000u

/* ------------------------------------------------------------------ search_graph.c */

/* How a search with a graph is to be done, and what it did. */
struct vdb_graph_request {
    vecdb *db;
    const struct vdb_view *view;
    const struct vdb_view_field *field;
    const struct vdb_served *served;
    float recall; /* 0: the default */
    uint32_t ef;  /* 0: by recall */
    uint64_t n_scanned, n_expanded, n_reranked, n_decoded;
    uint32_t used_ef;
    bool is_short; /* a query found fewer than k though there may be more: ask vdb_flat_search */
};
int vdb_search_graph(struct vdb_graph_request *request, const struct vdb_search *search, struct vdb_answer *answer,
                     vecdb_error *err);

#endif
