"""Whole requests to the application in the engine's process: its ASGI calls travel over a line of their own, as it makes them.

Nothing is read ahead and nothing is stored, so the application meets the client as if there were no process between: it asks for a
body's next piece when it wants it, waits until a piece of its answer was taken, and hears when the client hangs up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.fronts.line import Header, Line, engine_down, worker_name

log = structlog.get_logger(__name__)

_SAME = ("type", "http_version", "scheme", "method", "path", "root_path", "client", "server")
_GONE: Message = {"type": "http.disconnect"}


class BrokenOff(Exception):
    """The answer ended before its end. What has left cannot be taken back; the connection is cut, so that the client sees it."""


class Relay:
    """The HTTP process' side, an ASGI application."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises `EngineDown` as long as nothing was answered, later `BrokenOff`."""
        frames: asyncio.Queue[tuple[Header, bytes] | None] = asyncio.Queue()
        line = Line(lambda *frame: frames.put_nowait(frame), lambda: frames.put_nowait(None))
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: line, str(self._socket))
        except OSError as error:
            raise engine_down() from error
        pieces: set[asyncio.Task[None]] = set()
        answering = False
        try:
            line.send({"op": "request", "worker": worker_name(), "began": monotonic(), "scope": _packed(scope)})
            while (frame := await frames.get()) is not None:
                header, body = frame
                if header["op"] == "receive":
                    task = asyncio.create_task(_piece(line, receive))
                    pieces.add(task)
                    task.add_done_callback(pieces.discard)
                elif header["op"] == "send":
                    answering = True
                    await send(_unpacked_message(header["message"], body))
                    if header["wait"]:
                        line.send({"op": "sent"})
                elif header["op"] == "end":
                    return
                else:
                    raise BrokenOff("the application could not finish its answer")
            if answering:
                raise BrokenOff("the engine's process ended in the middle of an answer")
            raise engine_down()
        finally:
            line.close()
            for task in pieces:
                task.cancel()
            await asyncio.gather(*pieces, return_exceptions=True)


class Handed:
    """The application's side: one request that was handed over."""

    def __init__(self, line: Line, app: ASGIApp, header: Header) -> None:
        self._line = line
        self._gone = False
        self._piece: asyncio.Future[Message] | None = None
        self._sent: asyncio.Future[None] | None = None
        self.task = asyncio.create_task(self._run(app, {**_unpacked(header["scope"]), "state": {"began": header["began"]}}))

    def take(self, header: Header, body: bytes) -> None:
        if header["op"] == "sent":
            if self._sent is not None and not self._sent.done():
                self._sent.set_result(None)
        elif self._piece is not None and not self._piece.done():
            self._piece.set_result(_unpacked_message(header["message"], body))

    def lost(self) -> None:
        """The other process has ended, or does not need the answer any more."""
        self._gone = True
        if self._piece is not None and not self._piece.done():
            self._piece.set_result(_GONE)
        if self._sent is not None and not self._sent.done():
            self._sent.set_result(None)

    async def _run(self, app: ASGIApp, scope: Scope) -> None:
        try:
            await app(scope, self._receive, self._send)
        except Exception:  # noqa: BLE001 - the door has logged it; here it only has to reach the other process
            self._line.send({"op": "broken"})
        else:
            self._line.send({"op": "end"})
        finally:
            self._line.close()

    async def _receive(self) -> Message:
        if self._gone:
            return _GONE
        if self._piece is None:  # else an earlier call gave up waiting: its piece is still to come
            self._piece = asyncio.get_running_loop().create_future()
            self._line.send({"op": "receive"})
        message = await asyncio.shield(self._piece)
        self._piece = None
        return message

    async def _send(self, message: Message) -> None:
        wait = bool(message.get("more_body", False))
        if wait:
            self._sent = asyncio.get_running_loop().create_future()
        packed, body = _packed_message(message)
        self._line.send({"op": "send", "message": packed, "wait": wait}, [body])
        if wait and self._sent is not None and not self._gone:
            await self._sent


async def _piece(line: Line, receive: Receive) -> None:
    packed, body = _packed_message(await receive())
    line.send({"op": "piece", "message": packed}, [body])


def _packed(scope: Scope) -> Header:
    return {
        **{name: scope[name] for name in _SAME if name in scope},
        "raw_path": scope["raw_path"].decode("latin-1"),
        "query_string": scope["query_string"].decode("latin-1"),
        "headers": _packed_headers(scope["headers"]),
    }


def _unpacked(packed: Mapping[str, Any]) -> Scope:
    return {
        **packed,
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "raw_path": packed["raw_path"].encode("latin-1"),
        "query_string": packed["query_string"].encode("latin-1"),
        "headers": _unpacked_headers(packed["headers"]),
        "client": None if packed["client"] is None else tuple(packed["client"]),
        "server": None if packed["server"] is None else tuple(packed["server"]),
    }


def _packed_message(message: Message) -> tuple[Header, bytes]:
    packed = {name: value for name, value in message.items() if name != "body"}
    if "headers" in packed:
        packed["headers"] = _packed_headers(packed["headers"])
    return packed, message.get("body", b"")


def _unpacked_message(packed: Header, body: bytes) -> Message:
    if "headers" in packed:
        packed["headers"] = _unpacked_headers(packed["headers"])
    return packed | {"body": body} if packed["type"] in ("http.request", "http.response.body") else packed


def _packed_headers(headers: Any) -> list[list[str]]:
    return [[name.decode("latin-1"), value.decode("latin-1")] for name, value in headers]


def _unpacked_headers(headers: Any) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
