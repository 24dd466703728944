/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/results.c - answers (see results.h)
 */
#include "results.h"

#include <stdio.h>

#include "base/error.h"
#include "database.h"

#define ARENA_BLOCK_BYTES 4096

struct vdb_arena_block {
    struct vdb_arena_block *next;
    size_t padding; /* keeps the bytes behind at a multiple of 16 */
};

void *vdb_arena_alloc(struct vdb_arena *arena, size_t n_bytes)
{
    if (n_bytes > SIZE_MAX / 2)
        return NULL;
    n_bytes = (n_bytes + 15) & ~(size_t)15;
    if (!arena->blocks || arena->size - arena->used < n_bytes) {
        size_t size = n_bytes > ARENA_BLOCK_BYTES / 4 ? n_bytes : ARENA_BLOCK_BYTES;
        struct vdb_arena_block *block = vdb_alloc(arena->memory, sizeof *block + size);
        if (!block)
            return NULL;
        block->next = arena->blocks;
        arena->blocks = block;
        arena->used = 0;
        arena->size = size;
    }
    void *start = (char *)(arena->blocks + 1) + arena->used;
    arena->used += n_bytes;
    return start;
}

char *vdb_arena_text(struct vdb_arena *arena, const char *text, size_t n_bytes)
{
    char *copy = vdb_arena_alloc(arena, n_bytes + 1);
    if (copy) {
        memcpy(copy, text, n_bytes);
        copy[n_bytes] = '\0';
    }
    return copy;
}

void vdb_arena_release(struct vdb_arena *arena)
{
    while (arena->blocks) {
        struct vdb_arena_block *block = arena->blocks;
        arena->blocks = block->next;
        vdb_free(arena->memory, block);
    }
    arena->used = arena->size = 0;
}

int vdb_results_new(struct vdb_memory *memory, size_t n_items, size_t n_queries, vecdb_results **out, vecdb_error *err)
{
    vecdb_results *results = vdb_alloc_zero(memory, sizeof *results);
    if (!results)
        return vdb_fail_memory(err, sizeof *results);
    results->memory = memory;
    results->arena.memory = memory;
    results->n_queries = n_queries;
    results->n_items = n_items;
    results->items = vdb_alloc_array(memory, n_items + !n_items, sizeof *results->items);
    results->first = vdb_alloc_array(memory, n_queries + 1, sizeof *results->first);
    if (!results->items || !results->first) {
        vecdb_results_free(results);
        return vdb_fail_memory(err, n_items * sizeof *results->items);
    }
    memset(results->items, 0, n_items * sizeof *results->items);
    memset(results->first, 0, (n_queries + 1) * sizeof *results->first);
    *out = results;
    return VECDB_OK;
}

int vdb_results_fill(vecdb_results *results, struct vdb_item *item, const struct vdb_record_row *row, vecdb_error *err)
{
    struct vdb_arena *arena = &results->arena;
    item->found = true;
    item->slot = row->slot;
    if (!item->key.text && row->key.text) {
        char *text = vdb_arena_text(arena, row->key.text, row->key.length);
        if (!text)
            return vdb_fail_memory(err, row->key.length);
        item->key = (vecdb_key){.text = text, .length = row->key.length};
    } else if (!row->key.text) {
        item->key = vecdb_key_int(row->key.integer);
    }
    if (row->metadata) {
        item->metadata = vdb_arena_text(arena, row->metadata, row->metadata_length);
        item->metadata_length = row->metadata_length;
        if (!item->metadata)
            return vdb_fail_memory(err, row->metadata_length);
    }
    if (row->text) {
        item->text = vdb_arena_text(arena, row->text, row->text_length);
        item->text_length = row->text_length;
        if (!item->text)
            return vdb_fail_memory(err, row->text_length);
    }
    return VECDB_OK;
}

static int fetch_item(vecdb_results *results, struct vdb_item *item, const struct vdb_view *view, vecdb_error *err)
{
    item->vectors = vdb_arena_alloc(&results->arena, view->n_fields * sizeof *item->vectors + 1);
    if (!item->vectors)
        return vdb_fail_memory(err, view->n_fields * sizeof *item->vectors);
    for (size_t f = 0; f < view->n_fields; f++) {
        bool found;
        void *vector = vdb_arena_alloc(&results->arena, view->fields[f].vector_bytes);
        int status = vector ? vdb_view_vector(&view->fields[f], item->slot, vector, &found, err)
                            : vdb_fail_memory(err, view->fields[f].vector_bytes);
        if (status)
            return status;
        item->vectors[f] = found ? vector : NULL;
    }
    return VECDB_OK;
}

int vdb_results_fetch_vectors(vecdb_results *results, const struct vdb_view *view, vecdb_error *err)
{
    results->fields = vdb_alloc_array(results->memory, view->n_fields + 1, sizeof *results->fields);
    if (!results->fields)
        return vdb_fail_memory(err, view->n_fields * sizeof *results->fields);
    results->n_fields = view->n_fields;
    for (size_t f = 0; f < view->n_fields; f++) {
        memcpy(results->fields[f].name, view->fields[f].row.name, sizeof results->fields[f].name);
        results->fields[f].dimension = view->fields[f].row.dimension;
        results->fields[f].type = view->fields[f].row.type;
    }
    int status = VECDB_OK;
    for (size_t i = 0; i < results->n_items && !status; i++)
        if (results->items[i].found)
            status = fetch_item(results, &results->items[i], view, err);
    return status;
}

int vdb_check_columns(int columns, int *out, vecdb_error *err)
{
    if (columns & ~(VECDB_KEYS_ONLY | VECDB_METADATA | VECDB_TEXT | VECDB_VECTORS))
        return vdb_fail(err, VECDB_INVALID, "columns is %d, which has bits that mean nothing", columns);
    *out = columns == VECDB_COLUMNS_DEFAULT ? VECDB_METADATA | VECDB_TEXT : columns & ~VECDB_KEYS_ONLY;
    return VECDB_OK;
}

/* ------------------------------------------------------------------ public accessors */

void vecdb_results_free(vecdb_results *results)
{
    if (!results)
        return;
    vdb_arena_release(&results->arena);
    vdb_free(results->memory, results->items);
    vdb_free(results->memory, results->first);
    vdb_free(results->memory, results->fields);
    vdb_free(results->memory, results);
}

size_t vecdb_results_count(const vecdb_results *results)
{
    return results ? results->n_items : 0;
}

size_t vecdb_results_queries(const vecdb_results *results)
{
    return results ? results->n_queries : 0;
}

void vecdb_results_range(const vecdb_results *results, size_t query, size_t *first, size_t *count)
{
    bool is_there = results && query < results->n_queries;
    if (first)
        *first = is_there ? results->first[query] : 0;
    if (count)
        *count = is_there ? results->first[query + 1] - results->first[query] : 0;
}

static const struct vdb_item *item_at(const vecdb_results *results, size_t i)
{
    return results && i < results->n_items ? &results->items[i] : NULL;
}

int vecdb_result_found(const vecdb_results *results, size_t i)
{
    const struct vdb_item *item = item_at(results, i);
    return item && item->found;
}

vecdb_key vecdb_result_key(const vecdb_results *results, size_t i)
{
    const struct vdb_item *item = item_at(results, i);
    return item ? item->key : vecdb_key_int(0);
}

const char *vecdb_result_key_text(vecdb_results *results, size_t i)
{
    if (!item_at(results, i))
        return NULL;
    struct vdb_item *item = &results->items[i];
    if (item->key.text)
        return item->key.text;
    if (!item->key_digits) {
        char digits[24];
        int n = snprintf(digits, sizeof digits, "%lld", (long long)item->key.integer);
        item->key_digits = vdb_arena_text(&results->arena, digits, (size_t)n);
    }
    return item->key_digits;
}

double vecdb_result_distance(const vecdb_results *results, size_t i)
{
    const struct vdb_item *item = item_at(results, i);
    return item ? item->distance : 0;
}

double vecdb_result_score(const vecdb_results *results, size_t i)
{
    const struct vdb_item *item = item_at(results, i);
    if (!item)
        return 0;
    switch (results->metric) {
    case VECDB_L2:
        return 1 / (1 + item->distance);
    case VECDB_IP:
        return -item->distance;
    case VECDB_COSINE:
        return 1 - item->distance;
    case VECDB_HAMMING:
        return 1 - item->distance / results->dimension;
    default:
        return 0;
    }
}

const char *vecdb_result_metadata(const vecdb_results *results, size_t i, size_t *length)
{
    const struct vdb_item *item = item_at(results, i);
    if (length)
        *length = item ? item->metadata_length : 0;
    return item ? item->metadata : NULL;
}

const char *vecdb_result_text(const vecdb_results *results, size_t i)
{
    const struct vdb_item *item = item_at(results, i);
    return item ? item->text : NULL;
}

size_t vecdb_result_text_length(const vecdb_results *results, size_t i)
{
    const struct vdb_item *item = item_at(results, i);
    return item ? item->text_length : 0;
}

const void *vecdb_result_vector(const vecdb_results *results, size_t i, const char *field, uint32_t *dimension,
                                int *type)
{
    const struct vdb_item *item = item_at(results, i);
    for (size_t f = 0; item && item->vectors && f < results->n_fields; f++)
        if (!field || !strcmp(results->fields[f].name, field)) {
            if (dimension)
                *dimension = results->fields[f].dimension;
            if (type)
                *type = results->fields[f].type;
            return item->vectors[f];
        }
    return NULL;
}

int vecdb_results_stats(const vecdb_results *results, vecdb_search_stats *stats)
{
    if (!results || !stats || stats->size < VDB_STRUCT_BYTES(vecdb_search_stats, simd))
        return VECDB_MISUSE;
    size_t size = stats->size < sizeof *stats ? stats->size : sizeof *stats; /* a caller's older header has less */
    memcpy(stats, &results->stats, size);
    stats->size = size;
    return VECDB_OK;
}
