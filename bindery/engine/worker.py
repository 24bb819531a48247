"""What runs inside a decoder process: read a task, decode and prepare it, answer. Nothing else of the house runs here.

A file is a stranger: the process may crash, hang or eat memory on it, so it is limited, disposable and has no model in it.
"""

from __future__ import annotations

import resource
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection

from bindery.decoded import Prepared
from bindery.errors import BinderyError, DecoderKilled, UnreadableMedia
from bindery.kinds import KINDS
from bindery.limits import Limits
from bindery.media.source import Source
from bindery.spec import Options, Spec

HELLO = "ready"
"""The first thing a worker says, when its codecs are loaded."""


@dataclass(frozen=True, slots=True)
class Task:
    source: Source
    spec: Spec
    options: Options


def serve(connection: Connection, limits: Limits) -> None:
    """Say hello, then answer tasks from ``connection`` until it closes. Each answer is a `Prepared` or a `BinderyError`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides when we end
    _limit_memory(limits.decode_memory_bytes)
    connection.send(HELLO)
    while True:
        try:
            task: Task = connection.recv()
        except (EOFError, OSError):  # the parent is gone
            return
        connection.send(_prepare(task, limits))


def _prepare(task: Task, limits: Limits) -> Prepared | BinderyError:
    prepare = KINDS[task.spec.kind].prepare
    assert prepare is not None, "texts are not sent to decoder processes. This is a bug."
    try:
        return prepare(task.source, task.spec, task.options, limits)
    except BinderyError as error:
        return error
    except MemoryError:
        return DecoderKilled(f"{task.source.name} needs more than {limits.decode_memory_bytes} bytes to decode")
    except Exception as error:  # noqa: BLE001 - a codec raised what no one foresaw: that is this file's error, not the process's end
        return UnreadableMedia(f"{task.source.name} cannot be decoded: {type(error).__name__}: {error}")


def _limit_memory(extra_bytes: int) -> None:
    with open("/proc/self/statm") as stream:
        mapped = int(stream.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + extra_bytes, mapped + extra_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
