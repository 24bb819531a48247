"""Which rows a filter allows: its tests are asked of the catalog one by one, and joined here as bit maps over row keys.

Joining in SQL takes several times as long when many rows are allowed. What a filter allowed is remembered until
the collection changes.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from bindery.collections import catalog, registry
from bindery.collections.filters import Compare, Condition, Join, Not
from bindery.collections.flat import Keys, Mask
from bindery.collections.registry import Versions

_REMEMBERED = 32
_REMEMBERED_BYTES = 64 * 1024 * 1024
_FEW = 16  # below one row in so many it is cheaper to look each up


class AllowedRows:
    """Row keys as a map over the range of keys that a collection has; what is outside of the range is not allowed."""

    def __init__(self, first: int, bits: Mask) -> None:
        self._first = first
        self._bits = bits
        self.count = int(np.count_nonzero(bits))
        self._keys: Keys | None = None
        self._fixed: dict[int, Mask] = {}

    def __len__(self) -> int:
        return self.count

    @property
    def nbytes(self) -> int:
        return self._bits.nbytes + sum(mask.nbytes for mask in list(self._fixed.values()))

    @property
    def keys(self) -> Keys:
        """Ascending."""
        if self._keys is None:
            self._keys = np.flatnonzero(self._bits) + self._first
        return self._keys

    def is_small_beside(self, rows: int) -> bool:
        return self.count * _FEW < rows

    def of_fixed(self, number: int, keys: Keys) -> Mask:
        """As `of`, remembered for keys that never change and have a number of their own."""
        found = self._fixed.get(number)
        if found is None:
            found = self._fixed[number] = self.of(keys)
        return found

    def of(self, keys: Keys) -> Mask:
        """Which of ``keys`` (in any order) are allowed."""
        if not len(keys) or not len(self._bits):
            return np.zeros(len(keys), dtype=np.bool_)
        places = keys - self._first
        if places.min() >= 0 and places.max() < len(self._bits):
            return self._bits[places]
        inside = (places >= 0) & (places < len(self._bits))
        return inside & self._bits[np.where(inside, places, 0)]


class Filters:
    """The filters of one collection. Any thread may ask."""

    def __init__(self, collection_id: int) -> None:
        self._collection_id = collection_id
        self._guard = threading.Lock()
        self._known: OrderedDict[Condition, AllowedRows] = OrderedDict()
        self._versions: Versions | None = None

    def allowed(self, db: sqlite3.Connection, condition: Condition, versions: Versions) -> AllowedRows:
        """The rows that ``db``, which sees the collection at ``versions``, has for the condition."""
        with self._guard:
            if self._versions == versions and condition in self._known:
                self._known.move_to_end(condition)
                return self._known[condition]
        first, last = registry.key_range(db, self._collection_id)
        found = AllowedRows(first, self._bits(db, condition, first, last - first + 1))
        with self._guard:
            if self._versions != versions:
                self._versions, self._known = versions, OrderedDict()
            self._known[condition] = found
            while len(self._known) > _REMEMBERED or sum(one.nbytes for one in self._known.values()) > _REMEMBERED_BYTES:
                self._known.popitem(last=False)
        return found

    def _bits(self, db: sqlite3.Connection, condition: Condition, first: int, length: int) -> NDArray[np.bool_]:
        match condition:
            case Not(part):
                return ~self._bits(db, part, first, length)
            case Join(how, parts):
                join = np.logical_and if how == "and" else np.logical_or
                return reduce(join, (self._bits(db, part, first, length) for part in parts))
            case Compare(field, "ne", values):
                return ~self._bits(db, Compare(field, "eq", values), first, length)
            case Compare(field, "exists", (False,)):
                return ~self._bits(db, Compare(field, "exists", (True,)), first, length)
            case Compare():
                bits = np.zeros(length, dtype=np.bool_)
                bits[catalog.keys_passing(db, self._collection_id, condition) - first] = True
                return bits
