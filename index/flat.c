/* SPDX-License-Identifier: Apache-2.0
 *
 * index/flat.c - exact search: every row, and the answer to the last bit
 *
 * HOW INEXACT SCORES GIVE AN EXACT ANSWER
 *
 *     blocks --kernels--> keys --cutoff--> candidates --limit--> survivors --exact.c--> hits
 *     390,000 rows        floats           ~300 rows             k + a few             k + ties
 *
 *  1. Scan (this file; flat_batch.c for many queries). Kernels compute float keys, fast, in an
 *     order of operations of their own, with the error bound of simd/kernels.h. So each row's true
 *     key lies in a known interval [lower, upper].
 *  2. Keep (flat_keep.c). Rows with lower above the k-th smallest upper are not in the answer.
 *  3. Answer (flat_answer.c). The others, some k rows, are computed again in double precision
 *     in one fixed order of operations (exact.c), sorted by (distance, slot), and cut behind
 *     the ties with the k-th.
 *
 * The answer depends on the values alone. Which rows survive step 2 depends on the kernels, the
 * layout of the blocks and the threads' timing, but every row of the answer always survives.
 *
 * Invariants
 *  1. KEYS: smaller is nearer, for every metric. Queries are negated for ip and cosine before the
 *     scan, which is exact. The order of true keys is the order of true distances.
 *  2. BOUNDS, with t = d * 2^-126 and e a millionth more than vdb_kernel_error(d):
 *       l2       |key - true| <= e * true + t
 *       ip       |key - true| <= e * |q| * max_norm + t
 *       cosine   |key - true| <= 2 * e * |q| + t    (batches normalise rows first: 1.6 e)
 *       hamming  key = true                         (below 2^24 bits, then 2^-24 of them)
 *     The millionth of e is 2^-39 at the least; it pays for the rounding of the double arithmetic of
 *     step 3 (some d * 2^-53), so that the survivors hold the k nearest by the distances that are
 *     shown, not only by the true ones.
 *  3. OVERFLOW: where |q| + max_norm is above 2^60 squares of floats may overflow. Keys there mean
 *     nothing, and all rows of the block survive. Below it no key is infinite. A NaN survives.
 *  4. All that changes during a search belongs to one worker, but for the counter of blocks, the
 *     limits (flat_keep.c, 2), and the first error.
 *  5. Every pinned block is unpinned, whatever fails.
 *
 * WORK is shared out by blocks: each worker takes the next few, until none is left. A search with
 * many queries goes through in chunks whose buffers fit in CHUNK_BYTES.
 *
 * MEMORY: four blocks per chunk (queries, their keys' form, workers, first buffers), one or two
 * per worker, and what grows: a buffer of 2k candidates (32 bytes * k) per query and worker, the
 * survivors, the hits. The same for every repetition of a search.
 *
 * Rejected: distances in double for all rows (4 times the time); float distances as the answer
 * (ids differ between machines where neighbours are near-ties, which real data is full of);
 * computing l2 as |q|^2 + |x|^2 - 2<q,x> as GEMM does (cancellation: no useful bound).
 */
#include "flat.h"

#include <math.h>

#include "base/error.h"
#include "base/numbers.h"

#define STEP_BLOCKS 16           /* a worker takes up to so many blocks at a time: 1 MiB, some 100 us */
#define WORKER_BLOCKS 8          /* with fewer blocks to scan, waking another thread does not pay */
#define FIRST_CAPACITY 1024      /* candidates a buffer begins with, at most */
#define CHUNK_BYTES (256u << 20) /* for the candidates of one chunk of queries, were all buffers full */
#define CHUNK_QUERIES 4096       /* most queries of a chunk */
#define ASK_BYTES (4u << 20)     /* scored between two calls of stop: about a millisecond */
#define SAFE_NORM 0x1p60         /* (2 * 2^60)^2 is far below FLT_MAX = 2^128 */

void vdb_answer_release(struct vdb_memory *memory, struct vdb_answer *answer)
{
    vdb_free(memory, answer->hits);
    vdb_free(memory, answer->first);
    *answer = (struct vdb_answer){0};
}

enum vdb_op vdb_flat_op(int metric)
{
    return metric == VECDB_L2 ? VDB_OP_L2 : metric == VECDB_IP ? VDB_OP_DOT : VDB_OP_COSINE;
}

struct vdb_bounds vdb_flat_bounds(const struct vdb_flat_scan *scan, const struct vdb_flat_query *query, float max_norm)
{
    double dimension = scan->search->dimension, smallest = dimension * 0x1p-126;
    switch (scan->search->metric) {
    case VECDB_L2:
        return (struct vdb_bounds){scan->relative, smallest};
    case VECDB_IP:
        return (struct vdb_bounds){0, scan->relative * query->norm * max_norm + smallest};
    case VECDB_COSINE:
        return (struct vdb_bounds){0, 2 * scan->relative * query->norm + smallest};
    default:
        return (struct vdb_bounds){0, dimension > 0x1p24 ? dimension * 0x1p-24 : 0};
    }
}

bool vdb_flat_may_overflow(const struct vdb_flat_query *query, float max_norm)
{
    return !(query->norm + max_norm <= SAFE_NORM);
}

void vdb_flat_score(const struct vdb_flat_scan *scan, const struct vdb_flat_query *query, const struct vdb_piece *piece,
                    float *scores)
{
    const struct vdb_search *search = scan->search;
    const struct vdb_block *block = piece->block;
    const uint8_t *rows = (const uint8_t *)block->rows + piece->first_row * block->stride;
    if (search->metric == VECDB_HAMMING) {
        search->kernels->hamming(query->values, rows, block->stride, piece->n_rows, search->dimension, scores);
        return;
    }
    enum vdb_op op = vdb_flat_op(search->metric);
    const void *whole = query->whole[block->type];
    if (!whole) {
        search->kernels->float_query[op][block->type](query->values, rows, block->stride, piece->n_rows,
                                                      search->dimension, scores);
        return;
    }
    search->kernels->same_type[op][block->type](whole, rows, block->stride, piece->n_rows, search->dimension, scores);
    if (search->metric != VECDB_L2) /* whole numbers cannot be negated in place: -128, and all of u8 */
        for (uint32_t i = 0; i < piece->n_rows; i++)
            scores[i] = -scores[i];
}

/* ------------------------------------------------------------------ errors, stop */

int vdb_flat_scan_fail(struct vdb_flat_scan *scan, int status, const vecdb_error *err)
{
    if (!atomic_flag_test_and_set(&scan->error_is_written)) {
        scan->status = status;
        if (scan->err)
            *scan->err = *err;
    }
    atomic_store_explicit(&scan->failed, true, memory_order_relaxed);
    return status;
}

int vdb_flat_ask(struct vdb_flat_worker *worker, uint64_t n_bytes, vecdb_error *err)
{
    const struct vdb_search *search = worker->scan->search;
    worker->unasked_bytes += n_bytes;
    if (!search->stop || worker->unasked_bytes < ASK_BYTES)
        return VECDB_OK;
    worker->unasked_bytes = 0;
    return search->stop(search->stop_context, err);
}

/* ------------------------------------------------------------------ scan, block by block */

static int scan_piece(struct vdb_flat_worker *worker, size_t query, const struct vdb_piece *piece, vecdb_error *err)
{
    const struct vdb_flat_scan *scan = worker->scan;
    if (vdb_flat_may_overflow(&scan->queries[query], piece->block->max_norm))
        return vdb_keep_unknown(worker, query, piece, err);
    vdb_flat_score(scan, &scan->queries[query], piece, worker->scores);
    return vdb_keep_scores(worker, query, piece, worker->scores, err);
}

static int scan_block(struct vdb_flat_worker *worker, const struct vdb_block *block, uint32_t index, vecdb_error *err)
{
    struct vdb_flat_scan *scan = worker->scan;
    size_t row_bytes = vdb_vector_bytes(block->type, scan->search->dimension);
    for (size_t q = 0; q < scan->n_queries; q++) {
        struct vdb_flat_query *query = &scan->queries[q];
        vdb_keep_begin(&worker->keeps[q], query, vdb_flat_bounds(scan, query, block->max_norm));
        struct vdb_piece piece = {.block = block, .block_index = index};
        for (; piece.first_row < block->n_rows; piece.first_row += piece.n_rows) {
            uint32_t n_left = block->n_rows - piece.first_row;
            piece.n_rows = n_left < VDB_PIECE_ROWS ? n_left : VDB_PIECE_ROWS;
            int status = scan_piece(worker, q, &piece, err);
            if (!status)
                status = vdb_flat_ask(worker, piece.n_rows * row_bytes, err);
            if (status)
                return status;
        }
        worker->n_distances += block->n_rows;
    }
    worker->bytes_scored += block->n_rows * row_bytes;
    return VECDB_OK;
}

static int scan_blocks(struct vdb_flat_worker *worker, vecdb_error *err)
{
    struct vdb_flat_scan *scan = worker->scan;
    const struct vdb_blocks *blocks = scan->blocks;
    while (!atomic_load_explicit(&scan->failed, memory_order_relaxed)) {
        size_t first = atomic_fetch_add_explicit(&scan->next_block, scan->step_blocks, memory_order_relaxed);
        if (first >= blocks->n_blocks)
            break;
        size_t end = blocks->n_blocks - first < scan->step_blocks ? blocks->n_blocks : first + scan->step_blocks;
        for (size_t i = first; i < end; i++) {
            struct vdb_block block;
            int status = blocks->pin(blocks->context, i, &block, err);
            if (status)
                return status;
            worker->n_blocks++;
            status = scan_block(worker, &block, (uint32_t)i, err);
            blocks->unpin(blocks->context, &block);
            if (status)
                return status;
        }
    }
    return VECDB_OK;
}

static bool is_batch(const struct vdb_flat_scan *scan)
{
    return scan->n_queries >= VDB_BATCH_QUERIES && scan->search->metric != VECDB_HAMMING;
}

static void work(void *context, size_t i)
{
    struct vdb_flat_scan *scan = context;
    struct vdb_flat_worker *worker = &scan->workers[i];
    vecdb_error err = {0};
    int status = is_batch(scan) ? vdb_flat_batch(worker, &err) : scan_blocks(worker, &err);
    if (status)
        vdb_flat_scan_fail(scan, status, &err);
}

/* ------------------------------------------------------------------ queries */

static double norm_of(const float *values, uint32_t dimension)
{
    double sum = 0;
    for (uint32_t i = 0; i < dimension; i++)
        sum += (double)values[i] * values[i];
    return sqrt(sum);
}

static bool is_whole(const float *values, uint32_t dimension, float low, float high)
{
    for (uint32_t i = 0; i < dimension; i++)
        if (!(values[i] >= low && values[i] <= high) || values[i] != (float)(int)values[i])
            return false;
    return true;
}

/* The query as bytes of `type`, where all its values are such numbers and a kernel wants them. */
static bool make_whole(const struct vdb_search *search, int type, const float *values, uint8_t *bytes)
{
    bool is_signed = type == VECDB_I8;
    if (!search->kernels->same_type[vdb_flat_op(search->metric)][type] ||
        !is_whole(values, search->dimension, is_signed ? -128 : 0, is_signed ? 127 : 255))
        return false;
    for (uint32_t i = 0; i < search->dimension; i++)
        bytes[i] = (uint8_t)(int)values[i]; /* of a negative number the two's complement */
    return true;
}

/* Fill scan->queries; *forms is what they point into. */
static int prepare_queries(struct vdb_flat_scan *scan, size_t first, uint8_t **forms, vecdb_error *err)
{
    const struct vdb_search *search = scan->search;
    bool is_bits = search->metric == VECDB_HAMMING;
    size_t dimension = search->dimension, n = scan->n_queries;
    size_t query_bytes = vdb_vector_bytes(is_bits ? VECDB_BIT : VECDB_F32, search->dimension);
    scan->queries = vdb_alloc_array(search->memory, n, sizeof *scan->queries);
    if (!scan->queries)
        return vdb_fail_memory(err, n * sizeof *scan->queries);
    size_t form_bytes = is_bits ? 0 : query_bytes + 2 * dimension; /* negated floats, i8, u8 */
    *forms = vdb_alloc_array(search->memory, n, form_bytes ? form_bytes : 1);
    if (!*forms)
        return vdb_fail_memory(err, n * form_bytes);
    for (int type = 0; type <= VECDB_U8; type++)
        scan->all_whole[type] = !is_bits && (type == VECDB_I8 || type == VECDB_U8);
    for (size_t i = 0; i < n; i++) {
        struct vdb_flat_query *query = &scan->queries[i];
        memset(query, 0, sizeof *query);
        query->original = query->values = (const uint8_t *)search->queries + (first + i) * query_bytes;
        atomic_init(&query->limit, INFINITY);
        if (is_bits)
            continue;
        const float *values = query->original;
        query->norm = norm_of(values, search->dimension);
        if (search->metric != VECDB_L2) {
            float *negated = (float *)(void *)*forms + i * dimension;
            for (size_t j = 0; j < dimension; j++)
                negated[j] = -values[j];
            query->values = negated;
        }
        uint8_t *bytes = *forms + n * query_bytes + i * 2 * dimension;
        for (int type = VECDB_I8; type <= VECDB_U8; type++, bytes += dimension) {
            if (make_whole(search, type, values, bytes))
                query->whole[type] = bytes;
            else
                scan->all_whole[type] = false;
        }
    }
    return VECDB_OK;
}

/* ------------------------------------------------------------------ workers */

static size_t full_capacity(uint32_t k)
{
    return 2 * (size_t)k + 64;
}

static int make_workers(struct vdb_flat_scan *scan, vecdb_error *err)
{
    struct vdb_memory *memory = scan->search->memory;
    size_t n_queries = scan->n_queries, capacity = full_capacity(scan->search->k);
    if (capacity > FIRST_CAPACITY)
        capacity = FIRST_CAPACITY;
    scan->workers = vdb_alloc_zero(memory, scan->n_workers * sizeof *scan->workers);
    if (!scan->workers)
        return vdb_fail_memory(err, scan->n_workers * sizeof *scan->workers);
    size_t n_scores = VDB_TILE_QUERIES * (size_t)VDB_PIECE_ROWS;
    for (size_t w = 0; w < scan->n_workers; w++) {
        struct vdb_flat_worker *worker = &scan->workers[w];
        worker->scan = scan;
        worker->scores = vdb_alloc_aligned(memory, n_scores * sizeof *worker->scores);
        worker->keeps = vdb_alloc_array(memory, n_queries, sizeof *worker->keeps);
        worker->first_rows = vdb_alloc_array(memory, n_queries * capacity, sizeof *worker->first_rows);
        if (!worker->scores || !worker->keeps || !worker->first_rows) {
            vdb_free(memory, worker->keeps); /* nothing to find in it */
            worker->keeps = NULL;
            return vdb_fail_memory(err, n_queries * capacity * sizeof *worker->first_rows);
        }
        for (size_t q = 0; q < n_queries; q++)
            worker->keeps[q] = (struct vdb_keep){
                .limit = INFINITY, .cutoff = INFINITY, .rows = worker->first_rows + q * capacity, .capacity = capacity};
    }
    return VECDB_OK;
}

static void free_workers(struct vdb_flat_scan *scan)
{
    struct vdb_memory *memory = scan->search->memory;
    for (size_t w = 0; scan->workers && w < scan->n_workers; w++) {
        struct vdb_flat_worker *worker = &scan->workers[w];
        for (size_t q = 0; worker->keeps && q < scan->n_queries; q++)
            if (worker->keeps[q].grown)
                vdb_free(memory, worker->keeps[q].rows);
        vdb_free(memory, worker->keeps);
        vdb_free(memory, worker->first_rows);
        vdb_free(memory, worker->uppers);
        vdb_free_aligned(memory, worker->scores);
        vdb_free_aligned(memory, worker->slab);
    }
    vdb_free(memory, scan->workers);
}

static size_t count_workers(const struct vdb_search *search, const struct vdb_blocks *blocks, size_t n_queries)
{
    size_t n_threads = search->pool && search->n_threads > 1 ? (size_t)search->n_threads : 1;
    if (n_threads > (size_t)vdb_pool_size(search->pool))
        n_threads = (size_t)vdb_pool_size(search->pool);
    /* tiles score about four queries in the time that reading a block from memory takes */
    size_t work_blocks = blocks->n_blocks * (1 + (n_queries < 4096 ? n_queries : 4096) / VDB_TILE_QUERIES);
    size_t n_useful = work_blocks / WORKER_BLOCKS;
    if (n_useful > blocks->n_blocks)
        n_useful = blocks->n_blocks;
    if (n_threads > n_useful)
        n_threads = n_useful;
    return n_threads ? n_threads : 1;
}

/* ------------------------------------------------------------------ search */

static int search_chunk(const struct vdb_search *search, const struct vdb_blocks *blocks, size_t first,
                        size_t n_queries, struct vdb_answer *answer, vecdb_error *err)
{
    struct vdb_flat_scan scan = {.search = search, .blocks = blocks, .n_queries = n_queries, .err = err};
    uint8_t *forms = NULL;
    scan.n_workers = count_workers(search, blocks, n_queries);
    scan.step_blocks = blocks->n_blocks / (4 * scan.n_workers);
    if (scan.step_blocks > STEP_BLOCKS)
        scan.step_blocks = STEP_BLOCKS;
    if (scan.step_blocks == 0)
        scan.step_blocks = 1;
    scan.relative = vdb_kernel_error(search->dimension) * (1 + 0x1p-20);
    atomic_flag_clear(&scan.error_is_written);
    int status = prepare_queries(&scan, first, &forms, err);
    if (!status)
        status = make_workers(&scan, err);
    if (status)
        goto done;
    vdb_pool_run(search->pool, (int)scan.n_workers, scan.n_workers, work, &scan);
    status = scan.status;
    if (!status)
        status = vdb_flat_answer(&scan, answer, first, err);
    for (size_t w = 0; w < scan.n_workers; w++) {
        answer->n_distances += scan.workers[w].n_distances;
        answer->n_blocks += scan.workers[w].n_blocks;
        answer->bytes_scored += scan.workers[w].bytes_scored;
    }
done:
    free_workers(&scan);
    vdb_free(search->memory, forms);
    vdb_free(search->memory, scan.queries);
    return status;
}

static size_t chunk_queries(const struct vdb_search *search, const struct vdb_blocks *blocks)
{
    size_t n_workers = count_workers(search, blocks, search->n_queries);
    size_t query_bytes = n_workers * full_capacity(search->k) * sizeof(struct vdb_candidate);
    size_t n = CHUNK_BYTES / query_bytes;
    if (n > CHUNK_QUERIES)
        n = CHUNK_QUERIES;
    return n < VDB_TILE_QUERIES ? VDB_TILE_QUERIES : n / VDB_TILE_QUERIES * VDB_TILE_QUERIES;
}

int vdb_flat_search(const struct vdb_search *search, const struct vdb_blocks *blocks, struct vdb_answer *answer,
                    vecdb_error *err)
{
    if (search->k == 0 || search->dimension == 0)
        return vdb_fail(err, VECDB_INVALID, "a search needs k and a dimension of at least 1");
    if (blocks->n_blocks > UINT32_MAX) /* candidates name blocks by 32 bits; there are as many slots */
        return vdb_fail(err, VECDB_INVALID, "%zu blocks are more than there can be slots", blocks->n_blocks);
    struct vdb_answer made = {0};
    made.first = vdb_alloc_array(search->memory, search->n_queries + 1, sizeof *made.first);
    if (!made.first)
        return vdb_fail_memory(err, (search->n_queries + 1) * sizeof *made.first);
    made.first[0] = 0;
    size_t most = chunk_queries(search, blocks);
    for (size_t first = 0; first < search->n_queries; first += most) {
        size_t n = search->n_queries - first < most ? search->n_queries - first : most;
        int status = search_chunk(search, blocks, first, n, &made, err);
        if (status) {
            vdb_answer_release(search->memory, &made);
            return status;
        }
    }
    *answer = made;
    return VECDB_OK;
}
