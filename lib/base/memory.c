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
}

static size_t size_of(const void *block)
{
    size_t size;
    memcpy(&size, (const char *)block - HEADER_BYTES, sizeof size);
    return size;
}

void *vdb_alloc(struct vdb_memory *memory, size_t n_bytes)
{
    if (n_bytes > SIZE_MAX / 2)
        return NULL;
    size_t size = n_bytes + HEADER_BYTES;
    char *start = memory->allocator.allocate(memory->allocator.context, size);
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
    atomic_fetch_sub_explicit(&memory->used, size, memory_order_relaxed);
    memory->allocator.release(memory->allocator.context, (char *)block - HEADER_BYTES);
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
