/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/state.c - the file `state` (see state.h)
 *
 *     offset  bytes
 *          0      8  magic "vdbstate"
 *          8      4  format version
 *         12      4  size of the file, 4096
 *         16     16  uuid of the database; zeros until it is known
 *         32      8  XXH3-64 of bytes 0..31
 *         40      8  sequence: number in the low 48 bits, CRC-16 of it in the high 16
 *         48      8  mark: frames in the low 32 bits, salt-2 in the high 32; zero: no mark
 *         56      8  XXH3-64 of bytes 48..55, seeded with MARK_SEED
 *         64      8  durable: as sequence
 *         72      8  doubt: "vdbdoubt" from before a sync of the WAL until one has succeeded, else zeros
 *         80   4016  zeros
 *
 * All numbers are little-endian. The locks are bytes behind the end of the file: A the turnstile,
 * B the write lock, M the maintainer's, H the header's, U that of all who have the database open.
 *
 * Invariants
 *   1. The first 40 bytes are written by one pwrite under lock H and read under it, so nobody sees
 *      half of them. A file of zeros, or an empty one, is a creation that was cut off, and is the
 *      same as a missing file. No temporary name, hence no debris.
 *   2. The numbers grow: they are raised by compare-and-swap, never stored. `sequence` alone goes back once,
 *      at the open after a power cut.
 *   3. A mark is set and cleared by the holder of the gate only, by one pwrite of 16 bytes, and is
 *      on stable storage before the call returns.
 *   4. A word that fails its check is never overwritten: the damage stays visible.
 *   5. The doubt is set and cleared by the holder of the gate only. It is never synced: after a power cut all that can
 *      be read is on the disk, and one that is found set all the same costs one more writing of the WAL.
 *
 * Locks are polled: a blocking F_OFD_SETLKW cannot be given a time limit without signals. The wait
 * begins with 20 us and doubles up to 1 ms, which costs a waiter at most 1 ms of a commit that
 * takes about as long. Where open-file-description locks do not exist the classic POSIX ones serve:
 * they do not exclude two objects of one process, but SQLite's own lock does.
 *
 * A check of 16 bits by CRC and not by a hash, because a CRC finds every error of one or two bits and
 * every burst of up to 16 with certainty.
 */
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/threads.h"
#include "lock_file.h"

#define STATE_VERSION 1
#define STATIC_BYTES 40
#define AT_UUID 16
#define AT_STATIC_CHECK 32
#define AT_SEQUENCE 40
#define AT_MARK 48
#define AT_DURABLE 64
#define AT_DOUBT 72
#define AT_ZEROS 80
#define DOUBT 0x7462756f64626476u /* "vdbdoubt" */
#define MARK_SEED 0x6d61726bu /* "mark" */
#define NUMBER_MASK (((uint64_t)1 << 48) - 1)
#define USERS_WAIT_MS 2000 /* a sweep holds lock U while it looks whether a snapshot is debris: a commit, maybe */
#define ALONE_WAIT_MS 200
#define HEADER_WAIT_MS 5000 /* lock H is held for one fsync; a wait of seconds means a sick disk */

enum { LOCK_A = VDB_STATE_BYTES, LOCK_B, LOCK_M, LOCK_H, LOCK_U, LOCK_S, LOCK_I };

static const char magic[8] = {'v', 'd', 'b', 's', 't', 'a', 't', 'e'};
static const unsigned char no_uuid[16];

/* A thread that waits for the gate, on its own stack. */
struct waiter {
    struct waiter *next;
    bool served;
};

struct vdb_state {
    struct vdb_memory *memory;
    const struct vdb_io_hook *hook;
    char *path; /* NULL: in memory */
    int fd;     /* -1: in memory, missing, or given up after a fork */
    bool writable;
    bool mapped;         /* `page` is a mapping, not memory of ours */
    unsigned char *page; /* VDB_STATE_BYTES */
    pthread_mutex_t mutex;
    pthread_cond_t served; /* a waiter was given the gate */
    bool gate_held;
    bool maintainer, builder;
    unsigned n_still; /* transactions of this object that share lock S */
    struct waiter *first_waiter, *last_waiter;
};

/* ---- the bytes */

static uint16_t crc16(uint64_t number)
{
    uint16_t crc = 0xffff;
    for (int byte = 5; byte >= 0; byte--) {
        crc ^= (uint16_t)((number >> 8 * byte & 0xff) << 8);
        for (int bit = 0; bit < 8; bit++)
            crc = (uint16_t)(crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1);
    }
    return crc;
}

static uint64_t word_of(uint64_t number)
{
    return (number & NUMBER_MASK) | (uint64_t)crc16(number & NUMBER_MASK) << 48;
}

/* Words of the page are atomics in native order; on disk they are little-endian. */
static uint64_t little(uint64_t value)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return __builtin_bswap64(value);
#else
    return value;
#endif
}

static uint64_t load_word(const struct vdb_state *state, size_t at)
{
    return little(__atomic_load_n((const uint64_t *)(const void *)(state->page + at), __ATOMIC_ACQUIRE));
}

static uint64_t mark_check(uint64_t mark)
{
    unsigned char bytes[8];
    vdb_store_u64(bytes, mark);
    return XXH3_64bits_withSeed(bytes, sizeof bytes, MARK_SEED);
}

static void make_static_part(unsigned char bytes[STATIC_BYTES], const unsigned char uuid[16])
{
    memcpy(bytes, magic, sizeof magic);
    vdb_store_u32(bytes + 8, STATE_VERSION);
    vdb_store_u32(bytes + 12, VDB_STATE_BYTES);
    memcpy(bytes + AT_UUID, uuid, 16);
    vdb_store_u64(bytes + AT_STATIC_CHECK, XXH3_64bits(bytes, AT_STATIC_CHECK));
}

static void make_page(unsigned char page[VDB_STATE_BYTES], const unsigned char uuid[16])
{
    memset(page, 0, VDB_STATE_BYTES);
    make_static_part(page, uuid);
    vdb_store_u64(page + AT_SEQUENCE, word_of(0));
    vdb_store_u64(page + AT_MARK + 8, mark_check(0));
    vdb_store_u64(page + AT_DURABLE, word_of(0));
}

static bool all_zero(const unsigned char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (bytes[i])
            return false;
    return true;
}

/* The name for messages: of the file, without its directories. */
static const char *name_of(const struct vdb_state *state)
{
    if (!state->path)
        return "state";
    const char *slash = strrchr(state->path, '/');
    return slash ? slash + 1 : state->path;
}

static int fail_damaged(const struct vdb_state *state, const char *what, vecdb_error *err)
{
    return vdb_fail(err, VECDB_CORRUPT, "%s: %s; if catalog.sqlite is whole, removing %s makes it anew", name_of(state),
                    what, name_of(state));
}

/* ---- the file */

static int ask_hook(const struct vdb_state *state, enum vdb_io_op op)
{
    if (!state->hook)
        return 0;
    int os_error = state->hook->before(state->hook->context, op, state->path ? state->path : "state");
    return os_error == VDB_FAULT_SHORT ? EIO : os_error;
}

/* One attempt. 0, EAGAIN when another has it, or what else went wrong. */
static int set_lock(const struct vdb_state *state, int byte, short type)
{
    int os_error = type == F_UNLCK ? 0 : ask_hook(state, VDB_IO_LOCK);
    return os_error ? os_error : vdb_lock_file_set(state->fd, type, byte, 1);
}

static void sleep_ns(uint64_t ns)
{
    struct timespec pause = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
    nanosleep(&pause, NULL);
}

/* 0, EAGAIN when the deadline passed, or what else went wrong. */
static int poll_lock(const struct vdb_state *state, int byte, short type, uint64_t deadline_ns)
{
    for (uint64_t pause = 20000;; pause = pause * 2 < 1000000 ? pause * 2 : 1000000) {
        int os_error = set_lock(state, byte, type);
        if (os_error != EAGAIN)
            return os_error;
        uint64_t now = vdb_now_ns();
        if (now >= deadline_ns)
            return EAGAIN;
        sleep_ns(pause < deadline_ns - now ? pause : deadline_ns - now);
    }
}

static uint64_t deadline_after(uint32_t wait_ms)
{
    return vdb_now_ns() + (uint64_t)wait_ms * 1000000;
}

static int write_all(const struct vdb_state *state, size_t at, const void *bytes, size_t n, vecdb_error *err)
{
    int os_error = ask_hook(state, VDB_IO_WRITE);
    for (size_t done = 0; !os_error && done < n;) {
        ssize_t wrote = pwrite(state->fd, (const char *)bytes + done, n - done, (off_t)(at + done));
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            os_error = wrote < 0 ? errno : EIO;
        else
            done += (size_t)wrote;
    }
    return os_error ? vdb_fail_os(err, os_error, "cannot write %s", state->path) : VECDB_OK;
}

static int sync_file(const struct vdb_state *state, vecdb_error *err)
{
    int os_error = ask_hook(state, VDB_IO_SYNC);
    while (!os_error && fdatasync(state->fd))
        if (errno != EINTR)
            os_error = errno;
    return os_error ? vdb_fail_os(err, os_error, "cannot sync %s", state->path) : VECDB_OK;
}

/* Make the name durable. Some file systems cannot sync a directory and say EINVAL. */
static int sync_directory(struct vdb_state *state, vecdb_error *err)
{
    const char *slash = strrchr(state->path, '/');
    char *directory =
        slash ? vdb_strdup(state->memory, state->path, slash == state->path ? 1 : (size_t)(slash - state->path))
              : vdb_strdup(state->memory, ".", 1);
    if (!directory)
        return vdb_fail_memory(err, strlen(state->path));
    int os_error = ask_hook(state, VDB_IO_DIRECTORY);
    int fd = os_error ? -1 : open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!os_error && fd < 0)
        os_error = errno;
    while (!os_error && fsync(fd))
        if (errno != EINTR)
            os_error = errno;
    if (fd >= 0)
        close(fd);
    vdb_free(state->memory, directory);
    if (os_error && os_error != EINVAL)
        return vdb_fail_os(err, os_error, "cannot sync the directory of %s", state->path);
    return VECDB_OK;
}

/* Open for writing where that is permitted, else for reading; `fd` stays -1 when there is no file
 * and none may be made. */
static int open_file(struct vdb_state *state, bool readonly, vecdb_error *err)
{
    int os_error = ask_hook(state, VDB_IO_OPEN);
    if (os_error)
        return vdb_fail_os(err, os_error, "cannot open %s", state->path);
    state->fd = -1;
    if (!readonly) {
        os_error = vdb_lock_file_open(state->path, O_RDWR | O_CREAT | O_NONBLOCK, 0666, &state->fd);
        if (os_error && os_error != EACCES && os_error != EPERM && os_error != EROFS)
            return vdb_fail_os(err, os_error, "cannot open %s", state->path);
        state->writable = state->fd >= 0;
    }
    if (state->fd < 0) {
        os_error = vdb_lock_file_open(state->path, O_RDONLY | O_NONBLOCK, 0, &state->fd); /* of a pipe it would wait */
        if (os_error && os_error != ENOENT)
            return vdb_fail_os(err, os_error, "cannot open %s", state->path);
    }
    return VECDB_OK;
}

/* The bytes of the file, under lock H; a new file gets its first ones. `absent`: it is new and may not be
 * written, so that `page` is not what the file holds. */
static int read_file(struct vdb_state *state, unsigned char *page, bool *absent, vecdb_error *err)
{
    struct stat status;
    if (fstat(state->fd, &status))
        return vdb_fail_os(err, errno, "cannot read %s", state->path);
    if (!S_ISREG(status.st_mode))
        return vdb_fail(err, VECDB_CORRUPT, "%s is no regular file", state->path);
    int os_error = ask_hook(state, VDB_IO_READ);
    if (os_error)
        return vdb_fail_os(err, os_error, "cannot read %s", state->path);
    memset(page, 0, VDB_STATE_BYTES);
    for (size_t done = 0; done < VDB_STATE_BYTES;) {
        ssize_t n = pread(state->fd, page + done, VDB_STATE_BYTES - done, (off_t)done);
        if (n < 0 && errno != EINTR)
            return vdb_fail_os(err, errno, "cannot read %s", state->path);
        if (n == 0)
            break;
        done += n > 0 ? (size_t)n : 0;
    }
    if (all_zero(page, VDB_STATE_BYTES) && status.st_size <= VDB_STATE_BYTES) {
        make_page(page, no_uuid);
        *absent = !state->writable;
        if (*absent)
            return VECDB_OK;
        int rc = write_all(state, 0, page, VDB_STATE_BYTES, err);
        if (!rc)
            rc = sync_file(state, err);
        return rc ? rc : sync_directory(state, err);
    }
    if (status.st_size != VDB_STATE_BYTES)
        return fail_damaged(state, "the file has a wrong length", err);
    return VECDB_OK;
}

static int check_page(const struct vdb_state *state, const unsigned char *page, vecdb_error *err)
{
    if (memcmp(page, magic, sizeof magic))
        return fail_damaged(state, "it does not begin as a state file does", err);
    if (vdb_load_u64(page + AT_STATIC_CHECK) != XXH3_64bits(page, AT_STATIC_CHECK))
        return fail_damaged(state, "the header is damaged (checksum)", err);
    if (vdb_load_u32(page + 8) > STATE_VERSION)
        return vdb_fail(err, VECDB_NEWER, "%s has format %u; this library knows up to %d", name_of(state),
                        (unsigned)vdb_load_u32(page + 8), STATE_VERSION);
    if (vdb_load_u32(page + 8) < STATE_VERSION)
        return vdb_fail(err, VECDB_UNSUPPORTED, "%s has format version %u, " VDB_OF_A_PREVIEW, name_of(state),
                        (unsigned)vdb_load_u32(page + 8));
    if (vdb_load_u32(page + 12) != VDB_STATE_BYTES)
        return fail_damaged(state, "the header tells a wrong size", err);
    uint64_t doubt = vdb_load_u64(page + AT_DOUBT);
    if (doubt && doubt != DOUBT)
        return fail_damaged(state, "the word of doubt is damaged", err);
    if (!all_zero(page + AT_ZEROS, VDB_STATE_BYTES - AT_ZEROS))
        return fail_damaged(state, "bytes that must be zero are not", err);
    return VECDB_OK;
}

/* Map the file by a descriptor of its own: a mapping keeps its open file description alive, and with it
 * the locks, and a child of a fork inherits mappings. */
static int map_file(struct vdb_state *state, vecdb_error *err)
{
    struct stat mapped, locked;
    int os_error = ask_hook(state, VDB_IO_MAP);
    int fd = os_error ? -1 : open(state->path, (state->writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW);
    void *page = MAP_FAILED;
    if (!os_error && (fd < 0 || fstat(fd, &mapped) || fstat(state->fd, &locked)))
        os_error = errno;
    if (!os_error && (mapped.st_ino != locked.st_ino || mapped.st_dev != locked.st_dev))
        os_error = ESTALE; /* replaced just now, by whomever */
    if (!os_error) {
        int protection = state->writable ? PROT_READ | PROT_WRITE : PROT_READ;
        page = mmap(NULL, VDB_STATE_BYTES, protection, MAP_SHARED, fd, 0);
        if (page == MAP_FAILED)
            os_error = errno;
    }
    if (fd >= 0)
        close(fd);
    if (os_error)
        return vdb_fail_os(err, os_error, "cannot map %s", state->path);
    vdb_free_aligned(state->memory, state->page);
    state->page = page;
    state->mapped = true;
    return VECDB_OK;
}

/* Shared by all who have the database open. Where there are no locks (a read-only file system may have
 * none) nobody replaces the database either. */
static int lock_users(struct vdb_state *state, vecdb_error *err)
{
    int os_error = poll_lock(state, LOCK_U, F_RDLCK, deadline_after(USERS_WAIT_MS));
    if (os_error == EAGAIN)
        return vdb_fail(err, VECDB_BUSY, "%s: the database is being repaired or replaced just now; try again later",
                        state->path);
    return os_error && state->writable ? vdb_fail_os(err, os_error, "cannot lock %s", state->path) : VECDB_OK;
}

/* Lock U is asked for alone, and shared again at once: who opens the database meanwhile polls for it. */
bool vdb_state_is_alone(const struct vdb_state *state)
{
    if (state->fd < 0 || !state->writable || set_lock(state, LOCK_U, F_WRLCK))
        return false;
    set_lock(state, LOCK_U, F_RDLCK);
    return true;
}

/* From the path to a page that is checked. */
static int open_page(struct vdb_state *state, bool readonly, vecdb_error *err)
{
    int rc = open_file(state, readonly, err);
    if (rc || state->fd < 0 || (rc = lock_users(state, err)))
        return rc;
    int os_error = poll_lock(state, LOCK_H, state->writable ? F_WRLCK : F_RDLCK, deadline_after(HEADER_WAIT_MS));
    if (os_error == EAGAIN)
        return vdb_fail(err, VECDB_BUSY, "%s: another process has held the header for %d s", name_of(state),
                        HEADER_WAIT_MS / 1000);
    if (os_error && state->writable)
        return vdb_fail_os(err, os_error, "cannot lock %s", state->path);
    /* A read-only file system may have no locks; nobody writes the header there either. */
    bool absent = false;
    rc = read_file(state, state->page, &absent, err);
    if (!rc)
        rc = check_page(state, state->page, err);
    if (!rc && !absent)
        rc = map_file(state, err);
    if (!os_error)
        set_lock(state, LOCK_H, F_UNLCK);
    if (rc)
        return rc;
    uint64_t sequence;
    rc = vdb_state_sequence(state, &sequence, err);
    if (!rc)
        rc = vdb_state_durable(state, &sequence, err);
    if (rc)
        return rc;
    for (int attempt = 0; load_word(state, AT_MARK + 8) != mark_check(load_word(state, AT_MARK)); attempt++) {
        if (attempt == 20)
            return fail_damaged(state, "the checkpoint mark is damaged (checksum)", err);
        sleep_ns(1000000); /* between the two words of a mark that another process writes */
    }
    return VECDB_OK;
}

static int init_threads(struct vdb_state *state, vecdb_error *err)
{
    pthread_condattr_t attributes;
    int os_error = pthread_mutex_init(&state->mutex, NULL);
    if (os_error)
        return vdb_fail_os(err, os_error, "cannot make a mutex");
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    os_error = pthread_cond_init(&state->served, &attributes);
    pthread_condattr_destroy(&attributes);
    if (os_error) {
        pthread_mutex_destroy(&state->mutex);
        return vdb_fail_os(err, os_error, "cannot make a condition variable");
    }
    return VECDB_OK;
}

int vdb_state_open(const struct vdb_state_options *options, struct vdb_state **out, vecdb_error *err)
{
    struct vdb_state *state = vdb_alloc_zero(options->memory, sizeof *state);
    if (!state)
        return vdb_fail_memory(err, sizeof *state);
    state->memory = options->memory;
    state->hook = options->hook;
    state->fd = -1;
    int rc = init_threads(state, err);
    if (rc) {
        vdb_free(options->memory, state);
        return rc;
    }
    state->page = vdb_alloc_aligned(state->memory, VDB_STATE_BYTES);
    if (options->path)
        state->path = vdb_strdup(state->memory, options->path, strlen(options->path));
    if (!state->page || (options->path && !state->path))
        rc = vdb_fail_memory(err, VDB_STATE_BYTES);
    if (!rc) {
        make_page(state->page, no_uuid);
        if (state->path)
            rc = open_page(state, options->readonly, err);
        else
            state->writable = !options->readonly;
    }
    if (rc) {
        vdb_state_close(state);
        return rc;
    }
    *out = state;
    return VECDB_OK;
}

/* Is the open file still the one of that name? Whoever held it before may have removed it. */
static bool is_current(const struct vdb_state *state)
{
    struct stat named, locked;
    return !stat(state->path, &named) && !fstat(state->fd, &locked) && named.st_ino == locked.st_ino &&
           named.st_dev == locked.st_dev;
}

int vdb_state_seize(const char *path, int *fd, vecdb_error *err)
{
    struct vdb_state state = {.path = (char *)(uintptr_t)path};
    uint64_t deadline_ns = deadline_after(ALONE_WAIT_MS);
    int os_error = 0;
    do {
        os_error = vdb_lock_file_open(path, O_RDWR | O_CREAT | O_NONBLOCK, 0666, &state.fd);
        if (os_error)
            return vdb_fail_os(err, os_error, "cannot open %s", path);
        os_error = poll_lock(&state, LOCK_U, F_WRLCK, deadline_ns);
        if (!os_error && is_current(&state)) {
            *fd = state.fd;
            return VECDB_OK;
        }
        vdb_lock_file_close(state.fd);
    } while (!os_error && vdb_now_ns() < deadline_ns);
    if (!os_error || os_error == EAGAIN)
        return vdb_fail(err, VECDB_BUSY, "%s: the database is open, here or in another process; close it first", path);
    return vdb_fail_os(err, os_error, "cannot lock %s", path);
}

int vdb_state_fill(const char *path, int fd, const unsigned char uuid[16], uint64_t sequence,
                   const struct vdb_io_hook *hook, vecdb_error *err)
{
    struct vdb_state state = {.path = (char *)(uintptr_t)path, .fd = fd, .hook = hook};
    unsigned char page[VDB_STATE_BYTES];
    make_page(page, uuid);
    vdb_store_u64(page + AT_SEQUENCE, word_of(sequence));
    vdb_store_u64(page + AT_DURABLE, word_of(sequence));
    int status = write_all(&state, 0, page, sizeof page, err);
    return status ? status : sync_file(&state, err);
}

void vdb_state_release_all(int fd)
{
    vdb_lock_file_close(fd);
}

void vdb_state_close(struct vdb_state *state)
{
    if (!state)
        return;
    vdb_lock_file_close(state->fd); /* and with the description go its locks */
    if (state->mapped)
        munmap(state->page, VDB_STATE_BYTES);
    else
        vdb_free_aligned(state->memory, state->page);
    pthread_cond_destroy(&state->served);
    pthread_mutex_destroy(&state->mutex);
    vdb_free(state->memory, state->path);
    vdb_free(state->memory, state);
}

/* The descriptor itself is closed by lock_file.c, which knows it before this object is complete. */
void vdb_state_forked(struct vdb_state *state)
{
    if (state && state->fd >= 0) {
        state->fd = -1;
        state->writable = false;
    }
}

bool vdb_state_writable(const struct vdb_state *state)
{
    return state->writable;
}

void vdb_state_uuid(const struct vdb_state *state, unsigned char uuid[16])
{
    memcpy(uuid, state->page + AT_UUID, 16);
}

int vdb_state_adopt(struct vdb_state *state, const unsigned char uuid[16], vecdb_error *err)
{
    if (!memcmp(state->page + AT_UUID, uuid, 16))
        return VECDB_OK;
    unsigned char bytes[STATIC_BYTES];
    make_static_part(bytes, uuid);
    if (!state->path && !memcmp(state->page + AT_UUID, no_uuid, 16)) {
        memcpy(state->page, bytes, sizeof bytes);
        return VECDB_OK;
    }
    bool locked = state->fd >= 0 && state->writable;
    if (locked) {
        int os_error = poll_lock(state, LOCK_H, F_WRLCK, deadline_after(HEADER_WAIT_MS));
        if (os_error == EAGAIN)
            return vdb_fail(err, VECDB_BUSY, "%s: another process has held the header for %d s", name_of(state),
                            HEADER_WAIT_MS / 1000);
        if (os_error)
            return vdb_fail_os(err, os_error, "cannot lock %s", state->path);
    }
    int rc = VECDB_OK;
    if (!memcmp(state->page + AT_UUID, no_uuid, 16)) {
        if (locked)
            rc = write_all(state, 0, bytes, sizeof bytes, err);
        if (!rc && locked)
            rc = sync_file(state, err);
    } else if (memcmp(state->page + AT_UUID, uuid, 16)) {
        rc = vdb_fail(err, VECDB_CORRUPT,
                      "%s belongs to another database than catalog.sqlite; put back the file that belongs to it, or "
                      "remove %s to have it made anew",
                      name_of(state), name_of(state));
    }
    if (locked)
        set_lock(state, LOCK_H, F_UNLCK);
    return rc;
}

/* ---- sequence and mark */

static int get_number(const struct vdb_state *state, size_t at, uint64_t *sequence, vecdb_error *err)
{
    uint64_t word = load_word(state, at);
    if (word != word_of(word))
        return fail_damaged(state, "a sequence number is damaged (checksum)", err);
    *sequence = word & NUMBER_MASK;
    return VECDB_OK;
}

int vdb_state_sequence(const struct vdb_state *state, uint64_t *sequence, vecdb_error *err)
{
    return get_number(state, AT_SEQUENCE, sequence, err);
}

int vdb_state_durable(const struct vdb_state *state, uint64_t *sequence, vecdb_error *err)
{
    return get_number(state, AT_DURABLE, sequence, err);
}

static int check_once(const struct vdb_state *state, vecdb_error *err)
{
    unsigned char page[VDB_STATE_BYTES];
    uint64_t number;
    for (size_t at = 0; at < sizeof page; at += 8)
        vdb_store_u64(page + at, load_word(state, at));
    int rc = check_page(state, page, err);
    if (!rc && vdb_load_u64(page + AT_MARK + 8) != mark_check(vdb_load_u64(page + AT_MARK)))
        rc = fail_damaged(state, "the checkpoint mark is damaged (checksum)", err);
    if (!rc)
        rc = get_number(state, AT_SEQUENCE, &number, err);
    return rc ? rc : get_number(state, AT_DURABLE, &number, err);
}

/* Others may be writing the header or the mark just now; what is damaged stays so. */
int vdb_state_check(const struct vdb_state *state, vecdb_error *err)
{
    vecdb_error own = VECDB_ERROR_INIT;
    int rc = VECDB_OK;
    for (int attempt = 0; attempt < 5; attempt++) {
        sleep_ns(attempt ? 1000000 : 0);
        if (!(rc = check_once(state, &own)))
            return VECDB_OK;
    }
    if (err)
        *err = own;
    return rc;
}

uint64_t vdb_state_word(const struct vdb_state *state)
{
    return load_word(state, AT_SEQUENCE);
}

static bool swap_word(struct vdb_state *state, size_t at, uint64_t *word, uint64_t sequence)
{
    uint64_t native = little(*word);
    bool swapped = __atomic_compare_exchange_n((uint64_t *)(void *)(state->page + at), &native,
                                               little(word_of(sequence)), false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    *word = little(native);
    return swapped;
}

static void raise_number(struct vdb_state *state, size_t at, uint64_t sequence)
{
    if (!state->writable)
        return;
    uint64_t word = load_word(state, at);
    while (word == word_of(word) && (word & NUMBER_MASK) < sequence && !swap_word(state, at, &word, sequence))
        continue;
}

void vdb_state_raise(struct vdb_state *state, uint64_t sequence)
{
    raise_number(state, AT_SEQUENCE, sequence);
}

void vdb_state_raise_durable(struct vdb_state *state, uint64_t sequence)
{
    raise_number(state, AT_DURABLE, sequence);
}

void vdb_state_lower(struct vdb_state *state, uint64_t word, uint64_t sequence)
{
    if (state->writable)
        swap_word(state, AT_SEQUENCE, &word, sequence);
}

void vdb_state_set_doubt(struct vdb_state *state, bool doubt)
{
    if (state->writable)
        __atomic_store_n((uint64_t *)(void *)(state->page + AT_DOUBT), little(doubt ? DOUBT : 0), __ATOMIC_RELEASE);
}

bool vdb_state_doubt(const struct vdb_state *state)
{
    return load_word(state, AT_DOUBT) != 0;
}

/* Written also where it is there already: the sync of it may have failed, and only bytes that are dirty again are
 * written by the next one. */
static int write_mark(struct vdb_state *state, uint64_t mark, vecdb_error *err)
{
    if (!state->path) {
        __atomic_store_n((uint64_t *)(void *)(state->page + AT_MARK), little(mark), __ATOMIC_RELEASE);
        __atomic_store_n((uint64_t *)(void *)(state->page + AT_MARK + 8), little(mark_check(mark)), __ATOMIC_RELEASE);
        return VECDB_OK;
    }
    if (state->fd < 0 || !state->writable)
        return vdb_fail(err, VECDB_READONLY, "%s cannot be written", name_of(state));
    unsigned char bytes[16];
    vdb_store_u64(bytes, mark);
    vdb_store_u64(bytes + 8, mark_check(mark));
    int rc = write_all(state, AT_MARK, bytes, sizeof bytes, err);
    return rc ? rc : sync_file(state, err);
}

int vdb_state_set_mark(struct vdb_state *state, uint32_t n_frames, uint32_t salt2, vecdb_error *err)
{
    return write_mark(state, n_frames | (uint64_t)salt2 << 32, err);
}

int vdb_state_clear_mark(struct vdb_state *state, vecdb_error *err)
{
    return write_mark(state, 0, err);
}

bool vdb_state_get_mark(const struct vdb_state *state, uint32_t *n_frames, uint32_t *salt2)
{
    uint64_t mark = load_word(state, AT_MARK);
    *n_frames = (uint32_t)mark;
    *salt2 = (uint32_t)(mark >> 32);
    return mark != 0;
}

/* ---- locks */

static int fail_busy(vecdb_error *err, uint32_t wait_ms)
{
    return vdb_fail(err, VECDB_BUSY,
                    "another writer has held the database for %u ms; try again, or raise the busy timeout",
                    (unsigned)wait_ms);
}

/* Threads of this object queue here, in order. */
static bool enter_queue(struct vdb_state *state, uint64_t deadline_ns)
{
    struct waiter self = {NULL, false};
    struct timespec until = {(time_t)(deadline_ns / 1000000000), (long)(deadline_ns % 1000000000)};
    pthread_mutex_lock(&state->mutex);
    if (!state->gate_held) {
        state->gate_held = true;
        pthread_mutex_unlock(&state->mutex);
        return true;
    }
    if (state->last_waiter)
        state->last_waiter->next = &self;
    else
        state->first_waiter = &self;
    state->last_waiter = &self;
    while (!self.served && pthread_cond_timedwait(&state->served, &state->mutex, &until) != ETIMEDOUT)
        continue;
    if (!self.served) {
        struct waiter **at = &state->first_waiter, *before = NULL;
        while (*at != &self) {
            before = *at;
            at = &before->next;
        }
        *at = self.next;
        if (state->last_waiter == &self)
            state->last_waiter = before;
    }
    pthread_mutex_unlock(&state->mutex);
    return self.served;
}

static void leave_queue(struct vdb_state *state)
{
    pthread_mutex_lock(&state->mutex);
    struct waiter *next = state->first_waiter;
    if (next) {
        state->first_waiter = next->next;
        if (!next->next)
            state->last_waiter = NULL;
        next->served = true;
        pthread_cond_broadcast(&state->served);
    } else {
        state->gate_held = false;
    }
    pthread_mutex_unlock(&state->mutex);
}

int vdb_state_lock_gate(struct vdb_state *state, uint32_t wait_ms, vecdb_error *err)
{
    if (!state->writable)
        return vdb_fail(err, VECDB_READONLY, "the database is read-only: %s cannot be written", name_of(state));
    uint64_t deadline = deadline_after(wait_ms);
    if (!enter_queue(state, deadline))
        return fail_busy(err, wait_ms);
    int os_error = 0;
    if (state->path) {
        os_error = poll_lock(state, LOCK_A, F_WRLCK, deadline);
        if (!os_error) {
            os_error = poll_lock(state, LOCK_B, F_WRLCK, deadline);
            set_lock(state, LOCK_A, F_UNLCK);
        }
    }
    if (!os_error)
        return VECDB_OK;
    leave_queue(state);
    return os_error == EAGAIN ? fail_busy(err, wait_ms) : vdb_fail_os(err, os_error, "cannot lock %s", state->path);
}

void vdb_state_unlock_gate(struct vdb_state *state)
{
    if (state->fd >= 0)
        set_lock(state, LOCK_B, F_UNLCK);
    leave_queue(state);
}

int vdb_state_try_maintainer(struct vdb_state *state, vecdb_error *err)
{
    if (!state->writable)
        return vdb_fail(err, VECDB_READONLY, "the database is read-only: %s cannot be written", name_of(state));
    pthread_mutex_lock(&state->mutex);
    int os_error = state->maintainer ? EAGAIN : 0;
    if (!os_error && state->path)
        os_error = set_lock(state, LOCK_M, F_WRLCK);
    if (!os_error)
        state->maintainer = true;
    pthread_mutex_unlock(&state->mutex);
    if (os_error == EAGAIN)
        return vdb_fail(err, VECDB_BUSY, "somebody else is the maintainer of the database");
    return os_error ? vdb_fail_os(err, os_error, "cannot lock %s", state->path) : VECDB_OK;
}

void vdb_state_release_maintainer(struct vdb_state *state)
{
    pthread_mutex_lock(&state->mutex);
    if (state->maintainer && state->fd >= 0)
        set_lock(state, LOCK_M, F_UNLCK);
    state->maintainer = false;
    pthread_mutex_unlock(&state->mutex);
}

bool vdb_state_try_builder(struct vdb_state *state)
{
    pthread_mutex_lock(&state->mutex);
    bool is_ours = state->writable && !state->builder && (!state->path || !set_lock(state, LOCK_I, F_WRLCK));
    state->builder |= is_ours;
    pthread_mutex_unlock(&state->mutex);
    return is_ours;
}

void vdb_state_release_builder(struct vdb_state *state)
{
    pthread_mutex_lock(&state->mutex);
    if (state->builder && state->fd >= 0)
        set_lock(state, LOCK_I, F_UNLCK);
    state->builder = false;
    pthread_mutex_unlock(&state->mutex);
}

bool vdb_state_builds_elsewhere(const struct vdb_state *state)
{
    short type = F_UNLCK;
    return state->fd >= 0 && !vdb_lock_file_test(state->fd, LOCK_I, 1, &type) && type != F_UNLCK;
}

bool vdb_state_hold_still(struct vdb_state *state)
{
    pthread_mutex_lock(&state->mutex);
    bool held = state->n_still || state->fd < 0 || set_lock(state, LOCK_S, F_RDLCK) != EAGAIN;
    state->n_still += held;
    pthread_mutex_unlock(&state->mutex);
    return held;
}

void vdb_state_release_still(struct vdb_state *state)
{
    pthread_mutex_lock(&state->mutex);
    if (!--state->n_still && state->fd >= 0)
        set_lock(state, LOCK_S, F_UNLCK);
    pthread_mutex_unlock(&state->mutex);
}

bool vdb_state_try_move(struct vdb_state *state)
{
    return state->fd < 0 || set_lock(state, LOCK_S, F_WRLCK) != EAGAIN;
}

void vdb_state_end_move(struct vdb_state *state)
{
    if (state->fd >= 0)
        set_lock(state, LOCK_S, F_UNLCK);
}
