"""`bindery embed SOURCE --out DIR`: Parquet shards through the ledger, each file's rows in one shard, once."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bindery.bundle import open_bundle
from bindery.engine.engine import Engine, EnginePolicy
from bindery.errors import AlreadyExists, InvalidParameter, JobState, SpaceMismatch
from bindery.jobs.executor import OneProcess
from bindery.jobs.report import Report
from bindery.jobs.run import JobRun
from bindery.jobs.shards import COLLECTION, HOME, InShards, in_shards, shards_in
from bindery.jobs.spec import JobSpec
from bindery.limits import Limits
from tests import longmedia
from tests.jobs.conftest import Indexer, contents, generated, picture
from tests.service.test_models import renamed

Rows = dict[str, tuple[str, str, str, bytes]]


def rows(out: Path) -> Rows:
    """Every row of every shard by its id; fails when one is there twice."""
    found: Rows = {}
    for path in out.glob("*.parquet"):
        for row in pq.read_table(path).to_pylist():
            assert row["id"] not in found, f"{row['id']} is there twice"
            vector = np.asarray(row["vector"], np.float32)
            found[row["id"]] = (row["modality"], row["uri"], row["metadata"], vector.tobytes())
    return found


def same(one: Rows, other: Rows) -> bool:
    """Up to the last bits of a vector, which may depend on its batch."""
    if {id: row[:3] for id, row in one.items()} != {id: row[:3] for id, row in other.items()}:
        return False
    return all(
        np.allclose(np.frombuffer(row[3], np.float32), np.frombuffer(other[id][3], np.float32), atol=2e-3) for id, row in one.items()
    )


class Embedding:
    """Runs jobs into one folder in this process."""

    def __init__(self, toy: Path, out: Path) -> None:
        self.out = out
        self.toy = toy

    def __call__(self, source: Path, **more: object) -> Report:
        return asyncio.run(self._run(JobSpec.model_validate({"source": str(source), "collection": COLLECTION, **more})))

    async def _run(self, spec: JobSpec) -> Report:
        engine = Engine(open_bundle(self.toy), Limits(), EnginePolicy(threads=1, decode_workers=1))
        await engine.start()
        try:
            with shards_in(self.out) as ledger:
                return await JobRun(OneProcess(engine), in_shards(self.out, ledger), ledger, ledger.add(spec, "cli")).run()
        finally:
            await engine.stop(0)


@pytest.fixture
def embed(toy: Path, tmp_path: Path) -> Embedding:
    return Embedding(toy, tmp_path / "shards")


def test_shards_hold_what_a_collection_would(embed: Embedding, run: Indexer, tmp_path: Path) -> None:
    folder = generated(tmp_path / "media", 10)
    (folder / "long.wav").write_bytes(longmedia.wav())
    shutil.copy(folder / "part0/0000.png", folder / "twin.png")
    (folder / "bad.wav").write_bytes(b"RIFF")
    report = embed(folder)
    assert (str(report), report.copied) == ("13 listed = 12 done + 0 skipped + 1 failed", 1)
    run(folder)
    assert same(rows(embed.out), {id: (modality, str(uri), "{}", vector) for id, (modality, uri, vector, _) in contents(run.data).items()})
    (shard,) = embed.out.glob("*.parquet")
    assert pq.read_schema(shard).metadata[b"bindery.space"].decode().startswith("sha256:")


def test_a_second_run_writes_only_what_changed_and_no_row_twice(embed: Embedding, tmp_path: Path) -> None:
    folder = generated(tmp_path / "media", 12)
    (folder / "long.wav").write_bytes(longmedia.wav())
    embed(folder)
    first = rows(embed.out)
    again = embed(folder)
    assert (str(again), rows(embed.out)) == ("13 listed = 0 done + 13 skipped + 0 failed", first)

    (folder / "part0/0000.png").write_bytes(picture(np.full((24, 24, 3), 200, dtype=np.uint8)))
    (folder / "long.wav").write_bytes(longmedia.wav(longmedia.TONES_HZ[:3]))
    (folder / "part1/0001.wav").rename(folder / "part1/renamed.wav")
    report = embed(folder, prune=True)
    assert (report.done, report.copied, report.encoded, report.pruned) == (3, 1, 2, 1)
    after = rows(embed.out)
    assert {id for id in after if id.startswith("long.wav")} < {id for id in first if id.startswith("long.wav")} | {"long.wav#24-30"}
    assert after["part0/0000.png"] != first["part0/0000.png"]
    assert after["part1/renamed.wav"][3] == first["part1/0001.wav"][3]
    assert "part1/0001.wav" not in after
    untouched = [id for id in after if id not in ("part0/0000.png", "part1/renamed.wav") and not id.startswith("long.wav")]
    assert len(untouched) == 10
    assert all(after[id] == first[id] for id in untouched)


def test_a_medium_with_a_clip_that_failed_is_replaced_when_it_is_whole(embed: Embedding, tmp_path: Path) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    whole = longmedia.mp4(sound_s=60.0)
    (folder / "hurt.m4a").write_bytes(longmedia.damaged(whole, 0.5))
    cut = {"clip_seconds": 5.0, "clip_stride": 5.0, "rules": {"*": "audio"}}
    for _ in range(2):
        assert embed(folder, **cut).failed == 1
        assert 8 <= len(rows(embed.out)) < 12
    (folder / "hurt.m4a").write_bytes(whole)
    assert embed(folder, **cut).done == 1
    assert len(rows(embed.out)) == 12


@pytest.mark.parametrize("point", ["before the ledger knows", "after the ledger knows"])
def test_a_death_beside_the_commit_leaves_all_or_nothing(
    embed: Embedding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    folder = generated(tmp_path / "media", 6)
    embed(folder)
    (folder / "part0/0000.png").write_bytes(picture(np.full((24, 24, 3), 9, dtype=np.uint8)))
    (folder / "new.png").write_bytes(picture(np.full((24, 24, 3), 8, dtype=np.uint8)))

    class Death(BaseException):
        pass

    def dies(*_: object, **__: object) -> None:
        raise Death

    with monkeypatch.context() as patch:
        if point.startswith("before"):
            patch.setattr("bindery.jobs.ledger.Ledger.end", dies)
        else:
            patch.setattr(InShards, "publish", dies)
        patch.setattr(InShards, "discard", dies)
        with pytest.raises(Death):
            embed(folder)
    assert list((embed.out / HOME).glob("*.parquet"))
    assert embed(folder).listed == 7
    found = rows(embed.out)
    assert len(found) == 7
    assert not list((embed.out / HOME).glob("*.parquet"))
    fresh = Embedding(embed.toy, tmp_path / "fresh")
    fresh(folder)
    assert same(rows(fresh.out), found)


def test_what_is_no_folder_of_shards_is_left_alone(embed: Embedding, tmp_path: Path) -> None:
    folder = generated(tmp_path / "media", 2)
    embed.out.mkdir()
    (embed.out / "mine.parquet").write_bytes(b"PAR1")
    with pytest.raises(AlreadyExists):
        embed(folder)
    (embed.out / "mine.parquet").unlink()
    embed(folder)
    with shards_in(embed.out), pytest.raises(JobState):
        embed(folder)
    embed.toy = renamed(embed.toy, tmp_path / "elsewhere", name="elsewhere", space="sha256:elsewhere")
    with pytest.raises(SpaceMismatch):
        embed(folder)
    (tmp_path / "file").write_bytes(b"")
    embed.out = tmp_path / "file" / "x"
    with pytest.raises(InvalidParameter):
        embed(folder)


def test_small_shards_are_joined_and_whole_ones_left(embed: Embedding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = generated(tmp_path / "media", 20)
    monkeypatch.setattr(InShards, "units_at_once", 3)
    finish = InShards.finish
    counts: list[int] = []

    def counted(target: InShards) -> None:
        counts.append(len(list(embed.out.glob("*.parquet"))))
        target._rows_per_file = 9
        finish(target)
        counts.append(len(list(embed.out.glob("*.parquet"))))

    monkeypatch.setattr(InShards, "finish", counted)
    embed(folder)
    assert counts[0] >= 7
    assert counts[1] in (3, 4)
    assert len(rows(embed.out)) == 20


@pytest.fixture
def begun(toy: Path, tmp_path: Path) -> Callable[[Path], subprocess.Popen[str]]:
    def begin(source: Path) -> subprocess.Popen[str]:
        environment = os.environ | {"BINDERY_THREADS": "1", "BINDERY_DECODE_WORKERS": "1"}  # noqa: TID251 - the child's environment
        command = [sys.executable, "-c", QUICK, "embed", str(source), "--bundle", str(toy), "--out", str(tmp_path / "out")]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    return begin


QUICK = """
from bindery.jobs.shards import InShards
InShards.units_at_once = 10  # so that a few files are many commits
from bindery.cli.main import main
main()
"""


def test_killed_at_random_it_has_all_and_nothing_twice(
    begun: Callable[[Path], subprocess.Popen[str]], embed: Embedding, tmp_path: Path
) -> None:
    folder = generated(tmp_path / "media", 120)
    chance = random.Random(3)
    for number in range(3):
        child = begun(folder)
        give_up = time.monotonic() + 60
        while child.poll() is None and time.monotonic() < give_up and len(list((tmp_path / "out").glob("*.parquet"))) < 2 * number + 1:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.05))
        child.kill()
        child.communicate(timeout=30)
    child = begun(folder)
    told, errors = child.communicate(timeout=120)
    assert child.returncode == 0, errors
    assert told.startswith("120 listed = ")
    embed(folder)
    assert same(rows(tmp_path / "out"), rows(embed.out))
