/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/output.c - results on stdout: tables for people, CSV, JSON
 *
 * Tables are cut to the width of the terminal: the widest column gives way first, and never below
 * what its name needs. What a record holds is data, not commands to a terminal: control characters
 * are shown as spaces in a table. There are no colours, so NO_COLOR has nothing to switch off.
 *
 * JSON is written by hand: metadata goes out as it was stored, byte for byte, and a large answer
 * needs no tree in memory.
 */
#include "output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

#include "values.h"

/* ---------------------------------------------------------------- JSON */

void json_put_text(FILE *out, const char *text, size_t length)
{
    putc('"', out);
    size_t done = 0;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 32 && c != '"' && c != '\\' && c != 127)
            continue;
        fwrite(text + done, 1, i - done, out);
        done = i + 1;
        switch (c) {
        case '"':
            fputs("\\\"", out);
            break;
        case '\\':
            fputs("\\\\", out);
            break;
        case '\n':
            fputs("\\n", out);
            break;
        case '\r':
            fputs("\\r", out);
            break;
        case '\t':
            fputs("\\t", out);
            break;
        default:
            fprintf(out, "\\u%04x", c);
        }
    }
    fwrite(text + done, 1, length - done, out);
    putc('"', out);
}

void json_put_string(FILE *out, const char *text)
{
    json_put_text(out, text, strlen(text));
}

void json_put_problem(FILE *out, const vecdb_problem *problem)
{
    fputs("\"file\":", out);
    json_put_string(out, problem->file);
    fputs(",\"collection\":", out);
    if (problem->collection)
        json_put_string(out, problem->collection);
    else
        fputs("null", out);
    fputs(",\"message\":", out);
    json_put_string(out, problem->message);
}

void json_put_key(FILE *out, const vecdb_key *key)
{
    if (key->text)
        json_put_text(out, key->text, key->length ? key->length : strlen(key->text));
    else
        fprintf(out, "%lld", (long long)key->integer);
}

void json_put_vector(FILE *out, const void *row, int type, uint32_t dimension)
{
    float piece[64];
    char number[NUMBER_TEXT];
    size_t step = row_bytes(type, 64); /* 64 values are whole bytes in every type */
    putc('[', out);
    for (uint32_t done = 0; done < dimension; done += 64) {
        uint32_t n = dimension - done < 64 ? dimension - done : 64;
        row_to_floats(piece, (const uint8_t *)row + done / 64 * step, type, n);
        for (uint32_t i = 0; i < n; i++) {
            if (done + i)
                putc(',', out);
            fputs(format_float(piece[i], number), out);
        }
    }
    putc(']', out);
}

static void put_vectors(FILE *out, vecdb_results *results, size_t i, const struct cli_fields *fields)
{
    bool any = false;
    fputs(",\"vectors\":{", out);
    for (size_t f = 0; f < fields->n_fields; f++) {
        uint32_t dimension;
        int type;
        const char *name = fields->fields[f].field.name;
        const void *row = vecdb_result_vector(results, i, name, &dimension, &type);
        if (!row)
            continue;
        if (any)
            putc(',', out);
        json_put_string(out, name);
        putc(':', out);
        json_put_vector(out, row, type, dimension);
        any = true;
    }
    putc('}', out);
}

void json_put_record(FILE *out, vecdb_results *results, size_t i, unsigned parts, const struct cli_fields *fields)
{
    char number[NUMBER_TEXT];
    vecdb_key key = vecdb_result_key(results, i);
    fputs("{\"key\":", out);
    json_put_key(out, &key);
    if (parts & PART_DISTANCE) {
        fprintf(out, ",\"distance\":%s", format_double(vecdb_result_distance(results, i), number));
        fprintf(out, ",\"score\":%s", format_double(vecdb_result_score(results, i), number));
    }
    if (parts & PART_VECTORS)
        put_vectors(out, results, i, fields);
    size_t length;
    const char *metadata = parts & PART_METADATA ? vecdb_result_metadata(results, i, &length) : NULL;
    if (metadata) {
        fputs(",\"metadata\":", out);
        for (size_t c = 0; c < length; c++) /* line ends between its values would break JSON lines */
            putc(metadata[c] == '\n' || metadata[c] == '\r' ? ' ' : metadata[c], out);
    } else if (parts & PART_METADATA && parts & PART_ABSENT) {
        fputs(",\"metadata\":null", out);
    }
    const char *text = parts & PART_TEXT ? vecdb_result_text(results, i) : NULL;
    if (text) {
        fputs(",\"text\":", out);
        json_put_text(out, text, vecdb_result_text_length(results, i));
    } else if (parts & PART_TEXT && parts & PART_ABSENT) {
        fputs(",\"text\":null", out);
    }
    putc('}', out);
}

/* ---------------------------------------------------------------- width of text */

/* One character: its bytes and its columns. Bytes that are no UTF-8 count one each. */
static size_t next_character(const char *text, size_t length, size_t *width)
{
    wchar_t wide;
    mbstate_t state;
    memset(&state, 0, sizeof state);
    size_t n = mbrtowc(&wide, text, length, &state);
    if (n == 0 || n == (size_t)-1 || n == (size_t)-2) {
        *width = 1;
        return 1;
    }
    int columns = wcwidth(wide);
    *width = columns < 0 ? 1 : (size_t)columns;
    return n;
}

static size_t text_width(const char *text)
{
    size_t length = strlen(text), total = 0, width;
    for (size_t i = 0; i < length;) {
        i += next_character(text + i, length - i, &width);
        total += width;
    }
    return total;
}

/* The text in exactly `columns` columns, cut with "..." where it is longer. */
static void put_fitted(FILE *out, const char *text, size_t columns, bool right, bool last)
{
    size_t length = strlen(text), width = text_width(text), shown = 0, bytes = 0;
    bool cut = width > columns;
    size_t room = cut ? (columns > 3 ? columns - 3 : 0) : columns;
    while (bytes < length) {
        size_t one, n = next_character(text + bytes, length - bytes, &one);
        if (shown + one > room)
            break;
        shown += one;
        bytes += n;
    }
    if (cut)
        shown += columns > 3 ? 3 : columns;
    if (right)
        fprintf(out, "%*s", (int)(columns - shown), "");
    fwrite(text, 1, bytes, out);
    if (cut)
        fprintf(out, "%.*s", columns > 3 ? 3 : (int)columns, "...");
    if (!right && !last)
        fprintf(out, "%*s", (int)(columns - shown), "");
}

size_t terminal_width(void)
{
    struct winsize size;
    if (isatty(STDOUT_FILENO) && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) && size.ws_col >= 20)
        return size.ws_col;
    const char *columns = getenv("COLUMNS");
    uint64_t n;
    if (columns && parse_count(columns, &n) && n >= 20 && n < 10000)
        return (size_t)n;
    return 100;
}

/* ---------------------------------------------------------------- tables */

void table_begin(struct table *table, FILE *out, int mode)
{
    memset(table, 0, sizeof *table);
    table->out = out;
    table->mode = mode;
}

void table_column(struct table *table, const char *name, int kind)
{
    size_t n = table->n_columns + 1;
    table->names = cli_realloc(table->names, n * sizeof *table->names);
    table->kinds = cli_realloc(table->kinds, n * sizeof *table->kinds);
    table->names[n - 1] = cli_copy(name, strlen(name));
    table->kinds[n - 1] = kind;
    table->n_columns = n;
}

static void put_csv_cell(FILE *out, const char *text, size_t length)
{
    bool quote = !length;
    for (size_t i = 0; i < length; i++)
        quote |= text[i] == '"' || text[i] == ',' || text[i] == '\n' || text[i] == '\r';
    if (!quote) {
        fwrite(text, 1, length, out);
        return;
    }
    putc('"', out);
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '"')
            putc('"', out);
        putc(text[i], out);
    }
    putc('"', out);
}

static void put_csv_header(struct table *table)
{
    for (size_t c = 0; c < table->n_columns; c++) {
        if (c)
            putc(',', table->out);
        put_csv_cell(table->out, table->names[c], strlen(table->names[c]));
    }
    fputs("\r\n", table->out);
    table->header_done = true;
}

void table_cell(struct table *table, const char *text, size_t length)
{
    if (table->mode == MODE_CSV) {
        size_t column = table->n_cells++ % table->n_columns;
        if (!table->header_done)
            put_csv_header(table);
        if (column)
            putc(',', table->out);
        if (text)
            put_csv_cell(table->out, text, length);
        if (column + 1 == table->n_columns)
            fputs("\r\n", table->out);
        return;
    }
    if (table->n_cells == table->capacity) {
        table->capacity = table->capacity ? table->capacity * 2 : 64;
        table->cells = cli_realloc(table->cells, table->capacity * sizeof *table->cells);
    }
    enum { LONGEST = 1024 }; /* bytes kept of a cell; no terminal shows more */
    size_t kept = !text ? 0 : length < LONGEST ? length : LONGEST;
    char *cell = cli_copy(text ? text : "", kept);
    for (size_t i = 0; i < kept; i++) {
        if ((unsigned char)cell[i] < 32 || cell[i] == 127)
            cell[i] = ' ';
    }
    table->cells[table->n_cells++] = cell;
}

void table_cell_string(struct table *table, const char *text)
{
    table_cell(table, text, text ? strlen(text) : 0);
}

void table_cell_count(struct table *table, uint64_t count)
{
    char shown[32];
    if (table->mode == MODE_CSV)
        snprintf(shown, sizeof shown, "%llu", (unsigned long long)count);
    else
        format_count(count, shown);
    table_cell_string(table, shown);
}

void table_cell_key(struct table *table, const vecdb_key *key)
{
    char digits[32];
    if (key->text) {
        table_cell(table, key->text, key->length ? key->length : strlen(key->text));
        return;
    }
    snprintf(digits, sizeof digits, "%lld", (long long)key->integer);
    table_cell_string(table, digits);
}

/* Take columns from the widest until the row fits. */
static void fit_widths(const struct table *table, size_t *widths)
{
    size_t room = terminal_width(), total = 2;
    for (size_t c = 0; c < table->n_columns; c++)
        total += widths[c] + 2;
    while (total > room) {
        size_t widest = 0;
        for (size_t c = 1; c < table->n_columns; c++) {
            if (widths[c] > widths[widest])
                widest = c;
        }
        size_t least = text_width(table->names[widest]);
        if (widths[widest] <= (least > 6 ? least : 6))
            return;
        widths[widest]--;
        total--;
    }
}

void table_flush(struct table *table)
{
    if (table->mode == MODE_CSV) {
        if (!table->header_done)
            put_csv_header(table);
        return;
    }
    size_t *widths = cli_alloc_array(table->n_columns + 1, sizeof *widths);
    for (size_t c = 0; c < table->n_columns; c++) {
        widths[c] = text_width(table->names[c]);
        for (size_t i = c; i < table->n_cells; i += table->n_columns) {
            size_t width = text_width(table->cells[i]);
            if (width > widths[c])
                widths[c] = width;
        }
    }
    fit_widths(table, widths);
    for (size_t c = 0; !table->header_done && c < table->n_columns; c++) {
        bool last = c + 1 == table->n_columns;
        fputs("  ", table->out);
        put_fitted(table->out, table->names[c], widths[c], table->kinds[c] == COLUMN_NUMBER, last);
        if (last)
            putc('\n', table->out);
    }
    table->header_done = true;
    for (size_t i = 0; i < table->n_cells; i++) {
        size_t c = i % table->n_columns;
        bool last = c + 1 == table->n_columns;
        fputs("  ", table->out);
        put_fitted(table->out, table->cells[i], widths[c], table->kinds[c] == COLUMN_NUMBER, last);
        if (last)
            putc('\n', table->out);
        free(table->cells[i]);
    }
    table->n_cells = 0;
    free(widths);
}

void table_end(struct table *table)
{
    table_flush(table);
    for (size_t c = 0; c < table->n_columns; c++)
        free(table->names[c]);
    free(table->names);
    free(table->kinds);
    free(table->cells);
    memset(table, 0, sizeof *table);
}

/* ---------------------------------------------------------------- the end */

bool output_finish(void)
{
    errno = 0;
    if (!fflush(stdout) && !ferror(stdout))
        return true;
    if (errno != EPIPE)
        cli_say("cannot write the output: %s", errno ? strerror(errno) : "an earlier write failed");
    return false;
}
