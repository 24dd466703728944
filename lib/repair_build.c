/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/repair_build.c - the new database of a repair (see repair.h)
 *
 *     for each collection
 *         rows of its records, leaf by leaf       -->  key, metadata, text
 *             of each field: the tail, or a page  -->  vectors             -->  vecdb_put, in batches
 *         its index of keys                       -->  keys whose rows are lost: the record, without
 *                                                      metadata and text
 *         what its counts say, less what came     -->  records that are lost altogether
 *
 * Everything is written by the library's own writing path, which refuses what could never have been written: then
 * the record is tried again without the part that it does not take (a doubtful page may hold anything).
 *
 * Rows come in the order of their slots, and slots grow with time: so where pages contradict each other and a key
 * comes twice, a put leaves the newer record. A slot that is dead is passed: its record was deleted or
 * replaced, and a page that still has it is an old image.
 */
#include "repair.h"

#include <stdio.h>

#include "base/numbers.h"

#define BATCH_RECORDS 512u
#define BATCH_BYTES ((size_t)4 << 20)

struct build_field {
    const struct vdb_repair_field *field;
    size_t vector_bytes;
    struct vdb_salvage_lookup *tail; /* NULL: none */
    struct vdb_salvage_vectors *vectors;
    bool is_sure; /* a record without a vector here never had one */
    struct vdb_repair_run lost;
};

struct build_record {
    unsigned char *block; /* all that the record points to */
    uint64_t place;
};

/* Keys as good pages of the index have them, by slot. */
struct indexed_key {
    uint32_t slot;
    int64_t integer;
    char *text; /* NULL: an integer */
    size_t length;
};

struct key_list {
    struct indexed_key *keys;
    size_t n, capacity;
};

struct build {
    struct vdb_repair *repair;
    const struct vdb_repair_truth *truth;
    vecdb *db;
    const struct vdb_repair_collection *source;
    vecdb_collection *target;
    const char *name;
    struct build_field *fields;
    size_t n_fields;
    const struct vdb_slots *dead; /* may be NULL */
    struct vdb_slots *seen;
    struct vdb_slots *in_keys; /* slots in good pages of the index of keys; NULL: it was not looked at */
    bool has_all_keys;         /* no page of the index is missing: a slot that is not in it is no record's */
    struct vdb_slots *doubted; /* slots of records in doubtful pages; NULL: there are none */
    struct key_list keys;      /* what the index says of those */
    struct key_list missing;   /* of records without a row */
    uint64_t n_places, n_saved;
    vecdb_record records[BATCH_RECORDS];
    vecdb_vector *vectors; /* n_fields a record */
    struct build_record own[BATCH_RECORDS];
    size_t n_records, n_bytes;
    struct vdb_repair_run lost_metadata, lost_text, lost_record, lost_documents, doubtful;
};

/* ------------------------------------------------------------------ writing */

static void drop_batch(struct build *build)
{
    for (size_t i = 0; i < build->n_records; i++)
        vdb_free(&build->repair->memory, build->own[i].block);
    build->n_records = build->n_bytes = 0;
}

static void tell_lost(struct build *build, struct vdb_repair_run *run, const vecdb_key *key, uint64_t place)
{
    vdb_repair_run_add(build->repair, run, build->name, key, place);
}

/* Write one record that was refused: without a vector, metadata or text, whichever it is; then without all. */
static int write_reduced(struct build *build, size_t i, uint64_t place, vecdb_error *err)
{
    const vecdb_record whole = build->records[i];
    vecdb_vector *vectors = build->vectors + i * build->n_fields;
    for (size_t part = 0; part < build->n_fields + 2; part++) {
        vecdb_record record = whole;
        const void *values = NULL;
        if (part < build->n_fields) {
            values = vectors[part].values;
            vectors[part].values = NULL;
        } else if (part == build->n_fields) {
            record.metadata = NULL;
        } else {
            record.text = NULL;
        }
        int status = vecdb_put(build->target, &record, 1, err);
        if (part < build->n_fields && status)
            vectors[part].values = values;
        if (status == VECDB_INVALID)
            continue;
        if (!status && part < build->n_fields)
            tell_lost(build, &build->fields[part].lost, &whole.key, place);
        else if (!status)
            tell_lost(build, part == build->n_fields ? &build->lost_metadata : &build->lost_text, &whole.key, place);
        build->n_saved += !status;
        return status;
    }
    vecdb_record bare = {.key = whole.key};
    int status = vecdb_put(build->target, &bare, 1, err);
    if (status && status != VECDB_INVALID)
        return status;
    build->n_saved += !status;
    tell_lost(build, status ? &build->lost_record : &build->lost_documents, &whole.key, place);
    for (size_t f = 0; f < build->n_fields && !status; f++)
        if (vectors[f].values)
            tell_lost(build, &build->fields[f].lost, &whole.key, place);
    return VECDB_OK;
}

static int flush(struct build *build, vecdb_error *err)
{
    if (!build->n_records)
        return VECDB_OK;
    int status = vecdb_put(build->target, build->records, build->n_records, err);
    if (!status)
        build->n_saved += build->n_records;
    if (status == VECDB_INVALID) {
        status = VECDB_OK;
        for (size_t i = 0; i < build->n_records && !status; i++) {
            status = vecdb_put(build->target, &build->records[i], 1, err);
            build->n_saved += !status;
            if (status == VECDB_INVALID)
                status = write_reduced(build, i, build->own[i].place, err);
        }
    }
    build->repair->n_done += build->n_records;
    drop_batch(build);
    return status ? status : vdb_repair_step(build->repair, err);
}

/* ------------------------------------------------------------------ vectors of a record */

struct tail_value {
    size_t n_bytes;
    unsigned char *into;
    bool found, is_doubtful;
};

static int copy_tail(void *context, const struct vdb_salvage_row *row, vecdb_error *err)
{
    (void)err;
    struct tail_value *value = context;
    if (row->n_values != 2 || row->values[1].kind != VDB_VALUE_BLOB || row->values[1].n_bytes != value->n_bytes)
        return VECDB_OK;
    memcpy(value->into, row->values[1].bytes, value->n_bytes);
    value->found = true;
    value->is_doubtful = row->is_doubtful;
    return VECDB_OK;
}

static int find_vector(struct build *build, size_t f, uint32_t slot, const vecdb_key *key, unsigned char *into,
                       bool *found, bool *is_doubtful, vecdb_error *err)
{
    struct build_field *field = &build->fields[f];
    struct tail_value tail = {.n_bytes = field->vector_bytes, .into = into};
    const void *vector = NULL;
    bool is_lost = false;
    int status = field->tail ? vdb_salvage_lookup_row(field->tail, slot, copy_tail, &tail, err) : VECDB_OK;
    if (!status && !tail.found)
        status = vdb_salvage_vector(field->vectors, slot, &vector, &is_lost, err);
    if (status)
        return status;
    if (vector)
        memcpy(into, vector, field->vector_bytes);
    *found = tail.found || vector;
    *is_doubtful |= tail.is_doubtful;
    if (!*found && (is_lost || !field->is_sure))
        tell_lost(build, &field->lost, key, build->n_places);
    return VECDB_OK;
}

static size_t round_up(size_t n)
{
    return (n + 15) / 16 * 16;
}

struct found_record {
    uint32_t slot;
    vecdb_key key;
    const unsigned char *metadata, *text;
    size_t metadata_length, text_length;
    bool is_doubtful;
};

static char *copy_text(unsigned char **at, const void *bytes, size_t n_bytes)
{
    char *copy = (char *)*at;
    memcpy(copy, bytes, n_bytes);
    copy[n_bytes] = '\0';
    *at += round_up(n_bytes + 1);
    return copy;
}

/* Copy a record with its vectors into the batch. */
static int add_record(struct build *build, const struct found_record *found, vecdb_error *err)
{
    size_t n_bytes =
        round_up(found->key.length + 1) + round_up(found->metadata_length + 1) + round_up(found->text_length + 1);
    for (size_t f = 0; f < build->n_fields; f++)
        n_bytes += round_up(build->fields[f].vector_bytes);
    if (build->n_records == BATCH_RECORDS || build->n_bytes + n_bytes > BATCH_BYTES) {
        int status = flush(build, err);
        if (status)
            return status;
    }
    size_t i = build->n_records;
    unsigned char *at = vdb_alloc(&build->repair->memory, n_bytes);
    if (!at)
        return vdb_fail_memory(err, n_bytes);
    build->own[i] = (struct build_record){at, build->n_places};
    build->n_records++;
    build->n_bytes += n_bytes;
    vecdb_record *record = &build->records[i];
    vecdb_vector *vectors = build->vectors + i * build->n_fields;
    *record = (vecdb_record){.key = found->key, .vectors = vectors, .n_vectors = build->n_fields};
    if (found->key.text)
        record->key.text = copy_text(&at, found->key.text, found->key.length);
    if (found->metadata) {
        record->metadata = copy_text(&at, found->metadata, found->metadata_length);
        record->metadata_length = found->metadata_length;
    }
    if (found->text) {
        record->text = copy_text(&at, found->text, found->text_length);
        record->text_length = found->text_length;
    }
    bool is_doubtful = found->is_doubtful;
    for (size_t f = 0; f < build->n_fields; f++) {
        bool has_vector;
        int status = find_vector(build, f, found->slot, &record->key, at, &has_vector, &is_doubtful, err);
        if (status)
            return status;
        const struct vdb_repair_field *field = build->fields[f].field;
        vectors[f] = (vecdb_vector){.field = field->name,
                                    .values = has_vector ? at : NULL,
                                    .dimension = field->field.dimension,
                                    .type = field->field.type};
        at += round_up(build->fields[f].vector_bytes);
    }
    if (is_doubtful)
        tell_lost(build, &build->doubtful, &record->key, build->n_places);
    build->n_places++;
    return VECDB_OK;
}

/* ------------------------------------------------------------------ rows */

static bool get_key(const struct vdb_value *value, vecdb_key *key)
{
    if (value->kind == VDB_VALUE_INTEGER)
        *key = vecdb_key_int(value->integer);
    else if (value->kind == VDB_VALUE_TEXT && value->n_bytes && value->n_bytes <= VECDB_MAX_KEY)
        *key = (vecdb_key){.text = (const char *)value->bytes, .length = value->n_bytes};
    else
        return false;
    return true;
}

/* Is this a record that was not written yet, and was not deleted? */
static bool is_wanted(const struct build *build, uint64_t slot)
{
    return slot < UINT32_MAX && !vdb_slots_has(build->seen, (uint32_t)slot) &&
           !(build->dead && vdb_slots_has(build->dead, (uint32_t)slot));
}

/* ---- keys: the same truth twice, in the record and in the index */

static int note_doubtful(void *context, const struct vdb_salvage_row *row, vecdb_error *err)
{
    (void)err;
    struct build *build = context;
    if (row->is_doubtful && row->rowid < UINT32_MAX)
        vdb_slots_add(build->doubted, (uint32_t)row->rowid);
    return VECDB_OK;
}

static int add_key(struct build *build, struct key_list *list, uint32_t slot, const vecdb_key *key, vecdb_error *err)
{
    struct vdb_memory *memory = &build->repair->memory;
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 64;
        struct indexed_key *more = vdb_realloc_array(memory, list->keys, capacity, sizeof *more);
        if (!more)
            return vdb_fail_memory(err, capacity * sizeof *more);
        list->keys = more;
        list->capacity = capacity;
    }
    struct indexed_key *place = &list->keys[list->n];
    *place = (struct indexed_key){.slot = slot, .integer = key->integer, .length = key->length};
    if (key->text && !(place->text = vdb_strdup(memory, key->text, key->length)))
        return vdb_fail_memory(err, key->length);
    list->n++;
    return VECDB_OK;
}

static void release_keys(struct build *build, struct key_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        vdb_free(&build->repair->memory, list->keys[i].text);
    vdb_free(&build->repair->memory, list->keys);
}

static int compare_keys(const void *a, const void *b)
{
    const struct indexed_key *left = a, *right = b;
    return left->slot < right->slot ? -1 : left->slot > right->slot;
}

static void sort_keys(struct key_list *list)
{
    if (list->n)
        qsort(list->keys, list->n, sizeof *list->keys, compare_keys);
}

static int note_key(void *context, const struct vdb_salvage_row *row, vecdb_error *err)
{
    struct build *build = context;
    vecdb_key key;
    if (row->n_values != 2 || row->is_doubtful || row->values[1].kind != VDB_VALUE_INTEGER ||
        row->values[1].integer < 0 || row->values[1].integer >= UINT32_MAX)
        return VECDB_OK;
    uint32_t slot = (uint32_t)row->values[1].integer;
    vdb_slots_add(build->in_keys, slot);
    if (!vdb_slots_has(build->doubted, slot) || !get_key(&row->values[0], &key))
        return VECDB_OK;
    return add_key(build, &build->keys, slot, &key, err);
}

/* Before records of doubtful pages are read: what does the index say of them? */
static int read_index(struct build *build, vecdb_error *err)
{
    struct vdb_salvage *salvage = build->repair->salvage;
    const struct vdb_repair_collection *source = build->source;
    uint32_t n_unplaced = vdb_salvage_get_report(salvage)->n_unplaced;
    if (!source->records || !source->keys || (!source->records->n_bad && !n_unplaced))
        return VECDB_OK;
    build->has_all_keys = !source->keys->n_bad && !n_unplaced;
    build->in_keys = vdb_slots_new();
    build->doubted = vdb_slots_new();
    if (!build->in_keys || !build->doubted)
        return vdb_fail_memory(err, 64);
    int status = vdb_salvage_rows(salvage, source->records, note_doubtful, build, err);
    if (!status)
        status = vdb_salvage_rows(salvage, source->keys, note_key, build, err);
    sort_keys(&build->keys);
    return status;
}

/* The key of a record in a doubtful page; false: the index knows that there is no such record. */
static bool correct_key(const struct build *build, struct found_record *found)
{
    const struct key_list *list = &build->keys;
    struct indexed_key wanted = {.slot = found->slot};
    if (!found->is_doubtful || !build->in_keys)
        return true;
    const struct indexed_key *known =
        list->n ? bsearch(&wanted, list->keys, list->n, sizeof wanted, compare_keys) : NULL;
    if (known)
        found->key = (vecdb_key){.text = known->text, .length = known->length, .integer = known->integer};
    return known || !build->has_all_keys;
}

static const unsigned char *get_text(struct build *build, const struct vdb_value *value, struct vdb_repair_run *lost,
                                     const vecdb_key *key, size_t *length)
{
    *length = value->kind == VDB_VALUE_TEXT ? value->n_bytes : 0;
    if (value->kind != VDB_VALUE_TEXT && value->kind != VDB_VALUE_NULL)
        tell_lost(build, lost, key, build->n_places);
    /* An empty text has no bytes to point to, and is yet not the same as none. */
    return value->kind != VDB_VALUE_TEXT ? NULL : value->n_bytes ? value->bytes : (const unsigned char *)"";
}

static int read_record(void *context, const struct vdb_salvage_row *row, vecdb_error *err)
{
    struct build *build = context;
    struct found_record found = {.slot = (uint32_t)row->rowid, .is_doubtful = row->is_doubtful};
    if (row->n_values != 4 || !is_wanted(build, row->rowid) || !get_key(&row->values[1], &found.key) ||
        !correct_key(build, &found))
        return VECDB_OK;
    vdb_slots_add(build->seen, found.slot);
    found.metadata = get_text(build, &row->values[2], &build->lost_metadata, &found.key, &found.metadata_length);
    found.text = get_text(build, &row->values[3], &build->lost_text, &found.key, &found.text_length);
    return add_record(build, &found, err);
}

static int note_missing(void *context, const struct vdb_salvage_row *row, vecdb_error *err)
{
    struct build *build = context;
    vecdb_key key;
    if (row->n_values != 2 || row->values[1].kind != VDB_VALUE_INTEGER || row->values[1].integer < 0 ||
        row->is_doubtful || !is_wanted(build, (uint64_t)row->values[1].integer) || !get_key(&row->values[0], &key))
        return VECDB_OK;
    uint32_t slot = (uint32_t)row->values[1].integer;
    if (build->source->is_known && slot >= build->source->next_slot)
        return VECDB_OK;
    return add_key(build, &build->missing, slot, &key, err);
}

/* Records whose rows are lost, by the index of keys. */
static int add_missing(struct build *build, vecdb_error *err)
{
    int status = vdb_salvage_rows(build->repair->salvage, build->source->keys, note_missing, build, err);
    sort_keys(&build->missing);
    build->n_places++; /* they do not follow the last row */
    for (size_t i = 0; i < build->missing.n && !status; i++) {
        const struct indexed_key *key = &build->missing.keys[i];
        struct found_record found = {.slot = key->slot};
        found.key = (vecdb_key){.text = key->text, .length = key->length, .integer = key->integer};
        if (vdb_slots_has(build->seen, key->slot))
            continue;
        if (i && key->slot != key[-1].slot + 1)
            build->n_places++; /* between them is a record that has its row, or none */
        vdb_slots_add(build->seen, found.slot);
        tell_lost(build, &build->lost_documents, &found.key, build->n_places);
        status = add_record(build, &found, err);
    }
    return status;
}

/* ------------------------------------------------------------------ records that are gone */

static int note_tail_slot(void *context, const struct vdb_salvage_row *row, vecdb_error *err)
{
    (void)err;
    if (row->rowid < UINT32_MAX)
        vdb_slots_add(context, (uint32_t)row->rowid);
    return VECDB_OK;
}

struct ranges {
    const struct build *build;
    char text[160];
    size_t used;
    uint64_t n;
    uint32_t first, last;
    unsigned n_ranges;
};

static void end_range(struct ranges *ranges)
{
    if (ranges->n && ranges->n_ranges++ < 3)
        ranges->used += (size_t)snprintf(ranges->text + ranges->used, sizeof ranges->text - ranges->used,
                                         ranges->first == ranges->last ? "%s%u" : "%s%u to %u",
                                         ranges->n_ranges > 1 ? ", " : "", ranges->first, ranges->last);
    else if (ranges->n && ranges->n_ranges == 4)
        ranges->used += (size_t)snprintf(ranges->text + ranges->used, sizeof ranges->text - ranges->used, ", ...");
}

static bool note_lost_slot(void *context, uint32_t slot)
{
    struct ranges *ranges = context;
    if (!is_wanted(ranges->build, slot))
        return true;
    if (!ranges->n || slot != ranges->last + 1) {
        end_range(ranges);
        ranges->first = slot;
    }
    ranges->last = slot;
    ranges->n++;
    return true;
}

/* Records of which neither row nor key was found, by the collection's count and by their vectors. */
static int tell_missing(struct build *build, vecdb_error *err)
{
    struct vdb_repair *repair = build->repair;
    const struct vdb_repair_collection *source = build->source;
    uint64_t n_found = vdb_slots_count(build->seen);
    uint64_t n_missing = source->is_known && source->n_records > n_found ? source->n_records - n_found : 0;
    if (source->is_known && n_found > source->n_records)
        vdb_repair_tell(repair, VECDB_PROBLEM_DOUBTFUL, "catalog.sqlite", build->name,
                        "%.100s: %llu records were found and %llu were counted: some may have been deleted before",
                        build->name, (unsigned long long)n_found, (unsigned long long)source->n_records);
    if (source->is_known && !n_missing)
        return VECDB_OK;
    struct vdb_slots *slots = vdb_slots_new();
    int status = slots ? VECDB_OK : vdb_fail_memory(err, 64);
    for (size_t f = 0; f < build->n_fields && !status; f++) {
        status = vdb_salvage_vectors_slots(build->fields[f].vectors, slots, err);
        if (!status && build->fields[f].field->tail)
            status = vdb_salvage_rows(repair->salvage, build->fields[f].field->tail, note_tail_slot, slots, err);
    }
    struct ranges ranges = {.build = build};
    if (!status)
        vdb_slots_each(slots, note_lost_slot, &ranges);
    end_range(&ranges);
    vdb_slots_free(slots);
    if (!source->is_known)
        n_missing = ranges.n;
    if (!status && n_missing && ranges.n)
        vdb_repair_tell(repair, VECDB_PROBLEM_LOST, "catalog.sqlite", build->name,
                        "%.100s: %llu records are lost with their keys (slots %s have vectors)", build->name,
                        (unsigned long long)n_missing, ranges.text);
    else if (!status && n_missing)
        vdb_repair_tell(repair, VECDB_PROBLEM_LOST, "catalog.sqlite", build->name,
                        "%.100s: %llu records are lost with their keys", build->name, (unsigned long long)n_missing);
    return status;
}

/* ------------------------------------------------------------------ collections */

static void tell_vectors(void *context, const char *file, const char *message)
{
    struct build *build = context;
    vdb_repair_tell(build->repair, VECDB_PROBLEM_DAMAGED, file, build->name, "%s", message);
}

static int open_field(struct build *build, struct build_field *to, vecdb_error *err)
{
    struct vdb_repair *repair = build->repair;
    const struct vdb_repair_truth *truth = build->truth;
    const struct vdb_repair_field *field = to->field;
    struct vdb_salvage_field what = {field->id, build->source->store, field->field.type, field->field.dimension};
    struct vdb_salvage_extent *extents = vdb_alloc_array(&repair->memory, truth->n_extents + 1, sizeof *extents);
    size_t n = 0;
    if (!extents)
        return vdb_fail_memory(err, truth->n_extents * sizeof *extents);
    for (size_t i = 0; i < truth->n_extents; i++)
        if (truth->extents[i].field == field->id)
            extents[n++] = truth->extents[i].extent;
    to->vector_bytes = vdb_vector_bytes(field->field.type, field->field.dimension);
    to->lost = (struct vdb_repair_run){.kind = VECDB_PROBLEM_LOST,
                                       .verbs = {"loses its vector in field", "lose their vector in field"},
                                       .field = field->name};
    to->is_sure = truth->has_all_extents && field->tail && !field->tail->n_bad &&
                  !vdb_salvage_get_report(repair->salvage)->n_unplaced;
    int status = vdb_salvage_vectors_open(&repair->salvage_options, truth->has_uuid ? truth->uuid : NULL, &what,
                                          extents, n, truth->has_all_extents, tell_vectors, build, &to->vectors, err);
    if (!status && field->tail)
        status = vdb_salvage_lookup_new(repair->salvage, field->tail, &to->tail, err);
    vdb_free(&repair->memory, extents);
    return status;
}

static int open_collection(struct build *build, vecdb_error *err)
{
    struct vdb_repair *repair = build->repair;
    const struct vdb_repair_truth *truth = build->truth;
    vecdb_field *fields = vdb_alloc_array(&repair->memory, truth->n_fields + 1, sizeof *fields);
    build->fields = vdb_alloc_array(&repair->memory, truth->n_fields + 1, sizeof *build->fields);
    build->seen = vdb_slots_new();
    int status = fields && build->fields && build->seen ? VECDB_OK : vdb_fail_memory(err, truth->n_fields);
    for (size_t i = 0; i < truth->n_fields && !status; i++) {
        if (truth->fields[i].collection != build->source->id)
            continue;
        fields[build->n_fields] = truth->fields[i].field;
        fields[build->n_fields].name = truth->fields[i].name;
        struct build_field *to = &build->fields[build->n_fields++];
        *to = (struct build_field){.field = &truth->fields[i]};
        status = open_field(build, to, err);
    }
    if (!status) {
        build->vectors =
            vdb_alloc_array(&repair->memory, (build->n_fields + 1) * BATCH_RECORDS, sizeof *build->vectors);
        if (!build->vectors)
            status = vdb_fail_memory(err, build->n_fields * BATCH_RECORDS * sizeof *build->vectors);
    }
    if (!status)
        status = vecdb_collection_create(build->db, build->name, fields, build->n_fields, VECDB_MUST_BE_NEW,
                                         &build->target, err);
    vdb_free(&repair->memory, fields);
    return status;
}

static void close_collection(struct build *build)
{
    drop_batch(build);
    for (size_t f = 0; f < build->n_fields; f++) {
        vdb_salvage_lookup_free(build->fields[f].tail);
        vdb_salvage_vectors_close(build->fields[f].vectors);
    }
    vdb_free(&build->repair->memory, build->fields);
    vdb_free(&build->repair->memory, build->vectors);
    release_keys(build, &build->keys);
    release_keys(build, &build->missing);
    vdb_slots_free(build->in_keys);
    vdb_slots_free(build->doubted);
    vdb_slots_free(build->seen);
}

static void begin_runs(struct build *build)
{
    const int lost = VECDB_PROBLEM_LOST;
    build->lost_metadata =
        (struct vdb_repair_run){.kind = lost, .verbs = {"loses its metadata", "lose their metadata"}};
    build->lost_text = (struct vdb_repair_run){.kind = lost, .verbs = {"loses its text", "lose their text"}};
    build->lost_record = (struct vdb_repair_run){.kind = lost, .verbs = {"is lost", "are lost"}};
    build->lost_documents =
        (struct vdb_repair_run){.kind = lost, .verbs = {"loses its metadata and text", "lose their metadata and text"}};
    if (build->source->is_known && !build->source->has_documents)
        build->lost_documents = (struct vdb_repair_run){
            .kind = VECDB_PROBLEM_HEALED,
            .verbs = {"was found by its key, and is whole", "were found by their keys, and are whole"}};
    build->doubtful = (struct vdb_repair_run){
        .kind = VECDB_PROBLEM_DOUBTFUL,
        .verbs = {"comes from a page whose checksum is wrong", "come from pages whose checksum is wrong"}};
}

static void end_runs(struct build *build)
{
    struct vdb_repair_run *runs[] = {&build->lost_record, &build->lost_documents, &build->lost_metadata,
                                     &build->lost_text, &build->doubtful};
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++)
        vdb_repair_run_end(build->repair, runs[i], build->name);
    for (size_t f = 0; f < build->n_fields; f++)
        vdb_repair_run_end(build->repair, &build->fields[f].lost, build->name);
}

static int build_collection(struct build *build, vecdb_error *err)
{
    const struct vdb_repair_collection *source = build->source;
    struct vdb_salvage *salvage = build->repair->salvage;
    begin_runs(build);
    int status = open_collection(build, err);
    if (!status)
        status = read_index(build, err);
    if (!status && source->records)
        status = vdb_salvage_rows(salvage, source->records, read_record, build, err);
    if (!status && source->keys)
        status = add_missing(build, err);
    if (!status)
        status = flush(build, err);
    if (!status)
        end_runs(build);
    if (!status)
        status = tell_missing(build, err);
    close_collection(build);
    return status;
}

int vdb_repair_fill(struct vdb_repair *repair, vecdb *db, vecdb_error *err)
{
    const struct vdb_repair_truth *truth = repair->truth;
    for (size_t i = 0; i < truth->n_collections; i++)
        repair->n_total += truth->collections[i].n_records;
    for (size_t i = 0; i < truth->n_collections; i++) {
        struct build *build = vdb_alloc_zero(&repair->memory, sizeof *build);
        if (!build)
            return vdb_fail_memory(err, sizeof *build);
        build->repair = repair;
        build->truth = truth;
        build->db = db;
        build->source = &truth->collections[i];
        build->name = build->source->name;
        build->dead = vdb_repair_dead_of(truth, build->source->store);
        int status = build_collection(build, err);
        vdb_free(&repair->memory, build);
        if (status)
            return status;
    }
    return VECDB_OK;
}
