/* SPDX-License-Identifier: Apache-2.0
 *
 * Property: a graph that was given some rows finds nearly all of what the exact search finds among them, for every
 * metric, element type and dimension; it never answers with a slot that is dead or beyond the end that was asked
 * for, never twice with the same, and always with the row's true distance. This holds while it grows, after it was
 * copied, sealed, swept, built by several threads or in pieces; one thread builds the same graph on every machine. A
 * rotation keeps lengths and products, and codes are finite whatever the values are.
 */
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/numbers.h"
#include "base/random.h"
#include "base/slots.h"
#include "failing.h"
#include "harness.h"
#include "index/codes.h"
#include "index/graph.h"

/* ------------------------------------------------------------------ rows */

struct world {
    int metric, type;
    uint32_t dimension, n_rows, n_queries;
    size_t row_bytes;
    uint8_t *rows;       /* n_rows of `type` */
    uint32_t *slots;     /* ascending */
    uint32_t *row_of;    /* by slot; UINT32_MAX: none */
    uint32_t end;        /* above the last slot */
    void *queries;
    struct vdb_slots *dead;
    struct vdb_run *runs;
    struct vdb_block block; /* all rows */
    bool is_extreme;        /* values that floats cannot square */
    _Atomic long n_found;   /* and not put back */
};

static struct vdb_memory memory;
static const struct vdb_kernels *kernels;

static void *get(size_t n)
{
    void *block = vdb_alloc_zero(&memory, n ? n : 1);
    CHECK(block);
    return block;
}

static double gaussian(struct vdb_random *random)
{
    double sum = 0;
    for (int i = 0; i < 12; i++)
        sum += vdb_random_unit(random);
    return sum - 6;
}

static void put_value(int type, void *row, uint32_t i, double value)
{
    switch (type) {
    case VECDB_U8:
        ((uint8_t *)row)[i] = (uint8_t)fmin(fmax(128 + 30 * value, 0), 255);
        break;
    case VECDB_I8:
        ((int8_t *)row)[i] = (int8_t)fmin(fmax(30 * value, -128), 127);
        break;
    case VECDB_F16:
        ((uint16_t *)row)[i] = vdb_f16_of_float((float)value);
        break;
    case VECDB_BF16:
        ((uint16_t *)row)[i] = vdb_bf16_of_float((float)value);
        break;
    default:
        ((float *)row)[i] = (float)value;
        break;
    }
}

/* A point near one of 20 centres, which lie in 12 dimensions of the many: real data are like that. */
static void put_point(struct world *world, struct vdb_random *random, const double *basis, void *out, int type)
{
    uint32_t d = world->dimension, n_basis = 12;
    double weights[12];
    struct vdb_random centre = {vdb_random_below(random, 20) + 77};
    if (type == VECDB_BIT) {
        for (uint32_t i = 0; i < d; i++)
            if ((vdb_random_next(&centre) >> 60 < 6) ^ (vdb_random_below(random, 8) == 0))
                ((uint8_t *)out)[i / 8] |= (uint8_t)(1u << i % 8);
        return;
    }
    double scale = 0.5 + vdb_random_unit(random); /* so that lengths differ */
    for (uint32_t b = 0; b < n_basis; b++)
        weights[b] = scale * (gaussian(&centre) + 0.4 * gaussian(random));
    for (uint32_t i = 0; i < d; i++) {
        double value = 0.05 * gaussian(random);
        for (uint32_t b = 0; b < n_basis; b++)
            value += weights[b] * basis[b * d + i];
        put_value(type, out, i, value);
    }
}

static void world_free(struct world *world)
{
    vdb_free(&memory, world->rows);
    vdb_free(&memory, world->slots);
    vdb_free(&memory, world->row_of);
    vdb_free(&memory, world->queries);
    vdb_free(&memory, world->runs);
    vdb_slots_free(world->dead);
}

static void world_block(struct world *world)
{
    world->runs = get(world->n_rows * sizeof *world->runs);
    world->block = (struct vdb_block){.rows = world->rows,
                                      .stride = world->row_bytes,
                                      .n_rows = world->n_rows,
                                      .type = world->type,
                                      .max_norm = FLT_MAX,
                                      .runs = world->runs};
    for (uint32_t i = 0; i < world->n_rows; i++)
        if (i == 0 || world->slots[i] != world->slots[i - 1] + 1)
            world->runs[world->block.n_runs++] = (struct vdb_run){world->slots[i], i};
    for (uint32_t i = 0; i < world->end; i++)
        world->row_of[i] = UINT32_MAX;
    for (uint32_t i = 0; i < world->n_rows; i++)
        world->row_of[world->slots[i]] = i;
}

static void world_new(struct world *world, int metric, int type, uint32_t dimension, uint32_t n_rows, uint64_t seed)
{
    if (!kernels) {
        vdb_memory_init(&memory, NULL);
        kernels = vdb_kernels_choose(NULL);
    }
    struct vdb_random random = {seed};
    *world = (struct world){.metric = metric, .type = type, .dimension = dimension, .n_rows = n_rows, .n_queries = 40};
    world->row_bytes = vdb_vector_bytes(type, dimension);
    size_t query_bytes = vdb_vector_bytes(type == VECDB_BIT ? VECDB_BIT : VECDB_F32, dimension);
    double *basis = get(12 * dimension * sizeof *basis);
    for (uint32_t i = 0; i < 12 * dimension; i++)
        basis[i] = gaussian(&random) / sqrt(12);
    world->rows = get(n_rows * world->row_bytes);
    world->slots = get(n_rows * sizeof *world->slots);
    world->queries = get(world->n_queries * query_bytes);
    for (uint32_t i = 0; i < n_rows; i++) {
        put_point(world, &random, basis, world->rows + i * world->row_bytes, type);
        world->slots[i] = world->end;
        world->end += vdb_random_below(&random, 50) ? 1 : 5;
    }
    world->row_of = get(world->end * sizeof *world->row_of);
    for (uint32_t i = 0; i < world->n_queries; i++)
        put_point(world, &random, basis, (char *)world->queries + i * query_bytes,
                  type == VECDB_BIT ? VECDB_BIT : VECDB_F32);
    if (type == VECDB_U8) /* where the rows are */
        for (uint32_t i = 0; i < world->n_queries * dimension; i++)
            ((float *)world->queries)[i] = 128 + 30 * ((float *)world->queries)[i];
    vdb_free(&memory, basis);
    world_block(world);
}

static int find(void *context, const uint32_t *slots, size_t n, struct vdb_row *rows, vecdb_error *err)
{
    (void)err;
    struct world *world = context;
    atomic_fetch_add(&world->n_found, (long)n);
    for (size_t i = 0; i < n; i++) {
        CHECK(slots[i] < world->end && world->row_of[slots[i]] != UINT32_MAX);
        rows[i] = (struct vdb_row){.values = world->rows + world->row_of[slots[i]] * world->row_bytes,
                                   .type = world->type};
    }
    return VECDB_OK;
}

static void put(void *context, struct vdb_row *rows, size_t n)
{
    (void)rows;
    atomic_fetch_sub(&((struct world *)context)->n_found, (long)n);
}

static int pin(void *context, size_t i, struct vdb_block *block, vecdb_error *err)
{
    (void)i;
    (void)err;
    *block = ((struct world *)context)->block;
    return VECDB_OK;
}

static void unpin(void *context, struct vdb_block *block)
{
    (void)context;
    (void)block;
}

/* ------------------------------------------------------------------ asking */

static struct vdb_search search_of(const struct world *world, uint32_t k)
{
    return (struct vdb_search){.kernels = kernels,
                               .memory = &memory,
                               .n_threads = 1,
                               .metric = world->metric,
                               .type = world->type,
                               .dimension = world->dimension,
                               .queries = world->queries,
                               .n_queries = world->n_queries,
                               .k = k,
                               .dead = world->dead};
}

static struct vdb_graph *empty_graph(const struct world *world, uint32_t capacity, bool with_sample)
{
    struct vdb_graph_options options = {&memory, kernels, world->metric, world->type, world->dimension, 42, NULL};
    struct vdb_graph *graph;
    vecdb_error err = {0};
    CHECK_OK(err, vdb_graph_new(&options, capacity, with_sample ? &world->block : NULL, &graph, &err));
    return graph;
}

static struct vdb_graph *graph_of(const struct world *world)
{
    struct vdb_graph *graph = empty_graph(world, world->n_rows, true);
    vecdb_error err = {0};
    CHECK_OK(err, vdb_graph_insert(graph, &world->block, 0, world->n_rows, NULL, &err));
    return graph;
}

static const void *query_at(const struct world *world, size_t q)
{
    return (const char *)world->queries +
           q * vdb_vector_bytes(world->type == VECDB_BIT ? VECDB_BIT : VECDB_F32, world->dimension);
}

/* One search, with everything checked that does not depend on luck. */
static uint32_t ask(struct world *world, const struct vdb_graph *graph, size_t q, uint32_t k, uint32_t end_slot,
                    uint32_t ef, struct vdb_graph_scratch *scratch, struct vdb_hit *hits)
{
    struct vdb_search search = search_of(world, k);
    struct vdb_graph_effort effort = {.ef = ef, .n_rerank = ef / 2};
    struct vdb_rows rows = {world, find, put};
    uint32_t n_hits;
    vecdb_error err = {0};
    CHECK_OK(err, vdb_graph_search(graph, &search, q, end_slot, &effort, &rows, scratch, hits, &n_hits, NULL, &err));
    CHECK(n_hits <= k);
    for (uint32_t i = 0; i < n_hits; i++) {
        CHECK(hits[i].slot < end_slot);
        CHECK(!world->dead || !vdb_slots_has(world->dead, hits[i].slot));
        double exact = vdb_exact_distance(world->metric, world->type, world->dimension, query_at(world, q),
                                          world->rows + world->row_of[hits[i].slot] * world->row_bytes);
        if (!world->is_extreme)
            CHECK_LE(fabs(hits[i].distance - exact), 1e-3 * (1 + fabs(exact)));
        if (i > 0) {
            CHECK_LE(hits[i - 1].distance, hits[i].distance);
            CHECK(hits[i - 1].distance < hits[i].distance || hits[i - 1].slot < hits[i].slot);
        }
    }
    return n_hits;
}

/* The share of the exact k nearest, ties at the end included, whose distance the graph's answer reaches. */
static double recall_of(struct world *world, const struct vdb_graph *graph, uint32_t k, uint32_t ef)
{
    struct vdb_search search = search_of(world, k);
    struct vdb_blocks blocks = {world, 1, pin, unpin};
    struct vdb_answer answer;
    struct vdb_graph_scratch *scratch = vdb_graph_scratch_new(&memory);
    struct vdb_hit *hits = get(k * sizeof *hits);
    vecdb_error err = {0};
    size_t n_right = 0, n_all = 0;
    CHECK(scratch);
    CHECK_OK(err, vdb_flat_search(&search, &blocks, &answer, &err));
    for (size_t q = 0; q < world->n_queries; q++) {
        uint32_t n_hits = ask(world, graph, q, k, world->end, ef, scratch, hits);
        size_t n_exact = answer.first[q + 1] - answer.first[q];
        n_exact = n_exact < k ? n_exact : k;
        CHECK(n_hits <= n_exact);
        n_all += n_exact;
        double last = n_exact ? answer.hits[answer.first[q] + n_exact - 1].distance : 0;
        for (uint32_t i = 0; i < n_hits; i++)
            n_right += hits[i].distance <= last + 1e-4 * (1 + fabs(last));
    }
    vdb_answer_release(&memory, &answer);
    vdb_graph_scratch_free(scratch);
    vdb_free(&memory, hits);
    CHECK_INT(atomic_load(&world->n_found), 0);
    return n_all ? (double)n_right / (double)n_all : 1;
}

static void kill_slots(struct world *world, uint32_t one_in, uint64_t seed)
{
    struct vdb_random random = {seed};
    if (!world->dead)
        world->dead = vdb_slots_new();
    CHECK(world->dead);
    for (uint32_t i = 0; i < world->n_rows; i++)
        if (vdb_random_below(&random, one_in) == 0)
            vdb_slots_add(world->dead, world->slots[i]);
}

/* ------------------------------------------------------------------ rotation and codes */

static double dot(const float *a, const float *b, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

TEST(a_rotation_keeps_lengths_and_products_and_is_the_same_on_every_tier)
{
    const struct vdb_kernels *tables[16];
    size_t n_tables = vdb_kernels_available(tables, 16);
    vdb_memory_init(&memory, NULL);
    struct vdb_random random = {test_seed()};
    for (uint32_t n = 64; n <= 1024; n += 64) {
        struct vdb_rotation rotation;
        vecdb_error err = {0};
        CHECK_OK(err, vdb_rotation_init(&rotation, &memory, n, test_seed(), &err));
        float *x = vdb_alloc_aligned(&memory, n * sizeof *x), *y = vdb_alloc_aligned(&memory, n * sizeof *y);
        float *u = vdb_alloc_aligned(&memory, n * sizeof *u), *v = vdb_alloc_aligned(&memory, n * sizeof *v);
        for (uint32_t i = 0; i < n; i++) {
            x[i] = (float)gaussian(&random);
            y[i] = (float)gaussian(&random);
        }
        memcpy(u, x, n * sizeof *u);
        memcpy(v, y, n * sizeof *v);
        vdb_rotation_apply(&rotation, tables[0], u);
        vdb_rotation_apply(&rotation, tables[0], v);
        CHECK_LE(fabs(dot(u, u, n) - dot(x, x, n)), 1e-4 * n);
        CHECK_LE(fabs(dot(u, v, n) - dot(x, y, n)), 1e-4 * n);
        CHECK(fabs(dot(u, x, n)) < 0.9 * dot(x, x, n)); /* it does turn */
        for (size_t t = 1; t < n_tables; t++) {
            memcpy(v, x, n * sizeof *v);
            vdb_rotation_apply(&rotation, tables[t], v);
            CHECK(!memcmp(u, v, n * sizeof *u));
        }
        /* one coordinate alone is spread over all */
        memset(v, 0, n * sizeof *v);
        v[n / 3] = 1;
        vdb_rotation_apply(&rotation, tables[0], v);
        for (uint32_t i = 0; i < n; i++)
            CHECK(fabsf(v[i]) < 0.75f);
        vdb_rotation_release(&rotation, &memory);
        vdb_free_aligned(&memory, x);
        vdb_free_aligned(&memory, y);
        vdb_free_aligned(&memory, u);
        vdb_free_aligned(&memory, v);
    }
}

/* Scores of all rows of a world against its queries, on codes of 4 bits and from records of 8 bits: how far they are
 * from the truth, as a share of what they range over. */
static void check_scores(struct world *world, double most4, double most8)
{
    struct vdb_codec codec;
    vecdb_error err = {0};
    CHECK_OK(err, vdb_codec_init(&codec, &memory, kernels, world->metric, world->type, world->dimension, 7,
                                 &world->block, &err));
    uint32_t n = world->n_rows, id[1] = {0};
    float *work = vdb_alloc_aligned(&memory, codec.n_values * sizeof *work);
    int8_t *values = vdb_alloc_aligned(&memory, codec.n_values);
    unsigned char *records4 = vdb_alloc_aligned(&memory, n * codec.stride4);
    unsigned char *records8 = vdb_alloc_aligned(&memory, n * codec.stride8);
    for (uint32_t i = 0; i < n; i++)
        vdb_codec_encode(&codec, world->type, world->rows + i * world->row_bytes, work, records4 + i * codec.stride4,
                         records8 + i * codec.stride8);
    double sums[5] = {0}, error8 = 0, all8 = 0;
    struct vdb_query query;
    for (uint32_t q = 0; q < world->n_queries; q++) {
        vdb_codec_query(&codec, query_at(world, q), work, values, &query);
        double shift = 0, slope = world->metric == VECDB_COSINE ? 2 : (double)codec.unit * (double)codec.unit;
        double pairs[512][2];
        for (uint32_t i = 0; i < n && i < 512; i++) {
            float score;
            id[0] = i;
            kernels->code4(&query.code, records4, codec.stride4, codec.n_values, id, 1, &score);
            CHECK(isfinite(score));
            double truth = vdb_exact_distance(world->metric, world->type, world->dimension, query_at(world, q),
                                              world->rows + i * world->row_bytes);
            truth = world->metric == VECDB_L2 ? truth * truth * slope : truth * slope;
            pairs[i][0] = truth;
            pairs[i][1] = score;
            shift += (double)score - truth;
        }
        shift /= n;
        double mean = 0;
        for (uint32_t i = 0; i < n; i++)
            mean += pairs[i][0] / n;
        for (uint32_t i = 0; i < n; i++) {
            sums[0] += (pairs[i][1] - shift - pairs[i][0]) * (pairs[i][1] - shift - pairs[i][0]);
            sums[1] += (pairs[i][0] - mean) * (pairs[i][0] - mean);
        }
    }
    CHECK_LE(sqrt(sums[0] / sums[1]), most4);
    for (uint32_t q = 0; q + 1 < n && q < 40 && world->metric != VECDB_IP; q++) {
        vdb_codec_query_record(&codec, records8 + q * codec.stride8, 8, 8, values, &query);
        for (uint32_t i = 0; i < n; i++) {
            float score;
            id[0] = i;
            kernels->code8(&query.code, records8, codec.stride8, codec.n_values, id, 1, &score);
            float x[1024], y[1024];
            double a = 1, b = 1, sum = 0;
            vdb_floats_of(world->type, world->rows + q * world->row_bytes, world->dimension, x);
            vdb_floats_of(world->type, world->rows + i * world->row_bytes, world->dimension, y);
            if (world->metric == VECDB_COSINE) {
                a = sqrt(dot(x, x, world->dimension));
                b = sqrt(dot(y, y, world->dimension));
            }
            for (uint32_t j = 0; j < world->dimension; j++)
                sum += ((double)x[j] / a - (double)y[j] / b) * ((double)x[j] / a - (double)y[j] / b);
            sum *= world->metric == VECDB_COSINE ? 1 : (double)codec.unit * (double)codec.unit;
            double off = (double)score + (double)query.constant - sum;
            error8 += off * off;
            all8 += sum * sum;
        }
    }
    if (all8 > 0)
        CHECK_LE(sqrt(error8 / all8), most8);
    vdb_free_aligned(&memory, work);
    vdb_free_aligned(&memory, values);
    vdb_free_aligned(&memory, records4);
    vdb_free_aligned(&memory, records8);
    vdb_codec_release(&codec);
}

TEST(scores_of_codes_are_close_to_the_distances_of_every_metric)
{
    static const int metrics[] = {VECDB_L2, VECDB_COSINE, VECDB_IP};
    static const uint32_t dimensions[] = {3, 64, 100, 128, 784};
    for (int m = 0; m < 3; m++)
        for (int d = 0; d < 5; d++) {
            struct world world;
            world_new(&world, metrics[m], VECDB_F32, dimensions[d], 300, test_seed() + (uint64_t)d);
            check_scores(&world, 0.1, 0.02);
            world_free(&world);
        }
}

TEST(codes_of_extreme_values_are_finite)
{
    static const float extremes[] = {0,    FLT_MIN, 1e-45f, FLT_MAX, -FLT_MAX, 1e20f, 1e-20f,
                                     1.0f, -1.0f,   3e38f,  1e19f,   -1e-38f};
    static const int metrics[] = {VECDB_L2, VECDB_COSINE, VECDB_IP};
    struct vdb_random random = {test_seed()};
    for (int round = 0; round < 60; round++) {
        struct world world;
        world_new(&world, metrics[round % 3], VECDB_F32, 1 + (uint32_t)vdb_random_below(&random, 200), 60, test_seed());
        world.is_extreme = true;
        uint64_t kinds = 1 + vdb_random_below(&random, 12);
        for (uint32_t i = 0; i < world.n_rows * world.dimension; i++)
            ((float *)world.rows)[i] = extremes[vdb_random_below(&random, kinds)];
        for (uint32_t i = 0; i < world.n_queries * world.dimension; i++)
            ((float *)world.queries)[i] = extremes[vdb_random_below(&random, 12)];
        struct vdb_graph *graph = graph_of(&world);
        struct vdb_graph_scratch *scratch = vdb_graph_scratch_new(&memory);
        struct vdb_hit hits[10];
        for (size_t q = 0; q < world.n_queries; q++) /* 60 rows: everything is found, however far */
            CHECK_INT(ask(&world, graph, q, 10, world.end, 200, scratch, hits), 10);
        vdb_graph_scratch_free(scratch);
        vdb_graph_release(graph);
        world_free(&world);
    }
}

/* ------------------------------------------------------------------ recall */

static void check_recall(int metric, int type, uint32_t dimension, uint32_t n_rows, double least)
{
    struct world world;
    vecdb_error err = {0};
    test_time_limit(600); /* under a thread sanitizer, beside other work */
    world_new(&world, metric, type, dimension, n_rows, test_seed());
    struct vdb_graph *graph = graph_of(&world), *swept;
    CHECK_INT(vdb_graph_end(graph), world.slots[n_rows - 1] + 1);
    CHECK_LE(least, recall_of(&world, graph, 10, 100));
    CHECK_OK(err, vdb_graph_seal(graph, NULL, &err));
    CHECK_LE(least, recall_of(&world, graph, 10, 100));
    CHECK_LE(least - 0.1, recall_of(&world, graph, 1, 40)); /* of 40 queries */
    kill_slots(&world, 2, test_seed());
    CHECK_LE(least, recall_of(&world, graph, 10, 100));
    CHECK_OK(err, vdb_graph_sweep(graph, world.dead, NULL, &swept, &err));
    struct vdb_graph_info info;
    vdb_graph_describe(swept, &info);
    CHECK_SIZE(info.n_slots, n_rows - vdb_slots_count(world.dead));
    CHECK_INT(info.end, vdb_graph_end(graph));
    CHECK_LE(least, recall_of(&world, swept, 10, 100));
    vdb_graph_release(graph);
    vdb_graph_release(swept);
    world_free(&world);
}

TEST(recall_is_high_for_l2)
{
    check_recall(VECDB_L2, VECDB_F32, 100, 3000, 0.97);
    check_recall(VECDB_L2, VECDB_U8, 128, 2000, 0.97);
    check_recall(VECDB_L2, VECDB_F16, 784, 800, 0.97);
}

TEST(recall_is_high_for_cosine)
{
    check_recall(VECDB_COSINE, VECDB_F32, 100, 3000, 0.97);
    check_recall(VECDB_COSINE, VECDB_BF16, 192, 2000, 0.97);
    check_recall(VECDB_COSINE, VECDB_I8, 60, 2000, 0.97);
}

TEST(recall_is_high_for_inner_products_of_vectors_of_many_lengths)
{
    check_recall(VECDB_IP, VECDB_F32, 100, 3000, 0.96);
    check_recall(VECDB_IP, VECDB_F16, 128, 2000, 0.96);
    check_recall(VECDB_IP, VECDB_I8, 30, 2000, 0.96);
}

TEST(recall_is_high_for_bits)
{
    check_recall(VECDB_HAMMING, VECDB_BIT, 256, 3000, 0.95);
    check_recall(VECDB_HAMMING, VECDB_BIT, 131, 2000, 0.95);
}

TEST(few_dimensions_are_no_exception)
{
    check_recall(VECDB_L2, VECDB_F32, 1, 2000, 0.95);
    check_recall(VECDB_L2, VECDB_F32, 3, 2000, 0.95);
    check_recall(VECDB_COSINE, VECDB_F32, 2, 1000, 0.95);
    check_recall(VECDB_IP, VECDB_F32, 3, 1000, 0.95);
    check_recall(VECDB_HAMMING, VECDB_BIT, 9, 2000, 0.95);
}

TEST(a_graph_of_none_one_and_two_rows_answers)
{
    for (uint32_t n = 0; n <= 2; n++) {
        struct world world;
        vecdb_error err = {0};
        world_new(&world, VECDB_COSINE, VECDB_F32, 20, n, test_seed());
        struct vdb_graph *graph = graph_of(&world), *swept;
        struct vdb_graph_scratch *scratch = vdb_graph_scratch_new(&memory);
        struct vdb_hit hits[5];
        CHECK_INT(ask(&world, graph, 0, 5, UINT32_MAX, 10, scratch, hits), n);
        CHECK_OK(err, vdb_graph_seal(graph, NULL, &err));
        CHECK_INT(ask(&world, graph, 0, 5, UINT32_MAX, 10, scratch, hits), n);
        kill_slots(&world, 1, 1);
        CHECK_INT(ask(&world, graph, 0, 5, UINT32_MAX, 10, scratch, hits), 0);
        CHECK_OK(err, vdb_graph_sweep(graph, world.dead, NULL, &swept, &err));
        CHECK_INT(ask(&world, swept, 0, 5, UINT32_MAX, 10, scratch, hits), 0);
        CHECK_FAILS(err, n ? VECDB_FULL : VECDB_OK, "", vdb_graph_insert(swept, &world.block, 0, n, NULL, &err));
        vdb_graph_scratch_free(scratch);
        vdb_graph_release(graph);
        vdb_graph_release(swept);
        world_free(&world);
    }
}

/* ------------------------------------------------------------------ copies of a vector */

TEST(a_thousand_copies_share_a_node_and_hide_nobody)
{
    struct world world;
    vecdb_error err = {0};
    world_new(&world, VECDB_L2, VECDB_F32, 32, 3000, test_seed());
    for (uint32_t i = 500; i < 2500; i++)
        if (i % 2)
            memcpy(world.rows + i * world.row_bytes, world.rows, world.row_bytes);
    struct vdb_graph *graph = graph_of(&world), *swept;
    struct vdb_graph_info info;
    vdb_graph_describe(graph, &info);
    CHECK_SIZE(info.n_nodes, 2000);
    CHECK_SIZE(info.n_slots, 3000);
    CHECK_LE(0.97, recall_of(&world, graph, 10, 100));
    /* asked for the copied vector itself: row 0 and the first copies, in their order */
    memcpy(world.queries, world.rows, world.row_bytes);
    struct vdb_graph_scratch *scratch = vdb_graph_scratch_new(&memory);
    struct vdb_hit hits[1100];
    CHECK_INT(ask(&world, graph, 0, 10, world.end, 50, scratch, hits), 10);
    CHECK_INT(hits[0].slot, world.slots[0]);
    for (uint32_t i = 1; i < 10; i++)
        CHECK_INT(hits[i].slot, world.slots[500 + 2 * i - 1]);
    CHECK_INT(ask(&world, graph, 0, 1001, world.end, 50, scratch, hits), 1001);
    CHECK_DOUBLE(hits[1000].distance, 0);
    kill_slots(&world, 3, test_seed());
    CHECK_LE(0.97, recall_of(&world, graph, 10, 100));
    CHECK_OK(err, vdb_graph_sweep(graph, world.dead, NULL, &swept, &err));
    vdb_graph_describe(swept, &info);
    CHECK_SIZE(info.n_slots, 3000 - vdb_slots_count(world.dead));
    CHECK_LE(0.97, recall_of(&world, swept, 10, 100));
    vdb_graph_scratch_free(scratch);
    vdb_graph_release(swept);
    vdb_graph_release(graph);
    world_free(&world);
}

/* ------------------------------------------------------------------ growing */

TEST(slots_from_the_end_that_was_asked_for_are_left_out)
{
    struct world world;
    world_new(&world, VECDB_COSINE, VECDB_F32, 50, 2000, test_seed());
    struct vdb_graph *graph = graph_of(&world);
    struct vdb_graph_scratch *scratch = vdb_graph_scratch_new(&memory);
    struct vdb_hit hits[10];
    for (uint32_t end = 0; end < 400; end += 7)
        for (size_t q = 0; q < 3; q++) {
            uint32_t n_visible = 0;
            while (n_visible < world.n_rows && world.slots[n_visible] < end)
                n_visible++;
            CHECK_INT(ask(&world, graph, q, 10, end, 60, scratch, hits), n_visible < 10 ? n_visible : 10);
        }
    vdb_graph_scratch_free(scratch);
    vdb_graph_release(graph);
    world_free(&world);
}

static int stop_sometimes(void *context, vecdb_error *err)
{
    _Atomic int *left = context;
    if (atomic_fetch_sub(left, 1) > 0)
        return VECDB_OK;
    if (err)
        err->status = VECDB_INTERRUPTED;
    return VECDB_INTERRUPTED;
}

TEST(pieces_stops_and_growth_leave_nothing_out_and_nothing_twice)
{
    struct world world;
    world_new(&world, VECDB_L2, VECDB_F32, 40, 3000, test_seed());
    kill_slots(&world, 10, test_seed());
    struct vdb_random random = {test_seed()};
    struct vdb_graph *graph = empty_graph(&world, 500, false);
    vecdb_error err = {0};
    struct vdb_graph_insert how = {.dead = world.dead, .n_threads = 3, .stop = stop_sometimes};
    CHECK_OK(err, vdb_pool_new(&memory, 3, &how.pool, &err));
    for (uint32_t row = 0; row < world.n_rows;) {
        uint32_t n = 1 + (uint32_t)vdb_random_below(&random, 700);
        n = n < world.n_rows - row ? n : world.n_rows - row;
        _Atomic int left = (int)vdb_random_below(&random, 1000);
        how.stop_context = &left;
        int status = vdb_graph_insert(graph, &world.block, row, n, &how, &err);
        while (row < world.n_rows && world.slots[row] < vdb_graph_end(graph))
            row++;
        if (status == VECDB_FULL) {
            struct vdb_graph *copy;
            CHECK_OK(err, vdb_graph_copy(graph, row + 800, &copy, &err));
            vdb_graph_release(graph);
            graph = copy;
        } else if (status != VECDB_INTERRUPTED) {
            CHECK_INT(status, VECDB_OK);
        }
        if (vdb_random_below(&random, 5) == 0) {
            how.stop = NULL;
            CHECK_OK(err, vdb_graph_seal(graph, &how, &err));
            how.stop = stop_sometimes;
        }
    }
    struct vdb_graph_info info;
    vdb_graph_describe(graph, &info);
    CHECK_SIZE(info.n_slots, world.n_rows - vdb_slots_count(world.dead));
    uint32_t *seen = get(world.end * sizeof *seen);
    for (uint32_t node = 0; node < info.n_nodes; node++)
        CHECK_INT(seen[vdb_graph_node_slot(graph, node)]++, 0);
    CHECK_LE(0.97, recall_of(&world, graph, 10, 100));
    vdb_pool_free(how.pool);
    vdb_free(&memory, seen);
    vdb_graph_release(graph);
    world_free(&world);
}

TEST(a_walk_does_not_see_the_node_it_is_to_do_without)
{
    struct world world;
    world_new(&world, VECDB_L2, VECDB_F32, 40, 1500, test_seed());
    struct vdb_graph *graph = graph_of(&world);
    struct vdb_graph_scratch *scratch = vdb_graph_scratch_new(&memory);
    struct vdb_search search = search_of(&world, 10);
    struct vdb_rows rows = {&world, find, put};
    search.queries = world.rows;
    vecdb_error err = {0};
    for (uint32_t node = 0; node < 1500; node += 7) {
        struct vdb_hit hits[10];
        uint32_t n_hits, slot = vdb_graph_node_slot(graph, node);
        struct vdb_graph_effort effort = {.ef = 50, .without = &node};
        CHECK_OK(err, vdb_graph_search(graph, &search, world.row_of[slot], world.end, &effort, &rows, scratch, hits,
                                       &n_hits, NULL, &err));
        CHECK_INT(n_hits, 10);
        for (uint32_t i = 0; i < n_hits; i++)
            CHECK(hits[i].slot != slot);
    }
    vdb_graph_scratch_free(scratch);
    vdb_graph_release(graph);
    world_free(&world);
}

TEST(one_thread_builds_the_same_graph_on_every_tier)
{
    const struct vdb_kernels *tables[16], *chosen = kernels;
    size_t n_tables = vdb_kernels_available(tables, 16);
    struct world world;
    world_new(&world, VECDB_COSINE, VECDB_F32, 100, 1200, test_seed());
    struct vdb_hit *all[2] = {get(world.n_queries * 10 * sizeof **all), get(world.n_queries * 10 * sizeof **all)};
    for (size_t t = 0; t < n_tables; t++) {
        kernels = tables[t];
        struct vdb_graph *graph = graph_of(&world);
        struct vdb_graph_scratch *scratch = vdb_graph_scratch_new(&memory);
        for (size_t q = 0; q < world.n_queries; q++)
            CHECK_INT(ask(&world, graph, q, 10, world.end, 30, scratch, all[t > 0] + q * 10), 10);
        for (size_t i = 0; t > 0 && i < world.n_queries * 10; i++)
            CHECK_INT(all[0][i].slot, all[1][i].slot);
        vdb_graph_scratch_free(scratch);
        vdb_graph_release(graph);
    }
    kernels = chosen;
    vdb_free(&memory, all[0]);
    vdb_free(&memory, all[1]);
    world_free(&world);
}

/* ------------------------------------------------------------------ many threads */

struct searcher {
    struct world *world;
    const struct vdb_graph *graph;
    atomic_bool *done;
    uint64_t seed;
};

static void *search_on(void *context)
{
    struct searcher *searcher = context;
    struct vdb_graph_scratch *scratch = vdb_graph_scratch_new(&memory);
    struct vdb_random random = {searcher->seed};
    struct vdb_hit hits[10];
    do {
        uint32_t end = vdb_graph_end(searcher->graph);
        ask(searcher->world, searcher->graph, vdb_random_below(&random, searcher->world->n_queries), 10, end, 40,
            scratch, hits);
        struct vdb_graph_info info;
        if (vdb_random_below(&random, 50) == 0)
            vdb_graph_describe(searcher->graph, &info);
    } while (!atomic_load(searcher->done));
    vdb_graph_scratch_free(scratch);
    return NULL;
}

TEST(searches_go_on_while_threads_insert_and_the_graph_is_sealed)
{
    struct world world;
    world_new(&world, VECDB_L2, VECDB_F32, 40, 4000, test_seed());
    for (uint32_t i = 10; i < 4000; i += 10) /* chains too */
        memcpy(world.rows + i * world.row_bytes, world.rows, world.row_bytes);
    struct vdb_graph *graph = empty_graph(&world, world.n_rows, true);
    vecdb_error err = {0};
    struct vdb_graph_insert how = {.n_threads = 3};
    CHECK_OK(err, vdb_pool_new(&memory, 3, &how.pool, &err));
    atomic_bool done = false;
    struct searcher searchers[2];
    pthread_t threads[2];
    for (uint64_t t = 0; t < 2; t++) {
        searchers[t] = (struct searcher){&world, graph, &done, test_seed() + t};
        CHECK_INT(pthread_create(&threads[t], NULL, search_on, &searchers[t]), 0);
    }
    for (uint32_t row = 0; row < world.n_rows; row += 400) {
        CHECK_OK(err, vdb_graph_insert(graph, &world.block, row, 400, &how, &err));
        if (row == 2000 || row == 3600)
            CHECK_OK(err, vdb_graph_seal(graph, &how, &err));
    }
    atomic_store(&done, true);
    for (int t = 0; t < 2; t++)
        pthread_join(threads[t], NULL);
    CHECK_LE(0.97, recall_of(&world, graph, 10, 100));
    struct vdb_graph_info info;
    vdb_graph_describe(graph, &info);
    CHECK_SIZE(info.n_slots, 4000);
    CHECK(info.n_nodes < 3700);
    vdb_pool_free(how.pool);
    vdb_graph_release(graph);
    world_free(&world);
}

/* ------------------------------------------------------------------ memory */

static uint64_t n_allocations;

static void *counting_allocate(void *context, size_t size)
{
    n_allocations++;
    return ((vecdb_allocator *)context)->allocate(((vecdb_allocator *)context)->context, size);
}

static void *counting_reallocate(void *context, void *block, size_t size)
{
    n_allocations++;
    return ((vecdb_allocator *)context)->reallocate(((vecdb_allocator *)context)->context, block, size);
}

static void counting_release(void *context, void *block)
{
    ((vecdb_allocator *)context)->release(((vecdb_allocator *)context)->context, block);
}

TEST(a_search_allocates_nothing_once_it_has_searched)
{
    struct world world;
    world_new(&world, VECDB_COSINE, VECDB_F32, 100, 1000, test_seed());
    struct vdb_graph *graph = graph_of(&world);
    struct vdb_memory counted, plain;
    vdb_memory_init(&plain, NULL);
    vecdb_allocator allocator = {counting_allocate, counting_reallocate, counting_release, &plain.allocator};
    vdb_memory_init(&counted, &allocator);
    struct vdb_graph_scratch *scratch = vdb_graph_scratch_new(&counted);
    struct vdb_hit hits[10];
    ask(&world, graph, 0, 10, world.end, 100, scratch, hits);
    uint64_t before = n_allocations;
    CHECK(before > 0);
    for (size_t q = 0; q < world.n_queries; q++)
        ask(&world, graph, q, 10, world.end, 100, scratch, hits);
    CHECK_SIZE(n_allocations, before);
    vdb_graph_scratch_free(scratch);
    CHECK_SIZE(vdb_memory_used(&counted), 0);
    vdb_graph_release(graph);
    world_free(&world);
}

/* Everything once, with memory that ends after n allocations. */
static int use_all(struct world *world, struct vdb_memory *short_memory)
{
    struct vdb_graph_options options = {short_memory, kernels, world->metric, world->type, world->dimension, 42, NULL};
    struct vdb_graph *graph = NULL, *copy = NULL, *swept = NULL;
    struct vdb_graph_scratch *scratch = NULL;
    vecdb_error err = {0};
    int status = vdb_graph_new(&options, world->n_rows / 2, &world->block, &graph, &err);
    if (!status)
        status = vdb_graph_insert(graph, &world->block, 0, world->n_rows / 2, NULL, &err);
    if (!status)
        status = vdb_graph_copy(graph, world->n_rows, &copy, &err);
    if (!status)
        status = vdb_graph_insert(copy, &world->block, world->n_rows / 2, world->n_rows / 2, NULL, &err);
    if (!status)
        status = vdb_graph_seal(copy, NULL, &err);
    if (!status)
        status = vdb_graph_sweep(copy, world->dead, NULL, &swept, &err);
    if (!status && !(scratch = vdb_graph_scratch_new(short_memory)))
        status = VECDB_NOMEM;
    struct vdb_search search = search_of(world, 10);
    struct vdb_rows rows = {world, find, put};
    struct vdb_graph_effort effort = {.ef = 100};
    struct vdb_hit hits[10];
    uint32_t n_hits;
    if (!status)
        status = vdb_graph_search(swept, &search, 0, world->end, &effort, &rows, scratch, hits, &n_hits, NULL, &err);
    vdb_graph_scratch_free(scratch);
    vdb_graph_release(graph);
    vdb_graph_release(copy);
    vdb_graph_release(swept);
    return status;
}

TEST(every_allocation_may_fail)
{
    struct world world;
    world_new(&world, VECDB_L2, VECDB_F32, 30, 120, test_seed());
    kill_slots(&world, 3, test_seed());
    for (uint32_t i = 0; i < 120; i += 12)
        memcpy(world.rows + i * world.row_bytes, world.rows, world.row_bytes);
    int n = 0;
    for (bool has_failed = true; has_failed; n++) {
        struct failing failing;
        struct vdb_memory short_memory;
        failing_begin(&failing, &short_memory, n);
        int status = use_all(&world, &short_memory);
        has_failed = failing_has_failed(&failing);
        CHECK_INT(status, has_failed ? VECDB_NOMEM : VECDB_OK);
        CHECK_SIZE(vdb_memory_used(&short_memory), 0);
        CHECK(n < 1000);
    }
    CHECK(n > 100);
    world_free(&world);
}
