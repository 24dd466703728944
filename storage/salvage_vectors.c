/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/salvage_vectors.c - what can be read of a field's vector files (see salvage.h)
 *
 *     the catalog names extents  ->  their footers name pages
 *     a footer is damaged        ->  the extent is scanned
 *     rows of extents are lost   ->  all files of the field are scanned
 *
 * A scan looks at every multiple of 64 for a page, which tells its own length, type, dimension and slots, under
 * a check of its own; and at every multiple of 32 for the end of a footer, which names the pages before it under
 * another. So pages are found without any of what is above them, and, by a footer, also those that are damaged.
 *
 * A slot's vector never changes within a store, so any page that is whole tells the truth about its slots. The
 * exception is debris: pages that were written by a transaction which then failed, whose slots were given out
 * again. They are found by scans only, and lie before what was written later: of two pages with the same
 * slot the one of the higher generation counts, and then the one further back.
 *
 * Costs: 40 bytes a page, two pages of rows, and for a scan a window of 5 MiB.
 */
#include "salvage.h"

#include <stdio.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/names.h"
#include "base/numbers.h"
#include "extent_format.h"
#include "page_format.h"

#define WINDOW_BYTES ((size_t)VDB_PAGE_MAX_BYTES + (1u << 20))
#define PIECE_BYTES 65536u /* what a bad sector costs */
#define FOOTER_STEP 32u
#define MOST_STEPS_BACK 64u

struct known_page {
    struct vdb_salvage_page page;
    uint32_t reach; /* the highest last slot of this page and those before it */
    bool is_bad;
};

struct known_file {
    uint64_t generation;
    struct vdb_file *file;
};

struct vdb_salvage_vectors {
    struct vdb_salvage_options options;
    struct vdb_memory *memory;
    struct vdb_salvage_field field;
    vdb_salvage_tell_fn tell;
    void *context;
    struct known_file *files;
    size_t n_files;
    struct known_page *pages; /* by first slot */
    size_t n_pages, capacity;
    struct vdb_salvage_extent *partial; /* extents of which pages are missing */
    size_t n_partial;
    struct vdb_coder *coder;
    unsigned char *bytes; /* of the page that is loaded */
    size_t bytes_capacity;
    struct vdb_page parsed;
    size_t loaded; /* its place in pages; SIZE_MAX: none */
    unsigned char *rows;
    size_t rows_capacity;
};

static int step(const struct vdb_salvage_options *options, vecdb_error *err)
{
    return options->step ? options->step(options->step_context, err) : VECDB_OK;
}

static int open_vectors(const struct vdb_salvage_options *options, uint64_t field, uint64_t generation,
                        struct vdb_file **file, vecdb_error *err)
{
    size_t room = strlen(options->directory) + 64;
    char *path = vdb_alloc(options->memory, room);
    if (!path)
        return vdb_fail_memory(err, room);
    snprintf(path, room, "%s/vectors-%llu-%llu", options->directory, (unsigned long long)field,
             (unsigned long long)generation);
    int status = options->vfs->open(options->vfs, path, VDB_FILE_READ, file, err);
    vdb_free(options->memory, path);
    return status;
}

/* ------------------------------------------------------------------ scanning */

/* A page that begins here, if one does. `n_bytes` is what the window has; `wanted` tells how much it needs. */
static bool find_page(const unsigned char *bytes, size_t n_bytes, int type, uint32_t dimension, struct vdb_page *page,
                      size_t *wanted)
{
    *wanted = 0;
    if (n_bytes < PAGE_FIXED_BYTES || memcmp(bytes + PAGE_AT_MAGIC, PAGE_MAGIC, 4))
        return false;
    uint64_t length = (uint64_t)vdb_load_u32(bytes + PAGE_AT_HEADER_BYTES) + vdb_load_u32(bytes + PAGE_AT_BODY_BYTES);
    if (length < PAGE_FIXED_BYTES || length > VDB_PAGE_MAX_BYTES)
        return false;
    *wanted = (size_t)length;
    if (length > n_bytes)
        return false;
    if (!type) {
        type = bytes[PAGE_AT_TYPE];
        dimension = vdb_load_u32(bytes + PAGE_AT_DIMENSION);
        if (type < VECDB_F32 || type > VECDB_BIT || !dimension || dimension > VECDB_MAX_DIMENSION)
            return false;
    }
    return !vdb_page_parse(bytes, (size_t)length, type, dimension, true, page, NULL);
}

static uint32_t last_slot_of(const struct vdb_page *page)
{
    const struct vdb_run *last = &page->runs[page->n_runs - 1];
    return last->slot + (page->n_rows - 1 - last->row);
}

struct scan {
    const struct vdb_salvage_options *options;
    struct vdb_file *file;
    int type; /* 0: any */
    uint32_t dimension;
    uint64_t from, to;
    unsigned char *window;
    uint64_t at;    /* of the window in the file */
    size_t n_bytes; /* in it */
    bool (*each_page)(void *context, uint64_t offset, size_t length, const struct vdb_page *page); /* false: enough */
    int (*each_footer)(void *context, uint64_t end, const unsigned char *trailer, vecdb_error *err);
    void *context;
};

/* Fill the window from `at` on. What cannot be read counts as zeros. */
static int fill_window(struct scan *scan, uint64_t at, vecdb_error *err)
{
    uint64_t left = scan->to - at;
    scan->at = at;
    scan->n_bytes = left < WINDOW_BYTES ? (size_t)left : WINDOW_BYTES;
    for (size_t i = 0; i < scan->n_bytes; i += PIECE_BYTES) {
        size_t n = scan->n_bytes - i < PIECE_BYTES ? scan->n_bytes - i : PIECE_BYTES;
        int status = VECDB_IO;
        for (int attempt = 0; attempt < 2 && status == VECDB_IO; attempt++)
            status = scan->file->vfs->read(scan->file, at + i, scan->window + i, n, err);
        if (status == VECDB_IO || status == VECDB_CORRUPT)
            memset(scan->window + i, 0, n);
        else if (status)
            return status;
    }
    return step(scan->options, err);
}

static int scan_file(struct scan *scan, vecdb_error *err)
{
    uint64_t at = scan->from, n_bytes = scan->to > at ? scan->to - at : 1;
    size_t room = n_bytes < WINDOW_BYTES ? (size_t)n_bytes : WINDOW_BYTES;
    scan->window = vdb_alloc_aligned(scan->options->memory, room);
    if (!scan->window)
        return vdb_fail_memory(err, room);
    int status = at < scan->to ? fill_window(scan, at, err) : VECDB_OK;
    while (!status && at < scan->to) {
        const unsigned char *bytes = scan->window + (at - scan->at);
        size_t left = scan->n_bytes - (size_t)(at - scan->at), wanted = 0, length = 0;
        bool reaches_end = scan->at + scan->n_bytes == scan->to;
        if (left < TRAILER_BYTES && !reaches_end) {
            status = fill_window(scan, at, err);
            continue;
        }
        struct vdb_page page;
        if (at % VDB_PAGE_ALIGN == 0 && find_page(bytes, left, scan->type, scan->dimension, &page, &wanted)) {
            length = wanted;
            if (!scan->each_page(scan->context, at, length, &page))
                break;
        } else if (wanted > left && !reaches_end) {
            status = fill_window(scan, at, err);
            continue;
        } else if (left >= TRAILER_BYTES && scan->each_footer && !memcmp(bytes, FOOTER_MAGIC, 4)) {
            status = scan->each_footer(scan->context, at + TRAILER_BYTES, bytes, err);
        }
        at += length ? vdb_page_round_up(length) : FOOTER_STEP;
        if (!status && at >= scan->at + scan->n_bytes && at < scan->to)
            status = fill_window(scan, at, err);
    }
    vdb_free_aligned(scan->options->memory, scan->window);
    return status;
}

/* ------------------------------------------------------------------ files that are there */

struct listing {
    const struct vdb_salvage_options *options;
    const unsigned char *uuid;
    struct vdb_salvage_file *files;
    size_t n;
    int status;
    vecdb_error *err;
};

static bool note_first_page(void *context, uint64_t offset, size_t length, const struct vdb_page *page)
{
    (void)offset, (void)length;
    struct vdb_salvage_file *file = context;
    file->type = page->type;
    file->dimension = page->dimension;
    file->first_slot = page->runs[0].slot;
    file->last_slot = last_slot_of(page);
    return false;
}

/* What the header says, if it is whole. `is_ours` false: it belongs to another database. */
static int read_file_header(const struct listing *listing, struct vdb_file *file, struct vdb_salvage_file *row,
                            bool *is_ours, vecdb_error *err)
{
    unsigned char header[VDB_FILE_HEADER_BYTES];
    int status = file->vfs->read(file, 0, header, sizeof header, err);
    *is_ours = true;
    if (status)
        return status == VECDB_IO || status == VECDB_CORRUPT ? VECDB_OK : status;
    row->is_whole = !memcmp(header + 8, VECTOR_FILE_MAGIC, 4) && !header[14] &&
                    vdb_load_u64(header) == vdb_check_sum(header + 8, sizeof header - 8) &&
                    vdb_load_u64(header + 32) == row->field && vdb_load_u64(header + 40) == row->generation;
    if (!row->is_whole)
        return VECDB_OK;
    row->store = vdb_load_u64(header + 48);
    *is_ours = !listing->uuid || !memcmp(header + 16, listing->uuid, 16);
    return VECDB_OK;
}

static int look_at_file(struct listing *listing, struct vdb_salvage_file *row, bool *is_ours, vecdb_error *err)
{
    const struct vdb_salvage_options *options = listing->options;
    struct vdb_file *file;
    uint64_t n_bytes;
    int status = open_vectors(options, row->field, row->generation, &file, err);
    if (status)
        return status;
    status = read_file_header(listing, file, row, is_ours, err);
    if (!status && *is_ours)
        status = options->vfs->size(file, &n_bytes, err);
    if (!status && *is_ours) {
        struct scan scan = {.options = options,
                            .file = file,
                            .from = VDB_FILE_HEADER_BYTES,
                            .to = n_bytes,
                            .each_page = note_first_page,
                            .context = row};
        status = scan_file(&scan, err);
    }
    options->vfs->close(file);
    return status;
}

static bool list_name(void *context, const char *name)
{
    struct listing *listing = context;
    uint64_t numbers[2];
    if (!vdb_name_numbers(name, "vectors-", numbers, 2))
        return true;
    struct vdb_salvage_file row = {.field = numbers[0], .generation = numbers[1]};
    bool is_ours;
    listing->status = look_at_file(listing, &row, &is_ours, listing->err);
    if (listing->status || !is_ours)
        return !listing->status;
    struct vdb_salvage_file *more =
        vdb_realloc_array(listing->options->memory, listing->files, listing->n + 1, sizeof *more);
    if (!more) {
        listing->status = vdb_fail_memory(listing->err, sizeof *more);
        return false;
    }
    listing->files = more;
    more[listing->n++] = row;
    return true;
}

static int compare_files(const void *a, const void *b)
{
    const struct vdb_salvage_file *left = a, *right = b;
    if (left->field != right->field)
        return left->field < right->field ? -1 : 1;
    return left->generation < right->generation ? -1 : left->generation > right->generation;
}

int vdb_salvage_files(const struct vdb_salvage_options *options, const unsigned char uuid[16],
                      struct vdb_salvage_file **files, size_t *n_files, vecdb_error *err)
{
    struct listing listing = {.options = options, .uuid = uuid, .err = err};
    int status = options->vfs->list(options->vfs, options->directory, list_name, &listing, err);
    if (!status)
        status = listing.status;
    if (status) {
        vdb_free(options->memory, listing.files);
        return status;
    }
    if (listing.n)
        qsort(listing.files, listing.n, sizeof *listing.files, compare_files);
    *files = listing.files;
    *n_files = listing.n;
    return VECDB_OK;
}

/* ------------------------------------------------------------------ the pages of a field */

static void tell(struct vdb_salvage_vectors *v, uint64_t generation, const char *message)
{
    char name[64];
    snprintf(name, sizeof name, "vectors-%llu-%llu", (unsigned long long)v->field.field,
             (unsigned long long)generation);
    v->tell(v->context, name, message);
}

static int add_page(struct vdb_salvage_vectors *v, const struct vdb_salvage_page *page, vecdb_error *err)
{
    if (v->n_pages == v->capacity) {
        size_t capacity = v->capacity ? 2 * v->capacity : 64;
        struct known_page *more = vdb_realloc_array(v->memory, v->pages, capacity, sizeof *more);
        if (!more)
            return vdb_fail_memory(err, capacity * sizeof *more);
        v->pages = more;
        v->capacity = capacity;
    }
    v->pages[v->n_pages++] = (struct known_page){.page = *page};
    return VECDB_OK;
}

static int add_entries(struct vdb_salvage_vectors *v, uint64_t generation, const struct vdb_extent_ref *ref,
                       const struct vdb_page_entry *entries, vecdb_error *err)
{
    int status = VECDB_OK;
    for (uint32_t i = 0; i < ref->n_pages && !status; i++) {
        struct vdb_salvage_page page = {.generation = generation,
                                        .offset = ref->offset + entries[i].offset,
                                        .check = entries[i].check,
                                        .length = entries[i].length,
                                        .n_rows = entries[i].n_rows,
                                        .first_slot = entries[i].first_slot,
                                        .last_slot = entries[i].last_slot};
        status = add_page(v, &page, err);
    }
    return status;
}

/* The file of a generation; `file` NULL: it cannot be opened, which was told. */
static int get_file(struct vdb_salvage_vectors *v, uint64_t generation, struct vdb_file **file, vecdb_error *err)
{
    vecdb_error own = VECDB_ERROR_INIT;
    *file = NULL;
    for (size_t i = 0; i < v->n_files; i++)
        if (v->files[i].generation == generation) {
            *file = v->files[i].file;
            return VECDB_OK;
        }
    struct known_file *more = vdb_realloc_array(v->memory, v->files, v->n_files + 1, sizeof *more);
    if (!more)
        return vdb_fail_memory(err, sizeof *more);
    v->files = more;
    more[v->n_files] = (struct known_file){.generation = generation};
    int status = open_vectors(&v->options, v->field.field, generation, &more[v->n_files].file, &own);
    if (status == VECDB_NOT_FOUND) {
        tell(v, generation, "the file is missing");
        v->n_files++;
        return VECDB_OK;
    }
    if (status) {
        if (err)
            *err = own;
        return status;
    }
    *file = more[v->n_files++].file;
    return VECDB_OK;
}

struct collection_scan {
    struct vdb_salvage_vectors *v;
    struct vdb_file *file;
    uint64_t generation;
    int status;
    vecdb_error *err;
};

static bool collect_page(void *context, uint64_t offset, size_t length, const struct vdb_page *found)
{
    struct collection_scan *scan = context;
    struct vdb_salvage_page page = {.generation = scan->generation,
                                    .offset = offset,
                                    .length = (uint32_t)length,
                                    .n_rows = found->n_rows,
                                    .first_slot = found->runs[0].slot,
                                    .last_slot = last_slot_of(found)};
    scan->status = add_page(scan->v, &page, scan->err);
    return !scan->status;
}

/* A footer ends here, perhaps. */
static int collect_footer(void *context, uint64_t end, const unsigned char *trailer, vecdb_error *err)
{
    struct collection_scan *scan = context;
    struct vdb_salvage_vectors *v = scan->v;
    struct vdb_extent_ref ref = {.offset = vdb_load_u64(trailer + 24),
                                 .length = vdb_load_u64(trailer + 32),
                                 .check = vdb_load_u64(trailer + 56),
                                 .n_rows = vdb_load_u64(trailer + 16),
                                 .first_slot = vdb_load_u32(trailer + 48),
                                 .last_slot = vdb_load_u32(trailer + 52),
                                 .n_pages = vdb_load_u32(trailer + 12)};
    struct vdb_page_entry *entries;
    if (ref.offset >= end || ref.length != end - ref.offset || ref.n_pages > ref.length / ENTRY_BYTES)
        return VECDB_OK;
    int status = vdb_footer_read(v->memory, scan->file, NULL, v->field.store, v->field.type, v->field.dimension, &ref,
                                 &entries, NULL, err);
    if (status)
        return status == VECDB_NOMEM || status == VECDB_INTERRUPTED ? status : VECDB_OK;
    status = add_entries(v, scan->generation, &ref, entries, err);
    vdb_free(v->memory, entries);
    return status;
}

static int scan_for_pages(struct vdb_salvage_vectors *v, struct vdb_file *file, uint64_t generation, uint64_t from,
                          uint64_t to, vecdb_error *err)
{
    struct collection_scan collection = {.v = v, .file = file, .generation = generation, .err = err};
    uint64_t n_bytes;
    int status = v->options.vfs->size(file, &n_bytes, err);
    if (status)
        return status;
    struct scan scan = {.options = &v->options,
                        .file = file,
                        .type = v->field.type,
                        .dimension = v->field.dimension,
                        .from = from,
                        .to = to < n_bytes ? to : n_bytes,
                        .each_page = collect_page,
                        .each_footer = collect_footer,
                        .context = &collection};
    status = scan_file(&scan, err);
    return status ? status : collection.status;
}

/* An extent that the catalog names. */
static int open_extent(struct vdb_salvage_vectors *v, const struct vdb_salvage_extent *extent, vecdb_error *err)
{
    vecdb_error own = VECDB_ERROR_INIT;
    struct vdb_page_entry *entries;
    struct vdb_file *file;
    int status = get_file(v, extent->generation, &file, err);
    if (status)
        return status;
    if (file) {
        for (int attempt = 0, io = VECDB_IO; attempt < 2 && io == VECDB_IO; attempt++)
            io = status = vdb_footer_read(v->memory, file, NULL, v->field.store, v->field.type, v->field.dimension,
                                          &extent->ref, &entries, NULL, &own);
        if (!status) {
            status = add_entries(v, extent->generation, &extent->ref, entries, err);
            vdb_free(v->memory, entries);
            return status;
        }
        if (status != VECDB_CORRUPT && status != VECDB_IO) {
            if (err)
                *err = own;
            return status;
        }
        tell(v, extent->generation, own.message);
        uint64_t from = extent->ref.offset / VDB_PAGE_ALIGN * VDB_PAGE_ALIGN, to;
        if (from < VDB_FILE_HEADER_BYTES)
            from = VDB_FILE_HEADER_BYTES;
        if (__builtin_add_overflow(from, extent->ref.length, &to))
            to = UINT64_MAX;
        if ((status = scan_for_pages(v, file, extent->generation, from, to, err)))
            return status;
    }
    v->partial[v->n_partial++] = *extent;
    return VECDB_OK;
}

static int scan_all_files(struct vdb_salvage_vectors *v, const unsigned char *uuid, vecdb_error *err)
{
    struct vdb_salvage_file *files = NULL;
    size_t n_files = 0;
    int status = vdb_salvage_files(&v->options, uuid, &files, &n_files, err);
    for (size_t i = 0; i < n_files && !status; i++) {
        struct vdb_file *file;
        if (files[i].field != v->field.field || (files[i].is_whole && files[i].store != v->field.store))
            continue;
        status = get_file(v, files[i].generation, &file, err);
        if (!status && file)
            status = scan_for_pages(v, file, files[i].generation, VDB_FILE_HEADER_BYTES, UINT64_MAX, err);
    }
    vdb_free(v->options.memory, files);
    return status;
}

static int compare_places(const void *a, const void *b)
{
    const struct vdb_salvage_page *left = &((const struct known_page *)a)->page;
    const struct vdb_salvage_page *right = &((const struct known_page *)b)->page;
    if (left->generation != right->generation)
        return left->generation < right->generation ? -1 : 1;
    if (left->offset != right->offset)
        return left->offset < right->offset ? -1 : 1;
    return left->check < right->check ? -1 : left->check > right->check;
}

static int compare_slots(const void *a, const void *b)
{
    const struct vdb_salvage_page *left = &((const struct known_page *)a)->page;
    const struct vdb_salvage_page *right = &((const struct known_page *)b)->page;
    if (left->first_slot != right->first_slot)
        return left->first_slot < right->first_slot ? -1 : 1;
    return compare_places(a, b);
}

/* One entry a place: what a footer says of it counts less than that a whole page was found there. */
static void order_pages(struct vdb_salvage_vectors *v)
{
    size_t n = 0;
    if (v->n_pages)
        qsort(v->pages, v->n_pages, sizeof *v->pages, compare_places);
    for (size_t i = 0; i < v->n_pages; i++) {
        const struct vdb_salvage_page *page = &v->pages[i].page, *last = n ? &v->pages[n - 1].page : NULL;
        if (!last || last->generation != page->generation || last->offset != page->offset)
            v->pages[n++] = v->pages[i];
    }
    v->n_pages = n;
    if (n)
        qsort(v->pages, n, sizeof *v->pages, compare_slots);
    uint32_t reach = 0;
    for (size_t i = 0; i < n; i++) {
        reach = v->pages[i].page.last_slot > reach ? v->pages[i].page.last_slot : reach;
        v->pages[i].reach = reach;
    }
}

int vdb_salvage_vectors_open(const struct vdb_salvage_options *options, const unsigned char *uuid,
                             const struct vdb_salvage_field *field, const struct vdb_salvage_extent *extents,
                             size_t n_extents, bool is_complete, vdb_salvage_tell_fn tell_fn, void *context,
                             struct vdb_salvage_vectors **out, vecdb_error *err)
{
    struct vdb_salvage_vectors *v = vdb_alloc_zero(options->memory, sizeof *v);
    if (!v)
        return vdb_fail_memory(err, sizeof *v);
    v->options = *options;
    v->memory = options->memory;
    v->field = *field;
    v->tell = tell_fn;
    v->context = context;
    v->loaded = SIZE_MAX;
    v->partial = vdb_alloc_array(v->memory, n_extents + 1, sizeof *v->partial);
    int status = v->partial ? vdb_coder_new(v->memory, &v->coder, err) : vdb_fail_memory(err, n_extents);
    for (size_t i = 0; i < n_extents && !status; i++)
        status = open_extent(v, &extents[i], err);
    if (!status && !is_complete)
        status = scan_all_files(v, uuid, err);
    if (status) {
        vdb_salvage_vectors_close(v);
        return status;
    }
    order_pages(v);
    *out = v;
    return VECDB_OK;
}

void vdb_salvage_vectors_close(struct vdb_salvage_vectors *v)
{
    if (!v)
        return;
    for (size_t i = 0; i < v->n_files; i++)
        v->options.vfs->close(v->files[i].file);
    vdb_coder_free(v->coder);
    vdb_free_aligned(v->memory, v->bytes);
    vdb_free_aligned(v->memory, v->rows);
    vdb_free(v->memory, v->files);
    vdb_free(v->memory, v->pages);
    vdb_free(v->memory, v->partial);
    vdb_free(v->memory, v);
}

/* ------------------------------------------------------------------ reading */

static int make_room(struct vdb_memory *memory, unsigned char **bytes, size_t *capacity, size_t n_bytes,
                     vecdb_error *err)
{
    if (n_bytes <= *capacity)
        return VECDB_OK;
    vdb_free_aligned(memory, *bytes);
    *capacity = 0;
    if (!(*bytes = vdb_alloc_aligned(memory, n_bytes)))
        return vdb_fail_memory(err, n_bytes);
    *capacity = n_bytes;
    return VECDB_OK;
}

/* Read page i and its rows; a page that is not whole is told once and marked. */
static int load_page(struct vdb_salvage_vectors *v, size_t i, bool with_rows, vecdb_error *err)
{
    struct known_page *known = &v->pages[i];
    const struct vdb_salvage_page *page = &known->page;
    vecdb_error own = VECDB_ERROR_INIT;
    struct vdb_file *file;
    if (known->is_bad || v->loaded == i)
        return VECDB_OK;
    v->loaded = SIZE_MAX;
    int status = get_file(v, page->generation, &file, err);
    if (!status)
        status = make_room(v->memory, &v->bytes, &v->bytes_capacity, page->length, err);
    if (status)
        return status;
    status = file ? VECDB_IO : VECDB_CORRUPT;
    for (int attempt = 0; attempt < 2 && status == VECDB_IO; attempt++)
        status = v->options.vfs->read(file, page->offset, v->bytes, page->length, &own);
    if (!status)
        status = vdb_page_parse(v->bytes, page->length, v->field.type, v->field.dimension, true, &v->parsed, &own);
    if (!status && page->check && v->parsed.check != page->check)
        status = vdb_fail(&own, VECDB_CORRUPT, "it is whole, but not the one that was committed");
    size_t row_bytes = vdb_vector_bytes(v->field.type, v->field.dimension);
    if (!status && with_rows)
        status = make_room(v->memory, &v->rows, &v->rows_capacity, v->parsed.n_rows * row_bytes, &own);
    if (!status && with_rows)
        status = vdb_page_decode(v->coder, &v->parsed, v->rows, &own);
    if (status == VECDB_CORRUPT || status == VECDB_IO || status == VECDB_NEWER) {
        char message[400];
        known->is_bad = true;
        snprintf(message, sizeof message,
                 "the page at offset %llu, with %u vectors of slots %u to %u, is damaged: %.200s",
                 (unsigned long long)page->offset, page->n_rows, page->first_slot, page->last_slot, own.message);
        tell(v, page->generation, message);
        return VECDB_OK;
    }
    if (status && err)
        *err = own;
    if (!status && with_rows)
        v->loaded = i;
    return status;
}

/* Pages that may hold a slot, the best first: one at a time. `before`: the last one tried, SIZE_MAX at first. */
static size_t next_candidate(const struct vdb_salvage_vectors *v, size_t from, uint32_t slot, size_t before)
{
    size_t best = SIZE_MAX;
    for (size_t i = from, n = 0; i-- > 0 && n < MOST_STEPS_BACK && v->pages[i].reach >= slot; n++) {
        if (v->pages[i].page.last_slot < slot)
            continue;
        if (before != SIZE_MAX && compare_places(&v->pages[i], &v->pages[before]) >= 0)
            continue;
        if (best == SIZE_MAX || compare_places(&v->pages[i], &v->pages[best]) > 0)
            best = i;
    }
    return best;
}

int vdb_salvage_vector(struct vdb_salvage_vectors *v, uint32_t slot, const void **vector, bool *is_lost,
                       vecdb_error *err)
{
    size_t low = 0, high = v->n_pages;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (v->pages[middle].page.first_slot <= slot)
            low = middle + 1;
        else
            high = middle;
    }
    *vector = NULL;
    *is_lost = false;
    for (size_t i = SIZE_MAX; (i = next_candidate(v, low, slot, i)) != SIZE_MAX;) {
        int status = load_page(v, i, true, err);
        if (status)
            return status;
        if (v->pages[i].is_bad) {
            *is_lost = true;
            continue;
        }
        struct vdb_block block = {.n_rows = v->parsed.n_rows, .n_runs = v->parsed.n_runs, .runs = v->parsed.runs};
        uint32_t row = vdb_block_row(&block, slot);
        if (row == UINT32_MAX)
            continue;
        *is_lost = false;
        *vector = v->rows + (size_t)row * vdb_vector_bytes(v->field.type, v->field.dimension);
        return VECDB_OK;
    }
    for (size_t i = 0; i < v->n_partial; i++)
        *is_lost |= slot >= v->partial[i].ref.first_slot && slot <= v->partial[i].ref.last_slot;
    return VECDB_OK;
}

int vdb_salvage_vectors_slots(struct vdb_salvage_vectors *v, struct vdb_slots *slots, vecdb_error *err)
{
    int status = VECDB_OK;
    for (size_t i = 0; i < v->n_pages && !status; i++) {
        status = load_page(v, i, false, err);
        if (status || v->pages[i].is_bad)
            continue;
        for (uint32_t r = 0; r < v->parsed.n_runs; r++) {
            uint32_t end = r + 1 < v->parsed.n_runs ? v->parsed.runs[r + 1].row : v->parsed.n_rows;
            vdb_slots_add_range(slots, v->parsed.runs[r].slot, end - v->parsed.runs[r].row);
        }
        if (i % 64 == 0)
            status = step(&v->options, err);
    }
    v->loaded = SIZE_MAX;
    return status;
}
