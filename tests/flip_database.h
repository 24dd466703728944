/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/flip_database.h - a small database with everything that a database can have, and all that can be asked of it
 *
 * Five collections: vectors in raw, narrow and planes pages, bits, two fields; keys that are integers and texts;
 * metadata and texts; dead slots; extents that have grown, what a failed commit left between two extents; a tail;
 * pages of the catalog that are free again; a snapshot; commits that are only in the WAL. Its writer is killed.
 * Then what crashes leave is added by hand: frames behind the end of the WAL, bytes behind the last extent of two
 * vector files, a vector file that no commit names.
 */
#ifndef VDB_TESTS_FLIP_DATABASE_H
#define VDB_TESTS_FLIP_DATABASE_H

#include "fault_tools.h"

#define FLIP_COLLECTIONS 6
#define FLIP_SNAPSHOT "before the end"
#define FLIP_INDEX "index-7-1" /* of the last collection */

/* All that there is to be asked: question 0 is the list, then four for each collection. The last one is a search with
 * the graph, before and after the index was waited for. */
#define N_QUESTIONS (1 + 4 * FLIP_COLLECTIONS)

struct answer {
    int status;
    vecdb_error error;
    size_t n_bytes;
    unsigned char bytes[60000];
};

/* The files of the database when its writer was killed, and at an earlier moment. Names are relative: those of
 * the snapshot begin with "snapshot-1/". */
void flip_make(struct kept_files *whole, struct kept_files *older);

/* The bytes that failed commits have left behind the extents of a vector file. */
bool flip_is_debris(const char *name, size_t at);

/* False: there is no such question. */
bool flip_ask(vecdb *db, int question, struct answer *answer);

/* Of whole answers: the search with the graph has found what the exact one has, and was of this plan. */
void flip_check_graph(const struct answer *answers, const char *plan);

/* Directories and all that is in them. */
void keep_tree(const char *directory, struct kept_files *kept);
void restore_tree(const char *directory, const struct kept_files *kept);
void free_kept(struct kept_files *kept);

#endif
