/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/catalog_schema.c - collections and fields in the catalog (see catalog.h)
 *
 * Ids are never used again (AUTOINCREMENT), so that a file or a table named after one cannot be
 * mistaken for a later one.
 */
#include "catalog.h"

#include "base/error.h"
#include "catalog_sql.h"

const char vdb_catalog_schema[] =
    "CREATE TABLE collections(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,"
    " next_slot INTEGER NOT NULL DEFAULT 0, n_records INTEGER NOT NULL DEFAULT 0,"
    " schema_version INTEGER NOT NULL DEFAULT 1, has_documents INTEGER NOT NULL DEFAULT 0,"
    " store INTEGER NOT NULL DEFAULT 0);"
    "CREATE TABLE stores(id INTEGER PRIMARY KEY AUTOINCREMENT, collection INTEGER NOT NULL);"
    "CREATE TABLE fields(id INTEGER PRIMARY KEY AUTOINCREMENT, collection INTEGER NOT NULL, name TEXT NOT NULL,"
    " dimension INTEGER NOT NULL, type INTEGER NOT NULL, metric INTEGER NOT NULL, index_kind INTEGER NOT NULL,"
    " compression INTEGER NOT NULL, generation INTEGER NOT NULL DEFAULT 0, UNIQUE(collection, name));"
    "CREATE TABLE extents(id INTEGER PRIMARY KEY AUTOINCREMENT, field INTEGER NOT NULL, generation INTEGER NOT NULL,"
    " offset INTEGER NOT NULL, length INTEGER NOT NULL, check_sum INTEGER NOT NULL, n_rows INTEGER NOT NULL,"
    " first_slot INTEGER NOT NULL, last_slot INTEGER NOT NULL, n_pages INTEGER NOT NULL);"
    "CREATE INDEX extents_by_field ON extents(field, first_slot);"
    "CREATE TABLE changes(id INTEGER PRIMARY KEY, collection INTEGER NOT NULL,"
    " kind INTEGER NOT NULL, first_slot INTEGER NOT NULL, n_slots INTEGER NOT NULL, dead BLOB);"
    "CREATE TABLE changes_trimmed(id INTEGER PRIMARY KEY CHECK (id = 1), sequence INTEGER NOT NULL);"
    "INSERT INTO changes_trimmed VALUES(1, 0);"
    "CREATE TABLE dead(store INTEGER NOT NULL, chunk INTEGER NOT NULL, slots BLOB NOT NULL,"
    " PRIMARY KEY(store, chunk)) WITHOUT ROWID;"
    "CREATE TABLE snapshots(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,"
    " sequence INTEGER NOT NULL, created INTEGER NOT NULL);";

bool vdb_transaction_is_open(const struct vdb_connection *c)
{
    return !sqlite3_get_autocommit(c->sqlite);
}

#define COLLECTION_COLUMNS "id, name, next_slot, n_records, schema_version, has_documents, store"

static int damaged(vecdb_error *err, const char *what)
{
    return vdb_fail(err, VECDB_CORRUPT, "catalog.sqlite: the table %s holds impossible values", what);
}

static bool copy_name(sqlite3_stmt *statement, int column, char name[VECDB_MAX_NAME + 1])
{
    const unsigned char *text = sqlite3_column_text(statement, column);
    int n = sqlite3_column_bytes(statement, column);
    if (!text || n < 1 || n > VECDB_MAX_NAME)
        return false;
    memcpy(name, text, (size_t)n);
    name[n] = '\0';
    return true;
}

static int read_collection(sqlite3_stmt *statement, struct vdb_collection_row *row, vecdb_error *err)
{
    row->id = (uint64_t)sqlite3_column_int64(statement, 0);
    row->next_slot = (uint64_t)sqlite3_column_int64(statement, 2);
    row->n_records = (uint64_t)sqlite3_column_int64(statement, 3);
    row->schema_version = (uint64_t)sqlite3_column_int64(statement, 4);
    row->has_documents = sqlite3_column_int(statement, 5) != 0;
    row->store = (uint64_t)sqlite3_column_int64(statement, 6);
    if (!copy_name(statement, 1, row->name) || row->next_slot > UINT32_MAX || row->n_records > row->next_slot)
        return damaged(err, "collections");
    return VECDB_OK;
}

/* Step a bound statement that gives at most one collection. */
static int read_one(struct vdb_connection *c, sqlite3_stmt *statement, struct vdb_collection_row *row, bool *found,
                    vecdb_error *err)
{
    int rc = sqlite3_step(statement), status = VECDB_OK;
    if (rc == SQLITE_ROW)
        status = read_collection(statement, row, err);
    else if (rc != SQLITE_DONE)
        status = vdb_fail_sqlite(err, c, "reading a collection");
    sqlite3_reset(statement);
    if (!status)
        *found = rc == SQLITE_ROW;
    return status;
}

int vdb_collection_find(struct vdb_connection *c, const char *name, struct vdb_collection_row *row, bool *found,
                        vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_COLLECTION_BY_NAME,
                             "SELECT " COLLECTION_COLUMNS " FROM collections WHERE name = ?1", 0, &statement, err);
    if (status)
        return status;
    sqlite3_bind_text(statement, 1, name, -1, SQLITE_STATIC);
    return read_one(c, statement, row, found, err);
}

int vdb_collection_read(struct vdb_connection *c, uint64_t id, struct vdb_collection_row *row, bool *found,
                        vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_COLLECTION_BY_ID,
                             "SELECT " COLLECTION_COLUMNS " FROM collections WHERE id = ?1", 0, &statement, err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)id);
    return read_one(c, statement, row, found, err);
}

int vdb_collection_each(struct vdb_connection *c, int (*each)(void *context, const struct vdb_collection_row *row),
                        void *context, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_COLLECTIONS, "SELECT " COLLECTION_COLUMNS " FROM collections ORDER BY name", 0,
                             &statement, err);
    if (status)
        return status;
    int rc;
    while (!status && (rc = sqlite3_step(statement)) != SQLITE_DONE) {
        struct vdb_collection_row row;
        if (rc != SQLITE_ROW)
            status = vdb_fail_sqlite(err, c, "reading the collections");
        else if (!(status = read_collection(statement, &row, err)))
            status = each(context, &row);
    }
    sqlite3_reset(statement);
    return status;
}

int vdb_collection_add(struct vdb_connection *c, const char *name, uint64_t *id, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_COLLECTION_ADD, "INSERT INTO collections(name) VALUES(?1)", 0, &statement, err);
    if (status)
        return status;
    sqlite3_bind_text(statement, 1, name, -1, SQLITE_STATIC);
    if ((status = vdb_run(c, statement, "adding a collection", err)))
        return status;
    uint64_t new_id = (uint64_t)sqlite3_last_insert_rowid(c->sqlite), store;
    if ((status = vdb_store_add(c, new_id, true, &store, err)) ||
        (status = vdb_collection_set_store(c, new_id, store, 0, 0, err)))
        return status;
    *id = new_id;
    return VECDB_OK;
}

int vdb_collection_set_store(struct vdb_connection *c, uint64_t id, uint64_t store, uint64_t next_slot,
                             uint64_t n_records, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_COLLECTION_STORE,
                             "UPDATE collections SET store = ?2, next_slot = ?3, n_records = ?4 WHERE id = ?1", 0,
                             &statement, err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)id);
    sqlite3_bind_int64(statement, 2, (sqlite3_int64)store);
    sqlite3_bind_int64(statement, 3, (sqlite3_int64)next_slot);
    sqlite3_bind_int64(statement, 4, (sqlite3_int64)n_records);
    return vdb_run(c, statement, "changing a collection's store", err);
}

int vdb_collection_set_name(struct vdb_connection *c, uint64_t id, const char *name, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_COLLECTION_NAME, "UPDATE collections SET name = ?2 WHERE id = ?1", 0,
                             &statement, err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)id);
    sqlite3_bind_text(statement, 2, name, -1, SQLITE_STATIC);
    return vdb_run(c, statement, "renaming a collection", err);
}

int vdb_collection_set_counts(struct vdb_connection *c, uint64_t id, uint64_t next_slot, uint64_t n_records,
                              bool has_documents, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_COLLECTION_COUNTS,
                             "UPDATE collections SET next_slot = ?2, n_records = ?3, has_documents = ?4 WHERE id = ?1",
                             0, &statement, err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)id);
    sqlite3_bind_int64(statement, 2, (sqlite3_int64)next_slot);
    sqlite3_bind_int64(statement, 3, (sqlite3_int64)n_records);
    sqlite3_bind_int(statement, 4, has_documents);
    return vdb_run(c, statement, "counting records", err);
}

int vdb_collection_raise_schema(struct vdb_connection *c, uint64_t id, vecdb_error *err)
{
    return vdb_execute(c, "UPDATE collections SET schema_version = schema_version + 1 WHERE id = %llu", id, err);
}

int vdb_collection_remove(struct vdb_connection *c, uint64_t id, vecdb_error *err)
{
    return vdb_execute(c, "DELETE FROM collections WHERE id = %llu", id, err);
}

/* ------------------------------------------------------------------- fields */

static int read_field(sqlite3_stmt *statement, struct vdb_field_row *row, vecdb_error *err)
{
    sqlite3_int64 dimension = sqlite3_column_int64(statement, 2);
    row->id = (uint64_t)sqlite3_column_int64(statement, 0);
    row->type = sqlite3_column_int(statement, 3);
    row->metric = sqlite3_column_int(statement, 4);
    row->index = sqlite3_column_int(statement, 5);
    row->compression = sqlite3_column_int(statement, 6);
    row->generation = (uint64_t)sqlite3_column_int64(statement, 7);
    if (!copy_name(statement, 1, row->name) || dimension < 1 || dimension > VECDB_MAX_DIMENSION ||
        row->type < VECDB_F32 || row->type > VECDB_BIT || row->metric < VECDB_L2 || row->metric > VECDB_HAMMING ||
        (row->metric == VECDB_HAMMING) != (row->type == VECDB_BIT))
        return damaged(err, "fields");
    row->dimension = (uint32_t)dimension;
    return VECDB_OK;
}

int vdb_field_each(struct vdb_connection *c, uint64_t collection,
                   int (*each)(void *context, const struct vdb_field_row *row), void *context, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_FIELDS,
                             "SELECT id, name, dimension, type, metric, index_kind, compression, generation FROM fields"
                             " WHERE collection = ?1 ORDER BY id",
                             0, &statement, err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)collection);
    int rc;
    while (!status && (rc = sqlite3_step(statement)) != SQLITE_DONE) {
        struct vdb_field_row row;
        if (rc != SQLITE_ROW)
            status = vdb_fail_sqlite(err, c, "reading fields");
        else if (!(status = read_field(statement, &row, err)))
            status = each(context, &row);
    }
    sqlite3_reset(statement);
    return status;
}

int vdb_field_insert(struct vdb_connection *c, uint64_t collection, const struct vdb_field_row *row, uint64_t *id,
                     vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_FIELD_ADD,
                             "INSERT INTO fields(collection, name, dimension, type, metric, index_kind, compression)"
                             " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                             0, &statement, err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)collection);
    sqlite3_bind_text(statement, 2, row->name, -1, SQLITE_STATIC);
    sqlite3_bind_int64(statement, 3, row->dimension);
    sqlite3_bind_int(statement, 4, row->type);
    sqlite3_bind_int(statement, 5, row->metric);
    sqlite3_bind_int(statement, 6, row->index);
    sqlite3_bind_int(statement, 7, row->compression);
    if ((status = vdb_run(c, statement, "adding a field", err)))
        return status;
    uint64_t new_id = (uint64_t)sqlite3_last_insert_rowid(c->sqlite);
    status = vdb_execute(c, "CREATE TABLE tail_%llu(slot INTEGER PRIMARY KEY, vector BLOB NOT NULL)", new_id, err);
    if (!status)
        *id = new_id;
    return status;
}

int vdb_field_set_name(struct vdb_connection *c, uint64_t field, const char *name, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status =
        vdb_prepare(c, VDB_SQL_FIELD_NAME, "UPDATE fields SET name = ?2 WHERE id = ?1", 0, &statement, err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)field);
    sqlite3_bind_text(statement, 2, name, -1, SQLITE_STATIC);
    return vdb_run(c, statement, "renaming a field", err);
}

int vdb_field_set_index(struct vdb_connection *c, uint64_t field, int index, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_FIELD_INDEX, "UPDATE fields SET index_kind = ?2 WHERE id = ?1", 0, &statement,
                             err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)field);
    sqlite3_bind_int(statement, 2, index);
    return vdb_run(c, statement, "setting the index of a field", err);
}

int vdb_field_generation(struct vdb_connection *c, uint64_t field, uint64_t *generation, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_FIELD_GENERATION, "SELECT generation FROM fields WHERE id = ?1", 0, &statement,
                             err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)field);
    int rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW)
        *generation = (uint64_t)sqlite3_column_int64(statement, 0);
    else if (rc == SQLITE_DONE)
        status = vdb_fail(err, VECDB_NOT_FOUND, "the field was dropped");
    else
        status = vdb_fail_sqlite(err, c, "reading a field");
    sqlite3_reset(statement);
    return status;
}

int vdb_field_set_generation(struct vdb_connection *c, uint64_t field, uint64_t generation, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_FIELD_SET_GENERATION,
                             "UPDATE fields SET generation = max(generation, ?2) WHERE id = ?1", 0, &statement, err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)field);
    sqlite3_bind_int64(statement, 2, (sqlite3_int64)generation);
    return vdb_run(c, statement, "naming a vector file", err);
}

int vdb_field_remove(struct vdb_connection *c, uint64_t field, vecdb_error *err)
{
    int status;
    vdb_forget_statements(c, field);
    if ((status = vdb_execute(c, "DROP TABLE tail_%llu", field, err)) ||
        (status = vdb_execute(c, "DELETE FROM extents WHERE field = %llu", field, err)))
        return status;
    return vdb_execute(c, "DELETE FROM fields WHERE id = %llu", field, err);
}
