/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/test_soak.c - writers, readers, compaction and backups together, for as long as one likes
 *
 * Four processes write, eight read, one compacts, makes backups and snapshots, all in one database and with the
 * default timeout. A writer owns groups of records; each of its calls puts a whole group or deletes it, and
 * makes the group's next version. Memory that all processes share says which version of each group was begun
 * and which was acknowledged. The properties:
 *   1. No call has an error (but BUSY for a compaction: the work is being done by someone else).
 *   2. What a get, a search or a scan finds of a group is all of one version: every record, each with the
 *      vector and the metadata of that version.
 *   3. That version is not older than the last one acknowledged before the call, not newer than the last one
 *      begun when it has returned, and not older than what the same reader has seen of the group before.
 *   4. A backup and a snapshot are such a state too, and vecdb_check finds nothing in the backup.
 *   5. Large groups have a second vector, in a field with a graph. What a search of it finds is of such a state
 *      too, ten records, and nearly always the very one whose vector is asked for.
 *   6. At the end every group is as it was acknowledged last, and vecdb_check finds nothing.
 *
 * VECDB_TEST_ROUNDS says how many seconds (default 5); `make soak SOAK_S=600` runs ten minutes. It prints what
 * was done, the smallest and the largest share of a writer, and the longest that one commit took.
 */
#include <dirent.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "base/threads.h"
#include "fault_tools.h"

#define N_WRITERS 4u
#define N_READERS 8u
#define GROUPS_EACH 16u
#define N_GROUPS (N_WRITERS * GROUPS_EACH)
#define GROUP_KEYS 1000u
#define DIMENSION 128u
#define GRAPH_DIMENSION 16u /* a part of the vector, behind group and version */
#define MOST_ROWS 280u /* 140 KiB: into an extent of its own */
#define APART 1000.0f  /* vectors of different groups: far more than versions of one group ever are */

struct shared {
    atomic_bool is_over;
    _Atomic uint32_t begun[N_GROUPS], acknowledged[N_GROUPS];
    _Atomic uint64_t n_commits[N_WRITERS], longest_ns[N_WRITERS];
    _Atomic uint64_t n_graph_searches, n_graphs_used, n_asked, n_found; /* n_asked: for what surely was there */
    _Atomic uint64_t n_gets, n_searches, n_scans, n_compactions, n_backups, n_snapshots;
};

static struct shared *shared;

static uint32_t rows_of(uint32_t group)
{
    return group % 8 == 7 ? MOST_ROWS : 1 + group * 7 % 40;
}

static bool has_graph(uint32_t group)
{
    return group % 8 == 7;
}

/* Version 0 is nothing yet; every fifth deletes the group. */
static bool is_deleted(uint32_t version)
{
    return version % 5 == 0;
}

static int64_t key_of(uint32_t group, uint32_t row)
{
    return (int64_t)group * GROUP_KEYS + row;
}

/* Group and version can be read from a vector, and the rest of it follows from them. */
static void make_vector(uint32_t group, uint32_t version, uint32_t row, float vector[DIMENSION])
{
    uint32_t hash = group * 2654435761u + version * 40503u + row * 9973u;
    vector[0] = (float)group * APART;
    vector[1] = (float)version * 0x1p-10f;
    for (uint32_t i = 2; i < DIMENSION; i++) {
        hash = hash * 1664525u + 1013904223u;
        vector[i] = (float)(hash >> 24) * 0x1p-8f;
    }
}

static uint32_t version_in(const float *vector)
{
    return (uint32_t)(vector[1] * 0x1p10f);
}

static int make_metadata(uint32_t group, uint32_t version, uint32_t row, char out[96])
{
    return snprintf(out, 96, "{\"group\": %u, \"version\": %u, \"row\": %u}", group, version, row);
}

static vecdb *open_soaked(const char *path, const char *snapshot, bool readonly, vecdb_collection **collection)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_options options = {.size = sizeof options, .snapshot = snapshot, .memory_bytes = 32u << 20};
    options.mode = readonly ? VECDB_OPEN_READONLY : VECDB_OPEN_EXISTING;
    vecdb *db;
    CHECK_OK(err, vecdb_open(path, &options, &db, &err));
    CHECK_OK(err, vecdb_collection_open(db, "soak", collection, &err));
    return db;
}

/* ------------------------------------------------------------------ writers */

static void put_group(vecdb_collection *collection, uint32_t group, uint32_t version)
{
    static float vectors[MOST_ROWS][DIMENSION];
    static char metadata[MOST_ROWS][96];
    static vecdb_record records[MOST_ROWS];
    static vecdb_vector parts[MOST_ROWS];
    vecdb_error err = VECDB_ERROR_INIT;
    uint32_t n = rows_of(group);
    for (uint32_t row = 0; row < n; row++) {
        make_vector(group, version, row, vectors[row]);
        records[row] = (vecdb_record){.key = vecdb_key_int(key_of(group, row)), .vector = vectors[row]};
        records[row].dimension = DIMENSION;
        parts[row] = (vecdb_vector){.field = "graph", .values = vectors[row] + 2, .dimension = GRAPH_DIMENSION};
        records[row].vectors = &parts[row];
        records[row].n_vectors = has_graph(group);
        records[row].metadata_length = (size_t)make_metadata(group, version, row, metadata[row]);
        records[row].metadata = metadata[row];
    }
    CHECK_OK(err, vecdb_put(collection, records, n, &err));
}

static void delete_group(vecdb_collection *collection, uint32_t group)
{
    vecdb_key keys[MOST_ROWS];
    vecdb_error err = VECDB_ERROR_INIT;
    uint64_t n_deleted;
    for (uint32_t row = 0; row < rows_of(group); row++)
        keys[row] = vecdb_key_int(key_of(group, row));
    CHECK_OK(err, vecdb_delete(collection, keys, rows_of(group), &n_deleted, &err));
    CHECK_SIZE(n_deleted, rows_of(group));
}

static void run_writer(uint32_t writer)
{
    vecdb_collection *collection;
    vecdb *db = open_soaked(test_path("db"), NULL, false, &collection);
    struct vdb_random random = {test_seed() + writer};
    while (!shared->is_over) {
        uint32_t group = writer * GROUPS_EACH + (uint32_t)vdb_random_below(&random, GROUPS_EACH);
        uint32_t version = shared->begun[group] + 1;
        shared->begun[group] = version;
        uint64_t start = vdb_now_ns();
        if (is_deleted(version))
            delete_group(collection, group);
        else
            put_group(collection, group, version);
        uint64_t taken = vdb_now_ns() - start;
        shared->acknowledged[group] = version;
        shared->n_commits[writer]++;
        if (vdb_random_below(&random, 100) == 0) {
            vecdb_error err = VECDB_ERROR_INIT;
            CHECK_OK(err, vecdb_index_wait(collection, "graph", 0, NULL, &err));
        }
        if (taken > shared->longest_ns[writer])
            shared->longest_ns[writer] = taken;
    }
    vecdb_close(db);
}

/* ------------------------------------------------------------------ what is seen of a group */

struct sight {
    uint32_t at_least, at_most; /* versions that are allowed */
    uint32_t version, n_rows;   /* as found */
};

static void check_row(vecdb_results *results, size_t i, struct sight sights[N_GROUPS])
{
    uint32_t dimension;
    int type;
    size_t length;
    const float *vector = vecdb_result_vector(results, i, NULL, &dimension, &type);
    const char *metadata = vecdb_result_metadata(results, i, &length);
    vecdb_key key = vecdb_result_key(results, i);
    uint32_t group = (uint32_t)(key.integer / GROUP_KEYS), row = (uint32_t)(key.integer % GROUP_KEYS);
    CHECK(!key.text && key.integer >= 0 && group < N_GROUPS && row < rows_of(group));
    CHECK(vector && metadata && dimension == DIMENSION && type == VECDB_F32);
    struct sight *sight = &sights[group];
    float expected[DIMENSION];
    char words[96];
    uint32_t version = version_in(vector);
    if (!sight->n_rows++)
        sight->version = version;
    if (version != sight->version)
        FAIL("group %u: versions %u and %u in one answer", group, sight->version, version);
    make_vector(group, version, row, expected);
    CHECK(!memcmp(expected, vector, sizeof expected));
    CHECK_INT(make_metadata(group, version, row, words), length);
    CHECK(!memcmp(words, metadata, length));
}

/* `seen` (NULL: none): the newest version that the reader saw of each group before. */
static void check_sight(uint32_t group, const struct sight *sight, uint32_t *seen, const char *how)
{
    uint32_t least = seen && seen[group] > sight->at_least ? seen[group] : sight->at_least;
    if (!sight->n_rows) { /* deleted: which version that was is not told, so the newest that it can be */
        uint32_t version = sight->at_most - sight->at_most % 5;
        if (version < least)
            FAIL("%s: group %u is not there, and no version from %u to %u deletes it", how, group, least,
                 sight->at_most);
        return;
    }
    if (sight->n_rows != rows_of(group))
        FAIL("%s: group %u has %u rows instead of %u", how, group, sight->n_rows, rows_of(group));
    if (sight->version < least || sight->version > sight->at_most || is_deleted(sight->version))
        FAIL("%s: group %u is at version %u, not from %u to %u", how, group, sight->version, least, sight->at_most);
    if (seen)
        seen[group] = sight->version;
}

static void look(struct sight *sight, uint32_t group)
{
    *sight = (struct sight){.at_least = shared->acknowledged[group]};
}

static void looked(struct sight *sight, uint32_t group)
{
    sight->at_most = shared->begun[group];
}

/* ------------------------------------------------------------------ readers */

static void get_group(vecdb_collection *collection, uint32_t group, uint32_t *seen)
{
    vecdb_key keys[MOST_ROWS];
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_results *results;
    struct sight sights[N_GROUPS];
    for (uint32_t row = 0; row < rows_of(group); row++)
        keys[row] = vecdb_key_int(key_of(group, row));
    look(&sights[group], group);
    CHECK_OK(err, vecdb_get(collection, keys, rows_of(group), VECDB_METADATA | VECDB_VECTORS, &results, &err));
    looked(&sights[group], group);
    for (size_t i = 0; i < vecdb_results_count(results); i++)
        if (vecdb_result_found(results, i))
            check_row(results, i, sights);
    check_sight(group, &sights[group], seen, "get");
    vecdb_results_free(results);
    shared->n_gets++;
}

/* The group's own records are the nearest, if it has any. */
static void search_group(vecdb_collection *collection, uint32_t group, uint32_t *seen)
{
    float vector[DIMENSION];
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_results *results;
    struct sight sights[N_GROUPS];
    for (uint32_t i = 0; i < N_GROUPS; i++)
        look(&sights[i], i);
    make_vector(group, shared->begun[group], 0, vector);
    vecdb_query query = {.size = sizeof query, .vector = vector, .dimension = DIMENSION, .k = rows_of(group)};
    query.columns = VECDB_METADATA | VECDB_VECTORS;
    CHECK_OK(err, vecdb_search(collection, &query, &results, &err));
    looked(&sights[group], group);
    for (size_t i = 0; i < vecdb_results_count(results); i++)
        check_row(results, i, sights);
    check_sight(group, &sights[group], seen, "search");
    vecdb_results_free(results);
    shared->n_searches++;
}

/* Some records of a large group, and others that are near: not all of a group, but of one version each. */
static void search_graph(vecdb_collection *collection, uint32_t group, uint32_t row, uint32_t *seen)
{
    float vector[DIMENSION];
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_results *results;
    struct sight sights[N_GROUPS];
    vecdb_search_stats stats = {.size = sizeof stats};
    uint32_t version = shared->acknowledged[group];
    for (uint32_t i = 0; i < N_GROUPS; i++)
        look(&sights[i], i);
    make_vector(group, version, row, vector);
    vecdb_query query = {.size = sizeof query, .field = "graph", .vector = vector + 2, .k = 10};
    query.columns = VECDB_METADATA | VECDB_VECTORS;
    CHECK_OK(err, vecdb_search(collection, &query, &results, &err));
    for (uint32_t i = 0; i < N_GROUPS; i++)
        looked(&sights[i], i);
    CHECK_INT(vecdb_results_stats(results, &stats), VECDB_OK);
    shared->n_graphs_used += !strcmp(stats.plan, "hnsw");
    for (size_t i = 0; i < vecdb_results_count(results); i++)
        check_row(results, i, sights);
    for (uint32_t i = 0; i < N_GROUPS; i++) {
        const struct sight *sight = &sights[i];
        uint32_t least = seen[i] > sight->at_least ? seen[i] : sight->at_least;
        if (!sight->n_rows)
            continue;
        CHECK(has_graph(i));
        if (sight->version < least || sight->version > sight->at_most || is_deleted(sight->version))
            FAIL("graph: group %u is at version %u, not from %u to %u", i, sight->version, least, sight->at_most);
        seen[i] = sight->version;
    }
    if (!is_deleted(version) && sights[group].at_most == version) { /* nobody has changed it meanwhile */
        shared->n_asked++;
        shared->n_found += vecdb_results_count(results) && vecdb_result_key(results, 0).integer == key_of(group, row);
        CHECK(vecdb_results_count(results) == 10);
    }
    vecdb_results_free(results);
    shared->n_graph_searches++;
}

/* Everything. `other`: a copy, about which the versions of now say nothing but an upper end. */
static void scan_all(vecdb_collection *collection, const uint32_t *at_least, uint32_t *seen, const char *how)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_scan_options options = {.size = sizeof options, .columns = VECDB_METADATA | VECDB_VECTORS};
    vecdb_scan *scan;
    vecdb_results *results;
    struct sight sights[N_GROUPS];
    for (uint32_t i = 0; i < N_GROUPS; i++) {
        look(&sights[i], i);
        if (at_least)
            sights[i].at_least = at_least[i];
    }
    CHECK_OK(err, vecdb_scan_open(collection, &options, &scan, &err));
    for (uint32_t i = 0; i < N_GROUPS; i++)
        looked(&sights[i], i);
    for (size_t n = 1; n;) {
        CHECK_OK(err, vecdb_scan_next(scan, &results, &err));
        n = vecdb_results_count(results);
        for (size_t i = 0; i < n; i++)
            check_row(results, i, sights);
        vecdb_results_free(results);
    }
    vecdb_scan_close(scan);
    for (uint32_t i = 0; i < N_GROUPS; i++)
        check_sight(i, &sights[i], seen, how);
}

static void run_reader(uint32_t reader)
{
    vecdb_collection *collection;
    uint32_t seen[N_GROUPS] = {0};
    struct vdb_random random = {test_seed() + 1000 + reader};
    while (!shared->is_over) { /* a handle is kept for some hundred calls, then the database is opened anew */
        vecdb *db = open_soaked(test_path("db"), NULL, reader % 2, &collection);
        for (uint64_t left = 200 + vdb_random_below(&random, 2000); left && !shared->is_over; left--) {
            uint32_t group = (uint32_t)vdb_random_below(&random, N_GROUPS),
                     what = (uint32_t)vdb_random_below(&random, 64);
            if (what < 32) {
                get_group(collection, group, seen);
            } else if (what < 44) {
                group |= 7;
                search_graph(collection, group, (uint32_t)vdb_random_below(&random, rows_of(group)), seen);
            } else if (what < 63) {
                search_group(collection, group, seen);
            } else {
                scan_all(collection, NULL, seen, "scan");
                shared->n_scans++;
            }
        }
        vecdb_close(db);
    }
}

/* ------------------------------------------------------------------ upkeep */

static void check_clean(vecdb *db)
{
    vecdb_error err = VECDB_ERROR_INIT;
    uint64_t n_problems;
    CHECK_OK(err, vecdb_check(db, NULL, print_problem, NULL, &n_problems, &err));
    CHECK_SIZE(n_problems, 0);
}

static void remove_directory(const char *path)
{
    DIR *directory = opendir(path);
    char file[1024 + 256];
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
        if (entry->d_name[0] != '.')
            remove(file);
    }
    if (directory)
        closedir(directory);
    rmdir(path);
}

/* What is kept holds what was acknowledged before, whole, and is checked. */
static void keep_and_check(vecdb *db, bool is_backup)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *collection;
    uint32_t before[N_GROUPS];
    char path[1024], copy[1024];
    snprintf(path, sizeof path, "%s", test_path("db"));
    snprintf(copy, sizeof copy, "%s", test_path("backup"));
    for (uint32_t i = 0; i < N_GROUPS; i++)
        before[i] = shared->acknowledged[i];
    if (is_backup)
        CHECK_OK(err, vecdb_backup(db, copy, NULL, &err));
    else
        CHECK_OK(err, vecdb_snapshot_create(db, "now", &err));
    vecdb *kept = open_soaked(is_backup ? copy : path, is_backup ? NULL : "now", true, &collection);
    scan_all(collection, before, NULL, is_backup ? "backup" : "snapshot");
    if (is_backup)
        check_clean(kept);
    vecdb_close(kept);
    if (is_backup)
        remove_directory(copy);
    else
        CHECK_OK(err, vecdb_snapshot_drop(db, "now", &err));
    ++*(is_backup ? &shared->n_backups : &shared->n_snapshots);
}

static void run_upkeep(void)
{
    vecdb_collection *collection;
    vecdb *db = open_soaked(test_path("db"), NULL, false, &collection);
    for (unsigned step = 0; !shared->is_over; step++) {
        vecdb_error err = VECDB_ERROR_INIT;
        int status = vecdb_compact(db, NULL, &err);
        if (status && status != VECDB_BUSY)
            FAIL("compact: %s: %s", vecdb_status_name(status), err.message);
        shared->n_compactions += !status;
        keep_and_check(db, step % 2);
        nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    }
    vecdb_close(db);
}

/* ------------------------------------------------------------------ all together */

static void print_counts(unsigned long seconds)
{
    uint64_t total = 0, least = UINT64_MAX, most = 0, longest = 0;
    for (unsigned i = 0; i < N_WRITERS; i++) {
        uint64_t n = shared->n_commits[i];
        total += n;
        least = n < least ? n : least;
        most = n > most ? n : most;
        longest = shared->longest_ns[i] > longest ? shared->longest_ns[i] : longest;
    }
    printf("    %lu s: %llu commits (shares %.1f to %.1f %%, the longest took %llu ms), %llu gets, %llu searches, "
           "%llu scans, %llu compactions, %llu backups, %llu snapshots\n",
           seconds, (unsigned long long)total, 100.0 * (double)least / (double)total,
           100.0 * (double)most / (double)total, (unsigned long long)longest / 1000000,
           (unsigned long long)shared->n_gets, (unsigned long long)shared->n_searches,
           (unsigned long long)shared->n_scans, (unsigned long long)shared->n_compactions,
           (unsigned long long)shared->n_backups, (unsigned long long)shared->n_snapshots);
    printf("    %llu searches of a field with a graph, %llu by it; of %llu records that were there %llu came first\n",
           (unsigned long long)shared->n_graph_searches, (unsigned long long)shared->n_graphs_used,
           (unsigned long long)shared->n_asked, (unsigned long long)shared->n_found);
    CHECK(least > 0 && shared->n_gets && shared->n_searches && shared->n_graph_searches);
    CHECK_LE((double)shared->n_asked * 0.95, shared->n_found);
}

static void make_database(void)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_field fields[] = {
        {.name = "vector", .dimension = DIMENSION, .metric = VECDB_L2},
        {.name = "graph", .dimension = GRAPH_DIMENSION, .metric = VECDB_L2, .index = VECDB_INDEX_HNSW}};
    vecdb *db;
    CHECK_OK(err, vecdb_open(test_path("db"), NULL, &db, &err));
    CHECK_OK(err, vecdb_collection_create(db, "soak", fields, 2, VECDB_MUST_BE_NEW, NULL, &err));
    vecdb_close(db);
}

/* Until the time is over, or a process ends, which none should. */
static void wait_for(uint64_t end_ns)
{
    while (vdb_now_ns() < end_ns) {
        siginfo_t info = {.si_pid = 0};
        waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT);
        if (info.si_pid)
            break;
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    }
    shared->is_over = true;
}

TEST(many_processes_write_and_read_and_every_answer_is_a_committed_state)
{
    unsigned long seconds = test_rounds(5);
    enum { N_CHILDREN = N_WRITERS + N_READERS + 1 };
    pid_t children[N_CHILDREN];
    test_time_limit((unsigned)seconds * 2 + 120);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    make_database();
    for (unsigned i = 0; i < N_CHILDREN; i++) {
        children[i] = fork();
        CHECK(children[i] >= 0);
        if (children[i])
            continue;
        if (i < N_WRITERS)
            run_writer(i);
        else if (i < N_WRITERS + N_READERS)
            run_reader(i - N_WRITERS);
        else
            run_upkeep();
        _exit(0);
    }
    wait_for(vdb_now_ns() + seconds * 1000000000u);
    int n_failed = 0;
    for (unsigned i = 0; i < N_CHILDREN; i++) {
        int status;
        CHECK(waitpid(children[i], &status, 0) == children[i]);
        n_failed += status != 0;
    }
    print_counts(seconds);
    CHECK_INT(n_failed, 0);
    vecdb_collection *collection;
    vecdb *db = open_soaked(test_path("db"), NULL, false, &collection);
    for (uint32_t i = 0; i < N_GROUPS; i++)
        CHECK_SIZE(shared->acknowledged[i], shared->begun[i]);
    scan_all(collection, NULL, NULL, "the end");
    check_clean(db);
    vecdb_close(db);
}
