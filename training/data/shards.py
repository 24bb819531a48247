"""Members of tar shards as sources, read in place: a shard is indexed once and never unpacked."""

from __future__ import annotations

import tarfile
from pathlib import Path
from threading import Lock

from bindery.media.source import Source
from training.data.manifest import Item, ManifestError


class MemberMissing(ManifestError):
    """A shard has no file of this name: one item is lost, not the data."""


class Files:
    """Opens the files of items, loose or in shards. May be used from several threads."""

    def __init__(self) -> None:
        self._shards: dict[Path, dict[str, tuple[int, int]]] = {}
        self._lock = Lock()

    def source(self, item: Item) -> Source:
        """Raises `ManifestError` when the shard cannot be read, `MemberMissing` when it has no such member."""
        if item.shard is None:
            return Source.of(item.root / item.path, name=item.path)
        shard = item.root / item.shard
        with self._lock:
            if shard not in self._shards:
                self._shards[shard] = _index(shard)
        try:
            offset, size = self._shards[shard][item.path]
        except KeyError:
            raise MemberMissing(f"{shard.name} has no member {item.path!r}") from None
        with shard.open("rb") as file:
            file.seek(offset)
            return Source.of(file.read(size), name=item.path)


def _index(shard: Path) -> dict[str, tuple[int, int]]:
    try:
        with tarfile.open(shard, "r:") as tar:  # uncompressed, or members could not be reached by their offset
            return {member.name: (member.offset_data, member.size) for member in tar if member.isfile()}
    except (OSError, tarfile.TarError) as error:
        raise ManifestError(f"{shard} cannot be read as an uncompressed tar: {error}") from error
