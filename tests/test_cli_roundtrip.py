#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tests/test_cli_roundtrip.py - what was exported imports exactly

Property: for every collection that the library can hold, export, import into nothing (without any
option), and export again gives the same bytes; and what scan prints of both is the same. As JSON
lines, and as NumPy array with lines beside it. Collections are random: fields of every type, metric
and compression, in any order and number, keys of every kind of character up to 65,535 bytes, 5 beside
"5", vectors of random bits (subnormal, negative zero, the largest), records that lack vectors, texts
with NULs, empty texts, metadata that no JSON library would give back as it was (1.0, 1e400, integers of
forty digits, names given twice, half a surrogate pair, white space and line ends between values).

The first database is made from a file that the test itself writes, so the test also compares the first
export with what it meant: keys, texts, metadata byte by byte, vectors bit by bit.

    tests/test_cli_roundtrip.py             all tests; last line "N passed, N failed, N skipped"
    tests/test_cli_roundtrip.py NAME...     those whose name contains NAME

VECDB_CLI names the program, VECDB_TEST_SEED a seed to run again, VECDB_TEST_ROUNDS how many collections.
"""
import json
import os
import random
import signal
import struct
import subprocess
import time

from script import CLI, SLOW, main, test

ROUNDS = int(os.environ.get("VECDB_TEST_ROUNDS") or "6")
SEED = int(os.environ.get("VECDB_TEST_SEED") or "0") or random.SystemRandom().randint(1, 10**9)


def cli(*words, stdin=b""):
    return subprocess.run([CLI, *map(str, words)], input=stdin, capture_output=True, timeout=120 * SLOW,
                          env={**os.environ, "LC_ALL": "C.UTF-8"})


def ok(*words, **how):
    done = cli(*words, **how)
    assert done.returncode == 0, f"{words}: exit {done.returncode}: {done.stderr.decode()}"
    return done.stdout


def fails(part, *words, **how):
    done = cli(*words, **how)
    error = done.stderr.decode()
    assert done.returncode == 1 and part in error and error.count("\n") == 1, (words, done.returncode, error)


def write(path, data):
    with open(path, "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode())
    return path


def read(path):
    with open(path, "rb") as file:
        return file.read()


# ------------------------------------------------------------------ random collections

CODES = {"f32": "f", "f16": "e", "i8": "b", "u8": "B"}
CHARACTERS = ["a", "Z", "0", " ", '"', "\\", "/", "\x01", "\n", "\r", "\t", "\x7f", "é", "ß", "\u2028", "\ufeff",
              "中", "\uffff", "😀", "\U0010ffff", "{", "}", "[", "]", ",", ":", "'"]


def characters(r, n):
    return "".join(r.choice(CHARACTERS) for _ in range(n))


def field_name(r, taken):
    while True:
        name = "".join(r.choice([c for c in CHARACTERS if c >= " " and c != "\x7f"]) for _ in range(r.randint(1, 12)))
        name = r.choice([name, "vector", "vectors", "key", "text", "metadata", "row", "x" * 255])
        if name not in taken:
            taken.add(name)
            return name


def random_fields(r):
    taken, fields = set(), []
    for _ in range(r.choice([0, 1, 1, 2, 3, 5])):
        kind = r.choice(["f32", "f16", "bf16", "i8", "u8", "bit"])
        fields.append({"name": field_name(r, taken), "dimension": r.choice([1, 2, 3, 7, 8, 9, 64, 65, 200]),
                       "type": kind, "metric": "hamming" if kind == "bit" else r.choice(["l2", "ip", "cosine"]),
                       "index": r.choice(["auto", "flat"]), "compression": r.choice(["auto", "none", "max"])})
    return fields


def finite_float(r):
    """Any finite float: uniform bits, so that subnormal ones and both zeros come too."""
    special = [0x80000000, 0, 1, 0x80000001, 0x007fffff, 0x00800000, 0x7f7fffff, 0xff7fffff, 0x3f800000]
    while True:
        bits = r.choice([r.getrandbits(32), r.getrandbits(23), r.choice(special)])
        if bits >> 23 & 255 != 255:
            return bits


def random_vector(r, field):
    """(numbers, packed bits): what JSON shows, and what must come back."""
    n = field["dimension"]
    kind = field["type"]
    if kind == "f32":
        packed = struct.pack(f"<{n}I", *(finite_float(r) for _ in range(n)))
        values = struct.unpack(f"<{n}f", packed)
    elif kind == "bf16":
        packed = struct.pack(f"<{n}I", *(finite_float(r) & 0xffff0000 for _ in range(n)))
        values = struct.unpack(f"<{n}f", packed)
    elif kind == "f16":
        bits = [r.choice([r.getrandbits(16), r.getrandbits(10), 0x8000, 0x7bff, 0xfbff]) for _ in range(n)]
        packed = struct.pack(f"<{n}H", *(b if b >> 10 & 31 != 31 else b ^ 0x0400 for b in bits))
        values = struct.unpack(f"<{n}e", packed)
    elif kind == "bit":
        values = [r.getrandbits(1) for _ in range(n)]
        packed = bytes(values)
    else:
        values = [r.randint(-128, 127) if kind == "i8" else r.randint(0, 255) for _ in range(n)]
        packed = struct.pack(f"<{n}{CODES[kind]}", *values)
    if field["metric"] == "cosine" and not any(values):
        return random_vector(r, field)
    return values, packed


def pack_again(field, numbers):
    kind, n = field["type"], field["dimension"]
    assert len(numbers) == n
    if kind == "bit":
        return bytes(numbers)
    return struct.pack(f"<{n}{CODES.get(kind, 'f')}", *numbers)


def random_key(r, i):
    return r.choice([i, -i, i << 40, str(i), f"{i} {characters(r, r.randint(0, 20))}", 2**63 - 1 - i, i - 2**63])


def random_metadata(r, i):
    space = r.choice(["", "", "", " ", "  ", "\t", "\n", "\r\n"])
    text = json.dumps(characters(r, 10), ensure_ascii=r.random() < 0.5)
    values = ["1.0", "1", "-0", "-0.0", "1E5", "1e400", "-1e-400", "0.1", "123456789012345678901234567890123456789",
              "true", "null", "[]", "{}", f"[1,{space}2.50]", '"\\ud800"', '"\\u0000"', '"\\/"', '"\\u0041"', '"\x7f"',
              text, '{"a":{"a":1,"a":2}}', f"{i}"]
    names = ["a", "b", "a", "", "key", "metadata", "text", "\\u0061", "vectors", "é", "}", '\\"', "\\\\"]
    members = [f'"{r.choice(names)}"{space}:{space}{r.choice(values)}' for _ in range(r.choice([0, 1, 2, 5]))]
    return space + "{" + space + f",{space}".join(members) + space + "}" + r.choice(["", space])


def random_records(r, fields, n):
    records = {}
    for i in range(1, n + 1):
        key = random_key(r, i)
        vectors = {f["name"]: random_vector(r, f) for f in fields if r.random() < 0.8}
        text = r.choice([None, "", "plain", "a\0b", "\0", characters(r, 40), "line\nline\r\n"])
        metadata = r.choice([None, "{}", random_metadata(r, i), random_metadata(r, i)])
        records[json.dumps(key)] = (key, vectors, metadata, text)
    return list(records.values())


def definition(name, fields, **more):
    return json.dumps({"vecdb": "collection", "version": 1, "name": name, **more, "fields": fields},
                      ensure_ascii=False) + "\n"


def line_of(r, record):
    key, vectors, metadata, text = record
    parts = [f'"key": {json.dumps(key, ensure_ascii=r.random() < 0.5)}']
    parts.append('"vectors": ' + json.dumps({name: list(values) for name, (values, _) in vectors.items()}))
    plain = metadata is not None and not set(metadata) & set("\r\n") and metadata[0] + metadata[-1] == "{}"
    if plain and r.random() < 0.7:
        parts.append('"metadata":' + metadata)
    elif metadata is not None:
        parts.append('"metadata_json":' + json.dumps(metadata))
    if text is not None:
        parts.append('"text":' + json.dumps(text, ensure_ascii=r.random() < 0.5))
    r.shuffle(parts)
    return "{" + ", ".join(parts) + "}\n"


def order_of_keys(record):
    key = record[0]
    return (0, key, b"") if isinstance(key, int) else (1, 0, key.encode())


def raw_metadata(line):
    """The bytes of the object in a line of an export."""
    decoder = json.JSONDecoder()
    if ',"metadata":' not in line:
        return decoder.decode(line).get("metadata_json")
    at = line.index(',"metadata":') + len(',"metadata":')
    _, end = decoder.raw_decode(line, at)
    return line[at:end]


def compare_with_truth(export, name, fields, records):
    lines = export.decode().split("\n")
    assert lines.pop() == "" and len(lines) == 1 + len(records)
    assert json.loads(lines[0]) == {"vecdb": "collection", "version": 1, "name": name, "fields": fields}, lines[0]
    for line, (key, vectors, metadata, text) in zip(lines[1:], sorted(records, key=order_of_keys)):
        got = json.loads(line)
        assert type(got["key"]) is type(key) and got["key"] == key, (got["key"], key)
        assert got.get("text") == text and ("text" in got) == (text is not None), (key, got.get("text"), text)
        assert list(got["vectors"]) == [f["name"] for f in fields if f["name"] in vectors], key
        for field in fields:
            if field["name"] in vectors:
                assert pack_again(field, got["vectors"][field["name"]]) == vectors[field["name"]][1], (key, field)
        if '"metadata":[' in line:  # a field of that name: raw_metadata would cut out the vector
            continue
        assert raw_metadata(line) == metadata, (key, raw_metadata(line), metadata)


def scan(db, name):
    return ok("scan", db, name, "--jsonl", "--vectors")


@test
def random_collections_come_back_exactly():
    for step in range(ROUNDS):
        r = random.Random(SEED + step)
        fields, name = random_fields(r), r.choice(["c", 'a "name" / of é', "n" * 255])
        records = random_records(r, fields, r.choice([0, 1, 5, 60, 300]))
        source = write("in.jsonl", definition(name, fields) + "".join(line_of(r, x) for x in records))
        ok("import", f"db{step}", name, source, "--batch", r.choice([1, 7, 100, 10000]))
        ok("export", f"db{step}", name, "one.jsonl")
        compare_with_truth(read("one.jsonl"), name, fields, records)
        ok("import", f"again{step}", name, "one.jsonl", "--batch", r.choice([3, 10000]))
        ok("export", f"again{step}", name, "two.jsonl")
        assert read("one.jsonl") == read("two.jsonl"), step
        assert scan(f"db{step}", name) == scan(f"again{step}", name), step
        ok("compact", f"again{step}")
        assert ok("export", f"again{step}", name, "-") == read("one.jsonl"), step
        for f, field in enumerate(fields):
            ok("export", f"db{step}", name, "v.npy", "--records", "r.jsonl", "--field", field["name"])
            ok("import", f"npy{step}-{f}", name, "v.npy", "--records", "r.jsonl", "--batch", r.choice([2, 10000]))
            assert ok("export", f"npy{step}-{f}", name, "-") == read("one.jsonl"), (step, field)
            ok("export", f"npy{step}-{f}", name, "v2.npy", "--records", "r2.jsonl", "--field", field["name"])
            assert read("v.npy") == read("v2.npy") and read("r.jsonl") == read("r2.jsonl"), (step, field)
        ok("check", f"again{step}")


@test
def keys_are_kept_whatever_they_hold():
    r = random.Random(SEED)
    keys = [5, "5", -5, "-5", 0, "0", 2**63 - 1, -2**63, "05", " ", "\x01", "\x7f", "null", "true", "a" * 65535,
            "é" * 32767, "😀" * 16383, characters(r, 2000), "\ufeff", "\ud7ff\ue000\uffff"]
    lines = "".join(json.dumps({"key": key, "vectors": {}, "text": repr(key)}, ensure_ascii=i % 2 == 0) + "\n"
                    for i, key in enumerate(keys))
    ok("import", "db", "c", write("in.jsonl", definition("c", []) + lines))
    ok("export", "db", "c", "one.jsonl")
    got = [json.loads(line) for line in read("one.jsonl").decode().split("\n")[1:-1]]
    assert [x["key"] for x in got] == [x[0] for x in sorted(([k] for k in keys), key=order_of_keys)]
    assert all(x["text"] == repr(x["key"]) for x in got)
    ok("import", "other", "c", "one.jsonl")
    assert ok("export", "other", "c", "-") == read("one.jsonl")


@test
def metadata_is_kept_to_the_byte():
    objects = ["{}", "{ }", '{"a":1.0}', '{"a":1e400,"b":-1E+400}', '{"a":1,"a":2}', '{"b":1,"a":2}', '{"":{"":{}}}',
               '{"n":123456789012345678901234567890}', '{"s":"\\ud83d\\ude00 \\/ \\u0000 \\ud800"}', '{"\\u0061":1}',
               '\n{"a":\r\n[1,\n2]}\n', ' {"a":1}', '{"a":1} ', '{"a": "}"}', '{"a":"\\""}',
               '{"metadata":{"metadata":{}}}',
               '{"x":' + "[" * 500 + "]" * 500 + "}", '{"long":"' + "é" * 100000 + '"}']
    lines = "".join(json.dumps({"key": i, "vectors": {}, "metadata_json": x}) + "\n" for i, x in enumerate(objects))
    ok("import", "db", "c", write("in.jsonl", definition("c", []) + lines))
    one = ok("export", "db", "c", "-")
    got = one.decode().split("\n")[1:-1]
    for i, (line, meant) in enumerate(zip(got, objects)):
        plain = f'{{"key":{i},"metadata":{meant}}}' if meant.strip() == meant and "\n" not in meant else None
        start = f'{{"key":{i},"vectors":{{}},'
        assert line.startswith(start), line[:80]
        if plain:
            assert line == start + f'"metadata":{meant}}}', line[:200]
        else:
            assert json.loads(line)["metadata_json"] == meant, line[:200]
    ok("import", "other", "c", write("one.jsonl", one))
    assert ok("export", "other", "c", "-") == one


@test
def a_definition_makes_the_same_collection_and_no_option_contradicts_it():
    fields = [{"name": "a", "dimension": 3, "type": "f16", "metric": "ip", "index": "flat", "compression": "max"},
              {"name": "b", "dimension": 9, "type": "bit", "metric": "hamming", "index": "auto", "compression": "none"}]
    file = write("in.jsonl", definition("c", fields) + '{"key":1,"vectors":{"a":[1,2,3]}}\n')
    ok("import", "db", "c", file)
    info = json.loads(ok("info", "db", "--json"))["collections"][0]["fields"]
    for field, got in zip(fields, info):
        assert {name: got[name] for name in field} == field, got
    fails("has metric ip, not l2", "import", "x", "c", file, "--metric", "l2")
    fails("has type f16, not f32", "import", "x", "c", file, "--type", "f32")
    fails("has compression max, not none", "import", "x", "c", file, "--compression", "none")
    fails("leave out --key", "import", "x", "c", file, "--key", "id")
    fails("leave out --field", "import", "x", "c", file, "--field", "a")
    fails("is another one", "import", "db", "c", write("other.jsonl", definition("c", fields[:1]) + '{"key":2}\n'))
    fails("is another one", "import", "db", "c", write("other.jsonl", definition("c", fields[::-1]) + '{"key":2}\n'))
    ok("import", "db", "c", write("more.jsonl", definition("any", fields) + '{"key":2}\n'))
    fails("goes with a file of the vectors", "import", "x", "c",
          write("side.jsonl", definition("c", fields, rows="a") + '{"key":2}\n'))
    assert not os.path.exists("x")
    ok("import", "empty", "c", write("none.jsonl", definition("c", fields)))
    assert ok("export", "empty", "c", "-").decode().count("\n") == 1
    ok("export", "empty", "c", "none.npy", "--records", "none-side.jsonl")
    ok("import", "empty2", "c", "none.npy", "--records", "none-side.jsonl")
    assert ok("export", "empty2", "c", "-") == ok("export", "empty", "c", "-")


@test
def what_a_definition_does_not_mean_is_refused():
    field = '{"name":"a","dimension":1,"type":"f32","metric":"l2","index":"auto","compression":"auto"}'
    good = f'{{"vecdb":"collection","version":1,"name":"c","fields":[{field}]}}\n'
    bad = {"of version 2": good.replace('"version":1', '"version":2'), 'no "version"': good.replace('"version":1,', ""),
           'has a member "later"': good.replace('"name":"c"', '"name":"c","later":1'),
           'no index "hyper"': good.replace('"index":"auto"', '"index":"hyper"'),
           'no "metric"': good.replace('"metric":"l2",', ""),
           'has no array of "fields"': good.replace('[', '{"a":[').replace(']', ']}'),
           'no number from 1 to 65536': good.replace('"dimension":1', '"dimension":65537'),
           "names no field": good.replace('"name":"c"', '"name":"c","rows":"b"'),
           "a field is no object": good.replace(field, "7")}
    for part, text in bad.items():
        fails(part, "import", "x", "c", write("bad.jsonl", text + '{"key":1}\n'))
    lines = {"no member \"year\"": '{"key":1,"year":2}', 'no member "vector"': '{"key":1,"vector":[1]}',
             "there is no file of vectors": '{"key":1,"row":null}', "metadata is either": '{"key":1,"metadata":[]}',
             "is not a text": '{"key":1,"text":5}', "there is no member": '{"text":"a"}',
             "is empty": '{"key":1,"metadata_json":""}', "not a JSON object": '{"key":1,"metadata_json":"[]"}'}
    for part, line in lines.items():
        fails(part, "import", "x", "c", write("bad.jsonl", good + line + "\n"))
    assert not os.path.exists("x"), "a file that is wrong left a database behind"


@test
def files_without_a_definition_import_as_before():
    rows = [{"key": i, "vectors": {"v": [i, 1.5]}, "metadata": {"n": i}, "text": "t"} for i in range(20)]
    lines = "".join(json.dumps(x) + "\n" for x in rows)
    ok("import", "db", "c", write("old.jsonl", lines), "--metric", "l2")
    got = [json.loads(x) for x in ok("export", "db", "c", "-").decode().splitlines()]
    assert got[0]["fields"][0]["metric"] == "l2" and got[1:] == rows
    ok("import", "db", "flat", write("flat.jsonl", '{"vecdb":"is a library","id":1,"vector":[1]}\n'))
    got = ok("export", "db", "flat", "-").decode().splitlines()[1]
    assert json.loads(got)["metadata"] == {"vecdb": "is a library"}, got
    odd = '{"key":1,"vectors":{"v":[1,2]},"metadata":{"a":1e400,"a":"\\ud800"},"text":"t"}'
    ok("import", "db", "odd", write("odd.jsonl", odd + "\n"))
    assert ok("export", "db", "odd", "-").decode().splitlines()[1] == odd


@test
def an_import_that_the_library_refuses_at_once_leaves_nothing():
    bad = '{"key":1,"vector":[1,2]}\n{"key":1,"vector":[1,2]}\n'
    fails("", "import", "db", "c", write("twice.jsonl", bad))
    assert not os.path.exists("db")
    ok("import", "db", "good", write("good.jsonl", '{"key":1,"vector":[1,2]}\n'))
    fails("", "import", "db", "c", "twice.jsonl")
    fails("all zeros", "import", "db", "c", write("zero.fbin", struct.pack("<IIff", 1, 2, 0, 0)))
    names = [c["name"] for c in json.loads(ok("info", "db", "--json"))["collections"]]
    assert names == ["good"], names


@test
def an_export_that_is_ended_leaves_no_file_under_its_name():
    lines = "".join(f'{{"key":{i},"vector":[{i + 1},2,3,4],"text":"{"x" * 2000}"}}\n' for i in range(20000))
    ok("import", "db", "c", write("in.jsonl", lines))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        for pause in (0.01, 0.03, 0.1):
            for name in ("out.jsonl", "out.npy", "side.jsonl"):
                if os.path.exists(name):
                    os.unlink(name)
            words = ["out.jsonl"] if pause < 0.05 else ["out.npy", "--records", "side.jsonl"]
            child = subprocess.Popen([CLI, "export", "db", "c", *words], stdout=subprocess.DEVNULL,
                                     stderr=subprocess.DEVNULL)
            time.sleep(pause * SLOW)
            child.send_signal(number)
            child.wait(timeout=60 * SLOW)
            if os.path.exists("out.jsonl"):  # it was quicker than the signal
                assert read("out.jsonl").count(b"\n") == 20001
            if os.path.exists("side.jsonl"):
                assert read("side.jsonl").count(b"\n") == 20001
            if number != signal.SIGKILL:
                assert not [name for name in os.listdir(".") if name.endswith(".partial")]
    ok("export", "db", "c", "out.jsonl")
    assert read("out.jsonl").count(b"\n") == 20001 and not os.path.exists("out.jsonl.partial")


# ------------------------------------------------------------------ running the tests


if __name__ == "__main__":
    main("vecdb-roundtrip-", again=f"; again with VECDB_TEST_SEED={SEED}")
