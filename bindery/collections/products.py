"""Products of matrices on the thread that asks for them.

numpy's own wake a thread for each core, which then spin: for the one query of a search that costs ten times the processor time of the
product, and in the background it takes the cores that searches need.
"""

from __future__ import annotations

import faiss
import numpy as np

from bindery.vectors import Vectors


class Linear:
    """A matrix ``(m, d)``, to be multiplied with rows. Any thread may ask."""

    def __init__(self, matrix: Vectors) -> None:
        made, taken = matrix.shape
        self.nbytes = matrix.nbytes
        self._transform = faiss.LinearTransform(taken, made, False)
        faiss.copy_array_to_vector(np.ascontiguousarray(matrix, dtype=np.float32).ravel(), self._transform.A)
        self._transform.is_trained = True

    def __call__(self, rows: Vectors) -> Vectors:
        """``rows @ matrix.T``: ``(n, d)`` → ``(n, m)``."""
        faiss.omp_set_num_threads(1)
        return np.asarray(self._transform.apply(rows))
