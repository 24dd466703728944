/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/catalog_repair.h - a new catalog takes the place of an old one
 */
#ifndef VDB_STORAGE_CATALOG_REPAIR_H
#define VDB_STORAGE_CATALOG_REPAIR_H

#include "connection.h"

/* Give a catalog that was just made the uuid of another, and a number above its last commit. Its `state` still
 * has the old uuid: close the catalog, fill `state` anew (vdb_state_fill), open it again. */
int vdb_catalog_take_identity(struct vdb_catalog *catalog, const unsigned char uuid[16], uint64_t sequence,
                              vecdb_error *err);

#endif
