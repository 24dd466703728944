/* SPDX-License-Identifier: Apache-2.0
 *
 * A collection that gets a new store (lib/renumber.c) keeps every record with all of its parts: at the end of the
 * slots, at an explicit compaction, beside writers and readers, in threads and processes, after a crash, a failure or
 * an interrupt at any moment; and nothing of the old store is left behind.
 *
 * The end of the slots is brought near by writing into the catalog. VECDB_TEST_ROUNDS=N: so many rounds in each loop
 * beside writers, and so many moments of every kind of failure.
 */
#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "fault_tools.h"
#include "lib/database.h"

#define N_KEYS 3000
#define WIDE 8
#define SMALL 24

static vecdb_error err;

/* ------------------------------------------------------------------ records, made from key and version */

/* Of every ten keys: one without the second field, one without the first, one with neither. */
static bool has_wide(int64_t key)
{
    return key % 10 != 4 && key % 10 != 7;
}

static bool has_small(int64_t key)
{
    return key % 10 != 3 && key % 10 != 7;
}

struct parts {
    char key[24], metadata[48];
    float wide[WIDE], small[SMALL];
    vecdb_vector vectors[2];
};

/* Every third key is a text. */
static vecdb_key key_of(int64_t key, char text[24])
{
    if (key % 3)
        return vecdb_key_int(key);
    snprintf(text, 24, "key %lld", (long long)key);
    return vecdb_key_text(text);
}

static int64_t number_of(vecdb_key key)
{
    return key.text ? atoll(key.text + 4) : key.integer;
}

static vecdb_record make(int64_t key, uint32_t version, struct parts *parts)
{
    vecdb_record record = {.key = key_of(key, parts->key), .vectors = parts->vectors};
    fill_vector(key, version, WIDE, parts->wide);
    for (uint32_t i = 0; i < SMALL; i++)
        parts->small[i] = (float)((key * 7 + version * 13 + i) % 250);
    if (has_wide(key))
        parts->vectors[record.n_vectors++] =
            (vecdb_vector){.field = "wide", .values = parts->wide, .dimension = WIDE, .type = VECDB_F32};
    if (has_small(key))
        parts->vectors[record.n_vectors++] =
            (vecdb_vector){.field = "small", .values = parts->small, .dimension = SMALL, .type = VECDB_F32};
    snprintf(parts->metadata, sizeof parts->metadata, "{\"version\": %u}", version);
    record.metadata = parts->metadata;
    return record;
}

static int put(vecdb_collection *collection, int64_t first, size_t n, const uint32_t *versions, vecdb_error *error)
{
    struct parts *parts = vdb_alloc_zero(tool_memory(), n * sizeof *parts);
    vecdb_record *records = vdb_alloc_zero(tool_memory(), n * sizeof *records);
    CHECK(parts && records);
    for (size_t i = 0; i < n; i++)
        records[i] = make(first + (int64_t)i, versions[first + (int64_t)i], &parts[i]);
    int status = vecdb_put(collection, records, n, error);
    vdb_free(tool_memory(), records);
    vdb_free(tool_memory(), parts);
    return status;
}

/* What a result holds is all of one version, which is returned. */
static uint32_t version_at(const vecdb_results *results, size_t i)
{
    struct parts parts;
    int64_t key = number_of(vecdb_result_key(results, i));
    const char *metadata = vecdb_result_metadata(results, i, NULL);
    unsigned version = 0;
    if (!metadata || sscanf(metadata, "{\"version\": %u}", &version) != 1)
        FAIL("key %lld has the metadata %s", (long long)key, metadata ? metadata : "(none)");
    make(key, version, &parts);
    const float *wide = vecdb_result_vector(results, i, "wide", NULL, NULL);
    const unsigned char *small = vecdb_result_vector(results, i, "small", NULL, NULL);
    CHECK_INT(wide != NULL, has_wide(key));
    CHECK_INT(small != NULL, has_small(key));
    if (wide && memcmp(wide, parts.wide, sizeof parts.wide))
        FAIL("key %lld, version %u: the wide vector is another's", (long long)key, version);
    for (int d = 0; small && d < SMALL; d++)
        if (small[d] != (unsigned char)parts.small[d])
            FAIL("key %lld, version %u: the small vector is another's", (long long)key, version);
    return version;
}

/* All of the records, by scan: versions by key, 0 for none. */
static void read_all(vecdb_collection *collection, uint32_t versions[N_KEYS])
{
    vecdb_scan_options options = {.size = sizeof options, .columns = VECDB_METADATA | VECDB_VECTORS};
    vecdb_scan *scan;
    vecdb_results *results;
    size_t n;
    memset(versions, 0, N_KEYS * sizeof *versions);
    CHECK_OK(err, vecdb_scan_open(collection, &options, &scan, &err));
    do {
        CHECK_OK(err, vecdb_scan_next(scan, &results, &err));
        n = vecdb_results_count(results);
        for (size_t i = 0; i < n; i++) {
            int64_t key = number_of(vecdb_result_key(results, i));
            CHECK(key >= 0 && key < N_KEYS && !versions[key]);
            versions[key] = version_at(results, i);
        }
        vecdb_results_free(results);
    } while (n);
    vecdb_scan_close(scan);
}

/* The collection holds these versions: by scan, and by a search that returns everything. */
static void compare(vecdb_collection *collection, const uint32_t versions[N_KEYS], const char *when)
{
    static uint32_t found[N_KEYS];
    read_all(collection, found);
    size_t n_wide = 0;
    for (int64_t key = 0; key < N_KEYS; key++) {
        if (found[key] != versions[key])
            FAIL("%s: key %lld has version %u, not %u", when, (long long)key, found[key], versions[key]);
        n_wide += versions[key] && has_wide(key);
    }
    float query[WIDE] = {1};
    vecdb_results *results;
    vecdb_query wanted = {.size = sizeof wanted, .field = "wide", .vector = query, .k = N_KEYS,
                          .columns = VECDB_KEYS_ONLY};
    CHECK_OK(err, vecdb_search(collection, &wanted, &results, &err));
    CHECK_SIZE(vecdb_results_count(results), n_wide);
    for (size_t i = 0; i < n_wide; i++) {
        int64_t key = number_of(vecdb_result_key(results, i));
        float vector[WIDE];
        double sum = 0;
        fill_vector(key, versions[key], WIDE, vector);
        for (int d = 0; d < WIDE; d++)
            sum += ((double)vector[d] - (double)query[d]) * ((double)vector[d] - (double)query[d]);
        if (fabs(sqrt(sum) - vecdb_result_distance(results, i)) > 1e-6 * (1 + sqrt(sum)))
            FAIL("%s: key %lld is at distance %g", when, (long long)key, vecdb_result_distance(results, i));
    }
    vecdb_results_free(results);
}

static vecdb_collection *create(vecdb *db)
{
    static const vecdb_field fields[] = {{.name = "wide", .dimension = WIDE, .metric = VECDB_L2},
                                         {.name = "small", .dimension = SMALL, .type = VECDB_U8, .metric = VECDB_L2}};
    vecdb_collection *collection;
    CHECK_OK(err, vecdb_collection_create(db, "c", fields, 2, VECDB_IF_MISSING, &collection, &err));
    return collection;
}

/* Random writes: bulk and single puts, deletions. */
static void change(vecdb_collection *collection, uint32_t versions[N_KEYS], struct vdb_random *random, int n_writes)
{
    for (int i = 0; i < n_writes; i++) {
        size_t n = vdb_random_below(random, 4) ? 1 + vdb_random_below(random, 20) : 1 + vdb_random_below(random, 900);
        int64_t first = (int64_t)vdb_random_below(random, N_KEYS - n);
        if (vdb_random_below(random, 3)) {
            for (size_t k = 0; k < n; k++)
                versions[first + (int64_t)k] = 1 + (uint32_t)vdb_random_below(random, 1000000);
            CHECK_OK(err, put(collection, first, n, versions, &err));
            continue;
        }
        char texts[1000][24];
        vecdb_key keys[1000];
        for (size_t k = 0; k < n; k++) {
            keys[k] = key_of(first + (int64_t)k, texts[k]);
            versions[first + (int64_t)k] = 0;
        }
        CHECK_OK(err, vecdb_delete(collection, keys, n, NULL, &err));
    }
}

/* As open_database of fault_tools.h, but patient: other tests may keep the disk busy for seconds. */
static vecdb *open_patient(const char *path, int mode, int threads)
{
    vecdb_options options = {.size = sizeof options, .mode = mode, .threads = threads, .busy_timeout_ms = 60000};
    vecdb *db = NULL;
    CHECK_OK(err, vecdb_open(path, &options, &db, &err));
    return db;
}

/* ------------------------------------------------------------------ looking inside */

static struct vdb_collection_row row_of(vecdb_collection *collection)
{
    struct vdb_connection *c;
    struct vdb_collection_row row;
    uint64_t sequence;
    bool found;
    CHECK_OK(err, vdb_read_begin(collection->db->catalog, &c, &sequence, &err));
    CHECK_OK(err, vdb_collection_read(c, collection->id, &row, &found, &err));
    CHECK(found);
    vdb_read_end(c);
    return row;
}

/* As if all but `n_left` slots had been given out; and, with `n_records`, all but two of them to records. */
static void move_end(vecdb_collection *collection, uint64_t n_left, bool full)
{
    struct vdb_connection *c;
    uint64_t sequence;
    CHECK_OK(err, vdb_write_begin(collection->db->catalog, &c, &sequence, &err));
    CHECK_OK(err, vdb_execute(c, "UPDATE collections SET next_slot = %llu", UINT32_MAX - n_left, &err));
    if (full)
        CHECK_OK(err, vdb_execute(c, "UPDATE collections SET n_records = %llu", UINT32_MAX - 2ull, &err));
    struct vdb_change change = {.sequence = sequence, .collection = collection->id, .kind = VDB_CHANGE_SCHEMA};
    CHECK_OK(err, vdb_changes_add(c, &change, &err));
    CHECK_OK(err, vdb_write_commit(c, &err));
}

struct file_names {
    unsigned n;
};

static void count_vectors(void *context, const char *path, const char *name)
{
    (void)path;
    ((struct file_names *)context)->n += !strncmp(name, "vectors-", 8);
}

/* One store, its files, and no others. */
static void check_nothing_is_left(vecdb_collection *collection)
{
    struct vdb_connection *c;
    uint64_t sequence, store, n_records;
    bool found;
    struct vdb_view *view;
    struct vdb_collection_row row = row_of(collection);
    CHECK_OK(err, vdb_view_acquire(collection, &view, &c, &sequence, &err));
    CHECK_OK(err, vdb_store_unused(c, &store, &found, &err));
    CHECK(!found);
    CHECK_OK(err, vdb_store_count(c, row.store, &n_records, &err));
    CHECK_SIZE(n_records, row.n_records);
    vdb_read_end(c);
    unsigned n_expected = 0;
    for (size_t f = 0; f < view->n_fields; f++)
        for (size_t i = 0; i < view->fields[f].n_segments; i++) {
            bool is_new = true;
            for (size_t j = 0; j < i; j++)
                is_new &= view->fields[f].segments[j]->file != view->fields[f].segments[i]->file;
            n_expected += is_new;
        }
    vdb_view_release(view);
    struct file_names names = {0};
    if (!collection->db->is_memory) {
        each_name(collection->db->path, count_vectors, &names);
        CHECK_INT(names.n, n_expected);
    }
}

/* What the tests do to the process in the middle of it; see below. */
static bool is_armed;

/* Have it renumbered now. */
static int renumber_with(vecdb_collection *collection, bool arm, vecdb_error *error)
{
    struct vdb_stop stop;
    while (vdb_append_begin(collection->db, VDB_APPEND_WORK_MS, NULL))
        usleep(1000); /* another handle is the maintainer */
    vdb_stop_init(&stop, collection->db, 0);
    is_armed = arm;
    int status = vdb_renumber(collection, &stop, error);
    is_armed = false;
    vdb_append_end(collection->db);
    return status;
}

static int renumber(vecdb_collection *collection, vecdb_error *error)
{
    return renumber_with(collection, false, error);
}

/* ------------------------------------------------------------------ one at a time */

static void try_again_and_again(const char *path, int threads)
{
    static uint32_t versions[N_KEYS];
    struct vdb_random random = {test_seed()};
    vecdb *db = open_database(path, VECDB_OPEN_CREATE, threads);
    vecdb_collection *collection = create(db);
    memset(versions, 0, sizeof versions);
    for (int round = 0; round < 6; round++) {
        change(collection, versions, &random, 12);
        struct vdb_collection_row before = row_of(collection);
        CHECK_OK(err, renumber(collection, &err));
        struct vdb_collection_row after = row_of(collection);
        CHECK(after.store > before.store);
        CHECK_SIZE(after.n_records, before.n_records);
        CHECK_SIZE(after.next_slot, after.n_records);
        compare(collection, versions, "after renumbering");
        check_database(db, "after renumbering");
        check_nothing_is_left(collection);
        if (round % 2 || db->is_memory)
            continue;
        vecdb_close(db);
        db = open_database(path, VECDB_OPEN_EXISTING, threads);
        collection = create(db);
        compare(collection, versions, "after opening again");
    }
    CHECK_OK(err, vecdb_background_error(db, &err));
    vecdb_close(db);
}

TEST(records_keep_all_of_their_parts_when_they_get_new_slots)
{
    try_again_and_again(test_path("db"), 0);
    try_again_and_again(test_path("db without threads"), VECDB_THREADS_NONE);
    try_again_and_again(":memory:", 0);
}

TEST(an_explicit_compaction_gives_dense_slots_to_a_collection_most_of_whose_slots_are_free)
{
    static uint32_t versions[N_KEYS];
    vecdb *db = open_database(test_path("db"), VECDB_OPEN_CREATE, 0);
    vecdb_collection *collection = create(db);
    for (uint32_t version = 1; version <= 3; version++) {
        for (int key = 0; key < N_KEYS; key++)
            versions[key] = version;
        CHECK_OK(err, put(collection, 0, N_KEYS, versions, &err));
    }
    CHECK_SIZE(row_of(collection).next_slot, 3 * N_KEYS);
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    CHECK_SIZE(row_of(collection).next_slot, N_KEYS);
    compare(collection, versions, "after compacting");
    uint64_t store = row_of(collection).store;
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    CHECK_SIZE(row_of(collection).store, store);
    check_nothing_is_left(collection);
    check_database(db, "after compacting");
    vecdb_close(db);
}

static void write_across_the_end(int threads, uint64_t n_left, size_t batch)
{
    static uint32_t versions[N_KEYS];
    char name[64];
    snprintf(name, sizeof name, "db %d %u %zu", threads, (unsigned)n_left, batch);
    vecdb *db = open_database(test_path(name), VECDB_OPEN_CREATE, threads);
    vecdb_collection *collection = create(db);
    for (int key = 0; key < N_KEYS; key++)
        versions[key] = 1;
    CHECK_OK(err, put(collection, 0, N_KEYS, versions, &err));
    move_end(collection, n_left, false);
    uint64_t store = row_of(collection).store;
    for (uint32_t version = 2; version < 4; version++)
        for (size_t first = 0; first < N_KEYS; first += batch) {
            size_t n = N_KEYS - first < batch ? N_KEYS - first : batch;
            for (size_t i = first; i < first + n; i++)
                versions[i] = version;
            CHECK_OK(err, put(collection, (int64_t)first, n, versions, &err));
        }
    CHECK(row_of(collection).store > store);
    CHECK(row_of(collection).next_slot < 4 * N_KEYS);
    compare(collection, versions, "behind the end");
    check_database(db, "behind the end");
    CHECK_OK(err, vecdb_background_error(db, &err));
    vecdb_close(db);
}

TEST(writes_go_on_across_the_end_of_the_slots)
{
    test_time_limit(600); /* each write is a commit, and waits for the disk */
    write_across_the_end(0, 700, 10);
    write_across_the_end(0, 0, 300);
    write_across_the_end(VECDB_THREADS_NONE, 1000, 37);
    write_across_the_end(VECDB_THREADS_NONE, 5, N_KEYS);
}

TEST(a_collection_is_full_only_when_its_records_are)
{
    static uint32_t versions[N_KEYS];
    vecdb *db = open_database(test_path("db"), VECDB_OPEN_CREATE, VECDB_THREADS_NONE);
    vecdb_collection *collection = create(db);
    versions[1] = versions[2] = versions[3] = 1;
    CHECK_OK(err, put(collection, 1, 1, versions, &err));
    move_end(collection, 1, true);
    CHECK_FAILS(err, VECDB_FULL, "put them into another collection", put(collection, 1, 3, versions, &err));
    vecdb_close(db);
}

TEST(a_collection_without_fields_or_without_records_gets_new_slots_too)
{
    vecdb *db = open_database(test_path("db"), VECDB_OPEN_CREATE, VECDB_THREADS_NONE);
    vecdb_collection *collection;
    vecdb_key key = vecdb_key_text("only");
    vecdb_record record = {.key = key, .text = "a document"};
    CHECK_OK(err, vecdb_collection_create(db, "plain", NULL, 0, VECDB_MUST_BE_NEW, &collection, &err));
    CHECK_OK(err, vecdb_put(collection, &record, 1, &err));
    move_end(collection, 0, false);
    CHECK_OK(err, vecdb_put(collection, &record, 1, &err));
    CHECK_SIZE(row_of(collection).next_slot, 2);
    vecdb_results *results;
    CHECK_OK(err, vecdb_get(collection, &key, 1, VECDB_TEXT, &results, &err));
    CHECK_STRING(vecdb_result_text(results, 0), "a document");
    vecdb_results_free(results);
    CHECK_OK(err, vecdb_delete(collection, &key, 1, NULL, &err));
    move_end(collection, 0, false);
    CHECK_OK(err, vecdb_put(collection, &record, 1, &err));
    CHECK_SIZE(row_of(collection).next_slot, 1);
    check_database(db, "at the end");
    vecdb_close(db);
}

TEST(a_scan_that_was_open_before_sees_its_own_state_to_the_end)
{
    static uint32_t versions[N_KEYS], before[N_KEYS];
    struct vdb_random random = {test_seed()};
    vecdb *dbs[2] = {open_database(test_path("db"), VECDB_OPEN_CREATE, 0), NULL};
    dbs[1] = open_database(test_path("db"), VECDB_OPEN_READONLY, 0);
    vecdb_collection *collection = create(dbs[0]), *reading;
    change(collection, versions, &random, 12);
    memcpy(before, versions, sizeof before);
    CHECK_OK(err, vecdb_collection_open(dbs[1], "c", &reading, &err));
    compare(reading, versions, "before");
    vecdb_scan_options options = {.size = sizeof options, .columns = VECDB_METADATA | VECDB_VECTORS, .batch_rows = 50};
    vecdb_scan *scans[2];
    vecdb_collection *of[2] = {collection, reading};
    for (int s = 0; s < 2; s++)
        CHECK_OK(err, vecdb_scan_open(of[s], &options, &scans[s], &err));
    CHECK_OK(err, renumber(collection, &err));
    change(collection, versions, &random, 5);
    CHECK_OK(err, renumber(collection, &err));
    compare(reading, versions, "through the other handle");
    for (int s = 0; s < 2; s++) {
        vecdb_results *results;
        size_t n, n_seen = 0, n_expected = 0;
        do {
            CHECK_OK(err, vecdb_scan_next(scans[s], &results, &err));
            n = vecdb_results_count(results);
            n_seen += n;
            for (size_t i = 0; i < n; i++)
                CHECK_INT(version_at(results, i), before[number_of(vecdb_result_key(results, i))]);
            vecdb_results_free(results);
        } while (n);
        for (int key = 0; key < N_KEYS; key++)
            n_expected += before[key] != 0;
        CHECK_SIZE(n_seen, n_expected);
        vecdb_scan_close(scans[s]);
    }
    vecdb_close(dbs[1]);
    vecdb_close(dbs[0]);
}

/* ------------------------------------------------------------------ beside writers and readers */

/* Each writer owns the keys that are its number modulo N_WRITERS; versions rise. What a reader finds lies between what
 * was acknowledged before it looked and what was begun when it had looked. */
#define N_WRITERS 3

struct shared {
    _Atomic uint32_t begun[N_KEYS], acknowledged[N_KEYS];
    _Atomic bool ends;
};

static void write_keys(vecdb_collection *collection, struct shared *shared, unsigned writer, uint64_t seed)
{
    struct vdb_random random = {seed + writer};
    struct parts parts[40];
    vecdb_record records[40];
    int64_t keys[40];
    vecdb_error error = VECDB_ERROR_INIT;
    while (!atomic_load(&shared->ends)) {
        size_t n = 1 + vdb_random_below(&random, 40);
        int64_t first = (int64_t)vdb_random_below(&random, N_KEYS / N_WRITERS - n);
        for (size_t i = 0; i < n; i++) {
            keys[i] = (first + (int64_t)i) * N_WRITERS + writer;
            uint32_t version = atomic_load(&shared->begun[keys[i]]) + 1;
            atomic_store(&shared->begun[keys[i]], version);
            records[i] = make(keys[i], version, &parts[i]);
        }
        int status = vecdb_put(collection, records, n, &error);
        if (status)
            FAIL("writer %u: %s: %s", writer, vecdb_status_name(status), error.message);
        for (size_t i = 0; i < n; i++)
            atomic_store(&shared->acknowledged[keys[i]], atomic_load(&shared->begun[keys[i]]));
    }
}

static void read_keys(vecdb_collection *collection, struct shared *shared)
{
    static _Thread_local uint32_t least[N_KEYS];
    float query[WIDE] = {0};
    vecdb_error error = VECDB_ERROR_INIT;
    for (int key = 0; key < N_KEYS; key++)
        least[key] = atomic_load(&shared->acknowledged[key]);
    vecdb_query wanted = {.size = sizeof wanted, .field = "wide", .vector = query, .k = N_KEYS,
                          .columns = VECDB_KEYS_ONLY};
    vecdb_results *results;
    int status = vecdb_search(collection, &wanted, &results, &error);
    if (status)
        FAIL("search: %s: %s", vecdb_status_name(status), error.message);
    size_t n = vecdb_results_count(results), n_least = 0;
    for (int key = 0; key < N_KEYS; key++)
        n_least += least[key] && has_wide(key);
    CHECK_LE(n_least, n);
    vecdb_results_free(results);
    wanted.k = 20;
    wanted.columns = VECDB_METADATA | VECDB_VECTORS;
    status = vecdb_search(collection, &wanted, &results, &error);
    if (status)
        FAIL("search: %s: %s", vecdb_status_name(status), error.message);
    for (size_t i = 0; i < vecdb_results_count(results); i++) {
        int64_t key = number_of(vecdb_result_key(results, i));
        uint32_t version = version_at(results, i);
        if (version < least[key] || version > atomic_load(&shared->begun[key]))
            FAIL("key %lld: version %u was found, %u was acknowledged", (long long)key, version, least[key]);
    }
    vecdb_results_free(results);
}

struct actor {
    vecdb_collection *collection;
    struct shared *shared;
    unsigned number;
    pthread_t thread;
};

static void *run_writer(void *context)
{
    struct actor *actor = context;
    write_keys(actor->collection, actor->shared, actor->number, test_seed());
    return NULL;
}

static void *run_reader(void *context)
{
    struct actor *actor = context;
    while (!atomic_load(&actor->shared->ends))
        read_keys(actor->collection, actor->shared);
    return NULL;
}

/* Fields come and go. */
static void *run_fields(void *context)
{
    struct actor *actor = context;
    vecdb_field field = {.name = "passing", .dimension = 3, .metric = VECDB_L2};
    vecdb_error error = VECDB_ERROR_INIT;
    while (!atomic_load(&actor->shared->ends)) {
        int status = vecdb_field_add(actor->collection, &field, &error);
        usleep(20000);
        if (!status)
            status = vecdb_field_drop(actor->collection, "passing", &error);
        if (status)
            FAIL("fields: %s: %s", vecdb_status_name(status), error.message);
        usleep(20000);
    }
    return NULL;
}

static void compare_shared(vecdb_collection *collection, struct shared *shared)
{
    static uint32_t versions[N_KEYS];
    for (int key = 0; key < N_KEYS; key++)
        versions[key] = atomic_load(&shared->acknowledged[key]);
    compare(collection, versions, "at the end");
}

TEST(threads_of_two_handles_write_and_read_while_the_end_of_the_slots_comes_and_goes)
{
    static struct shared shared;
    test_time_limit(600);
    vecdb *dbs[2] = {open_patient(test_path("db"), VECDB_OPEN_CREATE, 0), NULL};
    dbs[1] = open_patient(test_path("db"), VECDB_OPEN_EXISTING, 0);
    vecdb_collection *collections[2] = {create(dbs[0]), create(dbs[1])};
    struct actor actors[N_WRITERS + 3];
    for (unsigned i = 0; i < N_WRITERS + 3; i++) {
        actors[i] = (struct actor){.collection = collections[i % 2], .shared = &shared, .number = i};
        CHECK(!pthread_create(&actors[i].thread, NULL,
                              i < N_WRITERS ? run_writer : i < N_WRITERS + 2 ? run_reader : run_fields, &actors[i]));
    }
    for (unsigned long round = 0; round < test_rounds(12); round++) {
        usleep(50000);
        if (round % 3 == 2) {
            CHECK_OK(err, renumber(collections[round % 2], &err));
            continue;
        }
        uint64_t store = row_of(collections[0]).store;
        move_end(collections[0], round * 40, false);
        while (row_of(collections[0]).store == store)
            usleep(5000);
    }
    atomic_store(&shared.ends, true);
    for (unsigned i = 0; i < N_WRITERS + 3; i++)
        pthread_join(actors[i].thread, NULL);
    for (int i = 0; i < 2; i++) {
        compare_shared(collections[i], &shared);
        CHECK_OK(err, vecdb_background_error(dbs[i], &err));
    }
    check_database(dbs[0], "at the end");
    vecdb_close(dbs[1]);
    vecdb_close(dbs[0]);
}

TEST(processes_write_and_read_while_the_end_of_the_slots_comes_and_goes)
{
    test_time_limit(600);
    struct shared *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    vecdb *db = open_patient(test_path("db"), VECDB_OPEN_CREATE, 0);
    create(db);
    vecdb_close(db);
    pid_t children[N_WRITERS + 1];
    for (unsigned i = 0; i < N_WRITERS + 1; i++) {
        children[i] = fork();
        CHECK(children[i] >= 0);
        if (children[i])
            continue;
        db = open_patient(test_path("db"), VECDB_OPEN_EXISTING, 0);
        struct actor actor = {.collection = create(db), .shared = shared, .number = i};
        if (i < N_WRITERS)
            run_writer(&actor);
        else
            run_reader(&actor);
        vecdb_close(db);
        _exit(0);
    }
    db = open_patient(test_path("db"), VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    vecdb_collection *collection = create(db);
    for (unsigned long round = 0; round < test_rounds(8); round++) {
        usleep(50000);
        uint64_t store = row_of(collection).store;
        move_end(collection, round * 60, false);
        while (row_of(collection).store == store)
            usleep(5000);
    }
    atomic_store(&shared->ends, true);
    for (unsigned i = 0; i < N_WRITERS + 1; i++) {
        int status;
        CHECK(waitpid(children[i], &status, 0) == children[i]);
        CHECK_INT(status, 0);
    }
    compare_shared(collection, shared);
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    check_nothing_is_left(collection);
    check_database(db, "at the end");
    vecdb_close(db);
}

/* ------------------------------------------------------------------ at any moment */

enum event { FAIL_ONCE, FAIL_FROM_THEN_ON, INTERRUPT, DIE };

static struct moment {
    enum event event;
    long left; /* operations until it happens; negative: it has happened */
    vecdb *db;
} moment;

static int before(void *context, enum vdb_io_op op, const char *path)
{
    (void)context, (void)op, (void)path;
    if (!is_armed || moment.left-- > 0)
        return 0;
    bool is_first = moment.left == -1;
    if (moment.event == DIE)
        _exit(77);
    if (moment.event == INTERRUPT && is_first)
        vecdb_interrupt(moment.db);
    if (moment.event == FAIL_FROM_THEN_ON || (moment.event == FAIL_ONCE && is_first))
        return EIO;
    return 0;
}

static const struct vdb_io_hook hook = {before, NULL};

static vecdb *open_hooked(const char *path)
{
    vecdb_options options = {.size = sizeof options, .threads = VECDB_THREADS_NONE};
    vecdb *db;
    CHECK_OK(err, vdb_database_open(path, &options, &hook, &db, &err));
    return db;
}

/* Renumber with an event at operation `n`. False: it came to the end before. */
static bool renumber_until(vecdb *db, enum event event, long n)
{
    vecdb_collection *collection = create(db);
    vecdb_error error = VECDB_ERROR_INIT;
    moment = (struct moment){.event = event, .left = n, .db = db};
    int status = renumber_with(collection, true, &error);
    bool has_happened = moment.left < 0;
    check_sentence("renumbering", status, &error);
    if (!has_happened)
        CHECK_OK(error, status);
    else if (event == INTERRUPT && status && status != VECDB_INTERRUPTED)
        FAIL("interrupted: %s: %s", vecdb_status_name(status), error.message);
    return has_happened;
}

/* Moments from the first operation on, ever further apart, until none is left. */
static void try_moments(enum event event)
{
    static uint32_t versions[N_KEYS];
    struct vdb_random random = {test_seed()};
    const char *path = test_path("db");
    unsigned long most = test_rounds(40);
    test_time_limit(900);
    vecdb *db = open_hooked(path);
    change(create(db), versions, &random, 12);
    vecdb_close(db);
    static struct kept_files kept;
    keep_files(path, &kept);
    bool has_happened = true;
    long n = 0;
    for (unsigned long trial = 0; has_happened && trial < 100 * most; trial++, n += 1 + n * 3 / (long)most) {
        restore_files(path, &kept);
        if (event == DIE) {
            int status;
            pid_t child = fork();
            CHECK(child >= 0);
            if (!child) {
                db = open_hooked(path);
                _exit(renumber_until(db, event, n) ? 1 : 0);
            }
            CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
            CHECK(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 77);
            has_happened = WEXITSTATUS(status) == 77;
        } else {
            db = open_hooked(path);
            has_happened = renumber_until(db, event, n);
            compare(create(db), versions, "with the same handle");
            vecdb_close(db);
        }
        db = open_database(path, VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
        vecdb_collection *collection = create(db);
        compare(collection, versions, "opened again");
        check_database(db, "opened again");
        versions[5]++;
        CHECK_OK(err, put(collection, 5, 1, versions, &err));
        CHECK_OK(err, vecdb_compact(db, NULL, &err));
        check_nothing_is_left(collection);
        compare(collection, versions, "compacted");
        versions[5]--;
        vecdb_close(db);
    }
    CHECK(!has_happened);
    printf("    %ld operations\n", n);
}

TEST(an_operation_that_fails_once_loses_nothing)
{
    try_moments(FAIL_ONCE);
}

TEST(a_disk_that_fails_from_some_moment_on_loses_nothing)
{
    try_moments(FAIL_FROM_THEN_ON);
}

TEST(an_interrupt_at_any_moment_loses_nothing)
{
    try_moments(INTERRUPT);
}

TEST(a_process_that_dies_at_any_moment_loses_nothing)
{
    try_moments(DIE);
}

/* ------------------------------------------------------------------ memory that ends */

static _Atomic long allocations_left = -1; /* negative: no limit */

static bool may_allocate(void)
{
    long left = atomic_load(&allocations_left);
    return left < 0 || atomic_fetch_sub(&allocations_left, left > 0) > 0;
}

static void *allocate(void *context, size_t size)
{
    (void)context;
    const vecdb_allocator *inner = &tool_memory()->allocator;
    return may_allocate() ? inner->allocate(inner->context, size) : NULL;
}

static void *reallocate(void *context, void *block, size_t size)
{
    (void)context;
    const vecdb_allocator *inner = &tool_memory()->allocator;
    return may_allocate() ? inner->reallocate(inner->context, block, size) : NULL;
}

static void release(void *context, void *block)
{
    (void)context;
    const vecdb_allocator *inner = &tool_memory()->allocator;
    inner->release(inner->context, block);
}

TEST(memory_that_ends_at_any_moment_loses_nothing)
{
    static uint32_t versions[N_KEYS];
    struct vdb_random random = {test_seed()};
    vecdb_options options = {.size = sizeof options,
                             .threads = VECDB_THREADS_NONE,
                             .allocator = {allocate, reallocate, release, NULL}};
    vecdb *db;
    test_time_limit(900);
    CHECK_OK(err, vecdb_open(test_path("db"), &options, &db, &err));
    vecdb_collection *collection = create(db);
    change(collection, versions, &random, 12);
    unsigned long most = test_rounds(40);
    bool is_done = false;
    for (long n = 0; !is_done; n += 1 + n * 3 / (long)most) {
        vecdb_error error = VECDB_ERROR_INIT;
        atomic_store(&allocations_left, n);
        int status = renumber(collection, &error);
        is_done = atomic_load(&allocations_left) > 0;
        atomic_store(&allocations_left, -1);
        check_sentence("renumbering", status, &error);
        if (is_done)
            CHECK_OK(error, status);
        if (n % 5 == 0 || is_done)
            compare(collection, versions, "afterwards");
    }
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    check_nothing_is_left(collection);
    check_database(db, "afterwards");
    vecdb_close(db);
}
