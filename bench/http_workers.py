"""From where do more HTTP processes pay? What a request costs in the engine's process and in those that speak HTTP: 1, 2 or 3 of them.

A toy bundle, whose graphs cost next to nothing, so that what is left is HTTP, JSON, admission, tokens, batching and the reply. Processor
time of each process is counted, over the same requests from the same callers. One process feeds at most 1000 / (its milliseconds a request)
requests a second; in front of an engine's process that bound is the engine's share alone, and the HTTP share is divided by N. From it
follows how many cores they need: with fewer, more processes only add their own cost, which is told too.

python bench/http_workers.py            # writes bench/results/http_workers.json
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hostile import ROOT
from http_cost import NO_CACHE, asked, cpu_s
from server_process import Server, serving

sys.path.insert(0, str(ROOT))
from bindery.runtime.processor import processor_name
from tests.toybundle import build_toy_bundle

RESULT = ROOT / "bench/results/http_workers.json"
SHAPES = {"one text": (1, 1000), "16 texts": (16, 150)}
WORKERS = (1, 2, 3)
ROUNDS = 2  # each in turn, so that all meet the same neighbours


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        toy = build_toy_bundle(folder / "toy")
        found: dict[int, dict[str, list[dict[str, float]]]] = {count: {shape: [] for shape in SHAPES} for count in WORKERS}
        for turn in range(ROUNDS):
            for count in WORKERS:
                settings = NO_CACHE | {"BINDERY_HTTP_WORKERS": str(count)}
                with serving(str(toy), folder / f"data-{count}-{turn}", settings) as server:
                    for shape, (texts, requests) in SHAPES.items():
                        found[count][shape].append(cost(server, texts, requests))
    result = {
        "what": "processor time by process for requests of short texts, toy bundle, 16 callers, no cache; the higher of two rounds",
        "command": "python bench/http_workers.py",
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "shapes": {shape: summary({count: found[count][shape] for count in WORKERS}) for shape in SHAPES},
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def cost(server: Server, texts: int, requests: int) -> dict[str, float]:
    """Milliseconds of processor time a request: in the engine's process, and in all HTTP processes together."""
    engine, fronts = processes(server)
    while True:
        while asked(server.url, texts, requests // 10, "warm").others:  # one of the processes is not up yet
            time.sleep(0.1)
        before = {pid: cpu_s(pid) for pid in (engine, *fronts)}
        tally = asked(server.url, texts, requests, "measured")
        if not tally.others:
            break
        print(
            f"{len(fronts)} before one engine, {texts} texts: {dict(tally.others)} refused: the machine stood still for a while; once more",
            file=sys.stderr,
        )
    spent = {pid: 1000 * (cpu_s(pid) - before[pid]) / tally.good for pid in before}
    return {"engine": spent[engine], "http": sum(spent[pid] for pid in fronts), "requests_per_s": tally.per_s}


def processes(server: Server) -> tuple[int, list[int]]:
    """The engine's process (the server's own when there is no other) and those in front of it."""
    tree = server.tree()
    parents = {pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in tree}
    under = [pid for pid in tree if parents[pid] == server.process.pid and b"resource_tracker" not in _command(pid)]
    spawned = [pid for pid in under if b"spawn_main" in _command(pid)]
    if not spawned:
        return server.process.pid, []
    (engine,) = (pid for pid in spawned if pid in parents.values())
    return engine, [pid for pid in spawned if pid != engine]


def summary(rounds: dict[int, list[dict[str, float]]]) -> dict[str, Any]:
    alone = _higher(rounds[1], "engine")
    rows: dict[str, Any] = {}
    for count, several in rounds.items():
        engine, http = _higher(several, "engine"), _higher(several, "http")
        rows[f"{count} HTTP {'process' if count == 1 else 'processes'}"] = {
            "engine_ms_a_request": round(engine, 3),
            "http_ms_a_request": round(http, 3),
            "all_over_one_process": round((engine + http) / alone, 2),
            "most_requests_over_one_process": round(alone / max(engine, http / count), 2),
            "cores_for_that": round((engine + http) / max(engine, http / count), 1),
            "requests_per_s_here": round(_higher(several, "requests_per_s"), 1),
        }
    return rows


def _higher(rounds: list[dict[str, float]], name: str) -> float:
    return max(one[name] for one in rounds)


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


if __name__ == "__main__":
    main()
