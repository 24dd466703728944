/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/catalog_backup.h - copies of a catalog and of vector files; the table `snapshots`
 *
 * What lib/backup.c puts together: a copy of the catalog as one read transaction sees it
 * (catalog_backup.c), copies of the extents that it names (extent_copy.c), and the rows that give
 * copies inside of the database directory a name (catalog_snapshots.c).
 */
#ifndef VDB_STORAGE_CATALOG_BACKUP_H
#define VDB_STORAGE_CATALOG_BACKUP_H

#include "catalog.h"

/* ---- a copy of the catalog (catalog_backup.c) */

struct vdb_catalog_copy {
    struct vdb_memory *memory;
    struct vdb_connection *source; /* in a read transaction, which stays open */
    const char *path;              /* of the new file */
    const struct vdb_io_hook *hook;
    bool seal; /* no vector file of the copy will be appended to: `generation` of every field is raised */
    /* Told now and then; anything but VECDB_OK ends the copy. */
    int (*progress)(void *context, uint64_t n_done, uint64_t n_total, vecdb_error *err);
    void *context;
};

/* Make the file, complete and synced, without WAL, its table `snapshots` empty. After a failure remove
 * what there is of it and of <path>-wal. CORRUPT when a page of the original is damaged. */
int vdb_catalog_copy(const struct vdb_catalog_copy *copy, vecdb_error *err);

/* ---- a copy of a vector file (extent_copy.c) */

struct vdb_extents_copy {
    struct vdb_memory *memory;
    struct vdb_file *from, *to; /* `to` is empty */
    const unsigned char *uuid;
    uint64_t store;
    int type;
    uint32_t dimension;
    const struct vdb_extent_row *rows;
    size_t n_rows;
    int (*progress)(void *context, uint64_t n_more, vecdb_error *err);
    void *context;
};

/* Copy the header, the pages and the footers of these extents to where they are, everything verified on
 * the way; what no footer names is left out. Not synced. CORRUPT names what is damaged. */
int vdb_extents_copy(const struct vdb_extents_copy *copy, vecdb_error *err);
/* Only look: the header and the footers, for a file that gets a second name. `to` is not used. */
int vdb_extents_verify(const struct vdb_extents_copy *copy, vecdb_error *err);

/* ---- the table `snapshots` (catalog_snapshots.c) */

struct vdb_snapshot_row {
    uint64_t id;
    char name[VECDB_MAX_NAME + 1];
    uint64_t sequence;
    int64_t created;
};

/* A number that no snapshot had or will have. */
int vdb_snapshot_reserve(struct vdb_connection *c, uint64_t *id, vecdb_error *err);
/* `added` false: the name is taken. */
int vdb_snapshot_add(struct vdb_connection *c, const struct vdb_snapshot_row *row, bool *added, vecdb_error *err);
int vdb_snapshot_find(struct vdb_connection *c, const char *name, struct vdb_snapshot_row *row, bool *found,
                      vecdb_error *err);
int vdb_snapshot_each(struct vdb_connection *c, int (*each)(void *context, const struct vdb_snapshot_row *row),
                      void *context, vecdb_error *err); /* the oldest first */
int vdb_snapshot_has(struct vdb_connection *c, uint64_t id, bool *has, vecdb_error *err);
int vdb_snapshot_remove(struct vdb_connection *c, uint64_t id, vecdb_error *err);

#endif
