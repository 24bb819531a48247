"""The adapter for mteb: its batches, without that package; and one of its tasks, where it is installed."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bindery.kinds import parse_options
from tests.toybundle import DIMENSION, build_toy_bundle
from training.evaluation.mteb_model import MtebBundle, _clip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MtebBundle:
    return MtebBundle(str(build_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy")), device="cpu")


def test_each_modality_of_a_batch_becomes_the_bundles_vectors(model: MtebBundle) -> None:
    rng = np.random.default_rng(5)
    pictures = [Image.fromarray(rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)) for _ in range(2)]
    sounds = [{"array": rng.uniform(-1, 1, 4000).astype(np.float32), "sampling_rate": 16_000} for _ in range(2)]
    clips = [rng.integers(0, 256, (6, 3, 48, 64)).astype(np.uint8) for _ in range(2)]
    texts = model.encode([{"text": ["a dog", "a cat"]}, {"text": ["a bird"]}])
    np.testing.assert_allclose(texts, model.embedder.embed("text", ["a dog", "a cat", "a bird"]), atol=1e-6)
    np.testing.assert_allclose(model.encode([{"image": pictures}]), model.embedder.embed("image", pictures), atol=1e-6)
    for name, values in (("audio", sounds), ("video", clips)):
        vectors = model.encode([{name: values}])
        assert vectors.shape == (2, DIMENSION)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert not np.array_equal(vectors[0], vectors[1])


def test_a_clips_frames_reach_the_bundle_unchanged(model: MtebBundle) -> None:
    frames = np.zeros((8, 3, 64, 64), dtype=np.uint8)
    frames[:, 0] = 200  # red throughout: the pooled channel means are known
    red = model.encode([{"video": [frames]}])
    picture = Image.new("RGB", (64, 64), (200, 0, 0))
    same = model.embedder.prepare("image", picture, parse_options("image", {})).tensors["pixel_values"]  # (3, size, size)
    video = model.embedder.prepare("video", _clip(frames), parse_options("video", {})).tensors["pixel_values"]  # (3, frames, size, size)
    np.testing.assert_allclose(video, np.broadcast_to(same[:, None], video.shape), atol=0.02)
    assert red.shape == (1, DIMENSION)


def test_rows_with_several_modalities_get_one_vector_between_them(model: MtebBundle) -> None:
    picture = Image.new("RGB", (40, 40), (10, 200, 30))
    both = model.encode([{"text": ["green"], "image": [picture]}])
    mean = model.embedder.embed("text", "green") + model.embedder.embed("image", [picture])
    np.testing.assert_allclose(both, mean / np.linalg.norm(mean), atol=1e-6)


def test_a_batch_of_nothing_known_is_refused(model: MtebBundle) -> None:
    with pytest.raises(ValueError, match="smell"):
        model.encode([{"smell": ["rose"]}])
    assert model.encode([]).shape == (0, DIMENSION)


def test_similarities_are_cosines(model: MtebBundle) -> None:
    vectors = model.encode([{"text": ["one", "two"]}])
    np.testing.assert_allclose(np.asarray(model.similarity(vectors, vectors)), vectors @ vectors.T, atol=1e-6)
    np.testing.assert_allclose(np.asarray(model.similarity_pairwise(vectors, vectors)), [1, 1], atol=1e-5)


def test_mteb_takes_it_for_an_encoder(model: MtebBundle) -> None:
    mteb = pytest.importorskip("mteb")
    from mteb.models import EncoderProtocol

    assert isinstance(model, EncoderProtocol)
    assert model.mteb_model_meta.embed_dim == DIMENSION
    assert mteb.get_tasks(tasks=["ESC50_Zeroshot"])
