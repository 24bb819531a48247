"""Requests of many items against the engine's seats, with encoders that a test can hold."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from starlette.datastructures import Headers

from bindery.bundle import open_bundle
from bindery.engine.embedded import Embedded
from bindery.engine.engine import Engine, EnginePolicy
from bindery.errors import BinderyError, EmptyMedia, InvalidHeader, QueueFull
from bindery.limits import Limits
from bindery.media.fetch import UrlPolicy
from bindery.settings import Settings
from service.embedding import embed_items
from service.exchange import Exchange
from service.inputs import Item
from service.remote import Fetcher, policy_of
from tests.engine.peers import Peers

LIMITS = Limits(queue_items=4)


def exchange(priority: str) -> Exchange:
    policy: UrlPolicy = policy_of(Settings())
    begun = Exchange.begin(Headers({}), Fetcher(policy, LIMITS))
    begun.read(Headers({"X-Priority": priority}), LIMITS)
    return begun


def items(*values: str | BinderyError) -> list[Item]:
    return [Item(f"{number}.txt", "text", value) for number, value in enumerate(values)]


async def test_a_batch_request_finds_less_room_and_one_without_room_takes_none_of_it(toy_bundle: Path) -> None:
    peers = Peers("text")
    engine = Engine(open_bundle(toy_bundle), LIMITS, EnginePolicy(threads=1, decode_workers=1), peers)
    await engine.start()
    peers["text"].open.clear()
    busy = asyncio.create_task(engine.embed("text", "busy"))
    await asyncio.sleep(0.05)
    with pytest.raises(QueueFull):
        await embed_items(engine, items("a", "b", "c"), exchange("batch"))
    assert engine.queue.seats == 1
    waiting = asyncio.create_task(embed_items(engine, items("a", EmptyMedia("empty"), "b", "c"), exchange("interactive")))
    await asyncio.sleep(0.05)
    assert engine.queue.seats == 4
    peers["text"].open.set()
    outcomes = await waiting
    await busy
    assert [isinstance(one, Embedded) for one in outcomes] == [True, False, True, True]
    assert engine.queue.seats == 0
    await engine.stop(1)


def test_a_priority_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidHeader, match="interactive or batch"):
        exchange("urgent")
