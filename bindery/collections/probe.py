"""The recall probe: how deep a search by code must look on this collection's own vectors, for each pair of modalities.

Queries are stored vectors of a modality, or real queries; the truth is a comparison with every row. One scan by code, deep enough,
ranks all rows; the place of a true neighbour in that ranking is the depth at which it is found, so one scan a query answers for
every depth. What a scan of fewer lists ranks is that ranking without the rows of the other lists, so it answers for those too.
The least work whose recall@10 reaches the target, by its lower bound over the queries, is what searches then do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bindery.collections.denoising import crosses
from bindery.collections.flat import Keys
from bindery.collections.products import Linear
from bindery.collections.registry import Probed
from bindery.collections.segment import Segment
from bindery.vectors import Vectors

QUERIES = 128
"""Of a pair. With fewer the bound is farther from the mean, so searches look deeper; with more the probe costs a third of the building."""
FEWEST = 30
"""Fewer queries than this say too little."""

SHARES = (1.0, 0.5, 0.25, 0.125)
_NEIGHBOURS = 100
_SHALLOW = 4
"""First only so deep a part of what may be compared is looked at: a scan that ranks fewer rows costs half, and mostly it is enough."""
_NS_OF_A_CODE, _NS_OF_A_ROW = 5.0, 350.0  # measured for 768 components; only their ratio matters
_STEP = 1.08  # of the ladder of depths
_MARGIN = 1.5
"""Queries of another modality look deeper than the probe found enough, for those to come are others than its own: on 100,000 rows it
promised 0.9885 at a depth at which two hundred other texts found 0.9765. A compared row costs a third of a microsecond."""
_Z = 2.326  # one-sided, 99 %
_Z_OF_FEWER_LISTS = 2.576
"""99.5 %: of several shares the luckiest would be taken. Lists that are left out take many neighbours of few queries, which
some hundred queries may not show: a million rows lost a hundredth more than their probe had seen."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """One pair: looking for ``modality`` with queries ``(m, d)`` of another, or the same.

    ``own``: the key of each query, when it is stored here and so its own best neighbour. ``target``: a recall; ``deepest``: rows
    that may be compared for 10 hits.
    """

    modality: str
    query_modality: str
    queries: Vectors
    own: Keys | None
    target: float
    deepest: int

    @property
    def crosses(self) -> bool:
        """Whether queries and rows are of different modalities, so that the queries are denoised (`denoising`)."""
        return crosses(self.modality, self.query_modality)


Ranks = NDArray[np.int64]  # (queries, neighbours): in how deep a ranking the neighbour is found


def probe(segments: Sequence[Segment], asked: Sequence[Asked], stop: Callable[[], bool]) -> list[Probed]:
    """Measure pairs that look for the same modality, together. Raises `InterruptedError` when ``stop()`` says so."""
    truth = _truth(segments, asked, stop)
    lists = [segment.list_of_rows() for segment in segments]
    rows = sum(len(segment) for segment in segments)
    found, first = [], 0
    for one in asked:
        upto = first + len(one.queries)
        own = _Truth(truth.segments[first:upto], truth.places[first:upto])
        found.append(_probed(segments, lists, one, own, rows, stop))
        first = upto
    return found


def _probed(
    segments: Sequence[Segment], lists: Sequence[NDArray[np.int64]], asked: Asked, truth: _Truth, rows: int, stop: Callable[[], bool]
) -> Probed:
    for deepest in (max(1, asked.deepest // _SHALLOW), asked.deepest):
        chosen = _chosen(asked, _ranks(segments, lists, asked, truth, deepest, stop), deepest, len(segments), rows)
        if chosen is not None and chosen.depth_100 <= deepest:
            break
    return chosen or Probed(asked.modality, asked.query_modality, asked.target, 1.0, 0, 0, 1.0, 1.0, len(asked.queries), rows)


def _chosen(asked: Asked, ranks: dict[float, Ranks], deepest: int, segments: int, rows: int) -> Probed | None:
    """The cheapest share of the lists, and how deep to look in it; None when a look at ``deepest`` rows is not enough."""
    best: tuple[float, Probed] | None = None
    for share, own in ranks.items():
        certainty = _Z if share == 1 else _Z_OF_FEWER_LISTS
        depth = _enough(own[:, :10], asked.target, 10, deepest, certainty)
        if depth is None:
            break  # fewer lists find less
        margin = _MARGIN if asked.crosses else 1.0
        depth = min(asked.deepest, math.ceil(margin * depth))
        hundred = _enough(own, asked.target, 100, deepest, certainty) or 4 * deepest  # 4: beyond what was looked at
        recall, bound = (round(value, 4) for value in _recall(own[:, :10], depth, _Z))
        cost = share * rows * _NS_OF_A_CODE + segments * depth * _NS_OF_A_ROW
        if best is None or cost < best[0]:
            told = (asked.target, share, depth, max(depth, math.ceil(margin * hundred)), recall, bound, len(own), rows)
            best = cost, Probed(asked.modality, asked.query_modality, *told)
    return None if best is None else best[1]


@dataclass(frozen=True, slots=True)
class _Truth:
    """The best rows of each query over all segments, best first."""

    segments: NDArray[np.int64]  # (m, k)
    places: NDArray[np.int64]  # (m, k)


def _truth(segments: Sequence[Segment], asked: Sequence[Asked], stop: Callable[[], bool]) -> _Truth:
    queries = np.concatenate([one.queries for one in asked])
    own = np.concatenate([np.full(len(one.queries), -1, dtype=np.int64) if one.own is None else one.own for one in asked])
    best, scores = Best(len(queries)), Linear(queries)
    first = np.cumsum([0, *(segment.rows for segment in segments)])
    for number, segment in enumerate(segments):
        for start, rows, alive in segment.blocks():
            _may_go_on(stop)
            found = scores(rows)
            found[~alive] = -np.inf
            keys = segment.keys[start : start + len(rows)]
            column = np.minimum(np.searchsorted(keys, own), len(keys) - 1)
            itself = np.flatnonzero(keys[column] == own)
            found[column[itself], itself] = -np.inf
            best.add(found, int(first[number]) + start)
    places = best.places()
    owners = np.searchsorted(first, places, side="right") - 1
    return _Truth(owners, places - first[owners])


class Best:
    """The best rows of each query, from scores that come a block of rows at a time.

    Kept are all that were better than a bound, thinned out when they are many: ranking every block would take as long as comparing it.
    """

    def __init__(self, queries: int) -> None:
        self._bound = np.full(queries, -np.inf, dtype=np.float32)  # of each query: its hundredth best so far, or less
        self._kept = [(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))]
        self._waiting = 0

    def add(self, scores: NDArray[np.float32], first: int) -> None:
        """Of the rows ``first``, ``first + 1``, ... with the queries: ``(n, m)``."""
        queries = len(self._bound)
        if not np.isfinite(self._bound).all() and len(scores) > _NEIGHBOURS:
            self._bound = np.maximum(self._bound, np.partition(scores, -_NEIGHBOURS, axis=0)[-_NEIGHBOURS])
        found = np.flatnonzero(scores >= self._bound)  # in a third of the time that two dimensions take
        place, query = np.divmod(found, queries)
        self._kept.append((query, place + first, scores.ravel()[found]))
        self._waiting += len(query)
        if self._waiting > _NEIGHBOURS * queries:
            self._thin_out()

    def places(self) -> NDArray[np.int64]:
        """``(m, 100)``, best first; the last again where there are fewer rows than a hundred."""
        self._thin_out()
        query, place, _ = self._kept[0]
        begins = np.searchsorted(query, np.arange(len(self._bound)))
        counts = np.diff([*begins, len(query)])
        return np.asarray(place[begins[:, None] + np.minimum(np.arange(_NEIGHBOURS), counts[:, None] - 1)])

    def _thin_out(self) -> None:
        query, place, score = (np.concatenate(parts) for parts in zip(*self._kept, strict=True))
        order = np.lexsort((place, -score, query))
        query, place, score = query[order], place[order], score[order]
        rank = np.arange(len(query)) - np.searchsorted(query, query)
        last = rank == _NEIGHBOURS - 1
        self._bound[query[last]] = score[last]
        kept = rank < _NEIGHBOURS
        self._kept, self._waiting = [(query[kept], place[kept], score[kept])], 0


def _ranks(
    segments: Sequence[Segment], lists: Sequence[NDArray[np.int64]], asked: Asked, truth: _Truth, deepest: int, stop: Callable[[], bool]
) -> dict[float, Ranks]:
    """By the share of the lists that is scanned."""
    # Lists hold what is alike to a query of their own modality; another's neighbours lie in all of them.
    ranks = {share: np.full(truth.places.shape, deepest, dtype=np.int64) for share in (SHARES if not asked.crosses else SHARES[:1])}
    for number, segment in enumerate(segments):
        rank_of = np.full(segment.rows, deepest, dtype=np.int64)
        turn_of = np.zeros(segment.lists, dtype=np.int64)  # of each list, for this query
        for query, vector in enumerate(asked.queries):
            _may_go_on(stop)
            ranked = segment.by_code(vector, min(deepest, segment.rows), 1.0, denoised=asked.crosses)
            if not asked.crosses:
                turn_of[segment.lists_by_nearness(vector, denoised=False)] = np.arange(segment.lists)
            turns = turn_of[lists[number][ranked]]
            mine = truth.segments[query] == number
            wanted = truth.places[query, mine]
            for share, found in ranks.items():
                seen = ranked[turns < segment.lists_of(share)]
                rank_of[seen] = np.arange(len(seen))
                found[query, mine] = rank_of[wanted]
                rank_of[seen] = deepest
    return ranks


def _enough(ranks: Ranks, target: float, hits: int, deepest: int, certainty: float) -> int | None:
    """The least depth of a ladder whose recall reaches the target."""
    depth = 2.0 * hits
    while depth < _STEP * deepest:
        if _recall(ranks, rung := min(deepest, round(depth)), certainty)[1] >= target:
            return rung
        depth *= _STEP
    return None


def _recall(ranks: Ranks, depth: int, certainty: float) -> tuple[float, float]:
    """Over queries: the mean, and its lower bound."""
    found = (ranks < depth).mean(axis=1)
    mean = float(found.mean())
    return mean, mean - certainty * float(found.std()) / float(np.sqrt(len(found)))


def _may_go_on(stop: Callable[[], bool]) -> None:
    if stop():
        raise InterruptedError("the probe was told to stop")
