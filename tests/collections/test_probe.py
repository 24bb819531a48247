"""The recall probe: what it measures is true, and searches do what it found."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bindery.collections import Item, Query, Store
from bindery.collections.local import LocalCollection
from bindery.collections.probe import Asked, Best, probe
from bindery.collections.segment import Segment
from bindery.collections.tiers import Tiers
from bindery.collections.tuning import FEWEST
from bindery.vectors import Vectors, normalize

DIMENSION = 64
ROWS = 4000
TIERS = Tiers(exact_rows=1000, always_exact=50)


def _images(seed: int, count: int) -> Vectors:
    """In one half of the space what words can say too, in the other what only pictures have."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((60, DIMENSION))
    return normalize(centres[random.integers(0, 60, count)] + 0.5 * random.standard_normal((count, DIMENSION)))


def _texts(seed: int, count: int) -> Vectors:
    seen = _images(seed, count)
    seen[:, DIMENSION // 2 :] = 0.4 * np.random.default_rng(seed).standard_normal((count, DIMENSION // 2)) / DIMENSION**0.5 + 0.05
    return normalize(seen)


def _recall(collection: LocalCollection, queries: Vectors, modality: str | None, top_k: int = 10) -> float:
    shares = []
    for query in queries:
        wanted = Query(query, top_k, modalities=("image",), query_modality=modality)
        found = {hit.id for hit in collection.search(wanted)}
        wanted = replace(wanted, exact=True)
        truth = {hit.id for hit in collection.search(wanted)}
        shares.append(len(found & truth) / top_k)
    return float(np.mean(shares))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path, tiers=TIERS) as opened:
        yield opened


@pytest.fixture
def collection(store: Store) -> LocalCollection:
    made = store.create("things", space="s", dimension=DIMENSION, bundle="toy", fields={"n": "integer"})
    made.upsert([Item(f"i{n}", "image", row, metadata={"n": n % 100}) for n, row in enumerate(_images(1, ROWS))])
    made.upsert([Item(f"t{n}", "text", row) for n, row in enumerate(_texts(2, 200))])
    made.seal()
    return made


def test_each_pair_of_modalities_reaches_the_target_by_its_own_depth(collection: LocalCollection) -> None:
    state = collection.state()
    assert (state.partitions["image"].tier, state.partitions["text"].tier, state.index) == ("ivf_pq", "flat", "ivf_pq")
    assert set(state.partitions["image"].recall) == {"image", "text"}
    assert state.recall == min(state.partitions["image"].recall.values()) >= 0.98
    compared = {}
    for modality, queries in (("image", _images(7, 60)), ("text", _texts(8, 60))):
        assert _recall(collection, queries, modality) >= 0.97
        line = collection.search(Query(queries[0], modalities=("image",), query_modality=modality)).plan["modalities"]["image"]
        assert (line["plan"], line["recall"]) == ("ann", state.partitions["image"].recall[modality])
        compared[modality] = line["compared"]
    unknown = collection.search(Query(_images(7, 1)[0], modalities=("image",))).plan["modalities"]["image"]
    assert unknown["recall"] == state.recall
    assert unknown["lists"] == 1.0
    assert unknown["compared"] >= max(compared.values())


def test_queries_that_do_not_say_their_modality_reach_the_target_whatever_was_asked_before(collection: LocalCollection) -> None:
    for query in _images(9, 2 * FEWEST):
        collection.search(Query(query, modalities=("image",)))
    collection.seal()  # with a probe of what was asked without saying
    assert collection.state().partitions["image"].recall["any"] >= 0.98
    assert _recall(collection, _texts(8, 60), None) >= 0.97

    def compared(modality: str | None) -> int:
        query = Query(_texts(8, 1)[0], modalities=("image",), query_modality=modality)
        return int(collection.search(query).plan["modalities"]["image"]["compared"])

    assert compared(None) >= compared("text") > compared("image")


def test_a_hundred_hits_are_found_as_well(collection: LocalCollection) -> None:
    assert _recall(collection, _texts(8, 20), "text", top_k=100) >= 0.97


@pytest.mark.parametrize("most", [50, 20, 5, 1])
def test_filters_keep_the_recall(collection: LocalCollection, most: int) -> None:
    """Also with a filter that goes with the query, or against it."""
    query = _texts(8, 1)[0]
    scores = {hit.id: hit.score for hit in collection.search(Query(query, 1000, modalities=("image",), exact=True))}
    near = [id for id, _ in sorted(scores.items(), key=lambda pair: -pair[1])]
    filters = [{"n": {"lt": most}}, {"id": {"in": near[: 10 * most]}}, {"not": {"id": {"in": near[: 20 * most]}}}]
    for filter in filters:
        wanted = Query(query, 10, modalities=("image",), filter=filter, query_modality="text")
        found = collection.search(wanted)
        truth = collection.search(Query(query, 10, modalities=("image",), filter=filter, exact=True))
        assert len(found) == 10
        assert len({hit.id for hit in found} & {hit.id for hit in truth}) >= 9


def test_a_lower_target_compares_less_and_is_probed_anew(collection: LocalCollection, tmp_path: Path) -> None:
    query = Query(_texts(8, 1)[0], modalities=("image",), query_modality="text")
    before = collection.search(query).plan["modalities"]["image"]["compared"]
    with Store(tmp_path, tiers=Tiers(exact_rows=1000, always_exact=50, recall_target=0.7)) as other:
        again = other.get("things")
        again.seal()
        assert again.search(query).plan["modalities"]["image"]["compared"] < before


def test_queries_that_were_asked_are_probed_when_none_are_stored(collection: LocalCollection) -> None:
    for query in _texts(9, FEWEST):
        collection.search(Query(query, modalities=("image",), query_modality="thermal"))
    collection.seal()
    assert collection.state().partitions["image"].recall["thermal"] >= 0.98
    line = collection.search(Query(_texts(9, 1)[0], modalities=("image",), query_modality="thermal")).plan["modalities"]["image"]
    assert line["recall"] is not None


def test_what_was_measured_outlives_the_process(collection: LocalCollection, tmp_path: Path) -> None:
    with Store(tmp_path, tiers=TIERS) as other:
        line = (
            other.get("things").search(Query(_images(7, 1)[0], modalities=("image",), query_modality="image")).plan["modalities"]["image"]
        )
        assert line["recall"] == collection.state().partitions["image"].recall["image"]


def test_the_best_rows_are_those_of_a_whole_ranking_however_the_blocks_are_cut() -> None:
    scores = np.random.default_rng(0).permutation(50 * 3000).reshape(3000, 50).astype(np.float32)  # no two alike
    truth = np.argsort(-scores, axis=0)[:100].T
    for step in (37, 640, 3000):
        best = Best(50)
        for first in range(0, len(scores), step):
            best.add(scores[first : first + step], first)
        assert (best.places() == truth).all()
    few = Best(50)
    few.add(scores[:30], 0)
    assert (few.places()[:, :30] == np.argsort(-scores[:30], axis=0).T).all()
    assert (few.places()[:, 30:] == few.places()[:, 29:30]).all()


def test_a_shallow_look_measures_what_a_deep_one_does(collection: LocalCollection, monkeypatch: pytest.MonkeyPatch) -> None:
    segments = collection._vectors.segments["image"]
    pairs = [Asked("image", "image", _images(7, 60), None, 0.5, 2000), Asked("image", "text", _texts(8, 60), None, 0.98, 2000)]
    looked: list[int] = []
    by_code = Segment.by_code

    def counted(self: Segment, query: Vectors, depth: int, *rest: Any, **options: Any) -> Any:
        if threading.current_thread() is asking:  # the collection's own background measures too
            looked.append(depth)
        return by_code(self, query, depth, *rest, **options)

    asking = threading.current_thread()
    monkeypatch.setattr(Segment, "by_code", counted)
    found = [probe(segments, [pair], lambda: False) for pair in pairs]
    assert set(looked[: len(pairs[0].queries)]) == {500}
    assert looked[len(pairs[0].queries) :] == [500] * 60 + [2000] * 60  # the hundred neighbours of a text lie deeper
    monkeypatch.setattr("bindery.collections.probe._SHALLOW", 1)
    for pair, shallow in zip(pairs, found, strict=True):
        (one,), (other,) = probe(segments, [pair], lambda: False), shallow
        assert other.recall == pytest.approx(one.recall, abs=0.01)  # codes tie, and which of them FAISS takes depends on the depth
        for name in ("share", "depth", "depth_100"):
            assert getattr(other, name) == pytest.approx(getattr(one, name), rel=0.1), name
