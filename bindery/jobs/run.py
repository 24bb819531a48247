"""One run of a job in this process: list, then work through the units side by side, then prune and report.

It may be cancelled or killed at any moment; the next run goes on where the ledger says.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import ParamSpec, TypeVar

from bindery.collections import Collection, CollectionStore, check_space
from bindery.engine.engine import Engine
from bindery.errors import BinderyError, InternalError, JobState, ServerFault, TooManyFailures
from bindery.jobs.commit import Committer, Result
from bindery.jobs.intake import Intake
from bindery.jobs.ledger import ENDED, Ending, Job, Ledger, State, Unit
from bindery.jobs.listing import open_listing
from bindery.jobs.progress import Progress, Snapshot
from bindery.jobs.report import Report, report_of, write_report
from bindery.jobs.room import Room
from bindery.jobs.spec import JobSpec
from bindery.jobs.units import Made, Units

_LEASED_AT_ONCE = 64
_IN_WORK = 48  # units side by side: some in the decoders, and enough behind them for full batches
_LEAST_FOR_RATE = 20  # files before the error rate means something
_TICK_S = 1.0

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

OnFailed = Callable[[str, BinderyError], None]
OnProgress = Callable[[Snapshot], None]


def collection_for(spec: JobSpec, engine: Engine, store: CollectionStore) -> Collection:
    """The job's collection, made when it is missing; before that, all of the spec that can be checked without its source.

    Raises `UnknownModality`, `InvalidParameter`, `SpaceMismatch`.
    """
    for modality in spec.rules.values():
        engine.bundle.modality(modality)
    spec.clip_options()
    manifest = engine.bundle.manifest
    if spec.collection not in store:
        store.create(spec.collection, space=manifest.space, dimension=manifest.dimension, bundle=manifest.name, fields=spec.fields)
    found = store.get(spec.collection)
    check_space(found.definition, manifest.space, f"bundle {manifest.name!r}")
    return found


class JobRun:
    """Made and run on the engine's event loop.

    ``on_failed`` is told of every file, or clip of one, that failed. ``allowed`` says whether a file's uri may be read: a
    manifest may name files anywhere.
    """

    def __init__(
        self,
        engine: Engine,
        store: CollectionStore,
        ledger: Ledger,
        job: Job,
        *,
        on_failed: OnFailed | None = None,
        on_progress: OnProgress | None = None,
        allowed: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self.left_as: State = "paused"
        """The state of the job when this run is cancelled."""
        self._engine = engine
        self._store = store
        self._ledger = ledger
        self._job = job
        self._on_failed = on_failed
        self._on_progress = on_progress
        self._allowed = allowed
        self._trouble: BinderyError | None = None

    async def run(self) -> Report:
        """Until the job is done or failed. Raises what stops it: then it is `paused` after a `ServerFault`, else `failed`."""
        id = self._job.id
        try:
            with self._ledger.held(id):
                if self._ledger.job(id).state in ENDED:
                    raise JobState(f"job {id} has ended")
                await self._whole()
        except JobState:
            raise
        except asyncio.CancelledError:
            self._ledger.set_state(id, self.left_as, "interrupted" if self.left_as == "paused" else None)
            raise
        except BinderyError as error:
            paused = isinstance(error, ServerFault)
            self._ledger.set_state(id, "paused" if paused else "failed", f"{error.code}: {error.detail}")
            raise
        self._ledger.set_state(id, "done")
        return await asyncio.to_thread(self._close)

    async def _whole(self) -> None:
        spec = self._job.spec
        collection = await asyncio.to_thread(collection_for, spec, self._engine, self._store)
        listing = await asyncio.to_thread(
            lambda: open_listing(spec.source, include=spec.include, rules=spec.rule_list(), allowed=self._allowed)
        )
        intake = Intake(self._ledger, self._job, self._engine.bundle, collection.definition.fields, self._tell)
        try:
            await self._settled(intake.enter, listing)
        finally:
            intake.stop()
        vanished = await asyncio.to_thread(intake.vanished)
        units = Units(self._engine, collection, self._ledger, spec, listing)
        self._progress = Progress(await asyncio.to_thread(self._ledger.counts, self._job.id))
        await self._work(units, Committer(collection, self._ledger, self._job, self._engine.bundle, partial(self._on_ended, units)))
        if vanished:
            await asyncio.to_thread(lambda: collection.delete(ids=vanished))
            await asyncio.to_thread(self._ledger.forget, self._job, vanished)

    async def _settled(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """``work`` in a thread. Cancelled, it waits for the thread: what that writes must not come after the next run's beginning."""
        settling = asyncio.ensure_future(asyncio.to_thread(work, *arguments, **named))
        try:
            return await asyncio.shield(settling)
        except asyncio.CancelledError:
            await asyncio.wait([settling])
            raise

    async def _work(self, units: Units, committer: Committer) -> None:
        committing = asyncio.create_task(committer.run())
        ticking = asyncio.create_task(self._tick(units))
        tasks: set[asyncio.Task[None]] = set()
        try:
            await self._feed(units, committer, committing, tasks)
        finally:
            ticking.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(ticking, *tasks, return_exceptions=True)
            committer.end()
            await committing
            await asyncio.to_thread(self._ledger.add_event, self._job.id, "progress", self._snapshot(units))
        if self._trouble is None:
            self._trouble = self._rate_error()
        if self._trouble is not None:
            raise self._trouble

    async def _feed(self, units: Units, committer: Committer, committing: asyncio.Task[None], tasks: set[asyncio.Task[None]]) -> None:
        """Keep units in work until there are no more, or there is trouble."""
        owner = uuid.uuid4().hex[:12]
        room = Room(self._engine.limits.queue_bytes // 2)
        while leased := await self._settled(self._ledger.lease, self._job.id, owner, _LEASED_AT_ONCE):
            for unit in leased:
                await self._ended_but(_IN_WORK - 1, tasks, committing)
                if self._trouble is not None or committing.done():
                    return
                tasks.add(asyncio.create_task(self._one(unit, units, committer, room)))
        await self._ended_but(0, tasks, committing)

    async def _ended_but(self, count: int, tasks: set[asyncio.Task[None]], committing: asyncio.Task[None]) -> None:
        """Wait until at most ``count`` tasks are left."""
        while len(tasks) > count and not committing.done():
            await asyncio.wait({*tasks, committing}, return_when=asyncio.FIRST_COMPLETED)
            tasks -= {task for task in tasks if task.done()}

    async def _one(self, unit: Unit, units: Units, committer: Committer, room: Room) -> None:
        result: Result
        async with room.of(min(unit.listed.size, self._engine.limits.file_bytes)):
            try:
                result = await units.make(unit)
            except ServerFault as error:  # not the file's fault: the job stops, and may be gone on with
                self._trouble = error
                return
            except BinderyError as error:
                result = Ending(unit, "failed", code=error.code, detail=error.detail)
                self._tell(unit.listed.name, error)
            except Exception:
                # One file's surprise must not take the job along.
                log.exception("unhandled error of a file: %s", unit.listed.name)
                result = Ending(unit, "failed", code=InternalError.code, detail="something went wrong in bindery; the log says what")
            await committer.put(result)

    def _on_ended(self, units: Units, results: Sequence[Result], endings: Sequence[Ending]) -> None:
        for result, ending in zip(results, endings, strict=True):
            self._progress.add(ending.state)
            if isinstance(result, Made):
                units.committed(result)
                for id, error in result.failed_clips:
                    self._tell(id, error)
        if self._trouble is None and self._progress.ended >= _LEAST_FOR_RATE:
            self._trouble = self._rate_error()

    def _rate_error(self) -> BinderyError | None:
        failed, ended, most = self._progress.counts["failed"], self._progress.ended, self._job.spec.max_error_rate
        if failed <= most * ended:
            return None
        return TooManyFailures(f"{failed} of {ended} files failed; at most {most:.1%} may (max_error_rate)", pointer="/max_error_rate")

    async def _tick(self, units: Units) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            await asyncio.to_thread(self._ledger.add_event, self._job.id, "progress", self._snapshot(units))

    def _snapshot(self, units: Units) -> dict[str, object]:
        snapshot = self._progress.snapshot(units.seconds)
        if self._on_progress is not None:
            self._on_progress(snapshot)
        return asdict(snapshot)

    def _tell(self, name: str, error: BinderyError) -> None:
        if self._on_failed is not None:
            self._on_failed(name, error)

    def _close(self) -> Report:
        report = report_of(self._ledger, self._ledger.job(self._job.id))
        write_report(self._ledger, report)
        return report
