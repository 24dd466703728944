/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/test_fault_sites.c - every place that asks the system for something is told no, once
 *
 * Lives of a database, of every feature, over a libc that fails on demand (inject.h): so what fails is whatever
 * the library, SQLite or zstd ask for, wherever. First a life is watched, which finds every call site; then it is
 * lived again for one in 30 of them, in 150 where there is a graph (VECDB_TEST_ROUNDS=n: one in n), that site's first
 * call failing. The properties:
 *   1. A call succeeds, or fails with an error that fits and a sentence. An interrupted system call, and one that
 *      did half, are nothing that anyone notices.
 *   2. Afterwards nothing is held by handles that are closed, and the database opens, holds every record of the
 *      ledger that was acknowledged, has nothing wrong with it, and can be written and compacted.
 *
 * test_faults.c looks closer at fewer features: there every call of a life may fail, and all of the content is
 * compared. `make fault-sites` shows which call sites of the sources are reached by this program.
 */
#include <errno.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <time.h>

#include "fault_graph_lives.h"
#include "fault_lives.h"
#include "fault_rare_lives.h"

#define MOST_FIRSTS 8192

/* ------------------------------------------------------------------ trials */

/* Where the handles of a life have their memory from: it holds nothing once they are closed. */
static struct vdb_memory beneath;

static void *allocate(void *context, size_t size)
{
    return inject_refuses_memory() ? NULL : vdb_alloc(context, size);
}

static void *reallocate(void *context, void *block, size_t size)
{
    return inject_refuses_memory() ? NULL : vdb_realloc(context, block, size);
}

static void release(void *context, void *block)
{
    vdb_free(context, block);
}

static void begin_life(struct life *life)
{
    *life = (struct life){.options = {.threads = VECDB_THREADS_NONE}};
    life->options.allocator = (vecdb_allocator){allocate, reallocate, release, &beneath};
    vdb_memory_init(&beneath, NULL);
    each_name(test_directory(), remove_tree, NULL);
    snprintf(life->path, sizeof life->path, "%s/db", test_directory());
    snprintf(life->other, sizeof life->other, "%s/other", test_directory());
    snprintf(life->third, sizeof life->third, "%s/third", test_directory());
}

static void check_afterwards(struct life *life)
{
    inject_begin(INJECT_NOTHING, 0, 0, 0);
    if (life->db)
        close_db(life);
    if (vdb_memory_used(&beneath))
        FAIL("%s: %zu bytes are held after close", trial, vdb_memory_used(&beneath));
    if (sqlite3_memory_used())
        FAIL("%s: SQLite holds %lld bytes after close", trial, (long long)sqlite3_memory_used());
    snprintf(trial + strlen(trial), sizeof trial - strlen(trial), ", afterwards");
    expected_error = 0;
    life->options = (vecdb_options){.threads = VECDB_THREADS_NONE};
    int n_put = life->n_put;
    struct stat status;
    char missing[300];
    snprintf(missing, sizeof missing, "%s.repaired", life->path);
    if ((stat(life->path, &status) && (!stat(missing, &status) || life->has_backup)) || life->is_damaged) {
        vecdb_error err = VECDB_ERROR_INIT; /* between two names, or not done: calling again completes it */
        if (life->has_backup)
            CHECK_OK(err, vecdb_restore(life->other, life->path, NULL, &err));
        else
            CHECK_OK(err, vecdb_repair(life->path, NULL, NULL, NULL, NULL, NULL, &err));
    }
    if (!begin(life))
        FAIL("%s: it does not open", trial);
    if (life->has_lost_graph) /* which is heard of until it is built anew */
        build_graph(life, false);
    for (int key = 0; key < n_put; key++) {
        vecdb_key keys[] = {vecdb_key_int(key)};
        vecdb_results *results;
        CALL(life, "get", vecdb_get(life->ledger, keys, 1, VECDB_VECTORS, &results, &err));
        if (life->acknowledged[key] && !vecdb_result_found(results, 0))
            FAIL("%s: entry %d of the ledger is lost", trial, key);
        if (vecdb_result_found(results, 0))
            version_of_vector(key, vecdb_result_vector(results, 0, NULL, NULL, NULL), 4);
        vecdb_results_free(results);
    }
    check_database(life->db, trial);
    check_graph(life);
    put_ledger(life);
    write_things(life, 0, 50, true);
    search_things(life, "wide", 1, VECDB_F32, 3);
    compact(life);
    check_database(life->db, trial);
    close_db(life);
}

/* In a process of its own: how it ends is no reason not to try the next. True if there was something to fail. */
static bool live_once_more(void (*live)(struct life *), enum inject_what what, int os_error, enum inject_way way)
{
    enum { NOTHING_NEW = 90, ALL_WELL = 91 };
    int status;
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        struct life life;
        test_time_limit(60);
        begin_life(&life);
        expected_error = os_error;
        n_wrong = 0;
        inject_begin_new(what, os_error, way);
        live(&life);
        bool has_failed = inject_has_failed();
        check_afterwards(&life);
        fflush(NULL);
        _exit(n_wrong ? 1 : has_failed ? ALL_WELL : NOTHING_NEW);
    }
    time_t began = time(NULL);
    CHECK(waitpid(child, &status, 0) == child);
    if (time(NULL) > began + 3)
        printf("    %s: %ld s\n", trial, (long)(time(NULL) - began));
    if (WIFEXITED(status) && WEXITSTATUS(status) >= NOTHING_NEW)
        return WEXITSTATUS(status) == ALL_WELL;
    printf("    %s: ends with %x\n", trial, (unsigned)status);
    n_wrong++;
    return n_wrong < 50;
}

/* For the record (see inject.h): again and again, until there is nothing new to fail. */
static void fail_what_never_failed(const char *name, void (*live)(struct life *), enum inject_what what, int os_error)
{
    static const char *const ways[] = {"once", "for good", "and again"};
    for (enum inject_way way = 0; way < INJECT_WAYS; way++) {
        int n = 0;
        do
            snprintf(trial, sizeof trial, "%s, new failure %d with %d, %s", name, n++, os_error, ways[way]);
        while (live_once_more(live, what, os_error, way));
        printf("    %s, %s: %d lives\n", name, ways[way], n);
    }
}

/* With a sanitizer: sites are not told apart, so allocations that are evenly spread fail. */
static void fail_some_allocations(const char *name, void (*live)(struct life *), size_t n_lives)
{
    struct life life;
    snprintf(trial, sizeof trial, "%s without a failure", name);
    begin_life(&life);
    expected_error = 0;
    inject_watch(INJECT_MEMORY, NULL, 0);
    live(&life);
    size_t n_calls = inject_end(), step = n_calls / n_lives + 1, n_noticed = 0;
    check_afterwards(&life);
    for (size_t i = test_seed() % step; i < n_calls; i += step) {
        snprintf(trial, sizeof trial, "%s, allocation %zu of %zu fails", name, i, n_calls);
        begin_life(&life);
        expected_error = ENOMEM;
        inject_begin(INJECT_MEMORY, ENOMEM, (long)i, 1);
        live(&life);
        n_noticed += life.n_failed > 0;
        check_afterwards(&life);
    }
    printf("    %s: %zu allocations, %zu lives noticed\n", name, n_calls, n_noticed);
    if (n_wrong)
        FAIL("%d calls failed in another way than they should", n_wrong);
}

/* One life for each site, or for one in `one_in` of them (or VECDB_TEST_ROUNDS). */
static void fail_each_site(const char *name, void (*live)(struct life *), enum inject_what what, int os_error,
                           unsigned long one_in)
{
    static long firsts[MOST_FIRSTS];
    struct life life;
    if (!INJECT_WORKS && what != INJECT_MEMORY)
        SKIP("a sanitizer has libc's functions itself");
    if (getenv("VECDB_FAULT_LIFE") && strcmp(getenv("VECDB_FAULT_LIFE"), name))
        return; /* one of them is wanted only */
    sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0); /* so that SQLite asks for whatever it needs */
    test_time_limit(600);
    mount_memory(test_directory(), "size=256m"); /* or not: it is only faster */
    if (!INJECT_WORKS)
        return fail_some_allocations(name, live, one_in > 30 ? 4 : 8);
    snprintf(trial, sizeof trial, "%s without a failure", name);
    for (int round = 0; round < 2; round++) { /* the first warms up what is made once per process */
        expected_error = 0;
        begin_life(&life);
        inject_watch(what, firsts, MOST_FIRSTS);
        live(&life);
    }
    size_t n_sites = inject_end();
    snprintf(trial, sizeof trial, "%s without a failure", name);
    check_afterwards(&life);
    if (inject_records()) {
        fail_what_never_failed(name, live, what, os_error);
        goto done;
    }
    size_t step = n_sites < 20 ? 1 : test_rounds(one_in), n_reached = 0, n_noticed = 0;
    for (size_t i = test_seed() % step; i < n_sites; i += step) {
        bool is_harmless = os_error == EINTR || os_error == INJECT_SHORT;
        snprintf(trial, sizeof trial, "%s, call %ld (site %zu of %zu) fails with %d", name, firsts[i], i, n_sites,
                 os_error);
        begin_life(&life);
        expected_error = is_harmless ? 0 : os_error;
        inject_begin(what, os_error, firsts[i], 1);
        live(&life);
        n_reached += inject_has_failed();
        n_noticed += life.n_failed > 0;
        check_afterwards(&life);
    }
    printf("    %s: %zu sites, %zu failed, %zu lives noticed\n", name, n_sites, n_reached, n_noticed);
done:
    each_name(test_directory(), remove_tree, NULL);
    if (n_wrong)
        FAIL("%d calls failed in another way than they should", n_wrong);
}

#define SCENARIOS(each, ...)                                                                                           \
    each("a plain life", live_plainly, __VA_ARGS__);                                                                   \
    each("other ways", live_in_other_ways, __VA_ARGS__);                                                               \
    each("changes", live_with_changes, __VA_ARGS__);                                                                   \
    each("debris", live_with_debris, __VA_ARGS__);                                                                     \
    each("copies", live_with_copies, __VA_ARGS__);                                                                     \
    each("restore", live_and_restore, __VA_ARGS__);                                                                    \
    each("repair", live_and_repair, __VA_ARGS__);                                                                      \
    each("salvage", live_and_salvage, __VA_ARGS__);                                                                    \
    each("much salvage", live_and_salvage_much, __VA_ARGS__);                                                          \
    each("ties", live_with_ties, __VA_ARGS__);                                                                         \
    each("to be read", live_to_be_read, __VA_ARGS__);                                                                  \
    each("the state", live_and_heal_the_state, __VA_ARGS__);                                                           \
    each("short names", live_under_short_names, __VA_ARGS__);                                                          \
    each("a scrub", live_with_a_scrub, __VA_ARGS__);                                                                   \
    each("the end of the slots", live_to_the_end_of_the_slots, __VA_ARGS__);                                           \
    each("in memory", live_in_memory, __VA_ARGS__)

#define RARE_SCENARIOS(each, ...)                                                                                      \
    each("failed syncs", live_after_failed_syncs, __VA_ARGS__);                                                        \
    each("somebody faster", live_with_somebody_faster, __VA_ARGS__);                                                   \
    each("nowhere", live_nowhere, __VA_ARGS__);                                                                        \
    each("without the index of the log", live_without_the_index_of_the_log, __VA_ARGS__);                              \
    each("more than the state", live_and_heal_more_than_the_state, __VA_ARGS__);                                       \
    each("doubtful records", live_and_salvage_doubtful_records, __VA_ARGS__);                                          \
    each("missing records", live_and_miss_records, __VA_ARGS__);                                                       \
    each("no map", live_and_salvage_without_a_map, __VA_ARGS__);                                                       \
    each("deaths amid new numbers", live_with_deaths_while_slots_are_numbered_anew, __VA_ARGS__);                      \
    each("another builder", live_beside_a_builder, __VA_ARGS__)

#define GRAPH_SCENARIOS(each, ...)                                                                                     \
    each("a graph", live_with_a_graph, __VA_ARGS__);                                                                   \
    each("lost graphs", live_with_lost_graphs, __VA_ARGS__);                                                           \
    each("a graph in the background", live_with_a_graph_in_the_background, __VA_ARGS__)

TEST(every_site_that_asks_for_memory_is_told_once_that_there_is_none)
{
    SCENARIOS(fail_each_site, INJECT_MEMORY, ENOMEM, 30);
}

TEST(in_rare_lives_every_site_that_asks_for_memory_is_told_once_that_there_is_none)
{
    if (!INJECT_WORKS)
        SKIP("nothing can be arranged where a sanitizer has libc's functions itself");
    RARE_SCENARIOS(fail_each_site, INJECT_MEMORY, ENOMEM, 30);
}

TEST(every_site_that_touches_a_file_fails_once)
{
    SCENARIOS(fail_each_site, INJECT_FILES, EIO, 30);
}

TEST(in_rare_lives_every_site_that_touches_a_file_fails_once)
{
    RARE_SCENARIOS(fail_each_site, INJECT_FILES, EIO, 30);
}

TEST(with_graphs_every_site_that_asks_for_memory_is_told_once_that_there_is_none)
{
    GRAPH_SCENARIOS(fail_each_site, INJECT_MEMORY, ENOMEM, 150);
}

TEST(with_graphs_every_site_that_touches_a_file_fails_once)
{
    GRAPH_SCENARIOS(fail_each_site, INJECT_FILES, EIO, 150);
}

TEST(nobody_notices_reads_and_writes_that_are_interrupted_or_do_half)
{
    if (inject_records())
        SKIP("is not for the record");
    fail_each_site("interrupted reads", live_plainly, INJECT_READS, EINTR, 30);
    fail_each_site("interrupted writes", live_plainly, INJECT_WRITES, EINTR, 30);
    fail_each_site("half reads", live_plainly, INJECT_READS, INJECT_SHORT, 30);
    fail_each_site("half writes", live_plainly, INJECT_WRITES, INJECT_SHORT, 30);
}
