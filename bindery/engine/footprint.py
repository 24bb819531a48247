"""What another process uses, as the kernel counts it: its own word would not be worth much. 0 where that is not to be had."""

from __future__ import annotations

import os
import resource
from contextlib import suppress


def resident_bytes(pid: int) -> int:
    """Memory in use."""
    with suppress(OSError), open(f"/proc/{pid}/statm") as stream:
        return int(stream.read().split()[1]) * resource.getpagesize()
    return 0


def cpu_seconds(pid: int) -> float:
    """Processor time since its start, in user and in kernel mode."""
    with suppress(OSError), open(f"/proc/{pid}/stat") as stream:
        fields = stream.read().rpartition(")")[2].split()  # the name before it may hold anything
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0
