/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/collections.c - making, finding, dropping, renaming collections and fields
 *
 * A handle stands for a collection's id. It is made once per database handle and lives as long as that,
 * so that an application can keep it anywhere; after a drop it answers NOT_FOUND.
 */
#include "database.h"

#include "storage/catalog_indexes.h"
#include "validate.h"

#define KEYS_SHARE 4 /* of the memory budget that one collection's keys may take: a quarter */

int vdb_collection_handle(vecdb *db, uint64_t id, vecdb_collection **out, vecdb_error *err)
{
    int status = VECDB_OK;
    pthread_mutex_lock(&db->lock);
    struct vecdb_collection *collection = db->collections;
    while (collection && collection->id != id)
        collection = collection->next;
    if (!collection) {
        collection = vdb_alloc_zero(&db->memory, sizeof *collection);
        if (collection) {
            collection->db = db;
            collection->id = id;
            pthread_mutex_init(&collection->refresh_lock, NULL);
            pthread_mutex_init(&collection->view_lock, NULL);
            vdb_indexes_init(&collection->indexes);
            vdb_keys_init(&collection->keys, &db->memory, db->options.memory_bytes / KEYS_SHARE);
            collection->next = db->collections;
            db->collections = collection;
        } else {
            status = vdb_fail_memory(err, sizeof *collection);
        }
    }
    pthread_mutex_unlock(&db->lock);
    if (!status && out)
        *out = collection;
    return status;
}

/* ------------------------------------------------------------------ create and open */

struct creation {
    const char *name;
    struct vdb_field_row *fields;
    size_t n_fields;
    int mode;
    uint64_t id;
};

struct comparison {
    const struct creation *creation;
    size_t n;
    vecdb_error *err;
};

static int compare_field(void *context, const struct vdb_field_row *row)
{
    struct comparison *comparison = context;
    const struct creation *creation = comparison->creation;
    if (comparison->n >= creation->n_fields)
        return vdb_fail(comparison->err, VECDB_INVALID, "collection \"%s\" exists and has a further field \"%s\"",
                        creation->name, row->name);
    const struct vdb_field_row *wanted = &creation->fields[comparison->n++];
    if (strcmp(wanted->name, row->name))
        return vdb_fail(comparison->err, VECDB_INVALID,
                        "collection \"%s\" exists with field \"%s\" where \"%s\" is asked for", creation->name,
                        row->name, wanted->name);
    if (wanted->dimension != row->dimension)
        return vdb_fail(comparison->err, VECDB_INVALID,
                        "collection \"%s\" exists; its field \"%s\" has dimension %u, not %u", creation->name,
                        row->name, row->dimension, wanted->dimension);
    if (wanted->type != row->type || wanted->metric != row->metric)
        return vdb_fail(comparison->err, VECDB_INVALID,
                        "collection \"%s\" exists; its field \"%s\" has another element type or metric",
                        creation->name, row->name);
    return VECDB_OK;
}

static int compare_fields(struct vdb_connection *c, uint64_t id, const struct creation *creation, vecdb_error *err)
{
    struct comparison comparison = {creation, 0, err};
    int status = vdb_field_each(c, id, compare_field, &comparison, err);
    if (!status && comparison.n < creation->n_fields)
        status = vdb_fail(err, VECDB_INVALID, "collection \"%s\" exists and has no field \"%s\"", creation->name,
                          creation->fields[comparison.n].name);
    return status;
}

static int log_schema(struct vdb_transaction *transaction, uint64_t collection, vecdb_error *err)
{
    struct vdb_change change = {.collection = collection, .kind = VDB_CHANGE_SCHEMA};
    return vdb_transaction_log(transaction, &change, err);
}

static int apply_creation(void *context, struct vdb_transaction *transaction, vecdb_error *err)
{
    struct creation *creation = context;
    struct vdb_connection *c = transaction->connection;
    struct vdb_collection_row row;
    bool found;
    int status = vdb_collection_find(c, creation->name, &row, &found, err);
    if (status)
        return status;
    if (found && creation->mode == VECDB_MUST_BE_NEW)
        return vdb_fail(err, VECDB_EXISTS, "there is a collection \"%s\" already", creation->name);
    if (found) {
        creation->id = row.id;
        return compare_fields(c, row.id, creation, err);
    }
    status = vdb_collection_add(c, creation->name, &creation->id, err);
    for (size_t i = 0; i < creation->n_fields && !status; i++)
        status = vdb_field_insert(c, creation->id, &creation->fields[i], &creation->fields[i].id, err);
    return status ? status : log_schema(transaction, creation->id, err);
}

/* Look without writing: most of the time the collection is there. */
static int find_collection(vecdb *db, const char *name, const struct creation *expected, uint64_t *id, bool *found,
                           vecdb_error *err)
{
    struct vdb_connection *c;
    struct vdb_collection_row row;
    uint64_t sequence;
    int status = vdb_read_begin(db->catalog, &c, &sequence, err);
    if (status)
        return status;
    status = vdb_collection_find(c, name, &row, found, err);
    if (!status && *found) {
        *id = row.id;
        if (expected)
            status = compare_fields(c, row.id, expected, err);
    }
    vdb_read_end(c);
    return status;
}

static int check_fields(vecdb *db, const vecdb_field *fields, size_t n_fields, struct vdb_field_row **out,
                        vecdb_error *err)
{
    struct vdb_field_row *rows = vdb_alloc_array(&db->memory, n_fields + !n_fields, sizeof *rows);
    if (!rows)
        return vdb_fail_memory(err, n_fields * sizeof *rows);
    int status = VECDB_OK;
    for (size_t i = 0; i < n_fields && !status; i++) {
        status = vdb_check_field(&fields[i], &rows[i], err);
        for (size_t j = 0; j < i && !status; j++)
            if (!strcmp(rows[i].name, rows[j].name))
                status = vdb_fail(err, VECDB_INVALID, "two fields are called \"%s\"", rows[i].name);
    }
    if (status)
        vdb_free(&db->memory, rows);
    else
        *out = rows;
    return status;
}

int vecdb_collection_create(vecdb *db, const char *name, const vecdb_field *fields, size_t n_fields, int mode,
                            vecdb_collection **collection, vecdb_error *err)
{
    int status = vdb_database_check(db, err);
    if (status || (status = vdb_check_name("collection", name, err)))
        return status;
    if ((n_fields && !fields) || mode < VECDB_MUST_BE_NEW || mode > VECDB_IF_MISSING)
        return vdb_fail(err, VECDB_INVALID, "collection \"%s\": fields are NULL, or the mode does not exist", name);
    struct creation creation = {.name = name, .n_fields = n_fields, .mode = mode};
    if ((status = check_fields(db, fields, n_fields, &creation.fields, err)))
        return status;
    bool found = false;
    if (mode == VECDB_IF_MISSING)
        status = find_collection(db, name, &creation, &creation.id, &found, err);
    if (!status && !found && !(status = vdb_database_check_writable(db, err)))
        status = vdb_commit(db, apply_creation, &creation, err);
    vdb_free(&db->memory, creation.fields);
    return status ? status : vdb_collection_handle(db, creation.id, collection, err);
}

int vecdb_collection_open(vecdb *db, const char *name, vecdb_collection **collection, vecdb_error *err)
{
    int status = vdb_database_check(db, err);
    if (status || (status = vdb_check_name("collection", name, err)))
        return status;
    uint64_t id;
    bool found;
    if ((status = find_collection(db, name, NULL, &id, &found, err)))
        return status;
    if (!found)
        return vdb_fail(err, VECDB_NOT_FOUND, "%s has no collection \"%s\"", db->path, name);
    return vdb_collection_handle(db, id, collection, err);
}

/* ------------------------------------------------------------------ drop and rename */

struct renaming {
    vecdb *db;
    uint64_t collection; /* fields: of this collection; drop: the one that was found */
    const char *name, *new_name;
    struct vdb_field_row field;
    bool found;
    int index; /* the kind that is wanted */
};

struct field_ids {
    struct vdb_memory *memory;
    uint64_t *ids;
    size_t n;
};

static int collect_id(void *context, const struct vdb_field_row *row)
{
    struct field_ids *ids = context;
    uint64_t *more = vdb_realloc_array(ids->memory, ids->ids, ids->n + 1, sizeof *more);
    if (!more)
        return VECDB_NOMEM;
    ids->ids = more;
    ids->ids[ids->n++] = row->id;
    return VECDB_OK;
}

static int apply_drop(void *context, struct vdb_transaction *transaction, vecdb_error *err)
{
    struct renaming *drop = context;
    struct vdb_connection *c = transaction->connection;
    struct vdb_collection_row row;
    bool found;
    int status = vdb_collection_find(c, drop->name, &row, &found, err);
    if (status)
        return status;
    if (!found)
        return vdb_fail(err, VECDB_NOT_FOUND, "%s has no collection \"%s\"", drop->db->path, drop->name);
    drop->collection = row.id;
    struct field_ids ids = {.memory = &drop->db->memory};
    status = vdb_field_each(c, row.id, collect_id, &ids, err);
    if (status == VECDB_NOMEM)
        vdb_fail_memory(err, sizeof(uint64_t));
    for (size_t i = 0; i < ids.n && !status; i++)
        if (!(status = vdb_field_remove(c, ids.ids[i], err)))
            status = vdb_index_row_remove(c, ids.ids[i], err);
    vdb_free(ids.memory, ids.ids);
    if (!status)
        status = vdb_collection_remove(c, row.id, err);
    return status ? status : log_schema(transaction, row.id, err);
}

/* Remove the files of what was dropped; if another process is the maintainer, it is done when this one
 * or another next becomes it. */
static void sweep_files(vecdb *db)
{
    vecdb_error ignored;
    if (vdb_append_begin(db, VDB_APPEND_WRITE_MS, NULL)) {
        atomic_store(&db->has_swept, false);
        return;
    }
    vdb_append_sweep(db, &ignored);
    vdb_append_end(db);
}

/* A look at the dropped collection, or at the one without the field, gives back what its last view held:
 * files that are open keep their space. */
static void let_go(vecdb *db, uint64_t id)
{
    vecdb_collection *collection;
    struct vdb_view *view;
    uint64_t sequence;
    if (!vdb_collection_handle(db, id, &collection, NULL) &&
        !vdb_view_acquire(collection, &view, NULL, &sequence, NULL))
        vdb_view_release(view);
}

int vecdb_collection_drop(vecdb *db, const char *name, vecdb_error *err)
{
    int status = vdb_database_check_writable(db, err);
    if (status || (status = vdb_check_name("collection", name, err)))
        return status;
    struct renaming drop = {.db = db, .name = name};
    status = vdb_commit(db, apply_drop, &drop, err);
    if (!status) {
        let_go(db, drop.collection);
        sweep_files(db);
    }
    return status;
}

static int apply_rename(void *context, struct vdb_transaction *transaction, vecdb_error *err)
{
    struct renaming *rename = context;
    struct vdb_connection *c = transaction->connection;
    struct vdb_collection_row row, other;
    bool found, taken;
    int status = vdb_collection_find(c, rename->name, &row, &found, err);
    if (status)
        return status;
    if (!found)
        return vdb_fail(err, VECDB_NOT_FOUND, "%s has no collection \"%s\"", rename->db->path, rename->name);
    if (!strcmp(rename->name, rename->new_name))
        return VECDB_OK;
    if ((status = vdb_collection_find(c, rename->new_name, &other, &taken, err)))
        return status;
    if (taken)
        return vdb_fail(err, VECDB_EXISTS, "there is a collection \"%s\" already", rename->new_name);
    if ((status = vdb_collection_set_name(c, row.id, rename->new_name, err)))
        return status;
    return log_schema(transaction, row.id, err);
}

int vecdb_collection_rename(vecdb *db, const char *name, const char *new_name, vecdb_error *err)
{
    int status = vdb_database_check_writable(db, err);
    if (status || (status = vdb_check_name("collection", name, err)) ||
        (status = vdb_check_name("collection", new_name, err)))
        return status;
    struct renaming rename = {.db = db, .name = name, .new_name = new_name};
    return vdb_commit(db, apply_rename, &rename, err);
}

/* ------------------------------------------------------------------ fields */

static int match_field(void *context, const struct vdb_field_row *row)
{
    struct renaming *renaming = context;
    if (!strcmp(row->name, renaming->name)) {
        renaming->field = *row;
        renaming->found = true;
    }
    return VECDB_OK;
}

/* Find the collection and, in it, the field `name`. */
static int find_field(struct renaming *renaming, struct vdb_connection *c, struct vdb_collection_row *row,
                      vecdb_error *err)
{
    bool found;
    int status = vdb_collection_read(c, renaming->collection, row, &found, err);
    if (!status && !found)
        status = vdb_fail(err, VECDB_NOT_FOUND, "the collection was dropped");
    renaming->found = false;
    return status ? status : vdb_field_each(c, renaming->collection, match_field, renaming, err);
}

static int finish_field(struct vdb_transaction *transaction, uint64_t collection, vecdb_error *err)
{
    int status = vdb_collection_raise_schema(transaction->connection, collection, err);
    return status ? status : log_schema(transaction, collection, err);
}

static int apply_field_add(void *context, struct vdb_transaction *transaction, vecdb_error *err)
{
    struct renaming *add = context;
    struct vdb_field_row new_field = add->field;
    struct vdb_collection_row row;
    uint64_t id;
    int status = find_field(add, transaction->connection, &row, err);
    if (status)
        return status;
    if (add->found)
        return vdb_fail(err, VECDB_EXISTS, "collection \"%s\" has a field \"%s\" already", row.name, add->name);
    add->field = new_field;
    if ((status = vdb_field_insert(transaction->connection, add->collection, &new_field, &id, err)))
        return status;
    return finish_field(transaction, add->collection, err);
}

static int apply_field_drop(void *context, struct vdb_transaction *transaction, vecdb_error *err)
{
    struct renaming *drop = context;
    struct vdb_collection_row row;
    int status = find_field(drop, transaction->connection, &row, err);
    if (status)
        return status;
    if (!drop->found)
        return vdb_fail(err, VECDB_NOT_FOUND, "collection \"%s\" has no field \"%s\"", row.name, drop->name);
    if ((status = vdb_field_remove(transaction->connection, drop->field.id, err)) ||
        (status = vdb_index_row_remove(transaction->connection, drop->field.id, err)))
        return status;
    return finish_field(transaction, drop->collection, err);
}

static int apply_field_rename(void *context, struct vdb_transaction *transaction, vecdb_error *err)
{
    struct renaming *rename = context;
    struct renaming other = {.collection = rename->collection, .name = rename->new_name};
    struct vdb_collection_row row;
    int status = find_field(rename, transaction->connection, &row, err);
    if (!status)
        status = find_field(&other, transaction->connection, &row, err);
    if (status)
        return status;
    if (!rename->found)
        return vdb_fail(err, VECDB_NOT_FOUND, "collection \"%s\" has no field \"%s\"", row.name, rename->name);
    if (!strcmp(rename->name, rename->new_name))
        return VECDB_OK;
    if (other.found)
        return vdb_fail(err, VECDB_EXISTS, "collection \"%s\" has a field \"%s\" already", row.name, rename->new_name);
    if ((status = vdb_field_set_name(transaction->connection, rename->field.id, rename->new_name, err)))
        return status;
    return finish_field(transaction, rename->collection, err);
}

static int check_collection(vecdb_collection *collection, vecdb_error *err)
{
    if (!collection)
        return vdb_fail(err, VECDB_MISUSE, "the collection handle is NULL");
    return vdb_database_check_writable(collection->db, err);
}

int vecdb_field_add(vecdb_collection *collection, const vecdb_field *field, vecdb_error *err)
{
    int status = check_collection(collection, err);
    if (status)
        return status;
    if (!field)
        return vdb_fail(err, VECDB_INVALID, "the field is NULL");
    struct renaming add = {.db = collection->db, .collection = collection->id, .name = field->name};
    if ((status = vdb_check_field(field, &add.field, err)))
        return status;
    return vdb_commit(collection->db, apply_field_add, &add, err);
}

int vecdb_field_drop(vecdb_collection *collection, const char *name, vecdb_error *err)
{
    int status = check_collection(collection, err);
    if (status || (status = vdb_check_name("field", name, err)))
        return status;
    struct renaming drop = {.db = collection->db, .collection = collection->id, .name = name};
    status = vdb_commit(collection->db, apply_field_drop, &drop, err);
    if (!status) {
        let_go(collection->db, collection->id);
        sweep_files(collection->db);
    }
    return status;
}

int vecdb_field_rename(vecdb_collection *collection, const char *name, const char *new_name, vecdb_error *err)
{
    int status = check_collection(collection, err);
    if (status || (status = vdb_check_name("field", name, err)) || (status = vdb_check_name("field", new_name, err)))
        return status;
    struct renaming rename = {.db = collection->db, .collection = collection->id, .name = name, .new_name = new_name};
    return vdb_commit(collection->db, apply_field_rename, &rename, err);
}

static int apply_set_index(void *context, struct vdb_transaction *transaction, vecdb_error *err)
{
    struct renaming *change = context;
    struct vdb_collection_row row;
    int status = find_field(change, transaction->connection, &row, err);
    if (status)
        return status;
    if (!change->found)
        return vdb_fail(err, VECDB_NOT_FOUND, "collection \"%s\" has no field \"%s\"", row.name, change->name);
    if (change->field.index == change->index)
        return VECDB_OK;
    status = vdb_field_set_index(transaction->connection, change->field.id, change->index, err);
    if (!status && change->index == VECDB_INDEX_FLAT)
        status = vdb_index_row_remove(transaction->connection, change->field.id, err);
    if (status)
        return status;
    return finish_field(transaction, change->collection, err);
}

int vecdb_field_set_index(vecdb_collection *collection, const char *name, int index, vecdb_error *err)
{
    int status = check_collection(collection, err);
    if (status || (status = vdb_check_name("field", name, err)))
        return status;
    if (index < VECDB_INDEX_AUTO || index > VECDB_INDEX_HNSW)
        return vdb_fail(err, VECDB_INVALID, "field \"%s\": there is no index kind %d", name, index);
    struct renaming change = {.db = collection->db, .collection = collection->id, .name = name, .index = index};
    return vdb_commit(collection->db, apply_set_index, &change, err);
}
