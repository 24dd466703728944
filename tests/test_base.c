/* SPDX-License-Identifier: Apache-2.0
 *
 * Property: the small modules of lib/base do what their headers say: every 16-bit float converts
 * exactly, rounding goes to the nearest with ties to even, readers never pass their end, the
 * allocator counts to the byte, errors are whole sentences, UTF-8 is what the standard says.
 */
#include <errno.h>
#include <math.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/names.h"
#include "base/numbers.h"
#include "base/random.h"
#include "base/utf8.h"
#include "harness.h"

/* ------------------------------------------------------------------ numbers */

/* The value of a 16-bit float from its parts, in double. */
static double value_of(uint16_t bits, int exponent_bits)
{
    int mantissa_bits = 15 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
    int exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1), mantissa = bits & ((1 << mantissa_bits) - 1);
    double sign = bits & 0x8000 ? -1 : 1;
    if (exponent == (1 << exponent_bits) - 1)
        return mantissa ? NAN : sign * INFINITY;
    if (exponent == 0)
        return sign * ldexp(mantissa, 1 - bias - mantissa_bits);
    return sign * ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}

static void check_all_values(int exponent_bits, float (*widen)(uint16_t), uint16_t (*narrow)(float))
{
    for (uint32_t bits = 0; bits < 65536; bits++) {
        double expected = value_of((uint16_t)bits, exponent_bits);
        float got = widen((uint16_t)bits);
        if (isnan(expected)) {
            CHECK(isnan(got) && isnan(widen(narrow(got))));
            continue;
        }
        CHECK_DOUBLE(got, expected);
        CHECK_INT(signbit(got) != 0, bits >> 15);
        CHECK_INT(narrow(got), bits);
    }
}

static float widen_bf16(uint16_t bits)
{
    return vdb_float_of_bf16(bits);
}

TEST(every_half_and_every_bfloat_converts_exactly_there_and_back)
{
    check_all_values(5, vdb_float_of_f16, vdb_f16_of_float);
    check_all_values(8, widen_bf16, vdb_bf16_of_float);
}

/* `a` < `b` are neighbours: what lies between goes to the nearer, the middle to the even one. */
static void check_between(uint16_t a, float low, float high, uint16_t (*narrow)(float))
{
    float middle = (float)(((double)low + high) / 2);
    uint16_t b = (uint16_t)(a + 1), even = a & 1 ? b : a;
    CHECK_INT(narrow(middle), even);
    CHECK_INT(narrow(nextafterf(middle, -INFINITY)), a);
    CHECK_INT(narrow(nextafterf(middle, INFINITY)), b);
    CHECK_INT(narrow(-middle), even | 0x8000);
    CHECK_INT(narrow(-nextafterf(middle, -INFINITY)), a | 0x8000);
    CHECK_INT(narrow(-nextafterf(middle, INFINITY)), b | 0x8000);
}

TEST(floats_between_two_neighbours_round_to_the_nearest_and_ties_to_even)
{
    for (uint16_t bits = 0; bits < 0x7bff; bits++)
        check_between(bits, vdb_float_of_f16(bits), vdb_float_of_f16((uint16_t)(bits + 1)), vdb_f16_of_float);
    check_between(0x7bff, 65504, 65536, vdb_f16_of_float); /* the largest, and where 65536 would be: infinity */
    for (uint16_t bits = 0; bits < 0x7f7f; bits++)
        check_between(bits, vdb_float_of_bf16(bits), vdb_float_of_bf16((uint16_t)(bits + 1)), vdb_bf16_of_float);
    CHECK_INT(vdb_bf16_of_float(3.4028235e38f), 0x7f80);
    CHECK_INT(vdb_f16_of_float(1e30f), 0x7c00);
    CHECK_INT(vdb_f16_of_float(-1e-30f), 0x8000);
}

#ifdef __FLT16_MANT_DIG__
TEST(random_floats_round_to_halves_as_the_compilers_own_do)
{
    struct vdb_random random = {test_seed()};
    for (int i = 0; i < 2000000; i++) {
        float value = vdb_float_of_bits((uint32_t)vdb_random_next(&random));
        if (i % 2) /* half of them where halves are */
            value = ldexpf((float)(vdb_random_unit(&random) * 2 - 1), (int)vdb_random_below(&random, 44) - 26);
        if (isnan(value))
            continue;
        _Float16 half = (_Float16)value;
        uint16_t bits;
        memcpy(&bits, &half, sizeof bits);
        CHECK_INT(vdb_f16_of_float(value), bits);
    }
}
#endif

TEST(vectors_of_every_type_have_their_sizes_names_and_values)
{
    CHECK_SIZE(vdb_vector_bytes(VECDB_F32, 100), 400);
    CHECK_SIZE(vdb_vector_bytes(VECDB_F16, 100), 200);
    CHECK_SIZE(vdb_vector_bytes(VECDB_BF16, 100), 200);
    CHECK_SIZE(vdb_vector_bytes(VECDB_I8, 100), 100);
    CHECK_SIZE(vdb_vector_bytes(VECDB_U8, 100), 100);
    CHECK_SIZE(vdb_vector_bytes(VECDB_BIT, 100), 13);
    CHECK_SIZE(vdb_vector_bytes(VECDB_F32, UINT32_MAX), 4 * (uint64_t)UINT32_MAX);
    float out[2];
    vdb_floats_of(VECDB_I8, "\x80\x7f", 2, out);
    CHECK(out[0] == -128 && out[1] == 127);
    vdb_floats_of(VECDB_U8, "\x80\x7f", 2, out);
    CHECK(out[0] == 128 && out[1] == 127);
    static const uint16_t halves[] = {0x3c00, 0xc000}, bfloats[] = {0x3f80, 0xc000};
    vdb_floats_of(VECDB_F16, halves, 2, out);
    CHECK(out[0] == 1 && out[1] == -2);
    vdb_floats_of(VECDB_BF16, bfloats, 2, out);
    CHECK(out[0] == 1 && out[1] == -2);
    CHECK_STRING(vdb_type_name(VECDB_BF16), "bf16");
    CHECK_STRING(vdb_type_name(VECDB_BIT), "bit");
    CHECK(!vdb_type_name(0) && !vdb_type_name(7) && !vdb_type_name(-1));
    CHECK_STRING(vdb_metric_name(VECDB_COSINE), "cosine");
    CHECK(!vdb_metric_name(0) && !vdb_metric_name(5) && !vdb_metric_name(-1));
}

/* ------------------------------------------------------------------ bytes */

TEST(a_reader_gives_what_was_stored_and_zeros_for_ever_after_its_end)
{
    unsigned char bytes[15];
    bytes[0] = 0xfe;
    vdb_store_u16(bytes + 1, 0xfedc);
    vdb_store_u32(bytes + 3, 0xfedcba98);
    vdb_store_u64(bytes + 7, 0xfedcba9876543210u);
    CHECK_INT(bytes[1], 0xdc); /* little-endian on every machine */
    CHECK_INT(bytes[7], 0x10);
    struct vdb_reader reader = vdb_reader_init(bytes, sizeof bytes);
    CHECK_INT(vdb_read_u8(&reader), 0xfe);
    CHECK_INT(vdb_read_u16(&reader), 0xfedc);
    CHECK_INT(vdb_read_u32(&reader), 0xfedcba98);
    CHECK_SIZE(vdb_read_u64(&reader), 0xfedcba9876543210u);
    CHECK(!reader.failed && vdb_reader_left(&reader) == 0);
    CHECK(vdb_read_bytes(&reader, 0));
    CHECK_INT(vdb_read_u8(&reader), 0);
    CHECK(reader.failed);
    for (size_t n = 0; n < 8; n++) {
        reader = vdb_reader_init(bytes + 7, n);
        CHECK_SIZE(vdb_read_u64(&reader), 0);
        CHECK(reader.failed && vdb_reader_left(&reader) == n);
        CHECK_INT(vdb_read_u8(&reader), 0); /* there would be bytes, but the reader has failed */
        CHECK(!vdb_read_bytes(&reader, SIZE_MAX));
    }
}

/* ------------------------------------------------------------------ memory */

TEST(the_allocator_counts_to_the_byte_and_aligns)
{
    struct vdb_memory memory;
    vdb_memory_init(&memory, NULL);
    char *blocks[50], *aligned[50];
    for (size_t i = 0; i < 50; i++) {
        blocks[i] = vdb_alloc(&memory, i);
        aligned[i] = vdb_alloc_aligned(&memory, i);
        CHECK(blocks[i] && aligned[i]);
        CHECK_INT((uintptr_t)blocks[i] % 16, 0);
        CHECK_INT((uintptr_t)aligned[i] % 64, 0);
        memset(blocks[i], (int)i, i);
        memset(aligned[i], (int)i, i);
    }
    size_t used = vdb_memory_used(&memory);
    for (size_t i = 0; i < 50; i++) {
        blocks[i] = vdb_realloc(&memory, blocks[i], 3 * i);
        for (size_t j = 0; j < i; j++)
            CHECK_INT(blocks[i][j], i);
    }
    CHECK_SIZE(vdb_memory_used(&memory), used + 2 * (49 * 50 / 2));
    for (size_t i = 0; i < 50; i++) {
        vdb_free(&memory, blocks[i]);
        vdb_free_aligned(&memory, aligned[i]);
    }
    CHECK_SIZE(vdb_memory_used(&memory), 0);
    vdb_free(&memory, NULL);
    vdb_free_aligned(&memory, NULL);
    char *text = vdb_strdup(&memory, "vector", 4), *zeros = vdb_alloc_zero(&memory, 9);
    CHECK_STRING(text, "vect");
    for (int i = 0; i < 9; i++)
        CHECK_INT(zeros[i], 0);
    vdb_free(&memory, text);
    vdb_free(&memory, zeros);
}

/* A heap of so many bytes: what is asked for beyond them is refused. */
struct small_heap {
    struct vdb_memory plain;
    size_t left;
    int n_refused;
};

static size_t heap_bytes(const void *block)
{
    size_t size;
    memcpy(&size, block, sizeof size);
    return size;
}

static void *heap_allocate(void *context, size_t size)
{
    struct small_heap *heap = context;
    char *block = size <= heap->left ? vdb_alloc(&heap->plain, size + 16) : NULL;
    heap->n_refused += !block;
    if (!block)
        return NULL;
    heap->left -= size;
    memcpy(block, &size, sizeof size);
    return block + 16;
}

static void heap_release(void *context, void *block)
{
    struct small_heap *heap = context;
    if (block) {
        heap->left += heap_bytes((char *)block - 16);
        vdb_free(&heap->plain, (char *)block - 16);
    }
}

static void *heap_reallocate(void *context, void *block, size_t size)
{
    void *bigger = heap_allocate(context, size);
    if (bigger) {
        size_t had = heap_bytes((char *)block - 16);
        memcpy(bigger, block, had < size ? had : size);
        heap_release(context, block);
    }
    return bigger;
}

TEST(spare_blocks_are_given_back_before_an_allocation_fails)
{
    enum { BIG = 1 << 20 };
    struct small_heap heap = {.left = 4 * BIG};
    struct vdb_memory memory;
    vdb_memory_init(&heap.plain, NULL);
    const vecdb_allocator allocator = {heap_allocate, heap_reallocate, heap_release, &heap};
    vdb_memory_init(&memory, &allocator);
    vdb_memory_keep_spare(&memory, 4 * BIG);
    for (int round = 0; round < 2; round++) {
        void *first = vdb_alloc(&memory, BIG), *second = vdb_alloc(&memory, BIG);
        char *grown = vdb_alloc(&memory, 100);
        CHECK(first && second && grown);
        memset(grown, 7, 100);
        vdb_free(&memory, first);
        vdb_free(&memory, second);
        CHECK_SIZE(memory.spare_bytes, 2 * (BIG + 16));
        heap.n_refused = 0;
        void *huge = NULL; /* neither fits beside the spare ones */
        if (round)
            grown = vdb_realloc(&memory, grown, 3 * BIG);
        else
            huge = vdb_alloc(&memory, 3 * BIG);
        CHECK((round || huge) && grown && grown[99] == 7);
        CHECK_INT(heap.n_refused, 1);
        CHECK_SIZE(memory.spare_bytes, 0);
        CHECK(!vdb_alloc(&memory, 3 * BIG)); /* and now there is nothing to give back */
        CHECK_INT(heap.n_refused, 2);
        vdb_free(&memory, huge);
        vdb_free(&memory, grown);
        vdb_memory_keep_spare(&memory, 0);
        CHECK_SIZE(vdb_memory_used(&memory), 0);
        CHECK_SIZE(heap.left, 4 * BIG);
        vdb_memory_keep_spare(&memory, 4 * BIG);
    }
    CHECK_SIZE(vdb_memory_used(&heap.plain), 0);
}

TEST(sizes_that_do_not_fit_are_refused)
{
    struct vdb_memory memory;
    vdb_memory_init(&memory, NULL);
    CHECK(!vdb_alloc(&memory, SIZE_MAX));
    CHECK(!vdb_alloc_array(&memory, SIZE_MAX / 4, 8));
    CHECK(!vdb_alloc_array(&memory, (size_t)1 << 33, (size_t)1 << 32));
    CHECK(!vdb_alloc_aligned(&memory, SIZE_MAX - 8));
    char *block = vdb_alloc(&memory, 3);
    CHECK(!vdb_realloc(&memory, block, SIZE_MAX - 8));
    CHECK(!vdb_realloc_array(&memory, block, SIZE_MAX / 2, 3));
    vdb_free(&memory, block);
    CHECK_SIZE(vdb_memory_used(&memory), 0);
}

/* ------------------------------------------------------------------ errors */

TEST(errors_carry_status_sentence_and_the_systems_words)
{
    vecdb_error err = {0};
    CHECK_INT(vdb_fail(&err, VECDB_INVALID, "field %s", "a"), VECDB_INVALID);
    CHECK_STRING(err.message, "field a");
    CHECK_INT(err.status, VECDB_INVALID);
    CHECK_INT(vdb_fail_prefix(&err, VECDB_CORRUPT, "page %d: ", 7), VECDB_CORRUPT);
    CHECK_STRING(err.message, "page 7: field a");
    static const struct {
        int os_error, status;
    } pairs[] = {{ENOSPC, VECDB_FULL},    {EDQUOT, VECDB_FULL},      {EACCES, VECDB_DENIED}, {EPERM, VECDB_DENIED},
                 {EROFS, VECDB_READONLY}, {ENOENT, VECDB_NOT_FOUND}, {ENOMEM, VECDB_NOMEM},  {EIO, VECDB_IO}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        CHECK_INT(vdb_fail_os(&err, pairs[i].os_error, "cannot open"), pairs[i].status);
        CHECK_INT(err.os_error, pairs[i].os_error);
        CHECK_CONTAINS(err.message, "cannot open: ");
        CHECK_INT(vdb_fail_os(NULL, pairs[i].os_error, "cannot open"), pairs[i].status);
    }
    CHECK_INT(vdb_fail_memory(&err, 123), VECDB_NOMEM);
    CHECK_CONTAINS(err.message, "123");
    CHECK_INT(vdb_fail(NULL, VECDB_IO, "nobody listens"), VECDB_IO);
}

TEST(a_sentence_that_is_too_long_is_cut_with_dots)
{
    vecdb_error err;
    char text[4 * sizeof err.message];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    vdb_fail(&err, VECDB_INVALID, "%s", text);
    CHECK_SIZE(strlen(err.message), sizeof err.message - 1);
    CHECK_STRING(err.message + sizeof err.message - 4, "...");
    vdb_fail_prefix(&err, VECDB_INVALID, "first: ");
    CHECK_SIZE(strlen(err.message), sizeof err.message - 1);
    CHECK(!strncmp(err.message, "first: xxx", 10));
    CHECK_STRING(err.message + sizeof err.message - 4, "...");
}

/* ------------------------------------------------------------------ UTF-8 */

static size_t encode(uint32_t point, char *out)
{
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    if (point < 0x800) {
        out[0] = (char)(0xc0 | point >> 6);
        out[1] = (char)(0x80 | (point & 63));
        return 2;
    }
    if (point < 0x10000) {
        out[0] = (char)(0xe0 | point >> 12);
        out[1] = (char)(0x80 | (point >> 6 & 63));
        out[2] = (char)(0x80 | (point & 63));
        return 3;
    }
    out[0] = (char)(0xf0 | point >> 18);
    out[1] = (char)(0x80 | (point >> 12 & 63));
    out[2] = (char)(0x80 | (point >> 6 & 63));
    out[3] = (char)(0x80 | (point & 63));
    return 4;
}

TEST(every_character_is_valid_and_surrogates_and_what_is_above_are_not)
{
    for (uint32_t point = 0; point < 0x120000; point++) {
        char text[8];
        size_t n = encode(point, text);
        bool valid = point < 0x110000 && !(point >= 0xd800 && point < 0xe000);
        CHECK_INT(vdb_utf8_valid(text, n), valid);
        for (size_t cut = 1; cut < n; cut++)
            CHECK_INT(vdb_utf8_valid_prefix(text, cut), 0);
    }
}

TEST(overlong_forms_and_stray_bytes_end_the_valid_prefix)
{
    static const char *const bad[] = {
        "\x80", "\xbf",  "\xc0\xaf",  "\xc1\xbf",         "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xff",
        "\xfe", "\xc3(", "\xe2\x82(", "\xf5\x80\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        for (size_t before = 0; before < 20; before++) { /* at every place of an eight-byte step */
            char text[64];
            memset(text, 'a', sizeof text);
            memcpy(text + before, bad[i], strlen(bad[i]));
            CHECK_SIZE(vdb_utf8_valid_prefix(text, 40), before);
            CHECK(!vdb_utf8_valid(text, 40));
            CHECK(vdb_utf8_valid(text, before));
        }
    CHECK(vdb_utf8_valid("", 0));
    CHECK(vdb_utf8_valid("a\0b", 3));
}

TEST(a_name_that_ends_in_numbers_is_taken_only_as_it_is_written)
{
    static const char *const others[] = {"snapshot-", "snapshot--1", "snapshot-+1", "snapshot- 1", "snapshot-01",
                                         "snapshot-1 ", "snapshot-1-", "snapshot-1-2", "snapshot-1x", "snapshot-0x1",
                                         "snapshot-18446744073709551616", "snapshot-99999999999999999999999",
                                         "snapshot", "snapshots-1", "Snapshot-1", "", "1"};
    uint64_t numbers[2];
    CHECK(vdb_name_numbers("snapshot-0", "snapshot-", numbers, 1) && numbers[0] == 0);
    CHECK(vdb_name_numbers("snapshot-120", "snapshot-", numbers, 1) && numbers[0] == 120);
    CHECK(vdb_name_numbers("snapshot-18446744073709551615", "snapshot-", numbers, 1) && numbers[0] == UINT64_MAX);
    CHECK(vdb_name_numbers("vectors-3-10", "vectors-", numbers, 2) && numbers[0] == 3 && numbers[1] == 10);
    CHECK(!vdb_name_numbers("vectors-3", "vectors-", numbers, 2));
    CHECK(!vdb_name_numbers("vectors-3--1", "vectors-", numbers, 2));
    CHECK(!vdb_name_numbers("vectors-3-1-2", "vectors-", numbers, 2));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (vdb_name_numbers(others[i], "snapshot-", numbers, 1))
            FAIL("\"%s\" was taken for %llu", others[i], (unsigned long long)numbers[0]);
}
