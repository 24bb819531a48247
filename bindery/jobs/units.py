"""One unit's way: its content hash, a look whether that is known already, and else its vectors from the engine."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from bindery.collections import Item
from bindery.errors import BinderyError
from bindery.jobs.executor import Crew, Executor, File
from bindery.jobs.leases import Unit
from bindery.jobs.ledger import Known, Ledger
from bindery.jobs.spec import JobSpec, pipeline_ids
from bindery.jobs.target import Target


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """What a unit gave. ``items`` is None when the collection has them already."""

    unit: Unit
    content_hash: str
    pipeline_id: str
    items: list[Item] | None
    copied: bool = False
    failed_clips: tuple[tuple[str, BinderyError], ...] = ()


class Units:
    """Makes the items of units, for all workers of a job. Lives on one event loop; what it gave must be reported back with `committed`."""

    def __init__(self, crew: Crew, target: Target, ledger: Ledger, spec: JobSpec) -> None:
        self.seconds: dict[str, float] = defaultdict(float)  # that units have spent in each stage, waiting for it included
        self._target = target
        self._ledger = ledger
        self._spec = spec
        self._pipelines = pipeline_ids(crew.bundle, crew.precision, spec.clip_options())
        self._making: dict[tuple[str, str], asyncio.Future[tuple[str, list[Item]] | None]] = {}

    async def make(self, unit: Unit, executor: Executor) -> Made:
        """Raises the file's error, a `ServerFault` that is no fault of the file, or `ExecutorLost`."""
        async with executor.file(unit) as file:
            return await self._made(unit, file)

    async def _made(self, unit: Unit, file: File) -> Made:
        listed, pipeline = unit.listed, self._pipelines[unit.modality]
        async with self._stage("read"):
            known, stored = await asyncio.to_thread(self._looked_up, listed.name)
            content = await self._content(unit, known, file)
        key = f"{pipeline}:{content}"
        if stored == key:
            if known is None or known.says(listed):
                return Made(unit, content, pipeline, None)
            own = await asyncio.to_thread(self._target.items_of, listed.name)
            if own:
                return Made(unit, content, pipeline, _renamed(listed.name, own, unit), copied=True)
        while (twin := self._making.get((content, pipeline))) is not None:
            if (found := await asyncio.shield(twin)) is not None:
                return Made(unit, content, pipeline, _renamed(*found, unit), copied=True)
        making: asyncio.Future[tuple[str, list[Item]] | None] = asyncio.get_running_loop().create_future()
        self._making[content, pipeline] = making
        try:
            made = await self._fresh(unit, content, pipeline, file)
            if made.items is not None and not made.failed_clips:
                making.set_result((unit.listed.name, made.items))
            return made
        finally:
            if not making.done():  # it failed, and an error names its own file: the next who waits tries for itself
                self._making.pop((content, pipeline), None)
                making.set_result(None)

    def committed(self, made: Made) -> None:
        """The ledger knows it now, and this need not."""
        self._making.pop((made.content_hash, made.pipeline_id), None)

    async def _fresh(self, unit: Unit, content: str, pipeline: str, file: File) -> Made:
        copied = await asyncio.to_thread(self._copied, unit, content, pipeline)
        if copied:
            return Made(unit, content, pipeline, copied, copied=True)
        embedding = await file.embedded(f"{pipeline}:{content}")
        self._spent(embedding.timings_ms)
        return Made(unit, content, pipeline, embedding.items, failed_clips=embedding.failed_clips)

    def _looked_up(self, name: str) -> tuple[Known | None, str | None]:
        """What the ledger knows of a file, and the content hash of its items in the target."""
        known = self._ledger.known(self._spec.collection, [name]).get(name)
        return known, self._target.content_hashes([name]).get(name)

    async def _content(self, unit: Unit, known: Known | None, file: File) -> str:
        listed = unit.listed
        if (
            known is not None
            and known.content_hash
            and listed.fingerprint
            and (known.uri, known.fingerprint) == (listed.uri, listed.fingerprint)
        ):
            return known.content_hash
        return await file.digest()

    def _copied(self, unit: Unit, content: str, pipeline: str) -> list[Item]:
        """The items of another file with the same bytes under this unit's name, or none."""
        for name in self._ledger.names_of_content(self._spec.collection, content, pipeline):
            items = [item for item in self._target.items_of(name) if item.content_hash == f"{pipeline}:{content}"]
            if items:
                return _renamed(name, items, unit)
        return []

    @asynccontextmanager
    async def _stage(self, name: str) -> AsyncIterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] += time.monotonic() - started

    def _spent(self, timings_ms: Mapping[str, float]) -> None:
        self.seconds["decode"] += timings_ms["decode"] / 1000
        self.seconds["encode"] += (timings_ms["queue"] + timings_ms["infer"]) / 1000


def _renamed(name: str, items: Sequence[Item], unit: Unit) -> list[Item]:
    """The vectors of file ``name`` under another file's name, with what is known about that file."""
    listed = unit.listed
    return [
        replace(
            item, id=listed.name + item.id.removeprefix(name), uri=listed.uri, metadata=listed.metadata
        )  # a clip's id is NAME#start-end
        for item in items
    ]
