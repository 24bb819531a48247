"""Names of collections, aliases and label sets, and a definition in words."""

from __future__ import annotations

import re

from bindery.collections.model import Definition
from bindery.errors import InvalidParameter

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_LABEL_SET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_MAX_DIMENSION = 65_536


def check_name(name: str, what: str) -> None:
    """Raises `InvalidParameter` unless a collection or an alias (``what``) may be called so."""
    if not _NAME.fullmatch(name):
        raise InvalidParameter(
            f"{what} name {name!r} is not usable: lower-case letters, digits, _ and -, at most 63, no sign first", pointer="/name"
        )


def check_label_set_name(name: str) -> None:
    """Raises `InvalidParameter`."""
    if not _LABEL_SET_NAME.fullmatch(name):
        raise InvalidParameter(
            f"label set name {name!r} is not usable: letters, digits, . _ and -, at most 63, no sign first", pointer="/name"
        )


def check_dimension(dimension: int, most: int = _MAX_DIMENSION) -> None:
    """Raises `InvalidParameter`."""
    if not 1 <= dimension <= most:
        raise InvalidParameter(f"dimension is {dimension}; it must be 1 to {most}", pointer="/dimension")


def told(definition: Definition) -> str:
    fields = ", ".join(f"{name}: {kind}" for name, kind in definition.fields.items()) or "none"
    return f"space {definition.space}, dimension {definition.dimension}, bundle {definition.bundle!r}, fields {fields}"
