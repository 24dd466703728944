/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/info.c - what a database holds: descriptions and statistics
 */
#include "database.h"

#include <stdio.h>

#include "scrub.h"
#include "validate.h"

static int describe_field(const struct vdb_view *view, const struct vdb_view_field *field, vecdb_field_info *info,
                          vecdb_error *err)
{
    uint64_t n_dead;
    int status = vdb_view_count_dead(view, field, NULL, &n_dead, err);
    if (status)
        return status;
    uint64_t n_tail = 0;
    for (size_t i = 0; i < field->n_pieces; i++) {
        const struct vdb_piece *piece = &field->pieces[i];
        uint64_t width = (uint64_t)piece->last_slot - piece->first_slot + 1;
        n_tail += piece->n_rows;
        if (!vdb_slots_count_range(view->dead->set, piece->first_slot, width))
            continue;
        struct vdb_block block = {.n_rows = piece->n_rows, .n_runs = piece->n_runs, .runs = piece->chunk->runs};
        for (uint32_t row = 0; row < piece->n_rows; row++)
            n_tail -= vdb_slots_has(view->dead->set, vdb_block_slot(&block, row));
    }
    *info = (vecdb_field_info){.n_tail = n_tail,
                               .n_vectors = field->n_paged_rows - n_dead + n_tail,
                               .n_dead = n_dead};
    vdb_describe_field(&field->row, &info->field);
    for (size_t i = 0; i < field->n_segments; i++) {
        info->n_pages += field->segments[i]->ref.n_pages;
        info->stored_bytes += field->segments[i]->ref.length;
    }
    return VECDB_OK;
}

static int describe(vecdb *db, const struct vdb_view *view, vecdb_collection_fn each, void *context, vecdb_error *err)
{
    vecdb_field_info *fields = vdb_alloc_array(&db->memory, view->n_fields + 1, sizeof *fields);
    if (!fields)
        return vdb_fail_memory(err, view->n_fields * sizeof *fields);
    int status = VECDB_OK;
    for (size_t f = 0; f < view->n_fields && !status; f++)
        status = describe_field(view, &view->fields[f], &fields[f], err);
    vecdb_collection_info info = {
        .name = view->row.name, .n_records = view->row.n_records, .n_fields = view->n_fields, .fields = fields};
    if (!status && each(context, &info))
        status = vdb_fail(err, VECDB_INTERRUPTED, "the callback ended the description");
    vdb_free(&db->memory, fields);
    return status;
}

int vecdb_collection_describe(vecdb_collection *collection, vecdb_collection_fn each, void *context, vecdb_error *err)
{
    if (!collection || !each)
        return vdb_fail(err, VECDB_MISUSE, "the collection handle, or the callback, is NULL");
    struct vdb_view *view;
    uint64_t sequence;
    int status = vdb_database_check(collection->db, err);
    if (status || (status = vdb_view_acquire(collection, &view, NULL, &sequence, err)))
        return status;
    status = describe(collection->db, view, each, context, err);
    vdb_view_release(view);
    return status;
}

/* ------------------------------------------------------------------ all collections, at one state */

struct view_list {
    vecdb *db;
    uint64_t *ids;
    struct vdb_view **views;
    size_t n;
    vecdb_error *err;
};

static int list_id(void *context, const struct vdb_collection_row *row)
{
    struct view_list *list = context;
    uint64_t *ids = vdb_realloc_array(&list->db->memory, list->ids, list->n + 1, sizeof *ids);
    if (!ids)
        return vdb_fail_memory(list->err, sizeof *ids);
    list->ids = ids;
    ids[list->n++] = row->id;
    return VECDB_OK;
}

/* The views of all collections. *is_one_state false: there was a commit in between. */
static int acquire_all(struct view_list *list, bool *is_one_state, vecdb_error *err)
{
    vecdb *db = list->db;
    struct vdb_connection *c;
    uint64_t sequence, other = 0;
    int status = vdb_read_begin(db->catalog, &c, &sequence, err);
    if (status)
        return status;
    status = vdb_collection_each(c, list_id, list, err);
    vdb_read_end(c);
    if (status)
        return status;
    list->views = vdb_alloc_zero(&db->memory, (list->n + 1) * sizeof(struct vdb_view *));
    if (!list->views)
        return vdb_fail_memory(err, list->n * sizeof(struct vdb_view *));
    *is_one_state = true;
    for (size_t i = 0; i < list->n && !status; i++) {
        vecdb_collection *collection;
        if ((status = vdb_collection_handle(db, list->ids[i], &collection, err)))
            break;
        status = vdb_view_acquire(collection, &list->views[i], NULL, &other, err);
        if (status == VECDB_NOT_FOUND) {
            status = VECDB_OK;
            *is_one_state = false;
        }
        *is_one_state &= other == sequence;
    }
    return status;
}

static void release_all(struct view_list *list)
{
    for (size_t i = 0; list->views && i < list->n; i++)
        vdb_view_release(list->views[i]);
    vdb_free(&list->db->memory, list->views);
    vdb_free(&list->db->memory, list->ids);
}

int vecdb_collections(vecdb *db, vecdb_collection_fn each, void *context, vecdb_error *err)
{
    int status = vdb_database_check(db, err);
    if (status)
        return status;
    if (!each)
        return vdb_fail(err, VECDB_MISUSE, "the callback is NULL");
    for (int attempt = 0;; attempt++) {
        struct view_list list = {.db = db, .err = err};
        bool is_one_state = false;
        status = acquire_all(&list, &is_one_state, err);
        /* Writers that never pause are outwaited only so long. */
        bool is_good = is_one_state || attempt == 100;
        for (size_t i = 0; !status && is_good && i < list.n; i++)
            if (list.views[i])
                status = describe(db, list.views[i], each, context, err);
        release_all(&list);
        if (status || is_good)
            return status;
    }
}

/* ------------------------------------------------------------------ statistics */

struct size_sum {
    vecdb *db;
    uint64_t n_bytes;
    uint64_t n_collections;
};

static bool add_size(void *context, const char *name)
{
    struct size_sum *sum = context;
    struct vdb_vfs *vfs = sum->db->vfs;
    if (strncmp(name, "vectors-", 8) && strncmp(name, "index-", 6))
        return true;
    size_t room = strlen(sum->db->path) + strlen(name) + 2;
    char *path = vdb_alloc(&sum->db->memory, room);
    if (!path)
        return false;
    snprintf(path, room, "%s/%s", sum->db->is_memory ? "" : sum->db->path, name);
    struct vdb_file *file;
    uint64_t n_bytes;
    vecdb_error ignored;
    if (!vfs->open(vfs, path, VDB_FILE_READ, &file, &ignored)) {
        if (!vfs->size(file, &n_bytes, &ignored))
            sum->n_bytes += n_bytes;
        vfs->close(file);
    }
    vdb_free(&sum->db->memory, path);
    return true;
}

static int count_collection(void *context, const struct vdb_collection_row *row)
{
    (void)row;
    ((struct size_sum *)context)->n_collections++;
    return VECDB_OK;
}

int vecdb_database_stats(vecdb *db, vecdb_stats *out, vecdb_error *err)
{
    int status = vdb_database_check(db, err);
    if (status)
        return status;
    if (!out || out->size < offsetof(vecdb_stats, vector_bytes_written))
        return vdb_fail(err, VECDB_MISUSE, "vecdb_stats.size must be sizeof(vecdb_stats)");
    struct size_sum sum = {.db = db};
    struct vdb_connection *c;
    vecdb_stats stats = {.size = sizeof stats};
    if ((status = vdb_read_begin(db->catalog, &c, &stats.sequence, err)))
        return status;
    status = vdb_collection_each(c, count_collection, &sum, err);
    vdb_read_end(c);
    if (!status)
        status = vdb_catalog_size(db->catalog, &stats.catalog_bytes, err);
    if (!status)
        status = db->vfs->list(db->vfs, db->is_memory ? "" : db->path, add_size, &sum, err);
    if (status)
        return status;
    struct vdb_cache_stats cache;
    vdb_cache_get_stats(db->cache, &cache);
    stats.n_collections = sum.n_collections;
    stats.vector_bytes = sum.n_bytes;
    stats.memory_bytes = vdb_memory_used(&db->memory);
    stats.memory_budget = db->options.memory_bytes;
    stats.cache_hits = cache.hits;
    stats.cache_misses = cache.misses;
    stats.vector_bytes_written = atomic_load(&db->vector_bytes_written);
    stats.vector_bytes_rewritten = atomic_load(&db->vector_bytes_rewritten);
    stats.is_maintainer = atomic_load(&db->is_maintainer);
    stats.is_readonly = db->is_readonly;
    vdb_scrub_get_stats(db->scrub, &stats);
    stats.simd = db->kernels->name;
    stats.index_bytes = atomic_load(&db->index_budget.used);
    stats.size = out->size < sizeof stats ? out->size : sizeof stats;
    memcpy(out, &stats, stats.size);
    return VECDB_OK;
}
