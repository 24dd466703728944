/* SPDX-License-Identifier: Apache-2.0
 *
 * The space of deleted and replaced vectors comes back by itself, while writing goes on: the directory stays within
 * a stated factor of the live bytes, however long records are replaced, for large and small databases. What an explicit
 * compaction leaves is what is alive.
 *
 * The bounds are those of lib/compact.c: garbage up to half of the live bytes, a copy of one file while it is
 * rewritten, what is left alone because it is small; and the catalog's log, cut at 2,000 frames (twice that
 * when readers are in the way), with as many free pages as tails need.
 *
 * VECDB_TEST_ROUNDS=N: N times as many updates.
 */
#include <errno.h>

#include "fault_tools.h"
#include "lib/database.h"

static vecdb_error err;

static void add_bytes(void *context, const char *path, const char *name)
{
    struct stat status;
    (void)name;
    if (!stat(path, &status))
        *(uint64_t *)context += (uint64_t)status.st_size;
}

static uint64_t directory_bytes(const char *path)
{
    uint64_t n_bytes = 0;
    each_name(path, add_bytes, &n_bytes);
    return n_bytes;
}

struct setup {
    const char *name;
    int threads;
    size_t n_keys, batch;
    uint32_t dimension;
    int deletes; /* in a hundred calls; what is deleted is put again later */
    unsigned long n_updates;
};

static void put_some(vecdb_collection *collection, const struct setup *setup, struct vdb_random *random, size_t first,
                     size_t n, bool is_random)
{
    float *values = vdb_alloc(tool_memory(), n * setup->dimension * sizeof *values);
    int64_t *keys = vdb_alloc(tool_memory(), n * sizeof *keys);
    CHECK(values && keys);
    for (size_t i = 0; i < n; i++)
        keys[i] = is_random ? (int64_t)vdb_random_below(random, setup->n_keys) : (int64_t)(first + i);
    for (size_t i = 0; i < n * setup->dimension; i++)
        values[i] = (float)(vdb_random_unit(random) - 0.5);
    vecdb_vector_column column = {.values = values, .dimension = setup->dimension, .type = VECDB_F32};
    vecdb_batch batch = {.size = sizeof batch, .n_rows = n, .integer_keys = keys, .vectors = &column, .n_vectors = 1};
    CHECK_OK(err, vecdb_write(collection, &batch, &err));
    vdb_free(tool_memory(), values);
    vdb_free(tool_memory(), keys);
}

static void delete_some(vecdb_collection *collection, const struct setup *setup, struct vdb_random *random)
{
    vecdb_key keys[256];
    size_t n = setup->batch < 256 ? setup->batch : 256;
    for (size_t i = 0; i < n; i++)
        keys[i] = vecdb_key_int((int64_t)vdb_random_below(random, setup->n_keys));
    CHECK_OK(err, vecdb_delete(collection, keys, n, NULL, &err));
}

/* Wait for the background thread, which may be behind, and not more than it needs. */
static void settle(vecdb *db, uint64_t bound, const char *path)
{
    for (int i = 0; i < 200 && directory_bytes(path) > bound; i++) {
        usleep(10000);
        CHECK_OK(err, vecdb_background_error(db, &err));
    }
}

static void replace_for_ever(const struct setup *setup)
{
    struct vdb_random random = {test_seed()};
    const char *path = test_path(setup->name);
    vecdb_options options = {.size = sizeof options, .threads = setup->threads, .busy_timeout_ms = 60000,
                             .durability = VECDB_DURABILITY_NORMAL};
    vecdb_field field = {.name = "v", .dimension = setup->dimension, .metric = VECDB_L2,
                         .compression = VECDB_COMPRESSION_NONE};
    vecdb *db;
    vecdb_collection *collection;
    test_time_limit(900);
    CHECK_OK(err, vecdb_open(path, &options, &db, &err));
    CHECK_OK(err, vecdb_collection_create(db, "c", &field, 1, VECDB_MUST_BE_NEW, &collection, &err));
    put_some(collection, setup, &random, 0, setup->n_keys, false);
    uint64_t live = setup->n_keys * setup->dimension * sizeof(float), peak = 0;
    /* Half of the live bytes are garbage, then a copy is made; a log of 4,000 frames, four tails of free pages and a
     * 256 KiB that are left alone; and the records. */
    uint64_t bound = live * 5 / 2 + (16u << 20) + (16u << 20) + (1u << 20) + setup->n_keys * 128;
    unsigned long n_updates = setup->n_updates * test_rounds(1), done = 0;
    for (unsigned long call = 0; done < n_updates; call++) {
        if (vdb_random_below(&random, 100) < (uint64_t)setup->deletes)
            delete_some(collection, setup, &random);
        else
            put_some(collection, setup, &random, 0, setup->batch, true);
        done += setup->batch;
        if (call % 50)
            continue;
        uint64_t n_bytes = directory_bytes(path);
        if (n_bytes > bound)
            settle(db, bound, path);
        n_bytes = directory_bytes(path);
        if (n_bytes > bound)
            FAIL("after %lu updates the directory has %llu bytes; %llu are alive, up to %llu are allowed", done,
                 (unsigned long long)n_bytes, (unsigned long long)live, (unsigned long long)bound);
        peak = n_bytes > peak ? n_bytes : peak;
    }
    vecdb_stats stats = {.size = sizeof stats};
    CHECK_OK(err, vecdb_database_stats(db, &stats, &err));
    /* The bound on the write amplification: 1 / (1/3). A file is looked at when enough has died, so that only a
     * small part of what is written comes before the first look. */
    CHECK_LE((double)stats.vector_bytes_rewritten, 2.0 * (double)stats.vector_bytes_written + (double)live);
    CHECK(done * setup->dimension * sizeof(float) < 4 * live || stats.vector_bytes_rewritten > 0);
    printf("    %s: live %.1f MB, peak %.1f MB, written %.1f MB, rewritten %.1f MB\n", setup->name, (double)live / 1e6,
           (double)peak / 1e6, (double)stats.vector_bytes_written / 1e6, (double)stats.vector_bytes_rewritten / 1e6);
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    CHECK_OK(err, vecdb_database_stats(db, &stats, &err));
    CHECK_LE((double)stats.vector_bytes, 1.05 * (double)live + 65536);
    CHECK_LE((double)stats.catalog_bytes, (double)setup->n_keys * 64 + (1 << 20));
    check_database(db, "at the end");
    vecdb_close(db);
}

TEST(a_database_whose_records_are_replaced_for_ever_does_not_grow)
{
    struct setup setup = {"large", 0, 20000, 1000, 128, 10, 200000};
    replace_for_ever(&setup);
    setup = (struct setup){"without threads", VECDB_THREADS_NONE, 20000, 100, 128, 10, 100000};
    replace_for_ever(&setup);
}

TEST(a_small_database_whose_records_are_replaced_for_ever_does_not_grow)
{
    struct setup setup = {"thousand", 0, 1000, 10, 64, 5, 60000};
    replace_for_ever(&setup);
    setup = (struct setup){"tiny vectors", VECDB_THREADS_NONE, 1000, 40, 2, 5, 200000};
    replace_for_ever(&setup);
    setup = (struct setup){"large vectors", VECDB_THREADS_NONE, 50, 5, 4096, 5, 6000};
    replace_for_ever(&setup);
}

TEST(what_was_dropped_is_gone_from_the_disk_at_once)
{
    const char *path = test_path("db");
    struct setup setup = {"db", VECDB_THREADS_NONE, 5000, 5000, 64, 0, 0};
    struct vdb_random random = {test_seed()};
    vecdb_field fields[] = {{.name = "v", .dimension = 64, .metric = VECDB_L2}};
    vecdb_field more = {.name = "w", .dimension = 64, .metric = VECDB_L2};
    vecdb *db = open_database(path, VECDB_OPEN_CREATE, VECDB_THREADS_NONE);
    vecdb_collection *kept, *dropped;
    CHECK_OK(err, vecdb_collection_create(db, "kept", fields, 1, VECDB_MUST_BE_NEW, &kept, &err));
    CHECK_OK(err, vecdb_collection_create(db, "dropped", fields, 1, VECDB_MUST_BE_NEW, &dropped, &err));
    put_some(dropped, &setup, &random, 0, setup.n_keys, false);
    struct file_sum sum = {0};
    each_name(path, sum_vectors, &sum);
    CHECK_INT(sum.n_files, 1);
    CHECK_OK(err, vecdb_collection_drop(db, "dropped", &err));
    sum = (struct file_sum){0};
    each_name(path, sum_vectors, &sum);
    CHECK_INT(sum.n_files, 0);
    struct vdb_connection *c;
    uint64_t sequence, store;
    bool found;
    CHECK_OK(err, vdb_read_begin(db->catalog, &c, &sequence, &err));
    CHECK_OK(err, vdb_store_unused(c, &store, &found, &err));
    vdb_read_end(c);
    CHECK(!found);
    put_some(kept, &setup, &random, 0, setup.n_keys, false);
    CHECK_OK(err, vecdb_field_add(kept, &more, &err));
    CHECK_OK(err, vecdb_field_drop(kept, "v", &err));
    sum = (struct file_sum){0};
    each_name(path, sum_vectors, &sum);
    CHECK_INT(sum.n_files, 0);
    check_database(db, "at the end");
    vecdb_close(db);
}

TEST(what_was_dropped_while_another_was_the_maintainer_goes_with_the_next_work)
{
    const char *path = test_path("db");
    struct setup setup = {"db", VECDB_THREADS_NONE, 5000, 5000, 64, 0, 0};
    struct vdb_random random = {test_seed()};
    vecdb_field field = {.name = "v", .dimension = 64, .metric = VECDB_L2};
    vecdb *dbs[2] = {open_database(path, VECDB_OPEN_CREATE, VECDB_THREADS_NONE), NULL};
    vecdb_collection *dropped, *other;
    CHECK_OK(err, vecdb_collection_create(dbs[0], "dropped", &field, 1, VECDB_MUST_BE_NEW, &dropped, &err));
    CHECK_OK(err, vecdb_collection_create(dbs[0], "other", &field, 1, VECDB_MUST_BE_NEW, &other, &err));
    put_some(dropped, &setup, &random, 0, setup.n_keys, false);
    dbs[1] = open_database(path, VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    CHECK_OK(err, vdb_append_begin(dbs[1], VDB_APPEND_WORK_MS, &err));
    CHECK_OK(err, vecdb_collection_drop(dbs[0], "dropped", &err));
    vdb_append_end(dbs[1]);
    put_some(other, &setup, &random, 0, setup.n_keys, false); /* a bulk write is the maintainer's */
    struct file_sum sum = {0};
    each_name(path, sum_vectors, &sum);
    CHECK_INT(sum.n_files, 1);
    vecdb_close(dbs[1]);
    vecdb_close(dbs[0]);
}

TEST(a_catalog_that_lost_most_of_its_records_becomes_small)
{
    struct setup setup = {"db", VECDB_THREADS_NONE, 30000, 5000, 8, 0, 0};
    struct vdb_random random = {test_seed()};
    vecdb_field field = {.name = "v", .dimension = 8, .metric = VECDB_L2};
    vecdb *db = open_database(test_path("db"), VECDB_OPEN_CREATE, VECDB_THREADS_NONE);
    vecdb_collection *collection;
    vecdb_stats stats = {.size = sizeof stats};
    static vecdb_key keys[30000];
    size_t n = 0;
    CHECK_OK(err, vecdb_collection_create(db, "c", &field, 1, VECDB_MUST_BE_NEW, &collection, &err));
    put_some(collection, &setup, &random, 0, setup.n_keys, false);
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    CHECK_OK(err, vecdb_database_stats(db, &stats, &err));
    uint64_t full = stats.catalog_bytes;
    for (size_t i = 0; i < setup.n_keys; i++)
        if (i % 20)
            keys[n++] = vecdb_key_int((int64_t)i);
    CHECK_OK(err, vecdb_delete(collection, keys, n, NULL, &err));
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    CHECK_OK(err, vecdb_database_stats(db, &stats, &err));
    CHECK_LE((double)stats.catalog_bytes, (double)full / 3); /* the change log still names the deleted slots */
    check_database(db, "at the end");
    vecdb_close(db);
}

static int fail_locks(void *context, enum vdb_io_op op, const char *path)
{
    const char *slash = strrchr(path, '/');
    return *(bool *)context && op == VDB_IO_LOCK && slash && !strcmp(slash, "/state") ? EIO : 0;
}

TEST(a_maintainers_lock_that_fails_is_an_error_and_not_taken_for_another_maintainer)
{
    bool fails = false;
    const struct vdb_io_hook hook = {fail_locks, &fails};
    vecdb_options options = {.size = sizeof options, .threads = VECDB_THREADS_NONE};
    vecdb *db, *other;
    CHECK_OK(err, vdb_database_open(test_path("db"), &options, &hook, &db, &err));
    fails = true;
    CHECK_FAILS(err, VECDB_IO, "cannot lock", vecdb_compact(db, NULL, &err));
    CHECK_FAILS(err, VECDB_IO, "cannot lock", vecdb_background_error(db, &err));
    fails = false;
    CHECK_OK(err, vecdb_background_error(db, &err));
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    CHECK_OK(err, vecdb_open(test_path("db"), &options, &other, &err));
    CHECK_OK(err, vdb_append_begin(other, VDB_APPEND_WORK_MS, &err));
    CHECK_FAILS(err, VECDB_BUSY, "another process", vecdb_compact(db, NULL, &err));
    CHECK_OK(err, vecdb_background_error(db, &err));
    vdb_append_end(other);
    vecdb_close(other);
    vecdb_close(db);
}
