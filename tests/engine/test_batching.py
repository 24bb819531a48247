from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import numpy as np
import pytest

from bindery.decoded import Tensors
from bindery.engine import batching
from bindery.engine.batching import Batcher
from bindery.engine.turns import Turns
from bindery.errors import DeadlineExceeded, EngineDown, InternalError
from bindery.vectors import Vectors
from tests.fakeencoder import FakeEncoder


class GatedEncoder(FakeEncoder):
    """Waits for `gate` before each batch, so that a test decides what is ready meanwhile; fails on rows that hold a 13."""

    def __init__(self) -> None:
        super().__init__(dimension=4, max_batch=4)
        self.gate = threading.Event()

    def encode(self, tensors: Tensors) -> Vectors:
        assert self.gate.wait(5)
        if (tensors["pixel_values"] == 13).any():
            raise ValueError("poison")
        return super().encode(tensors)


@pytest.fixture
def encoder() -> GatedEncoder:
    return GatedEncoder()


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@asynccontextmanager
async def running(
    encoder: FakeEncoder, thread: ThreadPoolExecutor, staging: ThreadPoolExecutor | None = None
) -> AsyncIterator[tuple[Batcher, asyncio.Task[None]]]:
    batcher = Batcher(encoder, pad_id=0, max_batch=16, turns=Turns(), executor=thread, on_batch=lambda *_: None, staging=staging)
    task = asyncio.create_task(batcher.run())
    yield batcher, task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def item(value: float) -> Tensors:
    return {"pixel_values": np.full((3, 2, 2), value, np.float32)}


async def begin(batcher: Batcher, *values: float, deadline: float | None = None) -> list[asyncio.Task[object]]:
    tasks: list[asyncio.Task[object]] = [asyncio.create_task(batcher.infer(item(v), deadline)) for v in values]
    await asyncio.sleep(0.05)  # let the loop take the first one to the (closed) gate
    return tasks


async def test_a_batch_is_what_is_ready_when_the_runtime_frees_up(encoder: GatedEncoder, thread: ThreadPoolExecutor) -> None:
    async with running(encoder, thread) as (batcher, _):
        first = await begin(batcher, 0)
        rest = await begin(batcher, 1, 2, 3, 4, 5)
        encoder.gate.set()
        results = await asyncio.gather(*first, *rest)
    assert encoder.batches == [1, 4, 1]  # never beyond the graph's max_batch
    alone = [encoder.encode({"pixel_values": item(v)["pixel_values"][None]})[0] for v in range(6)]
    assert all(np.array_equal(r.vector, a) for r, a in zip(results, alone, strict=True))  # type: ignore[attr-defined]


async def test_short_texts_are_not_computed_as_long_as_the_longest(thread: ThreadPoolExecutor) -> None:
    encoder = GatedEncoder()
    lengths: list[tuple[int, ...]] = []
    encode = encoder.encode
    encoder.encode = lambda tensors: (lengths.append(tensors["pixel_values"].shape), encode(tensors))[1]  # type: ignore[method-assign]
    texts = [{"pixel_values": np.full((length,), 1.0, np.float32)} for length in (40, 3, 8, 44)]
    async with running(encoder, thread) as (batcher, _):
        first = await begin(batcher, 0)
        rest = [asyncio.create_task(batcher.infer(one, None)) for one in texts]
        await asyncio.sleep(0.05)
        encoder.gate.set()
        results = await asyncio.gather(*first, *rest)
    assert lengths[1:] == [(2, 8), (2, 44)]
    assert len(results) == 5


async def test_only_the_poison_item_of_a_batch_fails(encoder: GatedEncoder, thread: ThreadPoolExecutor) -> None:
    async with running(encoder, thread) as (batcher, _):
        first = await begin(batcher, 0)
        rest = await begin(batcher, 1, 13, 3, 4)
        encoder.gate.set()
        results = await asyncio.gather(*first, *rest, return_exceptions=True)
        again = await batcher.infer(item(7), None)
    assert [isinstance(r, InternalError) for r in results] == [False, False, True, False, False]
    assert again.vector.shape == (4,)


async def test_items_whose_deadline_or_caller_has_gone_cost_nothing(encoder: GatedEncoder, thread: ThreadPoolExecutor) -> None:
    async with running(encoder, thread) as (batcher, _):
        first = await begin(batcher, 0)
        (late,) = await begin(batcher, 1, deadline=time.monotonic() + 0.01)
        (gone,) = await begin(batcher, 2)
        gone.cancel()
        encoder.gate.set()
        await asyncio.gather(*first)
        with pytest.raises(DeadlineExceeded, match="queue"):
            await late
    assert encoder.batches == [1]


async def test_when_the_loop_ends_nobody_is_left_waiting(encoder: GatedEncoder, thread: ThreadPoolExecutor) -> None:
    async with running(encoder, thread) as (batcher, task):
        waiting = await begin(batcher, 0) + await begin(batcher, 1)
        task.cancel()
        results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 2)
        assert all(isinstance(r, EngineDown) for r in results)
        with pytest.raises(EngineDown):
            await batcher.infer(item(1), None)
        encoder.gate.set()


async def test_when_the_loop_ends_as_it_makes_a_batch_nobody_is_left_waiting(
    encoder: GatedEncoder, thread: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "alike", lambda *_: 1 / 0)
    async with running(encoder, thread) as (batcher, task):
        waiting = await begin(batcher, 0, 1)
        results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 2)
        assert all(isinstance(r, EngineDown) for r in results)
        assert isinstance(task.exception(), ZeroDivisionError)


class StagingEncoder(GatedEncoder):
    """Notes which batches were brought before they were run."""

    def __init__(self) -> None:
        super().__init__()
        self.staged: list[list[float]] = []
        self.run_staged = 0

    def stage(self, tensors: Tensors) -> Callable[[], Vectors]:
        self.staged.append([float(row.flat[0]) for row in tensors["pixel_values"]])

        def run() -> Vectors:
            self.run_staged += 1
            return self.encode(tensors)

        return run


@pytest.fixture
def second_thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


async def test_a_full_batch_is_staged_while_the_runtime_works_and_a_smaller_one_is_not(
    thread: ThreadPoolExecutor, second_thread: ThreadPoolExecutor
) -> None:
    encoder = StagingEncoder()
    async with running(encoder, thread, second_thread) as (batcher, _):
        first = await begin(batcher, 0)
        some = await begin(batcher, 1, 2, 3)
        assert encoder.staged == []  # a fourth may come
        rest = await begin(batcher, 4, 5, 6)
        assert encoder.staged == [[1, 2, 3, 4]]
        assert batcher.waiting_s > 0
        encoder.gate.set()
        results = await asyncio.gather(*first, *some, *rest)
    assert encoder.batches == [1, 4, 2]
    assert encoder.run_staged == 1
    alone = [encoder.encode({"pixel_values": item(v)["pixel_values"][None]})[0] for v in range(7)]
    assert all(np.array_equal(r.vector, a) for r, a in zip(results, alone, strict=True))  # type: ignore[attr-defined]


async def test_who_leaves_a_staged_batch_is_not_computed_and_poison_in_it_fails_alone(
    thread: ThreadPoolExecutor, second_thread: ThreadPoolExecutor
) -> None:
    encoder = StagingEncoder()
    async with running(encoder, thread, second_thread) as (batcher, _):
        first = await begin(batcher, 0)
        gone, *left = await begin(batcher, 1, 2, 3, 4)
        assert encoder.staged == [[1, 2, 3, 4]]
        gone.cancel()
        encoder.gate.set()
        await asyncio.gather(*first, *left)
        assert encoder.batches == [1, 3]
        encoder.gate.clear()
        busy = await begin(batcher, 0)
        poisoned = await begin(batcher, 5, 13, 6, 7)
        assert encoder.staged[1:] == [[5, 13, 6, 7]]
        encoder.gate.set()
        results = await asyncio.gather(*busy, *poisoned, return_exceptions=True)
    assert [isinstance(one, InternalError) for one in results] == [False, False, True, False, False]


async def test_when_the_loop_ends_nobody_of_a_staged_batch_is_left_waiting(
    thread: ThreadPoolExecutor, second_thread: ThreadPoolExecutor
) -> None:
    encoder = StagingEncoder()
    async with running(encoder, thread, second_thread) as (batcher, task):
        waiting = await begin(batcher, 0) + await begin(batcher, 1, 2, 3, 4, 5)
        task.cancel()
        results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 2)
        assert all(isinstance(one, EngineDown) for one in results)
        encoder.gate.set()
