"""The street door, around everything: request ids, timings, one log line, a bound on waiting, and the last catch.

Pure ASGI. It knows no route; it sees each request come and each answer leave.
"""

from __future__ import annotations

import asyncio
from time import monotonic

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bindery.errors import BinderyError, InternalError
from service.exchange import Exchange
from service.problems import problem_response
from service.state import State

log = structlog.get_logger(__name__)

LINGER_SECONDS, LINGER_BYTES = 1.0, 16 * 1024 * 1024
QUIET = frozenset({"/livez", "/readyz", "/metrics"})
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
CLIENT_GONE = 499  # for the log only; nobody is there to read it


class Edge:
    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange.begin(Headers(scope=scope), self._state.fetcher)
        exchange.is_traced = self._state.traces is not None
        exchange.started = scope.get("state", {}).get("began", exchange.started)  # when another process took it in
        scope.setdefault("state", {})["exchange"] = exchange
        incoming = _Incoming(scope, receive, exchange)
        outgoing = _Outgoing(scope["method"], send, exchange, incoming)
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # every GET answers HEAD too, without its body
        structlog.contextvars.bind_contextvars(request_id=exchange.request_id)
        with self._state.metrics.in_flight.track_inprogress():
            await self._answer(scope, incoming, outgoing, exchange)
        structlog.contextvars.unbind_contextvars("request_id")
        self._record(scope, outgoing, exchange)

    async def _answer(self, scope: Scope, incoming: _Incoming, outgoing: _Outgoing, exchange: Exchange) -> None:
        request = Request(scope)
        try:
            exchange.read(request.headers, self._state.limits)
            await self._app(scope, incoming.receive, outgoing.send)
        except asyncio.CancelledError:
            if not incoming.gone:
                raise
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
        except ClientDisconnect:
            incoming.gone = True
        except BinderyError as error:
            await problem_response(request, error)(scope, incoming.receive, outgoing.send)
        except Exception:
            log.exception("unhandled error", method=scope["method"], path=scope["path"])
            if outgoing.status:  # half an answer cannot be taken back: break it off, so that the client sees it is broken
                raise
            fault = InternalError("something went wrong in the server; the request id finds it in the log")
            await problem_response(request, fault)(scope, incoming.receive, outgoing.send)
        finally:
            incoming.close()
            exchange.end()

    def _record(self, scope: Scope, outgoing: _Outgoing, exchange: Exchange) -> None:
        status = outgoing.status or CLIENT_GONE
        route = getattr(scope.get("route"), "path", "unmatched")
        method = outgoing.method if outgoing.method in METHODS else "other"
        elapsed_ms = exchange.elapsed_ms()
        self._state.metrics.answered(method, route, status, elapsed_ms / 1000)
        self._state.metrics.body_bytes.inc(exchange.bytes)
        if self._state.traces is not None and route not in QUIET:
            self._state.traces.add(Headers(scope=scope), exchange.stretch(method, route, status, outgoing.since))
        if exchange.is_unread:  # `service.crowd` tells of all of them at once
            return
        write = log.debug if route in QUIET else log.info
        write(
            "request",
            id=exchange.request_id,
            method=method,
            route=route,
            status=status,
            ms=round(elapsed_ms, 2),
            items=exchange.items,
            bytes=exchange.bytes,
            **({} if exchange.key is None else {"key": exchange.key}),
        )


class _Incoming:
    """The body as it comes; once it is whole, an eye on the line: who hangs up gets no more work done."""

    def __init__(self, scope: Scope, receive: Receive, exchange: Exchange) -> None:
        headers = Headers(scope=scope)
        self._receive = receive
        self._task = asyncio.current_task()
        self._watch: asyncio.Task[Message] | None = None
        self._exchange = exchange
        self.whole = "transfer-encoding" not in headers and headers.get("content-length", "0") == "0"
        self.gone = False
        self.answering = False

    @property
    def settled(self) -> bool:
        """Whether the connection can go on after the answer: the body is in, or whoever holds the line reads past it."""
        return self.whole or self._exchange.is_read_past

    async def receive(self) -> Message:
        if self._watch is not None:
            return await asyncio.shield(self._watch)
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.gone = True
            return message
        self._exchange.bytes += len(message.get("body", b""))
        if not message.get("more_body", False):
            self.whole = True
            self._watch = asyncio.create_task(self._watch_line(), name="disconnect-watch")
        return message

    async def drain(self) -> None:
        """Read on for a moment: closing on someone who is still sending would destroy the answer on its way."""
        taken, until = 0, monotonic() + LINGER_SECONDS
        while taken < LINGER_BYTES and not self.whole and not self.gone:
            try:
                async with asyncio.timeout(until - monotonic()):
                    message = await self._receive()
            except TimeoutError:
                return
            taken += len(message.get("body", b""))
            self.gone = message["type"] == "http.disconnect"
            self.whole = not message.get("more_body", False)

    def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None  # it holds this, too: nobody but the garbage collector would find them

    async def _watch_line(self) -> Message:
        message = await self._receive()
        while message["type"] != "http.disconnect":
            message = await self._receive()
        if not self.answering and self._task is not None:
            self.gone = True
            self._task.cancel()
        return message


class _Outgoing:
    """The answer as it leaves, with the headers that every answer carries."""

    def __init__(self, method: str, send: Send, exchange: Exchange, incoming: _Incoming) -> None:
        self._send = send
        self._exchange = exchange
        self._incoming = incoming
        self.method = method
        self.status = 0
        self.since: float | None = None  # on `time.monotonic`'s clock

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._incoming.answering = True
            self.status, self.since = message["status"], monotonic()
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self._exchange.request_id
            headers["Server-Timing"] = self._exchange.server_timing()
            headers["X-Content-Type-Options"] = "nosniff"
            if not self._incoming.settled:
                headers["Connection"] = "close"
            await self._send(message)
            return
        if self.method == "HEAD":
            message = {**message, "body": b""}
        if message.get("more_body", False) or self._incoming.settled:
            await self._send(message)
            return
        await self._send({**message, "more_body": True})
        await self._incoming.drain()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
