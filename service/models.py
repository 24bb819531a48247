"""The served models: bundles in engines of their own, each under a name; loaded, swapped and unloaded while the others serve.

A request holds the engine that it began with until it has its answer. What is unloaded or replaced loses its name at once, and its
memory when the last request that holds it has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import structlog

from bindery.bundle import MANIFEST, PACKAGED_BUNDLES, Bundle, Precision, open_bundle
from bindery.collections import check_space
from bindery.collections.model import Definition
from bindery.engine.engine import Engine, EnginePolicy
from bindery.engine.pool import DecodePool
from bindery.errors import BundleError, DefaultModel, InvalidParameter, ModelNotLoaded, ModelsFull, UnknownModality, UnknownModel
from bindery.limits import MIB
from bindery.settings import Settings
from service.exchange import Exchange
from service.observe import Metrics

log = structlog.get_logger(__name__)

_WIDENING = {"float32": 1, "float16": 2, "int8": 4}
"""Weights that are stored in fewer bits are computed with as float32 by an `exact` graph."""


@dataclass(slots=True)
class _Model:
    engine: Engine
    directory: Path
    bytes: int
    requests: int = 0
    unused: asyncio.Event = field(default_factory=asyncio.Event)

    def enter(self) -> None:
        self.requests += 1
        self.unused.clear()

    def leave(self) -> None:
        self.requests -= 1
        if self.requests == 0:
            self.unused.set()


class Models:
    """Lives on one event loop. One load at a time; the decoder processes are shared by all."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._pool = DecodePool(settings.decode_workers, settings.limits, metrics.worker_replaced)
        metrics.watch_decoders(self._pool)
        self._named: dict[str, _Model] = {}
        self._leaving: list[_Model] = []
        self._default = ""
        self._loading = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.on_change: Callable[[], None] = lambda: None
        """Called when a name is given, taken away, or stands for another engine."""

    def __contains__(self, name: str) -> bool:
        return name in self._named

    @property
    def engines(self) -> list[Engine]:
        """The default one first."""
        return [model.engine for model in sorted(self._named.values(), key=lambda model: model.engine.name != self._default)]

    @property
    def default(self) -> Engine:
        return self._named[self._default].engine

    def get(self, name: str | None) -> Engine:
        """The engine of that name, or the default one. Raises `UnknownModel`: a vector of another model must not pass unnoticed."""
        return self._get(name).engine

    def held(self, name: str | None, exchange: Exchange) -> Engine:
        """As `get`, and it stays loaded until the exchange has ended."""
        return self._hold(self._get(name), exchange)

    def of_space(self, collection: Definition, exchange: Exchange) -> Engine:
        """One whose vectors compare with the collection's, held as by `held`. Raises `SpaceMismatch`."""
        return self._hold(self._of_space(collection), exchange)

    @contextmanager
    def for_job(self, collection: Definition | None) -> Iterator[Engine]:
        """One of the collection's space, or the default one for a collection that is not made yet; it stays loaded until the
        block is left, also when it is unloaded or swapped meanwhile. Raises `SpaceMismatch`."""
        model = self._get(None) if collection is None else self._of_space(collection)
        model.enter()
        try:
            yield model.engine
        finally:
            model.leave()

    def _of_space(self, collection: Definition) -> _Model:
        for engine in self.engines:
            if engine.bundle.manifest.space == collection.space:
                return self._named[engine.name]
        names = ", ".join(repr(engine.name) for engine in self.engines)
        check_space(collection, self.default.bundle.manifest.space, f"each loaded model ({names})")
        raise AssertionError("a space is not another one than itself. This is a bug.")

    def check_modality(self, modality: str) -> None:
        """Raises `UnknownModality` for what no loaded model has: that needs no look into the request's body."""
        check_modality(modality, self.engines)

    def entered(self, engine: Engine) -> Callable[[], None]:
        """Keep a named engine loaded until what this returns is called."""
        model = self._named[engine.name]
        model.enter()
        return model.leave

    def trouble(self) -> str | None:
        """Why nobody should be sent here, whichever model it is that is not well."""
        hanging = self._pool.trouble()
        if hanging is not None:
            return hanging
        for engine in self.engines:
            trouble = engine.trouble() if engine.state == "ready" else f"the engine is {engine.state}"
            if trouble is not None:
                return trouble if len(self._named) == 1 else f"model {engine.name!r}: {trouble}"
        return None

    async def start(self, directories: Sequence[Path]) -> None:
        """Load what the settings name, the default first. Raises the first error, with everything that began taken down by `close`."""
        ended = await asyncio.gather(asyncio.to_thread(self._pool.start), self._load_all(directories), return_exceptions=True)
        for error in ended:  # both have ended: what one has begun can be taken down
            if error is not None:
                raise error

    async def load(self, name: str, directory: Path, policy: EnginePolicy, *, default: bool = False) -> tuple[Engine, bool]:
        """The bundle under that name, in place of what had it, and whether the name is new. Until it is ready the old one serves.

        Raises `ModelsFull`, `ModelNotLoaded`; then nothing has changed. A caller that goes away does not stop it.
        """
        return await asyncio.shield(self._task(self._load_once(name, directory, policy, default)))

    async def unload(self, name: str) -> None:
        """Raises `UnknownModel`, `DefaultModel`. Returns when nothing new is sent to it; its requests are still answered."""
        async with self._loading:
            model = self._get(name)
            if name == self._default:
                raise DefaultModel(f"model {name!r} answers requests that name none; make another one the default first")
            del self._named[name]
            self._metrics.forget(name)
            self._retire(model)
            self.on_change()
        log.info("unloading", model=name)

    def local_bundle(self, name: str | None, model: str) -> Path:
        """The directory of a bundle for ``model``: without a name, the one it has now. Raises `ModelNotLoaded`.

        Only below the bundles directory or among the packaged ones: a caller must not point the server at any place of its disk.
        """
        if name is None and model in self._named:
            return self._named[model].directory
        wanted = name or model
        for place in (*self._settings.bundle_places(), PACKAGED_BUNDLES):
            candidate = (place / wanted.replace("\0", "")).resolve()
            if candidate.is_relative_to(place.resolve()) and (candidate / MANIFEST).is_file():
                return candidate
        raise ModelNotLoaded(f"there is no bundle {wanted[:200]!r} in the server's bundles directory or among the packaged ones")

    def policy(self, device: str | None, precision: Precision | None) -> EnginePolicy:
        given = {"device": device, "precision": precision}
        return EnginePolicy.of(self._settings.model_copy(update={key: value for key, value in given.items() if value is not None}))

    async def close(self, drain_s: float) -> None:
        """Finish accepted work for up to ``drain_s`` seconds, then end every engine and the decoders."""
        await asyncio.gather(*(model.engine.stop(drain_s) for model in (*self._named.values(), *self._leaving)))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._pool.stop)

    async def _load_all(self, directories: Sequence[Path]) -> None:
        for directory in directories:
            bundle = await asyncio.to_thread(open_bundle, directory)
            if bundle.name in self._named:
                raise InvalidParameter(f"two of the bundles to start with are named {bundle.name!r}; load one by PUT /v1/models/NAME")
            engine = await self._begun(bundle.name, bundle, EnginePolicy.of(self._settings))
            self._default = self._default or bundle.name
            self._enter(_Model(engine, directory, _bytes(bundle, engine.policy.precision)))

    async def _load_once(self, name: str, directory: Path, policy: EnginePolicy, default: bool) -> tuple[Engine, bool]:
        async with self._loading:
            try:
                bundle = await asyncio.to_thread(open_bundle, directory)
                engine = await self._begun(name, bundle, policy)
            except BundleError as error:
                log.warning("load failed", model=name, code=error.code, detail=error.detail, bundle=str(directory))
                raise ModelNotLoaded(error.detail.replace(str(directory), directory.name)) from error
            if default:
                self._default = name
            return engine, self._enter(_Model(engine, directory, _bytes(bundle, policy.precision)))

    async def _begun(self, name: str, bundle: Bundle, policy: EnginePolicy) -> Engine:
        self._check_room(_bytes(bundle, policy.precision))
        engine = Engine(bundle, self._settings.limits, policy, name=name, pool=self._pool)
        try:
            await engine.start()
        except BaseException:
            await engine.stop(0)
            raise
        return engine

    def _check_room(self, wanted: int) -> None:
        most = self._settings.models_memory_bytes
        taken = sum(model.bytes for model in (*self._named.values(), *self._leaving))
        if most is not None and taken + wanted > most:
            raise ModelsFull(
                f"it takes about {_mib(wanted)}, the loaded models take {_mib(taken)}, and {_mib(most)} are allowed "
                "(BINDERY_MODELS_MEMORY_BYTES); a swap needs room for both. Unload a model that is not needed"
            )

    def _enter(self, model: _Model) -> bool:
        """Give it its name; whether no other had it."""
        name, manifest = model.engine.name, model.engine.bundle.manifest
        old = self._named.get(name)
        if old is not None:
            self._metrics.forget(name)
            self._retire(old)
        self._named[name] = model
        model.engine.listen(self._metrics.listener(model.engine))
        self._metrics.watch(model.engine, model.bytes)
        self.on_change()
        log.info("ready", model=name, bundle=manifest.name, version=manifest.version, space=manifest.space)
        return old is None

    def _retire(self, model: _Model) -> None:
        self._leaving.append(model)
        self._task(self._free(model))

    async def _free(self, model: _Model) -> None:
        if model.requests:
            await model.unused.wait()  # each has a deadline
        await model.engine.stop(self._settings.drain_seconds)
        self._leaving.remove(model)
        log.info("unloaded", model=model.engine.name, digest=model.engine.bundle.digest[:12])

    def _get(self, name: str | None) -> _Model:
        model = self._named.get(self._default if name is None else name)
        if model is None:
            raise unknown_model(name, self.engines)
        return model

    def _hold(self, model: _Model, exchange: Exchange) -> Engine:
        model.enter()
        exchange.at_the_end(model.leave)
        return model.engine

    def _task(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class Served(Protocol):
    """An engine, in this process or another one."""

    name: str
    bundle: Bundle


def check_modality(modality: str, engines: Iterable[Served]) -> None:
    """As `Models.check_modality`."""
    known = {name for engine in engines for name in engine.bundle.manifest.modalities}
    if modality not in known:
        raise UnknownModality(f"no loaded model has a modality {modality[:80]!r}; there are: {', '.join(sorted(known))}")


def unknown_model(name: str | None, engines: Iterable[Served]) -> UnknownModel:
    known = ", ".join(repr(engine.name) for engine in engines)
    return UnknownModel(f"model {(name or '')[:200]!r} is not served here; this server has {known}", pointer="/model")


def _bytes(bundle: Bundle, precision: Precision) -> int:
    """What its graphs will take, about: all its files, as wide as they are computed with. It errs on the high side."""
    artefacts = [one for modality in bundle.manifest.modalities.values() for one in modality.artefacts if one.precision == precision]
    widening = max((_WIDENING[one.weights] for one in artefacts), default=1) if precision == "exact" else 1
    return widening * sum(entry.bytes for entry in bundle.manifest.files.values())


def _mib(count: int) -> str:
    return f"{count / MIB:.0f} MiB"
