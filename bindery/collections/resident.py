"""The vectors of one collection in memory: a flat index a modality, brought up to date from the catalog when asked.

A cache, never the truth: it follows the catalog's generations, whoever wrote them (this process or another), and is
loaded from the catalog on first use.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bindery.collections import catalog
from bindery.collections.flat import FlatIndex, Keys
from bindery.collections.records import decode_codes
from bindery.collections.sharing import SharedLock
from bindery.vectors import Vectors


@dataclass(frozen=True, slots=True)
class Ranked:
    """Rows of several modalities, best first; ``exhausted``: there are no more."""

    scores: NDArray[np.float32]
    keys: Keys
    exhausted: bool


class ResidentVectors:
    """Any thread may search at any time; changes wait for the searches that are running."""

    def __init__(self, collection_id: int, dimension: int) -> None:
        self._collection_id = collection_id
        self._dimension = dimension
        self._lock = SharedLock()
        self._indexes: dict[str, FlatIndex] = {}
        self._generation = -1  # nothing loaded

    @property
    def memory_bytes(self) -> int:
        with self._lock.shared():
            return sum(index.memory_bytes for index in self._indexes.values())

    def catch_up(self, db: sqlite3.Connection, generation: int) -> None:
        """Hold what the catalog holds at ``generation``, the one that ``db`` sees."""
        if self._generation >= generation:
            return
        with self._lock.alone():
            if self._generation >= generation:
                return
            if self._generation + catalog.KEPT_GENERATIONS < generation:
                self._indexes = {}
                self._generation = -1
            self._follow(db)
            self._generation = generation

    def rank(
        self, query: Vectors, top_k: int, modalities: Iterable[str] | None, allowed: Keys | None, excluded: Keys
    ) -> tuple[Ranked, dict[str, dict[str, object]]]:
        """The best ``top_k`` rows over the modalities, and a line of the plan for each."""
        with self._lock.shared():
            names = sorted(self._indexes) if modalities is None else sorted(set(modalities) & set(self._indexes))
            found: list[tuple[NDArray[np.float32], Keys]] = []
            plan: dict[str, dict[str, object]] = {}
            available = 0
            for name in names:
                index = self._indexes[name]
                mask = None if allowed is None else index.mask(allowed)
                if len(excluded):
                    mask = ~index.mask(excluded) if mask is None else mask & ~index.mask(excluded)
                rows = index.allowed(mask)
                plan[name] = {"rows": len(index), "allowed": rows, "index": "flat"}
                available += rows
                found.append(index.search(query, top_k, mask))
        if not found:
            return Ranked(np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64), True), plan
        scores = np.concatenate([pair[0] for pair in found])
        keys = np.concatenate([pair[1] for pair in found])
        order = np.lexsort((keys, -scores))[:top_k]
        return Ranked(scores[order], keys[order], exhausted=available <= top_k), plan

    def _follow(self, db: sqlite3.Connection) -> None:
        if self._generation >= 0:
            gone = catalog.deleted_since(db, self._collection_id, self._generation)
            for index in self._indexes.values():
                index.remove(gone)
        for rows in catalog.vectors_since(db, self._collection_id, self._generation):
            if rows.modality not in self._indexes:
                self._indexes[rows.modality] = FlatIndex(self._dimension)
            self._indexes[rows.modality].put(rows.keys, decode_codes(rows.blobs))
