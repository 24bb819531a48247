from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bindery.collections.flat import FlatIndex, Keys
from bindery.collections.records import decode_codes, encode_vector
from bindery.vectors import Vectors, normalize

DIMENSION = 16


def _rows(seed: int, count: int) -> Vectors:
    return normalize(np.random.default_rng(seed).standard_normal((count, DIMENSION)))


def _put(index: FlatIndex, keys: list[int], rows: Vectors) -> None:
    index.put(np.array(keys, dtype=np.int64), decode_codes([encode_vector(row) for row in rows]))


def _keys(*keys: int) -> Keys:
    return np.array(keys, dtype=np.int64)


@given(seed=st.integers(0, 2**32 - 1), data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_history_of_changes_ranks_as_brute_force_does(seed: int, data: st.DataObject) -> None:
    index = FlatIndex(DIMENSION)
    truth: dict[int, Vectors] = {}
    next_key = 1
    for step in range(data.draw(st.integers(1, 8))):
        count = data.draw(st.integers(0, 12))
        keys = list(range(next_key, next_key + count))
        next_key += count + data.draw(st.integers(0, 3))  # keys have gaps
        changed = sorted(data.draw(st.sets(st.sampled_from(sorted(truth)), max_size=3))) if truth else []
        # Few distinct rows, so that equal scores are common.
        rows = _rows(seed, 5)[np.random.default_rng(seed + step).integers(0, 5, count + len(changed))]
        if len(rows):
            _put(index, changed + keys, rows)
            truth |= dict(zip(changed + keys, rows, strict=True))
        gone = data.draw(st.sets(st.sampled_from(sorted(truth)), max_size=8)) if truth else set()
        index.remove(_keys(*gone, next_key + 99))
        truth = {key: row for key, row in truth.items() if key not in gone}
        allowed = data.draw(st.one_of(st.none(), st.sets(st.integers(1, next_key))))
        top_k = data.draw(st.integers(1, 15))
        query = _rows(seed + 1, 1)[0]
        _, found = index.search(query, top_k, None if allowed is None else index.mask(_keys(*allowed)))
        kept = {
            key: float(row.astype(np.float16).astype(np.float32) @ query) for key, row in truth.items() if allowed is None or key in allowed
        }
        # Equal rows score equally; different rows of a random set never come within rounding of each other.
        assert found.tolist() == sorted(kept, key=lambda key: (-round(kept[key], 5), key))[:top_k]
        assert len(index) == len(truth)


@pytest.mark.parametrize("copies", [3, 500])
def test_of_equal_rows_the_oldest_come_first_even_at_the_cut(copies: int) -> None:
    index = FlatIndex(DIMENSION)
    row = _rows(1, 1)
    _put(index, list(range(1, copies + 1)), np.repeat(row, copies, axis=0))
    scores, keys = index.search(row[0], 2, None)
    assert keys.tolist() == [1, 2]
    assert scores[0] == scores[1]


def test_memory_follows_what_was_removed() -> None:
    index = FlatIndex(DIMENSION)
    _put(index, list(range(1000)), _rows(1, 1000))
    before = index.memory_bytes
    index.remove(np.arange(0, 900))
    assert len(index) == 100
    assert index.memory_bytes < before / 5


def test_an_empty_index_finds_nothing() -> None:
    index = FlatIndex(DIMENSION)
    index.remove(_keys(1))
    scores, keys = index.search(_rows(1, 1)[0], 5, index.mask(_keys(1, 2)))
    assert len(scores) == len(keys) == 0
