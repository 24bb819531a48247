"""Long media over HTTP: clips with their times, stored as items, found as moments."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from tests import longmedia

TONES = longmedia.wav()
COLORS = longmedia.mp4(sound_s=60.0)
GRID = {"clip_seconds": "10", "clip_stride": "10"}


@pytest.fixture
def archive(client: httpx.Client) -> Iterator[str]:
    path = "/v1/collections/clips-archive"
    client.put(path, json={"fields": {"n": "integer"}}).raise_for_status()
    yield path
    client.delete(path)


def spans(clips: list[dict[str, Any]]) -> list[tuple[float, float]]:
    return [(clip["start"], clip["end"]) for clip in clips]


@pytest.mark.parametrize(("modality", "data"), [("audio", TONES), ("audio", COLORS), ("video", COLORS)])
def test_a_long_file_answers_with_its_clips(client: httpx.Client, modality: str, data: bytes) -> None:
    answer = client.post(f"/v1/embed/{modality}", files=[("file", ("long", data))], data={"clip_seconds": "10"})
    assert answer.status_code == 200, answer.text
    (item,) = answer.json()["items"]
    assert spans(item["clips"]) == [(start, min(start + 10, 60)) for start in range(0, 57, 8)]
    assert "embedding" not in item
    part = client.post(f"/v1/embed/{modality}", files=[("file", ("long", data))], data={"start": "8", "end": "18"})
    assert np.allclose(item["clips"][1]["embedding"], part.json()["items"][0]["embedding"], atol=1e-6)
    assert answer.json()["usage"]["bytes"] == len(data)


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_by_scenes_there_is_a_clip_for_each(client: httpx.Client, modality: str) -> None:
    form = {"clip_by": "scenes", "clip_seconds": "15", "pool": "mean"}
    answer = client.post(f"/v1/embed/{modality}", files=[("file", ("long", COLORS)), ("file", ("junk", b"no video"))], data=form)
    assert answer.status_code == 200, answer.text
    item, junk = answer.json()["items"]
    assert spans(item["clips"]) == [(start, start + 10) for start in range(0, 60, 10)]
    assert len(item["embedding"]) == 8
    part = client.post(f"/v1/embed/{modality}", files=[("file", ("long", COLORS))], data={"start": "20", "end": "30"})
    assert np.allclose(item["clips"][2]["embedding"], part.json()["items"][0]["embedding"], atol=1e-6)
    assert junk["error"]["code"] == "unsupported_media"


def test_json_and_raw_bodies_take_clips_too_and_a_pool(client: httpx.Client) -> None:
    options = {"clip_seconds": 20, "clip_stride": 20, "pool": "mean"}
    body = {"inputs": [{"data": base64.b64encode(TONES).decode()}], "options": options, "dimensions": 4}
    (by_json,) = client.post("/v1/embed/audio", json=body).json()["items"]
    raw = client.post("/v1/embed/audio", params=options | {"dimensions": "4"}, content=TONES, headers={"Content-Type": "audio/wav"})
    assert raw.json()["items"][0]["clips"] == by_json["clips"]
    assert spans(by_json["clips"]) == [(0, 20), (20, 40), (40, 60)]
    assert len(by_json["clips"][0]["embedding"]) == len(by_json["embedding"]) == 4
    assert np.linalg.norm(by_json["embedding"]) == pytest.approx(1, abs=1e-5)


def test_an_array_has_one_row_an_item(client: httpx.Client) -> None:
    files = [("file", ("a", TONES)), ("file", ("b", TONES))]
    refused = client.post("/v1/embed/audio", files=files, data=GRID, headers={"Accept": "application/x-npy"})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_parameter")
    pooled = client.post("/v1/embed/audio", files=files, data=GRID | {"pool": "mean"}, headers={"Accept": "application/x-npy"})
    assert np.load(io.BytesIO(pooled.content)).shape == (2, 8)


def test_of_one_id_the_last_item_stays_whether_it_is_cut_or_not(client: httpx.Client, archive: str) -> None:
    coded = base64.b64encode(TONES).decode()
    cut = {"id": "a", "modality": "audio", "data": coded, "options": {"clip_seconds": 30, "clip_stride": 30}}
    whole = {"id": "a", "modality": "audio", "data": coded}
    for items, count in (([cut, whole], 1), ([whole, cut], 2), ([cut, whole, cut], 2), ([cut, cut], 2)):
        answer = client.post(f"{archive}/items", json={"items": [*items, whole | {"id": "b"}]})
        assert answer.status_code == 200, answer.text
        assert client.get(archive).json()["counts"] == {"audio": count + 1}
        assert all(row["status"] != "failed" for row in answer.json()["items"])
    wrong = cut | {"metadata": {"n": "seven"}, "options": {"clip_seconds": 10, "clip_stride": 10}}
    first, last, _ = client.post(f"{archive}/items", json={"items": [cut, wrong, whole | {"id": "b"}]}).json()["items"]
    assert (first["status"], last["status"]) == ("updated", "failed")
    assert client.get(archive).json()["counts"] == {"audio": 3}


def test_a_damaged_stretch_is_told_in_its_clips(client: httpx.Client) -> None:
    hurt = longmedia.damaged(COLORS, 0.5)
    files = [("file", ("hurt", hurt)), ("file", ("whole", COLORS)), ("file", ("junk", b"no sound"))]
    answer = client.post("/v1/embed/audio", files=files, data={"clip_seconds": "5", "clip_stride": "5"})
    assert answer.status_code == 200
    one, two, three = answer.json()["items"]
    codes = [clip.get("error", {}).get("code") for clip in one["clips"]]
    assert 0 < codes.count("unreadable_media") < 4
    assert all(("embedding" in clip) == (code is None) for clip, code in zip(one["clips"], codes, strict=True))
    assert all("embedding" in clip for clip in two["clips"])
    assert three["error"]["code"] == "unsupported_media"


def test_what_cannot_be_cut_says_so(client: httpx.Client, small: httpx.Client) -> None:
    def refusal(answer: httpx.Response) -> tuple[int, str]:
        return answer.status_code, answer.json()["code"]

    sound = [("file", ("long", TONES))]
    assert refusal(client.post("/v1/embed/audio", files=sound, data={"clip_seconds": "0.02"})) == (413, "too_long")
    assert refusal(client.post("/v1/embed/audio", files=sound, data={"clip_seconds": "5", "clip_stride": "6"})) == (
        422,
        "invalid_parameter",
    )
    shots = {"clip_by": "scenes", "clip_stride": "5"}
    assert refusal(client.post("/v1/embed/audio", files=sound, data=shots)) == (422, "invalid_parameter")
    assert refusal(client.post("/v1/classify/audio", files=sound, data={"clip_by": "scenes", "labels": "rain"})) == (
        422,
        "invalid_parameter",
    )
    assert refusal(client.post("/v1/classify/audio", files=sound, data=GRID | {"labels": "rain"})) == (422, "invalid_parameter")
    assert refusal(client.post("/v1/embed/image", files=sound, data=GRID)) == (422, "invalid_parameter")
    assert refusal(small.post("/v1/embed/audio", files=sound, data={"clip_seconds": "7"})) == (413, "too_many_bytes")
    tones = [("file", ("short", longmedia.wav(seconds_each=2)))]
    assert refusal(small.post("/v1/embed/audio", files=tones, data={"clip_seconds": "7"})) == (422, "invalid_parameter")
    assert small.post("/v1/embed/audio", files=tones, data={"clip_seconds": "6"}).status_code == 200  # 12 s, where 8 may be decoded at once
    assert refusal(small.post("/v1/embed/audio", files=tones)) == (413, "too_long")


def test_a_moment_is_found_and_a_new_grid_leaves_nothing_of_the_old_one(client: httpx.Client, archive: str) -> None:
    def add(grid: dict[str, str]) -> dict[str, Any]:
        form = {"modality": "audio", "id": "talk", "metadata": '{"n": 7}'} | grid
        answer = client.post(f"{archive}/items", files=[("file", ("talk.wav", TONES))], data=form)
        assert answer.status_code == 200, answer.text
        (item,) = answer.json()["items"]
        return dict(item)

    first = add(GRID)
    assert (first["id"], first["status"], len(first["clips"])) == ("talk", "created", 6)
    assert first["clips"][2] == {"id": "talk#20-30", "status": "created"}
    again = add(GRID)
    assert (again["status"], {clip["status"] for clip in again["clips"]}) == ("updated", {"updated"})
    item = {
        "id": "colors", "modality": "video", "data": base64.b64encode(COLORS).decode(), "options": {"clip_seconds": 10, "clip_stride": 10},
    }  # fmt: skip
    client.post(f"{archive}/items", json={"items": [item]}).raise_for_status()
    assert client.get(archive).json()["counts"] == {"audio": 6, "video": 6}

    query = longmedia.wav(longmedia.TONES_HZ[4:5], 4)
    found = client.post(
        f"{archive}/search", files=[("file", ("q.wav", query))], data={"modality": "audio", "group_by": "uri", "top_k": "5"}
    )
    hits = found.json()["hits"]
    assert [hit["uri"] for hit in hits if hit["modality"] == "audio"] == ["talk.wav"]
    assert {hit["uri"] for hit in hits} == {"talk.wav", "colors"}
    best = next(hit for hit in hits if hit["modality"] == "audio")
    assert (best["id"], best["start"], best["end"], best["metadata"]) == ("talk#40-50", 40, 50, {"n": 7})
    assert client.get(f"{archive}/items/talk%2340-50").json()["start"] == 40

    assert len(add({"clip_by": "scenes", "clip_seconds": "20"})["clips"]) == 3
    assert client.get(archive).json()["counts"] == {"audio": 3, "video": 6}
    assert len(add({"clip_seconds": "30", "clip_stride": "30"})["clips"]) == 2
    assert client.get(archive).json()["counts"] == {"audio": 2, "video": 6}
    assert "clips" not in add({})
    assert client.get(archive).json()["counts"] == {"audio": 1, "video": 6}
    assert client.delete(f"{archive}/items/colors").status_code == 204
    assert client.get(archive).json()["counts"] == {"audio": 1}
