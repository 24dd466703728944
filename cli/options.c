/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/options.c - one table of all options, and the parser that reads it
 *
 *     --name value   --name=value   --flag   -k value   -kvalue   --  (only arguments behind it)
 *
 * Options and arguments may come in any order. What begins with '-' and a digit is an argument:
 * it is a key. An option given twice counts the second time.
 *
 * Each entry says which commands take it, so that help texts, "not an option of this command"
 * and the check of values all come from the table. An entry of kind LATER keeps the name of an
 * option that a later version brings: using it is an error of its own, so that nobody mistakes
 * it for a typing error, or believes that it did something.
 *
 * Rejected: getopt_long. It prints its own words, cannot suggest a name, and accepts unambiguous
 * beginnings of names, which break scripts when an option is added.
 */
#include "options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "input.h"
#include "values.h"

enum kind { FLAG, TEXT, NUMBER, BYTES, SHARE, CHOICE, MODE, LATER };

struct choice {
    const char *name;
    uint64_t value;
};

#define CHOICE_LATER (UINT64_MAX - 1)

struct option_spec {
    const char *name;
    char letter;
    enum kind kind;
    unsigned commands;
    size_t offset;
    const char *value; /* what help calls it */
    const char *help;
    const struct choice *choices;
    uint64_t low, high;
    int mode;
};

static const struct choice metrics[] = {
    {"l2", VECDB_L2}, {"ip", VECDB_IP}, {"cosine", VECDB_COSINE}, {"hamming", VECDB_HAMMING}, {NULL, 0}};
static const struct choice indexes[] = {
    {"auto", VECDB_INDEX_AUTO}, {"flat", VECDB_INDEX_FLAT}, {"hnsw", VECDB_INDEX_HNSW}, {"ivf", CHOICE_LATER},
    {NULL, 0}};
static const struct choice types[] = {{"f32", VECDB_F32}, {"f16", VECDB_F16}, {"bf16", VECDB_BF16},
                                      {"i8", VECDB_I8},   {"u8", VECDB_U8},   {"bit", VECDB_BIT},
                                      {NULL, 0}};
static const struct choice compressions[] = {
    {"auto", VECDB_COMPRESSION_AUTO}, {"none", VECDB_COMPRESSION_NONE}, {"max", VECDB_COMPRESSION_MAX}, {NULL, 0}};
static const struct choice durabilities[] = {
    {"full", VECDB_DURABILITY_FULL}, {"normal", VECDB_DURABILITY_NORMAL}, {NULL, 0}};
static const struct choice ios[] = {{"auto", VECDB_IO_AUTO}, {"read", VECDB_IO_READ}, {NULL, 0}};
static const struct choice formats[] = {{"fvecs", INPUT_FVECS},   {"bvecs", INPUT_BVECS}, {"ivecs", INPUT_IVECS},
                                        {"fbin", INPUT_FBIN},     {"u8bin", INPUT_U8BIN}, {"i8bin", INPUT_I8BIN},
                                        {"f16bin", INPUT_F16BIN}, {"ibin", INPUT_IBIN},   {"npy", INPUT_NPY},
                                        {"jsonl", INPUT_JSONL},   {"csv", INPUT_CSV},     {NULL, 0}};

#define AT(member) offsetof(struct options, member)

/* clang-format off */
static const struct option_spec specs[] = {
    {"metric", 0, CHOICE, FOR_IMPORT, AT(metric), "NAME", "of a new field: l2, ip, cosine, hamming (default: cosine; hamming for bits)", metrics, 0, 0, 0},
    {"index", 0, CHOICE, FOR_IMPORT, AT(index), "NAME", "of a new field: auto, flat, hnsw", indexes, 0, 0, 0},
    {"type", 0, CHOICE, FOR_IMPORT, AT(type), "NAME", "of a new field: f32, f16, bf16, i8, u8, bit (default: as in the file)", types, 0, 0, 0},
    {"compression", 0, CHOICE, FOR_IMPORT, AT(compression), "NAME", "of a new field: auto, none, max", compressions, 0, 0, 0},
    {"format", 0, CHOICE, FOR_IMPORT | FOR_QUERY | FOR_EVAL | FOR_EXPORT | FOR_RECALL, AT(format), "NAME", "of the file of vectors, where its name does not tell", formats, 0, 0, 0},
    {"field", 0, TEXT, FOR_IMPORT | FOR_QUERY | FOR_EVAL | FOR_EXPORT | FOR_RECALL, AT(field), "NAME", "the vector field (default: the first; of a new collection \"vector\")", NULL, 0, 0, 0},
    {"records", 0, TEXT, FOR_IMPORT | FOR_EXPORT, AT(records), "FILE", "JSON lines with keys, metadata and texts, in the order of the rows", NULL, 0, 0, 0},
    {"key", 0, TEXT, FOR_IMPORT, AT(key), "NAME", "member that is the key (default: \"key\", without a vector file also \"id\"; else row numbers)", NULL, 0, 0, 0},
    {"text", 0, TEXT, FOR_IMPORT, AT(text), "NAMES", "members joined to the text; the last leaves the metadata (default: \"text\")", NULL, 0, 0, 0},
    {"upsert", 0, FLAG, FOR_IMPORT, AT(upsert), NULL, "replace records whose keys exist (default: that is an error)", NULL, 0, 0, 0},
    {"batch", 0, NUMBER, FOR_IMPORT, AT(batch_rows), "N", "rows a commit (default: 10,000, or as many as fit in 16 MiB)", NULL, 1, 100000000, 0},
    {"batch", 0, NUMBER, FOR_EVAL, AT(batch_rows), "N", "queries a call (default: 1)", NULL, 1, 100000000, 0},
    {"limit", 0, NUMBER, FOR_IMPORT | FOR_SCAN | FOR_EVAL, AT(limit), "N", "stop after so many rows", NULL, 1, UINT64_MAX - 2, 0},
    {"kind", 0, CHOICE, FOR_INDEX, AT(index), "NAME", "change the index: auto, flat, hnsw", indexes, 0, 0, 0},
    {"wait", 0, FLAG, FOR_INDEX, AT(wait), NULL, "until the index covers all vectors, and then show it", NULL, 0, 0, 0},
    {"no-wait", 0, FLAG, FOR_INDEX, AT(no_wait), NULL, "with --kind: leave the building to who searches next", NULL, 0, 0, 0},
    {"no-wait", 0, FLAG, FOR_IMPORT, AT(no_wait), NULL, "do not wait for the index (a flat one is always complete)", NULL, 0, 0, 0},

    {"vector", 0, TEXT, FOR_QUERY, AT(vector), "JSON", "the vector to search for: '[0.1, 0.2, ...]'", NULL, 0, 0, 0},
    {"queries", 0, TEXT, FOR_QUERY | FOR_EVAL | FOR_RECALL, AT(queries), "FILE", "a file of vectors to search for", NULL, 0, 0, 0},
    {"row", 0, NUMBER, FOR_QUERY, AT(row), "I", "which row of the file, from 0", NULL, 0, UINT64_MAX - 2, 0},
    {"like", 0, TEXT, FOR_QUERY, AT(like), "KEY", "records like this one", NULL, 0, 0, 0},
    {"samples", 0, NUMBER, FOR_RECALL, AT(samples), "N", "how many stored vectors are searched for (default: 500)", NULL, 1, 10000000, 0},
    {"recall", 0, SHARE, FOR_QUERY | FOR_EVAL | FOR_RECALL, AT(recall), "R", "the recall to ask for, like 0.99 (default: 0.95)", NULL, 0, 0, 0},
    {"ef", 0, NUMBER, FOR_QUERY | FOR_EVAL | FOR_RECALL, AT(ef), "N", "search with this ef, whatever recall it gives", NULL, 1, 100000000, 0},
    {"truth", 0, TEXT, FOR_EVAL, AT(truth), "FILE", "true neighbours, row numbers (ibin, ivecs, npy)", NULL, 0, 0, 0},
    {"k", 'k', NUMBER, FOR_QUERY | FOR_EVAL | FOR_RECALL, AT(k), "K", "how many results (default: 10)", NULL, 1, VECDB_MAX_K, 0},
    {"offset", 0, NUMBER, FOR_QUERY, AT(offset), "N", "leave out this many of the nearest", NULL, 0, VECDB_MAX_K, 0},
    {"exact", 0, FLAG, FOR_QUERY | FOR_EVAL, AT(exact), NULL, "the true nearest, whatever index there is", NULL, 0, 0, 0},
    {"timeout", 0, NUMBER, FOR_QUERY, AT(timeout_ms), "MS", "give up after so many milliseconds", NULL, 1, UINT32_MAX, 0},
    {"keys-only", 0, FLAG, FOR_QUERY | FOR_SCAN, AT(keys_only), NULL, "no metadata and no text", NULL, 0, 0, 0},
    {"explain", 0, FLAG, FOR_QUERY, AT(explain), NULL, "say what the search did", NULL, 0, 0, 0},
    {"vectors", 0, FLAG, FOR_GET | FOR_SCAN | FOR_QUERY, AT(vectors), NULL, "print the vectors too", NULL, 0, 0, 0},
    {"after", 0, TEXT, FOR_SCAN, AT(after), "KEY", "begin behind this key", NULL, 0, 0, 0},
    {"keys-file", 0, TEXT, FOR_GET | FOR_DELETE, AT(keys_file), "FILE", "more keys, one a line; - is stdin", NULL, 0, 0, 0},
    {"text-keys", 0, FLAG, FOR_GET | FOR_DELETE | FOR_QUERY | FOR_SCAN, AT(text_keys), NULL, "take digits as text, too (default: 5 is the integer key)", NULL, 0, 0, 0},

    {"link", 0, FLAG, FOR_BACKUP | FOR_RESTORE, AT(link), NULL, "share vector files by hard links, where that can be done: quick and small", NULL, 0, 0, 0},
    {"drop", 0, FLAG, FOR_SNAPSHOT, AT(drop), NULL, "remove the snapshot of that name", NULL, 0, 0, 0},
    {"snapshot", 0, TEXT, FOR_QUERY | FOR_GET | FOR_SCAN | FOR_INFO | FOR_CHECK | FOR_EXPORT | FOR_EVAL | FOR_BACKUP | FOR_RECALL, AT(snapshot), "NAME", "of this snapshot, not of the database as it is now", NULL, 0, 0, 0},

    {"filter", 0, LATER, FOR_QUERY | FOR_EVAL | FOR_DELETE | FOR_SCAN | FOR_EXPORT, 0, "EXPR", NULL, NULL, 0, 0, 0},
    {"text", 0, LATER, FOR_QUERY, 0, "WORDS", NULL, NULL, 0, 0, 0},
    {"nprobe", 0, LATER, FOR_QUERY | FOR_EVAL, 0, "A,B,..", NULL, NULL, 0, 0, 0},

    {"json", 0, MODE, FOR_ALL, AT(mode), NULL, "print one JSON document", NULL, 0, 0, MODE_JSON},
    {"jsonl", 0, MODE, FOR_ALL, AT(mode), NULL, "print one JSON object a line (default when not on a terminal)", NULL, 0, 0, MODE_JSONL},
    {"csv", 0, MODE, FOR_ALL, AT(mode), NULL, "print CSV", NULL, 0, 0, MODE_CSV},
    {"table", 0, MODE, FOR_ALL, AT(mode), NULL, "print a table (default on a terminal)", NULL, 0, 0, MODE_TABLE},
    {"quiet", 'q', FLAG, FOR_ALL, AT(quiet), NULL, "no progress, no remarks", NULL, 0, 0, 0},
    {"threads", 0, NUMBER, FOR_ALL, AT(threads), "N", "at most so many (default: 0, all processors)", NULL, 0, 4096, 0},
    {"memory", 0, BYTES, FOR_ALL, AT(memory_bytes), "BYTES", "budget for caches and buffers, like 64M (default: 256M)", NULL, 1 << 20, UINT64_C(1) << 50, 0},
    {"durability", 0, CHOICE, FOR_ALL, AT(durability), "NAME", "full: a commit survives a power cut; normal: faster", durabilities, 0, 0, 0},
    {"index-memory", 0, BYTES, FOR_IMPORT | FOR_INDEX | FOR_QUERY | FOR_EVAL | FOR_RECALL, AT(index_memory_bytes), "BYTES", "budget for indexes, like 512M; what does not fit is scanned (default: no limit)", NULL, 1 << 20, UINT64_C(1) << 50, 0},
    {"io", 0, CHOICE, FOR_ALL, AT(io), "NAME", "auto: map files; read: never map them", ios, 0, 0, 0},
    {"busy-timeout", 0, NUMBER, FOR_ALL, AT(busy_timeout_ms), "MS", "wait so long for other writers; 0: not at all (default: 5000)", NULL, 0, INT32_MAX, 0},
    {"help", 'h', FLAG, FOR_ALL, AT(help), NULL, "show this help", NULL, 0, 0, 0},
};
/* clang-format on */

#define N_SPECS (sizeof specs / sizeof specs[0])

/* ---------------------------------------------------------------- names that look alike */

/* Edit distance with a row of memory; words longer than it are not alike. */
static size_t edit_distance(const char *a, const char *b)
{
    enum { LONGEST = 31 };
    size_t n = strlen(a), m = strlen(b), row[LONGEST + 1];
    if (n > LONGEST || m > LONGEST)
        return LONGEST;
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            best = row[j] + 1 < best ? row[j] + 1 : best;
            row[j] = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
        }
    }
    return row[m];
}

const char *nearest_name(const char *word, const char *const *names, size_t n_names)
{
    const char *best = NULL;
    size_t best_distance = strlen(word) / 2 + 1 < 4 ? strlen(word) / 2 + 1 : 4;
    for (size_t i = 0; i < n_names; i++) {
        size_t distance = edit_distance(word, names[i]);
        if (distance < best_distance) {
            best = names[i];
            best_distance = distance;
        }
    }
    return best;
}

static bool unknown_option(const struct command *command, const char *shown, const char *name)
{
    const char *names[N_SPECS];
    size_t n = 0;
    for (size_t i = 0; i < N_SPECS; i++) {
        if (specs[i].commands & command->bit && specs[i].kind != LATER)
            names[n++] = specs[i].name;
    }
    for (size_t i = 0; i < N_SPECS; i++) {
        if (!strcmp(specs[i].name, name) && !(specs[i].commands & command->bit)) {
            cli_usage("--%s is not an option of %s; see \"vecdb-cli help %s\"", name, command->name, command->name);
            return false;
        }
    }
    const char *near = nearest_name(name, names, n);
    if (near)
        cli_usage("unknown option %s; did you mean --%s?", shown, near);
    else
        cli_usage("unknown option %s; see \"vecdb-cli help %s\"", shown, command->name);
    return false;
}

/* ---------------------------------------------------------------- values */

static void print_choices(char *out, size_t size, const struct choice *choices)
{
    size_t used = 0;
    out[0] = 0;
    for (; choices->name; choices++) {
        if (choices->value == CHOICE_LATER)
            continue;
        int n = snprintf(out + used, size - used, "%s%s", used ? ", " : "", choices->name);
        if (n < 0 || (size_t)n >= size - used)
            return;
        used += (size_t)n;
    }
}

static bool set_choice(uint64_t *at, const struct option_spec *spec, const char *text)
{
    for (const struct choice *c = spec->choices; c->name; c++) {
        if (strcmp(c->name, text))
            continue;
        if (c->value == CHOICE_LATER) {
            cli_usage("--%s %s is not available in this version", spec->name, text);
            return false;
        }
        *at = c->value;
        return true;
    }
    char list[160];
    print_choices(list, sizeof list, spec->choices);
    cli_usage("--%s takes one of %s, not \"%s\"", spec->name, list, text);
    return false;
}

static bool set_number(uint64_t *at, const struct option_spec *spec, const char *text)
{
    uint64_t value;
    bool good = spec->kind == BYTES ? parse_bytes(text, &value) : parse_count(text, &value);
    if (good && value >= spec->low && value <= spec->high) {
        *at = value;
        return true;
    }
    char low[32], high[32];
    if (spec->kind == BYTES)
        cli_usage("--%s takes a number of bytes like 64M, at least 1M, not \"%s\"", spec->name, text);
    else if (spec->high >= UINT64_MAX - 2)
        cli_usage("--%s takes a whole number from %s on, not \"%s\"", spec->name, format_count(spec->low, low), text);
    else
        cli_usage("--%s takes a whole number from %s to %s, not \"%s\"", spec->name, format_count(spec->low, low),
                  format_count(spec->high, high), text);
    return false;
}

/* A share above 0 and up to 1, like 0.95 or .95. */
static bool set_share(float *at, const struct option_spec *spec, const char *text)
{
    char *end;
    bool good = text[0] && strspn(text, "0123456789.") == strlen(text);
    float value = strtof(text, &end);
    if (good && !*end && value > 0 && value <= 1) {
        *at = value;
        return true;
    }
    cli_usage("--%s takes a share above 0 and up to 1, like 0.95, not \"%s\"", spec->name, text);
    return false;
}

static bool set_value(struct options *options, const struct option_spec *spec, const char *text)
{
    void *at = (char *)options + spec->offset;
    switch (spec->kind) {
    case FLAG:
        *(bool *)at = true;
        return true;
    case MODE:
        *(int *)at = spec->mode;
        return true;
    case TEXT:
        *(const char **)at = text;
        return true;
    case CHOICE:
        return set_choice(at, spec, text);
    case NUMBER:
    case BYTES:
        return set_number(at, spec, text);
    case SHARE:
        return set_share(at, spec, text);
    case LATER:
        break;
    }
    cli_usage("--%s is not available in this version", spec->name);
    return false;
}

/* ---------------------------------------------------------------- words */

static const struct option_spec *find_spec(unsigned bit, const char *name, size_t length, char letter)
{
    for (size_t i = 0; i < N_SPECS; i++) {
        if (!(specs[i].commands & bit))
            continue;
        if (letter ? specs[i].letter == letter
                   : strlen(specs[i].name) == length && !memcmp(specs[i].name, name, length))
            return &specs[i];
    }
    return NULL;
}

/* One option at words[*i]; moves *i to its last word. */
static bool parse_option(struct options *options, const struct command *command, int n, char **words, int *i)
{
    const char *word = words[*i], *value = NULL;
    const struct option_spec *spec;
    char name[64];
    if (word[1] == '-') {
        size_t length = strcspn(word + 2, "=");
        if (word[2 + length] == '=')
            value = word + 2 + length + 1;
        spec = find_spec(command->bit, word + 2, length, 0);
        snprintf(name, sizeof name, "%.*s", (int)(length < 60 ? length : 60), word + 2);
    } else {
        spec = find_spec(command->bit, NULL, 0, word[1]);
        if (word[2])
            value = word + 2 + (word[2] == '=');
        snprintf(name, sizeof name, "%s", spec ? spec->name : "");
    }
    if (!spec) {
        char shown[70];
        snprintf(shown, sizeof shown, "%.*s", (int)(strcspn(word, "=") < 64 ? strcspn(word, "=") : 64), word);
        return unknown_option(command, shown, name);
    }
    if (spec->kind == FLAG || spec->kind == MODE) {
        if (!value)
            return set_value(options, spec, NULL);
        cli_usage("--%s takes no value", spec->name);
        return false;
    }
    if (spec->kind == LATER)
        return set_value(options, spec, NULL);
    if (!value) {
        if (*i + 1 >= n) {
            cli_usage("--%s needs a value: --%s %s", spec->name, spec->name, spec->value);
            return false;
        }
        value = words[++*i];
    }
    return set_value(options, spec, value);
}

bool options_parse(struct options *options, const struct command *command, int n, char **words)
{
    memset(options, 0, sizeof *options);
    options->command = command;
    options->k = DEFAULT_K;
    options->memory_bytes = DEFAULT_MEMORY_BYTES;
    options->metric = options->index = options->type = options->compression = OPTION_UNSET;
    options->row = options->busy_timeout_ms = OPTION_UNSET;
    options->arguments = cli_alloc_array((size_t)n + 1, sizeof *options->arguments);

    bool only_arguments = false;
    for (int i = 0; i < n; i++) {
        const char *word = words[i];
        bool option = !only_arguments && word[0] == '-' && word[1] && !(word[1] >= '0' && word[1] <= '9');
        if (option && !strcmp(word, "--"))
            only_arguments = true;
        else if (!option)
            options->arguments[options->n_arguments++] = word;
        else if (!parse_option(options, command, n, words, &i))
            return false;
        if (options->help)
            return true;
    }
    if (options->n_arguments < command->min_arguments || options->n_arguments > command->max_arguments) {
        cli_usage("%s: too %s arguments; usage: vecdb-cli %s %s", command->name,
                  options->n_arguments < command->min_arguments ? "few" : "many", command->name, command->usage);
        return false;
    }
    if (options->mode == MODE_DEFAULT)
        options->mode = isatty(STDOUT_FILENO) ? MODE_TABLE : MODE_JSONL;
    return true;
}

void options_release(struct options *options)
{
    free(options->arguments);
}

void options_help(unsigned command_bit, FILE *out)
{
    for (size_t i = 0; i < N_SPECS; i++) {
        const struct option_spec *spec = &specs[i];
        if (!(spec->commands & command_bit) || spec->kind == LATER)
            continue;
        char shown[64];
        snprintf(shown, sizeof shown, "%s%c%s--%s%s%s", spec->letter ? "-" : "", spec->letter ? spec->letter : ' ',
                 spec->letter ? ", " : "   ", spec->name, spec->value ? " " : "", spec->value ? spec->value : "");
        fprintf(out, "  %-26s %s\n", shown, spec->help);
    }
}
