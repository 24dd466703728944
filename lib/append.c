/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/append.c - appending extents to vector files, and removing what nobody needs
 *
 * Only the maintainer appends, so that two processes never write to one file. Bytes go behind all that
 * is in the file, whether a committed row names it or not: what a failed commit left there may still
 * be named by it after a crash (a commit whose fsync failed is neither done nor undone), so it is
 * never written over. Its place comes back with the next compaction.
 *
 * A new generation is begun when there is no file yet, when the file is larger than
 * FILE_LIMIT_BYTES, or when a sync of it failed: the kernel may have dropped the pages and
 * forgotten, so nothing more is trusted to that file.
 *
 * An extent grows, instead of a new one beginning, when it ends where its file ends, is still small, and
 * no row that is yet to be packed lies between its slots and the new ones (extent.h, invariant 2). What lies
 * behind it otherwise is debris, and may be what a failed sync left: readable now, something else after a
 * power cut. The check over an extent's gaps must not cover that.
 */
#include "backup.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "base/names.h"

/* Compaction rewrites a file at a time: this bounds how long that takes, and the space it needs. */
#define FILE_LIMIT_BYTES ((uint64_t)256 << 20)
#define GROW_LIMIT_BYTES ((uint64_t)16 << 20) /* a reader opens and verifies a grown extent anew */

/* ------------------------------------------------------------------ debris */

struct sweep {
    vecdb *db;
    uint64_t *named; /* pairs (field, generation) */
    size_t n_named;
    bool is_settled;
    vecdb_error *err;
};

static int note_file(void *context, uint64_t field, uint64_t generation)
{
    struct sweep *sweep = context;
    uint64_t *named = vdb_realloc_array(&sweep->db->memory, sweep->named, sweep->n_named + 1, 2 * sizeof *named);
    if (!named)
        return vdb_fail_memory(sweep->err, sizeof *named);
    sweep->named = named;
    named[2 * sweep->n_named] = field;
    named[2 * sweep->n_named++ + 1] = generation;
    return VECDB_OK;
}

int vdb_append_secure(vecdb *db, uint64_t sequence, bool *is_secure, vecdb_error *err)
{
    uint64_t durable = 0;
    int status = vdb_state_durable(db->state, &durable, err);
    if (!status && durable < sequence && !db->is_memory) {
        status = vdb_catalog_checkpoint(db->catalog, false, err); /* BUSY is no error, and does not help */
        if (!status)
            status = vdb_state_durable(db->state, &durable, err);
    }
    *is_secure = db->is_memory || durable >= sequence;
    return status;
}

bool vdb_append_settle(vecdb *db)
{
    struct vdb_connection *c;
    uint64_t sequence;
    bool is_secure = false;
    return !vdb_write_begin(db->catalog, &c, &sequence, NULL) && !vdb_write_commit(c, NULL) &&
           !vdb_append_secure(db, sequence, &is_secure, NULL) && is_secure;
}

static bool remove_unnamed(void *context, const char *name)
{
    struct sweep *sweep = context;
    vecdb *db = sweep->db;
    uint64_t numbers[2]; /* field, generation */
    if (!vdb_name_numbers(name, "vectors-", numbers, 2))
        return true;
    for (size_t i = 0; i < sweep->n_named; i++)
        if (sweep->named[2 * i] == numbers[0] && sweep->named[2 * i + 1] == numbers[1])
            return true;
    sweep->is_settled = sweep->is_settled || vdb_append_settle(db);
    if (!sweep->is_settled)
        return false; /* a later sweep will */
    char *path = vdb_vector_path(db, numbers[0], numbers[1]);
    vecdb_error ignored;
    if (path && !db->vfs->remove(db->vfs, path, &ignored))
        vdb_database_log(db, VECDB_LOG_INFO, "%s: removed %s, which no commit names", db->path, name);
    vdb_free(&db->memory, path);
    return true;
}

/* A store that no collection uses goes in pieces, so that no writer waits long. */
#define STORE_PIECE 20000

struct removal {
    bool found, done;
};

static int apply_removal(void *context, struct vdb_transaction *transaction, vecdb_error *err)
{
    struct removal *removal = context;
    uint64_t store;
    removal->done = true;
    int status = vdb_store_unused(transaction->connection, &store, &removal->found, err);
    if (status || !removal->found)
        return status;
    return vdb_store_remove_some(transaction->connection, store, STORE_PIECE, &removal->done, err);
}

static int remove_stores(vecdb *db, bool is_needed, vecdb_error *err)
{
    int status = VECDB_OK;
    while (!status && is_needed) {
        struct removal removal = {false, false};
        status = vdb_commit(db, apply_removal, &removal, err);
        is_needed = removal.found;
    }
    return status;
}

int vdb_append_sweep(vecdb *db, vecdb_error *err)
{
    struct vdb_connection *c;
    uint64_t sequence;
    int status = vdb_read_begin(db->catalog, &c, &sequence, err);
    if (status)
        return status;
    struct sweep sweep = {.db = db, .err = err};
    bool has_stores = false;
    uint64_t store;
    status = vdb_extents_files(c, note_file, &sweep, err);
    if (!status)
        status = vdb_store_unused(c, &store, &has_stores, err);
    vdb_read_end(c);
    if (!status)
        status = db->vfs->list(db->vfs, db->is_memory ? "" : db->path, remove_unnamed, &sweep, err);
    vdb_free(&db->memory, sweep.named);
    if (!status)
        status = vdb_snapshot_sweep(db, err);
    if (!status)
        vdb_index_files_sweep(db);
    return status ? status : remove_stores(db, has_stores, err);
}

/* ------------------------------------------------------------------ begin and end */

/* Who appends is noted under a mutex, not told by a mutex that is held: a wait for a condition can be by the
 * monotonic clock everywhere, and tools that watch threads know it. That of the wall may be set back, and the wait be
 * as much longer. */
static bool take_turn(vecdb *db, uint32_t wait_ms)
{
    uint64_t until_ns = vdb_now_ns() + (uint64_t)wait_ms * 1000000;
    struct timespec until = {(time_t)(until_ns / 1000000000), (long)(until_ns % 1000000000)};
    pthread_mutex_lock(&db->append_lock);
    while (db->is_appending && pthread_cond_timedwait(&db->append_ends, &db->append_lock, &until) != ETIMEDOUT)
        continue;
    bool is_ours = !db->is_appending;
    db->is_appending = true;
    pthread_mutex_unlock(&db->append_lock);
    return is_ours;
}

static void end_turn(vecdb *db)
{
    pthread_mutex_lock(&db->append_lock);
    db->is_appending = false;
    pthread_cond_signal(&db->append_ends);
    pthread_mutex_unlock(&db->append_lock);
}

static int fail_held(vecdb *db, vecdb_error *err)
{
    return vdb_fail(err, VECDB_BUSY, "%s: vectors are being packed or compacted just now, maybe by another process; "
                    "try again later", db->path);
}

int vdb_append_begin(vecdb *db, uint32_t wait_ms, vecdb_error *err)
{
    vecdb_error own = VECDB_ERROR_INIT;
    if (!take_turn(db, wait_ms))
        return fail_held(db, err);
    int status = vdb_state_try_maintainer(db->state, &own);
    if (status) {
        end_turn(db);
        if (status == VECDB_BUSY)
            return fail_held(db, err);
        vdb_maintain_failed(db, &own);
        if (err)
            *err = own;
        return status;
    }
    if (!db->has_swept) {
        if (vdb_append_sweep(db, &own))
            vdb_database_log(db, VECDB_LOG_WARNING, "%s: debris was not removed: %s", db->path, own.message);
        db->has_swept = true;
    }
    atomic_store(&db->is_maintainer, true);
    return VECDB_OK;
}

void vdb_append_end(vecdb *db)
{
    atomic_store(&db->is_maintainer, false);
    vdb_state_release_maintainer(db->state);
    end_turn(db);
}

/* ------------------------------------------------------------------ where to append */

struct place {
    struct vdb_extent_row last_in_file; /* of the newest generation; id 0: none */
    uint64_t last_slot;                 /* of all extents */
    bool any;
};

static int look_at_extent(void *context, const struct vdb_extent_row *row)
{
    struct place *place = context;
    if (!place->any || row->ref.last_slot > place->last_slot)
        place->last_slot = row->ref.last_slot;
    place->any = true;
    const struct vdb_extent_row *last = &place->last_in_file;
    if (!last->id || row->generation > last->generation ||
        (row->generation == last->generation && row->ref.offset > last->ref.offset))
        place->last_in_file = *row;
    return VECDB_OK;
}

static bool is_abandoned(const vecdb *db, uint64_t field, uint64_t generation)
{
    for (size_t i = 0; i < db->n_abandoned; i++)
        if (db->abandoned[2 * i] == field && db->abandoned[2 * i + 1] == generation)
            return true;
    return false;
}

static void abandon(vecdb *db, uint64_t field, uint64_t generation)
{
    uint64_t *more = vdb_realloc_array(&db->memory, db->abandoned, db->n_abandoned + 1, 2 * sizeof *more);
    if (!more)
        return; /* the sync is tried again, and fails again */
    db->abandoned = more;
    more[2 * db->n_abandoned] = field;
    more[2 * db->n_abandoned++ + 1] = generation;
}

/* Open the newest generation for writing, if there is one to append to: of this store, and not full. */
static int open_newest(vecdb *db, const struct vdb_field_row *field, uint64_t store, uint64_t generation,
                       struct vdb_append *append, uint64_t *end, vecdb_error *err)
{
    if (!generation || is_abandoned(db, field->id, generation))
        return VECDB_NOT_FOUND;
    char *path = vdb_vector_path(db, field->id, generation);
    if (!path)
        return vdb_fail_memory(err, 64);
    int status = db->vfs->open(db->vfs, path, VDB_FILE_WRITE, &append->file, err);
    vdb_free(&db->memory, path);
    if (status)
        return status;
    status = db->vfs->size(append->file, end, err);
    if (!status && (*end < VDB_FILE_HEADER_BYTES || *end > FILE_LIMIT_BYTES))
        status = VECDB_NOT_FOUND;
    if (!status)
        status = vdb_vector_file_verify(append->file, vdb_catalog_uuid(db->catalog), store, err);
    if (status) {
        db->vfs->close(append->file);
        append->file = NULL;
    }
    return status;
}

/* Make the next generation, passing over names that debris has. */
static int create_next(vecdb *db, const struct vdb_field_row *field, uint64_t store, uint64_t generation,
                       struct vdb_append *append, vecdb_error *err)
{
    for (int attempt = 0; attempt < 1000; attempt++) {
        char *path = vdb_vector_path(db, field->id, ++generation);
        if (!path)
            return vdb_fail_memory(err, 64);
        int status = db->vfs->open(db->vfs, path, VDB_FILE_CREATE, &append->file, err);
        if (!status) {
            append->row.generation = generation;
            append->is_new_file = true;
            status = vdb_vector_file_begin(append->file, vdb_catalog_uuid(db->catalog), field->id, generation, store,
                                           err);
        }
        vdb_free(&db->memory, path);
        if (status != VECDB_EXISTS)
            return status;
    }
    return vdb_fail(err, VECDB_EXISTS, "%s: a thousand names of vector files are taken; files were put there that do "
                    "not belong to the database", db->path);
}

/* A writer at `end` of the append's file, growing the extent `grow` (NULL: none). */
static int begin_writer(vecdb *db, const struct vdb_field_row *field, uint64_t end, const struct vdb_extent_ref *grow,
                        struct vdb_append *append, vecdb_error *err)
{
    struct vdb_extent_writer_options options = {.memory = &db->memory,
                                                .file = append->file,
                                                .offset = end,
                                                .type = field->type,
                                                .dimension = field->dimension,
                                                .compression = field->compression,
                                                .grow = grow,
                                                .cache = db->cache};
    append->begin = end;
    return vdb_extent_writer_new(&options, &append->writer, err);
}

int vdb_append_open(vecdb *db, struct vdb_connection *c, const struct vdb_field_row *field, uint64_t store,
                    uint32_t first_slot, bool may_grow, uint64_t except, struct vdb_append *append, vecdb_error *err)
{
    struct place place = {.any = false};
    uint64_t end = VDB_FILE_HEADER_BYTES;
    bool grows = false;
    *append = (struct vdb_append){.field = field->id};
    uint64_t newest = 0; /* the catalog knows; or, within one packing, the caller knows better */
    int status = vdb_field_generation(c, field->id, &newest, err);
    if (status || (status = vdb_extents_read(c, field->id, look_at_extent, &place, err)))
        return status;
    if (newest < field->generation)
        newest = field->generation;
    const struct vdb_extent_row *last = &place.last_in_file;
    vecdb_error ignored;
    status = newest == except ? VECDB_NOT_FOUND : open_newest(db, field, store, newest, append, &end, &ignored);
    if (!status && last->generation == newest && !vdb_range_is_inside(last->ref.offset, last->ref.length, end)) {
        db->vfs->close(append->file); /* cut off: what was in it may be put back, if we write nothing in its place */
        append->file = NULL;
        status = VECDB_CORRUPT;
    }
    if (status) {
        end = VDB_FILE_HEADER_BYTES;
        if ((status = create_next(db, field, store, newest, append, err)))
            goto done;
    } else {
        append->row.generation = newest;
        grows = may_grow && last->id && last->generation == newest &&
                last->ref.length < GROW_LIMIT_BYTES && last->ref.last_slot == place.last_slot &&
                first_slot > place.last_slot && end == last->ref.offset + last->ref.length;
    }
    if (grows) {
        bool has = false;
        status = vdb_tail_has_between(c, field->id, last->ref.last_slot, first_slot, &has, err);
        if (status)
            goto done;
        grows = !has;
    }
    if (grows)
        append->row = *last;
    status = begin_writer(db, field, end, grows ? &last->ref : NULL, append, err);
done:
    if (status)
        vdb_append_undo(db, append);
    return status;
}

int vdb_append_open_unnamed(vecdb *db, struct vdb_connection *c, const struct vdb_field_row *field, uint64_t store,
                            uint64_t generation, struct vdb_append *append, vecdb_error *err)
{
    uint64_t newest = 0, end = VDB_FILE_HEADER_BYTES;
    vecdb_error ignored;
    *append = (struct vdb_append){.field = field->id, .row.generation = generation, .is_rewrite = true};
    int status = vdb_field_generation(c, field->id, &newest, err);
    if (status)
        return status;
    if (open_newest(db, field, store, generation, append, &end, &ignored)) {
        end = VDB_FILE_HEADER_BYTES;
        status = create_next(db, field, store, newest > generation ? newest : generation, append, err);
    }
    if (!status)
        status = begin_writer(db, field, end, NULL, append, err);
    if (status)
        vdb_append_undo(db, append);
    return status;
}

int vdb_append_finish(vecdb *db, struct vdb_append *append, vecdb_error *err)
{
    int status = vdb_extent_writer_finish(append->writer, &append->row.ref, err);
    if (!status && append->is_new_file && !db->is_memory)
        status = db->vfs->sync_directory(db->vfs, db->path, err);
    if (status)
        abandon(db, append->field, append->row.generation);
    else
        atomic_fetch_add_explicit(append->is_rewrite ? &db->vector_bytes_rewritten : &db->vector_bytes_written,
                                  append->row.ref.offset + append->row.ref.length - append->begin,
                                  memory_order_relaxed);
    return status;
}

void vdb_append_release(vecdb *db, struct vdb_append *append)
{
    vdb_extent_writer_free(append->writer);
    if (append->file)
        db->vfs->close(append->file);
    append->writer = NULL;
    append->file = NULL;
}

void vdb_append_undo(vecdb *db, struct vdb_append *append)
{
    char *path = append->is_new_file ? vdb_vector_path(db, append->field, append->row.generation) : NULL;
    vecdb_error ignored;
    vdb_append_release(db, append);
    if (path)
        db->vfs->remove(db->vfs, path, &ignored);
    vdb_free(&db->memory, path);
    append->is_new_file = false;
}

int vdb_append_commit(struct vdb_connection *c, const struct vdb_append *append, vecdb_error *err)
{
    int status = vdb_extents_put(c, append->field, &append->row, err);
    return status ? status : vdb_field_set_generation(c, append->field, append->row.generation, err);
}
