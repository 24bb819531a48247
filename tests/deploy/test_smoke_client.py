"""The smoke check's client: what it sends, what it remembers, what it says when an answer is not the wanted one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from checks.client import Client, Failed, Part
from python_multipart.multipart import MultipartParser, parse_options_header

OPENAPI = {
    "paths": {
        "/v1/embed/{modality}": {"post": {}},
        "/v1/collections/{c}/items/{id}": {"get": {}, "delete": {}, "parameters": []},
        "/v1/collections/{c}/items/delete": {"post": {}},
        "/livez": {"get": {}},
    }
}


class Echo(BaseHTTPRequestHandler):
    """Answers with the status that the path names, and what it was sent."""

    received: ClassVar[list[tuple[str, str, str, bytes]]] = []
    keys: ClassVar[list[str | None]] = []

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.keys.append(self.headers.get("Authorization"))
        self.received.append((self.command, self.path, self.headers.get("Content-Type", ""), body))
        self.send_response(404 if "missing" in self.path else 200)
        self.end_headers()
        self.wfile.write(b'{"said": "hello"}')

    do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the names that http.server looks for

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def client() -> Iterator[Client]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    Echo.received.clear()
    Echo.keys.clear()
    yield Client(f"http://127.0.0.1:{server.server_port}/", timeout_s=5)
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_was_driven_is_matched_to_the_templates(client: Client) -> None:
    client.call("POST", "/v1/embed/image?x=1")
    client.call("POST", "/v1/collections/c/items/delete")
    client.call("GET", "/v1/collections/c/items/a%2Fb")
    assert client.not_driven(OPENAPI) == ["GET /livez", "DELETE /v1/collections/{c}/items/{id}"]


def test_a_refusal_drives_nothing(client: Client) -> None:
    client.call("POST", "/v1/embed/missing", status=404)
    assert "POST /v1/embed/{modality}" in client.not_driven(OPENAPI)


def test_an_operation_whose_last_segment_is_longer_is_another_one(client: Client) -> None:
    client.call("GET", "/livez/more")
    assert "GET /livez" in client.not_driven(OPENAPI)


def test_an_unwanted_status_is_told_with_the_answer(client: Client) -> None:
    with pytest.raises(Failed, match=r"GET /missing: answered 404, not \(200,\).*hello"):
        client.call("GET", "/missing")


def test_the_key_goes_with_every_call_and_a_check_may_send_another(client: Client) -> None:
    client.call("GET", "/livez")
    keyed = Client(client.base, key="bk_mine")
    keyed.call("GET", "/livez")
    keyed.call("POST", "/v1/embed/x", headers={"Authorization": "Bearer other"}, json_body={})
    assert Echo.keys == [None, "Bearer bk_mine", "Bearer other"]


def test_no_server_is_a_failed_check() -> None:
    with pytest.raises(Failed, match="GET /livez"):
        Client("http://127.0.0.1:9").call("GET", "/livez")


def test_an_answer_that_is_not_json_is_a_failed_check(client: Client) -> None:
    reply = client.call("GET", "/livez")
    assert reply.json() == {"said": "hello"}
    with pytest.raises(Failed, match="not JSON"):
        type(reply)(reply.asked, 200, {}, b"<html>").json()


def test_a_json_body_is_sent_as_json(client: Client) -> None:
    client.call("POST", "/v1/embed/text", json_body={"inputs": ["ä"]})
    (_, _, content_type, body) = Echo.received[-1]
    assert content_type == "application/json"
    assert json.loads(body) == {"inputs": ["ä"]}


def test_a_form_is_what_a_multipart_parser_reads(client: Client) -> None:
    data = b"\r\n--not a boundary\r\n\x00\xff"
    client.call("POST", "/v1/embed/image", form=[Part("file", data, "a.png", "image/png"), Part("text", "ä".encode())])
    (_, _, content_type, body) = Echo.received[-1]
    assert parts_of(content_type, body) == [
        ({"Content-Disposition": 'form-data; name="file"; filename="a.png"', "Content-Type": "image/png"}, data),
        ({"Content-Disposition": 'form-data; name="text"'}, "ä".encode()),
    ]


def parts_of(content_type: str, body: bytes) -> list[tuple[dict[str, str], bytes]]:
    """By the parser that the service itself uses."""
    (kind, options) = parse_options_header(content_type)
    assert kind == b"multipart/form-data"
    parts: list[tuple[dict[str, str], bytes]] = []
    names: list[str] = []

    def on_part_begin() -> None:
        parts.append(({}, b""))

    def on_header_field(data: bytes, start: int, end: int) -> None:
        names.append(data[start:end].decode())

    def on_header_value(data: bytes, start: int, end: int) -> None:
        parts[-1][0][names[-1]] = data[start:end].decode()

    def on_part_data(data: bytes, start: int, end: int) -> None:
        headers, so_far = parts[-1]
        parts[-1] = (headers, so_far + data[start:end])

    callbacks = {f.__name__: f for f in (on_part_begin, on_header_field, on_header_value, on_part_data)}
    parser = MultipartParser(options[b"boundary"], callbacks)  # type: ignore[arg-type]  # a TypedDict of just these
    parser.write(body)
    parser.finalize()
    return parts
