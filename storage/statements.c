/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/statements.c - prepared statements of a connection, and errors of SQLite in our words
 *
 * Preparing a statement costs 10-30 us, running a cached one less than one; a collection has about
 * twenty of them. The cache is a hash table with open addressing, twice as large as it may be full:
 *
 *     slots   (kind, number) -> statement, turn of last use         512 slots, at most 256 taken
 *
 * Invariants
 *   1. A key's probe sequence has no empty slot before its entry: removal moves later ones back.
 *   2. A statement in use (stepped, not yet reset) is never dropped to make room. One that is handed
 *      out has the newest turn, so it is the last to be dropped anyhow.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/error.h"
#include "connection_parts.h"

#define N_SLOTS 512
#define MOST_KEPT 256

struct entry {
    sqlite3_stmt *statement; /* NULL: empty */
    uint64_t number;
    uint64_t turn;
    int kind;
};

struct vdb_statements {
    struct vdb_memory *memory;
    uint64_t turn;
    int n_kept;
    struct entry entries[N_SLOTS];
};

struct vdb_statements *vdb_statements_new(struct vdb_memory *memory)
{
    struct vdb_statements *statements = vdb_alloc_zero(memory, sizeof *statements);
    if (statements)
        statements->memory = memory;
    return statements;
}

void vdb_statements_free(struct vdb_statements *statements)
{
    if (!statements)
        return;
    for (int i = 0; i < N_SLOTS; i++)
        sqlite3_finalize(statements->entries[i].statement);
    vdb_free(statements->memory, statements);
}

void vdb_statements_reset(struct vdb_statements *statements)
{
    for (int i = 0; i < N_SLOTS; i++)
        if (statements->entries[i].statement && sqlite3_stmt_busy(statements->entries[i].statement))
            sqlite3_reset(statements->entries[i].statement);
}

static unsigned home_of(int kind, uint64_t number)
{
    uint64_t x = (number * 64 + (uint64_t)(int64_t)kind) * 0x9e3779b97f4a7c15u; /* Fibonacci hashing (Knuth 6.4) */
    return (unsigned)(x >> 55);                                                 /* 9 bits: N_SLOTS */
}

/* Where the key is, or the empty slot where it would be. */
static unsigned find(const struct vdb_statements *statements, int kind, uint64_t number)
{
    unsigned i = home_of(kind, number);
    const struct entry *entries = statements->entries;
    while (entries[i].statement && (entries[i].kind != kind || entries[i].number != number))
        i = (i + 1) % N_SLOTS;
    return i;
}

static void drop(struct vdb_statements *statements, unsigned i)
{
    struct entry *entries = statements->entries;
    sqlite3_finalize(entries[i].statement);
    entries[i].statement = NULL;
    statements->n_kept--;
    for (unsigned j = (i + 1) % N_SLOTS; entries[j].statement; j = (j + 1) % N_SLOTS) {
        unsigned home = home_of(entries[j].kind, entries[j].number);
        if ((j - home) % N_SLOTS < (j - i) % N_SLOTS)
            continue; /* its home lies behind the gap */
        entries[i] = entries[j];
        entries[j].statement = NULL;
        i = j;
    }
}

static void make_room(struct vdb_statements *statements)
{
    unsigned oldest = N_SLOTS;
    for (unsigned i = 0; i < N_SLOTS; i++) {
        const struct entry *entry = &statements->entries[i];
        if (entry->statement && !sqlite3_stmt_busy(entry->statement) &&
            (oldest == N_SLOTS || entry->turn < statements->entries[oldest].turn))
            oldest = i;
    }
    if (oldest < N_SLOTS)
        drop(statements, oldest);
}

/* `format` with each %llu replaced, in new memory; NULL: no memory. */
static char *expand(struct vdb_memory *memory, const char *format, unsigned long long number, size_t *n_bytes)
{
    char digits[24];
    size_t n_digits = (size_t)snprintf(digits, sizeof digits, "%llu", number);
    size_t n = strlen(format) + 1;
    for (const char *at = format; (at = strstr(at, "%llu")); at += 4)
        n += n_digits;
    char *text = vdb_alloc(memory, n), *to = text;
    if (!text)
        return NULL;
    for (const char *from = format; *from;) {
        if (!strncmp(from, "%llu", 4)) {
            memcpy(to, digits, n_digits);
            to += n_digits;
            from += 4;
        } else {
            *to++ = *from++;
        }
    }
    *to = '\0';
    *n_bytes = (size_t)(to - text) + 1;
    return text;
}

int vdb_prepare(struct vdb_connection *connection, int kind, const char *format, unsigned long long number,
                sqlite3_stmt **statement, vecdb_error *err)
{
    struct vdb_statements *statements = connection->statements;
    struct entry *entry = &statements->entries[find(statements, kind, number)];
    if (!entry->statement) {
        size_t n_bytes = 0;
        sqlite3_stmt *made = NULL;
        char *text = expand(connection->catalog->memory, format, number, &n_bytes);
        if (!text)
            return vdb_fail_memory(err, strlen(format));
        int rc = sqlite3_prepare_v3(connection->sqlite, text, (int)n_bytes, SQLITE_PREPARE_PERSISTENT, &made, NULL);
        vdb_free(connection->catalog->memory, text);
        if (rc)
            return vdb_fail_sqlite(err, connection, "cannot prepare a statement");
        if (!made)
            return vdb_fail(err, VECDB_INTERNAL, "an empty statement was to be prepared");
        if (statements->n_kept >= MOST_KEPT)
            make_room(statements);
        entry = &statements->entries[find(statements, kind, number)];
        *entry = (struct entry){.statement = made, .number = number, .kind = kind};
        statements->n_kept++;
    } else {
        sqlite3_reset(entry->statement);
        sqlite3_clear_bindings(entry->statement);
    }
    entry->turn = ++statements->turn;
    *statement = entry->statement;
    return VECDB_OK;
}

int vdb_execute(struct vdb_connection *connection, const char *format, unsigned long long number, vecdb_error *err)
{
    size_t n_bytes = 0;
    char *text = expand(connection->catalog->memory, format, number, &n_bytes);
    if (!text)
        return vdb_fail_memory(err, strlen(format));
    int rc = sqlite3_exec(connection->sqlite, text, NULL, NULL, NULL);
    vdb_free(connection->catalog->memory, text);
    return rc ? vdb_fail_sqlite(err, connection, "cannot run a statement") : VECDB_OK;
}

void vdb_forget_statements(struct vdb_connection *connection, unsigned long long number)
{
    struct vdb_statements *statements = connection->statements;
    for (unsigned i = 0; i < N_SLOTS;) {
        const struct entry *entry = &statements->entries[i];
        if (entry->statement && entry->number == number && entry->kind >= 0)
            drop(statements, i); /* may have moved another entry here */
        else
            i++;
    }
}

/* ---- errors */

static int status_of(int code)
{
    switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL: /* the locks were contended for seconds */
        return VECDB_BUSY;
    case SQLITE_NOMEM:
        return VECDB_NOMEM;
    case SQLITE_READONLY:
        return VECDB_READONLY;
    case SQLITE_INTERRUPT:
        return VECDB_INTERRUPTED;
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
        return VECDB_IO;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_FORMAT:
        return VECDB_CORRUPT;
    case SQLITE_FULL:
    case SQLITE_TOOBIG:
        return VECDB_FULL;
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return VECDB_DENIED;
    default:
        return VECDB_INTERNAL;
    }
}

/* Read-only, what SQLite cannot make for itself is not there. Its os error alone may be an older one. */
static bool is_log_missing(const struct vdb_catalog *catalog)
{
    struct stat status;
    return catalog->readonly && !catalog->in_memory && (stat(catalog->wal_path, &status) ||
                                                        stat(catalog->index_path, &status)) && errno == ENOENT;
}

int vdb_fail_sqlite(vecdb_error *err, struct vdb_connection *connection, const char *what)
{
    int code = sqlite3_extended_errcode(connection->sqlite);
    char sentence[256];
    if (vdb_checked_is_encrypted(connection->catalog->checked))
        return vdb_fail(err, VECDB_NEWER, "the database is encrypted; this version of the library cannot read that");
    if ((code == SQLITE_IOERR_DATA || code == SQLITE_IOERR_CORRUPTFS) &&
        vdb_checked_damage(connection->catalog->checked, sentence, sizeof sentence))
        return vdb_fail(err, VECDB_CORRUPT, "%s: %s; restore the database from a backup", what, sentence);
    if (code == SQLITE_IOERR_NOMEM || code == SQLITE_NOMEM)
        return vdb_fail(err, VECDB_NOMEM, "%s: catalog.sqlite: out of memory", what);
    if ((code & 0xff) == SQLITE_BUSY)
        return vdb_fail(err, VECDB_BUSY, "%s: catalog.sqlite is locked by another program; try again", what);
    int os_error = sqlite3_system_errno(connection->sqlite);
    int status = code == SQLITE_OK ? VECDB_INTERNAL : status_of(code);
    if (status == VECDB_IO && (os_error == ENOSPC || os_error == EDQUOT))
        status = VECDB_FULL; /* SQLite says so of writes only, not when it makes room for the WAL's index */
    if ((code & 0xff) == SQLITE_CANTOPEN && (os_error == EACCES || os_error == EPERM))
        status = VECDB_DENIED;
    if (status == VECDB_IO && os_error == ENOMEM)
        status = VECDB_NOMEM;
    if ((code & 0xff) == SQLITE_CANTOPEN && os_error == ENOENT && is_log_missing(connection->catalog))
        vdb_fail(err, status, "%s: catalog.sqlite-wal or catalog.sqlite-shm is missing, and cannot be made without "
                 "writing; open the database once for writing", what);
    else
        vdb_fail(err, status, "%s: catalog.sqlite: %s (SQLite %d)", what, sqlite3_errmsg(connection->sqlite), code);
    if (err && (status == VECDB_IO || status == VECDB_FULL || status == VECDB_DENIED))
        err->os_error = os_error;
    return status;
}
