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
 *   4. Index files (index_files.c) are written by who holds the builder's lock of `state`, one process at a time. What
 *      another has published is taken when it covers clearly more than the graph here; otherwise each process goes on
 *      with its own, so that new records are in a graph soon everywhere.
 */
#ifndef VDB_LIB_INDEX_H
#define VDB_LIB_INDEX_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "index/calibrate.h"
#include "index/graph.h"
#include "storage/index_file.h"
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

/* A row of the table `indexes`. */
struct vdb_index_named {
    uint64_t field, store, generation;
    struct vdb_index_extent extent;
    uint32_t end_slot;
    bool has_curve;
    struct vdb_calibration curve;
};

struct vdb_index {
    struct vdb_index *next;
    uint64_t field, store;
    struct vdb_served *served; /* never NULL */
    uint32_t sealed_end;       /* the graph's end when it was last sealed */
    uint32_t fine_end;         /* rows with slots below it were inserted on codes of 8 bits, as far as is known */
    /* Under build_lock: the index file that the catalog named when it was last looked at. */
    struct vdb_index_named named;
    bool has_named;
    bool is_saved;     /* the graph is that file, and what has changed since is marked in it: a delta can follow */
    bool must_publish; /* a sweep has made it smaller */
};

/* In a collection handle. */
struct vdb_indexes {
    pthread_mutex_t lock; /* for a few instructions */
    struct vdb_index *first;
    struct vdb_index_refusal *refusals; /* index_budget.c */
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
    bool must_retry; /* another process is building: look again soon */
    struct vdb_graph_scratch *scratches[VDB_SCRATCHES]; /* idle ones */
    size_t n_scratches;
};
void vdb_indexer_init(struct vdb_indexer *indexer);
void vdb_indexer_stop(vecdb *db);    /* end the thread */
void vdb_indexer_release(vecdb *db); /* after it */

struct vdb_graph_scratch *vdb_scratch_take(vecdb *db); /* NULL: out of memory */
void vdb_scratch_give(vecdb *db, struct vdb_graph_scratch *scratch);

/* Does the field want a graph? `has_one`: there is one. A field whose index the library chooses (AUTO) wants one
 * from VDB_INDEX_AUTO_ROWS live rows on, where a scan takes ten times as long as a walk; it keeps one down to half. */
#define VDB_INDEX_AUTO_ROWS 10000u
bool vdb_index_wanted(const struct vdb_view *view, const struct vdb_view_field *field, bool has_one);

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

/* The thread is woken when so many rows are not covered: a scan of them takes as long as a few walks. */
#define VDB_INDEX_LAG_ROWS 1000u

/* For the two files that build: the field's index (under build_lock, or the lock of the indexes), or NULL; rows of a
 * view that the graph (NULL: none) does not cover; whether so many slots died since the last look that a sweep may be
 * due. */
struct vdb_index *vdb_index_find(vecdb_collection *collection, uint64_t field);
uint64_t vdb_index_count_missing(const struct vdb_served *served, const struct vdb_view *view,
                                 const struct vdb_view_field *field);
bool vdb_index_has_new_dead(struct vdb_served *served, const struct vdb_view *view);

/* Fewer rows than this are scanned rather than put into a graph: a scan of them takes less than a walk. */
#define VDB_INDEX_LEAST_ROWS 1000u

/* ------------------------------------------------------------------ index_budget.c */

#define VDB_REFUSAL_BYTES 256u

/* An index that would cover all rows of the field takes n_bytes more of the budget, which are not there: keep that as a
 * sentence, and return NOMEM with it. `n_missing` rows are not covered. */
int vdb_index_refuse(vecdb_collection *collection, const struct vdb_view_field *field, uint64_t n_bytes,
                     uint64_t n_missing, vecdb_error *err);
void vdb_index_allow(vecdb_collection *collection, uint64_t field); /* forget it */
/* Was the field refused? Then what for (either may be NULL). Any thread. */
bool vdb_index_is_refused(vecdb_collection *collection, uint64_t field, char message[VDB_REFUSAL_BYTES],
                          uint64_t *n_missing);
void vdb_index_refusals_release(struct vdb_indexes *indexes, struct vdb_memory *memory);

/* For how many nodes a new graph of a field with n_rows rows has room; fewer than these: it will cover a part.
 * 0: it is not worth building one. */
uint32_t vdb_index_first_room(const struct vdb_graph_options *options, uint64_t n_rows);
/* For how many a larger copy of a graph that is full, n_left rows being left. 0: there is no room for one. */
uint32_t vdb_index_next_room(const struct vdb_graph_options *options, const struct vdb_graph *graph,
                             uint32_t capacity, uint64_t n_left, bool with_building);

/* ------------------------------------------------------------------ index_files.c */

struct vdb_field_row;

/* What the catalog names for a field. *found false: nothing that is of this kind. */
int vdb_index_files_find(vecdb *db, uint64_t field, struct vdb_index_named *named, bool *found, vecdb_error *err);

/* The graph of an index file, with room to grow. Whatever is wrong with the file: CORRUPT, NOT_FOUND, NEWER, IO. NOMEM
 * with options->budget->refused: it does not fit the budget. */
int vdb_index_files_load(vecdb *db, const struct vdb_index_named *named, const struct vdb_graph_options *options,
                         struct vdb_graph **graph, vecdb_error *err);

/* Write the graph into a file and let the catalog name it: `named` (NULL: none yet) becomes longer by a delta, if
 * `is_saved` says that the graph was saved as that and the delta is small, or a new file is made. Then *now is what the
 * catalog names, and files that it does not name are removed. NOT_FOUND: the field has gone, or has another
 * store. With the builder's lock, while nobody inserts. */
struct vdb_index_publish {
    uint64_t collection, field, store;
    struct vdb_graph *graph;
    const struct vdb_calibration *curve; /* NULL: none */
    const struct vdb_index_named *named;
    bool is_saved;
    struct vdb_stop *stop;
};
int vdb_index_files_publish(vecdb *db, const struct vdb_index_publish *publish, struct vdb_index_named *now,
                            vecdb_error *err);

/* Remove index files that the catalog does not name, if nobody is writing one just now. */
void vdb_index_files_sweep(vecdb *db);

/* Read all index files of the catalog, and tell of what is wrong. Returns what ends a check. */
struct vdb_check;
int vdb_index_files_check(struct vdb_check *check, vecdb_error *err);

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
