#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tests/test_cli_index.py - vecdb-cli tells what an index is, changes it, and keeps to a budget of memory

    tests/test_cli_index.py             all tests, one line each, last line "N passed, N failed, N skipped"
    tests/test_cli_index.py NAME...     those whose name contains NAME

VECDB_CLI names the program (default: build/plain/vecdb-cli).
"""
import os
import random

from script import TESTS, main, test
from test_cli import fails, ok, write_bin, write_lines

TESTS.clear()  # those of test_cli are run by itself
N = 12000


def made(n=N, d=24, *words):
    """A database whose index was built, and its rows."""
    r = random.Random(7)
    rows = [[r.random() + (i % 20) * (j % 3) * 0.1 for j in range(d)] for i in range(n)]
    ok("import", "db", "c", write_bin("a.fbin", rows, "f"), "--metric", "l2", *words)
    return rows


def index_of(*words):
    return ok("index", "db", "c", *words, "--json").json()["indexes"]


@test
def the_index_of_each_field_is_shown_in_every_form():
    made()
    (one,) = index_of()
    files = [name for name in os.listdir("db") if name.startswith("index-")]
    assert len(files) == 1 and one["file_bytes"] == os.path.getsize(f"db/{files[0]}"), one
    assert (one["field"], one["index"], one["kind"], one["wanted"]) == ("vector", "auto", "hnsw", "hnsw"), one
    assert (one["vectors"], one["covered"], one["in_file"], one["dead"]) == (N, N, N, 0), one
    assert one["memory_bytes"] > N * 100 and 0.9 < one["recall"] <= 1, one
    assert one["building"] is False and one["message"] is None
    assert ok("index", "db", "c", "vector").lines() == [one]
    table = ok("index", "db", "c", "--table").out
    assert "recall@10" in table and "12,000" in table and "hnsw" in table, table
    lines = ok("index", "db", "c", "--csv").out.split("\r\n")
    assert lines[0].startswith("field,index,kind,wanted,vectors,covered,dead,") and lines[0].endswith(",message"), lines
    assert lines[1].startswith(f"vector,auto,hnsw,hnsw,{N},{N},0,"), lines
    field = ok("info", "db", "--json").json()["collections"][0]["fields"][0]
    assert (field["index"], field["covered"]) == ("auto", N), field
    assert "covered" in ok("info", "db", "--table").out


@test
def the_kind_of_an_index_changes_with_and_without_waiting():
    made(3000)
    (flat,) = index_of()
    assert (flat["kind"], flat["wanted"], flat["covered"], flat["file_bytes"]) == ("flat", "flat", 3000, 0), flat
    (later,) = index_of("--kind", "hnsw", "--no-wait")
    assert (later["index"], later["wanted"]) == ("hnsw", "hnsw"), later
    (waited,) = index_of("--wait")
    assert (waited["kind"], waited["covered"]) == ("hnsw", 3000) and waited["file_bytes"], waited
    (gone,) = index_of("vector", "--kind", "flat")
    assert (gone["index"], gone["kind"], gone["covered"], gone["memory_bytes"]) == ("flat", "flat", 3000, 0), gone
    (again,) = index_of("--kind=hnsw")
    assert (again["kind"], again["covered"]) == ("hnsw", 3000), again


@test
def a_query_explains_what_a_graph_did():
    made()
    explain = ok("query", "db", "c", "--like", 8, "--ef", 77, "--json", "--explain").json()["explain"]
    assert (explain["plan"], explain["ef"], explain["scanned"], explain["coverage"]) == ("hnsw", 77, 0, 1), explain
    assert 0 < explain["expanded"] < explain["distances"] < N and 10 <= explain["reranked"], explain
    assert explain["pages"] >= 10 and explain["bytes"] > 0 and explain["elapsed_us"] > 0, explain
    told = ok("query", "db", "c", "--like", 8, "--recall", 0.9, "--table", "--explain").out
    assert "plan       hnsw" in told and "graph      ef " in told and "candidates reranked" in told, told
    assert "scanned    0 vectors" in told and "coverage   100.0 %" in told, told
    told = ok("query", "db", "c", "--like", 8, "--exact", "--table", "--explain").out
    assert "plan       flat" in told and "graph" not in told, told


@test
def a_budget_too_small_for_all_is_told_and_answers_stay_right():
    rows = made(N, 24, "--no-wait")
    result = fails(1, "index_memory_bytes is 1048576", "index", "db", "c", "--wait", "--index-memory", "1M", "--json")
    shown = result.json()["indexes"][0]
    assert shown["vectors"] == N and shown["message"].startswith('field "vector": an index of all'), shown
    (part,) = index_of("--index-memory", "1M")
    assert part["kind"] == "hnsw" and 0 < part["covered"] < N and part["memory_bytes"] <= 1 << 20, part
    query = ok("query", "db", "c", "--like", 8, "--ef", 200, "--index-memory", "1M", "--json", "--explain").json()
    assert query["explain"]["plan"] == "hnsw", query["explain"]
    assert query["explain"]["scanned"] == N - part["covered"] and query["explain"]["coverage"] < 1, query["explain"]
    file = write_bin("q.fbin", rows[:20], "f")
    measured = ok("eval", "db", "c", "--queries", file, "--index-memory", "1M", "--json")
    assert "index_memory_bytes" in measured.err, measured.err
    point = measured.json()["points"][0]
    assert point["recall"] > 0.9 and point["coverage"] < 1, point
    measured = ok("import", "db2", "c", "a.fbin", "--index-memory", "1M", "--json")
    assert measured.lines()[-1] == {"committed": N} and "index_memory_bytes" in measured.err, measured.err
    (whole,) = index_of("--wait")
    assert whole["covered"] == N, whole


@test
def a_wrong_index_command_is_refused_with_a_sentence():
    made(100)
    fails(2, "--kind takes one of auto, flat, hnsw", "index", "db", "c", "--kind", "tree")
    fails(2, "--wait and --no-wait", "index", "db", "c", "--wait", "--no-wait")
    fails(2, "--no-wait goes with --kind", "index", "db", "c", "--no-wait")
    fails(2, "too few arguments", "index", "db")
    fails(2, "too many arguments", "index", "db", "c", "vector", "more")
    fails(2, "--index-memory takes a number of bytes", "index", "db", "c", "--index-memory", "few")
    fails(2, "--index-memory is not an option of get", "get", "db", "c", "1", "--index-memory", "1M")
    fails(1, 'no field "other"', "index", "db", "c", "other")
    fails(1, 'no field "other"', "index", "db", "c", "other", "--kind", "flat")
    fails(1, '"nothing"', "index", "db", "nothing")
    write_lines("two.jsonl", [{"key": i, "vectors": {"a": [1, i], "b": [i, 1]}} for i in range(5)])
    ok("import", "db", "two", "two.jsonl", "--metric", "l2")
    assert [one["field"] for one in ok("index", "db", "two", "--json").json()["indexes"]] == ["a", "b"]
    fails(1, "say which", "index", "db", "two", "--kind", "hnsw")


if __name__ == "__main__":
    main("vecdb-cli-index-")
