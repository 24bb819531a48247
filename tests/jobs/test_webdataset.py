from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bindery.errors import InvalidParameter, StorageFull, UnreadableMedia
from bindery.jobs.listing import Listed, Rule, Unlisted, open_listing
from bindery.jobs.sources import spool


def tar_of(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def _read(source: str, **more: object) -> tuple[dict[str, tuple[bytes, str | None, object]], dict[str, Unlisted]]:
    listing = open_listing(source, **more)  # type: ignore[arg-type]
    good, bad = {}, {}
    for entry in listing:
        if isinstance(entry, Unlisted):
            bad[entry.uri] = entry
            continue
        with listing.opened(entry) as opened, opened.open() as stream:
            good[entry.name] = (stream.read(), entry.modality, entry.metadata)
    return good, bad


def test_members_are_files_and_a_json_beside_them_is_their_metadata(tmp_path: Path) -> None:
    said = {"caption": "a dog", "year": 2024}
    members = {
        "./0001.jpg": b"one", "./0001.json": json.dumps(said).encode(), "./0001.depth.png": b"deep", "in/0002.wav": b"two",
        "alone.json": b"{}", ".hidden.jpg": b"no", "../out.jpg": b"no", "/abs/3.jpg": b"three",
    }  # fmt: skip
    good, bad = _read(str(tar_of(tmp_path / "a.tar", members)), rules=[Rule("*.depth.png", "depth")])
    assert not bad
    assert good == {
        "a.tar/0001.jpg": (b"one", None, said),
        "a.tar/0001.depth.png": (b"deep", "depth", said),
        "a.tar/in/0002.wav": (b"two", None, {}),
        "a.tar/alone.json": (b"{}", None, {}),  # left out by its suffix
        "a.tar/abs/3.jpg": (b"three", None, {}),
    }


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("s-{00..02}.tar", ["s-00.tar/x.jpg", "s-01.tar/x.jpg", "s-02.tar/x.jpg"]),
        ("s-{01,00}.tar", ["s-01.tar/x.jpg", "s-00.tar/x.jpg"]),
        ("s-*.tar", ["s-00.tar/x.jpg", "s-01.tar/x.jpg", "s-02.tar/x.jpg"]),
        ("*/deep.tar", ["val/deep.tar/x.jpg"]),
        ("{s-00,val/deep}.tar", ["s-00.tar/x.jpg", "val/deep.tar/x.jpg"]),
        ("**/*.tar", ["s-00.tar/x.jpg", "s-01.tar/x.jpg", "s-02.tar/x.jpg", "val/deep.tar/x.jpg"]),
    ],
)
def test_patterns_name_many_tars(tmp_path: Path, pattern: str, found: list[str]) -> None:
    for name in ("s-00.tar", "s-01.tar", "s-02.tar", "val/deep.tar"):
        tar_of(tmp_path / name, {"x.jpg": name.encode()})
    good, _ = _read(str(tmp_path / pattern))
    assert list(good) == found
    assert all(content.decode() == name.removesuffix("/x.jpg") for name, (content, _, _) in good.items())


@pytest.mark.parametrize("pattern", ["s-{00..02}.tar", "none-*.tar", "gone.tar", "s-{9..1}.tar", "{0..99999999}.tar", "{..,x}/s-00.tar"])
def test_a_tar_that_is_missing_is_told_at_once(tmp_path: Path, pattern: str) -> None:
    tar_of(tmp_path / "s-00.tar", {"x.jpg": b"x"})
    with pytest.raises(InvalidParameter):
        list(open_listing(str(tmp_path / pattern)))


def test_a_broken_tar_fails_beside_the_whole_ones(tmp_path: Path) -> None:
    whole = tar_of(tmp_path / "0.tar", {"x.jpg": b"x" * 3000}).read_bytes()
    (tmp_path / "1.tar").write_bytes(whole[:1500])
    (tmp_path / "2.tar").write_bytes(b"no tar at all" * 100)
    (tmp_path / "3.tar").mkdir()
    tar_of(tmp_path / "4.tar", {"y.jpg": b"y", "y.json": b"{broken", "z.jpg": b"z", "z.json": b"[]"})
    listing = open_listing(str(tmp_path / "?.tar"))
    entries = list(listing)
    assert [entry.name for entry in entries if isinstance(entry, Listed)] == ["0.tar/x.jpg", "1.tar/x.jpg"]
    bad = {entry.uri: entry for entry in entries if isinstance(entry, Unlisted)}
    assert set(bad) == {"1.tar", "2.tar", "3.tar", "4.tar/y.jpg", "4.tar/z.jpg"}
    assert {name for name, entry in bad.items() if entry.nameless} == {"1.tar", "2.tar", "3.tar"}
    cut = next(entry for entry in entries if isinstance(entry, Listed) and entry.name == "1.tar/x.jpg")
    with pytest.raises(UnreadableMedia, match="breaks off inside"), listing.opened(cut):
        pass


def test_a_tar_that_has_changed_is_not_read_at_old_places(tmp_path: Path) -> None:
    tar = tar_of(tmp_path / "a.tar", {"x.jpg": b"x", "y.jpg": b"y"})
    listing = open_listing(str(tar))
    first = next(iter(listing))
    assert isinstance(first, Listed)
    tar_of(tar, {"new.jpg": b"n" * 2000, "x.jpg": b"x"})
    with pytest.raises(UnreadableMedia, match="has changed"), listing.opened(first):
        pass


def test_large_members_lie_in_a_file_for_as_long_as_they_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY", 1000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "spool"))
    (tmp_path / "spool").mkdir()
    left = tmp_path / "spool" / "bindery-scratch-source-of-a-killed-process"
    left.mkdir()
    (left / "bytes").write_bytes(b"x")
    content = bytes(range(256)) * 20_000
    listing = open_listing(str(tar_of(tmp_path / "a.tar", {"x.jpg": content})))
    entry = next(iter(listing))
    assert isinstance(entry, Listed)
    with listing.opened(entry) as source:
        assert source.path is not None
        assert source.path.read_bytes() == content
        assert not left.exists()
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_large_member_that_the_temporary_folder_has_no_room_for_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def full(_what: str) -> Iterator[Path]:
        (tmp_path / "bytes").symlink_to("/dev/full")
        yield tmp_path

    monkeypatch.setattr(spool, "IN_MEMORY", 1000)
    monkeypatch.setattr(spool, "scratch_folder", full)
    listing = open_listing(str(tar_of(tmp_path / "a.tar", {"x.jpg": bytes(2000)})))
    entry = next(iter(listing))
    assert isinstance(entry, Listed)
    with pytest.raises(StorageFull, match="no space left"), listing.opened(entry):
        pass


def test_only_tars_that_are_allowed_are_opened(tmp_path: Path) -> None:
    tar_of(tmp_path / "in/0.tar", {"x.jpg": b"x"})
    tar_of(tmp_path / "out/1.tar", {"y.jpg": b"y"})
    good, bad = _read(str(tmp_path / "*/*.tar"), allowed=lambda uri: "/in/" in uri)
    assert list(good) == ["in/0.tar/x.jpg"]
    assert {name: entry.error.code for name, entry in bad.items()} == {"out/1.tar": "source_not_allowed"}
