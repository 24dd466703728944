# SPDX-License-Identifier: Apache-2.0
"""tests/script.py - what the tests that are scripts share: where the tool is, and the harness of harness.c in small

A script marks its tests with @test and ends with main(). Each runs in a directory of its own; the last line is
"N passed, N failed, N skipped".
"""
import os
import shutil
import sys
import tempfile
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
CLI = os.path.abspath(os.environ.get("VECDB_CLI", os.path.join(HERE, "..", "build", "plain", "vecdb-cli")))
SLOW = float(os.environ.get("VECDB_TEST_SLOW") or "1")
TESTS = []


def test(function):
    TESTS.append(function)
    return function


def main(prefix, again=""):
    """Run the tests whose names contain one of the words given, or all. `again`: how a failure is repeated."""
    wanted = sys.argv[1:]
    passed = failed = 0
    if not os.access(CLI, os.X_OK):
        print(f"there is no {CLI}; build it, or set VECDB_CLI")
        sys.exit(1)
    for function in TESTS:
        if wanted and not any(word in function.__name__ for word in wanted):
            continue
        directory = tempfile.mkdtemp(prefix=prefix)
        os.chdir(directory)
        try:
            function()
            passed += 1
            print(f"ok   {function.__name__}", flush=True)
        except Exception:  # a failed test is told, and the others go on
            failed += 1
            print(f"FAIL {function.__name__}{again}", flush=True)
            traceback.print_exc(limit=-2, file=sys.stdout)
        finally:
            os.chdir("/")
            shutil.rmtree(directory, ignore_errors=True)
    print(f"{passed} passed, {failed} failed, 0 skipped")
    sys.exit(1 if failed else 0)
