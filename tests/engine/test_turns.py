from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from bindery.engine.stepback import NICENESS, step_back_thread
from bindery.engine.turns import Turns


async def _wait(turns: Turns, name: str, since: float, order: list[str]) -> None:
    async with turns.turn(lambda: since):
        order.append(name)
        await asyncio.sleep(0)


async def test_whoever_waits_longest_is_next_not_whoever_asked_first() -> None:
    turns, order = Turns(), list[str]()
    async with turns.turn(lambda: 0.0):
        tasks = [asyncio.create_task(_wait(turns, name, since, order)) for name, since in (("late", 9.0), ("early", 1.0), ("middle", 5.0))]
        await asyncio.sleep(0.01)
        assert order == []
    await asyncio.gather(*tasks)
    assert order == ["early", "middle", "late"]
    async with asyncio.timeout(1), turns.turn(lambda: 0.0):  # and the runtime is free again
        pass


async def test_who_has_just_had_a_turn_has_the_next_one_too_when_what_it_has_left_came_first() -> None:
    turns, order = Turns(), list[str]()

    async def texts() -> None:
        for since in (1.0, 2.0, 9.0):
            await _wait(turns, f"texts of {since}", since, order)

    async with turns.turn(lambda: 0.0):
        running = [asyncio.create_task(texts()), asyncio.create_task(_wait(turns, "pictures of 5.0", 5.0, order))]
        await asyncio.sleep(0.01)
    await asyncio.gather(*running)
    assert order == ["texts of 1.0", "texts of 2.0", "pictures of 5.0", "texts of 9.0"]


async def test_who_leaves_while_waiting_or_at_the_moment_of_his_turn_holds_nobody_up() -> None:
    turns, order = Turns(), list[str]()
    async with turns.turn(lambda: 0.0):
        gone, last = (asyncio.create_task(_wait(turns, name, since, order)) for name, since in (("gone", 1.0), ("last", 2.0)))
        early = asyncio.create_task(_wait(turns, "early", 0.5, order))
        await asyncio.sleep(0.01)
        early.cancel()
        await asyncio.sleep(0)
    gone.cancel()  # the turn has just been given to him
    await asyncio.wait_for(last, 1)
    assert order == ["last"]


async def test_a_failing_turn_is_passed_on() -> None:
    turns, order = Turns(), list[str]()

    async def fail() -> None:
        async with turns.turn(lambda: 0.0):
            await asyncio.sleep(0.01)
            raise RuntimeError

    failing = asyncio.create_task(fail())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(_wait(turns, "next", 1.0, order))
    with pytest.raises(RuntimeError):
        await failing
    await asyncio.wait_for(waiting, 1)
    assert order == ["next"]


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no niceness of their own")
def test_a_thread_that_steps_back_leaves_the_process_where_it_is() -> None:
    with ThreadPoolExecutor(1, initializer=step_back_thread) as pool:
        there = pool.submit(os.getpriority, os.PRIO_PROCESS, 0).result()
        its_child = pool.submit(lambda: ThreadPoolExecutor(1).submit(os.sched_getscheduler, 0).result()).result()
    here = os.getpriority(os.PRIO_PROCESS, 0)
    assert there == min(19, here + NICENESS)
    assert (os.sched_getscheduler(0), its_child) == (os.SCHED_OTHER, os.SCHED_BATCH)


def test_a_process_that_steps_back_is_behind_its_parent() -> None:
    told = "import os; from bindery.engine.stepback import step_back_process; step_back_process(); print(os.nice(0))"
    assert int(subprocess.check_output([sys.executable, "-c", told])) == min(19, os.nice(0) + NICENESS)
