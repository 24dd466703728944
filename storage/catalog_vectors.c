/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/catalog_vectors.c - tail, extents, dead slots and the change log (see catalog.h)
 *
 * Dead slots are kept as bitmaps of 16,384 slots, a row each, without trailing zero bytes: at most
 * 2 KiB, so that killing one slot rewrites one page of the catalog, and 10 million slots load as
 * 611 rows.
 *
 * A change's id is its sequence number times 2^20 plus its place in the commit: the log is read
 * from any sequence number on without an index of its own.
 */
#include "catalog.h"


#include "base/bytes.h"
#include "base/error.h"
#include "catalog_sql.h"

#define CHUNK_SLOTS 16384u
#define CHUNK_BYTES (CHUNK_SLOTS / 8)

/* --------------------------------------------------------------------------- tail */

int vdb_tail_add(struct vdb_connection *c, uint64_t field, uint32_t slot, const void *vector, size_t n_bytes,
                 vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_TAIL_ADD, "INSERT INTO tail_%llu(slot, vector) VALUES(?1, ?2)", field,
                             &statement, err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, slot);
    sqlite3_bind_blob64(statement, 2, vector, n_bytes, SQLITE_STATIC);
    return vdb_run(c, statement, "adding a vector", err);
}

int vdb_tail_remove(struct vdb_connection *c, uint64_t field, uint32_t first_slot, uint32_t last_slot,
                    vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_TAIL_REMOVE, "DELETE FROM tail_%llu WHERE slot BETWEEN ?1 AND ?2", field,
                             &statement, err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, first_slot);
    sqlite3_bind_int64(statement, 2, last_slot);
    return vdb_run(c, statement, "removing vectors", err);
}

int vdb_tail_read(struct vdb_connection *c, uint64_t field, uint64_t first_slot, uint64_t last_slot,
                  int (*each)(void *context, uint32_t slot, const void *vector, size_t n_bytes), void *context,
                  vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_TAIL_READ,
                             "SELECT slot, vector FROM tail_%llu WHERE slot BETWEEN ?1 AND ?2 ORDER BY slot", field,
                             &statement, err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)first_slot);
    sqlite3_bind_int64(statement, 2, (sqlite3_int64)last_slot);
    int rc;
    while (!status && (rc = sqlite3_step(statement)) != SQLITE_DONE) {
        if (rc != SQLITE_ROW)
            status = vdb_fail_sqlite(err, c, "reading the tail");
        else
            status = each(context, (uint32_t)sqlite3_column_int64(statement, 0), sqlite3_column_blob(statement, 1),
                          (size_t)sqlite3_column_bytes(statement, 1));
    }
    sqlite3_reset(statement);
    return status;
}

/* In ascending order, so that the slot a row moves to has been left before. */
int vdb_tail_shift(struct vdb_connection *c, uint64_t field, uint64_t shift, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status =
        vdb_prepare(c, VDB_SQL_TAIL_SHIFT, "UPDATE tail_%llu SET slot = slot - ?1", field, &statement, err);
    if (status || !shift)
        return status;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)shift);
    return vdb_run(c, statement, "renumbering vectors", err);
}

int vdb_tail_has_between(struct vdb_connection *c, uint64_t field, uint64_t first, uint64_t last, bool *has,
                         vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_TAIL_BETWEEN, "SELECT 1 FROM tail_%llu WHERE slot > ?1 AND slot < ?2 LIMIT 1",
                             field, &statement, err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)first);
    sqlite3_bind_int64(statement, 2, (sqlite3_int64)last);
    int rc = sqlite3_step(statement);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        status = vdb_fail_sqlite(err, c, "reading the tail");
    sqlite3_reset(statement);
    if (!status)
        *has = rc == SQLITE_ROW;
    return status;
}

/* --------------------------------------------------------------------------- extents */

static int read_extent(sqlite3_stmt *statement, struct vdb_extent_row *row, vecdb_error *err)
{
    sqlite3_int64 first = sqlite3_column_int64(statement, 6), last = sqlite3_column_int64(statement, 7);
    sqlite3_int64 n_rows = sqlite3_column_int64(statement, 5), n_pages = sqlite3_column_int64(statement, 8);
    row->id = (uint64_t)sqlite3_column_int64(statement, 0);
    row->generation = (uint64_t)sqlite3_column_int64(statement, 1);
    row->ref.offset = (uint64_t)sqlite3_column_int64(statement, 2);
    row->ref.length = (uint64_t)sqlite3_column_int64(statement, 3);
    row->ref.check = (uint64_t)sqlite3_column_int64(statement, 4);
    if (first < 0 || last < first || last > UINT32_MAX || n_rows < 1 || n_rows > last - first + 1 || n_pages < 1 ||
        n_pages > n_rows)
        return vdb_fail(err, VECDB_CORRUPT, "catalog.sqlite: extent %llu has impossible values",
                        (unsigned long long)row->id);
    row->ref.n_rows = (uint64_t)n_rows;
    row->ref.first_slot = (uint32_t)first;
    row->ref.last_slot = (uint32_t)last;
    row->ref.n_pages = (uint32_t)n_pages;
    return VECDB_OK;
}

int vdb_extents_read(struct vdb_connection *c, uint64_t field,
                     int (*each)(void *context, const struct vdb_extent_row *row), void *context, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_EXTENTS,
                             "SELECT id, generation, offset, length, check_sum, n_rows, first_slot, last_slot, n_pages"
                             " FROM extents WHERE field = ?1 ORDER BY first_slot",
                             0, &statement, err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)field);
    int rc;
    while (!status && (rc = sqlite3_step(statement)) != SQLITE_DONE) {
        struct vdb_extent_row row;
        if (rc != SQLITE_ROW)
            status = vdb_fail_sqlite(err, c, "reading extents");
        else if (!(status = read_extent(statement, &row, err)))
            status = each(context, &row);
    }
    sqlite3_reset(statement);
    return status;
}

static void bind_extent(sqlite3_stmt *statement, const struct vdb_extent_ref *ref)
{
    sqlite3_bind_int64(statement, 2, (sqlite3_int64)ref->length);
    sqlite3_bind_int64(statement, 3, (sqlite3_int64)ref->check);
    sqlite3_bind_int64(statement, 4, (sqlite3_int64)ref->n_rows);
    sqlite3_bind_int64(statement, 5, ref->first_slot);
    sqlite3_bind_int64(statement, 6, ref->last_slot);
    sqlite3_bind_int64(statement, 7, ref->n_pages);
}

int vdb_extents_put(struct vdb_connection *c, uint64_t field, const struct vdb_extent_row *row, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status;
    if (row->id) {
        status = vdb_prepare(c, VDB_SQL_EXTENT_GROW,
                             "UPDATE extents SET length = ?2, check_sum = ?3, n_rows = ?4, first_slot = ?5,"
                             " last_slot = ?6, n_pages = ?7 WHERE id = ?1",
                             0, &statement, err);
        if (status)
            return status;
        sqlite3_bind_int64(statement, 1, (sqlite3_int64)row->id);
    } else {
        status = vdb_prepare(c, VDB_SQL_EXTENT_ADD,
                             "INSERT INTO extents(field, length, check_sum, n_rows, first_slot, last_slot, n_pages,"
                             " generation, offset) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                             0, &statement, err);
        if (status)
            return status;
        sqlite3_bind_int64(statement, 1, (sqlite3_int64)field);
        sqlite3_bind_int64(statement, 8, (sqlite3_int64)row->generation);
        sqlite3_bind_int64(statement, 9, (sqlite3_int64)row->ref.offset);
    }
    bind_extent(statement, &row->ref);
    return vdb_run(c, statement, "naming an extent", err);
}

int vdb_extents_remove(struct vdb_connection *c, uint64_t id, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_EXTENT_REMOVE, "DELETE FROM extents WHERE id = ?1", 0, &statement, err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)id);
    return vdb_run(c, statement, "removing an extent", err);
}

int vdb_extents_files(struct vdb_connection *c, int (*each)(void *context, uint64_t field, uint64_t generation),
                      void *context, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_EXTENT_FILES, "SELECT DISTINCT field, generation FROM extents", 0, &statement,
                             err);
    if (status)
        return status;
    int rc;
    while (!status && (rc = sqlite3_step(statement)) != SQLITE_DONE) {
        if (rc != SQLITE_ROW)
            status = vdb_fail_sqlite(err, c, "reading extents");
        else
            status = each(context, (uint64_t)sqlite3_column_int64(statement, 0),
                          (uint64_t)sqlite3_column_int64(statement, 1));
    }
    sqlite3_reset(statement);
    return status;
}

/* --------------------------------------------------------------------------- dead slots */

static int set_chunk(struct vdb_connection *c, uint64_t store, uint32_t chunk, const unsigned char *bits,
                     vecdb_error *err)
{
    size_t n_bytes = CHUNK_BYTES;
    while (n_bytes && !bits[n_bytes - 1])
        n_bytes--;
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_DEAD_SET,
                             "INSERT OR REPLACE INTO dead(store, chunk, slots) VALUES(?1, ?2, ?3)", 0, &statement,
                             err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)store);
    sqlite3_bind_int64(statement, 2, chunk);
    sqlite3_bind_blob64(statement, 3, bits, n_bytes, SQLITE_STATIC);
    return vdb_run(c, statement, "noting dead slots", err);
}

static int get_chunk(struct vdb_connection *c, uint64_t store, uint32_t chunk, unsigned char *bits,
                     vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_DEAD_CHUNK, "SELECT slots FROM dead WHERE store = ?1 AND chunk = ?2", 0,
                             &statement, err);
    if (status)
        return status;
    memset(bits, 0, CHUNK_BYTES);
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)store);
    sqlite3_bind_int64(statement, 2, chunk);
    int rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW) {
        size_t n_bytes = (size_t)sqlite3_column_bytes(statement, 0);
        const void *stored = sqlite3_column_blob(statement, 0);
        if (n_bytes > CHUNK_BYTES)
            status = vdb_fail(err, VECDB_CORRUPT, "catalog.sqlite: the table dead holds impossible values");
        else if (n_bytes && stored)
            memcpy(bits, stored, n_bytes);
    } else if (rc != SQLITE_DONE) {
        status = vdb_fail_sqlite(err, c, "reading dead slots");
    }
    sqlite3_reset(statement);
    return status;
}

int vdb_dead_add(struct vdb_connection *c, uint64_t store, const uint32_t *slots, size_t n, vecdb_error *err)
{
    unsigned char bits[CHUNK_BYTES];
    int status = VECDB_OK;
    for (size_t i = 0; i < n && !status;) {
        uint32_t chunk = slots[i] / CHUNK_SLOTS;
        status = get_chunk(c, store, chunk, bits, err);
        for (; i < n && slots[i] / CHUNK_SLOTS == chunk; i++)
            bits[slots[i] % CHUNK_SLOTS / 8] |= (unsigned char)(1 << slots[i] % 8);
        if (!status)
            status = set_chunk(c, store, chunk, bits, err);
    }
    return status;
}

int vdb_dead_read(struct vdb_connection *c, uint64_t store, struct vdb_slots *slots, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_DEAD_READ, "SELECT chunk, slots FROM dead WHERE store = ?1", 0, &statement,
                             err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)store);
    int rc;
    while (!status && (rc = sqlite3_step(statement)) != SQLITE_DONE) {
        if (rc != SQLITE_ROW) {
            status = vdb_fail_sqlite(err, c, "reading dead slots");
            break;
        }
        sqlite3_int64 chunk = sqlite3_column_int64(statement, 0);
        const unsigned char *bits = sqlite3_column_blob(statement, 1);
        int n_bytes = sqlite3_column_bytes(statement, 1);
        if (chunk < 0 || chunk > UINT32_MAX / CHUNK_SLOTS || n_bytes > (int)CHUNK_BYTES) {
            status = vdb_fail(err, VECDB_CORRUPT, "catalog.sqlite: the table dead holds impossible values");
            break;
        }
        for (int i = 0; bits && i < n_bytes; i++)
            for (int bit = 0; bits[i] >> bit; bit++)
                if (bits[i] >> bit & 1)
                    vdb_slots_add(slots, (uint32_t)chunk * CHUNK_SLOTS + (uint32_t)i * 8 + (uint32_t)bit);
    }
    sqlite3_reset(statement);
    return status;
}

/* Gathers the slots of a set into chunks as they come by, in ascending order. */
struct chunk_writer {
    struct vdb_connection *c;
    uint64_t store;
    uint32_t chunk;
    bool is_filled;
    int status;
    vecdb_error *err;
    unsigned char bits[CHUNK_BYTES];
};

static bool write_slot(void *context, uint32_t slot)
{
    struct chunk_writer *writer = context;
    if (writer->is_filled && writer->chunk != slot / CHUNK_SLOTS) {
        writer->status = set_chunk(writer->c, writer->store, writer->chunk, writer->bits, writer->err);
        memset(writer->bits, 0, sizeof writer->bits);
    }
    writer->chunk = slot / CHUNK_SLOTS;
    writer->is_filled = true;
    writer->bits[slot % CHUNK_SLOTS / 8] |= (unsigned char)(1 << slot % 8);
    return writer->status == VECDB_OK;
}

int vdb_dead_replace(struct vdb_connection *c, uint64_t store, const struct vdb_slots *slots, vecdb_error *err)
{
    int status = vdb_execute(c, "DELETE FROM dead WHERE store = %llu", store, err);
    if (status)
        return status;
    struct chunk_writer writer = {.c = c, .store = store, .err = err};
    vdb_slots_each(slots, write_slot, &writer);
    if (!writer.status && writer.is_filled)
        writer.status = set_chunk(c, store, writer.chunk, writer.bits, err);
    return writer.status;
}

/* --------------------------------------------------------------------------- changes */

static sqlite3_int64 first_id_of(uint64_t sequence)
{
    return (sqlite3_int64)(sequence << 20);
}

int vdb_changes_add(struct vdb_connection *c, const struct vdb_change *change, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_CHANGE_ADD,
                             "INSERT INTO changes(id, collection, kind, first_slot, n_slots, dead)"
                             " VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
                             0, &statement, err);
    if (status)
        return status;
    unsigned char *bytes = NULL;
    sqlite3_bind_int64(statement, 1, first_id_of(change->sequence) + change->ordinal);
    sqlite3_bind_int64(statement, 2, (sqlite3_int64)change->collection);
    sqlite3_bind_int(statement, 3, change->kind);
    sqlite3_bind_int64(statement, 4, change->first_slot);
    sqlite3_bind_int64(statement, 5, change->n_slots);
    sqlite3_bind_null(statement, 6);
    if (change->n_dead) {
        bytes = sqlite3_malloc64(change->n_dead * 4);
        if (!bytes) {
            sqlite3_reset(statement);
            return vdb_fail_memory(err, change->n_dead * 4);
        }
        for (size_t i = 0; i < change->n_dead; i++)
            vdb_store_u32(bytes + 4 * i, change->dead[i]);
        sqlite3_bind_blob64(statement, 6, bytes, change->n_dead * 4, sqlite3_free); /* takes the bytes */
    }
    status = vdb_run(c, statement, "logging a change", err);
    sqlite3_clear_bindings(statement);
    return status;
}

static int trimmed_up_to(struct vdb_connection *c, uint64_t *sequence, vecdb_error *err)
{
    sqlite3_stmt *statement;
    int status = vdb_prepare(c, VDB_SQL_CHANGES_TRIMMED, "SELECT sequence FROM changes_trimmed", 0, &statement, err);
    if (status)
        return status;
    int rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW)
        *sequence = (uint64_t)sqlite3_column_int64(statement, 0);
    else if (rc == SQLITE_DONE)
        status = vdb_fail(err, VECDB_CORRUPT, "catalog.sqlite: the table changes_trimmed has no row");
    else
        status = vdb_fail_sqlite(err, c, "reading the change log");
    sqlite3_reset(statement);
    return status;
}

static int tell_change(sqlite3_stmt *statement, int (*each)(void *context, const struct vdb_change *change),
                       void *context, vecdb_error *err)
{
    uint64_t id = (uint64_t)sqlite3_column_int64(statement, 0);
    struct vdb_change change = {.sequence = id >> 20,
                                .ordinal = (uint32_t)(id & 0xfffff),
                                .collection = (uint64_t)sqlite3_column_int64(statement, 1),
                                .kind = sqlite3_column_int(statement, 2),
                                .first_slot = (uint32_t)sqlite3_column_int64(statement, 3),
                                .n_slots = (uint32_t)sqlite3_column_int64(statement, 4)};
    const unsigned char *bytes = sqlite3_column_blob(statement, 5);
    change.n_dead = bytes ? (size_t)sqlite3_column_bytes(statement, 5) / 4 : 0;
    uint32_t *dead = change.n_dead ? sqlite3_malloc64(change.n_dead * 4) : NULL;
    if (change.n_dead && !dead)
        return vdb_fail_memory(err, change.n_dead * 4);
    for (size_t i = 0; i < change.n_dead; i++)
        dead[i] = vdb_load_u32(bytes + 4 * i);
    change.dead = dead;
    int status = each(context, &change);
    sqlite3_free(dead);
    return status;
}

int vdb_changes_read(struct vdb_connection *c, uint64_t collection, uint64_t after, bool *complete,
                     int (*each)(void *context, const struct vdb_change *change), void *context, vecdb_error *err)
{
    uint64_t trimmed = 0;
    int status = trimmed_up_to(c, &trimmed, err);
    if (status)
        return status;
    if (after < trimmed) {
        *complete = false;
        return VECDB_OK;
    }
    sqlite3_stmt *statement;
    status = vdb_prepare(c, VDB_SQL_CHANGES,
                         "SELECT id, collection, kind, first_slot, n_slots, dead FROM changes"
                         " WHERE id >= ?2 AND collection = ?1 ORDER BY id",
                         0, &statement, err);
    if (status)
        return status;
    sqlite3_bind_int64(statement, 1, (sqlite3_int64)collection);
    sqlite3_bind_int64(statement, 2, first_id_of(after + 1));
    int rc;
    while (!status && (rc = sqlite3_step(statement)) != SQLITE_DONE) {
        if (rc != SQLITE_ROW)
            status = vdb_fail_sqlite(err, c, "reading the change log");
        else
            status = tell_change(statement, each, context, err);
    }
    sqlite3_reset(statement);
    if (!status)
        *complete = true;
    return status;
}

int vdb_changes_trim(struct vdb_connection *c, uint64_t up_to, vecdb_error *err)
{
    int status = vdb_execute(c, "DELETE FROM changes WHERE id < %llu", (up_to + 1) << 20, err);
    return status ? status
                  : vdb_execute(c, "UPDATE changes_trimmed SET sequence = max(sequence, %llu)", up_to, err);
}
