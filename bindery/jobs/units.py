"""One unit's way: its content hash, a look whether that is known already, and else its vectors from the engine."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from bindery.collections import Item, clip_id
from bindery.engine.clips import embed_clips, with_room
from bindery.engine.engine import Engine
from bindery.errors import BinderyError, UnreadableMedia
from bindery.jobs.leases import Unit
from bindery.jobs.ledger import Known, Ledger
from bindery.jobs.listing import Listing
from bindery.jobs.retry import read_error
from bindery.jobs.spec import JobSpec, lasts, pipeline_ids
from bindery.jobs.target import Target
from bindery.limits import Limits
from bindery.media.guard import check_bytes, too_many_bytes
from bindery.media.source import Source
from bindery.moments import Medium, items_of

_CUT_AT_ONCE = 4  # media that are cut: each has several windows in work


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
    """Makes the items of units. Lives on the engine's event loop; what it gave must be reported back with `committed`."""

    def __init__(self, engine: Engine, target: Target, ledger: Ledger, spec: JobSpec, listing: Listing) -> None:
        self.seconds: dict[str, float] = defaultdict(float)  # that units have spent in each stage, waiting for it included
        self._engine = engine
        self._target = target
        self._ledger = ledger
        self._spec = spec
        self._listing = listing
        self._cut = spec.clip_options()
        self._pipelines = pipeline_ids(engine.bundle, engine.policy.precision, self._cut)
        self._cutting = asyncio.Semaphore(_CUT_AT_ONCE)
        self._making: dict[tuple[str, str], asyncio.Future[tuple[str, list[Item]] | None]] = {}

    async def make(self, unit: Unit) -> Made:
        """Raises the file's error, or a `ServerFault` that is no fault of the file."""
        files = ExitStack()
        try:
            return await self._made(unit, files)
        finally:
            await asyncio.to_thread(files.close)

    async def _made(self, unit: Unit, files: ExitStack) -> Made:
        listed, pipeline = unit.listed, self._pipelines[unit.modality]
        async with self._stage("read"):
            known = (await asyncio.to_thread(self._ledger.known, self._spec.collection, [listed.name])).get(listed.name)
            content, source = await self._content(unit, known, files)
            stored = await asyncio.to_thread(self._target.content_hashes, [listed.name])
        key = f"{pipeline}:{content}"
        if stored.get(listed.name) == key:
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
            made = await self._fresh(unit, content, pipeline, source, files)
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

    async def _fresh(self, unit: Unit, content: str, pipeline: str, source: Source | None, files: ExitStack) -> Made:
        copied = await asyncio.to_thread(self._copied, unit, content, pipeline)
        if copied:
            return Made(unit, content, pipeline, copied, copied=True)
        source = source or await self._opened(unit, files)
        items, failed = await self._embedded(unit, source, f"{pipeline}:{content}")
        return Made(unit, content, pipeline, items, failed_clips=failed)

    async def _content(self, unit: Unit, known: Known | None, files: ExitStack) -> tuple[str, Source | None]:
        """The file's content hash, and the file when it had to be read for that."""
        listed = unit.listed
        if (
            known is not None
            and known.content_hash
            and listed.fingerprint
            and (known.uri, known.fingerprint) == (listed.uri, listed.fingerprint)
        ):
            return known.content_hash, None
        source = await self._opened(unit, files)
        return await asyncio.to_thread(_digest, source, self._engine.limits), source

    async def _opened(self, unit: Unit, files: ExitStack) -> Source:
        if unit.listed.size > self._engine.limits.file_bytes:  # before it is fetched
            raise too_many_bytes(unit.listed.name, unit.listed.size, self._engine.limits)
        return await asyncio.to_thread(files.enter_context, self._listing.opened(unit.listed))

    async def _embedded(self, unit: Unit, source: Source, key: str) -> tuple[list[Item], tuple[tuple[str, BinderyError], ...]]:
        """The file's items, and the clips of it that failed."""
        engine, modality, listed = self._engine, unit.modality, unit.listed
        if self._cut is not None and lasts(engine.bundle, modality):
            async with self._cutting:
                cut = await embed_clips(engine, modality, source, self._cut, priority="batch")
            self._spent(cut.timings_ms)
            failed = tuple(
                (clip_id(listed.name, clip.window.start, clip.window.end), clip.vector)
                for clip in cut.clips
                if isinstance(clip.vector, BinderyError)
            )
            return items_of(Medium(listed.name, modality, cut.clips, listed.uri, listed.metadata, key)), failed
        value = source if engine.bundle.modality(modality).kind != "text" else await asyncio.to_thread(_text, source)
        embedded = await with_room(lambda: engine.embed(modality, value, priority="batch", cached=False))
        self._spent(embedded.timings_ms)
        return [Item(listed.name, modality, embedded.vector, listed.uri, metadata=listed.metadata, content_hash=key)], ()

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

    def _spent(self, timings_ms: dict[str, float]) -> None:
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


def _digest(source: Source, limits: Limits) -> str:
    check_bytes(source, limits)
    digest = hashlib.sha256()
    with source.open() as stream:
        try:
            while piece := stream.read(1 << 20):
                digest.update(piece)
        except OSError as error:
            raise read_error(source.name, error) from error
    return digest.hexdigest()


def _text(source: Source) -> str:
    with source.open() as stream:
        try:
            return stream.read().decode("utf-8-sig")
        except UnicodeDecodeError:
            raise UnreadableMedia(f"{source.name} is not UTF-8 text") from None
        except OSError as error:
            raise read_error(source.name, error) from error
