/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/crash_disk.c - a disk that loses power (see crash_disk.h)
 *
 *     node     now      bytes as the program sees them
 *              kept     bytes that a power cut cannot take
 *              pending  pieces of writes, none over a page boundary, and truncations, in order
 *
 * A cut begins with `kept` and applies pieces. Each sector has a moment, drawn from a hash of seed, node and
 * sector: the pieces of it that were written before that moment are on the disk. A torn sector has two moments,
 * one for its beginning and one for its end. So a sector never holds a later write without an earlier one
 * to the same bytes, and owes nothing to its neighbours.
 */
#include "crash_disk.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/random.h"
#include "harness.h"

#define SECTOR 512u
#define PAGE 4096u

const char *const crash_variant_names[CRASH_N_VARIANTS] = {"lost", "kept", "ordered", "mixed", "torn"};

struct piece {
    size_t moment; /* its event */
    bool is_truncation, is_doubtful;
    uint64_t offset; /* of a truncation: the new length */
    size_t length, at;
};

struct bytes {
    unsigned char *bytes;
    size_t n, capacity;
};

struct disk_node {
    struct bytes now, kept;
    struct piece *pending;
    size_t n_pending, capacity;
};

struct crash_disk {
    const struct crash_journal *journal;
    struct disk_node *nodes;
    struct crash_tree now, kept;
    size_t *pending; /* events that changed names */
    size_t n_pending, capacity;
    size_t n_events;
};

/* ------------------------------------------------------------------ bytes */

static void set_length(struct bytes *file, size_t n)
{
    if (n > file->capacity) {
        file->capacity = 2 * n;
        file->bytes = realloc(file->bytes, file->capacity);
        CHECK(file->bytes);
    }
    if (n > file->n)
        memset(file->bytes + file->n, 0, n - file->n);
    file->n = n;
}

static void put_bytes(struct bytes *file, size_t offset, const unsigned char *from, size_t n)
{
    if (file->n < offset + n)
        set_length(file, offset + n);
    memcpy(file->bytes + offset, from, n);
}

static void add_piece(struct disk_node *node, const struct piece *piece)
{
    node->pending = crash_grow(node->pending, node->n_pending, &node->capacity, sizeof *node->pending);
    node->pending[node->n_pending++] = *piece;
}

static void write_node(struct crash_disk *disk, size_t moment, const struct crash_event *event)
{
    struct disk_node *node = &disk->nodes[event->node];
    put_bytes(&node->now, (size_t)event->offset, disk->journal->bytes + event->at, event->length);
    for (size_t done = 0; done < event->length;) {
        uint64_t offset = event->offset + done;
        size_t n = PAGE - (size_t)(offset % PAGE);
        if (n > event->length - done)
            n = event->length - done;
        add_piece(node, &(struct piece){.moment = moment, .offset = offset, .length = n, .at = event->at + done});
        done += n;
    }
}

/* ------------------------------------------------------------------ syncs */

static bool page_is_rewritten(const struct disk_node *node, uint64_t page)
{
    for (size_t i = 0; i < node->n_pending; i++)
        if (!node->pending[i].is_doubtful && !node->pending[i].is_truncation && node->pending[i].offset / PAGE == page)
            return true;
    return false;
}

/* All that is on the way becomes durable, but for pages that an earlier sync has failed for. */
static void sync_file(struct disk_node *node)
{
    bool any_doubtful = false;
    for (size_t i = 0; i < node->n_pending; i++)
        any_doubtful |= node->pending[i].is_doubtful;
    if (!any_doubtful) {
        set_length(&node->kept, node->now.n);
        if (node->now.n)
            memcpy(node->kept.bytes, node->now.bytes, node->now.n);
        node->n_pending = 0;
        return;
    }
    size_t n_left = 0, n_kept_before = node->kept.n;
    if (node->now.n < n_kept_before)
        n_kept_before = node->now.n;
    set_length(&node->kept, n_kept_before); /* what was cut off reads as zeros when the file grows again */
    set_length(&node->kept, node->now.n);
    for (size_t i = 0; i < node->n_pending; i++) {
        const struct piece *piece = &node->pending[i];
        if (!piece->is_truncation && page_is_rewritten(node, piece->offset / PAGE)) {
            size_t first = (size_t)(piece->offset / PAGE * PAGE), end = first + PAGE;
            if (end > node->now.n)
                end = node->now.n;
            if (first < end)
                memcpy(node->kept.bytes + first, node->now.bytes + first, end - first);
        }
    }
    for (size_t i = 0; i < node->n_pending; i++) {
        struct piece piece = node->pending[i];
        if (piece.is_doubtful && !piece.is_truncation && piece.offset < node->now.n &&
            !page_is_rewritten(node, piece.offset / PAGE))
            node->pending[n_left++] = piece;
    }
    node->n_pending = n_left;
}

static void sync_directory(struct crash_disk *disk, uint32_t directory)
{
    size_t n_left = 0;
    for (size_t i = 0; i < disk->n_pending; i++) {
        const struct crash_event *event = &disk->journal->events[disk->pending[i]];
        if ((event->kind == CRASH_RENAME ? event->to_directory : event->directory) == directory)
            crash_tree_apply(&disk->kept, event);
        else
            disk->pending[n_left++] = disk->pending[i];
    }
    disk->n_pending = n_left;
}

/* ------------------------------------------------------------------ going on */

static void happen(struct crash_disk *disk, size_t moment)
{
    const struct crash_event *event = &disk->journal->events[moment];
    struct disk_node *node = &disk->nodes[event->node];
    switch (event->kind) {
    case CRASH_WRITE:
        write_node(disk, moment, event);
        break;
    case CRASH_TRUNCATE:
        set_length(&node->now, (size_t)event->offset);
        add_piece(node, &(struct piece){.moment = moment, .is_truncation = true, .offset = event->offset});
        break;
    case CRASH_SYNC:
        if (disk->journal->nodes[event->node].is_directory)
            sync_directory(disk, event->node);
        else
            sync_file(node);
        break;
    case CRASH_SYNC_FAILED:
        for (size_t i = 0; i < node->n_pending; i++)
            node->pending[i].is_doubtful = true;
        break;
    case CRASH_NOTHING:
        break;
    default:
        crash_tree_apply(&disk->now, event);
        disk->pending = crash_grow(disk->pending, disk->n_pending, &disk->capacity, sizeof *disk->pending);
        disk->pending[disk->n_pending++] = moment;
    }
}

void crash_disk_advance(struct crash_disk *disk, size_t n_events)
{
    CHECK(n_events <= disk->journal->n_events);
    while (disk->n_events < n_events)
        happen(disk, disk->n_events++);
}

struct crash_disk *crash_disk_new(const struct crash_journal *journal)
{
    struct crash_disk *disk = calloc(1, sizeof *disk);
    CHECK(disk);
    disk->journal = journal;
    disk->nodes = calloc(journal->n_nodes, sizeof *disk->nodes);
    CHECK(disk->nodes);
    return disk;
}

void crash_disk_free(struct crash_disk *disk)
{
    for (size_t i = 0; i < disk->journal->n_nodes; i++) {
        free(disk->nodes[i].now.bytes);
        free(disk->nodes[i].kept.bytes);
        free(disk->nodes[i].pending);
    }
    free(disk->nodes);
    crash_tree_release(&disk->now);
    crash_tree_release(&disk->kept);
    free(disk->pending);
    free(disk);
}

/* ------------------------------------------------------------------ the cut */

struct cut {
    const struct crash_disk *disk;
    int variant;
    uint64_t seed;
    size_t moment; /* of an ordered cut: what happened before it is on the disk */
    struct crash_tree tree;
};

static uint64_t hash(uint64_t seed, uint64_t a, uint64_t b)
{
    struct vdb_random random = {seed ^ (a + 1) * 0x9e3779b97f4a7c15u ^ (b + 1) * 0xc2b2ae3d27d4eb4fu};
    vdb_random_next(&random);
    return vdb_random_next(&random);
}

/* How a file fares, when anything may happen to its parts. */
enum { NOTHING, ALL, EARLY, ANY };

static int fate_of(const struct cut *cut, uint32_t node)
{
    static const int fates[] = {NOTHING, ALL, EARLY, ANY, ANY, ANY};
    return fates[hash(cut->seed, node, UINT64_MAX) % (sizeof fates / sizeof *fates)];
}

/* The moment of a thing of a node (a sector, or the length): what happened to it before is on the disk. */
static size_t moment_of(const struct cut *cut, uint32_t number, uint64_t thing)
{
    const struct disk_node *node = &cut->disk->nodes[number];
    size_t first = node->pending[0].moment, end = cut->disk->n_events;
    if (cut->variant == CRASH_LOST)
        return 0;
    if (cut->variant == CRASH_KEPT)
        return end;
    if (cut->variant == CRASH_ORDERED)
        return cut->moment;
    int fate = fate_of(cut, number);
    uint64_t dice = hash(cut->seed, number, fate == EARLY ? 0 : thing);
    if (fate == NOTHING)
        return 0;
    if (fate == ALL)
        return end;
    if (fate == ANY && dice % 3)
        return dice % 3 == 1 ? 0 : end;
    return node->pending[dice / 3 % node->n_pending].moment + (size_t)(dice >> 40 & 1) + (first == end);
}

/* What a cut leaves of a piece: of each of its sectors, the part whose moment has come. */
static void apply_piece(const struct cut *cut, uint32_t number, const struct piece *piece, bool tears,
                        struct bytes *file)
{
    const unsigned char *from = cut->disk->journal->bytes + piece->at;
    for (size_t done = 0; done < piece->length;) {
        uint64_t offset = piece->offset + done, sector = offset / SECTOR,
                 dice = hash(cut->seed, number, sector ^ 1u << 31);
        size_t end_of_sector = (size_t)((sector + 1) * SECTOR - offset);
        size_t n = piece->length - done < end_of_sector ? piece->length - done : end_of_sector;
        uint64_t thing = sector;
        if (tears && dice % 4 == 0) { /* its end, from some byte on, is a sector of its own */
            uint64_t tear = sector * SECTOR + 1 + (dice >> 8) % (SECTOR - 1);
            if (offset >= tear)
                thing = sector | (uint64_t)1 << 62;
            else if (tear - offset < n)
                n = (size_t)(tear - offset);
        }
        if (piece->moment < moment_of(cut, number, thing))
            put_bytes(file, (size_t)offset, from + done, n);
        done += n;
    }
}

/* A truncation is one change of the file's length, with which all behind it is gone: what is written there later goes
 * to new sectors. A disk on which only some of them were gone would be no file system's. */
static void apply_truncation(const struct cut *cut, uint32_t number, const struct piece *piece, struct bytes *file)
{
    if (piece->offset < file->n && piece->moment < moment_of(cut, number, (uint64_t)1 << 63))
        memset(file->bytes + piece->offset, 0, file->n - (size_t)piece->offset);
}

/* The longest that the file has been; beyond what is durable there may lie anything, from the next sector on. */
static void lay_out(const struct cut *cut, uint32_t number, bool garbage, struct bytes *file)
{
    const struct disk_node *node = &cut->disk->nodes[number];
    size_t longest = node->kept.n;
    for (size_t i = 0; i < node->n_pending; i++) {
        size_t end = (size_t)node->pending[i].offset + node->pending[i].length;
        longest = end > longest ? end : longest;
    }
    set_length(file, longest);
    if (node->kept.n)
        memcpy(file->bytes, node->kept.bytes, node->kept.n);
    struct vdb_random random = {hash(cut->seed, number, 0)};
    for (size_t i = (node->kept.n + SECTOR - 1) / SECTOR * SECTOR; garbage && i < longest; i++)
        file->bytes[i] = (unsigned char)vdb_random_next(&random);
}

static size_t length_of(const struct cut *cut, uint32_t number)
{
    const struct disk_node *node = &cut->disk->nodes[number];
    size_t length = node->kept.n, moment = moment_of(cut, number, (uint64_t)1 << 63);
    for (size_t i = 0; i < node->n_pending; i++) {
        const struct piece *piece = &node->pending[i];
        size_t end = (size_t)piece->offset + piece->length;
        if (piece->moment < moment && (piece->is_truncation || end > length))
            length = end;
    }
    return length;
}

static void cut_file(const struct cut *cut, uint32_t number, const char *path)
{
    const struct disk_node *node = &cut->disk->nodes[number];
    struct bytes file = {.n = 0};
    bool is_state = !strcmp(cut->disk->journal->nodes[number].first_name, "state");
    bool tears = cut->variant == CRASH_TORN && !is_state;
    const struct bytes *whole = cut->variant == CRASH_KEPT ? &node->now : &node->kept;
    if (node->n_pending && cut->variant != CRASH_LOST && cut->variant != CRASH_KEPT) {
        lay_out(cut, number, tears && hash(cut->seed, number, 1) % 2, &file);
        for (size_t i = 0; i < node->n_pending; i++) {
            if (node->pending[i].is_truncation)
                apply_truncation(cut, number, &node->pending[i], &file);
            else
                apply_piece(cut, number, &node->pending[i], tears, &file);
        }
        file.n = length_of(cut, number);
        whole = &file;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    CHECK(fd >= 0);
    for (size_t done = 0; done < whole->n;) {
        ssize_t n = pwrite(fd, whole->bytes + done, whole->n - done, (off_t)done);
        CHECK(n > 0);
        done += (size_t)n;
    }
    close(fd);
    free(file.bytes);
}

static void cut_directory(const struct cut *cut, uint32_t number, const char *path)
{
    CHECK(!mkdir(path, 0777));
    for (size_t i = 0; i < cut->tree.n; i++) {
        const struct crash_entry *entry = &cut->tree.entries[i];
        char child[1024];
        if (entry->directory != number)
            continue;
        snprintf(child, sizeof child, "%s/%s", path, cut->disk->journal->names[entry->name]);
        if (cut->disk->journal->nodes[entry->node].is_directory)
            cut_directory(cut, entry->node, child);
        else
            cut_file(cut, entry->node, child);
    }
}

/* Which names there are. */
static void cut_names(struct cut *cut)
{
    const struct crash_disk *disk = cut->disk;
    struct vdb_random random = {hash(cut->seed, UINT32_MAX, 0)};
    bool in_order = vdb_random_below(&random, 2);
    size_t n_first = disk->n_pending ? vdb_random_below(&random, disk->n_pending + 1) : 0;
    unsigned percent = 20 + 30 * (unsigned)vdb_random_below(&random, 3);
    crash_tree_copy(&cut->tree, &disk->kept);
    for (size_t i = 0; i < disk->n_pending; i++) {
        bool is_there = cut->variant == CRASH_KEPT;
        if (cut->variant == CRASH_ORDERED)
            is_there = disk->pending[i] < cut->moment;
        else if (cut->variant != CRASH_LOST && !is_there)
            is_there = in_order ? i < n_first : vdb_random_below(&random, 100) < percent;
        if (is_there)
            crash_tree_apply(&cut->tree, &disk->journal->events[disk->pending[i]]);
    }
}

/* The first thing that is on the way: an ordered cut begins there. */
static size_t first_pending(const struct crash_disk *disk)
{
    size_t first = disk->n_pending ? disk->pending[0] : disk->n_events;
    for (size_t i = 0; i < disk->journal->n_nodes; i++)
        if (disk->nodes[i].n_pending && disk->nodes[i].pending[0].moment < first)
            first = disk->nodes[i].pending[0].moment;
    return first;
}

void crash_disk_cut(const struct crash_disk *disk, int variant, uint64_t seed, const char *directory)
{
    struct cut cut = {.disk = disk, .variant = variant, .seed = seed};
    struct vdb_random random = {seed};
    size_t first = first_pending(disk);
    cut.moment = first + (size_t)vdb_random_below(&random, disk->n_events - first + 1);
    cut_names(&cut);
    cut_directory(&cut, CRASH_ROOT, directory);
    crash_tree_release(&cut.tree);
}
