/* SPDX-License-Identifier: Apache-2.0
 *
 * index/graph.c - a graph's memory: new, copy, references, counts, chains of equal vectors
 *
 * Arrays have room for `capacity` nodes and never move, so that searches need no lock. Growing makes a
 * larger copy (vdb_graph_copy); whoever holds the old graph goes on with it. Untouched room costs address
 * space alone: rows are set when their node comes.
 *
 * Upper layers have room for a 16th of the layer below and some more. Levels come from a hash; should
 * a layer be full all the same, a node that drew it stays below, which costs nothing but chance.
 *
 * Huge pages are advised for every array of 2 MiB and more (+5-16 % searches a second, measured).
 */
#include "graph_private.h"

#include <assert.h>
#include <sys/mman.h>

#include "base/error.h"

#define HUGE_PAGE ((size_t)2 << 20)

void *vdb_graph_alloc(struct vdb_memory *memory, size_t n, size_t size)
{
    size_t n_bytes;
    if (__builtin_mul_overflow(n, size, &n_bytes))
        return NULL;
    char *block = vdb_alloc_aligned(memory, n_bytes ? n_bytes : 1);
    if (block && n_bytes >= 2 * HUGE_PAGE) {
        uintptr_t first = ((uintptr_t)block + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
        uintptr_t last = ((uintptr_t)block + n_bytes) / HUGE_PAGE * HUGE_PAGE;
        /* advice: where it is not taken, everything works */
        madvise((void *)first, last - first, MADV_HUGEPAGE);
    }
    return block;
}

static int alloc_layer(struct vdb_memory *memory, struct vdb_graph_layer *layer, uint32_t capacity)
{
    layer->capacity = capacity;
    layer->links = vdb_graph_alloc(memory, capacity, VDB_GRAPH_UPPER_DEGREE * sizeof *layer->links);
    layer->nodes = vdb_graph_alloc(memory, capacity, sizeof *layer->nodes);
    layer->down = vdb_graph_alloc(memory, capacity, sizeof *layer->down);
    layer->dirty = vdb_graph_alloc(memory, capacity, 1);
    return layer->links && layer->nodes && layer->down && layer->dirty ? VECDB_OK : VECDB_NOMEM;
}

static void destroy(struct vdb_graph *graph)
{
    struct vdb_memory *memory = graph->options.memory;
    vdb_graph_give_back(graph, graph->n_taken);
    vdb_builders_free(graph);
    vdb_codec_release(&graph->codec);
    vdb_free_aligned(memory, (void *)graph->links);
    vdb_free_aligned(memory, graph->codes);
    vdb_free_aligned(memory, graph->slots);
    vdb_free_aligned(memory, (void *)graph->chains);
    vdb_free_aligned(memory, (void *)graph->dirty);
    vdb_free_aligned(memory, (void *)graph->extra);
    vdb_free_aligned(memory, graph->codes8);
    for (uint32_t i = 0; i < VDB_GRAPH_PIECES; i++)
        vdb_free(memory, atomic_load_explicit(&graph->pieces[i], memory_order_relaxed));
    for (uint32_t l = 0; l < VDB_GRAPH_LAYERS; l++) {
        vdb_free_aligned(memory, (void *)graph->layers[l].links);
        vdb_free_aligned(memory, graph->layers[l].nodes);
        vdb_free_aligned(memory, graph->layers[l].down);
        vdb_free_aligned(memory, (void *)graph->layers[l].dirty);
    }
    pthread_mutex_destroy(&graph->upper_lock);
    pthread_mutex_destroy(&graph->entries_lock);
    pthread_mutex_destroy(&graph->builders_lock);
    for (uint32_t i = 0; i < VDB_GRAPH_LOCKS; i++)
        pthread_mutex_destroy(&graph->locks[i]);
    vdb_free(memory, graph);
}

static void init_locks(struct vdb_graph *graph)
{
    pthread_mutex_init(&graph->upper_lock, NULL);
    pthread_mutex_init(&graph->entries_lock, NULL);
    pthread_mutex_init(&graph->builders_lock, NULL);
    for (uint32_t i = 0; i < VDB_GRAPH_LOCKS; i++)
        pthread_mutex_init(&graph->locks[i], NULL);
}

int vdb_graph_new_with(const struct vdb_graph_options *options, uint32_t capacity, const struct vdb_codec *codec,
                       struct vdb_graph **out, vecdb_error *err)
{
    if (capacity > VDB_GRAPH_MAX_NODES)
        return vdb_fail(err, VECDB_FULL, "a graph index holds at most %u vectors, %u are asked for",
                        VDB_GRAPH_MAX_NODES, capacity);
    struct vdb_memory *memory = options->memory;
    struct vdb_graph *graph = vdb_alloc_zero(memory, sizeof *graph);
    if (!graph)
        return vdb_fail_memory(err, sizeof *graph);
    graph->options = *options;
    graph->codec.memory = memory;
    graph->capacity = capacity;
    init_locks(graph);
    atomic_init(&graph->n_references, 1);
    atomic_init(&graph->entry, VDB_GRAPH_NO_ENTRY);
    uint64_t n_bytes = vdb_graph_charge(codec->stride4, capacity);
    int status = vdb_graph_take(graph, n_bytes) ? vdb_codec_copy(codec, &graph->codec, err)
                                                : vdb_graph_refuse(options->budget, n_bytes, err);
    if (!status) {
        graph->links = vdb_graph_alloc(memory, capacity, VDB_GRAPH_DEGREE * sizeof *graph->links);
        graph->codes = vdb_graph_alloc(memory, capacity, codec->stride4);
        graph->slots = vdb_graph_alloc(memory, capacity, sizeof *graph->slots);
        graph->chains = vdb_graph_alloc(memory, capacity, sizeof *graph->chains);
        graph->dirty = vdb_graph_alloc(memory, capacity, 1);
        if (!graph->links || !graph->codes || !graph->slots || !graph->chains || !graph->dirty)
            status = VECDB_NOMEM;
        uint32_t room = capacity;
        for (uint32_t l = 0; !status && l < VDB_GRAPH_LAYERS; l++)
            status = alloc_layer(memory, &graph->layers[l], room = vdb_graph_layer_capacity(room));
        if (status)
            status = vdb_fail_memory(err, (size_t)capacity * (VDB_GRAPH_DEGREE * 4 + codec->stride4));
    }
    if (status) {
        destroy(graph);
        return status;
    }
    if (capacity)
        memset((void *)graph->dirty, 0, capacity);
    *out = graph;
    return VECDB_OK;
}

int vdb_graph_new(const struct vdb_graph_options *options, uint32_t capacity, const struct vdb_block *sample,
                  struct vdb_graph **graph, vecdb_error *err)
{
    struct vdb_codec codec;
    int status = vdb_codec_init(&codec, options->memory, options->kernels, options->metric, options->type,
                                options->dimension, options->seed, sample, err);
    if (status)
        return status;
    status = vdb_graph_new_with(options, capacity, &codec, graph, err);
    vdb_codec_release(&codec);
    return status;
}

struct vdb_graph *vdb_graph_retain(struct vdb_graph *graph)
{
    atomic_fetch_add_explicit(&graph->n_references, 1, memory_order_relaxed);
    return graph;
}

void vdb_graph_release(struct vdb_graph *graph)
{
    if (graph && atomic_fetch_sub_explicit(&graph->n_references, 1, memory_order_acq_rel) == 1)
        destroy(graph);
}

/* ------------------------------------------------------------------ copying */

static int copy_building(const struct vdb_graph *graph, struct vdb_graph *copy, uint32_t n, vecdb_error *err)
{
    struct vdb_memory *memory = graph->options.memory;
    size_t row = VDB_GRAPH_EXTRA * sizeof *graph->extra;
    uint64_t n_bytes = copy->capacity * ((graph->extra ? row : 0) + (graph->codes8 ? graph->codec.stride8 : 0));
    if (!vdb_graph_take(copy, n_bytes))
        return vdb_graph_refuse(copy->options.budget, n_bytes, err);
    if (graph->extra) {
        copy->extra = vdb_graph_alloc(memory, copy->capacity, row);
        if (!copy->extra)
            return vdb_fail_memory(err, copy->capacity * row);
        memcpy((void *)copy->extra, (void *)graph->extra, n * row);
        memset((char *)copy->extra + n * row, 0xff, (copy->capacity - n) * row);
        atomic_fetch_add_explicit(&copy->bytes_building, copy->capacity * row, memory_order_relaxed);
    }
    if (graph->codes8) {
        copy->codes8 = vdb_graph_alloc(memory, copy->capacity, graph->codec.stride8);
        if (!copy->codes8)
            return vdb_fail_memory(err, copy->capacity * graph->codec.stride8);
        memcpy(copy->codes8, graph->codes8, n * graph->codec.stride8);
        atomic_fetch_add_explicit(&copy->bytes_building, copy->capacity * graph->codec.stride8, memory_order_relaxed);
    }
    return VECDB_OK;
}

static void copy_layer(const struct vdb_graph_layer *from, struct vdb_graph_layer *to)
{
    uint32_t n = atomic_load_explicit(&from->n, memory_order_acquire);
    assert(n <= to->capacity);
    memcpy((void *)to->links, (void *)from->links, (size_t)n * VDB_GRAPH_UPPER_DEGREE * sizeof *to->links);
    memcpy(to->nodes, from->nodes, (size_t)n * sizeof *to->nodes);
    memcpy(to->down, from->down, (size_t)n * sizeof *to->down);
    memcpy((void *)to->dirty, (void *)from->dirty, n);
    atomic_init(&to->n, n);
}

int vdb_graph_copy(const struct vdb_graph *graph, uint32_t capacity, struct vdb_graph **out, vecdb_error *err)
{
    struct vdb_graph *copy = NULL;
    uint32_t n = atomic_load_explicit(&graph->n_nodes, memory_order_acquire);
    if (capacity < graph->capacity)
        capacity = graph->capacity; /* so that every layer has room for what it has */
    int status = vdb_graph_new_with(&graph->options, capacity, &graph->codec, &copy, err);
    if (status)
        return status;
    status = copy_building(graph, copy, n, err);
    uint32_t n_entries = atomic_load_explicit(&graph->n_entries, memory_order_acquire);
    if (!status)
        status = vdb_graph_reserve_entries(copy, n_entries, err);
    if (status) {
        destroy(copy);
        return status;
    }
    memcpy((void *)copy->links, (void *)graph->links, (size_t)n * VDB_GRAPH_DEGREE * sizeof *copy->links);
    memcpy(copy->codes, graph->codes, n * graph->codec.stride4);
    memcpy(copy->slots, graph->slots, n * sizeof *copy->slots);
    memcpy((void *)copy->chains, (void *)graph->chains, n * sizeof *copy->chains);
    memcpy((void *)copy->dirty, (void *)graph->dirty, n);
    for (uint32_t l = 0; l < VDB_GRAPH_LAYERS; l++) {
        copy_layer(&graph->layers[l], &copy->layers[l]);
        copy->n_saved_upper[l] = graph->n_saved_upper[l];
    }
    for (uint32_t i = 0; i < n_entries; i++) {
        const struct vdb_graph_entry *from = vdb_graph_entry_at(graph, i);
        struct vdb_graph_entry *to = vdb_graph_entry_at(copy, i);
        to->slot = from->slot;
        to->node = from->node;
        atomic_init(&to->next, atomic_load_explicit(&from->next, memory_order_relaxed));
    }
    atomic_init(&copy->n_nodes, n);
    atomic_init(&copy->n_entries, n_entries);
    atomic_init(&copy->end, vdb_graph_end(graph));
    atomic_init(&copy->entry, atomic_load_explicit(&graph->entry, memory_order_relaxed));
    atomic_init(&copy->changes, atomic_load_explicit(&graph->changes, memory_order_relaxed));
    copy->n_saved = graph->n_saved;
    copy->n_saved_entries = graph->n_saved_entries;
    *out = copy;
    return VECDB_OK;
}

/* ------------------------------------------------------------------ chains of equal vectors */

/* Piece i has FIRST << i entries and begins at number FIRST * (2^i - 1). */
static uint32_t piece_of(uint32_t i)
{
    return 31u - (uint32_t)__builtin_clz(i / VDB_GRAPH_FIRST_PIECE + 1);
}

struct vdb_graph_entry *vdb_graph_entry_at(const struct vdb_graph *graph, uint32_t i)
{
    uint32_t piece = piece_of(i), first = VDB_GRAPH_FIRST_PIECE * ((1u << piece) - 1);
    return atomic_load_explicit(&graph->pieces[piece], memory_order_acquire) + (i - first);
}

int vdb_graph_reserve_entries(struct vdb_graph *graph, uint64_t n, vecdb_error *err)
{
    if (!n)
        return VECDB_OK;
    if (n > VDB_GRAPH_MAX_NODES)
        return vdb_fail(err, VECDB_FULL, "a graph index holds at most %u copies of vectors it has, %llu are needed",
                        VDB_GRAPH_MAX_NODES, (unsigned long long)n);
    for (uint32_t p = 0; p <= piece_of((uint32_t)n - 1); p++) {
        if (atomic_load_explicit(&graph->pieces[p], memory_order_relaxed))
            continue;
        size_t n_bytes = sizeof(struct vdb_graph_entry) * ((size_t)VDB_GRAPH_FIRST_PIECE << p);
        if (!vdb_graph_take(graph, n_bytes))
            return vdb_graph_refuse(graph->options.budget, n_bytes, err);
        struct vdb_graph_entry *piece = vdb_alloc(graph->options.memory, n_bytes);
        if (!piece) {
            vdb_graph_give_back(graph, n_bytes);
            return vdb_fail_memory(err, n_bytes);
        }
        atomic_store_explicit(&graph->pieces[p], piece, memory_order_release);
    }
    return VECDB_OK;
}

void vdb_graph_chain(struct vdb_graph *graph, uint32_t node, uint32_t slot)
{
    pthread_mutex_lock(&graph->entries_lock);
    uint32_t number = atomic_load_explicit(&graph->n_entries, memory_order_relaxed);
    uint32_t last = atomic_load_explicit(&graph->chains[node], memory_order_relaxed);
    struct vdb_graph_entry *entry = vdb_graph_entry_at(graph, number);
    entry->slot = slot;
    entry->node = node;
    if (last == VDB_NO_NODE) {
        atomic_init(&entry->next, number);
    } else {
        struct vdb_graph_entry *before = vdb_graph_entry_at(graph, last);
        atomic_init(&entry->next, atomic_load_explicit(&before->next, memory_order_relaxed));
        atomic_store_explicit(&before->next, number, memory_order_release);
    }
    atomic_store_explicit(&graph->chains[node], number, memory_order_release);
    atomic_store_explicit(&graph->n_entries, number + 1, memory_order_release);
    pthread_mutex_unlock(&graph->entries_lock);
}

/* ------------------------------------------------------------------ small things */

void vdb_graph_space(const struct vdb_graph *graph, bool is_building, struct vdb_space *space)
{
    const struct vdb_codec *codec = &graph->codec;
    *space = (struct vdb_space){.codec = codec, .codes = graph->codes, .stride = codec->stride4, .bits = 4};
    if (codec->bits_bytes) {
        space->bits = 1;
    } else if (is_building && graph->codes8) {
        space->codes = graph->codes8;
        space->stride = codec->stride8;
        space->bits = 8;
    } else if (is_building) {
        space->is_product = codec->metric == VECDB_IP;
    }
}

uint32_t vdb_graph_level(const struct vdb_graph *graph, uint32_t slot)
{
    uint64_t z = graph->options.seed + (slot + 1ull) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    uint32_t level = 0;
    for (; level < VDB_GRAPH_LAYERS && z % 16 == 0; level++)
        z /= 16;
    return level;
}

int vdb_graph_begin_building(struct vdb_graph *graph, vecdb_error *err)
{
    struct vdb_memory *memory = graph->options.memory;
    uint32_t capacity = graph->capacity;
    size_t row = VDB_GRAPH_EXTRA * sizeof *graph->extra;
    if (!graph->extra && vdb_graph_take(graph, capacity * row)) {
        graph->extra = vdb_graph_alloc(memory, capacity, row);
        if (!graph->extra) {
            vdb_graph_give_back(graph, capacity * row);
            return vdb_fail_memory(err, capacity * row);
        }
        memset((void *)graph->extra, 0xff, capacity * row);
        atomic_fetch_add_explicit(&graph->bytes_building, capacity * row, memory_order_relaxed);
    }
    bool is_empty = atomic_load_explicit(&graph->n_nodes, memory_order_relaxed) == 0;
    size_t n_bytes = capacity * graph->codec.stride8;
    if (is_empty && !graph->codes8 && n_bytes && vdb_graph_take(graph, n_bytes)) {
        graph->codes8 = vdb_graph_alloc(memory, capacity, graph->codec.stride8);
        if (!graph->codes8) {
            vdb_graph_give_back(graph, n_bytes);
            return vdb_fail_memory(err, n_bytes);
        }
        atomic_fetch_add_explicit(&graph->bytes_building, n_bytes, memory_order_relaxed);
    }
    return VECDB_OK;
}

void vdb_graph_end_building(struct vdb_graph *graph)
{
    vdb_builders_free(graph);
    vdb_free_aligned(graph->options.memory, (void *)graph->extra);
    vdb_free_aligned(graph->options.memory, graph->codes8);
    graph->extra = NULL;
    graph->codes8 = NULL;
    vdb_graph_give_back(graph, atomic_exchange_explicit(&graph->bytes_building, 0, memory_order_relaxed));
}

uint32_t vdb_graph_end(const struct vdb_graph *graph)
{
    return atomic_load_explicit(&graph->end, memory_order_acquire);
}

void vdb_graph_set_end(struct vdb_graph *graph, uint32_t end)
{
    atomic_store_explicit(&graph->end, end, memory_order_release);
    atomic_fetch_add_explicit(&graph->changes, 1, memory_order_relaxed);
}

uint32_t vdb_graph_node_slot(const struct vdb_graph *graph, uint32_t node)
{
    return graph->slots[node];
}

uint32_t vdb_graph_capacity(const struct vdb_graph *graph)
{
    return graph->capacity;
}

uint64_t vdb_graph_count_slots(const struct vdb_graph *graph)
{
    uint64_t n_nodes = atomic_load_explicit(&graph->n_nodes, memory_order_acquire);
    return n_nodes + atomic_load_explicit(&graph->n_entries, memory_order_acquire);
}

void vdb_graph_describe(const struct vdb_graph *graph, struct vdb_graph_info *info)
{
    uint32_t n = atomic_load_explicit(&graph->n_nodes, memory_order_acquire);
    uint32_t n_entries = atomic_load_explicit(&graph->n_entries, memory_order_acquire);
    *info = (struct vdb_graph_info){.n_nodes = n,
                                    .capacity = graph->capacity,
                                    .end = vdb_graph_end(graph),
                                    .n_slots = (uint64_t)n + n_entries,
                                    .changes = atomic_load_explicit(&graph->changes, memory_order_relaxed)};
    info->bytes = vdb_graph_array_bytes(graph->codec.stride4, graph->capacity);
    for (uint32_t p = 0; p < VDB_GRAPH_PIECES && atomic_load_explicit(&graph->pieces[p], memory_order_relaxed); p++)
        info->bytes += sizeof(struct vdb_graph_entry) * ((uint64_t)VDB_GRAPH_FIRST_PIECE << p);
    info->bytes_building = atomic_load_explicit(&graph->bytes_building, memory_order_relaxed);
    info->bytes += info->bytes_building;
    for (uint32_t node = 0; node < n; node++)
        for (uint32_t j = 0; j < VDB_GRAPH_DEGREE; j++)
            info->n_links +=
                atomic_load_explicit(&graph->links[(size_t)node * VDB_GRAPH_DEGREE + j], memory_order_relaxed) !=
                VDB_NO_NODE;
}
