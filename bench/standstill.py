"""Moments in which this machine does nothing at all: a virtual machine whose host has other work. No server can answer in them."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

PERIOD_S = 0.002
LEAST_S = 0.008  # between two looks: less is no standstill but a timer that is late
PRIORITY = 1  # of the real-time ones: before everything that has none, so that only the machine itself can keep it waiting

Gap = tuple[float, float]
"""From and until, on `time.monotonic`'s clock, which all processes share."""


@dataclass(slots=True)
class Standstills:
    gaps: list[Gap] = field(default_factory=list)
    known: bool = False
    """Whether they could be looked for: it takes the right to real-time priority, and Linux."""

    def between(self, began: float, ended: float) -> list[Gap]:
        return [gap for gap in self.gaps if gap[0] < ended and gap[1] > began]


@contextmanager
def watched() -> Iterator[Standstills]:
    """One process a core looks at the clock every 2 ms; what they saw is told when the context has ended."""
    found = Standstills()
    cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
    watches = [_watch(core) for core in cores]
    try:
        yield found
    finally:
        told = [watch.communicate()[0] for watch in watches]  # it ends when its line in does
        found.known = bool(told) and all(watch.returncode == 0 for watch in watches)
        found.gaps = sorted(_gap(line) for lines in told for line in lines.splitlines())


def _watch(core: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, __file__, str(core)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _gap(line: str) -> Gap:
    began, ended = line.split()
    return float(began), float(ended)


def look(core: int) -> None:
    """Until stdin ends. Raises `PermissionError` without the right to it."""
    os.sched_setaffinity(0, {core})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    last = time.monotonic()
    while not _has_ended():
        time.sleep(PERIOD_S)
        now = time.monotonic()
        if now - last > LEAST_S:
            print(last, now, flush=True)
        last = time.monotonic()


def _has_ended() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


if __name__ == "__main__":
    look(int(sys.argv[1]))
