/* SPDX-License-Identifier: Apache-2.0
 *
 * index/graph_search.c - the answer to a query
 *
 *     walk (graph_walk.c) -> the best n_rerank candidates with live slots -> exact distances from their rows -> k hits
 *
 * Dead nodes lead to others like living ones, and are left out of the answer. They take places in the pool, so the pool
 * is larger by the share of nodes that are dead; and when a walk found fewer than it was to find though there was
 * more to see, it is repeated with a pool twice as large.
 *
 * Reranking reads vectors, which are eight times as long as codes. It goes from the nearest by code to the farthest and
 * ends where a vector would be among the k nearest only if its code were more wrong than codes have been so far:
 * on four sets, reranking up to 60 then reads as many as reranking 20 would, and loses nothing.
 */
#include "graph_private.h"

#include <assert.h>
#include <math.h>

#include "base/error.h"
#include "base/numbers.h"
#include "base/slots.h"

#define DEFAULT_EF 64u     /* recall of about .95 for k = 10 on the four sets of bench_graph */
#define DEFAULT_RERANK 20u /* above k */

/* Candidates are reranked nearest by code first. Once k are known, and RERANK_LEAST that tell how wrong codes are here,
 * the rest are left out when the next would have to be wrong by RERANK_ERRORS times as much as usual to be among the
 * k nearest. Rows are asked for RERANK_PIECE at a time. */
#define RERANK_LEAST 8u
#define RERANK_PIECE 6u
#define RERANK_ERRORS 2.0

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

/* ------------------------------------------------------------------ what a walk has found */

struct finding {
    const struct vdb_graph *graph;
    const struct vdb_search *search;
    uint32_t end_slot;
    uint32_t n_wanted; /* nodes with live slots */
    uint32_t n_needed; /* with fewer, the walk is repeated */
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

/* Against 512 bytes, beyond which the processor might see a stream: 2 to 4 % more queries a second on three sets. */
#define FETCH_VALUES 1536u

static void prefetch_values(const void *values, size_t n_bytes)
{
    size_t n = n_bytes < FETCH_VALUES ? n_bytes : FETCH_VALUES;
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
    uint32_t n_absent; /* rows that are there no more: deleted, and forgotten by whoever keeps the dead */
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
    for (uint32_t i = 0; i < n; i++) /* each is in a page of memory of its own, whose address is to be looked up */
        if (scratch->rows[i].values)
            __builtin_prefetch(scratch->rows[i].values);
    if (n)
        prefetch_values(scratch->rows[0].values, vdb_vector_bytes(scratch->rows[0].type, search->dimension));
    for (uint32_t i = 0; i < n; i++) {
        const struct vdb_row *row = &scratch->rows[i];
        if (i + 1 < n)
            prefetch_values(row[1].values, vdb_vector_bytes(row[1].type, search->dimension));
        if (!row->values) {
            rerank->n_absent++;
            continue;
        }
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

/* Whether row `next` and all behind it are too far, going by their codes and by how wrong these were so far. A NaN,
 * which extreme values may give, says no. */
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

/* Walk until enough live nodes are found, or there is nothing more to be seen. */
static int find_candidates(struct vdb_walk *walk, uint32_t start, uint32_t *limit, struct finding *finding,
                           vecdb_error *err)
{
    uint32_t n_nodes = atomic_load_explicit(&walk->graph->n_nodes, memory_order_acquire);
    for (;;) {
        uint32_t n = vdb_walk_base(walk, start, *limit);
        collect(finding, walk->scratch, n);
        if (finding->n_found >= finding->n_needed || n < *limit || *limit >= n_nodes)
            return VECDB_OK;
        *limit = *limit > n_nodes / 2 ? n_nodes : 2 * *limit;
        int status = vdb_scratch_reserve(walk->scratch, walk->graph, *limit, err);
        if (status)
            return status;
    }
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
    uint64_t most = 4ull * n_rerank + search->k;
    struct finding finding = {.graph = graph,
                              .search = search,
                              .end_slot = end_slot,
                              .n_wanted = n_rerank,
                              .n_needed = n_rerank < search->k ? n_rerank : search->k + (n_rerank - search->k) / 2,
                              .rows_limit = most < VDB_GRAPH_MAX_NODES ? (uint32_t)most : VDB_GRAPH_MAX_NODES};
    int status = vdb_scratch_reserve(scratch, graph, limit, err);
    if (!status)
        status = reserve_rows(scratch, finding.rows_limit, err);
    if (status)
        return status;
    const char *given = (const char *)search->queries +
                        q * vdb_vector_bytes(search->type == VECDB_BIT ? VECDB_BIT : VECDB_F32, search->dimension);
    struct vdb_query query;
    int8_t *values = scratch->work ? (int8_t *)(scratch->work + scratch->n_work) : NULL; /* bits need no room */
    vdb_codec_query(&graph->codec, given, scratch->work, values, &query);
    struct vdb_walk walk = {.graph = graph, .query = &query, .scratch = scratch, .without = effort->without};
    vdb_graph_space(graph, false, &walk.space);
    if (!vdb_walk_descend(&walk, &layer, &start))
        return VECDB_OK;
    struct rerank rerank = {0};
    uint64_t bytes = 0, n_scored = 0;
    for (;;) {
        status = find_candidates(&walk, start, &limit, &finding, err);
        if (status)
            return status;
        struct rerank made = {.graph = graph, .search = search, .query = given, .coded = &query, .scratch = scratch};
        status = rerank_all(&made, rows, finding.n_rows, err);
        if (status)
            return status;
        bytes += made.bytes;
        n_scored += made.n_scored;
        rerank = made;
        /* Half of them gone: what was found is of half the effort that was asked for. Less than k left: too few. */
        bool is_short = 2 * (uint64_t)made.n_absent >= finding.n_rows || (made.n_hits < search->k && made.n_absent);
        if (!is_short || finding.n_wanted >= n_nodes)
            break;
        finding.n_wanted = finding.n_wanted > n_nodes / 2 ? n_nodes : 2 * finding.n_wanted;
        finding.n_needed = finding.n_wanted;
        finding.rows_limit = 4 * finding.n_wanted < VDB_GRAPH_MAX_NODES ? 4 * finding.n_wanted : VDB_GRAPH_MAX_NODES;
        limit = limit < finding.n_wanted ? finding.n_wanted : limit;
        status = vdb_scratch_reserve(scratch, graph, limit, err);
        if (!status)
            status = reserve_rows(scratch, finding.rows_limit, err);
        if (status)
            return status;
    }
    bytes += walk.counts.n_distances * walk.space.stride +
             walk.counts.n_expanded * VDB_GRAPH_DEGREE * sizeof *graph->links;
    *n_hits = rerank.n_hits;
    memcpy(hits, scratch->row_hits, *n_hits * sizeof *hits);
    if (counts) {
        counts->n_distances += walk.counts.n_distances;
        counts->n_expanded += walk.counts.n_expanded;
        counts->n_reranked += n_scored;
        counts->bytes += bytes;
    }
    return VECDB_OK;
}
