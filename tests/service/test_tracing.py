"""Traces: off by default and then not even imported; with an endpoint, a request's spans arrive there with their parent."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from bindery.errors import InvalidParameter
from bindery.settings import Settings
from service import tracing
from service.otlp import Otlp
from tests.service.conftest import served
from tests.service.media import GOOD, wav

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(scope="module")
def kept() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture(scope="module")
def traced(toy_settings: Settings, kept: InMemorySpanExporter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    settings = toy_settings.model_copy(update={"data_dir": tmp_path_factory.mktemp("traced")})
    with served(settings, traces=Otlp(SimpleSpanProcessor(kept))) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client


def spans_of(kept: InMemorySpanExporter, request_id: str) -> dict[str, list[ReadableSpan]]:
    """The request's spans by name; they are added after its answer has gone."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        spans = kept.get_finished_spans()
        (root, *_) = [one for one in spans if (one.attributes or {}).get("bindery.request_id") == request_id] or [None]
        if root is not None:
            found: dict[str, list[ReadableSpan]] = {"root": [root]}
            for one in spans:
                if one is not root and one.context.trace_id == root.context.trace_id:
                    found.setdefault(one.name, []).append(one)
            return found
        time.sleep(0.01)
    raise AssertionError(f"no span of request {request_id}")


def test_a_request_becomes_a_tree_of_its_stages(traced: httpx.Client, kept: InMemorySpanExporter) -> None:
    headers = {"X-Request-Id": "tree", "traceparent": f"00-{TRACE}-{PARENT}-01"}
    files = [("file", ("a.wav", wav(333.0))), ("file", ("b.wav", b"junk"))]
    assert traced.post("/v1/embed/audio", files=files, headers=headers).status_code == 200
    spans = spans_of(kept, "tree")
    (root,) = spans["root"]
    assert root.parent is not None
    assert (f"{root.context.trace_id:032x}", f"{root.parent.span_id:016x}") == (TRACE, PARENT)
    assert root.name == "POST /v1/embed/{modality}"
    attributes = dict(root.attributes or {})
    assert (attributes["http.response.status_code"], attributes["bindery.items"]) == (200, 2)
    good, bad = sorted(spans["item"], key=lambda span: span.status.status_code is StatusCode.ERROR)
    assert dict(good.attributes or {}) == {"bindery.model": "toy", "bindery.modality": "audio", "bindery.cached": False}
    assert (bad.attributes or {})["error.type"] == "unsupported_media"
    once = dict.fromkeys(("root", "admit", "decode", "queue", "infer", "reply"), 1)
    assert {name: len(found) for name, found in spans.items()} == {**once, "item": 2}
    assert (spans["infer"][0].attributes or {})["bindery.batch"] == 1
    for name in ("decode", "queue", "infer"):
        (stage,) = spans[name]
        assert stage.parent is not None
        assert stage.parent.span_id == good.context.span_id
    for span in (one for found in spans.values() for one in found):
        assert root.start_time <= span.start_time <= span.end_time <= root.end_time
    assert abs(root.end_time / 1e9 - time.time()) < 3600  # nanoseconds since 1970


def test_what_was_known_already_has_no_stages(traced: httpx.Client, kept: InMemorySpanExporter) -> None:
    for id in ("first", "second"):
        traced.post("/v1/embed/image", files={"file": GOOD["image"]}, headers={"X-Request-Id": id})
    again = spans_of(kept, "second")
    assert (again["item"][0].attributes or {})["bindery.cached"] is True
    assert "infer" not in again


def test_an_error_without_items_is_a_span_too_and_probes_are_none(traced: httpx.Client, kept: InMemorySpanExporter) -> None:
    traced.get("/livez", headers={"X-Request-Id": "probe"})
    traced.get("/v1/nowhere", headers={"X-Request-Id": "nowhere", "traceparent": "nonsense"})
    (root,) = spans_of(kept, "nowhere")["root"]
    assert ((root.attributes or {})["http.route"], root.parent) == ("unmatched", None)
    assert "probe" not in {(one.attributes or {}).get("bindery.request_id") for one in kept.get_finished_spans()}


@contextmanager
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """An OTLP/HTTP receiver on loopback."""
    received: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                raise AssertionError("not asked for")
            assert self.path == "/v1/traces"
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_spans_arrive_at_the_endpoint_of_the_settings(toy_settings: Settings, tmp_path: Path) -> None:
    with collector() as (endpoint, received):
        settings = toy_settings.model_copy(update={"data_dir": tmp_path, "otlp_endpoint": endpoint})
        with served(settings) as address:
            httpx.post(f"{address}/v1/embed/text", json={"inputs": ["a", "b"]}).raise_for_status()
        # the end of the server sends what is left
    resources = [one for request in received for one in request.resource_spans]
    names = [span.name for one in resources for scope in one.scope_spans for span in scope.spans]
    assert names.count("item") == 2
    assert "POST /v1/embed/{modality}" in names
    assert {pair.value.string_value for one in resources for pair in one.resource.attributes if pair.key == "service.name"} == {"bindery"}


def test_a_collector_that_is_away_harms_nobody(toy_settings: Settings, tmp_path: Path) -> None:
    with collector() as (endpoint, _):
        pass
    settings = toy_settings.model_copy(update={"data_dir": tmp_path, "otlp_endpoint": endpoint})
    began = time.monotonic()
    with served(settings) as address:
        assert httpx.post(f"{address}/v1/embed/text", json={"inputs": ["a"]}).status_code == 200
    assert time.monotonic() - began < 60


def test_it_is_off_and_not_imported_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().otlp_endpoint is None
    assert tracing.open_traces(Settings()) is None
    code = "import sys, service.app; service.app.create_app(); print(any(name.startswith('opentelemetry.sdk') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "BINDERY_OTLP_ENDPOINT"):  # ours is asked first
        monkeypatch.setenv(name, f"http://{name}:4318")
        assert Settings().otlp_endpoint == f"http://{name}:4318"


def test_without_the_extra_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "service.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.context", None)
    with pytest.raises(InvalidParameter, match=r"BINDERY_OTLP_ENDPOINT needs opentelemetry, .*'bindery\[tracing\]'"):
        tracing.open_traces(Settings(otlp_endpoint="http://127.0.0.1:9"))
