/* SPDX-License-Identifier: Apache-2.0
 *
 * A database survives a power cut at any moment.
 *
 * A random workload runs on real files, while everything it does to them is recorded, by SQLite too. A simulated
 * disk (crash_disk.h) then loses power at many moments of the record: unsynced sectors are dropped, kept,
 * reordered and torn, unsynced names too, and some syncs fail. Of each disk that is left:
 *   1. It opens, and needs nothing.
 *   2. It holds exactly what the last acknowledged call left, or what the next one was to leave. Where durability
 *      is NORMAL: what some call since the last durable one left.
 *   3. vecdb_check() finds nothing; exact searches are right. An index file that is named is there and whole, and
 *      searches that use it find nearly all of the nearest.
 *   4. It can be written, compacted, closed and opened again.
 * Some workloads begin with a disk that lost power before, so that what recovers is cut off too.
 *
 * VECDB_TEST_ROUNDS says how many cuts. With a seed and a number of rounds everything is the same again.
 * VECDB_CRASH_KEEP=DIRECTORY keeps the files of the cut that failed, as they were before they were opened.
 */
#include <sys/wait.h>

#include "crash_disk.h"
#include "crash_recorder.h"
#include "crash_work.h"
#include "fault_tools.h"
#include "lib/database.h"

static unsigned long n_loaded; /* indexes of which there was a file */

/* ------------------------------------------------------------------ directories */

static void remove_all(const char *path)
{
    DIR *directory = opendir(path);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        char child[1024];
        struct stat status;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        snprintf(child, sizeof child, "%s/%s", path, entry->d_name);
        if (!lstat(child, &status) && S_ISDIR(status.st_mode))
            remove_all(child);
        else
            unlink(child);
    }
    if (directory)
        closedir(directory);
    rmdir(path);
}

/* A path without links, of a directory that is not there. */
static const char *fresh_directory(const char *name)
{
    static char real[4096], paths[4][480];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    CHECK(realpath(test_directory(), real) && strlen(real) < 200);
    snprintf(path, sizeof paths[0], "%.200s/%s", real, name);
    remove_all(path);
    return path;
}

/* ------------------------------------------------------------------ what a cut may leave */

/* Steps that may be the last that is there: from `first` (0: the state before all steps; i: step i - 1)
 * to those that had begun. */
struct allowed {
    size_t first, end;
};

static struct allowed allowed_at(const struct crash_history *history, size_t cut)
{
    struct allowed allowed = {0, 0};
    for (size_t i = 0; i < history->n_steps; i++) {
        const struct crash_step *step = &history->steps[i];
        if (step->end_event <= cut && !step->status && step->is_durable)
            allowed.first = i + 1;
        if (step->first_event <= cut)
            allowed.end = i + 1;
    }
    return allowed;
}

static uint64_t digest_after(const struct crash_history *history, size_t i)
{
    return i ? history->steps[i - 1].digest : history->digest_before;
}

static const struct crash_model *model_after(const struct crash_history *history, size_t i)
{
    return i ? history->steps[i - 1].after : history->before;
}

static void tell_steps(const struct crash_history *history, size_t first, size_t end)
{
    for (size_t i = first; i <= end && i <= history->n_steps; i++) {
        const struct crash_step *step = i ? &history->steps[i - 1] : NULL;
        fprintf(stderr, "    after step %zu: %016llx  %s, events %zu to %zu, %s%s\n", i,
                (unsigned long long)digest_after(history, i), step ? step->operation : "the beginning",
                step ? step->first_event : 0, step ? step->end_event : 0, step ? vecdb_status_name(step->status) : "",
                step && !step->is_durable ? ", not durable" : "");
    }
}

/* Which state it is; fails when it is none that is allowed. */
static size_t find_state(const struct crash_history *history, size_t cut, uint64_t digest)
{
    struct allowed allowed = allowed_at(history, cut);
    for (size_t i = allowed.first; i <= allowed.end; i++)
        if (digest_after(history, i) == digest)
            return i;
    tell_steps(history, allowed.first > 5 ? allowed.first - 5 : 0, allowed.end);
    for (size_t i = 0; i <= history->n_steps; i++)
        if (digest_after(history, i) == digest)
            CRASH_FAIL("it is in the state after step %zu of %zu; %zu to %zu are right", i, history->n_steps,
                       allowed.first, allowed.end);
    CRASH_FAIL("it is in no state that there ever was; those after steps %zu to %zu (%s) would be right", allowed.first,
               allowed.end, allowed.end ? history->steps[allowed.end - 1].operation : "none");
}

/* ------------------------------------------------------------------ what is left of a database */

/* An index file cannot be used. */
static void fail_by_warning(void *context, int level, const char *message)
{
    (void)context;
    if (level == VECDB_LOG_WARNING && strstr(message, "index"))
        CRASH_FAIL("a warning: %s", message);
}

static int try_open(const char *path, int mode, const char *snapshot, vecdb **db, vecdb_error *err)
{
    vecdb_options options = {.size = sizeof options, .mode = mode, .threads = VECDB_THREADS_NONE, .snapshot = snapshot};
    options.log = fail_by_warning;
    return vecdb_open(path, &options, db, err);
}

static vecdb *open_image(const char *path, int mode)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db;
    CRASH_OK(err, try_open(path, mode, NULL, &db, &err));
    return db;
}

struct snapshot_names {
    char names[CRASH_MOST_SNAPSHOTS + 2][CRASH_NAME_BYTES];
    size_t n;
};

static int note_snapshot(void *context, const vecdb_snapshot_info *info)
{
    struct snapshot_names *names = context;
    if (names->n == CRASH_MOST_SNAPSHOTS + 2)
        return 1;
    snprintf(names->names[names->n++], CRASH_NAME_BYTES, "%s", info->name);
    return 0;
}

/* Of the database and of all its snapshots. */
static uint64_t digest_all(vecdb *db, const char *path, uint64_t seed, size_t *n_snapshots)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct snapshot_names names = {.n = 0};
    uint64_t sum = crash_database_digest(db, seed);
    CRASH_OK(err, vecdb_snapshots(db, note_snapshot, &names, &err));
    for (size_t i = 0; i < names.n; i++) {
        vecdb *snapshot;
        CRASH_OK(err, try_open(path, VECDB_OPEN_READONLY, names.names[i], &snapshot, &err));
        sum += crash_snapshot_digest(names.names[i], crash_database_digest(snapshot, seed));
        vecdb_close(snapshot);
    }
    *n_snapshots = names.n;
    return sum;
}

static void check_image(vecdb *db, const char *when)
{
    vecdb_error err = VECDB_ERROR_INIT;
    uint64_t n_problems = 0;
    CRASH_OK(err, vecdb_check(db, NULL, print_problem, NULL, &n_problems, &err));
    if (n_problems)
        CRASH_FAIL("check finds %llu problems, %s", (unsigned long long)n_problems, when);
    if (vecdb_background_error(db, &err))
        CRASH_FAIL("%s: %s", when, err.message);
}

/* Life goes on: a collection is made, written into and compacted. */
static uint64_t write_more(vecdb *db, uint64_t seed)
{
    enum { MOST = 600 };
    static struct crash_table table;
    static struct crash_words words[MOST];
    static vecdb_record records[MOST];
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *collection;
    vecdb_field field = {.name = "f", .dimension = 64, .type = VECDB_F32, .metric = VECDB_L2};
    memset(&table, 0, sizeof table);
    snprintf(table.name, sizeof table.name, "after the cut");
    table.n_fields = 1;
    table.fields[0] = (struct crash_field){.name = "f", .dimension = 64, .type = VECDB_F32, .metric = VECDB_L2};
    CRASH_OK(err, vecdb_collection_create(db, table.name, &field, 1, VECDB_MUST_BE_NEW, &collection, &err));
    for (size_t n = seed % 4 ? 20 : MOST, i = 0; i < n; i++) {
        struct crash_row *row = crash_model_put(&table, (int64_t)i, false);
        row->version = (uint32_t)(seed % 1000);
        row->vectors = 1;
        crash_row_spell(&table, row, &words[i], &records[i]);
    }
    CRASH_OK(err, vecdb_put(collection, records, table.n_rows, &err));
    for (size_t i = 0; i < table.n_rows; i++)
        crash_words_release(&words[i]);
    CRASH_OK(err, vecdb_compact(db, NULL, &err));
    return crash_table_digest(&table);
}

static void count_snapshot(void *context, const char *path, const char *name)
{
    (void)path;
    *(size_t *)context += !strncmp(name, "snapshot-", 9);
}

/* A backup that was made is a database; one that was being made is one, or cannot be opened. */
static void verify_backups(const char *root, const struct crash_history *history, size_t cut, uint64_t seed)
{
    for (size_t i = 0; i < history->n_steps; i++) {
        const struct crash_step *step = &history->steps[i];
        char path[512];
        vecdb *db;
        vecdb_error err = VECDB_ERROR_INIT;
        if (!step->backup[0] || step->first_event > cut)
            continue;
        snprintf(path, sizeof path, "%s/%s", root, step->backup);
        int status = try_open(path, VECDB_OPEN_EXISTING, NULL, &db, &err);
        if (status && !step->status && step->end_event <= cut)
            CRASH_FAIL("the %s of step %zu: %s", step->backup, i + 1, err.message);
        if (status)
            continue;
        if (crash_database_digest(db, seed) != crash_model_data_digest(step->after))
            CRASH_FAIL("the %s of step %zu holds something else", step->backup, i + 1);
        check_image(db, "in a backup");
        vecdb_close(db);
    }
}

/* A restore that was cut off between its two renames is to be done again. */
static void finish_restore(const char *root, const char *path, const struct crash_history *history, size_t cut)
{
    struct allowed allowed = allowed_at(history, cut);
    const struct crash_step *step = allowed.end ? &history->steps[allowed.end - 1] : NULL;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db;
    if (!step || !step->is_restore || step->end_event <= cut)
        return;
    int status = try_open(path, VECDB_OPEN_CREATE, NULL, &db, &err);
    if (!status)
        vecdb_close(db);
    else if (status != VECDB_BUSY)
        CRASH_FAIL("after a restore that was cut off: %s: %s", vecdb_status_name(status), err.message);
    for (size_t i = 0; status && i < allowed.end; i++) {
        char backup[512];
        snprintf(backup, sizeof backup, "%s/%s", root, history->steps[i].backup);
        if (history->steps[i].backup[0] && !history->steps[i].status &&
            crash_model_data_digest(history->steps[i].after) == step->digest) {
            CRASH_OK(err, vecdb_restore(backup, path, NULL, &err));
            status = VECDB_OK;
        }
    }
}

/* Get the indexes of which there is a file; now and then also those that have to be built. */
static void wait_for_indexes(vecdb *db, const struct crash_model *model, uint64_t seed)
{
    for (uint32_t t = 0; t < model->n_tables; t++) {
        vecdb_error err = VECDB_ERROR_INIT;
        vecdb_collection *collection;
        struct vdb_view *view;
        uint64_t sequence;
        CRASH_OK(err, vecdb_collection_open(db, model->tables[t].name, &collection, &err));
        CRASH_OK(err, vdb_view_acquire(collection, &view, NULL, &sequence, &err));
        for (size_t f = 0; f < view->n_fields; f++) {
            const struct vdb_field_row *field = &view->fields[f].row;
            struct vdb_index_named named;
            bool found = false;
            CRASH_OK(err, vdb_index_files_find(db, field->id, &named, &found, &err));
            found = found && named.store == view->row.store && field->index == VECDB_INDEX_HNSW;
            n_loaded += found;
            if (found || seed % 16 == 0)
                CRASH_OK(err, vecdb_index_wait(collection, field->name, 0, NULL, &err));
        }
        vdb_view_release(view);
    }
}

/* All that is claimed of one image. Returns which state it is in. */
static size_t verify(const char *root, const struct crash_history *history, size_t cut, uint64_t seed)
{
    char path[512];
    size_t n_snapshots, n_directories = 0;
    snprintf(path, sizeof path, "%s/db", root);
    finish_restore(root, path, history, cut);
    vecdb *db = open_image(path, VECDB_OPEN_CREATE);
    uint64_t digest = digest_all(db, path, seed, &n_snapshots);
    size_t state = find_state(history, cut, digest);
    check_image(db, "after the cut");
    wait_for_indexes(db, model_after(history, state), seed);
    digest += write_more(db, seed);
    check_image(db, "after writing and compacting");
    if (digest_all(db, path, seed, &n_snapshots) != digest)
        CRASH_FAIL("it holds something else after writing and %s", "compacting");
    vecdb_close(db);
    each_name(path, count_snapshot, &n_directories);
    if (n_directories != n_snapshots)
        CRASH_FAIL("%zu directories of snapshots, and %zu snapshots", n_directories, n_snapshots);
    db = open_image(path, seed % 2 ? VECDB_OPEN_READONLY : VECDB_OPEN_EXISTING);
    if (digest_all(db, path, seed, &n_snapshots) != digest)
        CRASH_FAIL("it holds something else after %s", "a restart");
    vecdb_close(db);
    verify_backups(root, history, cut, seed);
    return state;
}

/* ------------------------------------------------------------------ where to cut */

struct point {
    size_t cut;
    int variant;
    uint64_t seed;
};

static int compare_points(const void *a, const void *b)
{
    const struct point *left = a, *right = b;
    return left->cut < right->cut ? -1 : left->cut > right->cut;
}

/* Most points are barriers: just before a sync takes effect, when the most is on the way, or just after. They go
 * round all of them, beginning anywhere. The others are anywhere. */
static struct point *choose_points(const struct crash_journal *journal, size_t n, uint64_t seed)
{
    struct vdb_random random = {seed};
    struct point *points = crash_new(n, sizeof *points);
    size_t *barriers = crash_new(journal->n_events + 1, sizeof *barriers), n_barriers = 0;
    static const unsigned char variants[] = {CRASH_LOST,  CRASH_LOST,  CRASH_KEPT, CRASH_ORDERED, CRASH_ORDERED,
                                             CRASH_MIXED, CRASH_MIXED, CRASH_TORN, CRASH_MIXED,   CRASH_TORN};
    for (size_t i = journal->n_initial; i < journal->n_events; i++)
        if (journal->events[i].kind == CRASH_SYNC || journal->events[i].kind == CRASH_SYNC_FAILED)
            barriers[n_barriers++] = i;
    double stride = (double)n_barriers / (double)n, at = vdb_random_unit(&random) * (double)n_barriers;
    for (size_t i = 0; i<n; i++, at += stride> 1 ? stride : 1) {
        uint64_t dice = vdb_random_below(&random, 10);
        points[i].seed = vdb_random_next(&random);
        points[i].variant = variants[vdb_random_below(&random, sizeof variants)];
        if (!n_barriers || dice == 9)
            points[i].cut =
                journal->n_initial + (size_t)vdb_random_below(&random, journal->n_events - journal->n_initial + 1);
        else
            points[i].cut = barriers[(size_t)at % n_barriers] + (dice == 8);
    }
    crash_free(barriers);
    qsort(points, n, sizeof *points, compare_points);
    return points;
}

/* ------------------------------------------------------------------ histories */

struct tally {
    unsigned long n_points, n_histories, n_continued, n_steps, n_events, n_barriers, n_failed_syncs;
};

/* What the next history begins with: nothing, or a disk that lost power. */
struct beginning {
    char root[250]; /* "": nothing */
    struct crash_model *model;
};

static struct crash_plan make_plan(struct vdb_random *random)
{
    struct crash_plan plan = {.n_steps = 40 + (unsigned)vdb_random_below(random, 40)};
    uint64_t dice = vdb_random_below(random, 10);
    plan.is_fat = vdb_random_below(random, 6) == 0;
    plan.has_graphs = vdb_random_below(random, 2);
    plan.n_failing_syncs = vdb_random_below(random, 3) ? 0 : 1 + (unsigned)vdb_random_below(random, 4);
    plan.durability[0] = dice < 2 ? VECDB_DURABILITY_NORMAL : VECDB_DURABILITY_FULL;
    plan.durability[1] = dice < 3 ? VECDB_DURABILITY_NORMAL : VECDB_DURABILITY_FULL;
    plan.io = vdb_random_below(random, 4) ? VECDB_IO_AUTO : VECDB_IO_READ;
    return plan;
}

static void count(struct tally *tally, const struct crash_history *history)
{
    tally->n_histories++;
    tally->n_steps += history->n_steps;
    tally->n_events += history->journal.n_events - history->journal.n_initial;
    for (size_t i = history->journal.n_initial; i < history->journal.n_events; i++) {
        tally->n_barriers += history->journal.events[i].kind == CRASH_SYNC;
        tally->n_failed_syncs += history->journal.events[i].kind == CRASH_SYNC_FAILED;
    }
}

/* Backups, and what restores have replaced: what comes later does not know them. */
static void remove_others(void *context, const char *path, const char *name)
{
    (void)context;
    if (strcmp(name, "db"))
        remove_all(path);
}

/* Cut one history at n points. One of them, now and then, is what the next begins with. */
static void cut_history(const struct crash_history *history, size_t n, uint64_t seed, unsigned number,
                        struct beginning *next)
{
    struct point *points = choose_points(&history->journal, n, seed);
    struct crash_disk *disk = crash_disk_new(&history->journal);
    const char *keep = getenv("VECDB_CRASH_KEEP");
    size_t continued = seed % 3 ? (size_t)(seed >> 8) % n : n;
    for (size_t i = 0; i < n; i++) {
        const struct point *point = &points[i];
        snprintf(crash_where, sizeof crash_where,
                 "workload %u, cut at event %zu of %zu (in step %zu), %s, VECDB_TEST_ROUNDS=%lu", number, point->cut,
                 history->journal.n_events, allowed_at(history, point->cut).end, crash_variant_names[point->variant],
                 test_rounds(0));
        crash_disk_advance(disk, point->cut);
        if (keep && *keep) {
            remove_all(keep);
            crash_disk_cut(disk, point->variant, point->seed, keep);
        }
        const char *image = fresh_directory("image");
        crash_disk_cut(disk, point->variant, point->seed, image);
        size_t state = verify(image, history, point->cut, point->seed);
        if (i == continued && !history->steps[allowed_at(history, point->cut).end - 1].is_restore) {
            snprintf(next->root, sizeof next->root, "%s", fresh_directory(number % 2 ? "odd" : "even"));
            crash_disk_cut(disk, point->variant, point->seed, next->root);
            each_name(next->root, remove_others, NULL);
            next->model = crash_model_copy(model_after(history, state));
        }
    }
    crash_disk_free(disk);
    crash_free(points);
}

static void cut_power(unsigned long n_points)
{
    struct vdb_random random = {test_seed()};
    struct tally tally = {0};
    struct beginning beginning = {"", NULL};
    test_time_limit(60 + (unsigned)(n_points / 20));
    while (tally.n_points < n_points) {
        struct crash_history history;
        struct crash_plan plan = make_plan(&random);
        struct beginning next = {"", NULL};
        plan.number = (unsigned)tally.n_histories;
        size_t n = n_points / 25 < 100 ? 100 : n_points / 25;
        if (n > n_points - tally.n_points)
            n = n_points - tally.n_points;
        if (!beginning.root[0]) {
            snprintf(beginning.root, sizeof beginning.root, "%s", fresh_directory("new"));
            CHECK(!mkdir(beginning.root, 0777));
        } else {
            tally.n_continued++;
        }
        crash_work(beginning.root, &plan, beginning.model, vdb_random_next(&random), &history);
        cut_history(&history, n, vdb_random_next(&random), (unsigned)tally.n_histories, &next);
        count(&tally, &history);
        tally.n_points += n;
        crash_history_release(&history);
        remove_all(beginning.root);
        crash_model_free(beginning.model);
        beginning = next;
    }
    crash_model_free(beginning.model);
    fprintf(stderr,
            "    %lu cuts of %lu workloads (%lu on a disk that lost power before): %lu calls, %lu file operations,\n"
            "    %lu barriers, %lu failed syncs; %lu indexes were loaded\n",
            tally.n_points, tally.n_histories, tally.n_continued, tally.n_steps, tally.n_events, tally.n_barriers,
            tally.n_failed_syncs, n_loaded);
}

TEST(a_power_cut_takes_nothing_that_was_acknowledged)
{
    cut_power(test_rounds(400));
}

/* ------------------------------------------------------------------ is the test worth anything? */

/* Record a workload in a directory of its own. */
static void record(const struct crash_plan *plan, uint64_t seed, struct crash_history *history)
{
    char root[250];
    snprintf(root, sizeof root, "%s", fresh_directory("recorded"));
    CHECK(!mkdir(root, 0777));
    crash_work(root, plan, NULL, seed, history);
    remove_all(root);
}

static bool is_of(const struct crash_journal *journal, const struct crash_event *event, int kind, const char *name)
{
    const struct crash_node *node = &journal->nodes[event->node];
    return event->kind == kind &&
           (name ? !node->is_directory && !strncmp(node->first_name, name, strlen(name)) : node->is_directory);
}

static unsigned count_events(const struct crash_journal *journal, int kind, const char *name)
{
    unsigned n = 0;
    for (size_t i = journal->n_initial; i < journal->n_events; i++)
        n += is_of(journal, &journal->events[i], kind, name);
    return n;
}

/* Of several workloads: a single one may well have no checkpoint that truncates the WAL, or many steps that are
 * refused and write nothing. */
TEST(what_sqlite_and_the_library_write_and_sync_is_recorded)
{
    struct {
        int kind;
        const char *name;
        unsigned least, n;
    } rows[] = {
        {CRASH_SYNC, "catalog.sqlite-wal", 40, 0},
        {CRASH_TRUNCATE, "catalog.sqlite-wal", 1, 0},
        {CRASH_WRITE, "catalog.sqlite", 40, 0},
        {CRASH_SYNC, "catalog.sqlite", 1, 0},
        {CRASH_SYNC, "vectors-", 1, 0},
        {CRASH_SYNC, "index-", 1, 0},
        {CRASH_WRITE, "state", 40, 0}, /* stores into a map, most of them */
        {CRASH_SYNC, NULL, 8, 0},
    };
    struct vdb_random random = {test_seed()};
    size_t n_steps = 0, n_frames = 0;
    for (unsigned workload = 0; workload < 8; workload++) {
        struct crash_plan plan = {.n_steps = 60, .has_graphs = workload % 2};
        struct crash_history history;
        record(&plan, vdb_random_next(&random), &history);
        n_steps += history.n_steps;
        n_frames += count_events(&history.journal, CRASH_WRITE, "catalog.sqlite-wal");
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
            rows[i].n += count_events(&history.journal, rows[i].kind, rows[i].name);
        crash_history_release(&history);
    }
    CHECK_LE(n_steps, n_frames);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].n < rows[i].least)
            FAIL("events of kind %d on %s: %u", rows[i].kind, rows[i].name ? rows[i].name : "directories", rows[i].n);
}

TEST(a_seed_gives_the_same_workload_to_the_byte)
{
    struct crash_plan plan = {.n_steps = 60, .has_graphs = true, .n_failing_syncs = 2};
    struct crash_history one, other;
    record(&plan, test_seed(), &one);
    record(&plan, test_seed(), &other);
    for (size_t i = 0; i < one.journal.n_events && i < other.journal.n_events; i++) {
        const struct crash_event *a = &one.journal.events[i], *b = &other.journal.events[i];
        if (memcmp(a, b, sizeof *a) ||
            (a->length && memcmp(one.journal.bytes + a->at, other.journal.bytes + b->at, a->length)))
            FAIL("event %zu, of kind %d on %s, is another at offset %llu of %zu bytes", i, a->kind,
                 one.journal.nodes[a->node].first_name, (unsigned long long)a->offset, a->length);
    }
    CHECK_SIZE(one.journal.n_events, other.journal.n_events);
    crash_history_release(&one);
    crash_history_release(&other);
}

/* Does the test fail when the library leaves out syncs of such files (NULL: of directories)? */
static bool is_noticed(const char *name)
{
    struct vdb_random random = {test_seed()};
    for (unsigned attempt = 0; attempt < 8; attempt++) {
        struct crash_plan plan = {.n_steps = 50, .has_graphs = name && !strcmp(name, "index-")};
        struct crash_history history;
        int status = 0;
        record(&plan, vdb_random_next(&random), &history);
        for (size_t i = history.journal.n_initial; i < history.journal.n_events; i++)
            if (is_of(&history.journal, &history.journal.events[i], CRASH_SYNC, name))
                history.journal.events[i].kind = CRASH_NOTHING;
        pid_t child = fork();
        CHECK(child >= 0);
        if (!child) {
            struct beginning next = {"", NULL};
            int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
            dup2(nowhere, 2);
            cut_history(&history, 150, vdb_random_next(&random), attempt, &next);
            _exit(0);
        }
        CHECK_INT(waitpid(child, &status, 0), child);
        crash_history_release(&history);
        if (status)
            return true;
    }
    return false;
}

TEST(syncs_that_are_left_out_are_noticed)
{
    CHECK(is_noticed("catalog.sqlite-wal"));
    CHECK(is_noticed("catalog.sqlite"));
    CHECK(is_noticed("vectors-"));
    CHECK(is_noticed("index-"));
    CHECK(is_noticed(NULL));
}

/* ------------------------------------------------------------------ a sync that failed elsewhere */

static int put_number(vecdb *db, int64_t number, vecdb_error *err)
{
    float values[4] = {(float)number, 1, 2, 3};
    vecdb_record record = {.key = vecdb_key_int(number), .vector = values, .dimension = 4, .type = VECDB_F32};
    vecdb_collection *collection;
    int status = vecdb_collection_open(db, "c", &collection, err);
    return status ? status : vecdb_put(collection, &record, 1, err);
}

/* The database that the cut left must hold these records. */
static void verify_numbers(const char *path, const int64_t *numbers, size_t n)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *collection;
    vecdb_key keys[8];
    vecdb_results *results;
    vecdb *db = open_image(path, VECDB_OPEN_EXISTING);
    check_image(db, "after the cut");
    CRASH_OK(err, vecdb_collection_open(db, "c", &collection, &err));
    for (size_t i = 0; i < n; i++)
        keys[i] = vecdb_key_int(numbers[i]);
    CRASH_OK(err, vecdb_get(collection, keys, n, 0, &results, &err));
    for (size_t i = 0; i < n; i++)
        if (!vecdb_result_found(results, i))
            CRASH_FAIL("record %lld was acknowledged and is gone", (long long)numbers[i]);
    vecdb_results_free(results);
    vecdb_close(db);
}

/* Three handles: what `relaxed` commits is not synced, the `nth` sync of `failing` fails, and `durable` is opened after
 * that, so that the system does not tell it; what it acknowledges rests on the frames of `relaxed`. Returns whether
 * there was an nth sync. */
static bool commit_after_failed_sync(unsigned nth)
{
    struct crash_journal journal;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_field field = {.name = "f", .dimension = 4, .type = VECDB_F32, .metric = VECDB_L2};
    vecdb_options options = {.size = sizeof options, .threads = VECDB_THREADS_NONE};
    vecdb *relaxed, *failing, *durable;
    vecdb_collection *collection;
    char root[250], path[300];
    snprintf(crash_where, sizeof crash_where, "sync %u of another handle failed", nth);
    snprintf(root, sizeof root, "%s", fresh_directory("shared"));
    snprintf(path, sizeof path, "%s/db", root);
    CHECK(!mkdir(root, 0777));
    crash_record_begin(root, &journal);
    CRASH_OK(err, vecdb_open(path, &options, &failing, &err));
    options.durability = VECDB_DURABILITY_NORMAL;
    CRASH_OK(err, vecdb_open(path, &options, &relaxed, &err));
    CRASH_OK(err, vecdb_collection_create(failing, "c", &field, 1, VECDB_MUST_BE_NEW, &collection, &err));
    CRASH_OK(err, put_number(relaxed, 1, &err));
    crash_record_fail_sync(nth);
    int status = put_number(failing, 2, &err);
    bool has_failed = crash_record_failed_syncs() > 0;
    crash_record_fail_sync(0);
    CHECK_INT(status, has_failed ? VECDB_IO : VECDB_OK);
    options.durability = VECDB_DURABILITY_FULL;
    CRASH_OK(err, vecdb_open(path, &options, &durable, &err));
    CRASH_OK(err, put_number(durable, 3, &err));
    crash_record_look();
    struct crash_disk *disk = crash_disk_new(&journal);
    crash_disk_advance(disk, journal.n_events);
    const char *image = fresh_directory("image");
    crash_disk_cut(disk, CRASH_LOST, 1, image);
    crash_disk_free(disk);
    vecdb_close(relaxed);
    vecdb_close(failing);
    vecdb_close(durable);
    crash_record_end();
    crash_journal_release(&journal);
    snprintf(path, sizeof path, "%s/db", image);
    int64_t numbers[] = {1, 3, 2};
    verify_numbers(path, numbers, has_failed ? 2 : 3);
    remove_all(root);
    return has_failed;
}

TEST(a_sync_that_failed_in_one_handle_costs_another_no_commit)
{
    unsigned nth = 1;
    while (commit_after_failed_sync(nth))
        nth++;
    CHECK_LE(2, nth);
}
