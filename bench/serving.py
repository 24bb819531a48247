"""What does serving cost? Real servers on this machine's cores, real HTTP, the load generator beside them on the same cores.

saturated  items/s through HTTP over the bare runtime's on ready tensors, by modality: the starter, and ViT-L-size towers
peers      the same towers in FastAPI and torch with a lock, saturated in turn with ours; and Infinity with towers of the same shape
overload   goodput at three times what the machine can do, over its peak; how fast the rejected are answered
poison     goodput with one broken file in a hundred, over goodput without
soak       memory, processes and files over a long mixed load
latency    one short text alone: HTTP over the runtime
start      from `bindery serve` to its first 200 on /readyz, starter, warm file cache

What is compared runs in short turns, so that a neighbour's load falls on both sides; ratios are medians over the turns.
Run: python bench/serving.py [--only saturated ...] [--quick] [--soak-minutes 20] [--scratch DIR] [--infinity DIR/bin/python]
The large bundle is made once in the scratch directory (minutes, 4.5 GB). Parts that are not run keep their last figures.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from closed_loop import OURS, one_by_one, saturate
from infinity_beside import PATH, as_it_asks, model_for
from server_process import Server, infinity_peer, serving, torch_peer
from under_stress import overload, poison, soak

from bindery.bundle import Bundle, find_bundle, open_bundle
from bindery.decoded import Tensors
from bindery.kinds import KINDS, parse_options
from bindery.limits import Limits
from bindery.media.source import Source
from bindery.prepare.tokens import TextTokenizer
from bindery.runtime.collate import collate
from bindery.runtime.encoder import Encoder
from bindery.runtime.open import open_encoder
from bindery.runtime.processor import processor_name
from bindery.spec import TextSpec
from bindery.traffic.mix import Mix, Parcel

RESULT = Path(__file__).parent / "results/serving.json"
BATCH = 16
MANY = 32  # texts of one request, as clients send that have many
CALLERS = {"text": 64, "texts": 4, "image": 32, "audio": 16, "video": 8}
PATIENT = {"BINDERY_LIMITS__QUEUE_MS": "600000"}  # a few callers of large towers are a queue of more than ten seconds
LARGE_CALLERS = {"text": 32, "texts": 2, "image": 6, "audio": 4, "video": 3}


@dataclass(frozen=True, slots=True)
class Effort:
    seconds: float  # of one turn
    turns: int
    soak_minutes: float


def parcels(kind: str, seed: int | None = None) -> Iterator[Parcel]:
    """No two equal. ``texts``: requests of `MANY` texts each, none of them one of ``text``, or the cache would answer."""
    seed = (7 if kind == "texts" else 0) if seed is None else seed
    mix = Mix({"text" if kind == "texts" else kind: 1.0}, 0.0, random.Random(seed))
    while True:
        one = mix.draw()
        if kind == "texts":
            texts = [json.loads(one.body)["inputs"][0], *(json.loads(mix.draw().body)["inputs"][0] for _ in range(MANY - 1))]
            one = Parcel("text", "application/json", json.dumps({"inputs": texts}).encode())
        yield one


def ready_tensors(bundle: Bundle, modality: str, count: int) -> list[Tensors]:
    spec, drawn = bundle.modality(modality).spec, parcels(modality, seed=1)
    bodies = [next(drawn).body for _ in range(count)]
    if isinstance(spec, TextSpec):
        tokenizer = TextTokenizer(bundle.path(spec.tokenizer), spec)
        return [tokenizer.encode(json.loads(body)["inputs"][0]).tensors for body in bodies]
    prepare = KINDS[spec.kind].prepare
    assert prepare is not None
    return [prepare(Source.of(body), spec, parse_options(spec.kind, {}), Limits()).tensors for body in bodies]


def prepare_cpu_ms(bundle: Bundle, modality: str, count: int = 20) -> float | None:
    """What decoding and preparing an item takes, by itself and in this process; None for text, which is not decoded."""
    spec, drawn = bundle.modality(modality).spec, parcels(modality, seed=2)
    prepare = KINDS[spec.kind].prepare
    if prepare is None:
        return None
    bodies, options = [next(drawn).body for _ in range(count)], parse_options(spec.kind, {})
    prepare(Source.of(next(drawn).body), spec, options, Limits())
    busy = time.process_time()
    for body in bodies:
        prepare(Source.of(body), spec, options, Limits())
    return (time.process_time() - busy) * 1000 / count


Rate = tuple[float, float]
"""Items a second, and milliseconds of processor time an item, decoders and HTTP included. Neighbours change the second one little."""


def bare_rate(encoder: Encoder, batch: Tensors, seconds: float) -> Rate:
    rows, done, began, busy = len(next(iter(batch.values()))), 0, time.perf_counter(), time.process_time()
    while done == 0 or time.perf_counter() - began < seconds:
        encoder.encode(batch)
        done += rows
    return done / (time.perf_counter() - began), (time.process_time() - busy) * 1000 / done


def http_rate(server: Server, drawn: Iterator[Parcel], callers: int, seconds: float, items: int = 1, path: str = OURS) -> Rate:
    """``items``: of each request."""
    busy = server.cpu_s()
    tally = saturate(server.url, drawn, callers, seconds, callers, path)
    if tally.others:
        raise RuntimeError(f"{server.url} answered {dict(tally.others)}")
    return tally.per_s * items, (server.cpu_s() - busy) * 1000 / (tally.good * items)


def in_turns(ours: Callable[[], Rate], other: Callable[[], Rate], turns: int) -> dict[str, Any]:
    """Medians of both and of their ratios, ours over the other. ``cpu_ratio``: what the ratio is when the cores are all there is."""
    pairs = [(other(), ours()) for _ in range(turns)]
    ratios = sorted(mine[0] / theirs[0] for theirs, mine in pairs)
    return {
        "ours_per_s": round(median(mine[0] for _, mine in pairs), 3),
        "other_per_s": round(median(theirs[0] for theirs, _ in pairs), 3),
        "ratio": round(median(ratios), 3),
        "ratio_min_max": [round(ratios[0], 3), round(ratios[-1], 3)],
        "ours_cpu_ms": round(median(mine[1] for _, mine in pairs), 2),
        "other_cpu_ms": round(median(theirs[1] for theirs, _ in pairs), 2),
        "cpu_ratio": round(median(theirs[1] / mine[1] for theirs, mine in pairs), 3),
    }


def saturated(directory: Path, callers: dict[str, int], effort: Effort) -> dict[str, Any]:
    bundle, rows = open_bundle(directory), {}
    with tempfile.TemporaryDirectory() as data, serving(str(directory), Path(data), PATIENT) as server:
        for kind, count in callers.items():
            modality = "text" if kind == "texts" else kind
            encoder, drawn = open_encoder(bundle, modality), parcels(kind)
            size = min(BATCH, encoder.max_batch)
            spec = bundle.modality(modality).spec
            batch = collate(ready_tensors(bundle, modality, size), spec.pad_id if isinstance(spec, TextSpec) else 0)
            encoder.encode(batch)
            saturate(server.url, drawn, count, 0.2, count)
            many = MANY if kind == "texts" else 1
            rows[kind] = in_turns(
                lambda drawn=drawn, count=count, many=many: http_rate(server, drawn, count, effort.seconds, many),  # type: ignore[misc]
                lambda encoder=encoder, batch=batch: bare_rate(encoder, batch, effort.seconds),  # type: ignore[misc]
                effort.turns,
            )
            decoding = prepare_cpu_ms(bundle, modality)
            if decoding is not None:  # the runtime's tensors are ready, the server's are not: this is the rest of the difference
                floor = rows[kind]["other_cpu_ms"] + decoding
                rows[kind] |= {
                    "decoding_cpu_ms": round(decoding, 2),
                    "cpu_ratio_with_decoding": round(floor / rows[kind]["ours_cpu_ms"], 3),
                }
            print(kind, json.dumps(rows[kind]), flush=True)
    return rows


PRECISIONS = ("exact", "bf16")


def peers(directory: Path, effort: Effort, scratch: Path, infinity: Path | None) -> dict[str, Any]:
    found: dict[str, Any] = {"fastapi_torch_lock": {}, "infinity": "not measured: it needs an environment of its own (--infinity)"}
    found["fastapi_torch_lock"] = _beside(directory, effort, lambda: torch_peer(["text", "image"]), lambda drawn: drawn, OURS)
    if infinity is not None:
        model = model_for(infinity, scratch)
        found["infinity"] = _beside(directory, effort, lambda: infinity_peer(infinity, model), as_it_asks, PATH)
    return found


def _beside(
    directory: Path,
    effort: Effort,
    open_peer: Callable[[], AbstractContextManager[Server]],
    as_peer: Callable[[Iterator[Parcel]], Iterator[Parcel]],
    path: str,
) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for precision in PRECISIONS:
        with (
            tempfile.TemporaryDirectory() as data,
            serving(str(directory), Path(data), {"BINDERY_PRECISION": precision, **PATIENT}) as ours,
            open_peer() as peer,
        ):
            for kind in ("text", "image"):
                count, mine, theirs = LARGE_CALLERS[kind], parcels(kind), as_peer(parcels(kind))
                saturate(ours.url, mine, 2, 0.2, 2)
                saturate(peer.url, theirs, 2, 0.2, 2, path)
                rows[f"{kind}, bindery {precision}"] = in_turns(
                    lambda mine=mine, count=count, ours=ours: http_rate(ours, mine, count, effort.seconds),  # type: ignore[misc]
                    lambda theirs=theirs, count=count, peer=peer: http_rate(peer, theirs, count, effort.seconds, path=path),  # type: ignore[misc]
                    effort.turns,
                )
                print(kind, precision, json.dumps(rows[f"{kind}, bindery {precision}"]), flush=True)
    return rows


def latency(effort: Effort) -> dict[str, Any]:
    """One short text at a time, in turns with the runtime on its ready tensors."""
    bundle = open_bundle(find_bundle("starter"))
    encoder, batch = open_encoder(bundle, "text"), collate(ready_tensors(bundle, "text", 1))
    bare, http, busy = [], [], 0.0
    with tempfile.TemporaryDirectory() as data, serving("starter", Path(data)) as server:
        drawn = parcels("text")
        one_by_one(server.url, drawn, 20)
        before = server.cpu_s()
        encoder.encode(batch)
        for _ in range(max(20, effort.turns * 10)):
            began = time.perf_counter()
            encoder.encode(batch)
            bare.append((time.perf_counter() - began) * 1000)
            http += one_by_one(server.url, drawn, 5).latencies_ms[1:]  # the first one opens the connection
        busy = server.cpu_s() - before
    return {
        "server_cpu_ms_per_request": round(busy * 1000 / (len(http) / 4 * 5), 2),
        "runtime_ms_p50": round(median(bare), 2),
        "http_ms_p50": round(median(http), 2),
        "overhead_ms_p50": round(median(http) - median(bare), 2),
    }


def start(effort: Effort) -> dict[str, Any]:
    times, busy = [], []
    for _ in range(effort.turns + 1):
        with tempfile.TemporaryDirectory() as data, serving("starter", Path(data)) as server:
            times.append(server.ready_s)
            busy.append(server.cpu_s())
    warm = sorted(times[1:])
    return {
        "seconds_median": round(median(warm), 2),
        "seconds_min_max": [round(warm[0], 2), round(warm[-1], 2)],
        "cpu_s_median": round(median(busy[1:]), 2),
        "starts": len(warm),
    }


PARTS = ("start", "latency", "saturated", "overload", "poison", "soak", "saturated_large", "peers")


def large(scratch: Path) -> Path:
    from large_bundle import large_bundle  # torch, which the other parts do not need

    return large_bundle(scratch)


def run(part: str, effort: Effort, scratch: Path, infinity: Path | None) -> dict[str, Any]:
    match part:
        case "start":
            return start(effort)
        case "latency":
            return latency(effort)
        case "saturated":
            return saturated(find_bundle("starter"), CALLERS, effort)
        case "saturated_large":
            return saturated(large(scratch), LARGE_CALLERS, effort)
        case "peers":
            return peers(large(scratch), effort, scratch, infinity)
        case "overload":
            return overload(effort.seconds, effort.turns)
        case "poison":
            return poison(effort.seconds, effort.turns)
        case "soak":
            return soak(effort.soak_minutes)
    raise AssertionError(part)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="tiny, without the large bundle; writes nothing unless --out is given")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--soak-minutes", type=float, default=20.0)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "bindery-bench")
    parser.add_argument("--infinity", type=Path, help="for the peers: the Python that bench/infinity_model.py asks for")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    effort = Effort(arguments.seconds, arguments.turns, arguments.soak_minutes)
    if arguments.quick:
        effort = Effort(0.5, 2, 0.2)
    out = arguments.out or (None if arguments.quick else RESULT)
    document = json.loads(out.read_text()) if out and out.is_file() else {}
    for part in arguments.only:
        if arguments.quick and part in ("saturated_large", "peers"):
            continue
        before, began = os.getloadavg()[0], time.time()
        figures = run(part, effort, arguments.scratch, arguments.infinity)
        document[part] = {
            **figures,
            "how": {
                "processor": processor_name(),
                "cores": len(os.sched_getaffinity(0)),
                "load_average_before": round(before, 1),
                "at": time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(began)),
                "took_s": round(time.time() - began),
                "quick": arguments.quick,
            },
        }
        print(part, json.dumps(document[part], indent=1), flush=True)
        if out is not None:
            out.write_text(json.dumps({name: document[name] for name in PARTS if name in document}, indent=1) + "\n")


if __name__ == "__main__":
    main()
