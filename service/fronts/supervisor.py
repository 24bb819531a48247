"""The parent of a service of several processes: starts the engine's and the HTTP processes, starts again what ends, stops all in order.

It does nothing else, so that nothing can end it. Each HTTP process has a listening socket of its own where the kernel shares
connections out (Linux): those that come while it is started again wait in its queue, and none is refused.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic
from typing import Any

import structlog

from bindery.engine.interrupts import interrupts_held
from bindery.errors import InvalidParameter
from bindery.scratch import scratch_folder, sweep
from bindery.settings import Settings
from service.fronts.processes import SOCKET, run_engine, run_front
from service.logs import configure_logs

log = structlog.get_logger(__name__)

FAILED = 1
_KERNEL_SHARES = sys.platform == "linux"  # elsewhere SO_REUSEPORT gives all connections to one
_STEADY_S = 10.0  # what has run so long is started again at once; what ends sooner, after a while that doubles
_SHORTEST_S, _LONGEST_S = 0.1, 10.0
_MARGIN_S = 5.0  # beyond the time to drain
_BACKLOG = 2048

Arguments = Callable[[Connection, bool], tuple[Any, ...]]
"""From the end of a line on which it gets its orders, and whether it is started again, to what a process is started with."""


def serve(settings: Settings) -> int:
    """Run the service until SIGTERM or SIGINT; the exit code. Raises `InvalidParameter` when the port cannot be had."""
    configure_logs(settings)
    sweep()
    with _listening(settings) as sockets, scratch_folder("server") as folder, _Signals() as signals:
        engine = _Child("engine", run_engine, lambda orders, _: (settings, folder, orders))
        fronts = [_Child(f"front-{n}", run_front, _front(settings, folder, n, one)) for n, one in enumerate(sockets)]
        family = [engine, *fronts]
        for child in family:
            child.start()
        log.info("listening", host=settings.host, port=sockets[0].getsockname()[1], http_workers=len(fronts))
        try:
            code = _watch(family, signals, lambda: engine.starts > 1 or (folder / SOCKET).exists())
            for one in sockets:
                one.close()
            for several in (fronts, [engine]):  # the engine answers until the last request has its answer
                _stop(several, settings.drain_seconds + _MARGIN_S)
            return code
        finally:
            for child in family:
                child.kill()


def _front(settings: Settings, folder: Path, number: int, listening: socket.socket) -> Arguments:
    def arguments(orders: Connection, restarted: bool) -> tuple[Any, ...]:
        spool = folder / f"uploads-{number}"
        shutil.rmtree(spool, ignore_errors=True)  # of one that was killed
        spool.mkdir()
        return settings, folder, spool, listening, orders, restarted

    return arguments


def _watch(family: Sequence[_Child], signals: _Signals, was_up: Callable[[], bool]) -> int:
    """Start again what ends, until a signal to stop; or until something ended before the engine was ever up."""
    while not signals.stop:
        due = [child.due for child in family if child.process is None]
        running = [child.process.sentinel for child in family if child.process is not None]
        wait([signals.wakes, *running], max(0.0, min(due) - monotonic()) if due else None)
        if signals.taken():
            for child in family:
                child.signal(signal.SIGHUP)
        for child in family:
            if child.has_ended() and not signals.stop and not was_up():
                log.error("the service could not be started", process=child.name)
                return FAILED
            if child.process is None and monotonic() >= child.due and not signals.stop:
                child.start()
    return 0


def _stop(children: Sequence[_Child], seconds: float) -> None:
    for child in children:
        child.order()
    until = monotonic() + seconds
    for child in children:
        if child.process is not None:
            child.process.join(max(0.0, until - monotonic()))
        child.kill()


@dataclass(slots=True)
class _Child:
    name: str
    run: Callable[..., None]
    arguments: Arguments
    process: BaseProcess | None = None
    starts: int = 0
    due: float = 0.0  # when to start it again
    _began: float = 0.0
    _pause: float = _SHORTEST_S
    _orders: Connection | None = None

    def start(self) -> None:
        theirs, self._orders = multiprocessing.Pipe(duplex=False)
        arguments = self.arguments(theirs, self.starts > 0)
        self.process = multiprocessing.get_context("spawn").Process(target=self.run, args=arguments, name=f"bindery-{self.name}")
        with interrupts_held():
            self.process.start()
        theirs.close()
        self._began, self.starts = monotonic(), self.starts + 1

    def has_ended(self) -> bool:
        """Whether it has since it was last asked; then it is known when it is due again."""
        if self.process is None or self.process.exitcode is None:
            return False
        lasted = monotonic() - self._began
        self._pause = _SHORTEST_S if lasted >= _STEADY_S else min(2 * self._pause, _LONGEST_S)
        self.due = monotonic() + self._pause
        log.error("a process has ended", process=self.name, pid=self.process.pid, code=self.process.exitcode, lasted_s=round(lasted, 1))
        self._forget()
        return True

    def order(self) -> None:
        """Tell it to stop."""
        if self._orders is not None:
            try:
                self._orders.send("stop")
            except OSError:  # it has ended by itself
                return

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.pid is not None and self.process.exitcode is None:
            os.kill(self.process.pid, number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self._forget()

    def _forget(self) -> None:
        if self.process is not None:
            self.process.close()
        if self._orders is not None:
            self._orders.close()
        self.process = self._orders = None


class _Signals:
    """SIGTERM, SIGINT and SIGHUP, which wake whoever waits on ``wakes``."""

    def __init__(self) -> None:
        self.stop = False
        self._hung_up = False
        self.wakes, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self.wakes, False)

    def __enter__(self) -> _Signals:
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        for end in (self.wakes, self._wake):
            os.close(end)

    def taken(self) -> bool:
        """Whether there was a SIGHUP since the last call."""
        with suppress(BlockingIOError):
            os.read(self.wakes, 4096)
        hung_up, self._hung_up = self._hung_up, False
        return hung_up

    def _take(self, number: int, _: object) -> None:
        if number == signal.SIGHUP:
            self._hung_up = True
        else:
            self.stop = True


@contextmanager
def _listening(settings: Settings) -> Iterator[list[socket.socket]]:
    """A bound socket for each HTTP process. Raises `InvalidParameter`."""
    sockets: list[socket.socket] = []
    try:
        try:
            # Alone first: where everybody shares, a second server started by mistake would take half of the first one's connections.
            first = _bound(settings.host, settings.port, shared=False)
            port = first.getsockname()[1]
            if not _KERNEL_SHARES:
                sockets += [first, *(first.dup() for _ in range(settings.http_workers - 1))]
            else:
                first.close()
                for _ in range(settings.http_workers):
                    sockets.append(_bound(settings.host, port, shared=True))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise InvalidParameter(f"cannot listen on {settings.host} port {settings.port}: {reason}") from error
        yield sockets
    finally:
        for one in sockets:
            one.close()


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG, reuse_port=shared)
