#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tests/test_cli.py - vecdb-cli does what its help says, seen from outside

Each command's way when all is well, and each wrong argument with its sentence and its exit code:
results on stdout only, errors as one line "vecdb-cli: ..." on stderr, 0 done, 1 failed, 2 wrong
usage, 3 damage found. What was imported comes back; what was told as committed survives a kill.

    tests/test_cli.py             all tests, one line each, last line "N passed, N failed, N skipped"
    tests/test_cli.py NAME...     those whose name contains NAME

VECDB_CLI names the program (default: build/plain/vecdb-cli).
"""
import csv
import io
import json
import math
import os
import pty
import random
import shutil
import signal
import struct
import subprocess
import time

from script import CLI, SLOW, main, test

# ------------------------------------------------------------------ running the program


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def json(self):
        return json.loads(self.out)

    def lines(self):
        return [json.loads(line) for line in self.out.splitlines()]


def cli(*words, stdin=b"", env=None):
    """Run to the end; whatever happens, an error is at most one line that begins with the name."""
    done = subprocess.run([CLI, *map(str, words)], input=stdin, capture_output=True, timeout=120 * SLOW,
                          env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})})
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def ok(*words, **how):
    result = cli(*words, **how)
    assert result.code == 0, f"{words}: exit {result.code}: {result.err}"
    return result


def fails(code, part, *words, **how):
    result = cli(*words, **how)
    assert result.code == code, f"{words}: exit {result.code}, not {code}: {result.err}"
    assert part in result.err, f"{words}: {result.err!r} does not contain {part!r}"
    assert result.err.startswith("vecdb-cli: ") and result.err.count("\n") == 1, f"not one sentence: {result.err!r}"
    return result


# ------------------------------------------------------------------ files


def write(path, data):
    with open(path, "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode())
    return path


def write_bin(path, rows, code):
    data = struct.pack("<II", len(rows), len(rows[0]))
    return write(path, data + b"".join(struct.pack(f"<{len(r)}{code}", *r) for r in rows))


def write_vecs(path, rows, code):
    return write(path, b"".join(struct.pack(f"<I{len(r)}{code}", len(r), *r) for r in rows))


def write_npy(path, rows, descr, code):
    head = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({len(rows)}, {len(rows[0])}), }}\n".encode()
    data = b"".join(struct.pack(f"<{len(r)}{code}", *r) for r in rows)
    return write(path, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data)


def write_lines(path, records):
    return write(path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))


def grid(n, d, seed=1):
    """Rows of small whole numbers, so that every file type holds them exactly; none is zero."""
    r = random.Random(seed)
    return [[r.randint(1, 100) for _ in range(d)] for _ in range(n)]


def nearest(rows, query, k):
    return [i for _, i in sorted((sum((a - b) ** 2 for a, b in zip(row, query)), i) for i, row in enumerate(rows))][:k]


def count(db, name):
    return {c["name"]: c["count"] for c in ok("info", db, "--json").json()["collections"]}.get(name)


# ------------------------------------------------------------------ import


@test
def every_file_of_vectors_imports_and_answers_the_same():
    rows = grid(300, 8)
    files = [write_bin("a.fbin", rows, "f"), write_bin("a.f16bin", rows, "e"), write_bin("a.u8bin", rows, "B"),
             write_bin("a.i8bin", rows, "b"), write_vecs("a.fvecs", rows, "f"), write_vecs("a.bvecs", rows, "B"),
             write_npy("f4.npy", rows, "<f4", "f"), write_npy("f2.npy", rows, "<f2", "e"),
             write_npy("f8.npy", rows, "<f8", "d"), write_npy("u1.npy", rows, "|u1", "B"),
             write_npy("i1.npy", rows, "|i1", "b")]
    types = ["f32", "f16", "u8", "i8", "f32", "u8", "f32", "f16", "f32", "u8", "i8"]
    for file, kind in zip(files, types):
        ok("import", "db", file, file, "--metric", "l2")
        answer = ok("query", "db", file, "--queries", file, "--row", 17, "-k", 5, "--json").json()["results"]
        assert [hit["key"] for hit in answer] == nearest(rows, rows[17], 5), file
        assert answer[0]["distance"] == 0
        assert math.isclose(answer[1]["score"], 1 / (1 + answer[1]["distance"]))
    info = {c["name"]: c for c in ok("info", "db", "--json").json()["collections"]}
    for file, kind in zip(files, types):
        field = info[file]["fields"][0]
        assert (info[file]["count"], field["type"], field["metric"], field["dimension"]) == (300, kind, "l2", 8), field


@test
def an_import_tells_each_commit_after_it_was_made():
    file = write_bin("a.fbin", grid(250, 4), "f")
    result = ok("import", "db", "c", file, "--batch", 100, "--json", "--index", "flat", "--no-wait")
    assert result.out == '{"committed": 100}\n{"committed": 200}\n{"committed": 250}\n', result.out
    assert result.err == ""
    assert ok("import", "db", "d", file, "--table").out.startswith("d: 250 rows in ")
    assert ok("import", "db", "e", file, "--limit", 120, "--batch", 50).lines()[-1] == {"committed": 120}
    assert ok("import", "db", "f", file, "--csv").out == "committed\r\n250\r\n"


@test
def an_import_inserts_unless_it_is_told_to_replace():
    file = write_bin("a.fbin", grid(20, 4), "f")
    ok("import", "db", "c", file)
    fails(1, "0", "import", "db", "c", file)
    ok("import", "db", "c", write_bin("b.fbin", grid(30, 4, 2), "f"), "--upsert")
    assert count("db", "c") == 30


@test
def types_metrics_and_compression_of_a_new_field_are_the_users():
    file = write_bin("a.f16bin", grid(50, 16), "e")
    ok("import", "db", "c", file, "--type", "f32", "--metric", "ip", "--compression", "max", "--field", "text/long")
    field = ok("info", "db", "--json").json()["collections"][0]["fields"][0]
    assert (field["name"], field["type"], field["metric"], field["compression"]) == ("text/long", "f32", "ip", "max")
    fails(1, "has metric ip, not l2", "import", "db", "c", file, "--upsert", "--metric", "l2")
    fails(1, "has type f32, not u8", "import", "db", "c", file, "--upsert", "--type", "u8")
    fails(1, 'has no field "b"; it has "text/long"', "import", "db", "c", file, "--field", "b")
    fails(1, "takes 16", "import", "db", "c", write_bin("b.fbin", grid(3, 15), "f"))


@test
def bits_are_packed_in_u8_files_and_numbers_in_json():
    rows = [[i, 255 - i] for i in range(100)]
    file = write_bin("a.u8bin", rows, "B")
    ok("import", "db", "c", file, "--type", "bit")
    field = ok("info", "db", "--json").json()["collections"][0]["fields"][0]
    assert (field["type"], field["dimension"], field["metric"]) == ("bit", 16, "hamming"), field
    record = ok("get", "db", "c", 5, "--vectors", "--json").json()
    assert record["vectors"]["vector"] == [1, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 1, 1, 1], record
    hit = ok("query", "db", "c", "--vector", json.dumps(record["vectors"]["vector"]), "-k", 1, "--json").json()
    assert (hit["results"][0]["key"], hit["results"][0]["distance"]) == (5, 0)
    lines = write_lines("a.jsonl", [{"key": "x", "vector": [1, 0, 1]}, {"key": "y", "vector": [0, 0, 1]}])
    ok("import", "db", "d", lines, "--type", "bit")
    assert ok("get", "db", "d", "x", "--vectors", "--json").json()["vectors"]["vector"] == [1, 0, 1]
    fails(1, "line 1: value 0 is neither 0 nor 1", "import", "db", "d",
          write_lines("b.jsonl", [{"key": "z", "vector": [2, 0, 1]}]))
    ok("export", "db", "c", "out.u8bin")
    with open("out.u8bin", "rb") as one, open(file, "rb") as two:
        assert one.read() == two.read()
    point = ok("eval", "db", "c", "--queries", file, "-k", 3, "--json").json()["points"][0]
    assert point["recall"] == 1


@test
def records_beside_a_file_of_vectors_give_keys_texts_and_metadata():
    rows = grid(3, 4)
    file = write_npy("a.npy", rows, "<f4", "f")
    records = [{"id": "moon/7", "title": "Sails", "year": 2024, "text": "At L1."},
               {"id": 5, "title": "Ærø", "year": 2023, "text": "Second\nline"},
               {"id": "5", "title": "Third", "x": {"deep": [1, 0.10]}}]
    lines = write_lines("r.jsonl", records)
    ok("import", "db", "c", file, "--records", lines, "--key", "id", "--text", "title,text")
    got = ok("get", "db", "c", "moon/7", "--json").json()
    assert got == {"key": "moon/7", "metadata": {"title": "Sails", "year": 2024}, "text": "Sails\nAt L1."}, got
    assert ok("get", "db", "c", 5, "--json").json()["text"] == "Ærø\nSecond\nline"
    got = ok("get", "db", "c", 5, "--text-keys", "--json").json()
    assert got == {"key": "5", "metadata": {"title": "Third", "x": {"deep": [1, 0.1]}}, "text": "Third"}, got
    ok("import", "db", "d", file, "--records", lines)
    got = ok("get", "db", "d", 0, "--json").json()
    assert got == {"key": 0, "metadata": {"id": "moon/7", "title": "Sails", "year": 2024}, "text": "At L1."}, got
    fails(1, "ends after 2 records, but a.npy has more rows", "import", "db", "e", file, "--records",
          write_lines("s.jsonl", records[:2]))
    fails(1, "has more records than the 3 rows", "import", "db", "f", file, "--records",
          write_lines("l.jsonl", records + [{"id": 9}]))
    fails(1, 'line 2: there is no member "n"', "import", "db", "g", file, "--records",
          write_lines("n.jsonl", [{"n": 1}, {"m": 1}]), "--key", "n")


@test
def json_lines_may_have_several_fields_and_lack_some():
    lines = write_lines("a.jsonl", [
        {"key": 1, "vectors": {"text": [1, 2, 3], "image/small": [1, 2]}, "metadata": {"a": "b"}, "text": "t"},
        {"key": "é", "vectors": {"text": [3, 2, 1]}},
        {"key": 2}])
    ok("import", "db", "ünï/cødé", lines, "--metric", "l2")
    info = ok("info", "db", "--json").json()["collections"][0]
    assert info["name"] == "ünï/cødé"
    fields = [(f["name"], f["dimension"], f["vectors"]) for f in info["fields"]]
    assert fields == [("text", 3, 2), ("image/small", 2, 1)], fields
    hits = ok("query", "db", "ünï/cødé", "--vector", "[3,2,1]", "-k", 5, "--json").json()["results"]
    assert [h["key"] for h in hits] == ["é", 1]
    hits = ok("query", "db", "ünï/cødé", "--vector", "[3,2]", "--field", "image/small", "--json").json()["results"]
    assert [h["key"] for h in hits] == [1]
    fails(1, "the vector has 2 values", "import", "db", "ünï/cødé",
          write_lines("b.jsonl", [{"key": 8, "vectors": {"text": [1, 2]}}]))
    fails(1, 'line 1: collection "ünï/cødé" has no field "c"', "import", "db", "ünï/cødé",
          write_lines("c.jsonl", [{"key": 8, "vectors": {"c": [1, 2]}}]))


@test
def csv_imports():
    file = write("a.csv", 'key,title,year,vector,text\r\n'
                 '1,"A ""b"", c",2024,"[1, 2]","two\nlines"\r\n'
                 'x,,,"[2, 1]",\r\n')
    ok("import", "db", "c", file)
    assert ok("get", "db", "c", 1, "--json").json() == {
        "key": 1, "metadata": {"title": 'A "b", c', "year": 2024}, "text": "two\nlines"}
    assert ok("get", "db", "c", "x", "--vectors", "--json").json()["vectors"] == {"vector": [2, 1]}


@test
def stdin_is_a_file_whose_format_is_said():
    rows = grid(50, 4)
    with open(write_bin("a.fbin", rows, "f"), "rb") as file:
        data = file.read()
    ok("import", "db", "c", "-", "--format", "fbin", stdin=data)
    assert count("db", "c") == 50
    ok("import", "db", "d", "-", "--format", "jsonl", stdin=b'{"key": 1, "vector": [1, 2]}\n')
    assert count("db", "d") == 1
    fails(2, "say --format", "import", "db", "e", "-", stdin=data)
    result = fails(1, "stdin is cut short", "import", "db", "f", "-", "--format", "fbin", "--batch", 10, "--json",
                   stdin=data[:-100])
    assert "40 rows before that are stored" in result.err and count("db", "f") == 40, result.err


@test
def a_wrong_file_is_refused_with_its_name_and_leaves_no_database():
    good = write_bin("a.fbin", grid(10, 4), "f")
    with open(good, "rb") as file:
        data = file.read()
    for name, content, part in [
            ("short.fbin", data[:-1], "short.fbin is cut short"), ("long.fbin", data + b"x", "longer than its header"),
            ("empty.fbin", b"", "empty.fbin is empty"), ("tiny.fbin", b"123", "its header alone"),
            ("text.fbin", b"Lorem ipsum dolor sit amet", "values a row"),
            ("text.npy", b"Lorem ipsum", "not a NumPy file"), ("zero.fbin", struct.pack("<II", 0, 4), "0 rows"),
            ("flat.fbin", struct.pack("<II", 4, 0), "0 values a row"),
            ("huge.fbin", struct.pack("<II", 2**32 - 1, 65536), "is cut short"), ("a.bin", data, "say --format"),
            ("odd.fvecs", data[:-1], "row"), ("a.jsonl", b"{]", "line 1: not valid JSON"),
            ("b.jsonl", b"\n\n", "has no records"), ("deep.jsonl", b'{"a":' + b"[" * 99999, "line 1: not valid JSON"),
            ("a.csv", b"key\n1,2\n", "line 2 has 2 cells"), ("a.ibin", data, "32-bit integers")]:
        fails(1, part, "import", "db", "c", write(name, content))
        assert not os.path.exists("db"), name
    os.mkdir("dir.fbin")
    fails(1, "dir.fbin is a directory", "import", "db", "c", "dir.fbin")
    fails(1, "cannot open none.fbin", "import", "db", "c", "none.fbin")
    assert not os.path.exists("db")


@test
def wrong_values_are_refused_and_what_was_committed_before_stays():
    rows = [[float(i + 1), 1.0] for i in range(30)]
    for bad, metric, part in [(math.nan, "l2", ""), (math.inf, "l2", ""), (0.0, "cosine", "")]:
        broken = [list(r) for r in rows]
        broken[25] = [bad, 0.0]
        name = f"c{bad}"
        result = fails(1, part, "import", "db", name, write_bin("a.fbin", broken, "f"), "--batch", 10,
                       "--metric", metric)
        assert "20 rows before that are stored" in result.err, result.err
        assert count("db", name) == 20
    lines = write_lines("a.jsonl", [{"key": i, "vector": [1, 2] + [3] * (i == 10)} for i in range(11)])
    result = fails(1, "line 11: the vector has 3 values", "import", "db", "d", lines, "--batch", 5)
    assert "10 rows before that are stored" in result.err
    vecs = write_vecs("a.fvecs", [[1, 2]] * 5 + [[1, 2, 3]], "f")
    fails(1, "whole number of rows", "import", "db", "e", vecs)
    vecs = write_vecs("b.fvecs", [[1, 2]] * 5 + [[1, 2, 3], [1]], "f")
    fails(1, "row 5 has 3 values", "import", "db", "e", vecs)
    fails(1, "", "import", "db", "f", write_bin("f.fbin", [[0.5]], "f"), "--type", "u8")


@test
def little_memory_is_enough():
    file = write_bin("a.fbin", grid(2000, 64), "f")
    result = ok("import", "db", "c", file, "--memory", "1M", "--json")
    assert len(result.lines()) > 2 and count("db", "c") == 2000
    ok("import", "db", "d", file, "--memory", "1M", "--batch", 100000)
    long = json.dumps({"key": 1, "vector": [1.5], "text": "x" * 3000000})
    fails(1, "line 1 is longer than 131072 bytes", "import", "db", "e", "-", "--format", "jsonl", "--memory", "1M",
          stdin=long.encode())
    ok("import", "db", "e", "-", "--format", "jsonl", stdin=long.encode())


# ------------------------------------------------------------------ interruption


def endless(rows=2000):
    """A file large enough that an import of single rows does not end before it is stopped."""
    return write_bin("big.u8bin", grid(rows, 16), "B")


@test
def ctrl_c_ends_an_import_after_a_commit_and_says_how_far_it_came():
    for number in (signal.SIGINT, signal.SIGTERM):
        shutil.rmtree("db", ignore_errors=True)
        child = subprocess.Popen([CLI, "import", "db", "c", endless(200000), "--batch", "1", "--json"],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        seen = [child.stdout.readline() for _ in range(5)]
        child.send_signal(number)
        out, err = child.communicate(timeout=60 * SLOW)
        told = json.loads((seen + out.splitlines())[-1])["committed"]
        assert child.returncode == 1, (child.returncode, err)
        assert err.decode() == f"vecdb-cli: interrupted; {told:,} rows are stored\n", err
        assert count("db", "c") == told


@test
def ctrl_c_ends_an_import_that_waits_for_stdin():
    child = subprocess.Popen([CLI, "import", "db", "c", "-", "--format", "jsonl", "--batch", "2", "--json"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    child.stdin.write(b'{"key": 1, "vector": [1]}\n{"key": 2, "vector": [2]}\n{"key": 3, "vector": [2]}\n')
    child.stdin.flush()
    assert json.loads(child.stdout.readline()) == {"committed": 2}
    time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    code = child.wait(timeout=60 * SLOW)
    assert (code, child.stderr.read()) == (1, b"vecdb-cli: interrupted; 2 rows are stored\n")
    for stream in (child.stdin, child.stdout, child.stderr):
        stream.close()


@test
def a_kill_loses_nothing_that_was_told_as_committed():
    file = endless(100000)
    for turn in range(5):
        shutil.rmtree("db", ignore_errors=True)
        child = subprocess.Popen([CLI, "import", "db", "c", file, "--batch", "10", "--json"], stdout=subprocess.PIPE)
        for _ in range(3 + 7 * turn):
            child.stdout.readline()
        child.kill()
        rest = child.stdout.read()
        child.wait()
        child.stdout.close()
        lines = [line for line in rest.split(b"\n")[:-1] if line]
        told = json.loads(lines[-1])["committed"] if lines else (3 + 7 * turn) * 10
        stored = count("db", "c")
        assert stored >= told and stored % 10 == 0, (stored, told)
        assert ok("check", "db", "--json").json() == {"problems": [], "count": 0}


@test
def a_reader_that_goes_away_ends_the_program_quietly():
    ok("import", "db", "c", endless(20000))
    child = subprocess.Popen([CLI, "scan", "db", "c", "--vectors"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    child.stdout.readline()
    child.stdout.close()
    err = child.stderr.read()
    child.stderr.close()
    assert child.wait(timeout=60 * SLOW) in (-signal.SIGPIPE, 1) and err == b"", err


@test
def a_full_disk_under_the_output_is_told():
    if not os.path.exists("/dev/full"):
        return
    ok("import", "db", "c", endless(2000))
    with open("/dev/full", "wb") as full:
        done = subprocess.run([CLI, "scan", "db", "c"], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1 and done.stderr.startswith(b"vecdb-cli: cannot write"), done


# ------------------------------------------------------------------ query


def small():
    rows = grid(40, 4)
    records = [{"key": f"k{i}" if i % 2 else i, "vector": row, "metadata": {"year": 2000 + i, "title": f"Tïtle {i}"},
                "text": f"text {i}"} for i, row in enumerate(rows)]
    ok("import", "db", "c", write_lines("small.jsonl", records), "--metric", "l2")
    return rows, [r["key"] for r in records]


@test
def a_query_by_vector_by_row_and_by_key_find_the_nearest():
    rows, keys = small()
    expected = [keys[i] for i in nearest(rows, rows[8], 6)]
    by_vector = ok("query", "db", "c", "--vector", json.dumps(rows[8]), "-k", 6, "--json").json()["results"]
    assert [h["key"] for h in by_vector] == expected
    assert by_vector[0] == {"key": 8, "distance": 0, "score": 1, "metadata": {"year": 2008, "title": "Tïtle 8"},
                            "text": "text 8"}, by_vector[0]
    file = write_bin("q.fbin", rows, "f")
    by_row = ok("query", "db", "c", "--queries", file, "--row", 8, "--k=6", "--exact", "--json").json()["results"]
    assert by_row == by_vector
    like = ok("query", "db", "c", "--like", 8, "-k5", "--json").json()["results"]
    assert like == by_vector[1:], like
    like = ok("query", "db", "c", "--like", 8, "-k", 2, "--offset", 2, "--json").json()["results"]
    assert like == by_vector[3:5]
    some = ok("query", "db", "c", "--vector", json.dumps(rows[8]), "-k", 2, "--offset", 3, "--keys-only", "--json")
    assert [list(h) for h in some.json()["results"]] == [["key", "distance", "score"]] * 2
    assert [h["key"] for h in some.json()["results"]] == expected[3:5]
    assert len(ok("query", "db", "c", "--like", "k7", "-k", 1000).lines()) == 39


@test
def a_query_prints_tables_lines_and_csv():
    small()
    lines = ok("query", "db", "c", "--like", 8, "-k", 3).lines()
    assert len(lines) == 3 and lines[0]["metadata"]["year"] >= 2000
    table = ok("query", "db", "c", "--like", 8, "-k", 3, "--table").out.splitlines()
    assert table[0].split() == ["key", "score", "distance", "year", "title", "text"], table[0]
    assert len(table) == 4 and "Tïtle" in table[1]
    cells = list(csv.reader(io.StringIO(ok("query", "db", "c", "--like", 8, "-k", 3, "--csv").out)))
    assert cells[0] == ["key", "score", "distance", "metadata", "text"] and len(cells) == 4
    assert json.loads(cells[1][3])["year"] == lines[0]["metadata"]["year"]
    narrow = ok("query", "db", "c", "--like", 8, "-k", 3, "--table", env={"COLUMNS": "40"}).out
    assert max(map(len, narrow.splitlines())) <= 60
    explain = ok("query", "db", "c", "--like", 8, "--json", "--explain").json()["explain"]
    assert explain["plan"] == "flat" and explain["distances"] >= 40, explain
    assert "plan       flat" in ok("query", "db", "c", "--like", 8, "--table", "--explain").out
    with_vectors = ok("query", "db", "c", "--like", 8, "-k", 1, "--vectors", "--json").json()["results"][0]
    assert len(with_vectors["vectors"]["vector"]) == 4


@test
def a_table_is_for_terminals_and_cannot_command_them():
    ok("import", "db", "c", write_lines("a.jsonl", [{"key": "a", "vector": [1], "text": "\x1b[31mred\x07"}]))
    out = ok("query", "db", "c", "--vector", "[1]", "--table").out
    assert "\x1b" not in out and "\x07" not in out and "[31mred" in out
    master, slave = pty.openpty()
    child = subprocess.Popen([CLI, "query", "db", "c", "--vector", "[1]"], stdout=slave, stderr=slave)
    os.close(slave)
    child.wait(timeout=60 * SLOW)
    shown = os.read(master, 4096).decode()
    os.close(master)
    assert shown.split()[:3] == ["key", "score", "distance"], shown


@test
def a_wrong_query_is_refused_with_a_sentence():
    small()
    fails(2, "--k takes a whole number from 1 to 1,048,576, not \"0\"", "query", "db", "c", "--like", 8, "-k", 0)
    fails(2, "not \"2147483647\"", "query", "db", "c", "--like", 8, "-k", 2**31 - 1)
    fails(2, "not \"-1\"", "query", "db", "c", "--like", 8, "-k", -1)
    fails(2, "takes one of", "query", "db", "c")
    fails(2, "takes one of", "query", "db", "c", "--like", 8, "--vector", "[1]")
    fails(2, "needs --row", "query", "db", "c", "--queries", "small.fbin")
    fails(2, "goes with --queries", "query", "db", "c", "--like", 8, "--row", 1)
    fails(1, "--vector has 3 values", "query", "db", "c", "--vector", "[1,2,3]")
    fails(1, "--vector is not valid JSON", "query", "db", "c", "--vector", "[1,2,")
    fails(1, "--vector: value 1 is not a number", "query", "db", "c", "--vector", '[1,"2",3,4]')
    fails(1, "--vector is not an array", "query", "db", "c", "--vector", "{}")
    fails(1, "no record with the key 99", "query", "db", "c", "--like", 99)
    fails(1, 'no record with the key "8"', "query", "db", "c", "--like", 8, "--text-keys")
    fails(1, 'has no field "x"', "query", "db", "c", "--like", 8, "--field", "x")
    fails(1, "there is no row 40", "query", "db", "c", "--queries", write_bin("q.fbin", grid(40, 4), "f"), "--row", 40)
    fails(1, "a row has 5 values", "query", "db", "c", "--queries", write_bin("w.fbin", grid(4, 5), "f"), "--row", 0)
    fails(1, "nope", "query", "db", "nope", "--like", 8)
    fails(1, "none.vecdb", "query", "none.vecdb", "c", "--like", 8)
    fails(2, "one of --recall R, --ef N and --exact", "query", "db", "c", "--like", 8, "--recall", "0.9", "--ef", 10)
    fails(2, "--recall", "query", "db", "c", "--like", 8, "--recall", "1.5")
    for option in (["--text", "words"], ["--filter", "a=1"], ["--nprobe=3"]):
        part = option[0].split("=")[0] + " is not available in this version"
        fails(2, part, "query", "db", "c", "--like", 8, *option)
    ok("import", "db", "cosine", write_bin("q.fbin", grid(9, 4), "f"))
    fails(1, "", "query", "db", "cosine", "--vector", "[0,0,0,0]")


# ------------------------------------------------------------------ eval


@test
def eval_measures_recall_against_a_truth_file_and_against_an_exact_search():
    rows, queries = grid(500, 8), grid(30, 8, 7)
    ok("import", "db", "c", write_bin("a.u8bin", rows, "B"), "--metric", "l2")
    file = write_bin("q.u8bin", queries, "B")
    truth = [nearest(rows, q, 20) for q in queries]
    for words in ([], ["--truth", write_bin("t.ibin", truth, "i")], ["--truth", write_vecs("t.ivecs", truth, "i")],
                  ["--exact"], ["--batch", 7]):
        point = ok("eval", "db", "c", "--queries", file, "-k", 10, *words, "--json").json()["points"]
        assert len(point) == 1 and point[0]["recall"] == 1 and point[0]["ef"] == 0, point
        assert point[0]["qps"] > 0 and 0 < point[0]["p50_us"] <= point[0]["p99_us"]
    wrong = [[t[19], *t[10:19]] + t[:10] for t in truth]
    far = write_bin("w.ibin", [w[:10] for w in wrong], "i")
    recall = ok("eval", "db", "c", "--queries", file, "-k", 10, "--truth", far, "--json").json()["points"][0]["recall"]
    assert recall == 1, "all that is found is nearer than the tenth of a list that is too far"
    shifted = [[(i + 250) % 500 for i in t] for t in truth]
    near = [s[:9] + [t[0]] for s, t in zip(shifted, truth)]
    recall = ok("eval", "db", "c", "--queries", file, "-k", 10, "--truth", write_bin("s.ibin", near, "i"),
                "--json").json()["points"][0]["recall"]
    assert 0.1 <= recall <= 0.3, recall
    assert "recall" in ok("eval", "db", "c", "--queries", file, "--table").out
    assert ok("eval", "db", "c", "--queries", file, "--limit", 5).lines()[0]["queries"] == 5


@test
def neighbours_as_near_as_the_last_true_one_count_as_hits():
    ok("import", "db", "c", write_bin("a.fbin", [[1, 0], [0, 1], [-1, 0], [0, -1]], "f"), "--metric", "l2")
    file = write_bin("q.fbin", [[0, 0]], "f")
    for truth in ([3], [2], [1], [0]):
        names = write_bin("t.ibin", [truth], "i")
        point = ok("eval", "db", "c", "--queries", file, "-k", 1, "--truth", names, "--json").json()["points"][0]
        assert point["recall"] == 1, point


@test
def a_wrong_eval_is_refused_with_a_sentence():
    ok("import", "db", "c", write_bin("a.fbin", grid(20, 4), "f"))
    file = write_bin("q.fbin", grid(5, 4, 3), "f")
    fails(2, "needs --queries", "eval", "db", "c", "-k", 3)
    fails(1, "too few for -k 3", "eval", "db", "c", "--queries", file, "-k", 3, "--truth",
          write_bin("t.ibin", [[1, 2]] * 5, "i"))
    fails(1, "has 4 rows, but there are 5 queries", "eval", "db", "c", "--queries", file, "-k", 2, "--truth",
          write_bin("t.ibin", [[1, 2]] * 4, "i"))
    fails(1, "names record 77", "eval", "db", "c", "--queries", file, "-k", 2, "--truth",
          write_bin("t.ibin", [[1, 77]] * 5, "i"))
    fails(1, "holds f32 values", "eval", "db", "c", "--queries", file, "-k", 2, "--truth", file)
    fails(1, "a row has 3 values", "eval", "db", "c", "--queries", write_bin("w.fbin", grid(5, 3), "f"))
    fails(2, "--ef takes a whole number", "eval", "db", "c", "--queries", file, "--ef", "10,20")
    fails(2, "one of --recall R, --ef N and --exact", "eval", "db", "c", "--queries", file, "--ef", 10, "--exact")
    for option in (["--nprobe", "4"], ["--filter", "x"]):
        fails(2, "is not available in this version", "eval", "db", "c", "--queries", file, *option)


@test
def an_import_waits_for_the_index_and_eval_searches_it():
    rows = grid(12000, 16)
    ok("import", "db", "c", write_bin("a.fbin", rows, "f"), "--metric", "l2")
    assert [name for name in os.listdir("db") if name.startswith("index-")]
    file = write_bin("q.fbin", rows[:50], "f")
    for words in ([], ["--recall", "0.99"], ["--ef", 80]):
        point = ok("eval", "db", "c", "--queries", file, "-k", 5, *words, "--json").json()["points"][0]
        assert point["plan"] == "hnsw" and point["coverage"] == 1 and point["ef"] > 0 and point["recall"] > 0.8, point
    point = ok("eval", "db", "c", "--queries", file, "-k", 5, "--exact", "--json").json()["points"][0]
    assert point["plan"] == "flat" and point["recall"] == 1, point
    ok("import", "flat", "c", write_bin("a.fbin", rows, "f"), "--metric", "l2", "--index", "flat")
    assert not [name for name in os.listdir("flat") if name.startswith("index-")]


# ------------------------------------------------------------------ recall


@test
def recall_measures_searches_for_stored_vectors_and_leaves_each_out_of_its_own_answer():
    rows = grid(700, 8)
    ok("import", "db", "c", write_bin("a.u8bin", rows, "B"), "--metric", "l2", "--index", "flat")
    for words in ([], ["--recall", "0.9"], ["--recall", ".99"], ["--ef", 40], ["--recall", 1]):
        point = ok("recall", "db", "c", "-k", 5, "--samples", 60, *words, "--json").json()["points"][0]
        assert point["recall"] == 1 and point["plan"] == "flat" and point["ef"] == 0 and point["k"] == 5, point
        assert point["queries"] == 60 and point["stored"] and point["qps"] > 0
        assert 0 < point["p50_us"] <= point["p99_us"]
        assert ("asked" in point) == ("--ef" not in words)
    assert ok("recall", "db", "c").lines()[0]["queries"] == 500
    assert ok("recall", "db", "c", "--samples", 9999).lines()[0]["queries"] == 700
    assert "recall" in ok("recall", "db", "c", "--table").out
    assert ok("recall", "db", "c", "--csv").out.startswith("plan,asked,recall,ef,k,")


@test
def recall_takes_queries_from_a_file_and_records_with_any_keys():
    records = [{"key": f"n{i}", "vector": row} if i % 3 else {"key": f"n{i}"} for i, row in enumerate(grid(90, 4))]
    ok("import", "db", "c", write_lines("a.jsonl", records), "--metric", "l2")
    point = ok("recall", "db", "c", "-k", 80, "--json").json()["points"][0]
    assert point["queries"] == 60 and point["recall"] == 1, "a third has no vector"
    queries = write_bin("q.fbin", grid(12, 4, 5), "f")
    point = ok("recall", "db", "c", "--queries", queries, "-k", 3, "--json").json()["points"][0]
    assert point["queries"] == 12 and point["recall"] == 1 and not point["stored"], point
    assert ok("recall", "db", "c", "--queries", queries, "--samples", 5).lines()[0]["queries"] == 5
    copies = write_bin("same.fbin", [[1, 2]] * 40, "f")
    ok("import", "db", "same", copies, "--metric", "l2")
    assert ok("recall", "db", "same", "-k", 5).lines()[0]["recall"] == 1, "one copy is as good as another"


@test
def a_wrong_recall_is_refused_with_a_sentence():
    ok("import", "db", "c", write_bin("a.fbin", grid(20, 4), "f"))
    fails(2, "one of --recall R and --ef N", "recall", "db", "c", "--recall", "0.9", "--ef", 10)
    for share in ("0", "1.01", "-1", "x", "", "nan", "0x1", "1e-3", "."):
        fails(2, "--recall takes a share", "recall", "db", "c", f"--recall={share}")
    fails(2, "--ef takes a whole number", "recall", "db", "c", "--ef", "0")
    fails(1, "no field", "recall", "db", "c", "--field", "other")
    fails(1, "a row has 3 values", "recall", "db", "c", "--queries", write_bin("w.fbin", grid(5, 3), "f"))
    ok("delete", "db", "c", *range(20))
    fails(1, "has a vector in field", "recall", "db", "c")


# ------------------------------------------------------------------ get, delete, scan


@test
def get_prints_records_and_says_which_are_missing():
    rows, _ = small()
    assert ok("get", "db", "c", 4, "--json").json() == {
        "key": 4, "metadata": {"year": 2004, "title": "Tïtle 4"}, "text": "text 4"}
    assert ok("get", "db", "c", 4, "--vectors", "--json").json()["vectors"] == {"vector": rows[4]}
    assert [r["key"] for r in ok("get", "db", "c", "k3", 4).lines()] == ["k3", 4]
    assert [r["key"] for r in ok("get", "db", "c", "k3", 4, "--json").json()["records"]] == ["k3", 4]
    assert "  key       k3\n  metadata  {" in ok("get", "db", "c", "k3", "--table").out
    assert ok("get", "db", "c", "k3", "--csv").out.splitlines()[0] == "key,metadata,text"
    result = fails(1, 'no record with the key "x\\y"', "get", "db", "c", 4, "x\\y")
    assert json.loads(result.out)["key"] == 4
    fails(1, 'no record with the key -5, nor with 2 others', "get", "db", "c", -5, "b", "c")
    fails(2, "which record?", "get", "db", "c")
    fails(1, "a key is empty", "get", "db", "c", "")


@test
def delete_removes_by_keys_and_by_a_file_of_keys():
    small()
    assert ok("delete", "db", "c", 4, "k3", "nobody", "--json").json() == {"deleted": 2}
    assert count("db", "c") == 38
    write("keys", "6\r\nk5\n\nnobody\n8")
    assert ok("delete", "db", "c", "--keys-file", "keys").lines() == [{"deleted": 3}]
    assert ok("delete", "db", "c", 10, "--keys-file", "-", "--table", stdin=b"k7\n").out == "2 records deleted\n"
    assert ok("delete", "db", "c", 10, "--text-keys").lines() == [{"deleted": 0}]
    assert count("db", "c") == 33
    fails(1, "cannot open none", "delete", "db", "c", "--keys-file", "none")
    fails(2, "which records?", "delete", "db", "c")
    fails(2, "--filter is not available", "delete", "db", "c", "--filter", "a = 1")
    fails(1, "none.vecdb", "delete", "none.vecdb", "c", 1)


@test
def scan_walks_in_key_order_from_any_key_on():
    small()
    keys = [r["key"] for r in ok("scan", "db", "c").lines()]
    texts = sorted((f"k{i}" for i in range(1, 40, 2)), key=str.encode)
    assert keys == list(range(0, 40, 2)) + texts
    assert [r["key"] for r in ok("scan", "db", "c", "--after", 36, "--limit", 3).lines()] == [38, "k1", "k11"]
    assert ok("scan", "db", "c", "--after", 36, "--limit", 1, "--text-keys").lines()[0]["key"] == "k1"
    assert [r["key"] for r in ok("scan", "db", "c", "--json").json()["records"]] == keys
    assert ok("scan", "db", "c", "--limit", 1, "--keys-only").lines() == [{"key": 0}]
    assert len(ok("scan", "db", "c", "--table").out.splitlines()) == 41
    cells = list(csv.reader(io.StringIO(ok("scan", "db", "c", "--csv").out)))
    assert len(cells) == 41 and cells[1][0] == "0"


# ------------------------------------------------------------------ info, check, compact


@test
def info_describes_every_collection():
    small()
    ok("import", "db", "b", write_bin("a.u8bin", grid(100, 12), "B"))
    info = ok("info", "db", "--json").json()
    assert [(c["name"], c["count"]) for c in info["collections"]] == [("b", 100), ("c", 40)]
    assert info["database"]["catalog_bytes"] > 0 and info["database"]["simd"]
    assert [c["name"] for c in ok("info", "db").lines()] == ["b", "c"]
    table = ok("info", "db", "--table", env={"COLUMNS": "200"}).out
    assert "cosine" in table and "l2" in table and "u8" in table
    cells = list(csv.reader(io.StringIO(ok("info", "db", "--csv").out)))
    assert cells[0][:2] == ["collection", "records"] and cells[1][:2] == ["b", "100"]
    fails(1, "none.vecdb", "info", "none.vecdb")
    write("file", "hello")
    fails(1, "file", "info", "file")


@test
def check_finds_damage_and_says_so_with_its_exit_code():
    ok("import", "db", "c", write_bin("a.fbin", grid(3000, 16), "f"), "--compression", "none")
    ok("compact", "db")
    assert ok("check", "db", "--table").out == "db: no damage\n"
    assert ok("check", "db", "--json").json() == {"problems": [], "count": 0}
    files = [f for f in os.listdir("db") if f.startswith("vectors")]
    assert files, os.listdir("db")
    path = os.path.join("db", files[0])
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    result = cli("check", "db", "--json")
    assert result.code == 3, (result.code, result.err)
    assert result.json()["count"] >= 1 and files[0] in result.json()["problems"][0]["file"], result.out
    result = cli("check", "db", "--table")
    assert result.code == 3 and "found" in result.out.splitlines()[-1], result.out
    result = cli("query", "db", "c", "--like", 7, "--exact")
    assert result.code == 3 and files[0] in result.err, (result.code, result.err)


@test
def repair_lists_what_is_lost_and_keeps_the_damaged_database():
    records = [{"key": f"moon-{i}", "text": "what is on moon %d " % i * 20, "vector": [i, 1.0]} for i in range(300)]
    ok("import", "db", "notes", write_lines("notes.jsonl", records))
    ok("compact", "db")
    assert ok("repair", "db", "--json").json() == {"problems": [], "lost": 0}
    assert ok("repair", "db", "--table").out == "db: nothing is wrong\n"
    with open("db/state", "r+b") as file:
        file.seek(20)
        file.write(b"xyz")
    result = ok("repair", "db", "--json").json()
    assert result["lost"] == 0 and [p["kind"] for p in result["problems"]] == ["healed"], result
    catalog = bytearray(open("db/catalog.sqlite", "rb").read())
    leaves = (at for at in range(0, len(catalog), 4096) if catalog[at] == 13)
    page = next(at for at in leaves if b"what is on moon 7 " in catalog[at:at + 4096]) // 4096
    catalog[page * 4096:page * 4096 + 4096] = bytes(4096)
    with open("db/catalog.sqlite", "wb") as file:
        file.write(catalog)
    done = cli("repair", "db", "--json")
    result = done.json()
    assert done.code == 3 and result["lost"] > 0, (done.code, done.out, done.err)
    lost = [p for p in result["problems"] if p["kind"] == "lost"]
    assert len(lost) == result["lost"] and lost[0]["collection"] == "notes", result
    assert "moon-7" in str(lost) or " to " in str(lost), lost
    assert result["problems"][-1]["message"].endswith(".damaged-1"), result
    assert open("db.damaged-1/catalog.sqlite", "rb").read() == catalog
    ok("check", "db")
    assert count("db", "notes") == 300
    assert ok("repair", "db", "--table").out == "db: nothing is wrong\n"
    fails(1, "no vecdb database", "repair", "none")


@test
def compact_gives_space_back():
    ok("import", "db", "c", write_bin("a.fbin", grid(5000, 64), "f"), "--compression", "none")
    ok("compact", "db")
    write("keys", "\n".join(map(str, range(4500))))
    assert ok("delete", "db", "c", "--keys-file", "keys").lines() == [{"deleted": 4500}]
    sizes = ok("compact", "db", "--json").json()
    assert sizes["bytes_after"] < sizes["bytes_before"], sizes
    assert count("db", "c") == 500 and ok("check", "db").code == 0
    assert " before, " in ok("compact", "db", "--table").out


# ------------------------------------------------------------------ backups and snapshots


@test
def a_backup_is_a_database_and_is_restored():
    small()
    assert ok("backup", "db", "copy").lines() == [{"from": "db", "to": "copy"}]
    assert ok("backup", "db", "linked", "--link", "--table").out == "db is backed up in linked\n"
    ok("delete", "db", "c", 2, 4)
    assert [count(d, "c") for d in ("db", "copy", "linked")] == [38, 40, 40]
    assert ok("check", "copy").code == 0 and ok("check", "linked").code == 0
    assert ok("restore", "copy", "db", "--csv").out == "from,to\r\ncopy,db\r\n"
    assert count("db", "c") == 40 and count("db.replaced-1", "c") == 38
    ok("restore", "linked", "new")
    assert count("new", "c") == 40
    fails(1, "already", "backup", "db", "copy")
    fails(1, "elsewhere", "backup", "db", "db/inside")
    fails(1, "none", "backup", "none", "b")
    fails(1, "none", "restore", "none", "db")
    fails(2, "too few", "backup", "db")
    assert not os.path.exists("b") and not os.path.exists("db/inside")


@test
def a_damaged_database_is_not_backed_up():
    ok("import", "db", "c", write_bin("a.fbin", grid(3000, 16), "f"), "--compression", "none")
    ok("compact", "db")
    path = os.path.join("db", next(f for f in os.listdir("db") if f.startswith("vectors")))
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        file.write(b"damage")
    fails(3, "vectors", "backup", "db", "copy")
    assert not os.path.exists("copy")


@test
def snapshots_are_made_listed_read_and_dropped():
    small()
    ok("snapshot", "db", "before")
    ok("delete", "db", "c", 2, 4)
    ok("snapshot", "db", "an \u00e9 'after'")
    listed = ok("snapshot", "db", "--json").json()["snapshots"]
    assert [s["name"] for s in listed] == ["before", "an \u00e9 'after'"], listed
    assert listed[0]["sequence"] < listed[1]["sequence"] and listed[0]["created"].startswith("20")
    assert [s["name"] for s in ok("snapshot", "db").lines()] == ["before", "an \u00e9 'after'"]
    assert "before" in ok("snapshot", "db", "--table").out
    assert ok("snapshot", "db", "--csv").out.splitlines()[1].startswith("before,20")
    fails(1, "no record", "get", "db", "c", 2)
    assert ok("get", "db", "c", 2, "--snapshot", "before").lines()[0]["key"] == 2
    assert ok("query", "db", "c", "--like", 4, "-k", 3, "--snapshot=before").lines()
    assert len(ok("scan", "db", "c", "--snapshot", "before").lines()) == 40
    assert ok("info", "db", "--json", "--snapshot", "before").json()["collections"][0]["count"] == 40
    assert ok("check", "db", "--snapshot", "before").code == 0
    ok("export", "db", "c", "old.jsonl", "--snapshot", "before")
    ok("backup", "db", "old", "--snapshot", "before")
    assert count("old", "c") == 40 and count("db", "c") == 38
    fails(1, "already", "snapshot", "db", "before")
    fails(1, "no snapshot", "snapshot", "db", "none", "--drop")
    fails(1, "no snapshot", "scan", "db", "c", "--snapshot", "none")
    fails(2, "needs a name", "snapshot", "db", "--drop")
    fails(2, "not an option of delete", "delete", "db", "c", 1, "--snapshot", "before")
    ok("snapshot", "db", "before", "--drop")
    assert [s["name"] for s in ok("snapshot", "db").lines()] == ["an \u00e9 'after'"]


# ------------------------------------------------------------------ export


@test
def what_was_exported_imports_as_it_was():
    r = random.Random(5)
    records = []
    for i in range(200):
        bits = struct.pack("<3f", *(r.uniform(-1, 1) * 10.0 ** r.randint(-30, 30) for _ in range(3)))
        records.append({"key": i if i % 3 else str(i),
                        "vectors": {"a": list(struct.unpack("<3f", bits)), "b/ü": [i, 1.5]},
                        "metadata": {"n": i, "text": 'quote " \\ \n é \u0001'}, "text": f"l1\nl2\t\"{i}\" é"})
    del records[7]["text"], records[8]["metadata"], records[9]["vectors"]["b/ü"]
    odd = '"n":  5.500e0 , "big": 123456789012345678901,'
    raw = "".join(json.dumps(x) + "\n" for x in records).replace('"n": 5,', odd)
    ok("import", "db", "c", write("in.jsonl", raw), "--metric", "l2")
    ok("export", "db", "c", "one.jsonl")
    ok("import", "other", "c", "one.jsonl", "--metric", "l2")
    ok("export", "other", "c", "two.jsonl")
    with open("one.jsonl", "rb") as one, open("two.jsonl", "rb") as two:
        text = one.read()
        assert text == two.read()
    assert odd.encode() in text
    back = {json.dumps(x["key"]): x for x in map(json.loads, text.decode().splitlines()[1:])}
    assert len(back) == 200
    for x in records[10:]:
        y = back[json.dumps(x["key"])]
        assert [struct.pack("<f", v) for v in y["vectors"]["a"]] == [struct.pack("<f", v) for v in x["vectors"]["a"]]
        assert y["text"] == x["text"] and y["metadata"]["text"] == x["metadata"]["text"]
    assert "text" not in back["7"] and "metadata" not in back["8"] and "b/ü" not in back['"9"']["vectors"]
    assert ok("export", "db", "c", "-").out.encode() == text
    again = ok("import", "third", "c", "-", "--format", "jsonl", "--metric", "l2", stdin=text)
    assert again.lines()[-1] == {"committed": 200}


@test
def vectors_export_to_files_that_are_the_ones_that_came():
    rows = grid(60, 5)
    for kind, code, writer in [("fbin", "f", write_bin), ("f16bin", "e", write_bin), ("u8bin", "B", write_bin),
                               ("i8bin", "b", write_bin), ("fvecs", "f", write_vecs), ("bvecs", "B", write_vecs)]:
        file = writer(f"in.{kind}", rows, code)
        ok("import", "db", kind, file)
        ok("export", "db", kind, f"out.{kind}")
        with open(file, "rb") as one, open(f"out.{kind}", "rb") as two:
            assert one.read() == two.read(), kind
        ok("export", "db", kind, "out.npy", "--records", "out.jsonl")
        ok("import", "db", kind + "2", "out.npy", "--records", "out.jsonl")
        one, two = (ok("export", "db", name, "-").out.splitlines() for name in (kind, kind + "2"))
        assert one[0].replace(f'"{kind}"', f'"{kind}2"') == two[0] and one[1:] == two[1:], kind
    ok("export", "db", "u8bin", "as.fbin")
    with open("as.fbin", "rb") as one, open("in.fbin", "rb") as two:
        assert one.read() == two.read()
    assert not [f for f in os.listdir(".") if f.endswith(".partial")]


@test
def an_export_that_cannot_hold_the_values_is_refused():
    ok("import", "db", "c", write_bin("a.fbin", grid(10, 4), "f"))
    fails(1, "out.u8bin would hold u8 values, field \"vector\" has f32", "export", "db", "c", "out.u8bin")
    fails(2, "say --format", "export", "db", "c", "out.dat")
    fails(2, "only JSON lines", "export", "db", "c", "-", "--format", "npy")
    fails(2, "--records goes with", "export", "db", "c", "out.jsonl", "--records", "r.jsonl")
    fails(1, "export writes", "export", "db", "c", "out.csv")
    fails(1, "cannot write", "export", "db", "c", "no/such/dir.npy")
    os.mkdir("dir.npy")
    fails(1, "is a directory", "export", "db", "c", "dir.npy")
    assert not os.path.exists("out.u8bin")


# ------------------------------------------------------------------ usage


@test
def wrong_usage_is_exit_code_2_and_suggests_the_nearest_name():
    result = cli()
    assert result.code == 2 and "usage:" in result.err and result.out == ""
    fails(2, 'unknown command "imprt"; did you mean import?', "imprt")
    fails(2, 'unknown command "zzzzzzz"', "zzzzzzz")
    fails(2, "unknown option --metrik; did you mean --metric?", "import", "db", "c", "f", "--metrik", "l2")
    fails(2, "unknown option --zzzzzz", "import", "db", "c", "f", "--zzzzzz")
    fails(2, "unknown option -z", "import", "db", "c", "f", "-z")
    fails(2, "--truth is not an option of import", "import", "db", "c", "f", "--truth", "x")
    fails(2, "--metric takes one of l2, ip, cosine, hamming, not \"l3\"", "import", "db", "c", "f", "--metric=l3")
    fails(2, "--index ivf is not available in this version", "import", "db", "c", "f", "--index", "ivf")
    fails(2, "--index ivf is not available in this version", "import", "db", "c", "f", "--index=ivf")
    fails(2, "--metric needs a value", "import", "db", "c", "f", "--metric")
    fails(2, "--json takes no value", "info", "db", "--json=1")
    fails(2, "--memory takes a number of bytes", "info", "db", "--memory", "lots")
    fails(2, "--memory takes a number of bytes", "info", "db", "--memory", "10")
    fails(2, "--batch takes a whole number", "import", "db", "c", "f", "--batch", "0")
    fails(2, "import: too few arguments", "import", "db", "c")
    fails(2, "info: too many arguments", "info", "db", "c")
    fails(1, "--key needs records", "import", "db", "c", write_bin("a.fbin", [[1]], "f"), "--key", "x")
    fails(1, "--records goes with a file of vectors", "import", "db", "c", write("a.jsonl", "{}"),
          "--records", "r.jsonl")


@test
def every_command_has_help_with_an_example():
    commands = ["import", "query", "get", "delete", "scan", "info", "check", "compact", "export", "eval",
                "recall", "backup", "restore", "snapshot"]
    listing = ok("help").out
    assert ok("--help").out == listing
    for command in commands:
        assert f"  {command} " in listing
        text = ok("help", command).out
        assert text.startswith(f"usage: vecdb-cli {command} ") and "example:\n  vecdb-cli" in text and "--json" in text
        assert ok(command, "--help").out == text and ok(command, "-h").out == text
        assert max(map(len, text.splitlines())) <= 120, command
    fails(2, "did you mean query", "help", "qurey")
    assert "library 0." in ok("--version").out


@test
def options_of_the_database_are_taken_by_every_command():
    ok("import", "db", "c", write_bin("a.fbin", grid(10, 4), "f"), "--durability", "normal", "--io", "read",
       "--threads", 1, "--memory", "64M", "--busy-timeout", 100, "--quiet")
    common = ["--durability=full", "--io=auto", "--threads=2", "--memory=64M", "--busy-timeout=0", "-q"]
    ok("query", "db", "c", "--like", 1, *common)
    ok("get", "db", "c", 1, *common)
    ok("delete", "db", "c", 1, *common)
    ok("scan", "db", "c", *common)
    ok("info", "db", *common)
    ok("check", "db", *common)
    ok("compact", "db", *common)
    ok("export", "db", "c", "out.jsonl", *common)
    ok("eval", "db", "c", "--queries", "a.fbin", *common)
    ok("recall", "db", "c", *common)
    ok("backup", "db", "copy", *common)
    ok("restore", "copy", "other", *common)
    ok("snapshot", "db", "s", *common)


@test
def progress_is_shown_on_a_terminal_only():
    rows = endless(120000)
    master, slave = pty.openpty()
    child = subprocess.Popen([CLI, "import", "db", "c", rows, "--batch", "50", "--durability", "normal"],
                             stdout=subprocess.DEVNULL, stderr=slave)
    os.close(slave)
    shown = b""
    try:
        while True:
            piece = os.read(master, 65536)
            if not piece:
                break
            shown += piece
    except OSError:
        pass
    os.close(master)
    assert child.wait(timeout=100 * SLOW) == 0
    text = shown.decode()
    assert "c: " in text and " rows/s  [" in text and " % " in text and " left" in text, text[:300]
    assert ok("import", "db", "d", rows).err == ""


# ------------------------------------------------------------------ running the tests


if __name__ == "__main__":
    main("vecdb-cli-")
