/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/base/slots.c - a set of slots (see slots.h)
 *
 * A `struct vdb_slots` is CRoaring's bitmap under another name; this is the only file that knows.
 *
 * READING BYTES. CRoaring 0.2.66, which Debian 12 has, keeps its deserialiser within the bytes it
 * is given but accepts sets that break its own invariants (keys out of order, wrong
 * cardinalities, arrays that are not sorted), and its operations on those may read out of
 * bounds. internal_validate came in later versions. So the bytes are checked here, completely,
 * before CRoaring sees them. The portable format (RoaringFormatSpec), little-endian:
 *
 *     without runs   [ 12346 : u32 ][ n : u32 ]
 *     with runs      [ 12347 : u16 ][ n - 1 : u16 ][ one bit per container, set: it is runs ]
 *     then           [ key : u16, cardinality - 1 : u16 ] * n       the 16 high bits of the slots
 *                    [ byte offset from the beginning : u32 ] * n   not with runs and n < 4
 *                    [ container ] * n
 *       array          cardinality <= 4096: u16 each, ascending
 *       bitset         cardinality  > 4096: 8,192 bytes
 *       runs           [ r : u16 ][ first : u16, length - 1 : u16 ] * r
 *
 * Invariants that a valid set has
 *  1. Keys ascend strictly.
 *  2. Values of an array ascend strictly; a bitset has as many bits as its cardinality says.
 *  3. Runs ascend, neither overlap nor touch, stay below 65536, and their lengths add up to the
 *     cardinality.
 *  4. Offsets are where the containers are, which follow each other without gaps; nothing
 *     follows the last. So a set has few encodings, and a flipped bit rarely goes unnoticed.
 *
 * MEMORY. CRoaring 0.2.66 calls malloc itself and cannot be given another allocator; sets are
 * small (at most 8 KiB per 65,536 slots), and memory that ends inside of it is not reported
 * (add and union return nothing).
 */
#include "slots.h"

#include <roaring/roaring.h>

#include "bytes.h"

#define COOKIE_PLAIN 12346
#define COOKIE_RUNS 12347
#define ARRAY_LIMIT 4096       /* values an array container has at most */
#define BITSET_BYTES 8192      /* of a bitset container */
#define OFFSETS_FROM 4         /* with runs, offsets are there from this many containers on */
#define CONTAINER_LIMIT 65536u /* containers in a set, values in a container */

static roaring_bitmap_t *bitmap_of(struct vdb_slots *slots)
{
    return (roaring_bitmap_t *)slots;
}

static const roaring_bitmap_t *const_bitmap_of(const struct vdb_slots *slots)
{
    return (const roaring_bitmap_t *)slots;
}

struct vdb_slots *vdb_slots_new(void)
{
    return (struct vdb_slots *)roaring_bitmap_create();
}

struct vdb_slots *vdb_slots_copy(const struct vdb_slots *slots)
{
    return (struct vdb_slots *)roaring_bitmap_copy(const_bitmap_of(slots));
}

void vdb_slots_free(struct vdb_slots *slots)
{
    if (slots)
        roaring_bitmap_free(bitmap_of(slots));
}

void vdb_slots_add(struct vdb_slots *slots, uint32_t slot)
{
    roaring_bitmap_add(bitmap_of(slots), slot);
}

/* One past the last slot of a range, cut at the end of the slots. */
static uint64_t range_end(uint32_t first, uint64_t n)
{
    uint64_t limit = (uint64_t)UINT32_MAX + 1;
    return n > limit - first ? limit : first + n;
}

void vdb_slots_add_range(struct vdb_slots *slots, uint32_t first, uint64_t n)
{
    if (n)
        roaring_bitmap_add_range(bitmap_of(slots), first, range_end(first, n));
}

void vdb_slots_remove(struct vdb_slots *slots, uint32_t slot)
{
    roaring_bitmap_remove(bitmap_of(slots), slot);
}

void vdb_slots_union(struct vdb_slots *slots, const struct vdb_slots *other)
{
    roaring_bitmap_or_inplace(bitmap_of(slots), const_bitmap_of(other));
}

bool vdb_slots_has(const struct vdb_slots *slots, uint32_t slot)
{
    return roaring_bitmap_contains(const_bitmap_of(slots), slot);
}

uint64_t vdb_slots_count(const struct vdb_slots *slots)
{
    return roaring_bitmap_get_cardinality(const_bitmap_of(slots));
}

uint64_t vdb_slots_count_range(const struct vdb_slots *slots, uint32_t first, uint64_t n)
{
    return n ? roaring_bitmap_range_cardinality(const_bitmap_of(slots), first, range_end(first, n)) : 0;
}

size_t vdb_slots_bytes(const struct vdb_slots *slots)
{
    return roaring_bitmap_portable_size_in_bytes(const_bitmap_of(slots));
}

size_t vdb_slots_write(const struct vdb_slots *slots, char *out)
{
    return roaring_bitmap_portable_serialize(const_bitmap_of(slots), out);
}

static bool array_is_valid(struct vdb_reader *reader, uint32_t cardinality)
{
    const uint8_t *values = vdb_read_bytes(reader, (size_t)cardinality * 2);
    if (!values)
        return false;
    for (uint32_t i = 1; i < cardinality; i++)
        if (vdb_load_u16(values + 2 * i) <= vdb_load_u16(values + 2 * (i - 1)))
            return false;
    return true;
}

static bool bitset_is_valid(struct vdb_reader *reader, uint32_t cardinality)
{
    const uint8_t *words = vdb_read_bytes(reader, BITSET_BYTES);
    if (!words)
        return false;
    uint32_t n_bits = 0;
    for (size_t i = 0; i < BITSET_BYTES; i += 8)
        n_bits += (uint32_t)__builtin_popcountll(vdb_load_u64(words + i));
    return n_bits == cardinality;
}

static bool runs_are_valid(struct vdb_reader *reader, uint32_t cardinality)
{
    uint32_t n_runs = vdb_read_u16(reader);
    const uint8_t *runs = vdb_read_bytes(reader, (size_t)n_runs * 4);
    if (!runs)
        return false;
    uint32_t n_values = 0, free_from = 0; /* the next run may begin here */
    for (uint32_t i = 0; i < n_runs; i++) {
        uint32_t first = vdb_load_u16(runs + 4 * i), length = vdb_load_u16(runs + 4 * i + 2) + 1u;
        if (first < free_from || first + length > CONTAINER_LIMIT)
            return false;
        free_from = first + length + 1;
        n_values += length;
    }
    return n_values == cardinality;
}

/* Whether the bytes begin with a whole set that keeps the invariants above and end with it. */
static bool bytes_are_valid(const void *bytes, size_t n_bytes)
{
    struct vdb_reader reader = vdb_reader_init(bytes, n_bytes);
    uint32_t cookie = vdb_read_u32(&reader), n_containers;
    const uint8_t *is_runs = NULL, *offsets = NULL;
    if ((cookie & 0xffff) == COOKIE_RUNS) {
        n_containers = (cookie >> 16) + 1;
        is_runs = vdb_read_bytes(&reader, (n_containers + 7) / 8);
    } else if (cookie == COOKIE_PLAIN) {
        n_containers = vdb_read_u32(&reader);
        if (n_containers > CONTAINER_LIMIT)
            return false;
    } else {
        return false;
    }
    const uint8_t *headers = vdb_read_bytes(&reader, (size_t)n_containers * 4);
    if (!is_runs || n_containers >= OFFSETS_FROM)
        offsets = vdb_read_bytes(&reader, (size_t)n_containers * 4);
    if (reader.failed)
        return false;
    for (uint32_t i = 0; i < n_containers; i++) {
        if (i && vdb_load_u16(headers + 4 * i) <= vdb_load_u16(headers + 4 * (i - 1)))
            return false;
        if (offsets && vdb_load_u32(offsets + 4 * i) != n_bytes - vdb_reader_left(&reader))
            return false;
        uint32_t cardinality = vdb_load_u16(headers + 4 * i + 2) + 1u;
        bool valid;
        if (is_runs && is_runs[i / 8] >> i % 8 & 1)
            valid = runs_are_valid(&reader, cardinality);
        else if (cardinality <= ARRAY_LIMIT)
            valid = array_is_valid(&reader, cardinality);
        else
            valid = bitset_is_valid(&reader, cardinality);
        if (!valid)
            return false;
    }
    return vdb_reader_left(&reader) == 0;
}

struct vdb_slots *vdb_slots_read(const void *bytes, size_t n_bytes)
{
    if (!bytes_are_valid(bytes, n_bytes))
        return NULL;
    return (struct vdb_slots *)roaring_bitmap_portable_deserialize_safe(bytes, n_bytes);
}

struct visit {
    bool (*each)(void *context, uint32_t slot);
    void *context;
};

static bool visit_slot(uint32_t slot, void *argument)
{
    const struct visit *visit = argument;
    return visit->each(visit->context, slot);
}

void vdb_slots_each(const struct vdb_slots *slots, bool (*each)(void *context, uint32_t slot), void *context)
{
    struct visit visit = {each, context};
    roaring_iterate(const_bitmap_of(slots), visit_slot, &visit);
}

void vdb_slots_each_between(const struct vdb_slots *slots, uint32_t first, uint32_t last,
                            bool (*each)(void *context, uint32_t slot), void *context)
{
    roaring_uint32_iterator_t at;
    roaring_init_iterator(const_bitmap_of(slots), &at);
    bool is_there = roaring_move_uint32_iterator_equalorlarger(&at, first);
    while (is_there && at.current_value <= last && each(context, at.current_value))
        is_there = roaring_advance_uint32_iterator(&at);
}
