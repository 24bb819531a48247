"""Typed metadata fields: one value as given → the value that filters compare. Datetimes become instants."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from bindery.collections.model import FIELD_TYPES, FieldType
from bindery.errors import InvalidParameter

FieldValue = str | int | float | bool
BUILTIN: Mapping[str, FieldType] = {"id": "keyword", "modality": "keyword", "uri": "keyword", "start": "number", "end": "number"}
"""What every item has, so it needs no declaration."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,62}")
_RESERVED = frozenset({*BUILTIN, "and", "or", "not"})
_MAX_FIELDS = 64
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INT64 = range(-(2**63), 2**63)


def check_fields(fields: Mapping[str, str]) -> dict[str, FieldType]:
    """The declaration of a collection's fields. Raises `InvalidParameter` naming the field."""
    if len(fields) > _MAX_FIELDS:
        raise InvalidParameter(f"{len(fields)} fields are declared; at most {_MAX_FIELDS} are taken", pointer="/fields")
    checked: dict[str, FieldType] = {}
    for name, wanted in fields.items():
        if not _NAME.fullmatch(name) or name in _RESERVED:
            raise InvalidParameter(
                f"field name {name!r} is not usable: letters, digits, _ . and -, at most 63, and none of {', '.join(sorted(_RESERVED))}",
                pointer="/fields",
            )
        found = next((known for known in FIELD_TYPES if known == wanted), None)
        if found is None:
            raise InvalidParameter(f"field {name!r} has type {wanted!r}; types are {', '.join(FIELD_TYPES)}", pointer=f"/fields/{name}")
        checked[name] = found
    return checked


def typed(value: object, wanted: FieldType) -> FieldValue:
    """The comparable form: datetime → microseconds since 1970 (int), number → float, the others as they are.

    Raises `ValueError` that says what is expected, for the caller to name the field.
    """
    if wanted == "keyword" and isinstance(value, str):
        return clean_text(value)
    if wanted == "boolean" and isinstance(value, bool):
        return value
    if wanted == "integer" and isinstance(value, int) and not isinstance(value, bool) and value in _INT64:
        return value
    if wanted == "number" and isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value)
    if wanted == "datetime" and isinstance(value, str):
        return _instant(value)
    raise ValueError(f"expected {_EXPECTED[wanted]}, got {_shown(value)}")


def clean_text(value: str) -> str:
    """The text unless SQLite could not keep it. Raises `ValueError` on NUL and on lone surrogates."""
    if "\0" in value:
        raise ValueError("the text contains a NUL character")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("the text contains half a surrogate pair, which is no character") from None
    return value


_EXPECTED: Mapping[FieldType, str] = {
    "keyword": "a string",
    "boolean": "true or false",
    "integer": "a whole number of 64 bits",
    "number": "a finite number",
    "datetime": "a date and time as in 2026-03-01T12:00:00Z",
}


def _number(value: int | float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"expected {_EXPECTED['number']}, got {_shown(value)}")
    return number


def _instant(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"expected {_EXPECTED['datetime']}, got {_shown(text)}") from None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)  # no offset given: UTC
    return (aware - _EPOCH) // _MICROSECOND


def _shown(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value not in _INT64:
        return f"a number of {value.bit_length()} bits"
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."
