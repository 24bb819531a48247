"""One file of raw weights beside one or many graphs, each content stored once."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

import onnx_ir as ir

PAGE = 4096
LINE = 64
"""Bytes. Tensors of 16 pages and more start at page borders, so that a runtime can map them; smaller ones at cache lines, to save room."""

SMALLEST = 1024
"""Bytes. Smaller tensors (shapes, scalars, biases) stay in the graph, where shape inference can read them."""


class WeightFile:
    """Append-only. Graphs in the same directory may share it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[tuple[str, int], int] = {}
        self._end = 0

    def take(self, model: ir.Model) -> None:
        """Move the model's large weights into this file, in place; the graph then names the file by its bare name."""
        with self.path.open("ab") as stream:
            for value in model.graph.initializers.values():
                tensor = value.const_value
                if tensor is None or tensor.nbytes < SMALLEST:
                    continue
                raw = tensor.tobytes()
                value.const_value = ir.ExternalTensor(
                    self.path.name,
                    self._place(stream, raw),
                    len(raw),
                    tensor.dtype,
                    shape=ir.Shape(tensor.shape.numpy()),
                    name=value.name or "",
                    base_dir=self.path.parent,
                )

    def _place(self, stream: BinaryIO, raw: bytes) -> int:
        key = (hashlib.sha256(raw).hexdigest(), len(raw))
        if key not in self._places:
            border = PAGE if len(raw) >= 16 * PAGE else LINE
            start = -(-self._end // border) * border
            stream.write(b"\0" * (start - self._end))
            stream.write(raw)
            self._places[key] = start
            self._end = start + len(raw)
        return self._places[key]


def stored_bytes(model: ir.Model) -> int:
    return sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
