#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tests/fault_sites.py - which call sites of the library have failed in a test, and which never

    fault_sites.py PROGRAM STACKS        PROGRAM was built without optimisation, with debugging information;
                                         STACKS is the file that VECDB_FAULT_SITES named (see inject.h)

A site is a place in lib/, storage/ or index/ that asks for something it may not get: memory, a file, a statement of
SQLite's. They are found in the text of the sources. A site has failed when its line is on the stack of a call that
was made to fail. What never failed must be in the list of reasons below, and what is in the list must not have
failed: then it does not belong there any more.

The last line is "N passed, N failed, 0 skipped"; every site is a test.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

MEMORY = r"vdb_(?:alloc|alloc_zero|alloc_array|alloc_aligned|realloc|realloc_array|strdup)|vdb_slots_(?:new|copy|read)"
FILES = (
    r"(?:vfs|inner)->(?:open|size|read|read_many|write|sync|map|remove|kind|make_directory|sync_directory|"
    r"remove_directory|link|rename|list)"
    r"|vdb_lock_file_(?:open|set|test)"
    r"|(?<![\w>.])(?:open|openat|pread|pwrite|fsync|fdatasync|ftruncate|fstat|stat|lstat|unlink|rmdir|mkdir|link|"
    r"rename|renameat2|opendir|readdir|mmap|realpath|readlink|fchmod|fchown)"
)
SQLITE = r"sqlite3_(?:open_v2|prepare_v2|step|exec|backup_init|backup_step|wal_checkpoint_v2|deserialize|serialize)"
KINDS = {"memory": MEMORY, "files": FILES, "SQLite": SQLITE}

# file, a piece of the line -> why it cannot fail here, or may fail unseen
REASONS: dict[tuple[str, str], str] = {
    ("storage/checked_locks.c", "F_UNLCK, PENDING_BYTE"): "a lock that is given back has no failure",
    ("storage/checked_locks.c", "SQLITE_LOCK_RESERVED ?"):
        "SQLite asks only if a rollback journal lies beside the catalog: a power cut while it was made",
    ("storage/checked_locks.c", "(void)!fchmod"): "what it answers is ignored: the index serves its owner anyway",
    ("storage/checked_locks.c", "(void)!fchown"): "what it answers is ignored: the index serves its owner anyway",
    ("storage/vfs_posix.c", "int os_error = lstat(to"): "only where renameat2 is missing",
    ("storage/vfs_posix.c", "if (!os_error && rename(from, to))"): "only where renameat2 is missing",
    ("storage/state.c", "vdb_strdup(state->memory, \".\", 1)"): "the path of `state` has its directory before it",
    ("storage/vfs_memory.c", "vdb_strdup(base->memory, to"):
        "who renames (repair, restore) works on directories, not on a database in memory",
}
# whole files
FILE_REASONS = {
    "storage/vfs_fault.c": "the seam for tests: it fails itself, and is not linked with in these lives",
}


def sources():
    for folder in ("lib", "lib/base", "storage", "index"):
        yield from sorted((ROOT / folder).glob("*.c"))


def strip(text):
    """Comments and strings become spaces, so that offsets and lines stay."""
    pattern = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def end_of_call(text, at):
    depth = 0
    for i in range(at, len(text)):
        if text[i] == "(":
            depth += 1
        elif text[i] == ")":
            depth -= 1
            if not depth:
                return i
    return at


def find_sites():
    sites = []
    for path in sources():
        name = str(path.relative_to(ROOT))
        if name == "lib/base/memory.c":
            continue
        text = strip(path.read_text())
        for kind, pattern in KINDS.items():
            for match in re.finditer(rf"(?<![\w])(?:{pattern})\s*\(", text):
                line_start = text.rfind("\n", 0, match.start()) + 1
                before = text[line_start:match.start()]
                if not before or re.match(r"^(?:static )?[a-z_]+[ *]+(?:\w+ )?\**$", before) \
                        and not re.match(r"^\s*(?:return|else)", before):
                    continue  # a definition
                first = text.count("\n", 0, match.start()) + 1
                last = text.count("\n", 0, end_of_call(text, match.end() - 1)) + 1
                called = match.group()[:-1].strip()
                sites.append((name, first, last, kind, called, path.read_text().split("\n")[first - 1].strip()))
    return sites


def lines_that_failed(program, stacks):
    addresses = set()
    for line in pathlib.Path(stacks).read_text().splitlines():
        addresses.update(line.split()[1:])
    ordered = sorted(addresses)
    run = subprocess.run(["addr2line", "-i", "-e", program], input="\n".join(ordered), text=True, capture_output=True,
                         check=True)
    failed = set()
    for line in run.stdout.splitlines():
        place = line.split(" ")[0]
        file, _, number = place.rpartition(":")
        if number.isdigit():
            for folder in ("lib/base/", "lib/", "storage/", "index/"):
                at = file.rfind("/" + folder)
                if at >= 0 or file.startswith(folder):
                    failed.add((file[at + 1:], int(number)))
                    break
    return failed


def reason_for(site):
    name, _, _, _, _, text = site
    if name in FILE_REASONS:
        return FILE_REASONS[name]
    for (file, piece), reason in REASONS.items():
        if file == name and piece in text:
            return reason
    return None


def main():
    program, stacks = sys.argv[1:3]
    failed = lines_that_failed(program, stacks)
    counts = {kind: [0, 0, 0] for kind in KINDS}
    wrong = []
    for site in find_sites():
        name, first, last, kind, called, text = site
        has_failed = any((name, line) in failed for line in range(first, last + 1))
        reason = reason_for(site)
        counts[kind][0] += 1
        counts[kind][1] += has_failed
        counts[kind][2] += not has_failed and reason is not None
        if not has_failed and reason is None:
            wrong.append(f"{name}:{first}: {called} never failed: {text}")
    for line in wrong:
        print(line)
    total = 0
    for kind, (n, n_failed, n_excused) in counts.items():
        total += n
        print(f"{kind}: {n} sites, {n_failed} have failed, {n_excused} cannot (reasons are in the script)")
    n_failed = sum(count[1] for count in counts.values())
    n_excused = sum(count[2] for count in counts.values())
    print(f"{total} sites, {n_failed} failed, {n_excused} excused, {len(wrong)} never")
    print(f"{total - len(wrong)} passed, {len(wrong)} failed, 0 skipped")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
