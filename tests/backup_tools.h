/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/backup_tools.h - what the tests of backups and of snapshots share: databases with everything in
 * them, and a sum over all that can be read from one
 */
#ifndef VDB_TESTS_BACKUP_TOOLS_H
#define VDB_TESTS_BACKUP_TOOLS_H

#include "base/numbers.h"
#include "failing.h"
#include "fault_tools.h"
#include "lib/backup.h"

#define WIDE 48u   /* dimension of the field "v" */
#define NARROW 24u /* of "b", bits */

/* A path in the test's directory that stays as it is; the same name, the same path. */
TOOL const char *place(const char *name)
{
    static struct {
        char name[64], path[320];
    } places[64];
    static size_t n;
    for (size_t i = 0; i < n; i++)
        if (!strcmp(places[i].name, name))
            return places[i].path;
    CHECK(n < 64);
    snprintf(places[n].name, sizeof places[n].name, "%s", name);
    snprintf(places[n].path, sizeof places[n].path, "%.250s/%.60s", test_directory(), name);
    return places[n++].path;
}

#define PLENTY 1000000 /* allocations that no call comes to */

/* Open the database with an allocator that fails once `failing->left` is set to less than PLENTY; `memory` lives as
 * long. */
TOOL vecdb *open_failing(const char *path, struct failing *failing, struct vdb_memory *memory, vecdb_options *options)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = NULL;
    failing_begin(failing, memory, PLENTY);
    *options = (vecdb_options){.size = sizeof *options, .threads = VECDB_THREADS_NONE, .allocator = memory->allocator};
    CHECK_OK(err, vecdb_open(path, options, &db, &err));
    return db;
}

/* Everything that can be read, folded: equal sums, equal contents. */
struct dump {
    uint64_t n_collections, n_records, sum;
};

#define CHECK_DUMP(left, right)                                                                                        \
    do {                                                                                                               \
        struct dump left_dump = (left), right_dump = (right);                                                          \
        CHECK_SIZE(left_dump.n_collections, right_dump.n_collections);                                                 \
        CHECK_SIZE(left_dump.n_records, right_dump.n_records);                                                         \
        CHECK_SIZE(left_dump.sum, right_dump.sum);                                                                     \
    } while (0)

TOOL uint64_t fold_bytes(uint64_t sum, const void *bytes, size_t n)
{
    const unsigned char *at = bytes;
    for (size_t i = 0; i < n; i++)
        sum = (sum ^ at[i]) * 0x100000001b3u; /* FNV-1a */
    return (sum ^ n) * 0x100000001b3u;
}

TOOL uint64_t fold_text(uint64_t sum, const char *text)
{
    return text ? fold_bytes(sum, text, strlen(text)) : fold_bytes(sum, "", 0) + 1;
}

struct named_collection {
    char name[64];
    char fields[4][64];
    size_t n_fields;
};

struct named_collections {
    struct named_collection list[16];
    size_t n;
    uint64_t sum;
};

TOOL int name_collection(void *context, const vecdb_collection_info *info)
{
    struct named_collections *all = context;
    struct named_collection *one = &all->list[all->n++];
    CHECK(all->n <= 16 && info->n_fields <= 4);
    snprintf(one->name, sizeof one->name, "%s", info->name);
    all->sum = fold_text(all->sum, info->name);
    one->n_fields = info->n_fields;
    for (size_t i = 0; i < info->n_fields; i++) {
        const vecdb_field *field = &info->fields[i].field;
        int64_t numbers[] = {field->dimension, field->type, field->metric, field->index, field->compression,
                             (int64_t)info->fields[i].n_vectors};
        snprintf(one->fields[i], sizeof one->fields[i], "%s", field->name);
        all->sum = fold_bytes(fold_text(all->sum, field->name), numbers, sizeof numbers);
    }
    return 0;
}

TOOL void dump_collection(vecdb *db, const struct named_collection *named, struct dump *dump)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *collection;
    vecdb_scan *scan;
    vecdb_scan_options options = {.size = sizeof options, .columns = VECDB_METADATA | VECDB_TEXT | VECDB_VECTORS};
    CHECK_OK(err, vecdb_collection_open(db, named->name, &collection, &err));
    CHECK_OK(err, vecdb_scan_open(collection, &options, &scan, &err));
    for (size_t n = 1; n;) {
        vecdb_results *results;
        CHECK_OK(err, vecdb_scan_next(scan, &results, &err));
        n = vecdb_results_count(results);
        for (size_t i = 0; i < n; i++) {
            vecdb_key key = vecdb_result_key(results, i);
            dump->sum = key.text ? fold_bytes(dump->sum, key.text, key.length)
                                 : fold_bytes(dump->sum, &key.integer, sizeof key.integer);
            dump->sum = fold_text(dump->sum, vecdb_result_metadata(results, i, NULL));
            dump->sum = fold_text(dump->sum, vecdb_result_text(results, i));
            for (size_t f = 0; f < named->n_fields; f++) {
                uint32_t dimension = 0;
                int type = 0;
                const void *vector = vecdb_result_vector(results, i, named->fields[f], &dimension, &type);
                size_t bytes = vector ? vdb_vector_bytes(type, dimension) : 0;
                dump->sum = fold_bytes(dump->sum, vector, bytes);
            }
        }
        dump->n_records += n;
        vecdb_results_free(results);
    }
    vecdb_scan_close(scan);
}

TOOL struct dump dump_database(vecdb *db)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct named_collections all = {.n = 0};
    CHECK_OK(err, vecdb_collections(db, name_collection, &all, &err));
    struct dump dump = {.n_collections = all.n, .sum = all.sum};
    for (size_t i = 0; i < all.n; i++)
        dump_collection(db, &all.list[i], &dump);
    return dump;
}

TOOL struct dump dump_path(const char *path)
{
    vecdb *db = open_database(path, VECDB_OPEN_READONLY, VECDB_THREADS_NONE);
    struct dump dump = dump_database(db);
    vecdb_close(db);
    return dump;
}

TOOL uint64_t sequence_of(vecdb *db)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_stats stats = {.size = sizeof stats};
    CHECK_OK(err, vecdb_database_stats(db, &stats, &err));
    return stats.sequence;
}

/* ------------------------------------------------------------------ databases */

TOOL vecdb_collection *open_things(vecdb *db)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *things;
    vecdb_field fields[2] = {{.name = "v", .dimension = WIDE, .metric = VECDB_L2},
                             {.name = "b", .dimension = NARROW, .type = VECDB_BIT}};
    CHECK_OK(err, vecdb_collection_create(db, "things", fields, 2, VECDB_IF_MISSING, &things, &err));
    return things;
}

/* Records first .. first + n - 1 of a version, in one commit. Every third has no bits, some have metadata. */
TOOL int put_version(vecdb_collection *things, int64_t first, size_t n, uint32_t version, vecdb_error *err)
{
    struct vdb_memory *memory = tool_memory();
    vecdb_record *records = vdb_alloc_zero(memory, n * sizeof *records);
    vecdb_vector *vectors = vdb_alloc_zero(memory, 2 * n * sizeof *vectors);
    float(*values)[WIDE] = vdb_alloc(memory, n * sizeof *values);
    char(*texts)[64] = vdb_alloc(memory, n * sizeof *texts);
    unsigned char(*bits)[NARROW / 8] = vdb_alloc(memory, n * sizeof *bits);
    CHECK(records && vectors && values && texts && bits);
    for (size_t i = 0; i < n; i++) {
        int64_t key = first + (int64_t)i;
        fill_vector(key, version, WIDE, values[i]);
        snprintf(texts[i], sizeof texts[i], "{\"key\": %lld, \"version\": %u}", (long long)key, version);
        memset(bits[i], (int)(key * 7 + version), sizeof bits[i]);
        vectors[2 * i] = (vecdb_vector){.field = "v", .values = values[i], .type = VECDB_F32};
        vectors[2 * i + 1] = (vecdb_vector){.field = "b", .values = bits[i]};
        records[i] = (vecdb_record){.key = vecdb_key_int(key),
                                    .vectors = &vectors[2 * i],
                                    .n_vectors = key % 3 ? 2 : 1,
                                    .metadata = key % 2 ? texts[i] : NULL,
                                    .text = key % 5 ? NULL : texts[i]};
    }
    int status = vecdb_put(things, records, n, err);
    vdb_free(memory, records);
    vdb_free(memory, vectors);
    vdb_free(memory, values);
    vdb_free(memory, texts);
    vdb_free(memory, bits);
    return status;
}

TOOL void compact_database(vecdb *db)
{
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
}

/* Into a database: extents in several files, dead slots, a tail, an empty collection, text keys. */
TOOL void fill_database(vecdb *db)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *things = open_things(db), *others;
    CHECK_OK(err, put_version(things, 0, 1200, 1, &err));
    compact_database(db);
    CHECK_OK(err, put_version(things, 100, 400, 2, &err));
    compact_database(db);
    CHECK_OK(err, put_version(things, 300, 50, 3, &err));
    for (int64_t i = 0; i < 40; i++) {
        vecdb_key key = vecdb_key_int(i * 7);
        CHECK_OK(err, vecdb_delete(things, &key, 1, NULL, &err));
    }
    CHECK_OK(err, vecdb_collection_create(db, "empty", NULL, 0, VECDB_MUST_BE_NEW, NULL, &err));
    vecdb_field field = {.name = "v", .dimension = 3};
    CHECK_OK(err, vecdb_collection_create(db, "others", &field, 1, VECDB_MUST_BE_NEW, &others, &err));
    float vector[3] = {1, 2, 3};
    vecdb_record record = {.key = VECDB_KEY_TEXT("a text"), .vector = vector, .text = "words"};
    CHECK_OK(err, vecdb_put(others, &record, 1, &err));
}

TOOL vecdb *make_rich_database(const char *path)
{
    vecdb *db = open_database(path, VECDB_OPEN_NEW, VECDB_THREADS_NONE);
    fill_database(db);
    return db;
}

TOOL void drop_files(struct kept_files *kept)
{
    for (size_t i = 0; i < kept->n; i++)
        vdb_free(tool_memory(), kept->files[i].bytes);
    kept->n = 0;
}

/* ------------------------------------------------------------------ operations that fail */

/* Fails operation n (from 0), or all from n on, or ends the process there. */
struct trouble {
    long n, seen;
    int os_error;
    bool stays, kills;
};

TOOL int make_trouble(void *context, enum vdb_io_op op, const char *path)
{
    struct trouble *trouble = context;
    (void)op, (void)path;
    long now = __atomic_fetch_add(&trouble->seen, 1, __ATOMIC_RELAXED);
    bool hits = now == trouble->n || (trouble->stays && now > trouble->n);
    if (hits && trouble->kills)
        _exit(9);
    return hits ? trouble->os_error : 0;
}

TOOL vecdb *open_in_trouble(const char *path, int mode, struct vdb_io_hook *hook)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_options options = {.size = sizeof options, .mode = mode, .threads = VECDB_THREADS_NONE};
    vecdb *db;
    CHECK_OK(err, vdb_database_open(path, &options, hook, &db, &err));
    return db;
}

TOOL bool path_exists(const char *path)
{
    struct stat status;
    return !lstat(path, &status);
}

TOOL void count_name(void *context, const char *path, const char *name)
{
    (void)path, (void)name;
    ++*(int *)context;
}

TOOL int count_names(const char *directory)
{
    int n = 0;
    each_name(directory, count_name, &n);
    return n;
}

#endif
