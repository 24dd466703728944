#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Exact search beside FAISS IndexFlat and sqlite-vec, on one thread, in turns.

    bench/peers_flat.py [--cli build/plain/vecdb-cli] [--data ../shared/data] [--rounds 3] [--sets glove,sift200k]

Needs the packages faiss-cpu, sqlite-vec and numpy; `make bench-peers-flat` makes a virtual environment with them.
All sides are given the same float32 vectors (cosine: normalised for the peers, which have no cosine). Every round asks
each side once, so that what the machine does meanwhile falls on all of them; the table shows medians of queries per
second. vecdb is asked through `vecdb-cli eval`, with vectors held as they are ("none") and as they are by default
("auto"), sqlite-vec on MNIST and docs only: it is slow.
"""
import argparse
import json
import os
import pathlib
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import faiss
import numpy as np

SETS = {"mnist": "l2", "sift200k": "l2", "glove": "cosine", "docs": "cosine"}
SLOW_PEER_SETS = ("mnist", "docs")
K = 10
BATCH = 1000


def load(path):
    """A .u8bin or .f16bin file as float32."""
    n, d = np.fromfile(path, dtype="<u4", count=2)
    kind = "<f2" if path.suffix == ".f16bin" else "u1"
    return np.fromfile(path, dtype=kind, offset=8).reshape(n, d).astype(np.float32)


def write_fbin(path, vectors):
    with open(path, "wb") as file:
        np.array(vectors.shape, dtype="<u4").tofile(file)
        vectors.astype("<f4").tofile(file)


def rate(ask, n):
    start = time.perf_counter()
    ask()
    return n / (time.perf_counter() - start)


class Faiss:
    def __init__(self, base, metric):
        faiss.omp_set_num_threads(1)
        self.index = (faiss.IndexFlatL2 if metric == "l2" else faiss.IndexFlatIP)(base.shape[1])
        self.index.add(base)

    def single(self, queries):
        for i in range(len(queries)):
            self.index.search(queries[i : i + 1], K)

    def batch(self, queries):
        self.index.search(queries, K)


class SqliteVec:
    def __init__(self, base, metric):
        import sqlite_vec

        self.db = sqlite3.connect(":memory:")
        self.db.enable_load_extension(True)
        sqlite_vec.load(self.db)
        kind = "l2" if metric == "l2" else "cosine"
        self.db.execute(f"CREATE VIRTUAL TABLE v USING vec0(e float[{base.shape[1]}] distance_metric={kind})")
        self.db.executemany("INSERT INTO v(rowid, e) VALUES(?, ?)", ((i, row.tobytes()) for i, row in enumerate(base)))

    def single(self, queries):
        for query in queries:
            self.db.execute("SELECT rowid FROM v WHERE e MATCH ? AND k = ?", (query.tobytes(), K)).fetchall()


class Vecdb:
    def __init__(self, cli, folder, base, metric, compression):
        self.cli, self.path, self.folder = cli, folder / f"{compression}.vecdb", folder
        write_fbin(folder / "base.fbin", base)
        command = [cli, "import", self.path, "bench", folder / "base.fbin", "--metric", metric, "--type", "f32",
                   "--compression", compression, "--quiet"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def eval(self, queries, batch):
        write_fbin(self.folder / "query.fbin", queries)
        command = [self.cli, "eval", self.path, "bench", "--queries", self.folder / "query.fbin", "-k", str(K),
                   "--exact", "--threads", "1", "--batch", str(batch), "--truth", self.folder / "truth.ibin",
                   "--json"]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return json.loads(answer)["points"][0]


def measure(name, metric, arguments):
    folder = pathlib.Path(tempfile.mkdtemp(dir=arguments.scratch))
    data = pathlib.Path(arguments.data) / name
    base, queries = load(next(data.glob("base.*bin"))), load(next(data.glob("query.*bin")))[: arguments.queries]
    truth = np.fromfile(data / "gt100.ibin", dtype="<i4", offset=8).reshape(-1, 100)
    truth = truth[: len(queries)]
    shutil.copy(data / "gt100.ibin", folder / "truth.ibin")
    with open(folder / "truth.ibin", "wb") as file:
        np.array(truth.shape, dtype="<u4").tofile(file)
        truth.tofile(file)
    vecdb = {c: Vecdb(arguments.cli, folder, base, metric, c) for c in ("none", "auto")}
    if metric == "cosine":
        base, queries = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (base, queries))
    peer = Faiss(base, metric)
    slow = SqliteVec(base, metric) if name in SLOW_PEER_SETS else None
    few, many = queries[: arguments.single], np.resize(queries, (BATCH, queries.shape[1]))
    rows = {}

    def note(side, value):
        rows.setdefault(side, []).append(value)

    recalls = []
    for _ in range(arguments.rounds):
        note("FAISS, single", rate(lambda: peer.single(few), len(few)))
        for c, side in vecdb.items():
            point = side.eval(few, 1)
            recalls.append(point["recall"])
            note(f"vecdb {c}, single", point["qps"])
        note("FAISS, batch", rate(lambda: peer.batch(many), BATCH))
        for c, side in vecdb.items():
            note(f"vecdb {c}, batch", side.eval(queries, BATCH)["qps"])
        if slow:
            note("sqlite-vec, single", rate(lambda: slow.single(few[:20]), 20))
    shutil.rmtree(folder)
    return {side: statistics.median(values) for side, values in rows.items()}, min(recalls)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cli", default="build/plain/vecdb-cli")
    parser.add_argument("--data", default=os.environ.get("VECDB_DATA", "../shared/data"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--single", type=int, default=200, help="queries asked one by one, each round")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--scratch", default="build")
    arguments = parser.parse_args()
    print(f"one thread, k = {K}, medians of {arguments.rounds} rounds; queries per second; faiss {faiss.__version__}")
    print(f"{'set':10} {'':20} {'single':>10} {'/ FAISS':>8} {'batch 1000':>12} {'/ FAISS':>8}  recall")
    for name in arguments.sets.split(","):
        rows, recall = measure(name, SETS[name], arguments)
        for side in ("FAISS", "vecdb none", "vecdb auto", "sqlite-vec"):
            single, batch = rows.get(f"{side}, single"), rows.get(f"{side}, batch")
            if single is None:
                continue
            line = f"{name:10} {side:20} {single:10.0f} {single / rows['FAISS, single']:8.2f}"
            if batch is not None:
                line += f" {batch:12.0f} {batch / rows['FAISS, batch']:8.2f}"
            print(line + (f"  {recall:.4f}" if side.startswith("vecdb") else ""), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
