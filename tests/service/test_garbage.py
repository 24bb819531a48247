"""What a request leaves behind: nothing that only the garbage collector would find, or the event loop would stand still for it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.types import Message

from bindery.engine.admission import CROWD, Cost
from bindery.settings import Settings
from service.app import create_app
from tests.service.media import png

REQUESTS = 10


@pytest.fixture
def by_hand() -> Iterator[None]:
    """Without the collector, until asked."""
    gc.disable()
    yield
    gc.enable()


async def post(app: FastAPI, path: str, content_type: str, body: bytes) -> int:
    """As a server calls an application; a client of ours would leave garbage of its own."""
    came, status = [False], [0]

    async def receive() -> Message:
        if came[0]:
            await asyncio.get_running_loop().create_future()  # the line stays open
        came[0] = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        status[0] = message.get("status", status[0])

    headers = {"content-type": content_type, "content-length": str(len(body)), "x-request-timeout-ms": "20000"}
    await app(
        {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        },
        receive,
        send,
    )
    return status[0]


@pytest.mark.usefixtures("by_hand")
@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("kind", ["text", "image"])
async def test_requests_answered_or_refused_leave_no_garbage(toy_settings: Settings, tmp_path: Path, kind: str, crowded: bool) -> None:
    app = create_app(toy_settings.model_copy(update={"data_dir": tmp_path}))
    numbers = iter(range(1000))

    async def some(count: int, status: int) -> None:
        for _ in range(count):
            number = next(numbers)
            body = b'{"inputs": ["text %d"]}' % number if kind == "text" else png((number % 200, 2, 3))
            answered = await post(app, f"/v1/embed/{kind}", "application/json" if kind == "text" else "image/png", body)
            assert answered == status

    async with app.router.lifespan_context(app):
        while app.state.service.standing != "ready":
            await asyncio.sleep(0.05)
        await some(3, 200)  # what is made once
        (seat,) = app.state.service.engine.queue.take([Cost(infer_ms=1e6 if crowded else 0.0)], "interactive", None)
        gc.collect()
        # Crowded: refused whole until the crowd is known, then unread.
        await some(CROWD + REQUESTS if crowded else REQUESTS, 503 if crowded else 200)
        left = gc.collect()
        seat.leave()
    assert left < REQUESTS  # not one object a request
