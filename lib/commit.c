/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/commit.c - the commit queue (see commit.h)
 *
 * An error that makes SQLite roll the whole transaction back (a full disk, no memory, a failing
 * disk) takes the whole group down: each of its writers is told, and none of it was done.
 */
#include "commit.h"

#include <sched.h>

#include "database.h"

/* How far back the change log reaches, in commits, and how often it is cut. A view that is further
 * behind is read anew, which costs what opening costs. */
#define CHANGES_KEPT 1024
#define TRIM_EVERY 256

/* A leader takes at most so many works, so that the first of them does not wait for ever. */
#define GROUP_LIMIT 64

/* A leader waits so long for as many works as the last group had: their writers have just been woken, and a
 * group that begins without them costs a whole flush for one. A writer who is alone never waits. */
#define GATHER_NS 60000

void vdb_commit_init(struct vdb_commit_queue *queue)
{
    pthread_mutex_init(&queue->lock, NULL);
    queue->first = NULL;
    queue->last = &queue->first;
    queue->has_leader = false;
    queue->n_waiting = 0;
    queue->last_group = 1;
}

void vdb_commit_release(struct vdb_commit_queue *queue)
{
    pthread_mutex_destroy(&queue->lock);
}

int vdb_transaction_log(struct vdb_transaction *transaction, struct vdb_change *change, vecdb_error *err)
{
    change->sequence = transaction->sequence;
    change->ordinal = transaction->n_changes;
    int status = vdb_changes_add(transaction->connection, change, err);
    if (!status)
        transaction->n_changes++;
    return status;
}

/* Take up to GROUP_LIMIT works off the queue; the caller's is the first. */
static struct vdb_work *take_group(struct vdb_commit_queue *queue)
{
    struct vdb_work *group = queue->first, *end = group;
    unsigned n = 1;
    for (; end->next && n < GROUP_LIMIT; n++)
        end = end->next;
    queue->n_waiting -= n;
    queue->last_group = n;
    queue->first = end->next;
    if (!queue->first)
        queue->last = &queue->first;
    end->next = NULL;
    return group;
}

static void fail_all(struct vdb_work *group, const vecdb_error *error)
{
    for (struct vdb_work *work = group; work; work = work->next) {
        work->status = error->status;
        work->error = *error;
    }
}

/* Apply one work of several; true: it is in the transaction. `is_lost`: so is nothing any more, and
 * `error` says why (which the work's own error does not: it may be that a key exists). */
static bool apply_in_savepoint(struct vdb_work *work, struct vdb_transaction *transaction, bool *is_lost,
                               vecdb_error *error)
{
    struct vdb_connection *c = transaction->connection;
    uint32_t n_changes = transaction->n_changes;
    work->status = vdb_execute(c, "SAVEPOINT work", 0, &work->error);
    if (!work->status) {
        work->status = work->apply(work->context, transaction, &work->error);
        if (work->status && vdb_transaction_is_open(c)) {
            transaction->n_changes = n_changes;
            *is_lost = vdb_execute(c, "ROLLBACK TO work", 0, error) || vdb_execute(c, "RELEASE work", 0, error);
        } else if (!work->status) {
            work->status = vdb_execute(c, "RELEASE work", 0, &work->error);
        }
    }
    if (!*is_lost && !vdb_transaction_is_open(c)) {
        *is_lost = true;
        *error = work->error;
    }
    return !work->status;
}

static void run_group(vecdb *db, struct vdb_work *group)
{
    struct vdb_transaction transaction = {.n_changes = 0};
    vecdb_error error = VECDB_ERROR_INIT;
    if (vdb_write_begin(db->catalog, &transaction.connection, &transaction.sequence, &error)) {
        fail_all(group, &error);
        return;
    }
    size_t n_applied = 0;
    bool is_lost = false;
    if (!group->next) {
        group->status = group->apply(group->context, &transaction, &group->error);
        n_applied = group->status ? 0 : 1;
    } else {
        for (struct vdb_work *work = group; work && !is_lost; work = work->next)
            n_applied += apply_in_savepoint(work, &transaction, &is_lost, &error);
    }
    if (is_lost) {
        if (!error.status) /* nobody said why; still nothing was written */
            vdb_fail(&error, VECDB_INTERNAL, "the transaction was rolled back, and nothing says why");
        vdb_write_rollback(transaction.connection);
        fail_all(group, &error);
        return;
    }
    int status = VECDB_OK;
    if (n_applied && transaction.sequence > CHANGES_KEPT && transaction.sequence % TRIM_EVERY == 0)
        status = vdb_changes_trim(transaction.connection, transaction.sequence - CHANGES_KEPT, &error);
    if (!n_applied || status) {
        vdb_write_rollback(transaction.connection);
    } else {
        status = vdb_write_commit(transaction.connection, &error);
    }
    for (struct vdb_work *work = group; work && status; work = work->next)
        if (!work->status) {
            work->status = status;
            work->error = error;
        }
}

/* By the leader, who alone looks at last_group. */
static void gather(struct vdb_commit_queue *queue)
{
    uint64_t end = queue->last_group > 1 ? vdb_now_ns() + GATHER_NS : 0;
    while (queue->n_waiting < queue->last_group && vdb_now_ns() < end)
        sched_yield();
}

/* Commit the group that begins with `own`, then hand the lead to the first that waits. */
static void lead(vecdb *db, struct vdb_work *own)
{
    struct vdb_commit_queue *queue = &db->queue;
    gather(queue);
    pthread_mutex_lock(&queue->lock);
    struct vdb_work *group = take_group(queue);
    pthread_mutex_unlock(&queue->lock);
    run_group(db, group);
    for (struct vdb_work *each = group, *next; each; each = next) {
        next = each->next; /* the work is its writer's, who goes as soon as he is woken */
        each->is_done = true;
        if (each != own)
            sem_post(&each->wakes);
    }
    pthread_mutex_lock(&queue->lock);
    struct vdb_work *first = queue->first;
    queue->has_leader = first != NULL;
    pthread_mutex_unlock(&queue->lock);
    if (first)
        sem_post(&first->wakes);
}

int vdb_commit(vecdb *db, int (*apply)(void *context, struct vdb_transaction *transaction, vecdb_error *err),
               void *context, vecdb_error *err)
{
    struct vdb_commit_queue *queue = &db->queue;
    struct vdb_work work = {.apply = apply, .context = context};
    sem_init(&work.wakes, 0, 0);
    pthread_mutex_lock(&queue->lock);
    *queue->last = &work;
    queue->last = &work.next;
    queue->n_waiting++;
    bool leads = !queue->has_leader;
    queue->has_leader = true;
    pthread_mutex_unlock(&queue->lock);
    while (!leads && sem_wait(&work.wakes)) /* a signal */
        ;
    if (!work.is_done) /* either at once, or woken to lead */
        lead(db, &work);
    sem_destroy(&work.wakes);
    if (work.error.status && err) /* a status without an error is a matter between the work and its writer */
        *err = work.error;
    return work.status;
}
