/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/test_fault_sites.c - every place that asks the system for something is told no, once
 *
 * Lives of a database, of every feature, over a libc that fails on demand (inject.h): so what fails is whatever
 * the library, SQLite or zstd ask for, wherever. First a life is watched, which finds every call site; then it is
 * lived again for one in 30 of them (VECDB_TEST_ROUNDS=n: one in n), that site's first call failing. The properties:
 *   1. A call succeeds, or fails with an error that fits and a sentence. An interrupted system call, and one that
 *      did half, are nothing that anyone notices.
 *   2. Afterwards the database opens, holds every record of the ledger that was acknowledged, has nothing wrong
 *      with it, and can be written and compacted.
 *
 * test_faults.c looks closer at fewer features: there every call of a life may fail, and all of the content is
 * compared. `make fault-sites` shows which call sites of the sources are reached by this program.
 */
#include <errno.h>
#include <sqlite3.h>
#include <sys/wait.h>

#include "database.h"
#include "fault_tools.h"
#include "inject.h"

#define LEDGER_KEYS 64
#define WIDE 1024u
#define MOST_FIRSTS 8192

struct life {
    char path[256], other[256], third[256];
    vecdb_options options;
    vecdb *db;
    vecdb_collection *ledger, *things;
    int n_put;                         /* into the ledger */
    char acknowledged[LEDGER_KEYS];
    int n_failed;
    const char *failed_call;
};

static const char *scenario_name;
static char trial[192];
static int expected_error; /* an errno; 0: nothing may fail */
static int n_wrong;

/* ------------------------------------------------------------------ calls */

/* Of what is not there because an earlier call failed, a later one says so. */
static bool is_expected(const struct life *life, int status)
{
    if ((status == VECDB_NOT_FOUND || status == VECDB_EXISTS) && life->n_failed > 1)
        return true;
    if (status == VECDB_MISUSE || status == VECDB_INTERNAL || status == VECDB_INVALID || status == VECDB_NEWER ||
        status == VECDB_INTERRUPTED || status == VECDB_TIMEOUT)
        return false;
    return expected_error != ENOMEM || status == VECDB_NOMEM;
}

static bool came_out(struct life *life, const char *what, int status, const vecdb_error *err)
{
    inject_leave();
    if (!status)
        return true;
    life->n_failed++;
    life->failed_call = what;
    check_sentence(what, status, err);
    if (!is_expected(life, status) || !expected_error) { /* told at the end, so that all of them are found */
        printf("    %s: %s (after %s failed) gives %s: %s\n", trial, what, inject_failed(), vecdb_status_name(status),
               err->message);
        n_wrong++;
    }
    return false;
}

/* The library is called between enter and leave only. */
#define CALL(life, what, call)                                                                                         \
    ({                                                                                                                 \
        vecdb_error err = VECDB_ERROR_INIT;                                                                            \
        inject_enter();                                                                                                \
        int call_status = (call);                                                                                      \
        came_out(life, what, call_status, &err);                                                                       \
    })

static bool open_db(struct life *life, int mode)
{
    life->options.size = sizeof life->options;
    life->options.mode = mode;
    return CALL(life, "open", vecdb_open(life->path, &life->options, &life->db, &err));
}

static void close_db(struct life *life)
{
    inject_enter();
    vecdb_close(life->db);
    inject_leave();
    life->db = NULL;
    life->ledger = life->things = NULL;
}

static bool has_ledger(struct life *life)
{
    static const vecdb_field field = {.name = "v", .dimension = 4, .metric = VECDB_L2};
    return life->ledger || CALL(life, "create", vecdb_collection_create(life->db, "ledger", &field, 1, VECDB_IF_MISSING,
                                                                        &life->ledger, &err));
}

static void put_ledger(struct life *life)
{
    float vector[4];
    char text[64];
    if (!life->db || !has_ledger(life) || life->n_put == LEDGER_KEYS)
        return;
    int key = life->n_put++;
    fill_vector(key, 1, 4, vector);
    snprintf(text, sizeof text, "entry %d", key);
    vecdb_record record = {.key = VECDB_KEY_INT(key), .vector = vector, .dimension = 4, .text = text};
    life->acknowledged[key] = CALL(life, "put", vecdb_put(life->ledger, &record, 1, &err));
}

/* As it is, or made; with the fields that it was left with. */
static bool has_things(struct life *life)
{
    vecdb_error none;
    if (!life->things && !expected_error && !vecdb_collection_open(life->db, "things", &life->things, &none))
        return true;
    static const vecdb_field fields[] = {
        {.name = "wide", .dimension = WIDE, .metric = VECDB_L2, .compression = VECDB_COMPRESSION_MAX},
        {.name = "half", .dimension = 24, .type = VECDB_F16, .metric = VECDB_IP},
        {.name = "bytes", .dimension = 24, .type = VECDB_I8, .metric = VECDB_L2, .compression = VECDB_COMPRESSION_NONE},
        {.name = "bits", .dimension = 100, .type = VECDB_BIT},
    };
    return life->things || CALL(life, "create", vecdb_collection_create(life->db, "things", fields, 4, VECDB_IF_MISSING,
                                                                        &life->things, &err));
}

/* Rows from columns: values converted, keys as texts, metadata and texts, so many that they go into extents. */
static void write_things(struct life *life, int first, int n, bool with_texts)
{
    static float wide[256][WIDE], half[256][24];
    static signed char bytes[256][24];
    static unsigned char bits[256][13];
    static char keys[256][32], metadata[256][96];
    static vecdb_key key_list[256];
    static const char *metadata_list[256], *texts[256];
    CHECK(n <= 256);
    for (int i = 0; i < n; i++) {
        fill_vector(first + i, 1, WIDE, wide[i]);
        for (int j = 0; j < 24; j++) {
            half[i][j] = (float)((first + i + j) % 16);
            bytes[i][j] = (signed char)((first + i) * 7 + j);
        }
        memset(bits[i], first + i, 12);
        bits[i][12] = (unsigned char)(i & 15);
        snprintf(keys[i], sizeof keys[i], "thing %05d", first + i);
        snprintf(metadata[i], sizeof metadata[i], "{\"n\": %d, \"tags\": [\"a\", {\"b\": [1.5e3, null]}]}", first + i);
        key_list[i] = vecdb_key_text(keys[i]);
        metadata_list[i] = metadata[i];
        texts[i] = with_texts ? metadata[i] : NULL;
    }
    const vecdb_vector_column columns[] = {
        {.field = "wide", .values = wide, .dimension = WIDE},
        {.field = "half", .values = half, .dimension = 24, .type = VECDB_F32},
        {.field = "bytes", .values = bytes, .dimension = 24},
        {.field = "bits", .values = bits, .dimension = 100},
    };
    vecdb_batch batch = {.size = sizeof batch, .n_rows = (size_t)n, .keys = key_list, .vectors = columns,
                         .n_vectors = 4, .metadata = metadata_list, .texts = texts};
    if (has_things(life))
        CALL(life, "write", vecdb_write(life->things, &batch, &err));
}

static void search_things(struct life *life, const char *field, size_t n_queries, int type, uint32_t k)
{
    static float vectors[32][WIDE];
    vecdb_results *results;
    CHECK(n_queries <= 32);
    for (size_t i = 0; i < n_queries; i++)
        fill_vector((int64_t)i + 3, 1, WIDE, vectors[i]);
    vecdb_query query = {.size = sizeof query, .field = field, .vector = vectors, .n_queries = n_queries,
                         .stride = sizeof vectors[0], .type = type, .k = k, .offset = 1,
                         .columns = VECDB_METADATA | VECDB_TEXT | VECDB_VECTORS};
    if (!has_things(life) || !CALL(life, "search", vecdb_search(life->things, &query, &results, &err)))
        return;
    for (size_t i = 0; i < vecdb_results_count(results); i++)
        vecdb_result_key_text(results, i);
    vecdb_search_stats stats = {.size = sizeof stats};
    vecdb_results_stats(results, &stats);
    vecdb_results_free(results);
}

static void get_things(struct life *life)
{
    static const vecdb_key keys[] = {VECDB_KEY_TEXT("thing 00003"), VECDB_KEY_INT(3), VECDB_KEY_TEXT("thing 00020")};
    vecdb_results *results;
    if (!has_things(life) ||
        !CALL(life, "get",
              vecdb_get(life->things, keys, 3, VECDB_METADATA | VECDB_TEXT | VECDB_VECTORS, &results, &err)))
        return;
    inject_enter();
    for (size_t i = 0; i < 3; i++) /* may have no memory for the digits of a number, and is NULL then */
        vecdb_result_key_text(results, i);
    inject_leave();
    vecdb_results_free(results);
}

static void scan_things(struct life *life)
{
    static const vecdb_key after = VECDB_KEY_TEXT("thing 00004");
    vecdb_scan_options options = {.size = sizeof options, .columns = VECDB_METADATA | VECDB_TEXT | VECDB_VECTORS,
                                  .after = &after, .limit = 60, .batch_rows = 25};
    vecdb_scan *scan;
    if (!has_things(life) || !CALL(life, "scan", vecdb_scan_open(life->things, &options, &scan, &err)))
        return;
    for (size_t n = 1; n;) {
        vecdb_results *results;
        if (!CALL(life, "scan", vecdb_scan_next(scan, &results, &err)))
            break;
        n = vecdb_results_count(results);
        vecdb_results_free(results);
    }
    vecdb_scan_close(scan);
}

static void delete_things(struct life *life, int first, int n)
{
    static char keys[256][32];
    vecdb_key list[256];
    uint64_t n_deleted;
    for (int i = 0; i < n; i++) {
        snprintf(keys[i], sizeof keys[i], "thing %05d", first + i);
        list[i] = vecdb_key_text(keys[i]);
    }
    if (has_things(life))
        CALL(life, "delete", vecdb_delete(life->things, list, (size_t)n, &n_deleted, &err));
}

static void compact(struct life *life)
{
    CALL(life, "compact", vecdb_compact(life->db, NULL, &err));
}

static bool found_problem;

static void note_problem(void *context, const vecdb_problem *problem)
{
    (void)context, (void)problem;
    found_problem = true;
}

static int ignore_collection(void *context, const vecdb_collection_info *info)
{
    (void)context, (void)info;
    return 0;
}

static int ignore_snapshot(void *context, const vecdb_snapshot_info *info)
{
    (void)context, (void)info;
    return 0;
}

static void look_at_all(struct life *life)
{
    uint64_t n_problems = 0;
    vecdb_stats stats = {.size = sizeof stats};
    CALL(life, "check", vecdb_check(life->db, NULL, note_problem, NULL, &n_problems, &err));
    if (n_problems && !inject_has_failed())
        FAIL("%s: check finds problems", trial);
    CALL(life, "collections", vecdb_collections(life->db, ignore_collection, NULL, &err));
    if (has_things(life))
        CALL(life, "describe", vecdb_collection_describe(life->things, ignore_collection, NULL, &err));
    CALL(life, "stats", vecdb_database_stats(life->db, &stats, &err));
}

/* ------------------------------------------------------------------ the lives */

static bool begin(struct life *life)
{
    return (life->db || open_db(life, VECDB_OPEN_CREATE) || open_db(life, VECDB_OPEN_CREATE)) && has_ledger(life);
}

static void live_plainly(struct life *life)
{
    if (!begin(life))
        return;
    put_ledger(life);
    write_things(life, 0, 3, true);
    search_things(life, "wide", 1, VECDB_F32, 5);
    write_things(life, 0, 48, false);
    put_ledger(life);
    search_things(life, "wide", 2, VECDB_F32, 40);
    search_things(life, "bits", 1, VECDB_BIT, 3);
    search_things(life, "half", 20, VECDB_F32, 3);
    get_things(life);
    scan_things(life);
    delete_things(life, 2, 30);
    search_things(life, "half", 1, VECDB_F32, 4);
    put_ledger(life);
    compact(life);
    write_things(life, 40, 60, false); /* grows an extent */
    search_things(life, "wide", 20, VECDB_F32, 10);
    search_things(life, "bytes", 1, VECDB_F32, 10);
    put_ledger(life);
    close_db(life);
    if (!open_db(life, VECDB_OPEN_EXISTING))
        return;
    search_things(life, "wide", 1, VECDB_F32, 5);
    look_at_all(life);
    close_db(life);
}

/* Without maps, read-only, with threads, and a second handle that follows the first. */
static void live_in_other_ways(struct life *life)
{
    struct life reader = *life;
    life->options.io = VECDB_IO_READ;
    life->options.durability = VECDB_DURABILITY_NORMAL;
    life->options.threads = 2;
    life->options.memory_bytes = 1 << 20;
    if (!begin(life))
        return;
    write_things(life, 0, 200, true);
    put_ledger(life);
    reader.options = life->options;
    reader.n_failed = life->n_failed;
    if (open_db(&reader, VECDB_OPEN_READONLY)) {
        CALL(&reader, "collection", vecdb_collection_open(reader.db, "things", &reader.things, &err));
        for (int round = 0; round < 3 && reader.things; round++) {
            search_things(&reader, "wide", 3, VECDB_F32, 7);
            write_things(life, round * 30, 45, false);
            delete_things(life, 100 + round * 5, 5);
        }
        if (reader.things) {
            scan_things(&reader);
            get_things(&reader);
            look_at_all(&reader);
        }
        close_db(&reader);
    }
    put_ledger(life);
    compact(life);
    search_things(life, "wide", 12, VECDB_F32, 20);
    look_at_all(life);
    close_db(life);
}

static void live_with_changes(struct life *life)
{
    vecdb_field added = {.name = "added", .dimension = 8};
    vecdb_collection *other = NULL;
    if (!begin(life))
        return;
    put_ledger(life);
    if (has_things(life)) {
        write_things(life, 0, 20, true);
        if (CALL(life, "add field", vecdb_field_add(life->things, &added, &err))) {
            write_things(life, 5, 5, true);
            CALL(life, "rename field", vecdb_field_rename(life->things, "added", "renamed", &err));
            compact(life);
            CALL(life, "drop field", vecdb_field_drop(life->things, "renamed", &err));
        }
        search_things(life, "half", 1, VECDB_F32, 3);
    }
    if (CALL(life, "create", vecdb_collection_create(life->db, "other", &added, 1, VECDB_IF_MISSING, &other, &err))) {
        CALL(life, "rename", vecdb_collection_rename(life->db, "other", "another", &err));
        CALL(life, "drop", vecdb_collection_drop(life->db, "another", &err));
        CALL(life, "drop", ({
                 /* which has its old name after a failure */
                 int status = vecdb_collection_drop(life->db, "other", &err);
                 status == VECDB_NOT_FOUND ? VECDB_OK : status;
             }));
    }
    put_ledger(life);
    compact(life);
    close_db(life);
}

/* Debris of a crash, which the next maintainer removes. */
static void live_with_debris(struct life *life)
{
    char name[300];
    snprintf(name, sizeof name, "%s/vectors-77-1", life->path);
    if (!begin(life))
        return;
    write_things(life, 0, 100, false);
    write_file(name, "debris", 6);
    put_ledger(life);
    close_db(life);
    if (!begin(life))
        return;
    write_things(life, 50, 100, false);
    delete_things(life, 0, 90);
    compact(life);
    put_ledger(life);
    close_db(life);
}

static void live_with_copies(struct life *life)
{
    vecdb_backup_options options = {.size = sizeof options, .link = 1};
    struct life reader = *life;
    if (!begin(life))
        return;
    write_things(life, 0, 60, true);
    put_ledger(life);
    bool has_snapshot = CALL(life, "snapshot", vecdb_snapshot_create(life->db, "before", &err));
    look_at_all(life);
    delete_things(life, 0, 30);
    CALL(life, "backup", vecdb_backup(life->db, life->other, NULL, &err));
    CALL(life, "snapshots", vecdb_snapshots(life->db, ignore_snapshot, NULL, &err));
    reader.options.snapshot = "before";
    reader.n_failed = life->n_failed;
    if (has_snapshot && open_db(&reader, VECDB_OPEN_READONLY)) {
        CALL(&reader, "collection", vecdb_collection_open(reader.db, "things", &reader.things, &err));
        if (reader.things)
            search_things(&reader, "wide", 1, VECDB_F32, 7);
        CALL(&reader, "backup", vecdb_backup(reader.db, life->third, &options, &err));
        if (has_snapshot)
            CALL(life, "drop snapshot", vecdb_snapshot_drop(life->db, "before", &err));
        close_db(&reader);
    }
    compact(life);
    put_ledger(life);
    close_db(life);
}

static void live_and_restore(struct life *life)
{
    vecdb_backup_options options = {.size = sizeof options};
    if (!begin(life))
        return;
    write_things(life, 0, 40, true);
    put_ledger(life);
    bool has_backup = CALL(life, "backup", vecdb_backup(life->db, life->other, &options, &err));
    close_db(life);
    if (has_backup)
        CALL(life, "restore", vecdb_restore(life->other, life->path, &options, &err));
    if (has_backup) /* also after one that failed */
        CALL(life, "restore", vecdb_restore(life->other, life->path, &options, &err));
}

static void flip(const char *directory, const char *name, long at)
{
    char path[512];
    unsigned char byte;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd >= 0 && pread(fd, &byte, 1, at) == 1) { /* else its vectors are in the tail: a file could not be made */
        byte ^= 1;
        CHECK(pwrite(fd, &byte, 1, at) == 1);
    }
    close(fd);
}

/* A page of the vector file of a field is lost, the ledger is not. */
static void live_and_repair(struct life *life)
{
    uint64_t n_lost;
    if (!begin(life))
        return;
    write_things(life, 0, 40, true);
    put_ledger(life);
    close_db(life);
    flip(life->path, "vectors-2-1", 5000);
    CALL(life, "repair", vecdb_repair(life->path, &life->options, NULL, note_problem, NULL, &n_lost, &err));
    CALL(life, "repair", vecdb_repair(life->path, &life->options, NULL, note_problem, NULL, &n_lost, &err));
}

/* The catalog itself is damaged, so that its pages are read one by one. */
static void live_and_salvage(struct life *life)
{
    uint64_t n_lost;
    if (!begin(life))
        return;
    write_things(life, 0, 60, true);
    close_db(life);
    if (life->n_failed || !begin(life))
        return;
    put_ledger(life);
    bool is_whole = !life->n_failed;
    close_db(life);
    if (!is_whole)
        return;
    flip(life->path, "catalog.sqlite", 4096 * 3 + 4090); /* a stamp only: what it stamps can be saved */
    CALL(life, "repair", vecdb_repair(life->path, &life->options, NULL, note_problem, NULL, &n_lost, &err));
    CALL(life, "repair", vecdb_repair(life->path, &life->options, NULL, note_problem, NULL, &n_lost, &err));
}

/* `state` is damaged, and nothing else; then a repair was interrupted before its last rename. */
static void live_and_heal_the_state(struct life *life)
{
    char complete[300], debris[300];
    uint64_t n_lost;
    if (!begin(life))
        return;
    write_things(life, 0, 20, true);
    put_ledger(life);
    close_db(life);
    if (life->n_failed)
        return;
    flip(life->path, "state", 20);
    for (int i = 0; i < 2; i++) /* also after one that failed */
        CALL(life, "repair", vecdb_repair(life->path, &life->options, NULL, note_problem, NULL, &n_lost, &err));
    snprintf(complete, sizeof complete, "%s.repaired", life->path);
    snprintf(debris, sizeof debris, "%s.repairing", life->path);
    if (life->n_failed)
        return;
    CHECK(!rename(life->path, complete));
    CALL(life, "repair", vecdb_repair(life->path, &life->options, NULL, note_problem, NULL, &n_lost, &err));
    if (life->n_failed)
        return;
    CHECK(!mkdir(debris, 0777));
    snprintf(debris, sizeof debris, "%s.repairing/vectors-1-1", life->path);
    write_file(debris, "debris", 6);
    flip(life->path, "vectors-2-1", 5000);
    for (int i = 0; i < 2; i++)
        CALL(life, "repair", vecdb_repair(life->path, &life->options, NULL, note_problem, NULL, &n_lost, &err));
}

/* Names without a directory before them, and a place for what is restored that is there and empty. */
static void live_under_short_names(struct life *life)
{
    char kept[2][sizeof life->path];
    memcpy(kept[0], life->path, sizeof kept[0]);
    memcpy(kept[1], life->other, sizeof kept[1]);
    CHECK(!chdir(test_directory()));
    snprintf(life->path, sizeof life->path, "db");
    snprintf(life->other, sizeof life->other, "other");
    if (begin(life)) {
        put_ledger(life);
        bool has_backup = CALL(life, "backup", vecdb_backup(life->db, life->other, NULL, &err));
        close_db(life);
        CHECK(!mkdir(life->third, 0777));
        if (has_backup)
            CALL(life, "restore", vecdb_restore(life->other, life->third, NULL, &err));
        CALL(life, "repair", vecdb_repair(life->path, &life->options, NULL, note_problem, NULL, NULL, &err));
    }
    CHECK(!chdir("/"));
    memcpy(life->path, kept[0], sizeof kept[0]);
    memcpy(life->other, kept[1], sizeof kept[1]);
}

/* Until the background has read everything once; what it finds failing is a background error. */
static void live_with_a_scrub(struct life *life)
{
    vecdb_stats stats = {.size = sizeof stats};
    life->options.threads = 1;
    life->options.scrub_bytes_per_second = 1u << 30;
    if (!begin(life))
        return;
    put_ledger(life);
    write_things(life, 0, 60, false);
    inject_enter();
    for (int i = 0; i < 60 && !stats.scrub_rounds && !inject_has_failed(); i++) {
        usleep(2000);
        if (vecdb_database_stats(life->db, &stats, NULL))
            break;
    }
    inject_leave();
    close_db(life);
}

/* Bring the end of the slots near, so that the collection gets a new store. */
static void live_to_the_end_of_the_slots(struct life *life)
{
    struct vdb_connection *c;
    uint64_t sequence;
    vecdb_error err = VECDB_ERROR_INIT;
    if (!begin(life))
        return;
    write_things(life, 0, 40, true);
    delete_things(life, 3, 9);
    put_ledger(life);
    if (life->n_failed)
        return close_db(life);
    CHECK_OK(err, vdb_write_begin(life->db->catalog, &c, &sequence, &err));
    CHECK_OK(err, vdb_execute(c, "UPDATE collections SET next_slot = 4294967200 WHERE name = 'things'", 0, &err));
    CHECK_OK(err, vdb_write_commit(c, &err));
    write_things(life, 20, 80, false);
    compact(life);
    write_things(life, 20, 80, false);
    search_things(life, "wide", 1, VECDB_F32, 30);
    put_ledger(life);
    compact(life);
    close_db(life);
}

/* In memory nothing stays to be looked at afterwards. */
static void live_in_memory(struct life *life)
{
    char kept[sizeof life->path];
    memcpy(kept, life->path, sizeof kept);
    snprintf(life->path, sizeof life->path, ":memory:");
    if (open_db(life, VECDB_OPEN_CREATE)) {
        write_things(life, 0, 100, true);
        delete_things(life, 2, 80);
        compact(life);
        search_things(life, "wide", 2, VECDB_F32, 5);
        scan_things(life);
        look_at_all(life);
        CALL(life, "backup", vecdb_backup(life->db, life->other, NULL, &err));
        close_db(life);
    }
    memcpy(life->path, kept, sizeof kept);
}

/* ------------------------------------------------------------------ trials */

static void remove_tree(void *context, const char *path, const char *name)
{
    struct stat status;
    (void)context, (void)name;
    if (!lstat(path, &status) && S_ISDIR(status.st_mode)) {
        each_name(path, remove_tree, NULL);
        rmdir(path);
    } else {
        unlink(path);
    }
}

static void begin_life(struct life *life)
{
    *life = (struct life){.options = {.threads = VECDB_THREADS_NONE}};
    each_name(test_directory(), remove_tree, NULL);
    snprintf(life->path, sizeof life->path, "%s/db", test_directory());
    snprintf(life->other, sizeof life->other, "%s/other", test_directory());
    snprintf(life->third, sizeof life->third, "%s/third", test_directory());
}

static void check_afterwards(struct life *life)
{
    inject_begin(INJECT_NOTHING, 0, 0, 0);
    snprintf(trial + strlen(trial), sizeof trial - strlen(trial), ", afterwards");
    expected_error = 0;
    life->options = (vecdb_options){.threads = VECDB_THREADS_NONE};
    int n_put = life->n_put;
    struct stat status;
    char missing[300];
    snprintf(missing, sizeof missing, "%s.repaired", life->path);
    if (stat(life->path, &status) && (!stat(missing, &status) || life->n_failed > 1)) {
        vecdb_error err = VECDB_ERROR_INIT; /* between two names: calling again completes it */
        if (!stat(life->other, &status))
            CHECK_OK(err, vecdb_restore(life->other, life->path, NULL, &err));
        else
            CHECK_OK(err, vecdb_repair(life->path, NULL, NULL, NULL, NULL, NULL, &err));
    }
    if (!begin(life))
        FAIL("%s: it does not open", trial);
    for (int key = 0; key < n_put; key++) {
        vecdb_key keys[] = {vecdb_key_int(key)};
        vecdb_results *results;
        CALL(life, "get", vecdb_get(life->ledger, keys, 1, VECDB_VECTORS, &results, &err));
        if (life->acknowledged[key] && !vecdb_result_found(results, 0))
            FAIL("%s: entry %d of the ledger is lost", trial, key);
        if (vecdb_result_found(results, 0))
            version_of_vector(key, vecdb_result_vector(results, 0, NULL, NULL, NULL), 4);
        vecdb_results_free(results);
    }
    check_database(life->db, trial);
    put_ledger(life);
    write_things(life, 0, 50, true);
    search_things(life, "wide", 1, VECDB_F32, 3);
    compact(life);
    check_database(life->db, trial);
    close_db(life);
}

/* One life for each site, or for one in `step` of them. */
static void fail_each_site(const char *name, void (*live)(struct life *), enum inject_what what, int os_error,
                           long n_failing)
{
    static long firsts[MOST_FIRSTS];
    struct life life;
    if (!INJECT_WORKS)
        SKIP("a sanitizer has libc's functions itself");
    sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0); /* so that SQLite asks for whatever it needs */
    scenario_name = name;
    test_time_limit(600);
    mount_memory(test_directory(), "size=256m"); /* or not: it is only faster */
    snprintf(trial, sizeof trial, "%s without a failure", name);
    for (int round = 0; round < 2; round++) { /* the first warms up what is made once per process */
        expected_error = 0;
        begin_life(&life);
        inject_watch(what, firsts, MOST_FIRSTS);
        live(&life);
    }
    size_t n_sites = inject_end();
    snprintf(trial, sizeof trial, "%s without a failure", name);
    check_afterwards(&life);
    size_t step = n_sites < 20 ? 1 : test_rounds(30), n_reached = 0, n_noticed = 0;
    for (size_t i = test_seed() % step; i < n_sites; i += step) {
        bool is_harmless = os_error == EINTR || os_error == INJECT_SHORT;
        snprintf(trial, sizeof trial, "%s, call %ld (site %zu of %zu) fails with %d", name, firsts[i], i, n_sites,
                 os_error);
        begin_life(&life);
        expected_error = is_harmless ? 0 : os_error;
        inject_begin(what, os_error, firsts[i], n_failing);
        live(&life);
        n_reached += inject_has_failed();
        n_noticed += life.n_failed > 0;
        check_afterwards(&life);
    }
    each_name(test_directory(), remove_tree, NULL);
    printf("    %s: %zu sites, %zu failed, %zu lives noticed\n", name, n_sites, n_reached, n_noticed);
    if (n_wrong)
        FAIL("%d calls failed in another way than they should", n_wrong);
}

#define SCENARIOS(each, ...)                                                                                           \
    each("a plain life", live_plainly, __VA_ARGS__);                                                                   \
    each("other ways", live_in_other_ways, __VA_ARGS__);                                                               \
    each("changes", live_with_changes, __VA_ARGS__);                                                                   \
    each("debris", live_with_debris, __VA_ARGS__);                                                                     \
    each("copies", live_with_copies, __VA_ARGS__);                                                                     \
    each("restore", live_and_restore, __VA_ARGS__);                                                                    \
    each("repair", live_and_repair, __VA_ARGS__);                                                                      \
    each("salvage", live_and_salvage, __VA_ARGS__);                                                                    \
    each("the state", live_and_heal_the_state, __VA_ARGS__);                                                           \
    each("short names", live_under_short_names, __VA_ARGS__);                                                          \
    each("a scrub", live_with_a_scrub, __VA_ARGS__);                                                                   \
    each("the end of the slots", live_to_the_end_of_the_slots, __VA_ARGS__);                                           \
    each("in memory", live_in_memory, __VA_ARGS__)

TEST(every_site_that_asks_for_memory_is_told_once_that_there_is_none)
{
    SCENARIOS(fail_each_site, INJECT_MEMORY, ENOMEM, 1);
}

TEST(every_site_that_touches_a_file_fails_once)
{
    SCENARIOS(fail_each_site, INJECT_FILES, EIO, 1);
}

TEST(nobody_notices_reads_and_writes_that_are_interrupted_or_do_half)
{
    fail_each_site("interrupted reads", live_plainly, INJECT_READS, EINTR, 1);
    fail_each_site("interrupted writes", live_plainly, INJECT_WRITES, EINTR, 1);
    fail_each_site("half reads", live_plainly, INJECT_READS, INJECT_SHORT, 1);
    fail_each_site("half writes", live_plainly, INJECT_WRITES, INJECT_SHORT, 1);
}
