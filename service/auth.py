"""The doorkeeper: who may do what, by API key. Without keys everyone may do everything; with keys, what is not listed needs `admin`.

Pure ASGI, inside `service.edge` and the CORS rules. It reads headers and the path, never a body. A key is hashed and forgotten.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from functools import lru_cache

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bindery import keys
from bindery.errors import BinderyError, Forbidden, InvalidKey, MissingKey
from bindery.keys import Key
from bindery.settings import Settings
from service.exchange import exchange_of
from service.keyring import KeyRing
from service.problems import problem_response
from service.shares import Allowance, Counting

_ASKING = re.compile(r"/v1/(embeddings|similarity|embed/[^/]+|classify/[^/]+|collections/[^/]+/search)")
_STORING = re.compile(r"/v1/(label-sets|collections|aliases|jobs)/.+|/v1/jobs")


def scope_of(method: str, path: str, *, metrics_open: bool = True) -> keys.Scope | None:
    """The scope that a request needs; None is open to all. A call that nobody thought of needs `admin`."""
    if path == "/metrics" and not metrics_open:
        return "read"
    if not path.startswith("/v1") or method == "OPTIONS":  # health, the page, the documentation; OPTIONS tells methods only
        return None
    if method in ("GET", "HEAD") or (method == "POST" and _ASKING.fullmatch(path)):
        return "read"
    return "write" if _STORING.fullmatch(path) else "admin"


class Doorkeeper:
    def __init__(self, app: ASGIApp, ring: KeyRing, settings: Settings, shares: Counting) -> None:
        self._app = app
        self._ring = ring
        self._metrics_open = settings.metrics_open
        self._of_an_address = Allowance(settings.address_requests_per_minute, settings.address_inflight)
        self._shares = shares

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        needed = scope_of(scope["method"], scope["path"], metrics_open=self._metrics_open) if scope["type"] == "http" else None
        if needed is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            who, allowance = self._caller(request, needed)
        except BinderyError as error:
            await problem_response(request, error, headers=_challenge(error, needed))(scope, receive, send)
            return
        if allowance.unbounded:
            await self._app(scope, receive, send)
            return
        refusal, headers, count_out = await self._shares.count_in(who, allowance)
        if refusal is not None:
            await problem_response(request, refusal, headers=headers)(scope, receive, send)
            return
        try:
            await self._app(scope, receive, _telling(send, headers))
        finally:
            count_out()

    def _caller(self, request: Request, needed: keys.Scope) -> tuple[str, Allowance]:
        """Who asks, and what that caller may. Raises `MissingKey`, `InvalidKey`, `Forbidden`."""
        if not self._ring.closed:
            return _address(request), self._of_an_address
        key = self._key(request.headers)
        exchange_of(request).key = key.name
        if not key.allows(needed):
            raise Forbidden(f"the key {key.name!r} has the scopes {', '.join(key.scopes)}; this call needs {needed}")
        return f"key {key.name}", Allowance(key.requests_per_minute, key.inflight)

    def _key(self, headers: Headers) -> Key:
        given = headers.get("authorization")
        if given is None:
            raise MissingKey("this server asks for a key; send it as `Authorization: Bearer KEY`")
        scheme, _, secret = given.partition(" ")
        found = self._ring.find(secret.strip()) if scheme.lower() == "bearer" else None
        if found is None:
            raise InvalidKey("the Authorization header holds no key that this server knows; it takes `Bearer KEY`")
        return found


def _challenge(error: BinderyError, needed: keys.Scope) -> dict[str, str]:
    """`WWW-Authenticate` as RFC 6750 has it."""
    reasons: Mapping[type[BinderyError], str] = {
        InvalidKey: ', error="invalid_token"',
        Forbidden: f', error="insufficient_scope", scope="{needed}"',
    }
    return {"WWW-Authenticate": f'Bearer realm="bindery"{reasons.get(type(error), "")}'}


def _address(request: Request) -> str:
    """Whom a connection belongs to. One household has a whole IPv6 /64, so that counts as one caller."""
    return _caller_of(request.client.host if request.client else "unknown")


@lru_cache(4096)
def _caller_of(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a UNIX socket or a test client: all of them are one
        return host
    return host if address.version == 4 else str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))


def _telling(send: Send, headers: Mapping[str, str]) -> Send:
    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(headers)
        await send(message)

    return told
