"""While modules are loaded there is nothing to clear away: a Ctrl-C then ends the process as it ends any other program, without a word."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """In Python's main thread. A `KeyboardInterrupt` in an import shows a traceback, and some libraries make another error of it."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def begin_to_work() -> None:
    """Everything is loaded that the commands share: from now on an interrupt is an exception, as Python has it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
