/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/state.h - the file `state`: one page of memory that all processes of a database share
 *
 * It holds what SQLite has no place for (bytes in FORMAT.md, "state"):
 *   sequence     the number of the last commit: one 64-bit word, 48 bits of number and 16 bits of
 *                check, raised by compare-and-swap maximum after the commit. Whoever sees the same
 *                word has missed nothing.
 *   durable      the number of the last commit known to be on stable storage, a word alike. A catalog
 *                that opens below it has lost commits: it is damaged, not merely older. (Commits
 *                without full durability raise only the first: a power cut may take them back.)
 *   mark         {frames, salt-2 of the WAL} while a checkpoint copies the WAL into the main file,
 *                synced when it is set and again when it is cleared (both: CATALOG.md, section 2).
 *                A catalog that opens with a mark must find that many valid frames.
 *   locks        open-file-description locks on bytes of the file: the turnstile A, the write lock
 *                B, the maintainer's lock M. A waiter takes A, then B, then gives A back, so that a
 *                writer that has just finished cannot overtake the one that waits. Every object
 *                shares lock U while it lives; who replaces the whole database holds it alone.
 *                A reader that has no other locks (catalog_open.c, invariant 3) shares lock S for a
 *                transaction; a checkpoint, which changes the main file, holds it alone.
 *
 * A missing file is made anew (sequence 0: nothing is known); one of another database is refused.
 * Unused bytes are zero, and are checked to be. Where the file cannot be written (no permission, a
 * read-only file system) it is mapped read-only and locks answer READONLY.
 *
 * Load the sequence BEFORE the snapshot it is compared with: the other order gives false alarms.
 * Threads of one process exclude each other by mutexes in this object; the OFD locks are between
 * objects. The descriptor is O_CLOEXEC; vdb_state_forked, called in the child of a fork, closes it.
 */
#ifndef VDB_STORAGE_STATE_H
#define VDB_STORAGE_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/memory.h"
#include "vfs.h"
#include "vecdb.h"

#define VDB_STATE_BYTES 4096
/* How sentences about version 0 end, which was never released. */
#define VDB_OF_A_PREVIEW                                                                                               \
    "of a preview of the library; this one reads version 1: export the database with that preview, and import it here"

struct vdb_state;

struct vdb_state_options {
    struct vdb_memory *memory;
    const char *path;                /* of the file; NULL: in memory only (":memory:"), never shared */
    bool readonly;                   /* never write */
    const struct vdb_io_hook *hook;  /* NULL, or faults for tests */
};

/* Hold a database alone, whatever its bytes are: makes the file when it is missing, and takes lock U. BUSY
 * when somebody has the database open. Given back by vdb_state_release_all, also when the file has another
 * name by then. */
int vdb_state_seize(const char *path, int *fd, vecdb_error *err);
void vdb_state_release_all(int fd);
/* The file of a copy of a database that was seized: it knows the copy's uuid and number. Synced. */
int vdb_state_fill(const char *path, int fd, const unsigned char uuid[16], uint64_t sequence,
                   const struct vdb_io_hook *hook, vecdb_error *err);

/* Open or make the file. Its uuid is zero when new; vdb_state_adopt gives it one. */
int vdb_state_open(const struct vdb_state_options *options, struct vdb_state **state, vecdb_error *err);
void vdb_state_close(struct vdb_state *state);  /* gives back all locks; NULL is allowed */
void vdb_state_forked(struct vdb_state *state); /* async-signal-safe */

/* Has nobody else the database open at this moment? Also false where that cannot be told. */
bool vdb_state_is_alone(const struct vdb_state *state);

/* Compare the file's uuid with the catalog's, or write it into a new file. CORRUPT when it is
 * another's. */
int vdb_state_adopt(struct vdb_state *state, const unsigned char uuid[16], vecdb_error *err);

/* Its uuid, zeros when it has none yet. */
void vdb_state_uuid(const struct vdb_state *state, unsigned char uuid[16]);
/* False: it was opened read-only, or lies where we may not write. */
bool vdb_state_writable(const struct vdb_state *state);

/* The last commit, and the last durable one. CORRUPT when a word's check fails. */
int vdb_state_sequence(const struct vdb_state *state, uint64_t *sequence, vecdb_error *err);
int vdb_state_durable(const struct vdb_state *state, uint64_t *sequence, vecdb_error *err);
/* All of the page, as it is now: header, numbers, mark, zeros. CORRUPT says what is wrong. */
int vdb_state_check(const struct vdb_state *state, vecdb_error *err);
/* The word itself, unchecked: equal words, equal states. One atomic load. */
uint64_t vdb_state_word(const struct vdb_state *state);
void vdb_state_raise(struct vdb_state *state, uint64_t sequence);
void vdb_state_raise_durable(struct vdb_state *state, uint64_t sequence);
/* After a power cut took back commits that were not durable: replace `word`, if it is still there. */
void vdb_state_lower(struct vdb_state *state, uint64_t word, uint64_t sequence);

/* Did the last sync of the WAL, of whichever process, fail, or not come to its end? For the holder of the gate. */
void vdb_state_set_doubt(struct vdb_state *state, bool doubt);
bool vdb_state_doubt(const struct vdb_state *state);

/* The checkpoint mark. set and clear sync the file. */
int vdb_state_set_mark(struct vdb_state *state, uint32_t n_frames, uint32_t salt2, vecdb_error *err);
int vdb_state_clear_mark(struct vdb_state *state, vecdb_error *err);
bool vdb_state_get_mark(const struct vdb_state *state, uint32_t *n_frames, uint32_t *salt2);

/* The writers' gate (A then B). Waits up to wait_ms (0: not at all), then BUSY. */
int vdb_state_lock_gate(struct vdb_state *state, uint32_t wait_ms, vecdb_error *err);
void vdb_state_unlock_gate(struct vdb_state *state);

/* The lock of who builds graphs and writes index files. False: another object has it, or nothing can be written. */
bool vdb_state_try_builder(struct vdb_state *state);
void vdb_state_release_builder(struct vdb_state *state);
/* Does another object have it at this moment? */
bool vdb_state_builds_elsewhere(const struct vdb_state *state);

/* The main file stands still: shared by those who read it without SQLite's locks, held alone by who checkpoints.
 * False: the other one has it. True too where there are no such locks. One _try_move at a time. */
bool vdb_state_hold_still(struct vdb_state *state);
void vdb_state_release_still(struct vdb_state *state);
bool vdb_state_try_move(struct vdb_state *state);
void vdb_state_end_move(struct vdb_state *state);

/* The maintainer's lock. BUSY: another object has it; it is not waited for. READONLY; or what went wrong. */
int vdb_state_try_maintainer(struct vdb_state *state, vecdb_error *err);
void vdb_state_release_maintainer(struct vdb_state *state);

#endif
