/* SPDX-License-Identifier: Apache-2.0
 *
 * index/graph_search.c - the walk through a graph, and the answer to a query
 *
 *     entry -> greedy through the upper layers -> walk of the base layer with a pool of `ef` candidates
 *           -> the best n_rerank of them whose slots are live: exact distances from their rows -> k hits
 *
 * The pool is one sorted array of 64-bit keys (graph_private.h): inserting moves memory, and for the tens to hundreds of
 * candidates that a search keeps this is faster than two heaps (10-16 %, measured). Following a candidate
 * gathers those of its neighbours that this walk has not met, scores them with one call of a kernel, and
 * pushes the ones that are nearer than the pool's last.
 *
 * Who was met is told by a byte for each node: the epoch of the walk that met it last. Epochs run from 1 to 255; only
 * when they wrap around is the array cleared, so a walk never pays for the nodes it does not see.
 *
 * Dead nodes lead to others like living ones, and are left out of the answer. They take places in the pool, so the pool
 * is larger by the share of nodes that are dead; and when a walk found fewer than it was to find though there was
 * more to see, it is repeated with a pool twice as large.
 *
 * Costs: memory. A distance fetches one record (80 bytes at 128 values), a step one row of links (128 bytes);
 * arithmetic is a tenth of the time. So the next candidate's links are fetched while this one's neighbours are scored.
 */
#include "graph_private.h"

#include <assert.h>
#include <math.h>

#include "base/error.h"
#include "base/numbers.h"
#include "base/slots.h"

#define DEFAULT_EF 64u     /* recall of about .95 for k = 10 on the four sets of bench_graph */
#define DEFAULT_RERANK 20u /* above k */

/* Records are fetched while links are gathered, as far ahead of the kernel as can be: all of a row's records, and all
 * lines of a record up to so many bytes (measured against one line each: docs +15 %, MNIST +17 %, SIFT +15 %). */
#define FETCH_BYTES 512u

/* Candidates are reranked nearest by code first. Once k are known, and RERANK_LEAST that tell how wrong codes are here,
 * the rest are left out when the next would have to be wrong by RERANK_ERRORS times as much as usual to be among the
 * k nearest. Rows are asked for RERANK_PIECE at a time. */
#define RERANK_LEAST 8u
#define RERANK_PIECE 6u
#define RERANK_ERRORS 2.0

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
        uint64_t *keys = vdb_graph_alloc(memory, limit, sizeof *keys);
        if (!keys)
            return vdb_fail_memory(err, limit * sizeof *keys);
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

static int reserve_rows(struct vdb_graph_scratch *scratch, uint32_t n, vecdb_error *err)
{
    if (n <= scratch->n_rows)
        return VECDB_OK;
    struct vdb_memory *memory = scratch->memory;
    struct vdb_row *rows = vdb_alloc_array(memory, n, sizeof *rows);
    uint32_t *slots = vdb_alloc_array(memory, n, sizeof *slots);
    float *scores = vdb_alloc_array(memory, n, sizeof *scores);
    struct vdb_hit *hits = vdb_alloc_array(memory, n, sizeof *hits);
    if (!rows || !slots || !scores || !hits) {
        vdb_free(memory, rows);
        vdb_free(memory, slots);
        vdb_free(memory, scores);
        vdb_free(memory, hits);
        return vdb_fail_memory(err, n * (sizeof *rows + sizeof *slots + sizeof *scores + sizeof *hits));
    }
    vdb_free(memory, scratch->rows);
    vdb_free(memory, scratch->row_slots);
    vdb_free(memory, scratch->row_scores);
    vdb_free(memory, scratch->row_hits);
    scratch->rows = rows;
    scratch->row_slots = slots;
    scratch->row_scores = scores;
    scratch->row_hits = hits;
    scratch->n_rows = n;
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

/* The first place whose key is not below `key`. */
static uint32_t place_of(const uint64_t *keys, uint32_t n, uint64_t key)
{
    const uint64_t *at = keys;
    while (n > 1) {
        uint32_t half = n / 2;
        at += at[half - 1] < key ? half : 0;
        n -= half;
    }
    return (uint32_t)(at - keys) + (n == 1 && *at < key);
}

struct pool {
    uint64_t *keys;
    uint32_t n, limit;
    uint32_t next; /* the first that was not followed is not before */
};

static inline void push(struct pool *pool, uint64_t key)
{
    if (pool->n == pool->limit) {
        if (key >= pool->keys[pool->n - 1])
            return;
        pool->n--;
    }
    uint32_t place = place_of(pool->keys, pool->n, key);
    memmove(pool->keys + place + 1, pool->keys + place, (pool->n - place) * sizeof key);
    pool->keys[place] = key;
    pool->n++;
    if (place < pool->next)
        pool->next = place;
}

static inline void skip_followed(struct pool *pool)
{
    while (pool->next < pool->n && pool->keys[pool->next] & 1)
        pool->next++;
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

/* Those of n links that were not met yet; VDB_NO_NODE ends them. `full` tells whether it did not. */
static inline uint32_t gather(struct vdb_graph_scratch *scratch, const struct vdb_space *space,
                              const _Atomic uint32_t *row, uint32_t n, uint32_t *batch, bool *full)
{
    uint8_t *visited = scratch->visited, epoch = scratch->epoch;
    uint32_t n_batch = 0;
    for (uint32_t j = 0; j < n; j++) {
        uint32_t link = load_link(&row[j]);
        if (link == VDB_NO_NODE) {
            *full = false;
            return n_batch;
        }
        if (visited[link] == epoch)
            continue;
        visited[link] = epoch;
        prefetch_record(space, link);
        batch[n_batch++] = link;
    }
    *full = true;
    return n_batch;
}

static inline void prefetch_row(const struct vdb_graph *graph, uint64_t key)
{
    const char *row = (const char *)(graph->links + (size_t)vdb_candidate_node(key) * VDB_GRAPH_DEGREE);
    __builtin_prefetch(row);
    __builtin_prefetch(row + 64);
}

/* Push what was scored. The links of the nearest are fetched meanwhile: mostly, it is followed next. */
static inline void push_all(struct pool *pool, const struct vdb_graph *graph, const float *scores,
                            const uint32_t *nodes, uint32_t n)
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
    if (n_keys)
        prefetch_row(graph, best);
    for (uint32_t i = 0; i < n_keys; i++)
        push(pool, keys[i]);
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

uint32_t vdb_walk_base(struct vdb_walk *walk, uint32_t start, uint32_t limit)
{
    struct vdb_graph_scratch *scratch = walk->scratch;
    struct pool pool = {scratch->keys, 0, limit, 0};
    uint32_t batch[VDB_GRAPH_BATCH], n;
    float scores[VDB_GRAPH_BATCH];
    assert(limit > 0 && limit <= scratch->n_keys);
    vdb_scratch_next_epoch(scratch);
    scratch->visited[start] = scratch->epoch;
    if (walk->without)
        scratch->visited[*walk->without] = scratch->epoch;
    if (walk->without && start == *walk->without) {
        n = follow(walk, start, batch);
    } else {
        batch[0] = start;
        n = 1;
    }
    for (;;) {
        vdb_space_score(&walk->space, walk->query, batch, n, scores);
        push_all(&pool, walk->graph, scores, batch, n);
        skip_followed(&pool);
        if (pool.next == pool.n)
            return pool.n;
        uint64_t key = pool.keys[pool.next];
        pool.keys[pool.next] |= 1;
        skip_followed(&pool);
        if (pool.next < pool.n)
            prefetch_row(walk->graph, pool.keys[pool.next]);
        n = follow(walk, vdb_candidate_node(key), batch);
    }
}

/* The same in an upper layer, by its own numbers; without huge numbers of candidates, and so without tricks. */
uint32_t vdb_walk_upper(struct vdb_walk *walk, uint32_t layer, uint32_t start, uint32_t limit)
{
    const struct vdb_graph_layer *upper = &walk->graph->layers[layer - 1];
    struct vdb_graph_scratch *scratch = walk->scratch;
    struct pool pool = {scratch->keys, 0, limit, 0};
    uint32_t batch[VDB_GRAPH_UPPER_DEGREE] = {start}, nodes[VDB_GRAPH_UPPER_DEGREE], n = 1;
    float scores[VDB_GRAPH_UPPER_DEGREE];
    assert(limit > 0 && limit <= scratch->n_keys);
    vdb_scratch_next_epoch(scratch);
    scratch->visited[start] = scratch->epoch;
    for (;;) {
        for (uint32_t i = 0; i < n; i++)
            nodes[i] = upper->nodes[batch[i]];
        vdb_space_score(&walk->space, walk->query, nodes, n, scores);
        walk->counts.n_distances += n;
        for (uint32_t i = 0; i < n; i++)
            push(&pool, vdb_candidate_key(scores[i], batch[i]));
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

/* ------------------------------------------------------------------ what a walk has found */

struct finding {
    const struct vdb_graph *graph;
    const struct vdb_search *search;
    uint32_t end_slot;
    uint32_t n_wanted; /* nodes with live slots */
    uint32_t n_found;  /* of these */
    uint32_t n_rows, rows_limit;
};

static bool is_live(const struct finding *finding, uint32_t slot)
{
    return slot < finding->end_slot && (!finding->search->dead || !vdb_slots_has(finding->search->dead, slot));
}

/* The live slots of a node, at most k of them: all are equally far. */
static void collect_slots(struct finding *finding, uint32_t node, uint32_t *slots)
{
    const struct vdb_graph *graph = finding->graph;
    uint32_t before = finding->n_rows, most = finding->rows_limit - before;
    most = most < finding->search->k ? most : finding->search->k;
    if (is_live(finding, graph->slots[node]))
        slots[finding->n_rows++] = graph->slots[node];
    uint32_t last = atomic_load_explicit(&graph->chains[node], memory_order_acquire), at = last;
    while (at != VDB_NO_NODE && finding->n_rows - before < most) {
        const struct vdb_graph_entry *entry = vdb_graph_entry_at(graph, at);
        at = atomic_load_explicit(&entry->next, memory_order_acquire);
        entry = vdb_graph_entry_at(graph, at);
        if (is_live(finding, entry->slot))
            slots[finding->n_rows++] = entry->slot;
        if (at == last)
            break;
    }
    finding->n_found += finding->n_rows > before;
}

static void collect(struct finding *finding, const struct vdb_graph_scratch *scratch, uint32_t n)
{
    finding->n_found = finding->n_rows = 0;
    for (uint32_t i = 0; i < n && finding->n_found < finding->n_wanted && finding->n_rows < finding->rows_limit; i++) {
        uint32_t before = finding->n_rows;
        collect_slots(finding, vdb_candidate_node(scratch->keys[i]), scratch->row_slots);
        for (uint32_t row = before; row < finding->n_rows; row++)
            scratch->row_scores[row] = vdb_candidate_score(scratch->keys[i]);
    }
}

/* ------------------------------------------------------------------ exact distances */

static enum vdb_op op_of(int metric)
{
    return metric == VECDB_L2 ? VDB_OP_L2 : metric == VECDB_IP ? VDB_OP_DOT : VDB_OP_COSINE;
}

static double query_length(const struct vdb_search *search, const float *query)
{
    double square = 0;
    for (uint32_t i = 0; i < search->dimension; i++)
        square += (double)query[i] * (double)query[i];
    return sqrt(square);
}

static double distance_of(int metric, float score, double length)
{
    double distance = (double)score;
    if (metric == VECDB_L2)
        distance = sqrt(distance);
    else if (metric == VECDB_IP)
        distance = 0 - distance;
    else if (metric == VECDB_COSINE)
        distance = length > 0 ? fmin(fmax(1 - distance / length, 0), 2) : 1;
    return isnan(distance) ? INFINITY : distance;
}

static void prefetch_values(const void *values, size_t n_bytes)
{
    size_t n = n_bytes < 512 ? n_bytes : 512; /* the processor itself fetches what follows */
    for (size_t i = 0; values && i < n; i += 64)
        __builtin_prefetch((const char *)values + i);
}

static bool is_before(const struct vdb_hit *a, const struct vdb_hit *b)
{
    return a->distance != b->distance ? a->distance < b->distance : a->slot < b->slot;
}

static void sift_down(struct vdb_hit *hits, size_t at, size_t n)
{
    struct vdb_hit hit = hits[at];
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && is_before(&hits[child], &hits[child + 1]))
            child++;
        if (!is_before(&hit, &hits[child]))
            break;
        hits[at] = hits[child];
    }
    hits[at] = hit;
}

static void make_heap(struct vdb_hit *hits, size_t n)
{
    for (size_t i = n / 2; i-- > 0;)
        sift_down(hits, i, n);
}

/* From a heap to ascending order. */
static void sort_heap(struct vdb_hit *hits, size_t n)
{
    for (size_t i = n; i-- > 1;) {
        struct vdb_hit last = hits[i];
        hits[i] = hits[0];
        hits[0] = last;
        sift_down(hits, 0, i);
    }
}

/* The candidates' exact distances, nearest by code first. The k nearest so far are a heap in scratch->row_hits. */
struct rerank {
    const struct vdb_graph *graph;
    const struct vdb_search *search;
    const void *query;
    const struct vdb_query *coded;
    double length; /* cosine: of the query */
    struct vdb_graph_scratch *scratch;
    uint32_t n_hits;
    uint64_t n_scored, bytes;
    double error_squares; /* of what codes said, in their units */
};

/* What codes estimate, from a distance: see vdb_query.constant. */
static double coded_of(const struct rerank *rerank, double distance)
{
    double unit = (double)rerank->graph->codec.unit;
    switch (rerank->search->metric) {
    case VECDB_L2:
        return distance * distance * unit * unit;
    case VECDB_IP:
        return distance * unit * unit;
    case VECDB_COSINE:
        return 2 * distance;
    default:
        return distance;
    }
}

static void keep(struct rerank *rerank, struct vdb_hit hit)
{
    struct vdb_hit *hits = rerank->scratch->row_hits;
    uint32_t k = rerank->search->k;
    if (rerank->n_hits < k) {
        hits[rerank->n_hits++] = hit;
        if (rerank->n_hits == k)
            make_heap(hits, k);
    } else if (is_before(&hit, &hits[0])) {
        hits[0] = hit;
        sift_down(hits, 0, k);
    }
}

static int rerank_rows(struct rerank *rerank, const struct vdb_rows *rows, uint32_t first, uint32_t n, vecdb_error *err)
{
    const struct vdb_search *search = rerank->search;
    struct vdb_graph_scratch *scratch = rerank->scratch;
    int status = rows->find(rows->context, scratch->row_slots + first, n, scratch->rows, err);
    if (status)
        return status;
    if (n)
        prefetch_values(scratch->rows[0].values, vdb_vector_bytes(scratch->rows[0].type, search->dimension));
    for (uint32_t i = 0; i < n; i++) {
        const struct vdb_row *row = &scratch->rows[i];
        if (i + 1 < n)
            prefetch_values(row[1].values, vdb_vector_bytes(row[1].type, search->dimension));
        if (!row->values)
            continue;
        size_t stride = vdb_vector_bytes(row->type, search->dimension);
        float score;
        vdb_score_fn score_rows = search->metric == VECDB_HAMMING
                                      ? search->kernels->hamming
                                      : search->kernels->float_query[op_of(search->metric)][row->type];
        score_rows(rerank->query, row->values, stride, 1, search->dimension, &score);
        double distance = distance_of(search->metric, score, rerank->length);
        double error = coded_of(rerank, distance) - (double)rerank->coded->constant -
                       (double)scratch->row_scores[first + i];
        rerank->error_squares += error * error;
        rerank->n_scored++;
        rerank->bytes += stride;
        keep(rerank, (struct vdb_hit){distance, scratch->row_slots[first + i]});
    }
    rows->put(rows->context, scratch->rows, n);
    return VECDB_OK;
}

/* Whether row `next` and all behind it are too far, going by their codes and by how wrong these were so far. A NaN, which
 * extreme values may give, says no. */
static bool is_enough(const struct rerank *rerank, uint32_t next)
{
    if (rerank->n_hits < rerank->search->k || rerank->n_scored < RERANK_LEAST)
        return false;
    double error = sqrt(rerank->error_squares / (double)rerank->n_scored);
    double least = (double)rerank->scratch->row_scores[next] + (double)rerank->coded->constant - RERANK_ERRORS * error;
    return least > coded_of(rerank, rerank->scratch->row_hits[0].distance);
}

static int rerank_all(struct rerank *rerank, const struct vdb_rows *rows, uint32_t n, vecdb_error *err)
{
    uint32_t k = rerank->search->k, piece = k < RERANK_LEAST ? RERANK_LEAST : k;
    rerank->length = rerank->search->metric == VECDB_COSINE ? query_length(rerank->search, rerank->query) : 0;
    for (uint32_t first = 0; first < n; first += piece, piece = RERANK_PIECE) {
        if (first > 0 && is_enough(rerank, first))
            break;
        piece = piece < n - first ? piece : n - first;
        int status = rerank_rows(rerank, rows, first, piece, err);
        if (status)
            return status;
    }
    if (rerank->n_hits < k)
        make_heap(rerank->scratch->row_hits, rerank->n_hits);
    sort_heap(rerank->scratch->row_hits, rerank->n_hits);
    return VECDB_OK;
}

/* ------------------------------------------------------------------ a search */

/* How many candidates a pool needs so that `ef` of them may be alive. */
static uint32_t scaled_effort(const struct vdb_graph *graph, const struct vdb_search *search, uint32_t end_slot,
                              uint32_t ef)
{
    uint64_t n_nodes = atomic_load_explicit(&graph->n_nodes, memory_order_relaxed);
    uint64_t n_slots = n_nodes + atomic_load_explicit(&graph->n_entries, memory_order_relaxed);
    uint32_t end = vdb_graph_end(graph);
    uint64_t n_dead = search->dead && end ? vdb_slots_count_range(search->dead, 0, end) : 0;
    /* slots that the graph does not have were dead before they came, or swept */
    uint64_t n_absent = end > n_slots ? end - n_slots : 0;
    n_dead = n_dead > n_absent ? n_dead - n_absent : 0;
    n_dead += end > end_slot ? end - end_slot : 0;
    double share = n_slots > 0 ? (double)n_dead / (double)n_slots : 0;
    share = share > 0.9 ? 0.9 : share; /* beyond, what was found decides */
    uint64_t limit = (uint64_t)((double)ef / (1 - share));
    limit = limit > n_nodes ? n_nodes : limit;
    return limit > ef ? (uint32_t)limit : ef;
}

static void settle_effort(const struct vdb_graph_effort *effort, uint32_t k, uint32_t n_nodes, uint32_t *ef,
                          uint32_t *n_rerank)
{
    uint64_t rerank = effort->n_rerank ? effort->n_rerank : (uint64_t)k + DEFAULT_RERANK;
    rerank = rerank < k ? k : rerank;
    uint64_t width = effort->ef ? effort->ef : (uint64_t)k * 2 > DEFAULT_EF ? (uint64_t)k * 2 : DEFAULT_EF;
    width = width < rerank ? rerank : width;
    width = width > n_nodes ? n_nodes : width;
    rerank = rerank > n_nodes ? n_nodes : rerank;
    *ef = (uint32_t)width;
    *n_rerank = (uint32_t)rerank;
}

int vdb_graph_search(const struct vdb_graph *graph, const struct vdb_search *search, size_t q, uint32_t end_slot,
                     const struct vdb_graph_effort *effort, const struct vdb_rows *rows,
                     struct vdb_graph_scratch *scratch, struct vdb_hit *hits, uint32_t *n_hits,
                     struct vdb_graph_counts *counts, vecdb_error *err)
{
    uint32_t n_nodes = atomic_load_explicit(&graph->n_nodes, memory_order_acquire), ef, n_rerank, start,
             layer = 0;
    *n_hits = 0;
    if (!n_nodes)
        return VECDB_OK;
    settle_effort(effort, search->k, n_nodes, &ef, &n_rerank);
    uint32_t limit = scaled_effort(graph, search, end_slot, ef);
    uint64_t most_rows = 4ull * n_rerank + search->k;
    struct finding finding = {.graph = graph,
                              .search = search,
                              .end_slot = end_slot,
                              .n_wanted = n_rerank,
                              .rows_limit = most_rows < VDB_GRAPH_MAX_NODES ? (uint32_t)most_rows : VDB_GRAPH_MAX_NODES};
    int status = vdb_scratch_reserve(scratch, graph, limit, err);
    if (!status)
        status = reserve_rows(scratch, finding.rows_limit, err);
    if (status)
        return status;
    const char *given = (const char *)search->queries +
                        q * vdb_vector_bytes(search->type == VECDB_BIT ? VECDB_BIT : VECDB_F32, search->dimension);
    struct vdb_query query;
    vdb_codec_query(&graph->codec, given, scratch->work, (int8_t *)(scratch->work + scratch->n_work), &query);
    struct vdb_walk walk = {.graph = graph, .query = &query, .scratch = scratch, .without = effort->without};
    vdb_graph_space(graph, false, &walk.space);
    if (!vdb_walk_descend(&walk, &layer, &start))
        return VECDB_OK;
    for (;;) {
        uint32_t n = vdb_walk_base(&walk, start, limit);
        collect(&finding, scratch, n);
        /* enough, or nothing more to be seen */
        if (finding.n_found >= n_rerank || n < limit || limit >= n_nodes)
            break;
        limit = limit > n_nodes / 2 ? n_nodes : 2 * limit;
        status = vdb_scratch_reserve(scratch, graph, limit, err);
        if (status)
            return status;
    }
    uint64_t bytes = walk.counts.n_distances * walk.space.stride +
                     walk.counts.n_expanded * VDB_GRAPH_DEGREE * sizeof *graph->links;
    struct rerank rerank = {.graph = graph, .search = search, .query = given, .coded = &query, .scratch = scratch};
    status = rerank_all(&rerank, rows, finding.n_rows, err);
    if (status)
        return status;
    *n_hits = rerank.n_hits;
    memcpy(hits, scratch->row_hits, *n_hits * sizeof *hits);
    if (counts) {
        counts->n_distances += walk.counts.n_distances;
        counts->n_expanded += walk.counts.n_expanded;
        counts->n_reranked += rerank.n_scored;
        counts->bytes += bytes + rerank.bytes;
    }
    return VECDB_OK;
}
