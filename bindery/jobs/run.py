"""One run of a job in this process: list, then work through the units side by side, then prune and report.

It may be cancelled or killed at any moment; the next run goes on where the ledger says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from bindery.errors import BinderyError, JobState, ServerFault
from bindery.jobs.commit import Committer, OnEnded
from bindery.jobs.executor import Crew, Executor
from bindery.jobs.intake import Intake
from bindery.jobs.leases import Leases
from bindery.jobs.ledger import ENDED, Job, Ledger, State
from bindery.jobs.listing import open_listing
from bindery.jobs.progress import Progress
from bindery.jobs.report import Report, report_of, write_report
from bindery.jobs.target import OpenTarget, Target
from bindery.jobs.units import Units
from bindery.jobs.worker import OnFailed, OnProgress, Worker, settled


class JobRun:
    """Made and run on one event loop; ``crew`` does the work.

    ``on_failed`` is told of every file, or clip of one, that failed, ``on_left_out`` of every file of no modality. ``allowed``
    says whether a file's uri may be read: a manifest may name files anywhere.
    """

    def __init__(
        self,
        crew: Crew,
        open_target: OpenTarget,
        ledger: Ledger,
        job: Job,
        *,
        on_failed: OnFailed | None = None,
        on_left_out: Callable[[str], None] = lambda _: None,
        on_progress: OnProgress | None = None,
        allowed: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self.left_as: State = "paused"
        """The state of the job when this run is cancelled."""
        self._crew = crew
        self._open_target = open_target
        self._ledger = ledger
        self._job = job
        self._on_failed = on_failed
        self._on_left_out = on_left_out
        self._on_progress = on_progress
        self._allowed = allowed
        self._progress: Progress | None = None

    @property
    def ended(self) -> int:
        """Units that have ended so far; it grows while the job goes on."""
        return 0 if self._progress is None else self._progress.ended

    async def run(self) -> Report:
        """Until the job is done or failed. Raises what stops it: then it is `paused` after a `ServerFault`, else `failed`."""
        id = self._job.id
        try:
            with self._ledger.held(id):
                if (await asyncio.to_thread(self._ledger.job, id)).state in ENDED:
                    raise JobState(f"job {id} has ended")
                await self._whole()
        except JobState:
            raise
        except asyncio.CancelledError:
            await self._set_state(self.left_as, "interrupted" if self.left_as == "paused" else None)
            raise
        except BinderyError as error:
            paused = isinstance(error, ServerFault)
            await self._set_state("paused" if paused else "failed", f"{error.code}: {error.detail}")
            raise
        await self._set_state("done")
        return await asyncio.to_thread(self._close)

    async def _set_state(self, state: State, why: str | None = None) -> None:
        """Beside the event loop: another process may hold the ledger for a while. A further cancellation does not undo it."""
        await asyncio.shield(asyncio.to_thread(self._ledger.set_state, self._job.id, state, why))

    async def _whole(self) -> None:
        spec = self._job.spec
        target = await asyncio.to_thread(self._open_target, spec, self._crew)
        listing = await asyncio.to_thread(
            lambda: open_listing(spec.source, include=spec.include, rules=spec.rule_list(), allowed=self._allowed)
        )
        intake = Intake(self._ledger, self._job, self._crew.bundle, target.fields, self._tell, self._on_left_out)
        await settled(partial(intake.enter, listing), intake.stop)
        vanished = await asyncio.to_thread(intake.vanished)
        progress = self._progress = Progress(await asyncio.to_thread(self._ledger.counts, self._job.id))
        units = Units(self._crew, target, self._ledger, spec)
        turn = asyncio.Lock()

        def committer(leases: Leases, on_ended: OnEnded) -> Committer:
            return Committer(target, self._ledger, self._job, leases, self._crew.bundle, on_ended, turn)

        async def employ(executor: Executor) -> None:
            await Worker(executor, units, committer, self._ledger, self._job, progress, self._tell, self._on_progress).run()

        await self._crew.work(spec, listing, employ)
        if vanished:
            await asyncio.to_thread(self._remove, target, vanished)
        await asyncio.to_thread(target.finish)

    def _remove(self, target: Target, names: list[str]) -> None:
        self._ledger.forget(self._job, names, target.remove(names).moved)
        target.publish()

    def _tell(self, name: str, error: BinderyError) -> None:
        if self._on_failed is not None:
            self._on_failed(name, error)

    def _close(self) -> Report:
        report = report_of(self._ledger, self._ledger.job(self._job.id))
        write_report(self._ledger, report)
        return report
