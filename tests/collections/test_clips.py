from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bindery.collections import Collection, Item
from bindery.collections.clips import clip_id, clip_range, is_clip_of
from tests.collections.items import DIMENSION


@pytest.fixture
def collection(either: Collection) -> Collection:
    return either


def item(id: str, content_hash: str | None = "h") -> Item:
    return Item(id, "video", np.arange(1, DIMENSION + 1, dtype=np.float32), content_hash=content_hash)


def ids(collection: Collection) -> set[str]:
    return {one.id for one in collection.page(100).items}


@given(st.text(min_size=1, max_size=20), st.integers(0, 10**8), st.integers(1, 10**8))
def test_a_clips_id_tells_its_medium(medium: str, start_ms: int, length_ms: int) -> None:
    id = clip_id(medium, start_ms / 1000, (start_ms + length_ms) / 1000)
    assert is_clip_of(id, medium)
    assert not is_clip_of(id, medium + "x")
    low, high = clip_range(medium)
    assert low.encode("utf-8", "surrogatepass") <= id.encode("utf-8", "surrogatepass") < high.encode("utf-8", "surrogatepass")


def test_times_are_written_without_needless_zeros() -> None:
    assert clip_id("a/b.mp4", 0, 10) == "a/b.mp4#0-10"
    assert clip_id("a/b.mp4", 24.0, 30.5) == "a/b.mp4#24-30.5"
    assert clip_id("a", 10_799.25, 10_800.125) == "a#10799.25-10800.125"


def test_storing_a_medium_takes_its_other_clips_away_and_nothing_else(collection: Collection) -> None:
    bystanders = ["b", "b#0-10", "a#intro", "a#0-10#0-5", "aa#0-10", "A#0-10", "a$"]
    collection.upsert([item(id) for id in ["a", "a#0-10", "a#8-18", *bystanders]])
    collection.upsert([item("a#0-10"), item("a#10-20")], media=["a"])
    assert ids(collection) == {"a#0-10", "a#10-20", *bystanders}
    collection.upsert([item("a")], media=["a"])
    assert ids(collection) == {"a", *bystanders}


def test_when_nothing_could_be_stored_the_old_clips_stay(collection: Collection) -> None:
    collection.upsert([item("a#0-10")])
    bad = Item("a#0-5", "video", np.zeros(DIMENSION, dtype=np.float32))
    assert collection.upsert([bad], media=["a"])[0].status == "failed"
    assert ids(collection) == {"a#0-10"}
    assert [one.status for one in collection.upsert([bad, item("b")], media=["a", "b"])] == ["failed", "created"]
    assert ids(collection) == {"a#0-10", "b"}


def test_a_mediums_id_stands_for_its_clips(collection: Collection) -> None:
    collection.upsert([item("a#0-10"), item("a#8-18"), item("b#0-10", "x"), item("b#8-18", "y"), item("c")])
    assert collection.content_hashes(["a", "b", "c", "d"]) == {"a": "h", "b": None, "c": "h"}
    assert collection.delete(ids=["a"]) == 2
    assert ids(collection) == {"b#0-10", "b#8-18", "c"}
