#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Approximate search beside other engines from PyPI: recall and queries per second, one thread, one query a call.

    bench/peers_graph.py [--vecdb build/plain] [--sets docs,mnist,sift200k,glove] [--engines hnswlib,svs-f32]
                         [--rounds 3] [--out build/bench/peers.json] [--svg bench/recall_qps.svg] [--build-only]

`make bench-peers` makes the virtual environment, compiles the hnswlib driver and calls this.

* Every side is given the same float32 vectors; for cosine the peers get them normalised, and that is not timed.
* An index is built once and kept below --cache, under the engine's version; a later run measures only.
* Every engine is a process (peers_engines.py, peers_hnswlib.cpp, bench_search.c) that answers one setting at a time.
  They take turns at each setting, and the whole is done --rounds times, so that what else the machine does falls on
  all; the figures are medians over the rounds. Where a process is gone or never starts, the table says so.
* Time is that of the process on the processor, for the wall clock also counts the neighbours; both are in the JSON.
* "core" is what is left without the call: the same call to an index of ten vectors is taken off. That is generous to
  peers called through Python (some of it is their own work). The comparison below the table uses it.
* QPS at a recall is read off the settings that no other setting beats, on a logarithmic scale between two of them.
"""
import argparse
import json
import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time
from importlib import metadata

import numpy as np

import plot_recall
from peers_engines import ENGINES, read_matrix

SETS = {"docs": "cosine", "mnist": "l2", "sift200k": "l2", "glove": "cosine"}
TARGETS = (0.90, 0.95, 0.99)
HERE = pathlib.Path(__file__).parent
VECDB = {"libvecdb-raw": "none", "libvecdb-planes": "max"}
ENOUGH = 0.9985  # no more effort is asked of an engine whose recall is above


def write_matrix(path, matrix, kind):
    with open(path, "wb") as file:
        np.array(matrix.shape, dtype="<u4").tofile(file)
        matrix.astype(kind).tofile(file)


def prepare(name, metric, data, folder):
    """The set as every engine reads it: base.fbin, query.fbin as they are; unit/ has them normalised for cosine."""
    if (folder / "truth.ibin").exists():
        return
    (folder / "unit").mkdir(parents=True, exist_ok=True)
    for part in ("base", "query"):
        matrix = read_matrix(next((data / name).glob(f"{part}.*bin"))).astype("<f4")
        write_matrix(folder / f"{part}.fbin", matrix, "<f4")
        if metric == "cosine":
            matrix = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
            write_matrix(folder / "unit" / f"{part}.fbin", matrix, "<f4")
    shutil.copy(data / name / "gt100.ibin", folder / "truth.ibin")


class Side:
    """One engine on one set: how it is built, and the process that answers."""

    def __init__(self, engine, name, arguments):
        self.engine, self.metric, self.process, self.problem = engine, SETS[name], None, None
        self.data = arguments.cache / name
        self.points, self.settings, self.built = {}, [], {}
        self.source = self.data / "unit" if self.metric == "cosine" and engine not in VECDB else self.data
        if engine in VECDB:
            self.version = "this"
            self.tool = [arguments.vecdb / "bench/bench_search"]
            self.cli = arguments.vecdb / "vecdb-cli"
        elif engine == "hnswlib":
            self.version, self.tool = arguments.hnswlib_version, [arguments.hnswlib]
        else:
            self.version = metadata.version(ENGINES[engine][0])
            self.tool = [sys.executable, HERE / "peers_engines.py"]
        self.folder = self.data / f"{engine}-{self.version}"
        self.log = self.data / f"{engine}.log"

    def build(self):
        known = self.folder / "built.json"
        if self.engine in VECDB and known.exists() and known.stat().st_mtime < self.cli.stat().st_mtime:
            known.unlink()  # built by an earlier version
        if not known.exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            self.built = self.build_vecdb() if self.engine in VECDB else self.build_peer()
            known.write_text(json.dumps(self.built))
        self.built = json.loads(known.read_text())

    def build_peer(self):
        answer = self.run([*self.tool, "build", self.peer_metric(), self.source / "base.fbin", self.folder]
                          if self.engine == "hnswlib" else
                          [*self.tool, "build", self.engine, self.peer_metric(), self.source / "base.fbin",
                           self.folder])
        return json.loads(answer.splitlines()[-1])

    def build_vecdb(self):
        start = time.perf_counter()
        self.run([self.cli, "import", self.folder / "db", "bench", self.source / "base.fbin", "--metric", self.metric,
                  "--type", "f32", "--compression", VECDB[self.engine], "--quiet"])
        took = time.perf_counter() - start
        size = sum(f.stat().st_size for f in (self.folder / "db").rglob("*") if f.is_file())
        n = int(np.fromfile(self.source / "base.fbin", dtype="<u4", count=1)[0])
        return {"build_seconds": took, "build_threads": 2, "bytes_per_vector": size / n}

    def peer_metric(self):
        return "l2" if self.metric == "l2" else "ip"

    def run(self, command):
        with open(self.log, "w", encoding="utf-8") as log:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(self.last_words() or f"ended with {done.returncode}")
        return done.stdout

    def last_words(self):
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:160] if lines else ""

    def start(self):
        files = [self.source / "query.fbin", self.data / "truth.ibin"]
        if self.engine in VECDB:
            command = [*self.tool, self.folder / "db", "bench", *files, "-"]
        elif self.engine == "hnswlib":
            command = [*self.tool, "serve", self.peer_metric(), *files, self.folder]
        else:
            command = [*self.tool, "serve", self.engine, self.peer_metric(), *files, self.folder]
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                                            text=True)
        self.settings = self.answer()["settings"]

    def answer(self):
        line = self.process.stdout.readline()
        while line and not line.startswith("{"):  # a wheel may print on its own
            line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise RuntimeError(self.last_words() or f"ended with {self.process.returncode}")
        return json.loads(line)

    def measure(self, i):
        """Setting i, once; those above a setting of enough recall, all else equal, are left out."""
        setting = self.settings[i]
        key = json.dumps(setting)
        for other, points in self.points.items():
            if points[0]["recall"] >= ENOUGH and dominates(setting, json.loads(other)):
                return
        self.process.stdin.write(key + "\n")
        self.process.stdin.flush()
        self.points.setdefault(key, []).append(self.answer())

    def stop(self):
        if self.process:
            self.process.stdin.close()
            self.process.stdout.close()
            self.process.wait()

    def guarded(self, step, *arguments):
        """What goes wrong with one engine is said in the table and ends that engine only."""
        if self.problem:
            return
        try:
            step(*arguments)
        except (RuntimeError, OSError, ValueError) as error:
            self.problem = f"{step.__name__}: {error}"
            print(f"    {self.engine}: {self.problem}", flush=True)

    def result(self):
        points = []
        for key, rounds in self.points.items():
            names = ("recall", "wall_us", "cpu_us", "call_us")
            middle = {name: statistics.median(r[name] for r in rounds) for name in names}
            core = max(middle["cpu_us"] - middle["call_us"], 0.1)
            points.append({"setting": json.loads(key), "rounds": len(rounds), **middle, "qps": 1e6 / middle["cpu_us"],
                           "core_qps": 1e6 / core, "wall_qps": 1e6 / middle["wall_us"]})
        at = {kind: {str(t): qps_at(points, t, kind) for t in TARGETS} for kind in ("qps", "core_qps", "wall_qps")}
        return {"version": self.version, **self.built, "problem": self.problem, "points": points, "at": at}


def dominates(setting, other):
    """Is `setting` the same as `other` but for more effort?"""
    if not isinstance(setting, dict):
        return False
    more = [key for key in setting if setting[key] > other[key]]
    return len(more) == 1 and more[0] in ("ef", "nprobe") and all(setting[k] >= other[k] for k in setting)


def front(points, kind):
    """The settings that no other beats in both recall and speed, by recall."""
    kept, best = [], 0
    for point in sorted(points, key=lambda p: (-p["recall"], -p[kind])):
        if point[kind] > best:
            best = point[kind]
            kept.append((point["recall"], point[kind]))
    return kept[::-1]


def qps_at(points, target, kind):
    line = front(points, kind)
    above = [p for p in line if p[0] >= target]
    if not above:
        return None
    below = [p for p in line if p[0] < target]
    if not below:
        return above[0][1]
    (r0, q0), (r1, q1) = below[-1], above[0]
    share = (target - r0) / (r1 - r0)
    return math.exp(math.log(q0) * (1 - share) + math.log(q1) * share)


def measure(name, arguments):
    prepare(name, SETS[name], arguments.data, arguments.cache / name)
    sides = [Side(engine, name, arguments) for engine in arguments.engines]
    for side in sides:
        start = time.perf_counter()
        side.guarded(side.build)
        print(f"    {name} {side.engine}: ready after {time.perf_counter() - start:.0f} s", flush=True)
    if arguments.build_only:
        return {}
    for side in sides:
        side.guarded(side.start)
    for number in range(arguments.rounds):
        for i in range(max(len(side.settings) for side in sides)):
            for side in sides:
                if i < len(side.settings):
                    side.guarded(side.measure, i)
        print(f"    {name}: round {number + 1} of {arguments.rounds}, {time.strftime('%H:%M:%S')}", flush=True)
    for side in sides:
        side.stop()
    return {side.engine: side.result() for side in sides}


def show(name, engines):
    def cell(value, width=8):
        return f"{'-' if value is None else format(value, '.0f'):>{width}}"

    print(f"\n{name}: queries per second at recall; called, and core (without the call)")
    print(f"{'':16} {'version':>9} {'build s':>8} {'cpu s':>7} {'B/vector':>9} " +
          " ".join(f"{t:8.2f}" for t in TARGETS) + "   core" + " ".join(f"{t:8.2f}" for t in TARGETS))
    for engine, r in engines.items():
        if r["problem"]:
            print(f"{engine:16} {r['version']:>9} {r['problem']}")
        if r["points"]:
            print(f"{engine:16} {r['version']:>9} {cell(r.get('build_seconds'))} {cell(r.get('build_cpu_seconds'), 7)} "
                  f"{cell(r.get('bytes_per_vector'), 9)} " + " ".join(cell(r["at"]["qps"][str(t)]) for t in TARGETS) +
                  "       " + " ".join(cell(r["at"]["core_qps"][str(t)]) for t in TARGETS))
    for ours in VECDB:
        for target in map(str, TARGETS):
            mine = engines.get(ours, {}).get("at", {}).get("core_qps", {}).get(target)
            peers = {e: r["at"]["core_qps"][target] for e, r in engines.items() if e not in VECDB}
            peers = {e: qps for e, qps in peers.items() if qps}
            if mine and peers:
                best = max(peers, key=peers.get)
                hnswlib = f"{mine / peers['hnswlib']:.2f} x hnswlib, " if "hnswlib" in peers else ""
                print(f"  {ours} at {target}: {hnswlib}{mine / peers[best]:.2f} x the best peer ({best})")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vecdb", type=pathlib.Path, default="build/plain")
    parser.add_argument("--hnswlib", type=pathlib.Path, default="build/peers/peers_hnswlib")
    parser.add_argument("--hnswlib-version", default="0.8.0")
    parser.add_argument("--data", type=pathlib.Path, default=os.environ.get("VECDB_DATA", "../shared/data"))
    parser.add_argument("--cache", type=pathlib.Path, default="build/peers-cache")
    parser.add_argument("--out", type=pathlib.Path, default="build/bench/peers.json")
    parser.add_argument("--svg", type=pathlib.Path, default="bench/recall_qps.svg")
    parser.add_argument("--sets", type=lambda text: text.split(","), default=list(SETS))
    parser.add_argument("--engines", type=lambda text: text.split(","), default=[*VECDB, "hnswlib", *ENGINES])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--build-only", action="store_true")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    # Sets and engines that this run leaves out keep what an earlier one found.
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for name in arguments.sets:
        results.setdefault(name, {}).update(measure(name, arguments))
        if arguments.build_only:
            continue
        arguments.out.write_text(json.dumps(results, indent=1))
        plot_recall.write(arguments.svg, {n: e for n, e in results.items() if e}, front)
        show(name, results[name])
    return 0


if __name__ == "__main__":
    sys.exit(main())
