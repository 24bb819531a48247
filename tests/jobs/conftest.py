from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from PIL import Image

from bindery.bundle import open_bundle
from bindery.collections import Store
from bindery.engine.engine import Engine, EnginePolicy
from bindery.engine.events import Event, Finished
from bindery.jobs.executor import OneProcess
from bindery.jobs.ledger import Job, Ledger
from bindery.jobs.report import Report
from bindery.jobs.run import JobRun
from bindery.jobs.spec import JobSpec
from bindery.jobs.target import in_collections
from bindery.limits import Limits
from tests.hostile.pictures import png, zeros
from tests.media import clips
from tests.toybundle import build_toy_bundle

Index = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_toy_bundle(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def index(toy: Path) -> Index:
    """`bindery index` in a process of its own, begun: it can be killed."""

    def begun(source: Path, data: Path, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "bindery.cli.main", "index", str(source), "--collection", "c", "--bundle", str(toy)]
        environment = os.environ | {"BINDERY_THREADS": "1", "BINDERY_DECODE_WORKERS": "1"}  # noqa: TID251 - the child's environment
        return subprocess.Popen(
            [*command, "--data-dir", str(data), *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )

    return begun


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> object:
    """A client of the server, which this process's environment names too."""
    keys = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**keys, "AWS_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=endpoint)
    if "archive" not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket="archive")
    return client


def put(s3: object, objects: dict[str, bytes]) -> None:
    for key, content in objects.items():
        s3.put_object(Bucket="archive", Key=key, Body=content)  # type: ignore[attr-defined]


def generated(folder: Path, count: int, seed: int = 0) -> Path:
    """Small pictures and sounds, each with content of its own."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        place = folder / f"part{number % 3}"
        place.mkdir(exist_ok=True)
        if number % 2:
            (place / f"{number:04}.wav").write_bytes(sound(random.integers(-9000, 9000, 1600, dtype=np.int16)))
        else:
            (place / f"{number:04}.png").write_bytes(picture(random.integers(0, 255, (24, 24, 3), dtype=np.uint8)))
    return folder


def spoil(folder: Path, count: int) -> dict[str, str]:
    """Add ``count`` files that cannot be read, of six sorts in turn: their names, and the code that each must fail with."""
    good = picture(np.full((24, 24, 3), 90, dtype=np.uint8))
    noise = sound(np.arange(1600, dtype=np.int16))
    sorts = [
        ("cut.png", good[:60], "unreadable_media"),
        ("empty.wav", b"", "empty_media"),
        ("sound.png", noise, "unsupported_media"),
        ("picture.wav", good, "unsupported_media"),
        ("giant.png", png(100_000, 100_000, zeros(1 << 20)), "too_many_pixels"),
        ("blind.mp4", clips.sound("aac", "mp4", clips.tone(16_000, 1.0), 16_000), "no_video_stream"),
    ]
    codes = {}
    for number in range(count):
        name, data, code = sorts[number % len(sorts)]
        place = folder / f"part{number % 3}" / f"bad{number:03}-{name}"
        place.write_bytes(data)
        codes[place.relative_to(folder).as_posix()] = code
    return codes


def picture(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def sound(samples: np.ndarray) -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(samples.tobytes())
    return stream.getvalue()


def contents(data: Path) -> dict[str, tuple[str, str | None, bytes, str | None]]:
    """All that collection `c` says of its items, by their ids."""
    found = {}
    with Store(data) as store:
        cursor = None
        while True:
            page = store.get("c").page(500, cursor)
            found |= {one.id: (one.modality, one.uri, np.round(one.vector, 3).tobytes(), one.content_hash) for one in page.items}
            cursor = page.cursor
            if cursor is None:
                return found


class Indexer:
    """Runs jobs over one data directory, and counts what the models are given."""

    def __init__(self, toy: Path, data: Path) -> None:
        self.data = data
        self.encoded = 0
        self._toy = toy

    def __call__(self, source: Path | str, **more: object) -> Report:
        spec = JobSpec.model_validate({"source": str(source), "collection": "c", **more})
        return asyncio.run(self._run(lambda ledger: ledger.add(spec, "cli")))

    async def started(self, source: Path) -> Report:
        """On this event loop, so that it can be cancelled."""
        return await self._run(lambda ledger: ledger.add(JobSpec(source=str(source), collection="c"), "cli"))

    def stored(self) -> int:
        with Store(self.data) as store:
            return len(store.get("c")) if "c" in store else 0

    def again(self, id: str) -> Report:
        """Go on with a job that was interrupted."""
        return asyncio.run(self._run(lambda ledger: ledger.job(id)))

    async def _run(self, job: Callable[[Ledger], Job]) -> Report:
        self.encoded = 0
        engine = Engine(open_bundle(self._toy), Limits(), EnginePolicy(threads=1, decode_workers=1))
        engine.listen(self._count)
        await engine.start()
        ledger = Ledger(self.data)
        try:
            with Store(self.data) as store:
                return await JobRun(OneProcess(engine), in_collections(store), ledger, job(ledger)).run()
        finally:
            ledger.close()
            await engine.stop(0)

    def _count(self, event: Event) -> None:
        self.encoded += isinstance(event, Finished)


@pytest.fixture
def run(toy: Path, tmp_path: Path) -> Indexer:
    return Indexer(toy, tmp_path / "data")
