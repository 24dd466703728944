/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/input_json.c - records as JSON lines
 *
 * Two forms of a line, told apart line by line:
 *
 *     a record      {"key": 7, "vectors": {"text": [0.1, ...]}, "metadata": {...}, "text": "..."}
 *                   only these members (and "vector": [...] for a single field); what export writes
 *     a flat one    {"id": "moon-7", "title": "Sails", "year": 2024, "text": "...", "vector": [...]}
 *                   key, text and vector are taken out, all that is left is the metadata
 *
 * Behind a definition (definition.c) all lines are records, of the exact form that it describes.
 *
 * jansson reads and judges each line; members are then cut out of the line itself, so that
 * metadata is stored as it was written: 0.1 stays 0.1 (jansson prints 0.10000000000000001), and
 * integers beyond 64 bits keep their digits. Invariants of the cutting:
 *   1. It runs only over lines that jansson accepted, as objects without duplicate names.
 *   2. jansson keeps members in the order of the line, so the i-th member is the i-th span.
 *   3. It is bounded by the line all the same.
 *   4. The library judges metadata, and takes what jansson does not: 1e400, names given twice, half of
 *      a surrogate pair. A line that jansson refuses is given to it again with the inside of the
 *      metadata blanked out, and what the library says of that counts.
 *
 * The text: members named by --text, joined by newlines. The last of them is the body and leaves
 * the metadata; those before it are headings (a title, a section) and stay in it, since nobody
 * could take them out of the joined text again.
 */
#include "input.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "values.h"

#define PARSE_FLAGS (JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL)

struct member {
    const char *name; /* decoded */
    json_t *value;
    const char *raw; /* "name":value as in the line, from the name's quote */
    size_t raw_length;
    const char *raw_value;
    size_t raw_value_length;
};

struct line {
    const struct record_reader *reader;
    struct arena *arena;
    struct member *members;
    size_t n_members;
    const struct member *key;
};

/* The members of an exact record. Anything else is refused. */
static const char *const exact_members[] = {"key", "vectors", "metadata", "metadata_json", "text", "row"};

/* ---------------------------------------------------------------- cutting members out */

static const char *skip_space(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\r' || *at == '\n'))
        at++;
    return at;
}

/* Behind the string that begins at `at`. */
static const char *skip_string(const char *at, const char *end)
{
    for (at++; at < end && *at != '"'; at++) {
        if (*at == '\\')
            at++;
    }
    return at < end ? at + 1 : end;
}

/* Behind the value that begins at `at`. */
static const char *skip_value(const char *at, const char *end)
{
    size_t depth = 0;
    while (at < end) {
        if (*at == '"') {
            at = skip_string(at, end);
        } else if (*at == '{' || *at == '[') {
            depth++;
            at++;
        } else if (*at == '}' || *at == ']') {
            if (!depth)
                return at;
            depth--;
            at++;
        } else if (!depth && (*at == ',' || *at == ' ' || *at == '\t' || *at == '\r' || *at == '\n')) {
            return at;
        } else {
            at++;
            continue;
        }
        if (!depth)
            return at;
    }
    return end;
}

static void cut_members(struct line *line, json_t *object, const char *text, size_t length)
{
    const char *end = text + length, *at = skip_space(text, end), *name;
    json_t *value;
    line->n_members = json_object_size(object);
    line->members = arena_alloc(line->arena, (line->n_members + 1) * sizeof *line->members);
    struct member *member = line->members;
    json_object_foreach(object, name, value)
    {
        at = skip_space(at < end ? at + 1 : end, end); /* behind '{' or ',' */
        const char *start = at;
        at = skip_space(skip_string(at, end), end); /* at ':' */
        const char *raw_value = skip_space(at < end ? at + 1 : end, end);
        at = skip_value(raw_value, end);
        *member++ = (struct member){name, value, start, (size_t)(at - start), raw_value, (size_t)(at - raw_value)};
        at = skip_space(at, end);
    }
}

/* ---------------------------------------------------------------- vectors */

static int fail_line(const struct line *line, vecdb_error *err, const char *what)
{
    return cli_fail(err, VECDB_INVALID, "%s: line %llu: %s", line->reader->source.name,
                    (unsigned long long)line->reader->lines.number, what);
}

static int array_to_floats(json_t *array, struct arena *arena, const char *where, const float **values,
                           uint32_t *dimension, vecdb_error *err)
{
    size_t n = json_array_size(array);
    if (!json_is_array(array))
        return cli_fail(err, VECDB_INVALID, "%s is not an array of numbers", where);
    if (n < 1 || n > VECDB_MAX_DIMENSION)
        return cli_fail(err, VECDB_INVALID, "%s has %zu values, a vector has 1 to %d", where, n, VECDB_MAX_DIMENSION);
    float *out = arena_alloc(arena, n * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_array_get(array, i);
        if (!json_is_number(value))
            return cli_fail(err, VECDB_INVALID, "%s: value %zu is not a number", where, i);
        out[i] = (float)json_number_value(value);
        if (!isfinite(out[i]))
            return cli_fail(err, VECDB_INVALID, "%s: value %zu is too large for a 32-bit float", where, i);
    }
    *values = out;
    *dimension = (uint32_t)n;
    return VECDB_OK;
}

int json_parse_vector(const char *text, size_t length, struct arena *arena, const char *where, const float **values,
                      uint32_t *dimension, vecdb_error *err)
{
    json_error_t problem;
    json_t *array = json_loadb(text, length, PARSE_FLAGS, &problem);
    if (!array)
        return cli_fail(err, VECDB_INVALID, "%s is not valid JSON: %s (column %d)", where, problem.text,
                        problem.column);
    int status = array_to_floats(array, arena, where, values, dimension, err);
    json_decref(array);
    return status;
}

static int add_vector(const struct line *line, struct row_record *record, const char *field, json_t *value,
                      vecdb_error *err)
{
    char where[320];
    struct row_vector *vector = &record->vectors[record->n_vectors];
    if (json_is_null(value))
        return VECDB_OK;
    snprintf(where, sizeof where, "%.160s: line %llu: vector%s%.80s%s", line->reader->source.name,
             (unsigned long long)line->reader->lines.number, field ? " \"" : "", field ? field : "", field ? "\"" : "");
    int status = array_to_floats(value, line->arena, where, &vector->values, &vector->dimension, err);
    if (status)
        return status;
    vector->field = field ? arena_copy(line->arena, field, strlen(field)) : NULL;
    record->n_vectors++;
    return VECDB_OK;
}

static int take_vectors(const struct line *line, struct row_record *record, const struct member *one,
                        const struct member *many, vecdb_error *err)
{
    size_t n = (one != NULL) + (many ? json_object_size(many->value) : 0);
    const char *field;
    json_t *value;
    int status;
    if (many && !json_is_object(many->value))
        return fail_line(line, err, "\"vectors\" is not an object of field names and arrays");
    record->vectors = arena_alloc(line->arena, (n + 1) * sizeof *record->vectors);
    if (one && (status = add_vector(line, record, NULL, one->value, err)))
        return status;
    if (!many)
        return VECDB_OK;
    json_object_foreach(many->value, field, value)
    {
        if ((status = add_vector(line, record, field, value, err)))
            return status;
    }
    return VECDB_OK;
}

/* ---------------------------------------------------------------- key, text, metadata */

static const struct member *find_member(const struct line *line, const char *name)
{
    for (size_t i = 0; name && i < line->n_members; i++) {
        if (!strcmp(line->members[i].name, name))
            return &line->members[i];
    }
    return NULL;
}

static int take_key(struct line *line, struct row_record *record, vecdb_error *err)
{
    const struct record_reader *reader = line->reader;
    if (!reader->key)
        return VECDB_OK;
    const struct member *key = line->key = find_member(line, reader->key);
    char what[200];
    if (!key) {
        snprintf(what, sizeof what, "there is no member \"%.80s\", which is the key", reader->key);
        return fail_line(line, err, what);
    }
    record->has_key = true;
    if (json_is_string(key->value)) {
        size_t n = json_string_length(key->value);
        if (!n)
            return fail_line(line, err, "the key is empty");
        record->key = (vecdb_key){arena_copy(line->arena, json_string_value(key->value), n), n, 0};
        return VECDB_OK;
    }
    int64_t integer;
    if (!json_is_number(key->value) || !parse_integer(key->raw_value, key->raw_value_length, &integer)) {
        snprintf(what, sizeof what, "the key %.*s is neither a text nor a 64-bit integer",
                 (int)(key->raw_value_length < 60 ? key->raw_value_length : 60), key->raw_value);
        return fail_line(line, err, what);
    }
    record->key = vecdb_key_int(integer);
    return VECDB_OK;
}

/* Join the text members; *body is the one that leaves the metadata. */
static int take_text(const struct line *line, struct row_record *record, const struct member **body, vecdb_error *err)
{
    const struct record_reader *reader = line->reader;
    size_t total = 0, n = 0;
    *body = NULL;
    for (size_t i = 0; i < reader->n_text_names; i++) {
        const struct member *member = find_member(line, reader->text_names[i]);
        if (!member || json_is_null(member->value))
            continue;
        if (!json_is_string(member->value)) {
            if (!reader->settings.text) /* nobody asked for it: plain metadata */
                continue;
            char what[160];
            snprintf(what, sizeof what, "\"%.80s\" is not a text", member->name);
            return fail_line(line, err, what);
        }
        total += json_string_length(member->value) + 1;
        n++;
        if (i + 1 == reader->n_text_names)
            *body = member;
    }
    if (!n)
        return VECDB_OK;
    char *out = arena_alloc(line->arena, total + 1);
    record->text = out;
    for (size_t i = 0; i < reader->n_text_names; i++) {
        const struct member *member = find_member(line, reader->text_names[i]);
        if (!member || !json_is_string(member->value))
            continue;
        size_t length = json_string_length(member->value);
        if (out > record->text && length)
            *out++ = '\n';
        memcpy(out, json_string_value(member->value), length);
        out += length;
    }
    *out = 0;
    record->text_length = (size_t)(out - record->text);
    return VECDB_OK;
}

static void take_metadata(const struct line *line, struct row_record *record, const struct member *const *taken,
                          size_t n_taken)
{
    size_t total = 2, n = 0;
    char *out = NULL;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < line->n_members; i++) {
            const struct member *member = &line->members[i];
            bool skip = false;
            for (size_t t = 0; t < n_taken; t++)
                skip |= taken[t] == member;
            if (skip)
                continue;
            if (!pass) {
                total += member->raw_length + 1;
                n++;
                continue;
            }
            *out = out == record->metadata ? '{' : ',';
            out++;
            memcpy(out, member->raw, member->raw_length);
            out += member->raw_length;
        }
        if (!n)
            return;
        if (!pass)
            record->metadata = out = arena_alloc(line->arena, total);
    }
    *out++ = '}';
    *out = 0;
    record->metadata_length = (size_t)(out - record->metadata);
}

/* ---------------------------------------------------------------- lines */

static bool is_record_form(const struct line *line, const struct member *const *own, size_t n_own)
{
    for (size_t i = 0; i < line->n_members; i++) {
        bool known = false;
        for (size_t j = 0; j < n_own; j++)
            known |= own[j] == &line->members[i];
        if (!known)
            return false;
    }
    return true;
}

/* "metadata" as it stands in the line, or the text that "metadata_json" holds. */
static int take_exact_metadata(const struct line *line, struct row_record *record, vecdb_error *err)
{
    const struct member *object = find_member(line, "metadata"), *text = find_member(line, "metadata_json");
    if (!object && !text)
        return VECDB_OK;
    if ((object && text) || (object && !json_is_object(object->value)) || (text && !json_is_string(text->value)))
        return fail_line(line, err,
                         "metadata is either \"metadata\", an object, or \"metadata_json\", a text with one in it");
    const char *bytes = object ? object->raw_value : json_string_value(text->value);
    record->metadata_length = object ? object->raw_value_length : json_string_length(text->value);
    if (!record->metadata_length) /* a length of 0 means "ends in NUL", and the library refuses "" */
        return fail_line(line, err, "\"metadata_json\" is empty");
    record->metadata = arena_copy(line->arena, bytes, record->metadata_length);
    return VECDB_OK;
}

/* A line behind a definition. */
static int read_exact(struct line *line, struct row_record *record, vecdb_error *err)
{
    char what[200];
    for (size_t i = 0; i < line->n_members; i++) {
        size_t k = 0, n = sizeof exact_members / sizeof exact_members[0];
        while (k < n && strcmp(exact_members[k], line->members[i].name))
            k++;
        if (k == n) {
            snprintf(what, sizeof what, "a record behind a definition has no member \"%.80s\"", line->members[i].name);
            return fail_line(line, err, what);
        }
    }
    const struct member *row = find_member(line, "row"), *text = find_member(line, "text");
    if (row && (!json_is_null(row->value) || !line->reader->definition->rows))
        return fail_line(line, err, "\"row\" is not null, or there is no file of vectors");
    record->has_no_row = row != NULL;
    int status = take_key(line, record, err);
    if (!status)
        status = take_vectors(line, record, NULL, find_member(line, "vectors"), err);
    if (!status)
        status = take_exact_metadata(line, record, err);
    if (status || !text)
        return status;
    if (!json_is_string(text->value))
        return fail_line(line, err, "\"text\" is not a text");
    record->text_length = json_string_length(text->value);
    record->text = arena_copy(line->arena, json_string_value(text->value), record->text_length);
    return VECDB_OK;
}

static int read_members(struct line *line, struct row_record *record, vecdb_error *err)
{
    if (line->reader->definition)
        return read_exact(line, record, err);
    const struct record_settings *settings = &line->reader->settings;
    int status = take_key(line, record, err);
    if (status)
        return status;
    const struct member *body, *one = NULL, *many = NULL;
    if (settings->vectors) {
        one = find_member(line, settings->vector ? settings->vector : "vector");
        many = find_member(line, "vectors");
        if ((status = take_vectors(line, record, one, many, err)))
            return status;
    }
    const struct member *metadata = find_member(line, "metadata"), *text = find_member(line, "text");
    const struct member *own[] = {line->key, one, many, metadata, text};
    if ((status = take_text(line, record, &body, err)))
        return status;
    if (is_record_form(line, own, 5) && (!text || text == body || json_is_null(text->value))) {
        if (!metadata || json_is_null(metadata->value))
            return VECDB_OK;
        if (!json_is_object(metadata->value))
            return fail_line(line, err, "\"metadata\" is not an object");
        record->metadata = arena_copy(line->arena, metadata->raw_value, metadata->raw_value_length);
        record->metadata_length = metadata->raw_value_length;
        return VECDB_OK;
    }
    const struct member *taken[] = {line->key, one, many, body};
    take_metadata(line, record, taken, 4);
    return VECDB_OK;
}

/* Which member is the key is decided by the first record, and holds for all. Lines that go with a
 * file of vectors have row numbers as keys, unless they say "key" or the user does: files of true
 * neighbours mean row numbers, and an "id" that is not unique would end the import. */
static void choose_key(struct record_reader *reader, const json_t *object)
{
    if (reader->definition)
        reader->key = "key";
    else if (reader->settings.key)
        reader->key = reader->settings.key;
    else if (json_object_get(object, "key"))
        reader->key = "key";
    else if (reader->settings.vectors && json_object_get(object, "id"))
        reader->key = "id";
}

/* A copy of the line in which the member "metadata", if it is an object, is an empty one of the same
 * length; NULL when there is none. */
static char *blank_metadata(struct arena *arena, const char *text, size_t length)
{
    static const char name[] = "\"metadata\"";
    const char *end = text + length, *at = skip_space(text, end);
    while (at < end && (*at == '{' || *at == ',')) {
        const char *member = skip_space(at + 1, end);
        if (member == end || *member != '"')
            return NULL;
        at = skip_string(member, end);
        bool is_metadata = (size_t)(at - member) == sizeof name - 1 && !memcmp(member, name, sizeof name - 1);
        at = skip_space(at, end);
        const char *value = skip_space(at < end ? at + 1 : end, end);
        at = skip_value(value, end);
        if (is_metadata && value < end && *value == '{' && at - value > 2 && at[-1] == '}') {
            char *copy = arena_copy(arena, text, length);
            memset(copy + (value - text) + 1, ' ', (size_t)(at - value) - 2);
            return copy;
        }
        at = skip_space(at, end);
    }
    return NULL;
}

/* The line as an object; NULL with what is wrong with all of it. */
static json_t *load_line(struct arena *arena, const char *text, size_t length, json_error_t *problem)
{
    json_t *object = json_loadb(text, length, PARSE_FLAGS, problem);
    if (object)
        return object;
    const char *blanked = blank_metadata(arena, text, length);
    return blanked ? json_loadb(blanked, length, PARSE_FLAGS, NULL) : NULL;
}

/* The next line that is not white space; NULL at the end. */
static int next_line(struct record_reader *reader, const char **text, size_t *length, vecdb_error *err)
{
    int status;
    do {
        if ((status = line_read(&reader->lines, text, length, err)) || !*text)
            return status;
    } while (skip_space(*text, *text + *length) == *text + *length);
    return VECDB_OK;
}

int json_open(struct record_reader *reader, vecdb_error *err)
{
    int status = next_line(reader, &reader->pending, &reader->pending_length, err);
    if (!status && reader->pending)
        status =
            definition_parse(reader->source.name, reader->pending, reader->pending_length, &reader->definition, err);
    if (reader->definition)
        reader->pending = NULL;
    return status;
}

int json_next(struct record_reader *reader, struct arena *arena, struct row_record *record, bool *got, vecdb_error *err)
{
    const char *text = reader->pending;
    size_t length = reader->pending_length;
    int status;
    memset(record, 0, sizeof *record);
    *got = false;
    reader->pending = NULL;
    if (!text && ((status = next_line(reader, &text, &length, err)) || !text))
        return status;

    struct line line = {.reader = reader, .arena = arena};
    json_error_t problem;
    json_t *object = load_line(arena, text, length, &problem);
    if (!object)
        return cli_fail(err, VECDB_INVALID, "%s: line %llu: not valid JSON: %s (column %d)", reader->source.name,
                        (unsigned long long)reader->lines.number, problem.text, problem.column);
    if (!json_is_object(object)) {
        status = fail_line(&line, err, "not a JSON object");
        goto done;
    }
    if (!reader->n_records)
        choose_key(reader, object);
    record->line = reader->lines.number;
    cut_members(&line, object, text, length);
    if ((status = read_members(&line, record, err)))
        goto done;
    reader->n_records++;
    *got = true;
done:
    json_decref(object);
    return status;
}

/* ---------------------------------------------------------------- records of either format */

static void split_names(struct record_reader *reader, const char *names)
{
    size_t n = 1;
    for (const char *c = names; *c; c++)
        n += *c == ',';
    reader->text_names = cli_alloc_array(n, sizeof *reader->text_names);
    for (const char *at = names;; at++) {
        size_t length = strcspn(at, ",");
        if (length)
            reader->text_names[reader->n_text_names++] = cli_copy(at, length);
        at += length;
        if (!*at)
            break;
    }
}

int records_open(struct record_reader *reader, struct byte_source *source, int format,
                 const struct record_settings *settings, vecdb_error *err)
{
    memset(reader, 0, sizeof *reader);
    reader->source = *source;
    memset(source, 0, sizeof *source);
    reader->format = format;
    reader->settings = *settings;
    reader->lines = (struct line_reader){.source = &reader->source, .limit = settings->limit_bytes};
    split_names(reader, settings->text ? settings->text : "text");
    int status = format == INPUT_CSV ? csv_open(reader, err) : json_open(reader, err);
    if (status)
        records_close(reader);
    return status;
}

int records_next(struct record_reader *reader, struct arena *arena, struct row_record *record, bool *got,
                 vecdb_error *err)
{
    return reader->format == INPUT_CSV ? csv_next(reader, arena, record, got, err)
                                       : json_next(reader, arena, record, got, err);
}

void records_close(struct record_reader *reader)
{
    if (reader->csv)
        csv_close(reader);
    for (size_t i = 0; i < reader->n_text_names; i++)
        free(reader->text_names[i]);
    free(reader->text_names);
    definition_free(reader->definition);
    line_release(&reader->lines);
    source_close(&reader->source);
    memset(reader, 0, sizeof *reader);
}
