/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/test_kernels.c - every kernel that this machine can run gives, for every dimension,
 * alignment, stride and number of rows, what double precision gives, within the error bound that
 * simd/kernels.h promises (integers and bits: exactly), and reads no byte outside of its rows.
 *
 * Rows lie in memory whose neighbouring pages cannot be read (struct fence), once right behind
 * the first of them and once right before the second, so that a kernel that reads too far faults.
 */
#include "harness.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/numbers.h"
#include "base/random.h"
#include "simd/kernels.h"

#define MAX_TABLES 8
#define MAX_ROWS 17

static const char *const op_names[VDB_N_OPS] = {"dot", "l2", "cosine"};

/* ---------------------------------------------------------------- memory with fences */

struct fence {
    uint8_t *pages; /* the first readable byte */
    size_t n_bytes;
};

static void fence_open(struct fence *fence, size_t n_bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    fence->n_bytes = (n_bytes + page - 1) / page * page;
    uint8_t *all = mmap(NULL, fence->n_bytes + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(all != MAP_FAILED);
    fence->pages = all + page;
    CHECK_INT(mprotect(fence->pages, fence->n_bytes, PROT_READ | PROT_WRITE), 0);
}

static void fence_close(struct fence *fence)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    munmap(fence->pages - page, fence->n_bytes + 2 * page);
}

static void *fence_first(const struct fence *fence)
{
    return fence->pages;
}

static void *fence_last(const struct fence *fence, size_t n_bytes)
{
    return fence->pages + fence->n_bytes - n_bytes;
}

/* ---------------------------------------------------------------- values */

enum kind { UNIFORM, WIDE, CANCELLING, TINY, EXTREME, N_KINDS };

static float random_float(struct vdb_random *random, enum kind kind, size_t i)
{
    float value = (float)(vdb_random_unit(random) * 2 - 1);
    switch (kind) {
    case WIDE: /* magnitudes from 1e-3 to 1e18 */
        return value * (float)pow(10, vdb_random_unit(random) * 21 - 3);
    case CANCELLING: /* neighbours that nearly undo one another */
        return (i % 2 ? -1.0f : 1.0f) * (1000 + value * 0x1p-10f);
    case TINY: /* down into the subnormals */
        return value * (float)pow(2, -100 - vdb_random_unit(random) * 45);
    default:
        return value;
    }
}

static void put_value(int type, void *to, float value, struct vdb_random *random, enum kind kind)
{
    uint16_t half;
    uint8_t byte = (uint8_t)vdb_random_next(random);
    switch (type) {
    case VECDB_F32:
        memcpy(to, &value, sizeof value);
        break;
    case VECDB_F16:
        half = vdb_f16_of_float(kind == TINY ? value * 0x1p80f : fmodf(value, 60000)) ; /* stays finite */
        memcpy(to, &half, sizeof half);
        break;
    case VECDB_BF16:
        half = vdb_bf16_of_float(value);
        memcpy(to, &half, sizeof half);
        break;
    case VECDB_I8:
        *(uint8_t *)to = kind == EXTREME ? 128 : byte;
        break;
    default:
        *(uint8_t *)to = kind == EXTREME ? 255 : byte;
        break;
    }
}

static void fill(int type, void *to, uint32_t d, enum kind kind, struct vdb_random *random)
{
    for (uint32_t i = 0; i < d; i++)
        put_value(type, (char *)to + i * vdb_vector_bytes(type, 1), random_float(random, kind, i), random, kind);
}

/* ---------------------------------------------------------------- the truth */

struct truth {
    double exact, bound;
};

static double value_at(int type, const void *values, uint32_t i)
{
    uint32_t aligned = 0;
    float value;
    size_t size = vdb_vector_bytes(type, 1);
    memcpy(&aligned, (const char *)values + i * size, size);
    vdb_floats_of(type, &aligned, 1, &value);
    return value;
}

static struct truth truth_of(int op, int query_type, const void *query, int row_type, const void *row, uint32_t d)
{
    double dot = 0, l2 = 0, qq = 0, xx = 0;
    for (uint32_t i = 0; i < d; i++) {
        double q = value_at(query_type, query, i), x = value_at(row_type, row, i);
        dot += q * x;
        l2 += (q - x) * (q - x);
        qq += q * q;
        xx += x * x;
    }
    double least = d * 0x1p-126, factor = vdb_kernel_error(d);
    switch (op) {
    case VDB_OP_DOT:
        return (struct truth){dot, factor * sqrt(qq) * sqrt(xx) + least};
    case VDB_OP_L2:
        return (struct truth){l2, factor * l2 + least};
    default:
        return (struct truth){xx == 0 ? 0 : dot / sqrt(xx), factor * sqrt(qq) + least};
    }
}

static void check_score(const char *table, int op, int query_type, int row_type, uint32_t d, size_t row, float score,
                        struct truth truth)
{
    /* What does not fit a float, on the way or at the end, may be infinite or NaN. */
    if (!isfinite(score) && (fabs(truth.exact) > 1e37 || truth.bound > vdb_kernel_error(d) * 1e37))
        return;
    if (!(fabs((double)score - truth.exact) <= truth.bound))
        FAIL("%s %s, query %s, rows %s, d = %u, row %zu: %.9g, exactly %.17g, bound %.3g", table, op_names[op],
             vdb_type_name(query_type), vdb_type_name(row_type), d, row, (double)score, truth.exact, truth.bound);
}

/* ---------------------------------------------------------------- one case */

struct place {
    size_t n_rows;
    size_t gap;       /* bytes between rows */
    size_t misaligned; /* bytes the query is off its natural place */
    int at_end;       /* rows end at the fence; else they begin at it */
};

static uint8_t *place_rows(const struct fence *fence, const struct place *place, size_t row_bytes)
{
    size_t n_bytes = place->n_rows ? (row_bytes + place->gap) * (place->n_rows - 1) + row_bytes : 0;
    return place->at_end ? fence_last(fence, n_bytes) : fence_first(fence);
}

static void check_rows(const char *table, vdb_score_fn score, int op, int query_type, int row_type, uint32_t d,
                       enum kind kind, const struct place *place, struct vdb_random *random)
{
    struct fence rows, queries;
    size_t row_bytes = vdb_vector_bytes(row_type, d), query_bytes = vdb_vector_bytes(query_type, d);
    float scores[MAX_ROWS + 1];
    fence_open(&rows, (row_bytes + place->gap) * (place->n_rows + 1));
    fence_open(&queries, query_bytes + place->misaligned);
    uint8_t *first = place_rows(&rows, place, row_bytes);
    uint8_t *query = place->at_end ? fence_last(&queries, query_bytes)
                                   : (uint8_t *)fence_first(&queries) + place->misaligned;

    fill(query_type, query, d, kind, random);
    memset(rows.pages, 0xff, rows.n_bytes); /* NaN wherever a kernel must not look */
    for (size_t r = 0; r < place->n_rows; r++) {
        void *row = first + r * (row_bytes + place->gap);
        if (kind == EXTREME && r == 1 && row_bytes == query_bytes)
            memcpy(row, query, row_bytes);
        else if (kind == EXTREME && r == 2)
            memset(row, 0, row_bytes);
        else
            fill(row_type, row, d, kind, random);
    }
    scores[place->n_rows] = 12345;
    score(query, first, row_bytes + place->gap, place->n_rows, d, scores);
    CHECK_DOUBLE(scores[place->n_rows], 12345); /* and writes no more scores than rows */
    for (size_t r = 0; r < place->n_rows; r++) {
        struct truth truth = truth_of(op, query_type, query, row_type, first + r * (row_bytes + place->gap), d);
        int is_integer = query_type == row_type && (row_type == VECDB_I8 || row_type == VECDB_U8);
        if (is_integer && scores[r] != (float)truth.exact)
            FAIL("%s %s of %s, d = %u, row %zu: %.9g, exactly %.17g", table, op_names[op], vdb_type_name(row_type), d,
                 r, (double)scores[r], truth.exact);
        check_score(table, op, query_type, row_type, d, r, scores[r], truth);
    }
    fence_close(&rows);
    fence_close(&queries);
}

typedef void each_kernel(const struct vdb_kernels *table, vdb_score_fn score, int op, int query_type, int row_type,
                         struct vdb_random *random);

static void for_each_kernel(each_kernel *check)
{
    const struct vdb_kernels *tables[MAX_TABLES];
    size_t n_tables = vdb_kernels_available(tables, MAX_TABLES);
    struct vdb_random random = {test_seed()};
    for (size_t t = 0; t < n_tables; t++) {
        for (int op = 0; op < VDB_N_OPS; op++) {
            for (int type = VECDB_F32; type <= VECDB_U8; type++) {
                CHECK(tables[t]->float_query[op][type] != NULL);
                check(tables[t], tables[t]->float_query[op][type], op, VECDB_F32, type, &random);
                if (tables[t]->same_type[op][type])
                    check(tables[t], tables[t]->same_type[op][type], op, type, type, &random);
            }
        }
    }
}

/* ---------------------------------------------------------------- scores */

static void check_dimensions(const struct vdb_kernels *table, vdb_score_fn score, int op, int query_type, int row_type,
                             struct vdb_random *random)
{
    static const size_t n_rows[] = {0, 1, 2, 3, 5, 17};
    for (uint32_t d = 1; d <= 131; d++) {
        for (size_t i = 0; i < 6; i++) {
            struct place place = {n_rows[i], (d + i) % 4 * 3, (d + i) % 5, (int)(d + i) % 2};
            check_rows(table->name, score, op, query_type, row_type, d, i % 2 ? UNIFORM : CANCELLING, &place, random);
        }
    }
}

TEST(every_dimension_to_131_scores_within_the_bound_and_reads_only_its_rows)
{
    for_each_kernel(check_dimensions);
}

static void check_large(const struct vdb_kernels *table, vdb_score_fn score, int op, int query_type, int row_type,
                        struct vdb_random *random)
{
    static const uint32_t dimensions[] = {255, 256, 257, 784, 1000, 1024, 1536, 4099, 65535, 65536};
    for (size_t i = 0; i < sizeof dimensions / sizeof dimensions[0]; i++) {
        for (int at_end = 0; at_end < 2; at_end++) {
            struct place place = {5, at_end ? 0 : 7, 1, at_end};
            check_rows(table->name, score, op, query_type, row_type, dimensions[i], at_end ? UNIFORM : EXTREME, &place,
                       random);
        }
    }
}

TEST(large_dimensions_score_within_the_bound_and_extreme_integers_do_not_overflow)
{
    for_each_kernel(check_large);
}

static void check_kinds(const struct vdb_kernels *table, vdb_score_fn score, int op, int query_type, int row_type,
                        struct vdb_random *random)
{
    static const uint32_t dimensions[] = {1, 2, 7, 16, 31, 33, 100, 129, 1024};
    for (int kind = 0; kind < N_KINDS; kind++) {
        for (size_t i = 0; i < sizeof dimensions / sizeof dimensions[0]; i++) {
            struct place place = {5, 0, 0, 1};
            check_rows(table->name, score, op, query_type, row_type, dimensions[i], kind, &place, random);
        }
    }
}

TEST(cancelling_tiny_and_huge_values_keep_the_bound)
{
    for_each_kernel(check_kinds);
}

/* A query of one magnitude against rows of another, which is where flushing subnormals would show. */
static void check_mixed_magnitudes(const struct vdb_kernels *table, vdb_score_fn score, int op, int query_type,
                                   int row_type, struct vdb_random *random)
{
    static const float scales[] = {0x1p-130f, 0x1p-100f, 0x1p-60f, 0x1p-24f, 0x1p-10f, 1, 0x1p15f, 0x1p60f};
    enum { D = 37, N_SCALES = 8 };
    float query[D], row[D];
    char query_bytes[D * 4], row_bytes[D * 4];
    for (int a = 0; a < N_SCALES; a++) {
        for (int b = 0; b < N_SCALES; b++) {
            for (int i = 0; i < D; i++) {
                query[i] = random_float(random, UNIFORM, 0) * scales[a];
                row[i] = random_float(random, UNIFORM, 0) * scales[b];
                put_value(query_type, query_bytes + i * vdb_vector_bytes(query_type, 1), query[i], random, UNIFORM);
                put_value(row_type, row_bytes + i * vdb_vector_bytes(row_type, 1), row[i], random, UNIFORM);
            }
            float out;
            score(query_bytes, row_bytes, sizeof row_bytes, 1, D, &out);
            check_score(table->name, op, query_type, row_type, D, 0, out,
                        truth_of(op, query_type, query_bytes, row_type, row_bytes, D));
        }
    }
}

TEST(queries_and_rows_of_very_different_magnitude_keep_the_bound)
{
    for_each_kernel(check_mixed_magnitudes);
}

TEST(halves_that_are_infinite_or_subnormal_score_as_such)
{
    const struct vdb_kernels *tables[MAX_TABLES];
    size_t n_tables = vdb_kernels_available(tables, MAX_TABLES);
    for (size_t t = 0; t < n_tables; t++) {
        for (uint32_t d = 1; d <= 40; d++) {
            float query[40], out = 0;
            uint16_t row[40];
            for (uint32_t i = 0; i < d; i++) {
                query[i] = 1;
                row[i] = 1; /* 2^-24, the least subnormal */
            }
            tables[t]->float_query[VDB_OP_DOT][VECDB_F16](query, row, 2 * d, 1, d, &out);
            CHECK_DOUBLE(out, d * 0x1p-24);
            row[d / 2] = 0x7c00;
            tables[t]->float_query[VDB_OP_DOT][VECDB_F16](query, row, 2 * d, 1, d, &out);
            CHECK_DOUBLE(out, INFINITY);
            row[d - 1] = 0xfc00;
            row[0] = 0x7c00;
            tables[t]->float_query[VDB_OP_DOT][VECDB_F16](query, row, 2 * d, 1, d, &out);
            CHECK(d == 1 ? out == -INFINITY || out == INFINITY : isnan(out));
        }
    }
}

TEST(a_row_of_zeros_has_cosine_zero)
{
    const struct vdb_kernels *tables[MAX_TABLES];
    size_t n_tables = vdb_kernels_available(tables, MAX_TABLES);
    for (size_t t = 0; t < n_tables; t++) {
        for (int type = VECDB_F32; type <= VECDB_U8; type++) {
            float query[40], out[5] = {1, 1, 1, 1, 1};
            char rows[5 * 160] = {0};
            for (int i = 0; i < 40; i++)
                query[i] = (float)i;
            tables[t]->float_query[VDB_OP_COSINE][type](query, rows, 160, 5, 40, out);
            if (tables[t]->same_type[VDB_OP_COSINE][type])
                tables[t]->same_type[VDB_OP_COSINE][type](query, rows, 160, 1, 40, out + 4);
            for (int i = 0; i < 5; i++)
                CHECK_DOUBLE(out[i], 0);
        }
    }
}

/* ---------------------------------------------------------------- bits */

TEST(bits_that_differ_are_counted_exactly)
{
    const struct vdb_kernels *tables[MAX_TABLES];
    size_t n_tables = vdb_kernels_available(tables, MAX_TABLES);
    struct vdb_random random = {test_seed()};
    static const uint32_t large[] = {511, 512, 513, 1024, 1536, 2049, 4096, 65535, 65536};
    for (uint32_t i = 1; i <= 300 + sizeof large / sizeof large[0]; i++) {
        uint32_t d = i <= 300 ? i : large[i - 301];
        size_t n_bytes = vdb_vector_bytes(VECDB_BIT, d);
        struct place place = {5, i % 3, 0, (int)i % 2};
        struct fence rows, queries;
        fence_open(&rows, 6 * (n_bytes + 3));
        fence_open(&queries, n_bytes);
        uint8_t *first = place_rows(&rows, &place, n_bytes), *query = fence_last(&queries, n_bytes);
        uint8_t unused = d % 8 ? (uint8_t)(255 << d % 8) : 0;
        for (size_t b = 0; b < rows.n_bytes; b++)
            rows.pages[b] = (uint8_t)vdb_random_next(&random);
        for (size_t b = 0; b < n_bytes; b++)
            query[b] = (uint8_t)vdb_random_next(&random);
        query[n_bytes - 1] &= (uint8_t)~unused;
        size_t stride = n_bytes + place.gap;
        for (size_t b = 0; b < n_bytes; b++)
            first[b] = (uint8_t)~query[b]; /* all differ */
        for (size_t r = 0; r < place.n_rows; r++)
            first[r * stride + n_bytes - 1] &= (uint8_t)~unused;
        for (size_t t = 0; t < n_tables; t++) {
            float out[5];
            tables[t]->hamming(query, first, stride, place.n_rows, d, out);
            CHECK_DOUBLE(out[0], d);
            for (size_t r = 0; r < place.n_rows; r++) {
                int count = 0;
                for (size_t b = 0; b < n_bytes; b++)
                    count += __builtin_popcount(query[b] ^ first[r * stride + b]);
                CHECK_DOUBLE(out[r], count);
            }
        }
        fence_close(&rows);
        fence_close(&queries);
    }
}

/* ---------------------------------------------------------------- tiles */

static void check_tile(const struct vdb_kernels *table, int op, uint32_t d, const struct place *place,
                       struct vdb_random *random)
{
    struct fence rows, queries[VDB_TILE_QUERIES];
    const float *query[VDB_TILE_QUERIES];
    size_t row_bytes = (size_t)d * 4, stride = row_bytes + place->gap, out_stride = MAX_ROWS + 1;
    float out[VDB_TILE_QUERIES * (MAX_ROWS + 1)];

    fence_open(&rows, stride * (place->n_rows + 1));
    memset(rows.pages, 0xff, rows.n_bytes);
    uint8_t *first = place_rows(&rows, place, row_bytes);
    for (size_t r = 0; r < place->n_rows; r++)
        fill(VECDB_F32, first + r * stride, d, UNIFORM, random);
    for (int j = 0; j < VDB_TILE_QUERIES; j++) {
        fence_open(&queries[j], row_bytes);
        query[j] = place->at_end ? fence_last(&queries[j], row_bytes) : fence_first(&queries[j]);
        fill(VECDB_F32, (void *)(uintptr_t)query[j], d, UNIFORM, random);
    }
    for (size_t i = 0; i < sizeof out / sizeof out[0]; i++)
        out[i] = 12345;
    (op == VDB_OP_DOT ? table->tile_dot : table->tile_l2)(query, (const float *)(const void *)first, stride,
                                                          place->n_rows, d, out, out_stride);
    for (size_t j = 0; j < VDB_TILE_QUERIES; j++) {
        for (size_t r = 0; r < place->n_rows; r++)
            check_score(table->name, op, VECDB_F32, VECDB_F32, d, r, out[j * out_stride + r],
                        truth_of(op, VECDB_F32, query[j], VECDB_F32, first + r * stride, d));
        for (size_t r = place->n_rows; r < out_stride; r++)
            CHECK_DOUBLE(out[j * out_stride + r], 12345);
        fence_close(&queries[j]);
    }
    fence_close(&rows);
}

TEST(tiles_of_four_queries_score_like_single_queries)
{
    const struct vdb_kernels *tables[MAX_TABLES];
    size_t n_tables = vdb_kernels_available(tables, MAX_TABLES);
    struct vdb_random random = {test_seed()};
    static const size_t n_rows[] = {0, 1, 2, 3, 4, 5, 6, 7, 17};
    static const uint32_t large[] = {255, 256, 257, 784, 1536, 65536};
    for (size_t t = 0; t < n_tables; t++) {
        for (uint32_t i = 1; i <= 131 + 6; i++) {
            uint32_t d = i <= 131 ? i : large[i - 132];
            for (size_t n = 0; n < 9; n++) {
                if (i > 131 && n < 8)
                    continue;
                struct place place = {n_rows[n], n % 2 * 4, 0, (int)(i + n) % 2};
                check_tile(tables[t], n % 2 ? VDB_OP_L2 : VDB_OP_DOT, d, &place, &random);
                check_tile(tables[t], n % 2 ? VDB_OP_DOT : VDB_OP_L2, d, &place, &random);
            }
        }
    }
}

/* ---------------------------------------------------------------- widening */

static void check_same_float(const char *table, int type, size_t i, float got, float expected)
{
    if (isnan(expected) ? !isnan(got) : vdb_bits_of_float(got) != vdb_bits_of_float(expected))
        FAIL("%s: widen of %s, value %zu: %.9g, not %.9g", table, vdb_type_name(type), i, (double)got,
             (double)expected);
}

TEST(widening_is_exact_for_every_bit_pattern)
{
    enum { N = 65536 };
    static uint16_t patterns[N];
    static uint8_t bytes[N];
    static float out[N], expected[N];
    const struct vdb_kernels *tables[MAX_TABLES];
    size_t n_tables = vdb_kernels_available(tables, MAX_TABLES);
    for (size_t i = 0; i < N; i++) {
        patterns[i] = (uint16_t)i;
        bytes[i] = (uint8_t)i;
    }
    for (size_t t = 0; t < n_tables; t++) {
        for (int type = VECDB_F16; type <= VECDB_U8; type++) {
            const void *values = type == VECDB_F16 || type == VECDB_BF16 ? (const void *)patterns : bytes;
            vdb_floats_of(type, values, N, expected);
            tables[t]->widen[type](values, N, out);
            for (size_t i = 0; i < N; i++)
                check_same_float(tables[t]->name, type, i, out[i], expected[i]);
        }
    }
}

TEST(widening_any_number_of_values_at_any_address_reads_and_writes_no_more)
{
    const struct vdb_kernels *tables[MAX_TABLES];
    size_t n_tables = vdb_kernels_available(tables, MAX_TABLES);
    struct vdb_random random = {test_seed()};
    struct fence values, floats;
    fence_open(&values, 4096);
    fence_open(&floats, 4096);
    for (size_t t = 0; t < n_tables; t++) {
        for (int type = VECDB_F32; type <= VECDB_U8; type++) {
            for (uint32_t n = 0; n <= 131; n++) {
                uint8_t *from = fence_last(&values, vdb_vector_bytes(type, n));
                float *to = fence_last(&floats, n * 4), expected[131];
                fill(type, from, n, UNIFORM, &random);
                for (uint32_t i = 0; i < n; i++)
                    expected[i] = (float)value_at(type, from, i);
                if (n < 131)
                    to[-1] = 12345;
                tables[t]->widen[type](from, n, to);
                CHECK_DOUBLE(n < 131 ? to[-1] : 12345, 12345);
                for (uint32_t i = 0; i < n; i++)
                    check_same_float(tables[t]->name, type, i, to[i], expected[i]);
            }
        }
    }
    fence_close(&values);
    fence_close(&floats);
}

/* ---------------------------------------------------------------- dispatch */

TEST(a_cap_chooses_the_best_table_not_above_it)
{
    const struct vdb_kernels *tables[MAX_TABLES];
    size_t n_tables = vdb_kernels_available(tables, MAX_TABLES);
    CHECK(n_tables >= 1);
    CHECK_STRING(tables[n_tables - 1]->name, "scalar");
    printf("    tiers that run here:");
    for (size_t t = 0; t < n_tables; t++) {
        printf(" %s", tables[t]->name);
        CHECK(vdb_kernels_choose(tables[t]->name) == tables[t]);
        setenv("VECDB_SIMD", tables[t]->name, 1);
        CHECK(vdb_kernels_choose(NULL) == tables[t]);
    }
    printf("\n");
    setenv("VECDB_SIMD", "scalar", 1);
    CHECK(vdb_kernels_choose(tables[0]->name) == tables[0]); /* an argument goes before the environment */
    CHECK_STRING(vdb_kernels_choose("sse9")->name, "scalar");
    CHECK_STRING(vdb_kernels_choose("AVX2")->name, "scalar"); /* names are exact */
    setenv("VECDB_SIMD", "no such thing", 1);
    CHECK_STRING(vdb_kernels_choose(NULL)->name, "scalar");
    setenv("VECDB_SIMD", "", 1);
    CHECK(vdb_kernels_choose(NULL) == tables[0]);
    unsetenv("VECDB_SIMD");
    CHECK(vdb_kernels_choose(NULL) == tables[0]);
}

TEST(the_list_of_tables_is_cut_at_its_limit)
{
    const struct vdb_kernels *tables[MAX_TABLES] = {NULL};
    CHECK_SIZE(vdb_kernels_available(tables, 0), 0);
    CHECK(tables[0] == NULL);
    CHECK_SIZE(vdb_kernels_available(tables, 1), 1);
    CHECK(tables[0] == vdb_kernels_choose(NULL) || getenv("VECDB_SIMD"));
    CHECK(tables[1] == NULL);
}
