/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/main.c - vecdb-cli: commands and help
 *
 *     vecdb-cli COMMAND ARGUMENT... [OPTION...]
 *
 * See cli.h for the rules of conduct. A command is an entry of command_list and a function
 * cmd_*() in a file of its group; its options are in the table of options.c.
 */
#include "cli.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"
#include "output.h"

/* ---------------------------------------------------------------- commands */

const struct command command_list[] = {
    {"import", "store the rows of a file", "DB COLLECTION FILE [OPTION...]",
     "Reads fvecs, bvecs, ivecs, fbin, u8bin, i8bin, f16bin, npy, JSON lines and CSV; FILE - is stdin\n"
     "(with --format). The database and the collection are made when missing. Rows of a vector file\n"
     "get their row number as integer key, unless --records gives keys. What was committed stays,\n"
     "also after Ctrl-C, an error or a crash.",
     "vecdb-cli import notes.vecdb notes embeddings.npy --records passages.jsonl --key id --metric cosine", FOR_IMPORT,
     3, 3, cmd_import},
    {"query", "find the records nearest to a vector",
     "DB COLLECTION (--vector JSON | --queries FILE --row I | --like KEY)",
     "Prints key, score (larger is nearer), distance (smaller is nearer), metadata and text.",
     "vecdb-cli query notes.vecdb notes --like moon-7 -k 3\n"
     "  vecdb-cli query notes.vecdb notes --queries questions.npy --row 0 --json",
     FOR_QUERY, 2, 2, cmd_query},
    {"get", "print records", "DB COLLECTION KEY...",
     "A KEY of digits, like 5 or -5, is an integer key; anything else is text. With --text-keys all are text.",
     "vecdb-cli get notes.vecdb notes moon-7 --json", FOR_GET, 2, 1000000, cmd_get},
    {"delete", "remove records", "DB COLLECTION (KEY... | --keys-file FILE)",
     "A KEY of digits, like 5 or -5, is an integer key; anything else is text. With --text-keys all are text.\n"
     "Keys without a record are no error.",
     "vecdb-cli delete notes.vecdb notes moon-7 moon-8", FOR_DELETE, 2, 1000000, cmd_delete},
    {"scan", "print all records, in the order of their keys", "DB COLLECTION [--after KEY] [--limit N]",
     "Integer keys come first, by value, then texts, by their bytes.",
     "vecdb-cli scan notes.vecdb notes --after moon-7 --limit 10", FOR_SCAN, 2, 2, cmd_scan},
    {"info", "describe the database and its collections", "DB", "", "vecdb-cli info notes.vecdb", FOR_INFO, 1, 1,
     cmd_info},
    {"index", "show the index of each field, or change it",
     "DB COLLECTION [FIELD] [--kind auto|flat|hnsw] [--wait | --no-wait]",
     "Tells which index is in use and which is wanted, how many vectors it covers (the rest is scanned), how many\n"
     "deleted ones it holds, its bytes in memory and in its file, the recall@10 that was measured, and, where it\n"
     "does not cover more, why (index_memory_bytes is --index-memory). With --kind the index is changed and built;\n"
     "Ctrl-C ends that without loss.",
     "vecdb-cli index notes.vecdb notes\n"
     "  vecdb-cli index notes.vecdb notes --kind hnsw",
     FOR_INDEX, 2, 3, cmd_index},
    {"check", "read every byte and compare it with its checksum", "DB",
     "Exit code 3 when something is damaged. Changes nothing.", "vecdb-cli check notes.vecdb", FOR_CHECK, 1, 1,
     cmd_check},
    {"repair", "make a damaged database usable again", "DB",
     "All that can be read is written into a new database, which takes the name; the damaged one is kept as\n"
     "DB.damaged-1 (or -2, ...), and nothing of it is changed. Every loss is listed: exit code 3 when there is one.\n"
     "Nobody may have it open. Where nothing is wrong nothing is done.",
     "vecdb-cli repair notes.vecdb", FOR_REPAIR, 1, 1, cmd_repair},
    {"compact", "pack vectors, and give the space of deleted ones back", "DB",
     "Reading and writing may go on meanwhile. Ctrl-C ends it without loss.", "vecdb-cli compact notes.vecdb",
     FOR_COMPACT, 1, 1, cmd_compact},
    {"backup", "copy the database to a new directory, while others use it", "DB DEST [--link]",
     "The copy is a database like any other, of the moment at which the command began. DEST is new or empty.\n"
     "Ctrl-C removes what was made.",
     "vecdb-cli backup notes.vecdb /backups/notes-monday", FOR_BACKUP, 2, 2, cmd_backup},
    {"restore", "put a backup in the place of a database", "BACKUP DB",
     "A database that is there is kept as DB.replaced-1 (or -2, ...); nobody may have it open.",
     "vecdb-cli restore /backups/notes-monday notes.vecdb", FOR_RESTORE, 2, 2, cmd_restore},
    {"snapshot", "keep the state of now under a name; list and drop such names", "DB [NAME [--drop]]",
     "Without a NAME the snapshots are listed. Other commands read one with --snapshot NAME.",
     "vecdb-cli snapshot notes.vecdb before-import\n"
     "  vecdb-cli query notes.vecdb notes --like moon-7 --snapshot before-import\n"
     "  vecdb-cli snapshot notes.vecdb before-import --drop",
     FOR_SNAPSHOT, 1, 2, cmd_snapshot},
    {"export", "write records to a file", "DB COLLECTION FILE [OPTION...]",
     "FILE.jsonl, or - for stdout, takes everything; import reads it back. FILE.npy, .fbin, .f16bin, .u8bin,\n"
     ".i8bin, .fvecs or .bvecs takes the vectors of one field, and --records the rest, line by line.\n"
     "Vectors of bits go to u8 files, 8 to a byte.",
     "vecdb-cli export notes.vecdb notes notes.jsonl\n"
     "  vecdb-cli export notes.vecdb notes vectors.npy --records records.jsonl",
     FOR_EXPORT, 3, 3, cmd_export},
    {"eval", "measure recall and speed of searches", "DB COLLECTION --queries FILE [--truth FILE] [-k K]",
     "One query a call, unless --batch says more; a warm-up comes first and is not counted. A result is a hit\n"
     "when it is among the K true neighbours, or as near as the last of them. Without --truth an exact search\n"
     "finds the true ones.",
     "vecdb-cli eval notes.vecdb notes --queries query.fbin --truth gt100.ibin -k 10 --json", FOR_EVAL, 2, 2, cmd_eval},
    {"recall", "measure whether searches find what is nearest, on the collection's own vectors",
     "DB COLLECTION [--queries FILE] [-k K] [--recall R | --ef N]",
     "Stored vectors, drawn evenly, are searched for, with an exact search beside it; each record is left out of\n"
     "its own answer. An index knows stored vectors: queries unlike them may find slightly less. With --queries\n"
     "those of a file are measured instead.",
     "vecdb-cli recall notes.vecdb notes -k 10 --recall 0.99", FOR_RECALL, 2, 2, cmd_recall},
};
const size_t n_commands = sizeof command_list / sizeof command_list[0];

const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < n_commands; i++) {
        if (!strcmp(command_list[i].name, name))
            return &command_list[i];
    }
    return NULL;
}

/* ---------------------------------------------------------------- help */

int command_help(const struct command *command, FILE *out)
{
    fprintf(out, "usage: vecdb-cli %s %s\n\n%c%s.\n", command->name, command->usage, command->summary[0] - 32,
            command->summary + 1);
    if (command->text[0])
        fprintf(out, "%s\n", command->text);
    fputs("\n", out);
    options_help(command->bit, out);
    fprintf(out, "\nexample:\n  %s\n", command->example);
    return CODE_OK;
}

static void print_commands(FILE *out)
{
    fputs("usage: vecdb-cli COMMAND ARGUMENT... [OPTION...]\n\n", out);
    for (size_t i = 0; i < n_commands; i++)
        fprintf(out, "  %-9s %s\n", command_list[i].name, command_list[i].summary);
    fputs("  help      help COMMAND shows its options\n\n"
          "exit codes: 0 done, 1 failed, 2 wrong usage, 3 damage found\n\n"
          "example:\n"
          "  vecdb-cli import notes.vecdb notes embeddings.npy --metric cosine\n"
          "  vecdb-cli query notes.vecdb notes --like 7 -k 3\n",
          out);
}

static int unknown_command(const char *name)
{
    const char *names[sizeof command_list / sizeof command_list[0]];
    for (size_t i = 0; i < n_commands; i++)
        names[i] = command_list[i].name;
    const char *near = nearest_name(name, names, n_commands);
    if (near)
        return cli_usage("unknown command \"%.60s\"; did you mean %s?", name, near);
    return cli_usage("unknown command \"%.60s\"; see \"vecdb-cli help\"", name);
}

static int print_version(void)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_stats stats = {.size = sizeof stats};
    vecdb *db;
    int status = vecdb_open(":memory:", NULL, &db, &err);
    if (status)
        return cli_report(status, &err);
    status = vecdb_database_stats(db, &stats, &err);
    if (!status)
        printf("vecdb-cli %s (library %s, vectors computed with %s)\n", VECDB_VERSION, vecdb_version(),
               stats.simd ? stats.simd : "unknown");
    vecdb_close(db);
    return cli_report(status, &err);
}

static int run_command(const struct command *command, int n, char **words)
{
    struct options options;
    int code = CODE_USAGE;
    if (options_parse(&options, command, n, words))
        code = options.help ? command_help(command, stdout) : command->run(&options);
    options_release(&options);
    return code;
}

int main(int n, char **words)
{
    signal(SIGPIPE, SIG_DFL); /* a reader that went away ends the program, quietly */
    if (!setlocale(LC_CTYPE, "") || MB_CUR_MAX == 1)
        setlocale(LC_CTYPE, "C.UTF-8");
    const char *name = n > 1 ? words[1] : NULL;
    int code;
    if (!name) {
        print_commands(stderr);
        return CODE_USAGE;
    }
    if (!strcmp(name, "--version") || !strcmp(name, "version")) {
        code = print_version();
    } else if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help")) {
        const struct command *command = n > 2 ? command_find(words[2]) : NULL;
        if (n > 2 && !command)
            return unknown_command(words[2]);
        if (command)
            command_help(command, stdout);
        else
            print_commands(stdout);
        code = CODE_OK;
    } else {
        const struct command *command = command_find(name);
        if (!command)
            return unknown_command(name);
        code = run_command(command, n - 2, words + 2);
    }
    if (!output_finish() && code == CODE_OK)
        code = CODE_FAILED;
    return code;
}
