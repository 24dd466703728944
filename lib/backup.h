/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/backup.h - copies of a database: what backup.c, restore.c and snapshot.c share
 */
#ifndef VDB_LIB_BACKUP_H
#define VDB_LIB_BACKUP_H

#include "database.h"

/* What a copy's catalog is called until everything is there. */
#define VDB_PARTIAL_CATALOG "catalog.partial"
#define VDB_RESTORING_SUFFIX ".restoring"

struct vdb_copy_options {
    const char *path;  /* of the copy, from the root on */
    bool link;         /* share vector files where that can be done */
    const char *phase; /* for `progress` */
    vecdb_progress_fn progress;
    void *progress_context;
    bool *is_taken; /* told after a failure, unless NULL: the place was not free, another may be */
};

/* Write a copy of the database as it is now: complete and synced, or nothing. The directory must be
 * missing or empty. With `lock_fd` the copy's `state` stays held alone (vdb_state_release_all). */
int vdb_copy_database(vecdb *db, const struct vdb_copy_options *options, uint64_t *sequence, int *lock_fd,
                      vecdb_error *err);

/* Remove what a copy consists of, the catalog first and `state` last, and the directory if that empties it
 * (and `with_directory`). The caller holds its `state`. */
int vdb_copy_remove(struct vdb_vfs *vfs, const char *path, bool with_directory, vecdb_error *err);

/* <directory>/<name>, the caller's to vdb_free. NULL: no memory. */
char *vdb_path_join(struct vdb_memory *memory, const char *directory, const char *name);
/* The directory that a path lies in. */
char *vdb_path_parent(struct vdb_memory *memory, const char *path);
/* A symbolic link: what it leads to is not ours to remove. */
bool vdb_path_is_link(const char *path);
/* Is `path`, which need not exist, `directory` or in it? By their real names. */
bool vdb_path_is_inside(struct vdb_memory *memory, const char *path, const char *directory);

/* vecdb_restore with faults, for tests. */
int vdb_database_restore(const char *backup, const char *path, const vecdb_backup_options *options,
                         const struct vdb_io_hook *hook, vecdb_error *err);

/* ---- snapshots (snapshot.c) */

/* While the database is being opened: find the snapshot that the options name, make its directory the
 * handle's path, and hold the `state` of the database itself. */
int vdb_snapshot_enter(vecdb *db, const struct vdb_io_hook *hook, vecdb_error *err);
/* After the catalog was closed, of any handle: if the snapshot was dropped meanwhile and nobody else has it open, its
 * files go. */
void vdb_snapshot_leave(vecdb *db);
/* Remove directories of snapshots that no commit names and nobody uses or makes. */
int vdb_snapshot_sweep(vecdb *db, vecdb_error *err);

#endif
