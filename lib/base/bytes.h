/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/base/bytes.h - little-endian bytes with bounds
 *
 * Everything on disk is little-endian and is read through a `struct vdb_reader`, which never
 * passes its end: a read that would sets `failed`, returns zero, and so does every later one.
 * A parser reads all it wants and asks once. Writers of fixed places use vdb_put_*.
 */
#ifndef VDB_BASE_BYTES_H
#define VDB_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t vdb_load_u16(const void *at)
{
    const uint8_t *b = at;
    return (uint16_t)(b[0] | b[1] << 8);
}

static inline uint32_t vdb_load_u32(const void *at)
{
    const uint8_t *b = at;
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static inline uint64_t vdb_load_u64(const void *at)
{
    const uint8_t *b = at;
    return (uint64_t)vdb_load_u32(b) | (uint64_t)vdb_load_u32(b + 4) << 32;
}

static inline void vdb_store_u16(void *at, uint16_t value)
{
    uint8_t *b = at;
    b[0] = (uint8_t)value;
    b[1] = (uint8_t)(value >> 8);
}

static inline void vdb_store_u32(void *at, uint32_t value)
{
    uint8_t *b = at;
    for (int i = 0; i < 4; i++)
        b[i] = (uint8_t)(value >> 8 * i);
}

static inline void vdb_store_u64(void *at, uint64_t value)
{
    uint8_t *b = at;
    for (int i = 0; i < 8; i++)
        b[i] = (uint8_t)(value >> 8 * i);
}

struct vdb_reader {
    const uint8_t *at;
    const uint8_t *end;
    bool failed;
};

static inline struct vdb_reader vdb_reader_init(const void *bytes, size_t n_bytes)
{
    struct vdb_reader reader = {bytes, (const uint8_t *)bytes + n_bytes, false};
    return reader;
}

static inline size_t vdb_reader_left(const struct vdb_reader *reader)
{
    return (size_t)(reader->end - reader->at);
}

/* The next n bytes, or NULL when there are fewer. */
static inline const uint8_t *vdb_read_bytes(struct vdb_reader *reader, size_t n)
{
    if (reader->failed || vdb_reader_left(reader) < n) {
        reader->failed = true;
        return NULL;
    }
    const uint8_t *start = reader->at;
    reader->at += n;
    return start;
}

static inline uint8_t vdb_read_u8(struct vdb_reader *reader)
{
    const uint8_t *b = vdb_read_bytes(reader, 1);
    return b ? b[0] : 0;
}

static inline uint16_t vdb_read_u16(struct vdb_reader *reader)
{
    const uint8_t *b = vdb_read_bytes(reader, 2);
    return b ? vdb_load_u16(b) : 0;
}

static inline uint32_t vdb_read_u32(struct vdb_reader *reader)
{
    const uint8_t *b = vdb_read_bytes(reader, 4);
    return b ? vdb_load_u32(b) : 0;
}

static inline uint64_t vdb_read_u64(struct vdb_reader *reader)
{
    const uint8_t *b = vdb_read_bytes(reader, 8);
    return b ? vdb_load_u64(b) : 0;
}

#endif
