"""A TensorRT and a CUDA that are none: engines are notes about a graph, which ONNX Runtime runs on the CPU when the stream is waited for.

As with the real ones, nothing that was put on a stream has happened before `cudaStreamSynchronize`, an engine of another version
does not open, and shapes outside of the profile are refused.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from itertools import count
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort

_TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


class FakeCuda:
    """`libcudart`, with host memory for the device's."""

    def __init__(self) -> None:
        self.streams: dict[int, list[Callable[[], Any]]] = {}
        self._handles = count(1)
        self.memory: dict[int, Any] = {}
        self.calls: list[str] = []
        self.fails: str | None = None
        self.cudaGetErrorString = _ErrorString()

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cuda"):
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            self.calls.append(name)
            if name == self.fails:
                return 2
            getattr(self, "_" + name[4:])(*arguments)
            return 0

        return call

    def _StreamCreate(self, handle: Any) -> None:  # noqa: N802
        handle._obj.value = next(self._handles)
        self.streams[handle._obj.value] = []

    def _Malloc(self, address: Any, size: Any) -> None:  # noqa: N802
        block = ctypes.create_string_buffer(size.value)
        address._obj.value = ctypes.addressof(block)
        self.memory[ctypes.addressof(block)] = block

    def _HostAlloc(self, address: Any, size: Any, _: Any) -> None:  # noqa: N802
        self._Malloc(address, size)

    def _MemcpyAsync(self, to: Any, source: Any, size: Any, _: Any, stream: Any) -> None:  # noqa: N802
        self.streams[stream.value].append(lambda: ctypes.memmove(to.value, source.value, size.value))

    def _StreamSynchronize(self, stream: Any) -> None:  # noqa: N802
        waiting, self.streams[stream.value] = self.streams[stream.value], []
        for one in waiting:
            one()

    def _Free(self, address: Any) -> None:  # noqa: N802
        del self.memory[address.value]

    _FreeHost = _Free

    def _StreamDestroy(self, stream: Any) -> None:  # noqa: N802
        assert self.streams.pop(stream.value) == []


class _ErrorString:
    restype: Any = None

    def __call__(self, code: int) -> bytes:
        return f"error {code}".encode()


class FakeTensorRt(ModuleType):
    """The package `tensorrt`, as much of it as is used."""

    def __init__(self, cuda: FakeCuda, version: str = "10.16.1") -> None:
        super().__init__("tensorrt")
        self.__spec__ = ModuleSpec("tensorrt", None)
        self.__version__ = version
        self.cuda = cuda
        self.built: list[dict[str, Any]] = []
        self.wrong = 0
        """By how many places the results are turned: an engine that computes something else."""
        self.mates = 0.0
        """How far the results move with the size of the batch."""
        self.Logger = _Logger
        self.BuilderFlag = SimpleNamespace(TF32="TF32")
        self.TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1) if version.startswith("10") else SimpleNamespace()
        self.Builder = lambda _: _Builder(self)
        self.OnnxParser = lambda network, _: _Parser(network)
        self.Runtime = lambda _: SimpleNamespace(deserialize_cuda_engine=self._engine)

    def _engine(self, plan: bytes) -> Any:
        try:
            note = json.loads(plan)
        except ValueError:
            return None
        return _Engine(self, note) if note["version"] == self.__version__ else None


class _Logger:
    ERROR = 1

    def __init__(self, severity: int) -> None:
        assert severity == self.ERROR


class _Builder:
    def __init__(self, module: FakeTensorRt) -> None:
        self._module = module

    def create_network(self, flags: int) -> SimpleNamespace:
        return SimpleNamespace(flags=flags, graph=None)

    def create_builder_config(self) -> _Config:
        return _Config()

    def create_optimization_profile(self) -> _Shapes:
        return _Shapes()

    def build_serialized_network(self, network: Any, config: _Config) -> bytes:
        note = {
            "version": self._module.__version__,
            "graph": network.graph,
            "flags": network.flags,
            "cleared": config.cleared,
            "profiles": config.profiles,
            "times_before": config.times.decode(),
        }
        self._module.built.append(note)
        return json.dumps(note).encode()


class _Shapes(dict[str, Any]):
    def set_shape(self, name: str, least: Any, best: Any, largest: Any) -> None:
        self[name] = [list(least), list(best), list(largest)]


class _Config:
    def __init__(self) -> None:
        self.profiles: list[dict[str, Any]] = []
        self.cleared: list[str] = []
        self.times = b""

    def clear_flag(self, flag: str) -> None:
        self.cleared.append(flag)

    def add_optimization_profile(self, shapes: _Shapes) -> None:
        self.profiles.append(dict(shapes))

    def create_timing_cache(self, content: bytes) -> bytes:
        return content

    def set_timing_cache(self, times: bytes, ignore_mismatch: bool) -> None:
        assert not ignore_mismatch
        self.times = times

    def get_timing_cache(self) -> SimpleNamespace:
        return SimpleNamespace(serialize=lambda: self.times + b"t")


class _Parser:
    num_errors = 1

    def __init__(self, network: Any) -> None:
        self._network = network

    def parse_from_file(self, path: str) -> bool:
        self._network.graph = path
        return b"not a graph" not in Path(path).read_bytes()

    def get_error(self, index: int) -> str:
        return f"error {index} of the parser"


class _Engine:
    def __init__(self, module: FakeTensorRt, note: dict[str, Any]) -> None:
        self.module = module
        self.note = note
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(note["graph"], options, providers=["CPUExecutionProvider"])
        self._inputs = [one.name for one in self.session.get_inputs()]
        self.output = self.session.get_outputs()[0].name
        self.num_io_tensors = len(self._inputs) + 1

    def get_tensor_name(self, index: int) -> str:
        return [*self._inputs, self.output][index]

    def get_tensor_mode(self, name: str) -> str:
        return "out" if name == self.output else "in"

    def create_execution_context(self) -> _Context:
        return _Context(self)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._addresses: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._profile: dict[str, Any] = {}

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        assert stream in self._engine.module.cuda.streams
        self._profile = self._engine.note["profiles"][index]
        return True

    def set_tensor_address(self, name: str, address: int) -> None:
        assert address in self._engine.module.cuda.memory
        self._addresses[name] = address

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = shape
        least, _, largest = self._profile[name]
        return all(low <= side <= high for low, side, high in zip(least, shape, largest, strict=True))

    def execute_async_v3(self, stream: int) -> bool:
        shapes = dict(self._shapes)
        self._engine.module.cuda.streams[stream].append(lambda: self._run(shapes))
        return True

    def _run(self, shapes: dict[str, tuple[int, ...]]) -> None:
        engine, feed = self._engine, {}
        for one in engine.session.get_inputs():
            dtype, shape = np.dtype(_TYPES[one.type]), shapes[one.name]
            raw = ctypes.string_at(self._addresses[one.name], int(np.prod(shape)) * dtype.itemsize)
            feed[one.name] = np.frombuffer(raw, dtype=dtype).reshape(shape)
        (vectors,) = engine.session.run(None, feed)
        vectors = np.roll(vectors, engine.module.wrong, axis=1) + np.float32(engine.module.mates * (len(vectors) - 1))
        ctypes.memmove(self._addresses[engine.output], vectors.tobytes(), vectors.nbytes)
