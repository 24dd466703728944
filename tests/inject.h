/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/inject.h - libc that fails on demand, beneath everything: our library, SQLite, zstd
 *
 * A test program that uses this has malloc, open, pread, fsync, mmap and their like replaced by functions that ask
 * first whether this is the call to fail. They count only between inject_enter and inject_leave, which the test
 * puts around its calls of the library. Sites are told apart by who called: the nearest functions of ours on the
 * stack. To fail the first call of each site is to have every site fail once.
 *
 * With VECDB_FAULT_SITES=file the stack of every call that was failed is added to that file, for
 * tests/fault_sites.py to compare with the sources; and what is watched then is not every stack, but each that has
 * a call in it which none before had, in any life of the process: all places, not all ways to them.
 *
 * Not for sanitizers, which replace the same functions (INJECT_WORKS is 0 there).
 */
#ifndef VDB_TESTS_INJECT_H
#define VDB_TESTS_INJECT_H

#include <stdbool.h>
#include <stddef.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__linux__)
#define INJECT_WORKS 0
#else
#define INJECT_WORKS 1
#endif

enum inject_what {
    INJECT_NOTHING,
    INJECT_MEMORY, /* allocations */
    INJECT_FILES,  /* whatever touches files */
    INJECT_READS,  /* pread; half is read */
    INJECT_WRITES, /* pwrite; half is written */
    INJECT_SYNCS   /* fsync and fdatasync */
};

#define INJECT_SHORT (-1) /* in place of an errno: half of it is done, and no error */

/* From now on call number `first` and those that follow it, n_failing in all, fail with os_error. */
void inject_begin(enum inject_what what, int os_error, long first, long n_failing);
/* Nothing fails; *n_sites numbers of first calls, one for each site, are noted in `firsts`. */
void inject_watch(enum inject_what what, long *firsts, size_t capacity);
size_t inject_end(void); /* of watching: how many sites there were */

void inject_enter(void);
void inject_leave(void);

bool inject_has_failed(void);     /* since inject_begin */
const char *inject_failed(void);  /* the name of the function that failed last */

#endif
