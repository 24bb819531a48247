"""A line between two processes of one service: frames over a private Unix socket, a JSON header and raw bytes each.

Both ends run the same code and belong to the same user; nothing from outside is ever read as a frame.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import orjson

from bindery.errors import BinderyError, EngineDown
from service.fronts.packing import packed_error, unpacked_error

Header: TypeAlias = dict[str, Any]
Blob: TypeAlias = bytes | bytearray | memoryview

RETRY_MS = 1000  # about what a new engine process takes until it listens
_LENGTHS = struct.Struct("<II")  # of the header, of the bytes


def worker_name() -> str:
    """What this HTTP process is called; the supervisor named it."""
    return multiprocessing.current_process().name.removeprefix("bindery-")


class Line(asyncio.Protocol):
    """One end. ``on_frame`` gets each frame as it comes, in order; ``on_lost`` is called once, when the other end is gone."""

    def __init__(self, on_frame: Callable[[Header, bytes], None], on_lost: Callable[[], None]) -> None:
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._waiting = bytearray()
        self._transport: asyncio.Transport | None = None
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        while len(self._waiting) >= _LENGTHS.size:
            header, body = _LENGTHS.unpack_from(self._waiting)
            begin = _LENGTHS.size + header
            if len(self._waiting) < begin + body:
                return
            frame = orjson.loads(bytes(self._waiting[_LENGTHS.size : begin])), bytes(self._waiting[begin : begin + body])
            del self._waiting[: begin + body]
            self._on_frame(*frame)

    def connection_lost(self, _: Exception | None) -> None:
        self.lost = True
        self._on_lost()

    def send(self, header: Header, blobs: Sequence[Blob] = ()) -> None:
        """Put one frame on its way; to an end that is gone it goes nowhere."""
        if self.lost or self._transport is None:
            return
        head = orjson.dumps(header)
        self._transport.writelines([_LENGTHS.pack(len(head), sum(len(blob) for blob in blobs)), head, *blobs])

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Calls:
    """A line on which questions are asked and answered, many at a time. ``on_news`` gets frames that answer nothing."""

    def __init__(self, on_news: Callable[[Header], None] | None = None, on_lost: Callable[[], None] | None = None) -> None:
        self._on_news = on_news
        self._on_lost = on_lost
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[tuple[Header, bytes]]] = {}
        self.line = Line(self._take, self._break)

    @classmethod
    async def to(cls, path: Path, on_news: Callable[[Header], None] | None = None, on_lost: Callable[[], None] | None = None) -> Calls:
        """Raises `EngineDown` when nobody listens there."""
        calls = cls(on_news, on_lost)
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: calls.line, str(path))
        except OSError as error:
            raise engine_down() from error
        return calls

    async def ask(self, header: Header, blobs: Sequence[Blob] = ()) -> tuple[Header, bytes]:
        """The answer to one question; who stops waiting has it stopped at the other end too.

        Raises the error that the other end answered with, and `EngineDown` when that end is gone.
        """
        number = next(self._numbers)
        answer: asyncio.Future[tuple[Header, bytes]] = asyncio.get_running_loop().create_future()
        if self.line.lost:
            raise engine_down()
        self._asked[number] = answer
        self.line.send({"n": number, **header}, blobs)
        try:
            return await answer
        except asyncio.CancelledError:
            self.line.send({"op": "cancel", "of": number})
            raise
        finally:
            del self._asked[number]

    def _take(self, header: Header, body: bytes) -> None:
        if "n" not in header:
            if self._on_news is not None:
                self._on_news(header)
            return
        answer = self._asked.get(header["n"])
        if answer is None or answer.done():  # nobody waits for it any more
            return
        answer.set_result((header, body))

    def _break(self) -> None:
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(engine_down())
        if self._on_lost is not None:
            self._on_lost()


def refused(error: BinderyError) -> Header:
    """An answer that is an error."""
    return {"error": packed_error(error)}


def check(answer: Header) -> None:
    """Raises the error that an answer is, if it is one."""
    if "error" in answer:
        raise unpacked_error(answer["error"])


def engine_down() -> EngineDown:
    return EngineDown("the inference engine's process has ended; another one is being started", retry_after_ms=RETRY_MS)
