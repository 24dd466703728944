/* SPDX-License-Identifier: Apache-2.0
 *
 * Property: a vdb_slots answers as a plain array of flags does, survives being written and read,
 * and vdb_slots_read refuses every sequence of bytes that is not a set, however close to one,
 * without reading outside of it.
 */
#include "base/slots.h"

#include <stdlib.h>

#include "base/random.h"
#include "harness.h"

/* The model covers three stretches of slots, so that containers of every kind and both ends occur. */
enum { STRETCH = 140000, N_MODEL = 3 * STRETCH };

struct model {
    bool has[N_MODEL];
};

static uint32_t slot_at(uint32_t i)
{
    static const uint32_t starts[] = {0, 0x7fff8000u, UINT32_MAX - STRETCH + 1};
    return starts[i / STRETCH] + i % STRETCH;
}

static uint64_t model_count(const struct model *model)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < N_MODEL; i++)
        n += model->has[i];
    return n;
}

struct walk {
    const struct model *model;
    uint32_t at;
};

static bool follow(void *context, uint32_t slot)
{
    struct walk *walk = context;
    while (walk->at < N_MODEL && !walk->model->has[walk->at])
        walk->at++;
    CHECK(walk->at < N_MODEL);
    CHECK_INT(slot, slot_at(walk->at));
    walk->at++;
    return true;
}

static void check_same(const struct vdb_slots *slots, const struct model *model, struct vdb_random *random)
{
    CHECK_SIZE(vdb_slots_count(slots), model_count(model));
    for (uint32_t i = 0; i < N_MODEL; i += 7)
        CHECK_INT(vdb_slots_has(slots, slot_at(i)), model->has[i]);
    struct walk walk = {model, 0};
    vdb_slots_each(slots, follow, &walk);
    while (walk.at < N_MODEL)
        CHECK(!model->has[walk.at++]);
    for (int round = 0; round < 10; round++) {
        uint32_t first = (uint32_t)vdb_random_below(random, N_MODEL);
        uint32_t n = (uint32_t)vdb_random_below(random, STRETCH - first % STRETCH + 1);
        uint64_t expected = 0;
        for (uint32_t i = first; i < first + n; i++)
            expected += model->has[i];
        CHECK_SIZE(vdb_slots_count_range(slots, slot_at(first), n), expected);
    }
    CHECK_SIZE(vdb_slots_count_range(slots, 0, UINT64_MAX), model_count(model));
}

static void change_at_random(struct vdb_slots *slots, struct model *model, struct vdb_random *random)
{
    uint32_t first = (uint32_t)vdb_random_below(random, N_MODEL);
    uint32_t room = STRETCH - first % STRETCH, n = (uint32_t)vdb_random_below(random, room < 9000 ? room + 1 : 9000);
    switch (vdb_random_below(random, 4)) {
    case 0:
        vdb_slots_add_range(slots, slot_at(first), n);
        for (uint32_t i = first; i < first + n; i++)
            model->has[i] = true;
        break;
    case 1:
        for (uint32_t i = first; i < first + n; i += 1 + (uint32_t)vdb_random_below(random, 5)) {
            vdb_slots_add(slots, slot_at(i));
            model->has[i] = true;
        }
        break;
    case 2:
        for (uint32_t i = first; i < first + n; i += 1 + (uint32_t)vdb_random_below(random, 9)) {
            vdb_slots_remove(slots, slot_at(i));
            model->has[i] = false;
        }
        break;
    default:
        vdb_slots_add(slots, slot_at(first));
        model->has[first] = true;
        break;
    }
}

static struct vdb_slots *written_and_read(const struct vdb_slots *slots)
{
    size_t n_bytes = vdb_slots_bytes(slots);
    char *bytes = malloc(n_bytes ? n_bytes : 1);
    size_t n_written = vdb_slots_write(slots, bytes);
    CHECK(n_written <= n_bytes);
    struct vdb_slots *read = vdb_slots_read(bytes, n_written);
    CHECK(read);
    free(bytes);
    return read;
}

TEST(random_sets_answer_as_a_plain_array_of_flags_does)
{
    struct vdb_random random = {test_seed()};
    static struct model model, other_model;
    struct vdb_slots *slots = vdb_slots_new();
    for (int round = 0; round < 12; round++) {
        for (int i = 0; i < 40; i++)
            change_at_random(slots, &model, &random);
        check_same(slots, &model, &random);
        struct vdb_slots *read = written_and_read(slots), *copy = vdb_slots_copy(slots);
        check_same(read, &model, &random);
        vdb_slots_free(read);
        struct vdb_slots *other = vdb_slots_new();
        memset(&other_model, 0, sizeof other_model);
        for (int i = 0; i < 20; i++)
            change_at_random(other, &other_model, &random);
        vdb_slots_union(copy, other);
        for (uint32_t i = 0; i < N_MODEL; i++)
            other_model.has[i] |= model.has[i];
        check_same(copy, &other_model, &random);
        check_same(slots, &model, &random); /* the copy is its own */
        vdb_slots_free(other);
        vdb_slots_free(copy);
    }
    vdb_slots_free(slots);
}

TEST(the_empty_set_and_the_full_set_are_sets)
{
    struct vdb_slots *slots = vdb_slots_new();
    struct vdb_slots *read = written_and_read(slots);
    CHECK_SIZE(vdb_slots_count(read), 0);
    vdb_slots_free(read);
    vdb_slots_add_range(slots, 5, 0);
    CHECK_SIZE(vdb_slots_count(slots), 0);
    vdb_slots_add_range(slots, 0, UINT64_MAX);
    CHECK_SIZE(vdb_slots_count(slots), (uint64_t)1 << 32);
    CHECK(vdb_slots_has(slots, 0) && vdb_slots_has(slots, UINT32_MAX));
    CHECK_SIZE(vdb_slots_count_range(slots, UINT32_MAX, 100), 1);
    read = written_and_read(slots);
    CHECK_SIZE(vdb_slots_count(read), (uint64_t)1 << 32);
    vdb_slots_free(read);
    vdb_slots_free(slots);
    vdb_slots_free(NULL);
}

static bool stop_at_third(void *context, uint32_t slot)
{
    (void)slot;
    return ++*(int *)context < 3;
}

TEST(a_walk_ends_when_it_is_told_to)
{
    struct vdb_slots *slots = vdb_slots_new();
    vdb_slots_add_range(slots, 10, 50);
    int n_seen = 0;
    vdb_slots_each(slots, stop_at_third, &n_seen);
    CHECK_INT(n_seen, 3);
    vdb_slots_free(slots);
}

/* A set with an array, a bitset and a container of runs; with `n_more` single slots above them. */
static struct vdb_slots *one_of_each(uint32_t n_more)
{
    struct vdb_slots *slots = vdb_slots_new();
    for (uint32_t i = 0; i < 50; i++)
        vdb_slots_add(slots, 3 * i);
    for (uint32_t i = 0; i < 6000; i++)
        vdb_slots_add(slots, 65536 + 2 * i);
    vdb_slots_add_range(slots, 2 * 65536 + 100, 20000);
    for (uint32_t i = 0; i < n_more; i++)
        vdb_slots_add(slots, (4 + i) * 65536);
    return slots;
}

/* Read a copy that ends where the bytes end, so that ASan sees a step too far. */
static struct vdb_slots *read_exactly(const char *bytes, size_t n_bytes)
{
    char *copy = malloc(n_bytes ? n_bytes : 1);
    memcpy(copy, bytes, n_bytes);
    struct vdb_slots *slots = vdb_slots_read(copy, n_bytes);
    free(copy);
    return slots;
}

TEST(a_set_cut_short_or_with_bytes_behind_it_is_refused)
{
    for (uint32_t n_more = 0; n_more < 4; n_more += 3) {
        struct vdb_slots *slots = one_of_each(n_more);
        size_t n_bytes = vdb_slots_bytes(slots);
        char *bytes = calloc(1, n_bytes + 16);
        n_bytes = vdb_slots_write(slots, bytes);
        for (size_t n = 0; n < n_bytes; n += n < 300 ? 1 : 37)
            CHECK(!read_exactly(bytes, n));
        for (size_t n = n_bytes + 1; n <= n_bytes + 16; n++)
            CHECK(!read_exactly(bytes, n));
        vdb_slots_free(slots);
        free(bytes);
    }
}

TEST(bytes_with_a_flipped_bit_are_refused_or_still_a_set)
{
    struct vdb_slots *slots = one_of_each(3);
    size_t n_bytes = vdb_slots_bytes(slots), n_refused = 0, n_read = 0;
    char *bytes = malloc(n_bytes);
    n_bytes = vdb_slots_write(slots, bytes);
    for (size_t bit = 0; bit < n_bytes * 8; bit += bit < 4000 ? 1 : 41) {
        bytes[bit / 8] ^= (char)(1 << bit % 8);
        struct vdb_slots *read = read_exactly(bytes, n_bytes);
        bytes[bit / 8] ^= (char)(1 << bit % 8);
        if (!read) {
            n_refused++;
            continue;
        }
        n_read++; /* another value, and in every respect a set: usable, and as many bytes when written */
        vdb_slots_union(read, slots);
        CHECK(vdb_slots_count(read) >= vdb_slots_count(slots));
        struct vdb_slots *again = written_and_read(read);
        CHECK_SIZE(vdb_slots_count(again), vdb_slots_count(read));
        vdb_slots_free(again);
        vdb_slots_free(read);
    }
    CHECK(n_refused > 10 * n_read / 4);
    vdb_slots_free(slots);
    free(bytes);
}

struct hand {
    const char *what;
    uint16_t words[24];
    size_t n_words;
};

TEST(sets_that_break_a_rule_of_the_format_are_refused)
{
    static const struct hand sets[] = {
        {"another cookie", {12345, 0, 0, 0}, 4},
        {"more containers than there can be", {12346, 0, 1, 1}, 4},
        {"keys that do not ascend", {12346, 0, 2, 0, 1, 0, 1, 0, 24, 0, 26, 0, 7, 8}, 14},
        {"an offset that points elsewhere", {12346, 0, 1, 0, 0, 0, 18, 0, 7}, 9},
        {"an array that is not sorted", {12346, 0, 1, 0, 0, 1, 16, 0, 8, 7}, 10},
        {"an array with a value twice", {12346, 0, 1, 0, 0, 1, 16, 0, 7, 7}, 10},
    };
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        if (read_exactly((const char *)sets[i].words, sets[i].n_words * 2))
            FAIL("a set with %s was read", sets[i].what);
    /* with runs the bit set is one byte, so these are bytes: one container of key 0 */
    static const struct {
        const char *what;
        unsigned char bytes[24];
        size_t n_bytes;
        bool valid;
    } runs[] = {
        {"two runs", {0x3b, 0x30, 0, 0, 1, 0, 0, 4, 0, 2, 0, 5, 0, 2, 0, 10, 0, 1, 0}, 19, true},
        {"runs that touch", {0x3b, 0x30, 0, 0, 1, 0, 0, 4, 0, 2, 0, 5, 0, 2, 0, 8, 0, 1, 0}, 19, false},
        {"runs that overlap", {0x3b, 0x30, 0, 0, 1, 0, 0, 4, 0, 2, 0, 5, 0, 2, 0, 6, 0, 1, 0}, 19, false},
        {"another cardinality", {0x3b, 0x30, 0, 0, 1, 0, 0, 5, 0, 2, 0, 5, 0, 2, 0, 10, 0, 1, 0}, 19, false},
        {"a run past the end", {0x3b, 0x30, 0, 0, 1, 0, 0, 1, 0, 1, 0, 0xff, 0xff, 1, 0}, 15, false},
        {"no runs", {0x3b, 0x30, 0, 0, 1, 0, 0, 0, 0, 0, 0}, 11, false},
    };
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        struct vdb_slots *read = read_exactly((const char *)runs[i].bytes, runs[i].n_bytes);
        if ((read != NULL) != runs[i].valid)
            FAIL("a set with %s was %s", runs[i].what, read ? "read" : "refused");
        if (read)
            CHECK_SIZE(vdb_slots_count(read), 5);
        vdb_slots_free(read);
    }
}

TEST(random_bytes_behind_a_valid_cookie_are_refused)
{
    struct vdb_random random = {test_seed()};
    for (int round = 0; round < 20000; round++) {
        char bytes[256];
        size_t n = 4 + vdb_random_below(&random, sizeof bytes - 3);
        for (size_t i = 0; i < n; i++)
            bytes[i] = (char)vdb_random_next(&random);
        memcpy(bytes, round % 2 ? "\x3a\x30\0" : "\x3b\x30\0", 4);
        if (round % 2 && n >= 8)
            memcpy(bytes + 4, "\2\0\0", 4);
        vdb_slots_free(read_exactly(bytes, n));
    }
}
