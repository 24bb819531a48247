"""A flood: refused unread once there is a crowd, and only as long as there is no room."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path

import pytest
import uvloop
from starlette.applications import Starlette

from bindery.engine.admission import CROWD, Cost
from bindery.settings import Settings
from service.app import create_app
from service.fronts.processes import ACCEPTS, http_server
from service.problems import Problem
from tests.service.test_app import asking

JSON = {"Content-Type": "application/json"}


async def test_a_crowd_is_refused_unread_and_let_in_again_when_there_is_room(toy_settings: Settings, tmp_path: Path) -> None:
    app = create_app(toy_settings.model_copy(update={"data_dir": tmp_path}))
    async with app.router.lifespan_context(app), asking(app) as client:
        while (await client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.05)
        queue = app.state.service.engine.queue
        (seat,) = queue.take([Cost(infer_ms=1e6)], "interactive", None)
        whole = [await client.post("/v1/embed/text", json={"inputs": [f"text {number}"]}) for number in range(CROWD)]
        unread = await client.post("/v1/embed/text", content=b"{", headers=JSON)
        openai = await client.post("/v1/embeddings", content=b"{", headers=JSON)
        elsewhere = await client.post("/v1/similarity", content=b"{", headers=JSON)
        metrics = (await client.get("/metrics")).text
        seat.leave()
        broken = await client.post("/v1/embed/text", content=b"{", headers=JSON)
        fine = await client.post("/v1/embed/text", json={"inputs": ["a text"]})
    assert {(one.status_code, one.json()["code"]) for one in whole} == {(503, "queue_full")}
    assert (unread.status_code, unread.json()["code"]) == (503, "queue_full")
    assert int(unread.headers["retry-after-ms"]) > 0
    assert openai.json()["error"]["code"] == "queue_full"
    assert elsewhere.json()["code"] == broken.json()["code"] == "malformed_json"
    assert fine.status_code == 200
    assert f'route="/v1/embed/{{modality}}",status="503"}} {CROWD + 1}.0' in metrics
    assert (
        'bindery_items_refused_total{code="queue_full",device="cpu",engine="onnxruntime/CPUExecutionProvider",modality="text",model="toy"}'
        in metrics
    )


async def test_a_crowd_is_told_of_once_a_second_and_not_once_a_request(
    toy_settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = create_app(toy_settings.model_copy(update={"data_dir": tmp_path, "log_level": "info"}))
    async with app.router.lifespan_context(app), asking(app) as client:
        while (await client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.05)
        (seat,) = app.state.service.engine.queue.take([Cost(infer_ms=1e6)], "interactive", None)
        for number in range(CROWD):
            await client.post("/v1/embed/text", json={"inputs": [f"text {number}"]})
        capsys.readouterr()
        began = time.monotonic()
        for _ in range(10):
            assert (await client.post("/v1/embed/text", content=b"{", headers=JSON)).status_code == 503
        seconds = time.monotonic() - began
        seat.leave()
    lines = capsys.readouterr().err.splitlines()
    assert 1 <= sum("refused unread" in line for line in lines) <= 1 + seconds
    assert not [line for line in lines if "status=503" in line]


async def _answer(reader: asyncio.StreamReader) -> tuple[str, dict[str, object]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    return head, json.loads(await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0])))


async def test_the_connection_of_a_refused_picture_is_kept_and_that_of_a_large_file_is_not(toy_settings: Settings, tmp_path: Path) -> None:
    """The body comes after the answer, and the next request behind it on the same line."""
    app = create_app(toy_settings.model_copy(update={"data_dir": tmp_path}))
    server = http_server(app, toy_settings)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started or app.state.service.standing != "ready":
            await asyncio.sleep(0.05)
        (seat,) = app.state.service.engine.queue.take([Cost(infer_ms=1e6)], "interactive", None)
        for number in range(CROWD):
            async with asking(app) as client:
                await client.post("/v1/embed/text", json={"inputs": [f"text {number}"]})
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        picture = b"POST /v1/embed/image HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n%s\r\n"
        for size in (1000, 200_000, 1000):
            writer.write(picture % (size, b""))
            head, problem = await _answer(reader)
            assert "connection: close" not in head
            assert Problem.model_validate(problem).code == "queue_full"
            writer.write(b"x" * size)
        writer.write(picture % (1000, b"Expect: 100-continue\r\n"))  # who waits for a word before sending may never send it
        assert "connection: close" in (await _answer(reader))[0]
        writer.close()
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        writer.write(picture % (2_000_000, b""))
        assert "connection: close" in (await _answer(reader))[0]
        writer.close()
        seat.leave()
        server.should_exit = True
        await serving


def test_a_crowd_that_comes_all_at_once_is_taken_in_many_at_a_time(toy_settings: Settings) -> None:
    """And not one each time round the loop, as uvloop would by itself."""

    async def rounds(callers: int) -> int:
        server = http_server(Starlette(), toy_settings)
        with socket.create_server(("127.0.0.1", 0), backlog=callers) as listening:
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            while not server.started or len(server.servers) < ACCEPTS:
                await asyncio.sleep(0)
            lines = [socket.create_connection(listening.getsockname()) for _ in range(callers)]
            count = 0
            while len(server.server_state.connections) < callers:
                await asyncio.sleep(0)
                count += 1
            for line in lines:
                line.close()
            server.should_exit = True
            await serving
        return count

    assert uvloop.run(rounds(6 * ACCEPTS)) < 3 * ACCEPTS
