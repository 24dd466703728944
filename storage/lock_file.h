/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/lock_file.h - descriptors that carry locks, and what a fork does to them
 *
 * Locks belong to an open file description (OFD locks), not to a process. So two connections of one process
 * exclude each other, closing some other descriptor of the file drops nothing, and no record of locks has to be
 * kept in memory, which a child of a fork would inherit and believe. But a child inherits the descriptions
 * themselves: a lock would live until parent AND child have closed them. So every descriptor that carries locks
 * is opened here, and is closed in the child before fork() returns.
 *
 * Where there are no OFD locks the classic ones of POSIX serve `state`, and SQLite keeps its own.
 *
 * Thread rule: any thread.
 */
#ifndef VDB_STORAGE_LOCK_FILE_H
#define VDB_STORAGE_LOCK_FILE_H

#include <fcntl.h>
#include <sys/types.h>

#ifdef F_OFD_SETLK
#define VDB_SET_LOCK F_OFD_SETLK
#define VDB_GET_LOCK F_OFD_GETLK
#else
#define VDB_SET_LOCK F_SETLK
#define VDB_GET_LOCK F_GETLK
#endif

/* open(2) with O_CLOEXEC and O_NOFOLLOW, never as descriptor 0, 1 or 2, which an application may take for its
 * standard output. 0, or an errno. */
int vdb_lock_file_open(const char *path, int flags, mode_t mode, int *fd);
void vdb_lock_file_close(int fd); /* < 0 is allowed */

/* One attempt, of F_RDLCK, F_WRLCK or F_UNLCK. 0; EAGAIN: another has it; or what else went wrong. */
int vdb_lock_file_set(int fd, short type, off_t start, off_t n_bytes);

/* Would F_WRLCK be refused? 0 and the kind of lock that is in the way, F_UNLCK for none; or an errno. */
int vdb_lock_file_test(int fd, off_t start, off_t n_bytes, short *type);

#endif
