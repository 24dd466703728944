/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/write.c - put, insert, delete
 *
 * A write has two halves. Outside of all locks, every record is checked and its vectors are brought
 * into the fields' types (struct vdb_batch), by a view that may be some commits old: no SQL runs. Inside the
 * transaction, metadata is parsed, slots are given out, keys looked up, rows written. Vectors go to the
 * tail; or, when there are many of them and this process can be the maintainer, at once into an extent that
 * is synced before the commit, which spares writing them three times (WAL, catalog, page) and is done by
 * another thread, beside the rows of the catalog.
 *
 * Slots of one write are consecutive, in the order of its records. Of two records with one key in a
 * put, the later kills the earlier, as two puts would.
 *
 * When the collection's fields are not those of the first half any more (changed by another process, say),
 * that half is done again with the view of the last commit; so it is when it refuses a record.
 */
#include "batch.h"

#include <stdio.h>

#include "base/numbers.h"
#include "validate.h"

/* From this many bytes of vectors on, a write goes into an extent of its own: about two pages. */
#define BULK_BYTES ((size_t)128 << 10)

/* Not a vecdb_status: the fields have changed since the batch was made. */
#define STALE (-1)
/* Nor is this: there are fewer slots left than records, but a new store would have enough. */
#define NEEDS_SLOTS (-2)

/* ------------------------------------------------------------------ the second half */

static int kill_slot(struct vdb_batch *batch, struct vdb_connection *c, uint32_t slot, uint32_t first_slot,
                     vecdb_error *err)
{
    if (batch->n_dead == batch->dead_capacity) {
        size_t capacity = batch->dead_capacity ? 2 * batch->dead_capacity : 64;
        uint32_t *dead = vdb_realloc_array(&batch->collection->db->memory, batch->dead, capacity, sizeof *dead);
        if (!dead)
            return vdb_fail_memory(err, capacity * sizeof *dead);
        batch->dead = dead;
        batch->dead_capacity = capacity;
    }
    batch->dead[batch->n_dead++] = slot;
    int status = vdb_records_remove(c, batch->store, slot, NULL, err);
    if (slot >= first_slot) { /* a row of this very write is not in the tail yet */
        batch->is_killed[slot - first_slot] = 1;
        return status;
    }
    for (size_t f = 0; f < batch->view->n_fields && !status; f++)
        status = vdb_tail_remove(c, batch->view->fields[f].row.id, slot, slot, err);
    return status;
}

static int fail_existing(const struct vdb_batch *batch, size_t i, vecdb_error *err)
{
    const vecdb_key *key = &batch->keys[i];
    if (key->text)
        return vdb_fail(err, VECDB_EXISTS,
                        "collection \"%s\": record %zu: there is a record with key \"%.*s\" already; put replaces "
                        "records",
                        batch->view->row.name, i, key->length > 100 ? 100 : (int)key->length, key->text);
    return vdb_fail(err, VECDB_EXISTS,
                    "collection \"%s\": record %zu: there is a record with key %lld already; put replaces records",
                    batch->view->row.name, i, (long long)key->integer);
}

static int write_record(struct vdb_batch *batch, struct vdb_connection *c, size_t i, uint32_t first_slot,
                        uint64_t *n_records, vecdb_error *err)
{
    struct vdb_record_row row = {.slot = first_slot + (uint32_t)i,
                                 .key = batch->keys[i],
                                 .metadata = batch->records[i].metadata,
                                 .text = batch->records[i].text,
                                 .metadata_length = batch->metadata_lengths[i],
                                 .text_length = batch->text_lengths[i]};
    bool added, found;
    int status = vdb_records_add(c, batch->store, &row, &added, err);
    if (status || added) {
        *n_records += !status && added;
        return status;
    }
    if (batch->is_insert)
        return fail_existing(batch, i, err);
    uint32_t old;
    if ((status = vdb_records_find(c, batch->store, &row.key, &old, &found, err)))
        return status;
    if (found && (status = kill_slot(batch, c, old, first_slot, err)))
        return status;
    status = vdb_records_add(c, batch->store, &row, &added, err);
    if (!status && !added)
        status = vdb_fail(err, VECDB_CORRUPT, "catalog.sqlite: slot %u of collection \"%s\" is taken twice", row.slot,
                          batch->view->row.name);
    return status;
}

static int write_tail(struct vdb_connection *c, const struct vdb_batch_column *column, uint32_t first_slot,
                      const struct vdb_batch *batch, vecdb_error *err)
{
    size_t vector_bytes = column->field->vector_bytes;
    int status = VECDB_OK;
    for (size_t r = 0; r < column->n_rows && !status; r++)
        if (!batch->is_killed[column->record[r]])
            status = vdb_tail_add(c, column->field->row.id, first_slot + column->record[r],
                                  column->rows + r * vector_bytes, vector_bytes, err);
    return status;
}

/* A bulk write has two parts that do not touch each other until the end: rows of the catalog, by the
 * transaction's connection, and extents of the vector files. They are done side by side. */
struct parts {
    struct vdb_batch *batch;
    struct vdb_connection *c;
    uint32_t first_slot;
    uint64_t *n_records;
    int status[2];
    vecdb_error error[2];
};

static int write_records_part(struct parts *parts, vecdb_error *err)
{
    struct vdb_batch *batch = parts->batch;
    struct vdb_place place;
    vdb_place_init(&place, batch);
    int status = VECDB_OK;
    for (size_t i = 0; i < batch->n_records && !status; i++) {
        if (batch->records[i].metadata)
            status = vdb_batch_check_metadata(batch, parts->c, vdb_place_at(&place, i), i, err);
        if (!status)
            status = write_record(batch, parts->c, i, parts->first_slot, parts->n_records, err);
    }
    return status;
}

static int write_extents_part(struct parts *parts, vecdb_error *err)
{
    struct vdb_batch *batch = parts->batch;
    int status = VECDB_OK;
    for (size_t f = 0; f < batch->view->n_fields && !status; f++) {
        const struct vdb_batch_column *column = &batch->columns[f];
        struct vdb_append *append = &batch->appends[f];
        if (!column->n_rows)
            continue;
        for (size_t r = 0; r < column->n_rows; r++)
            batch->slots[r] = parts->first_slot + column->record[r];
        status = vdb_extent_writer_add(append->writer, batch->slots, column->rows, column->n_rows, err);
        if (!status)
            status = vdb_append_finish(batch->collection->db, append, err);
    }
    return status;
}

static void run_part(void *context, size_t i)
{
    struct parts *parts = context;
    parts->status[i] = i ? write_records_part(parts, &parts->error[i]) : write_extents_part(parts, &parts->error[i]);
}

static int write_bulk(struct vdb_batch *batch, struct vdb_connection *c, uint32_t first_slot, uint64_t *n_records,
                      vecdb_error *err)
{
    vecdb *db = batch->collection->db;
    struct parts parts = {.batch = batch, .c = c, .first_slot = first_slot, .n_records = n_records};
    size_t n_fields = batch->view->n_fields;
    int status = VECDB_OK;
    for (size_t f = 0; f < n_fields && !status; f++)
        if (batch->columns[f].n_rows)
            status = vdb_append_open(db, c, &batch->columns[f].field->row, batch->store,
                                     first_slot + batch->columns[f].record[0], true, 0, &batch->appends[f], err);
    if (!status) {
        vdb_pool_run(db->pool, 2, 2, run_part, &parts);
        int failed = parts.status[1] ? 1 : 0; /* what is wrong with a record comes first */
        status = parts.status[failed];
        if (status && err)
            *err = parts.error[failed];
    }
    for (size_t f = 0; f < n_fields; f++) {
        if (!status && batch->columns[f].n_rows)
            status = vdb_append_commit(c, &batch->appends[f], err);
        if (status)
            vdb_append_undo(db, &batch->appends[f]);
        else
            vdb_append_release(db, &batch->appends[f]);
    }
    return status;
}

static int write_small(struct vdb_batch *batch, struct vdb_connection *c, uint32_t first_slot, uint64_t *n_records,
                       vecdb_error *err)
{
    struct parts parts = {.batch = batch, .c = c, .first_slot = first_slot, .n_records = n_records};
    int status = write_records_part(&parts, err);
    for (size_t f = 0; f < batch->view->n_fields && !status; f++)
        status = write_tail(c, &batch->columns[f], first_slot, batch, err);
    return status;
}

static int compare_slots(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return left < right ? -1 : left > right;
}

/* Note the dead slots and log what was done. */
static int finish_batch(struct vdb_batch *batch, struct vdb_transaction *transaction, uint32_t first_slot,
                        size_t n_slots, bool wrote_extents, vecdb_error *err)
{
    uint64_t id = batch->collection->id;
    if (batch->n_dead) {
        qsort(batch->dead, batch->n_dead, sizeof *batch->dead, compare_slots);
        int status = vdb_dead_add(transaction->connection, batch->store, batch->dead, batch->n_dead, err);
        if (status)
            return status;
    }
    struct vdb_change change = {.collection = id,
                                .kind = wrote_extents ? VDB_CHANGE_EXTENTS : VDB_CHANGE_ROWS,
                                .first_slot = first_slot,
                                .n_slots = (uint32_t)n_slots,
                                .dead = batch->dead,
                                .n_dead = batch->n_dead};
    return vdb_transaction_log(transaction, &change, err);
}

/* The collection as it is now; STALE when it has other fields than the batch was made for. */
static int read_collection(struct vdb_batch *batch, struct vdb_connection *c, struct vdb_collection_row *row,
                           vecdb_error *err)
{
    bool found;
    batch->n_dead = 0;
    int status = vdb_collection_read(c, batch->collection->id, row, &found, err);
    if (status)
        return status;
    if (!found)
        return vdb_fail(err, VECDB_NOT_FOUND, "collection \"%s\" was dropped", batch->view->row.name);
    batch->store = row->store;
    return row->schema_version == batch->view->row.schema_version ? VECDB_OK : STALE;
}

static int apply_batch(void *context, struct vdb_transaction *transaction, vecdb_error *err)
{
    struct vdb_batch *batch = context;
    struct vdb_connection *c = transaction->connection;
    struct vdb_collection_row row;
    int status = read_collection(batch, c, &row, err);
    if (status)
        return status;
    memset(batch->is_killed, 0, batch->n_records);
    if (batch->n_records > UINT32_MAX - row.next_slot)
        return batch->n_records <= UINT32_MAX - row.n_records
                   ? NEEDS_SLOTS
                   : vdb_fail(err, VECDB_FULL, "collection \"%s\" has %llu records, and with %zu more at once it would "
                              "have more than 4,294,967,295; put them into another collection", row.name,
                              (unsigned long long)row.n_records, batch->n_records);
    uint32_t first_slot = (uint32_t)row.next_slot;
    uint64_t n_records = row.n_records;
    status = batch->is_bulk ? write_bulk(batch, c, first_slot, &n_records, err)
                            : write_small(batch, c, first_slot, &n_records, err);
    if (!status)
        status = vdb_collection_set_counts(c, row.id, row.next_slot + batch->n_records, n_records,
                                           row.has_documents || batch->has_documents, err);
    return status ? status : finish_batch(batch, transaction, first_slot, batch->n_records, batch->is_bulk, err);
}

/* ------------------------------------------------------------------ put and insert */

static int check_write(vecdb_collection *collection, const void *items, size_t n, const char *what, vecdb_error *err)
{
    if (!collection)
        return vdb_fail(err, VECDB_MISUSE, "the collection handle is NULL");
    int status = vdb_database_check_writable(collection->db, err);
    if (status)
        return status;
    if (n && !items)
        return vdb_fail(err, VECDB_INVALID, "%zu %s are announced, but the pointer to them is NULL", n, what);
    if (n > UINT32_MAX / 2)
        return vdb_fail(err, VECDB_INVALID, "%zu %s are too many for one call; up to 2,147,483,647 are allowed", n,
                        what);
    return VECDB_OK;
}

static int write_records(vecdb_collection *collection, const vecdb_record *records, size_t n_records, bool is_insert,
                         vecdb_error *err)
{
    int status = check_write(collection, records, n_records, "records", err);
    if (status || !n_records)
        return status;
    vecdb *db = collection->db;
    for (int attempt = 0;; attempt++) {
        struct vdb_batch batch = {
            .collection = collection, .records = records, .n_records = n_records, .is_insert = is_insert};
        batch.wants_current = attempt > 0;
        status = vdb_batch_prepare(&batch, err);
        if (!status) {
            batch.is_bulk = batch.n_vector_bytes >= BULK_BYTES && !vdb_append_begin(db, VDB_APPEND_WRITE_MS, NULL);
            status = vdb_commit(db, apply_batch, &batch, err);
            if (batch.is_bulk)
                vdb_append_end(db);
        }
        vdb_batch_release(&batch);
        if (status == NEEDS_SLOTS && (status = vdb_renumber_wait(collection, n_records, err)) == VECDB_OK)
            status = NEEDS_SLOTS;
        if (status != STALE && status != NEEDS_SLOTS)
            break;
        if (attempt == 100)
            return vdb_fail(err, VECDB_BUSY,
                            "the fields or the slots of the collection are being changed all the time");
    }
    if (!status)
        vdb_maintain_inline(db);
    return status;
}

int vecdb_put(vecdb_collection *collection, const vecdb_record *records, size_t n_records, vecdb_error *err)
{
    return write_records(collection, records, n_records, false, err);
}

int vecdb_insert(vecdb_collection *collection, const vecdb_record *records, size_t n_records, vecdb_error *err)
{
    return write_records(collection, records, n_records, true, err);
}

/* ------------------------------------------------------------------ from columns */

/* What rows of a column are, all of it decided once: the field may be dropped and made again, with longer vectors,
 * before they are read. */
struct column_shape {
    size_t stride; /* bytes from row to row */
    uint32_t dimension;
    int type;
};

static int fill_records(const vecdb_batch *batch, vecdb_record *records, vecdb_vector *vectors,
                        const struct column_shape *shapes, vecdb_error *err)
{
    for (size_t i = 0; i < batch->n_rows; i++) {
        vecdb_vector *own = vectors + i * batch->n_vectors;
        records[i] = (vecdb_record){.vectors = own, .n_vectors = batch->n_vectors};
        records[i].key = batch->keys ? batch->keys[i] : vecdb_key_int(batch->integer_keys[i]);
        records[i].metadata = batch->metadata ? batch->metadata[i] : NULL;
        records[i].text = batch->texts ? batch->texts[i] : NULL;
        for (size_t v = 0; v < batch->n_vectors; v++) {
            const vecdb_vector_column *column = &batch->vectors[v];
            size_t offset;
            if (__builtin_mul_overflow(i, shapes[v].stride, &offset))
                return vdb_fail(err, VECDB_INVALID, "vector column %zu: the stride is absurd", v);
            own[v] = (vecdb_vector){.field = column->field,
                                    .values = (const char *)column->values + offset,
                                    .dimension = shapes[v].dimension,
                                    .type = shapes[v].type};
        }
    }
    return VECDB_OK;
}

/* What a column does not say is as its field has it. */
static int find_shapes(vecdb_collection *collection, const vecdb_batch *batch, struct column_shape *shapes,
                       vecdb_error *err)
{
    struct vdb_view *view;
    uint64_t sequence;
    int status = vdb_view_acquire(collection, &view, NULL, &sequence, err);
    if (status)
        return status;
    for (size_t v = 0; v < batch->n_vectors && !status; v++) {
        const vecdb_vector_column *column = &batch->vectors[v];
        const struct vdb_view_field *field;
        if ((status = vdb_view_field(view, column->field, &field, err)))
            break;
        if (column->dimension && column->dimension != field->row.dimension)
            status = vdb_fail(err, VECDB_INVALID, "collection \"%s\": vectors have %u values, field \"%s\" takes %u",
                              view->row.name, column->dimension, field->row.name, field->row.dimension);
        else if (!column->values)
            status = vdb_fail(err, VECDB_INVALID, "vector column %zu has no values", v);
        shapes[v].type = column->type ? column->type : field->row.type;
        shapes[v].dimension = field->row.dimension;
        shapes[v].stride = column->stride ? column->stride : vdb_vector_bytes(shapes[v].type, field->row.dimension);
    }
    vdb_view_release(view);
    return status;
}

int vecdb_write(vecdb_collection *collection, const vecdb_batch *given, vecdb_error *err)
{
    vecdb_batch own;
    if (!given)
        return vdb_fail(err, VECDB_MISUSE, "the batch is NULL; vecdb_batch.size must be sizeof(vecdb_batch)");
    int status = VDB_STRUCT_COPY(&own, given, vecdb_batch, insert, err);
    if (status)
        return status;
    const vecdb_batch *batch = &own;
    if (batch->n_rows && !batch->keys && !batch->integer_keys)
        return vdb_fail(err, VECDB_INVALID, "a batch needs keys or integer_keys");
    status = check_write(collection, batch->n_vectors ? (const void *)batch->vectors : (const void *)batch,
                             batch->n_rows, "rows", err);
    if (status || !batch->n_rows)
        return status;
    struct vdb_memory *memory = &collection->db->memory;
    size_t n_vectors;
    bool fits = !__builtin_mul_overflow(batch->n_rows, batch->n_vectors + 1, &n_vectors);
    vecdb_record *records = vdb_alloc_array(memory, batch->n_rows, sizeof *records);
    vecdb_vector *vectors = fits ? vdb_alloc_array(memory, n_vectors, sizeof *vectors) : NULL;
    struct column_shape *shapes = vdb_alloc_array(memory, batch->n_vectors + 1, sizeof *shapes);
    if (!records || !vectors || !shapes)
        status = vdb_fail_memory(err, batch->n_rows * sizeof *records);
    if (!status)
        status = find_shapes(collection, batch, shapes, err);
    if (!status)
        status = fill_records(batch, records, vectors, shapes, err);
    if (!status)
        status = write_records(collection, records, batch->n_rows, batch->insert != 0, err);
    vdb_free(memory, shapes);
    vdb_free(memory, vectors);
    vdb_free(memory, records);
    return status;
}

/* ------------------------------------------------------------------ delete */

struct deletion {
    struct vdb_batch batch; /* view, keys, dead; no records */
    size_t n_keys;
    uint64_t n_deleted;
};

static int apply_deletion(void *context, struct vdb_transaction *transaction, vecdb_error *err)
{
    struct deletion *deletion = context;
    struct vdb_batch *batch = &deletion->batch;
    struct vdb_connection *c = transaction->connection;
    struct vdb_collection_row row;
    int status = read_collection(batch, c, &row, err);
    for (size_t i = 0; i < deletion->n_keys && !status; i++) {
        uint32_t slot;
        bool found;
        status = vdb_records_find(c, row.store, &batch->keys[i], &slot, &found, err);
        if (!status && found)
            status = kill_slot(batch, c, slot, UINT32_MAX, err);
    }
    deletion->n_deleted = batch->n_dead;
    if (!status)
        status = vdb_collection_set_counts(c, row.id, row.next_slot, row.n_records - batch->n_dead, row.has_documents,
                                           err);
    return status ? status : finish_batch(batch, transaction, 0, 0, false, err);
}

int vecdb_delete(vecdb_collection *collection, const vecdb_key *keys, size_t n_keys, uint64_t *n_deleted,
                 vecdb_error *err)
{
    int status = check_write(collection, keys, n_keys, "keys", err);
    if (status)
        return status;
    struct deletion deletion = {.n_keys = n_keys};
    for (int attempt = 0; n_keys; attempt++) {
        uint64_t sequence;
        struct vdb_batch *batch = &deletion.batch;
        *batch = (struct vdb_batch){.collection = collection};
        status = attempt ? vdb_view_acquire(collection, &batch->view, NULL, &sequence, err)
                         : vdb_view_recent(collection, &batch->view, err);
        if (status)
            return status;
        batch->keys = vdb_alloc_array(&collection->db->memory, n_keys, sizeof *batch->keys);
        if (!batch->keys)
            status = vdb_fail_memory(err, n_keys * sizeof *batch->keys);
        for (size_t i = 0; i < n_keys && !status; i++) {
            char where[64];
            snprintf(where, sizeof where, "key %zu", i);
            status = vdb_check_key(where, &keys[i], &batch->keys[i], err);
        }
        if (!status)
            status = vdb_commit(collection->db, apply_deletion, &deletion, err);
        vdb_batch_release(batch);
        if (status != STALE)
            break;
        if (attempt == 100)
            return vdb_fail(err, VECDB_BUSY, "the fields of the collection are being changed all the time");
    }
    if (!status && n_deleted)
        *n_deleted = deletion.n_deleted;
    if (!status)
        vdb_maintain_inline(collection->db);
    return status;
}
