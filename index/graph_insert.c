/* SPDX-License-Identifier: Apache-2.0
 *
 * index/graph_insert.c - insertion, by one thread or several
 *
 *     encode the row -> walk down the upper layers -> walk of the base layer with VDB_BUILD_LIST candidates
 *        a candidate with the same record: hang the slot to it, done
 *        else a new node: record, slot, own links (prune with fill), then the links back, then the upper layers
 *
 * Scores are those of 8-bit codes while a graph is built from nothing, of 4-bit codes once it was sealed: then
 * nobody has kept the others. A walk on 8 bits finds the neighbours that one on floats finds (measured: same recall of
 * the finished graph, a third of the time).
 *
 * LINKS BACK. A neighbour with less than 32 links gets one more. A full one gives the place of one of its last,
 * which it chose least eagerly, to the new node, which so can be found at once, and keeps the old link in `extra`,
 * which only insertions see. After 16 of these it chooses anew among all (no fill). Without this slack building
 * takes 1.7 times as long; where the budget has no room for `extra` (graph_budget.c), that is how it is done.
 *
 * THREADS take rows one by one, in order, and finish each row they have taken, so what is inserted is always
 * the first rows of the call. They meet in these places:
 *  - a row of links is changed under one of VDB_GRAPH_LOCKS locks, one at a time: no order, no deadlock
 *  - a node number is taken from n_nodes when everything is known about the node
 *  - chains and upper layers have a lock each
 * Two equal rows at the same time may become two nodes, which is nothing but a pity. With one thread the graph
 * depends on the rows, their order and the seed alone, on any machine.
 *
 * The first FIRST_NODES nodes are inserted by one thread: in a graph of a few nodes, threads do not see each
 * other's, and what they miss stays missed.
 */
#include <assert.h>

#include "base/error.h"
#include "base/numbers.h"
#include "base/slots.h"
#include "graph_private.h"

#define FIRST_NODES 1000u
#define BATCH_ROWS 4096u /* chains get room for so many beforehand */
#define EQUALS_TRIED 8u  /* nearest candidates that may be the same vector */

/* ------------------------------------------------------------------ builders */

static void free_builder(struct vdb_builder *builder)
{
    vdb_graph_scratch_free(builder->scratch);
    vdb_free_aligned(builder->memory, builder->work);
    vdb_free(builder->memory, builder);
}

static struct vdb_builder *new_builder(struct vdb_graph *graph, vecdb_error *err)
{
    struct vdb_memory *memory = graph->options.memory;
    const struct vdb_codec *codec = &graph->codec;
    struct vdb_builder *builder = vdb_alloc_zero(memory, sizeof *builder);
    if (!builder) {
        vdb_fail_memory(err, sizeof *builder);
        return NULL;
    }
    builder->memory = memory;
    builder->scratch = vdb_graph_scratch_new(memory);
    /* floats, two arrays of query values, two records; each a multiple of 64 bytes, or rounded up to one */
    size_t n = codec->n_values, record4 = (codec->stride4 + 63) / 64 * 64, record8 = (codec->stride8 + 63) / 64 * 64;
    size_t n_bytes = n * sizeof *builder->work + 2 * n + record4 + record8;
    builder->work = vdb_alloc_aligned(memory, n_bytes);
    if (!builder->scratch || !builder->work) {
        free_builder(builder);
        vdb_fail_memory(err, n_bytes);
        return NULL;
    }
    builder->values[0] = (int8_t *)(builder->work + n);
    builder->values[1] = builder->values[0] + n;
    builder->record4 = (unsigned char *)builder->values[1] + n;
    builder->record8 = builder->record4 + record4;
    return builder;
}

struct vdb_builder *vdb_builder_take(struct vdb_graph *graph, vecdb_error *err)
{
    pthread_mutex_lock(&graph->builders_lock);
    struct vdb_builder *builder = graph->builders;
    if (builder)
        graph->builders = builder->next;
    pthread_mutex_unlock(&graph->builders_lock);
    if (!builder)
        builder = new_builder(graph, err);
    if (builder && vdb_scratch_reserve(builder->scratch, graph, VDB_BUILD_LIST, err)) {
        free_builder(builder);
        builder = NULL;
    }
    return builder;
}

void vdb_builder_give(struct vdb_graph *graph, struct vdb_builder *builder)
{
    pthread_mutex_lock(&graph->builders_lock);
    builder->next = graph->builders;
    graph->builders = builder;
    pthread_mutex_unlock(&graph->builders_lock);
}

void vdb_builders_free(struct vdb_graph *graph)
{
    while (graph->builders) {
        struct vdb_builder *builder = graph->builders;
        graph->builders = builder->next;
        free_builder(builder);
    }
}

/* ------------------------------------------------------------------ one row */

/* Let `from` link to `to`. */
static void link_back(struct vdb_graph *graph, struct vdb_builder *builder, const struct vdb_space *space,
                      uint32_t from, uint32_t to)
{
    pthread_mutex_t *lock = &graph->locks[from % VDB_GRAPH_LOCKS];
    pthread_mutex_lock(lock);
    uint32_t n = vdb_graph_links(graph, from, builder->nodes);
    bool is_there = false;
    for (uint32_t i = 0; i < n; i++)
        is_there |= builder->nodes[i] == to;
    _Atomic uint32_t *row = graph->links + (size_t)from * VDB_GRAPH_DEGREE;
    if (is_there) {
        /* nothing to do */
    } else if (n < VDB_GRAPH_DEGREE) {
        atomic_store_explicit(&row[n], to, memory_order_release);
    } else if (n < VDB_GRAPH_BATCH && graph->extra) {
        uint32_t place = n - VDB_GRAPH_DEGREE;
        _Atomic uint32_t *extra = graph->extra + (size_t)from * VDB_GRAPH_EXTRA;
        atomic_store_explicit(&extra[place], builder->nodes[VDB_GRAPH_DEGREE - 1 - place], memory_order_release);
        atomic_store_explicit(&row[VDB_GRAPH_DEGREE - 1 - place], to, memory_order_release);
    } else {
        builder->nodes[n++] = to;
        vdb_graph_choose(graph, builder, space, from, n, false);
    }
    vdb_graph_mark_dirty(graph, from);
    pthread_mutex_unlock(lock);
}

/* The candidate among the nearest that has the record of the new row, or VDB_NO_NODE. */
static uint32_t find_equal(const struct vdb_graph *graph, const struct vdb_builder *builder, uint32_t n)
{
    bool has8 = graph->codes8 != NULL;
    const unsigned char *record = has8 ? builder->record8 : builder->record4;
    const unsigned char *codes = has8 ? graph->codes8 : graph->codes;
    size_t stride = has8 ? graph->codec.stride8 : graph->codec.stride4;
    for (uint32_t i = 0; i < n && i < EQUALS_TRIED; i++) {
        uint32_t node = vdb_candidate_node(builder->scratch->keys[i]);
        if (vdb_codec_equal(&graph->codec, has8 ? 8 : 4, record, codes + node * stride))
            return node;
    }
    return VDB_NO_NODE;
}

static uint32_t add_node(struct vdb_graph *graph, const struct vdb_builder *builder, uint32_t slot)
{
    uint32_t node = atomic_fetch_add_explicit(&graph->n_nodes, 1, memory_order_acq_rel);
    assert(node < graph->capacity);
    memcpy(graph->codes + node * graph->codec.stride4, builder->record4, graph->codec.stride4);
    if (graph->codes8)
        memcpy(graph->codes8 + node * graph->codec.stride8, builder->record8, graph->codec.stride8);
    graph->slots[node] = slot;
    atomic_store_explicit(&graph->chains[node], VDB_NO_NODE, memory_order_relaxed);
    return node;
}

/* The links of a new node among the n candidates of its walk; returns how many, and tells which. */
static uint32_t link_node(struct vdb_graph *graph, struct vdb_builder *builder, const struct vdb_space *space,
                          uint32_t node, uint32_t n, float constant, uint32_t links[VDB_GRAPH_DEGREE])
{
    for (uint32_t i = 0; i < n; i++) {
        uint64_t key = builder->scratch->keys[i];
        float distance = vdb_candidate_score(key) + constant;
        builder->nodes[i] = vdb_candidate_node(key);
        builder->keys[i] = vdb_candidate_key(distance > 0 ? distance : 0, builder->nodes[i]);
    }
    n = vdb_graph_prune(builder, space, n, VDB_GRAPH_DEGREE, VDB_GRAPH_ALPHA, true, links);
    for (uint32_t i = 0; i < n; i++)
        links[i] = builder->nodes[links[i]];
    vdb_graph_set_links(graph, node, links, n);
    return n;
}

static void insert_row(struct vdb_graph *graph, struct vdb_builder *builder, int type, const void *values,
                       uint32_t slot)
{
    const struct vdb_codec *codec = &graph->codec;
    struct vdb_query query;
    struct vdb_walk walk = {.graph = graph, .query = &query, .scratch = builder->scratch, .with_extra = graph->extra};
    uint32_t level = vdb_graph_level(graph, slot), start, n = 0, links[VDB_GRAPH_DEGREE];
    vdb_graph_space(graph, true, &walk.space);
    vdb_codec_encode(codec, type, values, builder->work, builder->record4, codec->stride8 ? builder->record8 : NULL);
    if (codec->bits_bytes)
        vdb_codec_query_record(codec, builder->record4, 4, 4, builder->values[0], &query);
    else
        vdb_codec_query_record(codec, builder->record8, 8, walk.space.bits, builder->values[0], &query);
    if (vdb_graph_seek_upper(&walk, builder, level, &start))
        n = vdb_walk_base(&walk, start, VDB_BUILD_LIST);
    uint32_t node = find_equal(graph, builder, n);
    if (node != VDB_NO_NODE) {
        vdb_graph_chain(graph, node, slot);
        return;
    }
    node = add_node(graph, builder, slot);
    n = link_node(graph, builder, &walk.space, node, n, query.constant, links);
    for (uint32_t i = 0; i < n; i++)
        link_back(graph, builder, &walk.space, links[i], node);
    if (level > 0 || atomic_load_explicit(&graph->entry, memory_order_relaxed) == VDB_GRAPH_NO_ENTRY)
        vdb_graph_link_upper(graph, builder, &walk.space, node, level);
}

/* ------------------------------------------------------------------ many rows */

struct job {
    struct vdb_graph *graph;
    const struct vdb_block *block;
    const struct vdb_graph_insert *how;
    uint32_t first, n;
    _Atomic uint32_t next; /* rows that were taken */
    atomic_bool stopped;
    pthread_mutex_t lock; /* of the rest */
    int status;
    vecdb_error error;
};

static void fail(struct job *job, int status, const vecdb_error *error)
{
    pthread_mutex_lock(&job->lock);
    if (!job->status) {
        job->status = status;
        job->error = *error;
    }
    pthread_mutex_unlock(&job->lock);
    atomic_store(&job->stopped, true);
}

static void work(void *context, size_t i)
{
    (void)i;
    struct job *job = context;
    const struct vdb_graph_insert *how = job->how;
    vecdb_error error = {0};
    struct vdb_builder *builder = vdb_builder_take(job->graph, &error);
    if (!builder) {
        fail(job, VECDB_NOMEM, &error);
        return;
    }
    while (!atomic_load(&job->stopped)) {
        int status = how->stop ? how->stop(how->stop_context, &error) : VECDB_OK;
        if (status) {
            fail(job, status, &error);
            break;
        }
        uint32_t taken = atomic_fetch_add(&job->next, 1);
        if (taken >= job->n)
            break;
        uint32_t row = job->first + taken, slot = vdb_block_slot(job->block, row);
        if (!how->dead || !vdb_slots_has(how->dead, slot))
            insert_row(job->graph, builder, job->block->type,
                       (const char *)job->block->rows + row * job->block->stride, slot);
    }
    vdb_builder_give(job->graph, builder);
}

/* Insert up to n rows, which there is room for; *n_done of them are in. */
static int run(struct vdb_graph *graph, const struct vdb_block *block, uint32_t first, uint32_t n,
               const struct vdb_graph_insert *how, int n_threads, uint32_t *n_done, vecdb_error *err)
{
    struct job job = {.graph = graph, .block = block, .how = how, .first = first, .n = n};
    pthread_mutex_init(&job.lock, NULL);
    if (n_threads > 1)
        vdb_pool_run(how->pool, n_threads, (size_t)n_threads, work, &job);
    else
        work(&job, 0);
    pthread_mutex_destroy(&job.lock);
    uint32_t taken = atomic_load(&job.next);
    *n_done = taken < n ? taken : n;
    if (*n_done == n)
        return VECDB_OK; /* whatever a thread met after the last row */
    if (err)
        *err = job.error;
    return job.status;
}

static void train(struct vdb_graph *graph, const struct vdb_block *block, uint32_t first, uint32_t n, float *space)
{
    struct vdb_block sample = *block;
    sample.rows = (const char *)block->rows + first * block->stride;
    sample.n_rows = n;
    vdb_codec_train(&graph->codec, &sample, space);
}

static int prepare(struct vdb_graph *graph, const struct vdb_block *block, uint32_t first, uint32_t n, vecdb_error *err)
{
    int status = vdb_graph_begin_building(graph, err);
    if (status || graph->codec.is_trained)
        return status;
    struct vdb_builder *builder = vdb_builder_take(graph, err);
    if (!builder)
        return VECDB_NOMEM;
    train(graph, block, first, n, builder->work);
    vdb_builder_give(graph, builder);
    return VECDB_OK;
}

int vdb_graph_insert(struct vdb_graph *graph, const struct vdb_block *block, uint32_t first, uint32_t n,
                     const struct vdb_graph_insert *how, vecdb_error *err)
{
    static const struct vdb_graph_insert alone = {.n_threads = 1};
    how = how ? how : &alone;
    int status = VECDB_OK;
    for (bool is_first = true; !status && n; is_first = false) {
        uint32_t n_nodes = atomic_load(&graph->n_nodes), room = graph->capacity - n_nodes, n_done;
        uint32_t n_rows = n < BATCH_ROWS ? n : BATCH_ROWS;
        if (!room)
            return vdb_fail(err, VECDB_FULL, "the graph has room for %u vectors, and has as many", graph->capacity);
        if (is_first && (status = prepare(graph, block, first, n, err)))
            break;
        int n_threads = how->pool && n_nodes >= FIRST_NODES ? how->n_threads : 1;
        if (n_nodes < FIRST_NODES && n_rows > FIRST_NODES)
            n_rows = FIRST_NODES;
        n_rows = n_rows < room ? n_rows : room;
        n_threads = (uint32_t)n_threads > n_rows ? (int)n_rows : n_threads;
        status = vdb_graph_reserve_entries(graph, (uint64_t)atomic_load(&graph->n_entries) + n_rows, err);
        if (status)
            break;
        status = run(graph, block, first, n_rows, how, n_threads, &n_done, err);
        if (n_done)
            vdb_graph_set_end(graph, vdb_block_slot(block, first + n_done - 1) + 1);
        first += n_done;
        n -= n_done;
    }
    return status;
}
