"""Several models at once: chosen by name, loaded, swapped and unloaded while the others serve."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from bindery.settings import Settings
from tests.service.conftest import served
from tests.service.media import GOOD, large_png
from tests.toybundle import build_toy_bundle

PNG = {"Content-Type": "image/png"}


def renamed(source: Path, target: Path, **changes: object) -> Path:
    """A copy of a bundle with other words in its manifest."""
    shutil.copytree(source, target)
    manifest = json.loads((target / "manifest.json").read_text())
    (target / "manifest.json").write_text(json.dumps(manifest | changes))
    return target


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    folder = tmp_path / "bundles"
    toy = build_toy_bundle(folder / "toy")
    renamed(toy, folder / "second", name="second", version="2")
    renamed(toy, folder / "elsewhere", name="elsewhere", space="sha256:elsewhere")
    damaged = renamed(toy, folder / "damaged", name="damaged")
    graph = damaged / "image/model.onnx"
    graph.write_bytes(graph.read_bytes()[::-1])
    return folder


@pytest.fixture
def settings(toy_settings: Settings, bundles: Path, tmp_path: Path) -> Settings:
    return toy_settings.model_copy(update={"bundle": "toy", "bundles_dir": bundles, "data_dir": tmp_path / "data"})


@pytest.fixture
def client(settings: Settings) -> Iterator[httpx.Client]:
    with served(settings) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client


def names(client: httpx.Client) -> list[str]:
    return [model["id"] for model in client.get("/v1/models").json()["data"]]


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_a_second_model_is_loaded_chosen_by_name_and_unloaded(client: httpx.Client) -> None:
    loaded = client.put("/v1/models/second")
    assert loaded.status_code == 201
    assert (loaded.json()["id"], loaded.json()["version"], loaded.json()["state"], loaded.json()["default"]) == (
        "second",
        "2",
        "ready",
        False,
    )
    assert names(client) == ["toy", "second"]
    by_form = client.post("/v1/embed/image", files={"file": GOOD["image"]}, data={"model": "second"}).json()
    by_query = client.post("/v1/embed/image?model=second", content=GOOD["image"], headers=PNG).json()
    by_openai = client.post("/v1/embeddings", json={"input": "a dog", "model": "second"}).json()
    unnamed = client.post("/v1/embed/image", files={"file": GOOD["image"]}).json()
    assert [answer["model"] for answer in (by_form, by_query, by_openai, unnamed)] == ["second", "second", "second", "toy"]
    assert np.allclose(by_form["items"][0]["embedding"], unnamed["items"][0]["embedding"], atol=1e-5)
    metrics = client.get("/metrics").text
    assert (
        'bindery_items_finished_total{device="cpu",engine="onnxruntime/CPUExecutionProvider",modality="image",model="second"} 2.0'
        in metrics
    )
    assert (
        'bindery_tower_info{device="cpu",engine="onnxruntime/CPUExecutionProvider",modality="image",model="second",precision="exact",provider="CPUExecutionProvider"'
        in metrics
    )
    assert client.delete("/v1/models/second").status_code == 204
    assert names(client) == ["toy"]
    assert code(client.post("/v1/embeddings", json={"input": "a dog", "model": "second"})) == (404, "unknown_model")
    assert 'bindery_ready{model="second"}' not in client.get("/metrics").text
    assert client.get("/readyz").status_code == 200


def test_several_models_are_there_from_the_start(settings: Settings) -> None:
    several = settings.model_copy(update={"bundle": "second, toy"})
    with served(several) as address, httpx.Client(base_url=address, timeout=60) as client:
        assert names(client) == ["second", "toy"]
        assert client.get("/readyz").json()["model"] == "second"
        assert client.post("/v1/embeddings", json={"input": "a"}).json()["model"] == "second"


def test_a_name_is_swapped_while_requests_run_and_none_of_them_fails(client: httpx.Client) -> None:
    seen: set[tuple[int, str]] = set()
    stop = threading.Event()

    def ask(number: int) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            answer = client.post("/v1/embed/text", json={"inputs": [f"{number} says {count}"]})
            seen.add((answer.status_code, answer.json().get("space", answer.text)))

    asking = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
    for thread in asking:
        thread.start()
    first = client.get("/v1/models/toy").json()
    swapped = client.put("/v1/models/toy", json={"bundle": "elsewhere"})
    after = client.post("/v1/embed/text", json={"inputs": ["after"]}).json()
    stop.set()
    for thread in asking:
        thread.join()
    assert swapped.status_code == 200
    assert swapped.json()["default"] is True
    assert (after["model"], after["space"]) == ("toy", "sha256:elsewhere")
    assert seen == {(200, first["space"]), (200, "sha256:elsewhere")}


def test_a_request_that_began_on_the_old_model_finishes_there(client: httpx.Client) -> None:
    old = client.get("/v1/models/toy").json()["space"]
    begun, go = threading.Event(), threading.Event()

    def body() -> Iterator[bytes]:
        picture = large_png()
        yield picture[:1000]
        begun.set()
        assert go.wait(30)
        yield picture[1000:]

    answers: list[httpx.Response] = []
    slow = threading.Thread(target=lambda: answers.append(client.post("/v1/embed/image?model=toy", content=body(), headers=PNG)))
    slow.start()
    assert begun.wait(30)
    while "bindery_requests_in_flight 2.0" not in client.get("/metrics").text:
        pass
    assert client.put("/v1/models/toy", json={"bundle": "elsewhere"}).status_code == 200
    go.set()
    slow.join()
    assert answers[0].status_code == 200, answers[0].text
    assert answers[0].json()["space"] == old


def test_a_load_that_fails_leaves_the_old_model_and_says_why(client: httpx.Client, bundles: Path) -> None:
    before = client.get("/v1/models/toy").json()
    refused = client.put("/v1/models/toy", json={"bundle": "damaged"})
    assert code(refused) == (422, "model_not_loaded")
    assert "damaged/image/model.onnx was changed" in refused.json()["detail"]
    assert str(bundles) not in refused.text
    assert client.get("/v1/models/toy").json() == before
    assert client.post("/v1/embeddings", json={"input": "a"}).status_code == 200
    assert code(client.put("/v1/models/toy", json={"precision": "int8"})) == (422, "model_not_loaded")
    assert names(client) == ["toy"]


@pytest.mark.parametrize("bundle", ["nowhere", "../toy", "/etc", "..", "toy/../../data", "a\0b"])
def test_only_bundles_of_the_server_can_be_loaded(client: httpx.Client, bundle: str, bundles: Path) -> None:
    refused = client.put("/v1/models/other", json={"bundle": bundle})
    assert code(refused) == (422, "model_not_loaded")
    assert str(bundles) not in refused.text


def test_the_default_cannot_be_unloaded_until_another_takes_its_place(client: httpx.Client) -> None:
    assert code(client.delete("/v1/models/toy")) == (409, "default_model")
    assert client.put("/v1/models/second", json={"default": True}).json()["default"] is True
    assert client.delete("/v1/models/toy").status_code == 204
    assert client.post("/v1/embeddings", json={"input": "a"}).json()["model"] == "second"
    assert code(client.delete("/v1/models/toy")) == (404, "unknown_model")


def test_models_that_would_not_fit_are_refused(settings: Settings) -> None:
    size = sum(
        path.stat().st_size
        for path in (Path(str(settings.bundles_dir)) / "toy").rglob("*")
        if path.is_file() and path.name != "manifest.json"
    )
    room = settings.model_copy(update={"models_memory_bytes": size * 3 // 2})
    with served(room) as address, httpx.Client(base_url=address, timeout=60) as client:
        refused = client.put("/v1/models/second")
        assert code(refused) == (409, "models_full")
        assert "BINDERY_MODELS_MEMORY_BYTES" in refused.json()["detail"]
        assert names(client) == ["toy"]


def test_a_collection_is_searched_with_the_model_of_its_space(client: httpx.Client) -> None:
    client.put("/v1/models/elsewhere")
    assert client.put("/v1/collections/far", json={"model": "elsewhere"}).json()["space"] == "sha256:elsewhere"
    stored = client.post("/v1/collections/far/items", json={"items": [{"id": "a", "text": "a dog"}]})
    assert stored.status_code == 200, stored.text
    hits = client.post("/v1/collections/far/search", json={"text": "a dog"}).json()["hits"]
    assert [hit["id"] for hit in hits] == ["a"]
    client.delete("/v1/models/elsewhere")
    assert code(client.post("/v1/collections/far/search", json={"text": "a dog"})) == (409, "space_mismatch")
