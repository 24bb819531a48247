"""Metrics: one table of names, helps and labels; engine events and requests turn into numbers here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from bindery.engine.engine import Engine
from bindery.engine.events import (
    Admitted,
    BatchRun,
    CacheLookup,
    Dropped,
    Event,
    Failed,
    Finished,
    Listener,
    LoopRestarted,
    Refused,
    Stage,
    ThreadReplaced,
    WorkerReplaced,
)
from bindery.engine.footprint import cpu_seconds, resident_bytes
from bindery.engine.pool import DecodePool, Reason
from bindery.errors import DeadlineExceeded

Of = tuple[str, str, str, str]
"""A model, one of its modalities, what runs its graph ("onnxruntime/CPUExecutionProvider"), and where ("cpu", "cuda:0")."""

OF = ("model", "modality", "engine", "device")
SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0),
)
STAGES = ("decode", "queue", "infer")
SHARED = ""  # in place of a model's name
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
SHARES = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)


@dataclass(frozen=True, slots=True)
class Metric:
    kind: Literal["counter", "gauge", "histogram"]
    name: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = SECONDS


TABLE: tuple[Metric, ...] = (
    Metric("counter", "bindery_requests_total", "HTTP requests answered", ("method", "route", "status")),
    Metric("histogram", "bindery_request_seconds", "time from a request's first byte to its answer", ("route",)),
    Metric("counter", "bindery_request_body_bytes_total", "bytes of request bodies read"),
    Metric("gauge", "bindery_requests_in_flight", "HTTP requests being worked on"),
    Metric("gauge", "bindery_http_workers", "HTTP processes in front of the engine's; 0 when that one speaks HTTP itself"),
    Metric("counter", "bindery_http_workers_replaced_total", "HTTP processes that ended and were started again"),
    Metric("counter", "bindery_http_worker_requests_total", "requests that an HTTP process answered or handed over", ("worker",)),
    Metric("gauge", "bindery_http_worker_cpu_seconds", "processor time of an HTTP process since it was started", ("worker",)),
    Metric("gauge", "bindery_http_worker_bytes", "memory of an HTTP process, what they share counted for each", ("worker",)),
    Metric("counter", "bindery_items_admitted_total", "items that the engine took", OF),
    Metric("counter", "bindery_items_refused_total", "items that the engine did not take", (*OF, "code")),
    Metric("counter", "bindery_items_finished_total", "items that became a vector", OF),
    Metric("counter", "bindery_items_failed_total", "items taken that became an error", (*OF, "code")),
    Metric("counter", "bindery_decode_failures_total", "items that became an error in decoding or preparation", (*OF, "cause")),
    Metric(
        "counter",
        "bindery_deadline_misses_total",
        "items whose deadline passed, by the stage they were in: admit, decode, queue (ready, or waiting for an equal item), infer",
        (*OF, "stage"),
    ),
    Metric(
        "counter",
        "bindery_items_dropped_total",
        "items taken whose caller went away, by the stage they were in: admit, decode, queue, infer",
        (*OF, "stage"),
    ),
    Metric("histogram", "bindery_stage_seconds", "time of one item in one stage", (*OF, "stage")),
    Metric("histogram", "bindery_batch_items", "items of one run of a graph", OF, BATCHES),
    Metric("histogram", "bindery_batch_fill", "items of one run, as a share of those that it could have had", OF, SHARES),
    Metric("histogram", "bindery_batch_seconds", "time of one run of a graph", OF),
    Metric("counter", "bindery_workers_replaced_total", "decoder processes that died or were killed", ("reason",)),
    Metric(
        "counter",
        "bindery_decoded_total",
        "what became vectors, by what was counted of it: bytes, pixels, audio_seconds, video_frames, tokens",
        (*OF, "unit"),
    ),
    Metric(
        "gauge",
        "bindery_heartbeat_age_seconds",
        "for how long the oldest work of a stage has not gone on, 0 when idle; decode and jobs are shared by all models",
        ("model", "stage"),
    ),
    Metric("gauge", "bindery_decode_run_seconds", "how long the oldest decoding in work has lasted; 0 when there is none"),
    Metric("counter", "bindery_loop_restarts_total", "batching loops that ended by a surprise and were begun again", OF),
    Metric("counter", "bindery_threads_replaced_total", "threads that hung in their work and were given up", ("model", "stage")),
    Metric("gauge", "bindery_run_seconds", "how long the present run of a graph has lasted; 0 when none runs", ("model",)),
    Metric("gauge", "bindery_queue_wait_seconds", "estimated time until the work that waits is done", ("model",)),
    Metric("gauge", "bindery_queue_bytes", "bytes of files in memory and of tensors, of items waiting or in work", ("model",)),
    Metric("gauge", "bindery_queue_items", "items waiting or in work", ("model",)),
    Metric("gauge", "bindery_cache_bytes", "of vectors kept by their content", ("model",)),
    Metric("gauge", "bindery_model_bytes", "what a model's graphs take, by an estimate from its files", ("model",)),
    Metric("gauge", "bindery_decoders_bytes", "memory of the decoder processes, what they share counted for each"),
    Metric("gauge", "bindery_ready", "1 when the engine takes work, nothing in it hangs, and its canary has not moved", ("model",)),
    Metric("gauge", "bindery_bundle_info", "always 1; the bundle that is served", ("model", "bundle", "version", "space")),
    Metric(
        "gauge",
        "bindery_tower_info",
        "always 1; what runs a modality's graph",
        (*OF, "runtime", "provider", "precision"),
    ),
    Metric("counter", "bindery_cache_total", "items by how they got their vector: hit, coalesced or miss", (*OF, "result")),
    Metric("counter", "bindery_label_cache_total", "labels looked up in the cache of label vectors", ("result",)),
)


class Metrics:
    """The table, registered. Thread-safe, as Prometheus' client is."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        self._counting: dict[tuple[str, ...], Counter] = {}
        self._observing: dict[tuple[str, ...], Histogram] = {}
        for row in TABLE:
            self._register(row)
        self.label_cache = self._counters["bindery_label_cache_total"]
        for found in ("hit", "miss"):
            self.label_cache.labels(found)
        for reason in get_args(Reason):
            self._counters["bindery_workers_replaced_total"].labels(reason)
        self.body_bytes = self._counters["bindery_request_body_bytes_total"]
        self.in_flight = self._gauges["bindery_requests_in_flight"]
        self.http_workers = self._gauges["bindery_http_workers"]
        self.http_workers_replaced = self._counters["bindery_http_workers_replaced_total"]

    def render(self) -> bytes:
        return generate_latest(self._registry)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        self._counter("bindery_requests_total", method, route, str(status)).inc()
        self._histogram("bindery_request_seconds", route).observe(seconds)

    def watch(self, engine: Engine, estimated_bytes: int) -> None:
        """Show the engine's state under its name, until `forget`. ``estimated_bytes``: of its graphs in memory."""
        name, manifest = engine.name, engine.bundle.manifest
        gauges = self._gauges
        gauges["bindery_queue_items"].labels(name).set_function(lambda: engine.queued)
        gauges["bindery_ready"].labels(name).set_function(lambda: float(engine.state == "ready" and engine.trouble() is None))
        gauges["bindery_run_seconds"].labels(name).set_function(lambda: engine.running_s)
        gauges["bindery_queue_wait_seconds"].labels(name).set_function(lambda: engine.queue.wait_ms("batch") / 1000)
        gauges["bindery_queue_bytes"].labels(name).set_function(lambda: engine.queue.bytes)
        gauges["bindery_cache_bytes"].labels(name).set_function(lambda: engine.cache_bytes)
        gauges["bindery_model_bytes"].labels(name).set(estimated_bytes)
        gauges["bindery_bundle_info"].labels(name, manifest.name, manifest.version, manifest.space).set(1)
        for stage in ("tokenize", "runtime"):
            self._counter("bindery_threads_replaced_total", name, stage)
        for stage in engine.heartbeats():
            self._beats(name, stage, partial(_beat, engine, stage))
        for modality in manifest.modalities:
            self._begin_at_zero(_of(engine, modality))
        for modality, encoder in engine.encoders.items():
            gauges["bindery_tower_info"].labels(*_of(engine, modality), encoder.runtime, encoder.provider, encoder.precision).set(1)

    def watch_decoders(self, pool: DecodePool) -> None:
        self._gauges["bindery_decode_run_seconds"].set_function(lambda: pool.running_s)
        self._gauges["bindery_decoders_bytes"].set_function(lambda: pool.resident_bytes)
        self._beats(SHARED, "decode", lambda: pool.running_s)

    def watch_jobs(self, quiet_s: Callable[[], float]) -> None:
        self._beats(SHARED, "jobs", quiet_s)

    def watch_worker(self, worker: str, pid: int) -> None:
        """Show an HTTP process, in place of the one that had this name."""
        self.worker_answered(worker, 0)
        self._gauges["bindery_http_worker_cpu_seconds"].labels(worker).set_function(lambda: cpu_seconds(pid))
        self._gauges["bindery_http_worker_bytes"].labels(worker).set_function(lambda: resident_bytes(pid))

    def worker_answered(self, worker: str, requests: int) -> None:
        self._counter("bindery_http_worker_requests_total", worker).inc(requests)

    def _beats(self, model: str, stage: str, age_s: Callable[[], float]) -> None:
        self._gauges["bindery_heartbeat_age_seconds"].labels(model, stage).set_function(age_s)

    def _begin_at_zero(self, of: Of) -> None:
        """Series that are there before their first event, so that a rate over them sees that one too."""
        for name, values in _KNOWN_VALUES.items():
            for value in values:
                self._counter(name, *of, *value)
        for stage in STAGES:
            self._histogram("bindery_stage_seconds", *of, stage)
        for name in ("bindery_batch_items", "bindery_batch_fill", "bindery_batch_seconds"):
            self._histogram(name, *of)

    def forget(self, name: str) -> None:
        """Drop the gauges of a model that is no longer served; what was counted of it stays."""
        for row in TABLE:
            if row.kind == "gauge" and "model" in row.labels:
                self._gauges[row.name].remove_by_labels({"model": name})

    def worker_replaced(self, reason: str) -> None:
        self._counters["bindery_workers_replaced_total"].labels(reason).inc()

    def listener(self, engine: Engine) -> Listener:
        """What the engine shall call with its events."""
        known = {modality: _of(engine, modality) for modality in engine.bundle.manifest.modalities}
        unknown = (engine.name, "unknown", "", "")

        def listen(event: Event) -> None:
            if isinstance(event, WorkerReplaced):
                self.worker_replaced(event.reason)
                return
            if isinstance(event, ThreadReplaced):
                self._counter("bindery_threads_replaced_total", engine.name, event.stage).inc()
                return
            # A name from a URL must not become a new time series for ever.
            _RECORDERS[type(event)](self, known.get(event.modality, unknown), event)

        return listen

    def _counter(self, name: str, *values: str) -> Counter:
        """One series, looked up once: the client checks and locks each time, and under a flood every request counts."""
        series = self._counting.get((name, *values))
        if series is None:
            series = self._counting[name, *values] = self._counters[name].labels(*values)
        return series

    def _histogram(self, name: str, *values: str) -> Histogram:
        """As `_counter`."""
        series = self._observing.get((name, *values))
        if series is None:
            series = self._observing[name, *values] = self._histograms[name].labels(*values)
        return series

    def _register(self, row: Metric) -> None:
        if row.kind == "counter":
            self._counters[row.name] = Counter(row.name, row.help, row.labels, registry=self._registry)
        elif row.kind == "gauge":
            self._gauges[row.name] = Gauge(row.name, row.help, row.labels, registry=self._registry)
        else:
            self._histograms[row.name] = Histogram(row.name, row.help, row.labels, registry=self._registry, buckets=row.buckets)

    def _admitted(self, of: Of, _: Event) -> None:
        self._counter("bindery_items_admitted_total", *of).inc()

    def _refused(self, of: Of, event: Event) -> None:
        assert isinstance(event, Refused)
        self._counter("bindery_items_refused_total", *of, event.code).inc()

    def _cache_lookup(self, of: Of, event: Event) -> None:
        assert isinstance(event, CacheLookup)
        self._counter("bindery_cache_total", *of, event.found).inc()

    def _finished(self, of: Of, event: Event) -> None:
        assert isinstance(event, Finished)
        self._counter("bindery_items_finished_total", *of).inc()
        for unit, amount in event.usage.items():
            self._counter("bindery_decoded_total", *of, unit).inc(amount)
        for stage, milliseconds in event.stages_ms.items():
            self._histogram("bindery_stage_seconds", *of, stage).observe(milliseconds / 1000)

    def _failed(self, of: Of, event: Event) -> None:
        assert isinstance(event, Failed)
        self._counter("bindery_items_failed_total", *of, event.code).inc()
        if event.code == DeadlineExceeded.code:
            self._counter("bindery_deadline_misses_total", *of, event.stage).inc()
        elif event.stage == "decode":
            self._counter("bindery_decode_failures_total", *of, event.code).inc()

    def _dropped(self, of: Of, event: Event) -> None:
        assert isinstance(event, Dropped)
        self._counter("bindery_items_dropped_total", *of, event.stage).inc()

    def _loop_restarted(self, of: Of, _: Event) -> None:
        self._counter("bindery_loop_restarts_total", *of).inc()

    def _batch_run(self, of: Of, event: Event) -> None:
        assert isinstance(event, BatchRun)
        self._histogram("bindery_batch_items", *of).observe(event.items)
        self._histogram("bindery_batch_fill", *of).observe(event.items / event.most)
        self._histogram("bindery_batch_seconds", *of).observe(event.infer_ms / 1000)


def _beat(engine: Engine, stage: str) -> float:
    return engine.heartbeats()[stage]


def _of(engine: Engine, modality: str) -> Of:
    encoder = engine.encoders[modality]
    device = "cpu" if encoder.device == "cpu" else f"{encoder.device}:0"  # a GPU is the first one that the process sees
    return engine.name, modality, f"{encoder.runtime.partition(' ')[0]}/{encoder.provider}", device


_KNOWN_VALUES: dict[str, tuple[tuple[str, ...], ...]] = {
    "bindery_items_admitted_total": ((),),
    "bindery_items_finished_total": ((),),
    "bindery_loop_restarts_total": ((),),
    "bindery_items_refused_total": (("queue_full",), ("engine_down",)),
    "bindery_items_failed_total": tuple((code,) for code in ("deadline_exceeded", "decoder_killed", "unreadable_media", "internal")),
    "bindery_decode_failures_total": tuple((code,) for code in ("unreadable_media", "unsupported_media", "decoder_killed", "too_long")),
    "bindery_deadline_misses_total": tuple((stage,) for stage in get_args(Stage)),
    "bindery_items_dropped_total": tuple((stage,) for stage in get_args(Stage)),
    "bindery_cache_total": (("hit",), ("coalesced",), ("miss",)),
}
"""Of the counters by `OF`: values of their other labels that may come."""

_RECORDERS: dict[type[Event], Callable[[Metrics, Of, Event], None]] = {
    Admitted: Metrics._admitted,
    Refused: Metrics._refused,
    CacheLookup: Metrics._cache_lookup,
    Finished: Metrics._finished,
    Failed: Metrics._failed,
    Dropped: Metrics._dropped,
    LoopRestarted: Metrics._loop_restarted,
    BatchRun: Metrics._batch_run,
}
