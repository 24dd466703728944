# SPDX-License-Identifier: Apache-2.0
"""The engines that peers_graph.py measures, each behind the same four calls, and the process that one runs in.

    peers_engines.py build ENGINE METRIC base.fbin FOLDER [--threads 2]
    peers_engines.py serve ENGINE METRIC query.fbin truth.ibin FOLDER     one setting a line in, one JSON a line out

Every engine has a process of its own: two OpenMP runtimes in one process disturb each other, and a wheel that meets an
instruction this processor lacks kills itself only. `serve` answers each line of its input (a setting, as JSON) with
queries per second by the wall clock and by the process's own time, recall at 10 by id (an id given twice counts once),
and the least that a call can cost: the same call to an index of ten vectors, so that what Python adds can be seen.

The metric is l2 or ip; for cosine the caller has normalised the vectors, as every engine here would or would not.
"""
import argparse
import json
import os
import pathlib
import sys
import time

THREADS = "2" if len(sys.argv) > 1 and sys.argv[1] == "build" else "1"
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LANCE_CPU_THREADS", "RAYON_NUM_THREADS",
              "TOKIO_WORKER_THREADS", "LANCE_IO_THREADS"):
    os.environ[_name] = THREADS

import numpy as np

K = 10
EFS = (10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 450, 640, 900)


def read_matrix(path):
    n, d = np.fromfile(path, dtype="<u4", count=2)
    kind = {".ibin": "<i4", ".fbin": "<f4", ".u8bin": "u1", ".f16bin": "<f2"}[pathlib.Path(path).suffix]
    return np.fromfile(path, dtype=kind, offset=8).reshape(n, d)


class Engine:
    """`build` writes an index to a folder, `load` makes it ready, `prepare` takes a setting, `ask` one query."""

    n_queries = 1000  # slow ones ask fewer

    def __init__(self, metric):
        self.metric = metric

    def settings(self):
        return [{"ef": ef} for ef in EFS]

    def ids(self, answer):
        """What `ask` returned, as integers. Not timed."""
        return [int(i) for i in np.asarray(answer).ravel()]


class Faiss(Engine):
    def __init__(self, metric, factory):
        super().__init__(metric)
        import faiss

        self.faiss, self.factory = faiss, factory

    def build(self, base, folder, threads):
        self.faiss.omp_set_num_threads(threads)
        kind = self.faiss.METRIC_L2 if self.metric == "l2" else self.faiss.METRIC_INNER_PRODUCT
        index = self.faiss.index_factory(base.shape[1], self.factory(base.shape[1]), kind)
        if hasattr(index, "hnsw"):
            index.hnsw.efConstruction = 200
        index.train(base)
        index.add(base)
        self.faiss.write_index(index, str(folder / "index"))

    def load(self, folder):
        self.faiss.omp_set_num_threads(1)
        self.index = self.faiss.read_index(str(folder / "index"))

    def prepare(self, setting):
        self.index.hnsw.efSearch = setting["ef"]

    def ask(self, query):
        return self.index.search(query[None], K)[1]


class FaissIvf(Faiss):
    def settings(self):
        return [{"nprobe": n, "refine": r} for r in (2, 5, 10, 20, 40) for n in (2, 4, 8, 16, 32, 64, 128, 256)]

    def prepare(self, setting):
        self.index.k_factor = setting["refine"]
        self.faiss.extract_index_ivf(self.index.base_index).nprobe = setting["nprobe"]


class Usearch(Engine):
    def __init__(self, metric, kind):
        super().__init__(metric)
        from usearch.index import Index

        self.Index, self.kind = Index, kind

    def make(self, dimension):
        return self.Index(ndim=dimension, metric="l2sq" if self.metric == "l2" else "ip", dtype=self.kind,
                          connectivity=16, expansion_add=200)

    def build(self, base, folder, threads):
        index = self.make(base.shape[1])
        index.add(np.arange(len(base), dtype=np.uint64), base, threads=threads)
        index.save(str(folder / "index"))

    def load(self, folder):
        self.index = self.Index.restore(str(folder / "index"))

    def prepare(self, setting):
        self.index.expansion_search = setting["ef"]

    def ask(self, query):
        return self.index.search(query, K, threads=1).keys


class Svs(Engine):
    """Vamana of degree 32, window 128, alpha 1.2. Unit vectors are searched by l2: the same order, and alpha is
    meant for it."""

    def __init__(self, metric, kind):
        super().__init__(metric)
        import svs

        self.svs, self.kind = svs, kind

    def loader(self, folder):
        if self.kind == "lvq4x8":
            data = self.svs.VectorDataLoader(str(folder / "raw"), self.svs.DataType.float32)
            return self.svs.LVQLoader(data, primary=4, residual=8, strategy=self.svs.LVQStrategy.Turbo)
        kind = self.svs.DataType.float16 if self.kind == "f16" else self.svs.DataType.float32
        return self.svs.VectorDataLoader(str(folder / "data"), kind)

    def build(self, base, folder, threads):
        parameters = self.svs.VamanaBuildParameters(alpha=1.2, graph_max_degree=32, window_size=128)
        if self.kind == "lvq4x8":
            (folder / "raw").mkdir(exist_ok=True)
            self.svs.write_vecs(base, str(folder / "raw.fvecs"))
            self.svs.convert_vecs_to_svs(str(folder / "raw.fvecs"), str(folder / "raw"))
            base = self.loader(folder)
        elif self.kind == "f16":
            base = base.astype(np.float16)
        index = self.svs.Vamana.build(parameters, base, self.svs.DistanceType.L2, num_threads=threads)
        index.save(*(str(folder / part) for part in ("config", "graph", "data")))

    def load(self, folder):
        data = self.svs.SerializedObject(str(folder / "data")) if self.kind == "lvq4x8" else self.loader(folder)
        self.index = self.svs.Vamana(str(folder / "config"), self.svs.GraphLoader(str(folder / "graph")), data,
                                     self.svs.DistanceType.L2, num_threads=1)

    def prepare(self, setting):
        self.index.search_window_size = setting["ef"]

    def ask(self, query):
        return self.index.search(query, K)[0]


class Zvec(Engine):
    """M = 16, efC = 200, contiguous memory; quantised forms with and without a second look at the floats. Unit vectors
    are searched by l2 (the same order): UNIFORM_UINT8 knows no other metric. With rotation (enable_rotate) answers of
    0.8.0 are random, so it is left out."""

    def __init__(self, metric, kind):
        super().__init__(metric)
        import zvec

        zvec.init(query_threads=1, optimize_threads=int(THREADS), log_level=zvec.LogLevel.ERROR)
        self.zvec, self.kind = zvec, kind

    def parameters(self):
        zvec = self.zvec
        shape = {"metric_type": zvec.MetricType.L2, "m": 16, "ef_construction": 200}
        if self.kind == "rabitq":
            return zvec.HnswRabitqIndexParam(**shape)
        return zvec.HnswIndexParam(**shape, use_contiguous_memory=True, use_flat_contiguous_memory=True,
                                   quantize_type=getattr(zvec.QuantizeType, self.kind.upper()))

    def build(self, base, folder, threads):
        zvec = self.zvec
        field = zvec.VectorSchema("v", zvec.DataType.VECTOR_FP32, base.shape[1], index_param=self.parameters())
        collection = zvec.create_and_open(str(folder / "db"), zvec.CollectionSchema(name="bench", vectors=[field]))
        for first in range(0, len(base), 1000):
            rows = [zvec.Doc(id=str(first + i), vectors={"v": row}) for i, row in enumerate(base[first:first + 1000])]
            for status in collection.insert(rows):
                if not status.ok():
                    raise RuntimeError(str(status))
        collection.flush()
        collection.optimize(zvec.OptimizeOption(concurrency=threads))
        collection.flush()

    def load(self, folder):
        option = self.zvec.CollectionOption(read_only=True, enable_mmap=True)
        self.collection = self.zvec.open(str(folder / "db"), option)

    def settings(self):
        return [{"ef": ef, "refine": r} for r in ((0,) if self.kind == "undefined" else (0, 1)) for ef in EFS]

    def prepare(self, setting):
        make = self.zvec.HnswRabitqQueryParam if self.kind == "rabitq" else self.zvec.HnswQueryParam
        refine = setting["refine"] == 1
        self.parameter = make(ef=setting["ef"], is_using_refiner=refine)

    def ask(self, query):
        question = self.zvec.Query(field_name="v", vector=query, param=self.parameter)
        return self.collection.query(question, topk=K, output_fields=[])

    def ids(self, answer):
        return [int(document.id) for document in answer]


class Lance(Engine):
    n_queries = 300

    def __init__(self, metric, kind):
        super().__init__(metric)
        import lancedb

        self.lancedb, self.kind = lancedb, kind

    def build(self, base, folder, threads):
        import pyarrow

        rows = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(base.ravel()), base.shape[1])
        table = self.lancedb.connect(str(folder / "db")).create_table(
            "t", pyarrow.table({"id": pyarrow.array(np.arange(len(base))), "vector": rows}))
        if len(base) < 1000:
            return
        table.create_index(metric="l2" if self.metric == "l2" else "dot", vector_column_name="vector",
                           index_type=self.kind, num_partitions=1, m=16, ef_construction=200)

    def load(self, folder):
        self.table = self.lancedb.connect(str(folder / "db")).open_table("t")

    def settings(self):
        return [{"ef": ef, "refine": r} for r in (0, 1, 3) for ef in EFS if ef >= K * max(r, 1)]

    def prepare(self, setting):
        self.setting = setting

    def ask(self, query):
        search = self.table.search(query).nprobes(1).ef(self.setting["ef"]).limit(K).select(["id"])
        if self.setting["refine"]:
            search = search.refine_factor(self.setting["refine"])
        return search.to_arrow()

    def ids(self, answer):
        return answer["id"].to_pylist()


class SqliteVec(Engine):
    n_queries = 20

    def connect(self, path):
        import sqlite3

        import sqlite_vec

        db = sqlite3.connect(path)
        db.enable_load_extension(True)
        sqlite_vec.load(db)
        return db

    def build(self, base, folder, threads):
        kind = "l2" if self.metric == "l2" else "cosine"
        db = self.connect(folder / "db")
        db.execute(f"CREATE VIRTUAL TABLE v USING vec0(e float[{base.shape[1]}] distance_metric={kind})")
        db.executemany("INSERT INTO v(rowid, e) VALUES(?, ?)", ((i, row.tobytes()) for i, row in enumerate(base)))
        db.commit()

    def load(self, folder):
        self.db = self.connect(folder / "db")
        self.db.execute("PRAGMA mmap_size = 4000000000")

    def settings(self):
        return [{"exact": 1}]

    def prepare(self, setting):
        pass

    def ask(self, query):
        sql = "SELECT rowid FROM v WHERE e MATCH ? AND k = ?"
        return self.db.execute(sql, (query.tobytes(), K)).fetchall()


def fast_scan(dimension):
    """A sub-quantiser for 4 dimensions, for 2 where there are few."""
    return f"IVF1024,PQ{dimension // (4 if dimension >= 256 else 2)}x4fs,RFlat"


ENGINES = {
    "faiss-hnsw32": ("faiss-cpu", lambda m: Faiss(m, lambda d: "HNSW32")),
    "faiss-ivf-pqfs": ("faiss-cpu", lambda m: FaissIvf(m, fast_scan)),
    "usearch-f32": ("usearch", lambda m: Usearch(m, "f32")),
    "usearch-bf16": ("usearch", lambda m: Usearch(m, "bf16")),
    "svs-f32": ("scalable-vs", lambda m: Svs(m, "f32")),
    "svs-f16": ("scalable-vs", lambda m: Svs(m, "f16")),
    "svs-lvq4x8": ("scalable-vs", lambda m: Svs(m, "lvq4x8")),
    "zvec-f32": ("zvec", lambda m: Zvec(m, "undefined")),
    "zvec-uint8": ("zvec", lambda m: Zvec(m, "uniform_uint8")),
    "zvec-uint4": ("zvec", lambda m: Zvec(m, "uniform_uint4")),
    "zvec-int8": ("zvec", lambda m: Zvec(m, "int8")),
    "zvec-rabitq": ("zvec", lambda m: Zvec(m, "rabitq")),
    "lancedb-hnsw-sq": ("lancedb", lambda m: Lance(m, "IVF_HNSW_SQ")),
    "sqlite-vec": ("sqlite-vec", lambda m: SqliteVec(m)),
}


def timed(engine, queries):
    """Seconds a query by the wall and by the process, and the answers."""
    answers = []
    wall, own = time.perf_counter(), time.process_time()
    for query in queries:
        answers.append(engine.ask(query))
    own, wall = time.process_time() - own, time.perf_counter() - wall
    return wall / len(queries), own / len(queries), answers


def serve(name, metric, queries, truth, folder):
    engine, small = ENGINES[name][1](metric), None
    engine.load(folder / "index")
    if (folder / "small").exists():
        small = ENGINES[name][1](metric) if not name.startswith("zvec") else object.__new__(Zvec)
        small.__dict__.update({k: v for k, v in engine.__dict__.items() if k not in ("index", "collection", "table")})
        small.load(folder / "small")
    queries, truth = queries[: engine.n_queries], truth[: engine.n_queries, :K]
    print(json.dumps({"settings": engine.settings(), "n_queries": len(queries)}), flush=True)
    for line in sys.stdin:
        setting = json.loads(line)
        engine.prepare(setting)
        timed(engine, queries[:5])
        wall, own, answers = timed(engine, queries)
        right = sum(len(set(engine.ids(a)[:K]) & set(map(int, t))) for a, t in zip(answers, truth))
        point = {"recall": right / truth.size, "wall_us": wall * 1e6, "cpu_us": own * 1e6, "call_us": 0}
        if small:
            small.prepare({key: min(value, K) if key == "ef" else value for key, value in setting.items()})
            point["call_us"] = timed(small, queries[:200])[1] * 1e6
        print(json.dumps(point), flush=True)


def build(name, metric, base, folder, threads):
    start, own = time.perf_counter(), time.process_time()
    engine = ENGINES[name][1](metric)
    (folder / "index").mkdir(parents=True)
    engine.build(base, folder / "index", threads)
    took = {"build_seconds": time.perf_counter() - start, "build_cpu_seconds": time.process_time() - own}
    try:
        (folder / "small").mkdir()
        engine.build(base[:K], folder / "small", 1)
    except Exception:  # an engine that must be trained has no index so small
        import shutil

        shutil.rmtree(folder / "small")
    files = sum(f.stat().st_size for f in (folder / "index").rglob("*") if f.is_file())
    print(json.dumps({**took, "build_threads": threads, "bytes_per_vector": files / len(base)}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("build", "serve"))
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("metric", choices=("l2", "ip"))
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    *files, folder = arguments.files
    if arguments.what == "build":
        build(arguments.engine, arguments.metric, read_matrix(files[0]), folder, arguments.threads)
    else:
        serve(arguments.engine, arguments.metric, read_matrix(files[0]), read_matrix(files[1]), folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
