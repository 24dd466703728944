/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzz target: a page of hostile bytes is refused, or decodes within its bounds and to slots in order.
 *
 * Input: a byte that chooses type and dimension, a byte that chooses a form. Form 0: the rest is the page.
 * Others: a good page of that form is made, and the rest are edits of it, {offset u16, value u8}. The
 * checksum is made good, so that edits reach what lies behind it.
 */
#include <assert.h>

#include "base/bytes.h"
#include "base/numbers.h"
#include "storage/page.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define N_ROWS 9

/* A good page, of values that suit the codec that `form` is to bring about. */
static int make_page(struct vdb_coder *coder, int type, uint32_t dimension, unsigned form, struct vdb_buffer *page)
{
    static float values[N_ROWS * 33];
    static uint8_t bytes[N_ROWS * 33];
    static const uint32_t slots[N_ROWS] = {3, 4, 5, 9, 10, 30, 1000, 1001, 70000};
    uint32_t row_values = type == VECDB_BIT ? (dimension + 7) / 8 : dimension;
    for (uint32_t i = 0; i < N_ROWS * row_values; i++) {
        values[i] = form % 4 == 1 ? 1.0f / (float)(i + 3) : form % 4 == 2 ? (float)(i % 7) : 0.25f;
        bytes[i] = (uint8_t)(form % 4 == 1 ? i * 37 : i % 3);
    }
    const void *rows = type == VECDB_F32 ? (const void *)values : bytes;
    uint32_t fitting = type == VECDB_F16 || type == VECDB_BF16 ? N_ROWS / 2 : N_ROWS;
    struct vdb_page_rows all = {type, dimension, (int)(form / 4 % 3), rows, slots, fitting};
    return vdb_page_encode(coder, &all, page, NULL);
}

static void edit(uint8_t *bytes, size_t n, const uint8_t *edits, size_t n_edits)
{
    for (; n_edits >= 3; edits += 3, n_edits -= 3)
        bytes[vdb_load_u16(edits) % n] = edits[2];
}

static void use(struct vdb_memory *memory, struct vdb_coder *coder, uint8_t *bytes, size_t n, int type,
                uint32_t dimension)
{
    struct vdb_page page;
    vdb_page_parse(bytes, n, type, dimension, true, &page, NULL); /* with the checksum as it came */
    vdb_store_u64(bytes, vdb_check_sum(bytes + 8, n - 8));
    for (int verify = 0; verify <= 1; verify++) {
        if (vdb_page_parse(bytes, n, type, dimension, verify, &page, NULL))
            continue;
        uint8_t *rows = vdb_alloc(memory, page.n_rows * vdb_vector_bytes(type, dimension));
        if (rows)
            vdb_page_decode(coder, &page, rows, NULL);
        vdb_free(memory, rows);
        struct vdb_block block = {.n_rows = page.n_rows, .n_runs = page.n_runs, .runs = page.runs};
        for (uint32_t i = 1; i < page.n_rows && verify; i++)
            assert(vdb_block_slot(&block, i - 1) < vdb_block_slot(&block, i));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint32_t dimensions[] = {1, 3, 7, 16, 33};
    if (size < 10 || size > (1 << 18))
        return 0;
    int type = VECDB_F32 + data[0] % 6;
    uint32_t dimension = dimensions[data[0] / 6 % 5];
    struct vdb_memory memory;
    struct vdb_coder *coder = NULL;
    struct vdb_buffer page;
    vdb_memory_init(&memory, NULL);
    vdb_buffer_init(&page, &memory);
    int status = vdb_coder_new(&memory, &coder, NULL);
    if (!status)
        status =
            data[1] ? make_page(coder, type, dimension, data[1], &page) : vdb_buffer_reserve(&page, size - 2, NULL);
    uint8_t *bytes = NULL;
    if (!status && !data[1])
        memcpy(page.bytes, data + 2, page.n_bytes = size - 2);
    if (!status && page.n_bytes >= 8)
        bytes = vdb_alloc(&memory, page.n_bytes); /* of the exact size, for the sanitizer */
    if (bytes) {
        memcpy(bytes, page.bytes, page.n_bytes);
        if (data[1])
            edit(bytes, page.n_bytes, data + 2, size - 2);
        use(&memory, coder, bytes, page.n_bytes, type, dimension);
    }
    vdb_free(&memory, bytes);
    vdb_buffer_release(&page);
    vdb_coder_free(coder);
    return 0;
}
