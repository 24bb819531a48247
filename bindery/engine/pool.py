"""Decoder processes: started, fed, timed, killed and replaced. One thread owns each process for the time of one task."""

from __future__ import annotations

import logging
import multiprocessing
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Literal, TypeVar

from bindery.decoded import Cuts, Extent, Prepared
from bindery.engine.footprint import resident_bytes
from bindery.engine.heartbeat import Heartbeat
from bindery.engine.interrupts import interrupts_held
from bindery.engine.wire import Answer, Wire, WireError
from bindery.engine.worker import Length, Stretch, Task, serve
from bindery.errors import BinderyError, DecoderKilled, EngineDown
from bindery.limits import MIB, Limits

T = TypeVar("T")
Reason = Literal["crashed", "timeout"]
_LATE_S = 5.0  # after the time that a task is allowed
_START_S = 60.0  # of a process that imports codecs on a machine under full load
_AGAIN_S = 0.2
_NOT_STARTED = (OSError, EOFError)
"""What starting a process raises: this one has no file descriptor left, say, or the fork server is just ending."""

_log = logging.getLogger(__name__)


class _Worker:
    def __init__(self, context: ForkServerContext, limits: Limits) -> None:
        ours, theirs = socket.socketpair()
        self.wire = Wire(ours)
        self.tasks = 0
        self.first_bytes = 0
        self.ended = False
        self.process: ForkServerProcess = context.Process(target=serve, args=(theirs, limits), daemon=True, name="bindery-decoder")
        with interrupts_held():  # of the fork server too, when this starts it: it would say that it was interrupted while it loads codecs
            self.process.start()
        theirs.close()  # ours must be the only copy left, or its death would not be seen as end of file

    def greet(self) -> list[str]:
        """Wait until it can take a task. Returns the walls its sandbox lacks. Raises `EngineDown`, and is then gone."""
        try:
            missing = self.wire.read_hello(time.monotonic() + _START_S)
        except TimeoutError as error:
            self.kill()
            raise EngineDown(f"a decoder process did not start within {_START_S:g} s", retry_after_ms=1000) from error
        except WireError as error:
            self.kill()
            raise EngineDown("a decoder process ended while it was starting", retry_after_ms=1000) from error
        self.first_bytes = self.resident_bytes()
        return missing

    def resident_bytes(self) -> int:
        return resident_bytes(self.process.pid or 0)

    def kill(self) -> int | None:
        """End it and clear away. Returns the exit code that it had by itself, if it had ended."""
        self.process.join(0.1)
        code = self.process.exitcode
        self.ended = True
        self.process.kill()
        self.process.join()
        self.wire.close()
        return code


class DecodePool:
    """``workers`` killable processes. Its methods may be called from any thread; tasks wait in order for a free process.

    A process is replaced when it dies, when it is late, and before what codecs leak adds up: after ``tasks_a_life`` tasks
    or when it holds ``growth_bytes`` more than at its start.
    """

    def __init__(
        self,
        workers: int,
        limits: Limits,
        on_replaced: Callable[[Reason], None],
        *,
        tasks_a_life: int = 5000,
        growth_bytes: int = 512 * MIB,
    ) -> None:
        self._limits = limits
        self._on_replaced = on_replaced
        self._tasks_a_life = tasks_a_life
        self._growth_bytes = growth_bytes
        # forkserver: a new process in tens of milliseconds, without the threads and models of this one
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["bindery.engine.one_thread", "bindery.engine.worker"])
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="decode")
        self._living: set[_Worker] = set()
        self._closed = threading.Event()
        self._heartbeat = Heartbeat()
        self.workers = workers

    def start(self) -> None:
        """Start the processes and wait until all can take a task. Raises `EngineDown`."""
        workers = [self._born() for _ in range(self.workers)]
        missing: list[str] = []
        for worker in workers:
            missing = worker.greet()
            self._idle.put(worker)
        for wall in missing:  # the same for all of them
            _log.warning("decoders run without a part of their sandbox: %s", wall)

    def submit(self, task: Task, deadline: float | None) -> Future[Prepared]:
        """Its future gives the `Prepared` or raises the item's `BinderyError`. A cancelled future costs nothing if not begun."""
        return self._threads.submit(self._answered, task, deadline, Prepared)

    def measure(self, length: Length, deadline: float | None) -> Future[Extent]:
        """Its future gives how long the file lasts, or raises as `submit`'s does."""
        return self._threads.submit(self._answered, length, deadline, Extent)

    def find_cuts(self, stretch: Stretch, deadline: float | None) -> Future[Cuts]:
        """Its future gives the stretch's cuts, and how far was looked: beyond its start. Raises as `submit`'s does."""
        return self._threads.submit(self._cuts, stretch, deadline)

    @property
    def running_s(self) -> float:
        """How long the oldest task in work has lasted; 0 when there is none."""
        return self._heartbeat.age_s

    @property
    def resident_bytes(self) -> int:
        """Memory of all decoder processes, what they share counted once for each."""
        return sum(worker.resident_bytes() for worker in self._living.copy() if not worker.ended)

    def trouble(self) -> str | None:
        """What hangs although it is killed when it is late."""
        late_s = self.running_s - self._limits.decode_seconds
        return f"a decoder should have been taken back {late_s:.1f} s ago" if late_s > _LATE_S else None

    def stop(self) -> None:
        self._closed.set()
        self._threads.shutdown(wait=True, cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().kill()

    def _cuts(self, stretch: Stretch, deadline: float | None) -> Cuts:
        cuts = self._answered(stretch, deadline, Cuts)
        # Who asks on from an end that is none would never be done.
        if not stretch.start < cuts.until_s <= stretch.end or not all(stretch.start <= at < cuts.until_s for at in cuts.times_s):
            raise EngineDown("a decoder process looked for scenes where it was not asked to. This is a bug.")
        return cuts

    def _answered(self, task: Task | Length | Stretch, deadline: float | None, wanted: type[T]) -> T:
        answer = self._run(task, deadline)
        if not isinstance(answer, wanted):
            raise EngineDown("a decoder process answered another question. This is a bug.")
        return answer

    def _run(self, task: Task | Length | Stretch, deadline: float | None) -> Answer:
        if self._closed.is_set():
            raise EngineDown("the decoders were stopped")
        worker = self._idle.get()
        try:
            worker = self._alive(worker)
            answer = self._ask(worker, task, deadline)
            if self._is_spent(worker):
                worker = self._renewed(worker)
        except TimeoutError as error:
            worker = self._replace(worker, "timeout", worker.kill())
            raise DecoderKilled(f"decoding {task.source.name} took longer than {self._limits.decode_seconds:g} s") from error
        except WireError as error:
            code = worker.kill()
            worker = self._replace(worker, "crashed", code)
            raise DecoderKilled(f"decoding {task.source.name} {_ending(code)}") from error
        finally:
            self._idle.put(worker)
        if isinstance(answer, BinderyError):
            raise answer
        return answer

    def _ask(self, worker: _Worker, task: Task | Length | Stretch, deadline: float | None) -> Answer:
        allowed_s = self._limits.decode_seconds
        if deadline is not None:
            # Nobody waits for a vector after the deadline, but a process that is nearly done is cheaper to keep than to kill.
            allowed_s = min(allowed_s, max(deadline - time.monotonic(), 0.0) + 1.0)
        until = time.monotonic() + allowed_s
        worker.tasks += 1
        with self._heartbeat.working():
            worker.wire.send_task(task, until)
            return worker.wire.read_answer(until, self._limits.decode_memory_bytes)

    def _alive(self, worker: _Worker) -> _Worker:
        """It, or a fresh process when it has ended with nothing in hand: that is no file's fault. Raises `EngineDown`."""
        if worker.process.exitcode is None:
            return worker
        if not worker.ended:  # else it is known, and only could not be replaced yet
            _log.warning("a decoder process ended while it had nothing to do: exit code %s", worker.kill())
            self._on_replaced("crashed")
        try:
            return self._fresh()
        except _NOT_STARTED as error:
            _log.error("a decoder process cannot be started: %s", error)
            raise EngineDown("no decoder process can be started now", retry_after_ms=1000) from error

    def _is_spent(self, worker: _Worker) -> bool:
        return worker.tasks >= self._tasks_a_life or worker.resident_bytes() - worker.first_bytes > self._growth_bytes

    def _renewed(self, worker: _Worker) -> _Worker:
        """A fresh process in place of a spent one; the spent one when none can be started, since its last answer was good."""
        try:
            fresh = self._fresh()
        except (EngineDown, *_NOT_STARTED) as error:
            _log.warning("a decoder process cannot be renewed yet: %s", error)
            return worker
        worker.kill()
        return fresh

    def _replace(self, dead: _Worker, reason: Reason, code: int | None) -> _Worker:
        """A fresh process; the dead one when none can be started: its next task finds that out and tries again."""
        _log.info("a decoder process is replaced: %s, exit code %s", reason, code)
        self._on_replaced(reason)
        try:
            return self._fresh()
        except (EngineDown, *_NOT_STARTED) as error:
            _log.error("a decoder process cannot be replaced: %s", error)
            return dead

    def _fresh(self) -> _Worker:
        worker = self._born()
        worker.greet()
        return worker

    def _born(self) -> _Worker:
        try:
            worker = _Worker(self._context, self._limits)
        except _NOT_STARTED:  # a fork server that ends now is started again by whoever needs it next
            time.sleep(_AGAIN_S)
            worker = _Worker(self._context, self._limits)
        for one in self._living.copy():
            if one.ended:
                self._living.discard(one)
        self._living.add(worker)
        return worker


def _ending(code: int | None) -> str:
    if code == -signal.SIGXCPU:
        return "used too much processor time; the file is hostile or far too large"
    return "ended its process; the file is damaged or hostile"
