"""From where would more HTTP processes pay? What a request of short texts costs in Python, beside what the runtime makes of it.

Two servers: one with a toy bundle, whose graphs cost next to nothing, so that what is left is HTTP, JSON, admission, tokens, batching
and the reply; one with the starter. Processor time of the server's own process is counted, which neighbours on the machine change less
than its speed; they do change it, so the load is told too.
One process feeds at most 1000 / (toy's milliseconds) requests a second. As long as the runtime answers fewer than that, the cores
that another HTTP process would take are the runtime's own.

python bench/http_cost.py            # writes bench/results/http_cost.json
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from closed_loop import Tally, ask
from hostile import ROOT
from server_process import serving

from bindery.traffic.mix import Parcel

sys.path.insert(0, str(ROOT))
from bindery.runtime.processor import processor_name
from tests.toybundle import build_toy_bundle

RESULT = ROOT / "bench/results/http_cost.json"
SHAPES = {"one text": (1, 1500), "16 texts": (16, 150)}
CALLERS = 16
NO_CACHE = {"BINDERY_CACHE_BYTES": "0"}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        toy = build_toy_bundle(Path(folder) / "toy")
        measured = {name: costs(bundle, Path(folder) / f"data-{name}") for name, bundle in (("toy", str(toy)), ("starter", "starter"))}
    shapes = {}
    for shape, (texts, _) in SHAPES.items():
        toy_ms, starter_ms = (measured[name][shape]["cpu_ms_a_request"] for name in ("toy", "starter"))
        shapes[shape] = {
            "toy": measured["toy"][shape],
            "starter": measured["starter"][shape],
            "one_process_feeds_texts_per_s": round(texts * 1000 / toy_ms),
            "runtime_ms_a_text": round((starter_ms - toy_ms) / texts, 2),
            "runtimes_cores_fed_by_one_process": round((starter_ms - toy_ms) / toy_ms, 1),
        }
    result = {
        "what": "processor time of the server's process for requests of short texts, toy bundle beside starter, 16 callers, no cache",
        "command": "python bench/http_cost.py",
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "shapes": shapes,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def costs(bundle: str, data: Path) -> dict[str, dict[str, Any]]:
    with serving(bundle, data, NO_CACHE) as server:
        found = {}
        for name, (texts, requests) in SHAPES.items():
            asked(server.url, texts, requests // 10, "warm")
            before = cpu_s(server.process.pid)
            tally = asked(server.url, texts, requests, "measured")
            spent = cpu_s(server.process.pid) - before
            assert tally.good >= requests, tally.others
            found[name] = {"cpu_ms_a_request": round(1000 * spent / tally.good, 3), "requests_per_s": round(tally.per_s, 1)}
        return found


def asked(url: str, texts: int, requests: int, word: str) -> Tally:
    return asyncio.run(ask(url, parcels(texts, word), CALLERS, lambda begun, _: begun < requests))


def parcels(texts: int, word: str) -> Iterator[Parcel]:
    number = 0
    while True:
        inputs = [f"a small red dog runs over the {word} hill number {number + index}" for index in range(texts)]
        number += texts
        yield Parcel("text", "application/json", json.dumps({"inputs": inputs}).encode())


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
