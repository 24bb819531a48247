from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tests.cli.conftest import Run


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _serve(toy: Path, folder: Path, port: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bindery.cli.main", "serve", "--bundle", str(toy), "--threads", "1"]
    return subprocess.Popen(
        [*command, "--port", str(port), "--data-dir", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_serve_answers_with_what_the_command_line_says_and_stops_on_a_signal(toy: Path, tmp_path: Path) -> None:
    port = _free_port()
    child = _serve(toy, tmp_path / "data", port)
    try:
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up and child.poll() is None:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                    break
            except httpx.ConnectError:
                time.sleep(0.05)
        assert "toy" in httpx.get(f"http://127.0.0.1:{port}/v1/models").text
        assert (tmp_path / "data" / "catalog.sqlite").exists()
    finally:
        child.send_signal(signal.SIGTERM)
        out, _ = child.communicate(timeout=60)
    assert child.returncode in (0, -signal.SIGTERM)
    assert out == ""


def test_a_port_in_use_is_a_failure(toy: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        child = _serve(toy, tmp_path / "data", int(taken.getsockname()[1]))
        _, told = child.communicate(timeout=60)
    assert child.returncode == 1
    assert "address already in use" in told


def test_what_keeps_it_from_starting_is_told_in_a_line(run: Run, toy: Path, tmp_path: Path) -> None:
    done = run("serve", "--bundle", tmp_path / "nowhere")
    assert done.code == 1
    assert done.err.startswith("error[bundle_not_found]: no bundle")
    (tmp_path / "catalog.sqlite").write_bytes(b"no database at all, but some bytes of text" * 100)
    done = run("serve", "--bundle", toy, "--data-dir", tmp_path)
    assert done.code == 1
    assert done.err.startswith(f"error[catalog_damaged]: {tmp_path}")
    assert len(done.err.splitlines()) == 1
