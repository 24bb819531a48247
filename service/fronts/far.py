"""The engine's process as an HTTP process sees it: the same models, label vectors, label sets and shares, each a question away."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog

from bindery.bundle import Bundle, Manifest
from bindery.collections import LabelSet
from bindery.errors import BinderyError, EngineDown, QueueFull, Starting
from bindery.limits import Limits
from bindery.vectors import Vectors
from service.exchange import Exchange
from service.fronts.line import Calls, Header, check, engine_down, worker_name
from service.fronts.packing import Outcome, pack_items, unpack_outcomes, unpack_stretches, unpacked_error
from service.inputs import Item
from service.models import check_modality, unknown_model
from service.shares import Allowance

if TYPE_CHECKING:
    from collections.abc import Iterator

log = structlog.get_logger(__name__)

BIG_BYTES = 256 * 1024
"""What a question may carry on the line that all share; more goes over a line of its own, and holds up nobody."""
CROWD_S = 1.0  # after a refusal by the queue: for so long the engine is asked whether it is crowded before a body is read
_TOLD_S = 0.02  # between two reports of requests answered
_AGAIN_S = 0.05  # between two tries to reach the engine
_FIRST_WORD_S = 3.0
_PING_S, _STUCK_S = 5.0, 30.0


@dataclass(eq=False)
class FarEngine:
    """One model of the engine's process: all that the routes look at, and one call for a request's items."""

    number: int
    name: str
    bundle: Bundle
    limits: Limits
    link: Link
    calls: Calls
    requests: int = 0
    retired: bool = False

    async def embed_items(self, items: Sequence[Item], exchange: Exchange, *, cut: bool) -> list[Outcome]:
        """As `service.embedding.embed_items`, or with ``cut`` as `service.clips.embed_or_cut`: the engine's process does just that."""
        packed, blobs = pack_items(items)
        question = {
            "op": "embed",
            "engine": self.number,
            "cut": cut,
            "id": exchange.request_id,
            "began": exchange.started,
            "until": exchange.deadline(self.limits),
            "priority": exchange.priority,
            "traced": exchange.is_traced,
            **packed,
        }
        if sum(map(len, blobs)) > BIG_BYTES:
            answer, body = await self.link.ask_alone(question, blobs)
        else:
            answer, body = await self.calls.ask(question, blobs)
        exchange.items += answer.get("items", 0)
        exchange.spent(answer.get("stages", {}))
        exchange.items_traced += unpack_stretches(answer.get("traced", ()))
        try:
            check(answer)
        except QueueFull:
            self.link.refused_at = monotonic()
            raise
        return unpack_outcomes(answer["outcomes"], body, self.bundle.manifest.dimension)

    def enter(self) -> None:
        self.requests += 1

    def leave(self) -> None:
        self.requests -= 1
        self.release_if_unused()

    def release_if_unused(self) -> None:
        if self.retired and self.requests == 0:
            self.calls.line.send({"op": "released", "engine": self.number})


class FarModels:
    """As `service.models.Models`, as far as embedding goes."""

    def __init__(self, engines: Sequence[FarEngine]) -> None:
        """``engines``: the default one first."""
        self.engines = list(engines)

    @property
    def default(self) -> FarEngine:
        return self.engines[0]

    def held(self, name: str | None, exchange: Exchange) -> FarEngine:
        """The engine of that name, or the default one; it stays loaded until the exchange has ended. Raises `UnknownModel`."""
        engine = self.default if name is None else next((one for one in self.engines if one.name == name), None)
        if engine is None:
            raise unknown_model(name, self.engines)
        engine.enter()
        exchange.at_the_end(engine.leave)
        return engine

    def check_modality(self, modality: str) -> None:
        check_modality(modality, self.engines)


class Link:
    """The line to the engine's process, made again whenever that is a new one, and what it last said of itself."""

    def __init__(self, socket: Path, limits: Limits, *, restarted: bool) -> None:
        self._socket = socket
        self._limits = limits
        self._restarted = restarted
        self._calls: Calls | None = None
        self._engines: dict[int, FarEngine] = {}
        self._models = FarModels(())
        self._state = "starting"
        self._failed = False
        self._heard = asyncio.Event()
        self._lost = asyncio.Event()
        self.loop: asyncio.AbstractEventLoop
        self._answered_at = monotonic()
        self._task: asyncio.Task[None] | None = None
        self.reports = Reports(self)
        self.refused_at = -CROWD_S

    @property
    def models(self) -> FarModels:
        """Raises `Starting`, `EngineDown`, as `service.state.State.models` does."""
        if self._state == "failed":
            raise EngineDown("the bundle could not be loaded; the server's log says why", retry_after_ms=30_000)
        if self._state == "gone":
            raise engine_down()
        if self._state == "starting":
            raise Starting("the models are still being loaded", retry_after_ms=1000)
        return self._models

    @property
    def calls(self) -> Calls:
        """Raises `EngineDown`."""
        if self._calls is None:
            raise engine_down()
        return self._calls

    @property
    def failed(self) -> bool:
        """Whether only a restart helps: the engine says so itself, or its process is there and says nothing any more."""
        return self._failed or (self._calls is not None and monotonic() - self._answered_at > _STUCK_S)

    async def open(self) -> None:
        """Begin to hold the line. Waits a moment for the engine's first word, so that a process which is started again beside a
        running engine does not say that there is none."""
        self.loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._stay(), name="engine-link")
        with suppress(TimeoutError):
            await asyncio.wait_for(self._heard.wait(), _FIRST_WORD_S)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.reports.send()
        if self._calls is not None:
            self._calls.line.close()

    async def ask(self, question: Header) -> tuple[Header, bytes]:
        """Raises `EngineDown`, and the error that the answer is."""
        answer, body = await self.calls.ask(question)
        check(answer)
        return answer, body

    async def crowd(self, modality: str | None, exchange: Exchange) -> BinderyError | None:
        """What the engine would refuse a request with before its body is read; it is asked only when it has just refused one."""
        if monotonic() - self.refused_at > CROWD_S or self._calls is None:
            return None
        asked = {"began": exchange.started, "asked_ms": exchange.asked_ms, "priority": exchange.priority, "modality": modality}
        answer, _ = await self._calls.ask({"op": "crowd", **asked})
        return unpacked_error(answer["error"]) if "error" in answer else None

    async def ask_alone(self, question: Header, blobs: Sequence[bytes]) -> tuple[Header, bytes]:
        """As `Calls.ask`, over a line that is there for this."""
        calls = await Calls.to(self._socket)
        try:
            return await calls.ask(question, blobs)
        finally:
            calls.line.close()

    async def _stay(self) -> None:
        while True:
            self._lost.clear()
            try:
                self._calls = await Calls.to(self._socket, self._hear, self._lost.set)
            except EngineDown:
                await asyncio.sleep(_AGAIN_S)
                continue
            self._answered_at = monotonic()
            self._calls.line.send({"op": "hello", "restarted": self._restarted, "worker": worker_name(), "pid": os.getpid()})
            pings = asyncio.create_task(self._ping(self._calls), name="engine-pings")
            try:
                await self._lost.wait()
            finally:
                pings.cancel()
            log.warning("the engine's process is gone")
            self._calls, self._state, self._failed, self._engines, self._models = None, "gone", False, {}, FarModels(())

    async def _ping(self, calls: Calls) -> None:
        with suppress(EngineDown):
            while True:
                await calls.ask({"op": "ping"})
                self._answered_at = monotonic()
                await asyncio.sleep(_PING_S)

    def _hear(self, news: Header) -> None:
        if "models" in news:
            self._take(news["models"])
        self._state, self._failed = news["state"], news["failed"]
        self._heard.set()

    def _take(self, told: Sequence[Mapping[str, Any]]) -> None:
        """The models from now on, the default one first."""
        engines = [self._engines.get(one["number"]) or self._made(one) for one in told]
        before, self._engines = self._engines, {engine.number: engine for engine in engines}
        self._models = FarModels(engines)
        for number, engine in before.items():
            if number not in self._engines:
                engine.retired = True
                engine.release_if_unused()

    def _made(self, told: Mapping[str, Any]) -> FarEngine:
        manifest = Manifest.model_validate(told["manifest"])
        bundle = Bundle(Path(told["root"]), manifest, told["digest"])
        return FarEngine(told["number"], told["name"], bundle, self._limits, self, self.calls)


class Reports:
    """Requests answered here, for the metrics of the engine's process: they outlive this process, and one scrape has them all.

    It has the methods of `service.observe.Metrics` that `service.edge` calls.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._rows: list[list[Any]] = []
        self._bytes = 0
        self._running = 0
        self._sent_at = 0.0
        self._later: asyncio.TimerHandle | None = None
        self.body_bytes = self
        self.in_flight = self

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        self._rows.append([method, route, status, seconds])
        self._soon()

    def inc(self, count: int) -> None:
        """Bytes of a body."""
        self._bytes += count

    @contextmanager
    def track_inprogress(self) -> Iterator[None]:
        self._running += 1
        self._soon()
        try:
            yield
        finally:
            self._running -= 1

    def send(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        try:
            line = self._link.calls.line
        except EngineDown:  # kept for the next engine
            del self._rows[:-10_000]
            return
        line.send({"op": "report", "answered": self._rows, "bytes": self._bytes, "running": self._running})
        self._rows, self._bytes, self._sent_at = [], 0, monotonic()

    def _soon(self) -> None:
        if self._later is None:
            loop = asyncio.get_running_loop()
            self._later = loop.call_later(max(0.0, self._sent_at + _TOLD_S - monotonic()), self.send)


class FarLabels:
    """As `service.labels.LabelVectors`; the vectors are kept in the engine's process, for all."""

    async def of(self, engine: FarEngine, labels: Sequence[str], templates: Sequence[str], deadline: float | None) -> Vectors:
        question = {"op": "labels", "engine": engine.number, "labels": labels, "templates": templates, "until": deadline}
        answer, body = await engine.calls.ask(question)
        check(answer)
        return np.frombuffer(body, np.float32).reshape(-1, engine.bundle.manifest.dimension).copy()  # as aligned as its own would be


class FarStore:
    """As the collections' store, as far as classifying needs it. Its calls block: for threads."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def label_set(self, name: str) -> LabelSet:
        answer, _ = asyncio.run_coroutine_threadsafe(self._link.ask({"op": "label_set", "name": name}), self._link.loop).result()
        templates = answer["templates"]
        return LabelSet(answer["name"], tuple(answer["labels"]), None if templates is None else tuple(templates))


class FarShares:
    """As `service.shares.Shares`: counted in the engine's process, over all HTTP processes."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def count_in(self, who: str, allowance: Allowance) -> tuple[BinderyError | None, Mapping[str, str], Callable[[], None]]:
        calls = self._link.calls
        question = {"op": "enter", "who": who, "rate": allowance.requests_per_minute, "inflight": allowance.inflight}
        answer, _ = await calls.ask(question)
        error = unpacked_error(answer["error"]) if "error" in answer else None
        return error, answer["headers"], lambda: calls.line.send({"op": "leave", "who": who})
