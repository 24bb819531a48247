"""`bindery serve` as a process: it starts, answers, and on SIGTERM finishes what it has accepted."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.process import Served, serving
from tests.service.media import mp4
from tests.toybundle import build_toy_bundle


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(build_toy_bundle(tmp_path / "toy"), tmp_path) as served:
        yield served


def test_what_was_accepted_is_finished_after_sigterm(served: Served) -> None:
    address = served.address
    answers: list[httpx.Response] = []
    files = [("file", (f"{n}.mp4", mp4(40))) for n in range(24)]
    asking = threading.Thread(target=lambda: answers.append(httpx.post(f"{address}/v1/embed/video", files=files, timeout=60)))
    asking.start()
    until = time.monotonic() + 30
    while (
        'bindery_items_admitted_total{device="cpu",engine="onnxruntime/CPUExecutionProvider",modality="video",model="starter"} 24.0'
        not in httpx.get(f"{address}/metrics").text
        and asking.is_alive()
    ):
        assert time.monotonic() < until
    os.kill(served.process.pid, signal.SIGTERM)
    asking.join(timeout=60)
    assert answers[0].status_code == 200
    assert len([item for item in answers[0].json()["items"] if "embedding" in item]) == 24
    assert served.process.wait(timeout=60) == 0
    assert "Traceback" not in served.log.read_text()
    assert not served.is_ready()
