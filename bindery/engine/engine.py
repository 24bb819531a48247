"""The door: `Engine.embed` takes one item of any modality and gives its vector, its error, or its deadline.

known already? → admit → decode and prepare (process pool) → ready queue per encoder → batch → runtime → reply
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from bindery.bundle import Bundle, Precision
from bindery.decoded import Cuts, Extent
from bindery.engine import supervision
from bindery.engine.admission import Admission, Costs, Seat
from bindery.engine.cache import Value, VectorCache, content_key
from bindery.engine.calibration import FOLDER, Tuned, read_calibration
from bindery.engine.embedded import NO_TIME, Embedded
from bindery.engine.encoding import Encoding
from bindery.engine.events import (
    Admitted,
    CacheLookup,
    Dropped,
    Event,
    Failed,
    Finished,
    Listener,
    Refused,
    Stage,
    ThreadReplaced,
    WorkerReplaced,
)
from bindery.engine.lanes import Priority
from bindery.engine.pool import DecodePool
from bindery.engine.preparing import Preparation
from bindery.engine.worker import Length, Stretch
from bindery.errors import (
    BinderyError,
    DeadlineExceeded,
    Draining,
    EngineDown,
    QueueFull,
    Starting,
    UnsupportedMedia,
)
from bindery.kinds import parse_options
from bindery.limits import MIB, Limits
from bindery.media.source import Source
from bindery.runtime.cores import usable_cores
from bindery.runtime.encoder import Encoder
from bindery.runtime.open import Device, open_encoder
from bindery.settings import Settings
from bindery.spec import Options

State = Literal["starting", "ready", "draining", "stopped", "failed"]
T = TypeVar("T")


class OpenEncoder(Protocol):
    """As `bindery.runtime.open.open_encoder`."""

    def __call__(
        self, bundle: Bundle, modality: str, *, device: Device, precision: Precision, threads: int | None, cache_dir: Path | None
    ) -> Encoder: ...


@dataclass(frozen=True, slots=True)
class EnginePolicy:
    device: Device = "auto"
    precision: Precision = "exact"
    threads: int | None = None
    decode_workers: int = 2
    max_batch: int = 16
    cache_bytes: int = 64 * MIB
    """Of vectors kept by content; 0 turns the cache off."""
    canary_s: float = 60.0
    cache_dir: Path | None = None
    """Where graphs made ready for this machine are kept."""
    calibrations: Path | None = None
    """Where `bindery calibrate` keeps what it found; None: nothing is looked up."""

    @classmethod
    def of(cls, settings: Settings) -> EnginePolicy:
        return cls(
            device=settings.device,
            precision=settings.precision,
            threads=settings.threads,
            decode_workers=settings.decode_workers,
            max_batch=settings.max_batch,
            cache_bytes=settings.cache_bytes,
            canary_s=settings.canary_seconds,
            cache_dir=settings.cache_dir,
            calibrations=settings.data_dir / FOLDER,
        )


@dataclass(frozen=True, slots=True)
class Tuning:
    threads: int
    """Of one run on the processor."""
    max_batch: int
    calibrated: bool
    """Whether `bindery calibrate` was run for this graph on this machine; settings that name a number overrule it all the same."""


@dataclass(slots=True)
class _Item:
    """One call of `Engine.embed`."""

    modality: str
    source: Value
    options: Options
    deadline: float | None
    priority: Priority
    seat: Seat | None
    admitted: bool = False
    stage: Stage = "admit"

    def at(self, stage: Stage) -> None:
        self.stage = stage


class Engine:
    """One bundle on one device, under one name. Made and used on one event loop; `listen`ers are called on it."""

    def __init__(
        self,
        bundle: Bundle,
        limits: Limits,
        policy: EnginePolicy,
        open_encoder: OpenEncoder = open_encoder,
        *,
        name: str | None = None,
        pool: DecodePool | None = None,
    ) -> None:
        """``name``: what it is called where it is served; default: the bundle's. ``pool``: decoders that are shared, and whose
        owner starts and stops them; default: its own."""
        self.name = name or bundle.name
        self.bundle = bundle
        self.limits = limits
        self.policy = policy
        self.state: State = "starting"
        self.queued = 0
        self._open_encoder = open_encoder
        self._listeners: list[Listener] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._cache = VectorCache(policy.cache_bytes)
        costs = self._costs = Costs()
        self._shares_pool = pool is not None
        self._pool = pool or DecodePool(policy.decode_workers, limits, lambda reason: self._emit(WorkerReplaced(reason)))
        self._preparation = Preparation(bundle, limits, self._pool, costs, lambda: self._emit(ThreadReplaced("tokenize")))
        self._encoding = Encoding(
            bundle,
            costs,
            max_batch=policy.max_batch,
            canary_s=policy.canary_s,
            emit=self._emit,
            on_dead=self._die,
            reopen=self._open_graph,
        )
        self._tuned: Mapping[str, Tuned] = {}
        self.queue = Admission(limits, self._preparation.width)

    @property
    def encoders(self) -> Mapping[str, Encoder]:
        return self._encoding.encoders

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    async def start(self) -> None:
        """Load every graph, start the decoders, and run each graph once. Raises `BundleError`s; the state is then `failed`."""
        try:
            opening = asyncio.get_running_loop().run_in_executor(self._encoding.thread, self._open)
            beginnings = [opening] if self._shares_pool else [opening, asyncio.to_thread(self._pool.start)]
            ended = await asyncio.gather(*beginnings, return_exceptions=True)
            for error in ended:  # both have ended: what one has begun can be taken down
                if error is not None:
                    raise error
            await self._encoding.start(self._preparation.tokenizers)
        except BaseException:
            self.state = "failed"
            raise
        self.state = "ready"

    async def stop(self, drain_s: float) -> None:
        """Refuse new items, finish accepted ones for up to ``drain_s`` seconds, then end everything."""
        if self.state == "ready":
            self.state = "draining"
            await asyncio.wait([asyncio.ensure_future(self._idle.wait())], timeout=drain_s)
        self.state = "stopped"
        await self._encoding.stop()
        if not self._shares_pool:
            await asyncio.to_thread(self._pool.stop)
        self._preparation.close()

    def trouble(self) -> str | None:
        """Why nobody should be sent here although the state is ``ready``: something hangs, or gives other vectors than it did.

        Asking is also what has the canary looked at, when that is due and nothing else is to be done.
        """
        if self._preparation.tokenizing_s > supervision.STUCK_S:
            return f"the tokenizer has worked on a text for {self._preparation.tokenizing_s:.1f} s"
        return self._encoding.trouble(idle=self.state == "ready" and self.queued == 0)

    def heartbeats(self) -> dict[str, float]:
        """Stage → seconds for which its oldest work has not gone on; 0 when it has nothing to do. The decoders are the pool's."""
        return {"tokenize": self._preparation.tokenizing_s, "batch": self._encoding.waiting_s, "runtime": self._encoding.running_s}

    @property
    def running_s(self) -> float:
        """How long the present run of a graph has lasted; 0 when none runs."""
        return self._encoding.running_s

    def tuning(self, modality: str) -> Tuning:
        """How its graph is run, and who said so."""
        policy, tuned = self.policy, self._tuned.get(modality)
        batch = min(policy.max_batch, self.encoders[modality].max_batch, policy.max_batch if tuned is None else tuned.max_batch)
        return Tuning(self._threads(modality), batch, tuned is not None)

    @property
    def cache_bytes(self) -> int:
        """Of the vectors that are kept by their content."""
        return self._cache.bytes

    def crowd(self, modality: str, priority: Priority, deadline: float | None) -> QueueFull | None:
        """As `Admission.crowd`: for a door that would rather not read what comes."""
        refusal = self.queue.crowd(priority, deadline)
        if refusal is not None:
            self._emit(Refused(modality, refusal.code))
        return refusal

    @contextmanager
    def seats(
        self, wanted: Sequence[tuple[str, Value]], *, deadline: float | None = None, priority: Priority = "interactive"
    ) -> Iterator[list[Seat]]:
        """Room for all items (modality and value) of a request, or `QueueFull` or `EngineDown` for all. Pass each its seat to `embed`."""
        costs = [self._costs.of(modality, _held_bytes(value)) for modality, value in wanted]
        try:
            self._encoding.check()
            seats = self.queue.take(costs, priority, deadline)
        except (QueueFull, EngineDown) as error:
            for modality, _ in wanted:
                self._emit(Refused(modality, error.code))
            raise
        try:
            yield seats
        finally:
            for seat in seats:
                seat.leave()

    async def embed(
        self,
        modality: str,
        source: Value,
        options: Options | None = None,
        *,
        deadline: float | None = None,
        priority: Priority = "interactive",
        seat: Seat | None = None,
        cached: bool = True,
    ) -> Embedded:
        """One item's unit vector.

        ``source``: a text or its token ids for a text modality, a media `Source` for the others. ``deadline``: on
        `time.monotonic`'s clock. ``seat``: from `seats`, when the request as a whole was let in. ``cached`` false: neither look
        for it among the vectors kept by content nor keep it, which spares a digest of the whole file for each of its clips.
        Raises the item's own `BinderyError`; other items are never affected.
        """
        try:
            self._check(modality, source)
        except BinderyError as error:
            self._emit(Refused(modality, error.code))
            raise
        item = _Item(modality, source, options or parse_options(self.bundle.modality(modality).kind, {}), deadline, priority, seat)
        self.queued += 1
        self._idle.clear()
        try:
            embedded = await self._answer(item, cached and self._cache.capacity > 0)
        except BinderyError as error:
            self._emit(Failed(modality, error.code, item.stage) if item.admitted else Refused(modality, error.code))
            raise
        except asyncio.CancelledError:
            self._emit(Dropped(modality, item.stage))
            raise
        finally:
            if item.seat is not None:
                item.seat.leave()
            self.queued -= 1
            if self.queued == 0:
                self._idle.set()
        computed = embedded.timings_ms is not NO_TIME
        self._emit(Finished(modality, embedded.timings_ms if computed else {}, embedded.usage if computed else {}))
        return embedded

    async def measure(self, modality: str, source: Source, *, deadline: float | None = None) -> Extent:
        """How long a video or a sound lasts; read from its header, or else its packets, in a decoder process. Raises as `embed`."""
        self._check(modality, source)
        length = Length(source, self.bundle.modality(modality).kind)
        return await _before(deadline, lambda: "decode", asyncio.wrap_future(self._pool.measure(length, deadline)))

    async def find_cuts(
        self, modality: str, source: Source, start: float, end: float, *, deadline: float | None = None, priority: Priority = "interactive"
    ) -> Cuts:
        """Where the scene changes from ``start`` on, in seconds; ask again from where that ends, up to ``end``. Raises as `embed`."""
        self._check(modality, source)
        return await _before(deadline, lambda: "decode", self._preparation.find_cuts(Stretch(source, start, end), deadline, priority))

    def _check(self, modality: str, source: Value) -> None:
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

    async def _answer(self, item: _Item, cached: bool) -> Embedded:
        if not cached:
            self._admit(item)
            return await self._work(item)
        key = await content_key((self.bundle.digest, item.modality, self.policy.precision), item.source, item.options)
        self._admit(item, known=self._cache.get(key) is not None, shares=self._cache.computes(key))
        embedded, found = await self._cache.through(key, lambda: self._work(item), item.deadline)
        self._emit(CacheLookup(item.modality, found))
        return embedded

    def _admit(self, item: _Item, *, known: bool = False, shares: bool = False) -> None:
        if item.seat is None and not known:  # what is known costs nothing, and finds an answer in a full engine too
            self._encoding.check()
            cost = self._costs.of(item.modality, _held_bytes(item.source))
            (item.seat,) = self.queue.take([cost.without_work() if shares else cost], item.priority, item.deadline)
        item.admitted, item.stage = True, "queue" if shares else "admit"
        self._emit(Admitted(item.modality))

    async def _work(self, item: _Item) -> Embedded:
        item.at("decode")
        started = time.monotonic()
        preparing = self._preparation.prepare(item.modality, item.source, item.options, item.deadline, item.priority)
        prepared = await _before(item.deadline, lambda: "decode", preparing)
        decode_ms = (time.monotonic() - started) * 1000
        if item.seat is not None:
            item.seat.decoded()
        item.at("queue")
        inferring = self._encoding.infer(item.modality, prepared.tensors, item.deadline, item.priority, lambda: item.at("infer"))
        inferred = await _before(item.deadline, lambda: item.stage, inferring)
        if item.seat is not None:
            item.seat.answered()
        inferred.vector.setflags(write=False)
        timings = {"decode": decode_ms, "queue": inferred.queue_ms, "infer": inferred.infer_ms}
        return Embedded(inferred.vector, prepared.usage, prepared.truncated, timings, batch=inferred.batch)

    def _open(self) -> None:
        self._preparation.open()
        policy = self.policy
        if policy.calibrations is not None:
            self._tuned = read_calibration(policy.calibrations, self.bundle, policy.device, policy.precision)
            self._encoding.batches = {name: one.max_batch for name, one in self._tuned.items()}
        for name in self.bundle.manifest.modalities:
            self._encoding.encoders[name] = self._open_graph(name)

    def _open_graph(self, name: str) -> Encoder:
        policy = self.policy
        return self._open_encoder(
            self.bundle, name, device=policy.device, precision=policy.precision, threads=self._threads(name), cache_dir=policy.cache_dir
        )

    def _threads(self, name: str) -> int:
        return self.policy.threads or (self._tuned[name].threads if name in self._tuned else usable_cores())

    def _die(self) -> None:
        self.state = "failed"

    def _emit(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)


async def _before(deadline: float | None, stage: Callable[[], Stage], work: Awaitable[T]) -> T:
    if deadline is None:
        return await work
    try:
        # Not `wait_for`: it makes a task of the work, which costs more than all else here.
        async with asyncio.timeout(max(deadline - time.monotonic(), 0.0)):
            return await work
    except TimeoutError:
        raise DeadlineExceeded(f"the deadline passed in stage {stage()}") from None


def _held_bytes(value: Value) -> int:
    return len(value.data) if isinstance(value, Source) and value.data is not None else 0
