/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/view.c - views as their users see them: acquiring, releasing, blocks, single vectors (see view.h)
 */
#include "view.h"

#include <assert.h>
#include <stdio.h>

#include "base/numbers.h"
#include "database.h"
#include "view_load.h"

/* ------------------------------------------------------------------ counted parts */

void vdb_segment_release(struct vdb_segment *segment)
{
    if (!segment || atomic_fetch_sub(&segment->references, 1) != 1)
        return;
    vdb_extent_release(segment->extent);
    vdb_vector_file_put(segment->file);
    vdb_free(segment->memory, segment);
}

void vdb_chunk_release(struct vdb_chunk *chunk)
{
    if (!chunk || atomic_fetch_sub(&chunk->references, 1) != 1)
        return;
    vdb_free_aligned(chunk->memory, chunk->rows);
    vdb_free(chunk->memory, chunk->runs);
    vdb_free(chunk->memory, chunk);
}

void vdb_shared_slots_release(struct vdb_shared_slots *shared)
{
    if (!shared || atomic_fetch_sub(&shared->references, 1) != 1)
        return;
    vdb_slots_free(shared->set);
    vdb_free(shared->memory, shared);
}

void vdb_view_field_release(struct vdb_memory *memory, struct vdb_view_field *field)
{
    for (size_t i = 0; i < field->n_segments; i++)
        vdb_segment_release(field->segments[i]);
    for (size_t i = 0; i < field->n_pieces; i++)
        vdb_chunk_release(field->pieces[i].chunk);
    vdb_free(memory, field->segments);
    vdb_free(memory, field->first_block);
    vdb_free(memory, field->pieces);
}

void vdb_view_release(struct vdb_view *view)
{
    if (!view || atomic_fetch_sub(&view->references, 1) != 1)
        return;
    for (size_t i = 0; i < view->n_fields; i++)
        vdb_view_field_release(view->memory, &view->fields[i]);
    vdb_shared_slots_release(view->dead);
    vdb_free(view->memory, view->fields);
    vdb_free(view->memory, view);
}

/* ------------------------------------------------------------------ acquiring */

/* How many commits old the view of a writer may be. Advancing it by one commit costs half as much as a
 * commit itself; by 64 at once hardly more. Not for ever, because a view keeps files open, and because whoever
 * advances it notices that a tail is due to be packed. */
#define RECENT_COMMITS 64

/* The current view if it shows the state of `word`. */
static struct vdb_view *current_view(vecdb_collection *collection, uint64_t word, uint64_t *sequence)
{
    struct vdb_view *view = NULL;
    pthread_mutex_lock(&collection->view_lock);
    if (collection->view && collection->view_word == word) {
        view = collection->view;
        atomic_fetch_add_explicit(&view->references, 1, memory_order_relaxed);
        *sequence = collection->view_sequence;
    }
    pthread_mutex_unlock(&collection->view_lock);
    return view;
}

/* Make `view` (whose reference is taken over) the current one. */
static void publish(vecdb_collection *collection, struct vdb_view *view, uint64_t word, uint64_t sequence)
{
    pthread_mutex_lock(&collection->view_lock);
    struct vdb_view *old = collection->view;
    collection->view = view;
    collection->view_word = word;
    collection->view_sequence = sequence;
    pthread_mutex_unlock(&collection->view_lock);
    vdb_view_release(old);
}

/* A read transaction, and the view of its state. Damage that goes away with a newer state was none:
 * a compaction had removed a file between the snapshot and our opening it. Holds refresh_lock. */
static int advance(vecdb_collection *collection, struct vdb_view **view, struct vdb_connection **c, uint64_t *sequence,
                   vecdb_error *err)
{
    vecdb *db = collection->db;
    uint64_t failed_at = UINT64_MAX;
    for (;;) {
        uint64_t word = vdb_state_word(db->state); /* before the snapshot */
        int status = vdb_read_begin(db->catalog, c, sequence, err);
        if (status)
            return status;
        struct vdb_view *old = collection->view; /* only changed under refresh_lock */
        if (old && collection->view_sequence == *sequence) {
            atomic_fetch_add_explicit(&old->references, 1, memory_order_relaxed);
            *view = old;
        } else {
            status = vdb_view_load(collection, old, collection->view_sequence, *c, view, err);
        }
        if (status == VECDB_OK) {
            atomic_fetch_add_explicit(&(*view)->references, 1, memory_order_relaxed);
            publish(collection, *view, word, *sequence);
            return VECDB_OK;
        }
        vdb_read_end(*c);
        if (status == VECDB_NOT_FOUND) { /* dropped: an open file would keep its space on the disk */
            publish(collection, NULL, 0, 0);
            vdb_keys_clear(&collection->keys);
        }
        if (status != VECDB_CORRUPT || *sequence == failed_at)
            return status;
        failed_at = *sequence;
    }
}

int vdb_view_acquire(vecdb_collection *collection, struct vdb_view **view, struct vdb_connection **c,
                     uint64_t *sequence, vecdb_error *err)
{
    vecdb *db = collection->db;
    vecdb_error own = VECDB_ERROR_INIT;
    if (!c) {
        struct vdb_view *found = current_view(collection, vdb_state_word(db->state), sequence);
        if (found) {
            *view = found;
            return VECDB_OK;
        }
    }
    struct vdb_connection *connection;
    pthread_mutex_lock(&collection->refresh_lock);
    if (!c) { /* perhaps another thread has just advanced it */
        struct vdb_view *found = current_view(collection, vdb_state_word(db->state), sequence);
        if (found) {
            pthread_mutex_unlock(&collection->refresh_lock);
            *view = found;
            return VECDB_OK;
        }
    }
    int status = advance(collection, view, &connection, sequence, &own);
    pthread_mutex_unlock(&collection->refresh_lock);
    if (status) {
        if (err)
            *err = own;
        return status;
    }
    vdb_maintain_notice(collection, *view);
    vdb_index_notice(collection, *view);
    if (c)
        *c = connection;
    else
        vdb_read_end(connection);
    return VECDB_OK;
}

int vdb_view_recent(vecdb_collection *collection, struct vdb_view **view, vecdb_error *err)
{
    uint64_t now, sequence;
    struct vdb_view *found = NULL;
    if (!vdb_state_sequence(collection->db->state, &now, NULL)) {
        pthread_mutex_lock(&collection->view_lock);
        if (collection->view && now - collection->view_sequence <= RECENT_COMMITS) {
            found = collection->view;
            atomic_fetch_add_explicit(&found->references, 1, memory_order_relaxed);
        }
        pthread_mutex_unlock(&collection->view_lock);
    }
    if (!found)
        return vdb_view_acquire(collection, view, NULL, &sequence, err);
    *view = found;
    return VECDB_OK;
}

int vdb_view_field(const struct vdb_view *view, const char *name, const struct vdb_view_field **field, vecdb_error *err)
{
    if (!view->n_fields)
        return vdb_fail(err, VECDB_INVALID, "collection \"%s\" has no vector fields", view->row.name);
    for (size_t i = 0; i < view->n_fields; i++)
        if (!name || !strcmp(view->fields[i].row.name, name)) {
            *field = &view->fields[i];
            return VECDB_OK;
        }
    char names[200] = "";
    for (size_t i = 0; i < view->n_fields && strlen(names) < 120; i++)
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s\"%.60s\"", i ? ", " : "",
                 view->fields[i].row.name);
    return vdb_fail(err, VECDB_INVALID, "collection \"%s\" has no field \"%.80s\"; it has %s", view->row.name, name,
                    names);
}

/* ------------------------------------------------------------------ blocks */

/* The segment that holds block i: the last whose first block is not behind it. */
static size_t segment_of(const struct vdb_view_field *field, size_t i)
{
    size_t low = 0, high = field->n_segments;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (field->first_block[middle] <= i)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static void piece_block(const struct vdb_view_field *field, const struct vdb_piece *piece, struct vdb_block *block)
{
    *block = (struct vdb_block){.rows = piece->chunk->rows,
                                .stride = field->vector_bytes,
                                .n_rows = piece->n_rows,
                                .type = field->row.type,
                                .max_norm = piece->max_norm,
                                .n_runs = piece->n_runs,
                                .runs = piece->chunk->runs,
                                .pin = NULL};
}

static int pin_block(void *context, size_t i, struct vdb_block *block, vecdb_error *err)
{
    struct vdb_view_blocks *source = context;
    const struct vdb_view_field *field = source->field;
    if (i >= source->n_pages) {
        i += source->n_skipped_pieces - source->n_pages;
        assert(i < field->n_pieces);
        piece_block(field, &field->pieces[i], block);
        block->owner = NULL;
        return VECDB_OK;
    }
    i += source->n_skipped_pages;
    size_t s = segment_of(field, i);
    bool is_decoded = false;
    int status =
        vdb_extent_pin(field->segments[s]->extent, (uint32_t)(i - field->first_block[s]), block, &is_decoded, err);
    if (status)
        return status;
    block->owner = field->segments[s]->extent;
    if (is_decoded)
        atomic_fetch_add_explicit(&source->n_decoded, 1, memory_order_relaxed);
    return VECDB_OK;
}

static void unpin_block(void *context, struct vdb_block *block)
{
    (void)context;
    if (block->owner)
        vdb_extent_unpin(block->owner, block);
}

static size_t count_pages(const struct vdb_view_field *field)
{
    return field->n_segments ? field->first_block[field->n_segments] : 0;
}

void vdb_view_get_blocks(struct vdb_view_blocks *source, const struct vdb_view_field *field, struct vdb_blocks *blocks)
{
    source->field = field;
    source->n_pages = count_pages(field);
    source->n_skipped_pages = source->n_skipped_pieces = 0;
    atomic_init(&source->n_visited, 0);
    atomic_init(&source->n_decoded, 0);
    *blocks = (struct vdb_blocks){.context = source,
                                  .n_blocks = source->n_pages + field->n_pieces,
                                  .pin = pin_block,
                                  .unpin = unpin_block};
}

static void page_range(const struct vdb_view_field *field, size_t i, uint32_t *last_slot, uint32_t *n_rows)
{
    size_t s = segment_of(field, i);
    uint32_t first_slot;
    vdb_extent_page_range(field->segments[s]->extent, (uint32_t)(i - field->first_block[s]), &first_slot, last_slot,
                          n_rows);
}

/* The first page that ends at `slot` or behind it. */
static size_t first_page_from(const struct vdb_view_field *field, uint32_t slot)
{
    size_t low = 0, high = count_pages(field);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        uint32_t last, n_rows;
        page_range(field, middle, &last, &n_rows);
        if (last < slot)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static size_t first_piece_from(const struct vdb_view_field *field, uint32_t slot)
{
    size_t low = 0, high = field->n_pieces;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (field->pieces[middle].last_slot < slot)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void vdb_view_get_blocks_from(struct vdb_view_blocks *source, const struct vdb_view_field *field, uint32_t slot,
                              struct vdb_blocks *blocks)
{
    vdb_view_get_blocks(source, field, blocks);
    source->n_skipped_pages = first_page_from(field, slot);
    source->n_skipped_pieces = first_piece_from(field, slot);
    source->n_pages -= source->n_skipped_pages;
    blocks->n_blocks -= source->n_skipped_pages + source->n_skipped_pieces;
}

uint64_t vdb_view_count_rows_from(const struct vdb_view_field *field, uint32_t slot)
{
    uint64_t n = 0;
    for (size_t i = first_page_from(field, slot); i < count_pages(field); i++) {
        uint32_t last, n_rows;
        page_range(field, i, &last, &n_rows);
        n += last - slot < n_rows ? last - slot + 1 : n_rows; /* so many at most, and exactly if no slot is left out */
    }
    for (size_t i = first_piece_from(field, slot); i < field->n_pieces; i++) {
        struct vdb_block block;
        piece_block(field, &field->pieces[i], &block);
        n += block.n_rows - vdb_block_first_row(&block, slot);
    }
    return n;
}

/* ------------------------------------------------------------------ single vectors */

void vdb_view_copy_row(const struct vdb_view_field *field, const struct vdb_block *block, uint32_t row, void *out)
{
    const void *from = (const char *)block->rows + row * block->stride;
    if (block->type == field->row.type) {
        memcpy(out, from, field->vector_bytes);
        return;
    }
    /* A narrow page: every value is exact in the field's type, by way of float. */
    uint32_t d = field->row.dimension;
    for (uint32_t i = 0; i < d; i++) {
        float value;
        size_t size = vdb_vector_bytes(block->type, 1);
        vdb_floats_of(block->type, (const char *)from + i * size, 1, &value);
        uint16_t half = field->row.type == VECDB_F16 ? vdb_f16_of_float(value) : vdb_bf16_of_float(value);
        if (field->row.type == VECDB_F32)
            memcpy((char *)out + 4 * (size_t)i, &value, 4);
        else
            memcpy((char *)out + 2 * (size_t)i, &half, 2);
    }
}

static bool find_in_pieces(const struct vdb_view_field *field, uint32_t slot, void *out)
{
    for (size_t i = 0; i < field->n_pieces; i++) {
        const struct vdb_piece *piece = &field->pieces[i];
        if (!piece->n_rows || slot < piece->first_slot || slot > piece->last_slot)
            continue;
        struct vdb_block block;
        piece_block(field, piece, &block);
        uint32_t row = vdb_block_row(&block, slot);
        if (row != UINT32_MAX) {
            vdb_view_copy_row(field, &block, row, out);
            return true;
        }
    }
    return false;
}

/* Pin the page that may hold a slot. *row UINT32_MAX, and nothing pinned: no page does. `source` (may be NULL)
 * counts. */
static int pin_slot(const struct vdb_view_field *field, uint32_t slot, struct vdb_view_blocks *source,
                    struct vdb_block *block, uint32_t *row, vecdb_error *err)
{
    size_t low = 0, high = field->n_segments;
    *row = UINT32_MAX;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (field->segments[middle]->ref.first_slot <= slot)
            low = middle;
        else
            high = middle;
    }
    if (!field->n_segments || slot < field->segments[low]->ref.first_slot || slot > field->segments[low]->ref.last_slot)
        return VECDB_OK;
    struct vdb_extent *extent = field->segments[low]->extent;
    uint32_t page = vdb_extent_find(extent, slot);
    if (page == UINT32_MAX)
        return VECDB_OK;
    bool is_decoded = false;
    int status = vdb_extent_pin(extent, page, block, &is_decoded, err);
    if (status)
        return status;
    if (source) {
        atomic_fetch_add_explicit(&source->n_visited, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&source->n_decoded, is_decoded, memory_order_relaxed);
    }
    block->owner = extent;
    *row = vdb_block_row(block, slot);
    if (*row == UINT32_MAX)
        vdb_extent_unpin(extent, block);
    return VECDB_OK;
}

int vdb_view_vector(const struct vdb_view_field *field, uint32_t slot, void *out, bool *found, vecdb_error *err)
{
    struct vdb_block block;
    uint32_t row;
    int status = pin_slot(field, slot, NULL, &block, &row, err);
    if (status)
        return status;
    *found = row != UINT32_MAX;
    if (*found) {
        vdb_view_copy_row(field, &block, row, out);
        vdb_extent_unpin(block.owner, &block);
    } else {
        *found = find_in_pieces(field, slot, out);
    }
    return VECDB_OK;
}

static bool find_row_in_pieces(const struct vdb_view_field *field, uint32_t slot, struct vdb_row *found)
{
    size_t piece = first_piece_from(field, slot);
    if (piece == field->n_pieces || !field->pieces[piece].n_rows)
        return false;
    struct vdb_block block;
    piece_block(field, &field->pieces[piece], &block);
    uint32_t row = vdb_block_row(&block, slot);
    if (row == UINT32_MAX)
        return false;
    *found = (struct vdb_row){.values = (const char *)block.rows + row * block.stride, .type = block.type};
    return true;
}

static void put_rows(void *context, struct vdb_row *rows, size_t n)
{
    (void)context;
    for (size_t i = 0; i < n; i++)
        if (rows[i].owner) {
            struct vdb_block block = {.pin = rows[i].pin};
            vdb_extent_unpin(rows[i].owner, &block);
        }
}

static int find_rows(void *context, const uint32_t *slots, size_t n, struct vdb_row *rows, vecdb_error *err)
{
    struct vdb_view_blocks *source = context;
    for (size_t i = 0; i < n; i++) {
        struct vdb_block block;
        uint32_t row;
        rows[i] = (struct vdb_row){0};
        int status = pin_slot(source->field, slots[i], source, &block, &row, err);
        if (status) {
            put_rows(context, rows, i);
            return status;
        }
        if (row == UINT32_MAX)
            find_row_in_pieces(source->field, slots[i], &rows[i]);
        else
            rows[i] = (struct vdb_row){.values = (const char *)block.rows + row * block.stride,
                                       .type = block.type,
                                       .pin = block.pin,
                                       .owner = block.owner};
    }
    return VECDB_OK;
}

void vdb_view_get_rows(struct vdb_view_blocks *source, const struct vdb_view_field *field, struct vdb_rows *rows)
{
    source->field = field;
    source->n_pages = count_pages(field);
    source->n_skipped_pages = source->n_skipped_pieces = 0;
    atomic_init(&source->n_visited, 0);
    atomic_init(&source->n_decoded, 0);
    *rows = (struct vdb_rows){.context = source, .find = find_rows, .put = put_rows};
}

int vdb_view_in_pages(const struct vdb_view_field *field, uint32_t slot, bool *is_there, vecdb_error *err)
{
    struct vdb_block block;
    uint32_t row;
    int status = pin_slot(field, slot, NULL, &block, &row, err);
    if (status)
        return status;
    *is_there = row != UINT32_MAX;
    if (*is_there)
        vdb_extent_unpin(block.owner, &block);
    return VECDB_OK;
}

struct dead_counter {
    const struct vdb_view_field *field;
    struct vdb_slots *remaining;
    uint64_t n;
    int status;
    vecdb_error *err;
};

static bool count_slot(void *context, uint32_t slot)
{
    struct dead_counter *counter = context;
    bool is_there = false;
    counter->status = vdb_view_in_pages(counter->field, slot, &is_there, counter->err);
    counter->n += is_there;
    if (is_there && counter->remaining)
        vdb_slots_add(counter->remaining, slot);
    return counter->status == VECDB_OK;
}

int vdb_view_count_dead(const struct vdb_view *view, const struct vdb_view_field *field, struct vdb_slots *remaining,
                        uint64_t *n_dead, vecdb_error *err)
{
    struct dead_counter counter = {.field = field, .remaining = remaining, .err = err};
    for (size_t i = 0; i < field->n_segments && !counter.status; i++)
        vdb_slots_each_between(view->dead->set, field->segments[i]->ref.first_slot, field->segments[i]->ref.last_slot,
                               count_slot, &counter);
    *n_dead = counter.n;
    return counter.status;
}
