"""Decoder processes: started, fed, timed, killed and replaced. One thread owns each process for the time of one task."""

from __future__ import annotations

import multiprocessing
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Literal

from bindery.decoded import Prepared
from bindery.engine.worker import HELLO, Task, serve
from bindery.errors import BinderyError, DecoderKilled, EngineDown
from bindery.limits import Limits

Reason = Literal["crashed", "timeout"]
_START_S = 60.0  # of a process that imports codecs on a machine under full load


class _Worker:
    def __init__(self, context: ForkServerContext, limits: Limits) -> None:
        self.connection: Connection
        self.connection, theirs = context.Pipe()
        self.process: ForkServerProcess = context.Process(target=serve, args=(theirs, limits), daemon=True, name="bindery-decoder")
        self.process.start()
        theirs.close()  # ours must be the only copy left, or its death would not be seen as end of file

    def greet(self) -> None:
        """Wait until it can take a task. Raises `EngineDown`."""
        try:
            if self.connection.poll(_START_S) and self.connection.recv() == HELLO:
                return
        except (EOFError, OSError) as error:
            raise EngineDown("a decoder process ended while it was starting") from error
        raise EngineDown(f"a decoder process did not start within {_START_S:g} s")

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


class DecodePool:
    """``workers`` killable processes. ``run`` may be called from any thread; tasks wait in order for a free process."""

    def __init__(self, workers: int, limits: Limits, on_replaced: Callable[[Reason], None]) -> None:
        self._limits = limits
        self._on_replaced = on_replaced
        # forkserver: a new process in tens of milliseconds, without the threads and models of this one
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["bindery.engine.worker"])
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="decode")
        self._closed = threading.Event()
        self.workers = workers

    def start(self) -> None:
        """Start the processes and wait until all can take a task. Raises `EngineDown`."""
        workers = [_Worker(self._context, self._limits) for _ in range(self.workers)]
        for worker in workers:
            worker.greet()
            self._idle.put(worker)

    def submit(self, task: Task, deadline: float | None) -> Future[Prepared]:
        """Its future gives the `Prepared` or raises the item's `BinderyError`. A cancelled future costs nothing if not begun."""
        return self._threads.submit(self._run, task, deadline)

    def stop(self) -> None:
        self._closed.set()
        self._threads.shutdown(wait=True, cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().kill()

    def _run(self, task: Task, deadline: float | None) -> Prepared:
        if self._closed.is_set():
            raise EngineDown("the decoders were stopped")
        worker = self._idle.get()
        try:
            answer = self._ask(worker, task, deadline)
        except TimeoutError as error:  # before OSError, whose child it is
            worker = self._replace(worker, "timeout")
            raise DecoderKilled(f"decoding {task.source.name} took longer than {self._limits.decode_seconds:g} s") from error
        except (EOFError, OSError) as error:
            worker = self._replace(worker, "crashed")
            raise DecoderKilled(f"decoding {task.source.name} ended its process; the file is damaged or hostile") from error
        finally:
            self._idle.put(worker)
        if isinstance(answer, BinderyError):
            raise answer
        return answer

    def _ask(self, worker: _Worker, task: Task, deadline: float | None) -> Prepared | BinderyError:
        allowed_s = self._limits.decode_seconds
        if deadline is not None:
            # Nobody waits for a vector after the deadline, but a process that is nearly done is cheaper to keep than to kill.
            allowed_s = min(allowed_s, max(deadline - time.monotonic(), 0.0) + 1.0)
        worker.connection.send(task)
        if not worker.connection.poll(allowed_s):
            raise TimeoutError
        answer: Prepared | BinderyError = worker.connection.recv()
        return answer

    def _replace(self, worker: _Worker, reason: Reason) -> _Worker:
        worker.kill()
        self._on_replaced(reason)
        fresh = _Worker(self._context, self._limits)
        fresh.greet()
        return fresh
