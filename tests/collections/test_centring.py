"""Centring: scores that compare between modalities, in memory and in segments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bindery.collections import Item, Query, Store
from bindery.collections.centring import Centre, evenly
from bindery.collections.local import LocalCollection
from bindery.collections.milvus.collection import MilvusCollection
from bindery.collections.tiers import Tiers
from bindery.errors import NotOffered
from bindery.vectors import Vectors, normalize

DIMENSION = 32
PAIRS = 300


def _pairs() -> tuple[Vectors, Vectors]:
    """Pictures and the texts about them: the same content, each in the cone of its modality."""
    random = np.random.default_rng(5)
    content = 0.6 * random.standard_normal((PAIRS, DIMENSION)) / DIMENSION**0.5
    cones = normalize(random.standard_normal((2, DIMENSION)))
    noise = 0.15 * random.standard_normal((2, PAIRS, DIMENSION)) / DIMENSION**0.5
    return normalize(cones[0] + content + noise[0]), normalize(cones[1] + content + noise[1])


@pytest.fixture(params=["in memory", "in segments"])
def collection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalCollection]:
    with Store(tmp_path, tiers=Tiers(exact_rows=100, always_exact=20) if request.param == "in segments" else None) as store:
        made = store.create("things", space="s", dimension=DIMENSION, bundle="toy")
        images, texts = _pairs()
        made.upsert([Item(f"image {n}", "image", row) for n, row in enumerate(images)])
        made.upsert([Item(f"text {n}", "text", row) for n, row in enumerate(texts)])
        made.seal()
        assert (made.state().partitions["image"].segments > 0) == (request.param == "in segments")
        yield made


def _found(collection: LocalCollection, number: int, centred: bool) -> list[str]:
    query = Query(_pairs()[1][number], 10, query_modality="text", exclude_ids=(f"text {number}",), centred=centred)
    return [hit.id for hit in collection.search(query)]


def test_a_text_finds_its_picture_among_texts(collection: LocalCollection) -> None:
    asked = range(40)
    raw = [f"image {n}" in _found(collection, n, False) for n in asked]
    centred = [f"image {n}" in _found(collection, n, True) for n in asked]
    assert np.mean(raw) < 0.1
    assert np.mean(centred) > 0.6


def test_scores_are_cosines_without_what_a_modality_has_in_common(collection: LocalCollection) -> None:
    images, texts = (np.stack([row.astype("<f2").astype(np.float64) for row in rows]) for rows in _pairs())
    query = normalize(np.random.default_rng(1).standard_normal(DIMENSION)).astype(np.float64)
    wanted = {}
    for name, rows in (("image", images), ("text", texts)):
        left = rows - rows.mean(axis=0)
        length = np.sqrt((left**2).sum(axis=1).mean())
        wanted |= {f"{name} {n}": score for n, score in enumerate(left @ query / length)}
    result = collection.search(Query(query.astype(np.float32), 2 * PAIRS, centred=True, exact=True))
    assert result.plan["centred"] is True
    assert {hit.id: hit.score for hit in result} == pytest.approx(wanted, abs=1e-4)
    scores = [hit.score for hit in result]
    assert scores == sorted(scores, reverse=True)


def test_within_a_modality_nothing_changes_its_place(collection: LocalCollection) -> None:
    for query in _pairs()[1][:10]:
        raw, centred = (
            [hit.id for hit in collection.search(Query(query, 20, ("image",), query_modality="text", exact=True, centred=centred))]
            for centred in (False, True)
        )
        assert raw == centred


def test_min_score_and_pages_are_those_of_centred_scores(collection: LocalCollection) -> None:
    query = _pairs()[1][3]
    every = collection.search(Query(query, 50, centred=True, exact=True)).hits
    least = every[9].score
    assert len(collection.search(Query(query, 50, centred=True, exact=True, min_score=least)).hits) == 10
    page = collection.search(Query(query, 10, offset=10, centred=True, exact=True))
    assert [hit.id for hit in page] == [hit.id for hit in every[10:20]]


def test_a_centre_follows_what_is_stored(collection: LocalCollection) -> None:
    query = _pairs()[1][0]
    before = collection.search(Query(query, 1, ("image",), centred=True, exact=True)).hits[0]
    collection.upsert([Item(f"more {n}", "image", row) for n, row in enumerate(_pairs()[1])])  # "images" in the cone of the texts
    collection.delete(ids=["more 0"])
    after = {hit.id: hit.score for hit in collection.search(Query(query, 600, ("image",), centred=True, exact=True))}
    assert after[before.id] < before.score - 0.1


def test_vectors_that_are_all_alike_have_a_finite_score() -> None:
    rows = np.tile(normalize(np.arange(1, 9, dtype=np.float32)), (3, 1))
    centre = Centre.of(rows, 3)
    assert np.isfinite(centre.scores(rows[0], np.ones(1, dtype=np.float32))).all()


def test_a_sample_is_spread_over_those_alive() -> None:
    alive = np.ones(1000, dtype=np.bool_)
    alive[:500] = False
    assert evenly(alive, 10).tolist() == list(range(500, 1000, 50))
    assert len(evenly(alive, 600)) == 500


def test_milvus_says_that_it_cannot(in_milvus: MilvusCollection) -> None:
    with pytest.raises(NotOffered, match="one modality at a time"):
        in_milvus.search(Query(np.ones(in_milvus.definition.dimension, dtype=np.float32), centred=True))
