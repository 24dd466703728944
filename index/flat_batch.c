/* SPDX-License-Identifier: Apache-2.0
 *
 * index/flat_batch.c - scan for many queries: slabs of rows against tiles of queries
 *
 * One query is as fast as memory delivers rows. With a thousand, each row serves all of them
 * once it is here, and arithmetic is the limit; then it matters which loop is inside which:
 *
 *     slab      pinned blocks, up to 1 MiB of float rows              second-level cache, or third
 *       chunk     queries, 256 KiB                                    second-level cache
 *         piece     rows of one block, about 32 KiB                   first-level cache
 *           tile      4 queries against the piece: kernels->tile_*    registers
 *
 * Rows that are not f32 are widened once per slab. Under cosine, rows are divided by their norm
 * while they are copied, so that the inner loops are those of ip. Where rows are i8 or u8 and
 * every query is whole numbers of that type, exact integer kernels run on the rows as they are,
 * which beats tiles of floats: four times the values in a register.
 *
 * Invariants
 *  1. The slab's blocks stay pinned until all queries have passed over it; at most SLAB_BLOCKS.
 *  2. A segment is a stretch of rows of one block; a block too large for a slab continues in the
 *     next, pinned anew.
 *  3. Keys keep the bounds of flat.c (2). Normalised rows: the norm is known to e / 2 + 2^-24,
 *     each value is rounded once more (2^-24), the product adds e: together less than 1.6 e |q|.
 *
 * Rejected: one matrix product per block (GEMM) with |q|^2 + |x|^2 - 2 <q,x> behind it: no better
 * than tiles that compute differences where the bound must hold, and another library. Splitting
 * threads by queries: each would widen all rows.
 */
#include <math.h>

#include "base/error.h"
#include "base/numbers.h"
#include "flat.h"

#define SLAB_BLOCKS 16
#define SLAB_VALUES (256u << 10) /* floats of widened rows: 1 MiB */
#define CHUNK_BYTES (256u << 10) /* queries that take turns with the pieces of a slab */
#define PIECE_BYTES (32u << 10)  /* rows that stay while four queries after four pass */

struct segment {
    struct vdb_block *block; /* in slab.blocks */
    uint32_t index, first_row, n_rows;
    const float *rows; /* NULL: integer kernels read them in the block */
    size_t stride;
};

struct slab {
    struct vdb_block blocks[SLAB_BLOCKS];
    struct segment segments[SLAB_BLOCKS];
    size_t n;
    size_t n_values;
    float max_norm;
};

/* Where in its blocks a worker is: it owns those from `block` to `end`. */
struct cursor {
    size_t block, end;
    uint32_t row;
};

/* ------------------------------------------------------------------ slabs */

/* Divide a row by its norm. A zero row stays zero. */
static void normalise(const struct vdb_kernels *kernels, float *row, uint32_t dimension)
{
    float square;
    kernels->float_query[VDB_OP_DOT][VECDB_F32](row, row, 0, 1, dimension, &square);
    if (square > 0x1p-80f && square < 0x1p100f) {
        float inverse = (float)(1 / sqrt((double)square));
        for (uint32_t i = 0; i < dimension; i++)
            row[i] *= inverse;
        return;
    }
    double sum = 0; /* too small or too large for floats */
    for (uint32_t i = 0; i < dimension; i++)
        sum += (double)row[i] * row[i];
    double norm = sqrt(sum);
    if (norm > 0)
        for (uint32_t i = 0; i < dimension; i++)
            row[i] = (float)(row[i] / norm);
}

static int need_slab(struct vdb_flat_worker *worker, vecdb_error *err)
{
    size_t dimension = worker->scan->search->dimension;
    size_t n_bytes = (dimension > SLAB_VALUES ? dimension : SLAB_VALUES) * sizeof(float);
    if (!worker->slab)
        worker->slab = vdb_alloc_aligned(worker->scan->search->memory, n_bytes);
    return worker->slab ? VECDB_OK : vdb_fail_memory(err, n_bytes);
}

/* Rows of the segment as floats, in place where they can be. */
static int load_segment(struct vdb_flat_worker *worker, struct slab *slab, struct segment *segment, vecdb_error *err)
{
    const struct vdb_search *search = worker->scan->search;
    const struct vdb_block *block = segment->block;
    const uint8_t *source = (const uint8_t *)block->rows + segment->first_row * block->stride;
    size_t dimension = search->dimension;
    if (worker->scan->all_whole[block->type])
        return VECDB_OK;
    if (block->type == VECDB_F32 && search->metric != VECDB_COSINE) {
        segment->rows = (const float *)(const void *)source;
        segment->stride = block->stride;
        return VECDB_OK;
    }
    int status = need_slab(worker, err);
    if (status)
        return status;
    float *rows = worker->slab + slab->n_values;
    if (block->stride == vdb_vector_bytes(block->type, search->dimension))
        search->kernels->widen[block->type](source, segment->n_rows * dimension, rows);
    else
        for (uint32_t i = 0; i < segment->n_rows; i++)
            search->kernels->widen[block->type](source + i * block->stride, dimension, rows + i * dimension);
    if (search->metric == VECDB_COSINE)
        for (uint32_t i = 0; i < segment->n_rows; i++)
            normalise(search->kernels, rows + i * dimension, search->dimension);
    segment->rows = rows;
    segment->stride = dimension * sizeof(float);
    return VECDB_OK;
}

static void release_slab(const struct vdb_blocks *blocks, struct slab *slab)
{
    for (size_t i = 0; i < slab->n; i++)
        blocks->unpin(blocks->context, &slab->blocks[i]);
    slab->n = 0;
}

/* Pin and load the next rows. On failure nothing stays pinned. */
static int fill_slab(struct vdb_flat_worker *worker, struct cursor *cursor, struct slab *slab, vecdb_error *err)
{
    const struct vdb_blocks *blocks = worker->scan->blocks;
    size_t dimension = worker->scan->search->dimension;
    slab->n = slab->n_values = 0;
    slab->max_norm = 0;
    while (cursor->block < cursor->end && slab->n < SLAB_BLOCKS) {
        size_t room = slab->n_values < SLAB_VALUES ? (SLAB_VALUES - slab->n_values) / dimension : 0;
        if (room == 0 && slab->n == 0)
            room = 1; /* a vector larger than a slab has one to itself */
        if (room == 0)
            break;
        struct vdb_block *block = &slab->blocks[slab->n];
        int status = blocks->pin(blocks->context, cursor->block, block, err);
        if (status) {
            release_slab(blocks, slab);
            return status;
        }
        uint32_t n_left = block->n_rows - cursor->row;
        struct segment *segment = &slab->segments[slab->n++];
        *segment = (struct segment){
            block, (uint32_t)cursor->block, cursor->row, n_left < room ? n_left : (uint32_t)room, NULL, 0};
        status = load_segment(worker, slab, segment, err);
        if (status) {
            release_slab(blocks, slab);
            return status;
        }
        slab->n_values += segment->n_rows * dimension;
        if (!(block->max_norm <= slab->max_norm) && !isnan(slab->max_norm)) /* a NaN comes and stays */
            slab->max_norm = block->max_norm;
        worker->n_blocks += cursor->row == 0;
        worker->bytes_scored += segment->n_rows * vdb_vector_bytes(block->type, (uint32_t)dimension);
        cursor->row += segment->n_rows;
        if (cursor->row == block->n_rows) {
            cursor->block++;
            cursor->row = 0;
        }
    }
    return VECDB_OK;
}

/* ------------------------------------------------------------------ tiles */

/* Four queries, or the fewer that are left, against a piece. */
static int score_tile(struct vdb_flat_worker *worker, size_t first, size_t n, const struct segment *segment,
                      const struct vdb_piece *piece, const bool *may_overflow, vecdb_error *err)
{
    const struct vdb_flat_scan *scan = worker->scan;
    const struct vdb_search *search = scan->search;
    size_t stride = ((size_t)piece->n_rows + 15) / 16 * 16;
    if (segment->rows) {
        const float *queries[VDB_TILE_QUERIES];
        for (size_t j = 0; j < VDB_TILE_QUERIES; j++)
            queries[j] = scan->queries[first + (j < n ? j : n - 1)].values;
        const float *rows = (const float *)(const void *)((const uint8_t *)segment->rows +
                                                          (piece->first_row - segment->first_row) * segment->stride);
        vdb_tile_fn tile = search->metric == VECDB_L2 ? search->kernels->tile_l2 : search->kernels->tile_dot;
        tile(queries, rows, segment->stride, piece->n_rows, search->dimension, worker->scores, stride);
    }
    for (size_t j = 0; j < n; j++) {
        float *scores = worker->scores + j * stride;
        if (!segment->rows)
            vdb_flat_score(scan, &scan->queries[first + j], piece, scores);
        int status = may_overflow[j] ? vdb_keep_unknown(worker, first + j, piece, err)
                                     : vdb_keep_scores(worker, first + j, piece, scores, err);
        if (status)
            return status;
    }
    return VECDB_OK;
}

/* Queries first .. end - 1 against a segment, piece by piece. */
static int score_segment(struct vdb_flat_worker *worker, size_t first, size_t end, const struct slab *slab,
                         const struct segment *segment, vecdb_error *err)
{
    const struct vdb_flat_scan *scan = worker->scan;
    size_t row_bytes = scan->search->dimension * sizeof(float);
    uint32_t n_most = row_bytes < PIECE_BYTES ? (uint32_t)(PIECE_BYTES / row_bytes) : 1;
    if (n_most < 8)
        n_most = 8;
    if (n_most > VDB_PIECE_ROWS)
        n_most = VDB_PIECE_ROWS;
    struct vdb_piece piece = {.block = segment->block, .block_index = segment->index};
    uint32_t done = 0;
    for (; done < segment->n_rows; done += piece.n_rows) {
        piece.first_row = segment->first_row + done;
        piece.n_rows = segment->n_rows - done < n_most ? segment->n_rows - done : n_most;
        for (size_t q = first; q < end; q += VDB_TILE_QUERIES) {
            size_t n = end - q < VDB_TILE_QUERIES ? end - q : VDB_TILE_QUERIES;
            bool may_overflow[VDB_TILE_QUERIES];
            for (size_t j = 0; j < n; j++)
                may_overflow[j] = vdb_flat_may_overflow(&scan->queries[q + j], slab->max_norm);
            int status = score_tile(worker, q, n, segment, &piece, may_overflow, err);
            if (status)
                return status;
        }
        /* a tile takes about as long as reading its rows from memory would */
        int status = vdb_flat_ask(worker, piece.n_rows * row_bytes * (end - first) / VDB_TILE_QUERIES, err);
        if (status)
            return status;
    }
    return VECDB_OK;
}

static int score_slab(struct vdb_flat_worker *worker, const struct slab *slab, vecdb_error *err)
{
    struct vdb_flat_scan *scan = worker->scan;
    size_t n_chunk = CHUNK_BYTES / (scan->search->dimension * sizeof(float)) / VDB_TILE_QUERIES * VDB_TILE_QUERIES;
    if (n_chunk < VDB_TILE_QUERIES)
        n_chunk = VDB_TILE_QUERIES;
    for (size_t first = 0; first < scan->n_queries; first += n_chunk) {
        size_t end = scan->n_queries - first < n_chunk ? scan->n_queries : first + n_chunk;
        for (size_t q = first; q < end; q++)
            vdb_keep_begin(&worker->keeps[q], &scan->queries[q],
                           vdb_flat_bounds(scan, &scan->queries[q], slab->max_norm));
        for (size_t i = 0; i < slab->n; i++) {
            int status = score_segment(worker, first, end, slab, &slab->segments[i], err);
            if (status)
                return status;
        }
    }
    for (size_t i = 0; i < slab->n; i++)
        worker->n_distances += (uint64_t)slab->segments[i].n_rows * scan->n_queries;
    return VECDB_OK;
}

int vdb_flat_batch(struct vdb_flat_worker *worker, vecdb_error *err)
{
    struct vdb_flat_scan *scan = worker->scan;
    struct slab slab;
    for (;;) {
        struct cursor cursor = {
            .block = atomic_fetch_add_explicit(&scan->next_block, scan->step_blocks, memory_order_relaxed)};
        if (cursor.block >= scan->blocks->n_blocks)
            return VECDB_OK;
        size_t n_left = scan->blocks->n_blocks - cursor.block;
        cursor.end = cursor.block + (n_left < scan->step_blocks ? n_left : scan->step_blocks);
        while (cursor.block < cursor.end) {
            if (atomic_load_explicit(&scan->failed, memory_order_relaxed))
                return VECDB_OK;
            int status = fill_slab(worker, &cursor, &slab, err);
            if (status)
                return status;
            status = score_slab(worker, &slab, err);
            release_slab(scan->blocks, &slab);
            if (status)
                return status;
        }
    }
}
