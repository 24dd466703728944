/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/check.h - what the parts of a check share: check.c, check_collection.c, check_vectors.c
 */
#ifndef VDB_LIB_CHECK_H
#define VDB_LIB_CHECK_H

#include "database.h"
#include "storage/catalog_check.h"
#include "storage/extent_check.h"

/* A check in progress. */
struct vdb_check {
    vecdb *db;
    const vecdb_work *request;
    vecdb_problem_fn each;
    void *context;
    const char *home;   /* the last part of the database's path, for advice */
    const char *prefix; /* of file names: "", or "snapshot-3/" */
    uint64_t n_problems;
    uint64_t n_bytes, n_total; /* read, of the vector files; for progress */
    struct vdb_stop *stop;
};

/* Is this the status of something that cannot be read as it should be, and is told, or one that ends the check?
 * (INTERNAL is what a table that does not exist gives.) */
static inline bool vdb_check_is_finding(int status)
{
    return status == VECDB_CORRUPT || status == VECDB_IO || status == VECDB_NEWER || status == VECDB_INTERNAL;
}

/* Tell of a problem. `collection` may be NULL. */
void vdb_check_tell(struct vdb_check *check, const char *file, const char *collection, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* "; restore from a backup or run "vecdb-cli repair notes.vecdb"" */
const char *vdb_check_advice(struct vdb_check *check, char *out, size_t room);
/* Report progress; INTERRUPTED when the caller, or another thread, wants an end. */
int vdb_check_step(struct vdb_check *check, vecdb_error *err);

/* An extent as the catalog names it, and whether its file could be opened. */
struct vdb_check_extent {
    uint64_t generation;
    struct vdb_extent_ref ref;
    struct vdb_file *file; /* owned by the list of files */
};

struct vdb_check_file {
    uint64_t generation;
    struct vdb_file *file; /* NULL: missing, or it cannot be opened */
};

struct vdb_check_field {
    struct vdb_field_row row;
    struct vdb_slots *tail; /* slots of rows of the tail */
    struct vdb_check_extent *extents;
    size_t n_extents;
    struct vdb_check_file *files;
    size_t n_files;
};

/* What one read transaction said of a collection. */
struct vdb_check_collection {
    struct vdb_check *check;
    struct vdb_collection_row row;
    struct vdb_slots *records, *dead;
    struct vdb_check_field *fields;
    size_t n_fields;
    uint64_t sequence;
    bool is_unsettled; /* a file was missing: perhaps a compaction has just removed it */
    bool is_final;     /* this time, what is missing is told */
};

/* check_collection.c: everything of a collection. */
int vdb_check_one_collection(struct vdb_check *check, uint64_t id, vecdb_error *err);

/* check_vectors.c: the extents of a field, page by page; no transaction is open. */
int vdb_check_extents(struct vdb_check_collection *collection, struct vdb_check_field *field, vecdb_error *err);

/* check_vectors.c: is a vector one that the field may hold? `values` are of `type`; `scratch` has room for one in the
 * field's type. VECDB_INVALID tells why not. */
int vdb_check_values(const struct vdb_field_row *field, uint32_t slot, const void *values, int type, void *scratch,
                     vecdb_error *err);

#endif
