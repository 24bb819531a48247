from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bindery.errors import InvalidParameter
from bindery.vectors import cut, encode, normalize

finite = arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 40)), elements=st.floats(-1e4, 1e4, width=32))


@given(finite)
def test_normalized_rows_have_length_one_or_stay_zero(rows: np.ndarray) -> None:
    lengths = np.linalg.norm(normalize(rows).astype(np.float64), axis=1)
    zero = ~rows.any(axis=1)
    assert np.allclose(lengths[~zero], 1, atol=1e-5)
    assert (lengths[zero] == 0).all()


def test_cut_vectors_are_unit_again_and_keep_their_direction() -> None:
    vectors = normalize(np.arange(1, 13, dtype=np.float32).reshape(2, 6))
    short = cut(vectors, 3)
    assert short.shape == (2, 3)
    assert np.allclose(np.linalg.norm(short, axis=1), 1, atol=1e-6)
    assert np.allclose(short, vectors[:, :3] / np.linalg.norm(vectors[:, :3], axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("dimensions", [0, -1, 7])
def test_cutting_outside_the_space_names_the_bounds(dimensions: int) -> None:
    with pytest.raises(InvalidParameter, match="1 to 6"):
        cut(np.ones((1, 6), np.float32), dimensions)


def test_encodings_carry_the_same_vector() -> None:
    vector = normalize(np.array([[0.5, -0.25, 0.0, 1.0, -1.0, 0.1, -0.1, 0.9]], np.float32))[0]
    text = encode(vector, "base64")
    assert isinstance(text, str)
    assert np.array_equal(np.frombuffer(base64.b64decode(text), "<f4"), vector)
    assert encode(vector, "float") == [float(x) for x in vector]
    assert np.allclose(np.array(encode(vector, "int8")) / 127, vector, atol=0.5 / 127)
    assert encode(vector, "ubinary") == [0b10010101]
