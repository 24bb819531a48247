"""Readiness tells the truth: a graph that hangs, a loop that dies, a vector that moved, and the way back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bindery.bundle import Bundle, open_bundle
from bindery.engine import batching, supervision
from bindery.engine.engine import Engine, EnginePolicy
from bindery.engine.events import Event, Failed, LoopRestarted
from bindery.errors import EngineDown, InternalError
from bindery.limits import Limits
from tests.engine.peers import Peers
from tests.toybundle import build_toy_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(build_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy"))


@asynccontextmanager
async def started(bundle: Bundle, peers: Peers, canary_s: float = 0.0) -> AsyncIterator[tuple[Engine, list[Event]]]:
    events: list[Event] = []
    engine = Engine(bundle, Limits(), EnginePolicy(threads=1, decode_workers=1, canary_s=canary_s), peers)
    await engine.start()
    engine.listen(events.append)
    try:
        yield engine, events
    finally:
        for peer in peers.by_name.values():
            peer.open.set()
        await engine.stop(5)


async def until_trouble(engine: Engine, wanted: bool) -> str | None:
    """Ask as a probe does, until the answer is the wanted one."""
    until = time.monotonic() + 5
    while (engine.trouble() is not None) != wanted:
        assert time.monotonic() < until, f"trouble stayed {engine.trouble()!r}"
        await asyncio.sleep(0.01)
    return engine.trouble()


async def test_a_graph_that_hangs_is_named_and_forgotten_when_it_returns(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "STUCK_S", 0.2)
    monkeypatch.setattr(supervision, "GIVE_UP_TIMES", 1000.0)
    peers = Peers("text")
    async with started(bundle, peers) as (engine, _):
        assert engine.trouble() is None
        peers["text"].open.clear()
        hanging = asyncio.create_task(engine.embed("text", "a"))
        await asyncio.sleep(0.1)
        assert engine.trouble() is None  # busy is not stuck
        trouble = await until_trouble(engine, True)
        assert trouble is not None
        assert "'text'" in trouble
        assert engine.running_s > 0.2
        assert engine.state == "ready"  # not dead: it may come back
        with pytest.raises(EngineDown, match="'text' has lasted"):  # at once, and not at its deadline
            await engine.embed("text", "b")
        with pytest.raises(EngineDown), engine.seats([("text", "c"), ("text", "d")]):
            raise AssertionError("a seat was given")
        peers["text"].open.set()
        await hanging
        await until_trouble(engine, False)
        assert engine.running_s == 0
        assert (await engine.embed("text", "b")).vector.shape == (8,)


async def test_a_run_as_slow_as_the_last_ones_is_not_stuck(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "STUCK_S", 0.01)
    peers = Peers("text")
    async with started(bundle, peers) as (engine, _):
        engine._costs.measured("text", 100.0, 0, decodes=False)
        peers["text"].delay_s = 0.2
        slow = asyncio.create_task(engine.embed("text", "a"))
        await asyncio.sleep(0.1)
        assert engine.running_s > 0.01
        assert engine.trouble() is None
        await slow


async def test_a_loop_that_dies_fails_its_items_and_is_begun_again_once(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    peers = Peers("text")
    async with started(bundle, peers) as (engine, events):

        async def dies(value: str) -> None:
            with monkeypatch.context() as patch:
                patch.setattr(batching, "alike", lambda *_: 1 / 0)
                with pytest.raises(EngineDown):
                    await engine.embed("text", value)

        await dies("a")
        assert [event for event in events if isinstance(event, LoopRestarted)] == [LoopRestarted("text")]
        assert engine.state == "ready"
        assert (await engine.embed("text", "a")).vector.shape == (8,)
        await dies("b")
        await asyncio.sleep(0)
        assert engine.state == "failed"
        with pytest.raises(EngineDown):
            await engine.embed("image", "b")
    assert [event.code for event in events if isinstance(event, Failed)] == ["engine_down", "engine_down"]


async def test_a_graph_that_panics_fails_its_item_and_no_loop(bundle: Bundle) -> None:
    peers = Peers("text")
    async with started(bundle, peers) as (engine, events):
        peers["text"].crashes = 1
        with pytest.raises(InternalError):
            await engine.embed("text", "a")
        assert (await engine.embed("text", "a")).vector.shape == (8,)
        assert not [event for event in events if isinstance(event, LoopRestarted)]
        assert engine.state == "ready"


async def test_a_canary_that_moved_is_trouble_until_it_sings_as_before(bundle: Bundle) -> None:
    peers = Peers("audio")
    async with started(bundle, peers) as (engine, _):
        for _ in range(20):  # every modality has had its turn
            assert engine.trouble() is None
            await asyncio.sleep(0.01)
        peers["audio"].drift = 1e-3
        trouble = await until_trouble(engine, True)
        assert trouble is not None
        assert "'audio'" in trouble
        peers["audio"].drift = 0.0
        await until_trouble(engine, False)


async def test_the_canary_is_looked_at_only_when_due_and_idle(bundle: Bundle) -> None:
    peers = Peers("text")
    async with started(bundle, peers, canary_s=3600) as (engine, _):
        runs = len(peers["text"].batches)
        for _ in range(20):
            engine.trouble()
            await asyncio.sleep(0.005)
        assert len(peers["text"].batches) == runs
    peers = Peers("image", "text")
    async with started(bundle, peers) as (engine, _):
        peers["text"].open.clear()
        busy = asyncio.create_task(engine.embed("text", "a"))
        await asyncio.sleep(0.05)
        runs = len(peers["image"].batches)
        for _ in range(20):
            engine.trouble()
            await asyncio.sleep(0.005)
        assert len(peers["image"].batches) == runs
        peers["text"].open.set()
        await busy


async def test_a_graph_that_cannot_run_fails_the_start(bundle: Bundle) -> None:
    engine = Engine(bundle, Limits(), EnginePolicy(threads=1, decode_workers=1), Peers("depth", rows_each=2))
    with pytest.raises(InternalError, match="2 vectors for 1"):
        await engine.start()
    assert engine.state == "failed"
    await engine.stop(0)
