/* SPDX-License-Identifier: Apache-2.0
 *
 * Places, files, names and fields that cannot be are refused with the right status and one sentence that
 * says what is wrong, and leave the database as it was. Every input is tried by itself.
 * (Records and queries: test_input_records.c.)
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "input_help.h"

/* ------------------------------------------------------------------ files */

static void write_file(const char *path, const void *bytes, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    CHECK(fd >= 0);
    CHECK(write(fd, bytes, n) == (ssize_t)n);
    close(fd);
}

static void *read_file(const char *path, size_t *n)
{
    struct stat status;
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0 && !fstat(fd, &status));
    *n = (size_t)status.st_size;
    void *bytes = malloc(*n + 1);
    CHECK(bytes && read(fd, bytes, *n) == (ssize_t)*n);
    close(fd);
    return bytes;
}

static void write_noise(const char *path, size_t n)
{
    unsigned char *bytes = malloc(n + 1);
    uint64_t state = test_seed() | 1;
    CHECK(bytes);
    for (size_t i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        bytes[i] = (unsigned char)(state >> 56);
    }
    write_file(path, bytes, n);
    free(bytes);
}

/* ------------------------------------------------------------------ opening */

TEST(options_that_make_no_sense_are_refused)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = NULL;
    const char *path = test_path("db");
    NOT_OPENED(VECDB_INVALID, "path", vecdb_open(NULL, NULL, &db, &err));
    NOT_OPENED(VECDB_INVALID, "path", vecdb_open("", NULL, &db, &err));
    NOT_OPENED(VECDB_INVALID, "handle", vecdb_open(path, NULL, NULL, &err));
    static const size_t sizes[] = {0, 4, 8, 5000, (size_t)-1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        vecdb_options options = {.size = sizes[i]};
        NOT_OPENED(VECDB_MISUSE, "vecdb_options.size", vecdb_open(path, &options, &db, &err));
    }
#define BAD_OPTION(part, ...)                                                                                          \
    do {                                                                                                               \
        vecdb_options options = {.size = sizeof options, __VA_ARGS__};                                                 \
        NOT_OPENED(VECDB_INVALID, part, vecdb_open(path, &options, &db, &err));                                        \
    } while (0)
    BAD_OPTION("mode", .mode = -1);
    BAD_OPTION("mode", .mode = 4);
    BAD_OPTION("durability", .durability = 2);
    BAD_OPTION("durability", .durability = -1);
    BAD_OPTION("io", .io = 2);
    BAD_OPTION("threads", .threads = -2);
    BAD_OPTION("threads", .threads = 1025);
    BAD_OPTION("busy_timeout_ms", .busy_timeout_ms = -2);
    BAD_OPTION("allocator", .allocator = {.release = (void (*)(void *, void *))(void *)free});
    CHECK(access(path, F_OK)); /* nothing was made */
}

TEST(places_that_cannot_be_a_database_are_refused)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = NULL;
    char path[512];
    write_file(test_path("file"), "hello", 5);
    NOT_OPENED(VECDB_INVALID, "is a file", vecdb_open(test_path("file"), NULL, &db, &err));
    NOT_OPENED(VECDB_INVALID, "is a file", vecdb_open("/dev/null", NULL, &db, &err));
    snprintf(path, sizeof path, "%s/below", test_path("file"));
    CHECK(vecdb_open(path, NULL, &db, &err) && !db);
    snprintf(path, sizeof path, "%s/much/too/deep", test_directory());
    NOT_OPENED(VECDB_NOT_FOUND, "deep", vecdb_open(path, NULL, &db, &err));
    CHECK(!mkdir(test_path("foreign"), 0777));
    snprintf(path, sizeof path, "%s/letter.txt", test_path("foreign"));
    write_file(path, "dear", 4);
    for (int mode = 0; mode <= 3; mode++) {
        vecdb_options options = {.size = sizeof options, .mode = mode};
        NOT_OPENED(VECDB_INVALID, "other files", vecdb_open(test_path("foreign"), &options, &db, &err));
    }
    char name[5000];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    CHECK(vecdb_open(name, NULL, &db, &err) && !db);
}

TEST(modes_that_the_place_does_not_fit_are_refused)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = NULL;
    vecdb_options existing = {.size = sizeof existing, .mode = VECDB_OPEN_EXISTING};
    vecdb_options readonly = {.size = sizeof readonly, .mode = VECDB_OPEN_READONLY};
    vecdb_options new = {.size = sizeof new, .mode = VECDB_OPEN_NEW};
    NOT_OPENED(VECDB_NOT_FOUND, "no vecdb database", vecdb_open(test_path("db"), &existing, &db, &err));
    NOT_OPENED(VECDB_NOT_FOUND, "no vecdb database", vecdb_open(test_path("db"), &readonly, &db, &err));
    NOT_OPENED(VECDB_NOT_FOUND, "memory", vecdb_open(":memory:", &existing, &db, &err));
    NOT_OPENED(VECDB_NOT_FOUND, "memory", vecdb_open(":memory:", &readonly, &db, &err));
    CHECK(access(test_path("db"), F_OK));
    struct fixture fixture = open_fixture(test_path("db"));
    NOT_OPENED(VECDB_EXISTS, "already", vecdb_open(test_path("db"), &new, &db, &err));
    CHECK(digest_of(&fixture) == fixture.digest);
    vecdb_close(fixture.db);
    NOT_OPENED(VECDB_EXISTS, "already", vecdb_open(test_path("db"), &new, &db, &err));
}

/* Nobody's rights: root may do everything. */
static void become_nobody(void)
{
    if (geteuid() == 0)
        CHECK(!setresgid(65534, 65534, 65534) && !setresuid(65534, 65534, 65534));
}

TEST(places_without_permission_are_refused)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = NULL;
    char path[512];
    struct fixture fixture = open_fixture(test_path("closed"));
    vecdb_close(fixture.db);
    fixture = open_fixture(test_path("readable"));
    vecdb_close(fixture.db);
    CHECK(!mkdir(test_path("unwritable"), 0555) && !chmod(test_path("unwritable"), 0555));
    CHECK(!chmod(test_path("closed"), 0) && !chmod(test_path("readable"), 0555));
    CHECK(!chmod(test_directory(), 0755));
    static const char *const files[] = {"catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm", "state"};
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", test_path("readable"), files[i]);
        CHECK(!chmod(path, 0444));
    }
    become_nobody();
    snprintf(path, sizeof path, "%s/db", test_path("unwritable"));
    NOT_OPENED(VECDB_DENIED, "db", vecdb_open(path, NULL, &db, &err));
    NOT_OPENED(VECDB_DENIED, "unwritable", vecdb_open(test_path("unwritable"), NULL, &db, &err));
    NOT_OPENED(VECDB_DENIED, "closed", vecdb_open(test_path("closed"), NULL, &db, &err));
    vecdb_options readonly = {.size = sizeof readonly, .mode = VECDB_OPEN_READONLY};
    vecdb_collection *things;
    vecdb_record record = {.key = VECDB_KEY_INT(9), .vector = one};
    CHECK_OK(err, vecdb_open(test_path("readable"), &readonly, &db, &err));
    CHECK_OK(err, vecdb_collection_open(db, "things", &things, &err));
    CHECK_FAILS(err, VECDB_READONLY, "read-only", vecdb_put(things, &record, 1, &err));
    vecdb_close(db);
    db = NULL;
    int status = vecdb_open(test_path("readable"), NULL, &db, &err); /* either is fine: to refuse at once, or later */
    if (!status) {
        CHECK_OK(err, vecdb_collection_open(db, "things", &things, &err));
        status = vecdb_put(things, &record, 1, &err);
        vecdb_close(db);
    }
    CHECK(status == VECDB_READONLY || status == VECDB_DENIED);
}

/* ------------------------------------------------------------------ damaged and foreign files */

/* Whatever lies in place of a file: opening, reading and checking end, with an error that names it or an
 * answer that is right. Returns the first error, or VECDB_OK. */
static int try_everything(const char *path, vecdb_error *err)
{
    vecdb *db;
    vecdb_collection *things;
    vecdb_results *results;
    vecdb_key key = vecdb_key_int(1);
    vecdb_options options = {.size = sizeof options, .mode = VECDB_OPEN_EXISTING};
    vecdb_query query = {.size = sizeof query, .vector = one, .k = 10};
    memset(err, 0, sizeof *err);
    int status = vecdb_open(path, &options, &db, err);
    if (status)
        return status;
    status = vecdb_collection_open(db, "things", &things, err);
    if (!status && !(status = vecdb_get(things, &key, 1, VECDB_VECTORS, &results, err))) {
        CHECK(vecdb_result_found(results, 0));
        CHECK(!memcmp(vecdb_result_vector(results, 0, NULL, NULL, NULL), one, sizeof one));
        vecdb_results_free(results);
    }
    if (!status && !(status = vecdb_search(things, &query, &results, err))) {
        CHECK_SIZE(vecdb_results_count(results), 3);
        vecdb_results_free(results);
    }
    vecdb_close(db);
    return status;
}

static void expect_damage(const char *path, const char *name)
{
    vecdb_error err = VECDB_ERROR_INIT;
    int status = try_everything(path, &err);
    if (status != VECDB_CORRUPT && status != VECDB_NOT_FOUND && status != VECDB_IO)
        FAIL("%s: %s: %s", name, vecdb_status_name(status), err.message);
    if (status != VECDB_NOT_FOUND) /* an empty catalog is no database */
        CHECK_CONTAINS(err.message, name);
    CHECK(!strchr(err.message, '\n'));
}

/* Put bad things in place of a file of a database, one after the other, and the file back in the end. */
static void replace_file(const char *database, const char *name, const char *other)
{
    char path[512];
    vecdb_error err = VECDB_ERROR_INIT;
    size_t n, n_other;
    snprintf(path, sizeof path, "%s/%s", database, name);
    void *bytes = read_file(path, &n);
    static const size_t lengths[] = {0, 1, 15, 16, 64, 100, 511, 4095, 4096, 4097};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        if (lengths[i] < n) {
            write_file(path, bytes, lengths[i]);
            expect_damage(database, name);
        }
        if (lengths[i]) {
            write_noise(path, lengths[i]);
            expect_damage(database, name);
        }
    }
    if (n > 100) {
        write_file(path, bytes, n / 2);
        expect_damage(database, name);
        write_file(path, bytes, n - 100); /* behind the last extent there may be padding */
        expect_damage(database, name);
    }
    if (other) {
        void *foreign = read_file(other, &n_other);
        write_file(path, foreign, n_other);
        free(foreign);
        expect_damage(database, name);
    }
    CHECK(!unlink(path) && !mkdir(path, 0777));
    CHECK(try_everything(database, &err) && err.message[0]);
    CHECK(!rmdir(path));
    write_file(path, bytes, n);
    free(bytes);
    CHECK_OK(err, try_everything(database, &err));
}

static void make_compacted(const char *path)
{
    struct fixture fixture = open_fixture(path);
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, vecdb_compact(fixture.db, NULL, &err));
    vecdb_close(fixture.db);
}

TEST(a_catalog_that_is_empty_truncated_foreign_or_noise_is_refused)
{
    char foreign[512], path[512];
    make_compacted(test_path("db"));
    make_compacted(test_path("other"));
    snprintf(foreign, sizeof foreign, "%s/foreign.sqlite", test_directory());
    /* What another program's SQLite file begins with: page size 4096, rollback journal, no reserved bytes. */
    unsigned char page[8192] = "SQLite format 3\0\x10\x00\x01\x01\x00\x40\x20\x20";
    page[31] = 2;
    page[47] = 4;
    page[59] = 1;
    page[100] = 13;
    page[105] = 0x10;
    page[4096] = 13;
    page[4101] = 0x10;
    write_file(foreign, page, sizeof page);
    replace_file(test_path("db"), "catalog.sqlite", foreign);
    /* A catalog of another database beside our state. */
    size_t n, n_other;
    vecdb_error err = VECDB_ERROR_INIT;
    snprintf(path, sizeof path, "%s/catalog.sqlite", test_path("db"));
    snprintf(foreign, sizeof foreign, "%s/catalog.sqlite", test_path("other"));
    void *bytes = read_file(path, &n), *other = read_file(foreign, &n_other);
    write_file(path, other, n_other);
    CHECK_INT(try_everything(test_path("db"), &err), VECDB_CORRUPT);
    CHECK_CONTAINS(err.message, "state");
    write_file(path, bytes, n);
    CHECK_OK(err, try_everything(test_path("db"), &err));
    free(bytes);
    free(other);
}

TEST(a_database_that_a_later_version_encrypted_is_named_so)
{
    vecdb_error err = VECDB_ERROR_INIT;
    char path[512];
    size_t n;
    make_compacted(test_path("db"));
    snprintf(path, sizeof path, "%s/catalog.sqlite", test_path("db"));
    unsigned char *bytes = read_file(path, &n);
    memcpy(bytes, "vecdb encrypted", 16);
    write_file(path, bytes, n);
    CHECK_INT(try_everything(test_path("db"), &err), VECDB_NEWER);
    CHECK_CONTAINS(err.message, "encrypted");
    free(bytes);
}

TEST(a_catalog_that_is_missing_is_not_made_anew)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = NULL;
    char path[512];
    make_compacted(test_path("db"));
    snprintf(path, sizeof path, "%s/catalog.sqlite", test_path("db"));
    CHECK(!unlink(path));
    NOT_OPENED(VECDB_CORRUPT, "catalog.sqlite", vecdb_open(test_path("db"), NULL, &db, &err));
    CHECK_CONTAINS(err.message, "backup");
    vecdb_options existing = {.size = sizeof existing, .mode = VECDB_OPEN_EXISTING};
    NOT_OPENED(VECDB_NOT_FOUND, "there is no", vecdb_open(test_path("db"), &existing, &db, &err));
}

TEST(a_state_that_is_truncated_foreign_or_noise_is_refused_and_a_missing_one_is_made_anew)
{
    char foreign[512], path[512];
    vecdb_error err = VECDB_ERROR_INIT;
    make_compacted(test_path("db"));
    make_compacted(test_path("other"));
    snprintf(path, sizeof path, "%s/state", test_path("db"));
    snprintf(foreign, sizeof foreign, "%s/state", test_path("other"));
    size_t n, n_other;
    void *bytes = read_file(path, &n), *other = read_file(foreign, &n_other);
    write_file(path, other, n_other);
    expect_damage(test_path("db"), "state");
    for (size_t i = 1; i < 5000; i = i * 3 + 1) {
        write_noise(path, i);
        expect_damage(test_path("db"), "state");
        if (i < n) {
            write_file(path, bytes, i);
            expect_damage(test_path("db"), "state");
        }
    }
    CHECK(!unlink(path));
    CHECK_OK(err, try_everything(test_path("db"), &err));
    free(bytes);
    free(other);
}

/* The name of the first vector file. */
static void find_vectors(const char *database, char name[64])
{
    char path[512];
    for (unsigned generation = 1; generation < 50; generation++) {
        snprintf(name, 64, "vectors-1-%u", generation);
        snprintf(path, sizeof path, "%s/%s", database, name);
        if (!access(path, F_OK))
            return;
    }
    FAIL("there is no vector file in %s", database);
}

TEST(a_vector_file_that_is_removed_truncated_swapped_or_noise_is_an_error_that_names_it)
{
    char name[64], path[512], other[512];
    vecdb_error err = VECDB_ERROR_INIT;
    make_compacted(test_path("db"));
    make_compacted(test_path("other"));
    find_vectors(test_path("other"), name);
    snprintf(other, sizeof other, "%s/%s", test_path("other"), name);
    find_vectors(test_path("db"), name);
    replace_file(test_path("db"), name, other);
    snprintf(path, sizeof path, "%s/%s", test_path("db"), name);
    CHECK(!rename(path, test_path("kept")));
    expect_damage(test_path("db"), name);
    vecdb *db;
    uint64_t n_problems = 0;
    CHECK_OK(err, vecdb_open(test_path("db"), NULL, &db, &err));
    CHECK_OK(err, vecdb_check(db, NULL, NULL, NULL, &n_problems, &err));
    CHECK(n_problems > 0);
    vecdb_close(db);
    CHECK(!rename(test_path("kept"), path));
    CHECK_OK(err, try_everything(test_path("db"), &err));
}

/* ------------------------------------------------------------------ names, fields, collections */

TEST(names_that_are_empty_long_or_unprintable_are_refused)
{
    struct fixture fixture = open_fixture(test_path("db"));
    vecdb_error err = VECDB_ERROR_INIT;
    char *long_name = repeated('n', VECDB_MAX_NAME + 1);
    const struct {
        const char *name, *part;
    } bad[] = {{NULL, "needs a name"},       {"", "needs a name"},      {long_name, "255"},
               {"a\nb", "control"},          {"\x01", "control"},       {"a\x7f", "control"},
               {"\xff", "UTF-8"},            {"\xc3", "UTF-8"},         {"\xed\xa0\x80", "UTF-8"},
               {"\xf4\x90\x80\x80", "UTF-8"}, {"\xc0\xaf", "UTF-8"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        vecdb_field field = {.name = bad[i].name, .dimension = 4};
        const char *name = bad[i].name, *part = bad[i].part;
        vecdb_collection *made = NULL;
        REFUSED(fixture, VECDB_INVALID, part, vecdb_collection_create(fixture.db, name, NULL, 0, 0, &made, &err));
        REFUSED(fixture, VECDB_INVALID, part, vecdb_collection_create(fixture.db, "new", &field, 1, 0, &made, &err));
        REFUSED(fixture, VECDB_INVALID, part, vecdb_collection_open(fixture.db, name, &made, &err));
        REFUSED(fixture, VECDB_INVALID, part, vecdb_collection_drop(fixture.db, name, &err));
        REFUSED(fixture, VECDB_INVALID, part, vecdb_collection_rename(fixture.db, "things", name, &err));
        REFUSED(fixture, VECDB_INVALID, part, vecdb_collection_rename(fixture.db, name, "new", &err));
        REFUSED(fixture, VECDB_INVALID, part, vecdb_field_add(fixture.things, &field, &err));
        REFUSED(fixture, VECDB_INVALID, part, vecdb_field_drop(fixture.things, name, &err));
        REFUSED(fixture, VECDB_INVALID, part, vecdb_field_rename(fixture.things, "f32", name, &err));
        REFUSED(fixture, VECDB_INVALID, part, vecdb_field_rename(fixture.things, name, "new", &err));
        CHECK(!made);
    }
    free(long_name);
    vecdb_close(fixture.db);
}

TEST(names_with_slashes_quotes_and_255_bytes_are_names_like_any_other)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db;
    char *longest = repeated('n', VECDB_MAX_NAME);
    const char *const names[] = {"../../etc/passwd", "/", ".", "a'b\"c", "x; DROP TABLE records_1", "%s%n", " ",
                                 "\xf0\x9f\x98\x80", "catalog.sqlite", longest};
    CHECK_OK(err, vecdb_open(test_path("db"), NULL, &db, &err));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        vecdb_collection *collection;
        vecdb_field field = {.name = names[i], .dimension = 4};
        vecdb_vector vector = {.field = names[i], .values = one};
        vecdb_record record = {.key = VECDB_KEY_TEXT(names[i]), .vectors = &vector, .n_vectors = 1};
        vecdb_query query = {.size = sizeof query, .field = names[i], .vector = one, .k = 5};
        vecdb_results *results;
        CHECK_OK(err, vecdb_collection_create(db, names[i], &field, 1, 0, &collection, &err));
        CHECK_OK(err, vecdb_put(collection, &record, 1, &err));
        CHECK_OK(err, vecdb_search(collection, &query, &results, &err));
        CHECK_SIZE(vecdb_results_count(results), 1);
        CHECK_STRING(vecdb_result_key_text(results, 0), names[i]);
        vecdb_results_free(results);
    }
    free(longest);
    vecdb_close(db);
}

TEST(fields_that_cannot_be_are_refused)
{
    struct fixture fixture = open_fixture(test_path("db"));
    vecdb_error err = VECDB_ERROR_INIT;
    const struct {
        vecdb_field field;
        const char *part;
    } bad[] = {{{.name = "n", .dimension = 0}, "dimension is 0"},
               {{.name = "n", .dimension = 65537}, "dimension is 65537"},
               {{.name = "n", .dimension = UINT32_MAX}, "dimension"},
               {{.name = "n", .dimension = 4, .type = 7}, "element type 7"},
               {{.name = "n", .dimension = 4, .type = -1}, "element type -1"},
               {{.name = "n", .dimension = 4, .metric = 5}, "metric 5"},
               {{.name = "n", .dimension = 4, .metric = -1}, "metric -1"},
               {{.name = "n", .dimension = 4, .metric = VECDB_HAMMING}, "hamming"},
               {{.name = "n", .dimension = 4, .type = VECDB_U8, .metric = VECDB_HAMMING}, "hamming"},
               {{.name = "n", .dimension = 4, .type = VECDB_BIT, .metric = VECDB_L2}, "bit"},
               {{.name = "n", .dimension = 4, .type = VECDB_BIT, .metric = VECDB_COSINE}, "bit"},
               {{.name = "n", .dimension = 4, .index = 3}, "index kind 3"},
               {{.name = "n", .dimension = 4, .index = -1}, "index kind -1"},
               {{.name = "n", .dimension = 4, .compression = 3}, "compression 3"},
               {{.name = "n", .dimension = 4, .compression = -1}, "compression -1"},
               {{.name = "n", .dimension = 4, .reserved = {0, 0, 0, 1}}, "reserved"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        REFUSED(fixture, VECDB_INVALID, bad[i].part,
                vecdb_collection_create(fixture.db, "new", &bad[i].field, 1, 0, NULL, &err));
        REFUSED(fixture, VECDB_INVALID, bad[i].part, vecdb_field_add(fixture.things, &bad[i].field, &err));
    }
    vecdb_field twins[2] = {{.name = "n", .dimension = 4}, {.name = "n", .dimension = 5}};
    REFUSED(fixture, VECDB_INVALID, "\"n\"", vecdb_collection_create(fixture.db, "new", twins, 2, 0, NULL, &err));
    vecdb_field largest = {.name = "largest", .dimension = VECDB_MAX_DIMENSION};
    CHECK_OK(err, vecdb_field_add(fixture.things, &largest, &err));
    vecdb_close(fixture.db);
}

TEST(collections_and_fields_that_are_not_there_or_are_there_already_are_refused)
{
    struct fixture fixture = open_fixture(test_path("db"));
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = fixture.db;
    size_t n = sizeof fields / sizeof *fields;
    vecdb_field other[6];
    memcpy(other, fields, sizeof other);
    REFUSED(fixture, VECDB_EXISTS, "things", vecdb_collection_create(db, "things", fields, n, 0, NULL, &err));
    REFUSED(fixture, VECDB_INVALID, "further", vecdb_collection_create(db, "things", fields, n - 1, 1, NULL, &err));
    REFUSED(fixture, VECDB_INVALID, "further", vecdb_collection_create(db, "things", NULL, 0, 1, NULL, &err));
    other[1].dimension = 3;
    REFUSED(fixture, VECDB_INVALID, "dimension 2, not 3",
            vecdb_collection_create(db, "things", other, n, 1, NULL, &err));
    other[1] = fields[1];
    other[1].metric = VECDB_L2;
    REFUSED(fixture, VECDB_INVALID, "f16", vecdb_collection_create(db, "things", other, n, 1, NULL, &err));
    other[1] = fields[1];
    other[1].name = "other";
    REFUSED(fixture, VECDB_INVALID, "other", vecdb_collection_create(db, "things", other, n, 1, NULL, &err));
    REFUSED(fixture, VECDB_INVALID, "mode", vecdb_collection_create(db, "new", fields, n, 2, NULL, &err));
    REFUSED(fixture, VECDB_INVALID, "mode", vecdb_collection_create(db, "new", fields, n, -1, NULL, &err));
    REFUSED(fixture, VECDB_INVALID, "NULL", vecdb_collection_create(db, "new", NULL, 1, 0, NULL, &err));
    vecdb_collection *opened = NULL;
    REFUSED(fixture, VECDB_NOT_FOUND, "\"new\"", vecdb_collection_open(db, "new", &opened, &err));
    REFUSED(fixture, VECDB_NOT_FOUND, "\"new\"", vecdb_collection_drop(db, "new", &err));
    REFUSED(fixture, VECDB_NOT_FOUND, "\"new\"", vecdb_collection_rename(db, "new", "newer", &err));
    REFUSED(fixture, VECDB_EXISTS, "\"f16\"", vecdb_field_add(fixture.things, &fields[1], &err));
    REFUSED(fixture, VECDB_INVALID, "NULL", vecdb_field_add(fixture.things, NULL, &err));
    REFUSED(fixture, VECDB_NOT_FOUND, "\"no\"", vecdb_field_drop(fixture.things, "no", &err));
    REFUSED(fixture, VECDB_NOT_FOUND, "\"no\"", vecdb_field_rename(fixture.things, "no", "yes", &err));
    REFUSED(fixture, VECDB_EXISTS, "\"f16\"", vecdb_field_rename(fixture.things, "f32", "f16", &err));
    CHECK(!opened);
    CHECK_OK(err, vecdb_collection_create(db, "more", NULL, 0, 0, NULL, &err));
    CHECK_FAILS(err, VECDB_EXISTS, "more", vecdb_collection_rename(db, "things", "more", &err));
    vecdb_close(db);
}
