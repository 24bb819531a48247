"""The open loop: every request is begun at its due time, and its latency counts from there, however late the sending was."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

from bindery.traffic.arrivals import Arrivals, due_times
from bindery.traffic.client import Client
from bindery.traffic.mix import Mix, Parcel

PATIENCE_S = 10.0
"""How much longer than the deadline an answer is waited for, before it counts as none."""


@dataclass(frozen=True, slots=True)
class Plan:
    url: str
    rate: float = 20.0  # requests a second
    duration_s: float = 30.0
    arrivals: Arrivals = "poisson"
    deadline_ms: int = 30_000
    poison: float = 0.0  # share of requests with a broken file
    connections: int = 512
    key: str | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one request ended. ``status`` 0: without an answer; ``code`` says why, or is the error's code, or empty.

    ``lag_ms``: of its latency, how late the generator was with it, which shares its cores with the server where both are on one machine.
    """

    kind: str
    due_s: float
    latency_ms: float
    status: int
    code: str
    poison: bool
    lag_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Run:
    plan: Plan
    outcomes: list[Outcome]
    cpu_share: float  # of one core, by this process, while requests were due
    began: float = 0.0  # on `time.monotonic`'s clock


async def run_load(plan: Plan, weights: dict[str, float]) -> Run:
    """Raises `InvalidParameter` for an address that is none; a server that does not answer shows in the outcomes."""
    rng = random.Random(plan.seed)
    mix = Mix(weights, plan.poison, rng)
    headers = {"X-Request-Timeout-Ms": str(plan.deadline_ms)}
    client = Client(plan.url, headers if plan.key is None else headers | {"Authorization": f"Bearer {plan.key}"})
    try:
        return await _OpenLoop(plan, client).run(mix, due_times(plan.rate, plan.duration_s, plan.arrivals, rng))
    finally:
        client.close()


class _OpenLoop:
    def __init__(self, plan: Plan, client: Client) -> None:
        self._plan = plan
        self._client = client
        self._outcomes: list[Outcome] = []
        self._open: set[asyncio.Task[None]] = set()

    async def run(self, mix: Mix, due: Iterator[float]) -> Run:
        began, busy = time.monotonic(), time.process_time()
        for at in due:
            parcel = mix.draw()
            wait = began + at - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            if len(self._open) >= self._plan.connections:
                self._outcomes.append(Outcome(parcel.kind, at, 0.0, 0, "client_dropped", parcel.poison))
                await asyncio.sleep(0)  # late or not, answers must be taken in
                continue
            task = asyncio.create_task(self._send(parcel, at, began))
            self._open.add(task)
            task.add_done_callback(self._open.discard)
        cpu_share = (time.process_time() - busy) / max(time.monotonic() - began, 1e-9)
        await asyncio.gather(*self._open)
        return Run(self._plan, sorted(self._outcomes, key=lambda outcome: outcome.due_s), cpu_share, began)

    async def _send(self, parcel: Parcel, due_s: float, began: float) -> None:
        status, code = 0, ""
        lag_ms = (time.monotonic() - began - due_s) * 1000
        try:
            async with asyncio.timeout(self._plan.deadline_ms / 1000 + PATIENCE_S):
                reply = await self._client.post(f"/v1/embed/{parcel.kind}", parcel.content_type, parcel.body)
            status, code = reply.status, _code(reply.status, reply.body)
        except TimeoutError:
            code = "no_answer"
        except (OSError, EOFError):
            code = "no_connection"
        latency_ms = (time.monotonic() - began - due_s) * 1000
        self._outcomes.append(Outcome(parcel.kind, due_s, latency_ms, status, code, parcel.poison, lag_ms))


def _code(status: int, body: bytes) -> str:
    """The code of the problem document; of an answer by something else than bindery, its status."""
    if status < 400:
        return ""
    try:
        return str(json.loads(body)["code"])
    except (ValueError, KeyError, TypeError):
        return f"http_{status}"
