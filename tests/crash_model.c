/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/crash_model.c - what a database has to hold after a crash, as a number (see crash_model.h)
 */
#include "crash_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/random.h"
#include "crash_work.h"
#include "model.h"

/* ------------------------------------------------------------------ the model */

struct crash_model *crash_model_copy(const struct crash_model *model)
{
    struct crash_model *copy = calloc(1, sizeof *copy); /* rooms that are never touched take no memory */
    CHECK(copy);
    copy->n_tables = model->n_tables;
    copy->n_snapshots = model->n_snapshots;
    copy->n_names = model->n_names;
    copy->n_versions = model->n_versions;
    memcpy(copy->snapshots, model->snapshots, sizeof copy->snapshots);
    for (uint32_t t = 0; t < model->n_tables; t++) {
        const struct crash_table *from = &model->tables[t];
        struct crash_table *to = &copy->tables[t];
        memcpy(to, from, offsetof(struct crash_table, rows));
        memcpy(to->rows, from->rows, from->n_rows * sizeof *from->rows);
        to->n_rows = from->n_rows;
    }
    return copy;
}

void crash_model_free(struct crash_model *model)
{
    free(model);
}

struct crash_row *crash_model_find(struct crash_table *table, int64_t key, bool is_text)
{
    for (uint32_t i = 0; i < table->n_rows; i++)
        if (table->rows[i].key == key && table->rows[i].is_text == is_text)
            return &table->rows[i];
    return NULL;
}

void crash_model_remove(struct crash_table *table, struct crash_row *row)
{
    *row = table->rows[--table->n_rows];
}

struct crash_row *crash_model_put(struct crash_table *table, int64_t key, bool is_text)
{
    struct crash_row *row = crash_model_find(table, key, is_text);
    if (!row && table->n_rows == CRASH_MOST_ROWS)
        return NULL;
    if (!row)
        row = &table->rows[table->n_rows++];
    *row = (struct crash_row){.key = key, .is_text = is_text};
    return row;
}

/* ------------------------------------------------------------------ a row in full */

static void spell_vector(const struct crash_field *field, const struct crash_row *row, unsigned char *out)
{
    struct vdb_random random = {(uint64_t)row->key * 0x9e3779b97f4a7c15u + row->is_text +
                                ((uint64_t)row->version << 32 | field->serial << 1)};
    for (uint32_t i = 0; i < field->dimension; i++) {
        uint64_t bits = vdb_random_next(&random);
        float value = (float)(bits >> 40) * 0x1p-24f;
        if (field->type == VECDB_F32)
            memcpy(out + 4 * (size_t)i, &value, 4);
        else if (field->type == VECDB_BIT && i % 8 == 0)
            out[i / 8] = (unsigned char)bits; /* dimensions are multiples of 8 */
        else if (field->type == VECDB_U8)
            out[i] = (unsigned char)(bits >> 8);
    }
}

static char *spell_text(const struct crash_row *row)
{
    size_t n = row->is_fat ? CRASH_FAT_BYTES : (size_t)(row->key * 7 + row->version) % 90;
    if (!n)
        return NULL;
    char *text = malloc(n + 1);
    CHECK(text);
    struct vdb_random random = {(uint64_t)row->key ^ (uint64_t)row->version << 20};
    for (size_t i = 0; i < n; i++)
        text[i] = (char)('a' + vdb_random_next(&random) % 26);
    text[n] = '\0';
    return text;
}

void crash_row_spell(const struct crash_table *table, const struct crash_row *row, struct crash_words *words,
                     vecdb_record *record)
{
    *record = (vecdb_record){.vectors = words->columns};
    if (row->is_text) {
        snprintf(words->key, sizeof words->key, "key %lld", (long long)row->key);
        record->key = vecdb_key_text(words->key);
    } else {
        record->key = vecdb_key_int(row->key);
    }
    if ((row->key + row->version) % 4) {
        snprintf(words->metadata, sizeof words->metadata, "{\"version\": %u, \"of\": [%lld, true]}", row->version,
                 (long long)row->key);
        record->metadata = words->metadata;
    }
    record->text = words->text = spell_text(row);
    for (uint32_t f = 0; f < table->n_fields; f++) {
        const struct crash_field *field = &table->fields[f];
        if (!(row->vectors >> field->serial & 1))
            continue;
        unsigned char *values = words->vectors[record->n_vectors];
        spell_vector(field, row, values);
        words->columns[record->n_vectors++] =
            (vecdb_vector){.field = field->name, .values = values, .dimension = field->dimension};
    }
}

void crash_words_release(struct crash_words *words)
{
    free(words->text);
    words->text = NULL;
}

/* ------------------------------------------------------------------ digests */

enum { OF_COLLECTION = 1, OF_FIELD, OF_KEY, OF_WORDS, OF_VECTOR, OF_SNAPSHOT };

static uint64_t mix(uint64_t seed, const void *bytes, size_t n)
{
    return XXH3_64bits_withSeed(n ? bytes : "", n, seed);
}

static uint64_t digest_name(uint64_t seed, const char *name)
{
    return mix(seed, name, strlen(name));
}

static uint64_t digest_field(uint64_t collection, const struct crash_field *field)
{
    int numbers[] = {(int)field->dimension, field->type, field->metric, field->compression, field->index};
    return mix(digest_name(collection + OF_FIELD, field->name), numbers, sizeof numbers);
}

static uint64_t digest_key(uint64_t collection, const vecdb_key *key)
{
    if (key->text)
        return mix(collection + OF_KEY, key->text, key->length ? key->length : strlen(key->text));
    return mix(collection - OF_KEY, &key->integer, sizeof key->integer);
}

static uint64_t digest_words(uint64_t key, const char *metadata, size_t metadata_length, const char *text,
                             size_t text_length)
{
    uint64_t digest = metadata ? mix(key + OF_WORDS, metadata, metadata_length) : key;
    return text ? mix(digest + OF_WORDS, text, text_length) : mix(digest, "", 0);
}

static uint64_t digest_vector(uint64_t key, const char *field, const void *vector, size_t n_bytes)
{
    return mix(digest_name(key + OF_VECTOR, field), vector, n_bytes);
}

uint64_t crash_table_digest(const struct crash_table *table)
{
    uint64_t collection = digest_name(OF_COLLECTION, table->name), sum = collection;
    for (uint32_t f = 0; f < table->n_fields; f++)
        sum += digest_field(collection, &table->fields[f]);
    for (uint32_t i = 0; i < table->n_rows; i++) {
        struct crash_words words;
        vecdb_record record;
        crash_row_spell(table, &table->rows[i], &words, &record);
        uint64_t key = digest_key(collection, &record.key);
        sum += digest_words(key, record.metadata, record.metadata ? strlen(record.metadata) : 0, record.text,
                            record.text ? strlen(record.text) : 0);
        for (size_t v = 0, f = 0; v < record.n_vectors; v++) {
            while (strcmp(table->fields[f].name, words.columns[v].field))
                f++;
            sum += digest_vector(key, words.columns[v].field, words.columns[v].values,
                                 vdb_vector_bytes(table->fields[f].type, table->fields[f].dimension));
        }
        crash_words_release(&words);
    }
    return sum;
}

uint64_t crash_snapshot_digest(const char *name, uint64_t data_digest)
{
    return mix(digest_name(OF_SNAPSHOT, name), &data_digest, sizeof data_digest);
}

uint64_t crash_model_data_digest(const struct crash_model *model)
{
    uint64_t sum = 0;
    for (uint32_t t = 0; t < model->n_tables; t++)
        sum += crash_table_digest(&model->tables[t]);
    return sum;
}

uint64_t crash_model_digest(const struct crash_model *model)
{
    uint64_t sum = crash_model_data_digest(model);
    for (uint32_t s = 0; s < model->n_snapshots; s++)
        sum += crash_snapshot_digest(model->snapshots[s].name, model->snapshots[s].digest);
    return sum;
}

/* ------------------------------------------------------------------ a database */

struct schema {
    struct model_collection collections[16];
    uint64_t n_records[16], n_vectors[16][MODEL_MAX_FIELDS];
    size_t n;
};

static int note_collection(void *context, const vecdb_collection_info *info)
{
    struct schema *schema = context;
    if (schema->n == 16 || info->n_fields > MODEL_MAX_FIELDS)
        return 1;
    struct model_collection *collection = &schema->collections[schema->n];
    snprintf(collection->name, sizeof collection->name, "%s", info->name);
    for (size_t f = 0; f < info->n_fields; f++) {
        model_add_field(collection, &info->fields[f].field);
        schema->n_vectors[schema->n][f] = info->fields[f].n_vectors;
    }
    schema->n_records[schema->n++] = info->n_records;
    return 0;
}

static uint64_t digest_result(struct model_collection *collection, uint64_t seed, const vecdb_results *results,
                              size_t i, uint64_t n_vectors[])
{
    vecdb_key id = vecdb_result_key(results, i);
    uint64_t key = digest_key(seed, &id);
    size_t n_metadata = 0;
    const char *metadata = vecdb_result_metadata(results, i, &n_metadata), *text = vecdb_result_text(results, i);
    uint64_t sum = digest_words(key, metadata, n_metadata, text, vecdb_result_text_length(results, i));
    struct model_record *record = collection->capacity ? model_put(collection, &id) : NULL;
    for (size_t f = 0; f < collection->n_fields; f++) {
        const char *name = collection->fields[f].name;
        const vecdb_field *field = &collection->fields[f].field;
        const void *vector = vecdb_result_vector(results, i, name, NULL, NULL);
        if (!vector)
            continue;
        n_vectors[f]++;
        sum += digest_vector(key, name, vector, vdb_vector_bytes(field->type, field->dimension));
        if (record && f == 0)
            model_set_vector(collection, record, f, vector);
    }
    return sum;
}

static uint64_t digest_collection(vecdb_collection *handle, struct model_collection *collection, uint64_t n_expected,
                                  const uint64_t n_vectors[])
{
    uint64_t seed = digest_name(OF_COLLECTION, collection->name), sum = seed, n_records = 0;
    uint64_t n_found[MODEL_MAX_FIELDS] = {0};
    vecdb_scan_options options = {
        .size = sizeof options, .columns = VECDB_METADATA | VECDB_TEXT | VECDB_VECTORS, .batch_rows = 1000};
    vecdb_scan *scan;
    vecdb_error err = VECDB_ERROR_INIT;
    for (size_t f = 0; f < collection->n_fields; f++) {
        const vecdb_field *found = &collection->fields[f].field;
        struct crash_field field = {.dimension = found->dimension,
                                    .type = found->type,
                                    .metric = found->metric,
                                    .compression = found->compression,
                                    .index = found->index};
        snprintf(field.name, sizeof field.name, "%s", collection->fields[f].name);
        sum += digest_field(seed, &field);
    }
    CRASH_OK(err, vecdb_scan_open(handle, &options, &scan, &err));
    for (size_t n = 1; n;) {
        vecdb_results *results;
        CRASH_OK(err, vecdb_scan_next(scan, &results, &err));
        n = vecdb_results_count(results);
        for (size_t i = 0; i < n; i++)
            sum += digest_result(collection, seed, results, i, n_found);
        vecdb_results_free(results);
        n_records += n;
    }
    vecdb_scan_close(scan);
    if (n_records != n_expected)
        CRASH_FAIL("collection \"%s\" has %llu records and says it has %llu", collection->name,
                   (unsigned long long)n_records, (unsigned long long)n_expected);
    for (size_t f = 0; f < collection->n_fields; f++)
        if (n_found[f] != n_vectors[f])
            CRASH_FAIL("field \"%s\" of \"%s\" has %llu vectors and says it has %llu", collection->fields[f].name,
                       collection->name, (unsigned long long)n_found[f], (unsigned long long)n_vectors[f]);
    return sum;
}

/* What a search with an index has found: records that there are, each once, at their distances, in order, and nearly
 * all of the nearest ones. */
static void check_found(const struct model_collection *collection, const void *query, const struct model_hit *hits,
                        size_t n_hits, const vecdb_results *results)
{
    const vecdb_field *field = &collection->fields[0].field;
    size_t n = n_hits < 10 ? n_hits : 10, n_right = 0;
    if (vecdb_results_count(results) != n)
        CRASH_FAIL("an index of \"%s\" finds %zu records, not %zu", collection->name, vecdb_results_count(results),
                   n);
    for (size_t i = 0, at = 0; i < n; i++) {
        vecdb_key key = vecdb_result_key(results, i);
        double distance = vecdb_result_distance(results, i), last = hits[n - 1].distance;
        for (at = 0; at < n_hits && model_compare_keys(&key, &hits[at].record->key); at++)
            continue;
        if (at == n_hits)
            CRASH_FAIL("an index of \"%s\" finds a record that is not there", collection->name);
        double right = model_distance(field, query, hits[at].record, 0), error = 1e-5 * (1 + fabs(right));
        if (fabs(distance - right) > error || (i && distance < vecdb_result_distance(results, i - 1)))
            CRASH_FAIL("an index of \"%s\" says %g of a record at distance %g", collection->name, distance, right);
        for (size_t j = 0; j < i; j++) {
            vecdb_key other = vecdb_result_key(results, j);
            if (!model_compare_keys(&key, &other))
                CRASH_FAIL("an index of \"%s\" finds a record twice", collection->name);
        }
        n_right += right <= last + error;
    }
    if (n_right * 10 < n * 7)
        CRASH_FAIL("an index of \"%s\" finds %zu of the nearest %zu", collection->name, n_right, n);
}

/* The nearest of one of its records, in its first field. */
static void search_collection(vecdb_collection *handle, struct model_collection *collection, uint64_t dice)
{
    const struct model_record *record = &collection->records[dice % collection->n_records];
    const vecdb_field *field = &collection->fields[0].field;
    if (!record->vectors[0])
        return;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_results *results;
    vecdb_query query = {.size = sizeof query,
                         .field = collection->fields[0].name,
                         .vector = record->vectors[0],
                         .type = field->type,
                         .k = 10,
                         .exact = 1,
                         .columns = VECDB_KEYS_ONLY};
    size_t n_hits;
    const void *values = field->type == VECDB_BIT ? record->vectors[0] : (const void *)record->values[0];
    struct model_hit *hits = model_search(collection, 0, values, &n_hits);
    CRASH_OK(err, vecdb_search(handle, &query, &results, &err));
    if (vecdb_results_count(results) != (n_hits < 10 ? n_hits : 10))
        CRASH_FAIL("a search of \"%s\" gives %zu of %zu records", collection->name, vecdb_results_count(results),
                   n_hits);
    for (size_t i = 0; i < vecdb_results_count(results); i++) {
        vecdb_key key = vecdb_result_key(results, i);
        if (model_compare_keys(&key, &hits[i].record->key) || vecdb_result_distance(results, i) != hits[i].distance)
            CRASH_FAIL("a search of \"%s\" gives the wrong record at place %zu", collection->name, i);
    }
    vecdb_results_free(results);
    query.exact = 0;
    query.ef = 400; /* a walk that misses few of so few */
    CRASH_OK(err, vecdb_search(handle, &query, &results, &err));
    check_found(collection, values, hits, n_hits, results);
    vecdb_results_free(results);
    free(hits);
}

uint64_t crash_database_digest(vecdb *db, uint64_t seed)
{
    struct schema *schema = calloc(1, sizeof *schema);
    struct vdb_random random = {seed};
    vecdb_error err = VECDB_ERROR_INIT;
    uint64_t sum = 0;
    CHECK(schema);
    CRASH_OK(err, vecdb_collections(db, note_collection, schema, &err));
    size_t searched = schema->n ? (size_t)vdb_random_below(&random, schema->n) : 0;
    for (size_t i = 0; i < schema->n; i++) {
        struct model_collection *collection = &schema->collections[i];
        vecdb_collection *handle;
        CRASH_OK(err, vecdb_collection_open(db, collection->name, &handle, &err));
        if (i == searched) { /* its records are kept, for the answer to be computed from */
            collection->capacity = 256;
            collection->records = calloc(collection->capacity, sizeof *collection->records);
            CHECK(collection->records);
        }
        sum += digest_collection(handle, collection, schema->n_records[i], schema->n_vectors[i]);
        if (collection->n_records && collection->n_fields)
            search_collection(handle, collection, vdb_random_next(&random));
        model_release(collection);
    }
    free(schema);
    return sum;
}
