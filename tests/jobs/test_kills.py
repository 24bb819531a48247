"""`bindery index`, killed at any moment and started again: the collection equals that of an undisturbed run, item for item."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from bindery.collections import Store
from tests.jobs.conftest import Index, contents, generated


def _killed_and_finished(index: Index, folder: Path, data: Path, kills: int, files: int) -> str:
    """Kill it ``kills`` times, each later in its work than the one before; then let it go to its end."""
    chance = random.Random(7)
    for number in range(kills):
        child = index(folder, data)
        try:
            _wait_for(data, files * number // kills, child.poll)
            time.sleep(chance.uniform(0, 0.3))
        finally:
            child.kill()
            child.communicate(timeout=30)
    child = index(folder, data)
    out, err = child.communicate(timeout=300)
    assert child.returncode == 0, err
    return out


def _wait_for(data: Path, items: int, ended: object) -> None:
    """Until the job has been entered and ``items`` are stored, or it has ended."""
    give_up = time.monotonic() + 120
    while time.monotonic() < give_up and callable(ended) and ended() is None:
        if (data / "catalog.sqlite").exists() and (data / "jobs" / "ledger.sqlite").exists():
            with Store(data) as store:
                if items == 0 or ("c" in store and len(store.get("c")) >= items):
                    return
        time.sleep(0.02)


def _check(index: Index, tmp_path: Path, files: int, kills: int) -> None:
    folder = generated(tmp_path / "media", files)
    undisturbed = index(folder, tmp_path / "undisturbed")
    out, err = undisturbed.communicate(timeout=300)
    assert (undisturbed.returncode, out) == (0, f"{files} listed = {files} done + 0 skipped + 0 failed\n"), err
    told = _killed_and_finished(index, folder, tmp_path / "killed", kills, files)
    assert told.startswith(f"{files} listed = ")
    assert told.endswith("+ 0 failed\n")
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")


def test_killed_three_times_it_has_all_and_nothing_twice(index: Index, tmp_path: Path) -> None:
    _check(index, tmp_path, files=40, kills=3)


@pytest.mark.slow
def test_killed_twenty_times_over_500_files(index: Index, tmp_path: Path) -> None:
    _check(index, tmp_path, files=500, kills=20)
