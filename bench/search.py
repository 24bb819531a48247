"""What does a search cost, and what does it find? A collection, through the library and over HTTP, beside bare libraries in one run.

Data: `clustered.py`. Same-modality queries are new images, cross-modal ones are texts, both look for images; ten hits, one query a call,
one thread. Times are processor time of the processes that do the work, so a busy machine matters less; every contender has a process of
its own. What comes once after a start is told apart (`after_start`): a collection's process, and the server, first answer a hundred other
queries and compare every row once, and are measured when nothing runs in their background any more. Contenders that have a dial are told
at the first setting that reaches a recall@10 of 0.98, and again at the first that finds as much as the collection found in this run.
Filters let pass a random part of the rows, or rows of the topics that are nearest to, or farthest from, the query's own.

Run: nice python bench/search.py [--rows 100000 1000000] [--without PEER ...]
     [--quick: 20,000 rows; as of --only PART ..., nothing is kept]
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import http.client
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import faiss
import numpy as np
from clustered import DIMENSION, TOP, Clustered, Floats, best, make, recall, scores
from search_peers import GRAPHS, PEERS
from server_process import serving

from bindery.bundle import find_bundle, open_bundle
from bindery.collections import Item, Query, Store
from bindery.collections.tiers import Tiers
from bindery.runtime.processor import processor_name

RESULT = Path(__file__).parent / "results" / "search.json"
WANTED = 0.98
BUNDLE = "starter"
NAME = "bench"
_SHARES = {"50 %": 0.5, "10 %": 0.1, "1 %": 0.01, "0.1 %": 0.001}
_FILTERED = 40  # queries of each kind with filters
_FIRST = 100  # queries after a start
_IDLE_S = 4.0  # over which the server is watched when nobody asks
_CAPTIONS = 2000  # stored texts beside the images
_MIXED = 300  # texts that look for their picture in one list with other texts
_AS_GOOD = "as_good.json"
_SOURCES = {"same": "image", "cross": "text"}
Told = dict[str, Any]
Filter = dict[str, Any]


class Meter:
    """Processor time of this process and memory of its own, since its making."""

    def __init__(self) -> None:
        self._anonymous, self._mapped = _resident_mib()
        self._busy = time.process_time()

    def cpu_s(self) -> float:
        return round(time.process_time() - self._busy, 2)

    def memory(self) -> Told:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        anonymous, mapped = _resident_mib()
        return {"anonymous_mib": round(anonymous - self._anonymous, 1), "mapped_mib": round(mapped - self._mapped, 1)}


def _resident_mib() -> tuple[float, float]:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(lines[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile"))  # type: ignore[return-value]


def asked(answer: Callable[[int], list[int]], truth: np.ndarray, clock: Callable[[], float] = time.process_time) -> Told:
    """Recall, processor time and median time of the queries 0, 1, ..., after one more to warm up."""
    answer(0)
    found, waits = [], []
    busy = clock()
    for number in range(len(truth)):
        began = time.perf_counter()
        found.append(answer(number))
        waits.append(time.perf_counter() - began)
    cpu_ms = (clock() - busy) * 1000 / len(truth)
    return {"recall": round(recall(found, truth), 4), "cpu_ms": round(cpu_ms, 3), "median_ms": round(median(waits) * 1000, 3)}


def started(answer: Callable[[int], object], compare_all: Callable[[], object], clock: Callable[[], float]) -> Told:
    """What a start costs once: the first queries, the first touch of every row, and what begins in the background (checks, a probe)."""
    busy = clock()
    for number in range(_FIRST):
        answer(number)
    compare_all()
    while True:
        before = clock()
        time.sleep(2)
        if clock() - before < 0.05:
            return {"queries": _FIRST, "cpu_s": round(clock() - busy, 2)}


# Contenders, each in a process of its own


def run_peer(data: Clustered, name: str, as_good: dict[str, float]) -> Told:
    """``as_good``: the recall that the collection reached, for each kind of query."""
    meter = Meter()
    counted, settings = PEERS[name](data.path, data.rows)
    told: Told = {"build_cpu_s": meter.cpu_s(), "bytes_per_row": counted, "memory": meter.memory()}
    for kind, queries in data.queries.items():
        for setting, answer in settings():
            found = asked(lambda number, queries=queries, answer=answer: answer(queries[number]), data.truth[kind])  # type: ignore[misc]
            told[f"{kind}, as good"] = found | {"setting": setting}
            if kind not in told or told[kind]["recall"] < WANTED:
                told[kind] = found | {"setting": setting}
            if found["recall"] >= max(WANTED, as_good.get(kind, 0.0)):
                break
    return told


def run_store(data: Clustered, folder: Path) -> Told:
    """Fill a collection; then, apart, build its index."""
    space = open_bundle(find_bundle(BUNDLE)).manifest.space
    buckets = np.random.default_rng(1).integers(0, 1000, data.rows)
    meter = Meter()
    with Store(folder, tiers=Tiers(exact_rows=2**60)) as store:
        collection = store.create(NAME, space=space, dimension=DIMENSION, bundle=BUNDLE, fields={"bucket": "integer", "topic": "integer"})
        for first, piece in data.pieces():
            items = [
                Item(f"i{n}", "image", row, metadata={"bucket": int(buckets[n]), "topic": int(data.topic[n])})
                for n, row in enumerate(piece, first)
            ]
            for start in range(0, len(items), 1000):
                collection.upsert(items[start : start + 1000])
        collection.upsert([Item(f"t{n}", "text", row, metadata={"topic": int(data.topic[n])}) for n, row in enumerate(data.captions)])
    told: Told = {"store_cpu_s": meter.cpu_s()}
    meter = Meter()
    with Store(folder) as store:
        store.get(NAME).seal()  # and measure its recall
        told |= {"build_cpu_s": meter.cpu_s(), "build_memory": meter.memory()}
        told["disk_mib"] = round(store.get(NAME).state().disk_bytes / 2**20)
    return told


def run_library(data: Clustered, folder: Path) -> Told:
    meter, began = Meter(), time.perf_counter()
    with Store(folder) as store:
        collection = store.get(NAME)
        told: Told = {}

        def answers(queries: Floats, source: str | None, exact: bool = False) -> Callable[[int], list[int]]:
            return lambda number: _rows(collection.search(_query(queries[number], source, None, exact)).hits)

        first = collection.search(_query(data.queries["cross"][0], "text", None, False))
        told["restart"] = {"to_first_answer_s": round(time.perf_counter() - began, 3), "cpu_s": meter.cpu_s()}
        told["plan"] = first.plan
        told["after_start"] = started(
            answers(data.captions, None), lambda: collection.search(_query(data.captions[0], None, None, True)), time.process_time
        )
        for kind, queries in data.queries.items():
            told[kind] = asked(answers(queries, _SOURCES[kind]), data.truth[kind])
            told[kind]["plan"] = collection.search(_query(queries[0], _SOURCES[kind], None, False)).plan["modalities"]["image"]
            told[f"{kind}, modality not told"] = asked(answers(queries, None), data.truth[kind])
            told[f"{kind}, exact"] = asked(answers(queries[:_FILTERED], _SOURCES[kind], True), data.truth[kind][:_FILTERED])
        state = collection.state()
        told["probed_recall"] = {modality: dict(one.recall) for modality, one in state.partitions.items()}
        told["memory"] = {**meter.memory(), "index_mib": round(state.memory_bytes / 2**20, 1), "float32_flat_mib": data.rows * 3072 / 2**20}
        told["mixed"] = _mixed(data, collection)
        told["filters"] = _filters(data, collection)
    return told


def _mixed(data: Clustered, collection: Any) -> Told:
    """Texts look for the picture that they describe, in one list with the other texts: by cosine, centred, and among pictures alone."""

    def found(modalities: tuple[str, ...] | None, centred: bool) -> Told:
        pictures = described = 0
        for number in range(asking):
            own = Query(data.captions[number], TOP, modalities, query_modality="text", exclude_ids=(f"t{number}",), centred=centred)
            hits = collection.search(own).hits
            pictures += sum(hit.modality == "image" for hit in hits)
            described += any(hit.id == f"i{number}" for hit in hits)
        return {"pictures_among_hits": round(pictures / asking / TOP, 3), "found_their_picture": round(described / asking, 3)}

    asking = min(_MIXED, len(data.captions))
    return {
        "queries": asking,
        "by cosine": found(None, False),
        "centred": found(None, True),
        "pictures alone": found(("image",), False),
    }


def _filters(data: Clustered, collection: Any) -> Told:
    buckets = np.random.default_rng(1).integers(0, 1000, data.rows)
    told: Told = {}
    for kind, queries in data.queries.items():
        few = queries[:_FILTERED]
        known = scores(data.path, data.rows, few)
        for name, share in _SHARES.items():
            cases: dict[str, list[tuple[Filter, np.ndarray]]] = {
                f"{name} random": [({"bucket": {"lt": round(1000 * share)}}, buckets < round(1000 * share))] * len(few)
            }
            if share <= 0.1:
                cases |= {
                    f"{name} {side} the query": [_topical(data, topic, share, side) for topic in data.query_topic[kind][:_FILTERED]]
                    for side in ("near", "against")
                }
            for case, filters in cases.items():
                masked = np.stack([np.where(mask, own, -np.inf) for (_, mask), own in zip(filters, known, strict=True)])
                truth = best(masked)
                searching = [_query(one, _SOURCES[kind], filter, False) for one, (filter, _) in zip(few, filters, strict=True)]
                found = asked(lambda number, searching=searching: _rows(collection.search(searching[number]).hits), truth)  # type: ignore[misc]
                line = collection.search(searching[0]).plan["modalities"]["image"]
                told[f"{kind}, {case}"] = found | {"allowed": int(np.mean([mask.sum() for _, mask in filters])), "plan": line["plan"]}
    return told


def _topical(data: Clustered, topic: int, share: float, side: str) -> tuple[Filter, np.ndarray]:
    """A filter that lets pass about that share of the rows: those of the topics most, or least, like the query's."""
    order = data.world.topics_by_nearness(topic)
    order = order if side == "near" else order[::-1]
    sizes = np.cumsum(np.bincount(data.topic, minlength=len(order))[order])
    chosen = order[: 1 + int(np.searchsorted(sizes, share * data.rows))]
    return {"topic": {"in": [int(one) for one in chosen]}}, np.isin(data.topic, chosen)


def run_http(data: Clustered, folder: Path) -> Told:
    with serving(BUNDLE, folder, {"BINDERY_THREADS": "1"}) as server:
        where = urlsplit(server.url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port)

        def answers(queries: Floats, **more: object) -> Callable[[int], list[int]]:
            bodies = [json.dumps({"vector": one.tolist(), "top_k": TOP, "modalities": ["image"], **more}) for one in queries]

            def answer(number: int) -> list[int]:
                connection.request("POST", f"/v1/collections/{NAME}/search", bodies[number], {"Content-Type": "application/json"})
                reply = connection.getresponse()
                body = json.loads(reply.read())
                if reply.status != 200:
                    raise RuntimeError(body)
                return [int(hit["id"][1:]) for hit in body["hits"]]

            return answer

        told: Told = {
            "after_start": started(answers(data.captions[:_FIRST]), lambda: answers(data.captions[:1], exact=True)(0), server.cpu_s)
        }
        told |= {kind: asked(answers(queries), data.truth[kind], server.cpu_s) for kind, queries in data.queries.items()}
        busy, began = server.cpu_s(), time.perf_counter()
        time.sleep(_IDLE_S)
        told["idle_cpu_share"] = round((server.cpu_s() - busy) / (time.perf_counter() - began), 4)
        return told


def _query(vector: Floats, source: str | None, filter: Filter | None, exact: bool) -> Query:
    """``source``: the modality of the query, when it is told."""
    return Query(vector, TOP, ("image",), filter, query_modality=source, exact=exact)


def _rows(hits: Sequence[Any]) -> list[int]:
    return [int(hit.id[1:]) for hit in hits]


PARTS = {"store": run_store, "library": run_library, "http": run_http}

# The whole


def measure(told: Told, rows: int, queries: int, without: Sequence[str], only: Sequence[str], *, keep: bool) -> None:
    """Into ``told``; ``keep``: in the results, after each contender, since they take minutes. ``only``: these parts."""
    with tempfile.TemporaryDirectory(prefix="bindery-bench-") as place:
        folder = Path(place)
        data = make(folder, rows, queries, min(_CAPTIONS, rows))
        (folder / "data.pickle").write_bytes(pickle.dumps(data))
        told |= {"rows": rows, "queries_of_each_kind": queries, "vectors": data.figures, "peers": {}}
        for part in only or PARTS:
            told[part] = _apart(folder, part)
            print(part, json.dumps(told[part]), flush=True)
        if "library" in told:
            (folder / _AS_GOOD).write_text(json.dumps({kind: told["library"][kind]["recall"] for kind in _SOURCES}))
        for name in PEERS:
            if name not in without and not only:
                told["peers"][name] = _apart(folder, name)
                print(name, json.dumps(told["peers"][name]), flush=True)
                told["aims"] = _aims(told)
                if keep:
                    _keep(told)


def _keep(told: Told) -> None:
    """In the file, beside what it has of other sizes, and of peers that this run leaves out."""
    kept = json.loads(RESULT.read_text())["sizes"] if RESULT.exists() else []
    for earlier in kept:
        if earlier["rows"] == told["rows"]:
            others = {**earlier.get("peers_of_an_earlier_run", {}), **earlier["peers"]}
            told["peers_of_an_earlier_run"] = {name: one for name, one in others.items() if name not in told["peers"]}
    result = sorted([size for size in kept if size["rows"] != told["rows"]] + [told], key=lambda size: size["rows"])
    RESULT.write_text(json.dumps({"sizes": result}, indent=1) + "\n")


def _aims(told: Told) -> Told:
    """The figures that the project promises, each beside its bound."""
    library, http, sq8 = told["library"], told["http"], told["peers"].get("faiss flat SQ8")
    served_ms = http["cross"]["cpu_ms"] - http["idle_cpu_share"] * http["cross"]["median_ms"]
    bare = told["peers"].get("faiss PQ4 fast-scan + fp16")
    aims: Told = {
        "recall_same (>= 0.98)": library["same"]["recall"],
        "recall_cross (>= 0.98)": library["cross"]["recall"],
        "least_recall_with_filters (>= 0.98)": min(case["recall"] for case in library["filters"].values()),
        "build_cpu_s_per_100k (<= 3)": round(told["store"]["build_cpu_s"] * 100_000 / told["rows"], 2),
        "memory_over_float32_flat (<= 0.4)": round(library["memory"]["anonymous_mib"] / library["memory"]["float32_flat_mib"], 3),
        "http_adds_ms (<= 2)": round(served_ms - library["cross, modality not told"]["cpu_ms"], 2),
        "restart_to_first_answer_s (<= 3)": library["restart"]["to_first_answer_s"],
    }
    if sq8 is not None:
        aims["cross_cpu_over_flat_sq8 (<= 0.2)"] = round(library["cross"]["cpu_ms"] / sq8["cross"]["cpu_ms"], 3)
    if bare is not None:
        aims |= {
            f"{kind}_cpu_over_bare_faiss (<= 2)": round(library[kind]["cpu_ms"] / bare[f"{kind}, as good"]["cpu_ms"], 2)
            for kind in _SOURCES
        }
    return aims


def _apart(folder: Path, part: str) -> Told:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # noqa: TID251 - the child's environment
    command = [sys.executable, __file__, "--part", part, "--folder", str(folder)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def run_part(part: str, folder: Path) -> None:
    faiss.omp_set_num_threads(1)
    data: Clustered = pickle.loads((folder / "data.pickle").read_bytes())
    if part in PARTS:
        told = PARTS[part](data, folder / "data")
    else:
        as_good = folder / _AS_GOOD
        told = run_peer(data, part, json.loads(as_good.read_text()) if as_good.exists() else {})
    print(json.dumps(told))


def main(sizes: Sequence[int], without: Sequence[str], only: Sequence[str], *, keep: bool) -> None:
    for rows in sizes:
        about: Told = {
            "processor": processor_name(),
            "cores": len(os.sched_getaffinity(0)),
            "faiss": f"{faiss.__version__}, {faiss.get_compile_options().strip()}",
            "load_before": round(os.getloadavg()[0], 2),
        }
        slow = list(without) + (list(GRAPHS) if rows > 200_000 else [])
        measure(about, rows, 200 if rows == 100_000 else 100, slow, only, keep=keep)
        if not only:
            print(json.dumps(about["aims"], indent=1), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--quick", action="store_true", help="20,000 rows, whatever --rows says; writes nothing")
    parser.add_argument("--without", nargs="*", default=[], choices=list(PEERS))
    parser.add_argument(
        "--only", nargs="*", default=[], choices=[*PARTS, *PEERS], help="these parts, in this order; store before library and http"
    )
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        run_part(arguments.part, arguments.folder)
    else:
        main(
            [20_000] if arguments.quick else arguments.rows, arguments.without, arguments.only, keep=not (arguments.quick or arguments.only)
        )
