"""ONNX Runtime behind the `Encoder` seam."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from bindery.bundle import Artefact
from bindery.decoded import Tensors
from bindery.errors import BundleDamaged, DeviceUnavailable, InternalError
from bindery.runtime.binding import Bound
from bindery.runtime.collate import pieces
from bindery.vectors import Vectors

CUDA = "CUDAExecutionProvider"
Provider = str | tuple[str, dict[str, str]]


class OnnxEncoder:
    """One ONNX graph in one session. On a GPU its inputs are bound to buffers there (`runtime/binding.py`)."""

    def __init__(
        self,
        path: Path,
        artefact: Artefact,
        *,
        dimension: int,
        device: str,
        provider: str,
        threads: int,
        optimised: bool = False,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """``optimised``: the graph was saved by ONNX Runtime itself and is to be run as it is. ``options``: of the provider."""
        self.dimension = dimension
        self.max_batch = artefact.max_batch
        self.precision: str = artefact.precision
        self.device = device
        self.provider = provider
        self.runtime = f"onnxruntime {ort.__version__}"
        self.input_names = tuple(i.name for i in artefact.inputs)
        self._session = _session(path, _providers(provider, options), threads, optimised)
        if self._session.get_providers()[0] != provider:
            # ONNX Runtime lists what it was compiled with and falls back without a word; we do not.
            raise DeviceUnavailable(f"{provider} could not be started on this machine (driver or libraries missing); see docs/deploy.md")
        actual = {i.name for i in self._session.get_inputs()}
        if actual != set(self.input_names):
            raise BundleDamaged(f"{path} takes {sorted(actual)}; the manifest says {sorted(self.input_names)}")

        self._bound = None if device == "cpu" else Bound(self._session, device)

    def encode(self, tensors: Tensors) -> Vectors:
        return np.concatenate([self._run(piece) for piece in pieces(tensors, self.max_batch)])

    def _run(self, tensors: Tensors) -> Vectors:
        given = {name: tensors[name] for name in self.input_names}
        vectors = self._session.run(None, given)[0] if self._bound is None else self._bound.run(given)
        if not np.isfinite(vectors).all():
            raise InternalError("the model gave a vector that is not finite")
        return np.asarray(vectors, dtype=np.float32)  # (batch, dimension)


def session_options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Idle threads that spin take the cores that decoding needs; measured: costs the graphs nothing.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    return options


def _session(path: Path, providers: Sequence[Provider], threads: int, optimised: bool) -> ort.InferenceSession:
    settings = session_options(threads)
    if optimised:
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(str(path), settings, providers=list(providers))
    except Exception as error:
        raise BundleDamaged(f"{path} cannot be loaded by ONNX Runtime {ort.__version__}: {error}") from error


def _providers(provider: str, options: Mapping[str, str] | None) -> list[Provider]:
    cuda: Provider = (CUDA, {"use_tf32": "0"})  # on by default, and then "exact" would have 10 bits of a product's factors
    match provider:
        case "CUDAExecutionProvider":
            return [cuda]
        case "TensorrtExecutionProvider":
            return [(provider, dict(options or {})), cuda]  # CUDA takes what TensorRT leaves
        case _:
            return [provider]
