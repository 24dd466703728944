/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzz target: a hostile WAL beside a good catalog is refused in a sentence, ignored, or read; never believed where
 * its sums are wrong, and no page in it harms when they are right.
 *
 * Input: a byte of flags (below), a byte for hostile_use. Then edits {place u24, value u8} of a good WAL, or, with a
 * flag, the bytes of a whole one.
 */
#include <string.h>

#include "hostile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { WHOLE = 1, SUMMED = 2, CUT = 4, OF_STATE = 8 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > 1 << 17)
        return 0;
    struct hostile_input input = {data, size};
    struct hostile_image image;
    hostile_copy(hostile_good(true), &image);
    struct hostile_file *log = hostile_find(&image, "catalog.sqlite-wal"), *state = hostile_find(&image, "state");
    unsigned flags = hostile_take_u8(&input), how = hostile_take_u8(&input);
    if (!log || !state)
        __builtin_trap();
    if (flags & OF_STATE) { /* a mark in `state`, as of a checkpoint that was cut off */
        memcpy(state->bytes + 52, log->bytes + 20, 4);
        state->bytes[48] = hostile_take_u8(&input);
        hostile_stamp_state(state);
    }
    if (flags & CUT)
        hostile_resize(log, hostile_take_u24(&input) % (log->n_bytes + 9000));
    if (flags & WHOLE) {
        size_t n_bytes;
        const uint8_t *bytes = hostile_take(&input, input.n, &n_bytes);
        hostile_resize(log, n_bytes);
        if (n_bytes)
            memcpy(log->bytes, bytes, n_bytes);
    } else {
        hostile_edit(log, &input, 64);
    }
    if (flags & SUMMED)
        hostile_stamp_log(log);
    hostile_store(&image, hostile_directory());
    hostile_release(&image);
    hostile_use(hostile_directory(), how);
    return 0;
}
