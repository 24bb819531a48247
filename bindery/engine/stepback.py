"""Who works for long steps back: the event loop comes first, so that a refusal or a small answer never waits for a graph.

On Linux each thread has its own niceness and its own scheduling policy, and threads that it starts inherit both: a session that is opened
by a thread which stepped back computes in threads that did too. There it also becomes batch work, which never takes a core in the moment
it wakes up. Elsewhere niceness belongs to whole processes, and only those that do nothing but work step back.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

NICENESS = 5


def step_back_thread() -> None:
    """For good: raising it again would need rights that a service should not have. Nothing happens where threads have no niceness."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, 0, min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS))
        with suppress(OSError):  # a container may forbid the call; niceness is most of it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def step_back_process() -> None:
    """Relative to whoever started it."""
    os.nice(NICENESS)
