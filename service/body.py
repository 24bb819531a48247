"""Bodies as they come: counted, timed and cut off while streaming. No route reads a request in any other way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from time import monotonic

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from bindery.errors import BodyTimeout, DeadlineExceeded, InvalidHeader, TooManyBytes
from service.exchange import exchange_of
from service.state import state_of


@dataclass(frozen=True, slots=True)
class BodyPolicy:
    most_bytes: int
    limit: str  # the limit's name, for the message
    floor_bytes_per_s: int  # 0: as slow as they like
    deadline: float | None = None  # `time.monotonic`
    window_s: float = 10.0  # the floor is held over each window, so a short stall is forgiven


def chunks_of(request: Request, *, most_bytes: int, limit: str) -> AsyncIterator[bytes]:
    """The chunks of this request's body under the server's rules. Raises `TooManyBytes`, `BodyTimeout`, `DeadlineExceeded`."""
    state, exchange = state_of(request), exchange_of(request)
    deadline = exchange.deadline(state.limits) if exchange.asked_ms is not None else None
    policy = BodyPolicy(most_bytes, limit, state.settings.body_floor_bytes_per_s, deadline)
    return read_chunks(request.receive, request.headers, policy)


async def read_chunks(receive: Receive, headers: Headers, policy: BodyPolicy) -> AsyncIterator[bytes]:
    """See `chunks_of`. A body whose length is announced as too long is refused before its first byte is asked for."""
    if _announced(headers) > policy.most_bytes:
        raise _too_many(policy)
    taken, in_window, window_ends = 0, 0, monotonic() + policy.window_s
    while True:
        try:
            async with asyncio.timeout_at(_loop_time(window_ends, policy.deadline)):
                message = await receive()
        except TimeoutError:
            message = None
        now = monotonic()
        if policy.deadline is not None and now >= policy.deadline:
            raise DeadlineExceeded("the deadline passed in stage body, while the request was still being received")
        if now >= window_ends:
            if in_window < policy.floor_bytes_per_s * policy.window_s:
                raise BodyTimeout(f"the body came slower than {policy.floor_bytes_per_s} bytes a second over {policy.window_s:g} seconds")
            in_window, window_ends = 0, now + policy.window_s
        if message is None:
            continue
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        taken += len(chunk)
        in_window += len(chunk)
        if taken > policy.most_bytes:
            raise _too_many(policy)
        if chunk:
            yield chunk
        if not message.get("more_body", False):
            return


async def read_whole(request: Request, *, most_bytes: int, limit: str) -> bytearray:
    """The body in memory."""
    body = bytearray()
    async for chunk in chunks_of(request, most_bytes=most_bytes, limit=limit):
        body += chunk
    return body


def _announced(headers: Headers) -> int:
    length = headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit():
        raise InvalidHeader(f"Content-Length is {length[:40]!r}; it must be a whole number")
    return int(length)


def _too_many(policy: BodyPolicy) -> TooManyBytes:
    return TooManyBytes(f"the body has more than {policy.most_bytes} bytes (limit {policy.limit}); send less, or in several requests")


def _loop_time(window_ends: float, deadline: float | None) -> float:
    until = window_ends if deadline is None else min(window_ends, deadline)
    return asyncio.get_running_loop().time() + until - monotonic()
