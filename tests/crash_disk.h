/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/crash_disk.h - a disk that loses power
 *
 *     journal ->  disk, at some event  ->  a directory with files as they may lie on disk after a power cut there
 *
 * For each file: what it holds now; what is durable; and which writes are on the way between the two. For
 * names alike. The model is as mean as POSIX permits:
 *   1. Bytes are durable when a sync of their file has returned, names when one of their directory has.
 *   2. Before that, each sector of 512 bytes is on disk in any of its versions since the last sync, whatever
 *      its neighbours are; or is torn: the beginning of one version, the end of another.
 *   3. The length of a file is any that it had since the last sync. Sectors inside that were not written
 *      are zeros, or whatever lay there.
 *   4. Names were made, removed and changed, or were not, one by one, in the order of calls or not.
 *   5. What a failed sync left behind has the fate of unsynced bytes for ever, until its page of 4,096 bytes
 *      is written again and synced: Linux takes such pages for clean.
 * `state` alone is never torn inside of a sector: its page is written in place, and no drive that is made
 * tears what it promises to write as one.
 */
#ifndef VDB_TESTS_CRASH_DISK_H
#define VDB_TESTS_CRASH_DISK_H

#include "crash_journal.h"

/* How a power cut treats what is not durable. */
enum crash_variant {
    CRASH_LOST,    /* nothing of it is there */
    CRASH_KEPT,    /* all of it is there, as after kill -9 */
    CRASH_ORDERED, /* all up to some moment */
    CRASH_MIXED,   /* any part of it */
    CRASH_TORN,    /* any part of it, with torn sectors, and garbage where nothing was written */
    CRASH_N_VARIANTS
};
extern const char *const crash_variant_names[CRASH_N_VARIANTS];

struct crash_disk;

struct crash_disk *crash_disk_new(const struct crash_journal *journal);
void crash_disk_free(struct crash_disk *disk);

/* Let events before `n_events` happen; never fewer than happened already. */
void crash_disk_advance(struct crash_disk *disk, size_t n_events);

/* Cut the power: write what is then on the disk into `directory`, which is made. The same seed gives the
 * same files. The disk itself goes on. */
void crash_disk_cut(const struct crash_disk *disk, int variant, uint64_t seed, const char *directory);

#endif
