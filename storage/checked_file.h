/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/checked_file.h - what the files of the shim share: checked.c, checked_wal.c, checked_gather.c,
 * checked_scrub.c
 *
 *     | struct checked_file | the file of the VFS beneath |      one piece of memory, SQLite's
 */
#ifndef VDB_STORAGE_CHECKED_FILE_H
#define VDB_STORAGE_CHECKED_FILE_H

#include <pthread.h>
#include <stdatomic.h>

#include "checked.h"
#include "checked_locks.h"

#define PAGE_BYTES VDB_CATALOG_PAGE_BYTES
#define SUMMED_BYTES (PAGE_BYTES - VDB_CATALOG_RESERVE_BYTES)
#define LOCK_PAGE (0x40000000 / PAGE_BYTES + 1) /* SQLite keeps its lock bytes there and never any data */

/* The WAL: a header, then frames of a header and a page each. */
#define WAL_HEADER_BYTES 32
#define FRAME_HEADER_BYTES 24
#define FRAME_BYTES (FRAME_HEADER_BYTES + PAGE_BYTES)

struct vdb_checked {
    sqlite3_vfs vfs; /* as registered; pAppData points here */
    char name[32];
    struct vdb_memory *memory;
    struct vdb_state *state;
    sqlite3_vfs *base;
    const struct vdb_io_hook *hook;
    char *path;     /* the catalog's, as SQLite will name it */
    char *wal_path; /* a name that SQLite's VFS takes for a WAL's */
    bool readonly;
    bool is_on_disk; /* `base` is a VFS of SQLite's own */
    bool has_locks; /* the locks of main files are ours, not those of `base` */
    _Atomic bool is_encrypted;
    _Atomic uint64_t n_read, n_written;
    _Atomic unsigned n_barriers;
    pthread_mutex_t mutex; /* of what follows */
    bool damaged;
    char sentence[256];
};

enum file_kind { FILE_MAIN, FILE_WAL, FILE_OTHER };

struct checked_file {
    sqlite3_file file;
    struct vdb_checked *checked;
    sqlite3_file *inner; /* the file of the VFS beneath */
    const char *name;    /* SQLite's, valid while the file is open; NULL for a temporary file */
    enum file_kind kind;
    bool is_catalog;            /* kind MAIN: not an attached or a backup file */
    bool in_checkpoint;         /* from SQLITE_FCNTL_CKPT_START to the sync that completes it */
    bool mark_failed;           /* the mark could not be set: nothing may be copied */
    int fault;                  /* which SQLITE_IOERR_* or SQLITE_FULL to answer then */
    bool wal_seen;              /* kind MAIN: SQLite has looked into the WAL, with or without `index` */
    const volatile void *index; /* kind MAIN: region 0 of the WAL's index, when it is mapped */
    struct checked_file *main;  /* kind WAL: the main file of the same connection */
    struct checked_file *wal;   /* kind MAIN: the WAL of the same connection, while it is open */
    unsigned char *gathered;    /* kind WAL: frames that are to be written in one piece; NULL: never any */
    int n_gathered;             /* ... so many bytes */
    sqlite3_int64 gathered_at;  /* ... to here */
    sqlite3_int64 written_to;   /* kind WAL: the end of what this transaction has written, gathered or not */
    struct vdb_locks locks;     /* kind MAIN, when the shim has the locks */
    unsigned char *page;        /* for copies. Kind MAIN: PAGE_BYTES; WAL: two frames less 16 bytes */
};

/* Note a sentence ("catalog.sqlite: " is put in front of it) and return SQLITE_IOERR_DATA. */
int vdb_checked_note(struct vdb_checked *checked, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Ask the hook. SQLITE_OK or the code to answer. */
int vdb_checked_fault(struct vdb_checked *checked, enum vdb_io_op op, const char *name, int code);

/* What SQLite writes to a WAL: gathered until a commit is complete. Flush: write what is gathered. Forget: the write
 * transaction has ended, drop what is left of it. */
int vdb_checked_gather(struct checked_file *wal, const void *bytes, int n_bytes, sqlite3_int64 offset);
int vdb_checked_flush(struct checked_file *wal);
void vdb_checked_forget(struct checked_file *wal);

bool vdb_checked_page_is_good(const unsigned char *page, uint32_t number);

/* Read PAGE_BYTES from `offset` of a WAL, and verify them when they are the page of a committed frame. */
int vdb_checked_read_page(struct checked_file *wal, unsigned char *page, sqlite3_int64 offset);

/* Pages that the last commit left the database with, as the WAL's index says; 0: it does not say. */
uint32_t vdb_checked_committed_pages(const struct checked_file *main);

/* What the WAL's index says: committed frames, and salt-2. False when it is not mapped. */
bool vdb_checked_index(const struct checked_file *main, uint32_t *n_frames, uint32_t *salt2);

/* Walk the frames of a WAL from its header on while their sums and salts are right, up to `n_wanted`.
 * SQLite's code. */
struct vdb_wal_walk {
    bool header_is_good;
    uint32_t salt2; /* the header's */
    uint32_t n_valid;
};
int vdb_checked_walk_wal(struct vdb_checked *checked, sqlite3_file *wal, uint32_t n_wanted, struct vdb_wal_walk *walk);
/* The same from frame `first` (from 0) on, whose stored sum before it is relied upon; n_valid counts from 0. */
int vdb_checked_walk_frames(struct vdb_checked *checked, sqlite3_file *wal, uint32_t first, uint32_t n_wanted,
                            struct vdb_wal_walk *walk);

#endif
