/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/hostile.c - databases made of hostile bytes (see hostile.h): images, edits, checksums
 */
#include "hostile.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/bytes.h"
#include "vecdb.h"

#define PAGE 4096
#define FRAME (24 + PAGE)
#define LOG_HEADER 32

static void must(bool condition)
{
    if (!condition)
        abort();
}

/* ------------------------------------------------------------------ input */

uint8_t hostile_take_u8(struct hostile_input *input)
{
    return input->n ? (input->n--, *input->at++) : 0;
}

uint16_t hostile_take_u16(struct hostile_input *input)
{
    uint16_t low = hostile_take_u8(input);
    return (uint16_t)(low | hostile_take_u8(input) << 8);
}

uint32_t hostile_take_u24(struct hostile_input *input)
{
    uint32_t low = hostile_take_u16(input);
    return low | (uint32_t)hostile_take_u8(input) << 16;
}

uint64_t hostile_take_u64(struct hostile_input *input)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value |= (uint64_t)hostile_take_u8(input) << 8 * i;
    return value;
}

const uint8_t *hostile_take(struct hostile_input *input, size_t n_bytes, size_t *n_taken)
{
    const uint8_t *at = input->at;
    *n_taken = n_bytes < input->n ? n_bytes : input->n;
    input->at += *n_taken;
    input->n -= *n_taken;
    return at;
}

/* ------------------------------------------------------------------ the directory */

static char scratch[200];

static void remove_tree(const char *path)
{
    DIR *directory = opendir(path);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        char child[512];
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        snprintf(child, sizeof child, "%s/%s", path, entry->d_name);
        if (unlink(child))
            remove_tree(child);
    }
    if (directory)
        closedir(directory);
    rmdir(path);
}

static void remove_scratch(void)
{
    remove_tree(scratch);
}

/* A target that crashed could not remove its own. */
static void remove_those_of_the_dead(const char *base)
{
    DIR *directory = opendir(base);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        int pid;
        char path[400];
        if (sscanf(entry->d_name, "vecdb-hostile-%d", &pid) != 1 || !kill(pid, 0) || errno != ESRCH)
            continue;
        snprintf(path, sizeof path, "%s/%s", base, entry->d_name);
        remove_tree(path);
    }
    if (directory)
        closedir(directory);
}

const char *hostile_directory(void)
{
    static char path[240];
    if (!scratch[0]) {
        const char *base = access("/dev/shm", W_OK) ? getenv("TMPDIR") : "/dev/shm";
        base = base ? base : "/tmp";
        remove_those_of_the_dead(base);
        snprintf(scratch, sizeof scratch, "%s/vecdb-hostile-%d", base, (int)getpid());
        remove_tree(scratch);
        must(!mkdir(scratch, 0700));
        atexit(remove_scratch);
        snprintf(path, sizeof path, "%s/db", scratch);
    }
    return path;
}

/* ------------------------------------------------------------------ images */

void hostile_load(const char *path, struct hostile_file *file)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    must(fd >= 0 && !fstat(fd, &status));
    free(file->bytes);
    file->n_bytes = (size_t)status.st_size;
    file->bytes = malloc(file->n_bytes ? file->n_bytes : 1);
    must(file->bytes && pread(fd, file->bytes, file->n_bytes, 0) == (ssize_t)file->n_bytes);
    close(fd);
}

/* `inside`: the part of names that `path` stands for, "" or "snapshot-1/". */
static void load_directory(const char *path, const char *inside, struct hostile_image *image)
{
    DIR *directory = opendir(path);
    must(directory != NULL);
    for (struct dirent *entry; (entry = readdir(directory));) {
        char child[512], within[320];
        struct stat status;
        snprintf(child, sizeof child, "%s/%s", path, entry->d_name);
        if (entry->d_name[0] == '.' || strstr(entry->d_name, "-shm") || stat(child, &status))
            continue;
        snprintf(within, sizeof within, "%s%s", inside, entry->d_name);
        if (S_ISDIR(status.st_mode)) {
            strcat(within, "/");
            load_directory(child, within, image);
            continue;
        }
        struct hostile_file *file = &image->files[image->n++];
        must(image->n <= HOSTILE_FILES && strlen(within) < sizeof file->name);
        strcpy(file->name, within);
        hostile_load(child, file);
    }
    closedir(directory);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct hostile_file *)a)->name, ((const struct hostile_file *)b)->name);
}

void hostile_copy(const struct hostile_image *image, struct hostile_image *copy)
{
    *copy = *image;
    for (size_t i = 0; i < copy->n; i++) {
        size_t n_bytes = image->files[i].n_bytes;
        copy->files[i].bytes = malloc(n_bytes ? n_bytes : 1);
        must(copy->files[i].bytes != NULL);
        memcpy(copy->files[i].bytes, image->files[i].bytes, n_bytes);
    }
}

void hostile_release(struct hostile_image *image)
{
    for (size_t i = 0; i < image->n; i++)
        free(image->files[i].bytes);
    image->n = 0;
}

struct hostile_file *hostile_find(struct hostile_image *image, const char *name)
{
    for (size_t i = 0; i < image->n; i++)
        if (!strcmp(image->files[i].name, name))
            return &image->files[i];
    return NULL;
}

void hostile_resize(struct hostile_file *file, size_t n_bytes)
{
    uint8_t *bytes = realloc(file->bytes, n_bytes ? n_bytes : 1);
    must(bytes != NULL);
    if (n_bytes > file->n_bytes)
        memset(bytes + file->n_bytes, 0, n_bytes - file->n_bytes);
    file->bytes = bytes;
    file->n_bytes = n_bytes;
}

void hostile_remove(struct hostile_image *image, struct hostile_file *file)
{
    free(file->bytes);
    *file = image->files[--image->n];
}

void hostile_store(const struct hostile_image *image, const char *directory)
{
    remove_tree(directory);
    must(!mkdir(directory, 0700));
    for (size_t i = 0; i < image->n; i++) {
        const struct hostile_file *file = &image->files[i];
        char path[400];
        const char *slash = strchr(file->name, '/');
        if (slash) {
            snprintf(path, sizeof path, "%s/%.*s", directory, (int)(slash - file->name), file->name);
            mkdir(path, 0700);
        }
        snprintf(path, sizeof path, "%s/%s", directory, file->name);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        must(fd >= 0 && write(fd, file->bytes, file->n_bytes) == (ssize_t)file->n_bytes);
        close(fd);
    }
}

size_t hostile_count(const char *path)
{
    size_t n = 0;
    DIR *directory = opendir(path);
    must(directory != NULL);
    for (struct dirent *entry; (entry = readdir(directory));)
        n += strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
    closedir(directory);
    return n;
}

/* ------------------------------------------------------------------ edits and checksums */

void hostile_edit(struct hostile_file *file, struct hostile_input *input, size_t most)
{
    for (; input->n >= 4 && most && file->n_bytes; most--) {
        size_t at = hostile_take_u24(input) % file->n_bytes;
        file->bytes[at] = hostile_take_u8(input);
    }
}

void hostile_stamp_catalog(struct hostile_file *file)
{
    for (size_t page = 0; page < file->n_bytes / PAGE; page++) {
        uint8_t *at = file->bytes + page * PAGE;
        vdb_store_u64(at + PAGE - 8, XXH3_64bits_withSeed(at, PAGE - 8, page + 1));
    }
}

static uint32_t load_word(const uint8_t *at, bool big)
{
    uint32_t word = vdb_load_u32(at);
    return big ? __builtin_bswap32(word) : word;
}

static void store_sum(uint8_t *at, const uint32_t sum[2])
{
    vdb_store_u32(at, __builtin_bswap32(sum[0]));
    vdb_store_u32(at + 4, __builtin_bswap32(sum[1]));
}

/* SQLite's running sum over a WAL ("The Write-Ahead Log" in its description of the format). */
static void add_to_sum(uint32_t sum[2], const uint8_t *bytes, size_t n_bytes, bool big)
{
    for (size_t i = 0; i + 8 <= n_bytes; i += 8) {
        sum[0] += load_word(bytes + i, big) + sum[1];
        sum[1] += load_word(bytes + i + 4, big) + sum[0];
    }
}

void hostile_stamp_log(struct hostile_file *file)
{
    if (file->n_bytes < LOG_HEADER)
        return;
    bool big = file->bytes[3] & 1;
    uint32_t sum[2] = {0, 0};
    add_to_sum(sum, file->bytes, 24, big);
    store_sum(file->bytes + 24, sum);
    for (size_t at = LOG_HEADER; at + FRAME <= file->n_bytes; at += FRAME) {
        memcpy(file->bytes + at + 8, file->bytes + 16, 8);
        add_to_sum(sum, file->bytes + at, 8, big);
        add_to_sum(sum, file->bytes + at + 24, PAGE, big);
        store_sum(file->bytes + at + 16, sum);
    }
}

static void stamp_number(uint8_t *at)
{
    uint16_t crc = 0xffff;
    for (int byte = 5; byte >= 0; byte--) {
        crc = (uint16_t)(crc ^ at[byte] << 8);
        for (int bit = 0; bit < 8; bit++)
            crc = (uint16_t)(crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1);
    }
    vdb_store_u16(at + 6, crc);
}

void hostile_stamp_state(struct hostile_file *file)
{
    if (file->n_bytes < 72)
        return;
    vdb_store_u64(file->bytes + 32, XXH3_64bits(file->bytes, 32));
    vdb_store_u64(file->bytes + 56, XXH3_64bits_withSeed(file->bytes + 48, 8, 0x6d61726b));
    stamp_number(file->bytes + 40);
    stamp_number(file->bytes + 64);
}

/* Their pages and footers have checks that the catalog vouches for: fuzz_extent edits behind these. */
void hostile_stamp_vectors(struct hostile_file *file)
{
    if (file->n_bytes >= 64)
        vdb_store_u64(file->bytes, XXH3_64bits(file->bytes + 8, 56));
}

/* Of its header alone: fuzz_index edits behind the checks of frames. */
void hostile_stamp_index(struct hostile_file *file)
{
    if (file->n_bytes >= 64)
        vdb_store_u64(file->bytes + 56, XXH3_64bits(file->bytes, 56));
}

void hostile_stamp(struct hostile_image *image)
{
    for (size_t i = 0; i < image->n; i++) {
        const char *name = image->files[i].name, *slash = strchr(name, '/');
        name = slash ? slash + 1 : name;
        if (!strcmp(name, "catalog.sqlite"))
            hostile_stamp_catalog(&image->files[i]);
        else if (!strcmp(name, "catalog.sqlite-wal"))
            hostile_stamp_log(&image->files[i]);
        else if (!strcmp(name, "state"))
            hostile_stamp_state(&image->files[i]);
        else if (!strncmp(name, "vectors-", 8))
            hostile_stamp_vectors(&image->files[i]);
        else if (!strncmp(name, "index-", 6))
            hostile_stamp_index(&image->files[i]);
    }
}

/* ------------------------------------------------------------------ a good database */

static const vecdb_field FIELDS[] = {
    {.name = "f32", .dimension = 5, .type = VECDB_F32, .metric = VECDB_L2},
    {.name = "f16", .dimension = 3, .type = VECDB_F16, .metric = VECDB_COSINE, .compression = VECDB_COMPRESSION_MAX},
    {.name = "bits", .dimension = 12, .type = VECDB_BIT},
};
#define N_FIELDS (sizeof FIELDS / sizeof FIELDS[0])

static void put_records(vecdb_collection *collection, int first, int n)
{
    for (int i = first; i < first + n; i++) {
        float f32[5], f16[3];
        uint8_t bits[2] = {(uint8_t)(i * 37), (uint8_t)(i % 16)};
        char key[32], metadata[64];
        for (int j = 0; j < 5; j++)
            f32[j] = (float)(i % 3 ? i + j : 1.0 / (i + j + 2));
        for (int j = 0; j < 3; j++)
            f16[j] = (float)(i % 7 + j + 1);
        snprintf(key, sizeof key, "key %d", i);
        snprintf(metadata, sizeof metadata, "{\"n\": %d, \"tags\": [\"a\", null, 1.5]}", i);
        vecdb_vector vectors[] = {{.values = f32}, {.field = "f16", .values = f16, .type = VECDB_F32},
                                  {.field = "bits", .values = i % 5 ? bits : NULL}};
        vecdb_record record = {.key = i % 2 ? vecdb_key_int(i) : vecdb_key_text(key),
                               .vectors = vectors,
                               .n_vectors = N_FIELDS,
                               .metadata = i % 4 ? metadata : NULL,
                               .text = i % 3 ? "a text" : NULL};
        must(!vecdb_put(collection, &record, 1, NULL));
    }
}

static void make_good(const char *directory, bool with_log, struct hostile_image *image)
{
    vecdb_options options = {.size = sizeof options,
                             .mode = VECDB_OPEN_NEW,
                             .threads = VECDB_THREADS_NONE,
                             .durability = VECDB_DURABILITY_NORMAL};
    vecdb_collection *first, *second;
    vecdb *db;
    remove_tree(directory);
    must(!vecdb_open(directory, &options, &db, NULL));
    must(!vecdb_collection_create(db, "first", FIELDS, N_FIELDS, 0, &first, NULL));
    must(!vecdb_collection_create(db, "second/../\"'", &FIELDS[0], 1, 0, &second, NULL));
    put_records(first, 0, 24);
    must(!vecdb_compact(db, NULL, NULL));
    put_records(first, 20, 8);
    must(!vecdb_compact(db, NULL, NULL));
    must(!vecdb_snapshot_create(db, "a snapshot", NULL));
    vecdb_key keys[] = {{.integer = 3}, {.text = "key 8"}};
    must(!vecdb_delete(first, keys, 2, NULL, NULL));
    put_records(first, 10, 3);
    put_records(first, 28, 4);
    vecdb_record plain = {.key = {.text = "only"}, .vector = (float[]){1, 2, 3, 4, 5}};
    must(!vecdb_put(second, &plain, 1, NULL));
    if (with_log)
        load_directory(directory, "", image);
    vecdb_close(db);
    if (!with_log)
        load_directory(directory, "", image);
    remove_tree(directory);
    qsort(image->files, image->n, sizeof image->files[0], by_name);
}

const struct hostile_image *hostile_good(bool with_log)
{
    static struct hostile_image images[2];
    if (!images[with_log].n)
        make_good(hostile_directory(), with_log, &images[with_log]);
    return &images[with_log];
}

/* A thousand records, most of which have one vector, that a graph holds once. */
static void make_indexed(const char *directory, struct hostile_image *image)
{
    enum { N = 1000 };
    static int64_t keys[N];
    static unsigned char values[N][8];
    vecdb_options options = {.size = sizeof options,
                             .mode = VECDB_OPEN_NEW,
                             .threads = VECDB_THREADS_NONE,
                             .durability = VECDB_DURABILITY_NORMAL};
    vecdb_field field = {
        .name = "v", .dimension = 8, .type = VECDB_U8, .metric = VECDB_L2, .index = VECDB_INDEX_HNSW};
    vecdb_collection *collection;
    vecdb *db;
    for (int i = 0; i < N; i++) {
        keys[i] = i;
        for (int j = 0; j < 8; j++)
            values[i][j] = (unsigned char)(i < 50 ? i * 37 + j * j * 11 : 255);
    }
    vecdb_vector_column column = {.values = values, .type = VECDB_U8};
    vecdb_batch batch = {.size = sizeof batch, .n_rows = N, .integer_keys = keys, .vectors = &column, .n_vectors = 1};
    vecdb_key gone = {.integer = 3};
    remove_tree(directory);
    must(!vecdb_open(directory, &options, &db, NULL));
    must(!vecdb_collection_create(db, "graph", &field, 1, 0, &collection, NULL));
    must(!vecdb_write(collection, &batch, NULL));
    must(!vecdb_index_wait(collection, NULL, 0, NULL, NULL));
    must(!vecdb_delete(collection, &gone, 1, NULL, NULL));
    vecdb_close(db);
    load_directory(directory, "", image);
    remove_tree(directory);
    qsort(image->files, image->n, sizeof image->files[0], by_name);
    must(hostile_find(image, "index-1-1") != NULL);
}

const struct hostile_image *hostile_indexed(void)
{
    static struct hostile_image image;
    if (!image.n)
        make_indexed(hostile_directory(), &image);
    return &image;
}
