"""Rows in segments: the same answers as from the catalog, whatever happens to the files."""

from __future__ import annotations

import errno
import fcntl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bindery.collections import Item, Query, Store, sealing, segment, segment_files
from bindery.collections.local import LocalCollection
from bindery.collections.tiers import Tiers
from bindery.errors import StorageFull
from bindery.vectors import Vectors, normalize

DIMENSION = 32
SMALL = Tiers(exact_rows=1000, always_exact=50, segment_rows=5000)


def _rows(seed: int, count: int) -> Vectors:
    """Clustered, as vectors of media are."""
    random = np.random.default_rng(seed)
    centres = normalize(np.random.default_rng(0).standard_normal((40, DIMENSION)))
    return normalize(centres[random.integers(0, 40, count)] + 0.15 * random.standard_normal((count, DIMENSION)))


def _fill(collection: LocalCollection, first: int, count: int, seed: int = 1) -> dict[str, Vectors]:
    rows = _rows(seed, count)
    items = [Item(f"i{first + n}", "image", row, metadata={"n": first + n}) for n, row in enumerate(rows)]
    collection.upsert(items)
    return {item.id: item.vector for item in items}


Opening = Callable[[], LocalCollection]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opening]:
    """Opens the collection of the test, each time in a store of its own, as another process would."""
    with ExitStack() as stores:
        yield lambda: stores.enter_context(Store(tmp_path, tiers=SMALL)).create(
            "things", space="s", dimension=DIMENSION, bundle="toy", fields={"n": "integer"}
        )


def _check(collection: LocalCollection, truth: dict[str, Vectors], exact: bool = True) -> dict[str, object]:
    """Search finds what brute force over ``truth`` finds; the plan's line."""
    ids = list(truth)
    stored = np.stack(list(truth.values())).astype(np.float16).astype(np.float32)
    line: dict[str, object] = {}
    shares = []
    for query in _rows(99, 20):
        result = collection.search(Query(query, top_k=10, exact=exact))
        best = sorted(zip(-(stored @ query), range(len(ids)), strict=True))[:10]
        wanted = {ids[place] for _, place in best}
        shares.append(len(wanted & {hit.id for hit in result}) / len(wanted))
        line = result.plan["modalities"]["image"]
        assert result.plan["exact"] is (line["plan"] == "exact")
    assert np.mean(shares) == 1.0 if exact else np.mean(shares) >= 0.98
    return line


def test_sealed_rows_are_found_by_code_and_exactly(opened: Opening) -> None:
    collection = opened()
    truth = _fill(collection, 0, 3000)
    collection.seal()
    assert _check(collection, truth, exact=False)["plan"] == "ann"
    assert _check(collection, truth)["plan"] == "exact"
    assert _check(opened(), truth, exact=False)["index"] == "ivf_pq"


def test_what_is_written_after_the_sealing_is_found_at_once(opened: Opening) -> None:
    collection = opened()
    truth = _fill(collection, 0, 2000)
    collection.seal()
    _check(collection, truth)
    truth |= _fill(collection, 1990, 50, seed=2)  # ten of them written again
    collection.delete(ids=[f"i{n}" for n in range(0, 2000, 7)])
    collection.upsert([Item("i1", "image", _rows(3, 1)[0])])
    truth = {id: row for id, row in truth.items() if int(id[1:]) % 7 or int(id[1:]) >= 2000} | {"i1": _rows(3, 1)[0]}
    _check(collection, truth)
    _check(collection, truth, exact=False)
    again = opened()
    _check(again, truth)
    assert len(again) == len(truth)


def test_segments_are_merged_and_their_dead_rows_left_out(tmp_path: Path, opened: Opening) -> None:
    collection = opened()
    truth: dict[str, Vectors] = {}
    for part in range(4):
        truth |= _fill(collection, 900 * part, 1100, seed=part)  # some are written again
        collection.seal()
    _check(collection, truth)
    collection.delete(ids=list(truth)[:1500])
    truth = dict(list(truth.items())[1500:])
    collection.seal()
    for each in (collection, opened()):
        _check(each, truth)
        _check(each, truth, exact=False)
    folders = [path for path in (tmp_path / "segments" / str(collection.id)).iterdir() if path.is_dir()]
    assert 1 <= len(folders) <= 3


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", [segment_files.VECTORS, segment_files.KEYS, segment_files.CODES])
@pytest.mark.parametrize("harm", [_cut, _flip, Path.unlink])
def test_a_damaged_segment_is_served_from_the_catalog_and_built_again(
    tmp_path: Path, opened: Opening, name: str, harm: Callable[[Path], None]
) -> None:
    collection = opened()
    truth = _fill(collection, 0, 1500)
    collection.seal()
    truth |= _fill(collection, 1400, 200, seed=2)
    collection.delete(ids=["i3", "i4"])
    truth = {id: row for id, row in truth.items() if id not in ("i3", "i4")}
    (path,) = (tmp_path / "segments").glob(f"*/*/{name}")
    harm(path)
    again = opened()
    line = again.search(Query(_rows(99, 1)[0])).plan["modalities"]["image"]
    _check(again, truth)
    assert (line["index"], line["plan"], line["rows"]) == ("flat", "exact", len(truth))
    again.seal()
    assert _check(again, truth, exact=False)["plan"] == "ann"
    assert _check(opened(), truth)["index"] == "ivf_pq"


def test_a_full_disk_is_told_and_changes_nothing(tmp_path: Path, opened: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = opened()
    truth = _fill(collection, 0, 1500)

    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(segment_files, "to_disk", full)
        with pytest.raises(StorageFull, match="items themselves are safe"):
            collection.seal()
    assert [path.name for path in (tmp_path / "segments" / str(collection.id)).iterdir()] == ["building.lock"]
    assert _check(collection, truth)["index"] == "flat"
    collection.seal()
    assert _check(collection, truth)["index"] == "ivf_pq"


def test_the_background_seals_and_a_second_process_takes_it_up(tmp_path: Path) -> None:
    with Store(tmp_path, tiers=SMALL) as one, Store(tmp_path, tiers=SMALL) as two:
        writer = one.create("things", space="s", dimension=DIMENSION, bundle="toy", fields={"n": "integer"})
        reader = two.get("things")
        _check(reader, truth := _fill(writer, 0, 500))
        truth |= _fill(writer, 500, 1000, seed=2)
        for each in (writer, reader):
            for _ in range(2000):
                if _check(each, truth, exact=False)["index"] == "ivf_pq":
                    break
            else:
                pytest.fail("the rows were never sealed")
        _check(reader, truth)


def test_what_another_process_keeps_from_being_sealed_is_sealed_when_it_has_ended(
    tmp_path: Path, opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "BUSY_S", 0.01)
    collection = opened()
    folder = tmp_path / "segments" / str(collection.id)
    folder.mkdir(parents=True)
    with (folder / "building.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        truth = _fill(collection, 0, 1200)
        assert _check(collection, truth)["index"] == "flat"
    for _ in range(2000):  # no write comes that would ask for it
        if _check(collection, truth)["index"] == "ivf_pq":
            return
    pytest.fail("the rows were never sealed")


@pytest.mark.parametrize("name", ["keys.i64", "vectors.f16", "codes.faiss"])
def test_a_segment_that_another_process_sweeps_away_while_it_is_read_is_served_from_the_catalog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with Store(tmp_path, tiers=SMALL) as writer:
        collection = writer.create("things", space="s", dimension=DIMENSION, bundle="toy")
        truth = _fill(collection, 0, 1200)
        collection.seal()
    checked = segment_files.check

    def swept(folder: Path, files: segment_files.Files, file: str, **options: Any) -> Path:
        path = checked(folder, files, file, **options)
        if file == name:
            path.unlink()
        return path

    monkeypatch.setattr(segment_files, "check", swept)
    with Store(tmp_path, tiers=SMALL) as reader:
        _check(reader.get("things"), truth)


def test_a_collection_that_cannot_be_sealed_holds_up_no_other() -> None:
    tended: list[str] = []
    sealed = threading.Event()

    class Full:
        def tend(self, _: Callable[[], bool]) -> bool:
            tended.append("full")
            raise OSError(errno.ENOSPC, "no space left on device")

    class Well:
        def tend(self, _: Callable[[], bool]) -> bool:
            tended.append("well")
            sealed.set()
            return True

    background, full = sealing.Background(), Full()
    try:
        background.notify(full)
        background.notify(Well())
        assert sealed.wait(30.0)  # not after RETRY_S
        background.notify(full)  # its time has not come again: a full disk is not asked at every write
        sealed.clear()
        background.notify(Well())
        assert sealed.wait(30.0)
        assert tended == ["full", "well", "well"]
    finally:
        background.close()


def test_deleting_a_collection_removes_its_segments(tmp_path: Path) -> None:
    with Store(tmp_path, tiers=SMALL) as store:
        collection = store.create("things", space="s", dimension=DIMENSION, bundle="toy")
        collection.upsert([Item(str(n), "image", row) for n, row in enumerate(_rows(1, 1200))])
        collection.seal()
        assert list((tmp_path / "segments").iterdir())
        store.delete("things")
        assert not list((tmp_path / "segments").iterdir())
        orphan = tmp_path / "segments" / str(collection.id)
        orphan.mkdir()
    (tmp_path / "segments" / "999").mkdir()  # of a collection that another process makes just now
    with Store(tmp_path):
        assert [path.name for path in (tmp_path / "segments").iterdir()] == ["999"]


def test_a_segment_of_which_deletions_leave_a_handful_is_built_anew(opened: Opening) -> None:
    collection = opened()
    truth = _fill(collection, 0, 1200)
    collection.seal()
    collection.delete(ids=[f"i{n}" for n in range(1195)])
    collection.seal()
    kept = {id: vector for id, vector in truth.items() if int(id[1:]) >= 1195}
    assert _check(collection, kept)["rows"] == 5
    assert _check(opened(), kept)["rows"] == 5


def test_large_vectors_are_checked_in_the_background(tmp_path: Path, opened: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = opened()
    truth = _fill(collection, 0, 1500)
    collection.seal()
    (path,) = (tmp_path / "segments").glob(f"*/*/{segment_files.VECTORS}")
    _flip(path)
    monkeypatch.setattr(segment, "_CHECKED_AT_ONCE", 0)
    with pytest.raises(InterruptedError):  # so that a store that is closed need not wait for the checking
        segment_files.digest(path, lambda: True)
    again = opened()
    assert again.search(Query(_rows(99, 1)[0])).plan["modalities"]["image"]["index"] == "ivf_pq"
    again.seal()
    _check(again, truth)
    (renewed,) = (tmp_path / "segments").glob(f"*/*/{segment_files.VECTORS}")
    assert renewed != path


@pytest.mark.parametrize("others", [0, 1, 4])
def test_a_segment_holds_its_own_rows_however_they_lie_among_others(tmp_path: Path, others: int) -> None:
    with Store(tmp_path, tiers=SMALL) as store:
        mine, theirs = (store.create(name, space="s", dimension=DIMENSION, bundle="toy") for name in ("a", "b"))
        truth: dict[str, Vectors] = {}
        rows = iter(_rows(3, 1200))
        for first in range(0, 1200, 50):
            items = [Item(f"i{first + n}", "image", next(rows)) for n in range(50)]
            mine.upsert([one for item in items for one in (item, *[Item(f"{item.id}/{n}", "audio", -item.vector) for n in range(others)])])
            theirs.upsert([Item(item.id, "image", -item.vector) for item in items[: 10 * others]])
            truth |= {item.id: item.vector for item in items}
        mine.seal()
        assert mine.state().partitions["image"].segments == 1
        mine.delete(filter={"modality": {"eq": "audio"}})
        _check(mine, truth)
        _check(mine, truth, exact=False)


def test_what_was_written_here_is_not_read_again_to_be_checked_and_elsewhere_it_is(
    opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    digested: list[str] = []
    digest = segment_files.digest

    def counted(path: Path, *rest: Callable[[], bool]) -> str:
        digested.append(path.name)
        return digest(path, *rest)

    monkeypatch.setattr(segment_files, "digest", counted)
    collection = opened()
    truth = _fill(collection, 0, 900)  # too few for the background to begin with them
    monkeypatch.setattr(collection._sealer, "_tiers", Tiers(exact_rows=500))
    collection.seal()
    _check(collection, truth, exact=False)
    assert digested.count(segment_files.VECTORS) == 1
    assert [part.verified for part in collection._vectors.segments["image"]] == [True]
    opened().search(Query(_rows(99, 1)[0]))
    assert digested.count(segment_files.VECTORS) == 2
