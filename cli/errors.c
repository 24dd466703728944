/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/errors.c - sentences, exit codes, and Ctrl-C
 *
 * The functions that fill an error have the manner of the library's own: they return the status,
 * so that a failing path reads `return cli_fail(err, VECDB_INVALID, "...")`.
 */
#include "cli.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

static int fail_args(vecdb_error *err, int status, int os_error, const char *format, va_list args)
{
    if (!err)
        return status;
    err->status = status;
    err->os_error = os_error;
    int n = vsnprintf(err->message, sizeof err->message, format, args);
    size_t used = n < 0 ? 0 : (size_t)n < sizeof err->message ? (size_t)n : sizeof err->message - 1;
    if (os_error)
        snprintf(err->message + used, sizeof err->message - used, ": %s", strerror(os_error));
    return status;
}

int cli_fail(vecdb_error *err, int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fail_args(err, status, 0, format, args);
    va_end(args);
    return status;
}

int cli_fail_os(vecdb_error *err, int os_error, const char *format, ...)
{
    int status = os_error == ENOENT                         ? VECDB_NOT_FOUND
                 : os_error == EACCES || os_error == EPERM  ? VECDB_DENIED
                 : os_error == ENOSPC || os_error == EDQUOT ? VECDB_FULL
                 : os_error == EROFS                        ? VECDB_READONLY
                                                            : VECDB_IO;
    va_list args;
    va_start(args, format);
    fail_args(err, status, os_error, format, args);
    va_end(args);
    return status;
}

int cli_fail_prefix(vecdb_error *err, int status, const char *format, ...)
{
    if (!err)
        return status;
    char rest[sizeof err->message];
    memcpy(rest, err->message, sizeof rest);
    va_list args;
    va_start(args, format);
    fail_args(err, status, 0, format, args);
    va_end(args);
    size_t used = strlen(err->message);
    snprintf(err->message + used, sizeof err->message - used, ": %.*s", (int)sizeof rest - 1, rest);
    return status;
}

void cli_say(const char *format, ...)
{
    va_list args;
    fflush(stdout);
    fputs("vecdb-cli: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    putc('\n', stderr);
}

int cli_usage(const char *format, ...)
{
    va_list args;
    fputs("vecdb-cli: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    putc('\n', stderr);
    return CODE_USAGE;
}

int cli_report(int status, const vecdb_error *err)
{
    if (!status)
        return CODE_OK;
    cli_say("%s", err->message[0] ? err->message : vecdb_status_name(status));
    return status == VECDB_CORRUPT ? CODE_DAMAGE : CODE_FAILED;
}

/* ---------------------------------------------------------------- interruption */

volatile sig_atomic_t cli_interrupted;

static void on_signal(int number)
{
    (void)number;
    cli_interrupted = 1;
}

void cli_catch_interrupt(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = (int)SA_RESETHAND; /* the second one ends the program; reads are not restarted */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}
