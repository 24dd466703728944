/* SPDX-License-Identifier: Apache-2.0
 *
 * lib/base/names.h - names of files that end in numbers: "vectors-3-1", "snapshot-12"
 *
 * Only what this library writes is such a name: digits without a sign, a space or a leading zero, below 2^64. (sscanf
 * takes all of these, and "snapshot--1" for the number 2^64 - 1.) So a name and its numbers stand for each other, and
 * whoever removes what numbers name removes what was listed.
 */
#ifndef VDB_BASE_NAMES_H
#define VDB_BASE_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Is `name` `prefix` and then `n` numbers, joined by '-', and nothing else? */
static inline bool vdb_name_numbers(const char *name, const char *prefix, uint64_t *numbers, size_t n)
{
    size_t length = strlen(prefix);
    if (strncmp(name, prefix, length))
        return false;
    name += length;
    for (size_t i = 0; i < n; i++) {
        uint64_t value = 0;
        if (i && *name++ != '-')
            return false;
        if (*name < '0' || *name > '9' || (*name == '0' && name[1] >= '0' && name[1] <= '9'))
            return false;
        for (; *name >= '0' && *name <= '9'; name++) {
            uint64_t digit = (uint64_t)(*name - '0');
            if (value > (UINT64_MAX - digit) / 10)
                return false;
            value = 10 * value + digit;
        }
        numbers[i] = value;
    }
    return !*name;
}

#endif
