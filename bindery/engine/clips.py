"""A long medium through the engine: its length, its windows, and each window as an item of its own, a few at a time.

Each window is decoded by seeking to it, so memory does not grow with the medium. What a window's media is to blame for
stays with that window; what the server is to blame for fails the medium, since half of its clips would pass for all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bindery.clips import Clip, Window, failure, mean_vector, part, windows
from bindery.engine.embedded import Embedded
from bindery.engine.engine import Engine
from bindery.engine.lanes import Priority
from bindery.errors import BinderyError, DeadlineExceeded, QueueFull, ServerFault
from bindery.kinds import KINDS
from bindery.media.source import Source
from bindery.spec import PartOptions

T = TypeVar("T")

_IN_FLIGHT = 8  # windows of one medium: enough for full batches, and room for others in the queue
_WAIT_S = 0.05


@dataclass(frozen=True, slots=True)
class EmbeddedClips(Embedded):
    """A medium by its clips, in the order of their time; those that failed carry their error. ``vector`` is the mean of the others.

    ``usage`` is of all windows together, ``timings_ms`` of the slowest one.
    """

    clips: tuple[Clip, ...]
    pool: str


async def embed_clips(
    engine: Engine,
    modality: str,
    source: Source,
    options: PartOptions,
    *,
    deadline: float | None = None,
    priority: Priority = "interactive",
) -> EmbeddedClips:
    """Raises as `Engine.embed`, `TooLong` beyond ``limits.clips``, and the first window's error when all failed."""
    assert KINDS[engine.bundle.modality(modality).kind].measure is not None, f"{modality} cannot be cut into clips. This is a bug."
    extent = await with_room(lambda: engine.measure(modality, source, deadline=deadline), deadline)
    at, end = part(source.name, extent, options, engine.limits)
    cuts: list[float] = []
    while options.clip_by == "scenes" and at < end:
        found = await engine.find_cuts(modality, source, at, end, deadline=deadline, priority=priority)
        cuts += found.times_s
        at = found.until_s
    room = asyncio.Semaphore(_IN_FLIGHT)
    tasks = [
        asyncio.create_task(_embed_window(engine, modality, source, window, deadline, priority, room))
        for window in windows(source.name, extent, options, engine.limits, cuts)
    ]
    try:
        outcomes = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    clips = tuple(Clip(window, one.vector if isinstance(one, Embedded) else one) for window, one in outcomes)
    error = failure(clips)
    if error is not None:
        raise error
    good = [one for _, one in outcomes if isinstance(one, Embedded)]
    return EmbeddedClips(mean_vector(clips), _usage(good, source), False, _slowest(good), clips, options.pool)


async def _embed_window(
    engine: Engine, modality: str, source: Source, window: Window, deadline: float | None, priority: Priority, room: asyncio.Semaphore
) -> tuple[Window, Embedded | BinderyError]:
    async with room:
        try:
            return window, await with_room(
                lambda: engine.embed(modality, source, window.options, deadline=deadline, priority=priority, cached=False), deadline
            )
        except ServerFault:
            raise
        except BinderyError as error:
            return window, error


async def with_room(work: Callable[[], Awaitable[T]], deadline: float | None = None) -> T:
    """``work()``, tried again while the queue is full: a medium that was begun is not given up for a moment's crowd."""
    while True:
        try:
            return await work()
        except QueueFull:
            if deadline is not None and time.monotonic() + _WAIT_S > deadline:
                raise DeadlineExceeded("the deadline passed in stage queue (waiting for room)") from None
            await asyncio.sleep(_WAIT_S)


def _usage(embedded: Sequence[Embedded], source: Source) -> dict[str, float]:
    """The windows' usage added up; but the file was sent once, however many windows were read from it."""
    total: dict[str, float] = {}
    for one in embedded:
        for unit, amount in one.usage.items():
            total[unit] = total.get(unit, 0.0) + amount
    return total | {"bytes": float(source.size_bytes)}


def _slowest(embedded: Sequence[Embedded]) -> dict[str, float]:
    stages = {stage for one in embedded for stage in one.timings_ms}
    return {stage: max(one.timings_ms.get(stage, 0.0) for one in embedded) for stage in stages}
