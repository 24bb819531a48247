"""The sign of life of a stage that works in threads: since when its oldest piece of work has been going on. Idle, it needs to give none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count


class Heartbeat:
    """Thread-safe."""

    def __init__(self) -> None:
        self._begun: dict[int, float] = {}  # on `time.monotonic`'s clock
        self._numbers = count()

    @contextmanager
    def working(self) -> Iterator[None]:
        number = next(self._numbers)
        self._begun[number] = time.monotonic()
        try:
            yield
        finally:
            del self._begun[number]

    @property
    def age_s(self) -> float:
        """How long the oldest piece of work has lasted; 0 when there is none."""
        now = time.monotonic()
        return now - min(self._begun.copy().values(), default=now)
