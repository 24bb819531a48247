"""The bundled starter is deterministic: the same file gives the same vector, again and in any company."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

import bindery
from bindery.bundle import PACKAGED_BUNDLES, open_bundle
from bindery.engine.engine import Engine, EnginePolicy
from bindery.limits import Limits
from bindery.media.source import Source

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = {
    "image": ["elephant.jpg", "accordion.jpg"],
    "video": ["kitchen.mp4", "signing.mp4"],
    "audio": ["dog.wav", "rain.ogg"],
    "depth": ["bathroom-depth.png"],
    "thermal": ["cars-thermal.jpg"],
}
TEXTS = ["a dog", "rain on a tin roof in the night while somebody plays the piano next door", "cat", "x", "a bath", "cars", "7"]


@pytest.fixture(scope="module")
def starter() -> bindery.Embedder:
    return bindery.load("starter", threads=1)


def long_sound(seconds: int = 35) -> bytes:
    """A sound longer than the model's window, different in each third, made the same every time."""
    rate = 22_050
    time = np.arange(seconds * rate) / rate
    tone = 0.3 * np.sin(2 * np.pi * (200 + 40 * time) * time)
    noise = 0.05 * np.random.default_rng(0).standard_normal(time.size)
    stream = io.BytesIO()
    soundfile.write(stream, (tone + noise).astype(np.float32), rate, format="FLAC")
    return stream.getvalue()


@pytest.mark.parametrize("modality", ["text", "image", "video", "audio", "depth", "thermal"])
def test_seven_together_equal_seven_alone(starter: bindery.Embedder, modality: str) -> None:
    inputs: list[object] = list(TEXTS) if modality == "text" else [EXAMPLES / file for file in FILES[modality]]
    if modality == "audio":
        inputs.append(long_sound())
    inputs = (inputs * 7)[:7]
    together = starter.embed(modality, inputs)
    alone = np.concatenate([starter.embed(modality, [value]) for value in inputs])
    assert np.abs(together - alone).max() <= 1e-5


@pytest.mark.parametrize("repeats", [5, pytest.param(100, marks=pytest.mark.slow)])
async def test_repeated_embeddings_are_equal_to_the_last_bit(repeats: int) -> None:
    engine = Engine(open_bundle(PACKAGED_BUNDLES / "starter"), Limits(), EnginePolicy(threads=1, decode_workers=1))
    await engine.start()
    try:
        for modality, source in {"video": Source.of(EXAMPLES / "kitchen.mp4"), "audio": Source.of(long_sound(), name="long.flac")}.items():
            first = await engine.embed(modality, source)
            for _ in range(repeats - 1):
                assert np.array_equal((await engine.embed(modality, source)).vector, first.vector)
    finally:
        await engine.stop(1)
