from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from export.onnx_graph import to_onnx
from export.weight_file import WeightFile
from export.weights import store_as, to_int8
from tests.export.towers import TEXT, tower


@given(arrays(np.float32, (5, 7), elements=st.floats(-1e6, 1e6, width=32)), st.sampled_from([0, 1]))
def test_int8_is_off_by_at_most_half_a_step_of_its_own_channel(array: np.ndarray, axis: int) -> None:
    narrow, scales = to_int8(array, axis)
    assert scales.shape == ((5, 1) if axis == 0 else (1, 7))
    assert (np.abs(narrow * scales - array) <= scales * 0.5 * (1 + 1e-5)).all()


def _text_graph() -> ir.Model:
    import torch

    return to_onnx(tower(TEXT), {"input_ids": torch.randint(0, 64, (2, 5))}, {"batch": 4, "tokens": 77})


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_tables_are_gathered_before_they_are_widened(storage: str) -> None:
    model = _text_graph()
    assert store_as(model, storage) > 0  # type: ignore[arg-type]
    table = model.graph.initializers["token_embedding.weight.stored"]
    assert [use.node.op_type for use in table.uses()] == ["Gather"]
    assert "token_embedding.weight" not in model.graph.initializers


def test_weights_are_widened_once_and_computed_with_in_float32() -> None:
    model = _text_graph()
    store_as(model, "int8")
    kinds = {value.const_value.dtype for value in model.graph.initializers.values() if value.const_value is not None}
    assert ir.DataType.INT8 in kinds
    for node in model.graph:
        if node.op_type in ("MatMul", "Gemm"):
            assert all(value is not None and value.dtype in (None, ir.DataType.FLOAT) for value in node.inputs)


def test_float32_leaves_the_graph_alone() -> None:
    model = _text_graph()
    names = set(model.graph.initializers)
    assert store_as(model, "float32") == 0
    assert set(model.graph.initializers) == names


def test_a_weight_too_large_for_float16_keeps_its_type() -> None:
    model = _text_graph()
    name = "token_embedding.weight"
    model.graph.initializers[name].const_value = ir.Tensor(np.full((64, 32), 1e6, np.float32), name=name)
    store_as(model, "float16")
    assert name in model.graph.initializers


def test_two_graphs_with_equal_weights_need_the_room_of_one(tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = WeightFile(tmp_path / "weights.bin")
    file.take(_text_graph())
    once = file.path.stat().st_size
    second = _text_graph()
    before = {name: value.const_value.numpy().copy() for name, value in second.graph.initializers.items()}  # type: ignore[union-attr]
    file.take(second)
    assert file.path.stat().st_size == once
    for name, value in second.graph.initializers.items():
        assert value.const_value is not None
        np.testing.assert_array_equal(value.const_value.numpy(), before[name])
