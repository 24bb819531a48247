"""The flat index: every vector of one modality in memory, searched exactly by FAISS.

Rows are held as the float16 that the catalog stores, so a score is the inner product of the float32 query with exactly what is on
disk. Positions mean nothing outside: rows are known by their key, and keys only grow, so the key array stays sorted and
one binary search finds a row. Deleted rows are masked and squeezed out when they are a quarter of all.
Not thread-safe: `LocalCollection` lets many searches or one change at it.
"""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from bindery.vectors import Vectors

Keys = NDArray[np.int64]
Mask = NDArray[np.bool_]


class FlatIndex:
    def __init__(self, dimension: int) -> None:
        self._width = 2 * dimension  # bytes of one row
        self._faiss = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        self._keys: Keys = np.empty(0, dtype=np.int64)
        self._alive: Mask = np.empty(0, dtype=np.bool_)
        self._dead = 0

    def __len__(self) -> int:
        return len(self._keys) - self._dead

    @property
    def memory_bytes(self) -> int:
        return len(self._keys) * (self._width + self._keys.itemsize + 1)

    def put(self, keys: Keys, codes: NDArray[np.uint8]) -> None:
        """Add rows, or change those whose key is known. ``keys`` ascend; new ones are greater than all before. codes: ``(n, 2 d)``."""
        places = np.searchsorted(self._keys, keys)
        fresh = places == len(self._keys)
        if not fresh.all():
            assert (self._keys[places[~fresh]] == keys[~fresh]).all(), "a row key came out of order. This is a bug."
            self._codes()[places[~fresh]] = codes[~fresh]
        if fresh.any():
            added = np.ascontiguousarray(codes[fresh])
            self._faiss.add_sa_codes(added)
            self._keys = np.concatenate([self._keys, keys[fresh]])
            self._alive = np.concatenate([self._alive, np.ones(len(added), dtype=np.bool_)])

    def remove(self, keys: Keys) -> None:
        """Take rows out; keys that are not here are no error."""
        self._alive &= ~self.mask(keys)
        self._dead = len(self._alive) - int(self._alive.sum())
        if self._dead > len(self._keys) // 4:
            self._squeeze()

    def mask(self, keys: Keys) -> Mask:
        """Which positions hold one of ``keys`` (in any order)."""
        chosen = np.zeros(len(self._keys), dtype=np.bool_)
        if len(self._keys):
            places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            chosen[places[self._keys[places] == keys]] = True
        return chosen

    def allowed(self, mask: Mask | None) -> int:
        """How many rows a search with this mask looks at."""
        return len(self) if mask is None else int((self._alive & mask).sum())

    def search(self, query: Vectors, top_k: int, allowed: Mask | None) -> tuple[NDArray[np.float32], Keys]:
        """The best ``top_k`` of the allowed rows (None: all) for ``query`` ``(d,)``, by score, then by key."""
        chosen = self._alive if allowed is None else self._alive & allowed
        most = int(chosen.sum())
        wanted = min(top_k, most)
        if wanted == 0:
            return np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64)
        whole = most == len(self._keys)
        # FAISS keeps any of several rows that share the last score. Ask for more until the last score is a lower one.
        fetch = min(wanted + 1, most)
        scores, places = self._scan(query, fetch, None if whole else chosen)
        while fetch < most and scores[-1] == scores[wanted - 1]:
            fetch = min(4 * fetch, most)
            scores, places = self._scan(query, fetch, None if whole else chosen)
        keys = self._keys[places]
        order = np.lexsort((keys, -scores))[:wanted]
        return scores[order], keys[order]

    def _scan(self, query: Vectors, fetch: int, chosen: Mask | None) -> tuple[NDArray[np.float32], Keys]:
        faiss.omp_set_num_threads(1)  # a pool per calling thread gains nothing for one query and multiplies threads
        parameters: faiss.SearchParameters | None = None
        if chosen is not None:
            bits = np.packbits(chosen, bitorder="little")
            selector = faiss.IDSelectorBitmap(len(chosen), faiss.swig_ptr(bits))
            parameters = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]  # the wheel's stubs know no fields
        scores, places = self._faiss.search(query[None, :], fetch, params=parameters)
        found = places[0] >= 0
        return scores[0][found], places[0][found]

    def _squeeze(self) -> None:
        kept = np.ascontiguousarray(self._codes()[self._alive])
        self._faiss.reset()
        if len(kept):
            self._faiss.add_sa_codes(kept)
        self._keys = self._keys[self._alive]
        self._alive = np.ones(len(self._keys), dtype=np.bool_)
        self._dead = 0

    def _codes(self) -> NDArray[np.uint8]:
        """FAISS's own rows as a writable view, valid until rows are added."""
        rows = len(self._keys)
        flat: NDArray[np.uint8] = faiss.rev_swig_ptr(self._faiss.codes.data(), rows * self._width)
        return flat.reshape(rows, self._width)  # (n * 2 d,) -> (n, 2 d)
