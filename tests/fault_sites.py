#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tests/fault_sites.py - which call sites of the library have failed in a test, and which never

    fault_sites.py wanted PROGRAM            the addresses of all places, for VECDB_FAULT_WANTED (see inject.h)
    fault_sites.py told PROGRAM FAILED       FAILED is the file that VECDB_FAULT_SITES named

PROGRAM was built without optimisation, with debugging information.

A site is a place in lib/, storage/ or index/ that asks for something it may not get: memory, a file, a statement of
SQLite's. They are found in the text of the sources; the calls in the program that belong to them, by their lines and
by what they call. A site has failed when such a call was on the stack of one that was made to fail: of an allocation
for a place that asks for memory, of a system call for one that touches files, of either for SQLite's. What never
failed must be in the list of reasons below, and what is in the list must not have failed: then it does not belong
there any more.

The last line is "N passed, N failed, 0 skipped"; every site is a test.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

MEMORY = (
    r"vdb_(?:alloc|alloc_zero|alloc_array|alloc_aligned|realloc|realloc_array|strdup)|vdb_slots_(?:new|copy|read)"
    r"|vdb_graph_(?:alloc|scratch_new)"
)
FILES = (
    r"(?:vfs|inner)->(?:open|size|read|read_many|write|sync|map|remove|kind|make_directory|sync_directory|"
    r"remove_directory|link|rename|list)"
    r"|vdb_lock_file_(?:open|set|test)"
    r"|(?<![\w>.])(?:open|openat|pread|pwrite|fsync|fdatasync|ftruncate|fstat|stat|lstat|unlink|rmdir|mkdir|link|"
    r"rename|renameat2|opendir|readdir|mmap|realpath|readlink|fchmod|fchown)"
)
SQLITE = r"sqlite3_(?:open_v2|prepare_v2|step|exec|backup_init|backup_step|wal_checkpoint_v2|deserialize|serialize)"
KINDS = {"memory": MEMORY, "files": FILES, "SQLite": SQLITE}

NEVER_REMOVED = "SQLite wants the index removed only after a checkpoint at a close, which no connection here may make"

# file, a piece of the line -> why it cannot fail here, or may fail unseen
REASONS: dict[tuple[str, str], str] = {
    ("storage/catalog_open.c", "int step = sqlite3_step(statement)"):
        "the value of a setting is known once its pragma is prepared: the step asks for nothing, the text of it may",
    ("storage/checked_locks.c", "F_UNLCK, PENDING_BYTE"): "a lock that is given back has no failure",
    ("storage/checked_locks.c", "SQLITE_LOCK_RESERVED ?"):
        "SQLite asks only if a rollback journal lies beside the catalog: a power cut while it was made",
    ("storage/checked_locks.c", "if (locks->index_fd >= 0 && remove"): NEVER_REMOVED,
    ("storage/checked_locks.c", "unlink(locks->index_path)"): NEVER_REMOVED,
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


def find_calls(program):
    """Every call of the program in our folders: the address of its last byte -> file, line, what is called."""
    listing = subprocess.run(["objdump", "-d", "--no-show-raw-insn", program], text=True, capture_output=True,
                             check=True).stdout
    called = {}
    call = None
    for line in listing.splitlines():
        match = re.match(r"^ *([0-9a-f]+):\t(.*)", line)
        if not match:
            continue
        if call is not None:
            called[int(match[1], 16) - 1] = call
            call = None
        if match[2].startswith(("call ", "callq ")):
            target = re.search(r"<([^>@]+)", match[2])
            call = target[1] if target else "*"
    run = subprocess.run(["addr2line", "-e", program], input="\n".join(hex(address) for address in called), text=True,
                         capture_output=True, check=True)
    calls = {}
    for address, place in zip(called, run.stdout.splitlines(), strict=True):
        file, _, number = place.split(" ")[0].rpartition(":")
        for folder in ("lib/base/", "lib/", "storage/", "index/"):
            at = file.rfind("/" + folder)
            if number.isdigit() and (at >= 0 or file.startswith(folder)):
                calls[address] = (file[at + 1:], int(number), called[address])
                break
    return calls


def addresses_of(sites, calls):
    """One list for each site: those calls on its lines that are of what it calls."""
    by_line = {}
    for address, (file, line, target) in calls.items():
        by_line.setdefault((file, line), []).append((address, target))
    found = []
    for name, first, last, _, called, _ in sites:
        targets = ("*",) if "->" in called else (called, called + "64")
        for lines in (range(first, last + 1), [last + 1]): # that of a ?: may belong to the line of the :
            own = [address for line in lines for address, target in by_line.get((name, line), []) if target in targets]
            if own:
                break
        found.append(own)
    return found


def reason_for(site):
    name, _, _, _, _, text = site
    if name in FILE_REASONS:
        return FILE_REASONS[name]
    for (file, piece), reason in REASONS.items():
        if file == name and piece in text:
            return reason
    return None


def main():
    command, program = sys.argv[1:3]
    sites = find_sites()
    addresses = addresses_of(sites, find_calls(program))
    if command == "wanted":
        kinds = {address: site[3] for site, own in zip(sites, addresses, strict=True) for address in own}
        for address, kind in sorted(kinds.items()):
            print(kind[0], f"{address:x}")
        return 0
    failed = {int(line.split()[1], 16) for line in pathlib.Path(sys.argv[3]).read_text().splitlines()}
    counts = {kind: [0, 0, 0] for kind in KINDS}
    wrong = []
    for site, own in zip(sites, addresses, strict=True):
        name, first, _, kind, called, text = site
        has_failed = any(address in failed for address in own)
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
