/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/catalog_open.c - opening and making a catalog, opening and closing its connections (see connection.h)
 *
 *     state  ->  the shim  ->  mark against the WAL  ->  durable number  ->  first connection
 *                ->  whose file is it?  ->  (make it, in the gate)  ->  uuid into `state`  ->  compare numbers
 *
 * Making a catalog, by one process at a time because it holds the gate:
 *
 *     reserve 8 bytes, page size, auto_vacuum      before the first byte is written
 *     journal_mode = WAL                           writes page 1
 *     BEGIN EXCLUSIVE, table `database`, the caller's schema, application id, COMMIT
 *     uuid into `state`
 *
 * A crash before the COMMIT leaves a file without tables, which the next open takes for one that is yet to
 * be made; a crash after it leaves `state` without a uuid, which the next open puts there.
 *
 * Invariants
 *   1. No connection is handed out whose settings were not read back.
 *   2. A `state` that knows a uuid without a catalog is an error: the truth is missing, and making a new one
 *      would hide that.
 *   3. A read-only open writes no byte: read-only flags for the main file and the WAL, and shared memory by
 *      readonly_shm. Without the -shm file (a copy, a medium) SQLite cannot lock; when there is no WAL with
 *      content either the main file is all there is, and is opened `immutable`. A writer that comes later
 *      makes the -shm file first. Every read transaction loads `durable`, takes lock S of `state`, looks for
 *      that file, and begins: as long as it has the lock no checkpoint changes the main file beneath it, and
 *      what is committed after it looked is in the WAL alone.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/threads.h"
#include "connection_parts.h"

#define SHORTEST_WAIT_MS 1000 /* a reader waits for another's recovery even when it was told not to wait */

/* ---- connections */

/* "file:" and the path with everything that means something in a URI replaced; then the parameters. */
static char *make_uri(struct vdb_catalog *catalog, const char *parameters)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t n = 16 + strlen(catalog->path) * 3 + strlen(parameters);
    char *uri = vdb_alloc(catalog->memory, n), *to = uri;
    if (!uri)
        return NULL;
    to += snprintf(to, n, catalog->path[0] == '/' ? "file://" : "file:");
    for (const char *from = catalog->path; *from; from++) {
        if (strchr("%?#", *from)) {
            *to++ = '%';
            *to++ = hex[(unsigned char)*from >> 4];
            *to++ = hex[*from & 15];
        } else {
            *to++ = *from;
        }
    }
    memcpy(to, parameters, strlen(parameters) + 1);
    return uri;
}

struct setting {
    const char *name;
    const char *value;
    const char *reads_as;
};

static int set_one(struct vdb_connection *connection, const char *name, const char *value, const char *reads_as,
                   vecdb_error *err)
{
    char sql[64];
    snprintf(sql, sizeof sql, value ? "PRAGMA %s = %s" : "PRAGMA %s", name, value);
    if (value && sqlite3_exec(connection->sqlite, sql, NULL, NULL, NULL))
        return vdb_fail_sqlite(err, connection, sql);
    snprintf(sql, sizeof sql, "PRAGMA %s", name);
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(connection->sqlite, sql, -1, &statement, NULL))
        return vdb_fail_sqlite(err, connection, sql);
    int step = sqlite3_step(statement), rc = VECDB_OK;
    const char *found = step == SQLITE_ROW ? (const char *)sqlite3_column_text(statement, 0) : NULL;
    if (step != SQLITE_DONE && !found) /* also a row whose text there was no memory for */
        rc = vdb_fail_sqlite(err, connection, sql);
    else if (!found || strcmp(found, reads_as))
        rc = vdb_fail(err, value ? VECDB_UNSUPPORTED : VECDB_CORRUPT, "catalog.sqlite: %s is %s and has to be %s", name,
                      found ? found : "nothing", reads_as);
    sqlite3_finalize(statement);
    return rc;
}

/* What does not depend on the file. */
static int set_up(struct vdb_connection *connection, bool writes, vecdb_error *err)
{
    struct vdb_catalog *catalog = connection->catalog;
    const struct setting settings[] = {
        {"synchronous", catalog->durable ? "FULL" : "NORMAL", catalog->durable ? "2" : "1"},
        {"wal_autocheckpoint", "0", "0"},
        {"secure_delete", "OFF", "0"}, /* Debian's default is ON: deleting 12 MB cost 16.5 MB of WAL, not 0.05 */
        {"cell_size_check", "ON", "1"},
        {"trusted_schema", "OFF", "0"},
        {"query_only", writes ? "OFF" : "ON", writes ? "0" : "1"},
    };
    sqlite3 *sqlite = connection->sqlite;
    int on = 0, kept = 1;
    sqlite3_extended_result_codes(sqlite, 1);
    sqlite3_busy_timeout(sqlite, (int)(catalog->busy_ms > SHORTEST_WAIT_MS ? catalog->busy_ms : SHORTEST_WAIT_MS));
    if (sqlite3_exec(sqlite, "PRAGMA mmap_size = 0", NULL, NULL, NULL))
        return vdb_fail_sqlite(err, connection, "PRAGMA mmap_size");
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        int rc = set_one(connection, settings[i].name, settings[i].value, settings[i].reads_as, err);
        if (rc)
            return rc;
    }
    if (sqlite3_db_config(sqlite, SQLITE_DBCONFIG_DEFENSIVE, 1, &on) || on != 1 ||
        sqlite3_db_config(sqlite, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, &on) || on != 1)
        return vdb_fail(err, VECDB_UNSUPPORTED, "this SQLite (%s) lacks settings that a catalog needs",
                        sqlite3_libversion());
    sqlite3_file_control(sqlite, "main", SQLITE_FCNTL_PERSIST_WAL, &kept);
    kept = -1;
    if (!catalog->in_memory &&
        (sqlite3_file_control(sqlite, "main", SQLITE_FCNTL_PERSIST_WAL, &kept) != SQLITE_OK || kept != 1))
        return vdb_fail(err, VECDB_UNSUPPORTED, "SQLite's VFS cannot keep the write-ahead log");
    return VECDB_OK;
}

static int note_frames(void *context, sqlite3 *sqlite, const char *name, int n_frames)
{
    (void)sqlite;
    (void)name;
    ((struct vdb_catalog *)context)->n_frames = n_frames;
    return SQLITE_OK;
}

static const char *uri_parameters(const struct vdb_catalog *catalog)
{
    if (catalog->immutable)
        return "?immutable=1";
    return catalog->readonly && !catalog->in_memory ? "?readonly_shm=1" : "";
}

/* A connection with its settings; the file is not looked at. */
static int open_raw(struct vdb_catalog *catalog, bool writes, bool create, struct vdb_connection **out,
                    vecdb_error *err)
{
    struct vdb_connection *connection = vdb_alloc_zero(catalog->memory, sizeof *connection);
    char *uri = make_uri(catalog, uri_parameters(catalog));
    int rc = VECDB_OK;
    if (!connection || !uri) {
        vdb_free(catalog->memory, connection);
        vdb_free(catalog->memory, uri);
        return vdb_fail_memory(err, sizeof *connection);
    }
    connection->catalog = catalog;
    connection->immutable = catalog->immutable;
    connection->statements = vdb_statements_new(catalog->memory);
    int flags = SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE;
    flags |= catalog->readonly ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE;
    flags |= create ? SQLITE_OPEN_CREATE : 0;
    if (!connection->statements)
        rc = vdb_fail_memory(err, sizeof *connection);
    else if (sqlite3_open_v2(uri, &connection->sqlite, flags, vdb_checked_name(catalog->checked)))
        rc = connection->sqlite ? vdb_fail_sqlite(err, connection, "cannot open the catalog") : vdb_fail_memory(err, 1);
    vdb_free(catalog->memory, uri);
    pthread_mutex_lock(&catalog->mutex);
    connection->next_open = catalog->all;
    catalog->all = connection;
    pthread_mutex_unlock(&catalog->mutex);
    if (!rc)
        rc = set_up(connection, writes, err);
    if (rc) {
        vdb_connection_close(connection);
        return rc;
    }
    if (writes)
        sqlite3_wal_hook(connection->sqlite, note_frames, catalog);
    *out = connection;
    return VECDB_OK;
}

void vdb_connection_close(struct vdb_connection *connection)
{
    if (!connection)
        return;
    struct vdb_catalog *catalog = connection->catalog;
    pthread_mutex_lock(&catalog->mutex);
    struct vdb_connection **at = &catalog->all;
    while (*at && *at != connection)
        at = &(*at)->next_open;
    if (*at)
        *at = connection->next_open;
    pthread_mutex_unlock(&catalog->mutex);
    vdb_statements_free(connection->statements);
    sqlite3_close_v2(connection->sqlite);
    vdb_free(catalog->memory, connection);
}

/* ---- whose file is it */

static int get_int(struct vdb_connection *connection, const char *sql, int64_t *value, vecdb_error *err)
{
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(connection->sqlite, sql, -1, &statement, NULL))
        return vdb_fail_sqlite(err, connection, "cannot read the catalog");
    int rc = VECDB_OK;
    if (sqlite3_step(statement) == SQLITE_ROW)
        *value = sqlite3_column_int64(statement, 0);
    else
        rc = vdb_fail_sqlite(err, connection, "cannot read the catalog");
    sqlite3_finalize(statement);
    return rc;
}

static int identify(struct vdb_connection *connection, bool *present, vecdb_error *err)
{
    int64_t n_tables = 0, application = 0, version = 0;
    int rc = get_int(connection, "SELECT count(*) FROM sqlite_schema", &n_tables, err);
    if (!rc)
        rc = get_int(connection, "PRAGMA application_id", &application, err);
    if (!rc)
        rc = get_int(connection, "PRAGMA user_version", &version, err);
    if (rc)
        return rc;
    *present = n_tables > 0 || application != 0;
    if (!*present)
        return VECDB_OK;
    if (application != VDB_APPLICATION_ID)
        return vdb_fail(err, VECDB_CORRUPT, "catalog.sqlite is not a vecdb catalog (application id %lld)",
                        (long long)application);
    if (version > VDB_FORMAT_VERSION)
        return vdb_fail(err, VECDB_NEWER, "catalog.sqlite has format version %lld; this library knows up to %d",
                        (long long)version, VDB_FORMAT_VERSION);
    if (version < 1)
        return vdb_fail(err, VECDB_UNSUPPORTED, "catalog.sqlite has format version %lld, " VDB_OF_A_PREVIEW,
                        (long long)version);
    return VECDB_OK;
}

/* In one transaction, so that a maker at work is seen before or after its commit. */
int vdb_connection_identify(struct vdb_connection *connection, bool *present, vecdb_error *err)
{
    int rc = vdb_execute(connection, "BEGIN", 0, err);
    if (rc)
        return rc;
    rc = identify(connection, present, err);
    if (sqlite3_exec(connection->sqlite, "ROLLBACK", NULL, NULL, NULL) && !rc)
        rc = vdb_fail_sqlite(err, connection, "cannot end a transaction");
    return rc;
}

/* The file has the shape that the shim and the checkpoints rely upon. */
static int verify_shape(struct vdb_connection *connection, vecdb_error *err)
{
    static const struct setting shape[] = {
        {"page_size", NULL, "4096"}, {"auto_vacuum", NULL, "2"}, {"journal_mode", NULL, "wal"}};
    int n_reserved = -1;
    for (size_t i = connection->catalog->immutable ? 3 : 0; i < sizeof shape / sizeof *shape; i++) {
        int rc = set_one(connection, shape[i].name, NULL, shape[i].reads_as, err);
        if (rc)
            return rc;
    }
    sqlite3_file_control(connection->sqlite, "main", SQLITE_FCNTL_RESERVE_BYTES, &n_reserved);
    if (n_reserved != VDB_CATALOG_RESERVE_BYTES)
        return vdb_fail(err, VECDB_CORRUPT, "catalog.sqlite reserves %d bytes of a page and has to reserve %d",
                        n_reserved, VDB_CATALOG_RESERVE_BYTES);
    return VECDB_OK;
}

/* Reading says READONLY when the WAL's index is in the making and the connection may not make it: whoever may
 * write is about to finish. True: try again. */
static bool is_worth_waiting(const struct vdb_catalog *catalog, int status, uint64_t *deadline_ns)
{
    if (status != VECDB_READONLY || !catalog->readonly)
        return false;
    uint64_t now = vdb_now_ns();
    if (!*deadline_ns)
        *deadline_ns = now + (uint64_t)catalog->busy_ms * 1000000;
    if (now >= *deadline_ns)
        return false;
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    return true;
}

static int open_once(struct vdb_catalog *catalog, bool writes, struct vdb_connection **out, vecdb_error *err)
{
    struct vdb_connection *connection;
    int rc = open_raw(catalog, writes, false, &connection, err);
    if (rc)
        return rc;
    int64_t n_tables;
    rc = get_int(connection, "SELECT count(*) FROM sqlite_schema", &n_tables, err); /* reads page 1 */
    if (!rc)
        rc = verify_shape(connection, err);
    if (rc) {
        vdb_connection_close(connection);
        return rc;
    }
    *out = connection;
    return VECDB_OK;
}

int vdb_connection_open(struct vdb_catalog *catalog, bool writes, struct vdb_connection **out, vecdb_error *err)
{
    uint64_t deadline = 0;
    vecdb_error own = VECDB_ERROR_INIT;
    int rc;
    do
        rc = open_once(catalog, writes, out, &own);
    while (is_worth_waiting(catalog, rc, &deadline));
    if (rc && err)
        *err = own;
    return rc;
}

static int check_features(struct vdb_catalog *catalog, uint64_t to_read, uint64_t to_write, int64_t encryption,
                          vecdb_error *err)
{
    if (encryption)
        return vdb_fail(err, VECDB_NEWER, "the database is encrypted (scheme %lld); this library cannot read that",
                        (long long)encryption);
    if (to_read & ~VDB_READ_FEATURES)
        return vdb_fail(err, VECDB_NEWER, "the database uses features (%llx) that this library does not know; open it "
                        "with a newer one", (unsigned long long)(to_read & ~VDB_READ_FEATURES));
    if (to_write & ~VDB_WRITE_FEATURES && !catalog->readonly) {
        catalog->readonly = true;
        vdb_catalog_tell(catalog, VECDB_LOG_WARNING,
                         "the database uses features (%llx) that this library cannot keep up: opened read-only",
                         (unsigned long long)(to_write & ~VDB_WRITE_FEATURES));
    }
    return VECDB_OK;
}

/* The row that tells whose catalog this is, and what one must know to read and to write it. */
static int read_identity(struct vdb_connection *connection, unsigned char uuid[16], vecdb_error *err)
{
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(connection->sqlite,
                           "SELECT uuid, read_features, write_features, encryption FROM database WHERE id = 1", -1,
                           &statement, NULL))
        return vdb_fail_sqlite(err, connection, "cannot read the catalog");
    int rc = VECDB_OK, step = sqlite3_step(statement);
    if (step != SQLITE_ROW && step != SQLITE_DONE)
        rc = vdb_fail_sqlite(err, connection, "cannot read the catalog");
    else if (step == SQLITE_DONE || sqlite3_column_bytes(statement, 0) != 16 || !sqlite3_column_blob(statement, 0))
        rc = vdb_fail(err, VECDB_CORRUPT, "catalog.sqlite has no uuid in its table `database`");
    else
        rc = check_features(connection->catalog, (uint64_t)sqlite3_column_int64(statement, 1),
                            (uint64_t)sqlite3_column_int64(statement, 2), sqlite3_column_int64(statement, 3), err);
    if (!rc)
        memcpy(uuid, sqlite3_column_blob(statement, 0), 16);
    sqlite3_finalize(statement);
    return rc;
}

/* ---- making a catalog */

static int make_tables(struct vdb_connection *connection, const char *schema, vecdb_error *err)
{
    unsigned char uuid[16];
    sqlite3_stmt *statement;
    sqlite3_randomness(sizeof uuid, uuid);
    uuid[6] = (unsigned char)((uuid[6] & 0x0f) | 0x40); /* RFC 4122, version 4 */
    uuid[8] = (unsigned char)((uuid[8] & 0x3f) | 0x80);
    int rc = vdb_execute(connection,
                         "CREATE TABLE database(id INTEGER PRIMARY KEY CHECK (id = 1), uuid BLOB NOT NULL, "
                         "sequence INTEGER NOT NULL, read_features INTEGER NOT NULL DEFAULT 0, "
                         "write_features INTEGER NOT NULL DEFAULT 0, encryption INTEGER NOT NULL DEFAULT 0, "
                         "key_check BLOB)",
                         0, err);
    if (rc)
        return rc;
    if (sqlite3_prepare_v2(connection->sqlite, "INSERT INTO database(id, uuid, sequence) VALUES (1, ?1, 0)", -1,
                           &statement, NULL))
        return vdb_fail_sqlite(err, connection, "cannot make the catalog");
    sqlite3_bind_blob(statement, 1, uuid, sizeof uuid, SQLITE_STATIC);
    if (sqlite3_step(statement) != SQLITE_DONE)
        rc = vdb_fail_sqlite(err, connection, "cannot make the catalog");
    sqlite3_finalize(statement);
    if (!rc && schema && sqlite3_exec(connection->sqlite, schema, NULL, NULL, NULL))
        rc = vdb_fail_sqlite(err, connection, "cannot make the catalog's tables");
    if (!rc)
        rc = vdb_execute(connection, "PRAGMA application_id = %llu", VDB_APPLICATION_ID, err);
    return rc ? rc : vdb_execute(connection, "PRAGMA user_version = %llu", VDB_FORMAT_VERSION, err);
}

/* Everything here is synced as it is done, whatever durability the handle has: `state` is about to learn of this
 * catalog and must not know one that a power cut takes. EXTRA syncs the directory when the rollback journal of
 * the change to WAL is removed. If that journal came back beside a WAL, it would take page 1 back to the old mode;
 * SQLite would go on with the WAL it sees, but never again when that is empty. */
static int make_catalog(struct vdb_connection *connection, const char *schema, vecdb_error *err)
{
    int n_reserved = VDB_CATALOG_RESERVE_BYTES;
    bool durable = connection->catalog->durable;
    sqlite3_file_control(connection->sqlite, "main", SQLITE_FCNTL_RESERVE_BYTES, &n_reserved);
    int rc = vdb_execute(connection, "PRAGMA page_size = %llu", VDB_CATALOG_PAGE_BYTES, err);
    if (!rc)
        rc = vdb_execute(connection, "PRAGMA auto_vacuum = INCREMENTAL", 0, err);
    if (!rc)
        rc = set_one(connection, "synchronous", "EXTRA", "3", err);
    if (!rc)
        rc = set_one(connection, "journal_mode", "WAL", "wal", err);
    if (!rc)
        rc = vdb_execute(connection, "BEGIN EXCLUSIVE", 0, err);
    if (!rc)
        rc = make_tables(connection, schema, err);
    if (!rc)
        rc = vdb_execute(connection, "COMMIT", 0, err);
    if (rc && !sqlite3_get_autocommit(connection->sqlite))
        sqlite3_exec(connection->sqlite, "ROLLBACK", NULL, NULL, NULL);
    return rc ? rc : set_one(connection, "synchronous", durable ? "FULL" : "NORMAL", durable ? "2" : "1", err);
}

static bool has_content(const char *path)
{
    struct stat status;
    return !stat(path, &status) && status.st_size > 0;
}

static bool is_known(const unsigned char uuid[16])
{
    return memcmp(uuid, (unsigned char[16]){0}, 16) != 0;
}

static int fail_lost(vecdb_error *err)
{
    return vdb_fail(err, VECDB_CORRUPT,
                    "catalog.sqlite is missing or empty, yet `state` belongs to a database that was made; restore "
                    "the catalog from a backup, or remove `state` to begin anew");
}

/* In the gate: look again, make the catalog if nobody has, keep the connection for writing. */
static int make_in_gate(struct vdb_catalog *catalog, const char *schema, vecdb_error *err)
{
    struct vdb_connection *connection;
    int rc = vdb_state_lock_gate(catalog->state,
                                 catalog->busy_ms > SHORTEST_WAIT_MS ? catalog->busy_ms : SHORTEST_WAIT_MS, err);
    if (rc)
        return rc;
    unsigned char known[16];
    bool present = false, made = false;
    vdb_state_uuid(catalog->state, known);
    if (!catalog->in_memory && is_known(known) && !has_content(catalog->path))
        rc = fail_lost(err); /* and leave no empty file */
    else
        rc = open_raw(catalog, true, true, &connection, err);
    if (!rc) {
        rc = vdb_connection_identify(connection, &present, err);
        if (!rc && !present && is_known(known))
            rc = fail_lost(err);
        if (!rc && !present)
            rc = make_catalog(connection, schema, err);
        made = !rc && !present;
        if (!rc)
            rc = verify_shape(connection, err);
        if (!rc && made)
            rc = read_identity(connection, known, err);
        if (!rc && made)
            rc = vdb_state_adopt(catalog->state, known, err);
        if (rc)
            vdb_connection_close(connection);
        else
            catalog->writer = connection;
    }
    vdb_state_unlock_gate(catalog->state);
    return rc;
}

/* ---- opening */

static char *join(struct vdb_memory *memory, const char *directory, const char *name)
{
    size_t n = strlen(directory) + strlen(name) + 2;
    char *path = vdb_alloc(memory, n);
    if (path)
        snprintf(path, n, "%s/%s", directory, name);
    return path;
}

/* No catalog, or an empty one, which must not be made: was there a database? */
static int fail_empty(struct vdb_catalog *catalog, const char *directory, const char *path, vecdb_error *err)
{
    struct vdb_state_options options = {.memory = catalog->memory, .path = path, .readonly = true};
    struct vdb_state *state;
    unsigned char known[16];
    if (!vdb_state_open(&options, &state, NULL)) {
        vdb_state_uuid(state, known);
        vdb_state_close(state);
        if (is_known(known))
            return fail_lost(err);
    }
    return vdb_fail(err, VECDB_NOT_FOUND, "there is no database in %s: catalog.sqlite is missing or empty", directory);
}

static int open_state(struct vdb_catalog *catalog, const struct vdb_catalog_options *options, vecdb_error *err)
{
    char *path = options->directory ? join(catalog->memory, options->directory, "state") : NULL;
    if (options->directory && !path)
        return vdb_fail_memory(err, strlen(options->directory));
    if (options->directory && !has_content(catalog->path) &&
        (!options->create || options->readonly)) {
        int rc = fail_empty(catalog, options->directory, path, err);
        vdb_free(catalog->memory, path);
        return rc;
    }
    struct vdb_state_options state_options = {
        .memory = catalog->memory, .path = path, .readonly = options->readonly, .hook = options->hook};
    int rc = vdb_state_open(&state_options, &catalog->state, err);
    vdb_free(catalog->memory, path);
    if (!rc && !vdb_state_writable(catalog->state) && !catalog->readonly) {
        if (!has_content(catalog->path))
            return vdb_fail(err, VECDB_DENIED, "a database cannot be made in %s: it cannot be written",
                            options->directory);
        catalog->readonly = true;
        vdb_catalog_tell(catalog, VECDB_LOG_INFO, "%s cannot be written: opened read-only", options->directory);
    }
    return rc;
}

static int open_shim(struct vdb_catalog *catalog, vecdb_error *err)
{
    if (catalog->in_memory) {
        int rc = vdb_memory_sqlite_vfs(catalog->memory, &catalog->memory_vfs, err);
        if (rc)
            return rc;
    }
    struct vdb_checked_options options = {.memory = catalog->memory,
                                          .state = catalog->state,
                                          .path = catalog->path,
                                          .readonly = catalog->readonly,
                                          .base = catalog->memory_vfs,
                                          .hook = catalog->hook};
    int rc = vdb_checked_new(&options, &catalog->checked, err);
    if (!rc && !catalog->in_memory)
        rc = vdb_checked_test_mark(catalog->checked, err);
    if (!rc && catalog->readonly && !catalog->in_memory)
        rc = vdb_checked_test_header(catalog->checked, err);
    return rc;
}

/* Read-only, and SQLite's shared memory cannot be had: see invariant 3. */
static bool may_be_immutable(const struct vdb_catalog *catalog)
{
    return catalog->readonly && !catalog->in_memory && !has_content(catalog->index_path) &&
           !has_content(catalog->wal_path);
}

/* Somebody writes now: no more connections without locks. Those in use end with their transaction. */
static void end_immutable(struct vdb_catalog *catalog)
{
    pthread_mutex_lock(&catalog->mutex);
    struct vdb_connection *idle = catalog->immutable ? catalog->idle : NULL;
    if (catalog->immutable) {
        catalog->immutable = false;
        catalog->idle = NULL;
        catalog->n_idle = 0;
    }
    pthread_mutex_unlock(&catalog->mutex);
    while (idle) {
        struct vdb_connection *next = idle->next;
        vdb_connection_close(idle);
        idle = next;
    }
}

bool vdb_catalog_hold_still(struct vdb_catalog *catalog)
{
    if (!catalog->immutable)
        return false;
    bool held = vdb_state_hold_still(catalog->state);
    if (held && may_be_immutable(catalog) && catalog->immutable)
        return true;
    end_immutable(catalog);
    if (held)
        vdb_state_release_still(catalog->state);
    return false;
}

static int open_first(struct vdb_catalog *catalog, const struct vdb_catalog_options *options, vecdb_error *err)
{
    bool present = false;
    struct vdb_connection *connection = NULL;
    catalog->immutable = may_be_immutable(catalog);
    bool still = vdb_catalog_hold_still(catalog);
    int rc = VECDB_OK;
    if (!catalog->in_memory && has_content(catalog->path)) {
        uint64_t deadline = 0;
        vecdb_error own = VECDB_ERROR_INIT;
        do {
            vdb_connection_close(connection);
            connection = NULL;
            rc = open_raw(catalog, false, false, &connection, &own);
            if (!rc)
                rc = vdb_connection_identify(connection, &present, &own);
            if (!rc && present)
                rc = verify_shape(connection, &own);
        } while (is_worth_waiting(catalog, rc, &deadline));
        if (rc && err)
            *err = own;
        if (!rc && present && !catalog->readonly && sqlite3_db_readonly(connection->sqlite, "main") == 1)
            catalog->readonly = true;
    }
    if (still)
        vdb_state_release_still(catalog->state);
    if (!rc && !present && (!options->create || catalog->readonly))
        rc = vdb_fail(err, VECDB_NOT_FOUND, "there is no database in %s: catalog.sqlite is empty", options->directory);
    if (!rc && !present) {
        vdb_connection_close(connection);
        connection = NULL;
        rc = make_in_gate(catalog, options->schema, err);
    }
    if (rc) {
        vdb_connection_close(connection);
        return rc;
    }
    if (connection) {
        catalog->idle = connection;
        catalog->n_idle = 1;
    }
    return VECDB_OK;
}

/* The first read transaction: uuid, and no lost commits. Afterwards `state` knows what the catalog says. */
static int compare_with_state(struct vdb_catalog *catalog, vecdb_error *err)
{
    struct vdb_connection *connection;
    uint64_t sequence, visible, word = vdb_state_word(catalog->state);
    int rc = vdb_state_sequence(catalog->state, &visible, err);
    if (!rc)
        rc = vdb_read_begin(catalog, &connection, &sequence, err);
    if (rc)
        return rc;
    rc = read_identity(connection, catalog->uuid, err);
    vdb_read_end(connection);
    if (!rc)
        rc = vdb_state_adopt(catalog->state, catalog->uuid, err);
    if (rc)
        return rc;
    if (sequence < visible) {
        vdb_catalog_tell(catalog, VECDB_LOG_WARNING,
                         "a crash took back commits %llu to %llu, which were not written with full durability",
                         (unsigned long long)sequence + 1, (unsigned long long)visible);
        vdb_state_lower(catalog->state, word, sequence);
    }
    vdb_state_raise(catalog->state, sequence);
    return VECDB_OK;
}

int vdb_catalog_open(const struct vdb_catalog_options *options, struct vdb_catalog **out, vecdb_error *err)
{
    struct vdb_catalog *catalog = vdb_alloc_zero(options->memory, sizeof *catalog);
    if (!catalog)
        return vdb_fail_memory(err, sizeof *catalog);
    catalog->memory = options->memory;
    catalog->hook = options->hook;
    catalog->log = options->log;
    catalog->log_context = options->log_context;
    catalog->defer_checkpoint = options->defer_checkpoint;
    catalog->defer_context = options->defer_context;
    catalog->in_memory = !options->directory;
    catalog->readonly = options->readonly;
    catalog->durable = options->durable;
    catalog->busy_ms = options->busy_timeout_ms > 0 ? (uint32_t)options->busy_timeout_ms : 0;
    pthread_mutex_init(&catalog->mutex, NULL);
    catalog->path = join(catalog->memory, options->directory ? options->directory : "", "catalog.sqlite");
    catalog->wal_path = join(catalog->memory, options->directory ? options->directory : "", "catalog.sqlite-wal");
    catalog->index_path = join(catalog->memory, options->directory ? options->directory : "", "catalog.sqlite-shm");
    bool has_paths = catalog->path && catalog->wal_path && catalog->index_path;
    int rc = has_paths ? VECDB_OK : vdb_fail_memory(err, sizeof *catalog);
    if (!rc)
        rc = open_state(catalog, options, err);
    if (!rc)
        rc = open_shim(catalog, err);
    if (!rc)
        rc = open_first(catalog, options, err);
    if (!rc)
        rc = compare_with_state(catalog, err);
    /* Nothing of such a WAL can be read, and nothing that was durable is missing: away with it, for those who
     * open read-only and cannot know that. */
    if (!rc && !catalog->readonly && !catalog->in_memory && vdb_checked_header_is_cut(catalog->checked))
        vdb_catalog_remove_wal(catalog);
    if (rc) {
        vdb_catalog_close(catalog);
        return rc;
    }
    *out = catalog;
    return VECDB_OK;
}

void vdb_catalog_close(struct vdb_catalog *catalog)
{
    if (!catalog)
        return;
    /* An empty WAL makes the next open quicker and everything checkable; not worth waiting for. While
     * others go on it is theirs: they would wait for our sync, and have the file grow again. */
    if (catalog->written && !catalog->in_memory && !catalog->writer_poisoned && vdb_state_is_alone(catalog->state) &&
        vdb_state_lock_gate(catalog->state, 0, NULL) == VECDB_OK) {
        vdb_catalog_truncate_wal(catalog, 0);
        vdb_state_unlock_gate(catalog->state);
    }
    while (catalog->idle) {
        struct vdb_connection *connection = catalog->idle;
        catalog->idle = connection->next;
        vdb_connection_close(connection);
    }
    vdb_connection_close(catalog->writer);
    vdb_checked_free(catalog->checked);
    if (catalog->memory_vfs)
        vdb_memory_sqlite_vfs_free(catalog->memory_vfs);
    vdb_state_close(catalog->state);
    pthread_mutex_destroy(&catalog->mutex);
    vdb_free(catalog->memory, catalog->index_path);
    vdb_free(catalog->memory, catalog->wal_path);
    vdb_free(catalog->memory, catalog->path);
    vdb_free(catalog->memory, catalog);
}
