/* SPDX-License-Identifier: Apache-2.0
 *
 * index/codes.h - vectors as codes of 4 and of 8 bits a value, and queries against them
 *
 * A codec belongs to one field. It turns a vector x into r = P(u x - c), where u is a power of two (for cosine
 * the vector's length is divided out instead), c an origin, P a random rotation (rotation.h), and r into
 *
 *     record:  [ code : n_values / 2 or n_values bytes ][ add : f32 ][ scale : f32 ][ square : f32 ][ 0 : 4 ]
 *
 * whose score against a query (simd/kernels.h) estimates, up to a constant of the query,
 *     l2, cosine     |q - r|^2
 *     ip             -<q, r> for codes of 4 bits, which are searched; |q - r|^2 for codes of 8 bits, for building.
 *                    `square` = |r|^2 turns one into the other
 *     hamming        the bits themselves are the record; the score is exact
 *
 * Built for ip, vectors carry one more value a = sqrt(M^2 - |x|^2), which makes all of them equally long, so that the
 * nearest to (q, 0) is the one with the largest product (Bachrach et al., RecSys 2014). M is the
 * largest length in the sample; longer vectors have a = 0. Where lengths hardly differ the value is left out.
 *
 * Sources: Gao and Long, RaBitQ, arXiv 2405.12497, and Gao et al., arXiv 2409.09913 (the unbiased factor).
 * Thread rule: a codec that is trained does not change.
 */
#ifndef VDB_INDEX_CODES_H
#define VDB_INDEX_CODES_H

#include <stdbool.h>

#include "base/block.h"
#include "rotation.h"

struct vdb_codec {
    struct vdb_memory *memory;
    const struct vdb_kernels *kernels;
    int metric, type;
    uint32_t dimension;
    uint32_t n_values;  /* of a code; for hamming the number of code bytes is `bits_bytes` */
    uint32_t bits_bytes; /* hamming: bytes of a vector; else 0 */
    size_t stride4, stride8; /* bytes of a record; stride8 is 0 for hamming */
    bool is_trained;    /* has origin and unit */
    bool is_augmented;  /* ip: see above */
    float unit;
    float length;       /* M, in units */
    float *origin;      /* n_values, before the rotation; NULL for hamming */
    struct vdb_rotation rotation;
};

/* A query as kernels want it. */
struct vdb_query {
    struct vdb_code_query code;
    const void *bits; /* hamming */
    float constant;   /* score + constant estimates the squared distance (in units), or the product's negative */
};

/* Untrained unless the sample (NULL: none) has rows. NOMEM. */
int vdb_codec_init(struct vdb_codec *codec, struct vdb_memory *memory, const struct vdb_kernels *kernels, int metric,
                   int type, uint32_t dimension, uint64_t seed, const struct vdb_block *sample, vecdb_error *err);
void vdb_codec_release(struct vdb_codec *codec);

/* The lengths of codes and records, from dimension, bits_bytes and is_augmented. */
void vdb_codec_lay_out(struct vdb_codec *codec);

/* A codec like another, for a graph of its own. NOMEM. */
int vdb_codec_copy(const struct vdb_codec *codec, struct vdb_codec *copy, vecdb_error *err);

/* Take origin and unit from a block's rows, of which there is at least one. `work`: n_values floats. */
void vdb_codec_train(struct vdb_codec *codec, const struct vdb_block *sample, float *work);

/* Records of a vector of storage type `type`; record8 may be NULL. `work`: n_values floats, aligned to 64 bytes. */
void vdb_codec_encode(const struct vdb_codec *codec, int type, const void *values, float *work,
                      unsigned char *record4, unsigned char *record8);

/* A query of a search (floats; bits are borrowed) against codes of 4 bits. `values`: n_values, aligned, kept. */
void vdb_codec_query(const struct vdb_codec *codec, const void *query, float *work, int8_t *values,
                     struct vdb_query *out);

/* A stored vector as a query against codes of `against` bits, from its own record of `bits` bits. For building:
 * the score plus `constant` is the squared distance for ip, too. `against` 8 needs `bits` 8. */
void vdb_codec_query_record(const struct vdb_codec *codec, const unsigned char *record, int bits, int against,
                            int8_t *values, struct vdb_query *out);

/* Whether two records say the same vector. */
bool vdb_codec_equal(const struct vdb_codec *codec, int bits, const unsigned char *a, const unsigned char *b);

/* Where a record's floats are. */
static inline float vdb_record_float(const unsigned char *record, size_t code_bytes, int i)
{
    float value;
    memcpy(&value, record + code_bytes + (size_t)i * sizeof value, sizeof value);
    return value;
}

#endif
