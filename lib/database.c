/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/database.c - opening and closing, the rules for every call, files open for reading
 *
 * A process may hold any number of databases, and one database several times. What is global is only
 * what fork() needs: a count of forks and a list of open handles, so that the child can close what
 * it must not inherit (the descriptor that carries the locks of `state`) and every call in it can
 * say MISUSE.
 */
#include "database.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "backup.h"
#include "base/names.h"
#include "scrub.h"

#define MOST_STRUCT_BYTES 4096 /* a size beyond was never set */
#define DEFAULT_MEMORY_BYTES (256u << 20)
#define DEFAULT_BUSY_TIMEOUT_MS 5000
#define SPARE_SHARE 8 /* of the memory budget that spare blocks may take: an eighth */

/* ------------------------------------------------------------------ fork */

static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static vecdb *open_databases;
static _Atomic unsigned fork_count;

static void before_fork(void)
{
    pthread_mutex_lock(&open_lock);
}

static void in_parent(void)
{
    pthread_mutex_unlock(&open_lock);
}

static void in_child(void)
{
    atomic_fetch_add(&fork_count, 1);
    for (vecdb *db = open_databases; db; db = db->next_open) {
        vdb_catalog_forked(db->catalog);
        vdb_state_forked(db->owner_state);
    }
    pthread_mutex_unlock(&open_lock);
}

static void watch_forks(void)
{
    pthread_atfork(before_fork, in_parent, in_child);
}

static void list_database(vecdb *db)
{
    pthread_mutex_lock(&open_lock);
    db->next_open = open_databases;
    open_databases = db;
    pthread_mutex_unlock(&open_lock);
}

static void unlist_database(vecdb *db)
{
    pthread_mutex_lock(&open_lock);
    for (vecdb **at = &open_databases; *at; at = &(*at)->next_open)
        if (*at == db) {
            *at = db->next_open;
            break;
        }
    pthread_mutex_unlock(&open_lock);
}

int vdb_database_check(const vecdb *db, vecdb_error *err)
{
    if (!db)
        return vdb_fail(err, VECDB_MISUSE, "the database handle is NULL");
    if (db->fork_count != atomic_load_explicit(&fork_count, memory_order_relaxed))
        return vdb_fail(err, VECDB_MISUSE, "%s was opened before fork(); open it again in the child process", db->path);
    return VECDB_OK;
}

int vdb_database_check_writable(const vecdb *db, vecdb_error *err)
{
    int status = vdb_database_check(db, err);
    if (!status && db->is_snapshot)
        status = vdb_fail(err, VECDB_READONLY, "%s is a snapshot, which never changes", db->path);
    else if (!status && db->is_readonly)
        status = vdb_fail(err, VECDB_READONLY, "%s was opened read-only, or lies where it cannot be written", db->path);
    return status;
}

void vdb_database_log(vecdb *db, int level, const char *format, ...)
{
    if (!db->options.log)
        return;
    char message[512];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    db->options.log(db->options.log_context, level, message);
}

/* ------------------------------------------------------------------ open */

int vdb_struct_copy(void *to, size_t n_bytes, size_t n_first_bytes, const void *from, const char *name,
                    vecdb_error *err)
{
    size_t size = n_bytes;
    memset(to, 0, n_bytes);
    if (from) {
        memcpy(&size, from, sizeof size);
        if (size < n_first_bytes || size > MOST_STRUCT_BYTES)
            return vdb_fail(err, VECDB_MISUSE, "%s.size is %zu; set it to sizeof(%s)", name, size, name);
        memcpy(to, from, size < n_bytes ? size : n_bytes);
    }
    memcpy(to, &n_bytes, sizeof n_bytes);
    return VECDB_OK;
}

int vdb_options_copy(vecdb_options *to, const vecdb_options *from, vecdb_error *err)
{
    *to = (vecdb_options){.size = sizeof *to};
    if (from) {
        if (from->size < offsetof(vecdb_options, log) || from->size > MOST_STRUCT_BYTES)
            return vdb_fail(err, VECDB_MISUSE, "vecdb_options.size is %zu; set it to sizeof(vecdb_options)",
                            from->size);
        memcpy(to, from, from->size < sizeof *to ? from->size : sizeof *to);
    }
    if (to->mode < VECDB_OPEN_CREATE || to->mode > VECDB_OPEN_READONLY || to->durability < VECDB_DURABILITY_FULL ||
        to->durability > VECDB_DURABILITY_NORMAL || to->io < VECDB_IO_AUTO || to->io > VECDB_IO_READ)
        return vdb_fail(err, VECDB_INVALID, "vecdb_options has a mode, durability or io that does not exist");
    if (to->threads < VECDB_THREADS_NONE || to->threads > 1024)
        return vdb_fail(err, VECDB_INVALID, "vecdb_options.threads is %d; it takes 0 to 1024, or VECDB_THREADS_NONE",
                        to->threads);
    if (to->busy_timeout_ms < VECDB_NO_WAIT)
        return vdb_fail(err, VECDB_INVALID, "vecdb_options.busy_timeout_ms is %d; it takes 0 up, or VECDB_NO_WAIT",
                        to->busy_timeout_ms);
    const vecdb_allocator *a = &to->allocator;
    if ((a->allocate || a->reallocate || a->release) && !(a->allocate && a->reallocate && a->release))
        return vdb_fail(err, VECDB_INVALID, "vecdb_options.allocator needs all three functions, or none");
    if (!to->memory_bytes)
        to->memory_bytes = DEFAULT_MEMORY_BYTES;
    if (!to->busy_timeout_ms)
        to->busy_timeout_ms = DEFAULT_BUSY_TIMEOUT_MS;
    return VECDB_OK;
}

struct directory_scan {
    bool has_catalog, has_partial, has_others;
};

static bool look_at_name(void *context, const char *name)
{
    struct directory_scan *scan = context;
    if (!strcmp(name, "catalog.sqlite"))
        scan->has_catalog = true;
    else if (!strcmp(name, VDB_PARTIAL_CATALOG))
        scan->has_partial = true;
    else if (strcmp(name, "state") && strncmp(name, "vectors-", 8) && strncmp(name, "index-", 6) &&
             strncmp(name, "snapshot-", 9) && strncmp(name, "catalog.", 8) && strncmp(name, "state-", 6) &&
             strcmp(name, "dropped") && strcmp(name, "lost+found"))
        scan->has_others = true;
    return true;
}

/* The directory's own name, on stable storage before there is anything in it: else a power cut could take
 * the whole database with its name. A parent that may not be read cannot be synced. */
static int sync_name(vecdb *db, vecdb_error *err)
{
    size_t n = strlen(db->path) + sizeof "/..";
    char *parent = vdb_alloc(&db->memory, n);
    if (!parent)
        return vdb_fail_memory(err, n);
    vecdb_error error = VECDB_ERROR_INIT;
    snprintf(parent, n, "%s/..", db->path);
    int status = db->vfs->sync_directory(db->vfs, parent, &error);
    vdb_free(&db->memory, parent);
    if (status == VECDB_DENIED)
        return VECDB_OK;
    if (status && err)
        *err = error;
    return status;
}

/* A restore or a repair that was cut off between its two renames has left nothing of this name. To make a new
 * database here would hide that. */
static int look_for_suffix(vecdb *db, const char *suffix, const char *what, const char *kept, vecdb_error *err)
{
    size_t room = strlen(db->path) + strlen(suffix) + 1;
    char *path = vdb_alloc(&db->memory, room);
    if (!path)
        return vdb_fail_memory(err, room);
    snprintf(path, room, "%s%s", db->path, suffix);
    enum vdb_path_kind kind;
    int status = db->vfs->kind(db->vfs, path, &kind, err);
    if (!status && kind == VDB_PATH_DIRECTORY)
        status = vdb_fail(err, VECDB_BUSY,
                          "%s is missing and %s is there: a %s is at work, or was cut off; then %s "
                          "again, or remove the one and rename the newest %s.%s-<n> back, if there is one",
                          db->path, path, what, what, db->path, kept);
    vdb_free(&db->memory, path);
    return status;
}

static int look_for_restore(vecdb *db, vecdb_error *err)
{
    int status = look_for_suffix(db, VDB_RESTORING_SUFFIX, "restore", "replaced", err);
    return status ? status : look_for_suffix(db, VDB_REPAIRED_SUFFIX, "repair", "damaged", err);
}

/* Look at the place before anything is made in it. */
static int inspect_directory(vecdb *db, bool *create, vecdb_error *err)
{
    struct vdb_vfs *vfs = db->vfs;
    enum vdb_path_kind kind;
    struct directory_scan scan = {false, false, false};
    int mode = db->options.mode, status = vfs->kind(vfs, db->path, &kind, err);
    if (status)
        return status;
    if (kind == VDB_PATH_FILE || kind == VDB_PATH_OTHER)
        return vdb_fail(err, VECDB_INVALID, "%s is a file; a vecdb database is a directory", db->path);
    if (kind == VDB_PATH_DIRECTORY && (status = vfs->list(vfs, db->path, look_at_name, &scan, err)))
        return status;
    if (kind == VDB_PATH_MISSING && (status = look_for_restore(db, err)))
        return status;
    if (!scan.has_catalog && scan.has_partial)
        return vdb_fail(err, VECDB_CORRUPT,
                        "%s holds a copy of a database that was cut off, or is being made (catalog.partial); remove it "
                        "and make it again", db->path);
    if (!scan.has_catalog && scan.has_others)
        return vdb_fail(err, VECDB_INVALID,
                        "%s holds other files and no vecdb database; give the path of a new or an empty directory",
                        db->path);
    if (scan.has_catalog && mode == VECDB_OPEN_NEW)
        return vdb_fail(err, VECDB_EXISTS, "there is a vecdb database in %s already", db->path);
    if (!scan.has_catalog && (mode == VECDB_OPEN_EXISTING || mode == VECDB_OPEN_READONLY))
        return vdb_fail(err, VECDB_NOT_FOUND, "there is no vecdb database in %s", db->path);
    *create = mode != VECDB_OPEN_EXISTING && mode != VECDB_OPEN_READONLY;
    if (kind == VDB_PATH_MISSING && *create)
        status = vfs->make_directory(vfs, db->path, err);
    return !status && !scan.has_catalog && *create ? sync_name(db, err) : status;
}

static int open_vfs(vecdb *db, const struct vdb_io_hook *hook, vecdb_error *err)
{
    int status = db->is_memory ? vdb_vfs_memory(&db->memory, &db->vfs, err)
                               : vdb_vfs_posix(&db->memory, db->options.io != VECDB_IO_READ, &db->vfs, err);
    if (status || !hook)
        return status;
    db->inner_vfs = db->vfs;
    return vdb_vfs_fault(&db->memory, db->inner_vfs, hook, &db->vfs, err);
}

/* The directory of a snapshot, given by its own path: what is written there would be no snapshot any more. */
static bool is_inside_database(vecdb *db)
{
    uint64_t id;
    const char *slash = strrchr(db->path, '/');
    if (!slash || !vdb_name_numbers(slash, "/snapshot-", &id, 1))
        return false;
    size_t n = (size_t)(slash - db->path), room = n + sizeof "/catalog.sqlite";
    char *path = vdb_alloc(&db->memory, room);
    enum vdb_path_kind kind = VDB_PATH_MISSING;
    vecdb_error ignored;
    if (!path)
        return true; /* to be on the safe side */
    snprintf(path, room, "%.*s/catalog.sqlite", (int)n, db->path);
    bool is_inside = !db->vfs->kind(db->vfs, path, &kind, &ignored) && kind != VDB_PATH_MISSING;
    vdb_free(&db->memory, path);
    return is_inside;
}

static int open_parts(vecdb *db, const struct vdb_io_hook *hook, vecdb_error *err)
{
    bool create = true;
    int status = open_vfs(db, hook, err);
    if (!status && db->options.snapshot)
        status = vdb_snapshot_enter(db, hook, err);
    if (status || (!db->is_memory && (status = inspect_directory(db, &create, err))))
        return status;
    if (!db->is_memory && !db->is_readonly && is_inside_database(db)) {
        db->is_readonly = true;
        vdb_database_log(db, VECDB_LOG_WARNING, "%s is a snapshot of the database around it: opened read-only",
                         db->path);
    }
    struct vdb_catalog_options catalog = {.memory = &db->memory,
                                          .directory = db->is_memory ? NULL : db->path,
                                          .readonly = db->is_readonly,
                                          .create = create,
                                          .durable = db->options.durability == VECDB_DURABILITY_FULL,
                                          .busy_timeout_ms = db->options.busy_timeout_ms,
                                          .hook = hook,
                                          .schema = vdb_catalog_schema,
                                          .defer_checkpoint = vdb_maintain_defer_checkpoint,
                                          .defer_context = db,
                                          .log = db->options.log,
                                          .log_context = db->options.log_context};
    if ((status = vdb_catalog_open(&catalog, &db->catalog, err)))
        return status;
    db->state = vdb_catalog_state(db->catalog);
    db->is_readonly |= vdb_catalog_is_readonly(db->catalog);
    if ((status = vdb_cache_new(&db->memory, db->options.memory_bytes / 2, &db->cache, err)))
        return status;
    int threads = db->options.threads == VECDB_THREADS_NONE ? 1 : db->options.threads;
    return vdb_pool_new(&db->memory, threads, &db->pool, err);
}

/* Files are opened all the time, the application may change its directory meanwhile. A directory that has
 * no name any more leaves the path as it is. */
char *vdb_path_normal(struct vdb_memory *memory, const char *path)
{
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    char here[4096];
    if (*path == '/' || !strcmp(path, ":memory:") || !getcwd(here, sizeof here) || *here != '/')
        return vdb_strdup(memory, path, length);
    size_t room = strlen(here) + length + 2;
    char *full = vdb_alloc(memory, room);
    if (full)
        snprintf(full, room, "%s/%.*s", strcmp(here, "/") ? here : "", (int)length, path);
    return full;
}

static void free_database(vecdb *db)
{
    while (db->collections) {
        struct vecdb_collection *collection = db->collections;
        db->collections = collection->next;
        vdb_view_release(collection->view);
        vdb_keys_release(&collection->keys);
        vdb_indexes_release(&collection->indexes, &db->memory);
        pthread_mutex_destroy(&collection->refresh_lock);
        pthread_mutex_destroy(&collection->view_lock);
        vdb_free(&db->memory, collection);
    }
    assert(!db->files);
    vdb_indexer_release(db);
    vdb_pool_free(db->pool);
    vdb_cache_free(db->cache);
    vdb_catalog_close(db->catalog);
    vdb_snapshot_leave(db);
    if (db->vfs)
        db->vfs->end(db->vfs);
    if (db->inner_vfs && db->inner_vfs != db->vfs)
        db->inner_vfs->end(db->inner_vfs);
    vdb_commit_release(&db->queue);
    pthread_mutex_destroy(&db->lock);
    pthread_mutex_destroy(&db->append_lock);
    pthread_cond_destroy(&db->append_ends);
    pthread_mutex_destroy(&db->worker_lock);
    pthread_cond_destroy(&db->worker_wakes);
    vdb_free(&db->memory, db->abandoned);
    vdb_free(&db->memory, db->path);
    /* The handle itself came from the allocator that lies inside it. */
    vdb_memory_keep_spare(&db->memory, 0);
    struct vdb_memory memory;
    vdb_memory_init(&memory, &db->options.allocator);
    pthread_mutex_destroy(&db->memory.spare_lock);
    vdb_free(&memory, db);
    pthread_mutex_destroy(&memory.spare_lock);
}

int vdb_database_open(const char *path, const vecdb_options *options, const struct vdb_io_hook *hook, vecdb **out,
                      vecdb_error *err)
{
    vecdb_options copy;
    int status = vdb_options_copy(&copy, options, err);
    if (status)
        return status;
    if (!path || !*path || !out)
        return vdb_fail(err, VECDB_INVALID, "vecdb_open needs the path of a directory, and a place for the handle");
    pthread_once(&fork_once, watch_forks);

    struct vdb_memory memory;
    vdb_memory_init(&memory, &copy.allocator);
    vecdb *db = vdb_alloc_zero(&memory, sizeof *db);
    pthread_mutex_destroy(&memory.spare_lock);
    if (!db)
        return vdb_fail_memory(err, sizeof *db);
    vdb_memory_init(&db->memory, &copy.allocator);
    vdb_memory_keep_spare(&db->memory, copy.memory_bytes / SPARE_SHARE);
    db->options = copy;
    db->hook = hook;
    db->is_memory = !strcmp(path, ":memory:");
    db->is_readonly = copy.mode == VECDB_OPEN_READONLY;
    db->fork_count = atomic_load(&fork_count);
    db->kernels = vdb_kernels_choose(NULL);
    pthread_mutex_init(&db->lock, NULL);
    pthread_mutex_init(&db->append_lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&db->append_ends, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&db->worker_lock, NULL);
    pthread_cond_init(&db->worker_wakes, NULL);
    vdb_commit_init(&db->queue);
    vdb_indexer_init(&db->indexer);
    db->index_budget.limit = copy.index_memory_bytes;
    db->path = vdb_path_normal(&db->memory, path);
    if (!db->path)
        status = vdb_fail_memory(err, strlen(path));
    else if (db->is_memory && copy.mode != VECDB_OPEN_CREATE && copy.mode != VECDB_OPEN_NEW)
        status = vdb_fail(err, VECDB_NOT_FOUND, "\":memory:\" is a new database whenever it is opened");
    else
        status = open_parts(db, hook, err);
    if (!status)
        status = vdb_scrub_start(db, &db->scrub, err);
    if (status) {
        free_database(db);
        return status;
    }
    list_database(db);
    *out = db;
    return VECDB_OK;
}

int vecdb_open(const char *path, const vecdb_options *options, vecdb **db, vecdb_error *err)
{
    return vdb_database_open(path, options, NULL, db, err);
}

void vecdb_close(vecdb *db)
{
    if (!db)
        return;
    if (vdb_database_check(db, NULL))
        return; /* in the child of a fork: what is shared with the parent is left alone */
    unlist_database(db);
    vdb_scrub_stop(db->scrub);
    vdb_indexer_stop(db);
    vdb_maintain_stop(db);
    free_database(db);
}

/* ------------------------------------------------------------------ small public calls */

const char *vecdb_version(void)
{
    return VECDB_VERSION;
}

int vecdb_version_number(void)
{
    return VECDB_VERSION_NUMBER;
}

const char *vecdb_status_name(int status)
{
    switch (status) {
#define NAME(name, value, meaning)                                                                                     \
    case value:                                                                                                        \
        return #name;
        VECDB_STATUS_LIST(NAME)
#undef NAME
    default:
        return "UNKNOWN";
    }
}

void vecdb_interrupt(vecdb *db)
{
    if (db)
        atomic_fetch_add(&db->interrupts, 1);
}

int vecdb_background_error(vecdb *db, vecdb_error *err)
{
    int status = vdb_database_check(db, err);
    if (status)
        return status;
    pthread_mutex_lock(&db->lock);
    status = db->background_error.status;
    if (status && err)
        *err = db->background_error;
    db->background_error = (vecdb_error)VECDB_ERROR_INIT;
    pthread_mutex_unlock(&db->lock);
    return status;
}

void vdb_stop_init(struct vdb_stop *stop, vecdb *db, uint32_t timeout_ms)
{
    stop->db = db;
    stop->interrupts = atomic_load_explicit(&db->interrupts, memory_order_relaxed);
    stop->timeout_ms = timeout_ms;
    stop->deadline_ns = timeout_ms ? vdb_now_ns() + (uint64_t)timeout_ms * 1000000u : 0;
}

int vdb_stop_check(void *context, vecdb_error *err)
{
    struct vdb_stop *stop = context;
    if (atomic_load_explicit(&stop->db->interrupts, memory_order_relaxed) != stop->interrupts)
        return vdb_fail(err, VECDB_INTERRUPTED, "the call was interrupted");
    if (stop->deadline_ns && vdb_now_ns() > stop->deadline_ns)
        return vdb_fail(err, VECDB_TIMEOUT, "the answer was not complete after %u ms", stop->timeout_ms);
    return VECDB_OK;
}

/* ------------------------------------------------------------------ vector files */

char *vdb_vector_path(vecdb *db, uint64_t field, uint64_t generation)
{
    size_t room = strlen(db->path) + 64;
    char *path = vdb_alloc(&db->memory, room);
    if (path)
        snprintf(path, room, "%s/vectors-%llu-%llu", db->is_memory ? "" : db->path, (unsigned long long)field,
                 (unsigned long long)generation);
    return path;
}

static struct vdb_vector_file *find_file(vecdb *db, uint64_t field, uint64_t generation)
{
    for (struct vdb_vector_file *file = db->files; file; file = file->next)
        if (file->field == field && file->generation == generation)
            return vdb_vector_file_retain(file);
    return NULL;
}

int vdb_vector_file_get(vecdb *db, uint64_t field, uint64_t generation, struct vdb_vector_file **out, vecdb_error *err)
{
    pthread_mutex_lock(&db->lock);
    struct vdb_vector_file *file = find_file(db, field, generation);
    pthread_mutex_unlock(&db->lock);
    if (file) {
        *out = file;
        return VECDB_OK;
    }
    char *path = vdb_vector_path(db, field, generation);
    file = vdb_alloc_zero(&db->memory, sizeof *file);
    int status = path && file ? db->vfs->open(db->vfs, path, VDB_FILE_READ, &file->file, err)
                              : vdb_fail_memory(err, sizeof *file);
    vdb_free(&db->memory, path);
    if (status) {
        vdb_free(&db->memory, file);
        return status;
    }
    atomic_init(&file->references, 1);
    file->db = db;
    file->field = field;
    file->generation = generation;
    pthread_mutex_lock(&db->lock);
    struct vdb_vector_file *other = find_file(db, field, generation);
    if (!other) {
        file->next = db->files;
        db->files = file;
    }
    pthread_mutex_unlock(&db->lock);
    if (other) { /* another thread was faster */
        db->vfs->close(file->file);
        vdb_free(&db->memory, file);
        file = other;
    }
    *out = file;
    return VECDB_OK;
}

struct vdb_vector_file *vdb_vector_file_retain(struct vdb_vector_file *file)
{
    atomic_fetch_add_explicit(&file->references, 1, memory_order_relaxed);
    return file;
}

void vdb_vector_file_put(struct vdb_vector_file *file)
{
    if (!file)
        return;
    vecdb *db = file->db;
    /* Under the lock, because the list can still give it out. */
    pthread_mutex_lock(&db->lock);
    bool is_last = atomic_fetch_sub(&file->references, 1) == 1;
    for (struct vdb_vector_file **at = &db->files; is_last && *at; at = &(*at)->next)
        if (*at == file) {
            *at = file->next;
            break;
        }
    pthread_mutex_unlock(&db->lock);
    if (is_last) {
        db->vfs->close(file->file);
        vdb_free(&db->memory, file);
    }
}
