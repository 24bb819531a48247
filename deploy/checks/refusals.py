"""Checks that bad input gets its documented refusal, in bounded time, and harms no neighbour."""

from __future__ import annotations

import struct
import time
import zlib
from typing import Any

from checks.client import Part, Reply, expect
from checks.service import Service, fields, segments
from checks.vectors import check_unit

PATIENCE_S = 30.0


def junk_in_every_modality(service: Service) -> str:
    """Empty, noise, a playlist, a concat script, a truncated file: each refused by name."""
    noise = bytes((i * 167 + (i >> 3) * 91) % 251 for i in range(4096))
    junk = {
        "empty": b"",
        "noise": noise,
        "playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        "concat script": b"ffconcat version 1.0\nfile /etc/passwd\n",
    }
    for modality in service.media:
        whole = service.data(modality)
        for what, data in {**junk, "truncated": whole[: min(len(whole) // 20, 64)]}.items():
            started = time.monotonic()
            reply = _post(service, modality, Part("file", data, "junk.bin", "application/octet-stream"))
            expect(reply.status in (413, 415, 422), f"{modality}: {what} answered {reply.status}: {reply.body[:200]!r}")
            problem(reply, reply.status)
            expect(time.monotonic() - started < PATIENCE_S, f"{modality}: {what} took longer than {PATIENCE_S:.0f} s")
    return f"{len(service.media)} modalities, 5 kinds of junk"


def a_picture_that_claims_to_be_huge(service: Service) -> str:
    """A PNG header of 100,000 by 100,000 pixels is refused by its header."""
    for modality, kind in service.media.items():
        if kind in ("image", "depth", "thermal"):
            problem(_post(service, modality, Part("file", _huge_png(), "huge.png", "image/png")), 413)
    return ""


def a_bad_file_harms_no_neighbour(service: Service) -> str:
    """Good, bad, good: 200 with one error, unless all or nothing was asked for."""
    medium = service.a_medium
    good, bad = service.file(medium), Part("file", b"nothing", "bad.bin", "application/octet-stream")
    reply = service.client.call("POST", f"/v1/embed/{medium}", form=[good, bad, good])
    first, second, third = reply.json()["items"]
    check_unit(tuple(first["embedding"]), service.dimension, "the first item")
    check_unit(tuple(third["embedding"]), service.dimension, "the third item")
    expect(bool(second["error"]["code"]) and bool(second["error"]["message"]), f"the second item has no error: {second}")
    strict = service.client.call("POST", f"/v1/embed/{medium}", form=[good, bad, *fields(on_error="fail")], status=(415, 422))
    problem(strict, strict.status)
    return str(second["error"]["code"])


def requests_that_make_no_sense(service: Service) -> str:
    """Each gets its status and its code of the error table."""
    call, text, medium = service.client.call, service.text, service.a_medium
    json_type = {"Content-Type": "application/json"}
    missing = segments(service.a_name())
    refusals: list[tuple[str, int, dict[str, Any]]] = [
        ("unknown_modality", 404, {"method": "POST", "path": "/v1/embed/smell", "json_body": {"inputs": ["x"]}}),
        ("unknown_path", 404, {"method": "GET", "path": "/v1/nothing-here"}),
        ("unknown_collection", 404, {"method": "GET", "path": f"/v1/collections/{missing}"}),
        ("unknown_label_set", 404, {"method": "GET", "path": f"/v1/label-sets/{missing}"}),
        ("method_not_allowed", 405, {"method": "DELETE", "path": "/v1/models"}),
        ("malformed_json", 400, {"method": "POST", "path": f"/v1/embed/{text}", "raw": b'{"inputs": [', "headers": json_type}),
        ("invalid_parameter", 422, {"method": "POST", "path": f"/v1/embed/{text}", "json_body": {"inputs": ["x"], "encoding": "morse"}}),
        ("invalid_parameter", 422, {"method": "POST", "path": f"/v1/classify/{medium}", "form": [service.file(medium)]}),
        ("too_many_items", 413, {"method": "POST", "path": f"/v1/embed/{text}", "json_body": {"inputs": ["x"] * 100_000}}),
    ]
    for code, status, asked in refusals:
        told = problem(call(asked.pop("method"), asked.pop("path"), **asked, status=status), status)
        expect(told["code"] == code, f"the code is {told['code']}, not {code}: {told['detail']}")
    openai = call("POST", "/v1/embeddings", json_body={"model": "no-such-model", "input": "x"}, status=(400, 404, 422))
    expect("message" in openai.json()["error"], "/v1/embeddings does not fail in OpenAI's shape")
    return f"{len(refusals) + 1} refusals"


def searches_that_make_no_sense(service: Service) -> str:
    path = service.will_make(f"/v1/collections/{segments(service.a_name())}")
    service.client.call("PUT", path, json_body={}, status=(200, 201))
    refusals: list[tuple[str, int, dict[str, Any]]] = [
        ("invalid_filter", 422, {"text": "x", "filter": {"place": {"resembles": "y"}}}),
        ("dimension_mismatch", 422, {"vector": [1.0, 0.0]}),
        ("unknown_item", 404, {"item": "not-there"}),
        ("invalid_parameter", 422, {"top_k": 3}),
        ("invalid_parameter", 422, {"text": "x", "top_k": 1_000_000}),
    ]
    for code, status, query in refusals:
        told = problem(service.client.call("POST", f"{path}/search", json_body=query, status=status), status)
        expect(told["code"] == code, f"{query}: the code is {told['code']}, not {code}")
    service.client.call("DELETE", path, status=(200, 204))
    return f"{len(refusals)} refusals"


def problem(reply: Reply, status: int) -> dict[str, Any]:
    """The problem document (RFC 9457) of a refusal."""
    expect(reply.status == status, f"{reply.asked}: answered {reply.status}, not {status}: {reply.body[:200]!r}")
    expect(reply.media_type == "application/problem+json", f"{reply.asked}: a refusal as {reply.media_type}")
    document: dict[str, Any] = reply.json()
    for member in ("type", "title", "status", "detail", "code", "request_id", "retryable"):
        expect(member in document, f"{reply.asked}: the problem has no {member!r}")
    return document


def _post(service: Service, modality: str, part: Part) -> Reply:
    return service.client.call("POST", f"/v1/embed/{modality}", form=[part], status=tuple(range(200, 600)))


def _huge_png() -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


REFUSAL_CHECKS = (
    junk_in_every_modality,
    a_picture_that_claims_to_be_huge,
    a_bad_file_harms_no_neighbour,
    requests_that_make_no_sense,
    searches_that_make_no_sense,
)
