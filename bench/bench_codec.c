/* SPDX-License-Identifier: Apache-2.0
 *
 * bench/bench_codec.c - how small the page codec makes real vectors, and how fast it is
 *
 *     bench_codec [FOLDER]         FOLDER holds the real data (../shared/data)
 *
 * For each data set and each type that its values fit: pages of the first 64 MiB (of the values as
 * f32), encoded with every compression, then decoded. Prints a table in Markdown. Ratio is raw bytes over page
 * bytes, headers and slots included; speed is raw bytes per second, on one thread, the median of five
 * rounds. Then the codecs that were chosen, in percent of the pages: raw and narrow ones are scored where they lie,
 * without decoding; decoding brings planes into the type they are scored in. Every page is decoded once more and
 * compared with the rows to the bit, and none may be larger than the same page as `none` stores it: the program stops
 * if one is not so.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/numbers.h"
#include "base/threads.h"
#include "storage/page.h"

#define N_ROUNDS 5
#define LIMIT_BYTES ((size_t)64 << 20)

struct set {
    const char *name, *file;
    int file_type;
};

static struct vdb_memory memory;

static void stop(const char *what)
{
    fprintf(stderr, "bench_codec: %s\n", what);
    exit(1);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values)
{
    qsort(values, N_ROUNDS, sizeof *values, compare_doubles);
    return values[N_ROUNDS / 2];
}

/* The first rows of a big-ann file, as many as take LIMIT_BYTES as f32. */
static void *load(const char *folder, const struct set *set, uint32_t *n_rows, uint32_t *dimension)
{
    char path[1024];
    uint32_t head[2];
    snprintf(path, sizeof path, "%s/%s", folder, set->file);
    FILE *file = fopen(path, "rb");
    if (!file)
        return NULL;
    if (fread(head, 4, 2, file) != 2)
        stop("a file has no header");
    size_t limit = LIMIT_BYTES / 4 / head[1];
    *n_rows = head[0] < limit ? head[0] : (uint32_t)limit;
    *dimension = head[1];
    size_t n_bytes = *n_rows * vdb_vector_bytes(set->file_type, head[1]);
    void *values = vdb_alloc(&memory, n_bytes);
    if (!values || fread(values, 1, n_bytes, file) != n_bytes)
        stop("a file is short");
    fclose(file);
    return values;
}

/* The values as another type, NULL when one does not fit it. */
static void *convert(const void *values, size_t n, int from, int to)
{
    float *floats = vdb_alloc_array(&memory, n, sizeof *floats);
    unsigned char *out = vdb_alloc(&memory, vdb_vector_bytes(to, 1) * n);
    bool fits = true;
    vdb_floats_of(from, values, (uint32_t)n, floats);
    for (size_t i = 0; i < n; i++) {
        uint16_t half = vdb_f16_of_float(floats[i]);
        if (to == VECDB_F32)
            memcpy(out + 4 * i, &floats[i], 4);
        else if (to == VECDB_F16)
            memcpy(out + 2 * i, &half, 2);
        else if (floats[i] >= 0 && floats[i] <= 255 && floats[i] == (float)(int)floats[i])
            out[i] = (unsigned char)floats[i];
        else
            fits = false;
    }
    vdb_free(&memory, floats);
    if (fits)
        return out;
    vdb_free(&memory, out);
    return NULL;
}

struct pages {
    struct vdb_buffer buffer;
    size_t *starts, *lengths;
    size_t n;
};

static void encode(struct vdb_coder *coder, const unsigned char *rows, const uint32_t *slots, uint32_t n_rows, int type,
                   uint32_t dimension, int compression, struct pages *pages)
{
    uint32_t capacity = vdb_page_capacity(type, dimension);
    pages->buffer.n_bytes = pages->n = 0;
    for (uint32_t i = 0; i < n_rows; i += capacity) {
        uint32_t n = n_rows - i < capacity ? n_rows - i : capacity;
        struct vdb_page_rows page = {type,      dimension, compression, rows + i * vdb_vector_bytes(type, dimension),
                                     slots + i, n};
        size_t start = (pages->buffer.n_bytes + VDB_PAGE_ALIGN - 1) / VDB_PAGE_ALIGN * VDB_PAGE_ALIGN;
        if (vdb_page_encode(coder, &page, &pages->buffer, NULL))
            stop("a page cannot be encoded");
        pages->starts[pages->n] = start;
        pages->lengths[pages->n++] = pages->buffer.n_bytes - start;
    }
}

/* Verify and unpack all pages. */
static void decode(struct vdb_coder *coder, const struct pages *pages, int type, uint32_t dimension, void *rows)
{
    for (size_t i = 0; i < pages->n; i++) {
        struct vdb_page page;
        if (vdb_page_parse(pages->buffer.bytes + pages->starts[i], pages->lengths[i], type, dimension, false, &page,
                           NULL) ||
            vdb_page_unpack(coder, &page, rows, NULL))
            stop("a page cannot be decoded");
    }
}

/* Every page as the field has it, compared with what went in, and with the size it has uncompressed. Counts codecs. */
static void verify(struct vdb_coder *coder, const struct pages *pages, const size_t *plain_lengths,
                   const unsigned char *rows, int type, uint32_t dimension, void *out,
                   size_t n_codecs[VDB_CODEC_PLANES + 1])
{
    for (size_t i = 0; i < pages->n; i++) {
        struct vdb_page page;
        if (vdb_page_parse(pages->buffer.bytes + pages->starts[i], pages->lengths[i], type, dimension, true, &page,
                           NULL) ||
            vdb_page_decode(coder, &page, out, NULL))
            stop("a page cannot be decoded");
        size_t n_bytes = page.n_rows * vdb_vector_bytes(type, dimension);
        if (memcmp(out, rows, n_bytes))
            stop("a page does not give back what was put in");
        if (pages->lengths[i] > plain_lengths[i])
            stop("a page is larger than it is uncompressed");
        rows += n_bytes;
        n_codecs[page.codec]++;
    }
}

static void measure(const struct set *set, const unsigned char *rows, uint32_t n_rows, int type, uint32_t dimension,
                    int compression)
{
    static const char *const names[] = {"auto", "none", "max"};
    double encode_s[N_ROUNDS], decode_s[N_ROUNDS];
    struct vdb_coder *coder;
    struct pages pages = {.n = 0};
    size_t raw_bytes = n_rows * vdb_vector_bytes(type, dimension), n_codecs[VDB_CODEC_PLANES + 1] = {0};
    uint32_t *slots = vdb_alloc_array(&memory, n_rows, sizeof *slots);
    void *out = vdb_alloc(&memory, VDB_PAGE_MAX_BYTES);
    pages.starts = vdb_alloc_array(&memory, n_rows, sizeof *pages.starts);
    pages.lengths = vdb_alloc_array(&memory, n_rows, sizeof *pages.lengths);
    size_t *plain_lengths = vdb_alloc_array(&memory, n_rows, sizeof *plain_lengths);
    vdb_buffer_init(&pages.buffer, &memory);
    if (!slots || !out || !plain_lengths || !pages.starts || !pages.lengths || vdb_coder_new(&memory, &coder, NULL))
        stop("out of memory");
    for (uint32_t i = 0; i < n_rows; i++)
        slots[i] = i;
    for (int round = 0; round < N_ROUNDS; round++) {
        uint64_t start = vdb_now_ns();
        encode(coder, rows, slots, n_rows, type, dimension, compression, &pages);
        uint64_t middle = vdb_now_ns();
        decode(coder, &pages, type, dimension, out);
        encode_s[round] = (double)(middle - start) * 1e-9;
        decode_s[round] = (double)(vdb_now_ns() - middle) * 1e-9;
    }
    size_t n_bytes = pages.buffer.n_bytes, n_pages = pages.n;
    encode(coder, rows, slots, n_rows, type, dimension, VECDB_COMPRESSION_NONE, &pages);
    memcpy(plain_lengths, pages.lengths, n_pages * sizeof *plain_lengths);
    encode(coder, rows, slots, n_rows, type, dimension, compression, &pages);
    verify(coder, &pages, plain_lengths, rows, type, dimension, out, n_codecs);
    printf("| %s | %s | %s | %.2f | %.2f | %.1f | %.0f | %.0f | %.0f |\n", set->name, vdb_type_name(type),
           names[compression], (double)raw_bytes / (double)n_bytes, (double)raw_bytes * 1e-9 / median(encode_s),
           (double)raw_bytes * 1e-9 / median(decode_s), 100 * (double)n_codecs[VDB_CODEC_RAW] / (double)n_pages,
           100 * (double)n_codecs[VDB_CODEC_NARROW] / (double)n_pages,
           100 * (double)n_codecs[VDB_CODEC_PLANES] / (double)n_pages);
    vdb_free(&memory, plain_lengths);
    vdb_coder_free(coder);
    vdb_buffer_release(&pages.buffer);
    vdb_free(&memory, pages.starts);
    vdb_free(&memory, pages.lengths);
    vdb_free(&memory, slots);
    vdb_free(&memory, out);
}

int main(int argc, char **argv)
{
    static const struct set sets[] = {{"mnist", "mnist/base.u8bin", VECDB_U8},
                                      {"sift200k", "sift200k/base.u8bin", VECDB_U8},
                                      {"glove", "glove/base.f16bin", VECDB_F16},
                                      {"docs", "docs/base.f16bin", VECDB_F16}};
    static const int types[] = {VECDB_F32, VECDB_F16, VECDB_U8};
    vdb_memory_init(&memory, NULL);
    printf("| set | type | compression | ratio | encode GB/s | decode GB/s | raw %% | narrow %% | planes %% |\n"
           "|---|---|---|---|---|---|---|---|---|\n");
    for (size_t s = 0; s < sizeof sets / sizeof *sets; s++) {
        uint32_t n_rows, dimension;
        void *values = load(argc > 1 ? argv[1] : "../shared/data", &sets[s], &n_rows, &dimension);
        if (!values) {
            printf("%-8s is not here\n", sets[s].name);
            continue;
        }
        for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
            void *rows = convert(values, (size_t)n_rows * dimension, sets[s].file_type, types[t]);
            for (int compression = VECDB_COMPRESSION_AUTO; rows && compression <= VECDB_COMPRESSION_MAX; compression++)
                measure(&sets[s], rows, n_rows, types[t], dimension, compression);
            vdb_free(&memory, rows);
        }
        vdb_free(&memory, values);
    }
    return 0;
}
