"""Products of matrices on one thread are numpy's own."""

from __future__ import annotations

import numpy as np

from bindery.collections.products import Linear


def test_rows_are_multiplied_with_the_matrix() -> None:
    random = np.random.default_rng(0)
    matrix, rows = (random.standard_normal((count, 24)).astype(np.float32) for count in (7, 50))
    linear = Linear(matrix)
    assert linear.nbytes == matrix.nbytes
    for some in (rows, rows[:1], rows[:0]):
        found = linear(some)
        assert found.dtype == np.float32
        assert found.shape == (len(some), 7)
        np.testing.assert_allclose(found, some @ matrix.T, atol=1e-5)


def test_the_matrix_may_change_or_go_afterwards() -> None:
    matrix = np.eye(3, dtype=np.float32)
    linear = Linear(matrix)
    matrix[:] = 0
    assert linear(np.ones((1, 3), dtype=np.float32)).tolist() == [[1, 1, 1]]
