"""The reference's own outputs, met from file to tensor. See `tests/golden/preprocess/README.md`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from bindery.errors import UnreadableMedia
from bindery.kinds import KINDS, parse_options
from bindery.limits import Limits
from bindery.media.source import Source
from bindery.media.video import decode_frames
from bindery.spec import AudioSpec, Spec

GOLDEN = Path(__file__).parents[1] / "golden" / "preprocess"
ITEMS: list[dict[str, Any]] = json.loads((GOLDEN / "items.json").read_text())
TENSORS = [item for item in ITEMS if item["kind"] != "frame_indices"]
FRAMES = [item for item in ITEMS if item["kind"] == "frame_indices"]
SPEC: TypeAdapter[Spec] = TypeAdapter(Spec)


def prepared(kind: str, file: str, spec: Spec) -> np.ndarray:
    row = KINDS[kind]
    assert row.prepare is not None
    return row.prepare(Source.of(GOLDEN / "media" / file), spec, parse_options(kind, {}), Limits()).tensors["pixel_values"]


@pytest.mark.parametrize("item", TENSORS, ids=lambda item: item["key"])
def test_tensors_are_those_of_the_reference(item: dict[str, Any]) -> None:
    tensor = prepared(item["kind"], item["file"], SPEC.validate_python({"kind": item["kind"], **item["spec"]}))
    with np.load(GOLDEN / "tensors.npz") as arrays:
        golden = arrays[item["key"]]
    assert list(tensor.shape) == item["shape"]
    down, across = item["step"]
    off = np.abs(tensor[..., ::down, ::across] - golden)
    assert off.max() <= item["max_abs"]
    assert off.mean() <= item["mean_abs"]


@pytest.mark.parametrize("item", FRAMES, ids=lambda item: item["file"])
def test_frame_indices_are_those_of_the_reference(item: dict[str, Any]) -> None:
    frames = decode_frames(Source.of(GOLDEN / "media" / item["file"]), Limits(), n_frames=item["frames"])
    assert list(frames.indices) == item["indices"]


def test_sound_below_one_frame_is_padded_or_refused_as_the_reference_does() -> None:
    assert prepared("audio", "mono_16k_10ms.wav", AudioSpec()).shape == (3, 112, 1036)
    with pytest.raises(UnreadableMedia, match=r"10\.0 ms"):
        prepared("audio", "mono_16k_10ms.wav", AudioSpec(too_short="reject"))
