/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/fuzz_cli_readers.c - no bytes make a reader of vecdb-cli read out of bounds, hand out more
 * rows than the file can hold, or fail without a sentence
 *
 * The first byte of the input chooses the format, the second one the settings; the rest is the file.
 */
#include <stdlib.h>
#include <string.h>

#include "cli/input.h"
#include "cli/options.h"
#include "cli/values.h"

#define ROWS 7 /* a step, so that most files take several */

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static void must(bool condition)
{
    if (!condition)
        abort();
}

static void read_vectors(struct byte_source *source, int format)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vector_reader reader;
    uint64_t size = source->size, total = 0;
    int status = vectors_open(&reader, source, format, &err);
    if (status) {
        must(err.message[0] != 0);
        return;
    }
    must(reader.dimension >= 1 && reader.dimension <= VECDB_MAX_DIMENSION);
    uint8_t *rows = cli_alloc_array(ROWS, reader.row_bytes); /* exact, so that the sanitizer sees one byte too many */
    for (;;) {
        size_t n;
        if ((status = vectors_read(&reader, rows, ROWS, &n, &err))) {
            must(err.message[0] != 0);
            break;
        }
        must(n <= ROWS);
        total += n;
        if (!n)
            break;
    }
    must(total <= size);
    free(rows);
    vectors_close(&reader);
}

/* Everything that a record points to is read. */
static void visit(const struct row_record *record)
{
    volatile float sum = 0;
    for (size_t v = 0; v < record->n_vectors; v++) {
        for (uint32_t i = 0; i < record->vectors[v].dimension; i++)
            sum = sum + record->vectors[v].values[i];
    }
    if (record->metadata)
        must(!record->metadata[record->metadata_length] && record->metadata[0] == '{' &&
             record->metadata[record->metadata_length - 1] == '}');
    if (record->text)
        must(!record->text[record->text_length]);
    if (record->has_key && record->key.text)
        must(record->key.length && !record->key.text[record->key.length]);
}

static void read_records(struct byte_source *source, int format, unsigned how)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct record_reader reader;
    struct arena arena = {0};
    struct record_settings settings = {.limit_bytes = 4096, .vectors = how & 1};
    settings.key = how & 2 ? "id" : NULL;
    settings.text = how & 4 ? "title,text" : NULL;
    int status = records_open(&reader, source, format, &settings, &err);
    if (status) {
        must(err.message[0] != 0);
        return;
    }
    for (bool got = true; got && !status;) {
        struct row_record record;
        arena_reset(&arena);
        status = records_next(&reader, &arena, &record, &got, &err);
        if (!status && got)
            visit(&record);
    }
    must(!status || err.message[0] != 0);
    records_close(&reader);
    arena_release(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    if (n_bytes < 2)
        return 0;
    struct byte_source source;
    int format = 1 + bytes[0] % INPUT_CSV;
    source_memory(&source, "file", bytes + 2, n_bytes - 2);
    if (format_has_records(format))
        read_records(&source, format, bytes[1]);
    else
        read_vectors(&source, format);
    return 0;
}
