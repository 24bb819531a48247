"""The recall probe: how deep a search by code must look on this collection's own vectors, for each pair of modalities.

Queries are stored vectors of a modality, or real queries; the truth is a comparison with every row. One scan by code, deep enough,
ranks all rows; the place of a true neighbour in that ranking is the depth at which it is found, so one scan a query answers for
every depth. The least work whose recall@10 reaches the target, by its lower bound over the queries, is what searches then do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bindery.collections.flat import Keys
from bindery.collections.registry import Probed
from bindery.collections.segment import Segment
from bindery.vectors import Vectors

QUERIES = 100
FEWEST = 30
"""Fewer queries than this say too little."""

SHARES = (1.0, 0.5, 0.25, 0.125)
_NEIGHBOURS = 100
_NS_OF_A_CODE, _NS_OF_A_ROW = 5.0, 350.0  # measured for 768 components; only their ratio matters
_Z = 1.645  # one-sided, 95 %


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a probe is to find: a recall, looking for one modality with another, comparing at most ``deepest`` rows for 10 hits."""

    modality: str
    query_modality: str
    target: float
    deepest: int


Ranks = NDArray[np.int64]  # (queries, neighbours): in how deep a ranking the neighbour is found


def probe(
    segments: Sequence[Segment],
    queries: Vectors,
    own: Keys | None,
    wanted: Wanted,
    stop: Callable[[], bool],
) -> Probed:
    """Measure. queries: ``(m, d)``; ``own``: the key of each, when it is stored here and so its own best neighbour.

    Raises `InterruptedError` when ``stop()`` says so.
    """
    target, deepest = wanted.target, wanted.deepest
    rows = sum(len(segment) for segment in segments)
    truth = _truth(segments, queries, own, stop)
    best: tuple[float, Probed] | None = None
    for share in SHARES:
        ranks = _ranks(segments, queries, truth, share, deepest, stop)
        depth = _enough(ranks[:, :10], target, 10, deepest)
        if depth is None:
            break  # fewer lists find less
        depth_100 = _enough(ranks, target, 100, deepest) or 4 * deepest  # beyond what was looked at
        deepest = min(deepest, max(4 * depth, depth_100))  # who needs more with fewer lists gains nothing by them
        recall, bound = (round(value, 4) for value in _recall(ranks[:, :10], depth))
        cost = share * rows * _NS_OF_A_CODE + len(segments) * depth * _NS_OF_A_ROW
        if best is None or cost < best[0]:
            found = (target, share, depth, max(depth, depth_100), recall, bound, len(queries), rows)
            best = cost, Probed(wanted.modality, wanted.query_modality, *found)
    if best is None:
        return Probed(wanted.modality, wanted.query_modality, target, 1.0, 0, 0, 1.0, 1.0, len(queries), rows)
    return best[1]


@dataclass(frozen=True, slots=True)
class _Truth:
    """The best rows of each query over all segments, best first."""

    segments: NDArray[np.int64]  # (m, k)
    places: NDArray[np.int64]  # (m, k)


def _truth(segments: Sequence[Segment], queries: Vectors, own: Keys | None, stop: Callable[[], bool]) -> _Truth:
    count = len(queries)
    scores = np.full((count, _NEIGHBOURS), -np.inf, dtype=np.float32)
    owners = np.zeros((count, _NEIGHBOURS), dtype=np.int64)
    places = np.zeros((count, _NEIGHBOURS), dtype=np.int64)
    for number, segment in enumerate(segments):
        for start, rows, alive in segment.blocks():
            _may_go_on(stop)
            found = queries @ rows.T
            found[:, ~alive] = -np.inf
            if own is not None:
                found[own[:, None] == segment.keys[None, start : start + len(rows)]] = -np.inf
            everything = np.concatenate([scores, found], axis=1)
            kept = np.argpartition(-everything, _NEIGHBOURS - 1, axis=1)[:, :_NEIGHBOURS]
            scores = np.take_along_axis(everything, kept, axis=1)
            fresh = kept >= _NEIGHBOURS
            old = np.minimum(kept, _NEIGHBOURS - 1)
            owners = np.where(fresh, number, np.take_along_axis(owners, old, axis=1))
            places = np.where(fresh, kept - _NEIGHBOURS + start, np.take_along_axis(places, old, axis=1))
    order = np.argsort(-scores, axis=1, kind="stable")
    return _Truth(np.take_along_axis(owners, order, axis=1), np.take_along_axis(places, order, axis=1))


def _ranks(segments: Sequence[Segment], queries: Vectors, truth: _Truth, share: float, deepest: int, stop: Callable[[], bool]) -> Ranks:
    ranks = np.full(truth.places.shape, deepest, dtype=np.int64)
    for number, segment in enumerate(segments):
        rank_of = np.full(segment.rows, deepest, dtype=np.int64)
        for query, vector in enumerate(queries):
            _may_go_on(stop)
            ranked = segment.by_code(vector, min(deepest, segment.rows), share)
            rank_of[ranked] = np.arange(len(ranked))
            mine = truth.segments[query] == number
            ranks[query, mine] = rank_of[truth.places[query, mine]]
            rank_of[ranked] = deepest
    return ranks


def _enough(ranks: Ranks, target: float, hits: int, deepest: int) -> int | None:
    """The least depth of a ladder whose recall reaches the target."""
    depth = 2.0 * hits
    while depth < 1.2 * deepest:
        if _recall(ranks, rung := min(deepest, round(depth)))[1] >= target:
            return rung
        depth *= 1.2
    return None


def _recall(ranks: Ranks, depth: int) -> tuple[float, float]:
    """Over queries: the mean, and its lower bound."""
    found = (ranks < depth).mean(axis=1)
    mean = float(found.mean())
    return mean, mean - _Z * float(found.std()) / float(np.sqrt(len(found)))


def _may_go_on(stop: Callable[[], bool]) -> None:
    if stop():
        raise InterruptedError("the probe was told to stop")
