/* SPDX-License-Identifier: Apache-2.0
 *
 * index/graph_budget.c - what the graphs of a database handle may hold together
 *
 * A graph takes from its budget what its arrays will hold before it allocates them, and gives it back when it is
 * destroyed. So the sum never exceeds the limit, copies and graphs that only a search still holds included.
 * Whoever makes a graph asks first how many nodes it may have room for (vdb_graph_room), and so is refused only by
 * bad luck: how many upper nodes a file has is chance.
 *
 * What is counted: links, codes, slots, chains, marks of changes, upper layers, pieces of further slots, and what
 * building keeps (8-bit codes, extra links); and for each node WORK_BYTES for what is kept by node for a while:
 * the marks of who walks (a byte a thread) and the queue of a seal (5 bytes). Not counted: what does not grow
 * with the nodes (a rotation, lists of candidates), and the bytes of a file that is being loaded.
 *
 * Building goes without what has no room: without 8-bit codes it walks on those of 4 bits, without extra
 * links a full row is pruned with each link that comes.
 */
#include "base/error.h"
#include "base/numbers.h"
#include "graph_private.h"

#define WORK_BYTES 8u
#define ENTRIES_ROOM 4096u /* further slots that one batch of insertions reserves: BATCH_ROWS of graph_insert.c */

/* ------------------------------------------------------------------ the budget */

uint64_t vdb_graph_budget_left(const struct vdb_graph_budget *budget)
{
    if (!budget || !budget->limit)
        return UINT64_MAX;
    uint64_t used = atomic_load(&((struct vdb_graph_budget *)budget)->used);
    return used < budget->limit ? budget->limit - used : 0;
}

bool vdb_graph_take(struct vdb_graph *graph, uint64_t n_bytes)
{
    struct vdb_graph_budget *budget = graph->options.budget;
    if (budget) {
        uint64_t used = atomic_load(&budget->used);
        do {
            if (budget->limit && (n_bytes > budget->limit || used > budget->limit - n_bytes))
                return false;
        } while (!atomic_compare_exchange_weak(&budget->used, &used, used + n_bytes));
    }
    graph->n_taken += n_bytes;
    return true;
}

void vdb_graph_give_back(struct vdb_graph *graph, uint64_t n_bytes)
{
    graph->n_taken -= n_bytes;
    if (graph->options.budget)
        atomic_fetch_sub(&graph->options.budget->used, n_bytes);
}

int vdb_graph_refuse(struct vdb_graph_budget *budget, uint64_t n_bytes, vecdb_error *err)
{
    budget->refused = n_bytes;
    return vdb_fail(err, VECDB_NOMEM,
                    "an index needs %llu bytes, and index_memory_bytes is %llu, of which %llu are held",
                    (unsigned long long)n_bytes, (unsigned long long)budget->limit,
                    (unsigned long long)atomic_load(&budget->used));
}

/* ------------------------------------------------------------------ what room costs */

uint32_t vdb_graph_layer_capacity(uint32_t below)
{
    uint32_t mean = below / VDB_GRAPH_UPPER_DEGREE, room = 16;
    while ((uint64_t)room * room < (uint64_t)mean * 16)
        room *= 2; /* at least four standard deviations */
    return mean + room < below ? mean + room : below;
}

uint64_t vdb_graph_array_bytes(size_t stride4, uint32_t capacity)
{
    uint64_t row = VDB_GRAPH_DEGREE * sizeof(uint32_t) + stride4 + 2 * sizeof(uint32_t) + 1;
    uint64_t n_bytes = sizeof(struct vdb_graph) + row * capacity;
    for (uint32_t l = 0, room = capacity; l < VDB_GRAPH_LAYERS; l++) {
        room = vdb_graph_layer_capacity(room);
        n_bytes += ((VDB_GRAPH_UPPER_DEGREE + 2) * 4ull + 1) * room;
    }
    return n_bytes;
}

uint64_t vdb_graph_charge(size_t stride4, uint32_t capacity)
{
    return vdb_graph_array_bytes(stride4, capacity) + (uint64_t)WORK_BYTES * capacity;
}

uint64_t vdb_graph_taken(const struct vdb_graph *graph)
{
    return graph->n_taken;
}

/* Pieces that hold n further slots. */
static uint64_t entry_bytes(uint64_t n)
{
    uint64_t n_bytes = 0, n_held = 0;
    for (uint32_t p = 0; p < VDB_GRAPH_PIECES && n_held < n; p++) {
        n_held += (uint64_t)VDB_GRAPH_FIRST_PIECE << p;
        n_bytes += sizeof(struct vdb_graph_entry) * ((uint64_t)VDB_GRAPH_FIRST_PIECE << p);
    }
    return n_bytes;
}

uint64_t vdb_graph_cost(const struct vdb_graph_options *options, const struct vdb_graph *like, uint32_t capacity,
                        bool with_building)
{
    struct vdb_codec codec = {.dimension = options->dimension, .is_augmented = options->metric == VECDB_IP};
    if (options->metric == VECDB_HAMMING)
        codec.bits_bytes = (uint32_t)vdb_vector_bytes(VECDB_BIT, options->dimension);
    vdb_codec_lay_out(&codec);
    size_t stride4 = like ? like->codec.stride4 : codec.stride4;
    size_t stride8 = !like ? codec.stride8 : like->codes8 ? like->codec.stride8 : 0;
    uint64_t n_entries = like ? atomic_load_explicit(&((struct vdb_graph *)like)->n_entries, memory_order_acquire) : 0;
    uint64_t n_bytes = vdb_graph_charge(stride4, capacity) + entry_bytes(n_entries + ENTRIES_ROOM);
    if (with_building)
        n_bytes += (uint64_t)capacity * (VDB_GRAPH_EXTRA * sizeof(uint32_t) + stride8);
    return n_bytes;
}

uint32_t vdb_graph_room(const struct vdb_graph_options *options, const struct vdb_graph *like, uint32_t wanted,
                        bool with_building)
{
    uint64_t left = vdb_graph_budget_left(options->budget);
    uint32_t low = 0, high = wanted < VDB_GRAPH_MAX_NODES ? wanted : VDB_GRAPH_MAX_NODES;
    if (vdb_graph_cost(options, like, high, with_building) <= left)
        return high;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2 + 1;
        if (vdb_graph_cost(options, like, middle, with_building) <= left)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}
