/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/base/utf8.h - strict UTF-8
 *
 * Valid is what the Unicode Standard calls well-formed (table 3-7): no overlong forms, no
 * surrogates, nothing above U+10FFFF. A zero byte is the valid character U+0000; who cannot hold
 * it in a text looks for it himself. Thread rule: any thread.
 */
#ifndef VDB_BASE_UTF8_H
#define VDB_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

bool vdb_utf8_valid(const char *text, size_t n_bytes);

/* Bytes in the longest valid beginning: whole characters only, n_bytes when all is valid. */
size_t vdb_utf8_valid_prefix(const char *text, size_t n_bytes);

#endif
