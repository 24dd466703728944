/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/page.c - reading pages (page_format.h has a picture of their bytes; FORMAT.md the rules)
 *
 * A page is parsed each time that it is used, because a parsed page is a few pointers into bytes that
 * are mapped: 20 ns, and nothing to keep. The dear part, checksum and runs, is asked for once.
 *
 * Invariants, whatever the bytes are
 *   1. After a parse, runs, plane table and body lie inside the bytes, and the body of a raw or narrow
 *      page holds n_rows rows.
 *   2. After a parse that verified, slots ascend strictly and each run begins inside of the page.
 *   3. Expanding writes n_rows rows and no more; a plane that does not fit is CORRUPT.
 */
#include "page.h"

#include <assert.h>
#include <math.h>
#include <xxhash.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/numbers.h"
#include "page_format.h"
#include "planes.h"

uint64_t vdb_check_sum(const void *bytes, size_t n_bytes)
{
    return XXH3_64bits(bytes, n_bytes);
}

uint32_t vdb_page_capacity(int type, uint32_t dimension)
{
    size_t room = VDB_PAGE_TARGET_BYTES - vdb_page_round_up(PAGE_FIXED_BYTES + PAGE_RUN_BYTES);
    size_t n_rows = room / vdb_vector_bytes(type, dimension);
    return n_rows ? (uint32_t)n_rows : 1;
}

/* ---- buffers */
void vdb_buffer_init(struct vdb_buffer *buffer, struct vdb_memory *memory)
{
    *buffer = (struct vdb_buffer){.memory = memory};
}

void vdb_buffer_release(struct vdb_buffer *buffer)
{
    vdb_free_aligned(buffer->memory, buffer->bytes);
    vdb_buffer_init(buffer, buffer->memory);
}

int vdb_buffer_reserve(struct vdb_buffer *buffer, size_t n_more, vecdb_error *err)
{
    if (n_more <= buffer->capacity - buffer->n_bytes)
        return VECDB_OK;
    if (n_more > SIZE_MAX / 4 - buffer->n_bytes)
        return vdb_fail_memory(err, n_more);
    size_t capacity = buffer->n_bytes + n_more;
    if (capacity < 2 * buffer->capacity)
        capacity = 2 * buffer->capacity;
    unsigned char *bytes = vdb_alloc_aligned(buffer->memory, capacity);
    if (!bytes)
        return vdb_fail_memory(err, capacity);
    if (buffer->n_bytes)
        memcpy(bytes, buffer->bytes, buffer->n_bytes);
    vdb_free_aligned(buffer->memory, buffer->bytes);
    buffer->bytes = bytes;
    buffer->capacity = capacity;
    return VECDB_OK;
}

/* ---- parsing */
/* A page of another version or scheme is one only if its check is right: else it is damaged. */
static int parse_version(const unsigned char *bytes, size_t n_bytes, uint64_t check, vecdb_error *err)
{
    uint32_t version = vdb_load_u16(bytes + PAGE_AT_VERSION), scheme = bytes[PAGE_AT_ENCRYPTION];
    if (memcmp(bytes + PAGE_AT_MAGIC, PAGE_MAGIC, 4))
        return vdb_fail(err, VECDB_CORRUPT, "it does not begin as a page does");
    if (version == PAGE_VERSION && !scheme)
        return VECDB_OK;
    if (vdb_check_sum(bytes + 8, n_bytes - 8) != check)
        return vdb_fail(err, VECDB_CORRUPT, "its checksum does not fit its bytes");
    if (version > PAGE_VERSION)
        return vdb_fail(err, VECDB_NEWER, "it is of format version %u, this library knows %u", version, PAGE_VERSION);
    if (version < PAGE_VERSION)
        return vdb_fail(err, VECDB_CORRUPT, "it is of format version %u, of a preview of the library", version);
    return vdb_fail(err, VECDB_NEWER, "it is encrypted by scheme %u, which this library does not know", scheme);
}

static int parse_identity(const unsigned char *bytes, int type, uint32_t dimension, struct vdb_page *page,
                          vecdb_error *err)
{
    page->codec = bytes[PAGE_AT_CODEC];
    page->type = bytes[PAGE_AT_TYPE];
    page->stored_type = bytes[PAGE_AT_STORED_TYPE];
    page->dimension = vdb_load_u32(bytes + PAGE_AT_DIMENSION);
    if (page->type != type || page->dimension != dimension)
        return vdb_fail(err, VECDB_CORRUPT, "it holds vectors of type %d and dimension %u, not %d and %u", page->type,
                        page->dimension, type, dimension);
    if (page->codec < VDB_CODEC_RAW || page->codec > VDB_CODEC_PLANES)
        return vdb_fail(err, VECDB_CORRUPT, "it has the unknown codec %d", page->codec);
    bool is_narrow = page->stored_type != type;
    if (!vdb_page_may_store(type, page->stored_type) ||
        (page->codec != VDB_CODEC_PLANES && is_narrow != (page->codec == VDB_CODEC_NARROW)))
        return vdb_fail(err, VECDB_CORRUPT, "it stores type %d as type %d, which codec %d cannot", type,
                        page->stored_type, page->codec);
    return VECDB_OK;
}

/* Lengths against each other and against n_bytes. All products fit: n_rows and n_runs are bounded by
 * VDB_PAGE_MAX_BYTES before they are multiplied. */
static int parse_lengths(const unsigned char *bytes, size_t n_bytes, struct vdb_page *page, vecdb_error *err)
{
    page->n_rows = vdb_load_u32(bytes + PAGE_AT_N_ROWS);
    page->n_runs = vdb_load_u32(bytes + PAGE_AT_N_RUNS);
    page->n_planes = vdb_load_u16(bytes + PAGE_AT_N_PLANES);
    page->body_bytes = vdb_load_u32(bytes + PAGE_AT_BODY_BYTES);
    uint32_t n_planes = page->codec == VDB_CODEC_PLANES ? vdb_page_value_bytes(page->stored_type) : 0;
    size_t header_bytes = vdb_load_u32(bytes + PAGE_AT_HEADER_BYTES);
    size_t row_bytes = vdb_vector_bytes(page->stored_type, page->dimension);
    if (!page->n_rows || page->n_rows > VDB_PAGE_MAX_BYTES / row_bytes || !page->n_runs ||
        page->n_runs > page->n_rows || page->n_planes != n_planes)
        return vdb_fail(err, VECDB_CORRUPT, "it cannot have %u rows, %u runs and %u planes", page->n_rows, page->n_runs,
                        page->n_planes);
    size_t used = PAGE_FIXED_BYTES + (size_t)page->n_runs * PAGE_RUN_BYTES + (size_t)n_planes * PAGE_PLANE_BYTES;
    if (header_bytes != vdb_page_round_up(used) || header_bytes > n_bytes || page->body_bytes != n_bytes - header_bytes)
        return vdb_fail(err, VECDB_CORRUPT, "its header of %zu and body of %zu bytes are not the %zu bytes it has",
                        header_bytes, page->body_bytes, n_bytes);
    if (page->codec != VDB_CODEC_PLANES && page->body_bytes != page->n_rows * row_bytes)
        return vdb_fail(err, VECDB_CORRUPT, "its body of %zu bytes does not hold %u rows of %zu", page->body_bytes,
                        page->n_rows, row_bytes);
    page->runs = (const struct vdb_run *)(const void *)(bytes + PAGE_FIXED_BYTES);
    page->plane_table = bytes + PAGE_FIXED_BYTES + (size_t)page->n_runs * PAGE_RUN_BYTES;
    page->body = bytes + header_bytes;
    return VECDB_OK;
}

static bool are_zero(const unsigned char *from, const unsigned char *to)
{
    while (from < to)
        if (*from++)
            return false;
    return true;
}

static int verify_runs(const struct vdb_page *page, vecdb_error *err)
{
    uint64_t next_slot = 0; /* the lowest that the next run may begin with */
    for (uint32_t i = 0; i < page->n_runs; i++) {
        uint32_t slot = page->runs[i].slot, row = page->runs[i].row;
        uint32_t end = i + 1 < page->n_runs ? page->runs[i + 1].row : page->n_rows;
        if ((i == 0 && row != 0) || row >= end || end > page->n_rows || slot < next_slot)
            return vdb_fail(err, VECDB_CORRUPT, "run %u (slot %u, row %u) is out of order", i, slot, row);
        next_slot = (uint64_t)slot + (end - row);
        if (next_slot > (uint64_t)UINT32_MAX) /* UINT32_MAX itself is no slot */
            return vdb_fail(err, VECDB_CORRUPT, "run %u passes the last slot", i);
    }
    return VECDB_OK;
}

static int verify_planes(const struct vdb_page *page, vecdb_error *err)
{
    size_t n_values = page->n_rows * vdb_vector_bytes(page->stored_type, page->dimension);
    size_t sum = 0;
    n_values /= vdb_page_value_bytes(page->stored_type);
    for (uint32_t p = 0; p < page->n_planes; p++) {
        size_t n_bytes = vdb_load_u32(page->plane_table + p * PAGE_PLANE_BYTES);
        uint32_t encoding = vdb_load_u32(page->plane_table + p * PAGE_PLANE_BYTES + 4);
        if (encoding > PLANE_ZSTD || (encoding == PLANE_AS_IS && n_bytes != n_values))
            return vdb_fail(err, VECDB_CORRUPT, "plane %u of %zu values has %zu bytes in encoding %u", p, n_values,
                            n_bytes, encoding);
        sum += n_bytes; /* at most four numbers of 32 bits */
    }
    if (page->n_planes && sum != page->body_bytes)
        return vdb_fail(err, VECDB_CORRUPT, "its planes have %zu bytes, its body %zu", sum, page->body_bytes);
    return VECDB_OK;
}

static int verify_all(const unsigned char *bytes, size_t n_bytes, const struct vdb_page *page, vecdb_error *err)
{
    if (vdb_check_sum(bytes + 8, n_bytes - 8) != page->check)
        return vdb_fail(err, VECDB_CORRUPT, "its checksum does not fit its bytes");
    if (!are_zero(bytes + PAGE_AT_ZEROS, bytes + PAGE_FIXED_BYTES) ||
        !are_zero(page->plane_table + (size_t)page->n_planes * PAGE_PLANE_BYTES, page->body))
        return vdb_fail(err, VECDB_CORRUPT, "bytes that must be zero are not");
    if (isnan(page->max_norm) || signbit(page->max_norm))
        return vdb_fail(err, VECDB_CORRUPT, "its longest row has the length %g", (double)page->max_norm);
    int status = verify_runs(page, err);
    return status ? status : verify_planes(page, err);
}

int vdb_page_parse(const void *bytes, size_t n_bytes, int type, uint32_t dimension, bool verify, struct vdb_page *page,
                   vecdb_error *err)
{
    assert((uintptr_t)bytes % 8 == 0);
    if (n_bytes < PAGE_FIXED_BYTES || n_bytes > VDB_PAGE_MAX_BYTES)
        return vdb_fail(err, VECDB_CORRUPT, "a page cannot have %zu bytes", n_bytes);
    struct vdb_page parsed = {.check = vdb_load_u64((const unsigned char *)bytes + PAGE_AT_CHECK)};
    int status = parse_version(bytes, n_bytes, parsed.check, err);
    if (!status)
        status = parse_identity(bytes, type, dimension, &parsed, err);
    if (!status)
        status = parse_lengths(bytes, n_bytes, &parsed, err);
    if (status)
        return status;
    parsed.max_norm = vdb_float_of_bits(vdb_load_u32((const unsigned char *)bytes + PAGE_AT_MAX_NORM));
    if (verify)
        status = verify_all(bytes, n_bytes, &parsed, err);
    if (status)
        return status;
    *page = parsed;
    return VECDB_OK;
}

/* ---- rows */
int vdb_page_unpack(struct vdb_coder *coder, const struct vdb_page *page, void *rows, vecdb_error *err)
{
    size_t n_bytes = page->n_rows * vdb_vector_bytes(page->stored_type, page->dimension);
    if (page->codec != VDB_CODEC_PLANES) {
        memcpy(rows, page->body, n_bytes);
        return VECDB_OK;
    }
    size_t n_values = n_bytes / page->n_planes, stride = vdb_page_round_up(n_values);
    /* A single plane is expanded to where it belongs. */
    unsigned char *scratch = page->n_planes == 1 ? rows : vdb_coder_scratch(coder, page->n_planes * stride);
    if (!scratch)
        return vdb_fail_memory(err, page->n_planes * stride);
    const unsigned char *planes[4], *at = page->body, *end = page->body + page->body_bytes;
    for (uint32_t p = 0; p < page->n_planes; p++) {
        size_t length = vdb_load_u32(page->plane_table + p * PAGE_PLANE_BYTES);
        bool is_frame = vdb_load_u32(page->plane_table + p * PAGE_PLANE_BYTES + 4) == PLANE_ZSTD;
        if (length > (size_t)(end - at) || (!is_frame && length != n_values))
            return vdb_fail(err, VECDB_CORRUPT, "plane %u has %zu bytes, which cannot be", p, length);
        planes[p] = is_frame ? scratch + p * stride : at;
        int status = is_frame ? vdb_planes_expand(coder, at, length, scratch + p * stride, n_values, err) : VECDB_OK;
        if (status)
            return status;
        at += length;
    }
    vdb_planes_join(planes, n_values, page->n_planes, rows);
    return VECDB_OK;
}

/* Stored values to the field's type, in place: they lie at the end of the room that the wider ones
 * take. n (W - w) bytes lie before them, so the end of wide value i, (i + 1) W, never passes the
 * beginning of narrow value i + 1. */
static void widen(int type, int stored_type, const unsigned char *stored, size_t n, unsigned char *rows)
{
    for (size_t i = 0; i < n; i++) {
        float value;
        uint16_t half;
        if (stored_type == VECDB_U8) {
            value = stored[i];
        } else if (stored_type == VECDB_I8) {
            value = (int8_t)stored[i];
        } else {
            memcpy(&half, stored + 2 * i, 2);
            value = stored_type == VECDB_F16 ? vdb_float_of_f16(half) : vdb_float_of_bf16(half);
        }
        if (type == VECDB_F32) {
            memcpy(rows + 4 * i, &value, 4);
        } else {
            half = type == VECDB_F16 ? vdb_f16_of_float(value) : vdb_bf16_of_float(value);
            memcpy(rows + 2 * i, &half, 2);
        }
    }
}

int vdb_page_decode(struct vdb_coder *coder, const struct vdb_page *page, void *rows, vecdb_error *err)
{
    if (page->stored_type == page->type)
        return vdb_page_unpack(coder, page, rows, err);
    size_t stored_bytes = page->n_rows * vdb_vector_bytes(page->stored_type, page->dimension);
    size_t all_bytes = page->n_rows * vdb_vector_bytes(page->type, page->dimension);
    unsigned char *stored = (unsigned char *)rows + (all_bytes - stored_bytes);
    int status = vdb_page_unpack(coder, page, stored, err);
    if (status)
        return status;
    widen(page->type, page->stored_type, stored, stored_bytes / vdb_page_value_bytes(page->stored_type), rows);
    return VECDB_OK;
}

void vdb_page_block(const struct vdb_page *page, struct vdb_block *block)
{
    assert(page->codec != VDB_CODEC_PLANES);
    *block = (struct vdb_block){.rows = page->body,
                                .stride = vdb_vector_bytes(page->stored_type, page->dimension),
                                .n_rows = page->n_rows,
                                .type = page->stored_type,
                                .max_norm = page->max_norm,
                                .n_runs = page->n_runs,
                                .runs = page->runs};
}
