/* SPDX-License-Identifier: Apache-2.0
 *
 * index/exact.c - the distance that users see, in double precision (see index.h)
 *
 * Kernels differ from machine to machine in the last bits, so what they compute only decides
 * which rows are worth a second look. Every distance that leaves the library is computed here, in
 * one order of operations:
 *
 *     term i   is a product of two floats widened to double (exact: 24 + 24 bits <= 53),
 *              or, for l2, the square of their difference in double
 *     sum[j]   = term j + term j+8 + term j+16 + ...            j = 0 .. 7, one after the other
 *     total    = ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))
 *
 * Invariants
 *  1. IEEE double arithmetic, no contraction (-ffp-contract=off in the Makefile), no reordering:
 *     the same bits on every machine. Eight sums, so that the compiler may use vectors without
 *     changing any of them.
 *  2. A row's storage type does not matter: types that hold the same values give the same bits.
 *  3. Never NaN. A sum that is not a number, which only values that lib refuses can give, is
 *     infinitely far, so that distances have an order.
 *  4. The cosine of a vector with itself is exactly 1: sqrt(a * a) = a in IEEE arithmetic, and
 *     all three sums are the same number. Rounding may carry other cosines past 1 or -1 by some
 *     2^-53; the distance is cut to 0 .. 2.
 *
 * No product overflows or vanishes: squares of floats lie within 2^-298 and 2^256.
 *
 * Cost: about 1 ns a value. Rejected: long double (another format on other machines), a single
 * running sum (four times as slow), compensated sums (the error of this one is already below
 * (d / 8 + 4) * 2^-53 of the terms' sum).
 */
#include <math.h>

#include "base/numbers.h"
#include "index.h"

#define N_SUMS 8
#define PIECE 256 /* values widened at a time: 1 KiB of stack, a multiple of N_SUMS */

static double total(const double sums[N_SUMS])
{
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

static void add_products(const float *a, const float *b, uint32_t n, double sums[N_SUMS])
{
    uint32_t i = 0;
    for (; i + N_SUMS <= n; i += N_SUMS)
        for (uint32_t j = 0; j < N_SUMS; j++)
            sums[j] += (double)a[i + j] * (double)b[i + j];
    for (uint32_t j = 0; i + j < n; j++)
        sums[j] += (double)a[i + j] * (double)b[i + j];
}

static void add_squares(const float *a, const float *b, uint32_t n, double sums[N_SUMS])
{
    uint32_t i = 0;
    for (; i + N_SUMS <= n; i += N_SUMS)
        for (uint32_t j = 0; j < N_SUMS; j++) {
            double difference = (double)a[i + j] - (double)b[i + j];
            sums[j] += difference * difference;
        }
    for (uint32_t j = 0; i + j < n; j++) {
        double difference = (double)a[i + j] - (double)b[i + j];
        sums[j] += difference * difference;
    }
}

static double cosine_distance(double product, double query_square, double row_square)
{
    double lengths = sqrt(query_square * row_square);
    if (!(lengths > 0))
        return lengths == 0 ? 1 : INFINITY; /* the zero vector is at right angles to everything */
    double distance = 1 - product / lengths;
    if (distance < 0)
        return 0;
    return distance > 2 ? 2 : distance;
}

static double hamming_distance(uint32_t dimension, const uint8_t *a, const uint8_t *b)
{
    size_t n_bytes = vdb_vector_bytes(VECDB_BIT, dimension), i = 0;
    uint64_t n_bits = 0;
    for (; i + 8 <= n_bytes; i += 8) {
        uint64_t left, right;
        memcpy(&left, a + i, sizeof left);
        memcpy(&right, b + i, sizeof right);
        n_bits += (uint64_t)__builtin_popcountll(left ^ right);
    }
    for (; i < n_bytes; i++)
        n_bits += (uint64_t)__builtin_popcount((unsigned)(a[i] ^ b[i]));
    return (double)n_bits;
}

double vdb_exact_distance(int metric, int row_type, uint32_t dimension, const void *query, const void *row)
{
    if (metric == VECDB_HAMMING)
        return hamming_distance(dimension, query, row);
    const float *q = query;
    double sums[N_SUMS] = {0}, query_squares[N_SUMS] = {0}, row_squares[N_SUMS] = {0};
    size_t value_bytes = vdb_vector_bytes(row_type, 1);
    for (uint32_t first = 0; first < dimension; first += PIECE) {
        float values[PIECE];
        uint32_t n = dimension - first < PIECE ? dimension - first : PIECE;
        vdb_floats_of(row_type, (const uint8_t *)row + first * value_bytes, n, values);
        if (metric == VECDB_L2) {
            add_squares(q + first, values, n, sums);
        } else {
            add_products(q + first, values, n, sums);
            if (metric == VECDB_COSINE) {
                add_products(q + first, q + first, n, query_squares);
                add_products(values, values, n, row_squares);
            }
        }
    }
    double distance;
    if (metric == VECDB_L2)
        distance = sqrt(total(sums));
    else if (metric == VECDB_IP)
        distance = 0 - total(sums); /* not -total: a product of 0 is at distance 0, not -0 */
    else
        distance = cosine_distance(total(sums), total(query_squares), total(row_squares));
    return isnan(distance) ? INFINITY : distance;
}
