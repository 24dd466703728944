/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/search_graph.c - a search with a graph, and a scan of what the graph does not cover yet
 *
 *     slots   0 .......................... end of the graph ........ newest
 *             |         graph                        |
 *                                    |   scan: whole blocks        |
 *
 * The scan is of the blocks that hold a slot which the graph lacks. What else is in them the graph has too, and rows of
 * the tail may lie anywhere between those of pages; so a slot that comes from both is taken from the scan.
 * Distances of the graph's hits are of single precision, those of a scan of double.
 */
#include "database.h"

#include <stdlib.h>

struct graph_job {
    struct vdb_graph_request *request;
    const struct vdb_search *search;
    struct vdb_plan plan;
    uint32_t end_slot;
    struct vdb_hit *hits; /* k of each query */
    uint32_t *n_hits;
    pthread_mutex_t lock; /* of what follows, and of the sums in the request */
    int status;
    vecdb_error err;
    uint64_t n_distances, n_pages, bytes;
};

static void keep_failure(struct graph_job *job, int status, const vecdb_error *err)
{
    pthread_mutex_lock(&job->lock);
    if (!job->status) {
        job->status = status;
        job->err = *err;
    }
    pthread_mutex_unlock(&job->lock);
}

static void add_counts(struct graph_job *job, const struct vdb_graph_counts *counts, const struct vdb_view_blocks *rows,
                       uint32_t ef)
{
    struct vdb_graph_request *request = job->request;
    pthread_mutex_lock(&job->lock);
    job->n_distances += counts->n_distances + counts->n_reranked;
    job->n_pages += atomic_load(&rows->n_visited);
    job->bytes += counts->bytes;
    request->n_expanded += counts->n_expanded;
    request->n_reranked += counts->n_reranked;
    request->n_decoded += atomic_load(&rows->n_decoded);
    request->used_ef = ef > request->used_ef ? ef : request->used_ef;
    pthread_mutex_unlock(&job->lock);
}

/* Tasks take a stretch of queries each, so that little is asked for per query. */
#define TASK_QUERIES 16

static int search_stretch(struct graph_job *job, size_t first, size_t end, vecdb_error *err)
{
    const struct vdb_search *search = job->search;
    struct vdb_graph_scratch *scratch = vdb_scratch_take(job->request->db);
    struct vdb_view_blocks source;
    struct vdb_rows rows;
    struct vdb_graph_counts counts = {0};
    uint32_t ef = 0, most_ef = 0;
    int status = VECDB_OK;
    if (!scratch)
        return vdb_fail_memory(err, sizeof counts);
    vdb_view_get_rows(&source, job->request->field, &rows);
    for (size_t q = first; q < end && !status; q++) {
        status = vdb_planned_search(job->request->served->graph, search, q, job->end_slot, &job->plan, &rows, scratch,
                                    job->hits + q * search->k, &job->n_hits[q], &counts, &ef, err);
        most_ef = ef > most_ef ? ef : most_ef;
        if (!status && search->stop)
            status = search->stop(search->stop_context, err);
    }
    vdb_scratch_give(job->request->db, scratch);
    if (!status)
        add_counts(job, &counts, &source, most_ef);
    return status;
}

static void run_task(void *context, size_t i)
{
    struct graph_job *job = context;
    size_t first = i * TASK_QUERIES, end = first + TASK_QUERIES;
    vecdb_error err = VECDB_ERROR_INIT;
    end = end < job->search->n_queries ? end : job->search->n_queries;
    int status = search_stretch(job, first, end, &err);
    if (status)
        keep_failure(job, status, &err);
}

static int compare_slots(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return left < right ? -1 : left > right;
}

/* Of the graph's hits, those whose slot the scan has not found. `slots` has room for n_scanned. */
static size_t drop_scanned(struct vdb_hit *hits, size_t n_hits, const struct vdb_hit *scanned, size_t n_scanned,
                           uint32_t end, uint32_t *slots)
{
    size_t n_slots = 0, n_left = 0;
    for (size_t i = 0; i < n_scanned; i++)
        if (scanned[i].slot < end)
            slots[n_slots++] = scanned[i].slot;
    if (!n_slots)
        return n_hits;
    qsort(slots, n_slots, sizeof *slots, compare_slots);
    for (size_t i = 0; i < n_hits; i++)
        if (!bsearch(&hits[i].slot, slots, n_slots, sizeof *slots, compare_slots))
            hits[n_left++] = hits[i];
    return n_left;
}

/* Both lists are by distance, then slot. At most k, and what ties with the k-th. */
static size_t merge(const struct vdb_hit *a, size_t n_a, const struct vdb_hit *b, size_t n_b, size_t k,
                    struct vdb_hit *out)
{
    size_t i = 0, j = 0, n = 0;
    while (i < n_a || j < n_b) {
        bool is_a = j == n_b || (i < n_a && (a[i].distance < b[j].distance ||
                                             (a[i].distance == b[j].distance && a[i].slot < b[j].slot)));
        struct vdb_hit hit = is_a ? a[i++] : b[j++];
        if (n >= k && hit.distance != out[n - 1].distance)
            break;
        out[n++] = hit;
    }
    return n;
}

/* The graph's hits, and those of the scan, as one answer. */
static int join(struct graph_job *job, const struct vdb_answer *scan, struct vdb_answer *answer, vecdb_error *err)
{
    const struct vdb_search *search = job->search;
    size_t n_all_scanned = scan ? scan->first[search->n_queries] : 0, n_most = n_all_scanned, n = 0;
    for (size_t q = 0; q < search->n_queries; q++)
        n_most += job->n_hits[q];
    struct vdb_answer made = {
        .n_distances = job->n_distances, .n_blocks = job->n_pages, .bytes_scored = job->bytes};
    made.first = vdb_alloc_array(search->memory, search->n_queries + 1, sizeof *made.first);
    made.hits = vdb_alloc_array(search->memory, n_most + 1, sizeof *made.hits);
    uint32_t *slots = vdb_alloc_array(search->memory, n_all_scanned + 1, sizeof *slots);
    if (!made.first || !made.hits || !slots) {
        vdb_free(search->memory, slots);
        vdb_answer_release(search->memory, &made);
        return vdb_fail_memory(err, n_most * sizeof *made.hits);
    }
    made.first[0] = 0;
    for (size_t q = 0; q < search->n_queries; q++) {
        const struct vdb_hit *scanned = scan ? scan->hits + scan->first[q] : NULL;
        size_t n_scanned = scan ? scan->first[q + 1] - scan->first[q] : 0;
        struct vdb_hit *hits = job->hits + q * search->k;
        size_t n_hits = drop_scanned(hits, job->n_hits[q], scanned, n_scanned, job->end_slot, slots);
        size_t n_found = merge(hits, n_hits, scanned, n_scanned, search->k, made.hits + n);
        job->request->is_short |= n_found < search->k;
        n += n_found;
        made.first[q + 1] = n;
    }
    vdb_free(search->memory, slots);
    if (scan) {
        made.n_distances += scan->n_distances;
        made.n_rescored = scan->n_rescored;
        made.n_blocks += scan->n_blocks;
        made.bytes_scored += scan->bytes_scored;
    }
    *answer = made;
    return VECDB_OK;
}

static void make_plan(const struct vdb_graph_request *request, uint32_t k, struct vdb_plan *plan)
{
    const struct vdb_calibration *curve = request->served->has_curve ? &request->served->curve : NULL;
    if (request->ef) {
        vdb_plan_of_ef(k, request->ef, plan);
        return;
    }
    vdb_calibration_plan(curve, k, request->recall > 0 ? (double)request->recall : VDB_DEFAULT_RECALL,
                         vdb_graph_count_slots(request->served->graph), plan);
}

int vdb_search_graph(struct vdb_graph_request *request, const struct vdb_search *search, struct vdb_answer *answer,
                     vecdb_error *err)
{
    struct graph_job job = {.request = request, .search = search, .err = VECDB_ERROR_INIT};
    struct vdb_view_blocks source;
    struct vdb_blocks rest;
    struct vdb_answer scan;
    bool has_scan = false;
    size_t n_hits;
    uint32_t end = vdb_graph_end(request->served->graph);
    if (__builtin_mul_overflow(search->n_queries, (size_t)search->k, &n_hits))
        return vdb_fail(err, VECDB_INVALID, "%zu queries are too many for one call", search->n_queries);
    bool is_behind = end < request->view->row.next_slot; /* the view may be older than the graph, too */
    job.end_slot = is_behind ? end : (uint32_t)request->view->row.next_slot;
    if (is_behind)
        vdb_view_get_blocks_from(&source, request->field, end, &rest);
    bool must_scan = is_behind && rest.n_blocks;
    make_plan(request, search->k, &job.plan);
    job.hits = vdb_alloc_array(search->memory, n_hits, sizeof *job.hits);
    job.n_hits = vdb_alloc_zero(search->memory, search->n_queries * sizeof *job.n_hits);
    pthread_mutex_init(&job.lock, NULL);
    int status = job.hits && job.n_hits ? VECDB_OK : vdb_fail_memory(err, n_hits * sizeof *job.hits);
    if (!status) {
        vdb_pool_run(search->pool, search->n_threads, (search->n_queries + TASK_QUERIES - 1) / TASK_QUERIES, run_task,
                     &job);
        status = job.status;
        if (status && err)
            *err = job.err;
    }
    if (!status && must_scan) {
        status = vdb_flat_search(search, &rest, &scan, err);
        has_scan = !status;
        request->n_decoded += atomic_load(&source.n_decoded);
        request->n_scanned = vdb_view_count_rows_from(request->field, end);
    }
    if (!status)
        status = join(&job, has_scan ? &scan : NULL, answer, err);
    if (has_scan)
        vdb_answer_release(search->memory, &scan);
    pthread_mutex_destroy(&job.lock);
    vdb_free(search->memory, job.hits);
    vdb_free(search->memory, job.n_hits);
    return status;
}
