/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/fault_lives.h - lives of a database, of every feature, any call of which may fail
 *
 * A life begins with a struct life of paths and options, and does things in a row, as an application would that
 * goes on after an error. What is in the ledger is counted; all else is there to have been done. CALL looks at each
 * status: it is a success or fits what was made to fail (expected_error), and has a sentence.
 */
#ifndef VDB_TESTS_FAULT_LIVES_H
#define VDB_TESTS_FAULT_LIVES_H

#include <dirent.h>
#include <errno.h>
#include <sqlite3.h>

#include "database.h"
#include "fault_tools.h"
#include "inject.h"

#define LEDGER_KEYS 64
#define WIDE 1024u
#define GRAPH_KEYS 3200

/* What is known of a key of the collection with a graph. */
enum { ROW_IS_UNKNOWN, ROW_IS_THERE, ROW_IS_DELETED };

struct life {
    char path[256], other[256], third[256];
    vecdb_options options;
    vecdb *db;
    vecdb_collection *ledger, *things, *graphs;
    int n_put;                         /* into the ledger */
    char acknowledged[LEDGER_KEYS];
    char rows[GRAPH_KEYS];             /* of `graphs` */
    bool has_backup;                   /* in `other` */
    bool is_damaged;                   /* on purpose */
    bool has_lost_graph;               /* its file was damaged, on purpose */
    int n_failed;
    const char *failed_call;
};

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
    return expected_error != ENOMEM || status == VECDB_NOMEM || (status == VECDB_IO && inject_has_arranged());
}

static bool came_out(struct life *life, const char *what, int status, const vecdb_error *err)
{
    inject_leave();
    if (!status)
        return true;
    life->n_failed++;
    life->failed_call = what;
    check_sentence(what, status, err);
    bool may_fail = expected_error || inject_has_arranged();
    if (!may_fail || !is_expected(life, status)) { /* told at the end, so that all of them are found */
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
    life->ledger = life->things = life->graphs = NULL;
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
    snprintf(name, sizeof name, "%s/snapshot-1", life->path);
    if (!mkdir(name, 0777))
        CALL(life, "snapshot", vecdb_snapshot_create(life->db, "amid debris", &err));
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
    if (has_snapshot && open_db(&reader, VECDB_OPEN_EXISTING)) /* which lets it remove what was dropped */
        close_db(&reader);
    CHECK(snprintf(reader.path, sizeof reader.path, "%s/snapshot-1", life->path) < (int)sizeof reader.path);
    reader.options.snapshot = NULL;
    if (has_snapshot && open_db(&reader, VECDB_OPEN_EXISTING))
        close_db(&reader);
    memcpy(reader.path, life->path, sizeof reader.path);
    reader.options.snapshot = "before";
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
    life->has_backup = CALL(life, "backup", vecdb_backup(life->db, life->other, &options, &err));
    close_db(life);
    if (life->has_backup)
        CALL(life, "restore", vecdb_restore(life->other, life->path, &options, &err));
    if (life->has_backup) /* also after one that failed */
        CALL(life, "restore", vecdb_restore(life->other, life->path, &options, &err));
}

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

static void flip(struct life *life, const char *name, long at)
{
    char path[512];
    unsigned char byte;
    snprintf(path, sizeof path, "%s/%s", life->path, name);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    life->is_damaged = true;
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
    flip(life, "vectors-2-1", 5000);
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
    flip(life, "catalog.sqlite", 4096 * 3 + 4090); /* a stamp only: what it stamps can be saved */
    CALL(life, "repair", vecdb_repair(life->path, &life->options, NULL, note_problem, NULL, &n_lost, &err));
    CALL(life, "repair", vecdb_repair(life->path, &life->options, NULL, note_problem, NULL, &n_lost, &err));
}

/* So many rows at the same distance that what a search keeps of them grows; and a cache of so many pages that its
 * table grows. */
static void live_with_ties(struct life *life)
{
    enum { N_ROWS = 6000, N_PAGES = 3000 };
    static const vecdb_field field = {.name = "v", .dimension = 4};
    static float vectors[N_ROWS][4];
    static int64_t keys[N_ROWS];
    static const float query_vector[4] = {1, 2, 3, 4};
    vecdb_collection *ties;
    vecdb_results *results;
    struct vdb_cache *cache;
    if (!begin(life))
        return;
    for (int i = 0; i < N_ROWS; i++) {
        keys[i] = i;
        vectors[i][0] = 1;
    }
    put_ledger(life);
    if (CALL(life, "create", vecdb_collection_create(life->db, "ties", &field, 1, VECDB_IF_MISSING, &ties, &err))) {
        vecdb_vector_column column = {.values = vectors};
        vecdb_batch batch = {.size = sizeof batch, .n_rows = N_ROWS, .integer_keys = keys, .vectors = &column,
                             .n_vectors = 1};
        vecdb_query query = {.size = sizeof query, .vector = query_vector, .n_queries = 1, .k = 10};
        CALL(life, "write", vecdb_write(ties, &batch, &err));
        if (CALL(life, "search", vecdb_search(ties, &query, &results, &err)))
            vecdb_results_free(results);
    }
    if (CALL(life, "cache", vdb_cache_new(&life->db->memory, 1 << 24, &cache, &err))) {
        inject_enter();
        for (uint32_t page = 0; page < N_PAGES; page++) {
            struct vdb_cache_entry *entry = vdb_cache_reserve(cache, 1, page, 8);
            if (entry)
                vdb_cache_unpin(cache, vdb_cache_publish(cache, entry));
        }
        vdb_cache_free(cache);
        inject_leave();
    }
    put_ledger(life);
    close_db(life);
}

/* A reader of files that SQLite left nothing beside: no log, no index of it. */
static void live_to_be_read(struct life *life)
{
    char path[300];
    if (!begin(life))
        return;
    put_ledger(life);
    write_things(life, 0, 40, true);
    close_db(life);
    for (int i = 0; i < 2 && !life->n_failed; i++) {
        snprintf(path, sizeof path, "%s/catalog.sqlite-%s", life->path, i ? "wal" : "shm");
        unlink(path); /* all of it is in the catalog, for the last one has closed it */
        if (open_db(life, VECDB_OPEN_READONLY)) {
            if (CALL(life, "collection", vecdb_collection_open(life->db, "things", &life->things, &err)))
                search_things(life, "half", 1, VECDB_F32, 4);
            close_db(life);
        }
    }
}

static void copy_files(const char *from, const char *to)
{
    static char bytes[1 << 22];
    char path[600];
    struct dirent *entry;
    CHECK(!mkdir(to, 0777));
    DIR *directory = opendir(from);
    CHECK(directory);
    while ((entry = readdir(directory))) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", from, entry->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, bytes, sizeof bytes);
        CHECK(n >= 0 && (size_t)n < sizeof bytes && !close(fd));
        snprintf(path, sizeof path, "%s/%s", to, entry->d_name);
        write_file(path, bytes, (size_t)n);
    }
    closedir(directory);
}

/* The pages of the tables whose names are like this are lost, or only doubtful: their stamps are wrong. */
static void damage_tables(struct life *life, const uint32_t *pages, size_t n, bool is_lost)
{
    for (size_t i = 0; i < n; i++)
        for (long at = is_lost ? 0 : 4090; at < 4096; at += 409)
            flip(life, "catalog.sqlite", (long)(pages[i] - 1) * 4096 + at);
}

static size_t pages_of(struct life *life, const char *where, uint32_t *pages, size_t most)
{
    struct vdb_connection *c;
    uint64_t sequence;
    sqlite3_stmt *statement;
    char sql[256];
    size_t n = 0;
    vecdb_error err = VECDB_ERROR_INIT;
    snprintf(sql, sizeof sql, "SELECT rootpage FROM sqlite_schema WHERE rootpage > 0 AND %s", where);
    CHECK_OK(err, vdb_read_begin(life->db->catalog, &c, &sequence, &err));
    CHECK(!sqlite3_prepare_v2(c->sqlite, sql, -1, &statement, NULL));
    while (n < most && sqlite3_step(statement) == SQLITE_ROW)
        pages[n++] = (uint32_t)sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    vdb_read_end(c);
    return n;
}

/* After a crash, so that there is a log; rows of extents and of fields are lost, records are doubtful and long. */
static void live_and_salvage_much(struct life *life)
{
    static char text[9000], keys[80][32];
    uint32_t lost[8], doubtful[16];
    uint64_t n_lost;
    if (!begin(life))
        return;
    put_ledger(life);
    for (int i = 0; i < 4; i++)
        write_things(life, i * 100, 120, true);
    delete_things(life, 10, 30);
    memset(text, 't', sizeof text - 1);
    for (int i = 0; i < 3 && has_things(life); i++) {
        snprintf(keys[i], sizeof keys[i], "long %d", i);
        vecdb_record record = {.key = vecdb_key_text(keys[i]), .text = text};
        CALL(life, "put", vecdb_put(life->things, &record, 1, &err));
    }
    close_db(life);
    if (life->n_failed || !begin(life))
        return;
    size_t n_lost_pages = pages_of(life, "name LIKE 'extents%'", lost, 8);
    size_t n_doubtful = pages_of(life, "(name LIKE 'records_2%' OR tbl_name = 'fields')", doubtful, 16);
    put_ledger(life);
    if (life->n_failed)
        return close_db(life);
    copy_files(life->path, life->third);
    close_db(life);
    each_name(life->path, remove_tree, NULL);
    CHECK(!rmdir(life->path) && !rename(life->third, life->path));
    damage_tables(life, lost, n_lost_pages, true);
    damage_tables(life, doubtful, n_doubtful, false);
    for (int i = 0; i < 2; i++)
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
    flip(life, "state", 20);
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
    flip(life, "vectors-2-1", 5000);
    for (int i = 0; i < 2; i++)
        CALL(life, "repair", vecdb_repair(life->path, &life->options, NULL, note_problem, NULL, &n_lost, &err));
}

/* Names without a directory before them, and a place for what is restored that is there and empty. */
static void live_under_short_names(struct life *life)
{
    char kept[2][sizeof life->path];
    memcpy(kept[0], life->path, sizeof kept[0]);
    memcpy(kept[1], life->other, sizeof kept[1]);
    int before = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(before >= 0 && !chdir(test_directory()));
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
    CHECK(!fchdir(before) && !close(before));
    memcpy(life->path, kept[0], sizeof kept[0]);
    memcpy(life->other, kept[1], sizeof kept[1]);
}

/* Until the background has read everything once; what it finds failing is a background error. */
static void live_with_a_scrub(struct life *life)
{
    vecdb_stats stats = {.size = sizeof stats};
    if (!begin(life))
        return;
    put_ledger(life);
    write_things(life, 0, 60, false);
    close_db(life);
    life->options.threads = 1;
    life->options.scrub_bytes_per_second = 1u << 30;
    if (!begin(life)) /* the first round begins at once, the next one is far */
        return;
    inject_enter();
    for (int i = 0; i < 2000 && !stats.scrub_rounds && !inject_has_failed(); i++) {
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

#endif
