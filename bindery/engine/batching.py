"""Ready items of one encoder become batches: a batch is what is ready when the runtime is free. No timers, no waiting for more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field

from bindery.decoded import Tensors
from bindery.engine.lanes import Lanes, Priority
from bindery.engine.padding import alike
from bindery.engine.turns import Turns
from bindery.errors import BinderyError, DeadlineExceeded, EngineDown, InternalError
from bindery.runtime.collate import collate
from bindery.runtime.encoder import Encoder
from bindery.vectors import Vectors


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
    since: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class Run:
    """What the runtime is doing."""

    items: int
    since: float  # on `time.monotonic`'s clock


class Batcher:
    """Feeds one encoder. ``runtime`` is shared by the encoders of a device: whoever holds it runs."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        pad_id: int,
        max_batch: int,
        runtime: Turns,
        executor: Executor,
        on_batch: Callable[[int, float], None],
    ) -> None:
        self._encoder = encoder
        self._pad_id = pad_id
        self._max_batch = min(max_batch, encoder.max_batch)
        self._runtime = runtime
        self._executor = executor
        self._on_batch = on_batch
        self._ready: Lanes[_Ready] = Lanes()
        self._taken: list[_Ready] = []
        self.running: Run | None = None
        self.ended = time.monotonic()
        """When the last run ended."""
        self._wake = asyncio.Event()
        self._failure: BaseException | None = None

    async def infer(self, tensors: Tensors, deadline: float | None, priority: Priority = "interactive") -> Inferred:
        """One prepared item's vector. Raises `DeadlineExceeded`, `EngineDown`, `InternalError`."""
        if self._failure is not None:
            raise EngineDown("the batching loop ended; restart the server", retry_after_ms=1000) from self._failure
        item = _Ready(tensors, deadline, asyncio.get_running_loop().create_future())
        self._ready.push(item, priority)
        self._wake.set()
        return await item.future

    @property
    def waiting_s(self) -> float:
        """How long the first of the ready items has waited; 0 when there is none."""
        return self._ready.age_s

    async def run(self) -> None:
        """The loop; owned by the engine, which may call it again when it ended. However it ends, no caller is left waiting."""
        self._failure = None
        try:
            while True:
                await self._wake.wait()
                async with self._runtime.turn(lambda: self._ready.first_since):
                    self._taken = self._take()
                    for batch in alike(self._taken, _length):
                        await self._encode(batch)
                    self._taken = []
        except BaseException as error:
            self._failure = error
            for item in (*self._taken, *(self._ready.pop() for _ in range(len(self._ready)))):
                _fail(item, EngineDown("the inference engine stopped", retry_after_ms=1000))
            raise

    def _take(self) -> list[_Ready]:
        batch: list[_Ready] = []
        now = time.monotonic()
        while self._ready and len(batch) < self._max_batch:
            item = self._ready.pop()
            if item.future.done():  # its caller has gone
                continue
            if item.deadline is not None and now > item.deadline:
                _fail(item, DeadlineExceeded("the deadline passed in stage queue"))
                continue
            batch.append(item)
        if not self._ready:
            self._wake.clear()
        return batch

    async def _encode(self, batch: list[_Ready]) -> None:
        started = time.monotonic()
        self.running = Run(len(batch), started)
        try:
            vectors = await asyncio.get_running_loop().run_in_executor(self._executor, self._encode_now, batch)
        except Exception as error:  # noqa: BLE001 - whatever a graph raises, only the item that causes it may fail
            await self._bisect(batch, error)
            return
        finally:
            self.running, self.ended = None, time.monotonic()
        infer_ms = (time.monotonic() - started) * 1000
        self._on_batch(len(batch), infer_ms)
        for item, vector in zip(batch, vectors, strict=True):
            if not item.future.done():
                item.future.set_result(Inferred(vector, (started - item.since) * 1000, infer_ms, len(batch)))

    def _encode_now(self, batch: list[_Ready]) -> Vectors:
        vectors = self._encoder.encode(collate([item.tensors for item in batch], self._pad_id))
        if len(vectors) != len(batch):
            raise InternalError(f"the model gave {len(vectors)} vectors for {len(batch)} items")
        return vectors  # (batch, d)

    async def _bisect(self, batch: list[_Ready], error: Exception) -> None:
        if len(batch) == 1:
            known = error if isinstance(error, BinderyError) else InternalError("the model failed on this item")
            _fail(batch[0], known, cause=error)
            return
        middle = len(batch) // 2
        await self._encode(batch[:middle])
        await self._encode(batch[middle:])


def _length(item: _Ready) -> int:
    """Tokens of a text; of other media all items have the same first axis."""
    return int(next(iter(item.tensors.values())).shape[0])


def _fail(item: _Ready, error: BinderyError, cause: BaseException | None = None) -> None:
    if item.future.done():
        return
    if cause is not error:
        error.__cause__ = cause
    item.future.set_exception(error)
