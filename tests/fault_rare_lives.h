/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/fault_rare_lives.h - lives that reach what others do not (see fault_lives.h)
 *
 * Most of these arrange something (inject_arrange): a sync that fails, so that what it leaves behind is done at the
 * next one, where the failure under test comes; another's work between two calls of ours. A call that cannot
 * succeed, because of what was done to its files, must say so whatever fails besides (REFUSED).
 */
#ifndef VDB_TESTS_FAULT_RARE_LIVES_H
#define VDB_TESTS_FAULT_RARE_LIVES_H

#include "fault_graph_lives.h"

/* What its status has to be is an error; only a lack of memory is told as such. */
#define REFUSED(life, what, call)                                                                                      \
    CALL(life, what, ({                                                                                                \
             int refusal = (call);                                                                                     \
             if (!refusal)                                                                                             \
                 FAIL("%s: %s succeeds", trial, what);                                                                 \
             refusal == VECDB_NOMEM ? refusal : VECDB_OK;                                                              \
         }))

static int fail_with_eio(void *context)
{
    (void)context;
    return EIO;
}

static int fail_with_erange(void *context)
{
    (void)context;
    return ERANGE;
}

/* A vector file whose sync failed is not appended to any more, and a log is written again: first the one, then the
 * other, and each time with memory that may not be there. */
static void live_after_failed_syncs(struct life *life)
{
    if (!begin(life))
        return;
    write_things(life, 0, 60, false);
    put_ledger(life);
    inject_arrange("sync", fail_with_eio, NULL);
    write_things(life, 60, 60, false);
    put_ledger(life);
    inject_arrange("sync", fail_with_eio, NULL);
    put_ledger(life);
    put_ledger(life);
    search_things(life, "wide", 1, VECDB_F32, 5);
    close_db(life);
}

static int make_it_first(void *context)
{
    char path[300];
    snprintf(path, sizeof path, "%s/state", (const char *)context);
    CHECK(!mkdir(context, 0777) && !mkdir(path, 0777));
    return 0;
}

/* Another makes the directory at the same time, and puts into it what ours cannot be made beside. */
static void live_with_somebody_faster(struct life *life)
{
    if (!begin(life))
        return;
    put_ledger(life);
    inject_arrange("mkdir", make_it_first, life->other);
    REFUSED(life, "backup", vecdb_backup(life->db, life->other, NULL, &err));
    close_db(life);
}

/* Where the working directory has no name any more, a short name stays as it is. */
static void live_nowhere(struct life *life)
{
    int before = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(before >= 0 && !chdir(test_directory()));
    if (begin(life)) {
        put_ledger(life);
        inject_arrange("getcwd", fail_with_erange, NULL);
        CALL(life, "backup", vecdb_backup(life->db, "other", NULL, &err));
        close_db(life);
    }
    CHECK(!fchdir(before) && !close(before));
}

/* A log without its index, which who only reads must not make. */
static void live_without_the_index_of_the_log(struct life *life)
{
    char path[300], kept[sizeof life->path];
    if (!begin(life))
        return;
    put_ledger(life);
    write_things(life, 0, 20, true);
    if (life->n_failed)
        return close_db(life);
    copy_files(life->path, life->third);
    close_db(life);
    snprintf(path, sizeof path, "%s/catalog.sqlite-shm", life->third);
    CHECK(!unlink(path));
    memcpy(kept, life->path, sizeof kept);
    memcpy(life->path, life->third, sizeof kept);
    life->options.mode = VECDB_OPEN_READONLY;
    REFUSED(life, "open", vecdb_open(life->path, &life->options, &life->db, &err));
    memcpy(life->path, kept, sizeof kept);
}

/* `state` and a page of vectors: a new `state` is no cure, so the old one is put back and all is built anew. */
static void live_and_heal_more_than_the_state(struct life *life)
{
    uint64_t n_lost;
    if (!begin(life))
        return;
    write_things(life, 0, 40, true);
    put_ledger(life);
    close_db(life);
    if (life->n_failed)
        return;
    flip(life, "state", 20);
    flip(life, "vectors-2-1", 5000);
    for (int i = 0; i < 2; i++)
        CALL(life, "repair", vecdb_repair(life->path, &life->options, NULL, note_problem, NULL, &n_lost, &err));
}

/* Few records, so that each table is a page, and the pages of these tables (NULL: page 2) are lost or doubtful. */
static void salvage_tables(struct life *life, const char *where, bool is_lost)
{
    uint32_t pages[16] = {2};
    uint64_t n_lost;
    size_t n_pages = 1;
    if (!begin(life))
        return;
    put_ledger(life);
    write_things(life, 0, 8, true);
    close_db(life);
    if (life->n_failed || !begin(life))
        return;
    if (where)
        n_pages = pages_of(life, where, pages, 16);
    CHECK(n_pages);
    bool is_whole = !life->n_failed;
    close_db(life);
    if (!is_whole)
        return;
    damage_tables(life, pages, n_pages, is_lost);
    for (int i = 0; i < 2; i++)
        CALL(life, "repair", vecdb_repair(life->path, &life->options, NULL, note_problem, NULL, &n_lost, &err));
}

static void live_and_salvage_doubtful_records(struct life *life)
{
    salvage_tables(life, "type = 'table' AND name LIKE 'records_2%'", false);
}

static void live_and_miss_records(struct life *life)
{
    salvage_tables(life, "tbl_name LIKE 'records_2%'", true);
}

static void live_and_salvage_without_a_map(struct life *life)
{
    salvage_tables(life, NULL, true);
}

/* A handle that deletes whenever the first one waits for the disk, and is not asked to wait. */
struct gravedigger {
    vecdb_collection *things;
    int next, n_deleted;
};

static int delete_one(void *context)
{
    struct gravedigger *digger = context;
    char text[32];
    uint64_t n_deleted = 0;
    snprintf(text, sizeof text, "thing %05d", digger->next++);
    vecdb_key key = vecdb_key_text(text);
    if (!vecdb_delete(digger->things, &key, 1, &n_deleted, NULL))
        digger->n_deleted += (int)n_deleted;
    return digger->next < 60 ? INJECT_LATER : 0;
}

/* Records die after they were copied into a new store, and before it is taken. */
static void live_with_deaths_while_slots_are_numbered_anew(struct life *life)
{
    struct vdb_connection *c;
    uint64_t sequence;
    struct gravedigger digger = {0};
    struct life other = *life;
    vecdb_error err = VECDB_ERROR_INIT;
    if (!begin(life))
        return;
    write_things(life, 0, 60, true);
    put_ledger(life);
    if (life->n_failed)
        return close_db(life);
    other.options.busy_timeout_ms = VECDB_NO_WAIT;
    other.options.size = sizeof other.options;
    CHECK_OK(err, vecdb_open(life->path, &other.options, &other.db, &err));
    CHECK_OK(err, vecdb_collection_open(other.db, "things", &digger.things, &err));
    CHECK_OK(err, vdb_write_begin(life->db->catalog, &c, &sequence, &err));
    CHECK_OK(err, vdb_execute(c, "UPDATE collections SET next_slot = 4294967290 WHERE name = 'things'", 0, &err));
    CHECK_OK(err, vdb_write_commit(c, &err));
    inject_arrange("sync", delete_one, &digger);
    write_things(life, 60, 80, false);
    compact(life);
    inject_arrange(NULL, NULL, NULL);
    vecdb_close(other.db);
    if (!life->n_failed)
        CHECK(digger.n_deleted > 0);
    search_things(life, "wide", 1, VECDB_F32, 30);
    put_ledger(life);
    close_db(life);
}

static int let_go(void *context, const vecdb_progress *progress)
{
    (void)progress;
    vdb_state_release_builder(((vecdb *)context)->state);
    return 0;
}

/* Another handle is building: who waits for an index looks whether it still does. */
static void live_beside_a_builder(struct life *life)
{
    struct life other = *life;
    if (!begin(life))
        return;
    write_rows(life, 0, 10);
    put_ledger(life);
    if (has_graphs(life) && open_db(&other, VECDB_OPEN_EXISTING)) {
        vecdb_work work = {.size = sizeof work, .progress = let_go, .progress_context = other.db};
        CHECK(vdb_state_try_builder(other.db->state));
        CALL(life, "index wait", vecdb_index_wait(life->graphs, NULL, 0, &work, &err));
        close_db(&other);
    }
    search_graph(life, false);
    close_db(life);
}

#endif
