"""The walls around a decoder, tried from inside one, as a codec that a file has taken over would."""

from __future__ import annotations

import errno
import os
import pickle
import platform
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bindery.engine import seccomp
from bindery.engine.pool import DecodePool
from bindery.engine.worker import Task
from bindery.errors import DecoderKilled, UnsupportedMedia
from bindery.limits import Limits
from bindery.media.source import Source
from bindery.spec import ImageOptions, ImageSpec
from tests.hostile import probes
from tests.hostile.probes import Probe

ROOT = Path(__file__).parents[2]
ELEPHANT = Source.of(ROOT / "examples/elephant.jpg")

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="the sandbox needs Linux on x86-64 or aarch64"
)


def task(source: Any) -> Task:
    return Task(source, ImageSpec(), ImageOptions())


def report(pool: DecodePool, function: Any, *arguments: Any) -> str:
    """What a probe saw in a decoder."""
    with pytest.raises(UnsupportedMedia) as raised:
        pool.submit(task(Probe(function, *arguments)), None).result(30)
    found = re.match(r"<(.*)>", raised.value.detail)
    assert found, raised.value.detail
    return found[1]


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    pool = DecodePool(1, Limits(decode_seconds=5), lambda _: None)
    pool.start()
    yield pool
    pool.stop()


@pytest.mark.parametrize(
    "attempt",
    [
        (probes.open_socket,),
        (probes.send_descriptor,),
        (probes.execute,),
        (probes.fork,),
        (probes.signal_process, os.getppid()),
        (probes.signal_process, os.getpid()),
    ],
    ids=lambda attempt: attempt[0].__name__,
)
def test_the_network_other_programs_and_other_processes_are_out_of_reach(pool: DecodePool, attempt: tuple[Any, ...]) -> None:
    assert report(pool, *attempt) == "EPERM"


@pytest.mark.parametrize("attempt", [probes.raise_memory_limit, probes.raise_file_limit])
def test_no_limit_can_be_raised(pool: DecodePool, attempt: Any) -> None:
    assert "not allowed to raise" in report(pool, attempt)


def test_no_file_can_be_written_changed_or_removed(pool: DecodePool, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("untouched")
    assert report(pool, probes.write_file, str(tmp_path / "new")) in ("EPERM", "EACCES")
    assert report(pool, probes.write_file, str(there)) in ("EPERM", "EACCES")
    assert report(pool, probes.append_to_file, str(there)) in ("EPERM", "EACCES")
    assert report(pool, probes.remove_file, str(there)) in ("EPERM", "EACCES")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert there.read_text() == "untouched"


def test_another_processs_memory_cannot_be_opened(pool: DecodePool) -> None:
    assert report(pool, probes.read_memory, os.getpid()) in ("EPERM", "EACCES")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86-64")
@pytest.mark.parametrize(
    ("number", "expected"),
    [(425, "EPERM"), (310, "EPERM"), (321, "EPERM"), (0x40000000 + 41, "EPERM"), (437, "ENOSYS"), (435, "ENOSYS")],
    ids=["io_uring_setup", "process_vm_readv", "bpf", "x32-socket", "openat2", "clone3"],
)
def test_bare_system_calls_meet_the_same_wall(pool: DecodePool, number: int, expected: str) -> None:
    assert report(pool, probes.call, number, 0, 0, 0, 0) == expected


def test_nothing_is_inherited_but_the_socket(pool: DecodePool) -> None:
    assert report(pool, probes.open_files) == "{'/dev/null'} ['socket']"


def test_limits_and_privileges_are_as_stated(pool: DecodePool) -> None:
    assert report(pool, probes.limits).startswith("FSIZE=0 CORE=0 NOFILE=64 CPU=")
    assert report(pool, probes.status) == "NoNewPrivs=1 Seccomp=2 CapEff=0000000000000000 CapPrm=0000000000000000"


def test_codecs_may_still_use_threads(pool: DecodePool) -> None:
    assert report(pool, probes.threads_work) == "4 threads"


def test_numpy_uses_one_thread_in_a_decoder_and_codecs_all_cores(pool: DecodePool) -> None:
    assert report(pool, probes.matrix_threads) == f"1 thread, {len(os.sched_getaffinity(0))} cores"


def test_processor_time_is_cut_and_renewed_for_each_task() -> None:
    script = """
import resource, time
from bindery.engine.sandbox import allow_cpu
def spin(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until: pass
allow_cpu(1); spin(0.8)
allow_cpu(1); spin(0.8)
print("renewed", flush=True)
spin(10)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert run.stdout == "renewed\n"
    assert run.returncode == -signal.SIGXCPU


def test_a_decoder_that_used_up_its_processor_time_says_so(pool: DecodePool) -> None:
    with pytest.raises(DecoderKilled, match="too much processor time"):
        pool.submit(task(Probe(signal.raise_signal, signal.SIGXCPU)), None).result(20)
    assert pool.submit(task(ELEPHANT), None).result(20).usage["pixels"] > 0


def framed(header: bytes) -> bytes:
    return len(header).to_bytes(8, "big") + header


@pytest.mark.parametrize(
    "body",
    [
        framed(b""),
        b"\xff" * 8,
        framed(b"{}"),
        framed(b'"no"'),
        framed(pickle.dumps(os.getcwd)),
        framed(b'{"tensors": [["x", "<f4", [999999999, 9999]]], "usage": {}, "truncated": false}'),
        framed(b'{"tensors": [["x", "|O", [1]]], "usage": {}, "truncated": false}'),
    ],
    ids=["empty", "endless", "no fields", "no object", "pickle", "huge array", "objects"],
)
def test_an_answer_that_no_decoder_gives_costs_the_decoder_its_life(pool: DecodePool, body: bytes) -> None:
    with pytest.raises(DecoderKilled):
        pool.submit(task(Probe(probes.answer_nonsense, body)), None).result(20)
    assert pool.submit(task(ELEPHANT), None).result(20).usage["pixels"] > 0


def test_half_an_answer_ends_with_the_wall_limit_and_not_never() -> None:
    pool = DecodePool(1, Limits(decode_seconds=1), lambda _: None)
    pool.start()
    try:
        with pytest.raises(DecoderKilled, match="longer than 1 s"):
            pool.submit(task(Probe(probes.answer_nonsense, b"\0\0\0")), None).result(20)
    finally:
        pool.stop()


def test_a_decoder_is_renewed_after_its_share_of_tasks() -> None:
    reasons: list[str] = []
    pool = DecodePool(1, Limits(), reasons.append, tasks_a_life=2)
    pool.start()
    try:
        pids = [report(pool, probes.own_pid) for _ in range(6)]
    finally:
        pool.stop()
    assert [pids[0] == pids[1], pids[2] == pids[3], pids[4] == pids[5]] == [True, True, True]
    assert len(set(pids)) == 3
    assert reasons == []  # a renewal is no failure


def test_a_decoder_that_leaks_is_renewed() -> None:
    pool = DecodePool(1, Limits(), lambda _: None, growth_bytes=64 << 20)
    pool.start()
    try:
        small = [report(pool, probes.leak, 10) for _ in range(3)]
        assert len(set(small)) == 1
        large = [report(pool, probes.leak, 100) for _ in range(3)]
        assert len(set(large)) == 3
    finally:
        pool.stop()


def test_decoders_end_with_a_server_that_is_killed_in_the_middle_of_a_task() -> None:
    server = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)})
    assert server.stdout is not None
    try:
        pids = [int(word) for word in server.stdout.readline().split()]
        assert len(pids) == 2
        assert all(_is_alive(pid) for pid in pids)
    finally:
        server.kill()  # -9: it can clear nothing away
        server.wait()
        server.stdout.close()
    until = time.monotonic() + 10
    while any(_is_alive(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(_is_alive(pid) for pid in pids)


def _is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_of_every_architecture_judges_by_number_and_arguments(machine: str) -> None:
    column = {"x86_64": 0, "aarch64": 1}[machine]
    arch = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[machine]
    program = seccomp.build(machine, own_pid=77)
    assert all(0 <= when <= 255 and 0 <= unless <= 255 for _, when, unless, _ in program)

    def judged(call: tuple[int, int], *arguments: int, arch: int = arch) -> int:
        return _run_filter(program, call[column], arch, arguments)

    allowed, refused = 0, errno.EPERM
    openat, clone, tgkill, prlimit = (257, 56), (56, 220), (234, 131), (302, 261)
    assert judged((0, 63), 3) == allowed  # read
    assert judged((1, 64), 3) == allowed  # write
    assert judged((41, 198), 2, 1) == refused  # socket
    assert judged((0, 63), 3, arch=0x40000003) == refused  # the 32-bit table of the same machine
    assert judged(openat, 0, 0, os.O_RDONLY | os.O_CLOEXEC) == allowed
    assert judged(openat, 0, 0, os.O_RDWR) == refused
    assert judged(openat, 0, 0, os.O_RDONLY | os.O_TRUNC) == refused
    assert judged(clone, 0x10000 | 0x100) == allowed
    assert judged(clone, signal.SIGCHLD) == refused
    assert judged(tgkill, 77, 77, 6) == allowed
    assert judged(tgkill, 78, 78, 6) == refused
    assert judged(prlimit, 0, resource.RLIMIT_AS, 0, 4096) == allowed
    assert judged(prlimit, 0, resource.RLIMIT_CPU, 4096, 0) == allowed
    assert judged(prlimit, 0, resource.RLIMIT_AS, 4096, 0) == refused
    assert judged(prlimit, 0, resource.RLIMIT_AS, 1 << 40, 0) == refused  # a pointer whose lower half is zero
    assert judged(prlimit, 78, resource.RLIMIT_CPU, 4096, 0) == refused
    assert judged((435, 435), 0) == errno.ENOSYS  # clone3


def _run_filter(program: seccomp.Program, number: int, arch: int, arguments: tuple[int, ...]) -> int:
    """The errno that the filter gives a call, 0 for leave."""
    data = b"".join(value.to_bytes(4, "little") for value in (number, arch)) + bytes(8)
    data += b"".join(value.to_bytes(8, "little") for value in (*arguments, *[0] * (6 - len(arguments))))
    place = loaded = 0
    while True:
        code, when, unless, constant = program[place]
        if code == 0x20:
            loaded, step = int.from_bytes(data[constant : constant + 4], "little"), 0
        elif code == 0x06:
            return 0 if constant == 0x7FFF0000 else constant & 0xFFFF
        else:
            holds = {0x15: loaded == constant, 0x35: loaded >= constant, 0x45: bool(loaded & constant)}[code]
            step = when if holds else unless
        place += 1 + step


def _serve_until_killed() -> None:
    pool = DecodePool(2, Limits(decode_seconds=60), lambda _: None)
    pool.start()
    pids = [report(pool, probes.own_pid)]
    while len(pids) < 2:
        pid = report(pool, probes.own_pid)
        pids += [pid] if pid not in pids else []
    busy = [pool.submit(task(Probe(time.sleep, 60)), None) for _ in pids]
    time.sleep(0.5)
    print(*pids, flush=True)  # noqa: T201 - to the test that started this program
    busy[0].result()


if __name__ == "__main__":
    _serve_until_killed()
