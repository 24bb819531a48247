"""Ctrl-C at any moment ends a command and everything that it started, without a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.toybundle import build_toy_bundle

INTERRUPTED = (130, -signal.SIGINT)
"""By itself, or by the signal: a shell shows 130 for both."""


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_start_says_nothing_and_leaves_nobody(tmp_path: Path, workers: int) -> None:
    """Loading takes one to some seconds, on a busy machine more: so the moments lie close together at the beginning."""
    bundle = build_toy_bundle(tmp_path / "toy")
    arguments = ["serve", "--bundle", str(bundle), "--port", "0", "--data-dir", str(tmp_path / "data"), "--http-workers", str(workers)]
    for moment_s in (0.4, 0.8, 1.2, 1.6):
        log = tmp_path / "log"
        with log.open("wb") as stream:
            program = [sys.executable, "-m", "bindery.cli.entry", *arguments]
            process = subprocess.Popen(program, stdout=stream, stderr=stream, start_new_session=True)
        # Before the first line of ours runs, Python itself is loading and would tell of an interrupt.
        while b"entry" not in Path(f"/proc/{process.pid}/cmdline").read_bytes() or not ignores_or_dies(process.pid):
            time.sleep(0.005)
        time.sleep(moment_s)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) in (*INTERRUPTED, 0), log.read_text()
        assert "Traceback" not in log.read_text()
        assert "KeyboardInterrupt" not in log.read_text()
        until = time.monotonic() + 20
        while members(process.pid):
            assert time.monotonic() < until, members(process.pid)
            time.sleep(0.05)


def ignores_or_dies(pid: int) -> bool:
    """Python has SIGINT caught from its own start; our first line takes that away."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt:")).split()[1], 16)
    started = Path(f"/proc/{pid}/maps").read_text().count(".so") > 3
    return started and not caught & 1 << (signal.SIGINT - 1)


def members(session: int) -> list[int]:
    """Processes of the session that live."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(of) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found
