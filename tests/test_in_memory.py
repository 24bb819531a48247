from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

import bindery
from bindery.errors import BinderyError, EmptyMedia, InvalidParameter, UnsupportedMedia
from bindery.in_memory import source_of
from bindery.limits import Limits
from bindery.media.audio import decode_waveform
from bindery.media.video import decode_frames
from tests.toybundle import build_toy_bundle

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bindery.Embedder:
    return bindery.load(build_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy"), threads=1)


def test_a_waveform_embeds_as_its_file_does(model: bindery.Embedder) -> None:
    samples, rate = soundfile.read(EXAMPLES / "dog.wav", dtype="int16", always_2d=True)
    given = [
        bindery.Waveform(samples.T, rate),
        bindery.Waveform(samples.T / np.float32(32768), rate),
        bindery.Waveform(samples[:, 0], rate),
    ]
    by_file, *others = model.embed("audio", [EXAMPLES / "dog.wav", *given])
    for one in others:
        assert np.array_equal(one, by_file)
    clips = model.embed_clips("audio", given[0], clip_seconds=2)
    assert [clip.window.start for clip in clips] == [
        clip.window.start for clip in model.embed_clips("audio", EXAMPLES / "dog.wav", clip_seconds=2)
    ]


def test_samples_reach_the_decoder_unchanged() -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (2, 4801)).astype(np.float32)
    decoded = decode_waveform(source_of("audio", "audio", bindery.Waveform(samples, 48_000)), Limits())
    assert decoded.rate == 48_000
    assert np.array_equal(decoded.samples, samples)


def test_frames_reach_the_decoder_unchanged(model: bindery.Embedder) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (9, 45, 61, 3), dtype=np.uint8)
    decoded = decode_frames(source_of("video", "video", frames), Limits(), n_frames=9)
    assert np.array_equal(decoded.pixels, frames)
    assert decoded.times_s[-1] == pytest.approx(8 / 25, abs=1e-3)
    assert model.embed("video", [frames]).shape == (1, model.dimension)


def test_gray_and_transparent_pictures_are_taken(model: bindery.Embedder) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
    opaque = np.dstack([gray, gray, gray, np.full_like(gray, 255)])
    vectors = model.embed("image", [gray, opaque, opaque[:, :, :3]])
    assert np.array_equal(vectors[0], vectors[2])
    assert np.array_equal(vectors[1], vectors[2])


@pytest.mark.parametrize(
    ("modality", "value", "error", "says"),
    [
        ("audio", np.zeros(100, np.float32), InvalidParameter, "bindery.Waveform"),
        ("audio", bindery.Waveform(np.zeros((2, 3, 4), np.float32), 16_000), UnsupportedMedia, "(channels, samples)"),
        ("audio", bindery.Waveform(np.zeros(4, np.float32), 0), UnsupportedMedia, "rate"),
        ("audio", bindery.Waveform(np.zeros(0, np.float32), 16_000), EmptyMedia, ""),
        ("image", np.zeros((4, 4, 3), np.float32), UnsupportedMedia, "uint8"),
        ("image", np.zeros((4, 4, 2), np.uint8), UnsupportedMedia, "channels"),
        ("image", np.zeros((0, 4, 3), np.uint8), EmptyMedia, "(0, 4, 3)"),
        ("image", bindery.Waveform(np.zeros(100, np.float32), 16_000), UnsupportedMedia, "image"),
        ("video", np.zeros((4, 4, 3), np.uint8), UnsupportedMedia, "frames"),
        ("text", np.zeros(3), UnsupportedMedia, "string"),
    ],
)
def test_what_cannot_be_such_a_medium_is_told(
    model: bindery.Embedder, modality: str, value: object, error: type[BinderyError], says: str
) -> None:
    (found,) = model.embed_each(modality, [value])
    assert isinstance(found, error)
    assert says in found.detail
