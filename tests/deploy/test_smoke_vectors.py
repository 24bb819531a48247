"""The smoke check reads vectors without NumPy: NumPy is the judge."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from checks.client import Failed, Reply
from checks.vectors import check_unit, cosine, from_base64, from_npy, same, vectors_of

ROWS = np.array([[0.6, 0.8, 0.0], [0.0, 0.0, -1.0]], dtype=np.float32)


def reply(document: object) -> Reply:
    return Reply("POST /v1/embed/text", 200, {}, json.dumps(document).encode())


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_npy_rows_are_those_that_numpy_wrote(version: tuple[int, int]) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, ROWS, version=version)
    np.testing.assert_array_equal(np.array(from_npy(stream.getvalue()), dtype=np.float32), ROWS)


@pytest.mark.parametrize("array", [ROWS.astype(np.float64), np.asfortranarray(ROWS)])
def test_an_npy_file_that_is_not_float32_rows_fails(array: np.ndarray) -> None:
    stream = io.BytesIO()
    np.save(stream, array)
    with pytest.raises(Failed, match="not float32 rows"):
        from_npy(stream.getvalue())


def test_base64_is_little_endian_float32() -> None:
    assert from_base64(base64.b64encode(ROWS[0].tobytes()).decode()) == tuple(map(float, ROWS[0]))


def test_the_cosine_is_numpys() -> None:
    left, right = np.random.default_rng(1).normal(size=(2, 16))
    assert cosine(tuple(left), tuple(right)) == pytest.approx(left @ right / np.linalg.norm(left) / np.linalg.norm(right))


def test_a_vector_of_another_length_or_dimension_fails() -> None:
    check_unit((0.6, 0.8), 2, "it")
    with pytest.raises(Failed, match="2 numbers, not 3"):
        check_unit((0.6, 0.8), 3, "it")
    with pytest.raises(Failed, match="not 1"):
        check_unit((0.6, 0.9), 2, "it")


def test_vectors_that_differ_fail() -> None:
    same((0.6, 0.8), (0.6, 0.8 + 5e-6), "a batch")
    with pytest.raises(Failed, match="a batch"):
        same((0.6, 0.8), (0.6, 0.8 + 5e-5), "a batch")


def test_an_item_with_an_error_or_out_of_order_fails() -> None:
    good = {"index": 0, "embedding": [0.6, 0.8]}
    assert vectors_of(reply({"items": [good]}), 2) == [(0.6, 0.8)]
    with pytest.raises(Failed, match="unreadable_media"):
        vectors_of(reply({"items": [{"index": 0, "error": {"code": "unreadable_media"}}]}), 2)
    with pytest.raises(Failed, match="out of order"):
        vectors_of(reply({"items": [good | {"index": 1}, good]}), 2)
