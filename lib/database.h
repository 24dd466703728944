/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/database.h - the parts of an open database, shared by the files of lib/
 *
 *     vecdb                  handle: memory, vfs, catalog, page cache, threads
 *      |- commit queue       writers wait here; one of them commits for all          commit.c
 *      |- maintenance        packs tails, compacts; a background thread              maintain.c
 *      '- vecdb_collection   by id, one handle each                                  collections.c
 *          |- keys           slot -> key, loaded piece by piece                      keys.c
 *          '- view           the records at one state, immutable, counted            view.c
 *              '- fields     segments (opened extents), then pieces of the tail
 *
 * LOCKS, in the order in which they may be taken
 *   1. is_appending       who appends to vector files (packing, compaction, bulk writes); kept across
 *                         a commit, so it comes before. append_lock guards it, for a few instructions
 *   2. the commit queue   the leader of a group holds the gate of `state`
 *      worker_lock        what the worker is told; nothing is taken under it
 *   3. refresh_lock       of a collection: its view is being advanced
 *   4. lock               of the handle: lists of collections and files, the background error;
 *      view_lock          of a collection: which view is the current one. Held for a few
 *                         instructions, nothing is called under them.
 *   keys->lock is taken alone or under refresh_lock; indexes.lock and indexer.lock alone.
 *   indexer.build_lock before all of them: graphs are built from views.
 */
#ifndef VDB_LIB_DATABASE_H
#define VDB_LIB_DATABASE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/slots.h"
#include "base/threads.h"
#include "commit.h"
#include "index.h"
#include "index/index.h"
#include "keys.h"
#include "storage/cache.h"
#include "storage/catalog.h"
#include "storage/connection.h"
#include "storage/extent.h"
#include "storage/vfs.h"
#include "vecdb.h"
#include "view.h"

#define VDB_TAIL_LIMIT_ROWS 4096u
#define VDB_TAIL_LIMIT_BYTES (4u << 20)

struct vecdb_collection {
    vecdb *db;
    uint64_t id;
    struct vecdb_collection *next; /* in db->collections */
    pthread_mutex_t refresh_lock;
    pthread_mutex_t view_lock;
    struct vdb_view *view;  /* the current one; NULL: none yet */
    uint64_t view_word;     /* the word of `state` it is known to be current at */
    uint64_t view_sequence; /* the number of the state it shows */
    _Atomic uint64_t n_dead_left; /* dead slots that the last look at the files left */
    _Atomic uint64_t renumber_from; /* the next slot that makes a further attempt at a new store worth it */
    struct vdb_keys keys;
    struct vdb_indexes indexes;
};

/* A vector file that is open for reading. Counted; segments hold it. */
struct vdb_vector_file {
    _Atomic unsigned references;
    vecdb *db;
    uint64_t field, generation;
    struct vdb_file *file;
    struct vdb_vector_file *next; /* in db->files */
};

struct vecdb {
    struct vdb_memory memory;
    vecdb_options options;
    char *path; /* without a slash at the end */
    bool is_memory, is_readonly, is_snapshot;
    unsigned fork_count; /* of the process that opened it; another one means that we are a child */
    struct vdb_vfs *vfs;
    struct vdb_vfs *inner_vfs; /* with faults: what `vfs` wraps */
    const struct vdb_io_hook *hook; /* NULL, or faults */
    struct vdb_state *owner_state; /* of a handle on a snapshot: of the database itself; else NULL */
    struct vdb_catalog *catalog;
    struct vdb_state *state;
    struct vdb_cache *cache;
    struct vdb_pool *pool;
    const struct vdb_kernels *kernels;
    _Atomic unsigned interrupts; /* how often vecdb_interrupt was called */

    pthread_mutex_t lock;
    struct vecdb_collection *collections;
    struct vdb_vector_file *files;
    vecdb_error background_error;

    struct vdb_commit_queue queue;

    pthread_mutex_t append_lock;
    pthread_cond_t append_ends; /* waits by the monotonic clock */
    bool is_appending;
    _Atomic bool is_maintainer; /* between begin and end */
    _Atomic bool has_swept;     /* debris was removed, and none is known to have come since */
    _Atomic uint64_t vector_bytes_written, vector_bytes_rewritten; /* for vecdb_stats */
    uint64_t *abandoned;        /* pairs (field, generation): files whose sync failed */
    size_t n_abandoned;

    pthread_t worker;
    pthread_mutex_t worker_lock;
    pthread_cond_t worker_wakes;
    bool has_worker, worker_ends, has_work, has_checkpoint;

    struct vdb_indexer indexer; /* builds graphs: index.h */
    struct vdb_graph_budget index_budget; /* of all graphs */

    struct vdb_scrub *scrub; /* NULL: none */

    vecdb *next_open; /* in the list of open databases, for fork */
};

/* ------------------------------------------------------------------ database.c */

/* vecdb_open with faults: `hook` (NULL: none) is asked before every operation on files. For tests. */
int vdb_database_open(const char *path, const vecdb_options *options, const struct vdb_io_hook *hook, vecdb **db,
                      vecdb_error *err);

/* Without slashes at the end, and from the root on: the application may change its directory. */
char *vdb_path_normal(struct vdb_memory *memory, const char *path);

/* A caller's options, checked, with defaults filled in; `from` may be NULL. */
int vdb_options_copy(vecdb_options *to, const vecdb_options *from, vecdb_error *err);

/* A caller's struct that begins with its size, as this version has it: of an older header, from the first version's
 * (`n_first_bytes`) on, the members that are missing are zero; of a newer one, those not known here are left out.
 * `from` may be NULL: all zero. MISUSE for any other size. */
int vdb_struct_copy(void *to, size_t n_bytes, size_t n_first_bytes, const void *from, const char *name,
                    vecdb_error *err);
/* `last`: the member with which the first version of *to ended. It stays when members are added behind it. */
#define VDB_STRUCT_BYTES(type, last) (offsetof(type, last) + sizeof((type){0}.last))
#define VDB_STRUCT_COPY(to, from, type, last, err)                                                                     \
    vdb_struct_copy(to, sizeof(type), VDB_STRUCT_BYTES(type, last), from, #type, err)

/* What a repaired database is called between its completion and the exchange of names (repair.c). */
#define VDB_REPAIRED_SUFFIX ".repaired"

/* MISUSE for NULL, and in the child of a fork. Every public call begins with it. */
int vdb_database_check(const vecdb *db, vecdb_error *err);
/* READONLY for a writing call on a read-only handle. */
int vdb_database_check_writable(const vecdb *db, vecdb_error *err);
void vdb_database_log(vecdb *db, int level, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* A call that can be stopped: by vecdb_interrupt, or by its deadline. */
struct vdb_stop {
    vecdb *db;
    unsigned interrupts;
    uint64_t deadline_ns; /* 0: none */
    uint32_t timeout_ms;
};
void vdb_stop_init(struct vdb_stop *stop, vecdb *db, uint32_t timeout_ms);
int vdb_stop_check(void *stop, vecdb_error *err); /* VECDB_OK, INTERRUPTED or TIMEOUT */

/* Path of a vector file, owned by the caller. */
char *vdb_vector_path(vecdb *db, uint64_t field, uint64_t generation);

/* Open for reading, or share what is open. */
int vdb_vector_file_get(vecdb *db, uint64_t field, uint64_t generation, struct vdb_vector_file **file,
                        vecdb_error *err);
struct vdb_vector_file *vdb_vector_file_retain(struct vdb_vector_file *file);
void vdb_vector_file_put(struct vdb_vector_file *file);

/* ------------------------------------------------------------------ append.c */

/* Append to vector files: only the maintainer may. begin takes its turn among the threads, for which it waits, and
 * the maintainer's lock, for which it does not. BUSY: somebody else has one of them. Any other error is of the lock
 * itself, and is kept as the background error too: it would keep all work from being done. A write waits for other
 * writes, but not for a compaction: then its vectors go to the tail. */
#define VDB_APPEND_WRITE_MS 200
#define VDB_APPEND_WORK_MS 3600000
int vdb_append_begin(vecdb *db, uint32_t wait_ms, vecdb_error *err);
void vdb_append_end(vecdb *db);

/* Can no power cut take back the commits up to `sequence`? (Without full durability a checkpoint is
 * tried first.) Until then the files that the state before them names must stay. */
int vdb_append_secure(vecdb *db, uint64_t sequence, bool *is_secure, vecdb_error *err);

/* The same for all commits so far, failed ones too: one whose sync has failed may still lie in the WAL, unseen, name a
 * file that nothing names now, and come back when all processes are killed. One that succeeds is written over it. So
 * this commits nothing in particular. False: files that only an earlier state names must stay. */
bool vdb_append_settle(vecdb *db);

/* Remove vector files that no commit names. Between begin and end. */
int vdb_append_sweep(vecdb *db, vecdb_error *err);

/* Rows on their way into an extent of a field, with slots of `store`. With `may_grow` the extent grows from the
 * field's last one where that keeps the invariants of extent.h. The file of generation `except` (0: none) is
 * not appended to. Call inside a transaction (reading or writing). */
struct vdb_append {
    struct vdb_file *file;
    struct vdb_extent_writer *writer;
    struct vdb_extent_row row; /* what to put into the catalog, after vdb_append_finish */
    uint64_t field;
    uint64_t begin;  /* where in the file the first of the new bytes is */
    bool is_new_file;
    bool is_rewrite; /* of vectors that were in a file before: counted apart */
};
int vdb_append_open(vecdb *db, struct vdb_connection *c, const struct vdb_field_row *field, uint64_t store,
                    uint32_t first_slot, bool may_grow, uint64_t except, struct vdb_append *append, vecdb_error *err);
/* The same, into a file that no commit names yet: `generation`, when it is still small (0: none was made), or a new
 * one, whose number the append's row tells. */
int vdb_append_open_unnamed(vecdb *db, struct vdb_connection *c, const struct vdb_field_row *field, uint64_t store,
                            uint64_t generation, struct vdb_append *append, vecdb_error *err);
int vdb_append_finish(vecdb *db, struct vdb_append *append, vecdb_error *err); /* written and synced */
void vdb_append_release(vecdb *db, struct vdb_append *append);
/* Release, and remove a file that was made for it. Only before its transaction may have been committed. */
void vdb_append_undo(vecdb *db, struct vdb_append *append);
/* Put a finished extent into the catalog. */
int vdb_append_commit(struct vdb_connection *c, const struct vdb_append *append, vecdb_error *err);

/* ------------------------------------------------------------------ collections.c */

/* The handle of an id, made when there is none yet. `out` may be NULL. */
int vdb_collection_handle(vecdb *db, uint64_t id, vecdb_collection **out, vecdb_error *err);

/* ------------------------------------------------------------------ pack.c, compact.c */

/* Is there enough in a tail to be packed? */
bool vdb_pack_is_due(const struct vdb_view *view);
/* Pack the tails of a collection into extents. Between vdb_append_begin and _end. */
int vdb_pack(vecdb_collection *collection, vecdb_error *err);

/* Rewrite the vector file that holds the largest share of garbage, if that is at least `min_garbage`
 * (0 .. 1) of its bytes and `min_bytes`; *done tells whether there was one. The tails were packed in
 * the same session, between vdb_append_begin and _end. */
int vdb_compact_file(vecdb_collection *collection, double min_garbage, uint64_t min_bytes, struct vdb_stop *stop,
                     bool *done, vecdb_error *err);

/* Forget dead slots that no page holds any more. Between begin and end. */
int vdb_compact_dead(vecdb_collection *collection, vecdb_error *err);

/* ------------------------------------------------------------------ renumber.c */

/* Is the end of the slots near, and would a new store gain enough? */
bool vdb_renumber_is_due(const vecdb_collection *collection, const struct vdb_view *view);
/* Would a new store make an explicit compaction worth its while? */
bool vdb_renumber_is_useful(const struct vdb_view *view);
/* Give the collection a new store, with slots from 0 on. Between vdb_append_begin and _end. */
int vdb_renumber(vecdb_collection *collection, struct vdb_stop *stop, vecdb_error *err);
/* For a write that found no slots left for `n_slots` more: return when there are, or with an error. Called without
 * locks. */
int vdb_renumber_wait(vecdb_collection *collection, uint64_t n_slots, vecdb_error *err);

/* ------------------------------------------------------------------ maintain.c */

/* A view was made: is there enough in its tails to be packed? Then wake the worker, or note it for
 * vdb_maintain_inline. */
void vdb_maintain_notice(vecdb_collection *collection, const struct vdb_view *view);
/* Have the worker make a checkpoint; false: there is none. Called with the gate held. */
bool vdb_maintain_defer_checkpoint(void *db);
/* At the end of a writing call, for handles without a background thread. */
void vdb_maintain_inline(vecdb *db);
void vdb_maintain_failed(vecdb *db, const vecdb_error *err); /* keep it as the background error, and log it */
void vdb_maintain_stop(vecdb *db); /* end the background thread */

#endif
