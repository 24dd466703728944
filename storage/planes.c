/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/planes.c - byte planes and their zstd frames (see planes.h; FORMAT.md, "Pages")
 *
 * A floating-point value has a part that compresses (the exponent, of which a page uses a few values)
 * and a part that does not (sign, mantissa). Rotating left by one bit moves the sign to the bottom,
 * so that the top byte of a single or a bfloat16 is the exponent and nothing else:
 *
 *     f32      s eeeeeeee mmmmmmm mmmmmmmm mmmmmmmm     ->   eeeeeeee mmmmmmmm mmmmmmmm mmmmmmms
 *     plane                                                     3        2        1        0
 *
 * zstd at level 1 then does on plane 3 what an entropy coder of our own would, and sees for itself
 * that the others are noise. One frame for each plane at level 1 beat one frame for all of them at
 * level 3 in ratio and in speed. Xor with the row before, deltas and dictionaries did not help.
 *
 * Splitting and joining run at memory speed where vectors of 16 bytes are a register (SSE2, NEON: the
 * floor of both platforms), written once in the compiler's vector types. A plain loop takes the rest.
 */
#include "cache.h"
#include "planes.h"

#include <zstd.h>

#include "base/error.h"

#define ZSTD_LEVEL 1
#define TRY_EVERY 16 /* pages, after one that planes did not make small enough: see page_encode.c */

struct vdb_coder {
    struct vdb_memory *memory;
    ZSTD_CCtx *compressor;
    ZSTD_DCtx *expander;
    unsigned char *scratch;
    size_t scratch_bytes;
    uint32_t n_untried; /* pages to come that AUTO does not try planes on */
};

int vdb_coder_new(struct vdb_memory *memory, struct vdb_coder **coder, vecdb_error *err)
{
    struct vdb_coder *made = vdb_alloc_zero(memory, sizeof *made);
    if (!made)
        return vdb_fail_memory(err, sizeof *made);
    made->memory = memory;
    *coder = made;
    return VECDB_OK;
}

void vdb_coder_free(struct vdb_coder *coder)
{
    if (!coder)
        return;
    ZSTD_freeCCtx(coder->compressor);
    ZSTD_freeDCtx(coder->expander);
    vdb_free_aligned(coder->memory, coder->scratch);
    vdb_free(coder->memory, coder);
}

static void release_coder(void *coder)
{
    vdb_coder_free(coder);
}

int vdb_coder_take(struct vdb_cache *cache, struct vdb_memory *memory, struct vdb_coder **coder, vecdb_error *err)
{
    struct vdb_coder *kept = cache ? vdb_cache_take_spare(cache) : NULL;
    if (!kept)
        return vdb_coder_new(memory, coder, err);
    kept->n_untried = 0;
    *coder = kept;
    return VECDB_OK;
}

void vdb_coder_give(struct vdb_cache *cache, struct vdb_coder *coder)
{
    if (cache && coder)
        vdb_cache_give_spare(cache, coder, release_coder);
    else
        vdb_coder_free(coder);
}

unsigned char *vdb_coder_scratch(struct vdb_coder *coder, size_t n_bytes)
{
    if (coder->scratch && n_bytes <= coder->scratch_bytes)
        return coder->scratch;
    vdb_free_aligned(coder->memory, coder->scratch);
    coder->scratch = vdb_alloc_aligned(coder->memory, n_bytes);
    coder->scratch_bytes = coder->scratch ? n_bytes : 0;
    return coder->scratch;
}

bool vdb_coder_tries_planes(struct vdb_coder *coder)
{
    if (!coder->n_untried)
        return true;
    coder->n_untried--;
    return false;
}

void vdb_coder_tried_planes(struct vdb_coder *coder, bool gained)
{
    coder->n_untried = gained ? 0 : TRY_EVERY - 1;
}

/* ---- vectors of 16 bytes. Typedefs, because there is no other way to write a cast to one. */
typedef uint8_t bytes16 __attribute__((vector_size(16)));
typedef uint16_t halves8 __attribute__((vector_size(16)));
typedef uint32_t words4 __attribute__((vector_size(16)));

static inline bytes16 load(const unsigned char *at)
{
    bytes16 v;
    memcpy(&v, at, 16);
    return v;
}

static inline void store(void *at, bytes16 v)
{
    memcpy(at, &v, 16);
}

static inline bytes16 interleave_low(bytes16 a, bytes16 b)
{
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

static inline bytes16 interleave_high(bytes16 a, bytes16 b)
{
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

static inline bytes16 pairs_low(bytes16 a, bytes16 b)
{
    return (bytes16)__builtin_shufflevector((halves8)a, (halves8)b, 0, 8, 1, 9, 2, 10, 3, 11);
}

static inline bytes16 pairs_high(bytes16 a, bytes16 b)
{
    return (bytes16)__builtin_shufflevector((halves8)a, (halves8)b, 4, 12, 5, 13, 6, 14, 7, 15);
}

static inline bytes16 even_bytes(bytes16 a, bytes16 b)
{
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
}

static inline bytes16 odd_bytes(bytes16 a, bytes16 b)
{
    return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}

static inline bytes16 rotate_left_32(bytes16 v)
{
    return (bytes16)((words4)v << 1 | (words4)v >> 31);
}

static inline bytes16 rotate_right_32(bytes16 v)
{
    return (bytes16)((words4)v >> 1 | (words4)v << 31);
}

static inline bytes16 rotate_left_16(bytes16 v)
{
    return (bytes16)((halves8)v << 1 | (halves8)v >> 15);
}

static inline bytes16 rotate_right_16(bytes16 v)
{
    return (bytes16)((halves8)v >> 1 | (halves8)v << 15);
}

/* ---- the four ways. Two- and four-byte values are always floating-point. */
static void split_4(const unsigned char *values, size_t n, unsigned char *planes)
{
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        bytes16 a = rotate_left_32(load(values + 4 * i)), b = rotate_left_32(load(values + 4 * i + 16));
        bytes16 c = rotate_left_32(load(values + 4 * i + 32)), d = rotate_left_32(load(values + 4 * i + 48));
        bytes16 even_ab = even_bytes(a, b), even_cd = even_bytes(c, d); /* bytes 0 and 2 of each value */
        bytes16 odd_ab = odd_bytes(a, b), odd_cd = odd_bytes(c, d);     /* bytes 1 and 3 */
        store(planes + i, even_bytes(even_ab, even_cd));
        store(planes + n + i, even_bytes(odd_ab, odd_cd));
        store(planes + 2 * n + i, odd_bytes(even_ab, even_cd));
        store(planes + 3 * n + i, odd_bytes(odd_ab, odd_cd));
    }
    for (; i < n; i++) {
        uint32_t value;
        memcpy(&value, values + 4 * i, 4);
        value = value << 1 | value >> 31;
        for (unsigned p = 0; p < 4; p++)
            planes[p * n + i] = (unsigned char)(value >> 8 * p);
    }
}

static void split_2(const unsigned char *values, size_t n, unsigned char *planes)
{
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        bytes16 a = rotate_left_16(load(values + 2 * i)), b = rotate_left_16(load(values + 2 * i + 16));
        store(planes + i, even_bytes(a, b));
        store(planes + n + i, odd_bytes(a, b));
    }
    for (; i < n; i++) {
        uint16_t value;
        memcpy(&value, values + 2 * i, 2);
        value = (uint16_t)(value << 1 | value >> 15);
        planes[i] = (unsigned char)value;
        planes[n + i] = (unsigned char)(value >> 8);
    }
}

static void join_4(const unsigned char *const planes[], size_t n, unsigned char *values)
{
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        bytes16 p0 = load(planes[0] + i), p1 = load(planes[1] + i);
        bytes16 p2 = load(planes[2] + i), p3 = load(planes[3] + i);
        bytes16 low_a = interleave_low(p0, p1), low_b = interleave_high(p0, p1);
        bytes16 high_a = interleave_low(p2, p3), high_b = interleave_high(p2, p3);
        store(values + 4 * i, rotate_right_32(pairs_low(low_a, high_a)));
        store(values + 4 * i + 16, rotate_right_32(pairs_high(low_a, high_a)));
        store(values + 4 * i + 32, rotate_right_32(pairs_low(low_b, high_b)));
        store(values + 4 * i + 48, rotate_right_32(pairs_high(low_b, high_b)));
    }
    for (; i < n; i++) {
        uint32_t value = (uint32_t)planes[0][i] | (uint32_t)planes[1][i] << 8 | (uint32_t)planes[2][i] << 16 |
                         (uint32_t)planes[3][i] << 24;
        value = value >> 1 | value << 31;
        memcpy(values + 4 * i, &value, 4);
    }
}

static void join_2(const unsigned char *const planes[], size_t n, unsigned char *values)
{
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        bytes16 p0 = load(planes[0] + i), p1 = load(planes[1] + i);
        store(values + 2 * i, rotate_right_16(interleave_low(p0, p1)));
        store(values + 2 * i + 16, rotate_right_16(interleave_high(p0, p1)));
    }
    for (; i < n; i++) {
        uint16_t value = (uint16_t)(planes[0][i] | planes[1][i] << 8);
        value = (uint16_t)(value >> 1 | value << 15);
        memcpy(values + 2 * i, &value, 2);
    }
}

void vdb_planes_split(const void *values, size_t n, unsigned width, unsigned char *planes)
{
    if (width == 4)
        split_4(values, n, planes);
    else if (width == 2)
        split_2(values, n, planes);
    else
        memcpy(planes, values, n);
}

void vdb_planes_join(const unsigned char *const planes[], size_t n, unsigned width, void *values)
{
    if (width == 4)
        join_4(planes, n, values);
    else if (width == 2)
        join_2(planes, n, values);
    else if (values != planes[0])
        memcpy(values, planes[0], n);
}

/* ---- frames */
size_t vdb_planes_bound(size_t n)
{
    return ZSTD_compressBound(n);
}

size_t vdb_planes_compress(struct vdb_coder *coder, const unsigned char *plane, size_t n, unsigned char *out,
                           size_t out_bytes, size_t limit)
{
    if (!coder->compressor)
        coder->compressor = ZSTD_createCCtx();
    if (!coder->compressor)
        return 0;
    size_t length = ZSTD_compressCCtx(coder->compressor, out, out_bytes, plane, n, ZSTD_LEVEL);
    return ZSTD_isError(length) || length >= limit ? 0 : length;
}

int vdb_planes_expand(struct vdb_coder *coder, const unsigned char *frame, size_t frame_bytes, unsigned char *plane,
                      size_t n, vecdb_error *err)
{
    if (!coder->expander)
        coder->expander = ZSTD_createDCtx();
    if (!coder->expander)
        return vdb_fail(err, VECDB_NOMEM, "out of memory (zstd has no room for a context)");
    size_t length = ZSTD_decompressDCtx(coder->expander, plane, n, frame, frame_bytes);
    if (ZSTD_isError(length))
        return vdb_fail(err, VECDB_CORRUPT, "zstd cannot expand a plane: %s", ZSTD_getErrorName(length));
    if (length != n)
        return vdb_fail(err, VECDB_CORRUPT, "a plane expands to %zu bytes, %zu were expected", length, n);
    return VECDB_OK;
}
