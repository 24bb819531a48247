"""Classification, label sets, similarity."""

from __future__ import annotations

import base64
import io
import time
from typing import Any

import httpx
import numpy as np
import pytest

import bindery
from bindery.settings import Settings
from tests.service.media import GOOD, NAMES, png, wav
from tests.toybundle import LEAST_OF_SOUNDS

LABELS = ["dog", "cat", "rain"]


def classify(client: httpx.Client, modality: str = "image", **fields: Any) -> httpx.Response:
    return client.post(f"/v1/classify/{modality}", files={"file": (NAMES[modality], GOOD[modality])}, data=fields)


def test_labels_come_best_first_and_add_up_to_one(client: httpx.Client) -> None:
    answer = classify(client, labels=LABELS).json()
    found = answer["items"][0]["labels"]
    assert {one["label"] for one in found} == set(LABELS)
    chances = [one["probability"] for one in found]
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) == pytest.approx(1, abs=1e-5)
    assert all(-1.001 <= one["similarity"] <= 1.001 for one in found)


@pytest.mark.parametrize("modality", sorted(GOOD))
def test_the_service_and_the_notebook_agree(client: httpx.Client, toy_settings: Settings, modality: str) -> None:
    found = classify(client, modality, labels=LABELS).json()["items"][0]["labels"]
    ours = bindery.load(toy_settings.bundle).classify(modality, [GOOD[modality]], LABELS)[0]
    assert [next(one["probability"] for one in found if one["label"] == label) for label in LABELS] == pytest.approx(ours, abs=1e-4)


def test_json_and_raw_bodies_classify_too(client: httpx.Client) -> None:
    form = classify(client, labels=LABELS, template="a {}").json()["items"][0]["labels"]
    coded = base64.b64encode(GOOD["image"]).decode()
    as_json = client.post("/v1/classify/image", json={"inputs": [{"data": coded}], "labels": LABELS, "template": "a {}"})
    raw = client.post(
        "/v1/classify/image", params={"labels": LABELS, "template": "a {}"}, content=GOOD["image"], headers={"Content-Type": "image/png"}
    )
    for answer in (as_json, raw):
        assert answer.status_code == 200, answer.text
        other = answer.json()["items"][0]["labels"]
        assert [one["label"] for one in other] == [one["label"] for one in form]
        assert [one["probability"] for one in other] == pytest.approx([one["probability"] for one in form], abs=1e-5)


def test_top_k_shows_only_the_best(client: httpx.Client) -> None:
    everything = classify(client, labels=LABELS).json()["items"][0]["labels"]
    best = classify(client, labels=LABELS, top_k="1").json()["items"][0]["labels"]
    assert [one["label"] for one in best] == [everything[0]["label"]]


def test_templates_change_the_words(client: httpx.Client) -> None:
    default = classify(client, labels=LABELS).json()["items"][0]["labels"]
    plain = classify(client, labels=LABELS, template=["{}"]).json()["items"][0]["labels"]
    assert default != plain


def test_an_item_that_no_label_fits_is_marked_unknown_where_the_bundle_can_tell(client: httpx.Client) -> None:
    def item(modality: str, label: str) -> dict[str, Any]:
        found: dict[str, Any] = classify(client, modality, labels=[label], template="{}").json()["items"][0]
        return found

    words = [f"word number {i}" for i in range(12)]
    items = [item("audio", word) for word in words]
    assert {one["unknown"] for one in items} == {True, False}
    assert [one["unknown"] for one in items] == [one["labels"][0]["similarity"] < LEAST_OF_SOUNDS for one in items]
    assert "unknown" not in item("image", words[0])
    towers = client.get("/v1/models").json()["data"][0]["modalities"]
    assert towers["audio"]["min_similarity"] == LEAST_OF_SOUNDS
    assert towers["image"]["min_similarity"] is None


def test_a_bad_item_fails_alone(client: httpx.Client) -> None:
    files = [("file", ("a.png", png())), ("file", ("b.png", b"junk"))]
    items = client.post("/v1/classify/image", files=files, data={"labels": LABELS}).json()["items"]
    assert len(items[0]["labels"]) == 3
    assert items[1]["error"]["code"] == "unsupported_media"


def test_npy_holds_the_probabilities_in_the_order_of_the_labels(client: httpx.Client) -> None:
    files = [("file", ("a.png", png())), ("file", ("b.png", GOOD["image"]))]
    headers = {"Accept": "application/x-npy"}
    answer = client.post("/v1/classify/image", files=files, data={"labels": LABELS}, headers=headers)
    assert answer.headers["content-type"] == "application/x-npy"
    chances = np.load(io.BytesIO(answer.content))
    assert (chances.shape, chances.dtype) == ((2, 3), np.float32)
    for row, item in zip(chances, client.post("/v1/classify/image", files=files, data={"labels": LABELS}).json()["items"], strict=True):
        shown = {one["label"]: one["probability"] for one in item["labels"]}
        assert row.tolist() == pytest.approx([shown[label] for label in LABELS], abs=1e-6)
    cut = client.post("/v1/classify/image", files=files, data={"labels": LABELS, "top_k": "1"}, headers=headers)
    assert (cut.status_code, cut.json()["errors"][0]["pointer"]) == (422, "/top_k")
    damaged = client.post("/v1/classify/image", files=[*files, ("file", ("c.png", b"junk"))], data={"labels": LABELS}, headers=headers)
    assert (damaged.status_code, damaged.json()["errors"][0]["pointer"]) == (415, "/inputs/2")


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({}, 422, "invalid_parameter"),
        ({"labels": ["dog"], "label_set": "x"}, 422, "invalid_parameter"),
        ({"labels": ["dog", " "]}, 422, "invalid_parameter"),
        ({"labels": ["dog"], "template": "no place"}, 422, "invalid_parameter"),
        ({"labels": ["dog"], "top_k": "0"}, 422, "invalid_parameter"),
        ({"labels": ["dog"], "top_k": "many"}, 422, "invalid_parameter"),
        ({"label_set": "nothing"}, 404, "unknown_label_set"),
        ({"labels": ["dog"], "model": "other"}, 404, "unknown_model"),
        ({"labels": ["dog"], "depth_unit": "mm"}, 422, "invalid_parameter"),
    ],
)
def test_a_classification_that_cannot_be_carried_out_says_why(client: httpx.Client, fields: Any, status: int, code: str) -> None:
    answer = classify(client, **fields)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_label_set_is_stored_used_listed_and_deleted(client: httpx.Client) -> None:
    body = {"labels": LABELS, "templates": ["a {}"]}
    assert client.put("/v1/label-sets/weather", json=body).json() == {"name": "weather", **body}
    assert client.get("/v1/label-sets/weather").json()["labels"] == LABELS
    assert "weather" in [one["name"] for one in client.get("/v1/label-sets").json()["label_sets"]]
    by_set = classify(client, label_set="weather").json()["items"][0]["labels"]
    assert by_set == classify(client, labels=LABELS, template="a {}").json()["items"][0]["labels"]
    assert client.delete("/v1/label-sets/weather").status_code == 204
    gone = [client.get("/v1/label-sets/weather"), client.delete("/v1/label-sets/weather")]
    assert [(one.status_code, one.json()["code"]) for one in gone] == [(404, "unknown_label_set")] * 2


def test_the_vectors_of_a_label_set_are_there_before_it_is_used(client: httpx.Client) -> None:
    labels = ["an aardvark", "a zither"]

    def counted(series: str) -> float:
        found = [line for line in client.get("/metrics").text.splitlines() if line.startswith(series)]
        return sum(float(line.rpartition(" ")[2]) for line in found)

    def misses() -> float:
        return counted('bindery_label_cache_total{result="miss"}')

    def texts() -> float:
        return counted('bindery_items_finished_total{device="cpu",engine="onnxruntime/CPUExecutionProvider",modality="text"')

    before, done = misses(), texts() + 4  # two labels in two templates
    client.put("/v1/label-sets/ahead", json={"labels": labels, "templates": ["{} ahead", "behind {}"]})
    until = time.monotonic() + 10
    while texts() < done and time.monotonic() < until:
        time.sleep(0.02)
    assert misses() == before + 2
    assert classify(client, label_set="ahead").status_code == 200
    assert misses() == before + 2
    client.delete("/v1/label-sets/ahead")


@pytest.mark.parametrize("body", [{"labels": []}, {}, {"labels": ["a", ""]}, {"labels": ["a"], "templates": ["none"]}, {"labels": "a"}])
def test_a_broken_label_set_is_not_stored(client: httpx.Client, body: Any) -> None:
    assert client.put("/v1/label-sets/broken", json=body).status_code == 422
    assert client.get("/v1/label-sets/broken").status_code == 404


def test_similarity_is_the_matrix_of_cosines(client: httpx.Client) -> None:
    sound = {"modality": "audio", "data": base64.b64encode(wav()).decode()}
    answer = client.post("/v1/similarity", json={"left": ["a dog", sound], "right": ["a dog", "a cat", sound]})
    matrix = np.asarray(answer.json()["similarity"])
    assert matrix.shape == (2, 3)
    assert matrix[0, 0] == pytest.approx(1, abs=1e-5)
    assert matrix[1, 2] == pytest.approx(1, abs=1e-5)
    assert matrix[0, 2] == pytest.approx(matrix[1, 0], abs=1e-5)


def test_similarity_points_at_what_fails(client: httpx.Client) -> None:
    left = [{"modality": "image", "data": "QUJD"}]
    answer = client.post("/v1/similarity", json={"left": left, "right": ["x"]})
    assert (answer.status_code, [one["pointer"] for one in answer.json()["errors"]]) == (415, ["/left/0"])
    nameless = client.post("/v1/similarity", json={"left": [{"data": "QUJD"}], "right": ["x"]})
    assert nameless.json()["errors"][0]["pointer"] == "/left/0/modality"
    assert client.post("/v1/similarity", json={"left": [], "right": ["x"]}).status_code == 422
