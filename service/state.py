"""What the routes share: settings, the engine in its life cycle, caches and stores. One `State` per application."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import structlog
from fastapi import Request

from bindery.bundle import Bundle, find_bundle, open_bundle
from bindery.collections import Store
from bindery.engine.engine import Engine, EnginePolicy
from bindery.errors import BinderyError, EngineDown, Starting
from bindery.limits import Limits
from bindery.settings import Settings
from service.labels import LabelVectors
from service.observe import Metrics
from service.remote import Fetcher, policy_of

log = structlog.get_logger(__name__)


class State:
    """Made with the application, opened and closed by its lifespan."""

    def __init__(self, settings: Settings, fetcher: Fetcher | None = None) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.fetcher = fetcher or Fetcher(policy_of(settings), settings.limits)
        self.label_vectors = LabelVectors(self.metrics)
        self._engine: Engine | None = None
        self._store: Store | None = None
        self._failure: BinderyError | None = None
        self._starting: asyncio.Task[None] | None = None
        self._spool: tempfile.TemporaryDirectory[str] | None = None

    @property
    def limits(self) -> Limits:
        return self.settings.limits

    @property
    def engine(self) -> Engine:
        """The engine once its bundle is open. Raises `Starting`, `EngineDown`."""
        if self._failure is not None:
            raise EngineDown("the bundle could not be loaded; the server's log says why", retry_after_ms=30_000)
        if self._engine is None or self._engine.state == "starting":
            raise Starting("the models are still being loaded", retry_after_ms=1000)
        return self._engine

    @property
    def bundle(self) -> Bundle:
        return self.engine.bundle

    @property
    def store(self) -> Store:
        """Collections and label sets; synchronous, so call it in a thread. Raises as `engine` does: without a bundle there is no space."""
        _ = self.engine
        assert self._store is not None, "the store is opened before the engine is. This is a bug."
        return self._store

    @property
    def failed(self) -> bool:
        return self._failure is not None or (self._engine is not None and self._engine.state == "failed")

    @property
    def spool(self) -> Path:
        """Where uploads lie while their request runs."""
        assert self._spool is not None, "the application was not started. This is a bug."
        return Path(self._spool.name)

    async def open(self) -> None:
        """Begin to start the engine; returns before it is ready.

        Raises `BundleNotFound` when there is nothing to start, and `CatalogDamaged`, `CatalogTooNew`, `InvalidParameter` for the
        data directory: a server that could never be ready shall not begin to listen.
        """
        directory = find_bundle(self.settings.bundle, self.settings.bundle_places())
        self._store = await asyncio.to_thread(Store, self.settings.data_dir, self.limits)
        self._spool = tempfile.TemporaryDirectory(prefix="bindery-uploads-")
        self._starting = asyncio.create_task(self._start(directory), name="engine-start")

    async def close(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._engine is not None:
            await self._engine.stop(self.settings.drain_seconds)
        if self._store is not None:
            await asyncio.to_thread(self._store.close)
        self.fetcher.close()
        if self._spool is not None:
            await asyncio.to_thread(self._spool.cleanup)

    async def _start(self, directory: Path) -> None:
        try:
            bundle = await asyncio.to_thread(open_bundle, directory)
            engine = Engine(bundle, self.limits, EnginePolicy.of(self.settings))
            engine.listen(self.metrics.listener(bundle))
            self.metrics.watch_queue(engine)
            self._engine = engine
            await engine.start()
        except BinderyError as error:
            self._failure = error
            log.error("start failed", code=error.code, detail=error.detail, bundle=str(directory))
        except Exception as error:
            self._failure = EngineDown("the engine could not be started")
            self._failure.__cause__ = error
            log.exception("start failed", bundle=str(directory))
        else:
            log.info("ready", bundle=bundle.name, version=bundle.manifest.version, space=bundle.manifest.space)


def state_of(request: Request) -> State:
    state: State = request.app.state.service
    return state
