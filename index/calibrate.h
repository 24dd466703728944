/* SPDX-License-Identifier: Apache-2.0
 *
 * index/calibrate.h - what effort a recall takes: measured on the stored vectors, kept with the index
 *
 *     vdb_calibrate           graph + exact search of a sample -> curve      after a build has caught up; seconds
 *     vdb_calibration_plan    curve, k, recall asked for       -> plan       every search; well below a microsecond
 *     vdb_planned_search      plan, query                      -> hits       in place of vdb_graph_search
 *     vdb_calibration_write   curve -> bytes for the catalog   -> vdb_calibration_read
 *
 * A curve is a plain structure: copy it, keep it anywhere; nothing has to be released. What is measured, and why a
 * plan has up to three efforts, is told in calibrate.c.
 */
#ifndef VDB_INDEX_CALIBRATE_H
#define VDB_INDEX_CALIBRATE_H

#include "index/graph.h"

#define VDB_CALIBRATION_BANDS 3    /* k = 1, 10, 100 */
#define VDB_CALIBRATION_POINTS 28  /* at most, of a band */
#define VDB_CALIBRATION_BYTES 2048 /* more than any curve takes when written */

/* The recall that is asked for where nobody says anything (vecdb_query.recall = 0). */
#define VDB_DEFAULT_RECALL 0.95

/* What a walk of width ef has found of the sample, near queries and far ones apart. */
struct vdb_calibration_point {
    uint32_t ef;
    float near_recall, far_recall; /* means; not below the point before */
    float near_error;              /* standard error */
};

struct vdb_calibration_band {
    uint32_t k; /* 0: not measured, there are too few vectors */
    uint32_t n_points; /* by ef */
    float far_distance; /* a query whose k-th nearest is farther counts as far: one in ten of the sample */
    float beyond_distance; /* hardly one of the sample is as far as that */
    struct vdb_calibration_point points[VDB_CALIBRATION_POINTS];
};

struct vdb_calibration {
    uint32_t n_samples;
    uint64_t n_vectors; /* live when it was measured */
    struct vdb_calibration_band bands[VDB_CALIBRATION_BANDS];
};

/* Measure. `search` gives kernels, memory, pool, metric, type, dimension, dead and stop (asked in the exact search, and
 * between the others); its queries and k are not looked at. `blocks` and `rows` are the vectors of the same state,
 * `end_slot` as in vdb_graph_search. The same seed, graph and rows give the same curve. Nobody inserts
 * into the graph meanwhile. Work: about max_work multiplications for the exact answers (0: VDB_CALIBRATION_WORK), by
 * taking fewer samples, but at least VDB_CALIBRATION_LEAST where there are so many vectors.
 * VECDB_OK with bands of k = 0 when there are too few vectors for them. INTERRUPTED, NOMEM, CORRUPT, IO. */
#define VDB_CALIBRATION_WORK 2e11 /* 10 s of one core */
#define VDB_CALIBRATION_SAMPLES 1500
#define VDB_CALIBRATION_LEAST 150
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

/* How to search: with efforts[0]; when the k-th result is then farther than limits[0], again with efforts[1], when it
 * is farther than limits[1], with efforts[2]. */
#define VDB_PLAN_EFFORTS 3
struct vdb_plan {
    uint32_t n_efforts; /* 1 .. VDB_PLAN_EFFORTS */
    struct vdb_graph_effort efforts[VDB_PLAN_EFFORTS];
    float limits[VDB_PLAN_EFFORTS - 1];
};

/* The least effort with which `recall` (above 0, below 1) can be expected of searches for the nearest k in a graph that
 * holds n_vectors live vectors. `curve` NULL, or one that was not measured: a formula that errs on the side of more
 * effort. A greater recall or k never gives less ef. Any thread. */
void vdb_calibration_plan(const struct vdb_calibration *curve, uint32_t k, double recall, uint64_t n_vectors,
                          struct vdb_plan *plan);

/* The plan for a given ef: no second effort. */
void vdb_plan_of_ef(uint32_t k, uint32_t ef, struct vdb_plan *plan);

/* vdb_graph_search as the plan says. `*ef` (NULL is allowed): the one that was used last. */
int vdb_planned_search(const struct vdb_graph *graph, const struct vdb_search *search, size_t q, uint32_t end_slot,
                       const struct vdb_plan *plan, const struct vdb_rows *rows, struct vdb_graph_scratch *scratch,
                       struct vdb_hit *hits, uint32_t *n_hits, struct vdb_graph_counts *counts, uint32_t *ef,
                       vecdb_error *err);

/* The recall that a search for the nearest k may expect of the plan for `recall`; 0: not measured. */
double vdb_calibration_expected(const struct vdb_calibration *curve, uint32_t k, double recall);

/* Time to measure again? After a fifth of the vectors has come or gone since. */
bool vdb_calibration_stale(const struct vdb_calibration *curve, uint64_t n_inserted, uint64_t n_deleted);

/* As bytes: written into `out`, which has room for VDB_CALIBRATION_BYTES; returns how many. read checks every byte
 * and fails with CORRUPT; `curve` is written on success only. */
size_t vdb_calibration_write(const struct vdb_calibration *curve, void *out);
int vdb_calibration_read(const void *bytes, size_t n_bytes, struct vdb_calibration *curve, vecdb_error *err);

#endif
