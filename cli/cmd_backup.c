/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cmd_backup.c - vecdb-cli backup, restore, snapshot: copies of a database
 */
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "options.h"
#include "output.h"
#include "progress.h"

static int on_progress(void *context, const vecdb_progress *progress)
{
    progress_show(context, progress->done, progress->total);
    return cli_interrupted;
}

/* What was done: a sentence for people, an object for programs. */
static void print_done(const struct options *options, const char *verb, const char *from, const char *to)
{
    if (options->mode == MODE_TABLE) {
        printf("%s %s %s\n", from, verb, to);
    } else if (options->mode == MODE_CSV) {
        struct table table;
        table_begin(&table, stdout, MODE_CSV);
        table_column(&table, "from", COLUMN_TEXT);
        table_column(&table, "to", COLUMN_TEXT);
        table_cell_string(&table, from);
        table_cell_string(&table, to);
        table_end(&table);
    } else {
        fputs("{\"from\":", stdout);
        json_put_string(stdout, from);
        fputs(",\"to\":", stdout);
        json_put_string(stdout, to);
        fputs("}\n", stdout);
    }
}

int cmd_backup(const struct options *options)
{
    const char *from = options->arguments[0], *to = options->arguments[1];
    vecdb_error err = VECDB_ERROR_INIT;
    struct progress progress;
    vecdb *db = NULL;
    /* Not read-only: after a crash somebody has to recover the log. Where nothing can be written it is all the same. */
    int status = cli_open(options, VECDB_OPEN_EXISTING, &db, &err);
    if (status)
        return cli_report(status, &err);
    cli_catch_interrupt();
    progress_begin(&progress, from, "bytes", options->quiet);
    vecdb_backup_options how = {.size = sizeof how, .link = options->link, .progress = on_progress,
                                .progress_context = &progress};
    status = vecdb_backup(db, to, &how, &err);
    progress_end(&progress);
    vecdb_close(db);
    if (!status)
        print_done(options, "is backed up in", from, to);
    return cli_report(status, &err);
}

int cmd_restore(const struct options *options)
{
    const char *from = options->arguments[0], *to = options->arguments[1];
    vecdb_error err = VECDB_ERROR_INIT;
    struct progress progress;
    cli_catch_interrupt();
    progress_begin(&progress, to, "bytes", options->quiet);
    vecdb_backup_options how = {.size = sizeof how, .link = options->link, .progress = on_progress,
                                .progress_context = &progress};
    int status = vecdb_restore(from, to, &how, &err);
    progress_end(&progress);
    if (!status)
        print_done(options, "is restored to", from, to);
    return cli_report(status, &err);
}

/* ---------------------------------------------------------------- snapshots */

struct lister {
    const struct options *options;
    struct table table;
    size_t n;
};

static int list_snapshot(void *context, const vecdb_snapshot_info *info)
{
    struct lister *lister = context;
    char created[40] = "", sequence[24];
    time_t seconds = (time_t)info->created;
    struct tm parts;
    if (gmtime_r(&seconds, &parts))
        strftime(created, sizeof created, "%Y-%m-%dT%H:%M:%SZ", &parts);
    snprintf(sequence, sizeof sequence, "%" PRIu64, info->sequence);
    int mode = lister->options->mode;
    if (mode == MODE_TABLE || mode == MODE_CSV) {
        table_cell_string(&lister->table, info->name);
        table_cell_string(&lister->table, created);
        table_cell_string(&lister->table, sequence);
    } else {
        fputs(mode == MODE_JSON && lister->n ? ",{\"name\":" : "{\"name\":", stdout);
        json_put_string(stdout, info->name);
        printf(",\"created\":\"%s\",\"sequence\":%s}%s", created, sequence, mode == MODE_JSONL ? "\n" : "");
    }
    lister->n++;
    return 0;
}

static int list_snapshots(const struct options *options, vecdb *db, vecdb_error *err)
{
    struct lister lister = {.options = options};
    bool is_table = options->mode == MODE_TABLE || options->mode == MODE_CSV;
    if (is_table) {
        table_begin(&lister.table, stdout, options->mode);
        table_column(&lister.table, "name", COLUMN_TEXT);
        table_column(&lister.table, "created", COLUMN_TEXT);
        table_column(&lister.table, "sequence", COLUMN_NUMBER);
    } else if (options->mode == MODE_JSON) {
        fputs("{\"snapshots\":[", stdout);
    }
    int status = vecdb_snapshots(db, list_snapshot, &lister, err);
    if (is_table)
        table_end(&lister.table);
    else if (options->mode == MODE_JSON)
        fputs("]}\n", stdout);
    return status;
}

int cmd_snapshot(const struct options *options)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = NULL;
    const char *name = options->n_arguments > 1 ? options->arguments[1] : NULL;
    if (options->drop && !name)
        return cli_usage("snapshot: --drop needs a name; usage: vecdb-cli snapshot DB NAME --drop");
    int status = cli_open(options, name ? VECDB_OPEN_EXISTING : VECDB_OPEN_READONLY, &db, &err);
    if (!status && !name)
        status = list_snapshots(options, db, &err);
    else if (!status)
        status = options->drop ? vecdb_snapshot_drop(db, name, &err) : vecdb_snapshot_create(db, name, &err);
    vecdb_close(db);
    return cli_report(status, &err);
}
