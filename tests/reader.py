#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A second reader of libvecdb databases, written from storage/FORMAT.md alone.

    tests/reader.py my.vecdb

prints a JSON line for each record: collection, key, and the vectors of each field. It shares no code with
the library, so what both agree on is what FORMAT.md says. It verifies every check that it meets and ends with
status 3 and a sentence when something is damaged. It needs Python 3, libxxhash and libzstd; it is slow.
"""
import ctypes
import ctypes.util
import json
import os
import sqlite3
import struct
import sys


def load_library(name, fallback):
    return ctypes.CDLL(ctypes.util.find_library(name) or fallback)


xxhash = load_library("xxhash", "libxxhash.so.0")
xxhash.XXH3_64bits_withSeed.restype = ctypes.c_uint64
xxhash.XXH3_64bits_withSeed.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]
zstd = load_library("zstd", "libzstd.so.1")
zstd.ZSTD_decompress.restype = ctypes.c_size_t
zstd.ZSTD_decompress.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]

F32, F16, BF16, I8, U8, BIT = 1, 2, 3, 4, 5, 6
RAW, NARROW, PLANES = 1, 2, 3
VALUE_BYTES = {F32: 4, F16: 2, BF16: 2, I8: 1, U8: 1, BIT: 1}
MAY_STORE = {F32: {F32, F16, BF16, I8, U8}, F16: {F16, I8, U8}, BF16: {BF16, I8, U8}, I8: {I8}, U8: {U8}, BIT: {BIT}}


class Damage(Exception):
    pass


def require(condition, where, what):
    if not condition:
        raise Damage(f"{where}: {what}")


def check_of(data, seed=0):
    return xxhash.XXH3_64bits_withSeed(bytes(data), len(data), seed)


def expand(frame, n_bytes, where):
    out = ctypes.create_string_buffer(max(n_bytes, 1))
    length = zstd.ZSTD_decompress(out, n_bytes, bytes(frame), len(frame))
    require(length == n_bytes, where, "a plane does not expand to its length")
    return out.raw[:n_bytes]


def vector_bytes(kind, dimension):
    return (dimension + 7) // 8 if kind == BIT else dimension * VALUE_BYTES[kind]


def numbers_of(kind, dimension, data):
    """The values of rows that lie in `data` without gaps, as Python numbers."""
    if kind == F32:
        return list(struct.unpack(f"<{len(data) // 4}f", data))
    if kind == F16:
        return list(struct.unpack(f"<{len(data) // 2}e", data))
    if kind == BF16:
        return [struct.unpack("<f", b"\0\0" + data[i:i + 2])[0] for i in range(0, len(data), 2)]
    if kind == I8:
        return list(struct.unpack(f"<{len(data)}b", data))
    if kind == U8:
        return list(data)
    row = vector_bytes(BIT, dimension)
    return [data[start + i // 8] >> i % 8 & 1 for start in range(0, len(data), row) for i in range(dimension)]


def join_planes(planes, width):
    if width == 1:
        return planes[0]
    out = bytearray()
    top = 8 * width - 1
    for parts in zip(*planes):
        value = int.from_bytes(bytes(parts), "little")
        out += (value >> 1 | (value & 1) << top).to_bytes(width, "little")
    return bytes(out)


def read_page(page, kind, dimension, where):
    """[(slot, values)] of one page, whose bytes are exactly `page`."""
    require(len(page) >= 64, where, "shorter than a header")
    (check, magic, version, codec, field_kind, stored, encryption, n_planes, page_dimension, n_rows, n_runs,
     header_bytes, body_bytes, longest) = struct.unpack("<Q4sHBBBBHIIIIIf", page[:44])
    require(magic == b"VDBP", where, "no page")
    require(version == 1 and encryption == 0, where, "of another version")
    require(check == check_of(page[8:]), where, "the check of a page is wrong")
    require((field_kind, page_dimension) == (kind, dimension), where, "a page of another field")
    require(stored in MAY_STORE[kind], where, "a stored type that cannot be")
    require(codec == PLANES or (codec == RAW and stored == kind) or (codec == NARROW and stored != kind), where,
            "a codec that cannot be")
    require(n_planes == (VALUE_BYTES[stored] if codec == PLANES else 0), where, "a wrong number of planes")
    require(longest >= 0, where, "a negative length")
    used = 64 + 8 * n_runs + 8 * n_planes
    require(header_bytes == (used + 63) // 64 * 64 and header_bytes + body_bytes == len(page), where, "wrong lengths")
    require(not any(page[44:64]) and not any(page[used:header_bytes]), where, "zeros that are not")

    runs = [struct.unpack_from("<II", page, 64 + 8 * i) for i in range(n_runs)]
    require(n_rows >= 1 and n_runs >= 1 and runs[0][1] == 0, where, "no first run")
    slots = []
    for (slot, row), end in zip(runs, [row for _, row in runs[1:]] + [n_rows]):
        require(len(slots) == row < end <= n_rows and (not slots or slot > slots[-1]), where, "runs out of order")
        slots.extend(range(slot, slot + end - row))
    require(slots[-1] < 2**32 - 1, where, "a slot beyond the last")

    n_bytes = n_rows * vector_bytes(stored, dimension)
    body = page[header_bytes:]
    if codec == PLANES:
        n_values, at, planes = n_bytes // n_planes, 0, []
        for i in range(n_planes):
            length, encoding = struct.unpack_from("<II", page, 64 + 8 * n_runs + 8 * i)
            part = body[at:at + length]
            require(encoding in (0, 1) and len(part) == length, where, "a plane that cannot be")
            planes.append(part if encoding == 0 else expand(part, n_values, where))
            require(len(planes[-1]) == n_values, where, "a plane of a wrong length")
            at += length
        require(at == len(body), where, "bytes behind the planes")
        body = join_planes(planes, n_planes)
    require(len(body) == n_bytes, where, "a body of a wrong length")
    values = numbers_of(stored, dimension, body)
    return [(slot, values[i * dimension:(i + 1) * dimension]) for i, slot in enumerate(slots)]


def fold_gap(gap, gaps):
    for at in range(0, len(gap), 4096):
        gaps = check_of(gap[at:at + 4096], gaps)
    return gaps


def read_extent(data, name, uuid, store, field, kind, dimension, extent):
    """[(slot, values)] of all pages of an extent that the catalog names."""
    generation, offset, length, check_sum, n_rows, first_slot, last_slot, n_pages = extent
    where = f"{name} at {offset}"
    header = data[:64]
    require(len(header) == 64 and header[8:12] == b"VDBV", where, "no vector file")
    require(header[12:16] == b"\1\0\0\0" and not any(header[56:64]), where, "of another version")
    require(check_of(header[8:]) == struct.unpack("<Q", header[:8])[0], where, "the check of the header is wrong")
    require(header[16:32] == uuid, where, "a file of another database")
    require(struct.unpack("<QQ", header[32:48]) == (field, generation), where, "a file of another name")
    require(struct.unpack("<Q", header[48:56]) == (store,), where, "a file of another store")
    require(offset % 64 == 0 and offset + length <= len(data), where, "the file is truncated")
    whole = data[offset:offset + length]

    footer_bytes = 32 * n_pages + 64
    require(n_pages >= 1 and footer_bytes <= length, where, "no room for a footer")
    footer = whole[-footer_bytes:]
    trailer = footer[-64:]
    require(trailer[:4] == b"VDBF", where, "no footer")
    require(trailer[4:6] == b"\1\0" and trailer[7] == 0, where, "of another version")
    check = struct.unpack("<Q", trailer[56:])[0]
    require(check == check_of(footer[:-8]), where, "the check of the footer is wrong")
    require(check == check_sum & (2**64 - 1), where, "not the footer that was committed")
    require((trailer[6],) + struct.unpack("<IIQQQ", trailer[8:40]) + struct.unpack("<II", trailer[48:56]) ==
            (kind, dimension, n_pages, n_rows, offset, length, first_slot, last_slot), where,
            "a footer with other numbers than the catalog")

    rows, free_at, gaps = [], 0, 0
    for i in range(n_pages):
        at, page_check, page_length, page_rows, first, last = struct.unpack_from("<QQIIII", footer, 32 * i)
        page_where = f"{where}, page {i}"
        require(at % 64 == 0 and at >= free_at and at + page_length <= length - footer_bytes, page_where, "misplaced")
        gaps = fold_gap(whole[free_at:at], gaps)
        page = whole[at:at + page_length]
        require(page[:8] == struct.pack("<Q", page_check), page_where, "not the page that was committed")
        found = read_page(page, kind, dimension, page_where)
        require((len(found), found[0][0], found[-1][0]) == (page_rows, first, last), page_where, "wrong slots")
        require(not rows or rows[-1][0] < first, page_where, "slots out of order")
        rows += found
        free_at = at + page_length
    require(gaps == struct.unpack("<Q", trailer[40:48])[0] and not any(whole[free_at:length - footer_bytes]), where,
            "bytes between the pages are damaged")
    require((len(rows), rows[0][0], rows[-1][0]) == (n_rows, first_slot, last_slot), where, "wrong sums")
    return rows


def read_field(directory, catalog, uuid, store, field, kind, dimension):
    """{slot: values} of a field: extents first, then the tail."""
    vectors = {}
    rows = catalog.execute("SELECT generation, offset, length, check_sum, n_rows, first_slot, last_slot, n_pages"
                           " FROM extents WHERE field = ? ORDER BY first_slot", (field,))
    for extent in rows.fetchall():
        name = f"vectors-{field}-{extent[0]}"
        with open(os.path.join(directory, name), "rb") as file:
            found = read_extent(file.read(), name, uuid, store, field, kind, dimension, extent)
        require(not vectors or max(vectors) < found[0][0], name, "extents share slots")
        vectors.update(found)
    for slot, blob in catalog.execute(f"SELECT slot, vector FROM tail_{field}"):
        require(len(blob) == vector_bytes(kind, dimension), f"tail_{field}", f"slot {slot} has a wrong length")
        vectors[slot] = numbers_of(kind, dimension, blob)
    return vectors


def read_database(directory):
    path = os.path.abspath(os.path.join(directory, "catalog.sqlite"))
    catalog = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    catalog.execute("BEGIN")  # one state throughout
    (version,) = catalog.execute("PRAGMA user_version").fetchone()
    require(version == 1, "catalog.sqlite", "of another version")
    (uuid,) = catalog.execute("SELECT uuid FROM database WHERE id = 1").fetchone()
    for collection, name, store in catalog.execute("SELECT id, name, store FROM collections ORDER BY name").fetchall():
        fields = catalog.execute("SELECT id, name, type, dimension FROM fields WHERE collection = ? ORDER BY id",
                                 (collection,)).fetchall()
        vectors = {field: read_field(directory, catalog, uuid, store, field, kind, dimension)
                   for field, _, kind, dimension in fields}
        # SQLite's own order of keys is ours: integers, then texts by their bytes.
        for slot, key in catalog.execute(f"SELECT slot, key FROM records_{store} ORDER BY key"):
            yield {"collection": name, "key": key,
                   "vectors": {label: vectors[field][slot] for field, label, _, _ in fields if slot in vectors[field]}}


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        for record in read_database(sys.argv[1]):
            print(json.dumps(record, ensure_ascii=False))
    except (Damage, sqlite3.Error, OSError) as problem:
        print(f"reader: {problem}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
