"""WebDataset shards as items: `train-{000..127}.tar`, each sample's files side by side under one key.

`000017.jpg` is the medium, `000017.txt` its caption; `000017.json` may hold any column of a manifest (`captions`, `label`, `split`,
`weight`, ...), or one `caption`; `000017.cls` is the label. The shards are indexed once and read in place, so the order of training
follows from the seed alone, as for any manifest.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from training.data.manifest import Item, ManifestError, item_of

_WORDS = {"txt", "json", "cls"}


def is_shards(manifest: str) -> bool:
    return manifest.endswith(".tar")


def read_shards(pattern: Path, *, member: str | None = None) -> list[Item]:
    """The items of all shards, in their order. ``pattern``: one tar, with `{000..127}` or `*` in its name for many.

    ``member``: the ending of the medium's file (`jpg`, `depth.png`) where a sample has several. Raises `ManifestError`.
    """
    shards = _expanded(pattern)
    if not shards:
        raise ManifestError(f"{pattern} names no file")
    return [item for shard in shards for item in _items(shard, member)]


def _expanded(pattern: Path) -> list[Path]:
    found = re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)\}(.*)", pattern.name)
    if found is not None:
        before, first, last, after = found.groups()
        return [pattern.with_name(f"{before}{number:0{len(first)}}{after}") for number in range(int(first), int(last) + 1)]
    return sorted(pattern.parent.glob(pattern.name)) if "*" in pattern.name else [pattern]


def _items(shard: Path, member: str | None) -> Iterator[Item]:
    try:
        with tarfile.open(shard, "r:") as tar:  # uncompressed, or members could not be reached by their offset
            for key, files in _samples(tar):
                yield _item(shard, key, files, member, tar)
    except (OSError, tarfile.TarError) as error:
        raise ManifestError(f"{shard} cannot be read as an uncompressed tar: {error}") from error


def _samples(tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """Key → (ending → member), for members of one key in a row: a name is split at the first dot behind its folder."""
    key, files = "", dict[str, tarfile.TarInfo]()
    for info in tar:
        if not info.isfile():
            continue
        path = PurePosixPath(info.name)
        stem, _, ending = path.name.partition(".")
        if (now := str(path.with_name(stem))) != key:
            if files:
                yield key, files
            key, files = now, {}
        files[ending.lower()] = info
    if files:
        yield key, files


def _item(shard: Path, key: str, files: dict[str, tarfile.TarInfo], member: str | None, tar: tarfile.TarFile) -> Item:
    where = f"{shard}, sample {key}"
    media = [ending for ending in files if ending not in _WORDS and (member is None or ending == member.lower())]
    if len(media) != 1:
        wanted = f"no .{member}" if member else "no medium" if not media else f"several media ({', '.join(media)}); name one in data.member"
        raise ManifestError(f"{where} has {wanted}")
    row: dict[str, Any] = {}
    if "json" in files:
        row = _json(where, _text(where, tar, files["json"]))
        if "captions" not in row and row.get("caption"):
            row["captions"] = [row["caption"]]
    if "txt" in files:
        row["captions"] = [_text(where, tar, files["txt"]), *(row.get("captions") or [])]
    if "cls" in files:
        row["label"] = _text(where, tar, files["cls"]).strip()
    return item_of({"id": key, **row, "path": files[media[0]].name, "shard": shard.name}, root=shard.parent, where=where)


def _text(where: str, tar: tarfile.TarFile, info: tarfile.TarInfo) -> str:
    stream = tar.extractfile(info)
    assert stream is not None  # only regular files come this far
    try:
        return stream.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{where}: {info.name} is not UTF-8") from error


def _json(where: str, text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except ValueError as error:
        raise ManifestError(f"{where} has no JSON in its .json: {error}") from error
    if not isinstance(row, dict):
        raise ManifestError(f"{where} has no JSON object in its .json")
    return row
