/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/check.c - reading every byte, and comparing all with all that it refers to
 *
 *   1. `state`, and the catalog's number against it
 *   2. the catalog: every page's checksum and every frame of its log; then SQLite's integrity check; then the
 *      tables against sense                                                      storage/catalog_check.c
 *   3. every collection: records, dead slots and tails against each other        check_collection.c
 *   4. every extent: footer, gaps, every page, from the files themselves; slots against records, values against
 *      the field                                                                 check_vectors.c
 *   5. every index file: all checksums                                           index_files.c
 *   6. every named snapshot likewise: it is a database inside of the database
 *
 * A problem says where it is, and what it means: which collection, how many records, from which key to which. To
 * know that, the records of a damaged page are looked up by their slots; that is why pages are read after the
 * records, and why nothing is told twice.
 *
 * A check goes on behind whatever it finds, as far as it can: a damaged page of the catalog may cost the answers
 * about one collection, a missing file those about one field. What cannot be read at all is itself a problem,
 * a failing disk's too; only a lack of memory, or a wish to stop, ends the check.
 *
 * Beside writers. A collection is read in one transaction, and its files are opened in it; then the transaction is
 * ended, and the pages are read, however long that takes: no bytes of a committed extent ever change, and files
 * that a compaction unlinks stay readable. A file that is missing is looked for again in a later transaction;
 * only when there is none, it is missed.
 *
 * Rejected: to check through views, as searches read. One damaged footer makes a view impossible, and with it a
 * word about all the rest.
 */
#include "check.h"

#include <stdarg.h>
#include <stdio.h>

#define MESSAGE_BYTES 1024
#define CATALOG "catalog.sqlite"

/* ------------------------------------------------------------------ telling */

void vdb_check_tell(struct vdb_check *check, const char *file, const char *collection, const char *format, ...)
{
    char message[MESSAGE_BYTES], path[128];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    snprintf(path, sizeof path, "%s%s", check->prefix, file);
    vecdb_problem problem = {
        .file = path, .message = message, .kind = VECDB_PROBLEM_DAMAGED, .collection = collection};
    check->n_problems++;
    if (check->each)
        check->each(check->context, &problem);
}

const char *vdb_check_advice(struct vdb_check *check, char *out, size_t room)
{
    if (*check->prefix)
        snprintf(out, room, "; look at the database itself too, which may share the file; the snapshot can be dropped");
    else
        snprintf(out, room, "; restore from a backup or run \"vecdb-cli repair %.200s\"", check->home);
    return out;
}

int vdb_check_step(struct vdb_check *check, vecdb_error *err)
{
    const vecdb_work *request = check->request;
    uint64_t total = check->n_total > check->n_bytes ? check->n_total : check->n_bytes;
    vecdb_progress progress = {.phase = "check", .done = check->n_bytes, .total = total};
    if (request && request->progress && request->progress(request->progress_context, &progress))
        return vdb_fail(err, VECDB_INTERRUPTED, "the check was interrupted");
    return vdb_stop_check(check->stop, err);
}

/* What keeps the check from reading something is a finding; the check goes on elsewhere. */
static int absorb(struct vdb_check *check, const char *what, int status, const vecdb_error *err)
{
    char advice[300];
    if (!vdb_check_is_finding(status))
        return status;
    vdb_check_tell(check, CATALOG, NULL, "%s: %s%s", what, err->message,
                   vdb_check_advice(check, advice, sizeof advice));
    return VECDB_OK;
}

/* ------------------------------------------------------------------ the catalog */

/* A sentence of the shim's, or of SQLite's: the file's name stands in front of it. */
static void tell_catalog(void *context, const char *message)
{
    struct vdb_check *check = context;
    char advice[300];
    const char *file = !strncmp(message, CATALOG "-wal", strlen(CATALOG "-wal")) ? CATALOG "-wal" : CATALOG;
    if (!strncmp(message, file, strlen(file)) && !strncmp(message + strlen(file), ": ", 2))
        message += strlen(file) + 2;
    vdb_check_tell(check, file, NULL, "%s%s", message, vdb_check_advice(check, advice, sizeof advice));
}

static void tell_table(void *context, const char *collection, const char *message)
{
    struct vdb_check *check = context;
    char advice[300];
    vdb_check_advice(check, advice, sizeof advice);
    if (collection)
        vdb_check_tell(check, CATALOG, collection, "collection \"%.80s\": %s%s", collection, message, advice);
    else
        vdb_check_tell(check, CATALOG, NULL, "%s%s", message, advice);
}

struct lists {
    struct vdb_check *check;
    uint64_t *ids;
    size_t n_ids;
    struct vdb_snapshot_name *snapshots;
    size_t n_snapshots;
    vecdb_error *err;
};

static int list_collection(void *context, const struct vdb_collection_row *row)
{
    struct lists *lists = context;
    uint64_t *ids = vdb_realloc_array(&lists->check->db->memory, lists->ids, lists->n_ids + 1, sizeof *ids);
    if (!ids)
        return vdb_fail_memory(lists->err, sizeof *ids);
    lists->ids = ids;
    ids[lists->n_ids++] = row->id;
    return VECDB_OK;
}

static int list_snapshot(void *context, const struct vdb_snapshot_name *snapshot)
{
    struct lists *lists = context;
    struct vdb_snapshot_name *snapshots = vdb_realloc_array(&lists->check->db->memory, lists->snapshots,
                                                            lists->n_snapshots + 1, sizeof *snapshots);
    if (!snapshots)
        return vdb_fail_memory(lists->err, sizeof *snapshots);
    lists->snapshots = snapshots;
    snapshots[lists->n_snapshots++] = *snapshot;
    return VECDB_OK;
}

/* For progress: what is to be read of vector files. */
static int sum_extents(struct vdb_connection *c, struct vdb_check *check, vecdb_error *err)
{
    uint64_t n_bytes;
    int status = vdb_catalog_check_size(c, &n_bytes, err);
    check->n_total += status ? 0 : n_bytes;
    return status;
}

static int check_tables(struct vdb_check *check, struct lists *lists, vecdb_error *err)
{
    struct vdb_connection *c;
    uint64_t visible = 0, sequence;
    char advice[300];
    int known = vdb_state_sequence(check->db->state, &visible, err); /* before the transaction: see state.h */
    if (known)
        vdb_check_tell(check, "state", NULL, "%s", err->message);
    int status = vdb_read_begin(check->db->catalog, &c, &sequence, err);
    if (status)
        return absorb(check, "it cannot be read", status, err);
    if (!known && sequence < visible)
        vdb_check_tell(check, CATALOG, NULL, "its last commits are lost: it is at %llu, state says %llu%s",
                       (unsigned long long)sequence, (unsigned long long)visible,
                       vdb_check_advice(check, advice, sizeof advice));
    if ((status = vdb_catalog_check_tables(c, tell_table, check, err)))
        status = absorb(check, "its tables cannot be checked", status, err);
    if (!status && (status = sum_extents(c, check, err)))
        status = absorb(check, "the list of extents cannot be read", status, err);
    if (!status && (status = vdb_collection_each(c, list_collection, lists, err)))
        status = absorb(check, "the list of collections cannot be read", status, err);
    if (!status && (status = vdb_catalog_check_snapshots(c, list_snapshot, lists, err)))
        status = absorb(check, "the list of snapshots cannot be read", status, err);
    vdb_read_end(c);
    return status;
}

static int check_database(struct vdb_check *check, struct lists *lists, vecdb_error *err)
{
    vecdb *db = check->db;
    int status = vdb_check_step(check, err);
    if (status)
        return status;
    if ((status = vdb_state_check(db->state, err))) {
        if (status != VECDB_CORRUPT)
            return status;
        vdb_check_tell(check, "state", NULL, "%s", err->message); /* which says what to do */
    }
    if ((status = vdb_catalog_check(db->catalog, tell_catalog, check, err)))
        status = absorb(check, "it cannot be read", status, err);
    if (!status)
        status = check_tables(check, lists, err);
    for (size_t i = 0; i < lists->n_ids && !status; i++)
        status = vdb_check_one_collection(check, lists->ids[i], err);
    return status ? status : vdb_index_files_check(check, err);
}

/* ------------------------------------------------------------------ snapshots */

/* Is there still a snapshot of this id? */
static bool is_named(struct vdb_check *check, uint64_t id)
{
    struct vdb_connection *c;
    uint64_t sequence;
    struct lists lists = {.check = check};
    bool found = false;
    if (vdb_read_begin(check->db->catalog, &c, &sequence, NULL))
        return false;
    if (!vdb_catalog_check_snapshots(c, list_snapshot, &lists, NULL))
        for (size_t i = 0; i < lists.n_snapshots; i++)
            found |= lists.snapshots[i].id == id;
    vdb_read_end(c);
    vdb_free(&check->db->memory, lists.snapshots);
    return found;
}

static int check_snapshot(struct vdb_check *check, const struct vdb_snapshot_name *snapshot, vecdb_error *err)
{
    vecdb *db = check->db, *opened;
    vecdb_options options = db->options;
    char prefix[40], advice[300];
    options.mode = VECDB_OPEN_READONLY;
    options.snapshot = snapshot->name;
    options.scrub_bytes_per_second = 0;
    options.threads = VECDB_THREADS_NONE;
    snprintf(prefix, sizeof prefix, "snapshot-%llu/", (unsigned long long)snapshot->id);
    struct vdb_check inner = *check;
    inner.prefix = prefix;
    int status = vdb_database_open(db->path, &options, db->hook, &opened, err);
    if (status == VECDB_BUSY || (status == VECDB_NOT_FOUND && !is_named(check, snapshot->id)))
        return VECDB_OK; /* dropped meanwhile */
    if (status == VECDB_NOMEM || status == VECDB_INTERRUPTED)
        return status;
    if (status) {
        /* An open looks at these two files. */
        const char *file = strncmp(err->message, "state: ", 7) ? CATALOG : "state";
        vdb_check_tell(&inner, file, NULL, "snapshot \"%.80s\" cannot be opened: %s%s", snapshot->name, err->message,
                       vdb_check_advice(&inner, advice, sizeof advice));
        check->n_problems = inner.n_problems;
        return VECDB_OK;
    }
    struct lists lists = {.check = &inner, .err = err};
    inner.db = opened;
    status = check_database(&inner, &lists, err);
    vdb_free(&opened->memory, lists.ids);
    vdb_free(&opened->memory, lists.snapshots);
    vecdb_close(opened);
    check->n_problems = inner.n_problems;
    check->n_bytes = inner.n_bytes;
    check->n_total = inner.n_total;
    return status;
}

/* ------------------------------------------------------------------ the call */

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

int vecdb_check(vecdb *db, const vecdb_work *request, vecdb_problem_fn each, void *context, uint64_t *n_problems,
                vecdb_error *err)
{
    vecdb_error own = VECDB_ERROR_INIT;
    int status = vdb_database_check(db, err);
    if (status)
        return status;
    vecdb_work work;
    if ((status = VDB_STRUCT_COPY(&work, request, vecdb_work, progress_context, err)))
        return status;
    struct vdb_stop stop;
    struct vdb_check check = {.db = db,
                              .request = &work,
                              .each = each,
                              .context = context,
                              .home = last_part(db->path),
                              .prefix = "",
                              .stop = &stop};
    struct lists lists = {.check = &check, .err = &own};
    vdb_stop_init(&stop, db, 0);
    status = check_database(&check, &lists, &own);
    for (size_t i = 0; i < lists.n_snapshots && !status; i++)
        status = check_snapshot(&check, &lists.snapshots[i], &own);
    if (!status)
        status = vdb_check_step(&check, &own);
    vdb_free(&db->memory, lists.ids);
    vdb_free(&db->memory, lists.snapshots);
    if (status && err)
        *err = own;
    if (!status && n_problems)
        *n_problems = check.n_problems;
    return status;
}
