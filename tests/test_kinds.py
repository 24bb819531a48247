from __future__ import annotations

import pickle
import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bindery.errors import (
    AmbiguousDepth,
    BinderyError,
    EmptyMedia,
    InvalidParameter,
    TooManyBytes,
    TooManyPixels,
    UnknownModality,
    UnreadableMedia,
    UnsupportedMedia,
)
from bindery.kinds import KINDS, parse_options
from bindery.limits import Limits
from bindery.media.source import Source
from bindery.spec import AudioSpec, DepthSpec, ImageSpec, PartOptions, Spec, ThermalOptions, ThermalSpec, VideoSpec
from tests.media import clips

LIMITS = Limits()
SPECS: dict[str, Spec] = {
    "image": ImageSpec(size=32),
    "video": VideoSpec(size=32),
    "audio": AudioSpec(frames=64),
    "depth": DepthSpec(size=32),
    "thermal": ThermalSpec(size=32),
}
PICTURE = clips.encoded(Image.fromarray(clips.gradient()), "PNG")
SAMPLES = {
    "image": PICTURE,
    "video": clips.video("mpeg4", frames=6),
    "audio": clips.wav(b"\1\0\0\1" * 8000),
    "depth": clips.npy(np.ones((30, 40), np.float32)),
    "thermal": PICTURE,
}


def prepare(kind: str, data: bytes | Path, limits: Limits = LIMITS, **options: object):  # type: ignore[no-untyped-def]
    row = KINDS[kind]
    assert row.prepare is not None
    return row.prepare(Source.of(data, "junk"), SPECS[kind], parse_options(kind, options), limits)


@pytest.mark.parametrize("kind", SPECS)
def test_a_file_becomes_one_float32_tensor_with_its_usage(kind: str) -> None:
    prepared = prepare(kind, SAMPLES[kind])
    expected = {"video": (3, 8, 32, 32), "audio": (3, 112, 64)}.get(kind, (3, 32, 32))
    tensor = prepared.tensors["pixel_values"]
    assert tensor.shape == expected
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    assert np.isfinite(tensor).all()
    unit = {"video": ("video_frames", 8), "audio": ("audio_seconds", 1.0)}.get(kind, ("pixels", 1200))
    assert prepared.usage == {unit[0]: unit[1], "bytes": len(SAMPLES[kind])}


@pytest.mark.parametrize("kind", SPECS)
def test_a_path_and_its_bytes_give_equal_tensors_every_time(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "sample"
    path.write_bytes(SAMPLES[kind])
    first = prepare(kind, SAMPLES[kind]).tensors["pixel_values"]
    for _ in range(3):
        assert np.array_equal(prepare(kind, path).tensors["pixel_values"], first)


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize(
    ("junk", "error"),
    [
        (b"", EmptyMedia),
        (bytes(range(256)) * 40, UnsupportedMedia),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n", UnsupportedMedia),
        (b"ffconcat version 1.0\nfile /etc/hostname\n", UnsupportedMedia),
        (b"a text file named .mp4\n" * 9, UnsupportedMedia),
        (b"PK\x03\x04" + b"\0" * 60, UnsupportedMedia),
    ],
)
def test_junk_gets_its_error(kind: str, junk: bytes, error: type[BinderyError]) -> None:
    with pytest.raises(error, match="junk"):
        prepare(kind, junk)


@pytest.mark.parametrize("kind", SPECS)
def test_a_file_of_another_kind_is_told_what_it_is(kind: str) -> None:
    other = SAMPLES["audio" if kind != "audio" else "image"]
    with pytest.raises(UnsupportedMedia, match=r"looks like (audio/wav|image/png)"):
        prepare(kind, other)


@pytest.mark.parametrize("kind", ["image", "depth", "thermal"])
def test_a_giant_header_is_refused_in_no_memory(kind: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for bits, colour in ((8, 2), (16, 0), (16, 6)):
        with pytest.raises(TooManyPixels, match="100000 x 100000"):
            prepare(kind, clips.png_header(100_000, 100_000, bits, colour))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024  # KiB


@pytest.mark.parametrize("kind", SPECS)
def test_a_truncated_file_is_unreadable(kind: str) -> None:
    data = SAMPLES[kind]
    with pytest.raises(UnreadableMedia, match="junk"):
        prepare(kind, data[: len(data) // 2])


@pytest.mark.parametrize("kind", SPECS)
@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), patch=st.binary(min_size=1, max_size=8))
def test_damage_anywhere_gives_a_tensor_or_a_documented_error(kind: str, place: float, patch: bytes) -> None:
    data = SAMPLES[kind]
    at = int(place * len(data))
    damaged = data[:at] + patch + data[at + len(patch) :]
    refused: BinderyError | None = None
    try:
        tensor = prepare(kind, damaged).tensors["pixel_values"]
    except BinderyError as error:
        refused = error
    if refused is None:
        assert np.isfinite(tensor).all()
    else:
        assert 400 <= refused.status < 500
        assert "junk" in refused.detail


def test_files_beyond_the_byte_limit_are_refused() -> None:
    with pytest.raises(TooManyBytes, match="file_bytes"):
        prepare("image", PICTURE, Limits(file_bytes=len(PICTURE) - 1))


def test_errors_travel_from_a_decoder_process() -> None:
    with pytest.raises(UnsupportedMedia) as caught:
        prepare("image", b"no picture")
    assert pickle.loads(pickle.dumps(caught.value)).detail == caught.value.detail


def test_the_callers_thermal_range_stands_over_the_specs() -> None:
    kelvin = clips.npy(np.full((8, 8), 300.0))
    row = KINDS["thermal"]
    assert row.prepare is not None
    spec = ThermalSpec(size=8, mean=(0, 0, 0), std=(1, 1, 1), range_min=280, range_max=320)
    of_spec = row.prepare(Source.of(kelvin), spec, ThermalOptions(), LIMITS).tensors["pixel_values"]
    of_caller = row.prepare(Source.of(kelvin), spec, ThermalOptions(range_min=290, range_max=300), LIMITS).tensors["pixel_values"]
    assert of_spec == pytest.approx(0.5)
    assert of_caller == pytest.approx(1.0)


def test_a_part_of_a_sound_is_what_is_counted() -> None:
    assert prepare("audio", SAMPLES["audio"], start="0.25", end="0.75").usage["audio_seconds"] == 0.5


def test_eight_bit_depth_follows_spec_and_options() -> None:
    gray = clips.encoded(Image.fromarray(clips.gradient()[..., 0]), "PNG")
    with pytest.raises(AmbiguousDepth):
        prepare("depth", gray)
    assert prepare("depth", gray, depth_scale="0.04").tensors["pixel_values"].shape == (3, 32, 32)


def test_options_are_parsed_from_form_fields() -> None:
    options = parse_options("video", {"start": "1.5", "end": "2"})
    assert options == PartOptions(start=1.5, end=2.0)


@pytest.mark.parametrize(
    ("kind", "values", "pointer"),
    [
        ("depth", {"colour": "red"}, "/options/colour"),
        ("image", {"start": 1}, "/options/start"),
        ("depth", {"depth_unit": "km"}, "/options/depth_unit"),
        ("depth", {"depth_scale": -1}, "/options/depth_scale"),
        ("audio", {"start": "soon"}, "/options/start"),
        ("audio", {"start": float("nan")}, "/options/start"),
        ("audio", {"start": 2, "end": 1}, "/options"),
        ("thermal", {"range_min": 1}, "/options"),
    ],
)
def test_a_wrong_option_is_named(kind: str, values: dict[str, object], pointer: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_options(kind, values)
    assert caught.value.pointer == pointer


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(UnknownModality, match="smell"):
        parse_options("smell", {})


def test_every_kind_has_a_row() -> None:
    assert list(KINDS) == ["text", "image", "video", "audio", "depth", "thermal"]
    for name, kind in KINDS.items():
        assert kind.name == name
        assert kind.spec.model_fields["kind"].default == name
        assert kind.media_types
        assert kind.suffixes
        assert (kind.prepare is None) == (name == "text")
