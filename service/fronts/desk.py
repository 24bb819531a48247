"""The engine's side: HTTP processes come to this desk with items to embed, and hand whole requests over to the application."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import structlog

from bindery.engine.engine import Engine
from bindery.errors import BinderyError, EngineDown, InternalError
from service.clips import embed_or_cut
from service.embedding import embed_items
from service.exchange import Exchange
from service.fronts.line import Blob, Header, Line, refused
from service.fronts.packing import pack_outcomes, pack_stretches, unpack_items
from service.fronts.relay import Handed
from service.shares import Allowance, Shares
from service.state import State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi import FastAPI

log = structlog.get_logger(__name__)

_LOOK_S = 0.1  # how soon a change of the engines' state is told
Answer = tuple[Header, list[Blob]]


class Desk:
    """One for the application; lives on its event loop."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.state: State = app.state.service
        self.shares: Shares = app.state.shares
        self._numbers = itertools.count()
        self._numbered: WeakKeyDictionary[Engine, int] = WeakKeyDictionary()
        self._visits: set[_Visit] = set()

    @asynccontextmanager
    async def open(self, socket: Path) -> AsyncIterator[None]:
        """Takes what comes to ``socket``, a path in a folder that only this user can enter, until the context ends."""
        server = await asyncio.get_running_loop().create_unix_server(lambda: _Visit(self).line, str(socket))
        watch = asyncio.create_task(self._watch(), name="fronts-watch")
        self.state.models_changed(self._tell)
        try:
            yield
        finally:
            watch.cancel()
            server.close()
            for visit in list(self._visits):
                visit.line.close()
            await asyncio.gather(*(visit.over() for visit in list(self._visits)), watch, return_exceptions=True)

    def number(self, engine: Engine) -> int:
        if engine not in self._numbered:
            self._numbered[engine] = next(self._numbers)
        return self._numbered[engine]

    def numbered(self, number: int) -> Engine:
        """Raises `EngineDown` for one that is unloaded; while an HTTP process holds it, it is not."""
        found = next((engine for engine, known in self._numbered.items() if known == number), None)
        if found is None:
            raise EngineDown("the model was unloaded meanwhile", retry_after_ms=1000)
        return found

    def news(self) -> Header:
        return {"state": self.state.standing, "failed": self.state.failed}

    def arrive(self, visit: _Visit) -> None:
        self._visits.add(visit)

    def leave(self, visit: _Visit) -> None:
        self._visits.discard(visit)
        self.count()

    def count(self) -> None:
        """How many HTTP processes there are."""
        self.state.metrics.http_workers.set(sum(visit.is_front for visit in self._visits))

    def _tell(self) -> None:
        for visit in self._visits:
            visit.tell()

    async def _watch(self) -> None:
        known = self.news()
        while True:
            await asyncio.sleep(_LOOK_S)
            if (now := self.news()) != known:
                known = now
                self._tell()


class _Visit:
    """One line to the desk, and all that is done for it; when it is lost, that is cancelled, released and counted out."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._state = desk.state
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._held: dict[int, tuple[Engine, Callable[[], None]]] = {}
        self._inside: list[str] = []
        self._running = 0
        self._handed: Handed | None = None
        self.is_front = False
        self._worker = ""
        self.line = Line(self._take, self._end)
        desk.arrive(self)

    def tell(self) -> None:
        """The models with their manifests, and hold each until the other side says that nobody there needs it."""
        if not self.is_front:
            return
        engines = self._state.engines
        for engine in engines:
            number = self._desk.number(engine)
            if number not in self._held:
                self._held[number] = (engine, self._state.keep(engine))
        self.line.send({**self._desk.news(), "models": [_told(self._desk.number(engine), engine) for engine in engines]})

    async def over(self) -> None:
        """Everything that was begun for it has ended."""
        handed = () if self._handed is None else (self._handed.task,)
        await asyncio.gather(*self._tasks.values(), *handed, return_exceptions=True)

    def _take(self, header: Header, body: bytes) -> None:
        if self._handed is not None:
            self._handed.take(header, body)
            return
        doing = _ANSWERED.get(header["op"])
        if doing is None:
            _NOTED[header["op"]](self, header)
            return
        task = asyncio.create_task(self._answer(header, body, doing))
        self._tasks[header["n"]] = task
        task.add_done_callback(lambda _: self._tasks.pop(header["n"], None))

    async def _answer(self, header: Header, body: bytes, doing: Doing) -> None:
        structlog.contextvars.bind_contextvars(request_id=header.get("id", ""))
        try:
            answer, blobs = await doing(self, header, body)
        except BinderyError as error:
            answer, blobs = refused(error), []
        except Exception:
            log.exception("unhandled error", op=header["op"])
            answer, blobs = refused(InternalError("something went wrong in the server; the request id finds it in the log")), []
        self.line.send({"n": header["n"], **answer}, blobs)

    def _end(self) -> None:
        if self._handed is not None:
            self._handed.lost()
        for task in self._tasks.values():
            task.cancel()
        for _engine, leave in self._held.values():
            leave()
        self._held.clear()
        for who in self._inside:
            self._desk.shares.leave(who)
        self._inside.clear()
        self._state.metrics.in_flight.dec(self._running)
        self._desk.leave(self)

    async def _embed(self, header: Header, body: bytes) -> Answer:
        engine = self._desk.numbered(header["engine"])
        exchange = Exchange(header["id"], self._state.fetcher, started=header["began"], priority=header["priority"], ends=header["until"])
        exchange.is_traced = header["traced"]
        items = unpack_items(header, body, engine.bundle)
        answer: Header = {}
        blobs: list[Blob] = []
        try:
            outcomes = await (embed_or_cut if header["cut"] else embed_items)(engine, items, exchange)
        except BinderyError as error:
            answer = refused(error)
        else:
            answer["outcomes"], vectors = pack_outcomes(outcomes)
            blobs += vectors
        answer |= {"items": exchange.items, "stages": exchange.stages_ms}
        if exchange.items_traced:
            answer["traced"] = pack_stretches(exchange.items_traced)
        return answer, blobs

    async def _labels(self, header: Header, _: bytes) -> Answer:
        engine = self._desk.numbered(header["engine"])
        vectors = await self._state.label_vectors.of(engine, header["labels"], header["templates"], header["until"])
        return {}, [np.ascontiguousarray(vectors).tobytes()]

    async def _label_set(self, header: Header, _: bytes) -> Answer:
        found = await asyncio.to_thread(self._state.store.label_set, header["name"])
        return {"name": found.name, "labels": found.labels, "templates": found.templates}, []

    async def _enter(self, header: Header, _: bytes) -> Answer:
        who, allowance = header["who"], Allowance(header["rate"], header["inflight"])
        error, headers, _leave = await self._desk.shares.count_in(who, allowance)
        if error is not None:
            return {**refused(error), "headers": headers}, []
        self._inside.append(who)
        return {"headers": headers}, []

    async def _crowd(self, header: Header, _: bytes) -> Answer:
        exchange = Exchange("", self._state.fetcher, started=header["began"], priority=header["priority"], asked_ms=header["asked_ms"])
        refusal = await self._state.crowd(header["modality"], exchange)
        return {} if refusal is None else refused(refusal), []

    async def _pong(self, _: Header, __: bytes) -> Answer:
        return {}, []

    def _hello(self, header: Header) -> None:
        self.is_front, self._worker = True, header["worker"]
        self._desk.count()
        self._state.metrics.watch_worker(self._worker, header["pid"])
        if header["restarted"]:
            self._state.metrics.http_workers_replaced.inc()
        self.tell()

    def _hand_over(self, header: Header) -> None:
        self._state.metrics.worker_answered(header["worker"], 1)
        self._handed = Handed(self.line, self._desk.app, header)

    def _cancel(self, header: Header) -> None:
        task = self._tasks.get(header["of"])
        if task is not None:
            task.cancel()

    def _released(self, header: Header) -> None:
        _engine, leave = self._held.pop(header["engine"])
        leave()

    def _leave(self, header: Header) -> None:
        self._inside.remove(header["who"])
        self._desk.shares.leave(header["who"])

    def _report(self, header: Header) -> None:
        metrics = self._state.metrics
        for method, route, status, seconds in header["answered"]:
            metrics.answered(method, route, status, seconds)
        metrics.worker_answered(self._worker, len(header["answered"]))
        metrics.body_bytes.inc(header["bytes"])
        metrics.in_flight.inc(header["running"] - self._running)
        self._running = header["running"]


def _told(number: int, engine: Engine) -> Mapping[str, Any]:
    bundle = engine.bundle
    manifest = bundle.manifest.model_dump(mode="json")
    return {"number": number, "name": engine.name, "root": str(bundle.root), "digest": bundle.digest, "manifest": manifest}


Doing = Callable[[_Visit, Header, bytes], Awaitable[Answer]]

_ANSWERED: Mapping[str, Doing] = {
    "embed": _Visit._embed,
    "labels": _Visit._labels,
    "label_set": _Visit._label_set,
    "enter": _Visit._enter,
    "crowd": _Visit._crowd,
    "ping": _Visit._pong,
}
_NOTED: Mapping[str, Callable[[_Visit, Header], None]] = {
    "hello": _Visit._hello,
    "request": _Visit._hand_over,
    "cancel": _Visit._cancel,
    "released": _Visit._released,
    "leave": _Visit._leave,
    "report": _Visit._report,
}
