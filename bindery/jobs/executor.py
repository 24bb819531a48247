"""Who opens, reads and embeds the files of a job: this process (`LocalExecutor`), or one on a machine of a cluster (`cluster.py`).

Ledger and collection stay with the job; an executor knows nothing of either, so it may be lost at any moment.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from bindery.bundle import Bundle
from bindery.collections import Item, clip_id
from bindery.engine.clips import embed_clips, with_room
from bindery.engine.engine import Engine
from bindery.errors import BinderyError, UnreadableMedia
from bindery.jobs.leases import Unit
from bindery.jobs.listing import Listing
from bindery.jobs.retry import read_error
from bindery.jobs.spec import JobSpec, lasts
from bindery.limits import Limits
from bindery.media.guard import check_bytes, too_many_bytes
from bindery.media.source import Source
from bindery.moments import Medium, items_of

_CUT_AT_ONCE = 4  # media that are cut: each has several windows in work


class ExecutorLost(Exception):
    """The executor died with what it had in work. No file and no job is to blame: others go on."""


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """A file's items, the clips of it that failed, and how long each stage took."""

    items: list[Item]
    failed_clips: tuple[tuple[str, BinderyError], ...]
    timings_ms: Mapping[str, float]


class File(Protocol):
    """The file of a unit that is in work. Both raise the file's `BinderyError`, or `ExecutorLost`."""

    async def digest(self) -> str:
        """The SHA-256 of its bytes."""

    async def embedded(self, key: str) -> Embedding:
        """``key``: the content hash of its items."""


class Executor(Protocol):
    """Used on one event loop."""

    @property
    def limits(self) -> Limits: ...

    def file(self, unit: Unit) -> AbstractAsyncContextManager[File]:
        """Nothing is opened before it is needed."""


class Crew(Protocol):
    """All executors that work on a job."""

    @property
    def bundle(self) -> Bundle: ...

    @property
    def precision(self) -> str: ...

    @property
    def limits(self) -> Limits: ...

    async def work(self, spec: JobSpec, listing: Listing, employ: Callable[[Executor], Awaitable[None]]) -> None:
        """Have executors employed until no units are left.

        ``employ`` returns when it finds none, and raises `ExecutorLost` when its executor died. Raises what else it raises.
        """


class OneProcess:
    """The crew of one: this process, with the engine that it has."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def bundle(self) -> Bundle:
        return self._engine.bundle

    @property
    def precision(self) -> str:
        return self._engine.policy.precision

    @property
    def limits(self) -> Limits:
        return self._engine.limits

    async def work(self, spec: JobSpec, listing: Listing, employ: Callable[[Executor], Awaitable[None]]) -> None:
        await employ(LocalExecutor(self._engine, spec, listing))


class LocalExecutor:
    """Lives on the engine's event loop."""

    def __init__(self, engine: Engine, spec: JobSpec, listing: Listing) -> None:
        self._engine = engine
        self._listing = listing
        self._cut = spec.clip_options()
        self._cutting = asyncio.Semaphore(_CUT_AT_ONCE)

    @property
    def limits(self) -> Limits:
        return self._engine.limits

    @asynccontextmanager
    async def file(self, unit: Unit) -> AsyncIterator[File]:
        file = _LocalFile(self, unit)
        try:
            yield file
        finally:
            await file.close()

    def open(self, unit: Unit, files: ExitStack) -> Source:
        """Not on the event loop."""
        if unit.listed.size > self.limits.file_bytes:  # before it is fetched
            raise too_many_bytes(unit.listed.name, unit.listed.size, self.limits)
        return files.enter_context(self._listing.opened(unit.listed))

    async def embed(self, unit: Unit, source: Source, key: str) -> Embedding:
        engine, modality, listed = self._engine, unit.modality, unit.listed
        if self._cut is not None and lasts(engine.bundle, modality):
            async with self._cutting:
                cut = await embed_clips(engine, modality, source, self._cut, priority="batch")
            failed = tuple(
                (clip_id(listed.name, clip.window.start, clip.window.end), clip.vector)
                for clip in cut.clips
                if isinstance(clip.vector, BinderyError)
            )
            return Embedding(items_of(Medium(listed.name, modality, cut.clips, listed.uri, listed.metadata, key)), failed, cut.timings_ms)
        value = source if engine.bundle.modality(modality).kind != "text" else await asyncio.to_thread(_text, source)
        embedded = await with_room(lambda: engine.embed(modality, value, priority="batch", cached=False))
        item = Item(listed.name, modality, embedded.vector, listed.uri, metadata=listed.metadata, content_hash=key)
        return Embedding([item], (), embedded.timings_ms)


class _LocalFile:
    """Few steps of a file go through threads, and each as a whole: with small files the ways to and fro cost more than the steps."""

    def __init__(self, executor: LocalExecutor, unit: Unit) -> None:
        self._executor = executor
        self._unit = unit
        self._files = ExitStack()
        self._source: Source | None = None
        self._begun = False

    async def digest(self) -> str:
        self._begun = True
        return await asyncio.to_thread(lambda: _digest(self._opened(), self._executor.limits))

    async def embedded(self, key: str) -> Embedding:
        self._begun = True
        source = await asyncio.to_thread(self._opened) if self._source is None else self._source
        return await self._executor.embed(self._unit, source, key)

    async def close(self) -> None:
        if self._begun:
            await asyncio.to_thread(self._files.close)

    def _opened(self) -> Source:
        if self._source is None:
            self._source = self._executor.open(self._unit, self._files)
        return self._source


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
