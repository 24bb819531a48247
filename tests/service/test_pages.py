"""What the service says of itself: models, modalities, limits, metrics, the OpenAPI document and its page, the web page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from bindery.errors import error_table
from bindery.limits import Limits
from service.observe import TABLE
from service.page import WEB
from service.reference import PAGES
from tests.service.media import GOOD, SIDE, png
from tests.toybundle import DIMENSION

ROOT = Path(__file__).parents[2]
BODILESS = {"snapshot", "pause", "resume", "cancel"}
"""Last words of the paths whose POST says everything by its address."""


def test_the_model_is_described(client: httpx.Client) -> None:
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["id"], model["object"], model["dimension"], model["state"]) == ("toy", "model", DIMENSION, "ready")
    tower = model["modalities"]["audio"]
    assert (tower["kind"], tower["precision"], tower["provider"]) == ("audio", "exact", "CPUExecutionProvider")
    assert tower["parity"]["cosine_min"] == 1.0
    assert tower["tuning"]["calibrated"] is False
    assert 0 < tower["tuning"]["max_batch"] <= tower["max_batch"]
    assert client.get("/v1/models/toy").json() == model
    unknown = client.get("/v1/models/other")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_model")


def test_modalities_say_what_they_take(client: httpx.Client) -> None:
    answer = client.get("/v1/modalities").json()
    described = {one["name"]: one for one in answer["modalities"]}
    assert set(described) == {"text", *GOOD}
    assert "audio/wav" in described["audio"]["media_types"]
    assert ".wav" in described["audio"]["suffixes"]
    assert set(described["depth"]["options"]["properties"]) == {"depth_unit", "depth_scale"}
    assert described["video"]["limits"]["media_seconds"] == Limits().media_seconds


def test_every_limit_is_told(client: httpx.Client, small: httpx.Client) -> None:
    assert set(client.get("/v1/limits").json()["limits"]) == set(Limits.model_fields)
    assert small.get("/v1/limits").json()["limits"]["items_text"]["value"] == 8


MADE_BY = 'device="cpu",engine="onnxruntime/CPUExecutionProvider",'


def memory_of_decoders(text: str) -> float:
    (line,) = [line for line in text.splitlines() if line.startswith("bindery_decoders_bytes ")]
    return float(line.rpartition(" ")[2])


def test_metrics_count_what_happened(client: httpx.Client) -> None:
    client.post("/v1/embed/image", files=[("file", ("a.png", GOOD["image"])), ("file", ("b.png", b"junk"))])
    client.get("/v1/nowhere/at/all")
    text = client.get("/metrics").text
    for wanted in (
        'bindery_requests_total{method="POST",route="/v1/embed/{modality}",status="200"}',
        'bindery_requests_total{method="GET",route="unmatched",status="404"}',
        'bindery_items_finished_total{@modality="image",model="toy"}',
        'bindery_items_failed_total{code="unsupported_media",@modality="image",model="toy"}',
        'bindery_decode_failures_total{cause="unsupported_media",@modality="image",model="toy"}',
        'bindery_batch_fill_count{@modality="image",model="toy"}',
        'bindery_stage_seconds_count{@modality="image",model="toy",stage="decode"}',
        'bindery_batch_items_count{@modality="image",model="toy"}',
        'bindery_ready{model="toy"} 1.0',
        'bindery_model_bytes{model="toy"}',
        'bindery_stage_seconds_bucket{@le="0.0001",modality="image",model="toy",stage="infer"}',
        'bindery_stage_seconds_bucket{@le="300.0",modality="image",model="toy",stage="infer"}',
        'bindery_bundle_info{bundle="toy"',
        "process_resident_memory_bytes",
    ):
        assert wanted.replace("@", MADE_BY) in text, wanted
    assert memory_of_decoders(text) > 1_000_000
    assert "nowhere" not in text


def test_series_are_there_before_their_first_event(small: httpx.Client) -> None:
    text = small.get("/metrics").text
    for wanted in (
        'bindery_items_failed_total{code="deadline_exceeded",@modality="thermal",model="toy"} 0.0',
        'bindery_items_refused_total{code="queue_full",@modality="thermal",model="toy"} 0.0',
        'bindery_decode_failures_total{cause="decoder_killed",@modality="thermal",model="toy"} 0.0',
        'bindery_deadline_misses_total{@modality="thermal",model="toy",stage="decode"} 0.0',
        'bindery_cache_bytes{model="toy"} ',  # what other tests embedded may be in it
        'bindery_cache_total{@modality="thermal",model="toy",result="hit"} 0.0',
        'bindery_stage_seconds_count{@modality="thermal",model="toy",stage="decode"} 0.0',
        'bindery_workers_replaced_total{reason="timeout"} 0.0',
        'bindery_threads_replaced_total{model="toy",stage="runtime"} 0.0',
        'bindery_heartbeat_age_seconds{model="toy",stage="batch"} 0.0',
        'bindery_heartbeat_age_seconds{model="toy",stage="runtime"} 0.0',
        'bindery_heartbeat_age_seconds{model="toy",stage="tokenize"} 0.0',
        'bindery_heartbeat_age_seconds{model="",stage="decode"} 0.0',
        'bindery_heartbeat_age_seconds{model="",stage="jobs"} 0.0',
    ):
        assert wanted.replace("@", MADE_BY) in text, wanted


def test_what_was_decoded_is_counted_once(client: httpx.Client) -> None:
    def pixels() -> float:
        found = [
            line for line in client.get("/metrics").text.splitlines() if line.startswith("bindery_decoded_total{") and "pixels" in line
        ]
        return sum(float(line.rpartition(" ")[2]) for line in found)

    before = pixels()
    for _ in range(2):  # the second is known already
        client.post("/v1/embed/image", files={"file": png((7, 77, 177))}).raise_for_status()
    assert pixels() == before + SIDE * SIDE


def test_every_metric_of_the_table_is_exposed(client: httpx.Client) -> None:
    text = client.get("/metrics").text
    for row in TABLE:
        assert f"# HELP {row.name} {row.help}" in text
        assert f"# TYPE {row.name} {row.kind}" in text


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_reference_pages_are_up_to_date(name: str) -> None:
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == PAGES[name](), "run: python -m service.reference docs"


def test_the_openapi_document_knows_every_route_with_an_example_and_its_errors(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    known = {error.code for error in error_table()}
    routes = [(path, method, one) for path, methods in document["paths"].items() for method, one in methods.items()]
    assert len(routes) > 25
    for path, method, operation in routes:
        assert operation["summary"], path
        body = operation.get("requestBody")
        if body is not None:
            content = body["content"]["application/json"]
            assert "example" in content or "examples" in content["schema"], path
        assert (body is not None) == (method in ("post", "put", "patch") and path.rsplit("/", 1)[-1] not in BODILESS), path
        codes = {code for response in operation["responses"].values() for code in re.findall(r"`(\w+)`", response["description"])}
        assert codes <= known
    assert "unreadable_media" in document["paths"]["/v1/embed/{modality}"]["post"]["responses"]["422"]["description"]


def _loaded(html: str) -> list[str]:
    return re.findall(r"""(?:src|href)=["']([^"']+)""", html)


@pytest.mark.parametrize("path", ["/docs", "/"])
def test_pages_need_no_outside_address(client: httpx.Client, path: str) -> None:
    page = client.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert page.headers["cache-control"] == "no-cache"
    for address in _loaded(page.text):
        assert "//" not in address, address
        if not address.startswith("#"):
            assert client.get("/" + address.split("#")[0]).status_code == 200, address


def test_files_of_the_page_are_not_sent_twice(client: httpx.Client) -> None:
    first = client.get("/swagger-ui/swagger-ui.css")
    again = client.get("/swagger-ui/swagger-ui.css", headers={"If-None-Match": first.headers["etag"]})
    assert (first.status_code, again.status_code) == (200, 304)


def test_the_page_gives_no_file_from_elsewhere(client: httpx.Client) -> None:
    for path in ("/../app.py", "/%2e%2e/app.py", "/..%2fapp.py", "/swagger-ui/../../app.py", "//etc/passwd", "/index.html%00.js"):
        answer = client.get(httpx.URL(str(client.base_url)).copy_with(raw_path=path.encode()))
        assert answer.status_code == 404, path
    assert (WEB / "index.html").is_file()


def test_the_schema_of_an_embedding_is_readable(client: httpx.Client) -> None:
    operation: dict[str, Any] = client.get("/openapi.json").json()["paths"]["/v1/embed/{modality}"]["post"]
    content = operation["requestBody"]["content"]
    assert set(content) == {"application/json", "multipart/form-data", "application/octet-stream"}
    assert "$ref" not in str(content)
