/* SPDX-License-Identifier: Apache-2.0
 *
 * Property: files on disk and files in memory behave the same, byte for byte and error for error; whole
 * transfers or an error; a message names the file; maps stay valid while a file grows, after it is
 * closed, and after it is removed.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/random.h"
#include "failing.h"
#include "harness.h"
#include "storage/vfs.h"

static struct vdb_memory memory;
static vecdb_error err;

static struct vdb_vfs *begin(int kind)
{
    struct vdb_vfs *vfs;
    vdb_memory_init(&memory, NULL);
    if (kind == 2)
        CHECK_OK(err, vdb_vfs_memory(&memory, &vfs, &err));
    else
        CHECK_OK(err, vdb_vfs_posix(&memory, kind == 0, &vfs, &err));
    return vfs;
}

static void end(struct vdb_vfs *vfs)
{
    vfs->end(vfs);
    CHECK_SIZE(vdb_memory_used(&memory), 0ull);
}

static void fill(unsigned char *bytes, size_t n, uint64_t seed)
{
    struct vdb_random random = {seed};
    for (size_t i = 0; i < n; i++)
        bytes[i] = (unsigned char)vdb_random_next(&random);
}

TEST(what_is_written_in_pieces_is_read_in_others)
{
    for (int kind = 0; kind < 3; kind++) {
        struct vdb_vfs *vfs = begin(kind);
        struct vdb_random random = {test_seed()};
        size_t n = 3 << 20;
        unsigned char *bytes = vdb_alloc(&memory, n), *back = vdb_alloc(&memory, n);
        struct vdb_file *file;
        uint64_t size;
        fill(bytes, n, test_seed());
        CHECK_OK(err, vfs->open(vfs, test_path("pieces"), VDB_FILE_CREATE, &file, &err));
        for (size_t at = 0, step; at < n; at += step) {
            step = 1 + vdb_random_below(&random, 200000);
            step = step < n - at ? step : n - at;
            CHECK_OK(err, vfs->write(file, at, bytes + at, step, &err));
        }
        CHECK_OK(err, vfs->sync(file, &err));
        CHECK_OK(err, vfs->size(file, &size, &err));
        CHECK_SIZE((unsigned long long)size, (unsigned long long)n);
        for (int i = 0; i < 100; i++) {
            struct vdb_read reads[3];
            memset(back, 0, n);
            for (int r = 0; r < 3; r++) {
                size_t at = vdb_random_below(&random, n), length = vdb_random_below(&random, n - at + 1);
                reads[r] = (struct vdb_read){at, length, back + at};
            }
            CHECK_OK(err, vfs->read_many(file, reads, 3, &err));
            for (int r = 0; r < 3; r++)
                CHECK(!memcmp(back + reads[r].offset, bytes + reads[r].offset, reads[r].n_bytes));
        }
        vfs->close(file);
        vdb_free(&memory, bytes);
        vdb_free(&memory, back);
        end(vfs);
        unlink(test_path("pieces"));
    }
}

TEST(a_hole_reads_as_zeros)
{
    for (int kind = 0; kind < 3; kind++) {
        struct vdb_vfs *vfs = begin(kind);
        struct vdb_file *file;
        unsigned char bytes[1000];
        CHECK_OK(err, vfs->open(vfs, test_path("hole"), VDB_FILE_CREATE, &file, &err));
        CHECK_OK(err, vfs->write(file, 200000, "end", 3, &err));
        CHECK_OK(err, vfs->read(file, 130600, bytes, 1000, &err));
        for (int i = 0; i < 1000; i++)
            CHECK_INT(bytes[i], 0);
        vfs->close(file);
        end(vfs);
        unlink(test_path("hole"));
    }
}

TEST(a_read_or_map_beyond_the_end_says_that_the_file_is_truncated)
{
    for (int kind = 0; kind < 3; kind++) {
        struct vdb_vfs *vfs = begin(kind);
        struct vdb_file *file;
        unsigned char bytes[100];
        const void *map;
        CHECK_OK(err, vfs->open(vfs, test_path("short"), VDB_FILE_CREATE, &file, &err));
        CHECK_OK(err, vfs->write(file, 0, "0123456789", 10, &err));
        CHECK_OK(err, vfs->read(file, 10, bytes, 0, &err));
        CHECK_FAILS(err, VECDB_CORRUPT, "short ends at byte 10, 11 were expected: the file is truncated",
                    vfs->read(file, 1, bytes, 10, &err));
        CHECK_FAILS(err, VECDB_CORRUPT, "short", vfs->read(file, UINT64_MAX - 5, bytes, 10, &err));
        CHECK_FAILS(err, VECDB_FULL, "short", vfs->write(file, UINT64_MAX - 5, bytes, 10, &err));
        if (kind != 1) {
            CHECK_FAILS(err, VECDB_CORRUPT, "truncated", vfs->map(file, 5, 6, &map, &err));
            CHECK_FAILS(err, VECDB_CORRUPT, "truncated", vfs->map(file, UINT64_MAX - 5, 10, &map, &err));
        } else {
            CHECK_FAILS(err, VECDB_UNSUPPORTED, "short", vfs->map(file, 0, 5, &map, &err));
        }
        vfs->close(file);
        end(vfs);
        unlink(test_path("short"));
    }
}

TEST(a_map_stays_while_the_file_grows_is_closed_and_removed)
{
    for (int kind = 0; kind < 3; kind += 2) {
        struct vdb_vfs *vfs = begin(kind);
        struct vdb_file *file;
        size_t n = 500000;
        unsigned char *bytes = vdb_alloc(&memory, n);
        const void *maps[2], *beyond;
        fill(bytes, n, test_seed());
        CHECK_OK(err, vfs->open(vfs, test_path("mapped"), VDB_FILE_CREATE, &file, &err));
        CHECK_OK(err, vfs->write(file, 0, bytes, 120000, &err));
        CHECK_OK(err, vfs->map(file, 70001, 40000, &maps[0], &err)); /* an offset that is no page's */
        CHECK_OK(err, vfs->map(file, 70001, 40000, &maps[1], &err));
        CHECK_OK(err, vfs->write(file, 120000, bytes + 120000, n - 120000, &err));
        if (kind == 2) /* 64 KiB is the border between two chunks */
            CHECK_FAILS(err, VECDB_UNSUPPORTED, "together", vfs->map(file, 65000, 5000, &beyond, &err));
        vfs->close(file);
        CHECK_OK(err, vfs->remove(vfs, test_path("mapped"), &err));
        for (int i = 0; i < 2; i++) {
            CHECK(!memcmp(maps[i], bytes + 70001, 40000));
            vfs->unmap(vfs, maps[i], 40000);
        }
        vdb_free(&memory, bytes);
        end(vfs);
    }
}

TEST(opening_creating_and_removing_say_what_is_wrong)
{
    for (int kind = 0; kind < 3; kind++) {
        struct vdb_vfs *vfs = begin(kind);
        struct vdb_file *file, *again;
        enum vdb_path_kind path_kind;
        char path[512];
        strcpy(path, test_path("dir/file"));
        CHECK_OK(err, vfs->make_directory(vfs, test_path("dir"), &err));
        CHECK_OK(err, vfs->make_directory(vfs, test_path("dir"), &err));
        CHECK_FAILS(err, VECDB_NOT_FOUND, "dir/file", vfs->open(vfs, path, VDB_FILE_READ, &file, &err));
        CHECK_FAILS(err, VECDB_NOT_FOUND, "dir/file", vfs->open(vfs, path, VDB_FILE_WRITE, &file, &err));
        CHECK_OK(err, vfs->open(vfs, path, VDB_FILE_CREATE, &file, &err));
        CHECK_FAILS(err, VECDB_EXISTS, "dir/file", vfs->open(vfs, path, VDB_FILE_CREATE, &again, &err));
        CHECK_FAILS(err, VECDB_INVALID, "not a regular file",
                    vfs->open(vfs, test_path("dir"), VDB_FILE_READ, &again, &err));
        CHECK_FAILS(err, VECDB_INVALID, "something else", vfs->make_directory(vfs, path, &err));
        CHECK_OK(err, vfs->kind(vfs, path, &path_kind, &err));
        CHECK_INT(path_kind, VDB_PATH_FILE);
        CHECK_OK(err, vfs->kind(vfs, test_path("dir"), &path_kind, &err));
        CHECK_INT(path_kind, VDB_PATH_DIRECTORY);
        CHECK_OK(err, vfs->open(vfs, path, VDB_FILE_READ, &again, &err));
        CHECK_OK(err, vfs->write(file, 0, "shared", 6, &err));
        char bytes[6];
        CHECK_OK(err, vfs->read(again, 0, bytes, 6, &err));
        CHECK(!memcmp(bytes, "shared", 6));
        vfs->close(again);
        CHECK_OK(err, vfs->remove(vfs, path, &err));
        CHECK_OK(err, vfs->remove(vfs, path, &err));
        CHECK_OK(err, vfs->kind(vfs, path, &path_kind, &err));
        CHECK_INT(path_kind, VDB_PATH_MISSING);
        CHECK_OK(err, vfs->read(file, 0, bytes, 6, &err)); /* a removed file lives while it is open */
        CHECK_OK(err, vfs->sync_directory(vfs, test_path("dir"), &err));
        vfs->close(file);
        vfs->close(NULL);
        end(vfs);
        rmdir(test_path("dir"));
    }
}

static bool collect(void *context, const char *name)
{
    unsigned *seen = context;
    *seen |= !strcmp(name, "a") ? 1u : !strcmp(name, "b") ? 2u : 4u;
    return true;
}

static bool stop_at_once(void *context, const char *name)
{
    (void)name;
    return ++*(unsigned *)context == 0;
}

TEST(a_directory_lists_its_names)
{
    for (int kind = 0; kind < 3; kind++) {
        struct vdb_vfs *vfs = begin(kind);
        struct vdb_file *file;
        unsigned seen = 0, n_calls = 0;
        CHECK_OK(err, vfs->make_directory(vfs, test_path("list"), &err));
        for (int i = 0; i < 2; i++) {
            CHECK_OK(err, vfs->open(vfs, test_path(i ? "list/a" : "list/b"), VDB_FILE_CREATE, &file, &err));
            vfs->close(file);
        }
        CHECK_OK(err, vfs->list(vfs, test_path("list"), collect, &seen, &err));
        CHECK_INT(seen, 3);
        CHECK_OK(err, vfs->list(vfs, test_path("list"), stop_at_once, &n_calls, &err));
        CHECK_INT(n_calls, 1);
        CHECK_OK(err, vfs->remove(vfs, test_path("list/a"), &err));
        CHECK_OK(err, vfs->remove(vfs, test_path("list/b"), &err));
        end(vfs);
        rmdir(test_path("list"));
    }
}

/* Processes that open a new database at once make its directory under one another's eyes. */
TEST(a_directory_that_comes_and_goes_is_missing_or_a_directory_and_nothing_else)
{
    struct vdb_vfs *vfs = begin(0);
    char path[512];
    snprintf(path, sizeof path, "%s", test_path("coming"));
    pid_t maker = fork();
    CHECK(maker >= 0);
    for (long i = 0; !maker; i++) { /* until it is killed */
        mkdir(path, 0777);
        rmdir(path);
    }
    unsigned n_seen[VDB_PATH_OTHER + 1] = {0};
    for (long i = 0; i < 500000; i++) {
        enum vdb_path_kind kind;
        CHECK_OK(err, vfs->kind(vfs, path, &kind, &err));
        n_seen[kind]++;
    }
    CHECK(!kill(maker, SIGKILL) && waitpid(maker, NULL, 0) == maker);
    CHECK_INT(n_seen[VDB_PATH_FILE] + n_seen[VDB_PATH_OTHER], 0);
    CHECK(n_seen[VDB_PATH_MISSING]);
    end(vfs);
}

TEST(links_pipes_and_forbidden_files_are_refused)
{
    struct vdb_vfs *vfs = begin(0);
    struct vdb_file *file;
    enum vdb_path_kind kind;
    CHECK_INT(symlink("/etc/hostname", test_path("link")), 0);
    CHECK_FAILS(err, VECDB_INVALID, "symbolic link", vfs->open(vfs, test_path("link"), VDB_FILE_READ, &file, &err));
    CHECK_INT(symlink("nowhere", test_path("dangling")), 0);
    CHECK_OK(err, vfs->kind(vfs, test_path("dangling"), &kind, &err));
    CHECK_INT(kind, VDB_PATH_OTHER);
    CHECK_INT(mkfifo(test_path("pipe"), 0600), 0);
    CHECK_FAILS(err, VECDB_INVALID, "regular file", vfs->open(vfs, test_path("pipe"), VDB_FILE_READ, &file, &err));
    CHECK_FAILS(err, VECDB_NOT_FOUND, "", vfs->list(vfs, test_path("missing"), collect, NULL, &err));
    CHECK_FAILS(err, VECDB_NOT_FOUND, "", vfs->sync_directory(vfs, test_path("missing"), &err));
    if (getuid()) {
        CHECK_OK(err, vfs->open(vfs, test_path("secret"), VDB_FILE_CREATE, &file, &err));
        vfs->close(file);
        CHECK_INT(chmod(test_path("secret"), 0), 0);
        CHECK_FAILS(err, VECDB_DENIED, "secret", vfs->open(vfs, test_path("secret"), VDB_FILE_READ, &file, &err));
    }
    end(vfs);
}

TEST(a_file_that_may_not_grow_is_told_as_full)
{
    struct vdb_vfs *vfs = begin(0);
    struct vdb_file *file;
    struct rlimit limit = {1000, 1000};
    static const char bytes[2000];
    signal(SIGXFSZ, SIG_IGN);
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &limit), 0);
    CHECK_OK(err, vfs->open(vfs, test_path("full"), VDB_FILE_CREATE, &file, &err));
    CHECK_OK(err, vfs->write(file, 0, bytes, 1000, &err));
    CHECK_FAILS(err, VECDB_FULL, "cannot write 2000 bytes at offset 500 of ", vfs->write(file, 500, bytes, 2000, &err));
    vfs->close(file);
    end(vfs);
}

struct script {
    enum vdb_io_op op;
    int answer;
    int n_asked;
};

static int answer(void *context, enum vdb_io_op op, const char *path)
{
    struct script *script = context;
    CHECK(strstr(path, "faulty") || op == VDB_IO_DIRECTORY);
    script->n_asked++;
    return op == script->op ? script->answer : 0;
}

TEST(injected_faults_arrive_and_a_short_write_leaves_half)
{
    struct vdb_vfs *inner = begin(2), *vfs;
    struct script script = {VDB_IO_WRITE, VDB_FAULT_SHORT, 0};
    struct vdb_io_hook hook = {answer, &script};
    struct vdb_file *file;
    uint64_t size;
    char bytes[8] = "";
    CHECK_OK(err, vdb_vfs_fault(&memory, inner, &hook, &vfs, &err));
    CHECK_OK(err, vfs->open(vfs, "db/faulty", VDB_FILE_CREATE, &file, &err));
    CHECK_FAILS(err, VECDB_IO, "db/faulty", vfs->write(file, 0, "12345678", 8, &err));
    CHECK_OK(err, vfs->size(file, &size, &err));
    CHECK_INT(size, 4);
    script.op = VDB_IO_READ;
    CHECK_FAILS(err, VECDB_IO, "db/faulty", vfs->read(file, 0, bytes, 4, &err));
    CHECK_STRING(bytes, "12");
    script.answer = ENOSPC;
    script.op = VDB_IO_SYNC;
    CHECK_FAILS(err, VECDB_FULL, "db/faulty", vfs->sync(file, &err));
    script.op = VDB_IO_OPEN;
    script.answer = EACCES;
    struct vdb_file *other;
    CHECK_FAILS(err, VECDB_DENIED, "db/faulty", vfs->open(vfs, "db/faulty", VDB_FILE_READ, &other, &err));
    CHECK(script.n_asked == 6);
    vfs->close(file);
    vfs->end(vfs);
    end(inner);
}

TEST(every_failing_allocation_is_an_error_and_leaks_nothing)
{
    for (int kind = 0; kind < 3; kind += 2) {
        bool whole = false;
        for (int n = 0; !whole; n++) {
            struct failing failing;
            struct vdb_vfs *vfs = NULL;
            struct vdb_file *file = NULL;
            const void *map = NULL;
            failing_begin(&failing, &memory, n);
            int status = kind ? vdb_vfs_memory(&memory, &vfs, &err) : vdb_vfs_posix(&memory, true, &vfs, &err);
            if (!status)
                status = vfs->make_directory(vfs, test_path("d"), &err);
            if (!status)
                status = vfs->open(vfs, test_path("file"), VDB_FILE_CREATE, &file, &err);
            if (!status)
                status = vfs->write(file, 100000, "bytes", 5, &err);
            if (!status)
                status = vfs->map(file, 99000, 1000, &map, &err);
            CHECK(status == VECDB_OK || status == VECDB_NOMEM);
            whole = !failing_has_failed(&failing);
            if (map)
                vfs->unmap(vfs, map, 1000);
            if (file)
                vfs->close(file);
            if (vfs)
                vfs->end(vfs);
            CHECK_SIZE(vdb_memory_used(&memory), 0ull);
            unlink(test_path("file"));
            CHECK(n < 50);
        }
    }
}

TEST(a_message_shows_the_last_two_parts_of_a_path)
{
    CHECK_STRING(vdb_path_tail("/a/b/my.vecdb/vectors-1-1"), "my.vecdb/vectors-1-1");
    CHECK_STRING(vdb_path_tail("my.vecdb/vectors-1-1"), "my.vecdb/vectors-1-1");
    CHECK_STRING(vdb_path_tail("/vectors-1-1"), "/vectors-1-1");
    CHECK_STRING(vdb_path_tail("vectors-1-1"), "vectors-1-1");
    CHECK_STRING(vdb_path_tail(""), "");
}
