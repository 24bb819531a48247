"""The smoke check against the service itself, started as the image starts it: all passes, nothing is left, a restart loses nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.deploy.test_smoke import smoke
from tests.toybundle import build_toy_bundle

START_S = 60
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    build_toy_bundle(folder / "toy")
    return folder


@contextmanager
def serving(bundles: Path, data: Path, http_workers: int = 1) -> Iterator[str]:
    """`bindery serve`, set by its environment alone; ended by SIGTERM, which it must obey in order."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "BINDERY_BUNDLE": "toy",
        "BINDERY_BUNDLES_DIR": str(bundles),
        "BINDERY_DATA_DIR": str(data),
        "BINDERY_PORT": str(port),
        "BINDERY_THREADS": "1",
        "BINDERY_HTTP_WORKERS": str(http_workers),
        "BINDERY_JOB_ROOTS": json.dumps([str(EXAMPLES)]),
    }
    environment = {**os.environ, **settings}  # noqa: TID251 - the child's environment, as a container sets it
    log = data.parent / f"{data.name}.log"
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "bindery.cli.main", "serve"], stdout=stream, stderr=stream, env=environment, cwd=data.parent
        )
    try:
        wait_until_ready(process, f"http://127.0.0.1:{port}/readyz", log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        code = process.wait(timeout=30)
    # uvicorn shuts down in order, then dies of the signal that it was sent (as process 1 of a container it ends with 0).
    assert code in (0, -signal.SIGTERM), log.read_text()
    assert "Application shutdown complete" in log.read_text()


def wait_until_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except urllib.error.HTTPError as not_yet:
            not_yet.close()
        except OSError:
            pass  # it does not listen yet
        time.sleep(0.05)
    pytest.fail(f"the service did not become ready:\n{log.read_text()}")


def get(address: str) -> dict[str, list[object]]:
    with urllib.request.urlopen(address, timeout=5) as answer:
        document: dict[str, list[object]] = json.load(answer)
    return document


@pytest.mark.parametrize("http_workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_every_check_passes_and_leaves_nothing(root: Path, bundles: Path, tmp_path: Path, http_workers: int) -> None:
    with serving(bundles, tmp_path / "data", http_workers) as address:
        ended = smoke(root, address)
        collections, label_sets = get(f"{address}/v1/collections"), get(f"{address}/v1/label-sets")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.endswith(" passed, 0 failed\n")
    assert collections == {"collections": []}
    assert label_sets == {"label_sets": []}


def test_what_is_remembered_is_recalled_after_a_restart(root: Path, bundles: Path, tmp_path: Path) -> None:
    with serving(bundles, tmp_path / "data") as address:
        stored = smoke(root, address, "--remember", "kept")
    assert stored.returncode == 0, stored.stdout + stored.stderr
    with serving(bundles, tmp_path / "data") as address:
        found = smoke(root, address, "--recall", "kept")
        again = smoke(root, address, "--recall", "kept")
    assert found.returncode == 0, found.stdout + found.stderr
    assert again.returncode == 1, "recall deletes what it found"
    assert "unknown_collection" in again.stdout
