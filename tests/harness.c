/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/harness.c - the test harness (see harness.h)
 */
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define EXIT_SKIP 77
#define DEFAULT_LIMIT_S 120

static struct test *first_test;
static char scratch[256];
static uint64_t seed;

void test_register(struct test *test)
{
    struct test **at = &first_test;
    while (*at && (strcmp((*at)->file, test->file) || strcmp((*at)->name, test->name) < 0))
        at = &(*at)->next;
    test->next = *at;
    *at = test;
}

void test_fail(const char *file, int line, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "    %s:%d: ", file, line);
    vfprintf(stderr, format, args);
    fprintf(stderr, " (VECDB_TEST_SEED=%llu)\n", (unsigned long long)seed);
    va_end(args);
    fflush(NULL);
    _exit(1);
}

void test_skip(const char *why)
{
    fprintf(stderr, "    skipped: %s\n", why);
    fflush(NULL);
    _exit(EXIT_SKIP);
}

const char *test_directory(void)
{
    return scratch;
}

const char *test_path(const char *name)
{
    static char paths[4][512];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", scratch, name);
    return path;
}

uint64_t test_seed(void)
{
    return seed;
}

void test_time_limit(unsigned seconds)
{
    const char *factor = getenv("VECDB_TEST_SLOW"); /* sanitizers, emulators */
    alarm(seconds * (factor ? (unsigned)atoi(factor) : 1));
}

const char *test_data(const char *relative_path)
{
    static char path[512];
    const char *root = getenv("VECDB_DATA");
    snprintf(path, sizeof path, "%s/%s", root ? root : "../shared/data", relative_path);
    if (access(path, R_OK))
        SKIP("the real data is not here (set VECDB_DATA)");
    return path;
}

static void remove_tree(const char *path)
{
    chmod(path, 0700);
    DIR *directory = opendir(path);
    if (directory) {
        for (struct dirent *entry; (entry = readdir(directory));) {
            if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
                continue;
            char child[1024];
            snprintf(child, sizeof child, "%s/%s", path, entry->d_name);
            struct stat status;
            if (!lstat(child, &status) && S_ISDIR(status.st_mode))
                remove_tree(child);
            else
                unlink(child);
        }
        closedir(directory);
    }
    rmdir(path);
}

/* The exit status of the test's process, or 128 + the signal that ended it. */
static int run_in_process(const struct test *test)
{
    const char *base = getenv("TMPDIR");
    snprintf(scratch, sizeof scratch, "%s/vecdb-test-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(scratch)) {
        fprintf(stderr, "    cannot make a scratch directory: %s\n", strerror(errno));
        return 1;
    }
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        setpgid(0, 0); /* so that helpers the test starts end with it */
        test_time_limit(DEFAULT_LIMIT_S);
        test->run();
        fflush(NULL);
        exit(0); /* not _exit: leak checkers report at exit */
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    kill(-child, SIGKILL);
    remove_tree(scratch);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static bool is_wanted(const struct test *test, int argc, char **argv)
{
    if (argc < 2)
        return true;
    for (int i = 1; i < argc; i++)
        if (strstr(test->name, argv[i]))
            return true;
    return false;
}

int main(int argc, char **argv)
{
    const char *given = getenv("VECDB_TEST_SEED");
    seed = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) * 1000003u ^ (uint64_t)getpid();
    if (argc == 2 && !strcmp(argv[1], "--list")) {
        for (struct test *test = first_test; test; test = test->next)
            puts(test->name);
        return 0;
    }
    unsigned passed = 0, failed = 0, skipped = 0;
    for (struct test *test = first_test; test; test = test->next) {
        if (!is_wanted(test, argc, argv))
            continue;
        int status = run_in_process(test);
        if (status == 0)
            passed++;
        else if (status == EXIT_SKIP)
            skipped++;
        else
            failed++;
        printf("%s %s", status == 0 ? "ok  " : status == EXIT_SKIP ? "skip" : "FAIL", test->name);
        if (status > 128)
            printf(" (ended by signal %d: %s)", status - 128, strsignal(status - 128));
        if (status && status != EXIT_SKIP)
            printf("\n     again: VECDB_TEST_SEED=%llu %s %s", (unsigned long long)seed, argv[0], test->name);
        putchar('\n');
        fflush(stdout);
    }
    printf("%u passed, %u failed, %u skipped\n", passed, failed, skipped);
    return failed != 0;
}
