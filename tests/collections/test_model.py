"""Any sequence of operations on a store: two handles on one directory, as two processes would have, agree with plain dictionaries.

Hypothesis draws the operations and shrinks a sequence that fails to its shortest form, printed as Python to run again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule, run_state_machine_as_test

from bindery.collections import Collection, Item, Query, Store
from bindery.collections import catalog as catalog_module
from bindery.collections.local import LocalCollection
from bindery.collections.tiers import Tiers
from bindery.errors import UnknownCollection, UnknownItem
from tests.collections.items import DIMENSION, FIELDS, MODALITIES, item, vector
from tests.collections.plain import PlainCollection, contents, told

_NAMES = ("red", "blue")
_ALIAS = "live"
_NUMBERS = 40
_PLACES = ("yard", "hall", "roof")
_TIERS = Tiers(exact_rows=3, always_exact=2, segment_rows=30, dead_share=0.6)  # so that two dozen items are sealed and merged

_ids = st.integers(0, 24).map("id-{}".format)
_handles = st.integers(0, 1)
_names = st.sampled_from([*_NAMES, _ALIAS])
_numbers = st.integers(0, _NUMBERS - 1)
_items = st.builds(
    lambda id, number, uri: replace(item(number, id), uri=uri), _ids, _numbers, st.sampled_from([None, "a.bin", "b.bin", "c.bin"])
)
_tests: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.sampled_from(_PLACES).map(lambda place: {"place": {"eq": place}}),
    st.lists(st.sampled_from(_PLACES), max_size=2).map(lambda places: {"place": {"in": places}}),
    _numbers.map(lambda number: {"count": {"lt": number}}),
    st.booleans().map(lambda fresh: {"fresh": {"ne": fresh}}),
    st.sampled_from(["id-1", "id-", "x"]).map(lambda prefix: {"id": {"prefix": prefix}}),
    st.booleans().map(lambda there: {"uri": {"exists": there}}),
    st.integers(1, 28).map(lambda day: {"taken": {"gte": f"2026-01-{day:02}T12:00:00Z"}}),
)
_filters = st.one_of(
    _tests,
    st.tuples(_tests, _tests).map(lambda two: {"or": list(two)}),
    st.tuples(_tests, _tests).map(lambda two: {"and": [two[0], {"not": two[1]}]}),
)
_queries = st.builds(
    Query,
    _numbers.map(vector),
    st.integers(1, 30),
    st.one_of(st.none(), st.lists(st.sampled_from(MODALITIES), min_size=1, max_size=2, unique=True).map(tuple)),
    st.one_of(st.none(), _filters),
    st.sampled_from([None, None, "uri", "place"]),
    st.one_of(st.none(), st.just(0.1)),
    st.sampled_from([0, 0, 3]),
    exact=st.booleans(),
    exclude_ids=st.one_of(st.just(()), st.lists(_ids, max_size=3).map(tuple)),
)


class StoreModel(RuleBasedStateMachine):
    snapshots = Bundle("snapshots")

    @initialize(numbers=st.permutations(range(_NUMBERS)))
    def begin(self, numbers: list[int]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._stores = [self._opened(), self._opened()]
        self._plain: dict[str, PlainCollection] = {}
        self._alias: str | None = None
        for name in _NAMES:
            self._make(self._stores[0], name)
            self.upsert(0, name, [item(number, f"id-{place}") for place, number in enumerate(numbers[:25])])

    @rule(handle=_handles, name=_names, items=st.lists(_items, min_size=6, max_size=24))
    def upsert(self, handle: int, name: str, items: list[Item]) -> None:
        real, plain = self._both(handle, name)
        if real is not None:
            assert [result.status for result in real.upsert(items)] == plain.upsert(items)

    @rule(handle=_handles, name=_names, ids=st.lists(_ids, max_size=6))
    def delete(self, handle: int, name: str, ids: list[str]) -> None:
        real, plain = self._both(handle, name)
        if real is not None:
            assert real.delete(ids=ids) == plain.delete(ids=ids)

    @rule(handle=_handles, name=_names, filter=_filters)
    def delete_where(self, handle: int, name: str, filter: Mapping[str, Any]) -> None:
        real, plain = self._both(handle, name)
        if real is not None:
            assert real.delete(filter=filter) == plain.delete(filter=filter)

    @rule(handle=_handles, name=_names, id=_ids, place=st.sampled_from([*_PLACES, None]))
    def patch(self, handle: int, name: str, id: str, place: str | None) -> None:
        real, plain = self._both(handle, name)
        if real is None:
            return
        if id in plain.items:
            real.patch(id, {"place": place})
            plain.patch(id, {"place": place})
        else:
            with pytest.raises(UnknownItem):
                real.patch(id, {"place": place})

    @rule(handle=_handles, name=_names, id=_ids)
    def get(self, handle: int, name: str, id: str) -> None:
        real, plain = self._both(handle, name)
        if real is None:
            return
        if id in plain.items:
            assert told(real.get(id)) == told(plain.items[id])
        else:
            with pytest.raises(UnknownItem):
                real.get(id)

    @rule(handle=_handles, name=_names, limit=st.integers(1, 9), filter=st.one_of(st.none(), _filters))
    def pages(self, handle: int, name: str, limit: int, filter: Mapping[str, Any] | None) -> None:
        real, plain = self._both(handle, name)
        if real is None:
            return
        page = real.page(limit, None, filter)
        seen = list(page.items)
        while page.cursor is not None:
            page = real.page(limit, page.cursor, filter)
            seen += page.items
        assert [one.id for one in seen] == plain.page(filter)

    @rule(handle=_handles, name=_names, query=_queries)
    def search(self, handle: int, name: str, query: Query) -> None:
        real, plain = self._both(handle, name)
        if real is not None:
            plain.check_search(query, real.search(query).hits)

    @rule(handle=_handles, name=_names, reopened=st.booleans())
    def find_each(self, handle: int, name: str, reopened: bool) -> None:
        """Ask with the vector of every item that may ever have been there: none may be missing, and none come back."""
        if reopened:
            self.reopen(handle)
        real, plain = self._both(handle, name)
        if real is not None:
            for number in range(_NUMBERS):
                query = Query(vector(number), 2, exact=True)
                plain.check_search(query, real.search(query).hits)

    @rule(handle=_handles, name=_names, ids=st.lists(_ids, max_size=3))
    def seal_and_delete(self, handle: int, name: str, ids: list[str]) -> None:
        """What is deleted right after the sealing is in the new segment's files."""
        real, plain = self._both(handle, name)
        if isinstance(real, LocalCollection):
            real.seal()
            assert real.delete(ids=ids) == plain.delete(ids=ids)

    @rule(target=snapshots, handle=_handles, name=st.sampled_from(_NAMES))
    def snapshot(self, handle: int, name: str) -> tuple[str, dict[str, Item]]:
        taken = self._stores[handle].snapshot(name)
        assert taken.items == len(self._plain[name].items)
        return taken.name, dict(self._plain[name].items)

    @rule(handle=_handles, name=st.sampled_from(_NAMES), snapshot=snapshots)
    def restore(self, handle: int, name: str, snapshot: tuple[str, dict[str, Item]]) -> None:
        self._stores[handle].restore(name, snapshot[0])
        self._plain[name] = PlainCollection(snapshot[1])

    @rule(handle=_handles, snapshot=consumes(snapshots))
    def delete_snapshot(self, handle: int, snapshot: tuple[str, dict[str, Item]]) -> None:
        self._stores[handle].delete_snapshot(snapshot[0])

    @rule(handle=_handles, name=st.sampled_from(_NAMES))
    def flip(self, handle: int, name: str) -> None:
        self._stores[handle].put_alias(_ALIAS, name)
        self._alias = name

    @rule(handle=_handles, name=st.sampled_from(_NAMES))
    def make_anew(self, handle: int, name: str) -> None:
        self._stores[handle].delete(name)
        self._make(self._stores[1 - handle], name)

    def reopen(self, handle: int) -> None:
        self._stores[handle].close()
        self._stores[handle] = self._opened()

    @invariant()
    def both_handles_count_the_same(self) -> None:
        for store in self._stores:
            assert {one.definition.name: len(one) for one in store.collections()} == {n: len(one.items) for n, one in self._plain.items()}
            assert store.aliases() == ({_ALIAS: self._alias} if self._alias else {})

    def teardown(self) -> None:
        try:
            for store in self._stores:
                for name, plain in self._plain.items():
                    assert contents(store.get(name)) == plain.told()
        finally:
            for store in self._stores:
                store.close()
            self._folder.cleanup()

    def _opened(self) -> Store:
        return Store(Path(self._folder.name), tiers=_TIERS)

    def _make(self, store: Store, name: str) -> None:
        store.create(name, space="s", dimension=DIMENSION, bundle="b", fields=FIELDS)
        self._plain[name] = PlainCollection()

    def _both(self, handle: int, name: str) -> tuple[Collection | None, PlainCollection]:
        """The collection of a name and its model; none for an alias that leads nowhere."""
        target = self._alias if name == _ALIAS else name
        if target is None:
            with pytest.raises(UnknownCollection):
                self._stores[handle].get(name)
            return None, PlainCollection()
        return self._stores[handle].get(name), self._plain[target]


@pytest.fixture(autouse=True)
def _short_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that an index also falls too far behind to follow each deletion, and is loaded again."""
    monkeypatch.setattr(catalog_module, "KEPT_GENERATIONS", 5)


def _run(examples: int, steps: int) -> None:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    phases = (Phase.generate, Phase.shrink)
    run_state_machine_as_test(
        StoreModel,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            phases=phases,
            suppress_health_check=checks,
        ),
    )


def test_a_few_histories_agree_with_dictionaries() -> None:
    _run(examples=20, steps=40)


@pytest.mark.slow
def test_many_histories_agree_with_dictionaries() -> None:
    _run(examples=400, steps=80)
