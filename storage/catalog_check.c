/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/catalog_check.c - the tables of a catalog against what they must hold (see catalog_check.h)
 *
 * A rule is a query for the rows that break it. Its first column is the sentence to tell, its second the name of
 * the collection or NULL; so a rule is read where it is written, and a new one is one entry more. `typeof` comes
 * first in many, because SQLite keeps whatever type a column is given.
 *
 * Records are walked in C: whether a text is UTF-8 is not SQL's to say.
 *
 * Nothing here is bound to a fixed number of problems: SQLite hands out one row at a time.
 */
#include "catalog_check.h"

#include <stdio.h>

#include "base/error.h"
#include "base/utf8.h"
#include "catalog_sql.h"

#define SLOTS_END "4294967295"                      /* the first number that is no slot */
#define PLACE "'vectors-' || e.field || '-' || e.generation || ' at offset ' || e.offset"
#define OWNER "(SELECT c.name FROM collections c JOIN fields f ON f.collection = c.id WHERE f.id = e.field)"

static const char *const rules[] = {
    /* The database, the log of changes, the snapshots. */
    "SELECT 'the table database must have one row with a uuid and a sequence number', NULL WHERE (SELECT count(*) FROM"
    " database WHERE typeof(uuid) = 'blob' AND length(uuid) = 16 AND typeof(sequence) = 'integer' AND sequence BETWEEN"
    " 0 AND 8796093022207) <> 1 OR (SELECT count(*) FROM database) <> 1",
    "SELECT 'the table changes_trimmed must have one row with a number up to that of the last commit', NULL WHERE"
    " (SELECT count(*) FROM changes_trimmed WHERE typeof(sequence) = 'integer' AND sequence BETWEEN 0 AND"
    " (SELECT max(sequence) FROM database)) <> 1",
    "SELECT 'change ' || id || ' belongs to no commit that the log can hold', NULL FROM changes WHERE"
    " id >> 20 > (SELECT max(sequence) FROM database) OR id >> 20 <= (SELECT max(sequence) FROM changes_trimmed)",
    "SELECT 'change ' || id || ' has impossible values', NULL FROM changes WHERE typeof(kind) <> 'integer' OR"
    " kind NOT BETWEEN 1 AND 3 OR typeof(collection) <> 'integer' OR typeof(first_slot) <> 'integer' OR"
    " typeof(n_slots) <> 'integer' OR first_slot < 0 OR n_slots < 0 OR first_slot + n_slots > " SLOTS_END
    " OR typeof(dead) NOT IN ('blob', 'null') OR length(dead) % 4 <> 0",
    "SELECT 'snapshot ' || id || ' has impossible values', NULL FROM snapshots WHERE typeof(name) <> 'text' OR"
    " length(CAST(name AS BLOB)) NOT BETWEEN 1 AND 255 OR typeof(sequence) <> 'integer' OR sequence < 0 OR sequence >"
    " (SELECT max(sequence) FROM database) OR typeof(created) <> 'integer'",

    /* Collections, their stores, their fields. */
    "SELECT 'the collection has impossible values', name FROM collections WHERE typeof(name) <> 'text' OR"
    " length(CAST(name AS BLOB)) NOT BETWEEN 1 AND 255 OR typeof(next_slot) <> 'integer' OR next_slot NOT BETWEEN 0"
    " AND " SLOTS_END " OR typeof(n_records) <> 'integer' OR n_records NOT BETWEEN 0 AND next_slot OR"
    " typeof(schema_version) <> 'integer' OR schema_version < 1 OR has_documents NOT IN (0, 1)",
    "SELECT 'its store ' || store || ' is not one of its own', name FROM collections c WHERE NOT EXISTS"
    " (SELECT 1 FROM stores s WHERE s.id = c.store AND s.collection = c.id)",
    "SELECT 'the table records_' || s.id || ' of store ' || s.id || ' is missing, and with it records',"
    " (SELECT name FROM collections c WHERE c.store = s.id) FROM stores s WHERE NOT EXISTS"
    " (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'records_' || s.id)",
    "SELECT 'the index keys_' || store || ' is missing: records are not found by key', name FROM collections c WHERE"
    " NOT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'index' AND name = 'keys_' || c.store)",
    "SELECT 'the table ' || name || ' belongs to no store', NULL FROM sqlite_schema WHERE type = 'table' AND name GLOB"
    " 'records_[0-9]*' AND CAST(substr(name, 9) AS INTEGER) NOT IN (SELECT id FROM stores)",
    "SELECT 'the field \"' || f.name || '\" has impossible values', (SELECT name FROM collections WHERE id ="
    " f.collection) FROM fields f WHERE typeof(f.name) <> 'text' OR length(CAST(f.name AS BLOB)) NOT BETWEEN 1 AND 255"
    " OR typeof(dimension) <> 'integer' OR dimension NOT BETWEEN 1 AND 65536 OR type NOT BETWEEN 1 AND 6 OR metric NOT"
    " BETWEEN 1 AND 4 OR (type = 6) <> (metric = 4) OR compression NOT BETWEEN 0 AND 2 OR typeof(generation) <>"
    " 'integer' OR generation < 0",
    "SELECT 'the field ' || id || ' belongs to a collection that does not exist', NULL FROM fields WHERE collection"
    " NOT IN (SELECT id FROM collections)",
    "SELECT 'the table tail_' || f.id || ' of field \"' || f.name || '\" is missing, and with it vectors', (SELECT"
    " name FROM collections WHERE id = f.collection) FROM fields f WHERE NOT EXISTS (SELECT 1 FROM sqlite_schema WHERE"
    " type = 'table' AND name = 'tail_' || f.id)",
    "SELECT 'the table ' || name || ' belongs to no field', NULL FROM sqlite_schema WHERE type = 'table' AND name GLOB"
    " 'tail_[0-9]*' AND CAST(substr(name, 6) AS INTEGER) NOT IN (SELECT id FROM fields)",

    /* Dead slots. */
    "SELECT 'dead slots of store ' || d.store || ', which does not exist', NULL FROM dead d WHERE store NOT IN"
    " (SELECT id FROM stores) GROUP BY d.store",
    "SELECT 'chunk ' || d.chunk || ' of the dead slots of store ' || d.store || ' has impossible values',"
    " (SELECT name FROM collections WHERE store = d.store) FROM dead d WHERE typeof(chunk) <> 'integer' OR chunk NOT"
    " BETWEEN 0 AND 262143 OR typeof(slots) <> 'blob' OR length(slots) NOT BETWEEN 1 AND 2048 OR"
    " substr(slots, -1) = x'00'",

    /* Extents. */
    "SELECT 'the extent ' || " PLACE " || ' belongs to a field that does not exist', NULL FROM extents e WHERE field"
    " NOT IN (SELECT id FROM fields)",
    "SELECT 'the extent ' || " PLACE " || ' has impossible values', " OWNER " FROM extents e WHERE typeof(offset) <>"
    " 'integer' OR offset < 64 OR offset % 64 <> 0 OR typeof(length) <> 'integer' OR typeof(check_sum) <> 'integer' OR"
    " typeof(n_pages) <> 'integer' OR n_pages < 1 OR length < 64 + 32 * n_pages OR typeof(n_rows) <> 'integer' OR"
    " n_rows < n_pages OR typeof(first_slot) <> 'integer' OR typeof(last_slot) <> 'integer' OR first_slot < 0 OR"
    " last_slot >= " SLOTS_END " OR n_rows > last_slot - first_slot + 1",
    "SELECT 'the extent ' || " PLACE " || ' lies in a file that was never begun', " OWNER " FROM extents e JOIN"
    " fields f ON f.id = e.field WHERE e.generation NOT BETWEEN 1 AND f.generation",
    "SELECT 'the extent ' || " PLACE " || ' holds slots up to ' || last_slot || '; the next to be given out is ' ||"
    " next_slot, c.name FROM extents e JOIN fields f ON f.id = e.field JOIN collections c ON c.id = f.collection WHERE"
    " last_slot >= next_slot",
    "SELECT 'the extent ' || " PLACE " || ' overlaps with the one before it', " OWNER " FROM (SELECT *,"
    " lag(offset + length) OVER (PARTITION BY field, generation ORDER BY offset) AS before FROM extents) e WHERE"
    " before > offset",
    "SELECT 'the slots of the extent ' || " PLACE " || ' interleave with those of another', " OWNER " FROM (SELECT *,"
    " max(last_slot) OVER (PARTITION BY field ORDER BY first_slot ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS"
    " before FROM extents) e WHERE before >= first_slot",
};

/* Rows of a rule: sentences. */
static int tell_rows(struct vdb_connection *c, sqlite3_stmt *statement, vdb_finding_fn each, void *context,
                     vecdb_error *err)
{
    int rc, status = VECDB_OK;
    while ((rc = sqlite3_step(statement)) == SQLITE_ROW) {
        const char *message = (const char *)sqlite3_column_text(statement, 0);
        const char *collection = (const char *)sqlite3_column_text(statement, 1);
        each(context, collection, message ? message : "a table holds values that cannot be");
    }
    if (rc != SQLITE_DONE)
        status = vdb_fail_sqlite(err, c, "checking the tables");
    sqlite3_reset(statement);
    return status;
}

int vdb_catalog_check_tables(struct vdb_connection *c, vdb_finding_fn each, void *context, vecdb_error *err)
{
    int status = VECDB_OK;
    for (size_t i = 0; i < sizeof rules / sizeof *rules && !status; i++) {
        sqlite3_stmt *statement;
        if (sqlite3_prepare_v2(c->sqlite, rules[i], -1, &statement, NULL))
            return vdb_fail_sqlite(err, c, "checking the tables");
        status = tell_rows(c, statement, each, context, err);
        sqlite3_finalize(statement);
    }
    return status;
}

int vdb_catalog_check_tail(struct vdb_connection *c, const char *collection, uint64_t field, vdb_finding_fn each,
                           void *context, vecdb_error *err)
{
    char sql[320];
    snprintf(sql, sizeof sql,
             "SELECT 'the tail of field ' || %llu || ' has a row of slot ' || slot || ' that cannot be', ?1"
             " FROM tail_%llu WHERE slot NOT BETWEEN 0 AND " SLOTS_END " - 1 OR typeof(vector) <> 'blob'",
             (unsigned long long)field, (unsigned long long)field);
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(c->sqlite, sql, -1, &statement, NULL))
        return vdb_fail_sqlite(err, c, "checking the tail");
    sqlite3_bind_text(statement, 1, collection, -1, SQLITE_STATIC);
    int status = tell_rows(c, statement, each, context, err);
    sqlite3_finalize(statement);
    return status;
}

/* ---- records */

static bool is_text(sqlite3_stmt *statement, int column)
{
    if (sqlite3_column_type(statement, column) != SQLITE_TEXT)
        return false;
    const char *text = (const char *)sqlite3_column_text(statement, column);
    return text && vdb_utf8_valid(text, (size_t)sqlite3_column_bytes(statement, column));
}

/* What is wrong with the record that the statement stands on: slot, key, metadata, text; NULL: nothing. */
static int judge_record(struct vdb_connection *c, sqlite3_stmt *statement, const struct vdb_collection_row *row,
                        const char **fault, vecdb_error *err)
{
    int key = sqlite3_column_type(statement, 1), n_key = key == SQLITE_TEXT ? sqlite3_column_bytes(statement, 1) : 1;
    bool has_metadata = sqlite3_column_type(statement, 2) != SQLITE_NULL;
    bool has_text = sqlite3_column_type(statement, 3) != SQLITE_NULL;
    sqlite3_int64 slot = sqlite3_column_int64(statement, 0);
    *fault = NULL;
    if (slot < 0 || (uint64_t)slot >= row->next_slot)
        *fault = "has a slot that was never given out";
    else if (key != SQLITE_INTEGER && !is_text(statement, 1))
        *fault = "has a key that is neither an integer nor a text";
    else if (n_key < 1 || n_key > VECDB_MAX_KEY)
        *fault = "has a key of a length that cannot be";
    else if (has_text && !is_text(statement, 3))
        *fault = "has a text that is not UTF-8";
    else if ((has_metadata || has_text) && !row->has_documents)
        *fault = "has metadata or text, though the collection says that none has";
    if (*fault || !has_metadata)
        return VECDB_OK;
    bool is_object = is_text(statement, 2);
    int status = VECDB_OK;
    if (is_object)
        status = vdb_json_check(c, (const char *)sqlite3_column_text(statement, 2),
                                (size_t)sqlite3_column_bytes(statement, 2), &is_object, err);
    if (!status && !is_object)
        *fault = "has metadata that is not a JSON object";
    return status;
}

int vdb_catalog_check_records(struct vdb_connection *c, const struct vdb_collection_row *row, struct vdb_slots *slots,
                              int (*stop)(void *context, vecdb_error *err), void *stop_context, vdb_finding_fn each,
                              void *context, vecdb_error *err)
{
    char sql[96], message[256];
    sqlite3_stmt *statement;
    uint64_t n_records = 0;
    snprintf(sql, sizeof sql, "SELECT slot, key, metadata, text FROM records_%llu", (unsigned long long)row->store);
    if (sqlite3_prepare_v2(c->sqlite, sql, -1, &statement, NULL))
        return vdb_fail_sqlite(err, c, "checking records");
    int rc = SQLITE_DONE, status = VECDB_OK;
    while (!status && (rc = sqlite3_step(statement)) == SQLITE_ROW) {
        const char *fault;
        sqlite3_int64 slot = sqlite3_column_int64(statement, 0);
        if (n_records++ % 1024 == 0 && stop)
            status = stop(stop_context, err);
        if (slot >= 0 && slot < UINT32_MAX)
            vdb_slots_add(slots, (uint32_t)slot);
        if (!status)
            status = judge_record(c, statement, row, &fault, err);
        if (status || !fault)
            continue;
        snprintf(message, sizeof message, "the record of slot %lld %s", (long long)slot, fault);
        each(context, row->name, message);
    }
    if (!status && rc != SQLITE_DONE)
        status = vdb_fail_sqlite(err, c, "checking records");
    sqlite3_finalize(statement);
    if (status || n_records == row->n_records)
        return status;
    snprintf(message, sizeof message, "it has %llu records, its count says %llu", (unsigned long long)n_records,
             (unsigned long long)row->n_records);
    each(context, row->name, message);
    return VECDB_OK;
}

/* ---- what there is to be checked */

int vdb_catalog_check_size(struct vdb_connection *c, uint64_t *n_bytes, vecdb_error *err)
{
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(c->sqlite, "SELECT coalesce(sum(max(length, 0)), 0) FROM extents", -1, &statement, NULL))
        return vdb_fail_sqlite(err, c, "reading the extents");
    int status = VECDB_OK;
    if (sqlite3_step(statement) == SQLITE_ROW)
        *n_bytes = (uint64_t)sqlite3_column_int64(statement, 0);
    else
        status = vdb_fail_sqlite(err, c, "reading the extents");
    sqlite3_finalize(statement);
    return status;
}

int vdb_catalog_check_snapshots(struct vdb_connection *c,
                                int (*each)(void *context, const struct vdb_snapshot_name *snapshot), void *context,
                                vecdb_error *err)
{
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(c->sqlite, "SELECT id, name FROM snapshots ORDER BY id", -1, &statement, NULL))
        return vdb_fail_sqlite(err, c, "reading the snapshots");
    int rc = SQLITE_DONE, status = VECDB_OK;
    while (!status && (rc = sqlite3_step(statement)) == SQLITE_ROW) {
        struct vdb_snapshot_name snapshot = {.id = (uint64_t)sqlite3_column_int64(statement, 0)};
        const char *name = (const char *)sqlite3_column_text(statement, 1);
        snprintf(snapshot.name, sizeof snapshot.name, "%s", name ? name : "");
        status = each(context, &snapshot);
    }
    if (!status && rc != SQLITE_DONE)
        status = vdb_fail_sqlite(err, c, "reading the snapshots");
    sqlite3_finalize(statement);
    return status;
}
