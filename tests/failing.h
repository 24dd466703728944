/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/failing.h - an allocator that fails from the n-th call on
 *
 * A loop over n = 0, 1, ... until nothing failed visits every allocation of the code under test.
 */
#ifndef VDB_TESTS_FAILING_H
#define VDB_TESTS_FAILING_H

#include <stdbool.h>

#include "base/memory.h"

struct failing {
    struct vdb_memory inner; /* where memory comes from as long as there is some */
    int left;                /* calls that succeed */
};

static void *failing_allocate(void *context, size_t size)
{
    struct failing *failing = context;
    if (failing->left-- <= 0)
        return NULL;
    return failing->inner.allocator.allocate(failing->inner.allocator.context, size);
}

static void *failing_reallocate(void *context, void *block, size_t size)
{
    struct failing *failing = context;
    if (failing->left-- <= 0)
        return NULL;
    return failing->inner.allocator.reallocate(failing->inner.allocator.context, block, size);
}

static void failing_release(void *context, void *block)
{
    struct failing *failing = context;
    failing->inner.allocator.release(failing->inner.allocator.context, block);
}

/* `memory` will have n successful calls. */
static inline void failing_begin(struct failing *failing, struct vdb_memory *memory, int n)
{
    vdb_memory_init(&failing->inner, NULL);
    failing->left = n;
    vecdb_allocator allocator = {failing_allocate, failing_reallocate, failing_release, failing};
    vdb_memory_init(memory, &allocator);
}

static inline bool failing_has_failed(const struct failing *failing)
{
    return failing->left < 0;
}

#endif
