/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/repair.h - the parts of a repair
 *
 *     repair.c          what is wrong, what is to be done about it; names exchanged at the end
 *     repair_truth.c    the catalog's tables as far as they can be read, put in order
 *     repair_build.c    the new database: collections, records, vectors
 *     repair_tell.c     what was lost, folded into few sentences
 */
#ifndef VDB_LIB_REPAIR_H
#define VDB_LIB_REPAIR_H

#include "database.h"
#include "storage/salvage.h"

/* ------------------------------------------------------------------ telling */

struct vdb_repair;

/* A run of records to which the same happened: "32 records lose their vector in field "text": a to b". */
struct vdb_repair_run {
    int kind;             /* vecdb_problem_kind */
    const char *verbs[2]; /* what it does, what they do: "loses its text", "lose their text" */
    const char *field;    /* NULL, or whose name stands behind it */
    uint64_t n;
    uint64_t last; /* the place of the last one among the collection's records */
    char first_key[80], last_key[80];
};

struct vdb_repair {
    struct vdb_memory memory;
    struct vdb_vfs *vfs, *inner_vfs;
    const struct vdb_io_hook *hook;
    vecdb_options options;
    const vecdb_work *work;
    vecdb_problem_fn each;
    void *context;
    uint64_t n_lost;
    uint64_t n_done, n_total; /* records, for the progress */

    char *path;           /* of the damaged database, without a slash at the end */
    char *building;       /* path.repairing */
    char *complete;       /* path.repaired */
    int seized;           /* descriptor of the damaged one's `state`, held alone; -1 */
    uint32_t n_unstamped; /* pages that another SQLite wrote, without stamps: told once, not by row; 0: it did not */

    struct vdb_salvage_options salvage_options;
    struct vdb_salvage *salvage;
    struct vdb_repair_truth *truth;
};

void vdb_repair_tell(struct vdb_repair *repair, int kind, const char *file, const char *collection, const char *format,
                     ...) __attribute__((format(printf, 5, 6)));
/* Add a record to a run, told first when it does not follow it. `place`: counts the collection's records. */
void vdb_repair_run_add(struct vdb_repair *repair, struct vdb_repair_run *run, const char *collection,
                        const vecdb_key *key, uint64_t place);
void vdb_repair_run_end(struct vdb_repair *repair, struct vdb_repair_run *run, const char *collection);

/* Progress and interruption; a vdb_salvage_options.step. */
int vdb_repair_step(void *repair, vecdb_error *err);

/* ------------------------------------------------------------------ the truth */

struct vdb_repair_collection {
    uint64_t id, store;
    char name[VECDB_MAX_NAME + 1];
    uint64_t n_records, next_slot;
    bool is_known;    /* its row was read; else name and numbers are made up */
    bool is_doubtful; /* the row is of a page whose checksum is wrong */
    bool has_documents;
    const struct vdb_salvage_table *records, *keys; /* NULL: not found */
};

struct vdb_repair_field {
    uint64_t id, collection;
    char name[VECDB_MAX_NAME + 1];
    vecdb_field field; /* its name points to the one above when asked for */
    bool is_known, is_doubtful;
    const struct vdb_salvage_table *tail;
};

struct vdb_repair_extent {
    uint64_t field;
    struct vdb_salvage_extent extent;
};

struct vdb_repair_store {
    uint64_t id, collection;
};

/* A name as an index has it. */
struct vdb_repair_name {
    uint64_t id, collection; /* collection 0: the id is a collection's; else a field's */
    char name[VECDB_MAX_NAME + 1];
};

struct vdb_repair_dead {
    uint64_t store;
    struct vdb_slots *slots;
};

struct vdb_repair_snapshot {
    uint64_t id, sequence;
    int64_t created;
    char name[VECDB_MAX_NAME + 1];
};

struct vdb_repair_truth {
    bool has_database; /* its row was read */
    bool has_uuid;
    unsigned char uuid[16];
    uint64_t sequence, read_features, write_features, encryption;
    struct vdb_repair_collection *collections;
    struct vdb_repair_field *fields;
    struct vdb_repair_extent *extents;
    struct vdb_repair_store *stores;
    struct vdb_repair_name *names;
    struct vdb_repair_dead *dead;
    struct vdb_repair_snapshot *snapshots;
    size_t n_collections, n_fields, n_extents, n_stores, n_names, n_dead, n_snapshots;
    bool has_all_collections, has_all_fields, has_all_extents; /* no page of those tables is missing */
    uint64_t n_tail_only;                                      /* vectors in tails of which nothing else is known */
};

/* Only the row of `database`: quick. */
int vdb_repair_read_database(struct vdb_repair *repair, struct vdb_repair_truth *truth, vecdb_error *err);
int vdb_repair_read_truth(struct vdb_repair *repair, struct vdb_repair_truth *truth, vecdb_error *err);
void vdb_repair_release_truth(struct vdb_repair *repair, struct vdb_repair_truth *truth);
const struct vdb_slots *vdb_repair_dead_of(const struct vdb_repair_truth *truth, uint64_t store); /* may be NULL */

/* ------------------------------------------------------------------ building */

/* Fill the new, empty database from the truth. */
int vdb_repair_fill(struct vdb_repair *repair, vecdb *db, vecdb_error *err);

/* vecdb_repair with faults, for tests; `hook` may be NULL. */
int vdb_database_repair(const char *path, const vecdb_options *options, const struct vdb_io_hook *hook,
                        const vecdb_work *work, vecdb_problem_fn each, void *context, uint64_t *n_lost,
                        vecdb_error *err);

#endif
