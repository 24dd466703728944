/* SPDX-License-Identifier: Apache-2.0
 *
 * index/flat.h - what the files of the exact search share; nobody else includes it
 *
 *     flat.c         vdb_flat_search: chunks of queries, workers, scan of one block after another
 *     flat_batch.c   scan for many queries: slabs of rows against tiles of queries
 *     flat_keep.c    candidates: which rows may belong to the answer
 *     flat_answer.c  survivors, their exact distances, the answer
 *     exact.c        one exact distance
 *
 * The essay on how an exact answer comes out of inexact scores is in flat.c.
 */
#ifndef VDB_INDEX_FLAT_H
#define VDB_INDEX_FLAT_H

#include <stdatomic.h>
#include <stdbool.h>

#include "index.h"

/* A KEY is a score with the sign that makes smaller nearer: |q - x|^2, -<q, x>, -<q, x> / |x|, or
 * unequal bits. A row's true key lies in [lower, upper]; floats, rounded outwards. */
struct vdb_candidate {
    float lower, upper;
    uint32_t block, row;
};

/* True keys from computed ones: (key - margin) / (1 + relative) .. (key + margin) / (1 - relative). */
struct vdb_bounds {
    double relative, margin;
};

struct vdb_flat_query {
    const void *original;            /* as the caller gave it */
    const void *values;              /* what kernels score rows against: floats that give keys, or bits */
    const void *whole[VECDB_U8 + 1]; /* as I8, U8 where every value is such a whole number; else NULL */
    double norm;
    _Atomic float limit; /* at least k live rows have an upper bound not above it; only falls */
};

/* A worker's candidates for one query, in the order in which it came upon them. */
struct vdb_keep {
    float limit;              /* the query's, as this worker last saw it */
    float cutoff;             /* keys above it are too far, in the blocks being scanned */
    struct vdb_bounds bounds; /* of the blocks being scanned */
    struct vdb_candidate *rows;
    size_t n, capacity;
    bool grown; /* rows is a block of its own, not a part of the worker's */
};

struct vdb_flat_scan;

struct vdb_flat_worker {
    struct vdb_flat_scan *scan;
    struct vdb_keep *keeps; /* one for each query of the chunk */
    struct vdb_candidate *first_rows;
    float *scores; /* VDB_TILE_QUERIES * VDB_PIECE_ROWS */
    float *uppers; /* where the k-th upper bound is looked for; grows */
    size_t n_uppers;
    float *slab;            /* widened rows; NULL until needed */
    uint64_t unasked_bytes; /* scored since stop was called */
    uint64_t n_distances, n_blocks, bytes_scored;
};

/* One chunk of queries on its way through all blocks. */
struct vdb_flat_scan {
    const struct vdb_search *search;
    const struct vdb_blocks *blocks;
    size_t n_queries; /* of this chunk */
    struct vdb_flat_query *queries;
    struct vdb_flat_worker *workers;
    size_t n_workers;
    size_t step_blocks;           /* a worker takes so many at a time */
    bool all_whole[VECDB_U8 + 1]; /* every query has whole[type] */
    double relative;              /* vdb_kernel_error with some room, see flat.c */
    _Atomic size_t next_block;
    atomic_bool failed; /* once set, workers end early */
    atomic_flag error_is_written;
    int status;
    vecdb_error *err;
};

/* Rows of one pinned block whose scores are in one array. */
struct vdb_piece {
    const struct vdb_block *block;
    uint32_t block_index;
    uint32_t first_row;
    uint32_t n_rows;
};

#define VDB_PIECE_ROWS 1024 /* most rows of a piece: 4 KiB of scores per query stay in the first-level cache */

/* flat.c */
int vdb_flat_scan_fail(struct vdb_flat_scan *scan, int status, const vecdb_error *err);
int vdb_flat_ask(struct vdb_flat_worker *worker, uint64_t n_bytes, vecdb_error *err);
/* What the keys of `query` are worth in blocks whose rows are not longer than max_norm. */
struct vdb_bounds vdb_flat_bounds(const struct vdb_flat_scan *scan, const struct vdb_flat_query *query, float max_norm);
/* Whether kernels may overflow there: then no score means anything. */
bool vdb_flat_may_overflow(const struct vdb_flat_query *query, float max_norm);
enum vdb_op vdb_flat_op(int metric);
/* The keys of a piece's rows against one query. */
void vdb_flat_score(const struct vdb_flat_scan *scan, const struct vdb_flat_query *query, const struct vdb_piece *piece,
                    float *scores);

/* flat_batch.c: what flat.c's scan does, for many float queries at once. */
#define VDB_BATCH_QUERIES 8 /* from so many queries on; fewer do not pay for widening rows */
int vdb_flat_batch(struct vdb_flat_worker *worker, vecdb_error *err);

/* flat_keep.c */
float vdb_float_up(double value);   /* the least float not below value */
float vdb_float_down(double value); /* the greatest float not above it */
/* The rank-th smallest (0: the smallest) of n > rank values, none NaN; reorders them. */
float vdb_select(float *values, size_t n, size_t rank);
/* Before the rows of a block: learn the query's limit, set bounds and cutoff. */
void vdb_keep_begin(struct vdb_keep *keep, struct vdb_flat_query *query, struct vdb_bounds bounds);
/* Keep the rows of a piece whose keys are not above the cutoff and whose slots are not dead. NOMEM. */
int vdb_keep_scores(struct vdb_flat_worker *worker, size_t query, const struct vdb_piece *piece, const float *scores,
                    vecdb_error *err);
/* Keep them all, whatever their keys. */
int vdb_keep_unknown(struct vdb_flat_worker *worker, size_t query, const struct vdb_piece *piece, vecdb_error *err);
/* `uppers` has room for n. NOMEM. */
int vdb_keep_room(struct vdb_flat_worker *worker, size_t n, vecdb_error *err);

/* flat_answer.c: append the hits of the chunk's queries to `answer`, which has those of n_done queries. */
int vdb_flat_answer(struct vdb_flat_scan *scan, struct vdb_answer *answer, size_t n_done, vecdb_error *err);

#endif
