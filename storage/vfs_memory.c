/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/vfs_memory.c - files that exist in one object only (see vfs.h)
 *
 * For ":memory:" and for tests. A file is a list of chunks that double in size, so that its bytes
 * never move and a map is a pointer to them:
 *
 *     chunk      0        1         2           3              ...  13, 14, ...
 *     bytes      64 KiB   64 KiB    128 KiB     256 KiB        ...  256 MiB each
 *     begins at  0        64 KiB    128 KiB     256 KiB
 *
 * A range that lies in two chunks cannot be mapped (UNSUPPORTED: the caller reads it). That is one
 * extent for each doubling. The last chunk is on average half empty, but its pages are not touched.
 *
 * Invariants
 *   1. chunks[i] is set before `n_bytes` says that the file reaches into it, and never changes:
 *      readers need no lock while one writer appends.
 *   2. A node lives as long as its name, an open file, or a map needs it (`n_uses`, under the lock).
 *
 * Rejected: one block that is reallocated (maps would move, or old copies would pile up); mmap of
 * reserved address space (memory that the application's allocator does not see).
 */
#include "vfs.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/error.h"

#define FIRST_CHUNK_BITS 16
#define LAST_CHUNK_BITS 28
#define N_CHUNKS 1024 /* 256 GiB */

struct node {
    struct node *next; /* in the vfs's list while it has a name */
    char *path;
    bool is_directory;
    unsigned n_uses;
    _Atomic uint64_t n_bytes;
    char *_Atomic chunks[N_CHUNKS];
};

struct map {
    struct map *next;
    const void *bytes;
    struct node *node;
};

struct memory_vfs {
    struct vdb_vfs base;
    pthread_mutex_t lock; /* of the lists and of n_uses */
    struct node *nodes;
    struct map *maps;
};

struct memory_file {
    struct vdb_file base;
    struct node *node;
};

static struct node *node_of(struct vdb_file *file)
{
    return ((struct memory_file *)file)->node;
}

/* The chunk of a byte, where in it the byte is, and how many bytes there are from it to the end. */
static size_t chunk_of(uint64_t offset, size_t *within, size_t *left)
{
    unsigned bits = FIRST_CHUNK_BITS;
    size_t chunk = 0;
    uint64_t begin = 0;
    if (offset >> LAST_CHUNK_BITS) {
        uint64_t number = offset >> LAST_CHUNK_BITS;
        bits = LAST_CHUNK_BITS;
        chunk = LAST_CHUNK_BITS - FIRST_CHUNK_BITS + (number < N_CHUNKS ? number : N_CHUNKS);
        begin = number << LAST_CHUNK_BITS;
    } else if (offset >> FIRST_CHUNK_BITS) {
        bits = 63 - (unsigned)__builtin_clzll(offset);
        chunk = bits - FIRST_CHUNK_BITS + 1;
        begin = (uint64_t)1 << bits;
    }
    *within = (size_t)(offset - begin);
    *left = ((size_t)1 << bits) - *within;
    return chunk;
}

static size_t chunk_bytes(size_t chunk)
{
    unsigned bits = FIRST_CHUNK_BITS + (chunk ? (unsigned)chunk - 1 : 0);
    return (size_t)1 << (bits < LAST_CHUNK_BITS ? bits : LAST_CHUNK_BITS);
}

static void free_node(struct vdb_memory *memory, struct node *node)
{
    for (size_t i = 0; i < N_CHUNKS; i++)
        vdb_free_aligned(memory, atomic_load_explicit(&node->chunks[i], memory_order_relaxed));
    vdb_free(memory, node->path);
    vdb_free(memory, node);
}

/* The lock is held for this one and the next three. */
static void drop_use(struct memory_vfs *vfs, struct node *node)
{
    assert(node->n_uses > 0);
    if (!--node->n_uses)
        free_node(vfs->base.memory, node);
}

static struct node *find_node(struct memory_vfs *vfs, const char *path)
{
    for (struct node *node = vfs->nodes; node; node = node->next)
        if (!strcmp(node->path, path))
            return node;
    return NULL;
}

/* A new node, used by its name. NULL: no memory. */
static struct node *add_node(struct memory_vfs *vfs, const char *path, bool is_directory)
{
    struct node *node = vdb_alloc_zero(vfs->base.memory, sizeof *node);
    char *copy = vdb_strdup(vfs->base.memory, path, strlen(path));
    if (!node || !copy) {
        vdb_free(vfs->base.memory, node);
        vdb_free(vfs->base.memory, copy);
        return NULL;
    }
    node->path = copy;
    node->is_directory = is_directory;
    node->n_uses = 1;
    node->next = vfs->nodes;
    vfs->nodes = node;
    return node;
}

static int find_or_create(struct memory_vfs *vfs, const char *path, int mode, struct node **node, vecdb_error *err)
{
    const char *name = vdb_path_tail(path);
    struct node *found = find_node(vfs, path);
    if (found && found->is_directory)
        return vdb_fail(err, VECDB_INVALID, "cannot open %s: it is not a regular file", name);
    if (found && mode == VDB_FILE_CREATE)
        return vdb_fail(err, VECDB_EXISTS, "cannot create %s: it exists already", name);
    if (!found && mode != VDB_FILE_CREATE)
        return vdb_fail(err, VECDB_NOT_FOUND, "cannot open %s: there is no such file in memory", name);
    if (!found)
        found = add_node(vfs, path, false);
    if (!found)
        return vdb_fail_memory(err, sizeof *found);
    found->n_uses++;
    *node = found;
    return VECDB_OK;
}

static int memory_open(struct vdb_vfs *base, const char *path, int mode, struct vdb_file **file, vecdb_error *err)
{
    struct memory_vfs *vfs = (struct memory_vfs *)base;
    struct memory_file *opened = vdb_alloc_zero(base->memory, sizeof *opened);
    char *copy = vdb_strdup(base->memory, path, strlen(path));
    int status = opened && copy ? VECDB_OK : vdb_fail_memory(err, sizeof *opened + strlen(path));
    if (!status) {
        pthread_mutex_lock(&vfs->lock);
        status = find_or_create(vfs, path, mode, &opened->node, err);
        pthread_mutex_unlock(&vfs->lock);
    }
    if (status) {
        vdb_free(base->memory, copy);
        vdb_free(base->memory, opened);
        return status;
    }
    opened->base = (struct vdb_file){base, copy};
    *file = &opened->base;
    return VECDB_OK;
}

static void memory_close(struct vdb_file *file)
{
    if (!file)
        return;
    struct memory_vfs *vfs = (struct memory_vfs *)file->vfs;
    pthread_mutex_lock(&vfs->lock);
    drop_use(vfs, node_of(file));
    pthread_mutex_unlock(&vfs->lock);
    vdb_free(vfs->base.memory, file->path);
    vdb_free(vfs->base.memory, file);
}

static int memory_size(struct vdb_file *file, uint64_t *n_bytes, vecdb_error *err)
{
    (void)err;
    *n_bytes = atomic_load_explicit(&node_of(file)->n_bytes, memory_order_acquire);
    return VECDB_OK;
}

static int check_range(struct vdb_file *file, uint64_t offset, size_t n_bytes, vecdb_error *err)
{
    uint64_t size = atomic_load_explicit(&node_of(file)->n_bytes, memory_order_acquire);
    if (vdb_range_is_inside(offset, n_bytes, size))
        return VECDB_OK;
    return vdb_fail(err, VECDB_CORRUPT, "%s ends at byte %llu, %llu were expected: the file is truncated",
                    vdb_path_tail(file->path), (unsigned long long)size, (unsigned long long)(offset + n_bytes));
}

static int memory_read(struct vdb_file *file, uint64_t offset, void *into, size_t n_bytes, vecdb_error *err)
{
    int status = check_range(file, offset, n_bytes, err);
    if (status)
        return status;
    for (size_t done = 0; done < n_bytes;) {
        size_t within, left, chunk = chunk_of(offset + done, &within, &left);
        size_t n = left < n_bytes - done ? left : n_bytes - done;
        memcpy((char *)into + done, atomic_load_explicit(&node_of(file)->chunks[chunk], memory_order_relaxed) + within,
               n);
        done += n;
    }
    return VECDB_OK;
}

static int memory_read_many(struct vdb_file *file, const struct vdb_read *reads, size_t n_reads, vecdb_error *err)
{
    for (size_t i = 0; i < n_reads; i++) {
        int status = memory_read(file, reads[i].offset, reads[i].into, reads[i].n_bytes, err);
        if (status)
            return status;
    }
    return VECDB_OK;
}

/* Have all chunks up to that of byte `end` - 1. */
static int grow(struct vdb_file *file, uint64_t end, vecdb_error *err)
{
    size_t within, left, last = chunk_of(end - 1, &within, &left);
    if (last >= N_CHUNKS)
        return vdb_fail(err, VECDB_FULL, "%s cannot grow beyond 256 GiB of memory", vdb_path_tail(file->path));
    for (size_t i = 0; i <= last; i++) {
        if (atomic_load_explicit(&node_of(file)->chunks[i], memory_order_relaxed))
            continue;
        char *chunk = vdb_alloc_aligned(file->vfs->memory, chunk_bytes(i));
        if (!chunk)
            return vdb_fail_memory(err, chunk_bytes(i));
        atomic_store_explicit(&node_of(file)->chunks[i], chunk, memory_order_relaxed);
    }
    return VECDB_OK;
}

/* Put bytes (NULL: zeros) where there are chunks for them. */
static void put(struct node *node, uint64_t offset, const char *bytes, uint64_t n_bytes)
{
    for (uint64_t done = 0; done < n_bytes;) {
        size_t within, left, chunk = chunk_of(offset + done, &within, &left);
        size_t n = left < n_bytes - done ? left : (size_t)(n_bytes - done);
        char *to = atomic_load_explicit(&node->chunks[chunk], memory_order_relaxed) + within;
        if (bytes)
            memcpy(to, bytes + done, n);
        else
            memset(to, 0, n);
        done += n;
    }
}

static int memory_write(struct vdb_file *file, uint64_t offset, const void *bytes, size_t n_bytes, vecdb_error *err)
{
    struct node *node = node_of(file);
    if (!n_bytes)
        return VECDB_OK;
    if (!vdb_range_is_inside(offset, n_bytes, INT64_MAX))
        return vdb_fail(err, VECDB_FULL, "%s cannot grow beyond 256 GiB of memory", vdb_path_tail(file->path));
    int status = grow(file, offset + n_bytes, err);
    if (status)
        return status;
    uint64_t size = atomic_load_explicit(&node->n_bytes, memory_order_relaxed);
    if (offset > size)
        put(node, size, NULL, offset - size); /* a hole reads as zeros */
    put(node, offset, bytes, n_bytes);
    if (offset + n_bytes > size)
        atomic_store_explicit(&node->n_bytes, offset + n_bytes, memory_order_release);
    return VECDB_OK;
}

static int memory_sync(struct vdb_file *file, vecdb_error *err)
{
    (void)file, (void)err;
    return VECDB_OK;
}

static int memory_map(struct vdb_file *file, uint64_t offset, size_t n_bytes, const void **bytes, vecdb_error *err)
{
    struct memory_vfs *vfs = (struct memory_vfs *)file->vfs;
    int status = check_range(file, offset, n_bytes, err);
    if (status)
        return status;
    size_t within, left, chunk = chunk_of(offset, &within, &left);
    if (!n_bytes || n_bytes > left)
        return vdb_fail(err, VECDB_UNSUPPORTED, "%zu bytes at offset %llu of %s do not lie together in memory", n_bytes,
                        (unsigned long long)offset, vdb_path_tail(file->path));
    struct map *map = vdb_alloc(vfs->base.memory, sizeof *map);
    if (!map)
        return vdb_fail_memory(err, sizeof *map);
    map->bytes = atomic_load_explicit(&node_of(file)->chunks[chunk], memory_order_relaxed) + within;
    map->node = node_of(file);
    pthread_mutex_lock(&vfs->lock);
    map->node->n_uses++;
    map->next = vfs->maps;
    vfs->maps = map;
    pthread_mutex_unlock(&vfs->lock);
    *bytes = map->bytes;
    return VECDB_OK;
}

static void memory_unmap(struct vdb_vfs *base, const void *bytes, size_t n_bytes)
{
    (void)n_bytes;
    struct memory_vfs *vfs = (struct memory_vfs *)base;
    pthread_mutex_lock(&vfs->lock);
    struct map **at = &vfs->maps;
    while (*at && (*at)->bytes != bytes)
        at = &(*at)->next;
    struct map *map = *at;
    assert(map);
    *at = map->next;
    drop_use(vfs, map->node);
    pthread_mutex_unlock(&vfs->lock);
    vdb_free(base->memory, map);
}

static int memory_remove(struct vdb_vfs *base, const char *path, vecdb_error *err)
{
    (void)err;
    struct memory_vfs *vfs = (struct memory_vfs *)base;
    pthread_mutex_lock(&vfs->lock);
    for (struct node **at = &vfs->nodes; *at; at = &(*at)->next) {
        if (strcmp((*at)->path, path))
            continue;
        struct node *node = *at;
        *at = node->next;
        drop_use(vfs, node);
        break;
    }
    pthread_mutex_unlock(&vfs->lock);
    return VECDB_OK;
}

static int memory_kind(struct vdb_vfs *base, const char *path, enum vdb_path_kind *kind, vecdb_error *err)
{
    (void)err;
    struct memory_vfs *vfs = (struct memory_vfs *)base;
    pthread_mutex_lock(&vfs->lock);
    struct node *node = find_node(vfs, path);
    *kind = !node ? VDB_PATH_MISSING : node->is_directory ? VDB_PATH_DIRECTORY : VDB_PATH_FILE;
    pthread_mutex_unlock(&vfs->lock);
    return VECDB_OK;
}

static int memory_make_directory(struct vdb_vfs *base, const char *path, vecdb_error *err)
{
    struct memory_vfs *vfs = (struct memory_vfs *)base;
    pthread_mutex_lock(&vfs->lock);
    struct node *node = find_node(vfs, path);
    int status = VECDB_OK;
    if (node && !node->is_directory)
        status = vdb_fail(err, VECDB_INVALID, "cannot make the directory %s: there is something else of that name",
                          vdb_path_tail(path));
    else if (!node && !add_node(vfs, path, true))
        status = vdb_fail_memory(err, sizeof *node);
    pthread_mutex_unlock(&vfs->lock);
    return status;
}

static int memory_sync_directory(struct vdb_vfs *vfs, const char *path, vecdb_error *err)
{
    (void)vfs, (void)path, (void)err;
    return VECDB_OK;
}

static int memory_remove_directory(struct vdb_vfs *base, const char *path, vecdb_error *err)
{
    struct memory_vfs *vfs = (struct memory_vfs *)base;
    size_t n = strlen(path);
    int status = VECDB_OK;
    pthread_mutex_lock(&vfs->lock);
    for (struct node *node = vfs->nodes; node && !status; node = node->next)
        if (!strncmp(node->path, path, n) && node->path[n] == '/')
            status = vdb_fail(err, VECDB_IO, "cannot remove the directory %s: it is not empty", vdb_path_tail(path));
    pthread_mutex_unlock(&vfs->lock);
    return status ? status : memory_remove(base, path, err);
}

static int memory_link(struct vdb_vfs *base, const char *from, const char *to, vecdb_error *err)
{
    (void)base;
    return vdb_fail(err, VECDB_UNSUPPORTED, "%s cannot have a second name as %s: it is in memory", vdb_path_tail(from),
                    vdb_path_tail(to));
}

static int memory_rename(struct vdb_vfs *base, const char *from, const char *to, vecdb_error *err)
{
    struct memory_vfs *vfs = (struct memory_vfs *)base;
    char *copy = vdb_strdup(base->memory, to, strlen(to));
    int status = copy ? VECDB_OK : vdb_fail_memory(err, strlen(to));
    if (status)
        return status;
    pthread_mutex_lock(&vfs->lock);
    struct node *node = find_node(vfs, from);
    if (!node || node->is_directory)
        status = vdb_fail(err, VECDB_NOT_FOUND, "cannot rename %s: there is no such file in memory",
                          vdb_path_tail(from));
    else if (find_node(vfs, to))
        status = vdb_fail(err, VECDB_EXISTS, "cannot rename %s: there is a %s already", vdb_path_tail(from),
                          vdb_path_tail(to));
    if (!status) {
        vdb_free(base->memory, node->path);
        node->path = copy;
    }
    pthread_mutex_unlock(&vfs->lock);
    if (status)
        vdb_free(base->memory, copy);
    return status;
}

static const char *name_in(const struct node *node, const char *path, size_t n)
{
    if (strncmp(node->path, path, n) || node->path[n] != '/' || strchr(node->path + n + 1, '/'))
        return NULL;
    return node->path + n + 1;
}

/* Names are the paths that begin with `path` and a slash and have no other. They are copied first,
 * so that `each` may open and remove files. */
static int memory_list(struct vdb_vfs *base, const char *path, bool (*each)(void *context, const char *name),
                       void *context, vecdb_error *err)
{
    struct memory_vfs *vfs = (struct memory_vfs *)base;
    size_t n = strlen(path), n_bytes = 1;
    const char *name;
    pthread_mutex_lock(&vfs->lock);
    for (struct node *node = vfs->nodes; node; node = node->next)
        if ((name = name_in(node, path, n)))
            n_bytes += strlen(name) + 1;
    char *names = vdb_alloc(base->memory, n_bytes), *end = names;
    for (struct node *node = vfs->nodes; node && names; node = node->next)
        if ((name = name_in(node, path, n))) {
            memcpy(end, name, strlen(name) + 1);
            end += strlen(name) + 1;
        }
    pthread_mutex_unlock(&vfs->lock);
    if (!names)
        return vdb_fail_memory(err, n_bytes);
    for (char *at = names; at < end && each(context, at); at += strlen(at) + 1)
        ;
    vdb_free(base->memory, names);
    return VECDB_OK;
}

static void memory_end(struct vdb_vfs *base)
{
    if (!base)
        return;
    struct memory_vfs *vfs = (struct memory_vfs *)base;
    assert(!vfs->maps);
    while (vfs->nodes) {
        struct node *node = vfs->nodes;
        vfs->nodes = node->next;
        drop_use(vfs, node);
    }
    pthread_mutex_destroy(&vfs->lock);
    vdb_free(base->memory, vfs);
}

int vdb_vfs_memory(struct vdb_memory *memory, struct vdb_vfs **vfs, vecdb_error *err)
{
    struct memory_vfs *made = vdb_alloc_zero(memory, sizeof *made);
    if (!made)
        return vdb_fail_memory(err, sizeof *made);
    int os_error = pthread_mutex_init(&made->lock, NULL);
    if (os_error) {
        vdb_free(memory, made);
        return vdb_fail_os(err, os_error, "cannot make a lock");
    }
    made->base = (struct vdb_vfs){
        .name = "memory",
        .memory = memory,
        .open = memory_open,
        .close = memory_close,
        .size = memory_size,
        .read = memory_read,
        .read_many = memory_read_many,
        .write = memory_write,
        .sync = memory_sync,
        .map = memory_map,
        .unmap = memory_unmap,
        .remove = memory_remove,
        .kind = memory_kind,
        .make_directory = memory_make_directory,
        .sync_directory = memory_sync_directory,
        .remove_directory = memory_remove_directory,
        .link = memory_link,
        .rename = memory_rename,
        .list = memory_list,
        .end = memory_end,
    };
    *vfs = &made->base;
    return VECDB_OK;
}
