"""`bindery serve` as a process of its own, as an operator starts it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httpx


@dataclass(frozen=True, slots=True)
class Served:
    process: subprocess.Popen[bytes]
    address: str
    log: Path

    def decoders(self) -> list[int]:
        """The decoder processes' ids: the children of the fork server, which is a child of the service."""
        return [pid for child in children(self.process.pid) for pid in children(child)]

    def metric(self, line_start: str) -> float:
        """The sum of the series whose lines begin so."""
        lines = httpx.get(f"{self.address}/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(line_start))

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.address}/readyz").status_code == 200
        except httpx.TransportError:
            return False


def children(pid: int) -> list[int]:
    return [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]


@contextmanager
def serving(
    bundle: Path, folder: Path, *, program: Sequence[str] = (sys.executable, "-m", "bindery.cli.main"), **settings: object
) -> Iterator[Served]:
    """A ready server. ``settings``: of the environment, as `decode_workers=1`; others of it as `environment={"TMPDIR": ...}`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    more = cast(dict[str, str], settings.pop("environment", {}))
    environment = os.environ | more | {f"BINDERY_{name.upper()}": str(value) for name, value in settings.items()}  # noqa: TID251 - the child's
    arguments = ["serve", "--bundle", str(bundle), "--port", str(port), "--data-dir", str(folder / "data"), "--threads", "1"]
    log = folder / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen([*program, *arguments], stderr=stderr, env=environment)
    served = Served(process, f"http://127.0.0.1:{port}", log)
    try:
        until = time.monotonic() + 90
        while not served.is_ready():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until
            time.sleep(0.05)
        yield served
    finally:
        process.kill()
        process.wait()
