/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/test_index_file.c - graphs in files: what is published is loaded by other handles and processes as it was; what
 * is damaged, cut off, missing or another's is noticed, told by a check, and built again, and no search fails or is
 * wrong because of it; files that nobody names go away; whatever fails while one is written, the database goes on.
 *
 * The exact answer of the same collection is the oracle. That a graph was loaded and not built again is told by the
 * work of the same queries: a graph that is built anew by other batches gives other numbers.
 */
#include <errno.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <xxhash.h>

#include "base/bytes.h"
#include "database.h"
#include "fault_tools.h"

#define DIMENSION 48
#define N_ROWS 3000
#define MANY_ROWS 40000 /* so many that a thousand more are worth a delta */
#define N_QUERIES 20

static struct vdb_random random_of_test;

static void fill(float *vector)
{
    float centre = (float)vdb_random_below(&random_of_test, 30);
    for (int i = 0; i < DIMENSION; i++)
        vector[i] = centre * (float)(i % 7) * 0.01f + (float)vdb_random_unit(&random_of_test);
}

static void put(vecdb_collection *collection, int64_t first, size_t n)
{
    float *rows = vdb_alloc_array(tool_memory(), n * DIMENSION, sizeof *rows);
    int64_t *keys = vdb_alloc_array(tool_memory(), n, sizeof *keys);
    CHECK(rows && keys);
    for (size_t i = 0; i < n; i++) {
        keys[i] = first + (int64_t)i;
        fill(rows + i * DIMENSION);
    }
    vecdb_vector_column column = {.values = rows, .type = VECDB_F32};
    vecdb_batch batch = {.size = sizeof batch, .n_rows = n, .integer_keys = keys, .vectors = &column, .n_vectors = 1};
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, vecdb_write(collection, &batch, &err));
    vdb_free(tool_memory(), rows);
    vdb_free(tool_memory(), keys);
}

static atomic_int n_warnings;

static void count_warning(void *context, int level, const char *message)
{
    (void)context;
    (void)message;
    n_warnings += level == VECDB_LOG_WARNING;
}

/* Graphs are built by vecdb_index_wait alone. */
static vecdb *open_db(int mode, const struct vdb_io_hook *hook, vecdb_collection **collection)
{
    vecdb_options options = {.size = sizeof options, .mode = mode, .threads = VECDB_THREADS_NONE};
    options.log = count_warning;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db;
    CHECK_OK(err, vdb_database_open(test_path("db"), &options, hook, &db, &err));
    CHECK_OK(err, vecdb_collection_open(db, "c", collection, &err));
    return db;
}

static vecdb *make_db(size_t n_rows, vecdb_collection **collection)
{
    vecdb_options options = {.size = sizeof options, .threads = VECDB_THREADS_NONE};
    vecdb_field field = {.name = "v", .dimension = DIMENSION, .metric = VECDB_L2, .index = VECDB_INDEX_HNSW};
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db;
    random_of_test = (struct vdb_random){test_seed()};
    CHECK_OK(err, vecdb_open(test_path("db"), &options, &db, &err));
    CHECK_OK(err, vecdb_collection_create(db, "c", &field, 1, VECDB_MUST_BE_NEW, collection, &err));
    put(*collection, 0, n_rows);
    return db;
}

static void wait_index(vecdb_collection *collection)
{
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, vecdb_index_wait(collection, NULL, 0, NULL, &err));
    vecdb_index_info info = {.size = sizeof info};
    CHECK_OK(err, vecdb_index_describe(collection, NULL, &info, &err));
    CHECK_INT(info.kind, VECDB_INDEX_HNSW);
    CHECK_SIZE(info.n_indexed, info.n_vectors);
}

/* What the queries of a seed cost and find: at least eight in ten of the true nearest, where 0.95 is asked for. */
struct outcome {
    uint64_t n_distances, n_expanded, n_right, n_all;
};

static struct outcome ask(vecdb_collection *collection, uint64_t seed)
{
    struct vdb_random kept = random_of_test;
    struct outcome outcome = {0};
    random_of_test = (struct vdb_random){seed};
    for (int q = 0; q < N_QUERIES; q++) {
        float vector[DIMENSION];
        vecdb_error err = VECDB_ERROR_INIT;
        vecdb_results *found, *truth;
        vecdb_search_stats stats = {.size = sizeof stats};
        fill(vector);
        vecdb_query query = {.size = sizeof query, .vector = vector, .k = 10, .columns = VECDB_KEYS_ONLY};
        query.recall = 0.95f;
        CHECK_OK(err, vecdb_search(collection, &query, &found, &err));
        CHECK_INT(vecdb_results_stats(found, &stats), VECDB_OK);
        outcome.n_distances += stats.n_distances;
        outcome.n_expanded += stats.n_expanded;
        query.exact = 1;
        query.recall = 0;
        CHECK_OK(err, vecdb_search(collection, &query, &truth, &err));
        size_t n = vecdb_results_count(truth);
        CHECK_SIZE(vecdb_results_count(found), n);
        for (size_t i = 0; i < n; i++)
            outcome.n_right += vecdb_result_distance(found, i) <= vecdb_result_distance(truth, n - 1) * 1.00001;
        outcome.n_all += n;
        vecdb_results_free(found);
        vecdb_results_free(truth);
    }
    CHECK(outcome.n_right * 10 >= outcome.n_all * 8);
    random_of_test = kept;
    return outcome;
}

static void check_equal(const struct outcome *a, const struct outcome *b)
{
    CHECK_SIZE(a->n_distances, b->n_distances);
    CHECK_SIZE(a->n_expanded, b->n_expanded);
    CHECK_SIZE(a->n_right, b->n_right);
}

/* How many index files there are; the name of the last one. */
static int list_files(char name[64], uint64_t *n_bytes)
{
    int n = 0;
    DIR *directory = opendir(test_path("db"));
    CHECK(directory);
    for (struct dirent *entry; (entry = readdir(directory));)
        if (!strncmp(entry->d_name, "index-", 6)) {
            struct stat status;
            char path[128];
            snprintf(name, 64, "%.63s", entry->d_name);
            snprintf(path, sizeof path, "db/%.63s", name);
            CHECK(!stat(test_path(path), &status));
            *n_bytes = (uint64_t)status.st_size;
            n++;
        }
    closedir(directory);
    return n;
}

static void count_problem(void *context, const vecdb_problem *problem)
{
    if (strncmp(problem->file, "index-", 6))
        fprintf(stderr, "    %s: %s\n", problem->file, problem->message);
    *(int *)context += strncmp(problem->file, "index-", 6) ? 1000 : 1;
}

static int check_db(vecdb *db)
{
    int n = 0;
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, vecdb_check(db, NULL, count_problem, &n, NULL, &err));
    return n;
}

/* ------------------------------------------------------------------ published and loaded */

TEST(a_published_graph_is_loaded_as_it_was_and_goes_on)
{
    vecdb_collection *collection, *other;
    vecdb *db = make_db(MANY_ROWS, &collection), *second;
    vecdb_error err = VECDB_ERROR_INIT;
    char first_name[64], name[64];
    uint64_t n_first, n_bytes;
    bool found;
    wait_index(collection);
    struct outcome built = ask(collection, 7), loaded;
    CHECK_INT(list_files(first_name, &n_first), 1);
    for (int readonly = 0; readonly < 2; readonly++) {
        second = open_db(readonly ? VECDB_OPEN_READONLY : VECDB_OPEN_EXISTING, NULL, &other);
        wait_index(other);
        loaded = ask(other, 7);
        check_equal(&loaded, &built);
        vecdb_close(second);
    }
    /* A delta: the same file, longer. What is not enough for one is inserted by each handle. */
    put(collection, MANY_ROWS, 1001);
    wait_index(collection);
    built = ask(collection, 8);
    CHECK_INT(list_files(name, &n_bytes), 1);
    CHECK(n_bytes > n_first);
    CHECK_STRING(name, first_name);
    second = open_db(VECDB_OPEN_EXISTING, NULL, &other);
    wait_index(other);
    loaded = ask(other, 8);
    check_equal(&loaded, &built);
    put(other, 10000, 30);
    wait_index(other);
    ask(other, 9);
    wait_index(collection);
    ask(collection, 9);
    struct vdb_index_named named;
    CHECK_OK(err, vdb_index_files_find(db, 1, &named, &found, &err));
    CHECK(found && named.has_curve && named.curve.n_vectors == MANY_ROWS);
    CHECK_INT(check_db(db), 0);
    CHECK_INT(n_warnings, 0);
    vecdb_close(second);
    vecdb_close(db);
}

TEST(a_swept_graph_takes_the_place_of_the_one_before_also_on_disk)
{
    vecdb_collection *collection;
    vecdb *db = make_db(N_ROWS, &collection);
    char name[64];
    uint64_t before, after;
    wait_index(collection);
    CHECK_INT(list_files(name, &before), 1);
    vecdb_key keys[2000];
    uint64_t n_deleted;
    vecdb_error err = VECDB_ERROR_INIT;
    for (int i = 0; i < 2000; i++)
        keys[i] = vecdb_key_int(i);
    CHECK_OK(err, vecdb_delete(collection, keys, 2000, &n_deleted, &err));
    wait_index(collection);
    CHECK_INT(list_files(name, &after), 1);
    CHECK(after * 2 < before);
    ask(collection, 5);
    vecdb_close(db);
    db = open_db(VECDB_OPEN_EXISTING, NULL, &collection);
    wait_index(collection);
    ask(collection, 5);
    CHECK_INT(check_db(db), 0);
    vecdb_close(db);
}

struct order {
    bool is_synced; /* all that was written of the catalog */
    int n_removed;
};

static int watch_order(void *context, enum vdb_io_op op, const char *path)
{
    struct order *order = context;
    if (strstr(path, "/catalog.sqlite") && (op == VDB_IO_WRITE || op == VDB_IO_SYNC))
        order->is_synced = op == VDB_IO_SYNC;
    if (!strstr(path, "/index-") || op != VDB_IO_REMOVE)
        return 0;
    CHECK(order->is_synced);
    order->n_removed++;
    return 0;
}

TEST(a_file_that_a_power_cut_may_bring_back_a_name_of_is_not_removed)
{
    vecdb_collection *collection;
    vecdb_options options = {.size = sizeof options, .threads = VECDB_THREADS_NONE};
    struct order order = {false, 0};
    struct vdb_io_hook hook = {watch_order, &order};
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_key keys[1500];
    vecdb *db = make_db(N_ROWS, &collection);
    wait_index(collection);
    vecdb_close(db);
    options.durability = VECDB_DURABILITY_NORMAL;
    CHECK_OK(err, vdb_database_open(test_path("db"), &options, &hook, &db, &err));
    CHECK_OK(err, vecdb_collection_open(db, "c", &collection, &err));
    for (int i = 0; i < 1500; i++)
        keys[i] = vecdb_key_int(i);
    CHECK_OK(err, vecdb_delete(collection, keys, 1500, NULL, &err));
    wait_index(collection); /* sweeps: the next file */
    CHECK_INT(order.n_removed, 1);
    CHECK_INT(check_db(db), 0);
    vecdb_close(db);
}

TEST(files_that_nobody_names_go_away)
{
    vecdb_collection *collection;
    vecdb *db = make_db(N_ROWS, &collection);
    vecdb_error err = VECDB_ERROR_INIT;
    char name[64];
    uint64_t n_bytes;
    wait_index(collection);
    int fd = open(test_path("db/index-77-3"), O_WRONLY | O_CREAT, 0666);
    CHECK(fd >= 0);
    close(fd);
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    CHECK_INT(list_files(name, &n_bytes), 1);
    CHECK_OK(err, vecdb_field_set_index(collection, "v", VECDB_INDEX_FLAT, &err));
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    CHECK_INT(list_files(name, &n_bytes), 0);
    CHECK_OK(err, vecdb_field_set_index(collection, "v", VECDB_INDEX_HNSW, &err));
    wait_index(collection);
    CHECK_INT(list_files(name, &n_bytes), 1);
    CHECK_OK(err, vecdb_collection_drop(db, "c", &err));
    CHECK_INT(list_files(name, &n_bytes), 0);
    vecdb_close(db);
}

TEST(a_backup_has_no_index_files_and_names_none)
{
    vecdb_collection *collection;
    vecdb *db = make_db(N_ROWS, &collection);
    vecdb_error err = VECDB_ERROR_INIT;
    char copy[1024];
    wait_index(collection);
    snprintf(copy, sizeof copy, "%s", test_path("copy"));
    CHECK_OK(err, vecdb_backup(db, copy, NULL, &err));
    vecdb_close(db);
    CHECK(!rename(test_path("db"), test_path("original")) && !rename(copy, test_path("db")));
    db = open_db(VECDB_OPEN_EXISTING, NULL, &collection);
    CHECK_INT(check_db(db), 0);
    wait_index(collection);
    ask(collection, 3);
    CHECK_INT(n_warnings, 0);
    vecdb_close(db);
}

/* ------------------------------------------------------------------ processes */

TEST(processes_that_wait_at_once_all_get_the_whole_index)
{
    vecdb_collection *collection;
    vecdb_close(make_db(N_ROWS, &collection));
    pid_t children[4];
    for (int i = 0; i < 4; i++) {
        if ((children[i] = fork()))
            continue;
        vecdb *db = open_db(i == 3 ? VECDB_OPEN_READONLY : VECDB_OPEN_EXISTING, NULL, &collection);
        if (i == 1)
            put(collection, 100000, 1500);
        wait_index(collection);
        ask(collection, 11);
        vecdb_close(db);
        _exit(0);
    }
    for (int i = 0; i < 4; i++) {
        int status;
        CHECK(waitpid(children[i], &status, 0) == children[i]);
        CHECK_INT(status, 0);
    }
    char name[64];
    uint64_t n_bytes;
    CHECK_INT(list_files(name, &n_bytes), 1);
    vecdb *db = open_db(VECDB_OPEN_EXISTING, NULL, &collection);
    CHECK_INT(check_db(db), 0);
    vecdb_close(db);
}

/* A page of rows that are partly in the graph and partly behind its end is no sign of deletions. */
TEST(rows_beside_the_end_of_a_graph_are_no_reason_for_a_sweep)
{
    vecdb_collection *collection;
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb *db = make_db(100, &collection);
    for (int64_t n = 100; n < 1000; n += 100) /* into the tail */
        put(collection, n, 100);
    wait_index(collection);
    const struct vdb_graph *graph = collection->indexes.first->served->graph;
    put(collection, 1000, 50);
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    wait_index(collection);
    CHECK(collection->indexes.first->served->graph == graph);
    vecdb_close(db);
}

/* ------------------------------------------------------------------ damage */

static void write_at(const char *path, off_t at, const void *bytes, size_t n)
{
    int fd = open(path, O_WRONLY);
    CHECK(fd >= 0 && pwrite(fd, bytes, n, at) == (ssize_t)n);
    close(fd);
}

/* With the file as it is now: searches are right before and after the index is there again, and a check tells. */
static void use_damaged(int n_problems, bool is_rebuilt)
{
    vecdb_collection *collection;
    vecdb *db = open_db(VECDB_OPEN_EXISTING, NULL, &collection);
    n_warnings = 0;
    CHECK_INT(check_db(db), n_problems);
    ask(collection, 13);
    wait_index(collection);
    CHECK((n_warnings > 0) == is_rebuilt);
    ask(collection, 13);
    CHECK_INT(check_db(db), 0);
    vecdb_close(db);
}

/* The database with its index file. */
static void make_files(struct kept_files *files, char path[96])
{
    vecdb_collection *collection;
    vecdb *db = make_db(N_ROWS, &collection);
    char name[64];
    uint64_t n_bytes;
    wait_index(collection);
    vecdb_close(db);
    CHECK_INT(list_files(name, &n_bytes), 1);
    snprintf(path, 96, "db/%s", name);
    keep_files(test_path("db"), files);
}

TEST(a_flipped_bit_anywhere_in_an_index_file_is_told_and_healed)
{
    static struct kept_files files;
    char path[96];
    make_files(&files, path);
    static struct kept_file whole;
    read_file(test_path(path), &whole);
    for (unsigned long i = 0; i < test_rounds(24); i++) {
        size_t at = i < 12 ? i * 11 : vdb_random_below(&random_of_test, (uint32_t)whole.n_bytes);
        unsigned char flipped = whole.bytes[at] ^ (unsigned char)(1u << vdb_random_below(&random_of_test, 8));
        restore_files(test_path("db"), &files);
        write_at(test_path(path), (off_t)at, &flipped, 1);
        use_damaged(1, true);
    }
}

TEST(an_index_file_that_is_cut_missing_or_anothers_is_built_again)
{
    static struct kept_files files;
    char path[96];
    make_files(&files, path);
    static struct kept_file whole;
    read_file(test_path(path), &whole);
    for (int i = 0; i < 12; i++) {
        restore_files(test_path("db"), &files);
        off_t length = i < 3 ? i * 40 : (off_t)vdb_random_below(&random_of_test, (uint32_t)whole.n_bytes);
        CHECK(!truncate(test_path(path), i == 11 ? (off_t)whole.n_bytes - 1 : length));
        use_damaged(1, true);
    }
    restore_files(test_path("db"), &files);
    CHECK(!unlink(test_path(path)));
    use_damaged(1, true);
    /* Bytes behind what counts are nobody's. */
    restore_files(test_path("db"), &files);
    write_at(test_path(path), (off_t)whole.n_bytes, "debris of a publication", 23);
    use_damaged(0, false);
    /* The file of another database. */
    CHECK(!rename(test_path("db"), test_path("first")));
    vecdb_collection *collection;
    vecdb *db = make_db(N_ROWS, &collection);
    wait_index(collection);
    vecdb_close(db);
    static struct kept_file other;
    read_file(test_path(path), &other);
    CHECK(!rename(test_path("db"), test_path("second")) && !rename(test_path("first"), test_path("db")));
    restore_files(test_path("db"), &files);
    write_at(test_path(path), 0, other.bytes, other.n_bytes < whole.n_bytes ? other.n_bytes : whole.n_bytes);
    use_damaged(1, true);
}

TEST(an_index_file_of_the_first_version_is_no_damage_and_is_built_again)
{
    static struct kept_files files;
    char path[96];
    make_files(&files, path);
    static struct kept_file whole;
    read_file(test_path(path), &whole);
    whole.bytes[8] = 1;
    vdb_store_u64(whole.bytes + 56, XXH3_64bits(whole.bytes, 56));
    write_at(test_path(path), 0, whole.bytes, VDB_INDEX_HEADER_BYTES);
    use_damaged(0, true);
}

/* ---- frames, without a graph in them */

struct payload {
    size_t n_bytes;
    uint64_t seed;
};

static int produce(void *context, vdb_index_write_fn write, void *writer, vecdb_error *err)
{
    const struct payload *payload = context;
    struct vdb_random random = {payload->seed};
    for (size_t done = 0; done < payload->n_bytes;) {
        unsigned char piece[5000];
        size_t n = 1 + vdb_random_below(&random, sizeof piece - 1);
        n = n < payload->n_bytes - done ? n : payload->n_bytes - done;
        for (size_t i = 0; i < n; i++)
            piece[i] = (unsigned char)(payload->seed * 31 + done + i);
        int status = write(writer, piece, n, err);
        if (status)
            return status;
        done += n;
    }
    return VECDB_OK;
}

/* Is the file good, and does it hold just these payloads? */
static bool holds(struct vdb_file *file, const struct vdb_index_file_id *id, const struct vdb_index_extent *extent,
                  const struct payload *payloads, size_t n)
{
    struct vdb_index_file *index;
    vecdb_error err = VECDB_ERROR_INIT;
    int status = vdb_index_file_open(file, id, extent, &index, &err);
    check_sentence("open", status, &err);
    if (status)
        return false;
    CHECK_SIZE(vdb_index_file_count(index), n);
    for (size_t f = 0; f < n && !status; f++) {
        unsigned char *bytes;
        status = vdb_index_file_read(index, f, (void **)&bytes, &err);
        check_sentence("read", status, &err);
        if (status)
            break;
        CHECK_SIZE(vdb_index_file_frame(index, f)->n_bytes, payloads[f].n_bytes);
        for (size_t i = 0; i < payloads[f].n_bytes; i++)
            CHECK(bytes[i] == (unsigned char)(payloads[f].seed * 31 + i));
        vdb_free_aligned(tool_memory(), bytes);
    }
    vdb_index_file_close(index);
    return !status;
}

TEST(every_flipped_bit_and_every_length_of_a_file_of_frames_is_noticed)
{
    static const struct payload payloads[] = {{900, 1}, {0, 2}, {64, 3}, {1111, 4}};
    enum { N = sizeof payloads / sizeof *payloads };
    struct vdb_index_file_id id = {.uuid = {1, 2, 3}, .field = 4, .generation = 5, .store = 6}, other;
    struct vdb_index_extent extents[N + 1], extent;
    vecdb_error err = VECDB_ERROR_INIT;
    struct vdb_vfs *vfs;
    struct vdb_file *file, *cut;
    CHECK_OK(err, vdb_vfs_memory(tool_memory(), &vfs, &err));
    CHECK_OK(err, vfs->open(vfs, "/a", VDB_FILE_CREATE, &file, &err));
    CHECK_OK(err, vdb_index_file_begin(file, &id, &extents[0], &err));
    for (size_t f = 0; f < N; f++) {
        struct vdb_index_frame frame = {f ? VDB_INDEX_DELTA : VDB_INDEX_BASE, 10 + (uint32_t)f, payloads[f].n_bytes};
        struct payload payload = payloads[f];
        extents[f + 1] = extents[f];
        CHECK_OK(err, vdb_index_file_append(file, &frame, produce, &payload, &extents[f + 1], &err));
        CHECK(holds(file, &id, &extents[f + 1], payloads, f + 1));
    }
    uint64_t n_bytes = extents[N].n_bytes;
    unsigned char *all = vdb_alloc(tool_memory(), (size_t)n_bytes);
    CHECK_OK(err, vfs->read(file, 0, all, (size_t)n_bytes, &err));
    for (uint64_t bit = 0; bit < 8 * n_bytes; bit++) {
        unsigned char flipped = all[bit / 8] ^ (unsigned char)(1u << bit % 8);
        CHECK_OK(err, vfs->write(file, bit / 8, &flipped, 1, &err));
        CHECK(!holds(file, &id, &extents[N], payloads, N));
        CHECK_OK(err, vfs->write(file, bit / 8, &all[bit / 8], 1, &err));
    }
    CHECK(holds(file, &id, &extents[N], payloads, N));
    for (uint64_t n = 0; n < n_bytes; n++) {
        extent = (struct vdb_index_extent){n, extents[N].check};
        CHECK(!holds(file, &id, &extent, payloads, N)); /* another length with this check */
        if (n % 37)
            continue;
        CHECK_OK(err, vfs->open(vfs, "/b", VDB_FILE_CREATE, &cut, &err));
        CHECK_OK(err, vfs->write(cut, 0, all, (size_t)n, &err));
        CHECK(!holds(cut, &id, &extents[N], payloads, N));
        vfs->close(cut);
        CHECK_OK(err, vfs->remove(vfs, "/b", &err));
    }
    other = id;
    other.store++;
    CHECK(!holds(file, &other, &extents[N], payloads, N));
    other = id;
    other.uuid[15] = 1;
    CHECK(!holds(file, &other, &extents[N], payloads, N));
    /* A frame of several pieces. */
    struct payload large = {(5u << 20) / 2, 9};
    struct vdb_index_frame frame = {VDB_INDEX_DELTA, 99, large.n_bytes};
    extent = extents[0];
    CHECK_OK(err, vdb_index_file_append(file, &frame, produce, &large, &extent, &err)); /* over what was there */
    CHECK(holds(file, &id, &extent, &large, 1));
    vdb_free(tool_memory(), all);
    vfs->close(file);
    vfs->end(vfs);
}

/* ------------------------------------------------------------------ failures */

struct trouble {
    int countdown, os_error;
    bool goes_on;
};

static int fail_index(void *context, enum vdb_io_op op, const char *path)
{
    struct trouble *trouble = context;
    (void)op;
    if (!strstr(path, "/index-"))
        return 0;
    if (trouble->countdown > 0 && --trouble->countdown > 0)
        return 0;
    if (!trouble->goes_on && trouble->countdown < 0)
        return 0;
    if (!trouble->goes_on)
        trouble->countdown = -1;
    return trouble->os_error;
}

TEST(whatever_fails_at_an_index_file_the_search_and_the_next_wait_succeed)
{
    static const int errors[] = {EIO, ENOSPC, VDB_FAULT_SHORT};
    static struct kept_files files;
    char path[96];
    make_files(&files, path);
    for (int i = 0; i < 24; i++) {
        struct trouble trouble = {.countdown = 1 + i / 2, .os_error = errors[i % 3], .goes_on = i % 2};
        struct vdb_io_hook hook = {fail_index, &trouble};
        vecdb_collection *collection;
        restore_files(test_path("db"), &files);
        vecdb *db = open_db(VECDB_OPEN_EXISTING, &hook, &collection);
        put(collection, 50000, 1100);
        wait_index(collection);
        ask(collection, 17);
        trouble = (struct trouble){.countdown = -1};
        put(collection, 60000, 1100);
        wait_index(collection);
        ask(collection, 18);
        CHECK_INT(check_db(db), 0);
        vecdb_close(db);
        db = open_db(VECDB_OPEN_EXISTING, NULL, &collection);
        n_warnings = 0;
        wait_index(collection);
        CHECK_INT(n_warnings, 0);
        ask(collection, 18);
        vecdb_close(db);
    }
}
