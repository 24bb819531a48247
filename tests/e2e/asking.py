"""How the tests of faults ask a real server, and the words that bring faults about in one that runs as `tests.e2e.faulty`."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable

import httpx

from tests.e2e.process import Served

TOKENIZER_RAISES, TOKENIZER_PANICS, TOKENIZER_HANGS = "raises here", "panics here", "hangs here"
"""Texts that hold this, in the tokenizer."""
HELD, DEAF, LOOP_DIES, CRASHES = "|", "`", "{", "}"
"""Texts that hold this: wait in the runtime while the file named by `GATE` is there; hang there and heed no order to stop; end the batching
loop; end the process."""
GATE = "BINDERY_TEST_GATE"
FAULTY = (sys.executable, "-m", "tests.e2e.faulty")

CLIENT = httpx.Client(
    timeout=60, verify=False, limits=httpx.Limits(max_keepalive_connections=0)
)  # one for all: to make another takes longer than many an answer
"""Keeps no connection, so each request may come to another process of a server with several."""


def texts(served: Served, *inputs: str, timeout_ms: int = 30_000) -> httpx.Response:
    headers = {"X-Request-Timeout-Ms": str(timeout_ms)}
    return CLIENT.post(f"{served.address}/v1/embed/text", json={"inputs": inputs}, headers=headers)


def files(served: Served, modality: str, *contents: bytes, timeout_ms: int = 30_000) -> httpx.Response:
    parts = [("file", (f"{number}", content)) for number, content in enumerate(contents)]
    headers = {"X-Request-Timeout-Ms": str(timeout_ms)}
    return CLIENT.post(f"{served.address}/v1/embed/{modality}", files=parts, headers=headers)


def codes(answer: httpx.Response) -> list[str]:
    """The items' error codes; empty for a vector."""
    assert answer.status_code == 200, answer.text
    return ["" if "embedding" in item else item["error"]["code"] for item in answer.json()["items"]]


def connected(served: Served, receive_bytes: int | None = None) -> socket.socket:
    """``receive_bytes``: room for what the server sends and nobody has read yet."""
    host, port = served.address.removeprefix("http://").split(":")
    line = socket.socket()
    if receive_bytes is not None:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    line.settimeout(30)
    line.connect((host, int(port)))
    return line


def head(path: str, content_type: str, length: int, more: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n{more}\r\n".encode()


def wait_until(holds: Callable[[], object], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def lives_on(served: Served, *, ready_within_s: float = 0) -> None:
    """After a fault: still the same process, ready and at work."""
    assert served.process.poll() is None, served.log.read_text()
    wait_until(served.is_ready, ready_within_s)
    assert codes(texts(served, "a", "b")) == ["", ""]
