"""A checked filter → one boolean expression of Milvus.

Negations are pushed down to the comparisons, so that nothing depends on what a Milvus makes of NULL inside `not`: an item
that lacks a field answers no to each comparison, and yes to its opposite, in every version.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bindery.collections.fields import FieldValue
from bindery.collections.filters import Compare, Condition, Join, Not

EVERYTHING = 'id != ""'
NOTHING = 'id == ""'
_ALWAYS_THERE = frozenset({"id", "modality"})
_ORDER = {"eq": "==", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
_ESCAPED = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_LOWEST = -(2**63)


def to_expression(condition: Condition, columns: Mapping[str, str]) -> str:
    """``columns``: the column of each field that a filter may name."""
    return _expression(condition, columns, negated=False)


def among(column: str, values: Iterable[str]) -> str:
    """That a text column has one of some values."""
    return f"{column} in [{', '.join(map(text, values))}]"


def all_of(*expressions: str) -> str:
    """That all of them hold; empty ones do."""
    given = [expression for expression in expressions if expression]
    return given[0] if len(given) == 1 else " and ".join(f"({expression})" for expression in given)


def text(value: str) -> str:
    """A string in quotes."""
    return f'"{value.translate(_ESCAPED)}"'


def below_after(prefix: str) -> str | None:
    """The lowest text above all that begin with ``prefix``, in the order of code points; None when there is none."""
    while prefix:
        code = ord(prefix[-1]) + 1
        if code <= 0x10FFFF:
            return prefix[:-1] + chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)  # surrogates are no characters
        prefix = prefix[:-1]
    return None


def _expression(condition: Condition, columns: Mapping[str, str], *, negated: bool) -> str:
    match condition:
        case Not(part):
            return _expression(part, columns, negated=not negated)
        case Join(how, parts):
            word = how if not negated else {"and": "or", "or": "and"}[how]
            return "(" + f" {word} ".join(_expression(part, columns, negated=negated) for part in parts) + ")"
        case Compare(field, "exists", (there,)):
            return _exists(field, columns[field], there != negated)
        case Compare(field, "ne", values):
            return _compared(Compare(field, "eq", values), columns[field], negated=not negated)
        case Compare():
            return _compared(condition, columns[condition.field], negated=negated)


def _exists(field: str, column: str, wanted: bool) -> str:
    if field in _ALWAYS_THERE:
        return EVERYTHING if wanted else NOTHING
    return f"{column} is not null" if wanted else f"{column} is null"


def _compared(test: Compare, column: str, *, negated: bool) -> str:
    expression = _test(test, column)
    if not negated:
        return expression
    if expression == NOTHING:
        return EVERYTHING
    if test.field in _ALWAYS_THERE:
        return f"(not ({expression}))"
    return f"({column} is null or (not ({expression})))"


def _test(test: Compare, column: str) -> str:
    """Never true of an item that lacks the field."""
    if test.operator == "in":
        return _one_of(column, test.values)
    (value,) = test.values
    if test.operator == "prefix":
        # Two comparisons, not LIKE: there is no character in a value that needs care here.
        above = below_after(str(value))
        upper = "" if above is None else f" and {column} < {text(above)}"
        return f"({column} >= {text(str(value))}{upper})"
    return f"({column} {_ORDER[test.operator]} {_literal(value)})"


def _one_of(column: str, values: Sequence[FieldValue]) -> str:
    plain = [value for value in values if not _is_lowest(value)]
    ways = [f"{column} in [{', '.join(map(_literal, plain))}]"] if plain else []
    if len(plain) < len(values):  # lists take literals only, and that number has none
        ways.append(f"{column} == {_literal(_LOWEST)}")
    return f"({' or '.join(ways)})" if ways else NOTHING


def _is_lowest(value: FieldValue) -> bool:
    return isinstance(value, int) and value == _LOWEST


def _literal(value: FieldValue) -> str:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    # A minus is an operator on the number after it, and this number is none of 64 bits.
    return f"({_LOWEST + 1} - 1)" if _is_lowest(value) else repr(value)
