/* SPDX-License-Identifier: Apache-2.0
 *
 * Property: the cache returns what was put into it, under the key that it was put under, or nothing; it
 * keeps to its budget but for what is pinned; pinned entries stay; hot entries outlive cold ones.
 */
#include <pthread.h>

#include "base/random.h"
#include "failing.h"
#include "harness.h"
#include "storage/cache.h"

static struct vdb_memory memory;
static struct vdb_cache *cache;
static vecdb_error err;

static void begin(uint64_t budget)
{
    vdb_memory_init(&memory, NULL);
    CHECK_OK(err, vdb_cache_new(&memory, budget, &cache, &err));
}

static void end(void)
{
    vdb_cache_free(cache);
    CHECK_SIZE(vdb_memory_used(&memory), 0ull);
}

/* Put an entry that says which it is; returns it pinned. */
static struct vdb_cache_entry *put(uint64_t number, uint32_t page, size_t n_bytes)
{
    struct vdb_cache_entry *entry = vdb_cache_reserve(cache, number, page, n_bytes);
    CHECK(entry != NULL);
    CHECK_INT((uintptr_t)vdb_cache_bytes(entry) % 64, 0);
    memset(vdb_cache_bytes(entry), (int)(number * 31 + page) & 255, n_bytes);
    return vdb_cache_publish(cache, entry);
}

static bool is_right(struct vdb_cache_entry *entry, uint64_t number, uint32_t page, size_t n_bytes)
{
    const unsigned char *bytes = vdb_cache_bytes(entry), want = (unsigned char)(number * 31 + page);
    for (size_t i = 0; i < n_bytes; i++)
        if (bytes[i] != want)
            return false;
    return true;
}

static struct vdb_cache_stats stats_now(void)
{
    struct vdb_cache_stats stats;
    vdb_cache_get_stats(cache, &stats);
    return stats;
}

TEST(an_entry_is_found_under_its_key_and_no_other)
{
    begin(1 << 20);
    CHECK(vdb_cache_get(cache, 1, 2) == NULL);
    struct vdb_cache_entry *entry = put(1, 2, 100);
    struct vdb_cache_entry *again = vdb_cache_get(cache, 1, 2);
    CHECK(again == entry);
    CHECK(is_right(again, 1, 2, 100));
    CHECK(vdb_cache_get(cache, 1, 3) == NULL);
    CHECK(vdb_cache_get(cache, 2, 2) == NULL);
    vdb_cache_unpin(cache, entry);
    vdb_cache_unpin(cache, again);
    CHECK_INT(stats_now().hits, 1);
    CHECK_INT(stats_now().misses, 3);
    end();
}

TEST(the_second_to_publish_gets_the_entry_of_the_first)
{
    begin(1 << 20);
    struct vdb_cache_entry *late = vdb_cache_reserve(cache, 7, 7, 50), *first = put(7, 7, 50);
    CHECK(vdb_cache_publish(cache, late) == first);
    vdb_cache_unpin(cache, first);
    vdb_cache_unpin(cache, first);
    struct vdb_cache_entry *dropped = vdb_cache_reserve(cache, 7, 8, 50);
    vdb_cache_drop(cache, dropped);
    CHECK(vdb_cache_get(cache, 7, 8) == NULL);
    end();
}

TEST(the_budget_holds_and_every_entry_that_is_left_is_right)
{
    begin(100000);
    struct vdb_random random = {test_seed()};
    for (int i = 0; i < 20000; i++) {
        uint64_t number = 1 + vdb_random_below(&random, 5);
        uint32_t page = (uint32_t)vdb_random_below(&random, 300);
        struct vdb_cache_entry *entry = vdb_cache_get(cache, number, page);
        if (!entry)
            entry = put(number, page, 500 + page);
        CHECK(is_right(entry, number, page, 500 + page));
        vdb_cache_unpin(cache, entry);
        CHECK_LE((double)stats_now().bytes, 100000);
        if (i % 5000 == 4999)
            vdb_cache_forget(cache, number);
    }
    CHECK(stats_now().evictions > 1000);
    CHECK(stats_now().hits > 100);
    end();
}

TEST(pinned_entries_stay_and_may_exceed_the_budget_until_they_are_unpinned)
{
    begin(10000);
    struct vdb_cache_entry *pinned[50];
    for (uint32_t i = 0; i < 50; i++)
        pinned[i] = put(1, i, 1000);
    CHECK(stats_now().bytes > 50000);
    for (uint32_t i = 0; i < 50; i++) {
        CHECK(is_right(pinned[i], 1, i, 1000));
        struct vdb_cache_entry *again = vdb_cache_get(cache, 1, i);
        CHECK(again == pinned[i]);
        vdb_cache_unpin(cache, again);
    }
    for (uint32_t i = 0; i < 50; i++)
        vdb_cache_unpin(cache, pinned[i]);
    CHECK_LE((double)stats_now().bytes, 10000);
    end();
}

TEST(a_budget_of_nothing_keeps_nothing)
{
    begin(0);
    vdb_cache_unpin(cache, put(1, 1, 1000));
    CHECK(vdb_cache_get(cache, 1, 1) == NULL);
    CHECK_SIZE((unsigned long long)stats_now().bytes, 0ull);
    end();
}

TEST(entries_that_are_used_outlive_those_that_are_not)
{
    begin(200 * 1100);
    for (uint32_t i = 0; i < 20; i++)
        vdb_cache_unpin(cache, put(1, i, 900));
    int n_misses = 0;
    for (uint32_t i = 0; i < 5000; i++) {
        uint32_t hot = i % 20;
        struct vdb_cache_entry *entry = vdb_cache_get(cache, 1, hot);
        n_misses += !entry;
        vdb_cache_unpin(cache, entry ? entry : put(1, hot, 900));
        vdb_cache_unpin(cache, put(2, i, 900)); /* never asked for again */
    }
    CHECK_LE(n_misses, 250); /* 5 % */
    end();
}

TEST(forgetting_an_extent_frees_its_entries_and_no_others)
{
    begin(1 << 20);
    uint64_t first = vdb_cache_number(cache), second = vdb_cache_number(cache);
    CHECK(first != second);
    for (uint32_t i = 0; i < 200; i++) {
        vdb_cache_unpin(cache, put(first, i, 64));
        vdb_cache_unpin(cache, put(second, i, 64));
    }
    uint64_t before = stats_now().bytes;
    vdb_cache_forget(cache, first);
    CHECK_SIZE((unsigned long long)stats_now().bytes, (unsigned long long)before / 2);
    for (uint32_t i = 0; i < 200; i++) {
        CHECK(vdb_cache_get(cache, first, i) == NULL);
        struct vdb_cache_entry *entry = vdb_cache_get(cache, second, i);
        CHECK(entry && is_right(entry, second, i, 64));
        vdb_cache_unpin(cache, entry);
    }
    end();
}

static int n_released;

static void release_spare(void *spare)
{
    (void)spare;
    n_released++;
}

TEST(spares_are_handed_on_and_released_at_the_end)
{
    begin(0);
    int things[20];
    CHECK(vdb_cache_take_spare(cache) == NULL);
    vdb_cache_give_spare(cache, &things[0], release_spare);
    CHECK(vdb_cache_take_spare(cache) == &things[0]);
    CHECK(vdb_cache_take_spare(cache) == NULL);
    for (int i = 0; i < 20; i++)
        vdb_cache_give_spare(cache, &things[i], release_spare);
    CHECK(n_released > 0 && n_released < 20);
    end();
    CHECK_INT(n_released, 20);
}

TEST(without_memory_a_cache_is_not_made_and_an_entry_is_not_reserved)
{
    bool whole = false;
    for (int n = 0; !whole; n++) {
        struct failing failing;
        failing_begin(&failing, &memory, n);
        int status = vdb_cache_new(&memory, 10000, &cache, &err);
        CHECK(status == VECDB_OK || status == VECDB_NOMEM);
        if (!status) {
            struct vdb_cache_entry *entry = vdb_cache_reserve(cache, 1, 1, 100);
            if (entry)
                vdb_cache_unpin(cache, vdb_cache_publish(cache, entry));
            vdb_cache_free(cache);
        }
        CHECK_SIZE(vdb_memory_used(&memory), 0ull);
        whole = !failing_has_failed(&failing);
        CHECK(n < 100);
    }
}

struct worker {
    uint64_t seed;
    const char *fault;
};

static void *work(void *context)
{
    struct worker *worker = context;
    struct vdb_random random = {worker->seed};
    for (int i = 0; i < 20000 && !worker->fault; i++) {
        uint64_t number = 1 + vdb_random_below(&random, 3);
        uint32_t page = (uint32_t)vdb_random_below(&random, 100);
        struct vdb_cache_entry *entry = vdb_cache_get(cache, number, page);
        if (!entry)
            entry = put(number, page, 200);
        if (!is_right(entry, number, page, 200))
            worker->fault = "an entry holds other bytes";
        vdb_cache_unpin(cache, entry);
        void *spare = vdb_cache_take_spare(cache);
        if (spare)
            vdb_cache_give_spare(cache, spare, release_spare);
    }
    return NULL;
}

TEST(threads_share_a_cache_that_is_too_small_for_them)
{
    begin(20000);
    struct worker workers[8];
    pthread_t threads[8];
    int thing;
    vdb_cache_give_spare(cache, &thing, release_spare);
    for (uint64_t i = 0; i < 8; i++) {
        workers[i] = (struct worker){test_seed() + i, NULL};
        CHECK_INT(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < 8; i++) {
        CHECK_INT(pthread_join(threads[i], NULL), 0);
        if (workers[i].fault)
            FAIL("%s", workers[i].fault);
    }
    CHECK_LE((double)stats_now().bytes, 20000);
    end();
}
