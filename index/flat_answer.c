/* SPDX-License-Identifier: Apache-2.0
 *
 * index/flat_answer.c - survivors, their exact distances, the answer (step 3 of flat.c)
 *
 *     candidates of query 0: worker 0 [....] worker 1 [...]      limit = k-th smallest upper of all
 *                                  |  lower <= limit
 *     survivors    [ query 0     | query 1   | ... ]             one array, and one of hits beside it
 *                    exact distance, slot         (pieces of it in parallel)
 *     hits         [ query 0     | query 1   | ... ]
 *                    sort by (distance, slot), cut behind the ties of the k-th   (queries in parallel)
 *     answer->hits [ ... earlier chunks | query 0 | query 1 | ... ]
 *
 * Invariants
 *  1. The distances of a query's survivors hold the k smallest of all live rows, so their k-th is
 *     the k-th of all, and every row that ties with it is among them (flat.c, 2).
 *  2. Slots are unique, so the order by (distance, slot) is total and no order of the survivors
 *     matters.
 *
 * A survivor costs a pin (in a row of survivors of the same block only the first), a read from
 * memory and about 1 ns a value.
 */
#include "base/error.h"
#include "flat.h"

#define TASK_SURVIVORS 1024 /* computed by one task: some 100-500 us */
#define FEW 12              /* hits sorted by insertion */

struct finish {
    struct vdb_flat_scan *scan;
    struct vdb_candidate *survivors;
    struct vdb_hit *hits; /* of survivor i, then sorted within each query */
    size_t *first;        /* query q has those from first[q] to first[q + 1] */
    size_t *n_kept;       /* by query: hits left after the cut */
};

/* ------------------------------------------------------------------ survivors */

static size_t count_candidates(const struct vdb_flat_scan *scan, size_t query)
{
    size_t n = 0;
    for (size_t w = 0; w < scan->n_workers; w++)
        n += scan->workers[w].keeps[query].n;
    return n;
}

/* The limit from what all workers found together; their own may be higher. */
static int find_limit(struct vdb_flat_scan *scan, size_t query, float *limit, vecdb_error *err)
{
    size_t n = count_candidates(scan, query), at = 0, k = scan->search->k;
    *limit = atomic_load_explicit(&scan->queries[query].limit, memory_order_relaxed);
    if (n <= k)
        return VECDB_OK;
    struct vdb_flat_worker *first = &scan->workers[0]; /* whose array of uppers serves here */
    int status = vdb_keep_room(first, n, err);
    if (status)
        return status;
    for (size_t w = 0; w < scan->n_workers; w++) {
        const struct vdb_keep *keep = &scan->workers[w].keeps[query];
        for (size_t i = 0; i < keep->n; i++)
            first->uppers[at++] = keep->rows[i].upper;
    }
    float found = vdb_select(first->uppers, n, k - 1);
    if (found < *limit)
        *limit = found;
    return VECDB_OK;
}

/* Drop what is beyond the limit from the workers' buffers. */
static void drop_beyond(struct vdb_flat_scan *scan, size_t query, float limit)
{
    for (size_t w = 0; w < scan->n_workers; w++) {
        struct vdb_keep *keep = &scan->workers[w].keeps[query];
        size_t n = 0;
        for (size_t i = 0; i < keep->n; i++)
            if (keep->rows[i].lower <= limit)
                keep->rows[n++] = keep->rows[i];
        keep->n = n;
    }
}

static int gather_survivors(struct finish *finish, vecdb_error *err)
{
    struct vdb_flat_scan *scan = finish->scan;
    struct vdb_memory *memory = scan->search->memory;
    finish->first[0] = 0;
    for (size_t q = 0; q < scan->n_queries; q++) {
        float limit;
        int status = find_limit(scan, q, &limit, err);
        if (status)
            return status;
        drop_beyond(scan, q, limit);
        finish->first[q + 1] = finish->first[q] + count_candidates(scan, q);
    }
    size_t total = finish->first[scan->n_queries], at = 0;
    finish->survivors = vdb_alloc_array(memory, total, sizeof *finish->survivors);
    finish->hits = vdb_alloc_array(memory, total, sizeof *finish->hits);
    if (!finish->survivors || !finish->hits)
        return vdb_fail_memory(err, total * sizeof *finish->hits);
    for (size_t q = 0; q < scan->n_queries; q++)
        for (size_t w = 0; w < scan->n_workers; w++) {
            const struct vdb_keep *keep = &scan->workers[w].keeps[q];
            memcpy(finish->survivors + at, keep->rows, keep->n * sizeof *keep->rows);
            at += keep->n;
        }
    return VECDB_OK;
}

/* ------------------------------------------------------------------ exact distances */

static size_t query_of(const struct finish *finish, size_t survivor)
{
    size_t low = 0, high = finish->scan->n_queries;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (finish->first[middle] <= survivor)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Survivors first .. end - 1, which are of one query. */
static int rescore(const struct finish *finish, size_t query, size_t first, size_t end, vecdb_error *err)
{
    const struct vdb_search *search = finish->scan->search;
    const struct vdb_blocks *blocks = finish->scan->blocks;
    struct vdb_block block;
    for (size_t i = first; i < end;) {
        uint32_t index = finish->survivors[i].block;
        int status = blocks->pin(blocks->context, index, &block, err);
        if (status)
            return status;
        for (; i < end && finish->survivors[i].block == index; i++) {
            uint32_t row = finish->survivors[i].row;
            finish->hits[i].slot = vdb_block_slot(&block, row);
            finish->hits[i].distance =
                vdb_exact_distance(search->metric, block.type, search->dimension, finish->scan->queries[query].original,
                                   (const uint8_t *)block.rows + row * block.stride);
        }
        blocks->unpin(blocks->context, &block);
    }
    return VECDB_OK;
}

static void rescore_task(void *context, size_t task)
{
    struct finish *finish = context;
    struct vdb_flat_scan *scan = finish->scan;
    const struct vdb_search *search = scan->search;
    size_t total = finish->first[scan->n_queries], at = task * TASK_SURVIVORS;
    size_t end = total - at < TASK_SURVIVORS ? total : at + TASK_SURVIVORS;
    vecdb_error err = {0};
    int status = VECDB_OK;
    if (atomic_load_explicit(&scan->failed, memory_order_relaxed))
        return;
    if (task && search->stop)
        status = search->stop(search->stop_context, &err);
    while (!status && at < end) {
        size_t query = query_of(finish, at), query_end = finish->first[query + 1];
        size_t stretch_end = query_end < end ? query_end : end;
        status = rescore(finish, query, at, stretch_end, &err);
        at = stretch_end;
    }
    if (status)
        vdb_flat_scan_fail(scan, status, &err);
}

/* ------------------------------------------------------------------ order */

static bool is_before(const struct vdb_hit *a, const struct vdb_hit *b)
{
    return a->distance < b->distance || (a->distance == b->distance && a->slot < b->slot);
}

static void swap(struct vdb_hit *a, struct vdb_hit *b)
{
    struct vdb_hit moved = *a;
    *a = *b;
    *b = moved;
}

/* Let hits[at] sink in a heap whose root is the last in order. */
static void sink(struct vdb_hit *hits, size_t at, size_t n)
{
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= n)
            return;
        if (child + 1 < n && is_before(&hits[child], &hits[child + 1]))
            child++;
        if (!is_before(&hits[at], &hits[child]))
            return;
        swap(&hits[at], &hits[child]);
        at = child;
    }
}

/* In place and without a bad case; libc's qsort allocates. */
static void sort_hits(struct vdb_hit *hits, size_t n)
{
    if (n <= FEW) {
        for (size_t i = 1; i < n; i++)
            for (size_t j = i; j > 0 && is_before(&hits[j], &hits[j - 1]); j--)
                swap(&hits[j], &hits[j - 1]);
        return;
    }
    for (size_t i = n / 2; i-- > 0;)
        sink(hits, i, n);
    for (size_t end = n - 1; end > 0; end--) {
        swap(&hits[0], &hits[end]);
        sink(hits, 0, end);
    }
}

static void order_task(void *context, size_t query)
{
    struct finish *finish = context;
    struct vdb_hit *hits = finish->hits + finish->first[query];
    size_t n = finish->first[query + 1] - finish->first[query], k = finish->scan->search->k;
    sort_hits(hits, n);
    if (n > k) {
        size_t end = k;
        while (end < n && hits[end].distance == hits[k - 1].distance)
            end++;
        n = end;
    }
    finish->n_kept[query] = n;
}

/* ------------------------------------------------------------------ answer */

static int append_hits(const struct finish *finish, struct vdb_answer *answer, size_t n_done, vecdb_error *err)
{
    size_t n_queries = finish->scan->n_queries, n_old = answer->first[n_done], n_new = 0;
    for (size_t q = 0; q < n_queries; q++)
        n_new += finish->n_kept[q];
    struct vdb_hit *hits = vdb_realloc_array(finish->scan->search->memory, answer->hits, n_old + n_new, sizeof *hits);
    if (!hits)
        return vdb_fail_memory(err, (n_old + n_new) * sizeof *hits);
    answer->hits = hits;
    for (size_t q = 0; q < n_queries; q++) {
        memcpy(hits + n_old, finish->hits + finish->first[q], finish->n_kept[q] * sizeof *hits);
        n_old += finish->n_kept[q];
        answer->first[n_done + q + 1] = n_old;
    }
    return VECDB_OK;
}

int vdb_flat_answer(struct vdb_flat_scan *scan, struct vdb_answer *answer, size_t n_done, vecdb_error *err)
{
    const struct vdb_search *search = scan->search;
    struct finish finish = {.scan = scan};
    int status;
    finish.first = vdb_alloc_array(search->memory, 2 * scan->n_queries + 1, sizeof *finish.first);
    if (!finish.first)
        return vdb_fail_memory(err, (2 * scan->n_queries + 1) * sizeof *finish.first);
    finish.n_kept = finish.first + scan->n_queries + 1;
    status = gather_survivors(&finish, err);
    if (status)
        goto done;
    size_t total = finish.first[scan->n_queries];
    size_t n_tasks = total / TASK_SURVIVORS + (total % TASK_SURVIVORS != 0);
    vdb_pool_run(search->pool, search->n_threads, n_tasks, rescore_task, &finish);
    status = scan->status;
    if (status)
        goto done;
    vdb_pool_run(search->pool, search->n_threads, scan->n_queries, order_task, &finish);
    status = append_hits(&finish, answer, n_done, err);
    answer->n_rescored += total;
done:
    vdb_free(search->memory, finish.hits);
    vdb_free(search->memory, finish.survivors);
    vdb_free(search->memory, finish.first);
    return status;
}
