/* SPDX-License-Identifier: Apache-2.0
 *
 * Repair: whatever bytes of a database are damaged, afterwards there is a database that passes its check, in
 * which every record is either as it was written last or is named or counted as lost; nothing is in it that was
 * not written; and the damaged database is kept, byte for byte.
 *
 * The database has a feature of every kind: collections with several fields, with none, with and without
 * metadata and texts, texts long enough for overflow pages, packed vectors and a tail, replaced and deleted
 * records, free pages, and (in the second form) commits that are in the write-ahead log only.
 */
#include <errno.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>

#include "failing.h"
#include "fault_tools.h"
#include "lib/repair.h"

#define N_NOTES 260
#define N_PLAIN 400
#define N_BARE 40
#define TEXT_DIMENSION 12
#define BITS_DIMENSION 40
#define PLAIN_DIMENSION 8

static const char *directory(void)
{
    static char path[256];
    if (!path[0])
        snprintf(path, sizeof path, "%s", test_path("db"));
    return path;
}

static const char *beside(const char *suffix)
{
    static char paths[4][300];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s%s", directory(), suffix);
    return path;
}

/* ------------------------------------------------------------------ what was written */

static uint32_t note_versions[N_NOTES]; /* 0: deleted */

static bool note_has_bits(int i)
{
    return i % 5 != 0;
}

static bool note_has_text(int i)
{
    return i % 7 != 0;
}

static void note_key(int i, char key[24])
{
    snprintf(key, 24, "note-%04d", i);
}

static void note_metadata(int i, uint32_t version, char *out, size_t room)
{
    snprintf(out, room, "{\"note\": %d, \"version\": %u}", i, version);
}

/* Some fill several overflow pages. */
static void note_text(int i, uint32_t version, char *out, size_t room)
{
    size_t length = i % 13 == 0 ? 9000 : i % 11 == 0 ? 4500 : 60 + (size_t)i % 50;
    CHECK(length < room);
    for (size_t at = 0; at < length; at++)
        out[at] = (char)('a' + (at * 7 + (size_t)i * 3 + version) % 26);
    out[length] = '\0';
}

static void bits_of(int i, uint32_t version, unsigned char out[BITS_DIMENSION / 8])
{
    for (unsigned b = 0; b < BITS_DIMENSION / 8; b++)
        out[b] = (unsigned char)((unsigned)i * 31 + version * 7 + b * 57);
}

static void plain_of(int i, unsigned char out[PLAIN_DIMENSION])
{
    for (unsigned b = 0; b < PLAIN_DIMENSION; b++)
        out[b] = (unsigned char)((unsigned)i * 13 + b * 5);
}

static void put_note(vecdb_collection *notes, int i, uint32_t version)
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

static void put_plain(vecdb_collection *plain, int first, int n)
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

static void put_bare(vecdb_collection *bare, int i)
{
    vecdb_error err = VECDB_ERROR_INIT;
    char metadata[64];
    note_metadata(i, 1, metadata, sizeof metadata);
    vecdb_record record = {.key = vecdb_key_int(i), .metadata = metadata};
    CHECK_OK(err, vecdb_put(bare, &record, 1, &err));
}

static void fill_gone(vecdb *db)
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
static void make_database(bool in_wal, struct kept_files *kept)
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

static uint64_t count_in(const char *message)
{
    const char *colon = strstr(message, ": ");
    unsigned long long n = 1;
    if (colon && sscanf(colon + 2, "%llu records", &n) == 1 && strstr(colon, "records"))
        return n;
    return 1;
}

static void note_problem(void *context, const vecdb_problem *problem)
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

static void compare_text(struct found *found, const char *is, size_t length, const char *was, uint64_t *missing)
{
    if (!is)
        ++*missing;
    else if (length != strlen(was) || memcmp(is, was, length))
        found->wrong++;
}

static void compare_note(struct found *found, vecdb_results *results, int i)
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

static vecdb_results *get_one(vecdb_collection *collection, const vecdb_key *key)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_results *results;
    CHECK_OK(err, vecdb_get(collection, key, 1, VECDB_METADATA | VECDB_TEXT | VECDB_VECTORS, &results, &err));
    return results;
}

/* A collection whose name was lost is found by what is in it: then it is not compared, only counted. */
static bool find_collection(vecdb *db, const char *name, vecdb_collection **collection)
{
    return !vecdb_collection_open(db, name, collection, NULL);
}

static uint64_t count_records(vecdb_collection *collection);

static int note_count(void *context, const vecdb_collection_info *info)
{
    *(uint64_t *)context = info->n_records;
    return 0;
}

static uint64_t count_records(vecdb_collection *collection)
{
    vecdb_error err = VECDB_ERROR_INIT;
    uint64_t n = 0;
    CHECK_OK(err, vecdb_collection_describe(collection, note_count, &n, &err));
    return n;
}

static void compare_database(vecdb *db, struct found *found)
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

static void check_told(const char *what, const struct found *found, const struct told *told)
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

static void check_kept(const char *what, const struct kept_files *kept)
{
    struct kept_files now;
    keep_files(beside(".damaged-1"), &now);
    for (size_t i = 0; i < kept->n; i++) {
        const struct kept_file *was = &kept->files[i], *is = kept_file(&now, was->name);
        if (strstr(was->name, "-shm")) /* memory, not part of the format */
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

static bool exists(const char *path)
{
    struct stat status;
    return !stat(path, &status);
}

/* The files are in place. Repair, compare, remove all. `found` may be NULL. */
static void repair_and_compare(const char *what, const struct kept_files *damaged, struct told *told,
                               struct found *found)
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

static struct kept_file *file_of(struct kept_files *kept, const char *name)
{
    for (size_t i = 0; i < kept->n; i++)
        if (!strncmp(kept->files[i].name, name, strlen(name)) &&
            (strcmp(name, "catalog.sqlite") || !kept->files[i].name[14]))
            return &kept->files[i];
    FAIL("there is no file %s", name);
}

enum harm { HARM_FLIP, HARM_ZERO, HARM_NOISE, N_HARMS };
static const char *const harm_names[] = {"one flipped bit", "zeros", "noise"};

static void harm(unsigned char *bytes, size_t n, enum harm how, struct vdb_random *random)
{
    if (how == HARM_FLIP)
        bytes[vdb_random_below(random, n)] ^= (unsigned char)(1u << vdb_random_below(random, 8));
    for (size_t i = 0; i < n && how != HARM_FLIP; i++)
        bytes[i] = how == HARM_ZERO ? 0 : (unsigned char)vdb_random_next(random);
}

/* Damage one piece after another of a file, each in every way. */
static void harm_pieces(struct kept_files *kept, const char *name, size_t first, size_t piece, size_t step)
{
    struct vdb_random random;
    random.state = test_seed();
    struct kept_file *file = file_of(kept, name);
    unsigned char *whole = vdb_alloc(tool_memory(), piece);
    CHECK(whole);
    uint64_t n_whole = 0, n_trials = 0;
    for (size_t at = first; at + piece <= file->n_bytes; at += step * piece) {
        for (int how = 0; how < N_HARMS; how++) {
            char what[160];
            struct told told;
            struct found found;
            memcpy(whole, file->bytes + at, piece);
            harm(file->bytes + at, piece, how, &random);
            snprintf(what, sizeof what, "%s, %zu bytes from %zu (page %zu): %s", file->name, piece, at, at / 4096 + 1,
                     harm_names[how]);
            restore_files(directory(), kept);
            repair_and_compare(what, kept, &told, &found);
            n_trials++;
            n_whole += !found.records && !found.metadata && !found.text && !found.vectors[0] && !found.vectors[1] &&
                       !found.vectors[2];
            memcpy(file->bytes + at, whole, piece);
        }
    }
    vdb_free(tool_memory(), whole);
    printf("    %s: %llu damages, after %llu of them nothing was missing\n", name, (unsigned long long)n_trials,
           (unsigned long long)n_whole);
}

/* ------------------------------------------------------------------ tests */

TEST(a_database_that_is_whole_stays_as_it_is)
{
    static struct kept_files kept, now;
    vecdb_error err = VECDB_ERROR_INIT;
    struct told told = {0};
    uint64_t n_lost = 99;
    make_database(false, &kept);
    CHECK_OK(err, vecdb_repair(directory(), NULL, NULL, note_problem, &told, &n_lost, &err));
    CHECK_SIZE(n_lost, 0);
    CHECK_SIZE(told.used, 0);
    CHECK(!exists(beside(".damaged-1")));
    keep_files(directory(), &now);
    for (size_t i = 0; i < kept.n; i++) {
        const struct kept_file *is = kept_file(&now, kept.files[i].name);
        CHECK(is && is->n_bytes == kept.files[i].n_bytes && !memcmp(is->bytes, kept.files[i].bytes, is->n_bytes));
    }
}

TEST(a_database_after_a_crash_is_whole)
{
    static struct kept_files kept;
    struct told told;
    struct found found;
    make_database(true, &kept);
    restore_files(directory(), &kept);
    repair_and_compare("after a crash", &kept, &told, &found);
    CHECK_SIZE(told.used, 0);
    CHECK_SIZE(found.records + found.wrong + found.metadata + found.text, 0);
}

TEST(any_page_of_the_catalog_may_be_damaged)
{
    static struct kept_files kept;
    test_time_limit(900);
    make_database(false, &kept);
    size_t n_pages = file_of(&kept, "catalog.sqlite")->n_bytes / 4096;
    size_t most = test_rounds(40);
    size_t step = n_pages > most ? n_pages / most : 1;
    harm_pieces(&kept, "catalog.sqlite", step > 1 ? 4096 * (test_seed() % step) : 0, 4096, step);
}

TEST(the_first_pages_of_the_catalog_may_be_damaged)
{
    static struct kept_files kept;
    test_time_limit(300);
    make_database(false, &kept);
    file_of(&kept, "catalog.sqlite");
    struct kept_file *file = file_of(&kept, "catalog.sqlite");
    size_t all = file->n_bytes;
    (void)all;
    struct vdb_random random;
    random.state = test_seed();
    for (size_t page = 0; page < 24; page++) {
        unsigned char whole[4096];
        char what[64];
        struct told told;
        memcpy(whole, file->bytes + page * 4096, sizeof whole);
        harm(file->bytes + page * 4096, sizeof whole, (enum harm)(page % N_HARMS), &random);
        snprintf(what, sizeof what, "page %zu: %s", page + 1, harm_names[page % N_HARMS]);
        restore_files(directory(), &kept);
        repair_and_compare(what, &kept, &told, NULL);
        memcpy(file->bytes + page * 4096, whole, sizeof whole);
    }
}

TEST(vector_files_may_be_damaged_anywhere)
{
    static struct kept_files kept;
    test_time_limit(600);
    make_database(false, &kept);
    for (size_t i = 0; i < kept.n; i++) {
        const char *name = kept.files[i].name;
        if (strncmp(name, "vectors-", 8))
            continue;
        size_t n = kept.files[i].n_bytes / 64, most = test_rounds(12);
        harm_pieces(&kept, name, 0, 64, n > most ? n / most : 1);
    }
}

TEST(the_log_may_be_damaged_anywhere)
{
    static struct kept_files kept;
    test_time_limit(600);
    make_database(true, &kept);
    size_t n = file_of(&kept, "catalog.sqlite-wal")->n_bytes / 4120, most = test_rounds(25);
    harm_pieces(&kept, "catalog.sqlite-wal", 32, 4120, n > most ? n / most : 1);
    harm_pieces(&kept, "catalog.sqlite-wal", 0, 32, n * 4120 / 32 + 1);
}

TEST(state_may_be_damaged_missing_or_of_another_database)
{
    static struct kept_files kept;
    struct told told;
    struct found found;
    make_database(false, &kept);
    struct kept_file *state = file_of(&kept, "state");
    for (size_t at = 0; at < 160; at += 7) {
        state->bytes[at] ^= 0x41;
        char what[64];
        snprintf(what, sizeof what, "byte %zu of state", at);
        restore_files(directory(), &kept);
        repair_and_compare(what, &kept, &told, &found);
        state->bytes[at] ^= 0x41;
        CHECK_SIZE(found.records + found.wrong, 0);
        CHECK_SIZE(told.n_lost, 0);
        CHECK(told.n_healed >= 1);
        CHECK(!exists(beside(".damaged-1")));
        CHECK(exists(beside("/state-damaged-1")));
    }
    restore_files(directory(), &kept);
    unlink(beside("/state"));
    repair_and_compare("a missing state", &kept, &told, &found);
    CHECK_SIZE(found.records + found.wrong, 0);
    CHECK_CONTAINS(told.all, "it was missing");
    /* Of another database. */
    vecdb_close(open_database(test_path("other"), VECDB_OPEN_NEW, VECDB_THREADS_NONE));
    static struct kept_files other;
    keep_files(test_path("other"), &other);
    restore_files(directory(), &kept);
    write_file(beside("/state"), file_of(&other, "state")->bytes, 4096);
    repair_and_compare("another's state", &kept, &told, &found);
    CHECK_SIZE(found.records + found.wrong, 0);
    CHECK_CONTAINS(told.all, "another database");
}

TEST(files_may_be_missing_or_cut_short)
{
    static struct kept_files both[2], kept, fewer;
    struct told told;
    test_time_limit(600);
    for (int in_wal = 0; in_wal < 2; in_wal++) {
        if (in_wal)
            remove_database(directory());
        make_database(in_wal != 0, &both[in_wal]);
        kept = both[in_wal];
        for (size_t i = 0; i < kept.n; i++) {
            const char *name = kept.files[i].name;
            if (!strcmp(name, "catalog.sqlite") || !strcmp(name, "state") || strstr(name, "-shm"))
                continue;
            char what[128];
            fewer = kept;
            fewer.files[i] = fewer.files[--fewer.n];
            snprintf(what, sizeof what, "%s is missing", name);
            restore_files(directory(), &fewer);
            repair_and_compare(what, &fewer, &told, NULL);
            fewer = kept;
            for (unsigned part = 1; part < 4; part++) {
                fewer.files[i].n_bytes = kept.files[i].n_bytes * part / 4 + part * 7;
                if (fewer.files[i].n_bytes >= kept.files[i].n_bytes)
                    continue;
                snprintf(what, sizeof what, "%s is cut to %zu bytes", name, fewer.files[i].n_bytes);
                restore_files(directory(), &fewer);
                repair_and_compare(what, &fewer, &told, NULL);
            }
        }
    }
}

TEST(a_catalog_that_is_missing_cannot_be_repaired)
{
    static struct kept_files kept;
    vecdb_error err = VECDB_ERROR_INIT;
    make_database(false, &kept);
    unlink(beside("/catalog.sqlite"));
    CHECK_FAILS(err, VECDB_CORRUPT, "backup", vecdb_repair(directory(), NULL, NULL, NULL, NULL, NULL, &err));
    CHECK(exists(beside("/state")));
    CHECK(!exists(beside(".repairing")));
    CHECK(!exists(beside(".damaged-1")));
}

TEST(damages_at_many_places_at_once)
{
    static struct kept_files kept;
    struct vdb_random random;
    test_time_limit(600);
    random.state = test_seed();
    make_database(true, &kept);
    for (unsigned long round = 0; round < test_rounds(30); round++) {
        static struct kept_files damaged;
        struct told told;
        char what[64];
        damaged = kept;
        unsigned n_flips = 2 + (unsigned)vdb_random_below(&random, 6);
        for (size_t i = 0; i < kept.n; i++) {
            damaged.files[i].bytes = vdb_alloc(tool_memory(), kept.files[i].n_bytes + 1);
            CHECK(damaged.files[i].bytes);
            memcpy(damaged.files[i].bytes, kept.files[i].bytes, kept.files[i].n_bytes);
        }
        for (unsigned n = 0; n < n_flips; n++) {
            struct kept_file *file = &damaged.files[vdb_random_below(&random, damaged.n)];
            if (file->n_bytes > 1 && !strstr(file->name, "-shm"))
                harm(file->bytes, file->n_bytes, HARM_FLIP, &random);
        }
        snprintf(what, sizeof what, "round %lu with %u flips", round, n_flips);
        restore_files(directory(), &damaged);
        repair_and_compare(what, &damaged, &told, NULL);
        for (size_t i = 0; i < kept.n; i++)
            vdb_free(tool_memory(), damaged.files[i].bytes);
    }
}

TEST(a_database_in_use_is_busy)
{
    static struct kept_files kept;
    vecdb_error err = VECDB_ERROR_INIT;
    make_database(false, &kept);
    vecdb *db = open_database(directory(), VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    CHECK_FAILS(err, VECDB_BUSY, "open", vecdb_repair(directory(), NULL, NULL, NULL, NULL, NULL, &err));
    vecdb_close(db);
    int pipes[2];
    CHECK(!pipe(pipes));
    pid_t child = fork();
    if (!child) {
        vecdb *own = NULL;
        char byte = vecdb_open(directory(), NULL, &own, NULL) ? 'x' : 'o';
        if (write(pipes[1], &byte, 1) == 1)
            pause();
        _exit(0);
    }
    char byte = 0;
    CHECK(read(pipes[0], &byte, 1) == 1 && byte == 'o');
    CHECK_FAILS(err, VECDB_BUSY, "open", vecdb_repair(directory(), NULL, NULL, NULL, NULL, NULL, &err));
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    CHECK_OK(err, vecdb_repair(directory(), NULL, NULL, NULL, NULL, NULL, &err));
}

TEST(what_is_no_database_is_refused)
{
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_FAILS(err, VECDB_NOT_FOUND, "no vecdb database",
                vecdb_repair(test_path("none"), NULL, NULL, NULL, NULL, NULL, &err));
    CHECK(!mkdir(test_path("empty"), 0777));
    CHECK_FAILS(err, VECDB_NOT_FOUND, "no vecdb database",
                vecdb_repair(test_path("empty"), NULL, NULL, NULL, NULL, NULL, &err));
    write_file(test_path("file"), "x", 1);
    CHECK_FAILS(err, VECDB_INVALID, "is a file", vecdb_repair(test_path("file"), NULL, NULL, NULL, NULL, NULL, &err));
    CHECK_FAILS(err, VECDB_INVALID, "directory", vecdb_repair(":memory:", NULL, NULL, NULL, NULL, NULL, &err));
    CHECK_FAILS(err, VECDB_INVALID, "directory", vecdb_repair(NULL, NULL, NULL, NULL, NULL, NULL, &err));
}

/* A page of records is zeros, and one of vectors is flipped: enough for a rebuild with losses. */
static void damage_two(struct kept_files *kept)
{
    struct kept_file *catalog = file_of(kept, "catalog.sqlite"), *vectors = file_of(kept, "vectors-1-1");
    memset(catalog->bytes + catalog->n_bytes / 4096 / 2 * 4096, 0, 4096);
    vectors->bytes[2000] ^= 1;
}

static int interrupt_at;
static int count_down(void *context, const vecdb_progress *progress)
{
    (void)context;
    CHECK_STRING(progress->phase, "repair");
    return interrupt_at-- <= 0;
}

static void check_unchanged(const char *what, const struct kept_files *kept)
{
    struct kept_files now;
    keep_files(directory(), &now);
    for (size_t i = 0; i < kept->n; i++) {
        const struct kept_file *is = kept_file(&now, kept->files[i].name);
        if (!is || is->n_bytes != kept->files[i].n_bytes || memcmp(is->bytes, kept->files[i].bytes, is->n_bytes))
            FAIL("%s: %s was changed", what, kept->files[i].name);
    }
    for (size_t i = 0; i < now.n; i++)
        vdb_free(tool_memory(), now.files[i].bytes);
}

TEST(a_repair_can_be_interrupted_and_begun_again)
{
    static struct kept_files kept;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_work work = {.size = sizeof work, .progress = count_down};
    struct told told;
    make_database(false, &kept);
    damage_two(&kept);
    restore_files(directory(), &kept);
    for (int at = 0; at < 12; at++) {
        interrupt_at = at;
        int status = vecdb_repair(directory(), NULL, &work, NULL, NULL, NULL, &err);
        if (status != VECDB_INTERRUPTED)
            break;
        CHECK(!exists(beside(".repairing")));
        CHECK(!exists(beside(".damaged-1")));
        check_unchanged("interrupted", &kept);
    }
    restore_files(directory(), &kept);
    remove_database(beside(".damaged-1"));
    repair_and_compare("after interruptions", &kept, &told, NULL);
}

/* ------------------------------------------------------------------ faults */

struct fault {
    long left; /* operations that succeed */
    int os_error;
    bool only_once;
    bool kills; /* the process ends, as at a power cut */
    bool happened;
};

static int fail_later(void *context, enum vdb_io_op op, const char *path)
{
    (void)op, (void)path;
    struct fault *fault = context;
    if (fault->left-- > 0 || (fault->only_once && fault->happened))
        return 0;
    fault->happened = true;
    if (fault->kills)
        _exit(9);
    return fault->os_error;
}

TEST(an_operation_that_fails_leaves_the_database_as_it_was)
{
    static struct kept_files kept;
    test_time_limit(600);
    make_database(false, &kept);
    damage_two(&kept);
    long step = 1 + (long)(200 / test_rounds(40));
    unsigned n_failed = 0;
    for (int how = 0; how < 2; how++) {
        for (long n = (long)(test_seed() % 5);; n += step) {
            vecdb_error err = VECDB_ERROR_INIT;
            struct fault fault = {.left = n, .os_error = how ? ENOSPC : EIO};
            struct vdb_io_hook hook = {fail_later, &fault};
            vecdb_options options = {.size = sizeof options, .threads = VECDB_THREADS_NONE};
            struct told told = {0};
            remove_database(beside(".repairing"));
            remove_database(beside(".repaired"));
            remove_database(beside(".damaged-1"));
            restore_files(directory(), &kept);
            int status = vdb_database_repair(directory(), &options, &hook, NULL, note_problem, &told, NULL, &err);
            check_sentence("a failing operation", status, &err);
            if (!fault.happened)
                break;
            /* Names may have been exchanged; then only their last sync has failed. */
            n_failed += status != 0;
            if (status && !exists(beside(".damaged-1")))
                check_unchanged("a failing operation", &kept);
            if (status && exists(beside(".damaged-1")))
                check_kept("a failing operation", &kept);
            char what[64];
            snprintf(what, sizeof what, "after operation %ld failed", n);
            if (!exists(beside(".damaged-1")))
                repair_and_compare(what, &kept, &told, NULL);
            else
                CHECK(!vecdb_repair(directory(), NULL, NULL, NULL, NULL, NULL, &err));
            step += step / 8;
        }
    }
    CHECK(n_failed > 10);
}

TEST(an_allocation_that_fails_leaves_the_database_as_it_was)
{
    static struct kept_files kept;
    test_time_limit(600);
    make_database(false, &kept);
    damage_two(&kept);
    unsigned n_failed = 0;
    int step = 1;
    for (int n = (int)(test_seed() % 3);; n += step) {
        struct failing failing;
        struct vdb_memory memory;
        vecdb_error err = VECDB_ERROR_INIT;
        failing_begin(&failing, &memory, n);
        vecdb_options options = {.size = sizeof options, .threads = VECDB_THREADS_NONE, .allocator = memory.allocator};
        restore_files(directory(), &kept);
        int status = vecdb_repair(directory(), &options, NULL, NULL, NULL, NULL, &err);
        check_sentence("a failing allocation", status, &err);
        if (!failing_has_failed(&failing)) {
            CHECK_INT(status, VECDB_OK);
            break;
        }
        n_failed += status != 0;
        CHECK(!exists(beside(".repaired")));
        if (status && !exists(beside(".damaged-1")))
            check_unchanged("a failing allocation", &kept);
        remove_database(beside(".damaged-1"));
        step += n > 60 ? step / 8 + 1 : 0;
    }
    CHECK(n_failed > 10);
}

TEST(a_repair_that_is_killed_is_completed_by_the_next)
{
    static struct kept_files kept;
    test_time_limit(600);
    make_database(false, &kept);
    damage_two(&kept);
    unsigned n_killed = 0, n_between = 0;
    /* The last operations are the renames: count them all first. */
    struct fault count = {.left = 1000000000};
    struct vdb_io_hook hook = {fail_later, &count};
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_options options = {.size = sizeof options, .threads = VECDB_THREADS_NONE};
    restore_files(directory(), &kept);
    CHECK_OK(err, vdb_database_repair(directory(), &options, &hook, NULL, NULL, NULL, NULL, &err));
    long n_all = 1000000000 - count.left;
    remove_database(beside(".damaged-1"));
    long step = 1 + n_all / (long)test_rounds(30), near_end = n_all - 16;
    for (long n = 0; n < n_all; n = n < near_end && n + step < near_end ? n + step : n < near_end ? near_end : n + 1) {
        restore_files(directory(), &kept);
        pid_t child = fork();
        if (!child) {
            struct fault fault = {.left = n, .kills = true};
            struct vdb_io_hook kill_hook = {fail_later, &fault};
            vdb_database_repair(directory(), &options, &kill_hook, NULL, NULL, NULL, NULL, NULL);
            _exit(0);
        }
        int how;
        CHECK(waitpid(child, &how, 0) == child && WIFEXITED(how));
        n_killed += WEXITSTATUS(how) == 9;
        struct told told = {0};
        bool is_between = !exists(directory());
        n_between += is_between;
        if (is_between) {
            vecdb *db;
            CHECK_FAILS(err, VECDB_BUSY, "repair", vecdb_open(directory(), NULL, &db, &err));
        }
        bool was_moved = exists(beside(".damaged-1"));
        char what[64];
        snprintf(what, sizeof what, "killed at operation %ld of %ld", n, n_all);
        CHECK_OK(err, vecdb_repair(directory(), &options, NULL, note_problem, &told, NULL, &err));
        CHECK(!exists(beside(".repairing")));
        CHECK(!exists(beside(".repaired")));
        check_kept(what, &kept);
        CHECK(!exists(beside(".damaged-2")));
        vecdb *db = open_database(directory(), VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
        struct found found;
        check_database(db, what);
        compare_database(db, &found);
        vecdb_close(db);
        if (!was_moved)
            check_told(what, &found, &told);
        remove_database(beside(".damaged-1"));
    }
    CHECK(n_killed > 10);
    CHECK(n_between >= 1);
}

TEST(the_new_database_has_the_uuid_and_a_higher_number)
{
    static struct kept_files kept, now;
    struct told told;
    vecdb_error err = VECDB_ERROR_INIT;
    make_database(false, &kept);
    unsigned char uuid[16];
    memcpy(uuid, file_of(&kept, "state")->bytes + 16, 16);
    vecdb_stats stats = {.size = sizeof stats};
    vecdb *db = open_database(directory(), VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    CHECK_OK(err, vecdb_database_stats(db, &stats, &err));
    uint64_t before = stats.sequence;
    vecdb_close(db);
    damage_two(&kept);
    restore_files(directory(), &kept);
    repair_and_compare("numbers", &kept, &told, NULL);
    CHECK(told.n_lost > 0);
    CHECK_CONTAINS(told.last, ".damaged-1");
    keep_files(directory(), &now);
    CHECK(!memcmp(file_of(&now, "state")->bytes + 16, uuid, 16));
    db = open_database(directory(), VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    CHECK_OK(err, vecdb_database_stats(db, &stats, &err));
    CHECK(stats.sequence > before);
    vecdb_close(db);
}

/* ------------------------------------------------------------------ snapshots */

static vecdb *open_snapshot(const char *name, vecdb_error *err)
{
    vecdb_options options = {
        .size = sizeof options, .mode = VECDB_OPEN_READONLY, .threads = VECDB_THREADS_NONE, .snapshot = name};
    vecdb *db = NULL;
    return vecdb_open(directory(), &options, &db, err) ? NULL : db;
}

static void flip_on_disk(const char *path, off_t at)
{
    unsigned char byte;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0 && pread(fd, &byte, 1, at) == 1);
    byte ^= 0x10;
    CHECK(pwrite(fd, &byte, 1, at) == 1 && !close(fd));
}

TEST(snapshots_that_are_whole_are_carried_over_and_damaged_ones_are_told)
{
    static struct kept_files kept;
    vecdb_error err = VECDB_ERROR_INIT;
    struct told told = {0};
    struct found found;
    make_database(false, &kept);
    vecdb *db = open_database(directory(), VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    CHECK_OK(err, vecdb_snapshot_create(db, "first", &err));
    CHECK_OK(err, vecdb_snapshot_create(db, "second", &err));
    vecdb_collection *notes;
    CHECK_OK(err, vecdb_collection_open(db, "notes", &notes, &err));
    vecdb_close(db);
    flip_on_disk(beside("/snapshot-2/catalog.sqlite"), 9 * 4096 + 2000);
    flip_on_disk(beside("/catalog.sqlite"), 12 * 4096 + 2000);
    uint64_t n_lost;
    CHECK_OK(err, vecdb_repair(directory(), NULL, NULL, note_problem, &told, &n_lost, &err));
    CHECK_CONTAINS(told.all, "the snapshot \"second\" is lost");
    CHECK(!strstr(told.all, "\"first\""));
    CHECK(exists(beside(".damaged-1/snapshot-1/catalog.sqlite")));
    CHECK(exists(beside(".damaged-1/snapshot-2/catalog.sqlite")));
    CHECK((db = open_snapshot("first", &err)));
    check_database(db, "a snapshot that was carried over");
    compare_database(db, &found);
    CHECK_SIZE(found.records + found.metadata + found.text + found.wrong + found.vectors[0] + found.vectors[2], 0);
    vecdb_close(db);
    CHECK(!open_snapshot("second", &err));
    CHECK_INT(err.status, VECDB_NOT_FOUND);
    db = open_database(directory(), VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    check_database(db, "with a snapshot");
    CHECK_OK(err, vecdb_snapshot_create(db, "third", &err));
    vecdb_close(db);
}

/* ------------------------------------------------------------------ another program */

TEST(a_catalog_that_another_sqlite_wrote_is_taken_as_it_is_and_told_once)
{
    static struct kept_files kept, stock;
    struct told told;
    struct found found;
    sqlite3 *sqlite;
    make_database(false, &kept);
    CHECK_INT(sqlite3_open_v2(beside("/catalog.sqlite"), &sqlite, SQLITE_OPEN_READWRITE, "unix"), SQLITE_OK);
    CHECK_INT(sqlite3_exec(sqlite, "VACUUM", NULL, NULL, NULL), SQLITE_OK);
    CHECK_INT(sqlite3_close(sqlite), SQLITE_OK);
    keep_files(directory(), &stock);
    repair_and_compare("after another SQLite", &stock, &told, &found);
    CHECK_SIZE(found.records + found.metadata + found.text + found.wrong + found.vectors[0] + found.vectors[1], 0);
    CHECK_SIZE(told.n_lost, 0);
    CHECK_SIZE(told.n_doubtful, 1);
    CHECK_CONTAINS(told.all, "another SQLite");
}
