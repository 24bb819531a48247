"""Who works for long steps back: the event loop comes first, so that a refusal or a small answer never waits for a graph.

On Linux each thread has its own niceness, and threads that it starts inherit it: a session that is opened by a thread which stepped back
computes in threads that did too. Elsewhere niceness belongs to whole processes, and only those that do nothing but work step back.
"""

from __future__ import annotations

import os
import sys

NICENESS = 5


def step_back_thread() -> None:
    """For good: raising it again would need rights that a service should not have. Nothing happens where threads have no niceness."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, 0, min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS))


def step_back_process() -> None:
    """Relative to whoever started it."""
    os.nice(NICENESS)
