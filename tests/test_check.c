/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/test_check.c - what vecdb_check() says: where it is, what it means; and that it says nothing without need
 *
 *   1. A damaged page is told with its file, its collection and the keys of the records that it holds.
 *   2. Tables that make no sense, though every checksum is right, are told: each rule is broken once, by SQL, and
 *      its sentence looked for. So are vectors that may not be, in the tail and in pages.
 *   3. One damaged part hides no other: a missing file costs the answers about one field only.
 *   4. A page that a checkpoint left half-written is no damage, to a reader either.
 *   5. Nothing is told of a whole database while others write, pack, compact and check it.
 */
#include <errno.h>
#include <pthread.h>

#include "base/bytes.h"
#include "database.h"
#include "fault_tools.h"
#include "storage/extent_format.h"

#define MOST_TOLD 400

struct told {
    size_t n;
    struct one_told {
        char file[64], collection[64], message[1024];
        int kind;
    } all[MOST_TOLD];
};

static void note(void *context, const vecdb_problem *problem)
{
    struct told *told = context;
    if (told->n == MOST_TOLD)
        return;
    struct one_told *one = &told->all[told->n++];
    snprintf(one->file, sizeof one->file, "%s", problem->file);
    snprintf(one->collection, sizeof one->collection, "%s", problem->collection ? problem->collection : "");
    snprintf(one->message, sizeof one->message, "%s", problem->message);
    one->kind = problem->kind;
}

static struct told *check_it(vecdb *db)
{
    static struct told told;
    vecdb_error err = VECDB_ERROR_INIT;
    uint64_t n_problems = 0;
    told.n = 0;
    CHECK_OK(err, vecdb_check(db, NULL, note, &told, &n_problems, &err));
    CHECK_SIZE(n_problems, told.n);
    return &told;
}

/* One of the problems has these words. */
static const struct one_told *find(const struct told *told, const char *part)
{
    for (size_t i = 0; i < told->n; i++)
        if (strstr(told->all[i].message, part))
            return &told->all[i];
    for (size_t i = 0; i < told->n; i++)
        fprintf(stderr, "    told: %s: %s\n", told->all[i].file, told->all[i].message);
    FAIL("nothing is told of \"%s\"", part);
}

/* ------------------------------------------------------------------ the database */

/* "notes" has fields 1 (cosine, raw pages) and 2 (bits); records moon-0 .. moon-299 in pages, of which 0 .. 9 are
 * deleted; moon-300 .. moon-319 in the tail. "others" has field 3. */
#define DIMENSION 64u
#define BITS 13u

static struct kept_files files;

static void put_moons(vecdb_collection *collection, int first, int n)
{
    static float values[400][DIMENSION];
    static unsigned char bits[400][2];
    static char keys[400][16];
    static vecdb_record records[400];
    static vecdb_vector vectors[400][2];
    vecdb_error err = VECDB_ERROR_INIT;
    for (int i = 0; i < n; i++) {
        snprintf(keys[i], sizeof keys[i], "moon-%d", first + i);
        fill_vector(first + i + 1, 1, DIMENSION, values[i]);
        bits[i][0] = (unsigned char)i;
        vectors[i][0] = (vecdb_vector){.field = "v", .values = values[i]};
        vectors[i][1] = (vecdb_vector){.field = "b", .values = bits[i], .type = VECDB_BIT};
        records[i] = (vecdb_record){.key = vecdb_key_text(keys[i]), .vectors = vectors[i], .n_vectors = 2};
        records[i].metadata = "{\"is\": \"moon\"}";
        records[i].text = "a moon";
    }
    CHECK_OK(err, vecdb_put(collection, records, (size_t)n, &err));
}

static void make_database(void)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *notes, *others;
    vecdb_field fields[2] = {{.name = "v", .dimension = DIMENSION, .compression = VECDB_COMPRESSION_NONE},
                             {.name = "b", .dimension = BITS, .type = VECDB_BIT}};
    vecdb *db = open_database(test_path("original"), VECDB_OPEN_NEW, VECDB_THREADS_NONE);
    CHECK_OK(err, vecdb_collection_create(db, "notes", fields, 2, 0, &notes, &err));
    CHECK_OK(err, vecdb_collection_create(db, "others", fields, 1, 0, &others, &err));
    put_moons(notes, 0, 300);
    float vector[DIMENSION];
    fill_vector(1, 1, DIMENSION, vector);
    vecdb_record record = {.key = vecdb_key_int(1), .vector = vector};
    CHECK_OK(err, vecdb_put(others, &record, 1, &err));
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    for (int i = 0; i < 10; i++) {
        char text[32];
        snprintf(text, sizeof text, "moon-%d", i % 100);
        vecdb_key key = vecdb_key_text(text);
        CHECK_OK(err, vecdb_delete(notes, &key, 1, NULL, &err));
    }
    put_moons(notes, 300, 20);
    vecdb_close(db);
    keep_files(test_path("original"), &files);
}

static vecdb *open_copy(void)
{
    restore_files(test_path("copy"), &files);
    return open_database(test_path("copy"), VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
}

/* Let SQL do to the tables what the library would not. */
static void edit(vecdb *db, const char *sql)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_connection *c;
    uint64_t sequence;
    CHECK_OK(err, vdb_write_begin(db->catalog, &c, &sequence, &err));
    CHECK_OK(err, vdb_execute(c, sql, 0, &err));
    CHECK_OK(err, vdb_write_commit(c, &err));
}

static void change_byte(const char *name, uint64_t at)
{
    char path[512];
    unsigned char byte;
    snprintf(path, sizeof path, "%s/%s", test_path("copy"), name);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_INT(pread(fd, &byte, 1, (off_t)at), 1);
    byte ^= 4;
    CHECK_INT(pwrite(fd, &byte, 1, (off_t)at), 1);
    close(fd);
}

/* ------------------------------------------------------------------ what a problem means */

TEST(a_damaged_page_is_told_with_the_keys_of_its_records)
{
    make_database();
    vecdb *db = open_copy();
    check_database(db, "undamaged");
    change_byte("vectors-1-1", 64 + 128 + 40 * DIMENSION * 4); /* page 0: 255 rows of 256 bytes */
    const struct told *told = check_it(db);
    CHECK_SIZE(told->n, 1u);
    CHECK_STRING(told->all[0].file, "vectors-1-1");
    CHECK_STRING(told->all[0].collection, "notes");
    CHECK_INT(told->all[0].kind, VECDB_PROBLEM_DAMAGED);
    CHECK_CONTAINS(told->all[0].message, "page 0");
    CHECK_CONTAINS(told->all[0].message, "records of collection \"notes\" are affected, \"moon-10\" to \"moon-2");
    CHECK_CONTAINS(told->all[0].message, "vecdb-cli repair copy\"");
    vecdb_close(db);
}

TEST(a_missing_file_costs_the_answers_about_its_field_only)
{
    make_database();
    vecdb *db = open_copy();
    char path[512];
    snprintf(path, sizeof path, "%s/vectors-1-1", test_path("copy"));
    CHECK(!unlink(path));
    change_byte("vectors-2-1", 200);
    change_byte("vectors-3-1", 200);
    const struct told *told = check_it(db);
    CHECK_SIZE(told->n, 3u);
    CHECK_STRING(find(told, "is missing")->file, "vectors-1-1");
    CHECK_STRING(find(told, "collection \"others\" is affected, 1;")->collection, "others");
    CHECK_STRING(find(told, "\"moon-10\" to \"moon-299\"")->file, "vectors-2-1");
    vecdb_close(db);
}

TEST(a_damaged_page_of_the_catalog_hides_no_damaged_vectors)
{
    make_database();
    vecdb *db = open_copy();
    change_byte("vectors-3-1", 200);
    change_byte("catalog.sqlite", 20 * 4096 + 99);
    const struct told *told = check_it(db);
    CHECK_STRING(find(told, "page 21 is damaged")->file, "catalog.sqlite");
    find(told, "collection \"others\" is affected");
    vecdb_close(db);
}

/* ------------------------------------------------------------------ tables */

static const struct edit {
    const char *sql, *part;
} edits[] = {
    {"UPDATE changes_trimmed SET sequence = 1000000", "changes_trimmed"},
    {"INSERT INTO changes VALUES((9999 << 20), 1, 1, 0, 1, NULL)", "belongs to no commit"},
    {"UPDATE changes SET kind = 7", "has impossible values"},
    {"UPDATE changes SET dead = x'010203'", "has impossible values"},
    {"INSERT INTO snapshots VALUES(5, 'later', 100000, 0)", "snapshot 5 has impossible values"},
    {"UPDATE collections SET next_slot = 315 WHERE id = 1", "record of slot 319 has a slot that was never given out"},
    {"UPDATE collections SET next_slot = 100, n_records = 9 WHERE id = 1", "the next to be given out is 100"},
    {"UPDATE collections SET n_records = 7 WHERE id = 1", "it has 310 records, its count says 7"},
    {"UPDATE collections SET store = 77 WHERE id = 2", "its store 77 is not one of its own"},
    {"UPDATE collections SET has_documents = 0", "though the collection says that none has"},
    {"INSERT INTO stores(collection) VALUES(1)", "of store 3 is missing"},
    {"CREATE TABLE records_9(slot INTEGER PRIMARY KEY)", "the table records_9 belongs to no store"},
    {"CREATE TABLE tail_9(slot INTEGER PRIMARY KEY)", "the table tail_9 belongs to no field"},
    {"DROP INDEX keys_1", "the index keys_1 is missing"},
    {"DROP TABLE tail_2", "the table tail_2 of field \"b\" is missing"},
    {"UPDATE fields SET dimension = 0 WHERE id = 3", "the field \"v\" has impossible values"},
    {"UPDATE fields SET collection = 9 WHERE id = 3", "belongs to a collection that does not exist"},
    {"UPDATE records_1 SET key = 1.5 WHERE slot = 20", "has a key that is neither"},
    {"UPDATE records_1 SET key = CAST(x'ff61' AS TEXT) WHERE slot = 20", "has a key that is neither"},
    {"UPDATE records_1 SET key = '' WHERE slot = 20", "has a key of a length that cannot be"},
    {"UPDATE records_1 SET metadata = '[1, 2]' WHERE slot = 20", "has metadata that is not a JSON object"},
    {"UPDATE records_1 SET metadata = '{\"a\": ' WHERE slot = 20", "has metadata that is not a JSON object"},
    {"UPDATE records_1 SET text = x'00' WHERE slot = 20", "has a text that is not UTF-8"},
    {"DELETE FROM records_1 WHERE slot = 20", "1 vectors of page 0, from slot 20 on, belong to no record"},
    {"DELETE FROM records_1 WHERE slot = 305", "in the tail of field \"v\", from slot 305 on, belong to no record"},
    {"DELETE FROM dead", "10 vectors of page 0, from slot 0 on, belong to no record"},
    {"INSERT INTO records_1 VALUES(5, 'late', NULL, NULL)", "are also noted as deleted"},
    {"INSERT INTO dead VALUES(1, 5, x'01')", "dead slots were never given out"},
    {"INSERT INTO dead VALUES(44, 0, x'01')", "dead slots of store 44, which does not exist"},
    {"INSERT INTO dead VALUES(1, 1, x'0100')", "chunk 1 of the dead slots of store 1 has impossible values"},
    {"UPDATE tail_1 SET vector = x'00' WHERE slot = 305", "has 1 bytes, not 256"},
    {"UPDATE tail_1 SET vector = 'text' WHERE slot = 305", "row of slot 305 that cannot be"},
    {"INSERT INTO tail_1 SELECT -1, vector FROM tail_1 LIMIT 1", "row of slot -1 that cannot be"},
    {"INSERT INTO tail_1 SELECT 20, vector FROM tail_1 LIMIT 1", "of page 0, from slot 20 on, are stored twice"},
    {"UPDATE tail_1 SET vector = zeroblob(256) WHERE slot = 305", "the vector of slot 305 is not one that may be"},
    {"UPDATE tail_1 SET vector = CAST(x'0000c07f' || substr(vector, 5) AS BLOB) WHERE slot = 305", "slot 305 is not"},
    {"UPDATE tail_2 SET vector = x'01ff' WHERE slot = 305", "slot 305 is not one that may be stored"},
    {"UPDATE extents SET field = 9 WHERE field = 3", "belongs to a field that does not exist"},
    {"UPDATE extents SET n_rows = 1000 WHERE field = 1", "has impossible values"},
    {"UPDATE extents SET offset = 65 WHERE field = 1", "has impossible values"},
    {"UPDATE extents SET generation = 3 WHERE field = 1", "lies in a file that was never begun"},
    {"UPDATE extents SET check_sum = check_sum + 1 WHERE field = 1", "is intact but not the one that was committed"},
    {"INSERT INTO extents SELECT 99, field, generation, offset + 64, length, check_sum, n_rows, first_slot, last_slot,"
     " n_pages FROM extents WHERE field = 1", "overlaps with the one before it"},
    {"INSERT INTO extents SELECT 99, field, generation, offset + 64, length, check_sum, n_rows, first_slot, last_slot,"
     " n_pages FROM extents WHERE field = 1", "interleave with those of another"},
};

TEST(tables_that_make_no_sense_are_told)
{
    make_database();
    for (size_t i = 0; i < sizeof edits / sizeof edits[0]; i++) {
        vecdb *db = open_copy();
        edit(db, edits[i].sql);
        find(check_it(db), edits[i].part);
        vecdb_close(db);
    }
}

/* ------------------------------------------------------------------ pages */

TEST(vectors_in_pages_that_may_not_be_are_told)
{
    make_database();
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = open_copy();
    edit(db, "UPDATE tail_1 SET vector = CAST(x'0000c07f' || substr(vector, 5) AS BLOB) WHERE slot = 305");
    edit(db, "UPDATE tail_2 SET vector = x'01ff' WHERE slot = 306");
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    const struct told *told = check_it(db);
    CHECK_STRING(find(told, "1 vectors that may not be: the vector of slot 305")->file, "vectors-1-1");
    CHECK_STRING(find(told, "1 vectors that may not be: the vector of slot 306")->file, "vectors-2-1");
    vecdb_close(db);
}

TEST(a_page_that_says_less_than_the_length_of_its_vectors_is_told)
{
    make_database();
    vecdb *db = open_copy();
    struct kept_file file;
    char path[512], sql[200];
    snprintf(path, sizeof path, "%s/vectors-3-1", test_path("copy"));
    read_file(path, &file);
    unsigned char *page = file.bytes + 64, *trailer = memmem(file.bytes, file.n_bytes, FOOTER_MAGIC, 4);
    CHECK(trailer);
    unsigned char *entry = trailer - ENTRY_BYTES; /* of the only page */
    memset(page + 40, 0, 4);
    vdb_store_u64(page, vdb_check_sum(page + 8, vdb_load_u32(entry + 16) - 8));
    memcpy(entry + 8, page, 8);
    vdb_store_u64(trailer + 56, vdb_check_sum(entry, ENTRY_BYTES + TRAILER_BYTES - 8));
    snprintf(sql, sizeof sql, "UPDATE extents SET check_sum = %lld WHERE field = 3",
             (long long)vdb_load_u64(trailer + 56));
    edit(db, sql);
    write_file(path, file.bytes, file.n_bytes);
    vdb_free(tool_memory(), file.bytes);
    find(check_it(db), "no vector is longer than 0, but 1 are");
    vecdb_close(db);
}

/* ------------------------------------------------------------------ a checkpoint that was cut off */

struct cut_checkpoint {
    int n_left; /* pages that are written before the disk fails; below 0: it does not */
};

static int fail_pages(void *context, enum vdb_io_op op, const char *path)
{
    struct cut_checkpoint *cut = context;
    size_t n = strlen(path);
    bool is_main = n > 14 && !strcmp(path + n - 14, "catalog.sqlite");
    if (op != VDB_IO_WRITE || !is_main || cut->n_left < 0)
        return 0;
    return cut->n_left-- ? 0 : (cut->n_left = 0, EIO);
}

TEST(a_page_that_a_checkpoint_left_half_written_is_no_damage)
{
    make_database();
    for (int n_pages = 0; n_pages < 12; n_pages++) {
        vecdb_error err = VECDB_ERROR_INIT;
        struct cut_checkpoint cut = {-1};
        struct vdb_io_hook hook = {fail_pages, &cut};
        vecdb_options options = {.size = sizeof options, .threads = VECDB_THREADS_NONE};
        struct kept_files torn;
        vecdb *db;
        vecdb_collection *notes;
        restore_files(test_path("copy"), &files);
        CHECK_OK(err, vdb_database_open(test_path("copy"), &options, &hook, &db, &err));
        CHECK_OK(err, vecdb_collection_open(db, "notes", &notes, &err));
        put_moons(notes, 50, 200);
        cut.n_left = n_pages;
        CHECK(vdb_catalog_checkpoint(db->catalog, false, &err) != VECDB_OK);
        keep_files(test_path("copy"), &torn);
        cut.n_left = -1;
        vecdb_close(db);
        for (int mode = 0; mode < 2; mode++) {
            restore_files(test_path("torn"), &torn);
            db = open_database(test_path("torn"), mode ? VECDB_OPEN_EXISTING : VECDB_OPEN_READONLY,
                               VECDB_THREADS_NONE);
            check_database(db, mode ? "for writing" : "for reading");
            vecdb_close(db);
        }
        for (size_t i = 0; i < torn.n; i++)
            vdb_free(tool_memory(), torn.files[i].bytes);
    }
}

/* ------------------------------------------------------------------ beside others */

struct worker {
    vecdb *db;
    int first;
    _Atomic bool *ends;
};

static void *write_on(void *context)
{
    struct worker *worker = context;
    vecdb_error err = VECDB_ERROR_INIT;
    for (int round = 0; !*worker->ends; round++) {
        float values[64][DIMENSION];
        vecdb_record records[64];
        vecdb_collection *notes;
        CHECK_OK(err, vecdb_collection_open(worker->db, "notes", &notes, &err));
        for (int i = 0; i < 64; i++) {
            fill_vector(i + 1, (uint32_t)round, DIMENSION, values[i]);
            records[i] = (vecdb_record){.key = vecdb_key_int(worker->first + round % 5 * 40 + i), .vector = values[i]};
        }
        CHECK_OK(err, vecdb_put(notes, records, 64, &err));
        vecdb_key gone[2] = {vecdb_key_int(worker->first + round % 200), vecdb_key_text("moon-77")};
        CHECK_OK(err, vecdb_delete(notes, gone, 2, NULL, &err));
        int status = round % 6 == 5 ? vecdb_compact(worker->db, NULL, &err) : VECDB_OK;
        CHECK(status == VECDB_OK || status == VECDB_BUSY);
    }
    return NULL;
}

TEST(nothing_is_told_of_a_whole_database_while_others_write_and_compact)
{
    make_database();
    restore_files(test_path("copy"), &files);
    vecdb *dbs[3];
    _Atomic bool ends = false;
    for (int i = 0; i < 3; i++)
        dbs[i] = open_database(test_path("copy"), i == 2 ? VECDB_OPEN_READONLY : VECDB_OPEN_EXISTING, 2);
    struct worker workers[2] = {{dbs[0], 1000, &ends}, {dbs[1], 2000, &ends}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        CHECK(!pthread_create(&threads[i], NULL, write_on, &workers[i]));
    size_t n_problems = 0;
    for (unsigned long round = 0; round < test_rounds(60); round++)
        n_problems += check_it(dbs[round % 3])->n;
    ends = true;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    if (n_problems) {
        const struct told *told = check_it(dbs[0]);
        FAIL("%zu problems; now there are %zu: %s", n_problems, told->n, told->n ? told->all[0].message : "");
    }
    for (int i = 0; i < 3; i++)
        vecdb_close(dbs[i]);
}

struct walk {
    uint64_t n_calls, last_done, last_total, stop_at;
};

static int on_progress(void *context, const vecdb_progress *progress)
{
    struct walk *walk = context;
    CHECK_STRING(progress->phase, "check");
    CHECK(progress->done >= walk->last_done && progress->done <= progress->total);
    walk->last_done = progress->done;
    walk->last_total = progress->total;
    return ++walk->n_calls == walk->stop_at;
}

TEST(a_check_tells_how_far_it_is_and_can_be_stopped)
{
    make_database();
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = open_copy();
    struct walk walk = {0};
    vecdb_work work = {.size = sizeof work, .progress = on_progress, .progress_context = &walk};
    CHECK_OK(err, vecdb_check(db, &work, NULL, NULL, NULL, &err));
    CHECK(walk.n_calls > 5 && walk.last_done > 300 * DIMENSION * 4);
    uint64_t n_calls = walk.n_calls;
    for (uint64_t at = 1; at <= n_calls; at++) {
        walk = (struct walk){.stop_at = at};
        CHECK_FAILS(err, VECDB_INTERRUPTED, "interrupted", vecdb_check(db, &work, NULL, NULL, NULL, &err));
    }
    vecdb_close(db);
}
