/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/batch.c - checking the records of a write (see batch.h)
 *
 * Keys, metadata and texts are one part, vectors the other; of many records the parts are checked by two
 * threads. What is wrong with the first bad record is told, whichever part found it.
 */
#include "batch.h"

#include <stdio.h>

#include "validate.h"

/* Fewer records are checked by one thread: waking another costs as much as checking so many. */
#define SIDE_BY_SIDE_RECORDS 256

void vdb_batch_release(struct vdb_batch *batch)
{
    struct vdb_memory *memory = &batch->collection->db->memory;
    for (size_t i = 0; batch->columns && i < batch->view->n_fields; i++) {
        vdb_free_aligned(memory, batch->columns[i].rows);
        vdb_free(memory, batch->columns[i].record);
    }
    vdb_free(memory, batch->columns);
    vdb_free(memory, batch->keys);
    vdb_free(memory, batch->metadata_lengths);
    vdb_free(memory, batch->text_lengths);
    vdb_free(memory, batch->appends);
    vdb_free(memory, batch->dead);
    vdb_free(memory, batch->slots);
    vdb_free(memory, batch->is_killed);
    vdb_view_release(batch->view);
}

static int add_vector(struct vdb_batch *batch, const char *where, size_t record, struct vdb_batch_column *column,
                      const void *values, uint32_t dimension, int type, vecdb_error *err)
{
    struct vdb_memory *memory = &batch->collection->db->memory;
    size_t vector_bytes = column->field->vector_bytes;
    if (column->n_rows && column->record[column->n_rows - 1] == record)
        return vdb_fail(err, VECDB_INVALID, "%s: field \"%s\" is given two vectors", where, column->field->row.name);
    if (!column->rows) { /* room for all records: most have a vector */
        size_t n_bytes;
        if (__builtin_mul_overflow(batch->n_records, vector_bytes, &n_bytes))
            return vdb_fail_memory(err, SIZE_MAX);
        column->rows = vdb_alloc_aligned(memory, n_bytes);
        column->record = vdb_alloc_array(memory, batch->n_records, sizeof *column->record);
        if (!column->rows || !column->record)
            return vdb_fail_memory(err, n_bytes);
    }
    int status = vdb_check_vector(where, &column->field->row, values, dimension, type,
                                  column->rows + column->n_rows * vector_bytes, err);
    if (status)
        return status;
    column->record[column->n_rows++] = (uint32_t)record;
    batch->n_vector_bytes += vector_bytes;
    return VECDB_OK;
}

static int add_vectors(struct vdb_batch *batch, const char *where, size_t i, vecdb_error *err)
{
    const vecdb_record *record = &batch->records[i];
    const struct vdb_view_field *field;
    int status = VECDB_OK;
    if (record->n_vectors && !record->vectors)
        return vdb_fail(err, VECDB_INVALID, "%s: %zu vectors are announced, but the pointer to them is NULL", where,
                        record->n_vectors);
    if (record->vector) {
        if ((status = vdb_view_field(batch->view, NULL, &field, err)))
            return status;
        status = add_vector(batch, where, i, &batch->columns[field - batch->view->fields], record->vector,
                            record->dimension, record->type, err);
    }
    for (size_t v = 0; v < record->n_vectors && !status; v++) {
        const vecdb_vector *vector = &record->vectors[v];
        if (!vector->values)
            continue;
        if ((status = vdb_view_field(batch->view, vector->field, &field, err)))
            return vdb_fail_prefix(err, status, "%s: ", where);
        status = add_vector(batch, where, i, &batch->columns[field - batch->view->fields], vector->values,
                            vector->dimension, vector->type, err);
    }
    return status;
}

/* Metadata is parsed by SQLite, as it will be when it is filtered. */
int vdb_batch_check_metadata(struct vdb_batch *batch, struct vdb_connection *c, const char *where, size_t i,
                             vecdb_error *err)
{
    const vecdb_record *record = &batch->records[i];
    size_t length;
    bool is_object;
    int status = vdb_check_text(where, "metadata", record->metadata, record->metadata_length, &length, err);
    if (status || (status = vdb_json_check(c, record->metadata, length, &is_object, err)))
        return status;
    if (!is_object || memchr(record->metadata, 0, length)) /* SQLite ends at a NUL, and takes what is before it */
        return vdb_fail(err, VECDB_INVALID,
                        "%s: the metadata is not a JSON object such as {\"year\": 2024} (or is nested too deeply)",
                        where);
    batch->metadata_lengths[i] = length;
    return VECDB_OK;
}

/* Keys and texts, or vectors, of all records: two parts that are done side by side. */
struct checking {
    struct vdb_batch *batch;
    int status[2];
    size_t failed_at[2];
    vecdb_error error[2];
};

void vdb_place_init(struct vdb_place *place, const struct vdb_batch *batch)
{
    int n = snprintf(place->text, sizeof place->text, "collection \"%s\": record ", batch->view->row.name);
    place->prefix = (size_t)n;
}

const char *vdb_place_at(struct vdb_place *place, size_t i)
{
    char digits[20];
    size_t n = 0;
    do
        digits[n++] = (char)('0' + i % 10);
    while (i /= 10);
    for (size_t k = 0; k < n; k++)
        place->text[place->prefix + k] = digits[n - 1 - k];
    place->text[place->prefix + n] = '\0';
    return place->text;
}

static int check_document(struct vdb_batch *batch, const char *where, size_t i, vecdb_error *err)
{
    const vecdb_record *record = &batch->records[i];
    int status = vdb_check_key(where, &record->key, &batch->keys[i], err);
    if (!status && record->text)
        status = vdb_check_text(where, "text", record->text, record->text_length, &batch->text_lengths[i], err);
    if (!status && (record->reserved[0] || record->reserved[1]))
        status = vdb_fail(err, VECDB_INVALID, "%s: vecdb_record.reserved must be zero", where);
    batch->has_documents |= record->metadata || record->text;
    return status;
}

static void check_part(void *context, size_t part)
{
    struct checking *checking = context;
    struct vdb_batch *batch = checking->batch;
    vecdb_error *err = &checking->error[part];
    struct vdb_place place;
    vdb_place_init(&place, batch);
    int status = VECDB_OK;
    size_t i = 0;
    for (; i < batch->n_records && !status; i++)
        status = part ? check_document(batch, vdb_place_at(&place, i), i, err)
                      : add_vectors(batch, vdb_place_at(&place, i), i, err);
    checking->status[part] = status;
    checking->failed_at[part] = i;
}

static int check_records(struct vdb_batch *batch, vecdb_error *err)
{
    struct checking checking = {.batch = batch};
    vdb_pool_run(batch->collection->db->pool, batch->n_records < SIDE_BY_SIDE_RECORDS ? 1 : 2, 2, check_part,
                 &checking);
    /* What is wrong with the first bad record, whichever part found it. */
    int part = checking.status[1] && (!checking.status[0] || checking.failed_at[1] <= checking.failed_at[0]);
    if (checking.status[part] && err)
        *err = checking.error[part];
    return checking.status[part];
}

static bool allocate_batch(struct vdb_batch *batch)
{
    struct vdb_memory *memory = &batch->collection->db->memory;
    size_t n = batch->n_records, n_fields = batch->view->n_fields;
    batch->keys = vdb_alloc_array(memory, n, sizeof *batch->keys);
    batch->slots = vdb_alloc_array(memory, n, sizeof *batch->slots);
    batch->metadata_lengths = vdb_alloc_array(memory, n, sizeof *batch->metadata_lengths);
    batch->text_lengths = vdb_alloc_array(memory, n, sizeof *batch->text_lengths);
    batch->columns = vdb_alloc_array(memory, n_fields + 1, sizeof *batch->columns);
    batch->appends = vdb_alloc_array(memory, n_fields + 1, sizeof *batch->appends);
    batch->is_killed = vdb_alloc(memory, n);
    if (!batch->keys || !batch->slots || !batch->metadata_lengths || !batch->text_lengths || !batch->columns ||
        !batch->appends || !batch->is_killed)
        return false;
    memset(batch->metadata_lengths, 0, n * sizeof *batch->metadata_lengths);
    memset(batch->text_lengths, 0, n * sizeof *batch->text_lengths);
    memset(batch->appends, 0, (n_fields + 1) * sizeof *batch->appends);
    for (size_t i = 0; i <= n_fields; i++)
        batch->columns[i] = (struct vdb_batch_column){.field = i < n_fields ? &batch->view->fields[i] : NULL};
    return true;
}

static int prepare(struct vdb_batch *batch, vecdb_error *err)
{
    uint64_t sequence;
    int status = batch->wants_current ? vdb_view_acquire(batch->collection, &batch->view, NULL, &sequence, err)
                                      : vdb_view_recent(batch->collection, &batch->view, err);
    if (status)
        return status;
    if (!allocate_batch(batch)) {
        vdb_free(&batch->collection->db->memory, batch->columns);
        batch->columns = NULL;
        return vdb_fail_memory(err, batch->n_records * sizeof *batch->keys);
    }
    return check_records(batch, err);
}

int vdb_batch_prepare(struct vdb_batch *batch, vecdb_error *err)
{
    vecdb_error own = VECDB_ERROR_INIT;
    int status = prepare(batch, &own);
    if (status == VECDB_INVALID && !batch->wants_current) { /* perhaps the fields are others by now */
        struct vdb_batch again = {.collection = batch->collection,
                                  .records = batch->records,
                                  .n_records = batch->n_records,
                                  .is_insert = batch->is_insert,
                                  .wants_current = true};
        vdb_batch_release(batch);
        *batch = again;
        own = (vecdb_error)VECDB_ERROR_INIT;
        status = prepare(batch, &own);
    }
    if (status && err)
        *err = own;
    return status;
}
