"""The hostile set through a real server: is every file answered as documented, in what time and memory, and does `/livez` keep answering?

python bench/hostile.py            # writes bench/results/hostile.json
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from server_process import serving

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bindery.runtime.processor import processor_name  # noqa: E402
from tests.hostile.make import Hostile, hostile_set  # noqa: E402 - the set lives with the tests

RESULT = ROOT / "bench/results/hostile.json"


def main() -> None:
    with tempfile.TemporaryDirectory() as data, serving("starter", Path(data)) as server:
        result = run(server.url, server.process.pid)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "files"}, indent=1))


def run(address: str, server: int) -> dict[str, Any]:
    with httpx.Client(base_url=address, timeout=60) as client:
        prepared = [(hostile, hostile.make()) for hostile in hostile_set()]  # before the clock: making them keeps this process busy
        load = os.getloadavg()[0]
        live, done = LiveProbe(address), threading.Event()
        probing = threading.Thread(target=live.run, args=(done,))
        probing.start()
        peaks = {"server": 0, "decoders": 0}
        files = []
        for hostile, body in prepared:
            files.append(send(client, hostile, body))
            note_peaks(server, peaks)
        done.set()
        probing.join()
        still_ready = client.get("/readyz").status_code
    times = [file["seconds"] for file in files]
    return {
        "what": "tests/hostile posted to bindery serve (starter, default limits) one by one, /livez asked every 20 ms beside it",
        "command": "python bench/hostile.py",
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "load_average_before": round(load, 1),
        "files_sent": len(files),
        "answered_as_documented": sum(file["documented"] for file in files),
        "slowest_s": max(times),
        "within_10_s": sum(seconds < 10 for seconds in times),
        "livez_ms": live.summary(),
        "peak_mib": {name: round(count / 2**20) for name, count in peaks.items()},
        "readyz_afterwards": still_ready,
        "files": files,
    }


def send(client: httpx.Client, hostile: Hostile, body: bytes) -> dict[str, Any]:
    began = time.monotonic()
    answer = client.post(f"/v1/embed/{hostile.modality}", files={"file": (hostile.name, body)})
    seconds = time.monotonic() - began
    code = "ok" if answer.status_code == 200 else str(answer.json()["code"])
    return {
        "file": f"{hostile.modality}/{hostile.name}",
        "bytes": len(body),
        "status": answer.status_code,
        "code": code,
        "documented": code in hostile.codes and (code != "ok" or is_finite(answer)),
        "seconds": round(seconds, 3),
    }


def is_finite(answer: httpx.Response) -> bool:
    return bool(np.isfinite([item["embedding"] for item in answer.json()["items"]]).all())


class LiveProbe:
    """Asks `/livez` at a constant rate; the time counts from when the question was due."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._ms: list[float] = []

    def run(self, done: threading.Event) -> None:
        with httpx.Client(base_url=self._address, timeout=30) as client:
            due = time.monotonic()
            while not done.is_set():
                assert client.get("/livez").status_code == 200
                self._ms.append(1000 * (time.monotonic() - due))
                due += 0.02
                time.sleep(max(due - time.monotonic(), 0))

    def summary(self) -> dict[str, float]:
        p50, p99 = np.percentile(self._ms, [50, 99])
        return {"asked": len(self._ms), "p50": round(p50, 2), "p99": round(p99, 2), "max": round(max(self._ms), 2)}


def note_peaks(server: int, peaks: dict[str, int]) -> None:
    """The most memory (resident) that the server and any one of its decoders held, from the kernel's own marks."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            status = (entry / "status").read_text()
            parents = [int(entry.name), parent_of(status), parent_of(Path(f"/proc/{parent_of(status)}/status").read_text())]
        except OSError:  # it ended meanwhile
            continue
        mark = re.search(r"VmHWM:\s+(\d+) kB", status)
        if mark and server in parents:
            place = "server" if parents[0] == server else "decoders"
            peaks[place] = max(peaks[place], int(mark[1]) * 1024)


def parent_of(status: str) -> int:
    found = re.search(r"PPid:\s+(\d+)", status)
    return int(found[1]) if found else 0


if __name__ == "__main__":
    main()
