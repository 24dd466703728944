/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/flip_database.c - see flip_database.h
 */
#include "flip_database.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

/* ------------------------------------------------------------------ the database */

#define N_COLLECTIONS FLIP_COLLECTIONS
#define MOST_DIMENSION 64
#define JUNK_BYTES 150
#define ALIKE 940

static const struct shape {
    const char *name;
    size_t n_fields;
    vecdb_field fields[2];
} shapes[N_COLLECTIONS] = {
    {"raw", 1, {{.name = "v", .dimension = 8, .metric = VECDB_L2, .compression = VECDB_COMPRESSION_NONE}}},
    {"narrow", 1, {{.name = "v", .dimension = 16, .metric = VECDB_L2}}},
    {"planes", 1, {{.name = "v", .dimension = 32, .metric = VECDB_COSINE, .compression = VECDB_COMPRESSION_MAX}}},
    {"bits", 1, {{.name = "v", .dimension = 64, .type = VECDB_BIT}}},
    {"two", 2, {{.name = "half", .dimension = 12, .type = VECDB_F16, .metric = VECDB_IP},
                {.name = "byte", .dimension = 10, .type = VECDB_I8, .metric = VECDB_L2}}},
    {"graph", 1, {{.name = "v", .dimension = 8, .type = VECDB_U8, .metric = VECDB_L2, .index = VECDB_INDEX_HNSW}}},
};
#define GRAPH (&shapes[5])

/* The collection "two" has texts for keys. */
static vecdb_key key_of(const struct shape *shape, int number)
{
    static char texts[256][24];
    static int next;
    if (shape->n_fields < 2)
        return vecdb_key_int(number);
    char *text = texts[next++ % 256];
    snprintf(text, sizeof texts[0], "moon-%d", number);
    return vecdb_key_text(text);
}

/* A vector as a caller gives it: floats, or bytes for bits. */
static void make_vector(const struct shape *shape, size_t f, int64_t key, unsigned version, void *out)
{
    const vecdb_field *field = &shape->fields[f];
    struct vdb_random random = {(uint64_t)key * 1000 + version * 17 + f};
    bool is_whole = !strcmp(shape->name, "narrow") || field->type == VECDB_I8 || field->type == VECDB_U8;
    for (uint32_t i = 0; i < field->dimension; i++) {
        if (field->type == VECDB_BIT)
            ((unsigned char *)out)[i / 8] = (unsigned char)vdb_random_next(&random);
        else if (is_whole)
            ((float *)out)[i] = (float)(int)vdb_random_below(&random, 100);
        else
            ((float *)out)[i] = (float)vdb_random_unit(&random) + 0.01f;
    }
}

static void put_rows(vecdb *db, const struct shape *shape, int first, int n, unsigned version)
{
    static float values[2][200][MOST_DIMENSION];
    static vecdb_vector vectors[200][2];
    static vecdb_record records[200];
    static char metadata[200][80], texts[200][40];
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *collection;
    CHECK_OK(err, vecdb_collection_open(db, shape->name, &collection, &err));
    for (int i = 0; i < n; i++) {
        for (size_t f = 0; f < shape->n_fields; f++) {
            make_vector(shape, f, first + i, version, values[f][i]);
            vectors[i][f] =
                (vecdb_vector){.field = shape->fields[f].name,
                               .values = values[f][i],
                               .type = shape->fields[f].type == VECDB_BIT ? VECDB_BIT : VECDB_F32};
        }
        snprintf(metadata[i], sizeof metadata[i], "{\"number\": %d, \"version\": %u}", first + i, version);
        snprintf(texts[i], sizeof texts[i], "passage %d", first + i);
        records[i] = (vecdb_record){
            .key = key_of(shape, first + i), .vectors = vectors[i], .n_vectors = shape->n_fields};
        records[i].metadata = metadata[i];
        records[i].text = texts[i];
    }
    CHECK_OK(err, vecdb_put(collection, records, (size_t)n, &err));
}

static void delete_rows(vecdb *db, const struct shape *shape, int first, int n)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *collection;
    vecdb_key keys[200];
    CHECK_OK(err, vecdb_collection_open(db, shape->name, &collection, &err));
    for (int i = 0; i < n; i++)
        keys[i] = key_of(shape, first + i);
    CHECK_OK(err, vecdb_delete(collection, keys, (size_t)n, NULL, &err));
}

/* As many records as make a graph worth while, of one vector, which is far from all others: a graph holds it once. */
static void put_alike(vecdb_collection *collection)
{
    static int64_t keys[ALIKE];
    static unsigned char values[ALIKE][8];
    vecdb_error err = VECDB_ERROR_INIT;
    memset(values, 255, sizeof values);
    for (int i = 0; i < ALIKE; i++)
        keys[i] = 1000 + i;
    vecdb_vector_column column = {.values = values, .type = VECDB_U8};
    vecdb_batch batch = {.size = sizeof batch, .n_rows = ALIKE, .integer_keys = keys, .vectors = &column};
    batch.n_vectors = 1;
    CHECK_OK(err, vecdb_write(collection, &batch, &err));
}

/* Slots are given out; what they held is gone. So many are worth a delta. */
static void use_up_slots(vecdb_collection *collection)
{
    static vecdb_record records[1000];
    static vecdb_key keys[1000];
    vecdb_error err = VECDB_ERROR_INIT;
    for (int i = 0; i < 1000; i++)
        records[i].key = keys[i] = vecdb_key_int(5000 + i);
    CHECK_OK(err, vecdb_put(collection, records, 1000, &err));
    CHECK_OK(err, vecdb_delete(collection, keys, 1000, NULL, &err));
}

static void wait_index(vecdb_collection *collection)
{
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, vecdb_index_wait(collection, NULL, 0, NULL, &err));
}

static void tell_parent(int fd)
{
    char byte = 0;
    CHECK_INT(write(fd, &byte, 1), 1);
    CHECK_INT(read(fd, &byte, 1), 1);
}

/* What a commit that failed leaves behind the extents of a file. */
static void make_junk(char junk[JUNK_BYTES])
{
    for (size_t i = 0; i < JUNK_BYTES; i++)
        junk[i] = (char)(i * 7 + 1);
}

static void append_junk(const char *path, const char *name)
{
    char full[512], junk[JUNK_BYTES];
    make_junk(junk);
    snprintf(full, sizeof full, "%s/%s", path, name);
    int fd = open(full, O_WRONLY | O_APPEND | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_INT(write(fd, junk, JUNK_BYTES), JUNK_BYTES);
    close(fd);
}

/* An index file with a base and a delta. */
static void build_graph(vecdb *db, int fd)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *collection;
    tell_parent(fd); /* the end of what the snapshot has of its vectors */
    CHECK_OK(err, vecdb_collection_open(db, GRAPH->name, &collection, &err));
    put_alike(collection);
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    wait_index(collection);
    tell_parent(fd); /* the older index file */
    use_up_slots(collection);
    put_rows(db, GRAPH, 300, 4, 1);
    wait_index(collection);
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    check_database(db, "with a graph");
}

/* The life of the database up to the kill; the parent looks at its files at some moments. */
static void build(const char *path, int fd)
{
    vecdb *db = open_database(path, VECDB_OPEN_NEW, VECDB_THREADS_NONE);
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_collection *collection;
    vecdb_field field = {.name = "more", .dimension = 4, .metric = VECDB_L2};
    for (int s = 0; s < N_COLLECTIONS; s++)
        CHECK_OK(err, vecdb_collection_create(db, shapes[s].name, shapes[s].fields, shapes[s].n_fields, 0, NULL, &err));
    for (int s = 0; s < N_COLLECTIONS; s++)
        put_rows(db, &shapes[s], 0, 60, 1);
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    put_rows(db, &shapes[0], 60, 3, 1);
    tell_parent(fd); /* the older files */
    CHECK_OK(err, vecdb_collection_open(db, shapes[1].name, &collection, &err));
    CHECK_OK(err, vecdb_field_add(collection, &field, &err));
    append_junk(path, "vectors-1-1");
    for (int s = 0; s < N_COLLECTIONS; s++) {
        put_rows(db, &shapes[s], 100, 20, 1);
        put_rows(db, &shapes[s], 50, 5, 2);
    }
    CHECK_OK(err, vecdb_field_drop(collection, "more", &err));
    CHECK_OK(err, vecdb_compact(db, NULL, &err));
    CHECK_OK(err, vecdb_snapshot_create(db, FLIP_SNAPSHOT, &err));
    CHECK_OK(err, vecdb_collection_create(db, "gone", shapes[0].fields, 1, 0, &collection, &err));
    CHECK_OK(err, vecdb_collection_drop(db, "gone", &err));
    build_graph(db, fd);
    for (int s = 0; s < N_COLLECTIONS; s++) { /* from here on, only in the WAL */
        delete_rows(db, &shapes[s], 10, 4);
        put_rows(db, &shapes[s], 20, 2, 3);
        put_rows(db, &shapes[s], 200, 6, 1);
    }
    tell_parent(fd); /* and is killed */
}

/* ------------------------------------------------------------------ files */

static void keep_directory(const char *directory, const char *prefix, struct kept_files *kept)
{
    struct kept_files here = {.n = 0};
    DIR *listing = opendir(directory);
    CHECK(listing);
    for (struct dirent *entry; (entry = readdir(listing));) {
        char path[512], name[300];
        struct stat status;
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        snprintf(name, sizeof name, "%s%s", prefix, entry->d_name);
        CHECK(!stat(path, &status));
        if (S_ISDIR(status.st_mode)) {
            strcat(name, "/");
            keep_directory(path, name, kept);
            continue;
        }
        CHECK(here.n < MOST_FILES && strlen(name) < sizeof here.files[0].name);
        struct kept_file *file = &here.files[here.n++];
        strcpy(file->name, name);
        read_file(path, file);
    }
    closedir(listing);
    CHECK(kept->n + here.n <= MOST_FILES);
    memcpy(kept->files + kept->n, here.files, here.n * sizeof here.files[0]);
    kept->n += here.n;
}

void keep_tree(const char *directory, struct kept_files *kept)
{
    kept->n = 0;
    keep_directory(directory, "", kept);
    qsort(kept->files, kept->n, sizeof kept->files[0], compare_names);
}

void free_kept(struct kept_files *kept)
{
    for (size_t i = 0; i < kept->n; i++)
        vdb_free(tool_memory(), kept->files[i].bytes);
    kept->n = 0;
}

static void remove_any(void *context, const char *path, const char *name)
{
    (void)context, (void)name;
    if (unlink(path)) {
        each_name(path, remove_any, NULL);
        rmdir(path);
    }
}

void restore_tree(const char *directory, const struct kept_files *kept)
{
    each_name(directory, remove_any, NULL);
    CHECK(!mkdir(directory, 0777) || errno == EEXIST);
    for (size_t i = 0; i < kept->n; i++) {
        char path[512];
        const char *slash = strchr(kept->files[i].name, '/');
        if (slash) {
            snprintf(path, sizeof path, "%s/%.*s", directory, (int)(slash - kept->files[i].name), kept->files[i].name);
            CHECK(!mkdir(path, 0777) || errno == EEXIST);
        }
        snprintf(path, sizeof path, "%s/%s", directory, kept->files[i].name);
        write_file(path, kept->files[i].bytes, kept->files[i].n_bytes);
    }
}

/* ------------------------------------------------------------------ what crashes leave */

/* Behind the extents of two vector files: a little, and more than there is in the file. Behind what counts of an index
 * file. And where no extent has grown over it. */
static struct debris {
    const char *name;
    size_t n_bytes, at;
} debris[] = {{.name = "vectors-2-1", .n_bytes = 100},
              {.name = "vectors-3-1", .n_bytes = 6000},
              {.name = FLIP_INDEX, .n_bytes = 300},
              {.name = "snapshot-1/vectors-7-1"}, /* what the database has written behind what the snapshot shares */
              {.name = "vectors-1-1"}, /* the junk of build(), between two extents */
              {.name = "snapshot-1/vectors-1-1"}};
#define N_ADDED 3 /* the first of these are added behind the files' ends */
#define SHARED 3
#define FIRST_JUNK 4

/* `n_bytes` from `from`, or something, behind the end of a file. */
static void extend(struct kept_files *kept, const char *name, const unsigned char *from, size_t n_bytes)
{
    struct kept_file *file = (struct kept_file *)(uintptr_t)kept_file(kept, name);
    CHECK(file);
    size_t start = file->n_bytes;
    file->bytes = vdb_realloc(tool_memory(), file->bytes, start + n_bytes);
    CHECK(file->bytes);
    for (size_t i = 0; i < n_bytes; i++)
        file->bytes[start + i] = from ? from[i] : (unsigned char)(i % 251 + 1);
    file->n_bytes += n_bytes;
}

/* Where the junk of build() is. */
static void find_junk(const struct kept_files *kept)
{
    char junk[JUNK_BYTES];
    make_junk(junk);
    for (size_t i = FIRST_JUNK; i < sizeof debris / sizeof *debris; i++) {
        const struct kept_file *file = kept_file(kept, debris[i].name);
        CHECK(file);
        const unsigned char *found = memmem(file->bytes, file->n_bytes, junk, JUNK_BYTES);
        CHECK(found);
        debris[i].at = (size_t)(found - file->bytes);
        /* up to where the next writer begins */
        debris[i].n_bytes = (debris[i].at + JUNK_BYTES + 63) / 64 * 64 - debris[i].at;
    }
}

/* The beginning of a file, under a name that the catalog does not know. */
static void add_unnamed(struct kept_files *kept, const char *of, const char *name)
{
    const struct kept_file *named = kept_file(kept, of);
    CHECK(kept->n < MOST_FILES);
    struct kept_file *unnamed = &kept->files[kept->n++];
    *unnamed = (struct kept_file){.n_bytes = 500, .bytes = vdb_alloc(tool_memory(), 500)};
    snprintf(unnamed->name, sizeof unnamed->name, "%s", name);
    CHECK(named && unnamed->bytes && named->n_bytes > 500);
    memcpy(unnamed->bytes, named->bytes, 500);
}

static void add_debris(struct kept_files *kept)
{
    find_junk(kept);
    /* Frames of a transaction that did not come to its end: as the log's last ones, with other sums before them. */
    const struct kept_file *wal = kept_file(kept, "catalog.sqlite-wal");
    size_t frames = 2 * (24 + 4096);
    unsigned char *copy = vdb_alloc(tool_memory(), frames);
    CHECK(copy && wal->n_bytes > frames);
    memcpy(copy, wal->bytes + wal->n_bytes - frames, frames);
    extend(kept, "catalog.sqlite-wal", copy, frames);
    vdb_free(tool_memory(), copy);
    /* Vectors, and parts of a graph, of commits that failed, in files that are named and in some that are not. */
    static const unsigned char zeros[64];
    for (size_t i = 0; i < N_ADDED; i++) {
        const struct kept_file *file = kept_file(kept, debris[i].name);
        CHECK(file);
        extend(kept, file->name, zeros, (64 - file->n_bytes % 64) % 64); /* writers begin at multiples of 64 */
        debris[i].at = file->n_bytes;
        extend(kept, file->name, NULL, debris[i].n_bytes);
    }
    add_unnamed(kept, "vectors-1-1", "vectors-1-9");
    add_unnamed(kept, FLIP_INDEX, "index-7-9");
    qsort(kept->files, kept->n, sizeof kept->files[0], compare_names);
}

bool flip_is_debris(const char *name, size_t at)
{
    for (size_t i = 0; i < sizeof debris / sizeof *debris; i++)
        if (!strcmp(name, debris[i].name) && at >= debris[i].at && at < debris[i].at + debris[i].n_bytes)
            return true;
    return false;
}

/* The child waits at the next moment. */
static void await_child(int fd)
{
    char byte;
    CHECK_INT(read(fd, &byte, 1), 1);
}

static void go_on(int fd)
{
    CHECK_INT(write(fd, "", 1), 1);
    await_child(fd);
}

void flip_make(struct kept_files *whole, struct kept_files *older)
{
    const char *path = test_path("original");
    char file[600];
    struct stat status;
    int fds[2];
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
    pid_t child = fork();
    if (!child) {
        build(path, fds[1]);
        _exit(0);
    }
    await_child(fds[0]);
    keep_tree(path, older);
    go_on(fds[0]);
    snprintf(file, sizeof file, "%s/vectors-7-1", path);
    CHECK(!stat(file, &status));
    debris[SHARED].at = (size_t)status.st_size;
    go_on(fds[0]);
    CHECK(older->n < MOST_FILES);
    snprintf(file, sizeof file, "%s/" FLIP_INDEX, path);
    strcpy(older->files[older->n].name, FLIP_INDEX);
    read_file(file, &older->files[older->n++]);
    go_on(fds[0]);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    keep_tree(path, whole);
    CHECK(kept_file(whole, "catalog.sqlite-wal")->n_bytes > 4096);
    CHECK(kept_file(whole, FLIP_INDEX)->n_bytes > kept_file(older, FLIP_INDEX)->n_bytes);
    debris[SHARED].n_bytes = kept_file(whole, debris[SHARED].name)->n_bytes - debris[SHARED].at;
    add_debris(whole);
}

/* ------------------------------------------------------------------ questions */

static void say(struct answer *answer, const void *bytes, size_t n_bytes)
{
    size_t room = sizeof answer->bytes - answer->n_bytes;
    memcpy(answer->bytes + answer->n_bytes, bytes, n_bytes < room ? n_bytes : room);
    answer->n_bytes += n_bytes < room ? n_bytes : room;
}

static void say_results(struct answer *answer, const struct shape *shape, vecdb_results *results)
{
    for (size_t i = 0; i < vecdb_results_count(results); i++) {
        double distance = vecdb_result_distance(results, i);
        const char *key = vecdb_result_key_text(results, i);
        const char *metadata = vecdb_result_metadata(results, i, NULL), *text = vecdb_result_text(results, i);
        say(answer, key, strlen(key));
        say(answer, &distance, sizeof distance);
        if (metadata)
            say(answer, metadata, strlen(metadata));
        if (text)
            say(answer, text, strlen(text));
        for (size_t f = 0; f < shape->n_fields; f++) {
            static const size_t bits[] = {0, 32, 16, 16, 8, 8, 1};
            uint32_t dimension = 0;
            int type = 0;
            const void *vector = vecdb_result_vector(results, i, shape->fields[f].name, &dimension, &type);
            if (vector)
                say(answer, vector, dimension * bits[type] / 8);
        }
    }
}

static int list_one(void *context, const vecdb_collection_info *info)
{
    say(context, info->name, strlen(info->name));
    say(context, &info->n_records, sizeof info->n_records);
    for (size_t f = 0; f < info->n_fields; f++) {
        const vecdb_field_info *field = &info->fields[f];
        say(context, field->field.name, strlen(field->field.name));
        say(context, &field->field.dimension, sizeof field->field.dimension);
        say(context, &field->n_vectors, sizeof field->n_vectors);
    }
    return 0;
}

#define ALL_COLUMNS (VECDB_METADATA | VECDB_TEXT | VECDB_VECTORS)

static int scan_all(vecdb_collection *collection, const struct shape *shape, struct answer *answer)
{
    vecdb_scan_options options = {.size = sizeof options, .columns = ALL_COLUMNS};
    vecdb_scan *scan;
    size_t n = 1;
    int status = vecdb_scan_open(collection, &options, &scan, &answer->error);
    if (status)
        return status;
    while (n) {
        vecdb_results *results;
        if ((status = vecdb_scan_next(scan, &results, &answer->error)))
            break;
        n = vecdb_results_count(results);
        say_results(answer, shape, results);
        vecdb_results_free(results);
    }
    vecdb_scan_close(scan);
    return status;
}

static int get_some(vecdb_collection *collection, const struct shape *shape, struct answer *answer)
{
    static const int numbers[] = {0, 11, 21, 52, 119, 203, 999};
    vecdb_key keys[7];
    for (int i = 0; i < 7; i++)
        keys[i] = key_of(shape, numbers[i]);
    vecdb_results *results;
    int status = vecdb_get(collection, keys, 7, ALL_COLUMNS, &results, &answer->error);
    if (status)
        return status;
    say_results(answer, shape, results);
    vecdb_results_free(results);
    return VECDB_OK;
}

static int search_field(vecdb_collection *collection, const struct shape *shape, size_t f, bool is_exact,
                        struct answer *answer, const char **plan)
{
    static float queries[3][MOST_DIMENSION];
    for (int q = 0; q < 3; q++)
        make_vector(shape, f, 15 + q * 95, 1, queries[q]);
    vecdb_query query = {.size = sizeof query,
                         .field = shape->fields[f].name,
                         .vector = queries,
                         .n_queries = 3,
                         .stride = sizeof queries[0],
                         .k = 12,
                         .exact = is_exact,
                         .ef = is_exact ? 0 : 1000, /* all that can be reached */
                         .columns = ALL_COLUMNS};
    vecdb_results *results;
    vecdb_search_stats stats = {.size = sizeof stats};
    int status = vecdb_search(collection, &query, &results, &answer->error);
    if (status)
        return status;
    say_results(answer, shape, results);
    CHECK_INT(vecdb_results_stats(results, &stats), VECDB_OK);
    *plan = stats.plan;
    vecdb_results_free(results);
    return VECDB_OK;
}

/* As the index is now, and when it is there (by its file, or built again, which nobody who searches is to notice). A
 * snapshot has too few records for one. */
static int search_graph(vecdb_collection *collection, const struct shape *shape, struct answer *answer)
{
    const char *plan;
    int status = search_field(collection, shape, 0, false, answer, &plan);
    if (!status)
        status = vecdb_index_wait(collection, NULL, 0, NULL, &answer->error);
    if (!status)
        status = search_field(collection, shape, 0, false, answer, &plan);
    if (!status)
        say(answer, plan, strlen(plan) + 1);
    return status;
}

bool flip_ask(vecdb *db, int question, struct answer *answer)
{
    const struct shape *shape = &shapes[question ? (question - 1) / 4 : 0];
    vecdb_collection *collection;
    int what = question ? (question - 1) % 4 : -1;
    const char *plan;
    answer->n_bytes = 0;
    answer->error = (vecdb_error)VECDB_ERROR_INIT;
    if (what == 3 && shape->n_fields < 2 && shape != GRAPH)
        return false;
    if (what < 0)
        answer->status = vecdb_collections(db, list_one, answer, &answer->error);
    else if (!(answer->status = vecdb_collection_open(db, shape->name, &collection, &answer->error)))
        answer->status = what == 0   ? scan_all(collection, shape, answer)
                         : what == 1 ? get_some(collection, shape, answer)
                         : what == 3 && shape == GRAPH
                             ? search_graph(collection, shape, answer)
                             : search_field(collection, shape, (size_t)what - 2, true, answer, &plan);
    return true;
}

void flip_check_graph(const struct answer *answers, const char *plan)
{
    const struct answer *exact = &answers[N_QUESTIONS - 2], *graph = &answers[N_QUESTIONS - 1];
    size_t n = exact->n_bytes;
    CHECK(!exact->status && !graph->status && n > 3 * 12 * 16);
    CHECK_SIZE(graph->n_bytes, 2 * n + strlen(plan) + 1);
    CHECK(!memcmp(graph->bytes, exact->bytes, n) && !memcmp(graph->bytes + n, exact->bytes, n));
    CHECK_STRING((const char *)graph->bytes + 2 * n, plan);
}
