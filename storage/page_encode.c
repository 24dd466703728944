/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/page_encode.c - writing pages (page_format.h has a picture of their bytes)
 *
 * Which form a page takes is decided by its own values, page by page:
 *   1. none: raw.
 *   2. Else the smallest type that represents every value to the bit: one byte (u8, i8) before two
 *      (f16, bf16) before the field's own. Real vectors fail this within the first few values, so the
 *      look costs nothing where it brings nothing.
 *   3. Planes of that type, if the page is then smaller (max), or smaller by the factor below (auto).
 * A page is never longer than its raw form.
 *
 * Under auto a page that planes did not make small enough speaks for those behind it: the coder then
 * tries every 16th page only, until one is. The vectors of a field are alike, and to find in vain that
 * they do not compress takes several times as long as the rest of a page. It costs at most 15 pages that could
 * have been smaller wherever data changes its nature. The same rows through one writer still make the same bytes.
 *
 * AUTO_GAIN: planes must be decoded into the cache and are not scored in place, which is worth it when
 * a search reads from a disk and not otherwise. Float embeddings never reach 1.3 (1.15-1.2 over their
 * narrow form), sparse images do easily (4.7), SIFT's bytes just so (bench_codec).
 */
#include <assert.h>
#include <math.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/numbers.h"
#include "page_format.h"
#include "planes.h"

#define AUTO_GAIN 1.3
#define PLANE_GAIN_PERCENT 5 /* a frame that saves less is not worth its decoding */

/* ---- which smaller type holds a value */
enum { AS_U8 = 1, AS_I8 = 2, AS_F16 = 4, AS_BF16 = 8 };

static unsigned integers_for(float value)
{
    if (!(value >= -128 && value <= 255) || (value == 0 && signbit(value)))
        return 0;
    int whole = (int)value;
    if ((float)whole != value)
        return 0;
    return (whole >= 0 ? AS_U8 : 0u) | (whole <= 127 ? AS_I8 : 0u);
}

static inline bool is_half(uint32_t magnitude)
{
    uint32_t exponent = magnitude >> 23;
    if (!magnitude || (exponent >= 113 && exponent <= 142))
        return !(magnitude & 0x1fff);
    /* a subnormal half: the lower its exponent, the fewer bits it keeps */
    return exponent >= 103 && exponent < 113 && !(magnitude & ((1u << (126 - exponent)) - 1) & 0x7fffff);
}

static unsigned types_for_single(uint32_t bits)
{
    uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude >= 0x7f800000)
        return 0;
    unsigned types = (bits & 0xffff ? 0 : AS_BF16) | (is_half(magnitude) ? AS_F16 : 0u);
    return types ? types | integers_for(vdb_float_of_bits(bits)) : 0;
}

/* Halves that were widened are what most often gets so far: a loop of their own makes encoding twice as fast. */
static bool are_halves(const unsigned char *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!is_half(vdb_load_u32(values + 4 * i) & 0x7fffffff))
            return false;
    return true;
}

/* Whole numbers 0 .. 255, counts and pixels, are the other: tested without branches, which the compiler
 * makes vectors of, and in pieces, because other values mostly fail in the first. */
#define PIECE_VALUES 1024

static bool are_bytes(const unsigned char *values, size_t n)
{
    for (size_t first = 0; first < n; first += PIECE_VALUES) {
        size_t end = n - first < PIECE_VALUES ? n : first + PIECE_VALUES;
        uint32_t bad = 0;
        for (size_t i = first; i < end; i++) {
            float value;
            uint32_t bits;
            memcpy(&value, values + 4 * i, 4);
            memcpy(&bits, values + 4 * i, 4);
            float inside = value >= 0 && value <= 255 ? value : 0.5f; /* what is outside is not converted */
            bad |= ((float)(int)inside != value) | (bits == 0x80000000u); /* -0.0 is no byte */
        }
        if (bad)
            return false;
    }
    return true;
}

static void narrow_to_bytes(const unsigned char *values, size_t n, unsigned char *out)
{
    for (size_t i = 0; i < n; i++) {
        float value;
        memcpy(&value, values + 4 * i, 4);
        out[i] = (unsigned char)(int)value;
    }
}

/* The types that hold every value, as a set. */
static unsigned common_types(int type, const unsigned char *values, size_t n)
{
    unsigned types = type == VECDB_F32                         ? AS_U8 | AS_I8 | AS_F16 | AS_BF16
                     : type == VECDB_F16 || type == VECDB_BF16 ? AS_U8 | AS_I8
                                                               : 0;
    for (size_t i = 0; i < n && types; i++) {
        if (types == AS_F16)
            return are_halves(values + 4 * i, n - i) ? types : 0;
        if (type == VECDB_F32) {
            uint32_t bits;
            memcpy(&bits, values + 4 * i, 4);
            types &= types_for_single(bits);
        } else {
            uint16_t half;
            memcpy(&half, values + 2 * i, 2);
            types &= integers_for(type == VECDB_F16 ? vdb_float_of_f16(half) : vdb_float_of_bf16(half));
        }
    }
    return types;
}

static int choose_stored_type(int type, const unsigned char *values, size_t n)
{
    if (type == VECDB_F32 && are_bytes(values, n))
        return VECDB_U8;
    unsigned types = common_types(type, values, n);
    return types & AS_U8     ? VECDB_U8
           : types & AS_I8   ? VECDB_I8
           : types & AS_F16  ? VECDB_F16
           : types & AS_BF16 ? VECDB_BF16
                             : type;
}

/* Singles that are_halves. */
static void narrow_to_halves(const unsigned char *values, size_t n, unsigned char *out)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = vdb_load_u32(values + 4 * i), magnitude = bits & 0x7fffffff;
        uint16_t half = (uint16_t)(bits >> 16 & 0x8000);
        if (magnitude >= 113u << 23)
            half |= (uint16_t)((magnitude - (112u << 23)) >> 13);
        else if (magnitude)
            half = vdb_f16_of_float(vdb_float_of_bits(bits));
        vdb_store_u16(out + 2 * i, half);
    }
}

static void narrow(int type, int stored_type, const unsigned char *values, size_t n, unsigned char *out)
{
    for (size_t i = 0; i < n; i++) {
        float value;
        uint16_t half;
        if (type == VECDB_F32) {
            memcpy(&value, values + 4 * i, 4);
        } else {
            memcpy(&half, values + 2 * i, 2);
            value = type == VECDB_F16 ? vdb_float_of_f16(half) : vdb_float_of_bf16(half);
        }
        if (stored_type == VECDB_U8 || stored_type == VECDB_I8) {
            out[i] = (unsigned char)(int)value;
        } else {
            half = stored_type == VECDB_F16 ? vdb_f16_of_float(value) : (uint16_t)(vdb_bits_of_float(value) >> 16);
            memcpy(out + 2 * i, &half, 2);
        }
    }
}

/* ---- the longest row. Every import pays for this, so each type has a loop of its own, in four chains:
 * an addition waits four cycles for the one before it. */
static double squares_of_singles(const unsigned char *row, uint32_t dimension)
{
    double a = 0, b = 0, c = 0, d = 0;
    float v[4];
    uint32_t i = 0;
    for (; i + 4 <= dimension; i += 4) {
        memcpy(v, row + 4 * (size_t)i, sizeof v);
        a += (double)v[0] * v[0];
        b += (double)v[1] * v[1];
        c += (double)v[2] * v[2];
        d += (double)v[3] * v[3];
    }
    for (; i < dimension; i++) {
        memcpy(v, row + 4 * (size_t)i, sizeof *v);
        a += (double)v[0] * v[0];
    }
    return (a + b) + (c + d);
}

/* A half's magnitude by its bits alone: exponent and mantissa where a single has them, and the exponent's
 * bias made good by a product, which is exact and right for subnormals. Infinity and what is no number
 * come out at 65536 and above, where no half is. */
static inline float magnitude_of_half(const unsigned char *at)
{
    return vdb_float_of_bits((uint32_t)(vdb_load_u16(at) & 0x7fff) << 13) * 0x1p112f;
}

static double squares_of_halves(const unsigned char *row, uint32_t dimension)
{
    double a = 0, b = 0;
    float largest = 0;
    for (uint32_t i = 0; i + 2 <= dimension; i += 2) {
        float v = magnitude_of_half(row + 2 * (size_t)i), w = magnitude_of_half(row + 2 * (size_t)i + 2);
        float larger = v > w ? v : w;
        largest = larger > largest ? larger : largest;
        a += (double)v * v;
        b += (double)w * w;
    }
    float last = dimension % 2 ? magnitude_of_half(row + 2 * (size_t)(dimension - 1)) : 0;
    return largest >= 65536 || last >= 65536 ? (double)INFINITY : a + b + (double)last * last;
}

static double squares_of_brains(const unsigned char *row, uint32_t dimension)
{
    double a = 0, b = 0;
    for (uint32_t i = 0; i + 2 <= dimension; i += 2) {
        float v = vdb_float_of_bf16(vdb_load_u16(row + 2 * (size_t)i));
        float w = vdb_float_of_bf16(vdb_load_u16(row + 2 * (size_t)i + 2));
        a += (double)v * v;
        b += (double)w * w;
    }
    float last = dimension % 2 ? vdb_float_of_bf16(vdb_load_u16(row + 2 * (size_t)(dimension - 1))) : 0;
    return a + b + (double)last * last;
}

/* At most 65536 * 255^2, which 32 bits hold: exact, in integers and as a double. */
_Static_assert((uint64_t)VECDB_MAX_DIMENSION * 255 * 255 <= UINT32_MAX, "sums of squares of bytes fit 32 bits");

static double squares_of_bytes(const unsigned char *row, uint32_t dimension)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < dimension; i++)
        sum += (uint32_t)row[i] * row[i];
    return sum;
}

static double squares_of_signed_bytes(const unsigned char *row, uint32_t dimension)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < dimension; i++)
        sum += (uint32_t)((int8_t)row[i] * (int8_t)row[i]);
    return sum;
}

/* An upper bound of the Euclidean norm of every row. The sum's relative error is below
 * dimension * 2^-53 <= 2^-37; what is no number is bounded by infinity. */
static float bound_norms(const struct vdb_page_rows *rows)
{
    static double (*const sums_of_squares[])(const unsigned char *row,
                                             uint32_t dimension) = {[VECDB_F32] = squares_of_singles,
                                                                    [VECDB_F16] = squares_of_halves,
                                                                    [VECDB_BF16] = squares_of_brains,
                                                                    [VECDB_I8] = squares_of_signed_bytes,
                                                                    [VECDB_U8] = squares_of_bytes};
    if (rows->type == VECDB_BIT)
        return 0;
    size_t row_bytes = vdb_vector_bytes(rows->type, rows->dimension);
    double largest = 0;
    for (uint32_t i = 0; i < rows->n_rows; i++) {
        const unsigned char *row = (const unsigned char *)rows->rows + i * row_bytes;
        double sum = sums_of_squares[rows->type](row, rows->dimension);
        if (isnan(sum))
            return INFINITY;
        if (sum > largest)
            largest = sum;
    }
    double norm = sqrt(largest) * (1 + 0x1p-36);
    float bound = (float)norm;
    return (double)bound < norm ? nextafterf(bound, INFINITY) : bound;
}

/* ---- putting a page together */
static uint32_t count_runs(const uint32_t *slots, uint32_t n_rows)
{
    uint32_t n_runs = 1;
    for (uint32_t i = 1; i < n_rows; i++)
        n_runs += slots[i] != slots[i - 1] + 1;
    return n_runs;
}

static void write_runs(const uint32_t *slots, uint32_t n_rows, unsigned char *at)
{
    for (uint32_t i = 0; i < n_rows; i++) {
        if (i && slots[i] == slots[i - 1] + 1)
            continue;
        vdb_store_u32(at, slots[i]);
        vdb_store_u32(at + 4, i);
        at += PAGE_RUN_BYTES;
    }
}

struct layout {
    int codec, stored_type;
    uint32_t n_runs, n_planes;
    size_t header_bytes, body_bytes;
};

static void set_lengths(struct layout *layout, int codec, uint32_t n_planes, size_t body_bytes)
{
    layout->codec = codec;
    layout->n_planes = n_planes;
    layout->header_bytes = vdb_page_round_up(PAGE_FIXED_BYTES + (size_t)layout->n_runs * PAGE_RUN_BYTES +
                                             (size_t)n_planes * PAGE_PLANE_BYTES);
    layout->body_bytes = body_bytes;
}

static void write_header(const struct vdb_page_rows *rows, const struct layout *layout, unsigned char *page)
{
    memset(page, 0, PAGE_FIXED_BYTES);
    memcpy(page + PAGE_AT_MAGIC, PAGE_MAGIC, 4);
    vdb_store_u16(page + PAGE_AT_VERSION, PAGE_VERSION);
    page[PAGE_AT_CODEC] = (unsigned char)layout->codec;
    page[PAGE_AT_TYPE] = (unsigned char)rows->type;
    page[PAGE_AT_STORED_TYPE] = (unsigned char)layout->stored_type;
    vdb_store_u16(page + PAGE_AT_N_PLANES, (uint16_t)layout->n_planes);
    vdb_store_u32(page + PAGE_AT_DIMENSION, rows->dimension);
    vdb_store_u32(page + PAGE_AT_N_ROWS, rows->n_rows);
    vdb_store_u32(page + PAGE_AT_N_RUNS, layout->n_runs);
    vdb_store_u32(page + PAGE_AT_HEADER_BYTES, (uint32_t)layout->header_bytes);
    vdb_store_u32(page + PAGE_AT_BODY_BYTES, (uint32_t)layout->body_bytes);
    vdb_store_u32(page + PAGE_AT_MAX_NORM, vdb_bits_of_float(bound_norms(rows)));
    write_runs(rows->slots, rows->n_rows, page + PAGE_FIXED_BYTES);
}

/* Compress the body at `body` into planes, if that makes the page smaller by enough. Written to
 * scratch first: a body that stays as it is must not be touched. Table and planes then replace it.
 * Returns false when it stays. */
static bool try_planes(struct vdb_coder *coder, struct layout *layout, double gain, unsigned char *page)
{
    struct layout planar = *layout;
    unsigned char table[4 * PAGE_PLANE_BYTES];
    uint32_t n_planes = vdb_page_value_bytes(layout->stored_type);
    size_t n = layout->body_bytes / n_planes, frame_room = vdb_planes_bound(n), total = 0;
    size_t out_room = layout->body_bytes + frame_room; /* accepted planes, and one that is being tried */
    unsigned char *planes = vdb_coder_scratch(coder, layout->body_bytes + out_room);
    if (!planes)
        return false; /* it stays as it is: larger, not wrong */
    unsigned char *out = planes + layout->body_bytes;
    vdb_planes_split(page + layout->header_bytes, n, n_planes, planes);
    for (uint32_t p = 0; p < n_planes; p++) {
        size_t limit = n - n * PLANE_GAIN_PERCENT / 100;
        size_t length = vdb_planes_compress(coder, planes + p * n, n, out + total, out_room - total, limit);
        vdb_store_u32(table + p * PAGE_PLANE_BYTES, (uint32_t)(length ? length : n));
        vdb_store_u32(table + p * PAGE_PLANE_BYTES + 4, length ? PLANE_ZSTD : PLANE_AS_IS);
        if (!length)
            memcpy(out + total, planes + p * n, n);
        total += length ? length : n;
    }
    set_lengths(&planar, VDB_CODEC_PLANES, n_planes, total);
    size_t before = layout->header_bytes + layout->body_bytes, after = planar.header_bytes + total;
    if (after >= before || (double)after * gain > (double)before)
        return false;
    size_t table_at = PAGE_FIXED_BYTES + (size_t)layout->n_runs * PAGE_RUN_BYTES;
    memset(page + table_at, 0, planar.header_bytes - table_at);
    memcpy(page + table_at, table, n_planes * PAGE_PLANE_BYTES);
    memcpy(page + planar.header_bytes, out, total);
    *layout = planar;
    return true;
}

int vdb_page_encode(struct vdb_coder *coder, const struct vdb_page_rows *rows, struct vdb_buffer *out, vecdb_error *err)
{
    assert(rows->n_rows >= 1 && rows->dimension >= 1);
    size_t row_bytes = vdb_vector_bytes(rows->type, rows->dimension);
    size_t raw_bytes = rows->n_rows * row_bytes, n_values = raw_bytes / vdb_page_value_bytes(rows->type);
    bool may_shrink = rows->compression != VECDB_COMPRESSION_NONE;
    struct layout layout = {.stored_type = rows->type, .n_runs = count_runs(rows->slots, rows->n_rows)};
    if (may_shrink)
        layout.stored_type = choose_stored_type(rows->type, rows->rows, n_values);
    set_lengths(&layout, layout.stored_type == rows->type ? VDB_CODEC_RAW : VDB_CODEC_NARROW, 0,
                n_values * vdb_page_value_bytes(layout.stored_type));
    if (raw_bytes > VDB_PAGE_MAX_BYTES || layout.header_bytes + raw_bytes > VDB_PAGE_MAX_BYTES)
        return vdb_fail(err, VECDB_INVALID, "%u rows of %zu bytes do not fit a page of %u", rows->n_rows, row_bytes,
                        VDB_PAGE_MAX_BYTES);
    size_t pad = vdb_page_round_up(out->n_bytes) - out->n_bytes;
    int status = vdb_buffer_reserve(out, pad + layout.header_bytes + layout.body_bytes, err);
    if (status)
        return status;
    unsigned char *page = out->bytes + out->n_bytes + pad;
    memset(out->bytes + out->n_bytes, 0, pad + layout.header_bytes);
    if (layout.stored_type == rows->type)
        memcpy(page + layout.header_bytes, rows->rows, raw_bytes);
    else if (rows->type == VECDB_F32 && layout.stored_type == VECDB_F16)
        narrow_to_halves(rows->rows, n_values, page + layout.header_bytes);
    else if (rows->type == VECDB_F32 && layout.stored_type == VECDB_U8)
        narrow_to_bytes(rows->rows, n_values, page + layout.header_bytes);
    else
        narrow(rows->type, layout.stored_type, rows->rows, n_values, page + layout.header_bytes);
    if (rows->compression == VECDB_COMPRESSION_MAX)
        try_planes(coder, &layout, 1, page);
    else if (may_shrink && rows->type != VECDB_BIT && vdb_coder_tries_planes(coder))
        vdb_coder_tried_planes(coder, try_planes(coder, &layout, AUTO_GAIN, page));
    write_header(rows, &layout, page);
    size_t n_bytes = layout.header_bytes + layout.body_bytes;
    vdb_store_u64(page + PAGE_AT_CHECK, vdb_check_sum(page + 8, n_bytes - 8));
    out->n_bytes += pad + n_bytes;
    return VECDB_OK;
}
