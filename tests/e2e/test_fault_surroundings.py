"""What is around the real server fails it: clients that do not read, or leave; disk, memory and descriptors used up; processes that die."""

from __future__ import annotations

import base64
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e.asking import CLIENT, FAULTY, codes, connected, files, head, lives_on, texts, wait_until
from tests.e2e.process import Served, children, serving
from tests.service.media import png, wav
from tests.toybundle import build_toy_bundle

SMALL_DISKS = 'mount -t tmpfs -o size=8m tmpfs "$DISKS/data" && mount -t tmpfs -o size=8m tmpfs "$DISKS/tmp" && exec "$0" "$@"'
SOUND = wav(seconds=60.0)  # 1.9 MB: more than is kept in memory


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy")


@pytest.fixture(scope="module")
def served(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    limits = {"limits__page_items": 1000}
    with serving(bundle, tmp_path_factory.mktemp("served"), program=FAULTY, decode_workers=2, cache_bytes=0, **limits) as served:
        assert CLIENT.put(f"{served.address}/v1/collections/long", json={}).status_code == 201
        for number in range(16):
            rows = [
                {"id": f"{number}-{n}", "vector": [1.0, *[0.0] * 7], "modality": "text", "metadata": {"x": "x" * 15_000}} for n in range(25)
            ]
            assert CLIENT.post(f"{served.address}/v1/collections/long/items", json={"items": rows}).status_code == 200
        yield served


@pytest.fixture(autouse=True)
def _lives_on(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "served" in request.fixturenames:
        served: Served = request.getfixturevalue("served")
        lives_on(served)
        assert codes(files(served, "image", *[png()] * 3)) == [""] * 3
        assert files(served, "audio", SOUND).status_code == 200
        wait_until(lambda: len(served.decoders()) == 2)
        wait_until(lambda: not uploads(served))
        assert served.metric("bindery_requests_in_flight ") == 1  # the scrape's own


def opened(served: Served) -> list[str]:
    """What the service's file descriptors stand for."""
    found = []
    for link in Path(f"/proc/{served.process.pid}/fd").iterdir():
        try:
            found.append(os.readlink(link))
        except FileNotFoundError:  # closed meanwhile
            continue
    return found


def sockets(served: Served) -> set[str]:
    return {name for name in opened(served) if name.startswith("socket:")}


def read_all(line: socket.socket) -> None:
    while line.recv(1 << 20):
        pass


def uploads(served: Served) -> list[str]:
    return [name for name in opened(served) if "uploads-" in name and Path(name).name.startswith("tmp")]


def test_who_does_not_read_an_answer_holds_nobody_up_and_is_cut_off(served: Served) -> None:
    ask = b"GET /v1/collections/long/items?limit=1000 HTTP/1.1\r\nHost: x\r\n\r\n"
    whole = len(CLIENT.get(f"{served.address}/v1/collections/long/items?limit=1000").content)
    assert whole > 6_000_000  # more than the kernel takes from the server
    held: set[str] = set()
    with ExitStack() as stack:
        lines = []
        for _ in range(3):
            before = sockets(served)
            lines.append(stack.enter_context(connected(served, receive_bytes=4096)))
            wait_until(lambda before=before: sockets(served) - before)
            held |= sockets(served) - before
            lines[-1].sendall(ask)
            assert codes(texts(served, "a", "b")) == ["", ""]
        wait_until(lambda: not sockets(served) & held)
        for line in lines:
            with pytest.raises(ConnectionResetError):
                read_all(line)


def test_the_upload_of_a_client_that_leaves_is_thrown_away(served: Served) -> None:
    with connected(served) as line:
        line.sendall(head("/v1/embed/audio", "audio/wav", 6_000_000) + bytes(3_000_000))
        wait_until(lambda: uploads(served))
    wait_until(lambda: not uploads(served))


def test_a_server_out_of_memory_fails_what_needs_it_and_nothing_else(served: Served) -> None:
    pid = served.process.pid
    body = json.dumps({"inputs": [{"data": base64.b64encode(bytes(40_000_000)).decode()}]}).encode()
    used = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    with limited(pid, resource.RLIMIT_AS, used + 20_000_000):
        answer = CLIENT.post(f"{served.address}/v1/embed/audio", content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert codes(texts(served, "a", "b")) == ["", ""]


def test_a_server_out_of_file_descriptors_comes_back_when_it_has_some(served: Served) -> None:
    pid = served.process.pid
    with limited(pid, resource.RLIMIT_NOFILE, len(opened(served)) + 2):
        lines = [connected(served) for _ in range(4)]  # some of them are closed at once
        victim = served.decoders()[0]
        os.kill(victim, signal.SIGKILL)
        for line in lines:
            line.close()
        wait_until(lambda: victim not in served.decoders())


def test_decoders_that_end_with_nothing_in_hand_are_no_files_fault(served: Served) -> None:
    before = served.decoders()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not set(before) & set(served.decoders()))
    assert codes(files(served, "image", *[png()] * 3)) == [""] * 3


def test_the_fork_server_is_started_again_and_its_decoders_with_it(served: Served) -> None:
    (fork_server,) = (pid for pid in children(served.process.pid) if children(pid))
    os.kill(fork_server, signal.SIGKILL)
    wait_until(lambda: not served.decoders())
    assert codes(files(served, "image", *[png()] * 3)) == [""] * 3


@contextmanager
def limited(pid: int, what: int, soft: int) -> Iterator[None]:
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (soft, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, what, before)


@contextmanager
def full(served: Served, disk: Path) -> Iterator[None]:
    """The disk as the server sees it, until the context ends."""
    ballast = Path(f"/proc/{served.process.pid}/root{disk}/ballast")
    with ballast.open("wb", buffering=0) as stream, suppress(OSError):
        while stream.write(bytes(4096)):
            pass
    try:
        yield
    finally:
        ballast.unlink()


@pytest.fixture(scope="module")
def on_small_disks(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Path]]:
    """A server that alone sees two disks of 8 MB: `data` and `tmp` in the folder."""
    folder = tmp_path_factory.mktemp("disks")
    for name in ("data", "tmp"):
        (folder / name).mkdir()
    program = ("unshare", "--map-root-user", "--mount", "sh", "-c", SMALL_DISKS, sys.executable, "-m", "bindery.cli.main")
    environment = {"DISKS": str(folder), "TMPDIR": str(folder / "tmp")}
    with serving(bundle, folder, program=program, environment=environment, decode_workers=1, cache_bytes=0) as served:
        yield served, folder


def test_a_full_disk_for_uploads_refuses_large_ones_and_takes_small_ones(on_small_disks: tuple[Served, Path]) -> None:
    served, folder = on_small_disks
    encoded = base64.b64encode(SOUND).decode()

    def ways() -> list[int]:
        return [
            files(served, "audio", SOUND).status_code,
            CLIENT.post(f"{served.address}/v1/embed/audio", content=SOUND, headers={"Content-Type": "audio/wav"}).status_code,
            CLIENT.post(f"{served.address}/v1/embed/audio", json={"inputs": [{"data": encoded}]}).status_code,
        ]

    with full(served, folder / "tmp"):
        assert ways() == [503] * 3
        answer = files(served, "audio", SOUND)
        assert answer.json()["code"] == "storage_full"
        assert int(answer.headers["Retry-After"]) >= 1
        assert codes(files(served, "image", png())) == [""]
        assert codes(texts(served, "a")) == [""]
        assert served.is_ready()
    assert ways() == [200] * 3


def test_a_full_disk_for_the_catalog_refuses_items_and_goes_on_searching(on_small_disks: tuple[Served, Path]) -> None:
    served, folder = on_small_disks
    address = f"{served.address}/v1/collections/pets"

    def put(number: int) -> int:
        rows = [{"id": f"{number}-{n}", "text": f"pet {number} {n}", "metadata": {"x": "x" * 15_000}} for n in range(8)]
        return CLIENT.post(f"{address}/items", json={"items": rows}).status_code

    def found() -> list[str]:
        return [hit["id"] for hit in CLIENT.post(f"{address}/search", json={"text": "pet 0 3", "top_k": 1}).json()["hits"]]

    assert CLIENT.put(address, json={}).status_code == 201
    assert put(0) == 200
    with full(served, folder / "data"):
        stored, answers = 8, [put(number) for number in range(1, 12)]
        stored += 8 * answers.count(200)
        assert set(answers) <= {200, 503}
        assert answers[-1] == 503
        refused = CLIENT.post(f"{address}/items", json={"items": [{"id": "one", "text": "more", "metadata": {"x": "x" * 15_000}}]})
        assert refused.json()["code"] == "storage_full"
        assert found() == ["0-3"]
        assert served.is_ready()
    assert CLIENT.get(address).json()["items"] == stored
    assert put(99) == 200
    assert CLIENT.get(address).json()["items"] == stored + 8
    assert found() == ["0-3"]
