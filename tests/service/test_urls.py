"""`{"url": ...}` inputs through a real server, from a site on this machine that only the tests' fetcher may reach."""

from __future__ import annotations

import errno
import http.server
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import numpy as np
import pytest

from bindery.errors import StorageFull
from bindery.limits import Limits
from bindery.settings import Settings
from service.remote import Fetcher, Remote, policy_of
from tests.media.test_fetch import Names, Site, leads_to, sends
from tests.service.conftest import served
from tests.service.media import png, wav

NAMES = Names(files_example=["127.0.0.1"], inside_example=["10.0.0.7"])


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as site:
        site.pages |= {
            "/a.png": sends(png()),
            "/b.png": sends(png((0, 200, 0))),
            "/a.wav": sends(wav()),
            "/note.txt": sends(b"a dog"),
            "/page.html": sends(b"<!doctype html><p>secret of the other side"),
            "/junk": sends(bytes(range(1, 200)) * 10),
            "/inside": leads_to("http://inside.example/"),
            "/large": sends(bytes(300_000)),
            "/slow": _slow,
        }
        yield site


def _slow(_: http.server.BaseHTTPRequestHandler) -> None:
    time.sleep(1.5)


@pytest.fixture(scope="module")
def fetching(site: Site, toy_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    limits = Limits(url_bytes=200_000, url_seconds=1.0)
    settings = toy_settings.model_copy(
        update={"url_inputs": "http_and_https", "limits": limits, "data_dir": tmp_path_factory.mktemp("urls")}
    )
    policy = replace(policy_of(settings), ports=frozenset({80, site.port}), allow=(ip_network("127.0.0.0/8"),))
    with served(settings, Fetcher(policy, limits, NAMES)) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client
    assert list(Path(tempfile.gettempdir()).glob("bindery-scratch-urls-*")) == []


@pytest.fixture
def at(site: Site) -> Any:
    return lambda path: f"http://files.example:{site.port}/{path}"


def vectors(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.asarray([item["embedding"] for item in answer.json()["items"]], np.float32)


def test_a_url_gives_the_vector_of_its_file(fetching: httpx.Client, at: Any) -> None:
    asked = {"inputs": [{"url": at("a.png")}, {"url": at("b.png"), "name": "second"}]}
    by_url = vectors(fetching.post("/v1/embed/image", json=asked))
    by_file = vectors(fetching.post("/v1/embed/image", files=[("file", ("a.png", png())), ("file", ("b.png", png((0, 200, 0))))]))
    assert np.array_equal(by_url, by_file)
    lone = vectors(fetching.post("/v1/embed/audio", json={"inputs": [{"url": at("a.wav"), "options": {"end": 0.5}}]}))
    data = fetching.post("/v1/embed/audio", files={"file": ("a.wav", wav())}, data={"end": "0.5"})
    assert np.array_equal(lone, vectors(data))


def test_texts_have_urls_too(fetching: httpx.Client, at: Any) -> None:
    by_url = vectors(fetching.post("/v1/embed/text", json={"inputs": [{"url": at("note.txt")}]}))
    assert np.array_equal(by_url, vectors(fetching.post("/v1/embed/text", json={"inputs": ["a dog"]})))


def test_every_address_that_takes_media_takes_urls(fetching: httpx.Client, at: Any) -> None:
    picture = vectors(fetching.post("/v1/embed/image", files={"file": ("a.png", png())}))[0]
    classified = fetching.post("/v1/classify/image", json={"inputs": [{"url": at("a.png")}], "labels": ["a dog", "rain"]})
    assert len(classified.json()["items"][0]["labels"]) == 2
    alike = fetching.post(
        "/v1/similarity",
        json={"left": [{"modality": "image", "url": at("a.png")}], "right": [{"modality": "image", "url": at("a.png")}]},
    )
    assert alike.json()["similarity"][0][0] == pytest.approx(1.0, abs=1e-5)
    for part in ({"type": "image_url", "image_url": {"url": at("a.png")}}, {"type": "image", "image": at("a.png")}):
        openai = fetching.post("/v1/embeddings", json={"input": [part], "model": "toy"})
        assert np.allclose(openai.json()["data"][0]["embedding"], picture, atol=1e-6)
    fetching.put("/v1/collections/pictures", json={})
    item = {"id": "a", "modality": "image", "url": at("a.png"), "uri": "https://elsewhere.example/a.png"}
    assert fetching.post("/v1/collections/pictures/items", json={"items": [item]}).status_code == 200
    assert np.allclose(fetching.get("/v1/collections/pictures/items/a").json()["embedding"], picture, atol=1e-3)  # kept in half precision
    for query in ({"url": at("a.png"), "modality": "image"}, {"mix": [{"url": at("a.png"), "modality": "image"}]}):
        hits = fetching.post("/v1/collections/pictures/search", json=query).json()["hits"]
        assert hits[0]["id"] == "a"
        assert hits[0]["score"] == pytest.approx(1.0, abs=1e-5)


def test_what_is_fetched_can_be_cut_into_clips(fetching: httpx.Client, at: Any) -> None:
    options = {"clip_seconds": 0.5}
    by_url = fetching.post("/v1/embed/audio", json={"inputs": [{"url": at("a.wav")}], "options": options})
    by_file = fetching.post("/v1/embed/audio", files={"file": ("a.wav", wav())}, data={"clip_seconds": "0.5"})
    assert by_url.status_code == by_file.status_code == 200, by_url.text
    assert by_url.json()["items"][0]["clips"] == by_file.json()["items"][0]["clips"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("page.html", 415, "unsupported_media"),
        ("junk", 415, "unsupported_media"),
        ("missing", 422, "url_fetch_failed"),
        ("inside", 422, "url_not_allowed"),
        ("large", 413, "too_many_bytes"),
        ("slow", 422, "url_fetch_failed"),
    ],
)
def test_what_cannot_be_fetched_is_told_by_its_code(path: str, status: int, code: str, fetching: httpx.Client, at: Any) -> None:
    answer = fetching.post("/v1/embed/image", json={"inputs": [{"url": at(path)}]})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["errors"][0]["pointer"] == "/inputs/0"
    assert not any(word in answer.text for word in ("secret", "127.0.0", "10.0.0.7", "inside"))


def test_one_bad_url_harms_no_neighbour(fetching: httpx.Client, at: Any) -> None:
    asked = {"inputs": [{"url": at("a.png")}, {"url": at("missing")}, {"url": "http://files.example:22/"}, {"url": at("b.png")}]}
    items = fetching.post("/v1/embed/image", json=asked).json()["items"]
    assert ["embedding" in item for item in items] == [True, False, False, True]
    assert [items[1]["error"]["code"], items[2]["error"]["code"]] == ["url_fetch_failed", "url_not_allowed"]


def test_the_requests_deadline_holds_for_fetching_too(fetching: httpx.Client, at: Any) -> None:
    answer = fetching.post("/v1/embed/image", json={"inputs": [{"url": at("slow")}]}, headers={"X-Request-Timeout-Ms": "300"})
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
    assert "stage fetch" in answer.json()["detail"]


def test_slow_urls_hold_up_nobody_else(fetching: httpx.Client, at: Any) -> None:
    asked = {"inputs": [{"url": at("slow")} for _ in range(20)]}
    with httpx.Client(base_url=fetching.base_url, timeout=60) as other:
        slow = threading.Thread(target=lambda: other.post("/v1/embed/image", json=asked))
        slow.start()
        time.sleep(0.2)
        started = time.monotonic()
        assert fetching.post("/v1/embed/text", json={"inputs": [f"at {started}"]}).status_code == 200
        assert slow.is_alive()  # answered while the others were still waiting for their pages
        slow.join()


def test_a_server_that_may_fetch_still_refuses_its_own_network(site: Site, toy_settings: Settings, tmp_path: Path) -> None:
    """The fetcher as `create_app` makes it, without the tests' way in."""
    settings = toy_settings.model_copy(update={"url_inputs": "http_and_https", "data_dir": tmp_path})
    with served(settings) as address, httpx.Client(base_url=address) as client:
        for url in ("http://127.0.0.1/", "http://localhost/", "http://[::1]/", f"http://127.0.0.1:{site.port}/a.png", f"{address}/livez"):
            answer = client.post("/v1/embed/image", json={"inputs": [{"url": url}]})
            assert (answer.status_code, answer.json()["code"]) == (422, "url_not_allowed"), url
    assert f"127.0.0.1:{site.port}" not in {headers["host"] for _, headers in site.asked}


def test_by_default_urls_are_refused(client: httpx.Client) -> None:
    answer = client.post("/v1/embed/image", json={"inputs": [{"url": "https://files.example/a.png"}]})
    assert (answer.status_code, answer.json()["code"]) == (422, "url_not_allowed")
    openai = client.post("/v1/embeddings", json={"input": [{"type": "image_url", "image_url": {"url": "https://files.example/a.png"}}]})
    assert openai.json()["error"]["code"] == "url_not_allowed"


def test_the_settings_become_the_policy(toy_settings: Settings) -> None:
    def policy(mode: str) -> frozenset[str]:
        return policy_of(toy_settings.model_copy(update={"url_inputs": mode})).schemes

    assert [policy(mode) for mode in ("off", "https", "http_and_https")] == [set(), {"https"}, {"http", "https"}]
    small = toy_settings.model_copy(update={"limits": Limits(file_bytes=1000), "url_hosts": ("a.example",)})
    assert (policy_of(small).most_bytes, policy_of(small).hosts, policy_of(small).allow) == (1000, ("a.example",), ())


def test_the_tests_names_are_no_addresses() -> None:
    assert NAMES("files.example", 80) == [ip_address("127.0.0.1")]


async def test_a_full_temporary_folder_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(url_inputs="https")
    fetcher = Fetcher(policy_of(settings), settings.limits, NAMES)
    monkeypatch.setattr(tempfile, "mkstemp", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    try:
        with pytest.raises(StorageFull, match="temporary folder"):
            await fetcher.fetch(Remote("https://files.example/a.png", "a"), tmp_path, time.monotonic() + 10)
    finally:
        fetcher.close()
