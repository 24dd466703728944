/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/cache.c - the page cache: a sharded CLOCK (see cache.h)
 *
 *     cache ── shard 0 ── lock, hash table of chains, ring of entries with a hand
 *          └── shard 1 ── ...
 *     used: bytes of all entries, reserved ones included; one atomic number for all shards
 *
 * A page is 64 KiB, so a budget of 256 MiB is 4,096 entries: what matters is not the cost of a
 * look-up (a lock and a chain of one) but that eviction is fair to hot pages and keeps to the budget.
 *
 * Invariants
 *   1. `pins` rises only under the shard's lock. An entry seen there with no pins can therefore be
 *      freed; it may fall without the lock, and that is the unpinner's last touch of the entry,
 *      unless the cache is over its budget.
 *   2. used <= budget + bytes of pinned and reserved entries, when no call is in progress.
 *   3. At most one entry of a key is in the tables; reserved entries are in none.
 *   4. No two locks are held at once.
 *
 * The budget is one for all shards, not a share for each: with shares, a scan of one extent and an
 * unlucky hash would evict pages while others' shares are empty. A shard that has nothing to give
 * asks the next.
 *
 * Rejected: LRU (a list move under the lock at every hit); 2Q and ARC (scan resistance that CLOCK
 * lacks is worth little here: scans of uncompressed data do not come through the cache at all).
 */
#include "cache.h"

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define N_SHARDS 16 /* more threads than this rarely search at once in one process */
#define FIRST_BUCKETS 64
#define ALIGN 64
#define N_SPARES 8 /* 160 KiB each for a decoder; threads beyond these make their own */

struct vdb_cache_entry {
    uint64_t number;
    uint32_t page;
    _Atomic uint32_t pins;
    _Atomic bool referenced; /* since the hand last passed */
    size_t n_bytes;          /* that count against the budget */
    struct vdb_cache_entry *chain;
    struct vdb_cache_entry *next, *previous; /* in the ring */
};

#define HEAD_BYTES ((sizeof(struct vdb_cache_entry) + ALIGN - 1) / ALIGN * ALIGN)

struct shard {
    pthread_mutex_t lock;
    struct vdb_cache_entry **buckets;
    size_t n_buckets; /* a power of two */
    size_t n_entries;
    struct vdb_cache_entry *hand; /* NULL: the ring is empty */
    uint64_t hits, misses, evictions;
    char apart[64]; /* keep neighbours' locks in other cache lines */
};

struct vdb_cache {
    struct vdb_memory *memory;
    uint64_t budget;
    _Atomic uint64_t used;
    _Atomic uint64_t next_number;
    void *_Atomic spares[N_SPARES];
    void (*_Atomic release_spare)(void *spare);
    struct shard shards[N_SHARDS];
};

static uint64_t hash_key(uint64_t number, uint32_t page)
{
    uint64_t hash = (number * 0x9e3779b97f4a7c15u) ^ page;
    hash *= 0xd6e8feb86659fd93u;
    return hash ^ hash >> 32;
}

static struct shard *shard_of(struct vdb_cache *cache, uint64_t hash)
{
    return &cache->shards[hash >> 28 & (N_SHARDS - 1)];
}

static struct vdb_cache_entry **find(struct shard *shard, uint64_t hash, uint64_t number, uint32_t page)
{
    struct vdb_cache_entry **at = &shard->buckets[hash & (shard->n_buckets - 1)];
    while (*at && ((*at)->number != number || (*at)->page != page))
        at = &(*at)->chain;
    return at;
}

/* Twice the buckets. Without memory for them chains are longer, that is all. */
static void widen_table(struct vdb_cache *cache, struct shard *shard)
{
    size_t n = shard->n_buckets * 2;
    struct vdb_cache_entry **buckets = vdb_alloc_array(cache->memory, n, sizeof *buckets);
    if (!buckets)
        return;
    memset(buckets, 0, n * sizeof *buckets);
    for (size_t i = 0; i < shard->n_buckets; i++) {
        while (shard->buckets[i]) {
            struct vdb_cache_entry *entry = shard->buckets[i];
            shard->buckets[i] = entry->chain;
            struct vdb_cache_entry **to = &buckets[hash_key(entry->number, entry->page) & (n - 1)];
            entry->chain = *to;
            *to = entry;
        }
    }
    vdb_free(cache->memory, shard->buckets);
    shard->buckets = buckets;
    shard->n_buckets = n;
}

/* Behind the hand: it is looked at last. */
static void link_entry(struct shard *shard, struct vdb_cache_entry *entry)
{
    if (!shard->hand) {
        entry->next = entry->previous = shard->hand = entry;
    } else {
        entry->next = shard->hand;
        entry->previous = shard->hand->previous;
        entry->previous->next = entry;
        shard->hand->previous = entry;
    }
    shard->n_entries++;
}

/* Out of the table and the ring. `at` is the pointer in the chain that leads to it. */
static void unlink_entry(struct shard *shard, struct vdb_cache_entry **at)
{
    struct vdb_cache_entry *entry = *at;
    *at = entry->chain;
    if (entry->next == entry) {
        shard->hand = NULL;
    } else {
        entry->next->previous = entry->previous;
        entry->previous->next = entry->next;
        if (shard->hand == entry)
            shard->hand = entry->next;
    }
    shard->n_entries--;
}

static void free_entry(struct vdb_cache *cache, struct vdb_cache_entry *entry)
{
    atomic_fetch_sub_explicit(&cache->used, entry->n_bytes, memory_order_relaxed);
    vdb_free_aligned(cache->memory, entry);
}

/* Evict from one shard until `limit` bytes are used or it has nothing more to give. The hand goes
 * round twice at most: once to take the second chances away, once to collect. */
static void evict_from(struct vdb_cache *cache, struct shard *shard, uint64_t limit)
{
    pthread_mutex_lock(&shard->lock);
    for (size_t steps = 2 * shard->n_entries; steps && shard->hand; steps--) {
        if (atomic_load_explicit(&cache->used, memory_order_relaxed) <= limit)
            break;
        struct vdb_cache_entry *entry = shard->hand;
        shard->hand = entry->next;
        if (atomic_load_explicit(&entry->pins, memory_order_acquire))
            continue;
        if (atomic_exchange_explicit(&entry->referenced, false, memory_order_relaxed))
            continue;
        unlink_entry(shard, find(shard, hash_key(entry->number, entry->page), entry->number, entry->page));
        shard->evictions++;
        free_entry(cache, entry);
    }
    pthread_mutex_unlock(&shard->lock);
}

/* Make room for n bytes more, beginning with the shard `first`. */
static void make_room(struct vdb_cache *cache, size_t first, uint64_t n_bytes)
{
    uint64_t limit = cache->budget > n_bytes ? cache->budget - n_bytes : 0;
    for (size_t i = 0; i < N_SHARDS; i++) {
        if (atomic_load_explicit(&cache->used, memory_order_relaxed) <= limit)
            return;
        evict_from(cache, &cache->shards[(first + i) % N_SHARDS], limit);
    }
}

int vdb_cache_new(struct vdb_memory *memory, uint64_t budget_bytes, struct vdb_cache **cache, vecdb_error *err)
{
    struct vdb_cache *made = vdb_alloc_zero(memory, sizeof *made);
    if (!made)
        return vdb_fail_memory(err, sizeof *made);
    made->memory = memory;
    made->budget = budget_bytes;
    atomic_init(&made->next_number, 1);
    for (size_t i = 0; i < N_SHARDS; i++) {
        struct shard *shard = &made->shards[i];
        shard->n_buckets = FIRST_BUCKETS;
        shard->buckets = vdb_alloc_zero(memory, FIRST_BUCKETS * sizeof *shard->buckets);
        int os_error = shard->buckets ? pthread_mutex_init(&shard->lock, NULL) : 0;
        if (shard->buckets && !os_error)
            continue;
        vdb_free(memory, shard->buckets);
        while (i--) {
            pthread_mutex_destroy(&made->shards[i].lock);
            vdb_free(memory, made->shards[i].buckets);
        }
        vdb_free(memory, made);
        return os_error ? vdb_fail_os(err, os_error, "cannot make a lock")
                        : vdb_fail_memory(err, FIRST_BUCKETS * sizeof *shard->buckets);
    }
    *cache = made;
    return VECDB_OK;
}

void vdb_cache_free(struct vdb_cache *cache)
{
    if (!cache)
        return;
    for (size_t i = 0; i < N_SHARDS; i++) {
        struct shard *shard = &cache->shards[i];
        while (shard->hand) {
            struct vdb_cache_entry *entry = shard->hand;
            assert(!atomic_load(&entry->pins));
            unlink_entry(shard, find(shard, hash_key(entry->number, entry->page), entry->number, entry->page));
            free_entry(cache, entry);
        }
        pthread_mutex_destroy(&shard->lock);
        vdb_free(cache->memory, shard->buckets);
    }
    assert(atomic_load(&cache->used) == 0);
    for (void *spare; (spare = vdb_cache_take_spare(cache));)
        atomic_load (&cache->release_spare)(spare);
    vdb_free(cache->memory, cache);
}

uint64_t vdb_cache_number(struct vdb_cache *cache)
{
    return atomic_fetch_add_explicit(&cache->next_number, 1, memory_order_relaxed);
}

static void pin(struct vdb_cache_entry *entry)
{
    atomic_fetch_add_explicit(&entry->pins, 1, memory_order_relaxed);
    atomic_store_explicit(&entry->referenced, true, memory_order_relaxed);
}

struct vdb_cache_entry *vdb_cache_get(struct vdb_cache *cache, uint64_t number, uint32_t page)
{
    uint64_t hash = hash_key(number, page);
    struct shard *shard = shard_of(cache, hash);
    pthread_mutex_lock(&shard->lock);
    struct vdb_cache_entry *entry = *find(shard, hash, number, page);
    if (entry) {
        pin(entry);
        shard->hits++;
    } else {
        shard->misses++;
    }
    pthread_mutex_unlock(&shard->lock);
    return entry;
}

struct vdb_cache_entry *vdb_cache_reserve(struct vdb_cache *cache, uint64_t number, uint32_t page, size_t n_bytes)
{
    if (n_bytes > SIZE_MAX / 4)
        return NULL;
    size_t total = HEAD_BYTES + n_bytes;
    make_room(cache, (size_t)(shard_of(cache, hash_key(number, page)) - cache->shards), total);
    struct vdb_cache_entry *entry = vdb_alloc_aligned(cache->memory, total);
    if (!entry)
        return NULL;
    memset(entry, 0, sizeof *entry);
    entry->number = number;
    entry->page = page;
    entry->n_bytes = total;
    atomic_init(&entry->pins, 1);
    atomic_fetch_add_explicit(&cache->used, total, memory_order_relaxed);
    return entry;
}

struct vdb_cache_entry *vdb_cache_publish(struct vdb_cache *cache, struct vdb_cache_entry *entry)
{
    uint64_t hash = hash_key(entry->number, entry->page);
    struct shard *shard = shard_of(cache, hash);
    pthread_mutex_lock(&shard->lock);
    struct vdb_cache_entry **at = find(shard, hash, entry->number, entry->page);
    struct vdb_cache_entry *other = *at;
    if (other) {
        pin(other);
    } else {
        *at = entry; /* the end of its chain */
        link_entry(shard, entry);
        if (shard->n_entries > shard->n_buckets)
            widen_table(cache, shard);
    }
    pthread_mutex_unlock(&shard->lock);
    if (!other)
        return entry;
    free_entry(cache, entry);
    return other;
}

void vdb_cache_drop(struct vdb_cache *cache, struct vdb_cache_entry *entry)
{
    assert(atomic_load(&entry->pins) == 1);
    free_entry(cache, entry);
}

void *vdb_cache_bytes(struct vdb_cache_entry *entry)
{
    return (char *)entry + HEAD_BYTES;
}

void vdb_cache_unpin(struct vdb_cache *cache, struct vdb_cache_entry *entry)
{
    size_t first = (size_t)(shard_of(cache, hash_key(entry->number, entry->page)) - cache->shards);
    uint32_t before = atomic_fetch_sub_explicit(&entry->pins, 1, memory_order_release);
    assert(before > 0);
    if (before == 1 && atomic_load_explicit(&cache->used, memory_order_relaxed) > cache->budget)
        make_room(cache, first, 0);
}

void vdb_cache_forget(struct vdb_cache *cache, uint64_t number)
{
    for (size_t i = 0; i < N_SHARDS; i++) {
        struct shard *shard = &cache->shards[i];
        pthread_mutex_lock(&shard->lock);
        for (size_t bucket = 0; bucket < shard->n_buckets; bucket++) {
            struct vdb_cache_entry **at = &shard->buckets[bucket];
            while (*at) {
                struct vdb_cache_entry *entry = *at;
                if (entry->number != number) {
                    at = &entry->chain;
                    continue;
                }
                assert(!atomic_load_explicit(&entry->pins, memory_order_acquire));
                unlink_entry(shard, at);
                free_entry(cache, entry);
            }
        }
        pthread_mutex_unlock(&shard->lock);
    }
}

void *vdb_cache_take_spare(struct vdb_cache *cache)
{
    for (size_t i = 0; i < N_SPARES; i++) {
        void *spare = atomic_exchange_explicit(&cache->spares[i], NULL, memory_order_acquire);
        if (spare)
            return spare;
    }
    return NULL;
}

void vdb_cache_give_spare(struct vdb_cache *cache, void *spare, void (*release)(void *spare))
{
    atomic_store_explicit(&cache->release_spare, release, memory_order_relaxed);
    for (size_t i = 0; i < N_SPARES; i++) {
        void *none = NULL;
        if (atomic_compare_exchange_strong_explicit(&cache->spares[i], &none, spare, memory_order_release,
                                                    memory_order_relaxed))
            return;
    }
    release(spare);
}

void vdb_cache_get_stats(struct vdb_cache *cache, struct vdb_cache_stats *stats)
{
    *stats = (struct vdb_cache_stats){.bytes = atomic_load_explicit(&cache->used, memory_order_relaxed),
                                      .budget_bytes = cache->budget};
    for (size_t i = 0; i < N_SHARDS; i++) {
        struct shard *shard = &cache->shards[i];
        pthread_mutex_lock(&shard->lock);
        stats->hits += shard->hits;
        stats->misses += shard->misses;
        stats->evictions += shard->evictions;
        pthread_mutex_unlock(&shard->lock);
    }
}
