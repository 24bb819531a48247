"""Spans by OpenTelemetry, sent as OTLP over HTTP. Imported only when traces are on; the extra `tracing` brings what it needs."""

from __future__ import annotations

import time

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers

from bindery import __version__
from service.tracing import Stretch


class Otlp:
    """`service.tracing.Traces`. `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER` and the like are OpenTelemetry's own, and count."""

    def __init__(self, processor: SpanProcessor) -> None:
        resource = Resource({SERVICE_NAME: "bindery", SERVICE_VERSION: __version__}).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("bindery", __version__)
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def to(cls, endpoint: str) -> Otlp:
        return cls(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces")))

    def add(self, headers: Headers, request: Stretch) -> None:
        since = time.time_ns() - round(time.monotonic() * 1e9)  # between the two clocks
        self._add(request, self._propagator.extract(dict(headers)), since, SpanKind.SERVER)

    def close(self) -> None:
        self._provider.shutdown()

    def _add(self, stretch: Stretch, parent: Context, since: int, kind: SpanKind = SpanKind.INTERNAL) -> None:
        span = self._tracer.start_span(stretch.name, parent, kind, dict(stretch.attributes), start_time=since + round(stretch.start * 1e9))
        if stretch.error is not None:
            span.set_attribute("error.type", stretch.error)
            span.set_status(Status(StatusCode.ERROR))
        inside = set_span_in_context(span, parent)
        for part in stretch.parts:
            self._add(part, inside, since)
        span.end(since + round(stretch.end * 1e9))
