"""The same input through every graph, at the start and again while idle: a graph that answers otherwise than it did is not to be trusted.

Where the manifest knows the answer that the graph gave at its export, the start is refused when this machine gives another.
The first run also warms the graph up, and the second says what an item costs. It goes through the queue as any item does.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import cycle

import numpy as np

from bindery.bundle import Artefact, KnownAnswer
from bindery.decoded import Tensors
from bindery.engine.batching import Inferred
from bindery.errors import BinderyError, BundleDiffers, DeadlineExceeded, EngineDown
from bindery.known_answer import FLOOR, cosine_to
from bindery.vectors import Vectors

TOLERANCE = 1e-5
_WAIT_S = 30.0  # of one check, for the runtime; then it is given up and says nothing
_LONG_MS = 1000.0  # a first run as long as this is not repeated for the sake of a better figure
log = logging.getLogger(__name__)

Infer = Callable[[str, Tensors, float | None], Awaitable[Inferred]]


def still_input(artefact: Artefact) -> Tensors:
    """One item of zeros in the shape that the graph takes."""
    shapes = {one.name: tuple(side if isinstance(side, int) else 1 for side in one.shape[1:]) for one in artefact.inputs}
    return {one.name: np.zeros(shapes[one.name], dtype=one.dtype) for one in artefact.inputs}


class Canary:
    """Lives on one event loop; at most one check runs at a time, and at most one begins in ``every_s`` seconds."""

    def __init__(self, infer: Infer, every_s: float) -> None:
        self._inputs: Mapping[str, Tensors] = {}
        self._infer = infer
        self._every_s = every_s
        self._answers: Mapping[str, KnownAnswer] = {}
        self._first: dict[str, Vectors] = {}
        self._moved: dict[str, float] = {}
        self._turns: Iterator[str] = cycle(())
        self._checked = time.monotonic()
        self._check: asyncio.Task[None] | None = None

    async def record(self, inputs: Mapping[str, Tensors], answers: Mapping[str, KnownAnswer]) -> dict[str, float]:
        """``inputs``: one item's tensors a modality; ``answers``: to those whose answer is known.

        Gives the milliseconds of one item by modality. Raises what a graph raises, and `BundleDiffers`.
        """
        self._inputs, self._turns, self._answers = inputs, cycle(inputs), answers
        milliseconds = {}
        for modality, tensors in self._inputs.items():
            run = await self._infer(modality, tensors, None)
            if run.infer_ms < _LONG_MS:
                run = await self._infer(modality, tensors, None)
            _require_known(modality, run.vector, answers.get(modality))
            self._first[modality] = run.vector.copy()
            milliseconds[modality] = run.infer_ms
        return milliseconds

    def nudge(self) -> None:
        """Check the next modality if it is time to; call it when nothing else is to be done. Does not wait for the result."""
        running = self._check is not None and not self._check.done()
        if not running and self._first and time.monotonic() - self._checked >= self._every_s:
            self._checked = time.monotonic()
            self._check = asyncio.create_task(self._again(self._next()), name="canary")

    def _next(self) -> str:
        """Who moved is asked first, so that the way back is short."""
        return next(iter(self._moved), None) or next(self._turns)

    def trouble(self) -> str | None:
        for modality, moved in self._moved.items():
            return f"the canary of modality {modality!r} moved by {moved:.2g} since the start; the graph's results are not to be trusted"
        return None

    async def stop(self) -> None:
        if self._check is not None:
            self._check.cancel()
            await asyncio.gather(self._check, return_exceptions=True)

    async def _again(self, modality: str) -> None:
        try:
            run = await self._infer(modality, self._inputs[modality], time.monotonic() + _WAIT_S)
            _require_known(modality, run.vector, self._answers.get(modality))
            moved = float(np.abs(run.vector - self._first[modality]).max())
        except (DeadlineExceeded, EngineDown):  # says nothing about the graph, and is seen elsewhere
            return
        except BinderyError as error:
            log.error("the canary of modality %s failed: %s", modality, error.detail)
            moved = math.inf
        if moved > TOLERANCE:
            self._moved[modality] = moved
        else:
            self._moved.pop(modality, None)


def _require_known(modality: str, vector: Vectors, answer: KnownAnswer | None) -> None:
    """Raises `BundleDiffers`."""
    if answer is None:
        return
    cosine = cosine_to(answer, vector)
    if not cosine >= FLOOR:
        raise BundleDiffers(
            f"modality {modality!r} gives another vector for its canary than at export: cosine {cosine:.4f}, at least {FLOOR} is asked; "
            "try precision 'exact' or another device, or export the bundle again"
        )
