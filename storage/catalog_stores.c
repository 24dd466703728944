/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/catalog_stores.c - stores: numberings of a collection's records (see catalog.h)
 *
 * Slots belong to a store. A collection has a current one, `collections.store`; its records lie in the table
 * records_<store>. Another row of `stores` is a store that the maintainer is building, or one that is no more
 * needed and on its way out:
 *
 *     stores        (3, collection 1)    current of collection 1
 *                   (4, collection 1)    being built, or what a crash left of that
 *                   (2, collection 9)    of a collection that was dropped
 *
 * Numbers are never used again (AUTOINCREMENT), so that a table, a vector file or a cache that is named after a
 * store cannot be taken for a later one's.
 *
 * Removing: dropping a table of a million records walks all of its pages, inside of the writers' gate. So a store is
 * taken apart in pieces, a short transaction each: first the index of keys (pages of the index only), then records
 * from the lowest slot on, whose pages follow each other, then what is empty. That is why the index has a name of
 * its own instead of coming from a UNIQUE: an index that SQLite makes by itself cannot be dropped alone, and
 * deleting records with it would rewrite a page of the index for nearly every record.
 */
#include "catalog.h"

#include "base/error.h"
#include "catalog_sql.h"

int vdb_store_add(struct vdb_connection *c, uint64_t collection, bool with_index, uint64_t *store, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status =
        vdb_prepare(c, VDB_SQL_STORE_ADD, "INSERT INTO stores(collection) VALUES(?1)", 0, &statement, err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)collection);
    if ((status = vdb_run(c, statement, "adding a store", err)))
        return status;
    uint64_t made = (uint64_t)sqlite3_last_insert_rowid(c->sqlite);
    status = vdb_execute(
        c, "CREATE TABLE records_%llu(slot INTEGER PRIMARY KEY, key NOT NULL, metadata TEXT, text TEXT)", made, err);
    if (!status && with_index)
        status = vdb_store_index(c, made, err);
    if (!status)
        *store = made;
    return status;
}

int vdb_store_index(struct vdb_connection *c, uint64_t store, vecdb_error *err)
{
    return vdb_execute(c, "CREATE UNIQUE INDEX keys_%llu ON records_%llu(key)", store, err);
}

int vdb_store_unused(struct vdb_connection *c, uint64_t *store, bool *found, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_STORE_UNUSED,
                             "SELECT id FROM stores WHERE id NOT IN (SELECT store FROM collections) LIMIT 1", 0,
                             &statement, err);
    if (status)
        return status;
    int rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW)
        *store = (uint64_t)sqlite3_column_int64(statement, 0);
    else if (rc != SQLITE_DONE)
        status = vdb_fail_sqlite(err, c, "looking for stores that are no more needed");
    sqlite3_reset(statement);
    if (!status)
        *found = rc == SQLITE_ROW;
    return status;
}

int vdb_store_count(struct vdb_connection *c, uint64_t store, uint64_t *n_records, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_STORE_COUNT, "SELECT count(*) FROM records_%llu", store, &statement, err);
    if (status)
        return status;
    if (sqlite3_step(statement) == SQLITE_ROW)
        *n_records = (uint64_t)sqlite3_column_int64(statement, 0);
    else
        status = vdb_fail_sqlite(err, c, "counting records");
    sqlite3_reset(statement);
    return status;
}

static size_t bytes_of(sqlite3_stmt *row)
{
    size_t n_bytes = 0;
    for (int i = 1; i < 4; i++)
        n_bytes += (size_t)sqlite3_column_bytes(row, i);
    return n_bytes;
}

static int copy_record(struct vdb_connection *c, sqlite3_stmt *row, sqlite3_stmt *into, uint64_t slot,
                       vecdb_error *err)
{
    if (slot >= UINT32_MAX)
        return vdb_fail(err, VECDB_INTERNAL, "a store would have more records than slots");
    sqlite3_bind_int64(into, 1, (sqlite3_int64)slot);
    for (int i = 1; i < 4; i++)
        sqlite3_bind_value(into, i + 1, sqlite3_column_value(row, i));
    return vdb_run(c, into, "copying a record", err);
}

int vdb_store_copy(struct vdb_connection *c, uint64_t from, uint64_t to, uint32_t first, uint32_t last,
                   uint64_t *next_slot, bool (*each)(void *context, uint32_t slot, size_t n_bytes), void *context,
                   bool *is_done, vecdb_error *err)
{
    sqlite3_stmt *row, *into;
    int status = vdb_prepare(c, VDB_SQL_STORE_READ,
                             "SELECT slot, key, metadata, text FROM records_%llu WHERE slot BETWEEN ?1 AND ?2"
                             " ORDER BY slot",
                             from, &row, err);
    if (!status)
        status = vdb_prepare(c, VDB_SQL_STORE_WRITE,
                             "INSERT OR REPLACE INTO records_%llu(slot, key, metadata, text) VALUES(?1, ?2, ?3, ?4)",
                             to, &into, err);
    if (status)
        return status;
    sqlite3_bind_int64(row, 1, first);
    sqlite3_bind_int64(row, 2, last);
    uint64_t next = *next_slot;
    bool goes_on = true;
    int rc = SQLITE_DONE;
    while (!status && goes_on && (rc = sqlite3_step(row)) == SQLITE_ROW) {
        size_t n_bytes = bytes_of(row);
        status = copy_record(c, row, into, next++, err);
        if (!status)
            goes_on = each(context, (uint32_t)sqlite3_column_int64(row, 0), n_bytes);
    }
    if (!status && rc != SQLITE_ROW && rc != SQLITE_DONE)
        status = vdb_fail_sqlite(err, c, "reading records");
    sqlite3_reset(row);
    sqlite3_clear_bindings(into);
    if (status)
        return status;
    *next_slot = next;
    *is_done = rc == SQLITE_DONE;
    return VECDB_OK;
}

/* Records of at most so many slots, from the first on. */
static int remove_some(struct vdb_connection *c, uint64_t store, uint64_t limit, int *n_removed, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_STORE_CUT,
                             "DELETE FROM records_%llu WHERE slot <="
                             " (SELECT max(slot) FROM (SELECT slot FROM records_%llu ORDER BY slot LIMIT ?1))",
                             store, &statement, err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)limit);
    status = vdb_run(c, statement, "removing a store", err);
    if (!status)
        *n_removed = sqlite3_changes(c->sqlite);
    return status;
}

int vdb_store_remove_some(struct vdb_connection *c, uint64_t store, uint64_t limit, bool *done, vecdb_error *err)
{
    int n_removed = 0;
    int status = vdb_execute(c, "DROP INDEX IF EXISTS keys_%llu", store, err);
    if (!status)
        status = remove_some(c, store, limit, &n_removed, err);
    bool is_empty = !status && (uint64_t)n_removed < limit;
    if (is_empty) {
        vdb_forget_statements(c, store);
        status = vdb_execute(c,
                             "DROP TABLE records_%llu; DELETE FROM dead WHERE store = %llu;"
                             "DELETE FROM stores WHERE id = %llu",
                             store, err);
    }
    if (!status)
        *done = is_empty;
    return status;
}
