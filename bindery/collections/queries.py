"""What may be asked of a collection: the checks of a query that hold wherever its items are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bindery.collections.filters import Condition, parse_filter
from bindery.collections.model import Definition, Query
from bindery.errors import InvalidParameter
from bindery.limits import Limits

OF_EVERY_ITEM = ("uri", "modality")
"""What a search can group by without a declaration."""


def check_query(query: Query, definition: Definition, limits: Limits) -> Condition | None:
    """The query's filter as a checked tree. Raises `InvalidParameter`, `InvalidFilter`; the vector is not looked at."""
    if not 1 <= query.top_k <= limits.top_k:
        raise InvalidParameter(f"top_k is {query.top_k}; it must be 1 to {limits.top_k}", pointer="/top_k")
    if query.offset < 0 or query.offset + query.top_k > limits.search_depth:
        raise InvalidParameter(
            f"offset is {query.offset}; offset + top_k must be at most {limits.search_depth} (limit search_depth)", pointer="/offset"
        )
    if query.group_by is not None and query.group_by not in (*OF_EVERY_ITEM, *definition.fields):
        known = ", ".join([*OF_EVERY_ITEM, *definition.fields])
        raise InvalidParameter(f"group_by is {query.group_by!r}; this collection can group by {known}", pointer="/group_by")
    return check_filter(query.filter, definition, limits)


def check_filter(filter: Mapping[str, Any] | None, definition: Definition, limits: Limits) -> Condition | None:
    """Raises `InvalidFilter`."""
    return None if filter is None else parse_filter(filter, definition.fields, limits)


def check_page(limit: int, limits: Limits) -> None:
    """Raises `InvalidParameter`."""
    if not 1 <= limit <= limits.page_items:
        raise InvalidParameter(f"limit is {limit}; it must be 1 to {limits.page_items}", pointer="/limit")


def check_one_way(ids: object, filter: object) -> None:
    """Raises `InvalidParameter` unless exactly one of a deletion's two ways is given."""
    if (ids is None) == (filter is None):
        raise InvalidParameter("deleting takes ids or a filter, exactly one of them", pointer="/ids")
