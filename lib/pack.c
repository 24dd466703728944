/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/pack.c - from the tail into pages
 *
 * The rows come from a view, which has them in memory. They are written and synced without the gate;
 * the commit that follows names the new extents and removes the rows from the tail. A row that is
 * deleted in between is in a page then, and in the dead set as every deleted row is. Rows that are
 * added in between have higher slots than all that are packed here, so that the range of slots
 * removed from the tail holds nothing else.
 *
 *     slots      | extent A |  tail tail  | extent B |  tail  tail tail   (newer rows)
 *     becomes    | extent A | extent C    | extent B | extent D, or B grown |
 */
#include "database.h"


/* Appends of one field; and the range of slots that leaves its tail. */
struct packed_field {
    const struct vdb_view_field *field;
    struct vdb_append *appends;
    size_t n_appends;
};

struct packing {
    vecdb_collection *collection;
    struct vdb_view *view;
    struct packed_field *fields;
};

/* The next row of the tail, in the order of slots. */
struct cursor {
    const struct vdb_view_field *field;
    const struct vdb_slots *dead;
    size_t piece;
    uint32_t row;
};

static bool next_row(struct cursor *cursor, uint32_t *slot, const void **vector)
{
    const struct vdb_view_field *field = cursor->field;
    for (; cursor->piece < field->n_pieces; cursor->piece++, cursor->row = 0) {
        const struct vdb_piece *piece = &field->pieces[cursor->piece];
        struct vdb_block block = {.n_rows = piece->n_rows, .n_runs = piece->n_runs, .runs = piece->chunk->runs};
        while (cursor->row < piece->n_rows) {
            uint32_t row = cursor->row++;
            *slot = vdb_block_slot(&block, row);
            *vector = piece->chunk->rows + row * field->vector_bytes;
            if (!vdb_slots_has(cursor->dead, *slot))
                return true;
        }
    }
    return false;
}

/* The first slot behind `slot` that is another extent's: rows from there on need an extent of their own. */
static uint64_t boundary_after(const struct vdb_view_field *field, uint32_t slot)
{
    for (size_t i = 0; i < field->n_segments; i++)
        if (field->segments[i]->ref.first_slot > slot)
            return field->segments[i]->ref.first_slot;
    return UINT64_MAX;
}

static int begin_append(vecdb *db, struct vdb_connection *c, struct packed_field *packed, struct vdb_field_row *row,
                        uint64_t store, uint32_t slot, vecdb_error *err)
{
    struct vdb_append *appends =
        vdb_realloc_array(&db->memory, packed->appends, packed->n_appends + 1, sizeof *appends);
    if (!appends)
        return vdb_fail_memory(err, sizeof *appends);
    packed->appends = appends;
    struct vdb_append *append = &appends[packed->n_appends];
    int status = vdb_append_open(db, c, row, store, slot, !packed->n_appends, 0, append, err);
    if (status)
        return status;
    packed->n_appends++;
    row->generation = append->row.generation; /* the next one goes into the same file */
    return VECDB_OK;
}

static int end_append(vecdb *db, struct packed_field *packed, vecdb_error *err)
{
    if (!packed->n_appends)
        return VECDB_OK;
    struct vdb_append *append = &packed->appends[packed->n_appends - 1];
    int status = vdb_append_finish(db, append, err);
    vdb_append_release(db, append);
    return status;
}

static int pack_field(struct packing *packing, struct vdb_connection *c, struct packed_field *packed, vecdb_error *err)
{
    vecdb *db = packing->collection->db;
    const struct vdb_view_field *field = packed->field;
    struct vdb_field_row row = field->row;
    struct cursor cursor = {.field = field, .dead = packing->view->dead->set};
    uint64_t boundary = 0;
    uint32_t slot;
    const void *vector;
    int status = VECDB_OK;
    bool is_open = false;
    while (!status && next_row(&cursor, &slot, &vector)) {
        if (slot >= boundary) {
            if (is_open)
                status = end_append(db, packed, err);
            is_open = false;
            if (!status)
                status = begin_append(db, c, packed, &row, packing->view->row.store, slot, err);
            if (status)
                break;
            is_open = true;
            boundary = boundary_after(field, slot);
        }
        status = vdb_extent_writer_add(packed->appends[packed->n_appends - 1].writer, &slot, vector, 1, err);
    }
    if (is_open && !status)
        status = end_append(db, packed, err);
    else if (is_open)
        vdb_append_release(db, &packed->appends[packed->n_appends - 1]);
    return status;
}

static int apply_packing(void *context, struct vdb_transaction *transaction, vecdb_error *err)
{
    struct packing *packing = context;
    struct vdb_view *view = packing->view;
    struct vdb_connection *c = transaction->connection;
    struct vdb_collection_row row;
    bool found;
    int status = vdb_collection_read(c, packing->collection->id, &row, &found, err);
    if (status)
        return status;
    if (!found || row.schema_version != view->row.schema_version || row.store != view->row.store)
        return VECDB_OK; /* dropped or changed meanwhile: what was written is debris */
    for (size_t f = 0; f < view->n_fields && !status; f++) {
        const struct packed_field *packed = &packing->fields[f];
        const struct vdb_view_field *field = packed->field;
        if (!field->n_pieces)
            continue;
        for (size_t i = 0; i < packed->n_appends && !status; i++)
            status = vdb_append_commit(c, &packed->appends[i], err);
        if (!status)
            status = vdb_tail_remove(c, field->row.id, field->pieces[0].first_slot,
                                     field->pieces[field->n_pieces - 1].last_slot, err);
    }
    struct vdb_change change = {.collection = row.id, .kind = VDB_CHANGE_EXTENTS};
    return status ? status : vdb_transaction_log(transaction, &change, err);
}

int vdb_pack(vecdb_collection *collection, vecdb_error *err)
{
    vecdb *db = collection->db;
    struct packing packing = {.collection = collection};
    struct vdb_connection *c;
    uint64_t sequence, n_rows = 0;
    int status = vdb_view_acquire(collection, &packing.view, &c, &sequence, err);
    if (status)
        return status;
    size_t n_fields = packing.view->n_fields;
    packing.fields = vdb_alloc_zero(&db->memory, (n_fields + 1) * sizeof *packing.fields);
    if (!packing.fields)
        status = vdb_fail_memory(err, n_fields * sizeof *packing.fields);
    for (size_t f = 0; f < n_fields && !status; f++) {
        packing.fields[f].field = &packing.view->fields[f];
        n_rows += packing.view->fields[f].n_tail_rows;
        status = pack_field(&packing, c, &packing.fields[f], err);
    }
    vdb_read_end(c);
    if (!status && n_rows)
        status = vdb_commit(db, apply_packing, &packing, err);
    for (size_t f = 0; packing.fields && f < n_fields; f++)
        vdb_free(&db->memory, packing.fields[f].appends);
    vdb_free(&db->memory, packing.fields);
    vdb_view_release(packing.view);
    return status;
}
