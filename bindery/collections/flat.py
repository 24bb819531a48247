"""The flat index: every vector of one modality in memory, searched exactly by FAISS.

Rows are held as the float16 that the catalog stores, so a score is the inner product of the float32 query with exactly what is on
disk. Positions mean nothing outside: rows are known by their key. Mostly keys come in order; a row that is written again after
it went into a segment comes out of order. Deleted rows are masked and squeezed out when they are a quarter of all.
Not thread-safe: `LocalCollection` lets many searches or one change at it.
"""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from bindery.collections.centring import evenly
from bindery.vectors import Vectors

Keys = NDArray[np.int64]
Mask = NDArray[np.bool_]


class FlatIndex:
    def __init__(self, dimension: int) -> None:
        self._width = 2 * dimension  # bytes of one row
        self._faiss = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        self._keys: Keys = np.empty(0, dtype=np.int64)
        self._alive: Mask = np.empty(0, dtype=np.bool_)
        self._order: NDArray[np.intp] | None = None  # of the keys, when they do not ascend
        self._dead = 0

    def __len__(self) -> int:
        return len(self._keys) - self._dead

    @property
    def memory_bytes(self) -> int:
        return len(self._keys) * (self._width + self._keys.itemsize + 1)

    def put(self, keys: Keys, codes: NDArray[np.uint8]) -> None:
        """Add rows, or change those whose key is known. ``keys`` are distinct; codes: ``(n, 2 d)``."""
        places, known = self._find(keys)
        if known.any():
            self._codes()[places[known]] = codes[known]
        if not known.all():
            added = np.ascontiguousarray(codes[~known])
            self._faiss.add_sa_codes(added)
            self._set(np.concatenate([self._keys, keys[~known]]), np.concatenate([self._alive, np.ones(len(added), dtype=np.bool_)]))

    def remove(self, keys: Keys) -> None:
        """Take rows out; keys that are not here are no error."""
        if not len(keys):
            return
        self._alive &= ~self.mask(keys)
        self._dead = len(self._alive) - int(np.count_nonzero(self._alive))
        if self._dead > len(self._keys) // 4:
            self._squeeze()

    @property
    def keys(self) -> Keys:
        """Of all its rows, dead ones too."""
        return self._keys

    def mask(self, keys: Keys) -> Mask:
        """Which positions hold one of ``keys`` (in any order)."""
        places, known = self._find(keys)
        chosen = np.zeros(len(self._keys), dtype=np.bool_)
        chosen[places[known]] = True
        return chosen

    def allowed(self, mask: Mask | None) -> int:
        """How many rows a search with this mask looks at."""
        return len(self) if mask is None else int(np.count_nonzero(self._alive & mask))

    def search(self, query: Vectors, top_k: int, allowed: Mask | None) -> tuple[NDArray[np.float32], Keys]:
        """The best ``top_k`` of the allowed rows (None: all) for ``query`` ``(d,)``, by score, then by key."""
        chosen = self._alive if self._dead else None
        if allowed is not None:
            chosen = self._alive & allowed
        return best(self._faiss, self._keys, query, top_k, chosen)

    def sample(self, count: int) -> Vectors:
        """At most ``count`` of its rows as float32, evenly spaced: ``(n, d)``."""
        return self._codes()[evenly(self._alive, count)].view("<f2").astype(np.float32)

    def _squeeze(self) -> None:
        kept = np.ascontiguousarray(self._codes()[self._alive])
        self._faiss.reset()
        if len(kept):
            self._faiss.add_sa_codes(kept)
        self._set(self._keys[self._alive], np.ones(len(self), dtype=np.bool_))
        self._dead = 0

    def _set(self, keys: Keys, alive: Mask) -> None:
        self._keys, self._alive = keys, alive
        self._order = None if len(keys) < 2 or (keys[1:] > keys[:-1]).all() else np.argsort(keys, kind="stable")

    def _find(self, keys: Keys) -> tuple[NDArray[np.intp], Mask]:
        """The position of each key, and whether it is here; a position means nothing where it is not."""
        if not len(self._keys):
            return np.zeros(len(keys), dtype=np.intp), np.zeros(len(keys), dtype=np.bool_)
        places = np.minimum(np.searchsorted(self._keys, keys, sorter=self._order), len(self._keys) - 1)
        if self._order is not None:
            places = self._order[places]
        return places, self._keys[places] == keys

    def _codes(self) -> NDArray[np.uint8]:
        """FAISS's own rows as a writable view, valid until rows are added."""
        rows = len(self._keys)
        flat: NDArray[np.uint8] = faiss.rev_swig_ptr(self._faiss.codes.data(), rows * self._width)
        return flat.reshape(rows, self._width)  # (n * 2 d,) -> (n, 2 d)


class Selection:
    """Chosen rows in the form that FAISS tests. Must live until the search with it is over."""

    def __init__(self, chosen: Mask) -> None:
        self._bits = np.packbits(chosen, bitorder="little")
        self.selector = faiss.IDSelectorBitmap(len(chosen), faiss.swig_ptr(self._bits))


def best(index: faiss.Index, keys: Keys, query: Vectors, top_k: int, chosen: Mask | None) -> tuple[NDArray[np.float32], Keys]:
    """The best ``top_k`` rows of an index that compares every row, by score, then by key. ``chosen``: only these (None: all)."""
    faiss.omp_set_num_threads(1)  # a pool per calling thread gains nothing for one query and multiplies threads
    most = len(keys) if chosen is None else int(np.count_nonzero(chosen))
    wanted = min(top_k, most)
    if wanted == 0:
        return np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64)
    selection = None if chosen is None or most == len(keys) else Selection(chosen)
    parameters = None if selection is None else faiss.SearchParameters(sel=selection.selector)  # type: ignore[call-arg]  # the wheel's stubs know no fields
    # FAISS keeps any of several rows that share the last score. Ask for more until the last score is a lower one.
    fetch = min(wanted + 1, most)
    while True:
        scores, places = index.search(query[None, :], fetch, params=parameters)
        if fetch == most or scores[0][-1] != scores[0][wanted - 1]:
            break
        fetch = min(4 * fetch, most)
    found = places[0] >= 0
    ranked = keys[places[0][found]]
    order = np.lexsort((ranked, -scores[0][found]))[:wanted]
    return scores[0][found][order], ranked[order]
