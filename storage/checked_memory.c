/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/checked_memory.c - a VFS for SQLite whose files are memory of this process
 *
 * SQLite's own ":memory:" is one connection's alone; a database handle has many (a writer, readers on
 * threads). So ":memory:" uses the same code as a directory, over this VFS: named files, their locks, and
 * the WAL's shared memory.
 *
 *     vfs -> node "catalog.sqlite"       bytes, lock level, WAL index regions, WAL locks
 *         -> node "catalog.sqlite-wal"   bytes
 *
 * Invariants
 *   1. A node lives while it is linked (has a name that can be opened) or open. Nodes that are linked stay
 *      until the VFS is freed: closing the last connection loses nothing.
 *   2. A region of the WAL's index never moves while anyone has it mapped.
 *   3. `mutex` guards names, locks and regions; a node's `content` guards its bytes, so that readers copy
 *      pages at once. Neither is held while the other is taken, except content within mutex.
 *
 * Rejected: sqlite3_deserialize and shared cache (table locks, and SQLITE_LOCKED in place of waiting).
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/error.h"
#include "checked.h"

#define LONGEST_NAME 512
#define N_SHM_LOCKS SQLITE_SHM_NLOCK

struct node {
    struct node *next; /* in the VFS, while linked */
    char *name;        /* NULL: a temporary file */
    bool linked;
    int n_open;
    pthread_rwlock_t content;
    unsigned char *bytes;
    size_t size, capacity;
    /* the file's lock: many SHARED, one of RESERVED and above */
    int n_shared;
    const struct memory_file *writer;
    bool pending, exclusive;
    /* the WAL's index */
    void **regions;
    int n_regions, n_mapped; /* n_mapped: connections that use it */
    int shm_shared[N_SHM_LOCKS];
    const struct memory_file *shm_exclusive[N_SHM_LOCKS];
};

struct memory_vfs {
    sqlite3_vfs vfs;
    struct vdb_memory *memory;
    sqlite3_vfs *system; /* for time, sleep and random numbers */
    pthread_mutex_t mutex;
    struct node *nodes;
    _Atomic unsigned n_barriers;
};

struct memory_file {
    sqlite3_file file;
    struct memory_vfs *vfs;
    struct node *node;
    int level;
    bool remove_at_close;
    bool mapped;
    unsigned shm_shared; /* bits of the WAL locks it holds */
};

static struct memory_file *memory_of(sqlite3_file *file)
{
    return (struct memory_file *)(void *)file;
}

static struct memory_vfs *vfs_of(sqlite3_vfs *vfs)
{
    return vfs->pAppData;
}

/* ---- nodes */

static struct node *find_node(struct memory_vfs *vfs, const char *name)
{
    struct node *node = vfs->nodes;
    while (node && strcmp(node->name, name))
        node = node->next;
    return node;
}

static void free_node(struct memory_vfs *vfs, struct node *node)
{
    for (int i = 0; i < node->n_regions; i++)
        vdb_free(vfs->memory, node->regions[i]);
    vdb_free(vfs->memory, node->regions);
    vdb_free(vfs->memory, node->bytes);
    vdb_free(vfs->memory, node->name);
    pthread_rwlock_destroy(&node->content);
    vdb_free(vfs->memory, node);
}

static struct node *make_node(struct memory_vfs *vfs, const char *name)
{
    struct node *node = vdb_alloc_zero(vfs->memory, sizeof *node);
    if (!node)
        return NULL;
    pthread_rwlock_init(&node->content, NULL);
    if (name && !(node->name = vdb_strdup(vfs->memory, name, strlen(name)))) {
        free_node(vfs, node);
        return NULL;
    }
    if (name) {
        node->linked = true;
        node->next = vfs->nodes;
        vfs->nodes = node;
    }
    return node;
}

static void unlink_node(struct memory_vfs *vfs, struct node *node)
{
    struct node **at = &vfs->nodes;
    while (*at && *at != node)
        at = &(*at)->next;
    if (*at)
        *at = node->next;
    node->linked = false;
    if (!node->n_open)
        free_node(vfs, node);
}

/* ---- bytes */

static int memory_read(sqlite3_file *self, void *into, int n_bytes, sqlite3_int64 offset)
{
    struct node *node = memory_of(self)->node;
    pthread_rwlock_rdlock(&node->content);
    size_t there = (size_t)offset < node->size ? node->size - (size_t)offset : 0;
    size_t n = there < (size_t)n_bytes ? there : (size_t)n_bytes;
    if (n)
        memcpy(into, node->bytes + offset, n);
    pthread_rwlock_unlock(&node->content);
    if (n == (size_t)n_bytes)
        return SQLITE_OK;
    memset((char *)into + n, 0, (size_t)n_bytes - n);
    return SQLITE_IOERR_SHORT_READ;
}

/* Grown by half each time, so that n appends copy O(n) bytes. */
static int reserve(struct memory_vfs *vfs, struct node *node, size_t size)
{
    if (size <= node->capacity)
        return SQLITE_OK;
    size_t capacity = node->capacity + node->capacity / 2;
    if (capacity < size)
        capacity = size + 16384;
    unsigned char *bytes = vdb_realloc(vfs->memory, node->bytes, capacity);
    if (!bytes)
        return SQLITE_IOERR_NOMEM;
    node->bytes = bytes;
    node->capacity = capacity;
    return SQLITE_OK;
}

static int memory_write(sqlite3_file *self, const void *bytes, int n_bytes, sqlite3_int64 offset)
{
    struct node *node = memory_of(self)->node;
    size_t end = (size_t)offset + (size_t)n_bytes;
    pthread_rwlock_wrlock(&node->content);
    int rc = reserve(memory_of(self)->vfs, node, end);
    if (!rc) {
        if ((size_t)offset > node->size)
            memset(node->bytes + node->size, 0, (size_t)offset - node->size);
        memcpy(node->bytes + offset, bytes, (size_t)n_bytes);
        if (end > node->size)
            node->size = end;
    }
    pthread_rwlock_unlock(&node->content);
    return rc;
}

static int memory_truncate(sqlite3_file *self, sqlite3_int64 size)
{
    struct node *node = memory_of(self)->node;
    pthread_rwlock_wrlock(&node->content);
    int rc = reserve(memory_of(self)->vfs, node, (size_t)size);
    if (!rc) {
        if ((size_t)size > node->size)
            memset(node->bytes + node->size, 0, (size_t)size - node->size);
        node->size = (size_t)size;
    }
    pthread_rwlock_unlock(&node->content);
    return rc;
}

static int memory_sync(sqlite3_file *self, int flags)
{
    (void)self;
    (void)flags;
    return SQLITE_OK;
}

static int memory_size(sqlite3_file *self, sqlite3_int64 *size)
{
    struct node *node = memory_of(self)->node;
    pthread_rwlock_rdlock(&node->content);
    *size = (sqlite3_int64)node->size;
    pthread_rwlock_unlock(&node->content);
    return SQLITE_OK;
}

/* ---- the file's lock */

static int try_level(struct node *node, const struct memory_file *file, int level)
{
    bool others_write = node->writer && node->writer != file;
    if (level == SQLITE_LOCK_SHARED)
        return others_write && (node->pending || node->exclusive) ? SQLITE_BUSY : SQLITE_OK;
    if (others_write)
        return SQLITE_BUSY;
    node->writer = file;
    if (level == SQLITE_LOCK_EXCLUSIVE) {
        node->pending = true; /* no new readers, also when we have to wait for old ones */
        if (node->n_shared > 1)
            return SQLITE_BUSY;
        node->exclusive = true;
    }
    return SQLITE_OK;
}

static int memory_lock(sqlite3_file *self, int level)
{
    struct memory_file *file = memory_of(self);
    if (file->level >= level)
        return SQLITE_OK;
    pthread_mutex_lock(&file->vfs->mutex);
    int rc = try_level(file->node, file, level);
    if (!rc && level == SQLITE_LOCK_SHARED)
        file->node->n_shared++;
    if (!rc)
        file->level = level;
    else if (file->node->writer == file)
        file->level = SQLITE_LOCK_PENDING;
    pthread_mutex_unlock(&file->vfs->mutex);
    return rc;
}

static int memory_unlock(sqlite3_file *self, int level)
{
    struct memory_file *file = memory_of(self);
    if (file->level <= level)
        return SQLITE_OK;
    pthread_mutex_lock(&file->vfs->mutex);
    if (file->node->writer == file) {
        file->node->writer = NULL;
        file->node->pending = file->node->exclusive = false;
    }
    if (level == SQLITE_LOCK_NONE)
        file->node->n_shared--;
    file->level = level;
    pthread_mutex_unlock(&file->vfs->mutex);
    return SQLITE_OK;
}

static int memory_check_reserved_lock(sqlite3_file *self, int *reserved)
{
    struct memory_file *file = memory_of(self);
    pthread_mutex_lock(&file->vfs->mutex);
    *reserved = file->node->writer != NULL;
    pthread_mutex_unlock(&file->vfs->mutex);
    return SQLITE_OK;
}

static int memory_control(sqlite3_file *self, int op, void *argument)
{
    (void)self;
    (void)op;
    (void)argument;
    return SQLITE_NOTFOUND;
}

static int memory_sector_size(sqlite3_file *self)
{
    (void)self;
    return VDB_CATALOG_PAGE_BYTES;
}

static int memory_device_characteristics(sqlite3_file *self)
{
    (void)self;
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE | SQLITE_IOCAP_SAFE_APPEND | SQLITE_IOCAP_SEQUENTIAL;
}

/* ---- the WAL's index and its locks */

static int add_regions(struct memory_vfs *vfs, struct node *node, int n, int n_bytes)
{
    void **regions = vdb_realloc_array(vfs->memory, node->regions, (size_t)n, sizeof *regions);
    if (!regions)
        return SQLITE_NOMEM;
    node->regions = regions;
    while (node->n_regions < n) {
        void *region = vdb_alloc_zero(vfs->memory, (size_t)n_bytes);
        if (!region)
            return SQLITE_NOMEM;
        regions[node->n_regions++] = region;
    }
    return SQLITE_OK;
}

static int memory_shm_map(sqlite3_file *self, int region, int n_bytes, int extend, void volatile **at)
{
    struct memory_file *file = memory_of(self);
    struct node *node = file->node;
    int rc = SQLITE_OK;
    *at = NULL;
    pthread_mutex_lock(&file->vfs->mutex);
    if (!file->mapped) {
        file->mapped = true;
        node->n_mapped++;
    }
    if (region >= node->n_regions && extend)
        rc = add_regions(file->vfs, node, region + 1, n_bytes);
    if (!rc && region < node->n_regions)
        *at = node->regions[region];
    pthread_mutex_unlock(&file->vfs->mutex);
    return rc;
}

static void shm_unlock(struct memory_file *file, int i)
{
    if (file->node->shm_exclusive[i] == file)
        file->node->shm_exclusive[i] = NULL;
    if (file->shm_shared & 1u << i) {
        file->shm_shared &= ~(1u << i);
        file->node->shm_shared[i]--;
    }
}

/* May `file` have WAL lock i? */
static bool shm_free(const struct memory_file *file, int i, bool shared)
{
    const struct node *node = file->node;
    if (node->shm_exclusive[i] && node->shm_exclusive[i] != file)
        return false;
    int own = file->shm_shared >> i & 1u;
    return shared || node->shm_shared[i] == own;
}

static int memory_shm_lock(sqlite3_file *self, int offset, int n, int flags)
{
    struct memory_file *file = memory_of(self);
    bool shared = flags & SQLITE_SHM_SHARED;
    int rc = SQLITE_OK;
    pthread_mutex_lock(&file->vfs->mutex);
    for (int i = offset; i < offset + n && flags & SQLITE_SHM_LOCK; i++)
        if (!shm_free(file, i, shared))
            rc = SQLITE_BUSY;
    for (int i = offset; i < offset + n && !rc; i++) {
        if (flags & SQLITE_SHM_UNLOCK) {
            shm_unlock(file, i);
        } else if (!shared) {
            file->node->shm_exclusive[i] = file;
        } else if (!(file->shm_shared & 1u << i)) {
            file->shm_shared |= 1u << i;
            file->node->shm_shared[i]++;
        }
    }
    pthread_mutex_unlock(&file->vfs->mutex);
    return rc;
}

static void memory_shm_barrier(sqlite3_file *self)
{
    atomic_fetch_add(&memory_of(self)->vfs->n_barriers, 1); /* sequentially consistent, as a fence is */
}

static void unmap(struct memory_file *file)
{
    struct node *node = file->node;
    if (!file->mapped)
        return;
    file->mapped = false;
    for (int i = 0; i < N_SHM_LOCKS; i++)
        shm_unlock(file, i);
    if (--node->n_mapped)
        return;
    for (int i = 0; i < node->n_regions; i++)
        vdb_free(file->vfs->memory, node->regions[i]);
    node->n_regions = 0;
}

static int memory_shm_unmap(sqlite3_file *self, int remove)
{
    (void)remove;
    pthread_mutex_lock(&memory_of(self)->vfs->mutex);
    unmap(memory_of(self));
    pthread_mutex_unlock(&memory_of(self)->vfs->mutex);
    return SQLITE_OK;
}

static int memory_close(sqlite3_file *self)
{
    struct memory_file *file = memory_of(self);
    struct memory_vfs *vfs = file->vfs;
    memory_unlock(self, SQLITE_LOCK_NONE);
    pthread_mutex_lock(&vfs->mutex);
    unmap(file);
    struct node *node = file->node;
    node->n_open--;
    if (node->linked && file->remove_at_close)
        unlink_node(vfs, node);
    else if (!node->linked && !node->n_open)
        free_node(vfs, node);
    pthread_mutex_unlock(&vfs->mutex);
    return SQLITE_OK;
}

static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = memory_close,
    .xRead = memory_read,
    .xWrite = memory_write,
    .xTruncate = memory_truncate,
    .xSync = memory_sync,
    .xFileSize = memory_size,
    .xLock = memory_lock,
    .xUnlock = memory_unlock,
    .xCheckReservedLock = memory_check_reserved_lock,
    .xFileControl = memory_control,
    .xSectorSize = memory_sector_size,
    .xDeviceCharacteristics = memory_device_characteristics,
    .xShmMap = memory_shm_map,
    .xShmLock = memory_shm_lock,
    .xShmBarrier = memory_shm_barrier,
    .xShmUnmap = memory_shm_unmap,
};

/* ---- the VFS */

static int memory_open(sqlite3_vfs *self, const char *name, sqlite3_file *sqlite_file, int flags, int *out_flags)
{
    struct memory_vfs *vfs = vfs_of(self);
    struct memory_file *file = memory_of(sqlite_file);
    memset(file, 0, sizeof *file);
    pthread_mutex_lock(&vfs->mutex);
    struct node *node = name ? find_node(vfs, name) : NULL;
    int rc = SQLITE_OK;
    if (node && flags & SQLITE_OPEN_CREATE && flags & SQLITE_OPEN_EXCLUSIVE)
        rc = SQLITE_CANTOPEN;
    else if (!node && name && !(flags & SQLITE_OPEN_CREATE))
        rc = SQLITE_CANTOPEN;
    else if (!node && !(node = make_node(vfs, name)))
        rc = SQLITE_NOMEM;
    if (!rc) {
        node->n_open++;
        *file = (struct memory_file){
            .file = {&methods}, .vfs = vfs, .node = node, .remove_at_close = flags & SQLITE_OPEN_DELETEONCLOSE};
    }
    pthread_mutex_unlock(&vfs->mutex);
    if (!rc && out_flags)
        *out_flags = flags;
    return rc;
}

static int memory_delete(sqlite3_vfs *self, const char *name, int sync)
{
    struct memory_vfs *vfs = vfs_of(self);
    (void)sync;
    pthread_mutex_lock(&vfs->mutex);
    struct node *node = find_node(vfs, name);
    if (node)
        unlink_node(vfs, node);
    pthread_mutex_unlock(&vfs->mutex);
    return node ? SQLITE_OK : SQLITE_IOERR_DELETE_NOENT;
}

static int memory_access(sqlite3_vfs *self, const char *name, int flags, int *answer)
{
    struct memory_vfs *vfs = vfs_of(self);
    pthread_mutex_lock(&vfs->mutex);
    struct node *node = find_node(vfs, name);
    *answer = node != NULL;
    if (node && flags == SQLITE_ACCESS_EXISTS) { /* an empty file counts as none, as in SQLite's unix VFS */
        pthread_rwlock_rdlock(&node->content);
        *answer = node->size > 0;
        pthread_rwlock_unlock(&node->content);
    }
    pthread_mutex_unlock(&vfs->mutex);
    return SQLITE_OK;
}

static int memory_full_pathname(sqlite3_vfs *self, const char *name, int n_out, char *out)
{
    (void)self;
    int n = snprintf(out, (size_t)n_out, "%s", name);
    return n < n_out ? SQLITE_OK : SQLITE_CANTOPEN;
}

static int memory_randomness(sqlite3_vfs *self, int n_bytes, char *out)
{
    return vfs_of(self)->system->xRandomness(vfs_of(self)->system, n_bytes, out);
}

static int memory_sleep(sqlite3_vfs *self, int microseconds)
{
    return vfs_of(self)->system->xSleep(vfs_of(self)->system, microseconds);
}

static int memory_current_time(sqlite3_vfs *self, double *now)
{
    return vfs_of(self)->system->xCurrentTime(vfs_of(self)->system, now);
}

static int memory_get_last_error(sqlite3_vfs *self, int n_bytes, char *message)
{
    (void)self;
    if (n_bytes > 0)
        message[0] = '\0';
    return 0;
}

int vdb_memory_sqlite_vfs(struct vdb_memory *memory, sqlite3_vfs **out, vecdb_error *err)
{
    int rc = sqlite3_initialize();
    sqlite3_vfs *system = rc ? NULL : sqlite3_vfs_find(NULL);
    if (!system)
        return vdb_fail(err, VECDB_UNSUPPORTED, "this SQLite has no default VFS");
    struct memory_vfs *vfs = vdb_alloc_zero(memory, sizeof *vfs);
    if (!vfs)
        return vdb_fail_memory(err, sizeof *vfs);
    vfs->memory = memory;
    vfs->system = system;
    pthread_mutex_init(&vfs->mutex, NULL);
    vfs->vfs = (sqlite3_vfs){
        .iVersion = 1,
        .szOsFile = sizeof(struct memory_file),
        .mxPathname = LONGEST_NAME,
        .zName = "vecdb-memory",
        .pAppData = vfs,
        .xOpen = memory_open,
        .xDelete = memory_delete,
        .xAccess = memory_access,
        .xFullPathname = memory_full_pathname,
        .xRandomness = memory_randomness,
        .xSleep = memory_sleep,
        .xCurrentTime = memory_current_time,
        .xGetLastError = memory_get_last_error,
    };
    *out = &vfs->vfs;
    return VECDB_OK;
}

void vdb_memory_sqlite_vfs_free(sqlite3_vfs *self)
{
    if (!self)
        return;
    struct memory_vfs *vfs = vfs_of(self);
    while (vfs->nodes) {
        struct node *next = vfs->nodes->next;
        free_node(vfs, vfs->nodes);
        vfs->nodes = next;
    }
    pthread_mutex_destroy(&vfs->mutex);
    vdb_free(vfs->memory, vfs);
}
