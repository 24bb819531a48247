"""The starter under more than it can do, with broken files, and for a long time: does goodput hold, and does anything grow?"""

from __future__ import annotations

import asyncio
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from closed_loop import saturate
from server_process import Server, is_running, serving
from standstill import Standstills, watched

from bindery.traffic.generator import Outcome, Plan, Run, run_load
from bindery.traffic.mix import Mix, Parcel, parse_mix
from bindery.traffic.summary import percentiles, summarise

MIX = "text=80,image=15,audio=4,video=1"
CALLERS = 48
TIMES = 3
OPEN_RATES = (("just below", 0.9), ("just above", 1.1))  # times the peak of the closed loop
DEADLINE_MS = 5000  # a client that waits longer than five seconds has gone
SOAK_LOAD = 0.5  # of the peak
SETTLE = 0.25  # of the soak: codecs, arenas and the cache fill up first
SOAK_CACHE = str(4 * 2**20)  # bytes: it must be full before the soak counts


def drawn(poison: float, seed: int) -> Iterator[Parcel]:
    mix = Mix(parse_mix(MIX), poison, random.Random(seed))
    while True:
        yield mix.draw()


def overload(seconds: float, turns: int) -> dict[str, Any]:
    """Peaks and an open loop at three times the first of them, in turns.

    Two peaks, because the generator computes on the server's cores: callers that ask again when they are answered (little to
    generate, no queue), and the best goodput of the same open loop, at rates around that one. ``good_per_server_cpu_s``: what the
    server makes of a second of its own processor time, whatever the generator takes. All seeds differ, or the cache would answer.
    Refusals are timed from when their request was due, which counts the generator's own lateness as the server's, and from when it was
    sent; and once more without those during which the whole machine stood still (`standstill`).
    """
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as data, serving("starter", Path(data)) as server:
        saturate(server.url, drawn(0, 10_000), CALLERS, 1.0)
        for turn in range(turns):
            busy = server.cpu_s()
            before = saturate(server.url, drawn(0, 1000 + turn), CALLERS, seconds)
            row: dict[str, Any] = {"closed": {"per_cpu_s": before.good / (server.cpu_s() - busy)}}
            for name, rate in (*OPEN_RATES, ("flood", TIMES)):
                long = 3 * seconds if name == "flood" else seconds
                seed = turn * 100 + round(rate * 10)
                plan = Plan(server.url, rate * before.per_s, long, deadline_ms=DEADLINE_MS, connections=4096, seed=seed)
                busy = server.cpu_s()
                with watched() as still:
                    run = asyncio.run(run_load(plan, parse_mix(MIX)))
                row[name] = summarise(run) | _beside_standstills(run, still)
                row[name]["per_cpu_s"] = row[name]["good"] / (server.cpu_s() - busy)
            after = saturate(server.url, drawn(0, 2000 + turn), CALLERS, seconds)  # a neighbour that comes meanwhile falls on both sides
            row["closed"]["per_s"] = (before.per_s + after.per_s) / 2
            row["open"] = max((row[name] for name, _ in OPEN_RATES), key=lambda one: float(one["goodput_per_s"]))
            rows.append(row)
            print({name: round(one.get("per_s", one.get("goodput_per_s")), 1) for name, one in row.items()}, flush=True)
    flooded = [row["flood"] for row in rows]
    refused = [one["refused_latency_ms"] for one in flooded if one["refused_latency_ms"]]
    from_sending = [one["refused_latency_ms_from_sending"]["p99"] for one in flooded if one["refused_latency_ms"]]
    errors: Counter[str] = Counter()
    for one in flooded:
        errors.update(one["errors"])

    def over(name: str, key: str, of: str = "goodput_per_s") -> list[float]:
        return sorted(row["flood"][of] / row[name][key] for row in rows)

    ratios = over("closed", "per_s")
    return {
        "what": "goodput of an open loop at three times the closed loop's peak, over that peak, and over the best goodput of an open loop; "
        "refusals from when they were due (refused_ms) and from when they were sent, by a generator on the same cores",
        "mix": MIX,
        "deadline_ms": DEADLINE_MS,
        "peak_per_s": round(median(row["closed"]["per_s"] for row in rows), 1),
        "open_peak_per_s": round(median(row["open"]["goodput_per_s"] for row in rows), 1),
        "offered_per_s": round(median(one["rate_per_s"] for one in flooded), 1),
        "goodput_per_s": round(median(one["goodput_per_s"] for one in flooded), 1),
        "goodput_over_peak": round(median(ratios), 3),
        "goodput_over_peak_min_max": [round(ratios[0], 3), round(ratios[-1], 3)],
        "goodput_over_open_peak": round(median(over("open", "goodput_per_s")), 3),
        "good_per_server_cpu_s": {name: round(median(row[name]["per_cpu_s"] for row in rows), 1) for name in ("closed", "open", "flood")},
        "good_per_server_cpu_s_over_peak": round(median(over("closed", "per_cpu_s", "per_cpu_s")), 3),
        "latency_ms_p50_p99": [median(one["latency_ms"][share] for one in flooded) for share in ("p50", "p99")],
        "refused_ms_p50": median(one["p50"] for one in refused) if refused else None,
        "refused_ms_p99": median(one["p99"] for one in refused) if refused else None,
        "refused_ms_p99_min_max": [min(one["p99"] for one in refused), max(one["p99"] for one in refused)] if refused else None,
        "refused_from_sending_ms_p99": median(from_sending) if from_sending else None,
        "generator_lag_ms_p99": median(one["generator_lag_ms"]["p99"] for one in flooded),
        "machine_stood_still": _stood_still(flooded),
        "errors": dict(errors),
        "client_cpu_share": {name: median(row[name]["client_cpu_share"] for row in rows) for name in ("open", "flood")},
    }


def _beside_standstills(run: Run, still: Standstills) -> dict[str, Any]:
    def alone(one: Outcome) -> bool:
        due = run.began + one.due_s
        return not still.between(due, due + one.latency_ms / 1000)

    refused = [one for one in run.outcomes if one.status in (429, 503)]
    ended = run.began + run.plan.duration_s
    return {
        "stood_still_s": [until - since for since, until in still.between(run.began, ended)] if still.known else None,
        "refused_alone_ms": percentiles(one for one in refused if alone(one)) if still.known else {},
    }


def _stood_still(flooded: list[dict[str, Any]]) -> dict[str, Any] | str:
    """What of the refusals' p99 is the machine's: both cores together may stop for tens of milliseconds where the host is short of time."""
    known = [one for one in flooded if one["stood_still_s"] is not None]
    if not known:
        return "not known: it takes the right to real-time priority"
    apart = [one["refused_alone_ms"]["p99"] for one in known if one["refused_alone_ms"]]
    return {
        "longest_ms_a_flood": [round(1000 * max(one["stood_still_s"], default=0.0), 1) for one in known],
        "refused_ms_p99_at_other_times": median(apart) if apart else None,
    }


def poison(seconds: float, turns: int) -> dict[str, Any]:
    """Goodput of the whole files with 1 % broken ones among them, over goodput without any, in turns."""
    rates: dict[float, list[float]] = {0.0: [], 0.01: []}
    with tempfile.TemporaryDirectory() as data, serving("starter", Path(data)) as server:
        saturate(server.url, drawn(0, 10_000), CALLERS, 1.0)
        for turn in range(turns):
            for number, (share, found) in enumerate(rates.items()):  # each has items of its own, or the cache would answer the second
                found.append(saturate(server.url, drawn(share, 2 * turn + number), CALLERS, seconds).per_s)
    ratios = sorted(with_it / without for without, with_it in zip(*rates.values(), strict=True))
    return {
        "mix": MIX,
        "clean_per_s": round(median(rates[0.0]), 1),
        "poisoned_per_s": round(median(rates[0.01]), 1),
        "ratio": round(median(ratios), 3),
        "ratio_min_max": [round(ratios[0], 3), round(ratios[-1], 3)],
    }


def soak(minutes: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as data, tempfile.TemporaryDirectory() as temporary:
        settings = {"BINDERY_CACHE_BYTES": SOAK_CACHE, "TMPDIR": temporary}
        with serving("starter", Path(data), settings) as server:
            peak = saturate(server.url, drawn(0, 10_000), CALLERS, min(10.0, minutes * 6)).per_s
            before = _files(temporary), _files(data)
            watch = _Watch(server, max(0.5, minutes * 60 / 240))
            plan = Plan(server.url, SOAK_LOAD * peak, minutes * 60, deadline_ms=30_000, poison=0.01)
            run = summarise(asyncio.run(run_load(plan, parse_mix(MIX))))
            samples = watch.end()
            time.sleep(1.0)
            after = _files(temporary), _files(data)
            tree = server.tree()
        left = _left(tree)
    settled = [sample for sample in samples if sample["at_s"] >= SETTLE * minutes * 60] or samples
    memory, first = [sample["mib"] for sample in settled], settled[0]
    middle = median(memory)
    return {
        "minutes": minutes,
        "mix": MIX,
        "poison": plan.poison,
        "rate_per_s": round(plan.rate, 1),
        "requests": run["requests"],
        "good": run["good"],
        "errors": run["errors"],
        "latency_ms": run["latency_ms"],
        "memory_mib_median": round(middle),
        "memory_spread": [round(min(memory) / middle - 1, 4), round(max(memory) / middle - 1, 4)],
        "memory_last_over_first_fifth": round(_fifth(memory, -1) / _fifth(memory, 0), 4),
        "processes_first_last": [first["processes"], settled[-1]["processes"]],
        "open_files_first_last": [first["files"], settled[-1]["files"]],
        "temporary_files_before_after": [before[0], after[0]],
        "data_files_before_after": [before[1], after[1]],
        "processes_left_after_the_end": len(left),
        "samples": samples[:: max(1, len(samples) // 40)],
    }


class _Watch:
    """Looks at the server from outside every ``period_s``."""

    def __init__(self, server: Server, period_s: float) -> None:
        self._server = server
        self._period_s = period_s
        self._samples: list[dict[str, Any]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self) -> list[dict[str, Any]]:
        self._done.set()
        self._thread.join()
        return self._samples

    def _run(self) -> None:
        began = time.monotonic()
        while True:
            at = round(time.monotonic() - began, 1)
            tree, memory = len(self._server.tree()), round(self._server.proportional_mib(), 1)
            self._samples.append({"at_s": at, "mib": memory, "processes": tree, "files": self._server.open_files()})
            if self._done.wait(self._period_s):
                return


def _fifth(values: list[float], which: int) -> float:
    size = max(1, len(values) // 5)
    return median(values[-size:] if which else values[:size])


def _left(pids: list[int]) -> list[int]:
    """Which of them run five seconds after their server's end; a dead process that nobody has asked about is not running."""
    until = time.monotonic() + 5
    while (running := [pid for pid in pids if is_running(pid)]) and time.monotonic() < until:
        time.sleep(0.1)
    return running


def _files(directory: str) -> int:
    return sum(path.is_file() for path in Path(directory).rglob("*"))
