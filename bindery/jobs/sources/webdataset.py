"""WebDataset tars as a source: each member a file, and a `KEY.json` the metadata of the files of its key.

The source names one tar or many: `shard-{000..127}.tar`, `{train,val}/*.tar`. Members are read where they lie.
Names are the tar's below the part without a pattern, then the member's: `shard-000.tar/00017.jpg`.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import re
import stat
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from bindery.errors import BinderyError, InvalidParameter, UnreadableMedia
from bindery.jobs.listing import Allowed, Listed, Rule, Unlisted, hidden, not_allowed, ruled, wanted
from bindery.jobs.retry import read_error
from bindery.jobs.sources.spool import spooled
from bindery.limits import MIB
from bindery.media.source import Source

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST_TARS = 100_000
_SIDECAR_BYTES = MIB
_PIECE = MIB


class TarListing:
    """Implements `Listing`. A tar that breaks off gives what it has, and an entry that says so."""

    def __init__(self, source: str, include: Sequence[str], rules: Sequence[Rule], allowed: Allowed) -> None:
        self._tars = _tars(source)
        self._names = dict(zip(self._tars, _below(source, self._tars), strict=True))
        self._include = include
        self._rules = rules
        self._allowed = allowed

    def __iter__(self) -> Iterator[Listed | Unlisted]:
        for tar, name in self._names.items():
            if not self._allowed(str(tar)):
                yield Unlisted(name, not_allowed(name))
                continue
            try:
                yield from self._members(tar, name)
            except (tarfile.TarError, OSError, EOFError) as error:
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                yield Unlisted(name, UnreadableMedia(f"{name} is no whole tar: {reason}"), nameless=True)

    @contextmanager
    def opened(self, listed: Listed) -> Iterator[Source]:
        tar = next(place for place in Path(listed.uri).parents if place in self._names)
        state, _, offset = listed.fingerprint.rpartition("@")
        try:
            file = tar.open("rb")
        except OSError as error:
            raise read_error(listed.name, error) from error
        with file:
            if _state(os.fstat(file.fileno())) != state:
                raise UnreadableMedia(f"{listed.name}: its tar has changed since it was listed; the next run takes it")
            file.seek(int(offset))
            with spooled(listed.name, _pieces(file, listed)) as source:
                yield source

    def _members(self, tar: Path, name: str) -> Iterator[Listed | Unlisted]:
        with tar.open("rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "not a file")
            for group in _groups(file):
                yield from self._group(file, tar, name, _state(found), group)

    def _group(self, file: BinaryIO, tar: Path, tar_name: str, state: str, group: Sequence[tarfile.TarInfo]) -> Iterator[Listed | Unlisted]:
        """The files of one key. Its `.json` is not one of them, unless it stands alone."""
        sidecar = next((member for member in group if len(group) > 1 and PurePosixPath(member.name).name.partition(".")[2] == "json"), None)
        metadata: Mapping[str, Any] | BinderyError = {} if sidecar is None else _metadata(file, sidecar, f"{tar_name}/{sidecar.name}")
        for member in group:
            path = PurePosixPath(member.name.lstrip("/"))
            name = f"{tar_name}/{path}"
            if member is sidecar or hidden(str(path)) or not wanted(name, self._include):
                continue
            if isinstance(metadata, BinderyError):
                yield Unlisted(name, metadata)
            elif member.issparse():
                yield Unlisted(name, UnreadableMedia(f"{name} is stored with holes, which is not read from tars"))
            else:
                fingerprint = f"{state}@{member.offset_data}"
                yield Listed(f"{tar}/{path}", name, member.size, ruled(name, self._rules), metadata, fingerprint)


def _walk(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep every member it has passed
            if member.isreg():
                yield member


def _groups(file: BinaryIO) -> Iterator[list[tarfile.TarInfo]]:
    """Members that follow each other and have one key. Raises `TarError` after the last whole one."""
    group: list[tarfile.TarInfo] = []
    broken: tarfile.TarError | None = None
    try:
        for member in _walk(file):
            if group and _key(member.name) != _key(group[0].name):
                yield group
                group = []
            group.append(member)
    except tarfile.TarError as error:
        broken = error
    if group:
        yield group
    if broken is not None:
        raise broken


def _metadata(file: BinaryIO, member: tarfile.TarInfo, name: str) -> Mapping[str, Any] | BinderyError:
    if member.size > _SIDECAR_BYTES:
        return InvalidParameter(f"{name} has {member.size} bytes; metadata has at most {_SIDECAR_BYTES}")
    try:
        found = json.loads(os.pread(file.fileno(), member.size, member.offset_data))
    except (ValueError, RecursionError) as error:
        return InvalidParameter(f"{name} is not JSON: {error}")
    return found if isinstance(found, dict) else InvalidParameter(f"{name} is not a JSON object")


def _pieces(file: BinaryIO, listed: Listed) -> Iterator[bytes]:
    left = listed.size
    while left:
        try:
            piece = file.read(min(left, _PIECE))
        except OSError as error:
            raise read_error(listed.name, error) from error
        if not piece:
            raise UnreadableMedia(f"{listed.name}: its tar breaks off inside it")
        left -= len(piece)
        yield piece


def _key(name: str) -> str:
    """WebDataset's: the folder, and the file's name up to its first dot."""
    path = PurePosixPath(name)
    return str(path.parent / path.name.partition(".")[0])


def _state(found: os.stat_result) -> str:
    return f"{found.st_size}-{found.st_mtime_ns}-{found.st_ino}"


def _tars(source: str) -> list[Path]:
    """Every tar that a pattern names, in its order. Raises `InvalidParameter` when one is missing, or there is none."""
    named: dict[Path, None] = {}
    for pattern in [source] if Path(source).is_file() else _spelled_out(source):
        if ".." in Path(pattern).parts and ".." not in Path(source).parts:
            raise InvalidParameter(f"{source}: braces may not lead upwards", pointer="/source")
        found = sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else [pattern]
        named |= dict.fromkeys(Path(os.path.abspath(path)) for path in found)
        if len(named) > _MOST_TARS:
            raise InvalidParameter(f"{source} names more than {_MOST_TARS} tars", pointer="/source")
    missing = [path for path in named if not path.exists()]
    if missing or not named:
        what = f"{missing[0]} is not there" if missing else "no file is of that name"
        raise InvalidParameter(f"{source}: {what}", pointer="/source")
    return list(named)


def _spelled_out(pattern: str) -> Iterator[str]:
    """Braces as in a shell: `{000..127}`, `{a,b}`."""
    found = _BRACES.search(pattern)
    if found is None:
        yield pattern
        return
    numbers = _RANGE.fullmatch(found[1])
    if numbers is None:
        choices = found[1].split(",")
    else:
        first, last = int(numbers[1]), int(numbers[2])
        if not 0 <= last - first < _MOST_TARS:
            raise InvalidParameter(f"{found[0]} names no tars, or more than {_MOST_TARS}", pointer="/source")
        choices = [f"{number:0{len(numbers[1])}}" for number in range(first, last + 1)]
    for choice in choices:
        yield from _spelled_out(pattern[: found.start()] + choice + pattern[found.end() :])


def _below(source: str, tars: Sequence[Path]) -> list[str]:
    """Their names below the part of the source that has no pattern: no two tars of one pattern share a name."""
    fixed = os.path.dirname(os.path.abspath(re.split(r"[*?\[{]", source, maxsplit=1)[0] + "x"))
    return [os.path.relpath(tar, fixed) for tar in tars]
