/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/base/utf8.c - strict UTF-8 (see utf8.h)
 *
 *     first byte   second    more         what the narrow second byte keeps out
 *     00..7f
 *     c2..df       80..bf
 *     e0           a0..bf    1            overlong
 *     e1..ec       80..bf    1
 *     ed           80..9f    1            surrogates
 *     ee..ef       80..bf    1
 *     f0           90..bf    2            overlong
 *     f1..f3       80..bf    2
 *     f4           80..8f    2            above U+10FFFF
 *
 * ASCII goes eight bytes at a time: keys, names and JSON are nearly all of it. Rejected: a SIMD
 * validator; texts are checked once, when they are written, beside a transaction.
 */
#include "utf8.h"

#include <stdint.h>
#include <string.h>

/* Bytes of the valid character at `b`, 0 when there is none. n > 0. */
static size_t character_bytes(const uint8_t *b, size_t n)
{
    uint8_t low = 0x80, high = 0xbf;
    size_t length;
    if (b[0] < 0x80)
        return 1;
    if (b[0] < 0xc2 || b[0] > 0xf4)
        return 0;
    if (b[0] < 0xe0) {
        length = 2;
    } else if (b[0] < 0xf0) {
        length = 3;
        if (b[0] == 0xe0)
            low = 0xa0;
        else if (b[0] == 0xed)
            high = 0x9f;
    } else {
        length = 4;
        if (b[0] == 0xf0)
            low = 0x90;
        else if (b[0] == 0xf4)
            high = 0x8f;
    }
    if (n < length || b[1] < low || b[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++)
        if ((b[i] & 0xc0) != 0x80)
            return 0;
    return length;
}

size_t vdb_utf8_valid_prefix(const char *text, size_t n_bytes)
{
    const uint8_t *b = (const uint8_t *)text;
    size_t at = 0;
    while (at < n_bytes) {
        uint64_t eight;
        if (n_bytes - at >= sizeof eight) {
            memcpy(&eight, b + at, sizeof eight);
            if (!(eight & 0x8080808080808080u)) {
                at += sizeof eight;
                continue;
            }
        }
        size_t length = character_bytes(b + at, n_bytes - at);
        if (!length)
            break;
        at += length;
    }
    return at;
}

bool vdb_utf8_valid(const char *text, size_t n_bytes)
{
    return vdb_utf8_valid_prefix(text, n_bytes) == n_bytes;
}
