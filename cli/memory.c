/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/memory.c - memory of the command
 *
 * A program on the command line has nothing to save when memory runs out: what is committed is
 * on disk. So it says so and ends, and callers need not look. A batch of records lives in an
 * arena, which also tells how large the batch has become.
 */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static void *or_end(void *block, size_t n_bytes)
{
    if (!block) {
        cli_say("out of memory (%zu bytes)", n_bytes);
        _Exit(CODE_FAILED);
    }
    return block;
}

void *cli_alloc(size_t n_bytes)
{
    return or_end(malloc(n_bytes ? n_bytes : 1), n_bytes);
}

void *cli_alloc_array(size_t n, size_t size)
{
    size_t n_bytes;
    if (__builtin_mul_overflow(n, size, &n_bytes))
        return or_end(NULL, SIZE_MAX);
    return cli_alloc(n_bytes);
}

void *cli_realloc(void *block, size_t n_bytes)
{
    return or_end(realloc(block, n_bytes ? n_bytes : 1), n_bytes);
}

char *cli_copy(const char *text, size_t n_bytes)
{
    char *copy = cli_alloc(n_bytes + 1);
    memcpy(copy, text, n_bytes);
    copy[n_bytes] = 0;
    return copy;
}

/* ---------------------------------------------------------------- arenas */

#define BLOCK_BYTES (1u << 20)
#define ALIGNMENT 16

struct arena_block {
    struct arena_block *next;
    size_t size, used; /* of the bytes behind this header */
    size_t unused;     /* keeps the bytes aligned */
};

_Static_assert(sizeof(struct arena_block) % ALIGNMENT == 0, "bytes behind the header are aligned");

void *arena_alloc(struct arena *arena, size_t n_bytes)
{
    struct arena_block *block = arena->blocks;
    size_t n = (n_bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    if (n < n_bytes)
        or_end(NULL, n_bytes);
    if (!block || block->size - block->used < n) {
        size_t size = n > BLOCK_BYTES ? n : BLOCK_BYTES;
        block = cli_alloc(sizeof *block + size);
        *block = (struct arena_block){.next = arena->blocks, .size = size};
        arena->blocks = block;
    }
    void *memory = (uint8_t *)(block + 1) + block->used;
    block->used += n;
    arena->used += n;
    return memory;
}

char *arena_copy(struct arena *arena, const char *text, size_t n_bytes)
{
    char *copy = arena_alloc(arena, n_bytes + 1);
    memcpy(copy, text, n_bytes);
    copy[n_bytes] = 0;
    return copy;
}

void arena_reset(struct arena *arena)
{
    struct arena_block *kept = NULL;
    while (arena->blocks) {
        struct arena_block *block = arena->blocks;
        arena->blocks = block->next;
        if (!kept && block->size == BLOCK_BYTES) {
            kept = block;
            kept->next = NULL;
            kept->used = 0;
        } else {
            free(block);
        }
    }
    arena->blocks = kept;
    arena->used = 0;
}

void arena_release(struct arena *arena)
{
    arena_reset(arena);
    free(arena->blocks);
    arena->blocks = NULL;
}
