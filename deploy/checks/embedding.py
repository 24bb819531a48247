"""Checks of what turns inputs into vectors, labels and similarities."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from checks.client import expect
from checks.service import Service, fields, segments
from checks.vectors import Vector, check_unit, cosine, from_base64, from_npy, items_of, same, vectors_of

WORDS = ("a dog barking", "rain on a roof", "an elephant")


def texts_by_json_and_by_form(service: Service) -> str:
    by_json = vectors_of(embed(service, service.text, inputs=list(WORDS)), service.dimension)
    form = service.client.call("POST", f"/v1/embed/{service.text}", form=list(fields(text=list(WORDS))))
    for left, right in zip(by_json, vectors_of(form, service.dimension), strict=True):
        same(left, right, "JSON against multipart")
    expect(cosine(by_json[0], by_json[1]) < 0.999, "different texts have the same vector")
    return f"{len(by_json)} texts"


def every_modality_by_every_body(service: Service) -> str:
    """One vector for one file, whether it comes as multipart, base64, data URI or raw body, alone or beside a copy."""
    for modality in service.media:
        path = f"/v1/embed/{modality}"
        file, media_type = service.file(modality), service.media_type(modality)
        form = vectors_of(service.client.call("POST", path, form=[file, file]), service.dimension)
        plain = embed(service, modality, inputs=[{"data": service.base64(modality)}])
        uri = embed(service, modality, inputs=[{"data": f"data:{media_type};base64,{service.base64(modality)}"}])
        raw = service.client.call("POST", path, raw=file.value, headers={"Content-Type": media_type})
        for what, reply in (("base64", plain), ("data URI", uri), ("raw body", raw)):
            for vector in form:
                same(vectors_of(reply, service.dimension)[0], vector, f"{modality}: {what} against multipart")
    return f"{', '.join(service.media)}: 4 bodies each"


def encodings(service: Service) -> str:
    """float, base64, int8, ubinary, cut dimensions and .npy all hold the same vector."""
    ((exact,), text) = (vectors_of(embed(service, service.text, inputs=[WORDS[0]]), service.dimension), service.text)
    same(from_base64(_encoded(service, "base64")), exact, "base64")
    small: list[int] = _encoded(service, "int8")
    expect(len(small) == service.dimension and all(-128 <= x <= 127 for x in small), "int8 is not one small integer a dimension")
    expect(cosine(tuple(map(float, small)), exact) > 0.99, "int8 points elsewhere")
    bits: list[int] = _encoded(service, "ubinary")
    expect(len(bits) == math.ceil(service.dimension / 8) and all(0 <= x <= 255 for x in bits), "ubinary is not one bit a dimension")
    half = service.dimension // 2
    (short,) = vectors_of(embed(service, text, inputs=[WORDS[0]], dimensions=half), half)
    expect(cosine(short, exact[:half]) > 0.99999, "`dimensions` is not a prefix of the vector")
    npy = service.client.call("POST", f"/v1/embed/{text}", json_body={"inputs": list(WORDS)}, headers={"Accept": "application/x-npy"})
    rows = from_npy(npy.body)
    expect(len(rows) == len(WORDS), f"{len(rows)} rows, not {len(WORDS)}")
    same(rows[0], exact, ".npy")
    return "base64, int8, ubinary, dimensions, npy"


def clips_of_long_media(service: Service) -> str:
    """A sound and a video cut into clips: in order, without a gap, each with a vector; stored as an item each."""
    told = []
    for modality, kind in service.media.items():
        if kind not in ("audio", "video"):
            continue
        form = [service.file(modality), *fields(clip_seconds="1", clip_stride="0.5", pool="mean")]
        (item,) = items_of(service.client.call("POST", f"/v1/embed/{modality}", form=form))
        clips = item["clips"]
        expect(clips[0]["start"] == 0 and len(clips) > 1, f"{modality}: not cut: {[clip['start'] for clip in clips]}")
        expect(all(left["end"] >= right["start"] for left, right in pairwise(clips)), f"{modality}: there is a gap between clips")
        form = [service.file(modality), *fields(clip_by="scenes", clip_seconds="1")]
        (by_scenes,) = items_of(service.client.call("POST", f"/v1/embed/{modality}", form=form))
        ends = [(clip["start"], clip["end"]) for clip in by_scenes["clips"]]
        expect(all(left[1] == right[0] for left, right in pairwise(ends)), f"{modality}: scenes do not follow each other: {ends}")
        for vector in (item["embedding"], *(clip["embedding"] for clip in clips)):
            check_unit(tuple(vector), service.dimension, f"{modality}: a clip")
        told.append(f"{modality}: {len(clips)}")
    return ", ".join(told) or "no modality lasts"


def openai_embeddings(service: Service) -> str:
    ((exact,), medium) = (vectors_of(embed(service, service.text, inputs=[WORDS[0]]), service.dimension), service.a_medium)
    (one,) = _openai(service, WORDS[0])
    same(one, exact, "a string")
    same(_openai(service, list(WORDS))[0], exact, "a list of strings")
    encoded = _openai_data(service, [WORDS[0]], encoding_format="base64")
    same(from_base64(encoded[0]["embedding"]), exact, "base64")
    for vector in _openai(service, [[10, 20, 30], [40, 50]]):
        check_unit(vector, service.dimension, "token ids")
    uri = f"data:{service.media_type(medium)};base64,{service.base64(medium)}"
    (picture,) = vectors_of(embed(service, medium, inputs=[{"data": service.base64(medium)}]), service.dimension)
    if service.kinds[medium] == "image":
        same(_openai(service, [uri])[0], picture, "a data URI")
        same(_openai(service, [{"type": "image_url", "image_url": {"url": uri}}])[0], picture, "an image_url part")
    return "string, list, token ids, base64, data URI, parts"


def classify(service: Service) -> str:
    """Labels by form and by JSON: best first, probabilities of one softmax."""
    told = []
    for modality in service.media:
        path, labels = f"/v1/classify/{modality}", list(WORDS)
        form = service.client.call("POST", path, form=[service.file(modality), *fields(labels=labels)])
        by_json = service.client.call("POST", path, json_body={"inputs": [{"data": service.base64(modality)}], "labels": labels})
        (ranked,), (again,) = (_ranked(items_of(reply)) for reply in (form, by_json))
        expect({row["label"] for row in ranked} == set(labels), f"{modality}: not every label is answered")
        expect(abs(sum(row["probability"] for row in ranked) - 1) < 1e-3, f"{modality}: the probabilities do not sum to 1")
        expect([row["label"] for row in ranked] == [row["label"] for row in again], f"{modality}: JSON and multipart disagree")
        top = service.client.call("POST", path, form=[service.file(modality), *fields(labels=labels, top_k="1", template="this is {}")])
        expect(len(_ranked(items_of(top))[0]) == 1, f"{modality}: top_k=1 did not give one label")
        told.append(f"{modality}: {ranked[0]['label']}")
    texts = service.client.call("POST", f"/v1/classify/{service.text}", json_body={"inputs": ["a puppy that barks"], "labels": list(WORDS)})
    expect(bool(_ranked(items_of(texts))), "no labels for a text")
    return "; ".join(told)


def label_sets(service: Service) -> str:
    """Stored, read, used, replaced, deleted."""
    name = service.a_name()
    path = service.will_make(f"/v1/label-sets/{segments(name)}")
    stored = {"labels": list(WORDS[:2]), "templates": ["the sound of {}"]}
    service.client.call("PUT", path, json_body=stored, status=(200, 201))
    expect(service.client.call("GET", path).json()["labels"] == stored["labels"], "the labels read are not those stored")
    listed = service.client.call("GET", "/v1/label-sets").json()["label_sets"]
    expect(name in [one["name"] for one in listed], "the new label set is not listed")
    classified = service.client.call(
        "POST", f"/v1/classify/{service.a_medium}", form=[service.file(service.a_medium), *fields(label_set=name)]
    )
    (ranked,) = _ranked(items_of(classified))
    expect({row["label"] for row in ranked} == set(stored["labels"]), "the stored labels were not used")
    service.client.call("PUT", path, json_body={"labels": ["night", "day"]}, status=(200, 201))
    expect(service.client.call("GET", path).json()["labels"] == ["night", "day"], "the set was not replaced")
    service.client.call("DELETE", path, status=(200, 204))
    service.client.call("GET", path, status=404)
    return "put, get, use, replace, delete"


def similarity(service: Service) -> str:
    """Any modality against any: an (n, m) matrix of cosines."""
    medium = service.a_medium
    left = [{"modality": medium, "data": service.base64(medium)}]
    right = [{"modality": service.text, "text": word} for word in WORDS]
    matrix = service.client.call("POST", "/v1/similarity", json_body={"left": left, "right": right}).json()["similarity"]
    (picture,) = vectors_of(embed(service, medium, inputs=[{"data": left[0]["data"]}]), service.dimension)
    words = vectors_of(embed(service, service.text, inputs=list(WORDS)), service.dimension)
    expect(len(matrix) == 1 and len(matrix[0]) == len(WORDS), f"not a (1, {len(WORDS)}) matrix")
    for told, word in zip(matrix[0], words, strict=True):
        expect(abs(told - cosine(picture, word)) < 1e-4, f"{told} is not the cosine of the two vectors")
    return f"(1, {len(WORDS)})"


def embed(service: Service, modality: str, **body: object) -> Any:
    return service.client.call("POST", f"/v1/embed/{modality}", json_body=body)


def _encoded(service: Service, encoding: str) -> Any:
    return items_of(embed(service, service.text, inputs=[WORDS[0]], encoding=encoding))[0]["embedding"]


def _openai_data(service: Service, given: object, **more: object) -> list[dict[str, Any]]:
    told = service.client.call("POST", "/v1/embeddings", json_body={"model": service.model, "input": given, **more}).json()
    expect(told["object"] == "list" and told["model"] == service.model, "not OpenAI's answer")
    data: list[dict[str, Any]] = told["data"]
    expect([row["index"] for row in data] == list(range(len(data))), "rows are out of order")
    return data


def _openai(service: Service, given: object) -> list[Vector]:
    return [tuple(row["embedding"]) for row in _openai_data(service, given)]


def _ranked(items: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    for item in items:
        probabilities = [row["probability"] for row in item["labels"]]
        expect(probabilities == sorted(probabilities, reverse=True), f"item {item['index']}: labels are not best first")
    return [item["labels"] for item in items]


EMBEDDING_CHECKS = (
    texts_by_json_and_by_form,
    every_modality_by_every_body,
    encodings,
    clips_of_long_media,
    openai_embeddings,
    classify,
    label_sets,
    similarity,
)
