/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/salvage_tables.c - which table each tree is, and its rows (see salvage.h)
 *
 * sqlite_schema says what each root is. Where its rows are lost, the rows of the tree itself tell: no two
 * tables of the catalog have the same columns.
 *
 *     columns (a rowid's column is NULL in the record)           table
 *     -, blob of 16, integer, ...                                database
 *     -, text, integer, integer, integer, integer, integer ...   collections
 *     -, integer, text, integer x 6                              fields
 *     -, integer x 9                                             extents
 *     -, text, integer, integer                                  snapshots
 *     -, integer or text, text or NULL, text or NULL             records of some store
 *     -, blob                                                    tail of some field
 *     integer, integer, blob (index)                             dead
 *
 * `stores` cannot be told from others, nor can indexes of keys; what they give is had elsewhere or done without.
 */
#include "salvage_parts.h"

#include <stdio.h>

#include "base/error.h"

#define STEP_EVERY 64u
#define MOST_STEPS_BACK 16u

/* ------------------------------------------------------------------ rows of a tree */

/* A page of rows: its newest image, its header, how far it is to be believed. Not `is_leaf`: it is lost, or of another
 * kind. */
struct loaded_leaf {
    bool is_leaf;
    enum vdb_trust trust;
    struct salvage_header header;
    unsigned char page[VDB_SALVAGE_PAGE];
};

static int load_leaf(struct vdb_salvage *s, uint32_t number, bool is_index, struct loaded_leaf *leaf, vecdb_error *err)
{
    leaf->is_leaf = false;
    int status = vdb_salvage_image(s, number, leaf->page, &leaf->trust, err);
    if (status || leaf->trust == VDB_TRUST_LOST || !vdb_salvage_header(leaf->page, number, &leaf->header))
        return status;
    int kind = leaf->header.kind;
    leaf->is_leaf = is_index ? kind != PAGE_LEAF_TABLE && kind != PAGE_INTERIOR_TABLE : kind == PAGE_LEAF_TABLE;
    return VECDB_OK;
}

/* One leaf, in order. Of a page whose rowids do not ascend, a cell that is out of place is passed. */
static int tell_leaf(struct vdb_salvage *s, uint32_t number, bool is_index, vdb_salvage_row_fn each, void *context,
                     vecdb_error *err)
{
    struct loaded_leaf leaf;
    int status = load_leaf(s, number, is_index, &leaf, err);
    if (status || !leaf.is_leaf)
        return status;
    const struct salvage_header *header = &leaf.header;
    uint64_t before = 0, next;
    bool is_first = true;
    for (uint32_t i = 0; i < header->n_cells && !status; i++) {
        struct vdb_salvage_row row = {.page = number, .is_doubtful = leaf.trust != VDB_TRUST_GOOD};
        bool is_sane;
        status = vdb_salvage_row_at(s, leaf.page, header, i, &row, &is_sane, err);
        if (status || !is_sane)
            continue;
        bool has_next = !is_index && i + 1 < header->n_cells && vdb_salvage_rowid(leaf.page, header, i + 1, &next);
        if (!is_index && ((!is_first && row.rowid <= before) || (has_next && row.rowid >= next)))
            continue;
        is_first = false;
        before = row.rowid;
        status = each(context, &row, err);
    }
    return status;
}

/* Where the rows of a leaf lie, by its first and last cells that can be read. */
struct span {
    uint64_t first, last;
    uint32_t page;
};

struct vdb_salvage_lookup {
    struct vdb_salvage *s;
    struct span *spans;
    size_t n_spans;
};

static int compare_spans(const void *a, const void *b)
{
    const struct span *left = a, *right = b;
    if (left->first != right->first)
        return left->first < right->first ? -1 : 1;
    return left->page < right->page ? -1 : left->page > right->page;
}

static int measure_leaf(struct vdb_salvage *s, uint32_t number, struct span *span, vecdb_error *err)
{
    struct loaded_leaf leaf;
    *span = (struct span){UINT64_MAX, 0, number};
    int status = load_leaf(s, number, false, &leaf, err);
    if (status || !leaf.is_leaf)
        return status;
    for (uint32_t i = 0; i < leaf.header.n_cells; i++) {
        uint64_t rowid;
        if (!vdb_salvage_rowid(leaf.page, &leaf.header, i, &rowid))
            continue;
        span->first = rowid < span->first ? rowid : span->first;
        span->last = rowid > span->last ? rowid : span->last;
    }
    return VECDB_OK;
}

int vdb_salvage_lookup_new(struct vdb_salvage *s, const struct vdb_salvage_table *table,
                           struct vdb_salvage_lookup **out, vecdb_error *err)
{
    size_t first, n;
    vdb_salvage_leaves_of(s, table->root, &first, &n);
    struct vdb_salvage_lookup *lookup = vdb_alloc_zero(s->memory, sizeof *lookup);
    struct span *spans = vdb_alloc_array(s->memory, n + 1, sizeof *spans);
    if (!lookup || !spans) {
        vdb_free(s->memory, lookup);
        vdb_free(s->memory, spans);
        return vdb_fail_memory(err, n * sizeof *spans);
    }
    *lookup = (struct vdb_salvage_lookup){.s = s, .spans = spans};
    int status = VECDB_OK;
    for (size_t i = 0; i < n && !status; i++) {
        struct span *span = &spans[lookup->n_spans];
        status = measure_leaf(s, s->leaves[first + i].page, span, err);
        lookup->n_spans += span->first <= span->last;
        if (!status && i % STEP_EVERY == 0)
            status = vdb_salvage_step(s, err);
    }
    if (status) {
        vdb_salvage_lookup_free(lookup);
        return status;
    }
    if (lookup->n_spans)
        qsort(spans, lookup->n_spans, sizeof *spans, compare_spans);
    *out = lookup;
    return VECDB_OK;
}

void vdb_salvage_lookup_free(struct vdb_salvage_lookup *lookup)
{
    if (!lookup)
        return;
    vdb_free(lookup->s->memory, lookup->spans);
    vdb_free(lookup->s->memory, lookup);
}

/* The cell of a rowid in a leaf. */
static int find_in_leaf(struct vdb_salvage *s, uint32_t number, uint64_t rowid, vdb_salvage_row_fn each, void *context,
                        bool *found, vecdb_error *err)
{
    struct loaded_leaf leaf;
    int status = load_leaf(s, number, false, &leaf, err);
    if (status || !leaf.is_leaf)
        return status;
    for (uint32_t i = 0; i < leaf.header.n_cells && !status && !*found; i++) {
        struct vdb_salvage_row row = {.page = number, .is_doubtful = leaf.trust != VDB_TRUST_GOOD};
        uint64_t own;
        if (!vdb_salvage_rowid(leaf.page, &leaf.header, i, &own) || own != rowid)
            continue;
        status = vdb_salvage_row_at(s, leaf.page, &leaf.header, i, &row, found, err);
        if (!status && *found)
            status = each(context, &row, err);
    }
    return status;
}

/* The last leaf that begins at or before the row; and, should leaves overlap, a few before it. */
int vdb_salvage_lookup_row(struct vdb_salvage_lookup *lookup, uint64_t rowid, vdb_salvage_row_fn each, void *context,
                           vecdb_error *err)
{
    size_t low = 0, high = lookup->n_spans;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (lookup->spans[middle].first <= rowid)
            low = middle + 1;
        else
            high = middle;
    }
    int status = VECDB_OK;
    bool found = false;
    for (size_t i = low, n = 0; i-- > 0 && n < MOST_STEPS_BACK && !found && !status; n++)
        if (lookup->spans[i].last >= rowid)
            status = find_in_leaf(lookup->s, lookup->spans[i].page, rowid, each, context, &found, err);
    return status;
}

int vdb_salvage_rows(struct vdb_salvage *s, const struct vdb_salvage_table *table, vdb_salvage_row_fn each,
                     void *context, vecdb_error *err)
{
    struct vdb_salvage_lookup *lookup = NULL;
    size_t first, n;
    int status = VECDB_OK;
    if (table->is_index) {
        vdb_salvage_leaves_of(s, table->root, &first, &n);
        for (size_t i = 0; i < n && !status; i++) {
            status = tell_leaf(s, s->leaves[first + i].page, true, each, context, err);
            if (!status && i % STEP_EVERY == 0)
                status = vdb_salvage_step(s, err);
        }
        return status;
    }
    status = vdb_salvage_lookup_new(s, table, &lookup, err);
    for (size_t i = 0; !status && i < lookup->n_spans; i++) {
        status = tell_leaf(s, lookup->spans[i].page, false, each, context, err);
        if (!status && i % STEP_EVERY == 0)
            status = vdb_salvage_step(s, err);
    }
    vdb_salvage_lookup_free(lookup);
    return status;
}

/* ------------------------------------------------------------------ the list of tables */

size_t vdb_salvage_n_tables(const struct vdb_salvage *s)
{
    return s->n_tables;
}

const struct vdb_salvage_table *vdb_salvage_table(const struct vdb_salvage *s, size_t i)
{
    return &s->tables[i];
}

const struct vdb_salvage_table *vdb_salvage_find(const struct vdb_salvage *s, enum vdb_table_kind kind, uint64_t number)
{
    for (size_t i = 0; i < s->n_tables; i++)
        if (s->tables[i].kind == kind && s->tables[i].number == number)
            return &s->tables[i];
    return NULL;
}

static struct vdb_salvage_table *find_root(struct vdb_salvage *s, uint32_t root)
{
    for (size_t i = 0; i < s->n_tables; i++)
        if (s->tables[i].root == root)
            return &s->tables[i];
    return NULL;
}

static int add_table(struct vdb_salvage *s, const struct vdb_salvage_table *table, vecdb_error *err)
{
    if (s->n_tables == s->tables_capacity) {
        size_t capacity = s->tables_capacity ? 2 * s->tables_capacity : 32;
        struct vdb_salvage_table *more = vdb_realloc_array(s->memory, s->tables, capacity, sizeof *more);
        if (!more)
            return vdb_fail_memory(err, capacity * sizeof *more);
        s->tables = more;
        s->tables_capacity = capacity;
    }
    s->tables[s->n_tables++] = *table;
    return VECDB_OK;
}

/* ------------------------------------------------------------------ names */

struct name {
    const char *format; /* with %llu, a number */
    enum vdb_table_kind kind;
    bool is_index;
};

static const struct name names[] = {
    {"database", VDB_TABLE_DATABASE, false},
    {"collections", VDB_TABLE_COLLECTIONS, false},
    {"sqlite_autoindex_collections_1", VDB_TABLE_COLLECTIONS_NAMES, true},
    {"fields", VDB_TABLE_FIELDS, false},
    {"sqlite_autoindex_fields_1", VDB_TABLE_FIELDS_NAMES, true},
    {"extents", VDB_TABLE_EXTENTS, false},
    {"stores", VDB_TABLE_STORES, false},
    {"snapshots", VDB_TABLE_SNAPSHOTS, false},
    {"dead", VDB_TABLE_DEAD, true},
    {"records_%llu", VDB_TABLE_RECORDS, false},
    {"keys_%llu", VDB_TABLE_RECORDS_KEYS, true},
    {"tail_%llu", VDB_TABLE_TAIL, false},
};

/* Does a name fit "before%llubehind"? */
static bool match(const char *format, const char *text, uint64_t *number)
{
    *number = 0;
    for (; *format; format++) {
        if (*format == '%') {
            const char *digits = text;
            while (*text >= '0' && *text <= '9' && text - digits < 19)
                *number = *number * 10 + (uint64_t)(*text++ - '0');
            if (text == digits || *digits == '0')
                return false;
            format += 3; /* to the 'u' */
        } else if (*text++ != *format) {
            return false;
        }
    }
    return !*text;
}

static void name_table(struct vdb_salvage_table *table, const char *text, bool is_index)
{
    table->kind = VDB_TABLE_OTHER;
    table->is_index = is_index;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        uint64_t number;
        if (!match(names[i].format, text, &number))
            continue;
        table->kind = names[i].kind;
        table->number = number;
        table->is_index = names[i].is_index;
    }
}

struct schema {
    struct vdb_salvage *s;
};

static int read_schema_row(void *context, const struct vdb_salvage_row *row, vecdb_error *err)
{
    struct vdb_salvage *s = ((struct schema *)context)->s;
    const struct vdb_value *type = &row->values[0], *name = &row->values[1], *root = &row->values[3];
    if (row->n_values != 5 || type->kind != VDB_VALUE_TEXT || name->kind != VDB_VALUE_TEXT ||
        root->kind != VDB_VALUE_INTEGER || root->integer < 3 || root->integer > s->report.n_pages || name->n_bytes > 80)
        return VECDB_OK;
    struct vdb_salvage_table table = {.root = (uint32_t)root->integer};
    uint32_t owner = s->owners[table.root];
    char text[96];
    memcpy(text, name->bytes, name->n_bytes);
    text[name->n_bytes] = '\0';
    bool is_index = type->n_bytes == 5 && !memcmp(type->bytes, "index", 5);
    if (find_root(s, table.root) || (owner != table.root && owner != OWNER_UNKNOWN))
        return VECDB_OK;
    name_table(&table, text, is_index);
    if (table.kind != VDB_TABLE_OTHER && vdb_salvage_find(s, table.kind, table.number))
        return VECDB_OK;
    return add_table(s, &table, err);
}

int vdb_salvage_read_schema(struct vdb_salvage *s, vecdb_error *err)
{
    struct vdb_salvage_table schema = {.root = SCHEMA_ROOT, .kind = VDB_TABLE_SCHEMA};
    struct schema context = {s};
    if (!find_root(s, SCHEMA_ROOT)) {
        int status = add_table(s, &schema, err);
        if (status)
            return status;
    }
    return vdb_salvage_rows(s, &schema, read_schema_row, &context, err);
}

/* ------------------------------------------------------------------ shapes */

static bool are_kind(const struct vdb_salvage_row *row, uint32_t first, uint32_t n, enum vdb_value_kind kind)
{
    for (uint32_t i = first; i < first + n; i++)
        if (i >= row->n_values || row->values[i].kind != kind)
            return false;
    return true;
}

static bool may_be_text(const struct vdb_value *value)
{
    return value->kind == VDB_VALUE_TEXT || value->kind == VDB_VALUE_NULL || value->kind == VDB_VALUE_LOST;
}

static enum vdb_table_kind shape_of(const struct vdb_salvage_row *row, bool is_index)
{
    const struct vdb_value *v = row->values;
    uint32_t n = row->n_values;
    if (is_index)
        return n == 3 && are_kind(row, 0, 2, VDB_VALUE_INTEGER) && v[2].kind == VDB_VALUE_BLOB ? VDB_TABLE_DEAD
                                                                                               : VDB_TABLE_UNKNOWN;
    if (!n || v[0].kind != VDB_VALUE_NULL)
        return VDB_TABLE_UNKNOWN;
    if (n >= 3 && v[1].kind == VDB_VALUE_BLOB && v[1].n_bytes == 16 && are_kind(row, 2, 1, VDB_VALUE_INTEGER))
        return VDB_TABLE_DATABASE;
    if (n == 2 && v[1].kind == VDB_VALUE_BLOB)
        return VDB_TABLE_TAIL;
    if (n >= 7 && v[1].kind == VDB_VALUE_TEXT && are_kind(row, 2, 5, VDB_VALUE_INTEGER))
        return VDB_TABLE_COLLECTIONS;
    if (n >= 9 && v[1].kind == VDB_VALUE_INTEGER && v[2].kind == VDB_VALUE_TEXT &&
        are_kind(row, 3, 6, VDB_VALUE_INTEGER))
        return VDB_TABLE_FIELDS;
    if (n >= 10 && are_kind(row, 1, 9, VDB_VALUE_INTEGER))
        return VDB_TABLE_EXTENTS;
    if (n == 4 && v[1].kind == VDB_VALUE_TEXT && are_kind(row, 2, 2, VDB_VALUE_INTEGER))
        return VDB_TABLE_SNAPSHOTS;
    if (n == 4 && (v[1].kind == VDB_VALUE_TEXT || v[1].kind == VDB_VALUE_INTEGER) && may_be_text(&v[2]) &&
        may_be_text(&v[3]))
        return VDB_TABLE_RECORDS;
    return VDB_TABLE_UNKNOWN;
}

struct guess {
    struct vdb_salvage_table *table;
};

static int guess_row(void *context, const struct vdb_salvage_row *row, vecdb_error *err)
{
    (void)err;
    struct vdb_salvage_table *table = ((struct guess *)context)->table;
    enum vdb_table_kind kind = shape_of(row, table->is_index);
    if (kind == VDB_TABLE_UNKNOWN || (table->n_guessed && kind != table->kind))
        return VECDB_OK;
    table->kind = kind;
    table->n_guessed++;
    if (row->rowid > table->last_slot)
        table->last_slot = row->rowid;
    if (kind == VDB_TABLE_TAIL)
        table->row_bytes = row->values[1].n_bytes;
    return VECDB_OK;
}

static int guess_table(struct vdb_salvage *s, struct vdb_salvage_table *table, vecdb_error *err)
{
    unsigned char page[VDB_SALVAGE_PAGE];
    struct salvage_header header;
    enum vdb_trust trust;
    struct guess guess = {table};
    size_t first, n;
    vdb_salvage_leaves_of(s, table->root, &first, &n);
    for (size_t i = 0; i < n; i++) {
        int status = vdb_salvage_image(s, s->leaves[first + i].page, page, &trust, err);
        if (status)
            return status;
        if (trust == VDB_TRUST_LOST || !vdb_salvage_header(page, s->leaves[first + i].page, &header))
            continue;
        table->is_index = header.kind != PAGE_LEAF_TABLE;
        break;
    }
    return vdb_salvage_rows(s, table, guess_row, &guess, err);
}

/* ------------------------------------------------------------------ leaves without an owner */

static int find_only(struct vdb_salvage *s, enum vdb_table_kind kind, uint32_t *owner)
{
    *owner = OWNER_UNKNOWN;
    for (size_t i = 0; i < s->n_tables; i++) {
        if (s->tables[i].kind != kind)
            continue;
        if (*owner != OWNER_UNKNOWN)
            return VECDB_NOT_FOUND;
        *owner = s->tables[i].root;
    }
    return *owner != OWNER_UNKNOWN ? VECDB_OK : VECDB_NOT_FOUND;
}

/* A leaf that no map and no parent names belongs to the only table of its shape; with two it stays alone. */
static int place_orphans(struct vdb_salvage *s, vecdb_error *err)
{
    size_t first, n;
    bool any = false;
    vdb_salvage_leaves_of(s, OWNER_UNKNOWN, &first, &n);
    for (size_t i = first; s->knows_free && i < first + n; i++) {
        struct vdb_salvage_table table = {.kind = VDB_TABLE_UNKNOWN};
        struct guess guess = {&table};
        uint32_t owner, number = s->leaves[i].page;
        int status = tell_leaf(s, number, false, guess_row, &guess, err);
        if (!status && table.kind == VDB_TABLE_UNKNOWN) {
            table.is_index = true;
            status = tell_leaf(s, number, true, guess_row, &guess, err);
        }
        if (status)
            return status;
        if (table.kind == VDB_TABLE_UNKNOWN || find_only(s, table.kind, &owner))
            continue;
        s->owners[number] = owner;
        any = true;
    }
    return any ? vdb_salvage_sort_leaves(s, err) : VECDB_OK;
}

int vdb_salvage_name_tables(struct vdb_salvage *s, vecdb_error *err)
{
    int status = VECDB_OK;
    uint32_t before = OWNER_UNKNOWN;
    for (size_t i = 0; i < s->n_leaves && !status; i++) {
        uint32_t owner = s->leaves[i].owner;
        if (owner == before || owner == OWNER_UNKNOWN || owner >= OWNER_OTHER || find_root(s, owner))
            continue;
        before = owner;
        struct vdb_salvage_table table = {.root = owner};
        status = guess_table(s, &table, err);
        if (!status)
            status = add_table(s, &table, err);
    }
    if (!status)
        status = place_orphans(s, err);
    for (size_t i = 0; i < s->n_tables && !status; i++) {
        size_t first, n;
        vdb_salvage_leaves_of(s, s->tables[i].root, &first, &n);
        s->tables[i].n_leaves = (uint32_t)n;
    }
    for (size_t i = 0; i < s->n_bad && !status; i++) {
        uint32_t owner = s->owners[s->bad[i]];
        struct vdb_salvage_table *table = owner != OWNER_UNKNOWN ? find_root(s, owner) : NULL;
        if (table)
            table->n_bad++;
        else
            s->report.n_unplaced++;
    }
    return status;
}

/* ------------------------------------------------------------------ open and close */

int vdb_salvage_open(const struct vdb_salvage_options *options, struct vdb_salvage **out, vecdb_error *err)
{
    struct vdb_salvage *s = vdb_alloc_zero(options->memory, sizeof *s);
    if (!s)
        return vdb_fail_memory(err, sizeof *s);
    s->options = *options;
    s->memory = options->memory;
    s->vfs = options->vfs;
    int status = vdb_salvage_open_files(s, err);
    if (!status)
        status = vdb_salvage_read_wal(s, err);
    if (!status)
        status = vdb_salvage_find_owners(s, err);
    if (!status)
        status = vdb_salvage_name_tables(s, err);
    if (status) {
        vdb_salvage_close(s);
        return status;
    }
    *out = s;
    return VECDB_OK;
}

void vdb_salvage_close(struct vdb_salvage *s)
{
    if (!s)
        return;
    s->vfs->close(s->main);
    s->vfs->close(s->wal);
    vdb_free(s->memory, s->frames);
    vdb_free(s->memory, s->owners);
    vdb_free(s->memory, s->leaves);
    vdb_free(s->memory, s->tables);
    vdb_free(s->memory, s->bad);
    vdb_free(s->memory, s->payload);
    vdb_free(s->memory, s);
}

const struct vdb_salvage_report *vdb_salvage_get_report(const struct vdb_salvage *s)
{
    return &s->report;
}
