/* SPDX-License-Identifier: Apache-2.0
 *
 * index/flat_keep.c - candidates: which rows may belong to the answer
 *
 * A kernel leaves an array of keys. Nearly all of them are above the cutoff, and finding that out
 * is all that happens to them: sixteen comparisons, one branch. The rest goes through four steps:
 *
 *     key not above cutoff -> slot not dead -> [lower, upper] appended -> buffer full: tighten
 *
 * TIGHTEN finds the k-th smallest upper bound in the buffer, u. At least k live rows are not
 * farther than u, so a row whose lower bound is above u is not among the k nearest, nor tied with
 * the k-th. u becomes the limit (of this worker, and of all if it is lower than theirs), and the
 * rows beyond it leave the buffer. The buffer is full at 2k (at least k + 64) rows; with each
 * tightening the rows seen so far have at least doubled, so a scan of n rows keeps about
 * k * log2(n / k) of them. No heap: that would put a comparison that cannot be predicted, and
 * log k moves, behind each kept row.
 *
 * Invariants
 *  1. A row leaves only when k live rows have uppers below its lower. So every row of the answer,
 *     ties included, is in some worker's buffer at the end, whatever the order of the blocks and
 *     however the workers share them.
 *  2. Limits only fall. An old limit is a valid one, only weaker: reading it needs no ordering.
 *  3. Rows stay in the order in which they came. The selection works on a copy of the uppers.
 *  4. A key that is NaN is not above anything: it is kept, with the bounds -inf and +inf.
 */
#include <assert.h>
#include <float.h>
#include <math.h>

#include "base/error.h"
#include "base/random.h"
#include "base/slots.h"
#include "flat.h"

#define LEAST_SLACK 64 /* rows beyond k before a buffer is tightened: a selection of 74 of them costs about 0.4 us */
#define GROUP 16       /* keys compared at a time */

float vdb_float_up(double value)
{
    float rounded = (float)value;
    return (double)rounded < value ? nextafterf(rounded, INFINITY) : rounded;
}

float vdb_float_down(double value)
{
    float rounded = (float)value;
    return (double)rounded > value ? nextafterf(rounded, -INFINITY) : rounded;
}

float vdb_select(float *values, size_t n, size_t rank)
{
    assert(rank < n);
    struct vdb_random random = {n}; /* pivots nobody can choose a bad order against */
    size_t low = 0, high = n - 1;
    while (low < high) {
        float pivot = values[low + vdb_random_below(&random, high - low + 1)];
        size_t i = low, j = high;
        for (;;) { /* below i nothing is above the pivot, above j nothing below it */
            while (values[i] < pivot)
                i++;
            while (values[j] > pivot)
                j--;
            if (i >= j)
                break;
            float moved = values[i];
            values[i++] = values[j];
            values[j--] = moved;
        }
        if (rank < i)
            high = i - 1;
        else if (i == j && rank == i)
            break; /* they met at a value that is the pivot: it is in its place */
        else
            low = i == j ? i + 1 : i;
    }
    return values[rank];
}

int vdb_keep_room(struct vdb_flat_worker *worker, size_t n, vecdb_error *err)
{
    if (n <= worker->n_uppers)
        return VECDB_OK;
    float *larger = vdb_realloc_array(worker->scan->search->memory, worker->uppers, n, sizeof *larger);
    if (!larger)
        return vdb_fail_memory(err, n * sizeof *larger);
    worker->uppers = larger;
    worker->n_uppers = n;
    return VECDB_OK;
}

static void set_cutoff(struct vdb_keep *keep)
{
    keep->cutoff = vdb_float_up(keep->limit * (1 + keep->bounds.relative) + keep->bounds.margin);
}

void vdb_keep_begin(struct vdb_keep *keep, struct vdb_flat_query *query, struct vdb_bounds bounds)
{
    float limit = atomic_load_explicit(&query->limit, memory_order_relaxed);
    if (limit < keep->limit)
        keep->limit = limit;
    keep->bounds = bounds;
    set_cutoff(keep);
}

static void lower_limit(struct vdb_flat_query *query, float limit)
{
    float now = atomic_load_explicit(&query->limit, memory_order_relaxed);
    while (limit < now && !atomic_compare_exchange_weak_explicit(&query->limit, &now, limit, memory_order_relaxed,
                                                                 memory_order_relaxed))
        ;
}

static int tighten(struct vdb_flat_worker *worker, size_t query, vecdb_error *err)
{
    struct vdb_keep *keep = &worker->keeps[query];
    int status = vdb_keep_room(worker, keep->n, err);
    if (status)
        return status;
    for (size_t i = 0; i < keep->n; i++)
        worker->uppers[i] = keep->rows[i].upper;
    float limit = vdb_select(worker->uppers, keep->n, worker->scan->search->k - 1);
    if (limit < keep->limit) {
        keep->limit = limit;
        lower_limit(&worker->scan->queries[query], limit);
    }
    size_t n = 0;
    for (size_t i = 0; i < keep->n; i++)
        if (keep->rows[i].lower <= keep->limit)
            keep->rows[n++] = keep->rows[i];
    keep->n = n;
    set_cutoff(keep);
    return VECDB_OK;
}

static int grow(struct vdb_flat_worker *worker, struct vdb_keep *keep, vecdb_error *err)
{
    struct vdb_memory *memory = worker->scan->search->memory;
    size_t capacity = keep->capacity * 2;
    struct vdb_candidate *rows = vdb_realloc_array(memory, keep->grown ? keep->rows : NULL, capacity, sizeof *rows);
    if (!rows)
        return vdb_fail_memory(err, capacity * sizeof *rows);
    if (!keep->grown)
        memcpy(rows, keep->rows, keep->n * sizeof *rows);
    keep->rows = rows;
    keep->capacity = capacity;
    keep->grown = true;
    return VECDB_OK;
}

/* The buffer is full: make room by tightening where there are enough rows, else, or where that
 * frees less than a quarter (near-ties), by growing. */
static int make_room(struct vdb_flat_worker *worker, size_t query, vecdb_error *err)
{
    struct vdb_keep *keep = &worker->keeps[query];
    uint32_t k = worker->scan->search->k;
    if (keep->n >= (size_t)k + (k > LEAST_SLACK ? k : LEAST_SLACK)) {
        int status = tighten(worker, query, err);
        if (status)
            return status;
    }
    return keep->n > keep->capacity - keep->capacity / 4 ? grow(worker, keep, err) : VECDB_OK;
}

static int keep_row(struct vdb_flat_worker *worker, size_t query, const struct vdb_piece *piece, uint32_t i,
                    float lower, float upper, vecdb_error *err)
{
    struct vdb_keep *keep = &worker->keeps[query];
    const struct vdb_slots *dead = worker->scan->search->dead;
    uint32_t row = piece->first_row + i;
    if (dead && vdb_slots_has(dead, vdb_block_slot(piece->block, row)))
        return VECDB_OK;
    if (keep->n == keep->capacity) {
        int status = make_room(worker, query, err);
        if (status)
            return status;
        if (lower > keep->limit)
            return VECDB_OK;
    }
    keep->rows[keep->n++] = (struct vdb_candidate){lower, upper, piece->block_index, row};
    return VECDB_OK;
}

static int keep_scored(struct vdb_flat_worker *worker, size_t query, const struct vdb_piece *piece, uint32_t i,
                       float key, vecdb_error *err)
{
    const struct vdb_bounds *bounds = &worker->keeps[query].bounds;
    float lower = -INFINITY, upper = INFINITY;
    if (fabsf(key) <= FLT_MAX) {
        lower = vdb_float_down((key - bounds->margin) / (1 + bounds->relative));
        upper = vdb_float_up((key + bounds->margin) / (1 - bounds->relative));
    }
    return keep_row(worker, query, piece, i, lower, upper, err);
}

/* Whether all of GROUP keys are above the cutoff. Written so that the compiler needs no flags to
 * use the baseline's vectors. */
static inline bool all_above(const float *keys, float cutoff)
{
    typedef float lanes __attribute__((vector_size(16)));
    typedef int32_t masks __attribute__((vector_size(16)));
    masks above = {-1, -1, -1, -1};
    for (int i = 0; i < GROUP; i += 4) {
        lanes four;
        memcpy(&four, keys + i, sizeof four);
        above &= four > (lanes){cutoff, cutoff, cutoff, cutoff};
    }
    uint64_t halves[2];
    memcpy(halves, &above, sizeof halves);
    return (halves[0] & halves[1]) == UINT64_MAX;
}

int vdb_keep_scores(struct vdb_flat_worker *worker, size_t query, const struct vdb_piece *piece, const float *scores,
                    vecdb_error *err)
{
    struct vdb_keep *keep = &worker->keeps[query];
    uint32_t i = 0;
    while (i < piece->n_rows) {
        uint32_t end = piece->n_rows - i < GROUP ? piece->n_rows : i + GROUP;
        if (end - i == GROUP && all_above(scores + i, keep->cutoff)) {
            i = end;
            continue;
        }
        for (; i < end; i++)
            if (!(scores[i] > keep->cutoff)) {
                int status = keep_scored(worker, query, piece, i, scores[i], err);
                if (status)
                    return status;
            }
    }
    return VECDB_OK;
}

int vdb_keep_unknown(struct vdb_flat_worker *worker, size_t query, const struct vdb_piece *piece, vecdb_error *err)
{
    for (uint32_t i = 0; i < piece->n_rows; i++) {
        int status = keep_row(worker, query, piece, i, -INFINITY, INFINITY, err);
        if (status)
            return status;
    }
    return VECDB_OK;
}
