"""Each stage shows that it lives, and what hangs is named."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import numpy as np
import pytest

from bindery.bundle import Bundle, open_bundle
from bindery.engine import pool, supervision
from bindery.engine.admission import Costs
from bindery.engine.batching import Batcher
from bindery.engine.engine import Engine, EnginePolicy
from bindery.engine.heartbeat import Heartbeat
from bindery.engine.lanes import Lanes
from bindery.engine.pool import DecodePool
from bindery.engine.turns import Turns
from bindery.limits import Limits
from tests.engine.peers import Peers
from tests.fakeencoder import FakeEncoder
from tests.toybundle import build_toy_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(build_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy"))


async def grows(age_s: Callable[[], float]) -> None:
    first = age_s()
    assert first > 0
    await asyncio.sleep(0.02)
    assert age_s() > first


async def test_a_heartbeat_is_as_old_as_the_oldest_work() -> None:
    heartbeat = Heartbeat()
    assert heartbeat.age_s == 0
    with heartbeat.working():
        await asyncio.sleep(0.03)
        with heartbeat.working():
            await grows(lambda: heartbeat.age_s)
            assert heartbeat.age_s > 0.03
    assert heartbeat.age_s == 0


async def test_lanes_know_who_has_waited_longest() -> None:
    lanes: Lanes[str] = Lanes()
    assert lanes.age_s == 0
    lanes.push("later served, first come", "batch")
    await asyncio.sleep(0.03)
    lanes.push("first served", "interactive")
    assert lanes.age_s >= 0.03
    assert lanes.pop() == "first served"
    assert lanes.age_s >= 0.03
    lanes.pop()
    assert lanes.age_s == 0


async def test_a_batching_loop_that_takes_nothing_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "STUCK_S", 0.1)
    with ThreadPoolExecutor(1) as executor:
        encoder, runtime = FakeEncoder(dimension=4, max_batch=4), Turns()
        batcher = Batcher(encoder, pad_id=0, max_batch=4, turns=runtime, executor=executor, on_batch=lambda *_: None)
        tensors = {"pixel_values": np.zeros((3, 2, 2), np.float32)}
        async with runtime.turn(time.monotonic):  # somebody keeps the runtime, and runs nothing
            loop = asyncio.create_task(batcher.run())
            item = asyncio.create_task(batcher.infer(tensors, None))
            await asyncio.sleep(0.02)
            await grows(lambda: supervision.waiting_s({"image": batcher}))
            assert supervision.stuck({"image": batcher}, Costs()) is None
            await asyncio.sleep(0.1)
            assert "no batching loop takes them" in str(supervision.stuck({"image": batcher}, Costs()))
        await item
        assert supervision.waiting_s({"image": batcher}) == 0
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)


async def test_a_tokenizer_that_hangs_is_trouble_until_it_returns(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "STUCK_S", 0.1)
    monkeypatch.setattr(supervision, "LOOK_S", 1000.0)  # before it is given up
    peers, gate = Peers("text"), threading.Event()
    engine = Engine(bundle, Limits(), EnginePolicy(threads=1, decode_workers=1, canary_s=3600), peers)
    await engine.start()
    try:
        tokenizer = engine._preparation.tokenizers["text"]
        encode = tokenizer.encode
        monkeypatch.setattr(type(tokenizer), "encode", lambda _, text: (gate.wait(20), encode(text))[1])
        assert set(engine.heartbeats().values()) == {0.0}
        item = asyncio.create_task(engine.embed("text", "a"))
        await asyncio.sleep(0.02)
        await grows(lambda: engine.heartbeats()["tokenize"])
        await asyncio.sleep(0.1)
        assert "tokenizer" in str(engine.trouble())
        gate.set()
        assert (await item).vector.shape == (8,)
        assert engine.trouble() is None
    finally:
        gate.set()
        await engine.stop(5)


def test_a_decoder_that_is_not_taken_back_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_LATE_S", 0.05)
    decoders = DecodePool(1, Limits(decode_seconds=0.05), lambda _: None)  # not started: its threads are not needed

    def asked(working: AbstractContextManager[None]) -> str | None:
        with working:
            time.sleep(0.2)
            return decoders.trouble()

    assert decoders.trouble() is None
    assert "taken back" in str(asked(decoders._heartbeat.working()))
    assert decoders.trouble() is None
