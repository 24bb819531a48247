"""Items into vectors: all at once through the engine, each with its own vector or its own error."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import structlog

from bindery.engine.admission import Seat
from bindery.engine.embedded import Embedded
from bindery.engine.engine import Engine
from bindery.engine.lanes import Priority
from bindery.errors import BinderyError, InternalError
from bindery.scratch import scratch_folder
from service.exchange import Exchange
from service.fronts.far import FarEngine
from service.inputs import Item, as_text
from service.problems import Several
from service.remote import Fetcher, Remote

Outcome = Embedded | BinderyError

log = structlog.get_logger(__name__)


async def embed_items(engine: Engine | FarEngine, items: Sequence[Item], exchange: Exchange) -> list[Outcome]:
    """One outcome an item, in order. Notes the stages' times on the exchange.

    A full queue refuses the request as a whole (`QueueFull`): an answer of which half says "later" helps nobody.
    """
    if isinstance(engine, FarEngine):
        return await engine.embed_items(items, exchange, cut=False)
    async with arrived(engine, items, exchange) as here:
        return await _embed_all(engine, here, exchange)


@asynccontextmanager
async def arrived(engine: Engine, items: Sequence[Item], exchange: Exchange) -> AsyncIterator[Sequence[Item]]:
    """The items with what lay at their URLs in place of these, or with the error of fetching it. The files live as long as the context."""
    if not any(isinstance(item.value, Remote) for item in items):
        yield items
        return
    deadline = exchange.deadline(engine.limits)
    with scratch_folder("urls") as folder:
        yield await asyncio.gather(*(_arrived(item, engine, exchange.fetcher, folder, deadline) for item in items))


async def _embed_all(engine: Engine, items: Sequence[Item], exchange: Exchange) -> list[Outcome]:
    deadline = exchange.deadline(engine.limits)
    exchange.admitted(len(items))
    embed = partial(_embed, engine, exchange=exchange, deadline=deadline)
    if len(items) == 1:  # the engine itself decides, after a look into its cache
        outcomes = [await embed(items[0])]
    else:
        wanted = [(item.modality, item.value) for item in items if not isinstance(item.value, BinderyError | Remote)]
        with engine.seats(wanted, deadline=deadline, priority=exchange.priority) as seats:
            left = iter(seats)
            placed = [(item, None if isinstance(item.value, BinderyError) else next(left)) for item in items]
            outcomes = await asyncio.gather(*(embed(item, seat=seat) for item, seat in placed))
    for outcome in outcomes:
        if isinstance(outcome, Embedded):
            exchange.spent(outcome.timings_ms)
    return outcomes


def settle(items: Sequence[Item], outcomes: Sequence[Outcome], on_error: Literal["partial", "fail"] = "partial") -> None:
    """Raise what the whole request fails with, if it does: every item failed, or one did and ``on_error`` is ``fail``.

    Raises `Several`: the first failed item's status, every failed item by its pointer.
    """
    failed = [(item.pointer, outcome) for item, outcome in zip(items, outcomes, strict=True) if isinstance(outcome, BinderyError)]
    if failed and (on_error == "fail" or len(failed) == len(items)):
        raise Several(failed)


def total_usage(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """The items' usage added up; whole numbers stay whole on the wire."""
    total: dict[str, float] = {}
    for outcome in outcomes:
        if isinstance(outcome, Embedded):
            for unit, amount in outcome.usage.items():
                total[unit] = total.get(unit, 0.0) + amount
    return {unit: int(amount) if float(amount).is_integer() else round(amount, 3) for unit, amount in total.items()}


async def _embed(engine: Engine, item: Item, *, exchange: Exchange, deadline: float, seat: Seat | None = None) -> Outcome:
    began = time.monotonic()
    outcome = await _outcome(engine, item, deadline, exchange.priority, seat)
    exchange.embedded(engine.name, item.modality, began, outcome)
    return outcome


async def _outcome(engine: Engine, item: Item, deadline: float, priority: Priority, seat: Seat | None) -> Outcome:
    if isinstance(item.value, BinderyError):
        return item.value
    try:
        assert not isinstance(item.value, Remote), "an item must have arrived before it is embedded. This is a bug."
        return await engine.embed(item.modality, item.value, item.options, deadline=deadline, priority=priority, seat=seat)
    except BinderyError as error:
        return error
    except Exception:
        # One item's surprise must not take its neighbours along.
        log.exception("unhandled error of an item", modality=item.modality, name=item.name)
        return InternalError("something went wrong in the server; the request id finds it in the log")


async def _arrived(item: Item, engine: Engine, fetcher: Fetcher, folder: Path, deadline: float) -> Item:
    if not isinstance(item.value, Remote):
        return item
    try:
        source = await fetcher.fetch(item.value, folder, deadline)
        is_text = engine.bundle.modality(item.modality).kind == "text"
        return replace(item, value=as_text(source, engine.limits) if is_text else source)
    except BinderyError as error:
        return replace(item, value=error)
