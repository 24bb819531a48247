"""Equal items are computed once: kept vectors by content, and one computation for all who ask at the same time.

The key is a digest of the content's bytes and of all that decides what becomes of them (bundle, modality, precision,
options); names and paths are not in it. Only successes are kept or shared: an error names the file of the caller it belongs to.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from bindery.engine.embedded import Embedded
from bindery.errors import BinderyError, DeadlineExceeded
from bindery.media.source import Source
from bindery.spec import Options

Value: TypeAlias = Source | str | Sequence[int]
Found = Literal["hit", "coalesced", "miss"]
Key = bytes

_HASH_INLINE_BYTES = 64 * 1024  # beyond, hashing would hold up the event loop longer than a hand-over to a thread costs
_ENTRY_BYTES = 1024  # of an entry beside its vector: key, usage, links


async def content_key(scope: Sequence[str], value: Value, options: Options) -> Key:
    """The digest of an item. ``scope``: bundle, modality and precision. Raises `UnreadableMedia` when its file cannot be opened."""
    if isinstance(value, str):
        content = hashlib.sha256(value.encode("utf-8", "surrogatepass")).digest()
    elif not isinstance(value, Source):
        content = hashlib.sha256(json.dumps(list(value)).encode()).digest()
    elif value.data is not None and len(value.data) <= _HASH_INLINE_BYTES:
        content = hashlib.sha256(value.data).digest()
    else:
        content = await asyncio.to_thread(_digest, value)
    form = "text" if isinstance(value, str) else "media" if isinstance(value, Source) else "ids"
    head = json.dumps([*scope, form, options.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(head.encode() + content).digest()


class VectorCache:
    """Bounded by bytes, least recently used first out. Lives on one event loop. With ``capacity`` 0 it neither keeps nor shares."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.bytes = 0
        self._kept: OrderedDict[Key, Embedded] = OrderedDict()
        self._flights: dict[Key, _Flight] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key) -> Embedded | None:
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
        return kept

    def computes(self, key: Key) -> bool:
        """Whether it is being computed for somebody now."""
        return key in self._flights

    async def through(
        self, key: Key, compute: Callable[[], Coroutine[Any, Any, Embedded]], deadline: float | None
    ) -> tuple[Embedded, Found]:
        """The item's vector: kept, shared with a computation that runs already, or computed.

        ``compute`` keeps to the deadline of whoever began it. It is cancelled when nobody waits for it any more, and not before:
        the one who began it may leave. Raises what ``compute`` raises, and `DeadlineExceeded` for one who waits for another's.
        """
        kept = self.get(key)
        if kept is not None:
            return kept, "hit"
        flight = self._flights.get(key)
        if flight is not None:
            shared = await flight.join(deadline)
            # What failed for another may have failed by another's deadline, and its error names another's file.
            return (shared.kept(), "coalesced") if shared is not None else (await compute(), "miss")
        return await self._begin(key, compute).lead(), "miss"

    def _begin(self, key: Key, compute: Callable[[], Coroutine[Any, Any, Embedded]]) -> _Flight:
        async def fly() -> Embedded:
            embedded = await compute()
            self._keep(key, embedded.kept())
            return embedded

        def landed(task: asyncio.Task[Embedded]) -> None:
            del self._flights[key]
            if not task.cancelled():
                task.exception()  # seen, also when nobody is left to be told

        flight = self._flights[key] = _Flight(asyncio.create_task(fly(), name="embed-shared"))
        flight.task.add_done_callback(landed)
        return flight

    def _keep(self, key: Key, embedded: Embedded) -> None:
        size = embedded.vector.nbytes + _ENTRY_BYTES
        if size > self.capacity or key in self._kept:
            return
        self._kept[key] = embedded
        self.bytes += size
        while self.bytes > self.capacity:
            _, oldest = self._kept.popitem(last=False)
            self.bytes -= oldest.vector.nbytes + _ENTRY_BYTES


@dataclass(slots=True)
class _Flight:
    """One computation and how many wait for it."""

    task: asyncio.Task[Embedded]
    waiting: int = 0

    async def lead(self) -> Embedded:
        await self._wait(None)
        return self.task.result()

    async def join(self, deadline: float | None) -> Embedded | None:
        """None when it failed or was given up, and there is time left to try oneself."""
        await self._wait(deadline)
        if self.task.done() and not self.task.cancelled():
            error = self.task.exception()
            if error is None:
                return self.task.result()
            if not isinstance(error, BinderyError):
                raise error
        if not self.task.done() or (deadline is not None and time.monotonic() >= deadline):
            raise DeadlineExceeded("the deadline passed in stage queue (an equal item was being computed)")
        return None

    async def _wait(self, deadline: float | None) -> None:
        self.waiting += 1
        try:
            # `wait`, unlike `wait_for`, leaves the task alone when its caller is cancelled or late.
            await asyncio.wait([self.task], timeout=None if deadline is None else max(deadline - time.monotonic(), 0.0))
        finally:
            self.waiting -= 1
            if self.waiting == 0 and not self.task.done():
                self.task.cancel()


def _digest(source: Source) -> bytes:
    with source.open() as stream:
        return hashlib.file_digest(stream, "sha256").digest()  # type: ignore[arg-type]  # a BytesIO or a file: both have readinto
