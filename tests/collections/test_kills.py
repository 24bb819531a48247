"""`kill -9` at any moment: what was acknowledged is there, what was deleted stays away, and nothing is there by half."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from bindery.collections import Query, Store
from tests.collections import churn
from tests.collections.churn import Expected, Step
from tests.collections.items import MODALITIES, vector
from tests.collections.plain import PlainCollection, contents

SEED = 20261125


def _run_and_kill(data: Path, log: Path, seed: str, tiers: str, chance: random.Random) -> None:
    command = [sys.executable, "-m", "tests.collections.churn", str(data), str(log), seed, tiers]
    child = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        if chance.random() < 0.9:  # at work; the others die while they start or open
            give_up = time.monotonic() + 60
            while child.poll() is None and not log.exists() and time.monotonic() < give_up:
                time.sleep(0.002)
        time.sleep(chance.choice([0.02, 0.2, 0.5]) * chance.random())
    finally:
        child.send_signal(signal.SIGKILL)
        _, complaint = child.communicate()
    assert child.returncode == -signal.SIGKILL, complaint.decode()


def _reopened(data: Path, tiers: str, before: Expected, pending: Step | None, chance: random.Random) -> tuple[Expected, str]:
    """What the store holds, which is what it must, with or without the pending step; and which of the two."""
    after = before.copy()
    if pending is not None:
        after.take(pending)
    with Store(data, tiers=churn.TIERS[tiers]) as store:
        collection = churn.open_collection(store)
        found = contents(collection)
        assert found in (before.items.told(), after.items.told()), f"neither with nor without {pending}"
        if pending is None or before.items.told() == after.items.told():
            outcome = "nothing to tell by"
        else:
            outcome = "lost" if found == before.items.told() else "kept"
        settled = after if outcome == "kept" else before
        _check_snapshots(store, settled, pending)
        settled.items.check_contents(collection)
        # Asked with the vectors of items that were stored, so that one that came back from the dead would be the best hit.
        asked = chance.choices(settled.written or [0], k=40)
        for number in asked:
            modality, filter = chance.choice([None, *MODALITIES]), chance.choice([None, {"place": {"eq": "hall"}}])
            query = Query(vector(number), chance.choice([1, 10, 300]), modality and (modality,), filter)
            for exact in (True, False):
                settled.items.check_search(replace(query, exact=exact), collection.search(replace(query, exact=exact)).hits)
    return settled, outcome


def _check_snapshots(store: Store, settled: Expected, pending: Step | None) -> None:
    """Those that were acknowledged are whole; one in the making is whole or absent, and so is one on its way out."""
    doing = None if pending is None else pending["do"]
    names = {found.name for found in store.snapshots()}
    missing, unknown = set(settled.snapshots) - names, names - set(settled.snapshots)
    assert missing <= ({pending["snapshot"]} if pending is not None and doing == "drop snapshot" else set())
    assert len(unknown) <= (doing == "snapshot")
    for name in missing:
        del settled.snapshots[name]
    for name in unknown:
        settled.snapshots[name] = dict(settled.items.items)
    for name, items in settled.snapshots.items():
        PlainCollection(items).check_contents(store.restore("copy", name))
    if settled.snapshots:
        store.delete("copy")


def _rounds(folder: Path, tiers: str, count: int) -> Counter[str]:
    chance = random.Random(SEED)
    expected = Expected()
    outcomes: Counter[str] = Counter()
    for number in range(count):
        log = folder / f"{number}.log"
        _run_and_kill(folder / "data", log, f"{SEED}/{number}", tiers, chance)
        done, pending = churn.read_log(log)
        for step, answer in done:
            expected.answered(step, answer)
        outcomes["steps"] += len(done)
        expected, outcome = _reopened(folder / "data", tiers, expected, pending, chance)
        outcomes[outcome] += 1
        outcomes["sealed"] += any((folder / "data" / "segments").glob("*/*/*"))
    return outcomes


@pytest.mark.parametrize("tiers", ["usual", "tiny"])
def test_a_few_kills_lose_nothing_that_was_acknowledged(tmp_path: Path, tiers: str) -> None:
    assert _rounds(tmp_path, tiers, 4)["steps"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("tiers", ["usual", "tiny"])
def test_a_hundred_kills_lose_nothing_that_was_acknowledged(tmp_path: Path, tiers: str) -> None:
    outcomes = _rounds(tmp_path, tiers, 100)
    print(dict(outcomes))  # noqa: T201 - shown with -s
    # Both ways of dying must have been met: before the commit of a step, and after it.
    assert outcomes["steps"] > 500
    assert outcomes["lost"] > 0
    assert outcomes["kept"] > 0
    if tiers == "tiny":
        assert outcomes["sealed"] > 50, "too few kills met segments"
