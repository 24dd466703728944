/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/test_faults.c - whatever fails, whenever it fails, nothing acknowledged is lost
 *
 * A life of a database (open, create, put little and much, search, get, scan, delete, compact, rename,
 * check, close, open again) is lived again and again. In the n-th life the n-th allocation fails, or the n-th
 * operation on a file; alone, or with all that follow. The properties:
 *   1. A call succeeds and its answer is right, or it fails with the error that fits and a sentence.
 *   2. After a failed call the handle shows what it showed before.
 *   3. Opened again without faults, the database holds what was acknowledged, and of a call that
 *      failed last all or nothing. It can be written, compacted, and checked.
 *   4. After vecdb_close() no memory is held.
 *
 * Which n are tried: all, if VECDB_TEST_ROUNDS is large enough; else as many, spread evenly, beginning at
 * a place that the seed chooses.
 */
#include <errno.h>
#include <sqlite3.h>
#include <sys/wait.h>

#include "database.h"
#include "fault_tools.h"

#define N_KEYS 64
#define DIMENSION 1024u /* so that 40 records are more than a bulk write's 128 KiB */
#define BYTES 12u
#define WATCH_CALLS 1000000000L

static _Atomic long countdown = WATCH_CALLS; /* the call to fail */
static long in_a_row = 1;
static bool is_about_files; /* the calls are operations on files, not allocations */

static bool fails_now(void)
{
    long n = atomic_fetch_sub(&countdown, 1);
    return n <= 0 && n > -in_a_row;
}

/* A page that cannot be read, or that was written half, is something for vecdb_check to tell. */
static bool may_find_problems(void)
{
    return is_about_files && countdown < 0;
}

/* ------------------------------------------------------------------ what should be there */

/* Name 'c' or 'd', 0: no collection. A version for each key, 0: no record. */
struct model {
    char name;
    uint16_t versions[N_KEYS];
};

struct change {
    char name;
    int first, last; /* keys */
    uint16_t version;
};

static void apply(struct model *model, const struct change *change)
{
    if (change->name)
        model->name = change->name;
    for (int key = change->first; key <= change->last; key++)
        model->versions[key] = change->version;
}

static const char *show(const struct model *model)
{
    static char texts[4][512];
    static unsigned turn;
    char *text = texts[turn++ % 4];
    int used = snprintf(text, sizeof texts[0], "%c:", model->name ? model->name : '-');
    for (int key = 0; key < N_KEYS; key++)
        used += snprintf(text + used, sizeof texts[0] - (size_t)used, "%c",
                         model->versions[key] < 10 ? '0' + model->versions[key] : '+');
    return text;
}

/* A life: the handle, what it must show, and what else may be found when the database is opened again
 * (calls that have failed since the last one that succeeded). */
struct life {
    const char *path;
    vecdb_options options;
    const struct vdb_io_hook *hook;
    bool (*is_expected)(int status);
    vecdb *db;
    vecdb_collection *collection;
    struct model model;
    struct model uncertain[32];
    size_t n_uncertain;
    int n_failed;
};

static char trial[128]; /* which life this is, for messages */

/* Count a call; true when it succeeded. */
static bool came_out(struct life *life, const char *what, int status, const vecdb_error *err)
{
    if (!status)
        return true;
    life->n_failed++;
    check_sentence(what, status, err);
    if (!life->is_expected(status))
        FAIL("%s: %s failed with %s: %s", trial, what, vecdb_status_name(status), err->message);
    return false;
}

/* The same for a call that writes. */
static bool wrote(struct life *life, const char *what, int status, const vecdb_error *err, const struct change *change)
{
    struct model after = life->model;
    apply(&after, change);
    if (came_out(life, what, status, err)) {
        life->model = after;
        life->n_uncertain = 0;
        return true;
    }
    CHECK(life->n_uncertain < sizeof life->uncertain / sizeof life->uncertain[0]);
    life->uncertain[life->n_uncertain++] = after;
    return false;
}

/* ------------------------------------------------------------------ records */

struct record_parts {
    float wide[DIMENSION];
    signed char small[BYTES];
    char metadata[64], text[64];
    vecdb_vector vectors[2];
};

static void make_record(int key, uint16_t version, struct record_parts *parts, vecdb_record *record)
{
    fill_vector(key, version, DIMENSION, parts->wide);
    for (unsigned i = 0; i < BYTES; i++)
        parts->small[i] = (signed char)(key + version * 3 + (int)i);
    snprintf(parts->metadata, sizeof parts->metadata, "{\"key\": %d, \"version\": %u}", key, version);
    snprintf(parts->text, sizeof parts->text, "record %d in version %u", key, version);
    parts->vectors[0] = (vecdb_vector){.field = "wide", .values = parts->wide, .dimension = DIMENSION};
    parts->vectors[1] = (vecdb_vector){.field = "small", .values = parts->small, .type = VECDB_I8};
    *record = (vecdb_record){.key = VECDB_KEY_INT(key),
                             .vectors = parts->vectors,
                             .n_vectors = 2,
                             .metadata = parts->metadata,
                             .text = parts->text};
}

/* The version of a result, all of whose parts must be of that version. */
static uint16_t version_of(const vecdb_results *results, size_t i)
{
    static struct record_parts parts;
    vecdb_record record;
    int key = (int)vecdb_result_key(results, i).integer;
    const float *wide = vecdb_result_vector(results, i, "wide", NULL, NULL);
    const void *small = vecdb_result_vector(results, i, "small", NULL, NULL);
    CHECK(key >= 0 && key < N_KEYS && wide && small);
    uint16_t version = (uint16_t)version_of_vector(key, wide, DIMENSION);
    make_record(key, version, &parts, &record);
    CHECK(!memcmp(small, parts.small, BYTES));
    CHECK_STRING(vecdb_result_metadata(results, i, NULL), parts.metadata);
    CHECK_STRING(vecdb_result_text(results, i), parts.text);
    return version;
}

/* ------------------------------------------------------------------ reading all of it */

static int read_collection(vecdb_collection *collection, struct model *model, vecdb_error *err)
{
    vecdb_scan_options options = {
        .size = sizeof options, .columns = VECDB_METADATA | VECDB_TEXT | VECDB_VECTORS, .batch_rows = 25};
    vecdb_scan *scan = NULL;
    memset(model->versions, 0, sizeof model->versions);
    int status = vecdb_scan_open(collection, &options, &scan, err);
    for (size_t n = 1; !status && n;) {
        vecdb_results *results;
        status = vecdb_scan_next(scan, &results, err);
        if (status)
            break;
        n = vecdb_results_count(results);
        for (size_t i = 0; i < n; i++)
            model->versions[vecdb_result_key(results, i).integer] = version_of(results, i);
        vecdb_results_free(results);
        if (!n)
            break;
    }
    if (scan)
        vecdb_scan_close(scan);
    return status;
}

static int note_name(void *context, const vecdb_collection_info *info)
{
    struct model *model = context;
    CHECK(!model->name && !info->name[1]);
    model->name = info->name[0];
    return 0;
}

/* Without faults: what the database holds. */
static struct model read_database(vecdb *db)
{
    struct model model = {0};
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *collection;
    char name[2] = "";
    CHECK_OK(err, vecdb_collections(db, note_name, &model, &err));
    name[0] = model.name;
    if (!model.name)
        return model;
    CHECK_OK(err, vecdb_collection_open(db, name, &collection, &err));
    CHECK_OK(err, read_collection(collection, &model, &err));
    return model;
}

/* ------------------------------------------------------------------ the steps */

static bool open_life(struct life *life, int mode)
{
    vecdb_error err = VECDB_ERROR_INIT;
    life->options.mode = mode;
    int status = vdb_database_open(life->path, &life->options, life->hook, &life->db, &err);
    return came_out(life, "open", status, &err);
}

static bool create(struct life *life)
{
    static const vecdb_field fields[] = {
        {.name = "wide", .dimension = DIMENSION, .metric = VECDB_L2},
        {.name = "small", .dimension = BYTES, .type = VECDB_I8, .metric = VECDB_L2},
    };
    static const struct change change = {.name = 'c', .first = 1};
    vecdb_error err = VECDB_ERROR_INIT;
    if (life->collection)
        return true;
    int status = vecdb_collection_create(life->db, "c", fields, 2, VECDB_IF_MISSING, &life->collection, &err);
    return wrote(life, "create", status, &err, &change);
}

static void put(struct life *life, int first, int last, uint16_t version)
{
    static struct record_parts parts[N_KEYS];
    vecdb_record records[N_KEYS];
    struct change change = {.first = first, .last = last, .version = version};
    vecdb_error err = VECDB_ERROR_INIT;
    if (!create(life))
        return;
    for (int key = first; key <= last; key++)
        make_record(key, version, &parts[key], &records[key - first]);
    int status = vecdb_put(life->collection, records, (size_t)(last - first + 1), &err);
    wrote(life, last - first > 20 ? "bulk put" : "put", status, &err, &change);
}

static void delete(struct life *life, int first, int last)
{
    vecdb_key keys[N_KEYS];
    struct change change = {.first = first, .last = last};
    vecdb_error err = VECDB_ERROR_INIT;
    uint64_t n_deleted = 0, n_expected = 0;
    if (!create(life))
        return;
    for (int key = first; key <= last; key++) {
        keys[key - first] = vecdb_key_int(key);
        n_expected += life->model.versions[key] != 0;
    }
    int status = vecdb_delete(life->collection, keys, (size_t)(last - first + 1), &n_deleted, &err);
    if (wrote(life, "delete", status, &err, &change))
        CHECK_SIZE(n_deleted, n_expected);
}

static void rename_it(struct life *life)
{
    static const struct change change = {.name = 'd', .first = 1};
    vecdb_error err = VECDB_ERROR_INIT;
    if (create(life))
        wrote(life, "rename", vecdb_collection_rename(life->db, "c", "d", &err), &err, &change);
}

/* The nearest to a record's own vector is that record. */
static void search(struct life *life, int key)
{
    float vector[DIMENSION];
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_results *results;
    uint16_t version = life->model.versions[key];
    if (!create(life))
        return;
    fill_vector(key, version, DIMENSION, vector);
    vecdb_query query = {.size = sizeof query, .vector = vector, .k = 3, .exact = 1,
                         .columns = VECDB_METADATA | VECDB_TEXT | VECDB_VECTORS};
    int status = vecdb_search(life->collection, &query, &results, &err);
    if (!came_out(life, "search", status, &err))
        return;
    size_t n = vecdb_results_count(results), n_live = 0;
    for (int i = 0; i < N_KEYS; i++)
        n_live += life->model.versions[i] != 0;
    CHECK_SIZE(n, n_live < 3 ? n_live : 3);
    if (version && (vecdb_result_key(results, 0).integer != key || vecdb_result_distance(results, 0) != 0))
        FAIL("%s: key %d is not nearest to itself", trial, key);
    for (size_t i = 0; i < n; i++)
        CHECK_INT(version_of(results, i), life->model.versions[vecdb_result_key(results, i).integer]);
    vecdb_results_free(results);
}

static void get(struct life *life)
{
    static const vecdb_key keys[] = {VECDB_KEY_INT(1), VECDB_KEY_INT(3), VECDB_KEY_INT(22), VECDB_KEY_INT(63)};
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_results *results;
    if (!create(life))
        return;
    int status = vecdb_get(life->collection, keys, 4, VECDB_METADATA | VECDB_TEXT | VECDB_VECTORS, &results, &err);
    if (!came_out(life, "get", status, &err))
        return;
    for (size_t i = 0; i < 4; i++) {
        uint16_t version = life->model.versions[keys[i].integer];
        CHECK_INT(vecdb_result_found(results, i), version != 0);
        if (version)
            CHECK_INT(version_of(results, i), version);
    }
    vecdb_results_free(results);
}

static void scan_all(struct life *life)
{
    struct model found = {.name = life->model.name};
    vecdb_error err = VECDB_ERROR_INIT;
    if (!create(life) || !came_out(life, "scan", read_collection(life->collection, &found, &err), &err))
        return;
    if (memcmp(found.versions, life->model.versions, sizeof found.versions))
        FAIL("%s: a scan shows %s, acknowledged is %s", trial, show(&found), show(&life->model));
}

static char problem_found[512];

static void note_problem(void *context, const vecdb_problem *problem)
{
    (void)context;
    snprintf(problem_found, sizeof problem_found, "%s", problem->message);
}

static void look_after(struct life *life)
{
    vecdb_error err = VECDB_ERROR_INIT;
    uint64_t n_problems = 0;
    came_out(life, "compact", vecdb_compact(life->db, NULL, &err), &err);
    err = (vecdb_error)VECDB_ERROR_INIT;
    if (came_out(life, "check", vecdb_check(life->db, NULL, note_problem, NULL, &n_problems, &err), &err) &&
        n_problems) {
        if (!may_find_problems())
            FAIL("%s: check finds a problem where there is none: %s", trial, problem_found);
        life->n_failed++;
    }
    err = (vecdb_error)VECDB_ERROR_INIT;
    vecdb_stats stats = {.size = sizeof stats};
    came_out(life, "stats", vecdb_database_stats(life->db, &stats, &err), &err);
}

static void close_life(struct life *life)
{
    vecdb_close(life->db);
    life->db = NULL;
    life->collection = NULL;
}

static void live(struct life *life)
{
    if (!open_life(life, VECDB_OPEN_NEW) && !open_life(life, VECDB_OPEN_CREATE))
        return;
    put(life, 1, 5, 1);
    search(life, 3);
    put(life, 10, 49, 2);
    search(life, 22);
    scan_all(life);
    delete(life, 4, 14);
    put(life, 3, 10, 3);
    get(life);
    look_after(life);
    search(life, 3);
    rename_it(life);
    put(life, 63, 63, 4);
    scan_all(life);
    close_life(life);
}

/* ------------------------------------------------------------------ afterwards, without faults */

static void list_vectors(void *context, const char *path, const char *name)
{
    struct kept_files *there = context;
    (void)path;
    if (!strncmp(name, "vectors-", 8) && there->n < MOST_FILES)
        snprintf(there->files[there->n++].name, sizeof there->files[0].name, "%.63s", name);
}

static int unname(void *context, uint64_t field, uint64_t generation)
{
    char name[64];
    snprintf(name, sizeof name, "vectors-%llu-%llu", (unsigned long long)field, (unsigned long long)generation);
    struct kept_file *file = (struct kept_file *)kept_file(context, name);
    if (!file)
        FAIL("%s: %s is named and not there", trial, name);
    file->name[0] = 0;
    return VECDB_OK;
}

/* After compaction every vector file is one that the catalog names. */
static void check_no_debris(struct life *life)
{
    static struct kept_files there;
    struct vdb_connection *c;
    uint64_t sequence;
    vecdb_error err = VECDB_ERROR_INIT;
    there.n = 0;
    each_name(life->path, list_vectors, &there);
    CHECK_OK(err, vdb_read_begin(life->db->catalog, &c, &sequence, &err));
    CHECK_OK(err, vdb_extents_files(c, unname, &there, &err));
    vdb_read_end(c);
    for (size_t i = 0; i < there.n; i++)
        if (there.files[i].name[0])
            FAIL("%s: after compaction there still is %s, which nothing names", trial, there.files[i].name);
}

static void check_afterwards(struct life *life)
{
    vecdb_options plain = {.size = sizeof plain, .threads = VECDB_THREADS_NONE};
    vecdb_error err = VECDB_ERROR_INIT;
    life->options = plain;
    life->hook = NULL;
    int status = vecdb_open(life->path, &plain, &life->db, &err);
    if (status)
        FAIL("%s: afterwards it does not open: %s", trial, err.message);
    struct model found = read_database(life->db);
    bool is_right = !memcmp(&found, &life->model, sizeof found);
    for (size_t i = 0; i < life->n_uncertain; i++)
        is_right |= !memcmp(&found, &life->uncertain[i], sizeof found);
    if (!is_right)
        FAIL("%s: afterwards there is %s, acknowledged was %s", trial, show(&found), show(&life->model));
    check_database(life->db, trial);
    int n_failed = life->n_failed;
    life->model = found;
    life->n_uncertain = 0;
    if (found.name) {
        char name[2] = {found.name, 0};
        CHECK_OK(err, vecdb_collection_open(life->db, name, &life->collection, &err));
    }
    put(life, 20, 62, 7);
    look_after(life);
    scan_all(life);
    if (life->n_failed != n_failed)
        FAIL("%s: afterwards it cannot be used", trial);
    check_no_debris(life);
    close_life(life);
}

/* ------------------------------------------------------------------ which calls are tried */

/* The next n to try: of n_total calls, as many as VECDB_TEST_ROUNDS says. */
static long step_for(long n_total, unsigned long n_trials)
{
    unsigned long wanted = test_rounds(n_trials);
    long step = n_total / (long)(wanted ? wanted : 1);
    return step < 1 ? 1 : step;
}

static long start_for(long step, unsigned salt)
{
    return (long)((test_seed() >> salt) % (uint64_t)step);
}


/* ------------------------------------------------------------------ memory */

static bool is_no_memory(int status)
{
    return status == VECDB_NOMEM;
}

static void *failing_allocate(void *context, size_t size)
{
    return fails_now() ? NULL : vdb_alloc(context, size);
}

static void *failing_reallocate(void *context, void *block, size_t size)
{
    return fails_now() ? NULL : vdb_realloc(context, block, size);
}

static void release(void *context, void *block)
{
    vdb_free(context, block);
}

static void one_life_without_memory(const char *path, bool with_allocator, struct vdb_memory *beneath)
{
    struct life life = {.path = path, .is_expected = is_no_memory};
    life.options = (vecdb_options){.size = sizeof life.options, .threads = VECDB_THREADS_NONE};
    if (with_allocator)
        life.options.allocator = (vecdb_allocator){failing_allocate, failing_reallocate, release, beneath};
    live(&life);
    countdown = WATCH_CALLS;
    if (vdb_memory_used(beneath))
        FAIL("%s: %zu bytes are held after close", trial, vdb_memory_used(beneath));
    if (!with_allocator && sqlite3_memory_used())
        FAIL("%s: SQLite holds %lld bytes after close", trial, (long long)sqlite3_memory_used());
    check_afterwards(&life);
    remove_database(path);
}

static void fail_allocations(bool with_allocator, long n_failing, unsigned long n_trials)
{
    static struct vdb_memory beneath;
    const char *path = test_path("db");
    mount_memory(test_directory(), "size=64m"); /* or not: it is only faster */
    vdb_memory_init(&beneath, NULL);
    in_a_row = n_failing;
    one_life_without_memory(path, with_allocator, &beneath); /* warms up what is made once per process */
    snprintf(trial, sizeof trial, "without a failure");
    struct life whole = {.path = path, .is_expected = is_no_memory};
    whole.options = (vecdb_options){.size = sizeof whole.options, .threads = VECDB_THREADS_NONE};
    if (with_allocator)
        whole.options.allocator = (vecdb_allocator){failing_allocate, failing_reallocate, release, &beneath};
    countdown = WATCH_CALLS;
    live(&whole);
    long n_total = WATCH_CALLS - countdown, step = step_for(n_total, n_trials);
    CHECK_INT(whole.n_failed, 0);
    CHECK(n_total > 100);
    remove_database(path);
    for (long n = start_for(step, with_allocator + (unsigned)(n_failing > 1) * 2); n < n_total; n += step) {
        snprintf(trial, sizeof trial, "allocation %ld of %ld%s", n, n_total,
                 n_failing > 1 ? " and all that follow" : "");
        countdown = n;
        one_life_without_memory(path, with_allocator, &beneath);
    }
}

TEST(every_allocation_that_fails_once_loses_nothing)
{
    fail_allocations(true, 1, 120);
}

TEST(every_allocation_that_fails_from_some_moment_on_loses_nothing)
{
    fail_allocations(true, WATCH_CALLS, 120);
}

/* SQLite's own allocations, through sqlite3_config. */
static sqlite3_mem_methods sqlite_memory;

static void *sqlite_allocate(int size)
{
    return fails_now() ? NULL : sqlite_memory.xMalloc(size);
}

static void *sqlite_reallocate(void *block, int size)
{
    return fails_now() ? NULL : sqlite_memory.xRealloc(block, size);
}

static void let_sqlite_fail(void)
{
    CHECK(!sqlite3_config(SQLITE_CONFIG_GETMALLOC, &sqlite_memory));
    sqlite3_mem_methods methods = sqlite_memory;
    methods.xMalloc = sqlite_allocate;
    methods.xRealloc = sqlite_reallocate;
    CHECK(!sqlite3_config(SQLITE_CONFIG_MALLOC, &methods));
}

TEST(every_allocation_of_sqlite_that_fails_once_loses_nothing)
{
    let_sqlite_fail();
    fail_allocations(false, 1, 120);
}

TEST(every_allocation_of_sqlite_that_fails_from_some_moment_on_loses_nothing)
{
    let_sqlite_fail();
    fail_allocations(false, WATCH_CALLS, 120);
}

/* ------------------------------------------------------------------ files */

static int fault_errno; /* or VDB_FAULT_SHORT */
static int fault_op;    /* -1: any */
static enum vdb_io_op failed_op;
static char failed_path[256];

static int fail_io(void *context, enum vdb_io_op op, const char *path)
{
    (void)context;
    if (fault_op >= 0 && (int)op != fault_op)
        return 0;
    if (!fails_now())
        return 0;
    failed_op = op;
    snprintf(failed_path, sizeof failed_path, "%s", path ? path : "");
    return fault_errno;
}

static bool is_io_error(int status)
{
    if (fault_errno == ENOSPC && failed_op == VDB_IO_WRITE)
        return status == VECDB_FULL;
    if (failed_op == VDB_IO_LOCK && status == VECDB_BUSY)
        return true; /* a lock that cannot be had is one that another has */
    return status == VECDB_IO || (fault_errno == ENOSPC && status == VECDB_FULL);
}

static void one_life_with_faults(const char *path, int io)
{
    static const struct vdb_io_hook hook = {fail_io, NULL};
    struct life life = {.path = path, .is_expected = is_io_error, .hook = &hook};
    life.options = (vecdb_options){.size = sizeof life.options, .threads = VECDB_THREADS_NONE, .io = io};
    live(&life);
    countdown = WATCH_CALLS;
    check_afterwards(&life);
    remove_database(path);
}

static void fail_files(int os_error, int op, long n_failing, unsigned long n_trials)
{
    static bool is_mounted;
    const char *path = test_path("db");
    if (!is_mounted)
        is_mounted = mount_memory(test_directory(), "size=64m"); /* or not: it is only faster */
    fault_errno = os_error;
    fault_op = op;
    is_about_files = true;
    in_a_row = n_failing;
    for (int io = VECDB_IO_AUTO; io <= VECDB_IO_READ; io++) {
        static const struct vdb_io_hook hook = {fail_io, NULL};
        struct life whole = {.path = path, .is_expected = is_io_error, .hook = &hook};
        whole.options = (vecdb_options){.size = sizeof whole.options, .threads = VECDB_THREADS_NONE, .io = io};
        snprintf(trial, sizeof trial, "without a failure");
        countdown = WATCH_CALLS;
        live(&whole);
        long n_total = WATCH_CALLS - countdown, step = step_for(n_total, n_trials / 2);
        CHECK_INT(whole.n_failed, 0);
        CHECK(n_total > 5);
        remove_database(path);
        for (long n = start_for(step, 3 + (unsigned)op + (unsigned)io); n < n_total; n += step) {
            snprintf(trial, sizeof trial, "io %d, operation %ld of %ld%s, error %d", io, n, n_total,
                     n_failing > 1 ? " and all that follow" : "", os_error);
            countdown = n;
            one_life_with_faults(path, io);
        }
    }
}

TEST(every_operation_on_a_file_that_fails_once_loses_nothing)
{
    fail_files(EIO, -1, 1, 150);
}

TEST(every_operation_on_a_file_that_fails_from_some_moment_on_loses_nothing)
{
    fail_files(EIO, -1, WATCH_CALLS, 150);
}

TEST(every_write_that_stops_half_way_loses_nothing)
{
    fail_files(VDB_FAULT_SHORT, VDB_IO_WRITE, 1, 60);
    fail_files(VDB_FAULT_SHORT, VDB_IO_WRITE, WATCH_CALLS, 60);
}

TEST(every_read_that_stops_half_way_loses_nothing)
{
    fail_files(VDB_FAULT_SHORT, VDB_IO_READ, 1, 60);
}

TEST(a_disk_that_is_full_from_some_moment_on_is_said_to_be_full)
{
    fail_files(ENOSPC, VDB_IO_WRITE, 1, 60);
    fail_files(ENOSPC, VDB_IO_WRITE, WATCH_CALLS, 60);
}

TEST(every_sync_that_fails_loses_nothing)
{
    fail_files(EIO, VDB_IO_SYNC, 1, 60);
    fail_files(EIO, VDB_IO_SYNC, 2, 60);
    fail_files(EIO, VDB_IO_SYNC, WATCH_CALLS, 60);
}

/* ------------------------------------------------------------------ a failure, then a crash */

static int wal_syncs_to_fail, wal_writes_to_die;

static int fail_then_die(void *context, enum vdb_io_op op, const char *path)
{
    size_t length = strlen(path);
    (void)context;
    if (length < 4 || strcmp(path + length - 4, "-wal"))
        return 0;
    if (op == VDB_IO_SYNC && wal_syncs_to_fail && !--wal_syncs_to_fail)
        return EIO;
    if (op == VDB_IO_WRITE && wal_writes_to_die && !--wal_writes_to_die)
        _exit(0);
    return 0;
}

/* A bulk write whose commit cannot be synced; then a compaction that is killed before it writes. */
static void fail_and_be_killed(const char *path)
{
    static const struct vdb_io_hook hook = {fail_then_die, NULL};
    struct life life = {.path = path, .is_expected = is_io_error, .hook = &hook};
    life.options = (vecdb_options){.size = sizeof life.options, .threads = VECDB_THREADS_NONE};
    CHECK(open_life(&life, VECDB_OPEN_NEW));
    CHECK(create(&life)); /* and nothing is put: the compaction has nothing to pack, and to commit */
    wal_syncs_to_fail = 1;
    fault_errno = EIO;
    put(&life, 10, 49, 2);
    CHECK_INT(life.n_failed, 1);
    wal_writes_to_die = 1;
    look_after(&life);
    FAIL("the compaction has written nothing");
}

TEST(a_failed_commit_that_a_crash_brings_back_is_whole)
{
    struct life life = {.path = test_path("db"), .is_expected = is_io_error};
    int status = 0;
    pid_t child = fork();
    if (!child)
        fail_and_be_killed(life.path);
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK_INT(status, 0);
    snprintf(trial, sizeof trial, "after the crash");
    life.model.name = 'c';
    life.uncertain[0] = life.model;
    for (int key = 10; key <= 49; key++)
        life.uncertain[0].versions[key] = 2;
    life.n_uncertain = 1;
    check_afterwards(&life);
}
