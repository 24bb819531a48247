"""When requests are due. Fixed before the run begins, so that a slow server cannot slow its own load down."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal

Arrivals = Literal["poisson", "constant"]


def due_times(rate: float, duration_s: float, arrivals: Arrivals, rng: random.Random) -> Iterator[float]:
    """Seconds from the beginning, rising, all below ``duration_s``; on average ``rate`` of them a second."""
    at = 0.0
    while True:
        at += rng.expovariate(rate) if arrivals == "poisson" else 1 / rate
        if at >= duration_s:
            return
        yield at
