/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/repair.c - a damaged database is made usable again
 *
 *     what is wrong                                        what is done
 *     nothing                                              nothing
 *     only `state`: damaged, missing, another database's   it is set aside and made anew
 *     anything else                                        all truth that can be read is written into a new
 *                                                          database, which then takes the name
 *
 *                          my.vecdb            my.vecdb.repairing   my.vecdb.repaired   my.vecdb.damaged-1
 *     1  before            the damaged one     -                    -                   -
 *     2  building          the damaged, held   being made           -                   -
 *     3  complete          the damaged, held   -                    the new one         -
 *     4  renamed once      -                   -                    the new one         the damaged one
 *     5  renamed twice     the new one         -                    -                   the damaged one
 *
 * The new one is checked, closed and synced before it is called .repaired, and every step is a rename, which never
 * replaces anything, made durable before the next. So after a crash the names tell the step: in 2 and 3 the
 * damaged database is in its place, and a second run removes what the first one made and begins again; in 4 nothing
 * has the name, opening says so and makes no new database there (database.c), and a second run ends in 5. Of the
 * damaged database no byte is changed. (Where `state` was missing there is one afterwards: it carries the lock.
 * catalog.sqlite-shm is memory, and may change.)
 *
 * DIAGNOSIS reads the catalog without SQLite (storage/salvage.h), because SQLite's own recovery would write. Only a
 * catalog whose every byte is right is then opened, for vecdb_check to look at all the rest.
 *
 * LOST COMMITS. `state` knows the number of the last durable commit. A catalog that is whole, but older, has lost
 * some: that is told. A WAL with a broken frame and whole ones behind it is read past the break only if `state`
 * says that commits are missing: else what is behind may be of a transaction that was rolled back. When neither
 * `state` nor the catalog can tell, it is not read, and that is told as a loss.
 *
 * Rejected: mending in place (a mistake, or a second crash, would destroy what a later, cleverer repair could
 * have read); SQLite's own recovery extension (not in every SQLite; it knows neither our checksums nor which of
 * our tables can be made from others; it brings deleted rows back).
 */
#include "repair.h"

#include <stddef.h>
#include <stdio.h>

#include "backup.h"
#include "storage/catalog_backup.h"
#include "storage/catalog_repair.h"

#define MOST_KEPT 10000
#define NUMBER_BY_GUESS ((uint64_t)1 << 40) /* above any commit that was ever made */

/* What `state` says. */
struct state_facts {
    bool is_missing, is_damaged, is_of_preview, has_mark, has_uuid;
    char reason[256];
    unsigned char uuid[16];
    uint64_t sequence; /* the higher of its two numbers */
    uint64_t durable;
    uint32_t n_marked, salt2;
};

enum finding { FINDING_WHOLE, FINDING_STATE, FINDING_DAMAGED };

/* ------------------------------------------------------------------ names */

static char *with_suffix(struct vdb_repair *repair, const char *suffix)
{
    size_t room = strlen(repair->path) + strlen(suffix) + 1;
    char *path = vdb_alloc(&repair->memory, room);
    if (path)
        snprintf(path, room, "%s%s", repair->path, suffix);
    return path;
}

static int is_kind(struct vdb_repair *repair, const char *path, enum vdb_path_kind wanted, bool *is, vecdb_error *err)
{
    enum vdb_path_kind kind;
    int status = repair->vfs->kind(repair->vfs, path, &kind, err);
    *is = !status && kind == wanted;
    return status;
}

static int sync_parent(struct vdb_repair *repair, vecdb_error *err)
{
    char *parent = vdb_path_parent(&repair->memory, repair->path);
    int status =
        parent ? repair->vfs->sync_directory(repair->vfs, parent, err) : vdb_fail_memory(err, strlen(repair->path));
    vdb_free(&repair->memory, parent);
    return status;
}

static int seize(struct vdb_repair *repair, vecdb_error *err)
{
    char *state = vdb_path_join(&repair->memory, repair->path, "state");
    int status = state ? vdb_state_seize(state, &repair->seized, err) : vdb_fail_memory(err, strlen(repair->path));
    vdb_free(&repair->memory, state);
    return status;
}

static void release(struct vdb_repair *repair)
{
    vdb_state_release_all(repair->seized);
    repair->seized = -1;
}

/* Rename to the first name that is free of `format`, with numbers from 1 on. `name` takes it, the caller's. */
static int rename_to_free(struct vdb_repair *repair, const char *from, const char *format, char **name,
                          vecdb_error *err)
{
    vecdb_error own = VECDB_ERROR_INIT;
    int status = VECDB_EXISTS;
    for (int n = 1; status == VECDB_EXISTS && n <= MOST_KEPT; n++) {
        char suffix[40];
        snprintf(suffix, sizeof suffix, "%s%d", format, n);
        vdb_free(&repair->memory, *name);
        if (!(*name = with_suffix(repair, suffix)))
            return vdb_fail_memory(err, strlen(repair->path));
        status = repair->vfs->rename(repair->vfs, from, *name, &own);
    }
    if (status && err)
        *err = own;
    return status;
}

struct directory_list {
    struct vdb_repair *repair;
    const char *path;
    bool is_database;
    int status;
    vecdb_error *err;
};

static bool look_for_database(void *context, const char *name)
{
    struct directory_list *list = context;
    list->is_database |=
        !strncmp(name, "catalog.sqlite", 14) || !strncmp(name, "vectors-", 8) || !strcmp(name, "state");
    return true;
}

/* Is there something to repair? `is_done`: an earlier repair was, up to the last rename. */
static int look_at_place(struct vdb_repair *repair, bool *is_done, vecdb_error *err)
{
    struct vdb_vfs *vfs = repair->vfs;
    struct directory_list list = {.repair = repair};
    enum vdb_path_kind kind;
    bool is_complete;
    *is_done = false;
    int status = vfs->kind(vfs, repair->path, &kind, err);
    if (!status && kind == VDB_PATH_MISSING) {
        status = is_kind(repair, repair->complete, VDB_PATH_DIRECTORY, &is_complete, err);
        if (!status && !is_complete)
            status = vdb_fail(err, VECDB_NOT_FOUND, "there is no vecdb database in %s", repair->path);
        if (!status)
            status = vfs->rename(vfs, repair->complete, repair->path, err);
        if (!status)
            status = sync_parent(repair, err);
        *is_done = !status;
        return status;
    }
    if (!status && kind != VDB_PATH_DIRECTORY)
        status = vdb_fail(err, VECDB_INVALID, "%s is a file; a vecdb database is a directory", repair->path);
    if (!status)
        status = vfs->list(vfs, repair->path, look_for_database, &list, err);
    if (!status && !list.is_database)
        status = vdb_fail(err, VECDB_NOT_FOUND, "there is no vecdb database in %s", repair->path);
    return status;
}

/* ------------------------------------------------------------------ removing what was made */

static bool remove_one(void *context, const char *name)
{
    struct directory_list *list = context;
    struct vdb_vfs *vfs = list->repair->vfs;
    enum vdb_path_kind kind;
    char *path = vdb_path_join(&list->repair->memory, list->path, name);
    list->status = path ? vfs->kind(vfs, path, &kind, list->err) : vdb_fail_memory(list->err, strlen(name));
    if (!list->status && kind == VDB_PATH_DIRECTORY)
        list->status = vdb_copy_remove(vfs, path, true, list->err); /* a snapshot */
    else if (!list->status)
        list->status = vfs->remove(vfs, path, list->err);
    vdb_free(&list->repair->memory, path);
    return !list->status;
}

/* A database that a repair has made and not completed: all that is in it. */
static int remove_made(struct vdb_repair *repair, const char *path, vecdb_error *err)
{
    struct directory_list list = {.repair = repair, .path = path, .err = err};
    bool is_there;
    int status = is_kind(repair, path, VDB_PATH_DIRECTORY, &is_there, err);
    if (status || !is_there)
        return status;
    status = repair->vfs->list(repair->vfs, path, remove_one, &list, err);
    if (!status)
        status = list.status;
    return status ? status : repair->vfs->remove_directory(repair->vfs, path, err);
}

/* ------------------------------------------------------------------ diagnosis */

static int read_state(struct vdb_repair *repair, struct state_facts *facts, vecdb_error *err)
{
    vecdb_error own = VECDB_ERROR_INIT;
    char *path = vdb_path_join(&repair->memory, repair->path, "state");
    struct vdb_state *state = NULL;
    *facts = (struct state_facts){0};
    if (!path)
        return vdb_fail_memory(err, strlen(repair->path));
    bool is_file;
    int status = is_kind(repair, path, VDB_PATH_FILE, &is_file, &own);
    facts->is_missing = !is_file;
    struct vdb_state_options options = {
        .memory = &repair->memory, .path = path, .readonly = true, .hook = repair->hook};
    if (!status && is_file)
        status = vdb_state_open(&options, &state, &own);
    if (!status && state)
        status = vdb_state_sequence(state, &facts->sequence, &own);
    if (!status && state)
        status = vdb_state_durable(state, &facts->durable, &own);
    if (!status && state) {
        facts->has_mark = vdb_state_get_mark(state, &facts->n_marked, &facts->salt2);
        vdb_state_uuid(state, facts->uuid);
        facts->has_uuid = memcmp(facts->uuid, (unsigned char[16]){0}, 16) != 0;
        facts->sequence = facts->durable > facts->sequence ? facts->durable : facts->sequence;
    }
    vdb_state_close(state);
    vdb_free(&repair->memory, path);
    facts->is_of_preview = status == VECDB_UNSUPPORTED;
    if (status == VECDB_CORRUPT || status == VECDB_NEWER || status == VECDB_UNSUPPORTED) {
        facts->is_damaged = true;
        snprintf(facts->reason, sizeof facts->reason, "%.250s", own.message);
        return VECDB_OK;
    }
    if (status && err)
        *err = own;
    return status;
}

static void close_salvage(struct vdb_repair *repair)
{
    vdb_repair_release_truth(repair, repair->truth);
    vdb_salvage_close(repair->salvage);
    repair->salvage = NULL;
}

static int open_salvage(struct vdb_repair *repair, bool past_breaks, vecdb_error *err)
{
    close_salvage(repair);
    repair->salvage_options.past_breaks = past_breaks;
    int status = vdb_salvage_open(&repair->salvage_options, &repair->salvage, err);
    return status ? status : vdb_repair_read_database(repair, repair->truth, err);
}

/* What `state` says counts only if it is this database's. */
static bool state_counts(const struct vdb_repair *repair, const struct state_facts *facts)
{
    const struct vdb_repair_truth *truth = repair->truth;
    return !facts->is_missing && !facts->is_damaged && facts->has_uuid &&
           (!truth->has_uuid || !memcmp(facts->uuid, truth->uuid, 16));
}

/* Commits or marked frames are missing from what the chain of the WAL gives. */
static bool lacks_commits(const struct vdb_repair *repair, const struct state_facts *facts)
{
    const struct vdb_salvage_report *report = vdb_salvage_get_report(repair->salvage);
    if (!state_counts(repair, facts))
        return false;
    if (facts->has_mark && (report->n_frames < facts->n_marked || report->salt2 != facts->salt2))
        return true;
    return !repair->truth->has_database || repair->truth->sequence < facts->durable;
}

/* `state` is asked for version 0 only where page 1 of the catalog does not tell: then the catalog counts. */
static int refuse_versions(const struct vdb_repair *repair, const struct state_facts *facts, vecdb_error *err)
{
    const struct vdb_repair_truth *truth = repair->truth;
    const struct vdb_salvage_report *report = vdb_salvage_get_report(repair->salvage);
    if (report->format_version > VDB_FORMAT_VERSION || truth->encryption || truth->read_features & ~VDB_READ_FEATURES ||
        truth->write_features & ~VDB_WRITE_FEATURES)
        return vdb_fail(
            err, VECDB_NEWER,
            "%s was written by a newer version of the library, or is encrypted: repair it with that version",
            repair->path);
    bool is_told = report->application_id == VDB_APPLICATION_ID;
    if (is_told ? report->format_version < 1 : facts->is_of_preview)
        return vdb_fail(err, VECDB_UNSUPPORTED, "%s has format version 0, " VDB_OF_A_PREVIEW, repair->path);
    return VECDB_OK;
}

/* Read the catalog, past breaks of its WAL if that is right, and judge. */
static int diagnose(struct vdb_repair *repair, const struct state_facts *facts, enum finding *finding, vecdb_error *err)
{
    repair->salvage_options.unstamped = false;
    repair->n_unstamped = 0;
    int status = open_salvage(repair, false, err);
    if (status)
        return status;
    bool is_past = vdb_salvage_get_report(repair->salvage)->n_behind && lacks_commits(repair, facts);
    if (is_past && (status = open_salvage(repair, true, err)))
        return status;
    const struct vdb_salvage_report *report = vdb_salvage_get_report(repair->salvage);
    uint32_t n_wrong = report->n_doubtful + report->n_derived;
    if (n_wrong > report->n_pages / 2 + 1) {
        repair->salvage_options.unstamped = true;
        repair->n_unstamped = n_wrong;
        if ((status = open_salvage(repair, is_past, err)))
            return status;
        report = vdb_salvage_get_report(repair->salvage);
    }
    if ((status = refuse_versions(repair, facts, err)))
        return status;
    const struct vdb_repair_truth *truth = repair->truth;
    bool is_marked = facts->has_mark && state_counts(repair, facts) &&
                     (report->n_frames < facts->n_marked || report->salt2 != facts->salt2);
    bool is_ambiguous = report->wal_is_damaged && !state_counts(repair, facts);
    bool is_whole = !report->is_missing && !report->is_cut && !report->n_doubtful && !report->n_lost &&
                    !report->n_derived && truth->has_database && !is_past && !is_marked && !is_ambiguous &&
                    !repair->n_unstamped;
    *finding = !is_whole                                                          ? FINDING_DAMAGED
               : state_counts(repair, facts) && truth->sequence >= facts->durable ? FINDING_WHOLE
                                                                                  : FINDING_STATE;
    /* A new `state` has no uuid until the first open. */
    if (is_whole && !facts->is_missing && !facts->is_damaged && !facts->has_uuid)
        *finding = FINDING_WHOLE;
    return VECDB_OK;
}

/* ------------------------------------------------------------------ looking with the library's own eyes */

static void count_problem(void *context, const vecdb_problem *problem)
{
    (void)problem;
    ++*(uint64_t *)context;
}

static int open_database(struct vdb_repair *repair, const char *path, int mode, vecdb **db, vecdb_error *err)
{
    vecdb_options options = repair->options;
    options.size = sizeof options;
    options.mode = mode;
    options.durability = VECDB_DURABILITY_FULL;
    options.snapshot = NULL;
    options.scrub_bytes_per_second = 0;
    return vdb_database_open(path, &options, repair->hook, db, err);
}

/* Is everything whole, as vecdb_check sees it? */
static int check_database(struct vdb_repair *repair, const char *path, bool *is_whole, vecdb_error *err)
{
    vecdb_error own = VECDB_ERROR_INIT;
    vecdb *db = NULL;
    uint64_t n_told = 0, n_problems = 0;
    int status = open_database(repair, path, VECDB_OPEN_READONLY, &db, &own);
    if (status && status != VECDB_NOMEM && status != VECDB_BUSY)
        status = open_database(repair, path, VECDB_OPEN_EXISTING, &db, &own); /* a WAL that has to be recovered */
    if (!status)
        status = vecdb_check(db, repair->work, count_problem, &n_told, &n_problems, &own);
    vecdb_close(db);
    *is_whole = !status && !n_problems;
    if (!status || status == VECDB_CORRUPT || (status == VECDB_IO && n_told))
        return VECDB_OK;
    if (err)
        *err = own;
    return status;
}

/* ------------------------------------------------------------------ `state` alone */

static int heal_state(struct vdb_repair *repair, const struct state_facts *facts, bool *is_whole, vecdb_error *err)
{
    const struct vdb_repair_truth *truth = repair->truth;
    char *state = vdb_path_join(&repair->memory, repair->path, "state"), *kept = NULL;
    uint64_t sequence = truth->sequence;
    bool is_older = state_counts(repair, facts), is_moved = false;
    vecdb_error ignored;
    int status = state ? VECDB_OK : vdb_fail_memory(err, strlen(repair->path));
    if (!status && !facts->is_missing)
        is_moved = !(status = rename_to_free(repair, state, "/state-damaged-", &kept, err));
    if (is_moved)
        status = repair->vfs->sync_directory(repair->vfs, repair->path, err);
    release(repair);
    close_salvage(repair);
    vecdb *db = NULL;
    if (!status)
        status = open_database(repair, repair->path, VECDB_OPEN_EXISTING, &db, err); /* makes it */
    vecdb_close(db);
    if (!status)
        status = check_database(repair, repair->path, is_whole, err);
    if (status || !*is_whole) {
        /* Nothing to tell yet. It is kept as it was: what it knows of lost commits is not known elsewhere. But a file
         * that somebody has opened meanwhile carries his locks, and stays. */
        int taken = is_moved ? vdb_state_seize(state, &repair->seized, status ? &ignored : err) : VECDB_OK;
        if (is_moved && !taken && !repair->vfs->remove(repair->vfs, state, &ignored))
            repair->vfs->rename(repair->vfs, kept, state, &ignored);
        release(repair);
        status = status ? status : taken;
    } else if (is_older) {
        vdb_repair_tell(repair, VECDB_PROBLEM_LOST, "catalog.sqlite", NULL,
                        "commits %llu to %llu are lost: the catalog is whole, but older than what was acknowledged",
                        (unsigned long long)sequence + 1, (unsigned long long)facts->durable);
    } else {
        vdb_repair_tell(repair, VECDB_PROBLEM_HEALED, "state", NULL, "the file was made anew: %s",
                        facts->is_missing   ? "it was missing"
                        : facts->is_damaged ? facts->reason
                                            : "it belonged to another database");
    }
    vdb_free(&repair->memory, kept);
    vdb_free(&repair->memory, state);
    return status;
}

/* ------------------------------------------------------------------ the new database */

static int make_empty(struct vdb_repair *repair, const struct state_facts *facts, vecdb_error *err)
{
    const struct vdb_repair_truth *truth = repair->truth;
    uint64_t sequence = truth->sequence;
    if (state_counts(repair, facts) && facts->sequence > sequence)
        sequence = facts->sequence;
    else if (!truth->has_database)
        sequence = NUMBER_BY_GUESS;
    vecdb *db = NULL;
    int status = open_database(repair, repair->building, VECDB_OPEN_NEW, &db, err);
    unsigned char uuid[16];
    if (!status)
        memcpy(uuid, truth->has_uuid ? truth->uuid : facts->has_uuid ? facts->uuid : vdb_catalog_uuid(db->catalog), 16);
    if (!status)
        status = vdb_catalog_take_identity(db->catalog, uuid, ++sequence, err);
    vecdb_close(db);
    if (status)
        return status;
    char *state = vdb_path_join(&repair->memory, repair->building, "state");
    int fd = -1;
    status = state ? vdb_state_seize(state, &fd, err) : vdb_fail_memory(err, strlen(repair->building));
    if (!status)
        status = vdb_state_fill(state, fd, uuid, sequence, repair->hook, err);
    vdb_state_release_all(fd);
    vdb_free(&repair->memory, state);
    return status;
}

/* A named snapshot is a database of its own in a directory: a whole one is linked into the new database. */
static int carry_snapshot(struct vdb_repair *repair, vecdb *db, const struct vdb_repair_snapshot *snapshot,
                          vecdb_error *err)
{
    vecdb_error own = VECDB_ERROR_INIT;
    char name[40];
    snprintf(name, sizeof name, "snapshot-%llu", (unsigned long long)snapshot->id);
    char *from = vdb_path_join(&repair->memory, repair->path, name);
    char *to = vdb_path_join(&repair->memory, repair->building, name);
    vecdb *source = NULL;
    bool is_whole = false, added = false;
    int status = from && to ? check_database(repair, from, &is_whole, &own) : vdb_fail_memory(&own, sizeof name);
    if (!status && !is_whole)
        status = vdb_fail(&own, VECDB_CORRUPT, "it is damaged");
    if (!status)
        status = open_database(repair, from, VECDB_OPEN_READONLY, &source, &own);
    struct vdb_copy_options options = {.path = to, .link = true, .phase = "repair"};
    if (!status)
        status = vdb_copy_database(source, &options, NULL, NULL, &own);
    vecdb_close(source);
    struct vdb_connection *c;
    uint64_t sequence;
    struct vdb_snapshot_row row = {.id = snapshot->id, .sequence = snapshot->sequence, .created = snapshot->created};
    memcpy(row.name, snapshot->name, sizeof row.name);
    if (!status && !(status = vdb_write_begin(db->catalog, &c, &sequence, &own))) {
        status = vdb_snapshot_add(c, &row, &added, &own);
        if (status)
            vdb_write_rollback(c);
        else
            status = vdb_write_commit(c, &own);
    }
    vdb_free(&repair->memory, from);
    vdb_free(&repair->memory, to);
    if (status == VECDB_CORRUPT || status == VECDB_NOT_FOUND || status == VECDB_INVALID) {
        vdb_repair_tell(
            repair, VECDB_PROBLEM_LOST, name, NULL,
            "the snapshot \"%.100s\" is lost: %.200s; repair its directory in the damaged database by itself",
            snapshot->name, own.message);
        return VECDB_OK;
    }
    if (status && err)
        *err = own;
    return status;
}

static int fill_database(struct vdb_repair *repair, vecdb_error *err)
{
    const struct vdb_repair_truth *truth = repair->truth;
    vecdb *db = NULL;
    int status = open_database(repair, repair->building, VECDB_OPEN_EXISTING, &db, err);
    if (!status)
        status = vdb_repair_fill(repair, db, err);
    for (size_t i = 0; i < truth->n_snapshots && !status; i++)
        status = carry_snapshot(repair, db, &truth->snapshots[i], err);
    vecdb_close(db);
    return status;
}

static void tell_findings(struct vdb_repair *repair, const struct state_facts *facts)
{
    const struct vdb_salvage_report *report = vdb_salvage_get_report(repair->salvage);
    const struct vdb_repair_truth *truth = repair->truth;
    if (report->n_lost)
        vdb_repair_tell(repair, VECDB_PROBLEM_DAMAGED, "catalog.sqlite", NULL,
                        "%u of %u pages cannot be read, the first is page %u", report->n_lost, report->n_pages,
                        report->first_bad_page);
    if (repair->n_unstamped)
        vdb_repair_tell(repair, VECDB_PROBLEM_DOUBTFUL, "catalog.sqlite", NULL,
                        "%u of %u pages have no valid checksum, as after writing with another SQLite: they were taken "
                        "as they are",
                        repair->n_unstamped, report->n_pages);
    else if (report->n_doubtful)
        vdb_repair_tell(repair, VECDB_PROBLEM_DAMAGED, "catalog.sqlite", NULL,
                        "the checksums of %u of %u pages are wrong, the first is page %u", report->n_doubtful,
                        report->n_pages, report->first_bad_page);
    if (report->n_derived)
        vdb_repair_tell(repair, VECDB_PROBLEM_HEALED, "catalog.sqlite", NULL,
                        "%u damaged pages held nothing but where others are, or were free", report->n_derived);
    if (report->wal_is_damaged && repair->salvage_options.past_breaks)
        vdb_repair_tell(repair, VECDB_PROBLEM_DAMAGED, "catalog.sqlite-wal", NULL,
                        "%u frames are damaged; the %u behind them were used", report->n_broken, report->n_behind);
    else if (report->wal_is_damaged && !state_counts(repair, facts))
        vdb_repair_tell(repair, VECDB_PROBLEM_LOST, "catalog.sqlite-wal", NULL,
                        "%u frames behind a damaged one were not used: the last commits may be lost", report->n_behind);
    if (report->n_nameless)
        vdb_repair_tell(repair, VECDB_PROBLEM_DOUBTFUL, "catalog.sqlite-wal", NULL,
                        "it is not known which pages %u of the frames held: older states of them were used",
                        report->n_nameless);
    if (state_counts(repair, facts) && truth->has_database && truth->sequence < facts->durable)
        vdb_repair_tell(repair, VECDB_PROBLEM_LOST, "catalog.sqlite-wal", NULL, "commits %llu to %llu are lost",
                        (unsigned long long)truth->sequence + 1, (unsigned long long)facts->durable);
    if (facts->is_damaged)
        vdb_repair_tell(repair, VECDB_PROBLEM_HEALED, "state", NULL, "the file was made anew: %s", facts->reason);
}

static int build(struct vdb_repair *repair, const struct state_facts *facts, vecdb_error *err)
{
    bool is_whole;
    int status = remove_made(repair, repair->building, err);
    if (!status)
        status = remove_made(repair, repair->complete, err);
    if (!status)
        status = vdb_repair_read_truth(repair, repair->truth, err);
    bool any = repair->truth->has_database;
    for (size_t i = 0; i < repair->truth->n_collections; i++)
        any |= repair->truth->collections[i].records || repair->truth->collections[i].keys;
    if (!status && !any)
        return vdb_fail(
            err, VECDB_CORRUPT,
            "nothing in the catalog of %s can be read, and without it vectors have no keys; restore a backup",
            repair->path);
    if (!status)
        status = make_empty(repair, facts, err);
    if (!status)
        status = fill_database(repair, err);
    if (!status)
        status = check_database(repair, repair->building, &is_whole, err);
    if (!status && !is_whole)
        status = vdb_fail(err, VECDB_IO, "the database that was made of %s does not pass its check", repair->path);
    if (!status)
        status = repair->vfs->sync_directory(repair->vfs, repair->building, err);
    return status;
}

/* Steps 3 to 5. */
static int exchange_names(struct vdb_repair *repair, char **kept, vecdb_error *err)
{
    struct vdb_vfs *vfs = repair->vfs;
    vecdb_error ignored;
    int status = vfs->rename(vfs, repair->building, repair->complete, err);
    if (!status)
        status = sync_parent(repair, err);
    if (!status)
        status = rename_to_free(repair, repair->path, ".damaged-", kept, err);
    if (status)
        return status;
    status = sync_parent(repair, err);
    if (!status)
        status = vfs->rename(vfs, repair->complete, repair->path, err);
    if (status) {
        vfs->rename(vfs, *kept, repair->path, &ignored); /* back to where it was */
        return status;
    }
    return sync_parent(repair, err);
}

static int rebuild(struct vdb_repair *repair, const struct state_facts *facts, vecdb_error *err)
{
    char *kept = NULL;
    vecdb_error ignored;
    tell_findings(repair, facts);
    int status = build(repair, facts, err);
    if (!status)
        status = exchange_names(repair, &kept, err);
    if (status) {
        bool is_there;
        remove_made(repair, repair->building, &ignored);
        if (!is_kind(repair, repair->path, VDB_PATH_DIRECTORY, &is_there, &ignored) && is_there)
            remove_made(repair, repair->complete, &ignored);
    } else {
        vdb_repair_tell(repair, VECDB_PROBLEM_HEALED, "", NULL,
                        "a new database was made of what can be read; the damaged one is kept as %.300s", kept);
    }
    vdb_free(&repair->memory, kept);
    if (status == VECDB_FULL)
        return vdb_fail_prefix(err, status, "a repair needs as much room again as the database has");
    return status;
}

/* ------------------------------------------------------------------ the call */

static int run(struct vdb_repair *repair, vecdb_error *err)
{
    struct state_facts facts;
    enum finding finding = FINDING_DAMAGED;
    bool is_done, is_whole = false;
    int status = look_at_place(repair, &is_done, err);
    if (!status && is_done) {
        vdb_repair_tell(repair, VECDB_PROBLEM_HEALED, "", NULL,
                        "a repair that was cut off was completed; what it lost it told then");
        return VECDB_OK;
    }
    if (!status)
        status = read_state(repair, &facts, err);
    if (!status)
        status = seize(repair, err);
    if (!status)
        status = diagnose(repair, &facts, &finding, err);
    if (status)
        return status;
    if (finding == FINDING_WHOLE) {
        release(repair);
        status = check_database(repair, repair->path, &is_whole, err);
    } else if (finding == FINDING_STATE) {
        status = heal_state(repair, &facts, &is_whole, err);
    }
    if (status || is_whole)
        return status;
    if (finding != FINDING_DAMAGED && !(status = seize(repair, err)))
        status = diagnose(repair, &facts, &finding, err);
    return status ? status : rebuild(repair, &facts, err);
}

static int set_up(struct vdb_repair *repair, const char *path, vecdb_error *err)
{
    int status = vdb_vfs_posix(&repair->memory, false, &repair->vfs, err);
    if (!status && repair->hook) {
        repair->inner_vfs = repair->vfs;
        repair->vfs = NULL;
        status = vdb_vfs_fault(&repair->memory, repair->inner_vfs, repair->hook, &repair->vfs, err);
    }
    if (status)
        return status;
    repair->path = vdb_path_normal(&repair->memory, path);
    repair->building = repair->path ? with_suffix(repair, ".repairing") : NULL;
    repair->complete = repair->path ? with_suffix(repair, VDB_REPAIRED_SUFFIX) : NULL;
    if (!repair->building || !repair->complete)
        return vdb_fail_memory(err, strlen(path));
    repair->salvage_options = (struct vdb_salvage_options){.memory = &repair->memory,
                                                           .vfs = repair->vfs,
                                                           .directory = repair->path,
                                                           .step = vdb_repair_step,
                                                           .step_context = repair};
    return VECDB_OK;
}

static void tear_down(struct vdb_repair *repair)
{
    close_salvage(repair);
    release(repair);
    vdb_free(&repair->memory, repair->path);
    vdb_free(&repair->memory, repair->building);
    vdb_free(&repair->memory, repair->complete);
    if (repair->vfs)
        repair->vfs->end(repair->vfs);
    if (repair->inner_vfs)
        repair->inner_vfs->end(repair->inner_vfs);
    pthread_mutex_destroy(&repair->memory.spare_lock);
}

int vdb_database_repair(const char *path, const vecdb_options *options, const struct vdb_io_hook *hook,
                        const vecdb_work *work, vecdb_problem_fn each, void *context, uint64_t *n_lost,
                        vecdb_error *err)
{
    struct vdb_repair_truth truth = {0};
    vecdb_work own;
    struct vdb_repair repair = {
        .hook = hook, .work = &own, .each = each, .context = context, .seized = -1, .truth = &truth};
    if (!path || !*path || !strcmp(path, ":memory:"))
        return vdb_fail(err, VECDB_INVALID, "vecdb_repair needs the path of a database's directory");
    int status = VDB_STRUCT_COPY(&own, work, vecdb_work, progress_context, err);
    if (status || (status = vdb_options_copy(&repair.options, options, err)))
        return status;
    vdb_memory_init(&repair.memory, &repair.options.allocator);
    status = set_up(&repair, path, err);
    if (!status)
        status = run(&repair, err);
    tear_down(&repair);
    if (!status && n_lost)
        *n_lost = repair.n_lost;
    return status;
}

int vecdb_repair(const char *path, const vecdb_options *options, const vecdb_work *work, vecdb_problem_fn each,
                 void *context, uint64_t *n_lost, vecdb_error *err)
{
    return vdb_database_repair(path, options, NULL, work, each, context, n_lost, err);
}
