"""Jobs of the service: one runs at a time, on the engine that answers requests too, and steps back for those.

A job that the end of the server interrupts goes on when the server starts again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from bindery.collections import CollectionStore, Definition
from bindery.engine.engine import Engine
from bindery.errors import BinderyError, JobState, SourceNotAllowed
from bindery.jobs.executor import OneProcess
from bindery.jobs.ledger import ENDED, Job, Ledger, State
from bindery.jobs.run import JobRun
from bindery.jobs.spec import JobSpec
from bindery.jobs.target import collection_for, in_collections
from service.models import Models

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Roots:
    """Where the server may index: folders and object store prefixes. Links that lead out of a folder are outside."""

    places: tuple[str, ...]

    def allow(self, uri: str) -> bool:
        if "://" in uri:
            return any(uri == place or uri.startswith(place.rstrip("/") + "/") for place in self.places if "://" in place)
        path = Path(uri).resolve()
        return any(path.is_relative_to(Path(place).resolve()) for place in self.places if "://" not in place)

    def check(self, source: str) -> None:
        """Raises `SourceNotAllowed`."""
        if not self.places:
            raise SourceNotAllowed(
                "this server indexes nothing by itself: its operator names folders in BINDERY_JOB_ROOTS", pointer="/source"
            )
        if ("://" not in source and not Path(source).is_absolute()) or not self.allow(source):
            raise SourceNotAllowed(
                f"{source[:200]!r} is not an absolute path below a folder that this server may index (BINDERY_JOB_ROOTS)", pointer="/source"
            )


@dataclass(slots=True)
class _Running:
    """A job that runs or waits for its turn. ``left_as``: its state when it is stopped."""

    task: asyncio.Task[None]
    run: JobRun | None = None
    left_as: State = "paused"


class Jobs:
    """Lives on the engines' event loop. A run keeps the model that it began with, also when that is swapped or unloaded."""

    def __init__(self, models: Callable[[], Models], store: CollectionStore, ledger: Ledger, roots: Roots) -> None:
        self.ledger = ledger
        self._models = models
        self._store = store
        self._roots = roots
        self._turn = asyncio.Lock()
        self._running: dict[str, _Running] = {}
        self._seen: tuple[dict[str, int], float] = ({}, time.monotonic())

    def quiet_s(self) -> float:
        """How long the job that runs has ended no unit, as far as askers have seen; 0 when none runs."""
        ended = {id: running.run.ended for id, running in self._running.items() if running.run is not None}
        now = time.monotonic()
        if ended != self._seen[0] or not ended:
            self._seen = (ended, now)
        return now - self._seen[1]

    async def go_on(self) -> None:
        """Start again what the end of an earlier server interrupted."""
        for job in reversed(await asyncio.to_thread(self.ledger.jobs)):
            if job.origin == "http" and job.state not in (*ENDED, "paused"):
                self._start(job)

    async def add(self, spec: JobSpec) -> Job:
        """Enter a job and start it. Raises `SourceNotAllowed`, `UnknownModality`, `InvalidParameter`, `SpaceMismatch`."""
        await asyncio.to_thread(self._roots.check, spec.source)
        async with self._engine(spec) as engine:
            await asyncio.to_thread(collection_for, spec, OneProcess(engine), self._store)
        job = await asyncio.to_thread(self.ledger.add, spec, "http")
        self._start(job)
        return job

    async def pause(self, id: str) -> Job:
        """Raises `UnknownJob`, `JobState`."""
        job = await self._job(id)
        if job.state in (*ENDED, "paused"):
            raise JobState(f"job {id} is {job.state}; only one that waits or runs can be paused")
        await self._stop(id, "paused")
        return await self._job(id)

    async def cancel(self, id: str) -> Job:
        """What is indexed stays. Raises `UnknownJob`, `JobState`."""
        job = await self._job(id)
        if job.state in ENDED:
            raise JobState(f"job {id} is {job.state} already")
        if job.state == "paused":
            await asyncio.to_thread(self.ledger.set_state, id, "cancelled")
        else:
            await self._stop(id, "cancelled")
        return await self._job(id)

    async def resume(self, id: str) -> Job:
        """Raises `UnknownJob`, `JobState`, `SourceNotAllowed`."""
        job = await self._job(id)
        if job.state != "paused":
            raise JobState(f"job {id} is {job.state}; only one that is paused can be resumed")
        await asyncio.to_thread(self._roots.check, job.spec.source)
        await asyncio.to_thread(self.ledger.set_state, id, "queued")
        self._start(job)
        return await self._job(id)

    async def close(self) -> None:
        """Interrupt what runs, so that it goes on with the next start."""
        for id in list(self._running):
            with suppress(JobState):  # it has ended meanwhile
                await self._stop(id, "queued")

    async def _job(self, id: str) -> Job:
        return await asyncio.to_thread(self.ledger.job, id)

    @asynccontextmanager
    async def _engine(self, spec: JobSpec) -> AsyncIterator[Engine]:
        def found() -> Definition | None:
            return self._store.get(spec.collection).definition if spec.collection in self._store else None

        with self._models().for_job(await asyncio.to_thread(found)) as engine:
            yield engine

    def _start(self, job: Job) -> None:
        task = asyncio.create_task(self._run(job), name=f"job-{job.id}")
        self._running[job.id] = _Running(task)
        task.add_done_callback(lambda ended: self._forget(job.id, ended))

    def _forget(self, id: str, ended: asyncio.Task[None]) -> None:
        if id in self._running and self._running[id].task is ended:
            del self._running[id]

    async def _run(self, job: Job) -> None:
        running = self._running[job.id]
        try:
            async with self._turn, self._engine(job.spec) as engine:
                running.run = JobRun(OneProcess(engine), in_collections(self._store), self.ledger, job, allowed=self._roots.allow)
                running.run.left_as = running.left_as
                await running.run.run()
        except BinderyError as error:
            log.warning("job stopped", job=job.id, code=error.code, detail=error.detail)
            if running.run is None:
                await asyncio.to_thread(self.ledger.set_state, job.id, "paused", f"{error.code}: {error.detail}")
        except Exception:
            log.exception("job failed", job=job.id)
            await asyncio.to_thread(self.ledger.set_state, job.id, "failed", "something went wrong in the server; its log says what")

    async def _stop(self, id: str, state: State) -> None:
        running = self._running.get(id)
        if running is None:
            raise JobState(f"job {id} is run by another process, or has just ended")
        running.left_as = state
        if running.run is not None:
            running.run.left_as = state
        running.task.cancel()
        await asyncio.wait([running.task])
        if (await self._job(id)).state not in (*ENDED, state):  # it had not begun yet
            await asyncio.to_thread(self.ledger.set_state, id, state)
