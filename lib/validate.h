/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/validate.h - what callers hand in, checked and brought into the form that is stored
 *
 * Every refusal is a sentence that names the thing: which collection, which record by its position in
 * the call, which field, which value. Nothing here touches the database.
 */
#ifndef VDB_LIB_VALIDATE_H
#define VDB_LIB_VALIDATE_H

#include "storage/catalog.h"
#include "vecdb.h"

/* `what`: "collection" or "field". */
int vdb_check_name(const char *what, const char *name, vecdb_error *err);

/* The field with its defaults filled in, as a row of the catalog (id and generation 0). */
int vdb_check_field(const vecdb_field *field, struct vdb_field_row *row, vecdb_error *err);
void vdb_describe_field(const struct vdb_field_row *row, vecdb_field *field); /* borrows the name */

/* The key with its length filled in. `where` begins the sentence: "record 3" */
int vdb_check_key(const char *where, const vecdb_key *key, vecdb_key *out, vecdb_error *err);

/* A text with its length (0: as far as NUL), as UTF-8. */
int vdb_check_text(const char *where, const char *what, const char *text, size_t length, size_t *out,
                   vecdb_error *err);

/* Bring one vector of `type` (0: the field's) into the field's type; `out` has room for it. */
int vdb_check_vector(const char *where, const struct vdb_field_row *field, const void *values, uint32_t dimension,
                     int type, void *out, vecdb_error *err);

/* Bring a query of `type` (0: f32, or bit) into the form that an index takes: floats, or bits. */
int vdb_check_query(const char *where, const struct vdb_field_row *field, const void *values, int type, void *out,
                    vecdb_error *err);

/* Euclidean length, rounded up, of a vector of a type; 0 for bits. */
float vdb_norm_bound(int type, const void *values, uint32_t dimension);

#endif
