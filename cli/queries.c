/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/queries.c - vectors to search for
 *
 * Files of any type serve: their values become f32 (exactly; every type but f64 fits), or, for a
 * field of bits, stay the packed bytes of a u8 file. The dimension is compared here, where the
 * name of the file is known.
 */
#include "queries.h"

#include <stdlib.h>
#include <string.h>

#include "input.h"
#include "values.h"

static int wrong_dimension(const char *where, uint64_t dimension, const vecdb_field *field, vecdb_error *err)
{
    return cli_fail(err, VECDB_INVALID, "%s has %llu values, field \"%.80s\" takes %u", where,
                    (unsigned long long)dimension, field->name, field->dimension);
}

int queries_load(struct queries *queries, const struct options *options, const vecdb_field *field, uint64_t limit_rows,
                 vecdb_error *err)
{
    struct vector_reader reader;
    void *rows;
    memset(queries, 0, sizeof *queries);
    int status =
        vectors_load(&reader, options->queries, (int)options->format, limit_rows, options->memory_bytes, &rows, err);
    if (status)
        return status;
    size_t n = (size_t)reader.n_rows;
    bool bits = field->type == VECDB_BIT;
    *queries = (struct queries){.n_queries = n, .dimension = field->dimension};
    queries->type = bits ? VECDB_BIT : VECDB_F32;
    queries->stride = row_bytes(queries->type, field->dimension);
    char where[300];
    snprintf(where, sizeof where, "%.280s: a row", options->queries);
    if (reader.type == VALUE_I32 || (bits && reader.type != VECDB_U8))
        status = cli_fail(err, VECDB_INVALID, "%s holds %s values; %s", options->queries, type_name(reader.type),
                          bits ? "a field of bits takes u8 files, 8 bits to a byte" : "vectors are f32, f16, i8 or u8");
    else if (bits && reader.row_bytes != queries->stride)
        status = wrong_dimension(where, (uint64_t)reader.dimension * 8, field, err);
    else if (!bits && reader.dimension != field->dimension)
        status = wrong_dimension(where, reader.dimension, field, err);
    else if (bits || reader.type == VECDB_F32) {
        queries->rows = rows;
        rows = NULL;
    } else {
        queries->rows = cli_alloc_array(n, queries->stride);
        for (size_t i = 0; i < n; i++)
            row_to_floats((float *)(void *)(queries->rows + i * queries->stride),
                          (uint8_t *)rows + i * reader.row_bytes, reader.type, reader.dimension);
    }
    free(rows);
    vectors_close(&reader);
    return status;
}

int queries_from_floats(struct queries *queries, const float *values, uint32_t dimension, const vecdb_field *field,
                        const char *where, vecdb_error *err)
{
    memset(queries, 0, sizeof *queries);
    if (dimension != field->dimension)
        return wrong_dimension(where, dimension, field, err);
    *queries = (struct queries){.n_queries = 1, .dimension = dimension};
    queries->type = field->type == VECDB_BIT ? VECDB_BIT : VECDB_F32;
    queries->stride = row_bytes(queries->type, dimension);
    queries->rows = cli_alloc(queries->stride);
    if (queries->type == VECDB_F32) {
        memcpy(queries->rows, values, queries->stride);
        return VECDB_OK;
    }
    memset(queries->rows, 0, queries->stride);
    for (uint32_t i = 0; i < dimension; i++) {
        if (values[i] != 0 && values[i] != 1)
            return cli_fail(err, VECDB_INVALID, "%s: value %u is neither 0 nor 1, and the field holds bits", where, i);
        queries->rows[i / 8] |= (uint8_t)((unsigned)values[i] << i % 8);
    }
    return VECDB_OK;
}

void queries_release(struct queries *queries)
{
    free(queries->rows);
    memset(queries, 0, sizeof *queries);
}
