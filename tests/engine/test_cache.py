from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from bindery.engine.cache import VectorCache, content_key
from bindery.engine.embedded import Embedded
from bindery.errors import DeadlineExceeded, UnreadableMedia
from bindery.kinds import parse_options
from bindery.media.source import Source

TEXT = parse_options("text", {})
DEPTH = parse_options("depth", {})


def embedded(value: float = 1.0) -> Embedded:
    return Embedded(np.full(8, value, np.float32), {"tokens": 3}, False, {"decode": 1.0, "queue": 2.0, "infer": 3.0})


class Work:
    """Counts its runs, waits until it is let go, then gives a vector or its error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun = 0
        self.cancelled = 0
        self.error = error
        self.gate = asyncio.Event()

    async def __call__(self) -> Embedded:
        self.begun += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return embedded(self.begun)


async def test_the_key_is_the_content_and_what_is_done_with_it(tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000  # large enough to be hashed in a thread
    (tmp_path / "a.bin").write_bytes(data)
    scope = ("bundle", "depth", "exact")
    by_name = await content_key(scope, Source.of(data, name="x"), DEPTH)
    assert (
        by_name
        == await content_key(scope, Source.of(data, name="y"), DEPTH)
        == await content_key(scope, Source.of(tmp_path / "a.bin"), DEPTH)
    )
    others = [
        await content_key(("bundle", "thermal", "exact"), Source.of(data), DEPTH),
        await content_key(("other", "depth", "exact"), Source.of(data), DEPTH),
        await content_key(scope, Source.of(data), parse_options("depth", {"depth_unit": "m"})),
        await content_key(scope, Source.of(data[:-1]), DEPTH),
        await content_key(scope, "a", TEXT),
        await content_key(scope, Source.of(b"a"), TEXT),
        await content_key(scope, [1, 2], TEXT),
        await content_key(scope, [12], TEXT),
        await content_key(scope, "[1, 2]", TEXT),
    ]
    assert len({by_name, *others}) == len(others) + 1


async def test_a_file_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnreadableMedia, match=r"gone\.png"):
        await content_key(("b", "image", "exact"), Source.of(tmp_path / "gone.png"), DEPTH)


async def test_equal_items_at_the_same_time_are_computed_once() -> None:
    cache, work = VectorCache(10_000), Work()
    tasks = [asyncio.create_task(cache.through(b"k", work, None)) for _ in range(5)]
    await asyncio.sleep(0)
    work.gate.set()
    results = await asyncio.gather(*tasks)
    assert work.begun == 1
    assert [found for _, found in results] == ["miss", "coalesced", "coalesced", "coalesced", "coalesced"]
    assert (await cache.through(b"k", work, None))[1] == "hit"
    assert {one.vector.tobytes() for one, _ in results} == {embedded(1).vector.tobytes()}


async def test_a_leader_that_leaves_does_not_take_its_followers_along() -> None:
    cache, work = VectorCache(10_000), Work()
    leader = asyncio.create_task(cache.through(b"k", work, None))
    await asyncio.sleep(0)
    follower = asyncio.create_task(cache.through(b"k", work, None))
    await asyncio.sleep(0.01)
    leader.cancel()
    await asyncio.sleep(0.01)
    work.gate.set()
    assert (await follower)[1] == "coalesced"
    assert (work.begun, work.cancelled) == (1, 0)


@pytest.mark.parametrize("pause", [0.0, 0.01])  # also before the computation's first step
async def test_work_that_nobody_waits_for_is_dropped(pause: float) -> None:
    cache, work = VectorCache(10_000), Work()
    tasks = [asyncio.create_task(cache.through(b"k", work, None)) for _ in range(2)]
    await asyncio.sleep(pause)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0.01)
    assert work.cancelled == work.begun
    again = Work()
    again.gate.set()
    assert (await cache.through(b"k", again, None))[1] == "miss"


async def test_each_follower_keeps_its_own_deadline() -> None:
    cache, work = VectorCache(10_000), Work()
    leader = asyncio.create_task(cache.through(b"k", work, None))
    await asyncio.sleep(0)
    with pytest.raises(DeadlineExceeded, match="stage queue"):
        await cache.through(b"k", work, time.monotonic() + 0.02)
    work.gate.set()
    assert (await leader)[1] == "miss"


async def test_failures_are_neither_kept_nor_shared() -> None:
    cache, bad, good = VectorCache(10_000), Work(UnreadableMedia("theirs.png is broken")), Work()
    leader = asyncio.create_task(cache.through(b"k", bad, None))
    await asyncio.sleep(0)
    follower = asyncio.create_task(cache.through(b"k", good, None))
    await asyncio.sleep(0.01)
    bad.gate.set()
    good.gate.set()
    with pytest.raises(UnreadableMedia):
        await leader
    assert (await follower)[1] == "miss"
    assert good.begun == 1
    assert len(cache) == 0


async def test_the_cache_stays_within_its_bytes_and_forgets_the_least_used() -> None:
    cache, work = VectorCache(3 * (8 * 4 + 1024)), Work()
    work.gate.set()
    for key in (b"a", b"b", b"c", b"a", b"d"):
        await cache.through(key, work, None)
    assert cache.bytes <= cache.capacity
    assert [cache.get(key) is not None for key in (b"a", b"b", b"c", b"d")] == [True, False, True, True]
    kept = cache.get(b"a")
    assert kept is not None
    assert not kept.vector.flags.writeable
