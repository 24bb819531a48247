"""A deterministic `Encoder` without a graph: each row's unit vector comes from a hash of that row's tensors."""

from __future__ import annotations

import hashlib

import numpy as np

from bindery.decoded import Tensors
from bindery.vectors import Vectors, normalize


class FakeEncoder:
    precision = "exact"
    device = "cpu"
    runtime = "fake"
    provider = "fake"

    def __init__(self, dimension: int = 16, input_names: tuple[str, ...] = ("pixel_values",), max_batch: int = 16) -> None:
        self.dimension = dimension
        self.max_batch = max_batch
        self.input_names = input_names
        self.batches: list[int] = []
        """Sizes of the batches that were run, for tests of batching."""

    def encode(self, tensors: Tensors) -> Vectors:
        rows = tensors[self.input_names[0]].shape[0]
        self.batches.append(rows)
        return normalize(np.stack([self._row(tensors, index) for index in range(rows)]))

    def _row(self, tensors: Tensors, index: int) -> Vectors:
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(tensors[name][index]).tobytes() for name in self.input_names)).digest()
        seed = int.from_bytes(digest[:8], "little")
        return np.random.default_rng(seed).standard_normal(self.dimension).astype(np.float32)
