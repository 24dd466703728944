/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/catalog_sql.h - shared by the catalog_*.c files: statement kinds, and running them
 */
#ifndef VDB_STORAGE_CATALOG_SQL_H
#define VDB_STORAGE_CATALOG_SQL_H

#include "connection.h"

/* The kinds under which vdb_prepare keeps statements. */
enum vdb_sql_kind {
    VDB_SQL_COLLECTION_BY_NAME = 100,
    VDB_SQL_COLLECTION_BY_ID,
    VDB_SQL_COLLECTIONS,
    VDB_SQL_COLLECTION_ADD,
    VDB_SQL_COLLECTION_NAME,
    VDB_SQL_COLLECTION_COUNTS,
    VDB_SQL_COLLECTION_STORE,
    VDB_SQL_STORE_ADD,
    VDB_SQL_STORE_UNUSED,
    VDB_SQL_STORE_CUT,
    VDB_SQL_STORE_COUNT,
    VDB_SQL_STORE_READ,
    VDB_SQL_STORE_WRITE,
    VDB_SQL_FIELDS,
    VDB_SQL_FIELD_ADD,
    VDB_SQL_FIELD_NAME,
    VDB_SQL_FIELD_INDEX,
    VDB_SQL_FIELD_GENERATION,
    VDB_SQL_FIELD_SET_GENERATION,
    VDB_SQL_RECORD_ADD,
    VDB_SQL_RECORD_FIND,
    VDB_SQL_RECORD_REMOVE,
    VDB_SQL_RECORD_READ,
    VDB_SQL_RECORD_READ_KEY = VDB_SQL_RECORD_READ + 8, /* one kind for each set of columns */
    VDB_SQL_RECORD_SCAN = VDB_SQL_RECORD_READ_KEY + 8,
    VDB_SQL_RECORD_SCAN_AFTER = VDB_SQL_RECORD_SCAN + 8,
    VDB_SQL_RECORD_KEYS = VDB_SQL_RECORD_SCAN_AFTER + 8,
    VDB_SQL_JSON,
    VDB_SQL_TAIL_ADD,
    VDB_SQL_TAIL_REMOVE,
    VDB_SQL_TAIL_READ,
    VDB_SQL_TAIL_BETWEEN,
    VDB_SQL_TAIL_SHIFT,
    VDB_SQL_EXTENTS,
    VDB_SQL_EXTENT_ADD,
    VDB_SQL_EXTENT_GROW,
    VDB_SQL_EXTENT_REMOVE,
    VDB_SQL_EXTENT_FILES,
    VDB_SQL_SPACE_FREE,
    VDB_SQL_SPACE_PAGES,
    VDB_SQL_DEAD_CHUNK,
    VDB_SQL_DEAD_SET,
    VDB_SQL_DEAD_READ,
    VDB_SQL_CHANGE_ADD,
    VDB_SQL_CHANGES,
    VDB_SQL_CHANGES_TRIMMED
};

/* Step a bound statement that gives no rows, and reset it. */
static inline int vdb_run(struct vdb_connection *c, sqlite3_stmt *statement, const char *what, vecdb_error *err)
{
    int rc = sqlite3_step(statement), status = VECDB_OK;
    if (rc != SQLITE_DONE && rc != SQLITE_ROW)
        status = vdb_fail_sqlite(err, c, what);
    sqlite3_reset(statement);
    return status;
}

#endif
