/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/scrub.c - the background scrub (see scrub.h)
 *
 * Disks lose bits in what nobody reads, and a backup that is made of a damaged page comes too late. So a handle
 * that is asked to reads everything, at a rate that is asked for, and begins anew when it is done:
 *
 *     round     state | catalog: pages, then frames of the log, 64 at a time | vector files, one after another
 *     file      header, footer, gaps and pages of each extent that the catalog names in it
 *
 * A thread of its own does it. The worker (maintain.c) may be at a compaction for minutes; and a thread that sleeps
 * most of its life is the simplest way to keep a rate.
 *
 * What it takes care of
 *   1. Nobody waits for it. It holds no gate and no lock of the handle while it reads or sleeps. Its read
 *      transactions last as long as reading 64 pages, or listing the extents of a field, takes; it never sleeps in
 *      one.
 *   2. A vector file is read by a descriptor of its own that does not leave in the system's cache what was not
 *      there (VDB_FILE_SCAN), and never through a map. The catalog is read through SQLite's file, because to close
 *      another descriptor of it would drop SQLite's locks: its pages do stay in the system's cache.
 *   3. A file that compaction has removed is kept alive by at most one round's look at it: files are listed,
 *      opened and closed one by one.
 *   4. vecdb_close does not wait: every sleep can be ended.
 *
 * What it finds is logged, counted, and kept as the background error of the handle, once each round for as long as
 * it is there. vecdb_check tells more: which records are affected. Of two processes that both ask for a scrub,
 * each does it; they do not know of each other. Snapshots are databases of their own, which a scrub leaves to
 * vecdb_check; the vector files that they share with the database are read with it.
 */
#include "scrub.h"

#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "database.h"
#include "storage/extent_check.h"

#define SLICE_PAGES 64 /* 256 KiB: a read transaction of about a millisecond */
#define ROUND_PAUSE_NS ((uint64_t)1000000000) /* a small database is not read a hundred times a second */

struct vdb_scrub {
    vecdb *db;
    struct vdb_bucket bucket; /* the thread's own */
    _Atomic uint64_t n_bytes, n_rounds, n_problems;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wakes;
    bool ends;
};

uint64_t vdb_bucket_take(struct vdb_bucket *bucket, uint64_t now_ns, uint64_t n_bytes)
{
    double cost = (double)n_bytes * 1e9 / (double)bucket->bytes_per_second;
    uint64_t cost_ns = cost < 1e18 ? (uint64_t)cost : (uint64_t)1e18; /* 30 years */
    if (bucket->free_at_ns < now_ns)
        bucket->free_at_ns = now_ns;
    bucket->free_at_ns += cost_ns;
    return bucket->free_at_ns - now_ns;
}

/* ------------------------------------------------------------------ sleeping, telling */

/* False: the scrub is to end. */
static bool sleep_for(struct vdb_scrub *scrub, uint64_t ns)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(ns / 1000000000);
    until.tv_nsec += (long)(ns % 1000000000);
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&scrub->lock);
    int timed_out = 0;
    while (!scrub->ends && !timed_out)
        timed_out = pthread_cond_timedwait(&scrub->wakes, &scrub->lock, &until);
    bool goes_on = !scrub->ends;
    pthread_mutex_unlock(&scrub->lock);
    return goes_on;
}

/* So much was read. */
static bool spend(struct vdb_scrub *scrub, uint64_t n_bytes)
{
    atomic_fetch_add(&scrub->n_bytes, n_bytes);
    return sleep_for(scrub, vdb_bucket_take(&scrub->bucket, vdb_now_ns(), n_bytes));
}

static void tell(void *context, const char *message)
{
    struct vdb_scrub *scrub = context;
    vecdb *db = scrub->db;
    vecdb_error err = VECDB_ERROR_INIT;
    vdb_fail(&err, VECDB_CORRUPT, "%s: the scrub has found damage: %s; see vecdb_check for what is affected", db->path,
             message);
    atomic_fetch_add(&scrub->n_problems, 1);
    pthread_mutex_lock(&db->lock);
    db->background_error = err;
    pthread_mutex_unlock(&db->lock);
    vdb_database_log(db, VECDB_LOG_ERROR, "%s", err.message);
}

/* A status of reading: damage and a failing disk are told; what else there is (no memory, a busy database) leaves
 * something unread until the next round. */
static void judge(struct vdb_scrub *scrub, int status, const vecdb_error *err)
{
    if (status == VECDB_CORRUPT || status == VECDB_IO)
        tell(scrub, err->message);
    else if (status)
        vdb_database_log(scrub->db, VECDB_LOG_WARNING, "%s: the scrub passes something over: %s", scrub->db->path,
                         err->message);
}

/* ------------------------------------------------------------------ the catalog */

static bool scrub_catalog(struct vdb_scrub *scrub)
{
    struct vdb_scrub_cursor cursor = {0};
    vecdb_error err = VECDB_ERROR_INIT;
    judge(scrub, vdb_state_check(scrub->db->state, &err), &err);
    do {
        uint64_t n_bytes = 0;
        int status = vdb_catalog_scrub(scrub->db->catalog, &cursor, SLICE_PAGES, tell, scrub, &n_bytes, &err);
        judge(scrub, status, &err);
        if (!spend(scrub, n_bytes))
            return false;
        if (status)
            return true;
    } while (cursor.n_pages);
    return true;
}

/* ------------------------------------------------------------------ vector files */

struct file_name {
    uint64_t field, generation;
};

struct file_list {
    struct vdb_scrub *scrub;
    struct file_name *names;
    size_t n;
    vecdb_error *err;
};

static int note_file(void *context, uint64_t field, uint64_t generation)
{
    struct file_list *list = context;
    struct file_name *names = vdb_realloc_array(&list->scrub->db->memory, list->names, list->n + 1, sizeof *names);
    if (!names)
        return vdb_fail_memory(list->err, sizeof *names);
    list->names = names;
    names[list->n++] = (struct file_name){field, generation};
    return VECDB_OK;
}

/* A file, what is in it, and what that takes to be read: as one transaction knew it. */
struct scrubbed_file {
    struct vdb_scrub *scrub;
    struct file_name name;
    struct vdb_connection *c;
    uint64_t current_store; /* of the collection that is being looked at */
    uint64_t store;
    struct vdb_field_row field;
    bool is_found;
    struct vdb_extent_ref *extents;
    size_t n_extents;
    struct vdb_file *file;
    vecdb_error *err;
};

static int match_field(void *context, const struct vdb_field_row *row)
{
    struct scrubbed_file *file = context;
    if (row->id == file->name.field) {
        file->field = *row;
        file->store = file->current_store;
        file->is_found = true;
    }
    return VECDB_OK;
}

static int match_collection(void *context, const struct vdb_collection_row *row)
{
    struct scrubbed_file *file = context;
    if (file->is_found)
        return VECDB_OK;
    file->current_store = row->store;
    return vdb_field_each(file->c, row->id, match_field, file, file->err);
}

static int note_extent(void *context, const struct vdb_extent_row *row)
{
    struct scrubbed_file *file = context;
    if (row->generation != file->name.generation)
        return VECDB_OK;
    struct vdb_extent_ref *extents =
        vdb_realloc_array(&file->scrub->db->memory, file->extents, file->n_extents + 1, sizeof *extents);
    if (!extents)
        return vdb_fail_memory(file->err, sizeof *extents);
    file->extents = extents;
    extents[file->n_extents++] = row->ref;
    return VECDB_OK;
}

/* In a transaction: nothing removes the file before it is open. */
static int open_file(struct scrubbed_file *file, vecdb_error *err)
{
    vecdb *db = file->scrub->db;
    int status = vdb_collection_each(file->c, match_collection, file, err);
    if (!status && file->is_found)
        status = vdb_extents_read(file->c, file->name.field, note_extent, file, err);
    if (status || !file->n_extents)
        return status;
    char *path = vdb_vector_path(db, file->name.field, file->name.generation);
    status = path ? db->vfs->open(db->vfs, path, VDB_FILE_SCAN, &file->file, err) : vdb_fail_memory(err, 64);
    vdb_free(&db->memory, path);
    return status;
}

/* A file that is missing may have been removed by a compaction that was committed after the transaction began:
 * then another state names other files. */
static int find_file(struct scrubbed_file *file, vecdb_error *err)
{
    vecdb *db = file->scrub->db;
    for (uint64_t sequence, missed_at = UINT64_MAX;; missed_at = sequence) {
        file->is_found = false;
        file->n_extents = 0;
        int status = vdb_read_begin(db->catalog, &file->c, &sequence, err);
        if (status)
            return status;
        status = open_file(file, err);
        vdb_read_end(file->c);
        if (status != VECDB_NOT_FOUND)
            return status;
        if (sequence == missed_at)
            return vdb_fail(err, VECDB_CORRUPT, "the file vectors-%llu-%llu is missing",
                            (unsigned long long)file->name.field, (unsigned long long)file->name.generation);
    }
}

/* Zeros behind the extent, up to where another may begin. */
static int check_padding(struct vdb_file *file, const struct vdb_extent_ref *ref, vecdb_error *err)
{
    uint64_t end = ref->offset + ref->length;
    bool is_zero;
    int status = vdb_file_is_zero(file, end, (end + VDB_PAGE_ALIGN - 1) / VDB_PAGE_ALIGN * VDB_PAGE_ALIGN, &is_zero,
                                  err);
    if (!status && !is_zero)
        status = vdb_fail(err, VECDB_CORRUPT, "%s: the padding behind byte %llu is damaged", vdb_path_tail(file->path),
                          (unsigned long long)end);
    return status;
}

static bool scrub_extent(struct scrubbed_file *file, const struct vdb_extent_ref *ref)
{
    struct vdb_scrub *scrub = file->scrub;
    vecdb *db = scrub->db;
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_inspection_options options = {.memory = &db->memory,
                                             .cache = db->cache,
                                             .file = file->file,
                                             .uuid = vdb_catalog_uuid(db->catalog),
                                             .store = file->store,
                                             .type = file->field.type,
                                             .dimension = file->field.dimension};
    struct vdb_inspection *inspection;
    int status = vdb_inspection_new(&options, ref, &inspection, &err);
    judge(scrub, status, &err);
    if (status)
        return spend(scrub, VDB_FILE_HEADER_BYTES);
    judge(scrub, vdb_inspection_gaps(inspection, &err), &err);
    judge(scrub, check_padding(file->file, ref, &err), &err);
    uint64_t n_paged = 0;
    bool goes_on = true;
    for (uint32_t i = 0; i < ref->n_pages && goes_on; i++) {
        struct vdb_block block;
        struct vdb_page_place place;
        vdb_inspection_place(inspection, i, &place);
        judge(scrub, vdb_inspection_page(inspection, i, &block, &err), &err);
        n_paged += place.length;
        goes_on = spend(scrub, place.length);
    }
    vdb_inspection_free(inspection);
    return goes_on && spend(scrub, ref->length > n_paged ? ref->length - n_paged : 0); /* footer and gaps */
}

static bool scrub_file(struct vdb_scrub *scrub, struct file_name name)
{
    vecdb *db = scrub->db;
    vecdb_error err = VECDB_ERROR_INIT;
    struct scrubbed_file file = {.scrub = scrub, .name = name, .err = &err};
    bool goes_on = true;
    judge(scrub, find_file(&file, &err), &err);
    for (size_t i = 0; file.file && i < file.n_extents && goes_on; i++)
        goes_on = scrub_extent(&file, &file.extents[i]);
    if (file.file)
        db->vfs->close(file.file);
    vdb_free(&db->memory, file.extents);
    return goes_on;
}

static bool scrub_files(struct vdb_scrub *scrub)
{
    vecdb *db = scrub->db;
    struct vdb_connection *c;
    uint64_t sequence;
    vecdb_error err = VECDB_ERROR_INIT;
    struct file_list list = {.scrub = scrub, .err = &err};
    int status = vdb_read_begin(db->catalog, &c, &sequence, &err);
    if (!status) {
        status = vdb_extents_files(c, note_file, &list, &err);
        vdb_read_end(c);
    }
    judge(scrub, status, &err);
    bool goes_on = true;
    for (size_t i = 0; i < list.n && goes_on; i++)
        goes_on = scrub_file(scrub, list.names[i]);
    vdb_free(&db->memory, list.names);
    return goes_on;
}

/* ------------------------------------------------------------------ the thread */

static void *work(void *context)
{
    struct vdb_scrub *scrub = context;
    while (scrub_catalog(scrub) && scrub_files(scrub)) {
        atomic_fetch_add(&scrub->n_rounds, 1);
        if (!sleep_for(scrub, ROUND_PAUSE_NS))
            break;
    }
    return NULL;
}

static bool start_thread(struct vdb_scrub *scrub)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* the application's handlers run in its own threads */
    bool is_started = !pthread_create(&scrub->thread, NULL, work, scrub);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return is_started;
}

static void free_scrub(struct vdb_scrub *scrub)
{
    pthread_mutex_destroy(&scrub->lock);
    pthread_cond_destroy(&scrub->wakes);
    vdb_free(&scrub->db->memory, scrub);
}

int vdb_scrub_start(vecdb *db, struct vdb_scrub **out, vecdb_error *err)
{
    uint64_t rate = db->options.scrub_bytes_per_second;
    *out = NULL;
    if (!rate || db->is_memory || db->options.threads == VECDB_THREADS_NONE)
        return VECDB_OK;
    struct vdb_scrub *scrub = vdb_alloc_zero(&db->memory, sizeof *scrub);
    if (!scrub)
        return vdb_fail_memory(err, sizeof *scrub);
    scrub->db = db;
    scrub->bucket.bytes_per_second = rate;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&scrub->lock, NULL);
    pthread_cond_init(&scrub->wakes, &attributes);
    pthread_condattr_destroy(&attributes);
    if (start_thread(scrub)) {
        *out = scrub;
        return VECDB_OK;
    }
    vdb_database_log(db, VECDB_LOG_WARNING, "%s: no thread is to be had for the scrub", db->path);
    free_scrub(scrub);
    return VECDB_OK;
}

void vdb_scrub_stop(struct vdb_scrub *scrub)
{
    if (!scrub)
        return;
    pthread_mutex_lock(&scrub->lock);
    scrub->ends = true;
    pthread_cond_signal(&scrub->wakes);
    pthread_mutex_unlock(&scrub->lock);
    pthread_join(scrub->thread, NULL);
    free_scrub(scrub);
}

void vdb_scrub_get_stats(struct vdb_scrub *scrub, vecdb_stats *stats)
{
    stats->scrubbed_bytes = scrub ? atomic_load(&scrub->n_bytes) : 0;
    stats->scrub_rounds = scrub ? atomic_load(&scrub->n_rounds) : 0;
    stats->scrub_problems = scrub ? atomic_load(&scrub->n_problems) : 0;
}
