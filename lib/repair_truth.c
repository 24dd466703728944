/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/repair_truth.c - the tables of a damaged catalog, put in order (see repair.h)
 *
 * Rows are taken as they are found and believed only as far as they could have been written: numbers in their
 * ranges, names of valid UTF-8, ids once. What is missing is made up where the rest tells enough of it:
 *
 *     a collection's row    its store is known by the table of its records, its name by the index of names; without
 *                           that it is "recovered-<id>"
 *     a field's row         dimension and type are in its pages, its store in the header of its files, its name in the
 *                           index of names; what cannot be known is the metric
 *     sqlite_schema         trees without a name: records by their number and highest slot, tails by the bytes
 *                           of a vector, where only one fits
 *
 * Made up is only what the lost pages can have held: when all of `fields` could be read, a file of an unknown field
 * is the debris of one that was dropped.
 */
#include "repair.h"

#include <stdio.h>

#include "base/bytes.h"
#include "base/numbers.h"
#include "base/utf8.h"

#define CHUNK_SLOTS 16384u
#define MOST_ID ((uint64_t)1 << 62)

struct reading {
    struct vdb_repair *repair;
    struct vdb_repair_truth *truth;
};

/* ------------------------------------------------------------------ values */

static bool get_number(const struct vdb_salvage_row *row, uint32_t i, uint64_t low, uint64_t high, uint64_t *number)
{
    if (i >= row->n_values || row->values[i].kind != VDB_VALUE_INTEGER || row->values[i].integer < 0)
        return false;
    *number = (uint64_t)row->values[i].integer;
    return *number >= low && *number <= high;
}

static bool get_name(const struct vdb_salvage_row *row, uint32_t i, char name[VECDB_MAX_NAME + 1])
{
    const struct vdb_value *value = &row->values[i];
    if (i >= row->n_values || value->kind != VDB_VALUE_TEXT || !value->n_bytes || value->n_bytes > VECDB_MAX_NAME ||
        !vdb_utf8_valid((const char *)value->bytes, value->n_bytes))
        return false;
    for (size_t k = 0; k < value->n_bytes; k++)
        if (value->bytes[k] < ' ' || value->bytes[k] == 0x7f)
            return false;
    memcpy(name, value->bytes, value->n_bytes);
    name[value->n_bytes] = '\0';
    return true;
}

/* One more element of an array, zeroed. */
static void *grow(struct vdb_repair *repair, void *array, size_t *n, size_t size, vecdb_error *err)
{
    void *old;
    memcpy(&old, array, sizeof old); /* `array` is the address of a pointer of some type */
    void *more = vdb_realloc_array(&repair->memory, old, *n + 1, size);
    if (!more) {
        vdb_fail_memory(err, (*n + 1) * size);
        return NULL;
    }
    memcpy(array, &more, sizeof more);
    void *element = (char *)more + *n * size;
    memset(element, 0, size);
    ++*n;
    return element;
}

/* ------------------------------------------------------------------ rows of the fixed tables */

static int read_database_row(void *context, const struct vdb_salvage_row *row, vecdb_error *err)
{
    (void)err;
    struct vdb_repair_truth *truth = ((struct reading *)context)->truth;
    uint64_t sequence;
    if (truth->has_database || row->rowid != 1 || row->n_values < 3 || row->values[1].kind != VDB_VALUE_BLOB ||
        row->values[1].n_bytes != 16 || !get_number(row, 2, 0, ((uint64_t)1 << 43) - 1, &sequence))
        return VECDB_OK;
    truth->has_database = truth->has_uuid = true;
    truth->sequence = sequence;
    memcpy(truth->uuid, row->values[1].bytes, 16);
    for (uint32_t i = 3; i < 6 && i < row->n_values; i++)
        if (row->values[i].kind == VDB_VALUE_INTEGER)
            *(i == 3   ? &truth->read_features
              : i == 4 ? &truth->write_features
                       : &truth->encryption) = (uint64_t)row->values[i].integer;
    return VECDB_OK;
}

static int read_collection_row(void *context, const struct vdb_salvage_row *row, vecdb_error *err)
{
    struct reading *reading = context;
    struct vdb_repair_truth *truth = reading->truth;
    struct vdb_repair_collection found = {.id = row->rowid, .is_known = true, .is_doubtful = row->is_doubtful};
    uint64_t has_documents, version;
    if (!row->rowid || row->rowid > MOST_ID || !get_name(row, 1, found.name) ||
        !get_number(row, 2, 0, UINT32_MAX, &found.next_slot) ||
        !get_number(row, 3, 0, found.next_slot, &found.n_records) || !get_number(row, 4, 0, MOST_ID, &version) ||
        !get_number(row, 5, 0, 1, &has_documents) || !get_number(row, 6, 0, MOST_ID, &found.store))
        return VECDB_OK;
    for (size_t i = 0; i < truth->n_collections; i++)
        if (truth->collections[i].id == found.id || truth->collections[i].store == found.store)
            return VECDB_OK;
    found.has_documents = has_documents != 0;
    struct vdb_repair_collection *place =
        grow(reading->repair, &truth->collections, &truth->n_collections, sizeof found, err);
    if (!place)
        return VECDB_NOMEM;
    *place = found;
    return VECDB_OK;
}

static bool is_metric_of(int type, int metric)
{
    return metric >= VECDB_L2 && metric <= VECDB_HAMMING && (metric == VECDB_HAMMING) == (type == VECDB_BIT);
}

static int read_field_row(void *context, const struct vdb_salvage_row *row, vecdb_error *err)
{
    struct reading *reading = context;
    struct vdb_repair_truth *truth = reading->truth;
    struct vdb_repair_field found = {.id = row->rowid, .is_known = true, .is_doubtful = row->is_doubtful};
    uint64_t dimension, type, metric, index, compression;
    if (!row->rowid || row->rowid > MOST_ID || !get_number(row, 1, 1, MOST_ID, &found.collection) ||
        !get_name(row, 2, found.name) || !get_number(row, 3, 1, VECDB_MAX_DIMENSION, &dimension) ||
        !get_number(row, 4, VECDB_F32, VECDB_BIT, &type) || !get_number(row, 5, 0, 255, &metric) ||
        !get_number(row, 6, 0, 255, &index) || !get_number(row, 7, 0, 255, &compression) ||
        !is_metric_of((int)type, (int)metric))
        return VECDB_OK;
    for (size_t i = 0; i < truth->n_fields; i++)
        if (truth->fields[i].id == found.id)
            return VECDB_OK;
    found.field = (vecdb_field){.dimension = (uint32_t)dimension,
                                .type = (int)type,
                                .metric = (int)metric,
                                .index = index <= VECDB_INDEX_HNSW ? (int)index : VECDB_INDEX_AUTO,
                                .compression = compression <= VECDB_COMPRESSION_MAX ? (int)compression : 0};
    struct vdb_repair_field *place = grow(reading->repair, &truth->fields, &truth->n_fields, sizeof found, err);
    if (!place)
        return VECDB_NOMEM;
    *place = found;
    return VECDB_OK;
}

/* Of good pages only. */
static int read_name(void *context, const struct vdb_salvage_row *row, vecdb_error *err)
{
    struct reading *reading = context;
    struct vdb_repair_name found = {0};
    bool is_field = row->n_values == 3;
    if (row->is_doubtful || row->n_values < 2 || row->n_values > 3 ||
        (is_field && !get_number(row, 0, 1, MOST_ID, &found.collection)) || !get_name(row, is_field, found.name) ||
        !get_number(row, row->n_values - 1, 1, MOST_ID, &found.id))
        return VECDB_OK;
    struct vdb_repair_name *place =
        grow(reading->repair, &reading->truth->names, &reading->truth->n_names, sizeof found, err);
    if (!place)
        return VECDB_NOMEM;
    *place = found;
    return VECDB_OK;
}

/* The name that a good page of an index has for a collection (is_field false) or a field. */
static const struct vdb_repair_name *name_of(const struct vdb_repair_truth *truth, uint64_t id, bool is_field)
{
    for (size_t i = 0; i < truth->n_names; i++)
        if (truth->names[i].id == id && (truth->names[i].collection != 0) == is_field)
            return &truth->names[i];
    return NULL;
}

static int read_extent_row(void *context, const struct vdb_salvage_row *row, vecdb_error *err)
{
    struct reading *reading = context;
    struct vdb_repair_truth *truth = reading->truth;
    struct vdb_repair_extent found = {0};
    struct vdb_extent_ref *ref = &found.extent.ref;
    uint64_t first, last, n_pages;
    if (!get_number(row, 1, 1, MOST_ID, &found.field) || !get_number(row, 2, 1, MOST_ID, &found.extent.generation) ||
        !get_number(row, 3, VDB_FILE_HEADER_BYTES, MOST_ID, &ref->offset) ||
        !get_number(row, 4, 1, MOST_ID, &ref->length) || row->values[5].kind != VDB_VALUE_INTEGER ||
        !get_number(row, 6, 1, UINT32_MAX, &ref->n_rows) || !get_number(row, 7, 0, UINT32_MAX - 1, &first) ||
        !get_number(row, 8, first, UINT32_MAX - 1, &last) || !get_number(row, 9, 1, ref->length / 64 + 1, &n_pages))
        return VECDB_OK;
    ref->check = (uint64_t)row->values[5].integer;
    ref->first_slot = (uint32_t)first;
    ref->last_slot = (uint32_t)last;
    ref->n_pages = (uint32_t)n_pages;
    struct vdb_repair_extent *place = grow(reading->repair, &truth->extents, &truth->n_extents, sizeof found, err);
    if (!place)
        return VECDB_NOMEM;
    *place = found;
    return VECDB_OK;
}

static int read_store_row(void *context, const struct vdb_salvage_row *row, vecdb_error *err)
{
    struct reading *reading = context;
    uint64_t collection;
    if (!row->rowid || !get_number(row, 1, 1, MOST_ID, &collection))
        return VECDB_OK;
    struct vdb_repair_store *place =
        grow(reading->repair, &reading->truth->stores, &reading->truth->n_stores, sizeof *place, err);
    if (!place)
        return VECDB_NOMEM;
    *place = (struct vdb_repair_store){row->rowid, collection};
    return VECDB_OK;
}

static int read_snapshot_row(void *context, const struct vdb_salvage_row *row, vecdb_error *err)
{
    struct reading *reading = context;
    struct vdb_repair_snapshot found = {.id = row->rowid};
    if (!row->rowid || row->rowid > MOST_ID || !get_name(row, 1, found.name) ||
        !get_number(row, 2, 0, MOST_ID, &found.sequence) || row->n_values < 4 ||
        row->values[3].kind != VDB_VALUE_INTEGER)
        return VECDB_OK;
    found.created = row->values[3].integer;
    struct vdb_repair_snapshot *place =
        grow(reading->repair, &reading->truth->snapshots, &reading->truth->n_snapshots, sizeof found, err);
    if (!place)
        return VECDB_NOMEM;
    *place = found;
    return VECDB_OK;
}

static struct vdb_slots *dead_set(struct reading *reading, uint64_t store, vecdb_error *err)
{
    struct vdb_repair_truth *truth = reading->truth;
    for (size_t i = 0; i < truth->n_dead; i++)
        if (truth->dead[i].store == store)
            return truth->dead[i].slots;
    struct vdb_slots *slots = vdb_slots_new();
    struct vdb_repair_dead *place =
        slots ? grow(reading->repair, &truth->dead, &truth->n_dead, sizeof *place, err) : NULL;
    if (!place) {
        vdb_slots_free(slots);
        vdb_fail_memory(err, sizeof *place);
        return NULL;
    }
    *place = (struct vdb_repair_dead){store, slots};
    return slots;
}

/* Of doubtful pages nothing is believed: a bit too many here would take a record away. */
static int read_dead_row(void *context, const struct vdb_salvage_row *row, vecdb_error *err)
{
    struct reading *reading = context;
    uint64_t store, chunk;
    if (row->is_doubtful || !get_number(row, 0, 0, MOST_ID, &store) ||
        !get_number(row, 1, 0, UINT32_MAX / CHUNK_SLOTS, &chunk) || row->n_values != 3 ||
        row->values[2].kind != VDB_VALUE_BLOB || row->values[2].n_bytes > CHUNK_SLOTS / 8)
        return VECDB_OK;
    struct vdb_slots *slots = dead_set(reading, store, err);
    if (!slots)
        return VECDB_NOMEM;
    for (size_t i = 0; i < row->values[2].n_bytes * 8; i++)
        if (row->values[2].bytes[i / 8] >> i % 8 & 1)
            vdb_slots_add(slots, (uint32_t)(chunk * CHUNK_SLOTS + i));
    return VECDB_OK;
}

static const struct vdb_salvage_table *find_fixed(const struct vdb_salvage *salvage, enum vdb_table_kind kind)
{
    return vdb_salvage_find(salvage, kind, 0);
}

/* All rows of a fixed table; `is_all` (may be NULL): none of its pages is missing or doubtful. */
static int read_table(struct reading *reading, enum vdb_table_kind kind, vdb_salvage_row_fn each, bool *is_all,
                      vecdb_error *err)
{
    struct vdb_salvage *salvage = reading->repair->salvage;
    const struct vdb_salvage_table *table = find_fixed(salvage, kind);
    if (is_all)
        *is_all = table && !table->n_bad && !vdb_salvage_get_report(salvage)->n_unplaced;
    return table ? vdb_salvage_rows(salvage, table, each, reading, err) : VECDB_OK;
}

int vdb_repair_read_database(struct vdb_repair *repair, struct vdb_repair_truth *truth, vecdb_error *err)
{
    struct reading reading = {.repair = repair, .truth = truth};
    return read_table(&reading, VDB_TABLE_DATABASE, read_database_row, NULL, err);
}

/* ------------------------------------------------------------------ what is missing */

static struct vdb_repair_collection *find_store(const struct vdb_repair_truth *truth, uint64_t store)
{
    for (size_t i = 0; i < truth->n_collections; i++)
        if (truth->collections[i].store == store)
            return &truth->collections[i];
    return NULL;
}

static struct vdb_repair_collection *find_collection(const struct vdb_repair_truth *truth, uint64_t id)
{
    for (size_t i = 0; i < truth->n_collections; i++)
        if (truth->collections[i].id == id)
            return &truth->collections[i];
    return NULL;
}

static struct vdb_repair_field *find_field(const struct vdb_repair_truth *truth, uint64_t id)
{
    for (size_t i = 0; i < truth->n_fields; i++)
        if (truth->fields[i].id == id)
            return &truth->fields[i];
    return NULL;
}

/* Whose store it is; the number of the store itself when that is not known. */
static uint64_t collection_of_store(const struct vdb_repair_truth *truth, uint64_t store)
{
    for (size_t i = 0; i < truth->n_stores; i++)
        if (truth->stores[i].id == store)
            return truth->stores[i].collection;
    return store;
}

static int make_collection(struct vdb_repair *repair, struct vdb_repair_truth *truth, uint64_t store,
                           const struct vdb_salvage_table *records, vecdb_error *err)
{
    uint64_t id = collection_of_store(truth, store);
    if (find_collection(truth, id))
        return VECDB_OK; /* another store of one that is known: being built, or debris */
    struct vdb_repair_collection *place = grow(repair, &truth->collections, &truth->n_collections, sizeof *place, err);
    if (!place)
        return VECDB_NOMEM;
    *place = (struct vdb_repair_collection){
        .id = id, .store = store, .has_documents = true, .records = records, .next_slot = UINT32_MAX};
    const struct vdb_repair_name *name = name_of(truth, id, false);
    if (name) {
        memcpy(place->name, name->name, sizeof place->name);
        return VECDB_OK;
    }
    snprintf(place->name, sizeof place->name, "recovered-%llu", (unsigned long long)id);
    vdb_repair_tell(repair, VECDB_PROBLEM_LOST, "catalog.sqlite", place->name,
                    "the name of a collection is lost; its records are in \"%s\" now", place->name);
    return VECDB_OK;
}

/* Trees of records: those that sqlite_schema names, then those that it does not. */
static int find_records(struct vdb_repair *repair, struct vdb_repair_truth *truth, vecdb_error *err)
{
    struct vdb_salvage *salvage = repair->salvage;
    for (size_t i = 0; i < truth->n_collections; i++) {
        struct vdb_repair_collection *collection = &truth->collections[i];
        collection->records = vdb_salvage_find(salvage, VDB_TABLE_RECORDS, collection->store);
        collection->keys = vdb_salvage_find(salvage, VDB_TABLE_RECORDS_KEYS, collection->store);
    }
    int status = VECDB_OK;
    for (size_t t = 0; t < vdb_salvage_n_tables(salvage) && !status; t++) {
        const struct vdb_salvage_table *table = vdb_salvage_table(salvage, t);
        if (table->kind != VDB_TABLE_RECORDS)
            continue;
        if (table->number && !truth->has_all_collections && !find_store(truth, table->number) && table->n_leaves)
            status = make_collection(repair, truth, table->number, table, err);
        if (table->number || !table->n_guessed)
            continue;
        struct vdb_repair_collection *only = NULL;
        size_t n_fitting = 0;
        for (int exactly = 1; exactly >= 0 && n_fitting != 1; exactly--) {
            n_fitting = 0;
            for (size_t i = 0; i < truth->n_collections; i++) {
                struct vdb_repair_collection *collection = &truth->collections[i];
                if (collection->records || table->last_slot >= collection->next_slot ||
                    (exactly && collection->n_records != table->n_guessed))
                    continue;
                only = collection;
                n_fitting++;
            }
        }
        if (n_fitting == 1)
            only->records = table;
        else
            status = make_collection(repair, truth, MOST_ID + table->root, table, err);
    }
    return status;
}

static int make_field(struct vdb_repair *repair, struct vdb_repair_truth *truth, const struct vdb_salvage_file *file,
                      const struct vdb_repair_collection *collection, vecdb_error *err)
{
    struct vdb_repair_field *place = grow(repair, &truth->fields, &truth->n_fields, sizeof *place, err);
    if (!place)
        return VECDB_NOMEM;
    place->id = file->field;
    place->collection = collection->id;
    place->field = (vecdb_field){
        .dimension = file->dimension, .type = file->type, .metric = file->type == VECDB_BIT ? VECDB_HAMMING : VECDB_L2};
    const struct vdb_repair_name *name = name_of(truth, file->field, true);
    snprintf(place->name, sizeof place->name, "recovered-%llu", (unsigned long long)file->field);
    if (name)
        memcpy(place->name, name->name, sizeof place->name);
    if (!name || place->field.metric != VECDB_HAMMING)
        vdb_repair_tell(repair, VECDB_PROBLEM_LOST, "catalog.sqlite", collection->name,
                        "%.100s: %s of a field of dimension %u %s lost; it is \"%.100s\" now, with metric %s, which "
                        "may have to be another",
                        collection->name, name ? "the metric" : "name and metric", file->dimension, name ? "is" : "are",
                        place->name, vdb_metric_name(place->field.metric));
    return VECDB_OK;
}

/* A row of a doubtful page against what the field's own pages say. */
static void correct_field(struct vdb_repair_field *field, const struct vdb_salvage_file *file)
{
    if (!field->is_doubtful || !file->type || !file->is_whole)
        return;
    field->field.dimension = file->dimension;
    field->field.type = file->type;
    if (!is_metric_of(file->type, field->field.metric))
        field->field.metric = file->type == VECDB_BIT ? VECDB_HAMMING : VECDB_L2;
}

/* Doubtful rows against the indexes of names; what is left to doubt is told. */
static void correct_names(struct vdb_repair *repair, struct vdb_repair_truth *truth)
{
    for (size_t i = 0; i < truth->n_collections; i++) {
        struct vdb_repair_collection *collection = &truth->collections[i];
        const struct vdb_repair_name *name = name_of(truth, collection->id, false);
        if (!collection->is_doubtful)
            continue;
        if (name)
            memcpy(collection->name, name->name, sizeof collection->name);
        vdb_repair_tell(repair, VECDB_PROBLEM_DOUBTFUL, "catalog.sqlite", collection->name,
                        "%.100s: the description of the collection comes from a page whose checksum is wrong",
                        collection->name);
    }
    for (size_t i = 0; i < truth->n_fields; i++) {
        struct vdb_repair_field *field = &truth->fields[i];
        const struct vdb_repair_name *name = name_of(truth, field->id, true);
        if (!field->is_doubtful)
            continue;
        if (name) {
            memcpy(field->name, name->name, sizeof field->name);
            field->collection = name->collection;
        }
        vdb_repair_tell(repair, VECDB_PROBLEM_DOUBTFUL, "catalog.sqlite", NULL,
                        "the description of the field \"%.100s\" (metric %s) comes from a page whose checksum is wrong",
                        field->name, vdb_metric_name(field->field.metric));
    }
}

/* Fields whose rows are lost, by their files. */
static int find_lost_fields(struct vdb_repair *repair, struct vdb_repair_truth *truth, vecdb_error *err)
{
    struct vdb_salvage_file *files = NULL;
    size_t n_files = 0;
    int status =
        vdb_salvage_files(&repair->salvage_options, truth->has_uuid ? truth->uuid : NULL, &files, &n_files, err);
    for (size_t i = 0; i < n_files && !status; i++) {
        struct vdb_repair_field *known = find_field(truth, files[i].field);
        if (known)
            correct_field(known, &files[i]);
        if (!files[i].type || !files[i].is_whole || known)
            continue;
        if (!find_store(truth, files[i].store) && !truth->has_all_collections)
            status = make_collection(repair, truth, files[i].store, NULL, err);
        const struct vdb_repair_collection *collection = find_store(truth, files[i].store);
        if (!status && collection)
            status = make_field(repair, truth, &files[i], collection, err);
    }
    vdb_free(&repair->memory, files);
    return status;
}

static void find_tails(struct vdb_repair *repair, struct vdb_repair_truth *truth)
{
    struct vdb_salvage *salvage = repair->salvage;
    for (size_t f = 0; f < truth->n_fields; f++)
        truth->fields[f].tail = vdb_salvage_find(salvage, VDB_TABLE_TAIL, truth->fields[f].id);
    for (size_t t = 0; t < vdb_salvage_n_tables(salvage); t++) {
        const struct vdb_salvage_table *table = vdb_salvage_table(salvage, t);
        struct vdb_repair_field *only = NULL;
        size_t n_fitting = 0;
        if (table->kind != VDB_TABLE_TAIL || (table->number && find_field(truth, table->number)))
            continue;
        for (size_t f = 0; f < truth->n_fields && !table->number; f++) {
            struct vdb_repair_field *field = &truth->fields[f];
            if (!field->tail && vdb_vector_bytes(field->field.type, field->field.dimension) == table->row_bytes) {
                only = field;
                n_fitting++;
            }
        }
        if (n_fitting == 1)
            only->tail = table;
        else if (table->n_leaves && (!table->number || !truth->has_all_fields))
            vdb_repair_tell(repair, VECDB_PROBLEM_LOST, "catalog.sqlite", NULL,
                            "vectors that were not packed yet are lost: it cannot be told which field they are of "
                            "(%u pages)",
                            table->n_leaves);
    }
}

/* Names must be unique, also those that a doubtful page made equal. */
static void part_names(struct vdb_repair_truth *truth)
{
    for (size_t i = 0; i < truth->n_collections; i++)
        for (size_t k = 0; k < i; k++)
            if (!strcmp(truth->collections[i].name, truth->collections[k].name))
                snprintf(truth->collections[i].name, sizeof truth->collections[i].name, "recovered-%llu",
                         (unsigned long long)truth->collections[i].id);
    for (size_t i = 0; i < truth->n_fields; i++)
        for (size_t k = 0; k < i; k++)
            if (truth->fields[i].collection == truth->fields[k].collection &&
                !strcmp(truth->fields[i].name, truth->fields[k].name))
                snprintf(truth->fields[i].name, sizeof truth->fields[i].name, "recovered-%llu",
                         (unsigned long long)truth->fields[i].id);
}

/* The fields' order is that of their ids. */
static int compare_fields(const void *a, const void *b)
{
    const struct vdb_repair_field *left = a, *right = b;
    return left->id < right->id ? -1 : left->id > right->id;
}

int vdb_repair_read_truth(struct vdb_repair *repair, struct vdb_repair_truth *truth, vecdb_error *err)
{
    struct reading reading = {.repair = repair, .truth = truth};
    int status = VECDB_OK;
    if (!truth->has_database)
        status = vdb_repair_read_database(repair, truth, err);
    if (!status)
        status = read_table(&reading, VDB_TABLE_STORES, read_store_row, NULL, err);
    if (!status)
        status = read_table(&reading, VDB_TABLE_COLLECTIONS, read_collection_row, &truth->has_all_collections, err);
    if (!status)
        status = read_table(&reading, VDB_TABLE_FIELDS, read_field_row, &truth->has_all_fields, err);
    if (!status)
        status = read_table(&reading, VDB_TABLE_COLLECTIONS_NAMES, read_name, NULL, err);
    if (!status)
        status = read_table(&reading, VDB_TABLE_FIELDS_NAMES, read_name, NULL, err);
    if (!status)
        correct_names(repair, truth);
    if (!status)
        status = read_table(&reading, VDB_TABLE_EXTENTS, read_extent_row, &truth->has_all_extents, err);
    if (!status)
        status = read_table(&reading, VDB_TABLE_DEAD, read_dead_row, NULL, err);
    if (!status)
        status = read_table(&reading, VDB_TABLE_SNAPSHOTS, read_snapshot_row, NULL, err);
    if (!status)
        status = find_records(repair, truth, err);
    if (!status && !truth->has_all_fields)
        status = find_lost_fields(repair, truth, err);
    if (status)
        return status;
    if (truth->n_fields)
        qsort(truth->fields, truth->n_fields, sizeof *truth->fields, compare_fields);
    find_tails(repair, truth);
    part_names(truth);
    return VECDB_OK;
}

void vdb_repair_release_truth(struct vdb_repair *repair, struct vdb_repair_truth *truth)
{
    for (size_t i = 0; i < truth->n_dead; i++)
        vdb_slots_free(truth->dead[i].slots);
    vdb_free(&repair->memory, truth->collections);
    vdb_free(&repair->memory, truth->fields);
    vdb_free(&repair->memory, truth->extents);
    vdb_free(&repair->memory, truth->stores);
    vdb_free(&repair->memory, truth->names);
    vdb_free(&repair->memory, truth->dead);
    vdb_free(&repair->memory, truth->snapshots);
    memset(truth, 0, sizeof *truth);
}

const struct vdb_slots *vdb_repair_dead_of(const struct vdb_repair_truth *truth, uint64_t store)
{
    for (size_t i = 0; i < truth->n_dead; i++)
        if (truth->dead[i].store == store)
            return truth->dead[i].slots;
    return NULL;
}
