"""What code that has taken over a decoder would try. Each probe runs in a decoder, where its task's source should be, and reports
through the only thing that comes out of there: the name of a source that is then found to be no picture."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from bindery.media.source import Source

_hoard: list[Any] = []


class Probe:
    """Stands where a source should; unpickling it in the decoder runs ``function``."""

    name = "probe"

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (run, (function, *arguments))

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def run(function: Callable[..., Any], *arguments: Any) -> Source:
    try:
        result = str(function(*arguments))
    except OSError as error:
        result = errno.errorcode.get(error.errno or 0, str(error))
    except (ValueError, RuntimeError) as error:
        result = f"{type(error).__name__}: {error}"
    return Source.of(b"not a picture", name=f"<{result}>")


def open_socket() -> None:
    socket.socket()


def send_descriptor() -> None:
    socket.send_fds(socket.socket(fileno=os.dup(_only_socket())), [b"x"], [0])


def write_file(path: str) -> None:
    with open(path, "w") as file:
        file.write("here")


def append_to_file(path: str) -> None:
    os.open(path, os.O_WRONLY | os.O_APPEND)


def remove_file(path: str) -> None:
    os.unlink(path)


def execute() -> None:
    os.execv("/bin/true", ["true"])


def fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def signal_process(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)


def read_memory(pid: int) -> None:
    os.open(f"/proc/{pid}/mem", os.O_RDONLY)


def call(number: int, *arguments: int) -> int:
    """A bare system call, without libc's opinion of it."""
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(number, *(ctypes.c_long(argument) for argument in arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result


def raise_memory_limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def raise_file_limit() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))


def open_files() -> str:
    """Descriptors beyond the three standard ones, and what those three are."""
    numbers = sorted(int(name) for name in os.listdir("/proc/self/fd"))
    standard = {os.readlink(f"/proc/self/fd/{number}") for number in (0, 1, 2)}
    others = [os.readlink(f"/proc/self/fd/{number}").partition(":")[0] for number in numbers if number > 2 and _is_open(number)]
    return f"{standard} {others}"


def threads_work() -> str:
    done: list[int] = []
    threads = [threading.Thread(target=done.append, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return f"{len(done)} threads"


def limits() -> str:
    names = ("RLIMIT_FSIZE", "RLIMIT_CORE", "RLIMIT_NOFILE", "RLIMIT_CPU")
    return " ".join(f"{name[7:]}={resource.getrlimit(getattr(resource, name))[0]}" for name in names)


def status() -> str:
    with open("/proc/self/status") as stream:
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in stream if ":\t" in line)
    return " ".join(f"{name}={fields[name].strip()}" for name in ("NoNewPrivs", "Seccomp", "CapEff", "CapPrm"))


def own_pid() -> int:
    return os.getpid()


def leak(megabytes: int) -> int:
    """Touch memory and never let it go."""
    block = mmap.mmap(-1, megabytes << 20)
    for page in range(0, len(block), mmap.PAGESIZE):
        block[page] = 1
    _hoard.append(block)
    return os.getpid()


def answer_nonsense(body: bytes) -> None:
    """Write to the pool's socket what no decoder says, then wait."""
    os.write(_only_socket(), body)
    threading.Event().wait(60)


def _only_socket() -> int:
    return next(n for n in range(3, 1024) if _is_open(n) and os.readlink(f"/proc/self/fd/{n}").startswith("socket:"))


def _is_open(number: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{number}")


def matrix_threads() -> str:
    """How many threads this process has after a product large enough for numpy to share out, and the cores it may use."""
    square = np.ones((1500, 1500), np.float32)
    square @ square
    return f"{len(os.listdir('/proc/self/task'))} thread, {len(os.sched_getaffinity(0))} cores"
