/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/check.c - reading everything and comparing it with what it should be
 *
 *   1. the catalog: every page's checksum, every frame of its log, SQLite's integrity check
 *   2. of every field: extents that do not interleave, every page's checksum, from the files themselves
 *   3. against each other: every slot of a page or of the tail has a record or is dead, and every record
 *      that the counts promise is there
 */
#include "database.h"

#include <stdio.h>

struct check {
    vecdb *db;
    const vecdb_work *request;
    vecdb_problem_fn each;
    void *context;
    uint64_t n_problems;
    struct vdb_stop stop;
    char file[64]; /* that is being looked at */
};

static void tell(void *context, const char *message)
{
    struct check *check = context;
    vecdb_problem problem = {.file = check->file, .message = message};
    check->n_problems++;
    if (check->each)
        check->each(check->context, &problem);
}

static int report(struct check *check, uint64_t done, uint64_t total, vecdb_error *err)
{
    vecdb_progress progress = {.phase = "check", .done = done, .total = total};
    const vecdb_work *request = check->request;
    if (request && request->progress && request->progress(request->progress_context, &progress))
        return vdb_fail(err, VECDB_INTERRUPTED, "the check was interrupted");
    return vdb_stop_check(&check->stop, err);
}

/* Damage that keeps a call from going on is a finding, not a failure of the check. */
static int absorb(struct check *check, int status, const vecdb_error *err)
{
    if (status != VECDB_CORRUPT)
        return status;
    tell(check, err->message);
    return VECDB_OK;
}

/* ------------------------------------------------------------------ slots against records */

struct slot_sets {
    struct vdb_slots *records;
    uint64_t n_records;
};

static int note_record(void *context, const struct vdb_record_row *row)
{
    struct slot_sets *sets = context;
    vdb_slots_add(sets->records, row->slot);
    sets->n_records++;
    return VECDB_OK;
}

static void check_block(struct check *check, const struct vdb_view *view, const struct vdb_view_field *field,
                        const struct slot_sets *sets, const struct vdb_block *block)
{
    uint32_t n_orphans = 0, first = 0;
    for (uint32_t row = 0; row < block->n_rows; row++) {
        uint32_t slot = vdb_block_slot(block, row);
        if (vdb_slots_has(sets->records, slot) || vdb_slots_has(view->dead->set, slot))
            continue;
        if (!n_orphans++)
            first = slot;
    }
    if (!n_orphans)
        return;
    char message[256];
    snprintf(message, sizeof message,
             "collection \"%.80s\": %u vectors of field \"%.80s\", from slot %u on, belong to no record",
             view->row.name, n_orphans, field->row.name, first);
    tell(check, message);
}

static int check_extent(struct check *check, const struct vdb_view *view, const struct vdb_view_field *field,
                        const struct slot_sets *sets, struct vdb_segment *segment, vecdb_error *err)
{
    uint64_t before = check->n_problems;
    snprintf(check->file, sizeof check->file, "vectors-%llu-%llu", (unsigned long long)field->row.id,
             (unsigned long long)segment->file->generation);
    int status = absorb(check, vdb_extent_check(segment->extent, tell, check, err), err);
    if (status || check->n_problems > before)
        return status; /* damaged pages cannot be compared with records */
    for (uint32_t page = 0; page < segment->ref.n_pages; page++) {
        struct vdb_block block;
        if ((status = vdb_stop_check(&check->stop, err)))
            return status;
        status = vdb_extent_pin(segment->extent, page, &block, NULL, err);
        if (status)
            return absorb(check, status, err);
        check_block(check, view, field, sets, &block);
        vdb_extent_unpin(segment->extent, &block);
    }
    return VECDB_OK;
}

static int check_view(struct check *check, const struct vdb_view *view, const struct slot_sets *sets, vecdb_error *err)
{
    int status = VECDB_OK;
    for (size_t f = 0; f < view->n_fields && !status; f++) {
        const struct vdb_view_field *field = &view->fields[f];
        for (size_t i = 0; i < field->n_segments && !status; i++)
            status = check_extent(check, view, field, sets, field->segments[i], err);
        struct vdb_view_blocks source;
        struct vdb_blocks blocks;
        snprintf(check->file, sizeof check->file, "catalog.sqlite");
        vdb_view_get_blocks(&source, field, &blocks);
        for (size_t i = blocks.n_blocks - field->n_pieces; i < blocks.n_blocks && !status; i++) {
            struct vdb_block block;
            if ((status = blocks.pin(blocks.context, i, &block, err)))
                break;
            check_block(check, view, field, sets, &block);
            blocks.unpin(blocks.context, &block);
        }
    }
    return status;
}

static int check_collection(struct check *check, vecdb_collection *collection, vecdb_error *err)
{
    struct vdb_view *view;
    struct vdb_connection *c;
    uint64_t sequence;
    struct slot_sets sets = {.records = vdb_slots_new()};
    snprintf(check->file, sizeof check->file, "catalog.sqlite");
    if (!sets.records)
        return vdb_fail_memory(err, 64);
    int status = vdb_view_acquire(collection, &view, &c, &sequence, err);
    if (status) {
        vdb_slots_free(sets.records);
        return status == VECDB_NOT_FOUND ? VECDB_OK : absorb(check, status, err);
    }
    status = vdb_records_keys(c, view->row.store, 0, UINT32_MAX, note_record, &sets, err);
    vdb_read_end(c);
    if (status) {
        status = absorb(check, status, err);
    } else {
        char message[256];
        snprintf(message, sizeof message, "collection \"%.80s\" has %llu records, its count says %llu", view->row.name,
                 (unsigned long long)sets.n_records, (unsigned long long)view->row.n_records);
        if (sets.n_records != view->row.n_records)
            tell(check, message);
        status = check_view(check, view, &sets, err);
    }
    vdb_slots_free(sets.records);
    vdb_view_release(view);
    return status;
}

/* ------------------------------------------------------------------ the call */

struct check_list {
    struct check *check;
    uint64_t *ids;
    size_t n;
    vecdb_error *err;
};

static int list_id(void *context, const struct vdb_collection_row *row)
{
    struct check_list *list = context;
    uint64_t *ids = vdb_realloc_array(&list->check->db->memory, list->ids, list->n + 1, sizeof *ids);
    if (!ids)
        return vdb_fail_memory(list->err, sizeof *ids);
    list->ids = ids;
    ids[list->n++] = row->id;
    return VECDB_OK;
}

static int check_catalog(struct check *check, struct check_list *list, vecdb_error *err)
{
    vecdb *db = check->db;
    struct vdb_connection *c;
    uint64_t sequence;
    snprintf(check->file, sizeof check->file, "catalog.sqlite");
    int status = absorb(check, vdb_catalog_check(db->catalog, tell, check, err), err);
    if (status || check->n_problems)
        return status; /* what a damaged catalog says about the rest is not worth comparing */
    status = absorb(check, vdb_read_begin(db->catalog, &c, &sequence, err), err);
    if (status || check->n_problems)
        return status;
    status = vdb_collection_each(c, list_id, list, err);
    vdb_read_end(c);
    return absorb(check, status, err);
}

int vecdb_check(vecdb *db, const vecdb_work *request, vecdb_problem_fn each, void *context, uint64_t *n_problems,
                vecdb_error *err)
{
    vecdb_error own = VECDB_ERROR_INIT;
    int status = vdb_database_check(db, err);
    if (status)
        return status;
    if (request && request->size < sizeof *request)
        return vdb_fail(err, VECDB_MISUSE, "vecdb_work.size must be sizeof(vecdb_work)");
    struct check check = {.db = db, .request = request, .each = each, .context = context};
    struct check_list list = {.check = &check, .err = &own};
    vdb_stop_init(&check.stop, db, 0);
    status = report(&check, 0, 0, &own);
    if (!status)
        status = check_catalog(&check, &list, &own);
    for (size_t i = 0; i < list.n && !status; i++) {
        vecdb_collection *collection;
        status = report(&check, i + 1, list.n + 1, &own);
        if (!status)
            status = vdb_collection_handle(db, list.ids[i], &collection, &own);
        if (!status)
            status = check_collection(&check, collection, &own);
    }
    if (!status)
        status = report(&check, list.n + 1, list.n + 1, &own);
    vdb_free(&db->memory, list.ids);
    if (status && err)
        *err = own;
    if (!status && n_problems)
        *n_problems = check.n_problems;
    return status;
}
