/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/commit.h - the commit queue: writers of one process share transactions, and with them fsyncs
 *
 * A writer prepares its work outside of any lock, puts it into the queue and waits. The first in
 * the queue leads: it takes all that wait, opens the gate and a transaction, applies each work in
 * a savepoint of its own (one that fails takes back only itself), commits, wakes the others, and hands
 * the lead to the first that has come meanwhile. Each writer is woken by a semaphore of his own: with one
 * condition for all, every commit woke all, who then stood in line for the lock.
 * The leader applies the others' work in its own thread: a work must not care which thread that is.
 *
 * The design's prototype, on 2 cores with 8 threads of one row a call, made 13-17 thousand rows/s so, and
 * fairly, against 4-5 thousand with a transaction each.
 */
#ifndef VDB_LIB_COMMIT_H
#define VDB_LIB_COMMIT_H

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>

#include "storage/catalog.h"
#include "vecdb.h"

/* The transaction that a work is applied in. */
struct vdb_transaction {
    struct vdb_connection *connection;
    uint64_t sequence;   /* that it will have */
    uint32_t n_changes;  /* logged so far */
};

/* Log a change under the transaction's number. */
int vdb_transaction_log(struct vdb_transaction *transaction, struct vdb_change *change, vecdb_error *err);

struct vdb_work {
    int (*apply)(void *context, struct vdb_transaction *transaction, vecdb_error *err);
    void *context;
    vecdb_error error;
    int status;
    bool is_done;
    sem_t wakes; /* posted once: the work is done, or its writer is to lead */
    struct vdb_work *next;
};

struct vdb_commit_queue {
    pthread_mutex_t lock;
    struct vdb_work *first, **last;
    bool has_leader;
    _Atomic unsigned n_waiting; /* works in the queue */
    unsigned last_group;        /* how many works the last leader took; the leader's */
};

void vdb_commit_init(struct vdb_commit_queue *queue);
void vdb_commit_release(struct vdb_commit_queue *queue);

/* Apply and commit; VECDB_OK when it is durable. */
int vdb_commit(vecdb *db, int (*apply)(void *context, struct vdb_transaction *transaction, vecdb_error *err),
               void *context, vecdb_error *err);

#endif
