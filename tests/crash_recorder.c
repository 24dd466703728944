/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/crash_recorder.c - the file calls of this process, written into a journal (see crash_recorder.h)
 *
 * The replaced functions enter the kernel by syscall(), which needs no look-up of the libraries' own
 * functions, and so works from the first instruction on and under sanitizers. Both names of each are defined,
 * with and without 64: programs call one, SQLite the other.
 *
 * Linked to no test but those of crashes (Makefile), since a definition of open() found in an archive would
 * be linked into all of them.
 */
#include "crash_recorder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define REPLACED __attribute__((visibility("default")))
#define MOST_FDS 1024
#define MOST_WATCHED 64
#define WATCHED_BYTES 4096

/* A file of one page that is mapped for writing. */
struct watched {
    uint32_t node;
    const unsigned char *page;
    unsigned char known[WATCHED_BYTES];
};

static struct {
    pthread_mutex_t mutex;
    struct crash_journal *journal; /* NULL: not recording */
    char root[512];
    struct crash_tree tree;
    uint32_t node_of_fd[MOST_FDS]; /* plus 1; 0: not ours */
    bool owes_failure[MOST_FDS];   /* a sync of its file has failed for another: Linux tells each once */
    struct watched watched[MOST_WATCHED];
    size_t n_watched;
    unsigned syncs_to_go, n_failed;
} recorder = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* ------------------------------------------------------------------ what the kernel does */

static int real_open(const char *path, int flags, mode_t mode)
{
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static bool lock(void)
{
    if (!recorder.journal)
        return false;
    pthread_mutex_lock(&recorder.mutex);
    return true;
}

static void unlock(bool locked)
{
    int kept = errno;
    if (locked)
        pthread_mutex_unlock(&recorder.mutex);
    errno = kept;
}

/* ------------------------------------------------------------------ names and nodes */

struct place {
    bool is_ours;
    uint32_t directory, name;
    uint32_t node; /* CRASH_NO_NODE: there is nothing of that name */
};

/* Where a path leads, below the root. */
static struct place find_place(const char *path)
{
    struct place place = {.is_ours = false, .node = CRASH_NO_NODE};
    size_t n_root = strlen(recorder.root);
    if (!path || strncmp(path, recorder.root, n_root) || (path[n_root] && path[n_root] != '/'))
        return place;
    uint32_t above[16], depth = 0; /* the directories passed through, for ".." */
    place.node = CRASH_ROOT;
    place.directory = CRASH_NO_NODE;
    for (path += n_root; *path;) {
        path += strspn(path, "/");
        size_t length = strcspn(path, "/");
        bool is_up = length == 2 && !memcmp(path, "..", 2);
        if (!length)
            break;
        if (place.node == CRASH_NO_NODE || (is_up ? !depth : depth == 16))
            return place; /* below a directory that is not there, or out of ours */
        if (is_up) {
            place.node = above[--depth];
        } else {
            above[depth++] = place.directory = place.node;
            place.name = crash_journal_name(recorder.journal, path, length);
            place.node = crash_tree_find(&recorder.tree, place.directory, place.name);
        }
        path += length;
    }
    place.is_ours = true;
    return place;
}

static void look_at_maps(void)
{
    for (size_t i = 0; i < recorder.n_watched; i++) {
        struct watched *watched = &recorder.watched[i];
        for (size_t at = 0; at < WATCHED_BYTES; at += 8) {
            uint64_t word = __atomic_load_n((const uint64_t *)(const void *)(watched->page + at), __ATOMIC_RELAXED);
            if (!memcmp(watched->known + at, &word, 8))
                continue;
            memcpy(watched->known + at, &word, 8);
            struct crash_event *event = crash_journal_add(recorder.journal, CRASH_WRITE);
            event->node = watched->node;
            event->offset = at;
            crash_journal_add_bytes(recorder.journal, event, &word, 8);
        }
    }
}

static void note_name(int kind, const struct place *place, uint32_t node)
{
    struct crash_event *event = crash_journal_add(recorder.journal, kind);
    event->directory = place->directory;
    event->name = place->name;
    event->node = node;
    crash_tree_apply(&recorder.tree, event);
}

static uint32_t make_node(const struct place *place, bool is_directory)
{
    uint32_t node = crash_journal_new_node(recorder.journal, is_directory, recorder.journal->names[place->name]);
    note_name(CRASH_MAKE, place, node);
    return node;
}

static void note_truncate(uint32_t node, uint64_t n_bytes)
{
    struct crash_event *event = crash_journal_add(recorder.journal, CRASH_TRUNCATE);
    event->node = node;
    event->offset = n_bytes;
}

static void note_write(uint32_t node, uint64_t offset, const void *bytes, size_t n)
{
    struct crash_event *event = crash_journal_add(recorder.journal, CRASH_WRITE);
    event->node = node;
    event->offset = offset;
    crash_journal_add_bytes(recorder.journal, event, bytes, n);
    for (size_t i = 0; i < recorder.n_watched; i++)
        if (recorder.watched[i].node == node && offset + n <= WATCHED_BYTES)
            memcpy(recorder.watched[i].known + offset, bytes, n);
}

static uint32_t node_of(int fd)
{
    return fd >= 0 && fd < MOST_FDS && recorder.node_of_fd[fd] ? recorder.node_of_fd[fd] - 1 : CRASH_NO_NODE;
}

/* ------------------------------------------------------------------ calls that are replaced */

static int record_open(const char *path, int flags, mode_t mode)
{
    bool locked = lock();
    if (locked)
        look_at_maps();
    int fd = real_open(path, flags, mode);
    if (locked && fd >= 0) {
        struct place place = find_place(path);
        if (place.is_ours && place.node == CRASH_NO_NODE && flags & O_CREAT)
            place.node = make_node(&place, false);
        else if (place.is_ours && flags & O_TRUNC)
            note_truncate(place.node, 0);
        if (fd < MOST_FDS)
            recorder.node_of_fd[fd] = place.is_ours ? place.node + 1 : 0;
        if (fd < MOST_FDS)
            recorder.owes_failure[fd] = false;
    }
    unlock(locked);
    return fd;
}

static mode_t mode_of(int flags, va_list args)
{
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
}

REPLACED int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = mode_of(flags, args);
    va_end(args);
    return record_open(path, flags, mode);
}

REPLACED int open64(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = mode_of(flags, args);
    va_end(args);
    return record_open(path, flags | O_LARGEFILE, mode);
}

REPLACED int close(int fd)
{
    bool locked = lock();
    if (locked && fd >= 0 && fd < MOST_FDS)
        recorder.node_of_fd[fd] = 0;
    unlock(locked);
    return (int)syscall(SYS_close, fd);
}

static ssize_t record_pwrite(int fd, const void *bytes, size_t n, off_t offset)
{
    bool locked = lock();
    if (locked)
        look_at_maps();
    ssize_t wrote = syscall(SYS_pwrite64, fd, bytes, n, offset);
    if (locked && wrote > 0 && node_of(fd) != CRASH_NO_NODE)
        note_write(node_of(fd), (uint64_t)offset, bytes, (size_t)wrote);
    unlock(locked);
    return wrote;
}

REPLACED ssize_t pwrite(int fd, const void *bytes, size_t n, off_t offset)
{
    return record_pwrite(fd, bytes, n, offset);
}

REPLACED ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t offset)
{
    return record_pwrite(fd, bytes, n, offset);
}

REPLACED ssize_t write(int fd, const void *bytes, size_t n)
{
    bool locked = lock();
    bool is_ours = locked && node_of(fd) != CRASH_NO_NODE;
    off_t offset = 0;
    if (is_ours) {
        look_at_maps();
        offset = lseek(fd, 0, fcntl(fd, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR);
    }
    ssize_t wrote = syscall(SYS_write, fd, bytes, n);
    if (is_ours && wrote > 0)
        note_write(node_of(fd), (uint64_t)offset, bytes, (size_t)wrote);
    unlock(locked);
    return wrote;
}

static int record_truncate(int fd, off_t n_bytes)
{
    bool locked = lock();
    if (locked)
        look_at_maps();
    int result = (int)syscall(SYS_ftruncate, fd, n_bytes);
    if (locked && !result && node_of(fd) != CRASH_NO_NODE)
        note_truncate(node_of(fd), (uint64_t)n_bytes);
    unlock(locked);
    return result;
}

REPLACED int ftruncate(int fd, off_t n_bytes)
{
    return record_truncate(fd, n_bytes);
}

REPLACED int ftruncate64(int fd, off64_t n_bytes)
{
    return record_truncate(fd, n_bytes);
}

static int record_sync(int fd)
{
    bool locked = lock();
    int result = 0;
    if (locked && node_of(fd) != CRASH_NO_NODE) {
        look_at_maps();
        bool fails_first = recorder.syncs_to_go && !--recorder.syncs_to_go;
        bool fails = fails_first || recorder.owes_failure[fd];
        for (int other = 0; fails_first && other < MOST_FDS; other++)
            recorder.owes_failure[other] |= recorder.node_of_fd[other] == recorder.node_of_fd[fd];
        recorder.owes_failure[fd] = false;
        crash_journal_add(recorder.journal, fails ? CRASH_SYNC_FAILED : CRASH_SYNC)->node = node_of(fd);
        recorder.n_failed += fails;
        result = fails ? -1 : 0;
    }
    unlock(locked);
    if (result)
        errno = EIO;
    return result;
}

REPLACED int fsync(int fd)
{
    return record_sync(fd);
}

REPLACED int fdatasync(int fd)
{
    return record_sync(fd);
}

/* Before and after a call that changes names: what was written to maps comes first, and `path` is found if the call
 * went well and concerns the recording. */
static bool begin_names(void)
{
    bool locked = lock();
    if (locked)
        look_at_maps();
    return locked;
}

static struct place place_after(bool locked, int result, const char *path)
{
    return locked && !result ? find_place(path) : (struct place){.is_ours = false};
}

static int record_remove(const char *path, int flags)
{
    bool locked = begin_names();
    int result = (int)syscall(SYS_unlinkat, AT_FDCWD, path, flags);
    struct place place = place_after(locked, result, path);
    if (place.is_ours)
        note_name(CRASH_REMOVE, &place, place.node);
    unlock(locked);
    return result;
}

REPLACED int unlink(const char *path)
{
    return record_remove(path, 0);
}

REPLACED int rmdir(const char *path)
{
    return record_remove(path, AT_REMOVEDIR);
}

REPLACED int mkdir(const char *path, mode_t mode)
{
    bool locked = begin_names();
    int result = (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    struct place place = place_after(locked, result, path);
    if (place.is_ours)
        make_node(&place, true);
    unlock(locked);
    return result;
}

REPLACED int link(const char *from, const char *to)
{
    bool locked = begin_names();
    int result = (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
    struct place place = place_after(locked, result, to);
    if (place.is_ours)
        note_name(CRASH_MAKE, &place, find_place(from).node);
    unlock(locked);
    return result;
}

static int record_rename(const char *from, const char *to, unsigned flags)
{
    bool locked = begin_names();
    int result = (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags);
    struct place place = place_after(locked, result, from);
    if (place.is_ours) {
        struct place target = find_place(to);
        struct crash_event *event = crash_journal_add(recorder.journal, CRASH_RENAME);
        *event = (struct crash_event){.kind = CRASH_RENAME,
                                      .node = place.node,
                                      .directory = place.directory,
                                      .name = place.name,
                                      .to_directory = target.directory,
                                      .to_name = target.name};
        crash_tree_apply(&recorder.tree, event);
    }
    unlock(locked);
    return result;
}

REPLACED int rename(const char *from, const char *to)
{
    return record_rename(from, to, 0);
}

REPLACED int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    if (from_fd != AT_FDCWD || to_fd != AT_FDCWD) {
        errno = ENOSYS;
        return -1;
    }
    return record_rename(from, to, flags);
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

/* From now on, look at the file behind a mapping. */
static void watch(int fd, uint32_t node)
{
    if (ends_with(recorder.journal->nodes[node].first_name, "-shm") || recorder.n_watched == MOST_WATCHED)
        return;
    for (size_t i = 0; i < recorder.n_watched; i++)
        if (recorder.watched[i].node == node)
            return;
    struct watched *watched = &recorder.watched[recorder.n_watched];
    void *page = (void *)syscall(SYS_mmap, NULL, WATCHED_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        return; /* what is then missing, crash_record_compare() finds */
    watched->node = node;
    watched->page = page;
    memcpy(watched->known, page, WATCHED_BYTES);
    recorder.n_watched++;
}

static void *record_mmap(void *address, size_t n, int protection, int flags, int fd, off_t offset)
{
    void *result = (void *)syscall(SYS_mmap, address, n, protection, flags, fd, offset);
    if (fd < 0 || result == MAP_FAILED || !(protection & PROT_WRITE) || (flags & MAP_TYPE) != MAP_SHARED)
        return result;
    bool locked = lock();
    if (locked && node_of(fd) != CRASH_NO_NODE)
        watch(fd, node_of(fd));
    unlock(locked);
    return result;
}

REPLACED void *mmap(void *address, size_t n, int protection, int flags, int fd, off_t offset)
{
    return record_mmap(address, n, protection, flags, fd, offset);
}

REPLACED void *mmap64(void *address, size_t n, int protection, int flags, int fd, off64_t offset)
{
    return record_mmap(address, n, protection, flags, fd, offset);
}

/* What is written down must not depend on when. */
REPLACED time_t time(time_t *now)
{
    if (now)
        *now = 1700000000;
    return 1700000000;
}

/* ------------------------------------------------------------------ begin and end */

/* What a file holds now; the bytes are the caller's. */
static unsigned char *read_all(const char *path, size_t *n_bytes)
{
    struct stat status;
    int fd = real_open(path, O_RDONLY | O_CLOEXEC, 0);
    unsigned char *bytes = NULL;
    if (fd >= 0 && !fstat(fd, &status) && (bytes = malloc((size_t)status.st_size + 1))) {
        ssize_t n = pread(fd, bytes, (size_t)status.st_size, 0);
        *n_bytes = n > 0 ? (size_t)n : 0;
    }
    if (fd >= 0)
        syscall(SYS_close, fd);
    return bytes;
}

static int compare_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names in a directory, sorted, so that a run that is repeated meets them in the same order. */
static size_t list(const char *path, char *names[256])
{
    size_t n = 0;
    DIR *directory = opendir(path);
    for (struct dirent *entry; directory && (entry = readdir(directory));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") && n < 256)
            names[n++] = strdup(entry->d_name);
    if (directory)
        closedir(directory);
    qsort(names, n, sizeof *names, compare_text);
    return n;
}

/* Tell what is below a directory as if it were made now and synced. */
static void tell_directory(const char *path, uint32_t directory)
{
    char *names[256], child[1024];
    size_t n = list(path, names);
    for (size_t i = 0; i < n; i++) {
        struct stat status;
        snprintf(child, sizeof child, "%s/%s", path, names[i]);
        struct place place = find_place(child);
        if (!lstat(child, &status) && S_ISDIR(status.st_mode)) {
            tell_directory(child, make_node(&place, true));
        } else {
            size_t n_bytes = 0;
            unsigned char *bytes = read_all(child, &n_bytes);
            uint32_t node = make_node(&place, false);
            if (n_bytes)
                note_write(node, 0, bytes, n_bytes);
            crash_journal_add(recorder.journal, CRASH_SYNC)->node = node;
            free(bytes);
        }
        free(names[i]);
    }
    crash_journal_add(recorder.journal, CRASH_SYNC)->node = directory;
}

void crash_record_begin(const char *root, struct crash_journal *journal)
{
    crash_journal_init(journal);
    memset(recorder.node_of_fd, 0, sizeof recorder.node_of_fd);
    memset(recorder.owes_failure, 0, sizeof recorder.owes_failure);
    recorder.n_watched = 0;
    recorder.syncs_to_go = recorder.n_failed = 0;
    crash_tree_release(&recorder.tree);
    snprintf(recorder.root, sizeof recorder.root, "%s", root);
    recorder.journal = journal;
    tell_directory(root, CRASH_ROOT);
    journal->n_initial = journal->n_events;
}

void crash_record_end(void)
{
    crash_record_look();
    for (size_t i = 0; i < recorder.n_watched; i++)
        munmap((void *)(uintptr_t)recorder.watched[i].page, WATCHED_BYTES);
    recorder.journal = NULL;
}

void crash_record_look(void)
{
    bool locked = lock();
    if (locked)
        look_at_maps();
    unlock(locked);
}

void crash_record_fail_sync(unsigned count)
{
    recorder.syncs_to_go = count;
}

unsigned crash_record_failed_syncs(void)
{
    return recorder.n_failed;
}

/* ------------------------------------------------------------------ was everything seen? */

static char difference[1200];

static void compare_file(const char *path, uint32_t node)
{
    size_t n_there = 0, n_told = 0, capacity = 0;
    unsigned char *there = read_all(path, &n_there), *told = NULL;
    const struct crash_journal *journal = recorder.journal;
    for (size_t i = 0; i < journal->n_events; i++) {
        const struct crash_event *event = &journal->events[i];
        if (event->node != node || (event->kind != CRASH_WRITE && event->kind != CRASH_TRUNCATE))
            continue;
        size_t end = (size_t)event->offset + event->length;
        if (end > capacity) {
            told = realloc(told, capacity = 2 * end);
            if (!told)
                abort();
        }
        if (end > n_told)
            memset(told + n_told, 0, end - n_told);
        if (event->kind == CRASH_TRUNCATE || end > n_told)
            n_told = end;
        if (event->kind == CRASH_WRITE)
            memcpy(told + event->offset, journal->bytes + event->at, event->length);
    }
    if (n_there != n_told)
        snprintf(difference, sizeof difference, "%s has %zu bytes, the journal says %zu", path, n_there, n_told);
    else if (n_told && memcmp(there, told, n_told))
        snprintf(difference, sizeof difference, "the bytes of %s are not those of the journal", path);
    free(there);
    free(told);
}

static void compare_directory(const char *path)
{
    char *names[256], child[1024];
    size_t n = list(path, names);
    for (size_t i = 0; i < n; i++) {
        struct stat status;
        snprintf(child, sizeof child, "%s/%s", path, names[i]);
        struct place place = find_place(child);
        if (place.node == CRASH_NO_NODE)
            snprintf(difference, sizeof difference, "%s is not in the journal", child);
        else if (!lstat(child, &status) && S_ISDIR(status.st_mode))
            compare_directory(child);
        else if (!ends_with(names[i], "-shm"))
            compare_file(child, place.node);
        free(names[i]);
    }
}

const char *crash_record_compare(void)
{
    difference[0] = '\0';
    crash_record_look();
    for (size_t i = 0; i < recorder.tree.n; i++) { /* names that ought to be there */
        const struct crash_entry *entry = &recorder.tree.entries[i];
        char path[1024];
        if (entry->directory != CRASH_ROOT)
            continue;
        snprintf(path, sizeof path, "%s/%s", recorder.root, recorder.journal->names[entry->name]);
        if (access(path, F_OK))
            snprintf(difference, sizeof difference, "%s is in the journal only", path);
    }
    compare_directory(recorder.root);
    return difference[0] ? difference : NULL;
}
