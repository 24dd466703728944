/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/vfs_posix.c - files of a POSIX system behind the I/O seam (see vfs.h)
 *
 * What this file adds to the system calls:
 *   1. Transfers are whole. A short read or write is continued, EINTR is repeated, and a read that
 *      meets the end of the file is CORRUPT: nobody asks for bytes that a commit did not promise.
 *   2. Descriptors are O_CLOEXEC and never follow a symbolic link in the last component, so that a
 *      link left in a database directory cannot lead a writer to another file.
 *   3. Only regular files are opened. O_NONBLOCK keeps a FIFO from stopping us in open().
 *   4. A failed sync is final. The kernel may have dropped the dirty pages and would report success
 *      the next time, so the file refuses to write or sync from then on.
 *   5. A map begins at the page boundary below what was asked for; unmap finds the boundary again
 *      from the pointer alone, because both are congruent to the file offset.
 *
 * Rejected: madvise(MADV_SEQUENTIAL) or MAP_POPULATE for maps. The same map serves scans and single
 * rows, and a hint that is right for one is wrong for the other.
 */
#include "vfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/error.h"

/* One system call moves at most this much: Linux itself stops at 2 GiB - 4 KiB, other systems refuse
 * more than INT_MAX. */
#define TRANSFER_LIMIT ((size_t)1 << 30)

struct posix_vfs {
    struct vdb_vfs base;
    bool use_maps;
    size_t page_bytes;
};

struct posix_file {
    struct vdb_file base;
    int descriptor;
    bool is_scan; /* opened to be read once, see read_from_cache */
    bool sync_failed;
};

static struct posix_file *posix(struct vdb_file *file)
{
    return (struct posix_file *)file;
}

static int fail_open(const char *path, int mode, int os_error, vecdb_error *err)
{
    const char *name = vdb_path_tail(path);
    if (os_error == EEXIST)
        return vdb_fail(err, VECDB_EXISTS, "cannot create %s: it exists already", name);
    if (os_error == ELOOP)
        return vdb_fail(err, VECDB_INVALID, "cannot open %s: it is a symbolic link", name);
    if (os_error == EISDIR || os_error == ENXIO)
        return vdb_fail(err, VECDB_INVALID, "cannot open %s: it is not a regular file", name);
    return vdb_fail_os(err, os_error, "cannot %s %s", mode == VDB_FILE_CREATE ? "create" : "open", name);
}

static int open_descriptor(const char *path, int mode, int *descriptor, vecdb_error *err)
{
    static const int mode_flags[] = {O_RDONLY, O_RDWR, O_RDWR | O_CREAT | O_EXCL, O_RDONLY};
    int fd;
    do
        fd = open(path, mode_flags[mode] | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return fail_open(path, mode, errno, err);
    struct stat status;
    int os_error = fstat(fd, &status) ? errno : S_ISREG(status.st_mode) ? 0 : EISDIR;
    if (os_error) {
        close(fd);
        return fail_open(path, mode, os_error, err);
    }
    *descriptor = fd;
    return VECDB_OK;
}

static int posix_open(struct vdb_vfs *vfs, const char *path, int mode, struct vdb_file **file, vecdb_error *err)
{
    struct posix_file *opened = vdb_alloc_zero(vfs->memory, sizeof *opened);
    char *copy = vdb_strdup(vfs->memory, path, strlen(path));
    int status = opened && copy ? VECDB_OK : vdb_fail_memory(err, sizeof *opened + strlen(path));
    if (!status)
        status = open_descriptor(path, mode, &opened->descriptor, err);
    if (status) {
        vdb_free(vfs->memory, copy);
        vdb_free(vfs->memory, opened);
        return status;
    }
    opened->base = (struct vdb_file){vfs, copy};
    opened->is_scan = mode == VDB_FILE_SCAN;
    if (opened->is_scan) /* what is read ahead would look, later, as if others wanted it */
        posix_fadvise(opened->descriptor, 0, 0, POSIX_FADV_RANDOM);
    *file = &opened->base;
    return VECDB_OK;
}

static void posix_close(struct vdb_file *file)
{
    if (!file)
        return;
    struct vdb_memory *memory = file->vfs->memory;
    close(posix(file)->descriptor);
    vdb_free(memory, file->path);
    vdb_free(memory, file);
}

static int posix_size(struct vdb_file *file, uint64_t *n_bytes, vecdb_error *err)
{
    struct stat status;
    if (fstat(posix(file)->descriptor, &status))
        return vdb_fail_os(err, errno, "cannot read the size of %s", vdb_path_tail(file->path));
    *n_bytes = (uint64_t)status.st_size;
    return VECDB_OK;
}

static int fail_truncated(struct vdb_file *file, uint64_t end, uint64_t expected, vecdb_error *err)
{
    return vdb_fail(err, VECDB_CORRUPT, "%s ends at byte %llu, %llu were expected: the file is truncated",
                    vdb_path_tail(file->path), (unsigned long long)end, (unsigned long long)expected);
}

/* Are the bytes in the system's cache? Then they are read, and stay there. Where one cannot ask, nothing is
 * known of them, and they stay too. */
static bool read_from_cache(struct vdb_file *file, uint64_t offset, void *into, size_t n_bytes, bool *is_known)
{
    *is_known = false;
#ifdef RWF_NOWAIT
    struct iovec where = {into, n_bytes};
    ssize_t n = preadv2(posix(file)->descriptor, &where, 1, (off_t)offset, RWF_NOWAIT);
    *is_known = n >= 0 || errno == EAGAIN;
    return n >= 0 && (size_t)n == n_bytes;
#else
    (void)file, (void)offset, (void)into, (void)n_bytes;
    return false;
#endif
}

static int posix_read(struct vdb_file *file, uint64_t offset, void *into, size_t n_bytes, vecdb_error *err)
{
    if (!vdb_range_is_inside(offset, n_bytes, INT64_MAX))
        return vdb_fail(err, VECDB_CORRUPT, "%s cannot have %zu bytes at offset %llu", vdb_path_tail(file->path),
                        n_bytes, (unsigned long long)offset);
    size_t done = 0;
    bool is_known = false;
    if (posix(file)->is_scan && read_from_cache(file, offset, into, n_bytes, &is_known))
        return VECDB_OK;
    while (done < n_bytes) {
        size_t n_now = n_bytes - done < TRANSFER_LIMIT ? n_bytes - done : TRANSFER_LIMIT;
        ssize_t n = pread(posix(file)->descriptor, (char *)into + done, n_now, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return vdb_fail_os(err, errno, "cannot read %zu bytes at offset %llu of %s", n_bytes,
                               (unsigned long long)offset, vdb_path_tail(file->path));
        if (n == 0)
            return fail_truncated(file, offset + done, offset + n_bytes, err);
        done += (size_t)n;
    }
    if (is_known) /* a hint: whether it is taken does not matter */
        posix_fadvise(posix(file)->descriptor, (off_t)offset, (off_t)n_bytes, POSIX_FADV_DONTNEED);
    return VECDB_OK;
}

static int posix_read_many(struct vdb_file *file, const struct vdb_read *reads, size_t n_reads, vecdb_error *err)
{
    for (size_t i = 0; i < n_reads; i++) {
        int status = posix_read(file, reads[i].offset, reads[i].into, reads[i].n_bytes, err);
        if (status)
            return status;
    }
    return VECDB_OK;
}

static int fail_after_sync(struct vdb_file *file, vecdb_error *err)
{
    return vdb_fail(err, VECDB_IO, "%s cannot be written any more: an earlier sync of it failed",
                    vdb_path_tail(file->path));
}

static int posix_write(struct vdb_file *file, uint64_t offset, const void *bytes, size_t n_bytes, vecdb_error *err)
{
    if (posix(file)->sync_failed)
        return fail_after_sync(file, err);
    if (!vdb_range_is_inside(offset, n_bytes, INT64_MAX))
        return vdb_fail(err, VECDB_FULL, "%s cannot grow beyond 2^63 bytes", vdb_path_tail(file->path));
    size_t done = 0;
    while (done < n_bytes) {
        size_t n_now = n_bytes - done < TRANSFER_LIMIT ? n_bytes - done : TRANSFER_LIMIT;
        ssize_t n = pwrite(posix(file)->descriptor, (const char *)bytes + done, n_now, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) /* nothing moved and no reason given: the disk is full on the systems that do so */
            return vdb_fail_os(err, n < 0 ? errno : ENOSPC, "cannot write %zu bytes at offset %llu of %s", n_bytes,
                               (unsigned long long)offset, vdb_path_tail(file->path));
        done += (size_t)n;
    }
    return VECDB_OK;
}

static int posix_sync(struct vdb_file *file, vecdb_error *err)
{
    if (posix(file)->sync_failed)
        return fail_after_sync(file, err);
    int result;
    do
        result = fdatasync(posix(file)->descriptor);
    while (result && errno == EINTR);
    if (!result)
        return VECDB_OK;
    int os_error = errno;
    posix(file)->sync_failed = true;
    return vdb_fail_os(err, os_error, "cannot sync %s to the disk", vdb_path_tail(file->path));
}

static int posix_map(struct vdb_file *file, uint64_t offset, size_t n_bytes, const void **bytes, vecdb_error *err)
{
    struct posix_vfs *vfs = (struct posix_vfs *)file->vfs;
    if (!vfs->use_maps)
        return vdb_fail(err, VECDB_UNSUPPORTED, "maps are switched off for %s", vdb_path_tail(file->path));
    uint64_t size;
    int status = posix_size(file, &size, err);
    if (status)
        return status;
    /* A map beyond the end of the file can be had, and kills the process at the first touch. */
    if (!n_bytes || !vdb_range_is_inside(offset, n_bytes, size))
        return fail_truncated(file, size, offset + n_bytes, err);
    size_t lead = (size_t)(offset % vfs->page_bytes);
    void *start = mmap(NULL, lead + n_bytes, PROT_READ, MAP_SHARED, posix(file)->descriptor, (off_t)(offset - lead));
    if (start != MAP_FAILED) {
        *bytes = (const char *)start + lead;
        return VECDB_OK;
    }
    int os_error = errno;
    /* No such thing here, or no room for another map: reading still works. */
    if (os_error == ENODEV || os_error == ENOMEM || os_error == EAGAIN || os_error == ENOSYS)
        return vdb_fail(err, VECDB_UNSUPPORTED, "%s cannot be mapped", vdb_path_tail(file->path));
    return vdb_fail_os(err, os_error, "cannot map %zu bytes at offset %llu of %s", n_bytes, (unsigned long long)offset,
                       vdb_path_tail(file->path));
}

static void posix_unmap(struct vdb_vfs *vfs, const void *bytes, size_t n_bytes)
{
    size_t lead = (uintptr_t)bytes % ((struct posix_vfs *)vfs)->page_bytes;
    munmap((char *)(uintptr_t)bytes - lead, lead + n_bytes);
}

static int posix_remove(struct vdb_vfs *vfs, const char *path, vecdb_error *err)
{
    (void)vfs;
    if (unlink(path) && errno != ENOENT)
        return vdb_fail_os(err, errno, "cannot remove %s", vdb_path_tail(path));
    return VECDB_OK;
}

static int posix_kind(struct vdb_vfs *vfs, const char *path, enum vdb_path_kind *kind, vecdb_error *err)
{
    (void)vfs;
    struct stat status;
    if (stat(path, &status)) {
        if (errno != ENOENT && errno != ENOTDIR)
            return vdb_fail_os(err, errno, "cannot look at %s", vdb_path_tail(path));
        /* nothing; or a link that leads nowhere, which is of another kind; or what somebody has made just now */
        if (lstat(path, &status)) {
            *kind = VDB_PATH_MISSING;
            return VECDB_OK;
        }
    }
    *kind = S_ISREG(status.st_mode) ? VDB_PATH_FILE : S_ISDIR(status.st_mode) ? VDB_PATH_DIRECTORY : VDB_PATH_OTHER;
    return VECDB_OK;
}

static int posix_make_directory(struct vdb_vfs *vfs, const char *path, vecdb_error *err)
{
    (void)vfs;
    if (!mkdir(path, 0777))
        return VECDB_OK;
    int os_error = errno;
    struct stat status;
    if (os_error != EEXIST)
        return vdb_fail_os(err, os_error, "cannot make the directory %s", vdb_path_tail(path));
    if (stat(path, &status) || !S_ISDIR(status.st_mode))
        return vdb_fail(err, VECDB_INVALID, "cannot make the directory %s: there is something else of that name",
                        vdb_path_tail(path));
    return VECDB_OK;
}

static int posix_sync_directory(struct vdb_vfs *vfs, const char *path, vecdb_error *err)
{
    (void)vfs;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return vdb_fail_os(err, errno, "cannot open the directory %s", vdb_path_tail(path));
    /* EINVAL: a file system without such a thing, which then keeps names as it keeps them. */
    int os_error = fsync(fd) && errno != EINVAL ? errno : 0;
    close(fd);
    if (os_error)
        return vdb_fail_os(err, os_error, "cannot sync the directory %s", vdb_path_tail(path));
    return VECDB_OK;
}

static int posix_remove_directory(struct vdb_vfs *vfs, const char *path, vecdb_error *err)
{
    (void)vfs;
    if (rmdir(path) && errno != ENOENT)
        return vdb_fail_os(err, errno, "cannot remove the directory %s", vdb_path_tail(path));
    return VECDB_OK;
}

static int posix_link(struct vdb_vfs *vfs, const char *from, const char *to, vecdb_error *err)
{
    (void)vfs;
    if (!link(from, to))
        return VECDB_OK;
    int os_error = errno;
    if (os_error == EXDEV || os_error == EPERM || os_error == EMLINK || os_error == EOPNOTSUPP || os_error == ENOSYS)
        return vdb_fail(err, VECDB_UNSUPPORTED, "%s cannot have a second name as %s: %s", vdb_path_tail(from),
                        vdb_path_tail(to), strerror(os_error));
    if (os_error == EEXIST)
        return vdb_fail(err, VECDB_EXISTS, "cannot link %s to %s: it exists already", vdb_path_tail(from),
                        vdb_path_tail(to));
    return vdb_fail_os(err, os_error, "cannot link %s to %s", vdb_path_tail(from), vdb_path_tail(to));
}

static int fail_rename(const char *from, const char *to, int os_error, vecdb_error *err)
{
    if (os_error == EEXIST || os_error == ENOTEMPTY)
        return vdb_fail(err, VECDB_EXISTS, "cannot rename %s to %s: it exists already", vdb_path_tail(from),
                        vdb_path_tail(to));
    return vdb_fail_os(err, os_error, "cannot rename %s to %s", vdb_path_tail(from), vdb_path_tail(to));
}

/* Where the system cannot refuse to replace, we look first: whoever renames holds the database alone. */
static int posix_rename(struct vdb_vfs *vfs, const char *from, const char *to, vecdb_error *err)
{
    (void)vfs;
#ifdef RENAME_NOREPLACE
    if (!renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE))
        return VECDB_OK;
    if (errno != EINVAL && errno != ENOSYS)
        return fail_rename(from, to, errno, err);
#endif
    struct stat status;
    int os_error = lstat(to, &status) ? 0 : EEXIST;
    if (!os_error && rename(from, to))
        os_error = errno;
    return os_error ? fail_rename(from, to, os_error, err) : VECDB_OK;
}

static int posix_list(struct vdb_vfs *vfs, const char *path, bool (*each)(void *context, const char *name),
                      void *context, vecdb_error *err)
{
    (void)vfs;
    DIR *directory = opendir(path);
    if (!directory)
        return vdb_fail_os(err, errno, "cannot list the directory %s", vdb_path_tail(path));
    struct dirent *entry;
    while (errno = 0, (entry = readdir(directory))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        if (!each(context, entry->d_name)) {
            errno = 0;
            break;
        }
    }
    int os_error = errno;
    closedir(directory);
    if (os_error)
        return vdb_fail_os(err, os_error, "cannot list the directory %s", vdb_path_tail(path));
    return VECDB_OK;
}

static void posix_end(struct vdb_vfs *vfs)
{
    if (vfs)
        vdb_free(vfs->memory, vfs);
}

int vdb_vfs_posix(struct vdb_memory *memory, bool use_maps, struct vdb_vfs **vfs, vecdb_error *err)
{
    struct posix_vfs *made = vdb_alloc_zero(memory, sizeof *made);
    if (!made)
        return vdb_fail_memory(err, sizeof *made);
    made->use_maps = use_maps;
    made->page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    made->base = (struct vdb_vfs){
        .name = "posix",
        .memory = memory,
        .open = posix_open,
        .close = posix_close,
        .size = posix_size,
        .read = posix_read,
        .read_many = posix_read_many,
        .write = posix_write,
        .sync = posix_sync,
        .map = posix_map,
        .unmap = posix_unmap,
        .remove = posix_remove,
        .kind = posix_kind,
        .make_directory = posix_make_directory,
        .sync_directory = posix_sync_directory,
        .remove_directory = posix_remove_directory,
        .link = posix_link,
        .rename = posix_rename,
        .list = posix_list,
        .end = posix_end,
    };
    *vfs = &made->base;
    return VECDB_OK;
}
