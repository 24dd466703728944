/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/input_vectors.c - files of vectors
 *
 *     *bin     u32 rows, u32 dimension, then all values             fbin u8bin i8bin f16bin ibin
 *     *vecs    each row: u32 dimension, then its values             fvecs bvecs ivecs
 *     npy      "\x93NUMPY", version, header length, a Python dictionary, then all values
 *
 * All numbers are little-endian, as are the machines that the library is built for.
 *
 * A header is compared with the size of the file before anything is done with it: a file that is
 * cut short, or belongs to someone else, is refused before a record is stored. Where the size is
 * not known (a pipe) the end tells. Memory: rows go straight into the caller's buffer, except
 * those of *vecs and of npy f8, which pass through a piece of SCRATCH_BYTES.
 */
#include "input.h"

#include <stdlib.h>
#include <string.h>

#include "options.h"
#include "values.h"

#define SCRATCH_BYTES (1u << 20)
#define NPY_HEADER_LIMIT (64u << 10) /* NumPy writes 118 bytes; a header that fills this is not one */

static uint32_t load_u32(const uint8_t *b)
{
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static bool is_vecs(int format)
{
    return format == INPUT_FVECS || format == INPUT_BVECS || format == INPUT_IVECS;
}

static int type_of_format(int format)
{
    switch (format) {
    case INPUT_BVECS:
    case INPUT_U8BIN:
        return VECDB_U8;
    case INPUT_I8BIN:
        return VECDB_I8;
    case INPUT_F16BIN:
        return VECDB_F16;
    case INPUT_IVECS:
    case INPUT_IBIN:
        return VALUE_I32;
    }
    return VECDB_F32;
}

static int check_dimension(const struct vector_reader *reader, uint64_t dimension, vecdb_error *err)
{
    if (dimension < 1 || dimension > VECDB_MAX_DIMENSION)
        return cli_fail(err, VECDB_INVALID,
                        "%s: the header says %llu values a row, a vector has 1 to %d; is this a file "
                        "of another kind?",
                        reader->source.name, (unsigned long long)dimension, VECDB_MAX_DIMENSION);
    return VECDB_OK;
}

/* `at`: bytes before the first value; `stride`: bytes a row takes in the file. */
static int check_size(const struct vector_reader *reader, uint64_t at, uint64_t stride, vecdb_error *err)
{
    const struct byte_source *source = &reader->source;
    uint64_t expected;
    if (!reader->n_rows && !reader->may_be_empty)
        return cli_fail(err, VECDB_INVALID, "%s: the header says 0 rows", source->name);
    if (__builtin_mul_overflow(reader->n_rows, stride, &expected) || __builtin_add_overflow(expected, at, &expected))
        return cli_fail(err, VECDB_INVALID, "%s: the header says %llu rows of %u values, more than a file can hold",
                        source->name, (unsigned long long)reader->n_rows, reader->dimension);
    if (source->size_known && expected != source->size) {
        char rows[32], want[32], have[32];
        return cli_fail(
            err, VECDB_INVALID, "%s %s: the header says %s rows of %u %s values, %s bytes, but the file has %s",
            source->name, source->size < expected ? "is cut short" : "is longer than its header says",
            format_count(reader->n_rows, rows), reader->dimension, reader->is_double ? "f64" : type_name(reader->type),
            format_count(expected, want), format_count(source->size, have));
    }
    return VECDB_OK;
}

/* ---------------------------------------------------------------- *bin and *vecs */

static int open_bin(struct vector_reader *reader, vecdb_error *err)
{
    uint8_t header[8];
    size_t n;
    int status = source_read(&reader->source, header, sizeof header, &n, err);
    if (status)
        return status;
    if (n < sizeof header)
        return cli_fail(err, VECDB_INVALID, "%s has %zu bytes, its header alone takes 8", reader->source.name, n);
    reader->n_rows = load_u32(header);
    if ((status = check_dimension(reader, load_u32(header + 4), err)))
        return status;
    reader->dimension = load_u32(header + 4);
    return check_size(reader, sizeof header, row_bytes(reader->type, reader->dimension), err);
}

static int open_vecs(struct vector_reader *reader, vecdb_error *err)
{
    const struct byte_source *source = &reader->source;
    const uint8_t *header;
    size_t n;
    int status = source_peek(&reader->source, 4, &header, &n, err);
    if (status)
        return status;
    if (n < 4)
        return cli_fail(err, VECDB_INVALID, n ? "%s has only a few bytes, a row alone takes more" : "%s is empty",
                        source->name);
    if ((status = check_dimension(reader, load_u32(header), err)))
        return status;
    reader->dimension = load_u32(header);
    uint64_t stride = 4 + row_bytes(reader->type, reader->dimension);
    reader->n_rows = OPTION_UNSET;
    if (source->size_known) {
        if (source->size % stride)
            return cli_fail(
                err, VECDB_INVALID,
                "%s: %llu bytes are no whole number of rows of %u %s values (%llu bytes each); the file is cut "
                "short or of another kind",
                source->name, (unsigned long long)source->size, reader->dimension, type_name(reader->type),
                (unsigned long long)stride);
        reader->n_rows = source->size / stride;
    }
    return VECDB_OK;
}

/* ---------------------------------------------------------------- npy */

/* A cursor in the header's dictionary: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), } */
struct header {
    const char *at, *end;
};

static void skip_space(struct header *h)
{
    while (h->at < h->end && (*h->at == ' ' || *h->at == '\t' || *h->at == '\n'))
        h->at++;
}

static bool take(struct header *h, const char *word)
{
    size_t n = strlen(word);
    skip_space(h);
    if ((size_t)(h->end - h->at) < n || memcmp(h->at, word, n))
        return false;
    h->at += n;
    return true;
}

/* A quoted word without escapes, at most `size` - 1 bytes. */
static bool take_text(struct header *h, char *out, size_t size)
{
    skip_space(h);
    if (h->at >= h->end || (*h->at != '\'' && *h->at != '"'))
        return false;
    char quote = *h->at++;
    size_t n = 0;
    for (; h->at < h->end && *h->at != quote; h->at++) {
        if (n + 1 >= size || *h->at == '\\')
            return false;
        out[n++] = *h->at;
    }
    out[n] = 0;
    return take(h, quote == '"' ? "\"" : "'");
}

static bool take_number(struct header *h, uint64_t *number)
{
    skip_space(h);
    const char *start = h->at;
    uint64_t value = 0;
    for (; h->at < h->end && *h->at >= '0' && *h->at <= '9'; h->at++) {
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*h->at - '0'), &value))
            return false;
    }
    take(h, "L"); /* as Python 2 wrote it */
    *number = value;
    return h->at > start;
}

struct npy_header {
    char type[16];
    bool fortran;
    uint64_t shape[8];
    size_t n_shape;
    unsigned seen; /* one bit for each of the three entries */
};

static bool take_shape(struct header *h, struct npy_header *npy)
{
    if (!take(h, "("))
        return false;
    while (!take(h, ")")) {
        if (npy->n_shape == sizeof npy->shape / sizeof npy->shape[0] || !take_number(h, &npy->shape[npy->n_shape]))
            return false;
        npy->n_shape++;
        if (!take(h, ",")) {
            if (!take(h, ")"))
                return false;
            break;
        }
    }
    return true;
}

static bool parse_npy_header(struct header *h, struct npy_header *npy)
{
    if (!take(h, "{"))
        return false;
    while (!take(h, "}")) {
        char name[32];
        if (!take_text(h, name, sizeof name) || !take(h, ":"))
            return false;
        unsigned bit = 0;
        bool good = false;
        if (!strcmp(name, "descr")) {
            bit = 1;
            good = take_text(h, npy->type, sizeof npy->type);
        } else if (!strcmp(name, "fortran_order")) {
            bit = 2;
            npy->fortran = take(h, "True");
            good = npy->fortran || take(h, "False");
        } else if (!strcmp(name, "shape")) {
            bit = 4;
            good = take_shape(h, npy);
        }
        if (!good || npy->seen & bit)
            return false;
        npy->seen |= bit;
        if (!take(h, ",") && !take(h, "}"))
            return false;
        if (h->at > h->end - 1 || h->at[-1] == '}')
            break;
    }
    return npy->seen == 7;
}

/* What an array must be to be rows of vectors. */
static int accept_npy(struct vector_reader *reader, const struct npy_header *npy, vecdb_error *err)
{
    const char *name = reader->source.name, *type = npy->type;
    if (type[0] == '>')
        return cli_fail(err, VECDB_INVALID, "%s holds big-endian numbers (%s); save it with a.astype(\"<%s\")", name,
                        type, type + 1);
    if (*type == '<' || *type == '|' || *type == '=')
        type++;
    reader->is_double = !strcmp(type, "f8");
    if (!strcmp(type, "f4") || reader->is_double)
        reader->type = VECDB_F32;
    else if (!strcmp(type, "f2"))
        reader->type = VECDB_F16;
    else if (!strcmp(type, "u1"))
        reader->type = VECDB_U8;
    else if (!strcmp(type, "i1"))
        reader->type = VECDB_I8;
    else if (!strcmp(type, "i4"))
        reader->type = VALUE_I32;
    else
        return cli_fail(err, VECDB_INVALID, "%s holds values of NumPy type %s; vectors are f4, f2, f8, u1 or i1", name,
                        npy->type);
    if (npy->n_shape != 2)
        return cli_fail(err, VECDB_INVALID, "%s is an array of %zu dimensions; rows of vectors have 2 (rows, values)",
                        name, npy->n_shape);
    if (npy->fortran)
        return cli_fail(err, VECDB_INVALID,
                        "%s is stored column by column (fortran_order); save it with numpy.ascontiguousarray(a)", name);
    reader->n_rows = npy->shape[0];
    int status = check_dimension(reader, npy->shape[1], err);
    if (!status)
        reader->dimension = (uint32_t)npy->shape[1];
    return status;
}

static int open_npy(struct vector_reader *reader, vecdb_error *err)
{
    struct byte_source *source = &reader->source;
    const uint8_t *bytes;
    size_t n;
    int status = source_peek(source, 12, &bytes, &n, err);
    if (status)
        return status;
    if (n < 10 || memcmp(bytes, "\x93NUMPY", 6))
        return cli_fail(err, VECDB_INVALID, "%s is not a NumPy file: it does not begin with \\x93NUMPY", source->name);
    int version = bytes[6];
    if (version < 1 || version > 3)
        return cli_fail(err, VECDB_INVALID, "%s is a NumPy file of version %d; versions 1, 2 and 3 are known",
                        source->name, version);
    size_t before = version == 1 ? 10 : 12;
    size_t length = version == 1 ? (size_t)(bytes[8] | bytes[9] << 8) : n < 12 ? 0 : load_u32(bytes + 8);
    if (length > NPY_HEADER_LIMIT - before || !length)
        return cli_fail(err, VECDB_INVALID, "%s is damaged: a NumPy header of %zu bytes", source->name, length);
    char *header = cli_alloc(before + length);
    struct npy_header npy = {.n_shape = 0};
    if ((status = source_read(source, header, before + length, &n, err)))
        goto done;
    struct header h = {header + before, header + n};
    if (n < before + length)
        status = cli_fail(err, VECDB_INVALID, "%s is cut short: it ends in the header", source->name);
    else if (!parse_npy_header(&h, &npy))
        status =
            cli_fail(err, VECDB_INVALID, "%s is damaged: its NumPy header is not one of a plain array", source->name);
    else if (!(status = accept_npy(reader, &npy, err)))
        status = check_size(
            reader, before + length,
            reader->is_double ? (uint64_t)reader->dimension * 8 : row_bytes(reader->type, reader->dimension), err);
done:
    free(header);
    return status;
}

/* ---------------------------------------------------------------- reading */

static int open_rows(struct vector_reader *reader, struct byte_source *source, int format, bool may_be_empty,
                     vecdb_error *err)
{
    memset(reader, 0, sizeof *reader);
    reader->may_be_empty = may_be_empty;
    reader->source = *source;
    memset(source, 0, sizeof *source);
    reader->format = format;
    reader->type = type_of_format(format);
    int status = format == INPUT_NPY ? open_npy(reader, err)
                 : is_vecs(format)   ? open_vecs(reader, err)
                                     : open_bin(reader, err);
    if (status) {
        vectors_close(reader);
        return status;
    }
    reader->row_bytes = row_bytes(reader->type, reader->dimension);
    if (is_vecs(format) || reader->is_double) {
        size_t stride = is_vecs(format) ? 4 + reader->row_bytes : reader->dimension * sizeof(double);
        reader->scratch_rows = stride < SCRATCH_BYTES ? SCRATCH_BYTES / stride : 1;
        reader->scratch = cli_alloc_array(reader->scratch_rows, stride);
    }
    return VECDB_OK;
}

int vectors_open(struct vector_reader *reader, struct byte_source *source, int format, vecdb_error *err)
{
    return open_rows(reader, source, format, false, err);
}

int vectors_open_any(struct vector_reader *reader, struct byte_source *source, int format, vecdb_error *err)
{
    return open_rows(reader, source, format, true, err);
}

static int fail_short(const struct vector_reader *reader, size_t n_more, vecdb_error *err)
{
    char rows[32], said[32];
    format_count(reader->n_read + n_more, rows);
    if (reader->n_rows == OPTION_UNSET)
        return cli_fail(err, VECDB_INVALID, "%s is cut short: it ends inside row %s", reader->source.name, rows);
    return cli_fail(err, VECDB_INVALID, "%s is cut short: it ends after %s of the %s rows that its header says",
                    reader->source.name, rows, format_count(reader->n_rows, said));
}

/* Rows whose bytes in the file are the bytes handed out. */
static int read_plain(struct vector_reader *reader, uint8_t *rows, size_t want, size_t *n_rows, vecdb_error *err)
{
    size_t n;
    int status = source_read(&reader->source, rows, want * reader->row_bytes, &n, err);
    if (status)
        return status;
    *n_rows = n / reader->row_bytes;
    return n < want * reader->row_bytes ? fail_short(reader, *n_rows, err) : VECDB_OK;
}

static int unpack_vecs(struct vector_reader *reader, uint8_t *to, const uint8_t *from, size_t n_rows, uint64_t first,
                       vecdb_error *err)
{
    for (size_t i = 0; i < n_rows; i++) {
        uint32_t dimension = load_u32(from);
        if (dimension != reader->dimension)
            return cli_fail(err, VECDB_INVALID, "%s: row %llu has %u values, the rows before it have %u",
                            reader->source.name, (unsigned long long)(first + i), dimension, reader->dimension);
        memcpy(to, from + 4, reader->row_bytes);
        to += reader->row_bytes;
        from += 4 + reader->row_bytes;
    }
    return VECDB_OK;
}

static void unpack_doubles(float *to, const uint8_t *from, size_t n_values)
{
    for (size_t i = 0; i < n_values; i++) {
        double value;
        memcpy(&value, from + i * sizeof value, sizeof value);
        to[i] = (float)value;
    }
}

/* Rows that pass through the scratch memory. */
static int read_unpacked(struct vector_reader *reader, uint8_t *rows, size_t want, size_t *n_rows, vecdb_error *err)
{
    size_t stride = reader->is_double ? reader->dimension * sizeof(double) : 4 + reader->row_bytes;
    size_t done = 0;
    while (done < want) {
        size_t piece = want - done < reader->scratch_rows ? want - done : reader->scratch_rows, n;
        int status = source_read(&reader->source, reader->scratch, piece * stride, &n, err);
        if (status)
            return status;
        size_t got = n / stride;
        uint8_t *to = rows + done * reader->row_bytes;
        if (reader->is_double)
            unpack_doubles((float *)(void *)to, reader->scratch, got * reader->dimension);
        else if ((status = unpack_vecs(reader, to, reader->scratch, got, reader->n_read + done, err)))
            return status;
        done += got;
        if (got < piece) {
            bool open_end = reader->n_rows == OPTION_UNSET && n % stride == 0;
            *n_rows = done;
            return open_end ? VECDB_OK : fail_short(reader, done, err);
        }
    }
    *n_rows = done;
    return VECDB_OK;
}

int vectors_read(struct vector_reader *reader, void *rows, size_t max_rows, size_t *n_rows, vecdb_error *err)
{
    uint64_t left = reader->n_rows == OPTION_UNSET ? UINT64_MAX : reader->n_rows - reader->n_read;
    size_t want = left < max_rows ? (size_t)left : max_rows, got = 0;
    *n_rows = 0;
    if (!want)
        return VECDB_OK;
    int status =
        reader->scratch ? read_unpacked(reader, rows, want, &got, err) : read_plain(reader, rows, want, &got, err);
    if (status)
        return status;
    reader->n_read += got;
    *n_rows = got;
    return VECDB_OK;
}

void vectors_close(struct vector_reader *reader)
{
    free(reader->scratch);
    source_close(&reader->source);
    memset(reader, 0, sizeof *reader);
}

int vectors_load(struct vector_reader *reader, const char *path, int format, uint64_t limit_rows, uint64_t limit_bytes,
                 void **rows, vecdb_error *err)
{
    struct byte_source source;
    int status = source_open(&source, path, err);
    if (status)
        return status;
    if (format == INPUT_UNKNOWN && (status = source_guess_format(&source, &format, err))) {
        source_close(&source);
        return status;
    }
    if (format_has_records(format)) {
        source_close(&source);
        return cli_fail(err, VECDB_INVALID, "%s: a file of vectors is needed here, not JSON lines or CSV", path);
    }
    if ((status = vectors_open(reader, &source, format, err)))
        return status;
    size_t capacity = 0, n = 0;
    uint8_t *memory = NULL;
    while (n < limit_rows) { /* grows as rows arrive, whatever the header says */
        if (n == capacity) {
            capacity = capacity ? capacity * 2 : 1024;
            if (capacity > limit_bytes / reader->row_bytes + 1) {
                status = cli_fail(err, VECDB_NOMEM,
                                  "%s does not fit into the memory budget; use --limit or a larger "
                                  "--memory",
                                  path);
                goto done;
            }
            memory = cli_realloc(memory, capacity * reader->row_bytes);
        }
        size_t want = capacity - n, got;
        if (limit_rows - n < want)
            want = (size_t)(limit_rows - n);
        if ((status = vectors_read(reader, memory + n * reader->row_bytes, want, &got, err)))
            goto done;
        if (!got)
            break;
        n += got;
    }
    reader->n_rows = n;
    *rows = memory;
    memory = NULL;
done:
    free(memory);
    if (status)
        vectors_close(reader);
    return status;
}
