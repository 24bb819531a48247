"""What is said over the socket between the pool and one decoder process.

Tasks go in as pickles: the pool is trusted. Answers come out as JSON and raw arrays, never as pickles: a decoder has
touched a stranger's file, and reading what it says must not be able to run anything, allocate anything or wait forever.
The arrays go from the decoder's memory through the socket straight into the pool's, without a copy in between.
"""

from __future__ import annotations

import json
import math
import pickle
import socket
import struct
import time
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bindery.decoded import Cuts, Extent, Prepared, Tensors
from bindery.errors import BinderyError, InternalError, error_table

_LENGTH = struct.Struct("!Q")
_HEADER_BYTES = 1 << 20
_MAX_ARRAYS, _MAX_AXES = 16, 8
_DTYPES = frozenset({"<f4", "<f2", "|u1", "<i4", "<i8"})
_ERRORS = {cls.__name__: cls for cls in error_table()}

Answer: TypeAlias = Prepared | Extent | Cuts | BinderyError


class WireError(Exception):
    """The other side is gone, or said what no decoder says."""


class Wire:
    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def close(self) -> None:
        self._socket.close()

    # the pool's side; raises `WireError`, and `TimeoutError` at ``until`` on `time.monotonic`'s clock

    def send_task(self, task: object, until: float) -> None:
        body = pickle.dumps(task, protocol=pickle.HIGHEST_PROTOCOL)
        self._patience(until)
        try:
            self._socket.sendall(_LENGTH.pack(len(body)))
            self._socket.sendall(body)
        except TimeoutError:
            raise
        except OSError as error:
            raise WireError(f"the decoder is gone ({error})") from error

    def read_answer(self, until: float, most_bytes: int) -> Answer:
        """``most_bytes``: a decoder that claims more than this for its arrays is not believed."""
        header = self._header(until)
        try:
            if "error" in header:
                name, detail, pointer, retry_after_ms = header["error"]
                return _ERRORS.get(name, InternalError)(str(detail), pointer=pointer, retry_after_ms=retry_after_ms)
            if "extent" in header:
                file_s, stream_s = header["extent"]
                return Extent(float(file_s), float(stream_s))
            if "cuts" in header:
                return Cuts(tuple(float(time_s) for time_s in header["cuts"]), float(header["until"]))
            tensors = _allocate(header["tensors"], most_bytes)
            usage = {str(name): float(count) for name, count in header["usage"].items()}
            truncated = bool(header["truncated"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WireError(f"the decoder's answer makes no sense ({error})") from error
        for array in tensors.values():
            self._read_into(_bytes_of(array), until)
        return Prepared(tensors, usage, truncated)

    def read_hello(self, until: float) -> list[str]:
        """Which walls of its sandbox the decoder could not build."""
        missing = self._header(until).get("missing")
        if not isinstance(missing, list):
            raise WireError("the decoder did not greet")
        return [str(wall) for wall in missing]

    # the decoder's side: it waits as long as it takes

    def read_task(self) -> Any:
        """Raises `WireError` when the pool has gone."""
        body = bytearray(_LENGTH.unpack(self._read(_LENGTH.size))[0])
        self._read_into(memoryview(body))
        return pickle.loads(body)

    def send_hello(self, missing: list[str]) -> None:
        self._send_header({"missing": missing})

    def send_answer(self, answer: Answer) -> None:
        if isinstance(answer, BinderyError):
            self._send_header({"error": [type(answer).__name__, answer.detail[:4096], answer.pointer, answer.retry_after_ms]})
            return
        if isinstance(answer, Extent):
            self._send_header({"extent": [answer.file_s, answer.stream_s]})
            return
        if isinstance(answer, Cuts):
            self._send_header({"cuts": answer.times_s, "until": answer.until_s})
            return
        arrays = {name: np.ascontiguousarray(array) for name, array in answer.tensors.items()}
        described = [[name, array.dtype.str, array.shape] for name, array in arrays.items()]
        self._send_header({"tensors": described, "usage": answer.usage, "truncated": answer.truncated})
        for array in arrays.values():
            self._socket.sendall(_bytes_of(array))

    def _send_header(self, header: dict[str, Any]) -> None:
        body = json.dumps(header).encode()
        self._socket.sendall(_LENGTH.pack(len(body)) + body)

    def _header(self, until: float) -> dict[str, Any]:
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size, until))
        if length > _HEADER_BYTES:
            raise WireError(f"the decoder announces {length} bytes of header")
        try:
            header = json.loads(self._read(length, until))
        except (ValueError, RecursionError) as error:
            raise WireError("the decoder's answer is no JSON") from error
        if not isinstance(header, dict):
            raise WireError("the decoder's answer is no JSON object")
        return header

    def _read(self, count: int, until: float | None = None) -> bytearray:
        body = bytearray(count)
        self._read_into(memoryview(body), until)
        return body

    def _read_into(self, view: memoryview, until: float | None = None) -> None:
        while len(view):
            self._patience(until)
            try:
                count = self._socket.recv_into(view)
            except TimeoutError:
                raise
            except OSError as error:
                raise WireError(f"the other side is gone ({error})") from error
            if count == 0:
                raise WireError("the other side closed the connection")
            view = view[count:]

    def _patience(self, until: float | None) -> None:
        if until is None:
            self._socket.settimeout(None)
            return
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data  # a view: the array is contiguous


def _allocate(described: Any, most_bytes: int) -> Tensors:
    """Empty arrays as described. Raises `ValueError` or `TypeError` for what no tensor looks like."""
    arrays: Tensors = {}
    total = 0
    for name, dtype, shape in described:
        sides = [int(side) for side in shape]
        if dtype not in _DTYPES or min(sides, default=0) < 0 or len(sides) > _MAX_AXES or len(arrays) == _MAX_ARRAYS:
            raise ValueError(f"an array {dtype} of {shape}")
        total += math.prod(sides) * np.dtype(dtype).itemsize
        if total > most_bytes:
            raise ValueError(f"arrays of more than {most_bytes} bytes")
        arrays[str(name)] = np.empty(sides, dtype=dtype)
    return arrays
