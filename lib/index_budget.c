/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/index_budget.c - graphs that do not fit vecdb_options.index_memory_bytes (graph_budget.c counts)
 *
 *     all that building wants fits      built on 8-bit codes
 *     the graph fits, that does not     built on its 4-bit codes: somewhat slower, and by a little less recall
 *     a part of the graph fits          of the oldest rows; the rest is scanned with every search
 *     hardly any fits                   none: every search scans
 *
 * A refusal is a sentence kept per field: vecdb_index_describe tells it as long as it holds, the background error
 * once, and vecdb_index_wait returns it. The thread that builds is not woken for a field that was refused until
 * as many rows more are missing as it would be woken for anyway.
 *
 * A graph of a file that does not fit is not replaced by a smaller one of this process's own: building it would take
 * longer than what it saves, and it could not be kept.
 */
#include "database.h"

#include <stdio.h>

struct vdb_index_refusal {
    struct vdb_index_refusal *next;
    uint64_t field, n_missing; /* rows, when it was refused */
    char message[VDB_REFUSAL_BYTES];
};

/* Under indexes.lock. */
static struct vdb_index_refusal **find(struct vdb_indexes *indexes, uint64_t field)
{
    struct vdb_index_refusal **link = &indexes->refusals;
    while (*link && (*link)->field != field)
        link = &(*link)->next;
    return link;
}

int vdb_index_refuse(vecdb_collection *collection, const struct vdb_view_field *field, uint64_t n_bytes,
                     uint64_t n_missing, vecdb_error *err)
{
    vecdb *db = collection->db;
    const struct vdb_graph_budget *budget = &db->index_budget;
    vecdb_error own = VECDB_ERROR_INIT;
    uint64_t n_rows = field->n_paged_rows + field->n_tail_rows;
    vdb_fail(&own, VECDB_NOMEM,
             "field \"%.60s\": an index of all %llu vectors needs %llu bytes beside the %llu that are held, and "
             "index_memory_bytes is %llu; what it does not cover is scanned",
             field->row.name, (unsigned long long)n_rows, (unsigned long long)n_bytes,
             (unsigned long long)atomic_load(&((struct vdb_graph_budget *)budget)->used),
             (unsigned long long)budget->limit);
    struct vdb_index_refusal *made = vdb_alloc_zero(&db->memory, sizeof *made);
    pthread_mutex_lock(&collection->indexes.lock);
    struct vdb_index_refusal **link = find(&collection->indexes, field->row.id), *refusal = *link;
    if (!refusal && made) {
        refusal = *link = made;
        refusal->field = field->row.id;
        made = NULL;
    }
    if (refusal) { /* without memory for it, it is forgotten, and found again */
        refusal->n_missing = n_missing;
        snprintf(refusal->message, sizeof refusal->message, "%.255s", own.message);
    }
    pthread_mutex_unlock(&collection->indexes.lock);
    vdb_free(&db->memory, made);
    if (err)
        *err = own;
    return VECDB_NOMEM;
}

void vdb_index_allow(vecdb_collection *collection, uint64_t field)
{
    pthread_mutex_lock(&collection->indexes.lock);
    struct vdb_index_refusal **link = find(&collection->indexes, field), *refusal = *link;
    if (refusal)
        *link = refusal->next;
    pthread_mutex_unlock(&collection->indexes.lock);
    vdb_free(&collection->db->memory, refusal);
}

bool vdb_index_is_refused(vecdb_collection *collection, uint64_t field, char message[VDB_REFUSAL_BYTES],
                          uint64_t *n_missing)
{
    pthread_mutex_lock(&collection->indexes.lock);
    const struct vdb_index_refusal *refusal = *find(&collection->indexes, field);
    if (refusal && message)
        memcpy(message, refusal->message, sizeof refusal->message);
    if (refusal && n_missing)
        *n_missing = refusal->n_missing;
    pthread_mutex_unlock(&collection->indexes.lock);
    return refusal;
}

void vdb_index_refusals_release(struct vdb_indexes *indexes, struct vdb_memory *memory)
{
    while (indexes->refusals) {
        struct vdb_index_refusal *refusal = indexes->refusals;
        indexes->refusals = refusal->next;
        vdb_free(memory, refusal);
    }
}

/* ------------------------------------------------------------------ how large a graph may be */

static uint32_t with_slack(uint64_t n, uint64_t slack)
{
    return n + slack < INT32_MAX ? (uint32_t)(n + slack) : INT32_MAX;
}

uint32_t vdb_index_first_room(const struct vdb_graph_options *options, uint64_t n_rows)
{
    uint32_t wanted = with_slack(n_rows, n_rows / 8 + 1024), room = vdb_graph_room(options, NULL, wanted, true);
    if (room < n_rows && room < wanted)
        room = vdb_graph_room(options, NULL, wanted, false);
    return room < VDB_INDEX_LEAST_ROWS && room < n_rows ? 0 : room;
}

#define LEAST_GROWTH 1024u /* nodes: a copy for fewer is not worth its while */

uint32_t vdb_index_next_room(const struct vdb_graph_options *options, const struct vdb_graph *graph,
                             uint32_t capacity, uint64_t n_left, bool with_building)
{
    uint64_t least = capacity + (n_left < LEAST_GROWTH ? n_left : LEAST_GROWTH);
    uint32_t room = vdb_graph_room(options, graph, with_slack(capacity, capacity / 2 + 1024), with_building);
    return room < least ? 0 : room;
}
