/* SPDX-License-Identifier: Apache-2.0
 *
 * index/graph.h - a graph over quantised vectors: HNSW's layers, edges by staged RobustPrune
 *
 * A graph stands for all rows of a field whose slots lie below its `end`. A node is a number 0 .. n - 1; it
 * stands for one vector, and for every slot that holds exactly that vector. What it keeps of a
 * vector is a code of 4 bits a dimension (codes.h), which finds the candidates; the answer is computed
 * from the vectors themselves, which the caller finds by slot (`struct vdb_rows`).
 *
 *     links    n rows of 32 node numbers, the base layer; unused places are VDB_NO_NODE
 *     codes    n records, codes.h
 *     slots    n slots; further slots of equal vectors hang in chains
 *     upper    layers 1 and up, of one node in 16 each
 *
 * Thread rule: any number of threads may search while one caller inserts (and that call may use
 * the threads of a pool). A graph has room for `capacity` nodes; growing makes a larger copy, and
 * the old one lives on as long as somebody holds it. Counted; made with one reference.
 *
 * Sources: Malkov and Yashunin, arXiv 1603.09320 (layers); Subramanya et al., DiskANN, NeurIPS 2019 (RobustPrune);
 * Gao and Long, RaBitQ, arXiv 2405.12497 (the unbiased factor of a code).
 */
#ifndef VDB_INDEX_GRAPH_H
#define VDB_INDEX_GRAPH_H

#include <stdatomic.h>
#include <stdbool.h>

#include "index/index.h"

#define VDB_GRAPH_DEGREE 32u
#define VDB_NO_NODE UINT32_MAX

struct vdb_graph;

/* What the graphs that share it may hold together: graph_budget.c. */
struct vdb_graph_budget {
    uint64_t limit;         /* bytes; 0: none */
    _Atomic uint64_t used;
    uint64_t refused;       /* what there was no room for at last; kept by who makes graphs, one thread at a time */
};
uint64_t vdb_graph_budget_left(const struct vdb_graph_budget *budget); /* UINT64_MAX: no limit */

struct vdb_graph_options {
    struct vdb_memory *memory;
    const struct vdb_kernels *kernels;
    int metric, type;   /* of the field; type bit has metric hamming, and no other type has */
    uint32_t dimension;
    uint64_t seed;      /* of the rotation, and of the nodes' levels */
    struct vdb_graph_budget *budget; /* NULL: none. Where it has no room: NOMEM, and budget->refused is not 0 */
};

/* An empty graph with room for `capacity` nodes. `sample`: some of the field's rows (a few thousand are enough, none
 * is allowed), whose mean becomes the origin of the codes. NOMEM. */
int vdb_graph_new(const struct vdb_graph_options *options, uint32_t capacity, const struct vdb_block *sample,
                  struct vdb_graph **graph, vecdb_error *err);
struct vdb_graph *vdb_graph_retain(struct vdb_graph *graph);
void vdb_graph_release(struct vdb_graph *graph); /* NULL is allowed */

/* How many nodes, at most `wanted`, a graph may have room for by what is left of the budget: a new one, or (not NULL) a
 * copy of `like`; with all that building may use, or without. 0: none. And what that room takes of the budget. */
uint32_t vdb_graph_room(const struct vdb_graph_options *options, const struct vdb_graph *like, uint32_t wanted,
                        bool with_building);
uint64_t vdb_graph_cost(const struct vdb_graph_options *options, const struct vdb_graph *like, uint32_t capacity,
                        bool with_building);

/* A copy with room for `capacity` nodes (at least as many as there are). While nobody inserts. */
int vdb_graph_copy(const struct vdb_graph *graph, uint32_t capacity, struct vdb_graph **copy, vecdb_error *err);

/* Insert rows `first` .. first + n - 1 of a block, whose slots are not below `end`, in ascending order; slots in
 * `dead` (NULL: none) are left out. With `pool` (NULL: none) by at most n_threads threads. When it returns VECDB_OK,
 * `end` is one above the last row's slot. On INTERRUPTED (stop), NOMEM, FULL (no room: copy, and go on) some rows may
 * have been inserted: `end` tells, call again from there; a row is never in it twice. */
struct vdb_graph_insert {
    const struct vdb_slots *dead;
    struct vdb_pool *pool;
    int n_threads;
    int (*stop)(void *context, vecdb_error *err);
    void *stop_context;
};
int vdb_graph_insert(struct vdb_graph *graph, const struct vdb_block *block, uint32_t first, uint32_t n,
                     const struct vdb_graph_insert *how, vecdb_error *err);

/* Rows below `end` are in the graph (or were dead). Set it where slots up to `end` have no rows in the field. */
uint32_t vdb_graph_end(const struct vdb_graph *graph);
void vdb_graph_set_end(struct vdb_graph *graph, uint32_t end);

/* After a bulk of insertions: connect what cannot be reached, prune rows that are too long, forget what only building
 * needs (8-bit codes). Insertions may go on afterwards. Searches go on meanwhile. */
int vdb_graph_seal(struct vdb_graph *graph, const struct vdb_graph_insert *how, vecdb_error *err);

/* A new graph of the live nodes alone, in an order that keeps neighbours close: paths through dead nodes are replaced
 * by edges around them. `graph` stays as it is, and nobody inserts into it meanwhile. */
int vdb_graph_sweep(const struct vdb_graph *graph, const struct vdb_slots *dead, const struct vdb_graph_insert *how,
                    struct vdb_graph **swept, vecdb_error *err);

struct vdb_graph_info {
    uint32_t n_nodes, capacity, end;
    uint64_t n_slots;       /* equal vectors counted each */
    uint64_t n_links;       /* of the base layer */
    uint64_t bytes;         /* held now */
    uint64_t bytes_building; /* of these, what seal gives back */
    uint64_t changes;       /* grows with every change: for who publishes it */
};
void vdb_graph_describe(const struct vdb_graph *graph, struct vdb_graph_info *info); /* reads all links */
uint64_t vdb_graph_count_slots(const struct vdb_graph *graph); /* n_slots alone: at once */
uint32_t vdb_graph_capacity(const struct vdb_graph *graph);
uint64_t vdb_graph_taken(const struct vdb_graph *graph); /* of its budget; by who builds */

/* The first slot of a node below n_nodes. */
uint32_t vdb_graph_node_slot(const struct vdb_graph *graph, uint32_t node);

/* ------------------------------------------------------------------ searching */

/* A field's rows by slot. find pins n rows (in the order of `slots`; a slot without a row gives values NULL) and
 * returns a status; put ends what one find has pinned. Any thread. */
struct vdb_row {
    const void *values;
    int type;
    void *pin, *owner; /* of whoever pinned it */
};
struct vdb_rows {
    void *context;
    int (*find)(void *context, const uint32_t *slots, size_t n, struct vdb_row *rows, vecdb_error *err);
    void (*put)(void *context, struct vdb_row *rows, size_t n);
};

/* ef: how many candidates the walk keeps; n_rerank: of how many at most the exact distance is computed (it ends earlier
 * where the codes say that no more can come, so a large one costs little). 0: chosen from k. */
struct vdb_graph_effort {
    uint32_t ef, n_rerank;
    /* A node that this walk does not see, in any layer, as if it had never been inserted: where a node has a link to
     * it, the walk follows one to that one of its neighbours that is nearest to the node (linked instead, when
     * the graph had been built without it). For calibrate.c, which searches for stored vectors. NULL: none. */
    const uint32_t *without;
};

struct vdb_graph_counts {
    uint64_t n_distances; /* on codes */
    uint64_t n_expanded;  /* nodes whose links were followed */
    uint64_t n_reranked;  /* exact distances */
    uint64_t bytes;       /* of codes, links and vectors that were read */
};

/* Memory of one searching thread, kept between searches: after the first searches nothing is allocated. */
struct vdb_graph_scratch;
struct vdb_graph_scratch *vdb_graph_scratch_new(struct vdb_memory *memory);
void vdb_graph_scratch_free(struct vdb_graph_scratch *scratch);

/* The answer to one query of `search` (its number `q`): at most search->k live slots below `end_slot` with their
 * distances (of single precision), by distance, then slot, put into `hits`, which has room for search->k; *n_hits tells
 * how many.
 * Fewer than k come only when the walk has found no more: the caller then asks for more effort or scans. */
int vdb_graph_search(const struct vdb_graph *graph, const struct vdb_search *search, size_t q, uint32_t end_slot,
                     const struct vdb_graph_effort *effort, const struct vdb_rows *rows,
                     struct vdb_graph_scratch *scratch, struct vdb_hit *hits, uint32_t *n_hits,
                     struct vdb_graph_counts *counts, vecdb_error *err);

/* ------------------------------------------------------------------ as bytes: graph_file.c
 *
 * A base is the whole graph; a delta is what has changed since the last base or delta: new nodes with their codes
 * and slots, and link rows that are no longer the same. All of them are checked, and never trusted:
 * loading bytes of any kind gives a valid graph or CORRUPT. */

/* Hand the bytes of a base (or a delta) to `write` piece by piece, in order. The graph's changes are then known to be
 * saved when vdb_graph_saved is called. By the caller that inserts, between insertions. */
typedef int (*vdb_graph_write_fn)(void *context, const void *bytes, size_t n, vecdb_error *err);
int vdb_graph_save_base(struct vdb_graph *graph, vdb_graph_write_fn write, void *context, vecdb_error *err);
int vdb_graph_save_delta(struct vdb_graph *graph, vdb_graph_write_fn write, void *context, vecdb_error *err);
void vdb_graph_saved(struct vdb_graph *graph);
uint64_t vdb_graph_base_bytes(const struct vdb_graph *graph);
uint64_t vdb_graph_delta_bytes(const struct vdb_graph *graph);

/* The graph of a base, with room for `capacity` nodes or as many as it has. `options` must be those of the field:
 * CORRUPT when the bytes say otherwise. `bytes` are borrowed for the call. */
int vdb_graph_load_base(const struct vdb_graph_options *options, const void *bytes, size_t n, uint32_t capacity,
                        struct vdb_graph **graph, vecdb_error *err);
/* Apply a delta to a graph that nobody else holds. On failure the graph must be given up. FULL: no room. */
int vdb_graph_load_delta(struct vdb_graph *graph, const void *bytes, size_t n, vecdb_error *err);
/* What a delta needs: how many nodes the graph has after it. CORRUPT. */
int vdb_graph_delta_nodes(const void *bytes, size_t n, uint32_t *n_nodes, vecdb_error *err);

#endif
