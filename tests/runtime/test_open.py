from __future__ import annotations

import logging
from pathlib import Path

import onnxruntime
import pytest

from bindery.bundle import Bundle, open_bundle
from bindery.errors import BundleDamaged, DeviceUnavailable, UnknownModality
from bindery.runtime.collate import collate
from bindery.runtime.open import open_encoder
from tests.toybundle import build_toy_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(build_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy"))


def test_a_device_that_is_not_there_is_an_error_and_never_a_cpu_run(bundle: Bundle) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(DeviceUnavailable, match="gpu"):
        open_encoder(bundle, "image", device="cuda")


def test_a_compiled_in_provider_that_cannot_start_is_refused_by_name_and_passed_over_by_auto(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # As onnxruntime-gpu behaves on a machine without a driver: listed, then silently replaced by the CPU.
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", _on_the_cpu(onnxruntime.InferenceSession))
    with pytest.raises(DeviceUnavailable, match="CUDAExecutionProvider could not be started"):
        open_encoder(bundle, "image", device="cuda")
    with caplog.at_level(logging.WARNING):
        encoder = open_encoder(bundle, "image", device="auto")
    assert (encoder.device, encoder.provider) == ("cpu", "CPUExecutionProvider")
    assert "CUDAExecutionProvider" in caplog.text


def _on_the_cpu(session: type) -> object:
    return lambda path, options, providers: session(path, options, providers=["CPUExecutionProvider"])  # noqa: ARG005


def test_a_precision_that_the_bundle_lacks_names_those_it_has(bundle: Bundle) -> None:
    with pytest.raises(DeviceUnavailable, match="it has: exact"):
        open_encoder(bundle, "image", precision="int8")
    with pytest.raises(UnknownModality):
        open_encoder(bundle, "smell")


def test_a_graph_that_is_damaged_after_its_checksum_was_taken_is_named(tmp_path: Path) -> None:
    bundle = open_bundle(build_toy_bundle(tmp_path / "toy"))
    (bundle.root / "image/model.onnx").write_bytes(b"not a graph")
    with pytest.raises(BundleDamaged, match=r"image/model\.onnx"):
        open_encoder(bundle, "image")


def test_batches_beyond_the_graphs_maximum_are_run_in_pieces(bundle: Bundle) -> None:
    import numpy as np

    encoder = open_encoder(bundle, "image", threads=1)
    rng = np.random.default_rng(0)
    items = [{"pixel_values": rng.standard_normal((3, 32, 32)).astype(np.float32)} for _ in range(encoder.max_batch + 3)]
    together = encoder.encode(collate(items))
    assert together.shape == (len(items), bundle.manifest.dimension)
    assert np.abs(together[-1] - encoder.encode(collate(items[-1:]))[0]).max() <= 1e-5
