/* SPDX-License-Identifier: Apache-2.0
 *
 * A database that an earlier build wrote, on any processor, answers as it did then, to the bit: opened read-only and
 * for writing, with a WAL that a kill left behind, before and after it was written to, compacted and checked.
 *
 * The databases are tests/golden/v<version>/ (see golden.h), of the format's present version and of all before it,
 * or those in directory VECDB_GOLDEN.
 *
 * A database of version 0, which was a preview's, is refused in a sentence that says so, and is not touched. A version
 * that became 0 by damage is damage, and a repair loses nothing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/bytes.h"
#include "fault_tools.h"
#include "golden.h"
#include "harness.h"
#include "storage/connection.h"

#define AT_STATE_VERSION 8
#define AT_CATALOG_VERSION 63 /* the low byte of user_version, which is big-endian */

static vecdb_error err;

struct answers {
    char *bytes;
    size_t n;
};

static struct answers load(const char *path)
{
    FILE *file = fopen(path, "rb");
    CHECK(file && !fseek(file, 0, SEEK_END));
    long size = ftell(file);
    rewind(file);
    struct vdb_memory memory;
    vdb_memory_init(&memory, NULL);
    struct answers answers = {vdb_alloc(&memory, (size_t)size + 1), (size_t)size};
    CHECK(answers.bytes && fread(answers.bytes, 1, answers.n, file) == answers.n);
    answers.bytes[answers.n] = 0;
    fclose(file);
    return answers;
}

/* The first line that differs is shown. */
static void compare(const struct golden_text *now, const struct answers *then, const char *name, const char *when)
{
    size_t line = 0, from = 0;
    for (size_t i = 0; i <= then->n && i <= now->n; i++) {
        if (now->bytes[i] != then->bytes[i])
            FAIL("%s %s: line %zu is\n%.*s\nand was\n%.*s", name, when, line + 1, 600, now->bytes + from, 600,
                 then->bytes + from);
        if (now->bytes[i] == '\n') {
            line++;
            from = i + 1;
        }
    }
    CHECK_SIZE(now->n, then->n);
}

static void expect(const char *database, int mode, const struct answers *then, const char *name, const char *when)
{
    static struct golden_text text; /* reused, and known to the leak checker */
    text.n = 0;
    CHECK_OK(err, golden_answers(database, mode, &text, &err));
    compare(&text, then, name, when);
}

static void unpack(const char *directory, const char *name)
{
    char command[1200];
    snprintf(command, sizeof command, "rm -rf '%s' && tar -C '%s' -xzf '%s/%s.tar.gz'", test_path(name),
             test_directory(), directory, name);
    CHECK_INT(system(command), 0);
}

static void check_is_clean(vecdb *db)
{
    uint64_t n_problems = 1;
    CHECK_OK(err, vecdb_check(db, NULL, print_problem, NULL, &n_problems, &err));
    CHECK_SIZE(n_problems, 0);
}

/* A record that is put and deleted again, in a collection that has fields. */
static void write_and_take_back(vecdb *db)
{
    vecdb_collection *collection;
    float vector[] = {1, 2, 3, 4, 5, 6, 7};
    vecdb_key key = VECDB_KEY_TEXT("of a later build");
    vecdb_record record = {.key = key, .vector = vector, .dimension = 7, .metadata = "{\"new\": 1}", .text = "new"};
    vecdb_results *results;
    uint64_t n = 0;
    CHECK_OK(err, vecdb_collection_open(db, "types", &collection, &err));
    CHECK_OK(err, vecdb_insert(collection, &record, 1, &err));
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    CHECK_OK(err, vecdb_get(collection, &key, 1, VECDB_VECTORS | VECDB_TEXT, &results, &err));
    CHECK_STRING(vecdb_result_text(results, 0), "new");
    CHECK(!memcmp(vecdb_result_vector(results, 0, NULL, NULL, NULL), vector, sizeof vector));
    vecdb_results_free(results);
    CHECK_OK(err, vecdb_delete(collection, &key, 1, &n, &err));
    CHECK_SIZE(n, 1);
    check_is_clean(db);
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    check_is_clean(db);
}

static void try_one(const char *directory, const char *name)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s.jsonl", directory, name);
    struct answers then = load(path);
    vecdb *db;
    unpack(directory, name);
    expect(test_path(name), VECDB_OPEN_READONLY, &then, name, "read-only");
    unpack(directory, name);
    snprintf(path, sizeof path, "%s/catalog.sqlite-shm", test_path(name));
    unlink(path); /* where there is one, it is only memory: a copy made by other means lacks it */
    expect(test_path(name), VECDB_OPEN_EXISTING, &then, name, "opened for writing");
    vecdb_options options = {.size = sizeof options, .mode = VECDB_OPEN_EXISTING};
    CHECK_OK(err, vecdb_open(test_path(name), &options, &db, &err));
    check_is_clean(db);
    write_and_take_back(db);
    vecdb_close(db);
    expect(test_path(name), VECDB_OPEN_EXISTING, &then, name, "after it was written to");
    vecdb_options readonly = {.size = sizeof readonly, .mode = VECDB_OPEN_READONLY};
    CHECK_OK(err, vecdb_open(test_path(name), &readonly, &db, &err));
    check_is_clean(db);
    vecdb_close(db);
    struct vdb_memory memory;
    vdb_memory_init(&memory, NULL);
    vdb_free(&memory, then.bytes);
}

/* Call try_one for all directories that this build must read; how many there were. */
static unsigned try_all(const char *name)
{
    const char *given = getenv("VECDB_GOLDEN");
    if (given) {
        try_one(given, name);
        return 1;
    }
    unsigned n = 0;
    for (int version = 1; version <= VDB_FORMAT_VERSION; version++) {
        char directory[64];
        snprintf(directory, sizeof directory, "tests/golden/v%d", version);
        if (access(directory, R_OK))
            FAIL("there is no %s (run from the repository, or make it with `make golden`)", directory);
        try_one(directory, name);
        n++;
    }
    return n;
}

TEST(a_database_with_every_feature_answers_as_it_did)
{
    CHECK(try_all("everything") > 0);
}

TEST(a_database_that_a_kill_left_answers_as_it_did)
{
    CHECK(try_all("killed") > 0);
}

/* ---- version 0 */

/* Make a byte of a file 0, and with `stamped` the check over it right again. */
static void clear_version(const char *file_name, size_t at, bool stamped)
{
    char path[600];
    struct kept_file file = {0};
    snprintf(path, sizeof path, "%s/%s", test_path("everything"), file_name);
    read_file(path, &file);
    CHECK(at < file.n_bytes);
    CHECK_INT(file.bytes[at], 1);
    file.bytes[at] = 0;
    if (stamped && at == AT_STATE_VERSION)
        vdb_store_u64(file.bytes + 32, XXH3_64bits(file.bytes, 32));
    if (stamped && at == AT_CATALOG_VERSION)
        vdb_store_u64(file.bytes + 4088, XXH3_64bits_withSeed(file.bytes, 4088, 1));
    write_file(path, file.bytes, file.n_bytes);
    vdb_free(tool_memory(), file.bytes);
}

static void check_is_refused(int mode)
{
    vecdb_options options = {.size = sizeof options, .mode = mode};
    vecdb *db = NULL;
    CHECK_FAILS(err, VECDB_UNSUPPORTED, "format version 0, of a preview",
                vecdb_open(test_path("everything"), &options, &db, &err));
    CHECK_CONTAINS(err.message, "export");
}

/* Every way in says so, and leaves the files as they are. */
static void expect_refusal(void)
{
    char command[1300];
    snprintf(command, sizeof command, "cp -a '%s' '%s.before'", test_path("everything"), test_path("everything"));
    CHECK_INT(system(command), 0);
    check_is_refused(VECDB_OPEN_READONLY);
    check_is_refused(VECDB_OPEN_EXISTING);
    check_is_refused(VECDB_OPEN_CREATE);
    CHECK_FAILS(err, VECDB_UNSUPPORTED, "format version 0, of a preview",
                vecdb_repair(test_path("everything"), NULL, NULL, print_problem, NULL, NULL, &err));
    snprintf(command, sizeof command, "diff -r '%s' '%s.before' >&2", test_path("everything"), test_path("everything"));
    CHECK_INT(system(command), 0);
}

TEST(a_database_of_version_0_is_refused_as_one_of_a_preview)
{
    unpack("tests/golden/v1", "everything");
    clear_version("state", AT_STATE_VERSION, true);
    clear_version("catalog.sqlite", AT_CATALOG_VERSION, true);
    expect_refusal();
}

TEST(a_catalog_of_version_0_is_refused_without_its_state)
{
    char path[600];
    unpack("tests/golden/v1", "everything");
    clear_version("catalog.sqlite", AT_CATALOG_VERSION, true);
    snprintf(path, sizeof path, "%s/state", test_path("everything"));
    CHECK(!unlink(path));
    check_is_refused(VECDB_OPEN_READONLY);
    check_is_refused(VECDB_OPEN_EXISTING);
    CHECK_FAILS(err, VECDB_UNSUPPORTED, "format version 0, of a preview",
                vecdb_repair(test_path("everything"), NULL, NULL, print_problem, NULL, NULL, &err));
}

TEST(a_version_that_damage_made_0_is_damage_and_repair_loses_nothing)
{
    static const struct {
        const char *file;
        size_t at;
    } places[] = {{"state", AT_STATE_VERSION}, {"catalog.sqlite", AT_CATALOG_VERSION}};
    struct answers then = load("tests/golden/v1/everything.jsonl");
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        uint64_t n_lost = 1;
        vecdb *db = NULL;
        unpack("tests/golden/v1", "everything");
        clear_version(places[i].file, places[i].at, false);
        vecdb_options options = {.size = sizeof options, .mode = VECDB_OPEN_EXISTING};
        CHECK_FAILS(err, VECDB_CORRUPT, places[i].file, vecdb_open(test_path("everything"), &options, &db, &err));
        CHECK_OK(err, vecdb_repair(test_path("everything"), NULL, NULL, NULL, NULL, &n_lost, &err));
        CHECK_SIZE(n_lost, 0);
        expect(test_path("everything"), VECDB_OPEN_EXISTING, &then, "everything", "after its repair");
    }
    vdb_free(tool_memory(), then.bytes);
}
