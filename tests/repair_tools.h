/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/repair_tools.h - a database with a feature of every kind, and what a repair may do to it
 *
 * Collections with several fields, with none, with and without metadata and texts, texts long enough for overflow
 * pages, packed vectors and a tail, replaced and deleted records, free pages, and (in the second form) commits that
 * are in the write-ahead log only. Every record is made from its key and a version, so what is found can be told
 * to be right; what is missing is held against what the repair told.
 */
#ifndef VDB_TESTS_REPAIR_TOOLS_H
#define VDB_TESTS_REPAIR_TOOLS_H

#include "fault_tools.h"
#include "lib/repair.h"

#define N_NOTES 260
#define N_PLAIN 400
#define N_BARE 40
#define TEXT_DIMENSION 12
#define BITS_DIMENSION 40
#define PLAIN_DIMENSION 8

TOOL const char *directory(void)
{
    static char path[256];
    if (!path[0])
        snprintf(path, sizeof path, "%s", test_path("db"));
    return path;
}

TOOL const char *beside(const char *suffix)
{
    static char paths[4][300];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s%s", directory(), suffix);
    return path;
}

/* ------------------------------------------------------------------ what was written */

TOOL uint32_t note_versions[N_NOTES]; /* 0: deleted */

TOOL bool note_has_bits(int i)
{
    return i % 5 != 0;
}

TOOL bool note_has_text(int i)
{
    return i % 7 != 0;
}

TOOL void note_key(int i, char key[24])
{
    snprintf(key, 24, "note-%04d", i);
}

TOOL void note_metadata(int i, uint32_t version, char *out, size_t room)
{
    snprintf(out, room, "{\"note\": %d, \"version\": %u}", i, version);
}

/* Some fill several overflow pages. */
TOOL void note_text(int i, uint32_t version, char *out, size_t room)
{
    size_t length = i % 13 == 0 ? 9000 : i % 11 == 0 ? 4500 : 60 + (size_t)i % 50;
    CHECK(length < room);
    for (size_t at = 0; at < length; at++)
        out[at] = (char)('a' + (at * 7 + (size_t)i * 3 + version) % 26);
    out[length] = '\0';
}

TOOL void bits_of(int i, uint32_t version, unsigned char out[BITS_DIMENSION / 8])
{
    for (unsigned b = 0; b < BITS_DIMENSION / 8; b++)
        out[b] = (unsigned char)((unsigned)i * 31 + version * 7 + b * 57);
}

TOOL void plain_of(int i, unsigned char out[PLAIN_DIMENSION])
{
    for (unsigned b = 0; b < PLAIN_DIMENSION; b++)
        out[b] = (unsigned char)((unsigned)i * 13 + b * 5);
}

TOOL void put_note(vecdb_collection *notes, int i, uint32_t version)
{
    vecdb_error err = VECDB_ERROR_INIT;
    char key[24], metadata[64], text[10000];
    float vector[TEXT_DIMENSION];
    unsigned char bits[BITS_DIMENSION / 8];
    note_key(i, key);
    note_metadata(i, version, metadata, sizeof metadata);
    note_text(i, version, text, sizeof text);
    fill_vector(i, version, TEXT_DIMENSION, vector);
    bits_of(i, version, bits);
    vecdb_vector vectors[2] = {{.field = "text", .values = vector}, {.field = "bits", .values = bits}};
    vecdb_record record = {.key = vecdb_key_text(key),
                           .vectors = vectors,
                           .n_vectors = note_has_bits(i) ? 2 : 1,
                           .metadata = metadata,
                           .text = note_has_text(i) ? text : NULL};
    CHECK_OK(err, vecdb_put(notes, &record, 1, &err));
    note_versions[i] = version;
}

TOOL void put_plain(vecdb_collection *plain, int first, int n)
{
    vecdb_error err = VECDB_ERROR_INIT;
    static unsigned char vectors[N_PLAIN][PLAIN_DIMENSION];
    int64_t keys[N_PLAIN];
    for (int i = 0; i < n; i++) {
        keys[i] = first + i;
        plain_of(first + i, vectors[i]);
    }
    vecdb_vector_column column = {.values = vectors};
    vecdb_batch batch = {
        .size = sizeof batch, .n_rows = (size_t)n, .integer_keys = keys, .vectors = &column, .n_vectors = 1};
    CHECK_OK(err, vecdb_write(plain, &batch, &err));
}

TOOL void put_bare(vecdb_collection *bare, int i)
{
    vecdb_error err = VECDB_ERROR_INIT;
    char metadata[64];
    note_metadata(i, 1, metadata, sizeof metadata);
    vecdb_record record = {.key = vecdb_key_int(i), .metadata = metadata};
    CHECK_OK(err, vecdb_put(bare, &record, 1, &err));
}

TOOL void fill_gone(vecdb *db)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *gone;
    static char text[6000];
    memset(text, 'g', sizeof text - 1);
    CHECK_OK(err, vecdb_collection_create(db, "gone", NULL, 0, VECDB_MUST_BE_NEW, &gone, &err));
    for (int i = 0; i < 12; i++) {
        vecdb_record record = {.key = vecdb_key_int(i), .text = text};
        CHECK_OK(err, vecdb_put(gone, &record, 1, &err));
    }
    CHECK_OK(err, vecdb_collection_drop(db, "gone", &err));
}

/* Keep the files, with commits in the WAL or with an empty one. */
TOOL void make_database(bool in_wal, struct kept_files *kept)
{
    vecdb_error err = VECDB_ERROR_INIT;
    mount_memory(test_directory(), "size=400m");
    const vecdb_field note_fields[2] = {{.name = "text", .dimension = TEXT_DIMENSION},
                                        {.name = "bits", .dimension = BITS_DIMENSION, .type = VECDB_BIT}};
    const vecdb_field plain_field = {.name = "v",
                                     .dimension = PLAIN_DIMENSION,
                                     .type = VECDB_U8,
                                     .metric = VECDB_L2,
                                     .compression = VECDB_COMPRESSION_MAX};
    vecdb *db = open_database(directory(), VECDB_OPEN_NEW, VECDB_THREADS_NONE);
    vecdb_collection *notes, *plain, *bare;
    CHECK_OK(err, vecdb_collection_create(db, "notes", note_fields, 2, VECDB_MUST_BE_NEW, &notes, &err));
    CHECK_OK(err, vecdb_collection_create(db, "plain", &plain_field, 1, VECDB_MUST_BE_NEW, &plain, &err));
    CHECK_OK(err, vecdb_collection_create(db, "bare", NULL, 0, VECDB_MUST_BE_NEW, &bare, &err));
    fill_gone(db);
    for (int i = 0; i < N_NOTES * 2 / 3; i++)
        put_note(notes, i, 1);
    put_plain(plain, 0, N_PLAIN * 3 / 4);
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    fill_gone(db);
    vecdb_close(db);
    db = open_database(directory(), VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    CHECK_OK(err, vecdb_collection_open(db, "notes", &notes, &err));
    CHECK_OK(err, vecdb_collection_open(db, "plain", &plain, &err));
    CHECK_OK(err, vecdb_collection_open(db, "bare", &bare, &err));
    for (int i = N_NOTES * 2 / 3; i < N_NOTES; i++)
        put_note(notes, i, 1);
    for (int i = 3; i < N_NOTES; i += 6)
        put_note(notes, i, 2);
    for (int i = 4; i < N_NOTES; i += 9) {
        char key[24];
        note_key(i, key);
        vecdb_key deleted = vecdb_key_text(key);
        CHECK_OK(err, vecdb_delete(notes, &deleted, 1, NULL, &err));
        note_versions[i] = 0;
    }
    put_plain(plain, N_PLAIN * 3 / 4, N_PLAIN - N_PLAIN * 3 / 4);
    for (int i = 0; i < N_BARE; i++)
        put_bare(bare, i);
    if (in_wal)
        keep_files(directory(), kept);
    vecdb_close(db);
    if (!in_wal)
        keep_files(directory(), kept);
}

/* ------------------------------------------------------------------ what is told */

struct told {
    uint64_t n_lost, n_doubtful, n_healed, n_damaged;
    /* Counted losses: records altogether, then parts of records. */
    uint64_t records, metadata, text, vectors[3]; /* fields text, bits, v */
    bool loses_commits, loses_tail, loses_names, doubts_description;
    char last[600];
    char all[20000];
    size_t used;
};

TOOL uint64_t count_in(const char *message)
{
    const char *colon = strstr(message, ": ");
    unsigned long long n = 1;
    if (colon && sscanf(colon + 2, "%llu records", &n) == 1 && strstr(colon, "records"))
        return n;
    return 1;
}

TOOL void note_problem(void *context, const vecdb_problem *problem)
{
    struct told *told = context;
    const char *m = problem->message;
    CHECK(m && m[0] && problem->file);
    int n = snprintf(told->all + told->used, sizeof told->all - told->used, "    [%d] %s: %s\n", problem->kind,
                     problem->file, m);
    if (n > 0 && (size_t)n < sizeof told->all - told->used)
        told->used += (size_t)n;
    snprintf(told->last, sizeof told->last, "%s", m);
    told->n_doubtful += problem->kind == VECDB_PROBLEM_DOUBTFUL;
    told->n_healed += problem->kind == VECDB_PROBLEM_HEALED;
    told->n_damaged += problem->kind == VECDB_PROBLEM_DAMAGED;
    told->doubts_description |= strstr(m, "description of the") != NULL;
    if (problem->kind != VECDB_PROBLEM_LOST)
        return;
    told->n_lost++;
    uint64_t count = count_in(m);
    if (strstr(m, "metadata and text")) {
        told->metadata += count;
        told->text += count;
    } else if (strstr(m, "its metadata") || strstr(m, "their metadata")) {
        told->metadata += count;
    } else if (strstr(m, "its text") || strstr(m, "their text")) {
        told->text += count;
    } else if (strstr(m, "field \"text\"")) {
        told->vectors[0] += count;
    } else if (strstr(m, "field \"bits\"")) {
        told->vectors[1] += count;
    } else if (strstr(m, "field \"v\"")) {
        told->vectors[2] += count;
    } else if (strstr(m, "commits")) {
        told->loses_commits = true;
    } else if (strstr(m, "not packed yet")) {
        told->loses_tail = true;
    } else if (strstr(m, "name")) {
        told->loses_names = true;
    } else if (strstr(m, "lost with their keys") || strstr(m, "is lost") || strstr(m, "are lost")) {
        told->records += count;
    }
}

/* ------------------------------------------------------------------ what is found */

struct found {
    uint64_t records, metadata, text, vectors[3]; /* that are missing */
    uint64_t wrong;                               /* not as written: only after DOUBTFUL */
};

TOOL void compare_text(struct found *found, const char *is, size_t length, const char *was, uint64_t *missing)
{
    if (!is)
        ++*missing;
    else if (length != strlen(was) || memcmp(is, was, length))
        found->wrong++;
}

TOOL void compare_note(struct found *found, vecdb_results *results, int i)
{
    uint32_t version = note_versions[i];
    char metadata[64], text[10000];
    float vector[TEXT_DIMENSION];
    unsigned char bits[BITS_DIMENSION / 8];
    size_t length;
    if (!vecdb_result_found(results, 0)) {
        found->records++;
        return;
    }
    note_metadata(i, version, metadata, sizeof metadata);
    const char *is = vecdb_result_metadata(results, 0, &length);
    compare_text(found, is, length, metadata, &found->metadata);
    note_text(i, version, text, sizeof text);
    if (note_has_text(i))
        compare_text(found, vecdb_result_text(results, 0), vecdb_result_text_length(results, 0), text, &found->text);
    else
        found->wrong += vecdb_result_text(results, 0) != NULL;
    fill_vector(i, version, TEXT_DIMENSION, vector);
    bits_of(i, version, bits);
    const void *stored = vecdb_result_vector(results, 0, "text", NULL, NULL);
    found->vectors[0] += !stored;
    found->wrong += stored && memcmp(stored, vector, sizeof vector);
    stored = vecdb_result_vector(results, 0, "bits", NULL, NULL);
    found->vectors[1] += !stored && note_has_bits(i);
    found->wrong += stored && (!note_has_bits(i) || memcmp(stored, bits, sizeof bits));
}

TOOL vecdb_results *get_one(vecdb_collection *collection, const vecdb_key *key)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_results *results;
    CHECK_OK(err, vecdb_get(collection, key, 1, VECDB_METADATA | VECDB_TEXT | VECDB_VECTORS, &results, &err));
    return results;
}

/* A collection whose name was lost is found by what is in it: then it is not compared, only counted. */
TOOL bool find_collection(vecdb *db, const char *name, vecdb_collection **collection)
{
    return !vecdb_collection_open(db, name, collection, NULL);
}

TOOL uint64_t count_records(vecdb_collection *collection);

TOOL int note_count(void *context, const vecdb_collection_info *info)
{
    *(uint64_t *)context = info->n_records;
    return 0;
}

TOOL uint64_t count_records(vecdb_collection *collection)
{
    vecdb_error err = VECDB_ERROR_INIT;
    uint64_t n = 0;
    CHECK_OK(err, vecdb_collection_describe(collection, note_count, &n, &err));
    return n;
}

TOOL void compare_database(vecdb *db, struct found *found)
{
    vecdb_collection *notes, *plain, *bare;
    uint64_t n_notes = 0, n_there;
    *found = (struct found){0};
    bool has_notes = find_collection(db, "notes", &notes);
    for (int i = 0; i < N_NOTES; i++) {
        char text[24];
        note_key(i, text);
        vecdb_key key = vecdb_key_text(text);
        vecdb_results *results = has_notes ? get_one(notes, &key) : NULL;
        n_notes += note_versions[i] != 0;
        if (note_versions[i] && results)
            compare_note(found, results, i);
        else if (note_versions[i])
            found->records++;
        else
            found->wrong += results && vecdb_result_found(results, 0);
        vecdb_results_free(results);
    }
    n_there = has_notes ? count_records(notes) : 0;
    found->wrong += n_there > n_notes;
    bool has_plain = find_collection(db, "plain", &plain);
    for (int i = 0; i < N_PLAIN; i++) {
        unsigned char vector[PLAIN_DIMENSION];
        vecdb_key key = vecdb_key_int(i);
        vecdb_results *results = has_plain ? get_one(plain, &key) : NULL;
        plain_of(i, vector);
        if (!results || !vecdb_result_found(results, 0)) {
            found->records++;
        } else {
            const void *stored = vecdb_result_vector(results, 0, "v", NULL, NULL);
            found->vectors[2] += !stored;
            found->wrong += stored && memcmp(stored, vector, sizeof vector);
        }
        vecdb_results_free(results);
    }
    bool has_bare = find_collection(db, "bare", &bare);
    for (int i = 0; i < N_BARE; i++) {
        char metadata[64];
        size_t length;
        vecdb_key key = vecdb_key_int(i);
        vecdb_results *results = has_bare ? get_one(bare, &key) : NULL;
        note_metadata(i, 1, metadata, sizeof metadata);
        if (!results || !vecdb_result_found(results, 0)) {
            found->records++;
        } else {
            const char *is = vecdb_result_metadata(results, 0, &length);
            compare_text(found, is, length, metadata, &found->metadata);
        }
        vecdb_results_free(results);
    }
}

/* ------------------------------------------------------------------ one repair */

TOOL void check_told(const char *what, const struct found *found, const struct told *told)
{
    bool excused = told->loses_commits || told->loses_names || told->doubts_description;
    bool named = found->records <= told->records && found->metadata <= told->metadata + told->records &&
                 found->text <= told->text + told->records;
    for (int f = 0; f < 3; f++)
        named &= found->vectors[f] <= told->vectors[f] + told->records || told->loses_tail;
    if (!named && !excused)
        FAIL("%s: missing %llu records, %llu metadata, %llu texts, %llu %llu %llu vectors; told:\n%s", what,
             (unsigned long long)found->records, (unsigned long long)found->metadata, (unsigned long long)found->text,
             (unsigned long long)found->vectors[0], (unsigned long long)found->vectors[1],
             (unsigned long long)found->vectors[2], told->all);
    if (found->wrong && !told->n_doubtful && !excused)
        FAIL("%s: %llu things are not as they were written, and nothing was called doubtful; told:\n%s", what,
             (unsigned long long)found->wrong, told->all);
}

/* Memory, which is not part of the format; and a log without frames is the same as none. */
TOOL bool is_nothing(const struct kept_file *file)
{
    return strstr(file->name, "-shm") || (strstr(file->name, "-wal") && !file->n_bytes);
}

TOOL void check_kept(const char *what, const struct kept_files *kept)
{
    struct kept_files now;
    keep_files(beside(".damaged-1"), &now);
    for (size_t i = 0; i < kept->n; i++) {
        const struct kept_file *was = &kept->files[i], *is = kept_file(&now, was->name);
        if (is_nothing(was))
            continue;
        if (!is || is->n_bytes != was->n_bytes || memcmp(is->bytes, was->bytes, was->n_bytes))
            FAIL("%s: %s of the damaged database was changed", what, was->name);
    }
    for (size_t i = 0; i < now.n; i++) {
        if (!kept_file(kept, now.files[i].name) && strcmp(now.files[i].name, "state") &&
            !strstr(now.files[i].name, "-shm"))
            FAIL("%s: %s came into the damaged database", what, now.files[i].name);
        vdb_free(tool_memory(), now.files[i].bytes);
    }
}

TOOL bool exists(const char *path)
{
    struct stat status;
    return !stat(path, &status);
}

/* The files are in place. Repair, compare, remove all. `found` may be NULL. */
TOOL void repair_and_compare(const char *what, const struct kept_files *damaged, struct told *told, struct found *found)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct found own;
    uint64_t n_lost = 99;
    found = found ? found : &own;
    *told = (struct told){0};
    vecdb_options options = {.size = sizeof options, .threads = VECDB_THREADS_NONE};
    int status = vecdb_repair(directory(), &options, NULL, note_problem, told, &n_lost, &err);
    check_sentence(what, status, &err);
    if (status)
        FAIL("%s: repair says %s: %s; told:\n%s", what, vecdb_status_name(status), err.message, told->all);
    CHECK_SIZE(n_lost, told->n_lost);
    CHECK(!exists(beside(".repairing")));
    CHECK(!exists(beside(".repaired")));
    if (exists(beside(".damaged-1")))
        check_kept(what, damaged);
    vecdb *db = open_database(directory(), VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    check_database(db, what);
    compare_database(db, found);
    check_told(what, found, told);
    vecdb_close(db);
    remove_database(beside(".damaged-1"));
}

TOOL struct kept_file *file_of(struct kept_files *kept, const char *name)
{
    for (size_t i = 0; i < kept->n; i++)
        if (!strncmp(kept->files[i].name, name, strlen(name)) &&
            (strcmp(name, "catalog.sqlite") || !kept->files[i].name[14]))
            return &kept->files[i];
    FAIL("there is no file %s", name);
}

enum harm { HARM_FLIP, HARM_ZERO, HARM_NOISE, N_HARMS };
TOOL const char *const harm_names[] = {"one flipped bit", "zeros", "noise"};

TOOL void harm(unsigned char *bytes, size_t n, enum harm how, struct vdb_random *random)
{
    if (how == HARM_FLIP)
        bytes[vdb_random_below(random, n)] ^= (unsigned char)(1u << vdb_random_below(random, 8));
    for (size_t i = 0; i < n && how != HARM_FLIP; i++)
        bytes[i] = how == HARM_ZERO ? 0 : (unsigned char)vdb_random_next(random);
}

#endif
