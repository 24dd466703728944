/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/backup.c - copies of a database, made while others read and write it
 *
 *     original                                     copy
 *
 *     read transaction begins  -- its number -->   directory, `state` held alone
 *       extents -> vector files, all opened        vectors-<f>-<g>      links, if asked for
 *       every page of the catalog            -->   catalog.partial      synced
 *     read transaction ends
 *       pages of the open files              -->   vectors-<f>-<g>      copies, verified, synced
 *                                                  state                synced
 *                                                  the directory, and the one around it: synced
 *                                                  catalog.partial is renamed catalog.sqlite, synced
 *
 * A copy is a database when, and only when, there is a catalog.sqlite in it. So a copy that was cut off
 * cannot be opened, and is told by its catalog.partial.
 *
 * Invariants
 *   1. Catalog and vector files are of one state. The files are opened inside of the transaction whose rows
 *      name them; a compaction that removes one before we come to it has also committed something newer,
 *      and we begin again. What is open can be removed: we still read it.
 *   2. Every page is verified before it is written. A damaged one ends the copy.
 *   3. A vector file with two names is appended to by one database only: the one that made it. In the copy
 *      the number of every field's newest file is raised, so that its next vectors go to a file of its
 *      own. The original may go on appending, behind everything that the copy's catalog names; bytes that
 *      are named never change (extent.h), and to remove a name leaves the other.
 *   4. The catalog is copied first, and the transaction ended, because it keeps the write-ahead log from
 *      being emptied; vector files may be many gigabytes.
 *   5. Whoever makes a copy holds its `state` alone, from before the first byte to the end. So two that
 *      write to one place, and a sweep that looks for debris (snapshot.c), see each other.
 *
 * Rejected: sealing the original's newest files by a commit of its own before they are linked. It is not
 * needed (3), and every backup would leave the original a small file more.
 */
#include "backup.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/names.h"
#include "storage/catalog_backup.h"

#define MOST_ATTEMPTS 100 /* each needs a compaction that ends within microseconds of our beginning */

struct copied_file {
    struct vdb_vector_file *file; /* NULL: not opened yet */
    struct vdb_extent_row *rows;
    size_t n_rows;
    uint64_t field, generation, store;
    int type;
    uint32_t dimension;
    bool is_linked;
};

struct copy {
    vecdb *db;
    const struct vdb_copy_options *options;
    struct vdb_stop stop;
    struct vdb_vfs *vfs, *inner; /* of the copy: the original's, or made for it */
    bool owns_vfs, made_directory, is_ours; /* is_ours: what is in the directory */
    char *state_path;
    int fd; /* of the copy's `state`; -1: not held */
    uint64_t sequence;
    struct copied_file *files;
    size_t n_files;
    uint64_t n_done, n_vector_bytes, n_catalog_bytes;
    /* While rows are read: */
    struct vdb_connection *connection;
    struct vdb_collection_row collection;
    struct vdb_field_row field;
    size_t first_of_field;
    vecdb_error *err;
};

/* ------------------------------------------------------------------ paths */

char *vdb_path_join(struct vdb_memory *memory, const char *directory, const char *name)
{
    size_t room = strlen(directory) + strlen(name) + 2;
    char *path = vdb_alloc(memory, room);
    if (path)
        snprintf(path, room, "%s/%s", directory, name);
    return path;
}

char *vdb_path_parent(struct vdb_memory *memory, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return vdb_strdup(memory, ".", 1);
    return vdb_strdup(memory, path, slash == path ? 1 : (size_t)(slash - path));
}

bool vdb_path_is_link(const char *path)
{
    struct stat status;
    return !lstat(path, &status) && S_ISLNK(status.st_mode);
}

bool vdb_path_is_inside(struct vdb_memory *memory, const char *path, const char *directory)
{
    char real[PATH_MAX], outer[PATH_MAX];
    if (!realpath(directory, outer))
        return false;
    if (!realpath(path, real)) {
        char *parent = vdb_path_parent(memory, path);
        bool is_known = parent && realpath(parent, real);
        vdb_free(memory, parent);
        if (!is_known)
            return false;
    }
    size_t length = strlen(outer);
    return !strncmp(real, outer, length) && (real[length] == '/' || !real[length]);
}

static char *target_path(struct copy *copy, const char *name)
{
    return vdb_path_join(&copy->db->memory, copy->options->path, name);
}

/* Do something to a file of the copy. */
static int with_path(struct copy *copy, const char *name,
                     int (*act)(struct vdb_vfs *vfs, const char *path, vecdb_error *err), vecdb_error *err)
{
    char *path = target_path(copy, name);
    int status = path ? act(copy->vfs, path, err) : vdb_fail_memory(err, strlen(name));
    vdb_free(&copy->db->memory, path);
    return status;
}

/* ------------------------------------------------------------------ removing a copy */

/* Needs no memory: there may be none, which may be why the copy is removed. */
static int remove_name(struct vdb_vfs *vfs, const char *directory, const char *name, vecdb_error *err)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/%s", directory, name);
    if (n < 0 || (size_t)n >= sizeof path)
        return vdb_fail(err, VECDB_INVALID, "the path %.60s... is too long", directory);
    return vfs->remove(vfs, path, err);
}

static bool is_part_of_copy(const char *name)
{
    uint64_t numbers[2];
    return vdb_name_numbers(name, "vectors-", numbers, 2) ||
           !strncmp(name, "index-", 6) || !strcmp(name, "dropped");
}

struct removal {
    struct vdb_vfs *vfs;
    const char *directory;
    int status;
    vecdb_error *err;
};

static bool remove_part(void *context, const char *name)
{
    struct removal *removal = context;
    if (is_part_of_copy(name))
        removal->status = remove_name(removal->vfs, removal->directory, name, removal->err);
    return !removal->status;
}

int vdb_copy_remove(struct vdb_vfs *vfs, const char *path, bool with_directory, vecdb_error *err)
{
    static const char *const first[] = {"catalog.sqlite",
                                        VDB_PARTIAL_CATALOG,
                                        VDB_PARTIAL_CATALOG "-wal",
                                        VDB_PARTIAL_CATALOG "-journal",
                                        "catalog.sqlite-wal",
                                        "catalog.sqlite-shm"};
    struct removal removal = {.vfs = vfs, .directory = path, .err = err};
    int status = VECDB_OK;
    for (size_t i = 0; i < sizeof first / sizeof *first && !status; i++)
        status = remove_name(vfs, path, first[i], err);
    if (!status)
        status = vfs->list(vfs, path, remove_part, &removal, err);
    if (!status)
        status = removal.status;
    if (!status)
        status = remove_name(vfs, path, "state", err);
    return status || !with_directory ? status : vfs->remove_directory(vfs, path, err);
}

/* ------------------------------------------------------------------ the destination */

struct contents {
    bool has_catalog, has_partial, has_others, has_state;
};

static bool look_at_name(void *context, const char *name)
{
    struct contents *contents = context;
    if (!strcmp(name, "catalog.sqlite"))
        contents->has_catalog = true;
    else if (!strcmp(name, VDB_PARTIAL_CATALOG))
        contents->has_partial = true;
    else if (!strcmp(name, "state"))
        contents->has_state = true;
    else if (strcmp(name, "lost+found"))
        contents->has_others = true;
    return true;
}

static int test_empty(struct copy *copy, bool may_have_state, vecdb_error *err)
{
    const char *path = copy->options->path;
    struct contents contents = {false, false, false, false};
    int status = copy->vfs->list(copy->vfs, path, look_at_name, &contents, err);
    if (status)
        return status;
    if (contents.has_catalog)
        return vdb_fail(err, VECDB_EXISTS, "there is a vecdb database in %s already", path);
    if (contents.has_partial)
        return vdb_fail(err, VECDB_EXISTS,
                        "%s holds a copy of a database that was cut off, or is being made; remove it, or give another "
                        "path", path);
    if (contents.has_others || (contents.has_state && !may_have_state))
        return vdb_fail(err, VECDB_INVALID, "%s holds other files; give the path of a new or an empty directory", path);
    return VECDB_OK;
}

static int open_vfs(struct copy *copy, vecdb_error *err)
{
    vecdb *db = copy->db;
    copy->vfs = db->vfs;
    if (!db->is_memory)
        return VECDB_OK;
    copy->owns_vfs = true;
    copy->vfs = NULL;
    int status = vdb_vfs_posix(&db->memory, false, &copy->vfs, err);
    if (status || !db->hook)
        return status;
    copy->inner = copy->vfs;
    return vdb_vfs_fault(&db->memory, copy->inner, db->hook, &copy->vfs, err);
}

static void close_vfs(struct copy *copy)
{
    if (copy->owns_vfs && copy->vfs)
        copy->vfs->end(copy->vfs);
    if (copy->inner && copy->inner != copy->vfs)
        copy->inner->end(copy->inner);
}

/* Before anything else is there: from now on nobody takes the directory for a place to make a database in. */
static int mark_partial(struct copy *copy, vecdb_error *err)
{
    struct vdb_file *file = NULL;
    char *path = target_path(copy, VDB_PARTIAL_CATALOG);
    int status = path ? copy->vfs->open(copy->vfs, path, VDB_FILE_CREATE, &file, err)
                      : vdb_fail_memory(err, strlen(copy->options->path));
    copy->vfs->close(file);
    vdb_free(&copy->db->memory, path);
    return status;
}

static int prepare_directory(struct copy *copy, vecdb_error *err)
{
    const char *path = copy->options->path;
    struct vdb_vfs *vfs = copy->vfs;
    enum vdb_path_kind kind;
    int status = vfs->kind(vfs, path, &kind, err);
    if (status)
        return status;
    if (kind == VDB_PATH_FILE || kind == VDB_PATH_OTHER)
        return vdb_fail(err, VECDB_INVALID, "%s is a file; give the path of a new or an empty directory", path);
    if (kind == VDB_PATH_MISSING) {
        if ((status = vfs->make_directory(vfs, path, err)))
            return status;
        copy->made_directory = true;
    } else if ((status = test_empty(copy, false, err))) {
        return status;
    }
    if (!(copy->state_path = target_path(copy, "state")))
        return vdb_fail_memory(err, strlen(path));
    status = vdb_state_seize(copy->state_path, &copy->fd, err);
    if (status == VECDB_BUSY || (status == VECDB_NOT_FOUND && copy->made_directory)) /* a sweep was faster */
        return vdb_fail(err, VECDB_BUSY, "something else uses %s just now", path);
    if (!status)
        status = test_empty(copy, true, err); /* we may have waited for another's end */
    copy->is_ours = !status;
    return status ? status : mark_partial(copy, err);
}

/* Not free: in use, or full of something. */
static bool is_taken(const struct copy *copy, int status)
{
    return !copy->is_ours && (status == VECDB_BUSY || status == VECDB_EXISTS || status == VECDB_INVALID);
}

/* What was made goes, if it is ours. */
static void clean_up(struct copy *copy)
{
    vecdb_error ignored;
    if (copy->fd >= 0 && !copy->is_ours) /* it may be that looking failed */
        copy->is_ours = !test_empty(copy, true, &ignored);
    if (copy->is_ours)
        vdb_copy_remove(copy->vfs, copy->options->path, copy->made_directory, &ignored);
    else if (copy->made_directory)
        copy->vfs->remove_directory(copy->vfs, copy->options->path, &ignored); /* empty, or another's by now */
}

/* ------------------------------------------------------------------ what there is to copy */

static int add_extent(void *context, const struct vdb_extent_row *row)
{
    struct copy *copy = context;
    struct vdb_memory *memory = &copy->db->memory;
    size_t f = copy->first_of_field;
    while (f < copy->n_files && copy->files[f].generation != row->generation)
        f++;
    if (f == copy->n_files) {
        struct copied_file *more = vdb_realloc_array(memory, copy->files, copy->n_files + 1, sizeof *more);
        if (!more)
            return vdb_fail_memory(copy->err, sizeof *more);
        copy->files = more;
        more[copy->n_files++] = (struct copied_file){.field = copy->field.id,
                                                     .generation = row->generation,
                                                     .store = copy->collection.store,
                                                     .type = copy->field.type,
                                                     .dimension = copy->field.dimension};
    }
    struct copied_file *file = &copy->files[f];
    struct vdb_extent_row *rows = vdb_realloc_array(memory, file->rows, file->n_rows + 1, sizeof *rows);
    if (!rows)
        return vdb_fail_memory(copy->err, sizeof *rows);
    file->rows = rows;
    rows[file->n_rows++] = *row;
    copy->n_vector_bytes += row->ref.length;
    return VECDB_OK;
}

static int add_field(void *context, const struct vdb_field_row *row)
{
    struct copy *copy = context;
    copy->field = *row;
    copy->first_of_field = copy->n_files;
    return vdb_extents_read(copy->connection, row->id, add_extent, copy, copy->err);
}

static int add_collection(void *context, const struct vdb_collection_row *row)
{
    struct copy *copy = context;
    copy->collection = *row;
    return vdb_field_each(copy->connection, row->id, add_field, copy, copy->err);
}

static void forget_files(struct copy *copy)
{
    for (size_t f = 0; f < copy->n_files; f++) {
        vdb_vector_file_put(copy->files[f].file);
        vdb_free(&copy->db->memory, copy->files[f].rows);
    }
    vdb_free(&copy->db->memory, copy->files);
    copy->files = NULL;
    copy->n_files = 0;
    copy->n_vector_bytes = 0;
}

/* Open every vector file that the transaction's rows name. NOT_FOUND: one has been removed. */
static int list_files(struct copy *copy, vecdb_error *err)
{
    copy->err = err;
    int status = vdb_collection_each(copy->connection, add_collection, copy, err);
    for (size_t f = 0; f < copy->n_files && !status; f++) {
        struct copied_file *file = &copy->files[f];
        status = vdb_vector_file_get(copy->db, file->field, file->generation, &file->file, err);
    }
    return status;
}

/* A read transaction with all of its files open. */
static int begin(struct copy *copy, vecdb_error *err)
{
    uint64_t last = 0;
    for (int attempt = 0;; attempt++) {
        int status = vdb_read_begin(copy->db->catalog, &copy->connection, &copy->sequence, err);
        if (status)
            return status;
        vecdb_error problem = VECDB_ERROR_INIT;
        status = list_files(copy, &problem);
        if (!status)
            return VECDB_OK;
        vdb_read_end(copy->connection);
        copy->connection = NULL;
        forget_files(copy);
        /* A file that nobody has just removed is lost. */
        bool is_lost = attempt && copy->sequence == last;
        if (status != VECDB_NOT_FOUND || is_lost || attempt == MOST_ATTEMPTS)
            return vdb_fail(err, status == VECDB_NOT_FOUND ? VECDB_CORRUPT : status, "%s", problem.message);
        last = copy->sequence;
    }
}

/* ------------------------------------------------------------------ copying */

static int tell(struct copy *copy, vecdb_error *err)
{
    vecdb_progress progress = {.phase = copy->options->phase,
                               .done = copy->n_done,
                               .total = copy->n_catalog_bytes + copy->n_vector_bytes};
    int status = vdb_stop_check(&copy->stop, err);
    if (!status && copy->options->progress && copy->options->progress(copy->options->progress_context, &progress))
        status = vdb_fail(err, VECDB_INTERRUPTED, "the copy was interrupted");
    return status;
}

static int advance_catalog(void *context, uint64_t n_done, uint64_t n_total, vecdb_error *err)
{
    struct copy *copy = context;
    copy->n_done = n_done;
    copy->n_catalog_bytes = n_total;
    return tell(copy, err);
}

static int advance_vectors(void *context, uint64_t n_more, vecdb_error *err)
{
    struct copy *copy = context;
    copy->n_done += n_more;
    return tell(copy, err);
}

static char *vector_target(struct copy *copy, const struct copied_file *file)
{
    char name[64];
    snprintf(name, sizeof name, "vectors-%llu-%llu", (unsigned long long)file->field,
             (unsigned long long)file->generation);
    return target_path(copy, name);
}

static struct vdb_extents_copy describe_copy(struct copy *copy, const struct copied_file *file)
{
    return (struct vdb_extents_copy){.memory = &copy->db->memory,
                                     .from = file->file->file,
                                     .uuid = vdb_catalog_uuid(copy->db->catalog),
                                     .store = file->store,
                                     .type = file->type,
                                     .dimension = file->dimension,
                                     .rows = file->rows,
                                     .n_rows = file->n_rows,
                                     .progress = advance_vectors,
                                     .context = copy};
}

/* Give the vector files second names. Those that cannot have one are copied later. */
static int link_files(struct copy *copy, vecdb_error *err)
{
    vecdb *db = copy->db;
    int status = VECDB_OK;
    for (size_t f = 0; f < copy->n_files && !status; f++) {
        struct copied_file *file = &copy->files[f];
        struct vdb_extents_copy description = describe_copy(copy, file);
        if ((status = vdb_extents_verify(&description, err)))
            return status;
        char *from = vdb_vector_path(db, file->field, file->generation), *to = vector_target(copy, file);
        vecdb_error problem = VECDB_ERROR_INIT;
        status = from && to ? db->vfs->link(db->vfs, from, to, &problem) : vdb_fail_memory(&problem, 64);
        vdb_free(&db->memory, from);
        vdb_free(&db->memory, to);
        file->is_linked = !status;
        if (status == VECDB_UNSUPPORTED || status == VECDB_NOT_FOUND) /* NOT_FOUND: removed just now; it is open */
            status = VECDB_OK;
        else if (status)
            vdb_fail(err, status, "%s", problem.message);
        for (size_t i = 0; i < file->n_rows && file->is_linked; i++)
            copy->n_vector_bytes -= file->rows[i].ref.length;
    }
    return status;
}

static int copy_catalog(struct copy *copy, vecdb_error *err)
{
    char *path = target_path(copy, VDB_PARTIAL_CATALOG);
    if (!path)
        return vdb_fail_memory(err, strlen(copy->options->path));
    struct vdb_catalog_copy catalog = {.memory = &copy->db->memory,
                                       .source = copy->connection,
                                       .path = path,
                                       .hook = copy->db->hook,
                                       .seal = copy->options->link,
                                       .progress = advance_catalog,
                                       .context = copy};
    int status = vdb_catalog_copy(&catalog, err);
    vdb_free(&copy->db->memory, path);
    /* Closing took it away already, if nothing failed then, of which SQLite does not tell. It is empty. */
    return status ? status : with_path(copy, VDB_PARTIAL_CATALOG "-wal", copy->vfs->remove, err);
}

static int copy_file(struct copy *copy, const struct copied_file *file, vecdb_error *err)
{
    struct vdb_extents_copy description = describe_copy(copy, file);
    char *path = vector_target(copy, file);
    int status = path ? copy->vfs->open(copy->vfs, path, VDB_FILE_CREATE, &description.to, err)
                      : vdb_fail_memory(err, 64);
    if (!status)
        status = vdb_extents_copy(&description, err);
    if (!status)
        status = copy->vfs->sync(description.to, err);
    if (description.to)
        copy->vfs->close(description.to);
    vdb_free(&copy->db->memory, path);
    return status;
}

/* Everything is there: make it a database. */
static int complete(struct copy *copy, vecdb_error *err)
{
    struct vdb_vfs *vfs = copy->vfs;
    struct vdb_memory *memory = &copy->db->memory;
    const char *path = copy->options->path;
    char *from = target_path(copy, VDB_PARTIAL_CATALOG), *to = target_path(copy, "catalog.sqlite");
    char *parent = vdb_path_parent(memory, path);
    int status = from && to && parent ? VECDB_OK : vdb_fail_memory(err, strlen(path));
    if (!status)
        status = vdb_state_fill(copy->state_path, copy->fd, vdb_catalog_uuid(copy->db->catalog), copy->sequence,
                                copy->db->hook, err);
    if (!status)
        status = vfs->sync_directory(vfs, path, err);
    if (!status && copy->made_directory)
        status = vfs->sync_directory(vfs, parent, err);
    if (!status)
        status = vfs->rename(vfs, from, to, err);
    if (!status)
        status = vfs->sync_directory(vfs, path, err);
    vdb_free(memory, from);
    vdb_free(memory, to);
    vdb_free(memory, parent);
    return status;
}

static int fill_directory(struct copy *copy, vecdb_error *err)
{
    int status = begin(copy, err);
    if (status)
        return status;
    if (copy->options->link && !copy->db->is_memory)
        status = link_files(copy, err);
    if (!status)
        status = copy_catalog(copy, err);
    vdb_read_end(copy->connection);
    for (size_t f = 0; f < copy->n_files && !status; f++)
        if (!copy->files[f].is_linked)
            status = copy_file(copy, &copy->files[f], err);
    if (!status)
        status = complete(copy, err);
    return status;
}

int vdb_copy_database(vecdb *db, const struct vdb_copy_options *options, uint64_t *sequence, int *lock_fd,
                      vecdb_error *err)
{
    struct copy copy = {.db = db, .options = options, .fd = -1};
    vdb_stop_init(&copy.stop, db, 0);
    int status = open_vfs(&copy, err);
    if (!status)
        status = prepare_directory(&copy, err);
    if (options->is_taken)
        *options->is_taken = is_taken(&copy, status);
    if (!status)
        status = fill_directory(&copy, err);
    if (status && copy.vfs)
        clean_up(&copy);
    forget_files(&copy);
    close_vfs(&copy);
    vdb_free(&db->memory, copy.state_path);
    if (status || !lock_fd)
        vdb_state_release_all(copy.fd);
    if (!status && sequence)
        *sequence = copy.sequence;
    if (!status && lock_fd)
        *lock_fd = copy.fd;
    return status;
}

/* ------------------------------------------------------------------ backup */

/* The directory of the database itself, of a snapshot's handle too. */
static int test_outside(vecdb *db, const char *path, vecdb_error *err)
{
    if (db->is_memory)
        return VECDB_OK;
    char *home = db->is_snapshot ? vdb_path_parent(&db->memory, db->path)
                                 : vdb_strdup(&db->memory, db->path, strlen(db->path));
    if (!home)
        return vdb_fail_memory(err, strlen(db->path));
    bool is_inside = vdb_path_is_inside(&db->memory, path, home);
    vdb_free(&db->memory, home);
    if (is_inside)
        return vdb_fail(err, VECDB_INVALID, "%s lies in the directory of the database; put the backup elsewhere", path);
    return VECDB_OK;
}

int vecdb_backup(vecdb *db, const char *path, const vecdb_backup_options *options, vecdb_error *err)
{
    int status = vdb_database_check(db, err);
    if (status)
        return status;
    if (!path || !*path || !strcmp(path, ":memory:"))
        return vdb_fail(err, VECDB_INVALID, "vecdb_backup needs the path of a new or an empty directory");
    vecdb_backup_options own;
    if ((status = VDB_STRUCT_COPY(&own, options, vecdb_backup_options, progress_context, err)))
        return status;
    char *full = vdb_path_normal(&db->memory, path);
    if (!full)
        return vdb_fail_memory(err, strlen(path));
    struct vdb_copy_options copy = {.path = full,
                                    .phase = "backup",
                                    .link = own.link != 0,
                                    .progress = own.progress,
                                    .progress_context = own.progress_context};
    status = test_outside(db, full, err);
    if (!status)
        status = vdb_copy_database(db, &copy, NULL, NULL, err);
    vdb_free(&db->memory, full);
    return status;
}
