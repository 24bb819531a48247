from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pytest

from bindery.bundle import Bundle, Precision, find_bundle, open_bundle
from bindery.decoded import Tensors
from bindery.errors import BundleDamaged, DeviceUnavailable
from bindery.runtime import processor
from bindery.runtime.open import open_encoder
from tests.toybundle import build_toy_bundle

needs_bf16 = pytest.mark.skipif(not processor.computes_bf16(), reason="this processor has no bfloat16")


@pytest.fixture(scope="module")
def starter() -> Bundle:
    return open_bundle(find_bundle("starter"))


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(build_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy"))


def items(bundle: Bundle, modality: str, count: int) -> Tensors:
    rng = np.random.default_rng(0)
    made: Tensors = {}
    for info in bundle.modality(modality).artefacts[0].inputs:
        shape = tuple(axis if isinstance(axis, int) else {"batch": count}.get(axis, 9) for axis in info.shape)
        if info.name == "attention_mask":
            made[info.name] = np.ones(shape, dtype=np.int64)
        elif info.dtype == "int64":
            made[info.name] = rng.integers(1, 200, shape)
        else:
            made[info.name] = rng.standard_normal(shape).astype(np.float32)
    return made


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_text_is_computed_exactly_so_that_no_text_moves_with_its_batch_mates(starter: Bundle, precision: Precision) -> None:
    encoder = open_encoder(starter, "text", precision=precision, threads=1)
    assert encoder.precision == "exact"
    assert encoder.runtime.startswith("onnxruntime ")
    batch = items(starter, "text", 5)
    batch["attention_mask"][1:, 4:] = 0
    together = encoder.encode(batch)
    alone = np.concatenate([encoder.encode({name: tensor[row : row + 1] for name, tensor in batch.items()}) for row in range(5)])
    assert np.abs(together - alone).max() <= 1e-5
    assert np.array_equal(together, open_encoder(starter, "text", threads=1).encode(batch))


@needs_bf16
@pytest.mark.parametrize("modality", ["audio", "image"])
def test_bf16_vectors_are_the_exact_ones_but_for_rounding_and_bit_equal_at_every_batch_size(starter: Bundle, modality: str) -> None:
    batch = items(starter, modality, 5)
    encoder = open_encoder(starter, modality, precision="bf16", threads=1)
    vectors = encoder.encode(batch)
    assert vectors.dtype == np.float32
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6
    for size in (1, 2, 4):
        assert np.array_equal(encoder.encode({name: tensor[:size] for name, tensor in batch.items()}), vectors[:size])
    exact = open_encoder(starter, modality, threads=1).encode(batch)
    assert not np.array_equal(vectors, exact)
    assert (vectors * exact).sum(axis=1).min() > 0.99


@needs_bf16
def test_an_encoder_says_what_computes(toy: Bundle) -> None:
    encoder = open_encoder(toy, "image", precision="bf16", threads=1)
    assert (encoder.precision, encoder.device, encoder.provider) == ("bf16", "cpu", "CPU bf16")
    assert encoder.runtime.startswith("openvino 20")
    assert open_encoder(toy, "image").runtime.startswith("onnxruntime ")


@needs_bf16
def test_batches_beyond_the_graphs_maximum_are_run_in_pieces(toy: Bundle) -> None:
    encoder = open_encoder(toy, "image", precision="bf16", threads=1)
    batch = items(toy, "image", encoder.max_batch + 3)
    together = encoder.encode(batch)
    assert together.shape == (encoder.max_batch + 3, toy.manifest.dimension)
    assert np.array_equal(together[-1:], encoder.encode({name: tensor[-1:] for name, tensor in batch.items()}))


@needs_bf16
def test_a_precision_that_was_never_measured_is_said(toy: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        open_encoder(toy, "image", precision="bf16", threads=1)
    assert "never measured in bf16" in caplog.text


def test_a_processor_without_bf16_refuses_and_names_itself(toy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bindery.runtime.openvino.computes_bf16", lambda: False)
    with pytest.raises(DeviceUnavailable, match="avx512_bf16 or amx_bf16"):
        open_encoder(toy, "image", precision="bf16")


def test_without_the_package_the_error_names_the_extra(toy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "bindery.runtime.openvino", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(DeviceUnavailable, match=r"bindery\[openvino\]"):
        open_encoder(toy, "image", precision="bf16")


def test_bf16_on_a_gpu_is_refused(toy: Bundle) -> None:
    with pytest.raises(DeviceUnavailable, match="computed on the CPU"):
        open_encoder(toy, "image", precision="bf16", device="cuda")


@needs_bf16
def test_a_damaged_graph_is_named(tmp_path: Path) -> None:
    bundle = open_bundle(build_toy_bundle(tmp_path / "toy"))
    (bundle.root / "image/model.onnx").write_bytes(b"not a graph")
    with pytest.raises(BundleDamaged, match=r"image/model\.onnx"):
        open_encoder(bundle, "image", precision="bf16")
