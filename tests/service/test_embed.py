"""`POST /v1/embed/{modality}`: three forms of a body, encodings, partial failure."""

from __future__ import annotations

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from tests.service.media import GOOD, JUNK, NAMES, png, wav
from tests.toybundle import DIMENSION

MEDIA = sorted(GOOD)


def vector_of(item: dict[str, Any]) -> np.ndarray:
    return np.asarray(item["embedding"], dtype=np.float32)


def embed_texts(client: httpx.Client, *texts: str, **more: Any) -> httpx.Response:
    return client.post("/v1/embed/text", json={"inputs": list(texts), **more})


def test_texts_become_unit_vectors_in_their_order(client: httpx.Client) -> None:
    answer = embed_texts(client, "a dog", "a cat", "a dog").json()
    assert (answer["model"], answer["modality"], answer["dimension"]) == ("toy", "text", DIMENSION)
    assert answer["space"].startswith("sha256:")
    vectors = np.stack([vector_of(item) for item in answer["items"]])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert np.allclose(vectors[0], vectors[2], atol=1e-6)
    assert not np.allclose(vectors[0], vectors[1], atol=1e-2)
    assert [item["index"] for item in answer["items"]] == [0, 1, 2]
    assert answer["usage"] == {"tokens": 3 * (5 + 2)}


@pytest.mark.parametrize("modality", MEDIA)
def test_a_file_has_the_same_vector_in_all_three_forms(client: httpx.Client, modality: str) -> None:
    data = GOOD[modality]
    form = client.post(f"/v1/embed/{modality}", files=[("file", (NAMES[modality], data))])
    coded = base64.b64encode(data).decode()
    as_json = client.post(f"/v1/embed/{modality}", json={"inputs": [{"data": coded}, {"data": f"data:x/y;base64,{coded}", "name": "n"}]})
    raw = client.post(f"/v1/embed/{modality}", content=data, headers={"Content-Type": "application/octet-stream"})
    assert [r.status_code for r in (form, as_json, raw)] == [200, 200, 200]
    assert form.json()["items"][0]["name"] == NAMES[modality]
    assert as_json.json()["items"][1]["name"] == "n"
    items = form.json()["items"] + as_json.json()["items"] + raw.json()["items"]
    vectors = np.stack([vector_of(item) for item in items])
    assert np.allclose(vectors, vectors[0], atol=1e-5)
    assert form.json()["usage"]["bytes"] == len(data)


@pytest.mark.parametrize("modality", MEDIA)
@pytest.mark.parametrize("kind", sorted(JUNK))
def test_junk_gets_its_error_and_its_neighbours_succeed(client: httpx.Client, modality: str, kind: str) -> None:
    alone = client.post(f"/v1/embed/{modality}", files=[("file", (NAMES[modality], JUNK[kind]))])
    problem = alone.json()
    assert alone.status_code in (413, 415, 422), problem
    assert alone.status_code == problem["status"]
    assert alone.headers["content-type"] == "application/problem+json"
    files = [("file", ("good", GOOD[modality])), ("file", ("junk", JUNK[kind])), ("file", ("good too", GOOD[modality]))]
    together = client.post(f"/v1/embed/{modality}", files=files)
    assert together.status_code == 200
    good, junk, good_too = together.json()["items"]
    assert junk["error"]["code"] == problem["code"]
    assert "embedding" not in junk
    assert np.allclose(vector_of(good), vector_of(good_too), atol=1e-5)


def test_when_all_fail_the_first_items_status_stands_and_every_item_is_listed(client: httpx.Client) -> None:
    answer = client.post("/v1/embed/image", files=[("file", ("a", b"")), ("file", ("b", JUNK["playlist"]))])
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "empty_media")
    assert [(one["pointer"], one["code"]) for one in problem["errors"]] == [
        ("/inputs/0", "empty_media"),
        ("/inputs/1", "unsupported_media"),
    ]


def test_on_error_fail_makes_it_all_or_nothing(client: httpx.Client) -> None:
    files = [("file", ("good.png", png())), ("file", ("b", b""))]
    answer = client.post("/v1/embed/image", files=files, data={"on_error": "fail"})
    assert answer.status_code == 422
    assert [one["pointer"] for one in answer.json()["errors"]] == ["/inputs/1"]


def test_the_encodings_hold_the_same_vector(client: httpx.Client) -> None:
    as_float = vector_of(embed_texts(client, "rain").json()["items"][0])
    as_base64 = embed_texts(client, "rain", encoding="base64").json()["items"][0]["embedding"]
    as_int8 = embed_texts(client, "rain", encoding="int8").json()["items"][0]["embedding"]
    as_bits = embed_texts(client, "rain", encoding="ubinary").json()["items"][0]["embedding"]
    assert np.array_equal(np.frombuffer(base64.b64decode(as_base64), dtype="<f4"), as_float)
    assert np.array_equal(np.asarray(as_int8), np.rint(as_float * 127))
    assert np.array_equal(np.unpackbits(np.asarray(as_bits, np.uint8)), as_float > 0)


def test_fewer_dimensions_are_cut_and_normalised_again(client: httpx.Client) -> None:
    whole = vector_of(embed_texts(client, "rain").json()["items"][0])
    answer = embed_texts(client, "rain", dimensions=4).json()
    assert answer["dimension"] == 4
    assert np.allclose(vector_of(answer["items"][0]), whole[:4] / np.linalg.norm(whole[:4]), atol=1e-6)
    too_many = embed_texts(client, "rain", dimensions=DIMENSION + 1)
    assert (too_many.status_code, too_many.json()["errors"][0]["pointer"]) == (422, "/dimensions")


def test_npy_is_an_array_of_all_items(client: httpx.Client) -> None:
    answer = client.post("/v1/embed/text", json={"inputs": ["a", "b"]}, headers={"Accept": "application/x-npy"})
    assert answer.headers["content-type"] == "application/x-npy"
    array = np.load(io.BytesIO(answer.content))
    assert (array.shape, array.dtype) == ((2, DIMENSION), np.float32)
    assert np.allclose(array[1], vector_of(embed_texts(client, "b").json()["items"][0]), atol=1e-6)


def test_npy_needs_every_item(client: httpx.Client) -> None:
    files = [("file", ("good.png", png())), ("file", ("b", b""))]
    answer = client.post("/v1/embed/image", files=files, headers={"Accept": "application/x-npy"})
    assert answer.status_code == 422


def test_a_long_text_is_cut_and_says_so(client: httpx.Client) -> None:
    short, long = embed_texts(client, "a dog", "dog " * 100).json()["items"]
    assert "truncated" not in short
    assert long["truncated"] is True


def test_texts_come_as_form_fields_and_as_files_too(client: httpx.Client) -> None:
    form = client.post("/v1/embed/text", files=[("text", (None, "a dog")), ("file", ("note.txt", b"a dog"))])
    raw = client.post("/v1/embed/text", content="a dog", headers={"Content-Type": "text/plain; charset=utf-8"})
    vectors = [vector_of(item) for item in form.json()["items"] + raw.json()["items"]]
    assert len(vectors) == 3
    assert np.allclose(vectors, vectors[0], atol=1e-6)


def test_options_are_read_from_fields_json_and_query(client: httpx.Client) -> None:
    sound = wav(220, 1.0)
    form = client.post("/v1/embed/audio", files={"file": ("a.wav", sound)}, data={"start": "0.2", "end": "0.6"})
    coded = base64.b64encode(sound).decode()
    as_json = client.post("/v1/embed/audio", json={"inputs": [{"data": coded}], "options": {"start": 0.2, "end": 0.6}})
    own = client.post("/v1/embed/audio", json={"inputs": [{"data": coded, "options": {"start": 0.2, "end": 0.6}}]})
    raw = client.post("/v1/embed/audio?start=0.2&end=0.6", content=sound, headers={"Content-Type": "audio/wav"})
    answers = [r.json() for r in (form, as_json, own, raw)]
    assert [round(a["usage"]["audio_seconds"], 2) for a in answers] == [0.4] * 4


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"inputs": []}, "/inputs"),
        ({}, "/inputs"),
        ({"inputs": [3]}, "/inputs/0"),
        ({"inputs": ["a"], "encoding": "hex"}, "/encoding"),
        ({"inputs": ["a"], "unknown": 1}, "/unknown"),
        ({"inputs": [{"data": "QUJD", "url": "x"}]}, "/inputs/0"),
        ({"inputs": ["a"], "options": {"depth_unit": "mm"}}, "/options/depth_unit"),
        ({"inputs": [{"text": "a", "color": 1}]}, "/inputs/0/color"),
    ],
)
def test_an_invalid_parameter_is_pointed_at(client: httpx.Client, body: dict[str, Any], pointer: str) -> None:
    answer = client.post("/v1/embed/text", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    assert pointer in [one["pointer"] for one in answer.json()["errors"]]


@pytest.mark.parametrize(
    ("modality", "value", "status", "code"),
    [
        ("image", {"url": "https://example.org/a.png"}, 422, "url_not_allowed"),
        ("image", {"data": "https://example.org/a.png"}, 422, "url_not_allowed"),
        ("image", {"data": "not base64 at all!"}, 422, "invalid_parameter"),
        ("image", {"data": "data:image/png"}, 422, "invalid_parameter"),
        ("image", "just words", 415, "unsupported_media"),
        ("text", {"data": base64.b64encode(png()).decode()}, 415, "unsupported_media"),
    ],
)
def test_an_input_that_cannot_be_one_says_why(client: httpx.Client, modality: str, value: Any, status: int, code: str) -> None:
    answer = client.post(f"/v1/embed/{modality}", json={"inputs": [value]})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_names_of_files_may_be_of_any_script(client: httpx.Client) -> None:
    name = "звук 犬 \u00e9\U0001f415.wav"
    answer = client.post("/v1/embed/audio", files={"file": (name, wav())})
    assert answer.json()["items"][0]["name"] == name


def test_an_unknown_modality_names_those_there_are(client: httpx.Client) -> None:
    answer = client.post("/v1/embed/smell", json={"inputs": ["x"]})
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_modality")
    assert "image" in answer.json()["detail"]


def test_an_unknown_model_is_not_quietly_replaced(client: httpx.Client) -> None:
    assert embed_texts(client, "x", model="toy").status_code == 200
    answer = embed_texts(client, "x", model="text-embedding-3-small")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_model")


def test_twenty_clients_at_once_get_what_one_gets(address: str) -> None:
    def ask(index: int) -> list[Any]:
        with httpx.Client(base_url=address, timeout=60) as own:
            text = own.post("/v1/embed/text", json={"inputs": [f"client {index}"]}).json()["items"][0]
            image = own.post("/v1/embed/image", files={"file": ("a.png", png((index * 12, 0, 99)))}).json()["items"][0]
            return [vector_of(text), vector_of(image)]

    alone = [ask(index) for index in range(20)]
    with ThreadPoolExecutor(20) as pool:
        together = list(pool.map(ask, range(20)))
    assert np.allclose(alone, together, atol=1e-5)


def test_an_unnamed_input_is_called_by_its_place(client: httpx.Client) -> None:
    bodies = {
        "/v1/embed/image": {"inputs": ["data:image/png;base64,AAAA", {"data": "?"}]},
        "/v1/embeddings": {"input": ["data:image/png;base64,AAAA"]},
    }
    for path, body in bodies.items():
        for error in client.post(path, json=body).json()["errors"]:
            assert error["detail"].startswith(f"{error['pointer'][1:]} is ")
