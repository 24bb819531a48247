"""`bindery serve --http-workers 2`: the same service from outside as with one process, and what happens when one of its processes ends."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from bindery.settings import Settings
from tests.e2e.process import Served, children, serving
from tests.service.conftest import served as in_one_process
from tests.service.media import mp4, png, wav
from tests.toybundle import build_toy_bundle

UNLIKE = {"date", "server", "x-request-id", "server-timing"}
"""Headers that no two answers share, and the one that only the server in the tests sends."""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_toy_bundle(tmp_path_factory.mktemp("workers") / "toy")


@pytest.fixture(scope="module")
def several(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(toy, tmp_path_factory.mktemp("several"), http_workers=2) as served:
        until(lambda: served.metric("bindery_http_workers ") == 2)
        yield served


@pytest.fixture(scope="module")
def one(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    settings = Settings(bundle=str(toy), data_dir=tmp_path_factory.mktemp("one"), threads=1, log_level="error")
    with in_one_process(settings) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client


def until(holds: Callable[[], object]) -> None:
    give_up = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def fronts(served: Served) -> list[int]:
    """Process ids of the HTTP processes that run now."""
    started = re.findall(r"Started server process \[(\d+)\]", served.log.read_text())
    return [pid for pid in map(int, started) if pid in children(served.process.pid)]


def engine(served: Served) -> int:
    """The one that has children of its own."""
    return next(pid for pid in children(served.process.pid) if children(pid))


def texts(*inputs: Any, **more: Any) -> dict[str, Any]:
    return {"json": {"inputs": list(inputs), **more}}


SAME: dict[str, tuple[str, str, dict[str, Any]]] = {
    "texts": ("POST", "/v1/embed/text", texts("a dog", {"text": "rain", "name": "wet"}, dimensions=3)),
    "base64": ("POST", "/v1/embed/text", texts("a dog", encoding="base64")),
    "an array": ("POST", "/v1/embed/text", {**texts("a dog", "rain"), "headers": {"Accept": "application/x-npy"}}),
    "a form": ("POST", "/v1/embed/image", {"files": [("file", ("a.png", png())), ("file", ("b.png", b"no picture"))]}),
    "raw": ("POST", "/v1/embed/audio?start=0.5", {"content": wav(seconds=2.0), "headers": {"Content-Type": "audio/wav"}}),
    "json": ("POST", "/v1/embed/audio", texts({"data": base64.b64encode(wav(seconds=1.0)).decode()}, {"data": "!"})),
    "clips": ("POST", "/v1/embed/audio", {"files": {"file": wav(seconds=5.0)}, "data": {"clip_seconds": "2", "pool": "mean"}}),
    "bigger than memory": ("POST", "/v1/embed/audio", {"files": {"file": wav(seconds=30.0)}, "data": {"end": "3"}}),
    "openai": ("POST", "/v1/embeddings", {"json": {"input": ["a dog", [1, 2, 3]], "model": "starter"}}),
    "openai refused": ("POST", "/v1/embeddings", {"json": {"input": ["a dog", [1, 10**30]]}}),
    "similarity": ("POST", "/v1/similarity", {"json": {"left": [{"text": "a dog"}], "right": [{"text": "rain"}, {"text": "a cat"}]}}),
    "classify": ("POST", "/v1/classify/text", texts("a dog", labels=["dog", "rain"], top_k=1)),
    "classify by a set": ("POST", "/v1/classify/text", texts("a dog", label_set="nothing")),
    "bad labels": ("POST", "/v1/classify/text", texts("a dog", labels=["dog", " "])),
    "unknown modality": ("POST", "/v1/embed/smell", texts("a dog")),
    "unknown model": ("POST", "/v1/embed/text", texts("a dog", model="other")),
    "a file for a text": ("POST", "/v1/embed/image", texts("a dog")),
    "a url": ("POST", "/v1/embed/image", texts({"url": "https://example.org/a.png"})),
    "no json": ("POST", "/v1/embed/text", {"content": b"{", "headers": {"Content-Type": "application/json"}}),
    "no items": ("POST", "/v1/embed/text", texts()),
    "late": ("POST", "/v1/embed/text", {**texts("never seen"), "headers": {"X-Request-Timeout-Ms": "soon"}}),
    "compressed": ("POST", "/v1/embed/text", {**texts("a dog"), "headers": {"Content-Encoding": "gzip"}}),
    "wrong method": ("GET", "/v1/embed/text", {}),
    "options": ("OPTIONS", "/v1/embed/text", {}),
    "unknown path": ("POST", "/v1/embed/text/more", texts("a dog")),
    "head": ("HEAD", "/v1/limits", {}),
    "livez": ("GET", "/livez", {}),
    "readyz": ("GET", "/readyz", {}),
    "models": ("GET", "/v1/models", {}),
    "openapi": ("GET", "/openapi.json", {}),
    "a page": ("GET", "/", {}),
    "no collection": ("GET", "/v1/collections/none", {}),
}


@pytest.mark.parametrize("case", SAME)
def test_answers_are_those_of_one_process(case: str, several: Served, one: httpx.Client) -> None:
    method, path, given = SAME[case]
    given = {**given, "headers": {**given.get("headers", {}), "X-Request-Id": "same"}}
    expected = one.request(method, path, **given)
    answer = httpx.request(method, several.address + path, timeout=60, **given)
    assert answer.status_code == expected.status_code, answer.text
    assert answer.content == expected.content
    assert _headers(answer) == _headers(expected)
    assert answer.headers["X-Request-Id"] == "same"
    assert answer.headers["Server-Timing"].startswith("admit;dur=")


def _headers(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in UNLIKE and name != "last-modified"}


def test_a_collection_is_one_for_all_workers(several: Served) -> None:
    def ask(method: str, path: str, **given: Any) -> httpx.Response:
        return httpx.request(method, several.address + path, timeout=60, **given)  # a connection each: now this worker, now that

    ask("PUT", "/v1/collections/pets", json={}).raise_for_status()
    for number in range(8):
        ask("POST", "/v1/collections/pets/items", json={"items": [{"id": f"{number}", "text": f"pet {number}"}]}).raise_for_status()
    assert ask("GET", "/v1/collections/pets").json()["items"] == 8
    for _ in range(8):
        hits = ask("POST", "/v1/collections/pets/search", json={"text": "pet 3", "top_k": 1}).json()["hits"]
        assert [hit["id"] for hit in hits] == ["3"]
    assert ask("DELETE", "/v1/collections/pets").status_code == 204


def test_a_swapped_model_is_the_new_one_at_every_worker(several: Served) -> None:
    for number in range(3):
        name = f"second-{number}"
        httpx.put(f"{several.address}/v1/models/{name}", json={"bundle": "starter"}, timeout=60).raise_for_status()
        for _ in range(6):
            answer = httpx.post(f"{several.address}/v1/embed/text", json={"inputs": ["a dog"], "model": name}, timeout=60)
            assert answer.json()["model"] == name, answer.text
        assert httpx.delete(f"{several.address}/v1/models/{name}", timeout=60).status_code == 204
        for _ in range(6):
            answer = httpx.post(f"{several.address}/v1/embed/text", json={"inputs": ["a dog"], "model": name}, timeout=60)
            assert answer.json()["code"] == "unknown_model"


def test_one_scrape_counts_what_all_workers_answered(several: Served) -> None:
    line = 'bindery_requests_total{method="POST",route="/v1/similarity",status="200"}'
    before = several.metric(line)
    for number in range(10):
        body = {"left": [{"text": f"left {number}"}], "right": [{"text": "right"}]}
        httpx.post(f"{several.address}/v1/similarity", json=body, timeout=60).raise_for_status()
    until(lambda: several.metric(line) == before + 10)
    until(lambda: several.metric("bindery_requests_in_flight ") == 1)  # the scrape itself


def test_each_workers_requests_time_and_memory_are_told(several: Served) -> None:
    before = several.metric("bindery_http_worker_requests_total{")
    for number in range(5):
        httpx.post(f"{several.address}/v1/embed/text", json={"inputs": [f"{number}"]}, timeout=60).raise_for_status()
        httpx.get(f"{several.address}/v1/models", timeout=60).raise_for_status()
    until(lambda: several.metric("bindery_http_worker_requests_total{") >= before + 10)
    for number in range(2):
        assert several.metric(f'bindery_http_worker_cpu_seconds{{worker="front-{number}"}}') > 0
        assert several.metric(f'bindery_http_worker_bytes{{worker="front-{number}"}}') > 10_000_000


def test_a_client_that_leaves_is_not_worked_for(several: Served) -> None:
    files = [("file", (f"{number}.mp4", mp4(60 + number))) for number in range(30)]
    request = httpx.Request("POST", f"{several.address}/v1/embed/video", files=files)
    host, port = several.address.removeprefix("http://").split(":")
    dropped, taken = several.metric("bindery_items_dropped_total"), several.metric("bindery_items_admitted_total")
    with socket.create_connection((host, int(port))) as line:
        head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        line.sendall(f"POST /v1/embed/video HTTP/1.1\r\n{head}\r\n".encode() + request.read())
        until(lambda: several.metric("bindery_items_admitted_total") > taken)
    until(lambda: several.metric("bindery_items_dropped_total") > dropped)


def test_a_worker_that_ends_is_started_again(several: Served) -> None:
    victim = fronts(several)[0]
    replaced = several.metric("bindery_http_workers_replaced_total ")
    os.kill(victim, signal.SIGKILL)
    answers = [httpx.post(f"{several.address}/v1/embed/text", json={"inputs": [f"again {n}"]}, timeout=60) for n in range(20)]
    assert {answer.status_code for answer in answers} == {200}  # some of them waited for the new one
    until(lambda: several.metric("bindery_http_workers_replaced_total ") == replaced + 1)
    until(lambda: len(fronts(several)) == 2)
    assert victim not in fronts(several)


def test_while_the_engine_is_gone_workers_say_so_and_then_go_on(several: Served) -> None:
    before = httpx.post(f"{several.address}/v1/embed/text", json={"inputs": ["kept"]}, timeout=60).json()
    victim = engine(several)
    os.kill(victim, signal.SIGKILL)
    for path in ("/v1/embed/text", "/v1/collections/none/search"):
        answer = httpx.post(several.address + path, json={"inputs": ["kept"]}, timeout=60)
        assert (answer.status_code, answer.json()["code"]) == (503, "engine_down")
        assert int(answer.headers["Retry-After"]) >= 1
    assert httpx.get(f"{several.address}/readyz").status_code == 503
    assert httpx.get(f"{several.address}/livez").status_code == 200
    until(several.is_ready)
    until(lambda: several.metric("bindery_http_workers ") == 2)
    after = httpx.post(f"{several.address}/v1/embed/text", json={"inputs": ["kept"]}, timeout=60).json()
    assert after == before


@pytest.mark.slow
def test_processes_killed_under_load_cost_what_they_had_in_hand_and_readiness_follows(toy: Path, tmp_path: Path) -> None:
    """Every call has an answer that is documented, or a line that broke; nobody waits, and in the end all is as before."""
    seen: list[tuple[float, str]] = []
    stop = threading.Event()

    def ask(caller: int) -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            try:
                answer = httpx.post(f"{served.address}/v1/embed/text", json={"inputs": [f"{caller} {number}"]}, timeout=20)
                seen.append((time.monotonic(), "ok" if answer.status_code == 200 else answer.json()["code"]))
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.ConnectError):
                seen.append((time.monotonic(), "broken"))

    with serving(toy, tmp_path, http_workers=2) as served, ThreadPoolExecutor(4) as callers:
        until(lambda: served.metric("bindery_http_workers ") == 2)
        asking = [callers.submit(ask, number) for number in range(4)]
        try:
            until(lambda: len(seen) > 20)
            before = len(seen)
            os.kill(fronts(served)[0], signal.SIGKILL)
            until(lambda: len(fronts(served)) == 2 and len(seen) > before + 40)
            codes = [code for _, code in seen]
            assert set(codes) <= {"ok", "broken"}
            assert codes.count("broken") <= 4  # what the killed one had in hand
            os.kill(engine(served), signal.SIGKILL)
            until(lambda: not served.is_ready())
            assert httpx.get(f"{served.address}/livez").status_code == 200
            until(served.is_ready)
            ready = time.monotonic()
            until(lambda: seen[-1][0] > ready + 1)
        finally:
            stop.set()
        for one in asking:
            one.result()
        after = [code for at, code in seen if at > ready + 1]
        assert {code for _, code in seen} <= {"ok", "broken", "engine_down", "starting"}
        assert set(after) == {"ok"}
        until(lambda: served.metric("bindery_http_workers ") == 2)


def test_sigterm_finishes_what_was_accepted_and_leaves_no_process(several: Served) -> None:
    family = [*children(several.process.pid), *(pid for child in children(several.process.pid) for pid in children(child))]
    answers: list[httpx.Response] = []
    files = [("file", (f"{n}.mp4", mp4(40 + n))) for n in range(24)]
    taken = several.metric("bindery_items_admitted_total")
    asking = threading.Thread(target=lambda: answers.append(httpx.post(f"{several.address}/v1/embed/video", files=files, timeout=60)))
    asking.start()
    until(lambda: several.metric("bindery_items_admitted_total") > taken)
    several.process.terminate()
    asking.join(timeout=60)
    assert len([item for item in answers[0].json()["items"] if "embedding" in item]) == 24
    assert several.process.wait(timeout=60) == 0
    until(lambda: not [pid for pid in family if _runs(pid)])
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{several.address}/livez")


@pytest.mark.slow
def test_nobody_is_left_when_the_supervisor_is_killed(toy: Path, tmp_path: Path) -> None:
    with serving(toy, tmp_path, http_workers=2) as served:
        family = [*children(served.process.pid), *(pid for child in children(served.process.pid) for pid in children(child))]
        assert len(family) >= 4
        served.process.kill()
        until(lambda: not [pid for pid in family if _runs(pid)])


@pytest.mark.slow
def test_shares_are_counted_over_all_workers(toy: Path, tmp_path: Path) -> None:
    keys = [{"name": "k", "sha256": "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683", "scopes": ["read"]}]
    keys[0]["requests_per_minute"] = 6  # type: ignore[assignment]
    with serving(toy, tmp_path, http_workers=2, keys=json.dumps(keys)) as served:
        ask = {"json": {"inputs": ["a dog"]}, "headers": {"Authorization": "Bearer key"}, "timeout": 60}
        began = time.monotonic()
        answers = [httpx.post(f"{served.address}/v1/embed/text", **ask) for _ in range(30)]  # type: ignore[arg-type]
        passed = sum(answer.status_code == 200 for answer in answers)
        assert 6 <= passed <= 7 + (time.monotonic() - began) / 10
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.json()["code"] == "rate_limited"
        assert refused.headers["RateLimit-Policy"] == '"requests";q=6;w=60'
        assert httpx.post(f"{served.address}/v1/embed/text", json={"inputs": ["a dog"]}).json()["code"] == "missing_key"


@pytest.mark.slow
def test_livez_answers_beside_a_big_body(toy: Path, tmp_path: Path) -> None:
    body = json.dumps({"inputs": [{"data": base64.b64encode(bytes(60_000_000)).decode()}]}).encode()
    with serving(toy, tmp_path, http_workers=2) as served:
        answers: list[httpx.Response] = []
        given = {"content": body, "headers": {"Content-Type": "application/json"}, "timeout": 60}
        asking = threading.Thread(target=lambda: answers.append(httpx.post(f"{served.address}/v1/embed/audio", **given)))  # type: ignore[arg-type]
        asking.start()
        while asking.is_alive():
            assert httpx.get(f"{served.address}/livez", timeout=5).status_code == 200
        assert answers[0].json()["code"] == "unsupported_media"


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
