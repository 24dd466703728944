# SPDX-License-Identifier: Apache-2.0
#
# libvecdb: one Makefile for everything. `make help` lists targets and knobs (lines that end in a
# comment of two #). Every build lives in a directory of its own under build/, so that a plain, a
# sanitized and a cross build never mix; objects are rebuilt when the compiler or its flags change.

# The version is written in one place, the public header.
VERSION   := $(shell sed -n 's/^\#define VECDB_VERSION "\(.*\)"/\1/p' include/vecdb.h)
SOVERSION := 0

# ---------------------------------------------------------------- knobs
CC       ?= cc## the compiler
AR       ?= ar## the archiver
CFLAGS   ?= -O2 -g## optimisation and debugging
DEV      ?=## 1: warnings are errors
SAN      ?=## address (with undefined), thread, undefined, or fuzzer (clang-14): an instrumented build
CROSS    ?=## prefix of a cross compiler, such as aarch64-linux-gnu-
CROSS_ROOT ?= $(OUT)/arm64-root## libraries of the processor that CROSS compiles for (make deps-arm64)
OUT      ?= build## where builds go
PREFIX   ?= /usr/local## where install puts things
LIBDIR   ?= $(PREFIX)/lib## libraries and pkgconfig/, below DESTDIR
DESTDIR  ?=## put in front of PREFIX by install and uninstall
JOBS     ?=## test programs that run at once; empty: one a processor
FUZZ_S   ?= 20## seconds for each fuzz target of `make fuzz`
BENCH    ?=## which benchmarks `make bench` runs, such as "kernels flat"; empty: all
V        ?=## 1: print whole commands

# ---------------------------------------------------------------- flags
WARNINGS := -Wall -Wextra -Wshadow -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wwrite-strings
ifeq ($(DEV),1)
WARNINGS += -Werror
endif
# -ffp-contract=off: the same sums on every machine. -fvisibility=hidden: only VECDB_API is exported.
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
else ifneq ($(filter thread undefined,$(SAN)),)
SANFLAGS := -fsanitize=$(SAN) -fno-sanitize-recover=undefined -fno-omit-frame-pointer
else
$(error SAN is address, thread, undefined or fuzzer, not "$(SAN)")
endif
endif
ifneq ($(CROSS),)
CC := $(CROSS)gcc
AR := $(CROSS)ar
VARIANT := $(VARIANT)-$(CROSS:-=)
# The other processor's libraries are found where tests/arm64_root puts them, by the loader too.
CROSS_INCLUDES := -isystem $(CROSS_ROOT)/usr/include
CROSS_LIBS := -L$(CROSS_ROOT)/usr/lib/$(CROSS:-=) -Wl,-rpath,$(abspath $(CROSS_ROOT)/usr/lib/$(CROSS:-=))
endif
B := $(OUT)/$(VARIANT)## the directory of this build; follows from OUT, SAN and CROSS

ALL_CFLAGS  = $(STANDARD) $(CFLAGS) $(WARNINGS) $(SANFLAGS) $(INCLUDES) $(CROSS_INCLUDES) $(CPPFLAGS) -MMD -MP
ALL_LDFLAGS = $(SANFLAGS) $(CROSS_LIBS) $(LDFLAGS)

ifeq ($(V),1)
say = @:
run :=
else
say = @printf '  %-5s %s\n'
run := @
endif

# ---------------------------------------------------------------- sources
LIB_SRC  := $(wildcard lib/*.c lib/base/*.c simd/*.c storage/*.c index/*.c)
LIB_OBJ  := $(LIB_SRC:%.c=$B/%.o)
CLI_SRC  := $(wildcard cli/*.c)
CLI_OBJ  := $(CLI_SRC:%.c=$B/%.o)
TESTS    := $(patsubst %.c,$B/%,$(wildcard tests/test_*.c))
FUZZERS  := $(patsubst %.c,$B/%,$(wildcard tests/fuzz_*.c))
BENCHES  := $(patsubst %.c,$B/%,$(wildcard bench/bench_*.c))
EXAMPLES := $(patsubst %.c,$B/%,$(wildcard examples/*.c))
# what several tests, or several benches, share
# crash_recorder.c and inject.c replace open(), write(), ... of whatever they are linked to
TEST_HELP  := $(patsubst %.c,$B/%.o,$(filter-out tests/test_% tests/fuzz_% tests/make_% tests/harness.c \
    tests/crash_recorder.c tests/inject.c,$(wildcard tests/*.c)))
BENCH_HELP := $(patsubst %.c,$B/%.o,$(filter-out bench/bench_%,$(wildcard bench/*.c)))

.DEFAULT_GOAL := all
all: $B/libvecdb.a $B/libvecdb.so $B/vecdb-cli ## libvecdb.a, libvecdb.so and vecdb-cli (the default)

# Kernels for codes give the same bits on every tier: nothing is fused.
SAME_BITS := -O3 -ffp-contract=off
# Each instruction set's flags apply to its own objects; the files are empty on other processors.
ifneq ($(findstring x86_64,$(shell $(CC) -dumpmachine 2>/dev/null)),)
$B/simd/kernels_avx2.o: private ISA := -O3 -mavx2 -mfma -mf16c
AVX512 := -O3 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -mf16c
$B/simd/kernels_avx512.o: private ISA := $(AVX512)
$B/simd/kernels_avx512vnni.o: private ISA := $(AVX512) -mavx512vnni -mavx512vpopcntdq
$B/simd/kernels_avx512bf16.o: private ISA := $(AVX512) -mavx512bf16
$B/simd/keys_avx512.o: private ISA := $(AVX512)
$B/simd/codes_avx2.o: private ISA := $(SAME_BITS) -mavx2 -mpopcnt
$B/simd/codes_vnni.o: private ISA := $(AVX512) -mavx512vnni -mavx512vpopcntdq $(SAME_BITS)
else
$B/simd/kernels_neon.o: private ISA := -O3
$B/simd/kernels_neondot.o: private ISA := -O3 -march=armv8.2-a+dotprod
$B/simd/codes_neon.o: private ISA := $(SAME_BITS)
$B/simd/codes_neondot.o: private ISA := $(SAME_BITS) -march=armv8.2-a+dotprod
endif
$B/simd/kernels_scalar.o: private ISA := -O3
$B/simd/codes_scalar.o: private ISA := $(SAME_BITS)
# loops over values, which -O2 leaves scalar
$B/lib/validate.o $B/storage/page_encode.o $B/index/codes.o $B/index/rotation.o: private ISA := -O3

# What is fuzzed parses bytes; kernels do not, and clang takes minutes to instrument them.
ifeq ($(SAN),fuzzer)
$B/simd/kernels_%.o $B/simd/codes_%.o: private SANFLAGS :=
endif

# ---------------------------------------------------------------- rules
# A change of the command line changes this file, and so rebuilds the objects.
$B/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(CC) $(ALL_CFLAGS)' | cmp -s - $@ || echo '$(CC) $(ALL_CFLAGS)' > $@

$B/%.o: %.c $B/flags
	@mkdir -p $(@D)
	$(say) CC $<
	$(run)$(CC) $(ALL_CFLAGS) $(ISA) -c $< -o $@

$B/libvecdb.a: $(LIB_OBJ)
	$(say) AR $@
	$(run)rm -f $@ && $(AR) rcs $@ $^

$B/libvecdb.so: $(LIB_OBJ)
	$(say) LD $@
	$(run)$(CC) -shared -Wl,-soname,libvecdb.so.$(SOVERSION) $(if $(SAN),,-Wl,-z,defs) $(ALL_LDFLAGS) $^ $(LIBS) -o $@

# The library is linked in, so that the tool runs from here and anywhere else.
$B/vecdb-cli: $(CLI_OBJ) $B/libvecdb.a
	$(say) LD $@
	$(run)$(CC) $(ALL_LDFLAGS) $^ $(LIBS) -ljansson -o $@

# What several tests share, for each to link what it uses; and the tool's parts, for its tests.
$B/tests/help.a: $(TEST_HELP)
	@mkdir -p $(@D)
	$(run)rm -f $@ && $(AR) rcs $@ $^

$B/cli/parts.a: $(filter-out $B/cli/main.o,$(CLI_OBJ))
	@mkdir -p $(@D)
	$(run)rm -f $@ && $(AR) rcs $@ $^

$B/bench/help.a: $(BENCH_HELP)
	@mkdir -p $(@D)
	$(run)rm -f $@ && $(AR) rcs $@ $^

$B/tests/test_cli_%: $B/tests/test_cli_%.o $B/tests/harness.o $B/tests/help.a $B/cli/parts.a $B/libvecdb.a
	$(say) LD $@
	$(run)$(CC) $(ALL_LDFLAGS) $^ $(LIBS) -ljansson -o $@

$B/tests/test_crash: $B/tests/crash_recorder.o
$B/tests/test_fault_sites: $B/tests/inject.o

$B/tests/test_%: $B/tests/test_%.o $B/tests/harness.o $B/tests/help.a $B/libvecdb.a
	$(say) LD $@
	$(run)$(CC) $(ALL_LDFLAGS) $^ $(LIBS) -o $@

# Writes golden files; not a test itself.
$B/tests/make_%: $B/tests/make_%.o $B/tests/help.a $B/libvecdb.a
	$(say) LD $@
	$(run)$(CC) $(ALL_LDFLAGS) $^ $(LIBS) -o $@

$B/tests/fuzz_cli_%: $B/tests/fuzz_cli_%.o $B/tests/help.a $B/cli/parts.a $B/libvecdb.a
	$(say) LD $@
	$(run)$(CC) $(ALL_LDFLAGS) -fsanitize=fuzzer $^ $(LIBS) -ljansson -o $@

$B/tests/fuzz_%: $B/tests/fuzz_%.o $B/tests/help.a $B/libvecdb.a
	$(say) LD $@
	$(run)$(CC) $(ALL_LDFLAGS) -fsanitize=fuzzer $^ $(LIBS) -o $@

$B/bench/bench_%: $B/bench/bench_%.o $B/bench/help.a $B/libvecdb.a
	$(say) LD $@
	$(run)$(CC) $(ALL_LDFLAGS) $^ $(LIBS) -o $@

$B/examples/%: $B/examples/%.o $B/libvecdb.a
	$(say) LD $@
	$(run)$(CC) $(ALL_LDFLAGS) $^ $(LIBS) -o $@

tests: $(TESTS) $B/tests/make_golden ## build the test programs
fuzzers: $(FUZZERS) ## build the fuzz targets (with SAN=fuzzer)
benches: $(BENCHES) ## build the benchmarks
examples: $(EXAMPLES) ## build the example programs

# ---------------------------------------------------------------- Debian packages
# bookworm has no libroaring.pc and no C API in libfaiss; everything else speaks pkg-config.
DEPS      := gcc libc6-dev pkg-config libsqlite3-dev libzstd-dev libxxhash-dev libroaring-dev libjansson-dev
DEPS_TEST := python3 clang-14 libclang-rt-14-dev zlib1g-dev# zlib: what pkg-config --static names for SQLite
ifneq ($(shell uname -m),aarch64)
DEPS_TEST += gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
endif

# $(call apt_install,PACKAGES): install those that are missing, as root or through sudo.
define apt_install
@if ! command -v apt-get >/dev/null; then echo "no apt-get here; needed: $(1)"; exit 0; fi; \
missing=; for package in $(1); do \
    dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q ' installed$$' || missing="$$missing $$package"; \
done; \
[ -z "$$missing" ] && exit 0; \
as_root=; [ "$$(id -u)" = 0 ] || as_root="sudo"; \
echo "installing$$missing"; \
$$as_root apt-get -q update </dev/null && \
$$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
    install --no-install-recommends $$missing </dev/null
endef

deps: ## install the Debian packages that the build needs
	$(call apt_install,$(DEPS))

deps-test: ## install what the build and the tests need
	$(call apt_install,$(DEPS) $(DEPS_TEST))

# The cross compiler and qemu are packages of this machine; arm64's libraries stay under OUT.
deps-arm64: ## the cross compiler, qemu-user, and Debian's arm64 libraries under OUT (nothing to do on arm64)
ifneq ($(shell uname -m),aarch64)
	$(call apt_install,gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user python3)
	@tests/arm64_root $(CROSS_ROOT)
endif

# ---------------------------------------------------------------- the two commands of the README
# What follows `deps` runs in a make of its own, which sees the compiler that deps has installed.
quickstart: deps ## build, import the collection of examples/quickstart, show answers
	+@$(MAKE) --no-print-directory -j$$(nproc) all
	@examples/quickstart/run $B/vecdb-cli $(OUT)/quickstart.vecdb

RUN_TESTS = OUT='$(OUT)' CC='$(CC)' CFLAGS='$(CFLAGS)' JOBS='$(JOBS)' FUZZ_S='$(FUZZ_S)' tests/run

test: deps-test ## everything: checks, unit tests, sanitizers, fuzzing for a moment, arm64 in part, tool, examples
	@$(RUN_TESTS) all

# ---------------------------------------------------------------- parts of the tests
test-quick: ## the checks and the plain unit tests
	@$(RUN_TESTS) quick
test-asan: ## the unit tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(RUN_TESTS) address
test-tsan: ## the unit tests of what has threads under ThreadSanitizer
	@$(RUN_TESTS) thread
test-arm64: deps-arm64 ## all tests of library and tool built for arm64, under qemu
	@$(RUN_TESTS) arm64
test-neon: deps-arm64 ## a minute's part of them: what depends on the processor
	@$(RUN_TESTS) neon
test-examples: ## install into a scratch directory, build the examples against it, run them
	@$(RUN_TESTS) examples
fuzz: ## every fuzz target for FUZZ_S seconds
	@$(RUN_TESTS) fuzz
SOAK_S ?= 600## how many seconds `make soak` runs
soak: $B/tests/test_soak ## four processes write, eight read, one compacts and makes backups, for SOAK_S seconds
	@VECDB_TEST_ROUNDS=$(SOAK_S) VECDB_TEST_SLOW=10 $B/tests/test_soak
kills: $B/tests/test_kill ## 1,000 kills of writers (kill -9), on the real disk
	@VECDB_TEST_ROUNDS=$${VECDB_TEST_ROUNDS:-334} VECDB_TEST_SLOW=4 $B/tests/test_kill kill
crash: $B/tests/test_crash ## 10,000 simulated power cuts (VECDB_TEST_ROUNDS)
	@VECDB_TEST_ROUNDS=$${VECDB_TEST_ROUNDS:-10000} VECDB_TEST_SLOW=10 $B/tests/test_crash
# Golden files of a version are made once, when it is frozen. GOLDEN=replace is for one that is not yet.
FORMAT := $(shell sed -n 's/^\#define VDB_FORMAT_VERSION //p' storage/connection.h)
golden: $B/tests/make_golden ## databases and answers of this format version, for every later build to read
	@[ ! -e tests/golden/v$(FORMAT) ] || [ "$(GOLDEN)" = replace ] || { echo 'tests/golden/v$(FORMAT) is there, and' \
	    'what was released is never made anew; GOLDEN=replace, if it was not' >&2; exit 1; }
	rm -rf $B/golden && $B/tests/make_golden $B/golden
	mkdir -p tests/golden && rm -rf tests/golden/v$(FORMAT) && mv $B/golden tests/golden/v$(FORMAT)
SITES := build/sites
fault-sites: ## which call sites have failed in test_fault_sites, and which never (minutes)
	+@$(MAKE) --no-print-directory B=$(SITES) CFLAGS='-O0 -g -fno-inline' $(SITES)/tests/test_fault_sites
	@rm -f $(SITES)/failed
	@tests/fault_sites.py wanted $(SITES)/tests/test_fault_sites >$(SITES)/wanted
	@VECDB_TEST_SLOW=$${VECDB_TEST_SLOW:-10} VECDB_FAULT_WANTED=$(CURDIR)/$(SITES)/wanted \
	    VECDB_FAULT_SITES=$(CURDIR)/$(SITES)/failed \
	    $(SITES)/tests/test_fault_sites
	@tests/fault_sites.py told $(SITES)/tests/test_fault_sites $(SITES)/failed
layering: ## who includes whom, by the rule of lib/ARCHITECTURE.md
	@tests/layering
symbols: $B/libvecdb.a $B/libvecdb.so ## that the library exports vecdb_ names only
	@tests/symbols $^
habits: ## license lines, lengths of files and lines, no marks of unfinished work
	@tests/habits
headers: ## that vecdb.h is C11 and C++11, and every header complete in itself
	@CC='$(CC)' tests/headers

BENCHES_RUN = $(if $(BENCH),$(BENCH:%=$B/bench/bench_%),$(BENCHES))
bench: $(BENCHES_RUN) $B/vecdb-cli ## run the benchmarks, one after another (data: ../shared/data or VECDB_DATA)
	@scratch=$$(mktemp -d -p $(OUT)) && trap 'rm -rf "$$scratch"' EXIT && for program in $(BENCHES_RUN); do \
	    echo "== $$program"; \
	    case $$program in *bench_commit | *bench_writers | *bench_open) mkdir -p "$$scratch/files"; set -- "$$scratch/files" ;; \
	    *) set -- ;; esac; \
	    $$program "$$@" || exit 1; \
	done

PEERS := faiss-cpu==1.15.1 sqlite-vec==0.1.9 numpy==2.4.6
bench-peers-flat: $B/vecdb-cli ## exact search beside FAISS and sqlite-vec, from PyPI (needs python3-venv)
	test -x build/peers/bin/python || /usr/bin/python3 -m venv build/peers
	build/peers/bin/pip install -q $(PEERS)
	build/peers/bin/python bench/peers_flat.py --cli $B/vecdb-cli
PEERS_GRAPH := faiss-cpu==1.15.1 usearch==2.26.6 scalable-vs==0.5.0 zvec==0.8.0 lancedb==0.40.0 sqlite-vec==0.1.9 \
    numpy==2.4.6 pybind11==2.13.6 wheel==0.45.1
HNSWLIB := 0.8.0
bench-peers: $B/vecdb-cli $B/bench/bench_search ## graphs beside other engines: JSON, table, bench/recall_qps.svg
	test -x build/peers/bin/python || /usr/bin/python3 -m venv build/peers
	build/peers/bin/pip install -q $(PEERS_GRAPH)
	test -d build/peers/src/hnswlib-$(HNSWLIB) || { mkdir -p build/peers/src && build/peers/bin/pip download -q \
	    --no-deps --no-build-isolation --no-binary :all: -d build/peers/src hnswlib==$(HNSWLIB) && \
	    tar xzf build/peers/src/hnswlib-$(HNSWLIB).tar.gz -C build/peers/src; }
	$(CXX) -O3 -march=native -std=c++17 -pthread -I build/peers/src/hnswlib-$(HNSWLIB) \
	    -o build/peers/peers_hnswlib bench/peers_hnswlib.cpp
	build/peers/bin/python bench/peers_graph.py --vecdb $B --hnswlib-version $(HNSWLIB) $(PEERS_FLAGS)

format: ## lay out the sources with clang-format-14
	clang-format-14 -i $$(git ls-files '*.c' '*.h')
format-check: ## name the sources that `make format` would change
	@clang-format-14 --dry-run $$(git ls-files '*.c' '*.h') 2>&1 | sed -n 's/^\([^ :]*\):.*warning.*/\1/p' | sort | uniq -c

# ---------------------------------------------------------------- install
SHARED := libvecdb.so.$(VERSION)
install: all ## header, libraries, vecdb.pc and vecdb-cli to DESTDIR/PREFIX
	install -d $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(LIBDIR)/pkgconfig
	install -m 644 include/vecdb.h $(DESTDIR)$(PREFIX)/include/vecdb.h
	install -m 644 $B/libvecdb.a $(DESTDIR)$(LIBDIR)/libvecdb.a
	install -m 755 $B/libvecdb.so $(DESTDIR)$(LIBDIR)/$(SHARED)
	ln -sf $(SHARED) $(DESTDIR)$(LIBDIR)/libvecdb.so.$(SOVERSION)
	ln -sf libvecdb.so.$(SOVERSION) $(DESTDIR)$(LIBDIR)/libvecdb.so
	sed 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR)|; s|@VERSION@|$(VERSION)|' lib/vecdb.pc.in \
	    > $(DESTDIR)$(LIBDIR)/pkgconfig/vecdb.pc
	install -m 755 $B/vecdb-cli $(DESTDIR)$(PREFIX)/bin/vecdb-cli

uninstall: ## take away what install put there
	rm -f $(DESTDIR)$(PREFIX)/include/vecdb.h $(DESTDIR)$(PREFIX)/bin/vecdb-cli \
	    $(DESTDIR)$(LIBDIR)/libvecdb.a $(DESTDIR)$(LIBDIR)/libvecdb.so \
	    $(DESTDIR)$(LIBDIR)/libvecdb.so.$(SOVERSION) $(DESTDIR)$(LIBDIR)/$(SHARED) \
	    $(DESTDIR)$(LIBDIR)/pkgconfig/vecdb.pc

clean: ## remove all builds
	rm -rf $(OUT)

help: ## this list
	@echo 'targets'
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' Makefile
	@echo 'knobs (make NAME=value)'
	@awk '/^[A-Z_]+ +[?:]= ?.*## /{split($$0, part, "## "); name = $$1; sub(/^[A-Z_]+ +[?:]= ?/, "", part[1]); \
	    printf "  %-10s %s%s\n", name, part[2], part[1] == "" ? "" : " (" part[1] ")"}' Makefile

.PHONY: all tests fuzzers benches examples deps deps-test deps-arm64 quickstart test test-quick test-asan test-tsan test-arm64 test-neon \
    test-examples fuzz crash soak layering symbols habits headers bench bench-peers bench-peers-flat format format-check install uninstall clean help FORCE
.SECONDARY:
-include $(shell find $B -name '*.d' 2>/dev/null)
