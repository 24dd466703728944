/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/snapshot.c - named states of the database, kept in directories of their own inside of it
 *
 *     my.vecdb/
 *       catalog.sqlite       table `snapshots`: id 3, name "before the import"
 *       vectors-1-1
 *       snapshot-3/          a copy of the database (backup.c), its vector files linked
 *         catalog.sqlite
 *         vectors-1-1        the same file
 *         state              whoever has the snapshot open holds a lock on it
 *
 * What keeps a snapshot is the directory, what makes it one is the row. A directory without a row is debris,
 * or is being made, or was dropped while somebody has it open; the lock on its `state` tells: it is held
 * alone by who makes it and shared by who reads it, and who can have it alone may remove the directory.
 *
 *     create   commit: reserve a number      drop    commit: remove the row
 *              copy, `state` held alone              `state` alone?  yes: remove the directory
 *              commit: the row                                       no: leave "dropped" in it
 *              give `state` back             close   "dropped" there and `state` alone?  remove it
 *
 * Invariants
 *   1. A number is reserved by a commit before its directory is made, and never given out again: a handle
 *      that looked a name up can at worst find that its directory is gone, never that it is another's.
 *   2. A directory is removed only by who holds its `state` alone, has then seen that no row names it, and
 *      knows that no power cut, and no commit that failed half-way, can bring back a state in which one
 *      does (vdb_append_secure).
 *   3. A handle on a snapshot holds the `state` of the database too: nobody replaces or repairs that
 *      meanwhile.
 *
 * Rejected: keeping old extents named by the live catalog (what reads the old state would have to know
 * which rows are of it, and everything that compaction gives back would have to ask); the maintainer's lock
 * around making (a snapshot would wait for a compaction).
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "backup.h"
#include "base/names.h"
#include "storage/catalog_backup.h"
#include "validate.h"

#define MOST_ATTEMPTS 16 /* each takes a sweep, or a power cut that took back a reserving commit */

static char *snapshot_path(vecdb *db, uint64_t id)
{
    char name[40];
    snprintf(name, sizeof name, "snapshot-%llu", (unsigned long long)id);
    return vdb_path_join(&db->memory, db->path, name);
}

static int check_possible(vecdb *db, const char *name, vecdb_error *err)
{
    if (db->is_memory)
        return vdb_fail(err, VECDB_UNSUPPORTED,
                        "a database in memory has no snapshots; vecdb_backup writes it to a directory");
    return vdb_check_name("snapshot", name, err);
}

/* ------------------------------------------------------------------ removing directories */

/* True: it is gone. Its `state` was had alone. */
static bool remove_directory(struct vdb_vfs *vfs, const char *path)
{
    enum vdb_path_kind kind;
    vecdb_error ignored;
    char *state = NULL;
    int fd = -1, status = vfs->kind(vfs, path, &kind, &ignored);
    if (status || kind != VDB_PATH_DIRECTORY || vdb_path_is_link(path))
        return !status;
    if ((state = vdb_path_join(vfs->memory, path, "state")) && !vdb_state_seize(state, &fd, &ignored))
        status = vdb_copy_remove(vfs, path, true, &ignored);
    else
        status = VECDB_BUSY;
    vdb_state_release_all(fd);
    vdb_free(vfs->memory, state);
    return !status;
}

/* Of a snapshot whose row is gone for good. Who has it open removes it when he closes it. */
static void remove_dropped(vecdb *db, uint64_t id)
{
    char *path = snapshot_path(db, id), *mark = path ? vdb_path_join(&db->memory, path, "dropped") : NULL;
    struct vdb_file *file;
    vecdb_error ignored;
    bool is_gone = path && remove_directory(db->vfs, path);
    if (!is_gone && mark && !db->vfs->open(db->vfs, mark, VDB_FILE_CREATE, &file, &ignored)) {
        db->vfs->close(file);
        is_gone = remove_directory(db->vfs, path); /* the last reader may have left before it saw the mark */
    }
    if (!is_gone)
        db->has_swept = false;
    vdb_free(&db->memory, path);
    vdb_free(&db->memory, mark);
}

struct id_list {
    vecdb *db;
    uint64_t *ids;
    size_t n;
};

static bool note_directory(void *context, const char *name)
{
    struct id_list *list = context;
    uint64_t id;
    if (!vdb_name_numbers(name, "snapshot-", &id, 1))
        return true;
    uint64_t *more = vdb_realloc_array(&list->db->memory, list->ids, list->n + 1, sizeof *more);
    if (!more)
        return false;
    list->ids = more;
    more[list->n++] = id;
    return true;
}

static int keep_unnamed(struct id_list *list, vecdb_error *err)
{
    struct vdb_connection *c;
    uint64_t sequence;
    size_t n_unnamed = 0;
    int status = vdb_read_begin(list->db->catalog, &c, &sequence, err);
    if (status)
        return status;
    for (size_t i = 0; i < list->n && !status; i++) {
        bool has = true;
        status = vdb_snapshot_has(c, list->ids[i], &has, err);
        if (!has)
            list->ids[n_unnamed++] = list->ids[i];
    }
    vdb_read_end(c);
    list->n = n_unnamed;
    return status;
}

/* Its `state` is held alone. A commit that failed may still lie in the WAL and come back; one that succeeds is
 * written over it. */
static int is_debris(vecdb *db, uint64_t id, bool *answer, vecdb_error *err)
{
    struct vdb_connection *c;
    uint64_t sequence;
    bool has = true;
    *answer = false;
    int status = vdb_write_begin(db->catalog, &c, &sequence, err);
    if (status)
        return status;
    if ((status = vdb_snapshot_has(c, id, &has, err)) || has) {
        vdb_write_rollback(c);
        return status;
    }
    status = vdb_write_commit(c, err);
    return status ? status : vdb_append_secure(db, sequence, answer, err);
}

static int sweep_one(vecdb *db, uint64_t id, vecdb_error *err)
{
    char *path = snapshot_path(db, id), *state = path ? vdb_path_join(&db->memory, path, "state") : NULL;
    int fd = -1, status = state ? VECDB_OK : vdb_fail_memory(err, strlen(db->path));
    vecdb_error ignored;
    bool answer = false;
    /* In use, or being made, or gone: all of these are no errors. */
    if (!status && !vdb_path_is_link(path) && !vdb_state_seize(state, &fd, &ignored)) {
        status = is_debris(db, id, &answer, err);
        if (!status && answer)
            status = vdb_copy_remove(db->vfs, path, true, err);
        if (!status && answer)
            vdb_database_log(db, VECDB_LOG_INFO, "%s: removed a snapshot that no commit names", path);
    }
    vdb_state_release_all(fd);
    vdb_free(&db->memory, state);
    vdb_free(&db->memory, path);
    return status;
}

int vdb_snapshot_sweep(vecdb *db, vecdb_error *err)
{
    if (db->is_memory || db->is_readonly)
        return VECDB_OK;
    struct id_list list = {.db = db};
    int status = db->vfs->list(db->vfs, db->path, note_directory, &list, err);
    if (!status && list.n)
        status = keep_unnamed(&list, err);
    for (size_t i = 0; i < list.n && !status; i++)
        status = sweep_one(db, list.ids[i], err);
    vdb_free(&db->memory, list.ids);
    return status;
}

/* ------------------------------------------------------------------ create */

struct naming {
    struct vdb_snapshot_row row;
    bool is_applied; /* so it may be committed, even if an error says that it is not */
};

static int apply_reservation(void *context, struct vdb_transaction *transaction, vecdb_error *err)
{
    struct naming *naming = context;
    return vdb_snapshot_reserve(transaction->connection, &naming->row.id, err);
}

static int apply_naming(void *context, struct vdb_transaction *transaction, vecdb_error *err)
{
    struct naming *naming = context;
    bool added = false;
    int status = vdb_snapshot_add(transaction->connection, &naming->row, &added, err);
    if (!status && !added)
        status = vdb_fail(err, VECDB_EXISTS, "there is a snapshot \"%s\" already", naming->row.name);
    naming->is_applied = !status;
    return status;
}

static int find_row(vecdb *db, const char *name, struct vdb_snapshot_row *row, bool *found, vecdb_error *err)
{
    struct vdb_connection *c;
    uint64_t sequence;
    int status = vdb_read_begin(db->catalog, &c, &sequence, err);
    if (status)
        return status;
    status = vdb_snapshot_find(c, name, row, found, err);
    vdb_read_end(c);
    return status;
}

/* A directory of a new number, filled; its `state` is held. A number may turn out to be taken: by what a power
 * cut left, or because a sweep saw the directory before it was held. */
static int make_copy(vecdb *db, struct naming *naming, char **path, int *fd, vecdb_error *err)
{
    vecdb_error problem = VECDB_ERROR_INIT;
    bool is_taken = true;
    int status = VECDB_OK;
    for (int attempt = 0; attempt < MOST_ATTEMPTS && is_taken; attempt++) {
        vdb_free(&db->memory, *path);
        *path = NULL;
        if ((status = vdb_commit(db, apply_reservation, naming, &problem)))
            break;
        if (!(*path = snapshot_path(db, naming->row.id)))
            return vdb_fail_memory(err, strlen(db->path));
        struct vdb_copy_options copy = {.path = *path, .link = true, .phase = "snapshot", .is_taken = &is_taken};
        status = vdb_copy_database(db, &copy, &naming->row.sequence, fd, &problem);
    }
    if (status && err)
        *err = problem;
    return status;
}

int vecdb_snapshot_create(vecdb *db, const char *name, vecdb_error *err)
{
    struct naming naming = {.is_applied = false};
    bool found = false;
    char *path = NULL;
    int fd = -1, status = vdb_database_check_writable(db, err);
    if (status || (status = check_possible(db, name, err)) ||
        (status = find_row(db, name, &naming.row, &found, err)))
        return status;
    if (found)
        return vdb_fail(err, VECDB_EXISTS, "there is a snapshot \"%s\" already", name);
    snprintf(naming.row.name, sizeof naming.row.name, "%s", name);
    naming.row.created = (int64_t)time(NULL);
    status = make_copy(db, &naming, &path, &fd, err);
    if (!status && (status = vdb_commit(db, apply_naming, &naming, err))) {
        vecdb_error ignored;
        if (!naming.is_applied)
            vdb_copy_remove(db->vfs, path, true, &ignored);
        db->has_swept = false;
    }
    vdb_state_release_all(fd);
    vdb_free(&db->memory, path);
    if (status && naming.is_applied) {
        vecdb_error ignored;
        vdb_snapshot_sweep(db, &ignored); /* when the next commit succeeds, this one did not happen */
    }
    return status;
}

/* ------------------------------------------------------------------ drop, list */

struct dropping {
    const char *name;
    uint64_t id, sequence;
};

static int apply_drop(void *context, struct vdb_transaction *transaction, vecdb_error *err)
{
    struct dropping *dropping = context;
    struct vdb_snapshot_row row;
    bool found;
    int status = vdb_snapshot_find(transaction->connection, dropping->name, &row, &found, err);
    if (status)
        return status;
    if (!found)
        return vdb_fail(err, VECDB_NOT_FOUND, "there is no snapshot \"%s\"", dropping->name);
    dropping->id = row.id;
    dropping->sequence = transaction->sequence;
    return vdb_snapshot_remove(transaction->connection, row.id, err);
}

int vecdb_snapshot_drop(vecdb *db, const char *name, vecdb_error *err)
{
    struct dropping dropping = {.name = name};
    bool is_secure = false;
    vecdb_error ignored;
    int status = vdb_database_check_writable(db, err);
    if (status || (status = check_possible(db, name, err)) || (status = vdb_commit(db, apply_drop, &dropping, err)))
        return status;
    /* It is dropped. What cannot be removed now is debris, which a later sweep removes. */
    if (!vdb_append_secure(db, dropping.sequence, &is_secure, &ignored) && is_secure)
        remove_dropped(db, dropping.id);
    else
        db->has_swept = false;
    return VECDB_OK;
}

struct telling {
    vecdb_snapshot_fn each;
    void *context;
    vecdb_error *err;
};

static int tell_row(void *context, const struct vdb_snapshot_row *row)
{
    struct telling *telling = context;
    vecdb_snapshot_info info = {.name = row->name, .sequence = row->sequence, .created = row->created};
    if (telling->each(telling->context, &info))
        return vdb_fail(telling->err, VECDB_INTERRUPTED, "the callback ended the list of snapshots");
    return VECDB_OK;
}

int vecdb_snapshots(vecdb *db, vecdb_snapshot_fn each, void *context, vecdb_error *err)
{
    struct telling telling = {each, context, err};
    struct vdb_connection *c;
    uint64_t sequence;
    int status = vdb_database_check(db, err);
    if (status)
        return status;
    if (!each)
        return vdb_fail(err, VECDB_MISUSE, "the callback is NULL");
    if ((status = vdb_read_begin(db->catalog, &c, &sequence, err)))
        return status;
    status = vdb_snapshot_each(c, tell_row, &telling, err);
    vdb_read_end(c);
    return status;
}

/* ------------------------------------------------------------------ open, close */

/* What the name stands for, from the database's own catalog. */
static int resolve(vecdb *db, const char *name, const struct vdb_io_hook *hook, uint64_t *id, vecdb_error *err)
{
    struct vdb_catalog_options options = {.memory = &db->memory,
                                          .directory = db->path,
                                          .readonly = db->is_readonly,
                                          .durable = true,
                                          .busy_timeout_ms = db->options.busy_timeout_ms,
                                          .hook = hook,
                                          .log = db->options.log,
                                          .log_context = db->options.log_context};
    struct vdb_snapshot_row row;
    bool found = false;
    int status = vdb_catalog_open(&options, &db->catalog, err);
    if (!status)
        status = find_row(db, name, &row, &found, err);
    vdb_catalog_close(db->catalog);
    db->catalog = NULL;
    if (!status && !found)
        status = vdb_fail(err, VECDB_NOT_FOUND, "there is no snapshot \"%s\" of %s", name, db->path);
    if (!status)
        *id = row.id;
    return status;
}

static int hold_owner(vecdb *db, const struct vdb_io_hook *hook, vecdb_error *err)
{
    char *path = vdb_path_join(&db->memory, db->path, "state");
    if (!path)
        return vdb_fail_memory(err, strlen(db->path));
    struct vdb_state_options options = {.memory = &db->memory, .path = path, .readonly = true, .hook = hook};
    int status = vdb_state_open(&options, &db->owner_state, err);
    vdb_free(&db->memory, path);
    return status;
}

int vdb_snapshot_enter(vecdb *db, const struct vdb_io_hook *hook, vecdb_error *err)
{
    const char *name = db->options.snapshot;
    uint64_t id = 0;
    db->options.snapshot = NULL; /* the caller's, borrowed for the call */
    int status = check_possible(db, name, err);
    if (!status && db->options.mode == VECDB_OPEN_NEW)
        status = vdb_fail(err, VECDB_INVALID, "a snapshot can be opened, not made, with vecdb_options.snapshot");
    if (!status)
        status = hold_owner(db, hook, err);
    if (!status)
        status = resolve(db, name, hook, &id, err);
    if (status)
        return status;
    char *path = snapshot_path(db, id);
    if (!path)
        return vdb_fail_memory(err, strlen(db->path));
    vdb_free(&db->memory, db->path);
    db->path = path;
    db->is_snapshot = db->is_readonly = true;
    if (db->options.mode != VECDB_OPEN_READONLY)
        db->options.mode = VECDB_OPEN_EXISTING;
    return VECDB_OK;
}

void vdb_snapshot_leave(vecdb *db)
{
    vdb_state_close(db->owner_state);
    db->owner_state = NULL;
    if (!db->is_snapshot || db->options.mode == VECDB_OPEN_READONLY)
        return; /* READONLY: not a byte is written, not even by removing */
    enum vdb_path_kind kind = VDB_PATH_MISSING;
    vecdb_error ignored;
    char *mark = vdb_path_join(&db->memory, db->path, "dropped");
    if (mark && !db->vfs->kind(db->vfs, mark, &kind, &ignored) && kind == VDB_PATH_FILE)
        remove_directory(db->vfs, db->path);
    vdb_free(&db->memory, mark);
}
