"""What the commands that run a job share: its spec, the job that was interrupted, and the bar while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import TYPE_CHECKING

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bindery.cli.console import complain, note, progress_console
from bindery.cli.options import validated
from bindery.extras import needing

if TYPE_CHECKING:
    from bindery.errors import BinderyError
    from bindery.jobs.executor import Crew
    from bindery.jobs.ledger import Job, Ledger
    from bindery.jobs.progress import Snapshot
    from bindery.jobs.report import Report
    from bindery.jobs.spec import JobSpec
    from bindery.jobs.target import OpenTarget
    from bindery.settings import Settings

_INTERRUPTED = 130  # as shells say it: 128 + SIGINT
_NAMED = 3  # files in a note


class Executor(StrEnum):
    LOCAL = "local"
    RAY = "ray"


class ClipBy(StrEnum):
    SECONDS = "seconds"
    SCENES = "scenes"


def job_spec(**given: object) -> JobSpec:
    """Raises `InvalidParameter`."""
    from bindery.jobs.spec import JobSpec

    return validated(JobSpec, given)


def _job(ledger: Ledger, spec: JobSpec) -> Job:
    """The interrupted job of the same work, or a new one."""
    found = ledger.unfinished(spec)
    if found is None:
        return ledger.add(spec, "cli")
    note(f"goes on with job {found.id}, which was interrupted")
    ledger.set_state(found.id, "queued", spec=spec)
    return ledger.job(found.id)


def run_job(spec: JobSpec, ledger: Ledger, open_target: OpenTarget, settings: Settings, executor: Executor = Executor.LOCAL) -> Report:
    """Run it, or go on with it, to its end; failed files are told as they fail. Ctrl-C ends the command with 130."""
    from bindery.jobs.report import report_of

    job = _job(ledger, spec)
    left_out: list[str] = []  # the first few

    def keep(name: str) -> None:
        if len(left_out) < _NAMED:
            left_out.append(name)

    try:
        report = asyncio.run(_run(job, ledger, open_target, settings, executor, keep))
    except KeyboardInterrupt:
        note(f"interrupted: {report_of(ledger, ledger.job(job.id))}; what is done is kept, run it again for the rest")
        raise typer.Exit(_INTERRUPTED) from None
    if report.left_out:
        files = f"{report.left_out} file{'s' if report.left_out > 1 else ''}"
        such = f" ({', '.join(left_out)}{', ...' if report.left_out > len(left_out) else ''})"
        note(f'left out {files} of no modality of the bundle, or of several{such}; a --rule "GLOB=MODALITY" takes them in')
    return report


async def _run(
    job: Job, ledger: Ledger, open_target: OpenTarget, settings: Settings, executor: Executor, on_left_out: Callable[[str], None]
) -> Report:
    from bindery.jobs.run import JobRun

    async with _crew(settings, executor) as crew:
        with _bar() as shown:

            def show(now: Snapshot) -> None:
                stage = f", held up by {now.bottleneck}" if now.bottleneck else ""
                shown.update(shown.task_ids[0], completed=now.ended, total=now.listed, description=f"{now.rate:.1f} files/s{stage}")

            def failed(name: str, error: BinderyError) -> None:
                complain(error, name)

            run = JobRun(crew, open_target, ledger, job, on_failed=failed, on_left_out=on_left_out, on_progress=show)
            return await run.run()


@asynccontextmanager
async def _crew(settings: Settings, executor: Executor) -> AsyncIterator[Crew]:
    if executor is Executor.RAY:
        with needing("ray", "--executor ray"):
            from bindery.jobs.cluster import RayCrew
        crew = RayCrew(settings)
        try:
            yield crew
        finally:
            crew.close()
        return
    from bindery.bundle import find_bundle, open_bundle
    from bindery.engine.engine import Engine, EnginePolicy
    from bindery.jobs.executor import OneProcess

    engine = Engine(open_bundle(find_bundle(settings.bundle, settings.bundle_places())), settings.limits, EnginePolicy.of(settings))
    await engine.start()
    try:
        yield OneProcess(engine)
    finally:
        await engine.stop(0)


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = progress_console()
    bar = Progress(*columns, console=console, disable=not console.is_terminal)
    bar.add_task("listing", total=None)
    return bar
