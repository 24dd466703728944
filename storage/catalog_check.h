/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/catalog_check.h - the tables of a catalog against what they must hold
 *
 * Checksums tell that a page is as it was written; these checks tell that what was written makes sense. They find
 * what a defect of the library, a foreign program or a repair by hand has done. All run inside the caller's read
 * transaction and change nothing. `each` is told a sentence; `collection` is the name of the one that it is about,
 * or NULL.
 */
#ifndef VDB_STORAGE_CATALOG_CHECK_H
#define VDB_STORAGE_CATALOG_CHECK_H

#include "catalog.h"

typedef void (*vdb_finding_fn)(void *context, const char *collection, const char *message);

/* The fixed tables, row by row and against each other, and that every store and field has its table. */
int vdb_catalog_check_tables(struct vdb_connection *c, vdb_finding_fn each, void *context, vecdb_error *err);

/* The tail of a field: that its rows can be read as what they should be. (The vectors are the caller's to check.) */
int vdb_catalog_check_tail(struct vdb_connection *c, const char *collection, uint64_t field, vdb_finding_fn each,
                           void *context, vecdb_error *err);

/* Every record of a collection: keys, metadata, texts; adds their slots to `slots`. Asks `stop` (may be NULL) now
 * and then. */
int vdb_catalog_check_records(struct vdb_connection *c, const struct vdb_collection_row *row, struct vdb_slots *slots,
                              int (*stop)(void *context, vecdb_error *err), void *stop_context, vdb_finding_fn each,
                              void *context, vecdb_error *err);

/* Bytes of all extents. */
int vdb_catalog_check_size(struct vdb_connection *c, uint64_t *n_bytes, vecdb_error *err);

/* The named snapshots, by age. */
struct vdb_snapshot_name {
    uint64_t id;
    char name[VECDB_MAX_NAME + 1];
};
int vdb_catalog_check_snapshots(struct vdb_connection *c,
                                int (*each)(void *context, const struct vdb_snapshot_name *snapshot), void *context,
                                vecdb_error *err);

#endif
