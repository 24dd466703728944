#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tests/test_golden.py - the second reader (reader.py) finds in golden databases what the library found

The reader is written from storage/FORMAT.md alone; golden files are what an earlier build wrote. So this is the test
that the page, the files and the answers agree.
"""
import glob
import json
import math
import os
import re
import subprocess
import sys
import tarfile
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def format_version():
    with open(os.path.join(HERE, "..", "storage", "connection.h"), encoding="utf-8") as file:
        return int(re.search(r"^#define VDB_FORMAT_VERSION (\d+)", file.read(), re.M).group(1))


def same(a, b):
    return len(a) == len(b) and all(x == y or math.isclose(x, y, rel_tol=1e-8) for x, y in zip(a, b))


def compare(archive):
    """None, or what is different. The database itself; its snapshots are databases of their own."""
    with open(archive.replace(".tar.gz", ".jsonl"), encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    end = next((i for i, line in enumerate(lines) if "snapshot" in line), len(lines))
    wanted = [line["record"] for line in lines[:end] if "record" in line]
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(archive) as tar:
            tar.extractall(scratch)
        (name,) = os.listdir(scratch)
        done = subprocess.run([sys.executable, os.path.join(HERE, "reader.py"), os.path.join(scratch, name)],
                              capture_output=True, text=True)
    if done.returncode:
        return f"exit {done.returncode}: {done.stderr}"
    found = [json.loads(line) for line in done.stdout.splitlines()]
    if len(found) != len(wanted) or not found:
        return f"{len(found)} records, not {len(wanted)}"
    for one, other in zip(found, wanted):
        if (one["collection"], one["key"]) != (other["collection"], other["key"]):
            return f"{one['collection']}, {one['key']!r} in the place of {other['collection']}, {other['key']!r}"
        if one["vectors"].keys() != other["vectors"].keys():
            return f"{one['key']!r}: fields {sorted(one['vectors'])}, not {sorted(other['vectors'])}"
        for field, values in one["vectors"].items():
            if not same(values, other["vectors"][field]):
                return f"{one['key']!r}, {field}: {values}, not {other['vectors'][field]}"
    return None


def main():
    version = format_version()
    archives = []
    for number in range(1 if version else 0, version + 1):
        archives += sorted(glob.glob(os.path.join(HERE, "golden", f"v{number}", "*.tar.gz")))
    failed = 0
    for archive in archives:
        problem = compare(archive)
        failed += problem is not None
        print("ok  " if problem is None else "FAIL", os.path.relpath(archive, HERE), problem or "")
    if not archives:
        print("FAIL there are no golden files: make golden")
        failed = 1
    print(f"{len(archives) - failed if archives else 0} passed, {failed} failed, 0 skipped")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
