"""The cell of a decoder process: what a file that takes over a codec can still do from there, made as little as possible.

Each wall is tried; one that the machine cannot build is reported, never silently missing. Once in, there is no way out:
the process may compute, read files, and write to the one socket that it was given.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import resource
import signal
import struct
import sys

from bindery.engine.seccomp import load_filter

_OPEN_FILES = 64
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_VERSION_3 = 0x20080522

# Landlock: the numbers are the same on every architecture
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_ASK_VERSION = 1
# Rights on files by the version of the interface that brought them; reading (bits 2 and 3) stays allowed.
_FILES = {1: 0b1_1111_1111_0011, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_NETWORK_SINCE, _NETWORK = 4, 0b11  # bind and connect over TCP
_SCOPES_SINCE, _SCOPES = 6, 0b11  # abstract sockets and signals of processes outside


def enter(extra_bytes: int, keep_fd: int) -> list[str]:
    """Build the walls around this process, for good; ``keep_fd`` is the only file that stays open. Returns the walls that are missing.

    ``extra_bytes``: address space beyond what is mapped now.
    """
    _close_files(keep_fd)
    _limit(extra_bytes)
    if sys.platform != "linux":
        return [f"sandbox: on {sys.platform} there are limits on resources only"]
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getppid()
    missing = [wall for wall in (_end_with_parent(libc, parent), _no_new_privileges(libc), _drop_capabilities(libc)) if wall]
    # Both of these need no_new_privs; the filter comes last because it forbids building any of the others.
    return missing + [wall for wall in (_landlock(libc), load_filter()) if wall]


def allow_cpu(seconds: float) -> None:
    """From now on this process may use ``seconds`` of processor time (rounded up to whole ones); then SIGXCPU ends it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = math.ceil(used.ru_utime + used.ru_stime + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def _close_files(keep_fd: int) -> None:
    """Leave no inherited descriptor: the starter's pipes, the tracker that unlinks what it is told, the server's log."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.closerange(3, keep_fd)
    os.closerange(keep_fd + 1, os.sysconf("SC_OPEN_MAX"))


def _limit(extra_bytes: int) -> None:
    """Memory, written files (none; sockets are no files), open files, no core dump."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    with contextlib.suppress(FileNotFoundError), open("/proc/self/statm") as stream:  # Linux; elsewhere nothing says what is mapped
        mapped = int(stream.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + extra_bytes, mapped + extra_bytes))


def _end_with_parent(libc: ctypes.CDLL, parent: int) -> str | None:
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        return f"parent death signal: {os.strerror(ctypes.get_errno())}"
    if os.getppid() != parent:  # it ended between the two calls
        os._exit(1)
    return None


def _no_new_privileges(libc: ctypes.CDLL) -> str | None:
    refused = libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
    return f"no_new_privs: {os.strerror(ctypes.get_errno())}" if refused else None


def _drop_capabilities(libc: ctypes.CDLL) -> str | None:
    """A server that runs as root has decoders without root's powers: over other users' files, limits and processes."""
    number = _CAPSET.get(os.uname().machine)
    if number is None:
        return f"capabilities: not dropped on {os.uname().machine}"
    header = struct.pack("@Ii", _CAPABILITY_VERSION_3, 0)
    refused = libc.syscall(number, ctypes.c_char_p(header), ctypes.c_char_p(bytes(24))) != 0
    return f"capabilities: {os.strerror(ctypes.get_errno())}" if refused else None


def _landlock(libc: ctypes.CDLL) -> str | None:
    """No change to any file, no TCP, no signal to outside, and no look into the memory of a process outside (its `/proc` files)."""
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)
    if version < 1:
        return f"landlock: {os.strerror(ctypes.get_errno())}"
    files = sum(bits for since, bits in _FILES.items() if version >= since)
    network = _NETWORK if version >= _NETWORK_SINCE else 0
    scopes = _SCOPES if version >= _SCOPES_SINCE else 0
    rules = struct.pack("@QQQ", files, network, scopes)  # struct landlock_ruleset_attr; older kernels take trailing zeros
    ruleset = libc.syscall(_CREATE_RULESET, ctypes.c_char_p(rules), ctypes.c_size_t(len(rules)), 0)
    if ruleset < 0:
        return f"landlock: {os.strerror(ctypes.get_errno())}"
    refused = libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0
    reason = f"landlock: {os.strerror(ctypes.get_errno())}" if refused else None
    os.close(ruleset)
    return reason
