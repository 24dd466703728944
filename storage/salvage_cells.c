/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/salvage_cells.c - the cells of one b-tree page of a catalog (see salvage.h)
 *
 * The format is SQLite's ("B-tree Pages", "Record Format" in its file format document), all numbers big-endian:
 *
 *     page    | kind, first free block, cells, content, fragments | right child | pointers ... | free | cells |
 *               1     2                 2      2        1           4 (interior)  2 each
 *     cell    table leaf       payload bytes, rowid, payload, overflow page
 *             index            (child,) payload bytes, payload, overflow page
 *             table interior   child, rowid
 *     payload | header bytes, type, type, ... | value | value | ...
 *
 * Numbers of one to nine bytes ("varints") carry seven bits a byte, the ninth all eight. Of a long payload a part
 * lies in the page, as much as the format's arithmetic says, and the rest in a chain of overflow pages, each
 * beginning with the number of the next.
 *
 * Nothing here believes a number before it was compared with the bytes there are. A page of the chain is taken
 * when it is good and the pointer map does not contradict, or doubtful and the pointer map confirms that it
 * follows the page before; otherwise the chain ends, and the values behind are LOST. So a record whose text is
 * gone still gives its key.
 */
#include "salvage_parts.h"

#include "base/error.h"

#define MOST_CELLS (USABLE_BYTES / 4)
#define OVERFLOW_BYTES (USABLE_BYTES - 4)
#define LEAST_LOCAL ((USABLE_BYTES - 12) * 32 / 255 - 23)
#define MOST_LOCAL_TABLE (USABLE_BYTES - 35)
#define MOST_LOCAL_INDEX ((USABLE_BYTES - 12) * 64 / 255 - 23)

/* Bytes of a page, read from front to back. */
struct cursor {
    const unsigned char *at, *end;
    bool failed;
};

static uint64_t read_varint(struct cursor *cursor)
{
    uint64_t value = 0;
    for (int i = 0; i < 9; i++) {
        if (cursor->at >= cursor->end) {
            cursor->failed = true;
            return 0;
        }
        unsigned char byte = *cursor->at++;
        if (i == 8)
            return value << 8 | byte;
        value = value << 7 | (byte & 0x7f);
        if (!(byte & 0x80))
            return value;
    }
    return value;
}

static uint32_t load_u16(const unsigned char *at)
{
    return (uint32_t)at[0] << 8 | at[1];
}

/* ------------------------------------------------------------------ pages */

bool vdb_salvage_header(const unsigned char *page, uint32_t number, struct salvage_header *header)
{
    *header = (struct salvage_header){.at = number == 1 ? 100 : 0};
    const unsigned char *at = page + header->at;
    header->kind = at[0];
    header->n_cells = load_u16(at + 3);
    bool is_interior = header->kind == PAGE_INTERIOR_INDEX || header->kind == PAGE_INTERIOR_TABLE;
    if (!is_interior && header->kind != PAGE_LEAF_INDEX && header->kind != PAGE_LEAF_TABLE)
        return false;
    header->cells_at = header->at + (is_interior ? 12 : 8);
    header->right_child = is_interior ? vdb_salvage_u32(at + 8) : 0;
    uint32_t content = load_u16(at + 5);
    return header->n_cells <= MOST_CELLS && header->cells_at + 2 * header->n_cells <= USABLE_BYTES &&
           content >= header->cells_at + 2 * header->n_cells && content <= USABLE_BYTES && at[7] <= 60;
}

/* From where cell i begins. */
static struct cursor cell_at(const unsigned char *page, const struct salvage_header *header, uint32_t i)
{
    uint32_t at = load_u16(page + header->cells_at + 2 * i);
    bool is_inside = at >= header->cells_at + 2 * header->n_cells && at < USABLE_BYTES;
    return (struct cursor){page + (is_inside ? at : 0), page + USABLE_BYTES, !is_inside};
}

uint32_t vdb_salvage_child(const unsigned char *page, const struct salvage_header *header, uint32_t i)
{
    struct cursor cursor = cell_at(page, header, i);
    return cursor.failed || cursor.end - cursor.at < 5 ? 0 : vdb_salvage_u32(cursor.at);
}

bool vdb_salvage_rowid(const unsigned char *page, const struct salvage_header *header, uint32_t i, uint64_t *rowid)
{
    struct cursor cursor = cell_at(page, header, i);
    if (!cursor.failed)
        read_varint(&cursor);
    *rowid = cursor.failed ? 0 : read_varint(&cursor);
    return !cursor.failed;
}

/* ------------------------------------------------------------------ payloads */

struct payload {
    const unsigned char *bytes;
    uint64_t n_bytes;   /* that it has */
    size_t n_available; /* of these, that could be read */
    bool is_doubtful;
};

/* Bytes of a payload that lie in the cell. */
static uint32_t local_bytes(uint64_t n_bytes, bool is_index)
{
    uint32_t most = is_index ? MOST_LOCAL_INDEX : MOST_LOCAL_TABLE;
    if (n_bytes <= most)
        return (uint32_t)n_bytes;
    uint32_t local = LEAST_LOCAL + (uint32_t)((n_bytes - LEAST_LOCAL) % OVERFLOW_BYTES);
    return local <= most ? local : LEAST_LOCAL;
}

static int append(struct vdb_salvage *s, size_t used, const unsigned char *bytes, size_t n_bytes, vecdb_error *err)
{
    if (used + n_bytes > s->payload_capacity) {
        size_t capacity = 2 * s->payload_capacity + 4 * VDB_SALVAGE_PAGE;
        unsigned char *more = vdb_realloc(s->memory, s->payload, capacity);
        if (!more)
            return vdb_fail_memory(err, capacity);
        s->payload = more;
        s->payload_capacity = capacity;
    }
    memcpy(s->payload + used, bytes, n_bytes);
    return VECDB_OK;
}

/* One page of a chain; `is_sane` false: the chain ends here. */
static int read_overflow(struct vdb_salvage *s, uint32_t number, uint32_t before, bool is_first,
                         unsigned char page[VDB_SALVAGE_PAGE], bool *is_sane, bool *is_doubtful, vecdb_error *err)
{
    struct salvage_pointer pointer;
    enum vdb_trust trust;
    bool is_known;
    *is_sane = false;
    if (number < 3 || number > s->report.n_pages)
        return VECDB_OK;
    int status = vdb_salvage_pointer(s, number, &pointer, &is_known, err);
    if (!status)
        status = vdb_salvage_image(s, number, page, &trust, err);
    if (status || trust == VDB_TRUST_LOST)
        return status;
    bool fits =
        is_known && pointer.parent == before && pointer.kind == (is_first ? POINTER_OVERFLOW_1 : POINTER_OVERFLOW_2);
    *is_sane = fits || (trust == VDB_TRUST_GOOD && !is_known);
    *is_doubtful |= trust != VDB_TRUST_GOOD;
    return VECDB_OK;
}

static int read_chain(struct vdb_salvage *s, uint32_t leaf, uint32_t first, struct payload *payload, uint32_t n_local,
                      vecdb_error *err)
{
    unsigned char page[VDB_SALVAGE_PAGE];
    int status = append(s, 0, payload->bytes, n_local, err);
    uint32_t number = first, before = leaf;
    payload->n_available = n_local;
    while (!status && payload->n_available < payload->n_bytes) {
        bool is_sane, is_first = number == first && before == leaf;
        status = read_overflow(s, number, before, is_first, page, &is_sane, &payload->is_doubtful, err);
        if (status || !is_sane)
            break;
        uint64_t left = payload->n_bytes - payload->n_available;
        size_t n = left < OVERFLOW_BYTES ? (size_t)left : OVERFLOW_BYTES;
        status = append(s, payload->n_available, page + 4, n, err);
        payload->n_available += n;
        before = number;
        number = vdb_salvage_u32(page);
    }
    payload->bytes = s->payload;
    return status;
}

/* ------------------------------------------------------------------ records */

/* Bytes of a value of a serial type; UINT64_MAX: there is no such type. */
static uint64_t bytes_of_type(uint64_t type)
{
    static const unsigned char fixed[12] = {0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 255, 255};
    if (type >= 12)
        return (type - 12) / 2;
    return fixed[type] == 255 ? UINT64_MAX : fixed[type];
}

static int64_t load_integer(const unsigned char *at, size_t n)
{
    uint64_t value = n && (at[0] & 0x80) ? UINT64_MAX : 0;
    for (size_t i = 0; i < n; i++)
        value = value << 8 | at[i];
    return (int64_t)value;
}

static struct vdb_value make_value(uint64_t type, const unsigned char *at, size_t n)
{
    if (type == 0)
        return (struct vdb_value){.kind = VDB_VALUE_NULL};
    if (type == 7)
        return (struct vdb_value){.kind = VDB_VALUE_REAL, .bytes = at, .n_bytes = n};
    if (type == 8 || type == 9)
        return (struct vdb_value){.kind = VDB_VALUE_INTEGER, .integer = type == 9};
    if (type < 7)
        return (struct vdb_value){.kind = VDB_VALUE_INTEGER, .integer = load_integer(at, n)};
    return (struct vdb_value){.kind = type & 1 ? VDB_VALUE_TEXT : VDB_VALUE_BLOB, .bytes = at, .n_bytes = n};
}

/* Values of a payload; false: it is no record. */
static bool read_record(const struct payload *payload, struct vdb_salvage_row *row)
{
    struct cursor cursor = {payload->bytes, payload->bytes + payload->n_available, false};
    uint64_t header_bytes = read_varint(&cursor);
    if (cursor.failed || header_bytes > payload->n_available || header_bytes < 1)
        return false;
    cursor.end = payload->bytes + header_bytes;
    uint64_t at = header_bytes;
    row->n_values = 0;
    while (cursor.at < cursor.end) {
        uint64_t type = read_varint(&cursor), n = bytes_of_type(type);
        if (cursor.failed || n > payload->n_bytes || at > payload->n_bytes - n || row->n_values == VDB_SALVAGE_COLUMNS)
            return false;
        bool is_there = at + n <= payload->n_available;
        row->values[row->n_values++] =
            is_there ? make_value(type, payload->bytes + at, (size_t)n) : (struct vdb_value){.kind = VDB_VALUE_LOST};
        at += n;
    }
    return cursor.at == cursor.end && at == payload->n_bytes;
}

int vdb_salvage_row_at(struct vdb_salvage *s, const unsigned char *page, const struct salvage_header *header,
                       uint32_t i, struct vdb_salvage_row *row, bool *is_sane, vecdb_error *err)
{
    bool is_index = header->kind != PAGE_LEAF_TABLE;
    struct cursor cursor = cell_at(page, header, i);
    *is_sane = false;
    if (!cursor.failed && header->kind == PAGE_INTERIOR_INDEX && cursor.end - cursor.at >= 4)
        cursor.at += 4;
    struct payload payload = {.n_bytes = cursor.failed ? 0 : read_varint(&cursor)};
    row->rowid = is_index || cursor.failed ? 0 : read_varint(&cursor);
    if (cursor.failed || !payload.n_bytes || payload.n_bytes / USABLE_BYTES > s->report.n_pages)
        return VECDB_OK;
    uint32_t n_local = local_bytes(payload.n_bytes, is_index);
    bool is_long = n_local < payload.n_bytes;
    if ((size_t)(cursor.end - cursor.at) < n_local + (is_long ? 4 : 0))
        return VECDB_OK;
    payload.bytes = cursor.at;
    payload.n_available = n_local;
    int status = VECDB_OK;
    if (is_long)
        status = read_chain(s, row->page, vdb_salvage_u32(cursor.at + n_local), &payload, n_local, err);
    if (status)
        return status;
    row->is_doubtful |= payload.is_doubtful;
    *is_sane = read_record(&payload, row);
    return VECDB_OK;
}
