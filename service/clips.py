"""Items of which some are cut into clips: those go window by window, the others as ever, and the outcomes keep the items' order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog

from bindery.engine.clips import embed_clips
from bindery.engine.engine import Engine
from bindery.errors import BinderyError, InternalError, InvalidParameter
from bindery.media.source import Source
from bindery.scratch import scratch_folder
from bindery.spec import PartOptions
from service.embedding import Outcome, arrived, embed_items
from service.exchange import Exchange
from service.fronts.far import FarEngine
from service.inputs import Item
from service.spool import MEMORY_BYTES, writing

_SIDE_BY_SIDE = 2  # media of one request; each has several windows in work

log = structlog.get_logger(__name__)


async def embed_or_cut(engine: Engine | FarEngine, items: Sequence[Item], exchange: Exchange) -> list[Outcome]:
    """As `embed_items`; the outcome of an item with ``clip_seconds`` is its `EmbeddedClips`."""
    if isinstance(engine, FarEngine):
        return await engine.embed_items(items, exchange, cut=True)
    async with arrived(engine, items, exchange) as here:
        return await _embed_or_cut(engine, here, exchange)


async def _embed_or_cut(engine: Engine, items: Sequence[Item], exchange: Exchange) -> list[Outcome]:
    cut = [item for item in items if takes_clips(item)]
    if not cut:
        return await embed_items(engine, items, exchange)
    room = asyncio.Semaphore(_SIDE_BY_SIDE)
    exchange.admitted(len(cut))
    whole = [item for item in items if not takes_clips(item)]
    of_cut, of_whole = await asyncio.gather(
        asyncio.gather(*(_embed(engine, item, exchange, room) for item in cut)), embed_items(engine, whole, exchange) if whole else _none()
    )
    for outcome in of_cut:
        if not isinstance(outcome, BinderyError):
            exchange.spent(outcome.timings_ms)
    left, right = iter(of_cut), iter(of_whole)
    return [next(left) if takes_clips(item) else next(right) for item in items]


def takes_clips(item: Item) -> bool:
    return isinstance(item.options, PartOptions) and item.options.clip_seconds is not None


async def _embed(engine: Engine, item: Item, exchange: Exchange, room: asyncio.Semaphore) -> Outcome:
    began = time.monotonic()
    outcome = await _outcome(engine, item, exchange, room)
    exchange.embedded(engine.name, item.modality, began, outcome)
    return outcome


async def _outcome(engine: Engine, item: Item, exchange: Exchange, room: asyncio.Semaphore) -> Outcome:
    if isinstance(item.value, BinderyError):
        return item.value
    if not isinstance(item.value, Source) or not isinstance(item.options, PartOptions):
        return InvalidParameter("clips are made of a file that is sent with the request", pointer=item.pointer or None)
    try:
        async with room, _on_disk(item.value) as source:
            deadline = exchange.deadline(engine.limits)
            return await embed_clips(engine, item.modality, source, item.options, deadline=deadline, priority=exchange.priority)
    except BinderyError as error:
        return error
    except Exception:
        # One item's surprise must not take its neighbours along.
        log.exception("unhandled error of an item", modality=item.modality, name=item.name)
        return InternalError("something went wrong in the server; the request id finds it in the log")


@asynccontextmanager
async def _on_disk(source: Source) -> AsyncIterator[Source]:
    """The source as a file when it is big: its bytes would otherwise travel to a decoder once for each window."""
    if source.data is None or len(source.data) <= MEMORY_BYTES:
        yield source
        return
    with scratch_folder("clips") as folder:
        path = folder / "medium"
        with writing():
            await asyncio.to_thread(path.write_bytes, source.data)
        yield Source(source.name, path=path)


async def _none() -> list[Outcome]:
    return []
