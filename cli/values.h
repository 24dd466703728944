/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/values.h - element types, numbers and keys as text
 */
#ifndef VECDB_CLI_VALUES_H
#define VECDB_CLI_VALUES_H

#include "cli.h"

/* A type that only files of true neighbours have; it never reaches the library. */
#define VALUE_I32 100

const char *type_name(int type);     /* "f32", ... */
const char *metric_name(int metric); /* "l2", ... */
const char *index_name(int index);
const char *compression_name(int compression);

/* Bytes of one value; of VECDB_BIT 0. */
size_t value_bytes(int type);
/* Bytes of a row of `dimension` values. */
size_t row_bytes(int type, uint32_t dimension);

float float_of_f16(uint16_t bits);
float float_of_bf16(uint16_t bits);

/* Row of any type to f32; bits become 0 and 1. */
void row_to_floats(float *out, const void *row, int type, uint32_t dimension);

/* The shortest decimal form that reads back as the same float (the same double). */
#define NUMBER_TEXT 40
char *format_float(float value, char out[NUMBER_TEXT]);
char *format_double(double value, char out[NUMBER_TEXT]);

/* 1234567 as 1,234,567; for people only. */
char *format_count(uint64_t count, char out[32]);
char *format_size(uint64_t n_bytes, char out[32]); /* "12.3 MiB" */

/* Digits only, no sign, no space, in range. */
bool parse_count(const char *text, uint64_t *count);
/* The same with an optional K, M, G or T (powers of 1024) behind. */
bool parse_bytes(const char *text, uint64_t *n_bytes);

/* An integer as people write it: optional minus, digits, no leading zeros, in range of int64. */
bool parse_integer(const char *text, size_t length, int64_t *integer);

/* What is written like an integer is an integer key unless `as_text`; the rest is text. */
vecdb_key parse_key(const char *text, bool as_text);

/* For error messages: 17 or "moon-7" in quotes, cut when long. */
#define KEY_TEXT 96
char *format_key(const vecdb_key *key, char out[KEY_TEXT]);

double seconds_now(void); /* of a clock that only goes forward */

#endif
