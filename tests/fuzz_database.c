/* SPDX-License-Identifier: Apache-2.0
 *
 * Fuzz target: a database directory in which any file was edited, cut, lengthened, removed, swapped with another or
 * taken from another moment opens or not, and whatever is asked of it is answered or refused in a sentence.
 *
 * Input: a byte of flags, a byte for hostile_use, then operations of 6 bytes: which, file, place u24, value.
 */
#include <string.h>

#include "hostile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { WITH_LOG = 1, STAMPED = 2, WITH_INDEX = 4 };
enum { EDIT, CUT, LENGTHEN, REMOVE, SWAP, OF_ANOTHER_MOMENT, ZERO_SECTOR, COPY_SECTOR, N_OPERATIONS };

static void change(struct hostile_image *image, const struct hostile_image *other, unsigned which, unsigned file_byte,
                   uint32_t place, uint8_t value)
{
    struct hostile_file *file = &image->files[file_byte % image->n];
    const struct hostile_file *same;
    struct hostile_file with;
    size_t at = file->n_bytes ? place % file->n_bytes : 0, sector = at / 512 * 512;
    size_t n_sector = file->n_bytes - sector < 512 ? file->n_bytes - sector : 512;
    switch (which) {
    case EDIT:
        if (file->n_bytes)
            file->bytes[at] = value;
        break;
    case CUT:
        hostile_resize(file, at);
        break;
    case LENGTHEN:
        hostile_resize(file, file->n_bytes + place % 10000);
        break;
    case REMOVE:
        if (image->n > 1)
            hostile_remove(image, file);
        break;
    case SWAP:
        with = image->files[value % image->n];
        image->files[value % image->n].bytes = file->bytes;
        image->files[value % image->n].n_bytes = file->n_bytes;
        file->bytes = with.bytes;
        file->n_bytes = with.n_bytes;
        break;
    case OF_ANOTHER_MOMENT:
        same = hostile_find((struct hostile_image *)(uintptr_t)other, file->name);
        if (same) {
            hostile_resize(file, same->n_bytes);
            memcpy(file->bytes, same->bytes, same->n_bytes);
        }
        break;
    case ZERO_SECTOR:
        memset(file->bytes + sector, 0, n_sector);
        break;
    default:
        memmove(file->bytes + sector, file->bytes + value * 512 % (sector + 1), n_sector);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 8 || size > 600)
        return 0;
    struct hostile_input input = {data, size};
    unsigned flags = hostile_take_u8(&input), how = hostile_take_u8(&input);
    struct hostile_image image;
    hostile_copy(flags & WITH_INDEX ? hostile_indexed() : hostile_good(flags & WITH_LOG), &image);
    while (input.n >= 6) {
        unsigned which = hostile_take_u8(&input) % N_OPERATIONS, file = hostile_take_u8(&input);
        uint32_t place = hostile_take_u24(&input);
        change(&image, hostile_good(!(flags & WITH_LOG)), which, file, place, hostile_take_u8(&input));
    }
    if (flags & STAMPED)
        hostile_stamp(&image);
    hostile_store(&image, hostile_directory());
    hostile_release(&image);
    hostile_use(hostile_directory(), how);
    return 0;
}
