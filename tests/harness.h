/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/harness.h - the test harness
 *
 * A test program is a file tests/test_*.c: a comment with the property under test, then
 *
 *     TEST(a_page_that_was_written_reads_back_the_same)
 *     {
 *         CHECK_INT(page.n_rows, 10);
 *     }
 *
 * Names are sentences. Each test runs in a process of its own, with a time limit and a scratch
 * directory that is removed afterwards; a crash is that test's failure. A check that fails prints
 * place, expressions and both values, and ends the test. A test that cannot run here calls
 * SKIP("why"). Random tests take their seed from test_seed(), which VECDB_TEST_SEED sets, and
 * which is printed with every failure.
 *
 *     tests/test_x              runs all, one line each, last line "N passed, N failed, N skipped"
 *     tests/test_x NAME...      runs those whose name contains NAME
 *     tests/test_x --list
 */
#ifndef VDB_TESTS_HARNESS_H
#define VDB_TESTS_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "vecdb.h"

struct test {
    const char *name;
    const char *file;
    void (*run)(void);
    struct test *next;
};

void test_register(struct test *test);
void test_fail(const char *file, int line, const char *format, ...) __attribute__((noreturn, format(printf, 3, 4)));
void test_skip(const char *why) __attribute__((noreturn));

/* A directory for this test alone. */
const char *test_directory(void);
/* `name` in that directory; one of four static buffers in turn. */
const char *test_path(const char *name);
uint64_t test_seed(void);
/* Seconds this test may take; 120 unless set in the test. */
void test_time_limit(unsigned seconds);
/* The folder of real data, or SKIP: $VECDB_DATA, else ../shared/data seen from the repository. */
const char *test_data(const char *relative_path);

#define TEST(test_name)                                                                                                \
    static void test_name(void);                                                                                       \
    __attribute__((constructor)) static void test_name##_register(void)                                                \
    {                                                                                                                  \
        static struct test self = {#test_name, __FILE__, test_name, NULL};                                             \
        test_register(&self);                                                                                          \
    }                                                                                                                  \
    static void test_name(void)

#define FAIL(...) test_fail(__FILE__, __LINE__, __VA_ARGS__)
#define SKIP(why) test_skip(why)

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            FAIL("%s is false", #condition);                                                                           \
    } while (0)

/* `left_text` and `right_text` are the expressions as the test has them, macros not expanded. */
#define CHECK_COMPARE(type, format, left, op, right, left_text, right_text)                                            \
    do {                                                                                                               \
        type left_value = (type)(left), right_value = (type)(right);                                                   \
        if (!(left_value op right_value))                                                                              \
            FAIL("%s " #op " %s: " format " against " format, left_text, right_text, left_value, right_value);         \
    } while (0)

#define CHECK_INT(left, right) CHECK_COMPARE(long long, "%lld", left, ==, right, #left, #right)
#define CHECK_SIZE(left, right) CHECK_COMPARE(unsigned long long, "%llu", left, ==, right, #left, #right)
#define CHECK_LE(left, right) CHECK_COMPARE(double, "%.17g", left, <=, right, #left, #right)
#define CHECK_DOUBLE(left, right) CHECK_COMPARE(double, "%.17g", left, ==, right, #left, #right)
#define CHECK_STRING(left, right)                                                                                      \
    do {                                                                                                               \
        const char *left_value = (left), *right_value = (right);                                                       \
        if (!left_value || !right_value || strcmp(left_value, right_value))                                            \
            FAIL("%s == %s: \"%s\" against \"%s\"", #left, #right, left_value ? left_value : "(null)",                 \
                 right_value ? right_value : "(null)");                                                                \
    } while (0)
/* `text` contains `part`. */
#define CHECK_CONTAINS(text, part)                                                                                     \
    do {                                                                                                               \
        const char *text_value = (text), *part_value = (part);                                                         \
        if (!text_value || !strstr(text_value, part_value))                                                            \
            FAIL("%s: \"%s\" does not contain \"%s\"", #text, text_value ? text_value : "(null)", part_value);         \
    } while (0)
/* A call that must succeed: CHECK_OK(err, vecdb_open(..., &err)). */
#define CHECK_OK(error, call)                                                                                          \
    do {                                                                                                               \
        int status_value = (call);                                                                                     \
        if (status_value)                                                                                              \
            FAIL("%s: %s: %s", #call, vecdb_status_name(status_value), (error).message);                               \
    } while (0)
/* A call that must fail with a status and a sentence that contains `part`. */
#define CHECK_FAILS(error, expected, part, call)                                                                       \
    do {                                                                                                               \
        memset(&(error), 0, sizeof(error));                                                                            \
        int status_value = (call);                                                                                     \
        if (status_value != (expected))                                                                                \
            FAIL("%s: %s (\"%s\"), expected %s", #call, vecdb_status_name(status_value), (error).message,              \
                 vecdb_status_name(expected));                                                                         \
        if (!strstr((error).message, part))                                                                            \
            FAIL("%s: \"%s\" does not contain \"%s\"", #call, (error).message, part);                                  \
    } while (0)

#endif
