/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/index_build.c - building graphs: in the background, or for a caller who waits
 *
 *     view of the newest state -> rows behind the graph's end -> inserted, block by block -> a newer view? again
 *                              -> seal: what cannot be reached is connected, what only building needs is given back
 *                              -> calibrate: which effort gives which recall
 *
 * A handle has one thread for this (index_thread.c), which works alone, so that searches keep the processors; a caller
 * of vecdb_index_wait uses all threads. build_lock keeps them apart. Neither holds a lock that a commit or a search
 * takes: rows come from views, and a graph that has no room is copied, the copy taking its place.
 *
 * A graph is given up and built anew when its store has gone; it is swept, by a new one of its live nodes, when
 * a fifth of them are dead, and built anew then, while it serves, if most of them came after its seal. With
 * VECDB_THREADS_NONE graphs are built by vecdb_index_wait only.
 *
 * One process at a time has the builder's lock of the database, for as long as a build takes, and publishes: when its
 * graph has PUBLISH_ROWS or a tenth more than the index file covers, and at the end of a wait. A process that finds the
 * lock taken leaves bulks to the other, whose file it will load, and inserts what is little by itself.
 *
 * What graphs may hold together has a budget (index_budget.c). A round for which it has no room keeps what there is,
 * seals, measures and publishes that, and ends with NOMEM. Where room is needed for a moment only, beside a graph that
 * is about to be replaced, that one is given up first.
 *
 * Costs: an insertion is 60 us (128 dimensions) to 300 us (1,536) of one processor. A seal reads all links once.
 */
#include "database.h"

#include <assert.h>
#include <time.h>

#define SWEEP_SHARE 0.2
#define SEAL_SHARE 0.1 /* of new rows since the last seal */
#define SAMPLE_ROWS 2048u
#define OVERDUE_GROWTH 2       /* of the vectors, since they were measured */
#define PUBLISH_ROWS 10000u
#define PUBLISH_SHARE 0.1
#define WAIT_PAUSE_NS 20000000
#define RELEASE_PAUSE_NS 1000000 /* until searches have ended that hold a graph */
#define RELEASE_PAUSES 1000
#define SEED UINT64_C(0x76656364622d6877)

/* ------------------------------------------------------------------ what serves */

struct vdb_index *vdb_index_find(vecdb_collection *collection, uint64_t field)
{
    for (struct vdb_index *index = collection->indexes.first; index; index = index->next)
        if (index->field == field)
            return index;
    return NULL;
}

static struct vdb_served *new_served(vecdb *db, struct vdb_graph *graph)
{
    struct vdb_served *served = vdb_alloc_zero(&db->memory, sizeof *served);
    if (served) {
        atomic_init(&served->references, 1);
        served->memory = &db->memory;
        served->graph = graph;
    }
    return served;
}

/* Let `graph` (whose reference is taken over, also on failure) serve a field, with a curve or (NULL) the one that
 * served so far. Holds build_lock. */
static int serve(vecdb_collection *collection, uint64_t field, uint64_t store, struct vdb_graph *graph,
                 const struct vdb_calibration *curve, vecdb_error *err)
{
    vecdb *db = collection->db;
    struct vdb_index *index = vdb_index_find(collection, field), *made = NULL; /* only changed under build_lock */
    struct vdb_served *served = new_served(db, graph), *old = NULL;
    if (served && !index)
        made = vdb_alloc_zero(&db->memory, sizeof *made);
    if (!served || (!index && !made)) {
        vdb_graph_release(graph);
        vdb_free(&db->memory, served);
        return vdb_fail_memory(err, sizeof *served);
    }
    const struct vdb_served *before = index && index->store == store ? index->served : NULL;
    if (curve)
        served->curve = *curve;
    else if (before)
        served->curve = before->curve;
    served->has_curve = curve || (before && before->has_curve);
    atomic_init(&served->n_dead_seen, before ? atomic_load(&before->n_dead_seen) : 0);
    pthread_mutex_lock(&collection->indexes.lock);
    if (!index) {
        index = made;
        index->field = field;
        index->next = collection->indexes.first;
        collection->indexes.first = index;
    }
    if (index->store != store) {
        index->sealed_end = index->fine_end = 0;
        index->has_named = index->is_saved = index->must_publish = false;
    }
    index->store = store;
    old = index->served;
    index->served = served;
    pthread_mutex_unlock(&collection->indexes.lock);
    vdb_served_release(old);
    return VECDB_OK;
}

static void forget(vecdb_collection *collection, uint64_t field)
{
    struct vdb_index *found = NULL;
    pthread_mutex_lock(&collection->indexes.lock);
    for (struct vdb_index **link = &collection->indexes.first; *link && !found; link = found ? link : &(*link)->next)
        if ((*link)->field == field) {
            found = *link;
            *link = found->next;
        }
    pthread_mutex_unlock(&collection->indexes.lock);
    if (found) {
        vdb_served_release(found->served);
        vdb_free(&collection->db->memory, found);
    }
    vdb_index_allow(collection, field);
}

/* ------------------------------------------------------------------ one round */

struct round {
    vecdb_collection *collection;
    const struct vdb_index_build *how;
    struct vdb_view *view;
    const struct vdb_view_field *field;
    struct vdb_graph *graph; /* borrowed of what serves */
    struct vdb_graph_insert insert;
    uint64_t n_total; /* rows of the field */
    bool is_builder;  /* has the builder's lock */
    bool is_refused;  /* the budget has no room for more */
    uint64_t n_needed; /* bytes, then */
};

static void graph_options(const struct round *round, struct vdb_graph_options *options)
{
    vecdb *db = round->collection->db;
    *options = (struct vdb_graph_options){.memory = &db->memory,
                                          .budget = &db->index_budget,
                                          .kernels = db->kernels,
                                          .metric = round->field->row.metric,
                                          .type = round->field->row.type,
                                          .dimension = round->field->row.dimension,
                                          .seed = SEED};
}

/* Rows taken evenly from all blocks, in the field's type. `rows` has room for SAMPLE_ROWS. */
static int take_sample(const struct vdb_view_field *field, unsigned char *rows, uint32_t *n_rows, vecdb_error *err)
{
    struct vdb_view_blocks source;
    struct vdb_blocks blocks;
    vdb_view_get_blocks(&source, field, &blocks);
    size_t n_used = blocks.n_blocks < 64 ? blocks.n_blocks : 64;
    uint32_t n = 0, most = n_used ? SAMPLE_ROWS / (uint32_t)n_used : 0;
    for (size_t i = 0; i < n_used; i++) {
        struct vdb_block block;
        int status = blocks.pin(blocks.context, i * blocks.n_blocks / n_used, &block, err);
        if (status)
            return status;
        uint32_t step = block.n_rows > most ? block.n_rows / most : 1;
        for (uint32_t row = 0, k = 0; row < block.n_rows && k < most; row += step, k++, n++)
            vdb_view_copy_row(field, &block, row, rows + n * field->vector_bytes);
        blocks.unpin(blocks.context, &block);
    }
    *n_rows = n;
    return VECDB_OK;
}

static void refuse(struct round *round, uint64_t n_bytes)
{
    round->is_refused = true;
    round->n_needed = n_bytes;
}

/* Is this lack of memory one of the budget? */
static bool was_refused(struct round *round, int status)
{
    struct vdb_graph_budget *budget = &round->collection->db->index_budget;
    bool is_refused = status == VECDB_NOMEM && budget->refused;
    if (is_refused)
        refuse(round, budget->refused);
    budget->refused = 0;
    return is_refused;
}

/* The field's graph makes room for another, until which searches scan. Those that have it hold it for a moment more. */
static void give_up(struct round *round)
{
    const struct vdb_graph_budget *budget = &round->collection->db->index_budget;
    struct vdb_index *index = vdb_index_find(round->collection, round->field->row.id);
    uint64_t n_held = vdb_graph_taken(index->served->graph), n_left = vdb_graph_budget_left(budget);
    forget(round->collection, round->field->row.id);
    round->is_refused = false;
    for (int i = 0; i < RELEASE_PAUSES && vdb_graph_budget_left(budget) < n_left + n_held; i++)
        nanosleep(&(struct timespec){.tv_nsec = RELEASE_PAUSE_NS}, NULL);
}

/* An empty graph with room for the view's rows, or for as many as the budget has room for. *graph stays NULL where
 * that is refused. */
static int new_graph(struct round *round, struct vdb_graph **graph, vecdb_error *err)
{
    vecdb *db = round->collection->db;
    const struct vdb_view_field *field = round->field;
    struct vdb_graph_options options;
    graph_options(round, &options);
    uint32_t capacity = vdb_index_first_room(&options, round->n_total);
    if (!capacity) {
        uint64_t n = round->n_total < INT32_MAX ? round->n_total : INT32_MAX;
        refuse(round, vdb_graph_cost(&options, NULL, (uint32_t)n, false));
        return VECDB_OK;
    }
    unsigned char *rows = vdb_alloc_aligned(&db->memory, SAMPLE_ROWS * field->vector_bytes);
    uint32_t n_rows = 0;
    if (!rows)
        return vdb_fail_memory(err, SAMPLE_ROWS * field->vector_bytes);
    int status = take_sample(field, rows, &n_rows, err);
    struct vdb_run run = {0, 0};
    struct vdb_block sample = {.rows = rows,
                               .stride = field->vector_bytes,
                               .n_rows = n_rows,
                               .type = field->row.type,
                               .n_runs = 1,
                               .runs = &run};
    if (!status)
        status = vdb_graph_new(&options, capacity, &sample, graph, err);
    vdb_free_aligned(&db->memory, rows);
    return was_refused(round, status) ? VECDB_OK : status;
}

/* Without room for a graph that is worth it, none is begun. */
static int begin_graph(struct round *round, vecdb_error *err)
{
    struct vdb_graph *graph = NULL;
    int status = new_graph(round, &graph, err);
    if (status || !graph)
        return status;
    status = serve(round->collection, round->field->row.id, round->view->row.store, graph, NULL, err);
    if (!status)
        round->graph = graph;
    return status;
}

/* Codes of 8 bits end with a graph's first seal. */
static void note_seal(struct vdb_index *index, uint32_t end)
{
    if (!index->sealed_end)
        index->fine_end = end;
    index->sealed_end = end;
}

/* A larger copy takes the graph's place. The budget has both for a moment; where it has no room for what building keeps
 * in both, that is given up first. */
static int grow(struct round *round, vecdb_error *err)
{
    struct vdb_graph *copy;
    struct vdb_graph_options options;
    graph_options(round, &options);
    uint32_t capacity = vdb_graph_capacity(round->graph), end = vdb_graph_end(round->graph);
    uint64_t n_left = vdb_view_count_rows_from(round->field, end);
    uint32_t room = vdb_index_next_room(&options, round->graph, capacity, n_left, true);
    int status = VECDB_OK;
    if (!room && !(status = vdb_graph_seal(round->graph, &round->insert, err))) {
        note_seal(vdb_index_find(round->collection, round->field->row.id), end);
        room = vdb_index_next_room(&options, round->graph, capacity, n_left, false);
    }
    if (status)
        return status;
    if (!room) {
        uint64_t n = capacity + n_left;
        refuse(round, vdb_graph_cost(&options, round->graph, n < INT32_MAX ? (uint32_t)n : INT32_MAX, false));
        return VECDB_OK;
    }
    status = vdb_graph_copy(round->graph, room, &copy, err);
    if (was_refused(round, status))
        return VECDB_OK;
    if (!status)
        status = serve(round->collection, round->field->row.id, round->view->row.store, copy, NULL, err);
    if (!status)
        round->graph = copy;
    return status;
}

/* Pages, or pieces of the tail, one of them pinned: the one with the next row that the graph lacks. */
struct rows_cursor {
    size_t at, end; /* of the blocks */
    struct vdb_block block;
    bool is_pinned;
    uint32_t slot; /* of that row; UINT32_MAX: there is none */
};

static void leave_block(struct rows_cursor *cursor, const struct vdb_blocks *blocks)
{
    if (cursor->is_pinned)
        blocks->unpin(blocks->context, &cursor->block);
    cursor->is_pinned = false;
}

static int find_next(struct round *round, struct rows_cursor *cursor, const struct vdb_blocks *blocks,
                     vecdb_error *err)
{
    uint32_t end = vdb_graph_end(round->graph);
    cursor->slot = UINT32_MAX;
    while (cursor->at < cursor->end) {
        int status = cursor->is_pinned ? VECDB_OK : blocks->pin(blocks->context, cursor->at, &cursor->block, err);
        if (status)
            return status;
        cursor->is_pinned = true;
        uint32_t row = vdb_block_first_row(&cursor->block, end);
        if (row < cursor->block.n_rows) {
            cursor->slot = vdb_block_slot(&cursor->block, row);
            return VECDB_OK;
        }
        leave_block(cursor, blocks);
        cursor->at++;
    }
    return VECDB_OK;
}

/* Rows of a block that the graph lacks, with slots below `limit`. */
static int insert_block(struct round *round, const struct vdb_block *block, uint32_t limit, vecdb_error *err)
{
    for (;;) {
        uint32_t first = vdb_block_first_row(block, vdb_graph_end(round->graph));
        uint32_t last = limit == UINT32_MAX ? block->n_rows : vdb_block_first_row(block, limit);
        if (first >= last)
            return VECDB_OK;
        int status = vdb_graph_insert(round->graph, block, first, last - first, &round->insert, err);
        if (status == VECDB_FULL)
            status = grow(round, err);
        else if (was_refused(round, status))
            status = VECDB_OK;
        if (status || round->is_refused)
            return status;
    }
}

static int report_rows(const struct round *round, vecdb_error *err)
{
    if (!round->how->report)
        return vdb_stop_check(round->how->stop, err);
    uint64_t n_left = vdb_view_count_rows_from(round->field, vdb_graph_end(round->graph));
    return round->how->report(round->how->report_context, round->n_total - n_left, round->n_total, err);
}

/* In the order of slots, which pages and the tail share: what lies before the graph's end is never looked at again. */
static int insert_rows(struct round *round, vecdb_error *err)
{
    struct vdb_view_blocks source;
    struct vdb_blocks blocks;
    vdb_view_get_blocks_from(&source, round->field, vdb_graph_end(round->graph), &blocks);
    struct rows_cursor pages = {.at = 0, .end = source.n_pages}, tail = {.at = source.n_pages, .end = blocks.n_blocks};
    int status;
    for (;;) {
        status = find_next(round, &pages, &blocks, err);
        if (!status)
            status = find_next(round, &tail, &blocks, err);
        if (status || (pages.slot == UINT32_MAX && tail.slot == UINT32_MAX))
            break;
        bool is_page = pages.slot < tail.slot;
        status = insert_block(round, is_page ? &pages.block : &tail.block, is_page ? tail.slot : pages.slot, err);
        if (!status)
            status = report_rows(round, err);
        if (status || round->is_refused)
            break;
    }
    leave_block(&pages, &blocks);
    leave_block(&tail, &blocks);
    if (!status && !round->is_refused && vdb_graph_end(round->graph) < round->view->row.next_slot)
        vdb_graph_set_end(round->graph, (uint32_t)round->view->row.next_slot);
    return status;
}

/* Live rows below the graph's end, at most. The catalog forgets a dead slot when no page holds it any more, the graph
 * does not: so what is dead in it is told by what is alive. */
static uint64_t most_live(const struct vdb_view *view, const struct vdb_view_field *field, uint32_t end)
{
    uint64_t n_rows = field->n_paged_rows + field->n_tail_rows, n_behind = vdb_view_count_rows_from(field, end);
    uint64_t n_dead = 0;
    if (vdb_view_count_dead(view, field, NULL, &n_dead, NULL))
        n_dead = 0;
    n_rows -= n_behind < n_rows ? n_behind : n_rows;
    return n_rows > n_dead ? n_rows - n_dead : 0;
}

static bool sweep_is_due(const struct vdb_graph *graph, const struct vdb_view *view,
                         const struct vdb_view_field *field)
{
    uint64_t n_slots = vdb_graph_count_slots(graph), n_live = most_live(view, field, vdb_graph_end(graph));
    return n_live < n_slots && (double)(n_slots - n_live) > SWEEP_SHARE * (double)n_slots;
}

/* The dead that are known of now are no reason for another look. */
static void note_dead(const struct round *round)
{
    struct vdb_index *index = vdb_index_find(round->collection, round->field->row.id);
    uint32_t end = vdb_graph_end(round->graph);
    atomic_store(&index->served->n_dead_seen, vdb_slots_count_range(round->view->dead->set, 0, end));
}

/* Have so many slots died since the last look that a sweep may be due? */
bool vdb_index_has_new_dead(struct vdb_served *served, const struct vdb_view *view)
{
    uint64_t n_dead = vdb_slots_count_range(view->dead->set, 0, vdb_graph_end(served->graph));
    uint64_t n_seen = atomic_load(&served->n_dead_seen);
    if (n_dead < n_seen) /* some were forgotten */
        atomic_store(&served->n_dead_seen, n_seen = n_dead);
    return (double)(n_dead - n_seen) > SWEEP_SHARE * (double)vdb_graph_count_slots(served->graph);
}

/* All slots below `end` but those of live rows. */
static int collect_gone(const struct round *round, uint32_t end, struct vdb_slots **gone, vecdb_error *err)
{
    const struct vdb_slots *dead = round->view->dead->set;
    struct vdb_view_blocks source;
    struct vdb_blocks blocks;
    struct vdb_slots *set = vdb_slots_new();
    if (!set)
        return vdb_fail_memory(err, end / 8);
    vdb_slots_add_range(set, 0, end);
    vdb_view_get_blocks(&source, round->field, &blocks);
    for (size_t i = 0; i < blocks.n_blocks; i++) {
        struct vdb_block block;
        int status = blocks.pin(blocks.context, i, &block, err);
        if (status) {
            vdb_slots_free(set);
            return status;
        }
        for (uint32_t row = 0; row < block.n_rows; row++) {
            uint32_t slot = vdb_block_slot(&block, row);
            if (slot >= end)
                break;
            if (!vdb_slots_has(dead, slot))
                vdb_slots_remove(set, slot);
        }
        blocks.unpin(blocks.context, &block);
    }
    *gone = set;
    return VECDB_OK;
}

/* There is no room for a graph beside one with many dead nodes: a new one is built in its place. */
static int rebuild(struct round *round, vecdb_error *err)
{
    give_up(round);
    round->graph = NULL;
    return begin_graph(round, err);
}

/* Were most of the live rows inserted after the seal, on codes of 4 bits? Their links are chosen by coarser distances:
 * when all of 100,000 SIFT vectors had been replaced, a walk of the same width found .982 of the nearest, not .992. */
static bool is_coarse(const struct round *round, const struct vdb_index *index)
{
    const struct vdb_slots *dead = round->view->dead->set;
    uint64_t n_dead = vdb_slots_count(dead), n_late = vdb_view_count_rows_from(round->field, index->fine_end);
    uint64_t n_late_dead = n_dead - vdb_slots_count_range(dead, 0, index->fine_end);
    uint64_t n_live = round->n_total > n_dead ? round->n_total - n_dead : 0;
    return index->fine_end && round->field->row.type != VECDB_BIT && n_late > n_late_dead &&
           n_late - n_late_dead > n_live / 2;
}

/* A graph of the view's live rows, built from nothing while the old one serves; *graph stays NULL where the budget has
 * no room for both. */
static int build_anew(const struct round *round, struct vdb_graph **graph, vecdb_error *err)
{
    struct round anew = *round;
    anew.graph = NULL;
    int status = new_graph(&anew, &anew.graph, err);
    if (!status && anew.graph && vdb_graph_capacity(anew.graph) >= round->n_total) { /* so that it need not grow */
        status = insert_rows(&anew, err);
        if (!status && !anew.is_refused)
            status = vdb_graph_seal(anew.graph, &anew.insert, err);
        if (!status && !anew.is_refused) {
            *graph = anew.graph;
            return VECDB_OK;
        }
    }
    vdb_graph_release(anew.graph);
    return status;
}

/* The graph without its dead nodes. */
static int sweep(const struct round *round, struct vdb_graph **swept, vecdb_error *err)
{
    struct vdb_slots *gone = NULL;
    int status = collect_gone(round, vdb_graph_end(round->graph), &gone, err);
    if (status)
        return status;
    status = vdb_graph_sweep(round->graph, gone, &round->insert, swept, err);
    vdb_slots_free(gone);
    return status;
}

static int sweep_if_due(struct round *round, vecdb_error *err)
{
    struct vdb_index *index = vdb_index_find(round->collection, round->field->row.id);
    struct vdb_graph *swept = NULL;
    bool is_due = sweep_is_due(round->graph, round->view, round->field);
    note_dead(round);
    if (!is_due)
        return VECDB_OK;
    int status = is_coarse(round, index) ? build_anew(round, &swept, err) : VECDB_OK;
    bool is_anew = swept;
    if (!status && !is_anew)
        status = sweep(round, &swept, err);
    if (was_refused(round, status))
        return rebuild(round, err);
    if (!status)
        status = serve(round->collection, round->field->row.id, round->view->row.store, swept, NULL, err);
    if (status)
        return status;
    if (is_anew)
        index->sealed_end = index->fine_end = vdb_graph_end(swept);
    index->is_saved = false;
    index->must_publish = true;
    round->graph = swept;
    return VECDB_OK;
}

static int seal_if_due(struct round *round, vecdb_error *err)
{
    struct vdb_index *index = vdb_index_find(round->collection, round->field->row.id);
    uint32_t end = vdb_graph_end(round->graph);
    assert(index);
    /* Where there is no room for more, what building keeps is given back at once. */
    bool is_due = round->is_refused || (double)(end - index->sealed_end) >= SEAL_SHARE * (double)end;
    if (end == index->sealed_end || !is_due)
        return VECDB_OK;
    int status = vdb_graph_seal(round->graph, &round->insert, err);
    if (!status)
        note_seal(index, end);
    return status;
}

static int calibrate_if_due(struct round *round, vecdb_error *err)
{
    vecdb *db = round->collection->db;
    const struct vdb_view_field *field = round->field;
    struct vdb_index *index = vdb_index_find(round->collection, field->row.id);
    uint32_t end = vdb_graph_end(round->graph), next = (uint32_t)round->view->row.next_slot;
    uint64_t n_dead = vdb_slots_count(round->view->dead->set);
    uint64_t n_live = round->n_total > n_dead ? round->n_total - n_dead : 0;
    if (end < next)
        n_live = most_live(round->view, field, end);
    const struct vdb_calibration *old = index->served->has_curve ? &index->served->curve : NULL;
    uint64_t before = old ? old->n_vectors : 0;
    uint64_t n_more = n_live > before ? n_live - before : 0, n_less = before > n_live ? before - n_live : 0;
    if (old && !vdb_calibration_stale(old, n_more, n_less))
        return VECDB_OK;
    /* Measuring is not to take longer than building has. */
    uint32_t n_samples = n_live / 100 < VDB_CALIBRATION_LEAST     ? VDB_CALIBRATION_LEAST
                         : n_live / 100 < VDB_CALIBRATION_SAMPLES ? (uint32_t)(n_live / 100)
                                                                  : VDB_CALIBRATION_SAMPLES;
    struct vdb_view_blocks for_blocks, for_rows;
    struct vdb_blocks blocks;
    struct vdb_rows rows;
    struct vdb_calibration curve;
    struct vdb_slots *dead = NULL;
    if (end < next) { /* of a graph that covers a part, what it finds of that part is measured */
        if (!(dead = vdb_slots_copy(round->view->dead->set)))
            return vdb_fail_memory(err, next / 8);
        vdb_slots_add_range(dead, end, next - end);
    }
    vdb_view_get_blocks(&for_blocks, field, &blocks);
    vdb_view_get_rows(&for_rows, field, &rows);
    struct vdb_search search = {.kernels = db->kernels,
                                .memory = &db->memory,
                                .pool = round->insert.pool,
                                .n_threads = round->insert.n_threads,
                                .metric = field->row.metric,
                                .type = field->row.type,
                                .dimension = field->row.dimension,
                                .dead = dead ? dead : round->view->dead->set,
                                .stop = vdb_stop_check,
                                .stop_context = round->how->stop};
    struct vdb_calibrate how = {.graph = round->graph,
                                .search = &search,
                                .blocks = &blocks,
                                .rows = &rows,
                                .end_slot = end < next ? end : next,
                                .seed = SEED,
                                .n_samples = n_samples};
    int status = vdb_calibrate(&how, &curve, err);
    vdb_slots_free(dead);
    if (!status)
        status = serve(round->collection, field->row.id, round->view->row.store, vdb_graph_retain(round->graph), &curve,
                       err);
    return status;
}

/* ------------------------------------------------------------------ files */

/* A lack of memory, or a wish to stop, ends a build; whatever else is wrong with index files does not. */
static int absorb(struct round *round, const char *what, int status, vecdb_error *own, vecdb_error *err)
{
    vecdb *db = round->collection->db;
    if (status == VECDB_NOMEM || status == VECDB_INTERRUPTED || status == VECDB_TIMEOUT) {
        if (err)
            *err = *own;
        return status;
    }
    vdb_database_log(db, VECDB_LOG_WARNING, "%s: field \"%s\": %s: %s", db->path, round->field->row.name, what,
                     own->message);
    return VECDB_OK;
}

/* Would what was refused fit in the place of the graph that serves, by what is known of it: the length of its file? */
static bool fits_alone(const struct round *round, const struct vdb_index *index)
{
    uint64_t n_left = vdb_graph_budget_left(&round->collection->db->index_budget);
    return index && n_left + vdb_graph_taken(index->served->graph) >= round->n_needed + round->n_needed / 4;
}

/* Let the graph of the index file serve, if it covers more than ours does, by more than is quickly inserted. */
static int adopt(struct round *round, vecdb_error *err)
{
    vecdb *db = round->collection->db;
    uint64_t field = round->field->row.id, store = round->view->row.store;
    struct vdb_index *index = vdb_index_find(round->collection, field);
    uint32_t own_end = index && index->store == store ? vdb_graph_end(index->served->graph) : 0;
    struct vdb_index_named named;
    struct vdb_graph_options options;
    struct vdb_graph *graph;
    vecdb_error own = VECDB_ERROR_INIT;
    bool found = false;
    if (db->is_memory)
        return VECDB_OK;
    int status = vdb_index_files_find(db, field, &named, &found, &own);
    if (status)
        return absorb(round, "its index file is not to be found", status, &own, err);
    found &= named.store == store;
    if (index && index->store == store) {
        bool is_same = found && index->has_named && index->named.generation == named.generation &&
                       index->named.extent.check == named.extent.check;
        index->is_saved &= is_same;
        index->has_named = found;
        if (found)
            index->named = named;
        if (is_same)
            return VECDB_OK;
    }
    if (!found || named.end_slot < own_end + (own_end ? VDB_INDEX_LAG_ROWS : 0))
        return VECDB_OK;
    graph_options(round, &options);
    status = vdb_index_files_load(db, &named, &options, &graph, &own);
    if (was_refused(round, status) && fits_alone(round, index)) {
        give_up(round);
        status = vdb_index_files_load(db, &named, &options, &graph, &own);
        was_refused(round, status);
    }
    if (round->is_refused)
        return VECDB_OK;
    if (status)
        return absorb(round, "its index file cannot be used, and the index is built anew", status, &own, err);
    if ((status = serve(round->collection, field, store, graph, named.has_curve ? &named.curve : NULL, err)))
        return status;
    index = vdb_index_find(round->collection, field);
    index->named = named;
    index->has_named = index->is_saved = true;
    index->must_publish = false;
    index->sealed_end = index->fine_end = named.end_slot;
    return VECDB_OK;
}

static bool publish_is_due(const struct round *round, const struct vdb_index *index)
{
    uint32_t end = vdb_graph_end(index->served->graph);
    if (index->has_named && index->named.store == index->store && end < index->named.end_slot)
        return false; /* there was no room here for what another process has published */
    if (!index->has_named || index->must_publish || (index->served->has_curve && !index->named.has_curve))
        return true;
    uint64_t n_new = end > index->named.end_slot ? end - index->named.end_slot : 0;
    if (round->how->least == 1 && n_new >= VDB_INDEX_LAG_ROWS) /* somebody waits */
        return true;
    return n_new >= PUBLISH_ROWS && (double)n_new >= PUBLISH_SHARE * (double)end;
}

/* A failure leaves the graph as it is, in memory. */
static int publish_if_due(struct round *round, vecdb_error *err)
{
    vecdb *db = round->collection->db;
    struct vdb_index *index = vdb_index_find(round->collection, round->field->row.id);
    struct vdb_index_named now;
    vecdb_error own = VECDB_ERROR_INIT;
    if (!round->is_builder || !index || index->store != round->view->row.store || !publish_is_due(round, index))
        return VECDB_OK;
    struct vdb_index_publish publish = {.collection = round->collection->id,
                                        .field = index->field,
                                        .store = index->store,
                                        .graph = index->served->graph,
                                        .curve = index->served->has_curve ? &index->served->curve : NULL,
                                        .named = index->has_named ? &index->named : NULL,
                                        .is_saved = index->is_saved,
                                        .stop = round->how->stop};
    int status = vdb_index_files_publish(db, &publish, &now, &own);
    index->is_saved = !status;
    if (!status) {
        index->named = now;
        index->has_named = true;
        index->must_publish = false;
        return VECDB_OK;
    }
    if (status == VECDB_NOT_FOUND) /* dropped meanwhile */
        return VECDB_OK;
    return absorb(round, "its index cannot be kept in a file", status, &own, err);
}

static const struct vdb_view_field *field_of(const struct vdb_view *view, uint64_t id)
{
    for (size_t i = 0; i < view->n_fields; i++)
        if (view->fields[i].row.id == id)
            return &view->fields[i];
    return NULL;
}

/* Rows of a view that the graph (NULL: none) does not cover. */
uint64_t vdb_index_count_missing(const struct vdb_served *served, const struct vdb_view *view,
                              const struct vdb_view_field *field)
{
    uint64_t n = field->n_paged_rows + field->n_tail_rows;
    if (!served)
        return n < VDB_INDEX_LEAST_ROWS ? 0 : n;
    uint32_t end = vdb_graph_end(served->graph);
    return end >= view->row.next_slot ? 0 : vdb_view_count_rows_from(field, end);
}

/* Have so many rows come meanwhile that they are to be inserted first? Searches scan them. A curve that was measured
 * on less than half of the vectors has waited long enough, and so has one that is missing. */
static bool is_behind(const struct round *round)
{
    const struct vdb_index *index = vdb_index_find(round->collection, round->field->row.id);
    const struct vdb_served *served = index->served;
    struct vdb_view *view;
    uint64_t sequence, n_missing = 0;
    if (!served->has_curve || round->n_total > OVERDUE_GROWTH * served->curve.n_vectors ||
        vdb_view_acquire(round->collection, &view, NULL, &sequence, NULL))
        return false;
    const struct vdb_view_field *field = field_of(view, round->field->row.id);
    if (field && view->row.store == round->view->row.store)
        n_missing = vdb_index_count_missing(served, view, field);
    vdb_view_release(view);
    return n_missing >= VDB_INDEX_LAG_ROWS;
}

/* Bring the graph up to one view. */
static int build_round(struct round *round, vecdb_error *err)
{
    const struct vdb_index *index = vdb_index_find(round->collection, round->field->row.id);
    int status = VECDB_OK;
    round->n_total = round->field->n_paged_rows + round->field->n_tail_rows;
    if (index && index->store == round->view->row.store)
        round->graph = index->served->graph;
    else if (round->n_total < VDB_INDEX_LEAST_ROWS)
        return VECDB_OK;
    else {
        if (index && round->collection->db->index_budget.limit) /* of a store that has gone */
            give_up(round);
        status = begin_graph(round, err);
    }
    if (!status && round->graph)
        status = sweep_if_due(round, err);
    if (!status && !round->graph) /* there is no room for one */
        return VECDB_OK;
    if (!status)
        status = insert_rows(round, err);
    if (!status)
        status = seal_if_due(round, err);
    return status || is_behind(round) ? status : calibrate_if_due(round, err);
}

/* Another process is building: its file will cover what is missing here, if that is much. */
static bool is_left_to_others(const vecdb *db, const struct vdb_index_build *how, uint64_t n_missing)
{
    return n_missing >= PUBLISH_ROWS && how->least > 1 && vdb_state_builds_elsewhere(db->state);
}

/* There is no room for more: keep what there is. */
static int end_refused(struct round *round, vecdb_error *err)
{
    vecdb_collection *collection = round->collection;
    int status = publish_if_due(round, err);
    if (status)
        return status;
    struct vdb_served *served = vdb_index_get(collection, round->view, round->field);
    uint64_t n_missing = vdb_index_count_missing(served, round->view, round->field);
    vdb_served_release(served);
    return vdb_index_refuse(collection, round->field, round->n_needed, n_missing, err);
}

static int build(vecdb_collection *collection, const struct vdb_index_build *how, bool is_builder, vecdb_error *err)
{
    for (bool is_first = true;; is_first = false) {
        struct round round = {.collection = collection, .how = how, .is_builder = is_builder};
        uint64_t sequence;
        int status = vdb_view_acquire(collection, &round.view, NULL, &sequence, err);
        if (status)
            return status;
        round.field = field_of(round.view, how->field);
        if (!round.field || !vdb_index_wanted(round.view, round.field, vdb_index_find(collection, how->field))) {
            forget(collection, how->field);
            vdb_view_release(round.view);
            return VECDB_OK;
        }
        if (is_first)
            status = adopt(&round, err);
        bool is_unserved = round.is_refused && !vdb_index_find(collection, how->field);
        if (status || is_unserved) {
            if (!status)
                status = end_refused(&round, err);
            vdb_view_release(round.view);
            return status;
        }
        round.is_refused = false;
        struct vdb_served *served = vdb_index_get(collection, round.view, round.field);
        uint64_t n_missing = vdb_index_count_missing(served, round.view, round.field);
        vdb_served_release(served);
        if (!is_first && n_missing < how->least) {
            vdb_index_allow(collection, how->field);
            status = publish_if_due(&round, err);
            vdb_view_release(round.view);
            return status;
        }
        if (!is_builder && is_left_to_others(collection->db, how, n_missing)) {
            pthread_mutex_lock(&collection->db->indexer.lock);
            collection->db->indexer.must_retry = true;
            pthread_mutex_unlock(&collection->db->indexer.lock);
            vdb_view_release(round.view);
            return VECDB_OK;
        }
        round.insert = (struct vdb_graph_insert){.dead = round.view->dead->set,
                                                 .pool = how->n_threads > 1 ? collection->db->pool : NULL,
                                                 .n_threads = how->n_threads,
                                                 .stop = vdb_stop_check,
                                                 .stop_context = how->stop};
        status = build_round(&round, err);
        bool is_refused = !status && round.is_refused;
        if (is_refused)
            status = end_refused(&round, err);
        vdb_view_release(round.view);
        if (status || is_refused)
            return status;
    }
}

/* The builder's lock. Who waits for the index waits for another process that builds it, too. */
static int become_builder(vecdb *db, const struct vdb_index_build *how, bool *is_builder, vecdb_error *err)
{
    *is_builder = false;
    if (db->is_memory || db->is_readonly)
        return VECDB_OK;
    for (;;) {
        *is_builder = vdb_state_try_builder(db->state);
        if (*is_builder || how->least > 1 || !vdb_state_builds_elsewhere(db->state))
            return VECDB_OK;
        int status = vdb_stop_check(how->stop, err);
        if (!status && how->report)
            status = how->report(how->report_context, 0, 0, err);
        if (status)
            return status;
        nanosleep(&(struct timespec){.tv_nsec = WAIT_PAUSE_NS}, NULL);
    }
}

int vdb_index_build(vecdb_collection *collection, const struct vdb_index_build *how, vecdb_error *err)
{
    vecdb *db = collection->db;
    bool is_builder;
    pthread_mutex_lock(&db->indexer.build_lock);
    atomic_fetch_add(&collection->indexes.n_building, 1);
    int status = become_builder(db, how, &is_builder, err);
    if (!status)
        status = build(collection, how, is_builder, err);
    if (is_builder)
        vdb_state_release_builder(db->state);
    atomic_fetch_sub(&collection->indexes.n_building, 1);
    pthread_mutex_unlock(&db->indexer.build_lock);
    return status;
}
