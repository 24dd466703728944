/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/write.c - put, insert, delete
 *
 * A write has two halves. Outside of all locks, every record is checked and its vectors are brought
 * into the fields' types (struct batch). (Metadata of many records is parsed in the second half, by the
 * thread that would wait for the other.) Inside the transaction, slots are given out, keys looked up,
 * rows written. Vectors go to the tail; or, when there are many of them and this process can be the
 * maintainer, at once into an extent that is synced before the commit, which spares writing them
 * three times (WAL, catalog, page) and is done by another thread, beside the rows of the catalog.
 *
 * Slots of one write are consecutive, in the order of its records. Of two records with one key in a
 * put, the later kills the earlier, as two puts would.
 *
 * When the collection's fields were changed between the two halves (by another process, say), the
 * first half is done again.
 */
#include "database.h"

#include <stdio.h>

#include "base/numbers.h"
#include "validate.h"

/* From this many bytes of vectors on, a write goes into an extent of its own: about two pages. */
#define BULK_BYTES ((size_t)128 << 10)

/* Fewer records are checked by one thread: waking another costs as much as checking so many. */
#define SIDE_BY_SIDE_RECORDS 256

/* Not a vecdb_status: the fields have changed since the batch was made. */
#define STALE (-1)

/* The records' vectors in one field, those without one left out. */
struct column {
    const struct vdb_view_field *field;
    unsigned char *rows;
    uint32_t *record; /* of each row: its place in the batch, ascending; later its slot */
    size_t n_rows;
};

struct batch {
    vecdb_collection *collection;
    const vecdb_record *records;
    size_t n_records;
    bool is_insert;
    struct vdb_view *view; /* whose fields it was made for */
    vecdb_key *keys;       /* with lengths */
    size_t *metadata_lengths, *text_lengths;
    struct column *columns; /* one for each field */
    bool has_documents, is_bulk;
    bool checks_late; /* metadata is parsed in the second half, beside the writing of extents */
    size_t n_vector_bytes;

    struct vdb_append *appends; /* bulk: one for each field */
    uint32_t *dead;             /* slots killed */
    size_t n_dead, dead_capacity;
    uint32_t *slots;            /* scratch, one for each record */
    unsigned char *is_killed;   /* by a later record of the same batch */
};

/* ------------------------------------------------------------------ the first half */

static void batch_release(struct batch *batch)
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

static int add_vector(struct batch *batch, const char *where, size_t record, struct column *column,
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

static int add_vectors(struct batch *batch, const char *where, size_t i, vecdb_error *err)
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
static int check_metadata(struct batch *batch, struct vdb_connection *c, const char *where, size_t i, vecdb_error *err)
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

/* Keys, metadata and texts, or vectors, of all records: two parts that are done side by side. */
struct checking {
    struct batch *batch;
    struct vdb_connection *c; /* NULL: no record has metadata */
    int status[2];
    size_t failed_at[2];
    vecdb_error error[2];
};

/* Where in the call an error is; the number is written anew for each record, by hand, because most
 * records are in order. */
struct place {
    char text[VECDB_MAX_NAME + 64];
    size_t prefix;
};

static void place_init(struct place *place, const struct batch *batch)
{
    int n = snprintf(place->text, sizeof place->text, "collection \"%s\": record ", batch->view->row.name);
    place->prefix = (size_t)n;
}

static const char *place_at(struct place *place, size_t i)
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

static int check_document(struct batch *batch, struct vdb_connection *c, const char *where, size_t i, vecdb_error *err)
{
    const vecdb_record *record = &batch->records[i];
    int status = vdb_check_key(where, &record->key, &batch->keys[i], err);
    if (!status && record->metadata && !batch->checks_late)
        status = check_metadata(batch, c, where, i, err);
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
    struct batch *batch = checking->batch;
    vecdb_error *err = &checking->error[part];
    struct place place;
    place_init(&place, batch);
    int status = VECDB_OK;
    size_t i = 0;
    for (; i < batch->n_records && !status; i++)
        status = part ? check_document(batch, checking->c, place_at(&place, i), i, err)
                      : add_vectors(batch, place_at(&place, i), i, err);
    checking->status[part] = status;
    checking->failed_at[part] = i;
}

static int check_records(struct batch *batch, struct vdb_connection *c, vecdb_error *err)
{
    struct checking checking = {.batch = batch, .c = c};
    vdb_pool_run(batch->collection->db->pool, batch->n_records < SIDE_BY_SIDE_RECORDS ? 1 : 2, 2, check_part,
                 &checking);
    /* What is wrong with the first bad record, whichever part found it. */
    int part = checking.status[1] && (!checking.status[0] || checking.failed_at[1] <= checking.failed_at[0]);
    if (checking.status[part] && err)
        *err = checking.error[part];
    return checking.status[part];
}

static bool allocate_batch(struct batch *batch)
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
        batch->columns[i] = (struct column){.field = i < n_fields ? &batch->view->fields[i] : NULL};
    return true;
}

/* The first half. On failure too the batch must be released. */
static int prepare(struct batch *batch, vecdb_error *err)
{
    uint64_t sequence;
    struct vdb_connection *c = NULL;
    bool has_metadata = false;
    for (size_t i = 0; i < batch->n_records; i++)
        has_metadata |= batch->records[i].metadata != NULL;
    batch->checks_late = has_metadata && batch->n_records >= SIDE_BY_SIDE_RECORDS;
    bool needs_connection = has_metadata && !batch->checks_late;
    int status = vdb_view_acquire(batch->collection, &batch->view, needs_connection ? &c : NULL, &sequence, err);
    if (status)
        return status;
    if (!allocate_batch(batch)) {
        vdb_free(&batch->collection->db->memory, batch->columns);
        batch->columns = NULL;
        status = vdb_fail_memory(err, batch->n_records * sizeof *batch->keys);
    }
    if (!status)
        status = check_records(batch, c, err);
    if (c)
        vdb_read_end(c);
    return status;
}

/* ------------------------------------------------------------------ the second half */

static int kill_slot(struct batch *batch, struct vdb_connection *c, uint32_t slot, uint32_t first_slot,
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
    int status = vdb_records_remove(c, batch->collection->id, slot, err);
    if (slot >= first_slot) { /* a row of this very write is not in the tail yet */
        batch->is_killed[slot - first_slot] = 1;
        return status;
    }
    for (size_t f = 0; f < batch->view->n_fields && !status; f++)
        status = vdb_tail_remove(c, batch->view->fields[f].row.id, slot, slot, err);
    return status;
}

static int fail_existing(const struct batch *batch, size_t i, vecdb_error *err)
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

static int write_record(struct batch *batch, struct vdb_connection *c, size_t i, uint32_t first_slot,
                        uint64_t *n_records, vecdb_error *err)
{
    struct vdb_record_row row = {.slot = first_slot + (uint32_t)i,
                                 .key = batch->keys[i],
                                 .metadata = batch->records[i].metadata,
                                 .text = batch->records[i].text,
                                 .metadata_length = batch->metadata_lengths[i],
                                 .text_length = batch->text_lengths[i]};
    uint64_t id = batch->collection->id;
    bool added, found;
    int status = vdb_records_add(c, id, &row, &added, err);
    if (status || added) {
        *n_records += !status && added;
        return status;
    }
    if (batch->is_insert)
        return fail_existing(batch, i, err);
    uint32_t old;
    if ((status = vdb_records_find(c, id, &row.key, &old, &found, err)))
        return status;
    if (found && (status = kill_slot(batch, c, old, first_slot, err)))
        return status;
    status = vdb_records_add(c, id, &row, &added, err);
    if (!status && !added)
        status = vdb_fail(err, VECDB_CORRUPT, "catalog.sqlite: slot %u of collection \"%s\" is taken twice", row.slot,
                          batch->view->row.name);
    return status;
}

static int write_tail(struct vdb_connection *c, const struct column *column, uint32_t first_slot,
                      const struct batch *batch, vecdb_error *err)
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
    struct batch *batch;
    struct vdb_connection *c;
    uint32_t first_slot;
    uint64_t *n_records;
    int status[2];
    vecdb_error error[2];
};

static int write_records_part(struct parts *parts, vecdb_error *err)
{
    struct batch *batch = parts->batch;
    struct place place;
    place_init(&place, batch);
    int status = VECDB_OK;
    for (size_t i = 0; i < batch->n_records && !status; i++) {
        if (batch->checks_late && batch->records[i].metadata)
            status = check_metadata(batch, parts->c, place_at(&place, i), i, err);
        if (!status)
            status = write_record(batch, parts->c, i, parts->first_slot, parts->n_records, err);
    }
    return status;
}

static int write_extents_part(struct parts *parts, vecdb_error *err)
{
    struct batch *batch = parts->batch;
    int status = VECDB_OK;
    for (size_t f = 0; f < batch->view->n_fields && !status; f++) {
        const struct column *column = &batch->columns[f];
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

static int write_bulk(struct batch *batch, struct vdb_connection *c, uint32_t first_slot, uint64_t *n_records,
                      vecdb_error *err)
{
    vecdb *db = batch->collection->db;
    struct parts parts = {.batch = batch, .c = c, .first_slot = first_slot, .n_records = n_records};
    size_t n_fields = batch->view->n_fields;
    int status = VECDB_OK;
    for (size_t f = 0; f < n_fields && !status; f++)
        if (batch->columns[f].n_rows)
            status = vdb_append_open(db, c, &batch->columns[f].field->row, first_slot + batch->columns[f].record[0],
                                     true, 0, &batch->appends[f], err);
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

static int write_small(struct batch *batch, struct vdb_connection *c, uint32_t first_slot, uint64_t *n_records,
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
static int finish_batch(struct batch *batch, struct vdb_transaction *transaction, uint32_t first_slot, size_t n_slots,
                        bool wrote_extents, vecdb_error *err)
{
    uint64_t id = batch->collection->id;
    if (batch->n_dead) {
        qsort(batch->dead, batch->n_dead, sizeof *batch->dead, compare_slots);
        int status = vdb_dead_add(transaction->connection, id, batch->dead, batch->n_dead, err);
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
static int read_collection(struct batch *batch, struct vdb_connection *c, struct vdb_collection_row *row,
                           vecdb_error *err)
{
    bool found;
    batch->n_dead = 0;
    int status = vdb_collection_read(c, batch->collection->id, row, &found, err);
    if (status)
        return status;
    if (!found)
        return vdb_fail(err, VECDB_NOT_FOUND, "collection \"%s\" was dropped", batch->view->row.name);
    return row->schema_version == batch->view->row.schema_version ? VECDB_OK : STALE;
}

static int apply_batch(void *context, struct vdb_transaction *transaction, vecdb_error *err)
{
    struct batch *batch = context;
    struct vdb_connection *c = transaction->connection;
    struct vdb_collection_row row;
    int status = read_collection(batch, c, &row, err);
    if (status)
        return status;
    memset(batch->is_killed, 0, batch->n_records);
    if (batch->n_records > UINT32_MAX - row.next_slot)
        return vdb_fail(err, VECDB_FULL, "collection \"%s\" has used up its 4,294,967,295 slots; export it and import "
                        "it into a new one", row.name);
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
        struct batch batch = {
            .collection = collection, .records = records, .n_records = n_records, .is_insert = is_insert};
        status = prepare(&batch, err);
        if (!status) {
            batch.is_bulk = batch.n_vector_bytes >= BULK_BYTES && vdb_append_begin(db, VDB_APPEND_WRITE_MS);
            status = vdb_commit(db, apply_batch, &batch, err);
            if (batch.is_bulk)
                vdb_append_end(db);
        }
        batch_release(&batch);
        if (status != STALE)
            break;
        if (attempt == 100)
            return vdb_fail(err, VECDB_BUSY, "the fields of the collection are being changed all the time");
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

static int fill_records(const vecdb_batch *batch, vecdb_record *records, vecdb_vector *vectors, size_t *strides,
                        vecdb_error *err)
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
            if (__builtin_mul_overflow(i, strides[v], &offset))
                return vdb_fail(err, VECDB_INVALID, "vector column %zu: the stride is absurd", v);
            own[v] = (vecdb_vector){.field = column->field,
                                    .values = (const char *)column->values + offset,
                                    .dimension = column->dimension,
                                    .type = column->type};
        }
    }
    return VECDB_OK;
}

/* The distance from row to row of a column without a stride needs the field's type and dimension. */
static int find_strides(vecdb_collection *collection, const vecdb_batch *batch, size_t *strides, vecdb_error *err)
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
        strides[v] = column->stride ? column->stride
                                    : vdb_vector_bytes(column->type ? column->type : field->row.type,
                                                       field->row.dimension);
    }
    vdb_view_release(view);
    return status;
}

int vecdb_write(vecdb_collection *collection, const vecdb_batch *batch, vecdb_error *err)
{
    if (!batch || batch->size < sizeof *batch)
        return vdb_fail(err, VECDB_MISUSE, "vecdb_batch.size must be sizeof(vecdb_batch)");
    if (batch->n_rows && !batch->keys && !batch->integer_keys)
        return vdb_fail(err, VECDB_INVALID, "a batch needs keys or integer_keys");
    int status = check_write(collection, batch->n_vectors ? (const void *)batch->vectors : (const void *)batch,
                             batch->n_rows, "rows", err);
    if (status || !batch->n_rows)
        return status;
    struct vdb_memory *memory = &collection->db->memory;
    size_t n_vectors;
    bool fits = !__builtin_mul_overflow(batch->n_rows, batch->n_vectors + 1, &n_vectors);
    vecdb_record *records = vdb_alloc_array(memory, batch->n_rows, sizeof *records);
    vecdb_vector *vectors = fits ? vdb_alloc_array(memory, n_vectors, sizeof *vectors) : NULL;
    size_t *strides = vdb_alloc_array(memory, batch->n_vectors + 1, sizeof *strides);
    if (!records || !vectors || !strides)
        status = vdb_fail_memory(err, batch->n_rows * sizeof *records);
    if (!status)
        status = find_strides(collection, batch, strides, err);
    if (!status)
        status = fill_records(batch, records, vectors, strides, err);
    if (!status)
        status = write_records(collection, records, batch->n_rows, batch->insert != 0, err);
    vdb_free(memory, strides);
    vdb_free(memory, vectors);
    vdb_free(memory, records);
    return status;
}

/* ------------------------------------------------------------------ delete */

struct deletion {
    struct batch batch; /* view, keys, dead; no records */
    size_t n_keys;
    uint64_t n_deleted;
};

static int apply_deletion(void *context, struct vdb_transaction *transaction, vecdb_error *err)
{
    struct deletion *deletion = context;
    struct batch *batch = &deletion->batch;
    struct vdb_connection *c = transaction->connection;
    struct vdb_collection_row row;
    int status = read_collection(batch, c, &row, err);
    for (size_t i = 0; i < deletion->n_keys && !status; i++) {
        uint32_t slot;
        bool found;
        status = vdb_records_find(c, row.id, &batch->keys[i], &slot, &found, err);
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
        struct batch *batch = &deletion.batch;
        *batch = (struct batch){.collection = collection};
        status = vdb_view_acquire(collection, &batch->view, NULL, &sequence, err);
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
        batch_release(batch);
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
