"""A service as its users start it: another process on a free port, watched from outside, ended at the end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BENCH = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    process: subprocess.Popen[bytes]
    ready_s: float  # from its start to its first 200 on /readyz

    def tree(self) -> list[int]:
        """Process ids of it and of all its descendants."""
        parents = {int(path.name): _parent(path) for path in Path("/proc").iterdir() if path.name.isdigit()}
        found = [self.process.pid]
        for pid in found:  # it grows while it is walked
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def proportional_mib(self) -> float:
        """Memory of the whole tree; pages that processes share are counted once."""
        return sum(_pss_kib(pid) for pid in self.tree()) / 1024

    def cpu_s(self) -> float:
        """Processor time of the tree so far: what the start costs whatever else runs on the machine."""
        return sum(map(_cpu_ticks, self.tree())) / os.sysconf("SC_CLK_TCK")

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


@contextmanager
def serving(bundle: str, data: Path, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """`bindery serve` with default settings but ``settings`` (`BINDERY_*` names)."""
    command = [sys.executable, "-m", "bindery.cli.main", "serve", "--bundle", bundle, "--data-dir", str(data)]
    with _started(command, {"BINDERY_LOG_LEVEL": "error", **(settings or {})}) as server:
        yield server


@contextmanager
def torch_peer(modalities: Sequence[str]) -> Iterator[Server]:
    with _started([sys.executable, str(BENCH / "torch_peer.py"), *modalities], {}) as server:
        yield server


@contextmanager
def infinity_peer(python: Path, model: Path) -> Iterator[Server]:
    """Infinity with its torch engine and its defaults, from an environment of its own (`bench/infinity_model.py` says how)."""
    options = ["--model-id", str(model), "--served-model-name", "peer", "--engine", "torch", "--device", "cpu", "--dtype", "float32"]
    command = [str(python.parent / "infinity_emb"), "v2", *options, "--no-model-warmup", "--log-level", "error"]
    with _started(command, {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}, "/health") as server:
        yield server


@contextmanager
def _started(command: list[str], environment: Mapping[str, str], ready: str = "/readyz") -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    began = time.monotonic()
    process = subprocess.Popen([*command, "--port", str(port)], env={**_inherited(), **environment}, stderr=subprocess.DEVNULL)
    try:
        _wait_until_ready(url + ready, process)
        yield Server(url, process, time.monotonic() - began)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _inherited() -> dict[str, str]:
    """Without a bound on threads: the runtime and torch shall both choose for themselves."""
    return {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}  # noqa: TID251


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 300
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with code {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    raise RuntimeError("the server did not become ready in five minutes")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _parent(proc: Path) -> int:
    try:
        return int((proc / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):  # it has ended meanwhile
        return -1


def _cpu_ticks(pid: int) -> int:
    """Its own and those of children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended meanwhile
        return 0
    return sum(int(ticks) for ticks in fields[11:15])


def _pss_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended meanwhile
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
