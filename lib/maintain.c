/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/maintain.c - when packing and compaction are done, and by whom
 *
 * A handle with threads has one worker. It starts when there is first something to do, sleeps until it
 * is told of more, tries to become the maintainer (another process may be; then it leaves the work to
 * that one, or to the next notice), packs the tails that have reached their limit, and rewrites the
 * file with the most garbage when that is a third of it. It also makes the checkpoints that commits
 * leave to it. A handle without threads does the same at the end of a writing call. Errors are kept
 * for vecdb_background_error and logged; the work is tried again with the next notice.
 */
#include "database.h"

#include <signal.h>

/* A third: rewriting n live bytes gives back n / 2, so that every byte that is written is rewritten at
 * most twice for each time its file's content is replaced. */
#define BACKGROUND_GARBAGE (1.0 / 3)
/* A look at the files comes at most once for VDB_TAIL_LIMIT_ROWS dead slots; this keeps rewriting, which costs two
 * syncs, from small change. So a small database holds at most so much garbage in a file, beside its share. */
#define BACKGROUND_MIN_BYTES ((uint64_t)256 << 10)
#define EXPLICIT_GARBAGE 0.05
#define EXPLICIT_MIN_BYTES 4096

bool vdb_pack_is_due(const struct vdb_view *view)
{
    for (size_t f = 0; f < view->n_fields; f++) {
        const struct vdb_view_field *field = &view->fields[f];
        if (field->n_tail_rows >= VDB_TAIL_LIMIT_ROWS ||
            field->n_tail_rows * field->vector_bytes >= VDB_TAIL_LIMIT_BYTES)
            return true;
    }
    return false;
}

/* Enough dead slots for a look at the files, and enough since the last? That one may have left many:
 * in a file that is too small to be rewritten, or spread over files of which none is bad enough. */
static bool may_have_garbage(vecdb_collection *collection, const struct vdb_view *view)
{
    uint64_t n_dead = vdb_slots_count(view->dead->set), n_left = atomic_load(&collection->n_dead_left);
    if (n_dead <= VDB_TAIL_LIMIT_ROWS || (n_dead >= n_left && n_dead - n_left <= VDB_TAIL_LIMIT_ROWS))
        return false;
    bool is_worth_it = !view->n_fields;
    for (size_t f = 0; f < view->n_fields; f++)
        is_worth_it |= n_dead * 3 > view->fields[f].n_paged_rows;
    return is_worth_it;
}

static void note_what_is_left(vecdb_collection *collection)
{
    struct vdb_view *view;
    uint64_t sequence;
    if (vdb_view_acquire(collection, &view, NULL, &sequence, NULL))
        return;
    atomic_store(&collection->n_dead_left, vdb_slots_count(view->dead->set));
    vdb_view_release(view);
}

static int maintain_collection(vecdb_collection *collection, struct vdb_stop *stop, vecdb_error *err)
{
    struct vdb_view *view;
    uint64_t sequence;
    int status = vdb_view_acquire(collection, &view, NULL, &sequence, err);
    if (status)
        return status == VECDB_NOT_FOUND ? VECDB_OK : status; /* dropped */
    bool must_pack = vdb_pack_is_due(view), may_compact = may_have_garbage(collection, view), done = may_compact;
    bool must_renumber = vdb_renumber_is_due(collection, view);
    vdb_view_release(view);
    if (must_renumber)
        status = vdb_renumber(collection, stop, err);
    else if (must_pack || may_compact)
        status = vdb_pack(collection, err);
    while (!status && done && !must_renumber)
        status = vdb_compact_file(collection, BACKGROUND_GARBAGE, BACKGROUND_MIN_BYTES, stop, &done, err);
    if (!status && may_compact)
        status = vdb_compact_dead(collection, err);
    if (!status && may_compact)
        note_what_is_left(collection);
    return status == VECDB_NOT_FOUND ? VECDB_OK : status; /* dropped meanwhile */
}

static vecdb_collection *first_collection(vecdb *db)
{
    pthread_mutex_lock(&db->lock);
    vecdb_collection *first = db->collections; /* handles are only ever put in front of it */
    pthread_mutex_unlock(&db->lock);
    return first;
}

void vdb_maintain_failed(vecdb *db, const vecdb_error *err)
{
    pthread_mutex_lock(&db->lock);
    db->background_error = *err;
    pthread_mutex_unlock(&db->lock);
    vdb_database_log(db, VECDB_LOG_ERROR, "%s: background work failed: %s", db->path, err->message);
}

static void note_failure(vecdb *db, int status, vecdb_error *err)
{
    if (!status || status == VECDB_INTERRUPTED)
        return;
    err->status = status;
    vdb_maintain_failed(db, err);
}

/* ------------------------------------------------------------------ free pages of the catalog */

/* The catalog of a tail that was packed is mostly free pages, and the next tail needs them: give back what is more than
 * half of the file, and more than tails of four fields. */
#define FREE_PAGES_KEPT 4096u
#define GIVE_BACK_PAGES 500u /* in one transaction: some ten milliseconds */

struct giving {
    uint64_t kept;
    bool is_done;
};

static int apply_giving(void *context, struct vdb_transaction *transaction, vecdb_error *err)
{
    struct giving *giving = context;
    uint64_t n_free, n_pages;
    int status = vdb_space_read(transaction->connection, &n_free, &n_pages, err);
    giving->is_done = !status && n_free <= giving->kept + GIVE_BACK_PAGES;
    if (status || n_free <= giving->kept)
        return status;
    uint64_t n = n_free - giving->kept < GIVE_BACK_PAGES ? n_free - giving->kept : GIVE_BACK_PAGES;
    return vdb_space_give_back(transaction->connection, n, err);
}

static int give_back(vecdb *db, uint64_t kept, struct vdb_stop *stop, vecdb_error *err)
{
    struct giving giving = {.kept = kept};
    int status = VECDB_OK;
    while (!status && !giving.is_done)
        if (!(status = vdb_stop_check(stop, err)))
            status = vdb_commit(db, apply_giving, &giving, err);
    return status;
}

static int give_back_if_many(vecdb *db, struct vdb_stop *stop, vecdb_error *err)
{
    struct vdb_connection *c;
    uint64_t sequence, n_free = 0, n_pages = 0;
    int status = vdb_read_begin(db->catalog, &c, &sequence, err);
    if (status)
        return status;
    status = vdb_space_read(c, &n_free, &n_pages, err);
    vdb_read_end(c);
    if (status || n_free <= 2 * FREE_PAGES_KEPT || n_free <= n_pages / 2)
        return status;
    return give_back(db, FREE_PAGES_KEPT, stop, err);
}

static void maintain(vecdb *db)
{
    if (vdb_append_begin(db, VDB_APPEND_WORK_MS, NULL))
        return;
    struct vdb_stop stop;
    vdb_stop_init(&stop, db, 0);
    for (vecdb_collection *collection = first_collection(db); collection; collection = collection->next) {
        vecdb_error err = VECDB_ERROR_INIT;
        note_failure(db, maintain_collection(collection, &stop, &err), &err);
    }
    vecdb_error err = VECDB_ERROR_INIT;
    note_failure(db, give_back_if_many(db, &stop, &err), &err);
    vdb_append_end(db);
}

/* A checkpoint that finds readers in its way is tried again after the next commits. */
static void checkpoint(vecdb *db)
{
    vecdb_error err = VECDB_ERROR_INIT;
    note_failure(db, vdb_catalog_checkpoint(db->catalog, false, &err), &err);
}

/* ------------------------------------------------------------------ the worker */

static void *work(void *context)
{
    vecdb *db = context;
    pthread_mutex_lock(&db->worker_lock);
    for (;;) {
        while (!db->has_work && !db->has_checkpoint && !db->worker_ends)
            pthread_cond_wait(&db->worker_wakes, &db->worker_lock);
        if (db->worker_ends)
            break;
        bool has_work = db->has_work, has_checkpoint = db->has_checkpoint;
        db->has_work = db->has_checkpoint = false;
        pthread_mutex_unlock(&db->worker_lock);
        if (has_checkpoint)
            checkpoint(db);
        if (has_work)
            maintain(db);
        pthread_mutex_lock(&db->worker_lock);
    }
    pthread_mutex_unlock(&db->worker_lock);
    return NULL;
}

/* Under worker_lock. A thread that cannot be had leaves the work to the next notice. */
static void start_worker(vecdb *db)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* the application's handlers run in its own threads */
    db->has_worker = !pthread_create(&db->worker, NULL, work, db);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* Under worker_lock. False: there is no worker. */
static bool wake_worker(vecdb *db)
{
    if (db->options.threads == VECDB_THREADS_NONE || db->worker_ends)
        return false;
    if (!db->has_worker)
        start_worker(db);
    pthread_cond_signal(&db->worker_wakes);
    return db->has_worker;
}

void vdb_maintain_notice(vecdb_collection *collection, const struct vdb_view *view)
{
    vecdb *db = collection->db;
    if (db->is_readonly || (!vdb_pack_is_due(view) && !may_have_garbage(collection, view) &&
                            !vdb_renumber_is_due(collection, view)))
        return;
    pthread_mutex_lock(&db->worker_lock);
    /* Not for the worker's own views: work that failed, or left something, would be done again at once,
     * for ever. */
    if (!db->has_worker || !pthread_equal(db->worker, pthread_self())) {
        db->has_work = true;
        wake_worker(db);
    }
    pthread_mutex_unlock(&db->worker_lock);
}

bool vdb_maintain_defer_checkpoint(void *context)
{
    vecdb *db = context;
    pthread_mutex_lock(&db->worker_lock);
    bool is_deferred = wake_worker(db);
    db->has_checkpoint |= is_deferred;
    pthread_mutex_unlock(&db->worker_lock);
    return is_deferred;
}

void vdb_maintain_inline(vecdb *db)
{
    if (db->options.threads != VECDB_THREADS_NONE)
        return;
    pthread_mutex_lock(&db->worker_lock);
    bool has_work = db->has_work;
    db->has_work = false;
    pthread_mutex_unlock(&db->worker_lock);
    if (has_work)
        maintain(db);
}

void vdb_maintain_stop(vecdb *db)
{
    pthread_mutex_lock(&db->worker_lock);
    db->worker_ends = true;
    bool has_worker = db->has_worker;
    pthread_cond_signal(&db->worker_wakes);
    pthread_mutex_unlock(&db->worker_lock);
    if (has_worker) {
        vecdb_interrupt(db); /* a compaction in progress stops at the next page */
        pthread_join(db->worker, NULL);
    }
    db->has_worker = false;
}

/* ------------------------------------------------------------------ on request */

struct collection_list {
    vecdb *db;
    vecdb_collection **collections;
    size_t n;
    vecdb_error *err;
};

static int list_collection(void *context, const struct vdb_collection_row *row)
{
    struct collection_list *list = context;
    vecdb_collection **more =
        vdb_realloc_array(&list->db->memory, list->collections, list->n + 1, sizeof(vecdb_collection *));
    if (!more)
        return vdb_fail_memory(list->err, sizeof(vecdb_collection *));
    list->collections = more;
    int status = vdb_collection_handle(list->db, row->id, &more[list->n], list->err);
    list->n += !status;
    return status;
}

static int list_collections(vecdb *db, struct collection_list *list, vecdb_error *err)
{
    struct vdb_connection *c;
    uint64_t sequence;
    *list = (struct collection_list){.db = db, .err = err};
    int status = vdb_read_begin(db->catalog, &c, &sequence, err);
    if (status)
        return status;
    status = vdb_collection_each(c, list_collection, list, err);
    vdb_read_end(c);
    return status;
}

static int report(const vecdb_work *request, uint64_t done, uint64_t total, vecdb_error *err)
{
    vecdb_progress progress = {.phase = "compact", .done = done, .total = total};
    if (request && request->progress && request->progress(request->progress_context, &progress))
        return vdb_fail(err, VECDB_INTERRUPTED, "the compaction was interrupted; what it has done so far stays done");
    return VECDB_OK;
}

static int compact_collection(vecdb_collection *collection, struct vdb_stop *stop, vecdb_error *err)
{
    struct vdb_view *view;
    uint64_t sequence;
    int status = vdb_pack(collection, err);
    if (status || (status = vdb_view_acquire(collection, &view, NULL, &sequence, err)))
        return status;
    bool done = true, is_useful = vdb_renumber_is_useful(view);
    vdb_view_release(view);
    if (is_useful) /* leaves no garbage */
        return vdb_renumber(collection, stop, err);
    while (!status && done)
        status = vdb_compact_file(collection, EXPLICIT_GARBAGE, EXPLICIT_MIN_BYTES, stop, &done, err);
    return status ? status : vdb_compact_dead(collection, err);
}

static int compact_all(vecdb *db, const vecdb_work *request, vecdb_error *err)
{
    struct collection_list list;
    struct vdb_stop stop;
    vdb_stop_init(&stop, db, 0);
    int status = list_collections(db, &list, err);
    for (size_t i = 0; i < list.n && !status; i++) {
        status = report(request, i, list.n + 1, err);
        if (!status)
            status = compact_collection(list.collections[i], &stop, err);
        if (status == VECDB_NOT_FOUND) /* dropped meanwhile */
            status = VECDB_OK;
    }
    vdb_free(&db->memory, list.collections);
    if (!status)
        status = vdb_append_sweep(db, err);
    if (!status && !(status = report(request, list.n, list.n + 1, err)))
        status = give_back(db, 0, &stop, err);
    if (!status)
        status = vdb_catalog_checkpoint(db->catalog, true, err); /* has only the log to cut */
    return status ? status : report(request, list.n + 1, list.n + 1, err);
}

int vecdb_compact(vecdb *db, const vecdb_work *request, vecdb_error *err)
{
    int status = vdb_database_check_writable(db, err);
    if (status)
        return status;
    vecdb_work work;
    if ((status = VDB_STRUCT_COPY(&work, request, vecdb_work, progress_context, err)))
        return status;
    if ((status = vdb_append_begin(db, VDB_APPEND_WORK_MS, err)))
        return status;
    status = compact_all(db, &work, err);
    vdb_append_end(db);
    return status;
}
