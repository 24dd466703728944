/* SPDX-License-Identifier: Apache-2.0
 *
 * Property: an extent gives back what was written into it, through maps and through reads, however it
 * was written or grown; whatever fails while it is written or read is an error and nothing else; and no
 * damage of its file gives other rows.
 */
#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/numbers.h"
#include "base/random.h"
#include "failing.h"
#include "harness.h"
#include "storage/extent_format.h"

static const unsigned char uuid[16] = "0123456789abcdef";

#define STORE 77 /* whose slots they are */

/* A field's rows, and the files they are in. */
struct fixture {
    struct vdb_memory memory;
    struct vdb_vfs *vfs;
    struct vdb_cache *cache;
    struct vdb_file *file;
    int type, compression;
    uint32_t dimension, n_rows;
    uint32_t *slots;
    unsigned char *rows;
    struct vdb_extent_ref ref;
};

static vecdb_error err;

enum where { ON_DISK, ON_DISK_WITHOUT_MAPS, IN_MEMORY };

static void make_rows(struct fixture *f, int shape)
{
    struct vdb_random random = {test_seed() + (uint64_t)shape};
    size_t row_bytes = vdb_vector_bytes(f->type, f->dimension);
    f->rows = vdb_alloc(&f->memory, f->n_rows * row_bytes);
    f->slots = vdb_alloc_array(&f->memory, f->n_rows, sizeof *f->slots);
    uint32_t slot = 10;
    for (uint32_t i = 0; i < f->n_rows; i++) {
        f->slots[i] = slot++;
        if (vdb_random_below(&random, 50) == 0)
            slot += (uint32_t)vdb_random_below(&random, 500);
    }
    for (size_t i = 0; i < f->n_rows * row_bytes; i++)
        f->rows[i] = (unsigned char)vdb_random_below(&random, 120); /* small enough never to be a NaN */
    for (size_t i = 0; shape && f->type == VECDB_F32 && i < f->n_rows * row_bytes / 4; i++) {
        float value = shape == 1 ? (float)vdb_random_below(&random, 256) : (float)vdb_random_below(&random, 3);
        memcpy(f->rows + 4 * i, &value, 4);
    }
}

static void begin(struct fixture *f, enum where where, int type, uint32_t dimension, int compression, uint32_t n_rows,
                  int shape)
{
    memset(f, 0, sizeof *f);
    vdb_memory_init(&f->memory, NULL);
    f->type = type;
    f->dimension = dimension;
    f->compression = compression;
    f->n_rows = n_rows;
    make_rows(f, shape);
    if (where == IN_MEMORY)
        CHECK_OK(err, vdb_vfs_memory(&f->memory, &f->vfs, &err));
    else
        CHECK_OK(err, vdb_vfs_posix(&f->memory, where == ON_DISK, &f->vfs, &err));
    CHECK_OK(err, vdb_cache_new(&f->memory, 1 << 20, &f->cache, &err));
    CHECK_OK(err, f->vfs->open(f->vfs, test_path("vectors-1-1"), VDB_FILE_CREATE, &f->file, &err));
    CHECK_OK(err, vdb_vector_file_begin(f->file, uuid, 1, 1, STORE, &err));
}

static void end(struct fixture *f)
{
    f->vfs->close(f->file);
    f->vfs->end(f->vfs);
    vdb_cache_free(f->cache);
    vdb_free(&f->memory, f->rows);
    vdb_free(&f->memory, f->slots);
    CHECK_SIZE(vdb_memory_used(&f->memory), 0ull);
}

/* Write rows from .. to in calls of at most `step` rows. */
static int write_rows(struct fixture *f, struct vdb_file *file, uint64_t offset, const struct vdb_extent_ref *grow,
                      uint32_t from, uint32_t to, uint32_t step, struct vdb_extent_ref *ref)
{
    struct vdb_extent_writer_options options = {.memory = &f->memory,
                                                .file = file,
                                                .offset = offset,
                                                .type = f->type,
                                                .dimension = f->dimension,
                                                .compression = f->compression,
                                                .grow = grow};
    struct vdb_extent_writer *writer = NULL;
    size_t row_bytes = vdb_vector_bytes(f->type, f->dimension);
    int status = vdb_extent_writer_new(&options, &writer, &err);
    for (uint32_t i = from; i < to && !status; i += step) {
        uint32_t n = to - i < step ? to - i : step;
        status = vdb_extent_writer_add(writer, f->slots + i, f->rows + i * row_bytes, n, &err);
    }
    if (!status)
        status = vdb_extent_writer_finish(writer, ref, &err);
    vdb_extent_writer_free(writer);
    return status;
}

/* The rows of a block against those of the fixture, in the field's type. */
static const char *compare_block(const struct fixture *f, const struct vdb_block *block, uint32_t first_row)
{
    size_t row_bytes = vdb_vector_bytes(f->type, f->dimension);
    float wide[512], wanted[512];
    for (uint32_t i = 0; i < block->n_rows; i++) {
        const unsigned char *row = (const unsigned char *)block->rows + i * block->stride;
        const unsigned char *want = f->rows + (first_row + i) * row_bytes;
        if (vdb_block_slot(block, i) != f->slots[first_row + i])
            return "a slot differs";
        if (block->type == f->type) {
            if (memcmp(row, want, row_bytes))
                return "a row differs";
            continue;
        }
        if (f->dimension > 512)
            return "the test cannot compare so long a row";
        vdb_floats_of(block->type, row, f->dimension, wide);
        vdb_floats_of(f->type, want, f->dimension, wanted);
        if (memcmp(wide, wanted, f->dimension * sizeof *wide))
            return "a narrowed row differs";
    }
    return NULL;
}

/* All pages; NULL when all rows are right. Fails with `status` set when a call does. */
static const char *compare_extent(const struct fixture *f, struct vdb_extent *extent, int *status, uint32_t *n_decoded)
{
    const struct vdb_extent_ref *ref = vdb_extent_get_ref(extent);
    uint32_t row = 0;
    *status = VECDB_OK;
    for (uint32_t page = 0; page < ref->n_pages; page++) {
        struct vdb_block block;
        bool decoded = false;
        uint32_t first, last, n_rows;
        vdb_extent_page_range(extent, page, &first, &last, &n_rows);
        if ((*status = vdb_extent_pin(extent, page, &block, &decoded, &err)))
            return NULL;
        *n_decoded += decoded;
        const char *fault = block.n_rows != n_rows || row + n_rows > f->n_rows ? "a page's rows are miscounted"
                                                                               : compare_block(f, &block, row);
        if (!fault && (f->slots[row] != first || f->slots[row + n_rows - 1] != last))
            fault = "a page's slots are not those of the footer";
        if (!fault && (uintptr_t)block.rows % 64)
            fault = "rows do not begin at a multiple of 64";
        vdb_extent_unpin(extent, &block);
        if (fault)
            return fault;
        row += n_rows;
    }
    return row == f->n_rows ? NULL : "rows are missing";
}

static struct vdb_extent *open_extent(struct fixture *f)
{
    struct vdb_extent *extent;
    CHECK_OK(err, vdb_extent_open(&f->memory, f->cache, f->file, uuid, STORE, f->type, f->dimension, &f->ref, &extent,
                                  &err));
    return extent;
}

static uint32_t check_rows(struct fixture *f)
{
    struct vdb_extent *extent = open_extent(f);
    uint32_t n_decoded = 0;
    for (int round = 0; round < 2; round++) {
        int status;
        const char *fault = compare_extent(f, extent, &status, &n_decoded);
        CHECK_OK(err, status);
        if (fault)
            FAIL("type %d, dimension %u: %s", f->type, f->dimension, fault);
    }
    vdb_extent_release(extent);
    return n_decoded;
}

static void never(void *context, const char *message)
{
    (void)context;
    FAIL("a problem in a good extent: %s", message);
}

TEST(rows_come_back_from_maps_reads_and_memory_for_every_type_and_codec)
{
    for (enum where where = ON_DISK; where <= IN_MEMORY; where++)
        for (int type = VECDB_F32; type <= VECDB_BIT; type++)
            for (int compression = VECDB_COMPRESSION_AUTO; compression <= VECDB_COMPRESSION_MAX; compression++)
                for (int shape = 0; shape < 3; shape++) {
                    struct fixture f;
                    begin(&f, where, type, 96, compression, 3000, shape);
                    CHECK_OK(err, write_rows(&f, f.file, VDB_FILE_HEADER_BYTES, NULL, 0, f.n_rows, 700, &f.ref));
                    CHECK_SIZE(f.ref.n_rows, 3000ull);
                    check_rows(&f);
                    struct vdb_extent *extent = open_extent(&f);
                    CHECK_OK(err, vdb_extent_check(extent, never, NULL, &err));
                    vdb_extent_release(extent);
                    end(&f);
                    unlink(test_path("vectors-1-1"));
                }
}

TEST(raw_and_narrow_pages_are_used_in_place_and_planes_come_from_the_cache)
{
    static const struct {
        enum where where;
        int compression, shape;
        bool in_place;
    } cases[] = {{ON_DISK, VECDB_COMPRESSION_NONE, 1, true},
                 {ON_DISK, VECDB_COMPRESSION_AUTO, 1, true},
                 {ON_DISK, VECDB_COMPRESSION_MAX, 2, false},
                 {ON_DISK_WITHOUT_MAPS, VECDB_COMPRESSION_NONE, 1, false},
                 {IN_MEMORY, VECDB_COMPRESSION_NONE, 1, true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture f;
        begin(&f, cases[i].where, VECDB_F32, 16, cases[i].compression, 1000, cases[i].shape);
        CHECK_OK(err, write_rows(&f, f.file, VDB_FILE_HEADER_BYTES, NULL, 0, f.n_rows, 1000, &f.ref));
        uint32_t n_decoded = check_rows(&f);
        CHECK_INT(n_decoded, cases[i].in_place ? 0 : 2 * f.ref.n_pages);
        struct vdb_cache_stats stats;
        vdb_cache_get_stats(f.cache, &stats);
        CHECK_INT(stats.hits, cases[i].in_place ? 0 : f.ref.n_pages); /* the second round */
        CHECK_SIZE((unsigned long long)stats.bytes, 0ull);            /* forgotten with the extent */
        end(&f);
        unlink(test_path("vectors-1-1"));
    }
}

TEST(the_bytes_do_not_depend_on_how_many_rows_a_call_brings)
{
    uint64_t check = 0;
    for (uint32_t step = 1; step <= 5000; step = step * 5 + 2) {
        struct fixture f;
        begin(&f, IN_MEMORY, VECDB_F32, 24, VECDB_COMPRESSION_AUTO, 4000, 1);
        CHECK_OK(err, write_rows(&f, f.file, 100, NULL, 0, f.n_rows, step, &f.ref));
        CHECK_SIZE((unsigned long long)f.ref.offset, 128ull);
        if (check)
            CHECK_SIZE((unsigned long long)f.ref.check, (unsigned long long)check);
        check = f.ref.check;
        check_rows(&f);
        end(&f);
    }
}

TEST(an_extent_grows_over_debris_and_the_old_one_stays_readable)
{
    for (enum where where = ON_DISK; where <= IN_MEMORY; where++) {
        struct fixture f;
        begin(&f, where, VECDB_F16, 40, VECDB_COMPRESSION_AUTO, 6000, 0);
        struct vdb_extent_ref grown;
        CHECK_OK(err, write_rows(&f, f.file, VDB_FILE_HEADER_BYTES, NULL, 0, 1500, 500, &f.ref));
        struct vdb_extent *old = open_extent(&f);
        uint64_t at = f.ref.offset + f.ref.length;
        CHECK_OK(err, write_rows(&f, f.file, at, &f.ref, 1500, 2000, 500, &grown)); /* never committed */
        CHECK_OK(err, write_rows(&f, f.file, at, &f.ref, 1500, 3000, 999, &grown));
        f.ref = grown;
        at = f.ref.offset + f.ref.length + 12345; /* something failed in between */
        CHECK_OK(err, write_rows(&f, f.file, at, &f.ref, 3000, 6000, 6000, &grown));
        f.ref = grown;
        CHECK_SIZE(f.ref.n_rows, 6000ull);
        check_rows(&f);
        uint32_t n_decoded = 0, n_rows = f.n_rows;
        int status;
        f.n_rows = 1500;
        CHECK(compare_extent(&f, old, &status, &n_decoded) == NULL);
        CHECK_OK(err, status);
        f.n_rows = n_rows;
        vdb_extent_release(old);
        end(&f);
        unlink(test_path("vectors-1-1"));
    }
}

TEST(an_extent_whose_file_was_cut_off_cannot_grow)
{
    struct fixture f;
    struct vdb_extent_ref grown = {0};
    begin(&f, ON_DISK, VECDB_F32, 24, VECDB_COMPRESSION_NONE, 3000, 0);
    CHECK_OK(err, write_rows(&f, f.file, VDB_FILE_HEADER_BYTES, NULL, 0, 1500, 1500, &f.ref));
    uint64_t cut = f.ref.offset + f.ref.length / 2;
    CHECK(!truncate(test_path("vectors-1-1"), (off_t)cut));
    CHECK_FAILS(err, VECDB_CORRUPT, "truncated", write_rows(&f, f.file, cut, &f.ref, 1500, 3000, 1500, &grown));
    CHECK_SIZE(grown.length, 0ull);
    end(&f);
}

/* Set the version of the header, or else of the only footer, and make the checks right if `checked`. */
static void set_version(struct fixture *f, bool of_header, uint16_t version, bool checked)
{
    unsigned char header[VDB_FILE_HEADER_BYTES], footer[4096];
    size_t n_bytes = (size_t)f->ref.n_pages * ENTRY_BYTES + TRAILER_BYTES;
    uint64_t at = f->ref.offset + f->ref.length - n_bytes;
    CHECK(n_bytes <= sizeof footer);
    if (of_header) {
        CHECK_OK(err, f->file->vfs->read(f->file, 0, header, sizeof header, &err));
        vdb_store_u16(header + 12, version);
        if (checked)
            vdb_store_u64(header, vdb_check_sum(header + 8, sizeof header - 8));
        CHECK_OK(err, f->file->vfs->write(f->file, 0, header, sizeof header, &err));
        return;
    }
    CHECK_OK(err, f->file->vfs->read(f->file, at, footer, n_bytes, &err));
    vdb_store_u16(footer + n_bytes - TRAILER_BYTES + 4, version);
    if (checked)
        vdb_store_u64(footer + n_bytes - 8, vdb_check_sum(footer, n_bytes - 8));
    CHECK_OK(err, f->file->vfs->write(f->file, at, footer, n_bytes, &err));
}

TEST(a_header_or_footer_of_another_version_is_refused_and_a_damaged_version_is_damage)
{
    static const struct {
        uint16_t version;
        bool checked;
        int status;
        const char *says;
    } cases[] = {{0, false, VECDB_CORRUPT, "checksum"},
                 {2, false, VECDB_CORRUPT, "checksum"},
                 {0, true, VECDB_CORRUPT, "version 0, of a preview"},
                 {2, true, VECDB_NEWER, "version 2"}};
    struct fixture f;
    begin(&f, IN_MEMORY, VECDB_F32, 24, VECDB_COMPRESSION_NONE, 3000, 0);
    CHECK_OK(err, write_rows(&f, f.file, VDB_FILE_HEADER_BYTES, NULL, 0, f.n_rows, 3000, &f.ref));
    for (size_t i = 0; i < 2 * (sizeof cases / sizeof *cases); i++) {
        struct vdb_extent *extent = NULL;
        bool of_header = i % 2;
        set_version(&f, of_header, cases[i / 2].version, cases[i / 2].checked);
        CHECK_FAILS(err, cases[i / 2].status, cases[i / 2].says,
                    vdb_extent_open(&f.memory, f.cache, f.file, uuid, STORE, f.type, f.dimension, &f.ref, &extent,
                                    &err));
        set_version(&f, of_header, EXTENT_VERSION, true);
        check_rows(&f);
    }
    end(&f);
}

TEST(a_slot_is_found_in_the_page_that_can_hold_it)
{
    struct fixture f;
    begin(&f, IN_MEMORY, VECDB_F32, 64, VECDB_COMPRESSION_NONE, 3000, 0);
    CHECK_OK(err, write_rows(&f, f.file, VDB_FILE_HEADER_BYTES, NULL, 0, f.n_rows, 3000, &f.ref));
    struct vdb_extent *extent = open_extent(&f);
    uint32_t row = 0;
    for (uint32_t slot = 0; slot < f.slots[f.n_rows - 1] + 10; slot++) {
        bool is_there = row < f.n_rows && f.slots[row] == slot;
        uint32_t page = vdb_extent_find(extent, slot), found = UINT32_MAX;
        if (page != UINT32_MAX) {
            struct vdb_block block;
            CHECK_OK(err, vdb_extent_pin(extent, page, &block, NULL, &err));
            found = vdb_block_row(&block, slot);
            vdb_extent_unpin(extent, &block);
        }
        CHECK_INT(found != UINT32_MAX, is_there);
        row += is_there;
    }
    CHECK_INT(row, f.n_rows);
    CHECK_INT(vdb_extent_find(extent, UINT32_MAX), UINT32_MAX);
    vdb_extent_release(extent);
    end(&f);
}

/* Open, read all, check: NULL when each step gave an error or the right rows. */
static const char *use_damaged(struct fixture *f, int *n_errors)
{
    struct vdb_extent *extent;
    uint32_t n_decoded = 0;
    memset(&err, 0, sizeof err);
    int status =
        vdb_extent_open(&f->memory, f->cache, f->file, uuid, STORE, f->type, f->dimension, &f->ref, &extent, &err);
    if (!status) {
        const char *fault = compare_extent(f, extent, &status, &n_decoded);
        vdb_extent_release(extent);
        if (fault)
            return fault;
    }
    if (!status)
        return NULL;
    ++*n_errors;
    if (status != VECDB_CORRUPT && status != VECDB_NEWER)
        return vecdb_status_name(status);
    return strstr(err.message, "vectors-1-1") ? NULL : "the message does not name the file";
}

TEST(every_flipped_byte_of_a_vector_file_is_found_or_harmless)
{
    for (enum where where = ON_DISK; where <= ON_DISK_WITHOUT_MAPS; where++)
        for (int shape = 0; shape < 3; shape++) {
            struct fixture f;
            begin(&f, where, VECDB_F32, 33, VECDB_COMPRESSION_MAX, 60, shape);
            CHECK_OK(err, write_rows(&f, f.file, VDB_FILE_HEADER_BYTES, NULL, 0, 40, 40, &f.ref));
            struct vdb_extent_ref grown;
            CHECK_OK(err, write_rows(&f, f.file, f.ref.offset + f.ref.length, &f.ref, 40, 60, 20, &grown));
            f.ref = grown;
            int n_errors = 0;
            uint64_t size = grown.offset + grown.length;
            for (uint64_t at = 0; at < size; at++) {
                unsigned char byte, flipped;
                CHECK_OK(err, f.vfs->read(f.file, at, &byte, 1, &err));
                flipped = byte ^ (unsigned char)(1 << at % 8);
                CHECK_OK(err, f.vfs->write(f.file, at, &flipped, 1, &err));
                const char *fault = use_damaged(&f, &n_errors);
                if (fault)
                    FAIL("byte %llu of %llu: %s (%s)", (unsigned long long)at, (unsigned long long)size, fault,
                         err.message);
                CHECK_OK(err, f.vfs->write(f.file, at, &byte, 1, &err));
            }
            /* Harmless are the padding (less than 64 bytes, five times) and the old footer (96). */
            CHECK((uint64_t)n_errors + 5 * 64 + 96 > size);
            end(&f);
            unlink(test_path("vectors-1-1"));
        }
}

TEST(every_truncation_of_a_vector_file_is_found)
{
    struct fixture f;
    begin(&f, ON_DISK, VECDB_F32, 33, VECDB_COMPRESSION_MAX, 60, 1);
    CHECK_OK(err, write_rows(&f, f.file, VDB_FILE_HEADER_BYTES, NULL, 0, 60, 60, &f.ref));
    for (uint64_t n = f.ref.offset + f.ref.length; n--;) {
        int n_errors = 0;
        CHECK_INT(truncate(test_path("vectors-1-1"), (off_t)n), 0);
        const char *fault = use_damaged(&f, &n_errors);
        CHECK(!fault);
        CHECK_INT(n_errors, 1);
    }
    end(&f);
}

TEST(a_footer_or_page_that_is_intact_but_not_the_committed_one_is_refused)
{
    struct fixture f;
    begin(&f, ON_DISK, VECDB_F32, 64, VECDB_COMPRESSION_NONE, 2000, 0);
    CHECK_OK(err, write_rows(&f, f.file, VDB_FILE_HEADER_BYTES, NULL, 0, f.n_rows, 2000, &f.ref));
    struct vdb_extent *extent;
    struct vdb_extent_ref other = f.ref;
    other.check ^= 1;
    CHECK_FAILS(err, VECDB_CORRUPT, "not the one that was committed",
                vdb_extent_open(&f.memory, f.cache, f.file, uuid, STORE, f.type, 64, &other, &extent, &err));
    other = f.ref;
    other.last_slot++;
    CHECK_FAILS(err, VECDB_CORRUPT, "not those of the catalog",
                vdb_extent_open(&f.memory, f.cache, f.file, uuid, STORE, f.type, 64, &other, &extent, &err));
    CHECK_FAILS(err, VECDB_CORRUPT, "another database",
                vdb_extent_open(&f.memory, f.cache, f.file, (const unsigned char *)"fedcba9876543210", STORE, f.type,
                                64, &f.ref, &extent, &err));
    CHECK_FAILS(err, VECDB_CORRUPT, "type or dimension",
                vdb_extent_open(&f.memory, f.cache, f.file, uuid, STORE, f.type, 63, &f.ref, &extent, &err));
    /* A lost write: page 1 in the place of page 0 of the same length. */
    unsigned char *bytes = vdb_alloc_aligned(&f.memory, VDB_PAGE_TARGET_BYTES);
    struct vdb_page_entry *entries;
    CHECK_OK(err, vdb_footer_read(&f.memory, f.file, uuid, STORE, f.type, 64, &f.ref, &entries, NULL, &err));
    size_t n = entries[1].length < entries[0].length ? entries[1].length : entries[0].length;
    CHECK_OK(err, f.vfs->read(f.file, f.ref.offset + entries[1].offset, bytes, n, &err));
    CHECK_OK(err, f.vfs->write(f.file, f.ref.offset + entries[0].offset, bytes, n, &err));
    extent = open_extent(&f);
    struct vdb_block block;
    CHECK_FAILS(err, VECDB_CORRUPT, "page 0 (slots 10 to ", vdb_extent_pin(extent, 0, &block, NULL, &err));
    CHECK_OK(err, vdb_extent_pin(extent, 1, &block, NULL, &err));
    vdb_extent_unpin(extent, &block);
    vdb_extent_release(extent);
    vdb_free(&f.memory, entries);
    vdb_free_aligned(&f.memory, bytes);
    end(&f);
}

static void count_problem(void *context, const char *message)
{
    ++*(int *)context;
    CHECK_CONTAINS(message, "vectors-1-1");
}

TEST(a_check_tells_of_every_flipped_bit_between_pages)
{
    for (uint32_t rows = 40; rows < 60; rows += 7) { /* old footers of several extents that grew, and debris */
        struct fixture f;
        struct vdb_extent_ref grown;
        begin(&f, ON_DISK, VECDB_F32, 3, VECDB_COMPRESSION_MAX, 100, 1);
        CHECK_OK(err, write_rows(&f, f.file, VDB_FILE_HEADER_BYTES, NULL, 0, rows, 40, &f.ref));
        uint64_t end_at = f.ref.offset + f.ref.length;
        CHECK_OK(err, write_rows(&f, f.file, end_at, &f.ref, rows, rows + 10, 40, &grown));
        f.ref = grown;
        end_at = (grown.offset + grown.length + 63) / 64 * 64;
        CHECK_OK(err, f.vfs->write(f.file, end_at, "what a failed commit left", 25, &err));
        CHECK_OK(err, write_rows(&f, f.file, end_at + 25, &f.ref, rows + 10, 100, 40, &grown));
        f.ref = grown;
        struct vdb_extent *extent = open_extent(&f);
        for (uint64_t at = f.ref.offset; at < grown.offset + grown.length; at++) {
            unsigned char byte, flipped;
            int n_problems = 0;
            CHECK_OK(err, f.vfs->read(f.file, at, &byte, 1, &err));
            flipped = byte ^ (unsigned char)(1 << at % 8);
            CHECK_OK(err, f.vfs->write(f.file, at, &flipped, 1, &err));
            CHECK_OK(err, vdb_extent_check(extent, count_problem, &n_problems, &err));
            if (!n_problems)
                FAIL("a flip of byte %llu of the extent is not told", (unsigned long long)at);
            CHECK_OK(err, f.vfs->write(f.file, at, &byte, 1, &err));
        }
        CHECK_OK(err, vdb_extent_check(extent, never, NULL, &err));
        vdb_extent_release(extent);
        end(&f);
        unlink(test_path("vectors-1-1"));
    }
}

TEST(a_check_tells_of_every_damaged_page)
{
    for (int compression = VECDB_COMPRESSION_NONE; compression <= VECDB_COMPRESSION_MAX; compression++) {
        struct fixture f;
        begin(&f, ON_DISK, VECDB_F32, 64, compression, 4000, 0);
        CHECK_OK(err, write_rows(&f, f.file, VDB_FILE_HEADER_BYTES, NULL, 0, f.n_rows, 4000, &f.ref));
        struct vdb_extent *extent = open_extent(&f);
        struct vdb_page_entry *entries;
        CHECK_OK(err, vdb_footer_read(&f.memory, f.file, uuid, STORE, f.type, 64, &f.ref, &entries, NULL, &err));
        for (uint32_t page = 0; page < f.ref.n_pages; page += 2)
            CHECK_OK(err, f.vfs->write(f.file, f.ref.offset + entries[page].offset + 1000, "damage", 6, &err));
        int n_problems = 0;
        CHECK_OK(err, vdb_extent_check(extent, count_problem, &n_problems, &err));
        CHECK_INT(n_problems, (f.ref.n_pages + 1) / 2);
        vdb_free(&f.memory, entries);
        vdb_extent_release(extent);
        end(&f);
        unlink(test_path("vectors-1-1"));
    }
}

/* ---- faults */
struct countdown {
    int left; /* operations before the one that fails; negative: it is over */
    int os_error;
};

static int count_down(void *context, enum vdb_io_op op, const char *path)
{
    (void)op, (void)path;
    struct countdown *countdown = context;
    return countdown->left-- == 0 ? countdown->os_error : 0;
}

/* The whole life of an extent through `vfs`; the first error. */
static int live(struct fixture *f, struct vdb_vfs *vfs, struct vdb_cache *cache, const char **fault)
{
    struct vdb_file *file = NULL;
    struct vdb_extent *extent = NULL;
    struct vdb_extent_ref ref = {0}, grown = {0};
    uint32_t n_decoded = 0, half = f->n_rows / 2;
    int status = vfs->open(vfs, test_path("vectors-2-1"), VDB_FILE_CREATE, &file, &err);
    if (!status)
        status = vdb_vector_file_begin(file, uuid, 2, 1, STORE, &err);
    if (!status)
        status = write_rows(f, file, VDB_FILE_HEADER_BYTES, NULL, 0, half, 100, &ref);
    if (!status)
        status = write_rows(f, file, ref.offset + ref.length, &ref, half, f->n_rows, 100, &grown);
    if (!status)
        status = vdb_extent_open(&f->memory, cache, file, uuid, STORE, f->type, f->dimension, &grown, &extent, &err);
    if (!status) {
        *fault = compare_extent(f, extent, &status, &n_decoded);
        vdb_extent_release(extent);
    }
    vfs->close(file);
    return status;
}

TEST(every_failing_operation_on_files_is_an_error_and_leaks_nothing)
{
    static const int os_errors[] = {EIO, ENOSPC, VDB_FAULT_SHORT};
    for (enum where where = ON_DISK; where <= ON_DISK_WITHOUT_MAPS; where++)
        for (size_t e = 0; e < 3; e++) {
            int status = VECDB_INTERNAL, n = 0;
            for (; status; n++) {
                struct fixture f;
                struct countdown countdown = {n, os_errors[e]};
                struct vdb_io_hook hook = {count_down, &countdown};
                struct vdb_vfs *vfs;
                const char *fault = NULL;
                begin(&f, where, VECDB_F32, 64, n % 2 ? VECDB_COMPRESSION_MAX : VECDB_COMPRESSION_NONE, 1200, n % 3);
                CHECK_OK(err, vdb_vfs_fault(&f.memory, f.vfs, &hook, &vfs, &err));
                memset(&err, 0, sizeof err);
                status = live(&f, vfs, f.cache, &fault);
                CHECK(!fault);
                if (status) {
                    CHECK_INT(status, os_errors[e] == ENOSPC ? VECDB_FULL : VECDB_IO);
                    CHECK_CONTAINS(err.message, "vectors-2-1");
                } else {
                    CHECK(countdown.left >= 0);
                }
                vfs->end(vfs);
                end(&f);
                unlink(test_path("vectors-1-1"));
                unlink(test_path("vectors-2-1"));
                CHECK(n < 1000);
            }
            CHECK(n > 10);
        }
}

TEST(every_failing_allocation_is_an_error_and_leaks_nothing)
{
    for (enum where where = ON_DISK; where <= IN_MEMORY; where++) {
        bool whole = false;
        for (int n = 0; !whole; n++) {
            struct fixture f;
            struct failing failing;
            const char *fault = NULL;
            begin(&f, where, VECDB_F32, 64, VECDB_COMPRESSION_MAX, 700, 2);
            struct vdb_memory plain = f.memory;
            struct vdb_vfs *vfs = NULL;
            struct vdb_cache *cache = NULL;
            failing_begin(&failing, &f.memory, n);
            int status = where == IN_MEMORY ? vdb_vfs_memory(&f.memory, &vfs, &err)
                                            : vdb_vfs_posix(&f.memory, where == ON_DISK, &vfs, &err);
            if (!status)
                status = vdb_cache_new(&f.memory, 1 << 20, &cache, &err);
            if (!status)
                status = live(&f, vfs, cache, &fault);
            CHECK(!fault);
            CHECK(status == VECDB_OK || status == VECDB_NOMEM);
            whole = !failing_has_failed(&failing);
            if (whole)
                CHECK_OK(err, status);
            vdb_cache_free(cache);
            if (vfs)
                vfs->end(vfs);
            CHECK_SIZE(vdb_memory_used(&f.memory), 0ull);
            f.memory.allocator = plain.allocator;
            atomic_store(&f.memory.used, vdb_memory_used(&plain));
            end(&f);
            unlink(test_path("vectors-1-1"));
            unlink(test_path("vectors-2-1"));
            CHECK(n < 2000);
        }
    }
}

/* ---- threads */
struct reader {
    struct fixture *f;
    struct vdb_extent *extent;
    const char *fault;
    int status;
};

static void *read_all(void *context)
{
    struct reader *reader = context;
    uint32_t n_decoded = 0;
    for (int round = 0; round < 5 && !reader->fault && !reader->status; round++)
        reader->fault = compare_extent(reader->f, reader->extent, &reader->status, &n_decoded);
    vdb_extent_release(reader->extent);
    return NULL;
}

TEST(threads_read_the_same_extent_at_once)
{
    for (enum where where = ON_DISK; where <= IN_MEMORY; where++) {
        struct fixture f;
        begin(&f, where, VECDB_F32, 64, VECDB_COMPRESSION_MAX, 5000, 2);
        CHECK_OK(err, write_rows(&f, f.file, VDB_FILE_HEADER_BYTES, NULL, 0, f.n_rows, 5000, &f.ref));
        struct vdb_extent *extent = open_extent(&f);
        struct reader readers[6];
        pthread_t threads[6];
        for (int i = 0; i < 6; i++) {
            readers[i] = (struct reader){&f, vdb_extent_retain(extent), NULL, 0};
            CHECK_INT(pthread_create(&threads[i], NULL, read_all, &readers[i]), 0);
        }
        vdb_extent_release(extent);
        for (int i = 0; i < 6; i++) {
            CHECK_INT(pthread_join(threads[i], NULL), 0);
            CHECK_INT(readers[i].status, 0);
            CHECK(!readers[i].fault);
        }
        end(&f);
        unlink(test_path("vectors-1-1"));
    }
}
