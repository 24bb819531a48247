"""How many cores this process may use: fewer than the machine has, in a container or under taskset."""

from __future__ import annotations

import os


def usable_cores() -> int:
    allowed = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(allowed(0)) if allowed else os.cpu_count() or 1
