/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/crash_journal.c - what a program did to files (see crash_journal.h)
 *
 * Directories here have a few dozen names, so everything is found by looking through arrays.
 */
#include "crash_journal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *crash_new(size_t n, size_t size)
{
    void *memory = calloc(n ? n : 1, size);
    if (!memory)
        abort();
    return memory;
}

void crash_free(void *memory)
{
    free(memory);
}

void *crash_grow(void *array, size_t n, size_t *capacity, size_t size)
{
    if (n < *capacity)
        return array;
    *capacity = *capacity ? 2 * *capacity : 64;
    array = realloc(array, *capacity * size);
    if (!array)
        abort();
    return array;
}

/* ------------------------------------------------------------------ the journal */

void crash_journal_init(struct crash_journal *journal)
{
    *journal = (struct crash_journal){.n_events = 0};
    crash_journal_new_node(journal, true, "");
}

void crash_journal_release(struct crash_journal *journal)
{
    for (size_t i = 0; i < journal->n_names; i++)
        free(journal->names[i]);
    free(journal->names);
    free(journal->events);
    free(journal->bytes);
    free(journal->nodes);
    *journal = (struct crash_journal){.n_events = 0};
}

struct crash_event *crash_journal_add(struct crash_journal *journal, int kind)
{
    journal->events = crash_grow(journal->events, journal->n_events, &journal->event_capacity, sizeof *journal->events);
    struct crash_event *event = &journal->events[journal->n_events++];
    *event = (struct crash_event){.kind = kind};
    return event;
}

void crash_journal_add_bytes(struct crash_journal *journal, struct crash_event *event, const void *bytes, size_t n)
{
    if (journal->byte_capacity < journal->n_bytes + n) {
        journal->byte_capacity = 2 * (journal->n_bytes + n) + 65536;
        journal->bytes = realloc(journal->bytes, journal->byte_capacity);
        if (!journal->bytes)
            abort();
    }
    memcpy(journal->bytes + journal->n_bytes, bytes, n);
    event->at = journal->n_bytes;
    event->length = n;
    journal->n_bytes += n;
}

uint32_t crash_journal_new_node(struct crash_journal *journal, bool is_directory, const char *name)
{
    journal->nodes = crash_grow(journal->nodes, journal->n_nodes, &journal->node_capacity, sizeof *journal->nodes);
    struct crash_node *node = &journal->nodes[journal->n_nodes];
    node->is_directory = is_directory;
    snprintf(node->first_name, sizeof node->first_name, "%s", name);
    return (uint32_t)journal->n_nodes++;
}

uint32_t crash_journal_name(struct crash_journal *journal, const char *name, size_t length)
{
    for (size_t i = 0; i < journal->n_names; i++)
        if (strlen(journal->names[i]) == length && !memcmp(journal->names[i], name, length))
            return (uint32_t)i;
    journal->names = realloc(journal->names, (journal->n_names + 1) * sizeof *journal->names);
    char *copy = journal->names ? malloc(length + 1) : NULL;
    if (!copy)
        abort();
    memcpy(copy, name, length);
    copy[length] = '\0';
    journal->names[journal->n_names] = copy;
    return (uint32_t)journal->n_names++;
}

/* ------------------------------------------------------------------ names */

static struct crash_entry *find_entry(const struct crash_tree *tree, uint32_t directory, uint32_t name)
{
    for (size_t i = 0; i < tree->n; i++)
        if (tree->entries[i].directory == directory && tree->entries[i].name == name)
            return &tree->entries[i];
    return NULL;
}

uint32_t crash_tree_find(const struct crash_tree *tree, uint32_t directory, uint32_t name)
{
    const struct crash_entry *entry = find_entry(tree, directory, name);
    return entry ? entry->node : CRASH_NO_NODE;
}

static void set_entry(struct crash_tree *tree, uint32_t directory, uint32_t name, uint32_t node)
{
    struct crash_entry *entry = find_entry(tree, directory, name);
    if (!entry) {
        tree->entries = crash_grow(tree->entries, tree->n, &tree->capacity, sizeof *tree->entries);
        entry = &tree->entries[tree->n++];
    }
    *entry = (struct crash_entry){directory, name, node};
}

void crash_tree_apply(struct crash_tree *tree, const struct crash_event *event)
{
    if (event->kind == CRASH_MAKE) {
        set_entry(tree, event->directory, event->name, event->node);
        return;
    }
    struct crash_entry *entry = find_entry(tree, event->directory, event->name);
    if (!entry || (event->kind == CRASH_RENAME && find_entry(tree, event->to_directory, event->to_name)))
        return; /* what is renamed here never replaces anything */
    uint32_t node = entry->node;
    *entry = tree->entries[--tree->n];
    if (event->kind == CRASH_RENAME)
        set_entry(tree, event->to_directory, event->to_name, node);
}

void crash_tree_copy(struct crash_tree *to, const struct crash_tree *from)
{
    *to = (struct crash_tree){.n = from->n, .capacity = from->n};
    if (!from->n)
        return;
    to->entries = malloc(from->n * sizeof *to->entries);
    if (!to->entries)
        abort();
    memcpy(to->entries, from->entries, from->n * sizeof *to->entries);
}

void crash_tree_release(struct crash_tree *tree)
{
    free(tree->entries);
    *tree = (struct crash_tree){.n = 0};
}
