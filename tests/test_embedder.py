from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bindery
from bindery.errors import BinderyError, EmptyMedia, InvalidParameter, UnknownModality, UnreadableMedia, UnsupportedMedia
from tests.toybundle import LEAST_OF_SOUNDS, build_toy_bundle

EXAMPLES = Path(__file__).parents[1] / "examples"
FILES = {
    "image": "elephant.jpg",
    "video": "kitchen.mp4",
    "audio": "dog.wav",
    "depth": "bathroom-depth.png",
    "thermal": "cars-thermal.jpg",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bindery.Embedder:
    return bindery.load(build_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy"))


@pytest.mark.parametrize(("modality", "file"), FILES.items())
def test_a_file_embeds_the_same_by_path_by_bytes_and_as_an_open_file(model: bindery.Embedder, modality: str, file: str) -> None:
    path = EXAMPLES / file
    vectors = model.embed(modality, [path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes())])
    assert vectors.shape == (4, model.dimension)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (vectors == vectors[0]).all()


def test_one_input_needs_no_list_and_none_gives_no_rows(model: bindery.Embedder) -> None:
    assert model.embed("text", "a dog").shape == (1, model.dimension)
    assert model.embed("text", []).shape == (0, model.dimension)


def test_pictures_and_arrays_of_a_notebook_are_taken(model: bindery.Embedder) -> None:
    picture = Image.open(EXAMPLES / "elephant.jpg").convert("RGB")
    by_file, by_picture, by_array = model.embed("image", [EXAMPLES / "elephant.jpg", picture, np.asarray(picture)])
    assert np.array_equal(by_picture, by_array)
    assert np.allclose(by_file, by_picture, atol=1e-6)
    metres = np.linspace(0.5, 9, 60 * 80, dtype=np.float32).reshape(60, 80)
    assert model.embed("depth", [metres]).shape == (1, model.dimension)


@pytest.mark.parametrize("modality", ["text", "image"])
def test_a_vector_does_not_depend_on_its_neighbours(model: bindery.Embedder, modality: str) -> None:
    inputs = ["a dog", "rain", "a much longer text than the others are", "cat", "b", "c", "d"]
    values = inputs if modality == "text" else [EXAMPLES / "elephant.jpg", EXAMPLES / "accordion.jpg"] * 4
    together = model.embed(modality, values[:7])
    alone = np.concatenate([model.embed(modality, [value]) for value in values[:7]])
    assert np.abs(together - alone).max() <= 1e-5


def test_a_bad_file_among_good_ones_is_an_error_in_its_own_place(model: bindery.Embedder) -> None:
    good = EXAMPLES / "elephant.jpg"
    results = list(model.embed_each("image", [good, b"junk", good, b"", EXAMPLES / "dog.wav"]))
    kinds = [type(r) if isinstance(r, BinderyError) else np.ndarray for r in results]
    assert kinds == [np.ndarray, UnsupportedMedia, np.ndarray, EmptyMedia, UnsupportedMedia]
    assert np.array_equal(results[0], results[2])
    with pytest.raises(UnsupportedMedia):
        model.embed("image", [good, b"junk"])


def test_more_files_than_a_batch_keep_their_order(model: bindery.Embedder) -> None:
    texts = [f"text number {i}" for i in range(model.encoder("text").max_batch * 2 + 3)]
    vectors = model.embed("text", texts)
    assert np.allclose(vectors[-1], model.embed("text", texts[-1])[0], atol=1e-5)


def test_errors_name_what_is_wrong(model: bindery.Embedder, tmp_path: Path) -> None:
    with pytest.raises(UnknownModality, match="it has: "):
        model.embed("smell", ["x"])
    with pytest.raises(UnreadableMedia, match=r"nowhere\.jpg"):
        model.embed("image", [tmp_path / "nowhere.jpg"])
    with pytest.raises(InvalidParameter, match="depth_unit"):
        model.embed("image", [EXAMPLES / "elephant.jpg"], depth_unit="m")
    with pytest.raises(UnsupportedMedia, match="string"):
        model.embed("text", [b"bytes"])


def test_classification_and_similarity_agree(model: bindery.Embedder) -> None:
    labels = ["dog", "rain", "kitchen"]
    probabilities = model.classify("audio", EXAMPLES / "dog.wav", labels, templates=["{}"])
    assert probabilities.shape == (1, 3)
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    cosines = model.similarity(("audio", [EXAMPLES / "dog.wav"]), ("text", labels))
    assert probabilities.argmax() == cosines.argmax()
    scale = model.bundle.modality("audio").logit_scale or 1.0
    assert np.allclose(probabilities, np.exp(cosines * scale) / np.exp(cosines * scale).sum(), atol=1e-5)


def test_what_no_label_fits_is_unknown_where_the_bundle_states_a_least_similarity(tmp_path: Path) -> None:
    model = bindery.load(build_toy_bundle(tmp_path / "toy"))
    words = [f"word number {i}" for i in range(12)]
    cosines = model.similarity(("audio", [EXAMPLES / "dog.wav"]), ("text", words))[0]
    alone = [bool(model.unknown("audio", EXAMPLES / "dog.wav", [word], templates=["{}"])[0]) for word in words]
    assert alone == (cosines < LEAST_OF_SOUNDS).tolist()
    assert set(alone) == {True, False}
    assert model.unknown("audio", [EXAMPLES / "dog.wav"] * 2, words, templates=["{}"]).tolist() == [all(alone)] * 2
    with pytest.raises(InvalidParameter, match="min_similarity"):
        model.unknown("image", EXAMPLES / "elephant.jpg", words)


def test_a_new_modality_of_a_known_kind_is_a_manifest_entry_and_no_code(tmp_path: Path) -> None:
    root = build_toy_bundle(tmp_path / "toy")
    manifest = json.loads((root / "manifest.json").read_text())
    manifest["modalities"]["xray"] = {**manifest["modalities"]["image"], "prompts": ["an x-ray of a {}"]}
    (root / "manifest.json").write_text(json.dumps(manifest))
    model = bindery.load(root)
    assert "xray" in model.modalities
    assert np.array_equal(model.embed("xray", EXAMPLES / "elephant.jpg"), model.embed("image", EXAMPLES / "elephant.jpg"))
    assert model.classify("xray", EXAMPLES / "elephant.jpg", ["hand", "elephant"]).shape == (1, 2)
