from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from bindery.errors import InvalidParameter, UnreadableMedia
from bindery.jobs.intake import declared
from bindery.jobs.listing import Listed, Rule, Unlisted, open_listing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "media").mkdir()
    for name in ("a.png", "b.wav", "media/c.png"):
        (tmp_path / name).write_bytes(b"content of " + name.encode())
    return tmp_path


def _entries(manifest: Path, **more: object) -> tuple[dict[str, Listed], dict[str, Unlisted]]:
    entries = list(open_listing(str(manifest), **more))  # type: ignore[arg-type]
    good = {entry.name: entry for entry in entries if isinstance(entry, Listed)}
    bad = {entry.uri: entry for entry in entries if isinstance(entry, Unlisted)}
    assert len(good) + len(bad) == len(entries)
    return good, bad


def _written(folder: Path, kind: str) -> Path:
    """The same three rows in each kind of manifest."""
    path = folder / f"list.{kind}"
    rows = [
        {"uri": "a.png", "modality": "depth", "place": "yard", "metadata": {"n": 1}},
        {"uri": str(folder / "b.wav")},
        {"uri": f"file://{folder}/media/c.png", "place": "sea, north"},
    ]
    if kind == "csv":
        path.write_text(
            f'uri,modality,place,metadata\na.png,depth,yard,"{{""n"": 1}}"\n{rows[1]["uri"]}\n{rows[2]["uri"]},,"sea, north",\n'
        )
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    else:
        pa.parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_each_kind_says_the_same(folder: Path, kind: str) -> None:
    good, bad = _entries(_written(folder, kind))
    assert not bad
    assert {name: (file.uri, file.modality, file.metadata) for name, file in good.items()} == {
        "a.png": (str(folder / "a.png"), "depth", {"n": 1, "place": "yard"}),
        "b.wav": (str(folder / "b.wav"), None, {}),
        "media/c.png": (str(folder / "media/c.png"), None, {"place": "sea, north"}),
    }
    assert good["b.wav"].size == len(b"content of b.wav")
    listing = open_listing(str(folder / f"list.{kind}"))
    with listing.opened(good["media/c.png"]) as source:
        assert source.head(99) == b"content of media/c.png"


def test_rules_are_for_rows_that_say_nothing_and_globs_let_in(folder: Path) -> None:
    good, _ = _entries(_written(folder, "csv"), rules=[Rule("*.png", "thermal")], include=["*.png"])
    assert {name: file.modality for name, file in good.items()} == {"a.png": "depth", "media/c.png": "thermal"}


def test_a_bad_row_fails_alone_and_is_named(folder: Path) -> None:
    lines = [
        b'{"uri": "a.png"}',
        b'{"uri": ',
        b"[1, 2]",
        b'{"modality": "image"}',
        b'{"uri": 7}',
        b'{"uri": "gone.png"}',
        b'{"uri": "media"}',
        b'{"uri": "a\\u0000.png"}',
        b'{"uri": "https://example.org/x.png"}',
        b'{"uri": "b.wav", "metadata": "no json"}',
        b'{"uri": "d.wav", "metadata": [1]}',
        b'{"uri": "caf\xe9.png"}',
        b'{"uri": "a.png", "note": "' + b"x" * (1 << 20) + b'"}',
        b"[" * 5000,
        b'{"uri": "media/c.png"}',
    ]
    (folder / "list.jsonl").write_bytes(b"\n".join(lines))
    good, bad = _entries(folder / "list.jsonl")
    assert list(good) == ["a.png", "media/c.png"]
    nameless = {f"list.jsonl row {number}" for number in (2, 3, 4, 5, 9, 12, 13, 14)}
    assert {uri for uri, entry in bad.items() if entry.nameless} == nameless
    assert set(bad) == nameless | {"gone.png", "media", "a\0.png", "b.wav", "d.wav"}
    assert {type(bad[name].error) for name in ("gone.png", "media", "a\0.png")} == {UnreadableMedia}
    assert "row 6" in bad["gone.png"].error.detail


def test_bad_lines_of_a_csv_fail_alone(folder: Path) -> None:
    rows = [b"uri,place", b"a.png,yard", b"b.wav,a,b,c", b",yard", b"caf\xe9.png,x", b'b.wav,"' + b"y" * 200_000 + b'"', b"media/c.png,z"]
    (folder / "list.csv").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(rows))
    good, bad = _entries(folder / "list.csv")
    assert {name: file.metadata for name, file in good.items()} == {"a.png": {"place": "yard"}, "media/c.png": {"place": "z"}}
    assert set(bad) == {f"list.csv row {number}" for number in (2, 3, 4, 5)}


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("none.csv", None, "is not there"),
        ("no-uri.csv", b"path\na.png\n", "no column uri"),
        ("empty.csv", b"", "no column uri"),
        ("no.parquet", b"PAR1 but no more", "no Parquet file"),
    ],
)
def test_what_is_no_manifest_is_refused_as_a_whole(folder: Path, name: str, content: bytes | None, told: str) -> None:
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises((InvalidParameter, UnreadableMedia), match=told):
        _entries(folder / name)


def test_parquet_values_become_json(folder: Path) -> None:
    when = datetime(2026, 3, 1, 12, tzinfo=UTC)
    row = {"uri": "a.png", "when": when, "share": float("nan"), "tags": ["x", "y"], "at": {"lat": 1.5}, "raw": b"\0"}
    pa.parquet.write_table(pa.Table.from_pylist([{**row, "raw": None}, {**row, "uri": "b.wav"}]), folder / "list.parquet")
    good, bad = _entries(folder / "list.parquet")
    assert good["a.png"].metadata == {"when": when.isoformat(), "tags": ["x", "y"], "at": {"lat": 1.5}}
    assert "column raw holds bytes" in bad["b.wav"].error.detail


def test_nothing_is_asked_about_files_that_are_not_allowed(folder: Path) -> None:
    (folder / "list.jsonl").write_text('{"uri": "a.png"}\n{"uri": "../nothing-there"}\n{"uri": "s3://bucket/x.png"}\n')
    good, bad = _entries(folder / "list.jsonl", allowed=lambda uri: uri.startswith(str(folder)))
    assert list(good) == ["a.png"]
    assert {entry.error.code for entry in bad.values()} == {"source_not_allowed"}  # not: unreadable, or no such bucket


def test_text_becomes_what_the_collection_declares() -> None:
    text = {"year": "2024", "score": "0.5", "public": "yes", "name": "7", "other": "1", "wrong": "many"}
    fields = {"year": "integer", "score": "number", "public": "boolean", "name": "keyword", "wrong": "integer"}
    assert declared(text, fields) == {**text, "year": 2024, "score": 0.5, "public": True}  # type: ignore[arg-type]
