"""Traces: what a request's time went into, as spans for those who collect them. Off unless a setting says where they go.

The spans are made afterwards, from the times that the exchange and the engine take anyway: work is never slower for being watched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Protocol, cast

from starlette.datastructures import Headers

from bindery.extras import needing
from bindery.settings import Settings

ITEMS_SHOWN = 64  # of one request; the collector shall not be flooded by one batch of texts


@dataclass(frozen=True, slots=True)
class Stretch:
    """A named part of a request's time; ``start`` and ``end`` on `time.monotonic`'s clock."""

    name: str
    start: float
    end: float
    attributes: Mapping[str, str | int | bool] = field(default_factory=dict)
    error: str | None = None  # its code
    parts: tuple[Stretch, ...] = ()


class Traces(Protocol):
    def add(self, headers: Headers, request: Stretch) -> None:
        """Send one request's spans on their way; does not wait. A `traceparent` among the headers becomes the parent."""

    def close(self) -> None:
        """Send what is left; may take seconds."""


def open_traces(settings: Settings) -> Traces | None:
    """Where spans go by the settings, or None. Raises `InvalidParameter` when the extra `tracing` is not installed."""
    if settings.otlp_endpoint is None:
        return None
    with needing("tracing", "BINDERY_OTLP_ENDPOINT"):
        module = import_module("service.otlp")
    return cast(Traces, module.Otlp.to(settings.otlp_endpoint))


def stages(end: float, timings_ms: Mapping[str, float], batch: int) -> tuple[Stretch, ...]:
    """An item's own stages, one after the other up to ``end``; none when it was not computed for this request."""
    found: list[Stretch] = []
    for name in ("infer", "queue", "decode"):
        start = end - timings_ms.get(name, 0.0) / 1000
        if start < end:
            found.append(Stretch(name, start, end, {"bindery.batch": batch} if name == "infer" else {}))
        end = start
    return tuple(reversed(found))
