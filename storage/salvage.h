/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/salvage.h - what can still be read of a damaged database: its catalog, without SQLite, and its vector files
 *
 * SQLite reads a tree from its root down: one bad page, and all below it is out of reach. Here the order is
 * turned round. Every page is looked at once, and is asked whose it is:
 *
 *     images    the newest image of each page: of the WAL, or of the main file        salvage_pages.c
 *     owners    each leaf's root: from the roots down where interior pages are         salvage_trees.c
 *               whole, and else up along the pointer map, which names every page's
 *               parent because auto_vacuum is on
 *     rows      the cells of a leaf, with their overflow chains                        salvage_cells.c
 *     tables    what each root is: by sqlite_schema, or by the shape of its rows       salvage_tables.c
 *     vectors   pages of vectors: by extents and footers, or by scanning the files     salvage_vectors.c
 *
 * TRUST. A page image is *good* when its stamp holds or it came from a valid frame of the WAL; *doubtful* when
 * it did not but reads like a page of its kind; else *lost*. What comes of a doubtful page is handed out marked.
 *
 * Invariants
 *   1. No byte outside of what was read is looked at, whatever the bytes say; every walk is bounded by the
 *      number of pages.
 *   2. What was deleted is not brought back: free pages, free blocks, and cells that no pointer names are
 *      passed; slots that the table `dead` names are for the caller to pass.
 *   3. Nothing is written.
 *   4. Memory: 4 bytes a page of the catalog, 16 a leaf, 40 a page of vectors; a few pages at a time.
 *
 * Nobody has the database open (vdb_state_seize): files of SQLite's are opened here. A read that fails with an
 * I/O error is tried once more; then that page is lost, and the rest is read.
 */
#ifndef VDB_STORAGE_SALVAGE_H
#define VDB_STORAGE_SALVAGE_H

#include "base/slots.h"
#include "extent.h"
#include "vfs.h"

#define VDB_SALVAGE_PAGE 4096u

enum vdb_trust { VDB_TRUST_LOST = 0, VDB_TRUST_DOUBTFUL = 1, VDB_TRUST_GOOD = 2 };

struct vdb_salvage;

/* Asked between pieces of work; anything but VECDB_OK ends the call that is running. */
struct vdb_salvage_options {
    struct vdb_memory *memory;
    struct vdb_vfs *vfs;
    const char *directory; /* of the database; borrowed for the life of the object */
    bool past_breaks;      /* use valid frames of the WAL behind a broken one too: see salvage_pages.c */
    bool unstamped;        /* pages with wrong stamps are good: another SQLite wrote them */
    int (*step)(void *context, vecdb_error *err); /* NULL: none */
    void *step_context;
};

/* Open the files and find out what each page is. A missing or empty catalog is a catalog without pages. */
int vdb_salvage_open(const struct vdb_salvage_options *options, struct vdb_salvage **salvage, vecdb_error *err);
void vdb_salvage_close(struct vdb_salvage *salvage); /* NULL is allowed */

/* What was found. Counts of pages and frames. */
struct vdb_salvage_report {
    bool is_missing;         /* there is no catalog.sqlite, or it is empty */
    bool is_cut;             /* the main file does not end with a whole page */
    uint32_t application_id; /* as page 1 says; 0 if that is damaged */
    uint32_t format_version; /* as application_id */
    uint32_t n_pages;        /* that the database has */
    uint32_t n_doubtful;     /* pages whose stamp is wrong, but which read like a page of their kind */
    uint32_t n_lost;         /* pages that cannot be read, or make no sense */
    uint32_t n_derived;      /* damaged pages that hold no truth: of the pointer map, free ones */
    uint32_t n_unplaced;     /* bad pages of which it is not known to which table they belong */
    uint32_t first_bad_page; /* 0: none */
    bool wal_is_damaged;     /* its header, or a frame before the committed end */
    uint32_t n_frames;       /* committed ones that follow each other without a break */
    uint32_t n_broken;       /* frames before the last committed one that are not whole */
    uint32_t n_nameless;     /* of the broken ones that count, those whose page's number is not known */
    uint32_t n_behind;       /* whole frames behind the first broken one, up to the last commit */
    uint32_t salt2;          /* of the WAL's header; 0 without one */
};
const struct vdb_salvage_report *vdb_salvage_get_report(const struct vdb_salvage *salvage);

/* ------------------------------------------------------------------ rows */

enum vdb_value_kind {
    VDB_VALUE_NULL,
    VDB_VALUE_INTEGER,
    VDB_VALUE_REAL,
    VDB_VALUE_TEXT,
    VDB_VALUE_BLOB,
    VDB_VALUE_LOST
};

struct vdb_value {
    enum vdb_value_kind kind; /* LOST: in an overflow page that cannot be read */
    int64_t integer;
    const unsigned char *bytes; /* texts and blobs: valid during the callback */
    size_t n_bytes;
};

#define VDB_SALVAGE_COLUMNS 16

struct vdb_salvage_row {
    uint64_t rowid; /* of a table; 0 in an index */
    uint32_t page;
    bool is_doubtful;
    uint32_t n_values;
    struct vdb_value values[VDB_SALVAGE_COLUMNS];
};
typedef int (*vdb_salvage_row_fn)(void *context, const struct vdb_salvage_row *row, vecdb_error *err);

/* ------------------------------------------------------------------ tables */

enum vdb_table_kind {
    VDB_TABLE_UNKNOWN,
    VDB_TABLE_SCHEMA,
    VDB_TABLE_DATABASE,
    VDB_TABLE_COLLECTIONS,
    VDB_TABLE_COLLECTIONS_NAMES, /* the index of collections: name, id */
    VDB_TABLE_FIELDS,
    VDB_TABLE_FIELDS_NAMES, /* the index of fields: collection, name, id */
    VDB_TABLE_EXTENTS,
    VDB_TABLE_STORES,
    VDB_TABLE_SNAPSHOTS,
    VDB_TABLE_DEAD, /* WITHOUT ROWID: an index */
    VDB_TABLE_RECORDS,
    VDB_TABLE_RECORDS_KEYS, /* the index of records: key, slot */
    VDB_TABLE_TAIL,
    VDB_TABLE_OTHER
};

struct vdb_salvage_table {
    uint32_t root;
    enum vdb_table_kind kind;
    uint64_t number; /* of records and their keys: the store; of a tail: the field; 0: its name is lost */
    bool is_index;
    uint32_t n_leaves;
    uint32_t n_bad;     /* leaves that are doubtful or lost, as far as they are known to be its */
    uint64_t n_guessed; /* its name is lost and it was known by the shape of its rows: rows in it */
    uint64_t last_slot; /* then: the highest rowid in it */
    uint64_t row_bytes; /* then, of a tail: bytes of a vector */
};

size_t vdb_salvage_n_tables(const struct vdb_salvage *salvage);
const struct vdb_salvage_table *vdb_salvage_table(const struct vdb_salvage *salvage, size_t i);
/* The first of a kind and number; NULL: none. */
const struct vdb_salvage_table *vdb_salvage_find(const struct vdb_salvage *salvage, enum vdb_table_kind kind,
                                                 uint64_t number);

/* Every row of a table, leaf by leaf in the order of their first rowids (of an index: of page numbers). A
 * rowid may come twice when pages contradict each other. */
int vdb_salvage_rows(struct vdb_salvage *salvage, const struct vdb_salvage_table *table, vdb_salvage_row_fn each,
                     void *context, vecdb_error *err);

/* A table prepared for finding rows by rowid. */
struct vdb_salvage_lookup;
int vdb_salvage_lookup_new(struct vdb_salvage *salvage, const struct vdb_salvage_table *table,
                           struct vdb_salvage_lookup **lookup, vecdb_error *err);
void vdb_salvage_lookup_free(struct vdb_salvage_lookup *lookup); /* NULL is allowed */
/* Calls `each` once, or not at all. */
int vdb_salvage_lookup_row(struct vdb_salvage_lookup *lookup, uint64_t rowid, vdb_salvage_row_fn each, void *context,
                           vecdb_error *err);

/* ------------------------------------------------------------------ vectors */

/* A page of vectors that was found. */
struct vdb_salvage_page {
    uint64_t generation, offset; /* in its file */
    uint64_t check;              /* as the footer says; 0: it was verified when it was found */
    uint32_t length, n_rows;
    uint32_t first_slot, last_slot;
};

struct vdb_salvage_vectors;

struct vdb_salvage_field {
    uint64_t field, store;
    int type;
    uint32_t dimension;
};

/* A vector file in the directory whose header can be read. */
struct vdb_salvage_file {
    uint64_t field, generation, store; /* store 0: the header is damaged */
    bool is_whole;                     /* the header */
    int type;                          /* of its first valid page; 0: it has none */
    uint32_t dimension;
    uint32_t first_slot, last_slot; /* of that page */
};
/* Look at every vector file; `uuid` NULL: take files of any database. The array is the caller's to vdb_free. */
int vdb_salvage_files(const struct vdb_salvage_options *options, const unsigned char uuid[16],
                      struct vdb_salvage_file **files, size_t *n_files, vecdb_error *err);

/* Problems that are found on the way: each a sentence, about a file. */
typedef void (*vdb_salvage_tell_fn)(void *context, const char *file, const char *message);

/* Find the pages of a field. `extents` (n_extents of them) are what the catalog names; when `is_complete` nothing
 * else is looked at, except that an extent whose footer is damaged is scanned. Otherwise all of the field's files
 * are scanned. */
struct vdb_salvage_extent {
    uint64_t generation;
    struct vdb_extent_ref ref;
};
int vdb_salvage_vectors_open(const struct vdb_salvage_options *options, const unsigned char *uuid,
                             const struct vdb_salvage_field *field, const struct vdb_salvage_extent *extents,
                             size_t n_extents, bool is_complete, vdb_salvage_tell_fn tell, void *context,
                             struct vdb_salvage_vectors **vectors, vecdb_error *err);
void vdb_salvage_vectors_close(struct vdb_salvage_vectors *vectors); /* NULL is allowed */

/* The vector of a slot, in the field's type; NULL: there is none. Valid until the next call. Slots asked for in
 * ascending order decode each page once. `is_lost`: a page that should hold it is damaged. */
int vdb_salvage_vector(struct vdb_salvage_vectors *vectors, uint32_t slot, const void **vector, bool *is_lost,
                       vecdb_error *err);

/* Add the slots of all pages that can be read to a set. */
int vdb_salvage_vectors_slots(struct vdb_salvage_vectors *vectors, struct vdb_slots *slots, vecdb_error *err);

#endif
