/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzz target: a hostile vector file opens or not, and its pages are refused or lie within it.
 *
 * Input: a byte that chooses type and dimension, a byte that chooses a form, then edits, {offset from
 * the file's end or begin i16, value u8}, of a good file that is made first. The checks of header, footer
 * and pages are then made good, and the catalog's entry is taken from the trailer, so that edits reach
 * what lies behind them.
 */
#include "base/bytes.h"
#include "base/numbers.h"
#include "storage/extent_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Make every check good, as far as the numbers lead to bytes. */
static void mend(uint8_t *bytes, size_t n, uint32_t n_pages)
{
    size_t footer_bytes = (size_t)n_pages * ENTRY_BYTES + TRAILER_BYTES;
    uint8_t *footer = bytes + (n - footer_bytes), *trailer = bytes + n - TRAILER_BYTES;
    vdb_store_u64(bytes, vdb_check_sum(bytes + 8, VDB_FILE_HEADER_BYTES - 8));
    for (uint32_t i = 0; i < n_pages; i++) {
        uint64_t offset = vdb_load_u64(footer + i * ENTRY_BYTES), length = vdb_load_u32(footer + i * ENTRY_BYTES + 16);
        uint64_t room = n - footer_bytes - VDB_FILE_HEADER_BYTES;
        if (length < 16 || !vdb_range_is_inside(offset, length, room))
            continue;
        uint8_t *page = bytes + VDB_FILE_HEADER_BYTES + offset;
        vdb_store_u64(page, vdb_check_sum(page + 8, length - 8));
        memcpy(footer + i * ENTRY_BYTES + 8, page, 8);
    }
    vdb_store_u32(trailer + 12, n_pages);
    vdb_store_u64(trailer + 24, VDB_FILE_HEADER_BYTES);
    vdb_store_u64(trailer + 32, n - VDB_FILE_HEADER_BYTES);
    vdb_store_u64(trailer + 56, vdb_check_sum(footer, footer_bytes - 8));
}

static void ignore(void *context, const char *message)
{
    (void)context, (void)message;
}

static void use(struct vdb_memory *memory, struct vdb_cache *cache, struct vdb_file *file, const uint8_t *bytes,
                size_t n, int type, uint32_t dimension, uint32_t n_pages)
{
    const uint8_t *trailer = bytes + n - TRAILER_BYTES;
    struct vdb_extent_ref ref = {VDB_FILE_HEADER_BYTES,
                                 n - VDB_FILE_HEADER_BYTES,
                                 vdb_load_u64(trailer + 56),
                                 vdb_load_u64(trailer + 16),
                                 vdb_load_u32(trailer + 48),
                                 vdb_load_u32(trailer + 52),
                                 n_pages};
    struct vdb_extent *extent;
    uint64_t store = vdb_load_u64(bytes + 48);
    if (vdb_extent_open(memory, cache, file, bytes + 16, store, type, dimension, &ref, &extent, NULL))
        return;
    volatile uint8_t sum = 0;
    for (uint32_t round = 0; round < 2 * n_pages; round++) {
        struct vdb_block block;
        if (vdb_extent_pin(extent, round % n_pages, &block, NULL, NULL))
            continue;
        for (size_t i = 0; i < block.n_rows * block.stride; i++)
            sum ^= ((const uint8_t *)block.rows)[i];
        for (uint32_t i = 0; i < block.n_rows; i++)
            sum ^= (uint8_t)vdb_extent_find(extent, vdb_block_slot(&block, i));
        vdb_extent_unpin(extent, &block);
    }
    (void)sum;
    vdb_extent_check(extent, ignore, NULL, NULL);
    vdb_extent_release(extent);
}

#define N_ROWS 6

/* A good file of one extent of one to four small pages; its length, or 0. */
static size_t make_file(struct vdb_memory *memory, struct vdb_file *file, int type, uint32_t dimension, unsigned form,
                        uint32_t *n_pages)
{
    static uint8_t rows[N_ROWS * 4 * 33];
    static const uint8_t uuid[16] = "fuzz";
    struct vdb_page_entry entries[4];
    struct vdb_extent_ref ref = {.offset = VDB_FILE_HEADER_BYTES};
    struct vdb_buffer buffer;
    struct vdb_coder *coder;
    int status = vdb_coder_new(memory, &coder, NULL);
    if (status || (status = vdb_vector_file_begin(file, uuid, 1, 1, 1, NULL)))
        return 0;
    vdb_buffer_init(&buffer, memory);
    *n_pages = 1 + form / 3 % 4;
    for (uint32_t page = 0; page < *n_pages && !status; page++) {
        uint32_t slots[N_ROWS] = {0, 1, 2, 5, 6, 9};
        for (uint32_t i = 0; i < N_ROWS; i++)
            slots[i] += 100 * page;
        for (size_t i = 0; i < sizeof rows; i++)
            rows[i] = (uint8_t)(page % 2 ? i * 37 : i % 2);
        struct vdb_page_rows all = {type, dimension, (int)(form % 3), rows, slots, N_ROWS};
        size_t start = (buffer.n_bytes + 63) / 64 * 64;
        status = vdb_page_encode(coder, &all, &buffer, NULL);
        if (!status)
            entries[page] = (struct vdb_page_entry){start,
                                                    vdb_load_u64(buffer.bytes + start),
                                                    (uint32_t)(buffer.n_bytes - start),
                                                    N_ROWS,
                                                    slots[0],
                                                    slots[N_ROWS - 1]};
    }
    if (!status)
        status = vdb_footer_write(type, dimension, entries, *n_pages, 0, VDB_FILE_HEADER_BYTES, &buffer, &ref, NULL);
    if (!status)
        status = file->vfs->write(file, VDB_FILE_HEADER_BYTES, buffer.bytes, buffer.n_bytes, NULL);
    vdb_buffer_release(&buffer);
    vdb_coder_free(coder);
    return status ? 0 : (size_t)(ref.offset + ref.length);
}

static void edit(uint8_t *bytes, size_t n, const uint8_t *edits, size_t n_edits)
{
    for (; n_edits >= 3; edits += 3, n_edits -= 3) {
        size_t at = vdb_load_u16(edits);
        bytes[at < 32768 ? at % n : n - 1 - (at - 32768) % n] = edits[2];
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint32_t dimensions[] = {1, 3, 7, 16, 33};
    if (size < 2 || size > (1 << 16))
        return 0;
    int type = VECDB_F32 + data[0] % 6;
    uint32_t dimension = dimensions[data[0] / 6 % 5], n_pages = 0;
    struct vdb_memory memory;
    struct vdb_vfs *vfs = NULL;
    struct vdb_cache *cache = NULL;
    struct vdb_file *file = NULL;
    uint8_t *bytes = NULL;
    vdb_memory_init(&memory, NULL);
    if (!vdb_vfs_memory(&memory, &vfs, NULL) && !vdb_cache_new(&memory, 100000, &cache, NULL) &&
        !vfs->open(vfs, "file", VDB_FILE_CREATE, &file, NULL)) {
        size_t n = make_file(&memory, file, type, dimension, data[1], &n_pages);
        bytes = n ? vdb_alloc(&memory, n) : NULL;
        if (bytes && !vfs->read(file, 0, bytes, n, NULL)) {
            edit(bytes, n, data + 2, size - 2);
            mend(bytes, n, n_pages);
            if (!vfs->write(file, 0, bytes, n, NULL))
                use(&memory, cache, file, bytes, n, type, dimension, n_pages);
        }
    }
    if (vfs) {
        vfs->close(file);
        vdb_cache_free(cache);
        vfs->end(vfs);
    }
    vdb_free(&memory, bytes);
    return 0;
}
