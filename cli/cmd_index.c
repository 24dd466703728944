/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cmd_index.c - vecdb-cli index: the index of each field, shown or changed
 *
 * An index lives in the memory of the process that searches. So that its bytes and its recall can be told, this one
 * reads the index file as a search would, but builds nothing unless it is asked to wait.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"
#include "output.h"
#include "values.h"

static void json_row(const vecdb_field *field, const vecdb_index_info *info)
{
    fputs("{\"field\":", stdout);
    json_put_string(stdout, field->name);
    printf(",\"index\":\"%s\",\"kind\":\"%s\",\"wanted\":\"%s\",\"vectors\":%" PRIu64 ",\"covered\":%" PRIu64,
           index_name(field->index), index_name(info->kind), index_name(info->wanted), info->n_vectors,
           info->n_indexed);
    printf(",\"dead\":%" PRIu64 ",\"memory_bytes\":%" PRIu64 ",\"file_bytes\":%" PRIu64 ",\"in_file\":%" PRIu64,
           info->n_dead, info->memory_bytes, info->file_bytes, info->n_in_file);
    if (info->recall_at_10 > 0)
        printf(",\"recall\":%.4f", (double)info->recall_at_10);
    else
        fputs(",\"recall\":null", stdout);
    printf(",\"building\":%s,\"message\":", info->is_building ? "true" : "false");
    if (info->message[0])
        json_put_string(stdout, info->message);
    else
        fputs("null", stdout);
    putc('}', stdout);
}

static void table_row(struct table *table, const vecdb_field *field, const vecdb_index_info *info)
{
    char recall[32];
    table_cell_string(table, field->name);
    table_cell_string(table, index_name(field->index));
    table_cell_string(table, index_name(info->kind));
    table_cell_string(table, index_name(info->wanted));
    table_cell_count(table, info->n_vectors);
    table_cell_count(table, info->n_indexed);
    table_cell_count(table, info->n_dead);
    table_cell_count(table, info->memory_bytes);
    table_cell_count(table, info->file_bytes);
    snprintf(recall, sizeof recall, "%.4f", (double)info->recall_at_10);
    table_cell_string(table, info->recall_at_10 > 0 ? recall : NULL);
    table_cell_string(table, info->is_building ? "yes" : "no");
    if (table->mode == MODE_CSV)
        table_cell_string(table, info->message);
}

static void begin_table(struct table *table, int mode)
{
    static const char *const names[] = {"field", "index",        "kind",       "wanted",    "vectors", "covered",
                                        "dead",  "memory bytes", "file bytes", "recall@10", "building"};
    table_begin(table, stdout, mode);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        table_column(table, names[i], i >= 4 && i <= 9 ? COLUMN_NUMBER : COLUMN_TEXT);
    if (mode == MODE_CSV)
        table_column(table, "message", COLUMN_TEXT);
}

static int look(vecdb_collection *collection, const char *field, bool may_load, vecdb_index_info *info,
                vecdb_error *err)
{
    *info = (vecdb_index_info){.size = sizeof *info};
    if (may_load)
        cli_load_index(collection, field);
    return vecdb_index_describe(collection, field, info, err);
}

static int show(const struct options *options, vecdb_collection *collection, const char *only, vecdb_error *err)
{
    struct cli_fields fields;
    struct table table;
    bool is_table = options->mode == MODE_TABLE || options->mode == MODE_CSV;
    bool may_load = !options->no_wait;
    int status = cli_fields_read(collection, &fields, err);
    if (status)
        return status;
    vecdb_index_info *infos = cli_alloc_array(fields.n_fields + 1, sizeof *infos);
    for (size_t i = 0; i < fields.n_fields && !status; i++)
        if (!only || !strcmp(only, fields.fields[i].field.name))
            status = look(collection, fields.fields[i].field.name, may_load, &infos[i], err);
    if (!status && is_table)
        begin_table(&table, options->mode);
    if (!status && options->mode == MODE_JSON)
        fputs("{\"indexes\":[", stdout);
    for (size_t i = 0, n = 0; i < fields.n_fields && !status; i++) {
        if (only && strcmp(only, fields.fields[i].field.name))
            continue;
        if (is_table) {
            table_row(&table, &fields.fields[i].field, &infos[i]);
            continue;
        }
        if (options->mode == MODE_JSON && n++)
            putc(',', stdout);
        json_row(&fields.fields[i].field, &infos[i]);
        if (options->mode == MODE_JSONL)
            putc('\n', stdout);
    }
    if (!status && is_table)
        table_end(&table);
    if (!status && options->mode == MODE_JSON)
        fputs("]}\n", stdout);
    for (size_t i = 0; i < fields.n_fields && !status && options->mode == MODE_TABLE; i++)
        if ((!only || !strcmp(only, fields.fields[i].field.name)) && infos[i].message[0])
            printf("\n%s\n", infos[i].message);
    free(infos);
    cli_fields_release(&fields);
    return status;
}

/* The field whose index is to be changed: the one that is named, or the only one. */
static int choose_field(const struct options *options, vecdb_collection *collection, char *name, size_t size,
                        vecdb_error *err)
{
    const char *given = options->n_arguments > 2 ? options->arguments[2] : NULL;
    const vecdb_field_info *field;
    struct cli_fields fields;
    int status = cli_fields_read(collection, &fields, err);
    if (status)
        return status;
    if (!given && options->index != OPTION_UNSET && fields.n_fields > 1)
        status = cli_fail(err, VECDB_INVALID, "collection \"%.80s\" has %zu fields; say which: vecdb-cli index DB "
                          "COLLECTION FIELD --kind NAME", options->arguments[1], fields.n_fields);
    else if (given || options->index != OPTION_UNSET)
        status = cli_fields_find(&fields, options->arguments[1], given, &field, err);
    name[0] = 0;
    if (!status && (given || options->index != OPTION_UNSET))
        snprintf(name, size, "%s", field->field.name);
    cli_fields_release(&fields);
    return status;
}

int cmd_index(const struct options *options)
{
    vecdb_error err = VECDB_ERROR_INIT, refused = VECDB_ERROR_INIT;
    vecdb_collection *collection;
    vecdb *db = NULL;
    char name[VECDB_MAX_NAME + 1];
    bool changes = options->index != OPTION_UNSET;
    if (options->wait && options->no_wait)
        return cli_usage("index takes one of --wait and --no-wait");
    if (options->no_wait && !changes)
        return cli_usage("--no-wait goes with --kind NAME");
    cli_catch_interrupt();
    bool writes = changes || options->wait;
    int mode = writes ? VECDB_OPEN_EXISTING : VECDB_OPEN_READONLY;
    int status = cli_open_collection(options, mode, &db, &collection, &err);
    if (!status)
        status = choose_field(options, collection, name, sizeof name, &err);
    const char *field = name[0] ? name : NULL;
    if (!status && changes)
        status = vecdb_field_set_index(collection, field, (int)options->index, &err);
    if (!status && writes && !options->no_wait) {
        status = cli_wait_index(collection, field, options->quiet, &err);
        if (status == VECDB_NOMEM) { /* what there is room for is shown, and then why it is not all */
            refused = err;
            status = VECDB_OK;
        }
    }
    if (!status)
        status = show(options, collection, field, &err);
    vecdb_close(db);
    return refused.status && !status ? cli_report(refused.status, &refused) : cli_report(status, &err);
}
