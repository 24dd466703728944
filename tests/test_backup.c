/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/test_backup.c - backups and restores
 *
 * The properties:
 *   1. A backup is a database that holds exactly one committed state of the original: that of the moment it
 *      was begun, whatever is written and compacted meanwhile. It passes a full check, opens read-only at
 *      once, and lives on when the original is destroyed.
 *   2. With links both databases go their own ways afterwards.
 *   3. A backup that fails says why, leaves nothing behind, and does not touch the original; until it is
 *      complete it cannot be opened.
 *   4. A restore puts a backup in the place of a database and keeps that one; cut off at any point, both
 *      are there, and a second restore ends it.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "backup_tools.h"

/* ------------------------------------------------------------------ round trips */

static void back_up(vecdb *db, const char *path, int link)
{
    vecdb_error err = VECDB_ERROR_INIT;
    vecdb_backup_options options = {.size = sizeof options, .link = link};
    CHECK_OK(err, vecdb_backup(db, path, &options, &err));
}

TEST(a_backup_holds_what_the_original_holds)
{
    for (int link = 0; link < 2; link++) {
        const char *path = test_path(link ? "a1" : "a0"), *copy = test_path(link ? "b1" : "b0");
        vecdb *db = make_rich_database(path);
        struct dump before = dump_database(db);
        uint64_t sequence = sequence_of(db);
        back_up(db, copy, link);
        CHECK_DUMP(dump_database(db), before);
        vecdb_close(db);
        for (int mode = VECDB_OPEN_READONLY; mode >= VECDB_OPEN_EXISTING; mode -= 2) {
            vecdb *opened = open_database(copy, mode, 0);
            CHECK_DUMP(dump_database(opened), before);
            CHECK_SIZE(sequence_of(opened), sequence);
            check_database(opened, "the backup");
            vecdb_close(opened);
        }
    }
}
