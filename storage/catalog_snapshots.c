/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/catalog_snapshots.c - the table `snapshots`: which copies of the database have a name
 *
 *     id          of the directory snapshot-<id>; AUTOINCREMENT, so that a number is never used again
 *     name        unique
 *     sequence    of the state it holds
 *     created     seconds since 1970
 *
 * A number has to be known before there is anything to put into the table, because the directory is made
 * first. So it is reserved: a row is inserted and removed again in one transaction, which leaves a trace
 * in AUTOINCREMENT's own table only. Two processes that make snapshots at once get different numbers.
 */
#include "catalog_backup.h"

#include "base/error.h"
#include "catalog_sql.h"

/* Kinds of statements, behind those of catalog_sql.h. */
enum {
    SQL_SNAPSHOT_RESERVE = 400,
    SQL_SNAPSHOT_ADD,
    SQL_SNAPSHOT_FIND,
    SQL_SNAPSHOTS,
    SQL_SNAPSHOT_HAS
};

int vdb_snapshot_reserve(struct vdb_connection *c, uint64_t *id, vecdb_error *err)
{
    sqlite3_stmt *statement;
    /* A name with control characters cannot be a snapshot's. */
    int status = vdb_prepare(c, SQL_SNAPSHOT_RESERVE,
                             "INSERT INTO snapshots(name, sequence, created) VALUES(char(1), 0, 0)", 0, &statement,
                             err);
    if (status || (status = vdb_run(c, statement, "reserving a snapshot's number", err)))
        return status;
    uint64_t number = (uint64_t)sqlite3_last_insert_rowid(c->sqlite);
    status = vdb_snapshot_remove(c, number, err);
    if (!status)
        *id = number;
    return status;
}

int vdb_snapshot_add(struct vdb_connection *c, const struct vdb_snapshot_row *row, bool *added, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, SQL_SNAPSHOT_ADD,
                             "INSERT INTO snapshots(id, name, sequence, created) VALUES(?1, ?2, ?3, ?4)"
                             " ON CONFLICT(name) DO NOTHING",
                             0, &statement, err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)row->id);
    sqlite3_bind_text(statement, 2, row->name, -1, SQLITE_STATIC);
    sqlite3_bind_int64(statement, 3, (sqlite3_int64)row->sequence);
    sqlite3_bind_int64(statement, 4, (sqlite3_int64)row->created);
    status = vdb_run(c, statement, "naming a snapshot", err);
    if (!status)
        *added = sqlite3_changes(c->sqlite) > 0;
    return status;
}

static int read_row(sqlite3_stmt *statement, struct vdb_snapshot_row *row, vecdb_error *err)
{
    const unsigned char *name = sqlite3_column_text(statement, 1);
    int n = sqlite3_column_bytes(statement, 1);
    if (!name || n < 1 || n > VECDB_MAX_NAME)
        return vdb_fail(err, VECDB_CORRUPT, "catalog.sqlite: the table snapshots holds impossible values");
    row->id = (uint64_t)sqlite3_column_int64(statement, 0);
    memcpy(row->name, name, (size_t)n);
    row->name[n] = '\0';
    row->sequence = (uint64_t)sqlite3_column_int64(statement, 2);
    row->created = sqlite3_column_int64(statement, 3);
    return VECDB_OK;
}

int vdb_snapshot_find(struct vdb_connection *c, const char *name, struct vdb_snapshot_row *row, bool *found,
                      vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, SQL_SNAPSHOT_FIND,
                             "SELECT id, name, sequence, created FROM snapshots WHERE name = ?1", 0, &statement, err);
    if (status)
        return status;
    sqlite3_bind_text(statement, 1, name, -1, SQLITE_STATIC);
    int step = sqlite3_step(statement);
    if (step == SQLITE_ROW)
        status = read_row(statement, row, err);
    else if (step != SQLITE_DONE)
        status = vdb_fail_sqlite(err, c, "looking for a snapshot");
    sqlite3_reset(statement);
    if (!status)
        *found = step == SQLITE_ROW;
    return status;
}

int vdb_snapshot_each(struct vdb_connection *c, int (*each)(void *context, const struct vdb_snapshot_row *row),
                      void *context, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int step, status = vdb_prepare(c, SQL_SNAPSHOTS, "SELECT id, name, sequence, created FROM snapshots ORDER BY id", 0,
                                   &statement, err);
    if (status)
        return status;
    while (!status && (step = sqlite3_step(statement)) != SQLITE_DONE) {
        struct vdb_snapshot_row row;
        if (step != SQLITE_ROW)
            status = vdb_fail_sqlite(err, c, "reading the snapshots");
        else if (!(status = read_row(statement, &row, err)))
            status = each(context, &row);
    }
    sqlite3_reset(statement);
    return status;
}

int vdb_snapshot_has(struct vdb_connection *c, uint64_t id, bool *has, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, SQL_SNAPSHOT_HAS, "SELECT 1 FROM snapshots WHERE id = ?1", 0, &statement, err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)id);
    int step = sqlite3_step(statement);
    if (step != SQLITE_ROW && step != SQLITE_DONE)
        status = vdb_fail_sqlite(err, c, "looking for a snapshot");
    sqlite3_reset(statement);
    if (!status)
        *has = step == SQLITE_ROW;
    return status;
}

int vdb_snapshot_remove(struct vdb_connection *c, uint64_t id, vecdb_error *err)
{
    return vdb_execute(c, "DELETE FROM snapshots WHERE id = %llu", id, err);
}
