"""What every request and every answer has: ids, timings, problems, bounds."""

from __future__ import annotations

import base64
import json
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.media import GOOD, png, wav

PLAIN = {"inputs": ["a dog"]}


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_the_callers_request_id_comes_back(client: httpx.Client) -> None:
    assert client.get("/livez", headers={"X-Request-Id": "my-id.1"}).headers["x-request-id"] == "my-id.1"
    problem = client.get("/nothing", headers={"X-Request-Id": "my-id.2"}).json()
    assert problem["request_id"] == "my-id.2"


@pytest.mark.parametrize("bad", ["x" * 129, "a b", "<script>", "a;b"])
def test_an_unsafe_request_id_is_replaced(client: httpx.Client, bad: str) -> None:
    given = client.get("/livez", headers={"X-Request-Id": bad}).headers["x-request-id"]
    assert len(given) == 32
    assert given != client.get("/livez").headers["x-request-id"]


def test_the_stages_times_are_told(client: httpx.Client) -> None:
    header = client.post("/v1/embed/image", files={"file": ("a.png", png((1, 2, 3)))}).headers["server-timing"]
    stages = {part.split(";dur=")[0]: float(part.split(";dur=")[1]) for part in header.split(", ")}
    assert list(stages) == ["admit", "decode", "queue", "infer", "total"]
    assert stages["decode"] > 0
    assert stages["total"] >= stages["decode"] + stages["infer"]
    assert "total" in client.get("/nothing").headers["server-timing"]


def test_unknown_addresses_and_methods_are_problems(client: httpx.Client) -> None:
    for answer in (client.get("/v1/nothing"), client.post("/nothing"), client.get("/../../etc/passwd")):
        assert code(answer) == (404, "unknown_path")
        assert answer.headers["content-type"] == "application/problem+json"
    wrong = client.get("/v1/embed/text")
    assert code(wrong) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "OPTIONS, POST"
    assert client.put("/v1/collections").headers["allow"] == "GET, HEAD, OPTIONS"
    assert client.post("/v1/label-sets/x").headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PUT"


def test_options_tells_what_an_address_takes(client: httpx.Client) -> None:
    answer = client.options("/v1/collections/any")
    assert (answer.status_code, answer.headers["allow"]) == (204, "DELETE, GET, HEAD, OPTIONS, PUT")
    assert client.options("/v1/nothing").status_code == 404


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/v1/models", "/v1/limits", "/openapi.json", "/metrics", "/docs", "/"])
def test_head_answers_like_get_without_a_body(client: httpx.Client, path: str) -> None:
    head, get = client.head(path), client.get(path)
    assert head.status_code == get.status_code == 200
    assert head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]


def test_browsers_of_other_sites_are_not_let_in_by_default(client: httpx.Client) -> None:
    answer = client.get("/v1/models", headers={"Origin": "https://example.org"})
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("value", ["0", "-5", "soon", "1.5", "99999999999", "", "１０"])
def test_a_broken_timeout_header_is_refused(client: httpx.Client, value: str) -> None:
    answer = client.post("/v1/embed/text", json=PLAIN, headers=[("X-Request-Timeout-Ms", value.encode())])  # type: ignore[list-item]
    assert code(answer) == (400, "invalid_header")


def test_the_priority_header_is_checked(client: httpx.Client) -> None:
    assert client.post("/v1/embed/text", json=PLAIN, headers={"X-Priority": "batch"}).status_code == 200
    assert code(client.post("/v1/embed/text", json=PLAIN, headers={"X-Priority": "urgent"})) == (400, "invalid_header")


def test_a_deadline_that_passes_names_the_stage(client: httpx.Client) -> None:
    unseen = GOOD["video"] + b"\0\0\0\x08free"  # what was embedded before is answered at once
    answer = client.post("/v1/embed/video", files={"file": ("a.mp4", unseen)}, headers={"X-Request-Timeout-Ms": "1"})
    assert code(answer) == (504, "deadline_exceeded")
    assert answer.json()["retryable"] is True
    assert "stage" in answer.json()["detail"]


def test_a_deadline_holds_while_the_body_comes_in(client: httpx.Client) -> None:
    def slow() -> Iterator[bytes]:
        yield b'{"inputs": ['
        time.sleep(0.5)
        yield b'"a"]}'

    headers = {"X-Request-Timeout-Ms": "100", "Content-Type": "application/json"}
    answer = client.post("/v1/embed/text", content=slow(), headers=headers)
    assert code(answer) == (504, "deadline_exceeded")
    assert "body" in answer.json()["detail"]


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "image/*"])
def test_an_answer_that_nobody_accepts_is_not_made(client: httpx.Client, accept: str) -> None:
    assert code(client.post("/v1/embed/text", json=PLAIN, headers={"Accept": accept})) == (406, "not_acceptable")


@pytest.mark.parametrize("body", [b"", b"{", b"nothing", b'{"inputs": [NaN]}', b"\xff\xfe", b'{"inputs": ["\\ud800"]}'])
def test_a_body_that_is_no_json_is_malformed(client: httpx.Client, body: bytes) -> None:
    for path in ("/v1/embed/text", "/v1/embeddings", "/v1/similarity"):
        assert code(client.post(path, content=body, headers={"Content-Type": "application/json"})) == (400, "malformed_json")


@pytest.mark.parametrize(
    ("bomb", "answer"),
    [
        (b"[" * 20_000, (400, "malformed_json")),
        (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, (400, "malformed_json")),
        (b"[" * 40 + b"]" * 40, (400, "malformed_json")),
        (b"[" * 100_000, (413, "too_many_bytes")),  # the limit json_values, seen before any of it is parsed
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, (413, "too_many_bytes")),
    ],
    ids=["lists", "objects", "just-too-deep", "many-lists", "many-objects"],
)
def test_a_deeply_nested_body_is_refused_at_once(client: httpx.Client, bomb: bytes, answer: tuple[int, str]) -> None:
    for path in ("/v1/embed/text", "/v1/embeddings"):
        assert code(client.post(path, content=bomb, headers={"Content-Type": "application/json"})) == answer


def test_json_that_is_no_object_is_an_invalid_parameter(client: httpx.Client) -> None:
    for document in (b"[]", b'"text"', b"3", b"null"):
        answer = client.post("/v1/embed/text", content=document, headers={"Content-Type": "application/json"})
        assert code(answer) == (422, "invalid_parameter")


@pytest.mark.parametrize("content_type", ["", "application/x-www-form-urlencoded", "text/html", "application/xml"])
def test_a_body_of_another_type_is_unsupported(client: httpx.Client, content_type: str) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    assert code(client.post("/v1/embeddings", content=b"<a/>", headers=headers or {"Content-Type": "text/plain"})) == (
        415,
        "unsupported_media",
    )
    assert code(client.post("/v1/embed/image", content=b"<a/>", headers=headers)) == (415, "unsupported_media")


def test_a_compressed_body_is_refused(client: httpx.Client) -> None:
    answer = client.post("/v1/embed/text", content=b"\x1f\x8b", headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})
    assert code(answer) == (415, "unsupported_media")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--x--"),
        ("multipart/form-data; boundary=" + "x" * 300, b""),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"no boundary"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nno headers\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\ncut off'),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"A" * 100_000),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\n\xff\r\n--x--\r\n'),
    ],
)
def test_a_broken_form_is_malformed(client: httpx.Client, content_type: str, body: bytes) -> None:
    answer = client.post("/v1/embed/text", content=body, headers={"Content-Type": content_type})
    assert code(answer) == (400, "malformed_multipart")


def test_fields_of_a_form_are_checked(client: httpx.Client) -> None:
    good = {"file": ("a.png", png())}
    for fields in ({"encoding": "hex"}, {"dimensions": "many"}, {"colour": "red"}, {"on_error": "cry"}, {"encoding": ["float", "int8"]}):
        assert code(client.post("/v1/embed/image", files=good, data=fields)) == (422, "invalid_parameter")
    assert code(client.post("/v1/embed/image", files={"picture": ("a.png", png())})) == (422, "invalid_parameter")
    assert code(client.post("/v1/embed/image", data={"encoding": "float"}, files={"none": (None, "")})) == (422, "invalid_parameter")


def endless(start: bytes, piece: bytes, sent: list[int]) -> Iterator[bytes]:
    yield start
    while True:
        sent[0] += len(piece)
        yield piece


FORM_START = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'


@pytest.mark.parametrize(
    ("content_type", "start"),
    [("multipart/form-data; boundary=x", FORM_START), ("application/json", b'{"inputs": ["'), ("audio/wav", wav())],
)
def test_an_endless_body_is_cut_and_answered(small: httpx.Client, content_type: str, start: bytes) -> None:
    sent = [0]
    body = endless(start, b"a" * 50_000, sent)
    answer = small.post("/v1/embed/audio", content=body, headers={"Content-Type": content_type})
    assert code(answer) == (413, "too_many_bytes")
    assert answer.headers["connection"] == "close"
    assert sent[0] < 100_000_000
    assert small.get("/livez").status_code == 200


def test_a_body_that_announces_too_much_is_refused_unread(small: httpx.Client) -> None:
    head = b"POST /v1/embed/text HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 999999999\r\n"
    with socket.create_connection((small.base_url.host, small.base_url.port), timeout=10) as line:
        line.sendall(head + b"Expect: 100-continue\r\n\r\n")  # and not a byte of the body
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer.lower()


def test_who_hangs_up_gets_no_more_work_done(address: str, client: httpx.Client) -> None:
    body = json.dumps({"inputs": [f"text {n}" for n in range(256)]}).encode()
    head = f"POST /v1/embed/text HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    url = httpx.URL(address)
    with socket.create_connection((url.host, url.port or 80), timeout=10) as line:
        line.sendall(head + body)
    until = time.monotonic() + 10
    while 'status="499"' not in client.get("/metrics").text:
        assert time.monotonic() < until, "the log knows nothing of the client that left"
        time.sleep(0.02)
    assert client.post("/v1/embed/text", json=PLAIN).status_code == 200


def test_every_limit_of_a_request_is_held(small: httpx.Client) -> None:
    coded = base64.b64encode(b"x" * 10).decode()
    pictures = [("file", (f"{n}.png", png())) for n in range(5)]
    checks: list[tuple[httpx.Response, str]] = [
        (small.post("/v1/embed/text", json={"inputs": ["x"] * 9}), "too_many_items"),
        (small.post("/v1/embeddings", json={"input": ["x"] * 9}), "too_many_items"),
        (small.post("/v1/embed/image", files=pictures), "too_many_items"),
        (small.post("/v1/embed/image", json={"inputs": [{"data": coded}] * 5}), "too_many_items"),
        (small.post("/v1/embed/image", files={"file": ("big.png", b"\0" * 450_000)}), "too_many_bytes"),
        (small.post("/v1/embed/image", files=[("file", ("b", b"\0" * 350_000))] * 2), "too_many_bytes"),
        (small.post("/v1/embed/text", json={"inputs": ["x" * 310_000]}), "too_many_bytes"),
        (small.post("/v1/embed/text", files={"text": (None, "x" * 270_000)}), "too_many_bytes"),
        (small.post("/v1/embed/text", json={"inputs": ["x" * 501]}), "too_long"),
        (small.post("/v1/embed/text", files=[("junk", (None, ""))] * 200), "too_many_items"),
        (small.post("/v1/classify/text", json={"inputs": ["x"], "labels": ["l"] * 11}), "too_many_items"),
        (small.post("/v1/classify/text", json={"inputs": ["x"], "labels": ["l"], "template": ["{}"] * 4}), "too_many_items"),
        (small.post("/v1/embed/audio", files={"file": ("long.wav", wav(440, 9.0))}), "too_long"),
    ]
    assert [answer.json()["code"] for answer, _ in checks] == [wanted for _, wanted in checks]
    assert all(answer.status_code in (413, 422) for answer, _ in checks)


def test_collections_have_limits_too(small: httpx.Client) -> None:
    made = [small.put(f"/v1/collections/c{n}").status_code for n in range(5)]
    assert made == [201] * 5
    assert code(small.put("/v1/collections/c5")) == (413, "too_many_items")
    big: dict[str, Any] = {"text": "x", "metadata": {"note": "x" * 1001}}
    assert code(small.post("/v1/collections/c0/items", json={"items": [big]})) == (422, "invalid_parameter")
    assert code(small.get("/v1/collections/c0/items?limit=11")) == (422, "invalid_parameter")
    assert code(small.get("/v1/collections/c0/items?limit=many")) == (422, "invalid_parameter")
    assert code(small.get("/v1/collections/c0/items?cursor=bogus")) == (422, "invalid_parameter")
    assert code(small.get("/v1/collections/c0/items?filter={")) == (400, "malformed_json")
    assert code(small.get("/v1/collections/c0/items?filter=[]")) == (422, "invalid_filter")
    assert code(small.post("/v1/collections/c0/items/delete", json={})) == (422, "invalid_parameter")
    assert code(small.post("/v1/collections/c0/search", json={"text": "x", "top_k": 21})) == (422, "invalid_parameter")


def test_a_file_larger_than_memory_is_spooled_and_gone_afterwards(client: httpx.Client) -> None:
    sound = wav(440, 34.321)  # 1.1 MB, of a size that no other test has
    answer = client.post("/v1/embed/audio", files={"file": ("long.wav", sound)})
    assert answer.status_code == 200
    assert answer.json()["usage"]["bytes"] == len(sound)
    left = [path for path in Path(tempfile.gettempdir()).glob("bindery-scratch-uploads-*/*") if path.stat().st_size == len(sound)]
    assert left == []
