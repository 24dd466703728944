/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/index_file.c - writing and reading files of derived data (see index_file.h)
 *
 *     header   0 "VDBINDEX" | 8 u16 version | 10 u16 kind, 1: graph | 12 u32 zero | 16 uuid | 32 u64 field
 *              40 u64 generation | 48 u64 store | 56 u64 XXH3-64 of bytes 0..55
 *     head     0 u64 XXH3-64 of bytes 8..63 and of the checks behind them | 8 "VDBI" | 12 u16 version | 14 u16 kind
 *              16 u64 bytes of the payload | 24 u64 check of the head before | 32 u32 pieces | 36 u32 end slot
 *              40 u64 offset of the frame in the file | 48 zeros
 *     checks   u64 for each piece of 1 MiB: XXH3-64 of the piece, seeded with its number
 *
 * A frame is written payload first, its head last: pieces are checked while they pass, and the payload is never in
 * memory as a whole. That leaves bytes that make no sense if it is cut off, behind what counts.
 *
 * Costs: a payload is read with one pass of the disk and one of the check (10 GB/s). Rejected: mapping. A file
 * that somebody cuts, or a disk that fails, would be a signal; and the graph copies its arrays anyway.
 */
#include "index_file.h"

#include <xxhash.h>

#include "base/bytes.h"
#include "base/error.h"

#define FILE_VERSION 2
#define FIRST_VERSION 1 /* graphs in such files may lack vectors that were in the tail when they were built */
#define FRAME_VERSION 1
#define KIND_GRAPH 1
#define HEAD_BYTES 64u
#define ALIGNMENT 64u
#define PIECE_BYTES (1u << 20)
#define MOST_FRAMES 65536u /* a new base comes long before */

static const char file_magic[8] = {'V', 'D', 'B', 'I', 'N', 'D', 'E', 'X'};
static const char head_magic[4] = {'V', 'D', 'B', 'I'};

static int fail_file(const struct vdb_file *file, vecdb_error *err, const char *what)
{
    return vdb_fail(err, VECDB_CORRUPT, "%s: %s", vdb_path_tail(file->path), what);
}

static uint64_t count_pieces(uint64_t n_bytes)
{
    return n_bytes / PIECE_BYTES + (n_bytes % PIECE_BYTES != 0);
}

static size_t piece_length(uint64_t n_bytes, uint64_t piece)
{
    uint64_t left = n_bytes - piece * PIECE_BYTES;
    return left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
}

/* ------------------------------------------------------------------ the header */

static void make_header(const struct vdb_index_file_id *id, unsigned char header[VDB_INDEX_HEADER_BYTES])
{
    memset(header, 0, VDB_INDEX_HEADER_BYTES);
    memcpy(header, file_magic, sizeof file_magic);
    vdb_store_u16(header + 8, FILE_VERSION);
    vdb_store_u16(header + 10, KIND_GRAPH);
    memcpy(header + 16, id->uuid, sizeof id->uuid);
    vdb_store_u64(header + 32, id->field);
    vdb_store_u64(header + 40, id->generation);
    vdb_store_u64(header + 48, id->store);
    vdb_store_u64(header + 56, XXH3_64bits(header, 56));
}

int vdb_index_file_begin(struct vdb_file *file, const struct vdb_index_file_id *id, struct vdb_index_extent *extent,
                         vecdb_error *err)
{
    unsigned char header[VDB_INDEX_HEADER_BYTES];
    make_header(id, header);
    int status = file->vfs->write(file, 0, header, sizeof header, err);
    if (!status)
        *extent = (struct vdb_index_extent){sizeof header, vdb_load_u64(header + 56)};
    return status;
}

static int verify_header(struct vdb_file *file, const struct vdb_index_file_id *id, uint64_t *check, vecdb_error *err)
{
    unsigned char found[VDB_INDEX_HEADER_BYTES], wanted[VDB_INDEX_HEADER_BYTES];
    int status = file->vfs->read(file, 0, found, sizeof found, err);
    if (status)
        return status;
    make_header(id, wanted);
    *check = vdb_load_u64(found + 56);
    if (!memcmp(found, wanted, sizeof found))
        return VECDB_OK;
    if (memcmp(found, file_magic, sizeof file_magic) || *check != XXH3_64bits(found, 56))
        return fail_file(file, err, "its header is damaged");
    if (vdb_load_u16(found + 8) == FIRST_VERSION)
        return vdb_fail(err, VECDB_UNSUPPORTED, "%s was written by an early version of the library; it is made anew",
                        vdb_path_tail(file->path));
    if (vdb_load_u16(found + 8) != FILE_VERSION || vdb_load_u16(found + 10) != KIND_GRAPH || vdb_load_u32(found + 12))
        return vdb_fail(err, VECDB_NEWER, "%s is of a newer version, or of a kind that this library does not know",
                        vdb_path_tail(file->path));
    return fail_file(file, err, "it is of another database, field or store");
}

/* ------------------------------------------------------------------ writing */

struct writer {
    struct vdb_file *file;
    uint64_t offset; /* of the payload */
    uint64_t n_bytes, n_done;
    unsigned char *piece;  /* PIECE_BYTES */
    unsigned char *head;   /* HEAD_BYTES, and the checks */
    size_t n_in_piece;
};

static int flush_piece(struct writer *writer, vecdb_error *err)
{
    uint64_t number = writer->n_done / PIECE_BYTES;
    int status = writer->file->vfs->write(writer->file, writer->offset + writer->n_done, writer->piece,
                                          writer->n_in_piece, err);
    if (status)
        return status;
    uint64_t check = XXH3_64bits_withSeed(writer->piece, writer->n_in_piece, number);
    vdb_store_u64(writer->head + HEAD_BYTES + 8 * number, check);
    writer->n_done += writer->n_in_piece;
    writer->n_in_piece = 0;
    return VECDB_OK;
}

static int take(void *context, const void *bytes, size_t n, vecdb_error *err)
{
    struct writer *writer = context;
    const unsigned char *from = bytes;
    if (n > writer->n_bytes - writer->n_done - writer->n_in_piece)
        return vdb_fail(err, VECDB_INTERNAL, "an index has more bytes than it said");
    while (n) {
        size_t room = PIECE_BYTES - writer->n_in_piece, now = n < room ? n : room;
        memcpy(writer->piece + writer->n_in_piece, from, now);
        writer->n_in_piece += now;
        from += now;
        n -= now;
        if (writer->n_in_piece == PIECE_BYTES) {
            int status = flush_piece(writer, err);
            if (status)
                return status;
        }
    }
    return VECDB_OK;
}

static uint64_t make_head(const struct vdb_index_frame *frame, const struct vdb_index_extent *extent,
                          uint64_t n_pieces, unsigned char *head)
{
    memset(head, 0, HEAD_BYTES);
    memcpy(head + 8, head_magic, sizeof head_magic);
    vdb_store_u16(head + 12, FRAME_VERSION);
    vdb_store_u16(head + 14, (uint16_t)frame->kind);
    vdb_store_u64(head + 16, frame->n_bytes);
    vdb_store_u64(head + 24, extent->check);
    vdb_store_u32(head + 32, (uint32_t)n_pieces);
    vdb_store_u32(head + 36, frame->end_slot);
    vdb_store_u64(head + 40, extent->n_bytes);
    uint64_t check = XXH3_64bits(head + 8, HEAD_BYTES - 8 + 8 * n_pieces);
    vdb_store_u64(head, check);
    return check;
}

static int write_frame(struct writer *writer, const struct vdb_index_frame *frame, vdb_index_produce_fn produce,
                       void *context, struct vdb_index_extent *extent, vecdb_error *err)
{
    static const unsigned char zeros[ALIGNMENT];
    struct vdb_vfs *vfs = writer->file->vfs;
    uint64_t n_pieces = count_pieces(frame->n_bytes), head_bytes = HEAD_BYTES + 8 * n_pieces;
    writer->offset = extent->n_bytes + head_bytes;
    int status = produce(context, take, writer, err);
    if (!status && writer->n_in_piece)
        status = flush_piece(writer, err);
    if (!status && writer->n_done != frame->n_bytes)
        status = vdb_fail(err, VECDB_INTERNAL, "an index has fewer bytes than it said");
    uint64_t end = writer->offset + frame->n_bytes;
    size_t padding = (size_t)(-end & (ALIGNMENT - 1));
    if (!status && padding)
        status = vfs->write(writer->file, end, zeros, padding, err);
    if (status)
        return status;
    uint64_t check = make_head(frame, extent, n_pieces, writer->head);
    status = vfs->write(writer->file, extent->n_bytes, writer->head, (size_t)head_bytes, err);
    if (!status)
        *extent = (struct vdb_index_extent){end + padding, check};
    return status;
}

int vdb_index_file_append(struct vdb_file *file, const struct vdb_index_frame *frame, vdb_index_produce_fn produce,
                          void *context, struct vdb_index_extent *extent, vecdb_error *err)
{
    struct vdb_memory *memory = file->vfs->memory;
    uint64_t n_pieces = count_pieces(frame->n_bytes);
    if (n_pieces >= UINT32_MAX)
        return vdb_fail(err, VECDB_UNSUPPORTED, "an index of %llu bytes is too large for a file",
                        (unsigned long long)frame->n_bytes);
    struct writer writer = {.file = file, .n_bytes = frame->n_bytes};
    writer.piece = vdb_alloc_aligned(memory, PIECE_BYTES);
    writer.head = vdb_alloc_zero(memory, HEAD_BYTES + 8 * (size_t)n_pieces);
    int status = writer.piece && writer.head ? write_frame(&writer, frame, produce, context, extent, err)
                                             : vdb_fail_memory(err, PIECE_BYTES);
    vdb_free_aligned(memory, writer.piece);
    vdb_free(memory, writer.head);
    return status;
}

/* ------------------------------------------------------------------ reading */

struct frame {
    struct vdb_index_frame public;
    uint64_t payload;      /* its offset */
    unsigned char *checks; /* of its pieces */
};

struct vdb_index_file {
    struct vdb_file *file;
    struct frame *frames;
    size_t n_frames;
};

/* The head at `at`. Its numbers are compared with what must be there before anything is allocated by them. */
static int read_head(struct vdb_index_file *index, uint64_t n_total, struct vdb_index_extent *at, vecdb_error *err)
{
    struct vdb_file *file = index->file;
    struct vdb_memory *memory = file->vfs->memory;
    unsigned char head[HEAD_BYTES];
    if (!vdb_range_is_inside(at->n_bytes, HEAD_BYTES, n_total) || index->n_frames == MOST_FRAMES)
        return fail_file(file, err, "a frame does not end where it should");
    int status = file->vfs->read(file, at->n_bytes, head, sizeof head, err);
    if (status)
        return status;
    uint64_t n_bytes = vdb_load_u64(head + 16), n_pieces = vdb_load_u32(head + 32);
    if (memcmp(head + 8, head_magic, sizeof head_magic) || vdb_load_u64(head + 40) != at->n_bytes ||
        vdb_load_u64(head + 24) != at->check || n_bytes > n_total || n_pieces != count_pieces(n_bytes) ||
        !vdb_range_is_inside(at->n_bytes + HEAD_BYTES, 8 * n_pieces + n_bytes, n_total))
        return fail_file(file, err, "the head of a frame is damaged");
    if (vdb_load_u16(head + 12) != FRAME_VERSION)
        return vdb_fail(err, VECDB_NEWER, "%s has frames of a newer version", vdb_path_tail(file->path));
    struct frame *frames = vdb_realloc_array(memory, index->frames, index->n_frames + 1, sizeof *frames);
    if (!frames)
        return vdb_fail_memory(err, sizeof *frames);
    index->frames = frames;
    unsigned char *checks = vdb_alloc(memory, HEAD_BYTES + 8 * (size_t)n_pieces);
    if (!checks)
        return vdb_fail_memory(err, 8 * (size_t)n_pieces);
    memcpy(checks, head, HEAD_BYTES);
    status = n_pieces ? file->vfs->read(file, at->n_bytes + HEAD_BYTES, checks + HEAD_BYTES, 8 * (size_t)n_pieces, err)
                      : VECDB_OK;
    uint64_t check = vdb_load_u64(head), payload = at->n_bytes + HEAD_BYTES + 8 * n_pieces;
    if (!status && XXH3_64bits(checks + 8, HEAD_BYTES - 8 + 8 * (size_t)n_pieces) != check)
        status = fail_file(file, err, "the checksum of a frame's head does not match");
    if (status) {
        vdb_free(memory, checks);
        return status;
    }
    memmove(checks, checks + HEAD_BYTES, 8 * (size_t)n_pieces);
    frames[index->n_frames++] = (struct frame){{vdb_load_u16(head + 14), vdb_load_u32(head + 36), n_bytes},
                                               payload, checks};
    *at = (struct vdb_index_extent){(payload + n_bytes + ALIGNMENT - 1) & ~(uint64_t)(ALIGNMENT - 1), check};
    return VECDB_OK;
}

static int read_heads(struct vdb_index_file *index, const struct vdb_index_file_id *id,
                      const struct vdb_index_extent *extent, vecdb_error *err)
{
    struct vdb_index_extent at = {VDB_INDEX_HEADER_BYTES, 0};
    uint64_t size;
    int status = index->file->vfs->size(index->file, &size, err);
    if (!status && (size < extent->n_bytes || extent->n_bytes < VDB_INDEX_HEADER_BYTES))
        status = vdb_fail(err, VECDB_CORRUPT, "%s has %llu bytes, the catalog knows of %llu",
                          vdb_path_tail(index->file->path), (unsigned long long)size,
                          (unsigned long long)extent->n_bytes);
    if (!status)
        status = verify_header(index->file, id, &at.check, err);
    while (!status && at.n_bytes < extent->n_bytes)
        status = read_head(index, extent->n_bytes, &at, err);
    if (!status && (at.n_bytes != extent->n_bytes || at.check != extent->check))
        status = fail_file(index->file, err, "its last frame is not the one that the catalog names");
    return status;
}

int vdb_index_file_open(struct vdb_file *file, const struct vdb_index_file_id *id,
                        const struct vdb_index_extent *extent, struct vdb_index_file **out, vecdb_error *err)
{
    struct vdb_index_file *index = vdb_alloc_zero(file->vfs->memory, sizeof *index);
    if (!index)
        return vdb_fail_memory(err, sizeof *index);
    index->file = file;
    int status = read_heads(index, id, extent, err);
    if (status) {
        vdb_index_file_close(index);
        return status;
    }
    *out = index;
    return VECDB_OK;
}

void vdb_index_file_close(struct vdb_index_file *index)
{
    if (!index)
        return;
    struct vdb_memory *memory = index->file->vfs->memory;
    for (size_t i = 0; i < index->n_frames; i++)
        vdb_free(memory, index->frames[i].checks);
    vdb_free(memory, index->frames);
    vdb_free(memory, index);
}

size_t vdb_index_file_count(const struct vdb_index_file *index)
{
    return index->n_frames;
}

const struct vdb_index_frame *vdb_index_file_frame(const struct vdb_index_file *index, size_t i)
{
    return &index->frames[i].public;
}

static int read_payload(const struct vdb_index_file *index, const struct frame *frame, unsigned char *bytes,
                        vecdb_error *err)
{
    struct vdb_file *file = index->file;
    uint64_t n_bytes = frame->public.n_bytes, end = frame->payload + n_bytes;
    unsigned char padding[ALIGNMENT];
    size_t n_padding = (size_t)(-end & (ALIGNMENT - 1));
    for (uint64_t i = 0; i < count_pieces(n_bytes); i++) {
        unsigned char *piece = bytes + i * PIECE_BYTES;
        size_t n = piece_length(n_bytes, i);
        int status = file->vfs->read(file, frame->payload + i * PIECE_BYTES, piece, n, err);
        if (status)
            return status;
        if (XXH3_64bits_withSeed(piece, n, i) != vdb_load_u64(frame->checks + 8 * i))
            return vdb_fail(err, VECDB_CORRUPT, "%s: the checksum of the bytes from %llu on does not match",
                            vdb_path_tail(file->path), (unsigned long long)(frame->payload + i * PIECE_BYTES));
    }
    int status = n_padding ? file->vfs->read(file, end, padding, n_padding, err) : VECDB_OK;
    for (size_t i = 0; i < n_padding && !status; i++)
        if (padding[i])
            status = fail_file(file, err, "there is something between two frames");
    return status;
}

int vdb_index_file_read(const struct vdb_index_file *index, size_t i, void **out, vecdb_error *err)
{
    struct vdb_memory *memory = index->file->vfs->memory;
    const struct frame *frame = &index->frames[i];
    size_t room = frame->public.n_bytes ? (size_t)frame->public.n_bytes : 1;
    void *bytes = vdb_alloc_aligned(memory, room);
    if (!bytes)
        return vdb_fail_memory(err, room);
    int status = read_payload(index, frame, bytes, err);
    if (status)
        vdb_free_aligned(memory, bytes);
    else
        *out = bytes;
    return status;
}
