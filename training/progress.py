"""What a run says of itself while it goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """A stage's name, how far it is, and numbers worth seeing."""

    stage: str
    done: int
    total: int
    numbers: dict[str, float]


Report = Callable[[Progress], None]
