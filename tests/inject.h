/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/inject.h - libc that fails on demand, beneath everything: our library, SQLite, zstd
 *
 * A test program that uses this has malloc, open, pread, fsync, mmap and their like replaced by functions that ask
 * first whether this is the call to fail. They count only between inject_enter and inject_leave, which the test
 * puts around its calls of the library. Sites are told apart by who called: the nearest functions of ours on the
 * stack. To fail the first call of each site is to have every site fail once.
 *
 * For the record of all places of the sources, VECDB_FAULT_WANTED names a file of their addresses, which
 * tests/fault_sites.py wrote, and what is failed is added to the file that VECDB_FAULT_SITES names. No numbers of
 * calls then: a life is lived again and again, and the first call fails that comes from a place that has not failed
 * yet (inject_begin_new), until there is none.
 *
 * Sanitizers replace the same functions (INJECT_WORKS is 0 there). With them only the allocator that a test hands to
 * the library can fail, by numbers (inject_refuses_memory), and nothing can be arranged.
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
size_t inject_end(void); /* of watching: how many sites there were; where INJECT_WORKS is 0, allocations */

/* How a life of the record goes wrong. Each way has places of its own that it began at. */
enum inject_way {
    INJECT_ONCE,     /* the first call from a place that no life failed at */
    INJECT_FOR_GOOD, /* the first from a place that no such life began at, and all that follow */
    INJECT_AGAIN,    /* the same, and of those that follow the first that no life failed at: places that clean up */
    INJECT_WAYS
};
bool inject_records(void); /* is there a file of wanted places? It is read then, for this process and its children */
void inject_begin_new(enum inject_what what, int os_error, enum inject_way way);

/* What happens once, whatever else is to fail: before the next call of a function whose name has `name` in it, `happen`
 * is called, in which nothing fails. The call fails with the errno that it returns; 0: it goes on; INJECT_LATER: it
 * goes on, and the next one asks again. So a failure of one kind can follow one of another, and what others do comes
 * between two calls of the library's. A NULL name: nothing is to happen any more. */
#define INJECT_LATER (-2)
void inject_arrange(const char *name, int (*happen)(void *context), void *context);
bool inject_has_arranged(void); /* has a call failed so, since inject_begin? */

/* Asked by a test's own allocator: is this the call to fail? Only where INJECT_WORKS is 0, else malloc itself fails. */
bool inject_refuses_memory(void);

void inject_enter(void);
void inject_leave(void);

bool inject_has_failed(void);     /* since inject_begin */
const char *inject_failed(void);  /* the name of the function that failed last */

#endif
