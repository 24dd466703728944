/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/base/error.h - filling the caller's error
 *
 * Every function that touches the outside world returns a vecdb_status and takes an optional
 * vecdb_error. vdb_fail() writes the sentence and returns the status, so that a failing path
 * reads `return vdb_fail(err, VECDB_INVALID, "...")`. An error that is passed upwards is left
 * as it is, or prefixed with what the caller knows and the callee did not (vdb_fail_prefix).
 */
#ifndef VDB_BASE_ERROR_H
#define VDB_BASE_ERROR_H

#include "vecdb.h"

/* Write the sentence (cut with "..." when too long) and return `status`. `err` may be NULL. */
int vdb_fail(vecdb_error *err, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The same for a failed system call: chooses the status from `os_error` (ENOSPC and EDQUOT FULL,
 * EACCES and EPERM DENIED, EROFS READONLY, ENOENT NOT_FOUND, ENOMEM NOMEM, else IO) and appends
 * ": " and the system's words. */
int vdb_fail_os(vecdb_error *err, int os_error, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Put words in front of the sentence that is there. Returns err's status. */
int vdb_fail_prefix(vecdb_error *err, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* NOMEM with the number of bytes that could not be had. */
int vdb_fail_memory(vecdb_error *err, size_t n_bytes);

#endif
