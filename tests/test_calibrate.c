/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/test_calibrate.c - the recall that is asked for is the recall that comes
 *
 * Clustered random vectors, a graph of them, and queries that are not stored: a curve measured on the stored vectors
 * alone leads to plans whose recall, against exact search, is what was asked for less a margin, for every k, metric and
 * with half of the vectors deleted; for queries farther away than any stored vector too. Plans ascend with recall and
 * k, with and without a curve. The same seed gives the same curve. Bytes of any kind are refused or give a curve
 * that plans with.
 */
#include <math.h>
#include <stdlib.h>

#define VDB_MEMORY_IMPLEMENTATION
#include "base/numbers.h"
#include "base/random.h"
#include "base/slots.h"
#include "harness.h"
#include "index/calibrate.h"

#define DIMENSION 24u
#define N_CLUSTERS 60u
#define MOST_QUERIES 300u

/* A field in memory. */
struct world {
    struct vdb_memory memory;
    struct vdb_pool *pool;
    struct vdb_random random;
    int metric, type;
    uint32_t n;
    size_t row_bytes;
    unsigned char *rows;
    float centres[N_CLUSTERS][DIMENSION];
    struct vdb_run run;
    struct vdb_slots *dead;
    struct vdb_graph *graph;
    struct vdb_search search;
    struct vdb_blocks blocks;
    struct vdb_rows by_slot;
};

static double normal(struct vdb_random *random)
{
    double u = vdb_random_unit(random) + 1e-12, v = vdb_random_unit(random);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

/* A vector of a random cluster, `spread` wide. */
static void draw(struct world *world, double spread, void *out)
{
    const float *centre = world->centres[vdb_random_below(&world->random, N_CLUSTERS)];
    float values[DIMENSION];
    for (uint32_t j = 0; j < DIMENSION; j++)
        values[j] = (float)((double)centre[j] + spread * normal(&world->random));
    if (world->type != VECDB_BIT) {
        memcpy(out, values, sizeof values);
        return;
    }
    unsigned char *bits = out;
    for (size_t i = 0; i < world->row_bytes; i++)
        bits[i] = (unsigned char)(values[i % DIMENSION] > 0 ? vdb_random_next(&world->random) & 255 : 240);
}

static int pin(void *context, size_t i, struct vdb_block *block, vecdb_error *err)
{
    (void)i;
    (void)err;
    struct world *world = context;
    *block = (struct vdb_block){.rows = world->rows, .stride = world->row_bytes, .n_rows = world->n,
                                .type = world->type, .max_norm = world->type == VECDB_BIT ? 0 : 1000,
                                .n_runs = 1, .runs = &world->run};
    return VECDB_OK;
}

static void unpin(void *context, struct vdb_block *block)
{
    (void)context;
    (void)block;
}

static int find(void *context, const uint32_t *slots, size_t n, struct vdb_row *rows, vecdb_error *err)
{
    (void)err;
    const struct world *world = context;
    for (size_t i = 0; i < n; i++)
        rows[i] = (struct vdb_row){.values = world->rows + slots[i] * world->row_bytes, .type = world->type};
    return VECDB_OK;
}

static void put(void *context, struct vdb_row *rows, size_t n)
{
    (void)context;
    (void)rows;
    (void)n;
}

static void world_open(struct world *world, int metric, uint32_t n)
{
    vecdb_error err = {0};
    memset(world, 0, sizeof *world);
    vdb_memory_init(&world->memory, NULL);
    CHECK_OK(err, vdb_pool_new(&world->memory, 2, &world->pool, &err));
    world->random.state = test_seed();
    world->metric = metric;
    world->type = metric == VECDB_HAMMING ? VECDB_BIT : VECDB_F32;
    uint32_t dimension = world->type == VECDB_BIT ? 128 : DIMENSION;
    world->n = n;
    world->row_bytes = vdb_vector_bytes(world->type, dimension);
    for (uint32_t i = 0; i < N_CLUSTERS; i++)
        for (uint32_t j = 0; j < DIMENSION; j++)
            world->centres[i][j] = (float)(2 * normal(&world->random));
    world->rows = malloc(n * world->row_bytes);
    for (uint32_t i = 0; i < n; i++)
        draw(world, 1, world->rows + i * world->row_bytes);
    world->search = (struct vdb_search){.kernels = vdb_kernels_choose(NULL), .memory = &world->memory,
                                        .pool = world->pool, .n_threads = 2, .metric = metric, .type = world->type,
                                        .dimension = dimension};
    world->blocks = (struct vdb_blocks){world, 1, pin, unpin};
    world->by_slot = (struct vdb_rows){world, find, put};
}

static void world_build(struct world *world)
{
    vecdb_error err = {0};
    struct vdb_graph_options options = {&world->memory, world->search.kernels, world->metric, world->type,
                                        world->search.dimension, 7, NULL};
    struct vdb_block block;
    struct vdb_graph_insert how = {.n_threads = 1};
    pin(world, 0, &block, NULL);
    CHECK_OK(err, vdb_graph_new(&options, world->n, &block, &world->graph, &err));
    CHECK_OK(err, vdb_graph_insert(world->graph, &block, 0, world->n, &how, &err));
    CHECK_OK(err, vdb_graph_seal(world->graph, &how, &err));
}

static void world_close(struct world *world)
{
    vdb_graph_release(world->graph);
    vdb_slots_free(world->dead);
    free(world->rows);
    vdb_pool_free(world->pool);
    CHECK_SIZE(vdb_memory_used(&world->memory), 0);
}

static void delete_half(struct world *world)
{
    world->dead = vdb_slots_new();
    for (uint32_t i = 0; i < world->n; i++)
        if (vdb_random_next(&world->random) >> 63)
            vdb_slots_add(world->dead, i);
    world->search.dead = world->dead;
}

static void calibrate(struct world *world, struct vdb_calibration *curve)
{
    vecdb_error err = {0};
    struct vdb_calibrate how = {.graph = world->graph, .search = &world->search, .blocks = &world->blocks,
                                .rows = &world->by_slot, .end_slot = world->n, .seed = 3, .n_samples = 800};
    CHECK_OK(err, vdb_calibrate(&how, curve, &err));
}

/* recall@k of a plan for queries that are drawn `spread` wide. */
static double recall_of(struct world *world, uint32_t k, const struct vdb_plan *plan, double spread)
{
    vecdb_error err = {0};
    struct vdb_search search = world->search;
    unsigned char *queries = malloc(MOST_QUERIES * world->row_bytes);
    struct vdb_graph_scratch *scratch = vdb_graph_scratch_new(&world->memory);
    struct vdb_hit *hits = malloc(k * sizeof *hits);
    struct vdb_answer answer;
    double right = 0;
    for (uint32_t q = 0; q < MOST_QUERIES; q++)
        draw(world, spread, queries + q * world->row_bytes);
    search.queries = queries;
    search.n_queries = MOST_QUERIES;
    search.k = k;
    CHECK_OK(err, vdb_flat_search(&search, &world->blocks, &answer, &err));
    for (uint32_t q = 0; q < MOST_QUERIES; q++) {
        uint32_t n_hits, ef = 0, n = 0;
        CHECK_OK(err, vdb_planned_search(world->graph, &search, q, world->n, plan, &world->by_slot, scratch, hits,
                                         &n_hits, NULL, &ef, &err));
        CHECK_LE(plan->efforts[0].ef, ef);
        double radius = answer.hits[answer.first[q] + k - 1].distance;
        for (uint32_t i = 0; i < n_hits; i++)
            n += hits[i].distance <= radius + 1e-4 * fabs(radius);
        right += (double)(n < k ? n : k) / k;
    }
    vdb_answer_release(&world->memory, &answer);
    vdb_graph_scratch_free(scratch);
    free(hits);
    free(queries);
    return right / MOST_QUERIES;
}

/* Four standard errors of the difference of two means, that over MOST_QUERIES and that over the sample of the curve, of
 * shares that spread as those of k = 1 do, and .01. */
static double margin(const struct vdb_calibration *curve, double recall)
{
    return .01 + 4 * sqrt(recall * (1 - recall) * (1.0 / MOST_QUERIES + 1.0 / curve->n_samples));
}

static void check_recall(struct world *world, double spread)
{
    struct vdb_calibration curve;
    calibrate(world, &curve);
    for (uint32_t k = 1; k <= 100; k *= 10)
        for (int t = 0; t < 3; t++) {
            static const double targets[] = {.90, .95, .99};
            double asked = targets[t];
            struct vdb_plan plan;
            vdb_calibration_plan(&curve, k, asked, world->n, &plan);
            CHECK_LE(asked - margin(&curve, asked), recall_of(world, k, &plan, spread));
            CHECK_LE(asked - .05, vdb_calibration_expected(&curve, k, asked));
        }
}

TEST(queries_like_the_stored_vectors_find_what_is_asked_for)
{
    static const int metrics[] = {VECDB_L2, VECDB_COSINE, VECDB_IP, VECDB_HAMMING};
    for (int i = 0; i < 4; i++) {
        struct world world;
        world_open(&world, metrics[i], 4000);
        world_build(&world);
        check_recall(&world, 1);
        world_close(&world);
    }
}

TEST(queries_that_are_farther_away_find_what_is_asked_for)
{
    struct world world;
    world_open(&world, VECDB_L2, 6000);
    world_build(&world);
    check_recall(&world, 1.6);
    world_close(&world);
}

TEST(with_half_of_the_vectors_deleted_the_same_curve_still_holds)
{
    struct world world;
    struct vdb_calibration curve;
    struct vdb_plan plan;
    world_open(&world, VECDB_L2, 6000);
    world_build(&world);
    calibrate(&world, &curve);
    delete_half(&world);
    for (uint32_t k = 1; k <= 100; k *= 10) {
        vdb_calibration_plan(&curve, k, .95, world.n - vdb_slots_count(world.dead), &plan);
        CHECK_LE(.95 - margin(&curve, .95), recall_of(&world, k, &plan, 1));
    }
    check_recall(&world, 1); /* and one that is measured then */
    world_close(&world);
}

TEST(exact_copies_of_vectors_do_not_spoil_the_measurement)
{
    struct world world;
    world_open(&world, VECDB_L2, 5000);
    for (uint32_t i = 0; i < world.n; i += 3) /* a third are copies, some of them of copies */
        memcpy(world.rows + i * world.row_bytes, world.rows + vdb_random_below(&world.random, 200) * world.row_bytes,
               world.row_bytes);
    world_build(&world);
    check_recall(&world, 1);
    world_close(&world);
}

static void check_plan(const struct vdb_plan *plan, uint32_t k)
{
    CHECK(plan->n_efforts >= 1 && plan->n_efforts <= VDB_PLAN_EFFORTS);
    for (uint32_t i = 0; i < plan->n_efforts; i++) {
        CHECK(plan->efforts[i].ef >= k && plan->efforts[i].n_rerank >= k);
        CHECK(plan->efforts[i].n_rerank <= plan->efforts[i].ef);
        CHECK(!plan->efforts[i].without);
        CHECK(i == 0 || plan->efforts[i].ef >= plan->efforts[i - 1].ef);
    }
}

static void check_monotone(const struct vdb_calibration *curve)
{
    static const uint32_t ks[] = {1, 2, 3, 5, 9, 10, 11, 30, 99, 100, 101, 250, 1000, 20000};
    static const double recalls[] = {.01, .5, .8, .9, .93, .95, .97, .99, .995, .999, .99999};
    for (size_t i = 0; i < sizeof ks / sizeof *ks; i++)
        for (size_t j = 0; j < sizeof recalls / sizeof *recalls; j++) {
            struct vdb_plan plan, more;
            vdb_calibration_plan(curve, ks[i], recalls[j], 10000, &plan);
            check_plan(&plan, ks[i]);
            if (j + 1 < sizeof recalls / sizeof *recalls) {
                vdb_calibration_plan(curve, ks[i], recalls[j + 1], 10000, &more);
                for (uint32_t e = 0; e < plan.n_efforts; e++)
                    CHECK_LE(plan.efforts[e].ef, more.efforts[e].ef);
            }
            if (i + 1 < sizeof ks / sizeof *ks) {
                vdb_calibration_plan(curve, ks[i + 1], recalls[j], 10000, &more);
                for (uint32_t e = 0; e < plan.n_efforts; e++)
                    CHECK_LE(plan.efforts[e].ef, more.efforts[e].ef);
            }
        }
}

TEST(a_greater_recall_or_k_never_gets_less_effort)
{
    struct world world;
    struct vdb_calibration curve;
    check_monotone(NULL);
    world_open(&world, VECDB_COSINE, 3000);
    world_build(&world);
    calibrate(&world, &curve);
    CHECK_INT(curve.bands[0].k, 1);
    CHECK_INT(curve.bands[1].k, 10);
    CHECK_INT(curve.bands[2].k, 100);
    check_monotone(&curve);
    curve.bands[2].k = 0;
    check_monotone(&curve);
    curve.bands[1].k = 0;
    check_monotone(&curve);
    world_close(&world);
}

TEST(the_same_seed_gives_the_same_curve)
{
    struct world world;
    struct vdb_calibration a, b;
    unsigned char first[VDB_CALIBRATION_BYTES], second[VDB_CALIBRATION_BYTES];
    world_open(&world, VECDB_L2, 3000);
    world_build(&world);
    calibrate(&world, &a);
    world.search.n_threads = 1;
    calibrate(&world, &b);
    size_t n = vdb_calibration_write(&a, first);
    CHECK_SIZE(vdb_calibration_write(&b, second), n);
    CHECK(!memcmp(first, second, n));
    world_close(&world);
}

static int stop_after(void *context, vecdb_error *err)
{
    int *left = context;
    if (--*left > 0)
        return VECDB_OK;
    if (err)
        err->status = VECDB_INTERRUPTED;
    return VECDB_INTERRUPTED;
}

TEST(a_calibration_can_be_stopped_at_any_time)
{
    struct world world;
    struct vdb_calibration curve = {.n_samples = 77};
    vecdb_error err = {0};
    world_open(&world, VECDB_L2, 2000);
    world_build(&world);
    struct vdb_calibrate how = {.graph = world.graph, .search = &world.search, .blocks = &world.blocks,
                                .rows = &world.by_slot, .end_slot = world.n, .seed = 3, .n_samples = 200};
    world.search.stop = stop_after;
    for (int n = 1; n < 40; n += 4) {
        int left = n;
        world.search.stop_context = &left;
        CHECK_INT(vdb_calibrate(&how, &curve, &err), VECDB_INTERRUPTED);
        CHECK_INT(curve.n_samples, 77);
    }
    world_close(&world);
}

TEST(too_few_vectors_are_not_measured_and_a_formula_serves)
{
    struct world world;
    struct vdb_calibration curve;
    struct vdb_plan plan;
    world_open(&world, VECDB_L2, 30);
    world_build(&world);
    calibrate(&world, &curve);
    CHECK_INT(curve.bands[0].k, 0);
    CHECK_DOUBLE(vdb_calibration_expected(&curve, 10, .95), 0);
    vdb_calibration_plan(&curve, 10, .95, 30, &plan);
    CHECK_INT(plan.n_efforts, 1);
    CHECK_LE(.99, recall_of(&world, 10, &plan, 1));
    world_close(&world);
    world_open(&world, VECDB_L2, 90); /* one neighbour and ten, not a hundred */
    world_build(&world);
    calibrate(&world, &curve);
    CHECK_INT(curve.bands[1].k, 10);
    CHECK_INT(curve.bands[2].k, 0);
    check_monotone(&curve);
    world_close(&world);
}

TEST(a_curve_is_stale_when_a_fifth_has_changed)
{
    struct vdb_calibration curve = {.n_vectors = 1000};
    CHECK(!vdb_calibration_stale(&curve, 100, 100));
    CHECK(vdb_calibration_stale(&curve, 101, 100));
    CHECK(vdb_calibration_stale(&curve, 0, 201));
}

/* ------------------------------------------------------------------ as bytes */

static size_t some_bytes(unsigned char out[VDB_CALIBRATION_BYTES])
{
    struct vdb_calibration curve = {.n_samples = 100, .n_vectors = UINT64_C(5) << 33};
    for (uint32_t i = 0; i < VDB_CALIBRATION_BANDS; i++) {
        struct vdb_calibration_band *band = &curve.bands[i];
        *band = (struct vdb_calibration_band){.k = (uint32_t[]){1, 10, 100}[i], .n_points = VDB_CALIBRATION_POINTS - i,
                                              .far_distance = -1.5f, .beyond_distance = 2};
        for (uint32_t j = 0; j < band->n_points; j++)
            band->points[j] = (struct vdb_calibration_point){band->k + j, .5f + .01f * (float)j, .3f + .02f * (float)j,
                                                             .01f};
    }
    return vdb_calibration_write(&curve, out);
}

TEST(what_was_written_reads_back_the_same)
{
    unsigned char bytes[VDB_CALIBRATION_BYTES], again[VDB_CALIBRATION_BYTES];
    struct vdb_calibration curve, none = {0};
    vecdb_error err = {0};
    size_t n = some_bytes(bytes);
    CHECK_OK(err, vdb_calibration_read(bytes, n, &curve, &err));
    CHECK_SIZE(vdb_calibration_write(&curve, again), n);
    CHECK(!memcmp(bytes, again, n));
    CHECK(curve.n_vectors == UINT64_C(5) << 33 && curve.bands[2].points[3].ef == 103);
    n = vdb_calibration_write(&none, bytes);
    CHECK_OK(err, vdb_calibration_read(bytes, n, &curve, &err));
    CHECK_INT(curve.bands[0].k, 0);
}

TEST(bytes_that_are_cut_or_followed_by_others_are_refused)
{
    unsigned char bytes[VDB_CALIBRATION_BYTES + 1];
    struct vdb_calibration curve = {.n_samples = 77};
    vecdb_error err;
    size_t n = some_bytes(bytes);
    for (size_t i = 0; i < n; i++) {
        unsigned char *exact = malloc(i + 1); /* a read too far is seen */
        memcpy(exact, bytes, i);
        CHECK_FAILS(err, VECDB_CORRUPT, "calibration", vdb_calibration_read(exact, i, &curve, &err));
        free(exact);
    }
    bytes[n] = 0;
    CHECK_FAILS(err, VECDB_CORRUPT, "calibration", vdb_calibration_read(bytes, n + 1, &curve, &err));
    CHECK_INT(curve.n_samples, 77);
}

TEST(bytes_of_any_kind_are_refused_or_give_plans_within_bounds)
{
    unsigned char bytes[VDB_CALIBRATION_BYTES];
    struct vdb_random random = {test_seed()};
    static const uint32_t words[] = {0,          1,          0x7f800000, 0xff800000, 0x7fc00000,
                                     0xffffffff, 0x3f800000, 0x80000000, 1000};
    size_t n_read = 0;
    for (int round = 0; round < 20000; round++) {
        size_t n = some_bytes(bytes), changes = 1 + vdb_random_below(&random, 3);
        for (size_t i = 0; i < changes; i++) {
            size_t at = vdb_random_below(&random, n / 4) * 4;
            if (vdb_random_next(&random) & 1)
                memcpy(bytes + at, &words[vdb_random_below(&random, sizeof words / sizeof *words)], 4);
            else
                bytes[at + vdb_random_below(&random, 4)] ^= (unsigned char)(1 << vdb_random_below(&random, 8));
        }
        struct vdb_calibration curve;
        if (vdb_calibration_read(bytes, n, &curve, NULL))
            continue;
        n_read++;
        for (uint32_t k = 1; k < 100000; k = k * 7 + 1) {
            struct vdb_plan plan;
            vdb_calibration_plan(&curve, k, .01 + .98 * vdb_random_unit(&random), vdb_random_next(&random), &plan);
            check_plan(&plan, k);
            double expected = vdb_calibration_expected(&curve, k, .9);
            CHECK(expected >= 0 && expected <= 1);
        }
    }
    CHECK(n_read > 0);
}
