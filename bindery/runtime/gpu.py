"""The GPU that would compute, its driver, and NVIDIA's libraries. Asked by ctypes, so that no package is needed."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

DRIVER = Path("/sys/module/nvidia/version")
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_...


@dataclass(frozen=True, slots=True)
class Gpu:
    name: str
    compute_capability: str
    """As NVIDIA writes it: `9.0`."""
    driver: str


@cache
def gpu() -> Gpu | None:
    """The first GPU that this process may use; None without one, or without its driver."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    return read_gpu(cuda, DRIVER)


def read_gpu(cuda: Any, driver: Path) -> Gpu | None:
    """``cuda``: the driver's library; ``driver``: the kernel module's version, where it can be read."""
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGet(ctypes.byref(device), 0) != 0:
        return None
    if cuda.cuDeviceGetName(name, len(name), device) != 0:
        return None
    numbers = []
    for attribute in (_MAJOR, _MINOR):
        number = ctypes.c_int()
        if cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device) != 0:
            return None
        numbers.append(number.value)
    try:
        version = driver.read_text(encoding="utf-8").strip()
    except OSError:
        supports = ctypes.c_int()
        cuda.cuDriverGetVersion(ctypes.byref(supports))
        version = f"for CUDA {supports.value}"
    return Gpu(name.value.decode(), f"{numbers[0]}.{numbers[1]}", version)


def library(*names: str, package: str) -> Any | None:
    """The first of the shared libraries ``names`` that loads: by the loader's own path, or below the installed ``package``.

    Loaded for all: who asks for the same name later, as ONNX Runtime's providers do, gets this one.
    """
    for candidate in _places(names, package):
        try:
            return ctypes.CDLL(candidate, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
    return None


def _places(names: tuple[str, ...], package: str) -> Iterator[str]:
    yield from names
    spec = importlib.util.find_spec(package)
    for root in (spec.submodule_search_locations or []) if spec is not None else []:
        for name in names:
            yield from map(str, sorted(Path(root).rglob(name)))
