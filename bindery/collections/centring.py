"""Centring: scores that compare between modalities.

The vectors of a modality lie in a narrow cone of their own, so in a list over several modalities the raw cosine shows one only: a text
is nearer to every text than to the very picture that it describes. Centring takes away what a whole modality has in common. The score
of an item becomes ``q · (x - m) / s``: ``m`` the mean of its modality's vectors, ``s`` the length that they have without it. Within
a modality that moves every score alike, so its order, its index and its recall stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bindery.vectors import Vectors

SAMPLE_ROWS = 4096
"""Of a modality's rows so many, evenly spaced, stand for all: the mean of more would move a score by less than 0.001."""
_CHANGED = 0.1  # of the rows: then the centre is taken anew
_LEAST_LENGTH = 1e-3  # of vectors that are all alike


@dataclass(frozen=True, slots=True, eq=False)
class Centre:
    """What the vectors of a modality have in common. ``mean`` ``(d,)``; ``length``: root mean square of what is left without it."""

    mean: Vectors
    length: float
    rows: int  # of the modality, when it was taken

    @classmethod
    def of(cls, sample: Vectors, rows: int) -> Centre:
        """Of a modality with so many rows, from some of them ``(n, d)``, n ≥ 1."""
        mean = sample.mean(axis=0, dtype=np.float64)
        length = float(np.sqrt(np.mean(np.sum((sample - mean) ** 2, axis=1))))
        return cls(mean.astype(np.float32), max(length, _LEAST_LENGTH), rows)

    def is_fresh(self, rows: int) -> bool:
        return abs(rows - self.rows) <= _CHANGED * self.rows

    def scores(self, query: Vectors, cosines: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosines of a unit query ``(d,)`` with items of this modality, centred."""
        return ((cosines - query @ self.mean) / np.float32(self.length)).astype(np.float32)


def evenly(alive: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """At most ``count`` positions of those that are alive, evenly spaced."""
    places = np.flatnonzero(alive)
    return places[:: max(1, -(-len(places) // count))]
