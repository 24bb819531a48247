"""The hostile set through the real pool with the service's limits: the documented answer, in time, in memory, and the pool lives."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bindery.engine.pool import DecodePool
from bindery.engine.worker import Stretch, Task
from bindery.errors import BinderyError
from bindery.kinds import parse_options
from bindery.limits import MIB, Limits
from bindery.media.source import Source
from bindery.spec import AudioSpec, DepthSpec, ImageSpec, Spec, ThermalSpec, VideoSpec
from tests.hostile.make import Hostile, hostile_set

ELEPHANT = Source.of(Path(__file__).parents[2] / "examples/elephant.jpg")
SPECS: dict[str, Spec] = {
    "image": ImageSpec(),
    "video": VideoSpec(),
    "audio": AudioSpec(),
    "depth": DepthSpec(),
    "thermal": ThermalSpec(),
}
HOSTILE = list(hostile_set())


@pytest.fixture(scope="module")
def limits() -> Limits:
    return Limits(decode_seconds=120)  # else the service's own; how long each file takes is measured in bench/hostile.py


@pytest.fixture(scope="module")
def pool(limits: Limits) -> Iterator[DecodePool]:
    pool = DecodePool(1, limits, lambda _: None, growth_bytes=1 << 50)  # not renewed: the peak is what is measured
    pool.start()
    yield pool
    pool.stop()


def task(modality: str, source: Source) -> Task:
    return Task(source, SPECS[modality], parse_options(modality, {}))


def peak_bytes() -> int:
    """The most that any living decoder has held so far."""
    peaks = [0]
    for process in multiprocessing.active_children():
        if process.name == "bindery-decoder":
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
            peaks.append(int(found[1]) * 1024 if found else 0)
    return max(peaks)


def test_the_set_is_large_and_covers_every_kind_of_media() -> None:
    assert len(HOSTILE) >= 60
    assert {file.modality for file in HOSTILE} == set(SPECS)
    assert len({(file.modality, file.name) for file in HOSTILE}) == len(HOSTILE)


@pytest.mark.parametrize(
    "hostile", [file for file in HOSTILE if file.modality in ("video", "audio")], ids=lambda hostile: f"{hostile.modality}-{hostile.name}"
)
def test_looking_for_scenes_in_a_hostile_file_comes_to_an_end(pool: DecodePool, hostile: Hostile) -> None:
    stretch = Stretch(Source.of(hostile.make(), name=hostile.name), 0.0, 30.0)
    answer = pool.find_cuts(stretch, None)
    error = answer.exception(180)
    if error is not None:
        assert isinstance(error, BinderyError)
        assert error.code in {"empty_media", "too_many_bytes", "too_many_pixels", "decoder_killed"}, error
    else:
        assert 0 < answer.result().until_s <= 30
        assert len(answer.result().times_s) < 30 * 60


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: f"{hostile.modality}-{hostile.name}")
def test_a_hostile_file_gets_its_documented_answer_in_bounded_memory(pool: DecodePool, limits: Limits, hostile: Hostile) -> None:
    answer = pool.submit(task(hostile.modality, Source.of(hostile.make(), name=hostile.name)), None)
    error = answer.exception(180)
    if isinstance(error, BinderyError):
        assert error.code in hostile.codes, error.detail
        assert len(error.detail) < 1000
    else:
        assert "ok" in hostile.codes, "it was taken"
        assert all(np.isfinite(array).all() for array in answer.result().tensors.values())
    assert peak_bytes() < limits.decode_memory_bytes + 512 * MIB
    assert pool.submit(task("image", ELEPHANT), None).result(60).usage["pixels"] > 0
