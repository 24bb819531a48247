from __future__ import annotations

import fcntl
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bindery.collections import Query, Store
from bindery.collections import database as database_module
from bindery.collections.store import CATALOG
from bindery.errors import CatalogDamaged, CatalogTooNew, DeadlineExceeded, InvalidParameter, StorageFull
from tests.collections.items import DIMENSION, item, vector

_CHILD = """
import sys
from tests.collections.items import DIMENSION, item
from bindery.collections import Store

store = Store(sys.argv[1])
collection = store.create("c", space="s", dimension=DIMENSION, bundle="b")
number = int(sys.argv[2])
while True:
    results = collection.upsert([item(number + step, metadata={}) for step in range(3)])
    assert all(result.error is None for result in results)
    sys.stdout.write("".join(f"{result.id}\\n" for result in results))
    sys.stdout.flush()
    number += 3
"""


def _start_writer(folder: Path, number: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", _CHILD, str(folder), str(number)], stdout=subprocess.PIPE, text=True)


def _kill(child: subprocess.Popen[str]) -> list[str]:
    """Kill without warning; the ids that were acknowledged."""
    child.send_signal(signal.SIGKILL)
    printed, _ = child.communicate()
    assert child.returncode == -signal.SIGKILL, "the writer died by itself"
    return printed.splitlines() if printed.endswith("\n") else printed.splitlines()[:-1]


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    acknowledged: set[str] = set()
    for round in range(4):
        child = _start_writer(tmp_path, 100_000 * round)
        assert child.stdout is not None
        acknowledged |= {child.stdout.readline().strip()}  # it is at work
        time.sleep(0.05 * round)
        acknowledged |= set(_kill(child))
        with Store(tmp_path) as store:
            collection = store.get("c")
            present = {hit.id for hit in collection.search(Query(vector(0), 1000))}
            assert acknowledged <= set(collection.content_hashes(acknowledged))
            assert len(collection) % 3 == 0, "a request was stored in part"
            for id in sorted(acknowledged)[:: max(1, len(acknowledged) // 20)]:
                assert collection.search(Query(vector(int(id.removeprefix("item-"))), 1)).hits[0].id == id
            assert len(present) == min(1000, len(collection))
    assert len(acknowledged) > 12


def test_two_processes_write_and_a_third_reads(tmp_path: Path) -> None:
    children = [_start_writer(tmp_path, number) for number in (0, 500_000)]
    with Store(tmp_path) as store:
        collection = store.create("c", space="s", dimension=DIMENSION, bundle="b")
        seen = 0
        give_up = time.monotonic() + 20
        while seen < 60 and time.monotonic() < give_up:
            found = len(collection.search(Query(vector(1), 1000)))
            assert found >= seen
            seen = found
            collection.upsert([item(900_000, metadata={})])
        acknowledged = {child.stdout.readline().strip() for child in children if child.stdout}  # both have had their turn
        acknowledged |= {id for child in children for id in _kill(child)}
        assert seen >= 60
        assert acknowledged == set(collection.content_hashes(acknowledged))
        assert {int(id.removeprefix("item-")) >= 500_000 for id in acknowledged} == {True, False}


def test_a_full_disk_is_told_and_nothing_is_half_stored(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        collection = store.create("c", space="s", dimension=DIMENSION, bundle="b")
        collection.upsert([item(1, metadata={})])
        pages = store._database._writer.execute("PRAGMA page_count").fetchone()[0]
        store._database._writer.execute(f"PRAGMA max_page_count = {pages + 2}")  # what SQLite makes of a full disk
        with pytest.raises(StorageFull, match=CATALOG):
            collection.upsert([item(n, metadata={"filler": "x" * 1000}) for n in range(100)])
        assert len(collection) == 1
        assert [hit.id for hit in collection.search(Query(vector(1)))] == ["item-1"]
        store._database._writer.execute("PRAGMA max_page_count = 1000000")
        collection.upsert([item(2, metadata={})])
        assert len(collection) == 2


def test_a_write_that_is_refused_is_no_damage(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Store(tmp_path) as store:
        collection = store.create("c", space="s", dimension=DIMENSION, bundle="b")
        collection.upsert([item(1, metadata={})])
        largest = max(path.stat().st_size for path in tmp_path.iterdir())
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 8192, before[1]))  # as a quota would: the disk itself has room
        try:
            with pytest.raises(StorageFull, match=CATALOG):
                collection.upsert([item(n, metadata={"filler": "x" * 1000}) for n in range(500)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert [hit.id for hit in collection.search(Query(vector(1)))] == ["item-1"]
        collection.upsert([item(2, metadata={})])
        assert len(collection) == 2


@pytest.mark.parametrize("damage", ["noise", "header", "pages", "truncated"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    with Store(tmp_path) as store:
        store.create("c", space="s", dimension=DIMENSION, bundle="b").upsert([item(n) for n in range(300)])
    path = tmp_path / CATALOG
    whole = path.read_bytes()
    path.write_bytes(
        {
            "noise": bytes(range(256)) * 64,
            "header": b"\0" * 16 + whole[16:],
            "pages": whole[:8192] + b"\xa5" * (len(whole) - 8192),
            "truncated": whole[: len(whole) // 2],
        }[damage]
    )

    def use() -> None:
        with Store(tmp_path) as store:
            collection = store.get("c")
            collection.search(Query(vector(1)))
            collection.page(1000)

    with pytest.raises(CatalogDamaged, match=str(path)):
        use()


def test_a_newer_catalog_is_refused(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / CATALOG) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(CatalogTooNew, match=r"schema 99; this bindery reads up to \d"):
        Store(tmp_path)


def test_a_database_of_another_program_is_not_touched(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / CATALOG) as db:
        db.execute("CREATE TABLE recipes (name TEXT)")
    db.close()
    with pytest.raises(CatalogDamaged, match="another program"):
        Store(tmp_path)


def test_a_data_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(InvalidParameter, match="directory"):
        Store(tmp_path / "data")


def test_a_writer_that_hangs_in_another_process_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "LOCK_WAIT_S", 0.05)
    with Store(tmp_path) as store:
        collection = store.create("c", space="s", dimension=DIMENSION, bundle="b")
        collection.upsert([item(1, metadata={})])
        # A second open file holds its own lock, as another process would.
        with (tmp_path / CATALOG).with_suffix(".lock").open("a") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            with pytest.raises(DeadlineExceeded, match="stage: storage"):
                collection.upsert([item(2, metadata={})])
            assert [hit.id for hit in collection.search(Query(vector(1)))] == ["item-1"]  # readers never wait
        assert collection.upsert([item(2, metadata={})])[0].status == "created"


def test_closing_twice_is_no_error(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.close()
    store.close()
