from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bindery.bundle import KnownAnswer, Modality, open_bundle
from bindery.errors import BundleDamaged
from bindery.known_answer import cosine_to, known_input, stripes
from tests.toybundle import DIMENSION, build_toy_bundle


def test_stripes_are_the_same_numbers_on_every_machine() -> None:
    made = stripes((3, 40, 40))
    assert made.dtype == np.float32
    assert made.shape == (3, 40, 40)
    for c, y, x in [(0, 0, 0), (1, 2, 3), (2, 39, 39)]:
        assert made[c, y, x] == abs((7 * c + 3 * y + 5 * x) % 64 - 32) / 16 - 1
    assert (made.min(), made.max()) == (-1, 1)
    assert stripes((3, 4, 32, 32)).shape == (3, 4, 32, 32)
    with pytest.raises(ValueError, match="5 axes"):
        stripes((1, 1, 1, 1, 1, 1))


def test_the_input_has_the_shape_that_the_graph_takes(tmp_path: Path) -> None:
    bundle = open_bundle(build_toy_bundle(tmp_path / "toy"))
    made = known_input(bundle.modality("video").artefacts[0].inputs, None)
    assert {name: array.shape for name, array in made.items()} == {"pixel_values": (3, 4, 32, 32)}


def test_a_vector_that_is_not_finite_is_far_from_every_answer() -> None:
    answer = KnownAnswer(recipe="stripes", vector=(0.6, 0.8))
    assert cosine_to(answer, np.array([0.6, 0.8], np.float32)) == pytest.approx(1)
    assert not cosine_to(answer, np.array([np.nan, 0.8], np.float32)) >= -1


@pytest.mark.parametrize(
    ("canary", "said"),
    [
        ({"recipe": "stripes", "vector": [1.0]}, "1 values, not 8"),
        ({"recipe": "text", "text": "a", "vector": [1.0, *[0.0] * (DIMENSION - 1)]}, "not for kind image"),
        ({"recipe": "stripes", "vector": [2.0, *[0.0] * (DIMENSION - 1)]}, "unit length"),
        ({"recipe": "rain", "vector": [1.0, *[0.0] * (DIMENSION - 1)]}, "stripes"),
    ],
)
def test_an_answer_that_makes_no_sense_is_a_damaged_bundle(tmp_path: Path, canary: dict[str, Any], said: str) -> None:
    path = build_toy_bundle(tmp_path / "toy") / "manifest.json"
    document = json.loads(path.read_text())
    document["modalities"]["image"]["canary"] = canary
    path.write_text(json.dumps(document))
    with pytest.raises(BundleDamaged, match=said):
        open_bundle(path.parent)


def test_a_modality_without_an_answer_is_a_modality(tmp_path: Path) -> None:
    modality: Modality = open_bundle(build_toy_bundle(tmp_path / "toy")).modality("image")
    assert modality.canary is None
