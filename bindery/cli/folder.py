"""A folder as a list of files with their modalities: by rule, or by suffix where that leaves no doubt."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from bindery.errors import InvalidParameter


@dataclass(frozen=True, slots=True)
class Rule:
    """Files that match the glob are of this modality. The first rule that matches decides."""

    glob: str
    modality: str


@dataclass(frozen=True, slots=True)
class Listed:
    path: Path
    id: str  # path below the folder, with forward slashes
    modality: str


@dataclass(frozen=True, slots=True)
class Listing:
    """``ambiguous``: by their suffix they could be several modalities and no rule decides. ``other``: of no known kind."""

    files: list[Listed]
    ambiguous: list[str]
    other: int


def list_folder(folder: Path, include: Sequence[str], rules: Sequence[Rule], suffixes: Mapping[str, Sequence[str]]) -> Listing:
    """All files below ``folder`` that are wanted, by modality and path. Hidden files and folders are left out.

    ``suffixes``: those of each modality. Raises `InvalidParameter` when the folder cannot be read.
    """
    if not folder.is_dir():
        raise InvalidParameter(f"{folder} is not a folder")
    files: list[Listed] = []
    ambiguous: list[str] = []
    other = 0
    for path in _walk(folder):
        id = path.relative_to(folder).as_posix()
        if include and not any(_matches(id, glob) for glob in include):
            continue
        ruled = next((rule.modality for rule in rules if _matches(id, rule.glob)), None)
        candidates = [ruled] if ruled else [name for name, known in suffixes.items() if path.suffix.lower() in known]
        if len(candidates) > 1 and "image" in candidates:
            candidates = ["image"]  # a PNG may hold depth or heat, but most hold pictures; a rule says otherwise
        if len(candidates) == 1:
            files.append(Listed(path, id, candidates[0]))
        elif candidates:
            ambiguous.append(id)
        else:
            other += 1
    return Listing(sorted(files, key=lambda file: (file.modality, file.id)), sorted(ambiguous), other)


def _walk(folder: Path) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        raise InvalidParameter(f"{error.filename} cannot be listed: {error.strerror}")

    for place, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(place, name) for name in names if not name.startswith("."))
        yield from (path for path in paths if path.is_file())  # no pipes and sockets: opening those may never end


def _matches(id: str, glob: str) -> bool:
    """A glob without a slash is about the name; one with a slash is about the whole path below the folder. ``*`` crosses slashes."""
    if "/" not in glob:
        return fnmatchcase(PurePosixPath(id).name, glob)
    return fnmatchcase(id, glob) or (glob.startswith("**/") and fnmatchcase(id, glob.removeprefix("**/")))
