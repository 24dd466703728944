/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/salvage_parts.h - what the salvage_*.c files of the catalog share (salvage.h has the picture)
 */
#ifndef VDB_STORAGE_SALVAGE_PARTS_H
#define VDB_STORAGE_SALVAGE_PARTS_H

#include "base/memory.h"
#include "salvage.h"

#define USABLE_BYTES (VDB_SALVAGE_PAGE - 8) /* the stamp is reserved */
#define SCHEMA_ROOT 1u
#define LOCK_PAGE_NUMBER (0x40000000u / VDB_SALVAGE_PAGE + 1) /* holds no data */

/* Kinds of b-tree pages: the first byte of their header. */
enum { PAGE_INTERIOR_INDEX = 2, PAGE_INTERIOR_TABLE = 5, PAGE_LEAF_INDEX = 10, PAGE_LEAF_TABLE = 13 };

/* Kinds of entries of the pointer map. */
enum {
    POINTER_NONE = 0,
    POINTER_ROOT = 1,
    POINTER_FREE = 2,
    POINTER_OVERFLOW_1 = 3,
    POINTER_OVERFLOW_2 = 4,
    POINTER_TREE = 5
};

/* Owners that are no root. */
#define OWNER_UNKNOWN 0u
#define OWNER_FREE UINT32_MAX
#define OWNER_OTHER (UINT32_MAX - 1) /* overflow, pointer map: no page with cells */

#define NO_FRAME UINT32_MAX

/* The newest images of a page in the WAL; while the WAL is read, one for each frame. */
struct salvage_frame {
    uint32_t page;
    uint32_t frame;  /* from 0: the newest that is whole */
    uint32_t broken; /* a newer one, which is not */
};

struct salvage_leaf {
    uint32_t owner, page;
};

struct vdb_salvage {
    struct vdb_salvage_options options;
    struct vdb_memory *memory;
    struct vdb_vfs *vfs;
    struct vdb_file *main, *wal; /* NULL: missing */
    uint64_t main_bytes;
    struct vdb_salvage_report report;

    struct salvage_frame *frames; /* by page */
    size_t n_frames, frames_capacity;

    uint32_t *owners;            /* of pages 1 .. n_pages: a root, or one of the above */
    struct salvage_leaf *leaves; /* pages with rows, by owner and page */
    size_t n_leaves, leaves_capacity;
    uint32_t *bad; /* pages with cells, or that may be such, that are doubtful or lost */
    size_t n_bad, bad_capacity;
    bool knows_free; /* the list of free pages could be read to its end */
    struct vdb_salvage_table *tables;
    size_t n_tables, tables_capacity;

    unsigned char map[VDB_SALVAGE_PAGE]; /* the page of the pointer map that was asked last */
    uint32_t map_number;                 /* 0: none */
    enum vdb_trust map_trust;

    unsigned char *payload; /* of the row that is being read */
    size_t payload_capacity;
};

/* ---- salvage_pages.c */
int vdb_salvage_open_files(struct vdb_salvage *s, vecdb_error *err);
int vdb_salvage_read_wal(struct vdb_salvage *s, vecdb_error *err);
/* The newest image. Only an error that is not of this page is returned; a page that cannot be read is LOST. */
int vdb_salvage_image(struct vdb_salvage *s, uint32_t number, unsigned char page[VDB_SALVAGE_PAGE],
                      enum vdb_trust *trust, vecdb_error *err);
/* What the pointer map says of a page. False: it cannot be read, or is not to be trusted. */
struct salvage_pointer {
    int kind;
    uint32_t parent;
};
int vdb_salvage_pointer(struct vdb_salvage *s, uint32_t number, struct salvage_pointer *pointer, bool *is_known,
                        vecdb_error *err);
bool vdb_salvage_is_map(uint32_t number);
int vdb_salvage_step(struct vdb_salvage *s, vecdb_error *err);

/* ---- salvage_cells.c */
static inline uint32_t vdb_salvage_u32(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* The header of a b-tree page: where it begins, and what it says. False: it makes no sense. */
struct salvage_header {
    int kind;
    uint32_t at;       /* 100 on page 1 */
    uint32_t cells_at; /* the array of cell pointers */
    uint32_t n_cells;
    uint32_t right_child; /* interior pages */
};
bool vdb_salvage_header(const unsigned char *page, uint32_t number, struct salvage_header *header);
/* The child of cell i of an interior page; 0: the cell makes no sense. */
uint32_t vdb_salvage_child(const unsigned char *page, const struct salvage_header *header, uint32_t i);
/* The rowid of cell i of a table's leaf. */
bool vdb_salvage_rowid(const unsigned char *page, const struct salvage_header *header, uint32_t i, uint64_t *rowid);
/* Cell i of a page with rows; `is_sane` false: it makes no sense. */
int vdb_salvage_row_at(struct vdb_salvage *s, const unsigned char *page, const struct salvage_header *header,
                       uint32_t i, struct vdb_salvage_row *row, bool *is_sane, vecdb_error *err);

/* ---- salvage_trees.c */
int vdb_salvage_find_owners(struct vdb_salvage *s, vecdb_error *err);
/* Pages known to be of a tree: leaves [first, first + n). */
void vdb_salvage_leaves_of(const struct vdb_salvage *s, uint32_t owner, size_t *first, size_t *n);

int vdb_salvage_sort_leaves(struct vdb_salvage *s, vecdb_error *err);

/* ---- salvage_tables.c */
/* Add the tables that sqlite_schema names, as far as they are not known yet. */
int vdb_salvage_read_schema(struct vdb_salvage *s, vecdb_error *err);
/* Add the roots that it does not name, and tell what they are by their rows. */
int vdb_salvage_name_tables(struct vdb_salvage *s, vecdb_error *err);

#endif
