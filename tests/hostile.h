/* SPDX-License-Identifier: Apache-2.0
 *
 * tests/hostile.h - databases made of hostile bytes, for the fuzz targets
 *
 * A target makes a good database once, keeps its files in memory (an image), and for each input edits a copy,
 * writes it to a directory of its own in memory, and uses it through the public interface. The oracle is small and
 * general: no crash, no sanitizer's report, no endless loop, and whoever fails says so in a sentence.
 *
 * Files are compared and edited as wholes. Checksums over them can be made good again, so that edits reach what
 * lies behind the checks: bytes that somebody wrote on purpose.
 */
#ifndef VDB_TESTS_HOSTILE_H
#define VDB_TESTS_HOSTILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HOSTILE_FILES 24

struct hostile_file {
    char name[64]; /* within the database's directory; may be one directory deeper */
    uint8_t *bytes;
    size_t n_bytes;
};

struct hostile_image {
    struct hostile_file files[HOSTILE_FILES];
    size_t n;
};

/* The input of a target, taken from the front; zeros when it is used up. */
struct hostile_input {
    const uint8_t *at;
    size_t n;
};

uint8_t hostile_take_u8(struct hostile_input *input);
uint16_t hostile_take_u16(struct hostile_input *input);
uint32_t hostile_take_u24(struct hostile_input *input);
uint64_t hostile_take_u64(struct hostile_input *input);
/* Up to `n_bytes` of it. */
const uint8_t *hostile_take(struct hostile_input *input, size_t n_bytes, size_t *n_taken);

/* A directory of this process, in memory where there is such a place; it is removed at exit. */
const char *hostile_directory(void);

/* A good database with a bit of everything: all types and codecs, several extents, a tail, dead slots, deleted
 * and replaced records, metadata and texts. `with_log`: as a kill leaves it, the last commits in the WAL only. */
const struct hostile_image *hostile_good(bool with_log);

/* Another one, with a field that is searched by a graph, and its index file. */
const struct hostile_image *hostile_indexed(void);

/* Exact copies, so that the sanitizer sees one byte too many. */
void hostile_copy(const struct hostile_image *image, struct hostile_image *copy);
void hostile_release(struct hostile_image *image);
struct hostile_file *hostile_find(struct hostile_image *image, const char *name); /* or NULL */
void hostile_resize(struct hostile_file *file, size_t n_bytes);                   /* zeros at the end */
/* Read a file anew. */
void hostile_load(const char *path, struct hostile_file *file);
void hostile_remove(struct hostile_image *image, struct hostile_file *file);

/* Edits {place u24, value u8} of a file, as many as `input` has. */
void hostile_edit(struct hostile_file *file, struct hostile_input *input, size_t most);

/* Make checksums good, as far as the bytes lead to what they cover. */
void hostile_stamp_catalog(struct hostile_file *file);
void hostile_stamp_log(struct hostile_file *file);
void hostile_stamp_state(struct hostile_file *file);
void hostile_stamp_vectors(struct hostile_file *file);
void hostile_stamp_index(struct hostile_file *file);
void hostile_stamp(struct hostile_image *image);

/* Put the directory back to what the image holds, and nothing else. */
void hostile_store(const struct hostile_image *image, const char *directory);

/* How many names a directory holds. */
size_t hostile_count(const char *directory);

/* Open it and do everything there is to do; then, with REPAIR, repair it, whether it opened or not. Bits of `how`. */
enum { HOSTILE_READONLY = 1, HOSTILE_NO_MAPS = 2, HOSTILE_COMPACT = 4, HOSTILE_REPAIR = 8, HOSTILE_BACKUP = 16,
       HOSTILE_INDEX = 32 }; /* wait for indexes */
void hostile_use(const char *directory, unsigned how);

#endif
