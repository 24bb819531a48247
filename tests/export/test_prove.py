from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from bindery.bundle import Artefact, Bundle, Parity, open_bundle
from bindery.decoded import Tensors
from bindery.runtime import processor
from bindery.runtime.encoder import Encoder
from bindery.runtime.open import open_encoder
from bindery.vectors import Vectors, normalize
from export import prove as proving
from export.cli import app
from export.errors import ExportUsageError, ParityError
from export.prove import ProofOrder, prove, require
from export.write_bundle import BundleOrder, write_bundle
from tests.export.towers import image_source, text_source

ORDER = BundleOrder(name="tiny", version="1", licence="CC0-1.0", max_batch={"text": 2, "image": 8})
needs_bf16 = pytest.mark.skipif(not processor.computes_bf16(), reason="this processor has no bfloat16")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("proved") / "bundle"
    write_bundle(out, [text_source(), image_source()], ORDER)
    return out


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "bundle")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("labelled")
    random = np.random.default_rng(0)
    for label in ("word3", "word4_word5"):
        (root / label).mkdir()
        for index in range(6):
            pixels = random.integers(0, 256, (40, 40, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / label / f"{index}.png")
    (root / "word3" / "notes.txt").write_text("no picture")
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def pictures(count: int) -> Tensors:
    return {"pixel_values": np.random.default_rng(5).standard_normal((count, 3, 32, 32)).astype(np.float32)}


def test_int8_gets_a_graph_of_its_own_and_a_proof_on_real_files(bundle: Path, labelled: Path) -> None:
    found = prove(bundle, ProofOrder("int8", labelled={"image": labelled}, max_drop=1.0))
    opened = open_bundle(bundle)  # every checksum
    exact, reduced = opened.modality("image").artefacts
    assert (reduced.precision, reduced.weights, reduced.path) == ("int8", "int8", "image/model.int8.onnx")
    assert reduced.parity == found["image"]
    assert exact.precision == "exact"
    parity = reduced.parity
    assert 0.99 < parity.cosine_min <= (parity.cosine_mean or 0) < 1
    assert parity.samples == 12
    assert parity.batches == (1, 2, 7, 8)
    assert parity.accuracy.keys() == {"exact", "int8"}
    assert "12 files of 2 labels" in parity.inputs
    assert parity.measured_on == processor.processor_name()
    assert opened.manifest.files[reduced.path].bytes < opened.manifest.files[exact.path].bytes / 2
    vectors = open_encoder(opened, "image", precision="int8", threads=1).encode(pictures(5))
    cosines = (vectors * open_encoder(opened, "image", threads=1).encode(pictures(5))).sum(axis=1)
    assert 0.99 < cosines.min() < 1


def test_the_accuracy_is_that_of_the_embedders_own_answers(bundle: Path, labelled: Path) -> None:
    import bindery

    prove(bundle, ProofOrder("int8", labelled={"image": labelled}, max_drop=1.0))
    labels = ["word3", "word4 word5"]
    for precision in ("exact", "int8"):
        model = bindery.load(bundle, precision=precision, threads=1)  # type: ignore[arg-type]
        right = 0
        for index, folder in enumerate(("word3", "word4_word5")):
            files = sorted((labelled / folder).glob("*.png"))
            right += int((model.classify("image", files, labels).argmax(axis=1) == index).sum())
        said = open_bundle(bundle).modality("image").artefacts[1].parity.accuracy
        assert said[precision] == pytest.approx(right / 12)


def test_proving_again_measures_the_same_graph_again(bundle: Path, labelled: Path) -> None:
    prove(bundle, ProofOrder("int8"))
    graph = (bundle / "image/model.int8.onnx").read_bytes()
    assert "noise" in open_bundle(bundle).modality("image").artefacts[1].parity.inputs
    prove(bundle, ProofOrder("int8", media={"image": labelled / "word3"}))
    assert (bundle / "image/model.int8.onnx").read_bytes() == graph
    artefacts = open_bundle(bundle).modality("image").artefacts
    assert [one.precision for one in artefacts] == ["exact", "int8"]
    assert artefacts[1].parity.samples == 6


def test_weights_stored_as_float16_are_widened_before_they_become_int8(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    write_bundle(
        out, [text_source(), image_source()], BundleOrder("tiny", "1", "CC0-1.0", weights={"image": "float16"}, max_batch={"image": 4})
    )
    assert prove(out, ProofOrder("int8"))["image"].cosine_min > 0.99
    files = open_bundle(out).manifest.files
    assert files["image/model.int8.onnx"].bytes < files["image/model.onnx"].bytes


def test_large_int8_weights_lie_beside_their_graph_and_are_listed(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving, "_INLINE_BYTES", 1000)
    prove(bundle, ProofOrder("int8"))
    opened = open_bundle(bundle)
    assert {"image/model.int8.onnx", "image/model.int8.bin"} <= opened.manifest.files.keys()
    assert open_encoder(opened, "image", precision="int8", threads=1).encode(pictures(1)).shape == (1, 16)


@needs_bf16
def test_a_proved_precision_is_no_longer_warned_of(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        open_encoder(open_bundle(bundle), "image", precision="bf16", threads=1)
        assert "bindery-export prove" in caplog.text
        caplog.clear()
        prove(bundle, ProofOrder("bf16"))
        encoder = open_encoder(open_bundle(bundle), "image", precision="bf16", threads=1)
    assert caplog.text == ""
    assert encoder.precision == "bf16"
    artefact = open_bundle(bundle).modality("image").artefacts[1]
    assert (artefact.path, artefact.precision, artefact.weights) == ("image/model.onnx", "bf16", "float32")


class _Other:
    """An encoder that gives what the exact one gives, changed by ``change``."""

    def __init__(self, bundle: Bundle, change: str) -> None:
        self._exact = open_encoder(bundle, "image", threads=1)
        self._change = change
        self.max_batch = self._exact.max_batch

    def encode(self, tensors: Tensors) -> Vectors:
        vectors = self._exact.encode(tensors)
        if self._change == "batch mates":
            return normalize(vectors + np.float32(1e-4 * (len(vectors) - 1)))
        return np.roll(vectors, 3, axis=1)


@pytest.mark.parametrize(
    ("change", "floors", "said"),
    [
        ("batch mates", {}, "with the items beside it"),
        ("other", {}, "has cosine"),
        ("other", {"min_cosine": -1.0, "max_drop": 0.0}, "points of top-1"),
    ],
)
def test_what_is_below_a_floor_is_refused_and_the_bundle_stays_as_it_was(
    bundle: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch, change: str, floors: dict[str, float], said: str
) -> None:
    def other(opened: Bundle, _: Artefact) -> Encoder:
        return _Other(opened, change)  # type: ignore[return-value]

    def top1(*_: object) -> float:
        return next(figures)

    figures = iter((0.75, 0.5))
    monkeypatch.setattr(proving, "open_reduced", other)
    if "max_drop" in floors:
        monkeypatch.setattr(proving, "_top1", top1)
    before = contents(bundle)
    with pytest.raises(ParityError, match=said):
        prove(bundle, ProofOrder("int8", labelled={"image": labelled}, **floors))
    assert contents(bundle) == before


def test_half_a_point_may_go_and_one_file_always_may() -> None:
    def fell(samples: int, files: int) -> Parity:
        said = {"exact": 0.9, "bf16": 0.9 - files / samples}
        return Parity(reference="exact", cosine_min=1, max_abs=0, samples=samples, accuracy=said)

    require("image", fell(50, 1), ProofOrder("bf16"))
    require("image", fell(1000, 5), ProofOrder("bf16"))
    for lost in (fell(50, 2), fell(1000, 6)):
        with pytest.raises(ParityError, match="points of top-1"):
            require("image", lost, ProofOrder("bf16"))


def test_what_makes_no_sense_is_refused_by_name(bundle: Path, labelled: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for order, said in [
        (ProofOrder("int8", media={"text": labelled}), "text is always computed exactly"),
        (ProofOrder("int8", media={"image": tmp_path / "gone"}), "not a folder"),
        (ProofOrder("int8", media={"image": tmp_path / "empty"}), "no file"),
        (ProofOrder("int8", labelled={"image": tmp_path / "empty"}), "two folders or more"),
        (ProofOrder("int8", media={"image": labelled}, labelled={"image": labelled}), "both name 'image'"),
    ]:
        with pytest.raises(ExportUsageError, match=said):
            prove(bundle, order)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["prove", *(str(argument) for argument in arguments)])


def test_the_command_prints_the_proof_and_keeps_the_exit_codes(bundle: Path, labelled: Path) -> None:
    result = run(bundle, "--precision", "int8", "--media", f"image={labelled / 'word3'}")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["precision"] == "int8"
    assert printed["parity"]["image"] == open_bundle(bundle).modality("image").artefacts[1].parity.model_dump(mode="json")
    assert run(bundle, "--precision", "int4").exit_code == 2
    assert run(bundle, "--precision", "int8", "--min-cosine", "1").exit_code == 1
