"""Jobs over HTTP: from a folder below the roots to hits, through pauses and restarts."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bindery.settings import Settings
from tests.jobs.conftest import generated
from tests.jobs.test_webdataset import tar_of
from tests.service.conftest import served
from tests.service.test_models import renamed


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("roots")


@pytest.fixture(scope="module")
def settings(toy_settings: Settings, roots: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return toy_settings.model_copy(update={"job_roots": (str(roots),), "data_dir": tmp_path_factory.mktemp("jobs")})


@pytest.fixture(scope="module")
def indexer(settings: Settings) -> Iterator[httpx.Client]:
    with served(settings) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client


def _ended(client: httpx.Client, id: str) -> Any:
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        told = client.get(f"/v1/jobs/{id}").json()
        if told["state"] in ("done", "failed", "cancelled"):
            return told
        time.sleep(0.05)
    raise AssertionError(f"the job did not end: {told}")


def test_a_folder_becomes_a_collection_and_its_events_are_numbered(indexer: httpx.Client, roots: Path) -> None:
    folder = generated(roots / "first", 10)
    (folder / "bad.wav").write_bytes(b"RIFF")
    entered = indexer.post("/v1/jobs", json={"source": str(folder), "collection": "first"})
    assert entered.status_code == 201
    told = _ended(indexer, entered.json()["id"])
    assert (told["state"], told["listed"], told["done"], told["failed"], told["pending"]) == ("done", 11, 10, 1, 0)
    assert sum(found["count"] for found in told["errors"].values()) == 1
    assert indexer.get("/v1/collections/first").json()["items"] == 10
    assert told["id"] in [job["id"] for job in indexer.get("/v1/jobs").json()["jobs"]]

    stream = indexer.get(f"/v1/jobs/{told['id']}/events")
    assert stream.headers["content-type"].startswith("text/event-stream")
    events = [dict(line.split(": ", 1) for line in block.splitlines()) for block in stream.text.strip().split("\n\n")]
    assert [int(event["id"]) for event in events] == list(range(1, len(events) + 1))
    assert [json.loads(event["data"])["state"] for event in events if event["event"] == "state"] == ["queued", "listing", "running", "done"]
    rest = indexer.get(f"/v1/jobs/{told['id']}/events", headers={"Last-Event-ID": str(len(events) - 1)}).text
    assert rest.startswith(f"id: {len(events)}\n")


def test_only_what_is_below_the_roots_is_read(indexer: httpx.Client, client: httpx.Client, roots: Path, tmp_path: Path) -> None:
    generated(tmp_path / "outside", 2)
    (roots / "way-out").symlink_to(tmp_path / "outside")
    for source in (str(tmp_path), str(roots / "way-out"), f"{roots}/../{tmp_path.name}", "relative", "s3://bucket/prefix", "/"):
        refused = indexer.post("/v1/jobs", json={"source": source, "collection": "never"})
        assert (refused.status_code, refused.json()["code"]) == (422, "source_not_allowed"), source
    without_roots = client.post("/v1/jobs", json={"source": str(roots), "collection": "never"})
    assert without_roots.json()["code"] == "source_not_allowed"
    inside = generated(roots / "inside", 2)
    (inside / "link.png").symlink_to(tmp_path / "outside" / "part0" / "0000.png")
    told = _ended(indexer, indexer.post("/v1/jobs", json={"source": str(inside), "collection": "inside"}).json()["id"])
    assert (told["done"], list(told["errors"])) == (2, ["source_not_allowed"])


def test_a_job_outlives_the_swap_and_the_unloading_of_its_model(toy_bundle: Path, settings: Settings, roots: Path, tmp_path: Path) -> None:
    bundles = tmp_path / "bundles"
    shutil.copytree(toy_bundle, bundles / "toy")
    renamed(toy_bundle, bundles / "elsewhere", name="elsewhere", space="sha256:elsewhere")
    settings = settings.model_copy(update={"bundle": "toy", "bundles_dir": bundles, "data_dir": tmp_path / "data", "decode_workers": 1})
    folder = generated(roots / "swapped", 300)
    with served(settings) as address, httpx.Client(base_url=address, timeout=60) as client:
        first = client.post("/v1/jobs", json={"source": str(folder), "collection": "first"}).json()["id"]
        waits = client.post("/v1/jobs", json={"source": str(folder / "part0"), "collection": "waits"}).json()["id"]
        give_up = time.monotonic() + 60
        while client.get(f"/v1/jobs/{first}").json()["done"] == 0 and time.monotonic() < give_up:
            time.sleep(0.01)
        assert client.put("/v1/models/toy", json={"bundle": "elsewhere"}).status_code == 200
        before = client.get(f"/v1/jobs/{first}").json()
        assert before["state"] == "running", "the swap came too late to be a test"
        told = _ended(client, first)
        assert (told["state"], told["done"], told["failed"]) == ("done", 300, 0)
        assert client.get("/v1/collections/first").json()["items"] == 300
        while (stopped := client.get(f"/v1/jobs/{waits}").json())["state"] != "paused" and time.monotonic() < give_up:
            time.sleep(0.05)
        assert stopped["detail"].startswith("space_mismatch")  # its collection is of a space that is served no more
        assert client.put("/v1/models/back", json={"bundle": "toy"}).status_code == 201
        client.post(f"/v1/jobs/{waits}/resume")
        assert _ended(client, waits)["done"] == 100


def test_manifests_and_tars_lead_nowhere_else(indexer: httpx.Client, roots: Path, tmp_path: Path) -> None:
    outside = generated(tmp_path / "media", 2)
    inside = generated(roots / "named", 2)
    lines = ["uri", "part0/0000.png", str(outside / "part0/0000.png"), "../../etc/passwd", "s3://bucket/x.png", "way-out/part1/0001.wav"]
    (inside / "list.csv").write_text("\n".join(lines))
    (inside / "way-out").symlink_to(outside)
    told = _ended(indexer, indexer.post("/v1/jobs", json={"source": str(inside / "list.csv"), "collection": "named"}).json()["id"])
    assert (told["done"], {code: found["count"] for code, found in told["errors"].items()}) == (1, {"source_not_allowed": 4})

    tar_of(inside / "in.tar", {"0.png": (outside / "part0/0000.png").read_bytes(), "../../x.png": b"x"})
    tar_of(outside / "out.tar", {"1.png": b"x"})
    (inside / "link.tar").symlink_to(outside / "out.tar")
    told = _ended(indexer, indexer.post("/v1/jobs", json={"source": f"{inside}/*.tar", "collection": "tars"}).json()["id"])
    assert (told["done"], told["errors"]) == (1, {"source_not_allowed": {"count": 1, "examples": ["link.tar"]}})
    for source in (f"{inside}/../../*.tar", f"{outside}/*.tar", f"{inside}/link.tar", str(outside / "list.csv")):
        assert indexer.post("/v1/jobs", json={"source": source, "collection": "never"}).json()["code"] == "source_not_allowed"
    braces = indexer.post("/v1/jobs", json={"source": f"{inside}/{{../..,x}}/a.tar", "collection": "braces"}).json()["id"]
    assert "may not lead upwards" in _ended(indexer, braces)["detail"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"collection": "x"}, "invalid_parameter"),
        ({"collection": "X Y"}, "invalid_parameter"),
        ({"collection": "x", "rules": {"*": "smell"}}, "unknown_modality"),
        ({"collection": "x", "clip_stride": -1}, "invalid_parameter"),
        ({"collection": "x", "clip_by": "shots"}, "invalid_parameter"),
        ({"collection": "x", "clip_by": "scenes", "clip_stride": 4}, "invalid_parameter"),
        ({"collection": "x", "clip_by": "scenes", "clip_seconds": 0}, "invalid_parameter"),
        ({"collection": "x", "speed": 3}, "invalid_parameter"),
    ],
)
def test_a_wrong_body_is_refused(indexer: httpx.Client, roots: Path, body: dict[str, Any], code: str) -> None:
    source = {} if body == {"collection": "x"} else {"source": str(roots)}
    assert indexer.post("/v1/jobs", json=source | body).json()["code"] == code


def test_an_unknown_job_and_a_wrong_state_have_their_errors(indexer: httpx.Client, roots: Path) -> None:
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/cancel")):
        assert indexer.request(method, f"/v1/jobs/none{path}").json()["code"] == "unknown_job"
    folder = generated(roots / "states", 2)
    id = indexer.post("/v1/jobs", json={"source": str(folder), "collection": "states"}).json()["id"]
    _ended(indexer, id)
    for action in ("pause", "resume", "cancel"):
        refused = indexer.post(f"/v1/jobs/{id}/{action}")
        assert (refused.status_code, refused.json()["code"]) == (409, "job_state")


def test_pause_resume_restart_and_cancel_lose_nothing(settings: Settings, roots: Path, tmp_path: Path) -> None:
    folder = generated(roots / "long", 300)
    settings = settings.model_copy(update={"data_dir": tmp_path / "data", "decode_workers": 1})
    with served(settings) as address, httpx.Client(base_url=address, timeout=60) as client:
        first = client.post("/v1/jobs", json={"source": str(folder), "collection": "long"}).json()["id"]
        waits = client.post("/v1/jobs", json={"source": str(folder), "collection": "waits"}).json()["id"]
        paused = client.post(f"/v1/jobs/{first}/pause").json()
        assert (paused["state"], client.get(f"/v1/jobs/{first}").json()["state"]) == ("paused", "paused")
        assert client.post(f"/v1/jobs/{waits}/cancel").json()["state"] == "cancelled"
        assert client.post(f"/v1/jobs/{waits}/resume").json()["code"] == "job_state"
        assert client.post(f"/v1/jobs/{first}/resume").json()["state"] in ("queued", "listing", "running")
    with served(settings) as address, httpx.Client(base_url=address, timeout=60) as client:
        told = _ended(client, first)
        assert (told["state"], told["listed"], told["failed"]) == ("done", 300, 0)
        assert told["done"] + told["skipped"] == 300
        assert client.get("/v1/collections/long").json()["items"] == 300
