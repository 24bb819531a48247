from __future__ import annotations

import asyncio

import pytest

from bindery.engine import lanes
from bindery.engine.lanes import Lanes, Turnstile


def test_interactive_work_goes_first_in_its_own_order() -> None:
    line: Lanes[str] = Lanes()
    for name, priority in (("b1", "batch"), ("i1", "interactive"), ("b2", "batch"), ("i2", "interactive")):
        line.push(name, priority)  # type: ignore[arg-type]
    assert len(line) == 4
    assert [line.pop() for _ in range(4)] == ["i1", "i2", "b1", "b2"]
    with pytest.raises(IndexError):
        line.pop()


def test_batch_work_that_has_waited_goes_first_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    line: Lanes[str] = Lanes()
    now = 100.0
    monkeypatch.setattr(lanes.time, "monotonic", lambda: now)
    line.push("old batch", "batch")
    now += lanes.AGE_S - 1
    line.push("soon after", "interactive")
    now += 2
    line.push("much later", "interactive")
    assert [line.pop() for _ in range(3)] == ["soon after", "old batch", "much later"]


async def test_the_turnstile_lets_only_so_many_pass_and_never_who_has_gone() -> None:
    turnstile = Turnstile(1)
    passed: list[str] = []

    async def walk(name: str, priority: lanes.Priority) -> None:
        await turnstile.enter(priority)
        passed.append(name)
        await asyncio.sleep(0.01)
        turnstile.leave()

    walkers = [asyncio.create_task(walk(*one)) for one in (("a", "batch"), ("b", "batch"), ("c", "interactive"), ("d", "batch"))]
    await asyncio.sleep(0)
    walkers[1].cancel()
    await asyncio.gather(*walkers, return_exceptions=True)
    assert passed == ["a", "c", "d"]
    await asyncio.wait_for(turnstile.enter("batch"), 1)


async def test_a_turn_that_comes_as_its_owner_leaves_is_handed_on() -> None:
    turnstile = Turnstile(1)
    await turnstile.enter("interactive")
    leaving = asyncio.create_task(turnstile.enter("interactive"))
    await asyncio.sleep(0)
    turnstile.leave()
    leaving.cancel()  # in the same turn of the loop
    await asyncio.gather(leaving, return_exceptions=True)
    await asyncio.wait_for(turnstile.enter("interactive"), 1)
