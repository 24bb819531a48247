"""How far a job is: counts, rate, the time that is left, and the stage that holds it up."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from bindery.jobs.ledger import UnitState

_OVER_S = 60.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """``rate``: files a second over the last minute. ``eta_s``, ``bottleneck``: None while nothing is known."""

    listed: int
    done: int
    skipped: int
    failed: int
    rate: float
    eta_s: float | None
    bottleneck: str | None

    @property
    def ended(self) -> int:
        return self.done + self.skipped + self.failed


class Progress:
    def __init__(self, counts: Mapping[UnitState, int]) -> None:
        self.listed = sum(counts.values())
        self.counts: dict[UnitState, int] = {state: counts[state] for state in ("done", "skipped", "failed")}
        self._seen: deque[tuple[float, int]] = deque([(time.monotonic(), self.ended)])

    @property
    def ended(self) -> int:
        return sum(self.counts.values())

    def add(self, state: UnitState) -> None:
        self.counts[state] += 1

    def snapshot(self, seconds: Mapping[str, float]) -> Snapshot:
        """``seconds``: what units have spent in each stage. They pile up before the slowest one, so the longest stay names it."""
        now = time.monotonic()
        self._seen.append((now, self.ended))
        while len(self._seen) > 2 and now - self._seen[0][0] > _OVER_S:
            self._seen.popleft()
        since, before = self._seen[0]
        rate = (self.ended - before) / max(now - since, 1e-3)
        return Snapshot(
            self.listed,
            self.counts["done"],
            self.counts["skipped"],
            self.counts["failed"],
            round(rate, 3),
            round((self.listed - self.ended) / rate, 1) if rate else None,
            max(seconds, key=lambda stage: seconds[stage]) if seconds else None,
        )
