"""Would a second session, or threads that spin, serve a graph better than one session whose threads sleep?

Four ways to run each of the starter's graphs (exact, CPU) with all of the cores, in turns in one process: `together` (what we serve: one
session, a run uses every core), `spinning` (the same, idle threads spin), `apart` (a session a core, one thread each, at the same
time) and `alone` (one session, one thread). Each is measured without a break, and with a break of 5 ms after each run, as when
requests come one at a time: `cpu_ms` is then what a run costs the decoders. `load`: of the machine in the minute before; where others
want the cores too, `cpu_to_together` says more than the rates do. `moved`: of a vector's component, from `together`.
Run: python bench/sessions.py [--bundle starter] [--seconds 0.5] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime as ort

from bindery.bundle import Bundle, find_bundle, open_bundle
from bindery.known_answer import known_input
from bindery.prepare.tokens import TextTokenizer
from bindery.runtime.collate import collate
from bindery.runtime.cores import usable_cores
from bindery.runtime.onnx import session_options
from bindery.runtime.processor import processor_name
from bindery.settings import Settings
from bindery.spec import TextSpec

RESULT = Path(__file__).parent / "results" / "sessions.json"
BATCH = 8
BREAK_S = 0.005


def session(path: Path, threads: int, spins: bool) -> ort.InferenceSession:
    options = session_options(threads)
    if spins:
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def ways(path: Path, feed: dict[str, Any], cores: int, pool: ThreadPoolExecutor) -> dict[str, tuple[int, Callable[[], Any]]]:
    """Runs at once, and what does them."""
    together, spinning = session(path, cores, False), session(path, cores, True)
    apart = [session(path, 1, False) for _ in range(cores)]
    return {
        "together": (1, lambda: together.run(None, feed)[0]),
        "spinning": (1, lambda: spinning.run(None, feed)[0]),
        "apart": (cores, lambda: [run.result()[0] for run in [pool.submit(one.run, None, feed) for one in apart]][-1]),
        "alone": (1, lambda: apart[0].run(None, feed)[0]),
    }


def rate(run: Callable[[], Any], runs: int, seconds: float, pause_s: float) -> tuple[float, float]:
    """Items a second, and milliseconds of processor time an item."""
    began, work, done = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < seconds:
        run()
        done += runs * BATCH
        if pause_s:
            time.sleep(pause_s)
    return done / (time.perf_counter() - began), (time.process_time() - work) * 1000 / done


def measure(bundle: Bundle, modality: str, cores: int, seconds: float, rounds: int) -> list[dict[str, Any]]:
    entry = bundle.modality(modality)
    artefact = next(one for one in entry.artefacts if one.precision == "exact")
    tokenizer = TextTokenizer(bundle.path(entry.spec.tokenizer), entry.spec) if isinstance(entry.spec, TextSpec) else None
    feed = collate([known_input(artefact.inputs, tokenizer)] * BATCH)
    rows = []
    with ThreadPoolExecutor(cores) as pool:
        found = ways(bundle.path(artefact.path), feed, cores, pool)
        vectors = {way: run() for way, (_, run) in found.items()}
        for pause_s in (0.0, BREAK_S):
            taken: dict[str, list[tuple[float, float]]] = {way: [] for way in found}
            for _ in range(rounds):
                for way, (runs, run) in found.items():
                    taken[way].append(rate(run, runs, seconds, pause_s))
            for way, several in taken.items():
                items_per_s, cpu_ms = median(one[0] for one in several), median(one[1] for one in several)
                rows.append(
                    {
                        "modality": modality,
                        "way": way,
                        "break_ms": pause_s * 1000,
                        "items_per_s": round(items_per_s, 1),
                        "cpu_ms": round(cpu_ms, 3),
                        "rate_to_together": round(items_per_s / median(one[0] for one in taken["together"]), 3),
                        "cpu_to_together": round(cpu_ms / median(one[1] for one in taken["together"]), 3),
                        "moved": float(np.abs(vectors[way] - vectors["together"]).max()),
                    }
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="starter")
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    bundle = open_bundle(find_bundle(given.bundle, Settings().bundle_places()))
    cores, load = usable_cores(), os.getloadavg()[0]
    rows: list[dict[str, Any]] = []
    for modality in bundle.manifest.modalities:
        rows += measure(bundle, modality, cores, given.seconds, given.rounds)
        for row in rows[-8:]:
            print(json.dumps(row), flush=True)
    result = {
        "processor": processor_name(),
        "cores": cores,
        "bundle": bundle.name,
        "batch": BATCH,
        "load": load,
        "onnxruntime": ort.__version__,
    }
    RESULT.write_text(json.dumps({**result, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
