"""ONNX Runtime behind the `Encoder` seam."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort

from bindery.bundle import Artefact
from bindery.decoded import Tensors
from bindery.errors import BundleDamaged, DeviceUnavailable, InternalError
from bindery.runtime.collate import pieces
from bindery.vectors import Vectors


class OnnxEncoder:
    """One ONNX graph in one session. Thread-safe as ONNX Runtime's ``run`` is."""

    def __init__(
        self, path: Path, artefact: Artefact, *, dimension: int, device: str, provider: str, threads: int, optimised: bool = False
    ) -> None:
        """``optimised``: the graph was saved by ONNX Runtime itself and is to be run as it is."""
        self.dimension = dimension
        self.max_batch = artefact.max_batch
        self.precision: str = artefact.precision
        self.device = device
        self.provider = provider
        self.runtime = f"onnxruntime {ort.__version__}"
        self.input_names = tuple(i.name for i in artefact.inputs)
        self._session = _session(path, provider, threads, optimised)
        if self._session.get_providers()[0] != provider:
            # ONNX Runtime lists what it was compiled with and falls back without a word; we do not.
            raise DeviceUnavailable(f"{provider} could not be started on this machine (driver or libraries missing); see docs/deploy.md")
        actual = {i.name for i in self._session.get_inputs()}
        if actual != set(self.input_names):
            raise BundleDamaged(f"{path} takes {sorted(actual)}; the manifest says {sorted(self.input_names)}")

    def encode(self, tensors: Tensors) -> Vectors:
        return np.concatenate([self._run(piece) for piece in pieces(tensors, self.max_batch)])

    def _run(self, tensors: Tensors) -> Vectors:
        (vectors,) = self._session.run(None, {name: tensors[name] for name in self.input_names})
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


def _session(path: Path, provider: str, threads: int, optimised: bool) -> ort.InferenceSession:
    options = session_options(threads)
    if optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:
        raise BundleDamaged(f"{path} cannot be loaded by ONNX Runtime {ort.__version__}: {error}") from error
