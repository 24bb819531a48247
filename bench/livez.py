"""Does `/livez` keep answering while large JSON bodies are read? The same bodies with and without long strings taken out before parsing.

python bench/livez.py            # writes bench/results/livez.json
"""

from __future__ import annotations

import base64
import io
import json
import multiprocessing
import os
import tempfile
import threading
import time
import wave
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from hostile import ROOT, LiveProbe
from server_process import serving

from bindery.runtime.processor import processor_name

RESULT = ROOT / "bench/results/livez.json"
JSON = {"Content-Type": "application/json"}
PARSED_WHOLE = {"BINDERY_LIMITS__TEXT_CHARS": "200000000", "BINDERY_LIMITS__JSON_TEXT_BYTES": str(96 << 20)}
"""No string is as long as this lets texts be, so none is taken out."""
SOUND = "a sound of 60 MB as base64"


def main() -> None:
    result = {
        "what": "large JSON bodies posted to bindery serve (starter) one by one, three times each, /livez asked every 20 ms beside them",
        "command": "python bench/livez.py",
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "load_average_before": round(os.getloadavg()[0], 1),
        "taken_out": measured({}),
        "parsed_whole": measured(PARSED_WHOLE),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def measured(settings: dict[str, str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as data, serving("starter", Path(data), settings) as server:
        httpx.put(f"{server.url}/v1/collections/vectors").raise_for_status()
        wanted = {name: one for name, one in bodies().items() if not settings or name == SOUND}  # the others need no comparison
        return {"nothing else": alone(server.url)} | {name: asked(server.url, path, body) for name, (path, body) in wanted.items()}


def asked(address: str, path: str, body: bytes) -> dict[str, Any]:
    """Posted from another process: sending 80 MB would keep this one, which asks for `/livez`, busy too."""
    with tempfile.NamedTemporaryFile() as file, multiprocessing.get_context("fork").Pool(1) as sender:
        file.write(body)
        file.flush()
        probe, done = LiveProbe(address), threading.Event()
        thread = threading.Thread(target=probe.run, args=(done,))
        thread.start()
        began = time.monotonic()
        statuses = sender.apply(post, (address + path, file.name))
        seconds = time.monotonic() - began
        done.set()
        thread.join()
    return {"bytes": len(body), "statuses": sorted(set(statuses)), "seconds_each": round(seconds / 3, 3), "livez_ms": probe.summary()}


def post(url: str, file: str) -> list[int]:
    body = Path(file).read_bytes()
    return [httpx.post(url, content=body, headers=JSON, timeout=120).status_code for _ in range(3)]


def alone(address: str) -> dict[str, Any]:
    probe, done = LiveProbe(address), threading.Event()
    thread = threading.Thread(target=probe.run, args=(done,))
    thread.start()
    time.sleep(5)
    done.set()
    thread.join()
    return {"livez_ms": probe.summary()}


def bodies() -> dict[str, tuple[str, bytes]]:
    rng = np.random.default_rng(0)
    vectors = [
        {"id": str(n), "modality": "text", "vector": row} for n, row in enumerate(rng.standard_normal((2048, 384)).round(6).tolist())
    ]
    return {
        SOUND: ("/v1/embed/audio", b'{"inputs": [{"data": "' + base64.b64encode(sound(60_000_000)) + b'"}]}'),
        "2048 vectors": ("/v1/collections/vectors/items", json.dumps({"items": vectors}).encode()),
        "a text of 45 MB": ("/v1/embed/text", b'{"inputs": ["' + b"word " * 9_000_000 + b'"]}'),
        "29,000 empty lists": ("/v1/embed/text", b'{"inputs": [' + b"[]," * 29_000 + b"1]}"),
        "30 million empty lists": ("/v1/embed/text", b'{"inputs": [' + b"[]," * 30_000_000 + b"1]}"),
    }


def sound(count: int) -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(np.random.default_rng(0).integers(-3000, 3000, count // 2, dtype="<i2").tobytes())
    return stream.getvalue()


if __name__ == "__main__":
    main()
