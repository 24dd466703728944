/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/restore.c - a backup takes the place of a database
 *
 *                         my.vecdb              my.vecdb.restoring     my.vecdb.replaced-1
 *     1  before           the old one           -                      -
 *     2  copying          the old one, held     being made             -
 *     3  copied           the old one, held     the new one, held      -
 *     4  renamed once     -                     the new one, held      the old one
 *     5  renamed twice    the new one           -                      the old one
 *
 * The state of a database that is held cannot be taken by anyone else: opening says BUSY. A crash in 2 or 3
 * leaves the old database in its place, which opens as ever; the next restore removes what it finds under
 * my.vecdb.restoring. In 4 there is nothing of the name; opening says so, and does not make a new database
 * (database.c, look_for_restore); the next restore ends in 5. Nothing is ever deleted but what restores
 * have made and not completed.
 *
 * Rejected: renaming a copy over the old one (a directory that is not empty cannot be replaced, and whoever
 * restores the wrong backup wants the old one back); exchanging the two names, which not all systems can.
 */
#include <stdio.h>
#include <string.h>

#include "backup.h"

#define MOST_REPLACED 10000

struct restore {
    vecdb *source;
    struct vdb_vfs *vfs;
    struct vdb_memory *memory;
    const char *path; /* from the root on */
    char *restoring;  /* <path>.restoring */
    int old_fd, new_fd; /* of their `state`; -1: not held */
    bool has_old;     /* there is something at `path` */
};

static char *with_suffix(struct restore *restore, const char *suffix)
{
    size_t room = strlen(restore->path) + strlen(suffix) + 1;
    char *path = vdb_alloc(restore->memory, room);
    if (path)
        snprintf(path, room, "%s%s", restore->path, suffix);
    return path;
}

static int seize(struct restore *restore, const char *directory, int *fd, vecdb_error *err)
{
    char *state = vdb_path_join(restore->memory, directory, "state");
    int status = state ? vdb_state_seize(state, fd, err) : vdb_fail_memory(err, strlen(directory));
    vdb_free(restore->memory, state);
    return status;
}

struct finding {
    bool is_ours, has_others;
};

static bool look_at_name(void *context, const char *name)
{
    struct finding *finding = context;
    if (!strcmp(name, "catalog.sqlite") || !strcmp(name, VDB_PARTIAL_CATALOG))
        finding->is_ours = true;
    else if (strcmp(name, "lost+found"))
        finding->has_others = true;
    return true;
}

/* What lies at `path`: nothing, an empty directory, a database (then it is held), or none of our business. */
static int take_old(struct restore *restore, vecdb_error *err)
{
    struct vdb_vfs *vfs = restore->vfs;
    enum vdb_path_kind kind;
    struct finding finding = {false, false};
    int status = vfs->kind(vfs, restore->path, &kind, err);
    if (status || kind == VDB_PATH_MISSING)
        return status;
    if (kind != VDB_PATH_DIRECTORY)
        return vdb_fail(err, VECDB_INVALID, "%s is a file; a vecdb database is a directory", restore->path);
    if ((status = vfs->list(vfs, restore->path, look_at_name, &finding, err)))
        return status;
    if (!finding.is_ours && finding.has_others)
        return vdb_fail(err, VECDB_INVALID, "%s holds other files and no vecdb database", restore->path);
    restore->has_old = true;
    return finding.is_ours ? seize(restore, restore->path, &restore->old_fd, err) : VECDB_OK;
}

/* What a restore that was cut off has left. */
static int clear_leftover(struct restore *restore, vecdb_error *err)
{
    struct vdb_vfs *vfs = restore->vfs;
    enum vdb_path_kind kind;
    int fd = -1, status = vfs->kind(vfs, restore->restoring, &kind, err);
    if (status || kind == VDB_PATH_MISSING)
        return status;
    if (kind != VDB_PATH_DIRECTORY || vdb_path_is_link(restore->restoring))
        return vdb_fail(err, VECDB_EXISTS, "%s is in the way; remove it", restore->restoring);
    status = seize(restore, restore->restoring, &fd, err);
    if (status == VECDB_BUSY)
        return vdb_fail(err, VECDB_BUSY, "another restore to %s is at work", restore->path);
    if (!status)
        status = vdb_copy_remove(vfs, restore->restoring, true, err);
    vdb_state_release_all(fd);
    return status;
}

/* The old one takes a name that is free. `replaced` is the caller's. */
static int move_old(struct restore *restore, char **replaced, vecdb_error *err)
{
    vecdb_error problem = VECDB_ERROR_INIT;
    int status = VECDB_EXISTS;
    for (int n = 1; status == VECDB_EXISTS && n <= MOST_REPLACED; n++) {
        char suffix[32];
        snprintf(suffix, sizeof suffix, ".replaced-%d", n);
        vdb_free(restore->memory, *replaced);
        if (!(*replaced = with_suffix(restore, suffix)))
            return vdb_fail_memory(err, strlen(restore->path));
        status = restore->vfs->rename(restore->vfs, restore->path, *replaced, &problem);
    }
    if (status && err)
        *err = problem;
    return status;
}

static int swap(struct restore *restore, vecdb_error *err)
{
    struct vdb_vfs *vfs = restore->vfs;
    char *replaced = NULL, *parent = vdb_path_parent(restore->memory, restore->path);
    bool is_moved = false;
    int status = parent ? VECDB_OK : vdb_fail_memory(err, strlen(restore->path));
    if (!status && restore->has_old && restore->old_fd < 0)
        status = vfs->remove_directory(vfs, restore->path, err); /* it was empty */
    else if (!status && restore->has_old)
        is_moved = !(status = move_old(restore, &replaced, err));
    if (!status && (status = vfs->rename(vfs, restore->restoring, restore->path, err)) && is_moved) {
        vecdb_error ignored;
        vfs->rename(vfs, replaced, restore->path, &ignored); /* the old one back to where it was */
    } else if (!status) {
        status = vfs->sync_directory(vfs, parent, err); /* done, but a power cut may show 3 or 4 again */
    }
    vdb_free(restore->memory, replaced);
    vdb_free(restore->memory, parent);
    return status;
}

/* A restore reads one place and writes to another. */
static int test_apart(struct restore *restore, vecdb_error *err)
{
    if (vdb_path_is_inside(restore->memory, restore->path, restore->source->path))
        return vdb_fail(err, VECDB_INVALID, "%s is the backup itself, or lies in it", restore->path);
    return VECDB_OK;
}

static int run(struct restore *restore, const vecdb_backup_options *options, vecdb_error *err)
{
    struct vdb_copy_options copy = {.phase = "restore"};
    if (options) {
        copy.link = options->link != 0;
        copy.progress = options->progress;
        copy.progress_context = options->progress_context;
    }
    if (!(restore->restoring = with_suffix(restore, VDB_RESTORING_SUFFIX)))
        return vdb_fail_memory(err, strlen(restore->path));
    copy.path = restore->restoring;
    int status = test_apart(restore, err);
    if (!status)
        status = take_old(restore, err);
    if (!status)
        status = clear_leftover(restore, err);
    if (!status)
        status = vdb_copy_database(restore->source, &copy, NULL, &restore->new_fd, err);
    if (!status && (status = swap(restore, err)) && restore->new_fd >= 0) {
        enum vdb_path_kind kind;
        vecdb_error ignored;
        /* Still under its first name: it goes. */
        if (!restore->vfs->kind(restore->vfs, restore->restoring, &kind, &ignored) && kind == VDB_PATH_DIRECTORY)
            vdb_copy_remove(restore->vfs, restore->restoring, true, &ignored);
    }
    return status;
}

int vdb_database_restore(const char *backup, const char *path, const vecdb_backup_options *options,
                         const struct vdb_io_hook *hook, vecdb_error *err)
{
    if (!backup || !*backup || !path || !*path || !strcmp(path, ":memory:") || !strcmp(backup, ":memory:"))
        return vdb_fail(err, VECDB_INVALID, "vecdb_restore needs two paths of directories");
    vecdb_backup_options own;
    int status = VDB_STRUCT_COPY(&own, options, vecdb_backup_options, progress_context, err);
    if (status)
        return status;
    vecdb_options how = {.size = sizeof how, .mode = VECDB_OPEN_READONLY, .threads = VECDB_THREADS_NONE};
    struct restore restore = {.old_fd = -1, .new_fd = -1};
    status = vdb_database_open(backup, &how, hook, &restore.source, err);
    if (status)
        return status;
    restore.memory = &restore.source->memory;
    restore.vfs = restore.source->vfs;
    char *full = vdb_path_normal(restore.memory, path);
    restore.path = full;
    status = full ? run(&restore, &own, err) : vdb_fail_memory(err, strlen(path));
    vdb_state_release_all(restore.new_fd);
    vdb_state_release_all(restore.old_fd);
    vdb_free(restore.memory, restore.restoring);
    vdb_free(restore.memory, full);
    vecdb_close(restore.source);
    return status;
}

int vecdb_restore(const char *backup, const char *path, const vecdb_backup_options *options, vecdb_error *err)
{
    return vdb_database_restore(backup, path, options, NULL, err);
}
