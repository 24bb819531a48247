"""TensorRT without ONNX Runtime: one engine with a profile for each bucket, two streams, pinned buffers; behind the `Encoder` seam.

The package `tensorrt` is imported when an engine is opened and not before; versions 10 and 11 are meant.
"""

from __future__ import annotations

import ctypes
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bindery.bundle import Artefact
from bindery.decoded import Tensors
from bindery.errors import DeviceUnavailable, InternalError
from bindery.runtime.collate import pieces
from bindery.runtime.cudart import Cudart, open_cudart
from bindery.runtime.encoder import Encoder
from bindery.runtime.machine_cache import MachineCache
from bindery.runtime.profiles import Profile, Shape, buckets
from bindery.runtime.tensorrt import Order, ready, timing_folder
from bindery.vectors import Vectors

PLAN = "engine.plan"
TIMINGS = "timings.cache"
_SLOTS = 2
"""Batches in flight: while one is computed the next one is copied."""
log = logging.getLogger(__name__)


def through_engine(order: Order) -> Encoder:
    """The entry's engine, built and proved first if need be. Raises `DeviceUnavailable`."""
    try:
        import tensorrt
    except Exception as error:  # the package's own loader raises several kinds when a library of it is missing
        raise DeviceUnavailable(f"the package tensorrt cannot be imported: {error}") from error
    if order.artefact.precision != "exact" and order.is_float32():
        raise DeviceUnavailable(
            f"an engine computes in its graph's own types, and this graph is float32: {order.artefact.precision} needs a graph of that type"
        )
    profiles = buckets(order.artefact, order.bundle.modality(order.modality).spec)
    facts = order.facts("engine", tensorrt.__version__, profiles)
    cuda = open_cudart()

    def opened(place: Path) -> EngineEncoder:
        return EngineEncoder(
            (place / PLAN).read_bytes(), order.artefact, profiles, dimension=order.bundle.manifest.dimension, tensorrt=tensorrt, cuda=cuda
        )

    def build(place: Path) -> None:
        timings = timing_folder(order, tensorrt.__version__) / TIMINGS
        plan = build_engine(tensorrt, order.bundle.path(order.artefact.path), profiles, timings)
        (place / PLAN).write_bytes(plan)
        order.proved(opened(place))

    return ready(MachineCache(order.cache_dir, "tensorrt"), facts, build, opened, order.modality)


def build_engine(tensorrt: Any, graph: Path, profiles: Sequence[Profile], timings: Path) -> bytes:
    """The serialized engine. Raises `DeviceUnavailable` with the parser's words."""
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    # TensorRT 11 knows no other networks and no flag; 10 has to be told that types are those of the graph.
    flag = getattr(tensorrt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):  # by its path, so that the weights beside it are found
        said = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise DeviceUnavailable(f"TensorRT {tensorrt.__version__} cannot read {graph}: {said}")
    config = builder.create_builder_config()
    config.clear_flag(tensorrt.BuilderFlag.TF32)  # on by default, and then "exact" would have 10 bits of a product's factors
    for profile in profiles:
        shapes = builder.create_optimization_profile()
        for name in profile.best:
            shapes.set_shape(name, profile.least[name], profile.best[name], profile.largest[name])
        config.add_optimization_profile(shapes)
    times = config.create_timing_cache(timings.read_bytes() if timings.is_file() else b"")
    config.set_timing_cache(times, False)  # False: one of another machine is refused
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise DeviceUnavailable(f"TensorRT {tensorrt.__version__} built no engine of {graph}; its log says why")
    _replace(timings, bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def _replace(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(content)
    beside.replace(path)


class EngineEncoder:
    """One engine on the first GPU. Raises `DeviceUnavailable` when it is of another TensorRT or GPU."""

    device = "cuda"

    def __init__(
        self, plan: bytes, artefact: Artefact, profiles: Sequence[Profile], *, dimension: int, tensorrt: Any, cuda: Cudart
    ) -> None:
        self.dimension = dimension
        self.max_batch = artefact.max_batch
        self.precision: str = artefact.precision
        self.runtime = f"tensorrt {tensorrt.__version__}"
        self.provider = "TensorRT engine"
        self.input_names = tuple(one.name for one in artefact.inputs)
        self._profiles = profiles
        self._runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))  # must live as long as its engine
        engine = self._engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise DeviceUnavailable(f"the engine is not one of TensorRT {tensorrt.__version__} on this GPU")
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        outputs = [name for name in names if engine.get_tensor_mode(name) == tensorrt.TensorIOMode.OUTPUT]
        if len(outputs) != 1 or set(names) - set(outputs) != set(self.input_names):
            raise DeviceUnavailable(f"the engine has tensors {sorted(names)}; the manifest says {sorted(self.input_names)} and one result")
        sizes = {
            one.name: max(math.prod(profile.largest[one.name]) for profile in profiles) * np.dtype(one.dtype).itemsize
            for one in artefact.inputs
        }
        self._dtypes = {one.name: np.dtype(one.dtype) for one in artefact.inputs}
        self._slots = [_Slot(engine, len(profiles), sizes, outputs[0], self.max_batch * dimension * 4, cuda) for _ in range(_SLOTS)]

    def encode(self, tensors: Tensors) -> Vectors:
        return np.concatenate(list(self._in_flight(tensors)))

    def _in_flight(self, tensors: Tensors) -> Iterator[Vectors]:
        waiting: list[_Slot] = []
        for index, piece in enumerate(pieces(tensors, self.max_batch)):
            slot = self._slots[index % _SLOTS]
            if slot in waiting:
                waiting.remove(slot)
                yield self._finite(slot.result())
            arrays = {name: np.ascontiguousarray(piece[name], dtype=self._dtypes[name]) for name in self.input_names}
            slot.start(self._profile({name: array.shape for name, array in arrays.items()}), arrays, self.dimension)
            waiting.append(slot)
        for slot in waiting:
            yield self._finite(slot.result())

    def _profile(self, shapes: dict[str, Shape]) -> int:
        for index, profile in enumerate(self._profiles):
            if profile.holds(shapes):
                return index
        raise InternalError(f"the engine was built for no such shapes: {shapes}")

    def _finite(self, vectors: Vectors) -> Vectors:
        if not np.isfinite(vectors).all():
            raise InternalError("the model gave a vector that is not finite")
        return vectors


class _Slot:
    """One stream with its buffers and a context a profile: what one batch in flight needs."""

    def __init__(self, engine: Any, profiles: int, sizes: dict[str, int], output: str, output_bytes: int, cuda: Cudart) -> None:
        self._cuda = cuda
        self._output = output
        self._stream = cuda.stream()
        self._pinned = {name: cuda.pinned_memory(size) for name, size in (*sizes.items(), (output, output_bytes))}
        self._device = {name: cuda.device_memory(size) for name, size in (*sizes.items(), (output, output_bytes))}
        self._contexts = []
        for index in range(profiles):
            context = engine.create_execution_context()
            if not context.set_optimization_profile_async(index, self._stream):
                raise DeviceUnavailable(f"the engine has no profile {index}")
            for name, address in self._device.items():
                context.set_tensor_address(name, address)
            self._contexts.append(context)
        cuda.wait(self._stream)
        self._shape: Shape = ()

    def start(self, profile: int, arrays: Tensors, dimension: int) -> None:
        context = self._contexts[profile]
        for name, array in arrays.items():
            ctypes.memmove(self._pinned[name], array.ctypes.data, array.nbytes)
            self._cuda.copy_in(self._device[name], self._pinned[name], array.nbytes, self._stream)
            if not context.set_input_shape(name, array.shape):
                raise InternalError(f"the engine does not take {name} of shape {array.shape}")
        self._shape = (next(iter(arrays.values())).shape[0], dimension)
        if not context.execute_async_v3(self._stream):
            raise InternalError("TensorRT could not run the engine")
        self._cuda.copy_out(self._pinned[self._output], self._device[self._output], math.prod(self._shape) * 4, self._stream)

    def result(self) -> Vectors:
        """``(batch, dimension)`` float32, of its own memory. Waits for the stream."""
        self._cuda.wait(self._stream)
        raw = ctypes.string_at(self._pinned[self._output], math.prod(self._shape) * 4)
        return np.frombuffer(raw, dtype=np.float32).reshape(self._shape).copy()

    def __del__(self) -> None:
        if not hasattr(self, "_contexts"):
            return
        self._contexts.clear()
        self._cuda.free_stream(self._stream)
        for address in self._pinned.values():
            self._cuda.free_pinned(address)
        for address in self._device.values():
            self._cuda.free_device(address)
