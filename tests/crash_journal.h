/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/crash_journal.h - what a program did to the files below one directory, in order
 *
 *     journal    events    | make db | make db/state | write state 0..4095 | sync state | sync db | ...
 *                bytes     what was written, one piece after another
 *                nodes     files and directories; node 0 is the directory itself
 *
 * A node is a file or a directory whatever names it has; a name is an entry of a directory. The two are
 * kept apart because a disk keeps them apart: syncing a file says nothing about its name.
 *
 * The recorder (crash_recorder.h) fills a journal, the simulated disk (crash_disk.h) replays one.
 */
#ifndef VDB_TESTS_CRASH_JOURNAL_H
#define VDB_TESTS_CRASH_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum crash_kind {
    CRASH_MAKE,        /* name in `directory` for `node`, which is new, or has one more name */
    CRASH_REMOVE,      /* name in `directory` */
    CRASH_RENAME,      /* name in `directory` to to_name in to_directory */
    CRASH_WRITE,       /* `length` bytes at `offset` of node */
    CRASH_TRUNCATE,    /* node has `offset` bytes now */
    CRASH_SYNC,        /* node, a file or a directory */
    CRASH_SYNC_FAILED, /* the same, told to have failed */
    CRASH_NOTHING      /* a test has taken it out */
};

struct crash_event {
    int kind;
    uint32_t node;
    uint32_t directory, name;
    uint32_t to_directory, to_name;
    uint64_t offset;
    size_t length;
    size_t at; /* in the journal's bytes */
};

struct crash_node {
    bool is_directory;
    char first_name[64]; /* the one it was made under */
};

struct crash_journal {
    struct crash_event *events;
    size_t n_events, event_capacity;
    unsigned char *bytes;
    size_t n_bytes, byte_capacity;
    struct crash_node *nodes;
    size_t n_nodes, node_capacity;
    char **names;
    size_t n_names;
    size_t n_initial; /* events that only tell what was there in the beginning */
};

#define CRASH_ROOT 0u
#define CRASH_NO_NODE UINT32_MAX

void crash_journal_init(struct crash_journal *journal); /* with the root */
void crash_journal_release(struct crash_journal *journal);
struct crash_event *crash_journal_add(struct crash_journal *journal, int kind);
void crash_journal_add_bytes(struct crash_journal *journal, struct crash_event *event, const void *bytes, size_t n);
uint32_t crash_journal_new_node(struct crash_journal *journal, bool is_directory, const char *name);
/* The number of a name: of one component, without slashes. */
uint32_t crash_journal_name(struct crash_journal *journal, const char *name, size_t length);

/* ------------------------------------------------------------------ which names there are */

struct crash_entry {
    uint32_t directory, name, node;
};

struct crash_tree {
    struct crash_entry *entries;
    size_t n, capacity;
};

uint32_t crash_tree_find(const struct crash_tree *tree, uint32_t directory, uint32_t name); /* or CRASH_NO_NODE */
/* Do what an event of the first three kinds says. What refers to a name that is not there does nothing. */
void crash_tree_apply(struct crash_tree *tree, const struct crash_event *event);
void crash_tree_copy(struct crash_tree *to, const struct crash_tree *from);
void crash_tree_release(struct crash_tree *tree);

/* Memory, zeroed, for files that may not name malloc; never NULL. */
void *crash_new(size_t n, size_t size);
void crash_free(void *memory);
/* Room for one more element, doubling. */
void *crash_grow(void *array, size_t n, size_t *capacity, size_t size);

#endif
