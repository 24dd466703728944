/* SPDX-License-Identifier: Apache-2.0
 *
 * index/calibrate.c - what effort a recall takes: measuring it
 *
 *     sample of nodes -> their vectors -> exact nearest of each (flat)          truth
 *     for k = 1, 10, 100 and a ladder of ef: search the graph for each of them  -> recall, near and far
 *
 * A stored vector is not a query: it is its own nearest, and links lead straight to it. So it is left out, of the truth
 * (with its exact copies) and of the graph (vdb_graph_effort.without).
 *
 * Queries of users are not stored vectors either: questions are not passages. They may be harder, and
 * what makes one hard shows in the answer: it is far from its nearest. Measured on 60,000 passages of documentation
 * with queries of other kinds: among queries whose k-th nearest is equally far, stored vectors and questions find the
 * same share, within .03; but a third of the questions is as far as only one in ten of the passages. So a
 * curve tells near and far queries apart, and the recall asked for must be reached among the far ones too (they may be
 * a little below). A plan searches with the effort for near queries, looks how far the k-th result is,
 * and where it is far searches again: with the effort for far ones, or, where hardly one of the sample is as far, with
 * BEYOND times that. A walk that missed the nearest finds farther ones, and so is corrected by the
 * same rule. One in ten queries pays for this when queries are like what is stored.
 *
 * What was rejected: one ef for all (docs, k = 10: .917 where .95 was asked for); a walk that goes on while candidates
 * are nearer than a multiple of the k-th (the same .917 where that is reached at once); efforts for four classes,
 * each with the full recall (a third slower where queries are like what is stored); mixtures of two
 * stored vectors as queries (ten times too hard: their nearest are the two, and then a crowd of equals).
 *
 * Statistics. The mean over n samples has a standard error s, and recall is asked for within .01: what counts is the
 * mean less CONFIDENCE * s. Samples are taken one from each of n equal stretches of nodes, which lie in the order of
 * neighbourhood. Means are made monotone: more effort finds no less.
 *
 * Between ladder steps log ef is interpolated along the recall; between bands (k = 1, 10, 100) along log k; above
 * k = 100 ef / k stays.
 *
 * Costs: n_samples * n * d for the truth, most of the time; then bands * ladder * n_samples searches, a few seconds.
 */
#include "calibrate.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/numbers.h"
#include "base/random.h"
#include "base/slots.h"

#define MOST_K 100u
#define TRUTH_K (MOST_K + 12) /* the vector itself, and some copies of it */
#define LADDER 1.25           /* ef of one step to that of the next: recall is smooth between them */
#define ENOUGH .9985          /* nothing more is measured above it: nothing more can be asked for */
#define RISE .0004            /* a sample's recall moves by less than that where nothing more is found */
#define MOST_STEPS 20         /* no ef above 20 k + 1000 is tried: scanning is not far then */
#define FAR_SHARE .90         /* of the sample is not far */
#define BEYOND_SHARE .99
#define CANDIDATE_TRIES 16    /* nodes of a stretch that are looked at for a live one */
#define TRUTH_STEP 128        /* queries of one exact search: between them `stop` is asked */
#define LEAST_BAND 50         /* samples, for a band */

static const uint32_t band_k[VDB_CALIBRATION_BANDS] = {1, 10, MOST_K};

struct sample {
    uint32_t node, slot;
    uint32_t n_truth;    /* 0: none, not used */
    uint32_t *truth;     /* slots, nearest first, at most TRUTH_K */
    double *distances;
};

struct measuring {
    const struct vdb_calibrate *how;
    struct vdb_memory *memory;
    struct vdb_search search;
    size_t row_bytes; /* of a query */
    uint32_t n;       /* samples */
    struct sample *samples;
    unsigned char *queries;
    uint32_t *truth; /* n * TRUTH_K */
    double *distances;
    struct vdb_graph_scratch *scratch;
    struct vdb_hit hits[MOST_K];
};

/* ------------------------------------------------------------------ the sample */

static bool is_live(const struct vdb_calibrate *how, uint32_t slot)
{
    return slot < how->end_slot && (!how->search->dead || !vdb_slots_has(how->search->dead, slot));
}

static uint64_t count_live(const struct vdb_calibrate *how, const struct vdb_graph_info *info)
{
    uint32_t end = info->end < how->end_slot ? info->end : how->end_slot;
    uint64_t n_dead = how->search->dead && end ? vdb_slots_count_range(how->search->dead, 0, end) : 0;
    uint64_t n_absent = end > info->n_slots ? end - info->n_slots : 0; /* mostly dead before they came */
    n_dead = n_dead > n_absent ? n_dead - n_absent : 0;
    return info->n_slots > n_dead ? info->n_slots - n_dead : 0;
}

/* One live node of each of `n_wanted` stretches, where there is one. */
static void choose_nodes(struct measuring *m, uint32_t n_nodes, uint32_t n_wanted)
{
    struct vdb_random random = {m->how->seed};
    for (uint32_t i = 0; i < n_wanted; i++) {
        uint64_t first = (uint64_t)n_nodes * i / n_wanted, end = (uint64_t)n_nodes * (i + 1) / n_wanted;
        for (uint32_t tries = 0; tries < CANDIDATE_TRIES; tries++) {
            uint32_t node = (uint32_t)(first + vdb_random_below(&random, end - first));
            uint32_t slot = vdb_graph_node_slot(m->how->graph, node);
            if (!is_live(m->how, slot))
                continue;
            m->samples[m->n++] = (struct sample){.node = node, .slot = slot};
            break;
        }
    }
}

/* The samples' vectors as queries; samples without one are dropped. */
static int read_queries(struct measuring *m, vecdb_error *err)
{
    const struct vdb_rows *rows = m->how->rows;
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->n; i++) {
        struct vdb_row row;
        int status = rows->find(rows->context, &m->samples[i].slot, 1, &row, err);
        if (status)
            return status;
        unsigned char *query = m->queries + n * m->row_bytes;
        if (row.values && m->search.type == VECDB_BIT)
            memcpy(query, row.values, m->row_bytes);
        else if (row.values)
            vdb_floats_of(row.type, row.values, m->search.dimension, (float *)(void *)query);
        if (row.values)
            m->samples[n++] = m->samples[i];
        rows->put(rows->context, &row, 1);
    }
    m->n = n;
    return VECDB_OK;
}

/* ------------------------------------------------------------------ what is true */

/* What the exact search says of one sample, without itself and its copies: these are exactly as far as itself. */
static void keep_truth(struct sample *sample, const struct vdb_hit *hits, size_t n)
{
    double own = NAN;
    for (size_t i = 0; i < n; i++)
        if (hits[i].slot == sample->slot)
            own = hits[i].distance;
    for (size_t i = 0; i < n && sample->n_truth < TRUTH_K; i++) {
        if (hits[i].slot == sample->slot || hits[i].distance == own)
            continue;
        sample->truth[sample->n_truth] = hits[i].slot;
        sample->distances[sample->n_truth++] = hits[i].distance;
    }
}

static int find_truth(struct measuring *m, vecdb_error *err)
{
    struct vdb_search search = m->search;
    search.k = TRUTH_K;
    for (uint32_t first = 0; first < m->n; first += TRUTH_STEP) {
        struct vdb_answer answer;
        search.n_queries = m->n - first < TRUTH_STEP ? m->n - first : TRUTH_STEP;
        search.queries = m->queries + first * m->row_bytes;
        int status = vdb_flat_search(&search, m->how->blocks, &answer, err);
        if (status)
            return status;
        for (uint32_t i = 0; i < search.n_queries; i++) {
            struct sample *sample = &m->samples[first + i];
            sample->truth = m->truth + (size_t)(first + i) * TRUTH_K;
            sample->distances = m->distances + (size_t)(first + i) * TRUTH_K;
            keep_truth(sample, answer.hits + answer.first[i], answer.first[i + 1] - answer.first[i]);
        }
        vdb_answer_release(m->memory, &answer);
    }
    return VECDB_OK;
}

/* ------------------------------------------------------------------ the ladder */

/* The share of the k nearest that is among the hits; those that are as far as the k-th count too. */
static double recall_of(const struct sample *sample, uint32_t k, const struct vdb_hit *hits, uint32_t n_hits)
{
    double radius = sample->distances[k - 1];
    uint32_t found = 0;
    for (uint32_t i = 0; i < n_hits; i++)
        for (uint32_t j = 0; j < sample->n_truth && sample->distances[j] <= radius; j++)
            if (sample->truth[j] == hits[i].slot) {
                found++;
                break;
            }
    return (double)(found < k ? found : k) / k;
}

struct mean {
    double n, sum, squares;
};

static void mean_add(struct mean *mean, double value)
{
    mean->n++;
    mean->sum += value;
    mean->squares += value * value;
}

static double mean_of(const struct mean *mean)
{
    return mean->n > 0 ? mean->sum / mean->n : 1;
}

/* One sample more is thought of that missed half: a mean of ones is not certain. */
static double mean_error(const struct mean *mean)
{
    double n = mean->n + 1, average = (mean->sum + .5) / n;
    double variance = (mean->squares + .25) / n - average * average;
    return sqrt(variance > 0 ? variance / n : 0);
}

static int measure_point(struct measuring *m, struct vdb_calibration_band *band, uint32_t ef,
                         struct vdb_calibration_point *point, vecdb_error *err)
{
    struct mean near = {0}, far = {0};
    struct vdb_plan plan;
    vdb_plan_of_ef(band->k, ef, &plan);
    struct vdb_search search = m->search;
    search.k = band->k;
    search.queries = m->queries;
    search.n_queries = m->n;
    for (uint32_t i = 0; i < m->n; i++) {
        const struct sample *sample = &m->samples[i];
        uint32_t n_hits;
        if (sample->n_truth < band->k)
            continue;
        plan.efforts[0].without = &sample->node;
        int status = i % 64 == 0 && search.stop ? search.stop(search.stop_context, err) : VECDB_OK;
        if (!status)
            status = vdb_graph_search(m->how->graph, &search, i, m->how->end_slot, &plan.efforts[0], m->how->rows,
                                      m->scratch, m->hits, &n_hits, NULL, err);
        if (status)
            return status;
        double recall = recall_of(sample, band->k, m->hits, n_hits);
        /* a plan sees what was found: what seems to be far is searched again */
        if (n_hits == band->k && m->hits[n_hits - 1].distance <= (double)band->far_distance)
            mean_add(&near, recall);
        if (sample->distances[band->k - 1] > (double)band->far_distance)
            mean_add(&far, recall);
    }
    const struct vdb_calibration_point *before = band->n_points ? &band->points[band->n_points - 1] : NULL;
    *point = (struct vdb_calibration_point){ef, (float)mean_of(&near), (float)mean_of(&far), (float)mean_error(&near)};
    if (before) {
        point->near_recall = fmaxf(point->near_recall, before->near_recall);
        point->far_recall = fmaxf(point->far_recall, before->far_recall);
        point->near_error = fminf(point->near_error, before->near_error);
    }
    return VECDB_OK;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Where far begins. False: too few samples have k neighbours. */
static bool find_limits(struct measuring *m, struct vdb_calibration_band *band, uint32_t k)
{
    double *sorted = m->distances + (size_t)m->n * TRUTH_K;
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->n; i++)
        if (m->samples[i].n_truth >= k)
            sorted[n++] = m->samples[i].distances[k - 1];
    if (n < LEAST_BAND)
        return false;
    qsort(sorted, n, sizeof *sorted, compare_doubles);
    band->far_distance = (float)sorted[(uint32_t)(n * FAR_SHARE)];
    band->beyond_distance = fmaxf((float)sorted[(uint32_t)(n * BEYOND_SHARE)], band->far_distance);
    return isfinite(band->far_distance) && isfinite(band->beyond_distance);
}

/* Two steps that found nothing more: what is still missed is missed by the codes, not by the walk. */
static bool no_longer_rises(const struct vdb_calibration_band *band)
{
    if (band->n_points < 3)
        return false;
    const struct vdb_calibration_point *last = &band->points[band->n_points - 1], *before = last - 2;
    return last->near_recall > .9f && last->near_recall - before->near_recall < (float)RISE &&
           last->far_recall - before->far_recall < (float)RISE;
}

static int measure_band(struct measuring *m, struct vdb_calibration_band *band, uint32_t k, uint64_t n_vectors,
                        vecdb_error *err)
{
    if (!find_limits(m, band, k))
        return VECDB_OK;
    band->k = k;
    double ef = k == 1 ? 2 : k;
    for (; band->n_points < VDB_CALIBRATION_POINTS; ef = fmax(ef * LADDER, ceil(ef) + 1)) {
        struct vdb_calibration_point *point = &band->points[band->n_points];
        int status = measure_point(m, band, (uint32_t)ceil(ef), point, err);
        if (status)
            return status;
        band->n_points++;
        bool is_enough = point->near_recall >= (float)ENOUGH && point->far_recall >= (float)ENOUGH;
        if (is_enough || no_longer_rises(band) || ef > MOST_STEPS * k + 1000.0 || ef > (double)n_vectors / 2)
            break;
    }
    return VECDB_OK;
}

/* ------------------------------------------------------------------ all of it */

static int measure_reserve(struct measuring *m, uint32_t n, vecdb_error *err)
{
    size_t n_truth = (size_t)n * TRUTH_K;
    m->samples = vdb_alloc_array(m->memory, n, sizeof *m->samples);
    m->queries = vdb_alloc_aligned(m->memory, n * m->row_bytes);
    m->truth = vdb_alloc_array(m->memory, n_truth, sizeof *m->truth);
    m->distances = vdb_alloc_array(m->memory, n_truth + n, sizeof *m->distances); /* the rest: find_limits */
    m->scratch = vdb_graph_scratch_new(m->memory);
    if (!m->samples || !m->queries || !m->truth || !m->distances || !m->scratch)
        return vdb_fail_memory(err, n * (sizeof *m->samples + m->row_bytes) +
                                        n_truth * (sizeof *m->truth + sizeof *m->distances));
    return VECDB_OK;
}

int vdb_calibrate(const struct vdb_calibrate *how, struct vdb_calibration *curve, vecdb_error *err)
{
    struct measuring m = {.how = how, .memory = how->search->memory, .search = *how->search};
    struct vdb_graph_info info;
    vdb_graph_describe(how->graph, &info);
    struct vdb_calibration measured = {.n_vectors = count_live(how, &info)};
    m.row_bytes = vdb_vector_bytes(m.search.type == VECDB_BIT ? VECDB_BIT : VECDB_F32, m.search.dimension);
    double work = how->max_work > 0 ? how->max_work : VDB_CALIBRATION_WORK;
    double n = work / ((double)m.search.dimension * (double)(measured.n_vectors + 1));
    double most = how->n_samples ? how->n_samples : VDB_CALIBRATION_SAMPLES;
    n = fmin(fmax(n, VDB_CALIBRATION_LEAST), fmin(most, info.n_nodes));
    int status = VECDB_OK;
    if (n < LEAST_BAND)
        goto done;
    if ((status = measure_reserve(&m, (uint32_t)n, err)))
        goto done;
    choose_nodes(&m, info.n_nodes, (uint32_t)n);
    if ((status = read_queries(&m, err)) || (status = find_truth(&m, err)))
        goto done;
    measured.n_samples = m.n;
    for (size_t i = 0; i < VDB_CALIBRATION_BANDS && !status; i++)
        status = measure_band(&m, &measured.bands[i], band_k[i], measured.n_vectors, err);
done:
    vdb_graph_scratch_free(m.scratch);
    vdb_free(m.memory, m.distances);
    vdb_free(m.memory, m.truth);
    vdb_free_aligned(m.memory, m.queries);
    vdb_free(m.memory, m.samples);
    if (!status)
        *curve = measured;
    return status;
}
