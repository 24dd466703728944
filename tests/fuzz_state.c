/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzz target: a `state` file of hostile bytes is refused in a sentence, or gives numbers that pass their checks.
 *
 * Input: a byte of flags, the length of the file as u16, then its first bytes; the rest is zeros. With a flag the
 * checks are made good, so that versions, sizes, marks and numbers are reached.
 */
#include <stdio.h>
#include <stdlib.h>

#include "hostile.h"
#include "storage/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool condition)
{
    if (!condition)
        abort();
}

static void use(struct vdb_state *state)
{
    static const unsigned char uuid[16] = "0123456789abcdef";
    vecdb_error err = VECDB_ERROR_INIT;
    unsigned char found[16];
    uint64_t sequence = 0, durable = 0;
    uint32_t n_frames, salt2;
    vdb_state_uuid(state, found);
    int status = vdb_state_sequence(state, &sequence, &err);
    must(!status || err.message[0]);
    err.message[0] = 0;
    int other = vdb_state_durable(state, &durable, &err);
    must(!other || err.message[0]);
    must(sequence < UINT64_C(1) << 48 && durable < UINT64_C(1) << 48);
    vdb_state_get_mark(state, &n_frames, &salt2);
    err.message[0] = 0;
    int adopted = vdb_state_adopt(state, uuid, &err);
    must(!adopted || err.message[0]);
    if (adopted || !vdb_state_writable(state))
        return;
    /* numbers only grow, and a word that is damaged is left as it is */
    uint64_t word = vdb_state_word(state), after = 0;
    vdb_state_raise(state, sequence + 1);
    must(status ? vdb_state_word(state) == word
                : !vdb_state_sequence(state, &after, NULL) && (after == sequence + 1 || sequence + 1 == 1ull << 48));
    if (!vdb_state_lock_gate(state, 0, NULL)) {
        must(!vdb_state_set_mark(state, 7, 9, NULL));
        must(vdb_state_get_mark(state, &n_frames, &salt2) && n_frames == 7 && salt2 == 9);
        must(!vdb_state_clear_mark(state, NULL) && !vdb_state_get_mark(state, &n_frames, &salt2));
        vdb_state_unlock_gate(state);
    }
    if (!vdb_state_try_maintainer(state, NULL))
        vdb_state_release_maintainer(state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3 || size > 3 + VDB_STATE_BYTES)
        return 0;
    struct hostile_input input = {data, size};
    unsigned flags = hostile_take_u8(&input);
    size_t n_bytes = flags & 1 ? VDB_STATE_BYTES : hostile_take_u16(&input) % (2 * VDB_STATE_BYTES), n_given;
    const uint8_t *given = hostile_take(&input, n_bytes, &n_given);
    struct hostile_image image = {.n = 1, .files = {{.name = "state"}}};
    hostile_resize(&image.files[0], n_bytes);
    if (n_given)
        memcpy(image.files[0].bytes, given, n_given);
    if (flags & 2)
        hostile_stamp(&image);
    hostile_store(&image, hostile_directory());
    hostile_release(&image);

    char path[300];
    struct vdb_memory memory;
    struct vdb_state *state;
    vecdb_error err = VECDB_ERROR_INIT;
    vdb_memory_init(&memory, NULL);
    snprintf(path, sizeof path, "%s/state", hostile_directory());
    struct vdb_state_options options = {.memory = &memory, .path = path, .readonly = flags & 4};
    if (vdb_state_open(&options, &state, &err)) {
        must(err.message[0]);
        return 0;
    }
    use(state);
    vdb_state_close(state);
    must(vdb_memory_used(&memory) == 0);
    return 0;
}
