/* SPDX-License-Identifier: Apache-2.0
 *
 * simd/codes_shape.h - the loops of the kernels for codes, written once
 *
 * Like kernels_shape.h: a tier's file defines the primitives, includes this file and says
 * VDB_CODE_KERNELS(tier).
 *
 *     sum4(values, code, n_values)  the sum of query value times value of a 4-bit code
 *     sum8(query, code, n_values)   the same of an 8-bit code whose bytes are taken as value - 128 (which
 *                                   x ^ 128 makes of them), so without 128 times the query's sum
 *     count_bits(a, b, n_bytes)     how many bits differ
 *     LANES, vec, load, store, add, sub, and for each h = 1, 2, 4, .. below LANES
 *     swap(v, h)                    lanes i and i ^ h exchanged
 *     choose(a, b, h)               lanes with i & h from b, the others from a
 *
 * Invariant: sums are exact integers, three roundings in a fixed order follow (the objects are compiled
 * without contraction), and a Hadamard transform adds and subtracts the same pairs in the same order
 * whatever LANES is. So all tiers give the same bits, and a graph is the same on every machine.
 *
 * Costs: of a code that is not in the cache, filling its lines: about 20 ns for 128 values of 4 bits, 35 for 768.
 * The arithmetic is 3-10 ns and runs beside it. So what counts is to ask for lines early: sixteen codes ahead, and
 * 2 KiB of each, since the hardware's prefetcher finds no stride in so few lines. Chosen with bench_codes on Zen 5,
 * ns for a code of 4 bits at random among 512 MB with 128, 384, 768, 1536 values: 6 codes and 512 bytes 24, 33, 45,
 * 98; 12 and 1 KiB 20, 27, 36, 60; 16 and 2 KiB 18, 22, 35, 56; 24 and 2 KiB 14, 20, 32, 65, which loses more
 * with long codes than it wins with short ones.
 *
 * Not done: several codes in one pass, which would read the query once for all of them. In the cache a code of 128
 * values takes 3 ns as it is, out of it its lines take 14.
 */
#ifndef VDB_SIMD_CODES_SHAPE_H
#define VDB_SIMD_CODES_SHAPE_H

#include "simd/kernels_private.h"

#define CODES_AHEAD 16
#define CODES_AHEAD_BYTES 2048
#define CODES_INLINE static inline __attribute__((always_inline))

CODES_INLINE void fetch_record(const unsigned char *record, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i += 64)
        __builtin_prefetch(record + i, 0, 3);
    __builtin_prefetch(record + n_bytes - 1, 0, 3);
}

/* add + scale * (of_query * sum), each rounded once. */
CODES_INLINE float score_of(const unsigned char *factors, float of_query, int32_t sum)
{
    float add_scale[2];
    memcpy(add_scale, factors, sizeof add_scale);
    float product = of_query * (float)sum;
    product = add_scale[1] * product;
    return add_scale[0] + product;
}

CODES_INLINE void score_codes(int width, const struct vdb_code_query *query, const unsigned char *codes, size_t stride,
                              uint32_t n_values, const uint32_t *ids, size_t n, float *out)
{
    const size_t n_bytes = width == 4 ? n_values / 2 : n_values, n_fetched = n_bytes + 8;
    const size_t few = n_fetched < CODES_AHEAD_BYTES ? n_fetched : CODES_AHEAD_BYTES;
    size_t i = 0, ahead = 0;
    for (; ahead < n && ahead < CODES_AHEAD; ahead++)
        fetch_record(codes + ids[ahead] * stride, few);
#ifdef HAS_SUMS_OF_FOUR
    for (; i + 4 <= n; i += 4) {
        const unsigned char *records[4];
        int32_t sums[4];
        for (int r = 0; r < 4; r++, ahead++) {
            records[r] = codes + ids[i + (size_t)r] * stride;
            if (ahead < n)
                fetch_record(codes + ids[ahead] * stride, few);
        }
        if (width == 4)
            sum4_of_four(query->values, records, n_values, sums);
        else
            sum8_of_four(query, records, n_values, sums);
        for (int r = 0; r < 4; r++)
            out[i + (size_t)r] = score_of(records[r] + n_bytes, query->scale,
                                          width == 4 ? 2 * sums[r] - 15 * query->sum : sums[r]);
    }
#endif
    for (; i < n; i++, ahead++) {
        if (ahead < n)
            fetch_record(codes + ids[ahead] * stride, few);
        const unsigned char *record = codes + ids[i] * stride;
        int32_t sum = width == 4 ? 2 * sum4(query->values, record, n_values) - 15 * query->sum
                                : sum8(query, record, n_values);
        out[i] = score_of(record + n_bytes, query->scale, sum);
    }
}

CODES_INLINE void score_bits(const void *query, const unsigned char *codes, size_t stride, uint32_t n_bytes,
                             const uint32_t *ids, size_t n, float *out)
{
    const size_t few = n_bytes < CODES_AHEAD_BYTES ? n_bytes : CODES_AHEAD_BYTES;
    for (size_t i = 0; i < n && i < CODES_AHEAD; i++)
        fetch_record(codes + ids[i] * stride, few);
    for (size_t i = 0; i < n; i++) {
        if (i + CODES_AHEAD < n)
            fetch_record(codes + ids[i + CODES_AHEAD] * stride, few);
        out[i] = (float)count_bits(query, codes + ids[i] * stride, n_bytes);
    }
}

/* Steps h < LANES of one vector's worth. */
CODES_INLINE vec hadamard_within(vec v)
{
    _Pragma("GCC unroll 4") for (int h = 1; h < LANES; h *= 2)
    {
        vec other = swap(v, h);
        v = choose(add(v, other), sub(other, v), h);
    }
    return v;
}

CODES_INLINE void hadamard(float *values, size_t n)
{
    for (size_t i = 0; i < n; i += LANES)
        store(values + i, hadamard_within(load(values + i)));
    size_t h = LANES;
    for (; h * 4 <= n; h *= 4) /* two steps in one pass over memory */
        for (size_t i = 0; i < n; i += 4 * h)
            for (size_t j = i; j < i + h; j += LANES) {
                vec a = load(values + j), b = load(values + j + h), c = load(values + j + 2 * h),
                    d = load(values + j + 3 * h);
                vec ab = add(a, b), a_b = sub(a, b), cd = add(c, d), c_d = sub(c, d);
                store(values + j, add(ab, cd));
                store(values + j + h, add(a_b, c_d));
                store(values + j + 2 * h, sub(ab, cd));
                store(values + j + 3 * h, sub(a_b, c_d));
            }
    for (; h < n; h *= 2)
        for (size_t i = 0; i < n; i += 2 * h)
            for (size_t j = i; j < i + h; j += LANES) {
                vec a = load(values + j), b = load(values + j + h);
                store(values + j, add(a, b));
                store(values + j + h, sub(a, b));
            }
}

#define VDB_CODE_KERNELS(tier)                                                                                         \
    VDB_CODE_KERNEL(vdb_##tier##_code4)                                                                                \
    {                                                                                                                  \
        score_codes(4, query, codes, stride, n_values, ids, n, out);                                                   \
    }                                                                                                                  \
    VDB_CODE_KERNEL(vdb_##tier##_code8)                                                                                \
    {                                                                                                                  \
        score_codes(8, query, codes, stride, n_values, ids, n, out);                                                   \
    }                                                                                                                  \
    VDB_CODE_BITS_KERNEL(vdb_##tier##_code_bits)                                                                       \
    {                                                                                                                  \
        score_bits(query, codes, stride, n_bytes, ids, n, out);                                                        \
    }                                                                                                                  \
    void vdb_##tier##_hadamard(float *values, size_t n)                                                                \
    {                                                                                                                  \
        hadamard(values, n);                                                                                           \
    }

#endif
