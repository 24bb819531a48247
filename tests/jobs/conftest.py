from __future__ import annotations

import io
import os
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bindery.collections import Store
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
