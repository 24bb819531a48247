"""Micro-batches: what units gave goes into the collection and the ledger, many units a transaction."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from bindery.bundle import Bundle
from bindery.collections import Item, ItemResult
from bindery.jobs.leases import Leases
from bindery.jobs.ledger import Ending, Job, Ledger
from bindery.jobs.spec import lasts
from bindery.jobs.target import Stored, Target
from bindery.jobs.units import Made

log = logging.getLogger(__name__)

Result = Made | Ending
"""A unit's items, or what else became of it."""


OnEnded = Callable[[Sequence[Result], Sequence[Ending]], None]


class Committer:
    """Collects results and commits them when there are enough, or after a while. What it has committed survives a crash."""

    def __init__(
        self,
        target: Target,
        ledger: Ledger,
        job: Job,
        leases: Leases,
        bundle: Bundle,
        on_ended: OnEnded,
        turn: asyncio.Lock,
    ) -> None:
        """``on_ended`` is told each batch of results, and the endings that came of it: those that were taken.

        ``turn``: held during a commit; all committers of one target have the same.
        """
        self._target = target
        self._ledger = ledger
        self._job = job
        self._leases = leases
        self._bundle = bundle
        self._on_ended = on_ended
        self._turn = turn
        self._queue: asyncio.Queue[Result | asyncio.Future[None] | None] = asyncio.Queue()
        self._flushing: list[asyncio.Future[None]] = []
        self._room = asyncio.Semaphore(4 * target.units_at_once)

    async def put(self, result: Result) -> None:
        """Waits while too much is waiting to be committed."""
        await self._room.acquire()
        self._queue.put_nowait(result)

    async def run(self) -> None:
        """Until `end`. Raises a `ServerFault` when the store cannot take more."""
        ended = False
        while not ended:
            batch: list[Result] = []
            ended = not await self._collect(batch)
            if batch:
                async with self._turn:
                    endings = await asyncio.to_thread(self._commit, batch)
                self._on_ended(batch, endings)
                for _ in batch:
                    self._room.release()
            while self._flushing:
                self._flushing.pop().set_result(None)

    def flush(self) -> asyncio.Future[None]:
        """Done when all that was put so far is committed; never when `run` raises before that."""
        flushed = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(flushed)
        return flushed

    def end(self) -> None:
        """No more will come: `run` commits what is there and returns."""
        self._queue.put_nowait(None)

    async def _collect(self, batch: list[Result]) -> bool:
        """Fill a batch; false when there will be no other."""
        until = None
        while len(batch) < self._target.units_at_once:
            try:
                async with asyncio.timeout_at(until):
                    result = await self._queue.get()
            except TimeoutError:
                return True
            if result is None:
                return False
            if isinstance(result, asyncio.Future):
                self._flushing.append(result)
                return True
            batch.append(result)
            until = until or asyncio.get_running_loop().time() + self._target.wait_s
        return True

    def _commit(self, batch: Sequence[Result]) -> list[Ending]:
        while batch:
            held = self._leases.confirm([result.unit for result in batch])
            if len(held) < len(batch):  # this process was away so long that another has taken them
                log.warning("%d files were given to another worker meanwhile; what became of them here is dropped", len(batch) - len(held))
                batch = [result for result in batch if (result.unit.listed.name, result.unit.attempt) in held]
            endings, stored = self._stored(batch)
            taken = self._ledger.end(self._job, self._leases, endings, place=stored.place, moved=stored.moved, whole=True)
            if len(taken) == len(batch):
                self._target.publish()
                return taken
            self._target.discard()
        return []

    def _stored(self, batch: Sequence[Result]) -> tuple[list[Ending], Stored]:
        new = [result for result in batch if isinstance(result, Made) and result.items is not None]
        items: list[Item] = [item for one in new for item in one.items or ()]
        # A medium that was stored as other clips, or whole, is stored in place of all that.
        lasting = [one.unit.listed.name for one in new if lasts(self._bundle, one.unit.modality)]
        stored = self._target.store(items, [one.unit.listed.name for one in new], lasting)
        results = iter(stored.results)
        endings = [
            result if isinstance(result, Ending) else _ending(result, [next(results) for _ in result.items or ()]) for result in batch
        ]
        return endings, stored


def _ending(made: Made, stored: Sequence[ItemResult]) -> Ending:
    failed = [*made.failed_clips, *((one.id, one.error) for one in stored if one.error is not None)]
    if failed:
        id, error = failed[0]
        detail = error.detail if id == made.unit.listed.name else f"{len(failed)} clips failed, such as {id}: {error.detail}"
        return Ending(made.unit, "failed", code=error.code, detail=detail, kept=made.items is not None)
    return Ending(made.unit, "skipped" if made.items is None else "done", made.content_hash, made.pipeline_id, copied=made.copied)
