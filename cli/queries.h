/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/queries.h - vectors to search for, from files, in the form that the library takes
 */
#ifndef VECDB_CLI_QUERIES_H
#define VECDB_CLI_QUERIES_H

#include "cli.h"
#include "options.h"

struct queries {
    size_t n_queries;
    uint32_t dimension; /* of the field */
    int type;           /* VECDB_F32, for a field of bits VECDB_BIT */
    size_t stride;
    uint8_t *rows;
};

/* All rows of a file (at most `limit_rows`), converted for `field`. */
int queries_load(struct queries *queries, const struct options *options, const vecdb_field *field, uint64_t limit_rows,
                 vecdb_error *err);
/* One vector from numbers. */
int queries_from_floats(struct queries *queries, const float *values, uint32_t dimension, const vecdb_field *field,
                        const char *where, vecdb_error *err);
void queries_release(struct queries *queries);

#endif
