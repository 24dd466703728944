/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/catalog_help.h - a small catalog to be tested: one table of numbered texts
 */
#ifndef VDB_TESTS_CATALOG_HELP_H
#define VDB_TESTS_CATALOG_HELP_H

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/random.h"
#include "harness.h"
#include "storage/connection.h"

#define SCHEMA "CREATE TABLE records(id INTEGER PRIMARY KEY, value TEXT); CREATE INDEX by_value ON records(value);"

static struct vdb_memory heap;
static const struct vdb_io_hook *hook; /* for the next open */

__attribute__((unused)) static struct vdb_catalog_options options_for(const char *directory)
{
    if (!heap.allocator.allocate)
        vdb_memory_init(&heap, NULL);
    return (struct vdb_catalog_options){.memory = &heap,
                                        .directory = directory,
                                        .create = true,
                                        .durable = true,
                                        .busy_timeout_ms = 5000,
                                        .hook = hook,
                                        .schema = SCHEMA};
}

__attribute__((unused)) static struct vdb_catalog *open_catalog(const char *directory)
{
    struct vdb_catalog_options options = options_for(directory);
    struct vdb_catalog *catalog = NULL;
    vecdb_error err = VECDB_ERROR_INIT;
    CHECK_OK(err, vdb_catalog_open(&options, &catalog, &err));
    return catalog;
}

/* Insert (or replace) rows first .. first + n - 1 with a text of n_bytes that `salt` varies. */
__attribute__((unused)) static int put_rows(struct vdb_connection *connection, uint64_t first, uint64_t n, int n_bytes,
                                            unsigned salt, vecdb_error *err)
{
    for (uint64_t id = first; id < first + n; id++) {
        sqlite3_stmt *statement;
        int rc = vdb_prepare(connection, 1, "INSERT OR REPLACE INTO records VALUES (?1, ?2)", 0, &statement, err);
        if (rc)
            return rc;
        char text[8192];
        int length = n_bytes < (int)sizeof text ? n_bytes : (int)sizeof text;
        for (int i = 0; i < length; i++)
            text[i] = (char)('a' + (id * 31 + salt * 7 + (unsigned)i * (id % 5 + 1)) % 26);
        sqlite3_bind_int64(statement, 1, (sqlite3_int64)id);
        sqlite3_bind_text(statement, 2, text, length, SQLITE_TRANSIENT);
        if (sqlite3_step(statement) != SQLITE_DONE)
            rc = vdb_fail_sqlite(err, connection, "put");
        sqlite3_reset(statement);
        if (rc)
            return rc;
    }
    return VECDB_OK;
}

/* A whole transaction. */
__attribute__((unused)) static int commit_rows(struct vdb_catalog *catalog, uint64_t first, uint64_t n, int n_bytes,
                                               unsigned salt, vecdb_error *err)
{
    struct vdb_connection *connection;
    uint64_t sequence;
    int rc = vdb_write_begin(catalog, &connection, &sequence, err);
    if (rc)
        return rc;
    rc = put_rows(connection, first, n, n_bytes, salt, err);
    if (!rc)
        return vdb_write_commit(connection, err);
    vdb_write_rollback(connection);
    return rc;
}

/* A number that all rows make, and how many there are. */
__attribute__((unused)) static int digest_rows(struct vdb_catalog *catalog, uint64_t *digest, uint64_t *n_rows,
                                               vecdb_error *err)
{
    struct vdb_connection *connection;
    uint64_t sequence, hash = 14695981039346656037u, n = 0; /* FNV-1a */
    int rc = vdb_read_begin(catalog, &connection, &sequence, err);
    if (rc)
        return rc;
    sqlite3_stmt *statement;
    rc = vdb_prepare(connection, 2, "SELECT id, value FROM records ORDER BY id", 0, &statement, err);
    int step = SQLITE_DONE;
    while (!rc && (step = sqlite3_step(statement)) == SQLITE_ROW) {
        const unsigned char *text = sqlite3_column_text(statement, 1);
        int length = sqlite3_column_bytes(statement, 1);
        hash = (hash ^ (uint64_t)sqlite3_column_int64(statement, 0)) * 1099511628211u;
        for (int i = 0; i < length; i++)
            hash = (hash ^ text[i]) * 1099511628211u;
        n++;
    }
    if (!rc && step != SQLITE_DONE)
        rc = vdb_fail_sqlite(err, connection, "digest");
    vdb_read_end(connection);
    if (!rc) {
        *digest = hash ^ sequence;
        *n_rows = n;
    }
    return rc;
}

/* A file as bytes. */
struct bytes {
    unsigned char *at;
    size_t n;
};

__attribute__((unused)) static struct bytes load_file(const char *path)
{
    struct bytes bytes = {NULL, 0};
    static struct vdb_memory memory;
    static struct kept {
        struct kept *next;
    } *kept; /* until the test ends, and known to the leak checker */
    vdb_memory_init(&memory, NULL);
    if (!heap.allocator.allocate)
        vdb_memory_init(&heap, NULL);
    int fd = open(path, O_RDONLY);
    struct stat status;
    if (fd < 0)
        return bytes;
    CHECK(!fstat(fd, &status));
    bytes.n = (size_t)status.st_size;
    struct kept *block = vdb_alloc(&memory, sizeof *block + bytes.n + 1);
    CHECK(block);
    block->next = kept;
    kept = block;
    bytes.at = (unsigned char *)(block + 1);
    CHECK(pread(fd, bytes.at, bytes.n, 0) == (ssize_t)bytes.n);
    close(fd);
    return bytes;
}

__attribute__((unused)) static void store_file(const char *path, struct bytes bytes)
{
    if (!bytes.at) {
        unlink(path);
        return;
    }
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0666);
    CHECK(fd >= 0);
    CHECK(write(fd, bytes.at, bytes.n) == (ssize_t)bytes.n);
    close(fd);
}

__attribute__((unused)) static void flip_bit(const char *path, size_t at, int bit)
{
    unsigned char byte;
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0);
    CHECK(pread(fd, &byte, 1, (off_t)at) == 1);
    byte ^= (unsigned char)(1 << bit);
    CHECK(pwrite(fd, &byte, 1, (off_t)at) == 1);
    close(fd);
}

#endif
