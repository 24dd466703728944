/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cmd_import.c - vecdb-cli import: files into collections, batch by batch
 *
 *     vectors only     rows -> vecdb_write, keys are row numbers; one copy of the rows
 *     with --records   rows and lines side by side -> vecdb_insert or vecdb_put
 *     JSON lines, CSV  records -> vecdb_insert or vecdb_put
 *
 * Invariants:
 *   1. The input is opened and its header judged before the database is touched, so that a wrong
 *      file leaves no empty database behind.
 *   2. A batch is one commit. What was committed is told (--json: a line each, flushed) after the
 *      commit and never before.
 *   3. What a batch holds is at most MEMORY_SHARE of --memory (and one row, however large); the
 *      library has its own budget of the same size for caches, hence a share and not all.
 *   4. An error in a row says file and line, and how many rows are stored.
 *
 *   5. The first batch is written to a database in memory before a collection is made for it, so that
 *      rows which the library refuses leave no empty one. (Not for collections that exist, and no
 *      help against a full disk.) Rejected: dropping the empty one, which another process may have
 *      begun to fill.
 *
 * A file that begins with a definition says all about the fields, and options may not contradict it.
 * Otherwise new fields take their type from the file. For records they are found by reading the first
 * batch: each name that occurs in it is a field of the dimension it has there.
 */
#include <stdlib.h>
#include <string.h>

#include "input.h"
#include "options.h"
#include "output.h"
#include "progress.h"
#include "values.h"

#define DEFAULT_BATCH_ROWS 10000
#define DEFAULT_BATCH_BYTES (UINT64_C(16) << 20)
#define MEMORY_SHARE 8

struct import {
    const struct options *options;
    const char *collection_name;
    vecdb *db;
    vecdb_collection *collection;
    struct cli_fields fields;
    const vecdb_field_info *field; /* that rows of a vector file, and nameless vectors, go to */

    bool has_vectors, has_records;
    struct vector_reader vectors;
    struct record_reader records;
    const struct definition *definition; /* what the file says of the collection; NULL: nothing */
    int vector_type;                     /* of the rows, as told to the library */

    uint64_t batch_rows, batch_bytes;
    struct arena arena;
    struct row_record *rows; /* the batch as read */
    size_t n_rows, rows_capacity;
    vecdb_record *records_out; /* the batch as written */
    size_t out_capacity;
    uint8_t *values; /* rows of the vector file */
    int64_t *keys;
    uint64_t committed;
    struct progress progress;
};

/* ---------------------------------------------------------------- opening the input */

static int open_source(const char *path, int format_wanted, struct byte_source *source, int *format, vecdb_error *err)
{
    int status = source_open(source, path, err);
    if (status)
        return status;
    *format = format_wanted;
    if (format_wanted == INPUT_UNKNOWN && (status = source_guess_format(source, format, err)))
        source_close(source);
    return status;
}

/* Does the field, of the collection or of the definition, look as the options say? */
static int compare_field(const struct import *import, const vecdb_field *field, vecdb_error *err)
{
    const struct options *options = import->options;
    const char *what = NULL, *is = NULL, *asked = NULL;
    if (options->metric != OPTION_UNSET && (int)options->metric != field->metric) {
        what = "metric";
        is = metric_name(field->metric);
        asked = metric_name((int)options->metric);
    } else if (options->type != OPTION_UNSET && (int)options->type != field->type) {
        what = "type";
        is = type_name(field->type);
        asked = type_name((int)options->type);
    } else if (options->index != OPTION_UNSET && (int)options->index != field->index) {
        what = "index";
        is = index_name(field->index);
        asked = index_name((int)options->index);
    } else if (options->compression != OPTION_UNSET && (int)options->compression != field->compression) {
        what = "compression";
        is = compression_name(field->compression);
        asked = compression_name((int)options->compression);
    }
    if (!what)
        return VECDB_OK;
    return cli_fail(err, VECDB_INVALID, "field \"%.80s\" of collection \"%.80s\" has %s %s, not %s; leave out --%s",
                    field->name, import->collection_name, what, is, asked, what);
}

/* Options that say something else than the file does. */
static int check_definition(const struct import *import, vecdb_error *err)
{
    const struct definition *definition = import->definition;
    const struct options *options = import->options;
    const char *name = import->records.source.name;
    if (!definition)
        return VECDB_OK;
    if (definition->rows && !import->has_vectors)
        return cli_fail(err, VECDB_INVALID,
                        "%s goes with a file of the vectors of field \"%.80s\"; give that file, and this one with "
                        "--records",
                        name, definition->rows->name);
    if (!definition->rows && import->has_vectors)
        return cli_fail(err, VECDB_INVALID, "%s holds all its vectors itself; import it without a file of vectors",
                        name);
    if ((options->key && strcmp(options->key, "key")) || (options->text && strcmp(options->text, "text")))
        return cli_fail(err, VECDB_INVALID, "%s is an export, which says itself what is what; leave out --%s", name,
                        options->key ? "key" : "text");
    if (options->field && (!definition->rows || strcmp(options->field, definition->rows->name)))
        return cli_fail(err, VECDB_INVALID, "%s is an export, which names the fields itself; leave out --field", name);
    for (size_t i = 0; i < definition->n_fields; i++) {
        int status = compare_field(import, &definition->fields[i], err);
        if (status)
            return status;
    }
    return VECDB_OK;
}

static int open_records(struct import *import, struct byte_source *source, int format, vecdb_error *err)
{
    const struct options *options = import->options;
    struct record_settings settings = {.key = options->key, .text = options->text};
    settings.vectors = !import->has_vectors;
    settings.limit_bytes = (size_t)(options->memory_bytes / MEMORY_SHARE);
    int status = records_open(&import->records, source, format, &settings, err);
    import->has_records = !status;
    import->definition = status ? NULL : import->records.definition;
    return status ? status : check_definition(import, err);
}

static int open_side_records(struct import *import, vecdb_error *err)
{
    struct byte_source source;
    int format, status = open_source(import->options->records, INPUT_UNKNOWN, &source, &format, err);
    if (status)
        return status;
    if (!format_has_records(format)) {
        source_close(&source);
        return cli_fail(err, VECDB_INVALID, "%s: --records takes JSON lines (.jsonl) or CSV (.csv)",
                        import->options->records);
    }
    return open_records(import, &source, format, err);
}

static int open_input(struct import *import, vecdb_error *err)
{
    const struct options *options = import->options;
    struct byte_source source;
    int format, status = open_source(options->arguments[2], (int)options->format, &source, &format, err);
    if (status)
        return status;
    if (format_has_records(format)) {
        if (!options->records)
            return open_records(import, &source, format, err);
        source_close(&source);
        return cli_fail(err, VECDB_INVALID, "--records goes with a file of vectors; %s holds records itself",
                        options->arguments[2]);
    }
    import->has_vectors = true;
    if (options->records && (status = open_side_records(import, err))) {
        source_close(&source);
        import->has_vectors = false;
        return status;
    }
    status = import->definition ? vectors_open_any(&import->vectors, &source, format, err)
                                : vectors_open(&import->vectors, &source, format, err);
    import->has_vectors = !status;
    if (status)
        return status;
    if (import->vectors.type == VALUE_I32)
        return cli_fail(err, VECDB_INVALID, "%s holds 32-bit integers; vectors are f32, f16, i8 or u8",
                        import->vectors.source.name);
    if (!options->records && (options->key || options->text))
        return cli_fail(err, VECDB_INVALID, "--%s needs records: give them with --records FILE.jsonl",
                        options->key ? "key" : "text");
    return VECDB_OK;
}

static void choose_batch(struct import *import)
{
    uint64_t share = import->options->memory_bytes / MEMORY_SHARE, rows = import->options->batch_rows;
    import->batch_bytes = rows || share < DEFAULT_BATCH_BYTES ? share : DEFAULT_BATCH_BYTES;
    import->batch_rows = rows ? rows : DEFAULT_BATCH_ROWS;
    if (!import->has_vectors)
        return;
    uint64_t fit = import->batch_bytes / (import->vectors.row_bytes + sizeof *import->keys);
    if (import->batch_rows > fit)
        import->batch_rows = fit ? fit : 1;
    uint64_t known = import->vectors.n_rows; /* UINT64_MAX when it is not */
    if (!import->has_records && import->batch_rows > known)
        import->batch_rows = known;
    import->values = cli_alloc_array(import->batch_rows, import->vectors.row_bytes);
    import->keys = cli_alloc_array(import->batch_rows, sizeof *import->keys);
}

/* ---------------------------------------------------------------- the collection */

static void new_field(const struct import *import, const char *name, uint32_t dimension, int file_type,
                      vecdb_field *field)
{
    const struct options *options = import->options;
    *field = (vecdb_field){.name = name, .dimension = dimension, .type = file_type};
    if (options->type != OPTION_UNSET)
        field->type = (int)options->type;
    if (import->has_vectors && field->type == VECDB_BIT)
        field->dimension = dimension * 8;
    if (options->metric != OPTION_UNSET)
        field->metric = (int)options->metric;
    if (options->index != OPTION_UNSET)
        field->index = (int)options->index;
    if (options->compression != OPTION_UNSET)
        field->compression = (int)options->compression;
}

/* The fields of a new collection. Names are borrowed from the options and the batch. */
static size_t new_fields(const struct import *import, vecdb_field **fields)
{
    const char *given = import->options->field ? import->options->field : "vector";
    size_t n = 0, capacity = 4;
    *fields = cli_alloc_array(capacity, sizeof **fields);
    if (import->has_vectors) {
        new_field(import, given, import->vectors.dimension, import->vectors.type, &(*fields)[0]);
        return 1;
    }
    for (size_t i = 0; i < import->n_rows; i++) {
        for (size_t v = 0; v < import->rows[i].n_vectors; v++) {
            const struct row_vector *vector = &import->rows[i].vectors[v];
            const char *name = vector->field ? vector->field : given;
            size_t f = 0;
            while (f < n && strcmp((*fields)[f].name, name))
                f++;
            if (f < n)
                continue;
            if (n == capacity)
                *fields = cli_realloc(*fields, (capacity *= 2) * sizeof **fields);
            new_field(import, name, vector->dimension, VECDB_F32, &(*fields)[n++]);
        }
    }
    return n;
}

/* Do rows of the vector file fit the field? */
static int compare_rows(struct import *import, vecdb_error *err)
{
    const vecdb_field *field = &import->field->field;
    const struct vector_reader *vectors = &import->vectors;
    import->vector_type = vectors->type;
    if (field->type == VECDB_BIT) {
        import->vector_type = VECDB_BIT;
        if (vectors->type != VECDB_U8)
            return cli_fail(err, VECDB_INVALID, "%s holds %s values; a field of bits takes u8 files, 8 bits to a byte",
                            vectors->source.name, type_name(vectors->type));
        if (row_bytes(VECDB_BIT, field->dimension) == vectors->row_bytes)
            return VECDB_OK;
        return cli_fail(err, VECDB_INVALID, "%s has %u bits a row, field \"%.80s\" of collection \"%.80s\" takes %u",
                        vectors->source.name, vectors->dimension * 8, field->name, import->collection_name,
                        field->dimension);
    }
    if (field->dimension == vectors->dimension)
        return VECDB_OK;
    return cli_fail(err, VECDB_INVALID, "%s has %u values a row, field \"%.80s\" of collection \"%.80s\" takes %u",
                    vectors->source.name, vectors->dimension, field->name, import->collection_name, field->dimension);
}

static int write_batch(struct import *import, vecdb_error *err);

/* What rows and nameless vectors go to, once the collection is there. */
static int choose_field(struct import *import, vecdb_error *err)
{
    int status = cli_fields_read(import->collection, &import->fields, err);
    if (status || (!import->fields.n_fields && !import->has_vectors))
        return status;
    const char *name =
        import->definition && import->has_vectors ? import->definition->rows->name : import->options->field;
    status = cli_fields_find(&import->fields, import->collection_name, name, &import->field, err);
    if (!status && !import->definition)
        status = compare_field(import, &import->field->field, err);
    if (!status && import->has_vectors)
        status = compare_rows(import, err);
    return status;
}

static void forget_collection(struct import *import)
{
    vecdb_close(import->db);
    cli_fields_release(&import->fields);
    import->db = NULL;
    import->collection = NULL;
    import->field = NULL;
}

/* Would the library take the first batch? Tried in memory. */
static int rehearse(struct import *import, const vecdb_field *fields, size_t n_fields, vecdb_error *err)
{
    vecdb_options how = {.size = sizeof how, .threads = VECDB_THREADS_NONE};
    int status = vecdb_open(":memory:", &how, &import->db, err);
    if (!status)
        status = vecdb_collection_create(import->db, import->collection_name, fields, n_fields, VECDB_MUST_BE_NEW,
                                         &import->collection, err);
    if (!status)
        status = choose_field(import, err);
    if (!status && import->n_rows)
        status = write_batch(import, err);
    forget_collection(import);
    return status;
}

static int make_collection(struct import *import, vecdb_error *err)
{
    const struct definition *definition = import->definition;
    vecdb_field *new = NULL;
    const vecdb_field *fields = definition ? definition->fields : NULL;
    size_t n = definition ? definition->n_fields : new_fields(import, &new);
    vecdb *db = import->db; /* NULL: there is none yet */
    if (!definition)
        fields = new;
    int status = rehearse(import, fields, n, err);
    import->db = db;
    if (!status && !db)
        status = cli_open(import->options, VECDB_OPEN_CREATE, &import->db, err);
    if (!status)
        status = vecdb_collection_create(import->db, import->collection_name, fields, n, VECDB_IF_MISSING,
                                         &import->collection, err);
    free(new);
    return status;
}

/* Opens the database, and finds or makes the collection. The first batch is there. */
static int open_collection(struct import *import, vecdb_error *err)
{
    const struct definition *definition = import->definition;
    int status = cli_open(import->options, VECDB_OPEN_EXISTING, &import->db, err);
    if (status && status != VECDB_NOT_FOUND)
        return status;
    if (!status)
        status = vecdb_collection_open(import->db, import->collection_name, &import->collection, err);
    if (status == VECDB_NOT_FOUND)
        status = make_collection(import, err);
    else if (!status && definition) {
        status = vecdb_collection_create(import->db, import->collection_name, definition->fields, definition->n_fields,
                                         VECDB_IF_MISSING, &import->collection, err);
        if (status == VECDB_INVALID)
            cli_fail_prefix(err, status, "%s was exported from a collection that is another one",
                            import->records.source.name);
    }
    return status ? status : choose_field(import, err);
}

/* ---------------------------------------------------------------- reading a batch */

static uint64_t rows_wanted(const struct import *import)
{
    uint64_t limit = import->options->limit, rows = import->batch_rows;
    if (limit && limit - import->committed < rows)
        rows = limit - import->committed;
    return rows;
}

/* Lines until the batch is full, by rows or by bytes. */
static int read_records(struct import *import, uint64_t rows, vecdb_error *err)
{
    size_t row_cost = sizeof *import->rows + sizeof *import->records_out + import->vectors.row_bytes;
    import->n_rows = 0;
    arena_reset(&import->arena);
    while (import->n_rows < rows && import->arena.used + import->n_rows * row_cost < import->batch_bytes) {
        if (import->n_rows == import->rows_capacity) {
            import->rows_capacity = import->rows_capacity ? import->rows_capacity * 2 : 256;
            import->rows = cli_realloc(import->rows, import->rows_capacity * sizeof *import->rows);
        }
        bool got;
        int status = records_next(&import->records, &import->arena, &import->rows[import->n_rows], &got, err);
        if (status)
            return status;
        if (!got)
            break;
        import->n_rows++;
    }
    return VECDB_OK;
}

/* The rows that belong to the lines of the batch. */
static int read_rows_of_records(struct import *import, vecdb_error *err)
{
    size_t want = 0, n_vectors;
    for (size_t i = 0; i < import->n_rows; i++)
        want += !import->rows[i].has_no_row;
    bool have_ended = !import->n_rows; /* have the rows? */
    int status = vectors_read(&import->vectors, import->values, have_ended ? 1 : want, &n_vectors, err);
    if (status || n_vectors == want)
        return status;
    char lines[32], all[32];
    if (n_vectors > want)
        return cli_fail(err, VECDB_INVALID, "%s ends after %s records, but %s has more rows",
                        import->records.source.name, format_count(import->records.n_records, lines),
                        import->vectors.source.name);
    return cli_fail(err, VECDB_INVALID, "%s has more records than the %s rows of %s", import->records.source.name,
                    format_count(import->vectors.n_read, all), import->vectors.source.name);
}

/* Sets n_rows; 0 at the end. */
static int read_batch(struct import *import, vecdb_error *err)
{
    uint64_t rows = rows_wanted(import);
    int status;
    if (!import->has_records)
        return vectors_read(&import->vectors, import->values, (size_t)rows, &import->n_rows, err);
    if ((status = read_records(import, rows, err)) || !import->has_vectors || !rows)
        return status;
    return read_rows_of_records(import, err);
}

/* ---------------------------------------------------------------- writing a batch */

static int write_rows(struct import *import, vecdb_error *err)
{
    for (size_t i = 0; i < import->n_rows; i++)
        import->keys[i] = (int64_t)(import->committed + i);
    vecdb_vector_column column = {.field = import->field->field.name, .values = import->values};
    column.dimension = import->field->field.dimension;
    column.type = import->vector_type;
    vecdb_batch batch = {.size = sizeof batch, .n_rows = import->n_rows, .integer_keys = import->keys};
    batch.vectors = &column;
    batch.n_vectors = 1;
    batch.insert = !import->options->upsert;
    return vecdb_write(import->collection, &batch, err);
}

/* Values of a bit field are 0 and 1 in JSON, and bits for the library. */
static int pack_bits(struct import *import, const struct row_record *row, const struct row_vector *vector,
                     const void **values, vecdb_error *err)
{
    uint8_t *bits = arena_alloc(&import->arena, row_bytes(VECDB_BIT, vector->dimension));
    memset(bits, 0, row_bytes(VECDB_BIT, vector->dimension));
    for (uint32_t i = 0; i < vector->dimension; i++) {
        if (vector->values[i] == 1)
            bits[i / 8] |= (uint8_t)(1 << i % 8);
        else if (vector->values[i] != 0)
            return cli_fail(err, VECDB_INVALID, "%s: line %llu: value %u is neither 0 nor 1, and the field holds bits",
                            import->records.source.name, (unsigned long long)row->line, i);
    }
    *values = bits;
    return VECDB_OK;
}

static int convert_vectors(struct import *import, const struct row_record *row, vecdb_vector *out, vecdb_error *err)
{
    for (size_t v = 0; v < row->n_vectors; v++) {
        const struct row_vector *vector = &row->vectors[v];
        const vecdb_field_info *field = import->field;
        int status;
        if (vector->field || !field) {
            status = cli_fields_find(&import->fields, import->collection_name, vector->field ? vector->field : "vector",
                                     &field, err);
            if (status)
                return cli_fail_prefix(err, status, "%s: line %llu", import->records.source.name,
                                       (unsigned long long)row->line);
        }
        if (field->field.dimension != vector->dimension)
            return cli_fail(err, VECDB_INVALID, "%s: line %llu: the vector has %u values, field \"%.80s\" takes %u",
                            import->records.source.name, (unsigned long long)row->line, vector->dimension,
                            field->field.name, field->field.dimension);
        out[v] = (vecdb_vector){field->field.name, vector->values, vector->dimension, VECDB_F32};
        if (field->field.type == VECDB_BIT) {
            out[v].type = VECDB_BIT;
            if ((status = pack_bits(import, row, vector, &out[v].values, err)))
                return status;
        }
    }
    return VECDB_OK;
}

/* `next` is the row of the vector file that belongs to the record, if one does. */
static int convert_row(struct import *import, size_t i, size_t *next, vecdb_record *out, vecdb_error *err)
{
    const struct row_record *row = &import->rows[i];
    *out = (vecdb_record){.key = row->has_key ? row->key : vecdb_key_int((int64_t)(import->committed + i))};
    out->metadata = row->metadata;
    out->metadata_length = row->metadata_length;
    out->text = row->text;
    out->text_length = row->text_length;
    bool has_row = import->has_vectors && !row->has_no_row;
    size_t n = row->n_vectors + has_row;
    if (!n)
        return VECDB_OK;
    vecdb_vector *vectors = arena_alloc(&import->arena, n * sizeof *vectors);
    int status = convert_vectors(import, row, vectors, err);
    if (status)
        return status;
    if (has_row) {
        const vecdb_field *field = &import->field->field;
        const void *values = import->values + (*next)++ * import->vectors.row_bytes;
        vectors[n - 1] = (vecdb_vector){field->name, values, field->dimension, import->vector_type};
    }
    out->vectors = vectors;
    out->n_vectors = n;
    return VECDB_OK;
}

static int write_records(struct import *import, vecdb_error *err)
{
    if (import->n_rows > import->out_capacity) {
        import->out_capacity = import->n_rows;
        import->records_out = cli_realloc(import->records_out, import->n_rows * sizeof *import->records_out);
    }
    size_t next = 0;
    for (size_t i = 0; i < import->n_rows; i++) {
        int status = convert_row(import, i, &next, &import->records_out[i], err);
        if (status)
            return status;
    }
    int status = import->options->upsert ? vecdb_put(import->collection, import->records_out, import->n_rows, err)
                                         : vecdb_insert(import->collection, import->records_out, import->n_rows, err);
    if (status)
        cli_fail_prefix(err, status, "%s, records from line %llu on", import->records.source.name,
                        (unsigned long long)import->rows[0].line);
    return status;
}

static int write_batch(struct import *import, vecdb_error *err)
{
    if (import->has_records)
        return write_records(import, err);
    int status = write_rows(import, err);
    char first[32];
    if (status)
        cli_fail_prefix(err, status, "%s, rows from %s on", import->vectors.source.name,
                        format_count(import->committed, first));
    return status;
}

/* ---------------------------------------------------------------- telling */

static void tell_committed(struct import *import)
{
    int mode = import->options->mode;
    if (mode == MODE_JSON || mode == MODE_JSONL)
        printf("{\"committed\": %llu}\n", (unsigned long long)import->committed);
    else if (mode == MODE_CSV)
        printf("%s%llu\r\n", import->committed == import->n_rows ? "committed\r\n" : "",
               (unsigned long long)import->committed);
    fflush(stdout);

    uint64_t total = 0;
    const struct byte_source *lines = &import->records.source;
    if (import->has_vectors && import->vectors.n_rows != OPTION_UNSET)
        total = import->vectors.n_rows;
    else if (import->has_records && lines->size_known &&
             lines->offset) /* as if all lines were as long as those so far */
        total = (uint64_t)((double)import->committed * (double)lines->size / (double)lines->offset);
    if (import->options->limit && (!total || import->options->limit < total))
        total = import->options->limit;
    progress_show(&import->progress, import->committed, total);
}

static int import_rows(struct import *import, vecdb_error *err)
{
    int status = read_batch(import, err);
    if (status)
        return status;
    if (!import->n_rows && !import->definition)
        return cli_fail(err, VECDB_INVALID, "%s has no records", import->options->arguments[2]);
    if ((status = open_collection(import, err)))
        return status;
    if (!import->n_rows)
        tell_committed(import);
    while (import->n_rows) {
        if ((status = write_batch(import, err)))
            return status;
        import->committed += import->n_rows;
        tell_committed(import);
        if (import->options->limit && import->committed >= import->options->limit)
            return VECDB_OK;
        if (cli_interrupted)
            return VECDB_INTERRUPTED;
        if ((status = read_batch(import, err)))
            return status;
    }
    if (!import->options->no_wait && import->collection) {
        progress_end(&import->progress);
        status = cli_try_index(import->collection, NULL, import->options->quiet, err);
        if (status)
            return status;
    }
    vecdb_error own = VECDB_ERROR_INIT;
    status = vecdb_background_error(import->db, &own);
    if (status == VECDB_NOMEM && import->options->index_memory_bytes) { /* the rows are stored all the same */
        if (import->options->no_wait)
            cli_say("%s", own.message);
        return VECDB_OK;
    }
    if (status)
        *err = own;
    return status;
}

/* The last words: what is stored, and why not all of it. */
static int tell_end(struct import *import, int status, const vecdb_error *err)
{
    char rows[32], rate[32];
    double seconds = progress_seconds(&import->progress);
    progress_end(&import->progress);
    format_count(import->committed, rows);
    if (status == VECDB_INTERRUPTED) {
        cli_say("interrupted; %s rows are stored", rows);
        return CODE_FAILED;
    }
    if (status) {
        cli_say(import->committed ? "%s; %s rows before that are stored" : "%s", err->message, rows);
        return status == VECDB_CORRUPT ? CODE_DAMAGE : CODE_FAILED;
    }
    if (import->options->mode == MODE_TABLE)
        printf("%s: %s rows in %.1f s (%s rows/s)\n", import->collection_name, rows, seconds,
               format_count((uint64_t)((double)import->committed / (seconds > 1e-3 ? seconds : 1e-3)), rate));
    return CODE_OK;
}

int cmd_import(const struct options *options)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct import import = {.options = options, .collection_name = options->arguments[1]};
    if (!strcmp(options->arguments[2], "-") && options->format == INPUT_UNKNOWN)
        return cli_usage("stdin has no name to tell its format from; say --format");
    cli_catch_interrupt();
    progress_begin(&import.progress, import.collection_name, "rows", options->quiet);
    int status = open_input(&import, &err);
    if (!status) {
        choose_batch(&import);
        status = import_rows(&import, &err);
    }
    int code = tell_end(&import, status, &err);
    vecdb_close(import.db);
    cli_fields_release(&import.fields);
    if (import.has_vectors)
        vectors_close(&import.vectors);
    if (import.has_records)
        records_close(&import.records);
    arena_release(&import.arena);
    free(import.rows);
    free(import.records_out);
    free(import.values);
    free(import.keys);
    return code;
}
