/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/batch.h - the records of one write, checked and brought into the form that is stored
 *
 *     records       as the caller gave them; keys and lengths beside them
 *     columns       one for each field: the vectors of those records that have one, without gaps, in the
 *                   field's type, and which record each belongs to
 *
 * Made outside of all locks (batch.c), written inside the transaction (write.c). Every refusal names the
 * record by its position in the call. Metadata is parsed in the second half: there is a connection there, and
 * in a bulk write a thread that would wait for the other.
 */
#ifndef VDB_LIB_BATCH_H
#define VDB_LIB_BATCH_H

#include "database.h"

/* The records' vectors in one field, those without one left out. */
struct vdb_batch_column {
    const struct vdb_view_field *field;
    unsigned char *rows;
    uint32_t *record; /* of each row: its place in the batch, ascending; later its slot */
    size_t n_rows;
};

struct vdb_batch {
    vecdb_collection *collection;
    const vecdb_record *records;
    size_t n_records;
    bool is_insert;
    struct vdb_view *view; /* whose fields it was made for */
    vecdb_key *keys;       /* with lengths */
    size_t *metadata_lengths, *text_lengths;
    struct vdb_batch_column *columns; /* one for each field */
    uint64_t store;                   /* the collection's, in the transaction */
    bool has_documents, is_bulk;
    bool wants_current; /* the view has to be that of the last commit: an older one was not good enough */
    size_t n_vector_bytes;

    struct vdb_append *appends; /* bulk: one for each field */
    uint32_t *dead;             /* slots killed */
    size_t n_dead, dead_capacity;
    uint32_t *slots;          /* scratch, one for each record */
    unsigned char *is_killed; /* by a later record of the same batch */
};

/* Where in the call an error is; the number is written anew for each record, by hand, because most
 * records are in order. */
struct vdb_place {
    char text[VECDB_MAX_NAME + 64];
    size_t prefix;
};

void vdb_place_init(struct vdb_place *place, const struct vdb_batch *batch);
const char *vdb_place_at(struct vdb_place *place, size_t i);

/* Fill a batch that has its collection, records and is_insert. On failure too it must be released. */
int vdb_batch_prepare(struct vdb_batch *batch, vecdb_error *err);
void vdb_batch_release(struct vdb_batch *batch);

/* Parse the metadata of record i, which has some. */
int vdb_batch_check_metadata(struct vdb_batch *batch, struct vdb_connection *c, const char *where, size_t i,
                             vecdb_error *err);

#endif
