"""Long base64 strings in JSON: taken out and decoded on the way, and nothing else than they would be."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bindery.errors import InvalidParameter, TooManyBytes
from bindery.limits import MIB, Limits
from bindery.settings import Settings
from service.attached import LEAST_BYTES, Attached, attach, detach
from tests.service.conftest import served
from tests.service.media import wav

LIMITS = Limits(file_bytes=3 * MIB)
RAW = np.random.default_rng(5).bytes(2 * MIB + 1)
CODED = base64.b64encode(RAW).decode()


def through(body: str | bytes, folder: Path, limits: Limits = LIMITS) -> Any:
    rest, files = detach(bytearray(body.encode() if isinstance(body, str) else body), folder, limits)
    return attach(orjson.loads(rest), files)


def content(found: Attached) -> bytes:
    path = found.source("it", LIMITS).path
    assert path is not None
    return path.read_bytes()


@pytest.mark.parametrize("head", ["", "data:image/png;base64,", "data:image\\/png;BASE64,"])
@pytest.mark.parametrize("escaped", [False, True], ids=["plain", "slashes-escaped"])
def test_a_long_string_becomes_a_file_and_the_rest_stays(tmp_path: Path, head: str, escaped: bool) -> None:
    coded = CODED.replace("/", "\\/") if escaped else CODED
    found = through('{"a": ["x\\"y", "' + head + coded + '"], "b" :"' + coded + '", "n": 1.5}', tmp_path)
    assert content(found["a"][1]) == content(found["b"]) == RAW
    assert found["a"][1].head == head
    assert (found["a"][0], found["n"], set(found)) == ('x"y', 1.5, {"a", "b", "n"})


@pytest.mark.parametrize(
    "body",
    [
        '{"a": "' + "word " * 300_000 + '"}',
        "[" + ",".join(["1234567"] * 300_000) + "]",
        '["x\\"' + CODED + '"]',  # only a part of its string
        '["' + CODED + '\\"y"]',
        '{"a": "' + CODED[: LEAST_BYTES - 5] + '"}',
    ],
    ids=["words", "numbers", "after-a-quote", "before-a-quote", "short"],
)
def test_what_is_no_long_base64_is_left_as_it_is(tmp_path: Path, body: str) -> None:
    assert through(body, tmp_path) == json.loads(body)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("coded", "error"),
    [
        (CODED[:-1], InvalidParameter),
        ("=" + CODED[1:], InvalidParameter),
        (CODED[: MIB - 1] + "=" + CODED[MIB:], InvalidParameter),
        (CODED[: 2 * MIB] + "====" + CODED[: 2 * MIB], InvalidParameter),
        (CODED[:MIB] + "!" + CODED[MIB + 1 :], InvalidParameter),
        (CODED[:-4] * 2, TooManyBytes),
    ],
    ids=["cut", "padded-in-front", "padded-at-a-slice", "padded-between", "strange", "too-long"],
)
def test_what_cannot_be_decoded_says_so_when_it_is_used(tmp_path: Path, coded: str, error: type[Exception]) -> None:
    found = through('{"a": "' + coded + '"}', tmp_path)["a"]
    assert isinstance(found, Attached)
    with pytest.raises(error):
        found.source("it", LIMITS)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    st.lists(
        st.one_of(
            st.text(max_size=30),
            st.integers(-(2**63), 2**63),
            st.dictionaries(st.text(max_size=5), st.sampled_from([CODED, "x", CODED[:MIB]])),
            st.sampled_from([CODED, "\\" * 9, '"', CODED[:-8] + " ", "é" * LEAST_BYTES]),
        ),
        max_size=8,
    )
)
def test_any_document_comes_back_whole(tmp_path_factory: pytest.TempPathFactory, document: list[Any]) -> None:
    def restored(node: Any) -> Any:
        if isinstance(node, Attached):
            return base64.b64encode(content(node)).decode()
        if isinstance(node, dict):
            return {key: restored(value) for key, value in node.items()}
        return [restored(value) for value in node] if isinstance(node, list) else node

    assert restored(through(orjson.dumps(document), tmp_path_factory.mktemp("any"))) == document


def test_a_file_has_no_place_in_metadata(tmp_path: Path) -> None:
    with pytest.raises(TooManyBytes, match="metadata"):
        through('{"metadata": {"thumbnail": ["' + CODED + '"]}}', tmp_path)


SOUND = wav(seconds=40.0)
"""More than a megabyte."""


@pytest.mark.parametrize("shape", ["data", "uri", "string"])
def test_a_long_sound_has_the_vector_that_it_has_as_a_form(client: httpx.Client, shape: str) -> None:
    coded = base64.b64encode(SOUND).decode()
    one: Any = {"data": {"data": coded}, "uri": {"data": "data:audio/wav;base64," + coded}, "string": "data:audio/wav;base64," + coded}[
        shape
    ]
    answer = client.post("/v1/embed/audio", json={"inputs": [one, {"data": "QUJD"}]})
    assert answer.status_code == 200, answer.text
    form = client.post("/v1/embed/audio", files={"file": SOUND}).json()["items"][0]["embedding"]
    first, second = answer.json()["items"]
    assert first["embedding"] == pytest.approx(form, abs=1e-6)
    assert second["error"]["code"] == "unsupported_media"


def test_openais_shapes_take_long_files_too(client: httpx.Client) -> None:
    uri = "data:audio/wav;base64," + base64.b64encode(SOUND).decode()
    answer = client.post("/v1/embeddings", json={"input": [uri, {"type": "input_audio", "input_audio": {"data": uri.partition(",")[2]}}]})
    assert answer.status_code == 200, answer.text
    left, right = (one["embedding"] for one in answer.json()["data"])
    assert left == right
    alone = client.post("/v1/embeddings", json={"input": uri}).json()["data"][0]["embedding"]
    assert alone == left


def test_a_long_text_is_still_a_text_that_is_too_long(client: httpx.Client) -> None:
    for address, body in (("/v1/embed/text", {"inputs": ["a" * 2 * MIB]}), ("/v1/embeddings", {"input": "a" * 2 * MIB})):
        answer = client.post(address, json=body)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_long"), answer.text


def test_nothing_is_left_on_disk(toy_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with served(toy_settings.model_copy(update={"data_dir": tmp_path / "data"})) as address:
        uri = "data:audio/wav;base64," + base64.b64encode(SOUND).decode()
        answers = [
            httpx.post(f"{address}/v1/embed/audio", json={"inputs": [uri]}, timeout=60),
            httpx.post(f"{address}/v1/embed/audio", json={"inputs": [uri], "surplus": 1}, timeout=60),
            httpx.post(
                f"{address}/v1/embed/audio", content=b'{"inputs": ["' + uri.encode() + b'"', headers={"Content-Type": "application/json"}
            ),
        ]
        assert [answer.status_code for answer in answers] == [200, 422, 400]
        (spool,) = tmp_path.glob("bindery-scratch-uploads-*")
        until = time.monotonic() + 10
        while list(spool.iterdir()) and time.monotonic() < until:  # an answer is sent before its request ends
            time.sleep(0.02)
        assert list(spool.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "limits"),
    [
        (b'{"inputs": [' + b"[]," * 80_000 + b"1]}" + b" " * MIB, {"json_values": 1_000_000}),
        (b'{"inputs": ["' + b"ab " * 400_000 + b'"]}', {"json_text_bytes": MIB}),
    ],
    ids=["values", "text"],
)
def test_what_would_be_parsed_for_too_long_is_refused(toy_settings: Settings, tmp_path: Path, body: bytes, limits: dict[str, int]) -> None:
    bounded = toy_settings.limits.model_copy(update=limits)
    with served(toy_settings.model_copy(update={"data_dir": tmp_path, "limits": bounded})) as address:
        answer = httpx.post(f"{address}/v1/embed/text", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_many_bytes")
    assert f"limit {next(iter(limits))}" in answer.text


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs": [' + b"[]," * 20_000 + b"1]}",
        b"{" + b",".join(b'"a%d": 1' % n for n in range(50_000)) + b"}",
        b'{"inputs": ["x"], "options": {' + b",".join(b'"a%d": 1' % n for n in range(50_000)) + b"}}",
    ],
    ids=["items", "members", "options"],
)
def test_a_body_with_faults_without_number_gets_a_short_answer(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/v1/embed/text", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    assert len(answer.content) < 2000
