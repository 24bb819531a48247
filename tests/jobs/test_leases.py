"""Leases and their fences: however workers stall, die and come back, each unit is committed once."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bindery.jobs.leases import POISON_DEATHS, SUSPECT_DEATHS, Leases, Unit
from bindery.jobs.ledger import Ending, Job, Ledger
from bindery.jobs.listing import Listed
from bindery.jobs.spec import JobSpec
from tests.jobs.conftest import Indexer, contents, generated


def _entered(ledger: Ledger, count: int) -> Job:
    """A job with so many units, listed."""
    job = ledger.add(JobSpec(source="/media", collection="c"), "cli")
    files = [(Listed(f"/media/{number:03}.png", f"{number:03}.png", 9, fingerprint="1-1"), "image") for number in range(count)]
    run = ledger.begin(job.id)
    ledger.list_units(job.id, run, files)
    ledger.end_listing(job.id, run, 0)
    return job


def _done(unit: Unit) -> Ending:
    return Ending(unit, "done", content_hash="h", pipeline_id="p")


def _names(units: list[Unit]) -> list[str]:
    return [unit.listed.name for unit in units]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path)
    yield ledger
    ledger.close()


def test_a_stale_holder_is_refused_and_the_new_one_taken(ledger: Ledger) -> None:
    job = _entered(ledger, 2)
    stale, fresh = ledger.leases(job.id, seconds=0.0), ledger.leases(job.id)
    old = stale.take(10)
    assert fresh.take(1)[0].attempt == old[0].attempt + 1
    assert stale.confirm(old) == {(old[1].listed.name, 1)}
    assert [ending.unit for ending in ledger.end(job, stale, [_done(unit) for unit in old])] == [old[1]]
    assert ledger.counts(job.id)["done"] == 1
    (mine,) = (unit for unit in old[:1])
    assert ledger.end(job, stale, [_done(mine)]) == []
    assert ledger.end(job, stale, [_done(old[1])]) == []  # ended already: not twice either
    assert ledger.job(job.id).encoded == 1


def test_a_worker_that_slept_goes_on_with_its_own(ledger: Ledger) -> None:
    job = _entered(ledger, 1)
    leases = ledger.leases(job.id, seconds=0.0)
    (unit,) = leases.take(1)
    assert leases.take(1) == []  # it has run out, but it is in work here
    assert len(ledger.end(job, leases, [_done(unit)])) == 1


def test_all_or_none_are_taken_when_that_is_asked(ledger: Ledger) -> None:
    job = _entered(ledger, 2)
    leases = ledger.leases(job.id, seconds=0.0)
    units = leases.take(2)
    ledger.leases(job.id).take(1)
    assert ledger.end(job, leases, [_done(unit) for unit in units], whole=True) == []
    assert (ledger.counts(job.id)["done"], ledger.job(job.id).encoded) == (0, 0)
    assert len(ledger.end(job, leases, [_done(units[1])], whole=True)) == 1


def test_what_is_renewed_is_not_taken(ledger: Ledger) -> None:
    job = _entered(ledger, 1)
    holder, other = ledger.leases(job.id, seconds=0.0), ledger.leases(job.id)
    (unit,) = holder.take(1)
    holder.seconds = 60.0
    holder.renew()
    assert other.take(1) == []
    assert holder.confirm([unit]) == {(unit.listed.name, 1)}


def test_a_file_that_changes_while_it_is_in_work_is_queued_again(ledger: Ledger) -> None:
    job = _entered(ledger, 1)
    leases = ledger.leases(job.id)
    (unit,) = leases.take(1)
    run = ledger.job(job.id).run
    ledger.list_units(job.id, run, [(Listed("/media/000.png", "000.png", 9, fingerprint="2-2"), "image")])
    assert ledger.end(job, leases, [_done(unit)]) == []
    assert ledger.counts(job.id)["queued"] == 1


def test_what_is_given_back_is_not_blamed_and_what_is_left_is_tried_alone(ledger: Ledger) -> None:
    job = _entered(ledger, 2)
    for _ in range(10):
        leases = ledger.leases(job.id)
        assert len(leases.take(5)) == 2
        leases.release()
    for _ in range(SUSPECT_DEATHS):  # workers that die with the first one
        assert _names(ledger.leases(job.id).take(1)) == ["000.png"]
        ledger.begin(job.id)
        ledger.list_units(job.id, ledger.job(job.id).run, [])
    leases = ledger.leases(job.id)
    assert _names(leases.take(5)) == ["001.png"]
    for deaths in range(POISON_DEATHS):
        leases = ledger.leases(job.id)
        suspect = leases.take_alone()
        assert suspect is not None
        assert (suspect.listed.name, suspect.deaths_alone) == ("000.png", deaths)
        leases.release()  # in peace
        assert ledger.leases(job.id).take_alone() == Unit(suspect.listed, "image", suspect.attempt + 1, deaths)
        ledger.begin(job.id)  # that one died
    poison = ledger.leases(job.id).take_alone()
    assert poison is not None
    assert poison.deaths_alone == POISON_DEATHS


def _work(folder: Path, job: str, seed: int, log: Path) -> None:
    """A worker that stalls at random for longer than its leases last, and writes down what was taken from it."""
    chance = random.Random(seed)
    ledger = Ledger(folder)
    leases = ledger.leases(job, seconds=0.3)
    found = ledger.job(job)
    with log.open("a") as stream:
        while any(ledger.counts(job)[state] for state in ("queued", "leased")):  # type: ignore[literal-required]
            units = leases.take(4) or [unit for unit in [leases.take_alone()] if unit is not None]
            time.sleep(chance.choice([0.0, 0.0, 0.0, 0.5]))
            held = leases.confirm(units)
            time.sleep(chance.choice([0.0, 0.0, 0.0, 0.5]))
            for ending in ledger.end(found, leases, [_done(unit) for unit in units if (unit.listed.name, unit.attempt) in held]):
                stream.write(ending.unit.listed.name + "\n")
                stream.flush()
    ledger.close()


def test_three_processes_that_stall_commit_each_unit_once(ledger: Ledger, tmp_path: Path) -> None:
    job = _entered(ledger, 30)
    context = multiprocessing.get_context("spawn")
    logs = [tmp_path / f"log{number}" for number in range(3)]
    workers = [context.Process(target=_work, args=(tmp_path, job.id, seed, log)) for seed, log in enumerate(logs)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(300)
        assert worker.exitcode == 0
    taken = [name for log in logs for name in log.read_text().split()]
    assert sorted(taken) == [f"{number:03}.png" for number in range(30)]
    assert ledger.job(job.id).encoded == 30


def test_a_run_whose_units_are_taken_from_it_commits_none_of_them(run: Indexer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its leases end at once unless it is committing; a thief takes some and fails them."""
    take = Leases.take

    def take_for_a_moment(leases: Leases, limit: int) -> list[Unit]:
        leases.seconds = 0.0
        try:
            return take(leases, limit)
        finally:
            leases.seconds = 60.0

    monkeypatch.setattr(Leases, "take", take_for_a_moment)
    stolen: set[str] = set()
    ended = threading.Event()

    def steal() -> None:
        ledger = Ledger(run.data)
        while not ended.wait(0.02) and len(stolen) < 10:  # it must not keep the others from the lock
            for job in ledger.jobs():
                thief = Leases(ledger._database, job.id)
                units = [unit for unit in take(thief, 1) if unit.attempt > 1]
                taken = ledger.end(job, thief, [Ending(unit, "failed", code="stolen", detail="by a thief") for unit in units])
                stolen.update(ending.unit.listed.name for ending in taken)
                thief.release()
        ledger.close()

    thief = threading.Thread(target=steal)
    thief.start()
    try:
        report = run(generated(tmp_path / "media", 60))
    finally:
        ended.set()
        thief.join()
    assert stolen
    assert report.failed == len(stolen)
    assert report.done == 60 - len(stolen)
    assert not stolen & set(contents(run.data))


DYING = """
import os
from bindery.jobs import leases, worker
from bindery.jobs.units import Units
leases.SUSPECT_DEATHS = worker.POISON_DEATHS = 1  # sooner than in life, since each death takes seconds
make = Units.make
async def dies(self, unit, executor):
    if unit.listed.name == "part0/0000.png":
        os.kill(os.getpid(), 9)
    return await make(self, unit, executor)
Units.make = dies
from bindery.cli.main import main
main()
"""


def test_a_file_that_kills_the_whole_process_is_given_up_and_the_rest_goes_in(toy: Path, tmp_path: Path) -> None:
    folder = generated(tmp_path / "media", 8)
    command = [sys.executable, "-c", DYING, "index", str(folder), "--collection", "c", "--bundle", str(toy), "--data-dir"]
    environment = os.environ | {"BINDERY_THREADS": "1", "BINDERY_DECODE_WORKERS": "1"}  # noqa: TID251 - the child's environment
    codes = []
    while not codes or (codes[-1] == -9 and len(codes) < 20):
        ended = subprocess.run([*command, str(tmp_path / "data")], capture_output=True, text=True, env=environment, check=False)
        codes.append(ended.returncode)
    assert codes == [-9, -9, 3]
    assert ended.stdout == "8 listed = 7 done + 0 skipped + 1 failed\n"
    assert "error[poison_file]: part0/0000.png" in ended.stderr
    assert len(contents(tmp_path / "data")) == 7


def test_leases_outlive_a_cancelled_run_by_nothing(run: Indexer, tmp_path: Path) -> None:
    """What a run that is stopped had in work is free at once, and nobody is blamed."""
    folder = generated(tmp_path / "media", 400)

    async def stopped() -> None:
        running = asyncio.create_task(run.started(folder))
        while not (run.data / "jobs/ledger.sqlite").exists() or not run.stored():
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(stopped())
    ledger = Ledger(run.data)
    (job,) = ledger.jobs()
    assert (job.state, ledger.counts(job.id)["leased"]) == ("paused", 0)
    with ledger._database.reading() as db:
        assert db.execute("SELECT max(deaths), max(deaths_alone) FROM units WHERE state = 'queued'").fetchone() in [(0, 0), (None, None)]
    ledger.close()
    assert str(run.again(job.id)).startswith("400 listed = ")
