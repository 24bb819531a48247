"""A session whose inputs lie in the device's own memory: buffers are made once for each shape and filled again for each batch.

Without it ONNX Runtime allocates on the device, copies and frees for every run. The vectors are the same.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from bindery.decoded import Tensors
from bindery.vectors import Vectors

MOST_SHAPES = 16
"""Of each input, whose buffers are kept; the one that was not used for longest goes first. Texts have many lengths, media few batches."""

_Key = tuple[str, tuple[int, ...], str]


class Bound:
    """Runs ``session`` on ``device`` ("cuda", "cpu"). One call at a time: the buffers are shared by all calls."""

    def __init__(self, session: ort.InferenceSession, device: str) -> None:
        self._session = session
        self._device = device
        self._output = session.get_outputs()[0].name
        self._buffers: OrderedDict[_Key, ort.OrtValue] = OrderedDict()

    def __len__(self) -> int:
        """How many buffers are kept."""
        return len(self._buffers)

    def run(self, tensors: Tensors) -> Vectors:
        """``(batch, d)``. Returns when the device is done: the copy of the output waits for it."""
        binding = self._session.io_binding()
        for name, array in tensors.items():
            binding.bind_ortvalue_input(name, self._filled(name, array))
        binding.bind_output(self._output, self._device)
        self._session.run_with_iobinding(binding)
        vectors: Vectors = binding.copy_outputs_to_cpu()[0]
        return vectors

    def _filled(self, name: str, array: NDArray[np.generic]) -> ort.OrtValue:
        key = (name, array.shape, array.dtype.str)
        held = self._buffers.get(key)
        if held is None:
            held = ort.OrtValue.ortvalue_from_shape_and_type(list(array.shape), array.dtype.type, self._device)
            self._buffers[key] = held
            mine = [one for one in self._buffers if one[0] == name]
            if len(mine) > MOST_SHAPES:
                del self._buffers[mine[0]]
        self._buffers.move_to_end(key)
        held.update_inplace(array)
        return held
