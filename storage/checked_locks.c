/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/checked_locks.c - the locks of a catalog, and the WAL's index (see checked_locks.h)
 *
 * The bytes are those of SQLite's file format:
 *
 *     main file   2^30 PENDING | + 1 RESERVED | + 2 ... + 511 SHARED
 *     -shm file   120 ... 127 the WAL's eight locks | 128 "in use", held shared by all that have it open
 *
 * The first to open a -shm file (nobody holds 128) cuts it, because what is in it was left by processes
 * that are gone; SQLite then rebuilds it from the WAL.
 *
 * The index is mapped by a descriptor that is closed again at once: a mapping keeps its open file description
 * alive, with all locks, in a child of a fork too. So no lock is ever set on that description.
 *
 * Costs: two more descriptors for a connection, and 32 KiB of address space for each 4,096 frames of WAL. A
 * read transaction takes and gives back one lock, two system calls, as with SQLite's own VFS.
 *
 * Rejected: to leave the locks to SQLite and refuse to open in a child (web servers that fork workers open
 * before and after); to make the child's names differ, so that SQLite's record does not match (it goes by inode).
 */
#include "checked_locks.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lock_file.h"

#define PENDING_BYTE 0x40000000
#define RESERVED_BYTE (PENDING_BYTE + 1)
#define SHARED_FIRST (PENDING_BYTE + 2)
#define SHARED_BYTES 510
#define INDEX_LOCKS 120
#define INDEX_IN_USE 128
#define SYSTEM_PAGE 4096 /* the step in which a file is filled: no system has smaller pages */

sqlite3_vfs *vdb_locks_base(void)
{
#ifdef F_OFD_SETLK
    sqlite3_vfs *standard = sqlite3_vfs_find(NULL);
    return standard && !strcmp(standard->zName, "unix") ? sqlite3_vfs_find("unix-none") : NULL;
#else
    return NULL;
#endif
}

/* ---- fork */

/* SQLite's mutexes of the whole process, in an order in which SQLite itself takes them. A child of a fork that
 * finds one locked, by a thread that it does not have, would wait for ever. */
static const int fork_mutexes[] = {SQLITE_MUTEX_STATIC_VFS1, SQLITE_MUTEX_STATIC_VFS2, SQLITE_MUTEX_STATIC_VFS3,
                                   SQLITE_MUTEX_STATIC_OPEN, SQLITE_MUTEX_STATIC_PRNG, SQLITE_MUTEX_STATIC_MASTER,
                                   SQLITE_MUTEX_STATIC_LRU,  SQLITE_MUTEX_STATIC_PMEM, SQLITE_MUTEX_STATIC_MEM};
#define N_FORK_MUTEXES ((int)(sizeof fork_mutexes / sizeof *fork_mutexes))

static void before_fork(void)
{
    for (int i = 0; i < N_FORK_MUTEXES; i++)
        sqlite3_mutex_enter(sqlite3_mutex_alloc(fork_mutexes[i])); /* static ones: nothing is allocated */
}

static void after_fork(void)
{
    for (int i = N_FORK_MUTEXES - 1; i >= 0; i--)
        sqlite3_mutex_leave(sqlite3_mutex_alloc(fork_mutexes[i]));
}

static void watch_forks(void)
{
    pthread_atfork(before_fork, after_fork, after_fork);
}

void vdb_locks_watch_forks(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
}

/* ---- the main file */

static int code_of(int os_error)
{
    if (!os_error)
        return SQLITE_OK;
    return os_error == EAGAIN ? SQLITE_BUSY : SQLITE_IOERR_LOCK;
}

int vdb_locks_init(struct vdb_locks *locks, struct vdb_memory *memory, const char *name, bool readonly)
{
    size_t room = strlen(name) + sizeof "-shm";
    *locks = (struct vdb_locks){.memory = memory, .name = name, .fd = -1, .index_fd = -1};
    if (!(locks->index_path = vdb_alloc(memory, room)))
        return SQLITE_NOMEM;
    snprintf(locks->index_path, room, "%s-shm", name);
    int os_error = vdb_lock_file_open(name, readonly ? O_RDONLY : O_RDWR, 0, &locks->fd);
    if (!os_error)
        return SQLITE_OK;
    vdb_locks_release(locks);
    errno = os_error; /* SQLite asks what it was */
    return SQLITE_CANTOPEN;
}

void vdb_locks_release(struct vdb_locks *locks)
{
    vdb_locks_shm_unmap(locks, false);
    vdb_lock_file_close(locks->fd);
    vdb_free(locks->memory, locks->index_path);
    locks->index_path = NULL;
    locks->fd = -1;
}

static int take_shared(int fd)
{
    int os_error = vdb_lock_file_set(fd, F_RDLCK, PENDING_BYTE, 1); /* a writer that waits goes first */
    if (os_error)
        return os_error;
    os_error = vdb_lock_file_set(fd, F_RDLCK, SHARED_FIRST, SHARED_BYTES);
    vdb_lock_file_set(fd, F_UNLCK, PENDING_BYTE, 1);
    return os_error;
}

int vdb_locks_raise(struct vdb_locks *locks, int level)
{
    int os_error = 0;
    if (locks->level >= level)
        return SQLITE_OK;
    if (level == SQLITE_LOCK_SHARED)
        os_error = take_shared(locks->fd);
    else if (level == SQLITE_LOCK_RESERVED)
        os_error = vdb_lock_file_set(locks->fd, F_WRLCK, RESERVED_BYTE, 1);
    else if (locks->level < SQLITE_LOCK_PENDING) {
        os_error = vdb_lock_file_set(locks->fd, F_WRLCK, PENDING_BYTE, 1);
        if (!os_error)
            locks->level = SQLITE_LOCK_PENDING;
    }
    if (!os_error && level == SQLITE_LOCK_EXCLUSIVE)
        os_error = vdb_lock_file_set(locks->fd, F_WRLCK, SHARED_FIRST, SHARED_BYTES);
    if (!os_error)
        locks->level = level;
    return code_of(os_error);
}

int vdb_locks_lower(struct vdb_locks *locks, int level)
{
    int os_error = 0;
    if (locks->level <= level)
        return SQLITE_OK;
    if (level == SQLITE_LOCK_SHARED) {
        if (locks->level == SQLITE_LOCK_EXCLUSIVE)
            os_error = vdb_lock_file_set(locks->fd, F_RDLCK, SHARED_FIRST, SHARED_BYTES);
        if (!os_error)
            os_error = vdb_lock_file_set(locks->fd, F_UNLCK, PENDING_BYTE, 2);
    } else {
        os_error = vdb_lock_file_set(locks->fd, F_UNLCK, PENDING_BYTE, 2 + SHARED_BYTES);
    }
    locks->level = level;
    return os_error ? SQLITE_IOERR_UNLOCK : SQLITE_OK;
}

int vdb_locks_reserved(struct vdb_locks *locks, int *is_reserved)
{
    short type = F_WRLCK;
    int os_error = locks->level < SQLITE_LOCK_RESERVED ? vdb_lock_file_test(locks->fd, RESERVED_BYTE, 1, &type) : 0;
    *is_reserved = type != F_UNLCK;
    return os_error ? SQLITE_IOERR_CHECKRESERVEDLOCK : SQLITE_OK;
}

/* ---- the WAL's index */

/* With the permissions and, where we may, the owner of the main file, so that whoever can use that can use this. */
static int make_like_main(struct vdb_locks *locks, const struct stat *main)
{
    struct stat status;
    int os_error = vdb_lock_file_open(locks->index_path, O_RDWR | O_CREAT, main->st_mode & 0777, &locks->index_fd);
    if (os_error)
        return os_error;
    if (!fstat(locks->index_fd, &status) && !status.st_size && (status.st_mode & 0777) != (main->st_mode & 0777))
        (void)!fchmod(locks->index_fd, main->st_mode & 0777);
    if (!geteuid())
        (void)!fchown(locks->index_fd, main->st_uid, main->st_gid);
    return 0;
}

/* Byte 128: shared by all who have the file open. */
static int join_index(struct vdb_locks *locks)
{
    short in_the_way;
    if (vdb_lock_file_test(locks->index_fd, INDEX_IN_USE, 1, &in_the_way))
        return SQLITE_IOERR_LOCK;
    locks->index_is_alone = in_the_way == F_UNLCK && locks->index_is_readonly;
    if (locks->index_is_alone)
        return SQLITE_READONLY_CANTINIT;
    if (in_the_way == F_WRLCK)
        return SQLITE_BUSY; /* somebody is first just now */
    if (in_the_way == F_UNLCK) {
        int os_error = vdb_lock_file_set(locks->index_fd, F_WRLCK, INDEX_IN_USE, 1);
        if (os_error)
            return code_of(os_error);
        if (ftruncate(locks->index_fd, 0))
            return SQLITE_IOERR_SHMOPEN;
    }
    return code_of(vdb_lock_file_set(locks->index_fd, F_RDLCK, INDEX_IN_USE, 1));
}

static int open_index(struct vdb_locks *locks)
{
    struct stat main;
    if (fstat(locks->fd, &main))
        return SQLITE_IOERR_FSTAT;
    bool readonly = sqlite3_uri_boolean(locks->name, "readonly_shm", 0);
    if (readonly || make_like_main(locks, &main)) {
        locks->index_fd = -1;
        if ((errno = vdb_lock_file_open(locks->index_path, O_RDONLY, 0, &locks->index_fd)))
            return SQLITE_CANTOPEN;
        locks->index_is_readonly = true;
    }
    int rc = join_index(locks);
    if (rc && rc != SQLITE_READONLY_CANTINIT) {
        vdb_lock_file_close(locks->index_fd);
        locks->index_fd = -1;
        locks->index_is_readonly = false;
    }
    return rc;
}

/* Regions in one mapping: a mapping begins at a page of the system, which may be larger than a region. */
static int regions_per_map(int n_bytes)
{
    long page = sysconf(_SC_PAGESIZE);
    return page > n_bytes ? (int)(page / n_bytes) : 1;
}

/* Make the file long enough, every page of it: a hole would be a signal on a full disk. SQLITE_OK and
 * *is_there false: it is not, and may not be made so. */
static int fill_index(struct vdb_locks *locks, off_t n_wanted, bool extend, bool *is_there)
{
    struct stat status;
    if (fstat(locks->index_fd, &status))
        return SQLITE_IOERR_SHMSIZE;
    *is_there = status.st_size >= n_wanted;
    if (*is_there || !extend)
        return SQLITE_OK;
    for (off_t at = status.st_size / SYSTEM_PAGE * SYSTEM_PAGE; at < n_wanted; at += SYSTEM_PAGE) {
        ssize_t n;
        do
            n = pwrite(locks->index_fd, "", 1, at + SYSTEM_PAGE - 1);
        while (n < 0 && errno == EINTR);
        if (n != 1)
            return SQLITE_IOERR_SHMSIZE;
    }
    *is_there = true;
    return SQLITE_OK;
}

static int map_regions(struct vdb_locks *locks, int n_bytes, int n_regions)
{
    struct stat opened, locked;
    int per_map = regions_per_map(n_bytes), rc = SQLITE_OK;
    void **regions = vdb_realloc_array(locks->memory, locks->regions, (size_t)n_regions, sizeof *regions);
    if (!regions)
        return SQLITE_NOMEM;
    locks->regions = regions;
    locks->region_bytes = n_bytes;
    int fd = open(locks->index_path, (locks->index_is_readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return SQLITE_IOERR_SHMMAP;
    if (fstat(fd, &opened) || fstat(locks->index_fd, &locked) || opened.st_ino != locked.st_ino)
        rc = SQLITE_IOERR_SHMMAP; /* replaced, by whomever */
    while (!rc && locks->n_regions < n_regions) {
        void *map = mmap(NULL, (size_t)n_bytes * (size_t)per_map,
                         locks->index_is_readonly ? PROT_READ : PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                         (off_t)n_bytes * locks->n_regions);
        if (map == MAP_FAILED) {
            rc = SQLITE_IOERR_SHMMAP;
            break;
        }
        for (int i = 0; i < per_map; i++)
            regions[locks->n_regions++] = (char *)map + (size_t)i * (size_t)n_bytes;
    }
    close(fd);
    return rc;
}

int vdb_locks_shm_map(struct vdb_locks *locks, int region, int n_bytes, int extend, void volatile **at)
{
    int rc = SQLITE_OK, per_map = regions_per_map(n_bytes), n_wanted = (region / per_map + 1) * per_map;
    bool is_there = true;
    *at = NULL;
    if (locks->index_fd < 0)
        rc = open_index(locks);
    else if (locks->index_is_alone)
        rc = join_index(locks);
    if (rc)
        return rc;
    if (region >= locks->n_regions)
        rc = fill_index(locks, (off_t)n_wanted * n_bytes, extend, &is_there);
    if (!rc && is_there && region >= locks->n_regions)
        rc = map_regions(locks, n_bytes, n_wanted);
    if (region < locks->n_regions)
        *at = locks->regions[region];
    return !rc && locks->index_is_readonly ? SQLITE_READONLY : rc;
}

int vdb_locks_shm_lock(struct vdb_locks *locks, int offset, int n, int flags)
{
    if (locks->index_fd < 0)
        return SQLITE_IOERR_SHMLOCK;
    short type = flags & SQLITE_SHM_UNLOCK ? F_UNLCK : flags & SQLITE_SHM_SHARED ? F_RDLCK : F_WRLCK;
    int os_error = vdb_lock_file_set(locks->index_fd, type, INDEX_LOCKS + offset, n);
    if (os_error == EAGAIN || os_error == EBADF) /* a write lock on what was opened for reading: it goes on without */
        return SQLITE_BUSY;
    return os_error ? SQLITE_IOERR_SHMLOCK : SQLITE_OK; /* not BUSY, or it would be asked again for ten seconds */
}

void vdb_locks_shm_unmap(struct vdb_locks *locks, bool remove)
{
    int per_map = locks->n_regions ? regions_per_map(locks->region_bytes) : 1;
    for (int i = 0; i < locks->n_regions; i += per_map)
        munmap(locks->regions[i], (size_t)locks->region_bytes * (size_t)per_map);
    vdb_free(locks->memory, locks->regions);
    locks->regions = NULL;
    locks->n_regions = 0;
    if (locks->index_fd >= 0 && remove && !vdb_lock_file_set(locks->index_fd, F_WRLCK, INDEX_IN_USE, 1))
        unlink(locks->index_path);
    vdb_lock_file_close(locks->index_fd);
    locks->index_fd = -1;
    locks->index_is_readonly = locks->index_is_alone = false;
}
