/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/input_csv.c - records as CSV
 *
 *     key,title,year,vector,text
 *     moon-7,"Sails, ""solar""",2024,"[0.1, 0.2]","first line
 *     second line"
 *
 * RFC 4180: cells may be quoted; a quoted cell may hold commas, line ends and doubled quotes.
 * The first record names the columns. Columns for key, vector and text are taken out, the others
 * become the metadata: a bare cell that is a JSON number is a number, every other cell a text,
 * an empty bare cell is left out. To have digits as text, quote them. The same goes for keys.
 *
 * A record is read into one buffer, cells one after the other with a NUL behind each, and a table
 * of where they begin. A quote in the middle of a bare cell is a character like any other.
 */
#include "input.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "output.h"
#include "values.h"

struct cell {
    size_t begin, length; /* in csv_state.text */
    bool quoted;
};

struct csv_state {
    char *text;
    size_t length, capacity;
    struct cell *cells;
    size_t n_cells, cells_capacity;
    char **names; /* of the columns */
    size_t n_names;
    size_t key, vector; /* columns; SIZE_MAX: none */
    uint64_t line;      /* where the record begins, from 1 */
    uint64_t next_line;
};

/* ---------------------------------------------------------------- one record */

static int put_byte(struct record_reader *reader, char c, vecdb_error *err)
{
    struct csv_state *csv = reader->csv;
    if (csv->length + 1 >= csv->capacity) {
        if (csv->length > reader->settings.limit_bytes)
            return cli_fail(
                err, VECDB_INVALID,
                "%s: the record at line %llu is longer than %zu bytes (an unclosed quote?); a larger --memory "
                "allows longer ones",
                reader->source.name, (unsigned long long)csv->line, reader->settings.limit_bytes);
        csv->capacity = csv->capacity ? csv->capacity * 2 : 4096;
        csv->text = cli_realloc(csv->text, csv->capacity);
    }
    csv->text[csv->length++] = c;
    return VECDB_OK;
}

static struct cell *begin_cell(struct csv_state *csv)
{
    if (csv->n_cells == csv->cells_capacity) {
        csv->cells_capacity = csv->cells_capacity ? csv->cells_capacity * 2 : 32;
        csv->cells = cli_realloc(csv->cells, csv->cells_capacity * sizeof *csv->cells);
    }
    struct cell *cell = &csv->cells[csv->n_cells++];
    *cell = (struct cell){.begin = csv->length};
    return cell;
}

/* -1 at the end. */
static int next_byte(struct byte_source *source, int *c, vecdb_error *err)
{
    if (source->begin == source->end) {
        const uint8_t *bytes;
        size_t n;
        int status = source_peek(source, 1, &bytes, &n, err);
        if (status)
            return status;
        if (!n) {
            *c = -1;
            return VECDB_OK;
        }
    }
    *c = source->buffer[source->begin++];
    source->offset++;
    return VECDB_OK;
}

enum place { CELL_START, BARE, QUOTED, QUOTE_SEEN };

static int end_cell(struct record_reader *reader, struct cell **cell, bool more, vecdb_error *err)
{
    struct csv_state *csv = reader->csv;
    (*cell)->length = csv->length - (*cell)->begin;
    int status = put_byte(reader, 0, err);
    if (!status && more)
        *cell = begin_cell(csv);
    return status;
}

/* Reads one record into cells; n_cells is 0 at the end of the file. */
static int read_record(struct record_reader *reader, vecdb_error *err)
{
    struct csv_state *csv = reader->csv;
    enum place place = CELL_START;
    int status, c;
    csv->length = csv->n_cells = 0;
    csv->line = csv->next_line;
    struct cell *cell = begin_cell(csv);
    for (;;) {
        if ((status = next_byte(&reader->source, &c, err)))
            return status;
        if (c == '\n')
            csv->next_line++;
        if (place == QUOTED) {
            if (c < 0)
                return cli_fail(err, VECDB_INVALID, "%s: line %llu: a quote is opened and never closed",
                                reader->source.name, (unsigned long long)csv->line);
            if (c == '"')
                place = QUOTE_SEEN;
            else if ((status = put_byte(reader, (char)c, err)))
                return status;
            continue;
        }
        if (c < 0 || c == '\n') {
            if (c < 0 && csv->n_cells == 1 && place == CELL_START) {
                csv->n_cells = 0;
                return VECDB_OK;
            }
            if (place == BARE && csv->length > cell->begin && csv->text[csv->length - 1] == '\r')
                csv->length--;
            return end_cell(reader, &cell, false, err);
        }
        if (c == ',') {
            if ((status = end_cell(reader, &cell, true, err)))
                return status;
            place = CELL_START;
        } else if (c == '"' && place == CELL_START) {
            place = QUOTED;
            cell->quoted = true;
        } else if (place == QUOTE_SEEN && c != '"') {
            if (c != '\r')
                return cli_fail(err, VECDB_INVALID,
                                "%s: line %llu: a closing quote is followed by something else than a "
                                "comma; quotes inside are doubled",
                                reader->source.name, (unsigned long long)csv->line);
        } else {
            place = place == QUOTE_SEEN ? QUOTED : BARE;
            if ((status = put_byte(reader, (char)c, err)))
                return status;
        }
    }
}

/* Skips empty lines. */
static int read_filled_record(struct record_reader *reader, vecdb_error *err)
{
    struct csv_state *csv = reader->csv;
    int status;
    do
        status = read_record(reader, err);
    while (!status && csv->n_cells == 1 && !csv->cells[0].length && !csv->cells[0].quoted && csv->n_names != 1);
    return status;
}

/* ---------------------------------------------------------------- columns */

static size_t find_column(const struct csv_state *csv, const char *name)
{
    for (size_t i = 0; i < csv->n_names; i++) {
        if (!strcmp(csv->names[i], name))
            return i;
    }
    return SIZE_MAX;
}

static int read_names(struct record_reader *reader, vecdb_error *err)
{
    struct csv_state *csv = reader->csv;
    size_t skip = csv->cells[0].length >= 3 && !memcmp(csv->text, "\xef\xbb\xbf", 3) ? 3 : 0; /* byte order mark */
    csv->names = cli_alloc_array(csv->n_cells, sizeof *csv->names);
    for (size_t i = 0; i < csv->n_cells; i++) {
        const struct cell *cell = &csv->cells[i];
        const char *name = csv->text + cell->begin + (i ? 0 : skip);
        size_t length = cell->length - (i ? 0 : skip);
        if (!length || memchr(name, 0, length))
            return cli_fail(err, VECDB_INVALID, "%s: the header line has no name for column %zu", reader->source.name,
                            i + 1);
        if (find_column(csv, name) != SIZE_MAX)
            return cli_fail(err, VECDB_INVALID, "%s: the header line has two columns called \"%.80s\"",
                            reader->source.name, name);
        csv->names[csv->n_names++] = cli_copy(name, length);
    }
    return VECDB_OK;
}

int csv_open(struct record_reader *reader, vecdb_error *err)
{
    const struct record_settings *settings = &reader->settings;
    struct csv_state *csv = reader->csv = cli_alloc(sizeof *csv);
    memset(csv, 0, sizeof *csv);
    csv->next_line = 1;
    int status = read_filled_record(reader, err);
    if (status)
        return status;
    if (!csv->n_cells)
        return cli_fail(err, VECDB_INVALID, "%s has no header line", reader->source.name);
    if ((status = read_names(reader, err)))
        return status;
    csv->key = settings->key ? find_column(csv, settings->key) : find_column(csv, "key");
    if (csv->key == SIZE_MAX && !settings->key && settings->vectors)
        csv->key = find_column(csv, "id");
    if (settings->key && csv->key == SIZE_MAX)
        return cli_fail(err, VECDB_INVALID, "%s has no column \"%.80s\", which is to be the key", reader->source.name,
                        settings->key);
    csv->vector = settings->vectors ? find_column(csv, settings->vector ? settings->vector : "vector") : SIZE_MAX;
    for (size_t i = 0; settings->text && i < reader->n_text_names; i++) {
        if (find_column(csv, reader->text_names[i]) == SIZE_MAX)
            return cli_fail(err, VECDB_INVALID, "%s has no column \"%.80s\", which is to be part of the text",
                            reader->source.name, reader->text_names[i]);
    }
    return VECDB_OK;
}

/* ---------------------------------------------------------------- from cells to a record */

/* Is it a number as JSON writes it? */
static bool is_number(const char *text, size_t length)
{
    size_t i = 0, start;
    if (i < length && text[i] == '-')
        i++;
    start = i;
    while (i < length && text[i] >= '0' && text[i] <= '9')
        i++;
    if (i == start || (text[start] == '0' && i > start + 1))
        return false;
    if (i < length && text[i] == '.') {
        start = ++i;
        while (i < length && text[i] >= '0' && text[i] <= '9')
            i++;
        if (i == start)
            return false;
    }
    if (i < length && (text[i] == 'e' || text[i] == 'E')) {
        i++;
        if (i < length && (text[i] == '+' || text[i] == '-'))
            i++;
        start = i;
        while (i < length && text[i] >= '0' && text[i] <= '9')
            i++;
        if (i == start)
            return false;
    }
    return i == length;
}

static int take_text(struct record_reader *reader, struct arena *arena, struct row_record *record, size_t *body)
{
    struct csv_state *csv = reader->csv;
    size_t total = 0;
    *body = SIZE_MAX;
    for (size_t i = 0; i < reader->n_text_names; i++) {
        size_t column = find_column(csv, reader->text_names[i]);
        if (column == SIZE_MAX)
            continue;
        total += csv->cells[column].length + 1;
        if (i + 1 == reader->n_text_names)
            *body = column;
    }
    if (!total)
        return VECDB_OK;
    char *out = arena_alloc(arena, total + 1), *start = out;
    bool any = false;
    for (size_t i = 0; i < reader->n_text_names; i++) {
        size_t column = find_column(csv, reader->text_names[i]);
        if (column == SIZE_MAX || (!csv->cells[column].length && !csv->cells[column].quoted))
            continue;
        if (out > start && csv->cells[column].length)
            *out++ = '\n';
        memcpy(out, csv->text + csv->cells[column].begin, csv->cells[column].length);
        out += csv->cells[column].length;
        any = true;
    }
    *out = 0;
    if (any) {
        record->text = start;
        record->text_length = (size_t)(out - start);
    }
    return VECDB_OK;
}

/* Numbers go in as they are written, so the object is put together by hand. */
static int take_metadata(struct record_reader *reader, struct arena *arena, struct row_record *record, size_t body,
                         vecdb_error *err)
{
    struct csv_state *csv = reader->csv;
    int status = VECDB_OK;
    char *json = NULL;
    size_t length = 0;
    bool any = false;
    FILE *out = open_memstream(&json, &length);
    if (!out)
        return cli_fail(err, VECDB_NOMEM, "%s: out of memory", reader->source.name);
    for (size_t i = 0; i < csv->n_names; i++) {
        const struct cell *cell = &csv->cells[i];
        const char *text = csv->text + cell->begin;
        if (i == csv->key || i == csv->vector || i == body || (!cell->length && !cell->quoted))
            continue;
        json_t *valid = json_stringn(text, cell->length);
        if (!valid) {
            status = cli_fail(err, VECDB_INVALID, "%s: line %llu: column \"%.80s\" is not valid UTF-8",
                              reader->source.name, (unsigned long long)csv->line, csv->names[i]);
            break;
        }
        json_decref(valid);
        putc(any ? ',' : '{', out);
        json_put_text(out, csv->names[i], strlen(csv->names[i]));
        putc(':', out);
        if (!cell->quoted && is_number(text, cell->length))
            fwrite(text, 1, cell->length, out);
        else
            json_put_text(out, text, cell->length);
        any = true;
    }
    putc('}', out);
    if (fclose(out) && !status)
        status = cli_fail(err, VECDB_NOMEM, "%s: out of memory", reader->source.name);
    if (!status && any) {
        record->metadata = arena_copy(arena, json, length);
        record->metadata_length = length;
    }
    free(json);
    return status;
}

static int take_key(struct record_reader *reader, struct arena *arena, struct row_record *record, vecdb_error *err)
{
    struct csv_state *csv = reader->csv;
    if (csv->key == SIZE_MAX)
        return VECDB_OK;
    const struct cell *cell = &csv->cells[csv->key];
    const char *text = csv->text + cell->begin;
    int64_t integer;
    if (!cell->length)
        return cli_fail(err, VECDB_INVALID, "%s: line %llu: the key is empty", reader->source.name,
                        (unsigned long long)csv->line);
    record->has_key = true;
    if (!cell->quoted && parse_integer(text, cell->length, &integer))
        record->key = vecdb_key_int(integer);
    else
        record->key = (vecdb_key){arena_copy(arena, text, cell->length), cell->length, 0};
    return VECDB_OK;
}

int csv_next(struct record_reader *reader, struct arena *arena, struct row_record *record, bool *got, vecdb_error *err)
{
    struct csv_state *csv = reader->csv;
    memset(record, 0, sizeof *record);
    *got = false;
    int status = read_filled_record(reader, err);
    if (status || !csv->n_cells)
        return status;
    record->line = csv->line;
    if (csv->n_cells != csv->n_names)
        return cli_fail(err, VECDB_INVALID, "%s: line %llu has %zu cells, the header line has %zu", reader->source.name,
                        (unsigned long long)csv->line, csv->n_cells, csv->n_names);
    if ((status = take_key(reader, arena, record, err)))
        return status;
    if (csv->vector != SIZE_MAX && csv->cells[csv->vector].length) {
        char where[280];
        const struct cell *cell = &csv->cells[csv->vector];
        struct row_vector *vector = record->vectors = arena_alloc(arena, sizeof *record->vectors);
        snprintf(where, sizeof where, "%.160s: line %llu: vector", reader->source.name, (unsigned long long)csv->line);
        vector->field = NULL;
        if ((status = json_parse_vector(csv->text + cell->begin, cell->length, arena, where, &vector->values,
                                        &vector->dimension, err)))
            return status;
        record->n_vectors = 1;
    }
    size_t body;
    if ((status = take_text(reader, arena, record, &body)) ||
        (status = take_metadata(reader, arena, record, body, err)))
        return status;
    reader->n_records++;
    *got = true;
    return VECDB_OK;
}

void csv_close(struct record_reader *reader)
{
    struct csv_state *csv = reader->csv;
    for (size_t i = 0; i < csv->n_names; i++)
        free(csv->names[i]);
    free(csv->names);
    free(csv->cells);
    free(csv->text);
    free(csv);
    reader->csv = NULL;
}
