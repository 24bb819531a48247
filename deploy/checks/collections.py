"""Checks of collections, items and search: the whole life of a collection, every verb of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from checks.client import expect
from checks.embedding import embed
from checks.service import Service, fields, segments
from checks.vectors import vectors_of

FIELDS = {"place": "keyword", "year": "integer"}
TEXTS = {"dog": "a dog barking", "rain": "rain on a roof", "elephant": "an elephant", "night": "a street at night"}


def collection_life_cycle(service: Service) -> str:
    """Created, listed, described, deleted, gone."""
    path = _create(service)
    name = path.rpartition("/")[2]
    listed = service.client.call("GET", "/v1/collections").json()["collections"]
    expect(name in [one["name"] for one in listed], "the new collection is not listed")
    told = service.client.call("GET", path).json()
    expect(told["name"] == name and told["items"] == 0, f"a new collection is not empty: {told}")
    service.client.call("DELETE", path, status=(200, 204))
    service.client.call("GET", path, status=404)
    return "create, list, get, delete"


def items_by_form_and_by_json(service: Service) -> str:
    """Files and texts, vectors and data; upsert by id; read, listed by pages, changed, deleted one by one and in bulk."""
    path = _create(service)
    _add_texts(service, path)
    added = [_add_file(service, path, modality, id=f"{modality}-1", metadata='{"place": "yard"}') for modality in service.media]
    (vector,) = vectors_of(embed(service, service.text, inputs=["a cat"]), service.dimension)
    medium = service.a_medium
    _add(
        service,
        path,
        [
            {"id": "by-vector", "modality": service.text, "vector": list(vector)},
            {"id": "by-data", "modality": medium, "data": service.base64(medium), "uri": "file:///elsewhere"},
        ],
    )
    total = len(TEXTS) + len(added) + 2
    expect(service.client.call("GET", path).json()["items"] == total, f"the collection does not count {total} items")

    _add(service, path, [{"id": "dog", "modality": service.text, "text": TEXTS["dog"], "metadata": {"place": "park", "year": 2021}}])
    item = service.client.call("GET", f"{path}/items/dog").json()
    expect(item["metadata"] == {"place": "park", "year": 2021}, f"the item was not replaced: {item}")
    service.client.call("PATCH", f"{path}/items/dog", json_body={"metadata": {"place": "beach"}})
    expect(service.client.call("GET", f"{path}/items/dog").json()["metadata"]["place"] == "beach", "PATCH changed nothing")

    expect(_pages(service, path) == total, f"the pages do not add up to {total} items")
    wanted = segments('{"place": {"eq": "beach"}}')
    beach = service.client.call("GET", f"{path}/items?filter={wanted}").json()["items"]
    expect([one["id"] for one in beach] == ["dog"], f"the filtered list is {beach}")
    service.client.call("DELETE", f"{path}/items/by-vector", status=(200, 204))
    service.client.call("GET", f"{path}/items/by-vector", status=404)
    service.client.call("POST", f"{path}/items/delete", json_body={"ids": ["by-data"]})
    service.client.call("POST", f"{path}/items/delete", json_body={"filter": {"place": {"eq": "yard"}}})
    left = service.client.call("GET", path).json()["items"]
    expect(left == len(TEXTS), f"{left} items are left, not {len(TEXTS)}")
    service.client.call("DELETE", path, status=(200, 204))
    return f"{total} items: post, get, patch, list, delete"


def search_in_every_form(service: Service) -> str:
    """By text, vector, file, stored item and mix; filtered, grouped, cut, with what was asked to be included."""
    path = _create(service)
    _add_texts(service, path)
    for modality in service.media:
        _add_file(service, path, modality, id=f"{modality}-1", metadata='{"place": "yard"}')

    def first(**query: Any) -> str:
        return str(_search(service, path, **query)[0]["id"])

    (dog,) = vectors_of(embed(service, service.text, inputs=[TEXTS["dog"]]), service.dimension)
    expect(first(text=TEXTS["dog"]) == "dog", "a text does not find itself")
    expect(first(vector=list(dog)) == "dog", "a vector does not find its item")
    expect(first(mix=[{"text": TEXTS["dog"], "weight": 0.9}, {"item": "rain", "weight": 0.1}]) == "dog", "a mix finds something else")
    expect(first(text=TEXTS["dog"], exact=True) == "dog", "exact search finds something else")
    stored = _search(service, path, item="dog", top_k=3)
    expect(bool(stored), "a stored item finds nothing")
    for modality in service.media:
        form = [service.file(modality), *fields(modality=modality, top_k="1")]
        (hit,) = service.client.call("POST", f"{path}/search", form=form).json()["hits"]
        expect(hit["id"] == f"{modality}-1", f"the {modality} file does not find itself but {hit['id']}")
        (again,) = _search(service, path, data=service.base64(modality), modality=modality, top_k=1)
        expect(again["id"] == hit["id"], f"{modality}: JSON finds {again['id']}, multipart {hit['id']}")

    wet = _search(service, path, text="weather", filter={"place": {"eq": "roof"}})
    expect([hit["id"] for hit in wet] == ["rain"], f"the filter let through {wet}")
    both = _search(service, path, text="x", filter={"and": [{"year": {"gte": 2020}}, {"not": {"place": {"in": ["roof"]}}}]})
    expect("rain" not in [hit["id"] for hit in both] and bool(both), "and / not / in let through the wrong items")
    for modality in service.media:
        hits = _search(service, path, text="x", modality=modality)
        expect({hit["modality"] for hit in hits} == {modality}, f"asked for {modality}, got {hits}")
    grouped = _search(service, path, text="x", group_by="place", top_k=50)
    places = [hit["metadata"].get("place") for hit in grouped]
    expect(len(places) == len(set(places)), f"group_by gives a group twice: {places}")
    every = _search(service, path, text="x", top_k=50)
    expect([hit["score"] for hit in every] == sorted((hit["score"] for hit in every), reverse=True), "hits are not best first")
    expect(_search(service, path, text="x", top_k=2, offset=1) == every[1:3], "offset 1 is not the second hit on")
    expect(all(hit["score"] >= 0.99 for hit in _search(service, path, text=TEXTS["dog"], min_score=0.99)), "min_score lets through less")
    (full,) = _search(service, path, text=TEXTS["dog"], top_k=1, include=["metadata", "embedding"])
    expect(len(full["embedding"]) == service.dimension, "the embedding was asked for and is not there")
    service.client.call("DELETE", path, status=(200, 204))
    return "text, vector, item, mix, file, filter, group_by, offset, min_score, include"


def aliases(service: Service) -> str:
    """Made, searched through, flipped, listed, deleted; never hiding a collection."""
    old, new = _create(service), _create(service)
    for path, word in ((old, "dog"), (new, "rain")):
        _add(service, path, [{"id": word, "modality": service.text, "text": TEXTS[word]}])
    name = service.a_name()
    alias, through = service.will_make(f"/v1/aliases/{segments(name)}"), f"/v1/collections/{segments(name)}"
    for path, word in ((old, "dog"), (new, "rain"), (old, "dog")):
        target = path.rpartition("/")[2]
        service.client.call("PUT", alias, json_body={"collection": target})
        expect([hit["id"] for hit in _search(service, through, text="x")] == [word], f"the alias does not lead to {target}")
        listed = service.client.call("GET", "/v1/aliases").json()["aliases"]
        expect({"name": name, "collection": target} in listed, "the alias is not listed")
    service.client.call("PUT", f"/v1/aliases/{old.rpartition('/')[2]}", json_body={"collection": target}, status=409)
    service.client.call("PUT", through, json_body={}, status=409)
    service.client.call("DELETE", alias, status=(200, 204))
    service.client.call("GET", through, status=404)
    for path in (old, new):
        service.client.call("DELETE", path, status=(200, 204))
    return "put, flip, flip back, list, delete"


def snapshots(service: Service) -> str:
    """Taken, listed, restored over what was changed since and under another name, deleted."""
    path, other = _create(service), service.will_make(f"/v1/collections/{segments(service.a_name())}")
    _add_texts(service, path)
    taken = service.client.call("POST", f"{path}/snapshot").json()
    stored = service.will_make(f"/v1/snapshots/{segments(taken['snapshot'])}")
    expect(taken["items"] == len(TEXTS), f"the snapshot has {taken['items']} items")
    listed = [one["snapshot"] for one in service.client.call("GET", "/v1/snapshots").json()["snapshots"]]
    expect(taken["snapshot"] in listed, "the snapshot is not listed")
    service.client.call("DELETE", f"{path}/items/dog", status=(200, 204))
    for target in (path, other):
        told = service.client.call("POST", f"{target}/restore", json_body={"snapshot": taken["snapshot"]}).json()
        expect(told["items"] == len(TEXTS), f"{told['items']} items were restored")
        expect(_search(service, target, text=TEXTS["dog"], top_k=1)[0]["id"] == "dog", "what was restored is not found")
    service.client.call("DELETE", stored, status=(200, 204))
    service.client.call("POST", f"{path}/restore", json_body={"snapshot": taken["snapshot"]}, status=404)
    for target in (path, other):
        service.client.call("DELETE", target, status=(200, 204))
    return "take, list, restore, delete"


def remember(name: str) -> Callable[[Service], str]:
    """A check that stores a collection which `recall` finds again."""

    def store_for_later(service: Service) -> str:
        path = f"/v1/collections/{segments(name)}"
        service.client.call("PUT", path, json_body={"fields": FIELDS}, status=(200, 201))
        _add_texts(service, path)
        return f"{name}: {len(TEXTS)} items"

    return store_for_later


def recall(name: str) -> Callable[[Service], str]:
    def find_what_was_stored(service: Service) -> str:
        path = service.will_make(f"/v1/collections/{segments(name)}")
        told = service.client.call("GET", path).json()["items"]
        expect(told == len(TEXTS), f"{told} items, not {len(TEXTS)}")
        for item, words in TEXTS.items():
            (hit,) = _search(service, path, text=words, top_k=1)
            expect(hit["id"] == item and hit["score"] > 0.999, f"{words!r} finds {hit}")
        return f"{name}: {told} items"

    return find_what_was_stored


def _create(service: Service) -> str:
    path = service.will_make(f"/v1/collections/{segments(service.a_name())}")
    service.client.call("PUT", path, json_body={"fields": FIELDS}, status=(200, 201))
    return path


def _add(service: Service, path: str, items: list[dict[str, Any]]) -> None:
    told = service.client.call("POST", f"{path}/items", json_body={"items": items}).json()["items"]
    expect([one["id"] for one in told] == [one["id"] for one in items], f"not every item was taken: {told}")
    expect(all(one.get("error") is None for one in told), f"an item failed: {told}")


def _add_texts(service: Service, path: str) -> None:
    places = {"dog": ("street", 2020), "rain": ("roof", 2021), "elephant": ("savanna", 2022), "night": ("street", 2019)}
    items = [
        {"id": key, "modality": service.text, "text": text, "metadata": {"place": places[key][0], "year": places[key][1]}}
        for key, text in TEXTS.items()
    ]
    _add(service, path, items)


def _add_file(service: Service, path: str, modality: str, **values: str) -> str:
    form = [service.file(modality), *fields(modality=modality, **values)]
    (told,) = service.client.call("POST", f"{path}/items", form=form).json()["items"]
    expect(told["id"] == values["id"] and told.get("error") is None, f"{modality}: {json.dumps(told)[:200]}")
    return str(told["id"])


def _pages(service: Service, path: str) -> int:
    """Items over all pages of three, each once."""
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None and len(seen) < 1000:
        page = service.client.call("GET", f"{path}/items?limit=3" + (f"&cursor={segments(cursor)}" if cursor else "")).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["cursor"]
    expect(len(seen) == len(set(seen)), f"an item is on two pages: {seen}")
    return len(seen)


def _search(service: Service, path: str, **query: Any) -> list[dict[str, Any]]:
    reply = service.client.call("POST", f"{path}/search", json_body=query).json()
    expect("plan" in reply, "the answer does not say how the query ran")
    hits: list[dict[str, Any]] = reply["hits"]
    return hits


COLLECTION_CHECKS = (collection_life_cycle, items_by_form_and_by_json, search_in_every_form, aliases, snapshots)
