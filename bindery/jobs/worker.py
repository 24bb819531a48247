"""A worker of a job: it leases units, has many of them in work side by side, and commits what comes of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import TypeVar

from bindery.errors import BinderyError, InternalError, PoisonFile, ServerFault, SourceUnavailable, TooManyFailures
from bindery.jobs.commit import Committer, OnEnded, Result
from bindery.jobs.executor import Executor, ExecutorLost
from bindery.jobs.leases import POISON_DEATHS, Leases, Unit
from bindery.jobs.ledger import Ending, Job, Ledger
from bindery.jobs.progress import Progress, Snapshot
from bindery.jobs.retry import with_retries
from bindery.jobs.room import Room
from bindery.jobs.units import Made, Units

T = TypeVar("T")

OnFailed = Callable[[str, BinderyError], None]
OnProgress = Callable[[Snapshot], None]

_LEASED_AT_ONCE = 64
_IN_WORK = 48  # units side by side: some in the decoders, and enough behind them for full batches
_LEAST_FOR_RATE = 20  # files before the error rate means something
_OUTAGE = 8  # files in a row that could not be fetched: then it is the source, and the job had better wait
_TICK_S = 1.0

log = logging.getLogger(__name__)


class Worker:
    """Of one executor. Lives on the job's event loop. ``tell`` hears of every file, or clip of one, that failed."""

    def __init__(
        self,
        executor: Executor,
        units: Units,
        committer: Callable[[Leases, OnEnded], Committer],
        ledger: Ledger,
        job: Job,
        progress: Progress,
        tell: OnFailed,
        on_progress: OnProgress | None,
    ) -> None:
        self._executor = executor
        self._ledger = ledger
        self._job = job
        self._leases = ledger.leases(job.id)
        self._units = units
        self._committer = committer(self._leases, self._on_ended)
        self._progress = progress
        self._tell = tell
        self._on_progress = on_progress
        self._room = Room(executor.limits.queue_bytes // 2)
        self._tasks: set[asyncio.Task[None]] = set()
        self._trouble: BinderyError | None = None
        self._lost: ExecutorLost | None = None
        self._unfetched = 0

    async def run(self) -> None:
        """Until no units are left. Raises what stops it, `ExecutorLost` too; what was in work then is free for other workers."""
        committing = asyncio.create_task(self._committer.run())
        beside = [asyncio.create_task(self._tick()), asyncio.create_task(self._renew())]
        try:
            await self._feed(committing)
        finally:
            for task in (*beside, *self._tasks):
                task.cancel()
            await asyncio.gather(*beside, *self._tasks, return_exceptions=True)
            self._committer.end()
            try:
                await committing
            finally:
                # What came of its work is committed, and the rest is free: at once, not when the leases run out.
                await asyncio.to_thread(self._leases.release if self._lost is None else self._leases.abandon)
            await asyncio.to_thread(self._ledger.add_event, self._job.id, "progress", self._snapshot())
        if self._trouble is None:
            self._trouble = self._rate_error()
        if self._trouble is not None:
            raise self._trouble
        if self._lost is not None:
            raise self._lost

    async def _feed(self, committing: asyncio.Task[None]) -> None:
        """Keep units in work until there are no more, or there is trouble; then the suspects, each alone.

        What another worker holds is waited for: it may die.
        """
        while True:
            while leased := await settled(partial(self._leases.take, _LEASED_AT_ONCE)):
                for unit in leased:
                    if not await self._begun(unit, _IN_WORK - 1, committing):
                        return
            await self._all_committed(committing)
            while (suspect := await settled(self._leases.take_alone)) is not None:
                if not await self._begun(suspect, 0, committing):
                    return
                await self._all_committed(committing)  # before the next: none may be blamed for another's death
            counts = await asyncio.to_thread(self._ledger.counts, self._job.id)
            if self._stopped(committing) or not counts["queued"] + counts["leased"]:
                return
            await asyncio.sleep(_TICK_S)

    async def _begun(self, unit: Unit, beside: int, committing: asyncio.Task[None]) -> bool:
        """Begin a unit when at most so many are in work; false when nothing may be begun any more."""
        await self._ended_but(beside, committing)
        if self._stopped(committing):
            return False
        self._tasks.add(asyncio.create_task(self._one(unit)))
        return True

    def _stopped(self, committing: asyncio.Task[None]) -> bool:
        return self._trouble is not None or self._lost is not None or committing.done()

    async def _ended_but(self, count: int, committing: asyncio.Task[None]) -> None:
        """Wait until at most ``count`` tasks are left."""
        while len(self._tasks) > count and not committing.done():
            await asyncio.wait({*self._tasks, committing}, return_when=asyncio.FIRST_COMPLETED)
            self._tasks -= {task for task in self._tasks if task.done()}

    async def _all_committed(self, committing: asyncio.Task[None]) -> None:
        """Wait until nothing is in work, and all that came of it is on the disk."""
        await self._ended_but(0, committing)
        await asyncio.wait({self._committer.flush(), committing}, return_when=asyncio.FIRST_COMPLETED)

    async def _one(self, unit: Unit) -> None:
        async with self._room.of(min(unit.listed.size, self._executor.limits.file_bytes)):
            result = await self._result(unit)
            if result is not None:
                await self._committer.put(result)

    async def _result(self, unit: Unit) -> Result | None:
        """What became of a unit; None when it must wait, because it is not the file's fault."""
        if unit.deaths_alone >= POISON_DEATHS:
            return self._failed(unit, PoisonFile(f"{unit.listed.name} was in work each time, and nothing else, when the process died"))
        try:
            result = await with_retries(lambda: self._units.make(unit, self._executor))
        except SourceUnavailable as error:
            self._unfetched += 1
            if self._unfetched >= _OUTAGE:
                self._trouble = error
                return None
            return self._failed(unit, error)
        except ServerFault as error:  # the job stops, and may be gone on with
            self._trouble = error
            return None
        except ExecutorLost as error:
            self._lost = error
            return None
        except BinderyError as error:
            return self._failed(unit, error)
        except Exception:
            # One file's surprise must not take the job along.
            log.exception("unhandled error of a file: %s", unit.listed.name)
            return self._failed(unit, InternalError("something went wrong in bindery; the log says what"))
        self._unfetched = 0
        return result

    def _failed(self, unit: Unit, error: BinderyError) -> Ending:
        self._tell(unit.listed.name, error)
        return Ending(unit, "failed", code=error.code, detail=error.detail)

    def _on_ended(self, results: Sequence[Result], endings: Sequence[Ending]) -> None:
        for result in results:
            if isinstance(result, Made):
                self._units.committed(result)
                for id, error in result.failed_clips:
                    self._tell(id, error)
        for ending in endings:
            self._progress.add(ending.state)
        if self._trouble is None and self._progress.ended >= _LEAST_FOR_RATE:
            self._trouble = self._rate_error()

    def _rate_error(self) -> BinderyError | None:
        failed, ended, most = self._progress.counts["failed"], self._progress.ended, self._job.spec.max_error_rate
        if failed <= most * ended:
            return None
        return TooManyFailures(f"{failed} of {ended} files failed; at most {most:.1%} may (max_error_rate)", pointer="/max_error_rate")

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            await asyncio.to_thread(self._ledger.add_event, self._job.id, "progress", self._snapshot())

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._leases.seconds / 3)
            try:
                await asyncio.to_thread(self._leases.renew)
            except ServerFault as error:
                self._trouble = error
                return

    def _snapshot(self) -> dict[str, object]:
        snapshot = self._progress.snapshot(self._units.seconds)
        if self._on_progress is not None:
            self._on_progress(snapshot)
        return asdict(snapshot)


async def settled(work: Callable[[], T], stop: Callable[[], None] = lambda: None) -> T:
    """``work`` in a thread. Cancelled, it waits for the thread: what that writes must not come after the next run's beginning.

    ``stop``: tells the work that it is not wanted any more.
    """
    settling = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(settling)
    except asyncio.CancelledError:
        stop()
        await asyncio.wait([settling])
        raise
