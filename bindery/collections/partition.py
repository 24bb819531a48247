"""A partition: the vectors of one modality of one collection, as segments and what was written after them.

The newest rows are in memory (`FlatIndex`, the growing buffer) and searchable at once. A segment whose files are missing or
damaged is read from the catalog instead and compared exactly, until it is built again.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Set
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bindery.collections import planner, registry
from bindery.collections.allowed import AllowedRows
from bindery.collections.centring import SAMPLE_ROWS, Centre
from bindery.collections.flat import FlatIndex, Keys, Mask
from bindery.collections.records import decode_codes
from bindery.collections.registry import Probed, SegmentRow, Span
from bindery.collections.segment import Segment
from bindery.collections.segment_files import SegmentDamaged
from bindery.collections.tiers import Tiers
from bindery.vectors import Vectors

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which rows a search may return: those of ``allowed`` (None: all), without ``excluded``."""

    allowed: AllowedRows | None
    excluded: Keys


class Partition:
    """Not thread-safe: `ResidentVectors` lets many searches or one change at it."""

    def __init__(self, dimension: int, tiers: Tiers) -> None:
        self._tiers = tiers
        self._growing = FlatIndex(dimension)
        self._segments: list[Segment] = []
        self._stand_ins: list[tuple[SegmentRow, FlatIndex]] = []  # for damaged segments
        self._centre: Centre | None = None

    @classmethod
    def load(
        cls,
        db: sqlite3.Connection,
        collection_id: int,
        modality: str,
        dimension: int,
        tiers: Tiers,
        folder: Path,
        distrusted: Set[int],
        written_here: Set[str],
    ) -> Partition:
        """What ``db`` sees, from segments as far as they go and from the catalog beyond; deletions are the caller's to apply.

        ``distrusted``: segments that are not to be used; ``written_here``: folders of segments that this process has just written.
        """
        partition = cls(dimension, tiers)
        rows = registry.segments(db, collection_id, modality)
        for row in rows:
            try:
                if row.id in distrusted:
                    raise SegmentDamaged(f"segment {row.folder} was found damaged")
                segment = Segment(folder / row.folder, row, dimension, written_here=row.folder in written_here)
                partition._segments.append(segment)
                if tiers.gpu:
                    segment.to_gpu()
            except SegmentDamaged as error:
                log.warning("a segment is served from the catalog until it is built again: %s", error)
                partition._stand_ins.append((row, _read(db, collection_id, row.span, dimension)))
        partition._growing = _read(db, collection_id, Span(modality, rows[-1].span.upto or 0 if rows else -1, None), dimension)
        # A row that was written again is in a later segment, or in memory: what an older segment has of it is dead.
        later = [partition._growing.keys, *(index.keys for _, index in partition._stand_ins)]
        for segment in reversed(partition._segments):
            for keys in later:
                segment.remove(keys)
            later.append(segment.keys)
        return partition

    def __len__(self) -> int:
        return sum(len(index) for index in self._parts())

    @property
    def growing_rows(self) -> int:
        return len(self._growing)

    @property
    def memory_bytes(self) -> int:
        return sum(index.memory_bytes for index in self._parts())

    @property
    def tier(self) -> str:
        return "ivf_pq" if self._segments else "flat"

    @property
    def damaged(self) -> list[SegmentRow]:
        return [row for row, _ in self._stand_ins]

    @property
    def segments(self) -> list[Segment]:
        return list(self._segments)

    def centre(self) -> Centre | None:
        """What its vectors have in common; None when there are none. Taken anew when a tenth of them has changed."""
        rows = len(self)
        if rows and (self._centre is None or not self._centre.is_fresh(rows)):
            share = min(1.0, SAMPLE_ROWS / rows)
            parts = [index.sample(ceil(share * len(index))) for index in self._parts() if len(index)]
            self._centre = Centre.of(np.concatenate(parts), rows)
        return self._centre if rows else None

    def put(self, keys: Keys, codes: NDArray[np.uint8]) -> None:
        """Rows that were written now. codes: ``(n, 2 d)`` bytes of float16."""
        for index in self._parts():
            if index is not self._growing:
                index.remove(keys)
        self._growing.put(keys, codes)

    def remove(self, keys: Keys) -> None:
        for index in self._parts():
            index.remove(keys)

    def search(
        self, query: Vectors, top_k: int, scope: Scope, exact: bool, probed: Probed | None
    ) -> tuple[NDArray[np.float32], Keys, dict[str, object], bool]:
        """The best ``top_k`` rows by score, then by key; the line of the plan; whether these are all there are."""
        parts = self._parts()
        masks = [self._mask(index, scope) for index in parts]
        allowed = [index.allowed(mask) for index, mask in zip(parts, masks, strict=True)]
        chosen = planner.plan(len(self), sum(allowed), top_k, exact or not self._segments, self._tiers, probed)
        found, on_gpu = [], 0
        for index, mask, rows in zip(parts, masks, allowed, strict=True):
            if chosen.effort is None or not isinstance(index, Segment):
                found.append(index.search(query, top_k, mask))
                continue
            by_gpu = index.by_gpu(query, top_k) if mask is None else None
            if by_gpu is not None:
                found.append(by_gpu)
                on_gpu += 1
                continue
            scores, keys, sure = index.approximate(query, top_k, mask, chosen.effort)
            # Lists that were left out may hold what is missing: never a short answer. And where a filter goes against the
            # query, the best of its rows lie so close together that their codes say little.
            enough = len(keys) >= min(top_k, rows) and (sure or scope.allowed is None)
            found.append((scores, keys) if enough else index.search(query, top_k, mask))
        scores = np.concatenate([pair[0] for pair in found])
        keys = np.concatenate([pair[1] for pair in found])
        order = np.lexsort((keys, -scores))[:top_k]
        line: dict[str, object] = {"rows": len(self), "allowed": sum(allowed), "index": self.tier, "plan": chosen.name}
        if chosen.effort is not None:
            recall = None if probed is None else probed.recall
            line |= {"compared": chosen.effort.depth, "lists": chosen.effort.share, "recall": recall}
        if on_gpu:
            line["segments_on_gpu"] = on_gpu
        return scores[order], keys[order], line, sum(allowed) <= top_k

    @staticmethod
    def _mask(index: Segment | FlatIndex, scope: Scope) -> Mask | None:
        mask = None
        if scope.allowed is not None:
            if scope.allowed.is_small_beside(len(index)):
                mask = index.mask(scope.allowed.keys)
            elif isinstance(index, Segment):
                mask = scope.allowed.of_fixed(index.row.id, index.keys)
            else:
                mask = scope.allowed.of(index.keys)
        if not len(scope.excluded):
            return mask
        out = index.mask(scope.excluded)
        return ~out if mask is None else mask & ~out

    def _parts(self) -> list[Segment | FlatIndex]:
        return [*self._segments, *(index for _, index in self._stand_ins), self._growing]


def _read(db: sqlite3.Connection, collection_id: int, span: Span, dimension: int) -> FlatIndex:
    index = FlatIndex(dimension)
    for keys, blobs in registry.vectors(db, collection_id, span, registry.keys(db, collection_id, span)):
        if len(keys):
            index.put(keys, decode_codes(blobs))
    return index
