"""The seam to a GPU: everything up to FAISS's own classes, which a stand-in on the processor takes the place of."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faiss
import numpy as np
import pytest

from bindery.collections import Item, Query, Store, gpu
from bindery.collections.local import LocalCollection
from bindery.collections.stores import open_store
from bindery.collections.tiers import Tiers
from bindery.settings import Settings
from bindery.vectors import Vectors, normalize

DIMENSION = 16
ROWS = 2400
TIERS = Tiers(exact_rows=200, always_exact=20, gpu=True)


class FakeGpuIndex:
    """What `GpuRows` uses of FAISS's index: float16 rows, no selectors, at most so many rows an answer."""

    room = 10_000
    broken = False
    searches = 0

    def __init__(self, resources: Any, dimension: int, config: Any) -> None:
        assert resources is not None
        assert config.useFloat16
        self._index = faiss.IndexFlatIP(dimension)

    @property
    def ntotal(self) -> int:
        return int(self._index.ntotal)

    def add(self, rows: Vectors) -> None:
        if self.ntotal + len(rows) > FakeGpuIndex.room:
            raise RuntimeError("out of memory on the device")
        self._index.add(rows.astype(np.float16).astype(np.float32))

    def search(self, queries: Vectors, count: int) -> Any:
        if FakeGpuIndex.broken:
            raise RuntimeError("the device was lost")
        FakeGpuIndex.searches += 1
        return self._index.search(queries.astype(np.float16).astype(np.float32), count)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> type[FakeGpuIndex]:
    monkeypatch.setattr(faiss, "StandardGpuResources", SimpleNamespace, raising=False)
    monkeypatch.setattr(faiss, "GpuIndexFlatConfig", SimpleNamespace, raising=False)
    monkeypatch.setattr(faiss, "GpuIndexFlatIP", FakeGpuIndex, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    for name, value in (("room", 10_000), ("broken", False), ("searches", 0)):
        monkeypatch.setattr(FakeGpuIndex, name, value)
    return FakeGpuIndex


@pytest.fixture
def collection(device: type[FakeGpuIndex], tmp_path: Path) -> Iterator[LocalCollection]:
    assert not device.searches
    with Store(tmp_path, tiers=TIERS) as store:
        yield _fill(store)


def _fill(store: Store) -> LocalCollection:
    made = store.create("things", space="s", dimension=DIMENSION, bundle="toy", fields={"n": "integer"})
    made.upsert([Item(f"i{n}", "image", row, metadata={"n": n}) for n, row in enumerate(_rows(1, ROWS))])
    made.seal()
    return made


def _rows(seed: int, count: int) -> Vectors:
    return normalize(np.random.default_rng(seed).standard_normal((count, DIMENSION)))


def _same(collection: LocalCollection, query: Vectors, top_k: int = 10, **more: Any) -> dict[str, Any]:
    """The line of the plan, after the answer was held to that of an exact search."""
    found = collection.search(Query(query, top_k, **more))
    exact = collection.search(Query(query, top_k, exact=True, **more))
    assert [(hit.id, hit.score) for hit in found] == [(hit.id, hit.score) for hit in exact]
    line: dict[str, Any] = found.plan["modalities"]["image"]
    return line


def test_segments_are_scanned_on_the_gpu_and_scores_are_the_processors(collection: LocalCollection, device: type[FakeGpuIndex]) -> None:
    for query in _rows(2, 20):
        assert _same(collection, query)["segments_on_gpu"] == 1
    assert device.searches == 20


def test_deleted_rows_stay_away_and_new_ones_are_found(collection: LocalCollection) -> None:
    query = _rows(3, 1)[0]
    first = [hit.id for hit in collection.search(Query(query, 5))]
    collection.delete(ids=first)
    collection.upsert([Item("new", "image", query)])
    assert _same(collection, query)["segments_on_gpu"] == 1
    assert collection.search(Query(query, 1)).hits[0].id == "new"


def test_filters_and_many_hits_are_answered_by_the_processor(collection: LocalCollection, device: type[FakeGpuIndex]) -> None:
    query = _rows(4, 1)[0]
    assert "segments_on_gpu" not in _same(collection, query, filter={"n": {"lt": ROWS * 2 // 3}})
    assert "segments_on_gpu" not in _same(collection, query, top_k=1000)
    assert device.searches == 0


def test_what_does_not_fit_is_scanned_by_the_processor_and_said(
    device: type[FakeGpuIndex], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "room", ROWS - 1)
    with Store(tmp_path, tiers=TIERS) as store:
        found = _fill(store).search(Query(_rows(5, 1)[0], 10))
    assert len(found) == 10
    assert "segments_on_gpu" not in found.plan["modalities"]["image"]
    assert "cannot be copied to the GPU: out of memory on the device" in caplog.text


def test_a_gpu_that_breaks_is_left_and_said(
    collection: LocalCollection, device: type[FakeGpuIndex], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "broken", True)
    for query in _rows(6, 3):
        found = collection.search(Query(query, 10))
        assert len(found) == 10
        assert "segments_on_gpu" not in found.plan["modalities"]["image"]
    assert caplog.text.count("the GPU failed: the device was lost") == 1


@pytest.mark.usefixtures("device")
def test_the_setting_decides_and_the_log_says_what_was_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "bindery.collections.gpu")
    assert gpu.usable("auto")
    assert "scanned on GPU 0" in caplog.text
    assert not gpu.usable("cpu")
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    caplog.clear()
    assert not gpu.usable("auto")
    assert not caplog.text
    with open_store(Settings(data_dir=tmp_path, search_device="gpu")):
        assert "although a GPU was asked for" in caplog.text
        assert "sees no GPU" in caplog.text


def test_a_faiss_without_gpus_is_named(caplog: pytest.LogCaptureFixture) -> None:
    if hasattr(faiss, "StandardGpuResources"):
        pytest.skip("this FAISS knows GPUs")
    assert not gpu.usable("gpu")
    assert "install faiss-gpu in place of faiss-cpu" in caplog.text
