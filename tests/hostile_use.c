/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/hostile_use.c - everything that can be done with a database, done with one of hostile bytes (see hostile.h)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hostile.h"
#include "vecdb.h"

#define MOST_COLLECTIONS 6
#define MOST_FIELDS 6
#define SCAN_ROWS 500
#define MEMORY_BYTES (16u << 20)

static void must(bool condition)
{
    if (!condition)
        abort();
}

/* Whoever fails says so. True: it did not. */
static bool went_well(int status, vecdb_error *err)
{
    if (status) {
        must(err->status == status && err->message[0] && memchr(err->message, 0, sizeof err->message));
        must(strcmp(vecdb_status_name(status), "UNKNOWN") && status != VECDB_MISUSE);
    }
    memset(err, 0, sizeof *err);
    return !status;
}

static volatile unsigned char seen;

static void touch(const void *bytes, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++)
        seen = (unsigned char)(seen ^ ((const unsigned char *)bytes)[i]);
}

static size_t vector_bytes(int type, uint32_t dimension)
{
    must(type >= VECDB_F32 && type <= VECDB_BIT);
    return type == VECDB_BIT ? (dimension + 7) / 8 : dimension * (type == VECDB_F32 ? 4u : type < VECDB_I8 ? 2u : 1u);
}

/* Everything that an answer points to is read. */
static void read_results(vecdb_results *results, const char *const *fields, size_t n_fields)
{
    size_t n = vecdb_results_count(results);
    for (size_t i = 0; i < n; i++) {
        vecdb_key key = vecdb_result_key(results, i);
        const char *text = vecdb_result_key_text(results, i);
        if (text)
            touch(text, strlen(text));
        if (key.text)
            touch(key.text, key.length);
        size_t length = 0;
        const char *metadata = vecdb_result_metadata(results, i, &length);
        if (metadata)
            touch(metadata, length + 1);
        if ((text = vecdb_result_text(results, i)))
            touch(text, vecdb_result_text_length(results, i) + 1);
        for (size_t f = 0; f < n_fields; f++) {
            uint32_t dimension = 0;
            int type = 0;
            const void *vector = vecdb_result_vector(results, i, fields[f], &dimension, &type);
            if (vector)
                touch(vector, vector_bytes(type, dimension));
        }
    }
    vecdb_results_free(results);
}

/* ------------------------------------------------------------------ what there is */

struct found_field {
    char name[VECDB_MAX_NAME + 1];
    uint32_t dimension;
    int type, metric;
};

struct found_collection {
    char name[VECDB_MAX_NAME + 1];
    struct found_field fields[MOST_FIELDS];
    size_t n_fields;
};

struct found {
    struct found_collection collections[MOST_COLLECTIONS];
    size_t n;
};

static int note_collection(void *context, const vecdb_collection_info *info)
{
    struct found *found = context;
    must(strlen(info->name) >= 1 && strlen(info->name) <= VECDB_MAX_NAME);
    if (found->n == MOST_COLLECTIONS)
        return 0;
    struct found_collection *into = &found->collections[found->n++];
    strcpy(into->name, info->name);
    into->n_fields = 0;
    for (size_t i = 0; i < info->n_fields && into->n_fields < MOST_FIELDS; i++) {
        const vecdb_field *field = &info->fields[i].field;
        struct found_field *to = &into->fields[into->n_fields++];
        must(strlen(field->name) <= VECDB_MAX_NAME && field->dimension >= 1 &&
             field->dimension <= VECDB_MAX_DIMENSION);
        strcpy(to->name, field->name);
        to->dimension = field->dimension;
        to->type = field->type;
        to->metric = field->metric;
    }
    return 0;
}

/* ------------------------------------------------------------------ reading */

static void search(vecdb_collection *collection, const struct found_field *field, const char *const *names,
                   size_t n_names)
{
    vecdb_error err = VECDB_ERROR_INIT;
    size_t n_bytes = vector_bytes(VECDB_F32, field->dimension);
    float *values = malloc(n_bytes);
    must(values != NULL);
    for (uint32_t i = 0; i < field->dimension; i++)
        values[i] = field->type == VECDB_BIT ? 0 : (float)(1 + i % 5);
    vecdb_query query = {.size = sizeof query,
                         .field = field->name,
                         .vector = values,
                         .k = 7,
                         .columns = VECDB_METADATA | VECDB_TEXT | VECDB_VECTORS};
    vecdb_results *results;
    if (went_well(vecdb_search(collection, &query, &results, &err), &err)) {
        for (size_t i = 1; i < vecdb_results_count(results); i++)
            must(vecdb_result_distance(results, i - 1) <= vecdb_result_distance(results, i));
        read_results(results, names, n_names);
    }
    free(values);
}

static void scan(vecdb_collection *collection, const char *const *names, size_t n_names)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_scan_options options = {.size = sizeof options,
                                  .columns = VECDB_METADATA | VECDB_TEXT | VECDB_VECTORS,
                                  .limit = SCAN_ROWS,
                                  .batch_rows = 20};
    vecdb_scan *walk;
    if (!went_well(vecdb_scan_open(collection, &options, &walk, &err), &err))
        return;
    for (bool more = true; more;) {
        vecdb_results *results;
        if (!went_well(vecdb_scan_next(walk, &results, &err), &err))
            break;
        more = vecdb_results_count(results) > 0;
        read_results(results, names, n_names);
    }
    vecdb_scan_close(walk);
}

static bool waits_for_indexes; /* of what is being used now */

static void read_collection(vecdb *db, const struct found_collection *found)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *collection;
    vecdb_results *results;
    const char *names[MOST_FIELDS];
    for (size_t i = 0; i < found->n_fields; i++)
        names[i] = found->fields[i].name;
    if (!went_well(vecdb_collection_open(db, found->name, &collection, &err), &err))
        return;
    vecdb_key keys[] = {{.integer = 1}, {.text = "key 2"}, {.integer = 21}, {.text = "none"}, {.integer = 29}};
    int columns = VECDB_METADATA | VECDB_TEXT | VECDB_VECTORS;
    if (went_well(vecdb_get(collection, keys, sizeof keys / sizeof keys[0], columns, &results, &err), &err))
        read_results(results, names, found->n_fields);
    if (waits_for_indexes)
        went_well(vecdb_index_wait(collection, NULL, 0, NULL, &err), &err);
    for (size_t i = 0; i < found->n_fields; i++)
        search(collection, &found->fields[i], names, found->n_fields);
    scan(collection, names, found->n_fields);
}

/* ------------------------------------------------------------------ writing */

static void write_collection(vecdb *db, const struct found_collection *found)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *collection;
    if (!went_well(vecdb_collection_open(db, found->name, &collection, &err), &err))
        return;
    uint32_t dimension = found->n_fields ? found->fields[0].dimension : 0;
    float *values = dimension ? malloc(dimension * sizeof *values) : NULL;
    for (uint32_t i = 0; i < dimension; i++)
        values[i] = (float)(i % 2);
    bool numbers = values && found->fields[0].type != VECDB_BIT && dimension > 1;
    vecdb_key key = VECDB_KEY_TEXT("written by the test");
    vecdb_record record = {.key = key,
                           .vector = numbers ? values : NULL,
                           .type = numbers ? VECDB_F32 : 0,
                           .metadata = "{\"a\": 1}",
                           .text = "text"};
    vecdb_results *results;
    if (went_well(vecdb_put(collection, &record, 1, &err), &err) &&
        went_well(vecdb_get(collection, &key, 1, VECDB_TEXT, &results, &err), &err)) {
        const char *text = vecdb_result_text(results, 0);
        must(vecdb_result_found(results, 0) && text && !strcmp(text, "text"));
        vecdb_results_free(results);
    }
    vecdb_key old[] = {{.integer = 5}, {.text = "key 4"}};
    went_well(vecdb_delete(collection, old, 2, NULL, &err), &err);
    free(values);
}

static void ignore_problem(void *context, const vecdb_problem *problem)
{
    (void)context;
    must(problem->message && problem->message[0] && problem->file);
}

static int read_snapshot_name(void *context, const vecdb_snapshot_info *info)
{
    (void)context;
    touch(info->name, strlen(info->name) + 1);
    return 0;
}

static void read_all(vecdb *db, struct found *found)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_stats stats = {.size = sizeof stats};
    uint64_t n_problems;
    found->n = 0;
    went_well(vecdb_collections(db, note_collection, found, &err), &err);
    for (size_t i = 0; i < found->n; i++)
        read_collection(db, &found->collections[i]);
    went_well(vecdb_database_stats(db, &stats, &err), &err);
    went_well(vecdb_snapshots(db, read_snapshot_name, NULL, &err), &err);
    went_well(vecdb_check(db, NULL, ignore_problem, NULL, &n_problems, &err), &err);
}

static bool open_it(const char *directory, unsigned how, const char *snapshot, vecdb **db)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_options options = {.size = sizeof options,
                             .mode = how & HOSTILE_READONLY ? VECDB_OPEN_READONLY : VECDB_OPEN_EXISTING,
                             .threads = VECDB_THREADS_NONE,
                             .durability = VECDB_DURABILITY_NORMAL,
                             .io = how & HOSTILE_NO_MAPS ? VECDB_IO_READ : VECDB_IO_AUTO,
                             .busy_timeout_ms = 1,
                             .memory_bytes = MEMORY_BYTES,
                             .snapshot = snapshot};
    return went_well(vecdb_open(directory, &options, db, &err), &err);
}

static void use_copies(vecdb *db, const char *directory)
{
    vecdb_error err = VECDB_ERROR_INIT;
    char path[300], command[400];
    struct found found;
    vecdb *copy;
    snprintf(path, sizeof path, "%s-copy", directory);
    if (went_well(vecdb_backup(db, path, NULL, &err), &err) && open_it(path, 0, NULL, &copy)) {
        read_all(copy, &found);
        vecdb_close(copy);
    }
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    must(!system(command));
}

/* What a repair says is done opens, whatever it was made of. */
static void repair_it(const char *directory)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_options options = {.size = sizeof options, .threads = VECDB_THREADS_NONE, .memory_bytes = MEMORY_BYTES};
    char command[900];
    struct found found;
    uint64_t n_lost;
    vecdb *db;
    if (went_well(vecdb_repair(directory, &options, NULL, ignore_problem, NULL, &n_lost, &err), &err)) {
        must(open_it(directory, 0, NULL, &db));
        read_all(db, &found);
        vecdb_close(db);
    }
    snprintf(command, sizeof command, "rm -rf '%s'.damaged-* '%s'.repair*", directory, directory);
    must(!system(command));
}

static void open_and_use(const char *directory, unsigned how)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct found found;
    vecdb *db;
    if (!open_it(directory, how, NULL, &db))
        return;
    read_all(db, &found);
    for (size_t i = 0; i < found.n; i++)
        write_collection(db, &found.collections[i]);
    if (how & HOSTILE_BACKUP)
        use_copies(db, directory);
    if (how & HOSTILE_COMPACT) {
        went_well(vecdb_compact(db, NULL, &err), &err);
        went_well(vecdb_snapshot_create(db, "another", &err), &err);
        went_well(vecdb_snapshot_drop(db, "a snapshot", &err), &err);
        for (size_t i = 0; i < found.n; i++)
            went_well(vecdb_collection_drop(db, found.collections[i].name, &err), &err);
    } else {
        read_all(db, &found);
    }
    vecdb_close(db);
    if (open_it(directory, HOSTILE_READONLY, "a snapshot", &db)) {
        read_all(db, &found);
        vecdb_close(db);
    }
}

void hostile_use(const char *directory, unsigned how)
{
    waits_for_indexes = how & HOSTILE_INDEX;
    open_and_use(directory, how);
    if (how & HOSTILE_REPAIR)
        repair_it(directory);
}
