/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/renumber.c - a new store: the same records with slots from 0 on
 *
 * Every stored version of a record takes a slot, and slots are 32 bits: 50 days at 1,000 updates a second. Long
 * before, the maintainer moves a collection to a new store, while others read and write. An explicit compaction
 * does the same to a collection most of whose slots are free, because that also packs its table of records anew.
 *
 *     old store   | . 1 . . 4 5 . . . 9 . | b c d    writers go on here        1 4 5 9 are live
 *                     \    \ \      /       \ | |
 *     new store        | 0  1 2  3 |         4 5 6   built beside it, then named by one commit
 *                        copied              taken over by that commit
 *
 * ROUNDS. A round packs the tail, takes a view, copies the records of all slots below a boundary, then the vectors
 * of these records from the pages of that view. The first round copies nearly everything, the next ones what was
 * written meanwhile. When little is left, the last commit takes it over itself: records and tail rows behind the
 * boundary, what died since the view; it puts the new extents in the place of the old ones, names the new store
 * and logs a change of kind 3, which makes every view begin anew.
 *
 * INVARIANTS
 *   1. New slots are given out in the order of old ones: new slot n is the n-th slot of `copied`. So the set is the
 *      whole translation, and pages stay in the order that the invariants of extents ask for.
 *   2. Within a store a slot stands for the same key, metadata, text and vectors as long as it lives. So a record may
 *      be copied at one state and its vectors at another. A record that is gone when its turn comes gets no slot.
 *   3. No slot at or above the boundary of a round is in a page of that round's view. All of them are in the tail, and
 *      still are in the last commit: only the maintainer packs, and that is us.
 *   4. Of two records with one key in the new store, the one with the lower slot is dead, and gives way (REPLACE).
 *      After the last commit's burials there are none. A round by itself never copies two: the higher slot is given
 *      out after the lower one died, so not before the round began.
 *   5. Until the last commit nothing that is named refers to the new store; after it, nothing to the old one.
 *      A crash, an interrupt or an error leaves a row of `stores`, its table, and vector files that no extent names:
 *      debris, which the next sweep removes. What follows the commit (old files, old table) is the same sweep.
 *   6. Before the last commit the new store's records are counted, and the commit compares that, with what it adds and
 *      removes itself, with the collection's own count. A difference ends it; the old store stays.
 *
 * COSTS. Everything live is written once more, and both stores need room at the end. The index of keys is made in one
 * transaction after the first round where that takes a second or less (INDEXED_LATER). Else it grows with the
 * records, which come in the order of slots: with random keys every transaction writes most of its pages, for ten
 * million records some 20 GB in all. Writers wait for single
 * transactions of at most CHUNK_NS, and for the last one, which is bounded by FINAL_ROWS and FINAL_BYTES. When
 * writers are faster than the rounds, these bounds are doubled with every further round, which makes the writers wait
 * instead. Memory: a few bits for each record.
 *
 * REJECTED. 64-bit slots: twice the bytes in every page header, set and index, for all who will never need them.
 * Using free slots again: slots would no longer ascend with time, so that extents interleave, and a page or a view
 * that is older than the second use would give wrong answers instead of none. Changing slots in place: no crash in
 * the middle could be told from damage. One transaction for all: it holds the gate for seconds for each million
 * records.
 */
#include "database.h"

#include <time.h>

#include "base/numbers.h"

#define CHUNK_NS 250000000u               /* a transaction of ours holds the gate so long */
#define CHUNK_ROWS 65536u
#define CHUNK_BYTES ((uint64_t)16 << 20)
#define BURIED_ROWS 2048u                 /* in one transaction */
#define INDEXED_LATER ((uint64_t)1 << 20) /* records; see COSTS */
#define FINAL_ROWS 2048u                  /* taken over, or buried, by the last commit */
#define FINAL_BYTES ((uint64_t)4 << 20)   /* of vectors in its tails */
#define PATIENT_ROUNDS 4                  /* before the bounds are doubled */
#define EXTENT_BYTES ((uint64_t)64 << 20) /* as compaction does */

#define SHORT_OF_SLOTS ((uint64_t)7 << 29)   /* 7/8 of all: the rest lasts for the time that this takes */
#define TRY_AGAIN_AFTER ((uint64_t)1 << 24)  /* slots, when it failed */
#define USEFUL_SLOTS 1024                    /* below, there is nothing to gain */
#define WAIT_NS ((uint64_t)600 * 1000000000) /* for another process that renumbers */

struct renumber_field {
    uint64_t id;
    uint64_t generation; /* of the file that is being filled; 0: none yet */
    struct vdb_extent_row *extents;
    size_t n_extents;
};

struct renumbering {
    vecdb_collection *collection;
    struct vdb_stop *stop;
    uint64_t from, to;  /* the stores */
    uint64_t boundary;  /* old slots below it have been gone through */
    uint64_t next_slot; /* of the new store */
    uint64_t n_records; /* of the new store */
    struct vdb_slots *copied;
    struct vdb_view *view; /* of the last round */
    uint64_t sequence;     /* of that view */
    unsigned round;
    bool has_index; /* of keys */
    struct renumber_field *fields;
    size_t n_fields;
};

bool vdb_renumber_is_due(const vecdb_collection *collection, const struct vdb_view *view)
{
    uint64_t next_slot = view->row.next_slot;
    return next_slot >= SHORT_OF_SLOTS && view->row.n_records <= next_slot - next_slot / 8 &&
           next_slot >= atomic_load(&collection->renumber_from);
}

bool vdb_renumber_is_useful(const struct vdb_view *view)
{
    return view->row.next_slot >= USEFUL_SLOTS && view->row.n_records <= view->row.next_slot / 2;
}

/* The new slot of an old one that was copied. */
static uint32_t translate(const struct renumbering *r, uint32_t slot)
{
    return (uint32_t)vdb_slots_count_range(r->copied, 0, slot);
}

/* Inside a transaction: is all as it was when we began? */
static int read_collection(const struct renumbering *r, struct vdb_connection *c, struct vdb_collection_row *row,
                           vecdb_error *err)
{
    bool found;
    int status = vdb_collection_read(c, r->collection->id, row, &found, err);
    if (!status && !found)
        status = vdb_fail(err, VECDB_NOT_FOUND, "the collection was dropped");
    if (!status && row->store != r->from)
        status = vdb_fail(err, VECDB_INTERNAL, "collection \"%s\" was given another store by somebody else", row->name);
    return status;
}

/* ------------------------------------------------------------------ the view of a round */

static bool has_pages_behind(const struct vdb_view *view, uint64_t slot)
{
    for (size_t f = 0; f < view->n_fields; f++) {
        const struct vdb_view_field *field = &view->fields[f];
        if (field->n_segments && field->segments[field->n_segments - 1]->ref.last_slot >= slot)
            return true;
    }
    return false;
}

/* Invariant 3: the lowest slot of a tail, or else the first that is not given out. */
static uint64_t boundary_of(const struct vdb_view *view)
{
    uint64_t boundary = view->row.next_slot;
    for (size_t f = 0; f < view->n_fields; f++)
        if (view->fields[f].n_pieces && view->fields[f].pieces[0].first_slot < boundary)
            boundary = view->fields[f].pieces[0].first_slot;
    return boundary;
}

/* A view whose tail holds only what is newer than all of its pages. */
static int take_view(struct renumbering *r, struct vdb_view **view, uint64_t *boundary, vecdb_error *err)
{
    for (int attempt = 0; attempt < 10; attempt++) {
        int status = vdb_stop_check(r->stop, err);
        if (status || (status = vdb_pack(r->collection, err)) ||
            (status = vdb_view_acquire(r->collection, view, NULL, &r->sequence, err)))
            return status;
        *boundary = boundary_of(*view);
        if (!has_pages_behind(*view, *boundary))
            return VECDB_OK;
        vdb_view_release(*view); /* the fields were changed while they were packed */
    }
    return vdb_fail(err, VECDB_BUSY, "the fields of the collection are being changed all the time");
}

/* What others write meanwhile must not pile up in the tail, which every view holds in memory. */
static int pack_if_due(struct renumbering *r, vecdb_error *err)
{
    struct vdb_view *view;
    uint64_t sequence;
    int status = vdb_view_acquire(r->collection, &view, NULL, &sequence, err);
    if (status)
        return status;
    bool is_due = vdb_pack_is_due(view);
    vdb_view_release(view);
    return is_due ? vdb_pack(r->collection, err) : VECDB_OK;
}

/* ------------------------------------------------------------------ records */

static int apply_begin(void *context, struct vdb_transaction *transaction, vecdb_error *err)
{
    struct renumbering *r = context;
    struct vdb_collection_row row;
    bool found;
    int status = vdb_collection_read(transaction->connection, r->collection->id, &row, &found, err);
    if (!status && !found)
        status = vdb_fail(err, VECDB_NOT_FOUND, "the collection was dropped");
    if (status)
        return status;
    r->from = row.store;
    r->has_index = row.n_records > INDEXED_LATER;
    return vdb_store_add(transaction->connection, r->collection->id, r->has_index, &r->to, err);
}

struct chunk {
    struct renumbering *r;
    uint64_t end; /* old slots below it */
    uint64_t deadline_ns, n_bytes;
    uint32_t n_rows, last;
};

static bool note_copied(void *context, uint32_t slot, size_t n_bytes)
{
    struct chunk *chunk = context;
    vdb_slots_add(chunk->r->copied, slot);
    chunk->last = slot;
    chunk->n_bytes += n_bytes;
    chunk->n_rows++;
    return chunk->n_rows < CHUNK_ROWS && chunk->n_bytes < CHUNK_BYTES &&
           (chunk->n_rows % 64 || vdb_now_ns() < chunk->deadline_ns);
}

static int apply_chunk(void *context, struct vdb_transaction *transaction, vecdb_error *err)
{
    struct chunk *chunk = context;
    struct renumbering *r = chunk->r;
    struct vdb_collection_row row;
    bool is_done;
    int status = read_collection(r, transaction->connection, &row, err);
    chunk->deadline_ns = vdb_now_ns() + CHUNK_NS;
    if (!status)
        status = vdb_store_copy(transaction->connection, r->from, r->to, (uint32_t)r->boundary,
                                (uint32_t)(chunk->end - 1), &r->next_slot, note_copied, chunk, &is_done, err);
    if (!status)
        r->boundary = is_done ? chunk->end : (uint64_t)chunk->last + 1;
    return status;
}

static int copy_records(struct renumbering *r, uint64_t end, vecdb_error *err)
{
    int status = VECDB_OK;
    for (unsigned n = 1; !status && r->boundary < end; n++) {
        struct chunk chunk = {.r = r, .end = end};
        status = vdb_stop_check(r->stop, err);
        if (!status)
            status = vdb_commit(r->collection->db, apply_chunk, &chunk, err);
        if (!status && n % 16 == 0)
            status = pack_if_due(r, err);
    }
    return status;
}

static int apply_index(void *context, struct vdb_transaction *transaction, vecdb_error *err)
{
    struct renumbering *r = context;
    int status = vdb_store_index(transaction->connection, r->to, err);
    r->has_index |= !status;
    return status;
}

/* ------------------------------------------------------------------ records that died after they were copied */

struct burial {
    struct renumbering *r;
    const struct vdb_slots *before; /* buried by an earlier round; NULL: none */
    uint32_t *slots;                /* new ones, ascending */
    size_t n, capacity, done;
    int status;
    vecdb_error *err;
};

static int add_grave(struct burial *burial, uint32_t old_slot)
{
    if (burial->n == burial->capacity) {
        size_t capacity = burial->capacity ? 2 * burial->capacity : 256;
        struct vdb_memory *memory = &burial->r->collection->db->memory;
        uint32_t *slots = vdb_realloc_array(memory, burial->slots, capacity, sizeof *slots);
        if (!slots)
            return vdb_fail_memory(burial->err, capacity * sizeof *slots);
        burial->slots = slots;
        burial->capacity = capacity;
    }
    burial->slots[burial->n++] = translate(burial->r, old_slot);
    return VECDB_OK;
}

static bool find_grave(void *context, uint32_t slot)
{
    struct burial *burial = context;
    if (vdb_slots_has(burial->r->copied, slot) && !(burial->before && vdb_slots_has(burial->before, slot)))
        burial->status = add_grave(burial, slot);
    return burial->status == VECDB_OK;
}

static int bury_some(struct burial *burial, struct vdb_connection *c, size_t limit, vecdb_error *err)
{
    size_t n = burial->n - burial->done < limit ? burial->n - burial->done : limit;
    const uint32_t *slots = burial->slots + burial->done;
    uint64_t store = burial->r->to;
    int status = n ? vdb_dead_add(c, store, slots, n, err) : VECDB_OK;
    for (size_t i = 0; i < n && !status; i++) {
        bool removed = false;
        status = vdb_records_remove(c, store, slots[i], &removed, err);
        burial->r->n_records -= removed; /* counts in the last commit only */
    }
    burial->done += n;
    return status;
}

static int apply_burial(void *context, struct vdb_transaction *transaction, vecdb_error *err)
{
    return bury_some(context, transaction->connection, BURIED_ROWS, err);
}

/* Those that died between the last round's view and this one's. */
static int bury(struct renumbering *r, const struct vdb_view *before, vecdb_error *err)
{
    struct burial burial = {.r = r, .before = before ? before->dead->set : NULL, .err = err};
    vdb_slots_each(r->view->dead->set, find_grave, &burial);
    int status = burial.status;
    while (!status && burial.done < burial.n)
        status = vdb_commit(r->collection->db, apply_burial, &burial, err);
    vdb_free(&r->collection->db->memory, burial.slots);
    return status;
}

/* ------------------------------------------------------------------ vectors */

/* Copies one field's rows of a range of old slots. */
struct vector_copy {
    struct renumbering *r;
    const struct vdb_view_field *field;
    struct renumber_field *to;
    struct vdb_append append;
    bool is_open, was_dropped;
    uint64_t open_bytes;
    uint64_t rank_at, rank; /* `rank` slots below `rank_at` were copied */
    unsigned char *scratch; /* one vector */
    const struct vdb_block *block;
    uint32_t row;
    int status;
    vecdb_error *err;
};

static int close_extent(struct vector_copy *copy, vecdb_error *err)
{
    vecdb *db = copy->r->collection->db;
    struct renumber_field *to = copy->to;
    struct vdb_extent_row *extents =
        vdb_realloc_array(&db->memory, to->extents, to->n_extents + 1, sizeof *extents);
    int status = extents ? vdb_append_finish(db, &copy->append, err) : vdb_fail_memory(err, sizeof *extents);
    if (extents)
        to->extents = extents;
    if (!status)
        extents[to->n_extents++] = copy->append.row;
    vdb_append_release(db, &copy->append);
    copy->is_open = false;
    return status ? status : pack_if_due(copy->r, err);
}

static int open_extent(struct vector_copy *copy, vecdb_error *err)
{
    struct renumbering *r = copy->r;
    vecdb *db = r->collection->db;
    struct vdb_connection *c;
    uint64_t sequence;
    int status = vdb_read_begin(db->catalog, &c, &sequence, err);
    if (status)
        return status;
    status = vdb_append_open_unnamed(db, c, &copy->field->row, r->to, copy->to->generation, &copy->append, err);
    vdb_read_end(c);
    copy->is_open = !status;
    copy->was_dropped = status == VECDB_NOT_FOUND;
    copy->open_bytes = 0;
    if (!status)
        copy->to->generation = copy->append.row.generation;
    return status;
}

/* Called for every slot that was copied, of a page's range: the next of the new slots. */
static bool copy_row(void *context, uint32_t slot)
{
    struct vector_copy *copy = context;
    const struct vdb_block *block = copy->block;
    uint32_t new_slot = (uint32_t)copy->rank++;
    while (copy->row < block->n_rows && vdb_block_slot(block, copy->row) < slot)
        copy->row++;
    if (copy->row == block->n_rows)
        return true; /* none has a vector any more, but all of them count */
    if (vdb_block_slot(block, copy->row) != slot)
        return true; /* this record has no vector in this field */
    if (!copy->is_open)
        copy->status = open_extent(copy, copy->err);
    if (!copy->status) {
        vdb_view_copy_row(copy->field, block, copy->row, copy->scratch);
        copy->status = vdb_extent_writer_add(copy->append.writer, &new_slot, copy->scratch, 1, copy->err);
        copy->open_bytes += copy->field->vector_bytes;
    }
    return copy->status == VECDB_OK;
}

static int copy_page(struct vector_copy *copy, struct vdb_segment *segment, uint32_t page, uint64_t first,
                     uint64_t end, vecdb_error *err)
{
    struct vdb_block block;
    uint32_t page_first, page_last, n_rows;
    vdb_extent_page_range(segment->extent, page, &page_first, &page_last, &n_rows);
    uint64_t from = page_first > first ? page_first : first, to = page_last < end ? (uint64_t)page_last + 1 : end;
    const struct vdb_slots *copied = copy->r->copied;
    if (from >= to || !vdb_slots_count_range(copied, (uint32_t)from, to - from))
        return VECDB_OK;
    int status = vdb_stop_check(copy->r->stop, err);
    if (status || (status = vdb_extent_pin(segment->extent, page, &block, NULL, err)))
        return status;
    copy->rank += vdb_slots_count_range(copied, (uint32_t)copy->rank_at, from - copy->rank_at);
    copy->rank_at = to;
    copy->block = &block;
    copy->row = 0;
    copy->err = err;
    vdb_slots_each_between(copied, (uint32_t)from, (uint32_t)(to - 1), copy_row, copy);
    vdb_extent_unpin(segment->extent, &block);
    return copy->status;
}

static int copy_segments(struct vector_copy *copy, uint64_t first, uint64_t end, vecdb_error *err)
{
    const struct vdb_view_field *field = copy->field;
    int status = VECDB_OK;
    for (size_t i = 0; i < field->n_segments && !status; i++) {
        struct vdb_segment *segment = field->segments[i];
        if (segment->ref.last_slot < first)
            continue;
        for (uint32_t page = 0; page < segment->ref.n_pages && !status; page++) {
            status = copy_page(copy, segment, page, first, end, err);
            if (!status && copy->open_bytes > EXTENT_BYTES && copy->is_open)
                status = close_extent(copy, err);
        }
    }
    return !status && copy->is_open ? close_extent(copy, err) : status;
}

static int find_field(struct renumbering *r, uint64_t id, struct renumber_field **field, vecdb_error *err)
{
    for (size_t f = 0; f < r->n_fields; f++)
        if (r->fields[f].id == id) {
            *field = &r->fields[f];
            return VECDB_OK;
        }
    struct renumber_field *fields =
        vdb_realloc_array(&r->collection->db->memory, r->fields, r->n_fields + 1, sizeof *fields);
    if (!fields)
        return vdb_fail_memory(err, sizeof *fields);
    r->fields = fields;
    fields[r->n_fields] = (struct renumber_field){.id = id};
    *field = &fields[r->n_fields++];
    return VECDB_OK;
}

static int copy_vectors(struct renumbering *r, const struct vdb_view_field *field, uint64_t first, uint64_t end,
                        vecdb_error *err)
{
    vecdb *db = r->collection->db;
    struct vector_copy copy = {.r = r, .field = field};
    int status = find_field(r, field->row.id, &copy.to, err);
    if (status)
        return status;
    copy.scratch = vdb_alloc_aligned(&db->memory, field->vector_bytes);
    if (!copy.scratch)
        return vdb_fail_memory(err, field->vector_bytes);
    status = copy_segments(&copy, first, end, err);
    if (copy.is_open)
        vdb_append_release(db, &copy.append);
    vdb_free_aligned(&db->memory, copy.scratch);
    return copy.was_dropped ? VECDB_OK : status; /* the next round's view does not have it */
}

/* ------------------------------------------------------------------ a round */

static int count_records(struct renumbering *r, vecdb_error *err)
{
    struct vdb_connection *c;
    uint64_t sequence;
    int status = vdb_read_begin(r->collection->db->catalog, &c, &sequence, err);
    if (status)
        return status;
    status = vdb_store_count(c, r->to, &r->n_records, err);
    vdb_read_end(c);
    return status;
}

static int run_round(struct renumbering *r, vecdb_error *err)
{
    struct vdb_view *view, *before = r->view;
    uint64_t first = r->boundary, end;
    int status = take_view(r, &view, &end, err);
    if (status)
        return status;
    r->view = view;
    status = copy_records(r, end, err);
    if (!status && !r->has_index)
        status = vdb_commit(r->collection->db, apply_index, r, err);
    if (!status)
        status = bury(r, before, err);
    vdb_view_release(before);
    for (size_t f = 0; f < view->n_fields && !status; f++)
        status = copy_vectors(r, &view->fields[f], first, end, err);
    return status ? status : count_records(r, err);
}

/* ------------------------------------------------------------------ the last commit */

struct ending {
    struct renumbering *r;
    struct burial burial;
    bool is_too_much, has_other; /* another round is needed */
    bool is_done;
};

/* A change that came after the view. */
static int hear(void *context, const struct vdb_change *change)
{
    struct ending *ending = context;
    ending->has_other |= change->kind != VDB_CHANGE_ROWS;
    for (size_t i = 0; i < change->n_dead && !ending->burial.status; i++)
        if (change->dead[i] < ending->r->boundary)
            find_grave(&ending->burial, change->dead[i]);
    return ending->burial.status;
}

static bool note_nothing(void *context, uint32_t slot, size_t n_bytes)
{
    (void)slot;
    (void)n_bytes;
    ++*(uint64_t *)context;
    return true;
}

static bool is_too_much(const struct renumbering *r, const struct ending *ending, uint64_t n_new)
{
    unsigned doublings = r->round < PATIENT_ROUNDS ? 0 : r->round - PATIENT_ROUNDS;
    if (doublings > 30)
        doublings = 30;
    uint64_t n_bytes = 0;
    for (size_t f = 0; f < r->view->n_fields; f++)
        n_bytes += n_new * r->view->fields[f].vector_bytes;
    return n_new > (uint64_t)FINAL_ROWS << doublings || ending->burial.n > (uint64_t)FINAL_ROWS << doublings ||
           n_bytes > FINAL_BYTES << doublings;
}

static int compare_slots(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return left < right ? -1 : left > right;
}

/* What came since the view: its dead are buried, its records and tail rows keep their distances. */
static int take_over(struct ending *ending, struct vdb_connection *c, uint64_t next_slot, vecdb_error *err)
{
    struct renumbering *r = ending->r;
    uint64_t n_copied = 0, shift = r->boundary - r->next_slot, new_slot;
    if (ending->burial.n)
        qsort(ending->burial.slots, ending->burial.n, sizeof *ending->burial.slots, compare_slots);
    int status = bury_some(&ending->burial, c, SIZE_MAX, err);
    /* Slots of records that are gone again stay unused, so that tail rows need only be shifted. */
    for (uint64_t slot = r->boundary; slot < next_slot && !status; slot++) {
        bool is_done;
        new_slot = slot - shift;
        status = vdb_store_copy(c, r->from, r->to, (uint32_t)slot, (uint32_t)slot, &new_slot, note_nothing, &n_copied,
                                &is_done, err);
    }
    r->n_records += n_copied;
    for (size_t f = 0; f < r->view->n_fields && !status; f++)
        status = vdb_tail_shift(c, r->view->fields[f].row.id, shift, err);
    return status;
}

static int exchange_extents(struct renumbering *r, struct vdb_connection *c, vecdb_error *err)
{
    int status = VECDB_OK;
    for (size_t f = 0; f < r->view->n_fields && !status; f++) {
        const struct vdb_view_field *field = &r->view->fields[f];
        for (size_t i = 0; i < field->n_segments && !status; i++)
            status = vdb_extents_remove(c, field->segments[i]->id, err);
        struct renumber_field *to;
        if (!status)
            status = find_field(r, field->row.id, &to, err);
        for (size_t i = 0; !status && i < to->n_extents; i++) {
            status = vdb_extents_put(c, to->id, &to->extents[i], err);
            if (!status)
                status = vdb_field_set_generation(c, to->id, to->extents[i].generation, err);
        }
    }
    return status;
}

static int apply_ending(void *context, struct vdb_transaction *transaction, vecdb_error *err)
{
    struct ending *ending = context;
    struct renumbering *r = ending->r;
    struct vdb_connection *c = transaction->connection;
    struct vdb_collection_row row;
    bool is_complete = false;
    ending->burial.err = err;
    int status = read_collection(r, c, &row, err);
    if (!status)
        status = vdb_changes_read(c, row.id, r->sequence, &is_complete, hear, ending, err);
    if (status)
        return status;
    if (!is_complete || ending->has_other || row.schema_version != r->view->row.schema_version ||
        is_too_much(r, ending, row.next_slot - r->boundary))
        return VECDB_OK;
    if ((status = take_over(ending, c, row.next_slot, err)))
        return status;
    if (r->n_records != row.n_records)
        return vdb_fail(err, VECDB_CORRUPT,
                        "collection \"%s\" has %llu records, its count says %llu; it was not renumbered: check the "
                        "database", row.name, (unsigned long long)r->n_records, (unsigned long long)row.n_records);
    uint64_t next_slot = row.next_slot - (r->boundary - r->next_slot);
    struct vdb_change change = {.collection = row.id, .kind = VDB_CHANGE_SCHEMA};
    if ((status = exchange_extents(r, c, err)) ||
        (status = vdb_collection_set_store(c, row.id, r->to, next_slot, row.n_records, err)) ||
        (status = vdb_transaction_log(transaction, &change, err)))
        return status;
    ending->is_done = true;
    return VECDB_OK;
}

/* ------------------------------------------------------------------ all of it */

static int run(struct renumbering *r, vecdb_error *err)
{
    vecdb *db = r->collection->db;
    int status = vdb_commit(db, apply_begin, r, err);
    bool is_done = false;
    for (; !status && !is_done; r->round++) {
        struct ending ending = {.r = r, .burial = {.r = r, .err = err}};
        status = run_round(r, err);
        if (!status)
            status = vdb_commit(db, apply_ending, &ending, err);
        is_done = ending.is_done;
        vdb_free(&db->memory, ending.burial.slots);
    }
    return status;
}

int vdb_renumber(vecdb_collection *collection, struct vdb_stop *stop, vecdb_error *err)
{
    vecdb *db = collection->db;
    struct renumbering r = {.collection = collection, .stop = stop, .copied = vdb_slots_new()};
    int status = r.copied ? run(&r, err) : vdb_fail_memory(err, 64);
    uint64_t reached = r.view ? r.view->row.next_slot : 0;
    for (size_t f = 0; f < r.n_fields; f++)
        vdb_free(&db->memory, r.fields[f].extents);
    vdb_free(&db->memory, r.fields);
    vdb_view_release(r.view);
    vdb_slots_free(r.copied);
    atomic_store(&db->has_swept, false); /* one of the two stores is debris now */
    atomic_store(&collection->renumber_from, status ? reached + TRY_AGAIN_AFTER : 0);
    if (status)
        return status;
    vdb_database_log(db, VECDB_LOG_INFO, "%s: %llu records have new slots", db->path, (unsigned long long)r.n_records);
    status = vdb_append_sweep(db, err);
    atomic_store(&db->has_swept, !status);
    return status;
}

/* ------------------------------------------------------------------ a write without slots */

static int slots_left(vecdb_collection *collection, uint64_t n_slots, bool *enough, vecdb_error *err)
{
    struct vdb_view *view;
    uint64_t sequence;
    int status = vdb_view_acquire(collection, &view, NULL, &sequence, err);
    if (status)
        return status;
    *enough = n_slots <= UINT32_MAX - view->row.next_slot;
    vdb_view_release(view);
    return VECDB_OK;
}

int vdb_renumber_wait(vecdb_collection *collection, uint64_t n_slots, vecdb_error *err)
{
    vecdb *db = collection->db;
    struct vdb_stop stop;
    uint64_t until = vdb_now_ns() + WAIT_NS;
    bool enough = false;
    vdb_stop_init(&stop, db, 0);
    for (;;) {
        int status = vdb_stop_check(&stop, err);
        if (!status)
            status = vdb_append_begin(db, VDB_APPEND_WRITE_MS, err);
        bool is_ours = !status;
        if (status == VECDB_BUSY)
            status = VECDB_OK;
        if (!status)
            status = slots_left(collection, n_slots, &enough, err);
        if (is_ours) {
            if (!status && !enough)
                status = vdb_renumber(collection, &stop, err);
            vdb_append_end(db);
            return status;
        }
        if (status || enough)
            return status;
        if (vdb_now_ns() > until)
            return vdb_fail(err, VECDB_BUSY, "%s: the collection has no slots left, and another process has not found "
                            "the time to renumber it; try again later", db->path);
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
}
