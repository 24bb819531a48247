"""What a job works through: the interface that every kind of source keeps, and the choice of the one that a name means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from bindery.errors import BinderyError, InvalidParameter
from bindery.media.source import Source

_MANIFEST = ("manifest", "ManifestListing")
_BY_SUFFIX = {".csv": _MANIFEST, ".jsonl": _MANIFEST, ".parquet": _MANIFEST, ".tar": ("webdataset", "TarListing")}


@dataclass(frozen=True, slots=True)
class Rule:
    """Files that match the glob are of this modality. The first rule that matches decides."""

    glob: str
    modality: str


@dataclass(frozen=True, slots=True)
class Listed:
    """One file of a source."""

    uri: str  # where it is: an absolute path, `s3://...`, or a tar's path and the member
    name: str  # below the source, with forward slashes: what globs and rules are about, and the item's id
    size: int  # bytes
    modality: str | None = None  # by a rule or by the manifest; None: its suffix has to say
    metadata: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    """Size and time, an etag: while it stays, the bytes are taken to be the same. Empty: nothing is known."""


@dataclass(frozen=True, slots=True)
class Unlisted:
    """An entry of a source that names no file: a broken line of a manifest, for instance. It counts as failed."""

    uri: str
    error: BinderyError


class Listing(Protocol):
    """A source as a list. It can be walked again from the start, and is never held in memory as a whole."""

    def __iter__(self) -> Iterator[Listed | Unlisted]:
        """Raises a `BinderyError` when the source as a whole cannot be listed: half a list must not pass for all."""

    def open(self, listed: Listed) -> Source:
        """The file's bytes, on disk or in memory. Any thread may call. Raises the file's `BinderyError`."""


def open_listing(source: str, *, include: Sequence[str] = (), rules: Sequence[Rule] = ()) -> Listing:
    """The listing of a folder, a manifest, WebDataset tars or an object store. Raises `InvalidParameter` for what is none."""
    if (place := _place(source)) is not None:
        made: Listing = getattr(import_module(f"bindery.jobs.sources.{place[0]}"), place[1])(source, include, rules)
        return made
    if not Path(source).is_dir():
        known = ", ".join(_BY_SUFFIX)
        raise InvalidParameter(f"{source} is not a folder, a file of a known kind ({known}) or s3://BUCKET/PREFIX", pointer="/source")
    from bindery.jobs.folder import FolderListing

    return FolderListing(Path(source), include, rules)


def _place(source: str) -> tuple[str, str] | None:
    """Module and class of a source that is no folder; they are imported when they are used, since some need an extra."""
    if source.startswith("s3://"):
        return ("objects", "ObjectListing")
    return None if Path(source).is_dir() else _BY_SUFFIX.get(PurePosixPath(source).suffix.lower())


def wanted(name: str, include: Sequence[str]) -> bool:
    """Whether the globs let a file in; without any, every file is."""
    return not include or any(matches(name, glob) for glob in include)


def ruled(name: str, rules: Sequence[Rule]) -> str | None:
    """The modality that the first matching rule says."""
    return next((rule.modality for rule in rules if matches(name, rule.glob)), None)


def matches(name: str, glob: str) -> bool:
    """A glob without a slash is about the last part of the name; one with a slash about all of it. ``*`` crosses slashes."""
    if "/" not in glob:
        return fnmatchcase(PurePosixPath(name).name, glob)
    return fnmatchcase(name, glob) or (glob.startswith("**/") and fnmatchcase(name, glob.removeprefix("**/")))
