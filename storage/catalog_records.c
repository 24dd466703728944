/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/catalog_records.c - records in the catalog (see catalog.h)
 *
 * The key column has no type, so that SQLite keeps integers and texts apart (5 and '5') and orders
 * integers first. The slot is the rowid: new records are appended, and a result's columns are one
 * look-up away.
 */
#include "catalog.h"

#include <limits.h>

#include "base/error.h"
#include "catalog_sql.h"

static void bind_key(sqlite3_stmt *statement, int at, const vecdb_key *key)
{
    if (key->text)
        sqlite3_bind_text64(statement, at, key->text, key->length, SQLITE_STATIC, SQLITE_UTF8);
    else
        sqlite3_bind_int64(statement, at, key->integer);
}

static void bind_text(sqlite3_stmt *statement, int at, const char *text, size_t length)
{
    if (text)
        sqlite3_bind_text64(statement, at, text, length, SQLITE_STATIC, SQLITE_UTF8);
    else
        sqlite3_bind_null(statement, at);
}

int vdb_records_add(struct vdb_connection *c, uint64_t store, const struct vdb_record_row *row, bool *added,
                    vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_RECORD_ADD,
                             "INSERT OR IGNORE INTO records_%llu(slot, key, metadata, text) VALUES(?1, ?2, ?3, ?4)",
                             store, &statement, err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, row->slot);
    bind_key(statement, 2, &row->key);
    bind_text(statement, 3, row->metadata, row->metadata_length);
    bind_text(statement, 4, row->text, row->text_length);
    status = vdb_run(c, statement, "adding a record", err);
    if (!status)
        *added = sqlite3_changes(c->sqlite) > 0;
    return status;
}

int vdb_records_find(struct vdb_connection *c, uint64_t store, const vecdb_key *key, uint32_t *slot, bool *found,
                     vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_RECORD_FIND, "SELECT slot FROM records_%llu WHERE key = ?1", store,
                             &statement, err);
    if (status)
        return status;
    bind_key(statement, 1, key);
    int rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW)
        *slot = (uint32_t)sqlite3_column_int64(statement, 0);
    else if (rc != SQLITE_DONE)
        status = vdb_fail_sqlite(err, c, "looking up a key");
    if (!status)
        *found = rc == SQLITE_ROW;
    sqlite3_reset(statement);
    return status;
}

int vdb_records_remove(struct vdb_connection *c, uint64_t store, uint32_t slot, bool *removed, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_RECORD_REMOVE, "DELETE FROM records_%llu WHERE slot = ?1", store,
                             &statement, err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, slot);
    status = vdb_run(c, statement, "removing a record", err);
    if (!status && removed)
        *removed = sqlite3_changes(c->sqlite) > 0;
    return status;
}

/* --------------------------------------------------------------------------- reading records */

/* Four forms of each query: with or without metadata, with or without text. */
static int form_of(int columns)
{
    return (columns & VECDB_METADATA ? 1 : 0) | (columns & VECDB_TEXT ? 2 : 0);
}

#define FORMS(tail)                                                                                                    \
    {                                                                                                                  \
        "SELECT slot, key, NULL, NULL FROM records_%llu " tail, "SELECT slot, key, metadata, NULL FROM records_%llu "  \
        tail, "SELECT slot, key, NULL, text FROM records_%llu " tail,                                                  \
            "SELECT slot, key, metadata, text FROM records_%llu " tail                                                 \
    }

static int tell_rows(struct vdb_connection *c, sqlite3_stmt *statement, vdb_record_fn each, void *context,
                     vecdb_error *err)
{
    int rc, status = VECDB_OK;
    while (!status && (rc = sqlite3_step(statement)) != SQLITE_DONE) {
        if (rc != SQLITE_ROW) {
            status = vdb_fail_sqlite(err, c, "reading records");
            break;
        }
        struct vdb_record_row row = {.slot = (uint32_t)sqlite3_column_int64(statement, 0)};
        int type = sqlite3_column_type(statement, 1);
        if (type == SQLITE_INTEGER) {
            row.key.integer = sqlite3_column_int64(statement, 1);
        } else if (type == SQLITE_TEXT) {
            row.key.text = (const char *)sqlite3_column_text(statement, 1);
            row.key.length = (size_t)sqlite3_column_bytes(statement, 1);
        }
        row.metadata = (const char *)sqlite3_column_text(statement, 2);
        row.metadata_length = (size_t)sqlite3_column_bytes(statement, 2);
        row.text = (const char *)sqlite3_column_text(statement, 3);
        row.text_length = (size_t)sqlite3_column_bytes(statement, 3);
        if (type != SQLITE_INTEGER && (!row.key.text || !row.key.length))
            status = vdb_fail(err, VECDB_CORRUPT, "catalog.sqlite: record in slot %u has an impossible key", row.slot);
        else
            status = each(context, &row);
    }
    sqlite3_reset(statement);
    return status;
}

int vdb_records_read(struct vdb_connection *c, uint64_t store, uint32_t slot, int columns, vdb_record_fn each,
                     void *context, vecdb_error *err)
{
    static const char *const forms[4] = FORMS("WHERE slot = ?1");
    sqlite3_stmt *statement;
    int form = form_of(columns);
    int status = vdb_prepare(c, VDB_SQL_RECORD_READ + form, forms[form], store, &statement, err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, slot);
    return tell_rows(c, statement, each, context, err);
}

int vdb_records_read_key(struct vdb_connection *c, uint64_t store, const vecdb_key *key, int columns,
                         vdb_record_fn each, void *context, vecdb_error *err)
{
    static const char *const forms[4] = FORMS("WHERE key = ?1");
    sqlite3_stmt *statement;
    int form = form_of(columns);
    int status = vdb_prepare(c, VDB_SQL_RECORD_READ_KEY + form, forms[form], store, &statement, err);
    if (status)
        return status;
    bind_key(statement, 1, key);
    return tell_rows(c, statement, each, context, err);
}

int vdb_records_keys(struct vdb_connection *c, uint64_t store, uint32_t first_slot, uint32_t last_slot,
                     vdb_record_fn each, void *context, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_RECORD_KEYS,
                             "SELECT slot, key, NULL, NULL FROM records_%llu WHERE slot BETWEEN ?1 AND ?2", store,
                             &statement, err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, first_slot);
    sqlite3_bind_int64(statement, 2, last_slot);
    return tell_rows(c, statement, each, context, err);
}

int vdb_records_scan(struct vdb_connection *c, uint64_t store, const vecdb_key *after, int columns,
                     uint64_t limit, vdb_record_fn each, void *context, vecdb_error *err)
{
    static const char *const from_start[4] = FORMS("ORDER BY key LIMIT ?1");
    static const char *const behind[4] = FORMS("WHERE key > ?2 ORDER BY key LIMIT ?1");
    sqlite3_stmt *statement;
    int form = form_of(columns), kind = after ? VDB_SQL_RECORD_SCAN_AFTER : VDB_SQL_RECORD_SCAN;
    int status = vdb_prepare(c, kind + form, after ? behind[form] : from_start[form], store, &statement, err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, limit > INT64_MAX ? INT64_MAX : (sqlite3_int64)limit);
    if (after)
        bind_key(statement, 2, after);
    return tell_rows(c, statement, each, context, err);
}

int vdb_json_check(struct vdb_connection *c, const char *text, size_t length, bool *is_object, vecdb_error *err)
{
    *is_object = false;
    if (length > INT_MAX)
        return VECDB_OK;
    /* Until 3.42 SQLite knew strict JSON only, and each of the two functions parses the text anew. */
    const char *sql = sqlite3_libversion_number() < 3042000 ? "SELECT json_type(?1) = 'object'"
                                                            : "SELECT json_valid(?1) AND json_type(?1) = 'object'";
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_JSON, sql, 0, &statement, err);
    if (status)
        return status;
    bind_text(statement, 1, text, length);
    int rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW)
        *is_object = sqlite3_column_int(statement, 0) != 0;
    else if (rc != SQLITE_ERROR) /* which is what malformed JSON is reported as */
        status = vdb_fail_sqlite(err, c, "checking metadata");
    sqlite3_reset(statement);
    return status;
}
