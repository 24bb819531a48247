"""ONNX Runtime behind the `Encoder` seam."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime as ort

from bindery.bundle import Artefact
from bindery.decoded import Tensors
from bindery.errors import BundleDamaged, DeviceUnavailable, InternalError
from bindery.runtime.binding import Bound
from bindery.runtime.collate import pieces, snapped
from bindery.runtime.cudart import Cudart, open_cudart
from bindery.vectors import Vectors

CUDA = "CUDAExecutionProvider"
Provider = str | tuple[str, dict[str, str]]
log = logging.getLogger(__name__)


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

        self._run_options = ort.RunOptions()
        self._bound = None if device == "cpu" else Bound(self._session, device, _pinned_copies())

    def encode(self, tensors: Tensors) -> Vectors:
        return np.concatenate([self._run(piece) for piece in pieces(tensors, self.max_batch)])

    def stage(self, tensors: Tensors) -> Callable[[], Vectors]:
        """See `Staging`. On the CPU, and for a batch that is run in pieces, there is nothing to bring anywhere."""
        rows = next(iter(tensors.values())).shape[0]
        if self._bound is None or rows > self.max_batch:
            return partial(self.encode, tensors)
        run = self._bound.stage(snapped(self._given(tensors), self.max_batch))
        return lambda: _checked(run()[:rows])

    def _run(self, tensors: Tensors) -> Vectors:
        given = self._given(tensors)
        if self._bound is None:
            return _checked(self._session.run(None, given, self._run_options)[0])
        rows = next(iter(given.values())).shape[0]
        return _checked(self._bound.run(snapped(given, self.max_batch))[:rows])

    def terminate(self) -> None:
        """Ends the present run on the CPU at its next node, and every later one at once: for a graph that was given up."""
        self._run_options.terminate = True

    def _given(self, tensors: Tensors) -> Tensors:
        return {name: tensors[name] for name in self.input_names}


def _checked(vectors: Vectors) -> Vectors:
    """``(batch, dimension)``. Raises `InternalError`."""
    if not np.isfinite(vectors).all():
        raise InternalError("the model gave a vector that is not finite")
    return np.asarray(vectors, dtype=np.float32)


def _pinned_copies() -> Cudart | None:
    try:
        return open_cudart()
    except DeviceUnavailable as error:
        log.info("copies to the GPU do not go through pinned memory: %s", error)
        return None


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
