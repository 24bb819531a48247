"""A real server on loopback over the toy bundle: what the tests see is what a client sees."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from bindery.limits import Limits
from bindery.settings import Settings
from service.app import create_app
from service.remote import Fetcher
from service.tracing import Traces
from tests.toybundle import build_toy_bundle

SMALL = Limits(
    body_bytes=600_000,
    json_body_bytes=300_000,
    file_bytes=400_000,
    items_text=8,
    items_media=4,
    labels=10,
    templates=3,
    text_chars=500,
    pixels=1_000_000,
    media_seconds=8.0,
    metadata_bytes=1000,
    top_k=20,
    page_items=10,
    collections=5,
    json_depth=8,
    field_bytes=2000,
    form_fields=2,
    filter_depth=2,
    filter_values=3,
    mix_parts=2,
    search_depth=30,
)
"""Limits small enough to run into with kilobytes."""


@pytest.fixture(scope="session")
def toy_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy")


@pytest.fixture(scope="session")
def toy_settings(toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(bundle=str(toy_bundle), data_dir=tmp_path_factory.mktemp("data"), threads=1, log_level="error", decode_workers=2)


@contextmanager
def served(settings: Settings, fetcher: Fetcher | None = None, traces: Traces | None = None) -> Iterator[str]:
    """The address of a server that runs ``settings``, ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(create_app(settings, fetcher, traces), port=port, log_config=None, lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(address, thread)
        yield address
    finally:
        server.should_exit = True
        thread.join(timeout=30)


def _wait_until_ready(address: str, thread: threading.Thread) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and thread.is_alive():
        try:
            if httpx.get(f"{address}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError("the server did not become ready")


@pytest.fixture(scope="session")
def address(toy_settings: Settings) -> Iterator[str]:
    with served(toy_settings) as address:
        yield address


@pytest.fixture(scope="session")
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def small(toy_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server with `SMALL` limits."""
    settings = toy_settings.model_copy(update={"limits": SMALL, "data_dir": tmp_path_factory.mktemp("small")})
    with served(settings) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client
