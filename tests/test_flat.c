/* SPDX-License-Identifier: Apache-2.0
 *
 * Property: vdb_flat_search answers as a loop over all rows in double precision does: the same
 * slots in the same order and the same distances to the bit, for every metric, element type,
 * kernel table, layout of blocks, number of threads and of queries; on data made to mislead
 * floats; and it ends cleanly where a pin, an allocation or the caller stops it.
 */
#include <float.h>
#include <limits.h>
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

static void *resize(void *block, size_t n)
{
    return realloc(block, n);
}

#include "index/index.h"

/* ------------------------------------------------------------------ rows in blocks */

struct world {
    int metric, type;
    uint32_t dimension, n_rows;
    size_t row_bytes;
    uint8_t *rows;   /* n_rows of the field's type */
    uint32_t *slots; /* ascending */
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
                FAIL("%s, %s, metric %d, type %d, d %u, k %u, query %zu, hit %zu: slot %u at %.17g, expected %u at "
                     "%.17g",
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

static void init_world(struct world *world, int metric, int type, uint32_t dimension, uint32_t n_rows, size_t n_queries)
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
            world->rows[i] =
                (uint8_t)vdb_random_next(random) & (i % world->row_bytes == world->row_bytes - 1 ? last : 255);
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

#define RANDOM_TEST(name, type)                                \
    TEST(random_##name##_rows_are_answered_as_the_oracle_does) \
    {                                                          \
        random_worlds(type, VECDB_L2, 10);                     \
        random_worlds(type, VECDB_IP, 10);                     \
        random_worlds(type, VECDB_COSINE, 10);                 \
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

/* ------------------------------------------------------------------ the distance itself */

TEST(exact_distances_agree_with_long_double_arithmetic)
{
    struct vdb_random random = {test_seed()};
    static const int types[] = {VECDB_F32, VECDB_F16, VECDB_BF16, VECDB_I8, VECDB_U8};
    for (int round = 0; round < 3000; round++) {
        int type = types[round % 5];
        uint32_t dimension = 1 + (uint32_t)vdb_random_below(&random, 700);
        float query[700], values[700];
        uint8_t row[2800] __attribute__((aligned(16)));
        long double square = 0, product = 0, q2 = 0, x2 = 0, sizes = 0;
        for (uint32_t i = 0; i < dimension; i++) {
            query[i] = random_value(VECDB_F32, false, &random);
            values[i] = random_value(type, false, &random);
        }
        convert(VECDB_F32, type, dimension, values, row);
        vdb_floats_of(type, row, dimension, values);
        for (uint32_t i = 0; i < dimension; i++) {
            long double difference = (long double)query[i] - values[i];
            square += difference * difference;
            product += (long double)query[i] * values[i];
            sizes += fabsl((long double)query[i] * values[i]);
            q2 += (long double)query[i] * query[i];
            x2 += (long double)values[i] * values[i];
        }
        double l2 = vdb_exact_distance(VECDB_L2, type, dimension, query, row);
        double ip = vdb_exact_distance(VECDB_IP, type, dimension, query, row);
        double cosine = vdb_exact_distance(VECDB_COSINE, type, dimension, query, row);
        CHECK_LE(fabsl(l2 - sqrtl(square)), 1e-13L * sqrtl(square));
        CHECK_LE(fabsl(ip + product), 1e-13L * sizes);
        long double angle = x2 > 0 && q2 > 0 ? product / sqrtl(q2 * x2) : 0;
        CHECK_LE(fabsl(cosine - (1 - angle)), 1e-13L);
    }
}

TEST(a_vector_is_at_distance_zero_from_itself_and_two_from_its_opposite)
{
    struct vdb_random random = {test_seed()};
    for (int round = 0; round < 2000; round++) {
        float query[97], opposite[97];
        float scale = ldexpf(1, (int)vdb_random_below(&random, 200) - 100);
        for (int i = 0; i < 97; i++) {
            query[i] = random_value(VECDB_F32, false, &random) * scale;
            opposite[i] = -query[i];
        }
        CHECK_DOUBLE(vdb_exact_distance(VECDB_L2, VECDB_F32, 97, query, query), 0);
        CHECK_DOUBLE(vdb_exact_distance(VECDB_COSINE, VECDB_F32, 97, query, query), 0);
        CHECK_DOUBLE(vdb_exact_distance(VECDB_COSINE, VECDB_F32, 97, query, opposite), 2);
    }
    static const float zero[97], one[97] = {1};
    CHECK_DOUBLE(vdb_exact_distance(VECDB_COSINE, VECDB_F32, 97, one, zero), 1);
    CHECK_DOUBLE(vdb_exact_distance(VECDB_COSINE, VECDB_F32, 97, zero, zero), 1);
    CHECK(!signbit(vdb_exact_distance(VECDB_IP, VECDB_F32, 97, one, zero)));
    static const float huge[97] = {INFINITY, -INFINITY};
    CHECK_DOUBLE(vdb_exact_distance(VECDB_IP, VECDB_F32, 97, huge, huge), -INFINITY);
    CHECK_DOUBLE(vdb_exact_distance(VECDB_L2, VECDB_F32, 97, huge, huge), INFINITY); /* inf - inf */
}

/* ------------------------------------------------------------------ data made to mislead floats */

enum trap {
    HUGE_VALUES,
    TINY_VALUES,
    MIXED_MAGNITUDES,
    CANCELLATION,
    NEAR_TIES,
    ONE_VECTOR,
    SCALED_COPIES,
    OVERFLOW,
    N_TRAPS
};

static void set_trap_row(enum trap trap, uint32_t row, uint32_t dimension, const float *base, float *values,
                         struct vdb_random *random)
{
    float sign = 1;
    int shift = 0;
    if (trap == MIXED_MAGNITUDES)
        shift = (int)vdb_random_below(random, 250) - 125;
    for (uint32_t i = 0; i < dimension; i++) {
        float v = random_value(VECDB_F32, false, random);
        switch (trap) {
        case HUGE_VALUES: /* squares overflow, for some rows even single values nearly do */
            values[i] = v * (row % 3 ? 0x1p126f : 0x1p62f);
            break;
        case TINY_VALUES: /* squares vanish; some values are subnormal */
            values[i] = v * (row % 3 ? 0x1p-70f : 0x1p-130f);
            break;
        case MIXED_MAGNITUDES:
            values[i] = ldexpf(v, shift);
            break;
        case CANCELLATION: /* large products that cancel, what is left is small */
            values[i] = base[i] * (1 + (float)vdb_random_below(random, 3) * 0x1p-23f) * sign;
            if (i % 2)
                values[i] = base[i - 1] == 0 ? 0 : values[i - 1];
            break;
        case NEAR_TIES: /* within an ulp of one another */
            values[i] = base[i];
            if (vdb_random_below(random, dimension) == 0)
                values[i] = nextafterf(base[i], v);
            break;
        case ONE_VECTOR:
            values[i] = base[i];
            break;
        case OVERFLOW: /* against 2^70: the first product is infinite in floats, the sum is moderate */
            values[i] = i == 0 ? -0x1p58f : i < 3 ? 0x1p57f : v * 0x1p20f;
            if (row % 2 && i < 3)
                values[i] = 0;
            break;
        default: /* equal under cosine, but for rounding */
            values[i] = base[i] * (float)(row % 37 + 1);
            break;
        }
    }
}

static void set_trap(struct world *world, enum trap trap, struct vdb_random *random)
{
    uint32_t dimension = world->dimension;
    float *base = get_memory(dimension * sizeof *base), *values = get_memory(dimension * sizeof *values);
    float *queries = world->queries;
    for (uint32_t i = 0; i < dimension; i++)
        base[i] = random_value(VECDB_F32, false, random) + 1.5f;
    for (uint32_t row = 0; row < world->n_rows; row++) {
        set_trap_row(trap, row, dimension, base, values, random);
        set_row(world, row, values);
    }
    for (size_t q = 0; q < world->n_queries; q++) {
        set_trap_row(trap, (uint32_t)vdb_random_below(random, 1000), dimension, base, values, random);
        for (uint32_t i = 0; i < dimension; i++) /* products alternate in sign and cancel */
            queries[q * dimension + i] = trap == CANCELLATION && i % 2 ? -values[i] * 0x1p20f
                                         : trap == CANCELLATION        ? values[i] * 0x1p20f
                                         : trap == OVERFLOW            ? 0x1p70f
                                                                       : values[i];
    }
    give_back(base);
    give_back(values);
}

static void spring_traps(enum trap trap)
{
    static const int metrics[] = {VECDB_L2, VECDB_IP, VECDB_COSINE};
    static const uint32_t dimensions[] = {2, 33, 256}, ks[] = {1, 7, 100};
    struct vdb_random random = {test_seed() + trap};
    for (int m = 0; m < 3; m++)
        for (int d = 0; d < 3; d++) {
            struct world world;
            init_world(&world, metrics[m], VECDB_F32, dimensions[d], 700, 9);
            set_trap(&world, trap, &random);
            lay_out(&world, d == 1 ? 0 : 64, 0, false, &random);
            run_everywhere(&world, ks[(m + d) % 3], "trap");
            release_world(&world);
        }
}

TEST(huge_values_whose_squares_overflow_do_not_mislead)
{
    spring_traps(HUGE_VALUES);
}

TEST(tiny_values_whose_squares_vanish_do_not_mislead)
{
    spring_traps(TINY_VALUES);
}

TEST(rows_of_very_different_magnitudes_do_not_mislead)
{
    spring_traps(MIXED_MAGNITUDES);
}

TEST(products_that_cancel_do_not_mislead)
{
    spring_traps(CANCELLATION);
}

TEST(rows_within_an_ulp_of_one_another_are_put_in_order)
{
    spring_traps(NEAR_TIES);
}

TEST(all_ties_with_the_last_hit_are_returned)
{
    spring_traps(ONE_VECTOR); /* 700 equal rows */
}

TEST(products_that_overflow_although_their_sum_does_not_are_not_taken_for_far)
{
    spring_traps(OVERFLOW);
}

TEST(multiples_of_one_vector_under_cosine_are_put_in_order)
{
    spring_traps(SCALED_COPIES);
}

/* ------------------------------------------------------------------ the same bits everywhere */

TEST(layout_and_storage_type_do_not_change_a_bit)
{
    struct vdb_random random = {test_seed()};
    struct world world;
    init_world(&world, VECDB_COSINE, VECDB_F32, 48, 1500, 10);
    fill_at_random(&world, &random);
    vecdb_error err = {0};
    struct vdb_search search = search_of(&world, 20, vdb_kernels_choose(NULL));
    struct vdb_answer first = {0}, answer;
    static const uint32_t sizes[] = {1500, 1, 7, 64, 0, 0};
    for (size_t s = 0; s < 6; s++) {
        lay_out(&world, sizes[s], 4 * s, s % 2, &random);
        struct vdb_blocks blocks = blocks_of(&world);
        CHECK_OK(err, vdb_flat_search(&search, &blocks, &answer, &err));
        if (s == 0) {
            first = answer;
            continue;
        }
        CHECK(!memcmp(answer.first, first.first, (world.n_queries + 1) * sizeof *first.first));
        for (size_t i = 0; i < first.first[world.n_queries]; i++)
            CHECK(answer.hits[i].slot == first.hits[i].slot && answer.hits[i].distance == first.hits[i].distance);
        vdb_answer_release(&memory, &answer);
    }
    vdb_answer_release(&memory, &first);
    release_world(&world);
}

TEST(rows_larger_than_a_slab_and_blocks_larger_than_a_slab_are_searched)
{
    struct vdb_random random = {test_seed()};
    struct world world;
    init_world(&world, VECDB_COSINE, VECDB_I8, 300000, 5, 9);
    fill_at_random(&world, &random);
    lay_out(&world, 3, 0, false, &random);
    run_and_check(&world, 2, vdb_kernels_choose(NULL), NULL, 1, "large rows");
    release_world(&world);
    init_world(&world, VECDB_IP, VECDB_F16, 2000, 400, 17);
    fill_at_random(&world, &random);
    lay_out(&world, 399, 0, false, &random);
    run_and_check(&world, 10, vdb_kernels_choose(NULL), NULL, 1, "large blocks");
    release_world(&world);
}

TEST(many_queries_go_through_in_chunks)
{
    struct vdb_random random = {test_seed()};
    struct world world;
    init_world(&world, VECDB_L2, VECDB_F32, 4, 60, 4500);
    fill_at_random(&world, &random);
    lay_out(&world, 16, 0, false, &random);
    run_and_check(&world, 3, vdb_kernels_choose(NULL), NULL, 1, "4500 queries");
    release_world(&world);
}

TEST(no_rows_no_blocks_and_no_queries_give_empty_answers)
{
    struct vdb_random random = {test_seed()};
    struct world world;
    init_world(&world, VECDB_L2, VECDB_F32, 4, 0, 12);
    run_and_check(&world, 5, vdb_kernels_choose(NULL), NULL, 1, "no blocks");
    lay_out(&world, 0, 0, false, &random);
    run_and_check(&world, 5, vdb_kernels_choose(NULL), NULL, 1, "an empty block");
    world.n_queries = 0;
    run_and_check(&world, 5, vdb_kernels_choose(NULL), NULL, 1, "no queries");
    release_world(&world);
}

TEST(a_search_without_k_is_refused)
{
    struct world world;
    init_world(&world, VECDB_L2, VECDB_F32, 4, 1, 1);
    struct vdb_search search = search_of(&world, 0, vdb_kernels_choose(NULL));
    struct vdb_blocks blocks = blocks_of(&world);
    struct vdb_answer answer;
    vecdb_error err;
    CHECK_FAILS(err, VECDB_INVALID, "k", vdb_flat_search(&search, &blocks, &answer, &err));
    release_world(&world);
}

/* ------------------------------------------------------------------ failures */

/* A world of 400 rows in 40 blocks, and an answer that a failed search must not touch. */
static void make_small_world(struct world *world, size_t n_queries)
{
    struct vdb_random random = {test_seed()};
    init_world(world, VECDB_COSINE, VECDB_F16, 24, 400, n_queries);
    fill_at_random(world, &random);
    vdb_slots_free(world->dead); /* it may hold all rows, and then no exact distance is asked for */
    world->dead = NULL;
    lay_out(world, 10, 0, false, &random);
}

TEST(a_pin_that_fails_ends_the_search_with_its_error_and_nothing_stays_pinned)
{
    for (size_t n_queries = 1; n_queries <= 9; n_queries += 8) {
        struct world world;
        make_small_world(&world, n_queries);
        struct vdb_pool *pool = make_pool(3);
        struct vdb_blocks blocks = blocks_of(&world);
        long n_failed = 0;
        for (int n_threads = 1; n_threads <= 3; n_threads += 2)
            for (long n = 0;; n++) {
                struct vdb_search search = search_of(&world, 30, vdb_kernels_choose(NULL));
                struct vdb_answer answer = {.n_blocks = 12345};
                vecdb_error err = {0};
                search.pool = pool;
                search.n_threads = n_threads;
                world.n_pins = 0;
                world.fail_at_pin = n;
                int status = vdb_flat_search(&search, &blocks, &answer, &err);
                CHECK_INT(world.n_pinned, 0);
                if (status == VECDB_OK) {
                    vdb_answer_release(&memory, &answer);
                    break;
                }
                n_failed++;
                CHECK_INT(status, VECDB_CORRUPT);
                CHECK_INT(err.status, VECDB_CORRUPT);
                CHECK_CONTAINS(err.message, "is damaged");
                CHECK(answer.n_blocks == 12345 && !answer.hits && !answer.first);
                CHECK_INT(vdb_flat_search(&search, &blocks, &answer, NULL), VECDB_CORRUPT);
            }
        CHECK(n_failed > 80); /* the scan's pins, and those of the exact distances */
        vdb_pool_free(pool);
        release_world(&world);
    }
}

struct limited {
    _Atomic long n_left;
};

static void *allocate(void *context, size_t size)
{
    struct limited *limited = context;
    return atomic_fetch_sub(&limited->n_left, 1) > 0 ? get_memory(size) : NULL;
}

static void *reallocate(void *context, void *block, size_t size)
{
    struct limited *limited = context;
    if (atomic_fetch_sub(&limited->n_left, 1) <= 0)
        return NULL;
    return resize(block, size);
}

static void release(void *context, void *block)
{
    (void)context;
    give_back(block);
}

TEST(an_allocation_that_fails_is_reported_and_leaks_nothing)
{
    for (int variant = 0; variant < 4; variant++) {
        struct limited limited = {LONG_MAX};
        vecdb_allocator allocator = {allocate, reallocate, release, &limited};
        vdb_memory_init(&memory, &allocator);
        struct world world;
        make_small_world(&world, variant % 2 ? 9 : 2);
        struct vdb_pool *pool = make_pool(2);
        size_t used = vdb_memory_used(&memory);
        struct vdb_blocks blocks = blocks_of(&world);
        long n = 0;
        for (;; n++) {
            struct vdb_search search = search_of(&world, variant < 2 ? 600 : 1, vdb_kernels_choose(NULL));
            struct vdb_answer answer = {.n_blocks = 12345};
            vecdb_error err = {0};
            search.pool = pool;
            search.n_threads = 2;
            limited.n_left = n;
            int status = vdb_flat_search(&search, &blocks, &answer, &err);
            limited.n_left = LONG_MAX;
            CHECK_INT(world.n_pinned, 0);
            if (status == VECDB_OK) {
                vdb_answer_release(&memory, &answer);
                CHECK_SIZE(vdb_memory_used(&memory), used);
                break;
            }
            CHECK_INT(status, VECDB_NOMEM);
            CHECK_CONTAINS(err.message, "memory");
            CHECK_INT(answer.n_blocks, 12345);
            CHECK_SIZE(vdb_memory_used(&memory), used);
        }
        CHECK(n > 5);
        vdb_pool_free(pool);
        release_world(&world);
    }
}

struct brake {
    _Atomic int n_calls;
    int stop_at;
};

static int ask(void *context, vecdb_error *err)
{
    struct brake *brake = context;
    if (atomic_fetch_add(&brake->n_calls, 1) + 1 < brake->stop_at)
        return VECDB_OK;
    if (err) {
        err->status = VECDB_INTERRUPTED;
        snprintf(err->message, sizeof err->message, "the caller had enough");
    }
    return VECDB_INTERRUPTED;
}

TEST(a_search_is_stopped_when_the_caller_says_so)
{
    struct vdb_random random = {test_seed()};
    for (size_t n_queries = 1; n_queries <= 32; n_queries += 31) {
        struct world world;
        init_world(&world, VECDB_L2, VECDB_F32, 1024, 6000, n_queries); /* 24 MB */
        for (size_t i = 0; i < 6000u * 1024; i++)
            ((float *)(void *)world.rows)[i] = (float)(vdb_random_next(&random) % 100);
        lay_out(&world, 16, 0, false, &random);
        struct vdb_pool *pool = make_pool(2);
        struct vdb_blocks blocks = blocks_of(&world);
        for (int n_threads = 1; n_threads <= 2; n_threads++) {
            struct brake brake = {.stop_at = 1000000};
            struct vdb_search search = search_of(&world, 10, vdb_kernels_choose(NULL));
            struct vdb_answer answer = {.n_blocks = 12345};
            vecdb_error err = {0};
            search.pool = pool;
            search.n_threads = n_threads;
            search.stop = ask;
            search.stop_context = &brake;
            CHECK_OK(err, vdb_flat_search(&search, &blocks, &answer, &err));
            CHECK(brake.n_calls >= 3 && brake.n_calls < 200);
            vdb_answer_release(&memory, &answer);
            brake = (struct brake){.stop_at = 2};
            answer.n_blocks = 12345;
            CHECK_FAILS(err, VECDB_INTERRUPTED, "enough", vdb_flat_search(&search, &blocks, &answer, &err));
            CHECK_INT(world.n_pinned, 0);
            CHECK_INT(answer.n_blocks, 12345);
        }
        vdb_pool_free(pool);
        release_world(&world);
    }
}

TEST(a_repeated_search_allocates_a_handful_of_blocks_and_returns_them_all)
{
    struct limited limited = {LONG_MAX};
    vecdb_allocator allocator = {allocate, reallocate, release, &limited};
    vdb_memory_init(&memory, &allocator);
    struct world world;
    make_small_world(&world, 100);
    struct vdb_blocks blocks = blocks_of(&world);
    struct vdb_search search = search_of(&world, 10, vdb_kernels_choose(NULL));
    for (int round = 0; round < 3; round++) {
        struct vdb_answer answer;
        vecdb_error err = {0};
        limited.n_left = 1000;
        CHECK_OK(err, vdb_flat_search(&search, &blocks, &answer, &err));
        CHECK_LE(1000 - limited.n_left, 16);
        limited.n_left = LONG_MAX;
        vdb_answer_release(&memory, &answer);
        CHECK_SIZE(vdb_memory_used(&memory), 0);
    }
    release_world(&world);
}
