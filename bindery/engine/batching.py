"""Ready items of one encoder become batches: a batch is what is ready when the runtime is free. No timers, no waiting for more.

One batch is prefetched: when a full one is ready while the runtime works, it is collated and staged meanwhile. A smaller one is not, since
what comes until the runtime is free would not get into it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial

from bindery.decoded import Tensors
from bindery.engine.lanes import Lanes, Priority
from bindery.engine.padding import alike
from bindery.engine.turns import Turns
from bindery.errors import BinderyError, DeadlineExceeded, EngineDown, InternalError
from bindery.runtime.collate import collate
from bindery.runtime.encoder import Encoder, Staging
from bindery.vectors import Vectors


def unobserved() -> None:
    """For who does not ask when a run begins."""


@dataclass(slots=True)
class Inferred:
    vector: Vectors  # (d,)
    queue_ms: float
    infer_ms: float
    batch: int  # items of the same run


@dataclass(slots=True)
class _Ready:
    tensors: Tensors
    deadline: float | None
    future: asyncio.Future[Inferred]
    begun: Callable[[], None]
    since: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class _Batch:
    items: list[_Ready]
    staged: asyncio.Future[Callable[[], Vectors]] | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """What the runtime is doing."""

    items: int
    since: float  # on `time.monotonic`'s clock


class Batcher:
    """Feeds one encoder. ``turns`` are shared by the encoders of a device: whoever has one runs. ``staging``: where the next batch is
    made ready while the runtime works; None: nothing is prefetched."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        pad_id: int,
        max_batch: int,
        turns: Turns,
        executor: Executor,
        on_batch: Callable[[int, float], None],
        staging: Executor | None = None,
    ) -> None:
        self.encoder = encoder
        self._pad_id = pad_id
        self._max_batch = min(max_batch, encoder.max_batch)
        self.turns = turns
        self.executor = executor
        self._on_batch = on_batch
        self.staging = staging
        self._ahead: list[_Batch] = []
        """Taken and not run yet: the first of them is staged."""
        self._ahead_since = math.inf
        self._ready: Lanes[_Ready] = Lanes()
        self._taken: list[_Ready] = []
        self._following: list[_Batch] | None = None
        self.running: Run | None = None
        self.ended = time.monotonic()
        """When the last run ended."""
        self._wake = asyncio.Event()
        self._failure: BaseException | None = None

    async def infer(
        self, tensors: Tensors, deadline: float | None, priority: Priority = "interactive", begun: Callable[[], None] = unobserved
    ) -> Inferred:
        """One prepared item's vector; ``begun`` is called when its run begins. Raises `DeadlineExceeded`, `EngineDown`, `InternalError`."""
        if self._failure is not None:
            raise EngineDown("the batching loop ended; restart the server", retry_after_ms=1000) from self._failure
        item = _Ready(tensors, deadline, asyncio.get_running_loop().create_future(), begun)
        self._ready.push(item, priority)
        self._wake.set()
        self._look_ahead()
        return await item.future

    @property
    def waiting_s(self) -> float:
        """How long the first of the ready items has waited; 0 when there is none."""
        now = time.monotonic()
        return max(self._ready.age_s, *(now - item.since for batch in self._ahead for item in batch.items), 0.0)

    async def run(self) -> None:
        """The loop; owned by the engine, which may call it again when it ended. However it ends, no caller is left waiting."""
        self._failure = None
        try:
            while True:
                if not self._ahead:
                    await self._wake.wait()
                async with self.turns.turn(lambda: min(self._ahead_since, self._ready.first_since)):
                    batches = self._ahead or self._batches()
                    self._ahead, self._ahead_since = [], math.inf
                    self._taken = [item for batch in batches for item in batch.items]
                    while batches:
                        batch = batches.pop(0)
                        await self._encode(batch, batches)
                    self._taken = []
        except BaseException as error:
            self._failure = error
            ahead = [item for batch in self._ahead for item in batch.items]
            self._ahead, self._ahead_since, self._following = [], math.inf, None
            for item in (*self._taken, *ahead, *(self._ready.pop() for _ in range(len(self._ready)))):
                _fail(item, EngineDown("the inference engine stopped", retry_after_ms=1000))
            raise

    def _batches(self) -> list[_Batch]:
        taken = self._take()
        try:
            return [_Batch(items) for items in alike(taken, _length)]
        except BaseException:
            for item in taken:  # they are in no queue any more, and nobody else knows of them
                _fail(item, EngineDown("the inference engine stopped", retry_after_ms=1000))
            raise

    def _take(self) -> list[_Ready]:
        batch: list[_Ready] = []
        while self._ready and len(batch) < self._max_batch:
            item = self._ready.pop()
            if _is_wanted(item):
                batch.append(item)
        if not self._ready:
            self._wake.clear()
        return batch

    def _look_ahead(self) -> None:
        """Stage what is run next, while something runs: the next batch of the same turn, or a full one of the next turn."""
        if self.staging is None or self._following is None:
            return
        if not self._following and not self._ahead and len(self._ready) >= self._max_batch:
            self._ahead_since = self._ready.first_since
            self._ahead = self._batches()
        following = self._following or self._ahead
        if following and following[0].staged is None:
            following[0].staged = asyncio.get_running_loop().run_in_executor(self.staging, self._stage_now, following[0].items)

    async def _encode(self, batch: _Batch, following: list[_Batch] | None = None) -> None:
        """``following``: of the same turn; None: nothing is staged meanwhile."""
        items = [item for item in batch.items if _is_wanted(item)] if batch.staged is not None else batch.items
        if not items:
            return
        started = time.monotonic()
        self.running, self._following = Run(len(items), started), following
        for item in items:
            item.begun()
        try:
            if batch.staged is not None and len(items) == len(batch.items):
                run = await batch.staged
            else:
                run = partial(self._encode_now, items)
            running = asyncio.get_running_loop().run_in_executor(self.executor, run)
            self._look_ahead()
            vectors = await running
            if len(vectors) != len(items):
                raise InternalError(f"the model gave {len(vectors)} vectors for {len(items)} items")
        except EngineDown as error:  # the run was given up: to try its items again would hang again
            for item in items:
                _fail(item, EngineDown(error.detail, retry_after_ms=error.retry_after_ms))
            return
        except Exception as error:  # noqa: BLE001 - whatever a graph raises, only the item that causes it may fail
            await self._bisect(items, error)
            return
        finally:
            self.running, self.ended, self._following = None, time.monotonic(), None
        infer_ms = (time.monotonic() - started) * 1000
        self._on_batch(len(items), infer_ms)
        for item, vector in zip(items, vectors, strict=True):
            if not item.future.done():
                item.future.set_result(Inferred(vector, (started - item.since) * 1000, infer_ms, len(items)))

    def _encode_now(self, items: list[_Ready]) -> Vectors:
        return self.encoder.encode(collate([item.tensors for item in items], self._pad_id))  # (batch, d)

    def _stage_now(self, items: list[_Ready]) -> Callable[[], Vectors]:
        tensors = collate([item.tensors for item in items], self._pad_id)
        return self.encoder.stage(tensors) if isinstance(self.encoder, Staging) else partial(self.encoder.encode, tensors)

    async def _bisect(self, batch: list[_Ready], error: Exception) -> None:
        if len(batch) == 1:
            known = error if isinstance(error, BinderyError) else InternalError("the model failed on this item")
            _fail(batch[0], known, cause=error)
            return
        middle = len(batch) // 2
        await self._encode(_Batch(batch[:middle]))
        await self._encode(_Batch(batch[middle:]))


def _is_wanted(item: _Ready) -> bool:
    """Whether somebody still waits for it; who is late is told so."""
    if item.future.done():  # its caller has gone
        return False
    if item.deadline is not None and time.monotonic() > item.deadline:
        _fail(item, DeadlineExceeded("the deadline passed in stage queue"))
        return False
    return True


def _length(item: _Ready) -> int:
    """Tokens of a text; of other media all items have the same first axis."""
    return int(next(iter(item.tensors.values())).shape[0])


def _fail(item: _Ready, error: BinderyError, cause: BaseException | None = None) -> None:
    if item.future.done():
        return
    if cause is not error:
        error.__cause__ = cause
    item.future.set_exception(error)
