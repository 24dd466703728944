/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/options.h - what the user asked for
 */
#ifndef VECDB_CLI_OPTIONS_H
#define VECDB_CLI_OPTIONS_H

#include "cli.h"

/* Bits of the commands, for the table of options. */
enum command_bit {
    FOR_IMPORT = 1,
    FOR_QUERY = 2,
    FOR_GET = 4,
    FOR_DELETE = 8,
    FOR_SCAN = 16,
    FOR_INFO = 32,
    FOR_CHECK = 64,
    FOR_COMPACT = 128,
    FOR_EXPORT = 256,
    FOR_EVAL = 512,
    FOR_BACKUP = 1024,
    FOR_RESTORE = 2048,
    FOR_SNAPSHOT = 4096,
    FOR_REPAIR = 8192,
    FOR_RECALL = 16384,
    FOR_INDEX = 32768,
    FOR_ALL = 65535
};

enum output_mode { MODE_DEFAULT = 0, MODE_TABLE, MODE_JSON, MODE_JSONL, MODE_CSV };

#define OPTION_UNSET UINT64_MAX

struct options {
    const struct command *command;
    const char **arguments;
    size_t n_arguments;
    bool help;

    int mode; /* enum output_mode; after parsing never MODE_DEFAULT */
    bool quiet;
    uint64_t threads;
    uint64_t memory_bytes;
    uint64_t index_memory_bytes; /* 0: not given */
    uint64_t durability;
    uint64_t io;
    uint64_t busy_timeout_ms; /* OPTION_UNSET: the library's default */
    const char *snapshot;     /* NULL: the database itself */

    /* import and export */
    uint64_t metric, index, type, compression; /* OPTION_UNSET: not given */
    uint64_t format;                           /* enum input_format; 0: guess */
    const char *field;
    const char *records;
    const char *key;
    const char *text;
    bool upsert;
    bool no_wait, wait;
    uint64_t batch_rows; /* 0: not given */
    uint64_t limit;      /* 0: none */

    /* query, eval */
    const char *vector;
    const char *queries;
    uint64_t row; /* OPTION_UNSET: not given */
    const char *like;
    uint64_t k;
    uint64_t offset;
    bool exact;
    bool keys_only;
    bool explain;
    uint64_t timeout_ms;
    const char *truth;
    uint64_t samples; /* recall; 0: not given */
    float recall;     /* 0: not given */
    uint64_t ef;      /* 0: not given */

    /* get, scan, delete */
    bool vectors;
    bool text_keys;
    const char *after;
    const char *keys_file;

    /* backup, restore, snapshot */
    bool link;
    bool drop;
};

#define DEFAULT_K 10
#define DEFAULT_MEMORY_BYTES (UINT64_C(256) << 20) /* the library's own default, see vecdb_options */

/* Read the arguments behind the command's name. A usage error is printed, and false returned. */
bool options_parse(struct options *options, const struct command *command, int n, char **words);
void options_release(struct options *options);

/* The options of a command, for its help. */
void options_help(unsigned command_bit, FILE *out);

/* The one of `names` that looks most like `word`, or NULL when none does. */
const char *nearest_name(const char *word, const char *const *names, size_t n_names);

#endif
