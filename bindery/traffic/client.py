"""HTTP/1.1 to one server: kept connections, asked one request at a time each. Small, so that the load costs the generator little."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httptools

from bindery.errors import InvalidParameter

READ_BYTES = 64 * 1024


@dataclass(slots=True)
class Reply:
    """What came back; also the parser's callbacks while it comes."""

    status: int = 0
    body: bytes = b""
    whole: bool = False
    keeps: bool = False
    """Whether the connection may be used again."""
    parser: Any = None  # while it comes

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.whole = True
        self.keeps = self.parser.should_keep_alive()  # asked later, the parser has forgotten, and says no


class Client:
    """Connections to ``url``'s host. Raises `InvalidParameter` for what is no http(s) URL."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidParameter(f"{url!r} is no address to test; write http://127.0.0.1:8000")
        self._host, self._tls = parts.hostname, parts.scheme == "https"
        self._port = parts.port or (443 if self._tls else 80)
        self._prefix = parts.path.rstrip("/")
        self._head = "".join(f"{name}: {value}\r\n" for name, value in {"Host": parts.netloc.rpartition("@")[2], **headers}.items())
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, path: str, content_type: str, body: bytes) -> Reply:
        """Raises `OSError` and `EOFError` when the line breaks."""
        head = f"POST {self._prefix}{path} HTTP/1.1\r\n{self._head}Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        request = head.encode("latin-1") + body
        while self._idle:
            reader, writer = self._idle.pop()
            if reader.at_eof() or writer.is_closing():
                writer.close()
                continue
            try:
                return await self._ask(reader, writer, request)
            except (OSError, EOFError):  # the server may close a kept connection in the moment it is used; once more, on a new one
                break
        return await self._ask(*await asyncio.open_connection(self._host, self._port, ssl=True if self._tls else None), request)

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> Reply:
        reply = Reply()
        reply.parser = parser = httptools.HttpResponseParser(reply)
        try:
            writer.write(request)
            while not reply.whole:
                data = await reader.read(READ_BYTES)
                if not data:
                    raise EOFError("the server closed the connection")
                parser.feed_data(data)
        except BaseException:  # also when cancelled: half an answer must not meet the next request
            writer.close()
            raise
        finally:
            reply.parser = None  # they hold each other
        reply.status = parser.get_status_code()
        if reply.keeps:
            self._idle.append((reader, writer))
        else:
            writer.close()
        return reply
