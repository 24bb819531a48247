"""The application's life: starting, failing to start, stopping; and what a fresh process loads."""

from __future__ import annotations

import asyncio
import logging
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from bindery.engine.engine import Engine
from bindery.errors import BundleNotFound, CatalogDamaged
from bindery.settings import Settings
from service.app import create_app
from tests.service.conftest import served
from tests.service.media import large_png


def asking(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_the_service_loads_no_torch() -> None:
    script = "import service.app, sys; assert not {'torch', 'transformers', 'training', 'export'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


async def test_while_it_starts_it_lives_but_takes_no_work(toy_settings: Settings, tmp_path: Path) -> None:
    app = create_app(toy_settings.model_copy(update={"data_dir": tmp_path}))
    async with app.router.lifespan_context(app), asking(app) as client:
        assert (await client.get("/livez")).status_code == 200
        for path in ("/readyz", "/v1/models", "/v1/collections"):
            answer = await client.get(path)
            assert code(answer) == (503, "starting")
            assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("1", "1000")
        assert code(await client.post("/v1/embed/text", json={"inputs": ["x"]})) == (503, "starting")
        openai = (await client.post("/v1/embeddings", json={"input": "x"})).json()
        assert (openai["code"], openai["error"]["code"], openai["error"]["type"]) == ("starting", "starting", "server_error")
        assert (await client.get("/v1/limits")).status_code == 200
        async with asyncio.timeout(60):
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.02)
        assert (await client.post("/v1/embed/text", json={"inputs": ["x"]})).status_code == 200


async def test_a_bundle_that_is_not_there_stops_the_start(toy_settings: Settings) -> None:
    app = create_app(toy_settings.model_copy(update={"bundle": "nowhere"}))
    with pytest.raises(BundleNotFound):
        async with app.router.lifespan_context(app):
            raise AssertionError("it started")


async def test_a_data_directory_that_is_damaged_stops_the_start(toy_settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "catalog.sqlite").write_bytes(b"no database" * 1000)
    app = create_app(toy_settings.model_copy(update={"data_dir": tmp_path}))
    with pytest.raises(CatalogDamaged):
        async with app.router.lifespan_context(app):
            raise AssertionError("it started")


async def test_a_bundle_that_cannot_be_loaded_is_told_by_both_probes_and_named_in_the_log_only(
    toy_settings: Settings, toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(toy_bundle, damaged)
    graph = damaged / "image/model.onnx"
    graph.write_bytes(graph.read_bytes()[::-1])
    app = create_app(toy_settings.model_copy(update={"bundle": str(damaged), "data_dir": tmp_path / "data"}))
    async with app.router.lifespan_context(app), asking(app) as client:
        async with asyncio.timeout(60):
            while (await client.get("/livez")).status_code == 200:
                await asyncio.sleep(0.02)
        for answer in (
            await client.get("/livez"),
            await client.get("/readyz"),
            await client.post("/v1/embed/text", json={"inputs": ["x"]}),
        ):
            assert code(answer) == (503, "engine_down")
            assert str(tmp_path) not in answer.text
    assert "image/model.onnx was changed" in capsys.readouterr().err


async def test_an_error_that_nobody_foresaw_shows_nothing_of_the_inside(
    toy_settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = create_app(toy_settings.model_copy(update={"data_dir": tmp_path}))

    @app.get("/broken")
    async def broken() -> None:
        raise ValueError("the secret of the inside")

    async with app.router.lifespan_context(app), asking(app) as client:
        answer = await client.get("/broken", headers={"X-Request-Id": "find-me"})
    assert code(answer) == (500, "internal")
    assert "secret" not in answer.text
    assert answer.json()["request_id"] == "find-me"
    log = capsys.readouterr().err
    assert "find-me" in log
    assert "the secret of the inside" in log
    assert "Traceback" in log


async def test_every_request_writes_one_line(toy_settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app = create_app(toy_settings.model_copy(update={"data_dir": tmp_path, "log_level": "info", "log_json": True}))
    async with app.router.lifespan_context(app), asking(app) as client:
        await client.get("/v1/limits", headers={"X-Request-Id": "one"})
        await client.get("/livez")
    lines = [line for line in capsys.readouterr().err.splitlines() if '"event":"request"' in line.replace(" ", "")]
    assert len(lines) == 1
    for part in ('"id":"one"', '"method":"GET"', '"route":"/v1/limits"', '"status":200', '"ms":', '"items":0'):
        assert part in lines[0].replace(" ", "")
    logging.getLogger("uvicorn.error").handlers.clear()


async def test_origins_are_let_in_when_they_are_named(toy_settings: Settings, tmp_path: Path) -> None:
    app = create_app(toy_settings.model_copy(update={"data_dir": tmp_path, "cors_origins": ("https://example.org",)}))
    async with app.router.lifespan_context(app), asking(app) as client:
        friend = await client.get("/v1/limits", headers={"Origin": "https://example.org"})
        stranger = await client.get("/v1/limits", headers={"Origin": "https://example.com"})
        wanted = {
            "Origin": "https://example.org",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type",
        }
        preflight = await client.options("/v1/embed/text", headers=wanted)
    assert friend.headers["access-control-allow-origin"] == "https://example.org"
    assert "x-request-id" in friend.headers["access-control-expose-headers"].lower()
    assert "access-control-allow-origin" not in stranger.headers
    assert preflight.status_code == 200


def test_a_full_queue_refuses_a_request_as_a_whole(toy_settings: Settings, tmp_path: Path) -> None:
    limits = toy_settings.limits.model_copy(update={"queue_items": 2})
    large = large_png()  # decoding it leaves time to look
    settings = toy_settings.model_copy(update={"limits": limits, "data_dir": tmp_path, "cache_bytes": 0})
    with served(settings) as address, ThreadPoolExecutor(1) as others:
        for _ in range(10):
            busy = others.submit(httpx.post, f"{address}/v1/embed/image", files=[("file", ("a.png", large))] * 2, timeout=60)
            while not busy.done() and 'bindery_queue_items{model="toy"} 2.0' not in httpx.get(f"{address}/metrics").text:
                time.sleep(0.005)  # else the asking takes the core that the decoder needs
            refused = httpx.post(f"{address}/v1/embed/text", json={"inputs": ["one", "two"]})
            assert busy.result().status_code == 200
            if refused.status_code != 200:
                break
        assert code(refused) == (503, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["retryable"] is True
        assert 'status="503"' in httpx.get(f"{address}/metrics").text
        assert httpx.post(f"{address}/v1/embed/text", json={"inputs": ["one", "two"]}).status_code == 200


def test_trouble_in_the_engine_makes_it_unready_but_not_dead(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "trouble", lambda _: "a run of the graph of modality 'image' has lasted 12.0 s")
        unready = client.get("/readyz")
        assert code(unready) == (503, "engine_down")
        assert "'image'" in unready.json()["detail"]
        assert client.get("/livez").status_code == 200
        assert 'bindery_ready{model="toy"} 0.0' in client.get("/metrics").text
    assert client.get("/readyz").status_code == 200
