/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/fault_tools.h - what the tests of faults share: files in memory, records that can be checked
 *
 * A record is made from its key and a version, all of it: vectors, metadata and text. Whoever reads
 * one can tell which version it is, and that no part of it is another's.
 */
#ifndef VDB_TESTS_FAULT_TOOLS_H
#define VDB_TESTS_FAULT_TOOLS_H

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/random.h"
#include "harness.h"

#define TOOL static __attribute__((unused))

/* How much is tried: VECDB_TEST_ROUNDS, or what a test takes that should end soon. */
TOOL unsigned long test_rounds(unsigned long otherwise)
{
    const char *given = getenv("VECDB_TEST_ROUNDS");
    return given && *given ? strtoul(given, NULL, 10) : otherwise;
}

/* A failed call has said so, in words. */
TOOL void check_sentence(const char *what, int status, const vecdb_error *err)
{
    if (status && (!err->message[0] || err->status != status))
        FAIL("%s: %s without a sentence: status %d, \"%s\"", what, vecdb_status_name(status), err->status,
             err->message);
}

/* Put a file system of this test's own, in memory, on its scratch directory; it goes with the process.
 * False: not permitted here. */
TOOL bool mount_memory(const char *directory, const char *options)
{
    return !unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) &&
           !mount("tmpfs", directory, "tmpfs", 0, options);
}

/* ------------------------------------------------------------------ files */

#define MOST_FILES 32

struct kept_file {
    char name[64];
    unsigned char *bytes;
    size_t n_bytes;
};

/* The files of a directory, held in memory. */
struct kept_files {
    struct kept_file files[MOST_FILES];
    size_t n;
};

TOOL struct vdb_memory *tool_memory(void)
{
    static struct vdb_memory memory;
    if (!memory.allocator.allocate)
        vdb_memory_init(&memory, NULL);
    return &memory;
}

TOOL void read_file(const char *path, struct kept_file *file)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && !fstat(fd, &status));
    file->n_bytes = (size_t)status.st_size;
    file->bytes = vdb_alloc(tool_memory(), file->n_bytes + 1);
    CHECK(file->bytes);
    CHECK_INT(pread(fd, file->bytes, file->n_bytes, 0), file->n_bytes);
    close(fd);
}

TOOL void write_file(const char *path, const void *bytes, size_t n_bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    CHECK(fd >= 0);
    CHECK_INT(write(fd, bytes, n_bytes), n_bytes);
    close(fd);
}

/* Call `each` for every name in a directory. */
TOOL void each_name(const char *directory, void (*each)(void *context, const char *path, const char *name),
                    void *context)
{
    DIR *listing = opendir(directory);
    if (!listing)
        return;
    for (struct dirent *entry; (entry = readdir(listing));) {
        char path[1024];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        each(context, path, entry->d_name);
    }
    closedir(listing);
}

TOOL void unlink_one(void *context, const char *path, const char *name)
{
    (void)context, (void)name;
    unlink(path);
}

/* Remove the files of a database, and its directory. */
TOOL void remove_database(const char *directory)
{
    each_name(directory, unlink_one, NULL);
    rmdir(directory);
}

TOOL void keep_one(void *context, const char *path, const char *name)
{
    struct kept_files *kept = context;
    CHECK(kept->n < MOST_FILES && strlen(name) < sizeof kept->files[0].name);
    struct kept_file *file = &kept->files[kept->n++];
    snprintf(file->name, sizeof file->name, "%s", name);
    read_file(path, file);
}

TOOL int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct kept_file *)a)->name, ((const struct kept_file *)b)->name);
}

/* In the order of their names, whatever the directory's order is. */
TOOL void keep_files(const char *directory, struct kept_files *kept)
{
    kept->n = 0;
    each_name(directory, keep_one, kept);
    qsort(kept->files, kept->n, sizeof kept->files[0], compare_names);
}

TOOL const struct kept_file *kept_file(const struct kept_files *kept, const char *name)
{
    for (size_t i = 0; i < kept->n; i++)
        if (!strcmp(kept->files[i].name, name))
            return &kept->files[i];
    return NULL;
}

/* Make the directory hold these files and no others. */
TOOL void restore_files(const char *directory, const struct kept_files *kept)
{
    char path[512];
    remove_database(directory);
    CHECK(!mkdir(directory, 0777));
    for (size_t i = 0; i < kept->n; i++) {
        snprintf(path, sizeof path, "%s/%s", directory, kept->files[i].name);
        write_file(path, kept->files[i].bytes, kept->files[i].n_bytes);
    }
}

struct file_sum {
    unsigned n_files;
    uint64_t n_bytes;
};

TOOL void sum_vectors(void *context, const char *path, const char *name)
{
    struct file_sum *sum = context;
    struct stat status;
    if (strncmp(name, "vectors-", 8) || stat(path, &status))
        return;
    sum->n_files++;
    sum->n_bytes += (uint64_t)status.st_size;
}

/* ------------------------------------------------------------------ records */

/* Value i of the vector of a key's version. Elements 0 and 1 are the key and the version. */
TOOL float value_of(int64_t key, uint32_t version, uint32_t i)
{
    if (i < 2)
        return i ? (float)version : (float)key;
    uint32_t bits = (uint32_t)key * 2654435761u + version * 40503u + i * 97u;
    bits ^= bits >> 15;
    bits *= 0x2c1b3c6du;
    return (float)(bits >> 8) * 0x1p-24f;
}

TOOL void fill_vector(int64_t key, uint32_t version, uint32_t dimension, float *out)
{
    for (uint32_t i = 0; i < dimension; i++)
        out[i] = value_of(key, version, i);
}

/* The version that a vector says it is of; every value must agree. */
TOOL uint32_t version_of_vector(int64_t key, const float *vector, uint32_t dimension)
{
    uint32_t version = (uint32_t)vector[1];
    for (uint32_t i = 0; i < dimension; i++)
        if (vector[i] != value_of(key, version, i))
            FAIL("key %lld: value %u is %g; in version %u it is %g", (long long)key, i, (double)vector[i], version,
                 (double)value_of(key, version, i));
    return version;
}

/* Open, or fail the test. */
TOOL vecdb *open_database(const char *path, int mode, int threads)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_options options = {.size = sizeof options, .mode = mode, .threads = threads};
    vecdb *db = NULL;
    CHECK_OK(err, vecdb_open(path, &options, &db, &err));
    return db;
}

TOOL void print_problem(void *context, const vecdb_problem *problem)
{
    (void)context;
    fprintf(stderr, "    problem in %s: %s\n", problem->file, problem->message);
}

/* Nothing is wrong with it. */
TOOL void check_database(vecdb *db, const char *when)
{
    vecdb_error err = VECDB_ERROR_INIT;
    uint64_t n_problems = 0;
    int status = vecdb_check(db, NULL, print_problem, NULL, &n_problems, &err);
    if (status || n_problems)
        FAIL("%s: check says %s \"%s\", %llu problems", when, vecdb_status_name(status), err.message,
             (unsigned long long)n_problems);
}

#endif
