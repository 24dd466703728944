/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzz target: a catalog whose every checksum is right and whose contents are hostile is refused in a sentence, or
 * answers; no value in it leads the library out of its memory, its files, or its time.
 *
 * Input: a byte of flags, a byte for hostile_use, then
 *   flag BYTES   edits {place u24, value u8} of the main file, after which its pages are stamped anew;
 *   else         changes by SQL, through plain SQLite: {what u8, table u8, row u8, column u8, value}, where a value is
 *                a kind u8 and what the kind asks for. Then pages are stamped anew.
 * So the mutations of a plain fuzzer are changes of cells and rows.
 */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hostile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { BYTES = 1, WITH_LOG = 2 };
#define MOST_CHANGES 6
#define MOST_TABLES 40
#define MOST_EDITS 40

static void must(bool condition)
{
    if (!condition)
        abort();
}

/* Numbers at the edges of what the catalog's columns may hold. */
static const int64_t EDGES[] = {0,          1,          -1,        2,           3,         16383,     16384,
                                65535,      65536,      65537,     0x7fffffff,  0x80000000, 0xfffffffe, 0xffffffff,
                                0x100000000, INT64_MAX, INT64_MIN, INT64_MAX - 1, 1ll << 48, 1ll << 44, 4096,
                                64,         63,         256,       1 << 20};

/* Structures that a reader would stumble over. */
static const char *const STATEMENTS[] = {
    "CREATE TRIGGER a AFTER INSERT ON changes BEGIN DELETE FROM collections; END",
    "CREATE TRIGGER b AFTER UPDATE ON database BEGIN UPDATE collections SET next_slot = 0; END",
    "DROP INDEX extents_by_field",
    "DROP TABLE changes",
    "DROP TABLE changes_trimmed; CREATE VIEW changes_trimmed AS SELECT 1 AS id, 0 AS sequence",
    "ALTER TABLE extents RENAME TO former; CREATE VIEW extents AS SELECT * FROM former, former",
    "DROP TABLE records_1",
    "ALTER TABLE records_1 RENAME COLUMN key TO former",
    "DROP TABLE tail_1; CREATE TABLE tail_1(slot, vector)",
    "DROP TABLE dead; CREATE TABLE dead(store, chunk, slots)",
    "CREATE TABLE records_2a(x); DROP TABLE records_2",
    "DROP TABLE snapshots",
    "DROP TABLE stores",
    "INSERT INTO database SELECT 2, uuid, 5, 0, 0, 0, NULL FROM database",
    "DELETE FROM database",
    "DELETE FROM stores",
    "INSERT INTO dead SELECT store, chunk + 1, slots FROM dead",
    "INSERT INTO dead SELECT store, 262143, slots FROM dead",
    "INSERT INTO extents SELECT NULL, field, generation, offset, length, check_sum, n_rows, first_slot, last_slot,"
    " n_pages FROM extents",
    "INSERT INTO collections SELECT NULL, name || 'x', next_slot, n_records, schema_version, has_documents, store"
    " FROM collections",
    "INSERT INTO fields SELECT NULL, collection, name || 'x', dimension, type, metric, index_kind, compression,"
    " generation FROM fields",
    "INSERT INTO tail_1 SELECT slot + 7, vector FROM tail_1",
    "UPDATE tail_1 SET slot = slot - 20",
    "UPDATE records_1 SET slot = -slot",
    "UPDATE changes SET id = id - 1048576",
    "DELETE FROM changes WHERE id % 2",
    "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = 2 WHERE name = 'changes'",
    "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = 'CREATE TABLE fields(id)' WHERE name = 'fields'",
    "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = 'x' WHERE name = 'dead'",
    "PRAGMA user_version = 2",
    "PRAGMA application_id = 1",
};
#define N_OF(array) (sizeof array / sizeof array[0])

static void run(sqlite3 *sqlite, const char *sql)
{
    sqlite3_exec(sqlite, sql, NULL, NULL, NULL); /* a change that SQLite refuses is none */
}

/* Tables and their columns, as the good catalog has them. */
struct table {
    char name[64];
    char columns[16][32];
    unsigned n_columns;
};

static unsigned list_tables(sqlite3 *sqlite, struct table *tables)
{
    sqlite3_stmt *statement;
    unsigned n = 0;
    const char *sql = "SELECT s.name, c.name FROM sqlite_schema s, pragma_table_info(s.name) c WHERE s.type = 'table'"
                      " ORDER BY s.rowid, c.cid";
    if (sqlite3_prepare_v2(sqlite, sql, -1, &statement, NULL))
        return 0;
    while (sqlite3_step(statement) == SQLITE_ROW) {
        const char *name = (const char *)sqlite3_column_text(statement, 0);
        const char *column = (const char *)sqlite3_column_text(statement, 1);
        if (!n || strcmp(tables[n - 1].name, name)) {
            if (n == MOST_TABLES)
                break;
            memset(&tables[n], 0, sizeof tables[n]);
            snprintf(tables[n++].name, sizeof tables[0].name, "%s", name);
        }
        struct table *table = &tables[n - 1];
        if (table->n_columns < 16)
            snprintf(table->columns[table->n_columns++], sizeof table->columns[0], "%s", column);
    }
    sqlite3_finalize(statement);
    return n;
}

static void bind_value(sqlite3_stmt *statement, struct hostile_input *input)
{
    size_t n_bytes;
    const uint8_t *bytes;
    double real;
    switch (hostile_take_u8(input) % 7) {
    case 0:
        sqlite3_bind_null(statement, 1);
        break;
    case 1:
        sqlite3_bind_int64(statement, 1, EDGES[hostile_take_u8(input) % N_OF(EDGES)]);
        break;
    case 2:
        sqlite3_bind_int64(statement, 1, (int64_t)hostile_take_u64(input));
        break;
    case 3:
        sqlite3_bind_int64(statement, 1, (int8_t)hostile_take_u8(input));
        break;
    case 4:
        n_bytes = hostile_take_u8(input);
        bytes = hostile_take(input, n_bytes, &n_bytes);
        sqlite3_bind_text(statement, 1, (const char *)bytes, (int)n_bytes, SQLITE_TRANSIENT);
        break;
    case 5:
        n_bytes = hostile_take_u8(input);
        bytes = hostile_take(input, n_bytes, &n_bytes);
        sqlite3_bind_blob(statement, 1, bytes, (int)n_bytes, SQLITE_TRANSIENT);
        break;
    default:
        n_bytes = hostile_take_u16(input) * 4;
        real = (double)n_bytes / 3;
        if (n_bytes % 8)
            sqlite3_bind_zeroblob(statement, 1, (int)n_bytes);
        else
            sqlite3_bind_double(statement, 1, real);
        break;
    }
}

static void change_cell(sqlite3 *sqlite, const struct table *table, struct hostile_input *input)
{
    static const char *const forms[] = {
        "UPDATE OR REPLACE \"%w\" SET \"%w\" = ?1 WHERE (\"%w\") IN (SELECT \"%w\" FROM \"%w\" LIMIT 1 OFFSET %u)",
        "UPDATE OR REPLACE \"%w\" SET \"%w\" = \"%w\" + ?1 WHERE \"%w\" IN"
        " (SELECT \"%w\" FROM \"%w\" LIMIT 1 OFFSET %u)",
    };
    unsigned row = hostile_take_u8(input), column = hostile_take_u8(input);
    const char *name = table->columns[column / 2 % table->n_columns], *first = table->columns[0];
    char *sql = column % 2 ? sqlite3_mprintf(forms[1], table->name, name, name, first, first, table->name, row % 40)
                           : sqlite3_mprintf(forms[0], table->name, name, first, first, table->name, row % 40);
    sqlite3_stmt *statement = NULL;
    must(sql != NULL);
    if (!sqlite3_prepare_v2(sqlite, sql, -1, &statement, NULL)) {
        bind_value(statement, input);
        sqlite3_step(statement);
    }
    sqlite3_finalize(statement);
    sqlite3_free(sql);
}

static void change_rows(sqlite3 *sqlite, const struct table *table, struct hostile_input *input)
{
    char *sql = sqlite3_mprintf("DELETE FROM \"%w\" WHERE \"%w\" IN (SELECT \"%w\" FROM \"%w\" LIMIT %u OFFSET %u)",
                                table->name, table->columns[0], table->columns[0], table->name,
                                1u + hostile_take_u8(input) % 4, hostile_take_u8(input) % 40u);
    must(sql != NULL);
    run(sqlite, sql);
    sqlite3_free(sql);
}

static void change_by_sql(const char *path, struct hostile_input *input)
{
    static struct table tables[MOST_TABLES];
    sqlite3 *sqlite;
    must(!sqlite3_open_v2(path, &sqlite, SQLITE_OPEN_READWRITE, "unix"));
    run(sqlite, "PRAGMA synchronous = OFF; BEGIN");
    for (unsigned i = 0; i < MOST_CHANGES && input->n; i++) {
        unsigned what = hostile_take_u8(input), n = list_tables(sqlite, tables);
        const struct table *table = n ? &tables[hostile_take_u8(input) % n] : NULL;
        if (what % 8 == 0)
            run(sqlite, STATEMENTS[what / 8 % N_OF(STATEMENTS)]);
        else if (what % 8 == 1 && table)
            change_rows(sqlite, table, input);
        else if (table)
            change_cell(sqlite, table, input);
    }
    run(sqlite, "COMMIT");
    sqlite3_close(sqlite);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4 || size > 2000)
        return 0;
    struct hostile_input input = {data, size};
    unsigned flags = hostile_take_u8(&input), how = hostile_take_u8(&input);
    const char *directory = hostile_directory();
    char path[300];
    struct hostile_image image;
    hostile_copy(hostile_good(flags & WITH_LOG), &image);
    snprintf(path, sizeof path, "%s/catalog.sqlite", directory);
    if (flags & BYTES) {
        hostile_edit(hostile_find(&image, "catalog.sqlite"), &input, MOST_EDITS);
    } else {
        hostile_store(&image, directory);
        change_by_sql(path, &input);
        struct hostile_file *log = hostile_find(&image, "catalog.sqlite-wal");
        if (log)
            hostile_remove(&image, log); /* SQLite has copied it into the main file */
        hostile_load(path, hostile_find(&image, "catalog.sqlite"));
    }
    hostile_stamp_catalog(hostile_find(&image, "catalog.sqlite"));
    hostile_store(&image, directory);
    hostile_release(&image);
    hostile_use(directory, how);
    return 0;
}
