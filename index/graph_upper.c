/* SPDX-License-Identifier: Apache-2.0
 *
 * index/graph_upper.c - layers 1 and up: one node in 16 of the layer below
 *
 * An upper layer has numbers of its own, 0 .. n - 1 in the order in which nodes came, and its links are such numbers:
 *
 *     layer 2      number 0 ------ links of layer 2 ------ 1
 *                    | down                                | down
 *     layer 1      number 0 -- 1 -- ... links ... -- 17 -- 18 -- ...
 *                    | nodes, down
 *     base         node 4 ...
 *
 * so that a search needs no table from nodes to rows, and an upper row costs 73 bytes: 4.6 for each node of the graph.
 *
 * Links are chosen by HNSW's heuristic (alpha = 1, no fill). Whoever links holds upper_lock, as one node in 16 does;
 * walks need no lock. A node comes here after its links of the base layer are there: if it came first, it would
 * become the entry to its own search, and find itself alone (measured: 99 % unreachable).
 */
#include "graph_private.h"

bool vdb_graph_seek_upper(struct vdb_walk *walk, struct vdb_builder *builder, uint32_t level, uint32_t *start)
{
    memset(builder->n_upper, 0, sizeof builder->n_upper);
    uint32_t layer = level;
    if (!vdb_walk_descend(walk, &layer, start))
        return false;
    for (; layer > 0; layer--) {
        uint32_t n = vdb_walk_upper(walk, layer, *start, VDB_UPPER_LIST);
        memcpy(builder->upper_keys[layer - 1], walk->scratch->keys, n * sizeof *walk->scratch->keys);
        builder->n_upper[layer - 1] = n;
        *start = walk->graph->layers[layer - 1].down[vdb_candidate_node(walk->scratch->keys[0])];
    }
    return true;
}

/* Candidates into builder->keys with squared distances; their nodes. Returns how many: `self` is none. */
static uint32_t candidates(struct vdb_builder *builder, const struct vdb_graph_layer *layer, const uint64_t *keys,
                           uint32_t n, float constant)
{
    for (uint32_t i = 0; i < n; i++) {
        float distance = vdb_candidate_score(keys[i]) + constant;
        builder->keys[i] = vdb_candidate_key(distance > 0 ? distance : 0, vdb_candidate_node(keys[i]));
        builder->nodes[i] = layer->nodes[vdb_candidate_node(keys[i])];
    }
    return n;
}

static void set_row(struct vdb_graph_layer *layer, uint32_t number, const uint32_t *links, uint32_t n)
{
    _Atomic uint32_t *row = layer->links + (size_t)number * VDB_GRAPH_UPPER_DEGREE;
    for (uint32_t i = 0; i < VDB_GRAPH_UPPER_DEGREE; i++)
        atomic_store_explicit(&row[i], i < n ? links[i] : VDB_NO_NODE, memory_order_release);
    atomic_store_explicit(&layer->dirty[number], 1, memory_order_relaxed);
}

/* Sort keys, few of them, with their nodes. */
static void sort_few(uint64_t *keys, uint32_t *nodes, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++) {
        uint64_t key = keys[i];
        uint32_t node = nodes[i], at = i;
        for (; at > 0 && keys[at - 1] > key; at--) {
            keys[at] = keys[at - 1];
            nodes[at] = nodes[at - 1];
        }
        keys[at] = key;
        nodes[at] = node;
    }
}

/* Let `from` link to `to`, both numbers of the layer. */
static void link_back(struct vdb_builder *builder, const struct vdb_space *space, struct vdb_graph_layer *layer,
                      uint32_t from, uint32_t to)
{
    _Atomic uint32_t *row = layer->links + (size_t)from * VDB_GRAPH_UPPER_DEGREE;
    uint32_t numbers[VDB_GRAPH_UPPER_DEGREE + 1], chosen[VDB_GRAPH_UPPER_DEGREE], n = 0;
    for (; n < VDB_GRAPH_UPPER_DEGREE; n++) {
        uint32_t link = atomic_load_explicit(&row[n], memory_order_relaxed);
        if (link == to)
            return;
        if (link == VDB_NO_NODE) {
            atomic_store_explicit(&row[n], to, memory_order_release);
            atomic_store_explicit(&layer->dirty[from], 1, memory_order_relaxed);
            return;
        }
        numbers[n] = link;
    }
    numbers[n++] = to;
    struct vdb_query query;
    for (uint32_t i = 0; i < n; i++)
        builder->nodes[i] = layer->nodes[numbers[i]];
    vdb_space_query(space, space->codes + layer->nodes[from] * space->stride, builder->values[1], &query);
    vdb_space_score(space, &query, builder->nodes, n, builder->scores);
    for (uint32_t i = 0; i < n; i++) {
        float distance = builder->scores[i] + query.constant;
        builder->keys[i] = vdb_candidate_key(distance > 0 ? distance : 0, numbers[i]);
    }
    sort_few(builder->keys, builder->nodes, n);
    n = vdb_graph_prune(builder, space, n, VDB_GRAPH_UPPER_DEGREE, 1, false, chosen);
    for (uint32_t i = 0; i < n; i++)
        chosen[i] = vdb_candidate_node(builder->keys[chosen[i]]);
    set_row(layer, from, chosen, n);
}

/* The number that the node gets in the layer. */
static uint32_t link_layer(struct vdb_builder *builder, const struct vdb_space *space, struct vdb_graph_layer *layer,
                           uint32_t node, uint32_t down, const uint64_t *keys, uint32_t n, float constant)
{
    uint32_t number = atomic_load_explicit(&layer->n, memory_order_relaxed), chosen[VDB_GRAPH_UPPER_DEGREE];
    layer->nodes[number] = node;
    layer->down[number] = down;
    n = candidates(builder, layer, keys, n, constant);
    n = vdb_graph_prune(builder, space, n, VDB_GRAPH_UPPER_DEGREE, 1, false, chosen);
    for (uint32_t i = 0; i < n; i++)
        chosen[i] = vdb_candidate_node(builder->keys[chosen[i]]);
    set_row(layer, number, chosen, n);
    atomic_store_explicit(&layer->n, number + 1, memory_order_release);
    for (uint32_t i = 0; i < n; i++)
        link_back(builder, space, layer, chosen[i], number);
    return number;
}

void vdb_graph_link_upper(struct vdb_graph *graph, struct vdb_builder *builder, const struct vdb_space *space,
                          uint32_t node, uint32_t level)
{
    struct vdb_query query;
    uint32_t number = node, reached = 0;
    pthread_mutex_lock(&graph->upper_lock);
    vdb_space_query(space, space->codes + node * space->stride, builder->values[1], &query);
    for (uint32_t l = 1; l <= level; l++) {
        struct vdb_graph_layer *layer = &graph->layers[l - 1];
        uint32_t n = atomic_load_explicit(&layer->n, memory_order_relaxed);
        /* A layer that another thread began while this one walked: nothing was found there, and a node without links
         * would never be reached; the one that began it is there for searches. */
        if (n == layer->capacity || (n > 0 && !builder->n_upper[l - 1]))
            break;
        number = link_layer(builder, space, layer, node, number, builder->upper_keys[l - 1], builder->n_upper[l - 1],
                            query.constant);
        reached = l;
    }
    uint64_t entry = atomic_load_explicit(&graph->entry, memory_order_relaxed);
    if (entry == VDB_GRAPH_NO_ENTRY || reached > entry >> 32)
        atomic_store_explicit(&graph->entry, (uint64_t)reached << 32 | number, memory_order_release);
    pthread_mutex_unlock(&graph->upper_lock);
}
