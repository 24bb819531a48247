"""One thread that works for a stage, and that can be given up: a thread cannot be killed, but nobody has to wait for it.

It is a daemon, so a run that never ends does not keep the process from ending either.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, InvalidStateError
from queue import SimpleQueue
from typing import Any

from bindery.errors import InternalError

log = logging.getLogger(__name__)

_END_S = 5.0
_Job = tuple[Future[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class Displaced(Exception):
    """The thread was given up before this came to its turn: it may be tried on the next one."""


class Runner(Executor):
    """Thread-safe. Jobs run one after the other, in order."""

    def __init__(self, name: str, initializer: Callable[[], None] | None = None) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._current: Future[Any] | None = None
        self._since = 0.0
        self._given_up = False
        self._thread = threading.Thread(target=self._work, args=(initializer,), name=name, daemon=True)
        self._thread.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._jobs.put((future, fn, args, kwargs))
        return future

    @property
    def busy_s(self) -> float:
        """How long the present job has lasted; 0 when there is none."""
        return time.monotonic() - self._since if self._current is not None else 0.0

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def give_up(self, error: Exception) -> None:
        """``error`` for the present job, whenever it may end; `Displaced` for those behind it. The thread ends when the job does."""
        self._given_up = True
        current = self._current
        if current is not None:
            with contextlib.suppress(InvalidStateError):  # it has ended in this moment
                current.set_exception(error)
        while not self._jobs.empty():
            job = self._jobs.get()
            if job is not None and job[0].set_running_or_notify_cancel():
                job[0].set_exception(Displaced())
        self._jobs.put(None)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends when what was submitted is done; ``wait`` for it, but not for ever."""
        del cancel_futures  # whoever ends a stage has ended its callers
        self._jobs.put(None)
        if wait:
            self._thread.join(_END_S)

    def _work(self, initializer: Callable[[], None] | None) -> None:
        if initializer is not None:
            initializer()
        while (job := self._jobs.get()) is not None:
            future, call, args, kwargs = job
            if not future.set_running_or_notify_cancel():
                continue
            self._since, self._current = time.monotonic(), future
            try:
                result = call(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to whoever waits for the job
                with contextlib.suppress(InvalidStateError):  # given up meanwhile
                    future.set_exception(told(error))
            else:
                with contextlib.suppress(InvalidStateError):
                    future.set_result(result)
            del job, future, call, args, kwargs  # what a job holds is not kept until the next one comes
            self._current = None
            if self._given_up:
                return


def told(error: BaseException) -> Exception:
    """What is no `Exception` (Rust's panics are none) would end every loop that it meets on its way, and not only this job."""
    if isinstance(error, Exception):
        return error
    log.error("a job of a thread ended by what is no exception", exc_info=error)
    told = InternalError("a library failed in a way that it does not foresee; the log says how")
    told.__cause__ = error
    return told
