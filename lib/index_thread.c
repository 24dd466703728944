/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/index_thread.c - the thread of a handle that builds graphs in the background
 *
 *     a view is made -> is there enough to do? -> the thread wakes, builds what each field lacks, sleeps
 *
 * It starts when there is first something to do, ends with the handle, and holds no lock of the collection while it
 * builds. What failed is kept as a background error. Where another process is building, it looks again after a while:
 * then there may be a file to load.
 */
#include "database.h"

#include <errno.h>
#include <signal.h>
#include <time.h>

#define RETRY_NS 500000000u /* to look again whether another process has published */

static vecdb_collection *first_collection(vecdb *db)
{
    pthread_mutex_lock(&db->lock);
    vecdb_collection *first = db->collections; /* handles are only ever put in front of it */
    pthread_mutex_unlock(&db->lock);
    return first;
}

static bool must_end(struct vdb_indexer *indexer)
{
    pthread_mutex_lock(&indexer->lock);
    bool ends = indexer->ends;
    pthread_mutex_unlock(&indexer->lock);
    return ends;
}

static bool has_index(vecdb_collection *collection, uint64_t field)
{
    pthread_mutex_lock(&collection->indexes.lock);
    bool has_one = vdb_index_find(collection, field);
    pthread_mutex_unlock(&collection->indexes.lock);
    return has_one;
}

static int build_collection(vecdb_collection *collection, struct vdb_stop *stop, vecdb_error *err)
{
    struct vdb_view *view;
    uint64_t sequence;
    vecdb_error refused = VECDB_ERROR_INIT;
    int status = vdb_view_acquire(collection, &view, NULL, &sequence, err);
    if (status)
        return status == VECDB_NOT_FOUND ? VECDB_OK : status; /* dropped */
    for (size_t i = 0; i < view->n_fields && !status; i++) {
        struct vdb_index_build how = {
            .field = view->fields[i].row.id, .least = VDB_INDEX_LAG_ROWS, .n_threads = 1, .stop = stop};
        bool has_one = has_index(collection, how.field);
        if (has_one || vdb_index_wanted(view, &view->fields[i], false))
            status = vdb_index_build(collection, &how, err);
        if (status == VECDB_NOMEM) { /* smaller fields may fit all the same */
            refused = *err;
            status = VECDB_OK;
        }
    }
    vdb_view_release(view);
    if (status == VECDB_NOT_FOUND)
        status = VECDB_OK;
    if (status || !refused.status)
        return status;
    *err = refused;
    return refused.status;
}

/* Under the lock. */
static void wait_for_work(struct vdb_indexer *indexer)
{
    if (!indexer->must_retry) {
        pthread_cond_wait(&indexer->wakes, &indexer->lock);
        return;
    }
    uint64_t until_ns = vdb_now_ns() + RETRY_NS;
    struct timespec until = {(time_t)(until_ns / 1000000000), (long)(until_ns % 1000000000)};
    indexer->has_work |= pthread_cond_timedwait(&indexer->wakes, &indexer->lock, &until) == ETIMEDOUT;
}

static void *work(void *context)
{
    vecdb *db = context;
    struct vdb_indexer *indexer = &db->indexer;
    pthread_mutex_lock(&indexer->lock);
    for (;;) {
        while (!indexer->has_work && !indexer->ends)
            wait_for_work(indexer);
        if (indexer->ends)
            break;
        indexer->has_work = indexer->must_retry = false;
        pthread_mutex_unlock(&indexer->lock);
        struct vdb_stop stop;
        vdb_stop_init(&stop, db, 0);
        for (vecdb_collection *c = first_collection(db); c && !must_end(indexer); c = c->next) {
            vecdb_error err = VECDB_ERROR_INIT;
            int status = build_collection(c, &stop, &err);
            if (status && status != VECDB_INTERRUPTED) {
                err.status = status;
                vdb_maintain_failed(db, &err);
            }
        }
        pthread_mutex_lock(&indexer->lock);
    }
    pthread_mutex_unlock(&indexer->lock);
    return NULL;
}

void vdb_index_notice(vecdb_collection *collection, const struct vdb_view *view)
{
    vecdb *db = collection->db;
    struct vdb_indexer *indexer = &db->indexer;
    bool is_due = false;
    if (db->options.threads == VECDB_THREADS_NONE)
        return;
    for (size_t i = 0; i < view->n_fields && !is_due; i++)
        if (vdb_index_wanted(view, &view->fields[i], true)) {
            struct vdb_served *served = vdb_index_get(collection, view, &view->fields[i]);
            if (!served && !vdb_index_wanted(view, &view->fields[i], false))
                continue;
            uint64_t n_refused = 0; /* rows that were missing when there was no room for more */
            vdb_index_is_refused(collection, view->fields[i].row.id, NULL, &n_refused);
            is_due = vdb_index_count_missing(served, view, &view->fields[i]) >= n_refused + VDB_INDEX_LAG_ROWS;
            is_due |= served && vdb_index_has_new_dead(served, view);
            vdb_served_release(served);
        }
    if (!is_due)
        return;
    pthread_mutex_lock(&indexer->lock);
    /* Not for the thread's own views: what failed would be tried again at once, for ever. */
    if (!indexer->ends && !(indexer->has_thread && pthread_equal(indexer->thread, pthread_self()))) {
        indexer->has_work = true;
        if (!indexer->has_thread) {
            sigset_t all, old;
            sigfillset(&all);
            pthread_sigmask(SIG_SETMASK, &all, &old); /* the application's handlers run in its own threads */
            indexer->has_thread = !pthread_create(&indexer->thread, NULL, work, db);
            pthread_sigmask(SIG_SETMASK, &old, NULL);
        }
        pthread_cond_signal(&indexer->wakes);
    }
    pthread_mutex_unlock(&indexer->lock);
}

void vdb_indexer_init(struct vdb_indexer *indexer)
{
    pthread_mutex_init(&indexer->build_lock, NULL);
    pthread_mutex_init(&indexer->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&indexer->wakes, &attributes);
    pthread_condattr_destroy(&attributes);
}

void vdb_indexer_stop(vecdb *db)
{
    struct vdb_indexer *indexer = &db->indexer;
    pthread_mutex_lock(&indexer->lock);
    indexer->ends = true;
    bool has_thread = indexer->has_thread;
    pthread_cond_signal(&indexer->wakes);
    pthread_mutex_unlock(&indexer->lock);
    if (has_thread) {
        vecdb_interrupt(db);
        pthread_join(indexer->thread, NULL);
    }
    indexer->has_thread = false;
}

void vdb_indexer_release(vecdb *db)
{
    struct vdb_indexer *indexer = &db->indexer;
    for (size_t i = 0; i < indexer->n_scratches; i++)
        vdb_graph_scratch_free(indexer->scratches[i]);
    pthread_cond_destroy(&indexer->wakes);
    pthread_mutex_destroy(&indexer->lock);
    pthread_mutex_destroy(&indexer->build_lock);
}
