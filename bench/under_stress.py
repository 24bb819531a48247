"""The starter under more than it can do, with broken files, and for a long time: does goodput hold, and does anything grow?"""

from __future__ import annotations

import asyncio
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from closed_loop import saturate
from server_process import Server, is_running, serving

from bindery.traffic.generator import Plan, run_load
from bindery.traffic.mix import Mix, Parcel, parse_mix
from bindery.traffic.summary import summarise

MIX = "text=80,image=15,audio=4,video=1"
CALLERS = 48
TIMES = 3
DEADLINE_MS = 5000  # a client that waits longer than five seconds has gone
SOAK_LOAD = 0.5  # of the peak
SETTLE = 0.25  # of the soak: codecs, arenas and the cache fill up first
SOAK_CACHE = str(4 * 2**20)  # bytes: it must be full before the soak counts


def drawn(poison: float, seed: int) -> Iterator[Parcel]:
    mix = Mix(parse_mix(MIX), poison, random.Random(seed))
    while True:
        yield mix.draw()


def overload(seconds: float, turns: int) -> dict[str, Any]:
    """The peak (as many callers as keep it busy) and an open loop at three times that, in turns."""
    peaks, flooded = [], []
    with tempfile.TemporaryDirectory() as data, serving("starter", Path(data)) as server:
        saturate(server.url, drawn(0, 0), CALLERS, 1.0)
        for turn in range(turns):
            peaks.append(saturate(server.url, drawn(0, turn), CALLERS, seconds).per_s)
            plan = Plan(server.url, TIMES * peaks[-1], 3 * seconds, deadline_ms=DEADLINE_MS, connections=4096, seed=turn)
            flooded.append(summarise(asyncio.run(run_load(plan, parse_mix(MIX)))))
    ratios = sorted(one["goodput_per_s"] / peak for one, peak in zip(flooded, peaks, strict=True))
    refused = [one["refused_latency_ms"] for one in flooded if one["refused_latency_ms"]]
    return {
        "mix": MIX,
        "deadline_ms": DEADLINE_MS,
        "peak_per_s": round(median(peaks), 1),
        "offered_per_s": round(median(one["rate_per_s"] for one in flooded), 1),
        "goodput_per_s": round(median(one["goodput_per_s"] for one in flooded), 1),
        "goodput_over_peak": round(median(ratios), 3),
        "goodput_over_peak_min_max": [round(ratios[0], 3), round(ratios[-1], 3)],
        "refused_ms_p50": median(one["p50"] for one in refused) if refused else None,
        "refused_ms_p99": median(one["p99"] for one in refused) if refused else None,
        "errors": flooded[-1]["errors"],
        "client_cpu_share": median(one["client_cpu_share"] for one in flooded),
    }


def poison(seconds: float, turns: int) -> dict[str, Any]:
    """Goodput of the whole files with 1 % broken ones among them, over goodput without any, in turns."""
    rates: dict[float, list[float]] = {0.0: [], 0.01: []}
    with tempfile.TemporaryDirectory() as data, serving("starter", Path(data)) as server:
        saturate(server.url, drawn(0, 0), CALLERS, 1.0)
        for turn in range(turns):
            for share, found in rates.items():
                found.append(saturate(server.url, drawn(share, turn), CALLERS, seconds).per_s)
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
            peak = saturate(server.url, drawn(0, 0), CALLERS, min(10.0, minutes * 6)).per_s
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
