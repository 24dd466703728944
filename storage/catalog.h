/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/catalog.h - what is in the catalog: every table, read and written by typed functions
 *
 * No other file has SQL about these tables in it. The tables (FORMAT.md, "The catalog"):
 *
 *   database            one row: uuid, sequence number                      (connection.c)
 *   collections         id, name, next slot, number of records, schema version, has documents, store
 *   stores              id, collection: numberings of records; one of a collection is current
 *   fields              id, collection, name, dimension, type, metric, index, compression, generation
 *   extents             id, field, generation, offset, length, checksum, rows, slots, pages
 *   changes             the log that views advance by: per commit and collection
 *   dead                slots that were deleted or replaced, by store: bitmaps of 16,384 slots
 *   records_<s>         slot, key, metadata, text     of store s; the index keys_<s> on key
 *   tail_<f>            slot, vector                  of field f: not yet packed
 *
 * All values are bound; only numbers (ids) become part of SQL text. Every function runs inside the
 * caller's transaction and fails with what vdb_fail_sqlite makes of SQLite's answer.
 * Callbacks return a status; anything but VECDB_OK ends the walk and is passed on.
 */
#ifndef VDB_STORAGE_CATALOG_H
#define VDB_STORAGE_CATALOG_H

#include "base/slots.h"
#include "connection.h"
#include "extent.h"

/* SQL that makes the fixed tables. */
extern const char vdb_catalog_schema[];

/* False after an error that made SQLite roll the whole transaction back. */
bool vdb_transaction_is_open(const struct vdb_connection *c);

/* ------------------------------------------------ collections and fields (catalog_schema.c) */

struct vdb_collection_row {
    uint64_t id;
    char name[VECDB_MAX_NAME + 1];
    uint64_t next_slot;
    uint64_t n_records;
    uint64_t schema_version; /* raised whenever a field is added, dropped or renamed */
    bool has_documents;      /* some record has, or once had, metadata or text */
    uint64_t store;          /* the current one: slots are of it, and records lie in its table */
};

struct vdb_field_row {
    uint64_t id;
    char name[VECDB_MAX_NAME + 1];
    uint32_t dimension;
    int type, metric, index, compression;
    uint64_t generation; /* the highest of its vector files that was ever committed */
};

int vdb_collection_find(struct vdb_connection *c, const char *name, struct vdb_collection_row *row, bool *found,
                        vecdb_error *err);
int vdb_collection_read(struct vdb_connection *c, uint64_t id, struct vdb_collection_row *row, bool *found,
                        vecdb_error *err);
int vdb_collection_each(struct vdb_connection *c, int (*each)(void *context, const struct vdb_collection_row *row),
                        void *context, vecdb_error *err); /* by name */
int vdb_collection_add(struct vdb_connection *c, const char *name, uint64_t *id, vecdb_error *err);
int vdb_collection_set_name(struct vdb_connection *c, uint64_t id, const char *name, vecdb_error *err);
int vdb_collection_set_counts(struct vdb_connection *c, uint64_t id, uint64_t next_slot, uint64_t n_records,
                              bool has_documents, vecdb_error *err);
int vdb_collection_raise_schema(struct vdb_connection *c, uint64_t id, vecdb_error *err);
/* Its fields are removed before. Its store is left, with its records, as one that is not in use. */
int vdb_collection_remove(struct vdb_connection *c, uint64_t id, vecdb_error *err);
int vdb_collection_set_store(struct vdb_connection *c, uint64_t id, uint64_t store, uint64_t next_slot,
                             uint64_t n_records, vecdb_error *err);

int vdb_field_each(struct vdb_connection *c, uint64_t collection,
                   int (*each)(void *context, const struct vdb_field_row *row), void *context, vecdb_error *err);
int vdb_field_insert(struct vdb_connection *c, uint64_t collection, const struct vdb_field_row *row, uint64_t *id,
                     vecdb_error *err);
int vdb_field_set_name(struct vdb_connection *c, uint64_t field, const char *name, vecdb_error *err);
int vdb_field_set_index(struct vdb_connection *c, uint64_t field, int index, vecdb_error *err);
int vdb_field_generation(struct vdb_connection *c, uint64_t field, uint64_t *generation, vecdb_error *err);
int vdb_field_set_generation(struct vdb_connection *c, uint64_t field, uint64_t generation, vecdb_error *err);
int vdb_field_remove(struct vdb_connection *c, uint64_t field, vecdb_error *err);

/* ------------------------------------------------------------------ stores (catalog_stores.c) */

/* A new, empty store for a collection, of which it is not the current one yet. Its index of keys is made with it, or
 * later, when it has its records: that is quicker, but one transaction. */
int vdb_store_add(struct vdb_connection *c, uint64_t collection, bool with_index, uint64_t *store, vecdb_error *err);
int vdb_store_index(struct vdb_connection *c, uint64_t store, vecdb_error *err);
/* A store that is no collection's current one. */
int vdb_store_unused(struct vdb_connection *c, uint64_t *store, bool *found, vecdb_error *err);
/* How many records a store has. Reads all of the index of keys. */
int vdb_store_count(struct vdb_connection *c, uint64_t store, uint64_t *n_records, vecdb_error *err);
/* Copy the records of slots first .. last of store `from` into `to`, where they get the slots from *next_slot on, in
 * the same order. A record there that has the same key gives way. `each` is told of every slot that was copied;
 * false ends the copying behind it. *is_done: it came to the end. */
int vdb_store_copy(struct vdb_connection *c, uint64_t from, uint64_t to, uint32_t first, uint32_t last,
                   uint64_t *next_slot, bool (*each)(void *context, uint32_t slot, size_t n_bytes), void *context,
                   bool *is_done, vecdb_error *err);
/* Remove at most `limit` records of an unused store, and the store with the last of them. */
int vdb_store_remove_some(struct vdb_connection *c, uint64_t store, uint64_t limit, bool *done, vecdb_error *err);

/* ------------------------------------------------------------- records (catalog_records.c) */

/* A record's columns; texts are valid during the callback only, NULL when absent. */
struct vdb_record_row {
    uint32_t slot;
    vecdb_key key; /* text with its length */
    const char *metadata, *text;
    size_t metadata_length, text_length;
};

/* `added` false: the key is taken; nothing was done. */
int vdb_records_add(struct vdb_connection *c, uint64_t store, const struct vdb_record_row *row, bool *added,
                    vecdb_error *err);
int vdb_records_find(struct vdb_connection *c, uint64_t store, const vecdb_key *key, uint32_t *slot, bool *found,
                     vecdb_error *err);
/* `removed` (may be NULL): was there one? */
int vdb_records_remove(struct vdb_connection *c, uint64_t store, uint32_t slot, bool *removed, vecdb_error *err);
typedef int (*vdb_record_fn)(void *context, const struct vdb_record_row *row);
/* One record by slot, one by key, a range of slots (keys only), or those behind `after` in key
 * order, at most `limit`. Columns not in `columns` (VECDB_METADATA, VECDB_TEXT) are not read. */
int vdb_records_read(struct vdb_connection *c, uint64_t store, uint32_t slot, int columns, vdb_record_fn each,
                     void *context, vecdb_error *err);
int vdb_records_read_key(struct vdb_connection *c, uint64_t store, const vecdb_key *key, int columns,
                         vdb_record_fn each, void *context, vecdb_error *err);
int vdb_records_keys(struct vdb_connection *c, uint64_t store, uint32_t first_slot, uint32_t last_slot,
                     vdb_record_fn each, void *context, vecdb_error *err);
int vdb_records_scan(struct vdb_connection *c, uint64_t store, const vecdb_key *after, int columns,
                     uint64_t limit, vdb_record_fn each, void *context, vecdb_error *err);
/* Is this text a JSON object? */
int vdb_json_check(struct vdb_connection *c, const char *text, size_t length, bool *is_object, vecdb_error *err);

/* ------------------------------------------- tail, extents, dead slots, changes (catalog_vectors.c) */

int vdb_tail_add(struct vdb_connection *c, uint64_t field, uint32_t slot, const void *vector, size_t n_bytes,
                 vecdb_error *err);
int vdb_tail_remove(struct vdb_connection *c, uint64_t field, uint32_t first_slot, uint32_t last_slot,
                    vecdb_error *err);
int vdb_tail_read(struct vdb_connection *c, uint64_t field, uint64_t first_slot, uint64_t last_slot,
                  int (*each)(void *context, uint32_t slot, const void *vector, size_t n_bytes), void *context,
                  vecdb_error *err);
/* All slots of a tail become lower by `shift`. */
int vdb_tail_shift(struct vdb_connection *c, uint64_t field, uint64_t shift, vecdb_error *err);
/* Is there a tail row with first < slot < last? */
int vdb_tail_has_between(struct vdb_connection *c, uint64_t field, uint64_t first, uint64_t last, bool *has,
                         vecdb_error *err);

struct vdb_extent_row {
    uint64_t id; /* 0: not in the catalog yet */
    uint64_t generation;
    struct vdb_extent_ref ref;
};
int vdb_extents_read(struct vdb_connection *c, uint64_t field, /* by first slot */
                     int (*each)(void *context, const struct vdb_extent_row *row), void *context, vecdb_error *err);
int vdb_extents_put(struct vdb_connection *c, uint64_t field, const struct vdb_extent_row *row,
                    vecdb_error *err); /* id 0: a new one; else it has grown */
int vdb_extents_remove(struct vdb_connection *c, uint64_t id, vecdb_error *err);
/* Every (field, generation) that an extent of any collection names. */
int vdb_extents_files(struct vdb_connection *c, int (*each)(void *context, uint64_t field, uint64_t generation),
                      void *context, vecdb_error *err);

/* Dead slots of a store: add some (ascending), read all, or replace all by `slots`. */
int vdb_dead_add(struct vdb_connection *c, uint64_t store, const uint32_t *slots, size_t n, vecdb_error *err);
int vdb_dead_read(struct vdb_connection *c, uint64_t store, struct vdb_slots *slots, vecdb_error *err);
int vdb_dead_replace(struct vdb_connection *c, uint64_t store, const struct vdb_slots *slots, vecdb_error *err);

enum vdb_change_kind {
    VDB_CHANGE_ROWS = 1,    /* slots first .. first + n - 1 are new; `dead` are no more */
    VDB_CHANGE_EXTENTS = 2, /* extents, tail or dead slots were rearranged: read them anew */
    VDB_CHANGE_SCHEMA = 3   /* fields changed, or the collection was dropped or renamed */
};
struct vdb_change {
    uint64_t sequence; /* of its commit, below 2^43 */
    uint32_t ordinal;  /* in its commit, below 2^20 */
    uint64_t collection;
    int kind;
    uint32_t first_slot;
    uint32_t n_slots;
    const uint32_t *dead; /* ascending; valid during the callback */
    size_t n_dead;
};
int vdb_changes_add(struct vdb_connection *c, const struct vdb_change *change, vecdb_error *err);
/* Changes of one collection after a sequence number, in order. `complete` false: the log no longer
 * reaches back that far, and nothing was told. */
int vdb_changes_read(struct vdb_connection *c, uint64_t collection, uint64_t after, bool *complete,
                     int (*each)(void *context, const struct vdb_change *change), void *context, vecdb_error *err);
/* Forget changes at or below a sequence number. */
int vdb_changes_trim(struct vdb_connection *c, uint64_t up_to, vecdb_error *err);

/* ------------------------------------------------------------------ free pages (catalog_space.c) */

/* Pages of the catalog that hold nothing, and all. */
int vdb_space_read(struct vdb_connection *c, uint64_t *n_free, uint64_t *n_pages, vecdb_error *err);
/* Give at most `limit` free pages back to the file system, in a writing transaction. */
int vdb_space_give_back(struct vdb_connection *c, uint64_t limit, vecdb_error *err);

#endif
