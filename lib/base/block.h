/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/base/block.h - rows that lie together: the form in which storage hands vectors to an index
 *
 *     block            rows, evenly spaced, of one storage type
 *       run            rows whose slots are consecutive
 *
 * A block is a page, in place or decoded, or a piece of the tail. Its storage type may be
 * narrower than the field's (a page of f32 values that are all whole numbers 0..255 is stored
 * as u8); the values are the same.
 */
#ifndef VDB_BASE_BLOCK_H
#define VDB_BASE_BLOCK_H

#include <stddef.h>
#include <stdint.h>

/* Rows `row` .. up to the next run's `row` have the slots `slot`, `slot` + 1, ... */
struct vdb_run {
    uint32_t slot;
    uint32_t row;
};

struct vdb_block {
    const void *rows;
    size_t stride; /* bytes from row to row */
    uint32_t n_rows;
    int type;       /* vecdb_type of the stored values */
    float max_norm; /* no row is longer (Euclidean); for bits 0 */
    uint32_t n_runs;
    const struct vdb_run *runs; /* by row, and by slot; the first has row 0 */
    void *pin;                  /* what is needed to release it, */
    void *owner;                /* and who: both belong to whoever pinned it */
};

/* The slot of a row. Costs a binary search over the runs, of which there is mostly one. */
static inline uint32_t vdb_block_slot(const struct vdb_block *block, uint32_t row)
{
    uint32_t low = 0, high = block->n_runs;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (block->runs[middle].row <= row)
            low = middle;
        else
            high = middle;
    }
    return block->runs[low].slot + (row - block->runs[low].row);
}

/* The first row whose slot is not below `slot`; n_rows: there is none. */
static inline uint32_t vdb_block_first_row(const struct vdb_block *block, uint32_t slot)
{
    uint32_t low = 0, high = block->n_rows;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (vdb_block_slot(block, middle) < slot)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The row of a slot, or UINT32_MAX. */
static inline uint32_t vdb_block_row(const struct vdb_block *block, uint32_t slot)
{
    uint32_t low = 0, high = block->n_runs;
    if (!high || slot < block->runs[0].slot)
        return UINT32_MAX;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (block->runs[middle].slot <= slot)
            low = middle;
        else
            high = middle;
    }
    uint32_t row = block->runs[low].row + (slot - block->runs[low].slot);
    uint32_t end = low + 1 < block->n_runs ? block->runs[low + 1].row : block->n_rows;
    return row < end ? row : UINT32_MAX;
}

#endif
