/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/output.h - results on stdout: tables for people, CSV, JSON
 */
#ifndef VECDB_CLI_OUTPUT_H
#define VECDB_CLI_OUTPUT_H

#include "cli.h"
#include "options.h"

/* ---- JSON ---- */

/* A text in quotes, escaped. */
void json_put_text(FILE *out, const char *text, size_t length);
void json_put_string(FILE *out, const char *text);
void json_put_key(FILE *out, const vecdb_key *key);
/* An array of numbers: of bits 0 and 1, of floats the shortest exact form. */
void json_put_vector(FILE *out, const void *row, int type, uint32_t dimension);

/* File, collection (or null) and message of a problem, members of an object that the caller opens and closes. */
void json_put_problem(FILE *out, const vecdb_problem *problem);

/* What of a record is printed. */
enum record_part { PART_DISTANCE = 1, PART_METADATA = 2, PART_TEXT = 4, PART_VECTORS = 8, PART_ABSENT = 16 };

/* Result `i` as an object: key, distance and score, vectors of `fields`, metadata, text. Metadata
 * and text that the record lacks are left out, or null with PART_ABSENT. */
void json_put_record(FILE *out, vecdb_results *results, size_t i, unsigned parts, const struct cli_fields *fields);

/* ---- tables and CSV ---- */

enum column_kind { COLUMN_TEXT = 0, COLUMN_NUMBER = 1 };

/* Cells, row by row. As a table, rows are kept until table_flush(), which chooses the widths; as
 * CSV they are printed as they come. */
struct table {
    FILE *out;
    int mode; /* MODE_TABLE or MODE_CSV */
    size_t n_columns;
    char **names;
    int *kinds;
    char **cells; /* n_columns a row */
    size_t n_cells, capacity;
    bool header_done;
};

void table_begin(struct table *table, FILE *out, int mode);
void table_column(struct table *table, const char *name, int kind);
/* Cells are copied. `text` NULL: an empty cell. */
void table_cell(struct table *table, const char *text, size_t length);
void table_cell_string(struct table *table, const char *text);
/* With separators of thousands in a table. */
void table_cell_count(struct table *table, uint64_t count);
void table_cell_key(struct table *table, const vecdb_key *key);
void table_flush(struct table *table);
void table_end(struct table *table); /* flushes */

/* Columns that the terminal has; 100 when stdout is no terminal. */
size_t terminal_width(void);

/* Has everything been written? False with a sentence on stderr (none for a broken pipe). */
bool output_finish(void);

#endif
