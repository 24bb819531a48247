"""A file goes in, the reference's vector comes out: through import, export, bundle, decoding, preparation and runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bindery.embedder import Embedder
from bindery.embedder import load as load_bundle
from tests.export.packages import PREPROCESS, TEXTS, assert_close, goldens, items

GOLDENS = goldens()
MODALITIES = {"Image": "image", "Audio": "audio", "Depth": "depth", "Video": "video", "Video_Huge_V1.5_FT": "video"}


@pytest.fixture(scope="session")
def large(large_bundle: Path) -> Embedder:
    return load_bundle(large_bundle, threads=1)


@pytest.fixture(scope="session")
def huge(huge_bundle: Path) -> Embedder:
    return load_bundle(huge_bundle, threads=1)


def _served() -> list[dict[str, Any]]:
    kept = [item for item in items("media") if item["checkpoint"] in MODALITIES]
    # Antialiased goldens go through `smooth`, the image package with that policy.
    return [item for item in kept if not item["antialias"] or item["checkpoint"] == "Image"]


@pytest.mark.parametrize("item", _served(), ids=lambda item: str(item["key"]))
def test_a_media_file_gives_the_reference_vector(large: Embedder, huge: Embedder, item: dict[str, Any]) -> None:
    model = huge if "Huge" in item["checkpoint"] else large
    modality = "smooth" if item["antialias"] else MODALITIES[item["checkpoint"]]
    (vector,) = model.embed(modality, PREPROCESS / "media" / item["file"])
    assert_close(vector, GOLDENS[item["key"]], item["tolerances"])


@pytest.mark.parametrize("item", items("text"), ids=lambda item: str(item["checkpoint"]))
def test_texts_give_the_reference_vectors(large: Embedder, huge: Embedder, item: dict[str, Any]) -> None:
    model = huge if "Huge" in item["checkpoint"] else large
    assert_close(model.embed("text", [text["text"] for text in TEXTS]), GOLDENS[item["key"]], item["tolerances"])


def test_a_vector_does_not_depend_on_its_batch(large: Embedder) -> None:
    encoder = large.encoder("image")
    batch = np.random.default_rng(0).standard_normal((8, 3, 224, 224), dtype=np.float32)
    together = encoder.encode({"pixel_values": batch})
    for size in (1, 2, 7):
        np.testing.assert_allclose(encoder.encode({"pixel_values": batch[:size]}), together[:size], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


def test_classification_uses_the_packages_own_prompt_and_scale(large: Embedder) -> None:
    entry = large.bundle.modality("depth")
    assert entry.prompts == ("a depth photo of {}.",)
    picture = PREPROCESS / "media" / "mm16_0_160x120.png"
    labels = ["a cat", "two dogs"]
    cosines = large.similarity(("depth", [picture]), ("text", [entry.prompts[0].format(label) for label in labels]))
    scaled = np.exp((entry.logit_scale or 0) * (cosines - cosines.max()))
    np.testing.assert_allclose(large.classify("depth", picture, labels), scaled / scaled.sum(), atol=1e-5)


def test_large_and_huge_are_different_spaces(large: Embedder, huge: Embedder) -> None:
    assert large.space != huge.space
    assert (large.dimension, huge.dimension) == (16, 24)
