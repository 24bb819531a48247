"""What suits the machine: measured, kept, found again by the same bundle on the same machine only, and never at the price of a vector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bindery.bundle import Bundle, open_bundle
from bindery.decoded import Tensors
from bindery.engine import calibration
from bindery.engine.calibration import Tuned, calibrate, read_calibration, write_calibration
from bindery.engine.engine import Engine, EnginePolicy, Tuning
from bindery.limits import Limits
from bindery.vectors import Vectors, normalize
from tests.engine.peers import Peers
from tests.fakeencoder import FakeEncoder
from tests.toybundle import build_toy_bundle

TUNED = Tuned(threads=1, max_batch=2, items_per_s=10.0, measured={"1 x 1": 10.0}, largest_move=0.0)


class Counted(FakeEncoder):
    """Its clock is the test's: a run takes as long as ``cost`` says. With more than one thread its vectors are others."""

    def __init__(self, clock: list[float], threads: int, names: tuple[str, ...], drift: float) -> None:
        super().__init__(dimension=8, input_names=names, max_batch=16)
        self._clock, self._threads, self._drift = clock, threads, drift

    def encode(self, tensors: Tensors) -> Vectors:
        rows = len(next(iter(tensors.values())))
        self._clock[0] += 0.01 / self._threads + 0.001 * max(rows, 4)  # up to four cost no more than one
        vectors = super().encode(tensors)
        return normalize(vectors + np.float32(self._drift)) if self._threads == 4 else vectors


def opener(clock: list[float], drift: float = 0.0) -> Any:
    def open_encoder(bundle: Bundle, modality: str, *, threads: int, **_: object) -> FakeEncoder:
        names = tuple(one.name for one in bundle.modality(modality).artefacts[0].inputs)
        return Counted(clock, threads, names, drift)

    return open_encoder


@pytest.fixture(scope="module")
def toy_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    time = [0.0]
    monkeypatch.setattr(calibration.time, "perf_counter", lambda: time[0])
    monkeypatch.setattr(calibration, "usable_cores", lambda: 4)
    return time


def test_it_takes_the_threads_and_the_smallest_batch_that_are_nearly_the_best(toy_bundle: Path, clock: list[float]) -> None:
    found = calibrate(open_bundle(toy_bundle), "image", device="cpu", precision="exact", seconds=1.0, open_encoder=opener(clock))
    assert found.threads == 4
    assert found.max_batch == 16
    assert found.measured["4 x 4"] > 3 * found.measured["4 x 1"]
    assert set(found.measured) == {"4 x 1", "3 x 1", "2 x 1", "4 x 2", "4 x 4", "4 x 8", "4 x 16"}
    assert found.largest_move == 0
    assert clock[0] < 2.0


def test_threads_that_move_a_vector_are_not_taken(toy_bundle: Path, clock: list[float]) -> None:
    found = calibrate(open_bundle(toy_bundle), "text", device="cpu", precision="exact", seconds=1.0, open_encoder=opener(clock, 0.1))
    assert found.threads == 4  # the default, whose vectors all others are held to
    assert set(found.measured) == {"4 x 1", "4 x 2", "4 x 4", "4 x 8", "4 x 16"}


def test_it_is_found_again_only_by_the_same_bundle_and_precision_on_the_same_machine(
    toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = open_bundle(toy_bundle)
    path = write_calibration(tmp_path, bundle, "cpu", "exact", {"image": TUNED})
    assert read_calibration(tmp_path, bundle, "cpu", "exact") == {"image": TUNED}
    assert read_calibration(tmp_path, bundle, "cpu", "bf16") == {}
    with monkeypatch.context() as patch:
        patch.setattr(calibration, "usable_cores", lambda: 99)
        assert read_calibration(tmp_path, bundle, "cpu", "exact") == {}
    path.write_text("{")
    assert read_calibration(tmp_path, bundle, "cpu", "exact") == {}


async def test_the_engine_uses_it_and_a_setting_overrules_it(toy_bundle: Path, tmp_path: Path) -> None:
    bundle = open_bundle(toy_bundle)
    write_calibration(tmp_path, bundle, "auto", "exact", {"image": TUNED})
    asked: dict[str, int | None] = {}

    class Noting(Peers):
        def __call__(self, bundle: Bundle, modality: str, *, threads: int | None, **rest: Any) -> Any:
            asked[modality] = threads
            return super().__call__(bundle, modality, threads=threads, **rest)

    for given, expected in ((None, 1), (3, 3)):
        policy = EnginePolicy(threads=given, decode_workers=1, calibrations=tmp_path)
        engine = Engine(bundle, Limits(), policy, Noting("image", "video"))
        await engine.start()
        assert asked["image"] == expected
        assert engine._encoding._batchers["image"]._max_batch == 2
        assert engine._encoding._batchers["video"]._max_batch == 16
        assert engine.tuning("image") == Tuning(expected, 2, calibrated=True)
        assert engine.tuning("video").calibrated is False
        await engine.stop(1)


def test_real_graphs_give_the_same_vectors_with_any_number_of_threads(toy_bundle: Path) -> None:
    found = calibrate(open_bundle(toy_bundle), "image", device="cpu", precision="exact", seconds=0.1)
    assert found.largest_move <= calibration.SAME
    assert found.items_per_s > 0
