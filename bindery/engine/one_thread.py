"""Imported first in the process that decoders are forked from: numpy's matrix library gets one thread there, and one in each of them.

It counts the processors that it may use when it is loaded, so for that moment there is only one. Decoders are many already;
with threads of their own they would fight over the cores with each other and with the runtime, and waste most of them.
"""

from __future__ import annotations

import os
import sys

if sys.platform == "linux":
    _cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(_cores)})
    import numpy  # noqa: F401 - loaded for its matrix library

    os.sched_setaffinity(0, _cores)
