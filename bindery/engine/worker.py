"""What runs inside a decoder process: read a task, decode and prepare it, answer. Nothing else of the house runs here.

A file is a stranger: the process may crash, hang or eat memory on it, so it is limited, walled in, disposable and has no model in it.
"""

from __future__ import annotations

import signal
import socket
from dataclasses import dataclass

from bindery.decoded import Cuts, Extent, Prepared
from bindery.engine import sandbox
from bindery.engine.heap import keep_freed_memory
from bindery.engine.stepback import step_back_process
from bindery.engine.wire import Answer, Wire, WireError
from bindery.errors import BinderyError, DecoderKilled, UnreadableMedia
from bindery.kinds import KINDS
from bindery.limits import Limits
from bindery.media.scenes import find_cuts
from bindery.media.source import Source
from bindery.spec import Options, Spec

_CPU_PER_WALL = 2.0
"""Seconds of processor time to one second of the wall limit: what codecs with threads of their own may use before they are cut."""


@dataclass(frozen=True, slots=True)
class Task:
    """Decode and prepare: answered with `Prepared`."""

    source: Source
    spec: Spec
    options: Options

    def run(self, limits: Limits) -> Prepared:
        prepare = KINDS[self.spec.kind].prepare
        assert prepare is not None, "texts are not sent to decoder processes. This is a bug."
        return prepare(self.source, self.spec, self.options, limits)


@dataclass(frozen=True, slots=True)
class Length:
    """How long a file of a kind lasts: answered with `Extent`."""

    source: Source
    kind: str

    def run(self, limits: Limits) -> Extent:
        measure = KINDS[self.kind].measure
        assert measure is not None, "only kinds that last are measured. This is a bug."
        return measure(self.source, limits)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Where the scene changes between two times of a file, in seconds: answered with `Cuts`, which may end before ``end``."""

    source: Source
    start: float
    end: float

    def run(self, limits: Limits) -> Cuts:
        return find_cuts(self.source, limits, self.start, self.end)


def serve(connection: socket.socket, limits: Limits) -> None:
    """Wall this process in, say hello, then answer `Task`s, `Length`s and `Stretch`es from ``connection`` until it closes."""
    step_back_process()
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides when we end
    wire = Wire(connection)
    wire.send_hello(sandbox.enter(limits.decode_memory_bytes, connection.fileno()))
    while True:
        try:
            sandbox.allow_cpu(_CPU_PER_WALL * limits.decode_seconds)
            wire.send_answer(_answer(wire.read_task(), limits))
        except (WireError, OSError):  # the parent is gone
            return


def _answer(task: Task | Length | Stretch, limits: Limits) -> Answer:
    try:
        return task.run(limits)
    except BinderyError as error:
        return error
    except MemoryError:
        return DecoderKilled(f"{task.source.name} needs more than {limits.decode_memory_bytes} bytes to decode")
    except Exception as error:  # noqa: BLE001 - a codec raised what no one foresaw: that is this file's error, not the process's end
        return UnreadableMedia(f"{task.source.name} cannot be decoded: {type(error).__name__}: {error}")
