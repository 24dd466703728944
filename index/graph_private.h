/* SPDX-License-Identifier: Apache-2.0
 *
 * index/graph_private.h - what the files of the graph share; nobody else includes it
 *
 *     graph.c          new, copy, describe: memory and counts
 *     graph_walk.c     the walk, and the memory of who walks
 *     graph_search.c   the answer to a query
 *     graph_insert.c   insertion, by one thread or several
 *     graph_prune.c    which of many candidates become links
 *     graph_upper.c    layers 1 and up
 *     graph_seal.c     after a bulk of insertions
 *     graph_sweep.c    a new graph without the dead
 *     graph_file.c     as bytes
 *     graph_budget.c   what graphs may hold together
 *
 * Memory of a node v, all in arrays by number:
 *
 *     links[32 v ..]    neighbours, VDB_NO_NODE ends a row that is not full      read by searches
 *     codes[v]          record of 4 bits (or the bits)                           read by searches
 *     slots[v]          its first slot                                           read by searches
 *     chains[v]         last of its further slots, VDB_NO_NODE: none             read by searches
 *     extra[16 v ..]    more neighbours than 32, until the next prune            building only, if there is room
 *     codes8[v]         record of 8 bits                                         building only, if there is room
 *
 * Invariants
 *  1. A node's record, slot and own links are written before any link to it is published (release), and links are
 *     read with acquire: whoever comes upon a node sees all of it. Records never change.
 *  2. Links, counts and chains that may be read while they change are atomics.
 *  3. A search touches nothing that seal gives back. `extra` and `codes8` belong to whoever inserts.
 *  4. A row of `extra` is in use only while the node's row in `links` is full.
 *  5. A row never names its own node, nor a node twice.
 *  6. Further slots form a ring: chains[v] is the last entry, whose `next` is the first.
 */
#ifndef VDB_INDEX_GRAPH_PRIVATE_H
#define VDB_INDEX_GRAPH_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "codes.h"
#include "graph.h"

#define VDB_GRAPH_EXTRA 16u        /* links above 32 between two prunes (slack 8: 10 % slower to build) */
#define VDB_GRAPH_UPPER_DEGREE 16u /* of layers above the base */
#define VDB_GRAPH_LAYERS 7u        /* above the base, at most: 16^7 nodes and more */
#define VDB_GRAPH_NO_ENTRY UINT64_MAX
#define VDB_GRAPH_MAX_NODES 0x7fffffffu /* one bit of a candidate's number tells whether it was followed */

/* Layer l >= 1. Its nodes have numbers of their own, in the order in which they came: links and `entry` use these. */
struct vdb_graph_layer {
    uint32_t capacity;
    _Atomic uint32_t n;
    _Atomic uint32_t *links; /* n rows of VDB_GRAPH_UPPER_DEGREE */
    uint32_t *nodes;         /* which node each is */
    uint32_t *down;          /* its number in the layer below; for layer 1 the node */
    _Atomic unsigned char *dirty; /* a byte each: links changed since saved */
};

/* A further slot of a node. Entries never move: piece i of the array has FIRST << i of them. */
struct vdb_graph_entry {
    uint32_t slot;
    uint32_t node;
    _Atomic uint32_t next;
};
#define VDB_GRAPH_FIRST_PIECE 1024u
#define VDB_GRAPH_PIECES 22u

#define VDB_GRAPH_LOCKS 1024u /* of link rows, by node modulo this */

struct vdb_graph {
    _Atomic uint32_t n_references;
    struct vdb_graph_options options;
    struct vdb_codec codec;
    uint64_t n_taken; /* of the budget; changed by who makes the graph, or builds */
    uint32_t capacity;
    _Atomic uint32_t n_nodes;
    _Atomic uint32_t end;
    _Atomic uint32_t n_entries; /* of the pieces, in use */
    _Atomic uint64_t entry;     /* layer << 32 | number in that layer; VDB_GRAPH_NO_ENTRY */
    _Atomic uint64_t changes;
    _Atomic uint32_t *links;
    unsigned char *codes;
    uint32_t *slots;
    _Atomic uint32_t *chains;
    struct vdb_graph_entry *_Atomic pieces[VDB_GRAPH_PIECES];
    struct vdb_graph_layer layers[VDB_GRAPH_LAYERS]; /* layer l is layers[l - 1] */

    /* building */
    _Atomic uint64_t bytes_building;
    _Atomic uint32_t *extra; /* NULL: none are in use, or there is no room for them */
    unsigned char *codes8;   /* NULL: insertions use codes */
    pthread_mutex_t upper_lock; /* who links in the upper layers, or sets the entry */
    pthread_mutex_t entries_lock; /* who appends to chains */
    pthread_mutex_t locks[VDB_GRAPH_LOCKS];
    pthread_mutex_t builders_lock;
    struct vdb_builder *builders; /* idle ones */

    /* saving: what was there at the last vdb_graph_saved. `dirty` tells which link rows of nodes below n_saved have
     * changed since, a byte each; upper layers have their own. Everything above the counts is new. */
    _Atomic unsigned char *dirty;
    uint32_t n_saved, n_saved_entries, n_saved_upper[VDB_GRAPH_LAYERS];
};

/* ------------------------------------------------------------------ scoring */

/* Codes of one width. */
struct vdb_space {
    const struct vdb_codec *codec;
    const unsigned char *codes;
    size_t stride;
    int bits;        /* 4, 8, or 1: hamming */
    bool is_product; /* ip on codes of 4 bits, for building: scores are to become squared distances */
};

void vdb_graph_space(const struct vdb_graph *graph, bool is_building, struct vdb_space *space);

static inline void vdb_space_score(const struct vdb_space *space, const struct vdb_query *query, const uint32_t *nodes,
                                   size_t n, float *out)
{
    const struct vdb_codec *codec = space->codec;
    if (space->bits == 4)
        codec->kernels->code4(&query->code, space->codes, space->stride, codec->n_values, nodes, n, out);
    else if (space->bits == 8)
        codec->kernels->code8(&query->code, space->codes, space->stride, codec->n_values, nodes, n, out);
    else
        codec->kernels->code_bits(query->bits, space->codes, space->stride, codec->bits_bytes, nodes, n, out);
    if (space->is_product)
        for (size_t i = 0; i < n; i++)
            out[i] = 2 * out[i] + vdb_record_float(space->codes + nodes[i] * space->stride, codec->n_values / 2, 2);
}

/* ------------------------------------------------------------------ candidates
 *
 * A key is a score (as an integer with the floats' order) << 32 | node << 1 | followed. */

static inline uint64_t vdb_candidate_key(float score, uint32_t node)
{
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    bits ^= (uint32_t)((int32_t)bits >> 31) | 0x80000000u;
    return (uint64_t)bits << 32 | (uint64_t)node << 1;
}

static inline float vdb_candidate_score(uint64_t key)
{
    uint32_t bits = (uint32_t)(key >> 32);
    bits ^= bits & 0x80000000u ? 0x80000000u : 0xffffffffu;
    float score;
    memcpy(&score, &bits, sizeof score);
    return score;
}

static inline uint32_t vdb_candidate_node(uint64_t key)
{
    return (uint32_t)key >> 1;
}

/* ------------------------------------------------------------------ walking: graph_walk.c */

#define VDB_GRAPH_BATCH (VDB_GRAPH_DEGREE + VDB_GRAPH_EXTRA)

struct vdb_graph_scratch {
    struct vdb_memory *memory;
    uint8_t *visited; /* by node, or by number in a layer: the epoch in which it was met */
    uint32_t n_visited;
    uint8_t epoch;
    uint64_t *keys;
    uint32_t n_keys;
    float *work; /* n_values floats; behind them the query's values */
    uint32_t n_work;
    struct vdb_row *rows; /* n_rows of each */
    uint32_t *row_slots;
    float *row_scores;    /* of codes */
    struct vdb_hit *row_hits;
    uint32_t n_rows;
};

/* Make room for a graph and for a pool of `limit` candidates. NOMEM. */
int vdb_scratch_reserve(struct vdb_graph_scratch *scratch, const struct vdb_graph *graph, uint32_t limit,
                        vecdb_error *err);
void vdb_scratch_next_epoch(struct vdb_graph_scratch *scratch);

struct vdb_walk {
    const struct vdb_graph *graph;
    struct vdb_space space;
    const struct vdb_query *query;
    struct vdb_graph_scratch *scratch;
    bool with_extra;         /* for who inserts */
    const uint32_t *without; /* see vdb_graph_effort */
    struct vdb_graph_counts counts;
};

/* Greedily from the entry down to *layer; *layer is then where *number belongs: lower if the entry is. False: the graph
 * is empty. */
bool vdb_walk_descend(struct vdb_walk *walk, uint32_t *layer, uint32_t *number);
/* The `limit` nearest of a layer that a walk from `start` finds, into scratch->keys; returns how many. */
uint32_t vdb_walk_base(struct vdb_walk *walk, uint32_t start, uint32_t limit);
uint32_t vdb_walk_upper(struct vdb_walk *walk, uint32_t layer, uint32_t start, uint32_t limit);

/* ------------------------------------------------------------------ building */

/* graph_budget.c: bytes that a graph takes from its budget, false: there is no room; that it gives back. */
bool vdb_graph_take(struct vdb_graph *graph, uint64_t n_bytes);
void vdb_graph_give_back(struct vdb_graph *graph, uint64_t n_bytes);
int vdb_graph_refuse(struct vdb_graph_budget *budget, uint64_t n_bytes, vecdb_error *err); /* returns NOMEM */
uint32_t vdb_graph_layer_capacity(uint32_t below);
uint64_t vdb_graph_array_bytes(size_t stride4, uint32_t capacity); /* that arrays hold */
uint64_t vdb_graph_charge(size_t stride4, uint32_t capacity);      /* that they are counted as */

/* An empty graph with a copy of `codec`. NOMEM, FULL. */
int vdb_graph_new_with(const struct vdb_graph_options *options, uint32_t capacity, const struct vdb_codec *codec,
                       struct vdb_graph **graph, vecdb_error *err);
struct vdb_graph_entry *vdb_graph_entry_at(const struct vdb_graph *graph, uint32_t i);
/* Room for n entries altogether. NOMEM. */
int vdb_graph_reserve_entries(struct vdb_graph *graph, uint64_t n, vecdb_error *err);
/* Hang a further slot to a node; there is room. */
void vdb_graph_chain(struct vdb_graph *graph, uint32_t node, uint32_t slot);
/* Big arrays: aligned, huge pages advised. */
void *vdb_graph_alloc(struct vdb_memory *memory, size_t n, size_t size);
/* The layers above the base that the node of a first slot is in. */
uint32_t vdb_graph_level(const struct vdb_graph *graph, uint32_t slot);
/* `extra` and, for an empty graph, `codes8`; what the budget has no room for is left out. NOMEM. */
int vdb_graph_begin_building(struct vdb_graph *graph, vecdb_error *err);
void vdb_graph_end_building(struct vdb_graph *graph);

#define VDB_BUILD_LIST 128u /* candidates of an insertion (200: +14 % speed on GloVe for 1.5 times the build) */
#define VDB_UPPER_LIST 48u
#define VDB_PRUNE_LIMIT 384u
#define VDB_GRAPH_ALPHA 1.2f /* 1.15 and 1.25 were no better on four sets */

/* A thread that inserts. */
struct vdb_builder {
    struct vdb_builder *next;
    struct vdb_memory *memory;
    struct vdb_graph_scratch *scratch;
    float *work;
    int8_t *values[2]; /* of the query that walks, and of those that prune */
    unsigned char *record4, *record8;
    /* candidates, see vdb_graph_prune */
    uint64_t keys[VDB_PRUNE_LIMIT];
    uint32_t nodes[VDB_PRUNE_LIMIT];
    float nearest[VDB_PRUNE_LIMIT];
    bool is_taken[VDB_PRUNE_LIMIT];
    /* what a kernel is given, and gives */
    uint32_t batch[VDB_PRUNE_LIMIT], places[VDB_PRUNE_LIMIT];
    float scores[VDB_PRUNE_LIMIT];
    /* candidates in the upper layers, by their numbers there */
    uint64_t upper_keys[VDB_GRAPH_LAYERS][VDB_UPPER_LIST];
    uint32_t n_upper[VDB_GRAPH_LAYERS];
};

/* An idle builder of the graph, or a new one: give it back. NULL with err: no memory. */
struct vdb_builder *vdb_builder_take(struct vdb_graph *graph, vecdb_error *err);
void vdb_builder_give(struct vdb_graph *graph, struct vdb_builder *builder);
void vdb_builders_free(struct vdb_graph *graph);

/* graph_prune.c: of candidates 0 .. n - 1, with keys ascending by squared distance and their nodes, at most `degree`
 * that are worth a link; their places into `chosen`, returns how many. alpha > 1: in stages, 1, then alpha. With
 * `fill` the nearest of the rest make the row full. */
uint32_t vdb_graph_prune(struct vdb_builder *builder, const struct vdb_space *space, uint32_t n, uint32_t degree,
                         float alpha, bool fill, uint32_t *chosen);

/* All links of a node, extra ones included; returns how many. */
uint32_t vdb_graph_links(const struct vdb_graph *graph, uint32_t node, uint32_t links[VDB_GRAPH_BATCH]);
void vdb_graph_set_links(struct vdb_graph *graph, uint32_t node, const uint32_t *links, uint32_t n);
void vdb_graph_mark_dirty(struct vdb_graph *graph, uint32_t node);
/* Make the best of builder->nodes[0 .. n) the links of `node`. Nobody else changes them meanwhile. */
void vdb_graph_choose(struct vdb_graph *graph, struct vdb_builder *builder, const struct vdb_space *space,
                      uint32_t node, uint32_t n, bool fill);
/* Score builder->nodes[0 .. n) against the node with that record, and sort them into builder->keys. */
void vdb_graph_rank(struct vdb_builder *builder, const struct vdb_space *space, const unsigned char *record,
                    uint32_t n);
/* A query from a record of the space. */
void vdb_space_query(const struct vdb_space *space, const unsigned char *record, int8_t *values,
                     struct vdb_query *query);

/* graph_upper.c: put a node into layers 1 .. level, among builder->upper_keys. */
void vdb_graph_link_upper(struct vdb_graph *graph, struct vdb_builder *builder, const struct vdb_space *space,
                          uint32_t node, uint32_t level);
/* Fill builder->upper_keys by walking the layers, for a node that will be in layers 1 .. level. False: there is no
 * entry. Else *start is where a walk of the base layer may begin. */
bool vdb_graph_seek_upper(struct vdb_walk *walk, struct vdb_builder *builder, uint32_t level, uint32_t *start);

/* graph_seal.c: each(context, builder, i) for i = 0 .. n - 1 on the threads of `how`, with builders of `graph` whose
 * scratch is large enough for `also` (NULL: none). NOMEM, INTERRUPTED. */
int vdb_graph_each(struct vdb_graph *graph, const struct vdb_graph *also, uint32_t n,
                   void (*each)(void *context, struct vdb_builder *builder, uint32_t i), void *context,
                   const struct vdb_graph_insert *how, vecdb_error *err);
/* The base node that searches begin at when they do not move in the upper layers. There is one. */
uint32_t vdb_graph_root(const struct vdb_graph *graph);
/* Let every node be reached from the root. NOMEM, INTERRUPTED. */
int vdb_graph_connect(struct vdb_graph *graph, const struct vdb_graph_insert *how, vecdb_error *err);

#endif
