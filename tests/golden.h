/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/golden.h - databases with every feature, and what they answer, as text
 *
 * `make golden` writes them once for each version of the format (tests/golden/v<version>/), and every later build
 * must read them and answer the same, to the bit. They are made by the public interface only, without threads and
 * clocks, so that every processor and every library of the same format makes the same answers.
 *
 *     <name>.tar.gz    the directory of a database
 *     <name>.jsonl     its answers, a JSON object a line
 *
 *       {"collection": NAME, "records": N, "fields": [{"name", "dimension", "type", "metric", ...}]}
 *       {"record": {"collection", "key", "metadata", "text", "vectors": {FIELD: [NUMBER, ...]}}}   by key
 *       {"search": FIELD, "collection", "query": I, "hits": [[KEY, DISTANCE], ...]}                exact, k = 10
 *       {"snapshot": NAME}                                                what follows is the snapshot's
 */
#ifndef VDB_TESTS_GOLDEN_H
#define VDB_TESTS_GOLDEN_H

#include <stddef.h>

#include "vecdb.h"

struct golden_text {
    char *bytes; /* ends in NUL; libc's */
    size_t n, capacity;
};

struct golden_database {
    const char *name;
    void (*make)(const char *directory);
};

/* Ends with one whose name is NULL. */
extern const struct golden_database golden_databases[];

/* All answers of the database in `directory` and of its snapshots, opened with `mode` (a vecdb_open_mode). A status. */
int golden_answers(const char *directory, int mode, struct golden_text *text, vecdb_error *err);

#endif
