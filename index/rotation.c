/* SPDX-License-Identifier: Apache-2.0
 *
 * index/rotation.c - a random rotation of n values in O(n log n)
 *
 * Codes of few bits need values that look alike: after a random rotation every coordinate of a vector is close to
 * Gaussian, whatever the data were. A dense random matrix would cost n^2; this one is a product of rounds
 *
 *     signs          each value times +1 or -1, drawn from the seed
 *     Hadamard       of the first 2^m values in even rounds, of the last 2^m in odd ones; 2^m <= n, scaled by 2^-m/2
 *     Kac step       only where n is no power of two: (x, y) -> (x + y, x - y) / sqrt(2) between the two halves
 *
 *          0                 n - 2^m        2^m              n
 *          |--------- even rounds ----------|
 *                            |---------- odd rounds ---------|
 *
 * Invariants
 *  1. Every step is orthogonal, so the product keeps lengths and inner products, up to rounding.
 *  2. The same bits on every machine: the kernel promises that of its transform (simd/kernels.h), and
 *     what is here are single multiplications and additions, in a fixed order, without contraction.
 *
 * Powers of two take 2 rounds, others 4: parts that only even or only odd rounds turn have to mix with the rest.
 * Costs at 832 values: about 1.5 us with AVX-512.
 *
 * Sources: Ailon and Chazelle, The Fast Johnson-Lindenstrauss Transform, SIAM J. Comput. 2009 (signs and Hadamard);
 * Kac, Foundations of kinetic theory, 1956 (the walk whose step mixes the halves).
 */
#include "rotation.h"

#include <math.h>

#include "base/error.h"
#include "base/random.h"

int vdb_rotation_init(struct vdb_rotation *rotation, struct vdb_memory *memory, uint32_t n_values, uint64_t seed,
                      vecdb_error *err)
{
    struct vdb_random random = {seed};
    uint32_t n_turned = 64;
    while (n_turned <= n_values / 2)
        n_turned *= 2;
    uint32_t n_rounds = n_turned == n_values ? 2 : 4;
    size_t n_factors = (size_t)n_rounds * n_values;
    float *factors = vdb_alloc_aligned(memory, n_factors * sizeof *factors);
    if (!factors)
        return vdb_fail_memory(err, n_factors * sizeof *factors);
    float scale = (float)(1 / sqrt((double)n_turned));
    for (uint32_t r = 0; r < n_rounds; r++) {
        uint32_t begin = r % 2 ? n_values - n_turned : 0;
        uint64_t bits = 0;
        for (uint32_t i = 0; i < n_values; i++) {
            if (i % 64 == 0)
                bits = vdb_random_next(&random);
            float sign = bits >> i % 64 & 1 ? -1.0f : 1.0f;
            factors[(size_t)r * n_values + i] = i >= begin && i < begin + n_turned ? sign * scale : sign;
        }
    }
    *rotation = (struct vdb_rotation){n_values, n_turned, n_rounds, factors};
    return VECDB_OK;
}

void vdb_rotation_release(struct vdb_rotation *rotation, struct vdb_memory *memory)
{
    vdb_free_aligned(memory, rotation->factors);
    rotation->factors = NULL;
}

static void multiply(float *restrict values, const float *restrict factors, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        values[i] *= factors[i];
}

static void mix(float *restrict left, float *restrict right, uint32_t n)
{
    const float half = 0x1.6a09e6p-1f; /* sqrt(1/2) */
    for (uint32_t i = 0; i < n; i++) {
        float x = left[i] * half, y = right[i] * half;
        left[i] = x + y;
        right[i] = x - y;
    }
}

void vdb_rotation_apply(const struct vdb_rotation *rotation, const struct vdb_kernels *kernels, float *values)
{
    uint32_t n = rotation->n_values, n_turned = rotation->n_turned;
    for (uint32_t r = 0; r < rotation->n_rounds; r++) {
        multiply(values, rotation->factors + (size_t)r * n, n);
        kernels->hadamard(r % 2 ? values + (n - n_turned) : values, n_turned);
        if (n_turned != n)
            mix(values, values + n / 2, n / 2);
    }
}
