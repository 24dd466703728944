/* SPDX-License-Identifier: Apache-2.0
 *
 * storage/page_format.h - the bytes of a page, shared by its writer and its reader
 *
 *     0   check         u64   XXH3-64 of the bytes 8 .. end of the page
 *     8   magic         "VDBP"
 *     12  version       u16   1
 *     14  codec         u8    1 raw, 2 narrow, 3 planes
 *     15  type          u8    the field's vecdb_type
 *     16  stored type   u8    the type of the values in the body
 *     17  encryption    u8    0: none
 *     18  n_planes      u16   codec planes: bytes of a stored value; else 0
 *     20  dimension     u32
 *     24  n_rows        u32
 *     28  n_runs        u32
 *     32  header bytes  u32   where the body begins: a multiple of 64
 *     36  body bytes    u32
 *     40  max_norm      f32   no row is longer
 *     44  zeros               up to 64
 *     64  runs                n_runs of {slot u32, row u32}
 *         plane table         n_planes of {bytes u32, encoding u32: 0 as it is, 1 a zstd frame}
 *         zeros               up to header bytes
 *         body
 *
 * FORMAT.md says it in full. The check comes first so that one call covers all the rest.
 */
#ifndef VDB_STORAGE_PAGE_FORMAT_H
#define VDB_STORAGE_PAGE_FORMAT_H

#include "page.h"

#define PAGE_MAGIC "VDBP"
#define PAGE_VERSION 1
#define PAGE_FIXED_BYTES 64
#define PAGE_RUN_BYTES 8
#define PAGE_PLANE_BYTES 8

enum {
    PAGE_AT_CHECK = 0,
    PAGE_AT_MAGIC = 8,
    PAGE_AT_VERSION = 12,
    PAGE_AT_CODEC = 14,
    PAGE_AT_TYPE = 15,
    PAGE_AT_STORED_TYPE = 16,
    PAGE_AT_ENCRYPTION = 17,
    PAGE_AT_N_PLANES = 18,
    PAGE_AT_DIMENSION = 20,
    PAGE_AT_N_ROWS = 24,
    PAGE_AT_N_RUNS = 28,
    PAGE_AT_HEADER_BYTES = 32,
    PAGE_AT_BODY_BYTES = 36,
    PAGE_AT_MAX_NORM = 40,
    PAGE_AT_ZEROS = 44
};

enum { PLANE_AS_IS = 0, PLANE_ZSTD = 1 };

/* Runs are used where they lie. A big-endian port would copy and turn them. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "pages are read in place: little-endian machines only");
_Static_assert(sizeof(struct vdb_run) == PAGE_RUN_BYTES, "a run is eight bytes");

static inline size_t vdb_page_round_up(size_t n)
{
    return (n + VDB_PAGE_ALIGN - 1) / VDB_PAGE_ALIGN * VDB_PAGE_ALIGN;
}

/* Bytes of a stored value, and so how many planes it has. Bits go by bytes. */
static inline uint32_t vdb_page_value_bytes(int type)
{
    return type == VECDB_F32 ? 4 : type == VECDB_F16 || type == VECDB_BF16 ? 2 : 1;
}

/* Whether values of `type` may be stored as `stored`. */
static inline bool vdb_page_may_store(int type, int stored)
{
    if (type == stored)
        return true;
    if (stored == VECDB_I8 || stored == VECDB_U8)
        return type == VECDB_F32 || type == VECDB_F16 || type == VECDB_BF16;
    return type == VECDB_F32 && (stored == VECDB_F16 || stored == VECDB_BF16);
}

#endif
