"""`bindery index`, killed at any moment and started again: the collection equals that of an undisturbed run, item for item."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bindery.jobs.ledger import Job, Ledger
from tests.jobs.conftest import Index, contents, generated, spoil

_WAIT_S = 120.0


def _kill_at_work(child: subprocess.Popen[str], data: Path, run: int, chance: random.Random) -> None:
    """Kill the job's run number ``run``: while it lists, in its first work, or after it has committed something new."""
    moment = chance.choice(["listing", "work", "commit"])
    try:
        ledger = _ledger_of(data, child)
        try:
            _wait(child, lambda: _job(ledger) is not None and _running(ledger).run >= run)
            if moment != "listing":
                _wait(child, lambda: ledger.counts(_running(ledger).id)["leased"] > 0)
            if moment == "commit":
                before = _ended(ledger)
                _wait(child, lambda: _ended(ledger) > before)
        finally:
            ledger.close()
        time.sleep(chance.uniform(0, 0.05))
    finally:
        alive = child.poll() is None
        child.kill()
        _, err = child.communicate(timeout=30)
    assert alive, f"the job ended before kill {run}: give it more files. {err}"


def _ledger_of(data: Path, child: subprocess.Popen[str]) -> Ledger:
    _wait(child, (data / "jobs" / "ledger.sqlite").exists)
    return Ledger(data)


def _job(ledger: Ledger) -> Job | None:
    jobs = ledger.jobs()
    assert len(jobs) < 2, "a killed job was not gone on with"
    return jobs[0] if jobs else None


def _running(ledger: Ledger) -> Job:
    job = _job(ledger)
    assert job is not None
    return job


def _ended(ledger: Ledger) -> int:
    counts = ledger.counts(_running(ledger).id)
    return counts["done"] + counts["skipped"] + counts["failed"]


def _wait(child: subprocess.Popen[str], until: Callable[[], bool]) -> None:
    """Until it is so or the child has ended."""
    give_up = time.monotonic() + _WAIT_S
    while child.poll() is None and not until():
        assert time.monotonic() < give_up, "the job does not get on"
        time.sleep(0.005)


def _check(index: Index, tmp_path: Path, files: int, kills: int) -> None:
    folder = generated(tmp_path / "media", files)
    codes = spoil(folder, files // 20)
    tolerant = ("--max-error-rate", "1")
    undisturbed = index(folder, tmp_path / "undisturbed", *tolerant)
    out, err = undisturbed.communicate(timeout=300)
    listed = files + len(codes)
    assert (undisturbed.returncode, out) == (3, f"{listed} listed = {files} done + 0 skipped + {len(codes)} failed\n"), err

    chance = random.Random(7)
    data = tmp_path / "killed"
    for number in range(kills):
        _kill_at_work(index(folder, data, *tolerant), data, number + 1, chance)
    last = index(folder, data, *tolerant)
    _, err = last.communicate(timeout=300)
    assert last.returncode == 3, err
    ledger = Ledger(data)
    job = _running(ledger)
    ledger.close()
    assert (job.state, job.run) == ("done", kills + 1)
    report = json.loads((data / "jobs" / job.id / "report.json").read_text())
    # What was stored right before a kill, and not yet entered, is found and skipped: nothing is encoded twice for good.
    assert (report["listed"], report["done"] + report["skipped"], report["failed"]) == (listed, files, len(codes))
    failures = [json.loads(line) for line in (data / "jobs" / job.id / "errors.jsonl").read_text().splitlines()]
    assert {failure["name"]: failure["code"] for failure in failures} == codes
    assert contents(data) == contents(tmp_path / "undisturbed")
    assert len(contents(data)) == files


def test_killed_three_times_it_has_all_and_nothing_twice(index: Index, tmp_path: Path) -> None:
    _check(index, tmp_path, files=120, kills=3)


@pytest.mark.slow
def test_killed_twenty_times_over_2000_files(index: Index, tmp_path: Path) -> None:
    _check(index, tmp_path, files=2000, kills=20)
