"""Collections over HTTP: put in, search in every way, change, take out, and find it again after a restart."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from bindery.settings import Settings
from tests.service.conftest import served
from tests.service.media import GOOD, NAMES, png, wav
from tests.toybundle import DIMENSION

FIELDS = {"year": "integer", "place": "keyword"}


@pytest.fixture
def shelf(client: httpx.Client) -> Iterator[str]:
    """The address of a fresh collection."""
    assert client.put("/v1/collections/shelf", json={"fields": FIELDS}).status_code == 201
    yield "/v1/collections/shelf"
    assert client.delete("/v1/collections/shelf").status_code == 204


@pytest.fixture
def filled(client: httpx.Client, shelf: str) -> str:
    """With one item of every modality, the id being the modality."""
    for year, (modality, data) in enumerate(GOOD.items(), start=2000):
        metadata = json.dumps({"year": year, "place": "oslo" if year % 2 else "rome"})
        answer = client.post(
            f"{shelf}/items",
            files={"file": (NAMES[modality], data)},
            data={"modality": modality, "id": modality, "metadata": metadata},
        )
        assert answer.status_code == 200, answer.text
    answer = client.post(
        f"{shelf}/items", json={"items": [{"id": "text", "modality": "text", "text": "a dog", "metadata": {"year": 1999}}]}
    )
    assert answer.json()["items"] == [{"index": 0, "id": "text", "status": "created"}]
    return shelf


def hits(client: httpx.Client, shelf: str, **query: Any) -> list[dict[str, Any]]:
    answer = client.post(f"{shelf}/search", json=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["hits"]
    return found


def ids(found: list[dict[str, Any]]) -> list[str]:
    return [hit["id"] for hit in found]


def test_a_collection_is_created_once_described_and_listed(client: httpx.Client, shelf: str) -> None:
    again = client.put(shelf, json={"fields": FIELDS})
    other = client.put(shelf, json={"fields": {"year": "keyword"}})
    assert (again.status_code, other.status_code, other.json()["code"]) == (200, 409, "already_exists")
    state = client.get(shelf).json()
    assert (state["items"], state["counts"], state["recall"], state["dimension"]) == (0, {}, 1.0, DIMENSION)
    assert [one["name"] for one in client.get("/v1/collections").json()["collections"]] == ["shelf"]


def test_each_modality_tells_its_tier_and_a_search_its_plan(client: httpx.Client, filled: str) -> None:
    partitions = client.get(filled).json()["partitions"]
    assert set(partitions) == {*GOOD, "text"}
    assert all((one["tier"], one["segments"], one["recall"]) == ("flat", 0, {}) for one in partitions.values())
    answer = client.post(f"{filled}/search", json={"text": "rain", "exact": True}).json()
    assert answer["plan"]["exact"] is True
    assert answer["plan"]["centred"] is False
    assert {line["plan"] for line in answer["plan"]["modalities"].values()} == {"exact"}


def test_a_centred_search_compares_between_modalities(client: httpx.Client, filled: str) -> None:
    plain, centred = (client.post(f"{filled}/search", json={"text": "x", "centred": one}).json() for one in (False, True))
    assert centred["plan"]["centred"] is True
    assert set(ids(centred["hits"])) == set(ids(plain["hits"]))
    assert [hit["score"] for hit in centred["hits"]] != [hit["score"] for hit in plain["hits"]]
    as_form = client.post(f"{filled}/search", files={"text": (None, "x"), "centred": (None, "true")}).json()
    assert as_form["hits"] == centred["hits"]


def test_a_collection_needs_no_body(client: httpx.Client) -> None:
    assert client.put("/v1/collections/bare").status_code == 201
    assert client.delete("/v1/collections/bare").status_code == 204


@pytest.mark.parametrize("modality", sorted(GOOD))
def test_a_file_finds_itself(client: httpx.Client, filled: str, modality: str) -> None:
    form = client.post(f"{filled}/search", files={"file": ("q", GOOD[modality])}, data={"modality": modality, "top_k": "2"})
    coded = base64.b64encode(GOOD[modality]).decode()
    for found in (form.json()["hits"], hits(client, filled, data=coded, modality=modality, top_k=2)):
        assert len(found) == 2
        assert found[0]["id"] == modality
        assert found[0]["score"] == pytest.approx(1, abs=1e-3)
        assert found[0]["uri"] == NAMES[modality]
        assert found[0]["metadata"]["place"] in ("oslo", "rome")


def test_words_a_vector_and_an_item_are_queries_too(client: httpx.Client, filled: str) -> None:
    assert hits(client, filled, text="a dog")[0]["id"] == "text"
    vector = client.get(f"{filled}/items/audio").json()["embedding"]
    assert hits(client, filled, vector=vector)[0]["id"] == "audio"
    similar = ids(hits(client, filled, item="audio"))
    assert len(similar) == 5
    assert "audio" not in similar


def test_a_mix_weighs_its_voices(client: httpx.Client, filled: str) -> None:
    coded = base64.b64encode(GOOD["image"]).decode()
    towards = [{"text": "a dog", "weight": 0.01}, {"data": coded, "modality": "image", "weight": 1.0}]
    assert hits(client, filled, mix=towards)[0]["id"] == "image"
    away = hits(client, filled, mix=[{"text": "a dog"}, {"item": "image", "weight": -0.1}])
    assert away[0]["id"] == "text"
    form = client.post(f"{filled}/search", files={"mix": (None, json.dumps(towards))})
    assert form.json()["hits"][0]["id"] == "image"


def test_a_search_is_narrowed(client: httpx.Client, filled: str) -> None:
    assert ids(hits(client, filled, text="x", modality="audio")) == ["audio"]
    assert set(ids(hits(client, filled, text="x", modalities=["audio", "text"]))) == {"audio", "text"}
    assert set(ids(hits(client, filled, text="x", filter={"year": {"lt": 2001}}))) == {"image", "text"}
    assert len(hits(client, filled, text="x", group_by="place")) == 3  # oslo, rome, and the one without a place
    everything = ids(hits(client, filled, text="x"))
    assert ids(hits(client, filled, text="x", top_k=2, offset=2)) == everything[2:4]
    assert hits(client, filled, text="a dog", min_score=0.999) == hits(client, filled, text="a dog", top_k=1)


def test_hits_show_what_was_asked_for(client: httpx.Client, filled: str) -> None:
    answer = client.post(f"{filled}/search", json={"text": "a dog", "top_k": 1, "include": ["embedding"], "exact": True}).json()
    assert "metadata" not in answer["hits"][0]
    assert len(answer["hits"][0]["embedding"]) == DIMENSION
    assert answer["plan"]["exact"] is True


def test_items_fail_alone_and_the_others_are_kept(client: httpx.Client, shelf: str) -> None:
    files = [("file", ("a.png", png())), ("file", ("b.png", b"junk")), ("file", ("c.png", png((0, 200, 0))))]
    answer = client.post(f"{shelf}/items", files=files, data={"modality": "image", "id": ["a", "b", "c"], "metadata": '{"year": 1}'})
    assert answer.status_code == 200
    rows = answer.json()["items"]
    assert [(row["id"], row["status"]) for row in rows] == [("a", "created"), ("b", "failed"), ("c", "created")]
    assert rows[1]["error"]["code"] == "unsupported_media"
    assert client.get(shelf).json()["counts"] == {"image": 2}


def test_when_no_item_can_be_stored_the_request_fails(client: httpx.Client, shelf: str) -> None:
    wrong = {"id": "w", "modality": "image", "vector": [1.0, 2.0]}
    typed = {"id": "t", "modality": "text", "text": "x", "metadata": {"year": "not a year"}}
    answer = client.post(f"{shelf}/items", json={"items": [wrong, typed]})
    assert (answer.status_code, answer.json()["code"]) == (422, "dimension_mismatch")
    assert [(one["pointer"], one["code"]) for one in answer.json()["errors"]] == [
        ("/items/0", "dimension_mismatch"),
        ("/items/1", "invalid_parameter"),
    ]


def test_vectors_made_elsewhere_and_parts_of_media_are_stored(client: httpx.Client, shelf: str) -> None:
    coded = base64.b64encode(wav(300, 2.0)).decode()
    items = [
        {"id": "v", "modality": "image", "vector": [1.0] + [0.0] * (DIMENSION - 1), "uri": "s3://a/b.png"},
        {"id": "p", "modality": "audio", "data": coded, "start": 0.5, "end": 1.0},
        {"modality": "depth", "data": base64.b64encode(GOOD["depth"]).decode(), "options": {"depth_unit": "mm"}, "start": 3.0},
    ]
    answer = client.post(f"{shelf}/items", json={"items": items}).json()
    assert [row["status"] for row in answer["items"]] == ["created"] * 3
    assert answer["usage"]["audio_seconds"] == 0.5
    stored = client.get(f"{shelf}/items/v").json()
    assert (stored["uri"], stored["embedding"][0]) == ("s3://a/b.png", 1.0)
    part = client.get(f"{shelf}/items/p").json()
    assert (part["start"], part["end"]) == (0.5, 1.0)
    assert len(answer["items"][2]["id"]) == 32


def test_an_item_of_a_known_id_is_replaced(client: httpx.Client, shelf: str) -> None:
    one = {"items": [{"id": "a", "text": "first"}, {"id": "a", "text": "second"}]}
    assert [row["status"] for row in client.post(f"{shelf}/items", json=one).json()["items"]] == ["superseded", "created"]
    again = client.post(f"{shelf}/items", json={"items": [{"id": "a", "text": "third"}]}).json()
    assert again["items"][0]["status"] == "updated"
    assert client.get(shelf).json()["items"] == 1


def test_items_are_paged_filtered_and_deleted(client: httpx.Client, filled: str) -> None:
    first = client.get(f"{filled}/items", params={"limit": 4}).json()
    second = client.get(f"{filled}/items", params={"limit": 4, "cursor": first["cursor"]}).json()
    assert ids(first["items"] + second["items"]) == [*GOOD, "text"]
    assert second["cursor"] is None
    assert "embedding" not in first["items"][0]
    assert "embedding" in client.get(f"{filled}/items", params={"include": "embedding"}).json()["items"][0]
    rome = client.get(f"{filled}/items", params={"filter": json.dumps({"place": {"eq": "rome"}})}).json()
    assert len(rome["items"]) == 3
    assert client.post(f"{filled}/items/delete", json={"filter": {"place": {"eq": "rome"}}}).json() == {"deleted": 3}
    assert client.post(f"{filled}/items/delete", json={"ids": ["text", "nothing"]}).json() == {"deleted": 1}
    assert client.get(filled).json()["items"] == 2


def test_an_item_is_read_changed_and_deleted(client: httpx.Client, filled: str) -> None:
    changed = client.patch(f"{filled}/items/image", json={"metadata": {"year": 3000, "place": None, "note": "new"}}).json()
    assert changed["metadata"] == {"year": 3000, "note": "new"}
    assert hits(client, filled, text="x", filter={"year": {"eq": 3000}})[0]["id"] == "image"
    assert client.delete(f"{filled}/items/image").status_code == 204
    for gone in (
        client.get(f"{filled}/items/image"),
        client.delete(f"{filled}/items/image"),
        client.patch(f"{filled}/items/image", json={"metadata": {}}),
    ):
        assert (gone.status_code, gone.json()["code"]) == (404, "unknown_item")


@pytest.mark.parametrize("id", ["folder/dog.wav", "image:a b?.png", "звук 犬", "100%", "a//b"])
def test_ids_may_look_like_paths(client: httpx.Client, shelf: str, id: str) -> None:
    client.post(f"{shelf}/items", json={"items": [{"id": id, "text": "x"}]})
    address = f"{shelf}/items/" + httpx.URL("", params={"": id}).query.decode()[1:].replace("+", "%20")
    assert client.get(address).json()["id"] == id
    assert client.delete(address).status_code == 204


def test_an_empty_id_is_refused_and_not_replaced(client: httpx.Client, shelf: str) -> None:
    items = [{"id": "a", "text": "x"}, {"id": "", "text": "y"}]
    as_json = client.post(f"{shelf}/items", json={"items": items})
    as_form = client.post(f"{shelf}/items", data={"modality": "text", "id": ""}, files={"text": (None, "y")})
    for refused, pointer in ((as_json, "/items/1/id"), (as_form, "/id")):
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_parameter")
        assert "leave it out" in refused.text
        assert pointer in refused.text
    assert client.get(f"{shelf}/items").json()["items"] == []


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({}, 422, "invalid_parameter"),
        ({"text": "x", "item": "y"}, 422, "invalid_parameter"),
        ({"item": "nothing"}, 404, "unknown_item"),
        ({"vector": [1.0]}, 422, "dimension_mismatch"),
        ({"vector": [0.0] * DIMENSION}, 422, "invalid_parameter"),
        ({"vector": [1e300] * DIMENSION}, 422, "invalid_parameter"),
        ({"text": "x", "filter": {"nofield": {"eq": 1}}}, 422, "invalid_filter"),
        ({"text": "x", "filter": [1]}, 422, "invalid_filter"),
        ({"text": "x", "filter": "year"}, 422, "invalid_filter"),
        ({"text": "x", "top_k": 0}, 422, "invalid_parameter"),
        ({"text": "x", "top_k": 100_000}, 422, "invalid_parameter"),
        ({"text": "x", "group_by": "nofield"}, 422, "invalid_parameter"),
        ({"text": "x", "modality": "smell"}, 404, "unknown_modality"),
        ({"data": "QUJD"}, 422, "invalid_parameter"),
        ({"data": "QUJD", "modality": "image"}, 415, "unsupported_media"),
        ({"mix": []}, 422, "invalid_parameter"),
        ({"mix": [{"text": "x"}] * 17}, 422, "invalid_parameter"),
        ({"mix": [{"text": "x", "weight": 1}, {"text": "x", "weight": -1}]}, 422, "invalid_parameter"),
        ({"text": "x", "include": ["everything"]}, 422, "invalid_parameter"),
    ],
)
def test_a_search_that_cannot_be_carried_out_says_why(client: httpx.Client, filled: str, query: Any, status: int, code: str) -> None:
    answer = client.post(f"{filled}/search", json=query)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("query", "limit"),
    [
        ({"mix": [{"text": "x"}] * 3}, "mix_parts"),
        ({"text": "x", "filter": {"not": {"not": {"id": {"eq": "x"}}}}}, "filter_depth"),
        ({"text": "x", "filter": {"id": {"in": ["a", "b", "c", "d"]}}}, "filter_values"),
        ({"text": "x", "offset": 21, "top_k": 10}, "search_depth"),
        ({"text": "x", "options": {"a": [[[[[[[[1]]]]]]]]}}, "json_depth"),
    ],
)
def test_what_a_search_may_ask_for_is_the_servers_limit(small: httpx.Client, query: Any, limit: str) -> None:
    assert small.put("/v1/collections/bounded", json={}).status_code in (200, 201)
    answer = small.post("/v1/collections/bounded/search", json=query)
    assert small.delete("/v1/collections/bounded").status_code == 204  # the server has room for few
    assert answer.status_code in (400, 422)
    assert f"limit {limit}" in answer.text
    assert limit in small.get("/v1/limits").json()["limits"]


def test_a_filter_that_is_no_object_is_the_same_error_wherever_it_is_given(client: httpx.Client, filled: str) -> None:
    answers = (
        client.post(f"{filled}/search", json={"text": "x", "filter": [1]}),
        client.post(f"{filled}/items/delete", json={"filter": [1]}),
        client.get(f"{filled}/items", params={"filter": "[1]"}),
    )
    assert {answer.json()["code"] for answer in answers} == {"invalid_filter"}


def test_groups_of_modalities_show_the_best_of_each(client: httpx.Client, filled: str) -> None:
    everything = hits(client, filled, text="a dog", top_k=20)
    best: dict[str, str] = {}
    for hit in everything:
        best.setdefault(hit["modality"], hit["id"])
    assert ids(hits(client, filled, text="a dog", group_by="modality")) == list(best.values())


def test_a_collection_that_is_not_there_is_named_without_the_directory(client: httpx.Client, toy_settings: Settings) -> None:
    for answer in (
        client.get("/v1/collections/none"),
        client.delete("/v1/collections/none"),
        client.post("/v1/collections/none/search", json={"text": "x"}),
        client.post("/v1/collections/none/items", json={"items": [{"text": "x"}]}),
        client.get("/v1/collections/none/items"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_collection")
        assert str(toy_settings.data_dir) not in answer.text


@pytest.mark.parametrize(
    "body", [{"backend": "milvus"}, {"metric": "dot"}, {"fields": {"x": "blob"}}, {"fields": {"modality": "keyword"}}, {"colour": 1}]
)
def test_a_collection_that_cannot_be_made_is_refused(client: httpx.Client, body: Any) -> None:
    answer = client.put("/v1/collections/odd", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")


def test_names_of_collections_are_checked(client: httpx.Client) -> None:
    assert client.put("/v1/collections/No%20Such").status_code == 422


def test_everything_is_there_after_a_restart(toy_settings: Settings, tmp_path: Path) -> None:
    settings = toy_settings.model_copy(update={"data_dir": tmp_path})
    with served(settings) as address:
        httpx.put(f"{address}/v1/collections/kept", json={"fields": FIELDS})
        httpx.post(f"{address}/v1/collections/kept/items", json={"items": [{"id": "a", "text": "a dog", "metadata": {"year": 7}}]})
        httpx.put(f"{address}/v1/label-sets/animals", json={"labels": ["dog", "cat"]})
    with served(settings) as address:
        found = httpx.post(f"{address}/v1/collections/kept/search", json={"text": "a dog", "filter": {"year": {"eq": 7}}}).json()["hits"]
        assert (found[0]["id"], found[0]["metadata"]) == ("a", {"year": 7})
        assert np.isclose(found[0]["score"], 1, atol=1e-3)
        assert httpx.get(f"{address}/v1/label-sets/animals").json()["labels"] == ["dog", "cat"]


def test_a_field_that_is_not_json_is_named(client: httpx.Client, shelf: str) -> None:
    stored = client.post(f"{shelf}/items", files={"file": ("a.png", GOOD["image"])}, data={"modality": "image", "metadata": "{year"})
    listed = client.get(f"{shelf}/items", params={"filter": "{year"})
    for answer, field in ((stored, "metadata"), (listed, "filter")):
        problem = answer.json()
        assert (problem["status"], problem["code"], problem["errors"][0]["pointer"]) == (400, "malformed_json", f"/{field}")
        assert problem["detail"].startswith(f"{field} is not valid JSON")


def test_an_item_of_two_sources_is_told_which_there_are(client: httpx.Client, shelf: str) -> None:
    answer = client.post(f"{shelf}/items", json={"items": [{"text": "a", "vector": [1.0] * DIMENSION}]})
    assert answer.status_code == 422
    assert answer.json()["detail"] == "items.0: give exactly one of text, data, url, vector"
