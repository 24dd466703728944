/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/check_collection.c - a collection's rows, compared with each other (see check.c)
 *
 *     records   in [0, next_slot), as many as the count says; keys, metadata, texts make sense
 *     dead      in [0, next_slot), none of them a record's
 *     tail      of every field: a row is of a record or dead, has the right length, holds a vector that may be
 *     extents   their files are there
 *
 * All of it in one read transaction, in which also the files are opened. Whatever cannot be read is told with the
 * part of the collection that it costs, and the rest is gone through nevertheless.
 */
#include "check.h"

#include <stdio.h>

#include "base/numbers.h"

#define CATALOG "catalog.sqlite"

/* Something of the collection cannot be read. */
static int absorb(struct vdb_check_collection *collection, const char *what, int status, const vecdb_error *err)
{
    char advice[300];
    if (!vdb_check_is_finding(status))
        return status;
    const char *name = collection->row.name;
    vdb_check_tell(collection->check, CATALOG, name, "collection \"%.80s\": its %s cannot be read: %s%s", name, what,
                   err->message, vdb_check_advice(collection->check, advice, sizeof advice));
    return VECDB_OK;
}

static void tell_table(void *context, const char *name, const char *message)
{
    struct vdb_check_collection *collection = context;
    char advice[300];
    vdb_check_tell(collection->check, CATALOG, name, "collection \"%.80s\": %s%s", collection->row.name, message,
                   vdb_check_advice(collection->check, advice, sizeof advice));
}

/* ------------------------------------------------------------------ records, dead slots */

static int stop_check(void *context, vecdb_error *err)
{
    return vdb_check_step(context, err);
}

struct dead_count {
    const struct vdb_check_collection *collection;
    uint64_t n_alive, n_beyond;
    uint32_t first_alive;
};

static bool look_at_dead(void *context, uint32_t slot)
{
    struct dead_count *count = context;
    if (vdb_slots_has(count->collection->records, slot) && !count->n_alive++)
        count->first_alive = slot;
    count->n_beyond += slot >= count->collection->row.next_slot;
    return true;
}

static int check_records(struct vdb_check_collection *collection, struct vdb_connection *c, vecdb_error *err)
{
    struct vdb_check *check = collection->check;
    const struct vdb_collection_row *row = &collection->row;
    char message[160];
    int status = vdb_catalog_check_records(c, row, collection->records, stop_check, check, tell_table, collection, err);
    if (status)
        return absorb(collection, "records", status, err);
    if ((status = vdb_dead_read(c, row->store, collection->dead, err)))
        return absorb(collection, "dead slots", status, err);
    struct dead_count count = {.collection = collection};
    vdb_slots_each(collection->dead, look_at_dead, &count);
    if (count.n_alive) {
        snprintf(message, sizeof message, "%llu records, the first of slot %u, are also noted as deleted",
                 (unsigned long long)count.n_alive, count.first_alive);
        tell_table(collection, row->name, message);
    }
    if (count.n_beyond) {
        snprintf(message, sizeof message, "%llu dead slots were never given out", (unsigned long long)count.n_beyond);
        tell_table(collection, row->name, message);
    }
    return VECDB_OK;
}

/* ------------------------------------------------------------------ tails */

struct tail_check {
    struct vdb_check_collection *collection;
    struct vdb_check_field *field;
    void *scratch; /* a vector */
    uint64_t n_orphans;
    uint32_t first_orphan;
    vecdb_error *err;
};

static int check_tail_row(void *context, uint32_t slot, const void *vector, size_t n_bytes)
{
    struct tail_check *tail = context;
    struct vdb_check_collection *collection = tail->collection;
    const struct vdb_field_row *row = &tail->field->row;
    size_t wanted = vdb_vector_bytes(row->type, row->dimension);
    char message[400];
    vecdb_error fault = VECDB_ERROR_INIT;
    if (n_bytes != wanted || !vector) {
        snprintf(message, sizeof message, "the vector of slot %u in the tail of field \"%.80s\" has %zu bytes, not %zu",
                 slot, row->name, n_bytes, wanted);
        tell_table(collection, collection->row.name, message);
    } else if (vdb_check_values(row, slot, vector, row->type, tail->scratch, &fault)) {
        snprintf(message, sizeof message, "in the tail, %.350s", fault.message);
        tell_table(collection, collection->row.name, message);
    }
    vdb_slots_add(tail->field->tail, slot);
    if (!vdb_slots_has(collection->records, slot) && !vdb_slots_has(collection->dead, slot) && !tail->n_orphans++)
        tail->first_orphan = slot;
    return VECDB_OK;
}

static int check_tail(struct vdb_check_collection *collection, struct vdb_check_field *field, struct vdb_connection *c,
                      vecdb_error *err)
{
    struct vdb_memory *memory = &collection->check->db->memory;
    size_t n_bytes = vdb_vector_bytes(field->row.type, field->row.dimension);
    struct tail_check tail = {.collection = collection, .field = field, .err = err};
    char message[200];
    tail.scratch = vdb_alloc_aligned(memory, n_bytes);
    if (!tail.scratch)
        return vdb_fail_memory(err, n_bytes);
    int status = vdb_catalog_check_tail(c, collection->row.name, field->row.id, tell_table, collection, err);
    if (!status)
        status = vdb_tail_read(c, field->row.id, 0, UINT32_MAX - 1, check_tail_row, &tail, err);
    vdb_free_aligned(memory, tail.scratch);
    if (status)
        return absorb(collection, "tail of vectors that are not packed yet", status, err);
    if (tail.n_orphans) {
        snprintf(message, sizeof message, "%llu vectors in the tail of field \"%.80s\", from slot %u on, belong to no "
                 "record", (unsigned long long)tail.n_orphans, field->row.name, tail.first_orphan);
        tell_table(collection, collection->row.name, message);
    }
    return VECDB_OK;
}

/* ------------------------------------------------------------------ extents and their files */

/* Open the file of a generation, once. */
static int get_file(struct vdb_check_collection *collection, struct vdb_check_field *field, uint64_t generation,
                    struct vdb_file **file, vecdb_error *err)
{
    vecdb *db = collection->check->db;
    for (size_t i = 0; i < field->n_files; i++)
        if (field->files[i].generation == generation) {
            *file = field->files[i].file;
            return VECDB_OK;
        }
    struct vdb_check_file *files = vdb_realloc_array(&db->memory, field->files, field->n_files + 1, sizeof *files);
    if (!files)
        return vdb_fail_memory(err, sizeof *files);
    field->files = files;
    char *path = vdb_vector_path(db, field->row.id, generation);
    if (!path)
        return vdb_fail_memory(err, 64);
    *file = NULL;
    vecdb_error own = VECDB_ERROR_INIT;
    int status = db->vfs->open(db->vfs, path, VDB_FILE_SCAN, file, &own);
    vdb_free(&db->memory, path);
    if (status == VECDB_NOMEM)
        return vdb_fail_memory(err, 64);
    files[field->n_files++] = (struct vdb_check_file){generation, status ? NULL : *file};
    if (!status)
        return VECDB_OK;
    *file = NULL;
    collection->is_unsettled |= status == VECDB_NOT_FOUND;
    if (status != VECDB_NOT_FOUND || collection->is_final) {
        char name[64], advice[300];
        snprintf(name, sizeof name, "vectors-%llu-%llu", (unsigned long long)field->row.id,
                 (unsigned long long)generation);
        vdb_check_tell(collection->check, name, collection->row.name,
                       "%s, and with it vectors of field \"%.80s\" of collection \"%.80s\" are not to be had: %s%s",
                       status == VECDB_NOT_FOUND ? "the file is missing" : "the file cannot be opened", field->row.name,
                       collection->row.name, own.message,
                       vdb_check_advice(collection->check, advice, sizeof advice));
    }
    return VECDB_OK;
}

struct extent_list {
    struct vdb_check_collection *collection;
    struct vdb_check_field *field;
    vecdb_error *err;
};

static int list_extent(void *context, const struct vdb_extent_row *row)
{
    struct extent_list *list = context;
    struct vdb_check_field *field = list->field;
    struct vdb_check_extent *extents = field->extents;
    if (!(field->n_extents & (field->n_extents - 1))) { /* room for powers of two */
        size_t room = field->n_extents ? 2 * field->n_extents : 1;
        extents = vdb_realloc_array(&list->collection->check->db->memory, extents, room, sizeof *extents);
        if (!extents)
            return vdb_fail_memory(list->err, room * sizeof *extents);
        field->extents = extents;
    }
    extents[field->n_extents] = (struct vdb_check_extent){.generation = row->generation, .ref = row->ref};
    return get_file(list->collection, field, row->generation, &extents[field->n_extents++].file, list->err);
}

/* ------------------------------------------------------------------ the collection */

static void release_fields(struct vdb_check_collection *collection)
{
    vecdb *db = collection->check->db;
    for (size_t f = 0; f < collection->n_fields; f++) {
        struct vdb_check_field *field = &collection->fields[f];
        for (size_t i = 0; i < field->n_files; i++)
            db->vfs->close(field->files[i].file);
        vdb_free(&db->memory, field->files);
        vdb_free(&db->memory, field->extents);
        vdb_slots_free(field->tail);
    }
    vdb_free(&db->memory, collection->fields);
    vdb_slots_free(collection->records);
    vdb_slots_free(collection->dead);
    collection->fields = NULL;
    collection->records = collection->dead = NULL;
    collection->n_fields = 0;
}

struct field_list {
    struct vdb_check_collection *collection;
    vecdb_error *err;
};

static int list_field(void *context, const struct vdb_field_row *row)
{
    struct field_list *list = context;
    struct vdb_check_collection *collection = list->collection;
    struct vdb_check_field *fields = vdb_realloc_array(&collection->check->db->memory, collection->fields,
                                                       collection->n_fields + 1, sizeof *fields);
    if (!fields)
        return vdb_fail_memory(list->err, sizeof *fields);
    collection->fields = fields;
    fields[collection->n_fields] = (struct vdb_check_field){.row = *row, .tail = vdb_slots_new()};
    if (!fields[collection->n_fields++].tail)
        return vdb_fail_memory(list->err, 64);
    return VECDB_OK;
}

/* What is in the catalog about it. With `is_final` false nothing is told: it was told when this was tried before,
 * or will be when it is tried again. */
static int read_collection(struct vdb_check_collection *collection, struct vdb_connection *c, vecdb_error *err)
{
    collection->records = vdb_slots_new();
    collection->dead = vdb_slots_new();
    if (!collection->records || !collection->dead)
        return vdb_fail_memory(err, 64);
    struct field_list list = {collection, err};
    int status = vdb_field_each(c, collection->row.id, list_field, &list, err);
    if (status)
        return absorb(collection, "list of fields", status, err);
    for (size_t f = 0; f < collection->n_fields && !status; f++) {
        struct extent_list extents = {collection, &collection->fields[f], err};
        status = vdb_extents_read(c, collection->fields[f].row.id, list_extent, &extents, err);
        if (status)
            status = absorb(collection, "list of extents", status, err);
    }
    if (status || (collection->is_unsettled && !collection->is_final))
        return status;
    status = check_records(collection, c, err);
    for (size_t f = 0; f < collection->n_fields && !status; f++)
        status = check_tail(collection, &collection->fields[f], c, err);
    return status;
}

/* One transaction. *found false: there is no such collection any more. */
static int look(struct vdb_check_collection *collection, uint64_t id, bool *found, vecdb_error *err)
{
    struct vdb_connection *c;
    *found = false;
    int status = vdb_read_begin(collection->check->db->catalog, &c, &collection->sequence, err);
    if (status)
        return absorb(collection, "rows", status, err);
    status = vdb_collection_read(c, id, &collection->row, found, err);
    if (status)
        status = absorb(collection, "row", status, err);
    else if (*found)
        status = read_collection(collection, c, err);
    vdb_read_end(c);
    return status;
}

int vdb_check_one_collection(struct vdb_check *check, uint64_t id, vecdb_error *err)
{
    struct vdb_check_collection collection = {.check = check};
    bool found;
    int status = vdb_check_step(check, err);
    snprintf(collection.row.name, sizeof collection.row.name, "number %llu", (unsigned long long)id);
    for (uint64_t missed_at = UINT64_MAX; !status;) {
        collection.is_unsettled = false;
        status = look(&collection, id, &found, err);
        if (status || !found || !collection.is_unsettled || collection.is_final)
            break;
        /* Missing at two looks at the same state: then it is missing. */
        collection.is_final = missed_at == collection.sequence;
        missed_at = collection.sequence;
        release_fields(&collection);
    }
    for (size_t f = 0; f < collection.n_fields && !status; f++)
        status = vdb_check_extents(&collection, &collection.fields[f], err);
    release_fields(&collection);
    return status;
}
