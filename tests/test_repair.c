/* SPDX-License-Identifier: Apache-2.0
 *
 * Repair: whatever bytes of a database are damaged, afterwards there is a database that passes its check, in
 * which every record is either as it was written last or is named or counted as lost; nothing is in it that was
 * not written; and the damaged database is kept, byte for byte.
 */
#include <sqlite3.h>

#include "repair_tools.h"

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
