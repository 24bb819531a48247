"""A decoder's heap: memory that was freed is kept for the next file, since asking the system for pages costs more than most copies do."""

from __future__ import annotations

import ctypes
import sys

from bindery.limits import MIB

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's numbers
_KEPT_BYTES = 64 * MIB
_LARGE_BYTES = 32 * MIB  # the most that glibc takes: what is larger goes back at once


def keep_freed_memory() -> None:
    """In this process, for good: up to 64 MiB stay. Nothing happens where the C library has no such switch.

    By itself glibc gives back the top of its heap after each picture: some 800 page faults a picture of 640 x 480.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
