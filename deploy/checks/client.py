"""A plain HTTP client for the smoke check, and the memory of what was called.

Standard library only: it must run wherever Python does, against a service it shares nothing with.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class Failed(Exception):
    """A check did not see what it should have."""


def expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Failed(otherwise)


@dataclass(frozen=True)
class Reply:
    asked: str
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise Failed(f"{self.asked}: not JSON ({error}): {self.body[:200]!r}") from error

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip()


@dataclass(frozen=True)
class Part:
    """One field of a multipart form; a file when it has a file name."""

    name: str
    value: bytes
    filename: str | None = None
    media_type: str | None = None


class Client:
    """Calls one service and remembers every (method, path) that succeeded: a refusal drives nothing."""

    def __init__(self, base: str, timeout_s: float = 60.0, key: str | None = None) -> None:
        self.base = base.rstrip("/")
        self.timeout_s = timeout_s
        self._own = {} if key is None else {"Authorization": f"Bearer {key}"}
        self.driven: list[tuple[str, str]] = []
        # No proxy: the service itself is checked, not what stands before it.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(
        self,
        method: str,
        path: str,
        *,
        json_body: object = None,
        form: Sequence[Part] | None = None,
        raw: bytes | None = None,
        headers: dict[str, str] | None = None,
        status: int | tuple[int, ...] = 200,
    ) -> Reply:
        """The reply, whatever its status; `Failed` when that is not one of ``status``."""
        sent = self._own | (headers or {})
        body = raw
        if json_body is not None:
            body = json.dumps(json_body).encode()
            sent.setdefault("Content-Type", "application/json")
        elif form is not None:
            body, sent["Content-Type"] = _multipart(form)
        request = urllib.request.Request(self.base + path, data=body, method=method, headers=sent)
        reply = self._send(request, f"{method} {path}")
        if reply.status < 400:
            self.driven.append((method, path.partition("?")[0]))
        wanted = (status,) if isinstance(status, int) else status
        expect(reply.status in wanted, f"{reply.asked}: answered {reply.status}, not {wanted}: {reply.body[:300]!r}")
        return reply

    def _send(self, request: urllib.request.Request, asked: str) -> Reply:
        try:
            with self._opener.open(request, timeout=self.timeout_s) as answer:
                return Reply(asked, answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(asked, error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())
        except OSError as error:
            raise Failed(f"{asked}: {error}") from error

    def not_driven(self, openapi: dict[str, Any]) -> list[str]:
        """The operations of an OpenAPI document that no successful call has reached, as ``METHOD /path/{template}``."""
        operations = [
            (method.upper(), template) for template, methods in openapi["paths"].items() for method in methods if method in _METHODS
        ]
        # A literal segment wins over a parameter: POST /items/delete is not POST /items/{id}.
        operations.sort(key=lambda operation: operation[1].count("{"))
        patterns = {template: re.compile(re.sub(r"\\\{.*?\\\}", "[^/]+", re.escape(template))) for _, template in operations}
        reached = set()
        for method, path in self.driven:
            matching = (o for o in operations if o[0] == method and patterns[o[1]].fullmatch(path))
            reached.add(next(matching, None))
        return [f"{method} {template}" for method, template in operations if (method, template) not in reached]


_METHODS = {"get", "put", "post", "delete", "patch", "head", "options"}


def _multipart(parts: Sequence[Part]) -> tuple[bytes, str]:
    boundary = uuid.uuid4().hex
    pieces: list[bytes] = []
    for part in parts:
        disposition = f'form-data; name="{part.name}"' + (f'; filename="{part.filename}"' if part.filename is not None else "")
        head = f"--{boundary}\r\nContent-Disposition: {disposition}\r\n"
        if part.media_type:
            head += f"Content-Type: {part.media_type}\r\n"
        pieces += [head.encode(), b"\r\n", part.value, b"\r\n"]
    pieces.append(f"--{boundary}--\r\n".encode())
    return b"".join(pieces), f"multipart/form-data; boundary={boundary}"
