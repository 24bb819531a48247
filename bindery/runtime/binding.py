"""A session whose inputs lie in the device's own memory: buffers are made once for each shape and filled again for each batch.

Without it ONNX Runtime allocates on the device, copies and frees for every run. There are two sets of buffers: while a batch is
computed from one, the next is brought into the other, through pinned host memory where CUDA's runtime is there. The vectors are the same.
"""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from collections.abc import Mapping
from queue import LifoQueue

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from bindery.decoded import Tensors
from bindery.runtime.cudart import Cudart
from bindery.vectors import Vectors

MOST_SHAPES = 16
"""Of each input, whose buffers are kept; the one that was not used for longest goes first. Texts have many lengths, media few batches."""
_SIDES = 2  # one batch is computed, one is brought

_Key = tuple[str, tuple[int, ...], str]


class Bound:
    """Runs ``session`` on ``device`` ("cuda", "cpu"). ``cuda``: for copies through pinned memory; None: by ONNX Runtime's own.

    One run at a time, and one more batch may be staged meanwhile from another thread; who stages a third one waits.
    """

    def __init__(self, session: ort.InferenceSession, device: str, cuda: Cudart | None = None) -> None:
        self._session = session
        self._device = device
        self._output = session.get_outputs()[0].name
        self._sides = [_Side(device, cuda) for _ in range(_SIDES)]
        self._free: LifoQueue[_Side] = LifoQueue()  # the last used first: without staging, one set of buffers is enough
        for side in self._sides:
            self._free.put(side)

    def __len__(self) -> int:
        """How many buffers are kept."""
        return sum(len(side) for side in self._sides)

    def run(self, tensors: Tensors) -> Vectors:
        """``(batch, d)``. Returns when the device is done: the copy of the output waits for it."""
        return self.stage(tensors)()

    def stage(self, tensors: Tensors) -> Staged:
        """Bring the batch to the device; calling what is returned runs it."""
        side = self._free.get()
        try:
            return Staged(self, side, side.filled(tensors))
        except BaseException:
            self._free.put(side)
            raise

    def compute(self, inputs: Mapping[str, ort.OrtValue]) -> Vectors:
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_output(self._output, self._device)
        self._session.run_with_iobinding(binding)
        vectors: Vectors = binding.copy_outputs_to_cpu()[0]
        return vectors

    def give_back(self, side: _Side) -> None:
        self._free.put(side)


class Staged:
    """A batch on the device. Run once, or dropped, it gives its buffers back."""

    def __init__(self, bound: Bound, side: _Side, inputs: Mapping[str, ort.OrtValue]) -> None:
        self._bound = bound
        self._inputs = inputs
        self._side: _Side | None = side

    def __call__(self) -> Vectors:
        try:
            return self._bound.compute(self._inputs)
        finally:
            self._end()

    def __del__(self) -> None:
        self._end()

    def _end(self) -> None:
        side, self._side = self._side, None
        if side is not None:
            self._bound.give_back(side)


class _Side:
    """One set of buffers, and the stream that its copies go through. Used by one thread at a time."""

    def __init__(self, device: str, cuda: Cudart | None) -> None:
        self._device = device
        self._cuda = cuda
        self._stream = 0 if cuda is None else cuda.stream()
        self._buffers: OrderedDict[_Key, _Buffer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buffers)

    def filled(self, tensors: Tensors) -> dict[str, ort.OrtValue]:
        buffers = {name: self._filled(name, array) for name, array in tensors.items()}
        if self._cuda is not None:
            self._cuda.wait(self._stream)  # the run has a stream of its own
        return {name: buffer.value for name, buffer in buffers.items()}

    def _filled(self, name: str, array: NDArray[np.generic]) -> _Buffer:
        key = (name, array.shape, array.dtype.str)
        held = self._buffers.get(key)
        if held is None:
            held = self._buffers[key] = _Buffer(array, self._device, self._cuda)
            mine = [one for one in self._buffers if one[0] == name]
            if len(mine) > MOST_SHAPES:
                del self._buffers[mine[0]]
        self._buffers.move_to_end(key)
        held.fill(array, self._stream)
        return held

    def __del__(self) -> None:
        if self._cuda is not None and self._stream:
            self._cuda.free_stream(self._stream)


class _Buffer:
    """Device memory for one array, and pinned host memory of the same size before it."""

    def __init__(self, like: NDArray[np.generic], device: str, cuda: Cudart | None) -> None:
        self.value = ort.OrtValue.ortvalue_from_shape_and_type(list(like.shape), like.dtype.type, device)
        self._cuda = cuda
        self._pinned = 0
        if cuda is not None:
            self._pinned = cuda.pinned_memory(max(like.nbytes, 1))
            raw = (ctypes.c_uint8 * like.nbytes).from_address(self._pinned)
            self._host = np.ctypeslib.as_array(raw).view(like.dtype).reshape(like.shape)

    def fill(self, array: NDArray[np.generic], stream: int) -> None:
        if self._cuda is None:
            self.value.update_inplace(array)
            return
        np.copyto(self._host, array)
        self._cuda.copy_in(self.value.data_ptr(), self._pinned, array.nbytes, stream)

    def __del__(self) -> None:
        if self._cuda is not None and self._pinned:
            self._cuda.free_pinned(self._pinned)
