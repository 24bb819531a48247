"""A segment in memory: the codes of its rows, their keys, and which of them are still alive. The vectors stay on the disk.

Two ways to search: by code, the best of which are compared again as float16, and exactly, over all rows or some.
Not thread-safe towards `remove`; many searches may run at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from bindery.collections import segment_files
from bindery.collections.centring import evenly
from bindery.collections.flat import Keys, Mask, Selection, best
from bindery.collections.gpu import GpuRows
from bindery.collections.products import Linear
from bindery.collections.registry import SegmentRow
from bindery.collections.segment_files import ASKED, CODES, KEYS, VECTORS, SegmentDamaged
from bindery.vectors import Vectors

log = logging.getLogger(__name__)

_BLOCK_ROWS = 8192
_KEPT_PARAMETERS = 64
_CHECKED_AT_ONCE = 256 * 1024 * 1024
_COMPARED_IN_ORDER = 8
"""One row in so many: then passing over the others costs less than jumping to each."""
_TOGETHER_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Effort:
    """How much of a segment a search by code looks at.

    ``share``: of its lists; ``depth``: rows compared again; ``denoised``: whether the query is (see `denoising`).
    """

    share: float
    depth: int
    denoised: bool = True


class _Together(threading.local):
    """Rows of one width side by side, and FAISS's view of them. One a thread, kept."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[NDArray[np.uint8], faiss.IndexScalarQuantizer]] = {}

    def take(self, rows: NDArray[np.uint8], places: NDArray[np.int64]) -> faiss.IndexScalarQuantizer:
        """An index of the rows ``(n, 2 d)`` at ``places``, at most `_TOGETHER_ROWS`; good until the next call of this thread."""
        width = rows.shape[1]
        if width not in self._known:
            space = np.empty((_TOGETHER_ROWS, width), dtype=np.uint8)
            self._known[width] = space, _in_place(space, width // 2)
        space, index = self._known[width]
        np.take(rows, places, axis=0, out=space[: len(places)], mode="clip")  # "raise" would go through another copy
        index.ntotal = len(places)
        return index


_TOGETHER = _Together()


def _in_place(rows: NDArray[np.uint8], dimension: int) -> faiss.IndexScalarQuantizer:
    """An index that reads ``rows``, the bytes of float16, where they are. They must live as long as it does."""
    index = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    whole = faiss.MaybeOwnedVectorUInt8
    index.codes = whole.create_view(faiss.swig_ptr(rows), rows.nbytes, whole().owner)  # type: ignore[attr-defined]  # the stubs lack it
    index.ntotal = rows.size // (2 * dimension)
    return index


class Segment:
    """Raises `SegmentDamaged` when a file is missing or not as it was written.

    Vectors of more than `_CHECKED_AT_ONCE` bytes are checked later (`verify`), so that a search need not wait until all were read.
    """

    def __init__(self, folder: Path, row: SegmentRow, dimension: int, *, written_here: bool = False) -> None:
        """``written_here``: by this process, just now, so that its vectors need not be read once more to be checked."""
        self.row = row
        self._folder = folder
        whole = not written_here and row.files.get(VECTORS, (0, ""))[0] <= _CHECKED_AT_ONCE
        self.verified = written_here or whole
        self._asked: Linear | None = None  # segments that are small, or older than this, have none
        try:
            self._keys: Keys = np.fromfile(segment_files.check(folder, row.files, KEYS), dtype="<i8")
            self._vectors = np.memmap(segment_files.check(folder, row.files, VECTORS, whole=whole), dtype=np.uint8, mode="r")
            self._codes = faiss.read_index(str(segment_files.check(folder, row.files, CODES)))
            if ASKED in row.files:
                asked = np.fromfile(segment_files.check(folder, row.files, ASKED), dtype="<f4")
                self._asked = Linear(asked.reshape(dimension, dimension))
        except (OSError, RuntimeError) as error:  # FAISS's; or another process replaced the segment after the check, and swept it away
            raise SegmentDamaged(f"{folder} cannot be read: {error}") from error
        self.lists: int = self._codes.nlist  # type: ignore[attr-defined]  # an index that was read has no closer type
        # FAISS reads the mapped file in place; it must live as long as the index does.
        self._exact = _in_place(self._vectors, dimension)
        self._rows: NDArray[np.uint8] = self._vectors.reshape(len(self._keys), -1)  # (n * 2 d,) -> (n, 2 d)
        self._on_gpu: GpuRows | None = None
        self._alive: Mask = np.ones(len(self._keys), dtype=np.bool_)
        self._dead = 0
        self._living: Selection | None = None  # when some are dead, made at the first search
        self._parameters: dict[float, faiss.SearchParameters] = {}  # by the share of the lists

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
        if self._asked is not None:
            codes += self._asked.nbytes
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
            self._living = None

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
        chosen = self._chosen(allowed)
        if chosen is not None and int(np.count_nonzero(chosen)) * _COMPARED_IN_ORDER < len(chosen):
            return self._compared(query, np.flatnonzero(chosen), top_k)
        return best(self._exact, self._keys, query, top_k, chosen)

    def approximate(self, query: Vectors, top_k: int, allowed: Mask | None, effort: Effort) -> tuple[NDArray[np.float32], Keys, bool]:
        """As `search`, but only the best rows by code are compared. May find fewer than there are.

        Also whether what was found is well within the rows that were compared: if not, more may lie beyond them.
        """
        depth = max(effort.depth, top_k)
        places = self.by_code(query, depth, effort.share, allowed, denoised=effort.denoised)
        scores, keys = self._compared(query, np.sort(places), top_k)
        if allowed is None:
            return scores, keys, True
        ranks = np.flatnonzero(np.isin(places, np.searchsorted(self._keys, keys)))
        return scores, keys, len(places) < depth or not len(ranks) or bool(ranks[-1] * 2 < depth)

    def by_code(self, query: Vectors, depth: int, share: float, allowed: Mask | None = None, *, denoised: bool = True) -> NDArray[np.int64]:
        """Positions of the best ``depth`` of the allowed rows, by code alone, best first. ``denoised``: see `denoising`."""
        faiss.omp_set_num_threads(1)
        selection = self._selection(allowed)
        places = self._codes.search(self._of_codes(query, denoised), depth, params=self._scanning(share, selection))[1][0]
        return np.asarray(places[places >= 0])

    def to_gpu(self) -> None:
        """Have the vectors on a GPU, for `by_gpu`; when they do not fit, the log says so and it stays as it was."""
        try:
            self._on_gpu = GpuRows(self._exact.d, (rows for _, rows, _ in self.blocks()))
        except RuntimeError as error:
            log.warning("segment %s is scanned on the processor, it cannot be copied to the GPU: %s", self.row.folder, error)

    def by_gpu(self, query: Vectors, top_k: int) -> tuple[NDArray[np.float32], Keys] | None:
        """As `search` without a filter, on the GPU; None when it is not there, not able to, or broken."""
        if self._on_gpu is None:
            return None
        try:
            places = self._on_gpu.best(query, top_k + self._dead)
        except RuntimeError as error:
            log.warning("segment %s is scanned on the processor from now on, the GPU failed: %s", self.row.folder, error)
            self._on_gpu = None
            return None
        return None if places is None else self._compared(query, np.sort(places[self._alive[places]]), top_k)

    def lists_of(self, share: float) -> int:
        """How many lists a scan over that share of them looks at."""
        return max(1, round(share * self.lists))

    def lists_by_nearness(self, query: Vectors, *, denoised: bool = True) -> NDArray[np.int64]:
        """All lists, in the order in which a scan over a share of them takes them."""
        faiss.omp_set_num_threads(1)
        quantizer = self._codes.quantizer  # type: ignore[attr-defined]
        return np.asarray(quantizer.search(self._of_codes(query, denoised), self.lists)[1][0])

    def list_of_rows(self) -> NDArray[np.int64]:
        """The list that each row is in: ``(n,)``."""
        found = np.empty(len(self._keys), dtype=np.int64)
        for number in range(self.lists):
            inverted = self._codes.invlists  # type: ignore[attr-defined]
            size = inverted.list_size(number)
            if size:
                found[faiss.rev_swig_ptr(inverted.get_ids(number), size)] = number
        return found

    def _of_codes(self, query: Vectors, denoised: bool) -> Vectors:
        """What is asked of the codes for ``query`` ``(d,)``: ``(1, d)``."""
        return self._asked(query[None, :]) if denoised and self._asked is not None else query[None, :]

    def _compared(self, query: Vectors, places: NDArray[np.int64], top_k: int) -> tuple[NDArray[np.float32], Keys]:
        """The best ``top_k`` of the rows at ``places``, which ascend, exactly, by score, then by key.

        They are copied together first: comparing them where they lie waits for memory at each, and the copying does so less.
        """
        found = []
        for start in range(0, len(places), _TOGETHER_ROWS):
            some = places[start : start + _TOGETHER_ROWS]
            found.append(best(_TOGETHER.take(self._rows, some), self._keys[some], query, top_k, None))
        if len(found) == 1:
            return found[0]
        scores = np.concatenate([np.empty(0, dtype=np.float32), *(pair[0] for pair in found)])
        keys = np.concatenate([np.empty(0, dtype=np.int64), *(pair[1] for pair in found)])
        order = np.lexsort((keys, -scores))[:top_k]
        return scores[order], keys[order]

    def _selection(self, allowed: Mask | None) -> Selection | None:
        if allowed is not None:
            return Selection(self._alive & allowed if self._dead else allowed)
        if self._dead and self._living is None:
            self._living = Selection(self._alive)
        return self._living

    def _scanning(self, share: float, selection: Selection | None) -> faiss.SearchParameters:
        known = self._parameters.get(share) if selection is None else None
        if known is not None:
            return known
        selector = None if selection is None else selection.selector
        made = faiss.SearchParametersIVF(nprobe=self.lists_of(share), sel=selector)  # type: ignore[call-arg]  # the wheel's stubs know no fields
        if selection is None and len(self._parameters) < _KEPT_PARAMETERS:
            self._parameters[share] = made
        return made

    def blocks(self) -> Iterator[tuple[int, Vectors, Mask]]:
        """All rows as float32, some thousands at a time: position of the first, rows ``(n, d)``, which are alive."""
        alive = self._alive.copy()
        for start in range(0, len(self._keys), _BLOCK_ROWS):
            # By FAISS: in half of numpy's time.
            yield start, self._exact.sa_decode(self._rows[start : start + _BLOCK_ROWS]), alive[start : start + _BLOCK_ROWS]

    def sample(self, count: int) -> Vectors:
        """At most ``count`` of its rows as float32, evenly spaced: ``(n, d)``."""
        return self._rows[evenly(self._alive, count)].view("<f2").astype(np.float32)

    @property
    def rows(self) -> int:
        """Dead ones too."""
        return len(self._keys)

    def _chosen(self, allowed: Mask | None) -> Mask | None:
        if allowed is None:
            return self._alive if self._dead else None
        return self._alive & allowed if self._dead else allowed
