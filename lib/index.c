/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/index.c - graphs as their users see them: who serves a field, describing, waiting, another kind (index.h)
 */
#include "database.h"

#include <assert.h>

#include "validate.h"

/* ------------------------------------------------------------------ lifetimes */

void vdb_served_release(struct vdb_served *served)
{
    if (!served || atomic_fetch_sub(&served->references, 1) != 1)
        return;
    vdb_graph_release(served->graph);
    vdb_free(served->memory, served);
}

void vdb_indexes_init(struct vdb_indexes *indexes)
{
    pthread_mutex_init(&indexes->lock, NULL);
}

void vdb_indexes_release(struct vdb_indexes *indexes, struct vdb_memory *memory)
{
    while (indexes->first) {
        struct vdb_index *index = indexes->first;
        indexes->first = index->next;
        vdb_served_release(index->served);
        vdb_free(memory, index);
    }
    vdb_index_refusals_release(indexes, memory);
    pthread_mutex_destroy(&indexes->lock);
}

struct vdb_graph_scratch *vdb_scratch_take(vecdb *db)
{
    struct vdb_graph_scratch *scratch = NULL;
    pthread_mutex_lock(&db->indexer.lock);
    if (db->indexer.n_scratches)
        scratch = db->indexer.scratches[--db->indexer.n_scratches];
    pthread_mutex_unlock(&db->indexer.lock);
    return scratch ? scratch : vdb_graph_scratch_new(&db->memory);
}

void vdb_scratch_give(vecdb *db, struct vdb_graph_scratch *scratch)
{
    pthread_mutex_lock(&db->indexer.lock);
    bool is_kept = db->indexer.n_scratches < VDB_SCRATCHES;
    if (is_kept)
        db->indexer.scratches[db->indexer.n_scratches++] = scratch;
    pthread_mutex_unlock(&db->indexer.lock);
    if (!is_kept)
        vdb_graph_scratch_free(scratch);
}

/* ------------------------------------------------------------------ who serves a field */

bool vdb_index_wanted(const struct vdb_view *view, const struct vdb_view_field *field, bool has_one)
{
    if (field->row.index != VECDB_INDEX_AUTO)
        return field->row.index == VECDB_INDEX_HNSW;
    uint64_t n_rows = field->n_paged_rows + field->n_tail_rows, least = VDB_INDEX_AUTO_ROWS / (has_one ? 2 : 1);
    if (n_rows < least)
        return false;
    uint64_t n_dead = vdb_slots_count(view->dead->set);
    return n_rows >= least + n_dead;
}

struct vdb_served *vdb_index_get(vecdb_collection *collection, const struct vdb_view *view,
                                 const struct vdb_view_field *field)
{
    struct vdb_served *served = NULL;
    if (!vdb_index_wanted(view, field, true))
        return NULL;
    pthread_mutex_lock(&collection->indexes.lock);
    for (struct vdb_index *index = collection->indexes.first; index && !served; index = index->next)
        if (index->field == field->row.id && index->store == view->row.store) {
            served = index->served;
            atomic_fetch_add_explicit(&served->references, 1, memory_order_relaxed);
        }
    pthread_mutex_unlock(&collection->indexes.lock);
    return served;
}

/* ------------------------------------------------------------------ describing */

/* Rows of the field with slots below `end`, and how many of all are dead. */
static void count_rows(const struct vdb_view *view, const struct vdb_view_field *field, uint32_t end,
                       vecdb_index_info *info)
{
    uint64_t n_rows = field->n_paged_rows + field->n_tail_rows;
    uint64_t n_dead = vdb_slots_count(view->dead->set), n_dead_below = vdb_slots_count_range(view->dead->set, 0, end);
    uint64_t n_below = n_rows - vdb_view_count_rows_from(field, end);
    info->n_vectors = n_rows > n_dead ? n_rows - n_dead : 0;
    info->n_indexed = n_below > n_dead_below ? n_below - n_dead_below : 0;
    if (info->n_indexed > info->n_vectors)
        info->n_indexed = info->n_vectors;
}

/* What the catalog tells of the field's index file. */
static int describe_file(vecdb *db, const struct vdb_view *view, const struct vdb_view_field *field,
                         vecdb_index_info *info, vecdb_error *err)
{
    struct vdb_index_named named;
    vecdb_index_info counts = {0};
    bool found = false;
    int status = db->is_memory ? VECDB_OK : vdb_index_files_find(db, field->row.id, &named, &found, err);
    if (status || !found || named.store != view->row.store)
        return status;
    count_rows(view, field, named.end_slot, &counts);
    info->file_bytes = named.extent.n_bytes;
    info->n_in_file = counts.n_indexed;
    return VECDB_OK;
}

int vecdb_index_describe(vecdb_collection *collection, const char *name, vecdb_index_info *out, vecdb_error *err)
{
    if (!collection || !out || out->size < VDB_STRUCT_BYTES(vecdb_index_info, recall_at_10))
        return vdb_fail(err, VECDB_MISUSE,
                        "the collection handle is NULL, or vecdb_index_info.size is not sizeof(vecdb_index_info)");
    struct vdb_view *view;
    const struct vdb_view_field *field;
    uint64_t sequence;
    int status = vdb_database_check(collection->db, err);
    if (status || (status = vdb_view_acquire(collection, &view, NULL, &sequence, err)))
        return status;
    if ((status = vdb_view_field(view, name, &field, err))) {
        vdb_view_release(view);
        return status;
    }
    vecdb_index_info info = {.size = sizeof info, .kind = VECDB_INDEX_FLAT};
    info.is_building = atomic_load(&collection->indexes.n_building) > 0;
    struct vdb_served *served = vdb_index_get(collection, view, field);
    info.wanted = vdb_index_wanted(view, field, served) ? VECDB_INDEX_HNSW : VECDB_INDEX_FLAT;
    if (served) {
        struct vdb_graph_info graph;
        vdb_graph_describe(served->graph, &graph);
        count_rows(view, field, graph.end, &info);
        info.kind = VECDB_INDEX_HNSW;
        info.n_dead = graph.n_slots > info.n_indexed ? graph.n_slots - info.n_indexed : 0;
        info.memory_bytes = graph.bytes;
        if (served->has_curve)
            info.recall_at_10 = (float)vdb_calibration_expected(&served->curve, 10, VDB_DEFAULT_RECALL);
    } else {
        count_rows(view, field, 0, &info);
        info.n_indexed = info.n_vectors; /* exact search is always complete */
        if (info.wanted == VECDB_INDEX_HNSW && field->n_paged_rows + field->n_tail_rows >= VDB_INDEX_LEAST_ROWS)
            info.n_indexed = 0;
    }
    if (info.n_indexed < info.n_vectors)
        vdb_index_is_refused(collection, field->row.id, info.message, NULL);
    status = describe_file(collection->db, view, field, &info, err);
    vdb_served_release(served);
    vdb_view_release(view);
    if (status)
        return status;
    info.size = out->size < sizeof info ? out->size : sizeof info;
    memcpy(out, &info, info.size);
    return VECDB_OK;
}

/* ------------------------------------------------------------------ waiting */

struct waiting {
    vecdb *db;
    vecdb_work work;
    struct vdb_stop stop;
};

static int report(void *context, uint64_t done, uint64_t total, vecdb_error *err)
{
    struct waiting *waiting = context;
    vecdb_progress progress = {.phase = "index", .done = done, .total = total};
    if (waiting->work.progress && waiting->work.progress(waiting->work.progress_context, &progress))
        return vdb_fail(err, VECDB_INTERRUPTED, "the building of the index was interrupted; what is built stays");
    return vdb_stop_check(&waiting->stop, err);
}

int vecdb_index_wait(vecdb_collection *collection, const char *name, uint32_t timeout_ms,
                     const struct vecdb_work *request, vecdb_error *err)
{
    if (!collection)
        return vdb_fail(err, VECDB_MISUSE, "the collection handle is NULL");
    struct waiting waiting = {.db = collection->db};
    struct vdb_view *view;
    const struct vdb_view_field *field;
    uint64_t sequence, *fields;
    int status = vdb_database_check(collection->db, err);
    if (status || (status = VDB_STRUCT_COPY(&waiting.work, request, vecdb_work, progress_context, err)) ||
        (status = vdb_view_acquire(collection, &view, NULL, &sequence, err)))
        return status;
    if (name && (status = vdb_view_field(view, name, &field, err))) {
        vdb_view_release(view);
        return status;
    }
    size_t n = 0;
    fields = vdb_alloc_array(&collection->db->memory, view->n_fields + 1, sizeof *fields);
    for (size_t i = 0; fields && i < view->n_fields; i++)
        if (vdb_index_wanted(view, &view->fields[i], true) && (!name || &view->fields[i] == field))
            fields[n++] = view->fields[i].row.id;
    vdb_view_release(view);
    if (!fields)
        return vdb_fail_memory(err, sizeof *fields);
    vdb_stop_init(&waiting.stop, collection->db, timeout_ms);
    vecdb_error refused = VECDB_ERROR_INIT; /* the first: smaller fields may fit all the same */
    for (size_t i = 0; i < n && !status; i++) {
        struct vdb_index_build build = {.field = fields[i],
                                        .least = 1,
                                        .n_threads = vdb_pool_size(collection->db->pool),
                                        .stop = &waiting.stop,
                                        .report = report,
                                        .report_context = &waiting};
        vecdb_error own = VECDB_ERROR_INIT;
        status = vdb_index_build(collection, &build, &own);
        if (status == VECDB_NOMEM) {
            refused = refused.status ? refused : own;
            status = VECDB_OK;
        } else if (status && err) {
            *err = own;
        }
    }
    vdb_free(&collection->db->memory, fields);
    if (!status && refused.status) {
        status = refused.status;
        if (err)
            *err = refused;
    }
    return status;
}
