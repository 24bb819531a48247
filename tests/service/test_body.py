"""Reading a body: the floor rate, the deadline, a client that goes away. Against a scripted line."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from bindery.errors import BodyTimeout, DeadlineExceeded, InvalidHeader, TooManyBytes
from service.body import BodyPolicy, read_chunks

WINDOW_S = 0.15


def line(*pieces: bytes, pause_s: float = 0.0, ends: bool = True) -> Receive:
    """A line that gives ``pieces`` one by one, then nothing more (or the end)."""
    waiting = list(pieces)

    async def receive() -> Message:
        await asyncio.sleep(pause_s)
        if not waiting:
            await asyncio.Event().wait()
        piece = waiting.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(waiting) or not ends}

    return receive


async def read(receive: Receive, **policy: float) -> bytes:
    given = BodyPolicy(int(policy.get("most", 1000)), "body_bytes", int(policy.get("floor", 0)), policy.get("deadline"), WINDOW_S)
    chunks: AsyncIterator[bytes] = read_chunks(receive, Headers({}), given)
    return b"".join([chunk async for chunk in chunks])


async def test_a_body_is_given_in_its_pieces() -> None:
    assert await read(line(b"ab", b"", b"c")) == b"abc"


async def test_more_than_allowed_is_cut_before_the_rest_is_read() -> None:
    with pytest.raises(TooManyBytes, match="limit body_bytes"):
        await read(line(b"x" * 600, b"x" * 600, ends=False))


async def test_a_body_that_stalls_is_cut_after_the_window() -> None:
    started = time.monotonic()
    with pytest.raises(BodyTimeout):
        await read(line(b"x", ends=False), floor=100)
    assert time.monotonic() - started > WINDOW_S * 0.9


async def test_a_body_that_trickles_is_cut_though_it_never_stalls() -> None:
    with pytest.raises(BodyTimeout):
        await read(line(*[b"x"] * 100, pause_s=0.02), floor=100)


async def test_a_short_stall_is_forgiven() -> None:
    assert len(await read(line(b"x" * 100, b"x", pause_s=0.1), floor=100)) == 101


async def test_without_a_floor_only_the_deadline_ends_the_waiting() -> None:
    with pytest.raises(DeadlineExceeded, match="stage body"):
        await read(line(b"x", ends=False), deadline=time.monotonic() + 3 * WINDOW_S)


async def test_a_client_that_leaves_ends_the_reading() -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnect):
        await read(receive)


async def test_an_announced_length_is_judged_before_anything_is_read() -> None:
    async def receive() -> Message:
        raise AssertionError("nothing may be read")

    policy = BodyPolicy(10, "body_bytes", 0)
    for length, error in (("11", TooManyBytes), ("-1", InvalidHeader), ("ten", InvalidHeader)):
        with pytest.raises(error):
            await anext(read_chunks(receive, Headers({"content-length": length}), policy))
