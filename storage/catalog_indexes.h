/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/catalog_indexes.h - the table `indexes`: which index files count, and how far
 *
 * A row names the file index-<field>-<generation>, of which the first `bytes` bytes count. What lies behind is of a
 * publication that was not committed. At most one row for each field. Index files are derived: a row, or its file, may
 * be lost at any time. The table is made when it is first written to; a database without it has no index files.
 */
#ifndef VDB_STORAGE_CATALOG_INDEXES_H
#define VDB_STORAGE_CATALOG_INDEXES_H

#include "connection.h"

struct vdb_index_row {
    uint64_t field, store;
    uint64_t generation;
    int kind; /* 1: graph */
    uint32_t end_slot;
    uint64_t bytes;
    uint64_t check; /* of the head of the last record in the file, which names the one before it */
    const void *calibration; /* NULL: none; valid during the callback */
    size_t n_calibration;
};
#define VDB_INDEX_KIND_GRAPH 1

/* In a writing transaction: the field's row becomes this one. */
int vdb_index_row_set(struct vdb_connection *c, const struct vdb_index_row *row, vecdb_error *err);
int vdb_index_row_remove(struct vdb_connection *c, uint64_t field, vecdb_error *err);

/* All rows; those with impossible values are left out, as if they were lost. */
int vdb_index_row_each(struct vdb_connection *c, int (*each)(void *context, const struct vdb_index_row *row),
                       void *context, vecdb_error *err);

#endif
