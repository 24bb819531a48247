"""How a graph's weights lie on disk: smaller types that the runtime widens at load, so that all computing stays float32.

`store_as` rewrites large float32 weights to float16 or to int8 with one scale per output channel, followed by Cast (and
Mul). A runtime folds these constants when it loads the graph, so results do not depend on the batch, as they would with
quantized activations. Lookup tables stay small in memory too: rows are gathered first and widened after.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Storage = Literal["float32", "float16", "int8"]

SMALLEST = 1024
"""Elements. Below it a weight stays float32: norms and biases are where precision matters and bytes do not."""


def store_as(model: ir.Model, storage: Storage) -> int:
    """Rewrite ``model`` in place. Returns how many weights are now stored in ``storage``."""
    if storage == "float32":
        return 0
    weights = [value for value in model.graph.initializers.values() if _is_large(value)]
    return sum(_store(model.graph, weight, storage) for weight in weights)


def widen(model: ir.Model) -> int:
    """Undo float16 storage, in place: weights that every user casts to float32 become float32. Returns how many."""
    graph, widened = model.graph, 0
    for value in list(graph.initializers.values()):
        uses = list(value.uses())
        casts = [use.node for use in uses if use.node.op_type == "Cast" and use.node.attributes.get_int("to", 0) == ir.DataType.FLOAT]
        if value.const_value is None or value.const_value.dtype != ir.DataType.FLOAT16 or not uses or len(casts) != len(uses):
            continue
        wide = _initializer(graph, f"{value.name}.float32", value.const_value.numpy().astype(np.float32))
        for cast in casts:
            cast.outputs[0].replace_all_uses_with(wide)
            graph.remove(cast, safe=True)
        del graph.initializers[value.name or ""]
        widened += 1
    return widened


def _is_large(value: ir.Value) -> bool:
    tensor = value.const_value
    return tensor is not None and tensor.dtype == ir.DataType.FLOAT and len(tensor.shape) >= 2 and tensor.size >= SMALLEST


def _store(graph: ir.Graph, weight: ir.Value, storage: Storage) -> bool:
    assert weight.const_value is not None
    array = np.asarray(weight.const_value.numpy(), dtype=np.float32)
    if storage == "float16":
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if not np.isfinite(half).all():
            return False  # beyond float16's range
        _replace(graph, weight, half, None)
        return True
    axis = _channel_axis(weight)
    if axis is None:
        return False
    narrow, scales = to_int8(array, axis)
    _replace(graph, weight, narrow, scales)
    return True


def to_int8(array: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric, one scale per index of ``axis``: array ≈ int8 * scale, scale shaped to broadcast against the array."""
    others = tuple(n for n in range(array.ndim) if n != axis)
    largest = np.abs(array).max(axis=others, keepdims=True)
    # The floor keeps the division finite in channels of zeros.
    scales = np.maximum(largest / np.float32(127), np.finfo(np.float32).tiny)
    return np.rint(array / scales).astype(np.int8), scales


def _channel_axis(weight: ir.Value) -> int | None:
    """The axis along which every consumer takes this weight's output channels (rows of a table); None if they do not agree."""
    axes = {_axis_of_use(use.node, use.idx, weight) for use in weight.uses()}
    return axes.pop() if len(axes) == 1 else None


def _axis_of_use(node: ir.Node, index: int, weight: ir.Value) -> int | None:
    assert weight.const_value is not None
    match (node.op_type, index):
        case ("MatMul", 1):
            return len(weight.const_value.shape) - 1
        case ("Gemm", 1):
            return 0 if node.attributes.get_int("transB", 0) else 1
        case ("Conv", 1):
            return 0
        case ("Gather", 0) if node.attributes.get_int("axis", 0) == 0:
            return 0
        case _:
            return None


def _replace(graph: ir.Graph, weight: ir.Value, narrow: NDArray, scales: NDArray[np.float32] | None) -> None:
    assert weight.name is not None
    stored = _initializer(graph, f"{weight.name}.stored", narrow)
    scale = None if scales is None else _initializer(graph, f"{weight.name}.scale", scales)
    uses = list(weight.uses())
    for use in uses:
        if use.node.op_type == "Gather" and use.idx == 0 and use.node.attributes.get_int("axis", 0) == 0:
            _widen_after_gather(graph, use.node, stored, scale)
    uses = list(weight.uses())
    if uses:
        nodes, wide = _widened(stored, scale, weight)
        graph.insert_before(graph[0], nodes)
        for use in uses:
            use.node.replace_input_with(use.idx, wide)
    del graph.initializers[weight.name]


def _widened(stored: ir.Value, scale: ir.Value | None, like: ir.Value) -> tuple[list[ir.Node], ir.Value]:
    cast = ir.node("Cast", [stored], {"to": ir.DataType.FLOAT})
    nodes = [cast] if scale is None else [cast, ir.node("Mul", [cast.outputs[0], scale])]
    wide = nodes[-1].outputs[0]
    cast.outputs[0].name = f"{like.name}.cast"
    wide.name = f"{like.name}.wide"
    for node in nodes:
        node.outputs[0].type, node.outputs[0].shape = like.type, like.shape
    return nodes, wide


def _widen_after_gather(graph: ir.Graph, gather: ir.Node, stored: ir.Value, scale: ir.Value | None) -> None:
    rows = gather.outputs[0]
    nodes = [ir.node("Gather", [stored, gather.inputs[1]], {"axis": 0})]
    nodes.append(ir.node("Cast", [nodes[0].outputs[0]], {"to": ir.DataType.FLOAT}))
    nodes[0].outputs[0].name, nodes[1].outputs[0].name = f"{rows.name}.stored", f"{rows.name}.cast"
    if scale is not None:
        # (rows, 1, ...) gathered like the table itself, so each row meets its own scale
        nodes.append(ir.node("Gather", [scale, gather.inputs[1]], {"axis": 0}))
        nodes.append(ir.node("Mul", [nodes[1].outputs[0], nodes[2].outputs[0]]))
        nodes[2].outputs[0].name, nodes[3].outputs[0].name = f"{rows.name}.scale", f"{rows.name}.wide"
    wide = nodes[-1].outputs[0]
    wide.type, wide.shape = rows.type, rows.shape
    graph.insert_before(gather, nodes)
    rows.replace_all_uses_with(wide)
    graph.remove(gather, safe=True)


def _initializer(graph: ir.Graph, name: str, array: NDArray) -> ir.Value:
    tensor = ir.Tensor(array, name=name)
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=tensor.shape)
    graph.register_initializer(value)
    return value
