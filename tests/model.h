/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/model.h - the oracle of the database: collections and records in plain memory
 *
 *     model_collection    fields, and records in an array that is ordered by key
 *       model_record      key, metadata, text, one vector a field (in the field's type, and as doubles)
 *
 * Everything is done the simplest way: put finds a place and moves what is behind it, a search
 * computes every distance and sorts. Distances follow the order of operations that index/exact.c
 * promises (eight running sums, added in pairs), so that answers can be compared bit by bit and
 * equal distances are equal here too.
 */
#ifndef VDB_TESTS_MODEL_H
#define VDB_TESTS_MODEL_H

#include <math.h>
#include <stdlib.h>

#include "base/numbers.h"
#include "harness.h"

#define MODEL_MAX_FIELDS 6

struct model_field {
    char name[VECDB_MAX_NAME + 1];
    vecdb_field field; /* with defaults filled in; its name points to the one above when asked for */
};

struct model_record {
    vecdb_key key; /* text owned */
    char *metadata, *text;
    void *vectors[MODEL_MAX_FIELDS];  /* in the field's type; NULL: none */
    double *values[MODEL_MAX_FIELDS]; /* not for bits */
};

struct model_collection {
    char name[VECDB_MAX_NAME + 1];
    struct model_field fields[MODEL_MAX_FIELDS];
    size_t n_fields;
    struct model_record *records;
    size_t n_records, capacity;
};

struct model_hit {
    double distance;
    const struct model_record *record;
};

static inline size_t key_length(const vecdb_key *key)
{
    return key->length ? key->length : strlen(key->text);
}

/* Integers first, then texts by their bytes. */
static inline int model_compare_keys(const vecdb_key *a, const vecdb_key *b)
{
    if (!a->text && !b->text)
        return a->integer < b->integer ? -1 : a->integer > b->integer;
    if (!a->text || !b->text)
        return a->text ? 1 : -1;
    size_t left = key_length(a), right = key_length(b);
    int order = memcmp(a->text, b->text, left < right ? left : right);
    return order ? order : left < right ? -1 : left > right;
}

static inline void *model_copy(const void *bytes, size_t n)
{
    void *copy = malloc(n + 1);
    CHECK(copy);
    memcpy(copy, bytes, n);
    ((char *)copy)[n] = '\0';
    return copy;
}

static inline void model_drop_vector(struct model_record *record, size_t f)
{
    free(record->vectors[f]);
    free(record->values[f]);
    record->vectors[f] = NULL;
    record->values[f] = NULL;
}

static inline void model_release_record(struct model_record *record)
{
    for (size_t f = 0; f < MODEL_MAX_FIELDS; f++)
        model_drop_vector(record, f);
    free((char *)(uintptr_t)record->key.text);
    free(record->metadata);
    free(record->text);
}

static inline void model_release(struct model_collection *collection)
{
    for (size_t i = 0; i < collection->n_records; i++)
        model_release_record(&collection->records[i]);
    free(collection->records);
    memset(collection, 0, sizeof *collection);
}

/* The place of a key; *found tells whether it is there. */
static inline size_t model_find(const struct model_collection *collection, const vecdb_key *key, bool *found)
{
    size_t low = 0, high = collection->n_records;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (model_compare_keys(&collection->records[middle].key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *found = low < collection->n_records && !model_compare_keys(&collection->records[low].key, key);
    return low;
}

static inline bool model_delete(struct model_collection *collection, const vecdb_key *key)
{
    bool found;
    size_t i = model_find(collection, key, &found);
    if (!found)
        return false;
    model_release_record(&collection->records[i]);
    memmove(&collection->records[i], &collection->records[i + 1],
            (--collection->n_records - i) * sizeof *collection->records);
    return true;
}

/* An empty record of that key, in place of the one that is there. */
static inline struct model_record *model_put(struct model_collection *collection, const vecdb_key *key)
{
    bool found;
    model_delete(collection, key);
    size_t i = model_find(collection, key, &found);
    if (collection->n_records == collection->capacity) {
        collection->capacity = 2 * collection->capacity + 64;
        collection->records = realloc(collection->records, collection->capacity * sizeof *collection->records);
        CHECK(collection->records);
    }
    struct model_record *record = &collection->records[i];
    memmove(record + 1, record, (collection->n_records++ - i) * sizeof *record);
    *record = (struct model_record){.key = *key};
    if (key->text) {
        record->key.length = key_length(key);
        record->key.text = model_copy(key->text, record->key.length);
    }
    return record;
}

/* Give a record a vector, whose values fit the field's type exactly. `values` has that type. */
static inline void model_set_vector(const struct model_collection *collection, struct model_record *record, size_t f,
                                    const void *values)
{
    const vecdb_field *field = &collection->fields[f].field;
    model_drop_vector(record, f);
    record->vectors[f] = model_copy(values, vdb_vector_bytes(field->type, field->dimension));
    if (field->type == VECDB_BIT)
        return;
    float *floats = malloc(field->dimension * sizeof *floats);
    record->values[f] = malloc(field->dimension * sizeof(double));
    CHECK(floats && record->values[f]);
    vdb_floats_of(field->type, values, field->dimension, floats);
    for (uint32_t i = 0; i < field->dimension; i++)
        record->values[f][i] = (double)floats[i];
    free(floats);
}

static inline double model_sum(const double *a, const double *b, uint32_t n, bool of_squares)
{
    double sums[8] = {0};
    for (uint32_t i = 0; i < n; i++)
        sums[i % 8] += of_squares ? (a[i] - b[i]) * (a[i] - b[i]) : a[i] * b[i];
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

/* `query`: doubles, or packed bits. */
static inline double model_distance(const vecdb_field *field, const void *query, const struct model_record *record,
                                    size_t f)
{
    uint32_t n = field->dimension;
    if (field->metric == VECDB_HAMMING) {
        const unsigned char *a = query, *b = record->vectors[f];
        int n_unequal = 0;
        for (uint32_t i = 0; i < n; i++)
            n_unequal += (a[i / 8] >> i % 8 & 1) != (b[i / 8] >> i % 8 & 1);
        return n_unequal;
    }
    const double *q = query, *x = record->values[f];
    if (field->metric == VECDB_L2)
        return sqrt(model_sum(q, x, n, true));
    double product = model_sum(q, x, n, false);
    if (field->metric == VECDB_IP)
        return 0 - product;
    double distance = 1 - product / sqrt(model_sum(q, q, n, false) * model_sum(x, x, n, false));
    return distance < 0 ? 0 : distance > 2 ? 2 : distance;
}

static inline int model_compare_hits(const void *a, const void *b)
{
    const struct model_hit *left = a, *right = b;
    if (left->distance != right->distance)
        return left->distance < right->distance ? -1 : 1;
    return model_compare_keys(&left->record->key, &right->record->key);
}

/* Every record with a vector in field f, nearest first. The array is the caller's. */
static inline struct model_hit *model_search(const struct model_collection *collection, size_t f, const void *query,
                                             size_t *n_hits)
{
    struct model_hit *hits = malloc((collection->n_records + 1) * sizeof *hits);
    size_t n = 0;
    CHECK(hits);
    for (size_t i = 0; i < collection->n_records; i++)
        if (collection->records[i].vectors[f])
            hits[n++] = (struct model_hit){
                model_distance(&collection->fields[f].field, query, &collection->records[i], f),
                &collection->records[i]};
    qsort(hits, n, sizeof *hits, model_compare_hits);
    *n_hits = n;
    return hits;
}

static inline void model_add_field(struct model_collection *collection, const vecdb_field *field)
{
    struct model_field *to = &collection->fields[collection->n_fields++];
    CHECK(collection->n_fields <= MODEL_MAX_FIELDS);
    memcpy(to->name, field->name, strlen(field->name) + 1);
    to->field = *field;
}

static inline void model_drop_field(struct model_collection *collection, size_t f)
{
    size_t n_behind = --collection->n_fields - f;
    memmove(&collection->fields[f], &collection->fields[f + 1], n_behind * sizeof *collection->fields);
    for (size_t i = 0; i < collection->n_records; i++) {
        struct model_record *record = &collection->records[i];
        model_drop_vector(record, f);
        memmove(&record->vectors[f], &record->vectors[f + 1], n_behind * sizeof *record->vectors);
        memmove(&record->values[f], &record->values[f + 1], n_behind * sizeof *record->values);
        record->vectors[f + n_behind] = NULL;
        record->values[f + n_behind] = NULL;
    }
}

#endif
