/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/catalog_space.c - pages of the catalog that hold nothing (see catalog.h)
 *
 * What is deleted leaves free pages behind, and new rows take those first. Only when there are many is it worth
 * while to give them back to the file system: incremental_vacuum moves the last pages of the file into the free
 * ones and cuts it off, which writes a page (and its entry in the map of pointers) for each that was in use. That is
 * done some hundred at a time, because it happens inside of the writers' gate.
 *
 * Pages that are partly empty stay so, but SQLite joins those of a table that are less than a third full with their
 * neighbours; a new store (lib/renumber.c) packs the largest tables anew.
 */
#include "catalog.h"

#include "base/error.h"
#include "catalog_sql.h"

static int read_number(struct vdb_connection *c, int kind, const char *sql, uint64_t *number, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, kind, sql, 0, &statement, err);
    if (status)
        return status;
    if (sqlite3_step(statement) == SQLITE_ROW)
        *number = (uint64_t)sqlite3_column_int64(statement, 0);
    else
        status = vdb_fail_sqlite(err, c, "counting pages");
    sqlite3_reset(statement);
    return status;
}

int vdb_space_read(struct vdb_connection *c, uint64_t *n_free, uint64_t *n_pages, vecdb_error *err)
{
    int status = read_number(c, VDB_SQL_SPACE_FREE, "PRAGMA freelist_count", n_free, err);
    return status ? status : read_number(c, VDB_SQL_SPACE_PAGES, "PRAGMA page_count", n_pages, err);
}

int vdb_space_give_back(struct vdb_connection *c, uint64_t limit, vecdb_error *err)
{
    return vdb_execute(c, "PRAGMA incremental_vacuum(%llu)", limit, err);
}
