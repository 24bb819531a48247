"""Jobs of the service: one runs at a time, on the engine that answers requests too, and steps back for those.

A job that the end of the server interrupts goes on when the server starts again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from bindery.collections import CollectionStore
from bindery.engine.engine import Engine
from bindery.errors import BinderyError, JobState, SourceNotAllowed
from bindery.jobs.ledger import ENDED, Job, Ledger, State
from bindery.jobs.run import JobRun, collection_for
from bindery.jobs.spec import JobSpec

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


class Jobs:
    """Lives on the engines' event loop. ``engine`` gives the default model's: a job keeps the one that it was started with."""

    def __init__(self, engine: Callable[[], Engine], store: CollectionStore, ledger: Ledger, roots: Roots) -> None:
        self.ledger = ledger
        self._engine = engine
        self._store = store
        self._roots = roots
        self._turn = asyncio.Lock()
        self._tasks: dict[str, tuple[JobRun, asyncio.Task[None]]] = {}

    async def go_on(self) -> None:
        """Start again what the end of an earlier server interrupted."""
        for job in reversed(await asyncio.to_thread(self.ledger.jobs)):
            if job.origin == "http" and job.state not in (*ENDED, "paused"):
                self._start(job)

    async def add(self, spec: JobSpec) -> Job:
        """Enter a job and start it. Raises `SourceNotAllowed`, `UnknownModality`, `InvalidParameter`, `SpaceMismatch`."""
        await asyncio.to_thread(self._roots.check, spec.source)
        await asyncio.to_thread(collection_for, spec, self._engine(), self._store)
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
        for id in list(self._tasks):
            with suppress(JobState):  # it has ended meanwhile
                await self._stop(id, "queued")

    async def _job(self, id: str) -> Job:
        return await asyncio.to_thread(self.ledger.job, id)

    def _start(self, job: Job) -> None:
        run = JobRun(self._engine(), self._store, self.ledger, job, allowed=self._roots.allow)
        task = asyncio.create_task(self._run(job.id, run), name=f"job-{job.id}")
        self._tasks[job.id] = (run, task)
        task.add_done_callback(lambda ended: self._forget(job.id, ended))

    def _forget(self, id: str, ended: asyncio.Task[None]) -> None:
        if id in self._tasks and self._tasks[id][1] is ended:
            del self._tasks[id]

    async def _run(self, id: str, run: JobRun) -> None:
        try:
            async with self._turn:
                await run.run()
        except BinderyError as error:
            log.warning("job stopped", job=id, code=error.code, detail=error.detail)
        except Exception:
            log.exception("job failed", job=id)
            self.ledger.set_state(id, "failed", "something went wrong in the server; its log says what")

    async def _stop(self, id: str, state: State) -> None:
        if id not in self._tasks:
            raise JobState(f"job {id} is run by another process, or has just ended")
        run, task = self._tasks[id]
        run.left_as = state
        task.cancel()
        await asyncio.wait([task])
        if (await self._job(id)).state not in (*ENDED, state):  # it had not begun yet
            await asyncio.to_thread(self.ledger.set_state, id, state)
