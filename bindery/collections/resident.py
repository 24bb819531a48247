"""The vectors of one collection, ready to be searched: a partition a modality, brought up to date from the catalog when asked.

A cache, never the truth: it follows the catalog's generations, whoever wrote them (this process or another), and is
loaded from segments and the catalog on first use.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bindery.collections import catalog, planner, registry
from bindery.collections.database import Database
from bindery.collections.flat import Keys
from bindery.collections.partition import Partition, Scope
from bindery.collections.records import decode_codes
from bindery.collections.registry import Probed, SegmentRow
from bindery.collections.segment import Segment
from bindery.collections.segment_files import SegmentDamaged
from bindery.collections.sharing import SharedLock
from bindery.collections.tiers import Tiers
from bindery.collections.tuning import is_fresh
from bindery.vectors import Vectors

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ranked:
    """Rows of several modalities, best first; ``exhausted``: there are no more."""

    scores: NDArray[np.float32]
    keys: Keys
    exhausted: bool


class ResidentVectors:
    """Any thread may search at any time; changes wait for the searches that are running. ``folder``: where segments are."""

    def __init__(self, collection_id: int, dimension: int, tiers: Tiers, folder: Path) -> None:
        self._collection_id = collection_id
        self._dimension = dimension
        self._tiers = tiers
        self._folder = folder
        self._lock = SharedLock()
        self._partitions: dict[str, Partition] = {}
        self._generation = -1  # nothing loaded
        self._layout = -1
        self._distrusted: set[int] = set()  # segments that were found damaged after they were loaded
        self._written_here: Set[str] = frozenset()
        self._looked_at: tuple[int, int, int] | None = None
        self._probes: dict[tuple[str, str], Probed] = {}

    @property
    def memory_bytes(self) -> dict[str, int]:
        """By modality."""
        with self._lock.shared():
            return {name: partition.memory_bytes for name, partition in self._partitions.items()}

    @property
    def segments(self) -> dict[str, list[Segment]]:
        """By modality; partitions without any left out."""
        with self._lock.shared():
            return {name: partition.segments for name, partition in self._partitions.items() if partition.segments}

    @property
    def damaged(self) -> list[SegmentRow]:
        with self._lock.shared():
            return [row for partition in self._partitions.values() for row in partition.damaged]

    def wants_care(self, layout: int) -> bool:
        """Whether there is something to seal or to build again, or another process has done so (``layout``: as the catalog has it).

        Looked at once for each state of the collection; what could not be done then is tried again after the next write.
        """
        state = (self._generation, layout, self._layout)
        if state == self._looked_at:
            return False
        self._looked_at = state
        with self._lock.shared():
            return (self._generation >= 0 and layout != self._layout) or any(
                not self._is_tuned(name, partition)
                or partition.growing_rows >= self._tiers.exact_rows
                or bool(partition.damaged)
                or any(segment.dead_share > self._tiers.dead_share or not segment.verified for segment in partition.segments)
                for name, partition in self._partitions.items()
            )

    def _is_tuned(self, name: str, partition: Partition) -> bool:
        rows = sum(len(segment) for segment in partition.segments)
        return not rows or is_fresh(self._probes.get((name, name)), rows, self._tiers.recall_target)

    def catch_up(self, db: sqlite3.Connection, generation: int) -> None:
        """Hold what the catalog holds at ``generation``, the one that ``db`` sees."""
        if self._generation >= generation:
            return
        with self._lock.alone():
            if self._generation >= generation:
                return
            if self._generation < 0 or self._generation + catalog.KEPT_GENERATIONS < generation:
                self._partitions, self._layout = self._load(db)
                self._take_probes(db)
            else:
                self._follow(db, self._partitions, self._generation)
            self._generation = generation

    def trust(self, folders: Set[str]) -> None:
        """The segments that this process has written just now, and that need no checking when they are loaded next."""
        self._written_here = folders

    def verify(self, database: Database, stop: Callable[[], bool]) -> None:
        """Check what was too large to be checked when it was loaded, and stop using what is damaged. Raises `InterruptedError`."""
        for segment in [segment for segments in self.segments.values() for segment in segments if not segment.verified]:
            try:
                segment.verify(stop)
            except SegmentDamaged as error:
                log.warning("a segment was damaged: %s", error)
                self._distrusted.add(segment.row.id)
                self.reload(database, anyway=True)

    def reload(self, database: Database, *, anyway: bool = False) -> None:
        """Take up the segments as they are registered now, while searches go on; nothing when nothing was loaded yet.

        ``anyway``: also when they are the same.
        """
        if self._generation < 0:
            return
        with database.reading() as db:
            found = registry.versions(db, self._collection_id)
            if found is None:
                return
            self._take_probes(db)
            if found.layout == self._layout and not anyway:
                return
            partitions, layout = self._load(db)
        with self._lock.alone(), database.reading() as db:
            # This transaction began after every search that moved the generation on, so it sees at least as much.
            now = catalog.generation(db, self._collection_id)
            if now is None:
                return
            if found.generation + catalog.KEPT_GENERATIONS < now:
                partitions, layout = self._load(db)
            else:
                self._follow(db, partitions, found.generation)
            self._partitions, self._layout, self._generation = partitions, layout, now

    def rank(
        self, query: Vectors, top_k: int, modalities: Iterable[str] | None, scope: Scope, exact: bool, asked: str, centred: bool = False
    ) -> tuple[Ranked, dict[str, dict[str, object]]]:
        """The best ``top_k`` rows over the modalities, and a line of the plan for each. ``asked``: the query's modality, or "".

        ``centred``: by scores that compare between modalities (`centring`), instead of cosines.
        """
        with self._lock.shared():
            names = sorted(self._partitions) if modalities is None else sorted(set(modalities) & set(self._partitions))
            found: list[tuple[NDArray[np.float32], Keys]] = []
            lines: dict[str, dict[str, object]] = {}
            exhausted = True
            for name in names:
                scores, keys, line, whole = self._partitions[name].search(query, top_k, scope, exact, self._probe_of(name, asked))
                lines[name] = line
                exhausted = exhausted and whole
                centre = self._partitions[name].centre() if centred else None
                found.append((scores if centre is None else centre.scores(query, scores), keys))
        if not found:
            return Ranked(np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64), True), lines
        scores = np.concatenate([pair[0] for pair in found])
        keys = np.concatenate([pair[1] for pair in found])
        order = np.lexsort((keys, -scores))[:top_k]
        return Ranked(scores[order], keys[order], exhausted=exhausted and len(scores) <= top_k), lines

    def _probe_of(self, name: str, asked: str) -> Probed | None:
        if asked:
            return self._probes.get((name, asked))
        return planner.for_any([one for (modality, _), one in self._probes.items() if modality == name])

    def _take_probes(self, db: sqlite3.Connection) -> None:
        probes = registry.probes(db, self._collection_id)
        self._probes = {(one.modality, one.query_modality): one for one in probes if one.target == self._tiers.recall_target}

    def _load(self, db: sqlite3.Connection) -> tuple[dict[str, Partition], int]:
        found = registry.versions(db, self._collection_id)
        partitions = {
            name: Partition.load(
                db, self._collection_id, name, self._dimension, self._tiers, self._folder, self._distrusted, self._written_here
            )
            for name in registry.modalities(db, self._collection_id)
        }
        self._written_here = frozenset()
        oldest = registry.oldest_built_at(db, self._collection_id)
        if oldest is not None:
            gone = catalog.deleted_since(db, self._collection_id, oldest)
            for partition in partitions.values():
                partition.remove(gone)
        return partitions, -1 if found is None else found.layout

    def _follow(self, db: sqlite3.Connection, partitions: dict[str, Partition], since: int) -> None:
        gone = catalog.deleted_since(db, self._collection_id, since)
        for partition in partitions.values():
            partition.remove(gone)
        for rows in catalog.vectors_since(db, self._collection_id, since):
            if rows.modality not in partitions:
                partitions[rows.modality] = Partition(self._dimension, self._tiers)
            partitions[rows.modality].put(rows.keys, decode_codes(rows.blobs))
