/* SPDX-License-Identifier: Apache-2.0
 *
 * index/calibrate.h - what effort a recall takes: measured on the stored vectors, kept with the index
 *
 *     vdb_calibrate            graph + exact search of a sample -> curve      after a build has caught up; seconds
 *     vdb_calibration_effort   curve, k, recall asked for       -> effort     every search; tens of nanoseconds
 *     vdb_calibration_write    curve -> bytes of the catalog    -> vdb_calibration_read
 *
 * A curve is a plain structure: copy it, keep it anywhere; nothing has to be released. What is measured and how a
 * curve is read between its points is told in calibrate.c.
 */
#ifndef VDB_INDEX_CALIBRATE_H
#define VDB_INDEX_CALIBRATE_H

#include "index/graph.h"

#define VDB_CALIBRATION_BANDS 3  /* k = 1, 10, 100 */
#define VDB_CALIBRATION_POINTS 24 /* at most, of a band */
#define VDB_CALIBRATION_BYTES 2048 /* more than any curve takes when written */

/* The recall that is asked for where nobody says anything (vecdb_query.recall = 0). */
#define VDB_DEFAULT_RECALL 0.95

/* One setting and what it gave. Points of a band ascend in cost and in recall. */
struct vdb_calibration_point {
    uint32_t ef, n_rerank;
    float reach;  /* see vdb_graph_effort */
    float recall; /* the mean over the sample */
    float error;  /* its standard error */
    float cost;   /* of one search, in bytes-of-memory equivalents: compares points of one curve */
};

struct vdb_calibration_band {
    uint32_t k; /* 0: not measured, there are too few vectors */
    uint32_t n_points;
    struct vdb_calibration_point points[VDB_CALIBRATION_POINTS];
};

struct vdb_calibration {
    uint32_t n_samples;
    uint64_t n_vectors; /* live when it was measured */
    uint64_t n_dead;    /* that the graph held then */
    struct vdb_calibration_band bands[VDB_CALIBRATION_BANDS];
};

/* Measure. `search` gives kernels, memory, pool, metric, type, dimension, dead and stop (asked between the parts, the
 * exact search included); its queries and k are not looked at. `blocks` and `rows` are the vectors of the
 * same state, `end_slot` as in vdb_graph_search. The same seed, graph and rows give the same curve. Nobody inserts
 * into the graph meanwhile. Work: about max_work multiplications for the exact answers (0: VDB_CALIBRATION_WORK), by
 * taking fewer samples, but at least VDB_CALIBRATION_LEAST where there are so many vectors.
 * VECDB_OK with bands of k = 0 when there are too few vectors for any. INTERRUPTED, NOMEM, CORRUPT, IO. */
#define VDB_CALIBRATION_WORK 2e11
#define VDB_CALIBRATION_SAMPLES 1000
#define VDB_CALIBRATION_LEAST 100
struct vdb_calibrate {
    const struct vdb_graph *graph;
    const struct vdb_search *search;
    const struct vdb_blocks *blocks;
    const struct vdb_rows *rows;
    uint32_t end_slot;
    uint64_t seed;
    double max_work;
    uint32_t n_samples; /* at most; 0: VDB_CALIBRATION_SAMPLES */
};
int vdb_calibrate(const struct vdb_calibrate *how, struct vdb_calibration *curve, vecdb_error *err);

/* The state that is searched, where it differs from the one that was measured. */
struct vdb_calibration_now {
    uint64_t n_vectors; /* live vectors of the graph */
    uint64_t n_dead;    /* dead ones that it still holds */
};

/* The least effort with which `recall` (above 0, below 1) can be expected of searches for the nearest k. `curve` NULL,
 * or without the bands: a formula that errs on the side of more effort. Greater recall or k never gives less ef.
 * Any thread. */
void vdb_calibration_effort(const struct vdb_calibration *curve, uint32_t k, double recall,
                            const struct vdb_calibration_now *now, struct vdb_graph_effort *effort);

/* The effort for a given ef: how many are reranked. */
void vdb_calibration_fixed(uint32_t k, uint32_t ef, struct vdb_graph_effort *effort);

/* The recall that a search for the nearest k may expect of the effort that `recall` leads to; 0: not measured. */
double vdb_calibration_expected(const struct vdb_calibration *curve, uint32_t k, double recall);

/* Time to measure again? After a fifth of the vectors has come or gone since. */
bool vdb_calibration_stale(const struct vdb_calibration *curve, uint64_t n_inserted, uint64_t n_deleted);

/* As bytes: written into `out`, which has room for VDB_CALIBRATION_BYTES; returns how many. read checks every byte
 * and fails with CORRUPT; `curve` is written on success only. */
size_t vdb_calibration_write(const struct vdb_calibration *curve, void *out);
int vdb_calibration_read(const void *bytes, size_t n_bytes, struct vdb_calibration *curve, vecdb_error *err);

#endif
