"""The few calls of the CUDA runtime that an engine needs: streams, device memory, pinned host memory, copies. By ctypes."""

from __future__ import annotations

import ctypes
from typing import Any

from bindery.errors import DeviceUnavailable, InternalError
from bindery.runtime.gpu import library

_IN, _OUT = 1, 2  # cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost


class Cudart:
    """Addresses are plain integers. A call that fails raises `InternalError` with CUDA's own words."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        runtime.cudaGetErrorString.restype = ctypes.c_char_p

    def stream(self) -> int:
        handle = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(handle))
        return handle.value or 0

    def device_memory(self, size: int) -> int:
        address = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(address), ctypes.c_size_t(size))
        return address.value or 0

    def pinned_memory(self, size: int) -> int:
        """Host memory that the GPU copies from and to while the processor does something else."""
        address = ctypes.c_void_p()
        self._call("cudaHostAlloc", ctypes.byref(address), ctypes.c_size_t(size), ctypes.c_uint(0))
        return address.value or 0

    def copy_in(self, device: int, host: int, size: int, stream: int) -> None:
        self._copy(device, host, size, _IN, stream)

    def copy_out(self, host: int, device: int, size: int, stream: int) -> None:
        self._copy(host, device, size, _OUT, stream)

    def wait(self, stream: int) -> None:
        self._call("cudaStreamSynchronize", ctypes.c_void_p(stream))

    def free_stream(self, stream: int) -> None:
        self._call("cudaStreamDestroy", ctypes.c_void_p(stream))

    def free_device(self, address: int) -> None:
        self._call("cudaFree", ctypes.c_void_p(address))

    def free_pinned(self, address: int) -> None:
        self._call("cudaFreeHost", ctypes.c_void_p(address))

    def _copy(self, to: int, source: int, size: int, kind: int, stream: int) -> None:
        self._call(
            "cudaMemcpyAsync",
            ctypes.c_void_p(to),
            ctypes.c_void_p(source),
            ctypes.c_size_t(size),
            ctypes.c_int(kind),
            ctypes.c_void_p(stream),
        )

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._runtime, name)(*arguments)
        if code != 0:
            raise InternalError(f"{name} failed: {self._runtime.cudaGetErrorString(code).decode()}")


def open_cudart() -> Cudart:
    """Raises `DeviceUnavailable`."""
    found = library("libcudart.so.13", "libcudart.so.12", package="nvidia")
    if found is None:
        raise DeviceUnavailable("the CUDA runtime (libcudart.so.13 or .12) is not installed; it comes with onnxruntime-gpu[cuda,cudnn]")
    return Cudart(found)
