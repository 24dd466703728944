/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/vfs_fault.c - an I/O seam that fails on demand (see vfs.h)
 *
 * Wraps another vfs and asks a hook before each operation. A test counts the operations of a run
 * that succeeds, then fails the first, the second, ... and looks at what is left each time. Bytes go
 * to the wrapped vfs unchanged, so what was written before a failure is there to be looked at.
 */
#include "vfs.h"

#include <errno.h>

#include "base/error.h"

struct fault_vfs {
    struct vdb_vfs base;
    struct vdb_vfs *inner;
    struct vdb_io_hook hook;
};

struct fault_file {
    struct vdb_file base;
    struct vdb_file *inner;
};

static struct fault_vfs *fault(struct vdb_vfs *vfs)
{
    return (struct fault_vfs *)vfs;
}

static struct vdb_file *inner_of(struct vdb_file *file)
{
    return ((struct fault_file *)file)->inner;
}

/* What the hook says; a short transfer is one only where something is transferred. */
static int ask(struct vdb_vfs *vfs, enum vdb_io_op op, const char *path)
{
    return fault(vfs)->hook.before(fault(vfs)->hook.context, op, path);
}

static int check(struct vdb_vfs *vfs, enum vdb_io_op op, const char *path, const char *verb, vecdb_error *err)
{
    int os_error = ask(vfs, op, path);
    if (!os_error)
        return VECDB_OK;
    return vdb_fail_os(err, os_error == VDB_FAULT_SHORT ? EIO : os_error, "cannot %s %s (injected)", verb,
                       vdb_path_tail(path));
}

static int fault_open(struct vdb_vfs *vfs, const char *path, int mode, struct vdb_file **file, vecdb_error *err)
{
    int status = check(vfs, VDB_IO_OPEN, path, "open", err);
    if (status)
        return status;
    struct fault_file *opened = vdb_alloc_zero(vfs->memory, sizeof *opened);
    char *copy = vdb_strdup(vfs->memory, path, strlen(path));
    status = opened && copy ? VECDB_OK : vdb_fail_memory(err, sizeof *opened + strlen(path));
    if (!status)
        status = fault(vfs)->inner->open(fault(vfs)->inner, path, mode, &opened->inner, err);
    if (status) {
        vdb_free(vfs->memory, copy);
        vdb_free(vfs->memory, opened);
        return status;
    }
    opened->base = (struct vdb_file){vfs, copy};
    *file = &opened->base;
    return VECDB_OK;
}

static void fault_close(struct vdb_file *file)
{
    if (!file)
        return;
    struct vdb_memory *memory = file->vfs->memory;
    fault(file->vfs)->inner->close(inner_of(file));
    vdb_free(memory, file->path);
    vdb_free(memory, file);
}

static int fault_size(struct vdb_file *file, uint64_t *n_bytes, vecdb_error *err)
{
    int status = check(file->vfs, VDB_IO_SIZE, file->path, "read the size of", err);
    return status ? status : fault(file->vfs)->inner->size(inner_of(file), n_bytes, err);
}

static int fault_read(struct vdb_file *file, uint64_t offset, void *into, size_t n_bytes, vecdb_error *err)
{
    struct vdb_vfs *inner = fault(file->vfs)->inner;
    int os_error = ask(file->vfs, VDB_IO_READ, file->path);
    if (!os_error)
        return inner->read(inner_of(file), offset, into, n_bytes, err);
    if (os_error == VDB_FAULT_SHORT) {
        inner->read(inner_of(file), offset, into, n_bytes / 2, NULL);
        os_error = EIO;
    }
    return vdb_fail_os(err, os_error, "cannot read %zu bytes at offset %llu of %s (injected)", n_bytes,
                       (unsigned long long)offset, vdb_path_tail(file->path));
}

static int fault_read_many(struct vdb_file *file, const struct vdb_read *reads, size_t n_reads, vecdb_error *err)
{
    for (size_t i = 0; i < n_reads; i++) {
        int status = fault_read(file, reads[i].offset, reads[i].into, reads[i].n_bytes, err);
        if (status)
            return status;
    }
    return VECDB_OK;
}

static int fault_write(struct vdb_file *file, uint64_t offset, const void *bytes, size_t n_bytes, vecdb_error *err)
{
    struct vdb_vfs *inner = fault(file->vfs)->inner;
    int os_error = ask(file->vfs, VDB_IO_WRITE, file->path);
    if (!os_error)
        return inner->write(inner_of(file), offset, bytes, n_bytes, err);
    if (os_error == VDB_FAULT_SHORT) {
        inner->write(inner_of(file), offset, bytes, n_bytes / 2, NULL);
        os_error = EIO;
    }
    return vdb_fail_os(err, os_error, "cannot write %zu bytes at offset %llu of %s (injected)", n_bytes,
                       (unsigned long long)offset, vdb_path_tail(file->path));
}

static int fault_sync(struct vdb_file *file, vecdb_error *err)
{
    int status = check(file->vfs, VDB_IO_SYNC, file->path, "sync", err);
    return status ? status : fault(file->vfs)->inner->sync(inner_of(file), err);
}

static int fault_map(struct vdb_file *file, uint64_t offset, size_t n_bytes, const void **bytes, vecdb_error *err)
{
    int status = check(file->vfs, VDB_IO_MAP, file->path, "map", err);
    return status ? status : fault(file->vfs)->inner->map(inner_of(file), offset, n_bytes, bytes, err);
}

static void fault_unmap(struct vdb_vfs *vfs, const void *bytes, size_t n_bytes)
{
    fault(vfs)->inner->unmap(fault(vfs)->inner, bytes, n_bytes);
}

static int fault_remove(struct vdb_vfs *vfs, const char *path, vecdb_error *err)
{
    int status = check(vfs, VDB_IO_REMOVE, path, "remove", err);
    return status ? status : fault(vfs)->inner->remove(fault(vfs)->inner, path, err);
}

static int fault_kind(struct vdb_vfs *vfs, const char *path, enum vdb_path_kind *kind, vecdb_error *err)
{
    int status = check(vfs, VDB_IO_DIRECTORY, path, "look at", err);
    return status ? status : fault(vfs)->inner->kind(fault(vfs)->inner, path, kind, err);
}

static int fault_make_directory(struct vdb_vfs *vfs, const char *path, vecdb_error *err)
{
    int status = check(vfs, VDB_IO_DIRECTORY, path, "make the directory", err);
    return status ? status : fault(vfs)->inner->make_directory(fault(vfs)->inner, path, err);
}

static int fault_sync_directory(struct vdb_vfs *vfs, const char *path, vecdb_error *err)
{
    int status = check(vfs, VDB_IO_SYNC, path, "sync the directory", err);
    return status ? status : fault(vfs)->inner->sync_directory(fault(vfs)->inner, path, err);
}

static int fault_remove_directory(struct vdb_vfs *vfs, const char *path, vecdb_error *err)
{
    int status = check(vfs, VDB_IO_REMOVE, path, "remove the directory", err);
    return status ? status : fault(vfs)->inner->remove_directory(fault(vfs)->inner, path, err);
}

static int fault_link(struct vdb_vfs *vfs, const char *from, const char *to, vecdb_error *err)
{
    int status = check(vfs, VDB_IO_DIRECTORY, to, "link", err);
    return status ? status : fault(vfs)->inner->link(fault(vfs)->inner, from, to, err);
}

static int fault_rename(struct vdb_vfs *vfs, const char *from, const char *to, vecdb_error *err)
{
    int status = check(vfs, VDB_IO_DIRECTORY, from, "rename", err);
    return status ? status : fault(vfs)->inner->rename(fault(vfs)->inner, from, to, err);
}

static int fault_list(struct vdb_vfs *vfs, const char *path, bool (*each)(void *context, const char *name),
                      void *context, vecdb_error *err)
{
    int status = check(vfs, VDB_IO_DIRECTORY, path, "list the directory", err);
    return status ? status : fault(vfs)->inner->list(fault(vfs)->inner, path, each, context, err);
}

static void fault_end(struct vdb_vfs *vfs)
{
    if (vfs)
        vdb_free(vfs->memory, vfs);
}

int vdb_vfs_fault(struct vdb_memory *memory, struct vdb_vfs *inner, const struct vdb_io_hook *hook,
                  struct vdb_vfs **vfs, vecdb_error *err)
{
    struct fault_vfs *made = vdb_alloc_zero(memory, sizeof *made);
    if (!made)
        return vdb_fail_memory(err, sizeof *made);
    made->inner = inner;
    made->hook = *hook;
    made->base = (struct vdb_vfs){
        .name = "fault",
        .memory = memory,
        .open = fault_open,
        .close = fault_close,
        .size = fault_size,
        .read = fault_read,
        .read_many = fault_read_many,
        .write = fault_write,
        .sync = fault_sync,
        .map = fault_map,
        .unmap = fault_unmap,
        .remove = fault_remove,
        .kind = fault_kind,
        .make_directory = fault_make_directory,
        .sync_directory = fault_sync_directory,
        .remove_directory = fault_remove_directory,
        .link = fault_link,
        .rename = fault_rename,
        .list = fault_list,
        .end = fault_end,
    };
    *vfs = &made->base;
    return VECDB_OK;
}
