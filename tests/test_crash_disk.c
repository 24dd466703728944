/* SPDX-License-Identifier: Apache-2.0
 *
 * The simulated disk keeps what was synced, whatever else it does; and of what was not, every mixture that its
 * rules (crash_disk.h) allow does occur.
 */
#include "crash_disk.h"
#include "fault_tools.h"

#define SECTOR 512u
#define N_SEEDS 300u

static struct crash_journal journal;

static uint32_t name_of(const char *name)
{
    return crash_journal_name(&journal, name, strlen(name));
}

static uint32_t make(uint32_t directory, const char *name, bool is_directory)
{
    uint32_t node = crash_journal_new_node(&journal, is_directory, name);
    struct crash_event *event = crash_journal_add(&journal, CRASH_MAKE);
    event->node = node;
    event->directory = directory;
    event->name = name_of(name);
    return node;
}

static void write_at(uint32_t node, uint64_t offset, int value, size_t n)
{
    unsigned char bytes[8192];
    CHECK(n <= sizeof bytes);
    memset(bytes, value, n);
    struct crash_event *event = crash_journal_add(&journal, CRASH_WRITE);
    event->node = node;
    event->offset = offset;
    crash_journal_add_bytes(&journal, event, bytes, n);
}

static void happen_to(int kind, uint32_t node)
{
    crash_journal_add(&journal, kind)->node = node;
}

/* Cut the power at the end of the journal, and read one file of what is left. False: it is not there. */
static bool cut(int variant, uint64_t seed, const char *name, struct kept_file *file)
{
    struct crash_disk *disk = crash_disk_new(&journal);
    const char *image = test_path("image");
    char path[600];
    remove_database(image);
    crash_disk_advance(disk, journal.n_events);
    crash_disk_cut(disk, variant, seed, image);
    crash_disk_free(disk);
    snprintf(path, sizeof path, "%s/%s", image, name);
    if (access(path, F_OK))
        return false;
    read_file(path, file);
    return true;
}

static void release(struct kept_file *file)
{
    vdb_free(tool_memory(), file->bytes);
}

TEST(what_was_synced_is_there_after_every_cut)
{
    crash_journal_init(&journal);
    uint32_t file = make(CRASH_ROOT, "file", false);
    write_at(file, 0, 'a', 5000);
    happen_to(CRASH_SYNC, file);
    happen_to(CRASH_SYNC, CRASH_ROOT);
    write_at(file, 6000, 'b', 3000);
    for (int variant = 0; variant < CRASH_N_VARIANTS; variant++)
        for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
            struct kept_file left;
            CHECK(cut(variant, seed, "file", &left));
            CHECK_LE(5000, left.n_bytes);
            CHECK_LE(left.n_bytes, 9000);
            for (size_t i = 0; i < 5000; i++)
                CHECK_INT(left.bytes[i], 'a');
            if (variant == CRASH_LOST)
                CHECK_SIZE(left.n_bytes, 5000);
            if (variant == CRASH_KEPT)
                CHECK(left.n_bytes == 9000 && left.bytes[8999] == 'b' && !left.bytes[5500]);
            release(&left);
        }
    crash_journal_release(&journal);
}

TEST(sectors_are_dropped_kept_and_reordered_each_for_itself)
{
    bool second_without_first = false, one_of_two = false, in_between = false;
    crash_journal_init(&journal);
    uint32_t file = make(CRASH_ROOT, "file", false);
    write_at(file, 0, 'a', 4 * SECTOR);
    happen_to(CRASH_SYNC, file);
    happen_to(CRASH_SYNC, CRASH_ROOT);
    write_at(file, 0, 'b', 2 * SECTOR); /* then */
    write_at(file, 2 * SECTOR, 'c', SECTOR);
    write_at(file, 0, 'd', SECTOR);
    for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
        struct kept_file left;
        CHECK(cut(CRASH_MIXED, seed, "file", &left));
        CHECK_SIZE(left.n_bytes, 4 * SECTOR);
        for (size_t i = 0; i < left.n_bytes; i++)
            CHECK_INT(left.bytes[i], left.bytes[i / SECTOR * SECTOR]); /* none is torn */
        CHECK(strchr("abd", left.bytes[0]) && strchr("ab", left.bytes[SECTOR]));
        CHECK(strchr("ac", left.bytes[2 * SECTOR]) && left.bytes[3 * SECTOR] == 'a');
        second_without_first |= left.bytes[2 * SECTOR] == 'c' && left.bytes[0] == 'a' && left.bytes[SECTOR] == 'a';
        one_of_two |= left.bytes[0] == 'a' && left.bytes[SECTOR] == 'b';
        in_between |= left.bytes[0] == 'b';
        release(&left);
    }
    CHECK(second_without_first && one_of_two && in_between);
    crash_journal_release(&journal);
}

/* In a file of that name. */
static bool tears(const char *name)
{
    bool torn = false;
    crash_journal_init(&journal);
    uint32_t file = make(CRASH_ROOT, name, false);
    write_at(file, 0, 'a', 2 * SECTOR);
    happen_to(CRASH_SYNC, file);
    happen_to(CRASH_SYNC, CRASH_ROOT);
    write_at(file, 100, 'b', SECTOR);
    for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
        struct kept_file left;
        CHECK(cut(CRASH_TORN, seed, name, &left));
        for (size_t i = 0; i < left.n_bytes; i++) {
            CHECK(left.bytes[i] == 'a' || (left.bytes[i] == 'b' && i >= 100 && i < 100 + SECTOR));
            torn |= i > 101 && i < SECTOR && left.bytes[i] != left.bytes[i - 1];
        }
        release(&left);
    }
    crash_journal_release(&journal);
    return torn;
}

TEST(sectors_are_torn_but_for_those_of_state)
{
    CHECK(tears("file"));
    CHECK(!tears("state"));
}

static bool is_left(int variant, uint64_t seed, const char *name)
{
    struct kept_file left;
    bool is_there = cut(variant, seed, name, &left);
    if (is_there)
        release(&left);
    return is_there;
}

TEST(a_name_is_there_for_sure_when_its_directory_was_synced)
{
    unsigned n_first = 0, n_second = 0, n_both = 0;
    crash_journal_init(&journal);
    uint32_t one = make(CRASH_ROOT, "one", false), other = make(CRASH_ROOT, "other", false);
    happen_to(CRASH_SYNC, one); /* says nothing about its name */
    happen_to(CRASH_SYNC, other);
    for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
        bool first = is_left(CRASH_MIXED, seed, "one"), second = is_left(CRASH_MIXED, seed, "other");
        n_first += first;
        n_second += second;
        n_both += first && second;
    }
    CHECK(!is_left(CRASH_LOST, 1, "one") && is_left(CRASH_KEPT, 1, "one"));
    CHECK(n_both && n_both < n_first && n_both < n_second && n_first < N_SEEDS);
    happen_to(CRASH_SYNC, CRASH_ROOT);
    struct crash_event *event = crash_journal_add(&journal, CRASH_RENAME);
    event->name = name_of("one");
    event->to_name = name_of("renamed");
    for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
        CHECK(is_left(CRASH_TORN, seed, "other"));
        CHECK(is_left(CRASH_TORN, seed, "one") != is_left(CRASH_TORN, seed, "renamed"));
    }
    crash_journal_release(&journal);
}

TEST(what_a_failed_sync_left_is_never_durable_until_it_is_written_again)
{
    struct kept_file left;
    crash_journal_init(&journal);
    uint32_t file = make(CRASH_ROOT, "file", false);
    happen_to(CRASH_SYNC, CRASH_ROOT);
    write_at(file, 0, 'a', 8192);
    happen_to(CRASH_SYNC, file);
    write_at(file, 0, 'b', 8192);
    happen_to(CRASH_SYNC_FAILED, file);
    write_at(file, 100, 'c', 10); /* in the first of the two pages */
    happen_to(CRASH_SYNC, file);
    CHECK(cut(CRASH_LOST, 1, "file", &left));
    CHECK(left.bytes[0] == 'b' && left.bytes[100] == 'c' && left.bytes[4095] == 'b');
    CHECK(left.bytes[4096] == 'a' && left.bytes[8191] == 'a');
    release(&left);
    CHECK(cut(CRASH_KEPT, 1, "file", &left));
    CHECK(left.bytes[0] == 'b' && left.bytes[4096] == 'b');
    release(&left);
    crash_journal_release(&journal);
}
