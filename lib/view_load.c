/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/view_load.c - making a view from the catalog, or from an older view and the change log
 *
 * A new view is assembled from three sources, and each is either shared with the old view or read:
 *
 *                      nothing known     rows were added       extents were rearranged
 *     fields           read              shared                shared
 *     segments         opened            shared                shared where equal, else opened
 *     tail             read              shared, then longer   read
 *     dead slots       read              shared, or a copy     read
 *                                        with more
 */
#include "view_load.h"

#include "base/numbers.h"
#include "database.h"
#include "validate.h"

#define CHUNK_BYTES 65536u /* of vectors in a chunk of the tail: a block like a page */
#define CHUNK_MAX_ROWS 1024u

/* ------------------------------------------------------------------ what the log says */

struct range {
    uint32_t first, n;
};

struct news {
    struct vdb_memory *memory;
    vecdb_error *err;
    bool any, schema, rearranged;
    struct range *ranges; /* of new slots */
    size_t n_ranges;
    uint32_t *dead;
    size_t n_dead;
};

static int hear(void *context, const struct vdb_change *change)
{
    struct news *news = context;
    news->any = true;
    /* Of a kind that is not known, as a later version may write: all is read anew. */
    news->schema |= change->kind != VDB_CHANGE_ROWS && change->kind != VDB_CHANGE_EXTENTS;
    news->rearranged |= change->kind == VDB_CHANGE_EXTENTS;
    if (change->n_slots) {
        struct range *ranges =
            vdb_realloc_array(news->memory, news->ranges, news->n_ranges + 1, sizeof *news->ranges);
        if (!ranges)
            return vdb_fail_memory(news->err, (news->n_ranges + 1) * sizeof *ranges);
        news->ranges = ranges;
        news->ranges[news->n_ranges++] = (struct range){change->first_slot, change->n_slots};
    }
    if (change->n_dead) {
        uint32_t *dead = vdb_realloc_array(news->memory, news->dead, news->n_dead + change->n_dead, sizeof *dead);
        if (!dead)
            return vdb_fail_memory(news->err, (news->n_dead + change->n_dead) * sizeof *dead);
        news->dead = dead;
        memcpy(news->dead + news->n_dead, change->dead, change->n_dead * sizeof *dead);
        news->n_dead += change->n_dead;
    }
    return VECDB_OK;
}

/* ------------------------------------------------------------------ the tail */

struct tail_loader {
    struct vdb_memory *memory;
    struct vdb_view_field *field;
    size_t capacity; /* of field->pieces */
    vecdb_error *err;
};

static struct vdb_chunk *new_chunk(struct vdb_memory *memory, size_t vector_bytes)
{
    size_t fit = CHUNK_BYTES / vector_bytes;
    uint32_t capacity = fit < 1 ? 1 : fit > CHUNK_MAX_ROWS ? CHUNK_MAX_ROWS : (uint32_t)fit;
    struct vdb_chunk *chunk = vdb_alloc_zero(memory, sizeof *chunk);
    if (!chunk)
        return NULL;
    atomic_init(&chunk->references, 1);
    chunk->memory = memory;
    chunk->capacity = capacity;
    chunk->rows = vdb_alloc_aligned(memory, capacity * vector_bytes);
    chunk->runs = vdb_alloc_array(memory, capacity, sizeof *chunk->runs);
    if (!chunk->rows || !chunk->runs) {
        vdb_chunk_release(chunk);
        return NULL;
    }
    return chunk;
}

/* A further, empty piece. */
static int add_piece(struct tail_loader *loader)
{
    struct vdb_view_field *field = loader->field;
    if (field->n_pieces == loader->capacity) {
        size_t capacity = loader->capacity ? 2 * loader->capacity : 16;
        struct vdb_piece *pieces = vdb_realloc_array(loader->memory, field->pieces, capacity, sizeof *pieces);
        if (!pieces)
            return vdb_fail_memory(loader->err, capacity * sizeof *pieces);
        field->pieces = pieces;
        loader->capacity = capacity;
    }
    struct vdb_chunk *chunk = new_chunk(loader->memory, field->vector_bytes);
    if (!chunk)
        return vdb_fail_memory(loader->err, CHUNK_BYTES);
    field->pieces[field->n_pieces++] = (struct vdb_piece){.chunk = chunk};
    return VECDB_OK;
}

static int add_tail_row(void *context, uint32_t slot, const void *vector, size_t n_bytes)
{
    struct tail_loader *loader = context;
    struct vdb_view_field *field = loader->field;
    if (n_bytes != field->vector_bytes || !vector)
        return vdb_fail(loader->err, VECDB_CORRUPT,
                        "catalog.sqlite: the vector of slot %u in field \"%s\" has %zu bytes, not %zu", slot,
                        field->row.name, n_bytes, field->vector_bytes);
    struct vdb_piece *piece = field->n_pieces ? &field->pieces[field->n_pieces - 1] : NULL;
    if (!piece || piece->n_rows == piece->chunk->capacity) {
        int status = add_piece(loader);
        if (status)
            return status;
        piece = &field->pieces[field->n_pieces - 1];
    }
    struct vdb_chunk *chunk = piece->chunk;
    memcpy(chunk->rows + piece->n_rows * field->vector_bytes, vector, n_bytes);
    if (!piece->n_rows || slot != piece->last_slot + 1)
        chunk->runs[piece->n_runs++] = (struct vdb_run){slot, piece->n_rows};
    if (!piece->n_rows)
        piece->first_slot = slot;
    piece->last_slot = slot;
    piece->n_rows++;
    float norm = vdb_norm_bound(field->row.type, vector, field->row.dimension);
    if (norm > piece->max_norm)
        piece->max_norm = norm;
    field->n_tail_rows++;
    return VECDB_OK;
}

static int read_tail(struct vdb_connection *c, struct vdb_view_field *field, struct vdb_memory *memory,
                     uint64_t first, uint64_t last, vecdb_error *err)
{
    struct tail_loader loader = {memory, field, field->n_pieces, err};
    return vdb_tail_read(c, field->row.id, first, last, add_tail_row, &loader, err);
}

/* ------------------------------------------------------------------ segments */

struct segment_loader {
    vecdb *db;
    struct vdb_view_field *field;
    const struct vdb_view_field *old; /* NULL: none */
    size_t next_old;
    uint64_t store;
    vecdb_error *err;
};

static bool same_ref(const struct vdb_extent_ref *a, const struct vdb_extent_ref *b)
{
    return a->offset == b->offset && a->length == b->length && a->check == b->check;
}

/* The old view's segment of that extent, if it has not changed. Both are ordered by slot. */
static struct vdb_segment *find_old(struct segment_loader *loader, const struct vdb_extent_row *row)
{
    const struct vdb_view_field *old = loader->old;
    if (!old)
        return NULL;
    while (loader->next_old < old->n_segments &&
           old->segments[loader->next_old]->ref.first_slot < row->ref.first_slot)
        loader->next_old++;
    if (loader->next_old == old->n_segments)
        return NULL;
    struct vdb_segment *segment = old->segments[loader->next_old];
    if (segment->id != row->id || !same_ref(&segment->ref, &row->ref))
        return NULL;
    atomic_fetch_add_explicit(&segment->references, 1, memory_order_relaxed);
    return segment;
}

static int open_segment(struct segment_loader *loader, const struct vdb_extent_row *row, struct vdb_segment **out)
{
    vecdb *db = loader->db;
    const struct vdb_field_row *field = &loader->field->row;
    struct vdb_segment *segment = vdb_alloc_zero(&db->memory, sizeof *segment);
    if (!segment)
        return vdb_fail_memory(loader->err, sizeof *segment);
    atomic_init(&segment->references, 1);
    segment->memory = &db->memory;
    segment->id = row->id;
    segment->ref = row->ref;
    int status = vdb_vector_file_get(db, field->id, row->generation, &segment->file, loader->err);
    if (status == VECDB_NOT_FOUND)
        status = vdb_fail(loader->err, VECDB_CORRUPT,
                          "%s: the file vectors-%llu-%llu is missing, and with it vectors of field \"%s\"", db->path,
                          (unsigned long long)field->id, (unsigned long long)row->generation, field->name);
    else if (!status)
        status = vdb_extent_open(&db->memory, db->cache, segment->file->file, vdb_catalog_uuid(db->catalog),
                                 loader->store, field->type, field->dimension, &row->ref, &segment->extent,
                                 loader->err);
    if (status) {
        vdb_vector_file_put(segment->file);
        vdb_free(&db->memory, segment);
        return status;
    }
    *out = segment;
    return VECDB_OK;
}

static int add_segment(void *context, const struct vdb_extent_row *row)
{
    struct segment_loader *loader = context;
    struct vdb_view_field *field = loader->field;
    struct vdb_memory *memory = &loader->db->memory;
    size_t n = field->n_segments;
    if (n && row->ref.first_slot <= field->segments[n - 1]->ref.last_slot)
        return vdb_fail(loader->err, VECDB_CORRUPT, "catalog.sqlite: extents %llu and %llu overlap",
                        (unsigned long long)field->segments[n - 1]->id, (unsigned long long)row->id);
    if (n % 16 == 0) {
        struct vdb_segment **segments = vdb_realloc_array(memory, field->segments, n + 16, sizeof *segments);
        if (!segments)
            return vdb_fail_memory(loader->err, (n + 16) * sizeof *segments);
        field->segments = segments;
    }
    struct vdb_segment *segment = find_old(loader, row);
    int status = segment ? VECDB_OK : open_segment(loader, row, &segment);
    if (status)
        return status;
    field->segments[field->n_segments++] = segment;
    field->n_paged_rows += row->ref.n_rows;
    return VECDB_OK;
}

static int count_blocks(struct vdb_memory *memory, struct vdb_view_field *field, vecdb_error *err)
{
    field->first_block = vdb_alloc_array(memory, field->n_segments + 1, sizeof *field->first_block);
    if (!field->first_block)
        return vdb_fail_memory(err, (field->n_segments + 1) * sizeof *field->first_block);
    field->first_block[0] = 0;
    for (size_t i = 0; i < field->n_segments; i++)
        field->first_block[i + 1] = field->first_block[i] + field->segments[i]->ref.n_pages;
    return VECDB_OK;
}

static int read_segments(vecdb *db, struct vdb_connection *c, uint64_t store, struct vdb_view_field *field,
                         const struct vdb_view_field *old, vecdb_error *err)
{
    struct segment_loader loader = {db, field, old, 0, store, err};
    int status = vdb_extents_read(c, field->row.id, add_segment, &loader, err);
    return status ? status : count_blocks(&db->memory, field, err);
}

/* The old view's segments and tail pieces, shared. */
static int share_field(struct vdb_memory *memory, struct vdb_view_field *field, const struct vdb_view_field *old,
                       vecdb_error *err)
{
    field->segments = vdb_alloc_array(memory, old->n_segments + 1, sizeof *field->segments);
    field->pieces = vdb_alloc_array(memory, old->n_pieces + 1, sizeof *field->pieces);
    if (!field->segments || !field->pieces)
        return vdb_fail_memory(err, (old->n_segments + old->n_pieces) * sizeof *field->pieces);
    for (size_t i = 0; i < old->n_segments; i++) {
        field->segments[i] = old->segments[i];
        atomic_fetch_add_explicit(&field->segments[i]->references, 1, memory_order_relaxed);
    }
    field->n_segments = old->n_segments;
    for (size_t i = 0; i < old->n_pieces; i++) {
        field->pieces[i] = old->pieces[i];
        atomic_fetch_add_explicit(&field->pieces[i].chunk->references, 1, memory_order_relaxed);
    }
    field->n_pieces = old->n_pieces;
    field->n_paged_rows = old->n_paged_rows;
    field->n_tail_rows = old->n_tail_rows;
    return count_blocks(memory, field, err);
}

/* ------------------------------------------------------------------ dead slots */

static int read_dead(vecdb_collection *collection, struct vdb_connection *c, uint64_t store,
                     const struct vdb_shared_slots *base, const struct news *news, struct vdb_shared_slots **out,
                     vecdb_error *err)
{
    struct vdb_memory *memory = &collection->db->memory;
    struct vdb_shared_slots *shared = vdb_alloc_zero(memory, sizeof *shared);
    if (!shared)
        return vdb_fail_memory(err, sizeof *shared);
    atomic_init(&shared->references, 1);
    shared->memory = memory;
    shared->set = base ? vdb_slots_copy(base->set) : vdb_slots_new();
    int status = shared->set ? VECDB_OK : vdb_fail_memory(err, sizeof *shared);
    if (!status && !base)
        status = vdb_dead_read(c, store, shared->set, err);
    if (status) {
        vdb_shared_slots_release(shared);
        return status;
    }
    for (size_t i = 0; base && i < news->n_dead; i++)
        vdb_slots_add(shared->set, news->dead[i]);
    *out = shared;
    return VECDB_OK;
}

/* ------------------------------------------------------------------ the view */

struct field_loader {
    struct vdb_memory *memory;
    struct vdb_view *view;
    vecdb_error *err;
};

static int add_field(void *context, const struct vdb_field_row *row)
{
    struct field_loader *loader = context;
    struct vdb_view *view = loader->view;
    struct vdb_view_field *fields =
        vdb_realloc_array(loader->memory, view->fields, view->n_fields + 1, sizeof *fields);
    if (!fields)
        return vdb_fail_memory(loader->err, (view->n_fields + 1) * sizeof *fields);
    view->fields = fields;
    fields[view->n_fields++] = (struct vdb_view_field){
        .row = *row, .vector_bytes = vdb_vector_bytes(row->type, row->dimension)};
    return VECDB_OK;
}

static int copy_fields(struct vdb_view *view, const struct vdb_view *old, vecdb_error *err)
{
    struct field_loader loader = {view->memory, view, err};
    int status = VECDB_OK;
    for (size_t i = 0; i < old->n_fields && !status; i++)
        status = add_field(&loader, &old->fields[i].row);
    return status;
}

static const struct vdb_view_field *field_in(const struct vdb_view *old, uint64_t id)
{
    for (size_t i = 0; old && i < old->n_fields; i++)
        if (old->fields[i].row.id == id)
            return &old->fields[i];
    return NULL;
}

static int fill_field(vecdb *db, struct vdb_connection *c, uint64_t store, struct vdb_view_field *field,
                      const struct vdb_view_field *old, bool is_shared, const struct news *news, vecdb_error *err)
{
    if (!is_shared) {
        int status = read_segments(db, c, store, field, old, err);
        return status ? status : read_tail(c, field, &db->memory, 0, UINT32_MAX, err);
    }
    int status = share_field(&db->memory, field, old, err);
    for (size_t i = 0; i < news->n_ranges && !status; i++) {
        /* New rows go behind those that are there: the last chunk is filled up in place. */
        uint64_t first = news->ranges[i].first;
        status = read_tail(c, field, &db->memory, first, first + news->ranges[i].n - 1, err);
    }
    return status;
}

static int fill_view(vecdb_collection *collection, struct vdb_view *view, const struct vdb_view *old,
                     const struct news *news, bool is_shared, struct vdb_connection *c, vecdb_error *err)
{
    int status;
    if (old && !news->schema) {
        status = copy_fields(view, old, err);
    } else {
        struct field_loader loader = {view->memory, view, err};
        status = vdb_field_each(c, collection->id, add_field, &loader, err);
    }
    for (size_t i = 0; i < view->n_fields && !status; i++) {
        const struct vdb_view_field *old_field = field_in(old, view->fields[i].row.id);
        status = fill_field(collection->db, c, view->row.store, &view->fields[i], old_field, is_shared && old_field,
                            news, err);
    }
    if (status)
        return status;
    if (is_shared && !news->n_dead) {
        view->dead = old->dead;
        atomic_fetch_add_explicit(&view->dead->references, 1, memory_order_relaxed);
        return VECDB_OK;
    }
    return read_dead(collection, c, view->row.store, is_shared ? old->dead : NULL, news, &view->dead, err);
}

int vdb_view_load(vecdb_collection *collection, struct vdb_view *old, uint64_t old_sequence,
                  struct vdb_connection *c, struct vdb_view **out, vecdb_error *err)
{
    struct vdb_memory *memory = &collection->db->memory;
    struct news news = {.memory = memory, .err = err};
    struct vdb_collection_row row;
    bool found, is_complete = false;
    struct vdb_view *view = NULL;
    int status = vdb_collection_read(c, collection->id, &row, &found, err);
    if (!status && !found)
        status = vdb_fail(err, VECDB_NOT_FOUND, "the collection was dropped");
    if (!status && old)
        status = vdb_changes_read(c, collection->id, old_sequence, &is_complete, hear, &news, err);
    if (status)
        goto done;
    if (!is_complete)
        news.schema = news.rearranged = true;
    if (old && is_complete && !news.any) { /* other collections have changed */
        atomic_fetch_add_explicit(&old->references, 1, memory_order_relaxed);
        *out = old;
        goto done;
    }
    view = vdb_alloc_zero(memory, sizeof *view);
    if (!view) {
        status = vdb_fail_memory(err, sizeof *view);
        goto done;
    }
    atomic_init(&view->references, 1);
    view->memory = memory;
    view->row = row;
    bool is_shared = old && !news.schema && !news.rearranged;
    status = fill_view(collection, view, old, &news, is_shared, c, err);
    if (status)
        vdb_view_release(view);
    else
        *out = view;
done:
    vdb_free(memory, news.ranges);
    vdb_free(memory, news.dead);
    return status;
}
