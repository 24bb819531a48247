"""Callers that ask again as soon as they are answered: what a server can do at most."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bindery.traffic.client import Client
from bindery.traffic.mix import Parcel

OURS = "/v1/embed/{}"


@dataclass(slots=True)
class Tally:
    good: int = 0  # answered with 200
    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)  # of the good ones
    others: Counter[int] = field(default_factory=Counter)  # by status

    @property
    def per_s(self) -> float:
        return self.good / self.seconds


async def ask(url: str, parcels: Iterator[Parcel], callers: int, go_on: Callable[[int, float], bool], path: str = OURS) -> Tally:
    """Until ``go_on(requests begun, seconds)`` says no; then what is open is waited for and counts too."""
    client, tally = Client(url, {"X-Request-Timeout-Ms": "120000"}), Tally()
    began, begun = time.perf_counter(), 0

    async def caller() -> None:
        nonlocal begun
        while go_on(begun, time.perf_counter() - began):
            begun += 1
            parcel = next(parcels)
            asked = time.perf_counter()
            reply = await client.post(path.format(parcel.kind), parcel.content_type, parcel.body)
            if reply.status == 200:
                tally.good += 1
                tally.latencies_ms.append((time.perf_counter() - asked) * 1000)
            else:
                tally.others[reply.status] += 1

    try:
        await asyncio.gather(*(caller() for _ in range(callers)))
    finally:
        client.close()
    tally.seconds = time.perf_counter() - began
    return tally


def saturate(url: str, parcels: Iterator[Parcel], callers: int, seconds: float, least: int = 1, path: str = OURS) -> Tally:
    """For about ``seconds``, and until at least ``least`` requests were begun. ``path``: with ``{}`` for what is sent."""
    return asyncio.run(ask(url, parcels, callers, lambda begun, passed: passed < seconds or begun < least, path))


def one_by_one(url: str, parcels: Iterator[Parcel], count: int) -> Tally:
    return asyncio.run(ask(url, parcels, 1, lambda begun, _: begun < count))
