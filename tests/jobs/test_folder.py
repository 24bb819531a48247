from __future__ import annotations

import os
from pathlib import Path

import pytest

from bindery.errors import InvalidParameter
from bindery.jobs.listing import Listed, Rule, open_listing


def _make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def _listed(folder: Path, include: list[str] | None = None, rules: list[Rule] | None = None) -> dict[str, str | None]:
    listing = open_listing(str(folder), include=include or [], rules=rules or [])
    return {file.name: file.modality for file in listing if isinstance(file, Listed)}


def test_every_file_is_listed_but_hidden_ones(tmp_path: Path) -> None:
    _make(tmp_path, "a.png", "b/c.WAV", "b/d/e.jpg", "f.npy", ".hidden.png", ".git/h.png")
    listing = open_listing(str(tmp_path))
    assert [file.name for file in listing if isinstance(file, Listed)] == ["a.png", "f.npy", "b/c.WAV", "b/d/e.jpg"]
    first = next(iter(listing))
    assert isinstance(first, Listed)
    with listing.opened(first) as source:
        assert (first.uri, first.size, source.head(9)) == (str(tmp_path / "a.png"), 1, b"x")


def test_the_first_rule_that_matches_decides(tmp_path: Path) -> None:
    _make(tmp_path, "depth/a.png", "depth/b/c.npy", "x-depth.png", "y/z-depth.png", "p.png", "odd.bin", "other.png.gz")
    rules = [Rule("depth/**", "depth"), Rule("*-depth.png", "depth"), Rule("*.png", "thermal"), Rule("odd.bin", "audio")]
    assert _listed(tmp_path, rules=rules) == {
        "depth/a.png": "depth", "depth/b/c.npy": "depth", "x-depth.png": "depth", "y/z-depth.png": "depth",
        "p.png": "thermal", "odd.bin": "audio", "other.png.gz": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("glob", "found"),
    [
        ("*.png", {"a.png", "b/c.png", "b/d/e.png"}),
        ("**/*.png", {"a.png", "b/c.png", "b/d/e.png"}),
        ("b/*", {"b/c.png", "b/d/e.png"}),
        ("b/d/*.png", {"b/d/e.png"}),
        ("d/*.png", set()),
        ("c.png", {"b/c.png"}),
    ],
)
def test_globs(tmp_path: Path, glob: str, found: set[str]) -> None:
    _make(tmp_path, "a.png", "b/c.png", "b/d/e.png")
    assert set(_listed(tmp_path, include=[glob])) == found


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    _make(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for ever
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere")
    assert _listed(tmp_path) == {"a.png": None}


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="is not a folder"):
        _listed(_make(tmp_path, "a.png") / "a.png")
