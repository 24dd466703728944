/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/inject.c - libc that fails on demand (see inject.h)
 *
 * The functions of these names here come before libc's, for all libraries of the process; the real ones are
 * found with dlsym. What the test itself, the stack walk or dlsym ask for is served without a question.
 */
#include "inject.h"

#if INJECT_WORKS

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEPTH 48
#define MOST_SITES 8192
#ifdef __OPTIMIZE__
#define KEY_FRAMES 5 /* two of them are the test's own allocator */
#else
#define KEY_FRAMES 9 /* more of the functions that are in the way: allocator, vfs */
#endif

extern char __executable_start, etext;

static _Atomic int entered;
static _Thread_local int inside; /* of these functions, or of what they call */
static enum inject_what what_fails;
static int fail_with;
static _Atomic long n_calls;
static long first_failing, n_in_a_row;
static _Atomic bool failed;
static const char *failed_name = "";
static long *first_calls;
static size_t n_sites, site_capacity;
static uint64_t site_keys[MOST_SITES];

static const char *_Atomic arranged_at; /* a part of a name; NULL: nothing is arranged */
static int (*arranged)(void *context);
static void *arranged_context;
static _Atomic bool has_arranged;

/* The places of the record, in the order of their addresses. */
struct place {
    unsigned long address; /* of the call's last byte, from the start of the program */
    char kind;             /* m: asks for memory, f: touches files, S: SQLite does either */
    bool has_failed;
    bool began[INJECT_WAYS];
};
static struct place *places; /* shared with the children of this process, each of which lives a life */
static size_t n_places;
static bool fails_new;
static enum inject_way way_of_failing;
static int n_new_failed; /* of this life */
static atomic_flag places_busy = ATOMIC_FLAG_INIT;

bool inject_refuses_memory(void)
{
    return false;
}

void inject_enter(void)
{
    entered++;
}

void inject_leave(void)
{
    entered--;
}

bool inject_has_failed(void)
{
    return failed;
}

const char *inject_failed(void)
{
    return failed_name;
}

void inject_begin(enum inject_what what, int os_error, long first, long n_failing)
{
    what_fails = what;
    fail_with = os_error;
    first_failing = first;
    n_in_a_row = n_failing;
    n_calls = 0;
    failed = false;
    fails_new = false;
    first_calls = NULL;
    arranged_at = NULL;
    has_arranged = false;
}

void inject_arrange(const char *name, int (*happen)(void *context), void *context)
{
    arranged = happen;
    arranged_context = context;
    arranged_at = name;
}

bool inject_has_arranged(void)
{
    return has_arranged;
}

void inject_watch(enum inject_what what, long *firsts, size_t capacity)
{
    inject_begin(what, 0, 0, 0);
    first_calls = firsts;
    site_capacity = capacity < MOST_SITES ? capacity : MOST_SITES;
    n_sites = 0;
}

size_t inject_end(void)
{
    what_fails = INJECT_NOTHING;
    first_calls = NULL;
    return n_sites;
}

/* ------------------------------------------------------------------ the stack */

static bool is_ours(const void *address)
{
    return (const char *)address >= &__executable_start && (const char *)address < &etext;
}

/* The frames of the executable, without those of this file, which are the first `skip` ones. */
static int walk(void **ours, int most)
{
    void *frames[DEPTH];
    int n = backtrace(frames, DEPTH), n_ours = 0;
    for (int i = 3; i < n && n_ours < most; i++)
        if (is_ours(frames[i]))
            ours[n_ours++] = frames[i];
    return n_ours;
}

static void note_site(const char *name, long number)
{
    void *ours[KEY_FRAMES] = {NULL};
    walk(ours, KEY_FRAMES);
    uint64_t key = (uint64_t)(uintptr_t)name;
    for (int i = 0; i < KEY_FRAMES; i++)
        key = (key ^ (uint64_t)(uintptr_t)ours[i]) * 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i < n_sites; i++)
        if (site_keys[i] == key)
            return;
    if (n_sites < site_capacity) {
        site_keys[n_sites] = key;
        first_calls[n_sites++] = number;
    }
}

/* ------------------------------------------------------------------ the record */

/* Lines of a kind and an address, sorted. */
static void read_places(void)
{
    FILE *file = fopen(getenv("VECDB_FAULT_WANTED"), "re");
    char kind;
    unsigned long address;
    places = mmap(NULL, MOST_SITES * sizeof *places, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    while (file && places != MAP_FAILED && n_places < MOST_SITES && fscanf(file, " %c %lx", &kind, &address) == 2)
        places[n_places++] = (struct place){.address = address, .kind = kind};
    if (file)
        fclose(file);
}

bool inject_records(void)
{
    bool records = getenv("VECDB_FAULT_WANTED") && getenv("VECDB_FAULT_SITES");
    if (records && !places)
        read_places();
    return records;
}

void inject_begin_new(enum inject_what what, int os_error, enum inject_way way)
{
    inject_begin(what, os_error, 0, 0);
    way_of_failing = way;
    n_new_failed = 0;
    fails_new = true;
}

static struct place *find_place(const void *return_address)
{
    unsigned long address = (unsigned long)((const char *)return_address - &__executable_start - 1);
    size_t low = 0, high = n_places;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (places[middle].address < address)
            low = middle + 1;
        else
            high = middle;
    }
    bool counts = low < n_places && places[low].address == address &&
                  (places[low].kind == 'S' || (places[low].kind == 'm') == (what_fails == INJECT_MEMORY));
    return counts ? &places[low] : NULL;
}

static void log_place(const struct place *place, const char *name)
{
    char line[64];
    int used = snprintf(line, sizeof line, "%s %lx\n", name, place->address);
    int (*real_open)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
    int fd = real_open(getenv("VECDB_FAULT_SITES"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd >= 0 && write(fd, line, (size_t)used) < 0)
        used = 0;
    if (fd >= 0)
        close(fd);
}

/* Is this the call to fail, by where it comes from? */
static bool is_new(const char *name)
{
    void *ours[DEPTH];
    bool is_first = !n_new_failed, fails = !is_first && way_of_failing == INJECT_FOR_GOOD;
    if (!is_first && way_of_failing == INJECT_ONCE)
        return false;
    if (n_new_failed > 1 && !fails)
        return false;
    int n = walk(ours, DEPTH);
    while (atomic_flag_test_and_set(&places_busy))
        ;
    for (int i = 0; i < n && !fails; i++) {
        struct place *place = find_place(ours[i]);
        if (place)
            fails = is_first && way_of_failing != INJECT_ONCE ? !place->began[way_of_failing] : !place->has_failed;
    }
    for (int i = 0; i < n && fails; i++) {
        struct place *place = find_place(ours[i]);
        if (!place)
            continue;
        if (is_first)
            place->began[way_of_failing] = true;
        if (!place->has_failed)
            log_place(place, name);
        place->has_failed = true;
    }
    n_new_failed += fails;
    atomic_flag_clear(&places_busy);
    return fails;
}

static int do_arranged(const char *name)
{
    const char *part = arranged_at;
    if (!part || !entered || inside || !strstr(name, part))
        return 0;
    inside++;
    int answer = arranged(arranged_context);
    inside--;
    if (answer == INJECT_LATER)
        return 0;
    arranged_at = NULL;
    has_arranged |= answer != 0;
    return answer;
}

/* 0: go on. Else what to fail with. */
static __attribute__((noinline)) int ask(enum inject_what kind, const char *name)
{
    bool counts = what_fails == kind || (what_fails == INJECT_FILES && kind > INJECT_FILES);
    int answer = arranged_at ? do_arranged(name) : 0;
    if (answer)
        return answer;
    if (!counts || !entered || inside)
        return 0;
    inside++;
    long number = atomic_fetch_add(&n_calls, 1);
    if (first_calls)
        note_site(name, number);
    else if (fails_new ? is_new(name) : number >= first_failing && number < first_failing + n_in_a_row) {
        failed = true;
        failed_name = name;
        answer = fail_with;
    }
    inside--;
    return answer;
}

/* The real function of a name, looked up once. */
#define REAL(type, name, ...)                                                                                          \
    static type (*real)(__VA_ARGS__);                                                                                  \
    if (!real) {                                                                                                       \
        inside++;                                                                                                      \
        real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name);                                                          \
        inside--;                                                                                                      \
    }

/* What other libraries are to find before libc's must be seen from outside of the program. */
#pragma GCC visibility push(default)

/* ------------------------------------------------------------------ memory */

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *block, size_t size);

/* CRoaring 0.2.66 looks whether it got memory only where it makes a set. */
static bool caller_can_bear_it(const void *caller)
{
    enum { KNOWN_CALLERS = 256 };
    static _Thread_local struct { /* asking takes longer than the call */
        const void *caller;
        bool can_bear_it;
    } known[KNOWN_CALLERS];
    Dl_info info;
    if (is_ours(caller) || inside || !entered || what_fails != INJECT_MEMORY)
        return true;
    unsigned place = (unsigned)((uintptr_t)caller >> 2) % KNOWN_CALLERS;
    if (known[place].caller == caller)
        return known[place].can_bear_it;
    inside++;
    bool is_roaring = dladdr(caller, &info) && info.dli_fname && strstr(info.dli_fname, "roaring");
    bool is_new = is_roaring && info.dli_sname &&
                  (!strncmp(info.dli_sname, "roaring_bitmap_create", 21) ||
                   !strcmp(info.dli_sname, "roaring_bitmap_copy"));
    inside--;
    known[place].caller = caller;
    known[place].can_bear_it = !is_roaring || is_new;
    return known[place].can_bear_it;
}

#define ASK_MEMORY(name) (caller_can_bear_it(__builtin_return_address(0)) && ask(INJECT_MEMORY, name))

void *malloc(size_t size)
{
    if (ASK_MEMORY("malloc")) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    if (ASK_MEMORY("calloc")) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_calloc(n, size);
}

void *realloc(void *block, size_t size)
{
    if (ASK_MEMORY("realloc")) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_realloc(block, size);
}

/* ------------------------------------------------------------------ files */

#define FAIL_IF_ASKED(kind, name, failure)                                                                             \
    do {                                                                                                               \
        int os_error = ask(kind, name);                                                                                \
        if (os_error && os_error != INJECT_SHORT) {                                                                    \
            errno = os_error;                                                                                          \
            return failure;                                                                                            \
        }                                                                                                              \
    } while (0)

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...)                                                                         \
    {                                                                                                                  \
        va_list args;                                                                                                  \
        va_start(args, flags);                                                                                         \
        mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;                                                      \
        va_end(args);                                                                                                  \
        REAL(int, name, const char *, int, ...)                                                                        \
        FAIL_IF_ASKED(INJECT_FILES, "open", -1);                                                                       \
        return real(path, flags, mode);                                                                                \
    }
OPEN(open)
OPEN(open64)

/* fcntl for locks and for descriptors; the third argument is a pointer or an int. */
#define FCNTL(name)                                                                                                    \
    int name(int fd, int command, ...)                                                                                 \
    {                                                                                                                  \
        va_list args;                                                                                                  \
        va_start(args, command);                                                                                       \
        void *argument = va_arg(args, void *);                                                                         \
        va_end(args);                                                                                                  \
        REAL(int, name, int, int, ...)                                                                                 \
        bool is_unlock = (command == F_OFD_SETLK || command == F_SETLK) &&                                             \
                         ((struct flock *)argument)->l_type == F_UNLCK; /* which cannot fail */                        \
        if (!is_unlock)                                                                                                \
            FAIL_IF_ASKED(INJECT_FILES, "fcntl", -1);                                                                  \
        return real(fd, command, argument);                                                                            \
    }
FCNTL(fcntl)
FCNTL(fcntl64)

#define TRANSFER(name, kind, pointer, offset_type)                                                                     \
    ssize_t name(int fd, pointer bytes, size_t n_bytes, offset_type offset)                                            \
    {                                                                                                                  \
        REAL(ssize_t, name, int, pointer, size_t, offset_type)                                                         \
        int os_error = ask(kind, #name);                                                                               \
        if (os_error == INJECT_SHORT && n_bytes > 1)                                                                   \
            return real(fd, bytes, n_bytes / 2, offset);                                                               \
        if (os_error && os_error != INJECT_SHORT) {                                                                    \
            errno = os_error;                                                                                          \
            return -1;                                                                                                 \
        }                                                                                                              \
        return real(fd, bytes, n_bytes, offset);                                                                       \
    }
TRANSFER(pread, INJECT_READS, void *, off_t)
TRANSFER(pread64, INJECT_READS, void *, off64_t)
TRANSFER(pwrite, INJECT_WRITES, const void *, off_t)
TRANSFER(pwrite64, INJECT_WRITES, const void *, off64_t)

#define SYNC(name)                                                                                                     \
    int name(int fd)                                                                                                   \
    {                                                                                                                  \
        REAL(int, name, int)                                                                                           \
        FAIL_IF_ASKED(INJECT_SYNCS, #name, -1);                                                                        \
        return real(fd);                                                                                               \
    }
SYNC(fsync)
SYNC(fdatasync)

#define PATHS(type, name, failure, parameters, ...)                                                                    \
    type name parameters                                                                                               \
    {                                                                                                                  \
        static type(*real) parameters;                                                                                 \
        if (!real) {                                                                                                   \
            inside++;                                                                                                  \
            real = (type(*) parameters)dlsym(RTLD_NEXT, #name);                                                        \
            inside--;                                                                                                  \
        }                                                                                                              \
        FAIL_IF_ASKED(INJECT_FILES, #name, failure);                                                                   \
        return real(__VA_ARGS__);                                                                                      \
    }
PATHS(int, ftruncate, -1, (int fd, off_t n), fd, n)
PATHS(int, ftruncate64, -1, (int fd, off64_t n), fd, n)
PATHS(int, fstat, -1, (int fd, struct stat *status), fd, status)
PATHS(int, fstat64, -1, (int fd, struct stat64 *status), fd, status)
PATHS(int, stat, -1, (const char *path, struct stat *status), path, status)
PATHS(int, stat64, -1, (const char *path, struct stat64 *status), path, status)
PATHS(int, lstat, -1, (const char *path, struct stat *status), path, status)
PATHS(int, unlink, -1, (const char *path), path)
PATHS(int, rmdir, -1, (const char *path), path)
PATHS(int, mkdir, -1, (const char *path, mode_t mode), path, mode)
PATHS(int, link, -1, (const char *from, const char *to), from, to)
PATHS(int, rename, -1, (const char *from, const char *to), from, to)
PATHS(int, renameat2, -1, (int a, const char *from, int b, const char *to, unsigned flags), a, from, b, to, flags)
PATHS(int, access, -1, (const char *path, int mode), path, mode)
PATHS(DIR *, opendir, NULL, (const char *path), path)
PATHS(struct dirent *, readdir, NULL, (DIR *directory), directory)
PATHS(char *, getcwd, NULL, (char *into, size_t n), into, n)
PATHS(char *, realpath, NULL, (const char *path, char *resolved), path, resolved)
PATHS(ssize_t, readlink, -1, (const char *path, char *into, size_t n), path, into, n)

/* Memory without a file is libc's own business. */
void *mmap(void *address, size_t n, int protection, int flags, int fd, off_t offset)
{
    REAL(void *, mmap, void *, size_t, int, int, int, off_t)
    if (fd >= 0)
        FAIL_IF_ASKED(INJECT_FILES, "mmap", MAP_FAILED);
    return real(address, n, protection, flags, fd, offset);
}

#pragma GCC visibility pop

#else

#include <stdatomic.h>

static _Atomic int entered;
static _Atomic long n_calls;
static long first_failing, n_in_a_row;
static _Atomic bool failed;

bool inject_records(void)
{
    return false;
}

void inject_begin_new(enum inject_what what, int os_error, enum inject_way way)
{
    (void)what, (void)os_error, (void)way;
}

void inject_begin(enum inject_what what, int os_error, long first, long n_failing)
{
    (void)os_error;
    first_failing = first;
    n_in_a_row = what == INJECT_MEMORY ? n_failing : 0;
    n_calls = 0;
    failed = false;
}

void inject_watch(enum inject_what what, long *firsts, size_t capacity)
{
    (void)firsts, (void)capacity;
    inject_begin(what, 0, 0, 0);
}

size_t inject_end(void)
{
    return (size_t)n_calls;
}

bool inject_refuses_memory(void)
{
    if (!entered)
        return false;
    long number = atomic_fetch_add(&n_calls, 1);
    bool is_refused = number >= first_failing && number < first_failing + n_in_a_row;
    failed |= is_refused;
    return is_refused;
}

void inject_arrange(const char *name, int (*happen)(void *context), void *context)
{
    (void)name, (void)happen, (void)context;
}

bool inject_has_arranged(void)
{
    return false;
}

void inject_enter(void)
{
    entered++;
}

void inject_leave(void)
{
    entered--;
}

bool inject_has_failed(void)
{
    return failed;
}

const char *inject_failed(void)
{
    return "an allocation";
}

#endif
