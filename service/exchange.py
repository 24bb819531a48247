"""One request and its answer, as far as every route cares: who asked, since when, until when, and where the time went."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import get_args

from fastapi import Request
from starlette.datastructures import Headers

from bindery.engine.embedded import Embedded
from bindery.engine.lanes import Priority
from bindery.errors import BinderyError, InvalidHeader, UnsupportedMedia
from bindery.limits import Limits
from service.remote import Fetcher
from service.tracing import ITEMS_SHOWN, Stretch, stages

STAGES = ("admit", "decode", "queue", "infer")
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
_SAFE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


@dataclass(slots=True)
class Exchange:
    request_id: str
    fetcher: Fetcher  # of this request's URLs
    started: float = field(default_factory=time.monotonic)
    stages_ms: dict[str, float] = field(default_factory=dict)
    items: int = 0
    bytes: int = 0  # of the body, so far
    key: str | None = None  # the name of the key that came with it
    priority: Priority = "interactive"
    ends: float | None = None
    asked_ms: int | None = None
    """What `X-Request-Timeout-Ms` asked for, already bounded."""
    endings: list[Callable[[], None]] = field(default_factory=list)
    is_unread: bool = False
    """Refused before it was looked at: of these there are hundreds a second, so they get no line in the log and no eye on their line."""
    is_read_past: bool = False
    """Answered without its body, which is small: the HTTP server throws away what comes of it, and the connection is kept."""
    is_traced: bool = False
    items_traced: list[Stretch] = field(default_factory=list)

    @classmethod
    def begin(cls, headers: Headers, fetcher: Fetcher) -> Exchange:
        """The caller's id when it is short and harmless, else a new one."""
        given = headers.get("x-request-id", "")
        return cls(given if _SAFE_ID.fullmatch(given) else f"{random.getrandbits(128):032x}", fetcher)  # not secret, so no system call

    def read(self, headers: Headers, limits: Limits) -> None:
        """Take over what the headers ask for. Raises `InvalidHeader`, `UnsupportedMedia`."""
        self.asked_ms = _timeout(headers.get("x-request-timeout-ms"), limits)
        self.priority = _priority(headers.get("x-priority"))
        encoding = headers.get("content-encoding", "identity").lower()
        if encoding != "identity":
            raise UnsupportedMedia(f"the body is compressed (Content-Encoding: {encoding[:40]}); send it as it is")

    def deadline(self, limits: Limits) -> float:
        """On `time.monotonic`'s clock. A time that the caller asked for runs from the request's beginning; the default one
        runs from the first call, when the body is in, so that a slow line (which has a floor of its own) does not eat it up."""
        if self.ends is None:
            asked = self.asked_ms is not None
            self.ends = self.started + (self.asked_ms or 0) / 1000 if asked else time.monotonic() + limits.deadline_ms / 1000
        return self.ends

    def admitted(self, items: int) -> None:
        """The body is read and its items go to the engine."""
        self.items += items
        self.stages_ms.setdefault("admit", self.elapsed_ms())

    def spent(self, stages_ms: Mapping[str, float]) -> None:
        """Items run side by side, so a stage of the request lasts as long as its slowest item."""
        for stage, milliseconds in stages_ms.items():
            self.stages_ms[stage] = max(self.stages_ms.get(stage, 0.0), milliseconds)

    def embedded(self, model: str, modality: str, began: float, outcome: Embedded | BinderyError) -> None:
        """One item has its outcome, now."""
        if not self.is_traced or len(self.items_traced) == ITEMS_SHOWN:
            return
        now, about = time.monotonic(), {"bindery.model": model, "bindery.modality": modality}
        if isinstance(outcome, BinderyError):
            self.items_traced.append(Stretch("item", began, now, about, error=outcome.code))
            return
        parts = stages(now, outcome.timings_ms, outcome.batch)
        self.items_traced.append(Stretch("item", began, now, {**about, "bindery.cached": not parts}, parts=parts))

    def stretch(self, method: str, route: str, status: int, replying_since: float | None) -> Stretch:
        """The whole of it, now that it is over, for the traces."""
        now = time.monotonic()
        parts = list(self.items_traced)
        if "admit" in self.stages_ms:
            parts.insert(0, Stretch("admit", self.started, self.started + self.stages_ms["admit"] / 1000))
        if replying_since is not None:
            parts.append(Stretch("reply", replying_since, now))
        about: dict[str, str | int | bool] = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            "http.request.body.size": self.bytes,
            "bindery.request_id": self.request_id,
            "bindery.items": self.items,
        }
        error = str(status) if status >= 500 else None
        return Stretch(f"{method} {route}", self.started, now, about, error, tuple(parts))

    def at_the_end(self, call: Callable[[], None]) -> None:
        """Call it when the request has its answer, or nobody waits for one any more."""
        self.endings.append(call)

    def end(self) -> None:
        while self.endings:
            self.endings.pop()()

    def elapsed_ms(self) -> float:
        return (time.monotonic() - self.started) * 1000

    def server_timing(self) -> str:
        shown = {stage: self.stages_ms.get(stage, 0.0) for stage in STAGES} | {"total": self.elapsed_ms()}
        return ", ".join(f"{stage};dur={milliseconds:.2f}" for stage, milliseconds in shown.items())


def exchange_of(request: Request) -> Exchange:
    exchange: Exchange = request.state.exchange
    return exchange


def _priority(value: str | None) -> Priority:
    for priority in PRIORITIES:
        if value in (None, priority):
            return priority
    raise InvalidHeader(f"X-Priority is {(value or '')[:40]!r}; use {' or '.join(PRIORITIES)}")


def _timeout(value: str | None, limits: Limits) -> int | None:
    if value is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", value) or int(value) == 0:
        raise InvalidHeader(f"X-Request-Timeout-Ms is {value[:40]!r}; give whole milliseconds, at least 1")
    return min(int(value), limits.deadline_max_ms)
