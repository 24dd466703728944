/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/catalog_repair.c - a new catalog takes the place of an old one (see catalog_repair.h)
 *
 * Readers of the old database remember its uuid and the number of its last commit, in indexes and in whatever an
 * application keeps. The new one goes on from there: same uuid, a higher number.
 */
#include "catalog_repair.h"

#include "base/error.h"
#include "connection_parts.h"

int vdb_catalog_take_identity(struct vdb_catalog *catalog, const unsigned char uuid[16], uint64_t sequence,
                              vecdb_error *err)
{
    struct vdb_connection *c;
    uint64_t own;
    int status = vdb_write_begin(catalog, &c, &own, err);
    if (status)
        return status;
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(c->sqlite, "UPDATE database SET uuid = ?1 WHERE id = 1", -1, &statement, NULL)) {
        status = vdb_fail_sqlite(err, c, "naming the new catalog");
    } else {
        sqlite3_bind_blob(statement, 1, uuid, 16, SQLITE_STATIC);
        if (sqlite3_step(statement) != SQLITE_DONE)
            status = vdb_fail_sqlite(err, c, "naming the new catalog");
        sqlite3_finalize(statement);
    }
    if (status) {
        vdb_write_rollback(c);
        return status;
    }
    if (sequence > own)
        catalog->writer_sequence = sequence; /* which the commit writes */
    return vdb_write_commit(c, err);
}
