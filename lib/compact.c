/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/compact.c - space of dead vectors given back
 *
 * The unit is a vector file: its live rows are copied behind those of the newest file (or into a new
 * one, when it is the newest itself), the commit names the copies instead, and the file is removed.
 * Views that still use it keep it open, so that nothing is pulled from under a search. Garbage of a
 * file is what its extents' live rows do not account for: dead rows, and bytes that no extent
 * names (old footers of extents that grew, what failed commits left).
 *
 * Extents that follow each other in the order of slots become one, up to EXTENT_BYTES; extents of
 * other files in between separate them (extent.h, invariant 2). The tails are packed before, so that no
 * row that is yet to be packed lies between two extents.
 *
 * COSTS. The maintainer rewrites a file when a share g of it is garbage, g = 1/3 in the background. That copies
 * 1 - g of the file's bytes and gives back g of them, which some new vectors have taken elsewhere: (1 - g) / g = 2
 * bytes are rewritten for each byte written, at most, and each is synced once. So all that is written is at most three
 * times what is new. The files hold at most 1.5 times the live bytes, beside garbage that is left alone (256 KiB a
 * file, and what has died since the last look: 4,096 rows), and, while a file is rewritten, the copy (256 MiB, or
 * all of a smaller collection). bench/bench_compact.c measures it: in 100,000 random replacements among 20,000 vectors
 * of 1 KiB, 1.3 to 1.75 bytes were rewritten for each one, and the files took at most 2.6 times the live bytes.
 */
#include "database.h"

#include "base/numbers.h"

#define EXTENT_BYTES ((uint64_t)64 << 20)

/* ------------------------------------------------------------------ which file */

struct file_use {
    uint64_t generation;
    double live_bytes;
};

struct choice {
    const struct vdb_view_field *field;
    uint64_t generation;
    double garbage; /* share of the file's bytes */
};

static int dead_in_segment(const struct vdb_view *view, const struct vdb_segment *segment, uint64_t *n_dead,
                           vecdb_error *err)
{
    const struct vdb_extent_ref *ref = &segment->ref;
    uint64_t width = (uint64_t)ref->last_slot - ref->first_slot + 1;
    *n_dead = vdb_slots_count_range(view->dead->set, ref->first_slot, width);
    if (ref->n_rows == width || !*n_dead)
        return VECDB_OK; /* every slot of the range is in it */
    /* With gaps, ask the pages: a field view of this segment alone. */
    struct vdb_segment *one[1] = {(struct vdb_segment *)segment};
    struct vdb_view_field field = {.segments = one, .n_segments = 1};
    struct vdb_slots *in_pages = vdb_slots_new();
    if (!in_pages)
        return vdb_fail_memory(err, 64);
    int status = vdb_view_count_dead(view, &field, in_pages, n_dead, err);
    vdb_slots_free(in_pages);
    return status;
}

/* Of one field, the file with the largest share of garbage. */
static int choose_file(vecdb *db, const struct vdb_view *view, const struct vdb_view_field *field,
                       uint64_t min_bytes, struct choice *best, vecdb_error *err)
{
    struct file_use *files = vdb_alloc_array(&db->memory, field->n_segments + 1, sizeof *files);
    size_t n_files = 0;
    if (!files)
        return vdb_fail_memory(err, field->n_segments * sizeof *files);
    int status = VECDB_OK;
    for (size_t i = 0; i < field->n_segments && !status; i++) {
        const struct vdb_segment *segment = field->segments[i];
        size_t f = 0;
        while (f < n_files && files[f].generation != segment->file->generation)
            f++;
        if (f == n_files)
            files[n_files++] = (struct file_use){segment->file->generation, VDB_FILE_HEADER_BYTES};
        uint64_t n_dead, length = (segment->ref.length + VDB_PAGE_ALIGN - 1) / VDB_PAGE_ALIGN * VDB_PAGE_ALIGN;
        status = dead_in_segment(view, segment, &n_dead, err);
        /* Padding is no garbage: rewriting a file of many small extents would not end. */
        files[f].live_bytes +=
            (double)length * (double)(segment->ref.n_rows - n_dead) / (double)segment->ref.n_rows;
    }
    for (size_t f = 0; f < n_files && !status; f++) {
        struct vdb_vector_file *file;
        uint64_t size = 0;
        status = vdb_vector_file_get(db, field->row.id, files[f].generation, &file, err);
        if (status)
            break;
        status = db->vfs->size(file->file, &size, err);
        vdb_vector_file_put(file);
        double garbage = size ? 1 - files[f].live_bytes / (double)size : 0;
        if (!status && garbage > best->garbage && garbage * (double)size >= (double)min_bytes)
            *best = (struct choice){field, files[f].generation, garbage};
    }
    vdb_free(&db->memory, files);
    return status;
}

/* ------------------------------------------------------------------ copying */

struct compaction {
    vecdb_collection *collection;
    struct vdb_view *view;
    const struct vdb_view_field *field;
    uint64_t generation; /* of the file that goes */
    struct vdb_field_row row;
    struct vdb_append *appends;
    size_t n_appends;
    bool is_open, is_done;
    uint64_t sequence; /* of the commit */
    uint64_t open_bytes;
    unsigned char *scratch; /* one vector */
};

static int close_extent(struct compaction *compaction, vecdb_error *err)
{
    if (!compaction->is_open)
        return VECDB_OK;
    struct vdb_append *append = &compaction->appends[compaction->n_appends - 1];
    int status = vdb_append_finish(compaction->collection->db, append, err);
    vdb_append_release(compaction->collection->db, append);
    compaction->is_open = false;
    return status;
}

static int open_extent(struct compaction *compaction, uint32_t slot, vecdb_error *err)
{
    vecdb *db = compaction->collection->db;
    struct vdb_append *appends =
        vdb_realloc_array(&db->memory, compaction->appends, compaction->n_appends + 1, sizeof *appends);
    if (!appends)
        return vdb_fail_memory(err, sizeof *appends);
    compaction->appends = appends;
    struct vdb_append *append = &appends[compaction->n_appends];
    struct vdb_connection *c; /* a short transaction, so that copying does not keep the catalog's log from being cut */
    uint64_t sequence;
    int status = vdb_read_begin(db->catalog, &c, &sequence, err);
    if (status)
        return status;
    status = vdb_append_open(db, c, &compaction->row, compaction->view->row.store, slot, false,
                             compaction->generation, append, err);
    vdb_read_end(c);
    if (status)
        return status;
    compaction->n_appends++;
    append->is_rewrite = true;
    compaction->is_open = true;
    compaction->open_bytes = 0;
    compaction->row.generation = append->row.generation;
    return VECDB_OK;
}

static int copy_page(struct compaction *compaction, struct vdb_block *block, vecdb_error *err)
{
    const struct vdb_view_field *field = compaction->field;
    int status = VECDB_OK;
    for (uint32_t row = 0; row < block->n_rows && !status; row++) {
        uint32_t slot = vdb_block_slot(block, row);
        if (vdb_slots_has(compaction->view->dead->set, slot))
            continue;
        if (!compaction->is_open)
            status = open_extent(compaction, slot, err);
        if (status)
            return status;
        vdb_view_copy_row(field, block, row, compaction->scratch);
        status = vdb_extent_writer_add(compaction->appends[compaction->n_appends - 1].writer, &slot,
                                       compaction->scratch, 1, err);
        compaction->open_bytes += field->vector_bytes;
    }
    return status;
}

static int copy_segment(struct compaction *compaction, struct vdb_segment *segment, struct vdb_stop *stop,
                        vecdb_error *err)
{
    int status = VECDB_OK;
    for (uint32_t page = 0; page < segment->ref.n_pages && !status; page++) {
        struct vdb_block block;
        if ((status = vdb_stop_check(stop, err)) || (status = vdb_extent_pin(segment->extent, page, &block, NULL, err)))
            return status;
        status = copy_page(compaction, &block, err);
        vdb_extent_unpin(segment->extent, &block);
    }
    if (!status && compaction->open_bytes > EXTENT_BYTES)
        status = close_extent(compaction, err);
    return status;
}

static int copy_file(struct compaction *compaction, struct vdb_stop *stop, vecdb_error *err)
{
    const struct vdb_view_field *field = compaction->field;
    int status = VECDB_OK;
    for (size_t i = 0; i < field->n_segments && !status; i++) {
        if (field->segments[i]->file->generation == compaction->generation)
            status = copy_segment(compaction, field->segments[i], stop, err);
        else
            status = close_extent(compaction, err);
    }
    return status ? status : close_extent(compaction, err);
}

static int apply_compaction(void *context, struct vdb_transaction *transaction, vecdb_error *err)
{
    struct compaction *compaction = context;
    const struct vdb_view_field *field = compaction->field;
    struct vdb_connection *c = transaction->connection;
    struct vdb_collection_row row;
    bool found;
    int status = vdb_collection_read(c, compaction->collection->id, &row, &found, err);
    if (status)
        return status;
    if (!found || row.schema_version != compaction->view->row.schema_version ||
        row.store != compaction->view->row.store)
        return VECDB_OK;
    for (size_t i = 0; i < field->n_segments && !status; i++)
        if (field->segments[i]->file->generation == compaction->generation)
            status = vdb_extents_remove(c, field->segments[i]->id, err);
    for (size_t i = 0; i < compaction->n_appends && !status; i++)
        status = vdb_append_commit(c, &compaction->appends[i], err);
    struct vdb_change change = {.collection = row.id, .kind = VDB_CHANGE_EXTENTS};
    if (!status)
        status = vdb_transaction_log(transaction, &change, err);
    compaction->is_done = !status;
    compaction->sequence = transaction->sequence;
    return status;
}

static int run_compaction(struct compaction *compaction, struct vdb_stop *stop, vecdb_error *err)
{
    vecdb *db = compaction->collection->db;
    compaction->scratch = vdb_alloc_aligned(&db->memory, compaction->field->vector_bytes);
    if (!compaction->scratch)
        return vdb_fail_memory(err, compaction->field->vector_bytes);
    int status = copy_file(compaction, stop, err);
    if (compaction->is_open)
        vdb_append_release(db, &compaction->appends[compaction->n_appends - 1]);
    vdb_free_aligned(&db->memory, compaction->scratch);
    return status;
}

/* The file that `sequence` no longer names. A commit that is not durable leaves it to a later sweep. */
static int remove_file(vecdb *db, uint64_t field, uint64_t generation, uint64_t sequence, vecdb_error *err)
{
    bool is_secure = false;
    int status = vdb_append_secure(db, sequence, &is_secure, err);
    if (status || !is_secure)
        return status;
    char *path = vdb_vector_path(db, field, generation);
    status = path ? db->vfs->remove(db->vfs, path, err) : vdb_fail_memory(err, 64);
    vdb_free(&db->memory, path);
    return status;
}

int vdb_compact_file(vecdb_collection *collection, double min_garbage, uint64_t min_bytes, struct vdb_stop *stop,
                     bool *done, vecdb_error *err)
{
    vecdb *db = collection->db;
    struct compaction compaction = {.collection = collection};
    struct choice best = {.garbage = 0};
    uint64_t sequence;
    *done = false;
    int status = vdb_view_acquire(collection, &compaction.view, NULL, &sequence, err);
    if (status)
        return status;
    for (size_t f = 0; f < compaction.view->n_fields && !status; f++)
        status = choose_file(db, compaction.view, &compaction.view->fields[f], min_bytes, &best, err);
    if (!status && best.field && best.garbage >= min_garbage) {
        compaction.field = best.field;
        compaction.generation = best.generation;
        compaction.row = best.field->row;
        status = run_compaction(&compaction, stop, err);
    }
    if (!status && compaction.field)
        status = vdb_commit(db, apply_compaction, &compaction, err);
    if (!status && compaction.is_done) {
        status = remove_file(db, best.field->row.id, best.generation, compaction.sequence, err);
        *done = true;
    }
    vdb_free(&db->memory, compaction.appends);
    vdb_view_release(compaction.view);
    return status;
}

/* ------------------------------------------------------------------ dead slots */

struct forgetting {
    vecdb_collection *collection;
    struct vdb_view *view;
    struct vdb_slots *remaining; /* of the view's dead slots, those that are in pages */
    struct vdb_slots *now;
};

static bool forget_slot(void *context, uint32_t slot)
{
    struct forgetting *forgetting = context;
    if (!vdb_slots_has(forgetting->remaining, slot))
        vdb_slots_remove(forgetting->now, slot);
    return true;
}

static int apply_forgetting(void *context, struct vdb_transaction *transaction, vecdb_error *err)
{
    struct forgetting *forgetting = context;
    struct vdb_connection *c = transaction->connection;
    struct vdb_collection_row row;
    bool found;
    int status = vdb_collection_read(c, forgetting->collection->id, &row, &found, err);
    if (status || !found || row.store != forgetting->view->row.store)
        return status;
    vdb_slots_free(forgetting->now);
    forgetting->now = vdb_slots_new();
    if (!forgetting->now)
        return vdb_fail_memory(err, 64);
    if ((status = vdb_dead_read(c, row.store, forgetting->now, err)))
        return status;
    vdb_slots_each(forgetting->view->dead->set, forget_slot, forgetting);
    struct vdb_change change = {.collection = row.id, .kind = VDB_CHANGE_EXTENTS};
    if (!(status = vdb_dead_replace(c, row.store, forgetting->now, err)))
        status = vdb_transaction_log(transaction, &change, err);
    return status;
}

int vdb_compact_dead(vecdb_collection *collection, vecdb_error *err)
{
    struct forgetting forgetting = {.collection = collection};
    uint64_t sequence, n_dead;
    int status = vdb_view_acquire(collection, &forgetting.view, NULL, &sequence, err);
    if (status)
        return status;
    forgetting.remaining = vdb_slots_new();
    if (!forgetting.remaining)
        status = vdb_fail_memory(err, 64);
    for (size_t f = 0; f < forgetting.view->n_fields && !status; f++)
        status = vdb_view_count_dead(forgetting.view, &forgetting.view->fields[f], forgetting.remaining, &n_dead, err);
    if (!status && vdb_slots_count(forgetting.remaining) < vdb_slots_count(forgetting.view->dead->set))
        status = vdb_commit(collection->db, apply_forgetting, &forgetting, err);
    vdb_slots_free(forgetting.remaining);
    vdb_slots_free(forgetting.now);
    vdb_view_release(forgetting.view);
    return status;
}
