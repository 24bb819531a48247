"""The keys in force, and the file that they come from."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from bindery.errors import InvalidParameter
from bindery.keys import Key, digest, row_text
from bindery.settings import Settings
from service import keyring
from service.keyring import KeyRing


def row(name: str, secret: str) -> Key:
    return Key(name=name, sha256=digest(secret), scopes=("read",))


def settings(**more: Any) -> Settings:
    return Settings(**more)


@pytest.fixture(autouse=True)
def _every_level_is_logged() -> Iterator[None]:
    """Whatever a server of another test has set."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(0))
    yield
    structlog.configure(**before)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys.toml"
    path.write_text(row_text(row("a", "bk_a")))
    return path


def test_without_keys_the_ring_is_open(tmp_path: Path) -> None:
    assert not KeyRing(settings()).closed
    assert KeyRing(settings(keys=(row("a", "bk_a"),))).closed
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    ring = KeyRing(settings(keys_file=empty))
    assert ring.closed, "an empty file must lock everyone out, not let everyone in"
    assert ring.find("") is None


def test_keys_of_the_environment_and_of_the_file_add_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINDERY_KEYS", f'[{{"name": "ops", "sha256": "{digest("bk_ops")}", "scopes": ["admin"]}}]')
    monkeypatch.setenv("BINDERY_KEYS_FILE", str(path))
    ring = KeyRing(Settings())
    assert [row.name for row in ring.table] == ["ops", "a"]
    with pytest.raises(InvalidParameter, match="the same name"):
        KeyRing(settings(keys=(row("a", "bk_other"),), keys_file=path))


def test_a_broken_file_at_the_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match=r"none\.toml cannot be read"):
        KeyRing(settings(keys_file=tmp_path / "none.toml"))


def test_a_changed_file_is_read_and_a_broken_one_is_not(path: Path) -> None:
    ring = KeyRing(settings(keys_file=path))
    path.write_text(row_text(row("b", "bk_b")) + row_text(row("c", "bk_c")))
    ring.refresh()
    assert [row.name for row in ring.table] == ["b", "c"]
    path.write_text("[[key]]\nname = ")
    with structlog.testing.capture_logs() as logs:
        ring.refresh()
        ring.refresh()
    assert [row.name for row in ring.table] == ["b", "c"]
    assert [line["log_level"] for line in logs] == ["error"], "one line for one change"
    path.unlink()
    ring.refresh()
    assert [row.name for row in ring.table] == ["b", "c"]
    path.write_text(row_text(row("d", "bk_d")))
    ring.refresh()
    assert [row.name for row in ring.table] == ["d"]


async def test_the_file_is_watched_while_the_service_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "LOOK_SECONDS", 0.01)
    ring = KeyRing(settings(keys_file=path))
    async with ring.watched():
        path.write_text(row_text(row("new", "bk_new")))
        async with asyncio.timeout(5):
            while ring.find("bk_new") is None:
                await asyncio.sleep(0.01)
    assert ring.find("bk_a") is None


async def test_a_hang_up_reads_the_file_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "LOOK_SECONDS", 60.0)
    ring = KeyRing(settings(keys_file=path))
    before = path.stat()
    async with ring.watched():
        path.write_text(row_text(row("b", "bk_b")))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a tool that keeps times would leave it
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(5):
            while ring.find("bk_b") is None:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("host", "warned"), [("127.0.0.1", False), ("127.0.0.9", False), ("::1", False), ("localhost", False), ("0.0.0.0", True), ("::", True)]
)
async def test_an_open_service_that_others_can_reach_says_so(host: str, warned: bool) -> None:
    with structlog.testing.capture_logs() as logs:
        async with KeyRing(settings(host=host)).watched():
            pass
        async with KeyRing(settings(host=host, keys=(row("a", "bk_a"),))).watched():
            pass
    assert [line["log_level"] for line in logs] == ["warning"] * warned
