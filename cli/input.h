/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/input.h - readers of files of vectors and of records
 *
 *     byte_source      bytes of a file, of stdin, or of memory, in order, once
 *       vector_reader  rows of numbers: fvecs bvecs ivecs fbin u8bin i8bin f16bin ibin npy
 *       record_reader  keys, vectors, metadata, texts: JSON lines, CSV
 *
 * All readers stream: what they hold does not depend on what a header claims, and is at most one
 * row or one line. Errors are sentences that begin with the name of the file.
 */
#ifndef VECDB_CLI_INPUT_H
#define VECDB_CLI_INPUT_H

#include "cli.h"

enum input_format {
    INPUT_UNKNOWN = 0,
    INPUT_FVECS,
    INPUT_BVECS,
    INPUT_IVECS,
    INPUT_FBIN,
    INPUT_U8BIN,
    INPUT_I8BIN,
    INPUT_F16BIN,
    INPUT_IBIN,
    INPUT_NPY,
    INPUT_JSONL,
    INPUT_CSV
};

static inline bool format_has_records(int format)
{
    return format == INPUT_JSONL || format == INPUT_CSV;
}

/* ---------------------------------------------------------------- bytes (input_source.c) */

struct byte_source {
    char *name; /* for messages */
    int fd;     /* -1: memory */
    bool size_known;
    uint64_t size;   /* when known */
    uint64_t offset; /* bytes taken so far */
    uint8_t *buffer; /* of a file; of memory: borrowed */
    size_t capacity, begin, end;
};

/* `path` "-" is stdin. A directory, a missing file and an empty one are errors. */
int source_open(struct byte_source *source, const char *path, vecdb_error *err);
/* Borrows `bytes`. */
void source_memory(struct byte_source *source, const char *name, const void *bytes, size_t n_bytes);
void source_close(struct byte_source *source);

/* Up to n bytes; fewer only at the end. INTERRUPTED after a signal. */
int source_read(struct byte_source *source, void *out, size_t n, size_t *n_read, vecdb_error *err);
/* Look at the next bytes without taking them: at most 64 KiB, fewer only at the end. */
int source_peek(struct byte_source *source, size_t n, const uint8_t **bytes, size_t *n_there, vecdb_error *err);

/* The format that the name's suffix, or else the first bytes, tell; INVALID when neither does. */
int source_guess_format(struct byte_source *source, int *format, vecdb_error *err);

/* The next line without its end, in a buffer that lives until the next call; NULL at the end.
 * A line longer than `limit` bytes is an error. */
struct line_reader {
    struct byte_source *source;
    char *line;
    size_t capacity;
    size_t limit;
    uint64_t number; /* of the line read last, from 1 */
};
int line_read(struct line_reader *reader, const char **line, size_t *length, vecdb_error *err);
void line_release(struct line_reader *reader);

/* ---------------------------------------------------------------- vectors (input_vectors.c) */

struct vector_reader {
    struct byte_source source;
    int format;
    int type; /* of the rows handed out: vecdb_type, or VALUE_I32 */
    uint32_t dimension;
    uint64_t n_rows; /* OPTION_UNSET while unknown */
    uint64_t n_read;
    size_t row_bytes;  /* of a row handed out */
    bool is_double;    /* npy f8: read as 8 bytes, handed out as f32 */
    bool may_be_empty; /* set by vectors_open_any */
    uint8_t *scratch;  /* raw rows that need work before they are handed out */
    size_t scratch_rows;
};

/* Reads the header and compares it with the size of the file. The source is taken, also on failure. */
int vectors_open(struct vector_reader *reader, struct byte_source *source, int format, vecdb_error *err);
/* The same; a file of no rows is allowed. */
int vectors_open_any(struct vector_reader *reader, struct byte_source *source, int format, vecdb_error *err);
/* Up to `max_rows` rows, one after the other; fewer only at the end. */
int vectors_read(struct vector_reader *reader, void *rows, size_t max_rows, size_t *n_rows, vecdb_error *err);
void vectors_close(struct vector_reader *reader);

/* Open a file by path and read all of it (limited): for queries and true neighbours. */
int vectors_load(struct vector_reader *reader, const char *path, int format, uint64_t limit_rows, uint64_t limit_bytes,
                 void **rows, vecdb_error *err);

/* ---------------------------------------------------------------- records (input_json.c, input_csv.c) */

/* A vector as read: `field` NULL is the field that the user named, or the first. */
struct row_vector {
    const char *field;
    const float *values;
    uint32_t dimension;
};

/* The first line of an export (definition.c). */
struct definition {
    vecdb_field *fields; /* names are copies */
    size_t n_fields;
    const vecdb_field *rows; /* the one whose vectors are the rows of a file of vectors; NULL: all are in the lines */
};

/* `fields` are those of the collection `name`; `rows` NULL: all vectors are in the lines. */
void definition_put(FILE *out, const char *name, const struct cli_fields *fields, const char *rows);
bool definition_is_same(const struct cli_fields *a, const struct cli_fields *b);
/* Sets *definition (ended by definition_free) only when the line is one. */
int definition_parse(const char *file, const char *line, size_t length, struct definition **definition,
                     vecdb_error *err);
void definition_free(struct definition *definition); /* NULL is allowed */

/* One record; all memory is the arena's. */
struct row_record {
    uint64_t line;   /* where it begins in the file, from 1 */
    bool has_no_row; /* it has no vector in the file of vectors */
    bool has_key;
    vecdb_key key;
    struct row_vector *vectors;
    size_t n_vectors;
    const char *metadata; /* NULL: none */
    size_t metadata_length;
    const char *text; /* NULL: none */
    size_t text_length;
};

struct record_settings {
    const char *key;    /* member that is the key; NULL: "key", or "id" (not beside a file of vectors), or none */
    const char *text;   /* names of the members joined to the text, with commas; NULL: "text" */
    bool vectors;       /* are "vector" and "vectors" vectors, or metadata like the rest? */
    const char *vector; /* member that is the vector; NULL: "vector" */
    size_t limit_bytes; /* of one line */
};

struct csv_state;

struct record_reader {
    struct byte_source source;
    int format;
    struct record_settings settings;
    struct line_reader lines;
    uint64_t n_records;
    const char *key;   /* chosen at the first record; NULL: no key member */
    char **text_names; /* settings.text, split */
    size_t n_text_names;
    struct definition *definition; /* NULL: the file does not begin with one */
    const char *pending;           /* a first line that is a record, in the memory of `lines` */
    size_t pending_length;
    struct csv_state *csv;
};

/* Reads the first line, which may be a definition. The source is taken, also on failure. `settings` is
 * copied, its strings borrowed. */
int records_open(struct record_reader *reader, struct byte_source *source, int format,
                 const struct record_settings *settings, vecdb_error *err);
/* The next record; *got is false at the end. */
int records_next(struct record_reader *reader, struct arena *arena, struct row_record *record, bool *got,
                 vecdb_error *err);
void records_close(struct record_reader *reader);

/* Parts of records_*, by format. */
int json_open(struct record_reader *reader, vecdb_error *err);
int json_next(struct record_reader *reader, struct arena *arena, struct row_record *record, bool *got,
              vecdb_error *err);
int csv_open(struct record_reader *reader, vecdb_error *err);
int csv_next(struct record_reader *reader, struct arena *arena, struct row_record *record, bool *got, vecdb_error *err);
void csv_close(struct record_reader *reader);

/* '[1, 2.5, ...]' to floats of the arena. `where` begins the message. */
int json_parse_vector(const char *text, size_t length, struct arena *arena, const char *where, const float **values,
                      uint32_t *dimension, vecdb_error *err);

#endif
