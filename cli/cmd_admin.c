/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cmd_admin.c - vecdb-cli info, check, compact: the database as a whole
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"
#include "output.h"
#include "progress.h"
#include "values.h"

/* ---------------------------------------------------------------- info */

/* How many vectors the index of a field covers: in its file, or (flat) all. */
struct covered {
    char *collection, *field;
    uint64_t n;
};

struct describer {
    const struct options *options;
    struct table table;
    size_t n;
    struct covered *covered;
    size_t n_covered;
};

static int note_fields(void *context, const vecdb_collection_info *info)
{
    struct describer *describer = context;
    size_t n = describer->n_covered + info->n_fields;
    describer->covered = cli_realloc(describer->covered, (n + 1) * sizeof *describer->covered);
    for (size_t f = 0; f < info->n_fields; f++) {
        const char *field = info->fields[f].field.name;
        describer->covered[describer->n_covered++] = (struct covered){cli_copy(info->name, strlen(info->name)),
                                                                      cli_copy(field, strlen(field)), 0};
    }
    return 0;
}

/* Before the walk that prints: its callback must not ask. What was dropped meanwhile covers nothing. */
static int find_covered(struct describer *describer, vecdb *db, vecdb_error *err)
{
    int status = vecdb_collections(db, note_fields, describer, err);
    for (size_t i = 0; i < describer->n_covered && !status; i++) {
        struct covered *covered = &describer->covered[i];
        vecdb_index_info info = {.size = sizeof info};
        vecdb_collection *collection;
        if (vecdb_collection_open(db, covered->collection, &collection, NULL) ||
            vecdb_index_describe(collection, covered->field, &info, NULL))
            continue;
        covered->n = info.n_in_file > info.n_indexed ? info.n_in_file : info.n_indexed;
    }
    return status;
}

static uint64_t covered_of(const struct describer *describer, const char *collection, const char *field)
{
    for (size_t i = 0; i < describer->n_covered; i++)
        if (!strcmp(describer->covered[i].collection, collection) && !strcmp(describer->covered[i].field, field))
            return describer->covered[i].n;
    return 0;
}

static void release_covered(struct describer *describer)
{
    for (size_t i = 0; i < describer->n_covered; i++) {
        free(describer->covered[i].collection);
        free(describer->covered[i].field);
    }
    free(describer->covered);
}

/* Bytes that the live vectors would take as they are, for the ratio. */
static uint64_t plain_bytes(const vecdb_field_info *info)
{
    return (info->n_vectors - info->n_tail + info->n_dead) * row_bytes(info->field.type, info->field.dimension);
}

static void json_field(const vecdb_field_info *info, uint64_t n_covered)
{
    const vecdb_field *field = &info->field;
    fputs("{\"name\":", stdout);
    json_put_string(stdout, field->name);
    printf(",\"type\":\"%s\",\"dimension\":%u,\"metric\":\"%s\",\"index\":\"%s\",\"compression\":\"%s\"",
           type_name(field->type), field->dimension, metric_name(field->metric), index_name(field->index),
           compression_name(field->compression));
    printf(",\"covered\":%" PRIu64, n_covered);
    printf(",\"vectors\":%" PRIu64 ",\"tail\":%" PRIu64 ",\"dead\":%" PRIu64 ",\"pages\":%" PRIu64
           ",\"bytes\":%" PRIu64,
           info->n_vectors, info->n_tail, info->n_dead, info->n_pages, info->stored_bytes);
    if (info->stored_bytes)
        printf(",\"ratio\":%.3f}", (double)plain_bytes(info) / (double)info->stored_bytes);
    else
        fputs(",\"ratio\":null}", stdout);
}

static int json_collection(void *context, const vecdb_collection_info *info)
{
    struct describer *describer = context;
    bool lines = describer->options->mode == MODE_JSONL;
    if (!lines && describer->n)
        putc(',', stdout);
    describer->n++;
    fputs("{\"name\":", stdout);
    json_put_string(stdout, info->name);
    printf(",\"count\":%" PRIu64 ",\"fields\":[", info->n_records);
    for (size_t f = 0; f < info->n_fields; f++) {
        if (f)
            putc(',', stdout);
        json_field(&info->fields[f], covered_of(describer, info->name, info->fields[f].field.name));
    }
    fputs(lines ? "]}\n" : "]}", stdout);
    return 0;
}

static void table_field(struct table *table, const vecdb_field_info *info, uint64_t n_covered)
{
    const vecdb_field *field = &info->field;
    char ratio[32];
    table_cell_string(table, field->name);
    table_cell_string(table, type_name(field->type));
    table_cell_count(table, field->dimension);
    table_cell_string(table, metric_name(field->metric));
    table_cell_string(table, index_name(field->index));
    table_cell_count(table, n_covered);
    table_cell_string(table, compression_name(field->compression));
    table_cell_count(table, info->n_vectors);
    table_cell_count(table, info->n_tail);
    table_cell_count(table, info->n_dead);
    table_cell_count(table, info->n_pages);
    table_cell_count(table, info->stored_bytes);
    snprintf(ratio, sizeof ratio, "%.2f",
             info->stored_bytes ? (double)plain_bytes(info) / (double)info->stored_bytes : 0);
    table_cell_string(table, info->stored_bytes ? ratio : NULL);
}

static int table_collection(void *context, const vecdb_collection_info *info)
{
    struct describer *describer = context;
    for (size_t f = 0; f < info->n_fields || f == 0; f++) {
        table_cell_string(&describer->table, info->name);
        table_cell_count(&describer->table, info->n_records);
        if (f < info->n_fields)
            table_field(&describer->table, &info->fields[f],
                        covered_of(describer, info->name, info->fields[f].field.name));
        else
            for (int c = 0; c < 13; c++)
                table_cell(&describer->table, NULL, 0);
    }
    describer->n++;
    return 0;
}

static int info_table(const struct options *options, vecdb *db, const vecdb_stats *stats, vecdb_error *err)
{
    static const char *const names[] = {"collection", "records",     "field",   "type", "dimension", "metric", "index",
                                        "covered",    "compression", "vectors", "tail", "dead",      "pages",  "bytes",
                                        "ratio"};
    struct describer describer = {.options = options};
    char catalog[32], vectors[32], sequence[32];
    if (options->mode == MODE_TABLE)
        printf("%s: state %s, catalog %s, vectors %s, %s\n\n", options->arguments[0],
               format_count(stats->sequence, sequence), format_size(stats->catalog_bytes, catalog),
               format_size(stats->vector_bytes, vectors), stats->simd ? stats->simd : "");
    table_begin(&describer.table, stdout, options->mode);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        bool text = i == 0 || i == 2 || i == 3 || i == 5 || i == 6 || i == 8;
        table_column(&describer.table, names[i], text ? COLUMN_TEXT : COLUMN_NUMBER);
    }
    int status = find_covered(&describer, db, err);
    if (!status)
        status = vecdb_collections(db, table_collection, &describer, err);
    release_covered(&describer);
    table_end(&describer.table);
    return status;
}

static int info_json(const struct options *options, vecdb *db, const vecdb_stats *stats, vecdb_error *err)
{
    struct describer describer = {.options = options};
    bool lines = options->mode == MODE_JSONL;
    int status = find_covered(&describer, db, err);
    if (!lines)
        fputs("{\"collections\":[", stdout);
    if (!status)
        status = vecdb_collections(db, json_collection, &describer, err);
    release_covered(&describer);
    if (lines || status)
        return status;
    printf("],\"database\":{\"sequence\":%" PRIu64 ",\"catalog_bytes\":%" PRIu64 ",\"vector_bytes\":%" PRIu64,
           stats->sequence, stats->catalog_bytes, stats->vector_bytes);
    printf(",\"simd\":\"%s\",\"version\":\"%s\"}}\n", stats->simd ? stats->simd : "", vecdb_version());
    return VECDB_OK;
}

int cmd_info(const struct options *options)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_stats stats = {.size = sizeof stats};
    vecdb *db = NULL;
    int status = cli_open(options, VECDB_OPEN_READONLY, &db, &err);
    if (!status)
        status = vecdb_database_stats(db, &stats, &err);
    if (!status && (options->mode == MODE_TABLE || options->mode == MODE_CSV))
        status = info_table(options, db, &stats, &err);
    else if (!status)
        status = info_json(options, db, &stats, &err);
    vecdb_close(db);
    return cli_report(status, &err);
}

/* ---------------------------------------------------------------- check */

static int on_progress(void *context, const vecdb_progress *progress)
{
    progress_show(context, progress->done, progress->total);
    return cli_interrupted;
}

struct findings {
    const struct options *options;
    struct table table;
    struct progress progress;
    size_t n;
    size_t n_files; /* runs of problems of one file: they are told file by file */
    char last_file[128];
};

static void print_problem(void *context, const vecdb_problem *problem)
{
    struct findings *findings = context;
    int mode = findings->options->mode;
    progress_end(&findings->progress);
    if (mode == MODE_TABLE) {
        printf("%s: %s\n", problem->file, problem->message);
    } else if (mode == MODE_CSV) {
        table_cell_string(&findings->table, problem->file);
        table_cell_string(&findings->table, problem->collection);
        table_cell_string(&findings->table, problem->message);
    } else {
        if (mode == MODE_JSON && findings->n)
            putc(',', stdout);
        putc('{', stdout);
        json_put_problem(stdout, problem);
        fputs(mode == MODE_JSONL ? "}\n" : "}", stdout);
    }
    findings->n++;
    if (strcmp(findings->last_file, problem->file)) {
        findings->n_files++;
        snprintf(findings->last_file, sizeof findings->last_file, "%s", problem->file);
    }
}

static int on_check_progress(void *context, const vecdb_progress *progress)
{
    return on_progress(&((struct findings *)context)->progress, progress);
}

static void print_summary(const struct findings *findings)
{
    const char *path = findings->options->arguments[0];
    char problems[32], files[32];
    if (!findings->n)
        printf("%s: no damage\n", path);
    else if (findings->n == 1)
        printf("%s: 1 problem found\n", path);
    else
        printf("%s: %s problems found, in %s file%s\n", path, format_count(findings->n, problems),
               format_count(findings->n_files, files), findings->n_files == 1 ? "" : "s");
}

int cmd_check(const struct options *options)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct findings findings = {.options = options};
    vecdb *db = NULL;
    int mode = options->mode, status = cli_open(options, VECDB_OPEN_READONLY, &db, &err);
    if (status)
        return cli_report(status, &err);
    cli_catch_interrupt();
    progress_begin(&findings.progress, options->arguments[0], "bytes", options->quiet);
    table_begin(&findings.table, stdout, MODE_CSV);
    table_column(&findings.table, "file", COLUMN_TEXT);
    table_column(&findings.table, "collection", COLUMN_TEXT);
    table_column(&findings.table, "message", COLUMN_TEXT);
    if (mode == MODE_JSON)
        fputs("{\"problems\":[", stdout);
    vecdb_work work = {.size = sizeof work, .progress = on_check_progress, .progress_context = &findings};
    status = vecdb_check(db, &work, print_problem, &findings, NULL, &err);
    progress_end(&findings.progress);
    if (mode == MODE_JSON)
        printf("],\"count\":%zu}\n", findings.n);
    else if (mode == MODE_TABLE && !status)
        print_summary(&findings);
    findings.table.header_done |= mode != MODE_CSV;
    table_end(&findings.table);
    vecdb_close(db);
    int code = cli_report(status, &err);
    return findings.n ? CODE_DAMAGE : code;
}

/* ---------------------------------------------------------------- compact */

int cmd_compact(const struct options *options)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_stats before = {.size = sizeof before}, after = {.size = sizeof after};
    struct progress progress;
    vecdb *db = NULL;
    char a[32], b[32];
    int status = cli_open(options, VECDB_OPEN_EXISTING, &db, &err);
    if (status)
        return cli_report(status, &err);
    cli_catch_interrupt();
    progress_begin(&progress, options->arguments[0], "steps", options->quiet);
    vecdb_work work = {.size = sizeof work, .progress = on_progress, .progress_context = &progress};
    if (!(status = vecdb_database_stats(db, &before, &err)) && !(status = vecdb_compact(db, &work, &err)))
        status = vecdb_database_stats(db, &after, &err);
    progress_end(&progress);
    uint64_t was = before.catalog_bytes + before.vector_bytes, is = after.catalog_bytes + after.vector_bytes;
    if (!status && options->mode == MODE_TABLE)
        printf("%s: %s before, %s now\n", options->arguments[0], format_size(was, a), format_size(is, b));
    else if (!status && options->mode == MODE_CSV)
        printf("bytes_before,bytes_after\r\n%" PRIu64 ",%" PRIu64 "\r\n", was, is);
    else if (!status)
        printf("{\"bytes_before\": %" PRIu64 ", \"bytes_after\": %" PRIu64 "}\n", was, is);
    vecdb_close(db);
    return cli_report(status, &err);
}
