"""The door: `Engine.embed` takes one item of any modality and gives its vector, its error, or its deadline.

admit → known already? → decode and prepare (process pool) → ready queue per encoder → batch → runtime → reply
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

from bindery.bundle import Bundle, Precision
from bindery.decoded import Prepared
from bindery.engine.batching import Batcher
from bindery.engine.cache import Value, VectorCache, content_key
from bindery.engine.embedded import Embedded
from bindery.engine.events import Admitted, BatchRun, CacheLookup, Event, Failed, Finished, Listener, Refused, WorkerReplaced
from bindery.engine.pool import DecodePool
from bindery.engine.worker import Task
from bindery.errors import (
    BinderyError,
    DeadlineExceeded,
    Draining,
    EngineDown,
    InvalidParameter,
    QueueFull,
    Starting,
    UnsupportedMedia,
)
from bindery.kinds import parse_options
from bindery.limits import MIB, Limits
from bindery.media.source import Source
from bindery.prepare.tokens import TextTokenizer
from bindery.runtime.encoder import Encoder
from bindery.runtime.open import Device, open_encoder
from bindery.settings import Settings
from bindery.spec import Options, TextSpec

State = Literal["starting", "ready", "draining", "stopped", "failed"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EnginePolicy:
    device: Device = "auto"
    precision: Precision = "exact"
    threads: int | None = None
    decode_workers: int = 2
    max_batch: int = 16
    cache_bytes: int = 64 * MIB
    """Of vectors kept by content; 0 turns the cache off."""

    @classmethod
    def of(cls, settings: Settings) -> EnginePolicy:
        return cls(
            device=settings.device,
            precision=settings.precision,
            threads=settings.threads,
            decode_workers=settings.decode_workers,
            max_batch=settings.max_batch,
            cache_bytes=settings.cache_bytes,
        )


class Engine:
    """One bundle on one device. Made and used on one event loop; `listen`ers are called on it."""

    def __init__(self, bundle: Bundle, limits: Limits, policy: EnginePolicy) -> None:
        self.bundle = bundle
        self.limits = limits
        self.policy = policy
        self.state: State = "starting"
        self.queued = 0
        self._encoders: dict[str, Encoder] = {}
        self._tokenizers: dict[str, TextTokenizer] = {}
        self._batchers: dict[str, Batcher] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._listeners: list[Listener] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._cache = VectorCache(policy.cache_bytes)
        self._pool = DecodePool(policy.decode_workers, limits, lambda reason: self._emit(WorkerReplaced(reason)))
        self._runtime_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="runtime")
        self._text_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenize")

    @property
    def encoders(self) -> Mapping[str, Encoder]:
        return self._encoders

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    async def start(self) -> None:
        """Load every graph and start the decoders. Raises `BundleError`s; the state is then `failed`."""
        try:
            await asyncio.gather(asyncio.to_thread(self._pool.start), asyncio.to_thread(self._open_encoders))
        except BaseException:
            self.state = "failed"
            raise
        runtime = asyncio.Lock()
        for name, encoder in self._encoders.items():
            spec = self.bundle.modality(name).spec
            batcher = Batcher(
                encoder,
                pad_id=spec.pad_id if isinstance(spec, TextSpec) else 0,
                max_batch=self.policy.max_batch,
                runtime=runtime,
                executor=self._runtime_thread,
                on_batch=lambda items, infer_ms, name=name: self._emit(BatchRun(name, items, infer_ms)),  # type: ignore[misc]
            )
            self._batchers[name] = batcher
            task = asyncio.create_task(batcher.run(), name=f"batch-{name}")
            task.add_done_callback(self._batcher_ended)
            self._tasks.append(task)
        self.state = "ready"

    async def stop(self, drain_s: float) -> None:
        """Refuse new items, finish accepted ones for up to ``drain_s`` seconds, then end everything."""
        if self.state == "ready":
            self.state = "draining"
            await asyncio.wait([asyncio.ensure_future(self._idle.wait())], timeout=drain_s)
        self.state = "stopped"
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._pool.stop)
        self._runtime_thread.shutdown(wait=True)
        self._text_thread.shutdown(wait=True)

    async def embed(self, modality: str, source: Value, options: Options | None = None, *, deadline: float | None = None) -> Embedded:
        """One item's unit vector.

        ``source``: a text or its token ids for a text modality, a media `Source` for the others. ``deadline``: on
        `time.monotonic`'s clock. Raises the item's own `BinderyError`; other items are never affected.
        """
        try:
            self._admit(modality, source)
        except BinderyError as error:
            self._emit(Refused(modality, error.code))
            raise
        self._emit(Admitted(modality))
        self.queued += 1
        self._idle.clear()
        try:
            embedded = await self._answer(modality, source, options, deadline)
        except BinderyError as error:
            self._emit(Failed(modality, error.code))
            raise
        finally:
            self.queued -= 1
            if self.queued == 0:
                self._idle.set()
        self._emit(Finished(modality, embedded.timings_ms))
        return embedded

    def _admit(self, modality: str, source: Value) -> None:
        if self.state == "starting":
            raise Starting("the models are still being loaded", retry_after_ms=1000)
        if self.state == "draining":
            raise Draining("the server is shutting down; send this to another one", retry_after_ms=5000)
        if self.state != "ready":
            raise EngineDown("the inference engine is not running", retry_after_ms=5000)
        kind = self.bundle.modality(modality).kind
        if (kind == "text") == isinstance(source, Source):
            raise UnsupportedMedia(
                f"modality {modality!r} takes " + ("text, not a media file" if kind == "text" else f"a media file of kind {kind}, not text")
            )
        if self.queued >= self.limits.queue_items:
            raise QueueFull(f"{self.queued} items are waiting or in work; at most {self.limits.queue_items} are taken", retry_after_ms=1000)

    async def _answer(self, modality: str, source: Value, options: Options | None, deadline: float | None) -> Embedded:
        options = options or parse_options(self.bundle.modality(modality).kind, {})
        if not self._cache.capacity:
            return await self._work(modality, source, options, deadline)
        key = await content_key((self.bundle.digest, modality, self.policy.precision), source, options)
        embedded, found = await self._cache.through(key, lambda: self._work(modality, source, options, deadline), deadline)
        self._emit(CacheLookup(modality, found))
        return embedded

    async def _work(self, modality: str, source: Value, options: Options, deadline: float | None) -> Embedded:
        started = time.monotonic()
        prepared = await _before(deadline, "decode", self._prepare(modality, source, options, deadline))
        decode_ms = (time.monotonic() - started) * 1000
        inferred = await _before(deadline, "infer", self._batchers[modality].infer(prepared.tensors, deadline))
        timings = {"decode": decode_ms, "queue": inferred.queue_ms, "infer": inferred.infer_ms}
        inferred.vector.setflags(write=False)
        return Embedded(inferred.vector, prepared.usage, prepared.truncated, timings)

    async def _prepare(self, modality: str, source: Value, options: Options, deadline: float | None) -> Prepared:
        spec = self.bundle.modality(modality).spec
        if not isinstance(source, Source):
            tokenizer = self._tokenizers[modality]
            if not isinstance(source, str):
                return tokenizer.encode_ids(source)
            if len(source) > self.limits.text_chars:
                raise InvalidParameter(f"the text has {len(source)} characters; at most {self.limits.text_chars} are taken")
            return await asyncio.get_running_loop().run_in_executor(self._text_thread, tokenizer.encode, source)
        return await asyncio.wrap_future(self._pool.submit(Task(source, spec, options), deadline))

    def _open_encoders(self) -> None:
        threads = self.policy.threads or len(os.sched_getaffinity(0))
        for name, modality in self.bundle.manifest.modalities.items():
            self._encoders[name] = open_encoder(
                self.bundle, name, device=self.policy.device, precision=self.policy.precision, threads=threads
            )
            if isinstance(modality.spec, TextSpec):
                self._tokenizers[name] = TextTokenizer(self.bundle.path(modality.spec.tokenizer), modality.spec)

    def _batcher_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self.state = "failed"

    def _emit(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)


async def _before(deadline: float | None, stage: str, work: Awaitable[T]) -> T:
    if deadline is None:
        return await work
    try:
        return await asyncio.wait_for(work, max(deadline - time.monotonic(), 0.0))
    except TimeoutError:
        raise DeadlineExceeded(f"the deadline passed in stage {stage}") from None
