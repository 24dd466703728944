/* SPDX-License-Identifier: Apache-2.0
 *
 * index/calibrate_plan.c - from a curve to the efforts of a search; a curve as bytes
 *
 * The essay is in calibrate.c.
 *
 *     u32 version   u32 n_samples   u64 n_vectors   u32 n_bands
 *     each band:    u32 k   u32 n_points   f32 far_distance   f32 beyond_distance
 *       each point: u32 ef   f32 near_recall   f32 far_recall   f32 near_error
 *
 * Little-endian, nothing behind. Bands ascend by k; points ascend by ef, and their recalls do not fall.
 */
#include <math.h>

#include "base/bytes.h"
#include "base/error.h"
#include "calibrate.h"

#define VERSION 1u
#define MOST_EF (1u << 28)
#define CONFIDENCE .5     /* standard errors that a mean is lowered by; see calibrate.c */
#define FAR_SLACK .5      /* far queries may miss so much more than the share that may be missed */
#define BEYOND 2          /* ef of queries that are farther than the sample, to that of far ones */
#define WORTH 1.35        /* a second search has at least so many times the ef of the first */
#define LAST_STEPS 2      /* ef above the last point: at most so many times the last */
#define STALE_SHARE .2
#define LEAST_RERANK 8u /* see rerank_of */

/* ------------------------------------------------------------------ efforts */

/* How many exact distances. Codes of 4 bits put most of the true k nearest among their best 1.5 k + 8; where a wide
 * walk is needed more candidates are alike, and the eighth part of it is looked at beyond. */
static uint32_t rerank_of(uint32_t k, uint32_t ef)
{
    uint64_t n = (uint64_t)k + k / 2 + LEAST_RERANK + ef / 8;
    return n < ef ? (uint32_t)n : ef < k ? k : ef;
}

static struct vdb_graph_effort effort_of(uint32_t k, double ef)
{
    ef = ceil(ef);
    uint32_t whole = ef < k ? k : ef > MOST_EF ? MOST_EF : (uint32_t)ef;
    return (struct vdb_graph_effort){.ef = whole, .n_rerank = rerank_of(k, whole)};
}

void vdb_plan_of_ef(uint32_t k, uint32_t ef, struct vdb_plan *plan)
{
    *plan = (struct vdb_plan){.n_efforts = 1, .efforts = {effort_of(k, ef)}};
}

/* Without a measurement: .95 took ef = 4 + 5 sqrt(10 k) or less of the sets of bench_recall, .99 three times that; the
 * share that is missed falls about as 1 / ef. */
static double guess(uint32_t k, double recall, uint64_t n_vectors)
{
    double missed = fmax(1 - recall, 1e-4), size = log10((double)n_vectors + 10) / 5;
    double ef = (4 + 5 * sqrt(10.0 * k)) * pow(.05 / missed, .75) * fmax(size, .5);
    return fmax(ef, 1.2 * k + 12);
}

/* ------------------------------------------------------------------ a curve */

static double counted(const struct vdb_calibration_point *point, bool is_far)
{
    return is_far ? (double)point->far_recall : (double)point->near_recall - CONFIDENCE * (double)point->near_error;
}

/* log ef at which a band reaches `recall`, its points interpolated along the log of what is missed, which is nearly a
 * straight line; beyond the last one by the slope of the last two. */
static double log_ef_of(const struct vdb_calibration_band *band, double recall, bool is_far)
{
    const struct vdb_calibration_point *points = band->points;
    uint32_t i = 0, n = band->n_points;
    if (is_far)
        recall -= FAR_SLACK * (1 - recall);
    while (i < n && counted(&points[i], is_far) < recall)
        i++;
    if (i == 0)
        return log(points[0].ef);
    if (i == n && n == 1)
        return log(points[0].ef) + log(LAST_STEPS);
    uint32_t high = i < n ? i : n - 1;
    double a = log(fmax(1 - counted(&points[high - 1], is_far), 1e-5));
    double b = log(fmax(1 - counted(&points[high], is_far), 1e-5));
    double wanted = log(fmax(1 - recall, 1e-5));
    double step = log(points[high].ef) - log(points[high - 1].ef);
    double share = b < a ? (wanted - a) / (b - a) : 1;
    if (i == n) {
        double most = 1 + log(LAST_STEPS) / step;
        share = b < a && share < most ? share : most;
    } else {
        share = fmin(fmax(share, 0), 1);
    }
    return log(points[high - 1].ef) + share * step;
}

/* What a band says, as logs of ef; efforts ascend. */
struct choice {
    double near, far;
    double far_distance, beyond_distance;
};

/* Who finds more needs no less: lower bands count too. */
static struct choice choose(const struct vdb_calibration *curve, uint32_t n_band, double recall)
{
    const struct vdb_calibration_band *bands = curve->bands;
    struct choice choice = {0, 0, (double)bands[n_band].far_distance, (double)bands[n_band].beyond_distance};
    for (uint32_t i = 0; i <= n_band; i++) {
        choice.near = fmax(choice.near, log_ef_of(&bands[i], recall, false));
        choice.far = fmax(fmax(choice.far, choice.near), log_ef_of(&bands[i], recall, true));
    }
    return choice;
}

static double mix(double a, double b, double share)
{
    return a + (b - a) * share;
}

/* Bands that were measured come first: a k without neighbours has none above it. */
static uint32_t count_bands(const struct vdb_calibration *curve)
{
    uint32_t n = 0;
    while (curve && n < VDB_CALIBRATION_BANDS && curve->bands[n].k && curve->bands[n].n_points)
        n++;
    return n;
}

static struct choice choose_for(const struct vdb_calibration *curve, uint32_t n_bands, uint32_t k, double recall)
{
    uint32_t high = 0;
    while (high < n_bands && curve->bands[high].k < k)
        high++;
    if (high < n_bands && (high == 0 || curve->bands[high].k == k))
        return choose(curve, high, recall);
    uint32_t low = high < n_bands ? high - 1 : n_bands > 1 ? n_bands - 2 : 0;
    struct choice a = choose(curve, low, recall);
    double log_k = log((double)k / curve->bands[low].k);
    if (high == n_bands && n_bands == 1) {
        a.near += log_k;
        a.far += log_k;
        return a;
    }
    const struct vdb_calibration_band *next = &curve->bands[low + 1];
    struct choice b = choose(curve, low + 1, recall);
    double share = log_k / log((double)next->k / curve->bands[low].k);
    struct choice c = {.far_distance = mix(a.far_distance, b.far_distance, share),
                       .beyond_distance = mix(a.beyond_distance, b.beyond_distance, share)};
    if (high < n_bands) {
        c.near = mix(a.near, b.near, share);
        c.far = mix(a.far, b.far, share);
    } else { /* as much above k as at the last band */
        c.near = b.near + log((double)k / next->k);
        c.far = b.far + log((double)k / next->k);
    }
    return c;
}

void vdb_calibration_plan(const struct vdb_calibration *curve, uint32_t k, double recall, uint64_t n_vectors,
                          struct vdb_plan *plan)
{
    uint32_t n_bands = count_bands(curve);
    k = k ? k : 1;
    if (n_bands == 0) {
        *plan = (struct vdb_plan){.n_efforts = 1, .efforts = {effort_of(k, guess(k, recall, n_vectors))}};
        return;
    }
    struct choice choice = choose_for(curve, n_bands, k, recall);
    /* more vectors than were measured: a walk passes more of them (with the square root at most, until it is stale) */
    double growth = n_vectors > curve->n_vectors && curve->n_vectors
                        ? sqrt((double)n_vectors / (double)curve->n_vectors) : 1;
    *plan = (struct vdb_plan){.n_efforts = VDB_PLAN_EFFORTS,
                              .efforts = {effort_of(k, exp(choice.near) * growth),
                                          effort_of(k, exp(choice.far) * growth),
                                          effort_of(k, exp(choice.far) * growth * BEYOND)},
                              .limits = {(float)choice.far_distance, (float)choice.beyond_distance}};
}

double vdb_calibration_expected(const struct vdb_calibration *curve, uint32_t k, double recall)
{
    uint32_t n_bands = count_bands(curve), i = 0;
    if (n_bands == 0)
        return 0;
    while (i + 1 < n_bands && curve->bands[i].k < k)
        i++;
    const struct vdb_calibration_band *band = &curve->bands[i];
    double ef = exp(choose(curve, i, recall).near), found = 0;
    for (uint32_t j = 0; j < band->n_points; j++)
        if (band->points[j].ef <= ef * 1.0001)
            found = (double)band->points[j].near_recall;
    return fmax(found, fmin(recall, (double)band->points[band->n_points - 1].near_recall));
}

bool vdb_calibration_stale(const struct vdb_calibration *curve, uint64_t n_inserted, uint64_t n_deleted)
{
    return (double)n_inserted + (double)n_deleted > STALE_SHARE * (double)curve->n_vectors;
}

/* ------------------------------------------------------------------ searching */

int vdb_planned_search(const struct vdb_graph *graph, const struct vdb_search *search, size_t q, uint32_t end_slot,
                       const struct vdb_plan *plan, const struct vdb_rows *rows, struct vdb_graph_scratch *scratch,
                       struct vdb_hit *hits, uint32_t *n_hits, struct vdb_graph_counts *counts, uint32_t *ef,
                       vecdb_error *err)
{
    uint32_t i = 0;
    for (;;) {
        int status = vdb_graph_search(graph, search, q, end_slot, &plan->efforts[i], rows, scratch, hits, n_hits,
                                      counts, err);
        if (status)
            return status;
        double distance = *n_hits == search->k ? hits[*n_hits - 1].distance : INFINITY;
        uint32_t next = i;
        while (next + 1 < plan->n_efforts && !(distance <= (double)plan->limits[next]))
            next++;
        uint32_t used = plan->efforts[i].ef;
        if (ef)
            *ef = used;
        if (next == i || plan->efforts[next].ef < WORTH * used)
            return VECDB_OK;
        i = next;
    }
}

/* ------------------------------------------------------------------ as bytes */

struct writer {
    uint8_t *at;
};

static void put_u32(struct writer *writer, uint32_t value)
{
    vdb_store_u32(writer->at, value);
    writer->at += 4;
}

static void put_float(struct writer *writer, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_u32(writer, bits);
}

size_t vdb_calibration_write(const struct vdb_calibration *curve, void *out)
{
    struct writer writer = {out};
    uint32_t n_bands = count_bands(curve);
    put_u32(&writer, VERSION);
    put_u32(&writer, curve->n_samples);
    vdb_store_u64(writer.at, curve->n_vectors);
    writer.at += 8;
    put_u32(&writer, n_bands);
    for (uint32_t i = 0; i < n_bands; i++) {
        const struct vdb_calibration_band *band = &curve->bands[i];
        put_u32(&writer, band->k);
        put_u32(&writer, band->n_points);
        put_float(&writer, band->far_distance);
        put_float(&writer, band->beyond_distance);
        for (uint32_t j = 0; j < band->n_points; j++) {
            put_u32(&writer, band->points[j].ef);
            put_float(&writer, band->points[j].near_recall);
            put_float(&writer, band->points[j].far_recall);
            put_float(&writer, band->points[j].near_error);
        }
    }
    return (size_t)(writer.at - (uint8_t *)out);
}

_Static_assert(20 + VDB_CALIBRATION_BANDS * (16 + VDB_CALIBRATION_POINTS * 16) <= VDB_CALIBRATION_BYTES,
               "a curve fits VDB_CALIBRATION_BYTES");

static float read_float(struct vdb_reader *reader)
{
    uint32_t bits = vdb_read_u32(reader);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static bool is_share(float value)
{
    return value >= 0 && value <= 1;
}

static bool read_band(struct vdb_reader *reader, uint32_t least_k, struct vdb_calibration_band *band)
{
    band->k = vdb_read_u32(reader);
    band->n_points = vdb_read_u32(reader);
    band->far_distance = read_float(reader);
    band->beyond_distance = read_float(reader);
    if (reader->failed || band->k < least_k || band->k > VECDB_MAX_K || band->n_points < 1 ||
        band->n_points > VDB_CALIBRATION_POINTS || !isfinite(band->far_distance) ||
        !isfinite(band->beyond_distance) || band->beyond_distance < band->far_distance)
        return false;
    struct vdb_calibration_point before = {.ef = 0};
    for (uint32_t i = 0; i < band->n_points; i++) {
        struct vdb_calibration_point *point = &band->points[i];
        point->ef = vdb_read_u32(reader);
        point->near_recall = read_float(reader);
        point->far_recall = read_float(reader);
        point->near_error = read_float(reader);
        if (reader->failed || point->ef <= before.ef || point->ef > MOST_EF || !is_share(point->near_recall) ||
            !is_share(point->far_recall) || !is_share(point->near_error) ||
            point->near_recall < before.near_recall || point->far_recall < before.far_recall)
            return false;
        before = *point;
    }
    return true;
}

int vdb_calibration_read(const void *bytes, size_t n_bytes, struct vdb_calibration *curve, vecdb_error *err)
{
    struct vdb_reader reader = vdb_reader_init(bytes, n_bytes);
    struct vdb_calibration read = {0};
    uint32_t version = vdb_read_u32(&reader);
    read.n_samples = vdb_read_u32(&reader);
    read.n_vectors = vdb_read_u64(&reader);
    uint32_t n_bands = vdb_read_u32(&reader);
    bool is_valid = !reader.failed && version == VERSION && n_bands <= VDB_CALIBRATION_BANDS;
    for (uint32_t i = 0; is_valid && i < n_bands; i++)
        is_valid = read_band(&reader, i ? read.bands[i - 1].k + 1 : 1, &read.bands[i]);
    if (!is_valid || vdb_reader_left(&reader) != 0)
        return vdb_fail(err, VECDB_CORRUPT, "the calibration of an index (%zu bytes) is not one that is written here",
                        n_bytes);
    *curve = read;
    return VECDB_OK;
}
