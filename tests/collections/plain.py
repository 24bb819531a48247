"""The plainest collection there is: a dictionary, and every search compares every item. What the real one must agree with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

import numpy as np

from bindery.collections import Collection, Item, Query
from bindery.collections.records import merged
from bindery.vectors import Vectors, normalize
from tests.collections.items import FIELDS

TOLERANCE = 1e-5
"""Between a score of FAISS and numpy's, which add in another order."""


class Scored(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def score(self) -> float: ...


class Found(NamedTuple):
    id: str
    score: float


def holds(filter: Mapping[str, Any], candidate: Item) -> bool:
    """The grammar of filters said once more, in Python."""
    return all(_entry_holds(name, value, candidate) for name, value in filter.items())


class PlainCollection:
    """Items by id, in order of creation. An item that changes its modality is created anew, as in the real one."""

    def __init__(self, items: Mapping[str, Item] | None = None) -> None:
        self.items: dict[str, Item] = dict(items or {})

    def upsert(self, items: Sequence[Item]) -> list[str]:
        """What became of each item. Of several with one id the last is stored, in the place of the first."""
        last = {item.id: index for index, item in enumerate(items)}
        statuses = ["superseded"] * len(items)
        for id, index in last.items():
            item, known = items[index], self.items.get(id)
            if known is not None and known.modality != item.modality:
                del self.items[id]
            self.items[id] = replace(item, vector=stored(item.vector))
            statuses[index] = "created" if known is None else "updated"
        return statuses

    def patch(self, id: str, metadata: Mapping[str, Any]) -> None:
        self.items[id] = replace(self.items[id], metadata=merged(self.items[id].metadata, metadata))

    def delete(self, *, ids: Iterable[str] | None = None, filter: Mapping[str, Any] | None = None) -> int:
        gone = set(ids) & set(self.items) if ids is not None else {one.id for one in self.items.values() if holds(filter or {}, one)}
        self.items = {id: one for id, one in self.items.items() if id not in gone}
        return len(gone)

    def page(self, filter: Mapping[str, Any] | None = None) -> list[str]:
        """The ids of all items that a walk over the pages must show, in order."""
        return [one.id for one in self.items.values() if filter is None or holds(filter, one)]

    def scores(self, query: Query) -> dict[str, float]:
        """The cosine of every item that the query may find."""
        allowed = [
            one
            for one in self.items.values()
            if (query.modalities is None or one.modality in query.modalities)
            and (query.filter is None or holds(query.filter, one))
            and one.id not in query.exclude_ids
        ]
        if not allowed:
            return {}
        cosines = np.stack([one.vector for one in allowed]) @ normalize(query.vector)
        cosines = np.clip(cosines, -1.0, 1.0)  # float16 rows are only nearly of unit length
        return {one.id: float(cosine) for one, cosine in zip(allowed, cosines, strict=True)}

    def check_search(self, query: Query, hits: Sequence[Scored]) -> None:
        """``hits`` are the answer: no more, no less, in order, each with its own score. Items of equal score may change places.

        Only a query that asks for it (``exact``) must find the best; the others may miss some by code, but never fall short.
        """
        scores = self.scores(query)
        wanted = list(scores.values())
        if query.group_by is not None:
            best: dict[object, float] = {}
            for id, score in scores.items():
                group = self._group(id, query.group_by)
                best[group] = max(best.get(group, -2.0), score)
            wanted = list(best.values())
            found = [self._group(hit.id, query.group_by) for hit in hits]
            assert len(set(found)) == len(found), f"a group came twice: {found}"
        wanted = sorted(wanted, reverse=True)[query.offset : query.offset + query.top_k]
        if query.min_score is not None:
            wanted = [score for score in wanted if score >= query.min_score]
        assert len({hit.id for hit in hits}) == len(hits), "an item came twice"
        assert [hit.id for hit in hits if hit.id not in scores] == [], "found what the query excludes, or what is not there"
        assert np.allclose([hit.score for hit in hits], [scores[hit.id] for hit in hits], atol=TOLERANCE), "a score that is not the item's"
        assert len(hits) == len(wanted), f"{len(hits)} hits of {len(wanted)}"
        found_scores = [hit.score for hit in hits]
        assert found_scores == sorted(found_scores, reverse=True), "out of order"
        if query.exact:
            assert np.allclose(found_scores, wanted, atol=TOLERANCE), "a better item was missed"

    def check_contents(self, collection: Collection) -> None:
        """The collection holds these items, whole, in this order, and no other."""
        assert contents(collection) == self.told()
        assert len(collection) == len(self.items)

    def told(self) -> dict[str, tuple[object, ...]]:
        return {id: told(one) for id, one in self.items.items()}

    def _group(self, id: str, field: str) -> object:
        one = self.items[id]
        value = one.uri if field == "uri" else one.metadata.get(field)
        return ("alone", id) if value is None else ("group", value)


def contents(collection: Collection) -> dict[str, tuple[object, ...]]:
    """Everything in the collection, by id."""
    found: dict[str, tuple[object, ...]] = {}
    cursor = None
    while True:
        page = collection.page(500, cursor)
        found |= {one.id: told(one) for one in page.items}
        cursor = page.cursor
        if cursor is None:
            return found


def told(one: Item) -> tuple[object, ...]:
    """All of an item, comparable."""
    metadata = tuple(sorted((name, value) for name, value in one.metadata.items()))
    return one.modality, one.uri, one.start, one.end, metadata, one.content_hash, one.vector.tobytes()


def stored(vector: Vectors) -> Vectors:
    return normalize(vector).astype(np.float16).astype(np.float32)


def _entry_holds(name: str, value: Any, candidate: Item) -> bool:
    if name == "not":
        return not holds(value, candidate)
    if name == "and":
        return all(holds(part, candidate) for part in value)
    if name == "or":
        return any(holds(part, candidate) for part in value)
    found = candidate.metadata.get(name) if name in FIELDS else getattr(candidate, name)
    return all(_test_holds(name, operator, found, wanted) for operator, wanted in value.items())


def _test_holds(name: str, operator: str, found: Any, wanted: Any) -> bool:
    if operator == "exists":
        return bool((found is not None) == wanted)
    if operator == "ne":
        return not _test_holds(name, "eq", found, wanted)
    if found is None:
        return False
    if operator == "in":
        return any(_test_holds(name, "eq", found, one) for one in wanted)
    if operator == "prefix":
        return bool(found.startswith(wanted))
    left, right = _comparable(name, found), _comparable(name, wanted)
    return bool({"eq": left == right, "lt": left < right, "lte": left <= right, "gt": left > right, "gte": left >= right}[operator])


def _comparable(name: str, value: Any) -> Any:
    if name == "taken":
        moment = datetime.fromisoformat(value)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return float(value) if name in ("weight", "start", "end") else value
