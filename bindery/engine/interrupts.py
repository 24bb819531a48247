"""Ctrl-C goes to every process of a terminal's group; those that another one ends in their order shall never hear it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def interrupts_held() -> Iterator[None]:
    """A process started inside has SIGINT blocked for good, and so have its own. One that comes meanwhile is delivered after."""
    resource_tracker.ensure_running()  # whatever starts it unblocks SIGINT in the end
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
