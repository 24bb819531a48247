"""A crowd at the door: when the engine refuses one request after another, the next ones are refused without being read.

Pure ASGI, behind the doorkeeper, so that strangers and those over their share are told so first. Reading, parsing and routing a
request costs several times what saying "later" costs; under a flood that would come out of the goodput of those let in. What it
does not do: look into the cache. The first refusals of each second still go the whole way, and find what is known.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass

import structlog
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.exchange import exchange_of
from service.problems import problem_response
from service.state import State

log = structlog.get_logger(__name__)

_EMBEDDING = re.compile(r"/v1/embed/([^/]+)|/v1/embeddings")
_SMALL_BYTES = 256 * 1024
"""A body up to this costs less to read past than a new connection does."""


@dataclass(frozen=True, slots=True)
class _Route:
    path: str


_EMBED, _OPENAI = _Route("/v1/embed/{modality}"), _Route("/v1/embeddings")


class Crowd:
    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app = app
        self._state = state
        self._untold = 0  # refused since the last line in the log
        self._told = -math.inf  # when that was, on `time.monotonic`'s clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        embedding = _EMBEDDING.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if embedding is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        refusal = await self._state.crowd(embedding[1], exchange_of(request))
        if refusal is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = _EMBED if embedding[1] else _OPENAI  # as the router would have written it, for metrics and the log
        exchange = exchange_of(request)
        exchange.is_unread, exchange.is_read_past = True, _is_small(request.headers)
        self._tell()
        await problem_response(request, refusal)(scope, receive, send)

    def _tell(self) -> None:
        """One line a second for all of them; each one is in the metrics."""
        self._untold += 1
        now = time.monotonic()
        if now - self._told >= 1.0:
            log.info("refused unread", requests=self._untold)
            self._untold, self._told = 0, now


def _is_small(headers: Headers) -> bool:
    """Also that it comes at all: who expects to be told to go on and is refused may well not send it."""
    length = headers.get("content-length", "")
    return length.isascii() and length.isdigit() and int(length) <= _SMALL_BYTES and "expect" not in headers
