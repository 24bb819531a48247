from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from bindery.collections import Definition
from bindery.collections.records import check_vector, decode_vector, encode_metadata, encode_vector, merged, to_record
from bindery.errors import DimensionMismatch, InvalidParameter
from bindery.limits import Limits
from bindery.vectors import normalize
from tests.collections.items import FIELDS, item

WIDE = Definition("wide", "s", 384, "b")
SMALL = Definition("small", "s", 24, "b", FIELDS)  # type: ignore[arg-type]


def test_half_precision_moves_no_score_by_a_thousandth() -> None:
    rng = np.random.default_rng(7)
    # Some vectors are peaked, as embeddings often are: a few large values and many tiny ones.
    rows = normalize(rng.standard_normal((2000, 384)) * rng.lognormal(sigma=2.0, size=(2000, 384)))
    kept = np.stack([decode_vector(encode_vector(row)) for row in rows])
    queries = normalize(rng.standard_normal((50, 384)))
    errors = np.abs(queries @ kept.T - queries @ rows.T)
    own = np.abs(np.einsum("nd,nd->n", rows, kept) - 1)
    assert max(errors.max(), own.max()) < 5e-4


def test_a_vector_of_any_length_is_kept_at_unit_length() -> None:
    row = np.arange(1, 385) * 1e20
    assert np.allclose(np.linalg.norm(check_vector(row, WIDE)), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("bad", "error", "told"),
    [
        ({"vector": np.ones(23)}, DimensionMismatch, "(24,)"),
        ({"vector": np.ones((1, 24))}, DimensionMismatch, "(1, 24)"),
        ({"vector": np.zeros(24)}, InvalidParameter, "zero"),
        ({"vector": np.full(24, np.nan)}, InvalidParameter, "finite"),
        ({"vector": np.full(24, 1e39)}, InvalidParameter, "finite"),
        ({"id": ""}, InvalidParameter, "id"),
        ({"id": "é" * 257}, InvalidParameter, "514 bytes; at most 512"),
        ({"id": "a\0b"}, InvalidParameter, "NUL"),
        ({"id": "\udcff"}, InvalidParameter, "surrogate"),
        ({"modality": ""}, InvalidParameter, "modality"),
        ({"uri": "u" * 5000}, InvalidParameter, "uri has 5000 bytes"),
        ({"start": -1.0}, InvalidParameter, "start"),
        ({"start": 2.0, "end": 1.0}, InvalidParameter, "before start"),
        ({"end": float("inf")}, InvalidParameter, "end"),
        ({"metadata": {"place": 5}}, InvalidParameter, "'place': expected a string, got 5"),
        ({"metadata": {"count": 1.5}}, InvalidParameter, "'count'"),
        ({"metadata": {"taken": "noon"}}, InvalidParameter, "'taken'"),
        ({"metadata": {"other": float("nan")}}, InvalidParameter, "JSON"),
        ({"metadata": {"other": {1, 2}}}, InvalidParameter, "JSON"),
        ({"metadata": {"other": "\ud800"}}, InvalidParameter, "JSON"),
        ({"metadata": {1: "x"}}, InvalidParameter, "string names"),
        ({"metadata": ["x"]}, InvalidParameter, "object"),
        ({"metadata": {"other": "x" * 70_000}}, InvalidParameter, "at most 65536"),
    ],
)
def test_a_bad_item_is_refused_with_the_field_named(bad: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error) as caught:
        to_record(item(1, **bad), SMALL, Limits())
    assert told in str(caught.value)


def test_metadata_nested_beyond_reason_is_refused() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(InvalidParameter, match="JSON"):
        encode_metadata({"deep": nested}, SMALL, Limits())


def test_metadata_comes_back_as_it_was_given() -> None:
    given = {"place": "Zürich 😀", "list": [1, 2.5, None, True], "big": 10**30, "none": None}
    text, fields = encode_metadata(given, SMALL, Limits())
    assert json.loads(text) == given
    assert fields == {"place": "Zürich 😀"}


def test_patching_follows_rfc_7396() -> None:
    before = {"a": 1, "b": {"c": 2, "d": 3}, "e": [1]}
    assert merged(before, {"a": None, "b": {"c": None, "x": 9}, "e": [2], "new": {"y": None}}) == {
        "b": {"d": 3, "x": 9},
        "e": [2],
        "new": {},
    }
    assert before == {"a": 1, "b": {"c": 2, "d": 3}, "e": [1]}
