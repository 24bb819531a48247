"""Bound buffers give the vectors that a plain run gives. On the CPU the binding is the same code; the GPU's own tests are marked."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from bindery.bundle import find_bundle, open_bundle
from bindery.decoded import Tensors
from bindery.runtime import binding
from bindery.runtime.binding import Bound
from bindery.runtime.onnx import session_options
from bindery.runtime.open import open_encoder
from tests.toybundle import build_toy_bundle


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy")


def texts(*lengths: int) -> Iterator[Tensors]:
    rng = np.random.default_rng(0)
    for length in lengths:
        ids = rng.integers(3, 250, (4, length))
        yield {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def test_bound_buffers_give_the_same_bits_batch_after_batch(directory: Path) -> None:
    session = ort.InferenceSession(str(directory / "text/model.onnx"), session_options(1), providers=["CPUExecutionProvider"])
    bound = Bound(session, "cpu")
    kept = [(bound.run(tensors), session.run(None, dict(tensors))[0]) for tensors in texts(5, 9, 5, 9, 5)]
    for mine, plain in kept:  # compared at the end: a buffer that is filled again must not change what was given out before
        np.testing.assert_array_equal(mine, plain)
    assert len(bound) == 4  # two inputs, two lengths


def test_buffers_do_not_grow_with_the_shapes_that_come(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "MOST_SHAPES", 3)
    session = ort.InferenceSession(str(directory / "text/model.onnx"), session_options(1), providers=["CPUExecutionProvider"])
    bound = Bound(session, "cpu")
    for tensors in texts(*range(2, 12)):
        np.testing.assert_array_equal(bound.run(tensors), session.run(None, dict(tensors))[0])
    assert len(bound) == 6


class Copies:
    """As `Cudart`, on a machine without a GPU: pinned memory is memory, and a copy is done when its stream is waited for."""

    def __init__(self) -> None:
        self.memory: dict[int, ctypes.Array[ctypes.c_char]] = {}
        self.pending: list[tuple[int, int, int, int]] = []
        self.streams: list[int] = []

    def stream(self) -> int:
        self.streams.append(len(self.streams) + 1)
        return self.streams[-1]

    def pinned_memory(self, size: int) -> int:
        raw = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(raw)] = raw
        return ctypes.addressof(raw)

    def copy_in(self, device: int, host: int, size: int, stream: int) -> None:
        assert host in self.memory
        self.pending.append((device, host, size, stream))

    def wait(self, stream: int) -> None:
        for device, host, size, on in self.pending:
            if on == stream:
                ctypes.memmove(device, host, size)
        self.pending = [one for one in self.pending if one[3] != stream]

    def free_pinned(self, address: int) -> None:
        del self.memory[address]

    def free_stream(self, stream: int) -> None:
        self.streams.remove(stream)


def test_a_batch_staged_while_another_is_computed_gives_the_same_bits(directory: Path) -> None:
    session = ort.InferenceSession(str(directory / "text/model.onnx"), session_options(1), providers=["CPUExecutionProvider"])
    copies = Copies()
    bound = Bound(session, "cpu", copies)  # type: ignore[arg-type]
    first, second, third = texts(7, 7, 7)
    one = bound.stage(first)
    two = bound.stage(second)  # into other buffers, although the shapes are the same
    np.testing.assert_array_equal(one(), session.run(None, dict(first))[0])
    three = bound.stage(third)  # into those of the first
    np.testing.assert_array_equal(two(), session.run(None, dict(second))[0])
    np.testing.assert_array_equal(three(), session.run(None, dict(third))[0])
    assert len(bound) == len(copies.memory) == 4  # two inputs, twice
    del one, two, three, bound
    gc.collect()
    assert (copies.memory, copies.streams) == ({}, [])


def test_a_staged_batch_that_is_never_run_gives_its_buffers_back(directory: Path) -> None:
    session = ort.InferenceSession(str(directory / "text/model.onnx"), session_options(1), providers=["CPUExecutionProvider"])
    bound = Bound(session, "cpu")
    for tensors in texts(*[5] * 6):
        bound.stage(tensors)  # dropped at once
    (tensors,) = texts(5)
    np.testing.assert_array_equal(bound.run(tensors), session.run(None, dict(tensors))[0])


@pytest.mark.gpu
@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_gpu_gives_the_vectors_of_the_cpu(modality: str) -> None:
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA provider")
    bundle = open_bundle(find_bundle("starter"))
    encoders = [open_encoder(bundle, modality, device=device) for device in ("cuda", "cpu")]  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    for rows in (1, 5, 16, 1):
        tensors = (
            {"pixel_values": rng.standard_normal((rows, 3, 224, 224)).astype(np.float32)}
            if modality == "image"
            else {"input_ids": rng.integers(1000, 20000, (rows, 12)), "attention_mask": np.ones((rows, 12), dtype=np.int64)}
        )
        on_gpu, on_cpu = (encoder.encode(tensors) for encoder in encoders)
        assert (on_gpu * on_cpu).sum(axis=1).min() > 0.9999
