from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bindery
from bindery.collections import Store
from bindery.embedder import Embedder, load
from bindery.errors import AlreadyExists, BundleNotFound, InvalidParameter, SpaceMismatch, UnknownCollection, UnknownItem
from bindery.search import SearchableCollection, blend
from bindery.vectors import normalize
from tests import longmedia
from tests.toybundle import DIMENSION, build_toy_bundle

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    return load(build_toy_bundle(tmp_path_factory.mktemp("bundle")), threads=1)


@pytest.fixture
def shelf(tmp_path: Path, model: Embedder) -> Iterator[SearchableCollection]:
    with bindery.open_collection("shelf", tmp_path, model, create=True) as opened:
        yield opened


def test_files_and_texts_go_in_and_come_out_by_any_question(shelf: SearchableCollection) -> None:
    sounds = [EXAMPLES / "dog.wav", EXAMPLES / "rain.ogg"]
    assert [result.status for result in shelf.add("audio", sounds, metadata={"source": "examples"})] == ["created", "created"]
    shelf.add("text", ["a dog barking", "rain on a roof"], ids=["t-dog", "t-rain"], metadata=[{"n": 1}, {"n": 2}])
    assert len(shelf) == 4

    assert [hit.id for hit in shelf.search(text="rain on a roof", top_k=1)] == ["t-rain"]
    assert shelf.search(file=sounds[0], modality="audio", top_k=1).hits[0].uri == os.path.abspath(sounds[0])
    assert [hit.modality for hit in shelf.search(text="x", modality="audio")] == ["audio", "audio"]
    assert [hit.modality for hit in shelf.search(file=sounds[0], modality="audio", modalities=["text"])] == ["text", "text"]
    assert "t-dog" not in [hit.id for hit in shelf.search(item="t-dog", top_k=10)]
    found = shelf.get("t-dog")
    assert dict(found.metadata) == {"n": 1}
    assert shelf.search(vector=found.vector, top_k=1).hits[0].id == "t-dog"
    assert shelf.delete(["t-dog"]) == 1
    with pytest.raises(UnknownItem):
        shelf.search(item="t-dog")


def test_a_mix_is_the_blend_of_its_parts(shelf: SearchableCollection, model: Embedder) -> None:
    shelf.add("text", [f"text number {n}" for n in range(20)])
    parts = [{"text": "a dog", "weight": 2}, {"file": EXAMPLES / "rain.ogg", "modality": "audio", "weight": -0.5}]
    wanted = blend([model.embed("text", "a dog")[0], model.embed("audio", EXAMPLES / "rain.ogg")[0]], [2, -0.5])
    mixed = shelf.search(mix=parts, top_k=20)
    assert [(hit.id, hit.score) for hit in mixed] == [(hit.id, hit.score) for hit in shelf.search(vector=wanted, top_k=20)]


def test_a_file_that_cannot_be_read_fails_alone_and_adding_again_replaces(shelf: SearchableCollection, tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no sound")
    files = [EXAMPLES / "dog.wav", bad, EXAMPLES / "rain.ogg"]
    first, again = shelf.add("audio", files), shelf.add("audio", files)
    assert [result.status for result in first] == ["created", "failed", "created"]
    assert [result.status for result in again] == ["updated", "failed", "updated"]
    assert first[1].error is not None
    assert first[1].error.code == "unsupported_media"
    assert len(shelf) == 2


def test_a_part_of_a_file_is_stored_with_its_times(shelf: SearchableCollection) -> None:
    shelf.add("audio", [EXAMPLES / "dog.wav"], ids=["part"], start=0.5, end=1.5)
    assert (shelf.get("part").start, shelf.get("part").end) == (0.5, 1.5)


@pytest.mark.parametrize(
    ("question", "told"),
    [
        ({}, "one of text"),
        ({"text": "a", "item": "b"}, "one of text"),
        ({"file": EXAMPLES / "dog.wav"}, "modality"),
        ({"mix": []}, "at least one"),
        ({"mix": [("rain", 1.0)]}, "is a mapping"),
        ({"mix": [{"weight": 1}]}, "one of text"),
        ({"mix": [{"text": "a", "weight": "much"}]}, "weight"),
        ({"mix": [{"text": "a"}, {"text": "a", "weight": -1}]}, "cancel out"),
        ({"mix": [{"text": "a"}, {"vector": [1.0, 2.0]}]}, "shapes"),
    ],
)
def test_a_wrong_question_is_refused(shelf: SearchableCollection, question: dict[str, object], told: str) -> None:
    with pytest.raises(InvalidParameter, match=told):
        shelf.search(**question)  # type: ignore[arg-type]


def test_ids_and_metadata_must_be_as_many_as_the_inputs(shelf: SearchableCollection) -> None:
    with pytest.raises(InvalidParameter, match="2 inputs came with 1 ids"):
        shelf.add("text", ["a", "b"], ids=["one"])


def test_a_collection_is_not_made_unless_asked(tmp_path: Path, model: Embedder) -> None:
    with pytest.raises(UnknownCollection):
        bindery.open_collection("nope", tmp_path, model)


def test_fields_are_declared_when_it_is_made(tmp_path: Path, model: Embedder) -> None:
    with bindery.open_collection("shelf", tmp_path, model, create=True, fields={"year": "integer"}) as shelf:
        shelf.add("text", ["rain", "snow"], ids=["rain", "snow"], metadata=[{"year": 2024}, {"year": 1999}])
        assert [hit.id for hit in shelf.search(text="snow", filter={"year": {"gte": 2020}})] == ["rain"]
    for fields in (None, {"year": "integer"}):
        bindery.open_collection("shelf", tmp_path, model, create=True, fields=fields).close()
    with pytest.raises(AlreadyExists, match="year"):
        bindery.open_collection("shelf", tmp_path, model, create=True, fields={"year": "keyword"})
    with pytest.raises(InvalidParameter):
        bindery.open_collection("other", tmp_path, model, create=True, fields={"year": "century"})


def test_a_model_of_another_space_is_refused(tmp_path: Path, model: Embedder) -> None:
    with Store(tmp_path) as store:
        store.create("old", space="sha256:other", dimension=DIMENSION, bundle="older")
    with pytest.raises(SpaceMismatch, match="older"):
        bindery.open_collection("old", tmp_path, model)


def test_without_its_bundle_a_collection_can_still_be_searched_by_vector(tmp_path: Path, model: Embedder) -> None:
    with bindery.open_collection("shelf", tmp_path, model, create=True) as shelf:
        shelf.add("text", ["a"], ids=["a"])
    with bindery.open_collection("shelf", tmp_path) as shelf:
        assert shelf.search(vector=shelf.get("a").vector).hits[0].id == "a"
        with pytest.raises(BundleNotFound, match=r"'toy'.*model="):
            shelf.search(text="a")


@given(
    weights=st.lists(st.floats(-1e30, 1e30).filter(lambda w: abs(w) > 1e-30), min_size=1, max_size=4),
    factor=st.floats(1e-3, 1e3),
    seed=st.integers(0, 1000),
)
def test_a_blend_has_unit_length_and_only_the_ratio_of_the_weights_matters(weights: list[float], factor: float, seed: int) -> None:
    rows = np.random.default_rng(seed).standard_normal((len(weights), 6)).astype(np.float32)
    blended = blend(list(rows), weights)
    assert blended.dtype == np.float32
    assert abs(float(np.linalg.norm(blended)) - 1) < 1e-5
    assert np.allclose(blended, blend(list(rows * 7), [weight * factor for weight in weights]), atol=1e-5)


def test_a_blend_of_equal_weights_is_the_mean_direction() -> None:
    rows = normalize(np.eye(3) + 0.1)
    assert np.allclose(blend(list(rows), [1, 1, 1]), np.ones(3) / np.sqrt(3), atol=1e-6)


@pytest.mark.parametrize("weights", [[float("nan"), 1.0], [0.0, 0.0], [1.0]])
def test_weights_that_give_no_direction_are_refused(weights: list[float]) -> None:
    with pytest.raises(InvalidParameter):
        blend([np.ones(3, dtype=np.float32)] * 2, weights)


def test_a_long_medium_is_stored_as_clips_and_the_best_moment_of_each_file_is_found(shelf: SearchableCollection, tmp_path: Path) -> None:
    for name, tones in {"up.wav": longmedia.TONES_HZ, "down.wav": longmedia.TONES_HZ[::-1]}.items():
        (tmp_path / name).write_bytes(longmedia.wav(tones))
    paths = [tmp_path / "up.wav", tmp_path / "down.wav"]
    results = shelf.add("audio", paths, ids=["up", "down"], metadata={"kind": "tones"}, clip_seconds=10, clip_stride=10)
    assert [(result.id, result.status, len(result.clips)) for result in results] == [("up", "created", 6), ("down", "created", 6)]
    assert len(shelf) == 12
    query = longmedia.wav(longmedia.TONES_HZ[1:2], 5)
    best = shelf.search(file=query, modality="audio", group_by="uri").hits
    assert {(hit.id, hit.start, hit.end) for hit in best} == {("up#10-20", 10, 20), ("down#40-50", 40, 50)}
    assert [dict(hit.metadata) for hit in best] == [{"kind": "tones"}] * 2

    again = shelf.add("audio", paths, ids=["up", "down"], clip_seconds=10, clip_stride=10)
    assert [(result.status, len(result.clips)) for result in again] == [("updated", 6)] * 2
    assert len(shelf) == 12
    shelf.add("audio", paths[:1], ids=["up"], clip_seconds=30, clip_stride=30)
    assert len(shelf) == 8
    assert {hit.id for hit in shelf.search(file=query, modality="audio", top_k=20)} >= {"up#0-30", "up#30-60"}
    shelf.add("audio", paths[:1], ids=["up"])
    assert len(shelf) == 7
    assert shelf.get("up").start is None
    assert shelf.delete(["down"]) == 6
    (failed,) = shelf.add("audio", [b"no sound"], ids=["junk"], clip_seconds=10)
    assert (failed.id, failed.status) == ("junk", "failed")
    with pytest.raises(InvalidParameter, match="must not exceed"):
        shelf.add("audio", paths, clip_seconds=1, clip_stride=2)
