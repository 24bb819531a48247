"""Checks of what an operator and a visitor look at: health, metrics, documentation, the page, models, limits."""

from __future__ import annotations

import re
from urllib.parse import urljoin

from checks.client import expect
from checks.service import Service, segments

_IN_A_SCRIPT = re.compile(r"""(?:\bfrom|\bimport)\s*\(?\s*["'](\.[^"'#?\s]+)["']""")  # modules by relative path
_NAMED = {
    "text/html": re.compile(r"""<(?:script|link|img)[^>]*?\s(?:src|href)=["']((?!data:)[^"'#?]+)"""),
    "text/css": re.compile(r"""url\(["']?((?!data:)[^"'#?)]+)"""),
    "text/javascript": _IN_A_SCRIPT,
    "application/javascript": _IN_A_SCRIPT,
}
"""How a file of each media type names others that it needs."""


def alive_and_ready(service: Service) -> str:
    service.client.call("GET", "/livez")
    service.client.call("GET", "/readyz")
    return ""


def the_page_and_what_it_needs(service: Service) -> str:
    return f"{_crawl(service, '/')} files"


def documentation(service: Service) -> str:
    files = _crawl(service, "/docs")
    openapi = service.client.call("GET", "/openapi.json").json()
    expect(openapi["openapi"].startswith("3."), f"not an OpenAPI 3 document: {openapi['openapi']}")
    return f"{files} files, {len(openapi['paths'])} paths"


def _crawl(service: Service, start: str) -> int:
    """The page and every file that it names, by however many steps, are there; nothing is fetched from elsewhere."""
    page = service.client.call("GET", start)
    expect(page.media_type == "text/html", f"{start} is {page.media_type}, not text/html")
    waiting, seen = [(start, page)], {start}
    while waiting:
        address, reply = waiting.pop()
        pattern = _NAMED.get(reply.media_type)
        for named in pattern.findall(reply.body.decode(errors="replace")) if pattern else ():
            needed = urljoin(address, named)
            expect(needed.startswith("/") and not needed.startswith("//"), f"{address} names a place outside this service: {needed}")
            if needed not in seen:
                seen.add(needed)
                waiting.append((needed, service.client.call("GET", needed)))
    return len(seen)


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


def a_model_comes_and_goes(service: Service) -> str:
    """The packaged starter under a second name, beside what is served; then it is unloaded."""
    name = service.a_name()
    path = service.will_make(f"/v1/models/{segments(name)}")
    service.client.call("PUT", path, json_body={"bundle": "starter"}, status=201)
    told = service.client.call("POST", "/v1/embeddings", json_body={"input": "a dog", "model": name}).json()
    expect(told["model"] == name, f"asked {name}, answered {told['model']}")
    service.client.call("DELETE", path, status=204)
    return name


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
    a_model_comes_and_goes,
    modalities,
    limits,
    each_reply_says_who_and_how_long,
    metrics,
)
