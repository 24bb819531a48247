"""A folder as a source: every file below it, in the order of their names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from bindery.errors import InvalidParameter
from bindery.jobs.listing import Allowed, Listed, Rule, Unlisted, ruled, wanted
from bindery.jobs.retry import read_error
from bindery.media.source import Source


class FolderListing:
    """Implements `Listing`. Hidden files and folders are left out."""

    def __init__(self, folder: str, include: Sequence[str], rules: Sequence[Rule], _: Allowed) -> None:
        self._folder = Path(folder)
        self._include = include
        self._rules = rules

    def __iter__(self) -> Iterator[Listed | Unlisted]:
        for path in _walk(self._folder):
            name = path.relative_to(self._folder).as_posix()
            if wanted(name, self._include):
                try:
                    status = path.stat()
                except OSError as error:  # removed meanwhile, or its drive is away
                    yield Unlisted(name, read_error(name, error))
                    continue
                yield Listed(
                    uri=str(path.absolute()),
                    name=name,
                    size=status.st_size,
                    modality=ruled(name, self._rules),
                    fingerprint=f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}",
                )

    def opened(self, listed: Listed) -> AbstractContextManager[Source]:
        return nullcontext(Source(listed.name, path=Path(listed.uri)))


def _walk(folder: Path) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        raise InvalidParameter(f"{error.filename} cannot be listed: {error.strerror}")

    if not folder.is_dir():
        raise InvalidParameter(f"{folder} is not a folder")
    for place, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(place, name) for name in sorted(names) if not name.startswith("."))
        yield from (path for path in paths if path.is_file())  # no pipes and sockets: opening those may never end
