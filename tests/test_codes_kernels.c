/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/test_codes_kernels.c - the kernels for codes give, on every tier, the very bits that the formulas of
 * simd/kernels.h give when they are followed word by word, and read no byte outside of records and query.
 *
 * Records lie between pages that cannot be read, and the last one ends where the readable memory ends.
 */
#include "harness.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/random.h"
#include "simd/kernels.h"

#define MAX_TABLES 8
#define MAX_IDS 40

static const struct vdb_kernels *tables[MAX_TABLES];
static size_t n_tables;

static void find_tables(void)
{
    n_tables = vdb_kernels_available(tables, MAX_TABLES);
}

/* n_bytes that end right before a page that cannot be read, and begin at a multiple of 16. */
struct fenced {
    unsigned char *all, *bytes;
    size_t all_bytes;
};

static void fence(struct fenced *memory, size_t n_bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), inner = (n_bytes + page - 1) / page * page;
    memory->all_bytes = inner + 2 * page;
    memory->all = mmap(NULL, memory->all_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory->all != MAP_FAILED);
    CHECK_INT(mprotect(memory->all + page, inner, PROT_READ | PROT_WRITE), 0);
    memory->bytes = memory->all + page + inner - n_bytes;
}

static void unfence(struct fenced *memory)
{
    munmap(memory->all, memory->all_bytes);
}

enum values { RANDOM, LARGEST, MIXED_EXTREMES, N_VALUES };

static void fill(struct vdb_random *random, enum values kind, void *bytes, size_t n, int low, int high)
{
    unsigned char *p = bytes;
    for (size_t i = 0; i < n; i++) {
        int value = kind == LARGEST          ? high
                    : kind == MIXED_EXTREMES ? (vdb_random_below(random, 2) ? low : high)
                                             : low + (int)vdb_random_below(random, (uint64_t)(high - low + 1));
        p[i] = (unsigned char)value;
    }
}

/* The value of place `i` of a 4-bit code, by the layout in words. */
static int value4(const unsigned char *code, uint32_t n_values, uint32_t i)
{
    uint32_t begin = i / 128 * 128, width = n_values - begin >= 128 ? 64 : 32, j = i - begin;
    unsigned char byte = code[begin / 2 + j % width];
    return j < width ? byte & 15 : byte >> 4;
}

static float expected(int bits, const struct vdb_code_query *query, const unsigned char *record, uint32_t n_values)
{
    int64_t sum = 0;
    for (uint32_t i = 0; i < n_values; i++)
        sum += (int64_t)query->values[i] * (bits == 4 ? value4(record, n_values, i) : record[i]);
    sum = bits == 4 ? 2 * sum - 15 * (int64_t)query->sum : sum - 128 * (int64_t)query->sum;
    CHECK(sum >= INT32_MIN && sum <= INT32_MAX);
    float add, scale;
    memcpy(&add, record + (bits == 4 ? n_values / 2 : n_values), 4);
    memcpy(&scale, record + (bits == 4 ? n_values / 2 : n_values) + 4, 4);
    volatile float product = query->scale * (float)sum; /* one rounding each */
    product = scale * product;
    return add + product;
}

static void compare_codes(struct vdb_random *random, int bits, uint32_t n_values, enum values kind)
{
    const size_t code_bytes = bits == 4 ? n_values / 2 : n_values;
    const size_t stride = (code_bytes + 8 + 15) / 16 * 16 + 16 * vdb_random_below(random, 3);
    const uint32_t n_records = 1 + (uint32_t)vdb_random_below(random, 12);
    const size_t n = vdb_random_below(random, MAX_IDS + 1);
    struct fenced records, values;
    fence(&records, (n_records - 1) * stride + code_bytes + 8);
    fence(&values, n_values);
    for (uint32_t r = 0; r < n_records; r++) {
        unsigned char *record = records.bytes + r * stride;
        float factors[2] = {(float)(vdb_random_unit(random) * 100), (float)(vdb_random_unit(random) * 0.1 - 0.05)};
        fill(random, kind, record, code_bytes, 0, 255);
        memcpy(record + code_bytes, factors, sizeof factors);
    }
    fill(random, kind, values.bytes, n_values, -128, 127);
    struct vdb_code_query query = {.values = (const int8_t *)values.bytes, .scale = (float)vdb_random_unit(random)};
    for (uint32_t i = 0; i < n_values; i++)
        query.sum += query.values[i];
    uint32_t ids[MAX_IDS];
    for (size_t i = 0; i < n; i++)
        ids[i] = (uint32_t)vdb_random_below(random, n_records);
    for (size_t t = 0; t < n_tables; t++) {
        float out[MAX_IDS + 1];
        out[n] = 12345;
        (bits == 4 ? tables[t]->code4 : tables[t]->code8)(&query, records.bytes, stride, n_values, ids, n, out);
        for (size_t i = 0; i < n; i++) {
            float want = expected(bits, &query, records.bytes + ids[i] * stride, n_values);
            if (memcmp(&want, &out[i], sizeof want) != 0)
                FAIL("%s: %d bits, %u values, record %u: %a, not %a", tables[t]->name, bits, n_values, ids[i],
                     (double)out[i], (double)want);
        }
        CHECK(out[n] == 12345);
    }
    unfence(&records);
    unfence(&values);
}

static void all_sizes(int bits)
{
    struct vdb_random random = {test_seed()};
    find_tables();
    for (int kind = 0; kind < N_VALUES; kind++) {
        for (uint32_t n_values = 64; n_values <= 1536; n_values += 64)
            for (int round = 0; round < 3; round++)
                compare_codes(&random, bits, n_values, kind);
        compare_codes(&random, bits, 65536, kind);
    }
}

TEST(codes_of_4_bits_are_scored_to_the_bit)
{
    all_sizes(4);
}

TEST(codes_of_8_bits_are_scored_to_the_bit)
{
    all_sizes(8);
}

TEST(differing_bits_are_counted)
{
    struct vdb_random random = {test_seed()};
    find_tables();
    for (uint32_t n_bytes = 1; n_bytes <= 8192; n_bytes += n_bytes < 140 ? 1 : n_bytes < 300 ? 13 : 1973) {
        const uint32_t n_records = 5;
        const size_t stride = n_bytes + vdb_random_below(&random, 20);
        struct fenced records, query;
        fence(&records, (n_records - 1) * stride + n_bytes);
        fence(&query, n_bytes);
        fill(&random, n_bytes % 7 ? RANDOM : LARGEST, records.bytes, (n_records - 1) * stride + n_bytes, 0, 255);
        fill(&random, RANDOM, query.bytes, n_bytes, 0, n_bytes % 5 ? 255 : 0);
        const uint32_t ids[7] = {4, 0, 3, 3, 1, 2, 4};
        for (size_t t = 0; t < n_tables; t++) {
            float out[7];
            tables[t]->code_bits(query.bytes, records.bytes, stride, n_bytes, ids, 7, out);
            for (size_t i = 0; i < 7; i++) {
                int want = 0;
                for (uint32_t j = 0; j < 8 * n_bytes; j++)
                    want += (query.bytes[j / 8] ^ records.bytes[ids[i] * stride + j / 8]) >> j % 8 & 1;
                if (out[i] != (float)want)
                    FAIL("%s: %u bytes: %g bits, not %d", tables[t]->name, n_bytes, (double)out[i], want);
            }
        }
        unfence(&records);
        unfence(&query);
    }
}

TEST(a_hadamard_transform_is_the_textbook_one_to_the_bit)
{
    struct vdb_random random = {test_seed()};
    find_tables();
    for (size_t n = 64; n <= 65536; n *= 2) {
        struct fenced want, got;
        float *given = malloc(n * sizeof *given);
        CHECK(given);
        fence(&want, n * sizeof(float));
        fence(&got, n * sizeof(float));
        for (size_t i = 0; i < n; i++)
            given[i] = (float)(vdb_random_unit(&random) * 2 - 1) * (i % 9 ? 1.0f : 1e6f);
        float *w = (float *)(void *)want.bytes;
        memcpy(w, given, n * sizeof *w);
        for (size_t h = 1; h < n; h *= 2)
            for (size_t i = 0; i < n; i++)
                if (!(i & h)) {
                    float a = w[i], b = w[i + h];
                    w[i] = a + b;
                    w[i + h] = a - b;
                }
        for (size_t t = 0; t < n_tables; t++) {
            memcpy(got.bytes, given, n * sizeof *given);
            tables[t]->hadamard((float *)(void *)got.bytes, n);
            if (memcmp(got.bytes, want.bytes, n * sizeof *w) != 0)
                FAIL("%s: a transform of %zu values differs", tables[t]->name, n);
        }
        free(given);
        unfence(&want);
        unfence(&got);
    }
}

/* ------------------------------------------------------------------ sorted keys */

#define MOST_KEYS 300u

/* The plain way: behind all keys that are smaller, the last one falls out. */
static uint32_t insert_plainly(uint64_t *keys, uint32_t *n, uint32_t limit, const uint64_t *fresh, uint32_t n_fresh)
{
    uint32_t lowest = limit;
    for (uint32_t i = 0; i < n_fresh; i++) {
        uint32_t place = 0;
        while (place < *n && keys[place] < fresh[i])
            place++;
        if (place == limit)
            continue;
        *n += *n < limit;
        for (uint32_t at = *n - 1; at > place; at--)
            keys[at] = keys[at - 1];
        keys[place] = fresh[i];
        lowest = place < lowest ? place : lowest;
    }
    return lowest;
}

TEST(keys_are_put_where_they_belong_and_the_largest_fall_out)
{
    struct vdb_random random = {test_seed()};
    _Alignas(64) uint64_t got[MOST_KEYS + 8], want[MOST_KEYS + 8];
    uint64_t fresh[MAX_IDS];
    find_tables();
    for (size_t t = 0; t < n_tables; t++)
        for (uint32_t limit = 1; limit <= MOST_KEYS; limit += limit < 40 ? 1 : 13) {
            uint32_t n_got = 0, n_want = 0, room = (limit + 7) / 8 * 8;
            memset(got, 0xff, sizeof got);
            memset(want, 0xff, sizeof want);
            got[room] = 0; /* belongs to somebody else */
            for (uint64_t step = 0; step < 60; step++) {
                uint32_t n_fresh = (uint32_t)vdb_random_below(&random, MAX_IDS + 1);
                for (uint32_t i = 0; i < n_fresh; i++) /* different ones, of all magnitudes */
                    fresh[i] = (vdb_random_next(&random) >> vdb_random_below(&random, 40) & ~UINT64_C(0xfff)) |
                               (step * MAX_IDS + i);
                uint32_t place = tables[t]->insert_keys(got, &n_got, limit, fresh, n_fresh);
                CHECK_INT(place, insert_plainly(want, &n_want, limit, fresh, n_fresh));
                CHECK_INT(n_got, n_want);
                if (memcmp(got, want, room * sizeof *got) != 0 || got[room] != 0)
                    FAIL("%s: limit %u, step %u: the keys differ", tables[t]->name, limit, (unsigned)step);
            }
        }
}
