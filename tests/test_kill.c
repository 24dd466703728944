/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/test_kill.c - a writer may be killed at any moment
 *
 * A writer process puts groups of records, replaces and deletes them, a whole group in a call, while it packs
 * and compacts in the background and on demand. It tells each call through a pipe, before and after.
 * It is killed at a random moment, again and again. The properties, after each kill:
 *   1. The database opens, and needs nothing.
 *   2. Every group is there as its last acknowledged call left it, all of its records; the one call that was
 *      told and not acknowledged is done as a whole or not at all.
 *   3. vecdb_check() finds nothing.
 *   4. A process that reads all the while never sees half of a call, and never has an error.
 *   5. A second writer loses nothing when the first is killed, and never has an error.
 *   6. Other collections are whole, whatever they are named; snapshots and backups are whole, or are not there.
 *   7. What the dead leave behind is removed: after a compaction there are only files with live rows.
 *   8. Some groups have a second vector, in a field with a graph, which the writer waits for now and then: so kills
 *      come while index files are written, named and removed. Searches of it find nearly all of the nearest.
 * VECDB_TEST_ROUNDS says how many kills.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "fault_tools.h"

#define N_GROUPS 48u     /* of each writer */
#define GROUP_KEYS 1000u /* from group to group */
#define DIMENSION 64u
#define MOST_ROWS 700u

/* Every fourth group is more than 128 KiB, and goes into an extent of its own. */
static uint32_t rows_of(uint32_t group)
{
    return group % 4 == 3 ? 560 + group : 1 + group * 7 % 60;
}

static int64_t key_of(uint32_t group, uint32_t row)
{
    return (int64_t)group * GROUP_KEYS + row;
}

/* Three large groups of each writer: so many vectors that a graph is made, and so few that it is made soon. They are a
 * part of the other vector, behind the two values that tell key and version. */
#define GRAPH_DIMENSION 8u

static bool has_graph(uint32_t group)
{
    return group % 16 == 3;
}

static const vecdb_field fields[] = {
    {.name = "v", .dimension = DIMENSION, .metric = VECDB_L2},
    {.name = "graph", .dimension = GRAPH_DIMENSION, .metric = VECDB_L2, .index = VECDB_INDEX_HNSW},
};

/* ------------------------------------------------------------------ the writer */

struct message {
    uint32_t group, version; /* version 0: deleted */
    uint32_t is_done;
};

static void tell(int fd, uint32_t group, uint32_t version, uint32_t is_done)
{
    struct message message = {group, version, is_done};
    CHECK_INT(write(fd, &message, sizeof message), sizeof message);
}

static void put_group(vecdb_collection *collection, uint32_t group, uint32_t version)
{
    static float values[MOST_ROWS][DIMENSION];
    static int64_t keys[MOST_ROWS];
    vecdb_error err = VECDB_ERROR_INIT;
    uint32_t n = rows_of(group);
    for (uint32_t row = 0; row < n; row++) {
        keys[row] = key_of(group, row);
        fill_vector(keys[row], version, DIMENSION, values[row]);
    }
    vecdb_vector_column columns[] = {{.values = values, .dimension = DIMENSION},
                                     {.field = "graph", .values = values[0] + 2, .stride = sizeof values[0]}};
    vecdb_batch batch = {.size = sizeof batch, .n_rows = n, .integer_keys = keys, .vectors = columns};
    batch.n_vectors = has_graph(group) ? 2 : 1;
    CHECK_OK(err, vecdb_write(collection, &batch, &err));
}

static void delete_group(vecdb_collection *collection, uint32_t group)
{
    static vecdb_key keys[MOST_ROWS];
    vecdb_error err = VECDB_ERROR_INIT;
    for (uint32_t row = 0; row < rows_of(group); row++)
        keys[row] = vecdb_key_int(key_of(group, row));
    CHECK_OK(err, vecdb_delete(collection, keys, rows_of(group), NULL, &err));
}

#define ASIDE_ROWS 10u

/* Collections, a snapshot and a backup of a writer's own, besides the groups. What is there was left by one that was
 * killed, so that most calls may find that they are too late or too early. */
static void do_aside(vecdb *db, const char *path, uint32_t first_group, uint32_t version, uint64_t dice)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *collection;
    vecdb_field field = {.name = "v", .dimension = DIMENSION, .metric = VECDB_L2};
    char a[32], b[32], backup[512];
    int status = VECDB_OK;
    snprintf(a, sizeof a, "aside %u", first_group);
    snprintf(b, sizeof b, "renamed %u", first_group);
    snprintf(backup, sizeof backup, "%s.backup-%u", path, first_group);
    if (dice < 2) {
        float values[ASIDE_ROWS][DIMENSION];
        int64_t keys[ASIDE_ROWS];
        for (uint32_t row = 0; row < ASIDE_ROWS; row++)
            fill_vector(keys[row] = row, version, DIMENSION, values[row]);
        vecdb_vector_column column = {.values = values, .dimension = DIMENSION};
        vecdb_batch batch = {
            .size = sizeof batch, .n_rows = ASIDE_ROWS, .integer_keys = keys, .vectors = &column, .n_vectors = 1};
        if (!(status = vecdb_collection_create(db, a, &field, 1, VECDB_IF_MISSING, &collection, &err)))
            status = vecdb_write(collection, &batch, &err);
    } else if (dice < 4) {
        status = vecdb_collection_rename(db, a, b, &err);
    } else if (dice < 6) {
        status = vecdb_collection_drop(db, b, &err);
    } else if (dice < 8) {
        status = vecdb_snapshot_create(db, a, &err);
    } else if (dice < 10) {
        status = vecdb_snapshot_drop(db, a, &err);
    } else {
        char catalog[540];
        snprintf(catalog, sizeof catalog, "%s/catalog.sqlite",
                 backup); /* first, so that none is left with a part of it */
        unlink(catalog);
        remove_database(backup);
        status = vecdb_backup(db, backup, NULL, &err);
    }
    if (status && (dice >= 10 || (status != VECDB_EXISTS && status != VECDB_NOT_FOUND)))
        FAIL("aside, %u: %s: %s", (unsigned)dice, vecdb_status_name(status), err.message);
}

/* Until it is killed, or `stop` can be read from. Groups first_group .. + N_GROUPS - 1 are its own. */
static void write_for_ever(const char *path, int fd, int stop, uint32_t first_group, uint32_t version, uint64_t seed)
{
    struct vdb_random random = {seed};
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *collection;
    struct pollfd stopper = {.fd = stop, .events = POLLIN};
    vecdb *db = open_database(path, VECDB_OPEN_CREATE, seed % 2 ? VECDB_THREADS_NONE : 0);
    CHECK_OK(err, vecdb_collection_create(db, "groups", fields, 2, VECDB_IF_MISSING, &collection, &err));
    while (stop < 0 || !poll(&stopper, 1, 0)) {
        uint32_t group = first_group + (uint32_t)vdb_random_below(&random, N_GROUPS);
        uint64_t dice = vdb_random_below(&random, 20);
        tell(fd, group, dice < 3 ? 0 : version, 0);
        if (dice < 3)
            delete_group(collection, group);
        else
            put_group(collection, group, version);
        tell(fd, group, dice < 3 ? 0 : version, 1);
        version++;
        if (dice == 19) {
            int status = vecdb_compact(db, NULL, &err);
            if (status && status != VECDB_BUSY) /* the other writer may be at it */
                FAIL("compact: %s: %s", vecdb_status_name(status), err.message);
        }
        if (vdb_random_below(&random, 5) == 0)
            do_aside(db, path, first_group, version, vdb_random_below(&random, 11));
        if (vdb_random_below(&random, 6) == 0)
            CHECK_OK(err, vecdb_index_wait(collection, "graph", 0, NULL, &err));
        if (vecdb_background_error(db, &err))
            FAIL("in the background: %s", err.message);
    }
    vecdb_close(db);
}

/* ------------------------------------------------------------------ what is there */

#define MOST_GROUPS (2 * N_GROUPS)

struct census {
    uint32_t n_rows[MOST_GROUPS];
    uint32_t version[MOST_GROUPS];
};

/* Count the rows of each group; all of a group must be of one version. */
static int take_census(vecdb_collection *collection, struct census *census, vecdb_error *err)
{
    vecdb_scan_options options = {.size = sizeof options, .columns = VECDB_VECTORS, .batch_rows = 1000};
    vecdb_scan *scan;
    memset(census, 0, sizeof *census);
    int status = vecdb_scan_open(collection, &options, &scan, err);
    for (size_t n = 1; !status && n;) {
        vecdb_results *results;
        if ((status = vecdb_scan_next(scan, &results, err)))
            break;
        n = vecdb_results_count(results);
        for (size_t i = 0; i < n; i++) {
            int64_t key = vecdb_result_key(results, i).integer;
            const float *vector = vecdb_result_vector(results, i, NULL, NULL, NULL);
            uint32_t group = (uint32_t)(key / GROUP_KEYS);
            CHECK(vector && group < MOST_GROUPS);
            uint32_t version = version_of_vector(key, vector, DIMENSION);
            if (census->n_rows[group]++ && census->version[group] != version)
                FAIL("group %u has records of versions %u and %u", group, census->version[group], version);
            census->version[group] = version;
        }
        vecdb_results_free(results);
        if (!n)
            vecdb_scan_close(scan);
    }
    for (uint32_t group = 0; !status && group < MOST_GROUPS; group++)
        if (census->n_rows[group] && census->n_rows[group] != rows_of(group))
            FAIL("group %u has %u of %u records", group, census->n_rows[group], rows_of(group));
    return status;
}

/* The nearest of the second vector of a group: records with such vectors. An exact search tells their `distances`
 * (NULL: nobody asks), and how many; another one how many it finds that are as near. */
static size_t search_graph(vecdb_collection *collection, uint32_t group, bool is_exact, double distances[10])
{
    float vector[2 + GRAPH_DIMENSION];
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_results *results;
    size_t n_right = 0;
    fill_vector(key_of(group, 77), 1, 2 + GRAPH_DIMENSION, vector);
    vecdb_query query = {.size = sizeof query, .field = "graph", .vector = vector + 2, .k = 10};
    query.columns = VECDB_VECTORS;
    query.exact = is_exact;
    CHECK_OK(err, vecdb_search(collection, &query, &results, &err));
    size_t n = vecdb_results_count(results);
    for (size_t i = 0; i < n; i++) {
        int64_t key = vecdb_result_key(results, i).integer;
        double distance = vecdb_result_distance(results, i);
        CHECK(has_graph((uint32_t)(key / GROUP_KEYS)));
        const float *whole = vecdb_result_vector(results, i, "v", NULL, NULL);
        version_of_vector(key, whole, DIMENSION);
        CHECK(!memcmp(whole + 2, vecdb_result_vector(results, i, "graph", NULL, NULL), 4 * GRAPH_DIMENSION));
        CHECK(!i || distance >= vecdb_result_distance(results, i - 1));
        if (distances && is_exact)
            distances[i] = distance;
        else if (distances)
            n_right += distance <= distances[n - 1] * 1.00001;
    }
    vecdb_results_free(results);
    return is_exact ? n : n_right;
}

/* While nobody writes: by the index file that is there, and with what it does not cover. */
static void verify_graph(vecdb_collection *collection, unsigned round)
{
    vecdb_error err = VECDB_ERROR_INIT;
    size_t n = 0, n_right = 0;
    CHECK_OK(err, vecdb_index_wait(collection, "graph", 0, NULL, &err));
    for (uint32_t group = 3; group < N_GROUPS; group += 16) {
        double distances[10];
        n += search_graph(collection, group, true, distances);
        n_right += search_graph(collection, group, false, distances);
    }
    if (n_right * 10 < n * 8)
        FAIL("round %u: the graph finds %zu of the nearest %zu", round, n_right, n);
}

/* What the writers have said. */
struct ledger {
    uint32_t version[MOST_GROUPS]; /* acknowledged */
    uint32_t pending_group[2], pending_version[2];
    bool is_pending[2];
    uint32_t n_done, next_version;
};

/* Take down what a writer has told, to the end of the pipe or to where it would have to wait. */
static void listen_to(struct ledger *ledger, int fd, int writer)
{
    struct message message;
    ssize_t n;
    while ((n = read(fd, &message, sizeof message)) > 0) {
        CHECK_INT(n, sizeof message);
        ledger->is_pending[writer] = !message.is_done;
        ledger->pending_group[writer] = message.group;
        ledger->pending_version[writer] = message.version;
        if (message.version >= ledger->next_version)
            ledger->next_version = message.version + 1;
        if (message.is_done) {
            ledger->version[message.group] = message.version;
            ledger->n_done++;
        }
    }
}

/* Compare, and take over how a pending call has come out. `busy`: writer whose groups are still moving, or -1. */
static void compare(struct ledger *ledger, const struct census *census, int busy, unsigned round)
{
    for (uint32_t group = 0; group < MOST_GROUPS; group++) {
        int writer = group >= N_GROUPS;
        uint32_t found = census->n_rows[group] ? census->version[group] : 0;
        if (writer == busy || found == ledger->version[group])
            continue;
        if (ledger->is_pending[writer] && ledger->pending_group[writer] == group &&
            ledger->pending_version[writer] == found) {
            ledger->version[group] = found;
            continue;
        }
        FAIL("round %u: group %u is in version %u, acknowledged is %u", round, group, found, ledger->version[group]);
    }
    for (int writer = 0; writer < 2; writer++)
        if (writer != busy)
            ledger->is_pending[writer] = false;
}

/* What do_aside() has left: ten records or none, of one version; snapshots of whole groups; a backup that is a
 * database, or cannot be opened. */
static void verify_collection(vecdb *db, const char *name)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *collection;
    vecdb_results *results;
    vecdb_key keys[ASIDE_ROWS];
    uint32_t version = 0, n_found = 0;
    for (uint32_t row = 0; row < ASIDE_ROWS; row++)
        keys[row] = vecdb_key_int(row);
    int status = vecdb_collection_open(db, name, &collection, &err);
    if (!status)
        status = vecdb_get(collection, keys, ASIDE_ROWS, VECDB_VECTORS, &results, &err);
    if (status == VECDB_NOT_FOUND)
        return;
    CHECK_OK(err, status);
    for (uint32_t row = 0; row < ASIDE_ROWS; row++) {
        const float *vector = vecdb_result_vector(results, row, NULL, NULL, NULL);
        if (!vector)
            continue;
        uint32_t found = version_of_vector(row, vector, DIMENSION);
        if (n_found++ && found != version)
            FAIL("\"%s\" has records of versions %u and %u", name, version, found);
        version = found;
    }
    if (n_found && n_found != ASIDE_ROWS)
        FAIL("\"%s\" has %u of %u records", name, n_found, ASIDE_ROWS);
    vecdb_results_free(results);
}

static void verify_copy(const char *path, const char *snapshot, bool must_open)
{
    static struct census census;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_options options = {.size = sizeof options,
                             .mode = snapshot ? VECDB_OPEN_READONLY : VECDB_OPEN_EXISTING,
                             .threads = VECDB_THREADS_NONE,
                             .snapshot = snapshot};
    vecdb_collection *collection;
    vecdb *db;
    int status = vecdb_open(path, &options, &db, &err);
    if (status && !must_open)
        return;
    CHECK_OK(err, status);
    CHECK_OK(err, vecdb_collection_open(db, "groups", &collection, &err));
    CHECK_OK(err, take_census(collection, &census, &err));
    if (!snapshot)
        check_database(db, "a backup");
    vecdb_close(db);
}

struct snapshot_names {
    char names[4][32];
    size_t n;
};

static int note_snapshot(void *context, const vecdb_snapshot_info *info)
{
    struct snapshot_names *names = context;
    CHECK(names->n < 4);
    snprintf(names->names[names->n++], sizeof names->names[0], "%s", info->name);
    return 0;
}

static void verify_aside(vecdb *db, const char *path, int busy)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct snapshot_names snapshots = {.n = 0};
    CHECK_OK(err, vecdb_snapshots(db, note_snapshot, &snapshots, &err));
    for (size_t i = 0; i < snapshots.n; i++) /* one that still writes may drop its own */
        verify_copy(path, snapshots.names[i], busy < 0);
    for (uint32_t writer = 0; writer < 2; writer++) {
        char name[512];
        snprintf(name, sizeof name, "aside %u", writer * N_GROUPS);
        verify_collection(db, name);
        snprintf(name, sizeof name, "renamed %u", writer * N_GROUPS);
        verify_collection(db, name);
        snprintf(name, sizeof name, "%s.backup-%u", path, writer * N_GROUPS);
        if (busy != (int)writer)
            verify_copy(name, NULL, false);
    }
}

static void drop_aside(vecdb *db)
{
    vecdb_error ignored = VECDB_ERROR_INIT;
    for (uint32_t writer = 0; writer < 2; writer++) {
        char name[32];
        snprintf(name, sizeof name, "aside %u", writer * N_GROUPS);
        vecdb_collection_drop(db, name, &ignored);
        vecdb_snapshot_drop(db, name, &ignored);
        snprintf(name, sizeof name, "renamed %u", writer * N_GROUPS);
        vecdb_collection_drop(db, name, &ignored);
    }
}

static void verify(const char *path, struct ledger *ledger, int busy, unsigned round)
{
    static struct census census;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *collection;
    char when[32];
    snprintf(when, sizeof when, "round %u", round);
    vecdb *db = open_database(path, VECDB_OPEN_CREATE, VECDB_THREADS_NONE);
    int status = vecdb_collection_open(db, "groups", &collection, &err);
    if (!status) {
        CHECK_OK(err, take_census(collection, &census, &err));
        compare(ledger, &census, busy, round);
        check_database(db, when);
        verify_aside(db, path, busy);
        if (busy < 0)
            verify_graph(collection, round);
    } else if (status != VECDB_NOT_FOUND || ledger->n_done) { /* killed before it was made */
        FAIL("round %u: %s", round, err.message);
    }
    vecdb_close(db);
}

/* ------------------------------------------------------------------ processes */

static void sleep_us(uint64_t n)
{
    struct timespec time = {(time_t)(n / 1000000), (long)(n % 1000000) * 1000};
    nanosleep(&time, NULL);
}

/* Start a writer; the end of the pipe to listen at is told. */
static pid_t start_writer(const char *path, uint32_t first_group, const struct ledger *ledger, uint64_t seed, int stop,
                          int *fd)
{
    int fds[2];
    CHECK(!pipe2(fds, O_CLOEXEC));
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        close(fds[0]);
        write_for_ever(path, fds[1], stop, first_group, ledger->next_version, seed);
        _exit(0);
    }
    close(fds[1]);
    *fd = fds[0];
    return child;
}

/* It must be the kill that ends it. */
static void end_writer(pid_t child, unsigned round)
{
    int status = 0;
    kill(child, SIGKILL);
    CHECK_INT(waitpid(child, &status, 0), child);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        FAIL("round %u: the writer ended by itself, with status %x", round, (unsigned)status);
}

/* Search, get and scan until told to stop; each must succeed and show whole groups. */
static void read_for_ever(const char *path, int stop, int mode)
{
    static struct census census;
    struct pollfd stopper = {.fd = stop, .events = POLLIN};
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *collection = NULL;
    vecdb *db = open_database(path, mode, 0);
    float vector[DIMENSION];
    unsigned n_looks = 0;
    while (!poll(&stopper, 1, 0)) {
        if (!collection && vecdb_collection_open(db, "groups", &collection, &err)) {
            sleep_us(1000);
            continue;
        }
        CHECK_OK(err, take_census(collection, &census, &err));
        fill_vector(key_of(n_looks % N_GROUPS, 0), 1, DIMENSION, vector);
        vecdb_query query = {.size = sizeof query, .vector = vector, .k = 10, .columns = VECDB_VECTORS};
        vecdb_results *results;
        CHECK_OK(err, vecdb_search(collection, &query, &results, &err));
        for (size_t i = 0; i < vecdb_results_count(results); i++)
            version_of_vector(vecdb_result_key(results, i).integer, vecdb_result_vector(results, i, NULL, NULL, NULL),
                              DIMENSION);
        vecdb_results_free(results);
        search_graph(collection, 3 + n_looks % 3 * 16, false, NULL);
        n_looks++;
    }
    vecdb_close(db);
    _exit(n_looks ? 0 : 3);
}

static pid_t start_reader(const char *path, int mode, int *stop)
{
    int fds[2];
    CHECK(!pipe2(fds, O_CLOEXEC));
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        close(fds[1]);
        read_for_ever(path, fds[0], mode);
    }
    close(fds[0]);
    *stop = fds[1];
    return child;
}

static void stop_reader(pid_t child, int stop)
{
    int status = 0;
    CHECK_INT(write(stop, "", 1), 1);
    CHECK_INT(waitpid(child, &status, 0), child);
    if (status)
        FAIL("the reader ended with status %x", (unsigned)status);
}

static void count_index(void *context, const char *path, const char *name)
{
    (void)path;
    *(unsigned *)context += !strncmp(name, "index-", 6);
}

/* 7: after a compaction the vector files hold little more than what is alive, and there is one index file of a field at
 * most. (The first field gets a graph when two writers have put more than ten thousand records.) */
static void check_no_debris(const char *path, const struct ledger *ledger)
{
    vecdb_error err = VECDB_ERROR_INIT;
    struct file_sum sum = {0, 0};
    uint64_t n_live = 0;
    unsigned n_indexes = 0;
    vecdb *db = open_database(path, VECDB_OPEN_EXISTING, VECDB_THREADS_NONE);
    drop_aside(db);
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    vecdb_close(db);
    for (uint32_t group = 0; group < MOST_GROUPS; group++)
        n_live += ledger->version[group] ? rows_of(group) : 0;
    each_name(path, sum_vectors, &sum);
    each_name(path, count_index, &n_indexes);
    CHECK_LE(sum.n_bytes, (double)n_live * (DIMENSION + GRAPH_DIMENSION / 4) * 4 * 1.3 + 2 * 65536);
    CHECK_LE(sum.n_files, 6);
    CHECK_LE(n_indexes, 2);
}

/* ------------------------------------------------------------------ the tests */

static void kill_writers(unsigned n_rounds, bool with_reader)
{
    static struct ledger ledger;
    const char *path = test_path("db");
    struct vdb_random random = {test_seed()};
    pid_t readers[2] = {0, 0};
    int stops[2];
    test_time_limit(60 + n_rounds * 5);
    ledger.next_version = 1;
    for (unsigned round = 0; round < n_rounds; round++) {
        int fd;
        pid_t writer = start_writer(path, 0, &ledger, vdb_random_next(&random), -1, &fd);
        if (with_reader && round == 1) {
            readers[0] = start_reader(path, VECDB_OPEN_READONLY, &stops[0]);
            readers[1] = start_reader(path, VECDB_OPEN_EXISTING, &stops[1]);
        }
        sleep_us(round ? 3000 + vdb_random_below(&random, round % 4 ? 120000 : 600000) : 300000);
        end_writer(writer, round);
        listen_to(&ledger, fd, 0);
        close(fd);
        verify(path, &ledger, -1, round);
    }
    CHECK(ledger.n_done > n_rounds);
    for (int i = 0; i < 2 && readers[i]; i++)
        stop_reader(readers[i], stops[i]);
    check_no_debris(path, &ledger);
    fprintf(stderr, "    %u kills, %u calls acknowledged\n", n_rounds, ledger.n_done);
}

TEST(a_writer_that_is_killed_again_and_again_loses_nothing)
{
    kill_writers((unsigned)test_rounds(25), false);
}

TEST(readers_never_fail_while_writers_are_killed)
{
    kill_writers((unsigned)test_rounds(12), true);
}

TEST(a_writer_beside_one_that_is_killed_loses_nothing)
{
    static struct ledger ledger;
    unsigned n_rounds = (unsigned)test_rounds(10);
    const char *path = test_path("db");
    struct vdb_random random = {test_seed()};
    int stop[2], steady_fd, status = 0;
    test_time_limit(60 + n_rounds * 5);
    ledger.next_version = 1;
    CHECK(!pipe2(stop, O_CLOEXEC));
    pid_t steady = start_writer(path, N_GROUPS, &ledger, test_seed() * 2, stop[0], &steady_fd);
    CHECK(!fcntl(steady_fd, F_SETFL, O_NONBLOCK));
    CHECK(fcntl(steady_fd, F_SETPIPE_SZ, 1 << 20) > 0);
    for (unsigned round = 0; round < n_rounds; round++) {
        int fd;
        pid_t writer = start_writer(path, 0, &ledger, vdb_random_next(&random), -1, &fd);
        sleep_us(3000 + vdb_random_below(&random, 250000));
        end_writer(writer, round);
        listen_to(&ledger, fd, 0);
        close(fd);
        listen_to(&ledger, steady_fd, 1);
        verify(path, &ledger, 1, round);
    }
    CHECK_INT(write(stop[1], "", 1), 1);
    for (pid_t ended = 0; !ended; sleep_us(1000)) { /* it may have more to tell than the pipe holds */
        listen_to(&ledger, steady_fd, 1);
        ended = waitpid(steady, &status, WNOHANG);
        CHECK(ended >= 0);
    }
    CHECK_INT(status, 0);
    listen_to(&ledger, steady_fd, 1);
    verify(path, &ledger, -1, n_rounds);
    check_no_debris(path, &ledger);
}
