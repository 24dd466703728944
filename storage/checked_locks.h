/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/checked_locks.h - the locks of a catalog, and the WAL's index, by descriptors of each connection's own
 *
 * SQLite's unix VFS takes POSIX locks, which belong to the process, and so has to keep a record of what each
 * of its connections holds. A child of a fork inherits the record and none of the locks. It would take its
 * parent's locks for its own: read without a lock while the log is cut below it, or find a lock of its parent
 * that nobody will ever give back. Here every connection has descriptors of its own with OFD locks, on the same
 * bytes, so that stock SQLite in other processes is excluded as before; the kernel keeps the only record.
 */
#ifndef VDB_STORAGE_CHECKED_LOCKS_H
#define VDB_STORAGE_CHECKED_LOCKS_H

#include <stdbool.h>

#include <sqlite3.h>

#include "base/memory.h"

/* The VFS to build upon, which takes no locks itself; NULL where there are no OFD locks, or where the
 * default VFS is not SQLite's own for Unix: then that one's locks serve. */
sqlite3_vfs *vdb_locks_base(void);

/* fork() is not to catch SQLite in the middle of something that is the whole process's. */
void vdb_locks_watch_forks(void);

struct vdb_locks {
    struct vdb_memory *memory;
    const char *name; /* of the main file, SQLite's */
    int fd;           /* on the main file */
    int level;        /* SQLITE_LOCK_NONE ... */
    int index_fd;     /* on the -shm file; -1: not open yet */
    bool index_is_readonly;
    bool index_is_alone; /* read-only, and nobody has it open for writing: nothing in it is to be believed */
    char *index_path;
    void **regions; /* pieces of the index, mapped; several may be in one mapping */
    int n_regions, region_bytes;
};

/* SQLite's result codes. `release` gives everything back. */
int vdb_locks_init(struct vdb_locks *locks, struct vdb_memory *memory, const char *name, bool readonly);
void vdb_locks_release(struct vdb_locks *locks);

/* What SQLite's xLock, xUnlock ... are. */
int vdb_locks_raise(struct vdb_locks *locks, int level);
int vdb_locks_lower(struct vdb_locks *locks, int level);
int vdb_locks_reserved(struct vdb_locks *locks, int *is_reserved);
int vdb_locks_shm_map(struct vdb_locks *locks, int region, int n_bytes, int extend, void volatile **at);
int vdb_locks_shm_lock(struct vdb_locks *locks, int offset, int n, int flags);
void vdb_locks_shm_unmap(struct vdb_locks *locks, bool remove);

#endif
