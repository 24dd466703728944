/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/input_source.c - bytes of a file, of stdin or of memory; lines; guessing formats
 *
 * A source is read once, from front to back, so that a pipe will do. Small reads go through a
 * buffer of 256 KiB; large ones go straight into the caller's memory, which is how rows of a
 * vector file reach the library with one copy (the kernel's) and no mapping: a file that another
 * program cuts short while it is read gives a sentence here, and would give SIGBUS in a map.
 */
#include "input.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUFFER_BYTES (256u << 10)
#define PEEK_BYTES (64u << 10)

/* ---------------------------------------------------------------- open and close */

int source_open(struct byte_source *source, const char *path, vecdb_error *err)
{
    memset(source, 0, sizeof *source);
    bool is_stdin = !strcmp(path, "-");
    source->fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (source->fd < 0)
        return cli_fail_os(err, errno, "cannot open %s", path);
    struct stat info;
    if (fstat(source->fd, &info)) {
        int status = cli_fail_os(err, errno, "cannot examine %s", path);
        if (!is_stdin)
            close(source->fd);
        return status;
    }
    source->name = cli_copy(is_stdin ? "stdin" : path, is_stdin ? 5 : strlen(path));
    source->buffer = cli_alloc(BUFFER_BYTES);
    source->capacity = BUFFER_BYTES;
    int status = VECDB_OK;
    if (S_ISDIR(info.st_mode))
        status = cli_fail(err, VECDB_INVALID, "%s is a directory, not a file", path);
    else if (S_ISREG(info.st_mode) && !is_stdin) {
        source->size_known = true;
        source->size = (uint64_t)info.st_size;
        if (!source->size)
            status = cli_fail(err, VECDB_INVALID, "%s is empty", path);
        posix_fadvise(source->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    }
    if (status)
        source_close(source);
    return status;
}

void source_memory(struct byte_source *source, const char *name, const void *bytes, size_t n_bytes)
{
    memset(source, 0, sizeof *source);
    source->name = cli_copy(name, strlen(name));
    source->fd = -1;
    source->size_known = true;
    source->size = n_bytes;
    source->buffer = (uint8_t *)(uintptr_t)bytes;
    source->end = n_bytes;
}

void source_close(struct byte_source *source)
{
    if (!source->name)
        return;
    if (source->fd >= 0) {
        free(source->buffer);
        if (source->fd != STDIN_FILENO)
            close(source->fd);
    }
    free(source->name);
    memset(source, 0, sizeof *source);
}

/* ---------------------------------------------------------------- bytes */

/* One read() of the file; 0 at the end. */
static int read_some(struct byte_source *source, uint8_t *out, size_t n, size_t *n_read, vecdb_error *err)
{
    *n_read = 0;
    if (source->fd < 0)
        return VECDB_OK;
    for (;;) {
        ssize_t got = read(source->fd, out, n);
        if (got >= 0) {
            *n_read = (size_t)got;
            return VECDB_OK;
        }
        if (errno != EINTR)
            return cli_fail_os(err, errno, "%s: cannot read at byte %llu", source->name,
                               (unsigned long long)source->offset);
        if (cli_interrupted)
            return cli_fail(err, VECDB_INTERRUPTED, "interrupted while reading %s", source->name);
    }
}

int source_read(struct byte_source *source, void *out, size_t n, size_t *n_read, vecdb_error *err)
{
    uint8_t *to = out;
    size_t done = 0;
    while (done < n) {
        size_t there = source->end - source->begin, want = n - done, got;
        if (there) {
            got = there < want ? there : want;
            memcpy(to + done, source->buffer + source->begin, got);
            source->begin += got;
        } else {
            bool direct = want >= source->capacity;
            int status = direct ? read_some(source, to + done, want, &got, err)
                                : read_some(source, source->buffer, source->capacity, &got, err);
            if (status)
                return status;
            if (!got)
                break;
            if (!direct) {
                source->begin = 0;
                source->end = got;
                continue;
            }
        }
        done += got;
        source->offset += got;
    }
    *n_read = done;
    return VECDB_OK;
}

int source_peek(struct byte_source *source, size_t n, const uint8_t **bytes, size_t *n_there, vecdb_error *err)
{
    if (n > PEEK_BYTES)
        n = PEEK_BYTES;
    while (source->fd >= 0 && source->end - source->begin < n) {
        if (source->begin) {
            memmove(source->buffer, source->buffer + source->begin, source->end - source->begin);
            source->end -= source->begin;
            source->begin = 0;
        }
        size_t got;
        int status = read_some(source, source->buffer + source->end, source->capacity - source->end, &got, err);
        if (status)
            return status;
        if (!got)
            break;
        source->end += got;
    }
    *bytes = source->buffer + source->begin;
    *n_there = source->end - source->begin < n ? source->end - source->begin : n;
    return VECDB_OK;
}

/* ---------------------------------------------------------------- formats */

int source_guess_format(struct byte_source *source, int *format, vecdb_error *err)
{
    static const struct {
        const char *suffix;
        int format;
    } suffixes[] = {{".fvecs", INPUT_FVECS}, {".bvecs", INPUT_BVECS}, {".ivecs", INPUT_IVECS},   {".fbin", INPUT_FBIN},
                    {".u8bin", INPUT_U8BIN}, {".i8bin", INPUT_I8BIN}, {".f16bin", INPUT_F16BIN}, {".ibin", INPUT_IBIN},
                    {".npy", INPUT_NPY},     {".jsonl", INPUT_JSONL}, {".ndjson", INPUT_JSONL},  {".csv", INPUT_CSV}};
    size_t length = strlen(source->name);
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        size_t n = strlen(suffixes[i].suffix);
        if (length > n && !strcasecmp(source->name + length - n, suffixes[i].suffix)) {
            *format = suffixes[i].format;
            return VECDB_OK;
        }
    }
    const uint8_t *bytes;
    size_t n;
    int status = source_peek(source, 16, &bytes, &n, err);
    if (status)
        return status;
    size_t space = 0;
    while (space < n && (bytes[space] == ' ' || bytes[space] == '\n' || bytes[space] == '\r' || bytes[space] == '\t'))
        space++;
    if (n >= 6 && !memcmp(bytes, "\x93NUMPY", 6))
        *format = INPUT_NPY;
    else if (space < n && bytes[space] == '{')
        *format = INPUT_JSONL;
    else
        return cli_fail(
            err, VECDB_INVALID,
            "cannot tell the format of %s from its name or its first bytes; say --format with one of fvecs, "
            "bvecs, ivecs, fbin, u8bin, i8bin, f16bin, ibin, npy, jsonl, csv",
            source->name);
    return VECDB_OK;
}

/* ---------------------------------------------------------------- lines */

static int append(struct line_reader *reader, size_t *length, const uint8_t *bytes, size_t n, vecdb_error *err)
{
    if (n > reader->limit - *length)
        return cli_fail(err, VECDB_INVALID,
                        "%s: line %llu is longer than %zu bytes; a larger --memory allows longer ones",
                        reader->source->name, (unsigned long long)reader->number, reader->limit);
    if (*length + n + 1 > reader->capacity) {
        size_t capacity = reader->capacity ? reader->capacity : 4096;
        while (capacity < *length + n + 1)
            capacity *= 2;
        reader->line = cli_realloc(reader->line, capacity);
        reader->capacity = capacity;
    }
    memcpy(reader->line + *length, bytes, n);
    *length += n;
    reader->line[*length] = 0;
    return VECDB_OK;
}

int line_read(struct line_reader *reader, const char **line, size_t *length, vecdb_error *err)
{
    struct byte_source *source = reader->source;
    *line = NULL;
    *length = 0;
    reader->number++;
    for (bool any = false;; any = true) {
        const uint8_t *bytes;
        size_t n;
        int status = source_peek(source, 1, &bytes, &n, err);
        if (status)
            return status;
        if (!n) {
            if (any) /* a last line without its end */
                break;
            return VECDB_OK;
        }
        n = source->end - source->begin;
        const uint8_t *end = memchr(bytes, '\n', n);
        size_t take = end ? (size_t)(end - bytes) : n;
        if ((status = append(reader, length, bytes, take, err)))
            return status;
        source->begin += take + (end != NULL);
        source->offset += take + (end != NULL);
        if (end)
            break;
    }
    if (*length && reader->line[*length - 1] == '\r')
        reader->line[--*length] = 0;
    *line = reader->line;
    if (reader->number == 1 && *length >= 3 && !memcmp(*line, "\xef\xbb\xbf", 3)) { /* a byte order mark */
        *line += 3;
        *length -= 3;
    }
    return VECDB_OK;
}

void line_release(struct line_reader *reader)
{
    free(reader->line);
    reader->line = NULL;
}
