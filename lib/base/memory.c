/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/base/memory.c - the allocator behind a database handle (see memory.h)
 *
 *     block:          [ size : 8 | zero : 8 ][ n bytes ... ]
 *                                             ^ what the caller gets
 *     aligned block:  [ header ][ padding | pointer to the plain block : 8 ][ n bytes ... ]
 */
#define VDB_MEMORY_IMPLEMENTATION
#include "memory.h"

#include <assert.h>
#include <stdbool.h>

#define HEADER_BYTES 16
#define ALIGNMENT 64

static void *libc_allocate(void *context, size_t size)
{
    (void)context;
    return malloc(size);
}

static void *libc_reallocate(void *context, void *block, size_t size)
{
    (void)context;
    return realloc(block, size);
}

static void libc_release(void *context, void *block)
{
    (void)context;
    free(block);
}

void vdb_memory_init(struct vdb_memory *memory, const vecdb_allocator *allocator)
{
    if (allocator && allocator->allocate)
        memory->allocator = *allocator;
    else
        memory->allocator = (vecdb_allocator){libc_allocate, libc_reallocate, libc_release, NULL};
    atomic_init(&memory->used, 0);
    memory->spare_limit = memory->spare_bytes = 0;
    memset(memory->spare, 0, sizeof memory->spare);
    pthread_mutex_init(&memory->spare_lock, NULL);
}

static size_t size_of(const void *block)
{
    size_t size;
    memcpy(&size, (const char *)block - HEADER_BYTES, sizeof size);
    return size;
}

/* A spare block of at least `size` bytes, and not twice as many; NULL: there is none. */
static void *take_spare(struct vdb_memory *memory, size_t size)
{
    void *found = NULL;
    pthread_mutex_lock(&memory->spare_lock);
    for (int i = 0; i < VDB_SPARE_BLOCKS && !found; i++) {
        if (!memory->spare[i])
            continue;
        size_t has = size_of(memory->spare[i]);
        if (has >= size && has / 2 <= size) {
            found = memory->spare[i];
            memory->spare[i] = NULL;
            memory->spare_bytes -= has;
        }
    }
    pthread_mutex_unlock(&memory->spare_lock);
    return found;
}

/* False: there is no room for it. */
static bool put_spare(struct vdb_memory *memory, void *block, size_t size)
{
    bool is_kept = false;
    pthread_mutex_lock(&memory->spare_lock);
    for (int i = 0; i < VDB_SPARE_BLOCKS && !is_kept; i++)
        if (!memory->spare[i] && memory->spare_bytes + size <= memory->spare_limit) {
            memory->spare[i] = block;
            memory->spare_bytes += size;
            is_kept = true;
        }
    pthread_mutex_unlock(&memory->spare_lock);
    return is_kept;
}

static void release(struct vdb_memory *memory, void *block, size_t size)
{
    atomic_fetch_sub_explicit(&memory->used, size, memory_order_relaxed);
    memory->allocator.release(memory->allocator.context, (char *)block - HEADER_BYTES);
}

/* Until at most `limit_bytes` are spare. The lock is held. */
static void shrink_spares(struct vdb_memory *memory, size_t limit_bytes)
{
    for (int i = 0; i < VDB_SPARE_BLOCKS && memory->spare_bytes > limit_bytes; i++)
        if (memory->spare[i]) {
            memory->spare_bytes -= size_of(memory->spare[i]);
            release(memory, memory->spare[i], size_of(memory->spare[i]));
            memory->spare[i] = NULL;
        }
}

/* The allocator has no more: give back what nobody uses. False: there was nothing. */
static bool release_spares(struct vdb_memory *memory)
{
    if (!memory->spare_limit)
        return false;
    pthread_mutex_lock(&memory->spare_lock);
    bool has_some = memory->spare_bytes > 0;
    shrink_spares(memory, 0);
    pthread_mutex_unlock(&memory->spare_lock);
    return has_some;
}

void vdb_memory_keep_spare(struct vdb_memory *memory, size_t limit_bytes)
{
    pthread_mutex_lock(&memory->spare_lock);
    memory->spare_limit = limit_bytes;
    shrink_spares(memory, limit_bytes);
    pthread_mutex_unlock(&memory->spare_lock);
}

void *vdb_alloc(struct vdb_memory *memory, size_t n_bytes)
{
    if (n_bytes > SIZE_MAX / 2)
        return NULL;
    size_t size = n_bytes + HEADER_BYTES;
    void *spare = memory->spare_limit && size >= VDB_SPARE_MIN_BYTES ? take_spare(memory, size) : NULL;
    if (spare)
        return spare;
    char *start = memory->allocator.allocate(memory->allocator.context, size);
    if (!start && release_spares(memory))
        start = memory->allocator.allocate(memory->allocator.context, size);
    if (!start)
        return NULL;
    memcpy(start, &size, sizeof size);
    atomic_fetch_add_explicit(&memory->used, size, memory_order_relaxed);
    return start + HEADER_BYTES;
}

void *vdb_alloc_zero(struct vdb_memory *memory, size_t n_bytes)
{
    void *block = vdb_alloc(memory, n_bytes);
    if (block)
        memset(block, 0, n_bytes);
    return block;
}

void *vdb_alloc_array(struct vdb_memory *memory, size_t n, size_t size)
{
    size_t n_bytes;
    if (__builtin_mul_overflow(n, size, &n_bytes))
        return NULL;
    return vdb_alloc(memory, n_bytes);
}

void *vdb_realloc(struct vdb_memory *memory, void *block, size_t n_bytes)
{
    if (!block)
        return vdb_alloc(memory, n_bytes);
    if (n_bytes > SIZE_MAX / 2)
        return NULL;
    size_t old_size = size_of(block), size = n_bytes + HEADER_BYTES;
    char *start = memory->allocator.reallocate(memory->allocator.context, (char *)block - HEADER_BYTES, size);
    if (!start && release_spares(memory))
        start = memory->allocator.reallocate(memory->allocator.context, (char *)block - HEADER_BYTES, size);
    if (!start)
        return NULL;
    memcpy(start, &size, sizeof size);
    atomic_fetch_add_explicit(&memory->used, size - old_size, memory_order_relaxed);
    return start + HEADER_BYTES;
}

void *vdb_realloc_array(struct vdb_memory *memory, void *block, size_t n, size_t size)
{
    size_t n_bytes;
    if (__builtin_mul_overflow(n, size, &n_bytes))
        return NULL;
    return vdb_realloc(memory, block, n_bytes);
}

void vdb_free(struct vdb_memory *memory, void *block)
{
    if (!block)
        return;
    size_t size = size_of(block);
    assert(size >= HEADER_BYTES);
    if (memory->spare_limit && size >= VDB_SPARE_MIN_BYTES && put_spare(memory, block, size))
        return;
    release(memory, block, size);
}

void *vdb_alloc_aligned(struct vdb_memory *memory, size_t n_bytes)
{
    if (n_bytes > SIZE_MAX / 4)
        return NULL;
    char *plain = vdb_alloc(memory, n_bytes + ALIGNMENT + sizeof(void *));
    if (!plain)
        return NULL;
    uintptr_t address = (uintptr_t)plain + sizeof(void *);
    char *block = plain + sizeof(void *) + (ALIGNMENT - address % ALIGNMENT) % ALIGNMENT;
    memcpy(block - sizeof(void *), &plain, sizeof plain);
    return block;
}

void vdb_free_aligned(struct vdb_memory *memory, void *block)
{
    if (!block)
        return;
    void *plain;
    memcpy(&plain, (char *)block - sizeof(void *), sizeof plain);
    vdb_free(memory, plain);
}

char *vdb_strdup(struct vdb_memory *memory, const char *text, size_t n_bytes)
{
    char *copy = vdb_alloc(memory, n_bytes + 1);
    if (!copy)
        return NULL;
    memcpy(copy, text, n_bytes);
    copy[n_bytes] = '\0';
    return copy;
}

size_t vdb_memory_used(const struct vdb_memory *memory)
{
    return atomic_load_explicit(&((struct vdb_memory *)memory)->used, memory_order_relaxed);
}
