/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzz target: hostile bytes of an index file make a graph that can be used, or are refused.
 *
 * Input: a byte that chooses the kind of field, a byte that chooses a form, then edits, {place u16, value u8}, of a
 * good file with a base and a delta that is made first. In one form the checks of the header, of heads and pieces, and
 * the chain of heads are then made good, so that edits reach the graph's numbers and arrays; in the other edits are
 * of a base and a delta without frames. What is loaded is searched, gets more rows, is sealed, swept, saved and loaded
 * again.
 */
#include <stdlib.h>
#include <xxhash.h>

#include "base/bytes.h"
#include "base/numbers.h"
#include "base/random.h"
#include "base/slots.h"
#include "index/graph.h"
#include "storage/index_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DIMENSION 24u
#define BASE_ROWS 40u
#define ALL_ROWS 60u
#define MORE_ROWS 5u /* that what was loaded is given */
#define MOST_ROWS 128u
#define MOST_BYTES 65536u

static struct vdb_memory memory;
static const struct vdb_kernels *kernels;
static const struct vdb_index_file_id id = {.uuid = "fuzz", .field = 3, .generation = 2, .store = 1};

struct bytes {
    uint8_t at[MOST_BYTES];
    size_t n;
};

/* A kind of field: its rows by slot, and the good bytes of a graph of them. */
struct kind {
    struct vdb_graph_options options;
    size_t row_bytes;
    uint8_t rows[MOST_ROWS * DIMENSION * 4];
    struct bytes base, delta;
};

static void require(bool is_right)
{
    if (!is_right)
        abort();
}

static int append(void *context, const void *bytes, size_t n, vecdb_error *err)
{
    struct bytes *to = context;
    (void)err;
    require(n <= MOST_BYTES - to->n);
    memcpy(to->at + to->n, bytes, n);
    to->n += n;
    return VECDB_OK;
}

/* ------------------------------------------------------------------ rows */

static int find_rows(void *context, const uint32_t *slots, size_t n, struct vdb_row *rows, vecdb_error *err)
{
    const struct kind *kind = context;
    (void)err;
    for (size_t i = 0; i < n; i++) {
        bool is_there = slots[i] < MOST_ROWS;
        rows[i] = (struct vdb_row){.values = is_there ? kind->rows + slots[i] * kind->row_bytes : NULL,
                                   .type = kind->options.type};
    }
    return VECDB_OK;
}

static void put_rows(void *context, struct vdb_row *rows, size_t n)
{
    (void)context, (void)rows, (void)n;
}

static int insert(struct kind *kind, struct vdb_graph *graph, uint32_t first, uint32_t n)
{
    struct vdb_run run = {first, 0};
    struct vdb_block block = {.rows = kind->rows + first % (MOST_ROWS - n) * kind->row_bytes,
                              .stride = kind->row_bytes,
                              .type = kind->options.type,
                              .n_rows = n,
                              .runs = &run,
                              .n_runs = 1};
    return vdb_graph_insert(graph, &block, 0, n, NULL, NULL);
}

static void make_kind(struct kind *kind, int metric)
{
    struct vdb_random random = {7};
    struct vdb_graph *graph;
    *kind = (struct kind){.row_bytes = metric == VECDB_HAMMING ? DIMENSION / 8 : DIMENSION * 4};
    kind->options = (struct vdb_graph_options){.memory = &memory,
                                               .kernels = kernels,
                                               .metric = metric,
                                               .type = metric == VECDB_HAMMING ? VECDB_BIT : VECDB_F32,
                                               .dimension = DIMENSION,
                                               .seed = 5};
    for (uint32_t row = 0; row < MOST_ROWS; row++)
        for (uint32_t i = 0; i < DIMENSION; i++) {
            float value = row % 9 ? (float)vdb_random_unit(&random) - 0.3f : 0.25f; /* one in nine is the same */
            if (metric != VECDB_HAMMING)
                memcpy(kind->rows + row * kind->row_bytes + 4 * (size_t)i, &value, 4);
            else
                kind->rows[row * kind->row_bytes + i / 8] |= (uint8_t)((value > 0) << i % 8);
        }
    require(!vdb_graph_new(&kind->options, MOST_ROWS, NULL, &graph, NULL));
    require(!insert(kind, graph, 0, BASE_ROWS));
    require(!vdb_graph_save_base(graph, append, &kind->base, NULL));
    vdb_graph_saved(graph);
    require(!insert(kind, graph, BASE_ROWS, ALL_ROWS - BASE_ROWS));
    require(!vdb_graph_save_delta(graph, append, &kind->delta, NULL));
    vdb_graph_release(graph);
}

/* ------------------------------------------------------------------ a graph that was loaded */

static void search(struct kind *kind, struct vdb_graph *graph)
{
    struct vdb_graph_scratch *scratch = vdb_graph_scratch_new(&memory);
    struct vdb_search query = {.kernels = kernels,
                               .memory = &memory,
                               .n_threads = 1,
                               .metric = kind->options.metric,
                               .type = kind->options.type,
                               .dimension = DIMENSION,
                               .queries = kind->rows,
                               .n_queries = 3,
                               .k = 10};
    struct vdb_rows rows = {kind, find_rows, put_rows};
    require(scratch);
    for (uint32_t q = 0; q < 3; q++) {
        struct vdb_graph_effort effort = {.ef = 1 + 20 * q, .n_rerank = 12};
        struct vdb_hit hits[10];
        uint32_t n_hits = 0, end = vdb_graph_end(graph);
        require(!vdb_graph_search(graph, &query, q, end, &effort, &rows, scratch, hits, &n_hits, NULL, NULL));
        require(n_hits <= 10);
        for (uint32_t i = 0; i < n_hits; i++)
            require(hits[i].slot < end && (!i || hits[i - 1].distance <= hits[i].distance));
    }
    vdb_graph_scratch_free(scratch);
}

/* The bytes that it is saved as are good ones. */
static void save_and_load(struct kind *kind, struct vdb_graph *graph)
{
    static struct bytes saved, again;
    struct vdb_graph *loaded;
    saved.n = again.n = 0;
    require(!vdb_graph_save_base(graph, append, &saved, NULL) && saved.n == vdb_graph_base_bytes(graph));
    require(!vdb_graph_load_base(&kind->options, saved.at, saved.n, 0, &loaded, NULL));
    require(!vdb_graph_save_base(loaded, append, &again, NULL));
    require(saved.n == again.n && !memcmp(saved.at, again.at, saved.n));
    vdb_graph_release(loaded);
}

static void use_graph(struct kind *kind, struct vdb_graph *graph)
{
    struct vdb_graph_insert how = {.n_threads = 1};
    struct vdb_graph_info info;
    struct vdb_graph *swept;
    struct vdb_slots *dead = vdb_slots_new();
    require(dead);
    search(kind, graph);
    save_and_load(kind, graph);
    uint32_t end = vdb_graph_end(graph);
    if (end < UINT32_MAX - MORE_ROWS) {
        int status = insert(kind, graph, end, MORE_ROWS);
        require(!status || status == VECDB_FULL);
    }
    require(!vdb_graph_seal(graph, &how, NULL));
    search(kind, graph);
    vdb_slots_add_range(dead, 0, 20);
    int status = vdb_graph_sweep(graph, dead, &how, &swept, NULL);
    require(!status || status == VECDB_FULL);
    if (!status) {
        vdb_graph_describe(swept, &info);
        search(kind, swept);
        vdb_graph_release(swept);
    }
    vdb_slots_free(dead);
}

/* Bytes are given in blocks of their exact size, so that the sanitizer sees one too many. */
static uint8_t *exactly(const uint8_t *bytes, size_t n)
{
    uint8_t *copy = vdb_alloc(&memory, n);
    require(copy);
    memcpy(copy, bytes, n);
    return copy;
}

static void load(struct kind *kind, const uint8_t *base, size_t n_base, const uint8_t *delta, size_t n_delta)
{
    struct vdb_graph *graph;
    uint8_t *first = exactly(base, n_base), *second = exactly(delta, n_delta);
    int status = vdb_graph_load_base(&kind->options, first, n_base, MOST_ROWS, &graph, NULL);
    require(!status || status == VECDB_CORRUPT || status == VECDB_FULL);
    if (!status) {
        status = n_delta ? vdb_graph_load_delta(graph, second, n_delta, NULL) : VECDB_OK;
        require(!status || status == VECDB_CORRUPT || status == VECDB_FULL);
        if (!status)
            use_graph(kind, graph);
        vdb_graph_release(graph);
    }
    vdb_free(&memory, first);
    vdb_free(&memory, second);
}

/* ------------------------------------------------------------------ a file */

static int produce(void *context, vdb_index_write_fn write, void *writer, vecdb_error *err)
{
    const struct bytes *bytes = context;
    return write(writer, bytes->at, bytes->n, err);
}

/* Make every check good, as far as the numbers lead to bytes; the end of what counts, and the last head's check. */
static void mend(uint8_t *bytes, size_t n, struct vdb_index_extent *extent)
{
    vdb_store_u64(bytes + 56, XXH3_64bits(bytes, 56));
    *extent = (struct vdb_index_extent){64, vdb_load_u64(bytes + 56)};
    while (n - extent->n_bytes > 64) {
        uint8_t *head = bytes + extent->n_bytes;
        uint64_t room = n - extent->n_bytes - 64, n_bytes = vdb_load_u64(head + 16), n_pieces = vdb_load_u32(head + 32);
        if (n_bytes > room || 8 * n_pieces > room - n_bytes || n_pieces > 1)
            break;
        uint8_t *payload = head + 64 + 8 * n_pieces;
        if (n_pieces)
            vdb_store_u64(head + 64, XXH3_64bits_withSeed(payload, n_bytes, 0));
        vdb_store_u64(head + 24, extent->check);
        vdb_store_u64(head, XXH3_64bits(head + 8, 56 + 8 * n_pieces));
        uint64_t end = (extent->n_bytes + 64 + 8 * n_pieces + n_bytes + 63) / 64 * 64;
        if (end > n)
            break;
        *extent = (struct vdb_index_extent){end, vdb_load_u64(head)};
    }
}

static void load_file(struct kind *kind, struct vdb_file *file, const struct vdb_index_extent *extent)
{
    struct vdb_index_file *index;
    void *frames[2] = {NULL, NULL};
    size_t lengths[2] = {0, 0};
    if (vdb_index_file_open(file, &id, extent, &index, NULL))
        return;
    size_t n = vdb_index_file_count(index);
    bool is_read = n > 0;
    for (size_t i = 0; i < n && i < 2 && is_read; i++) {
        lengths[i] = (size_t)vdb_index_file_frame(index, i)->n_bytes;
        is_read = !vdb_index_file_read(index, i, &frames[i], NULL);
    }
    if (is_read)
        load(kind, frames[0], lengths[0], frames[1] ? frames[1] : frames[0], lengths[1]);
    for (size_t i = 0; i < 2; i++)
        vdb_free_aligned(&memory, frames[i]);
    vdb_index_file_close(index);
}

static void edit(uint8_t *bytes, size_t n, const uint8_t *edits, size_t n_edits)
{
    for (; n_edits >= 3; edits += 3, n_edits -= 3)
        bytes[vdb_load_u16(edits) % n] = edits[2];
}

/* Form bit 1: the last byte of the input says how much is cut off. */
static void use_file(struct kind *kind, unsigned form, const uint8_t *edits, size_t n_edits)
{
    struct vdb_vfs *vfs;
    struct vdb_file *file, *edited;
    struct vdb_index_extent extent, mended;
    struct vdb_index_frame base = {VDB_INDEX_BASE, BASE_ROWS, kind->base.n};
    struct vdb_index_frame delta = {VDB_INDEX_DELTA, ALL_ROWS, kind->delta.n};
    require(!vdb_vfs_memory(&memory, &vfs, NULL));
    require(!vfs->open(vfs, "/good", VDB_FILE_CREATE, &file, NULL) && !vdb_index_file_begin(file, &id, &extent, NULL));
    require(!vdb_index_file_append(file, &base, produce, &kind->base, &extent, NULL));
    require(!vdb_index_file_append(file, &delta, produce, &kind->delta, &extent, NULL));
    size_t n = (size_t)extent.n_bytes;
    uint8_t *bytes = vdb_alloc(&memory, n);
    require(bytes && !vfs->read(file, 0, bytes, n, NULL));
    edit(bytes, n, edits, n_edits);
    if (form & 2 && n_edits)
        n = 64 + (n - 64) * edits[n_edits - 1] / 256;
    if (form & 4)
        mended = extent; /* only what the file says is wrong */
    else
        mend(bytes, n, &mended);
    require(!vfs->open(vfs, "/edited", VDB_FILE_CREATE, &edited, NULL) && !vfs->write(edited, 0, bytes, n, NULL));
    load_file(kind, edited, &mended);
    vdb_free(&memory, bytes);
    vfs->close(file);
    vfs->close(edited);
    vfs->end(vfs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int metrics[] = {VECDB_L2, VECDB_IP, VECDB_COSINE, VECDB_HAMMING};
    static struct kind kinds[4];
    static uint8_t base[MOST_BYTES], delta[MOST_BYTES];
    if (size < 2 || size > 4096)
        return 0;
    if (!kernels) {
        vdb_memory_init(&memory, NULL);
        kernels = vdb_kernels_choose(NULL);
        for (int i = 0; i < 4; i++)
            make_kind(&kinds[i], metrics[i]);
    }
    struct kind *kind = &kinds[data[0] % 4];
    if (data[1] & 1) {
        use_file(kind, data[1], data + 2, size - 2);
        return 0;
    }
    size_t half = data[1] & 2 ? (size - 2) / 6 * 3 : size - 2;
    memcpy(base, kind->base.at, kind->base.n);
    memcpy(delta, kind->delta.at, kind->delta.n);
    edit(data[1] & 4 ? delta : base, data[1] & 4 ? kind->delta.n : kind->base.n, data + 2, half);
    edit(data[1] & 4 ? base : delta, data[1] & 4 ? kind->base.n : kind->delta.n, data + 2 + half, size - 2 - half);
    load(kind, base, kind->base.n, delta, kind->delta.n);
    return 0;
}
