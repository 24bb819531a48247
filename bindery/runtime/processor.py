"""What this machine's processor is and can do. Linux tells; elsewhere nothing is claimed."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


@cache
def instructions() -> frozenset[str]:
    """Names of instruction sets as Linux spells them (`avx512_bf16`); empty where they cannot be read."""
    line = _line("flags") or _line("Features") or ""
    return frozenset(line.split())


@cache
def processor_name() -> str:
    return _line("model name") or platform.processor() or platform.machine()


def computes_bf16() -> bool:
    """Whether bfloat16 products are an instruction here, not something to be imitated."""
    return not instructions().isdisjoint({"avx512_bf16", "amx_bf16"})


def _line(field: str) -> str | None:
    if not _CPUINFO.is_file():
        return None
    for line in _CPUINFO.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return None
