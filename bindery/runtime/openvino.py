"""OpenVINO behind the `Encoder` seam: the same float32 graph computed in bfloat16, or int8 weights kept small in memory.

Imported only when a precision needs it; the package is the extra `openvino`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from bindery.bundle import Artefact
from bindery.decoded import Tensors
from bindery.errors import BundleDamaged, DeviceUnavailable, InternalError
from bindery.runtime.collate import pieces
from bindery.runtime.processor import computes_bf16, processor_name
from bindery.vectors import Vectors, normalize

try:
    import openvino
except ImportError as error:
    raise DeviceUnavailable(
        f"OpenVINO, which computes this precision, is not installed ({error}); pip install 'bindery[openvino]', or use precision 'exact'"
    ) from error

Compute = Literal["f32", "bf16"]

COMPUTE: dict[str, Compute] = {"exact": "f32", "bf16": "bf16", "int8": "f32"}
"""Precision of the artefact → type of the arithmetic outside the matrix products with int8 weights."""

INT8_GROUP = 32
"""Activations that share a scale where weights are int8: neighbours within one row, so no item's vector depends on another's."""


class OpenVinoEncoder:
    """One ONNX graph on the CPU, its norm in float32. Raises `DeviceUnavailable` where the processor has no bfloat16."""

    device = "cpu"

    def __init__(self, path: Path, artefact: Artefact, *, dimension: int, threads: int) -> None:
        self.dimension = dimension
        self.max_batch = artefact.max_batch
        self.precision: str = artefact.precision
        self.runtime = f"openvino {openvino.__version__.partition('-')[0]}"
        self.input_names = tuple(i.name for i in artefact.inputs)
        compute = COMPUTE[artefact.precision]
        if compute == "bf16" and not computes_bf16():
            raise DeviceUnavailable(
                f"precision 'bf16' needs a processor with avx512_bf16 or amx_bf16; {processor_name()} has neither. Use precision 'exact'"
            )
        compiled = _compiled(path, compute, INT8_GROUP if artefact.precision == "int8" else 0, threads)
        self.provider = f"CPU {compute}"
        actual = {name for port in compiled.inputs for name in port.get_names()}
        if not actual.issuperset(self.input_names):
            raise BundleDamaged(f"{path} takes {sorted(actual)}; the manifest says {sorted(self.input_names)}")
        self._request = compiled.create_infer_request()
        self._output = compiled.output(0)

    def encode(self, tensors: Tensors) -> Vectors:
        return np.concatenate([self._run(piece) for piece in pieces(tensors, self.max_batch)])

    def _run(self, tensors: Tensors) -> Vectors:
        found = self._request.infer({name: tensors[name] for name in self.input_names}, share_inputs=True)
        vectors = np.asarray(found[self._output], dtype=np.float32)  # (batch, dimension)
        if not np.isfinite(vectors).all():
            raise InternalError("the model gave a vector that is not finite")
        return normalize(vectors)


def _compiled(path: Path, compute: Compute, group: int, threads: int) -> Any:
    options = {
        "INFERENCE_PRECISION_HINT": compute,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": group,
    }
    try:
        compiled = openvino.Core().compile_model(str(path), "CPU", options)
    except Exception as error:  # OpenVINO raises bare RuntimeErrors of many makers
        raise BundleDamaged(f"{path} cannot be loaded by OpenVINO {openvino.__version__}: {error}") from error
    taken = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if taken != compute:
        raise DeviceUnavailable(f"OpenVINO computes {path.name} in {taken} on this processor, not in {compute}")
    return compiled
