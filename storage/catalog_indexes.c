/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/catalog_indexes.c - the table `indexes` (see catalog_indexes.h)
 *
 *     id           AUTOINCREMENT
 *     field        whose rows the index holds; `store`: the store that its slots are of
 *     kind         1: a graph
 *     generation   of the file index-<field>-<generation>
 *     end_slot     rows with slots below are in the index
 *     bytes        how much of the file counts
 *     check_sum    of the head of the last record
 *     calibration  what was measured of the index, or NULL
 *
 * A reader may find no table; it asks sqlite_schema first, because a failed statement is an error to SQLite's log.
 */
#include "catalog_indexes.h"

#include "base/error.h"
#include "catalog_sql.h"

/* Kinds of statements, behind those of the other tables. */
enum {
    SQL_INDEX_TABLE = 500,
    SQL_INDEX_ADD,
    SQL_INDEX_REMOVE,
    SQL_INDEXES
};

static const char create_table[] =
    "CREATE TABLE IF NOT EXISTS indexes(id INTEGER PRIMARY KEY AUTOINCREMENT, field INTEGER NOT NULL,"
    " store INTEGER NOT NULL, kind INTEGER NOT NULL, generation INTEGER NOT NULL, end_slot INTEGER NOT NULL,"
    " bytes INTEGER NOT NULL, check_sum INTEGER NOT NULL, calibration BLOB)";

static int has_table(struct vdb_connection *c, bool *has, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, SQL_INDEX_TABLE,
                             "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'indexes'", 0, &statement,
                             err);
    if (status)
        return status;
    int rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW || rc == SQLITE_DONE)
        *has = rc == SQLITE_ROW;
    else
        status = vdb_fail_sqlite(err, c, "looking for index files");
    sqlite3_reset(statement);
    return status;
}

int vdb_index_row_remove(struct vdb_connection *c, uint64_t field, vecdb_error *err)
{
    sqlite3_stmt *statement;
    bool has = false;
    int status = has_table(c, &has, err);
    if (status || !has)
        return status;
    status = vdb_prepare(c, SQL_INDEX_REMOVE, "DELETE FROM indexes WHERE field = ?1", 0, &statement, err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)field);
    return vdb_run(c, statement, "forgetting an index file", err);
}

int vdb_index_row_set(struct vdb_connection *c, const struct vdb_index_row *row, vecdb_error *err)
{
    sqlite3_stmt *statement;
    bool has = false;
    int status = has_table(c, &has, err);
    if (!status && !has && sqlite3_exec(c->sqlite, create_table, NULL, NULL, NULL))
        status = vdb_fail_sqlite(err, c, "making the table of index files");
    if (!status)
        status = vdb_index_row_remove(c, row->field, err);
    if (!status)
        status = vdb_prepare(c, SQL_INDEX_ADD,
                             "INSERT INTO indexes(field, store, kind, generation, end_slot, bytes, check_sum,"
                             " calibration) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                             0, &statement, err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)row->field);
    sqlite3_bind_int64(statement, 2, (sqlite3_int64)row->store);
    sqlite3_bind_int(statement, 3, row->kind);
    sqlite3_bind_int64(statement, 4, (sqlite3_int64)row->generation);
    sqlite3_bind_int64(statement, 5, row->end_slot);
    sqlite3_bind_int64(statement, 6, (sqlite3_int64)row->bytes);
    sqlite3_bind_int64(statement, 7, (sqlite3_int64)row->check);
    if (row->calibration)
        sqlite3_bind_blob64(statement, 8, row->calibration, row->n_calibration, SQLITE_TRANSIENT);
    else
        sqlite3_bind_null(statement, 8);
    return vdb_run(c, statement, "naming an index file", err);
}

static bool read_row(sqlite3_stmt *statement, struct vdb_index_row *row)
{
    sqlite3_int64 end_slot = sqlite3_column_int64(statement, 4), bytes = sqlite3_column_int64(statement, 5);
    sqlite3_int64 field = sqlite3_column_int64(statement, 0), generation = sqlite3_column_int64(statement, 3);
    *row = (struct vdb_index_row){.field = (uint64_t)field,
                                  .store = (uint64_t)sqlite3_column_int64(statement, 1),
                                  .kind = sqlite3_column_int(statement, 2),
                                  .generation = (uint64_t)generation,
                                  .end_slot = (uint32_t)end_slot,
                                  .bytes = (uint64_t)bytes,
                                  .check = (uint64_t)sqlite3_column_int64(statement, 6),
                                  .calibration = sqlite3_column_blob(statement, 7),
                                  .n_calibration = (size_t)sqlite3_column_bytes(statement, 7)};
    return field > 0 && generation > 0 && bytes >= 0 && end_slot >= 0 && end_slot <= UINT32_MAX;
}

int vdb_index_row_each(struct vdb_connection *c, int (*each)(void *context, const struct vdb_index_row *row),
                       void *context, vecdb_error *err)
{
    sqlite3_stmt *statement;
    bool has = false;
    int status = has_table(c, &has, err);
    if (status || !has)
        return status;
    status = vdb_prepare(c, SQL_INDEXES,
                         "SELECT field, store, kind, generation, end_slot, bytes, check_sum, calibration FROM indexes"
                         " ORDER BY field, id",
                         0, &statement, err);
    if (status)
        return status;
    int rc = SQLITE_DONE;
    while (!status && (rc = sqlite3_step(statement)) == SQLITE_ROW) {
        struct vdb_index_row row;
        if (read_row(statement, &row))
            status = each(context, &row);
    }
    if (!status && rc != SQLITE_DONE)
        status = vdb_fail_sqlite(err, c, "reading the names of index files");
    sqlite3_reset(statement);
    return status;
}
