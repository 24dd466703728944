/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/keys.c - the slot-to-key column (see keys.h)
 */
#include "keys.h"

#include "base/error.h"
#include "results.h"

#define PIECE_SLOTS 1024u
#define UNKNOWN_LENGTH 1 /* with text NULL: no key has that */

struct vdb_key_piece {
    struct vdb_arena arena; /* of texts */
    size_t n_bytes;
    vecdb_key keys[PIECE_SLOTS];
};

void vdb_keys_init(struct vdb_keys *keys, struct vdb_memory *memory, size_t limit_bytes)
{
    *keys = (struct vdb_keys){.memory = memory, .limit_bytes = limit_bytes};
    pthread_mutex_init(&keys->lock, NULL);
}

static void free_piece(struct vdb_keys *keys, size_t p)
{
    struct vdb_key_piece *piece = keys->pieces[p];
    if (!piece)
        return;
    keys->n_bytes -= piece->n_bytes;
    vdb_arena_release(&piece->arena);
    vdb_free(keys->memory, piece);
    keys->pieces[p] = NULL;
}

static void free_all(struct vdb_keys *keys)
{
    for (size_t p = 0; p < keys->n_pieces; p++)
        free_piece(keys, p);
}

void vdb_keys_release(struct vdb_keys *keys)
{
    free_all(keys);
    vdb_free(keys->memory, keys->pieces);
    pthread_mutex_destroy(&keys->lock);
}

void vdb_keys_clear(struct vdb_keys *keys)
{
    pthread_mutex_lock(&keys->lock);
    free_all(keys);
    pthread_mutex_unlock(&keys->lock);
}

static uint32_t slot_at(const uint32_t *slots, size_t stride, size_t i)
{
    return *(const uint32_t *)((const char *)slots + i * stride);
}

/* Under the lock. */
static bool copy_keys(const struct vdb_keys *keys, const uint32_t *slots, size_t stride, size_t n, vecdb_key *out,
                      struct vdb_arena *arena, uint32_t *missing, int *status, vecdb_error *err)
{
    bool is_complete = true;
    *status = VECDB_OK;
    for (size_t i = 0; i < n && is_complete && !*status; i++) {
        uint32_t slot = slot_at(slots, stride, i);
        struct vdb_key_piece *piece = slot / PIECE_SLOTS < keys->n_pieces ? keys->pieces[slot / PIECE_SLOTS] : NULL;
        const vecdb_key *key = piece ? &piece->keys[slot % PIECE_SLOTS] : NULL;
        if (!key || (!key->text && key->length == UNKNOWN_LENGTH)) {
            *missing = slot;
            is_complete = false;
        } else if (!key->text) {
            out[i] = *key;
        } else {
            char *text = vdb_arena_text(arena, key->text, key->length);
            if (!text)
                *status = vdb_fail_memory(err, key->length);
            out[i] = (vecdb_key){.text = text, .length = key->length};
        }
    }
    return is_complete;
}

bool vdb_keys_get(struct vdb_keys *keys, uint64_t store, const uint32_t *slots, size_t stride, size_t n, vecdb_key *out,
                  struct vdb_arena *arena, uint32_t *missing, int *status, vecdb_error *err)
{
    bool is_complete = false;
    *status = VECDB_OK;
    *missing = slot_at(slots, stride, 0);
    pthread_mutex_lock(&keys->lock);
    if (keys->store == store)
        is_complete = copy_keys(keys, slots, stride, n, out, arena, missing, status, err);
    pthread_mutex_unlock(&keys->lock);
    return is_complete;
}

/* The piece of a slot, made when it is not there. Under the lock. */
static struct vdb_key_piece *make_piece(struct vdb_keys *keys, uint32_t slot)
{
    size_t p = slot / PIECE_SLOTS;
    if (p >= keys->n_pieces) {
        size_t n = p + 1 + p / 2;
        struct vdb_key_piece **pieces = vdb_realloc_array(keys->memory, keys->pieces, n, sizeof *pieces);
        if (!pieces)
            return NULL;
        memset(pieces + keys->n_pieces, 0, (n - keys->n_pieces) * sizeof *pieces);
        keys->pieces = pieces;
        keys->n_pieces = n;
    }
    if (!keys->pieces[p]) {
        struct vdb_key_piece *piece = vdb_alloc_zero(keys->memory, sizeof *piece);
        if (!piece)
            return NULL;
        piece->arena.memory = keys->memory;
        piece->n_bytes = sizeof *piece;
        for (size_t i = 0; i < PIECE_SLOTS; i++)
            piece->keys[i].length = UNKNOWN_LENGTH;
        keys->pieces[p] = piece;
        keys->n_bytes += piece->n_bytes;
    }
    return keys->pieces[p];
}

struct key_loader {
    struct vdb_keys *keys;
    struct vdb_key_piece *piece;
    vecdb_error *err;
};

static int add_key(void *context, const struct vdb_record_row *row)
{
    struct key_loader *loader = context;
    struct vdb_key_piece *piece = loader->piece;
    vecdb_key *key = &piece->keys[row->slot % PIECE_SLOTS];
    if (key->text || key->length != UNKNOWN_LENGTH)
        return VECDB_OK; /* known, and it never changes */
    if (!row->key.text) {
        *key = row->key;
        return VECDB_OK;
    }
    char *text = vdb_arena_text(&piece->arena, row->key.text, row->key.length);
    if (!text)
        return vdb_fail_memory(loader->err, row->key.length);
    *key = (vecdb_key){.text = text, .length = row->key.length};
    piece->n_bytes += row->key.length + 1;
    loader->keys->n_bytes += row->key.length + 1;
    return VECDB_OK;
}

bool vdb_keys_load(struct vdb_keys *keys, struct vdb_connection *c, uint64_t store, const uint32_t *slots,
                   size_t stride, size_t n, vecdb_key *out, struct vdb_arena *arena, uint32_t *missing, int *result,
                   vecdb_error *err)
{
    int status = VECDB_OK;
    bool is_complete = true;
    pthread_mutex_lock(&keys->lock);
    if (keys->n_bytes > keys->limit_bytes || keys->store != store)
        free_all(keys);
    keys->store = store;
    for (size_t i = 0; i < n && !status; i++) {
        uint32_t slot = slot_at(slots, stride, i), first = slot - slot % PIECE_SLOTS;
        struct vdb_key_piece *piece = make_piece(keys, slot);
        if (!piece) {
            status = vdb_fail_memory(err, sizeof *piece);
            break;
        }
        const vecdb_key *key = &piece->keys[slot % PIECE_SLOTS];
        if (key->text || key->length != UNKNOWN_LENGTH)
            continue;
        struct key_loader loader = {keys, piece, err};
        status = vdb_records_keys(c, store, first, first + (PIECE_SLOTS - 1), add_key, &loader, err);
    }
    /* Still under the lock: another thread's load may drop what this one has brought. */
    if (!status)
        is_complete = copy_keys(keys, slots, stride, n, out, arena, missing, &status, err);
    pthread_mutex_unlock(&keys->lock);
    *result = status;
    return is_complete;
}
