/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/crash_work.h - a workload that is recorded: random operations on a database, and what each has to change
 *
 * One table in crash_work.c lists the operations. Each step notes where in the journal it begins and ends,
 * what the database has to hold before and after it, and whether it was acknowledged.
 */
#ifndef VDB_TESTS_CRASH_WORK_H
#define VDB_TESTS_CRASH_WORK_H

#include "base/random.h"
#include "crash_journal.h"
#include "crash_model.h"
#include "harness.h"

/* Where the test is: said in front of what went wrong. */
extern char crash_where[512];

#define CRASH_FAIL(format, ...) FAIL("%s: " format, crash_where, __VA_ARGS__)
#define CRASH_OK(error, call)                                                                  \
    do {                                                                                       \
        int status_value = (call);                                                             \
        if (status_value)                                                                      \
            CRASH_FAIL("%s: %s: %s", #call, vecdb_status_name(status_value), (error).message); \
    } while (0)

struct crash_step {
    const char *operation;
    size_t first_event, end_event; /* of the journal */
    int status;
    bool is_durable;               /* when it was acknowledged: no power cut may take it back */
    uint64_t digest;               /* of `after` */
    struct crash_model *after;     /* what the database holds when it is done */
    char backup[CRASH_NAME_BYTES]; /* the directory it backs up to; "": none */
    bool is_restore;
};

struct crash_plan {
    unsigned number; /* of the workload: names of backups are never used again */
    unsigned n_steps;
    bool is_fat; /* records with long texts, so that checkpoints come by themselves */
    bool has_graphs; /* mostly fields that want one, and so many records */
    unsigned n_failing_syncs;
    int durability[2]; /* of the two handles */
    int io;
};

struct crash_history {
    struct crash_journal journal;
    struct crash_model *before; /* all steps */
    uint64_t digest_before;
    struct crash_step *steps;
    size_t n_steps, capacity;
};

/* Record a workload on the database `root`/db, which holds what `before` says (NULL: there is none). */
void crash_work(const char *root, const struct crash_plan *plan, const struct crash_model *before, uint64_t seed,
                struct crash_history *history);
void crash_history_release(struct crash_history *history);

#endif
