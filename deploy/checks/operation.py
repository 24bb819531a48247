"""Checks of what an operator and a visitor look at: health, metrics, documentation, the page, models, limits."""

from __future__ import annotations

import re

from checks.client import expect
from checks.service import Service, segments


def alive_and_ready(service: Service) -> str:
    service.client.call("GET", "/livez")
    service.client.call("GET", "/readyz")
    return ""


def the_page_and_what_it_needs(service: Service) -> str:
    """The page and every file that it names are there, and nothing is fetched from elsewhere."""
    page = service.client.call("GET", "/")
    expect(page.media_type == "text/html", f"/ is {page.media_type}, not text/html")
    named = re.findall(rb"""(?:src|href)=["']([^"'#?]+)""", page.body)
    addresses = sorted({address.decode() for address in named})
    outside = [address for address in addresses if re.match(r"[a-z]+:|//", address) and not address.startswith("data:")]
    expect(not outside, f"the page names addresses outside this service: {outside}")
    for address in addresses:
        if not address.startswith("data:"):
            service.client.call("GET", "/" + address.removeprefix("./").lstrip("/"))
    return f"{len(addresses)} files"


def documentation(service: Service) -> str:
    service.client.call("GET", "/docs")
    openapi = service.client.call("GET", "/openapi.json").json()
    expect(openapi["openapi"].startswith("3."), f"not an OpenAPI 3 document: {openapi['openapi']}")
    return f"{len(openapi['paths'])} paths"


def metrics(service: Service) -> str:
    """Prometheus text: every line is a comment or `name{labels} number`."""
    reply = service.client.call("GET", "/metrics")
    expect(reply.media_type in ("text/plain", "application/openmetrics-text"), f"/metrics is {reply.media_type}")
    lines = [line for line in reply.body.decode().splitlines() if line and not line.startswith("#")]
    expect(bool(lines), "/metrics has no sample")
    for line in lines:
        expect(re.fullmatch(r"[a-zA-Z_:][\w:]*(\{.*\})? \S+( \S+)?", line) is not None, f"not a metrics line: {line!r}")
    expect(any(line.startswith("bindery_") for line in lines), "no metric of bindery itself")
    return f"{len(lines)} samples"


def models(service: Service) -> str:
    """OpenAI's list shape, with the served bundle in it."""
    told = service.client.call("GET", "/v1/models").json()
    expect(told["object"] == "list", "`object` is not `list`")
    expect(service.model in [model["id"] for model in told["data"]], f"{service.model} is not listed")
    one = service.client.call("GET", f"/v1/models/{segments(service.model)}").json()
    running = sorted({f"{tower['provider']}, {tower['precision']}" for tower in one["modalities"].values()})
    return f"{service.model}: {'; '.join(running)}"


def modalities(service: Service) -> str:
    told = service.client.call("GET", "/v1/modalities").json()
    for entry in told["modalities"]:
        expect(entry["kind"] == "text" or bool(entry["media_types"]), f"{entry['name']} accepts no media type")
    return ", ".join(sorted(service.kinds))


def limits(service: Service) -> str:
    told = service.client.call("GET", "/v1/limits").json()
    values = told.get("limits", told)
    expect("file_bytes" in str(values), "no limit on the bytes of a file")
    return ""


def each_reply_says_who_and_how_long(service: Service) -> str:
    """The caller's request id comes back, and the times of the stages."""
    reply = service.client.call(
        "POST", f"/v1/embed/{service.text}", json_body={"inputs": ["a dog"]}, headers={"X-Request-Id": "smoke-check-1"}
    )
    expect(reply.headers.get("x-request-id") == "smoke-check-1", f"X-Request-Id is {reply.headers.get('x-request-id')!r}")
    expect("total" in reply.headers.get("server-timing", ""), f"Server-Timing is {reply.headers.get('server-timing')!r}")
    return reply.headers["server-timing"]


OPERATION_CHECKS = (
    alive_and_ready,
    the_page_and_what_it_needs,
    documentation,
    models,
    modalities,
    limits,
    each_reply_says_who_and_how_long,
    metrics,
)
