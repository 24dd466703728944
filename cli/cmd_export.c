/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/cmd_export.c - vecdb-cli export: records into files
 *
 *     FILE.jsonl, -      everything: the definition, then a record a line (both in definition.c)
 *     FILE.npy, .fbin..  the vectors of one field, and with --records the rest, line by line
 *
 * Invariants:
 *   1. What is written is one state of the collection (a scan), in key order. The definition is read
 *      before the scan begins and after, until it is the same.
 *   2. What was exported imports as it was: floats in the fewest digits that read back the same,
 *      metadata as it was stored, integer and text keys apart, fields as they are defined.
 *   3. A file appears under its name when it is complete: it is written beside it, as FILE.partial,
 *      and renamed. What is no regular file (a pipe, /dev/stdout) is written in place.
 *   4. A value is never changed to fit a file: a type that cannot hold the field's is refused.
 *
 * The number of rows is known at the end only, so headers are written twice, the second time
 * over the first; npy headers have a fixed length, padded with spaces, as NumPy does.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "input.h"
#include "options.h"
#include "output.h"
#include "progress.h"
#include "values.h"

#define NPY_HEADER_BYTES 128

/* A file that appears when it is complete. */
struct target {
    const char *path;
    char *partial; /* NULL: written in place */
    FILE *file;
};

struct export
{
    const struct options *options;
    const struct cli_fields *fields;
    const vecdb_field *field; /* NULL: JSON lines */
    int format, file_type;
    struct target main, records;
    uint64_t n_rows, n_without;
    struct progress progress;
};

/* ---------------------------------------------------------------- files */

static int target_open(struct target *target, const char *path, vecdb_error *err)
{
    struct stat info;
    target->path = path;
    if (!strcmp(path, "-")) {
        target->file = stdout;
        return VECDB_OK;
    }
    bool exists = !stat(path, &info);
    if (exists && S_ISDIR(info.st_mode))
        return cli_fail(err, VECDB_INVALID, "%s is a directory, not a file", path);
    if (!exists || S_ISREG(info.st_mode)) {
        size_t length = strlen(path);
        target->partial = cli_alloc(length + sizeof ".partial");
        memcpy(target->partial, path, length);
        memcpy(target->partial + length, ".partial", sizeof ".partial");
    }
    target->file = fopen(target->partial ? target->partial : path, "wbe");
    if (!target->file)
        return cli_fail_os(err, errno, "cannot write %s", path);
    return VECDB_OK;
}

static int target_commit(struct target *target, vecdb_error *err)
{
    if (!target->file || target->file == stdout)
        return VECDB_OK;
    errno = 0;
    bool good = !fflush(target->file) && !ferror(target->file);
    if (target->partial)
        good = good && !fsync(fileno(target->file));
    int os_error = errno ? errno : EIO;
    if (fclose(target->file) && good) {
        good = false;
        os_error = errno;
    }
    target->file = NULL;
    if (good && target->partial && rename(target->partial, target->path)) {
        good = false;
        os_error = errno;
    }
    if (!good)
        return cli_fail_os(err, os_error, "cannot write %s", target->path);
    free(target->partial);
    target->partial = NULL;
    return VECDB_OK;
}

static void target_release(struct target *target)
{
    if (target->file && target->file != stdout)
        fclose(target->file);
    if (target->partial)
        unlink(target->partial);
    free(target->partial);
}

/* ---------------------------------------------------------------- the form of a vector file */

static int type_of_file(int format, int field_type)
{
    switch (format) {
    case INPUT_FBIN:
    case INPUT_FVECS:
        return VECDB_F32;
    case INPUT_F16BIN:
        return VECDB_F16;
    case INPUT_U8BIN:
    case INPUT_BVECS:
        return VECDB_U8;
    case INPUT_I8BIN:
        return VECDB_I8;
    }
    return field_type == VECDB_BF16 ? VECDB_F32 : field_type == VECDB_BIT ? VECDB_U8 : field_type; /* npy */
}

/* May the field's values go to the file without a change? Bits go to u8 as packed bytes. */
static int choose_type(struct export *export, vecdb_error *err)
{
    int from = export->field->type, to = export->file_type = type_of_file(export->format, from);
    if (export->format == INPUT_IVECS || export->format == INPUT_IBIN || export->format == INPUT_CSV)
        return cli_fail(err, VECDB_INVALID, "export writes jsonl, npy, fbin, f16bin, u8bin, i8bin, fvecs and bvecs");
    bool good = from == to || (from == VECDB_BIT ? to == VECDB_U8 : to == VECDB_F32);
    if (good)
        return VECDB_OK;
    return cli_fail(err, VECDB_INVALID, "%s would hold %s values, field \"%.80s\" has %s; %s files can hold them",
                    export->options->arguments[2], type_name(to), export->field->name, type_name(from),
                    from == VECDB_BIT ? "u8bin, bvecs and npy" : "fbin, fvecs and npy");
}

static uint32_t file_dimension(const struct export *export)
{
    return export->field->type == VECDB_BIT ? (uint32_t)row_bytes(VECDB_BIT, export->field->dimension)
                                            : export->field->dimension;
}

static void put_u32(FILE *out, uint32_t value)
{
    uint8_t bytes[4] = {(uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16), (uint8_t)(value >> 24)};
    fwrite(bytes, 1, sizeof bytes, out);
}

static void put_header(const struct export *export)
{
    FILE *out = export->main.file;
    uint32_t dimension = file_dimension(export);
    if (export->format == INPUT_FVECS || export->format == INPUT_BVECS)
        return;
    if (export->format != INPUT_NPY) {
        put_u32(out, (uint32_t) export->n_rows);
        put_u32(out, dimension);
        return;
    }
    const char *type = export->file_type == VECDB_F32   ? "<f4"
                       : export->file_type == VECDB_F16 ? "<f2"
                       : export->file_type == VECDB_I8  ? "|i1"
                                                        : "|u1";
    char header[NPY_HEADER_BYTES + 1];
    memset(header, ' ', sizeof header);
    memcpy(header, "\x93NUMPY\x01\x00", 8);
    header[8] = (char)(NPY_HEADER_BYTES - 10);
    header[9] = 0;
    int n = snprintf(header + 10, sizeof header - 10, "{'descr': '%s', 'fortran_order': False, 'shape': (%llu, %u), }",
                     type, (unsigned long long)export->n_rows, dimension);
    header[10 + n] = ' ';
    header[NPY_HEADER_BYTES - 1] = '\n';
    fwrite(header, 1, NPY_HEADER_BYTES, out);
}

static void put_row(const struct export *export, const void *row, float *scratch)
{
    uint32_t dimension = file_dimension(export);
    FILE *out = export->main.file;
    if (export->format == INPUT_FVECS || export->format == INPUT_BVECS)
        put_u32(out, dimension);
    if (export->file_type == VECDB_F32 && export->field->type != VECDB_F32) {
        row_to_floats(scratch, row, export->field->type, dimension);
        row = scratch;
    }
    fwrite(row, 1, row_bytes(export->file_type, dimension), out);
}

/* ---------------------------------------------------------------- records */

/* The vectors of all fields but the one that goes to the file of vectors. */
static void put_vectors(const struct export *export, FILE *out, const vecdb_results *results, size_t i)
{
    bool any = false;
    fputs(",\"vectors\":{", out);
    for (size_t f = 0; f < export->fields->n_fields; f++) {
        const vecdb_field *field = &export->fields->fields[f].field;
        const void *row = field == export->field ? NULL : vecdb_result_vector(results, i, field->name, NULL, NULL);
        if (!row)
            continue;
        if (any)
            putc(',', out);
        json_put_string(out, field->name);
        putc(':', out);
        json_put_vector(out, row, field->type, field->dimension);
        any = true;
    }
    putc('}', out);
}

/* Can the object stand in a line as it is? */
static bool fits_in_line(const char *metadata, size_t length)
{
    return metadata[0] == '{' && metadata[length - 1] == '}' && !memchr(metadata, '\n', length) &&
           !memchr(metadata, '\r', length);
}

static void put_line(const struct export *export, FILE *out, vecdb_results *results, size_t i, bool has_row)
{
    size_t length;
    vecdb_key key = vecdb_result_key(results, i);
    fputs("{\"key\":", out);
    json_put_key(out, &key);
    if (!has_row)
        fputs(",\"row\":null", out);
    if (!export->field || export->fields->n_fields > 1)
        put_vectors(export, out, results, i);
    const char *metadata = vecdb_result_metadata(results, i, &length), *text = vecdb_result_text(results, i);
    if (metadata && fits_in_line(metadata, length)) {
        fputs(",\"metadata\":", out);
        fwrite(metadata, 1, length, out);
    } else if (metadata) {
        fputs(",\"metadata_json\":", out);
        json_put_text(out, metadata, length);
    }
    if (text) {
        fputs(",\"text\":", out);
        json_put_text(out, text, vecdb_result_text_length(results, i));
    }
    fputs("}\n", out);
}

static void put_step(struct export *export, vecdb_results *results, float *scratch)
{
    for (size_t i = 0; i < vecdb_results_count(results); i++) {
        if (!export->field) {
            put_line(export, export->main.file, results, i, true);
            export->n_rows++;
            continue;
        }
        const void *row = vecdb_result_vector(results, i, export->field->name, NULL, NULL);
        if (export->records.file)
            put_line(export, export->records.file, results, i, row != NULL);
        if (row) {
            put_row(export, row, scratch);
            export->n_rows++;
        } else {
            export->n_without++;
        }
    }
}

static int put_all(struct export *export, vecdb_scan *scan, vecdb_error *err)
{
    int status;
    float *scratch = cli_alloc_array(export->field ? export->field->dimension : 1, sizeof *scratch);
    for (;;) {
        vecdb_results *results;
        if ((status = vecdb_scan_next(scan, &results, err)))
            break;
        size_t n = vecdb_results_count(results);
        if (n)
            put_step(export, results, scratch);
        vecdb_results_free(results);
        if (!n || ferror(export->main.file))
            break;
        if (cli_interrupted) {
            status = cli_fail(err, VECDB_INTERRUPTED, "interrupted; %s was not written", export->options->arguments[2]);
            break;
        }
        progress_show(&export->progress, export->n_rows, export->fields->n_records);
    }
    free(scratch);
    return status;
}

static int finish(struct export *export, vecdb_error *err)
{
    if (export->field) {
        bool fixed = export->format == INPUT_FVECS || export->format == INPUT_BVECS;
        if (export->format != INPUT_NPY && !fixed && export->n_rows > UINT32_MAX)
            return cli_fail(err, VECDB_INVALID, "%s has room for 2^32 - 1 rows; export to npy",
                            export->options->arguments[2]);
        if (!fixed && fseek(export->main.file, 0, SEEK_SET))
            return cli_fail_os(err, errno, "cannot write the header of %s", export->options->arguments[2]);
        put_header(export);
    }
    int status = target_commit(&export->main, err);
    return status ? status : target_commit(&export->records, err);
}

/* ---------------------------------------------------------------- the command */

static int format_of_path(const struct options *options)
{
    static const struct {
        const char *suffix;
        int format;
    } suffixes[] = {{".npy", INPUT_NPY},     {".fbin", INPUT_FBIN},   {".f16bin", INPUT_F16BIN},
                    {".u8bin", INPUT_U8BIN}, {".i8bin", INPUT_I8BIN}, {".fvecs", INPUT_FVECS},
                    {".bvecs", INPUT_BVECS}, {".ivecs", INPUT_IVECS}, {".ibin", INPUT_IBIN},
                    {".csv", INPUT_CSV},     {".jsonl", INPUT_JSONL}, {".ndjson", INPUT_JSONL}};
    const char *path = options->arguments[2];
    if (options->format != INPUT_UNKNOWN)
        return (int)options->format;
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        size_t length = strlen(path), n = strlen(suffixes[i].suffix);
        if (length > n && !strcasecmp(path + length - n, suffixes[i].suffix))
            return suffixes[i].format;
    }
    return !strcmp(path, "-") ? INPUT_JSONL : INPUT_UNKNOWN;
}

/* Begin the scan, with the fields that the collection has in its state. */
static int open_scan(vecdb_collection *collection, struct cli_fields *fields, vecdb_scan **scan, vecdb_error *err)
{
    vecdb_scan_options how = {.size = sizeof how, .columns = VECDB_METADATA | VECDB_TEXT | VECDB_VECTORS};
    int status = cli_fields_read(collection, fields, err);
    while (!status && !(status = vecdb_scan_open(collection, &how, scan, err))) {
        struct cli_fields after;
        bool is_same = !(status = cli_fields_read(collection, &after, err)) && definition_is_same(fields, &after);
        if (!status) {
            cli_fields_release(fields);
            *fields = after;
        }
        if (is_same)
            return VECDB_OK;
        vecdb_scan_close(*scan);
        *scan = NULL;
    }
    return status;
}

static int export_records(struct export *export, vecdb_scan *scan, vecdb_error *err)
{
    const struct options *options = export->options;
    const vecdb_field_info *field;
    int status;
    if (export->format != INPUT_JSONL) {
        if ((status = cli_fields_find(export->fields, options->arguments[1], options->field, &field, err)))
            return status;
        export->field = &field->field;
        if ((status = choose_type(export, err)))
            return status;
    }
    if ((status = target_open(&export->main, options->arguments[2], err)))
        return status;
    if (options->records && (status = target_open(&export->records, options->records, err)))
        return status;
    if (export->field)
        put_header(export);
    FILE *lines = export->field ? export->records.file : export->main.file;
    if (lines)
        definition_put(lines, options->arguments[1], export->fields, export->field ? export->field->name : NULL);
    if (!(status = put_all(export, scan, err)))
        status = finish(export, err);
    return status;
}

static void tell_end(const struct export *export)
{
    char rows[32];
    const struct options *options = export->options;
    if (options->quiet)
        return;
    if (export->n_without && !options->records)
        cli_say("%s records have no vector in field \"%s\" and were left out", format_count(export->n_without, rows),
                export->field->name);
    if (export->main.file == stdout || export->records.file == stdout)
        return;
    uint64_t n = export->n_rows + (options->records ? export->n_without : 0);
    if (options->mode == MODE_TABLE)
        printf("%s: %s records\n", options->arguments[2], format_count(n, rows));
    else if (options->mode == MODE_CSV)
        printf("exported\r\n%llu\r\n", (unsigned long long)n);
    else
        printf("{\"exported\": %llu}\n", (unsigned long long)n);
}

int cmd_export(const struct options *options)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct cli_fields fields = {0};
    struct export export = {.options = options, .fields = &fields, .format = format_of_path(options)};
    vecdb_collection *collection;
    vecdb_scan *scan = NULL;
    vecdb *db = NULL;
    if (export.format == INPUT_UNKNOWN)
        return cli_usage(
            "cannot tell the format of %s from its name; say --format with one of jsonl, npy, fbin, f16bin, "
            "u8bin, i8bin, fvecs, bvecs",
            options->arguments[2]);
    if (export.format == INPUT_JSONL && (options->records || options->field))
        return cli_usage("--%s goes with a file of vectors; JSON lines hold everything",
                         options->records ? "records" : "field");
    if (export.format != INPUT_JSONL && !strcmp(options->arguments[2], "-"))
        return cli_usage("only JSON lines can be written to stdout; name a file for vectors");
    int status = cli_open_collection(options, VECDB_OPEN_READONLY, &db, &collection, &err);
    if (!status)
        status = open_scan(collection, &fields, &scan, &err);
    if (!status) {
        cli_catch_interrupt();
        progress_begin(&export.progress, options->arguments[1], "records", options->quiet);
        status = export_records(&export, scan, &err);
        progress_end(&export.progress);
    }
    if (!status)
        tell_end(&export);
    target_release(&export.main);
    target_release(&export.records);
    cli_fields_release(&fields);
    vecdb_scan_close(scan);
    vecdb_close(db);
    return cli_report(status, &err);
}
