from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bindery.collections import Collection, Item, Store
from bindery.collections.filters import parse_filter
from bindery.collections.local import LocalCollection
from bindery.errors import InvalidFilter
from bindery.limits import Limits
from tests.collections.items import DIMENSION, FIELDS, item, vector
from tests.collections.plain import holds

LIMITS = Limits()

# Values that a careless translation into SQL gets wrong: quotes, wild cards, case, accents beyond the first plane, numbers
# that are not exact in binary, the same instant in two time zones.
_WORDS = st.sampled_from(["", "a", "A", "ab", "a%", "a_", "a*", "a'b", '"', "é", "😀", "😀x", "hall", "null", "1"])
_INTEGERS = st.one_of(st.integers(-3, 3), st.sampled_from([2**53 + 1, 2**63 - 1, -(2**63)]))
_NUMBERS = st.one_of(st.integers(-3, 3), st.sampled_from([0.1, 0.2, 0.1 + 0.2, 0.3, -0.0, 1e300, 5e-324, 2**53 + 1]))
_DATES = st.sampled_from(
    ["2026-01-01", "2026-01-01T00:00:00Z", "2026-01-01T02:00:00+02:00", "2025-12-31T23:59:59.999999", "0001-01-01", "9999-12-31T23:59Z"]
)
_SECONDS = st.one_of(st.none(), st.sampled_from([0, 0.5, 1, 2.25]))
_VALUES: Mapping[str, st.SearchStrategy[Any]] = {
    "place": _WORDS, "count": _INTEGERS, "weight": _NUMBERS, "fresh": st.booleans(), "taken": _DATES,
    "id": st.sampled_from(["item-0", "item-1", "item", "x"]), "modality": st.sampled_from(["text", "image", "IMAGE"]),
    "uri": _WORDS, "start": _NUMBERS, "end": _NUMBERS,
}  # fmt: skip
_WORDY = ("place", "id", "modality", "uri")


def _metadata() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={name: st.one_of(st.none(), _VALUES[name]) for name in FIELDS})


@st.composite
def _tests(draw: st.DrawFn) -> dict[str, Any]:
    name = draw(st.sampled_from(sorted(_VALUES)))
    operators = ["eq", "ne", "in", "exists"]
    if name != "fresh":
        operators += ["lt", "lte", "gt", "gte"]
    if name in _WORDY:
        operators += ["prefix"]
    chosen = draw(st.lists(st.sampled_from(operators), min_size=1, max_size=2, unique=True))
    values = {"in": st.lists(_VALUES[name], max_size=3), "exists": st.booleans()}
    return {name: {operator: draw(values.get(operator, _VALUES[name])) for operator in chosen}}


_FILTERS = st.recursive(
    _tests(),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"not": inner}),
        st.fixed_dictionaries({"and": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"or": st.lists(inner, min_size=1, max_size=3)}),
    ),
    max_leaves=6,
)


@given(filter=_FILTERS, rows=st.lists(st.tuples(_metadata(), st.one_of(st.none(), _WORDS.filter(bool)), _SECONDS), min_size=1, max_size=6))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sql_finds_what_the_grammar_says(collection: LocalCollection, filter: dict[str, Any], rows: list[tuple[Any, Any, Any]]) -> None:
    _check_against_the_grammar(collection, filter, rows)


def _check_against_the_grammar(collection: Collection, filter: dict[str, Any], rows: list[tuple[Any, Any, Any]]) -> None:
    collection.delete(filter={"id": {"exists": True}})
    items = [
        Item(f"item-{index}", ("text", "image")[index % 2], vector(index), uri, start, None, metadata)
        for index, (metadata, uri, start) in enumerate(rows)
    ]
    assert {result.status for result in collection.upsert(items)} == {"created"}
    found = {each.id for each in collection.page(100, filter=filter).items}
    assert found == {each.id for each in items if holds(filter, each)}


@given(filter=_FILTERS, rows=st.lists(st.tuples(_metadata(), st.one_of(st.none(), _WORDS.filter(bool)), _SECONDS), min_size=1, max_size=6))
@example(
    filter={"count": {"in": [-(2**63), 7]}},
    rows=[({"count": -(2**63)}, None, None), ({"count": 7}, None, None), ({"count": 8}, None, None)],
)
@example(filter={"not": {"count": {"in": [-(2**63)]}}}, rows=[({"count": -(2**63)}, None, None), ({}, None, None)])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_milvus_finds_it_too(in_milvus: Collection, filter: dict[str, Any], rows: list[tuple[Any, Any, Any]]) -> None:
    _check_against_the_grammar(in_milvus, filter, rows)


def test_datetimes_compare_as_instants(collection: LocalCollection) -> None:
    collection.upsert([item(1, metadata={"taken": "2026-03-01T23:30:00-05:00"})])
    assert collection.page(filter={"taken": {"eq": "2026-03-02T04:30:00Z"}}).items
    assert not collection.page(filter={"taken": {"lt": "2026-03-02"}}).items


@pytest.mark.parametrize(
    ("filter", "told"),
    [
        ({"color": {"eq": "red"}}, "id, modality, uri, start, end, place, count"),
        ({"place": {"like": "x"}}, "eq, ne, in"),
        ({"count": {"prefix": "x"}}, "integer"),
        ({"fresh": {"lt": True}}, "boolean"),
        ({"count": {"eq": "7"}}, "whole number"),
        ({"count": {"eq": True}}, "whole number"),
        ({"count": {"eq": 2**63}}, "whole number"),
        ({"weight": {"eq": 10**400}}, "finite"),
        ({"weight": {"eq": float("nan")}}, "finite"),
        ({"place": {"eq": None}}, "string"),
        ({"place": {"eq": "a\0b"}}, "NUL"),
        ({"place": {"eq": "\ud800"}}, "surrogate"),
        ({"taken": {"eq": "yesterday"}}, "2026-03-01T12:00:00Z"),
        ({"place": {"exists": "yes"}}, "true or false"),
        ({"place": {"in": "yard"}}, "list"),
        ({"place": {"in": ["x"] * (LIMITS.filter_values + 1)}}, str(LIMITS.filter_values)),
        ({"place": "yard"}, '{"eq": value}'),
        ({"place": {}}, '{"eq": value}'),
        ({"and": []}, "at least one"),
        ({"and": {"place": {"eq": "x"}}}, "list"),
        ({"not": []}, "object"),
        ({}, "empty"),
        ({"or": [{"place": {"eq": str(i)}} for i in range(257)]}, "256 clauses"),
    ],
)
def test_a_wrong_filter_says_what_is_wrong(filter: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        parse_filter(filter, FIELDS, LIMITS)  # type: ignore[arg-type]
    assert told in caught.value.detail


def test_a_filter_has_a_greatest_depth() -> None:
    filter: dict[str, Any] = {"place": {"eq": "x"}}
    for _ in range(LIMITS.filter_depth - 1):
        filter = {"not": filter}
    assert parse_filter(filter, FIELDS, LIMITS)  # type: ignore[arg-type]
    with pytest.raises(InvalidFilter, match=str(LIMITS.filter_depth)):
        parse_filter({"not": filter}, FIELDS, LIMITS)  # type: ignore[arg-type]


def test_the_largest_filter_that_is_taken_also_runs(collection: LocalCollection) -> None:
    collection.upsert([item(1)])
    clauses = [{"place": {"in": [f"{i}-{j}" for j in range(LIMITS.filter_values // 255)]}} for i in range(255)]
    assert [found.id for found in collection.page(filter={"or": [*clauses, {"count": {"eq": 1}}]}).items] == ["item-1"]


def test_an_unknown_field_is_an_error_even_in_an_empty_collection(tmp_path: Path) -> None:
    with Store(tmp_path) as store, pytest.raises(InvalidFilter, match="place"):
        store.create("empty", space="s", dimension=DIMENSION, bundle="b").delete(filter={"place": {"eq": "x"}})
