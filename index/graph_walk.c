/* SPDX-License-Identifier: Apache-2.0
 *
 * index/graph_walk.c - the walk through a graph
 *
 *     entry -> greedy through the upper layers -> walk of the base layer with a pool of `ef` candidates
 *
 * The pool is one sorted array of 64-bit keys (graph_private.h), filled by a kernel: for the tens to hundreds of
 * candidates that a search keeps this is faster than two heaps (10-16 %, measured). Following a candidate gathers
 * those of its neighbours that this walk has not met, scores them with one call of a kernel, and pushes the ones that
 * are nearer than the pool's last.
 *
 * The walk is one step ahead of itself. Once the pool is full, the next candidate is followed, and the records of its
 * neighbours are asked for, before those of the last one are scored: memory works while the processor does. What the
 * last one's neighbours would have changed is seen a step later. That costs up to 4 % more distances where ef is
 * small, gains .002 of recall, and 2 to 13 % more queries a second. While the pool fills, when each step is far better
 * than the one before, nothing is done ahead.
 *
 * Who was met is told by a byte for each node: the epoch of the walk that met it last. Epochs run from 1 to 255; only
 * when they wrap around is the array cleared, so a walk never pays for the nodes it does not see.
 *
 * Costs: memory first. A distance fetches one record (80 bytes at 128 values), a step one row of links (128 bytes),
 * and a core has few lines on their way at once; what is left is the 32 links of a step and the pool. So everything is
 * asked for as early as it is known: records while links are gathered, links when a score says that they will be
 * followed.
 */
#include "graph_private.h"

#include <assert.h>
#include <math.h>

#include "base/error.h"

/* Records are fetched while links are gathered, as far ahead of the kernel as can be: all of a row's records, and all
 * lines of a record up to so many bytes (measured against one line each: docs +15 %, MNIST +17 %, SIFT +15 %). */
#define FETCH_BYTES 512u

/* ------------------------------------------------------------------ scratch */

struct vdb_graph_scratch *vdb_graph_scratch_new(struct vdb_memory *memory)
{
    struct vdb_graph_scratch *scratch = vdb_alloc_zero(memory, sizeof *scratch);
    if (scratch)
        scratch->memory = memory;
    return scratch;
}

void vdb_graph_scratch_free(struct vdb_graph_scratch *scratch)
{
    if (!scratch)
        return;
    vdb_free_aligned(scratch->memory, scratch->visited);
    vdb_free_aligned(scratch->memory, scratch->keys);
    vdb_free_aligned(scratch->memory, scratch->work);
    vdb_free(scratch->memory, scratch->rows);
    vdb_free(scratch->memory, scratch->row_slots);
    vdb_free(scratch->memory, scratch->row_scores);
    vdb_free(scratch->memory, scratch->row_hits);
    vdb_free(scratch->memory, scratch);
}

int vdb_scratch_reserve(struct vdb_graph_scratch *scratch, const struct vdb_graph *graph, uint32_t limit,
                        vecdb_error *err)
{
    struct vdb_memory *memory = scratch->memory;
    if (scratch->n_visited < graph->capacity) {
        uint8_t *visited = vdb_graph_alloc(memory, graph->capacity, 1);
        if (!visited)
            return vdb_fail_memory(err, graph->capacity);
        memset(visited, 0, graph->capacity);
        vdb_free_aligned(memory, scratch->visited);
        scratch->visited = visited;
        scratch->n_visited = graph->capacity;
    }
    if (scratch->n_keys < limit) {
        size_t n_keys = ((size_t)limit + 7) / 8 * 8;
        uint64_t *keys = vdb_graph_alloc(memory, n_keys, sizeof *keys);
        if (!keys)
            return vdb_fail_memory(err, n_keys * sizeof *keys);
        vdb_free_aligned(memory, scratch->keys);
        scratch->keys = keys;
        scratch->n_keys = limit;
    }
    uint32_t n_values = graph->codec.n_values;
    if (scratch->n_work < n_values) {
        float *work = vdb_alloc_aligned(memory, (size_t)n_values * (sizeof *work + 1));
        if (!work)
            return vdb_fail_memory(err, (size_t)n_values * (sizeof *work + 1));
        vdb_free_aligned(memory, scratch->work);
        scratch->work = work;
        scratch->n_work = n_values;
    }
    return VECDB_OK;
}

void vdb_scratch_next_epoch(struct vdb_graph_scratch *scratch)
{
    if (++scratch->epoch == 0) {
        memset(scratch->visited, 0, scratch->n_visited);
        scratch->epoch = 1;
    }
}

/* ------------------------------------------------------------------ the walk */

struct pool {
    uint64_t *keys;
    uint32_t n, limit;
    uint32_t next; /* the first that was not followed is not before */
};

/* An empty pool, as the kernel that fills it wants it. */
static inline void begin_pool(struct pool *pool)
{
    memset(pool->keys, 0xff, ((size_t)pool->limit + 7) / 8 * 8 * sizeof *pool->keys);
}

static inline void push(struct pool *pool, const struct vdb_walk *walk, const uint64_t *keys, uint32_t n)
{
    uint32_t place = walk->space.codec->kernels->insert_keys(pool->keys, &pool->n, pool->limit, keys, n);
    pool->next = place < pool->next ? place : pool->next;
}

static inline void skip_followed(struct pool *pool)
{
    const uint64_t *keys = pool->keys;
    uint32_t at = pool->next;
    while (at + 4 <= pool->n && keys[at] & keys[at + 1] & keys[at + 2] & keys[at + 3] & 1)
        at += 4;
    while (at < pool->n && keys[at] & 1)
        at++;
    pool->next = at;
}

static inline uint32_t load_link(const _Atomic uint32_t *link)
{
    return atomic_load_explicit(link, memory_order_acquire);
}

static inline void prefetch_record(const struct vdb_space *space, uint32_t node)
{
    const unsigned char *record = space->codes + node * space->stride;
    size_t n = space->stride < FETCH_BYTES ? space->stride : FETCH_BYTES;
    for (size_t i = 0; i < n; i += 64)
        __builtin_prefetch(record + i);
}

/* Those of n links that were not met yet; VDB_NO_NODE ends them. `full` tells whether it did not. Which links were met
 * cannot be guessed, so nothing branches on it: each is written, and the place is kept when it is new. */
static inline uint32_t gather(struct vdb_graph_scratch *scratch, const struct vdb_space *space,
                              const _Atomic uint32_t *row, uint32_t n, uint32_t *batch, bool *full)
{
    uint8_t *visited = scratch->visited, epoch = scratch->epoch;
    uint32_t n_batch = 0, j = 0;
    for (; j < n; j++) {
        uint32_t link = load_link(&row[j]);
        if (link == VDB_NO_NODE)
            break;
        batch[n_batch] = link;
        n_batch += visited[link] != epoch;
        visited[link] = epoch;
    }
    *full = j == n;
    for (uint32_t i = 0; i < n_batch; i++)
        prefetch_record(space, batch[i]);
    return n_batch;
}

static inline void prefetch_row(const struct vdb_graph *graph, uint64_t key)
{
    const char *row = (const char *)(graph->links + (size_t)vdb_candidate_node(key) * VDB_GRAPH_DEGREE);
    __builtin_prefetch(row);
    __builtin_prefetch(row + 64);
}

/* Push what was scored. The links of the nearest are fetched meanwhile: mostly, it is followed next. */
static inline void push_all(struct pool *pool, const struct vdb_walk *walk, const float *scores, const uint32_t *nodes,
                            uint32_t n)
{
    uint64_t keys[VDB_GRAPH_BATCH + 1], best = UINT64_MAX;
    uint64_t last = pool->n == pool->limit ? pool->keys[pool->n - 1] : UINT64_MAX;
    uint32_t n_keys = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t key = vdb_candidate_key(scores[i], nodes[i]);
        best = key < best ? key : best;
        keys[n_keys] = key;
        n_keys += key < last;
    }
    if (!n_keys)
        return;
    prefetch_row(walk->graph, best);
    push(pool, walk, keys, n_keys);
}

static bool is_among(const uint32_t *nodes, uint32_t n, uint32_t node)
{
    for (uint32_t i = 0; i < n; i++)
        if (nodes[i] == node)
            return true;
    return false;
}

/* Where `node` has a link to the node that is left out: the neighbour of that one which is nearest to `node`, and which
 * it has no link to. A graph built without it would mostly have that link. Measured on sets with queries of their own
 * (SIFT, MNIST): searches for stored vectors then find what searches for such queries find, within .005; with
 * links into the void they find up to .1 less, with a second link .05 more. */
static uint32_t substitute(struct vdb_walk *walk, uint32_t node, uint32_t *batch)
{
    const struct vdb_graph *graph = walk->graph;
    uint32_t own[VDB_GRAPH_BATCH], others[VDB_GRAPH_BATCH], n_others = 0, best = 0;
    float scores[VDB_GRAPH_BATCH];
    uint32_t n_own = vdb_graph_links(graph, node, own);
    if (!is_among(own, n_own, *walk->without))
        return 0;
    uint32_t n = vdb_graph_links(graph, *walk->without, others);
    for (uint32_t i = 0; i < n; i++)
        if (others[i] != node && !is_among(own, n_own, others[i]))
            others[n_others++] = others[i];
    if (n_others == 0)
        return 0;
    struct vdb_space space;
    struct vdb_query query;
    vdb_graph_space(graph, true, &space);
    /* the floats were needed for making the search's query only */
    vdb_codec_query_record(&graph->codec, space.codes + node * space.stride, space.bits, space.bits,
                           (int8_t *)walk->scratch->work, &query);
    vdb_space_score(&space, &query, others, n_others, scores);
    for (uint32_t i = 1; i < n_others; i++)
        if (scores[i] < scores[best])
            best = i;
    if (walk->scratch->visited[others[best]] == walk->scratch->epoch)
        return 0;
    walk->scratch->visited[others[best]] = walk->scratch->epoch;
    batch[0] = others[best];
    return 1;
}

static uint32_t follow(struct vdb_walk *walk, uint32_t node, uint32_t *batch)
{
    const struct vdb_graph *graph = walk->graph;
    bool full;
    uint32_t n = gather(walk->scratch, &walk->space, graph->links + (size_t)node * VDB_GRAPH_DEGREE, VDB_GRAPH_DEGREE,
                        batch, &full);
    if (full && walk->with_extra)
        n += gather(walk->scratch, &walk->space, graph->extra + (size_t)node * VDB_GRAPH_EXTRA, VDB_GRAPH_EXTRA,
                    batch + n, &full);
    if (walk->without)
        n += substitute(walk, node, batch + n);
    walk->counts.n_expanded++;
    walk->counts.n_distances += n;
    return n;
}

/* The nearest candidate that was not followed yet; the links of the one behind it are fetched. False: there is none. */
static bool take(struct pool *pool, const struct vdb_graph *graph, uint32_t *node)
{
    skip_followed(pool);
    if (pool->next == pool->n)
        return false;
    *node = vdb_candidate_node(pool->keys[pool->next]);
    pool->keys[pool->next] |= 1;
    skip_followed(pool);
    if (pool->next < pool->n)
        prefetch_row(graph, pool->keys[pool->next]);
    return true;
}

uint32_t vdb_walk_base(struct vdb_walk *walk, uint32_t start, uint32_t limit)
{
    struct vdb_graph_scratch *scratch = walk->scratch;
    struct pool pool = {scratch->keys, 0, limit, 0};
    uint32_t batches[2][VDB_GRAPH_BATCH], n, n_ahead, node;
    float scores[VDB_GRAPH_BATCH];
    assert(limit > 0 && limit <= scratch->n_keys);
    begin_pool(&pool);
    vdb_scratch_next_epoch(scratch);
    scratch->visited[start] = scratch->epoch;
    if (walk->without)
        scratch->visited[*walk->without] = scratch->epoch;
    if (walk->without && start == *walk->without) {
        n = follow(walk, start, batches[0]);
    } else {
        batches[0][0] = start;
        n = 1;
    }
    for (unsigned turn = 0;; turn ^= 1) {
        uint32_t *batch = batches[turn], *ahead = batches[turn ^ 1];
        bool is_ahead = pool.n == pool.limit && take(&pool, walk->graph, &node);
        n_ahead = is_ahead ? follow(walk, node, ahead) : 0;
        vdb_space_score(&walk->space, walk->query, batch, n, scores);
        push_all(&pool, walk, scores, batch, n);
        if (!is_ahead) {
            if (!take(&pool, walk->graph, &node))
                return pool.n;
            n_ahead = follow(walk, node, ahead);
        }
        n = n_ahead;
    }
}

/* The same in an upper layer, by its own numbers; without huge numbers of candidates, and so without tricks. */
uint32_t vdb_walk_upper(struct vdb_walk *walk, uint32_t layer, uint32_t start, uint32_t limit)
{
    const struct vdb_graph_layer *upper = &walk->graph->layers[layer - 1];
    struct vdb_graph_scratch *scratch = walk->scratch;
    struct pool pool = {scratch->keys, 0, limit, 0};
    uint32_t batch[VDB_GRAPH_UPPER_DEGREE] = {start}, nodes[VDB_GRAPH_UPPER_DEGREE], n = 1;
    uint64_t keys[VDB_GRAPH_UPPER_DEGREE];
    float scores[VDB_GRAPH_UPPER_DEGREE];
    assert(limit > 0 && limit <= scratch->n_keys);
    begin_pool(&pool);
    vdb_scratch_next_epoch(scratch);
    scratch->visited[start] = scratch->epoch;
    for (;;) {
        for (uint32_t i = 0; i < n; i++)
            nodes[i] = upper->nodes[batch[i]];
        vdb_space_score(&walk->space, walk->query, nodes, n, scores);
        walk->counts.n_distances += n;
        for (uint32_t i = 0; i < n; i++)
            keys[i] = vdb_candidate_key(scores[i], batch[i]);
        push(&pool, walk, keys, n);
        skip_followed(&pool);
        if (pool.next == pool.n)
            return pool.n;
        uint32_t number = vdb_candidate_node(pool.keys[pool.next]);
        pool.keys[pool.next] |= 1;
        walk->counts.n_expanded++;
        const _Atomic uint32_t *row = upper->links + (size_t)number * VDB_GRAPH_UPPER_DEGREE;
        n = 0;
        for (uint32_t j = 0; j < VDB_GRAPH_UPPER_DEGREE; j++) {
            uint32_t link = load_link(&row[j]);
            if (link == VDB_NO_NODE)
                break;
            if (scratch->visited[link] != scratch->epoch) {
                scratch->visited[link] = scratch->epoch;
                batch[n++] = link;
            }
        }
    }
}

/* One layer, from `number` to where no neighbour is nearer. */
static uint32_t greedy(struct vdb_walk *walk, uint32_t layer, uint32_t number)
{
    const struct vdb_graph_layer *upper = &walk->graph->layers[layer - 1];
    uint32_t batch[VDB_GRAPH_UPPER_DEGREE], nodes[VDB_GRAPH_UPPER_DEGREE];
    float scores[VDB_GRAPH_UPPER_DEGREE], best = INFINITY;
    uint32_t node = upper->nodes[number];
    if (!walk->without || node != *walk->without)
        vdb_space_score(&walk->space, walk->query, &node, 1, &best);
    for (bool moved = true; moved;) {
        const _Atomic uint32_t *row = upper->links + (size_t)number * VDB_GRAPH_UPPER_DEGREE;
        uint32_t n = 0;
        for (uint32_t j = 0; j < VDB_GRAPH_UPPER_DEGREE; j++) {
            uint32_t link = load_link(&row[j]);
            if (link == VDB_NO_NODE)
                break;
            nodes[n] = upper->nodes[link];
            if (!walk->without || nodes[n] != *walk->without)
                batch[n++] = link;
        }
        vdb_space_score(&walk->space, walk->query, nodes, n, scores);
        walk->counts.n_distances += n;
        walk->counts.n_expanded++;
        moved = false;
        for (uint32_t i = 0; i < n; i++)
            if (scores[i] < best) {
                best = scores[i];
                number = batch[i];
                moved = true;
            }
    }
    return number;
}

bool vdb_walk_descend(struct vdb_walk *walk, uint32_t *layer, uint32_t *number)
{
    uint64_t entry = atomic_load_explicit(&walk->graph->entry, memory_order_acquire);
    if (entry == VDB_GRAPH_NO_ENTRY)
        return false;
    uint32_t at_layer = (uint32_t)(entry >> 32), at = (uint32_t)entry;
    for (; at_layer > *layer; at_layer--) {
        at = greedy(walk, at_layer, at);
        at = walk->graph->layers[at_layer - 1].down[at];
    }
    *layer = at_layer;
    *number = at;
    return true;
}
