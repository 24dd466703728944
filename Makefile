# SPDX-License-Identifier: Apache-2.0
#
# libvecdb: one Makefile for everything. `make help` lists targets and knobs.

VERSION   := 0.1.0
SOVERSION := 0

# ---------------------------------------------------------------- knobs
CC       ?= cc
AR       ?= ar
PREFIX   ?= /usr/local
DESTDIR  ?=
CFLAGS   ?= -O2 -g
# DEV=1: warnings are errors. SAN=address|thread|undefined|fuzzer: a build of its own under build/.
DEV      ?=
SAN      ?=

# ---------------------------------------------------------------- flags
WARNINGS := -Wall -Wextra -Wshadow -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wwrite-strings
ifeq ($(DEV),1)
WARNINGS += -Werror
endif
STANDARD := -std=c11 -D_GNU_SOURCE -fvisibility=hidden -fPIC -ffp-contract=off -fno-math-errno
INCLUDES := -Iinclude -Ilib -I.
LIBS     := -lsqlite3 -lzstd -lxxhash -lroaring -lpthread -lm

VARIANT := plain
ifneq ($(SAN),)
VARIANT := $(SAN)
ifeq ($(SAN),address)
SANFLAGS := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
else ifeq ($(SAN),fuzzer)
CC := clang-14
SANFLAGS := -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=undefined
else
SANFLAGS := -fsanitize=$(SAN) -fno-omit-frame-pointer
endif
endif
ifneq ($(CROSS),)
CC := $(CROSS)gcc
AR := $(CROSS)ar
VARIANT := $(VARIANT)-$(CROSS:-=)
endif
B := build/$(VARIANT)

ALL_CFLAGS = $(STANDARD) $(CFLAGS) $(WARNINGS) $(SANFLAGS) $(INCLUDES) -MMD -MP
LDFLAGS   += $(SANFLAGS)

# ---------------------------------------------------------------- sources
LIB_SRC  := $(wildcard lib/*.c lib/base/*.c simd/*.c storage/*.c index/*.c)
LIB_OBJ  := $(LIB_SRC:%.c=$B/%.o)
CLI_SRC  := $(wildcard cli/*.c)
CLI_OBJ  := $(CLI_SRC:%.c=$B/%.o)
TEST_SRC := $(wildcard tests/test_*.c)
TESTS    := $(TEST_SRC:%.c=$B/%)
BENCH_SRC := $(wildcard bench/bench_*.c)
BENCHES  := $(BENCH_SRC:%.c=$B/%)

all: $B/libvecdb.a $B/libvecdb.so $B/vecdb-cli

# each instruction set's flags apply to its own object
$B/simd/kernels_avx2.o: private ISA := -mavx2 -mfma -mf16c
$B/simd/kernels_avx512.o: private ISA := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -mf16c
$B/simd/kernels_avx512vnni.o: private ISA := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512bf16 -mavx512vpopcntdq -mavx2 -mfma -mf16c

$B/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(ISA) -c $< -o $@

$B/libvecdb.a: $(LIB_OBJ)
	@rm -f $@
	$(AR) rcs $@ $^

$B/libvecdb.so: $(LIB_OBJ)
	$(CC) -shared -Wl,-soname,libvecdb.so.$(SOVERSION) $(LDFLAGS) $^ $(LIBS) -o $@

$B/vecdb-cli: $(CLI_OBJ) $B/libvecdb.a
	$(CC) $(LDFLAGS) $^ $(LIBS) -ljansson -o $@

$B/tests/test_%: $B/tests/test_%.o $B/tests/harness.o $B/libvecdb.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) $^ $(LIBS) -o $@

$B/bench/bench_%: $B/bench/bench_%.o $B/libvecdb.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) $^ $(LIBS) -o $@

tests: $(TESTS)
benches: $(BENCHES)

clean:
	rm -rf build

.PHONY: all tests benches clean
.SECONDARY:
-include $(shell find build -name '*.d' 2>/dev/null)
