"""Shares: how often, and how often at once, one caller may come. A caller is a key, or an address where there are no keys.

Used from the event loop only, so nothing here is locked.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from bindery.errors import BinderyError, RateLimited, TooManyInflight

CALLERS = 10_000  # addresses are many: beyond, the ones that have not been seen for longest are forgotten
INFLIGHT_RETRY_MS = 1000  # when one of the caller's own requests ends is not known


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one caller may do; None is no bound."""

    requests_per_minute: int | None = None
    inflight: int | None = None

    @property
    def unbounded(self) -> bool:
        return self.requests_per_minute is None and self.inflight is None


@dataclass(slots=True)
class _Account:
    tokens: float
    seen: float
    running: int = 0


class Counting(Protocol):
    """Where requests are counted: here, or in the process that all HTTP processes share."""

    async def count_in(self, who: str, allowance: Allowance) -> tuple[BinderyError | None, Mapping[str, str], Callable[[], None]]:
        """See `Shares.count_in`."""


class Shares:
    def __init__(self, clock: Callable[[], float] = monotonic, capacity: int = CALLERS) -> None:
        self._clock = clock
        self._capacity = capacity
        self._accounts: OrderedDict[str, _Account] = OrderedDict()

    async def count_in(self, who: str, allowance: Allowance) -> tuple[BinderyError | None, Mapping[str, str], Callable[[], None]]:
        """One request in, unless the error says no; the headers that its answer carries; and what counts it out again."""
        try:
            self.enter(who, allowance)
        except BinderyError as error:
            return error, self.headers(who, allowance), lambda: None
        return None, self.headers(who, allowance), lambda: self.leave(who)

    def enter(self, who: str, allowance: Allowance) -> None:
        """Count one request in; `leave` counts it out. Raises `TooManyInflight`, `RateLimited`, and then it was not counted."""
        account = self._account(who, allowance)
        if allowance.inflight is not None and account.running >= allowance.inflight:
            raise TooManyInflight(
                f"{account.running} of your requests are being worked on, and {allowance.inflight} may be at once; wait for one to end",
                retry_after_ms=INFLIGHT_RETRY_MS,
            )
        rate = allowance.requests_per_minute
        if rate is not None and account.tokens < 1:
            wait_ms = math.ceil((1 - account.tokens) * 60_000 / rate)
            raise RateLimited(f"{rate} requests a minute are allowed to you; come again in {wait_ms} ms", retry_after_ms=wait_ms)
        if rate is not None:
            account.tokens -= 1
        account.running += 1

    def leave(self, who: str) -> None:
        self._accounts[who].running -= 1

    def headers(self, who: str, allowance: Allowance) -> dict[str, str]:
        """`RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers) as they stand now."""
        account = self._account(who, allowance)
        policies, left = [], []
        if allowance.requests_per_minute is not None:
            rate = allowance.requests_per_minute
            policies.append(f'"requests";q={rate};w=60')
            left.append(f'"requests";r={int(account.tokens)};t={math.ceil((rate - account.tokens) * 60 / rate)}')
        if allowance.inflight is not None:
            policies.append(f'"inflight";q={allowance.inflight};qu="concurrent-requests"')
            left.append(f'"inflight";r={max(0, allowance.inflight - account.running)}')
        return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(left)} if policies else {}

    def _account(self, who: str, allowance: Allowance) -> _Account:
        """The caller's account with its tokens as of now: a bucket of one minute's worth that fills all the time."""
        now, rate = self._clock(), allowance.requests_per_minute or 0
        account = self._accounts.setdefault(who, _Account(tokens=rate, seen=now))
        account.tokens = min(float(rate), account.tokens + (now - account.seen) * rate / 60)
        account.seen = now
        self._accounts.move_to_end(who)
        self._forget()
        return account

    def _forget(self) -> None:
        """Drop the oldest accounts beyond the capacity, but none with a request in work."""
        excess = len(self._accounts) - self._capacity
        if excess > 0:
            for who in [who for who, account in self._accounts.items() if account.running == 0][:excess]:
                del self._accounts[who]
