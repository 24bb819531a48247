"""A segment in memory: the codes of its rows, their keys, and which of them are still alive. The vectors stay on the disk.

Two ways to search: by code, the best of which are compared again as float16, and exactly, over all rows or some.
Not thread-safe towards `remove`; many searches may run at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from bindery.collections import segment_files
from bindery.collections.flat import Keys, Mask, Selection, best
from bindery.collections.registry import SegmentRow
from bindery.collections.segment_files import CODES, KEYS, VECTORS, SegmentDamaged
from bindery.vectors import Vectors

_BLOCK_ROWS = 8192
_KEPT_PARAMETERS = 64
_CHECKED_AT_ONCE = 256 * 1024 * 1024
_COMPARED_IN_ORDER = 160
"""One row in so many: then passing over the others costs less than jumping to each."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much of a segment a search by code looks at. ``share``: of its lists; ``depth``: rows compared again."""

    share: float
    depth: int


class Segment:
    """Raises `SegmentDamaged` when a file is missing or not as it was written.

    Vectors of more than `_CHECKED_AT_ONCE` bytes are checked later (`verify`), so that a search need not wait until all were read.
    """

    def __init__(self, folder: Path, row: SegmentRow, dimension: int) -> None:
        self.row = row
        self._folder = folder
        self.verified = row.files.get(VECTORS, (0, ""))[0] <= _CHECKED_AT_ONCE
        self._keys: Keys = np.fromfile(segment_files.check(folder, row.files, KEYS), dtype="<i8")
        self._vectors = np.memmap(segment_files.check(folder, row.files, VECTORS, whole=self.verified), dtype=np.uint8, mode="r")
        path = segment_files.check(folder, row.files, CODES)
        try:
            self._codes = faiss.read_index(str(path))
        except RuntimeError as error:
            raise SegmentDamaged(f"{path} cannot be read: {error}") from error
        self.lists: int = self._codes.nlist  # type: ignore[attr-defined]  # an index that was read has no closer type
        self._exact = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        # FAISS reads the mapped file in place; both must live as long as the index does.
        whole = faiss.MaybeOwnedVectorUInt8
        self._view = whole.create_view(faiss.swig_ptr(self._vectors), self._vectors.nbytes, whole().owner)  # type: ignore[attr-defined]  # the stubs lack it
        self._exact.codes = self._view
        self._exact.ntotal = len(self._keys)
        self._refined = faiss.IndexRefine(self._codes, self._exact)
        self._alive: Mask = np.ones(len(self._keys), dtype=np.bool_)
        self._dead = 0
        self._parameters: dict[tuple[float, float], faiss.SearchParameters] = {}  # making them takes longer than a small scan

    def __len__(self) -> int:
        return len(self._keys) - self._dead

    @property
    def keys(self) -> Keys:
        """Of all its rows, dead ones too, ascending."""
        return self._keys

    @property
    def dead_share(self) -> float:
        return self._dead / max(1, len(self._keys))

    @property
    def memory_bytes(self) -> int:
        codes = self.row.files[CODES][0]
        return codes + len(self._keys) * (self._keys.itemsize + 1)

    @property
    def disk_bytes(self) -> int:
        return sum(size for size, _ in self.row.files.values())

    def verify(self, stop: Callable[[], bool]) -> None:
        """Read the vectors and compare their checksum. Raises `SegmentDamaged`, and `InterruptedError` when ``stop()`` says so."""
        segment_files.check(self._folder, self.row.files, VECTORS, stop=stop)
        self.verified = True

    def remove(self, keys: Keys) -> None:
        """Take rows out; keys that are not here are no error."""
        if len(keys):
            self._alive &= ~self.mask(keys)
            self._dead = len(self._alive) - int(np.count_nonzero(self._alive))

    def mask(self, keys: Keys) -> Mask:
        """Which rows have one of ``keys`` (in any order)."""
        chosen = np.zeros(len(self._keys), dtype=np.bool_)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        chosen[places[self._keys[places] == keys]] = True
        return chosen

    def allowed(self, mask: Mask | None) -> int:
        return len(self) if mask is None else int(np.count_nonzero(self._alive & mask))

    def search(self, query: Vectors, top_k: int, allowed: Mask | None) -> tuple[NDArray[np.float32], Keys]:
        """The best ``top_k`` of the allowed rows (None: all), exactly, by score, then by key."""
        return best(self._exact, self._keys, query, top_k, self._chosen(allowed))

    def approximate(self, query: Vectors, top_k: int, allowed: Mask | None, effort: Effort) -> tuple[NDArray[np.float32], Keys, bool]:
        """As `search`, but only the best rows by code are compared. May find fewer than there are.

        Also whether what was found is well within the rows that were compared: if not, more may lie beyond them.
        """
        depth = max(effort.depth, top_k)
        if depth * _COMPARED_IN_ORDER > len(self._keys) or allowed is not None:
            places = self.by_code(query, depth, effort.share, allowed)
            compared = np.zeros(len(self._keys), dtype=np.bool_)
            compared[places] = True
            scores, keys = best(self._exact, self._keys, query, top_k, compared)
            ranks = np.flatnonzero(np.isin(places, np.searchsorted(self._keys, keys)))
            return scores, keys, len(places) < depth or not len(ranks) or bool(ranks[-1] * 2 < depth)
        chosen = self._chosen(None)
        selection = None if chosen is None else Selection(chosen)
        parameters = self._comparing(depth / top_k, effort.share, selection)
        found, places = self._refined.search(query[None, :], top_k, params=parameters)
        ranked = self._keys[places[0][places[0] >= 0]]
        order = np.lexsort((ranked, -found[0][: len(ranked)]))
        return found[0][order], ranked[order], True

    def by_code(self, query: Vectors, depth: int, share: float, allowed: Mask | None = None) -> NDArray[np.int64]:
        """Positions of the best ``depth`` of the allowed rows, by code alone, best first."""
        faiss.omp_set_num_threads(1)
        chosen = self._chosen(allowed)
        selection = None if chosen is None else Selection(chosen)
        places = self._codes.search(query[None, :], depth, params=self._scanning(share, selection))[1][0]
        return np.asarray(places[places >= 0])

    def _comparing(self, factor: float, share: float, selection: Selection | None) -> faiss.SearchParameters:
        known = self._parameters.get((factor, share)) if selection is None else None
        if known is not None:
            return known
        made = faiss.IndexRefineSearchParameters(  # type: ignore[call-arg]  # the wheel's stubs know no fields
            k_factor=factor, base_index_params=self._scanning(share, selection)
        )
        if selection is None and len(self._parameters) < _KEPT_PARAMETERS:
            self._parameters[factor, share] = made
        return made

    def _scanning(self, share: float, selection: Selection | None) -> faiss.SearchParameters:
        lists = max(1, round(share * self.lists))
        selector = None if selection is None else selection.selector
        return faiss.SearchParametersIVF(nprobe=lists, sel=selector)  # type: ignore[call-arg]  # the wheel's stubs know no fields

    def blocks(self) -> Iterator[tuple[int, Vectors, Mask]]:
        """All rows as float32, some thousands at a time: position of the first, rows ``(n, d)``, which are alive."""
        rows = self._vectors.view("<f2").reshape(len(self._keys), -1)  # (n * d,) -> (n, d)
        alive = self._alive.copy()
        for start in range(0, len(rows), _BLOCK_ROWS):
            yield start, rows[start : start + _BLOCK_ROWS].astype(np.float32), alive[start : start + _BLOCK_ROWS]

    @property
    def rows(self) -> int:
        """Dead ones too."""
        return len(self._keys)

    def _chosen(self, allowed: Mask | None) -> Mask | None:
        if allowed is None:
            return self._alive if self._dead else None
        return self._alive & allowed if self._dead else allowed
