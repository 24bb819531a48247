from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from bindery.bundle import open_bundle
from bindery.known_answer import TEXT, stripes
from bindery.runtime.open import open_encoder
from bindery.spec import AudioSpec, VideoSpec
from export.errors import ExportError, ExportUsageError, ParityError
from export.source import TowerSource
from export.space import space_of
from export.towers_bundle import tower_sources
from export.weights import Storage
from export.write_bundle import BundleOrder, write_bundle
from tests.export.towers import IMAGE, TEXT_SPEC, VIDEO, VIDEO_SPEC, image_source, save_packages, text_source, tokenizer_json, tower
from training.towers.tower import Tower

ORDER = BundleOrder(name="tiny", version="1", licence="CC0-1.0", max_batch={"text": 8, "image": 8})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("written") / "deep" / "bundle"
    write_bundle(out, [text_source(), image_source()], ORDER)
    return out


def test_the_manifest_says_how_each_graph_was_measured(bundle: Path) -> None:
    artefact = open_bundle(bundle).modality("image").artefacts[0]
    assert artefact.parity.batches == (1, 2, 7, 8)
    assert artefact.parity.samples == 8
    assert artefact.parity.cosine_min > 0.99999
    assert artefact.opset == onnx.load(bundle / artefact.path).opset_import[0].version
    assert {"torch", "onnxruntime", "bindery"} <= artefact.built_with.keys()
    assert artefact.built_with["fusions"] == "left to the runtime"


def test_the_manifest_knows_what_each_tower_answers(bundle: Path) -> None:
    opened = open_bundle(bundle)
    image, text = opened.modality("image").canary, opened.modality("text").canary
    assert image is not None
    assert text is not None
    pixels = torch.from_numpy(stripes((3, 32, 32)))
    with torch.no_grad():
        (expected,) = tower(IMAGE, 1)(pixels[None]).numpy()
    assert image.recipe == "stripes"
    np.testing.assert_allclose(image.vector, expected, atol=1e-5)
    assert (text.recipe, text.text) == ("text", TEXT)
    assert len(text.vector) == 16


def test_the_graph_gives_the_towers_vectors_at_any_batch(bundle: Path) -> None:
    encoder = open_encoder(open_bundle(bundle), "image", threads=1)
    pictures = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        expected = tower(IMAGE, 1)(pictures).numpy()
    np.testing.assert_allclose(encoder.encode({"pixel_values": pictures.numpy()}), expected, atol=1e-5)


def test_a_text_may_have_any_length_up_to_the_context(bundle: Path) -> None:
    encoder = open_encoder(open_bundle(bundle), "text", threads=1)
    for length in (1, 2, 30, 77):
        assert encoder.encode({"input_ids": np.full((3, length), 63)}).shape == (3, 16)


def test_nothing_but_the_listed_files_is_in_the_bundle_or_beside_it(bundle: Path) -> None:
    found = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    assert found == {"manifest.json", "MODEL_CARD.md", "text/model.onnx", "text/tokenizer.json", "image/model.onnx"}
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_a_graph_names_no_path_of_the_machine_that_made_it(bundle: Path) -> None:
    here = str(Path(__file__).parent.parent.parent).encode()
    for graph in bundle.rglob("*.onnx"):
        raw = graph.read_bytes()
        assert here not in raw
        assert b".py" not in raw
        assert b"Traceback" not in raw


def test_exporting_twice_gives_the_same_space_and_the_same_files(bundle: Path, tmp_path: Path) -> None:
    again = write_bundle(tmp_path / "again", [text_source(), image_source()], ORDER)
    assert again == open_bundle(bundle).manifest


def test_other_text_weights_make_another_space(bundle: Path, tmp_path: Path) -> None:
    other = write_bundle(tmp_path / "other", [text_source(seed=5)], replace(ORDER, max_batch={"text": 2}))
    assert other.space != open_bundle(bundle).manifest.space


class _Unfaithful(torch.nn.Module):
    """Stands for an exporter's error: computes one thing when it is traced and another when it is run."""

    def __init__(self, inner: Tower) -> None:
        super().__init__()
        self.config = IMAGE
        self.inner = inner
        self.inputs, self.dimension = inner.inputs, inner.dimension

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        vectors = self.inner(pixel_values)
        return vectors if torch.compiler.is_exporting() else vectors.roll(1, dims=1)


def _unfaithful() -> TowerSource:
    return replace(image_source(), tower=lambda: _Unfaithful(tower(IMAGE, 1)))  # type: ignore[arg-type,return-value]


def test_a_graph_that_differs_from_its_tower_fails_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"image: the graph differs.*cosine"):
        write_bundle(tmp_path / "bundle", [_unfaithful(), text_source()], ORDER)
    assert list(tmp_path.iterdir()) == []


def test_a_floor_that_cannot_be_met_fails_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="text"):
        write_bundle(tmp_path / "bundle", [text_source()], replace(ORDER, max_batch={}, max_abs=0.0))
    assert list(tmp_path.iterdir()) == []


def _no_numbers() -> Tower:
    made = tower(IMAGE)
    with torch.no_grad():
        made.get_parameter("projection.weight").fill_(float("nan"))
    return made


def test_a_tower_that_gives_no_finite_vectors_fails(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="not finite"):
        write_bundle(tmp_path / "bundle", [replace(image_source(), tower=_no_numbers), text_source()], ORDER)


def test_large_weights_lie_beside_the_graph(tmp_path: Path) -> None:
    manifest = write_bundle(tmp_path / "bundle", [image_source(), text_source()], replace(ORDER, inline_bytes=20_000))
    assert {"image/model.onnx", "image/weights.bin"} <= manifest.files.keys()
    assert manifest.files["image/weights.bin"].bytes > 20_000 > manifest.files["image/model.onnx"].bytes
    moved = (tmp_path / "bundle").rename(tmp_path / "moved")
    encoder = open_encoder(open_bundle(moved), "image", threads=1)
    assert encoder.encode({"pixel_values": np.ones((1, 3, 32, 32), np.float32)}).shape == (1, 16)


def test_clips_are_exported_with_attention_over_time(tmp_path: Path) -> None:
    video = TowerSource("video", VIDEO_SPEC, lambda: tower(VIDEO, 2), 20.0, ("a video of {}.",))
    manifest = write_bundle(tmp_path / "bundle", [text_source(), video], replace(ORDER, max_batch={"text": 2, "video": 3}))
    assert manifest.modalities["video"].artefacts[0].inputs[0].shape == ("batch", 3, 4, 32, 32)
    assert manifest.modalities["video"].artefacts[0].parity.batches == (1, 2, 3)


def _places(graph: Path) -> set[str]:
    """Where in the weight file each weight of the graph lies."""
    model = onnx.load(graph, load_external_data=False)
    return {str([(e.key, e.value) for e in i.external_data]) for i in model.graph.initializer if i.external_data}


@pytest.mark.parametrize(("storage", "cosine_min"), [("float16", 0.99999), ("int8", 0.999)])
def test_shared_weights_are_stored_once_in_every_storage(tmp_path: Path, storage: Storage, cosine_min: float) -> None:
    packages = save_packages(tmp_path / "packages")
    sources, _ = tower_sources({modality: str(path) for modality, path in packages.items()})
    order = BundleOrder(name="x", version="1", licence="CC0-1.0", share_weights=True)
    order = replace(order, weights=dict.fromkeys(packages, storage), max_batch=dict.fromkeys(packages, 2))
    manifest = write_bundle(tmp_path / "bundle", sources, order)
    assert {"towers/text.onnx", "towers/image.onnx", "towers/depth.onnx", "text/tokenizer.json"} <= manifest.files.keys()
    assert all(modality.artefacts[0].parity.cosine_min > cosine_min for modality in manifest.modalities.values())
    image, depth = (_places(tmp_path / "bundle" / "towers" / f"{name}.onnx") for name in ("image", "depth"))
    assert len(image) == len(depth) > 5
    assert len(image ^ depth) == 2  # each has a projection of its own, and nothing else
    assert manifest.space == space_of(sources[0].tower(), TEXT_SPEC, tokenizer_json())  # storage and place make no new space


@pytest.mark.parametrize(
    ("sources", "order", "said"),
    [
        ([image_source()], ORDER, "exactly one text tower"),
        ([text_source(), image_source("../up")], ORDER, "modality '../up'"),
        ([text_source()], replace(ORDER, name="bad name"), "--name 'bad name'"),
        ([text_source()], replace(ORDER, max_batch={"audio": 2}), "--max-batch names modality 'audio'"),
        ([text_source()], replace(ORDER, max_batch={}, weights={"audio": "int8"}), "--weights names modality 'audio'"),
        (
            [replace(image_source(), spec=VideoSpec(size=32)), text_source()],
            ORDER,
            r"the spec makes \(3, 8, 32, 32\).*tower takes \(3, 32, 32\)",
        ),
        ([replace(image_source(), spec=AudioSpec()), text_source()], ORDER, r"\(3, 112, 1036\)"),
    ],
)
def test_orders_that_make_no_sense_are_refused_before_they_cost_time(
    tmp_path: Path, sources: list[TowerSource], order: BundleOrder, said: str
) -> None:
    with pytest.raises(ExportUsageError, match=said):
        write_bundle(tmp_path / "bundle", sources, order)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_place_is_never_overwritten(tmp_path: Path) -> None:
    with pytest.raises(ExportUsageError, match="exists"):
        write_bundle(tmp_path, [text_source()], ORDER)


def test_towers_of_different_dimensions_are_refused(tmp_path: Path) -> None:
    wide = replace(image_source(), tower=lambda: tower(IMAGE.model_copy(update={"dimension": 24})))
    with pytest.raises(ExportError, match="different dimensions"):
        write_bundle(tmp_path / "bundle", [wide, text_source()], ORDER)
