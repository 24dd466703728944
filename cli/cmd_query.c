/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cmd_query.c - vecdb-cli query: the records nearest to one vector
 *
 * The vector comes from the command line, from a row of a file, or from a stored record (--like).
 * A record is like itself most of all, so --like asks for one result more and leaves it out.
 *
 * In a table each member of the metadata has a column of its own, in the order in which members
 * first occur; JSON has the metadata as it was stored.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "input.h"
#include "options.h"
#include "output.h"
#include "queries.h"
#include "values.h"

#define MAX_METADATA_COLUMNS 16 /* more do not fit on any terminal */

/* Results that are shown. */
struct shown {
    vecdb_results *results;
    size_t first, count;
    size_t skip; /* the result that --like leaves out; SIZE_MAX: none */
    double coverage; /* of the index, when it searched */
};

/* ---------------------------------------------------------------- the vector */

static int vector_of_row(const struct options *options, const vecdb_field *field, struct queries *query,
                         vecdb_error *err)
{
    int status = queries_load(query, options, field, options->row + 1, err);
    if (status)
        return status;
    if (query->n_queries <= options->row) {
        char rows[32], row[32];
        return cli_fail(err, VECDB_INVALID, "%s has %s rows, there is no row %s (the first is row 0)", options->queries,
                        format_count(query->n_queries, rows), format_count(options->row, row));
    }
    memmove(query->rows, query->rows + options->row * query->stride, query->stride);
    return VECDB_OK;
}

static int vector_of_text(const struct options *options, const vecdb_field *field, struct queries *query,
                          vecdb_error *err)
{
    struct arena arena = {0};
    const float *values;
    uint32_t dimension;
    int status =
        json_parse_vector(options->vector, strlen(options->vector), &arena, "--vector", &values, &dimension, err);
    if (!status)
        status = queries_from_floats(query, values, dimension, field, "--vector", err);
    arena_release(&arena);
    return status;
}

static int vector_of_key(const struct options *options, vecdb_collection *collection, const vecdb_field *field,
                         const vecdb_key *key, struct queries *query, vecdb_error *err)
{
    vecdb_results *results;
    char shown[KEY_TEXT];
    int status = vecdb_get(collection, key, 1, VECDB_VECTORS, &results, err);
    if (status)
        return status;
    uint32_t dimension;
    int type;
    const void *row = vecdb_result_vector(results, 0, field->name, &dimension, &type);
    if (!vecdb_result_found(results, 0))
        status = cli_fail(err, VECDB_NOT_FOUND, "collection \"%.80s\" has no record with the key %s",
                          options->arguments[1], format_key(key, shown));
    else if (!row)
        status = cli_fail(err, VECDB_NOT_FOUND, "the record with the key %s has no vector in field \"%.80s\"",
                          format_key(key, shown), field->name);
    if (!status) {
        *query = (struct queries){.n_queries = 1, .dimension = dimension, .type = type};
        query->stride = row_bytes(type, dimension);
        query->rows = cli_alloc(query->stride);
        memcpy(query->rows, row, query->stride);
    }
    vecdb_results_free(results);
    return status;
}

static bool same_key(const vecdb_key *a, const vecdb_key *b)
{
    if (!a->text || !b->text)
        return !a->text && !b->text && a->integer == b->integer;
    size_t n = a->length ? a->length : strlen(a->text), m = b->length ? b->length : strlen(b->text);
    return n == m && !memcmp(a->text, b->text, n);
}

/* ---------------------------------------------------------------- the table */

struct metadata_columns {
    const char *names[MAX_METADATA_COLUMNS]; /* owned by the parsed objects */
    size_t n;
};

static void cell_of_json(struct table *table, const json_t *value)
{
    char number[NUMBER_TEXT];
    if (!value) {
        table_cell(table, NULL, 0);
    } else if (json_is_string(value)) {
        table_cell(table, json_string_value(value), json_string_length(value));
    } else if (json_is_real(value)) {
        table_cell_string(table, format_double(json_real_value(value), number));
    } else {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        table_cell_string(table, text);
        free(text);
    }
}

/* Parses the metadata of all results; a NULL where there is none. */
static json_t **parse_metadata(const struct shown *shown, struct metadata_columns *columns)
{
    json_t **objects = cli_alloc_array(shown->count + 1, sizeof *objects);
    for (size_t i = 0; i < shown->count; i++) {
        size_t length;
        const char *metadata = vecdb_result_metadata(shown->results, shown->first + i, &length), *name;
        json_t *value;
        objects[i] = metadata ? json_loadb(metadata, length, JSON_ALLOW_NUL, NULL) : NULL;
        json_object_foreach(objects[i], name, value)
        {
            size_t c = 0;
            while (c < columns->n && strcmp(columns->names[c], name))
                c++;
            if (c == columns->n && c < MAX_METADATA_COLUMNS)
                columns->names[columns->n++] = name;
        }
    }
    return objects;
}

static void put_row(struct table *table, const struct shown *shown, size_t i, const json_t *metadata,
                    const struct metadata_columns *columns, bool text)
{
    char number[NUMBER_TEXT];
    vecdb_key key = vecdb_result_key(shown->results, i);
    table_cell_key(table, &key);
    snprintf(number, sizeof number, "%.4f", vecdb_result_score(shown->results, i));
    table_cell_string(table, number);
    snprintf(number, sizeof number, "%.6g", vecdb_result_distance(shown->results, i));
    table_cell_string(table, number);
    for (size_t c = 0; c < columns->n; c++)
        cell_of_json(table, json_object_get(metadata, columns->names[c]));
    if (text)
        table_cell(table, vecdb_result_text(shown->results, i), vecdb_result_text_length(shown->results, i));
}

static void print_table(const struct shown *shown, bool keys_only)
{
    struct table table;
    struct metadata_columns columns = {.n = 0};
    json_t **metadata = parse_metadata(shown, &columns);
    bool text = false;
    for (size_t i = 0; i < shown->count && !keys_only; i++)
        text |= vecdb_result_text(shown->results, shown->first + i) != NULL;
    table_begin(&table, stdout, MODE_TABLE);
    table_column(&table, "key", COLUMN_TEXT);
    table_column(&table, "score", COLUMN_NUMBER);
    table_column(&table, "distance", COLUMN_NUMBER);
    for (size_t c = 0; c < columns.n; c++)
        table_column(&table, columns.names[c], COLUMN_TEXT);
    if (text)
        table_column(&table, "text", COLUMN_TEXT);
    for (size_t i = 0; i < shown->count; i++) {
        if (shown->first + i != shown->skip)
            put_row(&table, shown, shown->first + i, metadata[i], &columns, text);
    }
    table_end(&table);
    for (size_t i = 0; i < shown->count; i++)
        json_decref(metadata[i]);
    free(metadata);
}

static void print_csv(const struct shown *shown, bool keys_only)
{
    struct table table;
    char number[NUMBER_TEXT];
    table_begin(&table, stdout, MODE_CSV);
    table_column(&table, "key", COLUMN_TEXT);
    table_column(&table, "score", COLUMN_NUMBER);
    table_column(&table, "distance", COLUMN_NUMBER);
    if (!keys_only) {
        table_column(&table, "metadata", COLUMN_TEXT);
        table_column(&table, "text", COLUMN_TEXT);
    }
    for (size_t i = shown->first; i < shown->first + shown->count; i++) {
        if (i == shown->skip)
            continue;
        vecdb_key key = vecdb_result_key(shown->results, i);
        size_t length = 0;
        table_cell_key(&table, &key);
        table_cell_string(&table, format_double(vecdb_result_score(shown->results, i), number));
        table_cell_string(&table, format_double(vecdb_result_distance(shown->results, i), number));
        if (keys_only)
            continue;
        const char *metadata = vecdb_result_metadata(shown->results, i, &length);
        table_cell(&table, metadata, length);
        table_cell(&table, vecdb_result_text(shown->results, i), vecdb_result_text_length(shown->results, i));
    }
    table_end(&table);
}

/* ---------------------------------------------------------------- explanation and JSON */

static void put_explain(FILE *out, vecdb_results *results, double coverage)
{
    vecdb_search_stats stats = {.size = sizeof stats};
    if (vecdb_results_stats(results, &stats))
        return;
    fprintf(out, "{\"plan\":\"%s\",\"simd\":\"%s\",\"distances\":%llu,\"rescored\":%llu,\"pages\":%llu",
            stats.plan ? stats.plan : "", stats.simd ? stats.simd : "", (unsigned long long)stats.n_distances,
            (unsigned long long)stats.n_rescored, (unsigned long long)stats.n_pages);
    fprintf(out, ",\"decoded\":%llu,\"bytes\":%llu,\"elapsed_us\":%.1f,\"sequence\":%llu",
            (unsigned long long)stats.n_decoded, (unsigned long long)stats.bytes_scored, (double)stats.elapsed_ns / 1e3,
            (unsigned long long)stats.sequence);
    fprintf(out, ",\"ef\":%u,\"expanded\":%llu,\"reranked\":%llu,\"scanned\":%llu,\"coverage\":%.6f}", stats.ef,
            (unsigned long long)stats.n_expanded, (unsigned long long)stats.n_reranked,
            (unsigned long long)stats.n_scanned, coverage);
}

static void explain_to_people(FILE *out, vecdb_results *results, double coverage)
{
    vecdb_search_stats stats = {.size = sizeof stats};
    char a[32], b[32];
    if (vecdb_results_stats(results, &stats))
        return;
    fprintf(out, "\n  plan       %s\n", stats.plan ? stats.plan : "");
    if (stats.ef) {
        fprintf(out, "  graph      ef %u, %s nodes expanded, %s candidates reranked\n", stats.ef,
                format_count(stats.n_expanded, a), format_count(stats.n_reranked, b));
        fprintf(out, "  scanned    %s vectors that the index does not cover\n", format_count(stats.n_scanned, a));
    }
    if (stats.ef)
        fprintf(out, "  coverage   %.1f %% of the vectors are in the index\n", coverage * 100);
    fprintf(out, "  distances  %s (%s), %s again in double precision\n", format_count(stats.n_distances, a),
            stats.simd ? stats.simd : "", format_count(stats.n_rescored, b));
    fprintf(out, "  pages      %s, %s of them decoded\n", format_count(stats.n_pages, a),
            format_count(stats.n_decoded, b));
    fprintf(out, "  read       %s\n", format_size(stats.bytes_scored, a));
    fprintf(out, "  time       %.3f ms\n", (double)stats.elapsed_ns / 1e6);
    fprintf(out, "  state      %s\n", format_count(stats.sequence, a));
}

static void print_json(const struct options *options, const struct shown *shown, const struct cli_fields *fields)
{
    unsigned parts = PART_DISTANCE | (options->keys_only ? 0 : PART_METADATA | PART_TEXT);
    bool lines = options->mode == MODE_JSONL, any = false;
    if (options->vectors)
        parts |= PART_VECTORS;
    if (!lines)
        fputs("{\"results\":[", stdout);
    for (size_t i = shown->first; i < shown->first + shown->count; i++) {
        if (i == shown->skip)
            continue;
        if (any && !lines)
            putc(',', stdout);
        json_put_record(stdout, shown->results, i, parts, fields);
        if (lines)
            putc('\n', stdout);
        any = true;
    }
    if (lines)
        return;
    putc(']', stdout);
    if (options->explain) {
        fputs(",\"explain\":", stdout);
        put_explain(stdout, shown->results, shown->coverage);
    }
    fputs("}\n", stdout);
}

static void print_results(const struct options *options, const struct shown *shown, const struct cli_fields *fields)
{
    if (options->mode == MODE_TABLE)
        print_table(shown, options->keys_only);
    else if (options->mode == MODE_CSV)
        print_csv(shown, options->keys_only);
    else
        print_json(options, shown, fields);
    if (options->explain && options->mode != MODE_JSON)
        explain_to_people(options->mode == MODE_TABLE ? stdout : stderr, shown->results, shown->coverage);
}

/* ---------------------------------------------------------------- the command */

static int search(const struct options *options, vecdb_collection *collection, const struct cli_fields *fields,
                  const vecdb_field *field, vecdb_error *err)
{
    struct queries query = {0};
    vecdb_results *results = NULL;
    vecdb_key key = options->like ? parse_key(options->like, options->text_keys) : vecdb_key_int(0);
    int status = options->like     ? vector_of_key(options, collection, field, &key, &query, err)
                 : options->vector ? vector_of_text(options, field, &query, err)
                                   : vector_of_row(options, field, &query, err);
    if (status)
        goto done;
    vecdb_query q = {.size = sizeof q, .field = field->name, .vector = query.rows, .n_queries = 1};
    q.dimension = query.dimension;
    q.type = query.type;
    q.k = (uint32_t)options->k;
    q.offset = (uint32_t)options->offset;
    q.exact = options->exact;
    q.recall = options->recall;
    q.ef = (uint32_t)options->ef;
    q.timeout_ms = (uint32_t)options->timeout_ms;
    q.columns =
        (options->keys_only ? VECDB_KEYS_ONLY : VECDB_METADATA | VECDB_TEXT) | (options->vectors ? VECDB_VECTORS : 0);
    if (options->like) { /* the record itself is among the nearest, mostly the first */
        uint64_t k = options->k + options->offset + 1;
        q.k = (uint32_t)(k < VECDB_MAX_K ? k : VECDB_MAX_K);
        q.offset = 0;
    }
    if (options->recall > 0 || options->ef) /* else a scan answers sooner than the index is read */
        cli_load_index(collection, field->name);
    double coverage = options->explain ? cli_index_coverage(collection, field->name) : 1;
    if ((status = vecdb_search(collection, &q, &results, err)))
        goto done;
    struct shown shown = {.results = results, .count = vecdb_results_count(results), .skip = SIZE_MAX};
    shown.coverage = coverage;
    if (options->like) {
        for (size_t i = 0; i < shown.count && shown.skip == SIZE_MAX; i++) {
            vecdb_key other = vecdb_result_key(results, i);
            if (same_key(&key, &other))
                shown.skip = i;
        }
        shown.first = options->offset + (shown.skip <= options->offset);
        size_t last = shown.first + options->k + (shown.skip != SIZE_MAX && shown.skip >= shown.first);
        shown.first = shown.first < shown.count ? shown.first : shown.count;
        shown.count = (last < shown.count ? last : shown.count) - shown.first;
    }
    print_results(options, &shown, fields);
done:
    vecdb_results_free(results);
    queries_release(&query);
    return status;
}

int cmd_query(const struct options *options)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct cli_fields fields = {0};
    const vecdb_field_info *field;
    vecdb_collection *collection;
    vecdb *db = NULL;
    int given = (options->vector != NULL) + (options->queries != NULL) + (options->like != NULL);
    if (given != 1)
        return cli_usage("query takes one of --vector JSON, --queries FILE with --row I, and --like KEY");
    if (options->queries && options->row == OPTION_UNSET)
        return cli_usage("--queries needs --row I: which row of the file, from 0");
    if (!options->queries && options->row != OPTION_UNSET)
        return cli_usage("--row goes with --queries FILE");
    if ((options->recall > 0) + (options->ef > 0) + options->exact > 1)
        return cli_usage("query takes one of --recall R, --ef N and --exact");
    int status = cli_open_collection(options, VECDB_OPEN_READONLY, &db, &collection, &err);
    if (status || (status = cli_fields_read(collection, &fields, &err)) ||
        (status = cli_fields_find(&fields, options->arguments[1], options->field, &field, &err)))
        goto done;
    status = search(options, collection, &fields, &field->field, &err);
done:
    cli_fields_release(&fields);
    vecdb_close(db);
    return cli_report(status, &err);
}
