"""Tuning: when the probe runs, and with which queries. In the background, after sealing.

For a pair of modalities: stored vectors of the modality that is asked with, when there are some; else what was really asked, which
is kept in memory only. Again after the rows have changed by a fifth, or when another recall is wanted.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bindery.collections import planner, registry
from bindery.collections.database import Database
from bindery.collections.flat import Keys
from bindery.collections.probe import FEWEST, QUERIES, Asked, probe
from bindery.collections.records import decode_vector
from bindery.collections.registry import Probed, Span
from bindery.collections.segment import Segment
from bindery.collections.tiers import Tiers
from bindery.vectors import Vectors

log = logging.getLogger(__name__)

_CHANGED = 0.2
_DEEPEST = 4  # times the depth that searches without a probe take
_SEED = 8


class RecentQueries:
    """The last queries by the modality that they were asked with, "" where they did not say. Any thread may add."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._kept: dict[str, deque[Vectors]] = {}
        self._seen: dict[str, int] = {}

    def add(self, modality: str, vector: Vectors) -> bool:
        """Whether there are now enough of this modality for a first probe."""
        with self._guard:
            self._kept.setdefault(modality, deque(maxlen=QUERIES)).append(vector)
            self._seen[modality] = self._seen.get(modality, 0) + 1
            return self._seen[modality] == FEWEST

    def modalities(self) -> list[str]:
        with self._guard:
            return sorted(self._kept)

    def of(self, modality: str) -> list[Vectors]:
        with self._guard:
            return list(self._kept.get(modality, ()))


def is_fresh(probed: Probed | None, rows: int, target: float) -> bool:
    """Whether a probe may still be used as it is. ``rows``: in the segments now."""
    return probed is not None and probed.target == target and abs(rows - probed.rows) <= _CHANGED * probed.rows


class Tuner:
    """The probes of one collection."""

    def __init__(self, database: Database, collection_id: int, tiers: Tiers, recent: RecentQueries) -> None:
        self._database = database
        self._collection_id = collection_id
        self._tiers = tiers
        self._recent = recent

    def run(self, segments: Mapping[str, Sequence[Segment]], stop: Callable[[], bool]) -> None:
        """Probe every pair that is due. Raises `InterruptedError` when ``stop()`` says so."""
        with self._database.reading() as db:
            known = {(one.modality, one.query_modality): one for one in registry.probes(db, self._collection_id)}
            stored = registry.modalities(db, self._collection_id)
        for modality, own_segments in segments.items():
            rows = sum(len(segment) for segment in own_segments)
            if not rows:
                continue
            due: list[Asked] = []
            deepest = min(rows, _DEEPEST * planner.safe_depth(rows, 10))
            for name in sorted({*stored, *self._recent.modalities()}):
                if is_fresh(known.get((modality, name)), rows, self._tiers.recall_target):
                    continue
                queries, keys = self._queries(name)
                if len(queries) >= FEWEST:
                    due.append(Asked(modality, name, queries, keys if name == modality else None, self._tiers.recall_target, deepest))
            if not due:
                continue
            for found in probe(own_segments, due, stop):
                with self._database.writing() as db:
                    registry.put_probe(db, self._collection_id, found)
                log.info("%s by %s: recall %.4f comparing %d", modality, found.query_modality or "any", found.recall, found.depth)

    def _queries(self, asked: str) -> tuple[Vectors, Keys | None]:
        """Vectors ``(m, d)``, and their keys when they are stored."""
        with self._database.reading() as db:
            span = Span(asked, -1, None)
            keys = registry.keys(db, self._collection_id, span)
            if len(keys) >= FEWEST:
                random = np.random.default_rng(_SEED)
                keys = np.sort(random.choice(keys, min(QUERIES, len(keys)), replace=False))
                (piece,) = registry.vectors(db, self._collection_id, span, keys)
                return np.stack([decode_vector(blob) for blob in piece[1]]), piece[0]
        recent = self._recent.of(asked)
        return np.stack(recent) if recent else np.empty((0, 0), dtype=np.float32), None
