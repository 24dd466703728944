/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/salvage_trees.c - to which tree each page of a catalog belongs (see salvage.h)
 *
 *     pointer map, upwards:     leaf -> parent -> parent -> root          every page by itself
 *     interior pages, down:     root -> child -> leaf                     where a page of the map is damaged
 *
 * The pointer map is asked first: it has five bytes for every page, {kind, parent}, in pages of their own, and so
 * gives a leaf its tree though all interior pages above it are gone. Entries of a damaged page of the map are not
 * believed; pages that such a one describes get their owner from interior pages, of roots that sqlite_schema
 * names. What has no owner then is told by the shape of its rows (salvage_tables.c), if there is only one tree
 * that it can be of.
 *
 * Free pages hold old rows and must be told apart: by the map, or by the list of free pages that begins on page 1.
 * A page without an owner counts as free unless that list could be read to its end.
 */
#include "salvage_parts.h"

#include "base/error.h"

#define DEEPEST 40 /* SQLite's own limit is 20 levels */
#define STEP_EVERY 256u

static bool has_rows(int kind)
{
    return kind == PAGE_LEAF_TABLE || kind == PAGE_LEAF_INDEX || kind == PAGE_INTERIOR_INDEX;
}

static bool is_root(uint32_t owner)
{
    return owner != OWNER_UNKNOWN && owner < OWNER_OTHER;
}

/* ------------------------------------------------------------------ the list of free pages */

static int mark_trunk(struct vdb_salvage *s, const unsigned char *page, uint32_t *n_left)
{
    uint32_t n = vdb_salvage_u32(page + 4);
    if (n > USABLE_BYTES / 4 - 2)
        return VECDB_CORRUPT;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t number = vdb_salvage_u32(page + 8 + 4 * i);
        if (number < 3 || number > s->report.n_pages)
            return VECDB_CORRUPT;
        s->owners[number] = OWNER_FREE;
    }
    *n_left = *n_left > n ? *n_left - n - 1 : 0;
    return VECDB_OK;
}

static int mark_free_pages(struct vdb_salvage *s, vecdb_error *err)
{
    unsigned char page[VDB_SALVAGE_PAGE];
    enum vdb_trust trust;
    int status = vdb_salvage_image(s, 1, page, &trust, err);
    if (status || trust != VDB_TRUST_GOOD)
        return status;
    s->report.format_version = vdb_salvage_u32(page + 60);
    s->report.application_id = vdb_salvage_u32(page + 68);
    uint32_t trunk = vdb_salvage_u32(page + 32), n_left = vdb_salvage_u32(page + 36);
    while (trunk && n_left) {
        if (trunk < 3 || trunk > s->report.n_pages || s->owners[trunk] == OWNER_FREE)
            return VECDB_OK;
        status = vdb_salvage_image(s, trunk, page, &trust, err);
        if (status || trust != VDB_TRUST_GOOD || mark_trunk(s, page, &n_left))
            return status;
        s->owners[trunk] = OWNER_FREE;
        trunk = vdb_salvage_u32(page);
    }
    s->knows_free = !trunk;
    return VECDB_OK;
}

/* ------------------------------------------------------------------ upwards */

/* The owner of a page as the pointer map tells it, UNKNOWN where that is not readable. */
static int climb(struct vdb_salvage *s, uint32_t number, uint32_t *owner, vecdb_error *err)
{
    uint32_t at = number;
    *owner = number == SCHEMA_ROOT ? SCHEMA_ROOT : OWNER_UNKNOWN;
    for (int depth = 0; depth < DEEPEST && *owner == OWNER_UNKNOWN; depth++) {
        struct salvage_pointer pointer;
        bool is_known;
        int status = vdb_salvage_pointer(s, at, &pointer, &is_known, err);
        if (status || !is_known)
            return status;
        if (pointer.kind == POINTER_ROOT) {
            *owner = at;
        } else if (pointer.kind == POINTER_TREE) {
            if (!pointer.parent || pointer.parent > s->report.n_pages || pointer.parent == at)
                return VECDB_OK;
            at = pointer.parent;
            uint32_t known = at == SCHEMA_ROOT ? SCHEMA_ROOT : s->owners[at];
            *owner = is_root(known) ? known : OWNER_UNKNOWN;
        } else {
            if (at == number)
                *owner = pointer.kind == POINTER_FREE ? OWNER_FREE : OWNER_OTHER;
            return VECDB_OK;
        }
    }
    return VECDB_OK;
}

static int add_leaf(struct vdb_salvage *s, uint32_t number, vecdb_error *err)
{
    if (s->n_leaves == s->leaves_capacity) {
        size_t capacity = s->leaves_capacity ? 2 * s->leaves_capacity : 256;
        struct salvage_leaf *more = vdb_realloc_array(s->memory, s->leaves, capacity, sizeof *more);
        if (!more)
            return vdb_fail_memory(err, capacity * sizeof *more);
        s->leaves = more;
        s->leaves_capacity = capacity;
    }
    s->leaves[s->n_leaves++] = (struct salvage_leaf){OWNER_UNKNOWN, number};
    return VECDB_OK;
}

static void count_bad(struct vdb_salvage *s, uint32_t number, uint32_t *counter)
{
    ++*counter;
    if (!s->report.first_bad_page)
        s->report.first_bad_page = number;
}

static int note_bad(struct vdb_salvage *s, uint32_t number, vecdb_error *err)
{
    if (s->n_bad == s->bad_capacity) {
        size_t capacity = s->bad_capacity ? 2 * s->bad_capacity : 64;
        uint32_t *more = vdb_realloc_array(s->memory, s->bad, capacity, sizeof *more);
        if (!more)
            return vdb_fail_memory(err, capacity * sizeof *more);
        s->bad = more;
        s->bad_capacity = capacity;
    }
    s->bad[s->n_bad++] = number;
    return VECDB_OK;
}

/* Look at one page: is it whole, whose is it, has it rows? */
static int look_at_page(struct vdb_salvage *s, uint32_t number, vecdb_error *err)
{
    unsigned char page[VDB_SALVAGE_PAGE];
    enum vdb_trust trust;
    if (number == LOCK_PAGE_NUMBER) {
        s->owners[number] = OWNER_OTHER;
        return VECDB_OK;
    }
    int status = vdb_salvage_image(s, number, page, &trust, err);
    if (status)
        return status;
    if (vdb_salvage_is_map(number)) {
        s->owners[number] = OWNER_OTHER;
        if (trust != VDB_TRUST_GOOD)
            count_bad(s, number, &s->report.n_derived);
        return VECDB_OK;
    }
    if (s->owners[number] == OWNER_UNKNOWN && (status = climb(s, number, &s->owners[number], err)))
        return status;
    struct salvage_header header;
    uint32_t owner = s->owners[number];
    bool is_tree = trust != VDB_TRUST_LOST && vdb_salvage_header(page, number, &header);
    if (trust != VDB_TRUST_GOOD && owner == OWNER_FREE)
        count_bad(s, number, &s->report.n_derived);
    else if (trust == VDB_TRUST_LOST || (!is_tree && is_root(owner)))
        count_bad(s, number, &s->report.n_lost);
    else if (trust == VDB_TRUST_DOUBTFUL)
        count_bad(s, number, &s->report.n_doubtful);
    bool is_bad = trust != VDB_TRUST_GOOD || (!is_tree && is_root(owner));
    if (is_bad && owner != OWNER_FREE && owner != OWNER_OTHER && (status = note_bad(s, number, err)))
        return status;
    if (is_tree && owner != OWNER_FREE && owner != OWNER_OTHER && has_rows(header.kind))
        return add_leaf(s, number, err);
    return VECDB_OK;
}

/* ------------------------------------------------------------------ down */

struct descent {
    struct vdb_salvage *s;
    uint32_t *pages; /* interior pages with an owner, whose children were not looked at */
    size_t n, capacity;
};

static int push(struct descent *descent, uint32_t number, vecdb_error *err)
{
    if (descent->n == descent->capacity) {
        size_t capacity = descent->capacity ? 2 * descent->capacity : 256;
        uint32_t *more = vdb_realloc_array(descent->s->memory, descent->pages, capacity, sizeof *more);
        if (!more)
            return vdb_fail_memory(err, capacity * sizeof *more);
        descent->pages = more;
        descent->capacity = capacity;
    }
    descent->pages[descent->n++] = number;
    return VECDB_OK;
}

/* A child without an owner gets its parent's; of a doubtful parent only what the map does not contradict. */
static int adopt(struct descent *descent, uint32_t child, uint32_t parent, bool is_doubtful, vecdb_error *err)
{
    struct vdb_salvage *s = descent->s;
    struct salvage_pointer pointer;
    bool is_known;
    if (child < 3 || child > s->report.n_pages || s->owners[child] != OWNER_UNKNOWN)
        return VECDB_OK;
    int status = vdb_salvage_pointer(s, child, &pointer, &is_known, err);
    if (status || (is_known && (pointer.kind != POINTER_TREE || pointer.parent != parent)))
        return status;
    if (is_doubtful && !is_known && !s->knows_free)
        return VECDB_OK;
    s->owners[child] = s->owners[parent];
    return push(descent, child, err);
}

static int descend(struct descent *descent, vecdb_error *err)
{
    struct vdb_salvage *s = descent->s;
    unsigned char page[VDB_SALVAGE_PAGE];
    int status = VECDB_OK;
    for (uint32_t n = 0; descent->n && !status; n++) {
        uint32_t number = descent->pages[--descent->n];
        struct salvage_header header;
        enum vdb_trust trust;
        if (n % STEP_EVERY == 0 && (status = vdb_salvage_step(s, err)))
            break;
        status = vdb_salvage_image(s, number, page, &trust, err);
        if (status || trust == VDB_TRUST_LOST || !vdb_salvage_header(page, number, &header) ||
            (header.kind != PAGE_INTERIOR_TABLE && header.kind != PAGE_INTERIOR_INDEX))
            continue;
        bool is_doubtful = trust != VDB_TRUST_GOOD;
        for (uint32_t i = 0; i < header.n_cells && !status; i++)
            status = adopt(descent, vdb_salvage_child(page, &header, i), number, is_doubtful, err);
        if (!status)
            status = adopt(descent, header.right_child, number, is_doubtful, err);
    }
    return status;
}

static bool any_unknown(const struct vdb_salvage *s)
{
    for (uint32_t number = 1; number <= s->report.n_pages; number++)
        if (s->owners[number] == OWNER_UNKNOWN)
            return true;
    return false;
}

/* From every page that has an owner, then from the roots of tables that were only named. */
static int go_down(struct vdb_salvage *s, vecdb_error *err)
{
    struct descent descent = {.s = s};
    int status = VECDB_OK;
    for (uint32_t number = 1; number <= s->report.n_pages && !status; number++)
        if (is_root(s->owners[number]))
            status = push(&descent, number, err);
    if (!status)
        status = descend(&descent, err);
    if (!status)
        status = vdb_salvage_sort_leaves(s, err);
    if (!status)
        status = vdb_salvage_read_schema(s, err);
    for (size_t i = 0; i < s->n_tables && !status; i++) {
        uint32_t root = s->tables[i].root;
        if (s->owners[root] != OWNER_UNKNOWN)
            continue;
        s->owners[root] = root;
        status = push(&descent, root, err);
    }
    if (!status)
        status = descend(&descent, err);
    vdb_free(s->memory, descent.pages);
    return status;
}

/* ------------------------------------------------------------------ all pages */

static int compare_leaves(const void *a, const void *b)
{
    const struct salvage_leaf *left = a, *right = b;
    if (left->owner != right->owner)
        return left->owner < right->owner ? -1 : 1;
    return left->page < right->page ? -1 : left->page > right->page;
}

int vdb_salvage_sort_leaves(struct vdb_salvage *s, vecdb_error *err)
{
    (void)err;
    for (size_t i = 0; i < s->n_leaves; i++)
        s->leaves[i].owner = s->owners[s->leaves[i].page];
    if (s->n_leaves)
        qsort(s->leaves, s->n_leaves, sizeof *s->leaves, compare_leaves);
    return VECDB_OK;
}

void vdb_salvage_leaves_of(const struct vdb_salvage *s, uint32_t owner, size_t *first, size_t *n)
{
    size_t low = 0, high = s->n_leaves;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (s->leaves[middle].owner < owner)
            low = middle + 1;
        else
            high = middle;
    }
    *first = low;
    while (low < s->n_leaves && s->leaves[low].owner == owner)
        low++;
    *n = low - *first;
}

int vdb_salvage_find_owners(struct vdb_salvage *s, vecdb_error *err)
{
    uint32_t n_pages = s->report.n_pages;
    s->owners = vdb_alloc_array(s->memory, (size_t)n_pages + 1, sizeof *s->owners);
    if (!s->owners)
        return vdb_fail_memory(err, (size_t)n_pages * sizeof *s->owners);
    memset(s->owners, 0, ((size_t)n_pages + 1) * sizeof *s->owners);
    if (!n_pages)
        return VECDB_OK;
    int status = mark_free_pages(s, err);
    s->owners[SCHEMA_ROOT] = SCHEMA_ROOT;
    for (uint32_t number = 1; number <= n_pages && !status; number++) {
        status = look_at_page(s, number, err);
        if (!status && number % STEP_EVERY == 0)
            status = vdb_salvage_step(s, err);
    }
    if (!status)
        status = vdb_salvage_sort_leaves(s, err);
    if (!status)
        status = vdb_salvage_read_schema(s, err);
    if (!status && any_unknown(s))
        status = go_down(s, err);
    if (!status)
        status = vdb_salvage_sort_leaves(s, err);
    return status;
}
