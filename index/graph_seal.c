/* SPDX-License-Identifier: Apache-2.0
 *
 * index/graph_seal.c - after a bulk of insertions: rows of at most 32 links, everything reachable, less memory
 *
 *  1. Rows that have links in `extra` choose 32 among all of them, with fill.
 *  2. Nodes that a breadth-first search from the root does not reach are attached: a walk towards the node
 *     finds the nearest that are reachable; the nearest with a free place links to it. Where none has one, the
 *     nearest gives its last link, which may cut off another node: so this is repeated, up to ROUNDS times, until
 *     all is reached. Rare: on four real sets no node needed it once rows are filled, without fill 14 of 390,000 did.
 *  3. `extra` and the 8-bit codes are given back. Searches never look at either, so they may go on.
 *
 * A call that is stopped leaves a valid graph that was not sealed.
 */
#include <assert.h>

#include "base/error.h"
#include "graph_private.h"

#define ROUNDS 8
#define PIECE 32u /* nodes that a thread takes at a time: some 100 us to 1 ms */

/* ------------------------------------------------------------------ threads */

struct job {
    struct vdb_graph *graph;
    const struct vdb_graph *also;
    uint32_t n;
    void (*each)(void *context, struct vdb_builder *builder, uint32_t i);
    void *context;
    const struct vdb_graph_insert *how;
    _Atomic uint64_t next;
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
    int status = !builder ? VECDB_NOMEM
                          : job->also ? vdb_scratch_reserve(builder->scratch, job->also, VDB_BUILD_LIST, &error)
                                      : VECDB_OK;
    while (!status && !atomic_load(&job->stopped)) {
        uint64_t first = atomic_fetch_add(&job->next, PIECE);
        if (first >= job->n)
            break;
        for (uint64_t j = first; j < first + PIECE && j < job->n; j++)
            job->each(job->context, builder, (uint32_t)j);
        status = how->stop ? how->stop(how->stop_context, &error) : VECDB_OK;
    }
    if (status)
        fail(job, status, &error);
    if (builder)
        vdb_builder_give(job->graph, builder);
}

int vdb_graph_each(struct vdb_graph *graph, const struct vdb_graph *also, uint32_t n,
                   void (*each)(void *context, struct vdb_builder *builder, uint32_t i), void *context,
                   const struct vdb_graph_insert *how, vecdb_error *err)
{
    struct job job = {.graph = graph, .also = also, .n = n, .each = each, .context = context, .how = how};
    pthread_mutex_init(&job.lock, NULL);
    int n_threads = how->pool && n > PIECE ? how->n_threads : 1;
    if (n_threads > 1)
        vdb_pool_run(how->pool, n_threads, (size_t)n_threads, work, &job);
    else
        work(&job, 0);
    pthread_mutex_destroy(&job.lock);
    if (job.status && err)
        *err = job.error;
    return job.status;
}

/* ------------------------------------------------------------------ reaching everything */

uint32_t vdb_graph_root(const struct vdb_graph *graph)
{
    uint64_t entry = atomic_load_explicit(&graph->entry, memory_order_acquire);
    assert(entry != VDB_GRAPH_NO_ENTRY);
    uint32_t layer = (uint32_t)(entry >> 32);
    return layer ? graph->layers[layer - 1].nodes[(uint32_t)entry] : (uint32_t)entry;
}

struct reach {
    uint8_t *is_reached;
    uint32_t *queue;
    uint32_t n; /* reached */
};

/* Everything that can be reached from `node`, which could not yet. */
static void spread(const struct vdb_graph *graph, struct reach *reach, uint32_t node)
{
    uint32_t at = reach->n, links[VDB_GRAPH_BATCH];
    reach->is_reached[node] = 1;
    reach->queue[reach->n++] = node;
    while (at < reach->n) {
        uint32_t n = vdb_graph_links(graph, reach->queue[at++], links);
        for (uint32_t i = 0; i < n; i++)
            if (!reach->is_reached[links[i]]) {
                reach->is_reached[links[i]] = 1;
                reach->queue[reach->n++] = links[i];
            }
    }
}

/* Give `node` a link from something near that is reached. */
static void attach(struct vdb_graph *graph, struct vdb_builder *builder, const struct vdb_space *space, uint32_t root,
                   uint32_t node)
{
    struct vdb_query query;
    struct vdb_walk walk = {
        .graph = graph, .space = *space, .query = &query, .scratch = builder->scratch, .with_extra = graph->extra};
    uint32_t links[VDB_GRAPH_BATCH], from = VDB_NO_NODE, n_links = 0;
    vdb_space_query(space, space->codes + node * space->stride, builder->values[0], &query);
    uint32_t n = vdb_walk_base(&walk, root, VDB_BUILD_LIST);
    for (uint32_t i = 0; i < n && from == VDB_NO_NODE; i++) {
        uint32_t candidate = vdb_candidate_node(builder->scratch->keys[i]);
        n_links = vdb_graph_links(graph, candidate, links);
        if (n_links < VDB_GRAPH_DEGREE)
            from = candidate;
    }
    if (from == VDB_NO_NODE) {
        from = vdb_candidate_node(builder->scratch->keys[0]);
        n_links = VDB_GRAPH_DEGREE - 1;
    }
    _Atomic uint32_t *row = graph->links + (size_t)from * VDB_GRAPH_DEGREE;
    atomic_store_explicit(&row[n_links], node, memory_order_release);
    vdb_graph_mark_dirty(graph, from);
}

int vdb_graph_connect(struct vdb_graph *graph, const struct vdb_graph_insert *how, vecdb_error *err)
{
    struct vdb_memory *memory = graph->options.memory;
    uint32_t n = atomic_load(&graph->n_nodes);
    struct reach reach = {vdb_alloc(memory, n), vdb_alloc_array(memory, n, sizeof *reach.queue), 0};
    struct vdb_builder *builder = NULL;
    struct vdb_space space;
    int status = VECDB_OK;
    vdb_graph_space(graph, true, &space);
    if (!reach.is_reached || !reach.queue)
        status = vdb_fail_memory(err, n * (1 + sizeof *reach.queue));
    else if (!(builder = vdb_builder_take(graph, err)))
        status = VECDB_NOMEM;
    for (int round = 0; !status && round < ROUNDS && n; round++) {
        uint32_t root = vdb_graph_root(graph);
        reach.n = 0;
        memset(reach.is_reached, 0, n);
        spread(graph, &reach, root);
        if (reach.n == n)
            break;
        for (uint32_t node = 0; !status && node < n; node++) {
            if (reach.is_reached[node])
                continue;
            attach(graph, builder, &space, root, node);
            spread(graph, &reach, node);
            status = how->stop ? how->stop(how->stop_context, err) : VECDB_OK;
        }
    }
    if (builder)
        vdb_builder_give(graph, builder);
    vdb_free(memory, reach.is_reached);
    vdb_free(memory, reach.queue);
    return status;
}

/* ------------------------------------------------------------------ sealing */

struct shortening {
    struct vdb_graph *graph;
    struct vdb_space space;
};

static void shorten(void *context, struct vdb_builder *builder, uint32_t node)
{
    struct shortening *shortening = context;
    uint32_t n = vdb_graph_links(shortening->graph, node, builder->nodes);
    if (n > VDB_GRAPH_DEGREE)
        vdb_graph_choose(shortening->graph, builder, &shortening->space, node, n, true);
}

int vdb_graph_seal(struct vdb_graph *graph, const struct vdb_graph_insert *how, vecdb_error *err)
{
    static const struct vdb_graph_insert alone = {.n_threads = 1};
    how = how ? how : &alone;
    uint32_t n = atomic_load(&graph->n_nodes);
    struct shortening shortening = {.graph = graph};
    vdb_graph_space(graph, true, &shortening.space);
    int status = VECDB_OK;
    if (graph->extra)
        status = vdb_graph_each(graph, NULL, n, shorten, &shortening, how, err);
    if (!status)
        status = vdb_graph_connect(graph, how, err);
    if (status)
        return status;
    atomic_fetch_add_explicit(&graph->changes, 1, memory_order_relaxed);
    vdb_graph_end_building(graph);
    return VECDB_OK;
}
