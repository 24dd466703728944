/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cli.h - what all files of vecdb-cli share
 *
 * vecdb-cli is a program like any other that uses the library: it sees vecdb.h, jansson and libc,
 * and nothing of the library's inside.
 *
 *     main.c       commands, help                    input*.c     files of vectors and records
 *     options.c    one table of all options          output.c     tables, JSON, CSV
 *     values.c     element types, numbers, keys      progress.c   the bar on a terminal
 *     errors.c     sentences, exit codes, Ctrl-C     queries.c    vectors to search for
 *     memory.c     memory, arenas                    database.c   opening what the options name
 *     cmd_*.c      one group of commands each     definition.c  the first line of an export
 *
 * Rules of conduct, kept by all commands:
 *   1. Results go to stdout, everything else to stderr. An error is one line,
 *      `vecdb-cli: <sentence>`.
 *   2. The exit code is one of enum exit_code.
 *   3. A function that can fail returns a vecdb_status and fills a vecdb_error, as the library's
 *      do; only a command turns that into words on stderr and an exit code (cli_report).
 *   4. When memory for a small thing runs out, the program ends (cli_alloc): there is nothing
 *      to save that is not committed. Sizes that come from a file are checked before that.
 */
#ifndef VECDB_CLI_H
#define VECDB_CLI_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "vecdb.h"

enum exit_code { CODE_OK = 0, CODE_FAILED = 1, CODE_USAGE = 2, CODE_DAMAGE = 3 };

struct options;

struct command {
    const char *name;
    const char *summary; /* one line for the list of commands */
    const char *usage;   /* what follows the name */
    const char *text;    /* paragraphs for its help */
    const char *example; /* lines to type */
    unsigned bit;        /* this command in option_spec.commands */
    size_t min_arguments, max_arguments;
    int (*run)(const struct options *options); /* gives the exit code */
};

/* ---- errors (errors.c) ---- */

/* Fill `err` (may be NULL) with a sentence and return `status`. */
int cli_fail(vecdb_error *err, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The same, with ": " and the system's words for `os_error` behind. */
int cli_fail_os(vecdb_error *err, int os_error, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Put words in front of the sentence that is there; returns `status`. */
int cli_fail_prefix(vecdb_error *err, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Print the sentence; the exit code that belongs to `status`. */
int cli_report(int status, const vecdb_error *err);

/* Print a sentence; CODE_USAGE. */
int cli_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Print `vecdb-cli: <sentence>` on stderr. */
void cli_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- memory (memory.c) ---- */

void *cli_alloc(size_t n_bytes);
void *cli_alloc_array(size_t n, size_t size);
void *cli_realloc(void *block, size_t n_bytes);
char *cli_copy(const char *text, size_t n_bytes); /* ends in NUL */

/* Memory that is given back all at once: the strings and vectors of a batch. */
struct arena_block;
struct arena {
    struct arena_block *blocks; /* the one in use first */
    size_t used;                /* bytes handed out since the last reset */
};

void *arena_alloc(struct arena *arena, size_t n_bytes); /* aligned to 16 */
char *arena_copy(struct arena *arena, const char *text, size_t n_bytes);
void arena_reset(struct arena *arena); /* keeps one block for the next batch */
void arena_release(struct arena *arena);

/* ---- interruption (errors.c) ---- */

/* Set by the first SIGINT or SIGTERM after cli_catch_interrupt(); the second one kills. */
extern volatile sig_atomic_t cli_interrupted;
void cli_catch_interrupt(void);

/* ---- commands ---- */

extern const struct command command_list[];
extern const size_t n_commands;
const struct command *command_find(const char *name);
int command_help(const struct command *command, FILE *out);

int cmd_import(const struct options *options);
int cmd_query(const struct options *options);
int cmd_eval(const struct options *options);
int cmd_recall(const struct options *options);
int cmd_get(const struct options *options);
int cmd_delete(const struct options *options);
int cmd_scan(const struct options *options);
int cmd_info(const struct options *options);
int cmd_index(const struct options *options);
int cmd_check(const struct options *options);
int cmd_compact(const struct options *options);
int cmd_export(const struct options *options);
int cmd_repair(const struct options *options);
int cmd_backup(const struct options *options);
int cmd_restore(const struct options *options);
int cmd_snapshot(const struct options *options);

/* ---- the database, as the options say (database.c) ---- */

/* arguments[0] is the database, arguments[1] the collection. */
void cli_fill_options(const struct options *options, int mode, vecdb_options *how);
int cli_open(const struct options *options, int mode, vecdb **db, vecdb_error *err);
int cli_open_collection(const struct options *options, int mode, vecdb **db, vecdb_collection **collection,
                        vecdb_error *err);

/* A copy of a collection's description that outlives the callback. */
/* Wait until the index of a field (NULL: of all) covers every vector, with progress. INTERRUPTED after a signal that
 * was caught: what is built stays. */
int cli_wait_index(vecdb_collection *collection, const char *field, bool quiet, vecdb_error *err);
/* The same; where index_memory_bytes has no room for all, that is said on stderr, and no error. */
int cli_try_index(vecdb_collection *collection, const char *field, bool quiet, vecdb_error *err);
/* Read the index file, as a search in the background would, and build nothing. What is wrong with it is no error. */
void cli_load_index(vecdb_collection *collection, const char *field);
/* The share of the field's vectors that its index covers. */
double cli_index_coverage(vecdb_collection *collection, const char *field);

struct cli_fields {
    size_t n_fields;
    vecdb_field_info *fields; /* names are copies */
    uint64_t n_records;
};
int cli_fields_read(vecdb_collection *collection, struct cli_fields *fields, vecdb_error *err);
void cli_fields_release(struct cli_fields *fields);

/* The field called `name`, or the first when `name` is NULL; INVALID with the names there are. */
int cli_fields_find(const struct cli_fields *fields, const char *collection, const char *name,
                    const vecdb_field_info **field, vecdb_error *err);

#endif
