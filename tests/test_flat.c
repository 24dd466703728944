/* SPDX-License-Identifier: Apache-2.0
 *
 * Property: vdb_flat_search answers as a loop over all rows in double precision does: the same
 * slots in the same order and the same distances to the bit, for every metric, element type,
 * kernel table, layout of blocks, number of threads and of queries; on data made to mislead
 * floats; and it ends cleanly where a pin, an allocation or the caller stops it.
 */
#include <float.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/numbers.h"
#include "base/random.h"
#include "base/slots.h"
#include "harness.h"

/* memory.h poisons the names that this program, not the library, uses */
static void *get_memory(size_t n)
{
    void *block = calloc(1, n ? n : 1);
    CHECK(block);
    return block;
}

static void give_back(void *block)
{
    free(block);
}

#include "index/index.h"

/* ------------------------------------------------------------------ rows in blocks */

struct world {
    int metric, type;
    uint32_t dimension, n_rows;
    size_t row_bytes;
    uint8_t *rows;     /* n_rows of the field's type */
    uint32_t *slots;   /* ascending */
    size_t n_queries;
    void *queries;
    struct vdb_slots *dead;
    /* the blocks */
    uint32_t n_blocks;
    struct vdb_block *blocks;
    _Atomic long n_pinned, n_pins;
    long fail_at_pin; /* -1: never */
};

static int pin(void *context, size_t i, struct vdb_block *block, vecdb_error *err)
{
    struct world *world = context;
    long n = atomic_fetch_add(&world->n_pins, 1);
    if (world->fail_at_pin >= 0 && n >= world->fail_at_pin) {
        if (err) {
            err->status = VECDB_CORRUPT;
            snprintf(err->message, sizeof err->message, "page %zu is damaged", i);
        }
        return VECDB_CORRUPT;
    }
    *block = world->blocks[i];
    atomic_fetch_add(&world->n_pinned, 1);
    return VECDB_OK;
}

static void unpin(void *context, struct vdb_block *block)
{
    struct world *world = context;
    CHECK(block->rows);
    atomic_fetch_sub(&world->n_pinned, 1);
}

static double norm_of_row(int type, uint32_t dimension, const void *row)
{
    float *values = get_memory(dimension * sizeof *values);
    double sum = 0;
    vdb_floats_of(type, row, dimension, values);
    for (uint32_t i = 0; i < dimension; i++)
        sum += (double)values[i] * values[i];
    give_back(values);
    return sqrt(sum);
}

/* The narrowest type that holds all values of the rows, or `type`. */
static int narrowest(int type, uint32_t dimension, uint32_t n, const uint8_t *rows)
{
    static const int candidates[] = {VECDB_U8, VECDB_I8, VECDB_BF16, VECDB_F16};
    size_t n_values = (size_t)n * dimension;
    float *values = get_memory(n_values * sizeof *values);
    int found = type;
    vdb_floats_of(type, rows, (uint32_t)n_values, values);
    for (size_t c = 0; c < 4 && found == type; c++) {
        bool fits = true;
        for (size_t i = 0; i < n_values && fits; i++) {
            float v = values[i];
            switch (candidates[c]) {
            case VECDB_U8:
                fits = v >= 0 && v <= 255 && v == (float)(int)v;
                break;
            case VECDB_I8:
                fits = v >= -128 && v <= 127 && v == (float)(int)v;
                break;
            case VECDB_BF16:
                fits = vdb_float_of_bf16(vdb_bf16_of_float(v)) == v;
                break;
            default:
                fits = vdb_float_of_f16(vdb_f16_of_float(v)) == v;
                break;
            }
        }
        if (fits)
            found = candidates[c];
    }
    give_back(values);
    return found;
}

static void convert(int from, int to, uint32_t n, const void *values, void *out)
{
    float *floats = get_memory(n * sizeof *floats);
    vdb_floats_of(from, values, n, floats);
    for (uint32_t i = 0; i < n; i++)
        switch (to) {
        case VECDB_U8:
            ((uint8_t *)out)[i] = (uint8_t)floats[i];
            break;
        case VECDB_I8:
            ((int8_t *)out)[i] = (int8_t)floats[i];
            break;
        case VECDB_BF16:
            ((uint16_t *)out)[i] = vdb_bf16_of_float(floats[i]);
            break;
        case VECDB_F16:
            ((uint16_t *)out)[i] = vdb_f16_of_float(floats[i]);
            break;
        default:
            ((float *)out)[i] = floats[i];
            break;
        }
    give_back(floats);
}

static void free_blocks(struct world *world)
{
    for (uint32_t b = 0; b < world->n_blocks; b++) {
        give_back(world->blocks[b].pin);
        give_back((void *)(uintptr_t)world->blocks[b].runs);
    }
    give_back(world->blocks);
    world->blocks = NULL;
    world->n_blocks = 0;
}

/* Lay the rows out in blocks of `per_block` rows (0: of random sizes, some of them empty), with a gap
 * of `gap` bytes behind each row, and narrow where that can be and `narrow` says so. */
static void lay_out(struct world *world, uint32_t per_block, size_t gap, bool narrow, struct vdb_random *random)
{
    free_blocks(world);
    world->blocks = get_memory((world->n_rows + 20) * sizeof *world->blocks);
    for (uint32_t first = 0; first < world->n_rows || world->n_blocks == 0;) {
        uint32_t n = per_block ? per_block : (uint32_t)vdb_random_below(random, 90);
        if (world->n_blocks >= world->n_rows + 10 || n > world->n_rows - first)
            n = world->n_rows - first;
        struct vdb_block *block = &world->blocks[world->n_blocks++];
        const uint8_t *source = world->rows + first * world->row_bytes;
        block->type = world->type;
        if (narrow && world->type != VECDB_BIT)
            block->type = narrowest(world->type, world->dimension, n, source);
        size_t stored = vdb_vector_bytes(block->type, world->dimension);
        block->stride = stored + (block->type == VECDB_F32 ? gap / 4 * 4 : gap / 2 * 2);
        block->n_rows = n;
        /* exactly as many bytes as there are: ASan sees a step beyond */
        uint8_t *bytes = get_memory(n ? (n - 1) * block->stride + stored : 1);
        struct vdb_run *runs = get_memory((n + 1) * sizeof *runs);
        for (uint32_t i = 0; i < n; i++) {
            const uint8_t *row = source + i * world->row_bytes;
            if (block->type == world->type)
                memcpy(bytes + i * block->stride, row, stored);
            else
                convert(world->type, block->type, world->dimension, row, bytes + i * block->stride);
            if (world->type != VECDB_BIT) {
                float norm = (float)norm_of_row(world->type, world->dimension, row);
                norm = nextafterf(norm, INFINITY);
                if (norm > block->max_norm)
                    block->max_norm = norm;
            }
            if (i == 0 || world->slots[first + i] != world->slots[first + i - 1] + 1)
                runs[block->n_runs++] = (struct vdb_run){world->slots[first + i], i};
        }
        block->rows = block->pin = bytes;
        block->runs = runs;
        first += n;
    }
}

/* ------------------------------------------------------------------ the oracle */

static double naive_distance(const struct world *world, const void *query, const void *row)
{
    return vdb_exact_distance(world->metric, world->type, world->dimension, query, row);
}

static int compare_hits(const void *left, const void *right)
{
    const struct vdb_hit *a = left, *b = right;
    if (a->distance != b->distance)
        return a->distance < b->distance ? -1 : 1;
    return a->slot < b->slot ? -1 : a->slot > b->slot;
}

static size_t query_bytes(const struct world *world)
{
    return vdb_vector_bytes(world->type == VECDB_BIT ? VECDB_BIT : VECDB_F32, world->dimension);
}

/* All hits of one query that belong to the answer; returns how many. */
static size_t oracle(const struct world *world, size_t query, uint32_t k, struct vdb_hit *hits)
{
    size_t n = 0;
    const uint8_t *q = (const uint8_t *)world->queries + query * query_bytes(world);
    for (uint32_t i = 0; i < world->n_rows; i++)
        if (!world->dead || !vdb_slots_has(world->dead, world->slots[i])) {
            double distance = naive_distance(world, q, world->rows + i * world->row_bytes);
            hits[n++] = (struct vdb_hit){.distance = distance, .slot = world->slots[i]};
        }
    qsort(hits, n, sizeof *hits, compare_hits);
    size_t end = n < k ? n : k;
    while (end > 0 && end < n && hits[end].distance == hits[end - 1].distance)
        end++;
    return end;
}

/* ------------------------------------------------------------------ running */

static struct vdb_memory memory;

static struct vdb_search search_of(const struct world *world, uint32_t k, const struct vdb_kernels *kernels)
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

static struct vdb_blocks blocks_of(struct world *world)
{
    return (struct vdb_blocks){world, world->n_blocks, pin, unpin};
}

static void check_answer(const struct world *world, const struct vdb_search *search, const struct vdb_answer *answer,
                         const char *where)
{
    struct vdb_hit *expected = get_memory(world->n_rows * sizeof *expected);
    CHECK_SIZE(answer->first[0], 0);
    for (size_t q = 0; q < search->n_queries; q++) {
        size_t n = oracle(world, q, search->k, expected), n_found = answer->first[q + 1] - answer->first[q];
        const struct vdb_hit *found = answer->hits + answer->first[q];
        const char *name = search->kernels->name;
        if (n != n_found)
            FAIL("%s, %s, metric %d, type %d, d %u, k %u, query %zu: %zu hits, expected %zu", where, name,
                 world->metric, world->type, world->dimension, search->k, q, n_found, n);
        for (size_t i = 0; i < n; i++)
            if (found[i].slot != expected[i].slot || found[i].distance != expected[i].distance)
                FAIL("%s, %s, metric %d, type %d, d %u, k %u, query %zu, hit %zu: slot %u at %.17g, expected %u at %.17g",
                     where, name, world->metric, world->type, world->dimension, search->k, q, i, found[i].slot,
                     found[i].distance, expected[i].slot, expected[i].distance);
    }
    give_back(expected);
}

static void run_and_check(struct world *world, uint32_t k, const struct vdb_kernels *kernels, struct vdb_pool *pool,
                          int n_threads, const char *where)
{
    vecdb_error err = {0};
    struct vdb_search search = search_of(world, k, kernels);
    struct vdb_blocks blocks = blocks_of(world);
    struct vdb_answer answer;
    search.pool = pool;
    search.n_threads = n_threads;
    CHECK_OK(err, vdb_flat_search(&search, &blocks, &answer, &err));
    CHECK_INT(world->n_pinned, 0);
    check_answer(world, &search, &answer, where);
    if (search.n_queries <= 4096)
        CHECK_SIZE(answer.n_distances, (uint64_t)world->n_rows * search.n_queries);
    vdb_answer_release(&memory, &answer);
    CHECK(!answer.hits && !answer.first);
}

static struct vdb_pool *make_pool(int n_threads)
{
    struct vdb_pool *pool;
    vecdb_error err = {0};
    CHECK_OK(err, vdb_pool_new(&memory, n_threads, &pool, &err));
    return pool;
}

/* Every table, one thread and several, one query and all. */
static void run_everywhere(struct world *world, uint32_t k, const char *where)
{
    const struct vdb_kernels *tables[16];
    size_t n_tables = vdb_kernels_available(tables, 16), n_queries = world->n_queries;
    struct vdb_pool *pool = make_pool(5);
    for (size_t t = 0; t < n_tables; t++) {
        run_and_check(world, k, tables[t], NULL, 1, where);
        run_and_check(world, k, tables[t], pool, 2, where);
        run_and_check(world, k, tables[t], pool, 5, where);
        world->n_queries = n_queries < 3 ? n_queries : 3; /* too few for tiles */
        run_and_check(world, k, tables[t], t % 2 ? pool : NULL, 2, where);
        world->n_queries = n_queries;
    }
    vdb_pool_free(pool);
}

/* ------------------------------------------------------------------ making worlds */

static void init_world(struct world *world, int metric, int type, uint32_t dimension, uint32_t n_rows,
                       size_t n_queries)
{
    memset(world, 0, sizeof *world);
    if (!memory.allocator.allocate)
        vdb_memory_init(&memory, NULL);
    world->metric = metric;
    world->type = type;
    world->dimension = dimension;
    world->n_rows = n_rows;
    world->row_bytes = vdb_vector_bytes(type, dimension);
    world->rows = get_memory(n_rows * world->row_bytes);
    world->slots = get_memory(n_rows * sizeof *world->slots);
    world->n_queries = n_queries;
    world->queries = get_memory(n_queries * query_bytes(world));
    world->fail_at_pin = -1;
    for (uint32_t i = 0; i < n_rows; i++)
        world->slots[i] = i;
}

static void release_world(struct world *world)
{
    free_blocks(world);
    give_back(world->rows);
    give_back(world->slots);
    give_back(world->queries);
    vdb_slots_free(world->dead);
    CHECK_SIZE(vdb_memory_used(&memory), 0);
}

static void set_row(struct world *world, uint32_t row, const float *values)
{
    convert(VECDB_F32, world->type, world->dimension, values, world->rows + row * world->row_bytes);
}

static float random_value(int type, bool whole, struct vdb_random *random)
{
    switch (type) {
    case VECDB_I8:
        return (float)vdb_random_below(random, 256) - 128;
    case VECDB_U8:
        return (float)vdb_random_below(random, 256);
    default:
        return whole ? (float)vdb_random_below(random, 9) - 4 : (float)(vdb_random_unit(random) * 2 - 1);
    }
}

/* Random rows with duplicates among them, slots with gaps, some of them dead. */
static void fill_at_random(struct world *world, struct vdb_random *random)
{
    bool whole = vdb_random_below(random, 2), gaps = vdb_random_below(random, 2);
    if (world->type == VECDB_BIT) {
        uint8_t last = (uint8_t)(world->dimension % 8 ? (1 << world->dimension % 8) - 1 : 255);
        for (size_t i = 0; i < world->n_rows * world->row_bytes; i++)
            world->rows[i] = (uint8_t)vdb_random_next(random) & (i % world->row_bytes == world->row_bytes - 1 ? last : 255);
        for (size_t i = 0; i < world->n_queries * world->row_bytes; i++)
            ((uint8_t *)world->queries)[i] =
                (uint8_t)vdb_random_next(random) & (i % world->row_bytes == world->row_bytes - 1 ? last : 255);
    } else {
        float *values = get_memory(world->dimension * sizeof *values);
        for (uint32_t row = 0; row < world->n_rows; row++) {
            for (uint32_t i = 0; i < world->dimension; i++)
                values[i] = random_value(world->type, whole, random);
            values[vdb_random_below(random, world->dimension)] = 1; /* no zero rows */
            set_row(world, row, values);
            if (row && vdb_random_below(random, 8) == 0)
                memcpy(world->rows + row * world->row_bytes,
                       world->rows + vdb_random_below(random, row) * world->row_bytes, world->row_bytes);
        }
        give_back(values);
        float *queries = world->queries;
        for (size_t q = 0; q < world->n_queries; q++) {
            bool of_type = q % 3 || whole; /* whole numbers for whole rows, mostly: integer kernels */
            for (uint32_t i = 0; i < world->dimension; i++)
                queries[q * world->dimension + i] = random_value(of_type ? world->type : VECDB_F32, whole, random);
            queries[q * world->dimension] = 1;
        }
    }
    uint32_t slot = (uint32_t)vdb_random_below(random, 1000);
    for (uint32_t i = 0; i < world->n_rows; i++, slot++) {
        if (gaps && vdb_random_below(random, 10) == 0)
            slot += (uint32_t)vdb_random_below(random, 100000);
        world->slots[i] = slot;
    }
    uint64_t one_in = vdb_random_below(random, 6);
    if (one_in) {
        world->dead = vdb_slots_new();
        for (uint32_t i = 0; i < world->n_rows; i++)
            if (vdb_random_below(random, one_in) == 0)
                vdb_slots_add(world->dead, world->slots[i]);
    }
}

static void random_worlds(int type, int metric, int n_rounds)
{
    static const uint32_t dimensions[] = {1, 3, 8, 17, 64, 100, 131, 300};
    struct vdb_random random = {test_seed() + (uint64_t)(type * 16 + metric)};
    for (int round = 0; round < n_rounds; round++) {
        struct world world;
        uint32_t dimension = dimensions[vdb_random_below(&random, 8)];
        uint32_t n_rows = (uint32_t)vdb_random_below(&random, round % 5 == 0 ? 20 : 900);
        init_world(&world, metric, type, dimension, n_rows, 1 + vdb_random_below(&random, 14));
        fill_at_random(&world, &random);
        static const uint32_t ks[] = {1, 2, 10, 100, 1048576};
        uint32_t k = ks[vdb_random_below(&random, 5)];
        lay_out(&world, round % 3 ? 0 : 1 + (uint32_t)vdb_random_below(&random, 400),
                round % 2 ? vdb_random_below(&random, 40) : 0, round % 4 == 1, &random);
        run_everywhere(&world, k, "random rows");
        release_world(&world);
    }
}

#define RANDOM_TEST(name, type)                                                                                        \
    TEST(random_##name##_rows_are_answered_as_the_oracle_does)                                                         \
    {                                                                                                                  \
        random_worlds(type, VECDB_L2, 10);                                                                             \
        random_worlds(type, VECDB_IP, 10);                                                                             \
        random_worlds(type, VECDB_COSINE, 10);                                                                         \
    }
RANDOM_TEST(f32, VECDB_F32)
RANDOM_TEST(f16, VECDB_F16)
RANDOM_TEST(bf16, VECDB_BF16)
RANDOM_TEST(i8, VECDB_I8)
RANDOM_TEST(u8, VECDB_U8)

TEST(random_bit_rows_are_answered_as_the_oracle_does)
{
    random_worlds(VECDB_BIT, VECDB_HAMMING, 30);
}
