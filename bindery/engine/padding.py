"""Items of one batch by their length, so that short ones are not computed as long as the longest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")

_SHORT = 8
"""Lengths up to this go together: a run of the graph for each of them would cost more than their padding."""
_STRETCH = 1.5


def alike(items: Iterable[T], length: Callable[[T], int]) -> list[list[T]]:
    """``items`` in groups, the shortest first; none is padded to more than half again its length, or to 8."""
    groups: list[list[T]] = []
    longest = -1.0
    for item in sorted(items, key=length):
        if length(item) > longest:
            groups.append([])
            longest = max(_SHORT, _STRETCH * length(item))
        groups[-1].append(item)
    return groups
