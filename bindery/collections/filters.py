"""Filters: the JSON grammar → a checked tree → one SQL condition with parameters.

    {"and": [F, ...]}   {"or": [F, ...]}   {"not": F}   {"field": {"eq" "ne" "in" "lt" "lte" "gt" "gte" "prefix" "exists": value}}

Several operators on a field, and several entries of one object, must all hold. An item that lacks the field answers no to every
operator but `ne` (which is the opposite of `eq`) and `exists: false`. Fields are `id`, `modality`, `uri`, `start`, `end`
and those the collection declares; any other name is an error, never an empty result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from bindery.collections.fields import BUILTIN, FieldValue, typed
from bindery.collections.model import FieldType
from bindery.errors import InvalidFilter
from bindery.limits import Limits

Operator = Literal["eq", "ne", "in", "lt", "lte", "gt", "gte", "prefix", "exists"]
_OPERATORS: Mapping[FieldType, tuple[Operator, ...]] = {
    "keyword": ("eq", "ne", "in", "lt", "lte", "gt", "gte", "prefix", "exists"),
    "boolean": ("eq", "ne", "in", "exists"),
    "integer": ("eq", "ne", "in", "lt", "lte", "gt", "gte", "exists"),
    "number": ("eq", "ne", "in", "lt", "lte", "gt", "gte", "exists"),
    "datetime": ("eq", "ne", "in", "lt", "lte", "gt", "gte", "exists"),
}
_ORDER = {"eq": "=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
_COLUMNS = {"id": "items.id", "modality": "items.modality", "uri": "items.uri", "start": "items.start_s", "end": "items.end_s"}


@dataclass(frozen=True, slots=True)
class Compare:
    """One field against typed values: one, or many for `in`; for `exists` a single boolean."""

    field: str
    operator: Operator
    values: tuple[FieldValue, ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: Condition


@dataclass(frozen=True, slots=True)
class Join:
    how: Literal["and", "or"]
    parts: tuple[Condition, ...]


Condition: TypeAlias = Compare | Not | Join


def parse_filter(document: Mapping[str, Any], fields: Mapping[str, FieldType], limits: Limits) -> Condition:
    """The checked tree. Raises `InvalidFilter` naming the place, the fields there are and what the operator takes."""
    return _Parser({**BUILTIN, **fields}, limits).condition(document, "", 1)


class _Parser:
    def __init__(self, fields: Mapping[str, FieldType], limits: Limits) -> None:
        self._fields = fields
        self._limits = limits
        self._clauses = 0
        self._values = 0

    def condition(self, document: object, at: str, depth: int) -> Condition:
        if depth > self._limits.filter_depth:
            raise InvalidFilter(f"the filter is nested deeper than {self._limits.filter_depth} (limit filter_depth)", pointer=at or "/")
        if not isinstance(document, Mapping):
            raise InvalidFilter(f"a filter is an object, not {type(document).__name__}", pointer=at or "/")
        if not document:
            raise InvalidFilter("the filter is empty; leave it out to take everything", pointer=at or "/")
        parts = tuple(self._entry(str(name), value, f"{at}/{name}", depth) for name, value in document.items())
        return parts[0] if len(parts) == 1 else Join("and", parts)

    def _entry(self, name: str, value: object, at: str, depth: int) -> Condition:
        if name == "not":
            return Not(self.condition(value, at, depth + 1))
        if name in ("and", "or"):
            if not isinstance(value, list | tuple) or not value:
                raise InvalidFilter(f"{name} takes a list of at least one filter", pointer=at)
            parts = tuple(self.condition(part, f"{at}/{index}", depth + 1) for index, part in enumerate(value))
            return Join(cast(Literal["and", "or"], name), parts)
        return self._field(name, value, at)

    def _field(self, name: str, tests: object, at: str) -> Condition:
        if name not in self._fields:
            raise InvalidFilter(
                f"no field {name!r} to filter by; there are {', '.join(self._fields)} (others are declared when the collection is created)",
                pointer=at,
            )
        if not isinstance(tests, Mapping) or not tests:
            raise InvalidFilter(f'field {name!r} takes an object such as {{"eq": value}}', pointer=at)
        parts = tuple(self._compare(name, str(operator), value, f"{at}/{operator}") for operator, value in tests.items())
        return parts[0] if len(parts) == 1 else Join("and", parts)

    def _compare(self, name: str, operator: str, value: object, at: str) -> Compare:
        self._clauses += 1
        if self._clauses > self._limits.filter_clauses:
            raise InvalidFilter(f"the filter has more than {self._limits.filter_clauses} clauses (limit filter_clauses)", pointer=at)
        wanted = self._fields[name]
        known = next((allowed for allowed in _OPERATORS[wanted] if allowed == operator), None)
        if known is None:
            raise InvalidFilter(
                f"field {name!r} is a {wanted}: it takes {', '.join(_OPERATORS[wanted])}, not {ascii(operator)[:40]}", pointer=at
            )
        if known == "in":
            if not isinstance(value, list | tuple):
                raise InvalidFilter("in takes a list of values", pointer=at)
            self._values += len(value)
            if self._values > (most := self._limits.filter_values):
                raise InvalidFilter(f"the lists of the filter have more than {most} values (limit filter_values)", pointer=at)
            return Compare(name, known, tuple(self._typed(name, one, wanted, f"{at}/{index}") for index, one in enumerate(value)))
        return Compare(name, known, (self._typed(name, value, "boolean" if known == "exists" else wanted, at),))

    @staticmethod
    def _typed(name: str, value: object, wanted: FieldType, at: str) -> FieldValue:
        try:
            return typed(value, wanted)
        except ValueError as error:
            raise InvalidFilter(f"field {name!r}: {error}", pointer=at) from error


def to_sql(condition: Condition, collection_id: int) -> tuple[str, list[FieldValue]]:
    """A condition over the table ``items`` that is never NULL, and its parameters."""
    match condition:
        case Not(part):
            text, parameters = to_sql(part, collection_id)
            return f"NOT {text}", parameters
        case Join(how, parts):
            texts, lists = zip(*(to_sql(part, collection_id) for part in parts), strict=True)
            return "(" + f" {how.upper()} ".join(texts) + ")", [value for values in lists for value in values]
        case Compare(field, "ne", values):
            text, parameters = to_sql(Compare(field, "eq", values), collection_id)
            return f"NOT {text}", parameters
        case Compare(field, "exists", (False,)):
            text, parameters = to_sql(Compare(field, "exists", (True,)), collection_id)
            return f"NOT {text}", parameters
        case Compare(field, operator, values) if field in _COLUMNS:
            test, parameters = _test(_COLUMNS[field], operator, values)
            return f"COALESCE({test}, 0)", parameters
        case Compare(field, operator, values):
            test, parameters = _test("value", operator, values)
            rows = f"SELECT item_key FROM field_values WHERE collection_id = ? AND name = ? AND {test}"
            return f"(items.key IN ({rows}))", [collection_id, field, *parameters]


def keys_sql(compare: Compare, collection_id: int) -> tuple[str, list[FieldValue]]:
    """A query for the row keys that pass one test, neither `ne` nor `exists: false`, as ``key``; and its parameters."""
    if compare.field in _COLUMNS:
        test, parameters = _test(_COLUMNS[compare.field], compare.operator, compare.values)
        return f"SELECT key FROM items WHERE collection_id = ? AND {test}", [collection_id, *parameters]
    test, parameters = _test("value", compare.operator, compare.values)
    return (
        f"SELECT item_key AS key FROM field_values WHERE collection_id = ? AND name = ? AND {test}",
        [collection_id, compare.field, *parameters],
    )


def _test(column: str, operator: Operator, values: Sequence[FieldValue]) -> tuple[str, list[FieldValue]]:
    if operator == "exists":
        return f"({column} IS NOT NULL)", []
    if operator == "in":
        return f"({column} IN ({', '.join('?' * len(values))}))", list(values)
    if operator == "prefix":
        # Not LIKE or GLOB: there is no character in a value that needs care here.
        prefix = str(values[0])
        return f"(substr({column}, 1, ?) = ?)", [len(prefix), prefix]
    return f"({column} {_ORDER[operator]} ?)", [values[0]]
