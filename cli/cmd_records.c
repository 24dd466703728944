/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cmd_records.c - vecdb-cli get, delete, scan: records by their keys
 *
 * Keys come as arguments and from --keys-file. A missing file of keys is an error before anything
 * is done. Deletion goes in commits of DELETE_ROWS keys, and says in the end how many records
 * there were.
 */
#include <stdlib.h>
#include <string.h>

#include "input.h"
#include "options.h"
#include "output.h"
#include "values.h"

#define DELETE_ROWS 10000
#define KEY_LINE_LIMIT (VECDB_MAX_KEY + 1u)

struct keys {
    vecdb_key *keys;
    size_t n, capacity;
    struct arena arena;
};

static void add_key(struct keys *keys, vecdb_key key)
{
    if (keys->n == keys->capacity) {
        keys->capacity = keys->capacity ? keys->capacity * 2 : 64;
        keys->keys = cli_realloc(keys->keys, keys->capacity * sizeof *keys->keys);
    }
    keys->keys[keys->n++] = key;
}

static int read_keys_file(struct keys *keys, const struct options *options, vecdb_error *err)
{
    struct byte_source source;
    int status = source_open(&source, options->keys_file, err);
    if (status)
        return status;
    struct line_reader lines = {.source = &source, .limit = KEY_LINE_LIMIT};
    for (;;) {
        const char *line;
        size_t length;
        if ((status = line_read(&lines, &line, &length, err)) || !line)
            break;
        if (!length)
            continue;
        if (memchr(line, 0, length)) {
            status = cli_fail(err, VECDB_INVALID, "%s: line %llu holds a zero byte; keys are text", source.name,
                              (unsigned long long)lines.number);
            break;
        }
        add_key(keys, parse_key(arena_copy(&keys->arena, line, length), options->text_keys));
    }
    line_release(&lines);
    source_close(&source);
    return status;
}

static int read_keys(struct keys *keys, const struct options *options, vecdb_error *err)
{
    memset(keys, 0, sizeof *keys);
    for (size_t i = 2; i < options->n_arguments; i++) {
        if (!options->arguments[i][0])
            return cli_fail(err, VECDB_INVALID, "a key is empty");
        add_key(keys, parse_key(options->arguments[i], options->text_keys));
    }
    return options->keys_file ? read_keys_file(keys, options, err) : VECDB_OK;
}

static void release_keys(struct keys *keys)
{
    free(keys->keys);
    arena_release(&keys->arena);
}

/* ---------------------------------------------------------------- printing records */

/* One record for people: a line for each thing that it has. */
static void print_record(const struct options *options, vecdb_results *results, size_t i,
                         const struct cli_fields *fields)
{
    size_t length;
    printf("  key       %s\n", vecdb_result_key_text(results, i));
    const char *metadata = vecdb_result_metadata(results, i, &length);
    if (metadata)
        printf("  metadata  %.*s\n", (int)length, metadata);
    const char *text = vecdb_result_text(results, i);
    if (text) {
        fputs("  text      ", stdout);
        fwrite(text, 1, vecdb_result_text_length(results, i), stdout);
        putc('\n', stdout);
    }
    for (size_t f = 0; options->vectors && f < fields->n_fields; f++) {
        uint32_t dimension;
        int type;
        const void *row = vecdb_result_vector(results, i, fields->fields[f].field.name, &dimension, &type);
        if (!row)
            continue;
        printf("  vector    %s: ", fields->fields[f].field.name);
        json_put_vector(stdout, row, type, dimension);
        putc('\n', stdout);
    }
}

static void begin_table(struct table *table, const struct options *options)
{
    table_begin(table, stdout, options->mode);
    table_column(table, "key", COLUMN_TEXT);
    if (options->keys_only)
        return;
    table_column(table, "metadata", COLUMN_TEXT);
    table_column(table, "text", COLUMN_TEXT);
}

static void put_row(struct table *table, const struct options *options, vecdb_results *results, size_t i)
{
    size_t length = 0;
    vecdb_key key = vecdb_result_key(results, i);
    table_cell_key(table, &key);
    if (options->keys_only)
        return;
    const char *metadata = vecdb_result_metadata(results, i, &length);
    table_cell(table, metadata, length);
    table_cell(table, vecdb_result_text(results, i), vecdb_result_text_length(results, i));
}

static unsigned parts_wanted(const struct options *options)
{
    return (options->keys_only ? 0 : PART_METADATA | PART_TEXT | PART_ABSENT) | (options->vectors ? PART_VECTORS : 0);
}

static int columns_wanted(const struct options *options)
{
    return (options->keys_only ? VECDB_KEYS_ONLY : VECDB_METADATA | VECDB_TEXT) |
           (options->vectors ? VECDB_VECTORS : 0);
}

/* ---------------------------------------------------------------- get */

/* One key asked for: the record itself is the JSON document. Several: {"records": [...]}. */
static size_t print_found(const struct options *options, vecdb_results *results, const struct cli_fields *fields)
{
    struct table table;
    size_t n = vecdb_results_count(results), n_found = 0;
    bool list = options->mode == MODE_JSON && n != 1;
    if (list)
        fputs("{\"records\":[", stdout);
    if (options->mode == MODE_CSV)
        begin_table(&table, options);
    for (size_t i = 0; i < n; i++) {
        if (!vecdb_result_found(results, i))
            continue;
        if (options->mode == MODE_TABLE) {
            if (n_found)
                putc('\n', stdout);
            print_record(options, results, i, fields);
        } else if (options->mode == MODE_CSV) {
            put_row(&table, options, results, i);
        } else {
            if (list && n_found)
                putc(',', stdout);
            json_put_record(stdout, results, i, parts_wanted(options), fields);
            if (!list)
                putc('\n', stdout);
        }
        n_found++;
    }
    if (options->mode == MODE_CSV)
        table_end(&table);
    if (list)
        fputs("]}\n", stdout);
    return n_found;
}

int cmd_get(const struct options *options)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct cli_fields fields = {0};
    struct keys keys;
    vecdb_collection *collection;
    vecdb_results *results = NULL;
    vecdb *db = NULL;
    char shown[KEY_TEXT];
    int status = read_keys(&keys, options, &err);
    if (!status && !keys.n) {
        release_keys(&keys);
        return cli_usage("get: which record? usage: vecdb-cli get %s", options->command->usage);
    }
    if (status || (status = cli_open_collection(options, VECDB_OPEN_READONLY, &db, &collection, &err)) ||
        (status = cli_fields_read(collection, &fields, &err)) ||
        (status = vecdb_get(collection, keys.keys, keys.n, columns_wanted(options), &results, &err)))
        goto done;
    size_t n_found = print_found(options, results, &fields);
    for (size_t i = 0; i < keys.n && n_found < keys.n && !status; i++) {
        if (!vecdb_result_found(results, i))
            status = cli_fail(&err, VECDB_NOT_FOUND, "collection \"%.80s\" has no record with the key %s",
                              options->arguments[1], format_key(&keys.keys[i], shown));
    }
    if (status && keys.n - n_found > 1) {
        size_t used = strlen(err.message);
        snprintf(err.message + used, sizeof err.message - used, ", nor with %zu others that were asked for",
                 keys.n - n_found - 1);
    }
done:
    vecdb_results_free(results);
    cli_fields_release(&fields);
    vecdb_close(db);
    release_keys(&keys);
    return cli_report(status, &err);
}

/* ---------------------------------------------------------------- delete */

int cmd_delete(const struct options *options)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct keys keys;
    vecdb_collection *collection;
    vecdb *db = NULL;
    uint64_t n_deleted = 0;
    int status = read_keys(&keys, options, &err);
    if (!status && !keys.n && !options->keys_file) {
        release_keys(&keys);
        return cli_usage("delete: which records? usage: vecdb-cli delete %s", options->command->usage);
    }
    if (status || (status = cli_open_collection(options, VECDB_OPEN_EXISTING, &db, &collection, &err)))
        goto done;
    cli_catch_interrupt();
    for (size_t i = 0; i < keys.n; i += DELETE_ROWS) {
        uint64_t n = 0;
        size_t piece = keys.n - i < DELETE_ROWS ? keys.n - i : DELETE_ROWS;
        if ((status = vecdb_delete(collection, keys.keys + i, piece, &n, &err)))
            break;
        n_deleted += n;
        if (cli_interrupted && i + piece < keys.n) {
            status = cli_fail(&err, VECDB_INTERRUPTED, "interrupted");
            break;
        }
    }
    if (options->mode == MODE_TABLE) {
        char count[32];
        printf("%s %s deleted\n", format_count(n_deleted, count), n_deleted == 1 ? "record" : "records");
    } else if (options->mode == MODE_CSV) {
        printf("deleted\r\n%llu\r\n", (unsigned long long)n_deleted);
    } else {
        printf("{\"deleted\": %llu}\n", (unsigned long long)n_deleted);
    }
done:
    vecdb_close(db);
    release_keys(&keys);
    return cli_report(status, &err);
}

/* ---------------------------------------------------------------- scan */

struct printer {
    const struct options *options;
    const struct cli_fields *fields;
    struct table table;
    uint64_t n_printed;
};

static void print_step(struct printer *printer, vecdb_results *results)
{
    const struct options *options = printer->options;
    bool cells = options->mode == MODE_TABLE || options->mode == MODE_CSV;
    for (size_t i = 0; i < vecdb_results_count(results); i++) {
        if (cells) {
            put_row(&printer->table, options, results, i);
        } else {
            if (options->mode == MODE_JSON && printer->n_printed)
                putc(',', stdout);
            json_put_record(stdout, results, i, parts_wanted(options), printer->fields);
            if (options->mode == MODE_JSONL)
                putc('\n', stdout);
        }
        printer->n_printed++;
    }
    if (cells) /* widths are those of the first step's records and of each later one's */
        table_flush(&printer->table);
}

static int scan_all(struct printer *printer, vecdb_scan *scan, vecdb_error *err)
{
    for (;;) {
        vecdb_results *results;
        int status = vecdb_scan_next(scan, &results, err);
        if (status)
            return status;
        size_t n = vecdb_results_count(results);
        if (n)
            print_step(printer, results);
        vecdb_results_free(results);
        if (!n)
            return VECDB_OK;
        if (ferror(stdout))
            return VECDB_OK; /* output_finish() says why */
    }
}

int cmd_scan(const struct options *options)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct cli_fields fields = {0};
    vecdb_collection *collection;
    vecdb_scan *scan = NULL;
    vecdb *db = NULL;
    int status = cli_open_collection(options, VECDB_OPEN_READONLY, &db, &collection, &err);
    if (status || (status = cli_fields_read(collection, &fields, &err)))
        goto done;
    vecdb_key after;
    vecdb_scan_options how = {.size = sizeof how, .columns = columns_wanted(options), .limit = options->limit};
    if (options->after) {
        after = parse_key(options->after, options->text_keys);
        how.after = &after;
    }
    if ((status = vecdb_scan_open(collection, &how, &scan, &err)))
        goto done;
    struct printer printer = {.options = options, .fields = &fields};
    begin_table(&printer.table, options);
    if (options->mode == MODE_JSON)
        fputs("{\"records\":[", stdout);
    status = scan_all(&printer, scan, &err);
    if (options->mode == MODE_JSON)
        fputs("]}\n", stdout);
    if (options->mode == MODE_JSON || options->mode == MODE_JSONL)
        printer.table.header_done = true; /* nothing to flush */
    table_end(&printer.table);
done:
    vecdb_scan_close(scan);
    cli_fields_release(&fields);
    vecdb_close(db);
    return cli_report(status, &err);
}
