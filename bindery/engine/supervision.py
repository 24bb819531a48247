"""Is the engine doing what it should? Asked from outside, answered from what the batchers are doing at this moment.

Nothing here runs by itself: whoever asks for readiness gets the truth of that moment, and no watchdog can die unseen. What hangs
for `GIVE_UP_TIMES` as long as makes it stuck is given up by those who own it (`encoding.py`, `preparing.py`) and begun afresh.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from bindery.engine.admission import Costs
from bindery.engine.batching import Batcher

STUCK_S = 5.0
STUCK_TIMES = 10.0
GIVE_UP_TIMES = 3.0
LOOK_S = 1.0
"""How often what works in threads is looked at."""
MOST_HUNG = 2
"""Threads that hang and were given up. With one more the engine is dead: a process whose threads all hang needs a restart."""


def running_s(batchers: Mapping[str, Batcher]) -> float:
    """How long the present run of a graph has lasted; 0 when none runs."""
    now = time.monotonic()
    return max((now - batcher.running.since for batcher in batchers.values() if batcher.running is not None), default=0.0)


def waiting_s(batchers: Mapping[str, Batcher]) -> float:
    """How long a ready item has waited although nothing ran: a loop that lives takes it in its turn. 0 while a graph runs."""
    if any(batcher.running is not None for batcher in batchers.values()):
        return 0.0
    idle = time.monotonic() - max((batcher.ended for batcher in batchers.values()), default=0.0)
    return min(idle, max((batcher.waiting_s for batcher in batchers.values()), default=0.0))


def hung(batchers: Mapping[str, Batcher], costs: Costs) -> str | None:
    """The modality of the run to give up."""
    now = time.monotonic()
    for modality, batcher in batchers.items():
        run = batcher.running
        if run is not None and now - run.since > GIVE_UP_TIMES * _most_s(costs, modality, run.items):
            return modality
    return None


def _most_s(costs: Costs, modality: str, items: int) -> float:
    return max(STUCK_S, STUCK_TIMES * costs.run_ms(modality, items) / 1000)


def stuck(batchers: Mapping[str, Batcher], costs: Costs) -> str | None:
    """What hangs, for people: a run of a graph that lasts longer than 5 s and than ten times what such a run takes, or a batching loop."""
    now = time.monotonic()
    for modality, batcher in batchers.items():
        run = batcher.running
        if run is None:
            continue
        if now - run.since > _most_s(costs, modality, run.items):
            expected_s = costs.run_ms(modality, run.items) / 1000
            return f"a run of the graph of modality {modality!r} has lasted {now - run.since:.1f} s; {expected_s:.2g} s were expected"
    waiting = waiting_s(batchers)
    return f"items are ready for {waiting:.1f} s and no batching loop takes them" if waiting > STUCK_S else None
