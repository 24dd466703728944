/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/test_scrub.c - the background scrub finds damage, keeps to its rate, and is in nobody's way
 *
 *   1. A flipped bit in a page of the catalog, in the log, in a page of vectors, between pages, in a footer, in
 *      `state`: each is found by a scrub, without anybody reading it, and named.
 *   2. It is silent on a database that is whole, while two threads write and the worker packs and compacts.
 *   3. Rounds are counted. At a rate of 1 byte a second nothing more than the first slice is read, and the database
 *      closes at once.
 *   4. The arithmetic of the rate, without a clock.
 */
#include <pthread.h>
#include <time.h>

#include "fault_tools.h"
#include "scrub.h"

static vecdb *open_scrubbed(const char *path, int mode, uint64_t rate, int threads)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_options options = {.size = sizeof options, .mode = mode, .threads = threads, .scrub_bytes_per_second = rate};
    vecdb *db = NULL;
    CHECK_OK(err, vecdb_open(path, &options, &db, &err));
    return db;
}

static vecdb_stats stats_of(vecdb *db)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_stats stats = {.size = sizeof stats};
    CHECK_OK(err, vecdb_database_stats(db, &stats, &err));
    return stats;
}

static void pause_ms(int ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

/* The counters, without a look at the database itself, which may be too damaged for that. */
static void wait_for(vecdb *db, uint64_t n_rounds, uint64_t n_problems, vecdb_error *err)
{
    for (;;) {
        vecdb_stats stats = {.size = sizeof stats};
        vecdb_error ignored = VECDB_ERROR_INIT;
        if (n_problems && vecdb_background_error(db, err))
            return;
        if (!vecdb_database_stats(db, &stats, &ignored) && n_rounds && stats.scrub_rounds >= n_rounds)
            return;
        pause_ms(2);
    }
}

static vecdb_collection *make_collection(vecdb *db)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_field field = {.name = "v", .dimension = 15, .metric = VECDB_L2, .compression = VECDB_COMPRESSION_NONE};
    vecdb_collection *collection;
    CHECK_OK(err, vecdb_collection_create(db, "notes", &field, 1, VECDB_IF_MISSING, &collection, &err));
    return collection;
}

static int put_some(vecdb_collection *collection, int64_t first, size_t n, vecdb_error *err)
{
    float values[200][16];
    vecdb_record records[200];
    CHECK(n <= 200);
    for (size_t i = 0; i < n; i++) {
        fill_vector(first + (int64_t)i, 1, 16, values[i]);
        records[i] = (vecdb_record){.key = vecdb_key_int(first + (int64_t)i), .vector = values[i]};
        records[i].metadata = "{\"a\": 1}";
    }
    return vecdb_put(collection, records, n, err);
}

/* A database with vectors in pages of an extent that has grown, and commits that are only in the WAL. */
static struct kept_files files;

static void make_database(void)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = open_database(test_path("original"), VECDB_OPEN_NEW, VECDB_THREADS_NONE);
    vecdb_collection *collection = make_collection(db);
    CHECK_OK(err, put_some(collection, 0, 150, &err));
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    CHECK_OK(err, put_some(collection, 1000, 150, &err));
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    CHECK_OK(err, put_some(collection, 2000, 20, &err));
    keep_files(test_path("original"), &files); /* as if the process had been killed here */
    vecdb_close(db);
}

static void check_found(const char *name, size_t at, const char *part)
{
    vecdb_error err = VECDB_ERROR_INIT;
    const struct kept_file *file = kept_file(&files, name);
    CHECK(file && at < file->n_bytes);
    /* The handle is open before the damage: what an open reads is not the scrub's to find. */
    restore_files(test_path("copy"), &files);
    vecdb *db = open_scrubbed(test_path("copy"), VECDB_OPEN_EXISTING, 50000000, 1);
    wait_for(db, 1, 0, NULL);
    CHECK_SIZE(stats_of(db).scrub_problems, 0u);
    char path[512];
    snprintf(path, sizeof path, "%s/%s", test_path("copy"), name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    unsigned char flipped = file->bytes[at] ^ 0x10;
    CHECK(fd >= 0);
    CHECK_INT(pwrite(fd, &flipped, 1, (off_t)at), 1);
    close(fd);
    wait_for(db, 0, 1, &err);
    CHECK_INT(err.status, VECDB_CORRUPT);
    CHECK_CONTAINS(err.message, part);
    vecdb_close(db);
}

TEST(a_flipped_bit_in_each_kind_of_file_is_found_and_named)
{
    make_database();
    const struct kept_file *vectors = kept_file(&files, "vectors-1-1");
    CHECK(vectors);
    check_found("vectors-1-1", 200, "page 0");
    check_found("vectors-1-1", 20, "header");
    check_found("vectors-1-1", vectors->n_bytes - 84, "footer"); /* there may be 32 zeros behind it */
    check_found("vectors-1-1", 64 + 128 + 150 * 60 + 9, "between the pages"); /* 24 zeros behind the first page */
    check_found("catalog.sqlite", 4096 * 2 + 500, "page 3");
    check_found("catalog.sqlite-wal", 32 + 24 + 300, "of");
    check_found("state", 300, "zero");
}

TEST(rounds_are_counted_and_a_whole_database_is_read_to_the_last_byte)
{
    make_database();
    restore_files(test_path("copy"), &files);
    uint64_t n_bytes = 0;
    for (size_t i = 0; i < files.n; i++)
        if (strcmp(files.files[i].name, "state") && strcmp(files.files[i].name, "catalog.sqlite-shm"))
            n_bytes += files.files[i].n_bytes;
    vecdb *db = open_scrubbed(test_path("copy"), VECDB_OPEN_EXISTING, 50000000, 1);
    wait_for(db, 2, 0, NULL);
    vecdb_stats stats = stats_of(db);
    CHECK(stats.scrub_rounds >= 2);
    CHECK_SIZE(stats.scrub_problems, 0u);
    CHECK_LE((double)n_bytes * 2 * 0.99, stats.scrubbed_bytes); /* headers of 64 bytes are not counted */
    CHECK_LE(stats.scrubbed_bytes, (double)n_bytes * (double)(stats.scrub_rounds + 1));
    vecdb_close(db);
}

TEST(a_slow_scrub_reads_one_slice_and_ends_at_once)
{
    make_database();
    restore_files(test_path("copy"), &files);
    test_time_limit(30); /* a slice of 256 KiB at a byte a second would take three days */
    vecdb *db = open_scrubbed(test_path("copy"), VECDB_OPEN_EXISTING, 1, 1);
    while (!stats_of(db).scrubbed_bytes)
        pause_ms(1);
    pause_ms(50);
    CHECK_LE(stats_of(db).scrubbed_bytes, 64 * 4096);
    CHECK_SIZE(stats_of(db).scrub_rounds, 0u);
    vecdb_close(db);
}

TEST(handles_without_threads_and_databases_in_memory_have_no_scrub)
{
    make_database();
    restore_files(test_path("copy"), &files);
    vecdb *db = open_scrubbed(test_path("copy"), VECDB_OPEN_EXISTING, 50000000, VECDB_THREADS_NONE);
    vecdb *memory = open_scrubbed(":memory:", VECDB_OPEN_CREATE, 50000000, 1);
    pause_ms(50);
    CHECK_SIZE(stats_of(db).scrubbed_bytes, 0u);
    CHECK_SIZE(stats_of(memory).scrubbed_bytes, 0u);
    vecdb_close(db);
    vecdb_close(memory);
}

/* ------------------------------------------------------------------ beside writers */

struct writer {
    vecdb *db;
    int64_t first;
    _Atomic bool *ends;
};

static void *write_on(void *context)
{
    struct writer *writer = context;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *collection = make_collection(writer->db);
    for (int round = 0; !*writer->ends; round++) {
        vecdb_key keys[40];
        int64_t first = writer->first + round % 7 * 100; /* mostly replacing, so that there is garbage */
        CHECK_OK(err, put_some(collection, first, 200, &err));
        for (int i = 0; i < 40; i++)
            keys[i] = vecdb_key_int(first + 3 * i);
        CHECK_OK(err, vecdb_delete(collection, keys, 40, NULL, &err));
        if (round % 8 == 7) {
            int status = vecdb_compact(writer->db, NULL, &err);
            CHECK(status == VECDB_OK || status == VECDB_BUSY);
        }
    }
    return NULL;
}

static void log_problem(void *context, int level, const char *message)
{
    (void)context;
    if (level == VECDB_LOG_ERROR)
        fprintf(stderr, "    %s\n", message);
}

TEST(it_is_silent_on_a_whole_database_while_others_write_pack_and_compact)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_options options = {.size = sizeof options, .threads = 2, .scrub_bytes_per_second = 200000000};
    options.log = log_problem;
    vecdb *db, *other;
    _Atomic bool ends = false;
    CHECK_OK(err, vecdb_open(test_path("busy"), &options, &db, &err));
    make_collection(db);
    options.scrub_bytes_per_second = 0;
    CHECK_OK(err, vecdb_open(test_path("busy"), &options, &other, &err));
    struct writer writers[2] = {{db, 0, &ends}, {other, 100000, &ends}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        CHECK(!pthread_create(&threads[i], NULL, write_on, &writers[i]));
    wait_for(db, test_rounds(3), 1, &err);
    ends = true;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    if (err.status)
        FAIL("%s", err.message);
    CHECK_SIZE(stats_of(db).scrub_problems, 0u);
    vecdb_close(other);
    vecdb_close(db);
}

/* ------------------------------------------------------------------ the arithmetic */

TEST(the_bucket_gives_out_its_rate_and_no_more)
{
    struct vdb_random random = {test_seed()};
    for (int trial = 0; trial < 200; trial++) {
        uint64_t rate = 1 + vdb_random_below(&random, trial % 2 ? 1000 : 2000000000);
        struct vdb_bucket bucket = {.bytes_per_second = rate};
        uint64_t begin = vdb_random_below(&random, 1u << 30), now = begin, n_bytes = 0, n_idle = 0;
        for (int i = 0; i < 300; i++) {
            uint64_t n = vdb_random_below(&random, 100000);
            uint64_t wait = vdb_bucket_take(&bucket, now, n);
            n_bytes += n;
            now += wait;
            if (vdb_random_below(&random, 4) == 0) { /* busy with something else: not to be made up for */
                uint64_t idle = vdb_random_below(&random, 1000000000);
                now += idle;
                n_idle += idle;
            }
        }
        double seconds = (double)(now - begin - n_idle) / 1e9;
        CHECK_LE((double)n_bytes / (double)rate - 1e-6, seconds);
        CHECK_LE(seconds, (double)n_bytes / (double)rate + 1e-6);
    }
    struct vdb_bucket slow = {.bytes_per_second = 1};
    CHECK(vdb_bucket_take(&slow, 0, UINT64_MAX) >= (uint64_t)1e18); /* no overflow */
}
