/* SPDX-License-Identifier: Apache-2.0
 *
 * vecdb.h - the public interface of libvecdb, an embeddable vector database
 *
 * A database is a directory. A process opens it, stores records in collections, and asks
 * for the records whose vectors are nearest to a given one:
 *
 *     database          a directory on disk (or ":memory:")
 *       collection      a named set of records, with one or more vector fields
 *         record        key, vectors (at most one per field), metadata (JSON), text
 *
 * HOW TO READ A DECLARATION
 *   Functions return a status: VECDB_OK (0) or one of the codes below, and fill the caller's
 *   vecdb_error (which may be NULL) with one sentence: what was wrong, where, what to do.
 *   Outputs are written only on success. A call that fails leaves the database as it was.
 *   Pointers given to a function are borrowed for the call and no longer; what a function
 *   hands out belongs to the caller, who ends it with the function that its comment names.
 *   Strings are UTF-8, ending in NUL unless a length is given.
 *   Structures that begin with `size` take sizeof(structure) there, so that they can grow;
 *   in all structures a member left zero means "the default", so `= {0}` is a good start.
 *
 * THREADS AND PROCESSES
 *   vecdb and vecdb_collection handles may be used by any number of threads at once.
 *   vecdb_results and vecdb_scan belong to one thread at a time.
 *   Any number of processes may open the same database, read it and write it.
 *   After fork() the child must not use handles it inherited (every call returns
 *   VECDB_MISUSE); it may open the database again. A process may fork at any moment, whatever its
 *   other threads are doing. (Where the system has no open-file-description locks, unlike Linux, no
 *   call may be in progress and no scan open then, on a database that the child will open.)
 *
 * DURABILITY
 *   When a writing call returns VECDB_OK its records are on stable storage and every search
 *   that starts later, in any process, sees them. A call is atomic: after a crash or a power
 *   cut all of its records are there or none. See vecdb_options.durability.
 *
 * CAVEATS
 *   Copy a database with its own tools only; `cp -r` of a database in use gives a damaged copy.
 *   Do not keep a database on a network file system that lacks POSIX locks and shared mappings.
 *   Do not truncate or overwrite files of a database in use; with the default I/O mode such an
 *   error of the file system arrives as a signal (see VECDB_IO_READ).
 *   An open vecdb_scan holds a snapshot, and with it disk space; close it when done.
 */
#ifndef VECDB_H
#define VECDB_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define VECDB_API __attribute__((visibility("default")))
#else
#define VECDB_API
#endif

/* ------------------------------------------------------------------ version */

#define VECDB_VERSION "0.1.0"
#define VECDB_VERSION_NUMBER 100 /* major * 10000 + minor * 100 + patch */

/* The version of the library that is linked in, as text and as a number. Compare the number
 * with VECDB_VERSION_NUMBER to find a header and a library that do not belong together. */
VECDB_API const char *vecdb_version(void);
VECDB_API int vecdb_version_number(void);

/* ------------------------------------------------------------------- errors */

/* Name, value, meaning. The values never change. */
#define VECDB_STATUS_LIST(X)                                                                                           \
    X(OK, 0, "success")                                                                                                \
    X(INVALID, 1, "an argument is wrong")                                                                              \
    X(NOT_FOUND, 2, "no such database, collection, field or record")                                                   \
    X(EXISTS, 3, "something of that name or key exists already")                                                       \
    X(MISUSE, 4, "the call is not allowed now: a handle used after fork(), a wrong size member")                       \
    X(BUSY, 5, "another process or thread held a lock for longer than the busy timeout")                               \
    X(IO, 6, "the operating system reported an error")                                                                 \
    X(FULL, 7, "the disk, a quota, or the range of record slots is full")                                              \
    X(CORRUPT, 8, "bytes on disk are damaged or are not a vecdb database")                                             \
    X(NOMEM, 9, "memory ran out, or the memory budget is too small for the call")                                      \
    X(DENIED, 10, "the file system does not permit it")                                                                \
    X(READONLY, 11, "a write to a database that was opened, or lies, read-only")                                       \
    X(NEWER, 12, "the database was written by a newer version of the library")                                         \
    X(INTERRUPTED, 13, "vecdb_interrupt() or a progress callback asked to stop")                                       \
    X(TIMEOUT, 14, "the deadline passed before the answer was complete")                                               \
    X(UNSUPPORTED, 15, "this build or this machine cannot do it")                                                      \
    X(INTERNAL, 16, "a defect of the library; please report it")

typedef enum vecdb_status {
#define VECDB_STATUS_ENTRY(name, value, meaning) VECDB_##name = value,
    VECDB_STATUS_LIST(VECDB_STATUS_ENTRY)
#undef VECDB_STATUS_ENTRY
} vecdb_status;

/* Filled by a failing call, untouched by a successful one. `message` is one sentence, never
 * empty after a failure; `os_error` is an errno value where the operating system gave one. */
typedef struct vecdb_error {
    int status;
    int os_error;
    char message[504];
} vecdb_error;

#define VECDB_ERROR_INIT {0, 0, {0}}

/* The constant's name without its prefix ("NOT_FOUND"); "UNKNOWN" for any other number. */
VECDB_API const char *vecdb_status_name(int status);

/* ------------------------------------------------------------------ handles */

typedef struct vecdb vecdb;                       /* an open database */
typedef struct vecdb_collection vecdb_collection; /* owned by its database, valid until vecdb_close() */
typedef struct vecdb_results vecdb_results;       /* an answer; ended by vecdb_results_free() */
typedef struct vecdb_scan vecdb_scan;             /* a walk over records; ended by vecdb_scan_close() */

/* ------------------------------------------------------ values, keys, fields */

typedef enum vecdb_type {
    VECDB_TYPE_DEFAULT = 0, /* for a field: f32; for values given to a field: the field's own type */
    VECDB_F32 = 1,          /* IEEE single precision, 4 bytes */
    VECDB_F16 = 2,          /* IEEE half precision, 2 bytes */
    VECDB_BF16 = 3,         /* upper half of a single, 2 bytes */
    VECDB_I8 = 4,           /* signed byte */
    VECDB_U8 = 5,           /* unsigned byte */
    VECDB_BIT = 6           /* 8 dimensions a byte, dimension 0 in the lowest bit; unused high bits are zero */
} vecdb_type;

/* `distance` is smaller for nearer vectors, `score` is larger for nearer ones:
 *   l2       distance |q - x|                    score 1 / (1 + distance)
 *   ip       distance -<q, x>                    score <q, x>
 *   cosine   distance 1 - <q, x> / (|q| |x|)     score 1 - distance
 *   hamming  distance = number of unequal bits   score 1 - distance / dimension   (type bit only) */
typedef enum vecdb_metric {
    VECDB_METRIC_DEFAULT = 0, /* cosine; for type bit: hamming */
    VECDB_L2 = 1,
    VECDB_IP = 2,
    VECDB_COSINE = 3,
    VECDB_HAMMING = 4
} vecdb_metric;

typedef enum vecdb_index_kind {
    VECDB_INDEX_AUTO = 0, /* flat below 10,000 vectors, hnsw from there on (and flat again below 5,000) */
    VECDB_INDEX_FLAT = 1, /* exact search, no index file */
    VECDB_INDEX_HNSW = 2  /* a graph: finds nearly all of the nearest, and fast. It is built in the background, by one
                             process for all, and kept in a file; what it does not cover yet is scanned */
} vecdb_index_kind;

typedef enum vecdb_compression {
    VECDB_COMPRESSION_AUTO = 0, /* lossless, where it does not slow down a search much */
    VECDB_COMPRESSION_NONE = 1, /* store values as they are */
    VECDB_COMPRESSION_MAX = 2   /* lossless, the smallest form: for data larger than memory */
} vecdb_compression;

#define VECDB_MAX_DIMENSION 65536
#define VECDB_MAX_K 1048576
#define VECDB_MAX_NAME 255 /* bytes in the name of a collection or field */
#define VECDB_MAX_KEY 65535 /* bytes in a text key */

/* A key is a 64-bit integer or a non-empty text; 5 and "5" are different keys. In key order
 * integers come first, by value, then texts, by their bytes. */
typedef struct vecdb_key {
    const char *text; /* NULL: an integer key */
    size_t length;    /* bytes of text; 0: text ends in NUL */
    int64_t integer;
} vecdb_key;

#define VECDB_KEY_TEXT(string) {(string), 0, 0}
#define VECDB_KEY_INT(number) {NULL, 0, (number)}

static inline vecdb_key vecdb_key_text(const char *text)
{
    vecdb_key key = VECDB_KEY_TEXT(text);
    return key;
}

static inline vecdb_key vecdb_key_int(int64_t integer)
{
    vecdb_key key = VECDB_KEY_INT(integer);
    return key;
}

/* A vector field: a name and what vectors in it look like. Everything but `name` and
 * `dimension` may be left zero. Names are 1 to VECDB_MAX_NAME bytes of UTF-8 without control
 * characters; they never become file names, so a slash is a character like any other. */
typedef struct vecdb_field {
    const char *name;
    uint32_t dimension; /* 1 .. VECDB_MAX_DIMENSION */
    int type;           /* vecdb_type */
    int metric;         /* vecdb_metric */
    int index;          /* vecdb_index_kind */
    int compression;    /* vecdb_compression */
    uint64_t reserved[4];
} vecdb_field;

/* ----------------------------------------------------------------- callbacks */

/* How far a long call has come. `total` is 0 while unknown. */
typedef struct vecdb_progress {
    const char *phase; /* "check", "compact", ... a static string */
    uint64_t done;
    uint64_t total;
} vecdb_progress;

/* Called now and then by the thread that made the long call; anything but 0 ends the call with
 * VECDB_INTERRUPTED and without loss. It must not call the library with the same handle. */
typedef int (*vecdb_progress_fn)(void *context, const vecdb_progress *progress);

/* Told of events worth knowing (recovery, background errors, fallbacks), from any thread, with
 * library locks held: it must not call the library. The library itself never prints. */
typedef enum vecdb_log_level { VECDB_LOG_ERROR = 1, VECDB_LOG_WARNING = 2, VECDB_LOG_INFO = 3 } vecdb_log_level;
typedef void (*vecdb_log_fn)(void *context, int level, const char *message);

/* Where the library takes its memory from. All three or none; like malloc, realloc, free, with a
 * context, and callable from any thread. SQLite and zstd keep to their own. */
typedef struct vecdb_allocator {
    void *(*allocate)(void *context, size_t size);
    void *(*reallocate)(void *context, void *memory, size_t size);
    void (*release)(void *context, void *memory);
    void *context;
} vecdb_allocator;

/* ------------------------------------------------------------ open and close */

typedef enum vecdb_open_mode {
    VECDB_OPEN_CREATE = 0,    /* open; make the database when it is missing */
    VECDB_OPEN_EXISTING = 1,  /* fail with NOT_FOUND when it is missing */
    VECDB_OPEN_NEW = 2,       /* fail with EXISTS when it is there */
    VECDB_OPEN_READONLY = 3   /* never write a byte; works without write permission */
} vecdb_open_mode;

typedef enum vecdb_durability {
    VECDB_DURABILITY_FULL = 0,  /* fsync before a writing call returns */
    VECDB_DURABILITY_NORMAL = 1 /* faster; a power cut may lose the last calls, never tear one */
} vecdb_durability;

typedef enum vecdb_io {
    VECDB_IO_AUTO = 0, /* map files; read in place */
    VECDB_IO_READ = 1  /* never map vector files: a failing disk gives an error, not a signal */
} vecdb_io;

#define VECDB_THREADS_NONE (-1) /* no background thread: its work is done inside writing calls */
#define VECDB_NO_WAIT (-1)

typedef struct vecdb_options {
    size_t size;         /* sizeof(vecdb_options) */
    int mode;            /* vecdb_open_mode */
    int durability;      /* vecdb_durability */
    int io;              /* vecdb_io */
    int threads;         /* for one search or build; 0: as many as there are processors; VECDB_THREADS_NONE: one */
    int busy_timeout_ms; /* how long a write waits for other writers; 0: 5000; VECDB_NO_WAIT: not at all */
    uint64_t memory_bytes; /* budget for caches and buffers of this handle; 0: 256 MiB. Mapped files do not count */
    vecdb_allocator allocator;
    vecdb_log_fn log;
    void *log_context;
    const char *snapshot; /* open this named snapshot, read-only; NULL: the database itself */
    uint64_t scrub_bytes_per_second; /* read everything again and again at this rate, to find damage early; 0: never */
    uint64_t index_memory_bytes; /* budget for indexes in the memory of this handle, beside memory_bytes; 0: no limit.
                                    See vecdb_index_info.message */
} vecdb_options;

/* Open the database in directory `path`; ":memory:" makes one that lives until it is closed.
 * `options` may be NULL. Needs no repair step after a crash. Ended by vecdb_close().
 * Errors: NOT_FOUND, EXISTS, INVALID (a file in place of a directory, a directory of other
 * files), DENIED, READONLY, IO, CORRUPT, NEWER, UNSUPPORTED (format version 0, which previews of the library
 * wrote), NOMEM. Any thread. */
VECDB_API int vecdb_open(const char *path, const vecdb_options *options, vecdb **db, vecdb_error *error);

/* Wait for background work in progress, free everything. Collections of the handle end with it; results
 * and scans must have been ended before, and no other thread may be in a call with the handle. NULL is
 * allowed. */
VECDB_API void vecdb_close(vecdb *db);

/* Make calls of other threads on this handle return VECDB_INTERRUPTED soon. Callable from any
 * thread and from a signal handler. Calls that start afterwards are not touched. */
VECDB_API void vecdb_interrupt(vecdb *db);

/* The last error of work done in the background (packing, compaction, indexing, scrubbing): its status, and
 * the sentence in `error`. VECDB_OK when there was none since the last call of this function. */
VECDB_API int vecdb_background_error(vecdb *db, vecdb_error *error);

/* --------------------------------------------------------------- collections */

typedef enum vecdb_create_mode {
    VECDB_MUST_BE_NEW = 0, /* EXISTS when there is a collection of that name */
    VECDB_IF_MISSING = 1   /* open it when it exists; INVALID unless its fields are the ones given */
} vecdb_create_mode;

/* Make a collection of `n_fields` >= 0 vector fields. The handle belongs to `db`; the same
 * collection gives the same handle. `collection` may be NULL. */
VECDB_API int vecdb_collection_create(vecdb *db, const char *name, const vecdb_field *fields, size_t n_fields, int mode,
                                      vecdb_collection **collection, vecdb_error *error);

/* NOT_FOUND when there is none of that name. */
VECDB_API int vecdb_collection_open(vecdb *db, const char *name, vecdb_collection **collection, vecdb_error *error);

/* Remove a collection with all its records. Handles to it stay valid and answer NOT_FOUND. */
VECDB_API int vecdb_collection_drop(vecdb *db, const char *name, vecdb_error *error);

/* EXISTS when `new_name` is taken. Handles to the collection go on working. */
VECDB_API int vecdb_collection_rename(vecdb *db, const char *name, const char *new_name, vecdb_error *error);

/* Add a field to a collection (records have no vector in it until they are put again), remove
 * one with its vectors, or rename one. */
VECDB_API int vecdb_field_add(vecdb_collection *collection, const vecdb_field *field, vecdb_error *error);
VECDB_API int vecdb_field_drop(vecdb_collection *collection, const char *name, vecdb_error *error);
VECDB_API int vecdb_field_rename(vecdb_collection *collection, const char *name, const char *new_name,
                                 vecdb_error *error);

/* Change a field's index, at any time: searches go on with the old one until the new one is there. NOT_FOUND,
 * INVALID. */
VECDB_API int vecdb_field_set_index(vecdb_collection *collection, const char *name, int index, vecdb_error *error);

/* The state of a field's index, as this process sees it. */
typedef struct vecdb_index_info {
    size_t size;           /* in: sizeof(vecdb_index_info) */
    int kind;              /* vecdb_index_kind that is in use: never AUTO */
    int wanted;            /* what the field's definition says, AUTO resolved */
    uint64_t n_vectors;    /* in the field, live */
    uint64_t n_indexed;    /* of these, covered by the index; the rest is scanned */
    uint64_t n_dead;       /* deleted vectors that the index still holds */
    uint64_t memory_bytes; /* of codes and links */
    uint64_t file_bytes;
    int is_building;       /* is this process building it now? */
    float recall_at_10;    /* measured on stored vectors at the default recall; 0: not measured yet */
    /* Why it does not cover more: one sentence, which says how many bytes it needs, and how many are there (the budget
     * is vecdb_options.index_memory_bytes). Empty: nothing keeps it from growing. With a budget too small for
     * what building wants, an index is built without; with one too small for all vectors it covers the oldest,
     * or none. Answers are as good, and take longer. */
    char message[256];
    uint64_t n_in_file;    /* of the vectors, covered by the index file: what a process that begins to search loads */
} vecdb_index_info;
/* An info.size below sizeof(vecdb_index_info), of an older header, gets the members that it has. */
VECDB_API int vecdb_index_describe(vecdb_collection *collection, const char *field, vecdb_index_info *info,
                                   vecdb_error *error);

/* Wait until the index of a field (NULL: of every field) covers all that had been committed when the call began,
 * building it in this call, with all threads that the handle may use. timeout_ms 0: as long as it takes; else TIMEOUT.
 * `work` as for vecdb_compact; its phase is "index". With VECDB_THREADS_NONE this call alone builds graphs.
 * NOMEM: vecdb_options.index_memory_bytes has no room for all; what there is room for is built. */
struct vecdb_work;
VECDB_API int vecdb_index_wait(vecdb_collection *collection, const char *field, uint32_t timeout_ms,
                               const struct vecdb_work *work, vecdb_error *error);

/* What a collection is and holds. Pointers inside are valid during the callback only. */
typedef struct vecdb_field_info {
    vecdb_field field;     /* with all defaults filled in */
    uint64_t n_vectors;    /* live vectors */
    uint64_t n_tail;       /* of these, not yet packed into pages */
    uint64_t n_dead;       /* vectors that were deleted or replaced and still take space in pages */
    uint64_t n_pages;
    uint64_t stored_bytes; /* of the pages */
    uint64_t reserved[4];
} vecdb_field_info;

typedef struct vecdb_collection_info {
    const char *name;
    uint64_t n_records;
    size_t n_fields;
    const vecdb_field_info *fields;
    uint64_t reserved[4];
} vecdb_collection_info;

/* Describe every collection, in the order of their names, all at one state. Anything but 0 from
 * the callback ends the walk with VECDB_INTERRUPTED. The callback must not use `db`. */
typedef int (*vecdb_collection_fn)(void *context, const vecdb_collection_info *info);
VECDB_API int vecdb_collections(vecdb *db, vecdb_collection_fn each, void *context, vecdb_error *error);

/* The same for one collection. */
VECDB_API int vecdb_collection_describe(vecdb_collection *collection, vecdb_collection_fn each, void *context,
                                        vecdb_error *error);

/* ------------------------------------------------------------------- writing */

/* One vector of a record: `dimension` values of `type` for the field called `field`.
 * Values of another type than the field's are converted: to f16 and bf16 by rounding to nearest,
 * to i8 and u8 only when they are whole numbers in range. NaN and infinities are refused, and so
 * is the zero vector under cosine. */
typedef struct vecdb_vector {
    const char *field;  /* NULL: the first field of the collection */
    const void *values; /* NULL: no vector */
    uint32_t dimension; /* checked against the field's; 0: not checked */
    int type;           /* vecdb_type; 0: the field's own */
} vecdb_vector;

/* A record. The vector of the first field goes in `vector` (with `dimension` and `type` as in
 * vecdb_vector), those of other fields, or of all, in `vectors`. */
typedef struct vecdb_record {
    vecdb_key key;
    const void *vector;
    uint32_t dimension;
    int type;
    const vecdb_vector *vectors;
    size_t n_vectors;
    const char *metadata; /* a JSON object; NULL: none */
    size_t metadata_length; /* bytes; 0: ends in NUL */
    const char *text;     /* the document; NULL: none */
    size_t text_length;   /* bytes; 0: ends in NUL */
    uint64_t reserved[2];
} vecdb_record;

/* Store `n_records` records in one transaction: put replaces records whose keys exist (all of
 * the record: its vectors, metadata and text), insert fails with EXISTS and stores none.
 * A key given twice in one call: for put the last one counts, for insert it is an error.
 * Errors: INVALID (names the record by its position and the field), EXISTS, NOT_FOUND (the
 * collection was dropped), BUSY, FULL, READONLY, IO, CORRUPT, NOMEM. Calls of several threads share
 * a disk flush. */
VECDB_API int vecdb_put(vecdb_collection *collection, const vecdb_record *records, size_t n_records,
                        vecdb_error *error);
VECDB_API int vecdb_insert(vecdb_collection *collection, const vecdb_record *records, size_t n_records,
                           vecdb_error *error);

/* Remove the records that have these keys, in one transaction. Keys without a record are no
 * error; `n_deleted` (may be NULL) takes how many records there were. */
VECDB_API int vecdb_delete(vecdb_collection *collection, const vecdb_key *keys, size_t n_keys, uint64_t *n_deleted,
                           vecdb_error *error);

/* The same as put or insert, from columns: for arrays that exist already. */
typedef struct vecdb_vector_column {
    const char *field;  /* NULL: the first field */
    const void *values; /* row i begins at (const char *)values + i * stride */
    size_t stride;      /* bytes from row to row; 0: rows follow each other without gaps */
    uint32_t dimension; /* 0: not checked */
    int type;           /* vecdb_type; 0: the field's own */
} vecdb_vector_column;

typedef struct vecdb_batch {
    size_t size; /* sizeof(vecdb_batch) */
    size_t n_rows;
    const vecdb_key *keys;       /* one of these two: n_rows keys, */
    const int64_t *integer_keys; /* or n_rows integers */
    const vecdb_vector_column *vectors;
    size_t n_vectors;
    const char *const *metadata; /* n_rows JSON objects, each may be NULL; or NULL */
    const char *const *texts;    /* n_rows texts, each may be NULL; or NULL */
    int insert;                  /* 0: put, 1: insert */
} vecdb_batch;

VECDB_API int vecdb_write(vecdb_collection *collection, const vecdb_batch *batch, vecdb_error *error);

/* ------------------------------------------------------------------- reading */

/* Which columns an answer carries besides keys, distances and scores. */
typedef enum vecdb_columns {
    VECDB_COLUMNS_DEFAULT = 0, /* metadata and text */
    VECDB_KEYS_ONLY = 1,       /* nothing else: the fastest */
    VECDB_METADATA = 2,
    VECDB_TEXT = 4,
    VECDB_VECTORS = 8
} vecdb_columns;

/* The records of `n_keys` keys, in that order, all of one state. A key without a record gives a
 * result for which vecdb_result_found() is 0. `columns`: bits of vecdb_columns. */
VECDB_API int vecdb_get(vecdb_collection *collection, const vecdb_key *keys, size_t n_keys, int columns,
                        vecdb_results **results, vecdb_error *error);

/* Walk over records in key order, all of one state. */
typedef struct vecdb_scan_options {
    size_t size; /* sizeof(vecdb_scan_options) */
    int columns;
    const vecdb_key *after; /* begin behind this key; NULL: at the first */
    uint64_t limit;         /* 0: all */
    size_t batch_rows;      /* records a step; 0: 256 */
} vecdb_scan_options;

VECDB_API int vecdb_scan_open(vecdb_collection *collection, const vecdb_scan_options *options, vecdb_scan **scan,
                              vecdb_error *error);

/* The next records; a count of 0 says that there are no more. Each step's results are the
 * caller's, who frees them. */
VECDB_API int vecdb_scan_next(vecdb_scan *scan, vecdb_results **results, vecdb_error *error);
VECDB_API void vecdb_scan_close(vecdb_scan *scan);

/* A search for the k records nearest to each of `n_queries` vectors. */
typedef struct vecdb_query {
    size_t size;        /* sizeof(vecdb_query) */
    const char *field;  /* NULL: the first field */
    const void *vector; /* n_queries rows of the field's dimension */
    size_t n_queries;   /* 0: 1 */
    size_t stride;      /* bytes from row to row; 0: no gaps */
    uint32_t dimension; /* checked against the field's; 0: not checked */
    int type;           /* vecdb_type of the values; 0: f32, and for a field of type bit: bit */
    uint32_t k;         /* 1 .. VECDB_MAX_K */
    uint32_t offset;    /* leave out this many of the nearest */
    int exact;          /* 1: the true nearest, whatever index there is */
    int columns;        /* bits of vecdb_columns */
    int threads;        /* 0: as the database was opened; else at most this many */
    uint32_t timeout_ms; /* TIMEOUT after this long; 0: never */
    float recall;        /* the share of the true nearest k that is asked for, above 0 and up to 1 (1: as `exact`);
                            0: 0.95. What effort that takes the library measures on the stored vectors */
    uint32_t ef;         /* for experts, in place of `recall`: how many candidates a graph's walk keeps; 0: by recall */
} vecdb_query;

/* With an index that covers the field only in part (it is built in the background) the rest is scanned: a record can be
 * found as soon as its transaction has committed, whatever the index.
 * Fewer than k results come back only when fewer than k records have a vector in the field.
 * Records at equal distances are ordered by key. Exact answers are the same, to the bit, on
 * every processor and with any number of threads.
 * Errors: INVALID (wrong dimension, k = 0 or too large, NaN, zero vector under cosine, unknown
 * field), NOT_FOUND, CORRUPT, IO, NOMEM, INTERRUPTED, TIMEOUT. */
VECDB_API int vecdb_search(vecdb_collection *collection, const vecdb_query *query, vecdb_results **results,
                           vecdb_error *error);

/* Results are numbered 0 .. count - 1: of a search, those of the first query come first, each
 * query's by distance. What is out of range, or was not asked for, is NULL or 0. Pointers are
 * valid until vecdb_results_free(). */
VECDB_API size_t vecdb_results_count(const vecdb_results *results);
VECDB_API size_t vecdb_results_queries(const vecdb_results *results);
VECDB_API void vecdb_results_range(const vecdb_results *results, size_t query, size_t *first, size_t *count);
VECDB_API void vecdb_results_free(vecdb_results *results);

VECDB_API int vecdb_result_found(const vecdb_results *results, size_t i);
VECDB_API vecdb_key vecdb_result_key(const vecdb_results *results, size_t i);
VECDB_API const char *vecdb_result_key_text(vecdb_results *results, size_t i); /* an integer key as digits */
VECDB_API double vecdb_result_distance(const vecdb_results *results, size_t i);
VECDB_API double vecdb_result_score(const vecdb_results *results, size_t i);
VECDB_API const char *vecdb_result_metadata(const vecdb_results *results, size_t i, size_t *length);
VECDB_API const char *vecdb_result_text(const vecdb_results *results, size_t i);
VECDB_API size_t vecdb_result_text_length(const vecdb_results *results, size_t i);

/* The record's vector in `field` (NULL: the first), in the field's own type and dimension, which
 * go to `type` and `dimension` (either may be NULL). NULL when it has none. */
VECDB_API const void *vecdb_result_vector(const vecdb_results *results, size_t i, const char *field,
                                          uint32_t *dimension, int *type);

/* What the search did. */
typedef struct vecdb_search_stats {
    size_t size;            /* in: sizeof(vecdb_search_stats) */
    uint64_t n_distances;   /* distances computed by the kernels: of vectors, and of a graph's codes */
    uint64_t n_rescored;    /* distances computed again in double precision */
    uint64_t n_pages;       /* visits to pages: by a scan, once each; for a candidate of a graph, one */
    uint64_t n_decoded;     /* of these, to pages that were decompressed, now or (in the page cache) before */
    uint64_t bytes_scored;  /* bytes of vectors given to the kernels, and of a graph's codes and links */
    uint64_t elapsed_ns;
    uint64_t sequence;      /* the number of the state that was searched */
    const char *plan;       /* "flat": every vector; "hnsw": a graph, and a scan of what it does not cover yet */
    const char *simd;       /* the kernels used: "scalar", "avx2", "avx512", "neon", ... */
    uint64_t n_expanded;    /* nodes of a graph whose links were followed */
    uint64_t n_reranked;    /* candidates whose distance was computed from the vector itself */
    uint64_t n_scanned;     /* vectors that no index covers yet, and that were therefore scanned */
    uint32_t ef;            /* the effort that was chosen; 0: no graph was used */
} vecdb_search_stats;

VECDB_API int vecdb_results_stats(const vecdb_results *results, vecdb_search_stats *stats);

/* ----------------------------------------------------- statistics, maintenance */

typedef struct vecdb_stats {
    size_t size; /* in: sizeof(vecdb_stats) */
    uint64_t sequence;       /* of the last commit */
    uint64_t n_collections;
    uint64_t catalog_bytes;  /* the catalog with its log */
    uint64_t vector_bytes;   /* the vector files */
    uint64_t memory_bytes;   /* held by this handle now */
    uint64_t memory_budget;
    uint64_t cache_hits;     /* of the page cache, since the database was opened */
    uint64_t cache_misses;
    int is_maintainer;       /* does this handle do the background work at the moment? */
    int is_readonly;
    const char *simd;
    /* Of this handle, since it was opened. Rewritten bytes over written ones are the write amplification
     * of compaction. */
    uint64_t vector_bytes_written;   /* pages and footers appended for new vectors */
    uint64_t vector_bytes_rewritten; /* by compaction */
    uint64_t scrubbed_bytes;         /* read by the background scrub */
    uint64_t scrub_rounds;           /* how often it has read everything */
    uint64_t scrub_problems;         /* what it found; the last one is also a background error */
    uint64_t index_bytes;            /* held by indexes now, of vecdb_options.index_memory_bytes */
} vecdb_stats;

/* A stats.size below sizeof(vecdb_stats), of an older header, gets the members that it has. */
VECDB_API int vecdb_database_stats(vecdb *db, vecdb_stats *stats, vecdb_error *error);

/* Long work that a caller asks for. NULL is allowed wherever one is taken. */
typedef struct vecdb_work {
    size_t size; /* sizeof(vecdb_work) */
    vecdb_progress_fn progress;
    void *progress_context;
} vecdb_work;

/* Pack all tails into pages, rewrite pages that hold dead vectors, give the space back to the
 * file system. Reads and writes go on meanwhile. BUSY when another process is doing such work. */
VECDB_API int vecdb_compact(vecdb *db, const vecdb_work *work, vecdb_error *error);

/* One thing that is wrong: where, and what it means. */
typedef enum vecdb_problem_kind {
    VECDB_PROBLEM_DAMAGED = 1,  /* check: bytes are not what was written */
    VECDB_PROBLEM_LOST = 2,     /* repair: could not be saved */
    VECDB_PROBLEM_DOUBTFUL = 3, /* repair: saved, though a checksum over it is wrong: look at it */
    VECDB_PROBLEM_HEALED = 4    /* repair: made anew from the truth, nothing is lost */
} vecdb_problem_kind;

typedef struct vecdb_problem {
    const char *file;       /* "catalog.sqlite", "vectors-3-1", ... */
    const char *message;    /* one sentence */
    int kind;               /* vecdb_problem_kind */
    const char *collection; /* its name; NULL: of none in particular, or not known */
    uint64_t reserved[4];
} vecdb_problem;
typedef void (*vecdb_problem_fn)(void *context, const vecdb_problem *problem);

/* Read every byte and compare it with its checksum, and every table with what it refers to.
 * Returns OK when the check itself could be done; *n_problems tells what it found, `each` (may
 * be NULL) is told of every one: which file, what it means, and which records are affected where that can
 * be told. Named snapshots are checked too. Changes nothing of what is stored; a handle that may write copies
 * the catalog's log into its main file first. */
VECDB_API int vecdb_check(vecdb *db, const vecdb_work *work, vecdb_problem_fn each, void *context,
                          uint64_t *n_problems, vecdb_error *error);

/* Make a damaged database usable again. Nobody may have it open (BUSY). What is derived is made
 * anew; all truth that can be read is copied into a new database beside `path`, of the same format and uuid,
 * which then takes the name, while the damaged one is kept as `path`.damaged-1 (or -2, ...): nothing is
 * ever deleted. So it needs as much room again. Where nothing is wrong nothing is done.
 * `each` is told of every loss, by collection and key where these are known; *n_lost (may be NULL)
 * counts the problems of kind LOST. `options` as for vecdb_open; mode and snapshot are not looked at.
 * Errors: NOT_FOUND, BUSY, DENIED, FULL, IO, NOMEM, CORRUPT (nothing in it can be read), NEWER and
 * UNSUPPORTED (as for vecdb_open). Any thread. */
VECDB_API int vecdb_repair(const char *path, const vecdb_options *options, const vecdb_work *work,
                           vecdb_problem_fn each, void *context, uint64_t *n_lost, vecdb_error *error);

/* ------------------------------------------------- backup, restore, snapshots */

typedef struct vecdb_backup_options {
    size_t size; /* sizeof(vecdb_backup_options) */
    int link;    /* 1: share finished vector files with the original by hard links where the file system
                    can (quick and small, but damage to such a file is damage to both); 0: copy */
    vecdb_progress_fn progress; /* phase "backup" or "restore", in bytes */
    void *progress_context;
} vecdb_backup_options;

/* Write the database as of now into the new directory `path` (or an empty one), while others read and
 * write. The copy is a database like any other, complete and synced when the call returns; until then it
 * cannot be opened. Named snapshots are not copied. A handle that was opened on a snapshot copies that.
 * `options` may be NULL. Errors: EXISTS, INVALID, FULL, DENIED, IO, CORRUPT (a page of the original is
 * damaged: nothing damaged is copied silently), INTERRUPTED. On failure what was made is removed. */
VECDB_API int vecdb_backup(vecdb *db, const char *path, const vecdb_backup_options *options, vecdb_error *error);

/* Put the database in directory `backup` at `path`. A database that is there is kept as `path`.replaced-1
 * (or -2, ...); nobody may have it open (BUSY). The backup stays as it is. */
VECDB_API int vecdb_restore(const char *backup, const char *path, const vecdb_backup_options *options,
                            vecdb_error *error);

/* Keep the database as it is now under a name, inside of its own directory. Reading it:
 * vecdb_options.snapshot. Vector files are shared, the catalog is copied; space that compaction gives back is
 * only free when the last snapshot that needs it is dropped. Names are as those of collections.
 * EXISTS when the name is taken; NOT_FOUND. A snapshot that a process has open may be dropped: that
 * handle reads on, its space is freed when it is closed. */
VECDB_API int vecdb_snapshot_create(vecdb *db, const char *name, vecdb_error *error);
VECDB_API int vecdb_snapshot_drop(vecdb *db, const char *name, vecdb_error *error);

typedef struct vecdb_snapshot_info {
    const char *name;     /* valid during the callback */
    uint64_t sequence;    /* the number of the state it holds */
    int64_t created;      /* seconds since 1970, UTC, by the clock of the machine that made it */
    uint64_t reserved[4];
} vecdb_snapshot_info;

/* Describe every snapshot, the oldest first. Anything but 0 from the callback ends the walk with
 * VECDB_INTERRUPTED. The callback must not use `db`. */
typedef int (*vecdb_snapshot_fn)(void *context, const vecdb_snapshot_info *info);
VECDB_API int vecdb_snapshots(vecdb *db, vecdb_snapshot_fn each, void *context, vecdb_error *error);

#ifdef __cplusplus
}
#endif

#endif /* VECDB_H */
