/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cmd_repair.c - vecdb-cli repair: make a damaged database usable again, and say what was lost
 *
 * Exit code 0: nothing was lost (or nothing was wrong). 3: something was, and is listed.
 */
#include <inttypes.h>

#include "options.h"
#include "output.h"
#include "progress.h"
#include "values.h"

struct listing {
    const struct options *options;
    struct table table;
    uint64_t n_told;
    struct progress *progress;
};

static const char *kind_name(int kind)
{
    switch (kind) {
    case VECDB_PROBLEM_LOST:
        return "lost";
    case VECDB_PROBLEM_DOUBTFUL:
        return "doubtful";
    case VECDB_PROBLEM_HEALED:
        return "healed";
    default:
        return "damaged";
    }
}

static void print_json(const struct listing *listing, const vecdb_problem *problem)
{
    bool lines = listing->options->mode == MODE_JSONL;
    if (!lines && listing->n_told)
        putc(',', stdout);
    printf("{\"kind\":\"%s\",", kind_name(problem->kind));
    json_put_problem(stdout, problem);
    fputs(lines ? "}\n" : "}", stdout);
}

static void print_problem(void *context, const vecdb_problem *problem)
{
    struct listing *listing = context;
    int mode = listing->options->mode;
    progress_end(listing->progress);
    if (mode == MODE_TABLE) {
        printf("%s: %s%s%s\n", kind_name(problem->kind), problem->file, problem->file[0] ? ": " : "", problem->message);
    } else if (mode == MODE_CSV) {
        table_cell_string(&listing->table, kind_name(problem->kind));
        table_cell_string(&listing->table, problem->file);
        table_cell_string(&listing->table, problem->collection);
        table_cell_string(&listing->table, problem->message);
    } else {
        print_json(listing, problem);
    }
    listing->n_told++;
}

static int on_progress(void *context, const vecdb_progress *progress)
{
    progress_show(((struct listing *)context)->progress, progress->done, progress->total);
    return cli_interrupted;
}

static void print_summary(const struct listing *listing, uint64_t n_lost)
{
    const char *database = listing->options->arguments[0];
    char count[32];
    if (!listing->n_told)
        printf("%s: nothing is wrong\n", database);
    else if (!n_lost)
        printf("%s: repaired; nothing is lost\n", database);
    else
        printf("%s: repaired; %s %s above\n", database, format_count(n_lost, count), n_lost == 1 ? "loss" : "losses");
}

int cmd_repair(const struct options *options)
{
    static const char *const columns[] = {"kind", "file", "collection", "message"};
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_options how;
    struct progress progress;
    struct listing listing = {.options = options, .progress = &progress};
    uint64_t n_lost = 0;
    int mode = options->mode;
    cli_catch_interrupt();
    cli_fill_options(options, VECDB_OPEN_EXISTING, &how);
    progress_begin(&progress, options->arguments[0], "records", options->quiet);
    table_begin(&listing.table, stdout, MODE_CSV);
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++)
        table_column(&listing.table, columns[i], COLUMN_TEXT);
    if (mode == MODE_JSON)
        fputs("{\"problems\":[", stdout);
    vecdb_work work = {.size = sizeof work, .progress = on_progress, .progress_context = &listing};
    int status = vecdb_repair(options->arguments[0], &how, &work, print_problem, &listing, &n_lost, &err);
    progress_end(&progress);
    if (mode == MODE_JSON)
        printf("],\"lost\":%" PRIu64 "}\n", n_lost);
    else if (mode == MODE_TABLE && !status)
        print_summary(&listing, n_lost);
    listing.table.header_done |= mode != MODE_CSV;
    table_end(&listing.table);
    int code = cli_report(status, &err);
    return !status && n_lost ? CODE_DAMAGE : code;
}
