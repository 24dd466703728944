/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/lock_file.c - descriptors that carry locks (see lock_file.h)
 *
 *     opened[]     one bit for each descriptor number: it carries locks
 *     fork()       prepare: take the mutex; parent: give it back; child: close all that are marked
 *
 * Invariant: a descriptor is opened and marked under the mutex, so a fork sees both or neither. The mutex
 * is held for one open(2) or close(2).
 *
 * Rejected: a linked list of owners (the child would write into objects that another thread of the parent was
 * changing); FD_CLOFORK, which Linux does not have.
 */
#include "lock_file.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <unistd.h>

#define MOST_DESCRIPTORS (1 << 20) /* fs.nr_open of Linux; as bits 128 KiB, of which few pages are ever touched */
#define LOWEST 3

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static uint64_t opened[MOST_DESCRIPTORS / 64];
static int n_used; /* above the highest one that was ever marked */

static void before_fork(void)
{
    pthread_mutex_lock(&mutex);
}

static void in_parent(void)
{
    pthread_mutex_unlock(&mutex);
}

static void in_child(void)
{
    for (int i = 0; i < (n_used + 63) / 64; i++)
        for (; opened[i]; opened[i] &= opened[i] - 1)
            close(i * 64 + __builtin_ctzll(opened[i]));
    n_used = 0;
    pthread_mutex_unlock(&mutex);
}

static void watch_forks(void)
{
    pthread_atfork(before_fork, in_parent, in_child);
}

static int open_above(const char *path, int flags, mode_t mode, int *out)
{
    int fd;
    do
        fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW, mode);
    while (fd < 0 && errno == EINTR);
    if (fd >= 0 && fd < LOWEST) {
        int higher = fcntl(fd, F_DUPFD_CLOEXEC, LOWEST), os_error = errno;
        close(fd);
        errno = os_error;
        fd = higher;
    }
    if (fd >= MOST_DESCRIPTORS) {
        close(fd);
        return EMFILE;
    }
    if (fd < 0)
        return errno;
    *out = fd;
    return 0;
}

int vdb_lock_file_open(const char *path, int flags, mode_t mode, int *fd)
{
    pthread_once(&once, watch_forks);
    pthread_mutex_lock(&mutex);
    int os_error = open_above(path, flags, mode, fd);
    if (!os_error) {
        opened[*fd / 64] |= (uint64_t)1 << *fd % 64;
        n_used = *fd >= n_used ? *fd + 1 : n_used;
    }
    pthread_mutex_unlock(&mutex);
    return os_error;
}

void vdb_lock_file_close(int fd)
{
    if (fd < 0)
        return;
    pthread_mutex_lock(&mutex);
    opened[fd / 64] &= ~((uint64_t)1 << fd % 64);
    close(fd);
    pthread_mutex_unlock(&mutex);
}

int vdb_lock_file_set(int fd, short type, off_t start, off_t n_bytes)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = n_bytes};
    while (fcntl(fd, VDB_SET_LOCK, &lock))
        if (errno != EINTR)
            return errno == EACCES ? EAGAIN : errno;
    return 0;
}

int vdb_lock_file_test(int fd, off_t start, off_t n_bytes, short *type)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = n_bytes};
    while (fcntl(fd, VDB_GET_LOCK, &lock))
        if (errno != EINTR)
            return errno;
    *type = lock.l_type;
    return 0;
}
