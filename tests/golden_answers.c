/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/golden_answers.c - what a database answers, as text (see golden.h)
 */
#include "golden.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_FIELDS 16
#define MOST_COLLECTIONS 16
#define MOST_DIMENSION 64
#define N_QUERIES 3
#define K 10

/* ------------------------------------------------------------------ text */

static void reserve(struct golden_text *text, size_t n)
{
    if (text->n + n < text->capacity)
        return;
    text->capacity = 2 * (text->n + n) + 1024;
    text->bytes = realloc(text->bytes, text->capacity);
    if (!text->bytes)
        abort();
}

__attribute__((format(printf, 2, 3))) static void add(struct golden_text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    reserve(text, 1000);
    int n = vsnprintf(text->bytes + text->n, 1000, format, arguments);
    va_end(arguments);
    if (n < 0 || n >= 1000)
        abort();
    text->n += (size_t)n;
}

/* As a JSON string; NULL is null. */
static void add_string(struct golden_text *text, const char *string, size_t n)
{
    if (!string) {
        add(text, "null");
        return;
    }
    add(text, "\"");
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)string[i];
        add(text, byte == '"' || byte == '\\' ? "\\%c" : byte < 32 ? "\\u%04x" : "%c", byte);
    }
    add(text, "\"");
}

static void add_key(struct golden_text *text, vecdb_key key)
{
    if (key.text)
        add_string(text, key.text, key.length);
    else
        add(text, "%lld", (long long)key.integer);
}

/* ------------------------------------------------------------------ values */

static float half_to_float(unsigned half)
{
    int exponent = (int)(half >> 10 & 31);
    float mantissa = (float)(half & 1023), value = exponent ? 1024 + mantissa : mantissa;
    for (int e = exponent ? exponent : 1; e > 25; e--)
        value *= 2;
    for (int e = exponent ? exponent : 1; e < 25; e++)
        value /= 2;
    return half & 0x8000 ? -value : value;
}

static double value_at(const void *vector, int type, uint32_t j)
{
    const unsigned char *bytes = vector;
    float value;
    uint32_t word;
    switch (type) {
    case VECDB_F32:
        memcpy(&value, bytes + 4 * j, 4);
        return (double)value;
    case VECDB_F16:
        return (double)half_to_float((unsigned)(bytes[2 * j] | bytes[2 * j + 1] << 8));
    case VECDB_BF16:
        word = (uint32_t)(bytes[2 * j] | bytes[2 * j + 1] << 8) << 16;
        memcpy(&value, &word, 4);
        return (double)value;
    case VECDB_I8:
        return (signed char)bytes[j];
    case VECDB_U8:
        return bytes[j];
    default:
        return bytes[j / 8] >> j % 8 & 1;
    }
}

/* ------------------------------------------------------------------ collections */

struct collection {
    char name[VECDB_MAX_NAME + 1];
    char fields[MOST_FIELDS][VECDB_MAX_NAME + 1];
    uint32_t dimensions[MOST_FIELDS];
    int types[MOST_FIELDS];
    size_t n_fields;
};

struct asked {
    struct golden_text *text;
    struct collection collections[MOST_COLLECTIONS];
    size_t n;
};

static int describe(void *context, const vecdb_collection_info *info)
{
    struct asked *asked = context;
    struct golden_text *text = asked->text;
    if (asked->n == MOST_COLLECTIONS || info->n_fields > MOST_FIELDS)
        abort();
    struct collection *collection = &asked->collections[asked->n++];
    strcpy(collection->name, info->name);
    collection->n_fields = info->n_fields;
    add(text, "{\"collection\": ");
    add_string(text, info->name, strlen(info->name));
    add(text, ", \"records\": %llu, \"fields\": [", (unsigned long long)info->n_records);
    for (size_t i = 0; i < info->n_fields; i++) {
        const vecdb_field_info *field = &info->fields[i];
        strcpy(collection->fields[i], field->field.name);
        collection->dimensions[i] = field->field.dimension;
        collection->types[i] = field->field.type;
        add(text, "%s{\"name\": ", i ? ", " : "");
        add_string(text, field->field.name, strlen(field->field.name));
        add(text, ", \"dimension\": %u, \"type\": %d, \"metric\": %d, \"index\": %d, \"compression\": %d,"
            " \"vectors\": %llu}",
            field->field.dimension, field->field.type, field->field.metric, field->field.index,
            field->field.compression, (unsigned long long)field->n_vectors);
    }
    add(text, "]}\n");
    return 0;
}

static void add_record(struct golden_text *text, const struct collection *of, vecdb_results *results, size_t i)
{
    size_t n_metadata = 0, n_found = 0;
    const char *metadata = vecdb_result_metadata(results, i, &n_metadata), *document = vecdb_result_text(results, i);
    add(text, "{\"record\": {\"collection\": ");
    add_string(text, of->name, strlen(of->name));
    add(text, ", \"key\": ");
    add_key(text, vecdb_result_key(results, i));
    add(text, ", \"metadata\": ");
    add_string(text, metadata, n_metadata);
    add(text, ", \"text\": ");
    add_string(text, document, vecdb_result_text_length(results, i));
    add(text, ", \"vectors\": {");
    for (size_t f = 0; f < of->n_fields; f++) {
        uint32_t dimension;
        int type;
        const void *vector = vecdb_result_vector(results, i, of->fields[f], &dimension, &type);
        if (!vector)
            continue;
        add(text, n_found++ ? ", " : "");
        add_string(text, of->fields[f], strlen(of->fields[f]));
        for (uint32_t j = 0; j < dimension; j++)
            add(text, "%s%.9g", j ? ", " : ": [", value_at(vector, type, j));
        add(text, "]");
    }
    add(text, "}}}\n");
}

static int scan(vecdb_collection *collection, const struct collection *of, struct golden_text *text, vecdb_error *err)
{
    vecdb_scan_options options = {.size = sizeof options, .columns = VECDB_METADATA | VECDB_TEXT | VECDB_VECTORS};
    vecdb_scan *walk;
    int status = vecdb_scan_open(collection, &options, &walk, err);
    if (status)
        return status;
    for (size_t n = 1; n && !status;) {
        vecdb_results *results;
        if ((status = vecdb_scan_next(walk, &results, err)))
            break;
        n = vecdb_results_count(results);
        for (size_t i = 0; i < n; i++)
            add_record(text, of, results, i);
        vecdb_results_free(results);
    }
    vecdb_scan_close(walk);
    return status;
}

static int search(vecdb_collection *collection, const struct collection *of, size_t f, struct golden_text *text,
                  vecdb_error *err)
{
    float rows[N_QUERIES][MOST_DIMENSION];
    unsigned char bits[N_QUERIES][MOST_DIMENSION / 8];
    bool is_bits = of->types[f] == VECDB_BIT;
    uint32_t dimension = of->dimensions[f];
    for (uint32_t i = 0; i < N_QUERIES; i++)
        for (uint32_t j = 0; j < MOST_DIMENSION; j++) {
            rows[i][j] = (float)((i * 29 + j * 13) % 37 + 1) / 8;
            bits[i][j / 8] = (unsigned char)(i * 77 + j / 8 * 3);
        }
    for (uint32_t i = 0; i < N_QUERIES && is_bits && dimension % 8; i++)
        bits[i][dimension / 8] &= (unsigned char)((1 << dimension % 8) - 1);
    vecdb_query query = {.size = sizeof query,
                         .field = of->fields[f],
                         .vector = is_bits ? (const void *)bits : rows,
                         .n_queries = N_QUERIES,
                         .stride = is_bits ? sizeof bits[0] : sizeof rows[0],
                         .dimension = dimension,
                         .k = K,
                         .exact = 1,
                         .columns = VECDB_KEYS_ONLY};
    vecdb_results *results;
    int status = vecdb_search(collection, &query, &results, err);
    if (status)
        return status;
    for (size_t i = 0; i < N_QUERIES; i++) {
        size_t first, n;
        vecdb_results_range(results, i, &first, &n);
        add(text, "{\"search\": ");
        add_string(text, of->fields[f], strlen(of->fields[f]));
        add(text, ", \"collection\": ");
        add_string(text, of->name, strlen(of->name));
        add(text, ", \"query\": %zu, \"hits\": [", i);
        for (size_t hit = first; hit < first + n; hit++) {
            add(text, hit == first ? "[" : ", [");
            add_key(text, vecdb_result_key(results, hit));
            add(text, ", %.17g]", vecdb_result_distance(results, hit));
        }
        add(text, "]}\n");
    }
    vecdb_results_free(results);
    return VECDB_OK;
}

/* ------------------------------------------------------------------ a database */

static int open_it(const char *directory, int mode, const char *snapshot, vecdb **db, vecdb_error *err)
{
    vecdb_options options = {.size = sizeof options, .mode = mode, .threads = VECDB_THREADS_NONE, .snapshot = snapshot};
    return vecdb_open(directory, &options, db, err);
}

static int ask(vecdb *db, struct golden_text *text, vecdb_error *err)
{
    struct asked *asked = calloc(1, sizeof *asked);
    if (!asked)
        abort();
    asked->text = text;
    int status = vecdb_collections(db, describe, asked, err);
    for (size_t i = 0; i < asked->n && !status; i++) {
        vecdb_collection *collection;
        status = vecdb_collection_open(db, asked->collections[i].name, &collection, err);
        if (!status)
            status = scan(collection, &asked->collections[i], text, err);
        for (size_t f = 0; f < asked->collections[i].n_fields && !status; f++)
            status = search(collection, &asked->collections[i], f, text, err);
    }
    free(asked);
    return status;
}

struct names {
    char names[8][VECDB_MAX_NAME + 1];
    size_t n;
};

static int note_name(void *context, const vecdb_snapshot_info *info)
{
    struct names *names = context;
    if (names->n < 8)
        strcpy(names->names[names->n++], info->name);
    return 0;
}

int golden_answers(const char *directory, int mode, struct golden_text *text, vecdb_error *err)
{
    struct names names = {.n = 0};
    vecdb *db;
    int status = open_it(directory, mode, NULL, &db, err);
    if (status)
        return status;
    status = ask(db, text, err);
    if (!status)
        status = vecdb_snapshots(db, note_name, &names, err);
    vecdb_close(db);
    for (size_t i = 0; i < names.n && !status; i++) {
        if ((status = open_it(directory, VECDB_OPEN_READONLY, names.names[i], &db, err)))
            break;
        add(text, "{\"snapshot\": ");
        add_string(text, names.names[i], strlen(names.names[i]));
        add(text, "}\n");
        status = ask(db, text, err);
        vecdb_close(db);
    }
    return status;
}
