#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# tests/test_harness.sh - the harness sees failures: a test that fails a check, crashes, hangs, or
# leaves with a status is counted as failed and does not keep the others from running; a skipped
# test is counted as such; a seed that is given is the seed that tests get; scratch directories are
# gone afterwards.
set -u
cd "$(dirname "$0")/.." || exit 1
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/tmp"
passed=0 failed=0

check() {
    local what=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "not so: $what"
    fi
}

cat >"$scratch/test_sample.c" <<'END'
#include "harness.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
TEST(a_test_that_passes) { CHECK_INT(2 + 2, 4); }
TEST(b_check_that_fails) { CHECK_INT(2 + 2, 5); }
TEST(c_crash) { abort(); }
TEST(d_hang) { test_time_limit(1); for (;;) pause(); }
TEST(e_skip) { SKIP("for once"); }
TEST(f_exit) { exit(3); }
TEST(g_seed) { CHECK_SIZE(test_seed(), 42); }
TEST(h_scratch)
{
    FILE *file = fopen(test_path("a file"), "w");
    CHECK(file);
    fclose(file);
    CHECK(!access(test_path("a file"), R_OK));
}
END
"${CC:-cc}" -std=c11 -D_GNU_SOURCE -Iinclude -Itests "$scratch/test_sample.c" tests/harness.c \
    -o "$scratch/test_sample" || exit 1

report=$(TMPDIR=$scratch/tmp VECDB_TEST_SEED=42 "$scratch/test_sample" 2>"$scratch/errors")
status=$?
check "the exit status tells of failures" test $status -eq 1
check "the last line counts" test "$(tail -n 1 <<<"$report")" = "3 passed, 4 failed, 1 skipped"
check "values of a failed check are shown" grep -q '2 + 2 == 5: 4 against 5' "$scratch/errors"
check "the seed is shown" grep -q 'VECDB_TEST_SEED=42' "$scratch/errors"
check "the signal is named" grep -q 'c_crash (ended by signal 6' <<<"$report"
check "a hanging test is ended" grep -q 'd_hang (ended by signal 14' <<<"$report"
check "tests are chosen by a part of their name" \
    test "$("$scratch/test_sample" a_test | tail -n 1)" = "1 passed, 0 failed, 0 skipped"
check "scratch directories are gone" test -z "$(ls -A "$scratch/tmp")"

echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
