"""`bindery serve` as a process: it starts, answers, and on SIGTERM finishes what it has accepted."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.service.media import mp4
from tests.toybundle import build_toy_bundle


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    bundle = build_toy_bundle(tmp_path / "toy")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["serve", "--bundle", str(bundle), "--port", str(port), "--data-dir", str(tmp_path / "data"), "--threads", "1"]
    started = subprocess.Popen([sys.executable, "-m", "bindery.cli.main", *arguments], stderr=subprocess.PIPE)
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 90
        while not _is_ready(address):
            assert started.poll() is None, started.stderr.read().decode() if started.stderr else ""
            assert time.monotonic() < until
            time.sleep(0.1)
        yield started, address
    finally:
        started.kill()
        started.wait()
        if started.stderr is not None:
            started.stderr.close()


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_what_was_accepted_is_finished_after_sigterm(process: tuple[subprocess.Popen[bytes], str]) -> None:
    started, address = process
    answers: list[httpx.Response] = []
    files = [("file", (f"{n}.mp4", mp4(40))) for n in range(24)]
    asking = threading.Thread(target=lambda: answers.append(httpx.post(f"{address}/v1/embed/video", files=files, timeout=60)))
    asking.start()
    until = time.monotonic() + 30
    while (
        'bindery_items_admitted_total{modality="video",model="starter"} 24.0' not in httpx.get(f"{address}/metrics").text
        and asking.is_alive()
    ):
        assert time.monotonic() < until
    os.kill(started.pid, signal.SIGTERM)
    asking.join(timeout=60)
    assert answers[0].status_code == 200
    assert len([item for item in answers[0].json()["items"] if "embedding" in item]) == 24
    assert started.wait(timeout=60) == 0
    log = started.stderr.read().decode() if started.stderr else ""
    assert "Traceback" not in log
    assert not _is_ready(address)
