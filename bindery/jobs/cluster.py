"""The executors of a job on the nodes of a Ray cluster: one actor on each node, or on each of its GPUs.

Ray only places and watches them. Ledger and collection stay in the process that was started, which leases files to each actor,
and commits what comes back; files and models are read where the actor is, so the source must be reachable there under the same
name, and the same bundle must be there. Only hashes, vectors and metadata travel.

An actor or a node that is lost loses its leases: others take what it had in work. A node that joins gets an actor.
"""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bindery.bundle import Bundle, find_bundle, open_bundle
from bindery.engine.engine import Engine, EnginePolicy
from bindery.errors import BinderyError, BundleDamaged, ClusterUnavailable
from bindery.jobs.executor import Embedding, Executor, ExecutorLost, File, LocalExecutor
from bindery.jobs.leases import Unit
from bindery.jobs.listing import Listing, open_listing
from bindery.jobs.spec import JobSpec
from bindery.limits import Limits
from bindery.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")

_LOOK_S = 2.0  # between looks for nodes that joined
_LOSSES = 3  # of the executors of one place: then it is left alone
_CALLS = 1000  # at once on one actor: more than a worker ever makes, so that none waits behind another's file
_STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where an executor may be: a node, or one of its GPUs."""

    node: str
    number: int
    gpu: bool


class RayCrew:
    """Connects to the cluster that `RAY_ADDRESS` names, or to one that runs on this machine, or else starts one there.

    Raises `ClusterUnavailable`, and what opening the bundle raises: it must be here too.
    """

    def __init__(self, settings: Settings) -> None:
        self.bundle: Bundle = open_bundle(find_bundle(settings.bundle, settings.bundle_places()))
        self.precision: str = settings.precision
        self.limits: Limits = settings.limits
        self._settings = settings
        try:
            ray.init(
                ignore_reinit_error=True, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, namespace="bindery"
            )
        except (RayError, ConnectionError, RuntimeError, ValueError) as error:
            raise ClusterUnavailable(f"no Ray cluster could be reached or started: {error}") from error

    async def work(self, spec: JobSpec, listing: Listing, employ: Callable[[Executor], Awaitable[None]]) -> None:  # noqa: ARG002 - the promise names it
        """Raises `ClusterUnavailable` when no node is left that an executor lives on."""
        there = spec if "://" in spec.source else spec.model_copy(update={"source": os.path.abspath(spec.source)})
        working: dict[Place, asyncio.Task[None]] = {}
        losses: Counter[Place] = Counter()
        ended = False
        try:
            while working or not ended:
                if not ended:
                    for place in await asyncio.to_thread(_places):
                        if place not in working and losses[place] < _LOSSES:
                            working[place] = asyncio.create_task(self._employed(place, there, employ))
                if not working:
                    raise ClusterUnavailable("no node of the Ray cluster is left to work on; the job goes on when it is run again")
                await asyncio.wait(working.values(), timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                for place in [place for place, task in working.items() if task.done()]:
                    try:
                        working.pop(place).result()
                        ended = True  # it found no units left, so the others will find none soon
                    except ExecutorLost as error:
                        losses[place] += 1
                        log.warning("an executor on node %s was lost (%d of %d): %s", place.node[:12], losses[place], _LOSSES, error)
        finally:
            for task in working.values():
                task.cancel()
            await asyncio.gather(*working.values(), return_exceptions=True)

    def close(self) -> None:
        ray.shutdown()

    async def _employed(self, place: Place, spec: JobSpec, employ: Callable[[Executor], Awaitable[None]]) -> None:
        actor: Any = (
            ray.remote(Actor)
            .options(
                num_cpus=1,
                num_gpus=1 if place.gpu else 0,
                max_concurrency=_CALLS,
                scheduling_strategy=NodeAffinitySchedulingStrategy(place.node, soft=False),
            )
            .remote(self._settings, spec)
        )
        try:
            digest = await _answer(actor.start.remote())
            if digest != self.bundle.digest:
                raise BundleDamaged(
                    f"bundle {self.bundle.name!r} on node {place.node[:12]} is not the one that is here: its digest differs"
                )
            await employ(RayExecutor(actor, self._settings.limits))
        finally:
            with suppress(ExecutorLost, TimeoutError, BinderyError):
                await asyncio.wait_for(_answer(actor.stop.remote()), _STOP_S)
            ray.kill(actor)


class RayExecutor:
    """An actor, as the job sees it."""

    def __init__(self, actor: Any, limits: Limits) -> None:
        self.limits = limits
        self._actor = actor

    @asynccontextmanager
    async def file(self, unit: Unit) -> AsyncIterator[File]:
        file = _RayFile(self._actor, unit)
        try:
            yield file
        finally:
            file.close()


class _RayFile:
    def __init__(self, actor: Any, unit: Unit) -> None:
        self._actor = actor
        self._unit = unit
        self._id = uuid.uuid4().hex
        self._used = False

    async def digest(self) -> str:
        self._used = True
        found: str = await _answer(self._actor.digest.remote(self._id, self._unit))
        return found

    async def embedded(self, key: str) -> Embedding:
        self._used = True
        found: Embedding = await _answer(self._actor.embedded.remote(self._id, self._unit, key))
        return found

    def close(self) -> None:
        if self._used:  # nobody waits for it, and an actor that is lost holds no files
            self._actor.close.remote(self._id)


class Actor:
    """On a node: an engine, and the files of units that are in work. Errors are answers: what is raised here is a loss or a bug."""

    def __init__(self, settings: Settings, spec: JobSpec) -> None:
        self._settings = settings
        self._spec = spec
        self._engine: Engine | None = None
        self._files: dict[str, tuple[AsyncExitStack, File]] = {}

    async def start(self) -> str | BinderyError:
        """The digest of the bundle that is here."""
        settings, spec = self._settings, self._spec
        try:
            bundle = open_bundle(find_bundle(settings.bundle, settings.bundle_places()))
            listing = open_listing(spec.source, include=spec.include, rules=spec.rule_list())
            engine = self._engine = Engine(bundle, settings.limits, EnginePolicy.of(settings))
            await engine.start()
        except BinderyError as error:
            return error
        self._executor = LocalExecutor(engine, spec, listing)
        return bundle.digest

    async def stop(self) -> None:
        if self._engine is not None:
            await self._engine.stop(0)

    async def digest(self, id: str, unit: Unit) -> str | BinderyError:
        try:
            return await (await self._file(id, unit)).digest()
        except BinderyError as error:
            return error

    async def embedded(self, id: str, unit: Unit, key: str) -> Embedding | BinderyError:
        try:
            return await (await self._file(id, unit)).embedded(key)
        except BinderyError as error:
            return error

    async def close(self, id: str) -> None:
        if id in self._files:
            await self._files.pop(id)[0].aclose()

    async def _file(self, id: str, unit: Unit) -> File:
        if id not in self._files:
            stack = AsyncExitStack()
            self._files[id] = stack, await stack.enter_async_context(self._executor.file(unit))
        return self._files[id][1]


def _places() -> list[Place]:
    """Of the nodes that are alive and may be given work. Raises `ClusterUnavailable`."""
    try:
        nodes = ray.nodes()  # type: ignore[no-untyped-call]
    except (RayError, ConnectionError, RuntimeError) as error:
        raise ClusterUnavailable(f"the Ray cluster does not answer: {error}") from error
    places = []
    for node in nodes:
        resources = node["Resources"]
        if node["Alive"] and resources.get("CPU", 0) >= 1:
            gpus = int(resources.get("GPU", 0))
            places += [Place(node["NodeID"], number, gpus > 0) for number in range(max(gpus, 1))]
    return places


async def _answer(call: Any) -> Any:
    """What an actor answered. Raises the error that it answered with, and `ExecutorLost` when it cannot answer any more."""
    try:
        answer = await call
    except RayActorError as error:
        raise ExecutorLost(str(error).splitlines()[0]) from error
    if isinstance(answer, BinderyError):
        raise answer
    return answer
