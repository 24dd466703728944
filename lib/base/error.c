/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/base/error.c - filling the caller's error (see error.h)
 */
#include "error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void set_message(vecdb_error *err, const char *format, va_list args)
{
    int n = vsnprintf(err->message, sizeof err->message, format, args);
    if (n < 0)
        err->message[0] = '\0';
    if (n >= (int)sizeof err->message)
        memcpy(err->message + sizeof err->message - 4, "...", 4);
}

int vdb_fail(vecdb_error *err, int status, const char *format, ...)
{
    if (!err)
        return status;
    va_list args;
    va_start(args, format);
    set_message(err, format, args);
    va_end(args);
    err->status = status;
    err->os_error = 0;
    return status;
}

static int status_of(int os_error)
{
    switch (os_error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return VECDB_FULL;
    case EACCES:
    case EPERM:
        return VECDB_DENIED;
    case EROFS:
        return VECDB_READONLY;
    case ENOENT:
        return VECDB_NOT_FOUND;
    case ENOMEM:
        return VECDB_NOMEM;
    default:
        return VECDB_IO;
    }
}

int vdb_fail_os(vecdb_error *err, int os_error, const char *format, ...)
{
    int status = status_of(os_error);
    if (!err)
        return status;
    va_list args;
    va_start(args, format);
    set_message(err, format, args);
    va_end(args);
    size_t used = strlen(err->message);
    char text[96] = "";
#if defined(__GLIBC__) && defined(_GNU_SOURCE)
    const char *words = strerror_r(os_error, text, sizeof text);
#else
    const char *words = strerror_r(os_error, text, sizeof text) ? "unknown error" : text;
#endif
    snprintf(err->message + used, sizeof err->message - used, ": %s", words);
    err->status = status;
    err->os_error = os_error;
    return status;
}

int vdb_fail_prefix(vecdb_error *err, int status, const char *format, ...)
{
    if (!err)
        return status;
    char old[sizeof err->message];
    memcpy(old, err->message, sizeof old);
    va_list args;
    va_start(args, format);
    set_message(err, format, args);
    va_end(args);
    size_t used = strlen(err->message);
    int n = snprintf(err->message + used, sizeof err->message - used, "%s", old);
    if (n >= (int)(sizeof err->message - used))
        memcpy(err->message + sizeof err->message - 4, "...", 4);
    err->status = status;
    return status;
}

int vdb_fail_memory(vecdb_error *err, size_t n_bytes)
{
    return vdb_fail(err, VECDB_NOMEM, "out of memory (%zu bytes were asked for)", n_bytes);
}
