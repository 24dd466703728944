/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/vfs.h - the I/O seam: how vector and index files are read and written
 *
 * Everything that is not the catalog goes through one table of functions, so that the same code
 * runs on a disk (vfs_posix.c), in memory (vfs_memory.c, for ":memory:" and tests), and on a disk
 * that fails on demand (vfs_fault.c, which wraps another). The catalog's files belong to SQLite
 * and must never be opened through this table while a connection lives: close() would drop
 * SQLite's locks.
 *
 * Files are append-only: bytes that a committed catalog row names are never written again.
 *
 * Thread rule: a vfs is shared by all; a file may be read by many threads at once and written
 * by one.
 */
#ifndef VDB_STORAGE_VFS_H
#define VDB_STORAGE_VFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"
#include "vecdb.h"

struct vdb_vfs;

/* What every kind of file begins with. */
struct vdb_file {
    struct vdb_vfs *vfs;
    char *path; /* as opened, for messages; owned */
};

enum vdb_file_mode {
    VDB_FILE_READ = 0,
    VDB_FILE_WRITE = 1, /* read and write; NOT_FOUND when it is missing */
    VDB_FILE_CREATE = 2, /* read and write; EXISTS when it is there; made with the user's umask */
    VDB_FILE_SCAN = 3    /* read all of it once: what the system did not have in its cache does not stay there */
};

enum vdb_path_kind { VDB_PATH_MISSING, VDB_PATH_FILE, VDB_PATH_DIRECTORY, VDB_PATH_OTHER };

struct vdb_read {
    uint64_t offset;
    size_t n_bytes;
    void *into;
};

struct vdb_vfs {
    const char *name; /* "posix", "memory", "fault" */
    struct vdb_memory *memory;

    int (*open)(struct vdb_vfs *vfs, const char *path, int mode, struct vdb_file **file, vecdb_error *err);
    void (*close)(struct vdb_file *file); /* NULL is allowed */
    int (*size)(struct vdb_file *file, uint64_t *n_bytes, vecdb_error *err);

    /* All of the bytes, or an error: CORRUPT when the file ends before them, IO when the system
     * says so. read_many may do the reads in any order and at once. */
    int (*read)(struct vdb_file *file, uint64_t offset, void *into, size_t n_bytes, vecdb_error *err);
    int (*read_many)(struct vdb_file *file, const struct vdb_read *reads, size_t n_reads, vecdb_error *err);

    /* All of the bytes, or an error (FULL, IO, ...), after which any part may have been written. */
    int (*write)(struct vdb_file *file, uint64_t offset, const void *bytes, size_t n_bytes, vecdb_error *err);
    int (*sync)(struct vdb_file *file, vecdb_error *err); /* to stable storage; a failure is final for the file */

    /* A read-only view of bytes that exist; UNSUPPORTED where there is no such thing (then read).
     * `offset` need not be aligned. The pointer is valid until unmap, also after close. */
    int (*map)(struct vdb_file *file, uint64_t offset, size_t n_bytes, const void **bytes, vecdb_error *err);
    void (*unmap)(struct vdb_vfs *vfs, const void *bytes, size_t n_bytes);

    int (*remove)(struct vdb_vfs *vfs, const char *path, vecdb_error *err); /* a missing file is no error */
    int (*kind)(struct vdb_vfs *vfs, const char *path, enum vdb_path_kind *kind, vecdb_error *err);
    int (*make_directory)(struct vdb_vfs *vfs, const char *path, vecdb_error *err); /* EXISTS is no error */
    int (*sync_directory)(struct vdb_vfs *vfs, const char *path, vecdb_error *err);
    int (*remove_directory)(struct vdb_vfs *vfs, const char *path, vecdb_error *err); /* empty; missing is no error */
    /* A second name for a file. EXISTS; NOT_FOUND; UNSUPPORTED where files cannot have two names there. */
    int (*link)(struct vdb_vfs *vfs, const char *from, const char *to, vecdb_error *err);
    /* A file or directory takes the name `to`, which must be free (EXISTS): nothing is ever replaced. */
    int (*rename)(struct vdb_vfs *vfs, const char *from, const char *to, vecdb_error *err);
    /* Names in a directory, in no order, without "." and ".."; each returns false to stop. */
    int (*list)(struct vdb_vfs *vfs, const char *path, bool (*each)(void *context, const char *name), void *context,
                vecdb_error *err);
    void (*end)(struct vdb_vfs *vfs);
};

/* The end of a path that says enough in a message: "my.vecdb/vectors-3-1". Points into `path`. */
static inline const char *vdb_path_tail(const char *path)
{
    const char *tail = path;
    int n_slashes = 0;
    for (const char *at = path; *at; at++)
        n_slashes += *at == '/';
    for (const char *at = path; *at; at++)
        if (*at == '/' && --n_slashes == 1)
            tail = at + 1;
    return tail;
}

/* The files that a vector file's pieces are read from are untrusted: is [offset, offset + n_bytes)
 * inside of n_total bytes? */
static inline bool vdb_range_is_inside(uint64_t offset, uint64_t n_bytes, uint64_t n_total)
{
    return offset <= n_total && n_bytes <= n_total - offset;
}

/* `use_maps` false: map always answers UNSUPPORTED (VECDB_IO_READ). Ended by vfs->end. */
int vdb_vfs_posix(struct vdb_memory *memory, bool use_maps, struct vdb_vfs **vfs, vecdb_error *err);

/* Files that exist in this object only. */
int vdb_vfs_memory(struct vdb_memory *memory, struct vdb_vfs **vfs, vecdb_error *err);

/* Faults, for tests: wraps `inner` (not owned). Before every operation `before` is asked; what it
 * returns is the errno to fail with, 0 to go on, or VDB_FAULT_SHORT: do half of the bytes of a
 * read or write, then fail with EIO. The same hook type serves the catalog's shim. */
enum vdb_io_op {
    VDB_IO_OPEN,
    VDB_IO_READ,
    VDB_IO_WRITE,
    VDB_IO_SYNC,
    VDB_IO_MAP,
    VDB_IO_SIZE,
    VDB_IO_REMOVE,
    VDB_IO_DIRECTORY,
    VDB_IO_TRUNCATE,
    VDB_IO_LOCK,
    VDB_IO_SHM
};
#define VDB_FAULT_SHORT (-1)
struct vdb_io_hook {
    int (*before)(void *context, enum vdb_io_op op, const char *path);
    void *context;
};
int vdb_vfs_fault(struct vdb_memory *memory, struct vdb_vfs *inner, const struct vdb_io_hook *hook,
                  struct vdb_vfs **vfs, vecdb_error *err);

#endif
