"""What a job works through: the interface that every kind of source keeps, and the choice of the one that a name means."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from bindery.errors import BinderyError, InvalidParameter, SourceNotAllowed
from bindery.media.source import Source

_MANIFEST = ("sources.manifest", "ManifestListing")
Allowed = Callable[[str], bool]
"""Whether a file's uri may be read at all."""

_BY_SUFFIX = {".csv": _MANIFEST, ".jsonl": _MANIFEST, ".parquet": _MANIFEST, ".tar": ("sources.webdataset", "TarListing")}


@dataclass(frozen=True, slots=True)
class Rule:
    """Files that match the glob are of this modality. The first rule that matches decides."""

    glob: str
    modality: str


@dataclass(frozen=True, slots=True)
class Listed:
    """One file of a source."""

    uri: str  # where it is: an absolute path, `s3://...`, or a tar's path with the member's name below it
    name: str  # below the source, with forward slashes: what globs and rules are about, and the item's id
    size: int  # bytes
    modality: str | None = None  # by a rule or by the manifest; None: its suffix has to say
    metadata: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    """Size and time, an etag: while it stays, the bytes are taken to be the same. Empty: nothing is known."""


@dataclass(frozen=True, slots=True)
class Unlisted:
    """An entry of a source that is no file to be had: a broken line of a manifest, or a file that is not there. It counts as failed."""

    uri: str  # the file's name when it has one, else where the entry stands
    error: BinderyError
    nameless: bool = False  # it may stand for files that are named nowhere, which then only seem to be gone


class Listing(Protocol):
    """A source as a list. It can be walked again from the start, and is never held in memory as a whole."""

    def __iter__(self) -> Iterator[Listed | Unlisted]:
        """Raises a `BinderyError` when the source as a whole cannot be listed: half a list must not pass for all."""

    def opened(self, listed: Listed) -> AbstractContextManager[Source]:
        """The file's bytes, on disk or in memory, until the context is left. Any thread may call and leave.

        Raises the file's `BinderyError`, `SourceUnavailable` when another try may help.
        """


@dataclass(frozen=True, slots=True)
class Confined:
    """A listing whose files may lie only where they are allowed to: a manifest may name, and a link may lead to, any place."""

    listing: Listing
    allowed: Allowed

    def __iter__(self) -> Iterator[Listed | Unlisted]:
        for entry in self.listing:
            yield entry if isinstance(entry, Unlisted) or self.allowed(entry.uri) else Unlisted(entry.name, not_allowed(entry.name))

    @contextmanager
    def opened(self, listed: Listed) -> Iterator[Source]:
        if not self.allowed(listed.uri):  # it was when it was listed, but links can be changed
            raise not_allowed(listed.name)
        with self.listing.opened(listed) as source:
            yield source


def not_allowed(name: str) -> SourceNotAllowed:
    return SourceNotAllowed(f"{name} is not below a place that this server may index")


def open_listing(source: str, *, include: Sequence[str] = (), rules: Sequence[Rule] = (), allowed: Allowed = lambda _: True) -> Listing:
    """The listing of a folder, a manifest, WebDataset tars or an object store, confined to what is allowed.

    Raises `InvalidParameter` for what is none of them.
    """
    module, name = _place(source)
    return Confined(getattr(import_module(f"bindery.jobs.{module}"), name)(source, include, rules, allowed), allowed)


def _place(source: str) -> tuple[str, str]:
    """Module and class of a source; they are imported when they are used, since some need an extra."""
    if source.startswith("s3://"):
        return ("sources.objects", "ObjectListing")
    if Path(source).is_dir():
        return ("folder", "FolderListing")
    found = _BY_SUFFIX.get(PurePosixPath(source).suffix.lower())
    if found is None:
        known = ", ".join(_BY_SUFFIX)
        raise InvalidParameter(f"{source} is not a folder, a file of a known kind ({known}) or s3://BUCKET/PREFIX", pointer="/source")
    return found


def hidden(name: str) -> bool:
    """Whether a part of the name begins with a dot."""
    return any(part.startswith(".") for part in PurePosixPath(name).parts)


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
