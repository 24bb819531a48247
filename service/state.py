"""What the routes share: settings, the models from their start to their end, caches and stores. One `State` per application."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import structlog
from fastapi import Request

from bindery.bundle import Bundle, find_bundle
from bindery.collections import CollectionStore, open_store
from bindery.engine.engine import Engine
from bindery.errors import BinderyError, EngineDown, Starting
from bindery.jobs.ledger import Ledger
from bindery.limits import Limits
from bindery.scratch import scratch_folder, sweep
from bindery.settings import Settings
from service.exchange import Exchange
from service.jobs import Jobs, Roots
from service.labels import LabelVectors
from service.models import Models
from service.observe import Metrics
from service.remote import Fetcher, policy_of
from service.tracing import Traces, open_traces

log = structlog.get_logger(__name__)


class State:
    """Made with the application, opened and closed by its lifespan."""

    def __init__(self, settings: Settings, fetcher: Fetcher | None = None, traces: Traces | None = None) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.fetcher = fetcher or Fetcher(policy_of(settings), settings.limits)
        self.traces = traces or open_traces(settings)
        self.label_vectors = LabelVectors(self.metrics)
        self._models = Models(settings, self.metrics)
        self._ready = False
        self._store: CollectionStore | None = None
        self._ledger: Ledger | None = None
        self._jobs: Jobs | None = None
        self._failure: BinderyError | None = None
        self._starting: asyncio.Task[None] | None = None
        self._folders = ExitStack()
        self._spool: Path | None = None

    @property
    def limits(self) -> Limits:
        return self.settings.limits

    @property
    def models(self) -> Models:
        """The models once those of the settings are loaded. Raises `Starting`, `EngineDown`."""
        if self._failure is not None:
            raise EngineDown("the bundle could not be loaded; the server's log says why", retry_after_ms=30_000)
        if not self._ready:
            raise Starting("the models are still being loaded", retry_after_ms=1000)
        return self._models

    @property
    def engine(self) -> Engine:
        """The default model's, as of now. Raises as `models`; what lasts as long as a request takes `models.held`."""
        return self.models.default

    @property
    def bundle(self) -> Bundle:
        return self.engine.bundle

    @property
    def store(self) -> CollectionStore:
        """Collections and label sets; synchronous, so call it in a thread. Raises as `models` does: without a bundle there is no space."""
        _ = self.models
        assert self._store is not None, "the store is opened before the engine is. This is a bug."
        return self._store

    @property
    def jobs(self) -> Jobs:
        """Raises as `engine` does."""
        _ = self.engine
        if self._jobs is None:
            raise Starting("the jobs are still being looked at", retry_after_ms=1000)
        return self._jobs

    @property
    def failed(self) -> bool:
        return self._failure is not None or any(engine.state == "failed" for engine in self._models.engines)

    @property
    def spool(self) -> Path:
        """Where uploads lie while their request runs."""
        assert self._spool is not None, "the application was not started. This is a bug."
        return self._spool

    @property
    def standing(self) -> Literal["starting", "ready", "failed"]:
        """Whether `models` gives the models, as of now."""
        return "failed" if self._failure is not None else "ready" if self._ready else "starting"

    @property
    def engines(self) -> list[Engine]:
        """Those that have a name as of now, the default one first, also while others are still being loaded."""
        return self._models.engines

    def keep(self, engine: Engine) -> Callable[[], None]:
        """As `Models.entered`."""
        return self._models.entered(engine)

    def models_changed(self, call: Callable[[], None]) -> None:
        """Have ``call`` called whenever `engines` are others than before."""
        self._models.on_change = call

    async def crowd(self, modality: str | None, exchange: Exchange) -> BinderyError | None:
        """What a request is refused with before its body is read. Only when there is a crowd at every model: which one is wanted
        stands in the body."""
        deadline = None if exchange.asked_ms is None else exchange.started + exchange.asked_ms / 1000
        refusal: BinderyError | None = None
        for engine in self._models.engines if self.standing == "ready" else ():  # else the route says why not
            known = modality if modality is not None and modality in engine.encoders else next(iter(engine.encoders), "")
            refusal = engine.crowd(known, exchange.priority, deadline)
            if refusal is None:
                return None
        return refusal

    async def open(self) -> None:
        """Begin to start the engine; returns before it is ready.

        Raises `BundleNotFound` when there is nothing to start, and `CatalogDamaged`, `CatalogTooNew`, `InvalidParameter` for the
        data directory: a server that could never be ready shall not begin to listen.
        """
        directories = [find_bundle(name, self.settings.bundle_places()) for name in self.settings.bundle_names()]
        self._store = await asyncio.to_thread(open_store, self.settings)
        self._ledger = await asyncio.to_thread(Ledger, self.settings.data_dir)
        await asyncio.to_thread(sweep)
        self._spool = self._folders.enter_context(scratch_folder("uploads"))
        self._starting = asyncio.create_task(self._start(directories), name="engine-start")

    async def close(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._jobs is not None:
            await self._jobs.close()
        await self.label_vectors.stop()
        await self._models.close(self.settings.drain_seconds)
        for opened in (self._ledger, self._store):
            if opened is not None:
                await asyncio.to_thread(opened.close)
        self.fetcher.close()
        if self.traces is not None:
            await asyncio.to_thread(self.traces.close)
        await asyncio.to_thread(self._folders.close)

    def _made_jobs(self) -> Jobs:
        assert self._store is not None, "the store is opened before the engine is. This is a bug."
        assert self._ledger is not None, "the ledger is opened before the engine is. This is a bug."
        return Jobs(lambda: self.models, self._store, self._ledger, Roots(self.settings.job_roots))

    async def _start(self, directories: Sequence[Path]) -> None:
        try:
            await self._models.start(directories)
        except BinderyError as error:
            self._failure = error
            log.error("start failed", code=error.code, detail=error.detail, bundle=self.settings.bundle)
        except Exception as error:
            self._failure = EngineDown("the engine could not be started")
            self._failure.__cause__ = error
            log.exception("start failed", bundle=self.settings.bundle)
        else:
            self._ready = True
            self._models.on_change()
            self._jobs = self._made_jobs()
            self.metrics.watch_jobs(self._jobs.quiet_s)
            await self._jobs.go_on()


def state_of(request: Request) -> State:
    state: State = request.app.state.service
    return state
