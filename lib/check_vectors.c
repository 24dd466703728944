/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/check_vectors.c - the extents of a field, page by page (see check.c)
 *
 * Of every extent: header, footer, gaps, and every page, read from the file and not from maps or caches. Of every
 * row: its slot is of a record or dead, is in no other page and not in the tail; its values may be; it is not
 * longer than its page says (searches rely on that bound). Of every file: the few bytes between two extents
 * are zeros.
 *
 * What nobody can judge are the bytes that failed commits have left between extents and behind the last. They
 * carry no truth, and go with the next compaction of their file.
 *
 * A page that is damaged is told with the records whose slots it has, in a transaction of its own. The records of a
 * store never change their slots, so that what is found then is right, whatever was committed meanwhile.
 */
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/numbers.h"
#include "base/utf8.h"
#include "validate.h"

#define KEY_SHOWN_BYTES 80

int vdb_check_values(const struct vdb_field_row *field, uint32_t slot, const void *values, int type, void *scratch,
                     vecdb_error *err)
{
    char where[64];
    snprintf(where, sizeof where, "the vector of slot %u is not one that may be stored", slot);
    return vdb_check_vector(where, field, values, field->dimension, type, scratch, err);
}

struct extent_check {
    struct vdb_check_collection *collection;
    struct vdb_check_field *field;
    const struct vdb_check_extent *extent;
    char file[64];
    struct vdb_slots *seen; /* slots of the field's pages so far */
    void *scratch;          /* a vector */
};

/* ------------------------------------------------------------------ which records */

struct affected {
    const struct vdb_slots *records;
    uint64_t n;
    char first[KEY_SHOWN_BYTES + 40], last[KEY_SHOWN_BYTES + 40];
};

static void show_key(const vecdb_key *key, char *out, size_t room)
{
    if (!key->text) {
        snprintf(out, room, "%lld", (long long)key->integer);
        return;
    }
    bool is_long = key->length > KEY_SHOWN_BYTES;
    size_t n_bytes = vdb_utf8_valid_prefix(key->text, is_long ? KEY_SHOWN_BYTES : key->length);
    snprintf(out, room, "\"%.*s%s\"", (int)n_bytes, key->text, is_long ? "..." : "");
}

static int note_record(void *context, const struct vdb_record_row *row)
{
    struct affected *affected = context;
    show_key(&row->key, affected->last, sizeof affected->last);
    if (!affected->n++)
        snprintf(affected->first, sizeof affected->first, "%s", affected->last);
    return VECDB_OK;
}

/* "; 32 records of collection "notes" are affected, "moon-900" to "moon-931"" */
static void describe_records(struct extent_check *check, uint32_t first, uint32_t last, char *out, size_t room)
{
    struct vdb_check_collection *collection = check->collection;
    const char *name = collection->row.name;
    struct affected affected = {.records = collection->records};
    struct vdb_connection *c;
    uint64_t sequence, n = vdb_slots_count_range(collection->records, first, (uint64_t)last - first + 1);
    if (!vdb_read_begin(collection->check->db->catalog, &c, &sequence, NULL)) {
        if (vdb_records_keys(c, collection->row.store, first, last, note_record, &affected, NULL))
            affected.n = 0;
        vdb_read_end(c);
    }
    if (affected.n == 1)
        snprintf(out, room, "; 1 record of collection \"%.80s\" is affected, %s", name, affected.first);
    else if (affected.n)
        snprintf(out, room, "; %llu records of collection \"%.80s\" are affected, %s to %s",
                 (unsigned long long)affected.n, name, affected.first, affected.last);
    else if (n)
        snprintf(out, room, "; %llu records of collection \"%.80s\" are affected", (unsigned long long)n, name);
    else
        snprintf(out, room, "; no record of collection \"%.80s\" is affected, its vectors were replaced or deleted",
                 name);
}

/* A part of the file is not what was written, and with it the vectors of these slots. */
static void tell_damage(struct extent_check *check, const char *message, uint32_t first, uint32_t last)
{
    struct vdb_check_collection *collection = check->collection;
    char records[400], advice[300];
    describe_records(check, first, last, records, sizeof records);
    vdb_check_tell(collection->check, check->file, collection->row.name, "%.300s%s%s", message, records,
                   vdb_check_advice(collection->check, advice, sizeof advice));
}

__attribute__((format(printf, 2, 3))) static void tell_rows(struct extent_check *check, const char *format, ...)
{
    struct vdb_check_collection *collection = check->collection;
    char message[400], advice[300];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    vdb_check_tell(collection->check, check->file, collection->row.name, "collection \"%.80s\", field \"%.80s\": %s%s",
                   collection->row.name, check->field->row.name, message,
                   vdb_check_advice(collection->check, advice, sizeof advice));
}

/* ------------------------------------------------------------------ the rows of a page */

static void check_slots(struct extent_check *check, uint32_t page, const struct vdb_block *block)
{
    const struct vdb_check_collection *collection = check->collection;
    uint32_t n_orphans = 0, n_twice = 0, orphan = 0, twice = 0;
    for (uint32_t run = 0; run < block->n_runs; run++) {
        uint32_t end = run + 1 < block->n_runs ? block->runs[run + 1].row : block->n_rows;
        for (uint32_t i = 0; i < end - block->runs[run].row; i++) {
            uint32_t slot = block->runs[run].slot + i;
            bool is_twice = vdb_slots_has(check->seen, slot) || vdb_slots_has(check->field->tail, slot);
            if (is_twice && !n_twice++)
                twice = slot;
            if (!vdb_slots_has(collection->records, slot) && !vdb_slots_has(collection->dead, slot) && !n_orphans++)
                orphan = slot;
        }
        vdb_slots_add_range(check->seen, block->runs[run].slot, end - block->runs[run].row);
    }
    if (n_orphans)
        tell_rows(check, "%u vectors of page %u, from slot %u on, belong to no record", n_orphans, page, orphan);
    if (n_twice)
        tell_rows(check, "%u vectors of page %u, from slot %u on, are stored twice", n_twice, page, twice);
}

/* Told once a page: what is wrong with one row is mostly wrong with many. */
static void check_rows(struct extent_check *check, uint32_t page, const struct vdb_block *block)
{
    const struct vdb_field_row *row = &check->field->row;
    vecdb_error first = VECDB_ERROR_INIT, fault;
    uint32_t n_faults = 0, n_long = 0;
    for (uint32_t i = 0; i < block->n_rows; i++) {
        const char *values = (const char *)block->rows + i * block->stride;
        if (vdb_check_values(row, vdb_block_slot(block, i), values, block->type, check->scratch, &fault) && !n_faults++)
            first = fault;
        /* Rounded up by 2^-20 at most, and to infinity from 3e38 on: vdb_norm_bound. */
        float norm = vdb_norm_bound(block->type, values, row->dimension);
        n_long += (double)norm < HUGE_VAL && norm * (1 - 0x1p-18f) > block->max_norm;
    }
    if (n_faults)
        tell_rows(check, "page %u has %u vectors that may not be: %.200s", page, n_faults, first.message);
    if (n_long)
        tell_rows(check, "page %u says that no vector is longer than %g, but %u are: searches may pass them over", page,
                  (double)block->max_norm, n_long);
}

/* ------------------------------------------------------------------ extents */

static int check_pages(struct extent_check *check, struct vdb_inspection *inspection, vecdb_error *err)
{
    struct vdb_check *whole = check->collection->check;
    int status = vdb_inspection_gaps(inspection, err);
    if (vdb_check_is_finding(status)) {
        char advice[300];
        vdb_check_tell(whole, check->file, check->collection->row.name,
                       "%.300s; no record is affected, but what did this may have done more%s", err->message,
                       vdb_check_advice(whole, advice, sizeof advice));
        status = VECDB_OK;
    }
    for (uint32_t i = 0; i < check->extent->ref.n_pages && !status; i++) {
        struct vdb_block block;
        struct vdb_page_place place;
        vdb_inspection_place(inspection, i, &place);
        if ((status = vdb_check_step(whole, err)))
            break;
        status = vdb_inspection_page(inspection, i, &block, err);
        whole->n_bytes += place.length;
        if (!status) {
            check_slots(check, i, &block);
            check_rows(check, i, &block);
        } else if (vdb_check_is_finding(status)) {
            vdb_slots_add_range(check->seen, place.first_slot, place.last_slot - place.first_slot + 1);
            tell_damage(check, err->message, place.first_slot, place.last_slot);
            status = VECDB_OK;
        }
    }
    return status;
}

static int check_extent(struct extent_check *check, vecdb_error *err)
{
    struct vdb_check_collection *collection = check->collection;
    vecdb *db = collection->check->db;
    const struct vdb_field_row *row = &check->field->row;
    struct vdb_inspection_options options = {.memory = &db->memory,
                                             .cache = db->cache,
                                             .file = check->extent->file,
                                             .uuid = vdb_catalog_uuid(db->catalog),
                                             .store = collection->row.store,
                                             .type = row->type,
                                             .dimension = row->dimension};
    struct vdb_inspection *inspection;
    int status = vdb_inspection_new(&options, &check->extent->ref, &inspection, err);
    if (vdb_check_is_finding(status)) {
        collection->check->n_bytes += check->extent->ref.length;
        tell_damage(check, err->message, check->extent->ref.first_slot, check->extent->ref.last_slot);
        return VECDB_OK;
    }
    if (status)
        return status;
    status = check_pages(check, inspection, err);
    vdb_inspection_free(inspection);
    return status;
}

static int by_offset(const void *a, const void *b)
{
    const struct vdb_check_extent *x = a, *y = b;
    if (x->generation != y->generation)
        return x->generation < y->generation ? -1 : 1;
    return x->ref.offset < y->ref.offset ? -1 : x->ref.offset > y->ref.offset;
}

/* The bytes behind the header and behind every extent up to the next multiple of VDB_PAGE_ALIGN. */
static int check_padding(struct extent_check *check, vecdb_error *err)
{
    uint64_t end = check->extent->ref.offset + check->extent->ref.length;
    uint64_t next = (end + VDB_PAGE_ALIGN - 1) / VDB_PAGE_ALIGN * VDB_PAGE_ALIGN;
    bool is_zero;
    int status = vdb_file_is_zero(check->extent->file, end, next, &is_zero, err);
    if (vdb_check_is_finding(status) || (!status && !is_zero))
        tell_rows(check, "the padding behind byte %llu is damaged; no record is affected, but what did this may have "
                  "done more", (unsigned long long)end);
    return vdb_check_is_finding(status) ? VECDB_OK : status;
}

int vdb_check_extents(struct vdb_check_collection *collection, struct vdb_check_field *field, vecdb_error *err)
{
    struct vdb_memory *memory = &collection->check->db->memory;
    size_t n_bytes = vdb_vector_bytes(field->row.type, field->row.dimension);
    struct extent_check check = {.collection = collection, .field = field, .seen = vdb_slots_new()};
    check.scratch = vdb_alloc_aligned(memory, n_bytes);
    int status = check.seen && check.scratch ? VECDB_OK : vdb_fail_memory(err, n_bytes);
    if (field->n_extents)
        qsort(field->extents, field->n_extents, sizeof *field->extents, by_offset);
    for (size_t i = 0; i < field->n_extents && !status; i++) {
        check.extent = &field->extents[i];
        snprintf(check.file, sizeof check.file, "vectors-%llu-%llu", (unsigned long long)field->row.id,
                 (unsigned long long)check.extent->generation);
        if (!check.extent->file)
            continue; /* which was told */
        status = check_extent(&check, err);
        if (!status)
            status = check_padding(&check, err);
    }
    vdb_free_aligned(memory, check.scratch);
    vdb_slots_free(check.seen);
    return status;
}
