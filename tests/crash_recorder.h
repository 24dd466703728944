/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/crash_recorder.h - the file calls of this process, written into a journal
 *
 * A test that is linked with crash_recorder.o has its open, write, ftruncate, fsync, unlink, ... replaced, for
 * itself and for every shared library in it, SQLite's VFS included: symbols of an executable come before
 * those of the libraries. The calls do what they always did, but for syncing, which does nothing real:
 * what a sync keeps is decided by the simulated disk. Below the directory that is recorded, each call that
 * changed something becomes an event.
 *
 * Stores into a shared, writable mapping are not calls. Such files are looked at whenever an event comes, and
 * words that have changed become writes. SQLite's -shm is not looked at: it means nothing after a restart.
 */
#ifndef VDB_TESTS_CRASH_RECORDER_H
#define VDB_TESTS_CRASH_RECORDER_H

#include "crash_journal.h"

/* Record what happens below `root`, an absolute path without links. What is there already is told by
 * events of the journal's beginning, and is durable. */
void crash_record_begin(const char *root, struct crash_journal *journal);
void crash_record_end(void);

/* Look at mapped files now. */
void crash_record_look(void);

/* Let the `count`-th sync from now on fail, once, with EIO; 0: none. */
void crash_record_fail_sync(unsigned count);
unsigned crash_record_failed_syncs(void); /* since recording began */

/* NULL, or a sentence: how the files below root differ from what the journal says. What was
 * written past us would be found here. */
const char *crash_record_compare(void);

#endif
