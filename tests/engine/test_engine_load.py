"""The real engine under more work than it can do: whom it lets in, in which order, and what it does not spend on those who left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from bindery.bundle import Bundle, open_bundle
from bindery.engine.embedded import Embedded
from bindery.engine.engine import Engine, EnginePolicy
from bindery.engine.events import Admitted, BatchRun, Dropped, Event, Failed, Finished, Refused
from bindery.errors import DeadlineExceeded, QueueFull
from bindery.limits import Limits
from bindery.media.source import Source
from tests.engine.peers import Peers
from tests.toybundle import build_toy_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(build_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy"))


@asynccontextmanager
async def started(bundle: Bundle, peers: Peers, limits: Limits | None = None, **policy: int) -> AsyncIterator[tuple[Engine, list[Event]]]:
    events: list[Event] = []
    engine = Engine(bundle, limits or Limits(), EnginePolicy(threads=1, **{"decode_workers": 1, **policy}), peers)
    await engine.start()
    engine.listen(events.append)
    try:
        yield engine, events
    finally:
        for peer in peers.by_name.values():
            peer.open.set()
        await engine.stop(5)


def picture(number: int, side: int = 64) -> Source:
    pixels = np.random.default_rng(number).integers(0, 255, (side, side, 3), dtype=np.uint8)
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return Source.of(stream.getvalue(), name=f"{number}.png")


async def test_the_start_measures_each_graph_and_the_wait_is_estimated_from_it(bundle: Bundle) -> None:
    peers = Peers("text")
    async with started(bundle, peers, Limits(queue_ms=1000), max_batch=1) as (engine, events):
        peers["text"].delay_s = 0.05
        for number in range(60):  # the first runs were quick; what is expected follows what is seen
            if engine._costs.of("text", 0).infer_ms > 40:
                break
            await engine.embed("text", f"text {number}")
        results = await asyncio.gather(*(engine.embed("text", f"more {number}") for number in range(60)), return_exceptions=True)
    taken = [one for one in results if isinstance(one, Embedded)]
    refused = [one for one in results if isinstance(one, QueueFull)]
    assert len(taken) + len(refused) == 60
    assert 15 <= len(taken) <= 30  # a second's worth at 40 to 50 ms each
    assert 1 <= (refused[-1].retry_after_ms or 0) <= 1000
    assert sum(isinstance(event, Refused) for event in events) == len(refused)
    assert sum(isinstance(event, Admitted) for event in events) == sum(isinstance(event, Finished) for event in events)


async def test_a_request_of_many_items_is_let_in_or_refused_whole(bundle: Bundle) -> None:
    peers = Peers("text")
    texts = [("text", f"text {number}") for number in range(3)]
    async with started(bundle, peers, Limits(queue_items=4)) as (engine, _):
        peers["text"].open.clear()
        with engine.seats(texts) as seats:
            mine = [
                asyncio.create_task(engine.embed(modality, text, seat=seat)) for (modality, text), seat in zip(texts, seats, strict=True)
            ]
            await asyncio.sleep(0.05)
            with pytest.raises(QueueFull, match="no room for 2 more"), engine.seats(texts[:2]):
                pass
            assert engine.queue.seats == 3
            peers["text"].open.set()
            await asyncio.gather(*mine)
        assert engine.queue.seats == 0


async def test_interactive_items_overtake_batch_items_in_the_ready_queue(bundle: Bundle) -> None:
    peers = Peers("text")
    finished: list[str] = []
    async with started(bundle, peers, max_batch=1) as (engine, _):
        peers["text"].open.clear()

        async def embed(text: str, priority: str) -> None:
            await engine.embed("text", text, priority=priority)  # type: ignore[arg-type]
            finished.append(text)

        tasks = []
        for text, priority in (("b0", "batch"), ("b1", "batch"), ("b2", "batch"), ("i0", "interactive"), ("i1", "interactive")):
            tasks.append(asyncio.create_task(embed(text, priority)))
            await asyncio.sleep(0.03)
        peers["text"].open.set()
        await asyncio.gather(*tasks)
    assert finished == ["b0", "i0", "i1", "b1", "b2"]  # b0 was already running


async def test_interactive_files_overtake_batch_files_before_the_decoders(bundle: Bundle) -> None:
    finished: list[str] = []
    async with started(bundle, Peers()) as (engine, _):

        async def embed(number: int, priority: str) -> None:
            await engine.embed("image", picture(number, side=700), priority=priority)  # type: ignore[arg-type]
            finished.append(priority)

        tasks = [asyncio.create_task(embed(number, "batch")) for number in range(10)]
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(embed(99, "interactive")))
        await asyncio.gather(*tasks)
    assert finished.index("interactive") <= 4  # behind the two that the decoder has, and what shares their batches


async def test_what_is_known_is_answered_by_a_full_engine_too(bundle: Bundle) -> None:
    peers = Peers("text")
    async with started(bundle, peers, Limits(queue_items=1)) as (engine, _):
        known = await engine.embed("text", "known")
        peers["text"].open.clear()
        busy = asyncio.create_task(engine.embed("text", "new"))
        await asyncio.sleep(0.03)
        with pytest.raises(QueueFull):
            await engine.embed("text", "also new")
        assert np.array_equal((await engine.embed("text", "known")).vector, known.vector)
        peers["text"].open.set()
        await busy


async def test_work_whose_caller_has_gone_is_neither_decoded_nor_run(bundle: Bundle) -> None:
    async with started(bundle, Peers()) as (engine, events):
        alone = await engine.embed("image", picture(0, side=1500))
        tasks = [asyncio.create_task(engine.embed("image", picture(number, side=1500))) for number in range(1, 13)]
        while engine.queue.seats < 12:
            await asyncio.sleep(0)
        for task in tasks[1:]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await engine.embed("image", picture(99))
    assert alone.vector.shape == (8,)
    assert [event.stage for event in events if isinstance(event, Dropped)] == ["decode"] * 11
    assert sum(event.items for event in events if isinstance(event, BatchRun)) == 3
    assert not any(isinstance(event, Failed) for event in events)
    assert engine.queue.seats == engine.queued == 0


async def test_an_item_cancelled_in_the_ready_queue_is_not_run(bundle: Bundle) -> None:
    peers = Peers("text")
    async with started(bundle, peers) as (engine, events):
        peers["text"].open.clear()
        peers["text"].entered.clear()
        runs = len(peers["text"].batches)
        tasks = [asyncio.create_task(engine.embed("text", "text 0"))]
        await asyncio.to_thread(peers["text"].entered.wait, 20)  # so that the others wait in the queue, not in this batch
        tasks += [asyncio.create_task(engine.embed("text", f"text {number}")) for number in range(1, 5)]
        while engine.queue.seats < 5:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        for task in tasks[2:]:
            task.cancel()
        peers["text"].open.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        ran = sum(peers["text"].batches[runs:])
    assert ran == 2  # what was running when they left, and what stayed
    assert [event.stage for event in events if isinstance(event, Dropped)] == ["queue"] * 3


async def test_a_deadline_in_the_ready_queue_is_not_blamed_on_the_graph(bundle: Bundle) -> None:
    peers = Peers("text")
    async with started(bundle, peers) as (engine, events):
        peers["text"].open.clear()
        peers["text"].entered.clear()
        running = asyncio.create_task(engine.embed("text", "running", deadline=time.monotonic() + 0.5))
        await asyncio.to_thread(peers["text"].entered.wait, 20)
        waiting = [asyncio.create_task(engine.embed("text", "waiting", deadline=time.monotonic() + 0.2)) for _ in range(2)]
        for tasks, stage in ((waiting, "queue"), ([running], "infer")):
            for task in tasks:
                with pytest.raises(DeadlineExceeded, match=f"stage {stage}"):
                    await task
        peers["text"].open.set()
    assert [event.stage for event in events if isinstance(event, Failed)] == ["queue", "queue", "infer"]
