"""Snapshots: a collection as it was at one moment, in a folder of its own under the data directory.

    snapshots/NAME/manifest.json   what it holds, and the SHA-256 of the other file
    snapshots/NAME/items.sqlite    items and vectors

Taken inside one reading transaction, so writers go on meanwhile and none of them is seen by half.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bindery.bundle import file_digest
from bindery.collections.fields import check_fields
from bindery.collections.model import Definition
from bindery.collections.records import Record, encode_metadata
from bindery.disk import full_disk_told, to_disk
from bindery.errors import SnapshotDamaged, UnknownSnapshot
from bindery.limits import Limits

FORMAT = 1
_MANIFEST, _ITEMS = "manifest.json", "items.sqlite"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,127}")
_AT_ONCE = 1000  # items of one step
_ABANDONED_S = 86_400.0  # a hidden folder that old was left by a process that died
_COLUMNS = "id, modality, uri, start_s, end_s, metadata, content_hash, data"


@dataclass(frozen=True, slots=True)
class Snapshot:
    name: str
    definition: Definition
    items: int
    bytes: int
    created_at: float  # seconds since 1970


def take(db: sqlite3.Connection, collection_id: int, definition: Definition, folder: Path) -> Snapshot:
    """A snapshot of what ``db``, inside a transaction, sees; on disk when this returns, absent when it raises.

    Raises `StorageFull`.
    """
    with full_disk_told(f"no space left in {folder} for a snapshot; free some, or delete older ones"):
        return _take(db, collection_id, definition, folder)


def _take(db: sqlite3.Connection, collection_id: int, definition: Definition, folder: Path) -> Snapshot:
    name = f"{definition.name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:6]}"
    _sweep(folder)
    making = folder / f".{name}"
    making.mkdir(parents=True)
    try:
        items = _copy(db, collection_id, making / _ITEMS)
        path = making / _ITEMS
        snapshot = Snapshot(name, definition, items, path.stat().st_size, time.time())
        manifest = {
            "format": FORMAT,
            "collection": definition.document(),
            "items": items,
            "created_at": snapshot.created_at,
            "files": {_ITEMS: {"sha256": file_digest(path), "bytes": snapshot.bytes}},
        }
        (making / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        to_disk(making / _MANIFEST)
        to_disk(making)
        making.rename(folder / name)
        to_disk(folder)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise
    return snapshot


def find(folder: Path, name: str) -> Snapshot:
    """Raises `UnknownSnapshot`, `SnapshotDamaged`."""
    manifest = _manifest(folder, name)
    try:
        told = manifest["collection"]
        definition = Definition(told["name"], told["space"], told["dimension"], told["bundle"], check_fields(told["fields"]))
        return Snapshot(name, definition, manifest["items"], manifest["files"][_ITEMS]["bytes"], manifest["created_at"])
    except (KeyError, TypeError) as error:
        raise SnapshotDamaged(f"snapshot {name}: {_MANIFEST} lacks {error}") from error


def every(folder: Path) -> list[Snapshot]:
    """All that can be read, by name."""
    names = sorted(path.name for path in folder.iterdir() if _NAME.fullmatch(path.name)) if folder.is_dir() else []
    found = []
    for name in names:
        try:
            found.append(find(folder, name))
        except (UnknownSnapshot, SnapshotDamaged):  # told by whoever asks for it by name
            continue
    return found


def remove(folder: Path, name: str) -> None:
    """Raises `UnknownSnapshot`."""
    if not _NAME.fullmatch(name) or not (folder / name).is_dir():
        raise UnknownSnapshot(f"there is no snapshot {name[:128]!r}")
    # Hidden in one step first: whoever dies while deleting must not leave half a snapshot under its name.
    going = folder / f".{name}-{uuid.uuid4().hex[:6]}"
    (folder / name).rename(going)
    shutil.rmtree(going)


def check(folder: Path, name: str) -> None:
    """Raises `SnapshotDamaged` naming the file that is missing or not as it was written."""
    for file, wanted in _manifest(folder, name)["files"].items():
        path = folder / name / Path(file).name
        if not path.is_file():
            raise SnapshotDamaged(f"snapshot {name}: {path.name} is missing")
        if path.stat().st_size != wanted["bytes"] or file_digest(path) != wanted["sha256"]:
            raise SnapshotDamaged(f"snapshot {name}: {path.name} is not what was written (its SHA-256 differs); take another snapshot")


def records(folder: Path, snapshot: Snapshot, limits: Limits) -> Iterator[list[Record]]:
    """Its items in their order, some at a time."""
    with closing(sqlite3.connect(f"file:{folder / snapshot.name / _ITEMS}?mode=ro&immutable=1", uri=True)) as source:
        rows = source.execute(f"SELECT {_COLUMNS} FROM items ORDER BY rowid")
        while piece := rows.fetchmany(_AT_ONCE):
            yield [_record(row, snapshot.definition, limits) for row in piece]


def _sweep(folder: Path) -> None:
    """Remove what processes that died left behind."""
    for path in folder.glob(".*"):
        with suppress(FileNotFoundError):  # another process has just finished it, or swept it up
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(path, ignore_errors=True)


def _copy(db: sqlite3.Connection, collection_id: int, path: Path) -> int:
    rows = db.execute(
        "SELECT id, items.modality, uri, start_s, end_s, metadata, content_hash, data FROM items "
        "JOIN vectors ON vectors.item_key = items.key WHERE items.collection_id = ? ORDER BY items.key",
        (collection_id,),
    )
    with closing(sqlite3.connect(path, isolation_level=None)) as out:
        out.execute("PRAGMA synchronous = FULL")
        out.execute(
            "CREATE TABLE items (id TEXT, modality TEXT, uri TEXT, start_s REAL, end_s REAL, metadata TEXT, content_hash TEXT, data BLOB)"
        )
        out.execute("BEGIN")
        while piece := rows.fetchmany(_AT_ONCE):
            out.executemany(f"INSERT INTO items ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", piece)
        out.execute("COMMIT")
        (count,) = out.execute("SELECT count(*) FROM items").fetchone()
    return int(count)


def _record(row: tuple[Any, ...], definition: Definition, limits: Limits) -> Record:
    id, modality, uri, start_s, end_s, metadata, content_hash, data = row
    _, fields = encode_metadata(json.loads(metadata), definition, limits)
    return Record(id, modality, data, uri, start_s, end_s, metadata, fields, content_hash)


def _manifest(folder: Path, name: str) -> dict[str, Any]:
    if not _NAME.fullmatch(name) or not (folder / name).is_dir():
        raise UnknownSnapshot(f"there is no snapshot {name[:128]!r}")
    try:
        manifest = json.loads((folder / name / _MANIFEST).read_text(encoding="utf-8"))
        found = manifest["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SnapshotDamaged(f"snapshot {name}: {_MANIFEST} cannot be read") from error
    if found != FORMAT or not isinstance(manifest.get("files"), dict):
        raise SnapshotDamaged(f"snapshot {name}: {_MANIFEST} has format {found!r}; this bindery reads {FORMAT}")
    return dict(manifest)
